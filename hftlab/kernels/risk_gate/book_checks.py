"""The checks that need a book or a position: 8 to 16 of docs/RISK.md, in that order.

What a row or the stream of rows tells by itself (1 to 7) has been decided when a command gets here: `early`
holds the reason, and a bit for an account or symbol that may only reduce (see row_checks.py).
"""

from __future__ import annotations

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
from hftlab.kernels.primitives import int128
from hftlab.kernels.primitives.bitmap import previous_bit
from hftlab.kernels.primitives.compile import helper, rare
from hftlab.kernels.primitives.int128 import product, saturated, saturating_sum
from hftlab.kernels.primitives.intrinsics import ix
from hftlab.kernels.risk_gate.gate import (
    CHECKS_PORTFOLIO,
    TRACKS_NOTIONAL,
    choose,
    reference_of,
    refuse,
)
from hftlab.kernels.risk_gate.records import ONLY_REDUCES

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


@helper
def admit(books, grid, gate, command, side, old_qty, old_level):
    """Reason to refuse a NEW or REPLACE of a cell (the owner's) that would open or trade `qty` lots, or 0.

    A REPLACE brings the open lots and the level of its order, a NEW 0 lots.
    """
    row, book, op, level, qty = command.row, command.book, command.op, command.level, command.qty
    cell, early, nothing = command.cell, command.early, np.int64(0)
    place = gate.cells[ix(cell)]
    limit = gate.limits[ix(place["limits"])]
    sign = np.int64(1 - 2 * side)
    position = sign * np.int64(place["position"])  # from here on as if it were a purchase
    base = position + choose(side, np.int64(place["open_buy"]), np.int64(place["open_sell"])) - old_qty
    increases = base > -qty
    if (early & ONLY_REDUCES or limit["reduce_only"]) and increases:
        return refuse(gate, row, REDUCE_ONLY, nothing, sign * saturating_sum(base, qty))
    account = gate.accounts[ix(place["account"])]
    if gate.money.size and increases:
        if place["stopped"]:
            money = gate.money[ix(cell)]
            return refuse(gate, row, STOP_LOSS, np.int64(money["strike"]), np.int64(money["equity"]))
        if account["stopped"]:
            return refuse(gate, row, STOP_LOSS, np.int64(account["strike"]), np.int64(account["equity"]))

    market = op & MARKET
    price = nothing if market else level_price(grid, book, level)
    banded = limit["band_ticks"] >= 0 or limit["band_ppm"] >= 0
    if banded or market:
        known, reference = reference_of(books, grid, gate, book)
        if known:
            band = band_of(limit, np.int64(grid.rules[ix(book)]["tick"]), reference)
            if market:
                more = max(band, nothing)
                fits = more <= MAX_QTY - abs(reference)
                amount = product(abs(reference) + more, qty) if fits else np.int64(-1)
                if amount < 0 or amount > limit["order_notional"]:
                    observed = amount if amount >= 0 else np.int64(MAX_QTY)
                    return refuse(gate, row, MAX_NOTIONAL, np.int64(limit["order_notional"]), observed)
            elif banded and distance(price, reference) > np.uint64(band):
                end = saturating_sum(reference, band if price > reference else -band)
                return refuse(gate, row, PRICE_BAND, end, price)

    most = choose(side, np.int64(limit["long"]), np.int64(limit["short"]))
    if base > most - qty:
        return refuse(gate, row, MAX_POSITION, sign * most, sign * saturating_sum(base, qty))
    if not op & NO_REST:
        if old_qty == 0 and place["open_orders"] >= limit["open_orders"]:
            observed = np.int64(place["open_orders"]) + 1
            return refuse(gate, row, MAX_OPEN_ORDERS, np.int64(limit["open_orders"]), observed)
        if gate.counts[TRACKS_NOTIONAL]:
            others = np.int64(place["open_notional"])
            if old_qty != 0:
                others -= abs(level_price(grid, book, old_level)) * old_qty
            amount, most = product(abs(price), qty), np.int64(limit["open_notional"])
            if amount < 0 or others > most - amount:
                observed = saturating_sum(others, amount) if amount >= 0 else np.int64(MAX_QTY)
                return refuse(gate, row, MAX_OPEN_NOTIONAL, most, observed)
    if gate.counts[CHECKS_PORTFOLIO] and gate.money.size:
        more = qty  # by which |position| grows
        if position < 0:
            more = position + qty + position if position + qty > 0 else nothing
        if more > 0:
            symbol = gate.symbols[ix(book)]
            each = abs(np.int64(symbol["mark"])) if symbol["has_mark"] else abs(price)
            gross = (np.int64(account["gross_high"]), np.int64(account["gross_low"]))
            value, most = int128.add(gross, int128.multiply(each, more)), np.int64(account["portfolio"])
            if each != 0 and int128.exceeds(value, most):
                return refuse(gate, row, MAX_PORTFOLIO_VALUE, most, saturated(value))
    stops_at_own = limit["self_trade"] == CANCEL_NEWEST and not op & PASSIVE
    if stops_at_own and meets_own_first(books, gate, book, side, level, place):
        return refuse(gate, row, SELF_TRADE, nothing, nothing)
    return nothing


@helper
def meets_own_first(books, gate, book, side, level, place):
    """Whether the first order that an incoming one would trade with is of its own group."""
    best = np.int64(books.heads[ix(book), BEST + 1 - side])
    if best < books.heads[ix(book), MIRROR] - level:
        return False
    first = np.int64(books.orders[ix(best)]["next"])
    return gate.cells[ix(gate.node_cells[ix(first)])]["group"] == place["group"]


@rare
def can_fill_from_others(books, gate, book, side, level, qty, cell):
    """`matching.can_fill` for an order that doesn't trade with its own group's."""
    place = gate.cells[ix(cell)]
    mode, group = gate.limits[ix(place["limits"])]["self_trade"], place["group"]
    floor = np.int64(books.heads[ix(book), MIRROR]) - level
    best = np.int64(books.heads[ix(book), BEST + 1 - side])
    while best >= floor:
        slot = np.int64(books.orders[ix(best)]["next"])
        while slot != best:
            own = mode != ALLOW_SELF_TRADE and gate.cells[ix(gate.node_cells[ix(slot)])]["group"] == group
            if own and mode != CANCEL_OLDEST:
                return False
            if not own:
                qty -= np.int64(books.orders[ix(slot)]["qty"])
                if qty <= 0:
                    return True
            slot = np.int64(books.orders[ix(slot)]["next"])
        best = previous_bit(books.bitmap, best)
    return False
