"""The raw log and the websocket's messages as events: what is no event is a fault."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from hftlab.errors import FormatError
from hftlab.feeds.bitstamp.events import ACTIONS, MAX, MAX_MS, ORDER_BOOK, PRICE, TRADE, VOLUME, Events
from hftlab.feeds.flow import Fault
from hftlab.feeds.parsing import containers

LONGEST_LINE = 1 << 20

_EVENTS = {f"order_{name}": kind for name, kind in ACTIONS.items()} | {
    "trade": TRADE,
    "order_book": ORDER_BOOK,
}
_KINDS = {name.encode(): kind for name, kind in ACTIONS.items()}
_CHANNEL = re.compile(r"(live_orders|live_trades|order_book)_([A-Za-z0-9/-]{2,20})")
_ENVELOPE = re.compile(rb"(?:([0-9]{13}|[0-9]{16}|[0-9]{19})\s+)?(\{.*\})\s*")
_ENVELOPE_START = re.compile(
    rb'(?:[0-9]{13,19}\s+)?\{.*"channel"\s*:\s*"(live_orders|live_trades|order_book)_'
)
_LOG_LINE = re.compile(rb"([0-9]{1,13}) ([a-z_]{1,40}) (\{.*\})")
_LOG_START = re.compile(rb"[0-9]{13} (order_created|order_changed|order_deleted|order_book|trade) \{")
_LEVEL = rb'\["[0-9]{1,9}(?:\.[0-9]{1,8})?", "[0-9]{1,9}(?:\.[0-9]{1,8})?"\]'
_LEVELS = rb"\[(?:%s(?:, %s)*)?\]" % (_LEVEL, _LEVEL)
_BOOK = re.compile(rb'\{"bids": %s, "asks": %s\}' % (_LEVELS, _LEVELS))  # 20 times as fast as JSON
_ORDER = re.compile(  # what nearly all lines are, 7 times as fast as JSON
    rb'([0-9]{1,12}|[0-8][0-9]{12}) order_([a-z]+) \{"price": "([0-9]{1,9})(?:\.([0-9]{1,9}))?", '
    rb'"amount": "([0-9]{1,9})(?:\.([0-9]{1,8}))?", "datetime": "[0-9]+", "id": ([0-9]{1,18}), '
    rb'"order_type": ([01])\}'
)
_DECIMAL = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,40}))?")


def is_log(head: bytes) -> bool:
    """Whether one of the first lines is an event of a log, or a message of the websocket."""
    return any(_LOG_START.match(line) or _ENVELOPE_START.match(line) for line in head.split(b"\n"))


class _Damaged(Exception):
    """A line of a log that is no event: found, expected."""


class Log:
    """A log or websocket messages, read from the beginning as often as somebody asks.

    Attributes: `channel`, the instrument of the messages, None where they are lines of a log.
    """

    def __init__(self, path: Path, symbol: str | None) -> None:
        self.path, self.channel = path, None
        self._asked = symbol
        self._others: Counter[str] = Counter()

    def events(self, faults: list[Fault]) -> Events:
        """The events; damaged lines become faults.

        Raises FormatError where there is no event at all.
        """
        rows: list[tuple[int, ...]] = []
        damage: dict[str, list[Any]] = {}  # by what was expected: row, found, that, count
        number = -1
        try:
            for number, line in enumerate(_lines(self.path)):
                try:
                    if (event := self.event(line)) is not None:
                        rows.append((number, *event))
                except _Damaged as error:
                    found, expected = error.args
                    damage.setdefault(expected, [number + 1, found, expected, 0])[3] += 1
        except containers.EndsEarly as error:
            damage["the end"] = [number + 1, error.found, error.expected, 1]
        if not rows:
            row, found, expected, _ = next(iter(damage.values()), (1, "no event", "one a line", 0))
            raise FormatError(self.path, found, f"an event of a Bitstamp log ({expected})", row=row)
        faults += [Fault(f"line {row:,}", *rest) for row, *rest in damage.values()]
        columns = list(zip(*rows, strict=True))
        dtypes = (np.int64, np.int64, np.int64, np.int8, np.uint64, np.int8, np.int64, np.int64)
        return Events(*(np.array(column, dtype) for column, dtype in zip(columns, dtypes, strict=True)))

    def event(self, line: bytes) -> tuple[int, ...] | None:
        """The event of a line, without its number; None for another message. Raises _Damaged."""
        envelope = _ENVELOPE.fullmatch(line)
        if envelope is None:
            ts_ms, *rest = _event(line)
            return ts_ms * 1000, ts_ms * 1000, *rest
        message = _json(envelope[2])
        name, channel, data = (message.get(key) for key in ("event", "channel", "data"))
        found = _CHANNEL.fullmatch(channel) if isinstance(channel, str) else None
        kind = _EVENTS.get("order_book" if name == "data" else name) if isinstance(name, str) else None
        if found is None or kind is None or (kind == ORDER_BOOK) != (found[1] == "order_book"):
            if not isinstance(name, str):
                raise _Damaged(_shown(line), "a message with event, channel and data")
            self._others[f"{name} of {channel}"] += 1
            return None
        if not self._is_ours(found[2].upper()):
            self._others[f"of {found[2].upper()} (option symbol)"] += 1
            return None
        if not isinstance(data, dict):
            raise _Damaged(f"data {_shown(data)}", "data: an object")
        recv_us = _microseconds(envelope[1].decode()) if envelope[1] else None
        ts_us = _own_time(data, recv_us)
        return ts_us, ts_us if recv_us is None else recv_us, *_fields(kind, data)

    def books(self) -> Iterator[tuple[int, int, dict[str, list[tuple[int, int]]]]]:
        """(line, time in us, levels) of the order_book events that are whole."""
        try:
            for number, line in enumerate(_lines(self.path)):
                if b"order_book" in line:
                    try:
                        event = self.event(line)
                        if event is not None and event[2] == ORDER_BOOK:
                            fields = _json(line[line.index(b"{") :])
                            yield number, event[0], _levels(fields.get("data", fields))
                    except _Damaged:
                        continue  # which is a fault of the flow already
        except containers.EndsEarly:
            pass  # the same

    def notes(self) -> list[str]:
        """Messages that were passed over."""
        listed = ", ".join(f"{name} {count:,}" for name, count in self._others.most_common(10))
        return [f"messages of other kinds, not used: {listed}"] if listed else []

    def _is_ours(self, symbol: str) -> bool:
        """Whether messages of an instrument are read: of that asked for, if it is there first or alone."""
        if self.channel is None and (self._asked is None or self._plain(self._asked) == self._plain(symbol)):
            self.channel = symbol
        return self.channel == symbol

    @staticmethod
    def _plain(symbol: str) -> str:
        return re.sub("[^A-Z0-9]", "", symbol.upper())


def _microseconds(text: str) -> int:
    """A time of 13, 16 or 19 digits."""
    return int(text[:16].ljust(16, "0"))


def _own_time(data: dict[str, Any], recv_us: int | None) -> int:
    """When a message was made; when it was received where it doesn't say. Raises _Damaged for neither."""
    time = data.get("microtimestamp")
    if isinstance(time, str | int) and re.fullmatch("[0-9]{16}", str(time)):
        return int(time)
    if time is not None or recv_us is None:
        raise _Damaged(f"microtimestamp {_shown(time)}", "microtimestamp: 16 digits")
    return recv_us


def _lines(path: Path) -> Iterator[bytes]:
    """Lines without their ends, of a line that is too long its beginning.

    Raises EndsEarly, after all that precedes was given, where a compressed file stops in the middle.
    """
    held, ends_early = b"", None
    try:
        for block in containers.blocks(path):
            *whole, held = (held + block).split(b"\n")
            held = held[:LONGEST_LINE]
            yield from (line.removesuffix(b"\r") for line in whole)
    except containers.EndsEarly as error:
        ends_early = error
    if held:
        yield held.removesuffix(b"\r")
    if ends_early is not None:
        raise ends_early


def _event(line: bytes) -> tuple[int, int, int, int, int, int]:
    """Time, kind, id, side, price and volume of a line. Raises _Damaged."""
    match = _ORDER.fullmatch(line)
    if match is not None and (kind := _KINDS.get(match[2])) is not None:
        ts, _, dollars, decimals, coins, parts, id_, type_ = match.groups(b"")
        price, volume = int(dollars + decimals.ljust(9, b"0")), int(coins + parts.ljust(8, b"0"))
        return int(ts), kind, int(id_), 1 if type_ == b"0" else -1, price, volume
    match = _LOG_LINE.fullmatch(line)
    if match is None:
        raise _Damaged(_shown(line), "milliseconds, event, JSON object")
    ts_ms, name = int(match[1]), match[2].decode()
    if ts_ms > MAX_MS:
        raise _Damaged(f"time {ts_ms}", f"milliseconds up to {MAX_MS}")
    if name not in _EVENTS:
        raise _Damaged(f"event {name!r}", f"one of {', '.join(_EVENTS)}")
    kind = _EVENTS[name]
    if kind == ORDER_BOOK and _BOOK.fullmatch(match[3]):
        return ts_ms, kind, 0, 0, 0, 0
    return ts_ms, *_fields(kind, _json(match[3]))


def _fields(kind: int, fields: dict[str, Any]) -> tuple[int, int, int, int, int]:
    """Kind, id, side, price and volume that an object tells. Raises _Damaged."""
    if kind == ORDER_BOOK:
        _levels(fields)
        return kind, 0, 0, 0, 0
    id_ = _code(fields, "id", range(2**64))
    price = _units(fields, "price", PRICE)
    volume = _units(fields, "amount", VOLUME)
    if kind == TRADE:
        side = 1 - 2 * _code(fields, "type", range(2)) if "type" in fields else 0
    else:
        side = 1 - 2 * _code(fields, "order_type", range(2))
    return kind, id_, side, price, volume


def _json(text: bytes) -> dict[str, Any]:
    try:
        return json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise _Damaged(_shown(text), "a JSON object") from None


def _code(fields: dict[str, Any], name: str, allowed: range) -> int:
    value = fields.get(name)
    if type(value) is not int or value not in allowed:
        raise _Damaged(f"{name} {_shown(value)}", f"{name}: an integer up to {allowed[-1]}")
    return value


def _units(fields: dict[str, Any], name: str, scale: int) -> int:
    """A price or volume in its unit: a text exactly, a number (which went through a float) to 8 decimals."""
    value = fields.get(f"{name}_str", fields.get(name))
    expected = f"{name}: a decimal of at most {len(str(scale)) - 1} places"
    if isinstance(value, Decimal) and value.is_finite() and (not value or -9 < value.adjusted() < 12):
        value = f"{round(value, 8):f}"
    match = _DECIMAL.fullmatch(str(value)) if type(value) in (str, int) else None
    if match is None:
        raise _Damaged(f"{name} {_shown(value)}", expected)
    places = len(str(scale)) - 1
    decimals = (match[2] or "").rstrip("0").ljust(places, "0")
    units = int(match[1] + decimals) if len(decimals) == places else MAX + 1
    if units > MAX:
        beyond = len(decimals) == places
        raise _Damaged(f"{name} {_shown(value)}", f"{name}: at most {MAX // scale}" if beyond else expected)
    return units


def _levels(fields: dict[str, Any]) -> dict[str, list[tuple[int, int]]]:
    """Prices and volumes of an order_book event, best first. Raises _Damaged."""
    sides = {}
    for name in ("bids", "asks"):
        levels = fields.get(name)
        if not isinstance(levels, list) or not all(isinstance(at, list) and len(at) == 2 for at in levels):
            raise _Damaged(f"{name} {_shown(levels)}", f"{name}: pairs of price and amount")
        pairs = [{"price": price, "amount": amount} for price, amount in levels]
        sides[name] = [(_units(at, "price", PRICE), _units(at, "amount", VOLUME)) for at in pairs]
    return sides


def _shown(value: object) -> str:
    """The beginning of something, fit for one line."""
    try:
        text = repr(value)
    except RecursionError:
        text = "something deeply nested"
    return (text[1:] if isinstance(value, bytes) else text)[:60]
