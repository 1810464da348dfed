"""`Limits`: the door for the risk gate's limits, from wherever they come to the records that kernels read.

Limits are kept as they are given, a row for each place and time, and looked up when cells turn up: ten
thousand accounts in eight thousand symbols cost nothing before they trade. Each key is looked up by itself,
first for the account in the symbol, then for the account, then for the symbol, then for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hftlab.codes import MAX_QTY
from hftlab.config import Config, load_config
from hftlab.errors import LimitsError, UsageError
from hftlab.kernels.risk_gate.records import ACCOUNT_LIMIT, FEE, FIXED, LAST, LIMIT, MID, REFERENCE
from hftlab.limit_keys import BOTH_SIDES, KEYS, NONE_GIVEN, REFERENCES, SIDES, TRADING_KEYS
from hftlab.limit_settings import read_keys, read_settings
from hftlab.limit_tables import ALL, Given, from_file, from_frame, from_rules

_SHOWN_SYMBOLS = 10
_WORDS = {REFERENCES["last"]: LAST, REFERENCES["mid"]: MID}

# key of each field of the records
_LIMIT = {
    "order_qty": "max_order_qty",
    "order_notional": "max_order_notional",
    "band_ticks": "price_band_ticks",
    "band_ppm": "price_band_percentage",
    "long": "max_long_position",
    "short": "max_short_position",
    "open_orders": "max_open_orders",
    "open_notional": "max_open_notional",
    "repeats": "max_repeated_orders",
    "reduce_only": "reduce_only",
    "restricted": "restricted",
    "self_trade": "self_trade",
}
_ACCOUNT = {
    "rate": "max_orders_per_second",
    "portfolio": "max_portfolio_value",
    "stop_ppm": "stop_loss_percentage",
    "capital": "capital",
    "group": "self_trade_group",
    "scope": "stop_loss_scope",
    "close": "stop_loss_action",
}
_FEE = {
    "maker_bps": "maker_fee_bps",
    "taker_bps": "taker_fee_bps",
    "maker_lot": "maker_fee_per_lot",
    "taker_lot": "taker_fee_per_lot",
}


class Limits:
    """Limits of the risk gate: those of all, over them those of symbols, accounts, and accounts in symbols.

    >>> limits = Limits(max_order_qty=100, max_order_notional="250000", reference="mid")
    >>> limits = Limits.load("limits.toml")
    >>> limits = Limits.from_table({"account": [7, 8], "max_order_qty": [50, 100]})

    The keys are those of docs/RISK.md. Integers of money count 1e-9 and those of time ns, as everywhere in
    Python; text, floats and decimals are the currency. Raises LimitsError with everything that is wrong.
    """

    __slots__ = ("_rules", "_version")

    def __init__(self, **keys: Any) -> None:
        self._rules = _Rules(from_rules(read_keys(keys, "limits")), "limits")
        self._version = 0

    @classmethod
    def load(cls, path: str | Path) -> Limits:
        """Limits of a file: TOML with `[risk]` or `[trading]`, or a table (CSV, Parquet, Arrow IPC).

        Raises LimitsError with all problems of the file, FormatError where it is broken.
        """
        path = Path(path)
        if path.suffix.lower() != ".toml":
            return cls._of(from_file(path), str(path))
        config = load_config(path, {})
        if not config.risk and not config.trading:
            raise LimitsError(str(path), ["found no limits, expected [risk] or [trading]"])
        return cls.from_settings(config.risk, config.trading, str(path))

    @classmethod
    def from_table(cls, frame: Any) -> Limits:
        """Limits of a pyarrow table, a polars frame or a dict of columns; a row for each place.

        Columns `account` and `symbol` (null: all), `from_row` (default 0) and keys (null: inherited). Raises
        LimitsError with everything that is wrong in it, rows counted from 0.
        """
        return cls._of(from_frame(frame, "limits table"), "limits table")

    @classmethod
    def from_settings(
        cls, risk: Mapping[str, Any], trading: Mapping[str, Any] | None = None, where: str = "settings"
    ) -> Limits:
        """Limits of `[risk]` and `[trading]` as TOML has them, such as `Config.risk` and `Config.trading`."""
        return cls._of(from_rules(read_settings(risk, {} if trading is None else trading, where)), where)

    @classmethod
    def of(cls, given: Limits | str | Path | Mapping[str, Any]) -> Limits:
        """Limits as a call may give them: as such, as a file of them, or as a dict of the keys of all.

        Raises UsageError for something else.
        """
        if isinstance(given, str | Path):
            return cls.load(given)
        if isinstance(given, Mapping) and all(isinstance(key, str) for key in given):
            return cls(**given)
        if not isinstance(given, Limits):
            raise UsageError(
                f"limits: found {type(given).__name__}, expected Limits, a file of them, or a dict of keys"
            )
        return given

    @classmethod
    def of_config(cls, config: Config) -> Limits | None:
        """The limits of a configuration, None where nothing may be refused by them."""
        if not config.risk and not config.trading:
            return None
        limits = cls.from_settings(config.risk, config.trading)
        return limits if limits.closes_gate else None

    @classmethod
    def _of(cls, given: Given, what: str) -> Limits:
        return cls._at(_Rules(given, what), 0)

    @classmethod
    def _at(cls, rules: _Rules, version: int) -> Limits:
        self = cls.__new__(cls)
        self._rules, self._version = rules, version
        return self

    def __repr__(self) -> str:
        keys = ", ".join(key for key in KEYS if key in self.uses) or "no keys"
        return f"<Limits of {self._rules.what}: {keys}>"

    # -------------------------------------------------------------- what holds for all

    @property
    def unknown_reject(self) -> bool:
        """Whether accounts without limits of their own are refused."""
        return bool(self._rules.of_all("unknown_accounts", self._version))

    @property
    def mark_interval(self) -> int:
        """Time from one marking of positions to the next, ns."""
        return self._rules.of_all("mark_interval", self._version)

    @property
    def repeated_order_window(self) -> int:
        """Time within which equal orders follow each other, ns."""
        return self._rules.of_all("repeated_order_window", self._version)

    @property
    def uses(self) -> frozenset[str]:
        """Keys that are given to anybody at any time; `max_position_size` as the two it sets."""
        return self._rules.uses

    @property
    def what(self) -> str:
        """Where they come from."""
        return self._rules.what

    @property
    def closes_gate(self) -> bool:
        """Whether something may be refused by them; fees and the like by themselves refuse nothing."""
        return bool(self.uses - set(TRADING_KEYS)) or self.unknown_reject

    @property
    def closes_positions(self) -> bool:
        """Whether the gate may send orders of its own."""
        return "stop_loss_action" in self.uses

    @property
    def ties_instruments(self) -> bool:
        """Whether what happens in one instrument may change what an account is allowed in another."""
        return bool({"max_portfolio_value", "stop_loss_percentage"} & self.uses)

    @property
    def accounts(self) -> tuple[int, ...]:
        """Accounts that have limits of their own at any time, ascending."""
        return tuple(self._rules.known.tolist())

    @property
    def changes(self) -> tuple[tuple[int, Limits], ...]:
        """Row and limits of each change from here on: they hold from before that row is looked at."""
        rows = self._rules.rows.tolist()
        return tuple((rows[v], self._at(self._rules, v)) for v in range(self._version + 1, len(rows)))

    def check_symbols(self, symbols: Sequence[str]) -> None:
        """Raises LimitsError with all symbols that have limits and are none of a flow's `symbols`."""
        there = set(symbols)
        names = ", ".join(symbols[:_SHOWN_SYMBOLS])
        names += f" and {len(symbols) - _SHOWN_SYMBOLS:,} more" if len(symbols) > _SHOWN_SYMBOLS else ""
        problems = [
            f"{where}: found the symbol {symbol!r}, expected one of the flow, which has {names or 'none'}"
            for symbol, where in self._rules.where_symbols()
            if symbol not in there
        ]
        if problems:
            raise LimitsError(self._rules.what, problems)

    # -------------------------------------------------------------- what holds for whom

    def account_limits(self, accounts: np.ndarray) -> np.ndarray:
        """An ACCOUNT_LIMIT for each account."""
        lookup = _Lookup(self._rules, self._version, accounts)
        records = np.empty(lookup.size, ACCOUNT_LIMIT)
        for field, key in _ACCOUNT.items():
            records[field] = lookup.of(key)
        records["has_group"] = records["group"] != NONE_GIVEN
        records["group"][records["has_group"] == 0] = 0
        records["known"] = self._rules.are_known(lookup.accounts, self._version)
        return records

    def cell_limits(
        self, accounts: np.ndarray, symbols: Sequence[str], book: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which of the different LIMITs each cell has (int32), and these.

        A cell is an account in a symbol; `book` is the symbol's position in `symbols`.
        """
        lookup = _Lookup(self._rules, self._version, accounts, symbols, book)
        which, first = _alike([key for key in _LIMIT.values() if key in self.uses], lookup)
        different = lookup.take(first)
        records = np.empty(first.size, LIMIT)
        for field, key in _LIMIT.items():
            records[field] = different.of(key)
        return which, records

    def fees(self, accounts: np.ndarray, symbols: Sequence[str], book: np.ndarray) -> np.ndarray:
        """A FEE for each cell."""
        lookup = _Lookup(self._rules, self._version, accounts, symbols, book)
        records = np.empty(lookup.size, FEE)
        for field, key in _FEE.items():
            records[field] = lookup.of(key)
        return records

    def references(self, symbols: Sequence[str]) -> np.ndarray:
        """A REFERENCE for each symbol."""
        book = np.arange(len(symbols))
        given = _Lookup(self._rules, self._version, np.zeros(book.size), symbols, book).of("reference")
        records = np.zeros(book.size, REFERENCE)
        records["kind"] = FIXED
        for word, kind in _WORDS.items():
            records["kind"][given == word] = kind
        records["price"] = np.where(records["kind"] == FIXED, given, 0)
        return records


# ------------------------------------------------------------------ looking up


def _found_in(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each is among the sorted `places`, -1 where it isn't one."""
    if not places.size:
        return np.full(wanted.size, -1)
    at = np.minimum(np.searchsorted(places, wanted), places.size - 1)
    return np.where(places[at] == wanted, at, -1)


class _Scope:
    """What some places give, each from some version on: a place is a number, a version a change of limits.

    Rows are sorted by place and version, and each has what still holds of the ones before it.
    """

    def __init__(self, places: np.ndarray, versions: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        order = np.lexsort((versions, places))
        places, self._versions = places[order], versions[order]
        is_first = np.ones(order.size, bool)
        is_first[1:] = places[1:] != places[:-1]
        self.places, self._starts = places[is_first], np.flatnonzero(is_first)
        self.since = self._versions[is_first]
        self._has_changes = self.places.size < order.size or bool(self.since.any())
        self.values = {}
        for key, column in values.items():
            column = column[order]
            held = np.where(is_first | (column != NONE_GIVEN), np.arange(order.size), 0)
            column = column[np.maximum.accumulate(held)]
            if (column != NONE_GIVEN).any():
                self.values[key] = np.append(column, NONE_GIVEN)  # for row -1

    def rows(self, places: np.ndarray, version: int) -> np.ndarray:
        """The row that holds for each place, -1 for none."""
        found = _found_in(self.places, places)
        if not self._has_changes:
            return found
        ends = np.append(self._starts[1:], self._versions.size)
        begun = np.add.reduceat((self._versions <= version).astype(np.int64), self._starts)
        row = np.where(begun > 0, np.minimum(self._starts + begun, ends) - 1, -1)
        return np.append(row, -1)[found]


class _Rules:
    """Limits as they were given, by whose they are."""

    def __init__(self, given: Given, what: str) -> None:
        self.what, self.symbols = what, {symbol: number for number, symbol in enumerate(given.symbols)}
        self.rows = np.unique(np.append(given.from_row, 0))  # row from which each version holds
        version = np.searchsorted(self.rows, given.from_row)
        values = _both_sides(given.values)
        by_account, by_symbol = given.account != ALL, given.symbol >= 0

        def scope(which: np.ndarray, places: np.ndarray) -> _Scope:
            at = np.flatnonzero(which)
            return _Scope(places[at], version[at], {key: column[at] for key, column in values.items()})

        self.all = scope(~by_account & ~by_symbol, np.zeros(by_symbol.size, np.int64))
        self.of_symbols = scope(~by_account & by_symbol, given.symbol)
        self.of_accounts = scope(by_account & ~by_symbol, given.account)
        self.of_cells = scope(
            by_account & by_symbol, self.cells(np.where(by_account, given.account, 0), given.symbol)
        )
        scopes = (self.all, self.of_symbols, self.of_accounts, self.of_cells)
        self.uses = frozenset(key for scope in scopes for key in scope.values)
        at = np.flatnonzero(by_account)
        owners = _Scope(given.account[at], version[at], {})
        self.known, self._since = owners.places, owners.since
        self._given = given
        self._for_all: tuple[int, dict[str, int]] = (-1, {})  # of the version asked for last

    def cells(self, accounts: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """A number for each account and symbol, where symbol -1 is none of those with limits."""
        return accounts * (len(self.symbols) + 1) + symbols + 1

    def where_symbols(self) -> list[tuple[str, str]]:
        """Each symbol that is named, and where first."""
        numbers, rows = np.unique(self._given.symbol, return_index=True)
        return [
            (self._given.symbols[number], self._given.where(int(row)))
            for number, row in zip(numbers, rows, strict=True)
            if number >= 0
        ]

    def of_all(self, key: str, version: int) -> int:
        """What holds of a key where nobody has it for himself."""
        held, values = self._for_all  # kept, for every new account asks for every key
        if held != version:
            row = int(self.all.rows(np.zeros(1, np.int64), version)[0])
            given = {key: int(column[row]) for key, column in self.all.values.items()}
            given = {key: value for key, value in given.items() if value != NONE_GIVEN}
            values = {key: kind.default for key, kind in KEYS.items()} | given
            self._for_all = version, values
        return values[key]

    def are_known(self, accounts: np.ndarray, version: int) -> np.ndarray:
        """Whether accounts have limits of their own."""
        return np.append(self._since <= version, False)[_found_in(self.known, accounts)]


class _Lookup:
    """Cells, or accounts where no symbols are given, and which rows of limits hold for each."""

    def __init__(
        self,
        rules: _Rules,
        version: int,
        accounts: np.ndarray,
        symbols: Sequence[str] | None = None,
        book: np.ndarray | None = None,
    ) -> None:
        self._rules, self._version = rules, version
        self.accounts = np.asarray(accounts, np.int64)
        self.size = self.accounts.size
        self._rows = [(rules.of_accounts, rules.of_accounts.rows(self.accounts, version))]
        if symbols is not None:
            named = np.array([rules.symbols.get(symbol, -1) for symbol in symbols], np.int64)[book]
            cells = rules.cells(self.accounts, named)
            self._rows.insert(0, (rules.of_symbols, rules.of_symbols.rows(named, version)))
            self._rows.append((rules.of_cells, rules.of_cells.rows(cells, version)))

    def of(self, key: str) -> np.ndarray:
        """What holds of a key for each."""
        result = np.full(self.size, self._rules.of_all(key, self._version))
        for scope, rows in self._rows:  # what comes later hides what comes before
            if key in scope.values:
                given = scope.values[key][rows]
                np.copyto(result, given, where=given != NONE_GIVEN)
        return result

    def take(self, positions: np.ndarray) -> _Lookup:
        """The same for some of them."""
        part = object.__new__(_Lookup)
        part._rules, part._version = self._rules, self._version
        part.accounts, part.size = self.accounts[positions], positions.size
        part._rows = [(scope, rows[positions]) for scope, rows in self._rows]
        return part


def _alike(keys: Sequence[str], lookup: _Lookup) -> tuple[np.ndarray, np.ndarray]:
    """A number for each, the same where all keys are (int32), and the first of each number."""
    which, count = np.zeros(lookup.size, np.int64), 1
    for key in keys if lookup.size > 1 else ():
        column, different = _numbered(lookup.of(key))
        if count * different > MAX_QTY:
            which, count = _numbered(which)
        which, count = which * different + column, count * different
    which, count = _numbered(which)
    first = np.full(count, lookup.size)
    np.minimum.at(first, which, np.arange(lookup.size))
    return which.astype(np.int32), first


def _numbered(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers for equal values, and how many; by hashing, which takes a tenth of sorting."""
    column = pa.array(values).dictionary_encode()
    return column.indices.to_numpy().astype(np.int64), len(column.dictionary)


def _both_sides(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`max_position_size` as the two limits that it sets."""
    values = dict(values)
    size = values.pop(BOTH_SIDES, None)
    if size is not None:
        for side in SIDES:
            own = values.get(side, size)
            values[side] = np.where(size != NONE_GIVEN, size, own)
    return values
