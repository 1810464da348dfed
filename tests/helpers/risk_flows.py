"""Seeded random flows for the risk gate, each with random limits so tight that all of them bind, and often.

`make` gives a flow of `flows` with accounts, states, bursts and clocks that run backwards, together with
`Limits` in the integer units of the slow twin; `limits_table` says the same to the package.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl

from hftlab.codes import PRICE_SCALE, Action, RiskControl
from tests.helpers import flows
from tests.helpers.flows import CENT, INT64_MAX, INT64_MIN, Columns, Flow
from tests.reference import frames
from tests.reference.book import garbage_collector_off
from tests.reference.gated import GatedVenue
from tests.reference.risk_limits import ACCOUNT_KEYS, CELL_KEYS, SYMBOL_KEYS, Limits

MILLISECOND, SECOND = 10**6, 10**9
PPM_PER_PERCENT = 10_000
STEPS_PER_BP = 10_000  # fees have four decimals of a basis point

# What may change while a flow runs; capital, scopes, groups and references hold from the first row.
CHANGING = (
    *CELL_KEYS,
    "max_orders_per_second",
    "max_portfolio_value",
    "stop_loss_percentage",
    "stop_loss_action",
)
ONE_SIDED = ("max_long_position", "max_short_position")
MONEY = (
    "max_order_notional",
    "max_open_notional",
    "maker_fee_per_lot",
    "taker_fee_per_lot",
    "max_portfolio_value",
    "capital",
)


Lot = tuple[str, str]  # lot size and multiplier, as decimal text


@dataclass(frozen=True)
class RiskFlow:
    """A random orders table, the limits it runs into, and what lots are worth."""

    orders: Flow
    limits: Limits
    lots: dict[str, Lot] = field(default_factory=dict)  # 1 x 1 where a symbol isn't there

    @property
    def worths(self) -> dict[str, Fraction]:
        """What a lot of each symbol is worth."""
        return {
            symbol: Fraction(size) * Fraction(multiplier) for symbol, (size, multiplier) in self.lots.items()
        }

    def __len__(self) -> int:
        return len(self.orders)

    def take(self, rows: list[int]) -> RiskFlow:
        """The flow of those rows alone, every change of limits before the same row as it was."""
        limits, changes = replace(self.limits, changes=[]), {}
        for row, later in self.limits.changes:
            left = bisect_left(rows, row)
            if left == 0:
                limits = merged(limits, later)
            else:
                changes[left] = merged(changes.get(left, Limits()), later)
        return replace(
            self, orders=self.orders.take(rows), limits=replace(limits, changes=list(changes.items()))
        )

    def venue(self, **options: Any) -> GatedVenue:
        """The slow twin after the whole flow."""
        orders = self.orders
        venue = GatedVenue(
            orders.tick, orders.allow_nonpositive, limits=self.limits, lots=self.worths, **options
        )
        return venue.run(orders.rows())

    def expected(self, **options: Any) -> dict[str, pl.DataFrame]:
        """Every output of the slow twin."""
        with garbage_collector_off():
            return frames.of_gated_venue(self.venue(**options))


OF_NOTIONAL = ("max_order_notional", "max_open_notional", "max_portfolio_value", "capital")


@dataclass(frozen=True)
class Scale:
    """What is ordinary in a flow: lots, a price, ticks of a band, and who is there."""

    qty: int
    price: int
    accounts: Iterable[int]
    symbols: tuple[str, ...]
    ticks: int = 6
    percentage: int = 8 * PPM_PER_PERCENT
    tightness: float = 1.0  # of the share of keys that are given

    @property
    def notional(self) -> int:
        return self.qty * self.price


# -- columns

CONTROLS = {
    RiskControl.ACCOUNT_ACTIVE: 0.4,
    RiskControl.ACCOUNT_REDUCING: 0.05,
    RiskControl.ACCOUNT_HALTED: 0.02,
    RiskControl.ACCOUNT_KILLED: 0.03,
    RiskControl.SYMBOL_ACTIVE: 0.15,
    RiskControl.SYMBOL_REDUCING: 0.015,
    RiskControl.SYMBOL_HALTED: 0.004,
    RiskControl.SYMBOL_KILLED: 0.006,
    RiskControl.ALL_ACTIVE: 0.21,
    RiskControl.ALL_REDUCING: 0.008,
    RiskControl.ALL_HALTED: 0.002,
    RiskControl.ALL_KILLED: 0.006,
}
NO_CONTROLS = [-1, 12, 99, INT64_MAX, INT64_MIN, INT64_MIN + 1]


def _times(rng: np.random.Generator, n: int, pace: float = 1.0, start: int = 1_700_000_000 * SECOND):
    """Bursts inside a millisecond, pauses up to seconds, whole seconds, and clocks that run backwards."""
    longest = np.array([1, 2 * MILLISECOND, 100 * MILLISECOND, SECOND, 4 * SECOND]) * pace
    kind = flows._pick(rng, n, (2, 7, 1, 0.4, 0.05))
    steps = rng.integers(0, longest.astype(np.int64)[kind] + 1)
    ts = start + np.cumsum(steps)
    ts = np.where(rng.random(n) < 0.05, ts // (SECOND // 4) * (SECOND // 4), ts)
    return ts - np.where(rng.random(n) < 0.03, rng.integers(0, 3 * SECOND, n), 0)


def _repeat(rng: np.random.Generator, columns: Columns, share: float) -> None:
    """Runs of equal orders: a row of a run repeats the row that began it, under its own id and time."""
    n = len(columns["action"])
    first = np.maximum.accumulate(np.where(rng.random(n) < share, 0, np.arange(n)))
    for name in ("symbol", "action", "side", "order_type", "price", "qty", "account"):
        columns[name] = columns[name][first]


def _spoil(rng: np.random.Generator, columns: Columns, share: float) -> None:
    """Quantities and prices that no book takes."""
    n = len(columns["action"])
    for name, bad in (("qty", [0, -1, INT64_MIN, INT64_MIN + 1]), ("price", [INT64_MIN, INT64_MAX, 7])):
        columns[name] = np.where(rng.random(n) < share, flows._choice(rng, n, bad), columns[name])


def _control(rng: np.random.Generator, columns: Columns, share: float) -> None:
    """Make a share of the rows RISK_CONTROL rows of every scope and state, a few of them of none."""
    n = len(columns["action"])
    codes = np.array(list(CONTROLS), dtype=np.int64)[flows._pick(rng, n, tuple(CONTROLS.values()))]
    codes = np.where(rng.random(n) < 0.05, flows._choice(rng, n, NO_CONTROLS), codes)
    chosen = rng.random(n) < share
    columns["action"] = np.where(chosen, np.int8(Action.RISK_CONTROL), columns["action"])
    columns["qty"] = np.where(chosen, codes, columns["qty"])


def _risky(
    rng: np.random.Generator,
    n: int,
    *,
    pace: float = 1.0,
    repeats: float = 0.12,
    controls: float = 0.02,
    ids: int = 60,
    price: Callable[[Columns], Any],
    qty: Callable[[Columns], Any] | None = None,
    **options: Any,
) -> Columns:
    """The columns of `flows` with prices and quantities, and what only the gate looks at."""
    columns = flows._columns(rng, n, ids=ids, **options)
    columns["ts"] = _times(rng, n, pace)
    columns["price"] = price(columns)
    if qty is not None:
        columns["qty"] = qty(columns)
    _repeat(rng, columns, repeats)
    _spoil(rng, columns, 0.006)
    _control(rng, columns, controls)
    return columns


# -- flows

Made = tuple[dict[str, Any], Scale]
EAGER = (0.72, 0.08, 0.04, 0.156, 0.0035, 0.0005)  # NEW, CANCEL, REDUCE, REPLACE, MASS_CANCEL, CLEAR


def busy(rng: np.random.Generator, n: int) -> Made:
    """Six accounts meet at eleven prices of three instruments."""

    def prices(columns: Columns) -> np.ndarray:
        return flows._near(rng, columns["side"], 100, 3, 7) * CENT

    columns = _risky(rng, n, actions=EAGER, symbols=3, accounts=6, price=prices)
    symbols = flows._names(3)
    return {"columns": columns, "symbols": symbols, "tick": CENT}, Scale(15, CENT * 100, range(6), symbols)


def crowd(rng: np.random.Generator, n: int) -> Made:
    """Thirty accounts, some with negative numbers, in twelve instruments, most of them seldom."""
    columns = _risky(
        rng,
        n,
        actions=EAGER,
        symbols=12,
        accounts=30,
        pace=0.3,
        price=lambda c: flows._near(rng, c["side"], 200 + c["symbol"] * 10, 3, 5) * 5 * CENT,
    )
    columns["account"] = np.minimum(rng.geometric(0.12, n), 29).astype(np.int32) - 3
    columns["symbol"] = np.minimum(rng.zipf(1.4, n) - 1, 11).astype(np.int32)
    symbols = tuple(f"S{i}" for i in range(12))  # S10 comes before S2
    scale = Scale(15, CENT * 1_000, range(-2, 27), symbols)
    return {"columns": columns, "symbols": symbols, "tick": 5 * CENT}, scale


def owners(rng: np.random.Generator, n: int) -> Made:
    """Three accounts that keep meeting themselves and one another."""
    columns = _risky(
        rng,
        n,
        actions=(0.7, 0.08, 0.05, 0.17, 0.0, 0.0),
        accounts=3,
        tifs=(0.6, 0.05, 0.15, 0.2),
        price=lambda c: flows._near(rng, c["side"], 50, 2, 3) * CENT,
    )
    symbols = flows._names(1)
    return {"columns": columns, "symbols": symbols, "tick": CENT}, Scale(20, CENT * 50, range(3), symbols, 3)


def movers(rng: np.random.Generator, n: int) -> Made:
    """Half of the commands replace orders, most of them those of others."""
    columns = _risky(
        rng,
        n,
        actions=(0.45, 0.02, 0.03, 0.49, 0.005, 0.0),
        symbols=2,
        accounts=4,
        new_id=0.5,
        price=lambda c: flows._near(rng, c["side"], 100, 2, 7) * CENT,
    )
    in_place = rng.random(n) < 0.2
    columns["new_order_id"] = np.where(in_place, columns["order_id"], columns["new_order_id"])
    symbols = flows._names(2)
    return {"columns": columns, "symbols": symbols, "tick": CENT}, Scale(15, CENT * 100, range(4), symbols)


def losers(rng: np.random.Generator, n: int) -> Made:
    """Prices that wander far in minutes, so that equity falls and stops strike."""
    steps = rng.integers(-1, 2, n) + np.where(rng.random(n) < 0.01, rng.integers(-15, 16, n), 0)
    middle = 150 + np.abs(np.cumsum(steps)) % 100
    columns = _risky(
        rng,
        n,
        actions=EAGER,
        symbols=3,
        accounts=8,
        market=0.15,
        repeats=0.03,
        price=lambda c: flows._near(rng, c["side"], middle, 4, 4) * CENT,
    )
    symbols = ("C", "A", "B")
    return {"columns": columns, "symbols": symbols, "tick": CENT}, Scale(
        25, CENT * 200, range(8), symbols, 20, 150_000
    )


def around_zero(rng: np.random.Generator, n: int) -> Made:
    """Prices of both signs, and zero."""

    def prices(columns: Columns) -> np.ndarray:
        return flows._near(rng, columns["side"], 0, 3, 6) * 25 * CENT

    columns = _risky(rng, n, actions=EAGER, accounts=5, symbols=2, price=prices)
    symbols = flows._names(2)
    made = {"columns": columns, "symbols": symbols, "tick": 25 * CENT, "allow_nonpositive": True}
    return made, Scale(12, 25 * CENT * 4, range(5), symbols, 5, 400_000)


def edges(rng: np.random.Generator, n: int) -> Made:
    """Quantities and prices between 2^31 and 2^63, whose products and sums must be refused, never wrap."""
    huge = [2**62 - 1, 2**62, 2**62 + 1, 2**61, 2**32, 2**31, INT64_MAX, INT64_MAX - 1]

    def prices(_columns: Columns) -> np.ndarray:
        few = np.where(rng.random(n) < 0.7, 1, rng.integers(1, 5, n))
        large = flows._choice(rng, n, [2**31, 2**32, 2**61, 2**62, 2**62 + 1, INT64_MAX - 1])
        signs = flows._choice(rng, n, [1, 1, 1, -1])
        return np.where(rng.random(n) < 0.75, few, large) * signs

    def quantities(columns: Columns) -> np.ndarray:
        kind = flows._pick(rng, n, (0.5, 0.3, 0.2))
        return np.choose(kind, [columns["qty"], flows._choice(rng, n, huge), rng.integers(2**28, 2**31, n)])

    columns = _risky(rng, n, actions=EAGER, accounts=4, price=prices, qty=quantities)
    symbols = flows._names(1)
    made = {"columns": columns, "symbols": symbols, "tick": 1, "allow_nonpositive": True}
    return made, Scale(2**61, 2, range(4), symbols, 2**31, 900_000)


def piles(rng: np.random.Generator, n: int) -> Made:
    """Many accounts pile up at two prices what none of them could have alone: levels near 2^63."""

    def prices(columns: Columns) -> np.ndarray:
        return flows._near(rng, columns["side"], 2, 0, 1) - (columns["side"] < 0)

    def quantities(columns: Columns) -> np.ndarray:
        return np.where(rng.random(n) < 0.5, rng.integers(2**60, 2**62, n), columns["qty"])

    columns = _risky(
        rng, n, actions=EAGER, accounts=16, market=0.03, controls=0.005, price=prices, qty=quantities
    )
    symbols = flows._names(1)
    return {"columns": columns, "symbols": symbols}, Scale(2**62, 2, range(16), symbols, tightness=0.4)


FLOWS: dict[str, Callable[[np.random.Generator, int], Made]] = {
    flow.__name__: flow for flow in (busy, crowd, owners, movers, losers, around_zero, edges, piles)
}


def make(name: str, size: int, seed: int) -> RiskFlow:
    """The flow of that name with its limits; equal arguments give equal flows."""
    rng = np.random.default_rng([seed, 4, *name.encode()])
    fields, scale = FLOWS[name](rng, size)
    return RiskFlow(Flow(name, seed, **fields), random_limits(rng, scale, size))


# -- lots

LOT_SIZES = ("1e-9", "1e-8", "0.00003", "0.001", "0.25", "1", "7", "100")
MULTIPLIERS = ("1", "1", "2", "3", "50")


def make_with_lots(name: str, size: int, seed: int) -> RiskFlow:
    """The same flow in lots that are worth something else, and limits on money to match."""
    flow = make(name, size, seed)
    rng = np.random.default_rng([seed, 5, *name.encode()])
    size = LOT_SIZES[rng.integers(len(LOT_SIZES))]
    sizes = [size] if rng.random() < 0.7 else LOT_SIZES
    lots = {
        symbol: (sizes[rng.integers(len(sizes))], MULTIPLIERS[rng.integers(len(MULTIPLIERS))])
        for symbol in flow.orders.symbols
        if rng.random() < 0.9
    }
    for part in [flow.limits, *(later for _, later in flow.limits.changes)]:
        scopes = (part.by_symbol, part.by_account, part.by_cell)
        for values in [part.defaults, *(values for scope in scopes for values in scope.values())]:
            for key in (key for key in OF_NOTIONAL if values.get(key, INT64_MAX) < INT64_MAX):
                values[key] = min(INT64_MAX, int(values[key] * Fraction(size)))
    return replace(flow, lots=lots)


# -- limits


def _times_of(what: str, low: float, high: float) -> Callable[[np.random.Generator, Scale], int]:
    """So many times an ordinary quantity or notional; exact below 2^53 only, which is all the same here."""
    return lambda rng, scale: min(INT64_MAX, int(rng.uniform(low, high) * getattr(scale, what)))


def _up_to(what: str) -> Callable[[np.random.Generator, Scale], int]:
    return lambda rng, scale: int(rng.integers(getattr(scale, what) // 6, getattr(scale, what) + 1))


def _count(low: int, high: int) -> Callable[[np.random.Generator, Scale], int]:
    return lambda rng, _scale: int(rng.integers(low, high + 1))


def _rate(rng: np.random.Generator, _scale: Scale) -> int:
    """Messages a second, also more than an account has room for when it comes (16)."""
    return int(rng.integers(2, 15) if rng.random() < 0.6 else rng.integers(15, 60))


def _one_of(*values: Any) -> Callable[[np.random.Generator, Scale], Any]:
    return lambda rng, _scale: values[rng.integers(len(values))]


def _rarely(share: float) -> Callable[[np.random.Generator, Scale], bool]:
    return lambda rng, _scale: bool(rng.random() < share)


def _fixed_or_not(rng: np.random.Generator, scale: Scale) -> Any:
    return ("last", "mid", scale.price + int(rng.integers(-3, 4)))[rng.integers(3)]


# of each key: how it is drawn, and how likely it is to be given at all
DRAWS: dict[str, tuple[Callable[[np.random.Generator, Scale], Any], float]] = {
    "max_order_qty": (_times_of("qty", 0.7, 2), 0.4),
    "max_order_notional": (_times_of("notional", 0.7, 2), 0.4),
    "price_band_ticks": (_up_to("ticks"), 0.35),
    "price_band_percentage": (_up_to("percentage"), 0.35),
    "max_position_size": (_times_of("qty", 0, 6), 0.3),
    "max_long_position": (_times_of("qty", 0, 6), 0.3),
    "max_short_position": (_times_of("qty", 0, 6), 0.3),
    "max_open_orders": (_count(1, 8), 0.4),
    "max_open_notional": (_times_of("notional", 0.5, 6), 0.5),
    "max_repeated_orders": (_count(1, 3), 0.4),
    "reduce_only": (_rarely(0.15), 0.4),
    "restricted": (_rarely(0.1), 0.4),
    "self_trade": (_one_of("none", "cancel_newest", "cancel_oldest", "cancel_both", "decrement"), 0.9),
    "maker_fee_bps": (_count(-30_000, 30_000), 0.5),
    "taker_fee_bps": (_count(-30_000, 90_000), 0.5),
    "maker_fee_per_lot": (_count(-(10**6), 10**6), 0.3),
    "taker_fee_per_lot": (_count(-(10**6), 10**6), 0.3),
    "max_orders_per_second": (_rate, 0.4),
    "max_portfolio_value": (_times_of("notional", 1, 10), 0.4),
    "stop_loss_percentage": (_count(5_000, 400_000), 0.75),
    "stop_loss_scope": (_one_of("account", "position"), 0.8),
    "stop_loss_action": (_one_of("reduce", "close"), 0.8),
    "capital": (_times_of("notional", 0, 2), 0.8),
    "self_trade_group": (_count(0, 4), 0.4),
    "reference": (_fixed_or_not, 0.6),
}
ENDS = {key: (0, INT64_MAX) for key in DRAWS if key.startswith("max_")}
PLACES = {"default": 0.5, "symbol": 0.3, "account": 0.35, "cell": 0.12}


def random_limits(rng: np.random.Generator, scale: Scale, size: int) -> Limits:
    """Limits drawn for all, symbols, accounts and cells, and changes of them on the way."""
    strangers = rng.random() < 0.2
    if strangers:
        scale = replace(scale, accounts=[one for one in scale.accounts if rng.random() < 0.7])
    how_many = rng.choice([0.5, 1, 1.5])  # some sets leave room for the later checks
    keys = tuple(
        key for key, (_, share) in DRAWS.items() if rng.random() < share * how_many * scale.tightness
    )
    limits = _drawn(rng, scale, keys, 1.0)
    limits.unknown_accounts = "reject" if strangers else "default"
    limits.mark_interval = int(flows._choice(rng, 1, [SECOND // 4, SECOND, 3 * SECOND, 7 * SECOND])[0])
    limits.repeated_order_window = int(flows._choice(rng, 1, [SECOND // 100, SECOND // 2, SECOND])[0])
    rows = sorted(set(rng.integers(1, max(2, size), rng.integers(0, 5)).tolist()))
    changing = tuple(key for key in keys if key in CHANGING)
    limits.changes = [(row, _drawn(rng, scale, changing, 0.3)) for row in rows]
    return limits


def _drawn(rng: np.random.Generator, scale: Scale, keys: tuple[str, ...], share: float) -> Limits:
    """Values of those keys, each in some of the places where it can be given."""

    def some(of: tuple[str, ...], place: str) -> dict[str, Any]:
        chosen = [key for key in keys if key in of and rng.random() < PLACES[place] * share]
        if "max_position_size" in chosen:  # beside it neither side has a limit of its own
            chosen = [key for key in chosen if key not in ONE_SIDED]
        return {key: _value(rng, scale, key) for key in chosen}

    cells = [(account, symbol) for account in scale.accounts for symbol in scale.symbols]
    return Limits(
        defaults=some((*CELL_KEYS, *ACCOUNT_KEYS, *SYMBOL_KEYS), "default"),
        by_symbol=_given({symbol: some((*CELL_KEYS, *SYMBOL_KEYS), "symbol") for symbol in scale.symbols}),
        by_account=_given({one: some((*CELL_KEYS, *ACCOUNT_KEYS), "account") for one in scale.accounts}),
        by_cell=_given({cell: some(CELL_KEYS, "cell") for cell in cells if rng.random() < 0.5}),
    )


def merged(limits: Limits, later: Limits) -> Limits:
    """Limits with those of a change over them."""

    def over(mine: dict[Any, dict], given: dict[Any, dict]) -> dict[Any, dict]:
        return mine | {place: _over(mine.get(place, {}), values) for place, values in given.items()}

    return replace(
        limits,
        defaults=_over(limits.defaults, later.defaults),
        by_symbol=over(limits.by_symbol, later.by_symbol),
        by_account=over(limits.by_account, later.by_account),
        by_cell=over(limits.by_cell, later.by_cell),
    )


def _over(mine: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A new `max_position_size` hides the old limits of both sides."""
    hidden = ONE_SIDED if "max_position_size" in given else ()
    return {key: value for key, value in mine.items() if key not in hidden} | given


def _given(places: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    return {place: values for place, values in places.items() if values}


def _value(rng: np.random.Generator, scale: Scale, key: str) -> Any:
    if key in ENDS and rng.random() < 0.02:
        return ENDS[key][rng.integers(2)]
    return DRAWS[key][0](rng, scale)


# -- limits as the package takes them


def limits_table(limits: Limits) -> dict[str, list]:
    """A table of limits: account, symbol, from_row and every key that is given, in the units of docs/RISK.md.

    One row for each place and change; a missing account or symbol is null and means any, a missing value too.
    Money, percentages and basis points are exact decimals.
    """
    of_all = {"account": None, "symbol": None, "from_row": 0} | limits_settings(limits)
    rows = [row for since, part in [(0, limits), *limits.changes] for row in _rows(since, part)]
    if limits.defaults:
        rows[0] |= of_all
    else:
        rows.insert(0, of_all)
    names = dict.fromkeys(["account", "symbol", "from_row", *(key for row in rows for key in row)])
    return {name: [row.get(name) for row in rows] for name in names}


def limits_settings(limits: Limits) -> dict[str, str]:
    """What is of all, as text."""
    return {
        "unknown_accounts": limits.unknown_accounts,
        "mark_interval": _time(limits.mark_interval),
        "repeated_order_window": _time(limits.repeated_order_window),
    }


def _rows(since: int, limits: Limits) -> Iterable[dict[str, Any]]:
    places = {(None, None): limits.defaults}
    places |= {(None, symbol): values for symbol, values in limits.by_symbol.items()}
    places |= {(account, None): values for account, values in limits.by_account.items()}
    places |= limits.by_cell
    for (account, symbol), values in places.items():
        if values:
            told = {key: _told(key, value) for key, value in values.items()}
            yield {"account": account, "symbol": symbol, "from_row": since} | told


def _told(key: str, value: Any) -> Any:
    """A value in the unit of its key."""
    if key in MONEY:
        return Decimal(value) / PRICE_SCALE
    if key.endswith("_percentage"):
        return Decimal(value) / PPM_PER_PERCENT
    if key.endswith("_bps"):
        return Decimal(value) / STEPS_PER_BP
    if key == "reference" and type(value) is int:
        return str(Decimal(value) / PRICE_SCALE)
    return value


def _time(ns: int) -> str:
    return f"{ns // MILLISECOND}ms" if ns % MILLISECOND == 0 else f"{ns}ns"
