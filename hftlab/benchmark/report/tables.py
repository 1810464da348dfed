"""A result as rows of text, the same on a terminal and on a page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from hftlab.benchmark.records import Cold, Latency, Measurement, Report
from hftlab.benchmark.report.comparison import Comparison

Row = tuple[str, ...]

SPEED_COLUMNS = ("case", "ns", "best", "spread", "M/s", "CPU", "memory", "faults", "digest")
LATENCY_COLUMNS = ("case", "", "p50", "p95", "p99", "p99.9", "p99.99", "max", "jitter")
COLD_COLUMNS = ("case", "", "cached", "compiled")
TARGET_COLUMNS = ("target", "", "measured", "lowest to highest", "verdict", "how")
DIFFERENCE_COLUMNS = ("case", "A ns", "B ns", "ratio", "spread A", "spread B", "by chance", "verdict")
LATENCY_TITLE = "Latency (ns unless another unit is given)"
SHORT = 8  # digits of a digest in a table; all of them are in the JSON


def speed_rows(measurements: Iterable[Measurement]) -> list[Row]:
    """A row per case: speed, spread, cost, digest."""
    return [
        (
            m.case.name,
            f"{m.ns:,.1f}",
            f"{m.best:,.1f}",
            f"{m.spread:.0%}",
            f"{m.commands_per_s / 1e6:,.2f}",
            f"{m.cpu_share:.0%}",
            "-" if m.memory_bytes is None else f"{max(0, m.memory_bytes) / 1e6:,.0f} MB",
            f"{m.page_faults:,.0f}",
            m.digest[:SHORT],
        )
        for m in measurements
    ]


def latency_rows(measurements: Iterable[Measurement]) -> list[Row]:
    """A row per histogram: the percentiles that have enough values behind them."""
    return [
        (m.case.name, one.kind, *(_time(ns) if known else "-" for ns, known in _percentiles(one)))
        for m in measurements
        for one in m.latency
    ]


def _percentiles(one: Latency) -> list[tuple[int, bool]]:
    """Each in ns, and whether it has enough values behind it."""
    at = ((50, one.p50), (95, one.p95), (99, one.p99), (99.9, one.p99_9), (99.99, one.p99_99))
    found = [(ns, is_known(percent, one.count)) for percent, ns in at]
    return [*found, (one.max, one.count > 0), (one.jitter, is_known(99, one.count))]


def is_known(percent: float, count: int) -> bool:
    """Whether at least one of so many values lies above this percentile."""
    return count * (100 - percent) >= 100


def _time(ns: int) -> str:
    """Whole ns, without their unit, while they are few."""
    if ns < 10_000:
        return f"{ns:,}"
    return f"{ns / 1e3:.3g} us" if ns < 999_500 else f"{ns / 1e6:,.3g} ms"


def cold_rows(measurements: Iterable[Measurement]) -> list[Row]:
    """Three rows per cold start, under the first case of its kind."""
    found: dict[Cold, str] = {}
    for m in measurements:
        if m.cold is not None:
            found.setdefault(m.cold, m.case.name)
    rows = []
    for cold, name in found.items():
        starts = (cold.cached, cold.compiled)
        for what, field in (("process", "process_s"), ("import", "import_s"), ("first call", "first_call_s")):
            cells = ("-" if start is None else _seconds(getattr(start, field)) for start in starts)
            rows.append((name if what == "process" else "", what, *cells))
    return rows


def _cores(numbers: tuple[int, ...]) -> str:
    return f"core{'s' * (len(numbers) > 1)} {' and '.join(map(str, numbers))}"


def _seconds(seconds: float) -> str:
    """Seconds, or ms if they are few: `import hftlab` takes few."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1e3 * seconds:.1f} ms"


def machine_rows(report: Report) -> list[Row]:
    """The machine, and how it was used."""
    machine = report.machine
    pinned = sorted({m.pinned for m in report.measurements})
    cores = ", ".join(_cores(each) for each in pinned if each)
    counts = sorted({len(m.times_ns) for m in report.measurements})
    idle = machine.idle
    return [
        ("processor", f"{machine.cpu}, {machine.cores} cores"),
        ("pinned to", f"{cores}, as threads need" if len(pinned) > 1 else cores or "no core"),
        ("load", f"{machine.load_before:.2f} before, {machine.load_after:.2f} after"),
        ("clock", f"{machine.clock}, one reading {machine.clock_overhead_ns:.0f} ns, never subtracted"),
        (
            "idle loop",
            f"{idle.gaps:,} gaps over {idle.threshold_ns:,} ns in {idle.seconds:.2f} s, "
            f"{idle.lost_share:.2%} of the time, the longest {idle.longest_ns:,} ns",
        ),
        ("processes", "one per case" if report.isolated else "all cases in one"),
        ("repetitions", " or ".join(map(str, counts)) + ", medians; spread is between quartiles"),
        ("versions", ", ".join(f"{name} {which}" for name, which in machine.versions.items())),
    ]


def target_rows(targets: Iterable[dict[str, Any]]) -> list[Row]:
    """Measured value, target, verdict."""
    rows: list[Row] = []
    for row in targets:
        sign = "<" if row["below"] else ">"
        measured = "-" if row["value"] is None else _figure(row["value"], row["unit"])
        several = len(row["values"]) > 1
        low, high = (_figure(row[end], row["unit"]) if several else "-" for end in ("low", "high"))
        span = f"{low.split()[0]} to {high}" if several else "-"
        limit = f"{sign} {_figure(row['limit'], row['unit'])}"
        rows.append((row["name"], limit, measured, span, row["verdict"], row["how"]))
    return rows


def _figure(value: float, unit: str) -> str:
    """A figure with its unit: two digits at least, rates in millions."""
    if unit == "/s":
        value, unit = value / 1e6, "M/s"
    places = 0 if value >= 100 else 1 if value >= 1 or not value else 1 - math.floor(math.log10(value))
    return f"{value:,.{places}f} {unit}"


def difference_rows(comparison: Comparison) -> list[Row]:
    """A row per case of both results."""
    return [
        (
            pair.case.name,
            f"{pair.before.ns:,.1f}",
            f"{pair.after.ns:,.1f}",
            f"{pair.ratio:.2f}",
            f"{pair.before.spread:.0%}",
            f"{pair.after.spread:.0%}",
            f"{pair.chance:.2%}" if pair.chance >= 0.0001 else "< 0.01%",
            pair.verdict,
        )
        for pair in comparison.pairs
    ]
