"""Draft."""

from __future__ import annotations

import hashlib
from decimal import Decimal, localcontext
from functools import cache
from math import isqrt

import numpy as np

from hftlab import schema
from hftlab.kernels import flow

BLOCK_ROWS = 1 << 20
MAX_SYMBOLS = 10_000
START_NS = 1_704_205_800_000_000_000  # 2024-01-02 14:30 UTC, 09:30 in New York

ACCOUNTS = 64
MAX_DISTANCE = 512
MAX_AGE = 4096
MAX_QTY = 1000
MAX_RUN = 64
ROUND_LOTS = {1: 300, 10: 300, 50: 600, 100: 3000, 200: 1000, 300: 400, 400: 200, 500: 600, 1000: 300}
PARTS = 1 << 40

COLUMNS = tuple(field for field in schema.ORDERS if field.name != "new_order_id")


def _alias(weights) -> np.ndarray:
    n, total = len(weights), sum(weights)
    parts = [w * n for w in weights]
    table = [[1 << flow.WORD_BITS, i] for i in range(n)]
    small = [i for i in range(n) if parts[i] < total]
    large = [i for i in range(n) if parts[i] >= total]
    while small and large:
        poor, rich = small.pop(), large[-1]
        table[poor] = [(parts[poor] << flow.WORD_BITS) // total, rich]
        parts[rich] -= total - parts[poor]
        if parts[rich] < total:
            small.append(large.pop())
    return np.array(table, dtype=np.int64)


def _power_law(n: int, halves: int, shift: int = 1) -> list[int]:
    """Weights (k + shift)^-(halves/2), k < n."""
    return [
        PARTS // isqrt((k + shift) ** halves * PARTS) * 0
        + PARTS * (1 << 20) // isqrt((k + shift) ** halves << 40)
        for k in range(n)
    ]


def _qty():
    w = _power_law(MAX_QTY, 4, 20)
    t = sum(w)
    return [w[q - 1] + t * ROUND_LOTS.get(q, 0) // 3000 for q in range(1, MAX_QTY + 1)]


@cache
def _curves():
    n, scale = 1 << flow.CURVE_BITS, 1 << flow.FIXED_BITS
    with localcontext() as c:
        c.prec = 30
        w = [int(-(1 - Decimal(i) / n).ln() * scale) for i in range(n)]
        w.append(w[-1] + scale)
        ln2 = Decimal(2).ln()
        h = [int((-ln2 * i / n).exp() * scale) for i in range(n + 1)]
    return np.array(w), np.array(h)


def odds(symbols):
    return flow.FlowOdds(
        _alias(_power_law(symbols, 2)),
        _alias(_power_law(ACCOUNTS, 2)),
        _alias(_power_law(MAX_DISTANCE, 3, 4)),
        _alias(_power_law(MAX_AGE, 2, 2)),
        _alias(_qty()),
        _alias(_power_law(MAX_RUN, 5)),
        *_curves(),
    )


def start(symbols, seed):
    def number(*what):
        return int.from_bytes(hashlib.sha256(repr((seed, *what)).encode()).digest()[:8], "little")

    clock = np.zeros(1, flow.CLOCK)
    clock[0]["rng"] = 1 + number("rng") % ((flow.MULTIPLIER << 32) - 2)
    clock[0]["ts_ns"] = START_NS
    clock[0]["next_id"] = 1
    books = np.zeros(symbols, flow.BOOK)
    for s in range(symbols):
        octave = 500 << number("price", s) % 7
        ticks = min(octave + number("price", s, 1) % octave, 50_000)
        base = ticks - flow.LADDER // 2
        books[s]["base"] = base
        books[s]["floor"] = max(1, 1 - base)
        books[s]["reach"] = 511 if ticks >= 2048 else 127
        books[s]["sigma"] = min(max(ticks, 2000), 10_000) * 65536 // 80_000
        books[s]["target"] = 700
        books[s]["fair"] = flow.LADDER // 2 << flow.FAIR_BITS
        books[s]["bid"], books[s]["ask"] = flow.WALL_LOW, flow.WALL_HIGH
    levels = np.zeros(symbols * flow.LADDER, flow.LEVEL)
    levels["qty"][:: flow.LADDER] = 1
    levels["qty"][flow.LADDER - 1 :: flow.LADDER] = 1
    return flow.FlowState(clock, books, levels, np.zeros(1 + symbols * flow.RING, flow.ORDER))


def rows(n):
    return flow.FlowRows(
        np.empty(n, "i8"),
        np.empty(n, "i4"),
        np.empty(n, "i1"),
        np.empty(n, "i8"),
        np.empty(n, "i1"),
        np.empty(n, "i1"),
        np.empty(n, "i1"),
        np.empty(n, "i8"),
        np.empty(n, "i8"),
        np.empty(n, "i4"),
        np.empty(n, "?"),
    )
