"""One tape, run once: by the batch kernel over instruments in threads, or one event at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from time import perf_counter

import numpy as np

from hftlab.engine.live_books import Venue
from hftlab.engine.merge import fills_in_input_order, touch_in_input_order
from hftlab.engine.plan import RunPlan, make_plan
from hftlab.engine.speculation import run_tied
from hftlab.engine.workers import (
    STEP,
    BatchRun,
    Progress,
    Worker,
    drive,
    empty_outputs,
    longer,
    open_gate,
    open_run,
    resting_in,
    run_chunk,
)
from hftlab.kernels.book.ladder import mark_levels
from hftlab.kernels.book.records import WIDE
from hftlab.kernels.book.touch import TOUCH_WIDTH, start_touch
from hftlab.kernels.engine import event
from hftlab.kernels.engine.batch import Outputs
from hftlab.kernels.primitives import memory
from hftlab.kernels.results.tables import put_in_order
from hftlab.kernels.risk_gate.risk import Risk
from hftlab.risk_gate.gate_run import GateOutputs, own_room, with_buffers, with_more_room
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.open_orders import Resting
from hftlab.tape.tables import ABSENT
from hftlab.tape.tape import Tape


@dataclass
class TapeRun:
    """What one run of a tape left behind, as the kernels wrote it."""

    tape: Tape
    fills: np.ndarray  # FILL, in input order; `row` is the input row
    maker_ids: np.ndarray  # int64 by fill, or [0]: the tape knows them
    outcomes: np.ndarray  # uint8 by position
    filled: np.ndarray  # lots by position
    leaves: np.ndarray
    touch: np.ndarray | None  # int64 [changes, TOUCH_WIDTH] in input order, if recorded
    resting: Callable[[], Resting]
    seconds: float
    ordered: bool = False  # whether positions are input rows although the tape has several parts
    gate: GateOutputs | None = None  # what the risk gate wrote, if there was one
    manager: RiskManager | None = None  # the gate as it was before
    fell_back: int = 0  # rows run in input order after a limit on money was touched

    @cached_property
    def open_orders(self) -> Resting:
        """The book after the last command."""
        return self.resting()

    @property
    def order(self) -> np.ndarray:
        """Input row of each position, or [0] where that is the position."""
        return ABSENT["i4"] if self.ordered else self.tape.commands.order

    def gate_before(self) -> RiskManager | None:
        """The gate as it was before the run, to run the tape again."""
        return self.manager.copy() if self.manager is not None else None

    @cached_property
    def by_row(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Status (int8), filled and leaves lots (int64) by input row."""
        columns = tuple(
            memory.empty_together(*[(self.outcomes.size, t) for t in (np.int8, np.int64, np.int64)])
        )
        put_in_order(self.outcomes, self.filled, self.leaves, self.order, *columns)
        return columns


def run_tape(
    tape: Tape,
    threads: int = 1,
    touch: bool = False,
    progress: Progress | None = None,
    manager: RiskManager | None = None,
) -> TapeRun:
    """Run a tape with the batch kernel, behind a risk gate if there is a `manager`."""
    outputs = empty_outputs(tape, tape.width)
    before = manager.copy() if manager is not None else None
    start = perf_counter()
    plan = make_plan(tape, threads, manager, touch)
    if plan.tied:
        run = run_tied(plan, outputs, manager, before, progress)
    else:
        run = run_apart(plan, outputs, manager, progress)
    seconds = perf_counter() - start
    return _merged(run, before, seconds)


def run_apart(
    plan: RunPlan, outputs: Outputs, manager: RiskManager | None, progress: Progress | None
) -> BatchRun:
    """Run a tape whose partitions have nothing to do with one another, or that has one."""
    run = open_run(plan, outputs, manager)
    gate = run.gate.shared if run.gate is not None else None
    run.workers = [Worker(plan, run.books, outputs, own, gate) for own in plan.partitions]
    for chunk in plan.chunks:
        run_chunk(run.workers, run.gate, chunk, progress)
    if len(run.workers) > 1:
        mark_levels(run.books)
    return run


def _merged(run: BatchRun, before: RiskManager | None, seconds: float) -> TapeRun:
    """What the workers of a run have written, in input order."""
    tape, outputs, workers = run.plan.tape, run.outputs, run.workers
    touch = [worker.written_touch for worker in workers] if run.plan.touch else None
    return TapeRun(
        tape,
        fills_in_input_order(tape, [worker.written_fills for worker in workers]),
        ABSENT["i8"],
        outputs.outcomes,
        outputs.filled,
        outputs.leaves,
        touch_in_input_order(tape, touch) if touch is not None else None,
        partial(resting_in, run.books, tape),
        seconds,
        gate=run.gate.outputs([worker.gate for worker in workers]) if run.gate is not None else None,
        manager=before,
        fell_back=run.fell_back,
    )


# ------------------------------------------------------------------ one event at a time


def run_events(
    tape: Tape,
    touch: bool = False,
    progress: Progress | None = None,
    manager: RiskManager | None = None,
    kernel: Callable = event.run_events,
) -> TapeRun:
    """Run the raw rows of a tape one event at a time: ids hashed, slots recycled, prices looked up.

    `kernel` is `run_events`, or one that takes and gives the same and measures what it does.
    """
    before = manager.copy() if manager is not None else None
    plan = make_plan(tape, manager=manager, touch=touch)
    worker = EventWorker(plan, manager, kernel)
    start = perf_counter()
    for chunk in plan.chunks:
        worker.follow_changes(chunk.seq)
        drive(worker, [(chunk.first, chunk.stop)], progress)
    return worker.written(before, perf_counter() - start)


class EventWorker:
    """A worker for the rows of a table: it has live books and, where there is a manager, the gate of them."""

    step = STEP

    def __init__(self, plan: RunPlan, manager: RiskManager | None, kernel: Callable) -> None:
        tape, opening = plan.tape, plan.tape.opening
        self.tape, self.touch, self.manager, self.kernel = tape, plan.touch, manager, kernel
        orders = 2 * tape.incoming + opening.count
        slots = 1 << max(10, (2 * opening.count).bit_length())
        self.live = Venue(tape.grid, opening, slots, fills=orders)
        self.fills = self.touches = 0  # written so far
        room, self.gate_run, self.gate = tape.rows, None, None
        if manager is not None:
            self.gate_run = open_gate(plan, manager, self.live.books)
            self.gate = with_buffers(self.gate_run.by_row(), tape.incoming, orders)
            self.live.grow_fills(own_room(self.gate), 0)
            room += len(self.live.arrays.fills)
        last = np.zeros((len(tape.symbols), TOUCH_WIDTH), np.int64)
        if plan.touch:
            start_touch(self.live.books, last)
        touches = np.empty((room if plan.touch else 0, TOUCH_WIDTH), np.int64)
        self.outputs = empty_outputs(tape, WIDE)._replace(touch=touches, last_touch=last)

    def follow_changes(self, seq: int) -> None:
        """Bring into force the limits that change at or before a row of the input."""
        if self.gate is not None:
            self.manager.follow_changes(seq)
            self.gate = self.gate._replace(limits=self.manager.sets)

    def apply(self, start: int, stop: int) -> tuple[int, int]:
        """Apply rows [start, stop)."""
        checked = self.tape.checked
        done, self.fills, self.touches, need = self.kernel(
            self.live.address,
            self._risk(),
            checked.columns._replace(action=checked.columns.action[:stop]),
            checked.ts,
            checked.first_row,
            self.outputs,
            checked.facts,
            start,
            self.fills,
            self.touches,
        )
        return done - start, need

    def _risk(self) -> Risk | None:
        """The gate, and the memory of row checks as it is now."""
        if self.gate is None:
            return None
        return Risk(self.gate, self.manager.intake._replace(refusals=self.gate_run.checks.refusals))

    def grow(self, need: int) -> None:
        """More slots for orders, memory for row checks, or room for what the gate does by itself."""
        if need == event.NEEDS_SLOTS:
            self._grow_slots()
        elif need == event.NEEDS_INTAKE:
            self.manager.grow_intake()
        elif need == event.NEEDS_ROOM:
            self._grow_room()

    def _grow_slots(self) -> None:
        self.live.grow_slots()
        if self.gate is not None:
            slots = np.zeros(self.live.books.orders.size, np.int32)
            slots[: self.gate.order_holdings.size] = self.gate.order_holdings
            self.gate = self.gate._replace(order_holdings=slots)

    def _grow_room(self) -> None:
        self.gate, more = with_more_room(self.gate)
        self.live.grow_fills(more, self.fills)
        if self.touch:
            self.outputs = self.outputs._replace(touch=longer(self.outputs.touch, more))

    def written(self, before: RiskManager | None, seconds: float) -> TapeRun:
        """What the worker has written, which is in input order."""
        fills, makers, outputs = self.live.arrays.fills, self.live.arrays.makers, self.outputs
        return TapeRun(
            self.tape,
            fills[: self.fills],
            makers[: self.fills],
            outputs.outcomes,
            outputs.filled,
            outputs.leaves,
            outputs.touch[: self.touches] if self.touch else None,
            self.live.resting,
            seconds,
            ordered=True,
            gate=self.gate_run.event_outputs(self.gate) if self.gate is not None else None,
            manager=before,
        )
