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

import re
from collections.abc import Iterable
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np

from hftlab.errors import UsageError, optional_name
from hftlab.feeds.bitstamp.csv_files import is_csv, read_table
from hftlab.feeds.bitstamp.events import CHANGED, DELETED, NONE, PRICE, TRADE, Events
from hftlab.feeds.bitstamp.executions import (
    Executions,
    Ghosts,
    History,
    find_executions,
    find_ghosts,
    follow,
    without_taken_back,
)
from hftlab.feeds.bitstamp.messages import Log, is_log
from hftlab.feeds.bitstamp.tables import books_table, to_table, trades_table
from hftlab.feeds.flow import Fault, Flow
from hftlab.feeds.parsing import containers

DESCRIPTION = (
    "Bitstamp live orders: obAnalytics CSV, raw log or websocket messages (.csv, .log, .gz, .xz, .zst)"
)
DEFAULT_SYMBOL = "BTCUSD"  # where neither option nor file name tells
LOT = "1e-8"  # of a coin
GHOSTS_SHOWN = 5
_NAME = re.compile(r"bitstamp[_.-]([a-z]{6,8})(?![a-z])", re.IGNORECASE)


def sniff(path: Path, head: bytes) -> bool:
    """Whether the first line is the header of the CSV, or there is an event of a log or of the websocket."""
    return is_csv(head) or is_log(head)


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
    log = Log(path, asked) if is_log(containers.head(path)) else None
    events = log.events(faults) if log else read_table(path, faults)
    symbol = asked or (log and log.channel) or (told[1].upper() if told else DEFAULT_SYMBOL)
    history = follow(events)
    executions = find_executions(events, history, exact=log is not None)
    ghosts = find_ghosts(events, history, executions)
    executions = without_taken_back(events, history, executions, ghosts)
    table = to_table(events, history, executions, symbol, ghosts if drop else None)
    extras = {}
    if log:
        extras["trades"] = partial(trades_table, events, executions, symbol)
        extras["order_book"] = partial(books_table, log, table, symbol)
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


def _notes(events: Events, history: History, executions: Executions) -> list[str]:
    """The lot, and counted quirks."""
    kind, unknown = events.kind, ~history.known
    moved = (kind == CHANGED) & (history.before != NONE)
    moved &= events.price != executions.resting[history.before]
    told = np.zeros(len(kind), bool)
    told[executions.row] = True
    alone = executions.pair == NONE
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
        f"{Decimal(int(events.price[row])) / PRICE} since {_moment(events.ts_us[row])}, "
        f"disproved {_moment(events.ts_us[disproved])})"
        for row, disproved in zip(ghosts.row, ghosts.disproved, strict=True)
    ]
    more = ", ..." if len(listed) > GHOSTS_SHOWN else ""
    what = "ghosts, orders that stay while the market trades through them (drop_ghosts leaves them out)"
    what = "ghosts left out from where they were disproved" if drop else what
    return [f"{what}: {len(listed):,}: {', '.join(listed[:GHOSTS_SHOWN])}{more}"]


def _moment(ts_us: np.int64) -> str:
    return str(np.datetime64(int(ts_us), "us"))
