"""asv benchmarks of the risk gate: each kind of check alone, all together, and the flow without a gate."""

from __future__ import annotations

import hftlab
from benchmarks.risk import OF_ACCOUNTS, OF_BOOK, OF_ROWS, OF_STREAM, flow, manager_of, stages, tape_of
from hftlab.runner import run_events, run_tape

COMMANDS = 1_000_000
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

    def setup(self, name: str) -> None:
        """Compile the flow and warm every kernel that is timed."""
        self.table = flow(COMMANDS)
        self.tape = tape_of(self.table)
        self.time_run(name)
        self.time_events(name)

    def manager(self, name: str):
        """A gate of no history, or None."""
        return None if GATES[name] is None else manager_of(GATES[name])

    def time_run(self, name):
        """A tape through the batch kernel."""
        run_tape(self.tape, manager=self.manager(name))

    def time_events(self, name):
        """The same rows one event at a time, in a compiled loop."""
        run_events(self.tape, manager=self.manager(name))

    def time_stages(self, name):
        """What comes before a run: numbering of cells, and checks 1 to 7."""
        if GATES[name] is not None:
            stages(self.tape, GATES[name])

    def track_digest(self, name):
        """The first 52 bits of the digest: another number means another behaviour."""
        limits = None if GATES[name] is None else hftlab.Limits(**GATES[name])
        return int(hftlab.replay(self.table, limits=limits).digest[:13], 16)

    track_digest.unit = "digest"
