"""Record types of the kernels, aligned, declared once.

Quantities come in two widths. NARROW (32 bits) keeps an order in 16 bytes, four to a cache line, and
serves any flow whose quantities fit; numba compiles the same source again for WIDE (64 bits) when they
don't.
"""

from __future__ import annotations

import numpy as np

NARROW, WIDE = np.dtype("i4"), np.dtype("i8")


def _order(qty: np.dtype) -> np.dtype:
    return np.dtype(
        [
            ("qty", qty),  # open lots; 0: not open
            ("level", "i4"),  # where it rests
            ("prev", "i4"),  # older neighbour in the queue; of a level's own slot: the youngest order
            ("next", "i4"),  # younger neighbour; of a level's own slot: the oldest order
        ],
        align=True,
    )


def _command(qty: np.dtype) -> np.dtype:
    return np.dtype(
        [
            ("op", "i4"),  # what to do: see opcodes.py; instrument from bit 9 up
            ("slot", "i4"),  # that of the order it names
            ("level", "i4"),  # where a NEW would rest; the unmirrored level for a REPLACE
            ("qty", qty),  # lots; the reason of an INVALID
        ],
        align=True,
    )


def _fill(qty: np.dtype) -> np.dtype:
    return np.dtype(
        [
            ("row", "i4"),  # of the aggressor's command
            ("maker", "i4"),  # what the run knows the maker by: see `entries` in ladder.py
            ("level", "i4"),  # of the maker
            ("maker_account", "i4"),
            ("taker_account", "i4"),
            ("qty", qty),
            ("maker_leaves", qty),
            ("taker_leaves", qty),
        ],
        align=True,
    )


ORDER = {width: _order(width) for width in (NARROW, WIDE)}  # 16 and 24 bytes
COMMAND = {width: _command(width) for width in (NARROW, WIDE)}  # 16 and 24 bytes
FILL = {width: _fill(width) for width in (NARROW, WIDE)}  # 32 and 48 bytes

LEVEL = np.dtype(
    [
        ("qty", "i8"),  # sum of open lots
        ("count", "i4"),  # open orders
    ],
    align=True,
)  # 16 bytes; its queue begins and ends at the slot of the same number
