"""Settings from a TOML file and the environment, typed and checked before anything runs.

One place decides what a setting is called, what values it takes and how it is merged, so that a wrong
one is a single line naming file and key, and never a surprise in the middle of a replay::

    [replay]
    threads = 2
    record = ["fills", "l1"]

    [instruments.default]
    tick_size = "0.01"

    [instruments.BTCUSD]
    lot_size = "1e-8"                   # lots are satoshi: money is price x lots x this

    [instruments.ES]
    multiplier = 50                     # x this: 50 a point

    [feed]                              # how a source is read: options of its feed
    format = "generic"
    columns = { ts = "time", order_id = "oid" }

    [instruments."CL-SPREAD"]           # what is not given here comes from [instruments.default]
    allow_nonpositive_prices = true

    [trading]                           # what trading costs, and what positions are valued at
    taker_fee_bps = 0.3

    [risk]                              # limits of all; the keys are in docs/RISK.md
    max_order_qty = 1000

    [risk.accounts.7]                   # what is not given here comes from the symbol, then from [risk]
    max_order_qty = 50

Environment variables override the file: section, key and what is between them are joined by two
underscores, as in ``HFTLAB_REPLAY__THREADS=2``, ``HFTLAB_REPLAY__RECORD=fills,l1``,
``HFTLAB_INSTRUMENTS__AAPL__TICK_SIZE=0.01`` or ``HFTLAB_RISK__ACCOUNTS__7__MAX_ORDER_QTY=50``.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hftlab.config import lot_values
from hftlab.config.limit_keys import KEYS, TRADING_KEYS, as_setting
from hftlab.config.limit_settings import RISK_KEYS, read_settings
from hftlab.errors import MOST_LEVELS, ConfigError
from hftlab.numbers import exact_units

ENV_PREFIX = "HFTLAB_"
ENV_SEPARATOR = "__"
DEFAULT_INSTRUMENT = "default"
RECORDABLE = (  # tables a replay can keep
    "fills",
    "rejects",
    "outcomes",
    "l1",
    "depth",
    "book",
    "anomalies",
    "gate",
    "positions",
    "pnl",
)

# A setting's type; the description is what its error expected.
Count = Annotated[int, Meta(ge=1, description="an integer, 1 or more")]
OptionalCount = Annotated[Count | None, Meta(description="an integer, 1 or more")]
Levels = Annotated[int, Meta(ge=1, le=MOST_LEVELS, description=f"an integer from 1 to {MOST_LEVELS}")]
ReplayPath = Annotated[Literal["batch", "event"], Meta(description="batch or event")]
Tables = Annotated[
    tuple[
        Literal[
            "fills", "rejects", "outcomes", "l1", "depth", "book", "anomalies", "gate", "positions", "pnl"
        ],
        ...,
    ],
    Meta(description=f"a list of {', '.join(RECORDABLE)}"),
]
TickSize = Annotated[
    int | None, Meta(description='a positive decimal of at most nine places, such as "0.01"')
]
LotSize = Annotated[int | None, Meta(description=lot_values.EXPECTED)]
Multiplier = Annotated[int | None, Meta(description="a positive number of at most nine decimals, such as 50")]
Flag = Annotated[bool, Meta(description="true or false")]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Part of the settings: immutable; an unknown key is an error."""


class Replay(Section, frozen=True):
    """``[replay]``: how a flow is replayed and what is kept of it."""

    threads: Count = 1
    path: ReplayPath = "batch"
    record: Tables = ("fills", "outcomes")
    chunk_rows: OptionalCount = None  # None: the whole flow at once
    depth: Levels = 10  # per side of a depth table


class Instrument(Section, frozen=True):
    """``[instruments.SYMBOL]``: what is known of an instrument before its first row."""

    tick_size: TickSize = None  # 1e-9 units; None: inferred from the flow
    lot_size: LotSize = None  # 1e-9 of the unit that prices are for; None: the feed's, or 1
    multiplier: Multiplier = None  # 1e-9; None: 1
    allow_nonpositive_prices: Flag = False  # of commands (spreads, energy); a venue's messages may have any


class Config(Section, frozen=True):
    """All settings; ``Config()`` is the defaults."""

    replay: Replay = Replay()
    instruments: dict[str, Instrument] = {}
    feed: dict[str, Any] = {}  # checked by the feed they are for
    risk: dict[str, Any] = {}  # as TOML has it, checked: `Limits.from_settings` reads it
    trading: dict[str, Any] = {}

    def instrument(self, symbol: str) -> Instrument:
        """Settings of one instrument: its own section over ``[instruments.default]``."""
        return self.instruments.get(symbol) or self.instruments.get(DEFAULT_INSTRUMENT) or Instrument()


def load_config(path: str | Path | None = None, env: Mapping[str, str] = os.environ) -> Config:
    """Settings from a TOML file (optional), then environment variables over it.

    Raises ConfigError naming the file (or the variable), the key, what was found and what was expected.
    """
    settings = _read(path) if path is not None else {}
    _decode(settings, f"{path}")  # the file must be right by itself, whatever overrides it
    for name, value in sorted(env.items()):
        if name.startswith(ENV_PREFIX) and ENV_SEPARATOR in name:
            _override(settings, name, value)
    return _decode(settings, "environment")


def decimal_units(value: str | Decimal) -> int:
    """A decimal number as an integer of 1e-9 units.

    Raises ValueError when it is no finite number or has more than nine decimals.
    """
    if (units := exact_units(value, 9)) is None:
        raise ValueError(f"found {str(value)!r}, expected a number of at most nine decimals")
    return units


def _read(path: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as error:
        raise ConfigError(f"{path}: found {str(error.strerror).lower()}, expected a TOML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: found byte {error.start} not UTF-8, expected a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _decode(settings: dict[str, Any], where: str) -> Config:
    for name in settings:
        if name not in _fields(Config):
            raise _unknown(where, name, Config)
    replay = _section(settings.get("replay", {}), Replay, where, "replay")
    feed = settings.get("feed", {})
    if not isinstance(feed, dict):
        raise _wrong(f"{where}, feed", feed, "a table")
    instruments = _instruments(settings.get("instruments", {}), where)
    limits = {name: settings.get(name, {}) for name in ("risk", "trading")}
    read_settings(**limits, what=where)
    return Config(replay=replay, instruments=instruments, feed=feed, **limits)


def _instruments(settings: Any, where: str) -> dict[str, Instrument]:
    """Each instrument's own settings, checked by themselves, over those of ``default``."""
    if not isinstance(settings, dict):
        raise _wrong(f"{where}, instruments", settings, "a table")
    for symbol, own in settings.items():
        _instrument(own, where, symbol)
    # each is checked alone first, so that an error names the section where the key stands
    default = settings.get(DEFAULT_INSTRUMENT, {})
    return {symbol: _instrument({**default, **own}, where, symbol) for symbol, own in settings.items()}


def _instrument(settings: Any, where: str, symbol: str) -> Instrument:
    name = "instruments." + (symbol if re.fullmatch(r"[\w-]+", symbol) else f'"{symbol}"')
    units = settings
    if isinstance(settings, dict):
        given = [key for key in _UNITS if key in settings]
        units = settings | {key: _UNITS[key](settings[key], f"{where}, {name}.{key}") for key in given}
    instrument = _section(units, Instrument, where, name)
    if lot_values.worth_of(instrument.lot_size, instrument.multiplier) is None:
        found = f"{settings.get('multiplier', 1)} x a lot_size of {settings.get('lot_size', 1)}"
        expected = "a product of at most nine decimals, up to 1e9"
        raise ConfigError(f"{where}, {name}.multiplier: found {found}, expected {expected}")
    return instrument


def _tick_size(value: Any, where: str) -> int:
    """A tick from text or a TOML float; an integer might mean 1e-9 units, so it is refused."""
    try:
        if isinstance(value, str | Decimal) and (units := decimal_units(value)) > 0:
            return units
    except ValueError:
        pass
    raise _wrong(where, value, _takes(Instrument, "tick_size"))


def _lot_units(key: str, value: Any, where: str) -> int:
    """A lot size or a multiplier in 1e-9."""
    if (units := lot_values.positive_units(value)) is not None:
        return units
    raise _wrong(where, value, _takes(Instrument, key))


_UNITS = {"tick_size": _tick_size} | {
    key: partial(_lot_units, key) for key in ("lot_size", "multiplier")
}  # what is kept in 1e-9


def _section(settings: Any, struct: type[Section], where: str, name: str) -> Any:
    """One section as its struct; the first problem is a ConfigError with the key's full path."""
    try:
        return msgspec.convert(settings, struct)
    except msgspec.ValidationError as error:
        message = str(error)
    # msgspec names the key in its text only, so it is taken from there
    if unknown := re.search(r"unknown field `(.*?)`", message):
        raise _unknown(where, f"{name}.{unknown[1]}", struct)
    if at := re.search(r" - at `\$\.(\w+)", message):
        raise _wrong(f"{where}, {name}.{at[1]}", settings[at[1]], _takes(struct, at[1]))
    raise _wrong(f"{where}, {name}", settings, "a table")


def _override(settings: dict[str, Any], name: str, value: str) -> None:
    """Put one environment variable into the settings, converted to its field's type."""
    section, *symbol, key = name.removeprefix(ENV_PREFIX).split(ENV_SEPARATOR)
    section, key = section.lower(), key.lower()
    if section in ("risk", "trading"):
        _override_limit(settings, [section, *symbol], key, value, name)
        return
    structs: dict[tuple[str, int], type[Section]] = {("replay", 0): Replay, ("instruments", 1): Instrument}
    struct = structs.get((section, len(symbol)))
    if struct is None or key not in _fields(struct):
        raise ConfigError(f"{name}: no such setting, expected one of {', '.join(_variables())}")
    target = settings.setdefault(section, {})
    if symbol:
        is_default = symbol[0].lower() == DEFAULT_INSTRUMENT
        target = target.setdefault(DEFAULT_INSTRUMENT if is_default else symbol[0], {})
    target[key] = _from_text(value.strip(), struct, key, name)


def _override_limit(settings: dict[str, Any], places: list[str], key: str, value: str, name: str) -> None:
    """Put a variable of `[risk]` or `[trading]` into the settings, checked by itself first."""
    section, *below = places
    # names of accounts and symbols keep their case; the words between them are keys of TOML
    below = [part.lower() if number % 2 == 0 else part for number, part in enumerate(below)]
    if below[::2] not in ([], ["symbols"], ["accounts"], ["accounts", "symbols"]) or len(below) % 2:
        raise ConfigError(f"{name}: no such setting, expected one of {', '.join(_variables())}")
    setting = as_setting(key, value) if key in KEYS else value
    alone: dict[str, Any] = {}
    _put(alone, [section, *below], key, setting)
    read_settings(alone.get("risk", {}), alone.get("trading", {}), name)
    _put(settings, [section, *below], key, setting)


def _put(settings: dict[str, Any], places: list[str], key: str, value: Any) -> None:
    for place in places:
        settings = settings.setdefault(place, {})
    settings[key] = value


def _from_text(text: str, struct: type[Section], key: str, where: str) -> Any:
    if key in _UNITS:  # checked here, where the variable's name is known; converted with its section
        _UNITS[key](text, where)
        return text
    value = re.split(r"\s*,\s*", text) if key == "record" else text
    try:
        return msgspec.convert(value, _fields(struct)[key], strict=False)
    except msgspec.ValidationError:
        raise _wrong(where, text, _takes(struct, key)) from None


def _variables() -> list[str]:
    keys = {
        "REPLAY": _fields(Replay),
        "INSTRUMENTS__SYMBOL": _fields(Instrument),
        "TRADING": TRADING_KEYS,
        "RISK": RISK_KEYS,
        "RISK__SYMBOLS__SYMBOL": ("KEY",),
        "RISK__ACCOUNTS__ACCOUNT": ("KEY",),
        "RISK__ACCOUNTS__ACCOUNT__SYMBOLS__SYMBOL": ("KEY",),
    }
    return [f"{ENV_PREFIX}{place}__{key.upper()}" for place, names in keys.items() for key in names]


def _fields(struct: type[Section]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(struct)}


def _takes(struct: type[Section], key: str) -> str:
    """What a field takes, as an error words it."""
    return _fields(struct)[key].__metadata__[-1].description


def _wrong(where: str, found: Any, expected: str) -> ConfigError:
    shown = str(found) if isinstance(found, Decimal) else repr(found)
    return ConfigError(f"{where}: found {shown}, expected {expected}")


def _unknown(where: str, name: str, struct: type[Section]) -> ConfigError:
    return ConfigError(f"{where}, {name}: no such key, expected one of {', '.join(_fields(struct))}")
