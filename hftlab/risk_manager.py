"""The state of the risk gate over a flow: accounts, positions, message rates, limits in force.

A `RiskManager` outlives the pieces a flow is cut into. For each tape it makes a `GateRun`: what the kernels
need to know by row, and room for what they say.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from hftlab.codes import Action, RiskControl
from hftlab.kernels.engine.event import Risk
from hftlab.kernels.primitives import memory
from hftlab.kernels.primitives.hash_index import copy_index, make_index
from hftlab.kernels.risk_gate import gate as kernel
from hftlab.kernels.risk_gate import repeated_orders, row_checks
from hftlab.kernels.risk_gate.gate import ACCOUNT, CELL, EVENT, MONEY, REFUSAL, SYMBOL, Gate
from hftlab.kernels.risk_gate.records import FIXED, LIMIT
from hftlab.kernels.risk_gate.repeated_orders import NO_TIME, REPEAT
from hftlab.kernels.risk_gate.row_checks import TERM, Intake
from hftlab.limits import Limits
from hftlab.messages import NO_MESSAGES, Messages, a_second_before
from hftlab.tables import ABSENT, CheckedTable, frozen
from hftlab.tape import Tape

FIRST_CELLS, FIRST_REPEATS = 1 << 10, 1 << 14
FIRST_MESSAGES = 16  # times of messages an account has room for; a power of two
RINGS = 4  # as much room for them as accounts start with, so that they may ask for more
LOT = 1 << 16  # cells
NEAR = 1 << 20  # cells of a table of all accounts and books: 4 MB
OWN_ROOM = 1 << 12  # stop losses and closing orders


@dataclass(frozen=True)
class GateOutputs:
    """What the gate said about a tape."""

    refusals: np.ndarray  # REFUSAL by input row: with limit and observed value
    events: np.ndarray  # EVENT in input order; `row` is the input row
    cells: np.ndarray  # CELL, to look accounts and books of events up
    numbers: np.ndarray  # int32: account numbers by CELL's `account`
    messages: Callable[[], Messages]  # to count them, should somebody ask


class RiskManager:
    """Accounts and cells (an account in a symbol) with their limits and what they hold."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.changes = list(limits.changes)
        self.has_money = limits.ties_instruments
        self.index = make_index(FIRST_CELLS)
        self.known = 1  # cells, the one of nobody included
        self.cells, self.terms = np.zeros(1, CELL), np.zeros(1, TERM)
        self.money = np.zeros(1 if self.has_money else 0, MONEY)
        self.accounts = np.zeros(0, ACCOUNT)
        self.numbers: dict[int, int] = {}  # account -> its place in `accounts`
        self.groups: dict[int, int] = {}
        self.group_of = np.zeros(0, np.int32)
        self.names: tuple[str, ...] = ()
        self.symbols = np.zeros(0, SYMBOL)
        self.sets = np.zeros(0, LIMIT)
        self.rings = np.zeros(0, np.int64)
        self.repeats = np.zeros(FIRST_REPEATS if "max_repeated_orders" in limits.uses else 0, REPEAT)
        self.clock = np.zeros(row_checks.CLOCK, np.int64)
        self.clock[[row_checks.TIME, repeated_orders.PERIOD, repeated_orders.BEFORE]] = NO_TIME
        self.clock[repeated_orders.WINDOW] = limits.repeated_order_window
        self.clock[row_checks.REFUSES_UNKNOWN] = limits.unknown_reject
        self.clock[row_checks.KEEPS_ALL] = bool(self.changes)
        self.clock[row_checks.INTERVAL] = limits.mark_interval if self.has_money else 0
        self.clock[row_checks.NEXT_MARK_TIME] = NO_TIME
        self.mark_clock = np.zeros(2, np.int64)
        self.recent = NO_MESSAGES  # those of the last second

    def copy(self) -> RiskManager:
        """The same state once more, for a run that is to be repeated."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray | list | dict):
                setattr(other, name, value.copy())
        return other

    def restore(self, before: RiskManager) -> None:
        """Become again what this was when `before` was copied."""
        vars(self).update(vars(before.copy()))

    # -- who there is

    def know_symbols(self, names: tuple[str, ...]) -> None:
        """Follow the symbols of a flow; books keep their numbers."""
        more = names[len(self.names) :]
        if not more:
            return
        references = self.limits.references(more)
        new = np.zeros(len(more), SYMBOL)
        new["kind"], new["fixed"] = references["kind"], references["price"]
        fixed = references["kind"] == FIXED
        new["mark"], new["has_mark"] = np.where(fixed, references["price"], 0), fixed
        self.names, self.symbols = names, np.concatenate([self.symbols, new])

    def cells_of(self, accounts: np.ndarray, books: np.ndarray, rows: int) -> np.ndarray:
        """The cell of each row, made where there is none; a column that is absent means 0."""
        cells, done = memory.empty(rows, np.int32), 0
        new, first = np.empty((rows, 2), np.int32), self.known
        near, lowest = _near(accounts, books, rows)
        while True:
            done, self.known = row_checks.number_cells(
                accounts, books, self.index, near, lowest, self.known, done, cells, new[self.known - first :]
            )
            if done == rows:
                break
            larger = make_index(self.index.size)
            copy_index(self.index, larger)
            self.index = larger
        if self.known > first:
            self._make_cells(*new[: self.known - first].T)
        return cells

    def _make_cells(self, numbers: np.ndarray, books: np.ndarray) -> None:
        """Cells of these accounts and books, in lots: looking limits up takes room for each of a lot."""
        first, more = self.cells.size, numbers.size
        self.cells, self.terms = _longer(self.cells, more), _longer(self.terms, more)
        if self.has_money:
            self.money = _longer(self.money, more)
        for start in range(0, more, LOT):
            stop = min(start + LOT, more)
            self._fill_cells(slice(first + start, first + stop), numbers[start:stop], books[start:stop])

    def _fill_cells(self, which: slice, numbers: np.ndarray, books: np.ndarray) -> None:
        there, first, place = np.unique(numbers, return_index=True, return_inverse=True)
        fresh = [n for n in there[np.argsort(first)].tolist() if n not in self.numbers]
        if fresh:
            self._add_accounts(np.array(fresh, np.int32))
        cells = self.cells[which]
        cells["account"] = np.array([self.numbers[n] for n in there.tolist()], np.int32)[place]
        cells["book"] = books
        cells["group"] = self.group_of[cells["account"]]
        self.terms["account"][which] = cells["account"]
        self._set_cell_limits(which)
        if self.has_money:
            capital = self.accounts["capital"][cells["account"]]
            self.money["peak"][which] = self.money["equity"][which] = capital

    def _add_accounts(self, numbers: np.ndarray) -> None:
        first = self.accounts.size
        self.numbers |= {number: first + i for i, number in enumerate(numbers.tolist())}
        self.accounts = np.concatenate([self.accounts, np.zeros(numbers.size, ACCOUNT)])
        accounts = self.accounts[first:]
        accounts["number"] = numbers
        limits = self._set_account_limits(slice(first, None))
        accounts["capital"] = accounts["equity"] = accounts["peak"] = limits["capital"]
        if "max_orders_per_second" in self.limits.uses:
            accounts["room"] = FIRST_MESSAGES
            accounts["ring"] = self._more_rings(numbers.size * FIRST_MESSAGES) + FIRST_MESSAGES * np.arange(
                numbers.size
            )
        groups = [
            -1 - self.groups.setdefault(int(group), len(self.groups)) if has else first + i
            for i, (group, has) in enumerate(zip(limits["group"], limits["has_group"], strict=True))
        ]
        self.group_of = np.concatenate([self.group_of, np.array(groups, np.int32)])

    def _more_rings(self, room: int) -> int:
        """Where more room for times of messages starts."""
        start = int(self.clock[row_checks.RINGS])
        self.clock[row_checks.RINGS] = start + room
        if start + room > self.rings.size:
            self._grow_rings(RINGS * (start + room))
        return start

    def _grow_rings(self, size: int) -> None:
        longer = memory.zeros(size, np.int64)
        longer[: self.rings.size] = self.rings
        self.rings = longer

    def _set_account_limits(self, which: slice) -> np.ndarray:
        accounts = self.accounts[which]
        limits = self.limits.account_limits(accounts["number"])
        for name in ("portfolio", "stop_ppm", "rate", "known"):
            accounts[name] = limits[name]
        accounts["by_position"], accounts["closes"] = limits["scope"], limits["close"]
        return limits

    def _set_cell_limits(self, which: slice) -> None:
        cells = self.cells[which]
        numbers = self.accounts["number"][cells["account"]]
        sets, records = self.limits.cell_limits(numbers, self.names, cells["book"])
        cells["limits"] = self.terms["limits"][which] = sets + self.sets.size
        self.sets = np.concatenate([self.sets, records])

    def change(self, limits: Limits) -> None:
        """Other limits from here on."""
        self.limits, self.sets = limits, np.zeros(0, LIMIT)
        if self.accounts.size:
            self._set_account_limits(slice(None))
            self._set_cell_limits(slice(1, None))

    # -- runs

    @property
    def intake(self) -> Intake:
        """The state as the first seven checks take it."""
        return Intake(
            self.index,
            self.terms,
            self.accounts,
            self.symbols,
            self.sets,
            self.rings,
            self.repeats,
            np.zeros(0, REFUSAL),
            self.clock,
        )

    def grow_intake(self) -> None:
        """Room to remember more messages, or more repeated orders."""
        if 4 * (self.clock[repeated_orders.ENTRIES] + 1) > self.repeats.size > 0:
            self._grow_repeats()
        else:
            self._grow_rings(2 * self.rings.size)

    def _grow_repeats(self) -> None:
        """Twice the room for orders that may be repeated."""
        larger = memory.zeros(2 * self.repeats.size, REPEAT)
        repeated_orders.move_repeats(self.repeats, larger, self.clock)
        self.repeats = larger

    def stop_order(self) -> np.ndarray:
        """Cells by account number, then by name of symbol."""
        cells = self.cells[1:]
        rank = np.empty(len(self.names), np.int64)
        rank[self.by_name()] = np.arange(len(self.names))
        order = np.lexsort((rank[cells["book"]], self.accounts["number"][cells["account"]]))
        return (order + 1).astype(np.int32)

    def by_name(self) -> np.ndarray:
        """Books by name of symbol."""
        return np.array(sorted(range(len(self.names)), key=self.names.__getitem__), np.int32)


def _near(accounts: np.ndarray, books: np.ndarray, rows: int) -> tuple[np.ndarray, np.int64]:
    """An empty table of all accounts by all books, and its lowest account; [0, 0] where it would be large."""
    spans = [(int(c.min()), int(c.max())) if c.size else (0, 0) for c in (accounts, books)] if rows else []
    (lowest, highest), (lowest_book, highest_book) = spans or [(0, -1), (0, -1)]
    shape = highest - lowest + 1, highest_book + 1
    if lowest_book < 0 or shape[0] * shape[1] > min(NEAR, rows):
        shape = 0, 0
    return memory.zeros(shape, np.int32), np.int64(lowest)


def _longer(records: np.ndarray, more: int) -> np.ndarray:
    """The same records with empty ones behind them."""
    longer = memory.zeros(records.size + more, records.dtype)
    longer[: records.size] = records
    return longer


class GateRun:
    """The gate for one tape: what the kernels read by row, and what they write."""

    def __init__(self, manager: RiskManager, tape: Tape, nodes: int, first_node: int) -> None:
        self.manager, self.tape = manager, tape
        columns, opening = tape.checked.columns, tape.opening
        manager.know_symbols(tape.symbols)
        self.row_cells = manager.cells_of(columns.account, columns.book, tape.rows)
        self.early = memory.empty(tape.rows, np.uint8)
        node_cells = memory.zeros(nodes, np.int32)
        node_cells[first_node : first_node + opening.count] = manager.cells_of(
            frozen(opening.account, "i4"), frozen(opening.book, "i4"), opening.count
        )
        counts = np.zeros(kernel.COUNTS, np.int64)
        counts[kernel.TRACKS_NOTIONAL] = "max_open_notional" in manager.limits.uses
        counts[kernel.CHECKS_PORTFOLIO] = "max_portfolio_value" in manager.limits.uses
        counts[kernel.OWN_ROOM] = OWN_ROOM + 2 * manager.cells.size
        self.own_room = int(counts[kernel.OWN_ROOM])
        orders, order = 2 * tape.incoming + opening.count, tape.commands.order
        has_stops = "stop_loss_percentage" in manager.limits.uses
        self.early_refusals = memory.empty(tape.rows, REFUSAL)
        manager.clock[row_checks.REFUSED] = 0
        self.refused_early = 0
        self.gate = Gate(
            manager.cells,
            manager.money,
            manager.accounts,
            manager.symbols,
            manager.sets,
            node_cells,
            self.row_cells[order] if order.size else self.row_cells,
            memory.empty(tape.rows, np.uint8) if order.size else self.early,
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
        return Risk(self.gate._replace(row_cells=self.row_cells), state)

    def follow_nodes(self, nodes: int) -> None:
        """There is room for more orders now."""
        longer = np.zeros(nodes, np.int32)
        longer[: self.gate.node_cells.size] = self.gate.node_cells
        self.gate = self.gate._replace(node_cells=longer)

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
            start = row_checks.look_at_rows(
                manager.intake._replace(refusals=refusals),
                checked.columns,
                checked.ts,
                checked.first_row,
                self.row_cells,
                self.early,
                start,
                stop,
            )
            self.refused_early += int(manager.clock[row_checks.REFUSED])
            manager.clock[row_checks.REFUSED] = 0
            if start < stop:
                manager.grow_intake()
        if self.tape.commands.order.size:
            np.take(self.early, self.tape.commands.order, out=self.gate.early, mode="clip")

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
        return bool(self.manager.accounts["stopped"].any() or self.manager.cells["stopped"].any())

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
            manager.cells,
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
        accounts = self.manager.terms["account"][self.row_cells[first:]]
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


def first_control(checked: CheckedTable) -> int | None:
    """The first RISK_CONTROL of a table."""
    row = checked.columns.action.tobytes().find(bytes([Action.RISK_CONTROL]))  # a tenth of a comparison
    return None if row < 0 else row


def first_kill(checked: CheckedTable) -> int:
    """The first row that kills an account or everything, so reaches all books; if none, how many rows."""
    if first_control(checked) is None:
        return checked.rows
    kills = (RiskControl.ACCOUNT_KILLED, RiskControl.ALL_KILLED)
    rows = np.flatnonzero(checked.columns.action == Action.RISK_CONTROL)
    rows = rows[np.isin(checked.columns.qty[rows], kills)]
    return int(rows[0]) if rows.size else checked.rows


__all__ = ["GateOutputs", "GateRun", "RiskManager", "first_kill"]
