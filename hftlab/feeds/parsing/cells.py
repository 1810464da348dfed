"""Cells of somebody else's table as the columns of ours: exact, or an error that names the row.

Every function takes one Arrow column as it was read (text, dictionaries of text, integers, floats, decimals,
timestamps) and works on all of it at once. Only when that fails is the first cell at fault looked for, by
halving. Floats are read as the shortest decimal that means them, so that 0.1 is a tenth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hftlab.codes import NOT_A_VALUE, PRICE_SCALE, Code
from hftlab.errors import UsageError
from hftlab.feeds.parsing import numbers
from hftlab.feeds.parsing.numbers import digits_of

BLANK = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "none")  # what other tools write for nothing
_FLOAT_WHOLE = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}  # beyond it digits are lost
LOST = ": a float beyond 2^53 has lost digits"
_EXPONENT = r"^[+-]?[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]+$"
_POINT = r"^[+-]?[0-9]+\.[0-9]*$"


class BadCell(Exception):
    """A cell that can't be what its column says: row within the column, what was found, what was expected."""

    def __init__(self, row: int, found: str, expected: str) -> None:
        super().__init__(f"row {row}: found {found}, expected {expected}")
        self.row, self.found, self.expected = row, found, expected


# ------------------------------------------------------------------ one column, or its first fault


def as_text(column: pa.Array) -> pa.Array:
    """Any column as text; floats by their shortest decimal."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column if column.type == pa.string() else column.cast(pa.string())


def without_blanks(column: pa.Array, blanks: tuple[str, ...] = BLANK) -> pa.Array:
    """Nulls where text says nothing; floats as text."""
    if not is_text(column.type) and not pa.types.is_floating(column.type):
        return column
    column = as_text(column)
    blank = pc.is_in(column, pa.array(blanks))
    return pc.if_else(blank, pa.scalar(None, pa.string()), column) if pc.any(blank).as_py() else column


def first_value(column: pa.Array) -> str | None:
    """The first cell that is not blank, as text."""
    column = column.drop_null()
    return None if not len(column) else as_text(column.slice(0, 1))[0].as_py()


def is_text(kind: pa.DataType) -> bool:
    """Whether cells of a type are text, in a dictionary or not."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def at_once(column: pa.Array, work: Callable[[pa.Array], np.ndarray]) -> np.ndarray | None:
    """The work done on a column as it is, None where it can't be.

    Looking for blanks costs as much as the work. A blank is no number and no time, so that what can be done
    has none. Floats aren't taken as they are.
    """
    if column.null_count or not len(column) or pa.types.is_floating(column.type):
        return None
    if pa.types.is_dictionary(column.type):
        values = None if column.dictionary.null_count else _done(column.dictionary, work)
        return None if values is None else values[column.indices.to_numpy()]
    return _done(column, work)


def checked(column: pa.Array, work: Callable[[pa.Array], np.ndarray], expected: str) -> np.ndarray:
    """The work done on a column; BadCell with the first cell it can't be done on."""
    if not len(column):
        return np.zeros(0, np.int64)
    if (result := _done(column, work)) is not None:
        return result
    good, bad = 0, len(column)  # rows that are known to do, rows among which one doesn't
    while bad - good > 1:
        middle = (good + bad) // 2
        if _done(column.slice(good, middle - good), work) is None:
            bad = middle
        else:
            good = middle
    raise BadCell(good, shown(column[good].as_py() if column[good].is_valid else ""), expected)


def _done(column: pa.Array, work: Callable[[pa.Array], np.ndarray]) -> np.ndarray | None:
    try:
        return work(column)
    except (pa.ArrowException, ValueError, OverflowError, ArithmeticError):
        return None


def shown(value: object) -> str:
    """A cell's content, fit for a line."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= 40 else text[:37] + "...")


# ------------------------------------------------------------------ numbers


def price_factor(scale: Fraction) -> Fraction:
    """From their units per 1.0 to ours."""
    return Fraction(PRICE_SCALE) / scale


def scaled(column: pa.Array, factor: Fraction, expected: str) -> np.ndarray:
    """Numbers times a factor, where that is a whole number of 64 bits; NOT_A_VALUE for nothing."""
    decimals = len(str(factor.numerator)) - 1
    is_power = factor.denominator == 1 and factor == 10**decimals and decimals <= 18
    work = partial(_shifted, decimals=decimals) if is_power else partial(_multiplied, factor=factor)
    if (result := at_once(column, work)) is not None:
        return result
    column = without_blanks(column)
    if pa.types.is_null(column.type):
        return np.full(len(column), NOT_A_VALUE)
    try:
        return checked(column, work, expected)
    except BadCell as error:
        text = as_text(column.slice(error.row, 1))[0].as_py()
        if not numbers.is_beyond(text or "", factor):
            raise
        raise BadCell(error.row, error.found, _within(text, factor)) from None


def _within(text: str, factor: Fraction) -> str:
    """What a number beyond 64 bits must be; the limits are cut to the decimals that a unit has."""
    most = numbers.LARGEST / factor
    limit = f"{most.numerator // most.denominator}" if most.denominator == 1 else _decimal(most)
    small = text.lstrip().startswith("-")
    return f"at least -{limit}: this is too small" if small else f"at most {limit}: this is too large"


def _decimal(number: Fraction) -> str:
    """A positive number with nine decimals, what is below cut off."""
    whole, part = divmod(number.numerator * 10**9 // number.denominator, 10**9)
    return f"{whole}.{part:09d}".rstrip("0").rstrip(".")


def _shifted(column: pa.Array, decimals: int) -> np.ndarray:
    """Numbers with so many decimals, as integers of the last of them."""
    if is_text(column.type):
        return numbers.units_of(as_text(column), decimals)
    return digits_of(column.cast(pa.decimal128(38, decimals)))


def _multiplied(column: pa.Array, factor: Fraction) -> np.ndarray:
    """The same for a factor that is no power of ten, a number at a time."""
    result = np.empty(len(column), np.int64)
    for row, text in enumerate(as_text(column).to_pylist()):
        result[row] = NOT_A_VALUE if text is None else numbers.whole(numbers.fraction_of(text) * factor)
    return result


def integers(column: pa.Array, low: int, high: int, blank: int | None, expected: str) -> np.ndarray:
    """Whole numbers within bounds, in the bits of an int64; `blank` stands for nothing, None forbids it.

    A float is one up to 2^53; beyond it has lost digits, and so has text that a float was written as: with an
    exponent, or with a point behind so many digits.
    """
    kind = pa.uint64() if high > 2**63 - 1 else pa.int64()

    def work(column: pa.Array) -> np.ndarray:
        if column.null_count and blank is None:
            raise ValueError
        values = _whole(column, kind).fill_null(blank or 0).to_numpy()
        if values.size and (values.min() < low or values.max() > high):
            raise OverflowError
        return values.view(np.int64)

    if (result := at_once(column, work)) is not None:
        return result
    column = without_nan(column) if pa.types.is_floating(column.type) else without_blanks(column)
    if pa.types.is_null(column.type):
        column = column.cast(pa.int64())
    try:
        return checked(column, work, expected)
    except BadCell as error:
        if not _lost_digits(column.slice(error.row, 1)):
            raise
        raise BadCell(error.row, error.found, f"{expected}{LOST}") from None


def without_nan(column: pa.Array) -> pa.Array:
    """Floats with nulls for what is no number."""
    nan = pc.fill_null(pc.is_nan(column), False)
    return pc.if_else(nan, pa.scalar(None, column.type), column) if pc.any(nan).as_py() else column


def _whole(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Whole numbers of a type, from any type that says them exactly."""
    if pa.types.is_floating(column.type):
        if _lost_digits(column):
            raise OverflowError
        return column.cast(kind)
    if not is_text(column.type):
        exact = column.cast(pa.decimal128(38, 0)) if pa.types.is_decimal(column.type) else column
        return exact.cast(kind)
    column = as_text(column)
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:  # 12.0, which a float may have been
        if pc.any(pc.match_substring_regex(column, _EXPONENT, ignore_case=True)).as_py() or _lost_digits(
            column
        ):
            raise
        null = column.is_null().to_numpy(zero_copy_only=False)
        return pa.array(numbers.units_of(column, 0), mask=null).cast(kind)


def _lost_digits(column: pa.Array) -> bool:
    """Whether some cell is a float beyond its whole numbers, or text of one."""
    if pa.types.is_floating(column.type):
        return (pc.max(pc.abs(column)).as_py() or 0) > _FLOAT_WHOLE[column.type]
    return is_text(column.type) and first_of_a_float(column) is not None


def first_of_a_float(column: pa.Array) -> int | None:
    """The first text of a float that has lost digits of a whole number: 8.38e+18, 9007199254740993.0.

    Names of letters and digits may look like 12e7, so an exponent counts with a point before it or a sign.
    """
    column = as_text(column)
    written = pc.or_(
        pc.match_substring_regex(column, _EXPONENT, ignore_case=True),
        pc.match_substring_regex(column, _POINT),
    )
    for row in np.flatnonzero(pc.fill_null(written, False).to_numpy(zero_copy_only=False)).tolist():
        digits, exponent, power = column[row].as_py().lower().partition("e")
        whole, point, _ = digits.partition(".")
        if (exponent and (point or power[0] == "+")) or (not exponent and _is_beyond_a_float(whole)):
            return row
    return None


def _is_beyond_a_float(digits: str) -> bool:
    return len(digits) > 20 or abs(int(digits)) > _FLOAT_WHOLE[pa.float64()]


def has_decimals(column: pa.Array) -> bool | None:
    """Whether any number is written with a decimal point; None where there is no number at all."""
    column = without_blanks(column).drop_null()
    if not len(column):
        return None
    if is_text(column.type):
        return bool(pc.any(pc.match_substring_regex(column, "[.eE]")).as_py())
    return not pa.types.is_integer(column.type)


# ------------------------------------------------------------------ codes and names


def codes(column: pa.Array, code: type[Code], given: Mapping[str, Any], blank: int | None) -> np.ndarray:
    """Codes as int8, from the `given` names for them, from the code's own names or from its integers.

    `blank` stands for nothing, None forbids it.
    """
    meanings = {str(name): _meaning(code, value) for name, value in given.items()}

    def of(text: str | None) -> int | None:
        if text in meanings:
            return meanings[text]
        if text is None or text in BLANK:
            return blank
        return _parsed(code, text)

    names = ", ".join(dict.fromkeys([*meanings, *code.__members__]))
    return _looked_up(column, of, np.int8, f"one of {names}")


def _meaning(code: type[Code], value: Any) -> int:
    """What a name was said to stand for. Raises UsageError where it is no code."""
    meaning = _parsed(code, str(value))
    if meaning is None:
        expected = ", ".join(code.__members__)
        raise UsageError(f"values: found {value!r}, expected one of {expected}")
    return meaning


def _parsed(code: type[Code], text: str) -> int | None:
    text = text.strip()
    if code.__name__ == "Side" and text in ("N", "0"):
        return 0
    try:
        return int(code.parse(int(text) if re.fullmatch(r"[+-]?[0-9]{1,3}", text) else text))
    except ValueError:
        return None


def booleans(column: pa.Array, given: Mapping[str, Any]) -> np.ndarray:
    """Flags, from true and false, yes and no, 1 and 0, or the `given` names."""
    words = {"true": True, "t": True, "yes": True, "y": True, "1": True}
    words |= {"false": False, "f": False, "no": False, "n": False, "0": False}
    meanings = {str(name): words.get(str(value).lower()) for name, value in given.items()}

    def of(text: str | None) -> bool | None:
        if text in meanings:
            return meanings[text]
        return False if text is None or text in BLANK else words.get(text.lower())

    return _looked_up(column, of, np.bool_, "true or false")


def names(column: pa.Array, given: Mapping[str, Any]) -> pa.DictionaryArray:
    """Names of instruments; nothing is none of them."""
    texts = {str(name): str(value) for name, value in given.items()}

    def of(text: str | None) -> str | None:
        return texts.get(text, text) if text else None

    column = _as_dictionary(column)
    meanings = [of(text) for text in column.dictionary.to_pylist()]
    if column.null_count:
        raise BadCell(pc.index(column.is_null(), True).as_py(), "''", "the name of an instrument")
    _refuse_unknown(column, meanings, "the name of an instrument")
    unique = list(dict.fromkeys(name for name in meanings if name is not None))
    place = {name: number for number, name in enumerate(unique)}
    table = np.array([place.get(name, 0) for name in meanings] or [0], np.int32)
    indices = column.indices.to_numpy() if len(column) else np.zeros(0, np.int64)
    return pa.DictionaryArray.from_arrays(pa.array(table[indices]), pa.array(unique, pa.string()))


def _looked_up(column: pa.Array, of: Callable[[str | None], Any], kind: type, expected: str) -> np.ndarray:
    column = _as_dictionary(column)
    meanings = [of(text) for text in column.dictionary.to_pylist()]
    nothing = of(None)
    if column.null_count and nothing is None:
        raise BadCell(pc.index(column.is_null(), True).as_py(), "''", expected)
    _refuse_unknown(column, meanings, expected)
    table = np.array([0 if value is None else value for value in meanings] + [nothing or 0], kind)
    indices = column.indices.fill_null(len(meanings)).to_numpy()
    return table[indices]


def _as_dictionary(column: pa.Array) -> pa.DictionaryArray:
    """A dictionary of the texts in a column."""
    if pa.types.is_dictionary(column.type):
        indices, texts = column.indices.cast(pa.int32()), as_text(column.dictionary)
        return pa.DictionaryArray.from_arrays(indices, texts)
    return as_text(column).dictionary_encode()


def _refuse_unknown(column: pa.DictionaryArray, meanings: list[Any], expected: str) -> None:
    unknown = [position for position, value in enumerate(meanings) if value is None]
    if unknown:
        rows = pc.is_in(column.indices, pa.array(unknown, column.indices.type))
        row = pc.index(rows, True).as_py()
        if row >= 0:
            raise BadCell(row, shown(column[row].as_py()), expected)
