"""BATS PITCH: the depth of book as fixed-width text, one message per line (US equities, PITCH 1.x).

::

    28800168AAK27GA00000XB000100SH    0000619200Y
    ms since midnight, type, order id (base 36), side, shares, symbol, price x 10,000, display

====== ======================================== ==================================================
type   what happened                            mbo rows
====== ======================================== ==================================================
A, d   an order rests (d: a longer symbol)      A
E      it is executed                           F, then C: only the C changes the book
X      some or all of it is cancelled           C
P, r   an order that was not displayed, or was  T, order id 0, on the side of the aggressor: the
       routed away, is executed                 other one than the order's, which PITCH gives
s      the orders of a symbol are cleared       R
others status, auctions, retail interest, a     N
       broken trade (H, I, J, R, B)
====== ======================================== ==================================================

What these rows have no column for is in further tables (`Flow.extras`): trades, executions,
trading_status, auction_updates, auction_summaries, retail_interest, trade_breaks. The table of trades has the
side as it was given: of an order that was routed away it is the aggressor's, and later versions say B of any.

E and X name an order and nothing else; side, price and symbol come from its A. If that order is not open
(never added, used up or cleared), side and price are 0 and the symbol is `NO_SYMBOL`, as it is for B, which
names an execution. `sequence` is the 0-based line of the file, damaged ones included; flag 128 stands on the
last row of each message; `ts_recv` is `ts_event`. A line may begin with an S (sequenced data) and end with
CR LF. Times are New York's. The day is in the file name or an option; without one it is `NO_DATE`, and a note
says so. A damaged line is a `Fault`, counted by kind; what is whole before and after it is delivered.

**How.** Lines are not cut up one by one: a block of them is overlapping words of 8 bytes, gathered where a
field is, and 8 digits become one number in three multiplications. An id's E and X find their A by one sort
per block. Open orders are what passes from block to block, so they bound the memory.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from datetime import date as Date
from datetime import datetime
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.codes import MBO_FLAG_LAST, MboAction
from hftlab.errors import FormatError, UsageError
from hftlab.feeds import source
from hftlab.feeds.flow import Fault, Flow
from hftlab.schema import MBO, TIMESTAMP, code_array

DESCRIPTION = "BATS PITCH text (.txt, .gz, .xz, .zst)"

ZONE = "America/New_York"
NO_DATE = Date(1970, 1, 1)
NO_SYMBOL = "?"  # of a message that names an order nobody knows, or an execution
PRICE_UNITS = 100_000  # dollars x 10,000 -> 1e-9
BLOCK_BYTES = 1 << 22  # 24 % faster than 16 MB, whose columns are larger than a cache
BYTES_PER_OPEN_ORDER = 128  # read before the open orders are sorted again
LONGEST_LINE = 1 << 16  # of a line that never ends, this much is kept

_DAY_MS = 86_400_000
_A, _C, _F, _R, _T, _N = (MboAction[name] for name in "ACFRTN")


class Field(NamedTuple):
    """A field of a message: where it begins and how many characters it has."""

    name: str
    at: int
    width: int


class Message(NamedTuple):
    """A type of message."""

    type: str
    action: MboAction
    fields: tuple[Field, ...]
    lengths: tuple[int, ...]


def _message(type_: str, action: MboAction, fields: str, may_follow: int = 0) -> Message:
    """A type from the names and widths of what follows time and type."""
    found, at = [], 9
    for name, width in (field.split(":") for field in fields.split()):
        found.append(Field(name, at, int(width)))
        at += int(width)
    return Message(type_, action, tuple(found), tuple(range(at, at + may_follow + 1)))


_MESSAGES = (
    _message("A", _A, "order_id:12 side:1 shares:6 symbol:6 price:10 display:1"),
    # the customer indicator behind the participant came with a later version
    _message("d", _A, "order_id:12 side:1 shares:6 symbol:8 price:10 display:1 participant:4", may_follow=1),
    _message("E", _F, "order_id:12 shares:6 execution_id:12"),
    _message("X", _C, "order_id:12 shares:6"),
    _message("P", _T, "order_id:12 side:1 shares:6 symbol:6 price:10 execution_id:12"),
    _message("r", _T, "order_id:12 side:1 shares:6 symbol:8 price:10 execution_id:12"),
    _message("s", _R, "symbol:8"),
    _message("H", _N, "symbol:8 halt_status:1 reg_sho_action:1 reserved:2"),
    _message(
        "I",
        _N,
        "symbol:8 auction_type:1 reference_price:10 buy_shares:10 sell_shares:10 indicative_price:10 "
        "auction_only_price:10",
    ),
    _message("J", _N, "symbol:8 auction_type:1 price:10 shares:10"),
    _message("R", _N, "symbol:8 retail_interest:1"),
    _message("B", _N, "execution_id:12"),
)
_KIND = {message.type: kind for kind, message in enumerate(_MESSAGES, start=1)}  # 0 is no type
_KIND_OF_BYTE = np.zeros(256, np.uint8)
_KIND_OF_BYTE[[ord(message.type) for message in _MESSAGES]] = list(_KIND.values())
_ACTION = np.array([_N] + [message.action for message in _MESSAGES], np.int8)  # by kind
_IS_ADD, _NAMES_ORDER = (
    np.isin(np.arange(len(_ACTION)), [_KIND[type_] for type_ in types]) for types in ("Ad", "AdEX")
)
_LENGTHS = np.zeros((len(_ACTION), 80), bool)  # by kind and characters: whether they are as many as should be
for _message_kind, _of in enumerate(_MESSAGES, start=1):
    _LENGTHS[_message_kind, list(_of.lengths)] = True
_PADDING = bytes(_LENGTHS.shape[1] + 8)  # so that a message cut short at the end can be read like others

_ID, _SIDE, _SHARES, _PRICE = "12 of 0-9 and A-Z", "B or S", "digits", "digits (dollars x 10,000)"
_SYMBOL_TEXT, _SYMBOL = "printable characters, then spaces", re.compile(rb"[!-~]+ *")
_EXPECTED = {  # of a field, by its name; of a field that isn't here, anything is taken
    "order_id": _ID,
    "execution_id": _ID,
    "side": _SIDE,
    "symbol": _SYMBOL_TEXT,
    **dict.fromkeys(("shares", "buy_shares", "sell_shares"), _SHARES),
    **dict.fromkeys(("price", "reference_price", "indicative_price", "auction_only_price"), _PRICE),
}
_FIELD = {
    _ID: re.compile(rb"[0-9A-Z]{12}"),
    _SIDE: re.compile(rb"[BS]"),
    _SYMBOL_TEXT: _SYMBOL,
    _SHARES: re.compile(rb"[0-9]+"),
    _PRICE: re.compile(rb"[0-9]+"),
}
_A_MESSAGE = "8 digits of time, then a type"
_A_TYPE = f"one of {' '.join(_KIND)}"
_A_TIME = f"milliseconds since midnight, below {_DAY_MS}"


def _expected(name: str) -> str:
    return f"{name}: {_EXPECTED[name]}"


def _expected_length(message: Message) -> str:
    return f"{' or '.join(map(str, message.lengths))} of type {message.type}"


_REASONS = [
    "",
    _A_MESSAGE,
    _A_TYPE,
    _A_TIME,
    *map(_expected, _EXPECTED),
    *map(_expected_length, _MESSAGES),
]
_WHY = {reason: why for why, reason in enumerate(_REASONS)}  # places, as arrays of lines hold them
_WHY_LENGTH = np.array([0] + [_WHY[_expected_length(message)] for message in _MESSAGES], np.uint8)  # by kind

_EXTRAS = {  # further tables: the types in them and the fields they keep
    "trades": ("Pr", ("order_id", "side", "price", "shares", "execution_id")),
    "executions": ("E", ("order_id", "side", "price", "shares", "execution_id")),
    "trading_status": ("H", ("halt_status", "reg_sho_action")),
    "auction_updates": (
        "I",
        (
            "auction_type",
            "reference_price",
            "buy_shares",
            "sell_shares",
            "indicative_price",
            "auction_only_price",
        ),
    ),
    "auction_summaries": ("J", ("auction_type", "price", "shares")),
    "retail_interest": ("R", ("retail_interest",)),
    "trade_breaks": ("B", ("execution_id",)),
}

_LINE = re.compile(rb"S?\d{8}[AdEXPrsHIJRB][ -~]{8,59}\r?$")
_DATE_IN_NAME = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_]?)(\d\d)\2(\d\d)(?!\d)")


# ------------------------------------------------------------------ opening


def sniff(path: Path, head: bytes) -> bool:
    """Whether one of the first lines is a PITCH message."""
    lines = head.split(b"\n", 10)[:10]
    return any(
        _LINE.match(line) and _fault(line.removesuffix(b"\r").removeprefix(b"S")) is None for line in lines
    )


def load(
    path: Path,
    *,
    format: str | None = None,
    symbols: Iterable[str] | None = None,
    date: str | Date | None = None,
) -> Flow:
    """Read a capture into an mbo table; a large one block by block, when somebody asks for it.

    Parameters: `date` is the day in New York, where the file name doesn't tell it.

    Raises FormatError for a file without a single message, UsageError for a date that is none.
    """
    capture = _Capture(path, date)
    tables = capture.tables(_facts)
    begun = list(islice(tables, 2))
    reading = [chain(begun, tables)]  # goes on where it stands, once

    def whole() -> pa.Table:
        return _joined(reading.pop() if reading else capture.tables(_facts))

    return Flow(
        path,
        "pitch",
        "mbo",
        begun[0] if len(begun) == 1 else whole,
        symbols=symbols,
        notes=capture.notes,
        faults=capture.faults,
        batches=lambda rows: _resliced(capture.tables(_facts), rows),
        extras={name: partial(capture.extra, name) for name in _EXTRAS},
    )


def _midnight_ns(path: Path, date: str | Date | None) -> tuple[int, list[str]]:
    """Midnight in New York in UTC nanoseconds; and a note, where nobody says of which day."""
    from zoneinfo import ZoneInfo

    notes = []
    day = _date_in_name(path) if date is None else date
    if day is None:
        notes = [f"no date in the file name: the day is {NO_DATE} (option date=YYYY-MM-DD)"]
        day = NO_DATE
    try:
        day = day if isinstance(day, Date) else Date.fromisoformat(day)
        midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(ZONE))
        return int(np.int64(int(midnight.timestamp()) * 10**9)), notes
    except (ValueError, TypeError, OverflowError):  # the last where 64 bits of nanoseconds don't reach
        raise UsageError(f"{path}: found date {date!r}, expected YYYY-MM-DD") from None


def _date_in_name(path: Path) -> Date | None:
    for year, _, month, day in _DATE_IN_NAME.findall(path.name):
        try:
            return Date(int(year), int(month), int(day))
        except ValueError:
            continue
    return None


class _Capture:
    """A file that is read from its beginning as often as somebody asks; the last reading tells the quirks."""

    def __init__(self, path: Path, date: str | Date | None) -> None:
        self.path = path
        self.midnight_ns, self._first_notes = _midnight_ns(path, date)
        self.notes: list[str] = []
        self.faults: list[Fault] = []

    def tables(self, make: Callable[[_Reading, _Block], pa.Table]) -> Iterator[pa.Table]:
        """A table of each block of lines that has messages.

        Raises FormatError, at the end, where none had.
        """
        reading, empty = _Reading(self.midnight_ns), True
        for text in _texts(self.path, reading):
            block = reading.read(text)
            if len(block.kind):
                empty = False
                yield make(reading, block)
        if empty and reading.lines:
            row, found, expected, _ = min(reading.faults.values())
            raise FormatError(self.path, found, f"PITCH messages ({expected})", row=row)
        if empty:
            raise FormatError(self.path, "nothing in it", "PITCH messages")
        self.notes[:] = self._first_notes + reading.notes()
        self.faults[:] = reading.damage()

    def extra(self, name: str) -> pa.Table:
        """One of the further tables."""
        return _joined(self.tables(partial(_extra, name)))


def _texts(path: Path, reading: _Reading) -> Iterator[bytes]:
    """Whole lines (the last perhaps without its end), enough of them to be worth a sort, and `_PADDING`."""
    lines: list[bytes | memoryview] = []
    count, tail = 0, b""
    try:
        for block in source.blocks(path, size=BLOCK_BYTES):
            cut = block.rfind(b"\n") + 1
            if not cut:
                tail = (tail + block)[:LONGEST_LINE]
                continue
            lines += tail, memoryview(block)[:cut]
            count += len(tail) + cut
            tail = block[cut:][:LONGEST_LINE]
            if count >= max(BLOCK_BYTES // 2, BYTES_PER_OPEN_ORDER * len(reading.orders.order_id)):
                yield b"".join([*lines, _PADDING])
                lines, count = [], 0
    except source.EndsEarly as error:
        reading.ends_early = error
    if lines or tail:
        yield b"".join([*lines, tail, _PADDING])


def _joined(tables: Iterator[pa.Table]) -> pa.Table:
    return pa.concat_tables(list(tables)).unify_dictionaries()


def _resliced(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows, `rows` at a time."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += table.num_rows
        if count >= rows:
            table = pa.concat_tables(held)
            whole = count - count % rows
            for start in range(0, whole, rows):
                yield table.slice(start, rows).unify_dictionaries()
            held, count = [table.slice(whole)], count - whole
    if count:
        yield pa.concat_tables(held).unify_dictionaries()


# ------------------------------------------------------------------ lines to columns


class _Block(NamedTuple):
    """The sound messages of a block of lines, as columns."""

    sequence: np.ndarray  # 0-based line of the file
    ts_ns: np.ndarray
    kind: np.ndarray  # 1-based place in _MESSAGES
    order_id: np.ndarray
    side: np.ndarray
    shares: np.ndarray
    symbol: np.ndarray  # places in `_Reading.symbols`
    price: np.ndarray  # 1e-9
    fields: dict[str, dict[int, np.ndarray]]  # every field, by its name and by kind


class _Words:
    """A padded text as overlapping words: ``w8[at]`` is the 8 bytes from `at` on."""

    def __init__(self, padded: bytes) -> None:
        count = len(padded) - 8
        self.w1 = np.frombuffer(padded, np.uint8)
        self.w4 = np.ndarray(count, "<u4", padded, strides=(1,))
        self.w8 = np.ndarray(count, "<u8", padded, strides=(1,))


class _Reading:
    """What one reading of a file carries from block to block."""

    def __init__(self, midnight_ns: int) -> None:
        self.midnight_ns = midnight_ns
        self.lines = 0  # so far
        self.symbols: list[str] = []
        self.orders = _OpenOrders()
        self.faults: dict[str, tuple[int, str, str, int]] = {}  # by what was expected
        self.ends_early: source.EndsEarly | None = None
        self._places: dict[int, int] = {}  # in `symbols`, by their word
        self._latest_ns = -(2**63)
        self._counts = dict.fromkeys(("backwards", "trades", "E", "X"), 0)

    def read(self, text: bytes) -> _Block:
        """Whole lines, then `_PADDING`, to columns."""
        words = _Words(text)
        start, length = _lines(text, words.w1)
        kind = _KIND_OF_BYTE[words.w1[start + 8]]
        time_ms, is_time = _digits(words, start, 8)
        why = _why_no_message(kind, length, is_time & (time_ms < _DAY_MS))
        columns, fields = self._columns(words, start, kind, why)
        first, self.lines = self.lines, self.lines + len(start)
        columns = [np.arange(first, self.lines), time_ms * 1_000_000 + self.midnight_ns, kind, *columns]
        if why.any():
            self._count_faults(why, lambda line: text[start[line] : start[line] + length[line]], first)
            columns = [column[why == 0] for column in columns]
        block = _Block(*columns, fields)
        self._count(block, self.orders.follow(block))
        nameless = block.symbol < 0
        if nameless.any():
            block.symbol[nameless] = self._place(_NO_SYMBOL_WORD)
        return block

    def notes(self) -> list[str]:
        """Counted quirks."""
        what = {
            "backwards": "messages earlier than the one before (file order is kept)",
            "E": "executions of orders that are not open",
            "X": "cancels of orders that are not open",
            "trades": "executions of orders not displayed or routed away (extra table trades)",
        }
        return [f"{text}: {self._counts[key]:,}" for key, text in what.items() if self._counts[key]]

    def damage(self) -> list[Fault]:
        """What was damaged, in the order it was met."""
        found = [Fault(f"row {row:,}", *rest) for row, *rest in sorted(self.faults.values())]
        if self.ends_early is not None:
            found.append(Fault(f"row {self.lines:,}", self.ends_early.found, self.ends_early.expected))
        return found

    def _columns(
        self, words: _Words, start: np.ndarray, kind: np.ndarray, why: np.ndarray
    ) -> tuple[list[np.ndarray], dict[str, dict[int, np.ndarray]]]:
        """The columns most messages have, and every field; `why` learns of fields that are none."""
        columns = {
            "order_id": np.zeros(len(start), np.int64),
            "side": np.zeros(len(start), np.int8),
            "shares": np.zeros(len(start), np.int64),
            "symbol": np.full(len(start), -1, np.int32),
            "price": np.zeros(len(start), np.int64),
        }
        fields: dict[str, dict[int, np.ndarray]] = {}
        for number in np.flatnonzero(np.bincount(kind[why == 0])).tolist():
            rows = np.flatnonzero((kind == number) & (why == 0))
            found = self._message(words, start[rows], rows, _MESSAGES[number - 1].fields, why)
            sound = why[rows] == 0
            for name, values in found.items():
                values = values if sound.all() else values[sound]
                fields.setdefault(name, {})[number] = values
                if name in columns:
                    columns[name][rows if sound.all() else rows[sound]] = values
        return list(columns.values()), fields

    def _message(
        self, words: _Words, at: np.ndarray, rows: np.ndarray, fields: tuple[Field, ...], why: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The fields of messages of one type."""
        found = {}
        for name, offset, width in fields:
            if name in _EXPECTED:
                found[name], sound = self._field(name, words, at + offset, width)
                if not sound.all():
                    bad = rows[~sound]
                    why[bad[why[bad] == 0]] = _WHY[_expected(name)]
            elif width == 1:
                found[name] = words.w1[at + offset]
        return found

    def _field(self, name: str, words: _Words, at: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Values of a field, and whether each is one."""
        if name == "symbol":
            return self._symbols(words.w8[at] if width == 8 else words.w8[at] & _SIX | _TWO_SPACES)
        if name == "side":
            side = _SIDE_OF_BYTE[words.w1[at]]
            return side, side != 0
        if _EXPECTED[name] is _ID:
            return _base36(words, at)
        values, sound = _digits(words, at, width)
        return (values * PRICE_UNITS if _EXPECTED[name] is _PRICE else values), sound

    def _symbols(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in `symbols`, and whether each is a symbol."""
        coded = pa.array(words).dictionary_encode()
        places = np.array([self._place(word) for word in coded.dictionary.to_pylist()], np.int32)
        found = places[coded.indices.to_numpy()]
        return np.maximum(found, 0), found >= 0

    def _place(self, word: int) -> int:
        """Place of a symbol in `symbols`, where it is put if it is new; -1 for what is no symbol."""
        place = self._places.get(word)
        if place is None:
            text = word.to_bytes(8, "little")
            if not _SYMBOL.fullmatch(text):
                return -1
            place = self._places[word] = len(self.symbols)
            self.symbols.append(text.rstrip().decode())
        return place

    def _count_faults(self, why: np.ndarray, line: Callable[[int], bytes], first: int) -> None:
        counts = np.bincount(why)
        for number in np.flatnonzero(counts[1:]).tolist():
            at = int(np.argmax(why == number + 1))
            found, expected = _fault(line(at))
            row, found, _, count = self.faults.get(expected, (first + at + 1, found, expected, 0))
            self.faults[expected] = (row, found, expected, count + int(counts[number + 1]))

    def _count(self, block: _Block, unresolved: np.ndarray) -> None:
        if not len(block.kind):
            return
        counts, by_kind = self._counts, np.bincount(block.kind[unresolved], minlength=len(_ACTION))
        counts["E"] += int(by_kind[_KIND["E"]])
        counts["X"] += int(by_kind[_KIND["X"]])
        counts["trades"] += int(np.count_nonzero(_ACTION[block.kind] == _T))
        counts["backwards"] += int(block.ts_ns[0] < self._latest_ns) + int(
            np.count_nonzero(block.ts_ns[1:] < block.ts_ns[:-1])
        )
        self._latest_ns = int(block.ts_ns[-1])


def _lines(text: bytes, bytes_: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each line's time begins, and how many characters it has from there."""
    size = len(text) - len(_PADDING)
    end = np.flatnonzero(bytes_[:size] == _LF)
    if bytes_[size - 1] != _LF:
        end = np.append(end, size)
    start = np.zeros(len(end), np.int64)
    start[1:] = end[:-1] + 1
    if b"\r" in text:
        end = end - ((end > start) & (bytes_[end - 1] == _CR))
    start += bytes_[start] == _S  # no time begins with it; an empty line's first byte is its end
    return start, end - start


def _why_no_message(kind: np.ndarray, length: np.ndarray, is_time: np.ndarray) -> np.ndarray:
    """Place in _REASONS of what is wrong with a line as a whole, 0 for nothing."""
    whole = _LENGTHS[kind, np.minimum(length, _LENGTHS.shape[1] - 1)]
    why = np.zeros(len(kind), np.uint8)
    bad = np.flatnonzero(~(whole & is_time))
    if len(bad):
        why[bad] = _WHY_LENGTH[kind[bad]]  # the first that holds is written last
        why[bad[whole[bad]]] = _WHY[_A_TIME]
        why[bad[kind[bad] == 0]] = _WHY[_A_TYPE]
        why[bad[length[bad] < 9]] = _WHY[_A_MESSAGE]
    return why


_LF, _CR, _S = b"\n\rS"
_SIDE_OF_BYTE = np.zeros(256, np.int8)
_SIDE_OF_BYTE[list(b"BS")] = 1, -1
_SIX, _TWO_SPACES = np.uint64((1 << 48) - 1), np.uint64(0x2020 << 48)


_NO_SYMBOL_WORD = int.from_bytes(NO_SYMBOL.encode().ljust(8), "little")


def _each(byte: int) -> np.uint64:
    """A word of eight equal bytes."""
    return np.uint64(byte * 0x0101_0101_0101_0101)


def _digits(words: _Words, at: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of 6, 8 or 10 digits, and whether they are.

    The first digit is the lowest byte. Neighbours are joined in one multiplication each: 8 digits to four
    numbers of two, to two of four, to one.
    """
    word = words.w8[at + (width - 8)]
    if width == 6:
        word = word & ~np.uint64(0xFFFF) | np.uint64(0x3030)
    high, carry = _each(0xF0), _each(0x06)
    sound = ((word & high) | ((word + carry) & high) >> np.uint64(4)) == _each(0x33)
    word = (word & _each(0x0F)) * np.uint64(10 * (1 << 8) + 1) >> np.uint64(8)
    word = (word & np.uint64(0x00FF_00FF_00FF_00FF)) * np.uint64(100 * (1 << 16) + 1) >> np.uint64(16)
    word = (word & np.uint64(0x0000_FFFF_0000_FFFF)) * np.uint64(10_000 * (1 << 32) + 1) >> np.uint64(32)
    value = word.view(np.int64)
    if width == 10:
        tens, ones = (words.w1[at + place] - np.uint8(48) for place in (0, 1))
        sound &= (tens < 10) & (ones < 10)
        value += (tens * np.uint8(10) + ones).astype(np.int64) * 100_000_000
    return value, sound


def _base36(words: _Words, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of 12 characters 0-9 and A-Z, and whether they are; 36^12 is below 2^63."""
    high, is_high = _eight_of_36(words.w8[at])
    low, is_low = _eight_of_36(words.w4[at + 8].astype(np.uint64) << np.uint64(32) | np.uint64(0x3030_3030))
    return (high * np.uint64(36**4) + low).view(np.int64), is_high & is_low


def _eight_of_36(word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number that 8 characters are in base 36, and whether they are one."""
    letter = word >> np.uint64(6) & _each(1)
    value = (word & _each(0x1F)) + letter * np.uint64(25) - _each(16)
    beyond = (value | value + _each(128 - 36)) & _each(0x80)
    letter = value + _each(128 - 10) >> np.uint64(7) & _each(1)
    sound = (beyond == 0) & (value + letter * np.uint64(ord("A") - ord("9") - 1) + _each(ord("0")) == word)
    for bits, base in ((8, 36), (16, 36**2), (32, 36**4)):
        lanes = np.uint64(sum(((1 << bits) - 1) << place for place in range(0, 64, 2 * bits)))
        value = (value & lanes) * np.uint64(base) + (value >> np.uint64(bits) & lanes)
    return value, sound


def _fault(line: bytes) -> tuple[str, str] | None:
    """What is wrong with a line from its time on: (found, expected), None for nothing."""
    if len(line) < 9:
        return (f"{len(line)} characters" if line else "an empty line"), _A_MESSAGE
    kind = int(_KIND_OF_BYTE[line[8]])
    if not kind:
        return f"type {_shown(line[8:9])}", _A_TYPE
    message = _MESSAGES[kind - 1]
    if len(line) not in message.lengths:
        return f"{len(line)} characters", _expected_length(message)
    if not re.fullmatch(rb"\d{8}", line[:8]) or int(line[:8]) >= _DAY_MS:
        return f"time {_shown(line[:8])}", _A_TIME
    for name, at, width in message.fields:
        text = line[at : at + width]
        if name in _EXPECTED and not _FIELD[_EXPECTED[name]].fullmatch(text):
            return f"{name} {_shown(text)}", _expected(name)
    return None


def _shown(text: bytes) -> str:
    return repr(text)[1:]


# ------------------------------------------------------------------ which order a message is about


class _OpenOrders:
    """The orders that are open between two blocks, and what finds the order of an E or X.

    An order is open from its A until its shares are used up or its symbol is cleared, as in the book that
    the rows rebuild. For most ids one sort tells: each A begins a life of the id, and what follows belongs to
    it. Where that is not enough (an id added while it is open, more taken than there was, no shares, a clear
    in the middle) the rows of these ids are followed one by one.
    """

    def __init__(self) -> None:
        self.order_id = np.zeros(0, np.int64)
        self.side = np.zeros(0, np.int8)
        self.symbol = np.zeros(0, np.int32)
        self.price = np.zeros(0, np.int64)
        self.shares = np.zeros(0, np.int64)

    def follow(self, block: _Block) -> np.ndarray:
        """Give E and X, in place, side, price and symbol of their order; returns rows whose order isn't."""
        row, opened = np.flatnonzero(_NAMES_ORDER[block.kind]), len(self.order_id)
        adds = np.ones(opened + len(row), bool)
        adds[opened:] = _IS_ADD[block.kind[row]]
        order_id = np.concatenate([self.order_id, block.order_id[row]])
        lives = _Lives(order_id, np.concatenate([self.shares, block.shares[row]]), adds)
        at = np.concatenate([np.arange(opened), row + opened, [-1]])  # in the columns below; -1 is no order
        symbol = np.concatenate([self.symbol, block.symbol, np.array([-1], np.int32)])
        self._follow_odd(lives, symbol[at[:-1]], at[:-1] - opened, block)
        removal, left = np.flatnonzero(~adds), np.flatnonzero(lives.left)
        named = lives.added[removal]
        self.order_id, self.shares = order_id[left], lives.left[left]
        for name in ("side", "symbol", "price"):
            here = getattr(block, name)
            column = np.concatenate([getattr(self, name), here, here.dtype.type([_NONE[name]])])
            here[row[removal - opened]] = column[at[named]]
            setattr(self, name, column[at[left]])
        return row[removal[named < 0] - opened]

    def _follow_odd(self, lives: _Lives, symbol: np.ndarray, row: np.ndarray, block: _Block) -> None:
        clears = np.flatnonzero(_ACTION[block.kind] == _R)
        cleared = _cleared_after(block.symbol[clears], clears, symbol, row) if len(clears) else None
        odd = lives.odd_ids(cleared)
        if len(odd):
            lives.follow_one_by_one(odd, symbol, row, _by_symbol(block.symbol[clears], clears))


_NONE = {"side": 0, "symbol": -1, "price": 0}  # of an order nobody knows


class _Lives:
    """Adds and removals of shares in file order: what each removal takes from, and what is left in the end.

    Attributes: `added` is the place of the open A a removal names (-1 for none), `left` the shares of an A
    that are open after the last row.
    """

    def __init__(self, order_id: np.ndarray, shares: np.ndarray, adds: np.ndarray) -> None:
        self.order_id, self.shares, self.adds = order_id, shares, adds
        place = _by_id(order_id)
        ids, size, is_add = order_id[place], shares[place], adds[place]
        start = np.flatnonzero(is_add)
        self._begun = begun = place[start]  # the A of each life, in the order of ids
        self.added = np.full(len(place), -1)
        self.left = np.zeros(len(place), np.int64)
        if len(begun):
            life = np.cumsum(is_add) - 1
            named = np.where((life >= 0) & (ids[start[life]] == ids), begun[life], -1)
            self.added[place] = named
            taken = np.where(named < 0, 0, size)
            taken[start] = 0
            self.left[begun] = size[start] - np.add.reduceat(taken, start)

    def odd_ids(self, cleared: np.ndarray | None) -> np.ndarray:
        """Ids whose lives sums don't tell; `cleared` marks rows whose symbol is cleared later."""
        begun, left = self._begun, self.left[self._begun]
        ids = self.order_id[begun]
        odd = left < 0
        odd[:-1] |= (ids[1:] == ids[:-1]) & (left[:-1] > 0)  # added again while it is open
        if cleared is not None:
            odd |= cleared[begun]
        nothing = np.flatnonzero(self.shares <= 0)
        return np.unique(np.concatenate([ids[odd], self.order_id[nothing]]))

    def follow_one_by_one(
        self, odd: np.ndarray, symbol: np.ndarray, row: np.ndarray, clears: dict[int, list[int]]
    ) -> None:
        """The rows of some ids, as a book would take them."""
        open_: dict[int, int] = {}  # order id -> place of its A
        places = np.flatnonzero(np.isin(self.order_id, odd))
        self.left[places] = 0
        for place in places.tolist():
            order_id = int(self.order_id[place])
            begun = open_.pop(order_id, -1)
            if begun >= 0 and _cleared_between(clears.get(int(symbol[begun])), row[begun], row[place]):
                self.left[begun], begun = 0, -1
            if not self.adds[place]:
                self.added[place] = begun
                if begun >= 0:
                    self.left[begun] = max(0, self.left[begun] - self.shares[place])
            elif begun < 0:
                begun, self.left[place] = place, self.shares[place]
            if begun >= 0 and self.left[begun] > 0:
                open_[order_id] = begun
        for begun in open_.values():
            if _cleared_between(clears.get(int(symbol[begun])), row[begun], _NEVER):
                self.left[begun] = 0


def _by_id(order_id: np.ndarray) -> np.ndarray:
    """Places in the order of some hash of their ids, equal ids in the order they come.

    Hash and place share a word, so that plain words are sorted: 5 ns a row, against 24 by a dictionary of ids
    and 49 by argsort. If two ids share a hash, which is one file in thousands, argsort has to do.
    """
    bits = np.uint64(len(order_id).bit_length())
    word = order_id.view(np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15) >> bits << bits
    word |= np.arange(len(order_id), dtype=np.uint64)
    word.sort()
    place = (word & (np.uint64(1) << bits) - np.uint64(1)).view(np.int64)
    ids, hashes = order_id[place], word >> bits
    if ((ids[1:] == ids[:-1]) != (hashes[1:] == hashes[:-1])).any():
        return np.argsort(order_id, kind="stable")
    return place


_NEVER = 1 << 62


def _cleared_after(
    cleared: np.ndarray, clears: np.ndarray, symbol: np.ndarray, row: np.ndarray
) -> np.ndarray:
    """Whether the symbol of a row is cleared in a later one."""
    last = np.full(int(max(symbol.max(initial=0), cleared.max())) + 1, -1)
    last[cleared] = clears
    return last[symbol] > row


def _by_symbol(cleared: np.ndarray, clears: np.ndarray) -> dict[int, list[int]]:
    """Rows that clear each symbol."""
    rows: dict[int, list[int]] = {}
    for symbol, row in zip(cleared.tolist(), clears.tolist(), strict=True):
        rows.setdefault(symbol, []).append(row)
    return rows


def _cleared_between(rows: list[int] | None, after: int, before: int) -> bool:
    if rows is None:
        return False
    following = bisect_right(rows, after)
    return following < len(rows) and rows[following] < before


# ------------------------------------------------------------------ columns to tables


def _facts(reading: _Reading, block: _Block) -> pa.Table:
    """The mbo rows of a block."""
    action = _ACTION[block.kind]
    executed = action == _F
    tells = action != _N
    row = np.repeat(np.arange(len(action)), np.where(executed, 2, 1))
    removal = np.zeros(len(row), bool)  # the C behind an F
    removal[1:] = row[1:] == row[:-1]
    flags = np.full(len(row), MBO_FLAG_LAST, np.uint8)
    flags[:-1][removal[1:]] = 0
    codes = action[row]
    codes[removal] = _C
    ts = pa.array(block.ts_ns[row]).cast(TIMESTAMP)
    columns = [
        ts,
        ts,
        _symbols(reading, block.symbol[row]),
        code_array(codes, MboAction),
        np.where(action == _T, -block.side, block.side)[row],
        np.where(tells, block.price, 0)[row],
        np.where(tells, block.shares, 0)[row],
        np.where(_NAMES_ORDER[block.kind], block.order_id, 0)[row].view(np.uint64),
        flags,
        block.sequence[row],
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=MBO)


def _extra(name: str, reading: _Reading, block: _Block) -> pa.Table:
    """The rows of a further table: sequence, time, symbol and the fields it keeps."""
    types, names = _EXTRAS[name]
    kinds = [_KIND[type_] for type_ in types]
    row = np.flatnonzero(np.isin(block.kind, kinds))
    columns = {
        "sequence": pa.array(block.sequence[row]),
        "ts_event": pa.array(block.ts_ns[row]).cast(TIMESTAMP),
        "symbol": _symbols(reading, block.symbol[row]),
    }
    for field in names:
        if field in ("order_id", "side", "price", "shares"):
            values = getattr(block, field)[row]
        else:
            parts = [block.fields.get(field, {}).get(kind) for kind in kinds]
            values = np.zeros(len(row), np.int64 if field in _EXPECTED else np.uint8)
            for kind, part in zip(kinds, parts, strict=True):
                if part is not None:
                    values[block.kind[row] == kind] = part
        if field.endswith("_id"):
            values = values.view(np.uint64)
        columns[field] = pa.array(values) if field in _EXPECTED else _characters(values)
    return pa.table(columns)


def _symbols(reading: _Reading, places: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(places), pa.array(reading.symbols))


def _characters(bytes_: np.ndarray) -> pa.Array:
    """Fields of one character."""
    return pa.DictionaryArray.from_arrays(pa.array(bytes_), pa.array(map(chr, range(256)))).cast(pa.string())
