"""Which rebuilt book each row of a published file is compared with.

Books are compared only at ends of events (`Events`). How a row names its event depends on the file: by
message number, by sequence and time, or by the last update before it: a `Pairing` for each kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from hftlab.codes import MBO_FLAG_LAST, MboAction
from hftlab.errors import InputError, UsageError
from hftlab.feeds import Flow
from hftlab.feeds.parsing import containers
from hftlab.fidelity.comparison import NO_EVENT, NO_ROW, Tally
from hftlab.fidelity.rebuilt_books import BATCH_ROWS, STATE_ROWS, States
from hftlab.fidelity.venue_books import BOOK_TICKER, MBP, ORDERBOOK, Block, Truth
from hftlab.schema import to_frame

SEEDS = "rows that seed the book"
BEFORE, AFTER = "events before the first bookTicker", "events after the last bookTicker"
WITHIN = "the ticker changed within the update"


class Events:
    """Ends of events of a flow, as columns: the only rows at which books may be compared."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        frames = list(self._read(marked=flow.kind != "orders"))
        if not any(frame.height for frame in frames) and flow.kind != "orders":
            frames = list(self._read(marked=False))  # where the source marks none, every row ends one
        self.frame = pl.concat(frames)
        self.seeded = bool((self.frame["sequence"] < 0).any())  # rows of an initial book have no sequence
        self.symbols = self.frame["symbol"].unique(maintain_order=True).to_list()

    def _read(self, marked: bool) -> Iterator[pl.DataFrame]:
        first = 0
        for table in self.flow.batches(BATCH_ROWS):
            frame = _event_columns(table, first, self.flow.kind)
            first += table.num_rows
            yield frame.filter(pl.col("flags") & MBO_FLAG_LAST != 0) if marked else frame

    def one_symbol(self, symbol: str | None) -> str:
        """The instrument of a file without symbols. Raises UsageError where the flow has several."""
        if symbol is not None and symbol not in self.symbols:
            raise UsageError(f"symbol: found {symbol!r}, expected one of {', '.join(self.symbols[:10])}")
        if symbol is None and len(self.symbols) != 1:
            found = ", ".join(self.symbols[:10]) or "none"
            raise UsageError(
                f"{self.flow.path}: found symbols {found}, expected one, or symbol= to choose it"
            )
        return symbol or self.symbols[0]


def _event_columns(table: pa.Table, first: int, kind: str) -> pl.DataFrame:
    """row, symbol, ts, recv, sequence, flags of the rows that may end an event."""
    names = table.column_names
    rows = pl.int_range(first, first + table.num_rows, eager=True, dtype=pl.Int64)
    time = "ts" if kind == "orders" else "ts_event"

    def column(name: str, otherwise: pl.Series) -> pl.Series:
        if name not in names:
            return otherwise
        found = to_frame(table.select([name])).to_series()
        return found.dt.timestamp("ns") if found.dtype == pl.Datetime else found.cast(pl.Int64)

    symbol = (
        _texts(table, "symbol") if "symbol" in names else pl.repeat("DEFAULT", table.num_rows, eager=True)
    )
    ts = column(time, rows)
    frame = pl.DataFrame(
        {
            "row": rows,
            "symbol": symbol,
            "ts": ts,
            "recv": column("ts_recv", ts),
            "sequence": column("sequence", rows),
            "flags": column("flags", pl.repeat(0, table.num_rows, eager=True, dtype=pl.Int64)),
        }
    )
    if kind != "mbp":
        return frame
    return frame.filter(_texts(table, "action") != MboAction.T.name)  # a trade changes no level


def _texts(table: pa.Table, name: str) -> pl.Series:
    return pl.Series(name, table.column(name).cast(pa.string()), pl.String)


class Pairing:
    """Which event each row of a published file belongs to."""

    explain: Callable[[int, np.ndarray], str | None] | None = (
        None  # the cause of a difference, if this kind of file has its own
    )

    def __init__(self, events: Events, truth: Truth, symbol: str | None) -> None:
        self.events, self.truth, self.symbol = events, truth, symbol
        self.not_compared: Counter[str] = Counter()

    def last_row(self) -> int | None:
        """The last row of the flow that is needed; None for all."""
        return None

    def notes(self) -> list[str]:
        """Remarks beside the counts."""
        return []

    def run(self, states: Callable[[str], States], tally: Tally) -> None:
        """Compare every row that has an event."""
        raise NotImplementedError


class _Orderbook(Pairing):
    """LOBSTER: row i is the book after message i."""

    def __init__(self, events: Events, truth: Truth, symbol: str | None) -> None:
        super().__init__(events, truth, symbol)
        self._own = events.one_symbol(symbol)
        frame = events.frame.filter(pl.col("symbol") == self._own)
        self.ends = frame.filter(pl.col("sequence") >= 0).unique("sequence", keep="last", maintain_order=True)
        self.sequence = self.ends["sequence"].to_numpy()
        if (np.diff(self.sequence) <= 0).any():  # the search below needs them ascending
            raise InputError(
                f"{events.flow.path}: found message numbers that go back, expected LOBSTER's order"
            )

    def last_row(self) -> int | None:
        # counting line ends is fast, and saves rebuilding the flow beyond the published rows
        lines = sum(chunk.count(b"\n") for chunk in containers.blocks(*_member(self.truth.path)))
        found = np.searchsorted(self.sequence, lines, side="right") - 1
        return int(self.ends["row"][int(found)]) if found >= 0 else None

    def run(self, states: Callable[[str], States], tally: Tally) -> None:
        books, matched = states(self._own), 0
        for block in self.truth.blocks():
            event = np.searchsorted(self.sequence, block.key)
            known = event < self.sequence.size
            known[known] = self.sequence[event[known]] == block.key[known]
            seeds = known & (block.row == 0) & self.events.seeded
            self.not_compared[NO_EVENT] += int((~known).sum())
            self.not_compared[SEEDS] += int(seeds.sum())
            matched += int(known.sum())
            _compare(books, self.ends, event[known & ~seeds], block, known & ~seeds, tally)
        self.not_compared[NO_ROW] += self.sequence.size - matched


def _member(path: Path) -> tuple[Path, str | None]:
    if containers.container(path) != "zip":
        return path, None
    return path, next(name for name in containers.members(path) if "orderbook" in name.lower())


def _compare(
    books: States, ends: pl.DataFrame, at: np.ndarray, block: Block, rows: np.ndarray, tally: Tally
) -> None:
    """Add events `at` against the rows of a block, STATE_ROWS at a time."""
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows
    row = ends["row"].to_numpy()
    for start in range(0, at.size, STATE_ROWS):
        here, there = at[start : start + STATE_ROWS], rows[start : start + STATE_ROWS]
        tally.add(books.at(row[here]), block.values[:, there, : tally.levels], ends, here, block.row[there])


class _Mbp(Pairing):
    """Databento: a row is the book after the event of its sequence and time."""

    def run(self, states: Callable[[str], States], tally: Tally) -> None:
        (block,) = self.truth.blocks()
        rows = pl.DataFrame({"sequence": block.key, "ts": block.ts, "at": np.arange(block.row.size)})
        symbols = (
            block.symbol if block.symbol is not None else [self.events.one_symbol(self.symbol)] * rows.height
        )
        rows = rows.with_columns(pl.Series("symbol", symbols, pl.String))
        keys = ["symbol", "sequence", "ts"]
        # of several rows of one event the last shows the book at its end
        rows, events = (
            frame.unique(keys, keep="last", maintain_order=True) for frame in (rows, self.events.frame)
        )
        events = events.with_row_index("event")
        both = rows.join(events, on=keys, how="inner")
        self.not_compared[NO_EVENT] += rows.height - both.height
        self.not_compared[NO_ROW] += events.height - both.height
        for (symbol,), pairs in both.sort("row").group_by("symbol", maintain_order=True):
            at, there = (pairs[name].to_numpy().astype(np.int64) for name in ("event", "at"))
            _compare(states(symbol), events, at, block, there, tally)


class _Ticker(Pairing):
    """Binance: the touch after update u is that of the last bookTicker up to it."""

    def __init__(self, events: Events, truth: Truth, symbol: str | None) -> None:
        super().__init__(events, truth, symbol)
        if events.flow.kind != "mbp":
            raise UsageError(
                f"{events.flow.path}: found {events.flow.kind}, expected Binance's updates (mbp)"
            )
        self._values = np.empty((4, 0, 1), np.int64)  # of the instrument that is being compared
        self._latest = np.empty(0, np.int64)  # ticker of each of its events
        self._received = self._as_received = 0

    def notes(self) -> list[str]:
        if not self._received:
            return []
        share = self._as_received / self._received
        return [
            f"by receive time instead of update id it would be {share:.2%}: updates come later than tickers"
        ]

    def run(self, states: Callable[[str], States], tally: Tally) -> None:
        (block,) = self.truth.blocks()
        within, symbols = 0, block.symbol
        assert symbols is not None  # a bookTicker names its symbol
        for symbol in sorted(set(symbols) & set(self.events.symbols)):
            ends = self.events.frame.filter(pl.col("symbol") == symbol)
            rows = np.flatnonzero(symbols == symbol)
            order = rows[np.argsort(block.key[rows], kind="stable")]
            u, sequence = block.key[order], ends["sequence"].to_numpy()
            latest = np.searchsorted(u, sequence, side="right") - 1
            # outside the tickers there is nothing to compare with
            early, late = latest < 0, sequence > u[-1]
            self.not_compared[BEFORE] += int(early.sum())
            self.not_compared[AFTER] += int((late & ~early).sum())
            at = np.flatnonzero(~early & ~late)  # events with a ticker at or before them
            self._values, self._latest = block.values[:, order], latest
            _compare(states(symbol), ends, at, block, order[latest[at]], tally)
            within += rows.size - np.unique(latest[at]).size
            if block.ts is not None:  # for a remark: how a comparison by receive time would do
                here = at[block.ts[rows].min() <= ends["recv"].to_numpy()[at]]
                self._received += here.size
                order = rows[np.argsort(block.ts[rows], kind="stable")]
                latest = np.searchsorted(block.ts[order], ends["recv"].to_numpy()[here], side="right") - 1
                self._as_received += _equal(states(symbol), ends, here, block.values[:, order[latest]])
        others = sorted(set(symbols) - set(self.events.symbols))
        if others:
            self.not_compared["bookTickers of other symbols"] += int(np.isin(symbols, others).sum())
        self.not_compared["bookTickers that another one follows within the same update"] += within

    def explain(self, event: int, rebuilt: np.ndarray) -> str | None:
        """Whether another ticker of the same update, or the next, is equal to the book."""
        first = self._latest[event - 1] + 1 if event else 0
        near = self._values[:, first : self._latest[event] + 2]
        return WITHIN if (near == rebuilt[:, None]).all(axis=(0, 2)).any() else None


def _equal(books: States, ends: pl.DataFrame, at: np.ndarray, touch: np.ndarray) -> int:
    """How many of the events `at` have this touch [4, events, 1]."""
    equal = books.at(ends["row"].to_numpy()[at])[:, :, :1] == touch
    return int(equal.all(axis=(0, 2)).sum())


PAIRINGS = {ORDERBOOK: _Orderbook, MBP: _Mbp, BOOK_TICKER: _Ticker}
