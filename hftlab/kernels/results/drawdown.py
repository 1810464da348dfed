"""P&L of accounts over time, marked at the last price of each symbol after every fill.

A fill is at the price at which it is marked, so it changes nobody's P&L by itself: P&L changes where the last
price does, by position x change. All is exact; an account whose numbers pass 63 bits is marked as lost.
"""

from __future__ import annotations

import numpy as np

from hftlab.codes import MAX_QTY, NOT_A_VALUE
from hftlab.kernels.primitives.compile import helper, kernel
from hftlab.kernels.primitives.int128 import add, multiply
from hftlab.kernels.primitives.intrinsics import bare, ix
from hftlab.kernels.results.tables import MAKERS, TAKERS

GAIN = np.dtype(
    [
        ("pnl", "i8"),  # 1e-9
        ("peak", "i8"),  # the largest so far, 0 at first
        ("drawdown", "i8"),  # the largest fall from a peak
        ("lost", "i8"),  # whether 63 bits were not enough
    ],
    align=True,
)


@helper
def is_small(value):
    """Whether a product of two such numbers, and 2^61 on top of it, fit in 63 bits."""
    return -(1 << 30) < value < 1 << 30


@helper
def note(account, pnl):
    """An account has another P&L."""
    peak = np.int64(account["peak"])
    account["pnl"] = pnl
    if pnl > peak:
        account["peak"] = pnl
    elif pnl < 0 and peak > MAX_QTY + pnl:
        account["lost"] = 1
    elif peak - pnl > account["drawdown"]:
        account["drawdown"] = peak - pnl


@helper
def mark(account, position, before, price):
    """An account's symbol has another last price."""
    pnl = np.int64(account["pnl"])
    if is_small(price >> 32) and is_small(before >> 32) and is_small(pnl >> 31):
        step = price - before
        if is_small(step) and is_small(position):
            note(account, pnl + position * step)
            return
    change = add(multiply(position, price), multiply(position, -before))
    high, low = add(change, (np.int64(-1 if pnl < 0 else 0), pnl))
    if (low < 0) != (high == -1) or (high != 0 and high != -1):
        account["lost"] = 1
        return
    note(account, np.int64(low))


@helper
def hold(held, holding, change, account):
    """Add lots to a holding."""
    position = np.int64(held[ix(holding)])
    if (change > 0 and position > MAX_QTY - change) or (change < 0 and position < -MAX_QTY - change):
        account["lost"] = 1
        return
    held[ix(holding)] = position + change


@kernel
def follow(books, prices, lots, sides, holdings, starts, owners, gains):
    """Go through fills; `sides` are the takers', `holdings` [2, fills] those of takers and of makers.

    The holdings of a book are those from its `starts` on; `owners` says whose of `gains` (GAIN) each is.
    """
    books, prices, lots, sides, holdings = bare(books), bare(prices), bare(lots), bare(sides), bare(holdings)
    starts, owners, gains = bare(starts), bare(owners), bare(gains)
    held, last = np.zeros(owners.size, np.int64), np.full(starts.size, NOT_A_VALUE, np.int64)
    for i in range(sides.size):
        book, price = np.int64(books[i]), np.int64(prices[i])
        before = np.int64(last[ix(book)])
        if price != before:
            last[ix(book)] = price
            if before != NOT_A_VALUE:
                for holding in range(starts[ix(book)], starts[ix(book + 1)]):
                    position = np.int64(held[ix(holding)])
                    if position != 0:
                        mark(gains[ix(owners[ix(holding)])], position, before, price)
        taker, maker = np.int64(holdings[TAKERS, i]), np.int64(holdings[MAKERS, i])
        if taker != maker:
            change = np.int64(lots[i]) * np.int64(sides[i])
            hold(held, taker, change, gains[ix(owners[ix(taker)])])
            hold(held, maker, -change, gains[ix(owners[ix(maker)])])
