"""Limits, fees and references as the risk gate reads them: one aligned record each.

Money is in 1e-9 of the currency, percentages in millionths of the whole (ppm), basis points in 1e-4 of one.
A limit that nobody gave is NO_LIMIT where it is an upper bound, NOT_GIVEN where 0 would be a limit too and
the largest integer would be a wrong one.
"""

from __future__ import annotations

import numpy as np

NO_LIMIT = 2**63 - 1
NOT_GIVEN = -1  # a band, a stop loss

LAST, MID, FIXED = 0, 1, 2  # kinds of reference
OF_ACCOUNT, OF_POSITION = 0, 1  # scopes of a stop loss
ON_ACCOUNT, ON_SYMBOL, ON_ALL = range(3)  # scopes of a RISK_CONTROL
SCOPE_SHIFT, STATE_MASK = 2, 3  # of a RISK_CONTROL's qty

# what rows decide by themselves is a byte each: a reason, and a bit where only what reduces is allowed
ROW_REASON, ONLY_REDUCES = 127, 1 << 7

LIMIT = np.dtype(
    [
        ("order_qty", "i8"),  # lots
        ("order_notional", "i8"),
        ("band_ticks", "i8"),  # or NOT_GIVEN
        ("band_ppm", "i8"),  # or NOT_GIVEN
        ("long", "i8"),  # lots
        ("short", "i8"),  # lots, not negative
        ("open_orders", "i8"),
        ("open_notional", "i8"),
        ("order_most_high", "i8"),  # the largest price x lots within order_notional: see money.py
        ("order_most_low", "i8"),
        ("open_most_high", "i8"),  # and within open_notional
        ("open_most_low", "i8"),
        ("repeats", "i8"),  # equal orders in a row
        ("reduce_only", "i1"),
        ("restricted", "i1"),
        ("self_trade", "i1"),  # SelfTrade
    ],
    align=True,
)  # 112 bytes; one for each set of limits that differs from the others, not for each holding

ACCOUNT_LIMIT = np.dtype(
    [
        ("rate", "i8"),  # messages a second
        ("portfolio", "i8"),
        ("most_high", "i8"),  # the largest sum of price x lots within it: see money.py
        ("most_low", "i8"),
        ("stop_ppm", "i8"),  # or NOT_GIVEN
        ("capital", "i8"),
        ("group", "i8"),  # of self-trade prevention, if has_group
        ("has_group", "i1"),
        ("scope", "i1"),  # of the stop loss: OF_ACCOUNT, OF_POSITION
        ("close", "i1"),  # a stop loss closes the position
        ("known", "i1"),  # has limits of its own
    ],
    align=True,
)  # 64 bytes

FEE = np.dtype(
    [
        ("maker_bps", "i8"),  # 1e-4 basis points; negative: a rebate
        ("taker_bps", "i8"),
        ("maker_lot", "i8"),  # per lot
        ("taker_lot", "i8"),
    ],
    align=True,
)  # 32 bytes

REFERENCE = np.dtype(
    [
        ("kind", "i1"),  # LAST, MID, FIXED
        ("price", "i8"),  # of FIXED
    ],
    align=True,
)  # 16 bytes
