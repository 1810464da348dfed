"""`RiskReport`: one flow under several sets of limits, as tables, JSON and a notebook's HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl

from hftlab.codes import MAX_QTY, PRICE_SCALE, GateEvent, Reason

NO_GATE = "none"  # the set without limits, always the first
LOTS, MONEY, PRICE, MESSAGES, ORDERS, ACCOUNT = "lots", "money", "price", "messages", "orders", "account"
UNITS = {  # of the limit and the observed value of a reject by the gate; "" where it has neither
    Reason.KILL_SWITCH: "",
    Reason.UNKNOWN_ACCOUNT: ACCOUNT,
    Reason.RESTRICTED_SYMBOL: "",
    Reason.RATE_LIMIT: MESSAGES,
    Reason.REPEATED_ORDER: ORDERS,
    Reason.MAX_ORDER_QTY: LOTS,
    Reason.MAX_NOTIONAL: MONEY,
    Reason.REDUCE_ONLY: LOTS,
    Reason.STOP_LOSS: MONEY,
    Reason.PRICE_BAND: PRICE,
    Reason.MAX_POSITION: LOTS,
    Reason.MAX_OPEN_ORDERS: ORDERS,
    Reason.MAX_OPEN_NOTIONAL: MONEY,
    Reason.MAX_PORTFOLIO_VALUE: MONEY,
    Reason.SELF_TRADE: "",
}
FIRST = pl.Schema(  # of a table of stops
    {
        "account": pl.Int64(),
        "seq": pl.Int64(),
        "ts": pl.Datetime("ns", "UTC"),
        "symbol": pl.String(),
        "order_id": pl.UInt64(),
        "stage": pl.String(),
        "reason": pl.String(),
        "limit_value": pl.Int64(),
        "observed_value": pl.Int64(),
        "unit": pl.String(),
        "limit": pl.String(),
        "observed": pl.String(),
    }
)
EVENTS = {  # columns of the table of sets that count events of the gate
    "self_trades": (GateEvent.SELF_TRADE_CANCEL, GateEvent.SELF_TRADE_DECREMENT),
    "cancelled": (GateEvent.KILL_CANCEL, GateEvent.STOP_CANCEL),
    "stops": (GateEvent.STOP_LOSS,),
    "closings": (GateEvent.STOP_CLOSE,),
}
SHOWN_SETS = 20  # in a notebook


@dataclass(frozen=True)
class Stop:
    """Where a limit first stopped an account: an order it refused, or a stop loss that struck."""

    seq: int  # row of the flow
    ts: int  # ns
    account: int
    symbol: str | None  # None where a stop loss stands for all symbols of the account
    order_id: int | None  # None where a stop loss struck
    stage: str
    reason: str
    limit_value: int | None
    observed_value: int | None

    @property
    def unit(self) -> str:
        """What the two values count; empty where there are none."""
        return UNITS[Reason[self.reason]]

    @property
    def limit(self) -> str:
        """The limit as a person reads it."""
        return shown(self.limit_value, self.unit)

    @property
    def observed(self) -> str:
        """The observed value as a person reads it."""
        return shown(self.observed_value, self.unit)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return vars(self) | {"unit": self.unit, "limit": self.limit, "observed": self.observed}

    def __str__(self) -> str:
        time = datetime.fromtimestamp(self.ts // 1_000_000_000, UTC)
        what = "stop loss struck" if self.order_id is None else f"order {self.order_id} refused"
        where = f" in {self.symbol}" if self.symbol is not None else ""
        values = [
            f"{name} {value}" for name, value in (("limit", self.limit), ("found", self.observed)) if value
        ]
        reason = f"{self.reason}: {', '.join(values)}" if values else self.reason
        return (
            f"row {self.seq:,} at {time:%H:%M:%S}.{self.ts % 1_000_000_000:09d} UTC: {what}, "
            f"account {self.account}{where}, {reason}"
        )


@dataclass(frozen=True)
class Refused:
    """What one of the gate's reasons refused."""

    orders: int  # NEW and REPLACE rows
    qty: int  # lots
    notional: int  # 1e-9: |price| x qty; MARKET orders have no price and add nothing


@dataclass(frozen=True)
class RiskSet:
    """A flow under one set of limits. Money is in 1e-9, None where 63 bits can't hold it."""

    name: str
    commands: int
    accepted: int
    rejected: int  # for any reason
    reasons: dict[str, int]  # of them
    refused: dict[str, Refused]  # by the gate, by reason
    fills: int
    filled_qty: int
    open_orders: int
    gains: int | None  # P&L of the accounts that gained, at last prices, without fees: what the others lost
    worst_pnl: int | None
    worst_account: int | None
    drawdown: int | None  # the largest fall of an account's P&L from its peak, marked after every fill
    drawdown_account: int | None
    fees: int | None  # of all accounts
    events: dict[str, int]  # of the gate, by GateEvent
    closed_qty: int  # lots that its own orders traded
    digest: str
    seconds: float
    accounts: pl.DataFrame  # a row an account
    stops: tuple[Stop, ...]  # the first of each account that was stopped, the earliest first
    limits: dict[str, str] = field(default_factory=dict)  # those of all, as text: "2 %"

    @property
    def first(self) -> pl.DataFrame:
        """Where each account was stopped first: a row each, the earliest first."""
        return pl.DataFrame([stop.as_dict() for stop in self.stops], schema=FIRST)

    def first_of(self, account: int) -> Stop | None:
        """Where an account was stopped first, if it was."""
        return next((stop for stop in self.stops if stop.account == account), None)

    def total(self) -> Refused:
        """What the gate refused, for all reasons together."""
        parts = self.refused.values()
        return Refused(
            *(sum(getattr(part, name) for part in parts) for name in ("orders", "qty", "notional"))
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {name: value for name, value in vars(self).items() if name not in ("accounts", "stops")}
        plain["refused"] = {reason: vars(part) for reason, part in self.refused.items()}
        return plain

    def row(self) -> dict[str, Any]:
        """A row of the table of sets."""
        total = self.total()
        names = ("fills", "filled_qty", "open_orders", "gains", "worst_pnl", "worst_account")
        return {
            "set": self.name,
            "commands": self.commands,
            "rejected": self.rejected,
            "refused": total.orders,
            "refused_qty": or_none(total.qty),
            "refused_notional": or_none(total.notional),
            **{name: getattr(self, name) for name in (*names, "drawdown", "drawdown_account", "fees")},
            **{column: sum(self.events.get(e.name, 0) for e in those) for column, those in EVENTS.items()},
            "closed_qty": self.closed_qty,
        }


@dataclass(frozen=True)
class RiskReport:
    """What `risk` found: one flow under several sets of limits, the first without any."""

    source: str  # what was replayed
    commands: int
    symbols: int
    threads: int
    seconds: float
    sets: tuple[RiskSet, ...]
    skipped: int = 0  # commands of symbols that were not asked for

    def __getitem__(self, name: str) -> RiskSet:
        return next(each for each in self.sets if each.name == name)

    @property
    def table(self) -> pl.DataFrame:
        """One row a set: what was refused, what traded, what it brought, what the gate did. Money in 1e-9."""
        rows = [each.row() for each in self.sets]
        return pl.DataFrame(rows, schema={"set": pl.String} | dict.fromkeys(list(rows[0])[1:], pl.Int64))

    @property
    def rejects(self) -> pl.DataFrame:
        """One row a set and reason: rejects; and where the gate is the one who refuses, lots and notional."""
        columns = {"set": pl.String, "reason": pl.String, "by_gate": pl.Boolean}
        columns |= dict.fromkeys(("rejects", "qty", "notional"), pl.Int64)
        rows = []
        for each in self.sets:
            for reason, count in each.reasons.items():
                part = each.refused.get(reason)
                values = (or_none(part.qty), or_none(part.notional)) if part is not None else (None, None)
                rows.append((each.name, reason, part is not None, count, *values))
        return pl.DataFrame(rows, schema=columns, orient="row")

    @property
    def accounts(self) -> pl.DataFrame:
        """One row a set and account: orders, refused ones, lots traded, P&L, drawdown, fees."""
        return self._with_set("accounts")

    @property
    def first(self) -> pl.DataFrame:
        """One row a set and account that it stopped: where, by which limit, at what value."""
        return self._with_set("first")

    def _with_set(self, what: str) -> pl.DataFrame:
        parts = (getattr(s, what).select(pl.lit(s.name).alias("set"), pl.all()) for s in self.sets)
        return pl.concat(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {name: value for name, value in vars(self).items() if name != "sets"}
        return plain | {"sets": [each.as_dict() for each in self.sets]}

    def __repr__(self) -> str:
        names = ", ".join(each.name for each in self.sets)
        return f"<RiskReport {self.source}: {self.commands:,} commands under {names}>"

    def _repr_html_(self) -> str:
        title = f"{self.source}: {self.commands:,} commands under {len(self.sets)} sets of limits"
        head = ("set", "refused", "lots", "notional", "fills", "lots", "gains", "worst account", "drawdown")
        rows = []
        for each in self.sets[:SHOWN_SETS]:
            orders, lots, notional = vars(each.total()).values()
            counts = [f"{count:,}" for count in (orders, lots, each.fills, each.filled_qty)]
            money = [amount(units) for units in (notional, each.gains, each.worst_pnl, each.drawdown)]
            rows.append((each.name, *counts[:2], money[0], *counts[2:], *money[1:]))
        return f"<p>{html.escape(title)}</p>{_html_table(head, rows)}{_html_table(*self._html_reasons())}"

    def _html_reasons(self) -> tuple[list[str], list[tuple[str, ...]]]:
        """Rejects by reason, a column a set."""
        shown_sets = self.sets[:SHOWN_SETS]
        names = dict.fromkeys(reason for each in shown_sets for reason in each.reasons)
        rows = [(name, *(f"{s.reasons.get(name, 0):,}" for s in shown_sets)) for name in names]
        return ["rejects", *(each.name for each in shown_sets)], rows


def _html_table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    def line(tag: str, cells: Iterable[str]) -> str:
        return "".join(
            f"<{tag} style='text-align:{'right' if i else 'left'}'>{html.escape(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><tr>{line('th', head)}</tr>{body}</table>"


def amount(units: int | None) -> str:
    """Money or a price of 1e-9 as a decimal with at least two places, none lost; a dash for none."""
    if units is None:
        return "-"
    whole, part = divmod(abs(units), PRICE_SCALE)
    decimals = f"{part:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if units < 0 else ''}{whole:,}.{decimals}"


def shown(value: int | None, unit: str) -> str:
    """A limit or an observed value as a person reads it; empty for none."""
    if value is None:
        return ""
    if unit in (MONEY, PRICE):
        return amount(value)
    if unit == ACCOUNT:
        return f"account {value}"
    return f"{value:,} {unit if abs(value) != 1 else unit.removesuffix('s')}"


def or_none(value: int) -> int | None:
    """A value that 64 bits hold, else None."""
    return value if abs(value) <= MAX_QTY else None
