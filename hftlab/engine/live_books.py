"""Books that take raw commands one at a time, and grow as they need.

Growth happens here, between commands: a kernel that lacks a slot or a price page says so before it has
changed anything, and is asked again afterwards.
"""

from __future__ import annotations

import numpy as np

from hftlab.kernels.book.ladder import Books, load_orders, make_books, never_open
from hftlab.kernels.book.price_grid import PAGE_BITS, Grid
from hftlab.kernels.book.records import FILL, WIDE
from hftlab.kernels.engine import live_books
from hftlab.kernels.primitives.bitmap import Bitmap
from hftlab.kernels.primitives.hash_index import copy_index, fill_index, make_index
from hftlab.tape.open_orders import Resting, levels_of, open_orders
from hftlab.tape.price_grid import insert_page, spread_grid

MAX_SLOTS = 1 << 30
MAX_PAGES = 1 << 22  # of 64 ticks a side: levels are numbered in 32 bits


class Venue:
    """The state of the event path: kernels get `address`, this object keeps the arrays alive."""

    def __init__(self, grid: Grid, opening: Resting, slots: int, fills: int | None = None) -> None:
        """Books on a grid holding `opening`, with room for `slots` orders.

        `fills` is the room for fills; by default enough for any one command, growing with the slots.
        """
        self.grid, self.fixed_fills, self.spare_fills = grid, fills, 0
        self._build(opening, slots)

    def _build(self, opening: Resting, slots: int) -> None:
        grid, count = self.grid, opening.count
        books = make_books(grid.sizes, slots, WIDE, accounts=True)
        first = never_open(books.levels.size) + 1
        given = np.arange(first, first + count, dtype=np.int32)
        levels = levels_of(grid, opening)
        load_orders(books, opening.book, given, levels, opening.qty, given, opening.account)
        index = make_index(slots)
        fill_index(index, opening.order_id, opening.book, given)
        ids = np.zeros(first + slots, np.int64)
        ids[given] = opening.order_id
        free = np.zeros(slots, np.int32)
        free[: slots - count] = np.arange(first + slots - 1, first + count - 1, -1, dtype=np.int32)
        fills = slots + self.spare_fills if self.fixed_fills is None else self.fixed_fills
        self.slots = slots
        self._take(
            live_books.LiveBookArrays(
                books.heads,
                books.levels,
                books.orders,
                books.entries,
                books.accounts,
                *books.bitmap,
                *grid,
                index,
                ids,
                free,
                np.array([slots - count, 0, 0, 0], np.int64),
                np.empty(fills, FILL[WIDE]),
                np.empty(fills, np.int64),
            )
        )

    def _take(self, arrays: live_books.LiveBookArrays) -> None:
        """Make these the arrays that kernels find at `address`."""
        self.arrays = arrays
        self._block = live_books.block_of(arrays)
        self.address = self._block.ctypes.data

    @property
    def books(self) -> Books:
        """The books as the kernels of a batch take them."""
        a = self.arrays
        return Books(a.heads, a.levels, a.orders, a.entries, a.accounts, Bitmap(a.words, a.blocks, a.regions))

    @property
    def open_count(self) -> int:
        """Orders that rest."""
        return self.slots - int(self.arrays.counts[live_books.FREE])

    def resting(self) -> Resting:
        """All open orders in priority order."""
        return open_orders(self.books, self.grid, self.open_count, lambda nodes: self.arrays.ids[nodes])

    def grow_slots(self) -> bool:
        """Twice the room for orders once all is taken; False where there can be no more."""
        if 2 * self.slots > MAX_SLOTS:
            return False
        first = never_open(self.arrays.levels.size) + 1
        taken, self.slots = first + self.slots, 2 * self.slots
        for name in ("orders", "entries", "accounts", "ids"):  # one after the other: little is there twice
            longer = np.zeros(first + self.slots, getattr(self.arrays, name).dtype)
            longer[:taken] = getattr(self.arrays, name)
            self.arrays = self.arrays._replace(**{name: longer})
        index = make_index(self.slots)
        copy_index(self.arrays.index, index)
        free = np.zeros(self.slots, np.int32)
        new = np.arange(first + self.slots - 1, taken - 1, -1, dtype=np.int32)
        free[: new.size] = new
        self.arrays.counts[live_books.FREE] = new.size
        arrays = self.arrays._replace(index=index, free=free)
        if self.fixed_fills is None:
            fills = self.slots + self.spare_fills
            arrays = arrays._replace(fills=np.empty(fills, FILL[WIDE]), makers=np.empty(fills, np.int64))
        self._take(arrays)
        return True

    def grow_fills(self, more: int, written: int) -> None:
        """Room for more fills than the slots ask for, behind those that have been written."""
        self.spare_fills += more
        fills = np.empty(self.arrays.fills.size + more, FILL[WIDE])
        fills[:written] = self.arrays.fills[:written]
        makers = np.empty(fills.size, np.int64)
        makers[:written] = self.arrays.makers[:written]
        self._take(self.arrays._replace(fills=fills, makers=makers))

    def add_price(self, price: int) -> bool:
        """Make room on the ladder of book 0 for a price; False where there can be no more."""
        tick = int(self.grid.ticks[0])
        page = (price // tick) >> PAGE_BITS
        if insert_page(self.grid, page):
            return True
        if self.grid.numbers.size > MAX_PAGES:
            return False
        opening, slots = self.resting(), self.slots
        pages = np.append((opening.price // tick) >> PAGE_BITS, page)
        del self.arrays, self._block  # before new ones are made: there need not be room for both
        self.grid = spread_grid(self.grid.rules, np.unique(pages))
        self._build(opening, slots)
        return True


__all__ = ["Venue"]
