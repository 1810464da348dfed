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

from hftlab.config.limit_keys import KEYS, NONE_GIVEN, REFERENCES, TRADING_KEYS, limit_text
from hftlab.config.limit_settings import read_keys, read_settings
from hftlab.config.lot_values import ONE, ONES, LotValues, largest_within
from hftlab.config.settings import Config, load_config
from hftlab.errors import LimitsError, UsageError
from hftlab.kernels.risk_gate.records import ACCOUNT_LIMIT, FEE, FIXED, LAST, LIMIT, MID, REFERENCE
from hftlab.risk_gate.limit_lookup import Lookup, Rules, are_alike
from hftlab.risk_gate.limit_tables import Given, from_file, from_frame, from_rules

_SHOWN_SYMBOLS = 10
_WORDS = {REFERENCES["last"]: LAST, REFERENCES["mid"]: MID}

# key of each field of the records
LIMIT_KEYS = {
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
ACCOUNT_KEYS = {
    "rate": "max_orders_per_second",
    "portfolio": "max_portfolio_value",
    "stop_ppm": "stop_loss_percentage",
    "capital": "capital",
    "group": "self_trade_group",
    "scope": "stop_loss_scope",
    "close": "stop_loss_action",
}
FEE_KEYS = {
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

    >>> limits = Limits(max_order_qty=100, accounts={7: {"max_order_qty": 50, "symbols": {"X": {}}}})

    The keys are those of docs/RISK.md; `symbols`, `accounts` and `changes` nest as in their TOML. Integers
    of money count 1e-9 and those of time ns, as everywhere in Python; text, floats and decimals are the
    currency. Raises LimitsError with everything that is wrong.

    Limits can be pickled: all that was given goes along, 8 bytes a row and key, whatever their file is then.
    """

    __slots__ = ("_rules", "_version")

    def __init__(self, **keys: Any) -> None:
        self._rules = Rules(from_rules(read_keys(keys, "limits")), "limits")
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
        """Limits as a call may give them: as such, as a file of them, or as a dict as their TOML has it.

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
        return cls._at(Rules(given, what), 0)

    @classmethod
    def _at(cls, rules: Rules, version: int) -> Limits:
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

    def of_all_text(self) -> dict[str, str]:
        """The limits of all that are given, as reports print them: {"stop_loss_percentage": "2 %"}."""
        given = self._rules.given_to_all(self._version)
        return {key: limit_text(key, given[key]) for key in KEYS if key in given}

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

    def check_ticks(self, symbols: Sequence[str], ticks: np.ndarray) -> None:
        """Raises UsageError for symbols that a limit in ticks is for and that have no tick (0).

        The largest tick that fits the prices seen so far would do for books, but not here: a flow in chunks
        would decide otherwise than one in one piece.
        """
        needed = self._rules.symbols_with("price_band_ticks", symbols)
        tick_of = dict(zip(symbols, ticks.tolist(), strict=True))
        if missing := [symbol for symbol in needed if not tick_of[symbol]]:
            names = ", ".join(map(repr, missing[:_SHOWN_SYMBOLS]))
            more = len(missing) - _SHOWN_SYMBOLS
            names += f" and {more:,} more" if more > 0 else ""
            raise UsageError(
                f"{self._rules.what}: found price_band_ticks and no tick size of {names}, expected it as "
                f'tick_size="0.01", as --tick-size 0.01 or in [instruments.{missing[0]}]'
            )

    # -------------------------------------------------------------- what holds for whom

    def account_limits(self, accounts: np.ndarray, unit: int = ONE) -> np.ndarray:
        """An ACCOUNT_LIMIT for each account; `unit` is what sums over symbols are counted in."""
        lookup = Lookup(self._rules, self._version, accounts)
        records = np.empty(lookup.size, ACCOUNT_LIMIT)
        for field, key in ACCOUNT_KEYS.items():
            records[field] = lookup.of(key)
        records["has_group"] = records["group"] != NONE_GIVEN
        records["group"][records["has_group"] == 0] = 0
        records["known"] = self._rules.are_known(lookup.accounts, self._version)
        _turn_round(records, "portfolio", "most", np.full(records.size, unit))
        return records

    def cell_limits(
        self, accounts: np.ndarray, symbols: Sequence[str], book: np.ndarray, lots: LotValues = ONES
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which of the different LIMITs each cell has (int32), and these.

        A cell is an account in a symbol; `book` is the symbol's position in `symbols`, `lots` what lots of
        symbols are worth.
        """
        lookup = Lookup(self._rules, self._version, accounts, symbols, book)
        worth = lots.of(symbols)[book]
        which, first = are_alike([key for key in LIMIT_KEYS.values() if key in self.uses], lookup, worth)
        different = lookup.take(first)
        records = np.empty(first.size, LIMIT)
        for field, key in LIMIT_KEYS.items():
            records[field] = different.of(key)
        _turn_round(records, "order_notional", "order_most", worth[first])
        _turn_round(records, "open_notional", "open_most", worth[first])
        return which, records

    def fees(self, accounts: np.ndarray, symbols: Sequence[str], book: np.ndarray) -> np.ndarray:
        """A FEE for each cell."""
        lookup = Lookup(self._rules, self._version, accounts, symbols, book)
        records = np.empty(lookup.size, FEE)
        for field, key in FEE_KEYS.items():
            records[field] = lookup.of(key)
        return records

    def references(self, symbols: Sequence[str]) -> np.ndarray:
        """A REFERENCE for each symbol."""
        book = np.arange(len(symbols))
        given = Lookup(self._rules, self._version, np.zeros(book.size), symbols, book).of("reference")
        records = np.zeros(book.size, REFERENCE)
        records["kind"] = FIXED
        for word, kind in _WORDS.items():
            records["kind"][given == word] = kind
        records["price"] = np.where(records["kind"] == FIXED, given, 0)
        return records


def _turn_round(records: np.ndarray, limit: str, most: str, worth: np.ndarray) -> None:
    """The largest price x lots within a limit on money, beside it; see kernels/risk_gate/money.py."""
    pairs, place = np.unique(np.stack([records[limit], worth]), axis=1, return_inverse=True)
    largest = [largest_within(*pair) for pair in pairs.T.tolist()]
    high, low = np.array(largest, np.int64).reshape(-1, 2)[place.ravel()].T
    records[f"{most}_high"], records[f"{most}_low"] = high, low
