"""asv benchmarks of the core: each stage on one symbol and on a hundred, with digests beside the times.

A speed is only comparable where the result is the same, so `track_digest` goes with every flow: its value
changes exactly when what the engine does changes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import hftlab
import hftlab.synthetic
from hftlab import outputs
from hftlab.runner import run_events, run_tape
from hftlab.tables import read_orders
from hftlab.tape import compile_checked, rules_for

FLOWS = {"one": (1_000_000, 1), "hundred": (1_000_000, 100)}  # commands, symbols


class Stages:
    """Milliseconds per stage of a million commands; kernels are warm."""

    params = tuple(FLOWS)
    param_names = ("symbols",)
    timeout = 300

    def setup_cache(self) -> dict[str, str]:
        """Make the flows once, on disk."""
        folder = Path(tempfile.mkdtemp())
        for name, (messages, symbols) in FLOWS.items():
            hftlab.synthetic.write(folder / f"{name}.parquet", messages, symbols, seed=1)
        return {name: str(folder / f"{name}.parquet") for name in FLOWS}

    def setup(self, paths: dict[str, str], name: str) -> None:
        """Read the flow and warm every kernel that is timed."""
        self.table = hftlab.open_flow(paths[name]).table()
        self.checked = read_orders(self.table)
        self.rules = rules_for(self.checked.symbols, None, None)
        self.tape = compile_checked(self.checked, self.rules)
        self.halves = compile_checked(self.checked, self.rules, parts=2)
        self.run = run_tape(self.tape)
        self.fills = outputs.expand_fills(self.run)
        outputs.Digest().add_run(self.run, self.fills)
        run_events(self.tape)

    def time_check(self, paths, name):
        """A table to checked columns."""
        read_orders(self.table)

    def time_compile(self, paths, name):
        """Checked columns to a tape."""
        compile_checked(self.checked, self.rules)

    def time_run(self, paths, name):
        """A tape through the batch kernel."""
        run_tape(self.tape)

    def time_run_two_threads(self, paths, name):
        """A tape of two parts on two threads."""
        run_tape(self.halves, 2)

    def time_events(self, paths, name):
        """The same rows one event at a time, in a compiled loop."""
        run_events(self.tape)

    def time_fills_table(self, paths, name):
        """Fill records to an Arrow table."""
        outputs.fills_table(self.tape, outputs.expand_fills(self.run))

    def time_digest(self, paths, name):
        """The digest of a run."""
        outputs.Digest().add_run(self.run, self.fills)

    def time_replay(self, paths, name):
        """A table to a result with fills and outcomes."""
        result = hftlab.replay(self.table)
        result.to_arrow("fills")
        result.to_arrow("outcomes")

    def peakmem_replay(self, paths, name):
        """The same, in memory."""
        hftlab.replay(self.table).to_arrow("fills")

    def track_digest(self, paths, name):
        """The first 52 bits of the digest: another number means another behaviour."""
        return int(hftlab.replay(self.table).digest[:13], 16)

    track_digest.unit = "digest"


class Calls:
    """A thousand Python calls on an OrderBook."""

    def setup(self) -> None:
        """A book with a ladder around the prices used."""
        self.book = hftlab.OrderBook(tick_size="0.01")
        self.prices = [(10_000 + i % 50) * 10_000_000 for i in range(1_000)]
        self.time_submit_and_cancel()

    def time_submit_and_cancel(self) -> None:
        """A thousand resting orders in and out."""
        for order_id, price in enumerate(self.prices):
            self.book.submit(order_id, "buy", price, 5)
        for order_id in range(1_000):
            self.book.cancel(order_id)

    def time_depth(self) -> None:
        """The ten best levels of each side."""
        self.book.depth(10)


class Start:
    """Fresh interpreters."""

    timeout = 120

    def setup(self) -> None:
        """Fill the compile cache."""
        self.time_first_replay()

    def time_import(self) -> None:
        """`import hftlab`."""
        subprocess.run([sys.executable, "-c", "import hftlab"], check=True)

    def time_first_replay(self) -> None:
        """Interpreter, import, kernels from the cache and a small replay."""
        code = "import hftlab; hftlab.replay(hftlab.generate(1_000, 1, 1)).digest"
        subprocess.run([sys.executable, "-c", code], check=True)
