"""The state of the event path: books that take raw commands, with an index of ids and recycled slots.

It is passed as the address of a block of addresses, because unboxing arrays is what a Python call into a
kernel costs (231 ns against 1,200 for a tuple of them).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels.book.ladder import BASE, BEST, HEAD_WIDTH, SIZE, Books
from hftlab.kernels.book.price_grid import RULE, Grid
from hftlab.kernels.book.records import FILL, LEVEL, ORDER, WIDE
from hftlab.kernels.primitives.bitmap import NONE, Bitmap, previous_bit
from hftlab.kernels.primitives.compile import helper
from hftlab.kernels.primitives.hash_index import ENTRY, discard, find, store
from hftlab.kernels.primitives.intrinsics import array_at

ORDERS, FILLS = ORDER[WIDE], FILL[WIDE]
INT32, INT64, BOOL = np.dtype("i4"), np.dtype("i8"), np.dtype("?")

# columns of `counts`: slots on the free stack; what the last command did
FREE, FILLED_QTY, LEAVES_QTY, COUNT = range(4)


class LiveBookArrays(NamedTuple):
    """Books that take raw commands. The fields, in this order, are the block `live_books_at` reads."""

    heads: np.ndarray
    levels: np.ndarray
    orders: np.ndarray
    entries: np.ndarray
    accounts: np.ndarray
    words: np.ndarray
    blocks: np.ndarray
    regions: np.ndarray
    rules: np.ndarray  # the grid's arrays, see price_grid.py
    first: np.ndarray
    whole: np.ndarray
    sizes: np.ndarray
    bases: np.ndarray
    numbers: np.ndarray
    starts: np.ndarray
    pages: np.ndarray
    index: np.ndarray  # ENTRY: order id -> slot
    ids: np.ndarray  # int64 [slots]
    free: np.ndarray  # int32 [slots]: a stack of free slots
    counts: np.ndarray  # int64 [4]: see above
    fills: np.ndarray  # FILL
    makers: np.ndarray  # int64 [fills]: order id of each maker


FIELDS = len(LiveBookArrays._fields)
AT = LiveBookArrays(*range(FIELDS))  # number of each field in the block


class LiveBooks(NamedTuple):
    """Live books as kernels use them."""

    books: Books
    grid: Grid
    index: np.ndarray
    ids: np.ndarray
    free: np.ndarray
    counts: np.ndarray
    fills: np.ndarray
    makers: np.ndarray


@helper
def array_in(block, field, dtype):
    """The array of a field, by its number in a block of (address, length) pairs."""
    return array_at(block[2 * field], (block[2 * field + 1],), dtype)


@helper
def live_books_at(address):
    """The live books whose block of (address, length) pairs stands at an address."""
    # arrays made from addresses have no reference counts, so none are counted on any call
    block = array_at(address, (2 * FIELDS,), INT64)
    bitmap = Bitmap(
        array_in(block, AT.words, INT64),
        array_in(block, AT.blocks, INT64),
        array_in(block, AT.regions, INT64),
    )
    books = Books(
        array_at(block[2 * AT.heads], (block[2 * AT.heads + 1], HEAD_WIDTH), INT32),
        array_in(block, AT.levels, LEVEL),
        array_in(block, AT.orders, ORDERS),
        array_in(block, AT.entries, INT32),
        array_in(block, AT.accounts, INT32),
        bitmap,
    )
    grid = Grid(
        array_in(block, AT.rules, RULE),
        array_in(block, AT.first, INT64),
        array_in(block, AT.whole, BOOL),
        array_in(block, AT.sizes, INT64),
        array_in(block, AT.bases, INT64),
        array_in(block, AT.numbers, INT64),
        array_in(block, AT.starts, INT64),
        array_in(block, AT.pages, ENTRY),
    )
    return LiveBooks(
        books,
        grid,
        array_in(block, AT.index, ENTRY),
        array_in(block, AT.ids, INT64),
        array_in(block, AT.free, INT32),
        array_in(block, AT.counts, INT64),
        array_in(block, AT.fills, FILLS),
        array_in(block, AT.makers, INT64),
    )


def block_of(arrays: LiveBookArrays) -> np.ndarray:
    """The block of (address, length) pairs of arrays; it must not outlive them."""
    return np.array([(a.ctypes.data, a.shape[0]) for a in arrays], np.int64).ravel()


@helper
def take_slot(live, key, book):
    """A free slot, now of this order and in the index."""
    live.counts[FREE] -= 1
    order_slot = np.int64(live.free[live.counts[FREE]])
    live.ids[order_slot] = key
    store(live.index, find(live.index, key, book), key, book, order_slot)
    return order_slot


@helper
def release_slot(live, book, order_slot):
    """The order of a slot is dead: its id may be used again, and so may the slot."""
    discard(live.index, find(live.index, live.ids[order_slot], book))
    live.free[live.counts[FREE]] = order_slot
    live.counts[FREE] += 1


@helper
def release_all(live, book, account, everyone):
    """Release what a MASS_CANCEL or CLEAR is about to remove."""
    books = live.books
    for side in range(2):
        bottom = books.heads[book, BASE] + side * books.heads[book, SIZE]
        level = np.int64(books.heads[book, BEST + side])
        while level >= bottom and level != NONE:
            order_slot = np.int64(books.orders[level]["next"])
            while order_slot != level:
                if everyone or books.accounts[order_slot] == account:
                    release_slot(live, book, order_slot)
                order_slot = np.int64(books.orders[order_slot]["next"])
            level = previous_bit(books.bitmap, level)


@helper
def release_makers(live, book, start, count):
    """Note the ids of the makers of some fills, and release those that are filled."""
    for i in range(start, count):
        order_slot = np.int64(live.fills[i]["maker"])
        live.makers[i] = live.ids[order_slot]
        if live.fills[i]["maker_leaves"] == 0:
            release_slot(live, book, order_slot)
