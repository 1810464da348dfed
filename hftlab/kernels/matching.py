"""What one command does to its book: price-time priority, as docs/SEMANTICS.md says.

Each function returns (outcome, filled, leaves, count): the outcome byte (see ops.py), lots the command's
own order traded, lots it has open now, and how many fills have been written so far.
"""

from __future__ import annotations

import numpy as np

from hftlab.codes import MAX_QTY, NO_SLOT, Reason, Status
from hftlab.kernels.bits import NONE, clear_bit, previous_bit
from hftlab.kernels.compile import helper
from hftlab.kernels.ladder import BASE, BEST, MIRROR, SIZE, append, level_of, lower_best, remove, side_of
from hftlab.kernels.ops import ALL_OR_NOTHING, NO_REST, PASSIVE, POST_ONLY, REJECTED, SELL, SPECIAL

RESTING, FILLED, CANCELLED = int(Status.RESTING), int(Status.FILLED), int(Status.CANCELLED)
EXPIRED, REPLACED, NO_EFFECT = int(Status.EXPIRED), int(Status.REPLACED), int(Status.NO_EFFECT)
UNKNOWN_ORDER = REJECTED + int(Reason.UNKNOWN_ORDER)
DUPLICATE_ORDER = REJECTED + int(Reason.DUPLICATE_ORDER)
WOULD_CROSS = REJECTED + int(Reason.POST_ONLY_WOULD_CROSS)
CAPACITY = REJECTED + int(Reason.CAPACITY_EXHAUSTED)


@helper
def can_fill(books, book, side, level, qty):
    """Whether `qty` lots rest at prices that trade with `level`."""
    floor = books.heads[book, MIRROR] - level
    best = np.int64(books.heads[book, BEST + 1 - side])
    while best >= floor:
        qty -= books.levels[best]["qty"]  # stops at or below zero, so no sum can overflow
        if qty <= 0:
            return True
        best = previous_bit(books.bitmap, best)
    return False


@helper
def overflows(books, level, qty, leaving):
    """Whether a level's quantity, less what is leaving it, plus `qty` passes 2^63-1."""
    return books.levels[level]["qty"] - leaving > MAX_QTY - qty


@helper
def cross(books, fills, count, row, book, side, level, qty, account):
    """Trade an incoming order with what rests opposite; returns (leaves, count)."""
    heads, levels, orders = books.heads, books.levels, books.orders
    floor = np.int64(heads[book, MIRROR]) - level  # the worst opposite level that still trades
    best = np.int64(heads[book, BEST + 1 - side])
    while qty > 0 and best >= floor:
        maker = np.int64(levels[best]["head"])
        open_qty = np.int64(orders[maker]["qty"])
        traded = min(qty, open_qty)
        qty -= traded
        fills[count]["row"] = row
        fills[count]["maker"] = maker
        fills[count]["level"] = best
        fills[count]["taker_account"] = account
        if books.accounts.size:
            fills[count]["maker_account"] = books.accounts[maker]
        else:
            fills[count]["maker_account"] = 0
        fills[count]["qty"] = traded
        fills[count]["maker_leaves"] = open_qty - traded
        fills[count]["taker_leaves"] = qty
        count += 1
        orders[maker]["qty"] = open_qty - traded
        levels[best]["qty"] -= traded
        if traded == open_qty:
            younger = np.int64(orders[maker]["next"])
            levels[best]["head"] = younger
            levels[best]["count"] -= 1
            if younger == NO_SLOT:
                levels[best]["tail"] = NO_SLOT
                clear_bit(books.bitmap, best)
                best = lower_best(books, book, 1 - side, best)
            else:
                orders[younger]["prev"] = NO_SLOT
    return qty, count


@helper
def rest(books, book, side, level, slot, qty, account):
    """Rest what is left of an order."""
    append(books, book, side, level, slot, qty)
    if books.accounts.size:
        books.accounts[slot] = account


@helper
def crosses(books, book, side, level):
    """Whether an order at `level` would trade."""
    return books.heads[book, BEST + 1 - side] >= books.heads[book, MIRROR] - level


@helper
def add(books, fills, count, row, book, op, slot, level, qty, account):
    """NEW: match, then rest or expire what is left."""
    side = op & SELL
    if books.orders[slot]["qty"] != 0:
        return DUPLICATE_ORDER, np.int64(0), np.int64(0), count
    if op & SPECIAL:
        if op & POST_ONLY and crosses(books, book, side, level):
            return WOULD_CROSS, np.int64(0), np.int64(0), count
        if op & ALL_OR_NOTHING and not can_fill(books, book, side, level, qty):
            return EXPIRED, np.int64(0), np.int64(0), count
    if not op & NO_REST and overflows(books, level, qty, np.int64(0)):
        return CAPACITY, np.int64(0), np.int64(0), count
    leaves = qty
    if not op & PASSIVE:
        leaves, count = cross(books, fills, count, row, book, side, level, qty, account)
    if leaves == 0:
        return FILLED, qty, np.int64(0), count
    if op & NO_REST:
        return EXPIRED, qty - leaves, np.int64(0), count
    rest(books, book, side, level, slot, leaves, account)
    return RESTING, qty - leaves, leaves, count


@helper
def reduce(books, count, book, slot, qty):
    """REDUCE, and CANCEL as a reduce by everything: priority is kept."""
    open_qty = np.int64(books.orders[slot]["qty"])
    if open_qty == 0:
        return UNKNOWN_ORDER, np.int64(0), np.int64(0), count
    if qty >= open_qty:
        remove(books, book, slot)
        return CANCELLED, np.int64(0), np.int64(0), count
    books.orders[slot]["qty"] = open_qty - qty
    books.levels[np.int64(books.orders[slot]["level"])]["qty"] -= qty
    return RESTING, np.int64(0), open_qty - qty, count


@helper
def replace(books, fills, count, row, book, op, slot, target, rung, qty):
    """REPLACE: in place when it gives nothing up, else out and in again as `target`."""
    open_qty = np.int64(books.orders[slot]["qty"])
    if open_qty == 0:
        return UNKNOWN_ORDER, np.int64(0), np.int64(0), count
    if target != slot and books.orders[target]["qty"] != 0:
        return DUPLICATE_ORDER, np.int64(0), np.int64(0), count
    old_level = np.int64(books.orders[slot]["level"])
    side = side_of(books, book, old_level)
    level = level_of(books, book, side, rung)
    if level == old_level and qty <= open_qty and target == slot:
        books.orders[slot]["qty"] = qty
        books.levels[level]["qty"] -= open_qty - qty
        return REPLACED, np.int64(0), qty, count
    if op & POST_ONLY and crosses(books, book, side, level):
        return WOULD_CROSS, np.int64(0), np.int64(0), count
    if overflows(books, level, qty, open_qty if level == old_level else np.int64(0)):
        return CAPACITY, np.int64(0), np.int64(0), count
    account = np.int64(books.accounts[slot]) if books.accounts.size else np.int64(0)
    remove(books, book, slot)
    leaves = qty
    if not op & PASSIVE:
        leaves, count = cross(books, fills, count, row, book, side, level, qty, account)
    if leaves == 0:
        return FILLED, qty, np.int64(0), count
    rest(books, book, side, level, target, leaves, account)
    return REPLACED, qty - leaves, leaves, count


@helper
def remove_all(books, book, account, everyone):
    """MASS_CANCEL of one account, or CLEAR of everyone."""
    for side in range(2):
        bottom = books.heads[book, BASE] + side * books.heads[book, SIZE]
        level = np.int64(books.heads[book, BEST + side])
        while level >= bottom and level != NONE:
            slot = np.int64(books.levels[level]["head"])
            while slot != NO_SLOT:
                younger = np.int64(books.orders[slot]["next"])
                if everyone or books.accounts.size == 0 or books.accounts[slot] == account:
                    remove(books, book, slot)
                slot = younger
            level = previous_bit(books.bitmap, level)
