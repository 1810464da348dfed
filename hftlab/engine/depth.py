"""A run of a tape for the depth of its books."""

from __future__ import annotations

import numpy as np

from hftlab.engine.merge import row_order
from hftlab.engine.plan import make_plan
from hftlab.engine.workers import BatchRun, Worker, empty_outputs, open_run, run_chunk
from hftlab.kernels.engine import batch
from hftlab.kernels.engine.event import NEEDS_ROOM
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.tape import Tape

DEPTH_STEP = 1 << 14


def run_depth(
    tape: Tape, levels: int, manager: RiskManager | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run a tape for its depth: (input rows [changes], books [changes], values [6, changes, levels]).

    Values are level, lots and orders of the bids, then of the asks; a level of -1 is none.
    """
    plan = make_plan(tape, manager=manager)
    run = open_run(plan, empty_outputs(tape, tape.width), manager)
    worker = DepthWorker(run, levels)
    for chunk in plan.chunks:
        run_chunk([worker], run.gate, chunk, None)
    (rows, books), values = np.concatenate(worker.changes, axis=1), np.concatenate(worker.values, axis=1)
    if tape.commands.order.size:
        rows = tape.input_rows(rows)
        order = row_order(rows)
        rows, books, values = rows[order], books[order], np.ascontiguousarray(values[:, order])
    return rows, books, values


class DepthWorker(Worker):
    """A worker for all of a tape that keeps the best levels after each command that changed them."""

    step = DEPTH_STEP

    def __init__(self, run: BatchRun, levels: int) -> None:
        """A worker for the only thread of a run, before its first row."""
        plan, tape = run.plan, run.plan.tape
        gate, visit = run.gate.shared if run.gate is not None else None, None
        if plan.tied:
            gate, visit = run.gate.in_order(plan.index_of_row, 0), plan.index_of_row
        super().__init__(plan, run.books, run.outputs, plan.partitions[0], gate, visit)
        room = DEPTH_STEP + 2 * len(tape.symbols)
        self.changes = [np.empty((2, 0), np.int64)]  # of each step: indices of commands, and books
        self.values = [np.empty((6, 0, levels), np.int64)]
        self._last = np.full((len(tape.symbols), 6, levels), -1, np.int64)
        self._last[:, [1, 2, 4, 5]] = 0
        self._written = np.empty((2, room), np.int64), np.empty((6, room, levels), np.int64)
        self._run(0, 0)  # takes the depth as it stands, so that it isn't a change

    def _run(self, start: int, stop: int) -> tuple[int, int, int]:
        """(Commands applied, fills written, changes written)."""
        tape = self.plan.tape
        return batch.run_depth(
            self.books,
            tape.grid,
            self.gate,
            tape.commands,
            self.outputs,
            start,
            stop,
            self.visit,
            self._last,
            *self._written,
        )

    def apply(self, start: int, stop: int) -> tuple[int, int]:
        """Apply commands [start, stop), or some where many books change at once, and keep the changes."""
        done, fills, count = self._run(start, stop)
        self.outputs = self.outputs._replace(fills=self.outputs.fills[fills:])
        changes, values = self._written
        self.changes.append(changes[:, :count].copy())
        self.values.append(values[:, :count].copy())
        return done, 0 if done else NEEDS_ROOM
