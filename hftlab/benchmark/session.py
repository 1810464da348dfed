"""Many cases, one after the other, each in a process of its own; equal flows must give equal digests."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

import msgspec

from hftlab.benchmark.cases import REPETITIONS, WARMUP, Case, cold_kind, kernels_of, require_possible
from hftlab.benchmark.child import run_python, run_task
from hftlab.benchmark.machine import Watch
from hftlab.benchmark.measure import measure
from hftlab.benchmark.records import Cold, Measurement, Report, Start, now
from hftlab.errors import MeasurementError

Progress = Callable[[str], object]  # called with the name of each case when it is done

FIRST_CALL = """
import json, time
started = time.perf_counter()
import hftlab
imported = time.perf_counter()
from hftlab.benchmark.tasks import first_call
first_call(**json.loads(input()))
print(json.dumps([imported - started, time.perf_counter() - imported]))
"""


def bench(
    cases: Iterable[Case],
    repetitions: int = REPETITIONS,
    warmup: int = WARMUP,
    *,
    pin: bool = True,
    isolated: bool = True,
    cold: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Measure cases.

    Each gets a process of its own unless `isolated` is False. `cold` adds the first call in a fresh process,
    with the compile cache and without, to cases on one thread. `progress` is called with the
    name of each case when it is done.

    Raises MeasurementError if cases of one flow give different digests, or a process has no result.
    """
    cases = list(cases)
    require_possible(cases)
    watch, loaded, found = Watch(), set(), []
    starts: dict[tuple[str, bool], Cold] = {}
    for case in cases:
        if isolated:
            if kernels_of(case) not in loaded:  # compiled in another process: its memory is not that of a run
                first_start(case)
                loaded.add(kernels_of(case))
            how = {"case": case, "repetitions": repetitions, "warmup": warmup, "pin": pin}
            measurement = msgspec.convert(run_task("measure", f"case {case.name}", **how), Measurement)
        else:
            measurement = measure(case, repetitions, warmup, pin)
        if cold and (key := cold_kind(case)):
            starts[key] = starts.get(key) or cold_start(case)
            measurement = msgspec.structs.replace(measurement, cold=starts[key])
        found.append(measurement)
        if progress is not None:
            progress(case.name)
    require_agreement(found)
    return Report(created=now(), machine=watch.machine(), isolated=isolated, measurements=tuple(found))


def require_agreement(measurements: Iterable[Measurement]) -> None:
    """Raises MeasurementError unless batch, event loop, calls and threads give one digest."""
    first: dict[Any, Measurement] = {}
    for each in measurements:
        other = first.setdefault(each.case.behaviour, each)
        if other.digest != each.digest:
            raise MeasurementError(
                f"case {each.case.name}: found digest {each.digest}, expected {other.digest} as in case "
                f"{other.case.name}; no speed counts until they agree"
            )


def cold_start(case: Case, compiled: bool = True) -> Cold:
    """The first call in a fresh process: kernels from the cache, and (if wanted) compiled anew."""
    first_start(case)  # fills the cache where it is empty, and that of the system
    cached = first_start(case)
    return Cold(cached=cached, compiled=first_start(case, cached=False) if compiled else None)


def first_start(case: Case, cached: bool = True) -> Start:
    """One first call of a case, with the compile cache as it is or with an empty one."""
    if cached:
        return _start(case, {})
    with tempfile.TemporaryDirectory() as empty:
        return _start(case, {"HFTLAB_CACHE_DIR": empty})


def _start(case: Case, env: dict[str, str]) -> Start:
    given = json.dumps({"case": msgspec.to_builtins(case)})
    started = perf_counter()
    printed = run_python("-c", FIRST_CALL, given=given, what=f"first call of {case.name}", env=env)
    import_s, call_s = json.loads(printed.splitlines()[-1])
    return Start(process_s=perf_counter() - started, import_s=import_s, first_call_s=call_s)
