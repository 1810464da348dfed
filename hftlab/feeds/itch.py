"""NASDAQ TotalView-ITCH 5.0: the whole market of a day, message by message, as NASDAQ publishes it.

========= ============================================= ====================================
type      what happened                                 mbo rows
========= ============================================= ====================================
A F       an order rests (F tells whose)                A
E         it is executed                                F, then C: only the C changes the book
C         it is executed at another price               F at that price, then C
X         part of it is cancelled                       C of that part
D         all of it is deleted                          C of all that is open
U         it is replaced by one of a new reference      C of all of the old, A of the new
P         a hidden order is executed                    T, order id 0, side of the aggressor; side 0
                                                        and flag 2 since 2014-07-14
Q         a cross                                       T, order id 0, side 0; none for no shares
B H       a broken trade; a halt, a resumption          N
others    (see `flow.extras`)                           none
========= ============================================= ====================================

Messages may follow their length in two bytes (the files on NASDAQ's server), be packets of SoupBinTCP, or
follow each other bare; which it is, the content tells. `sequence` is the 0-based number of the message in the
file, flag 128 stands on the last row of each, `ts_recv` is `ts_event`. Times are ns since midnight in New
York; the date comes from the file's name (01302019.NASDAQ_ITCH50.gz, S030220-v50.txt.gz, 20190130.bin) or
from `date`; without one it is `NO_DATE`, and a note says so.

P tells the side of the hidden order, T that of the aggressor. Since 2014-07-14 NASDAQ masks it, always B.

Symbols go by their *locate*, a number that a directory message (R) gives them; where there was none, the
first message that names its stock does, and a symbol that nothing names is called #locate. With `symbols`
only their rows are made, while all messages are counted; a column `seq` says which rows of all they are.

What an order's own message doesn't tell (side, price, all that is open) comes from the order. A message about
an order that isn't open has side 0, price 0 and, of a D or U, size 1, for at least that was open; an N takes
the place of the A of such a U.

A damaged file is read as far as it can be: a tail that was cut off, messages of unknown type or impossible
length become `flow.faults`, and reading goes on at the next place where messages follow each other again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date as Date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.codes import UNDEF_PRICE, MboAction
from hftlab.errors import FormatError
from hftlab.feeds.flow import Fault, Flow, split_symbols
from hftlab.feeds.parsing import containers, times
from hftlab.schema import MBO, SEQ, TIMESTAMP, code_array

if TYPE_CHECKING:
    from hftlab.kernels.feeds.itch import Columns, Session

DESCRIPTION = "NASDAQ TotalView-ITCH 5.0 (plain, .gz, .xz, .zst)"
ZONE = "America/New_York"
NO_DATE = Date(1970, 1, 1)
PRICE_UNITS = 100_000  # 1e-4 -> 1e-9
PRICE8_UNITS = 10  # 1e-8 -> 1e-9

CHUNK_ROWS = 1 << 20  # of a table read from a stream
MOST_ROWS = 1 << 26  # of a piece of a table read from a mapped file
BYTES_PER_ROW = 15  # fewest: an E without its length has 31 and becomes two rows
FOUND_AT_ONCE = 1 << 15

_NAMES = (
    (re.compile(r"(?<!\d)(?P<m>\d{2})(?P<d>\d{2})(?P<y>\d{4})\.NASDAQ_ITCH", re.IGNORECASE), ""),
    (re.compile(r"(?<!\d)(?P<m>\d{2})(?P<d>\d{2})(?P<y>\d{2})-v\d", re.IGNORECASE), "20"),
    (re.compile(r"(?<!\d)(?P<y>(19|20)\d{2})([-_]?)(?P<m>\d{2})\3(?P<d>\d{2})(?!\d)"), ""),
)
_CLAIMS = re.compile(r"ITCH_?50|-v50\b", re.IGNORECASE)
SURE_FRAMED, SURE_BARE = 3, 8  # messages in a row, for which a file is taken for ITCH


# ------------------------------------------------------------------ finding the parts


def sniff(path: Path, head: bytes) -> bool:
    """Whether it begins with ITCH messages, or the name says so."""
    if containers.container(path) in ("zip", "Parquet", "Arrow IPC"):
        return False
    if b"\0" in head[:64]:
        from hftlab.kernels.feeds.itch import BARE

        framing, count, whole = _framing(head)
        if whole or count >= (SURE_BARE if framing == BARE else SURE_FRAMED):
            return True
    return bool(_CLAIMS.search(path.name))


def load(
    path: Path,
    *,
    format: str | None = None,
    symbols: Iterable[str] | None = None,
    date: str | Date | None = None,
) -> Flow:
    """Read a file of ITCH messages as an mbo table, when it is asked for.

    Parameters: `symbols` are the only ones that rows are made of; `date` where the name doesn't tell it.

    Raises FormatError for a file without a message, UsageError for a date that is none.
    """
    midnight, notes = _midnight_ns(path, date)
    framing, count, _ = _framing(containers.head(path, raw=True))
    if not count:
        raise FormatError(path, "no message at the beginning", "NASDAQ TotalView-ITCH 5.0 messages")
    wanted = split_symbols(symbols)
    reader = Reader(path, framing, midnight, wanted, notes)
    extras = {name: partial(reader.extra, name) for name in LAYOUTS}
    return Flow(
        path,
        "itch",
        "mbo",
        reader.table,
        symbols=wanted,
        notes=reader.notes,
        batches=reader.batches,
        most_rows=reader.most_rows,
        faults=reader.faults,
        extras=extras,
    )


def _midnight_ns(path: Path, date: str | Date | None) -> tuple[int, list[str]]:
    """Midnight in New York in UTC nanoseconds; and a note, where nobody says of which day."""
    day = date or _told_date(path)
    if day is not None:
        return times.midnight_ns(path, day, ZONE), []
    note = f"no date in the file name: the day is {NO_DATE} (option date=YYYY-MM-DD)"
    return times.midnight_ns(path, NO_DATE, ZONE), [note]


def _told_date(path: Path) -> Date | None:
    """The date in the file's name."""
    for pattern, century in _NAMES:
        if found := pattern.search(path.name):
            try:
                return Date(int(century + found["y"]), int(found["m"]), int(found["d"]))
            except ValueError:
                continue
    return None


def _framing(head: bytes) -> tuple[int, int, bool]:
    """How messages are framed, how many sound ones the head begins with, and whether they are all of it.

    Where it begins with damage, the first place counts from which messages follow each other.
    """
    from hftlab.kernels.feeds.itch import BARE, FRAMED, SOUP, count_messages, find_back

    data, best = np.frombuffer(head, np.uint8), (FRAMED, 0, False)
    for framing in (FRAMED, SOUP, BARE):
        count, end, cut = count_messages(data, 0, data.size, framing)
        if count > best[1]:
            best = framing, int(count), bool(end == data.size or (cut and framing != BARE))
    if best[1]:
        return best
    for framing in (FRAMED, SOUP, BARE):
        position, found = find_back(data, 0, data.size, True, framing)
        if found:
            return framing, int(count_messages(data, position, data.size, framing)[0]), False
    return best


# ------------------------------------------------------------------ bytes to tables


class Window:
    """The bytes of a file that are being looked at: a part of a plain one, block after block of others.

    Attributes: `data`, `base` (offset of its first byte in the decompressed file), `last` (nothing follows).
    """

    def __init__(self, path: Path) -> None:
        self.path, self.base, self.last, self.fault = path, 0, False, None
        self.data = np.frombuffer(b"", np.uint8)
        self._blocks = None if containers.container(path) == "text" else containers.blocks(path, raw=True)

    def more(self, position: int) -> int:
        """Go on with what follows, from `position` of what there is; the position at which that is now."""
        if self._blocks is None:
            return self._moved(position)
        kept = self.data[position:]
        self.base += position
        try:
            block = next(self._blocks, None)
        except containers.EndsEarly as error:
            if self.base + kept.size == 0:
                raise
            block, self.fault = None, Fault(f"byte {self.base + kept.size:,}", error.found, error.expected)
        self.last = block is None
        block = np.frombuffer(block or b"", np.uint8)
        self.data = np.concatenate((kept, block)) if kept.size else block
        self.data.setflags(write=False)
        return 0

    def _moved(self, position: int) -> int:
        """The next window of a plain file, longer where this one was too short for what stands in it."""
        offset, size = self.base + position, max(containers.WINDOW_BYTES, 2 * (self.data.size - position))
        self.data = np.frombuffer(b"", np.uint8)  # given back before the next is mapped
        window, before = containers.mapped(self.path, offset, size)
        self.data, self.base = np.frombuffer(window, np.uint8), offset - before
        self.last = self.base + self.data.size >= self.path.stat().st_size
        return before


class Reader:
    """One file, read as often as it is asked for; what was odd about it is known after a whole reading."""

    def __init__(
        self, path: Path, framing: int, midnight: int, symbols: tuple[str, ...] | None, notes: list[str]
    ) -> None:
        self.path, self.framing, self.midnight, self.symbols = path, framing, midnight, symbols
        self._first_notes, self.notes = tuple(notes), notes
        self.faults: list[Fault] = []
        plain = containers.container(path) == "text"
        self.most_rows = path.stat().st_size // BYTES_PER_ROW + 2 if plain else None

    def table(self) -> pa.Table:
        """All rows. Raises FormatError for a broken container."""
        rows = CHUNK_ROWS if self.most_rows is None else min(self.most_rows, MOST_ROWS)
        return pa.concat_tables(self.batches(rows)).unify_dictionaries()

    def batches(self, rows: int) -> Iterator[pa.Table]:
        """All rows, so many at a time. Raises FormatError for a broken container."""
        from hftlab.kernels.feeds import itch

        window = Window(self.path)
        session = itch.start_session(_letters(self.symbols))
        columns, place, position, given = _new_columns(rows, self.symbols), 0, 0, False
        while True:
            position, place = itch.decode(
                window.data,
                position,
                window.data.size,
                window.last,
                self.framing,
                window.base,
                self.midnight,
                session,
                columns,
                place,
                rows,
            )
            if place >= rows:
                yield _table(columns, rows, session)
                given = True
                columns, place = _carried(columns, rows, place), place - rows
            elif session.totals[itch.FULL]:
                session = itch.grown(session)
            elif window.last:
                break
            else:
                position = window.more(position)
        self._conclude(session, window, position)
        if place or not given:
            yield _table(columns, place, session)

    def _conclude(self, session: Session, window: Window, position: int) -> None:
        """What was odd, now that all is read."""
        self.notes[:] = [*self._first_notes, *_notes(session)]
        self.faults[:] = _faults(session, window, position)

    def extra(self, name: str) -> pa.Table:
        """The messages of a type as a table, those without a stock or of the symbols asked for."""
        layout = LAYOUTS[name]
        raw, sequence = self._messages(layout.kind, layout.dtype)
        columns = {
            "ts_event": pa.array(_clock(raw) + self.midnight).view(TIMESTAMP),
            "sequence": pa.array(sequence),
        }
        if layout.named:
            columns["symbol"] = self._symbols(raw, layout)
        for field in layout.fields:
            if field.name != "stock":
                columns[field.name] = field.column(raw[field.name])
        table = pa.table(columns)
        if self.symbols is None or not layout.named:
            return table
        return table.filter(np.isin(table["symbol"].to_numpy(), self.symbols))

    def _messages(self, kind: str, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """All messages of a type, and their numbers."""
        from hftlab.kernels.feeds import itch

        window, position = Window(self.path), 0
        totals, faults = np.zeros(itch.TOTALS, np.int64), np.zeros((5, 3), np.int64)
        found = np.empty((FOUND_AT_ONCE, 2), np.int64)
        parts, numbers = [np.empty(0, dtype)], [np.empty(0, np.int64)]
        places = np.arange(dtype.itemsize)
        while True:
            position, count = itch.walk(
                window.data,
                position,
                window.data.size,
                window.last,
                self.framing,
                ord(kind),
                totals,
                faults,
                found,
            )
            parts.append(window.data[found[:count, :1] + places].view(dtype).reshape(count))
            numbers.append(found[:count, 1].copy())
            if count < len(found):
                if window.last:
                    break
                position = window.more(position)
        return np.concatenate(parts), np.concatenate(numbers)

    def _symbols(self, raw: np.ndarray, layout: Layout) -> pa.Array:
        """The stock of each message, or what the directory says of its locate."""
        if "stock" in raw.dtype.names:
            return _texts(raw["stock"])
        directory = self._messages("R", LAYOUTS["directory"].dtype)[0]
        names = dict(zip(directory["locate"].tolist(), map(_text, directory["stock"].tolist()), strict=True))
        locates, indices = np.unique(raw["locate"], return_inverse=True)
        texts = pa.array([names.get(locate) or f"#{locate}" for locate in locates.tolist()], pa.string())
        return pa.DictionaryArray.from_arrays(indices.astype(np.int32), texts)


def _letters(symbols: tuple[str, ...] | None) -> np.ndarray:
    """Symbols as ITCH writes them, 8 letters as an integer."""
    padded = [symbol.encode(errors="replace").ljust(8) for symbol in symbols or ()]
    return np.array([int.from_bytes(p, "big", signed=True) if len(p) == 8 else -1 for p in padded], np.int64)


def _new_columns(rows: int, symbols: tuple[str, ...] | None) -> Columns:
    """Buffers for so many rows, and one more: a message may have two.

    All are parts of one piece of memory: what the system gives in large pages costs a third to touch.
    """
    from hftlab.kernels.feeds.itch import Columns

    types = {"symbol": "i4", "action": "i1", "side": "i1", "flags": "u1"}
    kinds = [np.dtype(types.get(name, "i8")) for name in Columns._fields]
    counts = [rows + 1] * (len(kinds) - 1) + [0 if symbols is None else rows + 1]
    sizes = [-(-count * kind.itemsize // 64) * 64 for count, kind in zip(counts, kinds, strict=True)]
    memory, ends = np.empty(sum(sizes), np.uint8), np.cumsum(sizes).tolist()
    starts = [end - size for end, size in zip(ends, sizes, strict=True)]
    parts = zip(starts, counts, kinds, strict=True)
    return Columns(*(memory[a : a + count * kind.itemsize].view(kind) for a, count, kind in parts))


def _carried(columns: Columns, rows: int, place: int) -> Columns:
    """New buffers that begin with the row too many of the old."""
    fresh = _new_columns(rows, () if columns.row.size else None)
    for old, new in zip(columns, fresh, strict=True):
        new[: place - rows] = old[rows:place]
    return fresh


def _table(columns: Columns, rows: int, session: Session) -> pa.Table:
    """The first rows of the buffers as an mbo table."""
    cut = columns._make(column[:rows] for column in columns)
    ts = pa.array(cut.ts).view(TIMESTAMP)
    names, number = _names(session)
    symbol = cut.symbol if number is None else number[cut.symbol]
    arrays = [
        ts,
        ts,
        pa.DictionaryArray.from_arrays(pa.array(symbol), names, safe=False),
        code_array(cut.action, MboAction),
        pa.array(cut.side),
        pa.array(cut.price),
        pa.array(cut.size),
        pa.array(cut.order_id.view("u8")),
        pa.array(cut.flags),
        pa.array(cut.sequence),
    ]
    table = pa.Table.from_arrays(arrays, schema=MBO)
    return table.append_column(SEQ, pa.array(cut.row)) if columns.row.size else table


def _names(session: Session) -> tuple[pa.Array, np.ndarray | None]:
    """Symbols by number; and, where a name is there twice, the number that each number becomes."""
    from hftlab.kernels.feeds.itch import BOOKS

    count = session.totals[BOOKS]
    words = session.names[:count].astype(">i8").view("S8").tolist()
    names = [_text(w) or f"#{locate}" for w, locate in zip(words, session.locates[:count], strict=True)]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    numbers = None if len(places) == len(names) else np.array([places[name] for name in names], np.int32)
    return pa.array(list(places), pa.string()), numbers


def _text(raw: bytes) -> str:
    return raw.decode("latin-1").rstrip(" \0")


def _notes(session: Session) -> list[str]:
    """Counted quirks, for people."""
    from hftlab.kernels.feeds import itch

    quirks = (
        (itch.UNKNOWN, "messages about orders that are not open (side 0, price 0)"),
        (itch.TWICE, "orders added under a reference that was open (the older one is forgotten)"),
        (itch.EXCEEDED, "executions and cancels of more than was open"),
        (itch.NAMELESS, "symbols without a directory message"),
        (itch.BACKWARDS, "messages earlier than the one before (file order is kept)"),
        (itch.SKIPPED, "bytes passed over because of damage"),
    )
    return [f"{text}: {session.totals[which]:,}" for which, text in quirks if session.totals[which]]


def _faults(session: Session, window: Window, position: int) -> list[Fault]:
    """Damage that was met, the kinds in order of their first place."""
    from hftlab.kernels.feeds import itch

    found = []
    for kind, (count, offset, value) in enumerate(session.faults.tolist()):
        if count:
            found.append((offset, Fault(f"byte {offset:,}", *_said(kind, value), count)))
    faults = [fault for _, fault in sorted(found)]
    rest = window.data.size - position
    if rest and not session.totals[itch.LOST]:
        what = f"{rest} bytes of a message" if rest > 1 else "1 byte of a message"
        faults.append(Fault(f"byte {window.base + position:,}", what, "all of it"))
    if window.fault is not None:
        faults.append(window.fault)
    return faults


def _said(kind: int, value: int) -> tuple[str, str]:
    """What was found and expected where there is damage of a kind."""
    from hftlab.kernels.feeds import itch

    letter = repr(chr(value & 0xFF))
    return {
        itch.UNKNOWN_TYPE: (f"message type {letter}", "one of the 23 types of ITCH 5.0"),
        itch.WRONG_LENGTH: (
            f"a message of type {letter} and {value >> 8} bytes",
            f"{itch.LENGTHS[value & 0xFF]} bytes",
        ),
        itch.EMPTY_FRAME: ("a message of 0 bytes", "a message, or the end of the file"),
        itch.UNKNOWN_PACKET: (f"packet type {letter}", "one of SoupBinTCP's"),
        itch.NO_SIDE: (f"side {letter}", "B or S"),
    }[kind]


# ------------------------------------------------------------------ messages that are not about orders


class Field(NamedTuple):
    """A field of a message: where it stands is told by those before it."""

    name: str
    kind: str  # of the keys of _FORMATS

    def column(self, raw: np.ndarray) -> pa.Array:
        """Its column of a table."""
        if self.kind.startswith("text"):
            return _texts(raw)
        if self.kind == "side":
            return pa.array((raw == b"B").astype(np.int8) - (raw == b"S").astype(np.int8))
        if self.kind == "price":
            return pa.array(raw.astype(np.int64) * PRICE_UNITS)
        if self.kind == "price8":
            fits = raw <= UNDEF_PRICE // PRICE8_UNITS
            return pa.array(np.where(fits, raw, 0).astype(np.int64) * PRICE8_UNITS, mask=~fits)
        return pa.array(raw.astype(raw.dtype.newbyteorder("=")))


_FORMATS = {
    "text1": "S1",
    "text2": "S2",
    "text4": "S4",
    "text8": "S8",
    "side": "S1",
    "price": ">u4",
    "price8": ">u8",
    "int4": ">u4",
    "int8": ">u8",
}
_HEADER = [
    ("type", "S1"),
    ("locate", ">u2"),
    ("tracking", ">u2"),
    ("clock_high", ">u2"),
    ("clock_low", ">u4"),
]


class Layout(NamedTuple):
    """A type of message that is kept as a table."""

    kind: str
    fields: tuple[Field, ...]
    named: bool  # whether it is about an instrument

    @property
    def dtype(self) -> np.dtype:
        """The message as it stands in the file."""
        return np.dtype(_HEADER + [(field.name, _FORMATS[field.kind]) for field in self.fields])


def _layout(kind: str, fields: str, named: bool = True) -> Layout:
    """From words like "shares:int4"; one letter of text where nothing is said, the stock is 8."""
    words = [word.partition(":") for word in fields.split()]
    kinds = [what or ("text8" if name == "stock" else "text1") for name, _, what in words]
    return Layout(kind, tuple(Field(w[0], what) for w, what in zip(words, kinds, strict=True)), named)


LAYOUTS = {
    "system": _layout("S", "event", named=False),
    "directory": _layout(
        "R",
        "stock market_category financial_status round_lot_size:int4 round_lots_only issue_classification "
        "issue_subtype:text2 authenticity short_sale_threshold ipo luld_tier etp etp_leverage:int4 inverse",
    ),
    "trading_action": _layout("H", "stock state reserved reason:text4"),
    "reg_sho": _layout("Y", "stock action"),
    "mpid": _layout("L", "mpid:text4 stock primary_market_maker mode state"),
    "mwcb_levels": _layout("V", "level_1:price8 level_2:price8 level_3:price8", named=False),
    "mwcb_status": _layout("W", "breached_level", named=False),
    "ipo": _layout("K", "stock release_time_s:int4 qualifier price:price"),
    "luld": _layout("J", "stock reference_price:price upper_price:price lower_price:price extension:int4"),
    "operational_halt": _layout("h", "stock market action"),
    "attributed": _layout("F", "order_id:int8 side shares:int4 stock price:price mpid:text4"),
    "executions": _layout("E", "order_id:int8 shares:int4 match_number:int8"),
    "priced_executions": _layout("C", "order_id:int8 shares:int4 match_number:int8 printable price:price"),
    "trades": _layout("P", "order_id:int8 side shares:int4 stock price:price match_number:int8"),
    "cross_trades": _layout("Q", "shares:int8 stock price:price match_number:int8 cross_type"),
    "broken": _layout("B", "match_number:int8"),
    "noii": _layout(
        "I",
        "paired_shares:int8 imbalance_shares:int8 imbalance_direction stock far_price:price near_price:price "
        "reference_price:price cross_type price_variation",
    ),
    "rpii": _layout("N", "stock interest"),
    "direct_listing": _layout(
        "O",
        "stock open_eligibility lowest_price:price highest_price:price near_price:price near_time:int8 "
        "lower_collar:price upper_collar:price",
    ),
}


def _clock(raw: np.ndarray) -> np.ndarray:
    """Times since midnight, ns."""
    return (raw["clock_high"].astype(np.int64) << 32) | raw["clock_low"]


def _texts(raw: np.ndarray) -> pa.Array:
    """A column of letters as a dictionary, without the blanks behind them."""
    values, indices = np.unique(raw, return_inverse=True)
    names = pa.array([_text(value) for value in values.tolist()], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int32)), names)
