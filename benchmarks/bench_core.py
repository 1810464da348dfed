"""asv benchmarks of the core: each stage on one symbol and on a hundred, with digests beside the times.

A speed is only comparable where the result is the same, so `track_digest` goes with every flow: its value
changes exactly when what the engine does changes.
"""

from __future__ import annotations

from functools import partial

import hftlab
from benchmarks.scale import digest_of, kept, messages
from hftlab.engine.runner import run_events, run_tape
from hftlab.latency.profiler import LatencyProfiler
from hftlab.results import tables
from hftlab.results.digest import Digest
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.tables import read_orders

FLOWS = {"one": 1, "hundred": 100}  # symbols
COMMANDS = messages(1_000_000)


class Stages:
    """Milliseconds per stage of a million commands; kernels are warm."""

    params = tuple(FLOWS)
    param_names = ("symbols",)
    timeout = 300

    def setup_cache(self) -> dict[str, str]:
        """Make the flows once, on disk."""
        make = partial(hftlab.generate, COMMANDS, seed=1)
        return kept({name: partial(make, symbols=symbols) for name, symbols in FLOWS.items()})

    def setup(self, paths: dict[str, str], name: str) -> None:
        """Read the flow and warm every kernel that is timed."""
        self.table = hftlab.open_flow(paths[name]).table()
        self.checked = read_orders(self.table)
        self.rules = rules_for(self.checked.symbols, None, None)
        self.tape = compile_checked(self.checked, self.rules)
        self.halves = compile_checked(self.checked, self.rules, parts=2)
        self.run = run_tape(self.tape)
        self.fills = tables.expand_fills(self.run)
        Digest().add_run(self.run, self.fills)
        run_events(self.tape)
        run_tape(self.halves, 2)
        self.profiler = LatencyProfiler()
        self.track_p99(paths, name)
        self.time_replay(paths, name)

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
        tables.fills_table(self.tape, tables.expand_fills(self.run))

    def time_digest(self, paths, name):
        """The digest of a run."""
        Digest().add_run(self.run, self.fills)

    def time_replay(self, paths, name):
        """A table to a result with fills and outcomes."""
        result = hftlab.replay(self.table)
        result.to_arrow("fills")
        result.to_arrow("outcomes")

    def peakmem_flow(self, paths, name):
        """What the process holds before anything below begins: flow, tapes, kernels."""

    def peakmem_compile(self, paths, name):
        """Checked columns to a tape, in memory."""
        compile_checked(self.checked, self.rules)

    def peakmem_run(self, paths, name):
        """A tape through the batch kernel, in memory."""
        run_tape(self.tape)

    def peakmem_events(self, paths, name):
        """One event at a time, in memory."""
        run_events(self.tape)

    def peakmem_replay(self, paths, name):
        """A table to its fills, in memory."""
        hftlab.replay(self.table).to_arrow("fills")

    def track_p99(self, paths, name):
        """The 99th percentile of the service in the event loop."""
        return self.profiler.run(self.tape, warmup=0).service.percentile(99)

    track_p99.unit = "ns"

    def track_jitter(self, paths, name):
        """The 99th percentile less the median, of the same."""
        return self.profiler.run(self.tape, warmup=0).service.jitter

    track_jitter.unit = "ns"

    def track_digest(self, paths, name):
        """Another number means another behaviour."""
        return digest_of(self.table)

    track_digest.unit = "digest"
