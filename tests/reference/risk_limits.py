"""The limits of the risk gate as plain dicts of integers, and what is in force at a row.

Units are those of the gate itself: lots, money in 1e-9, percentages in millionths of the whole, fees in
1e-4 basis points, windows in nanoseconds; a fixed `reference` is a price in 1e-9, the words are strings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

LARGEST = 2**63 - 1  # a limit on quantity, position or notional that nobody gave
SECOND = 10**9

CELL_KEYS = (
    "max_order_qty",
    "max_order_notional",
    "price_band_ticks",
    "price_band_percentage",
    "max_position_size",
    "max_long_position",
    "max_short_position",
    "max_open_orders",
    "max_open_notional",
    "max_repeated_orders",
    "reduce_only",
    "restricted",
    "self_trade",
    "maker_fee_bps",
    "taker_fee_bps",
    "maker_fee_per_lot",
    "taker_fee_per_lot",
)
ACCOUNT_KEYS = (
    "max_orders_per_second",
    "max_portfolio_value",
    "stop_loss_percentage",
    "stop_loss_scope",
    "stop_loss_action",
    "capital",
    "self_trade_group",
)
SYMBOL_KEYS = ("reference",)

Values = dict[str, Any]


@dataclass
class Limits:
    """A set of limits; a change of (row, limits) gives keys new values from that row on.

    Of a change only its four dicts count; what is of all has no changes.
    """

    defaults: Values = field(default_factory=dict)
    by_symbol: dict[str, Values] = field(default_factory=dict)
    by_account: dict[int, Values] = field(default_factory=dict)
    by_cell: dict[tuple[int, str], Values] = field(default_factory=dict)
    unknown_accounts: str = "default"
    mark_interval: int = SECOND
    repeated_order_window: int = SECOND
    changes: list[tuple[int, Limits]] = field(default_factory=list)

    def gives(self, key: str) -> bool:
        """Whether anybody has a value of that key, now or later."""
        places = [self.defaults, *self.by_symbol.values(), *self.by_account.values(), *self.by_cell.values()]
        return any(key in values for values in places) or any(later.gives(key) for _, later in self.changes)


class CellLimits(NamedTuple):
    """What holds for one account in one symbol; None is no limit."""

    max_order_qty: int
    max_order_notional: int
    price_band_ticks: int | None
    price_band_percentage: int | None
    max_long_position: int
    max_short_position: int
    max_open_orders: int
    max_open_notional: int | None
    max_repeated_orders: int | None
    reduce_only: bool
    restricted: bool
    self_trade: str
    maker_fee_bps: int
    taker_fee_bps: int
    maker_fee_per_lot: int
    taker_fee_per_lot: int


class AccountLimits(NamedTuple):
    """What holds for one account in all symbols; None is no limit."""

    max_orders_per_second: int | None
    max_portfolio_value: int | None
    stop_loss_percentage: int | None
    stop_loss_scope: str
    stop_loss_action: str
    capital: int
    owner: tuple[str, int]  # accounts with the same one are of one owner
    known: bool  # has limits of its own


class InForce:
    """The limits in force, row after row: each key looked up by itself, first in the cell, last for all."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._defaults: Values = {}
        self._symbols: dict[str, Values] = {}
        self._accounts: dict[int, Values] = {}
        self._cells: dict[tuple[int, str], Values] = {}
        self._resolved_cells: dict[tuple[int, str], CellLimits] = {}
        self._resolved_accounts: dict[int, AccountLimits] = {}
        self._later = sorted(limits.changes, key=lambda change: change[0], reverse=True)
        self._unlimited_notional = LARGEST if limits.gives("max_open_notional") else None
        self._unlimited_portfolio = LARGEST if limits.gives("max_portfolio_value") else None
        self._put(limits)

    def reach(self, row: int) -> None:
        """Bring in force what changes at or before that row."""
        while self._later and self._later[-1][0] <= row:
            self._put(self._later.pop()[1])

    def _put(self, limits: Limits) -> None:
        self._defaults |= _both_ways(limits.defaults)
        for mine, given in (
            (self._symbols, limits.by_symbol),
            (self._accounts, limits.by_account),
            (self._cells, limits.by_cell),
        ):
            for place, values in given.items():
                mine[place] = mine.get(place, {}) | _both_ways(values)
        self._resolved_cells.clear()
        self._resolved_accounts.clear()

    def cell(self, account: int, symbol: str) -> CellLimits:
        limits = self._resolved_cells.get((account, symbol))
        if limits is None:
            limits = self._resolved_cells[account, symbol] = self._resolve_cell(account, symbol)
        return limits

    def account(self, account: int) -> AccountLimits:
        limits = self._resolved_accounts.get(account)
        if limits is None:
            limits = self._resolved_accounts[account] = self._resolve_account(account)
        return limits

    def reference(self, symbol: str) -> Any:
        """`last`, `mid` or a price."""
        return _first("reference", "last", self._symbols.get(symbol), self._defaults)

    def _resolve_cell(self, account: int, symbol: str) -> CellLimits:
        places = [
            self._cells.get((account, symbol)),
            self._accounts.get(account),
            self._symbols.get(symbol),
            self._defaults,
        ]

        def of(key: str, default: Any) -> Any:
            return _first(key, default, *places)

        return CellLimits(
            max_order_qty=of("max_order_qty", LARGEST),
            max_order_notional=of("max_order_notional", LARGEST),
            price_band_ticks=of("price_band_ticks", None),
            price_band_percentage=of("price_band_percentage", None),
            max_long_position=of("max_long_position", LARGEST),
            max_short_position=of("max_short_position", LARGEST),
            max_open_orders=of("max_open_orders", LARGEST),
            max_open_notional=of("max_open_notional", self._unlimited_notional),
            max_repeated_orders=of("max_repeated_orders", None),
            reduce_only=of("reduce_only", False),
            restricted=of("restricted", False),
            self_trade=of("self_trade", "none"),
            maker_fee_bps=of("maker_fee_bps", 0),
            taker_fee_bps=of("taker_fee_bps", 0),
            maker_fee_per_lot=of("maker_fee_per_lot", 0),
            taker_fee_per_lot=of("taker_fee_per_lot", 0),
        )

    def _resolve_account(self, account: int) -> AccountLimits:
        def of(key: str, default: Any) -> Any:
            return _first(key, default, self._accounts.get(account), self._defaults)

        group = of("self_trade_group", None)
        return AccountLimits(
            max_orders_per_second=of("max_orders_per_second", None),
            max_portfolio_value=of("max_portfolio_value", self._unlimited_portfolio),
            stop_loss_percentage=of("stop_loss_percentage", None),
            stop_loss_scope=of("stop_loss_scope", "account"),
            stop_loss_action=of("stop_loss_action", "reduce"),
            capital=of("capital", 0),
            owner=("account", account) if group is None else ("group", group),
            known=account in self._accounts or any(account == known for known, _ in self._cells),
        )


def is_above(amount: Any, limit: int | None) -> bool:
    """Whether money is above a limit; None and the largest integer are none."""
    return limit is not None and limit < LARGEST and amount > limit


def _first(key: str, default: Any, *places: Values | None) -> Any:
    for values in places:
        if values is not None and key in values:
            return values[key]
    return default


def _both_ways(values: Values) -> Values:
    """`max_position_size` as the two limits it sets; where one of them is given as well, that one holds."""
    if "max_position_size" not in values:
        return values
    size = values["max_position_size"]
    return {"max_long_position": size, "max_short_position": size} | values
