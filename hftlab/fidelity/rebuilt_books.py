"""The rebuilt side of a comparison: books after any row of a flow, from a run folder or rebuilt here.

A run folder is accepted if its input file has not changed since. A source is rebuilt once: in memory, or, if
its books are too large, into a temporary run folder.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hftlab import schema as tables
from hftlab.codes import UNDEF_PRICE
from hftlab.config.settings import Config
from hftlab.errors import InputError, UsageError
from hftlab.feeds import Flow, open_flow
from hftlab.feeds.native import read_columns
from hftlab.fidelity.venue_books import SIDES
from hftlab.files import sha256_of
from hftlab.replayer.replayer import replay
from hftlab.results.run_folder import MANIFEST

BATCH_ROWS = 1 << 20  # of a flow in memory at a time
STATE_ROWS = 1 << 14  # of rebuilt books in memory at a time
IN_MEMORY_BYTES = 1 << 30  # of rebuilt books; more go through a file
BYTES_PER_LEVEL = 48
COLUMNS = ["seq", "symbol", *SIDES]


@dataclass(frozen=True)
class Rebuilt:
    """A source of rebuilt books."""

    name: str
    flow: Flow
    levels: int | None  # recorded; None where any number can be rebuilt
    states: Callable[[int, Callable[[], int | None], str], States]  # of (levels, last row needed, symbol)


def rebuilt_books(
    flow: Flow | str | Path, config: Config | None, options: dict[str, Any], stack: ExitStack
) -> Rebuilt:
    """The books of a run folder, or of a source opened with `options`; `stack` removes temporary files.

    Raises UsageError for options where none can be used or a folder without books, InputError for a run
    folder whose input is missing or has changed.
    """
    if isinstance(flow, str | Path) and Path(flow).is_dir():
        if options:
            raise UsageError(
                f"{flow}: found {', '.join(options)}, expected none: a run folder knows its input"
            )
        return _run_folder(Path(flow))
    if not isinstance(flow, Flow):
        flow = open_flow(flow, **options)
    elif options:
        raise UsageError(f"found {', '.join(options)}, expected none for a flow that is open already")
    return Rebuilt(str(flow.path), flow, None, partial(_replayed, flow, config, stack, {}))


def _replayed(
    flow: Flow,
    config: Config | None,
    stack: ExitStack,
    made: dict[str, Callable[[], Iterable[pa.RecordBatch]]],
    levels: int,
    last_row: Callable[[], int | None],
    symbol: str,
) -> States:
    """The books of a source, rebuilt once and no further than needed."""
    name = "l1" if levels == 1 else "depth"
    if name not in made:
        mode = "match" if flow.kind == "orders" else "rebuild"
        rows = flow.known_rows
        rebuild = partial(replay, mode=mode, record=(name,), depth=levels, config=config)
        if rows is not None and rows * levels * BYTES_PER_LEVEL <= IN_MEMORY_BYTES:
            last = last_row()
            part = flow if last is None else flow.table().slice(0, last + 1)
            table = rebuild(part).to_arrow(name, levels).select(COLUMNS)
            made[name] = partial(table.to_batches, max_chunksize=STATE_ROWS)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
            rebuild(flow, chunk_rows=BATCH_ROWS, out=folder)
            made[name] = partial(_batches, folder, name, levels)
    return States(made[name](), levels, symbol)


def _batches(folder: Path, name: str, depth: int) -> Iterator[pa.RecordBatch]:
    """A table of a run folder. Raises FormatError where its columns are not those of replay."""
    schema = tables.depth(depth) if name == "depth" else tables.L1
    wanted = pa.schema([schema.field(column) for column in COLUMNS])
    return read_columns(folder / f"{name}.parquet", wanted, STATE_ROWS)


def _run_folder(folder: Path) -> Rebuilt:
    """The books of a run folder, if its input is there and has not changed."""
    manifest = _manifest(folder)
    settings = manifest["config"]
    path = Path(manifest["input"]["path"])
    names = [name for name in ("depth", "l1") if name in manifest["tables"]]
    if not names:
        found = ", ".join(manifest["tables"]) or "no tables"
        command = f"hftlab replay {path} --mode rebuild --record depth --depth 10 --out DIR"
        raise UsageError(f"{folder}: found {found}, expected depth or l1: {command}")
    if settings["inferred_from"]:
        raise UsageError(
            f"{folder}: found commands inferred from facts (mode match), expected the facts themselves: "
            f"hftlab replay {path} --mode rebuild --record depth --out DIR"
        )
    if not path.is_file():
        raise InputError(f"{folder}: its input {path} is not there, expected it to know where events end")
    # books of another file would differ everywhere, and the fault would seem to be ours
    found = sha256_of(path)
    if found != manifest["input"]["sha256"]:
        was = manifest["input"]["sha256"]
        raise InputError(
            f"{folder}: its input {path} has changed: found sha256 {found[:16]}, expected {was[:16]}"
        )
    feed = settings.get("feed") or {}
    depth = settings["depth"] if names[0] == "depth" else 1

    def states(levels: int, _: Callable[[], int | None], symbol: str) -> States:
        return States(_batches(folder, names[0], depth), levels, symbol)

    return Rebuilt(str(folder), open_flow(path, **feed), depth, states)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: found no {MANIFEST}, expected a run folder (hftlab replay --out)")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["input"] is None:
            raise UsageError(f"{folder}: was made from a table in memory, expected an input file")
        known = {"tables": manifest["tables"], "config": manifest["config"], "input": manifest["input"]}
        # a manifest of another program may be JSON, too: these are needed below
        known["config"]["inferred_from"], known["config"]["depth"], known["input"]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: found a manifest that can't be read ({error}), expected replay's"
        ) from None
    return known


class States:
    """The books of one instrument after any row; rows come in ascending order.

    Depth and l1 tables have a row per change, so the book at a row is the last change up to it.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], levels: int, symbol: str) -> None:
        self._levels, self._symbol = levels, symbol
        self._changes = self._read(batches)
        self._seq = np.empty(0, np.int64)
        self._values = np.empty((4, 0, levels), np.int64)
        empty = np.array([UNDEF_PRICE, 0, UNDEF_PRICE, 0])
        self._before = np.repeat(empty[:, None, None], levels, axis=2)  # the book before the first of these

    def _read(self, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Changes as (seq, values [4, changes, levels])."""
        for batch in batches:
            chosen = batch.filter(pc.equal(batch.column("symbol").cast(pa.string()), self._symbol))
            yield (
                chosen.column("seq").to_numpy(),
                np.stack([self._side(chosen.column(side)) for side in SIDES]),
            )

    def _side(self, column: pa.Array) -> np.ndarray:
        """[changes, levels]; UNDEF_PRICE where there is none."""
        if pa.types.is_fixed_size_list(column.type):
            return column.flatten().to_numpy().reshape(len(column), -1)[:, : self._levels]
        return column.fill_null(UNDEF_PRICE).to_numpy()[:, None]

    def at(self, rows: np.ndarray) -> np.ndarray:
        """The books after these rows: int64 [4, rows, levels]."""
        chunks = [(self._seq, self._values)]
        while rows.size and (not chunks[-1][0].size or chunks[-1][0][-1] < rows[-1]):
            chunk = next(self._changes, None)
            if chunk is None:
                break
            if chunk[0].size:
                chunks.append(chunk)
        seq = np.concatenate([chunk[0] for chunk in chunks])
        values = np.concatenate([self._before, *(chunk[1] for chunk in chunks)], axis=1)
        last = np.searchsorted(seq, rows, side="right")
        found = values[:, last]
        # drop what lies before the last row: the next rows are later ones
        keep = int(last[-1]) if rows.size else 0
        self._before, self._seq, self._values = values[:, keep : keep + 1], seq[keep:], values[:, keep + 1 :]
        return found
