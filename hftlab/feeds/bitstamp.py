"""Bitstamp live orders: the CSV of the R package obAnalytics, the raw log of the stream, websocket messages.

::

    id,timestamp,exchange.timestamp,price,volume,action,direction
    65595247,1430438404518,1430438404000,236.47,200000000,created,bid

    1430438404518 order_created {"price": "236.47", "amount": "2.00000000", "id": 65595247, "order_type": 0}
    1430438404645 trade {"price": 236.47, "amount": 0.21144331, "id": 8111041}

    1611000000300 {"data":{"id":1324380000000001,...},"channel":"live_orders_btcusd","event":"order_created"}

Times of a CSV and of a log are when a message was received, in milliseconds UTC (a CSV may have more digits);
of a websocket message `ts_event` is its own microtimestamp, and the number before it, if there is one, is
`ts_recv`. A lot is a satoshi, 1e-8 of a coin. Volumes of a CSV are coins if the first of them has a decimal
point, or any of them where the second time is called exchange_timestamp, as it is since 2019. Volume is what
remains of an order.

=============================================== =========================================
event                                           mbo rows
=============================================== =========================================
created                                         A, also where it crosses; N after its deletion
changed: less volume at the same price          an execution
changed: less volume at another price, paired   an execution at that price, which is the trade's
changed: else                                   M
deleted, with volume                            C of what was open
deleted, without                                an execution of what was open; N if nothing
an execution of the maker                       F, then C
an execution of the taker                       C
trade (log)                                     N, or T for a trade that no F tells of
order_book (log)                                N
=============================================== =========================================

**Maker and taker.** A taker is an order like any other here: it is created, crosses the book for a tenth of
a second, and then both orders are reduced, by the same volume, within milliseconds, in either order. Such
pairs are found (opposite sides, prices that cross, volumes equal but for `SLACK`, at most `WINDOW_MS` apart);
the older order, which has the smaller id, is the maker. Of the 575 trades of the sample day 570 are pairs,
and all have the price of the order called maker. An execution without a pair is taken for a maker's; where a
log has trades, only if one of them has its price and volume; elsewhere not if a better order of its side
stood there for `WINDOW_MS` before and after: then its owner took some of it back, which is a C.

**Changed prices.** A changed price alone is no execution: the venue moves the price of a market order along
the book, and lowers its volume when its money buys less; so do all 15 changes of the sample day that have a
new price and less volume. Where the other side loses the same volume at that price, it is an execution: the
price is the trade's, and the order goes on resting at its own.

**Ghosts** are orders that stay in the book while the market trades through them: the end of one was never
told. One is an order that a sure execution of another order of its side, at a worse price and more than
`WINDOW_MS` after its own last event, disproves, and that afterwards has no event, or is deleted with volume
more than `GHOST_MS` later. The notes name them; `drop_ghosts` tells of a C where each was disproved.

**Unknown orders.** There is no opening book, so events name orders nobody saw created, and some deletions
come twice or before the creation. They tell side and price, so they become C and M like others; a rebuild
rejects them, and the notes count them. What such an order lost is known from its pair alone; without one, a
change is an M, and a deletion without volume a C of one lot, for at least that was open. A creation told
after the deletion is an N: ids are not used again, and the order_book events agree that the order is gone.

`sequence` is the 0-based event of the CSV or line of the log; flag 128 stands on the last row of each; file
order is kept. A log has two further tables: trades, and order_book (`seq` is the mbo row after which it was
told).

A CSV is a table: its first damaged row is an error. A log is a capture: damaged lines are counted as faults,
and what is whole is delivered.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.codes import MBO_FLAG_LAST, UNDEF_PRICE, MboAction
from hftlab.errors import FormatError, UsageError, optional_name
from hftlab.feeds.flow import Fault, Flow, without_end
from hftlab.feeds.parsing import containers
from hftlab.schema import MBO, TIMESTAMP, code_array

DESCRIPTION = (
    "Bitstamp live orders: obAnalytics CSV, raw log or websocket messages (.csv, .log, .gz, .xz, .zst)"
)

DEFAULT_SYMBOL = "BTCUSD"  # where neither option nor file name tells
LOT = "1e-8"  # of a coin
SLACK = 2  # satoshi: obAnalytics cut 8 % of the sample's volumes one satoshi short, so differences may be two
WINDOW_MS = 1000  # the two events of the sample's widest pair are 37 ms apart
GHOST_MS = 60_000  # that an order stays after it was disproved: more than a late message
GHOSTS_SHOWN = 5
MOST_WAITING = 64  # executions that wait for their pair at a time
MOST_ROUNDS = 10  # in which executions at another price are found: each may tell a later one
LONGEST_LINE = 1 << 20

CREATED, CHANGED, DELETED, TRADE, ORDER_BOOK = range(5)
_ACTIONS = {"created": CREATED, "changed": CHANGED, "deleted": DELETED}
_SIDES = {"bid": 1, "ask": -1}
_EVENTS = {f"order_{name}": kind for name, kind in _ACTIONS.items()} | {
    "trade": TRADE,
    "order_book": ORDER_BOOK,
}

_KINDS = {name.encode(): kind for name, kind in _ACTIONS.items()}

_MAX = 2**63 - 1
_MAX_MS, _MAX_US = _MAX // 1_000_000, _MAX // 1_000
_PRICE, _VOLUME = 10**9, 10**8  # units in 1
_UNKNOWN = -1  # volume of an order from before the file
_NONE = -1  # row of no event
_A, _M, _C, _T, _F, _N = (MboAction[name] for name in "AMCTFN")

_MS = "milliseconds since 1970"
_TIME_FORMS = {
    13: ("[0-9]{13}", _MS),
    16: ("[0-9]{16}", "microseconds since 1970"),
}  # by the first one's digits
_COLUMNS = {  # of the CSV: what a field looks like, and what that is called
    "id": ("[0-9]{1,20}", "an integer of 64 bits"),
    "timestamp": ("[0-9]{1,13}", _MS),
    "exchange.timestamp": ("[0-9]{1,13}", _MS),
    "price": (r"[0-9]{1,10}(\.[0-9]{1,9})?", f"dollars with at most 9 decimals, up to {_MAX // _PRICE}"),
    "volume": ("[0-9]{1,19}", "satoshi, an integer of 63 bits"),
    "action": ("|".join(_ACTIONS), " or ".join(_ACTIONS)),
    "direction": ("|".join(_SIDES), " or ".join(_SIDES)),
}
_COINS = (r"[0-9]{1,11}(\.[0-9]{1,8})?", f"coins with at most 8 decimals, up to {_MAX // _VOLUME}")
_OTHER_NAMES = {"exchange_timestamp": "exchange.timestamp"}  # since 2019
_NAME = re.compile(r"bitstamp[_.-]([a-z]{6,8})(?![a-z])", re.IGNORECASE)
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


class Events(NamedTuple):
    """What a file tells, row by row."""

    sequence: np.ndarray  # 0-based row of the CSV or line of the log
    ts_us: np.ndarray
    recv_us: np.ndarray  # the same where a file has one time
    kind: np.ndarray  # CREATED to ORDER_BOOK
    order_id: np.ndarray  # uint64; of a trade, its own
    side: np.ndarray  # of the order, or of the aggressor where a trade tells; 0 unknown
    price: np.ndarray  # 1e-9
    volume: np.ndarray  # satoshi that remain, or were traded


class Executions(NamedTuple):
    """Orders that were reduced by being executed, in file order, and at what prices all orders rest."""

    row: np.ndarray  # of Events
    size: np.ndarray  # satoshi, _UNKNOWN where neither order's volume before is known
    pair: np.ndarray  # the other order's place in these columns, _NONE
    maker: np.ndarray  # whether this is what an F tells
    trade: np.ndarray  # row of the trade that tells of it, _NONE
    behind: np.ndarray  # whether a better order stood there: taken back, not traded
    resting: np.ndarray  # price of its order after each row of Events


class Ghosts(NamedTuple):
    """Orders that stayed in the book while the market traded through them."""

    row: np.ndarray  # of Events: since when each rests as it does
    disproved: np.ndarray  # row of the first execution that can't have been with it there
    end: np.ndarray  # row of its deletion, _NONE where none was told


class History(NamedTuple):
    """Each event in the life of its order."""

    before: np.ndarray  # row of the event before, _NONE where there is none since the last deletion
    known: np.ndarray  # whether the order was created before this event, and not deleted since
    late: np.ndarray  # whether this creates an order whose deletion was told already


# ------------------------------------------------------------------ opening


def sniff(path: Path, head: bytes) -> bool:
    """Whether the first line is the header of the CSV, or there is an event of a log or of the websocket."""
    return _is_csv(head) or _is_log(head)


def load(
    path: Path,
    *,
    format: str | None = None,
    symbols: Iterable[str] | None = None,
    symbol: str | None = None,
    drop_ghosts: bool | str = False,
) -> Flow:
    """Read a CSV, a log or websocket messages into an mbo table.

    Parameters: `symbol` where neither the channel of the messages nor the file name (bitstamp_btcusd...)
    tells, default `DEFAULT_SYMBOL`; of messages of several instruments the one to read. `drop_ghosts` leaves
    orders out from where the market traded through them.

    Raises FormatError for a broken CSV, with the row, and for a log without a single event.
    """
    drop = _flag("drop_ghosts", drop_ghosts)
    asked, told = optional_name("symbol", symbol), _NAME.search(path.name)
    faults: list[Fault] = []
    is_log = _is_log(containers.head(path))
    log = _Log(path, asked) if is_log else None
    events = log.events(faults) if log else _read_table(path, faults)
    symbol = asked or (log and log.channel) or (told[1].upper() if told else DEFAULT_SYMBOL)
    history = _history(events)
    executions = _executions(events, history, exact=is_log)
    ghosts = _ghosts(events, history, executions)
    executions = _without_taken_back(events, history, executions, ghosts)
    table = _to_table(events, history, executions, symbol, ghosts if drop else None)
    extras = {}
    if log:
        extras["trades"] = partial(_trades_table, events, executions, symbol)
        extras["order_book"] = partial(_books_table, log, table, symbol)
    notes = _notes(events, history, executions) + _notes_of_ghosts(events, ghosts, drop)
    notes += log.notes() if log else []
    more = {"notes": notes, "faults": faults, "extras": extras, "lot_size": LOT}
    return Flow(path, "bitstamp", "mbo", table, symbols=symbols, **more)


def _flag(what: str, given: bool | str) -> bool:
    """A flag that may come as text from a command line."""
    flags = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if (flag := flags.get(str(given).lower())) is None:
        raise UsageError(f"{what}: found {given!r}, expected true or false")
    return flag


def _is_csv(head: bytes) -> bool:
    return sorted(_names(head)) == sorted(_COLUMNS)


def _names(head: bytes) -> list[str]:
    names = head.split(b"\n", 1)[0].rstrip(b"\r").decode("latin-1").split(",")
    return [_OTHER_NAMES.get(name, name) for name in names]


def _is_log(head: bytes) -> bool:
    return any(_LOG_START.match(line) or _ENVELOPE_START.match(line) for line in head.split(b"\n"))


# ------------------------------------------------------------------ the CSV


def _read_table(path: Path, faults: list[Fault]) -> Events:
    data = containers.read(path)
    if not data.endswith((b"\n", b"\r")):
        faults.append(without_end(data.count(b"\n") + 1))
    return parse_csv(data, path)


def parse_csv(data: bytes, path: Path) -> Events:
    """The rows of the CSV as columns.

    Raises FormatError with the first row that is none.
    """
    names = _names(data)
    if not _is_csv(data):
        found = ",".join(names)[:80]
        raise FormatError(path, f"the columns {found!r}", f"{','.join(_COLUMNS)} (or lines of a log)", row=1)
    forms = _COLUMNS
    try:
        table = _read_csv(data, names)
        forms = _forms(table, b"exchange_timestamp" in data[: data.find(b"\n") + 1])
        events = _columns(table, forms)
    except pa.ArrowInvalid as error:
        _raise_first_fault(data, names, forms, path)
        raise FormatError(path, containers.said(error), "Bitstamp events") from error
    if events is None or data.count(b"\r") != data.count(b"\r\n"):
        _raise_first_fault(data, names, forms, path)
    return events


def _forms(table: pa.Table, is_new: bool) -> dict[str, tuple[str, str]]:
    """What the fields of this file look like: the first time tells the unit, a decimal point means coins."""
    import pyarrow.compute as pc

    forms = dict(_COLUMNS)
    if not table.num_rows:
        return forms
    for name in ("timestamp", "exchange.timestamp"):
        forms[name] = _TIME_FORMS.get(len(table.column(name)[0].as_py()), forms[name])
    volumes = table.column("volume") if is_new else table.column("volume").slice(0, 1)
    if pc.any(pc.match_substring(volumes, ".")).as_py():
        forms["volume"] = _COINS
    return forms


def _read_csv(data: bytes, names: list[str]) -> pa.Table:
    from pyarrow import csv

    after_header = data.find(b"\n") + 1
    if not after_header or after_header == len(data):
        return pa.table({name: pa.chunked_array([pa.array([], pa.string())]) for name in names})
    return csv.read_csv(
        pa.BufferReader(memoryview(data)[after_header:]),
        read_options=csv.ReadOptions(column_names=names),
        parse_options=csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    ).combine_chunks()


def _columns(table: pa.Table, forms: dict[str, tuple[str, str]]) -> Events | None:
    """Events of a table of texts; None where one of the texts is no value."""
    import pyarrow.compute as pc

    texts = {name: table.column(name) for name in forms}
    for name, (pattern, _) in forms.items():
        if not pc.all(pc.match_substring_regex(texts[name], f"^(?:{pattern})$"), min_count=0).as_py():
            return None
    price, volume = _exact(texts["price"], 9), _exact(texts["volume"], 8 if forms["volume"] is _COINS else 0)
    ts_us = texts["timestamp"].cast(pa.int64()).to_numpy()
    if forms["timestamp"] != _TIME_FORMS[16]:
        ts_us = ts_us * 1000
    if (price > _MAX).any() or (volume > _MAX).any() or (ts_us > _MAX_US).any():
        return None
    return Events(
        np.arange(len(price)),
        ts_us,
        ts_us,
        _codes(texts["action"], _ACTIONS),
        texts["id"].cast(pa.uint64()).to_numpy(),
        _codes(texts["direction"], _SIDES),
        price.view(np.int64),
        volume.view(np.int64),
    )


def _exact(texts: pa.ChunkedArray, decimals: int) -> np.ndarray:
    """Decimal texts in units of the last decimal, without a float; 19 digits fit half of 128 bits."""
    if not len(texts):
        return np.zeros(0, np.uint64)
    exact = pa.concat_arrays(texts.cast(pa.decimal128(19, decimals)).chunks)
    return np.frombuffer(exact.buffers()[1], np.uint64)[2 * exact.offset :: 2][: len(exact)]


def _codes(texts: pa.ChunkedArray, codes: dict[str, int]) -> np.ndarray:
    import pyarrow.compute as pc

    places = pc.index_in(texts, pa.array(list(codes))).to_numpy()
    return np.array(list(codes.values()), np.int8)[places]


def _raise_first_fault(data: bytes, names: list[str], forms: dict[str, tuple[str, str]], path: Path) -> None:
    """Go through the rows one by one; slow, and only when something is known to be wrong."""
    lines = io.BytesIO(data)
    next(lines)
    for row, line in enumerate(lines, start=2):
        fault = _csv_fault(line.removesuffix(b"\n").removesuffix(b"\r"), names, forms)
        if fault is not None:
            raise FormatError(path, *fault, row=row)


def _csv_fault(line: bytes, names: list[str], forms: dict[str, tuple[str, str]]) -> tuple[str, str] | None:
    """What is wrong with a row: (found, expected)."""
    fields = line.decode("latin-1").split(",")
    if len(fields) != len(names):
        plural = "field" if len(fields) == 1 else "fields"
        return f"{len(fields)} {plural}", f"{len(names)} ({', '.join(names)})"
    limits = {
        "id": 2**64 - 1,
        "timestamp": _MAX_US if forms["timestamp"] == _TIME_FORMS[16] else _MAX_MS,
        "volume": Decimal(_MAX) / _VOLUME if forms["volume"] is _COINS else _MAX,
        "price": Decimal(_MAX) / _PRICE,
    }
    for name, text in zip(names, fields, strict=True):
        pattern, expected = forms[name]
        limit = limits.get(name)
        if not re.fullmatch(pattern, text) or (limit is not None and Decimal(text) > limit):
            return f"{name} {text[:40]!r}", expected
    return None


# ------------------------------------------------------------------ the log


class _Damaged(Exception):
    """A line of a log that is no event: found, expected."""


class _Log:
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
    if ts_ms > _MAX_MS:
        raise _Damaged(f"time {ts_ms}", f"milliseconds up to {_MAX_MS}")
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
    price = _units(fields, "price", _PRICE)
    volume = _units(fields, "amount", _VOLUME)
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
    units = int(match[1] + decimals) if len(decimals) == places else _MAX + 1
    if units > _MAX:
        beyond = len(decimals) == places
        raise _Damaged(f"{name} {_shown(value)}", f"{name}: at most {_MAX // scale}" if beyond else expected)
    return units


def _levels(fields: dict[str, Any]) -> dict[str, list[tuple[int, int]]]:
    """Prices and volumes of an order_book event, best first. Raises _Damaged."""
    sides = {}
    for name in ("bids", "asks"):
        levels = fields.get(name)
        if not isinstance(levels, list) or not all(isinstance(at, list) and len(at) == 2 for at in levels):
            raise _Damaged(f"{name} {_shown(levels)}", f"{name}: pairs of price and amount")
        pairs = [{"price": price, "amount": amount} for price, amount in levels]
        sides[name] = [(_units(at, "price", _PRICE), _units(at, "amount", _VOLUME)) for at in pairs]
    return sides


def _shown(value: object) -> str:
    """The beginning of something, fit for one line."""
    try:
        text = repr(value)
    except RecursionError:
        text = "something deeply nested"
    return (text[1:] if isinstance(value, bytes) else text)[:60]


# ------------------------------------------------------------------ who executed whom


def _history(events: Events) -> History:
    """Follow each order through its own events."""
    count = len(events.kind)
    rows = np.flatnonzero(events.kind <= DELETED)
    rows = rows[np.argsort(events.order_id[rows], kind="stable")]
    kind, ids, at = events.kind[rows], events.order_id[rows], np.arange(len(rows))
    new = np.ones(len(rows), bool)
    new[1:] = ids[1:] != ids[:-1]
    start = np.maximum.accumulate(np.where(new, at, 0))

    def last(which: int) -> np.ndarray:
        """Place of the last event of a kind before each, where it is of the same order."""
        found = np.maximum.accumulate(np.where(kind == which, at, _NONE))
        found = np.append(np.int64(_NONE), found[:-1])[: len(rows)]
        return np.where(found >= start, found, _NONE)

    created, deleted = last(CREATED), last(DELETED)
    told = created > deleted
    late = (kind == CREATED) & (deleted != _NONE) & ~told[deleted]
    known = told & ~late[created]
    follows = ~new & (at - 1 != deleted) & ~late[at - 1]
    history = History(np.full(count, _NONE), np.zeros(count, bool), np.zeros(count, bool))
    history.before[rows[follows]] = rows[at[follows] - 1]
    history.known[rows], history.late[rows] = known, late
    return history


def _executions(events: Events, history: History, *, exact: bool) -> Executions:
    """The executions among changes and deletions, who belongs with whom, and which trade tells of them."""
    at_other_price = np.zeros(len(events.kind), bool)
    for _ in range(MOST_ROUNDS):
        resting = _resting(events, history, at_other_price)
        row, size, pair = _reductions(events, history, resting, exact)
        found = np.zeros_like(at_other_price)
        changed = row[(events.kind[row] == CHANGED) & (history.before[row] != _NONE)]
        found[changed] = events.price[changed] != resting[history.before[changed]]
        if np.array_equal(found, at_other_price):
            break
        at_other_price = found
    order_id, alone = events.order_id[row], pair == _NONE
    size = np.where((size == _UNKNOWN) & ~alone, size[pair], size)
    maker = np.where(alone, size != _UNKNOWN, order_id < order_id[pair])
    trade = _told_by(events, row, size, maker)
    if (events.kind == TRADE).any():
        maker &= ~alone | (trade != _NONE)
    return Executions(row, size, pair, maker, trade, np.zeros(len(row), bool), resting)


def _resting(events: Events, history: History, at_other_price: np.ndarray) -> np.ndarray:
    """The price at which each order rests after each event: one of a trade is not its own."""
    resting = events.price.copy()
    for row in np.flatnonzero(at_other_price).tolist():  # in file order: the one before is known
        resting[row] = resting[history.before[row]]
    return resting


def _reductions(
    events: Events, history: History, resting: np.ndarray, exact: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that are executions, what they took, and the place of the other order of each.

    A change of price with less volume is one only together with another.
    """
    before, first = history.before, history.before == _NONE
    less = ~first & (events.kind == CHANGED) & (events.volume < events.volume[before])
    same = events.price == resting[before]
    fell = (first & (events.kind == CHANGED)) | (less & same)
    gone = (events.kind == DELETED) & (events.volume == 0) & (first | (events.volume[before] > 0))
    row = np.flatnonzero(fell | gone | less)
    size = np.where(first[row], _UNKNOWN, events.volume[before[row]] - events.volume[row])
    doubtful = (less & ~same)[row]
    slack, pair = 0 if exact else SLACK, np.full(len(row), _NONE)
    _pair_some(events, row, size, pair, ~doubtful, slack, _crosses)
    if doubtful.any():
        alone = (pair == _NONE) & (size != _UNKNOWN)
        _pair_some(events, row, size, pair, alone, slack, _equals)
        partners = np.flatnonzero(alone & (pair != _NONE))
        neither = partners[~doubtful[partners] & ~doubtful[pair[partners]]]
        pair[neither] = _NONE
    keep = ~doubtful | (pair != _NONE)
    place = np.append(np.cumsum(keep) - 1, _NONE)  # of _NONE, which is the last, _NONE
    return row[keep], size[keep], place[pair[keep]]


def _pair_some(
    events: Events,
    row: np.ndarray,
    size: np.ndarray,
    pair: np.ndarray,
    which: np.ndarray,
    slack: int,
    agree: Callable[[int, int, int], bool],
) -> None:
    """Find pairs among some of the executions, in place."""
    some = np.flatnonzero(which)
    columns = (column[row[some]] for column in (events.ts_us, events.side, events.price))
    found = _pairs(*columns, size[some], events.order_id[row[some]], slack, agree)
    pair[some] = np.where(found == _NONE, _NONE, some[found] if len(some) else _NONE)


def _is_sure(executions: Executions) -> np.ndarray:
    """Whether a second event, the other order's or a trade, tells of an execution too."""
    return (executions.pair != _NONE) | (executions.trade != _NONE)


def _next(history: History) -> np.ndarray:
    """The next event of its order after each, _NONE."""
    after = np.full(len(history.before), _NONE)
    rows = np.flatnonzero(history.before != _NONE)
    after[history.before[rows]] = rows
    return after


def _rests(events: Events, history: History) -> np.ndarray:
    """Events after which their order is open; like a creation, a change may be told after the deletion."""
    known = np.where(events.kind == CREATED, ~history.late, history.known)
    return np.flatnonzero((events.kind <= CHANGED) & (events.volume > 0) & known)


def _ghosts(events: Events, history: History, executions: Executions) -> Ghosts:
    """Orders that an execution behind them disproves, and that stay all the same."""
    after, starts = _next(history), _rests(events, history)
    ends = after[starts]
    stays = (ends == _NONE) | ((events.kind[ends] == DELETED) & (events.volume[ends] > 0))
    sure = executions.row[executions.maker & _is_sure(executions)]
    starts = starts[stays & np.isin(events.side[starts], events.side[sure])]
    found = [
        (start, disproved, after[start])
        for start in _traded_through(events, executions.resting, starts, after, sure).tolist()
        if (disproved := _disproved(events, executions.resting, start, int(after[start]), sure)) != _NONE
    ]
    columns = np.array(sorted(found, key=lambda ghost: ghost[1]), np.int64).reshape(-1, 3).T
    return Ghosts(*columns)


def _traded_through(
    events: Events, resting: np.ndarray, starts: np.ndarray, after: np.ndarray, sure: np.ndarray
) -> np.ndarray:
    """Those of some orders that have an execution of their side at a worse price while they rest."""
    found = []
    for side in (1, -1):
        rows = sure[events.side[sure] == side]
        mine = starts[events.side[starts] == side]
        if not len(rows) or not len(mine):
            continue
        ends = np.where(after[mine] == _NONE, len(after), after[mine])
        low, high = np.searchsorted(rows, mine, side="right"), np.searchsorted(rows, ends)
        mine, low, high = (column[low < high] for column in (mine, low, high))
        worst = _least_of_ranges(side * events.price[rows], low, high)
        found.append(mine[worst < side * resting[mine]])
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _least_of_ranges(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The least of values[low:high], none of them empty: two ranges of a power of two cover each."""
    least, power = np.empty(len(low), np.int64), 0
    lengths = high - low
    while (1 << power) <= len(values):
        mine = (lengths >> power) == 1
        least[mine] = np.minimum(values[low[mine]], values[high[mine] - (1 << power)])
        values = np.minimum(values[: -(1 << power)], values[1 << power :])  # of twice as many from each place
        power += 1
    return least


def _disproved(events: Events, resting: np.ndarray, start: int, end: int, sure: np.ndarray) -> int:
    """The first execution that can't have been with an order there; _NONE where it may be a late message."""
    low = np.searchsorted(sure, start, side="right")
    rows = sure[low : len(sure) if end == _NONE else np.searchsorted(sure, end)]
    side = events.side[start]
    through = (events.side[rows] == side) & (side * events.price[rows] < side * resting[start])
    through &= events.ts_us[rows] - events.ts_us[start] > WINDOW_MS * 1000
    if not through.any():
        return _NONE
    row = int(rows[np.argmax(through)])
    late = end != _NONE and events.ts_us[end] - events.ts_us[row] <= GHOST_MS * 1000
    return _NONE if late else row


def _without_taken_back(
    events: Events, history: History, executions: Executions, ghosts: Ghosts
) -> Executions:
    """The same without trades of which only one order tells, and before which a better one stands."""
    doubtful = np.flatnonzero(executions.maker & ~_is_sure(executions))
    if not len(doubtful) or (events.kind == TRADE).any():
        return executions
    after, starts = _next(history), _rests(events, history)
    ends = np.where(after[starts] == _NONE, len(after), after[starts])
    gone = np.full(len(after) + 1, len(after) + 1)
    gone[ghosts.row] = ghosts.disproved
    last_us = np.append(events.ts_us, np.int64(2**62))
    for place in doubtful.tolist():
        row = int(executions.row[place])
        now, side = int(events.ts_us[row]), int(events.side[row])
        some = slice(0, int(np.searchsorted(starts, row)))
        begin, end = starts[some], ends[some]
        stands = (end > row) & (gone[begin] > row) & (events.side[begin] == side)
        stands &= side * executions.resting[begin] > side * executions.resting[row]
        stands &= (events.ts_us[begin] <= now - WINDOW_MS * 1000) & (last_us[end] > now + WINDOW_MS * 1000)
        executions.behind[place] = stands.any()
    return executions._replace(maker=executions.maker & ~executions.behind)


def _crosses(side: int, price: int, other: int) -> bool:
    """Whether an order would trade with another of the opposite side."""
    return side * price >= side * other


def _equals(side: int, price: int, other: int) -> bool:
    return price == other


def _told_by(events: Events, row: np.ndarray, size: np.ndarray, maker: np.ndarray) -> np.ndarray:
    """The row of the trade that tells of each execution of a maker."""
    trades = np.flatnonzero(events.kind == TRADE)
    fills = np.flatnonzero(maker)
    rows = np.concatenate([row[fills], trades])
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    sizes = np.concatenate([size[fills], events.volume[trades]])[order]
    is_trade = np.where(events.kind[rows] == TRADE, 1, -1)
    pair = _pairs(events.ts_us[rows], is_trade, events.price[rows], sizes, rows, 0, _equals)
    told = np.full(len(row), _NONE)
    found = np.flatnonzero((is_trade == -1) & (pair != _NONE))
    told[np.searchsorted(row, rows[found])] = rows[pair[found]]
    return told


def _pairs(
    ts_us: np.ndarray,
    side: np.ndarray,
    price: np.ndarray,
    size: np.ndarray,
    order_id: np.ndarray,
    slack: int,
    agree: Callable[[int, int, int], bool],
) -> np.ndarray:
    """Places of those that belong together: two orders, opposite sides, equal sizes, near in time.

    An unknown size goes with any, if none is equal. Row by row, but of executions alone, 2 % of the events.
    """
    pair = np.full(len(ts_us), _NONE)
    waiting: deque[tuple[int, ...]] = deque(maxlen=MOST_WAITING)
    columns = (ts_us.tolist(), side.tolist(), price.tolist(), size.tolist(), order_id.tolist())
    for place, (now, *mine) in enumerate(zip(*columns, strict=True)):
        while waiting and now - waiting[0][1] > WINDOW_MS * 1000:
            waiting.popleft()
        best, least = None, slack + 2
        for other in waiting:
            difference = _difference(mine, other[2:], slack, agree)
            if difference < least:
                best, least = other, difference
        if best is None:
            waiting.append((place, now, *mine))
        else:
            waiting.remove(best)
            pair[place], pair[best[0]] = best[0], place
    return pair


def _difference(
    mine: Sequence[int], other: Sequence[int], slack: int, agree: Callable[[int, int, int], bool]
) -> int:
    """How well two executions go together: up to `slack` by their sizes, one more where one isn't known."""
    no = slack + 2
    (side, price, size, order_id), (its_side, its_price, its_size, its_id) = mine, other
    if its_side != -side or its_id == order_id or not agree(side, price, its_price):
        return no
    if _UNKNOWN in (size, its_size):
        return no if size == its_size else slack + 1
    return difference if (difference := abs(size - its_size)) <= slack else no


def _notes(events: Events, history: History, executions: Executions) -> list[str]:
    """The lot, and counted quirks."""
    kind, unknown = events.kind, ~history.known
    moved = (kind == CHANGED) & (history.before != _NONE)
    moved &= events.price != executions.resting[history.before]
    told = np.zeros(len(kind), bool)
    told[executions.row] = True
    alone = executions.pair == _NONE
    trades = np.flatnonzero(kind == TRADE)
    counts = [
        (unknown & (kind == DELETED), "deletions of orders that are not open"),
        (unknown & (kind == CHANGED), "changes of orders that are not open"),
        (history.late, "orders created after their deletion was told (N)"),
        (events.recv_us[1:] < events.recv_us[:-1], "events earlier than the one before (file order is kept)"),
        (moved & ~told, "changes of price, told as M (market orders that follow the book)"),
        (moved & told, "changes of price that are executions, at the trade's price"),
        (alone & ~executions.behind, "executions of which only one order was told"),
        (executions.behind, "reductions behind a better order, told as C (no trade)"),
        (~np.isin(trades, executions.trade), "trades of which no order was told (T)"),
    ]
    notes = [f"{what}: {np.count_nonzero(mask):,}" for mask, what in counts if mask.any()]
    return ["one lot is 0.00000001 of a coin", *notes]


def _notes_of_ghosts(events: Events, ghosts: Ghosts, drop: bool) -> list[str]:
    """Who they are, and since when."""
    if not len(ghosts.row):
        return []
    listed = [
        f"{events.order_id[row]} ({'bid' if events.side[row] > 0 else 'ask'} "
        f"{Decimal(int(events.price[row])) / _PRICE} since {_moment(events.ts_us[row])}, "
        f"disproved {_moment(events.ts_us[disproved])})"
        for row, disproved in zip(ghosts.row, ghosts.disproved, strict=True)
    ]
    more = ", ..." if len(listed) > GHOSTS_SHOWN else ""
    what = "ghosts, orders that stay while the market trades through them (drop_ghosts leaves them out)"
    what = "ghosts left out from where they were disproved" if drop else what
    return [f"{what}: {len(listed):,}: {', '.join(listed[:GHOSTS_SHOWN])}{more}"]


def _moment(ts_us: np.int64) -> str:
    return str(np.datetime64(int(ts_us), "us"))


# ------------------------------------------------------------------ events to tables


def _to_table(
    events: Events, history: History, executions: Executions, symbol: str, dropped: Ghosts | None
) -> pa.Table:
    """The mbo rows of each event; before one that disproved a ghost that is dropped, the ghost's C."""
    action = np.array([_A, _M, _C, _T, _N], np.int8)[events.kind]
    size, price = events.volume.copy(), events.price
    open_before = np.where(history.before == _NONE, 0, events.volume[history.before])
    cancelled = (events.kind == DELETED) & (events.volume > 0) & (open_before > 0)
    size[cancelled] = open_before[cancelled]
    action[(events.kind == DELETED) & (events.volume == 0) & (history.before != _NONE)] = _N  # of nothing
    action[history.late] = _N
    taken = executions.size != _UNKNOWN
    action[executions.row[taken]] = np.where(executions.maker, _F, _C)[taken]
    size[executions.row[taken]] = executions.size[taken]
    nameless = executions.row[~taken]
    size[nameless] = np.where(events.kind[nameless] == DELETED, 1, events.volume[nameless])
    action[executions.trade[executions.trade != _NONE]] = _N
    ghosts = Ghosts(*np.zeros((3, 0), np.int64)) if dropped is None else dropped
    action[ghosts.end[ghosts.end != _NONE]] = _N

    copies = np.where(action == _F, 2, 1)
    np.add.at(copies, ghosts.disproved, 1)
    row = np.repeat(np.arange(len(action)), copies)
    codes, order = action[row], row.copy()  # `order` is the row that names the order
    last = np.append(row[1:] != row[:-1], True)[: len(row)]
    removal = last & (action[row] == _F)
    codes[removal] = _C
    starts = np.cumsum(copies) - copies
    for count, (ghost, disproved) in enumerate(zip(ghosts.row, ghosts.disproved, strict=True)):
        same = int(np.count_nonzero(ghosts.disproved[:count] == disproved))
        codes[starts[disproved] + same], order[starts[disproved] + same] = _C, ghost
    is_ghost = order != row
    at_own_price = is_ghost | (codes != _F)
    told = np.where(at_own_price & (codes == _C), executions.resting[order], price[order])
    sides = np.where(events.kind == TRADE, np.where(action == _T, events.side, 0), events.side)
    columns = [
        _times(events.ts_us[row]),
        _times(events.recv_us[row]),
        _symbols(len(row), symbol),
        code_array(codes, MboAction),
        sides[order],
        told,
        np.where(is_ghost, events.volume[order], size[row]),
        np.where(events.kind <= DELETED, events.order_id, 0)[order],
        np.where(last, MBO_FLAG_LAST, 0).astype(np.uint8),
        events.sequence[row],
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=MBO)


def _times(ts_us: np.ndarray) -> pa.Array:
    return pa.array(ts_us * 1_000).cast(TIMESTAMP)


def _symbols(count: int, symbol: str) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), [symbol])


def _trades_table(events: Events, executions: Executions, symbol: str) -> pa.Table:
    """The trades of a log, with both orders where they were found."""
    row = np.flatnonzero(events.kind == TRADE)
    makers, takers = np.zeros(len(row), np.uint64), np.zeros(len(row), np.uint64)
    side = events.side[row]
    told = np.flatnonzero(executions.trade != _NONE)
    place = np.searchsorted(row, executions.trade[told])
    makers[place] = events.order_id[executions.row[told]]
    side[place] = -events.side[executions.row[told]]
    paired = executions.pair[told] != _NONE
    takers[place[paired]] = events.order_id[executions.row[executions.pair[told[paired]]]]
    columns = {
        "sequence": events.sequence[row],
        "ts_event": _times(events.ts_us[row]),
        "symbol": _symbols(len(row), symbol),
        "trade_id": events.order_id[row],
        "side": side,
        "price": events.price[row],
        "size": events.volume[row],
        "maker_order_id": makers,
        "taker_order_id": takers,
    }
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def _books_table(log: _Log, mbo: pa.Table, symbol: str) -> pa.Table:
    """The order_book events of a log, as levels best first; `seq` is their row in the mbo table."""
    found = list(log.books())
    lines, times, books = ([event[place] for event in found] for place in range(3))
    depth = max((len(side) for book in books for side in book.values()), default=1)
    columns: dict[str, pa.Array] = {
        "seq": pa.array(np.searchsorted(mbo.column("sequence").to_numpy(), lines)),
        "ts": _times(np.array(times, np.int64)),
        "symbol": _symbols(len(lines), symbol),
    }
    for name, side in (("bid", "bids"), ("ask", "asks")):
        for place, what, nothing in ((0, "px", UNDEF_PRICE), (1, "sz", 0)):
            values = np.full((len(books), depth), nothing, np.int64)
            for row, book in zip(values, books, strict=True):
                row[: len(book[side])] = [level[place] for level in book[side]]
            columns[f"{name}_{what}"] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), depth)
    return pa.table(columns)
