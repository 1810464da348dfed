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

    [performance]                       # what a run asks of the machine; docs/CONFIGURATION.md
    cpu_affinity = [0, 1]

    [monitoring]
    export_format = "prometheus"

    [risk]                              # limits of all; the keys are in docs/RISK.md
    max_order_qty = 1000

    [risk.accounts.7]                   # what is not given here comes from the symbol, then from [risk]
    max_order_qty = 50

Environment variables override the file: section, key and what is between them are joined by two
underscores, as in ``HFTLAB_REPLAY__THREADS=2``, ``HFTLAB_REPLAY__RECORD=fills,l1``,
``HFTLAB_INSTRUMENTS__AAPL__TICK_SIZE=0.01`` or ``HFTLAB_RISK__ACCOUNTS__7__MAX_ORDER_QTY=50``. Four short
ones, of a system whose files load as they are, come between the file and those: ``HFT_LOG_LEVEL``,
``HFT_CPU_AFFINITY``, ``HFT_NUMA_NODE`` and ``HFT_HUGEPAGES``.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hftlab.config import lot_values
from hftlab.config.limit_keys import KEYS, TRADING_KEYS, TRADING_LIMITS, as_setting
from hftlab.config.limit_settings import RISK_KEYS, read_settings
from hftlab.errors import MOST_LEVELS, ConfigError, LimitsError
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

SHORT_VARIABLES = {  # of the system whose files load as they are: section and key of each
    "HFT_LOG_LEVEL": ("monitoring", "log_level"),
    "HFT_CPU_AFFINITY": ("performance", "cpu_affinity"),
    "HFT_NUMA_NODE": ("performance", "numa_node"),
    "HFT_HUGEPAGES": ("performance", "use_hugepages"),
}
_FLAGS = {"true": True, "false": False, "1": True, "0": False, "on": True, "off": False}

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
OptionalFlag = Annotated[Flag | None, Meta(description="true or false")]
MOST_CORES = 65536
Core = Annotated[int, Meta(ge=0, lt=MOST_CORES)]
Cores = Annotated[
    Annotated[tuple[Core, ...], Meta(min_length=1)] | None,
    Meta(description="a list of cores from 0 on, such as [0, 1]"),
]
Node = Annotated[Annotated[int, Meta(ge=0, lt=MOST_CORES)] | None, Meta(description="a NUMA node from 0 on")]
Allocator = Annotated[
    Literal["mimalloc", "jemalloc", "system"] | None, Meta(description="mimalloc, jemalloc or system")
]
ExportFormat = Annotated[Literal["prometheus"] | None, Meta(description="prometheus")]
LogLevel = Annotated[
    Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] | None,
    Meta(description="TRACE, DEBUG, INFO, WARNING, ERROR or CRITICAL"),
]


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


class Performance(Section, frozen=True, weakref=True):
    """``[performance]``: what a run asks of the machine; None leaves it as it is."""

    use_hugepages: OptionalFlag = None
    cpu_affinity: Cores = None
    numa_node: Node = None
    allocator: Allocator = None  # of Arrow's memory


class Monitoring(Section, frozen=True):
    """``[monitoring]``: what a live engine tells of itself; a replay reads `log_level` alone."""

    metrics_enabled: OptionalFlag = None
    latency_profiling: OptionalFlag = None
    export_format: ExportFormat = None
    log_level: LogLevel = None  # above WARNING, what can't be applied is not printed


class Config(Section, frozen=True):
    """All settings; ``Config()`` is the defaults."""

    replay: Replay = Replay()
    instruments: dict[str, Instrument] = {}
    feed: dict[str, Any] = {}  # checked by the feed they are for
    risk: dict[str, Any] = {}  # as TOML has it, checked: `Limits.from_settings` reads it
    trading: dict[str, Any] = {}
    performance: Performance = Performance()
    monitoring: Monitoring = Monitoring()

    def instrument(self, symbol: str) -> Instrument:
        """Settings of one instrument: its own section over ``[instruments.default]``."""
        return self.instruments.get(symbol) or self.instruments.get(DEFAULT_INSTRUMENT) or Instrument()


def load_config(path: str | Path | None = None, env: Mapping[str, str] = os.environ) -> Config:
    """Settings from a TOML file (optional), then environment variables over it.

    Raises ConfigError with everything that is wrong: the file (or the variable), the key, what was found and
    what was expected.
    """
    settings = _read(path) if path is not None else {}
    _decode(settings, f"{path}")  # the file must be right by itself, whatever overrides it
    problems = []
    for name, value in _variables_of(env):
        try:
            _override(settings, name, value)
        except ConfigError as error:
            problems.append(error)
    if problems:
        raise problems[0] if len(problems) == 1 else _together("environment", [str(p) for p in problems])
    return _decode(settings, "environment")


def _variables_of(env: Mapping[str, str]) -> list[tuple[str, str]]:
    """The variables that are settings, in the order in which each goes over those before."""
    short = [(name, env[name]) for name in SHORT_VARIABLES if env.get(name, "").strip()]
    long = [name for name in sorted(env) if name.startswith(ENV_PREFIX) and ENV_SEPARATOR in name]
    return short + [(name, env[name]) for name in long]


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
    """The settings, checked. Raises ConfigError (LimitsError, if nothing else is wrong) with all problems."""
    problems = [_unknown(name, Config) for name in settings if name not in _fields(Config)]
    structs = {
        name: _section(settings.get(name, {}), struct, name, problems)
        for name, struct in (("replay", Replay), ("performance", Performance), ("monitoring", Monitoring))
    }
    feed = settings.get("feed", {})
    if not isinstance(feed, dict):
        problems.append(_wrong("feed", feed, "a table"))
    instruments = _instruments(settings.get("instruments", {}), problems)
    limits = {name: settings.get(name, {}) for name in ("risk", "trading")}
    try:
        read_settings(**limits, what=where)
    except LimitsError as error:
        if not problems:
            raise
        problems += error.problems
    if problems:
        raise _together(where, problems)
    return Config(instruments=instruments, feed=feed, **structs, **limits)


def _together(where: str, problems: list[str]) -> ConfigError:
    """One error of everything that is wrong."""
    if len(problems) == 1:
        return ConfigError(f"{where}, {problems[0]}")
    return ConfigError(f"{where}: {len(problems)} problems: {'; '.join(problems)}")


def _instruments(settings: Any, problems: list[str]) -> dict[str, Instrument]:
    """Each instrument's own settings, checked by themselves, over those of ``default``."""
    if not isinstance(settings, dict):
        problems.append(_wrong("instruments", settings, "a table"))
        return {}
    before = len(problems)
    for symbol, own in settings.items():
        _instrument(own, symbol, problems)
    if len(problems) > before:
        return {}
    # each is checked alone first, so that an error names the section where the key stands
    default = settings.get(DEFAULT_INSTRUMENT, {})
    return {symbol: _instrument({**default, **own}, symbol, problems) for symbol, own in settings.items()}


def _instrument(settings: Any, symbol: str, problems: list[str]) -> Instrument:
    name = "instruments." + (symbol if re.fullmatch(r"[\w-]+", symbol) else f'"{symbol}"')
    if not isinstance(settings, dict):
        return _section(settings, Instrument, name, problems)
    units, before = dict(settings), len(problems)
    for key in (key for key in _UNITS if key in settings):
        units[key] = _UNITS[key](settings[key])
        if units[key] is None:
            problems.append(_wrong(f"{name}.{key}", settings[key], _takes(Instrument, key)))
    instrument = _section(units, Instrument, name, problems)
    if len(problems) == before and lot_values.worth_of(instrument.lot_size, instrument.multiplier) is None:
        found = f"{settings.get('multiplier', 1)} x a lot_size of {settings.get('lot_size', 1)}"
        expected = "a product of at most nine decimals, up to 1e9"
        problems.append(f"{name}.multiplier: found {found}, expected {expected}")
    return instrument


def _tick_size(value: Any) -> int | None:
    """A tick from text or a TOML float; None for others: an integer might mean 1e-9 units."""
    try:
        if isinstance(value, str | Decimal) and (units := decimal_units(value)) > 0:
            return units
    except ValueError:
        pass
    return None


_UNITS: dict[str, Callable[[Any], int | None]] = {  # what is kept in 1e-9
    "tick_size": _tick_size,
    "lot_size": lot_values.positive_units,
    "multiplier": lot_values.positive_units,
}


def _section(settings: Any, struct: type[Section], name: str, problems: list[str]) -> Any:
    """One section as its struct; each problem in it is added with the key's full path."""
    if not isinstance(settings, dict):
        problems.append(_wrong(name, settings, "a table"))
        return struct()
    types, values = _fields(struct), {}
    for key, value in settings.items():
        if key not in types:
            problems.append(_unknown(f"{name}.{key}", struct))
            continue
        try:
            values[key] = msgspec.convert(value, types[key])
        except msgspec.ValidationError:
            problems.append(_wrong(f"{name}.{key}", value, _takes(struct, key)))
    return struct(**values)


def _override(settings: dict[str, Any], name: str, value: str) -> None:
    """Put one environment variable into the settings, converted to its field's type."""
    if name in SHORT_VARIABLES:
        section, key = SHORT_VARIABLES[name]
        symbol: list[str] = []
    else:
        section, *symbol, key = name.removeprefix(ENV_PREFIX).split(ENV_SEPARATOR)
        section, key = section.lower(), key.lower()
    if section in ("risk", "trading"):
        _override_limit(settings, [section, *symbol], key, value, name)
        return
    structs: dict[tuple[str, int], type[Section]] = {
        ("replay", 0): Replay,
        ("performance", 0): Performance,
        ("monitoring", 0): Monitoring,
        ("instruments", 1): Instrument,
    }
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
        if _UNITS[key](text) is None:
            raise ConfigError(_wrong(where, text, _takes(struct, key)))
        return text
    read = _TEXTS.get(key)
    try:
        return msgspec.convert(read(text) if read else text, _fields(struct)[key], strict=False)
    except (msgspec.ValidationError, ValueError):
        raise ConfigError(_wrong(where, text, _takes(struct, key))) from None


def _cores(text: str) -> list[int]:
    """Cores as 0,1,2 or 0-2, in brackets or not. Raises ValueError."""
    cores: list[int] = []
    for part in text.strip("[]").split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if high < low or high >= MOST_CORES:
            raise ValueError(part)
        cores += range(low, high + 1)
    return cores


_TEXTS: dict[str, Callable[[str], Any]] = {  # how the text of a variable is read, if not as it is
    "record": partial(re.split, r"\s*,\s*"),
    "cpu_affinity": _cores,
    "use_hugepages": lambda text: _FLAGS.get(text.lower(), text),
    "log_level": lambda text: {"WARN": "WARNING"}.get(text.upper(), text.upper()),
}


def _variables() -> list[str]:
    keys = {
        "REPLAY": _fields(Replay),
        "INSTRUMENTS__SYMBOL": _fields(Instrument),
        "PERFORMANCE": _fields(Performance),
        "MONITORING": _fields(Monitoring),
        "TRADING": (*TRADING_KEYS, *TRADING_LIMITS),
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


def _wrong(where: str, found: Any, expected: str) -> str:
    shown = str(found) if isinstance(found, Decimal) else repr(found)
    return f"{where}: found {shown}, expected {expected}"


def _unknown(name: str, struct: type[Section]) -> str:
    return f"{name}: no such key, expected one of {', '.join(_fields(struct))}"
