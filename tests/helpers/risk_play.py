"""Stories behind the risk gate: those of `play.py` with clocks and states, told by any engine.

====================  ================================================================
``1.5s B2 60@10 #5``  at second 1.5; without a time at the time of the token before
``K3 #5``             RISK_CONTROL with qty 3, for account 5
``ES/K5``             RISK_CONTROL with qty 5, for instrument ES
``X1 5@10 #6``        a replace sent by account 6, whoever owns order 1
====================  ================================================================

Limits are given in whole prices and money by `money`, percentages by `percent`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np

import hftlab
from hftlab.codes import DEFAULT_SYMBOL, PRICE_SCALE, Action, GateEvent, Reason, Side, Stage, Status
from tests.helpers import gated_package
from tests.helpers.play import Row, parse, shown_price, table_of
from tests.reference import positions
from tests.reference.book import Command
from tests.reference.gated import GatedVenue
from tests.reference.package import settings
from tests.reference.risk_limits import SECOND, Limits

CONTROL = re.compile(r"(?:(?P<symbol>\w+)/)?K(?P<qty>-?\d+)(?: #(?P<account>-?\d+))?")
TIMED = re.compile(r"(?:(?P<seconds>-?[\d.]+)s )?(?P<rest>.*)")


def money(amount: Any) -> int:
    """Money, or a price, in 1e-9."""
    return int(Decimal(str(amount)) * PRICE_SCALE)


def percent(share: Any) -> int:
    """A percentage in millionths of the whole."""
    return int(Decimal(str(share)) * 10_000)


class Told:
    """What the gate and the book made of a story; prices and money as a story writes them."""

    def __init__(self, tables: dict[str, list[tuple]], venue: GatedVenue | None = None) -> None:
        self.tables = tables  # by the names and columns of `frames`
        self.venue = venue  # the slow twin, if it told the story

    @property
    def statuses(self) -> list[Status]:
        return [Status(status) for _, status, _, _ in self.tables["outcomes"]]

    @property
    def last(self) -> tuple[Status, int, int]:
        """(status, filled_qty, leaves_qty) of the last row."""
        _, status, filled, leaves = self.tables["outcomes"][-1]
        return Status(status), filled, leaves

    @property
    def reject(self) -> tuple | None:
        """(reason, stage, limit_value, observed_value) of the last row, None if it was accepted."""
        rows = self.tables["rejects"]
        if not rows or rows[-1][0] != len(self.tables["outcomes"]) - 1:
            return None
        *_, stage, reason, limit, observed = rows[-1]
        return Reason(reason), Stage(stage), limit, observed

    @property
    def fills(self) -> list[tuple]:
        """(row, taker, maker, qty, price) of every fill."""
        return [(row[0], row[7], row[8], row[5], shown_price(row[4])) for row in self.tables["fills"]]

    @property
    def events(self) -> list[tuple]:
        """(row, event, symbol, account, order_id, qty) of what the gate did by itself."""
        return [(row[0], GateEvent(row[4]), *row[2:4], *row[5:7]) for row in self.tables["gate"]]

    @property
    def strikes(self) -> list[tuple]:
        """(row, symbol, account, limit_value, observed_value) of every STOP_LOSS, money as money."""
        struck = [row for row in self.tables["gate"] if row[4] == GateEvent.STOP_LOSS]
        return [(row[0], *row[2:4], shown_price(row[7]), shown_price(row[8])) for row in struck]

    @property
    def book(self) -> list[str]:
        """The open orders as tokens without accounts."""
        return [
            f"{'' if symbol == DEFAULT_SYMBOL else symbol + '/'}"
            f"{'B' if side == Side.BUY else 'S'}{order_id} {qty}@{shown_price(price)}"
            for symbol, side, price, qty, order_id, _ in self.tables["book"]
        ]

    def position(self, account: int, symbol: str = DEFAULT_SYMBOL) -> int:
        """Lots that the fills have brought to that cell."""
        fills = [row for row in self.tables["fills"] if row[3] == symbol]
        bought = sum(row[6] * row[5] for row in fills if row[9] == account)
        return bought - sum(row[6] * row[5] for row in fills if row[10] == account)

    def held(self, account: int, symbol: str = DEFAULT_SYMBOL) -> dict[str, Any]:
        """The row of `positions` of that cell, in lots and 1e-9, as the slow twin has it."""
        rows = [dict(zip(positions.COLUMNS, row, strict=True)) for row in self.venue.positions()]
        (row,) = [row for row in rows if (row["account"], row["symbol"]) == (account, symbol)]
        return row


def by_twin(rows: list[tuple], limits: Limits | None, tick: int, allow_nonpositive: bool) -> Told:
    """The slow twin."""
    venue = GatedVenue(tick, allow_nonpositive, limits=limits).run(rows)
    for book in venue.books.values():
        book.check()
    tables = {"outcomes": venue.outcomes, "rejects": venue.rejects, "fills": venue.fills, "l1": venue.l1}
    book = sorted(venue.final_book(), key=lambda row: row[0])
    return Told(tables | {"gate": venue.events, "book": book}, venue)


def by_package(
    path: str, rows: list[tuple], limits: Limits | None, tick: int, allow_nonpositive: bool
) -> Told:
    """`hftlab.replay` of a table; limits may be missing where RISK_CONTROL rows bring the gate along."""
    if limits is None and all(action != Action.RISK_CONTROL for _, _, action, *_ in rows):
        limits = Limits()
    table = table_of([Row(symbol, Command(*command)) for _, symbol, *command in rows])
    table["ts"] = np.array([row[0] for row in rows], np.int64)
    run = hftlab.replay(
        table,
        record=(*gated_package.NAMES, "depth", "gate"),
        config=settings(tick, allow_nonpositive, gated_package.LEVELS),
        limits=None if limits is None else gated_package.as_limits(limits),
        path=path,
    )
    return Told({name: frame.rows() for name, frame in gated_package.outputs(run).items()})


ENGINES: dict[str, Callable[..., Told]] = {
    "twin": by_twin,
    "batch": partial(by_package, "batch"),
    "event": partial(by_package, "event"),
}
engine = "twin"  # that tells stories; tests set it


def tell(*tokens: str, limits: Limits | None = None, tick: Any = 1, allow_nonpositive: bool = False) -> Told:
    """Play tokens against limits."""
    return ENGINES[engine](list(_rows(tokens)), limits, money(tick), allow_nonpositive)


def refusal(*tokens: str, limits: Limits | None = None, **options: Any) -> tuple | None:
    """The reject of the last token, None when it was accepted."""
    return tell(*tokens, limits=limits, **options).reject


def _rows(tokens: tuple[str, ...]):
    ts = 0
    for token in tokens:
        match = TIMED.fullmatch(token)
        if match["seconds"] is not None:
            ts = int(Decimal(match["seconds"]) * SECOND)
        symbol, command = _control(match["rest"]) or parse(match["rest"])
        yield (ts, symbol, *command)


def _control(token: str) -> tuple[str, Command] | None:
    match = CONTROL.fullmatch(token)
    if match is None:
        return None
    command = Command(int(Action.RISK_CONTROL), qty=int(match["qty"]), account=int(match["account"] or 0))
    return match["symbol"] or DEFAULT_SYMBOL, command
