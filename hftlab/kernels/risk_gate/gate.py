"""The risk gate's state, and what trading does to it: docs/RISK.md.

A *holding* is one account in one symbol; `order_holdings` says whose an order is. The hooks of matching
keep positions and open orders, `book_checks` reads them. Money (cash, equity, portfolio value) is kept only
where a limit on it is given (`money.size`): it ties all instruments together, so threads go without it and
`audit` follows them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels.book.ladder import ASK, BASE, BEST, BID, SIZE, Books, remove, side_of
from hftlab.kernels.book.price_grid import level_price
from hftlab.kernels.primitives import int128
from hftlab.kernels.primitives.bitmap import NONE, previous_bit
from hftlab.kernels.primitives.compile import helper, unless_none
from hftlab.kernels.primitives.int256 import add, widened
from hftlab.kernels.primitives.intrinsics import ZERO, bare, ix
from hftlab.kernels.risk_gate.money import cash_of, gross_of, scaled, set_cash, set_gross
from hftlab.kernels.risk_gate.records import FIXED, MID

HOLDING = np.dtype(
    [
        ("position", "i8"),  # lots
        ("open_buy", "i8"),  # lots
        ("open_sell", "i8"),
        ("open_notional_high", "i8"),  # price x lots; kept only where somebody has a limit on it
        ("open_notional_low", "i8"),
        ("open_orders", "i4"),
        ("limits", "i4"),  # which of the distinct sets
        ("account", "i4"),  # number in `accounts`
        ("group", "i4"),  # of self-trade prevention
        ("book", "i4"),
        ("stopped", "i1"),
        ("traded", "i1"),  # whether it ever has
    ],
    align=True,
)  # 64 bytes: one cache line

MONEY = np.dtype(
    [
        ("cash_0", "i8"),  # sold less bought, price x lots, in four words: see int256.py
        ("cash_1", "i8"),
        ("cash_2", "i8"),
        ("cash_3", "i8"),
        ("equity", "i8"),  # at the last mark; of the holding, where stops are by position
        ("peak", "i8"),
        ("strike", "i8"),  # the equity at which the stop struck
    ],
    align=True,
)

ACCOUNT = np.dtype(
    [
        ("gross_0", "i8"),  # sum of |position| x |mark|, in the unit that books have in common
        ("gross_1", "i8"),
        ("gross_2", "i8"),
        ("gross_3", "i8"),
        ("equity", "i8"),  # at the last mark
        ("peak", "i8"),
        ("strike", "i8"),
        ("portfolio", "i8"),  # limit on the portfolio value
        ("most_high", "i8"),  # the largest gross within it
        ("most_low", "i8"),
        ("capital", "i8"),
        ("stop_ppm", "i8"),  # -1: none
        ("rate", "i8"),  # limit on messages in a second
        ("ring", "i8"),  # where the times of its messages start, see row_checks.py
        ("room", "i8"),  # for so many of them
        ("messages", "i8"),  # so far
        ("number", "i4"),  # as the flow says it
        ("state", "i1"),  # RiskState
        ("known", "i1"),  # has limits of its own
        ("stopped", "i1"),
        ("by_position", "i1"),  # scope of the stop
        ("closes", "i1"),  # action of the stop
        ("traded", "i1"),
    ],
    align=True,
)

SYMBOL = np.dtype(
    [
        ("last", "i8"),  # price of the last fill
        ("mark", "i8"),
        ("fixed", "i8"),
        ("lot", "i8"),  # what price x lots of 1 is worth: lot size x multiplier, 1e-9
        ("share", "i8"),  # how often that has the unit that books have in common
        ("kind", "i1"),  # of the reference: LAST, MID, FIXED
        ("has_last", "i1"),
        ("has_mark", "i1"),
        ("state", "i1"),  # RiskState
    ],
    align=True,
)
REFUSAL = np.dtype([("row", "i4"), ("limit", "i8"), ("observed", "i8")], align=True)

EVENT = np.dtype(
    [
        ("row", "i4"),  # of the command it came with
        ("kind", "i4"),  # GateEvent
        ("entry", "i4"),  # what the run calls the order
        ("node", "i4"),  # -1: none
        ("order_id", "i8"),  # filled in afterwards
        ("holding", "i4"),
        ("gone", "i4"),  # whether the order is no longer open
        ("qty", "i8"),
        ("limit", "i8"),
        ("observed", "i8"),
    ],
    align=True,
)

# columns of `counts`
REFUSALS, EVENTS, NEXT_MARK, TRACKS_NOTIONAL, ALL_STATE = range(5)
OWN, OWN_ROOM = 5, 6  # stop losses and closing orders so far, and how many there is room for
CHECKS_PORTFOLIO, COUNTS = 7, 8


class Gate(NamedTuple):
    """The gate as kernels see it. Everything but the last three is shared by the threads of a run."""

    holdings: np.ndarray  # HOLDING; 0 is nobody's
    money: np.ndarray  # MONEY [holdings], or [0] where no limit needs it
    accounts: np.ndarray  # ACCOUNT
    symbols: np.ndarray  # SYMBOL [books]
    limits: np.ndarray  # LIMIT
    order_holdings: np.ndarray  # int32 [slots]: whose a resting order is
    row_holdings: np.ndarray  # int32 [n] by index on the tape: the sender's
    row_reasons: np.ndarray  # uint8 [n] by index: see row_checks.py
    owners: np.ndarray  # int32 [n] by index, or [0]: takes whose order a REPLACE was, see audit.py
    stop_order: np.ndarray  # int32: holdings by account, then by name of symbol
    names: np.ndarray  # int32: books by name of symbol
    marks: np.ndarray  # int64: indices before which positions are marked
    refusals: np.ndarray  # REFUSAL
    events: np.ndarray  # EVENT
    counts: np.ndarray  # int64 [COUNTS]


@unless_none
def bare_gate(gate):
    """The same gate without reference counts (see intrinsics.py); None stays None."""
    return Gate(
        bare(gate.holdings),
        bare(gate.money),
        bare(gate.accounts),
        bare(gate.symbols),
        bare(gate.limits),
        bare(gate.order_holdings),
        bare(gate.row_holdings),
        bare(gate.row_reasons),
        bare(gate.owners),
        bare(gate.stop_order),
        bare(gate.names),
        bare(gate.marks),
        bare(gate.refusals),
        bare(gate.events),
        bare(gate.counts),
    )


@helper
def refuse(gate, row, reason, limit, observed):
    """Note why a command is refused; returns the reason."""
    place = ix(gate.counts[REFUSALS])
    gate.refusals[place]["row"] = row
    gate.refusals[place]["limit"] = limit
    gate.refusals[place]["observed"] = observed
    gate.counts[REFUSALS] += 1
    return np.int64(reason)


class Event(NamedTuple):
    """Something the gate does by itself: the fields of EVENT, int64 each."""

    row: int  # of the command it comes with; -1 - that where it comes with an order of the gate
    kind: int
    entry: int
    order_slot: int
    holding: int
    gone: int
    qty: int
    limit: int
    observed: int


@helper
def record_event(gate, event):
    """Note something the gate did by itself."""
    row = gate.events[ix(gate.counts[EVENTS])]
    row["row"] = event.row if event.row >= 0 else -1 - event.row
    row["kind"], row["entry"], row["node"] = event.kind, event.entry, event.order_slot
    row["holding"], row["gone"], row["qty"] = event.holding, event.gone, event.qty
    row["limit"], row["observed"] = event.limit, event.observed
    gate.counts[EVENTS] += 1


# ------------------------------------------------------------------ open orders


@helper
def choose(side, of_buys, of_sells):
    """One of two numbers by side; without a branch, because sides can't be predicted."""
    return of_buys ^ ((of_buys ^ of_sells) & -side)


class Lots(NamedTuple):
    """Lots of a resting order, and where it rests; int64 each."""

    book: int
    side: int  # as an index
    level: int
    order_slot: int
    qty: int
    whole: int  # 1 where these are all that it has open, else 0


@helper
def open_notional_of(place):
    """Price x lots of a holding's open orders, as a pair."""
    return np.int64(place["open_notional_high"]), np.int64(place["open_notional_low"])


@helper
def add_notional(place, price, qty):
    """Lots of a holding at a price are open, or, where `qty` is negative, no longer."""
    open_notional = int128.add(open_notional_of(place), int128.multiply(price, qty))
    place["open_notional_high"], place["open_notional_low"] = open_notional


@helper
def on_rest(grid, gate, lots, holding):
    """An order of a holding rests."""
    gate.order_holdings[ix(lots.order_slot)] = holding
    place = gate.holdings[ix(holding)]
    place["open_buy"] += choose(lots.side, lots.qty, ZERO)
    place["open_sell"] += choose(lots.side, ZERO, lots.qty)
    place["open_orders"] += 1
    if gate.counts[TRACKS_NOTIONAL]:
        add_notional(place, abs(level_price(grid, lots.book, lots.level)), lots.qty)


@helper
def on_remove(grid, gate, lots):
    """Lots of a resting order are no longer open."""
    place = gate.holdings[ix(gate.order_holdings[ix(lots.order_slot)])]
    place["open_buy"] -= choose(lots.side, lots.qty, ZERO)
    place["open_sell"] -= choose(lots.side, ZERO, lots.qty)
    place["open_orders"] -= lots.whole
    if gate.counts[TRACKS_NOTIONAL]:
        add_notional(place, abs(level_price(grid, lots.book, lots.level)), -lots.qty)


@helper
def group_of(gate, order_slot):
    """The group of self-trade prevention that a resting order is of."""
    return gate.holdings[ix(gate.order_holdings[ix(order_slot)])]["group"]


@helper
def withdraw(books, grid, gate, row, book, order_slot, qty, kind):
    """The gate takes lots off a resting order, perhaps all."""
    order = books.orders[ix(order_slot)]
    level, open_qty = np.int64(order["level"]), np.int64(order["qty"])
    gone = np.int64(qty == open_qty)
    on_remove(grid, gate, Lots(book, side_of(books, book, level), level, order_slot, qty, gone))
    holding, entry = np.int64(gate.order_holdings[ix(order_slot)]), np.int64(books.entries[ix(order_slot)])
    record_event(gate, Event(row, kind, entry, order_slot, holding, gone, qty, ZERO, ZERO))
    if gone:
        remove(books, book, order_slot)
    else:
        books.orders[ix(order_slot)]["qty"] = open_qty - qty
        books.levels[ix(level)]["qty"] -= qty


@helper
def withdraw_all(books, grid, gate, row, book, account, everyone, kind):
    """The gate cancels the open orders of an account, or of everyone, in a book."""
    for side in range(2):
        bottom = books.heads[ix(book), BASE] + side * books.heads[ix(book), SIZE]
        level = np.int64(books.heads[ix(book), BEST + side])
        while level >= bottom and level != NONE:
            order_slot = np.int64(books.orders[ix(level)]["next"])
            while order_slot != level:
                younger = np.int64(books.orders[ix(order_slot)]["next"])
                if everyone or books.accounts.size == 0 or books.accounts[ix(order_slot)] == account:
                    open_qty = np.int64(books.orders[ix(order_slot)]["qty"])
                    withdraw(books, grid, gate, row, book, order_slot, open_qty, kind)
                order_slot = younger
            level = previous_bit(books.bitmap, level)


# ------------------------------------------------------------------ trades


@helper
def settle(gate, book, holding, side, qty, price):
    """A holding has bought (side 0) or sold `qty` lots: its position follows, and where kept, its money."""
    place = gate.holdings[ix(holding)]
    before = np.int64(place["position"])
    after = before + choose(side, qty, -qty)
    place["position"] = after
    if gate.money.size:
        symbol = gate.symbols[ix(book)]
        if symbol["has_mark"] == 0:
            symbol["mark"], symbol["has_mark"] = price, 1
        money = gate.money[ix(holding)]
        set_cash(money, add(cash_of(money), widened(int128.multiply(price, qty if side else -qty))))
        account = gate.accounts[ix(place["account"])]
        more = widened(int128.multiply(abs(np.int64(symbol["mark"])), abs(after) - abs(before)))
        set_gross(account, add(gross_of(account), scaled(more, np.int64(symbol["share"]))))
        account["traded"], place["traded"] = 1, 1


@helper
def on_fill(grid, gate, lots, taker_holding):
    """Lots of a resting order traded with an order of `taker_holding`, at its own price."""
    on_remove(grid, gate, lots)
    price = level_price(grid, lots.book, lots.level)
    settle(gate, lots.book, np.int64(gate.order_holdings[ix(lots.order_slot)]), lots.side, lots.qty, price)
    settle(gate, lots.book, taker_holding, 1 - lots.side, lots.qty, price)
    gate.symbols[ix(lots.book)]["last"] = price
    gate.symbols[ix(lots.book)]["has_last"] = 1


# ------------------------------------------------------------------ references and marks


@helper
def reference_of(books: Books, grid, gate, book):
    """(whether it is known, reference price) of a symbol."""
    symbol = gate.symbols[ix(book)]
    if symbol["kind"] == FIXED:
        return True, np.int64(symbol["fixed"])
    if symbol["kind"] == MID:
        bid, ask = np.int64(books.heads[ix(book), BEST + BID]), np.int64(books.heads[ix(book), BEST + ASK])
        base, size = np.int64(books.heads[ix(book), BASE]), np.int64(books.heads[ix(book), SIZE])
        if bid >= base and ask >= base + size:
            bid, ask = level_price(grid, book, bid), level_price(grid, book, ask)
            return True, (bid & ask) + ((bid ^ ask) >> 1)
    return symbol["has_last"] != 0, np.int64(symbol["last"])
