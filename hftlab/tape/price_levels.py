"""Price levels as orders: what a feed without orders says, in terms the books understand.

An `mbp` table says how much rests at a price from now on. One order a level tells the same: it appears when
the level does, changes with it, and goes when nothing is left. Its id is made from side and price, so that
it is the same in every chunk; the count of orders at a level is then always one. A row that sets no legal
size or price is refused like any other command, and the level stays as it was.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftlab.codes import NOT_A_VALUE, Action, MboAction
from hftlab.errors import TableError
from hftlab.kernels.book.columns import Columns
from hftlab.kernels.codes import NOTE
from hftlab.tape.facts import Mbo, event_ends, read_mbp
from hftlab.tape.tables import ABSENT, CheckedTable, frozen


class LevelReader:
    """Reads one mbp table after the other; which levels are open passes from each to the next."""

    def __init__(self) -> None:
        self._open: dict[str, np.ndarray] = {}  # ids of the open levels, by symbol

    def __call__(self, table: Any, first_row: int = 0) -> CheckedTable:
        """Check an mbp table; its rows become commands that rest and remove without matching.

        Raises TableError listing everything that is wrong with its shape.
        """
        mbp = read_mbp(table, first_row)
        _refuse_orders(mbp, first_row)
        ids = level_ids(mbp.side, mbp.price)
        action = self._actions(mbp, ids)
        columns = Columns(
            frozen(action, "i1"),
            mbp.side,
            ABSENT["i1"],
            ABSENT["i1"],
            ABSENT["?"],
            frozen(ids, "i8"),
            ABSENT["i8"],
            mbp.price,
            mbp.size,
            frozen(mbp.book, "i4") if len(mbp.symbols) > 1 else ABSENT["i4"],
            ABSENT["i4"],
        )
        ts, ends = frozen(mbp.ts, "i8"), event_ends(mbp)
        return CheckedTable(ids.size, columns, mbp.symbols, ts, first_row, facts=True, ends=ends)

    def _actions(self, mbp: Mbo, ids: np.ndarray) -> np.ndarray:
        """What each row asks the books to do; which levels are open afterwards is kept."""
        sets, clears = mbp.fact == MboAction.M, mbp.fact == MboAction.R
        actions = np.where(clears, Action.CLEAR, np.where(sets, Action.NEW, NOTE)).astype(np.int8)
        legal = sets & (mbp.size >= 0) & (mbp.price != NOT_A_VALUE)  # others stay NEW, and are refused
        rows = np.flatnonzero(legal | clears)
        rows = rows[np.argsort(mbp.book[rows], kind="stable")]
        books = np.arange(len(mbp.symbols))
        # a cleared book begins anew: its levels are of another life; lives of all books in one ascending row
        life = np.cumsum(clears[rows]) + mbp.book[rows]
        begin, end = (np.searchsorted(mbp.book[rows], books, side) for side in ("left", "right"))
        before = np.concatenate([[0], np.cumsum(clears[rows])])
        first_life, last_life = before[begin] + books, before[end] + books
        rows, life = rows[legal[rows]], life[legal[rows]]
        known = [self._open.get(symbol, _NONE) for symbol in mbp.symbols]
        was_open, (open_ids, open_life) = _follow(
            ids[rows],
            mbp.size[rows],
            life,
            np.concatenate(known),
            np.repeat(first_life, [k.size for k in known]),
        )
        changed = np.where(was_open, Action.REPLACE, Action.NEW)
        actions[rows] = np.where(mbp.size[rows] != 0, changed, np.where(was_open, Action.CANCEL, NOTE))
        begin, end = (np.searchsorted(open_life, last_life, side) for side in ("left", "right"))
        for symbol, start, stop in zip(mbp.symbols, begin, end, strict=True):
            self._open[symbol] = open_ids[start:stop]
        return actions


_NONE = np.empty(0, np.int64)


def _refuse_orders(mbp: Mbo, first_row: int) -> None:
    """Levels have a side, and nothing but M and R changes them.

    Raises TableError.
    """
    orders = np.isin(mbp.fact, (MboAction.A, MboAction.C))
    sideless = (mbp.fact == MboAction.M) & (mbp.side == 0)
    problems = []
    if orders.any():
        row = int(np.argmax(orders))
        found = MboAction(int(mbp.fact[row])).name
        problems.append(
            f"column action, row {first_row + row}: found {found}, expected M, R, T or N of levels"
        )
    if sideless.any():
        row = first_row + int(np.argmax(sideless))
        problems.append(f"column side, row {row}: found no side, expected BUY or SELL on every M")
    if problems:
        raise TableError(problems, "mbp table")


def level_ids(side: np.ndarray, price: np.ndarray) -> np.ndarray:
    """An id for each side and price (the bits of a uint64)."""
    return (price << 1) | (side < 0)


def _follow(
    ids: np.ndarray, size: np.ndarray, life: np.ndarray, known: np.ndarray, known_life: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Whether each row's level was open before it; and ids and lives of what is open at each life's end."""
    all_ids = np.concatenate([known, ids])
    all_sizes = np.concatenate([np.ones(known.size, size.dtype), size])
    all_lives = np.concatenate([known_life, life])
    order = np.argsort(all_ids, kind="stable")  # rows of a level stay in their order
    if all_lives.size and all_lives.min() != all_lives.max():
        order = order[np.argsort(all_lives[order], kind="stable")]
    sorted_ids, sorted_lives, was = all_ids[order], all_lives[order], all_sizes[order] != 0
    same = (sorted_ids[1:] == sorted_ids[:-1]) & (sorted_lives[1:] == sorted_lives[:-1])
    was_open = np.zeros(order.size, bool)
    was_open[order[1:]] = same & was[:-1]
    open_last = np.append(~same, True)[: order.size] & was
    return was_open[known.size :], (sorted_ids[open_last], sorted_lives[open_last])
