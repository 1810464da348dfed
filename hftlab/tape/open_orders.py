"""A book is its resting orders in priority order.

That one table is how books move: seeding a run, carrying it from one chunk to the next, growing an
OrderBook, snapshots and copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hftlab import schema
from hftlab.kernels.book.ladder import Books
from hftlab.kernels.book.open_orders import list_orders
from hftlab.kernels.book.price_grid import PAGE, PAGE_BITS, Grid
from hftlab.schema import make_table, symbol_array


class Resting(NamedTuple):
    """Open orders: book by book, bids then asks, best price first, oldest first."""

    book: np.ndarray  # int32
    side: np.ndarray  # int8: +1, -1
    price: np.ndarray  # int64, 1e-9
    qty: np.ndarray  # int64, lots
    order_id: np.ndarray  # int64, the bits of a uint64
    account: np.ndarray  # int32

    @property
    def count(self) -> int:
        """Open orders."""
        return self.book.size


def nothing() -> Resting:
    """No open orders."""
    return Resting(*(np.zeros(0, t) for t in ("i4", "i1", "i8", "i8", "i8", "i4")))


def books_of(book: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The books in a sorted column, and where the rows of each start: (books [n], starts [n + 1])."""
    inner = np.flatnonzero(book[1:] != book[:-1]) + 1
    starts = np.concatenate(([0], inner, [book.size])) if book.size else np.zeros(1, np.int64)
    return book[starts[:-1]], starts


def level_prices(grid: Grid, book: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Prices of levels, vectorized; the twin of kernels.price_grid.level_price."""
    rung = level - grid.bases[book]
    size = grid.sizes[book]
    rung = np.where(rung >= size, 2 * size - 1 - rung, rung)
    page = grid.numbers[grid.starts[book] + (rung >> PAGE_BITS)]
    return ((page << PAGE_BITS) | (rung & (PAGE - 1))) * grid.ticks[book]


def levels_of(grid: Grid, orders: Resting) -> np.ndarray:
    """Levels of open orders, int32; every price is on the grid."""
    book, tick = orders.book, orders.price // grid.ticks[orders.book]
    position = (tick >> PAGE_BITS) - grid.first[book]
    books, starts = books_of(book)
    holed = np.flatnonzero(~grid.whole[books])
    for b, start, stop in zip(books[holed].tolist(), starts[holed], starts[holed + 1], strict=True):
        pages = grid.numbers[grid.starts[b] :][: grid.sizes[b] >> PAGE_BITS]
        position[start:stop] = np.searchsorted(pages, tick[start:stop] >> PAGE_BITS)
    rung = (position << PAGE_BITS) | (tick & (PAGE - 1))
    mirrored = np.where(orders.side > 0, rung, 2 * grid.sizes[book] - 1 - rung)
    return (grid.bases[book] + mirrored).astype(np.int32)


def open_orders(
    books: Books, grid: Grid, capacity: int, ids_of: Callable[[np.ndarray], np.ndarray]
) -> Resting:
    """The resting orders of some books, at most `capacity`; `ids_of` tells order ids from nodes."""
    nodes = np.empty(capacity, np.int32)
    book, side, price, qty, account = (np.empty(capacity, t) for t in ("i4", "i1", "i8", "i8", "i4"))
    count = list_orders(books, grid, nodes, (book, side, price, qty, account))
    return Resting(
        book[:count], side[:count], price[:count], qty[:count], ids_of(nodes[:count]), account[:count]
    )


def book_table(symbols: tuple[str, ...], resting: Resting) -> pa.Table:
    """Open orders in priority order."""
    return make_table(
        schema.BOOK,
        symbol_array(symbols, resting.book),
        resting.side,
        resting.price,
        resting.qty,
        resting.order_id.view("u8"),
        resting.account,
    )
