"""Events as rows of the mbo table, and the further tables of a log."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from hftlab.codes import MBO_FLAG_LAST, UNDEF_PRICE, MboAction
from hftlab.feeds.bitstamp.events import DELETED, NONE, TRADE, UNKNOWN, Events
from hftlab.feeds.bitstamp.executions import Executions, Ghosts, History
from hftlab.feeds.bitstamp.messages import Log
from hftlab.schema import MBO, TIMESTAMP, code_array

_A, _M, _C, _T, _F, _N = (MboAction[name] for name in "AMCTFN")


def to_table(
    events: Events, history: History, executions: Executions, symbol: str, dropped: Ghosts | None
) -> pa.Table:
    """The mbo rows of each event; before one that disproved a ghost that is dropped, the ghost's C."""
    action = np.array([_A, _M, _C, _T, _N], np.int8)[events.kind]
    size, price = events.volume.copy(), events.price
    open_before = np.where(history.before == NONE, 0, events.volume[history.before])
    cancelled = (events.kind == DELETED) & (events.volume > 0) & (open_before > 0)
    size[cancelled] = open_before[cancelled]
    action[(events.kind == DELETED) & (events.volume == 0) & (history.before != NONE)] = _N  # of nothing
    action[history.late] = _N
    taken = executions.size != UNKNOWN
    action[executions.row[taken]] = np.where(executions.maker, _F, _C)[taken]
    size[executions.row[taken]] = executions.size[taken]
    nameless = executions.row[~taken]
    size[nameless] = np.where(events.kind[nameless] == DELETED, 1, events.volume[nameless])
    action[executions.trade[executions.trade != NONE]] = _N
    ghosts = Ghosts(*np.zeros((3, 0), np.int64)) if dropped is None else dropped
    action[ghosts.end[ghosts.end != NONE]] = _N

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


def trades_table(events: Events, executions: Executions, symbol: str) -> pa.Table:
    """The trades of a log, with both orders where they were found."""
    row = np.flatnonzero(events.kind == TRADE)
    makers, takers = np.zeros(len(row), np.uint64), np.zeros(len(row), np.uint64)
    side = events.side[row]
    told = np.flatnonzero(executions.trade != NONE)
    place = np.searchsorted(row, executions.trade[told])
    makers[place] = events.order_id[executions.row[told]]
    side[place] = -events.side[executions.row[told]]
    paired = executions.pair[told] != NONE
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


def books_table(log: Log, mbo: pa.Table, symbol: str) -> pa.Table:
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
