"""Limits as settings: the `[risk]` and `[trading]` of a TOML file become rules, one for each place.

A rule is what one place gives: for all, for a symbol, an account, or an account in a symbol, from a row of
the flow on. The reader gathers every problem of a file and reports them together.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from hftlab.config.limit_keys import (
    ACCOUNTS,
    BOTH_SIDES,
    KEYS,
    SIDES,
    TRADING_KEYS,
    TRADING_LIMITS,
    Kind,
    as_setting,
    misplaced,
    shown,
    unknown,
    wrong,
)
from hftlab.errors import LimitsError

RISK_KEYS = tuple(key for key in KEYS if key not in TRADING_KEYS)

AN_ACCOUNT = f"an account from {ACCOUNTS[0]} to {ACCOUNTS[-1]}"
BOTH_GIVEN = f"only {BOTH_SIDES}, which sets both sides, or only those of each side"

_RISK, _TRADING = "risk", "trading"
_PARTS = ("symbols", "accounts", "changes")  # of [risk]
_ACCOUNT = re.compile(r"0|-?[1-9][0-9]{0,9}")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PLACE = ("from_row", "account", "symbol")  # of a change


class Rule(NamedTuple):
    """What one place gives, with every value as the integer it means."""

    where: str  # as the file spells it
    account: int | None  # None: of all
    symbol: str | None  # None: in all
    from_row: int
    values: dict[str, int]


def read_settings(risk: Any, trading: Any, what: str) -> list[Rule]:
    """The rules of a file's `[risk]` and `[trading]`. Raises LimitsError with all that is wrong in them."""
    reader = _Reader()
    reader.risk(risk)
    reader.trading(trading)
    return reader.finish(what)


def read_keys(keys: Mapping[str, Any], what: str) -> list[Rule]:
    """The rules of keys given in Python; integers of money count 1e-9, None is not given.

    Keys stand for all, or nested as in TOML: `symbols`, `accounts` (by number or its text) and `changes`, by
    themselves or below `risk`, with `trading` beside it. Raises LimitsError with all that is wrong in them.
    """
    reader = _Reader(in_python=True)
    keys = {key: value for key, value in keys.items() if value is not None}
    sections = keys.keys() & {_RISK, _TRADING}
    flat = {key: value for key, value in keys.items() if key not in sections}
    for key in flat if sections else ():
        reader.wrong(str(key), f"it beside {' and '.join(sorted(sections))}", f"it in [{_RISK}]")
    reader.risk(keys.get(_RISK, {}), _RISK)
    reader.risk({} if sections else flat, "")
    reader.trading(keys.get(_TRADING, {}))
    return reader.finish(what)


class _Reader:
    """Reads settings place by place and gathers what is wrong with them."""

    def __init__(self, in_python: bool = False) -> None:
        self.in_python = in_python  # values are cells, and each becomes the setting that it means
        self.problems: list[str] = []
        self.rules: dict[tuple[Any, Any, int], Rule] = {}

    def finish(self, what: str) -> list[Rule]:
        if self.problems:
            raise LimitsError(what, self.problems)
        return list(self.rules.values())

    def wrong(self, where: str, found: str, expected: str) -> None:
        self.problems.append(f"{where}: found {found}, expected {expected}")

    def table(self, settings: Any, where: str) -> Mapping[str, Any]:
        """A table of TOML; an empty one, and a problem, where it is something else."""
        if isinstance(settings, Mapping):
            return settings
        self.wrong(where, shown(settings), "a table")
        return {}

    # -------------------------------------------------------------- sections

    def trading(self, settings: Any) -> None:
        """`[trading]`: its keys for all, and four limits as the system has them that keeps them there."""
        rule = Rule(_TRADING, None, None, 0, {})
        settings = self.table(settings, _TRADING)
        given = [key for key in TRADING_LIMITS if key in settings]
        for key in given:
            if there := self.given_in_risk(key):
                expected = f"{key} in one of both"
                self.wrong(f"{_TRADING}.{key}", f"it in [{there}], too", expected)
        self.place(rule, settings, (*TRADING_KEYS, *TRADING_LIMITS))

    def given_in_risk(self, key: str) -> str | None:
        """Where `[risk]` gives a limit of `[trading]` once more to the same accounts; None where it doesn't.

        A limit of one account goes before that of all. A stop loss is a fraction in one section and a
        percentage in the other, so no account may have both.
        """
        keys = {key, *SIDES} if key == BOTH_SIDES else {key}
        for place, rule in self.rules.items():
            if keys & rule.values.keys() and (place == (None, None, 0) or key == "stop_loss_percentage"):
                return rule.where
        return None

    def risk(self, settings: Any, where: str = _RISK) -> None:
        """`[risk]`: its keys for all, and the places below it."""
        above, settings = f"{where}." if where else "", self.table(settings, where)
        keys = RISK_KEYS if where else KEYS
        self.place(Rule(where, None, None, 0, {}), settings, keys, _PARTS)
        self.symbols(above, settings)
        for name, own in self.table(settings.get("accounts", {}), f"{above}accounts").items():
            self.account(f"{above}accounts.{_spelt(name)}", name, own)
        changes = settings.get("changes", [])
        if not isinstance(changes, list | tuple if self.in_python else list):
            self.wrong(f"{above}changes", shown(changes), "tables, each headed [[risk.changes]]")
            return
        for number, change in enumerate(changes, start=1):
            self.change(f"{above}changes {number}", number, change)

    def symbols(self, above: str, settings: Mapping[str, Any], account: Any = None) -> None:
        """`[risk.symbols.X]`, or those of an account."""
        for symbol, own in self.table(settings.get("symbols", {}), f"{above}symbols").items():
            where = f"{above}symbols.{_spelt(symbol)}"
            symbol = self.name(where, symbol)
            self.place(Rule(where, account, symbol, 0, {}), self.table(own, where), KEYS)

    def account(self, where: str, name: Any, settings: Any) -> None:
        """`[risk.accounts.N]`, and its symbols."""
        settings = self.table(settings, where)
        is_text = isinstance(name, str) and _ACCOUNT.fullmatch(name)
        account = self.number(where, int(name) if is_text else name)
        self.place(Rule(where, account, None, 0, {}), settings, KEYS, ("symbols",))
        self.symbols(f"{where}.", settings, account)

    def change(self, where: str, number: int, settings: Any) -> None:
        """One of `[[risk.changes]]`."""
        if not self.table(settings, where):
            return
        row, account, symbol = (settings.get(key) for key in _PLACE)
        if type(row) is not int or not 1 <= row < 2**63:
            found = "none" if row is None else shown(row)
            self.wrong(f"{where}.from_row", found, "a row of the flow, 1 or more")
            row = -number  # no row, and of no other change, so that reading goes on
        if account is not None:
            account = self.number(f"{where}.account", account)
        if symbol is not None:
            symbol = self.name(f"{where}.symbol", symbol)
        rule = Rule(where, account, symbol, row, {})
        # a later one would override an earlier one by its place in the file
        if same := self.rules.get(rule[1:4]):
            self.wrong(where, f"the account, symbol and row of {same.where}", "each once")
        self.place(rule, settings, KEYS, _PLACE)

    def number(self, where: str, account: Any) -> Any:
        """An account, or what can't be mistaken for one."""
        if type(account) is int and account in ACCOUNTS:
            return account
        self.wrong(where, shown(account), AN_ACCOUNT)
        return shown(account)

    def name(self, where: str, symbol: Any) -> str:
        """A symbol."""
        if not isinstance(symbol, str) or not symbol:
            self.wrong(where, shown(symbol), "the name of a symbol")
        return str(symbol)

    # -------------------------------------------------------------- one place

    def place(
        self,
        rule: Rule,
        settings: Mapping[str, Any],
        keys: Collection[str],
        parts: tuple[str, ...] = (),
    ) -> None:
        """Take the keys that a place gives, which may have `parts` besides."""
        spelt = settings
        if self.in_python:
            spelt = {key: value for key, value in settings.items() if value is not None}
            settings = {key: as_setting(key, value) if key in KEYS else value for key, value in spelt.items()}
        named = rule.account is not None, rule.symbol is not None, rule.from_row != 0
        for key, value in settings.items():
            where = f"{rule.where}.{_spelt(key)}" if rule.where else key
            if key in parts:
                continue
            if key not in keys:
                problem = _elsewhere(key, rule.where) or unknown(key, (*keys, *parts))
                self.problems.append(f"{where}: {problem}")
            elif amiss := misplaced(key, *named):
                self.wrong(where, *amiss)
            elif (units := (kind := _kind(key, rule)).take(value)) is None:
                ambiguous = not self.in_python and type(value) is int and kind.unit == "e-9"
                hint = "; an integer might mean units of 1e-9" if ambiguous else ""
                self.problems.append(f"{where}: {wrong(key, spelt[key], kind)}{hint}")
            else:
                rule.values[key] = units
        if BOTH_SIDES in rule.values and (beside := [key for key in SIDES if key in rule.values]):
            where = f"{rule.where}.{BOTH_SIDES}" if rule.where else BOTH_SIDES
            self.wrong(where, f"it beside {' and '.join(beside)}", BOTH_GIVEN)
        self.rules.setdefault(rule[1:4], rule).values.update(rule.values)


def _kind(key: str, rule: Rule) -> Kind:
    """What a key takes in a place."""
    in_trading = rule.where == _TRADING and key in TRADING_LIMITS
    return TRADING_LIMITS[key] if in_trading else KEYS[key].kind


def _elsewhere(key: str, where: str) -> str | None:
    """The problem with a key that belongs to the other section."""
    section = _TRADING if key in TRADING_KEYS else _RISK
    return f"found it in [{where}], expected it in [{section}]" if key in KEYS else None


def _spelt(name: Any) -> str:
    """A key as TOML spells it."""
    name = str(name)
    return name if _BARE.fullmatch(name) else f'"{name}"'
