"""One case, measured in this process: warm-up, repetitions, cost, latencies, digest."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from hftlab.benchmark.cases import REPETITIONS, WARMUP, Case, require_possible
from hftlab.benchmark.machine import memory_bytes, pinned, reset_peak
from hftlab.benchmark.records import Latency, Measurement
from hftlab.benchmark.ways import Prepared, run_once, timed_calls
from hftlab.errors import MeasurementError
from hftlab.latency.histogram import Histogram

READINGS = 10_000


def measure(
    case: Case, repetitions: int = REPETITIONS, warmup: int = WARMUP, pin: bool = True
) -> Measurement:
    """Measure a case in this process. Raises MeasurementError if a repetition gives another digest."""
    require_possible([case])
    with pinned(case.threads, pin) as cores:
        return _measure(case, repetitions, max(1, warmup), cores)


def _measure(case: Case, repetitions: int, warmup: int, cores: tuple[int, ...]) -> Measurement:
    prepared = Prepared(case)
    run_once(Prepared(case, orders=min(case.orders, 1_000)))  # loads kernels: not memory of a run
    pa.default_memory_pool().release_unused()  # else a run would take it up without the peak growing
    is_reset, held = reset_peak(), memory_bytes("VmRSS")
    _, digest_of_first = run_once(prepared)
    digest = digest_of_first()  # outside the repetitions: it costs as much as a run
    del digest_of_first
    for _ in range(warmup - 1):
        run_once(prepared)
    times, usage = [], Usage()
    last: Callable[[], str] | None = None
    for _ in range(repetitions):
        last = None  # frees the memory of the repetition before, so that the next one begins without it
        with usage:
            seconds, last = run_once(prepared)
        times.append(1e9 * seconds / case.orders)
    assert last is not None  # there is at least one repetition
    _require_same(case, digest, last())
    last = None
    peak = memory_bytes("VmHWM")
    latency, busy = _latencies(prepared, digest)
    return Measurement(
        case=case,
        digest=digest,
        times_ns=tuple(times),
        warmup=warmup,
        pinned=cores,
        cpu_share=usage.cpu_s / usage.wall_s,
        busy_share=busy,
        peak_bytes=peak,
        memory_bytes=peak - held if is_reset and peak is not None and held is not None else None,
        page_faults=usage.page_faults / repetitions,
        major_page_faults=usage.major_page_faults / repetitions,
        preemptions=usage.preemptions / repetitions,
        latency=latency,
    )


def _require_same(case: Case, expected: str, found: str) -> None:
    if found != expected:
        raise MeasurementError(
            f"case {case.name}: found digest {found} in one repetition, expected {expected} as in another"
        )


class Usage:
    """What this process used within `with` blocks, all together."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self.page_faults = self.major_page_faults = self.preemptions = 0

    def __enter__(self) -> None:
        self._before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)

    def __exit__(self, *_: object) -> None:
        used, (started, before) = resource.getrusage(resource.RUSAGE_SELF), self._before
        self.wall_s += time.perf_counter() - started
        self.cpu_s += used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        self.page_faults += used.ru_minflt - before.ru_minflt
        self.major_page_faults += used.ru_majflt - before.ru_majflt
        self.preemptions += used.ru_nivcsw - before.ru_nivcsw


def _latencies(prepared: Prepared, digest: str) -> tuple[tuple[Latency, ...], float | None]:
    """(histograms, busy share of an open loop); a command of a batch has no latency of its own."""
    if prepared.case.path == "event":
        return _profiled(prepared, digest)
    if prepared.case.path == "python":
        return _called(prepared, digest), None
    return (), None


def _profiled(prepared: Prepared, digest: str) -> tuple[tuple[Latency, ...], float | None]:
    from hftlab.latency.profiler import LatencyProfiler

    case = prepared.case
    profile = LatencyProfiler().run(prepared.tape, prepared.manager(), rate=case.rate, touch=False)
    _require_same(case, digest, profile.digest)
    cost, verdict = profile.clock.overhead_ns, profile.verdict()
    found = [Latency.of("service", profile.service, cost, verdict)]
    if profile.response is None or profile.waits is None:
        return tuple(found), None
    found.append(Latency.of("response", profile.response, cost, verdict))
    return tuple(found), 1 - profile.waits.seconds / profile.seconds


def _called(prepared: Prepared, digest: str) -> tuple[Latency, ...]:
    times, digest_of_calls = timed_calls(prepared)
    _require_same(prepared.case, digest, digest_of_calls())
    cost = statistics.median(-time.perf_counter_ns() + time.perf_counter_ns() for _ in range(READINGS))
    over = int(np.count_nonzero(times > 10_000))
    verdict = f"{over:,} of {times.size:,} calls took over 10,000 ns, the longest {times.max():,} ns"
    return (Latency.of("call", Histogram(times), cost, verdict),)
