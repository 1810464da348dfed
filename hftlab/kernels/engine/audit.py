"""The limits that tie instruments together, followed after the fact: docs/RISK.md, the fourth kind of check.

Threads run instruments side by side as if portfolio values and stop losses did not bind. `audit` then walks
the same rows in input order: it rebuilds every account's money from the fills, marks positions when they are
due, and stops at the first row where such a limit may have had something to say. Up to there the threads'
results are the exact ones. It may stop too early, which costs time; never too late.

What it keeps is a gate of its own (holdings, symbols, money, accounts), moved by the functions that move the
real one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels.book.columns import bare_columns, value_at
from hftlab.kernels.book.ladder import ASK, BEST, BID, bare_books
from hftlab.kernels.book.opcodes import REJECTED
from hftlab.kernels.book.price_grid import bare_grid, book_of, level_price
from hftlab.kernels.book.touch import TOUCH_BOOK, TOUCH_LEVEL, TOUCH_ROW
from hftlab.kernels.codes import (
    ACTIVE,
    CAPACITY_EXHAUSTED,
    LAST_CONTROL,
    MARKET_ORDER,
    MAX_NOTIONAL,
    MAX_OPEN_NOTIONAL,
    MAX_OPEN_ORDERS,
    MAX_POSITION,
    NEW,
    POST_ONLY_WOULD_CROSS,
    PRICE_BAND,
    REASONS,
    REPLACE,
    RISK_CONTROL,
    SELF_TRADE,
)
from hftlab.kernels.matching.stop_loss import (
    account_strikes,
    holding_strikes,
    is_marking,
    lift,
    take_marks,
    value_account,
)
from hftlab.kernels.primitives.compile import helper, kernel
from hftlab.kernels.primitives.hash_index import lookup
from hftlab.kernels.primitives.intrinsics import HOLDINGS_AHEAD, ZERO, bare, ix, prefetch
from hftlab.kernels.risk_gate.book_checks import exceeds_portfolio, growth_of, value_with
from hftlab.kernels.risk_gate.gate import CHECKS_PORTFOLIO, NEXT_MARK, bare_gate, settle
from hftlab.kernels.risk_gate.records import ON_ALL, ON_SYMBOL, SCOPE_SHIFT, STATE_MASK

# bits of `reached`: an order with this outcome came as far as the check of stop losses, of portfolio value
STOPS, PORTFOLIO = 1, 2


def reached_checks() -> np.ndarray:
    """By outcome byte of a NEW or REPLACE that was run without them: which of the two checks it gets to."""
    reached = np.full(256, STOPS | PORTFOLIO, np.uint8)
    reached[REJECTED : REJECTED + REASONS] = 0
    for reason in (PRICE_BAND, MAX_NOTIONAL, MAX_POSITION, MAX_OPEN_ORDERS, MAX_OPEN_NOTIONAL):
        reached[REJECTED + reason] = STOPS
    for reason in (SELF_TRADE, POST_ONLY_WOULD_CROSS, CAPACITY_EXHAUSTED):
        reached[REJECTED + reason] = STOPS | PORTFOLIO
    return reached


class Trail(NamedTuple):
    """What threads have written about rows, and what is known of those."""

    fills: np.ndarray  # FILL by input row; `row` is that
    touch: np.ndarray  # int64 [changes, TOUCH_WIDTH] by input row, or [0, TOUCH_WIDTH] where no mark needs it
    outcomes: np.ndarray  # uint8 by index on the tape
    tape_indices: np.ndarray  # int32 [rows]: where each input row is on the tape
    row_holdings: np.ndarray  # int32 [rows]: the sender's
    reached: np.ndarray  # uint8 [256]: see reached_checks
    index: np.ndarray  # ENTRY: (account, book) -> holding


@helper
def bare_trail(trail):
    """The same without reference counts (see intrinsics.py)."""
    return Trail(
        bare(trail.fills),
        bare(trail.touch),
        bare(trail.outcomes),
        bare(trail.tape_indices),
        bare(trail.row_holdings),
        bare(trail.reached),
        bare(trail.index),
    )


@helper
def mark_strikes(books, grid, gate):
    """Mark all positions; whether any stop strikes at it."""
    gate.counts[NEXT_MARK] += 1
    take_marks(books, grid, gate)
    first = ZERO
    while first < gate.stop_order.size:
        number, last, value = value_account(gate, first)
        if gate.accounts[ix(number)]["by_position"]:
            for i in range(first, last):
                if holding_strikes(gate, np.int64(gate.stop_order[ix(i)])):
                    return True
        elif account_strikes(gate, gate.accounts[ix(number)], value):
            return True
        first = last
    return False


@helper
def would_exceed(gate, account, position, book, qty, price):
    """Whether an order may bring the portfolio value above its limit; quantity and position as of a buyer."""
    growth, symbol = growth_of(position, qty), gate.symbols[ix(book)]
    each = abs(np.int64(symbol["mark"])) if symbol["has_mark"] else abs(price)
    if growth <= 0 or each == 0:
        return False
    return exceeds_portfolio(account, value_with(account, symbol, each, growth))


@helper
def may_bind(gate, columns, trail, row):
    """Whether a portfolio value or a stop that has struck may refuse a NEW or REPLACE."""
    action = value_at(columns.action, row)
    if action not in (NEW, REPLACE):
        return False
    index = ix(trail.tape_indices[ix(row)])
    reached = trail.reached[ix(trail.outcomes[index])]
    if reached == 0:
        return False
    if action == NEW:
        holding, sells = np.int64(trail.row_holdings[ix(row)]), np.int64(columns.side[ix(row)]) < 0
    else:  # the owner is known where the gate was asked
        holding = np.int64(gate.owners[index])
        holding, sells = abs(holding), holding < 0
        if holding == 0:
            return False
    place = gate.holdings[ix(holding)]
    account = gate.accounts[ix(place["account"])]
    if place["stopped"] or account["stopped"]:
        return True
    if not reached & PORTFOLIO or not gate.counts[CHECKS_PORTFOLIO]:
        return False
    held = np.int64(place["position"])
    market = action == NEW and value_at(columns.order_type, row) == MARKET_ORDER
    price = ZERO if market else value_at(columns.price, row)
    qty, book = value_at(columns.qty, row), np.int64(place["book"])
    return would_exceed(gate, account, -held if sells else held, book, qty, price)


@helper
def book_fill(grid, gate, trail, fill):
    """What a fill does to the money of both sides, the resting one first."""
    level = np.int64(fill["level"])
    book = book_of(grid, level)
    side = np.int64(level >= grid.bases[ix(book)] + grid.sizes[ix(book)])  # of the maker
    price, qty = level_price(grid, book, level), np.int64(fill["qty"])
    maker = lookup(trail.index, np.int64(fill["maker_account"]), book)
    taker = lookup(trail.index, np.int64(fill["taker_account"]), book)
    settle(gate, book, maker, side, qty, price)
    settle(gate, book, taker, 1 - side, qty, price)
    gate.symbols[ix(book)]["last"], gate.symbols[ix(book)]["has_last"] = price, 1


@helper
def follow_control(gate, columns, row):
    """A RISK_CONTROL may lift stops."""
    code = value_at(columns.qty, row)
    if 0 <= code <= LAST_CONTROL and code & STATE_MASK == ACTIVE and code >> SCOPE_SHIFT != ON_SYMBOL:
        lift(gate, value_at(columns.account, row), code >> SCOPE_SHIFT == ON_ALL)


@kernel
def audit(books, grid, gate, columns, trail, checks_orders, start, stop):
    """The first of input rows [start, stop) at which a limit on money may bind, or `stop`.

    The gate's marks are input rows; its money is that before `start`, and afterwards that before the row
    returned, but for what the marking at it has changed. `checks_orders` says whether single orders can be
    refused: by a portfolio value, or a stop that has struck earlier. Of the books only the touch is kept.
    """
    books, grid, gate = bare_books(books), bare_grid(grid), bare_gate(gate)
    columns, trail = bare_columns(columns), bare_trail(trail)
    fill, touch, last = ZERO, ZERO, trail.row_holdings.size - 1
    for nth in range(start, stop):
        row = np.int64(nth)
        # what may bind at a row is asked before what the row has done is followed
        if is_marking(gate, row) and mark_strikes(books, grid, gate):
            return row
        if checks_orders:
            prefetch(gate.holdings, np.int64(trail.row_holdings[ix(min(row + HOLDINGS_AHEAD, last))]))
            if may_bind(gate, columns, trail, row):
                return row
            if value_at(columns.action, row) == RISK_CONTROL:
                follow_control(gate, columns, row)
        # then its fills move the money, and its changes of the touch the marks
        while fill < trail.fills.size and trail.fills[ix(fill)]["row"] == row:
            book_fill(grid, gate, trail, trail.fills[ix(fill)])
            fill += 1
        while touch < trail.touch.shape[0] and trail.touch[ix(touch), TOUCH_ROW] == row:
            book = ix(trail.touch[ix(touch), TOUCH_BOOK])
            books.heads[book, BEST + BID] = trail.touch[ix(touch), TOUCH_LEVEL + BID]
            books.heads[book, BEST + ASK] = trail.touch[ix(touch), TOUCH_LEVEL + ASK]
            touch += 1
    return np.int64(stop)
