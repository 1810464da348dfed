"""Latency of the event loop, command by command: service time, and response time under a rate of arrival.

*Service* is from the start of a command to where its outcome, fills and changes of the touch are written.
*Response* is from when the command was to start: under a rate, commands are due at moments fixed beforehand
(an open loop), so one that waits behind a slow one is late, and that counts (no coordinated omission).
"""

from __future__ import annotations

import math
import mmap
import resource
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from hftlab.codes import EventType
from hftlab.config.settings import Config
from hftlab.engine.runner import run_events
from hftlab.errors import UsageError, require_positive
from hftlab.feeds import open_flow
from hftlab.kernels.engine import profiled
from hftlab.kernels.primitives import cycle_clock as clock_kernel
from hftlab.kernels.primitives import stage_clock as stages_kernel
from hftlab.kernels.primitives.histogram import TALLY
from hftlab.latency.clock import Clock, calibrate, idle, pinned_to
from hftlab.latency.histogram import DIGITS, HIGHEST, counts_length, half_magnitude
from hftlab.latency.profile import Profile, Spin
from hftlab.replayer.plan import check_ticks, limits_for, make_plan
from hftlab.replayer.replayer import gate_for
from hftlab.replayer.source import Source
from hftlab.results.digest import digest_of
from hftlab.risk_gate.limits import Limits
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.tape import Tape

ARRIVALS = ("uniform", "poisson", "flow")
MOST_ROWS = 1_000_000
THRESHOLD_NS = 1_000  # a gap of an idle loop that is longer is an interruption by the machine
LONGEST = 32  # stalls and interruptions that are listed
LONGEST_IDLE_NS = 10_000_000_000
NO_ROW = -1
PRESENT = 8_192  # buckets whose memory is mapped before a run: up to 131 us, to three digits


def profile(
    flow: Any,
    *,
    rate: float | None = None,
    arrivals: str = "uniform",
    mode: str = "match",
    rows: int = MOST_ROWS,
    symbols: str | Iterable[str] | None = None,
    tick_size: Any = None,
    config: Config | str | Path | None = None,
    limits: Limits | str | Path | dict[str, Any] | None = None,
    profiler: LatencyProfiler | None = None,
    **options: Any,
) -> Profile:
    """Measure the event loop on the first `rows` commands of a flow.

    `flow`, `mode`, `symbols`, `tick_size`, `config` and `limits` are as for `replay`. `rate`, `arrivals` and
    `options` are those of `LatencyProfiler.run`. Raises as both do.
    """
    plan = make_plan(
        mode, "event", None, (), config, symbols, None, tick_size, require_positive("rows", rows)
    )
    plan = replace(plan, limits=limits_for(limits, plan))
    if isinstance(flow, str | PathLike):
        flow = open_flow(fspath(flow))
    checked = next(Source(flow, plan).chunks())[0]
    wide = plan.limits is not None and plan.limits.closes_positions
    rules = rules_for(checked.symbols, tick_size, plan.config)
    check_ticks(plan.limits, checked, rules)
    tape = compile_checked(checked, rules, wide=wide)
    manager = gate_for(plan, checked, True)
    return (profiler or LatencyProfiler()).run(tape, manager, rate=rate, arrivals=arrivals, **options)


class LatencyProfiler:
    """A calibrated clock and how to count: runs tapes, any number of them."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        digits: int = DIGITS,
        highest: int = HIGHEST,
        threshold_ns: int = THRESHOLD_NS,
    ) -> None:
        """`digits` and `highest` are the layout of the histograms; see `Histogram`."""
        self.clock = clock or calibrate()
        self.digits, self.highest = digits, highest
        self.threshold_ns = require_positive("threshold_ns", threshold_ns)

    def run(
        self,
        tape: Tape,
        manager: RiskManager | None = None,
        *,
        rate: float | None = None,
        arrivals: str = "uniform",
        seed: int = 0,
        touch: bool = True,
        warmup: int = 1,
        stages: bool = False,
        samples: int = 0,
        inject: tuple[int, int] | None = None,
    ) -> Profile:
        """Run a tape through the event loop, measured.

        Without `rate` a command starts when the one before is done. With one (commands per second) commands
        are due at even intervals (`arrivals` "uniform"), at random ones with that mean ("poisson", by
        `seed`), or, with "flow", at the flow's own times, `rate` times as fast (default 1). `touch`
        includes writing the touch. `warmup` runs without a clock go before; the fastest is reported beside.
        `stages` reads the clock between the stages of a command too; all times then contain those readings.
        `samples` is how many commands at most the `latency` table has. `inject=(row, ns)` holds that row up,
        to see that it shows. Raises UsageError.
        """
        due = arrival_ticks(self.clock, tape, rate, arrivals, seed)
        # a copy of the gate for each: a run changes it
        warm = [run_events(tape, touch, manager=_copy(manager)).seconds for _ in range(warmup)]
        probe = self._probe(tape, tape.rows, due, stages, samples, inject)
        stamps = self._stamps() if stages else None
        kernel = partial(_with_probe, probe, stamps)
        self._compile(tape, touch, manager, stages)
        # nothing but the run between these two readings of the process's counters
        before, started = _usage(), time.time_ns()
        run = run_events(tape, touch, manager=manager, kernel=kernel)
        after = _usage()
        settings, clock = probe.settings, self.clock
        ticks = settings[profiled.END] - settings[profiled.BEGIN]
        took = int(clock.to_ns(np.array([max(0, ticks)]))[0])
        # the idle loop follows at once, so that it sees the machine as the run saw it
        seen, gaps, _ = idle(clock, min(took, LONGEST_IDLE_NS), self.threshold_ns, LONGEST)
        waited = Spin.of(clock, probe.seen, probe.gaps, self.threshold_ns) if due.size else None
        return Profile(
            run=run,
            clock=clock,
            settings={
                "rate": rate,
                "arrivals": arrivals if due.size else None,
                "seed": seed if due.size and arrivals == "poisson" else None,
                "touch": touch,
                "gate": manager is not None,
                "stages": stages,
                "digits": self.digits,
                "highest": self.highest,
                "inject": inject,
                "started_ns": started,
                "cores": pinned_to(),
            },
            probe=probe,
            readings=tape.rows if stamps is None else int(stamps[stages_kernel.READINGS]),
            seconds=took / 1e9,
            unprofiled_s=min(warm, default=None),
            idle=Spin.of(clock, seen, gaps, self.threshold_ns),
            waits=waited,
            machine={name: after[name] - before[name] for name in before},
            digest=digest_of(run),
        )

    def _probe(
        self,
        tape: Tape,
        rows: int,
        due: np.ndarray,
        stages: bool,
        samples: int,
        inject: tuple[int, int] | None,
    ) -> profiled.Probe:
        """Buffers for a run of `rows` commands; only the samples grow with them."""
        if samples < 0:
            raise UsageError(f"samples: found {samples}, expected 0 or more")
        every = max(1, -(-rows // samples)) if samples else 1
        settings = np.zeros(profiled.SETTINGS, np.int64)
        settings[profiled.COUNTER], settings[profiled.MULT] = self.clock.counter, self.clock.mult
        settings[profiled.HALF], settings[profiled.THRESHOLD] = half_magnitude(self.digits), self.threshold_ns
        # every n-th command is a sample, so that as few as wanted are spread over the whole run
        settings[profiled.EVERY], settings[profiled.STALL_ROW] = every, NO_ROW
        if inject is not None:
            settings[profiled.STALL_ROW] = inject[0]
            settings[profiled.STALL_TICKS] = self.clock.to_ticks(inject[1])
        length = counts_length(self.highest, self.digits)
        by_stage = len(stages_kernel.STAGES), len(EventType)
        return profiled.Probe(
            settings,
            due,
            _counts(2, profiled.CASES, length),
            np.zeros((2, profiled.CASES, TALLY), np.int64),
            np.zeros((LONGEST, clock_kernel.LONG), np.int64),
            np.zeros(clock_kernel.SEEN, np.int64),
            np.zeros((LONGEST, clock_kernel.LONG), np.int64),
            np.full((-(-rows // every) if samples else 0, profiled.SAMPLE), 0, np.int64),
            np.zeros(tape.grid.sizes.size, np.uint8),
            _counts(*by_stage, length if stages else 0),
            np.zeros((*by_stage, TALLY), np.int64),
        )

    def _stamps(self) -> np.ndarray:
        stamps = np.zeros(stages_kernel.STAMPS, np.int64)
        stamps[stages_kernel.COUNTER] = self.clock.counter
        return stamps

    def _compile(self, tape: Tape, touch: bool, manager: RiskManager | None, stages: bool) -> None:
        """Have the kernel ready before the clock runs: a run over no rows."""
        probe = self._probe(tape, 0, np.zeros(0, np.int64), stages, 0, None)
        stamps = self._stamps() if stages else None

        def no_rows(*arguments: Any) -> tuple[int, int, int, int]:
            address, risk, columns, *rest = arguments
            rows = columns.action.size
            none = columns._replace(action=columns.action[:0])
            profiled.run_profiled(address, risk, none, *rest, probe, stamps)
            return rows, 0, 0, 0

        run_events(tape, touch, manager=_copy(manager), kernel=no_rows)


def _counts(*shape: int) -> np.ndarray:
    """Zeros for many histograms, few of them ever used, and little of those.

    Where the system gives huge pages the first touch of one clears 2 MB, which would be a stall of the
    profiler's own making. So these are small pages, and those of usual latencies are there from the start.
    """
    if 0 in shape:
        return np.zeros(shape, np.int64)
    memory = mmap.mmap(-1, 8 * math.prod(shape))
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a system without huge pages knows no such advice
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    counts = np.frombuffer(memory, np.int64).reshape(shape)
    counts[..., :PRESENT] = 0
    return counts


def _with_probe(
    probe: profiled.Probe, stamps: np.ndarray | None, *arguments: Any
) -> tuple[int, int, int, int]:
    return profiled.run_profiled(*arguments, probe, stamps)


def _copy(manager: RiskManager | None) -> RiskManager | None:
    return None if manager is None else manager.copy()


def arrival_ticks(clock: Clock, tape: Tape, rate: float | None, arrivals: str, seed: int) -> np.ndarray:
    """When each row is due, in ticks after the first; empty where each follows the one before.

    Raises UsageError for a rate that isn't positive, and for arrivals of another name.
    """
    if arrivals not in ARRIVALS:
        raise UsageError(f"arrivals: found {arrivals!r}, expected one of {', '.join(ARRIVALS)}")
    if rate is not None and not (isinstance(rate, int | float) and math.isfinite(rate) and rate > 0):
        raise UsageError(f"rate: found {rate!r}, expected commands per second, more than 0")
    ns: np.ndarray
    if arrivals == "flow":
        ts = tape.ts(np.arange(tape.rows))
        # a time that goes back is due at once
        ns = np.maximum.accumulate(ts - ts[:1]) / (rate or 1.0) if tape.rows else np.zeros(0)
    elif rate is None:
        return np.zeros(0, np.int64)
    elif arrivals == "uniform":
        ns = np.arange(tape.rows) * (1e9 / rate)
    else:
        gaps = np.random.default_rng(seed).exponential(1e9 / rate, tape.rows)
        ns = np.cumsum(gaps) - gaps[:1]
    return clock.to_ticks(ns)


def _usage() -> dict[str, int]:
    """Page faults and switches of this thread so far; of the process where the system counts no thread."""
    used = resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF))
    return {
        "page_faults": used.ru_minflt,
        "major_page_faults": used.ru_majflt,
        "preemptions": used.ru_nivcsw,
        "yields": used.ru_nvcsw,
    }
