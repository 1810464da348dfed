"""The risk gate for one tape: what the kernels read by row, and what they write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from hftlab.codes import Action
from hftlab.kernels.primitives import memory
from hftlab.kernels.risk_gate import gate as kernel
from hftlab.kernels.risk_gate import row_checks
from hftlab.kernels.risk_gate.gate import EVENT, MONEY, REFUSAL, Gate
from hftlab.kernels.risk_gate.risk import Risk
from hftlab.risk_gate.manager import RiskManager
from hftlab.risk_gate.message_times import NO_MESSAGES, Messages, a_second_before
from hftlab.tape.tables import ABSENT, frozen
from hftlab.tape.tape import Tape

OWN_ROOM = 1 << 12  # stop losses and closing orders


@dataclass(frozen=True)
class GateOutputs:
    """What the gate said about a tape."""

    refusals: np.ndarray  # REFUSAL by input row: with limit and observed value
    events: np.ndarray  # EVENT in input order; `row` is the input row
    holdings: np.ndarray  # HOLDING, to look accounts and books of events up
    numbers: np.ndarray  # int32: account numbers by HOLDING's `account`
    messages: Callable[[], Messages]  # to count them, should somebody ask


class GateRun:
    """The gate for one tape: what the kernels read by row, and what they write."""

    def __init__(self, manager: RiskManager, tape: Tape, nodes: int, first_node: int) -> None:
        self.manager, self.tape = manager, tape
        columns, opening = tape.checked.columns, tape.opening
        manager.know_symbols(tape.symbols)
        self.row_holdings = manager.holdings_of(columns.account, columns.book, tape.rows)
        self.row_reasons = memory.empty(tape.rows, np.uint8)
        order_holdings = memory.zeros(nodes, np.int32)
        order_holdings[first_node : first_node + opening.count] = manager.holdings_of(
            frozen(opening.account, "i4"), frozen(opening.book, "i4"), opening.count
        )
        counts = np.zeros(kernel.COUNTS, np.int64)
        counts[kernel.TRACKS_NOTIONAL] = "max_open_notional" in manager.limits.uses
        counts[kernel.CHECKS_PORTFOLIO] = "max_portfolio_value" in manager.limits.uses
        counts[kernel.OWN_ROOM] = OWN_ROOM + 2 * manager.holdings.size
        self.own_room = int(counts[kernel.OWN_ROOM])
        orders, order = 2 * tape.incoming + opening.count, tape.commands.order
        has_stops = "stop_loss_percentage" in manager.limits.uses
        self.early_refusals = memory.empty(tape.rows, REFUSAL)
        manager.clock[row_checks.REFUSED] = 0
        self.refused_early = 0
        self.gate = Gate(
            manager.holdings,
            manager.money,
            manager.accounts,
            manager.symbols,
            manager.sets,
            order_holdings,
            self.row_holdings[order] if order.size else self.row_holdings,
            memory.empty(tape.rows, np.uint8) if order.size else self.row_reasons,
            np.zeros(0, np.int32),
            frozen(manager.stop_order(), "i4") if has_stops else ABSENT["i4"],  # whom to judge at marks
            manager.by_name(),
            self._marks(),
            memory.empty(tape.incoming, REFUSAL),
            memory.empty(orders + self.own_room, EVENT),
            counts,
        )

    def _marks(self) -> np.ndarray:
        if not self.manager.has_money:
            return ABSENT["i8"]
        checked, found = self.tape.checked, np.empty(self.tape.rows, np.int64)
        interval = np.int64(self.manager.limits.mark_interval)
        clock = self.manager.mark_clock
        count = row_checks.marking_rows(checked.ts, checked.first_row, self.tape.rows, interval, clock, found)
        return frozen(found[:count].copy(), "i8")

    def pieces(self) -> Sequence[tuple[int, int]]:
        """Runs of rows in which the limits do not change."""
        changes = [row for row, _ in self.manager.changes]
        at = np.searchsorted(self.tape.seqs, changes).tolist() if changes else []
        bounds = [0, *at, self.tape.rows]
        return list(pairwise(bounds))

    def change_limits(self, start: int, stop: int) -> None:
        """Bring what changes at or before the first of rows [start, stop) into force."""
        changes = self.manager.changes
        seq = int(self.tape.seq(np.array([start]))[0]) if start < stop else 0
        while start < stop and changes and changes[0][0] <= seq:
            self.manager.change(changes.pop(0)[1])
            self.gate = self.gate._replace(limits=self.manager.sets)

    def risk(self) -> Risk:
        """The gate of the event path."""
        state = self.manager.intake._replace(refusals=self.early_refusals)
        return Risk(self.gate._replace(row_holdings=self.row_holdings), state)

    def follow_nodes(self, nodes: int) -> None:
        """There is room for more orders now."""
        longer = np.zeros(nodes, np.int32)
        longer[: self.gate.order_holdings.size] = self.gate.order_holdings
        self.gate = self.gate._replace(order_holdings=longer)

    def make_own_room(self) -> int:
        """More room for what the gate does by itself; how much more."""
        self.gate, more = self.make_room(self.gate)
        return more

    def look_at(self, start: int, stop: int) -> None:
        """Decide the first seven checks for rows [start, stop)."""
        manager, checked = self.manager, self.tape.checked
        self.change_limits(start, stop)
        manager.clock[row_checks.REFUSED] = 0
        while start < stop:
            refusals = self.early_refusals[self.refused_early :]
            start = row_checks.check_rows(
                manager.intake._replace(refusals=refusals),
                checked.columns,
                checked.ts,
                checked.first_row,
                self.row_holdings,
                self.row_reasons,
                start,
                stop,
            )
            self.refused_early += int(manager.clock[row_checks.REFUSED])
            manager.clock[row_checks.REFUSED] = 0
            if start < stop:
                manager.grow_intake()
        if self.tape.commands.order.size:
            np.take(self.row_reasons, self.tape.commands.order, out=self.gate.row_reasons, mode="clip")

    def with_limits(self, gate: Gate) -> Gate:
        """A thread's gate with the limits in force."""
        return gate._replace(limits=self.manager.sets)

    def own(self, room: int, gate: Gate | None = None) -> Gate:
        """The gate of one thread among several: what it says is written apart."""
        gate = gate if gate is not None else self.gate
        return gate._replace(
            refusals=np.empty(room, REFUSAL),
            events=np.empty(room, EVENT),
            counts=gate.counts.copy(),
        )

    def apart(self) -> Gate:
        """The gate of threads for which the limits that tie instruments together don't bind."""
        rows = self.tape.rows if self.gate.counts[kernel.CHECKS_PORTFOLIO] or self.has_struck else 0
        return self.gate._replace(
            money=np.zeros(0, MONEY),
            accounts=self.manager.accounts.copy(),  # a RISK_CONTROL lifts stops: the audit sees to that
            owners=np.zeros(rows, np.int32),
            stop_order=ABSENT["i4"],
            marks=ABSENT["i8"],
        )

    def in_order(self, places: np.ndarray, first: int) -> Gate:
        """The gate of a run in input order from a row on; `places` are those of the rows on the tape."""
        marks = self.gate.marks[np.searchsorted(self.gate.marks, first) :]
        counts = self.gate.counts.copy()
        counts[kernel.NEXT_MARK] = 0
        return self.gate._replace(marks=frozen(places[marks], "i8"), counts=counts)

    @property
    def has_struck(self) -> bool:
        """Whether some stop loss has struck and not been lifted."""
        return bool(self.manager.accounts["stopped"].any() or self.manager.holdings["stopped"].any())

    def make_room(self, gate: Gate) -> tuple[Gate, int]:
        """A gate with more room for what it does by itself, and how much more."""
        more = int(gate.counts[kernel.OWN_ROOM])
        gate.counts[kernel.OWN_ROOM] += more
        events = np.empty(gate.events.size + more, EVENT)
        events[: gate.events.size] = gate.events
        return gate._replace(events=events), more

    def outputs(self, gates: list[Gate], events: bool = False) -> GateOutputs:
        """What the gates of all threads have said; `events` says that it was the event path."""
        if events:
            self.refused_early = int(self.manager.clock[row_checks.REFUSED])
        refusals, told = [self.early_refusals[: self.refused_early]], []
        for gate in gates:
            for parts, records, count in (
                (refusals, gate.refusals, gate.counts[kernel.REFUSALS]),
                (told, gate.events, gate.counts[kernel.EVENTS]),
            ):
                said = records[:count]
                if self.tape.commands.order.size and not events:
                    said["row"] = self.tape.input_rows(said["row"])
                parts.append(said)
        said = np.concatenate(told)
        said = said[np.argsort(said["row"], kind="stable")] if len(gates) > 1 else said
        if not events:  # there, the kernel knew the ids
            ordered = said["node"] >= 0
            said["order_id"][ordered] = self.tape.ids(said["entry"][ordered])
        manager = self.manager
        before = manager.recent
        manager.recent = self._recent(before)
        return GateOutputs(
            np.concatenate(refusals),
            said,
            manager.holdings,
            manager.accounts["number"],
            partial(self._messages, before),
        )

    def _times(self) -> np.ndarray:
        """Of each row, ns, as the flow says them."""
        first, ts = self.tape.checked.first_row, self.tape.checked.ts
        return ts if ts.size else np.arange(first, first + self.tape.rows)

    def _messages(self, before: Messages, first: int = 0) -> Messages:
        """Those of the rows from `first` on, behind those of `before`."""
        if "max_orders_per_second" not in self.manager.limits.uses:
            return NO_MESSAGES
        checked = self.tape.checked
        times = np.maximum.accumulate(np.concatenate([before.times, self._times()[first:]]))
        accounts = self.manager.terms["account"][self.row_holdings[first:]]
        accounts = np.where(checked.columns.action[first:] == Action.RISK_CONTROL, -1, accounts)
        return Messages(times, np.concatenate([before.accounts, accounts]), before.times.size)

    def _recent(self, before: Messages) -> Messages:
        """Those of the last second, without going through all where none of `before` is among them."""
        times = self._times()
        if not times.size or "max_orders_per_second" not in self.manager.limits.uses:
            return before
        oldest = a_second_before(times.max())
        if before.times.size and before.times[-1] > oldest:
            return self._messages(before).recent()
        return self._messages(NO_MESSAGES, int(np.argmax(times > oldest))).recent()
