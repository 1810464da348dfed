"""What happens across instruments: marking positions, stop losses, kill switches."""

from __future__ import annotations

import numpy as np

from hftlab.kernels.book.commands import Command
from hftlab.kernels.book.ladder import SIZE
from hftlab.kernels.book.opcodes import MARKET, NO_REST
from hftlab.kernels.codes import ACTIVE, KILL_CANCEL, KILLED, STOP_CANCEL, STOP_CLOSE, STOP_STRUCK
from hftlab.kernels.matching.price_time import cross
from hftlab.kernels.primitives import int128, int256
from hftlab.kernels.primitives.compile import helper, rare
from hftlab.kernels.primitives.int256 import widened
from hftlab.kernels.primitives.intrinsics import ZERO, ix, prefetch
from hftlab.kernels.risk_gate.book_checks import share
from hftlab.kernels.risk_gate.gate import (
    NEXT_MARK,
    OWN,
    OWN_ROOM,
    Event,
    record_event,
    reference_of,
    withdraw_all,
)
from hftlab.kernels.risk_gate.money import cash_of, equity_of, gross_of, scaled, set_gross, unit_of
from hftlab.kernels.risk_gate.records import ON_ALL, ON_SYMBOL, SCOPE_SHIFT, STATE_MASK

VALUED_AHEAD = 8  # holdings: fewer than rows, for to value one takes longer


@helper
def is_marking(gate, index):
    """Whether positions are to be marked before the command at an index."""
    nth = gate.counts[NEXT_MARK]
    return nth < gate.marks.size and gate.marks[ix(nth)] == index


@helper
def has_room(gate):
    """Whether there is room for all that a marking may do: a stop and a closing order for each holding."""
    return gate.counts[OWN] + 2 * gate.holdings.size <= gate.counts[OWN_ROOM]


@helper
def value_of(gate, holding):
    """P&L of a holding at its symbol's mark, price x lots, exact."""
    place, money = gate.holdings[ix(holding)], gate.money[ix(holding)]
    held = int128.multiply(np.int64(place["position"]), np.int64(gate.symbols[ix(place["book"])]["mark"]))
    return int256.add(cash_of(money), widened(held))


@helper
def take_marks(books, grid, gate):
    """Every symbol's mark becomes its reference; where nobody is judged, portfolio values follow here."""
    for book in range(gate.symbols.size):
        known, reference = reference_of(books, grid, gate, np.int64(book))
        if known:
            gate.symbols[ix(book)]["mark"], gate.symbols[ix(book)]["has_mark"] = reference, 1
    if gate.stop_order.size == 0:
        for number in range(gate.accounts.size):
            set_gross(gate.accounts[ix(number)], int256.exact(ZERO))
        for holding in range(1, gate.holdings.size):
            account = gate.accounts[ix(gate.holdings[ix(holding)]["account"])]
            set_gross(account, int256.add(gross_of(account), held_value(gate, gate.holdings[ix(holding)])))


@helper
def held_value(gate, place):
    """The value of a holding's position at its symbol's mark, whatever its side, as part of an account's."""
    symbol = gate.symbols[ix(place["book"])]
    value = int128.multiply(abs(np.int64(symbol["mark"])), abs(np.int64(place["position"])))
    return scaled(widened(value), np.int64(symbol["share"]))


@helper
def value_account(gate, first):
    """Value the account whose holdings begin at a place of `stop_order`; its portfolio value follows.

    Returns (its place in `accounts`, where the next one's holdings begin, P&L in the unit that books have in
    common, exact).
    """
    order = gate.stop_order
    number = np.int64(gate.holdings[ix(order[ix(first)])]["account"])
    value, gross, last = int256.exact(ZERO), int256.exact(ZERO), first
    while last < order.size:
        ahead = np.int64(order[ix(min(last + VALUED_AHEAD, order.size - 1))])
        prefetch(gate.holdings, ahead)
        prefetch(gate.money, ahead)
        holding = np.int64(order[ix(last)])
        place = gate.holdings[ix(holding)]
        if place["account"] != number:
            break
        if place["traded"]:
            share = np.int64(gate.symbols[ix(place["book"])]["share"])
            value = int256.add(value, scaled(value_of(gate, holding), share))
            gross = int256.add(gross, held_value(gate, place))
        last += 1
    set_gross(gate.accounts[ix(number)], gross)
    return number, last, value


@helper
def strikes(record, stop_ppm):
    """Follow the peak of a record's equity; whether its stop strikes now."""
    record["peak"] = max(np.int64(record["peak"]), np.int64(record["equity"]))
    if stop_ppm < 0 or record["peak"] <= 0:
        return False
    record["strike"] = record["peak"] - share(np.int64(record["peak"]), stop_ppm)
    return record["equity"] <= record["strike"]


@helper
def close_position(books, grid, gate, fills, count, row, holding):
    """Cancel a holding's open orders and sell what it holds, or buy back, at any price."""
    place = gate.holdings[ix(holding)]
    book, number = np.int64(place["book"]), np.int64(gate.accounts[ix(place["account"])]["number"])
    withdraw_all(books, grid, gate, row, book, number, False, np.int64(STOP_CANCEL))
    position = np.int64(place["position"])
    if position == 0:
        return count
    side = np.int64(position > 0)
    level = grid.bases[ix(book)] + (side + 1) * np.int64(books.heads[ix(book), SIZE]) - 1
    qty, nobody = abs(position), np.int64(-1)
    order = Command(
        -1 - row, book, side | MARKET | NO_REST, nobody, nobody, level, qty, nobody, number, holding, ZERO
    )
    leaves, lost, count = cross(books, grid, gate, fills, count, order, side)
    filled = qty - leaves - lost
    gate.counts[OWN] += 1
    record_event(gate, Event(row, np.int64(STOP_CLOSE), nobody, nobody, holding, ZERO, filled, ZERO, ZERO))
    return count


@helper
def holding_strikes(gate, holding):
    """Value a holding at its mark; whether its stop strikes now."""
    place, money = gate.holdings[ix(holding)], gate.money[ix(holding)]
    account = gate.accounts[ix(place["account"])]
    worth = np.int64(gate.symbols[ix(place["book"])]["lot"])
    money["equity"] = equity_of(value_of(gate, holding), worth, np.int64(account["capital"]))
    waits = place["traded"] != 0 and place["stopped"] == 0
    return waits and strikes(money, np.int64(account["stop_ppm"]))


@helper
def account_strikes(gate, account, value):
    """Whether the stop of an account of that P&L strikes now."""
    account["equity"] = equity_of(value, unit_of(gate, ZERO), np.int64(account["capital"]))
    waits = account["traded"] != 0 and account["stopped"] == 0
    return waits and strikes(account, np.int64(account["stop_ppm"]))


@helper
def judge_holdings(books, grid, gate, fills, count, row, first, last):
    """Let the stops of an account's holdings strike, one after the other."""
    nobody = np.int64(-1)
    for i in range(first, last):
        holding = np.int64(gate.stop_order[ix(i)])
        if not holding_strikes(gate, holding):
            continue
        place, money = gate.holdings[ix(holding)], gate.money[ix(holding)]
        place["stopped"] = 1
        gate.counts[OWN] += 1
        strike, equity = np.int64(money["strike"]), np.int64(money["equity"])
        record_event(
            gate, Event(row, np.int64(STOP_STRUCK), nobody, nobody, holding, ZERO, ZERO, strike, equity)
        )
        if gate.accounts[ix(place["account"])]["closes"]:
            count = close_position(books, grid, gate, fills, count, row, holding)
    return count


@helper
def judge_account(books, grid, gate, fills, count, row, first, last, value):
    """Let the stop of an account of that P&L strike."""
    nobody = np.int64(-1)
    holding = np.int64(gate.stop_order[ix(first)])
    account = gate.accounts[ix(gate.holdings[ix(holding)]["account"])]
    if not account_strikes(gate, account, value):
        return count
    account["stopped"] = 1
    gate.counts[OWN] += 1
    strike, equity = np.int64(account["strike"]), np.int64(account["equity"])
    record_event(
        gate, Event(row, np.int64(STOP_STRUCK), nobody, nobody, -holding, ZERO, ZERO, strike, equity)
    )
    if account["closes"]:
        for i in range(first, last):
            holding = np.int64(gate.stop_order[ix(i)])
            count = close_position(books, grid, gate, fills, count, row, holding)
    return count


@rare
def mark(books, grid, gate, fills, count, row):
    """Mark all positions, then let stops strike; returns the count of fills written."""
    gate.counts[NEXT_MARK] += 1
    take_marks(books, grid, gate)
    first = ZERO
    while first < gate.stop_order.size:
        number, last, value = value_account(gate, first)
        if gate.accounts[ix(number)]["by_position"]:
            count = judge_holdings(books, grid, gate, fills, count, row, first, last)
        else:
            count = judge_account(books, grid, gate, fills, count, row, first, last, value)
        first = last
    return count


@helper
def lift(gate, number, everyone):
    """An account, or all, may trade again after a stop loss."""
    for i in range(gate.accounts.size):
        account = gate.accounts[ix(i)]
        if account["stopped"] and (everyone or account["number"] == number):
            account["stopped"], account["peak"] = 0, account["equity"]
    if gate.money.size:
        for i in range(1, gate.holdings.size):
            place = gate.holdings[ix(i)]
            if place["stopped"] and (everyone or gate.accounts[ix(place["account"])]["number"] == number):
                place["stopped"], gate.money[ix(i)]["peak"] = 0, gate.money[ix(i)]["equity"]


@rare
def control(books, grid, gate, command):
    """RISK_CONTROL: what it does to books and stops. (States are followed where rows are taken in.)"""
    row, code, number = command.row, command.qty, command.account
    scope, state = code >> SCOPE_SHIFT, code & STATE_MASK
    if state == ACTIVE and scope != ON_SYMBOL:
        lift(gate, number, scope == ON_ALL)
    if state == KILLED:
        if scope == ON_SYMBOL:
            withdraw_all(books, grid, gate, row, command.book, number, True, np.int64(KILL_CANCEL))
        else:
            for i in range(gate.names.size):
                each = np.int64(gate.names[ix(i)])
                withdraw_all(books, grid, gate, row, each, number, scope == ON_ALL, np.int64(KILL_CANCEL))


@helper
def reaches_all(code):
    """Whether a RISK_CONTROL may change books other than its own."""
    return code & STATE_MASK == KILLED and code >> SCOPE_SHIFT != ON_SYMBOL
