"""The touch of a book, best bid and best ask, as a run notes it."""

from __future__ import annotations

import numpy as np

from hftlab.kernels.book.ladder import BASE, BEST, SIZE, bare_books
from hftlab.kernels.primitives.compile import helper, kernel
from hftlab.kernels.primitives.intrinsics import bare, ix

# columns of a change of the touch
TOUCH_ROW, TOUCH_LEVEL, TOUCH_QTY, TOUCH_COUNT, TOUCH_BOOK = 0, 1, 3, 5, 7  # + side
TOUCH_WIDTH = 8


@helper
def touch_of(books, book, side):
    """(level, lots, orders) of the best level of a side; of an empty side the level is none of its own."""
    level = np.int64(books.heads[ix(book), BEST + side])
    there = np.int64(level >= books.heads[ix(book), BASE] + side * books.heads[ix(book), SIZE])
    best = books.levels[ix(level & -there)]
    return level, best["qty"] & -there, np.int64(best["count"]) & -there


@kernel
def start_touch(books, last):
    """Take the touch as it stands before the first command, so that it isn't a change."""
    books, last = bare_books(books), bare(last)
    for book in range(last.shape[0]):
        for side in range(2):
            level = np.int64(books.heads[book, BEST + side])
            last[book, TOUCH_LEVEL + side] = level
            if level >= 0:
                last[book, TOUCH_QTY + side] = books.levels[level]["qty"]
                last[book, TOUCH_COUNT + side] = books.levels[level]["count"]
