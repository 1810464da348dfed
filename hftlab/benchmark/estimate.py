"""Roughly how long a measurement takes, on a quiet machine whose kernels are compiled.

The figures are of one machine (AMD EPYC, 2 cores), rounded. No measurement depends on them.
"""

from __future__ import annotations

from collections.abc import Iterable

from hftlab.benchmark.cases import Case, cold_kind, kernels_of

PROCESS_S = 1.0  # interpreter, imports, kernels from the cache, calibration
FLOW_NS = 200  # to make, check and compile a command
RUN_NS = {  # without the gate, and with it
    "batch": (20, 80),
    "replay": (60, 120),
    "event": (60, 150),
    "python": (4_000, 4_500),  # half of it prepares the calls
}
COMPILE_S = {"batch": (18, 35), "replay": (18, 35), "event": (18, 70), "python": (15, 45)}


def seconds_of(case: Case, repetitions: int, warmup: int) -> float:
    """A case without its cold start."""
    runs = repetitions + warmup + 2 * (case.path in ("event", "python"))  # for the latencies
    waits = 2 / case.rate if case.rate else 0.0  # commands that come, and an idle loop as long
    each = 1e-9 * (FLOW_NS + runs * RUN_NS[case.path][case.risk]) + waits
    return PROCESS_S + case.orders * each


def seconds_of_each(cases: Iterable[Case], repetitions: int, warmup: int, cold: bool) -> list[float]:
    """Each case, with its cold start where it is the first of its kind (see `session.bench`)."""
    started: set[tuple[str, bool] | None] = {None}
    loaded, found = set(), []
    for case in cases:
        seconds = seconds_of(case, repetitions, warmup)
        if kernels_of(case) not in loaded:
            loaded.add(kernels_of(case))
            seconds += PROCESS_S
        if cold and cold_kind(case) not in started:
            started.add(cold_kind(case))
            seconds += 3 * PROCESS_S + COMPILE_S[case.path][case.risk]
        found.append(seconds)
    return found
