"""What one command does to its book: price-time priority, as docs/SEMANTICS.md says.

Each function returns (outcome, filled, leaves, count): the outcome byte (see opcodes.py), lots the command's
own order traded, lots it has open now, and how many fills have been written so far. `gate` is None where
there is none; numba then leaves out whatever asks for it.
"""

from __future__ import annotations

import numpy as np

from hftlab.codes import MAX_QTY, Reason, Status
from hftlab.kernels.book.ladder import BASE, BEST, MIRROR, SIZE, append, level_of, lower_best, remove, side_of
from hftlab.kernels.book.opcodes import ALL_OR_NOTHING, NO_REST, PASSIVE, POST_ONLY, REJECTED, REQUEUE, SELL
from hftlab.kernels.book.records import NARROW, ORDER
from hftlab.kernels.primitives.bitmap import NONE, clear_bit, previous_bit
from hftlab.kernels.primitives.compile import helper, rare
from hftlab.kernels.primitives.intrinsics import ix, likely
from hftlab.kernels.primitives.stage_clock import RISK, lap
from hftlab.kernels.risk_gate.book_checks import admit, can_fill_from_others
from hftlab.kernels.risk_gate.gate import (
    CANCEL_BOTH,
    CANCEL_NEWEST,
    DECREMENT,
    NO_SELF_TRADE,
    SELF_TRADE_CANCEL,
    SELF_TRADE_DECREMENT,
    closed,
    opened,
    traded,
    withdraw,
)

RESTING, FILLED, CANCELLED = int(Status.RESTING), int(Status.FILLED), int(Status.CANCELLED)
EXPIRED, REPLACED = int(Status.EXPIRED), int(Status.REPLACED)
NO_EFFECT, APPLIED = int(Status.NO_EFFECT), int(Status.APPLIED)
UNKNOWN_ORDER = REJECTED + int(Reason.UNKNOWN_ORDER)
DUPLICATE_ORDER = REJECTED + int(Reason.DUPLICATE_ORDER)
WOULD_CROSS = REJECTED + int(Reason.POST_ONLY_WOULD_CROSS)
CAPACITY = REJECTED + int(Reason.CAPACITY_EXHAUSTED)
NARROW_ORDER = ORDER[NARROW].itemsize
EARLY_REASON = 127  # bits of `early`: see row_checks.py


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
    """Whether a level's quantity, less what is leaving it, plus `qty` passes 2^63-1.

    Never with quantities of 32 bits: there are fewer than 2^31 orders.
    """
    if books.orders.itemsize == NARROW_ORDER:
        return False
    return books.levels[ix(level)]["qty"] - leaving > MAX_QTY - qty


@helper
def cross(books, grid, gate, fills, count, row, book, side, level, qty, account, cell):
    """Trade an incoming order with what rests opposite; returns (leaves, lost, count).

    `lost` is what self-trade prevention has taken off it. `cell` is its owner's.
    """
    heads, levels, orders = books.heads, books.levels, books.orders
    floor = np.int64(heads[ix(book), MIRROR]) - level  # the worst opposite level that still trades
    best = np.int64(heads[ix(book), BEST + 1 - side])
    lost = np.int64(0)
    while qty > 0 and best >= floor:
        maker = np.int64(orders[ix(best)]["next"])
        open_qty = np.int64(orders[ix(maker)]["qty"])
        if gate is not None:
            met = meet_own(books, grid, gate, row, book, maker, open_qty, qty, cell)
            if met >= 0:  # an order of the same group, and so many lots are lost to it
                qty -= met
                lost += met
                best = np.int64(heads[ix(book), BEST + 1 - side])
                continue
        part = min(qty, open_qty)
        qty -= part
        fill = ix(count)
        fills[fill]["row"] = row
        fills[fill]["maker"] = books.entries[ix(maker)]
        fills[fill]["level"] = best
        fills[fill]["maker_account"] = books.accounts[ix(maker)] if books.accounts.size else 0
        fills[fill]["taker_account"] = account
        fills[fill]["qty"] = part
        fills[fill]["maker_leaves"] = open_qty - part
        fills[fill]["taker_leaves"] = qty
        count += 1
        if gate is not None:
            gone = np.int64(part == open_qty)
            traded(grid, gate, book, 1 - side, best, maker, part, gone, cell)
        orders[ix(maker)]["qty"] = open_qty - part
        levels[ix(best)]["qty"] -= part
        if part == open_qty:
            younger = np.int64(orders[ix(maker)]["next"])
            orders[ix(best)]["next"] = younger
            orders[ix(younger)]["prev"] = best
            levels[ix(best)]["count"] -= 1
            if younger == best:  # only the level's own node is left in the ring
                clear_bit(books.bitmap, best)
                best = lower_best(books, book, 1 - side, best)
    return qty, lost, count


@helper
def meet_own(books, grid, gate, row, book, maker, open_qty, qty, cell):
    """Lots an incoming order loses to a resting one of its group, which goes as its mode says; else -1."""
    place = gate.cells[ix(cell)]
    mode = gate.limits[ix(place["limits"])]["self_trade"]
    if mode == NO_SELF_TRADE or gate.cells[ix(gate.node_cells[ix(maker)])]["group"] != place["group"]:
        return np.int64(-1)
    if mode == CANCEL_NEWEST:
        return qty
    return take_own(books, grid, gate, row, book, maker, open_qty, qty, mode)


@rare
def take_own(books, grid, gate, row, book, maker, open_qty, qty, mode):
    """Take lots off a resting order of the group of an incoming one; returns what that one loses."""
    if mode == DECREMENT:
        part = min(qty, open_qty)
        withdraw(books, grid, gate, row, book, maker, part, np.int64(SELF_TRADE_DECREMENT))
        return part
    withdraw(books, grid, gate, row, book, maker, open_qty, np.int64(SELF_TRADE_CANCEL))
    return qty if mode == CANCEL_BOTH else np.int64(0)


@helper
def rest(books, grid, gate, book, side, level, slot, qty, entry, account, cell):
    """Rest what is left of an order."""
    append(books, book, side, level, slot, qty)
    books.entries[ix(slot)] = entry
    if books.accounts.size:
        books.accounts[ix(slot)] = account
    if gate is not None:
        opened(grid, gate, book, side, level, slot, qty, cell)


@helper
def crosses(books, book, side, level):
    """Whether an order at `level` would trade."""
    return books.heads[ix(book), BEST + 1 - side] >= books.heads[ix(book), MIRROR] - level


@helper
def add(
    books, grid, gate, fills, count, row, book, op, slot, level, qty, entry, account, cell, early, stamps
):
    """NEW: match, then rest or expire what is left."""
    side, nothing = op & SELL, np.int64(0)
    if not likely(books.orders[ix(slot)]["qty"] == 0):
        return DUPLICATE_ORDER, nothing, nothing, count
    if gate is not None:
        reason = early & EARLY_REASON
        if reason == 0:
            reason = admit(books, grid, gate, row, book, op, side, level, qty, cell, nothing, nothing, early)
            lap(stamps, RISK)
        if reason != 0:
            return REJECTED + reason, nothing, nothing, count
    leaves, lost = qty, nothing
    if not likely(op & PASSIVE != 0 or not crosses(books, book, side, level)):
        if op & POST_ONLY:
            return WOULD_CROSS, nothing, nothing, count
        if op & ALL_OR_NOTHING:
            if gate is not None:
                fillable = can_fill_from_others(books, gate, book, side, level, qty, cell)
            else:
                fillable = can_fill(books, book, side, level, qty)
            if not fillable:
                return EXPIRED, nothing, nothing, count
        if not op & NO_REST and overflows(books, level, qty, nothing):
            return CAPACITY, nothing, nothing, count
        leaves, lost, count = cross(
            books, grid, gate, fills, count, row, book, side, level, qty, account, cell
        )
        if leaves == 0:
            return (FILLED if lost == 0 else CANCELLED), qty - lost, nothing, count
    if not likely(op & NO_REST == 0):
        return EXPIRED, qty - lost - leaves, nothing, count
    if not likely(not overflows(books, level, leaves, nothing)):  # never of one that has traded: see above
        return CAPACITY, nothing, nothing, count
    rest(books, grid, gate, book, side, level, slot, leaves, entry, account, cell)
    return RESTING, qty - lost - leaves, leaves, count


@helper
def reduce(books, grid, gate, count, book, slot, qty):
    """REDUCE, and CANCEL as a reduce by everything: priority is kept."""
    open_qty = np.int64(books.orders[ix(slot)]["qty"])
    if not likely(open_qty != 0):
        return UNKNOWN_ORDER, np.int64(0), np.int64(0), count
    if gate is not None:
        level = np.int64(books.orders[ix(slot)]["level"])
        side, gone = side_of(books, book, level), np.int64(qty >= open_qty)
        closed(grid, gate, book, side, level, slot, min(qty, open_qty), gone)
    if likely(qty >= open_qty):
        remove(books, book, slot)
        return CANCELLED, np.int64(0), np.int64(0), count
    books.orders[ix(slot)]["qty"] = open_qty - qty
    books.levels[ix(books.orders[ix(slot)]["level"])]["qty"] -= qty
    return RESTING, np.int64(0), open_qty - qty, count


@helper
def replace(books, grid, gate, fills, count, row, book, op, slot, target, rung, qty, entry, early, stamps):
    """REPLACE: in place when it gives nothing up, else out and in again as `target`."""
    nothing = np.int64(0)
    open_qty = np.int64(books.orders[ix(slot)]["qty"])
    if open_qty == 0:
        return UNKNOWN_ORDER, nothing, nothing, count
    if target != slot and books.orders[ix(target)]["qty"] != 0:
        return DUPLICATE_ORDER, nothing, nothing, count
    if gate is not None and early & EARLY_REASON:
        return REJECTED + (early & EARLY_REASON), nothing, nothing, count
    old_level = np.int64(books.orders[ix(slot)]["level"])
    side = side_of(books, book, old_level)
    level = level_of(books, book, side, rung)
    if level == old_level and qty <= open_qty and target == slot and op & REQUEUE != REQUEUE:
        if gate is not None:
            closed(grid, gate, book, side, level, slot, open_qty - qty, nothing)
        books.orders[ix(slot)]["qty"] = qty
        books.levels[ix(level)]["qty"] -= open_qty - qty
        return REPLACED, nothing, qty, count
    cell = nothing
    if gate is not None:
        cell = np.int64(gate.node_cells[ix(slot)])
        if gate.owners.size:
            gate.owners[ix(row)] = -cell if side else cell
        reason = admit(books, grid, gate, row, book, op, side, level, qty, cell, open_qty, old_level, early)
        lap(stamps, RISK)
        if reason != 0:
            return REJECTED + reason, nothing, nothing, count
    if op & REQUEUE == POST_ONLY and crosses(books, book, side, level):
        return WOULD_CROSS, nothing, nothing, count
    if overflows(books, level, qty, open_qty if level == old_level else nothing):
        return CAPACITY, nothing, nothing, count
    account = np.int64(books.accounts[ix(slot)]) if books.accounts.size else nothing
    if gate is not None:
        closed(grid, gate, book, side, old_level, slot, open_qty, np.int64(1))
    remove(books, book, slot)
    leaves, lost = qty, nothing
    if not op & PASSIVE:
        leaves, lost, count = cross(
            books, grid, gate, fills, count, row, book, side, level, qty, account, cell
        )
    if leaves == 0:
        return (FILLED if lost == 0 else CANCELLED), qty - lost, nothing, count
    rest(books, grid, gate, book, side, level, target, leaves, entry, account, cell)
    return REPLACED, qty - lost - leaves, leaves, count


@helper
def remove_all(books, grid, gate, book, account, everyone):
    """MASS_CANCEL of one account, or CLEAR of everyone."""
    for side in range(2):
        bottom = books.heads[ix(book), BASE] + side * books.heads[ix(book), SIZE]
        level = np.int64(books.heads[ix(book), BEST + side])
        while level >= bottom and level != NONE:
            slot = np.int64(books.orders[ix(level)]["next"])
            while slot != level:
                younger = np.int64(books.orders[ix(slot)]["next"])
                if everyone or books.accounts.size == 0 or books.accounts[ix(slot)] == account:
                    if gate is not None:
                        open_qty = np.int64(books.orders[ix(slot)]["qty"])
                        closed(grid, gate, book, side, level, slot, open_qty, np.int64(1))
                    remove(books, book, slot)
                slot = younger
            level = previous_bit(books.bitmap, level)
