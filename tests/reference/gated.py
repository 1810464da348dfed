"""The reference venue behind the risk gate: what the gate does to books, and the tables it adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

from hftlab.codes import GateEvent
from tests.reference import positions
from tests.reference.book import (
    CANCELLED,
    EXPIRED,
    FILLED,
    REJECTED,
    Fill,
    Level,
    Order,
    Outcome,
    ReferenceBook,
    ReferenceVenue,
    crosses,
)
from tests.reference.risk import HALTED, OF_ACCOUNT, OF_SYMBOL, RISK_CONTROL, Cell, Entry, Gate, Watch
from tests.reference.risk_limits import Limits

SELF_TRADE_CANCEL, SELF_TRADE_DECREMENT = GateEvent.SELF_TRADE_CANCEL, GateEvent.SELF_TRADE_DECREMENT
KILL_CANCEL, STOP_CANCEL = GateEvent.KILL_CANCEL, GateEvent.STOP_CANCEL
STOP_LOSS, STOP_CLOSE = GateEvent.STOP_LOSS, GateEvent.STOP_CLOSE
KILL = 3  # the state of a RISK_CONTROL that is HALTED and cancels what is open


class GatedBook(ReferenceBook):
    """A book whose orders the gate admits, counts, and keeps from trading with their owner."""

    __slots__ = ("gate", "report", "symbol")

    def __init__(self, tick: int | None, allow_nonpositive: bool, symbol: str, gate: Gate, report: Callable):
        super().__init__(tick, allow_nonpositive)
        self.symbol = symbol
        self.gate = gate
        self.report = report  # called with (event, symbol, account, order_id, qty)

    def first_met(self, side: int, price: int | None) -> Order | None:
        """The open order that an incoming one would trade with first."""
        other = self._half(-side)
        if not other.ranks or (price is not None and not crosses(side, price, other.ranks[-1])):
            return None
        return next(iter(other.levels[other.ranks[-1]].orders.values()))

    def cancel_all(self, event: GateEvent, account: int | None = None) -> bool:
        """Cancel the orders of an account, or all, in the order of the table `book`; whether any were."""
        ids = [order_id for *_, order_id, owner in self.resting() if account is None or owner == account]
        for order_id in ids:
            self._cancel_by_gate(event, self.open[order_id])
        return bool(ids)

    def _cancel_by_gate(self, event: GateEvent, order: Order) -> None:
        self.report(event, self.symbol, order.account, order.order_id, order.open_qty)
        self._remove(order)

    # -- hooks of the book

    def _refused_by_gate(self, *what: Any) -> Outcome | None:
        return self.gate.refusal(self.symbol, self, Entry(*what))

    def _rest(self, order: Order, price: int) -> None:
        super()._rest(order, price)
        self._count(order, order.open_qty, 1)

    def _take_off(self, order: Order, qty: int) -> None:
        super()._take_off(order, qty)
        self._count(order, -qty, 0)

    def _remove(self, order: Order) -> None:
        super()._remove(order)
        self._count(order, -order.open_qty, -1)

    def _clear(self, *_ignored: Any) -> Outcome:
        for order in self.open.values():
            self._count(order, -order.open_qty, -1)
        return super()._clear()

    def _count(self, order: Order, qty: int, orders: int) -> None:
        self.gate.cell(order.account, self.symbol).rests(order.side, order.level.price, qty, orders)

    # -- self-trade prevention

    def _mode(self, account: int) -> str:
        return self.gate.limits.cell(account, self.symbol).self_trade

    def _can_fill(self, side: int, price: int | None, qty: int, account: int) -> bool:
        mode = self._mode(account)
        if mode == "none":
            return super()._can_fill(side, price, qty, account)
        for level in self._reached(side, price):
            for order in level.orders.values():
                if not self.gate.same_owner(account, order.account):
                    qty -= order.open_qty
                    if qty <= 0:
                        return True
                elif mode != "cancel_oldest":
                    return False
        return False

    def _reached(self, side: int, price: int | None) -> Iterable[Level]:
        """The levels an order may trade with, best first."""
        for level in self._half(-side).best_first():
            if price is not None and not crosses(side, price, -side * level.price):
                return
            yield level

    def _enter(
        self, order_id, side, price, qty, account, status_of_rest: int, passive: bool = False
    ) -> Outcome:
        mode = self._mode(account)
        if passive or mode == "none":
            return super()._enter(order_id, side, price, qty, account, status_of_rest, passive)
        fills, leaves, prevented = self._trade_with_others(side, price, qty, account, mode)
        traded = sum(fill.qty for fill in fills)
        taker = (fills, None, order_id, account, side)
        if prevented or (not leaves and traded < qty):
            return Outcome(CANCELLED, traded, 0, *taker)
        if not leaves:
            return Outcome(FILLED, traded, 0, *taker)
        if status_of_rest == EXPIRED:
            return Outcome(EXPIRED, traded, 0, *taker)
        self._rest(Order(order_id, side, leaves, account), price)
        return Outcome(status_of_rest, traded, leaves, *taker)

    def _trade_with_others(
        self, side: int, price: int | None, qty: int, account: int, mode: str
    ) -> tuple[list[Fill], int, bool]:
        """Fills, what is left, and whether meeting the owner's own order has ended the incoming one."""
        fills = []
        while qty and (met := self.first_met(side, price)) is not None:
            if not self.gate.same_owner(account, met.account):
                fills.append(self._trade_with(met.level, met, qty))
                qty = fills[-1].taker_leaves
            elif mode == "cancel_newest":
                return fills, qty, True
            elif mode == "decrement":
                qty -= self._decrement(met, qty)
                if not qty:
                    return fills, 0, True
            else:
                self._cancel_by_gate(SELF_TRADE_CANCEL, met)
                if mode == "cancel_both":
                    return fills, qty, True
        return fills, qty, False

    def _decrement(self, order: Order, qty: int) -> int:
        """Take up to `qty` off a resting order; what was taken."""
        lots = min(qty, order.open_qty)
        self.report(SELF_TRADE_DECREMENT, self.symbol, order.account, order.order_id, lots)
        if lots == order.open_qty:
            self._remove(order)
        else:
            self._take_off(order, lots)
        return lots


class GatedVenue(ReferenceVenue):
    """A venue with limits: the tables of a venue, and `gate` and `positions`."""

    def __init__(
        self,
        tick: int | None = 1,
        allow_nonpositive: bool = False,
        l1: bool = True,
        depth_levels: int = 0,
        limits: Limits | None = None,
        lots: Mapping[str, Fraction] | None = None,
    ) -> None:
        super().__init__(tick, allow_nonpositive, l1, depth_levels)
        self.limits = limits or Limits()
        self.lots = {} if lots is None else lots
        self.gate = Gate(self.limits, tick, self.lots)
        self.events: list[tuple] = []  # the columns of the table `gate`
        self._row: tuple[int, int] = (0, 0)  # seq and ts of the row looked at
        self._touched: set[str] = set()  # symbols whose books the gate has changed since

    def _new_book(self, symbol: str) -> GatedBook:
        return GatedBook(self.tick, self.allow_nonpositive, symbol, self.gate, self._report)

    def _report(self, event, symbol, account, order_id=None, qty=0, limit=None, observed=None) -> None:
        self.events.append((*self._row, symbol, account, int(event), order_id, qty, limit, observed))

    def _run(self, rows: Iterable[tuple]) -> None:
        gate = self.gate
        for seq, (ts, symbol, *command) in enumerate(rows, len(self.outcomes)):
            self._row = (seq, ts)
            book = self.books.get(symbol) or self.book(symbol)
            if gate.reach(seq, ts):
                self._mark()
            gate.note(symbol, command)
            outcome = book.apply(command)
            if command[0] == RISK_CONTROL and outcome.status != REJECTED:
                self._control(symbol, command)
            self._record_outcome(seq, ts, symbol, command, outcome)
            self._touched.add(symbol)
            for touched in sorted(self._touched):
                self._record_market_data(seq, ts, touched, self.books[touched])
            self._touched.clear()

    def _record_fills(self, seq: int, ts: int, symbol: Any, taker: list, fills: list[Fill]) -> None:
        super()._record_fills(seq, ts, symbol, taker, fills)
        _, account, side = taker
        self.gate.filled(symbol, side, account, fills)

    def _control(self, symbol: str, command: list) -> None:
        """A RISK_CONTROL: sets a state, and cancels what is open if it kills."""
        scope, state = divmod(int(command[7]), KILL + 1)
        account = command[8]
        self.gate.control(account, symbol, scope, min(state, HALTED))
        if state == KILL:
            killed = [symbol] if scope == OF_SYMBOL else sorted(self.books)
            for name in killed:
                self._cancel_all(name, KILL_CANCEL, account if scope == OF_ACCOUNT else None)

    def _cancel_all(self, symbol: str, event: GateEvent, account: int | None) -> None:
        if self.books[symbol].cancel_all(event, account):
            self._touched.add(symbol)

    # -- the stop loss

    def _mark(self) -> None:
        """Mark all positions, then look at one stop loss after the other."""
        gate = self.gate
        gate.set_marks(self.books)
        for account in sorted(gate.cells):
            cells = gate.traded(account)
            if not cells:
                continue
            limits = gate.limits.account(account)
            if limits.stop_loss_scope == "account":
                profit = sum(gate.profit(*cell) for cell in cells)
                self._judge(account, None, gate.watches[account], profit)
            else:
                for symbol, cell in cells:
                    self._judge(account, symbol, cell.watch, gate.profit(symbol, cell))

    def _judge(self, account: int, symbol: str | None, watch: Watch, profit: Fraction) -> None:
        """One stop loss, of an account or, with a symbol, of a position; the profit rounds toward zero."""
        limits = self.gate.limits.account(account)
        if not watch.strikes(limits.capital + int(profit), limits.capital, limits.stop_loss_percentage):
            return
        self._report(STOP_LOSS, symbol, account, limit=watch.struck_at, observed=watch.equity)
        if limits.stop_loss_action == "close":
            cells = self.gate.cells[account]
            for name in [symbol] if symbol is not None else sorted(cells):
                self._close(account, name, cells[name])

    def _close(self, account: int, symbol: str, cell: Cell) -> None:
        """Cancel what is open and trade the position away."""
        self._cancel_all(symbol, STOP_CANCEL, account)
        if not cell.position:
            return
        side = -1 if cell.position > 0 else 1
        outcome = self.books[symbol]._enter(0, side, None, abs(cell.position), account, EXPIRED)
        if outcome.fills:
            self._record_fills(*self._row, symbol, [0, account, side], outcome.fills)
        self._report(STOP_CLOSE, symbol, account, qty=outcome.filled_qty)
        self._touched.add(symbol)

    # -- tables

    def positions(self) -> list[tuple]:
        """The columns of `positions.COLUMNS`, from the fills and the open orders."""
        return positions.of_fills(self.fills, self.final_book(), self.limits, self.lots)

    def pnl(self) -> list[tuple]:
        """The columns of `positions.CHANGE_COLUMNS`."""
        return positions.changes(self.fills, self.limits, self.lots)
