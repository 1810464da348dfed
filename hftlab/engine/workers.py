"""What the threads of a run do: lanes, each with whole instruments and outputs of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from hftlab.kernels.book.ladder import Books, load_orders, make_books, never_open
from hftlab.kernels.book.records import FILL
from hftlab.kernels.book.touch import TOUCH_ROW, TOUCH_WIDTH, start_touch
from hftlab.kernels.engine import batch
from hftlab.kernels.engine.batch import Outputs
from hftlab.kernels.primitives import memory
from hftlab.kernels.primitives.bitmap import Bitmap
from hftlab.kernels.risk_gate.gate import Gate
from hftlab.parallel import side_by_side
from hftlab.risk_gate.gate_run import GateRun
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.tape import Tape

STEP = 1 << 18  # commands between looks at the clock, the progress bar and Ctrl-C

Progress = Callable[[int], None]


def open_gate(manager: RiskManager | None, tape: Tape, books: Books) -> GateRun | None:
    """The gate for a run of a tape, with the orders that rest before it; None where there is no manager."""
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


def shares_of(tape: Tape, threads: int) -> list[list[tuple[int, int]]]:
    """Positions for each thread, whole parts: within one, input rows ascend."""
    bounds = list(zip(tape.parts[:-1].tolist(), tape.parts[1:].tolist(), strict=True))
    if threads == 1:
        return [bounds]
    shares: list[list[tuple[int, int]]] = [[] for _ in range(min(threads, len(bounds)))]
    loads = [0] * len(shares)
    for start, stop in sorted(bounds, key=lambda part: part[0] - part[1]):
        lightest = loads.index(min(loads))
        loads[lightest] += stop - start
        shares[lightest].append((start, stop))
    return [share for share in shares if share]


class Lane:
    """What one thread runs, and what it writes: shared arrays where instruments are apart, else its own."""

    def __init__(
        self,
        tape: Tape,
        books: Books,
        outputs: Outputs,
        share: list[tuple[int, int]],
        touch: bool,
        gate_run: GateRun | None,
        gate: Gate | None = None,
        visit: np.ndarray | None = None,
    ) -> None:
        """A lane over shares of the positions, or over all in the order in which to `visit` them."""
        rows = sum(stop - start for start, stop in share)
        whole = rows == tape.rows
        self.tape, self.share, self.gate_run, self.visit = tape, share, gate_run, visit
        self.fills = self.touches = 0
        # each fill ends its maker or its taker: at most one of each per command that rests or trades
        room = 2 * (tape.incoming if whole else min(rows, tape.incoming)) + tape.opening.count
        touch_room = rows if touch else 0
        self.gate = gate
        if gate_run is not None:  # what the gate does by itself changes books too
            room += gate_run.own_room
            touch_room += room if touch else 0
            if gate is not None or not whole:
                self.gate = gate_run.own(room, gate)
            else:
                self.gate = gate_run.gate
        last = np.zeros((len(tape.symbols), TOUCH_WIDTH), np.int64)
        if touch:
            start_touch(books, last)
        if not whole:
            books = books._replace(bitmap=Bitmap(*(floor.copy() for floor in books.bitmap)))
        self.books = books
        self.outputs = outputs._replace(
            fills=memory.empty(room, outputs.fills.dtype),
            touch=np.empty((touch_room, TOUCH_WIDTH), np.int64),
            last_touch=last,
        )

    def run(self, first: int, last: int, progress: Progress | None) -> None:
        """Apply the commands of input rows [first, last)."""
        if self.gate_run is not None:
            self.gate = self.gate_run.with_limits(self.gate)
        for start, stop in self.share:
            if self.visit is None:
                begin, stop = positions_between(self.tape, start, stop, first, last)
            else:
                begin, stop = first, last
            while begin < stop:
                end = min(begin + STEP, stop)
                outputs = self.outputs
                here = outputs._replace(
                    fills=outputs.fills[self.fills :], touch=outputs.touch[self.touches :]
                )
                tape = self.tape
                done, fills, touches = batch.run(
                    self.books, tape.grid, self.gate, tape.commands, here, begin, end, self.visit
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
        touch = longer(outputs.touch, more) if len(outputs.touch) else outputs.touch
        self.outputs = outputs._replace(fills=longer(outputs.fills, more), touch=touch)


def run_lanes(lanes: list[Lane], first: int, last: int, progress: Progress | None) -> None:
    """Apply the commands of input rows [first, last), a thread for each lane."""
    side_by_side(
        [partial(lane.run, first, last, progress if i == 0 else None) for i, lane in enumerate(lanes)]
    )


def places_by_row(tape: Tape) -> np.ndarray:
    """Where each input row is on a tape of several parts (int32)."""
    places = np.empty(tape.rows, np.int32)
    places[tape.commands.order] = np.arange(tape.rows, dtype=np.int32)
    return places


def positions_between(tape: Tape, start: int, stop: int, first: int, last: int) -> tuple[int, int]:
    """Where input rows [first, last) are among the positions [start, stop) of a part."""
    if (first, last) == (0, tape.rows):
        return start, stop
    order = tape.commands.order
    if not order.size:
        return first, last
    return tuple(start + int(i) for i in np.searchsorted(order[start:stop], (first, last)))


def row_order(rows: np.ndarray) -> np.ndarray:
    """The stable order that sorts records by input row; parts are sorted, so they are only merged."""
    return np.argsort(rows, kind="stable")


def in_input_order(tape: Tape, parts: list[np.ndarray]) -> np.ndarray:
    """Fills that lanes have written, by input row; those of one lane are changed where they are."""
    fills = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if not tape.commands.order.size:
        return fills
    own = fills["row"] < 0  # of orders of the gate
    rows = tape.input_rows(np.where(own, -1 - fills["row"], fills["row"]) if own.any() else fills["row"])
    fills["row"] = np.where(own, -1 - rows, rows) if own.any() else rows
    return fills.take(row_order(rows))  # an index in brackets takes eight times as long


def touch_in_order(tape: Tape, parts: list[np.ndarray]) -> np.ndarray:
    """Changes of the touch that lanes have written, by input row, as `in_input_order`."""
    touches = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if not tape.commands.order.size:
        return touches
    touches[:, TOUCH_ROW] = tape.input_rows(touches[:, TOUCH_ROW])
    return touches.take(row_order(touches[:, TOUCH_ROW]), axis=0)


def longer(rows: np.ndarray, more: int) -> np.ndarray:
    """The same rows with room behind them."""
    longer = np.empty((len(rows) + more, *rows.shape[1:]), rows.dtype)
    longer[: len(rows)] = rows
    return longer
