"""One line of a Binance capture as an event: complete, times in ns, prices in 1e-9, sizes in lots.

Names of fields are Binance's (github.com/binance/binance-spot-api-docs, web-socket-streams.md; futures add
`pu`). Levels are written ``[["61000.01000000","0.50000000"],...]``. They stay text until many messages are
decoded: if all have exactly this form they are one CSV table to Arrow; if not, each message is read by
itself, and what can't be is a fault.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from operator import attrgetter
from typing import Annotated

import msgspec
import numpy as np
import pyarrow as pa

from hftlab.codes import PRICE_SCALE
from hftlab.feeds.flow import Fault
from hftlab.feeds.parsing import containers
from hftlab.feeds.parsing.cells import digits_of

PRICE_DECIMALS = len(str(PRICE_SCALE)) - 1
KINDS_OF_FAULTS = 100
UPDATE, TRADE, SNAPSHOT, TICKER = range(4)

_MAX = 2**63 - 1
_NS_PER_MS, _NS_PER_US = 1_000_000, 1_000
_MAX_MS = _MAX // _NS_PER_MS  # what is above are microseconds
_OLDEST_MS, _OLDEST_NS = 10**11, 10**17  # of a receive time: 1973
_NO_TIME = -1
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_PARTIAL = re.compile(r"@depth\d+(@|$)")
_SYMBOL = re.compile(r"([^@!]+)@")  # in the name of a stream
_BYTE = re.compile(r" \(byte \d+\)")
_LEVEL, _TOUCH, _NO_LEVELS = b"[[%b,%b]]", b"[[%b,%b],[%b,%b]]", b"[]"
_DIGITS = b"0123456789."
_LONGEST = 28  # characters of a number that fit a decimal of 38 digits whatever they are
_NUMBER = re.compile(r"[0-9]{1,19}(\.[0-9]+)?")  # \d would take the digits of every script

_Id = Annotated[int, msgspec.Meta(ge=0, le=_MAX)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=_MAX // _NS_PER_US)]


class _Message(msgspec.Struct, gc=False):
    """Every message of interest, wrapped or not."""

    e: str | None = None  # kind of event
    E: _Time | None = None  # event time, ms or us
    s: str | None = None  # symbol
    U: _Id | None = None  # first update id of the event
    u: _Id | None = None  # last update id
    pu: _Id | None = None  # u of the event before (futures)
    b: msgspec.Raw = None  # bids; of a ticker the best bid
    a: msgspec.Raw = None  # asks; of a ticker the best ask, of an aggTrade its id
    B: msgspec.Raw = None  # size of the best bid
    A: msgspec.Raw = None  # size of the best ask
    t: _Id | None = None  # trade id
    p: msgspec.Raw = None  # price
    q: msgspec.Raw = None  # size
    T: _Time | None = None  # trade time
    m: bool | None = None  # whether the buyer rests
    lastUpdateId: _Id | None = None  # of a snapshot
    bids: msgspec.Raw = None
    asks: msgspec.Raw = None
    stream: str | None = None  # the wrapper of combined streams
    data: _Message | None = None


_EVENTS = {"depthUpdate": UPDATE, "trade": TRADE, "aggTrade": TRADE, "bookTicker": TICKER}
_NAMES = ("depthUpdate", "trade", "depth snapshot", "bookTicker")
_NEEDED = ("s E U u b a", "s E p q m", "bids asks", "s u b B a A")  # by kind
_FIELDS = [attrgetter(*keys.split()) for keys in _NEEDED]


class Event(msgspec.Struct, gc=False):
    """One message. Its levels are prices (1e-9) and sizes (lots), bids first; they come when all are read."""

    kind: int
    row: int  # 1-based line
    symbol: str | None
    ts: int | None  # ns, of the venue; a ticker's is when it was received
    recv: int | None  # ns; ts where the capture doesn't say
    last: int = 0  # u, lastUpdateId or the trade's id
    bids: int = 0  # how many levels; of a trade 1 where the buyer is the aggressor, of a ticker 2
    asks: int = 0
    first: int | None = None  # U
    previous: int | None = None  # pu
    trade_ts: int | None = None  # ns
    aggregate: bool = False
    levels: np.ndarray | None = None  # int64 [bids + asks, 2]


class Damage(Exception):
    """What makes a message useless: what was found, what was expected."""


class Faults:
    """Damage by kind, in the order it was met."""

    def __init__(self) -> None:
        self._met: dict[tuple[str, str], Fault] = {}

    def add(self, where: str, found: str, expected: str) -> None:
        """Count one; the place of the first of each kind is kept."""
        kind = (found, expected)
        if kind not in self._met and len(self._met) >= KINDS_OF_FAULTS:
            kind = ("damage of more kinds", "the messages of a capture")
        fault = self._met.get(kind, Fault(where, *kind, 0))
        self._met[kind] = fault._replace(count=fault.count + 1)

    def listed(self) -> list[Fault]:
        """One fault for each kind."""
        return list(self._met.values())


_decode = msgspec.json.Decoder(_Message).decode


def is_message(line: bytes) -> bool:
    """Whether a line is a message of a kind that is read, complete or not."""
    start = line.find(b"{")
    if start < 0 or (start and not line[:start].strip().isdigit()):
        return False
    try:
        message = _decode(line[start:])
    except _BROKEN:
        return False
    return _kind(message.data or message, message.stream) is not None


def is_whole(line: bytes) -> bool:
    """Whether a line that may have been cut has a whole message, of whatever kind."""
    start = line.find(b"{")
    try:
        return start >= 0 and msgspec.json.decode(line[start:]) is not None
    except _BROKEN:
        return False


class Parser:
    """Lines to events, each with the texts of its bids and asks; messages of other streams are counted."""

    def __init__(self) -> None:
        self.others: Counter[str] = Counter()
        self.early = 0  # messages received before they were sent
        self.early_ns = 0  # by up to so much
        self._last_ts = 0  # the venue's time where it was last told

    def parse(self, row: int, line: bytes) -> tuple[Event, tuple[bytes, bytes]] | None:
        """The event of a line; None where that is empty, or a message of another stream.

        Raises Damage.
        """
        start = line.find(b"{")
        if start < 0:
            if line.strip():
                raise Damage(_quoted(line), "a message of JSON")
            return None
        recv = _receive_time(line[:start]) if start else None
        if recv == _NO_TIME:
            raise Damage(f"{_quoted(line[:start])} before a message", "a receive time, or nothing")
        try:
            m = _decode(line[start:])
        except _BROKEN as error:
            return self._unread(line[start:], error)
        stream, m = m.stream, m.data or m
        kind = _kind(m, stream)
        if kind is None:
            return self._other(m.e or stream)
        if None in _FIELDS[kind](m):
            key = next(key for key in _NEEDED[kind].split() if getattr(m, key) is None)
            raise Damage(f"a {_NAMES[kind]} without {key!r}", f"{key!r} in each")
        if kind is UPDATE and m.u < m.U:
            raise Damage("a depthUpdate with U above u", "the first update id below the last")
        ts = None if m.E is None else self._venue_time(m.E, recv)
        event = Event(kind, row, m.s, ts, ts if recv is None else recv)
        if kind is TICKER:
            event.ts = event.recv or self._last_ts
        elif m.s is None and (named := _SYMBOL.match(stream or "")):
            event.symbol = named[1].upper()
        return event, _TEXTS[kind](event, m)

    def _venue_time(self, time: int, recv: int | None) -> int:
        """`E` in ns; where the message was received before, the clocks differ."""
        self._last_ts = ts = _ns(time)
        if recv is not None and recv < ts:
            self.early += 1
            self.early_ns = max(self.early_ns, ts - recv)
        return ts

    def _unread(self, text: bytes, error: Exception) -> None:
        """Name what is wrong, but in a message of another stream. Raises Damage."""
        try:
            found = msgspec.json.decode(text)
        except _BROKEN as why:
            raise Damage(f"a message that is no JSON ({_said(why)})", "a message a line") from None
        inner = found.get("data", found)
        if not isinstance(inner, dict):
            return self._other(found.get("stream"))
        if inner.get("e", "") in ("", *_EVENTS):
            raise Damage(f"a message out of shape ({_said(error)})", "one as Binance documents it")
        return self._other(inner["e"])

    def _other(self, name: object) -> None:
        self.others[str(name or "without a name")[:40]] += 1


def _kind(m: _Message, stream: str | None) -> int | None:
    """Which kind of message this is; None for those of other streams."""
    if m.e is None and m.lastUpdateId is None:
        return None if m.B is None or m.A is None else TICKER
    partial = stream is not None and _PARTIAL.search(stream)
    return None if partial else SNAPSHOT if m.e is None else _EVENTS.get(m.e)


def _update(event: Event, m: _Message) -> tuple[bytes, bytes]:
    event.first, event.last, event.previous = m.U, m.u, m.pu
    return _counted(event, bytes(m.b), bytes(m.a))


def _snapshot(event: Event, m: _Message) -> tuple[bytes, bytes]:
    event.last = m.lastUpdateId
    return _counted(event, bytes(m.bids), bytes(m.asks))


def _counted(event: Event, bids: bytes, asks: bytes) -> tuple[bytes, bytes]:
    event.bids, event.asks = bids.count(b'"') // 4, asks.count(b'"') // 4
    return bids, asks


def _ticker(event: Event, m: _Message) -> tuple[bytes, bytes]:
    event.last, event.bids = m.u, 2  # both in one text: they are most of a capture, and 100 ns each
    return _TOUCH % (m.b, m.B, m.a, m.A), _NO_LEVELS


def _trade(event: Event, m: _Message) -> tuple[bytes, bytes]:
    event.last, event.trade_ts = m.t or 0, event.ts if m.T is None else _ns(m.T)
    event.aggregate = m.e == "aggTrade"
    if event.aggregate and m.a is not None and (text := bytes(m.a)).isdigit() and len(text) < 19:
        event.last = int(text)
    event.bids, event.asks = (0, 1) if m.m else (1, 0)
    level = _LEVEL % (m.p, m.q)
    return (_NO_LEVELS, level) if m.m else (level, _NO_LEVELS)


_TEXTS = (_update, _trade, _snapshot, _ticker)  # by kind: the rest of the event, and its bids and asks


def _receive_time(text: bytes) -> int:
    """Nanoseconds, from whichever unit makes it a time after 1973; _NO_TIME where it is none."""
    text = text.strip()
    if not text.isdigit() or len(text) > 19:
        return _NO_TIME
    time = int(text)
    while _OLDEST_MS <= time < _OLDEST_NS:
        time *= 1000
    return time if _OLDEST_NS <= time <= _MAX else _NO_TIME


def _ns(time: int) -> int:
    """`E` or `T` in ns: milliseconds, or microseconds where the stream was asked for them."""
    return time * (_NS_PER_MS if time <= _MAX_MS else _NS_PER_US)


def _said(error: Exception) -> str:
    """What msgspec says, without the byte, which would make each fault one of its own kind."""
    return _BYTE.sub("", containers.said(error))


def _quoted(text: bytes) -> str:
    """The beginning of bytes, fit for a message."""
    return repr(text[:40])[1:]


# ------------------------------------------------------------------ text to numbers


def read_levels(events: list[Event], texts: list[bytes], decimals: int, faults: Faults) -> list[Event]:
    """The events that can be read, with their levels; `texts` are bids and asks of each, in turn."""
    counts = [number for event in events for number in (event.bids, event.asks)]
    try:
        levels = _at_once(counts, texts, decimals)
    except (ValueError, OverflowError):  # Arrow's are ValueErrors
        pairs = zip(events, texts[::2], texts[1::2], strict=True)
        return [event for event, *both in pairs if _read(event, both, decimals, faults)]
    start = 0
    for event in events:
        end = start + event.bids + event.asks
        event.levels = levels[start:end]
        start = end
    return events


def _at_once(counts: list[int], texts: list[bytes], decimals: int) -> np.ndarray:
    """All levels, with `counts` of them in each text.

    Raises ValueError where a text isn't levels in the form Binance writes them, OverflowError for a number
    that doesn't fit.
    """
    joined = b",".join(texts)
    longest = max(map(len, joined.split(b'"')))  # more digits than it has room for would be another number
    if longest > _LONGEST or joined.translate(None, _DIGITS) != b",".join(map(_skeleton, counts)):
        raise ValueError("levels of another form")
    if not any(counts):
        return np.empty((0, 2), np.int64)
    from pyarrow import csv

    names, types = ["price", "size"], [pa.decimal128(38, PRICE_DECIMALS), pa.decimal128(38, decimals)]
    table = csv.read_csv(
        pa.BufferReader(joined.translate(None, b'["').replace(b"],", b"\n").translate(None, b"]")),
        read_options=csv.ReadOptions(column_names=names),
        parse_options=csv.ParseOptions(quote_char=False),  # empty lines, which it skips, are empty sides
        convert_options=csv.ConvertOptions(column_types=dict(zip(names, types, strict=True)), null_values=[]),
    )
    return np.column_stack([digits_of(column.combine_chunks()) for column in table.columns])


@lru_cache(1000)
def _skeleton(levels: int) -> bytes:
    """A list of levels without its digits."""
    return b"[" + b",".join([b'["",""]'] * levels) + b"]"


def _read(event: Event, texts: list[bytes], decimals: int, faults: Faults) -> bool:
    """Read the levels of one event; a fault where that can't be done."""
    try:
        sides = [msgspec.json.decode(text, type=list[tuple[str, str]]) for text in texts]
        levels = [
            (_integer("price", price, PRICE_DECIMALS), _integer("size", size, decimals))
            for price, size in sides[0] + sides[1]
        ]
    except Damage as damage:
        faults.add(f"line {event.row:,}", *damage.args)
    except _BROKEN as error:
        faults.add(f"line {event.row:,}", f"levels out of shape ({_said(error)})", "price and size as text")
    else:
        event.bids, event.asks = map(len, sides)
        event.levels = np.array(levels, np.int64).reshape(-1, 2)
    return event.levels is not None


def _integer(what: str, text: str, decimals: int) -> int:
    """A number in units of its last decimal. Raises Damage."""
    whole, _, part = text.partition(".")
    part = part.rstrip("0")
    fits = _NUMBER.fullmatch(text) and len(part) <= decimals
    value = int(whole + part.ljust(decimals, "0")) if fits else -1
    if not 0 <= value <= _MAX:
        expected = f"at most {decimals} decimals, and {_MAX // 10**decimals:,}"
        raise Damage(f"{what} {text[:40]!r}", expected + (" (option lot)" if what == "size" else ""))
    return value
