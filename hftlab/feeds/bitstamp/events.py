"""What a file of Bitstamp tells, row by row, before anybody asks who executed whom."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CREATED, CHANGED, DELETED, TRADE, ORDER_BOOK = range(5)
ACTIONS = {"created": CREATED, "changed": CHANGED, "deleted": DELETED}
SIDES = {"bid": 1, "ask": -1}

MAX = 2**63 - 1
MAX_MS, MAX_US = MAX // 1_000_000, MAX // 1_000
PRICE, VOLUME = 10**9, 10**8  # units in 1
UNKNOWN = -1  # volume of an order from before the file
NONE = -1  # row of no event


class Events(NamedTuple):
    """What a file tells, row by row."""

    sequence: np.ndarray  # 0-based row of the CSV or line of the log
    ts_us: np.ndarray
    recv_us: np.ndarray  # the same where a file has one time
    kind: np.ndarray  # CREATED to ORDER_BOOK
    order_id: np.ndarray  # uint64; of a trade, its own
    side: np.ndarray  # of the order, or of the aggressor where a trade tells; 0 unknown
    price: np.ndarray  # 1e-9
    volume: np.ndarray  # satoshi that remain, or were traded
