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

**How.** `hftlab.kernels.feeds.pitch` reads the lines of a block straight into rows, by the table of messages
below; what is wrong with a damaged one is said here. Open orders are what passes from block to block, so they
bound the memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date as Date
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.codes import MboAction
from hftlab.errors import FormatError
from hftlab.feeds.flow import Fault, Flow, without_end
from hftlab.feeds.native import resliced
from hftlab.feeds.parsing import containers, times
from hftlab.schema import MBO, TIMESTAMP, code_array

if TYPE_CHECKING:
    from hftlab.kernels.feeds.pitch import Columns

DESCRIPTION = "BATS PITCH text (.txt, .gz, .xz, .zst)"

ZONE = "America/New_York"
NO_DATE = Date(1970, 1, 1)
PRICE_UNITS = 100_000  # dollars x 10,000 -> 1e-9
BLOCK_BYTES = 1 << 22
BYTES_PER_ROW = 18  # fewest: an s has 18 with its end of line, an E has 40 and becomes two rows
LONGEST_LINE = 1 << 16  # of a line that never ends, this much is kept

_DAY_MS = 86_400_000
_A, _C, _F, _R, _T, _N = (MboAction[name] for name in "ACFRTN")


class Message(NamedTuple):
    """A type of message."""

    type: str
    action: MboAction
    fields: tuple[tuple[str, int, int], ...]  # name, where it begins, characters
    lengths: tuple[int, ...]


def _message(type_: str, action: MboAction, fields: str, may_follow: int = 0) -> Message:
    """A type from the names and widths of what follows time and type."""
    found, at = [], 9
    for name, width in (field.split(":") for field in fields.split()):
        found.append((name, at, int(width)))
        at += int(width)
    return Message(type_, action, tuple(found), tuple(range(at, at + may_follow + 1)))


_PRICES = "indicative_price:10 auction_only_price:10"
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
    _message("I", _N, "symbol:8 auction_type:1 reference_price:10 buy_shares:10 sell_shares:10 " + _PRICES),
    _message("J", _N, "symbol:8 auction_type:1 price:10 shares:10"),
    _message("R", _N, "symbol:8 retail_interest:1"),
    _message("B", _N, "execution_id:12"),
)
_MESSAGE_OF = {ord(message.type): message for message in _MESSAGES}

_ID, _SIDE, _SHARES, _PRICE = "12 of 0-9 and A-Z", "B or S", "digits", "digits (dollars x 10,000)"
_SYMBOL = "printable characters, then spaces"
_EXPECTED = {  # of a field, by its name; of a field that isn't here, anything is taken
    **dict.fromkeys(("order_id", "execution_id"), _ID),
    "side": _SIDE,
    "symbol": _SYMBOL,
    **dict.fromkeys(("shares", "buy_shares", "sell_shares"), _SHARES),
    **dict.fromkeys(("price", "reference_price", "indicative_price", "auction_only_price"), _PRICE),
}
_FIELD = {  # what that is to the kernel, and to a person who looks at one line
    _ID: ("ID", re.compile(rb"[0-9A-Z]{12}")),
    _SIDE: ("DIRECTION", re.compile(rb"[BS]")),
    _SYMBOL: ("SYMBOL", re.compile(rb"[!-~]+ *")),
    _SHARES: ("NUMBER", re.compile(rb"[0-9]+")),
    _PRICE: ("NUMBER", re.compile(rb"[0-9]+")),
    None: ("CHARACTER", re.compile(b".*", re.DOTALL)),
}
_A_MESSAGE = "8 digits of time, then a type"
_A_TYPE = f"one of {' '.join(message.type for message in _MESSAGES)}"
_A_TIME = f"milliseconds since midnight, below {_DAY_MS}"
_VALUES = (  # of a message, where the kernel has them: the first seven have names there
    *("order_id", "side", "shares", "symbol", "price", "type", "time", "execution_id", "buy_shares"),
    *("sell_shares", "reference_price", "indicative_price", "auction_only_price"),
    *("halt_status", "reg_sho_action", "auction_type", "retail_interest"),
)
_EXTRAS = {  # further tables: the types in them and the fields they keep
    "trades": ("Pr", "order_id side price shares execution_id"),
    "executions": ("E", "order_id side price shares execution_id"),
    "trading_status": ("H", "halt_status reg_sho_action"),
    "auction_updates": (
        "I",
        "auction_type reference_price buy_shares sell_shares " + _PRICES.replace(":10", ""),
    ),
    "auction_summaries": ("J", "auction_type price shares"),
    "retail_interest": ("R", "retail_interest"),
    "trade_breaks": ("B", "execution_id"),
}

_LINE = re.compile(rb"[ -~]{17,68}$")
_DATE_IN_NAME = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_]?)(\d\d)\2(\d\d)(?!\d)")


# ------------------------------------------------------------------ opening


def sniff(path: Path, head: bytes) -> bool:
    """Whether one of the first lines is a PITCH message."""
    lines = (line.removesuffix(b"\r").removeprefix(b"S") for line in head.split(b"\n", 10)[:10])
    return any(_LINE.match(line) and _fault(line) is None for line in lines)


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
    tables = capture.tables()
    begun = list(islice(tables, 2))
    reading = [chain(begun, tables)]  # goes on where it stands, once

    def whole() -> pa.Table:
        return _joined(reading.pop() if reading else capture.tables())

    return Flow(
        path,
        "pitch",
        "mbo",
        begun[0] if len(begun) == 1 else whole,
        symbols=symbols,
        notes=capture.notes,
        faults=capture.faults,
        batches=lambda rows: resliced(
            (part for table in capture.tables() for part in table.to_batches()), MBO, rows
        ),
        extras={name: lambda name=name: _joined(capture.tables(name)) for name in _EXTRAS},
    )


def _midnight_ns(path: Path, date: str | Date | None) -> tuple[int, list[str]]:
    """Midnight in New York in UTC nanoseconds; and a note, where nobody says of which day."""
    day = _date_in_name(path) if date is None else date
    if day is not None:
        return times.midnight_ns(path, day, ZONE), []
    note = f"no date in the file name: the day is {NO_DATE} (option date=YYYY-MM-DD)"
    return times.midnight_ns(path, NO_DATE, ZONE), [note]


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

    def tables(self, extra: str | None = None) -> Iterator[pa.Table]:
        """The mbo rows, or the rows of a further table, of each block of lines that has messages.

        Raises FormatError, at the end, where none had.
        """
        reading, empty = _Reading(self.midnight_ns, extra), True
        for text in self._texts(reading):
            if (table := reading.table(text)) is not None:
                empty = False
                yield table
        if empty and reading.damaged:
            row, found, expected = min(reading.damaged.values())
            raise FormatError(self.path, found, f"PITCH messages ({expected})", row=row)
        if empty:
            raise FormatError(self.path, "nothing in it", "PITCH messages")
        self.notes[:] = self._first_notes + reading.notes()
        self.faults[:] = reading.faults()

    def _texts(self, reading: _Reading) -> Iterator[bytes]:
        """Whole lines; the last one gets its end."""
        tail = b""
        try:
            for block in containers.blocks(self.path, size=BLOCK_BYTES):
                cut = block.rfind(b"\n") + 1
                if cut:
                    yield b"".join((tail, memoryview(block)[:cut]))
                    tail = b""
                tail = (tail + block[cut:])[:LONGEST_LINE]
        except containers.EndsEarly as error:
            reading.ends_early = error
        if tail:
            reading.may_be_cut = _may_be_longer(tail)
            yield tail + b"\n"


def _joined(tables: Iterator[pa.Table]) -> pa.Table:
    return pa.concat_tables(list(tables)).unify_dictionaries()


# ------------------------------------------------------------------ lines to tables


@cache
def _layout() -> np.ndarray:
    """The messages as the kernel wants them."""
    from hftlab.kernels.feeds import pitch as kernel

    layout = np.zeros(kernel.LAYOUT, np.int64)
    for kind, message in _MESSAGE_OF.items():
        layout[kind, 0, :3] = message.action, message.lengths[0], message.lengths[-1]
        fields = [field for field in message.fields if field[0] in _VALUES]
        for place, (name, at, width) in enumerate(fields, start=1):
            expected = _EXPECTED.get(name)
            what, unit = getattr(kernel, _FIELD[expected][0]), PRICE_UNITS if expected is _PRICE else 1
            layout[kind, place] = what, at, width, _VALUES.index(name), unit
    return layout


class _Reading:
    """One reading of a file, block by block: into mbo rows, or the rows of a further table."""

    def __init__(self, midnight_ns: int, extra: str | None) -> None:
        from hftlab.kernels.feeds import pitch as kernel

        self._kernel, self._session = kernel, kernel.start_session()
        self._midnight_ns, self._extra = midnight_ns, extra
        self._symbols: list[str] = []
        self.damaged: dict[int, tuple[int, str, str]] = {}  # the first of its kind: row, found, expected
        self.ends_early: containers.EndsEarly | None = None
        self.may_be_cut = False  # whether the last line might have gone on

    def table(self, text: bytes) -> pa.Table | None:
        """The rows of a block of lines; None where it has no message."""
        room = len(text) // BYTES_PER_ROW + 1
        rows = self._kernel.make_rows(room)
        messages = np.zeros((room if self._extra else 0, len(_VALUES)), np.int64)
        filled = self._read(text, rows, messages)
        if not filled:
            return None
        rows = rows._make(column[:filled] for column in rows)
        return self._further(rows, messages[:filled]) if self._extra else self._facts(rows)

    def notes(self) -> list[str]:
        """Counted quirks."""
        kernel, tally = self._kernel, self._session.tally
        counts = [
            (kernel.BACKWARDS, "messages earlier than the one before (file order is kept)"),
            (kernel.EXECUTIONS, "executions of orders that are not open"),
            (kernel.CANCELS, "cancels of orders that are not open"),
            (kernel.TRADES, "executions of orders not displayed or routed away (extra table trades)"),
        ]
        return [f"{what}: {tally[place]:,}" for place, what in counts if tally[place]]

    def faults(self) -> list[Fault]:
        """What was damaged, in the order it was met."""
        damage = self._session.damage[:, self._kernel.COUNT].tolist()
        firsts = sorted((*first, damage[kind]) for kind, first in self.damaged.items())
        found = [Fault(f"line {row:,}", *rest) for row, *rest in firsts]
        if self.ends_early is not None:
            row = f"line {self._session.tally[self._kernel.LINES]:,}"
            found.append(Fault(row, self.ends_early.found, self.ends_early.expected))
        elif self.may_be_cut:
            found.append(without_end(int(self._session.tally[self._kernel.LINES])))
        return found

    def _read(self, text: bytes, rows: Columns, messages: np.ndarray) -> int:
        """How many rows the lines of a block have filled."""
        data, place, filled = np.frombuffer(text, np.uint8), 0, 0
        while place < len(text):
            place, filled = self._kernel.read_lines(
                data, place, _layout(), self._session, rows, filled, messages, self._midnight_ns
            )
            if place < len(text):
                self._session = self._kernel.grown(self._session)
        self._explain(text)
        names = self._session.names[len(self._symbols) : self._session.tally[self._kernel.SYMBOLS]]
        self._symbols += [name.rstrip().decode() for name in names.view("S8").tolist()]
        return filled

    def _explain(self, text: bytes) -> None:
        """Say what is wrong with the first damaged line of each kind."""
        for kind in np.flatnonzero(self._session.damage[:, self._kernel.COUNT]).tolist():
            if kind not in self.damaged:
                _, row, at = self._session.damage[kind].tolist()
                line = text[at : text.find(b"\n", at)].removesuffix(b"\r")
                self.damaged[kind] = (row, *_fault(line))

    def _facts(self, rows: Columns) -> pa.Table:
        """Rows as an mbo table."""
        ts = pa.array(rows.ts).view(TIMESTAMP)
        columns = [ts, ts, self._named(rows.symbol), code_array(rows.action, MboAction)]
        columns += [rows.side, rows.price, rows.size, rows.order_id.view("u8"), rows.flags, rows.sequence]
        return pa.Table.from_arrays([pa.array(column) for column in columns], schema=MBO)

    def _further(self, rows: Columns, messages: np.ndarray) -> pa.Table:
        """Sequence, time, symbol and the fields that the further table keeps."""
        types, names = _EXTRAS[self._extra]
        chosen = np.flatnonzero(np.isin(messages[:, _VALUES.index("type")], list(types.encode())))
        columns = {
            "sequence": pa.array(rows.sequence[chosen]),
            "ts_event": pa.array(rows.ts[chosen]).view(TIMESTAMP),
            "symbol": self._named(rows.symbol[chosen]),
        }
        for name in names.split():
            columns[name] = _column(name, messages[chosen, _VALUES.index(name)])
        return pa.table(columns)

    def _named(self, symbols: np.ndarray) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array(symbols), pa.array(self._symbols), safe=False)


def _column(name: str, values: np.ndarray) -> pa.Array:
    """A field in the type that its table has."""
    if name not in _EXPECTED:  # a character
        codes = pa.array(values.astype(np.uint8))
        return pa.DictionaryArray.from_arrays(codes, pa.array(map(chr, range(256)))).cast(pa.string())
    if name == "side":
        return pa.array(values.astype(np.int8))
    return pa.array(values.view(np.uint64) if name.endswith("_id") else values)


def _fault(line: bytes) -> tuple[str, str] | None:
    """What is wrong with a line from its time on: (found, expected), None for nothing."""
    if len(line) < 9:
        return (f"{len(line)} characters" if line else "an empty line"), _A_MESSAGE
    message = _MESSAGE_OF.get(line[8])
    if message is None:
        return f"type {_shown(line[8:9])}", _A_TYPE
    if len(line) not in message.lengths:
        return f"{len(line)} characters", f"{' or '.join(map(str, message.lengths))} of type {message.type}"
    if not re.fullmatch(rb"\d{8}", line[:8]) or int(line[:8]) >= _DAY_MS:
        return f"time {_shown(line[:8])}", _A_TIME
    for name, at, width in message.fields:
        text = line[at : at + width]
        if not _FIELD[_EXPECTED.get(name)][1].fullmatch(text):
            return f"{name} {_shown(text)}", f"{name}: {_EXPECTED[name]}"
    return None


def _may_be_longer(line: bytes) -> bool:
    """Whether what is a whole message may be the beginning of a longer one of its type."""
    line = line.removesuffix(b"\r").removeprefix(b"S")
    message = _MESSAGE_OF.get(line[8]) if len(line) > 8 else None
    return message is not None and len(line) in message.lengths[:-1]


def _shown(text: bytes) -> str:
    return repr(text)[1:]
