"""asv benchmarks of what a program in Python waits for: calls, the import, the first call."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import hftlab
from benchmarks.scale import kept, leading, messages, read
from hftlab.benchmark.cases import Case
from hftlab.benchmark.flows import make_flow
from hftlab.benchmark.session import first_start
from hftlab.benchmark.ways import Prepared, run_once, timed_calls
from hftlab.latency.histogram import Histogram

COMMANDS = messages(50_000)
PATHS = ("batch", "event", "python")


class Calls:
    """Fifty thousand commands through OrderBook, a call each; without a gate and with one."""

    params = (False, True)
    param_names = ("gate",)
    timeout = 300

    def setup_cache(self) -> dict[str, str]:
        """Make the flow once."""
        return kept({"market": partial(make_flow, "market", COMMANDS, 1)})

    def setup(self, paths: dict[str, str], gate: bool) -> None:
        """Prepare the rows and warm the kernels."""
        case = Case(path="python", orders=COMMANDS, risk=gate)
        self.prepared = Prepared(case, table=read(paths["market"]))
        run_once(self.prepared)

    def time_calls(self, paths, gate):
        """Books, calls bound to their arguments, and the calls."""
        run_once(self.prepared)

    def peakmem_calls(self, paths, gate):
        """The same, in memory."""
        run_once(self.prepared)

    def track_calls(self, paths, gate):
        """A call, without what prepares it."""
        return 1e9 * run_once(self.prepared)[0] / COMMANDS

    track_calls.unit = "ns"

    def track_p99(self, paths, gate):
        """The 99th percentile of the calls, each with one reading of the clock."""
        return Histogram(timed_calls(self.prepared)[0]).percentile(99)

    track_p99.unit = "ns"

    def track_digest(self, paths, gate):
        """Another number means another behaviour."""
        return leading(run_once(self.prepared)[1]())

    track_digest.unit = "digest"


class Views:
    """An OrderBook with fifty levels a side."""

    def setup(self) -> None:
        """Fill it, and warm the kernels."""
        self.book = hftlab.OrderBook(tick_size="0.01")
        for order_id in range(1_000):
            side, away = ("buy", -1) if order_id % 2 else ("sell", 1)
            self.book.submit(order_id, side, (10_000 + away * (1 + order_id % 50)) * 10_000_000, 5)
        self.time_depth()
        self.time_snapshot()

    def time_depth(self) -> None:
        """The ten best levels of each side."""
        self.book.depth(10)

    def time_snapshot(self) -> None:
        """All of it as bytes."""
        self.book.snapshot()


class Import:
    """A fresh interpreter."""

    def time_import(self) -> None:
        """`import hftlab`."""
        subprocess.run([sys.executable, "-c", "import hftlab"], check=True)

    def time_first_replay(self) -> None:
        """Interpreter, import, kernels from the cache and a small replay."""
        code = "import hftlab; hftlab.replay(hftlab.generate(1_000, 1, 1)).digest"
        subprocess.run([sys.executable, "-c", code], check=True)

    time_first_replay.warmup_time = 5.0  # fills the compile cache


class FirstCall:
    """The first call of a path in a fresh interpreter."""

    params = PATHS
    param_names = ("path",)
    timeout = 900

    def setup(self, path: str) -> None:
        """Fill the compile cache."""
        self.case = Case(path=path, orders=1_000)
        first_start(self.case)

    def track_cached(self, path):
        """Kernels from the compile cache."""
        return first_start(self.case).first_call_s

    track_cached.unit = "s"

    def track_compiled(self, path):
        """Kernels compiled: nothing is in the cache."""
        return first_start(self.case, cached=False).first_call_s

    track_compiled.unit = "s"
