"""Positions, average cost, P&L and fees from the fills alone, as docs/RISK.md says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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


@dataclass
class Holding:
    """What one account has and owes in one symbol; the cost of a short position is negative."""

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


def of_fills(fills: Iterable[tuple], book: Iterable[tuple], limits: Limits) -> list[tuple]:
    """The rows of `positions`, by the names of symbols and then by account.

    `fills` and `book` are rows of those tables, `fills` in order; fees are those in force at the fill.
    """
    holdings: dict[tuple[str, int], Holding] = {}
    last = {symbol: price for _, _, symbol, price, _ in _booked(fills, limits, holdings)}
    for symbol, side, price, qty, _, account in book:
        _count_open(holdings.setdefault((symbol, account), Holding()), side, price, qty)
    return [_row(*cell, holding, last.get(cell[0])) for cell, holding in sorted(holdings.items())]


def changes(fills: Iterable[tuple], limits: Limits) -> list[tuple]:
    """The rows of `pnl`: what each cell of a fill holds after it, at its price; the taker's first."""
    holdings: dict[tuple[str, int], Holding] = {}
    rows = []
    for seq, ts, symbol, price, accounts in _booked(fills, limits, holdings):
        for account in accounts:
            held = holdings[symbol, account]
            gain = held.position * price - held.cost
            values = held.position, held.average_price(), held.realised, gain, held.fees
            rows.append((seq, ts, symbol, account, *(column_value(value) for value in values)))
    return rows


def _booked(fills: Iterable[tuple], limits: Limits, holdings: dict[tuple[str, int], Holding]):
    """Book fills one after the other; after each (seq, ts, symbol, price, its accounts)."""
    in_force = InForce(limits)
    for seq, _, ts, symbol, price, qty, side, _, _, taker, maker, _, _ in fills:
        in_force.reach(seq)
        for account, sign, role in ((taker, side, "taker"), (maker, -side, "maker")):
            holding = holdings.setdefault((symbol, account), Holding())
            holding.fill(sign, price, qty)
            holding.fees += fee(in_force.cell(account, symbol), role, price, qty)
        yield seq, ts, symbol, price, dict.fromkeys((taker, maker))


def fee(limits, role: str, price: int, qty: int) -> int:
    """What one side of a fill pays."""
    bps, per_lot = getattr(limits, f"{role}_fee_bps"), getattr(limits, f"{role}_fee_per_lot")
    return -(-abs(price) * qty * bps // BPS_OF_WHOLE) + per_lot * qty


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
        held.cost,
        held.realised,
        held.position * (last or 0) - held.cost,
        held.fees,
        held.bought_qty,
        held.sold_qty,
        held.bought_notional,
        held.sold_notional,
        last,
        held.open_buy,
        held.open_sell,
        held.open_orders,
        held.open_notional,
    )
    return (symbol, account, *(column_value(value) for value in values))
