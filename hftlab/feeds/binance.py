"""Binance: raw stream captures, one JSON message a line, as price levels (`mbp`).

::

    1723161254137307667 {"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255408, ...}}

The receive time before the message (ns, or us or ms, told by its magnitude) and the combined-stream wrapper
may both be missing, and spot and futures messages are told apart by `pu`.

================================ ===================================================================
message                          mbp rows
================================ ===================================================================
depth snapshot (REST)            R, then M per level, bids first, flag 32; sequence = lastUpdateId
depthUpdate                      M per level that is set, size 0 for one that is gone; sequence = u
depthUpdate without levels       N, so that the update id is not lost
trade, aggTrade                  T, side of the aggressor (the seller where `m`); sequence = its id
bookTicker                       none: `extras["book_ticker"]`, an independent best bid and ask
partial books, other streams     none: counted in the notes
================================ ===================================================================

Flag 128 stands on the last row of each message, flag 4 on updates of a book that may be wrong: after a gap,
or without a snapshot. `ts_event` is `E`, `ts_recv` the receive time (`ts_event` in a capture without). A
spot snapshot has no time of its own: it gets that of the update it follows. Prices are exact; sizes are
lots of 1e-8 (option `lot`, a power of ten).

**The book.** Binance documents how a book is kept ("How to manage a local order book correctly", in the
documentation of the spot and of each futures API), and this feed does what it says: updates that came before
the snapshot wait for it; those it already contains (u <= lastUpdateId, futures u < lastUpdateId) are
dropped; the first after it must bracket lastUpdateId + 1; then U is the previous u + 1 (futures: pu is the
previous u). So the snapshot stands before the first update it doesn't contain, wherever the capture has it.
What is dropped is counted in the notes; a gap is a fault with its row, and the book goes on as it is until a
snapshot that covers the gap replaces it. Snapshots of a book without gaps that are not ahead of it aren't
used. Without a snapshot the book begins empty and levels appear as they change.

A snapshot says nothing about levels beyond its own (1,000 or 5,000 a side): those appear when they change.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from hftlab.codes import (
    DEFAULT_SYMBOL,
    MBO_FLAG_LAST,
    MBO_FLAG_MAYBE_BAD,
    MBO_FLAG_SNAPSHOT,
    PRICE_SCALE,
    MboAction,
)
from hftlab.errors import FormatError, UsageError, optional_name
from hftlab.feeds import source
from hftlab.feeds.flow import Fault, Flow
from hftlab.feeds.tables import resliced
from hftlab.schema import MBP, SYMBOL, TIMESTAMP, code_array

DESCRIPTION = "Binance stream captures (depth, trades, book tickers, snapshots)"

LOT = "0.00000001"
HELD_UPDATES = 5_000  # of one book without a snapshot; eight minutes at 100 ms
KINDS_OF_FAULTS = 100
GAPS_LISTED = 20
LINE_BYTES = 1 << 26

UPDATE, TRADE, SNAPSHOT, TICKER = range(4)
_MAX = 2**63 - 1
_NS_PER_MS, _NS_PER_US = 1_000_000, 1_000
_MAX_MS = _MAX // _NS_PER_MS  # what is above are microseconds
_OLDEST_NS = 10**17  # of a receive time in ns: 1973
_OLDEST_MS = 10**11

_PRICE_DECIMALS = len(str(PRICE_SCALE)) - 1
_NUMBER = re.compile(r"\d{1,19}(\.\d{1,9})?")
_LEVEL = b'["",""],'  # what is left of a level without its digits
_DIGITS = b"0123456789."
_QUOTE = b"[[%b,%b],[%b,%b]]"
_PARTIAL = re.compile(r"@depth\d+(@|$)")
_STREAM = re.compile(r"([^@!]+)@")
_SNAPSHOT_START = re.compile(rb'\d{0,19} ?\{(?:"stream":"[^"]*","data":\{)?"lastUpdateId":\d+,')
_BYTE = re.compile(r" \(byte \d+\)")

TICKERS = pa.schema(
    [
        ("ts", TIMESTAMP),
        ("symbol", SYMBOL),
        ("u", pa.int64()),
        ("bid_px", pa.int64()),
        ("bid_sz", pa.int64()),
        ("ask_px", pa.int64()),
        ("ask_sz", pa.int64()),
    ]
)
TRADES = pa.schema(
    [
        ("ts_event", TIMESTAMP),
        ("ts_recv", TIMESTAMP),
        ("ts_trade", TIMESTAMP),
        ("symbol", SYMBOL),
        ("trade_id", pa.int64()),
        ("price", pa.int64()),
        ("size", pa.int64()),
        ("aggressor_side", pa.int8()),
        ("aggregate", pa.bool_()),
    ]
)

_Id = Annotated[int, msgspec.Meta(ge=0, le=_MAX)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=_MAX // _NS_PER_US)]


class _Message(
    msgspec.Struct,
    gc=False,
    rename={
        "event": "e",
        "time": "E",
        "symbol": "s",
        "first_id": "U",
        "last_id": "u",
        "previous_id": "pu",
        "bids": "b",
        "asks": "a",
        "bid_size": "B",
        "ask_size": "A",
        "trade_id": "t",
        "price": "p",
        "size": "q",
        "trade_time": "T",
        "buyer_rests": "m",
        "snapshot_id": "lastUpdateId",
        "snapshot_bids": "bids",
        "snapshot_asks": "asks",
    },
):
    """Every message of interest, wrapped or not; numbers stay text until they are read in bulk."""

    event: str | None = None
    time: _Time | None = None
    symbol: str | None = None
    first_id: _Id | None = None
    last_id: _Id | None = None
    previous_id: _Id | None = None
    bids: msgspec.Raw = None
    asks: msgspec.Raw = None
    bid_size: msgspec.Raw = None
    ask_size: msgspec.Raw = None
    trade_id: _Id | None = None
    price: msgspec.Raw = None
    size: msgspec.Raw = None
    trade_time: _Time | None = None
    buyer_rests: bool | None = None
    snapshot_id: _Id | None = None
    snapshot_bids: msgspec.Raw = None
    snapshot_asks: msgspec.Raw = None
    stream: str | None = None
    data: _Message | None = None


_EVENTS = {"depthUpdate": UPDATE, "trade": TRADE, "aggTrade": TRADE, "bookTicker": TICKER}
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NEEDED = {  # by kind: what such a message must have, beside what tells its kind
    UPDATE: {"symbol": "s", "time": "E", "first_id": "U", "last_id": "u", "bids": "b", "asks": "a"},
    TRADE: {"symbol": "s", "time": "E", "price": "p", "size": "q", "buyer_rests": "m"},
    SNAPSHOT: {"snapshot_bids": "bids", "snapshot_asks": "asks"},
    TICKER: {"symbol": "s", "last_id": "u", "bids": "b", "bid_size": "B", "asks": "a", "ask_size": "A"},
}
_NEEDED_OF = [attrgetter(*_NEEDED[kind]) for kind in range(len(_NEEDED))]
_NAMES = {UPDATE: "depthUpdate", TRADE: "trade", SNAPSHOT: "depth snapshot", TICKER: "bookTicker"}


class _Event(NamedTuple):
    """One update, snapshot or trade; its levels are among the numbers read with it, bids first."""

    kind: int
    row: int  # 1-based line
    recv: int | None  # ns
    ts: int | None  # ns
    symbol: str | None
    first: int | None  # U
    last: int  # u, lastUpdateId or the trade's id
    previous: int | None  # pu, of futures
    bids: int  # levels; of a trade 1 where the buyer is the aggressor
    asks: int
    trade_ts: int | None = None
    aggregate: bool = False

    @property
    def levels(self) -> int:
        return self.bids + self.asks


class _Ticker(NamedTuple):
    """One bookTicker."""

    row: int
    ts: int  # ns
    symbol: str
    update: int  # u
    levels = 2


class _Held(NamedTuple):
    """An event kept for later, with its own numbers, so that its block need not be."""

    event: _Event
    prices: np.ndarray
    sizes: np.ndarray


# ------------------------------------------------------------------ the feed


def sniff(path: Path, head: bytes) -> bool:
    """Whether one of the first lines is a message that this feed reads."""
    if _SNAPSHOT_START.match(head):
        return True
    decode = msgspec.json.Decoder(_Message).decode
    for line in head.split(b"\n")[:20]:
        start = line.find(b"{")
        if start < 0 or not (start == 0 or line[:start].strip().isdigit()):
            continue
        try:
            message = decode(line[start:])
        except _BROKEN:
            continue
        if _kind(message.data or message, message.stream) is not None:
            return True
    return False


def load(
    path: Path,
    *,
    format: str | None = None,
    symbols: Iterable[str] | None = None,
    symbol: str | None = None,
    lot: str | float = LOT,
) -> Flow:
    """Open a capture.

    Parameters: `symbol` is the instrument of snapshots that don't say theirs (REST's don't), by default the
    one whose update ids are nearest; `lot` is what one unit of size is, a power of ten from 1e-9 to 1.

    Raises UsageError for another lot; reading it raises FormatError where it has no message that is known.
    """
    capture = _Capture(path, optional_name("symbol", symbol), _decimals(lot))
    return Flow(
        path,
        "binance",
        "mbp",
        capture.table,
        symbols=symbols,
        notes=capture.notes,
        faults=capture.faults,
        batches=capture.batches,
        extras={"book_ticker": capture.tickers, "trades": capture.trades},
    )


def _decimals(lot: str | float) -> int:
    """Decimals of a size in lots: 8 of 0.00000001."""
    try:
        return {float(f"1e-{n}"): n for n in range(_PRICE_DECIMALS + 1)}[float(lot)]
    except (TypeError, ValueError, KeyError):
        raise UsageError(f"lot: found {lot!r}, expected a power of ten from 0.000000001 to 1") from None


class _Capture:
    """A file that may be read as often as it is asked for; notes and faults are of the last reading."""

    def __init__(self, path: Path, symbol: str | None, decimals: int) -> None:
        self.path, self.symbol, self.decimals = path, symbol, decimals
        self.notes: list[str] = []
        self.faults: list[Fault] = []

    def table(self) -> pa.Table:
        """The whole mbp table."""
        return _joined([tables.book for tables in self._read()])

    def batches(self, rows: int) -> Iterator[pa.Table]:
        """The same in pieces of so many rows, a block of the file at a time."""
        return resliced((b for tables in self._read() for b in tables.book.to_batches()), MBP, rows)

    def tickers(self) -> pa.Table:
        """Every bookTicker: best bid and ask as the venue published them."""
        return _joined([tables.tickers for tables in self._read()])

    def trades(self) -> pa.Table:
        """Every trade and aggTrade, with the time of the trade itself."""
        return _joined([tables.trades for tables in self._read()])

    def _read(self) -> Iterator[_Tables]:
        reading = _Reading(self.path, self.symbol, self.decimals)
        try:
            for first_row, lines in reading.lines():
                yield reading.block(first_row, lines)
            yield reading.end()
        finally:
            self.notes[:], self.faults[:] = reading.notes(), reading.faults.listed()


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


# ------------------------------------------------------------------ lines to messages


class _Faults:
    """Damage by kind, in the order it was met."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], str] = {}
        self._count: Counter[tuple[str, str]] = Counter()

    def add(self, where: str, found: str, expected: str) -> None:
        kind = (found, expected)
        if kind not in self._first and len(self._first) >= KINDS_OF_FAULTS:
            kind = ("damage of more kinds", "the messages of a capture")
        self._first.setdefault(kind, where)
        self._count[kind] += 1

    def listed(self) -> list[Fault]:
        return [Fault(where, *kind, self._count[kind]) for kind, where in self._first.items()]


class _Tables(NamedTuple):
    """What a block of lines becomes."""

    book: pa.Table
    tickers: pa.Table
    trades: pa.Table


class _Reading:
    """One pass over a capture: lines to messages, messages to books, books to rows."""

    def __init__(self, path: Path, symbol: str | None, decimals: int) -> None:
        self.path, self.symbol, self.decimals = path, symbol, decimals
        self.faults = _Faults()
        self.counts: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.early_ns = 0  # how far a receive time lies before the venue's
        self.last_ts = 0  # the venue's time where it was last told
        self.books: dict[str, _Book] = {}
        self.early: list[_Held] = []  # snapshots before anything that tells their symbol or time
        self._decode = msgspec.json.Decoder(_Message).decode

    def lines(self) -> Iterator[tuple[int, list[bytes]]]:
        """Whole lines, a block of them at a time, with the 1-based row of the first."""
        row, size, held = 1, 0, b""
        try:
            for block in source.blocks(self.path):
                size += len(block)
                *lines, held = (held + block).split(b"\n")
                if len(held) > LINE_BYTES:
                    found = f"{len(held):,} bytes without a line end"
                    raise FormatError(self.path, found, "a message a line", row + len(lines))
                yield row, lines
                row += len(lines)
        except source.EndsEarly as error:
            self.faults.add(f"byte {size:,}", error.found, error.expected)
            held = held if self._whole(held) else b""
        if held:
            yield row, [held]

    def _whole(self, line: bytes) -> bool:
        try:
            msgspec.json.decode(line[max(0, line.find(b"{")) :])
        except _BROKEN:
            return False
        return True

    def block(self, first_row: int, lines: list[bytes]) -> _Tables:
        """Lines as tables."""
        events, texts, tickers, ticker_texts = [], [], [], []
        for row, line in enumerate(lines, first_row):
            start = line.find(b"{")
            recv = _receive_time(line[:start]) if start > 0 else None
            if start < 0 or recv == _NO_TIME:
                self._bad_line(row, line, start)
                continue
            try:
                message = self._decode(line[start:])
            except _BROKEN as error:
                self._bad_message(row, line[start:], error)
                continue
            stream, message = message.stream, message.data or message
            kind = _kind(message, stream)
            if kind is None:
                self.others[message.event or stream or "without a name"] += 1
                continue
            if not self._complete(row, kind, message):
                continue
            ts = None if message.time is None else self._venue_time(message.time, recv)
            if kind is TICKER:
                tickers.append(_Ticker(row, recv or ts or self.last_ts, message.symbol, message.last_id))
                ticker_texts.append(_QUOTE % (message.bids, message.bid_size, message.asks, message.ask_size))
            else:
                event, text = (_trade if kind is TRADE else _levels)(kind, row, recv, ts, message, stream)
                events.append(event)
                texts.append(text)
        return self._tables(events, texts, tickers, ticker_texts)

    def _venue_time(self, time: int, recv: int | None) -> int:
        """`E` in ns; where the message was received before, the clocks differ."""
        self.last_ts = ts = _ns(time)
        if recv is not None and recv < ts:
            self.counts["early"] += 1
            self.early_ns = max(self.early_ns, ts - recv)
        return ts

    def _bad_line(self, row: int, line: bytes, start: int) -> None:
        """A line without a message, or with something else than a time before it; an empty one is none."""
        if start > 0:
            found = f"{_quoted(line[:start])} before a message"
            self.faults.add(f"row {row:,}", found, "a receive time, or nothing")
        elif line.strip():
            self.faults.add(f"row {row:,}", _quoted(line), "a message of JSON")

    def _bad_message(self, row: int, text: bytes, error: Exception) -> None:
        """Name what is wrong; a message of another stream is only counted with those."""
        said = _BYTE.sub("", source.said(error))
        try:
            found = msgspec.json.decode(text)
        except _BROKEN as why:
            broken = _BYTE.sub("", source.said(why))
            self.faults.add(f"row {row:,}", f"a message that is no JSON ({broken})", "a message a line")
            return
        inner = found.get("data", found)
        known = isinstance(inner, dict) and (inner.get("e", "") in ("", *_EVENTS))
        if known:
            self.faults.add(f"row {row:,}", f"a message out of shape ({said})", "one as Binance documents it")
        else:
            name = inner.get("e") if isinstance(inner, dict) else found.get("stream")
            self.others[str(name or "without a name")[:40]] += 1

    def _complete(self, row: int, kind: int, message: _Message) -> bool:
        """Whether a message has what its kind needs; a fault where it hasn't."""
        if None in _NEEDED_OF[kind](message):
            key = next(key for name, key in _NEEDED[kind].items() if getattr(message, name) is None)
            self.faults.add(f"row {row:,}", f"a {_NAMES[kind]} without {key!r}", f"{key!r} in each")
            return False
        if kind is UPDATE and message.first_id > message.last_id:
            self.faults.add(
                f"row {row:,}", "a depthUpdate with U above u", "the first update id below the last"
            )
            return False
        return True

    # -------------------------------------------------------------- messages to tables

    def _tables(
        self, events: list[_Event], texts: list[bytes], tickers: list[_Ticker], ticker_texts: list[bytes]
    ) -> _Tables:
        """Messages, and the texts of their levels, as tables."""
        tickers, *quotes = self._numbers(tickers, ticker_texts)
        events, prices, sizes = self._numbers(events, texts)
        self.counts["messages"] += len(events) + len(tickers)
        rows, trades, start = _Rows(prices, sizes), [], 0
        for event in events:
            if event.kind is SNAPSHOT:
                self._snapshot(event, start, rows)
            else:
                if event.kind is TRADE:
                    trades.append((event, start))
                    self.counts["aggregates" if event.aggregate else "trades"] += 1
                self._book(event, rows).take(event, start, rows)
            start += event.bids + event.asks
        return _Tables(
            rows.table(self.books), _ticker_table(tickers, *quotes), _trade_table(trades, prices, sizes)
        )

    def _numbers(self, items: list[Any], texts: list[bytes]) -> tuple[list[Any], np.ndarray, np.ndarray]:
        """The items whose levels can be read, with their prices and sizes; the others are faults."""
        try:
            return items, *_numbers([item.levels for item in items], texts, self.decimals)
        except (ValueError, OverflowError):  # Arrow's are ValueErrors
            kept, rewritten = self._readable(items, texts)
            return kept, *_numbers([item.levels for item in kept], rewritten, self.decimals)

    def _readable(self, items: list[Any], texts: list[bytes]) -> tuple[list[Any], list[bytes]]:
        """The items whose numbers can be read, their texts written as Binance does; faults of the others."""
        kept, rewritten = [], []
        for item, text in zip(items, texts, strict=True):
            try:
                levels = msgspec.json.decode(text, type=list[tuple[str, str]])
                if len(levels) != item.levels:
                    raise msgspec.ValidationError("quotes within a number")
                fault = _fault(levels, self.decimals)
            except _BROKEN as error:
                fault = f"levels out of shape ({_BYTE.sub('', source.said(error))})", "price and size as text"
            if fault is None:
                kept.append(item)
                rewritten.append(msgspec.json.encode(levels))
            else:
                self.faults.add(f"row {item.row:,}", *fault)
        return kept, rewritten

    def _book(self, event: _Event, rows: _Rows) -> _Book:
        """The book of a message that names its symbol, with the snapshots that had to wait for a name."""
        book = self._named(event.symbol)
        if event.kind is UPDATE and self.early:
            early, self.early = self.early, []
            for held in early:
                if held.event.symbol not in (None, event.symbol):
                    self.early.append(held)
                    continue
                book.snapshot(held.event._replace(ts=held.event.ts or event.ts), rows.put_back(held), rows)
        return book

    def _named(self, symbol: str) -> _Book:
        if symbol not in self.books:
            self.books[symbol] = _Book(len(self.books), self.counts, self.faults)
        return self.books[symbol]

    def _snapshot(self, event: _Event, start: int, rows: _Rows) -> None:
        """Give it to its book; one that comes before all that tells symbol or time waits for that."""
        event = event._replace(symbol=event.symbol or self.symbol)
        known = [book for book in self.books.values() if book.latest is not None]
        if event.symbol is None and known:
            book = min(known, key=lambda book: abs(book.latest - event.last))
        elif event.symbol in self.books or (event.symbol and (event.ts or event.recv)):
            book = self._named(event.symbol)
        else:
            self.early.append(rows.hold(event, start))
            return
        book.snapshot(event, start, rows)

    def end(self) -> _Tables:
        """What was still waiting.

        Raises FormatError where there was no message at all.
        """
        if not self.counts["messages"]:
            said = self.faults.listed()
            found = f"no message of Binance ({said[0]})" if said else "no message of Binance"
            raise FormatError(
                self.path, found, "depthUpdate, trade, bookTicker or a depth snapshot on each line"
            )
        rows = _Rows(np.empty(0, np.int64), np.empty(0, np.int64))
        for held in self.early:
            book = self._named(held.event.symbol or next(iter(self.books), DEFAULT_SYMBOL))
            book.snapshot(held.event, rows.put_back(held), rows)
        for book in self.books.values():
            book.end(rows)
        none = np.empty(0, np.int64)
        return _Tables(rows.table(self.books), _ticker_table([], none, none), _trade_table([], none, none))

    def notes(self) -> list[str]:
        """What a reader should know of it, counted."""
        without = [name for name, book in self.books.items() if book.began_empty]
        counts = self.counts
        found = [
            (counts["contained"], "updates that the snapshot already contains, dropped"),
            (counts["stale"], "updates older than the book, dropped"),
            (counts["gaps"], "sequence gaps"),
            (counts["missing"], "update ids missing in them"),
            (counts["unused"], "snapshots that add nothing to the book, not used"),
            (counts["aggregates"] and counts["trades"], "aggregate trades beside the trades they sum up"),
            (
                counts["early"],
                f"messages received before they were sent, by up to {self.early_ns / 1e9:.3f} s",
            ),
        ]
        notes = [f"{what}: {count:,}" for count, what in found if count]
        if without:
            notes.append(f"books without a snapshot, which begin empty: {', '.join(without[:10])}")
        if self.others:
            kinds = ", ".join(f"{name} {count:,}" for name, count in self.others.most_common(10))
            notes.append(f"messages of other streams, not used: {kinds}")
        if self.decimals and counts["messages"]:
            notes.append(f"a lot is {1 / 10**self.decimals:.{self.decimals}f}")
        return notes


_NO_TIME = -1


def _receive_time(text: bytes) -> int:
    """Nanoseconds, from whichever unit makes it a time after 1973; _NO_TIME where it is none."""
    text = text.strip()
    if not text.isdigit() or len(text) > 19 or not _OLDEST_MS <= (time := int(text)) <= _MAX:
        return _NO_TIME
    while time < _OLDEST_NS:
        time *= 1000
    return time if time <= _MAX else _NO_TIME


def _ns(time: int) -> int:
    """`E` or `T` in ns: milliseconds, or microseconds where the stream was asked for them."""
    return time * (_NS_PER_MS if time <= _MAX_MS else _NS_PER_US)


def _kind(message: _Message, stream: str | None) -> int | None:
    """Which kind of message this is; None for those of other streams."""
    if message.event is not None:
        return None if stream is not None and _PARTIAL.search(stream) else _EVENTS.get(message.event)
    if message.snapshot_id is not None:
        return None if stream is not None and _PARTIAL.search(stream) else SNAPSHOT
    return None if message.bid_size is None or message.ask_size is None else TICKER


def _trade(
    kind: int, row: int, recv: int | None, ts: int | None, m: _Message, _: str | None
) -> tuple[_Event, bytes]:
    """A complete trade message as an event and the text of its only level."""
    aggregate = m.event == "aggTrade"
    trade_id = m.trade_id or 0
    if aggregate and m.asks is not None and (text := bytes(m.asks)).isdigit() and len(text) < 19:
        trade_id = int(text)
    trade_ts = ts if m.trade_time is None else _ns(m.trade_time)
    sides = (0, 1) if m.buyer_rests else (1, 0)
    event = _Event(kind, row, recv, ts, m.symbol, None, trade_id, None, *sides, trade_ts, aggregate)
    return event, b"[[%b,%b]]" % (m.price, m.size)


def _levels(
    kind: int, row: int, recv: int | None, ts: int | None, m: _Message, stream: str | None
) -> tuple[_Event, bytes]:
    """A complete update or snapshot as an event and the text of its levels, bids first."""
    if kind is SNAPSHOT:
        bids, asks, last = bytes(m.snapshot_bids), bytes(m.snapshot_asks), m.snapshot_id
    else:
        bids, asks, last = bytes(m.bids), bytes(m.asks), m.last_id
    number = bids.count(b'"') // 4, asks.count(b'"') // 4
    text = bids[:-1] + b"," + asks[1:]
    if not all(number) and b"[]" in (bids, asks):
        text = bids if asks == b"[]" else asks
    symbol = m.symbol
    if symbol is None and stream is not None and (named := _STREAM.match(stream)):
        symbol = named[1].upper()
    return _Event(kind, row, recv, ts, symbol, m.first_id, last, m.previous_id, *number), text


def _quoted(text: bytes) -> str:
    """The beginning of bytes, fit for a message."""
    return repr(text[:40])[1:]


# ------------------------------------------------------------------ text to numbers


def _numbers(counts: list[int], texts: list[bytes], decimals: int) -> tuple[np.ndarray, np.ndarray]:
    """Prices (1e-9) and sizes (lots) of all levels, in order; `counts` levels in each text.

    Raises ValueError where a text isn't levels in the form Binance writes them, OverflowError for a number
    that doesn't fit.
    """
    joined = b",".join(texts)
    if joined.translate(None, _DIGITS) != b",".join(map(_skeleton, counts)):
        raise ValueError("levels of another form")
    if b"[]" in joined:
        joined = b",".join([text for text in texts if text != b"[]"])
    if not joined:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    lines = joined.translate(None, b'["').replace(b"],", b"\n").translate(None, b"]")
    from pyarrow import csv

    names, types = ["price", "size"], [pa.decimal128(38, _PRICE_DECIMALS), pa.decimal128(38, decimals)]
    table = csv.read_csv(
        pa.BufferReader(lines),
        read_options=csv.ReadOptions(column_names=names),
        parse_options=csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(column_types=dict(zip(names, types, strict=True)), null_values=[]),
    )
    return _whole_words(table.column(0)), _whole_words(table.column(1))


def _skeleton(levels: int) -> bytes:
    """A list of levels without its digits."""
    return _SKELETONS[levels] if levels < len(_SKELETONS) else b"[" + (_LEVEL * levels)[:-1] + b"]"


_SKELETONS = [b"[" + (_LEVEL * levels)[:-1] + b"]" for levels in range(256)]


def _whole_words(column: pa.ChunkedArray) -> np.ndarray:
    """Decimals as integers of their last place. Raises OverflowError where 64 bits don't hold one."""
    parts = []
    for chunk in column.chunks:
        words = np.frombuffer(chunk.buffers()[1], "<i8").reshape(-1, 2)[chunk.offset :][: len(chunk)]
        if words[:, 1].any() or (words[:, 0] < 0).any():
            raise OverflowError
        parts.append(words[:, 0])
    return np.concatenate(parts)


def _fault(levels: list[tuple[str, str]], decimals: int) -> tuple[str, str] | None:
    """What is wrong with the numbers of a message: (found, expected)."""
    for pair in levels:
        for what, text, places in zip(("price", "size"), pair, (_PRICE_DECIMALS, decimals), strict=True):
            whole, _, part = text.partition(".")
            fits = _NUMBER.fullmatch(text) and len(part) <= places
            if not fits or int(whole + part.ljust(places, "0")) > _MAX:
                expected = f"at most {places} decimals, and {_MAX // 10**places:,}"
                return f"{what} {text[:40]!r}", expected + (" (option lot)" if what == "size" else "")
    return None


# ------------------------------------------------------------------ messages to rows

_NOTHING = -1  # start of a row without price and size: the pool ends with a zero
_A, _M, _N, _R, _T = (MboAction[name] for name in "AMNRT")


class _Rows:
    """Rows of the mbp table, collected as runs of levels that share all but price and size."""

    def __init__(self, prices: np.ndarray, sizes: np.ndarray) -> None:
        self._prices, self._sizes, self._size = [prices], [sizes], prices.size
        self._runs: list[tuple[int, ...]] = []

    def hold(self, event: _Event, start: int) -> _Held:
        """An event with a copy of its own numbers."""
        where = slice(start, start + event.bids + event.asks)
        return _Held(event, self._prices[0][where].copy(), self._sizes[0][where].copy())

    def put_back(self, held: _Held) -> int:
        """Where the numbers of a held event are from now on."""
        self._prices.append(held.prices)
        self._sizes.append(held.sizes)
        self._size += held.prices.size
        return self._size - held.prices.size

    def add(self, event: _Event, start: int, number: int, flags: int = 0) -> None:
        """The rows of an update or a trade in book `number`."""
        action = _T if event.kind is TRADE else _M
        recv = event.ts if event.recv is None else event.recv
        self._add(action, start, event.bids, event.asks, (event.ts, recv, event.last, number, flags))

    def add_snapshot(self, event: _Event, start: int, number: int, ts: int) -> None:
        """R, then a row per level."""
        shared = (ts, ts if event.recv is None else event.recv, event.last, number, MBO_FLAG_SNAPSHOT)
        levels = event.bids + event.asks
        self._runs.append((_NOTHING, 1, 0, _R, *shared, 0 if levels else MBO_FLAG_LAST))
        if levels:
            self._add(_M, start, event.bids, event.asks, shared)

    def _add(self, action: int, start: int, bids: int, asks: int, shared: tuple[int, ...]) -> None:
        if bids:
            self._runs.append((start, bids, 1, action, *shared, 0 if asks else MBO_FLAG_LAST))
        if asks:
            self._runs.append((start + bids, asks, -1, action, *shared, MBO_FLAG_LAST))
        if not bids and not asks:
            self._runs.append((_NOTHING, 1, 0, _N, *shared, MBO_FLAG_LAST))

    def table(self, books: Iterable[str]) -> pa.Table:
        """All rows so far."""
        runs = np.array(self._runs, np.int64).reshape(-1, 10).T
        start, count, last = runs[0], runs[1], runs[9]
        ends = np.cumsum(count)
        at = np.arange(ends[-1] if ends.size else 0) + np.repeat(start - (ends - count), count)
        side, action, ts, recv, sequence, book, flags = (np.repeat(column, count) for column in runs[2:9])
        flags[ends - 1] |= last
        zero = np.zeros(1, np.int64)
        columns = [
            _times(ts),
            _times(recv),
            pa.DictionaryArray.from_arrays(
                pa.array(book.astype(np.int32)), pa.array(list(books), pa.string())
            ),
            code_array(action.astype(np.int8), MboAction),
            side.astype(np.int8),
            np.concatenate([*self._prices, zero])[at],
            np.concatenate([*self._sizes, zero])[at],
            flags.astype(np.uint8),
            sequence,
        ]
        return pa.Table.from_arrays([pa.array(column) for column in columns], schema=MBP)


def _times(ns: np.ndarray) -> pa.Array:
    return pa.array(ns).view(TIMESTAMP)


def _ticker_table(tickers: list[_Ticker], prices: np.ndarray, sizes: np.ndarray) -> pa.Table:
    columns = [
        _times(np.array([ticker.ts for ticker in tickers], np.int64)),
        _names([ticker.symbol for ticker in tickers]),
        pa.array([ticker.update for ticker in tickers], pa.int64()),
        *(pa.array(np.ascontiguousarray(v[side::2])) for side in (0, 1) for v in (prices, sizes)),
    ]
    return pa.Table.from_arrays(columns, schema=TICKERS)


def _trade_table(trades: list[tuple[_Event, int]], prices: np.ndarray, sizes: np.ndarray) -> pa.Table:
    events = [event for event, _ in trades]
    at = np.array([start for _, start in trades], np.int64)
    columns = [
        _times(np.array([e.ts for e in events], np.int64)),
        _times(np.array([e.ts if e.recv is None else e.recv for e in events], np.int64)),
        _times(np.array([e.trade_ts for e in events], np.int64)),
        _names([e.symbol for e in events]),
        pa.array([e.last for e in events], pa.int64()),
        pa.array(prices[at]),
        pa.array(sizes[at]),
        pa.array([1 if e.bids else -1 for e in events], pa.int8()),
        pa.array([e.aggregate for e in events], pa.bool_()),
    ]
    return pa.Table.from_arrays(columns, schema=TRADES)


def _names(symbols: Iterable[str]) -> pa.DictionaryArray:
    return pa.array(symbols, pa.string()).dictionary_encode()


class _Book:
    """Which messages of one instrument become rows, in which order: Binance's procedure."""

    def __init__(self, number: int, counts: Counter[str], faults: _Faults) -> None:
        self.number, self.counts, self.faults = number, counts, faults
        self.latest: int | None = None  # the last update id that was seen
        self.began_empty = False
        self._last: int | None = None  # the id the book has reached
        self._ts: int | None = None  # the venue's time of that
        self._seeded = False  # nothing but the snapshot so far
        self._waiting = True  # for the first snapshot
        self._gap = False  # since when the book isn't known to be right
        self._held: deque[_Held] = deque(maxlen=HELD_UPDATES)

    def take(self, event: _Event, start: int, rows: _Rows) -> None:
        """An update or a trade."""
        if event.kind is UPDATE:
            self.latest = event.last
        if not self._waiting:
            self._apply(event, start, rows)
            return
        self._held.append(rows.hold(event, start))
        if len(self._held) == HELD_UPDATES:
            self._begin_empty(rows)

    def snapshot(self, event: _Event, start: int, rows: _Rows) -> None:
        """Use a snapshot if the book needs it and it reaches far enough."""
        if not self._waiting:
            behind = self._last is not None and event.last <= self._last
            too_old = not self._held or event.last < _reach(self._held[0].event)
            if too_old if self._gap else behind:
                self.counts["unused"] += 1
                return
        held, was_waiting = list(self._held), self._waiting
        after = next((i for i, h in enumerate(held) if not _contained(h.event, event.last)), len(held))
        if was_waiting:
            self._drop(held[:after], rows)
        ts = self._snapshot_time(event, held, after)
        rows.add_snapshot(event, start, self.number, ts)
        self._held.clear()
        self._last, self._ts, self._seeded, self._waiting, self._gap = event.last, ts, True, False, False
        for h in held[after:]:
            self._apply(h.event, rows.put_back(h), rows, again=not was_waiting)

    def _drop(self, held: list[_Held], rows: _Rows) -> None:
        """What came before the snapshot: its updates are in it, its trades stay."""
        for h in held:
            if h.event.kind is TRADE:
                rows.add(h.event, rows.put_back(h), self.number)
            else:
                self.counts["contained"] += 1
                self._ts = h.event.ts

    def _snapshot_time(self, event: _Event, held: list[_Held], after: int) -> int:
        """The venue's time of a snapshot: its own, else that of the update it follows or precedes."""
        known = [event.ts, *(h.event.ts for h in held[:after][-1:]), self._ts]
        known += [*(h.event.ts for h in held[after : after + 1]), event.recv]
        return next((ts for ts in known if ts is not None), 0)

    def _begin_empty(self, rows: _Rows) -> None:
        """There is no snapshot: levels appear as they change, until one comes after all."""
        held, self.began_empty = list(self._held), True
        self._held.clear()
        self._waiting, self._gap = False, True
        for h in held:
            self._apply(h.event, rows.put_back(h), rows)

    def end(self, rows: _Rows) -> None:
        """The capture is over."""
        if self._waiting:
            updates = any(h.event.kind is UPDATE for h in self._held)
            self._begin_empty(rows)
            self.began_empty = updates

    def _apply(self, event: _Event, start: int, rows: _Rows, again: bool = False) -> None:
        """Make rows of an update or a trade; `again` where that was done before a new snapshot."""
        if event.kind is TRADE:
            rows.add(event, start, self.number)
            return
        if self._last is not None:
            same = event.last == self._last and not (self._seeded and event.previous is not None)
            if event.last < self._last or same:
                self.counts["contained" if self._seeded else "stale"] += 1
                return
            if not self._follows(event):
                self._break(event, again)
        rows.add(event, start, self.number, MBO_FLAG_MAYBE_BAD if self._gap else 0)
        self._last, self._ts, self._seeded = event.last, event.ts, False
        if self._gap:
            self._held.append(rows.hold(event, start))

    def _follows(self, event: _Event) -> bool:
        """Whether no update is missing, or there twice, between the book and this one."""
        return _reach(event) <= self._last if self._seeded else _reach(event) == self._last

    def _break(self, event: _Event, again: bool) -> None:
        """Say that updates are missing before this one."""
        missing = 0 if event.previous is not None else max(0, event.first - self._last - 1)
        if missing or event.previous is not None:
            self._gap = True
        if again:
            return
        self.counts["gaps"] += 1
        self.counts["missing"] += missing
        if self.counts["gaps"] > GAPS_LISTED:
            found, expected = f"a sequence gap beyond the first {GAPS_LISTED}", "no update missing"
        elif event.previous is not None:
            found, expected = f"pu {event.previous:,} after u {self._last:,}", "pu of each the u before"
        else:
            found, expected = (
                f"U {event.first:,} after u {self._last:,} ({missing:,} missing)",
                "U one above u",
            )
        self.faults.add(f"row {event.row:,}", found, expected)


def _reach(event: _Event) -> int:
    """The update id right before an update: a book that has reached it lacks nothing."""
    return event.first - 1 if event.previous is None else event.previous


def _contained(event: _Event, snapshot_id: int) -> bool:
    """Whether a snapshot already has an update; trades before the first that it hasn't go with those."""
    if event.kind is TRADE:
        return True
    return event.last < snapshot_id + (event.previous is None)
