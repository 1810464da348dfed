"""Compiled commands: a tape of them as kernels see it, and the single one that `step` takes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels.primitives.compile import helper
from hftlab.kernels.primitives.intrinsics import bare


class Commands(NamedTuple):
    """A compiled tape as the kernel sees it; all read-only."""

    rows: np.ndarray  # COMMAND [n]
    order: np.ndarray  # int32 [n]: input row of each, or [0] where that is its index
    targets: np.ndarray  # int32 [n]: slot of a REPLACE's new id, or [0] where ids never change
    accounts: np.ndarray  # int32 [input rows], or [0] where there are none


@helper
def bare_commands(commands):
    """The same tape without reference counts (see intrinsics.py)."""
    return Commands(
        bare(commands.rows), bare(commands.order), bare(commands.targets), bare(commands.accounts)
    )


class Command(NamedTuple):
    """One compiled command: int64 each, which the compiler keeps in registers like loose arguments."""

    row: int  # what its fills are noted under; of an order of the risk gate -1 - that of the command
    book: int
    op: int  # see opcodes.py
    order_slot: int  # that of the order it names
    target: int  # of a REPLACE: the slot of the order it leaves, another where it has a new id
    level: int  # where it would rest; the unmirrored level of a REPLACE
    qty: int  # lots; the reason of an INVALID; the code of a CONTROL
    entry: int  # what the run calls its order
    account: int
    holding: int  # whose it is, for the risk gate
    row_reason: int  # what its row decided by itself, see row_checks.py
