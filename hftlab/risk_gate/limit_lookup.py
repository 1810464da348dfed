"""Limits as they were given, and how each key is looked up for an account in a symbol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from hftlab.codes import MAX_QTY
from hftlab.config.limit_keys import BOTH_SIDES, KEYS, NONE_GIVEN, SIDES
from hftlab.risk_gate.limit_tables import ALL, Given


def _found_in(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each is among the sorted `places`, -1 where it isn't one."""
    if not places.size:
        return np.full(wanted.size, -1)
    at = np.minimum(np.searchsorted(places, wanted), places.size - 1)
    return np.where(places[at] == wanted, at, -1)


class Scope:
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


class Rules:
    """Limits as they were given, by whose they are."""

    def __init__(self, given: Given, what: str) -> None:
        self.what, self.symbols = what, {symbol: number for number, symbol in enumerate(given.symbols)}
        self.rows = np.unique(np.append(given.from_row, 0))  # row from which each version holds
        version = np.searchsorted(self.rows, given.from_row)
        values = _both_sides(given.values)
        by_account, by_symbol = given.account != ALL, given.symbol >= 0

        def scope(which: np.ndarray, places: np.ndarray) -> Scope:
            at = np.flatnonzero(which)
            return Scope(places[at], version[at], {key: column[at] for key, column in values.items()})

        self.all = scope(~by_account & ~by_symbol, np.zeros(by_symbol.size, np.int64))
        self.of_symbols = scope(~by_account & by_symbol, given.symbol)
        self.of_accounts = scope(by_account & ~by_symbol, given.account)
        self.of_cells = scope(
            by_account & by_symbol, self.cells(np.where(by_account, given.account, 0), given.symbol)
        )
        scopes = (self.all, self.of_symbols, self.of_accounts, self.of_cells)
        self.uses = frozenset(key for scope in scopes for key in scope.values)
        at = np.flatnonzero(by_account)
        owners = Scope(given.account[at], version[at], {})
        self.known, self._since = owners.places, owners.since
        self._given = given
        self._for_all: tuple[int, dict[str, int]] = (-1, {})  # of the version asked for last

    def cells(self, accounts: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """A number for each account and symbol, where symbol -1 is none of those with limits."""
        return accounts * (len(self.symbols) + 1) + symbols + 1

    def symbols_with(self, key: str, symbols: Sequence[str]) -> list[str]:
        """Those of some symbols in which a key is given to anybody at any time."""
        if key in self.all.values or key in self.of_accounts.values:
            return list(symbols)
        given = self._given.values.get(key)
        at = [] if given is None else self._given.symbol[given != NONE_GIVEN].tolist()
        named = {self._given.symbols[number] for number in at if number >= 0}
        return [symbol for symbol in symbols if symbol in named]

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
            values = {key: kind.default for key, kind in KEYS.items()} | self.given_to_all(version)
            self._for_all = version, values
        return values[key]

    def given_to_all(self, version: int) -> dict[str, int]:
        """What is given for all, by key; `max_position_size` as the two it sets."""
        row = int(self.all.rows(np.zeros(1, np.int64), version)[0])
        given = {key: int(column[row]) for key, column in self.all.values.items()}
        return {key: value for key, value in given.items() if value != NONE_GIVEN}

    def are_known(self, accounts: np.ndarray, version: int) -> np.ndarray:
        """Whether accounts have limits of their own."""
        return np.append(self._since <= version, False)[_found_in(self.known, accounts)]


class Lookup:
    """Cells, or accounts where no symbols are given, and which rows of limits hold for each."""

    def __init__(
        self,
        rules: Rules,
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

    def take(self, positions: np.ndarray) -> Lookup:
        """The same for some of them."""
        part = object.__new__(Lookup)
        part._rules, part._version = self._rules, self._version
        part.accounts, part.size = self.accounts[positions], positions.size
        part._rows = [(scope, rows[positions]) for scope, rows in self._rows]
        return part


def are_alike(keys: Sequence[str], lookup: Lookup, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number for each (int32), the same where all keys and `kinds` are, and the first of each number."""
    alike = not kinds.size or bool((kinds == kinds[0]).all())  # as where all lots are worth the same
    which, count = (np.zeros(lookup.size, np.int64), 1) if alike else _numbered(kinds)
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
