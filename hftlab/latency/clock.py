"""The clock that latencies are measured with: which one, how exact, and what a reading costs.

A cycle counter is used where the processor reports that it ticks at one rate on every core and in every power
state (`constant_tsc` and `nonstop_tsc`); elsewhere the system's CLOCK_MONOTONIC_RAW is read. The rate of the
counter is measured against CLOCK_MONOTONIC_RAW, and how far it may be off is part of the result. The cost of
reading is measured too; it is never subtracted from anything.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hftlab.errors import UsageError
from hftlab.kernels.primitives import cycle_clock as kernel

CALIBRATION_S = 0.2
BRACKETS = 2_000  # readings at each end of a calibration; the tightest counts
READINGS = 20_000  # to see what a reading costs
NS = 1_000_000_000
CPUINFO = Path("/proc/cpuinfo")
INVARIANT = ("constant_tsc", "nonstop_tsc")


@dataclass(frozen=True)
class Clock:
    """A calibrated clock. `ticks * mult >> 30` is nanoseconds."""

    source: str  # "cycle counter" or "CLOCK_MONOTONIC_RAW"
    why: str  # it was chosen
    counter: int  # 1 where kernels read the cycle counter
    mult: int
    error_ppm: float  # a duration is right to within this share of it: bound, not an estimate
    tick_ns: float
    resolution_ns: float  # the least by which two readings differ, but for a single tick
    overhead_ns: float  # of one reading: mean of all but the slowest 1 %
    overhead_p99_ns: float
    base_ticks: int  # a moment as this clock reads it ...
    base_ns: int  # ... and as UTC, ns since the epoch
    base_error_ns: int  # within which the two are the same moment

    def to_ns(self, ticks: np.ndarray) -> np.ndarray:
        """Durations in whole ns, rounded down, as kernels do it."""
        ticks = np.ascontiguousarray(ticks, np.int64)
        ns = np.empty(ticks.shape, np.int64)
        kernel.durations_ns(ticks.ravel(), self.mult, ns.ravel())
        return ns

    def to_ticks(self, ns: int | np.ndarray) -> Any:
        """Ticks of durations in ns, to the nearest."""
        return np.rint(np.asarray(ns) / self.tick_ns).astype(np.int64)

    def to_utc(self, ticks: np.ndarray) -> np.ndarray:
        """Readings as ns since the epoch."""
        return self.base_ns + self.to_ns(np.asarray(ticks, np.int64) - self.base_ticks)

    def as_dict(self) -> dict[str, Any]:
        """The clock, for the summary of a result."""
        names = ("source", "why", "tick_ns", "resolution_ns", "error_ppm", "overhead_ns", "overhead_p99_ns")
        return {name: getattr(self, name) for name in names}


def counter_flags(cpuinfo: Path = CPUINFO) -> tuple[bool, str]:
    """Whether the cycle counter may be used, and why (not)."""
    if not kernel.HAS_COUNTER:
        return False, "no cycle counter that user code may read, or kernels run as plain Python"
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return False, f"{cpuinfo}: {error.strerror}"
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    missing = [flag for flag in INVARIANT if flag not in flags]
    if missing:
        return False, f"the processor does not report {' and '.join(missing)}"
    return True, " and ".join(INVARIANT)


def calibrate(seconds: float = CALIBRATION_S, source: str | None = None) -> Clock:
    """Measure a clock; `source` "counter" or "system" instead of what the machine suggests.

    Raises UsageError for the counter where it can't be used.
    """
    if source not in (None, "counter", "system"):
        raise UsageError(f"clock source: found {source!r}, expected counter or system")
    usable, why = counter_flags()
    if source == "counter" and not usable:
        raise UsageError(f"clock source: found 'counter', expected 'system': {why}")
    if source == "system":
        usable, why = False, "asked for"
    mult, error, why = _rate(seconds, why) if usable else (kernel.UNIT_MULT, 0.0, why)
    counter = int(mult != 0 and usable)
    mult = mult or kernel.UNIT_MULT
    costs = _costs(counter)
    slow = float(np.percentile(costs, 99))  # beyond it are interrupts, not readings
    tick_ns = mult / kernel.UNIT_MULT
    base_ticks, base_ns, width = _tightest(counter, kernel.WALL)
    return Clock(
        "cycle counter" if counter else "CLOCK_MONOTONIC_RAW",
        why,
        counter,
        mult,
        1e6 * error,
        tick_ns,
        _resolution(costs) * tick_ns,
        float(costs[costs <= slow].mean()) * tick_ns,
        slow * tick_ns,
        base_ticks,
        base_ns,
        int(width * tick_ns) + 1,
    )


def _costs(counter: int) -> np.ndarray:
    """Ticks from one reading to the next."""
    costs = np.empty(READINGS, np.int64)
    for _ in range(2):  # the first run compiles and warms the caches
        kernel.differences(counter, costs)
    return costs


def _resolution(differences: np.ndarray) -> float:
    """The least by which readings in a row differ, in ticks.

    Some counters move in steps of many ticks, and add a single tick where they are read twice within a step.
    """
    steps = differences[differences > 1]
    return float(np.percentile(steps, 1)) if steps.size else 1.0


def _tightest(counter: int, which: int) -> tuple[int, int, int]:
    """(ticks, ns, ticks within which both were read) of the reading that was interrupted least."""
    # an interrupt between two readings widens the bracket, so the narrowest is the most exact
    values = np.empty((BRACKETS, kernel.BRACKET), np.int64)
    kernel.brackets(counter, which, values)
    widths = values[:, kernel.TICKS_AFTER] - values[:, kernel.TICKS_BEFORE]
    before, ns, after = values[np.argmin(widths)].tolist()
    return (before + after) // 2, ns, after - before


def _rate(seconds: float, why: str) -> tuple[int, float, str]:
    """(mult, bound of its relative error, why); mult is 0 where the counter is of no use."""
    _tightest(1, kernel.RAW)  # compiles
    # two pairs of (ticks, ns), as far apart as `seconds`, give the rate
    first_ticks, first_ns, first_width = _tightest(1, kernel.RAW)
    time.sleep(seconds)
    last_ticks, last_ns, last_width = _tightest(1, kernel.RAW)
    ticks, ns = last_ticks - first_ticks, last_ns - first_ns
    if ticks <= 0 or ns <= 0:
        return 0, 0.0, f"the cycle counter went from {first_ticks} to {last_ticks} in {ns} ns"
    mult = (ns * kernel.UNIT_MULT + ticks // 2) // ticks
    if mult >= kernel.MAX_MULT:  # products of a kernel would not fit into 64 bits
        return 0, 0.0, f"the cycle counter ticks only every {ns / ticks:.1f} ns"
    # each end is off by half a bracket and a step of either clock at most; mult is rounded
    step, step_ns = _resolution(_costs(1)), _resolution(_costs(0))
    error = ((first_width + last_width) / 2 + 2 * step) / ticks + 2 * step_ns / ns + 0.5 / mult
    return mult, error, why


def idle(clock: Clock, ns: int, threshold_ns: int, most: int = 32) -> tuple[np.ndarray, np.ndarray, int]:
    """Spin for `ns`: (the counts SEEN of `cycle_clock`, the longest gaps, ns it took)."""
    seen, longest = np.zeros(kernel.SEEN, np.int64), np.zeros((most, kernel.LONG), np.int64)
    ticks = kernel.spin(clock.counter, clock.mult, int(clock.to_ticks(ns)), threshold_ns, seen, longest)
    took = int(clock.to_ns(np.array([ticks]))[0])
    return seen, longest, took


def pinned_to() -> list[int]:
    """The cores this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
