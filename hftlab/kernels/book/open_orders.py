"""The orders that rest in books, listed in priority order."""

from __future__ import annotations

import numpy as np

from hftlab.kernels.book.ladder import BASE, BEST, SIZE, bare_books
from hftlab.kernels.book.price_grid import bare_grid, level_price
from hftlab.kernels.primitives.bitmap import NONE, previous_bit
from hftlab.kernels.primitives.compile import kernel
from hftlab.kernels.primitives.intrinsics import bare


@kernel
def list_orders(books, grid, order_slots, resting):
    """Every open order: per book, bids then asks, best level first, oldest first; returns how many.

    `order_slots` takes their slots, `resting` (book, side, price, qty, account) the rest.
    """
    books, grid, order_slots = bare_books(books), bare_grid(grid), bare(order_slots)
    book_of, side_of, price_of, qty_of, account_of = resting
    count = 0
    for book in range(books.heads.shape[0]):
        for side in range(2):
            bottom = books.heads[book, BASE] + side * books.heads[book, SIZE]
            level = np.int64(books.heads[book, BEST + side])
            while level >= bottom and level != NONE:
                price = level_price(grid, np.int64(book), level)
                order_slot = np.int64(books.orders[level]["next"])
                while order_slot != level:
                    order_slots[count], book_of[count], side_of[count] = order_slot, book, 1 - 2 * side
                    price_of[count], qty_of[count] = price, books.orders[order_slot]["qty"]
                    account_of[count] = books.accounts[order_slot] if books.accounts.size else 0
                    count += 1
                    order_slot = np.int64(books.orders[order_slot]["next"])
                level = previous_bit(books.bitmap, level)
    return count
