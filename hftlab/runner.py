"""One tape, run once: by the batch kernel over instruments in threads, or one event at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
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

    @cached_property
    def open_orders(self) -> Resting:
        """The book after the last command."""
        return self.resting()

    @property
    def order(self) -> np.ndarray:
        """Input row of each position, or [0] where that is the position."""
        return ABSENT["i4"] if self.ordered else self.tape.commands.order

    @cached_property
    def by_row(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Status (int8), filled and leaves lots (int64) by input row."""
        columns = tuple(np.empty(self.outcomes.size, t) for t in (np.int8, np.int64, np.int64))
        put_in_order(self.outcomes, self.filled, self.leaves, self.order, *columns)
        return columns


def run_tape(tape: Tape, threads: int = 1, touch: bool = False, progress: Progress | None = None) -> TapeRun:
    """Run a tape with the batch kernel."""
    books = opened_books(tape)
    outputs = _outputs(tape, tape.width)
    shares = _shares(tape, threads)
    start = perf_counter()
    lanes = [_lane(tape, books, outputs, share, touch) for share in shares]
    if len(lanes) == 1:
        counts = [_run_share(tape, *lanes[0], shares[0], progress)]
    else:
        with ThreadPoolExecutor(len(lanes)) as pool:
            jobs = [
                pool.submit(_run_share, tape, *lane, share, progress if i == 0 else None)
                for i, (lane, share) in enumerate(zip(lanes, shares, strict=True))
            ]
            counts = [job.result() for job in jobs]
        mark_levels(books)
    seconds = perf_counter() - start
    fills = [lane_outputs.fills[:n] for (_, lane_outputs), (n, _) in zip(lanes, counts, strict=True)]
    touches = [o.touch[:n] for (_, o), (_, n) in zip(lanes, counts, strict=True)] if touch else None
    return TapeRun(
        tape,
        _in_input_order(tape, fills),
        ABSENT["i8"],
        outputs.outcomes,
        outputs.filled,
        outputs.leaves,
        _touch_in_order(tape, touches) if touches else None,
        lambda: open_orders(books, tape.grid, tape.slots, lambda nodes: tape.ids(books.entries[nodes])),
        seconds,
    )


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


def _lane(
    tape: Tape, books: Books, outputs: Outputs, share: list[tuple[int, int]], touch: bool
) -> tuple[Books, Outputs]:
    """What one thread writes: the shared arrays where instruments are apart, its own where they are not."""
    rows = sum(stop - start for start, stop in share)
    whole = rows == tape.rows
    # each fill ends its maker or its taker: at most one of each per command that rests or trades
    room = 2 * (tape.incoming if whole else min(rows, tape.incoming)) + tape.opening.count
    last = np.zeros((len(tape.symbols), TOUCH_WIDTH), np.int64)
    if touch:
        engine.start_touch(books, last)
    if not whole:
        books = books._replace(bitmap=Bitmap(*(floor.copy() for floor in books.bitmap)))
    return books, outputs._replace(
        fills=np.empty(room, outputs.fills.dtype),
        touch=np.empty((rows if touch else 0, TOUCH_WIDTH), np.int64),
        last_touch=last,
    )


def _run_share(
    tape: Tape, books: Books, outputs: Outputs, share: list[tuple[int, int]], progress: Progress | None
) -> tuple[int, int]:
    fills = touches = 0
    for start, stop in share:
        for begin in range(start, stop, STEP):
            end = min(begin + STEP, stop)
            here = outputs._replace(fills=outputs.fills[fills:], touch=outputs.touch[touches:])
            more_fills, more_touches = engine.run(books, tape.commands, here, begin, end)
            fills, touches = fills + more_fills, touches + more_touches
            if progress is not None:
                progress(end - begin)
    return fills, touches


def _row_order(tape: Tape, rows: np.ndarray) -> np.ndarray:
    """The stable order that sorts records by input row."""
    order = np.empty(rows.size, np.int32)
    order_by_row(np.ascontiguousarray(rows), np.zeros(tape.rows + 1, np.int32), order)
    return order


def _in_input_order(tape: Tape, parts: list[np.ndarray]) -> np.ndarray:
    fills = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if not tape.commands.order.size:
        return fills
    fills["row"] = tape.input_rows(fills["row"])
    return fills[_row_order(tape, fills["row"])]


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


def run_depth(tape: Tape, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Run a tape for its depth: (input rows [changes], values [6, changes, levels]) in input order.

    Values are level, lots and orders of the bids, then of the asks; a level of -1 is none.
    """
    books, outputs = opened_books(tape), _outputs(tape, tape.width)
    outputs = outputs._replace(fills=np.empty(2 * tape.incoming + tape.opening.count, outputs.fills.dtype))
    last = np.full((len(tape.symbols), 6, levels), -1, np.int64)
    last[:, [1, 2, 4, 5]] = 0
    changes, values = np.empty(DEPTH_STEP, np.int64), np.empty((6, DEPTH_STEP, levels), np.int64)
    engine.run_depth(books, tape.commands, outputs, 0, 0, last, changes, values)
    rows, tables = [np.empty(0, np.int64)], [np.empty((6, 0, levels), np.int64)]
    for start in range(0, tape.rows, DEPTH_STEP):
        stop = min(start + DEPTH_STEP, tape.rows)
        fills, count = engine.run_depth(books, tape.commands, outputs, start, stop, last, changes, values)
        outputs = outputs._replace(fills=outputs.fills[fills:])
        rows.append(changes[:count].copy())
        tables.append(values[:, :count].copy())
    found, table = np.concatenate(rows), np.concatenate(tables, axis=1)
    if tape.commands.order.size:
        found = tape.input_rows(found)
        order = _row_order(tape, found)
        found, table = found[order], np.ascontiguousarray(table[:, order])
    return found, table


def run_events(tape: Tape, touch: bool = False, progress: Progress | None = None) -> TapeRun:
    """Run the raw rows of a tape one event at a time: ids hashed, slots recycled, prices looked up."""
    checked = tape.checked
    columns, opening = checked.columns, tape.opening
    slots = 1 << max(10, (2 * opening.count).bit_length())
    venue = Venue(tape.grid, opening, slots, fills=2 * tape.incoming + opening.count)
    outputs = _outputs(tape, WIDE)
    last = np.zeros((len(tape.symbols), TOUCH_WIDTH), np.int64)
    if touch:
        engine.start_touch(venue.books, last)
    outputs = outputs._replace(
        touch=np.empty((tape.rows if touch else 0, TOUCH_WIDTH), np.int64), last_touch=last
    )
    done = fills = touches = 0
    start = perf_counter()
    while done < tape.rows:
        before = done
        stop = min(done + STEP, tape.rows)
        upto = columns._replace(action=columns.action[:stop])
        done, fills, touches = events.run_events(
            venue.address, upto, outputs, checked.facts, done, fills, touches
        )
        if progress is not None:
            progress(done - before)
        if done < stop:
            venue.grow_slots()
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
    )
