"""Price levels as orders: what a feed without orders says, in terms the books understand.

An `mbp` table says how much rests at a price from now on. One order a level tells the same: it appears when
the level does, changes with it, and goes when nothing is left. Its id is made from side and price, so that
it is the same in every chunk; the count of orders at a level is then always one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftlab.codes import Action, MboAction
from hftlab.kernels.tape_compiler import NOTE, Columns
from hftlab.tables import ABSENT, CheckedTable, Mbo, event_ends, frozen, read_mbp


class LevelReader:
    """Reads one mbp table after the other; which levels are open passes from each to the next."""

    def __init__(self) -> None:
        self._open: dict[str, np.ndarray] = {}  # ids of the open levels, by symbol

    def __call__(self, table: Any, first_row: int = 0) -> CheckedTable:
        """Check an mbp table; its rows become commands that rest and remove without matching.

        Raises TableError listing everything that is wrong with its shape.
        """
        mbp = read_mbp(table, first_row)
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
        """What each row asks the books to do, and what is open afterwards."""
        actions = np.full(ids.size, NOTE, np.int8)
        actions[mbp.fact == MboAction.R] = Action.CLEAR
        for book, symbol in enumerate(mbp.symbols):
            here = np.isin(mbp.fact, (MboAction.M, MboAction.R))
            rows = np.flatnonzero(here & (mbp.book == book))
            sets = mbp.fact[rows] == MboAction.M
            epoch = np.cumsum(~sets)  # a cleared book begins anew
            last = epoch[-1] if epoch.size else 0
            rows, epoch = rows[sets], epoch[sets]
            known = self._open.get(symbol, np.empty(0, np.int64))
            was_open, self._open[symbol] = _follow(ids[rows], mbp.size[rows], epoch, known, last)
            set_to = np.where(was_open, Action.REPLACE, Action.NEW)
            actions[rows] = np.where(mbp.size[rows] != 0, set_to, np.where(was_open, Action.CANCEL, NOTE))
        return actions


def level_ids(side: np.ndarray, price: np.ndarray) -> np.ndarray:
    """An id for each side and price (the bits of a uint64)."""
    return (price << 1) | (side < 0)


def _follow(
    ids: np.ndarray, size: np.ndarray, epoch: np.ndarray, known: np.ndarray, now: int
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each row's level was open before it, and the ids open at the end, in epoch `now`."""
    all_ids = np.concatenate([known, ids])
    all_sizes = np.concatenate([np.ones(known.size, size.dtype), size])
    all_epochs = np.concatenate([np.zeros(known.size, epoch.dtype), epoch])
    order = np.lexsort((all_ids, all_epochs))  # stable: rows of a level stay in their order
    sorted_ids, sorted_epochs = all_ids[order], all_epochs[order]
    same = (sorted_ids[1:] == sorted_ids[:-1]) & (sorted_epochs[1:] == sorted_epochs[:-1])
    was_open = np.zeros(order.size, bool)
    was_open[order[1:]] = same & (all_sizes[order[:-1]] != 0)
    last = np.append(~same, True)[: order.size] & (sorted_epochs == now)
    return was_open[known.size :], sorted_ids[last & (all_sizes[order] != 0)]
