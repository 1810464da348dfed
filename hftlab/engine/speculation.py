"""Instruments side by side although limits tie them together: docs/RISK.md, the fourth kind of check.

Portfolio values and stop losses of accounts, and kill switches for all books, depend on every instrument at
once. Threads run as if none of them bound, an audit follows in input order; where the audit finds a row at
which one may have bound, the tape is run again up to that row, and from there on in input order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hftlab.engine.workers import (
    Lane,
    Progress,
    in_input_order,
    open_gate,
    opened_books,
    places_by_row,
    run_lanes,
    shares_of,
    touch_in_order,
)
from hftlab.kernels.book.ladder import Books, mark_levels
from hftlab.kernels.book.touch import TOUCH_WIDTH
from hftlab.kernels.engine.audit import Trail, audit, reached_checks
from hftlab.kernels.engine.batch import Outputs
from hftlab.kernels.risk_gate.gate import CHECKS_PORTFOLIO
from hftlab.kernels.risk_gate.records import MID
from hftlab.risk_gate.gate_run import GateRun
from hftlab.risk_gate.limits import Limits
from hftlab.risk_gate.manager import RiskManager, first_kill
from hftlab.tape.tape import Tape

FIRST_PIECE = 1 << 16  # rows before the first audit; each piece is four times the one before


@dataclass
class Played:
    """A tape that has been run, as lanes left it."""

    books: Books
    lanes: list[Lane]
    gate: GateRun | None
    fell_back: int = 0  # rows run in input order after a limit was touched


def run_apart(
    tape: Tape,
    outputs: Outputs,
    threads: int,
    touch: bool,
    progress: Progress | None,
    manager: RiskManager | None,
) -> Played:
    """Run a tape whose instruments have nothing to do with one another, or that has one part."""
    books = opened_books(tape)
    gate = open_gate(manager, tape, books)
    lanes = [Lane(tape, books, outputs, share, touch, gate) for share in shares_of(tape, threads)]
    for first, last in gate.pieces() if gate is not None else [(0, tape.rows)]:
        if gate is not None:
            gate.look_at(first, last)
        run_lanes(lanes, first, last, progress)
    if len(lanes) > 1:
        mark_levels(books)
    return Played(books, lanes, gate)


def parts_for(threads: int, limits: Limits | None) -> int:
    """How many parts to cut a tape into: one where limits tie instruments together.

    What goes on in input order beside the books, checks 1 to 7 and the audit, takes longer than one thread
    takes for all of it; a tape that is in parts already still runs side by side.
    """
    return 1 if limits is not None and limits.ties_instruments else threads


def is_tied(tape: Tape, manager: RiskManager) -> bool:
    """Whether what happens in one part of a tape may change what is allowed in another."""
    return tape.parts.size > 2 and (manager.has_money or first_kill(tape.checked) < tape.rows)


def run_tied(
    tape: Tape,
    outputs: Outputs,
    threads: int,
    touch: bool,
    progress: Progress | None,
    manager: RiskManager,
    before: RiskManager,
) -> Played:
    """Run a tape whose instruments are tied together, side by side for as long as nothing comes of that.

    `before` is a copy of the manager.
    """
    until = first_kill(tape.checked) if threads > 1 else 0
    run = _TiedRun(tape, outputs, threads, touch, manager)
    touched = run.side_by_side(until, progress)
    if touched < until:
        manager.restore(before)
        run = _TiedRun(tape, outputs, threads, touch, manager)
        run.side_by_side(touched, None)
    run.in_order(touched, progress)
    fell_back = tape.rows - touched if threads > 1 else 0
    return Played(run.books, run.lanes, run.gate, fell_back)


class _TiedRun:
    """One attempt: lanes from the first row on, then one lane in input order."""

    def __init__(self, tape: Tape, outputs: Outputs, threads: int, touch: bool, manager: RiskManager) -> None:
        self.tape, self.outputs, self.threads, self.touch = tape, outputs, threads, touch
        self.books = opened_books(tape)
        self.gate = open_gate(manager, tape, self.books)
        self.pieces = self.gate.pieces()
        self.places = places_by_row(tape)
        self.lanes: list[Lane] = []

    def side_by_side(self, until: int, progress: Progress | None) -> int:
        """Run rows before `until` on threads; the first at which a limit may bind, else `until`."""
        if until == 0:
            return 0
        follower = _Audit(self.tape, self.books, self.gate, self.places) if self._has_money else None
        touch, apart = self.touch or (follower is not None and follower.needs_touch), self.gate.apart()
        self.lanes = [
            Lane(self.tape, self.books, self.outputs, share, touch, self.gate, apart)
            for share in shares_of(self.tape, self.threads)
        ]
        for first, last in _growing(self.pieces, until):
            self.gate.look_at(first, last)
            run_lanes(self.lanes, first, last, progress)
            if follower is not None:
                touched = follower.follow(self.lanes, first, last)
                if touched < last:
                    return touched
        mark_levels(self.books)
        if follower is not None:
            follower.settle()
        return until

    def in_order(self, first_row: int, progress: Progress | None) -> None:
        """Run the rows from `first_row` on one after the other."""
        if first_row == self.tape.rows:
            return
        whole, gate = [(0, self.tape.rows)], self.gate.in_order(self.places, first_row)
        lane = Lane(
            self.tape, self.books, self.outputs, whole, self.touch, self.gate, gate, visit=self.places
        )
        for first, last in self.pieces:
            first = max(first, first_row)
            if first < last:
                self.gate.look_at(first, last)
                lane.run(first, last, progress)
        self.lanes = [*self.lanes, lane]

    @property
    def _has_money(self) -> bool:
        return self.gate.manager.has_money


def _growing(pieces: list[tuple[int, int]], until: int) -> Iterator[tuple[int, int]]:
    """Rows of the pieces before `until`, cut so that little is lost where a limit is touched soon."""
    size = FIRST_PIECE
    for first, last in pieces:
        while first < min(last, until):
            stop = min(last, until, first + size)
            yield first, stop
            first, size = stop, 4 * size


class _Audit:
    """Accounts' money, rebuilt in input order from what lanes have written."""

    def __init__(self, tape: Tape, books: Books, gate: GateRun, places: np.ndarray) -> None:
        self.tape, self.run, self.places = tape, gate, places
        manager = gate.manager
        self.gate = gate.gate._replace(
            holdings=manager.holdings.copy(), symbols=manager.symbols.copy(), counts=gate.gate.counts.copy()
        )
        self.books = books._replace(heads=books.heads.copy())
        self.asks = bool(self.gate.counts[CHECKS_PORTFOLIO]) or gate.has_struck
        self.needs_touch = bool((manager.symbols["kind"] == MID).any())
        self.reached = reached_checks()
        self.heard: dict[Lane, tuple[int, int]] = {}  # fills and touches of each lane so far

    def follow(self, lanes: list[Lane], first: int, last: int) -> int:
        """The first of rows [first, last), just run by lanes, at which a limit may bind, or `last`."""
        fills, touches = self._news(lanes)
        trail = Trail(
            fills,
            touches,
            lanes[0].outputs.outcomes,
            self.places,
            self.run.row_holdings,
            self.reached,
            self.run.manager.index,
        )
        gate = self.gate._replace(owners=lanes[0].gate.owners)
        grid, columns = self.tape.grid, self.tape.checked.columns
        return int(audit(self.books, grid, gate, columns, trail, self.asks, first, last))

    def _news(self, lanes: list[Lane]) -> tuple[np.ndarray, np.ndarray]:
        """Fills and touches since the last time, in input order."""
        fills, touches = [], [np.empty((0, TOUCH_WIDTH), np.int64)]
        for lane in lanes:
            fill, touch = self.heard.get(lane, (0, 0))
            fills.append(lane.outputs.fills[fill : lane.fills])
            if self.needs_touch:
                touches.append(lane.outputs.touch[touch : lane.touches])
            self.heard[lane] = lane.fills, lane.touches
        return (
            in_input_order(self.tape, [np.concatenate(fills)]),
            touch_in_order(self.tape, [np.concatenate(touches)]),
        )

    def settle(self) -> None:
        """Bring what the lanes did not know into the manager."""
        holdings, symbols = self.run.manager.holdings, self.run.manager.symbols
        for name in ("traded", "stopped"):
            holdings[name] = self.gate.holdings[name]
        for name in ("mark", "has_mark"):
            symbols[name] = self.gate.symbols[name]
