"""A tape on disk: one Arrow IPC file, mapped into memory on load.

One record batch; a row per array, its bytes padded to 64 so that each starts aligned; everything else as
JSON in the schema's metadata. Arrays are used where they lie in the file: loading a tape of any size costs
a few milliseconds.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hftlab.errors import FormatError
from hftlab.kernels.book.columns import Columns
from hftlab.kernels.book.price_grid import RULE, Grid
from hftlab.kernels.book.records import COMMAND, NARROW, WIDE
from hftlab.kernels.engine.batch import Commands
from hftlab.kernels.primitives.hash_index import ENTRY
from hftlab.resting import Resting
from hftlab.run_folder import new_file
from hftlab.tables import CheckedTable, frozen
from hftlab.tape import Invalid, Tape

FORMAT = b"hftlab.tape"
VERSION = 2
ALIGNMENT = 64

_NAMED = {"command32": COMMAND[NARROW], "command64": COMMAND[WIDE], "rule": RULE, "entry": ENTRY}
_SCHEMA = pa.schema([("name", pa.string()), ("data", pa.large_binary())])


def _arrays(tape: Tape) -> dict[str, np.ndarray]:
    """Every array of a tape, by a name that says where it belongs."""
    groups: dict[str, Any] = {
        "commands": tape.commands._asdict(),
        "grid": tape.grid._asdict(),
        "columns": tape.checked.columns._asdict(),
        "opening": tape.opening._asdict(),
        "invalid": vars(tape.invalid),
        "tape": {
            "ts": tape.checked.ts,
            "seq": tape.checked.seq,
            "opening_levels": tape.opening_levels,
            "parts": tape.parts,
        },
    }
    return {f"{group}.{name}": array for group, arrays in groups.items() for name, array in arrays.items()}


def save_tape(tape: Tape, path: str | Path) -> None:
    """Write a tape. Raises OutputError where it can't be written; an older file stays until then."""
    arrays = _arrays(tape)
    padded = [_padded(array) for array in arrays.values()]
    facts = {
        "version": VERSION,
        "arrays": [
            {"dtype": _dtype_name(a.dtype), "length": a.size, "crc32": zlib.crc32(data)}
            for a, data in zip(arrays.values(), padded, strict=True)
        ],
        "symbols": list(tape.symbols),
        "slots": tape.slots,
        "incoming": tape.incoming,
        "has_accounts": tape.has_accounts,
        "rows": tape.checked.rows,
        "first_row": tape.checked.first_row,
        "facts": tape.checked.facts,
    }
    schema = _SCHEMA.with_metadata({FORMAT: json.dumps(facts).encode()})
    with new_file(path) as target, pa.ipc.new_file(target, schema) as file:
        columns = [pa.array(list(arrays)), pa.array(padded, pa.large_binary())]
        file.write_batch(pa.record_batch(columns, schema=schema))


def _padded(array: np.ndarray) -> bytes:
    data = np.ascontiguousarray(array).tobytes()
    return data + bytes(-len(data) % ALIGNMENT)


def _dtype_name(dtype: np.dtype) -> str:
    return next((name for name, named in _NAMED.items() if named == dtype), dtype.str)


def load_tape(path: str | Path, verify: bool = False) -> Tape:
    """Map a tape; with `verify` every byte is read and compared with its checksum.

    Raises FormatError for a file that is missing, not a tape, not whole, or of another version.
    """
    try:
        with pa.memory_map(str(path)) as source:
            batch = pa.ipc.open_file(source).read_all()
    except FileNotFoundError:
        raise FormatError(path, "no such file", "a saved tape") from None
    except (pa.ArrowException, OSError) as error:
        found = f"a file that is broken or cut off ({str(error).splitlines()[0]})"
        raise FormatError(path, found, "a saved tape") from None
    metadata = batch.schema.metadata or {}
    if FORMAT not in metadata:
        raise FormatError(path, "an Arrow file of something else", "a saved tape")
    facts = json.loads(metadata[FORMAT])
    if facts["version"] != VERSION:
        raise FormatError(path, f"tape format {facts['version']}", f"format {VERSION}: compile it again")
    return _tape(facts, _read(path, batch, facts["arrays"], verify))


def _read(
    path: str | Path, table: pa.Table, described: list[dict[str, Any]], verify: bool
) -> dict[str, np.ndarray]:
    names = table.column("name").to_pylist()
    if table.num_rows != len(described):
        raise FormatError(path, f"{table.num_rows} arrays", f"{len(described)}: the file is not whole")
    arrays = {}
    for name, cell, what in zip(names, table.column("data"), described, strict=True):
        data = cell.as_buffer()
        dtype = _NAMED.get(what["dtype"]) or np.dtype(what["dtype"])
        if data.size < dtype.itemsize * what["length"]:
            raise FormatError(path, f"{data.size} bytes of {name}", f"{dtype.itemsize * what['length']}")
        if verify and zlib.crc32(data) != what["crc32"]:
            raise FormatError(path, f"changed bytes in {name}", "the checksum it was saved with")
        arrays[name] = frozen(np.frombuffer(data, dtype, what["length"]), dtype)
    return arrays


def _tape(facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> Tape:
    def group(name: str, kind: type) -> Any:
        prefix = f"{name}."
        return kind(**{k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})

    symbols = tuple(facts["symbols"])
    checked = CheckedTable(
        facts["rows"],
        group("columns", Columns),
        symbols,
        arrays["tape.ts"],
        facts["first_row"],
        arrays["tape.seq"],
        facts["facts"],
    )
    return Tape(
        group("commands", Commands),
        group("grid", Grid),
        symbols,
        checked,
        facts["slots"],
        group("opening", Resting),
        arrays["tape.opening_levels"],
        group("invalid", Invalid),
        facts["incoming"],
        arrays["tape.parts"],
        facts["has_accounts"],
    )
