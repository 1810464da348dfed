"""What one lot of an instrument is worth: its size in units of the instrument, times a contract's multiplier.

A price is for one unit; a lot may be a satoshi (lot size 1e-8 of a coin) or a contract of 50 times the index
(multiplier 50). Money is price x lots x lot size x multiplier, so only the product of both matters here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import gcd
from typing import Any

import numpy as np

from hftlab.codes import MAX_QTY
from hftlab.errors import UsageError
from hftlab.numbers import exact_units

ONE = 10**9  # a lot that is worth its price
PLACES = 9  # decimals of a lot size, of a multiplier and of their product
LARGEST = 10**18  # a lot that is worth a billion times its price
EXPECTED = 'a positive decimal of at most nine places, such as "0.00000001"'


def positive_units(value: Any) -> int | None:
    """A lot size or multiplier (decimal text, int, Decimal or float) in 1e-9; None where it is none.

    A float is taken as the shortest decimal that gives it.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal | float | np.number):
        return None
    units = exact_units(value, PLACES)
    return units if units is not None and 0 < units <= LARGEST else None


def worth_of(lot_size: int | None, multiplier: int | None) -> int | None:
    """Price x lots of 1 as money in 1e-9, from both in 1e-9; None where it has more than nine decimals."""
    worth, rest = divmod((lot_size or ONE) * (multiplier or ONE), ONE)
    return worth if not rest and 0 < worth <= LARGEST else None


def lot_worth(lot_size: Any = None, multiplier: Any = None) -> int:
    """`worth_of` of arguments of a call; None is 1. Raises UsageError."""
    units = []
    for what, value in (("lot_size", lot_size), ("multiplier", multiplier)):
        units.append(None if value is None else positive_units(value))
        if value is not None and units[-1] is None:
            raise UsageError(f"{what}: found {value!r}, expected {EXPECTED}")
    worth = worth_of(*units)
    if worth is None:
        raise UsageError(
            f"lot_size: found {lot_size!r} with multiplier {multiplier!r}, expected a product of at most "
            "nine decimals, up to 1e9"
        )
    return worth


@dataclass(frozen=True)
class LotValues:
    """What price x lots of 1 is worth, in 1e-9 of money, by symbol."""

    default: int = ONE
    by_symbol: Mapping[str, int] = field(default_factory=dict)

    def of(self, symbols: Sequence[str]) -> np.ndarray:
        """Of each symbol, int64 [symbols]."""
        return np.array([self.by_symbol.get(symbol, self.default) for symbol in symbols], np.int64)

    @property
    def unit(self) -> int:
        """The largest amount that all of them are multiples of: what sums over symbols are counted in."""
        return gcd(self.default, *self.by_symbol.values())


ONES = LotValues()


def largest_within(limit: int, worth: int) -> tuple[int, int]:
    """The largest price x lots within a limit on money (1e-9), where 1 is worth so much: (high, low).

    A limit of 2^63-1 is none: everything is within it.
    """
    most = 2**127 - 1 if limit >= MAX_QTY else limit * ONE // worth
    low = most & 0xFFFF_FFFF_FFFF_FFFF
    return most >> 64, low - (1 << 64) if low >> 63 else low
