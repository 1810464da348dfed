"""The package as the tests of matching call it: one place that knows how to ask it for everything."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl

import hftlab
from hftlab.codes import PRICE_SCALE, UNDEF_PRICE, Action, Status
from hftlab.config.settings import DEFAULT_INSTRUMENT, Config, Instrument, Replay
from tests.reference import frames
from tests.reference.book import Command

NO_LEVEL = (UNDEF_PRICE, 0, 0)
RECORD = ("fills", "rejects", "outcomes", "l1", "depth", "book")


def settings(tick: int | None, allow_nonpositive: bool = False, levels: int = 3) -> Config:
    """The same settings for every instrument."""
    instrument = Instrument(tick_size=tick, allow_nonpositive_prices=allow_nonpositive)
    return Config(replay=Replay(depth=levels), instruments={DEFAULT_INSTRUMENT: instrument})


def replay(
    table: Any, tick: int | None, allow_nonpositive: bool = False, levels: int = 3, **options: Any
) -> Any:
    """Everything that a replay of the table can record."""
    config = settings(tick, allow_nonpositive, levels)
    return hftlab.replay(table, record=RECORD, config=config, **options)


# -- one call at a time


def call(book: Any, command: Command, ts: int | None = None) -> Any:
    """The method of `OrderBook` that a command is, at a time."""
    action, order_id, new_order_id, side, order_type, tif, price, qty, account, post_only = command
    if action == Action.NEW:
        return book.submit(order_id, side, price, qty, order_type, tif, account, post_only, ts)
    if action == Action.CANCEL:
        return book.cancel(order_id, account, ts)
    if action == Action.REDUCE:
        return book.reduce(order_id, qty, account, ts)
    if action == Action.REPLACE:
        return book.replace(order_id, price, qty, new_order_id, post_only, order_type, account, ts)
    if action == Action.RISK_CONTROL:
        return book.control(qty, account, ts)
    return book.mass_cancel(account, ts) if action == Action.MASS_CANCEL else book.clear(account, ts)


class OrderBooks:
    """One `OrderBook` per instrument; notes what the calls return in the rows of the tables.

    The fills of an `Ack` leave out the side, so that column is left out here too.
    """

    NOT_TOLD = ("aggressor_side", "stage")

    def __init__(self, tick: int, allow_nonpositive: bool, levels: int) -> None:
        self.tick_size = Decimal(tick) / PRICE_SCALE
        self.allow_nonpositive = allow_nonpositive
        self.levels = levels
        self.books: dict[str, Any] = {}
        self.tables: dict[str, list[tuple]] = {name: [] for name in RECORD}
        self.last: dict[tuple[str, str], tuple] = {}

    def apply(self, ts: int, symbol: str, command: Command) -> None:
        """One call, and a look at the book after it; the empty book before the first counts as seen."""
        seq = len(self.tables["outcomes"])
        if symbol not in self.books:
            self.books[symbol] = hftlab.OrderBook(symbol, self.tick_size, self.allow_nonpositive)
            self._look(seq, ts, symbol, first=True)
        ack = call(self.books[symbol], command)
        self.tables["outcomes"].append((seq, int(ack.status), ack.filled_qty, ack.leaves_qty))
        if ack.status is Status.REJECTED:
            ids = (command.order_id, command.account, int(command.action))
            self.tables["rejects"].append(
                (seq, ts, symbol, *ids, int(ack.reason), ack.limit_value, ack.observed_value)
            )
        self._note_fills(seq, ts, symbol, ack.fills)
        self._look(seq, ts, symbol)

    def _note_fills(self, seq: int, ts: int, symbol: str, fills: tuple) -> None:
        rows = self.tables["fills"]
        for fill in fills:
            parties = (fill.taker_order_id, fill.maker_order_id, fill.taker_account, fill.maker_account)
            leaves = (fill.taker_leaves, fill.maker_leaves)
            rows.append((seq, len(rows), ts, symbol, fill.price, fill.qty, *parties, *leaves))

    def _look(self, seq: int, ts: int, symbol: str, first: bool = False) -> None:
        book = self.books[symbol]
        bid, ask = (level or (None, 0, 0) for level in (book.best_bid, book.best_ask))
        views = {"l1": (*bid, *ask), "depth": self._depth(book)}
        for name, view in views.items():
            if not first and self.last[name, symbol] != view:
                self.tables[name].append((seq, ts, symbol, *view))
            self.last[name, symbol] = view

    def _depth(self, book: Any) -> tuple:
        depth = book.depth(self.levels)
        sides = [[*side, *[NO_LEVEL] * (self.levels - len(side))] for side in (depth.bids, depth.asks)]
        return tuple(column for side in sides for column in zip(*side, strict=True))

    def frames(self) -> dict[str, pl.DataFrame]:
        """What was noted, and the final book."""
        told = {
            name: {column: kind for column, kind in columns.items() if column not in self.NOT_TOLD}
            for name, columns in frames.COLUMNS.items()
        }
        told["depth"] = frames.depth_columns(self.levels)
        outputs = {name: frames.of_rows(self.tables[name], columns) for name, columns in told.items()}
        books = [frames.of_frame(book.orders(), frames.COLUMNS["book"]) for book in self.books.values()]
        outputs["book"] = frames.by_symbol(pl.concat([outputs["book"], *books]))
        return outputs
