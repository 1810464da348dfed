"""Bitstamp live orders: the CSV of the R package obAnalytics, and the raw log of the same stream.

::

    id,timestamp,exchange.timestamp,price,volume,action,direction
    65595247,1430438404518,1430438404000,236.47,200000000,created,bid

    1430438404518 order_created {"price": "236.47", "amount": "2.00000000", "id": 65595247, "order_type": 0}
    1430438404645 trade {"price": 236.47, "amount": 0.21144331, "id": 8111041}

Times are milliseconds UTC at which a message was received; a lot is a satoshi, 1e-8 of a coin. Volume is what
remains of an order.

======================================= =================================================
event                                   mbo rows
======================================= =================================================
created                                 A, also where it crosses; N after its deletion
changed: less volume at the same price  an execution
changed: else                           M
deleted, with volume                    C of what was open
deleted, without                        an execution of what was open; N if nothing
an execution of the maker               F, then C
an execution of the taker               C
trade (log)                             N, or T for a trade that no F tells of
order_book (log)                        N
======================================= =================================================

**Maker and taker.** A taker is an order like any other here: it is created, crosses the book for a tenth of
a second, and then both orders are reduced, by the same volume, within milliseconds, in either order. Such
pairs are found (opposite sides, prices that cross, volumes equal but for `SLACK`, at most `WINDOW_MS` apart);
the older order, which has the smaller id, is the maker. Of the 575 trades of the sample day 570 are pairs,
and all have the price of the order called maker. An execution without a pair is taken for a maker's; where a
log has trades, only if one of them has its price and volume.

**Unknown orders.** There is no opening book, so events name orders nobody saw created, and some deletions
come twice or before the creation. They tell side and price, so they become C and M like others; a rebuild
rejects them, and the notes count them. What such an order lost is known from its pair alone; without one, a
change is an M, and a deletion without volume a C of one lot, for at least that was open. A creation told
after the deletion is an N: ids are not used again, and the order_book events agree that the order is gone.

A changed price is no execution: the venue moves the price of a market order along the book, and lowers its
volume when its money buys less. `sequence` is the 0-based event of the CSV or line of the log; flag 128
stands on the last row of each; `ts_recv` is `ts_event`; file order is kept. A log has two further tables:
trades, and order_book (`seq` is the mbo row after which it was told).

A CSV is a table: its first damaged row is an error. A log is a capture: damaged lines are counted as faults,
and what is whole is delivered.
"""

from __future__ import annotations

import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.codes import MBO_FLAG_LAST, UNDEF_PRICE, MboAction
from hftlab.errors import FormatError, optional_name
from hftlab.feeds.flow import Fault, Flow, without_end
from hftlab.feeds.parsing import containers
from hftlab.schema import MBO, TIMESTAMP, code_array

DESCRIPTION = "Bitstamp live orders: obAnalytics CSV or raw log (.csv, .log, .gz, .xz, .zst)"

DEFAULT_SYMBOL = "BTCUSD"  # where neither option nor file name tells
SLACK = 2  # satoshi: obAnalytics cut 8 % of the sample's volumes one satoshi short, so differences may be two
WINDOW_MS = 1000  # the two events of the sample's widest pair are 37 ms apart
MOST_WAITING = 64  # executions that wait for their pair at a time
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
_MAX_MS = _MAX // 1_000_000
_PRICE, _VOLUME = 10**9, 10**8  # units in 1
_UNKNOWN = -1  # volume of an order from before the file
_NONE = -1  # row of no event
_A, _M, _C, _T, _F, _N = (MboAction[name] for name in "AMCTFN")

_COLUMNS = {  # of the CSV: what a field looks like, and what that is called
    "id": ("[0-9]{1,20}", "an integer of 64 bits"),
    "timestamp": ("[0-9]{1,13}", "milliseconds since 1970"),
    "exchange.timestamp": ("[0-9]{1,13}", "milliseconds since 1970"),
    "price": (r"[0-9]{1,10}(\.[0-9]{1,9})?", f"dollars with at most 9 decimals, up to {_MAX // _PRICE}"),
    "volume": ("[0-9]{1,19}", "satoshi, an integer of 63 bits"),
    "action": ("|".join(_ACTIONS), " or ".join(_ACTIONS)),
    "direction": ("|".join(_SIDES), " or ".join(_SIDES)),
}
_NAME = re.compile(r"bitstamp[_.-]([a-z]{6,8})(?![a-z])", re.IGNORECASE)
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
    ts_ms: np.ndarray
    kind: np.ndarray  # CREATED to ORDER_BOOK
    order_id: np.ndarray  # uint64; of a trade, its own
    side: np.ndarray  # of the order, or of the aggressor where a trade tells; 0 unknown
    price: np.ndarray  # 1e-9
    volume: np.ndarray  # satoshi that remain, or were traded


class Executions(NamedTuple):
    """Orders that were reduced by being executed, in file order."""

    row: np.ndarray  # of Events
    size: np.ndarray  # satoshi, _UNKNOWN where neither order's volume before is known
    pair: np.ndarray  # the other order's place in these columns, _NONE
    maker: np.ndarray  # whether this is what an F tells
    trade: np.ndarray  # row of the trade that tells of it, _NONE


class History(NamedTuple):
    """Each event in the life of its order."""

    before: np.ndarray  # row of the event before, _NONE where there is none since the last deletion
    known: np.ndarray  # whether the order was created before this event, and not deleted since
    late: np.ndarray  # whether this creates an order whose deletion was told already


# ------------------------------------------------------------------ opening


def sniff(path: Path, head: bytes) -> bool:
    """Whether the first line is the header of the CSV, or there is an event of the log."""
    return _is_csv(head) or _is_log(head)


def load(
    path: Path,
    *,
    format: str | None = None,
    symbols: Iterable[str] | None = None,
    symbol: str | None = None,
) -> Flow:
    """Read a CSV or a log into an mbo table.

    Parameters: `symbol` where the file name doesn't tell (bitstamp_btcusd...), default `DEFAULT_SYMBOL`.

    Raises FormatError for a broken CSV, with the row, and for a log without a single event.
    """
    told = _NAME.search(path.name)
    symbol = optional_name("symbol", symbol) or (told[1].upper() if told else DEFAULT_SYMBOL)
    faults: list[Fault] = []
    is_log = _is_log(containers.head(path))
    events = _read_log(path, faults) if is_log else _read_table(path, faults)
    history = _history(events)
    executions = _executions(events, history, exact=is_log)
    table = _to_table(events, history, executions, symbol)
    extras = {}
    if is_log:
        extras["trades"] = partial(_trades_table, events, executions, symbol)
        extras["order_book"] = partial(_books_table, path, table, symbol)
    notes = _notes(events, history, executions)
    return Flow(
        path,
        "bitstamp",
        "mbo",
        table,
        symbols=symbols,
        notes=notes,
        faults=faults,
        extras=extras,
        lot_size=Decimal(1) / _VOLUME,
    )


def _is_csv(head: bytes) -> bool:
    return sorted(_names(head)) == sorted(_COLUMNS)


def _names(head: bytes) -> list[str]:
    return head.split(b"\n", 1)[0].rstrip(b"\r").decode("latin-1").split(",")


def _is_log(head: bytes) -> bool:
    return any(_LOG_START.match(line) for line in head.split(b"\n"))


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
    try:
        events = _columns(_read_csv(data, names))
    except pa.ArrowInvalid as error:
        _raise_first_fault(data, names, path)
        raise FormatError(path, containers.said(error), "Bitstamp events") from error
    if events is None or data.count(b"\r") != data.count(b"\r\n"):
        _raise_first_fault(data, names, path)
    return events


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


def _columns(table: pa.Table) -> Events | None:
    """Events of a table of texts; None where one of the texts is no value."""
    import pyarrow.compute as pc

    texts = {name: table.column(name) for name in _COLUMNS}
    for name, (pattern, _) in _COLUMNS.items():
        if not pc.all(pc.match_substring_regex(texts[name], f"^(?:{pattern})$"), min_count=0).as_py():
            return None
    price = _exact(texts["price"])
    ts_ms = texts["timestamp"].cast(pa.int64()).to_numpy()
    if (price > _MAX).any() or (ts_ms > _MAX_MS).any():
        return None
    return Events(
        np.arange(len(price)),
        ts_ms,
        _codes(texts["action"], _ACTIONS),
        texts["id"].cast(pa.uint64()).to_numpy(),
        _codes(texts["direction"], _SIDES),
        price.view(np.int64),
        texts["volume"].cast(pa.int64()).to_numpy(),
    )


def _exact(texts: pa.ChunkedArray) -> np.ndarray:
    """Decimal texts in 1e-9, without a float in between; 19 digits fit half of 128 bits."""
    if not len(texts):
        return np.zeros(0, np.uint64)
    decimals = pa.concat_arrays(texts.cast(pa.decimal128(19, 9)).chunks)
    return np.frombuffer(decimals.buffers()[1], np.uint64)[2 * decimals.offset :: 2][: len(decimals)]


def _codes(texts: pa.ChunkedArray, codes: dict[str, int]) -> np.ndarray:
    import pyarrow.compute as pc

    places = pc.index_in(texts, pa.array(list(codes))).to_numpy()
    return np.array(list(codes.values()), np.int8)[places]


def _raise_first_fault(data: bytes, names: list[str], path: Path) -> None:
    """Go through the rows one by one; slow, and only when something is known to be wrong."""
    lines = io.BytesIO(data)
    next(lines)
    for row, line in enumerate(lines, start=2):
        fault = _csv_fault(line.removesuffix(b"\n").removesuffix(b"\r"), names)
        if fault is not None:
            raise FormatError(path, *fault, row=row)


def _csv_fault(line: bytes, names: list[str]) -> tuple[str, str] | None:
    """What is wrong with a row: (found, expected)."""
    fields = line.decode("latin-1").split(",")
    if len(fields) != len(names):
        plural = "field" if len(fields) == 1 else "fields"
        return f"{len(fields)} {plural}", f"{len(names)} ({', '.join(names)})"
    for name, text in zip(names, fields, strict=True):
        pattern, expected = _COLUMNS[name]
        limit = {"id": 2**64 - 1, "timestamp": _MAX_MS, "volume": _MAX, "price": Decimal(_MAX) / _PRICE}.get(
            name
        )
        if not re.fullmatch(pattern, text) or (limit is not None and Decimal(text) > limit):
            return f"{name} {text[:40]!r}", expected
    return None


# ------------------------------------------------------------------ the log


class _Damaged(Exception):
    """A line of a log that is no event: found, expected."""


def _read_log(path: Path, faults: list[Fault]) -> Events:
    """The events of a log; damaged lines become faults.

    Raises FormatError where there is no event at all.
    """
    rows: list[tuple[int, ...]] = []
    damage: dict[str, list[Any]] = {}  # by what was expected: row, found, that, count
    number = -1
    try:
        for number, line in enumerate(_lines(path)):
            try:
                rows.append((number, *_event(line)))
            except _Damaged as error:
                found, expected = error.args
                damage.setdefault(expected, [number + 1, found, expected, 0])[3] += 1
    except containers.EndsEarly as error:
        damage["the end"] = [number + 1, error.found, error.expected, 1]
    if not rows:
        row, found, expected, _ = next(iter(damage.values()))
        raise FormatError(path, found, f"an event of a Bitstamp log ({expected})", row=row)
    faults += [Fault(f"row {row:,}", *rest) for row, *rest in damage.values()]
    columns = list(zip(*rows, strict=True))
    dtypes = (np.int64, np.int64, np.int8, np.uint64, np.int8, np.int64, np.int64)
    return Events(*(np.array(column, dtype) for column, dtype in zip(columns, dtypes, strict=True)))


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
    fields = _json(match[3])
    if kind == ORDER_BOOK:
        _levels(fields)
        return ts_ms, kind, 0, 0, 0, 0
    id_ = _code(fields, "id", range(2**64))
    price = _units(fields, "price", _PRICE)
    volume = _units(fields, "amount", _VOLUME)
    if kind == TRADE:
        side = 1 - 2 * _code(fields, "type", range(2)) if "type" in fields else 0
    else:
        side = 1 - 2 * _code(fields, "order_type", range(2))
    return ts_ms, kind, id_, side, price, volume


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
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() < 12:
        value = f"{round(value, 8):f}"
    match = _DECIMAL.fullmatch(str(value)) if type(value) in (str, int) else None
    if match is None:
        raise _Damaged(f"{name} {_shown(value)}", expected)
    places = len(str(scale)) - 1
    decimals = (match[2] or "").rstrip("0").ljust(places, "0")
    units = int(match[1] + decimals) if len(decimals) == places else _MAX + 1
    if units > _MAX:
        raise _Damaged(f"{name} {_shown(value)}", expected)
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
    before, first = history.before, history.before == _NONE
    fell = (events.kind == CHANGED) & (
        first | ((events.price == events.price[before]) & (events.volume < events.volume[before]))
    )
    gone = (events.kind == DELETED) & (events.volume == 0) & (first | (events.volume[before] > 0))
    row = np.flatnonzero(fell | gone)
    size = np.where(first[row], _UNKNOWN, events.volume[before[row]] - events.volume[row])
    side, price, order_id = events.side[row], events.price[row], events.order_id[row]
    pair = _pairs(events.ts_ms[row], side, price, size, order_id, 0 if exact else SLACK, _crosses)
    alone = pair == _NONE
    size = np.where((size == _UNKNOWN) & ~alone, size[pair], size)
    maker = np.where(alone, size != _UNKNOWN, order_id < order_id[pair])
    trade = _told_by(events, row, size, maker)
    if (events.kind == TRADE).any():
        maker &= ~alone | (trade != _NONE)
    return Executions(row, size, pair, maker, trade)


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
    pair = _pairs(events.ts_ms[rows], is_trade, events.price[rows], sizes, rows, 0, _equals)
    told = np.full(len(row), _NONE)
    found = np.flatnonzero((is_trade == -1) & (pair != _NONE))
    told[np.searchsorted(row, rows[found])] = rows[pair[found]]
    return told


def _pairs(
    ts_ms: np.ndarray,
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
    pair = np.full(len(ts_ms), _NONE)
    waiting: deque[tuple[int, ...]] = deque(maxlen=MOST_WAITING)
    columns = (ts_ms.tolist(), side.tolist(), price.tolist(), size.tolist(), order_id.tolist())
    for place, (now, *mine) in enumerate(zip(*columns, strict=True)):
        while waiting and now - waiting[0][1] > WINDOW_MS:
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
    moved &= events.price != events.price[history.before]
    alone = executions.pair == _NONE
    trades = np.flatnonzero(kind == TRADE)
    counts = [
        (unknown & (kind == DELETED), "deletions of orders that are not open"),
        (unknown & (kind == CHANGED), "changes of orders that are not open"),
        (history.late, "orders created after their deletion was told (N)"),
        (events.ts_ms[1:] < events.ts_ms[:-1], "events earlier than the one before (file order is kept)"),
        (moved, "changes of price, told as M (market orders that follow the book)"),
        (alone, "executions of which only one order was told"),
        (~np.isin(trades, executions.trade), "trades of which no order was told (T)"),
    ]
    notes = [f"{what}: {np.count_nonzero(mask):,}" for mask, what in counts if mask.any()]
    return ["one lot is 0.00000001 of a coin", *notes]


# ------------------------------------------------------------------ events to tables


def _to_table(events: Events, history: History, executions: Executions, symbol: str) -> pa.Table:
    """The mbo rows of each event."""
    action = np.array([_A, _M, _C, _T, _N], np.int8)[events.kind]
    size = events.volume.copy()
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

    row = np.repeat(np.arange(len(action)), np.where(action == _F, 2, 1))
    removal = np.zeros(len(row), bool)
    removal[1:] = row[1:] == row[:-1]
    flags = np.full(len(row), MBO_FLAG_LAST, np.uint8)
    flags[:-1][removal[1:]] = 0
    codes = action[row]
    codes[removal] = _C
    ts = _times(events.ts_ms[row])
    columns = [
        ts,
        ts,
        _symbols(len(row), symbol),
        code_array(codes, MboAction),
        np.where(events.kind == TRADE, np.where(action == _T, events.side, 0), events.side)[row],
        events.price[row],
        size[row],
        np.where(events.kind <= DELETED, events.order_id, 0)[row],
        flags,
        events.sequence[row],
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=MBO)


def _times(ts_ms: np.ndarray) -> pa.Array:
    return pa.array(ts_ms * 1_000_000).cast(TIMESTAMP)


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
        "ts_event": _times(events.ts_ms[row]),
        "symbol": _symbols(len(row), symbol),
        "trade_id": events.order_id[row],
        "side": side,
        "price": events.price[row],
        "size": events.volume[row],
        "maker_order_id": makers,
        "taker_order_id": takers,
    }
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def _books_table(path: Path, mbo: pa.Table, symbol: str) -> pa.Table:
    """The order_book events of a log, as levels best first; `seq` is their row in the mbo table."""
    lines, times, books = [], [], []
    try:
        for number, line in enumerate(_lines(path)):
            if b" order_book " in line[:40]:
                try:
                    ts_ms, *_ = _event(line)
                    books.append(_levels(_json(_LOG_LINE.fullmatch(line)[3])))
                except _Damaged:
                    continue  # which is a fault of the flow already
                lines.append(number)
                times.append(ts_ms)
    except containers.EndsEarly:
        pass  # the same
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
