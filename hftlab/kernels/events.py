"""The event path: one raw command, with an id and a price for a slot and a level, through the same `step`.

What the tape compiler does for a batch happens here per command: the row is checked, its id looked up, its
price put on the ladder, slots recycled as orders die. State is passed as the address of a block of
addresses, because unboxing arrays is what a Python call into a kernel costs (231 ns against 1,200 for a
tuple of them).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.codes import NO_SLOT
from hftlab.kernels import ops
from hftlab.kernels.bits import NONE, Bitmap, previous_bit
from hftlab.kernels.compile import helper, kernel, quick_kernel
from hftlab.kernels.engine import bare_outputs, note_touch, step
from hftlab.kernels.ladder import BASE, BEST, HEAD_WIDTH, SIZE, Books
from hftlab.kernels.machine import array_at, prefetch
from hftlab.kernels.matching import CANCELLED, FILLED, REPLACED, RESTING
from hftlab.kernels.order_index import ENTRY, discard, find, home, lookup, store
from hftlab.kernels.price_grid import NO_RUNG, RULE, Grid, price_level, rung_of, top_level
from hftlab.kernels.records import FILL, LEVEL, ORDER, WIDE
from hftlab.kernels.tape_compiler import (
    CANCEL,
    CLEAR,
    MARKET,
    MASS_CANCEL,
    NEW,
    NOTE,
    REPLACE,
    RISK_CONTROL,
    bare_columns,
    check,
    flags_of,
    rest_flags,
    value_at,
)

ORDERS, FILLS = ORDER[WIDE], FILL[WIDE]
INT32, INT64, BOOL = np.dtype("i4"), np.dtype("i8"), np.dtype("?")

# what `event` answers instead of an outcome when something must grow first; nothing has changed then
NEEDS_SLOTS, NEEDS_LEVELS = 250, 251

LOOKAHEAD = 8  # rows

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


@helper
def event(
    desk,
    count,
    row,
    book,
    action,
    side,
    order_type,
    tif,
    post_only,
    key,
    new_key,
    price,
    qty,
    account,
    facts,
):
    """Apply one raw command; returns (outcome, filled, leaves, fills written)."""
    nothing = np.int64(0)
    reason = check(action, order_type, price, qty, desk.grid.rules, book)
    if reason != 0:
        return ops.REJECTED + np.int64(reason), nothing, nothing, count
    if action in (NOTE, RISK_CONTROL):
        kind = ops.NOTHING if action == NOTE else ops.CONTROL
        op = np.int64(kind << ops.KIND_SHIFT) | (book << ops.BOOK_SHIFT)
        return step(
            desk.books, desk.fills, count, row, op, nothing, nothing, nothing, nothing, nothing, nothing
        )
    if action in (MASS_CANCEL, CLEAR):
        kind = ops.CLEAR if action == CLEAR else ops.MASS_CANCEL
        release_all(desk, book, account, action == CLEAR)
        op = np.int64(kind << ops.KIND_SHIFT) | (book << ops.BOOK_SHIFT)
        return step(
            desk.books, desk.fills, count, row, op, nothing, nothing, nothing, nothing, nothing, account
        )

    slot = lookup(desk.index, key, book)
    target, level, fresh = slot, np.int64(0), False
    if action in (NEW, REPLACE):
        if desk.counts[FREE] == 0:
            return np.int64(NEEDS_SLOTS), nothing, nothing, count
        if action == NEW and order_type == MARKET:
            level = top_level(desk.grid, book, np.int64(side < 0))
        else:
            rung = rung_of(desk.grid, book, price)
            if rung == NO_RUNG:
                return np.int64(NEEDS_LEVELS), nothing, nothing, count
            level = price_level(desk.grid, book, np.int64(side < 0), rung) if action == NEW else rung
    if action == NEW:
        op = np.int64(flags_of(order_type, tif, post_only) | facts | (ops.SELL if side < 0 else ops.BUY))
        if slot == NO_SLOT and not op & ops.NO_REST:
            slot, fresh = take_slot(desk, key, book), True
    elif action == REPLACE:
        op = np.int64(ops.REPLACE << ops.KIND_SHIFT) | facts | rest_flags(order_type, post_only)
        if new_key != key:
            target = lookup(desk.index, new_key, book)
            if target == NO_SLOT and slot != NO_SLOT:
                target, fresh = take_slot(desk, new_key, book), True
    else:
        op = np.int64(ops.REDUCE << ops.KIND_SHIFT)
        qty = np.int64(2**63 - 1) if action == CANCEL else qty
    op |= book << ops.BOOK_SHIFT

    unknown = np.int64(desk.books.levels.size)  # the node that is never open
    outcome, filled, leaves, after = step(
        desk.books,
        desk.fills,
        count,
        row,
        op,
        slot if slot != NO_SLOT else unknown,
        target if target != NO_SLOT else unknown,
        level,
        qty,
        target if action == REPLACE else slot,
        account,
    )
    release_makers(desk, book, count, after)
    if action == NEW:
        if fresh and outcome != RESTING:
            release_slot(desk, book, slot)
    elif action == REPLACE:
        if fresh and outcome != REPLACED:
            release_slot(desk, book, target)
        if outcome == FILLED or (outcome == REPLACED and target != slot):
            release_slot(desk, book, slot)
    elif outcome == CANCELLED:
        release_slot(desk, book, slot)
    return outcome, filled, leaves, after


# the word of `submit`: every code of a command in one integer, because each argument costs 10 ns to unbox
ACTION_BITS, SELL_BIT, TYPE_BITS, TIF_BITS, POST_ONLY_BIT = 0, 3, 4, 6, 8


DETAILS = 256  # in the answer of `submit`: filled, leaves and fills are more than the outcome tells


@quick_kernel
def submit(address, word, key, new_key, price, qty, account):
    """One raw command to book 0 from Python; returns the outcome, plus DETAILS.

    Without DETAILS nothing was filled, and what is open is the command's quantity (RESTING, REPLACED) or
    nothing; with it, filled, leaves and the count of fills are in `counts` from FILLED_QTY on. One integer
    comes back because a tuple of four costs 25 ns more.
    """
    desk = desk_at(address)
    outcome, filled, leaves, count = event(
        desk,
        np.int64(0),
        np.int64(0),
        np.int64(0),
        (word >> ACTION_BITS) & 7,
        np.int64(-1 if (word >> SELL_BIT) & 1 else 1),
        (word >> TYPE_BITS) & 3,
        (word >> TIF_BITS) & 3,
        (word >> POST_ONLY_BIT) & 1,
        np.int64(key),
        np.int64(new_key),
        price,
        qty,
        account,
        np.int64(0),
    )
    if filled == 0 and leaves in (0, qty):
        return outcome
    desk.counts[FILLED_QTY], desk.counts[LEAVES_QTY], desk.counts[COUNT] = filled, leaves, count
    return outcome + DETAILS


@kernel
def run_events(address, columns, outputs, facts, start, count, touches):
    """Apply the rows of a table from `start`, one at a time.

    Returns (rows done, fills written, touches written); it stops before a row that needs more slots.
    """
    desk = desk_at(address)
    columns = bare_columns(columns)
    outputs = bare_outputs(outputs)
    last = columns.action.size - 1
    for row in range(start, columns.action.size):
        ahead = min(row + LOOKAHEAD, last)  # the flow is known: fetch its index entries early
        prefetch(desk.index, home(desk.index, columns.order_id[ahead], value_at(columns.book, ahead)))
        key = columns.order_id[row]
        book = value_at(columns.book, row)
        outcome, filled, leaves, count = event(
            desk,
            count,
            row,
            book,
            value_at(columns.action, row),
            value_at(columns.side, row),
            value_at(columns.order_type, row),
            value_at(columns.tif, row),
            value_at(columns.post_only, row),
            key,
            columns.new_order_id[row] if columns.new_order_id.size else key,
            value_at(columns.price, row),
            value_at(columns.qty, row),
            value_at(columns.account, row),
            np.int64(ops.PASSIVE if facts else 0),
        )
        if outcome >= NEEDS_SLOTS:
            return np.int64(row), count, touches
        outputs.outcomes[row] = outcome
        outputs.filled[row] = filled
        outputs.leaves[row] = leaves
        if outputs.touch.size:
            touches = note_touch(desk.books, outputs, book, np.int64(row), touches)
    return np.int64(columns.action.size), count, touches
