"""Events of a Binance capture as rows: the mbp table, the book tickers, the trades."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

import numpy as np
import pyarrow as pa

from hftlab.codes import MBO_FLAG_LAST, MboAction
from hftlab.feeds.binance.messages import SNAPSHOT, TRADE, Event
from hftlab.schema import MBP, SYMBOL, TIMESTAMP, code_array

TICKERS = pa.schema(
    {"ts": TIMESTAMP, "symbol": SYMBOL}
    | dict.fromkeys(("u", "bid_px", "bid_sz", "ask_px", "ask_sz"), pa.int64())
)
TRADES = pa.schema(
    dict.fromkeys(("ts_event", "ts_recv", "ts_trade"), TIMESTAMP)
    | {"symbol": SYMBOL}
    | dict.fromkeys(("trade_id", "price", "size"), pa.int64())
    | {"aggressor_side": pa.int8(), "aggregate": pa.bool_()}
)

_NO_LEVELS = np.zeros((0, 2), np.int64)
_NOTHING = np.zeros((1, 2), np.int64)  # price and size of a row without a level
_M, _N, _R, _T = (int(MboAction[name]) for name in "MNRT")


class Rows:
    """Rows of the mbp table, gathered message by message."""

    def __init__(self) -> None:
        self._runs: list[tuple[int, ...]] = []
        self._levels: list[np.ndarray] = [_NO_LEVELS]

    def add(self, event: Event, book: int, flags: int = 0) -> None:
        """A row per level of an update, a trade or, after an R, a snapshot; N for one without levels."""
        shared, number = (event.ts, event.recv, event.last, book, flags), event.bids + event.asks
        if event.kind is SNAPSHOT or not number:
            action = _R if event.kind is SNAPSHOT else _N
            self._runs.append((action, *shared, 0 if number else MBO_FLAG_LAST, 0, 0, 1))
            self._levels.append(_NOTHING)
        if number:
            action = _T if event.kind is TRADE else _M
            self._runs.append((action, *shared, MBO_FLAG_LAST, event.bids, event.asks, 0))
            self._levels.append(event.levels)

    def taken(self, books: Iterable[str]) -> pa.Table:
        """The rows since the last time; `books` are the symbols by number."""
        runs, levels = np.array(self._runs, np.int64).reshape(-1, 10).T, np.concatenate(self._levels)
        self._runs, self._levels = [], [_NO_LEVELS]
        counts = runs[7:]  # bids, asks, rows without a side
        rows = counts.sum(axis=0)
        action, ts, recv, sequence, book, flags = np.repeat(runs[:6], rows, axis=1)
        flags[np.cumsum(rows) - 1] |= runs[6]
        side = np.repeat(np.tile([1, -1, 0], rows.size), counts.T.ravel())
        symbol = pa.DictionaryArray.from_arrays(book.astype(np.int32), pa.array(list(books), pa.string()))
        action = code_array(action.astype(np.int8), MboAction)
        return _table(MBP, [ts, recv, symbol, action, side, *levels.T, flags, sequence])


def ticker_table(events: list[Event]) -> pa.Table:
    """Best bids and asks as the venue published them."""
    return _table(TICKERS, [*_fields(events, "ts symbol last"), *_levels(events).reshape(-1, 4).T])


def trade_table(events: list[Event]) -> pa.Table:
    """Trades and aggregate trades, with the time of the trade itself."""
    side = [1 if event.bids else -1 for event in events]
    before, after = _fields(events, "ts recv trade_ts symbol last"), _fields(events, "aggregate")
    return _table(TRADES, [*before, *_levels(events).T, side, *after])


def _fields(events: list[Event], names: str) -> list[list]:
    return [list(map(attrgetter(name), events)) for name in names.split()]


def _levels(events: list[Event]) -> np.ndarray:
    return np.concatenate([_NO_LEVELS, *[event.levels for event in events]])


def _table(schema: pa.Schema, columns: Sequence) -> pa.Table:
    pairs = zip(columns, schema, strict=True)
    arrays = [c if isinstance(c, pa.Array) else pa.array(c, field.type) for c, field in pairs]
    return pa.Table.from_arrays(arrays, schema=schema)
