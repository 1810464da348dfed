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

# columns of `counts`: nodes on the free stack; what the last command did
FREE, FILLED_QTY, LEAVES_QTY, COUNT = range(4)


class Venue(NamedTuple):
    """Books that take raw commands. The fields, in this order, are the block `venue_at` reads."""

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
    index: np.ndarray  # ENTRY: order id -> node
    ids: np.ndarray  # int64 [nodes]
    free: np.ndarray  # int32 [slots]: a stack of free nodes
    counts: np.ndarray  # int64 [4]: see above
    fills: np.ndarray  # FILL
    makers: np.ndarray  # int64 [fills]: order id of each maker


FIELDS = len(Venue._fields)


class Desk(NamedTuple):
    """A venue as kernels use it."""

    books: Books
    grid: Grid
    index: np.ndarray
    ids: np.ndarray
    free: np.ndarray
    counts: np.ndarray
    fills: np.ndarray
    makers: np.ndarray


@helper
def desk_at(address):
    """The venue whose block of (address, length) pairs stands at an address."""
    block = array_at(address, (2 * FIELDS,), INT64)
    bitmap = Bitmap(
        array_at(block[10], (block[11],), INT64),
        array_at(block[12], (block[13],), INT64),
        array_at(block[14], (block[15],), INT64),
    )
    books = Books(
        array_at(block[0], (block[1], HEAD_WIDTH), INT32),
        array_at(block[2], (block[3],), LEVEL),
        array_at(block[4], (block[5],), ORDERS),
        array_at(block[6], (block[7],), INT32),
        array_at(block[8], (block[9],), INT32),
        bitmap,
    )
    grid = Grid(
        array_at(block[16], (block[17],), RULE),
        array_at(block[18], (block[19],), INT64),
        array_at(block[20], (block[21],), BOOL),
        array_at(block[22], (block[23],), INT64),
        array_at(block[24], (block[25],), INT64),
        array_at(block[26], (block[27],), INT64),
        array_at(block[28], (block[29],), INT64),
        array_at(block[30], (block[31],), ENTRY),
    )
    return Desk(
        books,
        grid,
        array_at(block[32], (block[33],), ENTRY),
        array_at(block[34], (block[35],), INT64),
        array_at(block[36], (block[37],), INT32),
        array_at(block[38], (block[39],), INT64),
        array_at(block[40], (block[41],), FILLS),
        array_at(block[42], (block[43],), INT64),
    )


def block_of(venue: Venue) -> np.ndarray:
    """The block of a venue's (address, length) pairs; it must not outlive the arrays."""
    return np.array([(a.ctypes.data, a.shape[0]) for a in venue], np.int64).ravel()


@helper
def take_slot(desk, key, book):
    """A free slot, now of this order and in the index."""
    desk.counts[FREE] -= 1
    slot = np.int64(desk.free[desk.counts[FREE]])
    desk.ids[slot] = key
    store(desk.index, find(desk.index, key, book), key, book, slot)
    return slot


@helper
def release_slot(desk, book, slot):
    """The order of a slot is dead: its id may be used again, and so may the slot."""
    discard(desk.index, find(desk.index, desk.ids[slot], book))
    desk.free[desk.counts[FREE]] = slot
    desk.counts[FREE] += 1


@helper
def release_all(desk, book, account, everyone):
    """Release what a MASS_CANCEL or CLEAR is about to remove."""
    books = desk.books
    for side in range(2):
        bottom = books.heads[book, BASE] + side * books.heads[book, SIZE]
        level = np.int64(books.heads[book, BEST + side])
        while level >= bottom and level != NONE:
            slot = np.int64(books.orders[level]["next"])
            while slot != level:
                if everyone or books.accounts[slot] == account:
                    release_slot(desk, book, slot)
                slot = np.int64(books.orders[slot]["next"])
            level = previous_bit(books.bitmap, level)


@helper
def release_makers(desk, book, start, count):
    """Note the ids of the makers of some fills, and release those that are filled."""
    for i in range(start, count):
        slot = np.int64(desk.fills[i]["maker"])
        desk.makers[i] = desk.ids[slot]
        if desk.fills[i]["maker_leaves"] == 0:
            release_slot(desk, book, slot)
