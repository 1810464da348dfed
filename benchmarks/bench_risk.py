"""asv benchmarks of the risk gate: each kind of check alone, all together, and the flow without a gate."""

from __future__ import annotations

from functools import partial

from benchmarks.risk import OF_ACCOUNTS, OF_BOOK, OF_ROWS, OF_STREAM, flow, manager_of, stages, tape_of
from benchmarks.scale import digest_of, kept, messages, read
from hftlab.engine.runner import run_events, run_tape
from hftlab.latency.profiler import LatencyProfiler

COMMANDS = messages(1_000_000)
GATES = {
    "none": None,
    "rows": OF_ROWS,
    "stream": OF_STREAM,
    "book": OF_BOOK,
    "accounts": OF_ACCOUNTS,
    "all": OF_ROWS | OF_STREAM | OF_BOOK | OF_ACCOUNTS,
}


class Gates:
    """Milliseconds per kind of check: a million commands, 1,000 accounts, 100 symbols; kernels are warm."""

    params = tuple(GATES)
    param_names = ("checks",)
    timeout = 600

    def setup_cache(self) -> dict[str, str]:
        """Make the flow once."""
        return kept({"flow": partial(flow, COMMANDS)})

    def setup(self, paths: dict[str, str], name: str) -> None:
        """Compile the flow and warm every kernel that is timed."""
        self.table = read(paths["flow"])
        self.tape = tape_of(self.table)
        self.time_run(paths, name)
        self.time_events(paths, name)
        self.time_stages(paths, name)
        self.profiler = LatencyProfiler()
        self.track_p99(paths, name)

    def manager(self, name: str):
        """A gate of no history, or None."""
        return None if GATES[name] is None else manager_of(GATES[name])

    def time_run(self, paths, name):
        """A tape through the batch kernel."""
        run_tape(self.tape, manager=self.manager(name))

    def time_events(self, paths, name):
        """The same rows one event at a time, in a compiled loop."""
        run_events(self.tape, manager=self.manager(name))

    def time_stages(self, paths, name):
        """What comes before a run: numbering of cells, and checks 1 to 7."""
        if GATES[name] is not None:
            stages(self.tape, GATES[name])

    def peakmem_run(self, paths, name):
        """A tape through the batch kernel, in memory."""
        run_tape(self.tape, manager=self.manager(name))

    def track_p99(self, paths, name):
        """The 99th percentile of the service in the event loop."""
        profile = self.profiler.run(self.tape, self.manager(name), warmup=0)
        return profile.service.percentile(99)

    track_p99.unit = "ns"

    def track_digest(self, paths, name):
        """Another number means another behaviour."""
        return digest_of(self.table, limits=GATES[name])

    track_digest.unit = "digest"
