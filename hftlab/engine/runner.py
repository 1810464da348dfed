"""One tape, run once: by the batch kernel over instruments in threads, or one event at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter

import numpy as np

from hftlab.engine.live_books import Venue
from hftlab.engine.speculation import is_tied, run_apart, run_tied
from hftlab.engine.workers import (
    STEP,
    Progress,
    empty_outputs,
    in_input_order,
    longer,
    open_gate,
    touch_in_order,
)
from hftlab.kernels.book.records import WIDE
from hftlab.kernels.book.touch import TOUCH_WIDTH, start_touch
from hftlab.kernels.engine import event
from hftlab.kernels.primitives import memory
from hftlab.kernels.results.tables import put_in_order
from hftlab.risk_gate.gate_run import GateOutputs
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.open_orders import Resting, open_orders
from hftlab.tape.tables import ABSENT
from hftlab.tape.tape import Tape


@dataclass
class TapeRun:
    """What one run of a tape left behind, as the kernels wrote it."""

    tape: Tape
    fills: np.ndarray  # FILL, in input order; `row` is the input row
    maker_ids: np.ndarray  # int64 by fill, or [0]: the tape tells
    outcomes: np.ndarray  # uint8 by position
    filled: np.ndarray  # lots by position
    leaves: np.ndarray
    touch: np.ndarray | None  # int64 [changes, TOUCH_WIDTH] in input order, if recorded
    resting: Callable[[], Resting]
    seconds: float
    ordered: bool = False  # whether positions are input rows although the tape has several parts
    gate: GateOutputs | None = None  # what the risk gate said, if there was one
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
    if manager is not None and is_tied(tape, manager):
        played = run_tied(tape, outputs, threads, touch, progress, manager, before)
    else:
        played = run_apart(tape, outputs, threads, touch, progress, manager)
    seconds = perf_counter() - start
    books, lanes, gate = played.books, played.lanes, played.gate
    return TapeRun(
        tape,
        in_input_order(tape, [lane.outputs.fills[: lane.fills] for lane in lanes]),
        ABSENT["i8"],
        outputs.outcomes,
        outputs.filled,
        outputs.leaves,
        touch_in_order(tape, [lane.outputs.touch[: lane.touches] for lane in lanes]) if touch else None,
        lambda: open_orders(books, tape.grid, tape.slots, lambda nodes: tape.ids(books.entries[nodes])),
        seconds,
        gate=gate.outputs([lane.gate for lane in lanes]) if gate is not None else None,
        manager=before,
        fell_back=played.fell_back,
    )


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
    checked, opening = tape.checked, tape.opening
    slots = 1 << max(10, (2 * opening.count).bit_length())
    venue = Venue(tape.grid, opening, slots, fills=2 * tape.incoming + opening.count)
    before_run = manager.copy() if manager is not None else None
    gate = open_gate(manager, tape, venue.books)
    outputs = empty_outputs(tape, WIDE)
    last, room = np.zeros((len(tape.symbols), TOUCH_WIDTH), np.int64), tape.rows
    if touch:
        start_touch(venue.books, last)
    if gate is not None:
        venue.grow_fills(gate.own_room, 0)
        room += len(venue.arrays.fills)
    outputs = outputs._replace(touch=np.empty((room if touch else 0, TOUCH_WIDTH), np.int64), last_touch=last)
    fills = touches = 0
    start = perf_counter()
    for first, end in gate.pieces() if gate is not None else [(0, tape.rows)]:
        if gate is not None:
            gate.change_limits(first, end)
        done = first
        while done < end:
            before, stop = done, min(done + STEP, end)
            done, fills, touches, need = kernel(
                venue.address,
                gate.risk() if gate is not None else None,
                checked.columns._replace(action=checked.columns.action[:stop]),
                checked.ts,
                checked.first_row,
                outputs,
                checked.facts,
                done,
                fills,
                touches,
            )
            if progress is not None:
                progress(done - before)
            if need == event.NEEDS_SLOTS:
                venue.grow_slots()
                if gate is not None:
                    gate.follow_nodes(venue.books.orders.size)
            elif need == event.NEEDS_INTAKE:
                manager.grow_intake()
            elif need == event.NEEDS_ROOM:
                more = gate.make_own_room()
                venue.grow_fills(more, fills)
                outputs = outputs._replace(touch=longer(outputs.touch, more) if touch else outputs.touch)
    return TapeRun(
        tape,
        venue.arrays.fills[:fills],
        venue.arrays.makers[:fills],
        outputs.outcomes,
        outputs.filled,
        outputs.leaves,
        outputs.touch[:touches] if touch else None,
        venue.resting,
        perf_counter() - start,
        ordered=True,
        gate=gate.outputs([gate.gate], events=True) if gate is not None else None,
        manager=before_run,
    )
