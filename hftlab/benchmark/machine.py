"""The machine of a result, and what disturbed it: a speed without its machine means nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hftlab.files import cpu_name, versions
from hftlab.latency.clock import Clock, calibrate, idle, pinned_to
from hftlab.latency.profile import Spin

IDLE_NS, THRESHOLD_NS = 200_000_000, 1_000
BUSY_LOAD = 0.25  # of the cores, before the first case: another program computes
LOST_SHARE, STEAL_SHARE, SPREAD = 0.005, 0.01, 0.10  # beyond these a result is called noisy

STATUS, CLEAR, STAT = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/stat")
RESET_PEAK = "5"


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """Interruptions by the machine, as a loop sees them that does nothing but read the clock."""

    seconds: float
    threshold_ns: int
    gaps: int
    lost_share: float
    longest_ns: int


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where and when a result was measured."""

    cpu: str
    cores: int
    usable: tuple[int, ...]  # cores this process may run on
    load_before: float
    load_after: float
    steal_share: float | None  # of all processor time that the hypervisor gave to others; None: unknown
    clock: str
    clock_overhead_ns: float
    idle: Idle
    versions: dict[str, str]

    def noise(self) -> list[str]:
        """Reasons to doubt figures of this machine; empty for a quiet one."""
        found = []
        if self.load_before > BUSY_LOAD * self.cores:
            found.append(f"load average {self.load_before:.2f} on {self.cores} cores before it began")
        if self.idle.lost_share > LOST_SHARE:
            longest = self.idle.longest_ns / 1e6
            found.append(
                f"an idle loop lost {self.idle.lost_share:.1%} of its time to {self.idle.gaps:,} "
                f"interruptions, the longest {longest:.2g} ms"
            )
        if (self.steal_share or 0) > STEAL_SHARE:
            found.append(f"the hypervisor took {self.steal_share:.1%} of the processor")
        return found


class Watch:
    """Watches the machine from when it is made until `machine` is called."""

    def __init__(self) -> None:
        self.load, self.ticks = load_average(), _ticks()
        self.clock = calibrate()
        self.idle = spin(self.clock)

    def machine(self) -> Machine:
        """The machine, and its load since the watch was made."""
        before, after = self.ticks, _ticks()
        share = None
        if before is not None and after is not None and after[0] > before[0]:
            share = (after[1] - before[1]) / (after[0] - before[0])
        return Machine(
            cpu=cpu_name(),
            cores=os.cpu_count() or 1,
            usable=tuple(pinned_to()),
            load_before=self.load,
            load_after=load_average(),
            steal_share=share,
            clock=self.clock.source,
            clock_overhead_ns=self.clock.overhead_ns,
            idle=self.idle,
            versions=versions(),
        )


def spin(clock: Clock) -> Idle:
    """Do nothing for a while and count the interruptions."""
    seen, longest, took = idle(clock, IDLE_NS, THRESHOLD_NS)
    spun = Spin.of(clock, seen, longest, THRESHOLD_NS)
    return Idle(
        seconds=took / 1e9,
        threshold_ns=THRESHOLD_NS,
        gaps=spun.gaps,
        lost_share=spun.lost_ns / max(1, took),
        longest_ns=spun.longest_ns,
    )


def load_average() -> float:
    """The load average of the last minute; 0 where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _ticks() -> tuple[int, int] | None:
    """(all, stolen) processor time of the machine so far."""
    try:
        cells = [int(cell) for cell in STAT.read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    return (sum(cells), cells[7]) if len(cells) == 8 else None


@contextmanager
def pinned(threads: int, pin: bool = True) -> Iterator[tuple[int, ...]]:
    """Run on the last `threads` cores this process may use (the first serve interrupts); yields them."""
    before = pinned_to()
    cores = tuple(before[-threads:])
    if not pin or not before or len(cores) < threads:
        yield ()
        return
    os.sched_setaffinity(0, cores)
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, before)


def reset_peak() -> bool:
    """Reset the peak of this process's memory; return whether the system allows it."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def memory_bytes(name: str) -> int | None:
    """`VmHWM` (the peak) or `VmRSS` (now) of this process; None where the system does not report it."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), None)
