"""One tape, run once: by the batch kernel over instruments in threads, or one event at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from time import perf_counter

import numpy as np

from hftlab.kernels.book.records import WIDE
from hftlab.kernels.engine import batch, event
from hftlab.kernels.engine.batch import TOUCH_WIDTH
from hftlab.kernels.primitives import memory
from hftlab.kernels.results.book_states import States, run_queues
from hftlab.kernels.results.book_states import run_states as states_kernel
from hftlab.kernels.results.tables import put_in_order
from hftlab.lanes import (
    STEP,
    Progress,
    empty_outputs,
    in_input_order,
    longer,
    open_gate,
    opened_books,
    places_by_row,
    positions_between,
    row_order,
    touch_in_order,
)
from hftlab.resting import Resting, open_orders
from hftlab.risk_manager import GateOutputs, RiskManager
from hftlab.speculation import is_tied, run_apart, run_tied
from hftlab.tables import ABSENT, frozen
from hftlab.tape import Tape
from hftlab.venue import Venue

DEPTH_STEP = 1 << 14


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


def run_states(tape: Tape, levels: int = 0, progress: Progress | None = None) -> tuple[TapeRun, States]:
    """Run a tape of one part, and note what crossed and how the books looked (see kernels.states).

    `levels` is how many a side are hashed after each command, 0 for none.
    """
    books = opened_books(tape)
    outputs = empty_outputs(tape, tape.width)
    outputs = outputs._replace(fills=np.empty(2 * tape.incoming + tape.opening.count, outputs.fills.dtype))
    hashed = tape.rows if levels else 0
    states = States(
        np.empty(tape.rows, np.uint8),
        np.empty(hashed, np.int64),
        np.empty(hashed, np.int64),
    )
    fills, start = 0, perf_counter()
    for begin in range(0, tape.rows, STEP):
        end = min(begin + STEP, tape.rows)
        fills = states_kernel(books, tape.grid, tape.commands, outputs, levels, states, begin, end, fills)
        if progress is not None:
            progress(end - begin)
    run = TapeRun(
        tape,
        outputs.fills[:fills],
        ABSENT["i8"],
        outputs.outcomes,
        outputs.filled,
        outputs.leaves,
        None,
        lambda: open_orders(books, tape.grid, tape.slots, lambda nodes: tape.ids(books.entries[nodes])),
        perf_counter() - start,
    )
    return run, states


def queue_places(tape: Tape, told: np.ndarray) -> np.ndarray:
    """Where the order of each execution stands, bits of kernels.states, on a rebuild tape of one part.

    `told` is the lots that a row tells were executed of the order it names, -1 where it is no execution; the
    book changes with the fact behind it.
    """
    books = opened_books(tape)
    outputs = empty_outputs(tape, tape.width)
    places, pending = np.zeros(tape.rows, np.uint8), np.zeros(books.orders.size, np.int64)
    modified = np.zeros(books.orders.size, np.bool_)
    run_queues(books, tape.commands, outputs, frozen(told, "i8"), pending, modified, places)
    return places


def run_depth(
    tape: Tape, levels: int, manager: RiskManager | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run a tape for its depth: (input rows [changes], books [changes], values [6, changes, levels]).

    Values are level, lots and orders of the bids, then of the asks; a level of -1 is none.
    """
    books, outputs = opened_books(tape), empty_outputs(tape, tape.width)
    gate = open_gate(manager, tape, books)
    room = 2 * tape.incoming + tape.opening.count + (gate.own_room if gate is not None else 0)
    outputs = outputs._replace(fills=np.empty(room, outputs.fills.dtype))
    last = np.full((len(tape.symbols), 6, levels), -1, np.int64)
    last[:, [1, 2, 4, 5]] = 0
    room = DEPTH_STEP + 2 * len(tape.symbols)
    changes, values = np.empty((2, room), np.int64), np.empty((6, room, levels), np.int64)
    state = gate.gate if gate is not None else None
    visit, parts = None, list(pairwise(tape.parts.tolist()))
    if manager is not None and is_tied(tape, manager):
        visit = places_by_row(tape)
        state, parts = gate.in_order(visit, 0), [(0, tape.rows)]
    batch.run_depth(books, tape.grid, state, tape.commands, outputs, 0, 0, visit, last, changes, values)
    places, tables = [np.empty((2, 0), np.int64)], [np.empty((6, 0, levels), np.int64)]
    for first, end in gate.pieces() if gate is not None else [(0, tape.rows)]:
        if gate is not None:
            gate.look_at(first, end)
            state = gate.with_limits(state)
        for part in parts:
            start, last_of_part = (
                (first, end) if visit is not None else positions_between(tape, *part, first, end)
            )
            while start < last_of_part:
                stop = min(start + DEPTH_STEP, last_of_part)
                done, fills, count = batch.run_depth(
                    books, tape.grid, state, tape.commands, outputs, start, stop, visit, last, changes, values
                )
                start += done
                outputs = outputs._replace(fills=outputs.fills[fills:])
                if done == 0:
                    state, more = gate.make_room(state)
                    outputs = outputs._replace(fills=longer(outputs.fills, more))
                places.append(changes[:, :count].copy())
                tables.append(values[:, :count].copy())
    (found, book_of), table = np.concatenate(places, axis=1), np.concatenate(tables, axis=1)
    if tape.commands.order.size:
        found = tape.input_rows(found)
        order = row_order(found)
        found, book_of, table = found[order], book_of[order], np.ascontiguousarray(table[:, order])
    return found, book_of, table


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
        batch.start_touch(venue.books, last)
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
