"""What one command does to its book: price-time priority, as docs/SEMANTICS.md says.

Each function returns (outcome, filled, leaves, count): the outcome byte (see ops.py), lots the command's
own order traded, lots it has open now, and how many fills have been written so far.
"""

from __future__ import annotations

import numpy as np

from hftlab.codes import MAX_QTY, Reason, Status
from hftlab.kernels.bits import NONE, clear_bit, previous_bit
from hftlab.kernels.compile import helper
from hftlab.kernels.ladder import BASE, BEST, MIRROR, SIZE, append, level_of, lower_best, remove, side_of
from hftlab.kernels.machine import ix
from hftlab.kernels.ops import ALL_OR_NOTHING, NO_REST, PASSIVE, POST_ONLY, REJECTED, SELL, SPECIAL

RESTING, FILLED, CANCELLED = int(Status.RESTING), int(Status.FILLED), int(Status.CANCELLED)
EXPIRED, REPLACED = int(Status.EXPIRED), int(Status.REPLACED)
NO_EFFECT, APPLIED = int(Status.NO_EFFECT), int(Status.APPLIED)
UNKNOWN_ORDER = REJECTED + int(Reason.UNKNOWN_ORDER)
DUPLICATE_ORDER = REJECTED + int(Reason.DUPLICATE_ORDER)
WOULD_CROSS = REJECTED + int(Reason.POST_ONLY_WOULD_CROSS)
CAPACITY = REJECTED + int(Reason.CAPACITY_EXHAUSTED)


@helper
def can_fill(books, book, side, level, qty):
    """Whether `qty` lots rest at prices that trade with `level`."""
    floor = books.heads[ix(book), MIRROR] - level
    best = np.int64(books.heads[ix(book), BEST + 1 - side])
    while best >= floor:
        qty -= books.levels[ix(best)]["qty"]  # stops at or below zero, so no sum can overflow
        if qty <= 0:
            return True
        best = previous_bit(books.bitmap, best)
    return False


@helper
def overflows(books, level, qty, leaving):
    """Whether a level's quantity, less what is leaving it, plus `qty` passes 2^63-1."""
    return books.levels[ix(level)]["qty"] - leaving > MAX_QTY - qty


@helper
def cross(books, fills, count, row, book, side, level, qty, account):
    """Trade an incoming order with what rests opposite; returns (leaves, count)."""
    heads, levels, orders = books.heads, books.levels, books.orders
    floor = np.int64(heads[ix(book), MIRROR]) - level  # the worst opposite level that still trades
    best = np.int64(heads[ix(book), BEST + 1 - side])
    while qty > 0 and best >= floor:
        maker = np.int64(orders[ix(best)]["next"])
        open_qty = np.int64(orders[ix(maker)]["qty"])
        traded = min(qty, open_qty)
        qty -= traded
        fill = ix(count)
        fills[fill]["row"] = row
        fills[fill]["maker"] = books.entries[ix(maker)]
        fills[fill]["level"] = best
        fills[fill]["maker_account"] = books.accounts[ix(maker)] if books.accounts.size else 0
        fills[fill]["taker_account"] = account
        fills[fill]["qty"] = traded
        fills[fill]["maker_leaves"] = open_qty - traded
        fills[fill]["taker_leaves"] = qty
        count += 1
        orders[ix(maker)]["qty"] = open_qty - traded
        levels[ix(best)]["qty"] -= traded
        if traded == open_qty:
            younger = np.int64(orders[ix(maker)]["next"])
            orders[ix(best)]["next"] = younger
            orders[ix(younger)]["prev"] = best
            levels[ix(best)]["count"] -= 1
            if younger == best:  # only the level's own node is left in the ring
                clear_bit(books.bitmap, best)
                best = lower_best(books, book, 1 - side, best)
    return qty, count


@helper
def rest(books, book, side, level, slot, qty, entry, account):
    """Rest what is left of an order."""
    append(books, book, side, level, slot, qty)
    books.entries[ix(slot)] = entry
    if books.accounts.size:
        books.accounts[ix(slot)] = account


@helper
def crosses(books, book, side, level):
    """Whether an order at `level` would trade."""
    return books.heads[ix(book), BEST + 1 - side] >= books.heads[ix(book), MIRROR] - level


@helper
def add(books, fills, count, row, book, op, slot, level, qty, entry, account):
    """NEW: match, then rest or expire what is left."""
    side = op & SELL
    if books.orders[ix(slot)]["qty"] != 0:
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
    rest(books, book, side, level, slot, leaves, entry, account)
    return RESTING, qty - leaves, leaves, count


@helper
def reduce(books, count, book, slot, qty):
    """REDUCE, and CANCEL as a reduce by everything: priority is kept."""
    open_qty = np.int64(books.orders[ix(slot)]["qty"])
    if open_qty == 0:
        return UNKNOWN_ORDER, np.int64(0), np.int64(0), count
    if qty >= open_qty:
        remove(books, book, slot)
        return CANCELLED, np.int64(0), np.int64(0), count
    books.orders[ix(slot)]["qty"] = open_qty - qty
    books.levels[ix(books.orders[ix(slot)]["level"])]["qty"] -= qty
    return RESTING, np.int64(0), open_qty - qty, count


@helper
def replace(books, fills, count, row, book, op, slot, target, rung, qty, entry):
    """REPLACE: in place when it gives nothing up, else out and in again as `target`."""
    open_qty = np.int64(books.orders[ix(slot)]["qty"])
    if open_qty == 0:
        return UNKNOWN_ORDER, np.int64(0), np.int64(0), count
    if target != slot and books.orders[ix(target)]["qty"] != 0:
        return DUPLICATE_ORDER, np.int64(0), np.int64(0), count
    old_level = np.int64(books.orders[ix(slot)]["level"])
    side = side_of(books, book, old_level)
    level = level_of(books, book, side, rung)
    if level == old_level and qty <= open_qty and target == slot:
        books.orders[ix(slot)]["qty"] = qty
        books.levels[ix(level)]["qty"] -= open_qty - qty
        return REPLACED, np.int64(0), qty, count
    if op & POST_ONLY and crosses(books, book, side, level):
        return WOULD_CROSS, np.int64(0), np.int64(0), count
    if overflows(books, level, qty, open_qty if level == old_level else np.int64(0)):
        return CAPACITY, np.int64(0), np.int64(0), count
    account = np.int64(books.accounts[ix(slot)]) if books.accounts.size else np.int64(0)
    remove(books, book, slot)
    leaves = qty
    if not op & PASSIVE:
        leaves, count = cross(books, fills, count, row, book, side, level, qty, account)
    if leaves == 0:
        return FILLED, qty, np.int64(0), count
    rest(books, book, side, level, target, leaves, entry, account)
    return REPLACED, qty - leaves, leaves, count


@helper
def remove_all(books, book, account, everyone):
    """MASS_CANCEL of one account, or CLEAR of everyone."""
    for side in range(2):
        bottom = books.heads[ix(book), BASE] + side * books.heads[ix(book), SIZE]
        level = np.int64(books.heads[ix(book), BEST + side])
        while level >= bottom and level != NONE:
            slot = np.int64(books.orders[ix(level)]["next"])
            while slot != level:
                younger = np.int64(books.orders[ix(slot)]["next"])
                if everyone or books.accounts.size == 0 or books.accounts[ix(slot)] == account:
                    remove(books, book, slot)
                slot = younger
            level = previous_bit(books.bitmap, level)
