"""Workers, which apply commands with memory of their own, and the one loop that drives them all.

A worker has `step`, how many commands it applies at most before somebody looks at the clock, and two methods:
`apply(start, stop)` returns how many commands it has done and what it needs before it can go on, `grow(need)`
gives it that. `drive` is the loop. It runs every worker: those of threads, the event path, depth, states of
books and the checks of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from hftlab.engine.plan import Chunk, Partition, RunPlan
from hftlab.kernels.book.ladder import Books, load_orders, make_books, never_open
from hftlab.kernels.book.records import FILL
from hftlab.kernels.book.touch import TOUCH_WIDTH, start_touch
from hftlab.kernels.engine import batch
from hftlab.kernels.engine.batch import Outputs
from hftlab.kernels.engine.event import NEEDS_ROOM
from hftlab.kernels.primitives import memory
from hftlab.kernels.primitives.bitmap import Bitmap
from hftlab.kernels.risk_gate.gate import Gate
from hftlab.parallel import side_by_side
from hftlab.risk_gate.gate_run import GateRun, own_room, with_buffers, with_more_room
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.open_orders import Resting, open_orders
from hftlab.tape.tape import Tape

STEP = 1 << 18  # commands between looks at the clock, the progress bar and Ctrl-C

Progress = Callable[[int], None]


# ------------------------------------------------------------------ the loop


class Driven(Protocol):
    """What `drive` runs."""

    step: int

    def apply(self, start: int, stop: int) -> tuple[int, int]:
        """Apply commands [start, stop): (commands done, what is needed before the next, or 0)."""

    def grow(self, need: int) -> None:
        """Make what was needed larger."""


def drive(worker: Driven, spans: Iterable[tuple[int, int]], progress: Progress | None = None) -> None:
    """Have a worker apply all commands of some spans [start, stop), and grow what it needs on the way."""
    for start, stop in spans:
        while start < stop:
            done, need = worker.apply(start, min(start + worker.step, stop))
            start += done
            if progress is not None:
                progress(done)
            if need:
                worker.grow(need)


def check_rows(gate: GateRun, chunk: Chunk) -> None:
    """Bring the limits of a chunk into force, and decide what its rows decide by themselves."""
    gate.manager.follow_changes(chunk.seq)
    drive(gate.checks, [(chunk.first, chunk.stop)])
    gate.place_reasons()


def run_chunk(
    workers: Sequence[Worker], gate: GateRun | None, chunk: Chunk, progress: Progress | None
) -> None:
    """Check the rows of a chunk, then apply their commands, a thread for each worker."""
    if gate is not None:
        check_rows(gate, chunk)
        for worker in workers:
            worker.use_limits(gate.manager.sets)
    side_by_side(
        [
            partial(drive, worker, worker.spans(chunk), progress if i == 0 else None)
            for i, worker in enumerate(workers)
        ]
    )


# ------------------------------------------------------------------ workers


class Worker:
    """What one thread runs: some partitions of a tape, with books, a gate and buffers of its own.

    Books, outcomes and the gate's state are shared with other workers, which have other instruments.
    """

    step = STEP

    def __init__(
        self,
        plan: RunPlan,
        books: Books,
        outputs: Outputs,
        partitions: list[Partition],
        gate: Gate | None = None,
        visit: np.ndarray | None = None,
    ) -> None:
        """A worker for partitions, or for all of the tape in the order in which to `visit` its commands."""
        tape, rows = plan.tape, sum(stop - start for start, stop in partitions)
        self.plan, self.partitions, self.visit = plan, partitions, visit
        self.fills = self.touches = 0  # written so far
        orders = min(rows, tape.incoming)
        # each fill ends its maker or its taker: at most one of each per command that rests or trades
        room = 2 * orders + tape.opening.count
        self.gate = with_buffers(gate, orders, room) if gate is not None else None
        if gate is not None:  # what the gate does by itself changes books too
            room += own_room(gate)
        last = np.zeros((len(tape.symbols), TOUCH_WIDTH), np.int64)
        if plan.touch:
            start_touch(books, last)
        self.books = books if rows == tape.rows else with_own_bitmap(books)
        touch_room = rows + (room if gate is not None else 0) if plan.touch else 0
        self.outputs = outputs._replace(
            fills=memory.empty(room, outputs.fills.dtype),
            touch=np.empty((touch_room, TOUCH_WIDTH), np.int64),
            last_touch=last,
        )

    def use_limits(self, limits: np.ndarray) -> None:
        """Limits (LIMIT) that are in force from here on."""
        self.gate = self.gate._replace(limits=limits)

    def spans(self, chunk: Chunk) -> list[tuple[int, int]]:
        """What the worker has to do of a chunk of rows."""
        if self.visit is not None:
            return [(chunk.first, chunk.stop)]
        return [self.plan.indices(partition, chunk) for partition in self.partitions]

    def apply(self, start: int, stop: int) -> tuple[int, int]:
        """Apply the commands [start, stop) of the tape."""
        tape, outputs = self.plan.tape, self.outputs
        left = outputs._replace(fills=outputs.fills[self.fills :], touch=outputs.touch[self.touches :])
        done, fills, touches = batch.run(
            self.books, tape.grid, self.gate, tape.commands, left, start, stop, self.visit
        )
        self.fills, self.touches = self.fills + fills, self.touches + touches
        return done, NEEDS_ROOM if done < stop - start else 0

    def grow(self, _need: int) -> None:
        """More room for what the gate does by itself: there is no other need."""
        self.gate, more = with_more_room(self.gate)
        outputs = self.outputs
        touch = longer(outputs.touch, more) if len(outputs.touch) else outputs.touch
        self.outputs = outputs._replace(fills=longer(outputs.fills, more), touch=touch)

    @property
    def written_fills(self) -> np.ndarray:
        """FILL, by index of the tape."""
        return self.outputs.fills[: self.fills]

    @property
    def written_touch(self) -> np.ndarray:
        """Changes of the touch (int64 [changes, TOUCH_WIDTH]), by index of the tape."""
        return self.outputs.touch[: self.touches]


@dataclass
class BatchRun:
    """A run of a tape by workers: what they share, and who they are."""

    plan: RunPlan
    outputs: Outputs
    books: Books
    gate: GateRun | None
    workers: list[Worker] = field(default_factory=list)
    fell_back: int = 0  # rows run in input order after a limit was touched


def open_run(plan: RunPlan, outputs: Outputs, manager: RiskManager | None) -> BatchRun:
    """The run of a plan before its first row, without workers."""
    books = opened_books(plan.tape)
    return BatchRun(plan, outputs, books, open_gate(plan, manager, books) if manager is not None else None)


# ------------------------------------------------------------------ memory


def open_gate(plan: RunPlan, manager: RiskManager, books: Books) -> GateRun:
    """The gate of a run, with the orders that rest before it."""
    manager.mark_clock = plan.marks.clock.copy()
    first_slot = never_open(books.levels.size) + 1
    return GateRun(manager, plan.tape, plan.marks.rows, books.orders.size, first_slot)


def opened_books(tape: Tape) -> Books:
    """The books of a tape before its first command."""
    books = make_books(tape.grid.sizes, tape.slots, tape.width, tape.has_accounts)
    opening, first = tape.opening, never_open(books.levels.size) + 1
    number = np.arange(opening.count, dtype=np.int32)
    load_orders(
        books, opening.book, first + number, tape.opening_levels, opening.qty, -1 - number, opening.account
    )
    return books


def resting_in(books: Books, tape: Tape) -> Resting:
    """All open orders in the books of a tape, in priority order."""
    return open_orders(books, tape.grid, tape.slots, lambda slots: tape.ids(books.entries[slots]))


def with_own_bitmap(books: Books) -> Books:
    """The same books for one of several workers: bits of different instruments are in one word."""
    return books._replace(bitmap=Bitmap(*(floor.copy() for floor in books.bitmap)))


def empty_outputs(tape: Tape, width: np.dtype) -> Outputs:
    """Room for the outcome of every command, without any for fills and touches."""
    rows = tape.rows
    outcomes, filled, leaves = memory.empty_together((rows, np.uint8), (rows, width), (rows, width))
    return Outputs(
        np.empty(0, FILL[width]),
        outcomes,
        filled,
        leaves,
        np.empty((0, TOUCH_WIDTH), np.int64),
        np.empty((0, TOUCH_WIDTH), np.int64),
    )


def longer(rows: np.ndarray, more: int) -> np.ndarray:
    """The same rows with room behind them."""
    longer = np.empty((len(rows) + more, *rows.shape[1:]), rows.dtype)
    longer[: len(rows)] = rows
    return longer
