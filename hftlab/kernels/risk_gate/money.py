"""True money from price x lots: what the gate adds up is exact, and rounded only where it is shown.

Sums are integers of price x lots, per instrument. What one lot is worth (lot size x multiplier, a SYMBOL's
`lot`) turns them into money. Limits on money are turned round once, when they are looked up: into the largest
price x lots that they allow (`limits_of_lots`). So an order is compared without a division, and a limit that
nobody gave allows more than any order can come to.
"""

from __future__ import annotations

import numpy as np

from hftlab.kernels.primitives.compile import helper, rare
from hftlab.kernels.primitives.int256 import add, divide, exact, joined, saturated, times, words_of
from hftlab.kernels.primitives.intrinsics import ix

ONE = 10**9  # a lot that is worth its price


@helper
def cash_of(money):
    """What a holding has sold less what it has bought, price x lots."""
    return joined(money["cash_0"], money["cash_1"], money["cash_2"], money["cash_3"])


@helper
def set_cash(money, number):
    """Put that down in a MONEY."""
    money["cash_0"], money["cash_1"], money["cash_2"], money["cash_3"] = words_of(number)


@helper
def gross_of(account):
    """The portfolio value of an account, in the unit that books have in common."""
    return joined(account["gross_0"], account["gross_1"], account["gross_2"], account["gross_3"])


@helper
def set_gross(account, number):
    """Put that down in an ACCOUNT."""
    words = words_of(number)
    account["gross_0"], account["gross_1"], account["gross_2"], account["gross_3"] = words


@helper
def scaled(number, share):
    """Price x lots of an instrument in the unit that all of a run have in common."""
    return number if share == 1 else _scaled(number, share)


@rare
def _scaled(number, share):
    return times(number, share)


@helper
def unit_of(gate, book):
    """What that unit is worth, in 1e-9 of price x lots; the same for all books."""
    symbol = gate.symbols[ix(book)]
    return np.int64(symbol["lot"]) // np.int64(symbol["share"])


@helper
def shown_money(number, worth):
    """Price x lots, each `worth` so much, as money; at most 2^63-1.

    Rounded up, so that what is refused is shown above its limit.
    """
    return saturated(number) if worth == ONE else _shown_money(number, worth)


@rare
def _shown_money(number, worth):
    return saturated(divide(add(times(number, worth), exact(ONE - 1)), exact(ONE)))


@helper
def equity_of(value, worth, capital):
    """Capital and P&L (price x lots, each `worth` so much) together, the P&L rounded toward zero.

    As far as 64 bits go.
    """
    return saturated(add(value, exact(capital))) if worth == ONE else _equity_of(value, worth, capital)


@rare
def _equity_of(value, worth, capital):
    return saturated(add(divide(times(value, worth), exact(ONE)), exact(capital)))
