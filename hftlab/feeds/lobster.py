"""LOBSTER: NASDAQ order flow as CSV, one message per line, no header.

::

    34200.004241176,1,16113575,18,5853300,1
    time, type, order id, size, price x 10,000, direction (the side of the resting order)

========= ============================================= ====================================
type      what happened                                 mbo rows
========= ============================================= ====================================
1         an order rests                                A
2         part of it is cancelled (size = what goes)    C
3         the whole of it is deleted                    C
4         it is executed                                F, then C: only the C changes the book
5         a hidden order is executed                    T, order id 0, side of the aggressor
6         a cross or auction trade                      T, order id 0, side 0
7         a halt marker (price -1, 0, 1)                N, side 0
========= ============================================= ====================================

`sequence` is the 0-based line of the file, flag 128 stands on the last row of each message, and `ts_recv` is
`ts_event`. Times are decimal seconds since midnight in New York with up to twelve decimals; they become
UTC nanoseconds without passing through a float, and what is below a nanosecond is cut off. Row order is
the file's, also where times run backwards.

**Opening state.** A message file begins in the middle of a book. `initial_book` gives a LOBSTER orderbook
file, whose first row seeds the book: R, then one anonymous A per level, the best first, with flag 32 and
sequence -1; their ids are `SEED_ID_BASE` and up. That row is the book *after* message 0, so message 0 stays
only as an N. Executions and cancels of orders that were never added here still tell side and price: they
are given to the anonymous order of that level, if the row had one; others keep an id that no book knows.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from datetime import date as Date
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.codes import MBO_FLAG_LAST, MBO_FLAG_SNAPSHOT, MboAction
from hftlab.errors import FormatError, UsageError
from hftlab.feeds import source
from hftlab.feeds.flow import Flow
from hftlab.inference import free_ids
from hftlab.schema import MBO, code_array

DESCRIPTION = "LOBSTER message files (.csv, .csv.gz, .csv.xz, sample .zip)"

SEED_ID_BASE = 1 << 62  # ids of the anonymous opening orders, unless real ids reach this far
SEED_SEQUENCE = -1
PRICE_UNITS = 100_000  # dollars x 10,000 -> 1e-9
MAX_PRICE = (2**63 - 1) // PRICE_UNITS
NO_LEVEL = 9_999_999_999  # price of an empty level (ask; negative for bid)
ZONE = "America/New_York"

ADD, EXECUTION, HIDDEN, CROSS, HALT = 1, 4, 5, 6, 7
_TIME_DECIMALS = 12
_PS_PER_NS = 1000
_DAY_PS = 86_400 * 10**_TIME_DECIMALS

_A, _C, _F, _R, _T, _N = (MboAction[name] for name in "ACFRTN")
_ACTION = np.array([_N, _A, _C, _C, _F, _T, _T, _N], dtype=np.int8)  # by type
_SIDE = np.array([0, 1, 1, 1, 1, -1, 0, 0], dtype=np.int8)  # times direction, by type
_HAS_ID = np.array([0, 1, 1, 1, 1, 0, 0, 0], dtype=np.int64)  # by type

_NAME = re.compile(r"(?P<symbol>[^_/]+)_(?P<date>\d{4}-\d{2}-\d{2})_.*?(?P<what>message|orderbook)")
_LINE = re.compile(rb"\d+\.\d+,[1-7],-?\d+,-?\d+,-?\d+,-?[01]\r?(\n|$)")
_TIME = re.compile(rb"\d{1,5}(\.\d{0,12})?")
_INTEGER = re.compile(rb"-?\d{1,20}")


class Messages(NamedTuple):
    """The lines of a message file as columns, in the file's own units."""

    time_ps: np.ndarray  # since midnight in New York
    type: np.ndarray
    order_id: np.ndarray
    size: np.ndarray
    price: np.ndarray
    direction: np.ndarray


class Facts(NamedTuple):
    """Columns of an mbo table before they are one."""

    ts_ns: np.ndarray
    action: np.ndarray
    side: np.ndarray
    price: np.ndarray
    size: np.ndarray
    order_id: np.ndarray
    sequence: np.ndarray


class Levels(NamedTuple):
    """One row of an orderbook file: the levels that exist, asks first, best first."""

    side: np.ndarray
    price: np.ndarray
    size: np.ndarray


# ------------------------------------------------------------------ finding the parts


def sniff(path: Path, head: bytes) -> bool:
    """Whether the first line is a LOBSTER message, the archive holds a message file, or the name says so."""
    if source.container(path) == "zip":
        return any(_what(name) == "message" for name in source.members(path))
    return bool(_LINE.match(head)) or _what(source.inner_name(path)) is not None


def load(
    path: Path,
    *,
    format: str | None = None,
    symbols: Iterable[str] | None = None,
    initial_book: str | Path | bool | None = None,
    symbol: str | None = None,
    date: str | Date | None = None,
) -> Flow:
    """Read a message file into an mbo table.

    Parameters: `symbol` and `date` where the file name (or the name inside the archive) doesn't tell them;
    `initial_book` is an orderbook file, or True for the one beside the message file or in the same archive.

    Raises FormatError for a broken file, with the row; UsageError where symbol or date are not known.
    """
    member = _member(path, "message")
    name = member or source.inner_name(path)
    if _what(name) == "orderbook":
        found = "an orderbook file"
        raise FormatError(path, found, "a message file (an orderbook file is given as initial_book)")
    symbol, midnight_ns = _instrument(path, name, symbol, date)
    messages = parse_messages(source.read(path, member), path)
    notes = _quirks(messages)
    if initial_book:
        levels = first_levels(*_orderbook(path, initial_book))
        table, more = _seeded(messages, levels, symbol, midnight_ns)
        notes += more
    else:
        table = _to_table(*_with_removals(_facts(messages, midnight_ns)), symbol)
    return Flow(path, "lobster", "mbo", table, symbols=symbols, notes=notes)


def _what(name: str) -> str | None:
    found = _NAME.search(Path(name).name)
    return found and found["what"]


def _member(path: Path, what: str) -> str | None:
    """Name of the message or orderbook file in a zip archive; None where the file is not an archive."""
    if source.container(path) != "zip":
        return None
    found = [name for name in source.members(path) if _what(name) == what]
    if len(found) != 1:
        raise FormatError(path, f"{len(found)} {what} files in the archive", "exactly one")
    return found[0]


def _orderbook(path: Path, given: str | Path | bool) -> tuple[Path, str | None]:
    """File and archive member of the opening book."""
    if given is not True:
        book = Path(given)
        return book, _member(book, "orderbook")
    if source.container(path) == "zip":
        return path, _member(path, "orderbook")
    book = path.with_name(path.name.replace("_message_", "_orderbook_"))
    if book == path or not book.exists():
        raise UsageError(f"{path}: there is no orderbook file beside it, expected initial_book=FILE")
    return book, None


def _instrument(path: Path, name: str, symbol: str | None, date: str | Date | None) -> tuple[str, int]:
    """The symbol, and its midnight in New York in UTC nanoseconds."""
    told = _NAME.search(Path(name).name)
    symbol = symbol or (told and told["symbol"])
    date = date or (told and told["date"])
    if not symbol or not date:
        missing = " and ".join(what for what, known in (("symbol", symbol), ("date", date)) if not known)
        expected = "a name like AMZN_2012-06-21_34200000_57600000_message_1.csv, or symbol= and date="
        raise UsageError(f"{path}: the file name doesn't tell the {missing}, expected {expected}")
    return symbol, _midnight_ns(path, date)


def _midnight_ns(path: Path, date: str | Date) -> int:
    from zoneinfo import ZoneInfo

    try:
        day = date if isinstance(date, Date) else Date.fromisoformat(date)
    except ValueError:
        raise UsageError(f"{path}: found date {date!r}, expected YYYY-MM-DD") from None
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(ZONE))
    return int(midnight.timestamp()) * 10**9  # a midnight is a whole number of seconds: exact


# ------------------------------------------------------------------ bytes to columns


def parse_messages(data: bytes, path: Path) -> Messages:
    """The lines of a message file as columns.

    Raises FormatError with the first row that is not a message.
    """
    try:
        table = _read_csv(data)
    except pa.ArrowInvalid as error:
        _raise_first_fault(data, path)
        raise FormatError(path, source.said(error), "LOBSTER messages") from error
    time_ps, *others = (table.column(i).combine_chunks() for i in range(6))
    low_words = np.frombuffer(time_ps.buffers()[1], dtype="<i8")[::2]  # 17 digits fit half of 128 bits
    start = time_ps.offset
    messages = Messages(low_words[start : start + len(time_ps)], *(column.to_numpy() for column in others))
    if not _plausible(messages) or any(byte in data for byte in (b"e", b"E", b"x", b"X")):
        _raise_first_fault(data, path)  # Arrow takes 1e3 and 0x1F for numbers, LOBSTER doesn't write them
    return messages


def _read_csv(data: bytes) -> pa.Table:
    """Six columns; time as a decimal, which is what keeps it exact.

    Measured per message on one core and on two: arrow decimal 107 and 54 ns; arrow string, its digits by
    numpy, about 115; polars decimal 76 and 46, but it fills missing fields and rounds a thirteenth digit.
    """
    from pyarrow import csv

    types = [pa.decimal128(17, _TIME_DECIMALS), pa.int8(), pa.int64(), pa.int64(), pa.int64(), pa.int8()]
    names = list(Messages._fields)
    return csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(column_names=names),
        parse_options=csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(column_types=dict(zip(names, types, strict=True)), null_values=[]),
    )


def _plausible(m: Messages) -> bool:
    """Whether every value lies where its column allows."""

    def within(values: np.ndarray, low: int, high: int) -> bool:
        return values.min() >= low and values.max() <= high

    return (
        within(m.type, ADD, HALT)
        and within(m.direction, -1, 1)
        and within(m.time_ps, 0, _DAY_PS - 1)
        and within(m.price, -MAX_PRICE, MAX_PRICE)
        and (m.direction.all() or bool(m.direction[m.type <= HIDDEN].all()))
        and (m.order_id.min() >= 0 or bool((m.order_id[m.type <= EXECUTION] >= 0).all()))
    )


def _raise_first_fault(data: bytes, path: Path) -> None:
    """Go through the lines one by one; slow, and only when something is known to be wrong."""
    for row, line in enumerate(io.BytesIO(data), start=1):
        fault = _fault(line.rstrip(b"\r\n"))
        if fault is not None:
            raise FormatError(path, *fault, row=row)


def _fault(line: bytes) -> tuple[str, str] | None:
    """What is wrong with a line: (found, expected)."""
    fields = line.split(b",")
    if len(fields) != 6:
        plural = "field" if len(fields) == 1 else "fields"
        return f"{len(fields)} {plural}", "6 (time, type, order id, size, price, direction)"
    if not _TIME.fullmatch(fields[0]) or int(fields[0].split(b".")[0]) >= 86_400:
        return _found("time", fields[0]), "seconds since midnight with at most 12 decimals"
    names = ("type", "order id", "size", "price", "direction")
    for name, text in zip(names, fields[1:], strict=True):
        if not _INTEGER.fullmatch(text) or abs(int(text)) >= 2**63:
            return _found(name, text), "an integer of 64 bits"
    kind, order_id, _, price, direction = map(int, fields[1:])
    rules = (
        (ADD <= kind <= HALT, "1 to 7"),
        (order_id >= 0 or kind > EXECUTION, "0 or more"),
        (True, ""),
        (abs(price) <= MAX_PRICE, f"at most {MAX_PRICE} (dollars x 10,000)"),
        (direction in (1, -1) or (direction == 0 and kind > HIDDEN), "1 or -1"),
    )
    for name, text, (holds, expected) in zip(names, fields[1:], rules, strict=True):
        if not holds:
            return _found(name, text), expected
    return None


def _found(name: str, text: bytes) -> str:
    return f"{name} {text[:40]!r}".replace(" b'", " '", 1)


# ------------------------------------------------------------------ columns to facts


def _facts(m: Messages, midnight_ns: int) -> Facts:
    """One fact per message."""
    return Facts(
        ts_ns=m.time_ps // _PS_PER_NS + midnight_ns,
        action=_ACTION[m.type],
        side=m.direction * _SIDE[m.type],
        price=m.price * PRICE_UNITS,
        size=m.size,
        order_id=m.order_id * _HAS_ID[m.type],
        sequence=np.arange(len(m.type)),
    )


def _with_removals(facts: Facts) -> tuple[Facts, np.ndarray]:
    """Each F followed by the C that takes it off the book; and flags that mark each message's last row."""
    rows = np.repeat(facts.sequence, np.where(facts.action == _F, 2, 1))
    removal = np.zeros(len(rows), dtype=bool)
    removal[1:] = rows[1:] == rows[:-1]
    flags = np.full(len(rows), MBO_FLAG_LAST, dtype=np.uint8)
    flags[:-1][removal[1:]] = 0
    facts = Facts(*(column[rows] for column in facts))
    facts.action[removal] = _C
    return facts, flags


def _to_table(facts: Facts, flags: np.ndarray, symbol: str) -> pa.Table:
    ts = pa.array(facts.ts_ns).cast(MBO.field("ts_event").type)
    indices = pa.array(np.zeros(len(flags), dtype=np.int32))
    columns = [
        ts,
        ts,
        pa.DictionaryArray.from_arrays(indices, [symbol]),
        code_array(facts.action, MboAction),
        facts.side,
        facts.price,
        facts.size,
        facts.order_id.view(np.uint64),
        flags,
        facts.sequence,
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=MBO)


def _quirks(m: Messages) -> list[str]:
    """What a reader should know before trusting the times or the book."""
    backwards = int((m.time_ps[1:] < m.time_ps[:-1]).sum())
    by_type = np.bincount(m.type, minlength=HALT + 1)
    counts = [
        (backwards, "messages earlier than the one before (file order is kept)"),
        (by_type[HIDDEN], "executions of hidden orders, which no book shows"),
        (by_type[CROSS], "cross or auction trades"),
        (by_type[HALT], "halt markers"),
    ]
    return [f"{what}: {count:,}" for count, what in counts if count]


# ------------------------------------------------------------------ opening state


def first_levels(path: Path, member: str | None = None) -> Levels:
    """The levels of an orderbook file's first row.

    Raises FormatError where that row is not ask price, ask size, bid price, bid size for each level.
    """
    line = source.head(path, member).split(b"\n", 1)[0].rstrip(b"\r")
    fields = line.split(b",")
    if len(fields) % 4:
        raise FormatError(path, f"{len(fields)} fields", "4 for each level of an orderbook file", row=1)
    wrong = next((text for text in fields if not _INTEGER.fullmatch(text) or abs(int(text)) >= 2**63), None)
    if wrong is not None:
        raise FormatError(path, _found("value", wrong), "an integer", row=1)
    values = np.array(fields).astype(np.int64).reshape(-1, 4)
    ask_price, ask_size, bid_price, bid_size = values[values.any(axis=1)].T
    asks, bids = ask_price != NO_LEVEL, bid_price != -NO_LEVEL
    levels = Levels(
        np.repeat(np.array([-1, 1], dtype=np.int8), [asks.sum(), bids.sum()]),
        np.concatenate([ask_price[asks], bid_price[bids]]),
        np.concatenate([ask_size[asks], bid_size[bids]]),
    )
    _check_order(path, levels)
    return levels


def _check_order(path: Path, levels: Levels) -> None:
    for side, name in ((-1, "ask"), (1, "bid")):
        best_first = -side * levels.price[levels.side == side]
        if (np.diff(best_first) <= 0).any() or (np.abs(best_first) > MAX_PRICE).any():
            raise FormatError(path, f"{name} prices out of order", "an orderbook row, best first", row=1)
    if (levels.size <= 0).any():
        raise FormatError(path, "a level without size", "a positive size at each price", row=1)


def _seeded(m: Messages, levels: Levels, symbol: str, midnight_ns: int) -> tuple[pa.Table, list[str]]:
    """The facts after an opening book, and notes about those it could not help."""
    facts = _facts(m, midnight_ns)
    facts.action[0] = _N  # the opening row already contains message 0
    ids = free_ids(facts.order_id.view(np.uint64), SEED_ID_BASE, len(levels.price)).view(np.int64)
    notes = _give_to_levels(facts, levels, ids)
    opening, opening_flags = _opening(levels, ids, facts.ts_ns[0])
    facts, flags = _with_removals(facts)
    both = Facts(*map(np.concatenate, zip(opening, facts, strict=True)))
    return _to_table(both, np.concatenate([opening_flags, flags]), symbol), notes


def _opening(levels: Levels, ids: np.ndarray, ts_ns: int) -> tuple[Facts, np.ndarray]:
    """R, then one A per level."""
    count = len(ids) + 1
    zero = np.zeros(1, dtype=np.int64)
    facts = Facts(
        ts_ns=np.full(count, ts_ns),
        action=np.array([_R] + [_A] * len(ids), dtype=np.int8),
        side=np.append(np.int8(0), levels.side),
        price=np.append(zero, levels.price * PRICE_UNITS),
        size=np.append(zero, levels.size),
        order_id=np.append(zero, ids),
        sequence=np.full(count, SEED_SEQUENCE),
    )
    flags = np.full(count, MBO_FLAG_SNAPSHOT, dtype=np.uint8)
    flags[-1] |= MBO_FLAG_LAST
    return facts, flags


def _give_to_levels(facts: Facts, levels: Levels, ids: np.ndarray) -> list[str]:
    """Give facts of orders that were never added to the anonymous order at their side and price."""
    names_order = (facts.action == _C) | (facts.action == _F)
    added = facts.order_id[facts.action == _A]
    unknown = np.flatnonzero(names_order & ~np.isin(facts.order_id, added))
    level_at = {key: k for k, key in enumerate(zip(levels.side.tolist(), levels.price.tolist(), strict=True))}
    places = zip(facts.side[unknown].tolist(), (facts.price[unknown] // PRICE_UNITS).tolist(), strict=True)
    level = np.array([level_at.get(place, -1) for place in places], dtype=np.int64)
    found = level >= 0
    facts.order_id[unknown[found]] = ids[level[found]]
    counts = (
        (int(found.sum()), "facts of orders never added here, given to the opening book's level"),
        (int((~found).sum()), "facts of orders that are neither added here nor in the opening book"),
    )
    return [f"{what}: {count:,}" for count, what in counts if count]
