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

`binance_sequence` says which messages make the book. What is dropped is counted in the notes; a gap is a
fault with its row. A snapshot says nothing about levels beyond its own (1,000 or 5,000 a side): those appear
when they change.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path

import pyarrow as pa

from hftlab.codes import DEFAULT_SYMBOL
from hftlab.errors import FormatError, UsageError, optional_name
from hftlab.feeds.binance import messages
from hftlab.feeds.binance.messages import SNAPSHOT, TICKER, TRADE, UPDATE, Damage, Event, Faults, Parser
from hftlab.feeds.binance.sequence import COUNTED, Book
from hftlab.feeds.binance.tables import Rows, ticker_table, trade_table
from hftlab.feeds.flow import Fault, Flow
from hftlab.feeds.native import resliced
from hftlab.feeds.parsing import containers
from hftlab.schema import MBP

DESCRIPTION = "Binance stream captures (depth, trades, book tickers, snapshots)"

LOT = "0.00000001"
LINE_BYTES = 1 << 26

_LONG_SNAPSHOT = re.compile(rb'\d{0,19} ?\{(?:"stream":"[^"]*","data":\{)?"lastUpdateId":\d+,')

Tables = dict[str, pa.Table]  # what lines become: mbp, book_ticker, trades


def sniff(path: Path, head: bytes) -> bool:
    """Whether one of the first lines is a message that this feed reads."""
    return _LONG_SNAPSHOT.match(head) is not None or any(map(messages.is_message, head.split(b"\n")[:20]))


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
    notes: list[str] = []
    faults: list[Fault] = []
    symbol, decimals = optional_name("symbol", symbol), _decimals(lot)

    def read() -> Iterator[Tables]:
        """One pass over the file; notes and faults are of the last."""
        reading = _Reading(path, symbol, decimals)
        try:
            yield from reading.tables()
        finally:
            notes[:], faults[:] = reading.notes(), reading.faults.listed()

    def whole(name: str) -> pa.Table:
        return pa.concat_tables([part[name] for part in read()]).unify_dictionaries().combine_chunks()

    def batches(rows: int) -> Iterator[pa.Table]:
        return resliced((batch for part in read() for batch in part["mbp"].to_batches()), MBP, rows)

    return Flow(
        path,
        "binance",
        "mbp",
        partial(whole, "mbp"),
        symbols=symbols,
        notes=notes,
        batches=batches,
        faults=faults,
        extras={name: partial(whole, name) for name in ("book_ticker", "trades")},
        lot_size=Decimal(1).scaleb(-decimals),
    )


def _decimals(lot: str | float) -> int:
    """Decimals of a size in lots: 8 of 0.00000001."""
    try:
        return {float(f"1e-{n}"): n for n in range(messages.PRICE_DECIMALS + 1)}[float(lot)]
    except (TypeError, ValueError, KeyError):
        raise UsageError(f"lot: found {lot!r}, expected a power of ten from 0.000000001 to 1") from None


class _Reading:
    """One pass over a capture: lines to events, events to books, books to rows."""

    def __init__(self, path: Path, symbol: str | None, decimals: int) -> None:
        self.faults = Faults()
        self._path, self._symbol, self._decimals = path, symbol, decimals
        self._parser, self._rows = Parser(), Rows()
        self._counts: Counter[str] = Counter()
        self._books: dict[str, Book] = {}
        self._early: list[Event] = []  # snapshots before anything that tells their symbol or time

    def tables(self) -> Iterator[Tables]:
        """A block of the file at a time. Raises FormatError where it has no message."""
        for first_row, lines in self._lines():
            yield self._tables(self._events(first_row, lines))
        if not self._counts["messages"]:
            said = self.faults.listed()
            found = f"no message of Binance ({said[0]})" if said else "no message of Binance"
            expected = "depthUpdate, trade, bookTicker or a depth snapshot on each line"
            raise FormatError(self._path, found, expected)
        for snapshot in self._early:
            self._book(snapshot.symbol or next(iter(self._books), DEFAULT_SYMBOL)).snapshot(snapshot)
        for book in self._books.values():
            book.end()
        yield self._tables([])

    def _lines(self) -> Iterator[tuple[int, list[bytes]]]:
        """Whole lines, a block of them at a time, with the 1-based row of the first."""
        row, size, held = 1, 0, b""
        try:
            for block in containers.blocks(self._path):
                size += len(block)
                *lines, held = (held + block).split(b"\n")
                if len(held) > LINE_BYTES:
                    found = f"{len(held):,} bytes without a line end"
                    raise FormatError(self._path, found, "a message a line", row + len(lines))
                yield row, lines
                row += len(lines)
        except containers.EndsEarly as error:
            self.faults.add(f"byte {size:,}", error.found, error.expected)
            held = held if messages.is_whole(held) else b""
        yield row, [held]

    def _events(self, first_row: int, lines: list[bytes]) -> list[Event]:
        """The messages of some lines; faults of those that are none."""
        events: list[Event] = []
        texts: list[bytes] = []
        parse = self._parser.parse
        for row, line in enumerate(lines, first_row):
            try:
                parsed = parse(row, line)
            except Damage as damage:
                self.faults.add(f"line {row:,}", *damage.args)
                continue
            if parsed is not None:
                events.append(parsed[0])
                texts += parsed[1]
        return messages.read_levels(events, texts, self._decimals, self.faults)

    def _tables(self, events: list[Event]) -> Tables:
        tickers, trades = ([e for e in events if e.kind is kind] for kind in (TICKER, TRADE))
        self._counts["messages"] += len(events)
        self._counts.update("aggregates" if trade.aggregate else "trades" for trade in trades)
        for event in events:
            if event.kind is SNAPSHOT:
                self._snapshot(event)
            elif event.kind is not TICKER:
                self._take(event)
        mbp = self._rows.taken(self._books)
        return {"mbp": mbp, "book_ticker": ticker_table(tickers), "trades": trade_table(trades)}

    def _book(self, symbol: str) -> Book:
        if symbol not in self._books:
            self._books[symbol] = Book(len(self._books), self._rows, self._counts, self.faults)
        return self._books[symbol]

    def _take(self, event: Event) -> None:
        """Give an update or a trade to its book, after the snapshots that waited for what an update tells."""
        book = self._book(event.symbol)
        if event.kind is UPDATE and self._early:
            early, self._early = self._early, []
            for snapshot in early:
                if snapshot.symbol in (None, event.symbol):
                    snapshot.ts = snapshot.ts or event.ts
                    book.snapshot(snapshot)
                else:
                    self._early.append(snapshot)
        book.take(event)

    def _snapshot(self, event: Event) -> None:
        """Give a snapshot to its book; one that comes before all that tells symbol or time waits for that."""
        event.symbol = event.symbol or self._symbol
        known = {name: book.latest for name, book in self._books.items() if book.latest is not None}
        if event.symbol is None and known:
            event.symbol = min(known, key=lambda name: abs(known[name] - event.last))
        if event.symbol in self._books or (event.symbol and (event.ts or event.recv)):
            self._book(event.symbol).snapshot(event)
        else:
            event.levels = event.levels.copy()  # so that those read with it need not be held
            self._early.append(event)

    def notes(self) -> list[str]:
        """What a reader should know of it, counted."""
        counts, parser = self._counts, self._parser
        notes = [f"{what}: {counts[what]:,}" for what in COUNTED if counts[what]]
        if counts["aggregates"] and counts["trades"]:
            notes.append(f"aggregate trades beside the trades they sum up: {counts['aggregates']:,}")
        if parser.early:
            by = f"by up to {parser.early_ns / 1e9:.3f} s"
            notes.append(f"messages received before they were sent, {by}: {parser.early:,}")
        if without := [name for name, book in self._books.items() if book.began_empty]:
            notes.append(f"books without a snapshot, which begin empty: {', '.join(without[:10])}")
        if parser.others:
            kinds = ", ".join(f"{name} {count:,}" for name, count in parser.others.most_common(10))
            notes.append(f"messages of other streams, not used: {kinds}")
        if self._decimals and counts["messages"]:
            notes.append(f"a lot is {1 / 10**self._decimals:.{self._decimals}f}")
        return notes
