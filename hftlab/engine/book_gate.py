"""The risk gate of one `OrderBook`: the state that kernels find at an address, and what it tells.

It is a `RiskManager` for one symbol, with what a batch knows beforehand growing on the way: holdings, when an
account is new; the table of repeated orders; the messages of the last second.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hftlab.codes import GateEvent, Reason, RiskState
from hftlab.config.lot_values import ONE
from hftlab.engine.live_books import Venue
from hftlab.kernels.book.ladder import never_open
from hftlab.kernels.engine import gated_event, live_books
from hftlab.kernels.engine.event import NEEDS_HOLDING, NEEDS_INTAKE, NEEDS_LIMITS, NEEDS_MESSAGES
from hftlab.kernels.engine.gated_event import Guard
from hftlab.kernels.risk_gate import gate as kernel
from hftlab.kernels.risk_gate import row_checks
from hftlab.kernels.risk_gate.gate import EVENT, REFUSAL
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.tables import ABSENT

FIRST_MESSAGES = 1 << 10
NEVER = -1  # no command has this number
_OF_THIS_PROCESS = frozenset({"venue", "guard", "address", "_block", "_events", "_node_cells", "_followed"})
OF_TIME = frozenset({"max_orders_per_second", "max_repeated_orders"})  # keys that ask for the time


class Position(NamedTuple):
    """An account in the symbol of a book, as the risk gate sees it."""

    position: int  # lots bought less lots sold
    open_buy: int  # lots of its resting orders
    open_sell: int
    open_orders: int
    open_notional: int | None  # 1e-9, rounded down; kept only where `max_open_notional` is given
    state: RiskState  # the most severe of the account's, the symbol's and that of everything
    stopped: bool  # whether a stop loss has struck


class Intervention(NamedTuple):
    """What the risk gate did by itself; the columns are those of the table `gate`."""

    ts: int  # ns: of the command it came with, or before
    account: int
    event: GateEvent
    order_id: int | None  # None for STOP_LOSS and STOP_CLOSE
    qty: int  # lots cancelled or decremented; of STOP_CLOSE what it traded
    limit_value: int | None  # of STOP_LOSS
    observed_value: int | None
    fills: tuple  # of STOP_CLOSE


class BookGate:
    """Limits, accounts and positions in front of one book."""

    def __init__(self, manager: RiskManager, symbol: str, venue: Venue) -> None:
        """A gate in front of a venue of one book; what rests there already counts for its owners."""
        self.manager, self.venue = manager, venue
        self.interventions: list[Intervention] = []
        self.asks_time = manager.has_money or bool(OF_TIME & manager.limits.uses)
        manager.know_symbols((symbol,))
        uses = manager.limits.uses
        self.counts = np.zeros(kernel.COUNTS, np.int64)
        self.counts[kernel.TRACKS_NOTIONAL] = "max_open_notional" in uses
        self.counts[kernel.CHECKS_PORTFOLIO] = "max_portfolio_value" in uses
        self.calls = np.zeros(gated_event.CALLS, np.int64)
        self._refusals = np.zeros(1, REFUSAL)
        messages = FIRST_MESSAGES if "max_orders_per_second" in uses else 0
        self._times, self._senders = np.zeros(messages, np.int64), np.zeros(messages, np.int32)
        self._recent = np.zeros(0, np.int64)
        self._order_holdings, self._followed = np.zeros(0, np.int32), None
        self.know(np.array(manager.limits.accounts, np.int32))
        self._await_change()
        self.follow_nodes()

    def copy(self, venue: Venue) -> BookGate:
        """The same state in front of another venue with the same orders."""
        other = copy.copy(self)
        other.manager, other.venue = self.manager.copy(), venue
        other.interventions = self.interventions.copy()
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(other, name, value.copy())
        other._followed = None
        other.follow_nodes()
        return other

    def state(self) -> dict[str, Any]:
        """What another process needs to go on: everything but addresses, and what follows from the venue."""
        ours = {name: value for name, value in vars(self).items() if name not in _OF_THIS_PROCESS}
        return copy.deepcopy(ours)

    @classmethod
    def of_state(cls, state: dict[str, Any], venue: Venue) -> BookGate:
        """The gate of a state, in front of a venue with the same orders."""
        gate = cls.__new__(cls)
        vars(gate).update(state, venue=venue, _node_cells=np.zeros(0, np.int32), _followed=None)
        gate.follow_nodes()
        return gate

    # -- what kernels find

    def follow_nodes(self) -> None:
        """The venue has new arrays: its orders stand elsewhere, or there is room for more of them."""
        arrays = self.venue.arrays
        if self._order_holdings.size != arrays.orders.size or self._followed is not arrays.orders:
            first = never_open(arrays.levels.size) + 1
            nodes = first + np.flatnonzero(arrays.orders["qty"][first:])
            holdings = self.know(arrays.accounts[nodes])
            self._order_holdings = np.zeros(arrays.orders.size, np.int32)
            self._order_holdings[nodes] = holdings
            self._followed = arrays.orders
        self.take_place()

    def know(self, accounts: np.ndarray) -> np.ndarray:
        """The holdings of accounts, made where there are none."""
        manager = self.manager
        holdings = manager.holdings_of(accounts, ABSENT["i4"], accounts.size)
        more = manager.accounts.size - self._recent.size
        self._recent = np.append(self._recent, np.zeros(more, np.int64))
        return holdings

    def take_place(self) -> None:
        """Make these the arrays that kernels find at `address`, with room for what one command may do.

        The gate may cancel every order, and close the position of every account.
        """
        manager, venue = self.manager, self.venue
        if venue.spare_fills < 2 * manager.holdings.size:
            venue.grow_fills(4 * manager.holdings.size - venue.spare_fills, venue.arrays.fills.size)
        self._events = np.empty(venue.slots + 4 * manager.holdings.size, EVENT)
        self.calls[gated_event.LIVE_BOOKS] = venue.address
        self.guard = Guard(
            self.calls,
            manager.holdings,
            manager.money,
            manager.accounts,
            manager.symbols,
            manager.sets,
            self._order_holdings,
            manager.stop_order() if manager.has_money else ABSENT["i4"],
            manager.by_name(),
            self._events,
            self.counts,
            manager.index,
            manager.rings,
            manager.repeats,
            manager.clock,
            self._refusals,
            self._times,
            self._senders,
            self._recent,
            manager.terms,
        )
        self._block = live_books.block_of(self.guard)
        self.address = self._block.ctypes.data

    def _await_change(self) -> None:
        changes = self.manager.changes
        self.calls[gated_event.NEXT_CHANGE] = changes[0][0] if changes else NEVER

    # -- what kernels need

    def serve(self, need: int, account: int) -> None:
        """Give what a command of an account needs before it can be looked at."""
        manager = self.manager
        if need == NEEDS_HOLDING:
            self.know(np.array([account], np.int32))
        elif need == NEEDS_INTAKE:
            manager.grow_intake()
        elif need == NEEDS_MESSAGES:
            self._grow_messages()
        elif need == NEEDS_LIMITS:
            manager.change(manager.changes.pop(0)[1])
            self._await_change()

    def _grow_messages(self) -> None:
        """Twice the room for messages of the last second, the oldest at the start."""
        size, oldest = self._times.size, int(self.calls[gated_event.OLDEST])
        for name in ("_times", "_senders"):
            old = getattr(self, name)
            longer = np.zeros(2 * size, old.dtype)
            longer[:size] = np.roll(old, -oldest)
            setattr(self, name, longer)
        self.calls[gated_event.OLDEST] = 0

    # -- what kernels tell

    def refusal(self, reason: Reason, account: int) -> tuple[int | None, int]:
        """(limit, observed value) of the command that was just refused for a reason."""
        _, limit, observed = self._refusals[0].tolist()
        if reason is Reason.RATE_LIMIT:
            observed = int(self._recent[self.manager.numbers[account]])
        return None if reason is Reason.UNKNOWN_ACCOUNT else limit, observed

    def take(self, ts: int, fills: Sequence[Any]) -> None:
        """Note what the gate has done by itself, where `fills` are those of its own orders."""
        count, done = int(self.counts[kernel.EVENTS]), 0
        told = self._events[:count]
        numbers = self.manager.accounts["number"][self.manager.holdings["account"][np.abs(told["holding"])]]
        for account, (_, kind, _, node, order_id, _, _, qty, *values) in zip(
            numbers.tolist(), told.tolist(), strict=True
        ):
            event, first, left = GateEvent(kind), done, qty
            while event is GateEvent.STOP_CLOSE and left > 0:
                left -= fills[done].qty
                done += 1
            self.interventions.append(
                Intervention(
                    ts,
                    account,
                    event,
                    order_id % 2**64 if node >= 0 else None,
                    qty,
                    *(values if event is GateEvent.STOP_LOSS else (None, None)),
                    tuple(fills[first:done]),
                )
            )
        self.counts[[kernel.EVENTS, kernel.OWN]] = 0

    def position(self, account: int) -> Position:
        """What an account holds, and what may become of it."""
        manager, place = self.manager, self.manager.numbers.get(account)
        state = max(int(manager.symbols["state"][0]), int(manager.clock[row_checks.ALL_STATE]))
        if place is None:
            return Position(0, 0, 0, 0, 0 if self._tracks_notional else None, RiskState(state), False)
        holding, own = (
            manager.holdings[place + 1],
            manager.accounts[place],
        )  # one book: one each
        held = (int(holding[name]) for name in ("position", "open_buy", "open_sell", "open_orders"))
        notional = self._open_notional(holding) if self._tracks_notional else None
        stopped = bool(holding["stopped"] or own["stopped"])
        return Position(*held, notional, RiskState(max(state, int(own["state"]))), stopped)

    def _open_notional(self, holding: np.void) -> int:
        """Money of a holding's open orders, 1e-9."""
        high, low = int(holding["open_notional_high"]), int(holding["open_notional_low"])
        return ((high << 64) + low % 2**64) * int(self.manager.symbols["lot"][0]) // ONE

    @property
    def _tracks_notional(self) -> bool:
        return bool(self.counts[kernel.TRACKS_NOTIONAL])


__all__ = ["BookGate", "Intervention", "Position"]
