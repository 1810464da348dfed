"""Positions, average cost, P&L and fees from the fills alone, as docs/RISK.md says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from hftlab.codes import Side
from tests.reference.book import column_value
from tests.reference.risk_limits import InForce, Limits

CHANGE_COLUMNS = (
    "seq",
    "ts",
    "symbol",
    "account",
    "position",
    "avg_price",
    "realised_pnl",
    "unrealised_pnl",
    "fees",
)
COLUMNS = (
    "symbol",
    "account",
    "position",
    "avg_price",
    "cost",
    "realised_pnl",
    "unrealised_pnl",
    "fees",
    "bought_qty",
    "sold_qty",
    "bought_notional",
    "sold_notional",
    "last_price",
    "open_buy_qty",
    "open_sell_qty",
    "open_orders",
    "open_notional",
)
BPS_OF_WHOLE = 10**8  # fees are in 1e-4 basis points
Worths = Mapping[str, Fraction]  # what a lot of a symbol is worth; 1 where it isn't said


@dataclass
class Holding:
    """What one account has and owes in one symbol; the cost of a short position is negative.

    Cost, what was realised and notionals are price x lots; `worth` makes them money. Fees are money.
    """

    position: int = 0
    cost: int = 0
    realised: int = 0
    fees: int = 0
    bought_qty: int = 0
    sold_qty: int = 0
    bought_notional: int = 0
    sold_notional: int = 0
    open_buy: int = 0
    open_sell: int = 0
    open_orders: int = 0
    open_notional: int = 0
    worth: Fraction | int = 1  # of a lot: lot size x multiplier

    def money(self, amount: int) -> int:
        """Price x lots as money, rounded toward zero."""
        return int(amount * self.worth)

    def fill(self, side: int, price: int, qty: int) -> None:
        """Book one fill: what it reduces first, and what it extends with the rest."""
        if side == Side.BUY:
            self.bought_qty += qty
            self.bought_notional += abs(price) * qty
        else:
            self.sold_qty += qty
            self.sold_notional += abs(price) * qty
        reduced = min(qty, abs(self.position)) if self.position * side < 0 else 0
        if reduced:
            taken = toward_zero(self.cost * reduced, abs(self.position))
            self.realised += -side * reduced * price - taken
            self.cost -= taken
            self.position += side * reduced
        self.cost += side * (qty - reduced) * price
        self.position += side * (qty - reduced)

    def average_price(self) -> int | None:
        return toward_zero(self.cost, self.position) if self.position else None


class Holdings(dict):
    """Holdings by (symbol, account), made when they are first asked for."""

    def __init__(self, lots: Worths | None) -> None:
        super().__init__()
        self.lots = lots or {}

    def __missing__(self, key: tuple[str, int]) -> Holding:
        self[key] = Holding(worth=self.lots.get(key[0], 1))
        return self[key]


def of_fills(
    fills: Iterable[tuple], book: Iterable[tuple], limits: Limits, lots: Worths | None = None
) -> list[tuple]:
    """The rows of `positions`, by the names of symbols and then by account.

    `fills` and `book` are rows of those tables, `fills` in order; fees are those in force at the fill.
    """
    holdings = Holdings(lots)
    last = {symbol: price for _, _, symbol, price, _ in _booked(fills, limits, holdings)}
    for symbol, side, price, qty, _, account in book:
        _count_open(holdings[symbol, account], side, price, qty)
    return [_row(*cell, holding, last.get(cell[0])) for cell, holding in sorted(holdings.items())]


def changes(fills: Iterable[tuple], limits: Limits, lots: Worths | None = None) -> list[tuple]:
    """The rows of `pnl`: what each cell of a fill holds after it, at its price; the taker's first."""
    holdings = Holdings(lots)
    rows = []
    for seq, ts, symbol, price, accounts in _booked(fills, limits, holdings):
        for account in accounts:
            held = holdings[symbol, account]
            gain = held.money(held.position * price - held.cost)
            values = held.position, held.average_price(), held.money(held.realised), gain, held.fees
            rows.append((seq, ts, symbol, account, *(column_value(value) for value in values)))
    return rows


def _booked(fills: Iterable[tuple], limits: Limits, holdings: Holdings):
    """Book fills one after the other; after each (seq, ts, symbol, price, its accounts)."""
    in_force = InForce(limits)
    for seq, _, ts, symbol, price, qty, side, _, _, taker, maker, _, _ in fills:
        in_force.reach(seq)
        for account, sign, role in ((taker, side, "taker"), (maker, -side, "maker")):
            holding = holdings[symbol, account]
            holding.fill(sign, price, qty)
            holding.fees += fee(in_force.cell(account, symbol), role, price, qty, holding.worth)
        yield seq, ts, symbol, price, dict.fromkeys((taker, maker))


def fee(limits, role: str, price: int, qty: int, worth: Fraction | int) -> int:
    """What one side of a fill pays."""
    bps, per_lot = getattr(limits, f"{role}_fee_bps"), getattr(limits, f"{role}_fee_per_lot")
    return ceil(Fraction(abs(price) * qty * worth * bps, BPS_OF_WHOLE)) + per_lot * qty


def toward_zero(dividend: int, divisor: int) -> int:
    """The quotient without its fraction."""
    quotient = abs(dividend) // abs(divisor)
    return quotient if (dividend < 0) == (divisor < 0) else -quotient


def _count_open(holding: Holding, side: int, price: int, qty: int) -> None:
    holding.open_orders += 1
    holding.open_notional += abs(price) * qty
    if side == Side.BUY:
        holding.open_buy += qty
    else:
        holding.open_sell += qty


def _row(symbol: str, account: int, held: Holding, last: int | None) -> tuple:
    values = (
        held.position,
        held.average_price(),
        held.money(held.cost),
        held.money(held.realised),
        held.money(held.position * (last or 0) - held.cost),
        held.fees,
        held.bought_qty,
        held.sold_qty,
        held.money(held.bought_notional),
        held.money(held.sold_notional),
        last,
        held.open_buy,
        held.open_sell,
        held.open_orders,
        held.money(held.open_notional),
    )
    return (symbol, account, *(column_value(value) for value in values))
