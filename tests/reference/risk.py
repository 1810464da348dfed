"""The risk gate in dicts, from docs/RISK.md alone and sharing no code with the kernels.

`Gate` knows limits, states, clocks, positions and marks, and says of an order whether it may reach the book.
It changes no book: what it does to books is in `reference.gated`. Integers are unbounded: what does not fit
63 bits is compared as it is, and saturates only where it is shown. Money is price x lots times what one lot
is worth, a fraction, and is rounded only where it is shown.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

from hftlab.codes import Action, OrderType, Reason, RiskState, Side, Stage
from tests.reference.book import ReferenceBook, column_value, rejected, units, whole
from tests.reference.risk_limits import LARGEST, SECOND, InForce, Limits, is_above

BUY = int(Side.BUY)
NEW, RISK_CONTROL, MARKET = int(Action.NEW), int(Action.RISK_CONTROL), int(OrderType.MARKET)
ACTIVE, REDUCING, HALTED = int(RiskState.ACTIVE), int(RiskState.REDUCING), int(RiskState.HALTED)
WHOLE = 1_000_000  # percentages are in millionths of it
OF_ACCOUNT, OF_SYMBOL, OF_ALL = range(3)


class Watch:
    """What a stop loss looks at: an equity, its peak, and the equity at which it struck."""

    __slots__ = ("equity", "peak", "struck_at")

    def __init__(self) -> None:
        self.equity = 0
        self.peak: int | None = None
        self.struck_at: int | None = None

    def strikes(self, equity: int, capital: int, percentage: int | None) -> bool:
        """Take the equity of a marking; whether the stop strikes at it."""
        self.equity = shown(equity)
        self.peak = max(capital if self.peak is None else self.peak, self.equity)
        if percentage is None or self.struck_at is not None or self.peak <= 0:
            return False
        floor = self.peak - self.peak * percentage // WHOLE
        if self.equity > floor:
            return False
        self.struck_at = floor
        return True

    def lift(self) -> None:
        """Forget that the stop has struck; the peak begins anew."""
        if self.struck_at is not None:
            self.struck_at = None
            self.peak = self.equity


class Cell:
    """One account in one symbol."""

    __slots__ = (
        "cash",
        "open_buy",
        "open_notional",
        "open_orders",
        "open_sell",
        "position",
        "traded",
        "watch",
    )

    def __init__(self) -> None:
        self.position = self.cash = 0
        self.open_buy = self.open_sell = 0
        self.open_orders = self.open_notional = 0
        self.traded = False
        self.watch = Watch()

    def rests(self, side: int, price: int, qty: int, orders: int) -> None:
        """Orders and lots of them that come to rest; negative when they leave."""
        if side == BUY:
            self.open_buy += qty
        else:
            self.open_sell += qty
        self.open_notional += abs(price) * qty
        self.open_orders += orders


class Entry(NamedTuple):
    """An order as the gate looks at it, its price None for MARKET."""

    sender: int
    owner: int
    side: int
    price: int | None
    qty: int
    may_rest: bool
    passive: bool
    replaced: Any = None  # the open order that a REPLACE replaces
    in_place: bool = False

    @property
    def notional(self) -> int:
        return abs(self.price or 0) * self.qty


class Gate:
    """The gate of one venue."""

    def __init__(self, limits: Limits, tick: int | None, lots: Mapping[str, Fraction] | None = None) -> None:
        self.settings = limits
        self.lots = {} if lots is None else lots  # what a lot is worth: lot size x multiplier, default 1
        self.limits = InForce(limits)
        self.tick = tick or 1
        self.time: int | None = None
        self.cells: dict[int, dict[str, Cell]] = defaultdict(dict)  # of each account
        self.watches: dict[int, Watch] = defaultdict(Watch)
        self.states: tuple[dict, dict, dict] = ({}, {}, {})  # of accounts, symbols, everything
        self.last: dict[str, int] = {}
        self.marks: dict[str, int] = {}
        self._messages: dict[int, deque[int]] = defaultdict(deque)
        self._repeats: dict[tuple, tuple[int, int]] = {}  # of equal orders: the latest's time, how many
        self._repeated = 0

    def cell(self, account: int, symbol: str) -> Cell:
        cells = self.cells[account]
        cell = cells.get(symbol)
        if cell is None:
            cell = cells[symbol] = Cell()
        return cell

    # -- clocks

    def reach(self, row: int, ts: int) -> bool:
        """Limits and time of a row; whether positions are to be marked before it."""
        self.limits.reach(row)
        before = self.time
        self.time = ts if before is None else max(before, ts)
        interval = self.settings.mark_interval
        return before is not None and self.time // interval > before // interval

    def note(self, symbol: str, command: list) -> None:
        """Count a row as a message, and a NEW among its equals."""
        action, account = command[0], command[8]
        if action == RISK_CONTROL:
            return
        messages = self._messages[account]
        messages.append(self.time)
        while self.time - messages[0] >= SECOND:
            messages.popleft()
        if action == NEW:
            self._note_repeat(symbol, command)

    def _note_repeat(self, symbol: str, command: list) -> None:
        _, _, _, side, order_type, _, price, qty, account, _ = command
        price = 0 if order_type == MARKET else column_value(units(price))
        equal = (account, symbol, side, price, column_value(whole(qty)))
        time, count = self._repeats.get(equal, (self.time, 0))
        count = count + 1 if self.time - time < self.settings.repeated_order_window else 1
        self._repeats[equal] = (self.time, count)
        self._repeated = count

    # -- the checks

    def refusal(self, symbol: str, book: ReferenceBook, entry: Entry):
        """The reject of the first check that fails, or None."""
        refused = self._of_the_row(symbol, entry)
        if refused is not None or entry.in_place:
            return refused
        return (
            self._of_the_owner(symbol, entry)
            or self._of_prices(symbol, book, entry)
            or self._of_sizes(symbol, entry)
            or self._of_self_trade(symbol, book, entry)
        )

    def state_of(self, symbol: str) -> int:
        """The more severe of the states of the symbol and of everything."""
        _, symbols, everything = self.states
        return max(symbols.get(symbol, ACTIVE), everything.get(None, ACTIVE))

    def _of_the_row(self, symbol: str, entry: Entry):
        """Checks 1 to 7, by the sender."""
        sender = entry.sender
        if max(self.states[OF_ACCOUNT].get(sender, ACTIVE), self.state_of(symbol)) == HALTED:
            return rejected(Reason.KILL_SWITCH, Stage.KILL)
        of_account = self.limits.account(sender)
        if not of_account.known and self.settings.unknown_accounts == "reject":
            return refused(Reason.UNKNOWN_ACCOUNT, None, sender)
        limits = self.limits.cell(sender, symbol)
        if limits.restricted:
            return refused(Reason.RESTRICTED_SYMBOL)
        most, messages = of_account.max_orders_per_second, len(self._messages[sender])
        if most is not None and messages > most:
            return refused(Reason.RATE_LIMIT, most, messages)
        most = limits.max_repeated_orders
        if most is not None and entry.replaced is None and self._repeated > most:
            return refused(Reason.REPEATED_ORDER, most, self._repeated)
        if entry.qty > limits.max_order_qty:
            return refused(Reason.MAX_ORDER_QTY, limits.max_order_qty, entry.qty)
        notional = self.money(symbol, entry.notional)
        if entry.price is not None and is_above(notional, limits.max_order_notional):
            return refused(Reason.MAX_NOTIONAL, limits.max_order_notional, ceil(notional))
        return None

    def _of_the_owner(self, symbol: str, entry: Entry):
        """Checks 8 and 9: what may not increase the position."""
        worst = self.worst_position(symbol, entry)
        if entry.side * worst <= 0:
            return None
        owner = entry.owner
        state = max(self.states[OF_ACCOUNT].get(entry.sender, ACTIVE), self.state_of(symbol))
        if state >= REDUCING or self.limits.cell(owner, symbol).reduce_only:
            return refused(Reason.REDUCE_ONLY, 0, worst)
        by_account = self.limits.account(owner).stop_loss_scope == "account"
        watch = self.watches[owner] if by_account else self.cell(owner, symbol).watch
        if watch.struck_at is not None:
            return refused(Reason.STOP_LOSS, watch.struck_at, watch.equity)
        return None

    def _of_prices(self, symbol: str, book: ReferenceBook, entry: Entry):
        """Checks 10 and 11: the band."""
        reference = self.reference(symbol, book)
        if reference is None:
            return None
        limits = self.limits.cell(entry.owner, symbol)
        band = self._band(limits, reference)
        if entry.price is None:
            notional = self.money(symbol, (abs(reference) + (band or 0)) * entry.qty)
            if is_above(notional, limits.max_order_notional):
                return refused(Reason.MAX_NOTIONAL, limits.max_order_notional, ceil(notional))
        elif band is not None and abs(entry.price - reference) > band:
            end = reference + band if entry.price > reference else reference - band
            return refused(Reason.PRICE_BAND, end, entry.price)
        return None

    def _of_sizes(self, symbol: str, entry: Entry):
        """Checks 12 to 15: what the owner would have."""
        cell, limits = self.cell(entry.owner, symbol), self.limits.cell(entry.owner, symbol)
        worst = self.worst_position(symbol, entry)
        if entry.side == BUY and worst > limits.max_long_position:
            return refused(Reason.MAX_POSITION, limits.max_long_position, worst)
        if entry.side != BUY and worst < -limits.max_short_position:
            return refused(Reason.MAX_POSITION, -limits.max_short_position, worst)
        if entry.may_rest:
            orders = cell.open_orders + 1
            if entry.replaced is None and orders > limits.max_open_orders:
                return refused(Reason.MAX_OPEN_ORDERS, limits.max_open_orders, orders)
            lots_open = cell.open_notional + entry.notional - _open_notional(entry.replaced)
            notional = self.money(symbol, lots_open)
            if is_above(notional, limits.max_open_notional):
                return refused(Reason.MAX_OPEN_NOTIONAL, limits.max_open_notional, ceil(notional))
        most = self.limits.account(entry.owner).max_portfolio_value
        if most is not None:
            growth = self._growth(symbol, entry, cell.position)
            value = self.portfolio_value(entry.owner) + growth
            if growth > 0 and is_above(value, most):
                return refused(Reason.MAX_PORTFOLIO_VALUE, most, ceil(value))
        return None

    def _of_self_trade(self, symbol: str, book: ReferenceBook, entry: Entry):
        """Check 16."""
        if entry.passive or self.limits.cell(entry.owner, symbol).self_trade != "cancel_newest":
            return None
        met = book.first_met(entry.side, entry.price)
        if met is not None and self.same_owner(met.account, entry.owner):
            return rejected(Reason.SELF_TRADE, Stage.SELF_TRADE)
        return None

    # -- what the checks look at

    def money(self, symbol: str, amount: int) -> Fraction | int:
        """Price x lots as money, in 1e-9."""
        return amount * self.lots.get(symbol, 1)

    def worst_position(self, symbol: str, entry: Entry) -> int:
        """All orders of the side filled and none of the other."""
        cell = self.cell(entry.owner, symbol)
        qty = entry.qty - (entry.replaced.open_qty if entry.replaced is not None else 0)
        if entry.side == BUY:
            return cell.position + cell.open_buy + qty
        return cell.position - cell.open_sell - qty

    def reference(self, symbol: str, book: ReferenceBook) -> int | None:
        kind = self.limits.reference(symbol)
        if kind == "mid":
            bid, offer = book.bids.touch()[0], book.offers.touch()[0]
            if bid is not None and offer is not None:
                return (bid + offer) // 2
        return kind if type(kind) is int else self.last.get(symbol)

    def mark(self, symbol: str) -> int | None:
        """What positions are valued at, if that is known yet."""
        mark = self.marks.get(symbol)
        if mark is None:
            fixed = self.limits.reference(symbol)
            return fixed if type(fixed) is int else None
        return mark

    def portfolio_value(self, account: int) -> Fraction:
        """At |mark|: a position is no smaller for a negative price."""
        cells = self.cells[account].items()
        return sum(
            self.money(symbol, abs(cell.position * self.mark(symbol)))
            for symbol, cell in cells
            if cell.position
        )

    def same_owner(self, one: int, other: int) -> bool:
        return self.limits.account(one).owner == self.limits.account(other).owner

    def _band(self, limits: Any, reference: int) -> int | None:
        bands = []
        if limits.price_band_ticks is not None:
            bands.append(min(LARGEST, limits.price_band_ticks * self.tick))
        if limits.price_band_percentage is not None:
            bands.append(abs(reference) * limits.price_band_percentage // WHOLE)
        return min(bands, default=None)

    def _growth(self, symbol: str, entry: Entry, position: int) -> Fraction:
        lots = max(0, abs(position + entry.side * entry.qty) - abs(position))
        mark = self.mark(symbol)
        if mark is None:
            mark = entry.price or 0
        return self.money(symbol, lots * abs(mark))

    # -- what happens

    def filled(self, symbol: str, side: int, account: int, fills: list) -> None:
        """Book the fills of an incoming order on both sides."""
        for price, qty, _, maker_account, *_ in fills:
            for party, sign in ((account, side), (maker_account, -side)):
                cell = self.cell(party, symbol)
                cell.position += sign * qty
                cell.cash -= sign * qty * price
                cell.traded = True
            self.last[symbol] = price
            if self.mark(symbol) is None:
                self.marks[symbol] = price

    def set_marks(self, books: Mapping[str, ReferenceBook]) -> None:
        """Each symbol's mark becomes its reference, if that is known."""
        for symbol, book in books.items():
            reference = self.reference(symbol, book)
            if reference is not None:
                self.marks[symbol] = reference

    def traded(self, account: int) -> list[tuple[str, Cell]]:
        """The cells that have traded, by the names of their symbols."""
        return sorted((symbol, cell) for symbol, cell in self.cells[account].items() if cell.traded)

    def profit(self, symbol: str, cell: Cell) -> Fraction:
        return self.money(symbol, cell.cash + cell.position * self.mark(symbol))

    def control(self, account: int, symbol: str, scope: int, state: int) -> None:
        """Set a state; ACTIVE lifts the stop losses of the account, or of all."""
        place = (account, symbol, None)[scope]
        self.states[scope][place] = state
        if state == ACTIVE and scope != OF_SYMBOL:
            for lifted in list(self.cells) if scope == OF_ALL else [account]:
                self.watches[lifted].lift()
                for cell in self.cells[lifted].values():
                    cell.watch.lift()


def shown(value: int) -> int:
    """A value as a column shows it."""
    return max(-LARGEST, min(LARGEST, value))


def refused(reason: Reason, limit: int | None = None, observed: int | None = None):
    """The outcome of a check of LIMITS that failed."""
    limit, observed = (None if value is None else shown(value) for value in (limit, observed))
    return rejected(reason, Stage.LIMITS, limit, observed)


def _open_notional(order: Any) -> int:
    return 0 if order is None else abs(order.level.price) * order.open_qty
