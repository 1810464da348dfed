"""Instruments side by side although limits tie them together: docs/RISK.md, the fourth kind of check.

Portfolio values and stop losses of accounts, and kill switches for all books, depend on every instrument at
once. Workers run as if none of them bound, an audit follows in input order; where the audit finds a row at
which one may have bound, the tape is run again up to that row, and from there on in input order.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hftlab.engine.merge import fills_in_input_order, touch_in_input_order
from hftlab.engine.plan import Chunk, RunPlan, chunks_between_audits, chunks_from
from hftlab.engine.workers import BatchRun, Progress, Worker, open_run, run_chunk
from hftlab.kernels.book.ladder import mark_levels
from hftlab.kernels.book.touch import TOUCH_WIDTH
from hftlab.kernels.engine.audit import Trail, audit, reached_checks
from hftlab.kernels.engine.batch import Outputs
from hftlab.kernels.risk_gate.gate import CHECKS_PORTFOLIO
from hftlab.kernels.risk_gate.records import MID
from hftlab.risk_gate.manager import RiskManager


def run_tied(
    plan: RunPlan,
    outputs: Outputs,
    manager: RiskManager,
    before: RiskManager,
    progress: Progress | None,
) -> BatchRun:
    """Run a tape whose partitions are tied together, side by side for as long as nothing comes of that.

    `before` is a copy of the manager.
    """
    run, until = open_run(plan, outputs, manager), plan.apart_until
    touched = run_side_by_side(run, until, progress)
    if touched < until:
        manager.restore(before)
        run = open_run(plan, outputs, manager)
        run_side_by_side(run, touched, None)
    run_in_order(run, touched, progress)
    run.fell_back = plan.tape.rows - touched if plan.threads > 1 else 0
    return run


def run_side_by_side(run: BatchRun, until: int, progress: Progress | None) -> int:
    """Run rows before `until` on threads; the first at which a limit may bind, else `until`."""
    if until == 0:
        return 0
    gate = run.gate.unbound()
    money = MoneyAudit(run, gate.owners) if run.gate.manager.has_money else None
    plan = replace(run.plan, touch=run.plan.touch or (money is not None and money.needs_touch))
    run.workers = [Worker(plan, run.books, run.outputs, own, gate) for own in plan.partitions]
    for chunk in chunks_between_audits(plan.chunks, until):
        run_chunk(run.workers, run.gate, chunk, progress)
        touched = money.first_touch(run.workers, chunk) if money is not None else chunk.stop
        if touched < chunk.stop:
            return touched
    mark_levels(run.books)
    if money is not None:
        money.settle()
    return until


def run_in_order(run: BatchRun, first_row: int, progress: Progress | None) -> None:
    """Run the rows from `first_row` on one after the other."""
    plan = run.plan
    if first_row == plan.tape.rows:
        return
    gate = run.gate.in_order(plan.index_of_row, first_row)
    worker = Worker(plan, run.books, run.outputs, plan.whole, gate, visit=plan.index_of_row)
    for chunk in chunks_from(plan.chunks, first_row):
        run_chunk([worker], run.gate, chunk, progress)
    run.workers.append(worker)


class MoneyAudit:
    """Accounts' money, rebuilt in input order from what workers have written."""

    def __init__(self, run: BatchRun, owners: np.ndarray) -> None:
        """An audit of a run before its first row; workers note in `owners` whose order a REPLACE was."""
        manager, shared = run.gate.manager, run.gate.shared
        self._tape, self._run, self._index_of_row = run.plan.tape, run.gate, run.plan.index_of_row
        self._outcomes = run.outputs.outcomes
        self._gate = shared._replace(
            holdings=manager.holdings.copy(),
            symbols=manager.symbols.copy(),
            counts=shared.counts.copy(),
            owners=owners,
        )
        self._books = run.books._replace(heads=run.books.heads.copy())
        self._may_refuse = bool(shared.counts[CHECKS_PORTFOLIO]) or run.gate.has_struck
        self.needs_touch = bool((manager.symbols["kind"] == MID).any())
        self._reached = reached_checks()
        self._read: dict[Worker, tuple[int, int]] = {}  # fills and touches of each worker so far

    def first_touch(self, workers: list[Worker], chunk: Chunk) -> int:
        """The first row of a chunk that workers have run at which a limit may bind, or the chunk's end."""
        fills, touches = self._written_since(workers)
        trail = Trail(
            fills,
            touches,
            self._outcomes,
            self._index_of_row,
            self._run.row_holdings,
            self._reached,
            self._run.manager.index,
        )
        grid, columns = self._tape.grid, self._tape.checked.columns
        first, stop, _ = chunk
        return int(audit(self._books, grid, self._gate, columns, trail, self._may_refuse, first, stop))

    def _written_since(self, workers: list[Worker]) -> tuple[np.ndarray, np.ndarray]:
        """Fills and touches since the last time, in input order."""
        fills, touches = [], [np.empty((0, TOUCH_WIDTH), np.int64)]
        for worker in workers:
            fill, touch = self._read.get(worker, (0, 0))
            fills.append(worker.written_fills[fill:])
            if self.needs_touch:
                touches.append(worker.written_touch[touch:])
            self._read[worker] = worker.fills, worker.touches
        return (  # of copies: what workers have written is put in order once more in the end
            fills_in_input_order(self._tape, [np.concatenate(fills)]),
            touch_in_input_order(self._tape, [np.concatenate(touches)]),
        )

    def settle(self) -> None:
        """Bring what the workers did not know into the manager."""
        holdings, symbols = self._run.manager.holdings, self._run.manager.symbols
        for name in ("traded", "stopped"):
            holdings[name] = self._gate.holdings[name]
        for name in ("mark", "has_mark"):
            symbols[name] = self._gate.symbols[name]
