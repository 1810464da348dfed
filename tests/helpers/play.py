"""Stories of a few orders: `play("S1 100@10", "B2 60@10") == [Rest(1), Fill(2, 1, 60, 10)]`.

A story is a list of tokens, one per command, and any engine can play it: the slow twin, the batch path, the
event path and `OrderBook` one call at a time.

====================  ================================================================
``B2 60@10``          buy 60 at 10 as order 2 (``S`` sells); the price is a decimal
``B2 60@mkt``         at any price
``... ioc``           likewise ``fok``, ``day``, ``post``, ``passive``, in any combination
``... #5``            for account 5
``C1``                cancel order 1
``R1 20``             take 20 off order 1
``X1 30@11``          replace order 1: now 30 at 11 (``post`` and others may follow)
``X1>7 30@11``        and now it is order 7
``M5``                cancel all of account 5
``CLEAR``             cancel all
``ES/B1 5@10``        in instrument ES
====================  ================================================================

Quantities and ids may be written ``2^63-1``; a quantity may be ``nan``, ``1.5`` or ``1e30``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from hftlab.codes import DEFAULT_SYMBOL, PRICE_SCALE, Action, OrderType, Reason, Side, Stage, Status, Tif
from tests.reference import frames, package
from tests.reference.book import Command, ReferenceVenue

REJECT_COLUMNS = ("seq", "reason", "stage", "limit_value", "observed_value")
LEVELS = 3  # of the depth every engine records
ACTIONS = {
    "B": Action.NEW,
    "S": Action.NEW,
    "C": Action.CANCEL,
    "R": Action.REDUCE,
    "X": Action.REPLACE,
    "M": Action.MASS_CANCEL,
}
TOKEN = re.compile(r"(?:(?P<symbol>\w+)/)?(?P<letter>[BSCRXM])(?P<id>[\d^+-]+)(?:>(?P<new_id>[\d^+-]+))?")


class Rest(NamedTuple):
    """The order is open after this command."""

    order_id: int


class Fill(NamedTuple):
    """A trade, at the maker's price."""

    taker: int
    maker: int
    qty: int
    price: Any


class Cancelled(NamedTuple):
    order_id: int


class Expired(NamedTuple):
    """What was left of the order expired."""

    order_id: int


class Replaced(NamedTuple):
    """The order is open after a replace, under this id."""

    order_id: int


class Rejected(NamedTuple):
    order_id: int
    reason: Reason


class Row(NamedTuple):
    """A command with its instrument."""

    symbol: str
    command: Command


# -- tokens to rows


def parse(token: str) -> Row:
    """The command a token stands for."""
    head, *words = token.split()
    symbol, _, bare = head.rpartition("/")
    if bare == "CLEAR":
        return Row(symbol or DEFAULT_SYMBOL, Command(int(Action.CLEAR)))
    match = TOKEN.fullmatch(head)
    if match is None:
        raise ValueError(f"found {token!r}, expected one of the forms in play.py")
    fields = _fields(match) | _words(words)
    return Row(match["symbol"] or DEFAULT_SYMBOL, Command(**fields))


def _fields(match: re.Match) -> dict[str, Any]:
    letter, number = match["letter"], _integer(match["id"])
    fields: dict[str, Any] = {"action": int(ACTIONS[letter])}
    fields["account" if letter == "M" else "order_id"] = number
    if letter in "BS":
        fields["side"] = int(Side.parse(letter))
    if match["new_id"]:
        fields["new_order_id"] = _integer(match["new_id"])
    return fields


def _words(words: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for word in words:
        if word == "post":
            fields["post_only"] = True
        elif word == "passive":
            fields["order_type"] = int(OrderType.PASSIVE)
        elif word in ("gtc", "day", "ioc", "fok"):
            fields["tif"] = int(Tif.parse(word))
        elif word.startswith("#"):
            fields["account"] = int(word[1:])
        else:
            fields |= _amount(word)
    return fields


def _amount(word: str) -> dict[str, Any]:
    qty, _, price = word.partition("@")
    fields: dict[str, Any] = {"qty": _number(qty)}
    if price == "mkt":
        fields["order_type"] = int(OrderType.MARKET)
    elif price:
        fields["price"] = _price(price)
    return fields


def _integer(text: str) -> int:
    match = re.fullmatch(r"(-?\d+)(?:\^(\d+))?([+-]\d+)?", text)
    if match is None:
        raise ValueError(f"found {text!r}, expected an integer such as 12 or 2^63-1")
    base, exponent, offset = match.groups()
    return int(base) ** int(exponent or 1) + int(offset or 0)


def _number(text: str) -> int | float:
    return float(text) if re.search(r"[.a-z]", text) else _integer(text)


def _price(text: str) -> int | float:
    price = Decimal(text) * PRICE_SCALE
    return int(price) if price.is_finite() and price == int(price) else float(text)


def shown_price(price: int | None) -> Any:
    """A price in 1e-9 as the number a story would write."""
    if price is None:
        return None
    return price // PRICE_SCALE if price % PRICE_SCALE == 0 else Decimal(price) / PRICE_SCALE


# -- engines: rows to frames


def twin(rows: list[Row], tick: int, allow_nonpositive: bool) -> dict[str, pl.DataFrame]:
    """The slow twin."""
    venue = ReferenceVenue(tick, allow_nonpositive, depth_levels=LEVELS)
    venue.run((seq, row.symbol, *row.command) for seq, row in enumerate(rows))
    for book in venue.books.values():
        book.check()
    return frames.of_venue(venue)


def table_of(rows: list[Row]) -> dict[str, Any]:
    """The rows as a dict of arrays: an orders table."""
    commands = [row.command for row in rows]
    table = {name: [getattr(command, name) for command in commands] for name in Command._fields}
    table["symbol"] = [row.symbol for row in rows]
    table["price"] = _price_column(table["price"])
    table["qty"] = _numbers(table["qty"])
    table["order_id"] = np.array(table["order_id"], dtype=np.uint64)
    if any(new is not None for new in table["new_order_id"]):
        table["new_order_id"] = pl.Series(table["new_order_id"], dtype=pl.UInt64)
    else:
        del table["new_order_id"]
    return table


def _numbers(values: list) -> np.ndarray:
    whole = all(isinstance(value, int) for value in values)
    if whole and all(-(2**63) <= value < 2**63 for value in values):
        return np.array(values, dtype=np.int64)
    if whole and all(0 <= value < 2**64 for value in values):
        return np.array(values, dtype=np.uint64)
    return np.array(values, dtype=np.float64)


def _price_column(prices: list) -> np.ndarray:
    if all(isinstance(price, int) and -(2**63) <= price < 2**63 for price in prices):
        return np.array(prices, dtype=np.int64)
    return np.array([p / PRICE_SCALE if isinstance(p, int) else p for p in prices], dtype=np.float64)


def replayed(rows: list[Row], tick: int, allow_nonpositive: bool, path: str) -> dict[str, pl.DataFrame]:
    """`hftlab.replay` of a table."""
    run = package.replay(table_of(rows), tick, allow_nonpositive, LEVELS, path=path)
    return frames.of_run(run, tuple(frames.COLUMNS), LEVELS)


def order_book(rows: list[Row], tick: int, allow_nonpositive: bool) -> dict[str, pl.DataFrame]:
    """`OrderBook`, one call per command."""
    books = package.OrderBooks(tick, allow_nonpositive, LEVELS)
    for seq, row in enumerate(rows):
        books.apply(seq, row.symbol, row.command)
    return books.frames()


ENGINES: dict[str, Callable[..., dict[str, pl.DataFrame]]] = {
    "twin": twin,
    "batch": partial(replayed, path="batch"),
    "event": partial(replayed, path="event"),
    "order_book": order_book,
}


# -- frames to stories


class Story:
    """What an engine made of some tokens, in the words of a story."""

    def __init__(self, rows: list[Row], outputs: dict[str, pl.DataFrame]) -> None:
        self.rows = rows
        self.outputs = outputs

    @property
    def outcomes(self) -> list[tuple[Status, int, int]]:
        """(status, filled_qty, leaves_qty) of every command."""
        rows = self.outputs["outcomes"].rows()
        return [(Status(status), filled, leaves) for _, status, filled, leaves in rows]

    @property
    def rejects(self) -> list[tuple]:
        """(seq, reason, stage, limit_value, observed_value) of every reject; of an `Ack`, the first two."""
        frame = self.outputs["rejects"]
        told = [name for name in REJECT_COLUMNS if name in frame.columns]
        return [
            (row[0], Reason(row[1]), *map(Stage, row[2:3]), *row[3:]) for row in frame.select(told).rows()
        ]

    @property
    def book(self) -> list[str]:
        """The open orders as tokens: bids then offers, best first, oldest first."""
        return [_as_token(order) for order in self.outputs["book"].rows(named=True)]

    @property
    def fills(self) -> list[dict[str, Any]]:
        """The rows of the fills table."""
        return self.outputs["fills"].rows(named=True)

    @property
    def l1(self) -> list[tuple]:
        """(seq, bid_px, bid_sz, bid_ct, ask_px, ask_sz, ask_ct) of every change of the touch."""
        rows = self.outputs["l1"].drop("ts", "symbol").rows()
        return [
            (seq, shown_price(bid_px), bid_sz, bid_ct, shown_price(ask_px), ask_sz, ask_ct)
            for seq, bid_px, bid_sz, bid_ct, ask_px, ask_sz, ask_ct in rows
        ]

    @property
    def depth(self) -> list[dict[str, Any]]:
        """The rows of the depth table, its six lists as tuples."""
        rows = self.outputs["depth"].drop("ts", "symbol").rows(named=True)
        return [{name: tuple(v) if name != "seq" else v for name, v in row.items()} for row in rows]

    @property
    def events(self) -> list[NamedTuple]:
        """Fills and what happened to the command's own order, in order; a complete fill speaks for itself."""
        fills = self.outputs["fills"].partition_by("seq", as_dict=True)
        reasons = dict(self.outputs["rejects"].select("seq", "reason").iter_rows())
        events: list[NamedTuple] = []
        for seq, (row, (status, _, _)) in enumerate(zip(self.rows, self.outcomes, strict=True)):
            events += [_fill(fill) for fill in fills[(seq,)].rows(named=True)] if (seq,) in fills else []
            events += _last_word(row.command, status, reasons.get(seq))
        return events


def _fill(fill: dict[str, Any]) -> Fill:
    return Fill(fill["taker_order_id"], fill["maker_order_id"], fill["qty"], shown_price(fill["price"]))


def _last_word(command: Command, status: Status, reason: int | None) -> list[NamedTuple]:
    if status is Status.FILLED:
        return []
    if status is Status.REJECTED:
        return [Rejected(command.order_id, Reason(reason))]
    if status is Status.REPLACED:
        new_id = command.new_order_id
        return [Replaced(command.order_id if new_id is None else new_id)]
    event = {Status.RESTING: Rest, Status.CANCELLED: Cancelled, Status.EXPIRED: Expired}[status]
    return [event(command.order_id)]


def _as_token(order: dict[str, Any]) -> str:
    symbol = "" if order["symbol"] == DEFAULT_SYMBOL else f"{order['symbol']}/"
    letter = "B" if order["side"] == Side.BUY else "S"
    account = f" #{order['account']}" if order["account"] else ""
    return f"{symbol}{letter}{order['order_id']} {order['qty']}@{shown_price(order['price'])}{account}"


class Player:
    """Plays stories through one engine; a call gives the events, `tell` gives everything."""

    def __init__(self, engine: str = "twin") -> None:
        self.engine = engine

    def __call__(self, *tokens: str, tick: str = "1", allow_nonpositive: bool = False) -> list[NamedTuple]:
        return self.tell(*tokens, tick=tick, allow_nonpositive=allow_nonpositive).events

    def tell(self, *tokens: str, tick: str = "1", allow_nonpositive: bool = False) -> Story:
        tick_units = int(Decimal(tick) * PRICE_SCALE)
        return self.story([parse(token) for token in tokens], tick_units, allow_nonpositive)

    def story(self, rows: list[Row], tick: int = PRICE_SCALE, allow_nonpositive: bool = False) -> Story:
        """The story of rows that are commands already; the tick is in 1e-9."""
        return Story(rows, ENGINES[self.engine](rows, tick, allow_nonpositive))


play = Player()
