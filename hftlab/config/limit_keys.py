"""The keys of the risk gate's limits: name, scope and values of each, declared once.

A limit comes as a setting (TOML, where an amount of money must be text or a decimal) or as a cell (of a
table, of Python, the text of a variable). A cell is first turned into the setting it means. Then both become
one integer in the same way: lots, 1e-9 of the currency, millionths, ns, or a code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

import numpy as np

from hftlab.codes import MAX_QTY, NOT_A_VALUE, Code, SelfTrade
from hftlab.numbers import as_decimal, exact_units

NONE_GIVEN = NOT_A_VALUE  # where a key has no value of its own
REFERENCES = {"last": NOT_A_VALUE + 1, "mid": NOT_A_VALUE + 2}  # a reference that is no fixed price
ACCOUNTS = range(-(2**31), 2**31)

_DURATION_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(rf"([\d.]+) *({'|'.join(_DURATION_NS)})")
_WORDS = {"true": True, "false": False, "1": True, "0": False}


# ------------------------------------------------------------------ what a value may be

Take = Callable[[Any], int | None]  # a setting as an integer; None for a value that is not allowed


def _within(units: int | None, low: int, high: int) -> int | None:
    return units if units is not None and low <= units <= high else None


def _whole(low: int) -> Take:
    def take(value: Any) -> int | None:
        # `type`, not `isinstance`: true is an int, too
        return _within(value, low, MAX_QTY) if type(value) is int else None

    return take


def _number(places: int, low: int, high: int, integers: bool) -> Take:
    """A number with at most so many decimals; without `integers`, only as text or with a decimal point.

    An integer amount of money is ambiguous: units of the currency, or of 1e-9?
    """
    kinds = (str, Decimal, int) if integers else (str, Decimal)

    def take(value: Any) -> int | None:
        return _within(exact_units(value, places), low, high) if type(value) in kinds else None

    return take


def _flag(value: Any) -> int | None:
    return int(value) if type(value) is bool else None


def _one_of(*names: str) -> Take:
    def take(value: Any) -> int | None:
        name = value.lower() if isinstance(value, str) else None
        return names.index(name) if name in names else None

    return take


def _duration(value: Any) -> int | None:
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or (number := exact_units(match[1], 9)) is None:
        return None
    ns, rest = divmod(number * _DURATION_NS[match[2]], 10**9)
    return None if rest else _within(ns, 1, MAX_QTY)


def _reference(value: Any) -> int | None:
    if isinstance(value, str) and value.lower() in REFERENCES:
        return REFERENCES[value.lower()]
    return _price(value)


def _fraction(value: Any) -> int | None:
    """A fraction of the whole, in millionths: 0.02 is two percent."""
    return _within(exact_units(value, 6), 0, 10**6 - 1) if type(value) in (str, Decimal, int) else None


_price = _number(9, max(REFERENCES.values()) + 1, MAX_QTY, integers=False)


class Kind(NamedTuple):
    """A kind of value: how a setting becomes an integer, what an error expected, the unit of a cell."""

    take: Take
    expected: str
    unit: str | None = None  # suffix that turns the integer in a cell into a setting; None: it is one already
    is_whole: bool = False  # 100.0 and the text "100" in a cell are 100
    names: tuple[str, ...] | None = None  # of the integers, where a setting is a name


def _count(of: str) -> Kind:
    return Kind(_whole(0), f"a whole number of {of}, 0 or more", is_whole=True)


def _names(*names: str) -> Kind:
    return Kind(_one_of(*names), f"one of {', '.join(names)}", names=names)


_LOTS = _count("lots")
_MONEY = Kind(
    _number(9, 0, MAX_QTY, integers=False),
    'an amount of 0 or more with at most nine decimals, such as "2500.50"',
    "e-9",
)
_FEE = Kind(
    _number(9, -MAX_QTY, MAX_QTY, integers=False),
    'an amount with at most nine decimals, such as "0.0035"',
    "e-9",
)
_PERCENT = Kind(_number(4, 0, 10**6, integers=True), "a percentage from 0 to 100 with at most four decimals")
_BPS = Kind(
    _number(4, -(10**8), 10**8, integers=True),
    "basis points from -10000 to 10000 with at most four decimals",
)
_FLAG = Kind(_flag, "true or false", names=("false", "true"))
_GROUP = Kind(_whole(-MAX_QTY), "a whole number", is_whole=True)
_TIME = Kind(_duration, 'a time above 0, such as "1s" or "250ms"', "ns")
_REFERENCE = Kind(_reference, 'last, mid or a price, such as "101.25"', "e-9")


# ------------------------------------------------------------------ the keys

Of = Literal["holding", "account", "symbol", "all"]  # a holding is an account in a symbol
_PLACES = {
    "account": "those of all or of an account",
    "symbol": "those of all or of a symbol",
    "all": "those of all",
}


class Key(NamedTuple):
    """One limit: its scope, its kind of value, and its default."""

    of: Of
    kind: Kind
    default: int
    fixed: bool = False  # for a whole run: no change may give it


def _of_holding(kind: Kind, default: int = MAX_QTY) -> Key:
    return Key("holding", kind, default)


NOT_LIMITED = -1  # no band, no stop loss
KEYS = {
    "max_order_qty": _of_holding(_LOTS),
    "max_order_notional": _of_holding(_MONEY),
    "price_band_ticks": _of_holding(_count("ticks"), NOT_LIMITED),
    "price_band_percentage": _of_holding(_PERCENT, NOT_LIMITED),
    "max_position_size": _of_holding(_LOTS),  # sets both of the next
    "max_long_position": _of_holding(_LOTS),
    "max_short_position": _of_holding(_LOTS),
    "max_open_orders": _of_holding(_count("orders")),
    "max_open_notional": _of_holding(_MONEY),
    "max_repeated_orders": _of_holding(_count("orders")),
    "reduce_only": _of_holding(_FLAG, 0),
    "restricted": _of_holding(_FLAG, 0),
    "self_trade": _of_holding(_names(*(mode.name.lower() for mode in SelfTrade)), int(SelfTrade.NONE)),
    "maker_fee_bps": _of_holding(_BPS, 0),
    "taker_fee_bps": _of_holding(_BPS, 0),
    "maker_fee_per_lot": _of_holding(_FEE, 0),
    "taker_fee_per_lot": _of_holding(_FEE, 0),
    "max_orders_per_second": Key("account", _count("messages"), MAX_QTY),
    "max_portfolio_value": Key("account", _MONEY, MAX_QTY),
    "stop_loss_percentage": Key("account", _PERCENT, NOT_LIMITED),
    "stop_loss_scope": Key("account", _names("account", "position"), 0, fixed=True),
    "stop_loss_action": Key("account", _names("reduce", "close"), 0),
    "capital": Key("account", _MONEY, 0, fixed=True),
    "self_trade_group": Key("account", _GROUP, NONE_GIVEN, fixed=True),
    "reference": Key("symbol", _REFERENCE, REFERENCES["last"], fixed=True),
    "unknown_accounts": Key("all", _names("default", "reject"), 0, fixed=True),
    "mark_interval": Key("all", _TIME, 10**9, fixed=True),
    "repeated_order_window": Key("all", _TIME, 10**9, fixed=True),
}
TRADING_KEYS = (  # of [trading]; all others are of [risk]
    "maker_fee_bps",
    "taker_fee_bps",
    "maker_fee_per_lot",
    "taker_fee_per_lot",
    "capital",
    "reference",
    "mark_interval",
)
# Limits that [trading] takes as well, in the units of the system whose file has them there.
TRADING_LIMITS = {
    "max_orders_per_second": KEYS["max_orders_per_second"].kind,
    "max_position_size": KEYS["max_position_size"].kind,
    "max_portfolio_value": Kind(_number(9, 0, MAX_QTY, integers=True), _MONEY.expected),  # of the currency
    "stop_loss_percentage": Kind(
        _fraction, "a fraction below 1 with at most six decimals, such as 0.02 for 2 %"
    ),
}
BOTH_SIDES, SIDES = "max_position_size", ("max_long_position", "max_short_position")


def misplaced(key: str, account: bool, symbol: bool, later: bool) -> tuple[str, str] | None:
    """(found, expected) for a key in a place that can't have it; None where it can.

    `account` and `symbol` are whether one is named, `later` whether it is a change during the run.
    """
    limit = KEYS[key]
    if (symbol and limit.of in ("account", "all")) or (account and limit.of in ("symbol", "all")):
        whose = " in ".join([*["an account"] * account, *["a symbol"] * symbol])
        return f"it in limits of {whose}", f"it in {_PLACES[limit.of]}"
    if later and limit.fixed:
        return "it in a change during the run", "it from the start"
    return None


def unknown(name: str, known: Iterable[str]) -> str:
    """The problem with a key that does not exist."""
    close = get_close_matches(name, known := list(known), 1)
    return f"no such key, {f'did you mean {close[0]}?' if close else 'expected one of ' + ', '.join(known)}"


def shown(value: Any) -> str:
    """A value as text that fits into a line."""
    value = plain_number(value)
    text = str(value) if isinstance(value, Decimal | np.floating) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def wrong(key: str, value: Any, kind: Kind | None = None) -> str:
    """The problem with a value that its key, or the kind it has in its place, doesn't take."""
    kind = KEYS[key].kind if kind is None else kind
    problem = f"found {shown(value)}, expected {kind.expected}"
    if kind.take is _fraction and (ppm := _PERCENT.take(value)) is not None and 10**4 <= ppm < 10**6:
        percent = decimal_text(ppm, 4)
        problem += f"; write {percent} % as {decimal_text(ppm, 6)} here, or as {percent} in [risk]"
    return problem


def decimal_text(units: int, places: int) -> str:
    """An integer of units of the last place as a decimal without further zeros: 20000 at four is 2."""
    text = f"{Decimal(units).scaleb(-places):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def limit_text(key: str, units: int) -> str:
    """A limit as a report prints it: 20000 millionths of a stop loss are "2 %"."""
    kind = KEYS[key].kind
    if kind is _PERCENT:
        return f"{decimal_text(units, 4)} %"
    if kind is _BPS:
        return f"{decimal_text(units, 4)} bps"
    if kind is _REFERENCE:
        words = {code: word for word, code in REFERENCES.items()}
        return words.get(units) or decimal_text(units, 9)
    if kind in (_MONEY, _FEE):
        return decimal_text(units, 9)
    if kind is _TIME:
        return f"{decimal_text(units, 9)}s"
    return f"{units:,}" if kind.names is None else kind.names[units]


# ------------------------------------------------------------------ cells


def is_blank(value: Any) -> bool:
    """Whether a cell is empty: null, no text. NaN is not empty, and no limit."""
    return value is None or (isinstance(value, str) and not value)


def names_nothing(value: Any) -> bool:
    """Whether a cell names no account, symbol or row; there NaN is what a column of floats has for null."""
    return is_blank(value) or (isinstance(value, float | np.floating) and math.isnan(value))


def plain_number(value: Any) -> Any:
    """A number of any type as an int or a Decimal, which are exact; NaN and what is no number as they are."""
    if isinstance(value, float | np.floating):
        return value if (number := as_decimal(value)) is None else number
    if isinstance(value, np.datetime64 | np.timedelta64):  # their items may be integers
        return value
    return value.item() if hasattr(value, "item") else value  # of numpy


def as_setting(key: str, cell: Any) -> Any:
    """The setting that a cell of a table, or the text of a variable, means; the cell itself if there is none.

    `Kind.take` then refuses such a cell, and the error quotes what was written.
    """
    kind = KEYS[key].kind
    if isinstance(cell, Code):
        return cell.name
    cell = plain_number(cell)  # a float by its shortest text: 0.1 is 0.1
    if isinstance(cell, str):
        cell = cell.strip()
    if type(cell) is int and kind.unit is not None:
        return f"{cell}{kind.unit}"
    if kind is _FLAG:
        return _WORDS.get(str(cell).lower(), cell)
    if kind.is_whole and isinstance(cell, str | Decimal):
        return cell if (number := exact_units(cell, 0)) is None else number
    return cell
