"""The risk gate over one tape: what its rows mean to the gate, and the state that all workers share.

`GateRun` numbers the holdings (an account in a symbol) of all rows, `RowChecks` decides what follows from the
rows alone. Each worker takes the shared state `with_buffers` of its own for what it writes; `outputs` brings
these together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from hftlab.kernels.engine.event import NEEDS_INTAKE
from hftlab.kernels.primitives import memory
from hftlab.kernels.risk_gate import gate as kernel
from hftlab.kernels.risk_gate import row_checks
from hftlab.kernels.risk_gate.gate import EVENT, MONEY, REFUSAL, Gate
from hftlab.risk_gate.manager import RiskManager
from hftlab.risk_gate.message_times import NO_MESSAGES, Messages, RowMessages
from hftlab.tape.tables import ABSENT, frozen
from hftlab.tape.tape import Tape

OWN_ROOM = 1 << 12  # stop losses and closing orders


@dataclass(frozen=True)
class GateOutputs:
    """What the gate wrote about a tape."""

    refusals: np.ndarray  # REFUSAL by input row: with limit and observed value
    events: np.ndarray  # EVENT in input order; `row` is the input row
    holdings: np.ndarray  # HOLDING, to look accounts and books of events up
    numbers: np.ndarray  # int32: account numbers by HOLDING's `account`
    messages: Callable[[], Messages]  # to count them, should somebody ask


class RowChecks:
    """Checks 1 to 7 of docs/RISK.md: a worker that decides them by row, with the memory of the manager."""

    def __init__(self, manager: RiskManager, tape: Tape, row_holdings: np.ndarray) -> None:
        self.step = tape.rows  # at once: a pass over the rows takes a small part of a run
        self.reasons = memory.empty(tape.rows, np.uint8)  # of a refusal, by row; see row_checks.py
        self.refusals = memory.empty(tape.rows, REFUSAL)
        self.refused = 0  # refusals so far
        self._manager, self._checked, self._row_holdings = manager, tape.checked, row_holdings
        manager.clock[row_checks.REFUSED] = 0

    def apply(self, start: int, stop: int) -> tuple[int, int]:
        """Check rows [start, stop): (rows done, what has to grow before the next, or 0)."""
        manager, checked = self._manager, self._checked
        done = row_checks.check_rows(
            manager.intake._replace(refusals=self.refusals[self.refused :]),
            checked.columns,
            checked.ts,
            checked.first_row,
            self._row_holdings,
            self.reasons,
            start,
            stop,
        )
        self.refused += int(manager.clock[row_checks.REFUSED])
        manager.clock[row_checks.REFUSED] = 0
        return done - start, NEEDS_INTAKE if done < stop else 0

    def grow(self, _need: int) -> None:
        """More memory for messages or repeated orders: there is no other need."""
        self._manager.grow_intake()


class GateRun:
    """The gate of one tape: holdings by row, row checks, and the state that the gates of workers share."""

    def __init__(
        self, manager: RiskManager, tape: Tape, marks: np.ndarray, order_slots: int, first_slot: int
    ) -> None:
        """A gate that marks positions before the rows `marks`, in front of books of so many `order_slots`.

        The orders that rest before the first row have the slots from `first_slot` on.
        """
        self.manager, self.tape = manager, tape
        columns, opening = tape.checked.columns, tape.opening
        manager.know_symbols(tape.symbols)
        self.row_holdings = manager.holdings_of(columns.account, columns.book, tape.rows)
        slot_holdings = memory.zeros(order_slots, np.int32)
        slot_holdings[first_slot : first_slot + opening.count] = manager.holdings_of(
            frozen(opening.account, "i4"), frozen(opening.book, "i4"), opening.count
        )
        self.checks = RowChecks(manager, tape, self.row_holdings)
        self.shared = self._shared(slot_holdings, marks)

    def _shared(self, slot_holdings: np.ndarray, marks: np.ndarray) -> Gate:
        """The gate as the kernels of all workers take it, without buffers to write to."""
        manager, order = self.manager, self.tape.commands.order
        has_stops = "stop_loss_percentage" in manager.limits.uses
        return Gate(
            manager.holdings,
            manager.money,
            manager.accounts,
            manager.symbols,
            manager.sets,
            slot_holdings,
            self.row_holdings[order] if order.size else self.row_holdings,
            memory.empty(self.tape.rows, np.uint8) if order.size else self.checks.reasons,
            np.zeros(0, np.int32),
            frozen(manager.stop_order(), "i4") if has_stops else ABSENT["i4"],  # whom to judge at marks
            manager.by_name(),
            marks,
            np.zeros(0, REFUSAL),
            np.zeros(0, EVENT),
            self._counts(),
        )

    def _counts(self) -> np.ndarray:
        uses, counts = self.manager.limits.uses, np.zeros(kernel.COUNTS, np.int64)
        counts[kernel.TRACKS_NOTIONAL] = "max_open_notional" in uses
        counts[kernel.CHECKS_PORTFOLIO] = "max_portfolio_value" in uses
        counts[kernel.OWN_ROOM] = OWN_ROOM + 2 * self.manager.holdings.size
        return counts

    # -- the shared gate for each kind of worker

    def by_row(self) -> Gate:
        """For the event path, which goes by row wherever that is on the tape."""
        return self.shared._replace(row_holdings=self.row_holdings)

    def unbound(self) -> Gate:
        """For workers side by side, without the limits that tie instruments together: an audit sees to them.

        They share one array of owners, where there is something to audit by it.
        """
        needs_owners = self.shared.counts[kernel.CHECKS_PORTFOLIO] or self.has_struck
        return self.shared._replace(
            money=np.zeros(0, MONEY),
            accounts=self.manager.accounts.copy(),  # a RISK_CONTROL lifts stops: the audit sees to that
            owners=np.zeros(self.tape.rows if needs_owners else 0, np.int32),
            stop_order=ABSENT["i4"],
            marks=ABSENT["i8"],
        )

    def in_order(self, index_of_row: np.ndarray, first: int) -> Gate:
        """For a worker in input order from the row `first` on."""
        marks = self.shared.marks[np.searchsorted(self.shared.marks, first) :]
        return self.shared._replace(marks=frozen(index_of_row[marks], "i8"))

    @property
    def has_struck(self) -> bool:
        """Whether some stop loss has struck and not been lifted."""
        return bool(self.manager.accounts["stopped"].any() or self.manager.holdings["stopped"].any())

    def place_reasons(self) -> None:
        """Put the reasons of row checks where workers look for them: in the order of the tape."""
        order = self.tape.commands.order
        if order.size:
            np.take(self.checks.reasons, order, out=self.shared.row_reasons, mode="clip")

    # -- what came of it

    def outputs(self, gates: list[Gate]) -> GateOutputs:
        """What the gates of workers have written; their rows and orders become those of the input."""
        refusals = [self._by_input_row(refusals_of(gate)) for gate in gates]
        events = np.concatenate([self._by_input_row(events_of(gate)) for gate in gates])
        if len(gates) > 1:
            events = events[np.argsort(events["row"], kind="stable")]
        has_order = events["node"] >= 0
        events["order_id"][has_order] = self.tape.ids(events["entry"][has_order])
        return self._outputs([self.checks.refusals[: self.checks.refused], *refusals], events)

    def event_outputs(self, gate: Gate) -> GateOutputs:
        """What the gate of the event path has written, which knows rows and order ids."""
        refused = int(self.manager.clock[row_checks.REFUSED])
        return self._outputs([self.checks.refusals[:refused], refusals_of(gate)], events_of(gate).copy())

    def _by_input_row(self, records: np.ndarray) -> np.ndarray:
        if self.tape.commands.order.size:
            records["row"] = self.tape.input_rows(records["row"])
        return records

    def _outputs(self, refusals: list[np.ndarray], events: np.ndarray) -> GateOutputs:
        manager = self.manager
        return GateOutputs(
            np.concatenate(refusals), events, manager.holdings, manager.accounts["number"], self._messages()
        )

    def _messages(self) -> Callable[[], Messages]:
        """What lists the messages up to the last row; the manager keeps those of the last second."""
        manager, before = self.manager, self.manager.recent
        if "max_orders_per_second" not in manager.limits.uses:
            return lambda: NO_MESSAGES
        messages = RowMessages(self.tape.checked, self.row_holdings, manager.terms["account"])
        manager.recent = messages.recent(before)
        return partial(messages.after, before)


# ------------------------------------------------------------------ buffers of one worker


def own_room(gate: Gate) -> int:
    """How many events, and fills, there is room for of what the gate does by itself."""
    return int(gate.counts[kernel.OWN_ROOM])


def with_buffers(gate: Gate, orders: int, events: int) -> Gate:
    """A gate that writes to buffers of its own: refusals of so many orders, and events.

    There is room for so many `events` that come with commands, and for what the gate does by itself.
    """
    return gate._replace(
        refusals=memory.empty(orders, REFUSAL),
        events=np.empty(events + own_room(gate), EVENT),  # few are ever written: not worth a kept block
        counts=gate.counts.copy(),
    )


def with_more_room(gate: Gate) -> tuple[Gate, int]:
    """A gate with more room for what it does by itself, and how much more."""
    more = own_room(gate)
    gate.counts[kernel.OWN_ROOM] += more
    events = np.empty(gate.events.size + more, EVENT)
    events[: gate.events.size] = gate.events
    return gate._replace(events=events), more


def refusals_of(gate: Gate) -> np.ndarray:
    """The refusals that a gate has written."""
    return gate.refusals[: gate.counts[kernel.REFUSALS]]


def events_of(gate: Gate) -> np.ndarray:
    """The events that a gate has written."""
    return gate.events[: gate.counts[kernel.EVENTS]]
