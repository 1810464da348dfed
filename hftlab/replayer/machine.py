"""What `[performance]` asks of the machine: cores, a NUMA node, huge pages, an allocator.

What the machine has is applied while a replay runs, and taken back afterwards. What it lacks is said in one
line and stops nothing: a file written for a server must run on a laptop.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakSet

import pyarrow as pa

from hftlab.config.settings import Config, Performance
from hftlab.kernels.primitives import memory

NODES = Path("/sys/devices/system/node")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
QUIET = ("ERROR", "CRITICAL")  # log levels at which what can't be applied is not printed

_said: WeakSet[Performance] = WeakSet()  # a verification replays a dozen times with the same settings
_saying = Lock()


class Machine(NamedTuple):
    """What of the settings this machine can apply, and what it can't."""

    cores: frozenset[int] | None  # of the thread that replays, and of those it starts; None: as they are
    huge_pages: bool | None
    allocator: str | None
    not_applied: tuple[str, ...]  # a clause for each, such as "performance.numa_node = 3: this machine ..."


def machine_for(performance: Performance) -> Machine:
    """What of these settings can be applied here."""
    missing: list[str] = []
    cores = _cores(performance.cpu_affinity, missing)
    cores = _on_node(performance.numa_node, cores, missing)
    return Machine(
        cores,
        _huge_pages(performance.use_hugepages, missing),
        _allocator(performance.allocator, missing),
        tuple(missing),
    )


def say_not_applied(machine: Machine, config: Config) -> None:
    """One line on stderr of what can't be applied, once for the same settings."""
    settings = config.performance
    if not machine.not_applied or config.monitoring.log_level in QUIET:
        return
    with _saying:
        if settings in _said:
            return
        _said.add(settings)
    print(f"hftlab: not applied: {'; '.join(machine.not_applied)}", file=sys.stderr, flush=True)


@contextmanager
def applied(machine: Machine) -> Iterator[None]:
    """Cores, huge pages and allocator as asked for; as they were before on leaving."""
    with ExitStack() as after:
        if machine.cores is not None:
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, machine.cores)
            after.callback(os.sched_setaffinity, 0, before)
        if machine.huge_pages is not None:
            after.enter_context(_pages.set_to(machine.huge_pages))
        if machine.allocator is not None:
            after.enter_context(_pool.set_to(getattr(pa, f"{machine.allocator}_memory_pool")()))
        yield


class _OfProcess:
    """A setting of the whole process that replays on several threads may ask for at a time.

    The first saves what was there and the last to leave puts it back, so that none restores another's.
    """

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], None]) -> None:
        self._get, self._put, self._lock, self._users, self._before = get, put, Lock(), 0, None

    @contextmanager
    def set_to(self, value: Any) -> Iterator[None]:
        with self._lock:
            if self._users == 0:
                self._before = self._get()
            self._users += 1
            self._put(value)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._put(self._before)


_pages = _OfProcess(memory.uses_huge_pages, memory.use_huge_pages)
_pool = _OfProcess(pa.default_memory_pool, pa.set_memory_pool)


# ------------------------------------------------------------------ what there is


def _cores(wanted: tuple[int, ...] | None, missing: list[str]) -> frozenset[int] | None:
    if wanted is None:
        return None
    if not hasattr(os, "sched_setaffinity"):
        missing.append("performance.cpu_affinity: this system binds no threads to cores")
        return None
    there = os.sched_getaffinity(0)
    absent = sorted(set(wanted) - there)
    if absent:
        missing.append(
            f"performance.cpu_affinity: {_listed('core', absent)} not there, "
            f"this process has {_listed('core', sorted(there))}"
        )
    return frozenset(there.intersection(wanted)) or None


def _listed(noun: str, numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:16])) + (", ..." if len(numbers) > 16 else "")
    return f"{noun}{'s' * (len(numbers) > 1)} {shown}"


def _on_node(node: int | None, cores: frozenset[int] | None, missing: list[str]) -> frozenset[int] | None:
    """The cores of a node, where memory is taken by the core that first touches it."""
    if node is None:
        return cores
    try:
        own = _numbers((NODES / f"node{node}" / "cpulist").read_text(encoding="ascii"))
    except (OSError, ValueError):
        missing.append(f"performance.numa_node: node {node} not there")
        return cores
    if not hasattr(os, "sched_setaffinity"):
        missing.append("performance.numa_node: this system binds no threads to cores")
        return cores
    both = own & (os.sched_getaffinity(0) if cores is None else cores)
    if not both:
        missing.append(f"performance.numa_node: node {node} has none of the cores to run on")
        return cores
    return frozenset(both)


def _numbers(text: str) -> set[int]:
    """The numbers of a list as Linux writes it: 0-3,8. Raises ValueError."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def _huge_pages(wanted: bool | None, missing: list[str]) -> bool | None:
    if not wanted:
        return wanted
    try:
        enabled = "[never]" not in HUGE_PAGES.read_text(encoding="ascii")
    except OSError:
        enabled = False
    if not enabled:
        missing.append("performance.use_hugepages: this system gives no huge pages")
        return None
    return True


def _allocator(wanted: str | None, missing: list[str]) -> str | None:
    if wanted is None or wanted in pa.supported_memory_backends():
        return wanted
    there = ", ".join(pa.supported_memory_backends())
    missing.append(f"performance.allocator: {wanted} not in this pyarrow, which has {there}")
    return None
