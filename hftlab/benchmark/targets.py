"""What was asked of this toolkit, and what it does: measured value, target, verdict.

The first five are those of the system it re-creates, measured behind the risk gate; the others its own.
What is measured is part of a row, so that a figure can't be taken for another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from hftlab.benchmark.cases import REPETITIONS, WARMUP, Case, Way
from hftlab.benchmark.child import run_task
from hftlab.benchmark.estimate import seconds_of_each
from hftlab.benchmark.records import Measurement, Report
from hftlab.benchmark.session import bench
from hftlab.errors import MeasurementError

MET, MISSED, NOT_MEASURED = "met", "missed", "not measured"
ORDERS, RATE = 1_000_000, 1_000_000
PATHS: tuple[Way, ...] = ("event", "batch", "replay")
TASKS_S = {"memory": 6.0, "paced": 8.0, "windows": 5.0}  # roughly


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One row: `values` are repetitions (or windows); `below` is whether values below `limit` are good."""

    name: str
    limit: float
    below: bool
    unit: str
    how: str
    values: tuple[float, ...]

    @property
    def value(self) -> float | None:
        """The median; None where nothing could be measured."""
        ordered = sorted(self.values)
        count = len(ordered)
        return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2 if count else None

    @property
    def verdict(self) -> str:
        """Whether the median meets the limit."""
        if self.value is None:
            return NOT_MEASURED
        return MET if (self.value < self.limit if self.below else self.value > self.limit) else MISSED

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        low_high = {"low": min(self.values, default=None), "high": max(self.values, default=None)}
        return {"value": self.value, **low_high, "verdict": self.verdict, **msgspec.to_builtins(self)}


def measure_targets(
    orders: int = ORDERS,
    repetitions: int = REPETITIONS,
    *,
    pin: bool = True,
    isolated: bool = True,
    progress: Callable[[str], object] | None = None,
) -> tuple[Report, list[Target]]:
    """Measure the targets: the report of their cases, and a row for each. Raises as `bench` does."""
    cases = _cases(orders)
    report = bench(cases, repetitions, pin=pin, isolated=isolated, progress=progress)
    by_case = {m.case: m for m in report.measurements}
    measured = [by_case[case] for case in cases]

    def task(name: str, **how: Any) -> list[float]:
        from hftlab.benchmark.tasks import TASKS

        how |= {"repetitions": repetitions, "pin": pin}
        found = run_task(name, name, **how) if isolated else TASKS[name](**how)
        if found["digest"] not in (None, measured[0].digest):
            raise MeasurementError(f"{name}: found digest {found['digest']}, expected {measured[0].digest}")
        if progress is not None:
            progress(name)
        return found["values"]

    gated = msgspec.to_builtins(cases[0])
    rows = of_measurements(measured)
    rows[2:2] = [
        _memory(task("memory", orders=ORDERS)),
        _share(task("paced", case=gated, rate=RATE)),
        _window(task("windows", case=gated)),
    ]
    report.targets = tuple(row.as_dict() for row in rows)
    return report, rows


def _cases(orders: int) -> list[Case]:
    return [Case(path="event", orders=orders, risk=True), *(Case(path=p, orders=orders) for p in PATHS)]


def steps(orders: int, repetitions: int) -> list[tuple[str, float]]:
    """The names that `progress` is called with, each with roughly its seconds."""
    cases = _cases(orders)
    expected = seconds_of_each(cases, repetitions, WARMUP, cold=False)
    return [*zip((case.name for case in cases), expected, strict=True), *TASKS_S.items()]


def of_measurements(measured: list[Measurement]) -> list[Target]:
    """The rows that are times of cases: event loop behind the gate, event loop, batch, replay."""
    gated, event, batch, replay = measured
    loop = "event loop, gate"
    return [
        _mean("mean order processing", 500, loop, gated),
        _rate("orders per second", 1e6, loop, gated),
        _mean("own: mean", 50, "event loop", event),
        _mean("own: mean", 50, "batch, tape ready", batch),
        _rate("own: orders/s and core", 50e6, "batch, tape ready", batch),
        _rate("own: orders/s and core", 50e6, "table to tables", replay),
    ]


def _mean(name: str, limit: float, how: str, m: Measurement) -> Target:
    return Target(name=name, limit=limit, below=True, unit="ns", how=how, values=m.times_ns)


def _rate(name: str, limit: float, how: str, m: Measurement) -> Target:
    values = tuple(1e9 / ns for ns in m.times_ns)
    return Target(name=name, limit=limit, below=False, unit="/s", how=how, values=values)


def _memory(values: list[float]) -> Target:
    return Target(
        name="memory of 1 M orders",
        limit=100,
        below=True,
        unit="MB",
        how=f"peak, {ORDERS:,} in an OrderBook",
        values=tuple(values),
    )


def _share(values: list[float]) -> Target:
    return Target(
        name="processor at 1 M orders/s",
        limit=50,
        below=True,
        unit="%",
        how="event loop, gate; 1,000 come at a time",
        values=tuple(values),
    )


def _window(values: list[float]) -> Target:
    return Target(
        name="p99 - p50, undisturbed",
        limit=100,
        below=True,
        unit="ns",
        how="event loop, gate; windows of 1,000",
        values=tuple(values),
    )
