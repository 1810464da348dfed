"""asv benchmarks of what stands before the matcher: files to tables, facts to tapes, books rebuilt."""

from __future__ import annotations

import gzip
import tempfile
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

import hftlab
from benchmarks import facts, itch
from benchmarks.scale import digest_of, kept, messages, read
from hftlab.codes import PRICE_SCALE
from hftlab.engine.runner import run_tape
from hftlab.results import tables
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.facts import read_facts

MESSAGES = messages(500_000)


def tape_of(table: pa.Table) -> hftlab.Tape:
    """Facts to a tape that rebuilds."""
    checked = read_facts(table)
    return compile_checked(checked, rules_for(checked.symbols, None, None))


class Lobster:
    """Half a million messages of a LOBSTER file."""

    params = ("plain", "gzip")
    param_names = ("container",)
    timeout = 300

    def setup_cache(self) -> dict[str, str]:
        """Write the file once, in both containers."""
        plain, _ = facts.write_lobster(Path(tempfile.mkdtemp()), MESSAGES)
        packed = plain.with_name(plain.name + ".gz")
        packed.write_bytes(gzip.compress(plain.read_bytes(), 6))
        return {"plain": str(plain), "gzip": str(packed)}

    def setup(self, paths: dict[str, str], container: str) -> None:
        """Warm the kernels."""
        self.path = paths[container]
        tape_of(hftlab.open_flow(self.path).table())

    def time_to_table(self, paths, container):
        """File to facts."""
        hftlab.open_flow(self.path).table()

    def time_to_tape(self, paths, container):
        """File to a tape."""
        tape_of(hftlab.open_flow(self.path).table())

    def peakmem_to_table(self, paths, container):
        """The same, in memory."""
        hftlab.open_flow(self.path).table()

    def track_digest(self, paths, container):
        """Of the books rebuilt: another number means another behaviour."""
        return digest_of(hftlab.open_flow(self.path).table(), "rebuild")

    track_digest.unit = "digest"


class Itch:
    """Half a million messages of NASDAQ ITCH 5.0."""

    params = (1, 100)
    param_names = ("symbols",)
    timeout = 300

    def setup_cache(self) -> dict[int, str]:
        """Write the files once."""
        folder = Path(tempfile.mkdtemp())
        return {symbols: str(itch.write_file(folder, MESSAGES, symbols)[0]) for symbols in self.params}

    def setup(self, paths: dict[int, str], symbols: int) -> None:
        """Warm the kernels."""
        self.path = paths[symbols]
        self.time_to_table(paths, symbols)
        self.time_to_l1(paths, symbols)

    def time_to_table(self, paths, symbols):
        """File to facts."""
        hftlab.open_flow(self.path).table()

    def time_to_l1(self, paths, symbols):
        """File to a table of every change of the touch."""
        itch.file_to_l1(Path(self.path))

    def peakmem_to_table(self, paths, symbols):
        """File to facts, in memory."""
        hftlab.open_flow(self.path).table()

    def track_digest(self, paths, symbols):
        """Of the books rebuilt: another number means another behaviour."""
        return digest_of(hftlab.open_flow(self.path).table(), "rebuild")

    track_digest.unit = "digest"


class Tables:
    """Half a million facts of a hundred instruments, as files of tables."""

    params = ("csv", "parquet")
    param_names = ("format",)
    timeout = 300

    def setup_cache(self) -> dict[str, str]:
        """Write both files once."""
        folder, table = Path(tempfile.mkdtemp()), facts.facts(MESSAGES, 100)
        pq.write_table(table, folder / "facts.parquet")
        texts = [
            pa.array(c.to_numpy()) if pa.types.is_timestamp(c.type) else c.cast(pa.string())
            for c in table.columns
        ]
        csv.write_csv(pa.table(texts, table.column_names), folder / "facts.csv")
        return {"csv": str(folder / "facts.csv"), "parquet": str(folder / "facts.parquet")}

    def setup(self, paths: dict[str, str], format: str) -> None:
        """Warm the reader."""
        self.time_to_table(paths, format)

    def time_to_table(self, paths, format):
        """File to facts."""
        self.table(paths, format)

    def peakmem_to_table(self, paths, format):
        """The same, in memory."""
        self.table(paths, format)

    def track_digest(self, paths, format):
        """Of the books rebuilt: another number means another behaviour."""
        return digest_of(self.table(paths, format), "rebuild")

    track_digest.unit = "digest"

    def table(self, paths: dict[str, str], format: str) -> pa.Table:
        """What the reader makes of the file."""
        options = {"price_scale": PRICE_SCALE} if format == "csv" else {}
        return hftlab.open_flow(paths[format], **options).table()


class Rebuild:
    """Half a million facts: the stages of a rebuild."""

    params = (1, 100)
    param_names = ("symbols",)
    timeout = 300

    def setup_cache(self) -> dict[str, str]:
        """Make the facts once."""
        return kept({str(symbols): partial(facts.facts, MESSAGES, symbols) for symbols in self.params})

    def setup(self, paths: dict[str, str], symbols: int) -> None:
        """Read the facts and warm every kernel that is timed."""
        self.table = read(paths[str(symbols)])
        self.checked = read_facts(self.table)
        self.rules = rules_for(self.checked.symbols, None, None)
        self.tape = compile_checked(self.checked, self.rules)
        self.run = run_tape(self.tape, touch=True)
        tables.l1_table(self.run)

    def time_check(self, paths, symbols):
        """A table to checked columns."""
        read_facts(self.table)

    def time_compile(self, paths, symbols):
        """Checked columns to a tape."""
        compile_checked(self.checked, self.rules)

    def time_run(self, paths, symbols):
        """A tape to books."""
        run_tape(self.tape)

    def time_run_with_l1(self, paths, symbols):
        """A tape to books and every change of the best bid and offer."""
        run_tape(self.tape, touch=True)

    def time_l1_table(self, paths, symbols):
        """Those changes as a table."""
        tables.l1_table(self.run)

    def peakmem_run(self, paths, symbols):
        """A tape to books, in memory."""
        run_tape(self.tape)

    def track_digest(self, paths, symbols):
        """Another number means another behaviour."""
        return digest_of(self.table, "rebuild")

    track_digest.unit = "digest"


class Trust:
    """Half a million facts: the commands behind them, and a certificate."""

    params = (1, 100)
    param_names = ("symbols",)
    timeout = 300

    def setup_cache(self) -> dict[str, str]:
        """Make the facts once."""
        return kept({str(symbols): partial(facts.facts, MESSAGES, symbols) for symbols in self.params})

    def setup(self, paths: dict[str, str], symbols: int) -> None:
        """Read the facts and warm every kernel that is timed."""
        self.table = read(paths[str(symbols)])
        self.time_certify(paths, symbols)

    def time_infer(self, paths, symbols):
        """Facts to commands."""
        hftlab.infer_orders(self.table)

    def time_certify(self, paths, symbols):
        """Rebuilt, matched, compared."""
        hftlab.certify(self.table)

    def track_reproduced(self, paths, symbols):
        """The share of executions reproduced: all of them, since the venue has our rules."""
        return hftlab.certify(self.table).execution_share
