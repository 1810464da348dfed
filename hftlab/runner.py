"""One tape, run once: by the batch kernel over instruments in threads, or one event at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from time import perf_counter

import numpy as np

from hftlab.kernels import engine, events
from hftlab.kernels.bits import Bitmap
from hftlab.kernels.engine import TOUCH_ROW, TOUCH_WIDTH, Outputs
from hftlab.kernels.ladder import Books, load_orders, make_books, mark_levels, never_open
from hftlab.kernels.outputs import order_by_row, put_in_order
from hftlab.kernels.records import FILL, WIDE
from hftlab.kernels.states import States, run_queues
from hftlab.kernels.states import run_states as states_kernel
from hftlab.resting import Resting, open_orders
from hftlab.risk_manager import GateOutputs, GateRun, RiskManager
from hftlab.tables import ABSENT, frozen
from hftlab.tape import Tape
from hftlab.venue import Venue

STEP = 1 << 18  # commands between looks at the clock, the progress bar and Ctrl-C
DEPTH_STEP = 1 << 14

Progress = Callable[[int], None]


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
        columns = tuple(np.empty(self.outcomes.size, t) for t in (np.int8, np.int64, np.int64))
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
    books = opened_books(tape)
    outputs = _outputs(tape, tape.width)
    shares = _shares(tape, threads)
    before = manager.copy() if manager is not None else None
    start = perf_counter()
    gate = _gate_run(manager, tape, books)
    lanes = [_Lane(tape, books, outputs, share, touch, gate) for share in shares]
    for first, last in gate.pieces() if gate is not None else [(0, tape.rows)]:
        if gate is not None:
            gate.look_at(first, last)
        if len(lanes) == 1:
            lanes[0].run(first, last, progress)
            continue
        with ThreadPoolExecutor(len(lanes)) as pool:
            jobs = [
                pool.submit(lane.run, first, last, progress if i == 0 else None)
                for i, lane in enumerate(lanes)
            ]
            for job in jobs:
                job.result()
    if len(lanes) > 1:
        mark_levels(books)
    seconds = perf_counter() - start
    return TapeRun(
        tape,
        _in_input_order(tape, [lane.outputs.fills[: lane.fills] for lane in lanes]),
        ABSENT["i8"],
        outputs.outcomes,
        outputs.filled,
        outputs.leaves,
        _touch_in_order(tape, [lane.outputs.touch[: lane.touches] for lane in lanes]) if touch else None,
        lambda: open_orders(books, tape.grid, tape.slots, lambda nodes: tape.ids(books.entries[nodes])),
        seconds,
        gate=gate.outputs([lane.gate for lane in lanes]) if gate is not None else None,
        manager=before,
    )


def _gate_run(manager: RiskManager | None, tape: Tape, books: Books) -> GateRun | None:
    if manager is None:
        return None
    return GateRun(manager, tape, books.orders.size, never_open(books.levels.size) + 1)


def opened_books(tape: Tape) -> Books:
    """The books of a tape before its first command."""
    books = make_books(tape.grid.sizes, tape.slots, tape.width, tape.has_accounts)
    opening, first = tape.opening, never_open(books.levels.size) + 1
    number = np.arange(opening.count, dtype=np.int32)
    load_orders(
        books, opening.book, first + number, tape.opening_levels, opening.qty, -1 - number, opening.account
    )
    return books


def _outputs(tape: Tape, width: np.dtype) -> Outputs:
    rows = tape.rows
    return Outputs(
        np.empty(0, FILL[width]),
        np.empty(rows, np.uint8),
        np.empty(rows, width),
        np.empty(rows, width),
        np.empty((0, TOUCH_WIDTH), np.int64),
        np.empty((0, TOUCH_WIDTH), np.int64),
    )


def _shares(tape: Tape, threads: int) -> list[list[tuple[int, int]]]:
    """Positions for each thread, whole parts; one after the other they are the whole tape for one thread."""
    if threads == 1 or tape.parts.size <= 2:
        return [[(0, tape.rows)]]
    bounds = list(zip(tape.parts[:-1].tolist(), tape.parts[1:].tolist(), strict=True))
    shares: list[list[tuple[int, int]]] = [[] for _ in range(min(threads, len(bounds)))]
    loads = [0] * len(shares)
    for start, stop in sorted(bounds, key=lambda part: part[0] - part[1]):
        lightest = loads.index(min(loads))
        loads[lightest] += stop - start
        shares[lightest].append((start, stop))
    return [share for share in shares if share]


class _Lane:
    """What one thread runs, and what it writes: shared arrays where instruments are apart, else its own."""

    def __init__(
        self,
        tape: Tape,
        books: Books,
        outputs: Outputs,
        share: list[tuple[int, int]],
        touch: bool,
        gate: GateRun | None,
    ) -> None:
        rows = sum(stop - start for start, stop in share)
        whole = rows == tape.rows
        self.tape, self.share, self.gate_run = tape, share, gate
        self.fills = self.touches = 0
        # each fill ends its maker or its taker: at most one of each per command that rests or trades
        room = 2 * (tape.incoming if whole else min(rows, tape.incoming)) + tape.opening.count
        touch_room = rows if touch else 0
        if gate is not None:  # what the gate does by itself changes books too
            room += gate.own_room
            touch_room += room if touch else 0
        self.gate = None if gate is None else gate.gate if whole else gate.own(room)
        last = np.zeros((len(tape.symbols), TOUCH_WIDTH), np.int64)
        if touch:
            engine.start_touch(books, last)
        if not whole:
            books = books._replace(bitmap=Bitmap(*(floor.copy() for floor in books.bitmap)))
        self.books = books
        self.outputs = outputs._replace(
            fills=np.empty(room, outputs.fills.dtype),
            touch=np.empty((touch_room, TOUCH_WIDTH), np.int64),
            last_touch=last,
        )

    def run(self, first: int, last: int, progress: Progress | None) -> None:
        """Apply the commands of input rows [first, last)."""
        if self.gate_run is not None:
            self.gate = self.gate_run.with_limits(self.gate)
        for start, stop in self.share:
            begin, stop = _positions(self.tape, start, stop, first, last)
            while begin < stop:
                end = min(begin + STEP, stop)
                outputs = self.outputs
                here = outputs._replace(
                    fills=outputs.fills[self.fills :], touch=outputs.touch[self.touches :]
                )
                tape = self.tape
                done, fills, touches = engine.run(
                    self.books, tape.grid, self.gate, tape.commands, here, begin, end
                )
                begin, self.fills, self.touches = begin + done, self.fills + fills, self.touches + touches
                if progress is not None:
                    progress(done)
                if begin < end:
                    self._make_room()

    def _make_room(self) -> None:
        """More room for what the gate does by itself."""
        self.gate, more = self.gate_run.make_room(self.gate)
        outputs = self.outputs
        touch = _longer(outputs.touch, more) if len(outputs.touch) else outputs.touch
        self.outputs = outputs._replace(fills=_longer(outputs.fills, more), touch=touch)


def _positions(tape: Tape, start: int, stop: int, first: int, last: int) -> tuple[int, int]:
    """Where input rows [first, last) are among the positions [start, stop) of a part."""
    if (first, last) == (0, tape.rows):
        return start, stop
    order = tape.commands.order
    if not order.size:
        return first, last
    return tuple(start + int(i) for i in np.searchsorted(order[start:stop], (first, last)))


def _row_order(tape: Tape, rows: np.ndarray) -> np.ndarray:
    """The stable order that sorts records by input row."""
    order = np.empty(rows.size, np.int32)
    order_by_row(np.ascontiguousarray(rows), np.zeros(tape.rows + 1, np.int32), order)
    return order


def _in_input_order(tape: Tape, parts: list[np.ndarray]) -> np.ndarray:
    fills = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if not tape.commands.order.size:
        return fills
    own = fills["row"] < 0  # of orders of the gate
    rows = tape.input_rows(np.where(own, -1 - fills["row"], fills["row"]))
    fills["row"] = np.where(own, -1 - rows, rows)
    return fills[_row_order(tape, rows)]


def _touch_in_order(tape: Tape, parts: list[np.ndarray]) -> np.ndarray:
    touches = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if not tape.commands.order.size:
        return touches
    touches[:, TOUCH_ROW] = tape.input_rows(touches[:, TOUCH_ROW])
    return touches[_row_order(tape, touches[:, TOUCH_ROW])]


def run_states(tape: Tape, levels: int = 0, progress: Progress | None = None) -> tuple[TapeRun, States]:
    """Run a tape of one part, and note what crossed and how the books looked (see kernels.states).

    `levels` is how many a side are hashed after each command, 0 for none.
    """
    books = opened_books(tape)
    outputs = _outputs(tape, tape.width)
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
    outputs = _outputs(tape, tape.width)
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
    books, outputs = opened_books(tape), _outputs(tape, tape.width)
    gate = _gate_run(manager, tape, books)
    room = 2 * tape.incoming + tape.opening.count + (gate.own_room if gate is not None else 0)
    outputs = outputs._replace(fills=np.empty(room, outputs.fills.dtype))
    last = np.full((len(tape.symbols), 6, levels), -1, np.int64)
    last[:, [1, 2, 4, 5]] = 0
    room = DEPTH_STEP + 2 * len(tape.symbols)
    changes, values = np.empty((2, room), np.int64), np.empty((6, room, levels), np.int64)
    state = gate.gate if gate is not None else None
    engine.run_depth(books, tape.grid, state, tape.commands, outputs, 0, 0, last, changes, values)
    places, tables = [np.empty((2, 0), np.int64)], [np.empty((6, 0, levels), np.int64)]
    parts = list(pairwise(tape.parts.tolist()))
    for first, end in gate.pieces() if gate is not None else [(0, tape.rows)]:
        if gate is not None:
            gate.look_at(first, end)
            state = gate.with_limits(state)
        for part in parts:
            start, last_of_part = _positions(tape, *part, first, end)
            while start < last_of_part:
                stop = min(start + DEPTH_STEP, last_of_part)
                done, fills, count = engine.run_depth(
                    books, tape.grid, state, tape.commands, outputs, start, stop, last, changes, values
                )
                start += done
                outputs = outputs._replace(fills=outputs.fills[fills:])
                places.append(changes[:, :count].copy())
                tables.append(values[:, :count].copy())
    (found, book_of), table = np.concatenate(places, axis=1), np.concatenate(tables, axis=1)
    if tape.commands.order.size:
        found = tape.input_rows(found)
        order = _row_order(tape, found)
        found, book_of, table = found[order], book_of[order], np.ascontiguousarray(table[:, order])
    return found, book_of, table


def run_events(
    tape: Tape,
    touch: bool = False,
    progress: Progress | None = None,
    manager: RiskManager | None = None,
) -> TapeRun:
    """Run the raw rows of a tape one event at a time: ids hashed, slots recycled, prices looked up."""
    checked, opening = tape.checked, tape.opening
    slots = 1 << max(10, (2 * opening.count).bit_length())
    venue = Venue(tape.grid, opening, slots, fills=2 * tape.incoming + opening.count)
    before_run = manager.copy() if manager is not None else None
    gate = _gate_run(manager, tape, venue.books)
    outputs = _outputs(tape, WIDE)
    last, room = np.zeros((len(tape.symbols), TOUCH_WIDTH), np.int64), tape.rows
    if touch:
        engine.start_touch(venue.books, last)
    if gate is not None:
        venue.grow_fills(gate.own_room)
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
            done, fills, touches, need = events.run_events(
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
            if need == events.NEEDS_SLOTS:
                venue.grow_slots()
                if gate is not None:
                    gate.follow_nodes(venue.books.orders.size)
            elif need == events.NEEDS_INTAKE:
                manager.grow_intake()
            elif need == events.NEEDS_ROOM:
                more = gate.make_own_room()
                venue.grow_fills(more)
                outputs = outputs._replace(touch=_longer(outputs.touch, more) if touch else outputs.touch)
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


def _longer(rows: np.ndarray, more: int) -> np.ndarray:
    """The same rows with room behind them."""
    longer = np.empty((len(rows) + more, *rows.shape[1:]), rows.dtype)
    longer[: len(rows)] = rows
    return longer
