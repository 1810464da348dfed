"""The clock: calibrated within its stated error, converted without loss, never faster than it says."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import UsageError
from hftlab.kernels.primitives import cycle_clock as clock_kernels
from hftlab.latency import clock
from tests.helpers.called import Called
from tests.helpers.interruptions import uninterrupted

kernel = Called(clock_kernels)

HAS = kernel.HAS_COUNTER and clock.counter_flags()[0]
SOURCES = ["system", *(["counter"] if HAS else [])]


def elapsed(source):
    """A span as the kernel's clock and as CLOCK_MONOTONIC_RAW tell it, and how wide its ends are, in ns."""
    measured = clock.calibrate(0.05, source)
    values = np.empty((1_000, 3), np.int64)
    ends = []
    for _ in range(2):
        kernel.brackets(measured.counter, kernel.RAW, values)
        ends.append(values[np.argmin(values[:, 2] - values[:, 0])].copy())
        time.sleep(0.1)
    (a, first, b), (c, last, d) = ends
    span = measured.to_ns(np.array([(c + d) // 2 - (a + b) // 2]))[0]
    return measured, span, last - first, measured.to_ns(np.array([b - a + d - c]))[0]


@pytest.mark.parametrize("source", SOURCES)
def test_a_span_is_right_within_the_error_stated(source):
    """Two clocks agree on a span to the stated error and the width of the readings at its ends."""
    measured, span, expected, width = elapsed(source)
    assert measured.source == {"system": "CLOCK_MONOTONIC_RAW", "counter": "cycle counter"}[source]
    assert abs(span - expected) <= expected * measured.error_ppm / 1e6 + width + 4
    assert measured.error_ppm < 1_000


@pytest.mark.parametrize("source", SOURCES)
def test_readings_never_go_back_and_cost_what_is_said(source):
    """Consecutive readings ascend; they differ by the stated overhead, in steps no finer than said."""
    started = time.perf_counter_ns()
    measured = clock.calibrate(0.01, source)
    took = time.perf_counter_ns() - started
    costs = np.empty(10_000, np.int64)
    kernel.differences(measured.counter, costs)
    assert costs.min() >= 0
    assert 0 < measured.overhead_ns <= measured.overhead_p99_ns
    again = clock.calibrate(0.01, source)  # a machine may change its pace
    slower = max(measured.overhead_ns, again.overhead_ns)
    assert np.percentile(costs, 10) * measured.tick_ns <= slower * 3
    assert measured.overhead_ns * clock.READINGS < took  # it read as often, and did more
    assert measured.tick_ns <= measured.resolution_ns <= measured.overhead_p99_ns
    assert measured.as_dict()["resolution_ns"] == measured.resolution_ns


@pytest.mark.parametrize(
    ("differences", "resolution"),
    [
        ([26] * 880 + [25] * 60 + [1] * 60, 25),  # moves in steps of 26 ticks, and never gives a value twice
        ([18, 20, 22, 24] * 100, 18),
        ([0, 1] * 100, 1),
        ([26] * 999 + [2], 26),
    ],
)
def test_the_resolution_is_that_of_the_steps_a_counter_makes(differences, resolution):
    """A tick may be much shorter than what the counter moves by."""
    assert clock._resolution(np.array(differences)) == resolution


@given(
    st.integers(0, 2**61),
    st.integers(1, kernel.MAX_MULT - 1),
)
def test_ticks_become_ns_as_in_whole_numbers_of_any_size(ticks, mult):
    """(ticks x mult) >> 30, rounded down, less at most 1 ns for being done in two parts."""
    ns = np.empty(1, np.int64)
    kernel.durations_ns(np.array([ticks]), mult, ns)
    exact = ticks * mult >> kernel.SHIFT
    if exact < 2**63:
        assert exact == ns[0]


def test_utc_is_the_time_of_day():
    """A reading converted to UTC lies between two of the system's."""
    measured = clock.calibrate(0.01)
    values, before = np.empty((1, 3), np.int64), time.time_ns()
    kernel.brackets(measured.counter, kernel.RAW, values)
    assert before - 10_000_000 <= measured.to_utc(values[0, 0]) <= time.time_ns() + 10_000_000


def test_a_spin_lasts_and_tells_its_interruptions():
    """It takes the time asked for; gaps over the threshold are counted, the longest kept in order."""
    measured = clock.calibrate(0.01)
    spins = (clock.idle(measured, 20_000_000, 0, most=5) for _ in uninterrupted())
    seen, longest, took = next(spin for spin in spins if spin[0][kernel.GAPS] > 5)
    assert took >= 19_990_000
    assert seen[kernel.PASSES] >= seen[kernel.GAPS]
    durations = longest[:, kernel.DURATION]
    assert (np.diff(durations) >= 0).all()
    assert seen[kernel.LOST] <= took
    _, none, _ = clock.idle(measured, 1_000_000, 10**12)
    assert none[:, kernel.DURATION].max() == 0


def test_a_spin_s_time_is_not_the_sum_of_rounded_turns():
    """By a clock so fine that a turn is no whole nanosecond: the spin is many, and none is lost."""
    mult = kernel.UNIT_MULT // 10_000
    for _ in uninterrupted():
        seen, longest = np.zeros(kernel.SEEN, np.int64), np.zeros((5, kernel.LONG), np.int64)
        ticks = kernel.spin(0, mult, 5_000_000, 10**9, seen, longest)
        if seen[kernel.PASSES] > 10 and seen[kernel.SPENT] >= 450:
            break
    assert seen[kernel.PASSES] > 10
    assert 450 <= seen[kernel.SPENT] <= kernel.to_ns(ticks, mult)


def test_the_longest_are_kept_in_order():
    """Of a thousand durations the ten longest remain, with start and row, shortest first."""
    durations = np.random.default_rng(3).permutation(1_000)
    longest = np.zeros((10, kernel.LONG), np.int64)
    for row, duration in enumerate(durations.tolist()):
        if duration > longest[0, kernel.DURATION]:
            kernel.keep_longest(longest, duration, row * 7, row)
    assert longest[:, kernel.DURATION].tolist() == list(range(990, 1_000))
    assert longest[:, kernel.ROW].tolist() == [
        int(np.flatnonzero(durations == d)[0]) for d in range(990, 1_000)
    ]
    assert (longest[:, kernel.START] == 7 * longest[:, kernel.ROW]).all()


def test_a_counter_is_only_used_where_it_is_invariant(tmp_path, monkeypatch):
    """Without the flags, or the file, the system's clock is read; asking for the counter is an error."""
    monkeypatch.setattr(clock_kernels, "HAS_COUNTER", True)
    path = tmp_path / "cpuinfo"
    assert clock.counter_flags(path)[0] is False
    for flags, usable in (("fpu constant_tsc nonstop_tsc", True), ("fpu constant_tsc", False), ("", False)):
        path.write_text(f"processor : 0\nflags\t\t: {flags}\n")
        assert clock.counter_flags(path)[0] is usable
    assert "nonstop_tsc" in clock.counter_flags(path)[1]
    monkeypatch.setattr(clock, "counter_flags", lambda: (False, "no such flag"))
    assert clock.calibrate(0.01).source == "CLOCK_MONOTONIC_RAW"
    with pytest.raises(UsageError, match="no such flag"):
        clock.calibrate(source="counter")
    with pytest.raises(UsageError, match="found 'x'"):
        clock.calibrate(source="x")
