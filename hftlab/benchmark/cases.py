"""Cases to measure: one by its fields, many by a matrix, in Python or in TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from hftlab.errors import ConfigError, UsageError

Flow = Literal["market", "scattered", "resting", "crossing"]
Way = Literal["batch", "replay", "event", "python"]
PATHS: dict[Way, str] = {
    "batch": "a compiled tape through the batch kernel",
    "replay": "a table to its result: checked, compiled, run, fills and outcomes as tables",
    "event": "the compiled event loop, one command after the other",
    "python": "one call of OrderBook per command, from Python",
}
REPETITIONS, WARMUP = 9, 2
MOST_ORDERS = 100_000_000

Orders = Annotated[int, Meta(ge=1, le=MOST_ORDERS, description=f"a whole number from 1 to {MOST_ORDERS:,}")]
Symbols = Annotated[int, Meta(ge=1, le=10_000, description="a whole number from 1 to 10,000")]
Threads = Annotated[int, Meta(ge=1, le=256, description="a whole number from 1 to 256")]
Rate = Annotated[float, Meta(gt=0, le=1e9, description="commands per second, more than 0 and at most 1e9")]
Seed = Annotated[int, Meta(ge=0, description="a whole number of 0 or more")]


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing to measure. `rate` makes commands due at fixed moments (an open loop); event path only."""

    path: Way = "batch"
    flow: Flow = "market"
    orders: Orders = 1_000_000
    symbols: Symbols = 1
    risk: bool = False
    threads: Threads = 1
    rate: Rate | None = None
    seed: Seed = 1

    @property
    def name(self) -> str:
        """A few words; different cases have different names."""
        words = [self.path, self.flow, _short(self.orders), f"x{self.symbols}"]
        words += ["gate"] if self.risk else []
        words += [f"{self.threads} threads"] if self.threads > 1 else []
        words += [f"@{_short(self.rate)}/s"] if self.rate is not None else []
        words += [f"seed {self.seed}"] if self.seed != 1 else []
        return " ".join(words)

    @property
    def behaviour(self) -> tuple[Any, ...]:
        """All that decides the digest: cases with equal behaviour must give equal digests, on every path."""
        return self.flow, self.orders, self.symbols, self.seed, self.risk


def _short(number: float) -> str:
    for unit, scale in (("M", 1_000_000), ("k", 1_000)):
        if number >= scale and number % scale == 0:
            return f"{number // scale:.0f}{unit}"
    return f"{number:.15g}"


def possible(case: Case) -> bool:
    """Whether a path can run a case: threads divide instruments in batch and replay, a rate is for event."""
    threads = case.threads == 1 or (case.path in ("batch", "replay") and case.threads <= case.symbols)
    return threads and (case.rate is None or case.path == "event")


def kernels_of(case: Case) -> tuple[str, bool, bool]:
    """A key: cases with the same run the same kernels."""
    return case.path, case.risk, case.threads > 1


def cold_kind(case: Case) -> tuple[str, bool] | None:
    """Cases of one kind share a cold start: a path, with the gate or without; on one thread."""
    return (case.path, case.risk) if case.threads == 1 else None


class Matrix(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All combinations of some values; impossible ones are left out (see `possible`)."""

    paths: tuple[Way, ...] = ("batch", "event", "python")
    flows: tuple[Flow, ...] = ("market",)
    orders: tuple[Orders, ...] = (1_000_000,)
    symbols: tuple[Symbols, ...] = (1,)
    risk: tuple[bool, ...] = (False,)
    threads: tuple[Threads, ...] = (1,)
    rates: tuple[Rate, ...] = ()  # besides the closed loop
    seed: Seed = 1

    def cases(self) -> list[Case]:
        """The cases by flow, then size, then path."""
        rates = (None, *self.rates)
        axes = (self.flows, self.orders, self.symbols, self.paths, self.risk, self.threads, rates)
        found = [
            Case(path=p, flow=f, orders=o, symbols=s, risk=r, threads=t, rate=rate, seed=self.seed)
            for f, o, s, p, r, t, rate in product(*axes)
        ]
        return [case for case in found if possible(case)]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file like benchmarks/config.toml."""

    matrix: tuple[Matrix, ...]
    repetitions: Annotated[int, Meta(ge=3, description="a whole number of 3 or more")] = REPETITIONS
    warmup: Annotated[int, Meta(ge=1, description="a whole number of 1 or more")] = WARMUP
    cold: bool = False

    def cases(self) -> list[Case]:
        """The cases of all matrices, each once."""
        return list(dict.fromkeys(case for matrix in self.matrix for case in matrix.cases()))


def quick(orders: int, rate: float | None = None) -> list[Case]:
    """The cases of `hftlab bench` without options."""
    cases = Matrix(paths=tuple(PATHS), orders=(orders,)).cases()
    cases += Matrix(paths=("batch", "event"), orders=(orders,), symbols=(100,)).cases()
    cases += Matrix(paths=("event",), orders=(orders,), risk=(True,)).cases()
    if rate is not None:
        cases = [Case(path="event", orders=orders, risk=risk, rate=rate) for risk in (False, True)]
    return cases


def comprehensive(orders: int, threads: int) -> list[Case]:
    """Flows, sizes, symbols, paths, risk and threads.

    The python path runs many symbols only with the market flow: its time is that of the call, whatever it
    calls.
    """
    sizes = tuple(sorted({max(1, orders // 10), orders}))
    others: tuple[Flow, ...] = ("scattered", "resting", "crossing")
    paths, counts = tuple(PATHS), tuple(sorted({1, min(threads, 2), threads}))
    plan = Plan(
        matrix=(
            Matrix(paths=paths, orders=sizes, symbols=(1, 100), risk=(False, True), threads=counts),
            Matrix(paths=paths, flows=others, orders=(orders,)),
            Matrix(paths=("batch", "event"), flows=others, orders=(orders,), symbols=(100,)),
            Matrix(paths=("batch", "event"), orders=(orders,), symbols=(2_000,), threads=counts),
            Matrix(paths=("event",), orders=(orders,), risk=(False, True), rates=(100_000, 1_000_000)),
        )
    )
    return plan.cases()


def load_plan(path: str | Path) -> Plan:
    """A matrix from TOML. Raises ConfigError naming file, key, what was found and what was expected."""
    try:
        settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: found {str(error.strerror).lower()}, expected a TOML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: found byte {error.start} not UTF-8, expected a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    try:
        plan = msgspec.convert(settings, Plan)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}{_problem(settings, str(error))}") from None
    if not plan.cases():
        raise ConfigError(f"{path}, matrix: no combination of these values can be measured")
    return plan


def require_possible(cases: Iterable[Case]) -> None:
    """Raises UsageError for a case that no path can run, and for no cases."""
    cases = list(cases)
    if not cases:
        raise UsageError("cases: found none, expected one or more")
    for case in cases:
        if not possible(case):
            raise UsageError(
                f"case {case.name}: threads are for batch and replay, at most one per symbol; "
                "a rate is for event"
            )


def _problem(settings: dict[str, Any], message: str) -> str:
    """The error of msgspec as key, found and expected."""
    place = (re.search(r" - at `\$\.?(.*)`$", message) or ["", ""])[1]
    where = f", {place}" if place else ""
    struct: Any = Matrix if place.startswith("matrix[") else Plan
    if unknown := re.search(r"unknown field `(.*?)`", message):
        key = f"{place}.{unknown[1]}" if place else unknown[1]
        return f", {key}: no such key, expected one of {', '.join(_fields(struct))}"
    if missing := re.search(r"missing required field `(.*?)`", message):
        return f", {missing[1]}: missing, expected one or more tables [[{missing[1]}]]"
    found = settings
    for step in re.findall(r"\w+", place):
        found = found[int(step)] if isinstance(found, list) else found[step]
    key = (re.findall(r"[a-z_]+", place) or ["matrix"])[-1]
    element = place.count("[") > 1
    return f"{where}: found {found!r}, expected {_takes(struct, key, element)}"


def _fields(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(struct)}


def _takes(struct: type[msgspec.Struct], key: str, element: bool) -> str:
    """The values a key takes, for an error; `element` if one value of a list is wrong."""
    if key == "matrix":
        return "tables [[matrix]]"
    kind = _fields(struct)[key]
    is_list = getattr(kind, "__origin__", None) is tuple
    inner = get_args(kind)[0] if is_list else kind
    words = _words(inner)
    return f"a list of {words}" if is_list and not element else words


def _words(kind: Any) -> str:
    if hasattr(kind, "__metadata__"):
        return kind.__metadata__[-1].description
    if kind is bool:
        return "true or false"
    return "a whole number" if kind is int else f"one of {', '.join(get_args(kind))}"
