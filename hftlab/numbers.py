"""What a number is: one rule for every door that prices, quantities and limits come through.

Text is a number if it is written as one (`NUMBER`) in at most `MOST_CHARACTERS`. That is checked here, before
a library that converts text sees it: Arrow's conversion to decimals takes `7e-48` for 0. A float of any width
is the shortest decimal that its own type reads back: the float32 nearest to 93500.13 is 93500.13, and not the
93500.1328125 that it becomes as a double. Nothing is rounded: what isn't exact is no value.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hftlab.codes import NOT_A_VALUE

PRICE_DECIMALS = 9
MOST_CHARACTERS = 100  # of text; the longest that means 64 bits of 1e-18 has 38 digits
BLANKS = " \t\r\n"  # around a number, which mean nothing
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)

_PLAIN = r"^[+-]?[0-9]{{1,18}}(\.[0-9]{{0,{decimals}}})?$"  # what Arrow converts, exactly and always
_FAR = 40  # digits before the point beyond which no number is looked at: 1e999999999 fills the memory
_EXACTLY = Context(prec=3 * MOST_CHARACTERS, traps=[Inexact, InvalidOperation])
_STEPS = 4  # of a double
_SURE = 10**15  # a decimal of 15 digits is the shortest of the double nearest to it


# ------------------------------------------------------------------ one number


def is_number(text: str) -> bool:
    """Whether text is written as a number."""
    text = text.strip(BLANKS)
    return len(text) <= MOST_CHARACTERS and NUMBER.fullmatch(text) is not None


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, of Python or numpy: no bool, and no span of time, one to numpy."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


def as_decimal(value: Any) -> Decimal | None:
    """A number of any type, exactly; None for what is none: other text, NaN, infinity, a bool."""
    if isinstance(value, str):
        return Decimal(value.strip(BLANKS)) if is_number(value) else None
    if isinstance(value, float):  # of numpy's too, where it is a double
        value = Decimal(float.__repr__(value))
    elif isinstance(value, np.floating):
        value = Decimal(str(value))
    elif is_whole(value):
        value = Decimal(int(value))
    return value if isinstance(value, Decimal) and value.is_finite() else None


def exact_units(value: Any, decimals: int) -> int | None:
    """A number in units of its last decimal; None where it is none, has more decimals, or is beyond 1e40."""
    number = as_decimal(value)
    if number is None or (number and number.adjusted() > _FAR):
        return None
    try:
        units = _EXACTLY.scaleb(number, decimals)
    except DecimalException:  # hundreds of digits
        return None
    whole = int(units)
    return whole if whole == units else None


def to_units(value: Any, decimals: int = PRICE_DECIMALS) -> int:
    """One price or quantity in units of its last decimal: integers are taken as such, other numbers by value.

    NOT_A_VALUE where it is no number, isn't exact or doesn't fit 64 bits.
    """
    units = int(value) if is_whole(value) else exact_units(value, decimals)
    return units if units is not None and -(2**63) < units < 2**63 else NOT_A_VALUE


# ------------------------------------------------------------------ columns of them


def text_to_units(column: pa.Array, decimals: int = PRICE_DECIMALS) -> np.ndarray:
    """Text of any of Arrow's types, also in a dictionary, in units of its last decimal (at most 18): int64.

    NOT_A_VALUE where a cell is null, no number, isn't exact or doesn't fit 64 bits. 0.2 us a row.
    """
    if pa.types.is_dictionary(column.type):
        of_each = np.append(text_to_units(column.dictionary, decimals), NOT_A_VALUE)
        return of_each[column.indices.cast(pa.int64()).fill_null(-1).to_numpy()]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.large_string())
    plain = pc.match_substring_regex(column, _PLAIN.format(decimals=decimals)).fill_null(False)
    mask = plain.to_numpy(zero_copy_only=False)
    if mask.all():
        return _plain_units(column, decimals)
    result = np.full(len(column), NOT_A_VALUE)
    result[mask] = _plain_units(column.filter(plain), decimals)
    result[~mask] = _other_units(column.filter(pc.invert(plain)), decimals)
    return result


def _plain_units(column: pa.Array, decimals: int) -> np.ndarray:
    return decimal_digits(column.cast(pa.decimal128(38, decimals)))


def _other_units(column: pa.Array, decimals: int) -> np.ndarray:
    """Text that isn't plain, each different one once; as bytes, for it may be no UTF-8."""
    kind = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
    column = column.cast(kind).dictionary_encode()
    texts = (value.decode(errors="replace") for value in column.dictionary.to_pylist())
    of_each = np.array([*(to_units(text, decimals) for text in texts), NOT_A_VALUE], np.int64)
    return of_each[column.indices.fill_null(-1).to_numpy()]


def decimal_digits(column: pa.Array) -> np.ndarray:
    """The digits of decimal128 without the point (int64); NOT_A_VALUE for nulls and beyond 64 bits."""
    if not len(column):
        return np.zeros(0, np.int64)
    words = np.frombuffer(column.buffers()[1], "<i8").reshape(-1, 2)[column.offset :][: len(column)]
    low, high = words[:, 0], words[:, 1]
    fits = high == low >> 63
    if column.null_count:
        fits &= column.is_valid().to_numpy(zero_copy_only=False)
    return np.where(fits, low, NOT_A_VALUE)


def decimals_to_units(column: pa.Array, decimals: int = PRICE_DECIMALS) -> np.ndarray:
    """Decimals of any width and scale in units of the last of `decimals` (int64), as `text_to_units`."""
    try:
        return decimal_digits(column.cast(pa.decimal128(38, decimals)))
    except pa.ArrowException:  # one has more decimals, or too many digits
        units = (NOT_A_VALUE if v is None else to_units(v, decimals) for v in column.to_pylist())
        return np.fromiter(units, np.int64, len(column))


def floats_to_units(values: np.ndarray, decimals: int = PRICE_DECIMALS) -> np.ndarray:
    """Floats of any width as the shortest decimals of their type, in units of the last decimal: int64.

    NOT_A_VALUE for NaN, infinity, what isn't exact or doesn't fit 64 bits. 30 ns for a double of up to 15
    digits, 0.4 us for others.
    """
    if values.dtype != np.float64:
        return _shortest_units(values, decimals)
    scale = 10**decimals
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(values * scale)
        sure = np.abs(scaled) < _SURE
        units = np.where(sure, scaled, 0).astype("i8")
        result = np.where(sure & (units / scale == values), units, NOT_A_VALUE)
        others = np.flatnonzero(~sure & (np.abs(scaled) <= 2.0**63))
    if others.size:
        result[others] = _shortest_units(values[others], decimals)
    return result


def computed_to_units(values: np.ndarray, decimals: int = PRICE_DECIMALS) -> np.ndarray:
    """As `floats_to_units`, but doubles may be a few steps beside their decimal, as arithmetic leaves them.

    polars divides a column by 1e9 as it multiplies by 1e-9, and makes 9.000000000000001e-09 of 9.
    """
    result = floats_to_units(values, decimals)
    if values.dtype != np.float64 or (beside := np.flatnonzero(result == NOT_A_VALUE)).size == 0:
        return result
    values = values[beside]
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(values * 10**decimals)
        sure = np.abs(scaled) < _SURE
        units = np.where(sure, scaled, 0).astype("i8")
        near = sure & (np.abs(units / 10**decimals - values) <= _STEPS * np.spacing(np.abs(values)))
    result[beside] = np.where(near, units, NOT_A_VALUE)
    return result


def _shortest_units(values: np.ndarray, decimals: int) -> np.ndarray:
    if values.dtype in (np.float32, np.float64):
        return text_to_units(pa.array(values).cast(pa.string()), decimals)  # Arrow writes the shortest
    different, which = np.unique(values, return_inverse=True)
    return np.array([to_units(value, decimals) for value in different], np.int64)[which]
