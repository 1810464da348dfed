"""The orders that rest in books, listed in priority order."""

from __future__ import annotations

import numpy as np

from hftlab.kernels.book.ladder import BASE, BEST, SIZE, bare_books
from hftlab.kernels.book.price_grid import bare_grid, level_price
from hftlab.kernels.primitives.bitmap import NONE, previous_bit
from hftlab.kernels.primitives.compile import kernel
from hftlab.kernels.primitives.intrinsics import bare


@kernel
def list_orders(books, grid, nodes, resting):
    """Every open order: per book, bids then asks, best level first, oldest first; returns how many.

    `nodes` takes their nodes, `resting` (book, side, price, qty, account) the rest.
    """
    books, grid, nodes = bare_books(books), bare_grid(grid), bare(nodes)
    book_of, side_of, price_of, qty_of, account_of = resting
    count = 0
    for book in range(books.heads.shape[0]):
        for side in range(2):
            bottom = books.heads[book, BASE] + side * books.heads[book, SIZE]
            level = np.int64(books.heads[book, BEST + side])
            while level >= bottom and level != NONE:
                price = level_price(grid, np.int64(book), level)
                node = np.int64(books.orders[level]["next"])
                while node != level:
                    nodes[count], book_of[count], side_of[count] = node, book, 1 - 2 * side
                    price_of[count], qty_of[count] = price, books.orders[node]["qty"]
                    account_of[count] = books.accounts[node] if books.accounts.size else 0
                    count += 1
                    node = np.int64(books.orders[node]["next"])
                level = previous_bit(books.bitmap, level)
    return count
