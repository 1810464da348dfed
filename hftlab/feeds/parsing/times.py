"""Times as others write them, as nanoseconds UTC: numbers since 1970 or midnight, ISO text, times of day.

How a column is written is told by its first time and holds for all of them. Nothing goes through a float, and
what is below a nanosecond is cut off.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date as Date
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hftlab.codes import NOT_A_VALUE
from hftlab.errors import UsageError
from hftlab.feeds.parsing import numbers
from hftlab.feeds.parsing.cells import (
    BLANK,
    BadCell,
    as_text,
    at_once,
    checked,
    first_value,
    is_text,
    shown,
    without_blanks,
)
from hftlab.feeds.parsing.numbers import digits_of, is_number

UNITS = {"s": 9, "ms": 6, "us": 3, "ns": 0}  # decimals that a nanosecond has in each

_UNIT_OF_DIGITS = {10: "s", 13: "ms", 16: "us", 19: "ns"}  # of a time since 1970, from 2001 to 2286
_EARLIEST_NS = 10**18  # of times whose unit is told by their digits: 2001-09-09, when seconds got ten of them
_DIGITS = re.compile(r"([0-9]+)(\.[0-9]*)?")
_TIME_OF_DAY = re.compile(r"[0-9]{1,2}:[0-9]{2}")
_ZONED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ].*(Z|[+-][0-9]{2}(:?[0-9]{2})?)$")


class Clock(NamedTuple):
    """How the times of a column are written."""

    unit: str | None = None  # of numbers; None: told by the digits of the first
    zone: str = "UTC"  # of times that don't say theirs
    date: Date | None = None  # of times of a day
    form: Literal["number", "of day", "zoned", "local"] | None = None  # None until there was a time
    guessed: bool = False  # whether the digits of the first told the unit: then they hold for all


def midnight_ns(path: Path, date: str | Date, zone: str) -> int:
    """The beginning of the day that a file is of, in its zone, in UTC.

    Raises UsageError for text that is no day, and for a day that 64 bits of nanoseconds don't reach.
    """
    try:
        day = date if isinstance(date, Date) else Date.fromisoformat(date)
        return int(np.int64(_midnight(day, zone)))
    except (ValueError, TypeError, OverflowError):
        raise UsageError(f"{path}: found date {date!r}, expected YYYY-MM-DD") from None


def _midnight(day: Date, zone: str) -> int:
    from zoneinfo import ZoneInfo

    start = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    return int(start.timestamp()) * 10**9  # a midnight is a whole number of seconds: exact


def settled(clock: Clock, column: pa.Array, where: str) -> Clock:
    """The clock with what the first time of a column tells.

    Raises UsageError where a number may be of any unit, and where a time of day has no day.
    """
    if clock.form is not None:
        return clock
    if pa.types.is_timestamp(column.type):
        return clock._replace(form="local" if column.type.tz is None else "zoned")
    first = first_value(column)
    if first in BLANK:
        first = first_value(without_blanks(column))
    if first is None:
        return clock
    if is_number(first):
        return _number(clock, first, where)
    if _TIME_OF_DAY.match(first):
        if clock.date is None:
            raise UsageError(
                f"{where}: found {shown(first)}, a time of a day, expected date=YYYY-MM-DD with it"
            )
        return clock._replace(form="of day")
    return clock._replace(form="zoned" if _ZONED.match(first) else "local")


def _number(clock: Clock, first: str, where: str) -> Clock:
    digits = _DIGITS.fullmatch(first)
    told = _UNIT_OF_DIGITS.get(len(digits[1])) if digits and clock.date is None else None
    unit = clock.unit or told
    if unit is None:
        raise UsageError(f"{where}: found {shown(first)}, expected time_unit=s, ms, us or ns with it")
    if clock.zone != "UTC" and clock.date is None:
        raise UsageError(
            f"{where}: found numbers and time_zone={clock.zone}, expected date=YYYY-MM-DD with them"
        )
    return clock._replace(unit=unit, form="number", guessed=clock.unit is None)


def times(column: pa.Array, clock: Clock, blank: bool = False) -> np.ndarray:
    """Nanoseconds since the epoch, UTC, by a settled clock.

    With `blank`, what is not given is NOT_A_VALUE. Raises BadCell.
    """
    work, expected = _reader(clock)
    if (result := at_once(column, work)) is not None:
        return result
    column = without_blanks(column)
    if column.null_count and not blank:
        before = column.slice(0, pc.index(column.is_null(), True).as_py())
        checked(before, work, expected)
        raise BadCell(len(before), "''", expected)
    return checked(column, work, expected)


def _reader(clock: Clock) -> tuple[Callable[[pa.Array], np.ndarray], str]:
    """How a column is read, and what its cells look like."""
    if clock.form == "number":
        assert clock.unit is not None
        since = f"midnight of {clock.date}" if clock.date else "1970"
        expected = f"a number of {clock.unit} since {since}"
        start = _midnight(clock.date, clock.zone) if clock.date else 0
        if clock.guessed:
            digits = next(count for count, unit in _UNIT_OF_DIGITS.items() if unit == clock.unit)
            expected += f" of {digits} digits, like the first (time_unit={clock.unit} takes others)"
        earliest = _EARLIEST_NS if clock.guessed else None
        return partial(_counted, unit=clock.unit, start=start, earliest=earliest), expected
    if clock.form == "of day":
        return partial(_of_day, clock=clock), "a time like 09:30:00.123456789"
    if clock.form == "zoned":
        return _zoned, "a time like 2024-01-31T09:30:00.123456789Z"
    where = "" if clock.zone == "UTC" else f" that {clock.zone} has once"
    return partial(_local, zone=clock.zone), f"a time like 2024-01-31T09:30:00.123456789{where}"


def _counted(column: pa.Array, unit: str, start: int, earliest: int | None) -> np.ndarray:
    """So many units after a moment; what is before `earliest` has fewer digits and is of another unit."""
    counts = _nanoseconds(column, UNITS[unit])
    given = counts != NOT_A_VALUE
    if start and np.abs(counts[given]).max(initial=0) > 2**62:
        raise OverflowError
    if earliest is not None and counts[given].min(initial=earliest) < earliest:
        raise OverflowError
    return np.where(given, counts + start * given, NOT_A_VALUE)


def _nanoseconds(column: pa.Array, decimals: int) -> np.ndarray:
    """Numbers times a power of ten, what is below one cut off."""
    if is_text(column.type):
        return numbers.units_of(as_text(column), decimals, cut=True)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.decimal128(38, decimals), safe=False)
    return digits_of(column.cast(pa.decimal128(38, decimals)))


def _zoned(column: pa.Array) -> np.ndarray:
    return _ticks(column.cast(pa.timestamp("ns", "UTC")))


def _local(column: pa.Array, zone: str) -> np.ndarray:
    """Times that say no zone; one that a clock change makes mean two moments, or none, is refused."""
    column = column.cast(pa.timestamp("ns"))
    return _ticks(column if zone == "UTC" else pc.assume_timezone(column, zone))


def _of_day(column: pa.Array, clock: Clock) -> np.ndarray:
    texts = column.cast(pa.time64("ns")).cast(pa.string()) if pa.types.is_time(column.type) else column
    texts = pc.replace_substring_regex(texts, r"^(\d):", r"0\1:")
    return _local(pc.binary_join_element_wise(f"{clock.date}T", texts, ""), clock.zone)


def _ticks(column: pa.Array) -> np.ndarray:
    return column.cast(pa.int64()).fill_null(NOT_A_VALUE).to_numpy()
