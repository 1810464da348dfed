"""One instrument and one venue in dicts, from docs/SEMANTICS.md alone and sharing no code with the kernels.

It exists to be obviously right: every rule of that page is a few lines here, and the differential tests run
the same flows through both. Integers are unbounded here: the limits of 64 bits are checked, never hit.
"""

from __future__ import annotations

import gc
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from itertools import repeat
from typing import Any, NamedTuple, Self

from hftlab.codes import (
    DEFAULT_SYMBOL,
    PRICE_SCALE,
    UNDEF_PRICE,
    Action,
    MboAction,
    OrderType,
    Reason,
    Side,
    Stage,
    Status,
    Tif,
)

LIMIT_63 = 2**63  # quantities, and what is open at one price, stay below this

# Plain integers: comparing enum members in the loop costs more than matching does.
BUY, SELL = int(Side.BUY), int(Side.SELL)
MARKET, PASSIVE = int(OrderType.MARKET), int(OrderType.PASSIVE)
GTC, DAY, FOK = int(Tif.GTC), int(Tif.DAY), int(Tif.FOK)
RESTING, FILLED, CANCELLED = int(Status.RESTING), int(Status.FILLED), int(Status.CANCELLED)
EXPIRED, REPLACED, REJECTED = int(Status.EXPIRED), int(Status.REPLACED), int(Status.REJECTED)


class Command(NamedTuple):
    """One row of an orders table without its time and symbol; prices in 1e-9, quantities in lots."""

    action: int
    order_id: int = 0
    new_order_id: int | None = None
    side: int = BUY
    order_type: int = 0
    tif: int = 0
    price: Any = 0
    qty: Any = 0
    account: int = 0
    post_only: bool = False


class Fact(NamedTuple):
    """One row of an mbo table without its times and symbol."""

    action: int
    order_id: int = 0
    side: int = BUY
    price: Any = 0
    size: Any = 0


class Fill(NamedTuple):
    """One trade of a command with one resting order, at that order's price."""

    price: int
    qty: int
    maker_order_id: int
    maker_account: int
    taker_leaves: int
    maker_leaves: int


class Reject(NamedTuple):
    """Why a command changed nothing."""

    reason: int
    stage: int
    limit_value: int | None = None
    observed_value: int | None = None


class Outcome(NamedTuple):
    """What became of one command."""

    status: int
    filled_qty: int = 0
    leaves_qty: int = 0
    fills: list[Fill] | tuple[()] = ()
    reject: Reject | None = None
    taker_order_id: int = 0
    taker_account: int = 0
    taker_side: int = 0


def rejected(reason: Reason, stage: Stage, limit: int | None = None, observed: int | None = None) -> Outcome:
    return Outcome(REJECTED, reject=Reject(int(reason), int(stage), limit, observed))


UNKNOWN_ORDER = rejected(Reason.UNKNOWN_ORDER, Stage.VALIDATE)
DUPLICATE_ORDER = rejected(Reason.DUPLICATE_ORDER, Stage.VALIDATE)
POST_ONLY_WOULD_CROSS = rejected(Reason.POST_ONLY_WOULD_CROSS, Stage.MATCH)
CAPACITY_EXHAUSTED = rejected(Reason.CAPACITY_EXHAUSTED, Stage.MATCH)
ALL_CANCELLED = Outcome(CANCELLED)
NO_EFFECT = Outcome(int(Status.NO_EFFECT))
APPLIED = Outcome(int(Status.APPLIED))
LEGAL_CONTROLS = range(12)


def whole(value: Any) -> int | None:
    """The integer a number stands for; None where it is not finite or not whole."""
    if type(value) is int:
        return value
    try:
        integer = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return integer if integer == value else None


def units(price: Any) -> int | None:
    """A price in 1e-9: integers are that already, other numbers are what their shortest decimal says."""
    if type(price) is int or price is None:
        return price
    exact = Decimal(str(price))
    return whole(exact * PRICE_SCALE) if exact.is_finite() else None


def column_value(value: int | None) -> int | None:
    """The value if an int64 column can hold it, else None; -2^63 stands for what it can't."""
    return value if value is not None and -LIMIT_63 < value < LIMIT_63 else None


class Order:
    """An open order."""

    __slots__ = ("account", "level", "open_qty", "order_id", "side")

    def __init__(self, order_id: int, side: int, open_qty: int, account: int) -> None:
        self.order_id = order_id
        self.side = side
        self.open_qty = open_qty
        self.account = account
        self.level: Level | None = None


class Level:
    """The orders at one price of one side, oldest first."""

    __slots__ = ("orders", "price", "qty")

    def __init__(self, price: int) -> None:
        self.price = price
        self.qty = 0
        self.orders: OrderedDict[int, Order] = OrderedDict()


class HalfBook:
    """One side: levels by rank = side * price, so that on both sides the highest rank is the best."""

    __slots__ = ("levels", "ranks", "side")

    def __init__(self, side: int) -> None:
        self.side = side
        self.ranks: list[int] = []  # ascending: the best is the last
        self.levels: dict[int, Level] = {}

    def level_for(self, price: int) -> Level:
        rank = self.side * price
        level = self.levels.get(rank)
        if level is None:
            level = self.levels[rank] = Level(price)
            insort(self.ranks, rank)
        return level

    def qty_at(self, price: int) -> int:
        level = self.levels.get(self.side * price)
        return level.qty if level is not None else 0

    def drop(self, level: Level) -> None:
        rank = self.side * level.price
        del self.levels[rank]
        ranks = self.ranks
        if ranks[-1] == rank:
            ranks.pop()
        else:
            del ranks[bisect_left(ranks, rank)]

    def best_first(self) -> Iterator[Level]:
        return (self.levels[rank] for rank in reversed(self.ranks))

    def top(self, levels: int) -> list[tuple[int, int, int]]:
        best = [self.levels[rank] for rank in self.ranks[: -levels - 1 : -1]]
        return [(level.price, level.qty, len(level.orders)) for level in best]

    def touch(self) -> tuple[int | None, int, int]:
        if not self.ranks:
            return (None, 0, 0)
        level = self.levels[self.ranks[-1]]
        return (level.price, level.qty, len(level.orders))


class ReferenceBook:
    """One instrument: ``apply`` a command, or a fact, and look at what is left.

    Without a tick every price is a multiple of it, and a reject of a price names none.
    """

    __slots__ = (
        "_handlers",
        "bids",
        "crossed_by_passive",
        "lowest_price",
        "offers",
        "open",
        "tick",
        "told_tick",
    )

    def __init__(self, tick: int | None = 1, allow_nonpositive: bool = False) -> None:
        self.told_tick = tick
        self.tick = tick or 1
        self.lowest_price = 1 - LIMIT_63 if allow_nonpositive else 1
        self.bids = HalfBook(BUY)
        self.offers = HalfBook(SELL)
        self.open: dict[int, Order] = {}
        self.crossed_by_passive = False  # a passive order has rested where it would have traded
        self._handlers = self._handlers_by_action()

    def _handlers_by_action(self) -> tuple:
        handlers = {
            Action.NEW: self._new,
            Action.CANCEL: self._cancel,
            Action.REDUCE: self._reduce,
            Action.REPLACE: self._replace,
            Action.MASS_CANCEL: self._mass_cancel,
            Action.CLEAR: self._clear,
            Action.RISK_CONTROL: self._control,
        }
        return tuple(handlers[action] for action in sorted(Action, key=int))

    # -- commands

    def apply(self, command: Command | tuple) -> Outcome:
        """The one outcome of a command; a rejected one changes nothing."""
        return self._handlers[command[0]](*command[1:])

    def _new(self, order_id, new_order_id, side, order_type, tif, price, qty, account, post_only) -> Outcome:
        if type(qty) is not int or not 0 < qty < LIMIT_63:
            exact = whole(qty)
            if exact is None or not 0 < exact < LIMIT_63:
                return self._invalid_qty(exact)
            qty = exact
        if order_type == MARKET:
            price = None
        elif type(price) is not int or price % self.tick or not self.lowest_price <= price < LIMIT_63:
            exact = units(price)
            if not self._is_price(exact):
                return self._invalid_price(exact)
            price = exact
        if order_id in self.open:
            return DUPLICATE_ORDER
        may_rest = price is not None and tif in (GTC, DAY)
        passive = order_type == PASSIVE
        refusal = self._refused_by_gate(account, account, side, price, qty, may_rest, passive)
        if refusal is not None:
            return refusal
        if post_only and price is not None and not passive and self._would_trade(side, price):
            return POST_ONLY_WOULD_CROSS
        if may_rest and self._half(side).qty_at(price) + qty >= LIMIT_63:
            return CAPACITY_EXHAUSTED
        if tif == FOK and not self._can_fill(side, price, qty, account):
            return Outcome(EXPIRED)
        return self._enter(order_id, side, price, qty, account, RESTING if may_rest else EXPIRED, passive)

    def _cancel(self, order_id, *_ignored) -> Outcome:
        order = self.open.get(order_id)
        if order is None:
            return UNKNOWN_ORDER
        self._remove(order)
        return ALL_CANCELLED

    def _reduce(self, order_id, _new_id, _side, _type, _tif, _price, qty, *_ignored) -> Outcome:
        qty, refusal = self._checked_qty(qty)
        if refusal is not None:
            return refusal
        order = self.open.get(order_id)
        if order is None:
            return UNKNOWN_ORDER
        if qty >= order.open_qty:
            self._remove(order)
            return ALL_CANCELLED
        self._take_off(order, qty)
        return Outcome(RESTING, 0, order.open_qty)

    def _replace(self, order_id, new_order_id, _side, order_type, _tif, price, qty, account, post_only):
        qty, refusal = self._checked_qty(qty)
        if refusal is not None:
            return refusal
        price = units(price)
        if not self._is_price(price):
            return self._invalid_price(price)
        order = self.open.get(order_id)
        if order is None:
            return UNKNOWN_ORDER
        if new_order_id is None:
            new_order_id = order_id
        if new_order_id != order_id and new_order_id in self.open:
            return DUPLICATE_ORDER
        in_place = price == order.level.price and qty <= order.open_qty and new_order_id == order_id
        passive = order_type == PASSIVE
        refusal = self._refused_by_gate(
            account, order.account, order.side, price, qty, True, passive, order, in_place
        )
        if refusal is not None:
            return refusal
        if in_place:
            self._take_off(order, order.open_qty - qty)
            return Outcome(REPLACED, 0, qty)
        if post_only and not passive and self._would_trade(order.side, price):
            return POST_ONLY_WOULD_CROSS
        others_at_price = self._half(order.side).qty_at(price)
        if price == order.level.price:
            others_at_price -= order.open_qty
        if others_at_price + qty >= LIMIT_63:
            return CAPACITY_EXHAUSTED
        self._remove(order)
        return self._enter(new_order_id, order.side, price, qty, order.account, REPLACED, passive)

    def _mass_cancel(self, _id, _new_id, _side, _type, _tif, _price, _qty, account, *_ignored) -> Outcome:
        for order in [order for order in self.open.values() if order.account == account]:
            self._remove(order)
        return ALL_CANCELLED

    def _clear(self, *_ignored) -> Outcome:
        self.bids = HalfBook(BUY)
        self.offers = HalfBook(SELL)
        self.open.clear()
        return ALL_CANCELLED

    def _control(self, _id, _new_id, _side, _type, _tif, _price, qty, *_ignored) -> Outcome:
        exact = whole(qty)
        if exact is None or exact not in LEGAL_CONTROLS:
            last = LEGAL_CONTROLS[-1]
            return rejected(Reason.INVALID_QTY, Stage.VALIDATE, last, column_value(exact))
        return APPLIED

    # -- facts

    def apply_fact(self, fact: Fact | tuple) -> Outcome:
        """The one outcome of a fact."""
        action, order_id, side, price, size = fact
        if action == MboAction.R:
            return self._clear()
        if action not in (MboAction.A, MboAction.M, MboAction.C):
            return NO_EFFECT
        size, refusal = self._checked_qty(size)
        if refusal is not None:
            return refusal
        if action == MboAction.C:
            return self._reduce(order_id, None, 0, 0, 0, 0, size)
        price = units(price)
        if not self._is_price(price):
            return self._invalid_price(price)
        if action == MboAction.A:
            return self._add(order_id, side, price, size)
        return self._modify(order_id, price, size)

    def _add(self, order_id: int, side: int, price: int, size: int) -> Outcome:
        if order_id in self.open:
            return DUPLICATE_ORDER
        if self._half(side).qty_at(price) + size >= LIMIT_63:
            return CAPACITY_EXHAUSTED
        self._rest(Order(order_id, side, size, 0), price)
        return Outcome(RESTING, 0, size)

    def _modify(self, order_id: int, price: int, size: int) -> Outcome:
        order = self.open.get(order_id)
        if order is None:
            return UNKNOWN_ORDER
        same_price = price == order.level.price
        if same_price and size <= order.open_qty:
            self._take_off(order, order.open_qty - size)
            return Outcome(REPLACED, 0, size)
        others_at_price = self._half(order.side).qty_at(price) - (order.open_qty if same_price else 0)
        if others_at_price + size >= LIMIT_63:
            return CAPACITY_EXHAUSTED
        self._remove(order)
        self._rest(Order(order_id, order.side, size, 0), price)
        return Outcome(REPLACED, 0, size)

    # -- checks

    def _checked_qty(self, qty: Any) -> tuple[int, Outcome | None]:
        exact = whole(qty)
        if exact is None or not 0 < exact < LIMIT_63:
            return 0, self._invalid_qty(exact)
        return exact, None

    def _is_price(self, price: int | None) -> bool:
        return price is not None and self.lowest_price <= price < LIMIT_63 and price % self.tick == 0

    def _invalid_qty(self, qty: int | None) -> Outcome:
        return rejected(Reason.INVALID_QTY, Stage.VALIDATE, 1, column_value(qty))

    def _invalid_price(self, price: int | None) -> Outcome:
        return rejected(Reason.INVALID_PRICE, Stage.VALIDATE, self.told_tick, column_value(price))

    def _refused_by_gate(
        self, sender, owner, side, price, qty, may_rest, passive, replaced=None, in_place=False
    ) -> Outcome | None:
        """What stands between VALIDATE and MATCH: nothing here, the risk gate in `reference.gated`."""
        return None

    def _would_trade(self, side: int, price: int) -> bool:
        ranks = self._half(-side).ranks
        return bool(ranks) and crosses(side, price, ranks[-1])

    def _can_fill(self, side: int, price: int | None, qty: int, _account: int) -> bool:
        other = self._half(-side)
        for rank in reversed(other.ranks):
            if price is not None and not crosses(side, price, rank):
                return False
            qty -= other.levels[rank].qty
            if qty <= 0:
                return True
        return False

    # -- the book

    def _half(self, side: int) -> HalfBook:
        return self.bids if side == BUY else self.offers

    def _enter(
        self, order_id, side, price, qty, account, status_of_rest: int, passive: bool = False
    ) -> Outcome:
        """Trade unless passive, then let what is left rest or expire, as `status_of_rest` says."""
        self.crossed_by_passive |= passive and self._would_trade(side, price)
        fills = self._trade(side, price, qty) if self._half(-side).ranks and not passive else ()
        leaves = fills[-1].taker_leaves if fills else qty
        if not leaves:
            return Outcome(FILLED, qty, 0, fills, None, order_id, account, side)
        if status_of_rest == EXPIRED:
            return Outcome(EXPIRED, qty - leaves, 0, fills, None, order_id, account, side)
        self._rest(Order(order_id, side, leaves, account), price)
        return Outcome(status_of_rest, qty - leaves, leaves, fills, None, order_id, account, side)

    def _trade(self, side: int, price: int | None, qty: int) -> list[Fill]:
        """Fill up to `qty` from the best opposite level, oldest first; no price means any price."""
        other = self._half(-side)
        ranks = other.ranks
        fills = []
        while qty and ranks and (price is None or crosses(side, price, ranks[-1])):
            level = other.levels[ranks[-1]]
            fill = self._trade_with(level, next(iter(level.orders.values())), qty)
            qty = fill.taker_leaves
            fills.append(fill)
        return fills

    def _trade_with(self, level: Level, maker: Order, qty: int) -> Fill:
        """As much of `qty` as that order has."""
        traded = min(qty, maker.open_qty)
        if traded == maker.open_qty:
            self._remove(maker)
            maker_leaves = 0
        else:
            self._take_off(maker, traded)
            maker_leaves = maker.open_qty
        return Fill(level.price, traded, maker.order_id, maker.account, qty - traded, maker_leaves)

    def _rest(self, order: Order, price: int) -> None:
        level = order.level = self._half(order.side).level_for(price)
        level.orders[order.order_id] = order
        level.qty += order.open_qty
        self.open[order.order_id] = order

    def _take_off(self, order: Order, qty: int) -> None:
        order.open_qty -= qty
        order.level.qty -= qty

    def _remove(self, order: Order) -> None:
        level = order.level
        del self.open[order.order_id]
        del level.orders[order.order_id]
        level.qty -= order.open_qty
        if not level.orders:
            self._half(order.side).drop(level)

    # -- views

    def l1(self) -> tuple:
        """(bid_px, bid_sz, bid_ct, ask_px, ask_sz, ask_ct); an empty side is (None, 0, 0)."""
        return self.bids.touch() + self.offers.touch()

    def depth(self, levels: int) -> tuple:
        """Six tuples of `levels` values, best first: bid px, sz, ct, ask px, sz, ct."""
        return tuple(column for top in self.top(levels) for column in _columns(top, levels))

    def top(self, levels: int) -> tuple[list[tuple], list[tuple]]:
        """(price, qty, count) of up to `levels` levels, best first: bids and offers."""
        return self.bids.top(levels), self.offers.top(levels)

    def resting(self) -> Iterator[tuple[int, int, int, int, int]]:
        """(side, price, qty, order_id, account) of open orders: bids, then offers, best and oldest first."""
        for half in (self.bids, self.offers):
            for level in half.best_first():
                for order in level.orders.values():
                    yield (half.side, level.price, order.open_qty, order.order_id, order.account)

    def check(self) -> None:
        """Assert what must hold after every command."""
        bid, offer = self.bids.touch()[0], self.offers.touch()[0]
        uncrossed = bid is None or offer is None or bid < offer
        assert uncrossed or self.crossed_by_passive, f"crossed: {bid} >= {offer}"
        assert sum(1 for _ in self.resting()) == len(self.open), "an open order is not in its queue"
        for half in (self.bids, self.offers):
            assert half.ranks == sorted(half.levels), "the sorted prices are not those of the levels"
            for level in half.levels.values():
                quantities = [order.open_qty for order in level.orders.values()]
                assert quantities, "an empty level"
                assert min(quantities) > 0, "an open order without quantity"
                assert level.qty == sum(quantities) < LIMIT_63, "a level is not the sum of its orders"


def crosses(side: int, price: int, opposite_rank: int) -> bool:
    """Whether an order at `price` trades with the opposite level of that rank (-side * its price)."""
    return -opposite_rank <= side * price


def _columns(top: list[tuple], levels: int) -> Iterator[tuple]:
    """Prices, quantities and counts, filled up to `levels` with levels that are not there."""
    return zip(*top, *repeat((UNDEF_PRICE, 0, 0), levels - len(top)), strict=True)


@contextmanager
def garbage_collector_off() -> Iterator[None]:
    """Millions of output rows without a single cycle: looking for one costs a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class ReferenceVenue:
    """Many instruments: runs a whole table and keeps every output as rows of hftlab/schema.py's tables."""

    def __init__(
        self, tick: int | None = 1, allow_nonpositive: bool = False, l1: bool = True, depth_levels: int = 0
    ) -> None:
        self.tick = tick
        self.allow_nonpositive = allow_nonpositive
        self.records_l1 = l1
        self.depth_levels = depth_levels
        self.books: dict[Any, ReferenceBook] = {}
        self.outcomes: list[tuple] = []  # (seq, status, filled_qty, leaves_qty)
        self.fills: list[tuple] = []  # the columns of FILLS
        self.rejects: list[tuple] = []  # the columns of REJECTS
        self.l1: list[tuple] = []  # the columns of L1
        self.depth: list[tuple] = []  # seq, ts, symbol and six tuples
        self._touch: dict[Any, tuple] = {}
        self._top: dict[Any, tuple] = {}

    def book(self, symbol: Any) -> ReferenceBook:
        """The book of a symbol, made when first named."""
        book = self.books.get(symbol)
        if book is None:
            book = self.books[symbol] = self._new_book(symbol)
            self._touch[symbol] = book.l1()
            self._top[symbol] = book.top(self.depth_levels)
        return book

    def _new_book(self, _symbol: Any) -> ReferenceBook:
        return ReferenceBook(self.tick, self.allow_nonpositive)

    def run(self, rows: Iterable[tuple]) -> Self:
        """Apply rows of (ts, symbol, *Command), in order."""
        with garbage_collector_off():
            self._run(rows)
        return self

    def _run(self, rows: Iterable[tuple]) -> None:
        books = self.books
        for seq, (ts, symbol, *command) in enumerate(rows, len(self.outcomes)):
            book = books.get(symbol) or self.book(symbol)
            outcome = book.apply(command)
            self._record_outcome(seq, ts, symbol, command, outcome)
            if outcome.reject is None:
                self._record_market_data(seq, ts, symbol, book)

    def rebuild(self, rows: Iterable[tuple]) -> ReferenceVenue:
        """Apply rows of (ts, symbol, *Fact), in order; a venue's prices may have any sign."""
        self.allow_nonpositive = True
        for seq, (ts, symbol, *fact) in enumerate(rows, len(self.outcomes)):
            book = self.book(symbol)
            outcome = book.apply_fact(fact)
            self.outcomes.append((seq, *outcome[:3]))
            if outcome.reject is not None:
                reason, stage, limit, observed = outcome.reject
                self.rejects.append((seq, ts, symbol, fact[1], 0, fact[0], stage, reason, limit, observed))
            self._record_market_data(seq, ts, symbol, book)
        return self

    def _record_outcome(self, seq: int, ts: int, symbol: Any, command: list, outcome: Outcome) -> None:
        status, filled, leaves, fills, reject, *taker = outcome
        self.outcomes.append((seq, status, filled, leaves))
        if reject is not None:
            action, order_id, account = command[0], command[1], command[8]
            reason, stage, limit, observed = reject
            self.rejects.append((seq, ts, symbol, order_id, account, action, stage, reason, limit, observed))
        elif fills:
            self._record_fills(seq, ts, symbol, taker, fills)

    def _record_fills(self, seq: int, ts: int, symbol: Any, taker: list, fills: list[Fill]) -> None:
        order_id, account, side = taker
        rows = self.fills
        for price, qty, maker, maker_account, taker_leaves, maker_leaves in fills:
            ids = (side, order_id, maker, account, maker_account)
            rows.append((seq, len(rows), ts, symbol, price, qty, *ids, taker_leaves, maker_leaves))

    def _record_market_data(self, seq: int, ts: int, symbol: Any, book: ReferenceBook) -> None:
        if self.records_l1:
            touch = book.l1()
            if touch != self._touch[symbol]:
                self._touch[symbol] = touch
                self.l1.append((seq, ts, symbol, *touch))
        if self.depth_levels:
            top = book.top(self.depth_levels)
            if top != self._top[symbol]:
                self._top[symbol] = top
                self.depth.append((seq, ts, symbol, *book.depth(self.depth_levels)))

    def final_book(self) -> list[tuple]:
        """The columns of BOOK: symbols as they appeared, each BUY then SELL, best first, oldest first."""
        return [(symbol, *order) for symbol, book in self.books.items() for order in book.resting()]


def rows_of(table: Mapping[str, Any]) -> Iterator[tuple]:
    """Rows for `ReferenceVenue.run` from columns, with the defaults of an orders table for missing ones."""
    names = ("ts", "symbol", *Command._fields)
    unknown = set(table) - set(names)
    if unknown:
        raise KeyError(f"columns {sorted(unknown)}, expected some of {names}")
    size = len(table["action"])
    defaults = {"ts": range(size), "symbol": repeat(DEFAULT_SYMBOL, size)}
    defaults |= {name: repeat(value, size) for name, value in Command._field_defaults.items()}
    return zip(*(table.get(name, defaults.get(name)) for name in names), strict=True)
