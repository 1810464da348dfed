"""What is in a flow, and what is wrong with it, before a result made from it is trusted.

One pass over the checked table gives its shape: instruments, times, prices, ticks. One replay finds what no
row shows by itself: unknown and duplicate ids, and everything else that would be rejected. Flows larger than
memory are read in chunks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from hftlab.codes import NOT_A_VALUE, Action, OrderType
from hftlab.config.settings import Config, load_config
from hftlab.engine.workers import Progress
from hftlab.feeds import Flow
from hftlab.feeds.parsing import containers
from hftlab.replayer.plan import CHUNK_ROWS, MANY, make_plan
from hftlab.replayer.replayer import replay_to
from hftlab.replayer.source import Source
from hftlab.results.result import Result
from hftlab.schema import to_frame
from hftlab.tape.tables import CheckedTable

FACTS = {"NEW": "A add", "REPLACE": "M modify", "REDUCE": "C cancel", "CLEAR": "R clear"}
LEVELS = {"NEW": "level appears", "REPLACE": "level changes", "CANCEL": "level goes", "CLEAR": "R clear"}
SPANS = 16
NO_EFFECT = "T, F, N (no effect)"


@dataclass(frozen=True)
class InstrumentSummary:
    """One instrument: prices and tick in units of 1e-9, None where no row has a price."""

    symbol: str
    rows: int
    lowest_price: int | None
    highest_price: int | None
    tick_size: int | None  # the largest that fits every price
    largest_qty: int | None


@dataclass(frozen=True)
class Trouble:
    """Rows that would be refused for one reason, or ends of events that leave a book crossed."""

    kind: str  # of codes.Anomaly
    rows: int
    first_row: int  # 0-based, as `seq`
    first_ts: int  # ns since the epoch, or row numbers
    last_ts: int
    by_time: tuple[int, ...]  # rows in each of 16 equal spans of the file's time (or rows)


@dataclass(frozen=True)
class Inspection:
    """What `inspect_flow` found; times are ns since the epoch, None where the flow has none."""

    path: str
    format: str
    kind: str
    bytes: int
    rows: int
    skipped: int  # rows of symbols that were not asked for
    first_ts: int | None
    last_ts: int | None
    rows_out_of_time_order: int  # earlier than the row before
    actions: dict[str, int]
    instruments: tuple[InstrumentSummary, ...]  # busiest first
    mode: str  # how it was replayed: match for commands, rebuild for facts
    accepted: int
    rejected: int
    troubles: tuple[Trouble, ...]
    fills: int
    open_orders: int  # at the end
    notes: tuple[str, ...]  # quirks of the source, counted
    faults: tuple[str, ...]  # damage in the file
    extras: tuple[str, ...]  # further tables it has

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def inspect_flow(flow: Flow, progress: Progress | None = None, *, config: Config | None = None) -> Inspection:
    """Read a flow once, replay it once, and report what is in it and what is wrong with it.

    `progress` is called with rows replayed; `config` has the instruments' settings, as for `replay`.

    Raises InputError for broken input, or none at the flow's path.
    """
    with containers.reading(flow.path, "input"):
        size = flow.path.stat().st_size
    mode = "match" if flow.kind == "orders" else "rebuild"
    survey = _Survey()
    settings = config if config is not None else load_config()
    whole = make_plan(mode, chunk_rows=CHUNK_ROWS, symbols=flow.symbols, config=settings)
    for checked, _, _ in Source(flow, whole).chunks():
        survey.add(checked)
    troubles = _Troubles(*survey.span())
    plan = make_plan(
        mode,
        record="anomalies",
        symbols=flow.symbols,
        chunk_rows=_chunks(flow),
        progress=progress,
        config=settings,
    )
    summary = replay_to(troubles.add, flow, plan).summary()
    return Inspection(
        path=str(flow.path),
        format=flow.format,
        kind=flow.kind,
        bytes=size,
        rows=summary["rows"],
        skipped=summary["skipped"],
        first_ts=survey.first_ts,
        last_ts=survey.last_ts,
        rows_out_of_time_order=survey.out_of_order,
        actions=survey.actions(flow.kind),
        instruments=survey.instruments(),
        mode=mode,
        accepted=summary["accepted"],
        rejected=summary["rejected"],
        troubles=troubles.all(),
        fills=summary["fills"],
        open_orders=summary["open_orders"],
        notes=(*flow.notes, *survey.notes(settings)),
        faults=tuple(map(str, flow.faults)),
        extras=tuple(flow.extras),
    )


def busiest(result: Result, limit: int = 5, by_fills: bool = True) -> pl.DataFrame:
    """The touch at the end of the instruments with most fills, or with most open orders.

    Columns: symbol, bid_ct, bid_sz, bid_px, ask_px, ask_sz, ask_ct, orders; by fills also fills,
    volume, last. Going by fills brings all of them into memory.
    """
    book = result.book.with_columns(pl.col("symbol").cast(pl.String))
    touch = book.group_by("symbol").agg(
        *_best(1, "bid"),
        *_best(-1, "ask"),
        pl.len().alias("orders"),
    )
    if not by_fills:
        return touch.sort("orders", "symbol", descending=[True, False]).head(limit)
    traded = (
        result.fills.with_columns(pl.col("symbol").cast(pl.String))
        .group_by("symbol")
        .agg(
            pl.len().alias("fills"),
            pl.col("qty").cast(pl.Int128).sum().alias("volume"),
            pl.col("price").last().alias("last"),
        )
    )
    # full: an instrument may have traded and be empty now, or rest and never have traded
    joined = traded.join(touch, on="symbol", how="full", coalesce=True).with_columns(
        pl.col("fills", "orders").fill_null(0)
    )
    return joined.sort("fills", "orders", "symbol", descending=[True, True, False]).head(limit)


def _best(side: int, name: str) -> tuple[pl.Expr, ...]:
    here = pl.col("side") == side
    price = pl.col("price").filter(here)
    best = price.max() if side > 0 else price.min()
    at_best = pl.col("qty").filter(here & (pl.col("price") == best))
    return best.alias(f"{name}_px"), at_best.sum().alias(f"{name}_sz"), at_best.len().alias(f"{name}_ct")


def _chunks(flow: Flow) -> int | None:
    return CHUNK_ROWS if (flow.known_rows or MANY) > CHUNK_ROWS else None


class _Troubles:
    """Anomalies by kind and time, counted table by table; the file lasts from `first` to `last`."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._length = first, (last - first) // SPANS + 1
        self._known: dict[str, Trouble] = {}

    def add(self, _name: str, anomalies: pa.Table) -> None:
        """Add the anomalies of a chunk."""
        found = to_frame(anomalies).select("seq", pl.col("kind").cast(pl.String), pl.col("ts").cast(pl.Int64))
        for (kind,), rows in found.group_by("kind"):
            seq, ts = rows["seq"].to_numpy(), rows["ts"].to_numpy()
            span = np.clip((ts - self._first) // self._length, 0, SPANS - 1)
            by_time = tuple(np.bincount(span, minlength=SPANS).tolist())
            here = Trouble(kind, rows.height, int(seq.min()), int(ts.min()), int(ts.max()), by_time)
            self._known[kind] = _both(self._known[kind], here) if kind in self._known else here

    def all(self) -> tuple[Trouble, ...]:
        """The most frequent first."""
        return tuple(sorted(self._known.values(), key=lambda trouble: (-trouble.rows, trouble.kind)))


def _both(one: Trouble, other: Trouble) -> Trouble:
    return Trouble(
        one.kind,
        one.rows + other.rows,
        min(one.first_row, other.first_row),
        min(one.first_ts, other.first_ts),
        max(one.last_ts, other.last_ts),
        tuple(map(sum, zip(one.by_time, other.by_time, strict=True))),
    )


class _Survey:
    """What the rows alone show, gathered chunk by chunk."""

    def __init__(self) -> None:
        self.rows = 0
        self.first_ts: int | None = None
        self.last_ts: int | None = None
        self.out_of_order = 0
        self._before: int | None = None  # time of the row before this chunk
        self._by_action = np.zeros(8, np.int64)
        self._nonpositive: dict[str, None] = {}  # instruments with commands of such prices
        self._by_symbol: dict[str, list[int]] = {}  # rows, lowest, highest, divisor, largest quantity

    def add(self, checked: CheckedTable) -> None:
        """Add a chunk."""
        self.rows += checked.rows
        self._by_action += np.bincount(checked.columns.action, minlength=8)
        if checked.ts.size and checked.rows:
            self._add_times(checked.ts)
        self._add_instruments(checked)

    def actions(self, kind: str) -> dict[str, int]:
        """Rows by action, in the words of the table."""
        names = [action.name for action in Action]
        if kind == "mbp":
            names = [LEVELS.get(name, name) for name in names]
        elif kind == "mbo":
            names = [FACTS.get(name, name) for name in names]
        counts = zip([*names, NO_EFFECT], self._by_action.tolist(), strict=False)
        return {name: count for name, count in counts if count}

    def span(self) -> tuple[int, int]:
        """First and last time; row numbers where rows have no times."""
        if self.first_ts is None or self.last_ts is None:
            return 0, self.rows
        return self.first_ts, self.last_ts

    def instruments(self) -> tuple[InstrumentSummary, ...]:
        """All instruments that have rows, busiest first."""
        found = [
            InstrumentSummary(
                symbol,
                rows,
                low if tick else None,
                high if tick else None,
                tick or None,
                largest or None,
            )
            for symbol, (rows, low, high, tick, largest) in self._by_symbol.items()
            if rows
        ]
        return tuple(sorted(found, key=lambda instrument: (-instrument.rows, instrument.symbol)))

    def notes(self, settings: Config) -> list[str]:
        """Which setting is missing where prices of commands are 0 or less."""
        refused = [
            name for name in self._nonpositive if not settings.instrument(name).allow_nonpositive_prices
        ]
        if not refused:
            return []
        names = ", ".join(refused[:5]) + (", ..." if len(refused) > 5 else "")
        setting = f'[instruments."{refused[0]}"] allow_nonpositive_prices = true'
        return [f"prices of 0 or less, refused as INVALID_PRICE without {setting} (--config): {names}"]

    def _add_times(self, ts: np.ndarray) -> None:
        if self._before is not None and ts[0] < self._before:
            self.out_of_order += 1
        self.out_of_order += int(np.count_nonzero(ts[1:] < ts[:-1]))
        first, last = int(ts.min()), int(ts.max())
        self.first_ts = first if self.first_ts is None else min(self.first_ts, first)
        self.last_ts = last if self.last_ts is None else max(self.last_ts, last)
        self._before = int(ts[-1])

    def _add_instruments(self, checked: CheckedTable) -> None:
        columns, books = checked.columns, len(checked.symbols)
        book = columns.book if columns.book.size else np.zeros(checked.rows, np.int32)
        rows = np.bincount(book, minlength=books)
        largest = np.zeros(books, np.int64)
        if columns.qty.size:
            np.maximum.at(largest, book, columns.qty)
        for number, symbol in enumerate(checked.symbols):
            known = self._by_symbol.setdefault(symbol, [0, 0, 0, 0, 0])
            known[0] += int(rows[number])
            known[4] = max(known[4], int(largest[number]))
        self._add_prices(checked, book)

    def _add_prices(self, checked: CheckedTable, book: np.ndarray) -> None:
        """Range and greatest common divisor of the prices each instrument's orders have."""
        columns = checked.columns
        if not columns.price.size:
            return
        limit = np.isin(columns.action, (Action.NEW, Action.REPLACE)) & (columns.price != NOT_A_VALUE)
        if columns.order_type.size:
            limit &= (columns.action == Action.REPLACE) | (columns.order_type != OrderType.MARKET)
        prices = columns.price[limit]
        if not prices.size:
            return
        order = np.lexsort((prices, book[limit]))
        prices, sorted_book = prices[order], book[limit][order]
        starts = np.flatnonzero(np.diff(sorted_book, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], prices.size], strict=True):
            known = self._by_symbol[checked.symbols[sorted_book[start]]]  # a divisor of 0: no price so far
            low, high = int(prices[start]), int(prices[stop - 1])
            if low <= 0 and not checked.any_sign:
                self._nonpositive.setdefault(checked.symbols[sorted_book[start]])
            known[1] = min(known[1], low) if known[3] else low
            known[2] = max(known[2], high) if known[3] else high
            known[3] = int(np.gcd(known[3], np.gcd.reduce(np.abs(prices[start:stop]))))
