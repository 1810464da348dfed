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
5         a hidden order is executed                    T, order id 0, side of the aggressor; side 0
                                                        and flag 2 since 2014-07-14
6         a cross or auction trade                      T, order id 0, side 0
7         a halt marker (price -1, 0, 1)                N, side 0
========= ============================================= ====================================

NASDAQ masks the side of hidden orders since 2014-07-14: since then type 5 tells none.

`sequence` is the 0-based line of the file, flag 128 stands on the last row of each message, and `ts_recv` is
`ts_event`. Times are decimal seconds since midnight in New York with up to twelve decimals; they become
UTC nanoseconds without passing through a float, and what is below a nanosecond is cut off. Row order is
the file's, also where times run backwards.

**Opening state.** A message file begins in the middle of a book. `initial_book` gives a LOBSTER orderbook
file, whose first row seeds the book: R, then one anonymous A per level, the best first, with flag 32 and
sequence -1; their ids are `SEED_ID_BASE` and up. That row is the book *after* message 0, so message 0 stays
only as an N. Executions and cancels of orders that were never added here still tell side and price: they
are given to the anonymous order of that level, if the row had one; others keep an id that no book knows.

**Memory.** A file of up to 128 MB (a compressed one of 16 MB) is read when it is opened, and so is any with
an opening book. Of a larger one opening reads the first lines; the rest is read in bounded memory by
`Flow.batches`, and what is odd about it is counted in the notes as that goes on.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from datetime import date as Date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.codes import MBO_FLAG_LAST, MBO_FLAG_SNAPSHOT, MboAction
from hftlab.errors import FormatError, UsageError, optional_name
from hftlab.feeds.flow import Fault, Flow, free_ids, without_end
from hftlab.feeds.parsing import containers, times
from hftlab.schema import MBO, code_array

if TYPE_CHECKING:
    from mmap import mmap

    from hftlab.kernels.feeds.lobster import Rows

DESCRIPTION = "LOBSTER message files (.csv, .csv.gz, .csv.xz, .csv.zst, sample .zip)"

SEED_ID_BASE = 1 << 62  # ids of the anonymous opening orders, unless real ids reach this far
SEED_SEQUENCE = -1
PRICE_UNITS = 100_000  # dollars x 10,000 -> 1e-9
MAX_PRICE = (2**63 - 1) // PRICE_UNITS
NO_LEVEL = 9_999_999_999  # price of an empty level (ask; negative for bid)
ZONE = "America/New_York"

ADD, EXECUTION, HIDDEN, CROSS, HALT = 1, 4, 5, 6, 7
DAY_SECONDS = 86_400

EAGER_BYTES = 1 << 27  # of a file that is read when it is opened
PACKED = 8  # times as many bytes as the file has, where it is compressed
FIRST_ROWS = 1_000  # of a larger file: what opening looks at
FEW_BYTES = 16  # of a row, in a guess how many a file has: usual ones take 40
MANY_ROWS = 1 << 20  # the guess for a compressed file
MAX_LINE = 1 << 16  # bytes; no message has more than 140
ALL = sys.maxsize

BOOKS = {"orderbook": "an orderbook file", "bbo": "a file of best prices"}
_MESSAGES = (
    "a message file (published books are truth for `hftlab compare --truth`, or open one as initial_book)"
)

_A, _C, _F, _R, _N = (MboAction[name] for name in "ACFRN")

_NAME = re.compile(r"(?P<symbol>[^_/]+)_(?P<date>\d{4}-\d{2}-\d{2})_.*?(?P<what>bbo|message|orderbook)")
_LINE = re.compile(rb"\d+\.\d+,[1-7],-?\d+,-?\d+,-?\d+,-?[01]\r?(\n|$)")
_TIME = re.compile(rb"\d{1,5}(\.\d{0,12})?")
_INTEGER = re.compile(rb"-?\d{1,20}")


class Levels(NamedTuple):
    """One row of an orderbook file: the levels that exist, asks first, best first."""

    side: np.ndarray
    price: np.ndarray
    size: np.ndarray


# ------------------------------------------------------------------ finding the parts


def sniff(path: Path, head: bytes) -> bool:
    """Whether it begins with a LOBSTER message or book, or a name says so, its own or one in the archive."""
    if containers.container(path) == "zip":
        return any(map(_what, containers.members(path)))
    if _LINE.match(head) or _what(containers.inner_name(path)):
        return True
    return _is_book(head.split(b"\n", 1)[0])


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
    member = _messages(path)
    symbol, midnight_ns = _instrument(path, member or containers.inner_name(path), symbol, date)
    messages = Messages(path, member, midnight_ns)
    if initial_book:
        book, member = _orderbook(path, initial_book)
        levels = first_levels(book, member)
        rows, notes = _seeded(messages.all(), levels)
        return Flow(
            path,
            "lobster",
            "mbo",
            _to_table(rows, symbol),
            symbols=symbols,
            notes=messages.notes + notes,
            faults=messages.faults + _faults_of_book(book, member),
        )
    larger = 1 if containers.container(path) == "text" else PACKED
    if path.stat().st_size * larger <= EAGER_BYTES:
        table = _to_table(messages.all(), symbol)
        return Flow(
            path, "lobster", "mbo", table, symbols=symbols, notes=messages.notes, faults=messages.faults
        )
    next(messages.parts(FIRST_ROWS))  # raises where it begins with something else

    def batches(count: int) -> Iterator[pa.Table]:
        return map(partial(_to_table, symbol=symbol), messages.parts(count))

    return Flow(
        path,
        "lobster",
        "mbo",
        lambda: _to_table(messages.all(), symbol),
        symbols=symbols,
        notes=messages.notes,
        faults=messages.faults,
        batches=batches,
    )


def _what(name: str) -> str | None:
    found = _NAME.search(Path(name).name)
    return found and found["what"]


def _messages(path: Path) -> str | None:
    """Name of the message file in a zip archive; None where the file is not an archive.

    Raises FormatError where the name or the first line says that it holds books instead.
    """
    if containers.container(path) != "zip":
        if (what := _what(containers.inner_name(path))) in BOOKS:
            raise FormatError(path, BOOKS[what], _MESSAGES)
        if _is_book(containers.head(path).split(b"\n", 1)[0]):
            raise FormatError(path, BOOKS["orderbook"], _MESSAGES, row=1)
        return None
    kinds = [_what(name) for name in containers.members(path)]
    if "message" not in kinds and (books := next(filter(None, kinds), None)):
        raise FormatError(path, f"{BOOKS[books]} alone in the archive", _MESSAGES)
    return _member(path, "message")


def _member(path: Path, what: str) -> str | None:
    """Name of the one file of a kind in a zip archive; None where the file is not an archive."""
    if containers.container(path) != "zip":
        return None
    found = [name for name in containers.members(path) if _what(name) == what]
    if len(found) != 1:
        raise FormatError(path, f"{len(found)} {what} files in the archive", "exactly one")
    return found[0]


def _orderbook(path: Path, given: str | Path | bool) -> tuple[Path, str | None]:
    """File and archive member of the opening book."""
    if given is not True:
        book = Path(given)
        return book, _member(book, "orderbook")
    if containers.container(path) == "zip":
        return path, _member(path, "orderbook")
    book = path.with_name(path.name.replace("_message_", "_orderbook_"))
    if book == path or not book.exists():
        raise UsageError(f"{path}: there is no orderbook file beside it, expected initial_book=FILE")
    return book, None


def _instrument(path: Path, name: str, symbol: str | None, date: str | Date | None) -> tuple[str, int]:
    """The symbol, and its midnight in New York in UTC nanoseconds."""
    told = _NAME.search(Path(name).name)
    symbol = optional_name("symbol", symbol) or (told and told["symbol"])
    date = date or (told and told["date"])
    if not symbol or not date:
        missing = " and ".join(what for what, known in (("symbol", symbol), ("date", date)) if not known)
        expected = "a name like AMZN_2012-06-21_34200000_57600000_message_1.csv, or symbol= and date="
        raise UsageError(f"{path}: the file name doesn't tell the {missing}, expected {expected}")
    return symbol, times.midnight_ns(path, date, ZONE)


# ------------------------------------------------------------------ bytes to columns


class Messages:
    """The messages of a file as rows of an mbo table, read from its beginning each time somebody asks."""

    def __init__(self, path: Path, member: str | None, midnight_ns: int) -> None:
        self.path, self.midnight_ns = path, midnight_ns
        self.notes: list[str] = []  # about what was read last
        self.faults: list[Fault] = []
        self._member = member
        self._unended = False  # whether the last line had no end

    def all(self) -> Rows:
        """All rows at once. Raises FormatError with the first line that is not a message."""
        return next(self.parts(ALL))

    def parts(self, count: int) -> Iterator[Rows]:
        """`count` rows at a time, the last time what is left.

        Raises FormatError with the first line that is not a message, after the whole parts before it.
        """
        from hftlab.kernels.feeds import lobster

        tally = np.zeros(lobster.TALLY, np.int64)
        room = min(count, self._guess())
        rows, filled = lobster.make_rows(room + 1), 0  # an execution takes two
        for data, place, stop in self._pieces():
            array, status = np.frombuffer(data, np.uint8), lobster.FULL
            while status == lobster.FULL:
                status, place, filled = lobster.read_lines(
                    array, place, stop, rows, filled, tally, self.midnight_ns, PRICE_UNITS
                )
                if status == lobster.BROKEN:
                    raise self._broken(data, place, int(tally[lobster.LINES]) + 1)
                if status == lobster.FULL and filled < count:
                    room = min(2 * room, count)
                    rows = _moved(rows, 0, filled, room + 1)
                elif filled >= count:
                    self._note(tally)
                    yield _cut(rows, count)
                    rows, filled = _moved(rows, count, filled, room + 1), filled - count
            self._note(tally)
        lines = int(tally[lobster.LINES])
        self.faults[:] = [without_end(lines)] if self._unended else []
        if not lines:
            raise FormatError(self.path, f"nothing in {self._member or 'it'}", "order flow data")
        if filled:
            yield _cut(rows, filled)

    def _guess(self) -> int:
        """Rows to make room for: more than there are in a usual file, at least one."""
        size = self.path.stat().st_size
        return 1 + (size // FEW_BYTES if containers.container(self.path) == "text" else MANY_ROWS)

    def _pieces(self) -> Iterator[tuple[bytes | mmap, int, int]]:
        """(bytes, where whole lines begin in them, where they end), in order; the last line gets its end."""
        rest, begin = b"", None
        for block in self._blocks():
            marked = begin is None and block[:3] == containers.BYTE_ORDER_MARK  # of what is not compressed
            begin = 3 if marked else 0
            start, stop = block.find(b"\n", begin) + 1, max(begin, block.rfind(b"\n") + 1)
            if rest and start:
                yield rest + block[:start], 0, len(rest) + start
                rest = b""
            else:
                start = begin
            if start < stop:
                yield block, start, stop
            rest += block[stop : stop + MAX_LINE + 1]
            if len(rest) > MAX_LINE:
                yield rest + b"\n", 0, len(rest) + 1
                return
        self._unended = bool(rest) and not rest.endswith(b"\r")
        if rest:
            yield rest + b"\n", 0, len(rest) + 1

    def _blocks(self) -> Iterator[bytes | mmap]:
        """The content in pieces; what isn't compressed is not copied."""
        if containers.container(self.path) != "text":
            yield from containers.blocks(self.path, self._member)
            return
        for offset in range(0, self.path.stat().st_size, containers.WINDOW_BYTES):
            yield containers.mapped(self.path, offset)[0]  # whole pages: nothing precedes the offset

    def _broken(self, data: bytes | mmap, place: int, row: int) -> FormatError:
        """What is wrong with a line."""
        line = data[place : data.find(b"\n", place)]
        return FormatError(self.path, *_fault(line.removesuffix(b"\r")), row=row)

    def _note(self, tally: np.ndarray) -> None:
        """What a reader should know before trusting the times or the book."""
        from hftlab.kernels.feeds.lobster import BACKWARDS, TYPES

        counts = [
            (tally[BACKWARDS], "messages earlier than the one before (file order is kept)"),
            (tally[TYPES + HIDDEN], "executions of hidden orders, which no book shows"),
            (tally[TYPES + CROSS], "cross or auction trades"),
            (tally[TYPES + HALT], "halt markers"),
        ]
        self.notes[:] = [f"{what}: {count:,}" for count, what in counts if count]


def _cut(rows: Rows, count: int) -> Rows:
    return type(rows)(*(column[:count] for column in rows))


def _moved(rows: Rows, start: int, stop: int, room: int) -> Rows:
    """Some rows at the beginning of new ones."""
    from hftlab.kernels.feeds.lobster import make_rows

    moved = make_rows(room)
    for old, new in zip(rows, moved, strict=True):
        new[: stop - start] = old[start:stop]
    return moved


def _fault(line: bytes) -> tuple[str, str]:
    """What is wrong with a line that is no message: (found, expected)."""
    fields = line.split(b",")
    if len(fields) != 6:
        plural = "field" if len(fields) == 1 else "fields"
        return f"{len(fields)} {plural}", "6 (time, type, order id, size, price, direction)"
    if not _TIME.fullmatch(fields[0]) or int(fields[0].split(b".")[0]) >= DAY_SECONDS:
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
    broken = next(i for i, (holds, _) in enumerate(rules) if not holds)
    return _found(names[broken], fields[1 + broken]), rules[broken][1]


def _found(name: str, text: bytes) -> str:
    return f"{name} {text[:40]!r}".replace(" b'", " '", 1)


def _to_table(rows: Rows, symbol: str) -> pa.Table:
    ts = pa.array(rows.ts_ns).cast(MBO.field("ts_event").type)
    indices = pa.array(np.zeros(len(rows.flags), dtype=np.int32))
    columns = [
        ts,
        ts,
        pa.DictionaryArray.from_arrays(indices, [symbol]),
        code_array(rows.action, MboAction),
        rows.side,
        rows.price,
        rows.size,
        rows.order_id.view(np.uint64),
        rows.flags,
        rows.sequence,
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=MBO)


# ------------------------------------------------------------------ opening state


def first_levels(path: Path, member: str | None = None) -> Levels:
    """The levels of an orderbook file's first row.

    Raises FormatError where that row is not ask price, ask size, bid price, bid size for each level.
    """
    return _levels(path, containers.head(path, member).split(b"\n", 1)[0].rstrip(b"\r"))


def _faults_of_book(path: Path, member: str | None) -> list[Fault]:
    """Whether the first row of an orderbook file is one that may be cut."""
    head = containers.head(path, member)
    return [] if b"\n" in head or b"\r" in head else [without_end(1, path)]


def _levels(path: Path, line: bytes) -> Levels:
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


def _is_book(line: bytes) -> bool:
    """Whether a line is a row of an orderbook file: levels in order, and the best ask above the best bid."""
    try:
        levels = _levels(Path(), line.removesuffix(b"\r"))
    except FormatError:
        return False
    asks, bids = levels.price[levels.side < 0], levels.price[levels.side > 0]
    return asks.size > 0 and bids.size > 0 and bool(asks[0] > bids[0])


def _check_order(path: Path, levels: Levels) -> None:
    for side, name in ((-1, "ask"), (1, "bid")):
        best_first = -side * levels.price[levels.side == side]
        if (np.diff(best_first) <= 0).any() or (np.abs(best_first) > MAX_PRICE).any():
            raise FormatError(path, f"{name} prices out of order", "an orderbook row, best first", row=1)
    if (levels.size <= 0).any():
        raise FormatError(path, "a level without size", "a positive size at each price", row=1)


def _seeded(rows: Rows, levels: Levels) -> tuple[Rows, list[str]]:
    """The rows after an opening book, and notes about those it could not help."""
    rows = _without_first(rows)
    ids = free_ids(rows.order_id.view(np.uint64), SEED_ID_BASE, len(levels.price)).view(np.int64)
    notes = _give_to_levels(rows, levels, ids)
    opening = _opening(type(rows), levels, ids, rows.ts_ns[0])
    return type(rows)(*map(np.concatenate, zip(opening, rows, strict=True))), notes


def _without_first(rows: Rows) -> Rows:
    """Message 0 as one row that changes nothing: the opening book already contains it."""
    first = int((rows.sequence[:2] == 0).sum()) - 1  # an execution has two rows
    rows = type(rows)(*(column[first:] for column in rows))
    rows.action[0] = _N
    return rows


def _opening(make: type[Rows], levels: Levels, ids: np.ndarray, ts_ns: int) -> Rows:
    """R, then one A per level."""
    count = len(ids) + 1
    zero = np.zeros(1, dtype=np.int64)
    flags = np.full(count, MBO_FLAG_SNAPSHOT, dtype=np.uint8)
    flags[-1] |= MBO_FLAG_LAST
    return make(
        ts_ns=np.full(count, ts_ns),
        action=np.array([_R] + [_A] * len(ids), dtype=np.int8),
        side=np.append(np.int8(0), levels.side),
        price=np.append(zero, levels.price * PRICE_UNITS),
        size=np.append(zero, levels.size),
        order_id=np.append(zero, ids),
        flags=flags,
        sequence=np.full(count, SEED_SEQUENCE),
    )


def _give_to_levels(rows: Rows, levels: Levels, ids: np.ndarray) -> list[str]:
    """Give rows of orders that were never added to the anonymous order at their side and price."""
    names_order = (rows.action == _C) | (rows.action == _F)
    added = rows.order_id[rows.action == _A]
    unknown = np.flatnonzero(names_order & ~np.isin(rows.order_id, added))
    level_at = {key: k for k, key in enumerate(zip(levels.side.tolist(), levels.price.tolist(), strict=True))}
    places = zip(rows.side[unknown].tolist(), (rows.price[unknown] // PRICE_UNITS).tolist(), strict=True)
    level = np.array([level_at.get(place, -1) for place in places], dtype=np.int64)
    found = level >= 0
    rows.order_id[unknown[found]] = ids[level[found]]
    whole = rows.flags[unknown] == MBO_FLAG_LAST  # an execution counts once
    counts = (
        (int((found & whole).sum()), "facts of orders never added here, given to the opening book's level"),
        (int((~found & whole).sum()), "facts of orders that are neither added here nor in the opening book"),
    )
    return [f"{what}: {count:,}" for count, what in counts if count]
