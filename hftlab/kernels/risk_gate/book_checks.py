"""The checks that need a book or a position: 8 to 16 of docs/RISK.md, in that order.

What follows from rows alone (1 to 7) is decided when a command gets here: `row_reason` holds the reason,
and a bit for an account or symbol that may only reduce (see row_checks.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.codes import MAX_QTY
from hftlab.kernels.book.ladder import BEST, MIRROR
from hftlab.kernels.book.opcodes import MARKET, NO_REST, PASSIVE
from hftlab.kernels.book.price_grid import level_price
from hftlab.kernels.codes import (
    ALLOW_SELF_TRADE,
    CANCEL_NEWEST,
    CANCEL_OLDEST,
    MAX_NOTIONAL,
    MAX_OPEN_NOTIONAL,
    MAX_OPEN_ORDERS,
    MAX_PORTFOLIO_VALUE,
    MAX_POSITION,
    PRICE_BAND,
    REDUCE_ONLY,
    SELF_TRADE,
    STOP_LOSS,
)
from hftlab.kernels.primitives import int128, int256
from hftlab.kernels.primitives.bitmap import previous_bit
from hftlab.kernels.primitives.compile import helper, rare
from hftlab.kernels.primitives.int128 import product, saturating_sum
from hftlab.kernels.primitives.int256 import widened
from hftlab.kernels.primitives.intrinsics import ZERO, ix
from hftlab.kernels.risk_gate.gate import (
    CHECKS_PORTFOLIO,
    TRACKS_NOTIONAL,
    choose,
    group_of,
    open_notional_of,
    reference_of,
    refuse,
)
from hftlab.kernels.risk_gate.money import gross_of, scaled, shown_money, unit_of
from hftlab.kernels.risk_gate.records import NO_LIMIT, ONLY_REDUCES

PPM = np.uint64(1_000_000)


@helper
def share(amount, ppm):
    """Millionths of an amount that is not negative, rounded down; at most all of it."""
    amount, ppm = np.uint64(amount), np.uint64(ppm)
    return np.int64(amount // PPM * ppm + amount % PPM * ppm // PPM)


@helper
def band_of(limit, tick, reference):
    """How far a price may be from the reference, or -1 for no band."""
    band = np.int64(-1)
    if limit["band_ticks"] >= 0:
        band = product(np.int64(limit["band_ticks"]), tick)
        if band < 0:
            band = np.int64(MAX_QTY)
    if limit["band_ppm"] >= 0:
        part = share(abs(reference), np.int64(limit["band_ppm"]))
        band = part if band < 0 else min(band, part)
    return band


@helper
def distance(a, b):
    """How far two integers are apart, without a sign."""
    return np.uint64(max(a, b)) - np.uint64(min(a, b))


class Order(NamedTuple):
    """What the checks ask of a NEW or REPLACE that would open or trade `qty` lots; int64 each.

    Positions are those of a purchase: a sale's have the other sign. A REPLACE brings the open lots and the
    level of the order that it takes out, a NEW 0 lots.
    """

    row: int
    book: int
    op: int
    side: int  # as an index
    sign: int  # 1 of a purchase, -1 of a sale
    level: int
    price: int  # 0 of a MARKET
    qty: int
    old_qty: int
    old_level: int
    position: int  # of its owner
    base: int  # that with all open orders of its side filled, its own not among them
    increases: int  # whether it may increase the position


@helper
def order_of(grid, holding, command, side, old_qty, old_level):
    """An order as the checks see it; `holding` is its owner's record."""
    sign = np.int64(1 - 2 * side)
    position = sign * np.int64(holding["position"])
    base = position + choose(side, np.int64(holding["open_buy"]), np.int64(holding["open_sell"])) - old_qty
    return Order(
        command.row,
        command.book,
        command.op,
        side,
        sign,
        command.level,
        ZERO if command.op & MARKET else level_price(grid, command.book, command.level),
        command.qty,
        old_qty,
        old_level,
        position,
        base,
        np.int64(base > -command.qty),
    )


@helper
def admit(books, grid, gate, command, side, old_qty, old_level):
    """Reason to refuse a NEW or REPLACE of `command.holding` (the owner's), or 0: checks 8 to 16, in order.

    The first that refuses decides. A REPLACE brings the open lots and the level of its order, a NEW 0 lots.
    """
    holding = gate.holdings[ix(command.holding)]
    limit, account = gate.limits[ix(holding["limits"])], gate.accounts[ix(holding["account"])]
    order = order_of(grid, holding, command, side, old_qty, old_level)
    return (
        check_reduce_only(gate, limit, order, command.row_reason)
        or check_stop_loss(gate, holding, account, order, command.holding)
        or check_price_band(books, grid, gate, limit, order)
        or check_market_notional(books, grid, gate, limit, order)
        or check_position(gate, limit, order)
        or check_open_orders(gate, holding, limit, order)
        or check_open_notional(grid, gate, holding, limit, order)
        or check_portfolio_value(gate, account, order)
        or check_self_trade(books, gate, holding, limit, order)
    )


@helper
def check_reduce_only(gate, limit, order, row_reason):
    """8: only what reduces is allowed, and the order may increase the position."""
    if not (row_reason & ONLY_REDUCES or limit["reduce_only"]) or not order.increases:
        return ZERO
    return refuse(gate, order.row, REDUCE_ONLY, ZERO, worst_position(order))


@helper
def worst_position(order):
    """The position with the order and all others of its side filled, with its own sign again."""
    return order.sign * saturating_sum(order.base, order.qty)


@helper
def check_stop_loss(gate, holding, account, order, number):
    """9: the stop loss of the holding or of its account has struck, and the order may increase it."""
    if not gate.money.size or not order.increases:
        return ZERO
    if holding["stopped"]:
        money = gate.money[ix(number)]
        return refuse(gate, order.row, STOP_LOSS, np.int64(money["strike"]), np.int64(money["equity"]))
    if account["stopped"]:
        return refuse(gate, order.row, STOP_LOSS, np.int64(account["strike"]), np.int64(account["equity"]))
    return ZERO


@helper
def check_price_band(books, grid, gate, limit, order):
    """10: a price further from the reference than the band."""
    if order.op & MARKET or (limit["band_ticks"] < 0 and limit["band_ppm"] < 0):
        return ZERO
    known, reference = reference_of(books, grid, gate, order.book)
    if not known:
        return ZERO
    band = band_of(limit, np.int64(grid.rules[ix(order.book)]["tick"]), reference)
    if distance(order.price, reference) <= np.uint64(band):
        return ZERO
    end = saturating_sum(reference, band if order.price > reference else -band)
    return refuse(gate, order.row, PRICE_BAND, end, order.price)


@helper
def check_market_notional(books, grid, gate, limit, order):
    """11: the notional of a MARKET order at the worst price of its band."""
    if not order.op & MARKET:
        return ZERO
    known, reference = reference_of(books, grid, gate, order.book)
    if not known:
        return ZERO
    band = max(band_of(limit, np.int64(grid.rules[ix(order.book)]["tick"]), reference), ZERO)
    # band and reference apart: their sum may not fit
    amount = int128.add(int128.multiply(abs(reference), order.qty), int128.multiply(band, order.qty))
    if not int128.exceeds(amount, (np.int64(limit["order_most_high"]), np.int64(limit["order_most_low"]))):
        return ZERO
    observed = shown_money(widened(amount), np.int64(gate.symbols[ix(order.book)]["lot"]))
    return refuse(gate, order.row, MAX_NOTIONAL, np.int64(limit["order_notional"]), observed)


@helper
def check_position(gate, limit, order):
    """12: the worst position is beyond the limit of its side."""
    most = choose(order.side, np.int64(limit["long"]), np.int64(limit["short"]))
    if order.base <= most - order.qty:
        return ZERO
    return refuse(gate, order.row, MAX_POSITION, order.sign * most, worst_position(order))


@helper
def check_open_orders(gate, holding, limit, order):
    """13: a NEW that may rest, and as many orders are open as may be."""
    if order.op & NO_REST or order.old_qty != 0 or holding["open_orders"] < limit["open_orders"]:
        return ZERO
    observed = np.int64(holding["open_orders"]) + 1
    return refuse(gate, order.row, MAX_OPEN_ORDERS, np.int64(limit["open_orders"]), observed)


@helper
def check_open_notional(grid, gate, holding, limit, order):
    """14: it may rest, and the open notional with the whole order is beyond the limit."""
    if order.op & NO_REST or not gate.counts[TRACKS_NOTIONAL]:
        return ZERO
    amount = int128.add(open_notional_of(holding), int128.multiply(abs(order.price), order.qty))
    if order.old_qty != 0:
        old_price = abs(level_price(grid, order.book, order.old_level))
        amount = int128.add(amount, int128.multiply(old_price, -order.old_qty))
    if not int128.exceeds(amount, (np.int64(limit["open_most_high"]), np.int64(limit["open_most_low"]))):
        return ZERO
    observed = shown_money(widened(amount), np.int64(gate.symbols[ix(order.book)]["lot"]))
    return refuse(gate, order.row, MAX_OPEN_NOTIONAL, np.int64(limit["open_notional"]), observed)


@helper
def growth_of(position, qty):
    """By how much |position| grows when a purchase of `qty` lots is filled; at most 0 where it shrinks."""
    if position >= 0:
        return qty
    return position + qty + position if position + qty > 0 else ZERO


@helper
def value_with(account, symbol, price, growth):
    """An account's portfolio value with so many lots more of a symbol at a price: exact."""
    more = scaled(widened(int128.multiply(price, growth)), np.int64(symbol["share"]))
    return int256.add(gross_of(account), more)


@helper
def exceeds_portfolio(account, value):
    """Whether a portfolio value is above an account's limit."""
    most_high, most_low = np.int64(account["most_high"]), np.int64(account["most_low"])
    return account["portfolio"] != NO_LIMIT and int256.exceeds(value, most_high, most_low)


@helper
def check_portfolio_value(gate, account, order):
    """15: the portfolio value with the whole order is beyond the limit, and would grow."""
    if not gate.counts[CHECKS_PORTFOLIO] or not gate.money.size:
        return ZERO
    growth, symbol = growth_of(order.position, order.qty), gate.symbols[ix(order.book)]
    each = abs(np.int64(symbol["mark"])) if symbol["has_mark"] else abs(order.price)
    if growth <= 0 or each == 0:
        return ZERO
    value = value_with(account, symbol, each, growth)
    if not exceeds_portfolio(account, value):
        return ZERO
    observed = shown_money(value, unit_of(gate, order.book))
    return refuse(gate, order.row, MAX_PORTFOLIO_VALUE, np.int64(account["portfolio"]), observed)


@helper
def check_self_trade(books, gate, holding, limit, order):
    """16: with `cancel_newest`, the order it would trade with first is of its own group."""
    if limit["self_trade"] != CANCEL_NEWEST or order.op & PASSIVE:
        return ZERO
    if not meets_own_first(books, gate, order, holding["group"]):
        return ZERO
    return refuse(gate, order.row, SELF_TRADE, ZERO, ZERO)


@helper
def meets_own_first(books, gate, order, group):
    """Whether the first order that an incoming one would trade with is of a group."""
    best = np.int64(books.heads[ix(order.book), BEST + 1 - order.side])
    if best < books.heads[ix(order.book), MIRROR] - order.level:
        return False
    first = np.int64(books.orders[ix(best)]["next"])
    return group_of(gate, first) == group


@rare
def can_fill_from_others(books, gate, book, side, level, qty, holding):
    """`price_time.can_fill` for an order that doesn't trade with its own group's."""
    place = gate.holdings[ix(holding)]
    mode, group = gate.limits[ix(place["limits"])]["self_trade"], place["group"]
    floor = np.int64(books.heads[ix(book), MIRROR]) - level
    best = np.int64(books.heads[ix(book), BEST + 1 - side])
    while best >= floor:
        order_slot = np.int64(books.orders[ix(best)]["next"])
        while order_slot != best:
            own = mode != ALLOW_SELF_TRADE and group_of(gate, order_slot) == group
            if own and mode != CANCEL_OLDEST:
                return False
            if not own:
                qty -= np.int64(books.orders[ix(order_slot)]["qty"])
                if qty <= 0:
                    return True
            order_slot = np.int64(books.orders[ix(order_slot)]["next"])
        best = previous_bit(books.bitmap, best)
    return False
