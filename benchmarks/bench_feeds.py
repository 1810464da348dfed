"""asv benchmarks of what stands before the matcher: files to tables, facts to tapes, books rebuilt."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

import hftlab
from benchmarks import facts
from hftlab import outputs
from hftlab.codes import PRICE_SCALE
from hftlab.runner import run_tape
from hftlab.tables import read_facts
from hftlab.tape import compile_checked, rules_for

MESSAGES = 500_000


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
        options = {"price_scale": PRICE_SCALE} if format == "csv" else {}
        hftlab.open_flow(paths[format], **options).table()


class Rebuild:
    """Half a million facts: the stages of a rebuild."""

    params = (1, 100)
    param_names = ("symbols",)
    timeout = 300

    def setup(self, symbols: int) -> None:
        """Make the facts and warm every kernel that is timed."""
        self.table = facts.facts(MESSAGES, symbols)
        self.checked = read_facts(self.table)
        self.rules = rules_for(self.checked.symbols, None, None)
        self.tape = compile_checked(self.checked, self.rules)
        self.run = run_tape(self.tape, touch=True)
        outputs.l1_table(self.run)

    def time_check(self, symbols):
        """A table to checked columns."""
        read_facts(self.table)

    def time_compile(self, symbols):
        """Checked columns to a tape."""
        compile_checked(self.checked, self.rules)

    def time_run(self, symbols):
        """A tape to books."""
        run_tape(self.tape)

    def time_run_with_l1(self, symbols):
        """A tape to books and every change of the best bid and offer."""
        run_tape(self.tape, touch=True)

    def time_l1_table(self, symbols):
        """Those changes as a table."""
        outputs.l1_table(self.run)

    def track_digest(self, symbols):
        """The first 52 bits of the digest: another number means another behaviour."""
        return int(hftlab.replay(self.table, mode="rebuild").digest[:13], 16)

    track_digest.unit = "digest"


class Trust:
    """Half a million facts: the commands behind them, and a certificate."""

    params = (1, 100)
    param_names = ("symbols",)
    timeout = 300

    def setup(self, symbols: int) -> None:
        """Make the facts and warm every kernel that is timed."""
        self.table = facts.facts(MESSAGES, symbols)
        self.time_certify(symbols)

    def time_infer(self, symbols):
        """Facts to commands."""
        hftlab.infer_orders(self.table)

    def time_certify(self, symbols):
        """Rebuilt, matched, compared."""
        hftlab.certify(self.table)

    def track_reproduced(self, symbols):
        """The share of executions reproduced: all of them, since the venue has our rules."""
        return hftlab.certify(self.table).execution_share
