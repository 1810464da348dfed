"""The state of the risk gate over a flow: accounts, positions, message rates, limits in force.

A `RiskManager` outlives the chunks a flow is cut into: it knows accounts and limits, and nothing of tapes.
"""

from __future__ import annotations

import copy

import numpy as np

from hftlab.config.lot_values import ONES, LotValues
from hftlab.kernels.primitives import memory
from hftlab.kernels.primitives.hash_index import copy_index, make_index
from hftlab.kernels.risk_gate import repeated_orders, row_checks
from hftlab.kernels.risk_gate.gate import ACCOUNT, HOLDING, MONEY, REFUSAL, SYMBOL
from hftlab.kernels.risk_gate.records import FIXED, LIMIT
from hftlab.kernels.risk_gate.repeated_orders import NO_TIME, REPEAT
from hftlab.kernels.risk_gate.row_checks import TERM, Intake
from hftlab.risk_gate.limits import Limits
from hftlab.risk_gate.message_times import NO_MESSAGES

FIRST_HOLDINGS, FIRST_REPEATS = 1 << 10, 1 << 14
FIRST_MESSAGES = 16  # times of messages an account has room for; a power of two
RINGS = 4  # as much room for them as accounts start with, so that they may ask for more
BATCH = 1 << 16  # holdings
TABLE_ROOM = 1 << 20  # accounts times books of a table that has them all: 4 MB


class RiskManager:
    """Accounts and holdings (of an account in a symbol) with their limits and positions."""

    def __init__(self, limits: Limits, lots: LotValues = ONES) -> None:
        self.limits, self.lots = limits, lots
        self.changes = list(limits.changes)
        self.has_money = limits.ties_instruments
        self.index = make_index(FIRST_HOLDINGS)
        self.known = 1  # holdings, the one of nobody included
        self.holdings, self.terms = np.zeros(1, HOLDING), np.zeros(1, TERM)
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
        new["lot"] = self.lots.of(more)
        new["share"] = new["lot"] // self.lots.unit
        fixed = references["kind"] == FIXED
        new["mark"], new["has_mark"] = np.where(fixed, references["price"], 0), fixed
        self.names, self.symbols = names, np.concatenate([self.symbols, new])

    def holdings_of(self, accounts: np.ndarray, books: np.ndarray, rows: int) -> np.ndarray:
        """The holding of each row, made where there is none; a column that is absent means 0."""
        holdings, done = memory.empty(rows, np.int32), 0
        new, first = np.empty((rows, 2), np.int32), self.known
        table, lowest = _small_table(accounts, books, rows)
        while True:
            done, self.known = row_checks.number_holdings(
                accounts,
                books,
                self.index,
                table,
                lowest,
                self.known,
                done,
                holdings,
                new[self.known - first :],
            )
            if done == rows:
                break
            larger = make_index(self.index.size)
            copy_index(self.index, larger)
            self.index = larger
        if self.known > first:
            self._add_holdings(*new[: self.known - first].T)
        return holdings

    def _add_holdings(self, numbers: np.ndarray, books: np.ndarray) -> None:
        """Holdings of these accounts and books, in batches: looking limits up takes room for each."""
        first, more = self.holdings.size, numbers.size
        self.holdings, self.terms = _longer(self.holdings, more), _longer(self.terms, more)
        if self.has_money:
            self.money = _longer(self.money, more)
        for start in range(0, more, BATCH):
            stop = min(start + BATCH, more)
            self._fill_holdings(slice(first + start, first + stop), numbers[start:stop], books[start:stop])

    def _fill_holdings(self, which: slice, numbers: np.ndarray, books: np.ndarray) -> None:
        there, first, place = np.unique(numbers, return_index=True, return_inverse=True)
        fresh = [n for n in there[np.argsort(first)].tolist() if n not in self.numbers]
        if fresh:
            self._add_accounts(np.array(fresh, np.int32))
        holdings = self.holdings[which]
        holdings["account"] = np.array([self.numbers[n] for n in there.tolist()], np.int32)[place]
        holdings["book"] = books
        holdings["group"] = self.group_of[holdings["account"]]
        self.terms["account"][which] = holdings["account"]
        self._set_holding_limits(which)
        if self.has_money:
            capital = self.accounts["capital"][holdings["account"]]
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
        limits = self.limits.account_limits(accounts["number"], self.lots.unit)
        for name in ("portfolio", "most_high", "most_low", "stop_ppm", "rate", "known"):
            accounts[name] = limits[name]
        accounts["by_position"], accounts["closes"] = limits["scope"], limits["close"]
        return limits

    def _set_holding_limits(self, which: slice) -> None:
        holdings = self.holdings[which]
        numbers = self.accounts["number"][holdings["account"]]
        sets, records = self.limits.cell_limits(numbers, self.names, holdings["book"], self.lots)
        holdings["limits"] = self.terms["limits"][which] = sets + self.sets.size
        self.sets = np.concatenate([self.sets, records])

    def follow_changes(self, seq: int) -> None:
        """Bring into force what changes at or before a row of the input."""
        while self.changes and self.changes[0][0] <= seq:
            self.change(self.changes.pop(0)[1])

    def change(self, limits: Limits) -> None:
        """Other limits from here on."""
        self.limits, self.sets = limits, np.zeros(0, LIMIT)
        if self.accounts.size:
            self._set_account_limits(slice(None))
            self._set_holding_limits(slice(1, None))

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
        holdings = self.holdings[1:]
        rank = np.empty(len(self.names), np.int64)
        rank[self.by_name()] = np.arange(len(self.names))
        order = np.lexsort((rank[holdings["book"]], self.accounts["number"][holdings["account"]]))
        return (order + 1).astype(np.int32)

    def by_name(self) -> np.ndarray:
        """Books by name of symbol."""
        return np.array(sorted(range(len(self.names)), key=self.names.__getitem__), np.int32)


def _small_table(accounts: np.ndarray, books: np.ndarray, rows: int) -> tuple[np.ndarray, np.int64]:
    """An empty table of all accounts by all books, and its lowest account; [0, 0] where it would be large."""
    spans = [(int(c.min()), int(c.max())) if c.size else (0, 0) for c in (accounts, books)] if rows else []
    (lowest, highest), (lowest_book, highest_book) = spans or [(0, -1), (0, -1)]
    shape = highest - lowest + 1, highest_book + 1
    if lowest_book < 0 or shape[0] * shape[1] > min(TABLE_ROOM, rows):
        shape = 0, 0
    return memory.zeros(shape, np.int32), np.int64(lowest)


def _longer(records: np.ndarray, more: int) -> np.ndarray:
    """The same records with empty ones behind them."""
    longer = memory.zeros(records.size + more, records.dtype)
    longer[: records.size] = records
    return longer
