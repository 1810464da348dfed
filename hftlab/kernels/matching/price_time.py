"""What one command does to its book: price-time priority, as docs/SEMANTICS.md says.

Each function returns (outcome, filled, leaves, count): the outcome byte (see opcodes.py), lots the command's
own order traded, lots it has open now, and how many fills have been written so far. `gate` is None where
there is none; numba then leaves out what is for it.
"""

from __future__ import annotations

import numpy as np

from hftlab.codes import MAX_QTY
from hftlab.kernels.book.commands import Command
from hftlab.kernels.book.ladder import BASE, BEST, MIRROR, SIZE, append, level_of, lower_best, remove, side_of
from hftlab.kernels.book.opcodes import ALL_OR_NOTHING, NO_REST, PASSIVE, POST_ONLY, REJECTED, SELL
from hftlab.kernels.book.records import NARROW, ORDER
from hftlab.kernels.codes import (
    ALLOW_SELF_TRADE,
    CANCEL_BOTH,
    CANCEL_NEWEST,
    CANCELLED,
    CAPACITY_EXHAUSTED,
    DECREMENT,
    DUPLICATE_ORDER,
    EXPIRED,
    FILLED,
    POST_ONLY_WOULD_CROSS,
    REPLACED,
    RESTING,
    SELF_TRADE_CANCEL,
    SELF_TRADE_DECREMENT,
    STAGE_RISK,
    UNKNOWN_ORDER,
)
from hftlab.kernels.primitives.bitmap import NONE, clear_bit, previous_bit
from hftlab.kernels.primitives.compile import helper, rare
from hftlab.kernels.primitives.intrinsics import ZERO, ix, likely
from hftlab.kernels.primitives.stage_clock import lap
from hftlab.kernels.risk_gate.book_checks import admit, can_fill_from_others
from hftlab.kernels.risk_gate.gate import (
    Lots,
    group_of,
    on_fill,
    on_remove,
    on_rest,
    withdraw,
)
from hftlab.kernels.risk_gate.records import ROW_REASON

NARROW_ORDER = ORDER[NARROW].itemsize


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
def cross(books, grid, gate, fills, count, command, side):
    """Trade an incoming order with what rests opposite; returns (leaves, lost, count).

    `command.level` is the worst of its `side` at which it trades, `lost` what self-trade prevention takes.
    """
    heads, levels, orders = books.heads, books.levels, books.orders
    book, qty, lost = command.book, command.qty, ZERO
    floor = np.int64(heads[ix(book), MIRROR]) - command.level  # the worst opposite level that still trades
    best = np.int64(heads[ix(book), BEST + 1 - side])
    while qty > 0 and best >= floor:
        maker = np.int64(orders[ix(best)]["next"])
        open_qty = np.int64(orders[ix(maker)]["qty"])
        # before anything is written: an order of the same group may go, and what is best may be another then
        if gate is not None:
            lots_lost = prevent_self_trade(books, grid, gate, command, maker, qty)
            if lots_lost >= 0:  # an order of the same group, and so many lots are lost to it
                qty -= lots_lost
                lost += lots_lost
                best = np.int64(heads[ix(book), BEST + 1 - side])
                continue
        # the fill says what both have left, so that nobody needs the book to know whether an order is done
        part = min(qty, open_qty)
        qty -= part
        fill = ix(count)
        fills[fill]["row"] = command.row
        fills[fill]["maker"] = books.entries[ix(maker)]
        fills[fill]["level"] = best
        fills[fill]["maker_account"] = books.accounts[ix(maker)] if books.accounts.size else 0
        fills[fill]["taker_account"] = command.account
        fills[fill]["qty"] = part
        fills[fill]["maker_leaves"] = open_qty - part
        fills[fill]["taker_leaves"] = qty
        count += 1
        # the gate reads the order's owner and level, so it comes before the order leaves its queue
        if gate is not None:
            whole = np.int64(part == open_qty)
            on_fill(grid, gate, Lots(book, 1 - side, best, maker, part, whole), command.holding)
        # as `remove` does, but of a maker that is known to be first and best: fewer loads
        orders[ix(maker)]["qty"] = open_qty - part
        levels[ix(best)]["qty"] -= part
        if part == open_qty:
            younger = np.int64(orders[ix(maker)]["next"])
            orders[ix(best)]["next"] = younger
            orders[ix(younger)]["prev"] = best
            levels[ix(best)]["count"] -= 1
            if younger == best:  # only the level's own slot is left in the ring
                clear_bit(books.bitmap, best)
                best = lower_best(books, book, 1 - side, best)
    return qty, lost, count


@helper
def prevent_self_trade(books, grid, gate, command, maker, qty):
    """Lots an incoming order loses to a resting one of its group, which goes as its mode says; else -1."""
    place = gate.holdings[ix(command.holding)]
    mode = gate.limits[ix(place["limits"])]["self_trade"]
    if mode == ALLOW_SELF_TRADE or group_of(gate, maker) != place["group"]:
        return np.int64(-1)
    if mode == CANCEL_NEWEST:
        return qty
    return apply_self_trade(books, grid, gate, command, maker, qty, mode)


@rare
def apply_self_trade(books, grid, gate, command, maker, qty, mode):
    """Take lots off a resting order of the group of an incoming one; returns what that one loses."""
    open_qty, row, book = np.int64(books.orders[ix(maker)]["qty"]), command.row, command.book
    if mode == DECREMENT:
        part = min(qty, open_qty)
        withdraw(books, grid, gate, row, book, maker, part, np.int64(SELF_TRADE_DECREMENT))
        return part
    withdraw(books, grid, gate, row, book, maker, open_qty, np.int64(SELF_TRADE_CANCEL))
    return qty if mode == CANCEL_BOTH else ZERO


@helper
def rest(books, grid, gate, command, side, order_slot, qty):
    """Rest the `qty` lots that are left of an order."""
    book, level = command.book, command.level
    append(books, book, side, level, order_slot, qty)
    books.entries[ix(order_slot)] = command.entry
    if books.accounts.size:
        books.accounts[ix(order_slot)] = command.account
    if gate is not None:
        on_rest(grid, gate, Lots(book, side, level, order_slot, qty, ZERO), command.holding)


@helper
def crosses(books, book, side, level):
    """Whether an order at `level` would trade."""
    return books.heads[ix(book), BEST + 1 - side] >= books.heads[ix(book), MIRROR] - level


@helper
def add(books, grid, gate, fills, count, command, stamps):
    """NEW: match, then rest or expire what is left."""
    op, book, level, qty = command.op, command.book, command.level, command.qty
    side = op & SELL
    # in the order of docs/SEMANTICS.md and docs/RISK.md: the id, the gate, the book
    if not likely(books.orders[ix(command.order_slot)]["qty"] == 0):
        return REJECTED + DUPLICATE_ORDER, ZERO, ZERO, count
    if gate is not None:
        reason = command.row_reason & ROW_REASON
        if reason == 0:
            reason = admit(books, grid, gate, command, side, ZERO, ZERO)
            lap(stamps, STAGE_RISK)
        if reason != 0:
            return REJECTED + reason, ZERO, ZERO, count
    # nearly all orders rest without trading, so that way is the straight one
    leaves, lost = qty, ZERO
    if not likely(op & PASSIVE != 0 or not crosses(books, book, side, level)):
        if op & POST_ONLY:
            return REJECTED + POST_ONLY_WOULD_CROSS, ZERO, ZERO, count
        if op & ALL_OR_NOTHING:
            if gate is not None:
                fillable = can_fill_from_others(books, gate, book, side, level, qty, command.holding)
            else:
                fillable = can_fill(books, book, side, level, qty)
            if not fillable:
                return EXPIRED, ZERO, ZERO, count
        # what is rejected changes nothing, so there must be room for all of it before it trades
        if not op & NO_REST and overflows(books, level, qty, ZERO):
            return REJECTED + CAPACITY_EXHAUSTED, ZERO, ZERO, count
        leaves, lost, count = cross(books, grid, gate, fills, count, command, side)
        if leaves == 0:
            return (FILLED if lost == 0 else CANCELLED), qty - lost, ZERO, count
    if not likely(op & NO_REST == 0):
        return EXPIRED, qty - lost - leaves, ZERO, count
    if not likely(not overflows(books, level, leaves, ZERO)):  # never of one that has traded: see above
        return REJECTED + CAPACITY_EXHAUSTED, ZERO, ZERO, count
    rest(books, grid, gate, command, side, command.order_slot, leaves)
    return RESTING, qty - lost - leaves, leaves, count


@helper
def reduce(books, grid, gate, count, command):
    """REDUCE, and CANCEL as a reduce by everything: priority is kept."""
    order_slot, qty = command.order_slot, command.qty
    open_qty = np.int64(books.orders[ix(order_slot)]["qty"])
    if not likely(open_qty != 0):
        return REJECTED + UNKNOWN_ORDER, ZERO, ZERO, count
    if gate is not None:
        level = np.int64(books.orders[ix(order_slot)]["level"])
        side, whole = side_of(books, command.book, level), np.int64(qty >= open_qty)
        on_remove(grid, gate, Lots(command.book, side, level, order_slot, min(qty, open_qty), whole))
    if likely(qty >= open_qty):
        remove(books, command.book, order_slot)
        return CANCELLED, ZERO, ZERO, count
    books.orders[ix(order_slot)]["qty"] = open_qty - qty
    books.levels[ix(books.orders[ix(order_slot)]["level"])]["qty"] -= qty
    return RESTING, ZERO, open_qty - qty, count


@helper
def moved(books, gate, command, level):
    """A REPLACE as the order it brings in: at its level, of the account and holding of the order it names."""
    order_slot, holding = command.order_slot, ZERO
    if gate is not None:
        holding = np.int64(gate.order_holdings[ix(order_slot)])
    return Command(
        command.row,
        command.book,
        command.op,
        order_slot,
        command.target,
        level,
        command.qty,
        command.entry,
        np.int64(books.accounts[ix(order_slot)]) if books.accounts.size else ZERO,
        holding,
        command.row_reason,
    )


@helper
def replace(books, grid, gate, fills, count, command, stamps):
    """REPLACE: in place when it gives nothing up, else out and in again as `target`."""
    order_slot, target = command.order_slot, command.target
    op, book, qty = command.op, command.book, command.qty
    # ids before anything else; what the row decided by itself counts only of an order that is open
    open_qty = np.int64(books.orders[ix(order_slot)]["qty"])
    if open_qty == 0:
        return REJECTED + UNKNOWN_ORDER, ZERO, ZERO, count
    if target != order_slot and books.orders[ix(target)]["qty"] != 0:
        return REJECTED + DUPLICATE_ORDER, ZERO, ZERO, count
    if gate is not None and command.row_reason & ROW_REASON:
        return REJECTED + (command.row_reason & ROW_REASON), ZERO, ZERO, count
    # a row of REPLACE names no side: its level is known only now
    old_level = np.int64(books.orders[ix(order_slot)]["level"])
    side = side_of(books, book, old_level)
    level = level_of(books, book, side, command.level)
    # in place: it keeps its priority, and passes the checks 8 to 16 of the gate
    if level == old_level and qty <= open_qty and target == order_slot:
        if gate is not None:
            on_remove(grid, gate, Lots(book, side, level, order_slot, open_qty - qty, ZERO))
        books.orders[ix(order_slot)]["qty"] = qty
        books.levels[ix(level)]["qty"] -= open_qty - qty
        return REPLACED, ZERO, qty, count
    # all that may refuse it comes before the old order is taken out, for a rejected command changes nothing
    incoming = moved(books, gate, command, level)
    if gate is not None:
        if gate.owners.size:
            gate.owners[ix(command.row)] = -incoming.holding if side else incoming.holding
        reason = admit(books, grid, gate, incoming, side, open_qty, old_level)
        lap(stamps, STAGE_RISK)
        if reason != 0:
            return REJECTED + reason, ZERO, ZERO, count
    if op & POST_ONLY and crosses(books, book, side, level):
        return REJECTED + POST_ONLY_WOULD_CROSS, ZERO, ZERO, count
    if overflows(books, level, qty, open_qty if level == old_level else ZERO):
        return REJECTED + CAPACITY_EXHAUSTED, ZERO, ZERO, count
    # out and in again, as a new order of the same owner at the back of the queue
    if gate is not None:
        on_remove(grid, gate, Lots(book, side, old_level, order_slot, open_qty, np.int64(1)))
    remove(books, book, order_slot)
    leaves, lost = qty, ZERO
    if not op & PASSIVE:
        leaves, lost, count = cross(books, grid, gate, fills, count, incoming, side)
    if leaves == 0:
        return (FILLED if lost == 0 else CANCELLED), qty - lost, ZERO, count
    rest(books, grid, gate, incoming, side, target, leaves)
    return REPLACED, qty - lost - leaves, leaves, count


@helper
def remove_all(books, grid, gate, book, account, everyone):
    """MASS_CANCEL of one account, or CLEAR of everyone."""
    for side in range(2):
        bottom = books.heads[ix(book), BASE] + side * books.heads[ix(book), SIZE]
        level = np.int64(books.heads[ix(book), BEST + side])
        while level >= bottom and level != NONE:
            order_slot = np.int64(books.orders[ix(level)]["next"])
            while order_slot != level:
                younger = np.int64(books.orders[ix(order_slot)]["next"])
                if everyone or books.accounts.size == 0 or books.accounts[ix(order_slot)] == account:
                    if gate is not None:
                        open_qty = np.int64(books.orders[ix(order_slot)]["qty"])
                        on_remove(grid, gate, Lots(book, side, level, order_slot, open_qty, np.int64(1)))
                    remove(books, book, order_slot)
                order_slot = younger
            level = previous_bit(books.bitmap, level)
