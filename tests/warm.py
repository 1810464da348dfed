"""Compile the kernels that many tests run, once, in two processes: `python -m tests.warm`.

Two workers of pytest would compile the same kernels at the same time. Here one process takes most of the
batches, the other most of the event path. What is compiled already is loaded, in seconds. Kernels that only
one file of tests runs are left to it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import hftlab
from hftlab.engine import plan
from hftlab.replayer import replayer
from tests.helpers import flows, risk_flows
from tests.helpers.gated_package import replayed

Step = tuple[str, Callable[[], object]]

MINUTES = 5  # of both processes, on a good machine of two cores
SMALL, HUGE = flows.make("tight", 300, 1), flows.make("big", 300, 1)  # quantities of 32 and of 64 bits
GATED = risk_flows.make("busy", 300, 1).orders
LIMITS = {
    "small quantities": {"max_order_qty": 50},
    "huge quantities": {"capital": "100", "stop_loss_percentage": "10", "stop_loss_action": "close"},
}
TIED = {"max_portfolio_value": 1, "capital": 2**62}  # by money; touched, so that the rest runs in input order


def depth_of(table: object, **how: object) -> object:
    """A replay, and its depth, which is made when it is asked for."""
    return hftlab.replay(table, record=("fills", "l1", "depth"), **how).depth


def behind_limits(keys: dict[str, object], **how: object) -> object:
    """The depth of a replay behind limits."""
    return depth_of(GATED.table(), tick_size="0.01", limits=hftlab.Limits(**keys), **how)


def on_threads(keys: dict[str, object], **how: object) -> object:
    """A replay on two threads whose instruments are tied together, in chunks as small as the tests'."""
    plan.FIRST_CHUNK, replayer.partitions_for = 64, lambda threads, limits: threads
    return behind_limits(TIED | keys, threads=2, **how)


def batches() -> Iterator[Step]:
    """Batches and their depth, free and behind a gate, on threads; calls of a book behind a gate."""
    for lots, flow in (("small", SMALL), ("huge", HUGE)):
        yield f"a batch of {lots} quantities", partial(depth_of, flow.table())
    for lots, keys in LIMITS.items():
        yield f"a gate, {lots}", partial(behind_limits, keys)
        yield f"a gate on threads, {lots}", partial(on_threads, keys)
    yield "positions, gate events, tables", partial(replayed, risk_flows.make("movers", 300, 2))
    yield "facts", partial(depth_of, flows.facts(300, 8), mode="rebuild")
    yield "calls of a book behind a gate", partial(call_book, hftlab.Limits(max_order_qty=50))


def call_book(limits: hftlab.Limits | None = None) -> None:
    """A command, and a cancel of it."""
    book = hftlab.OrderBook("A", "0.01", limits=limits)
    book.submit(1, "buy", 10**9, 5)
    book.cancel(1)


def events() -> Iterator[Step]:
    """The event loop, free and behind a gate, measured and not; calls of a book."""
    yield "calls of a book", call_book
    yield "the event loop", partial(depth_of, SMALL.table(), path="event")
    limits = hftlab.Limits(max_order_qty=50)
    yield "the event loop behind a gate", partial(behind_limits, {"max_order_qty": 50}, path="event")
    for gate, what in (("", None), (" behind a gate", limits)):
        for stages in (False, True):
            name = f"the profiler{gate}, stages" if stages else f"the profiler{gate}"
            yield name, partial(hftlab.profile, GATED.table(), limits=what, stages=stages)


PROCESSES = {"batches": batches, "events": events}


def compile_kernels(name: str) -> None:
    """Take the steps of one process, and say which."""
    steps = list(PROCESSES[name]())
    started = time.monotonic()
    for number, (what, step) in enumerate(steps, 1):
        print(f"  {name} {number}/{len(steps)}: {what}", flush=True)
        step()
    print(f"  {name} done in {time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    """Run both processes; the worse of their statuses."""
    if len(sys.argv) > 1:
        compile_kernels(sys.argv[1])
        return 0
    print(f"compiling the kernels, once: about {MINUTES} minutes on two cores the first time", flush=True)
    command = [sys.executable, "-m", "tests.warm"]
    children = [subprocess.Popen([*command, name]) for name in PROCESSES]
    return max(abs(child.wait()) for child in children)


if __name__ == "__main__":
    sys.exit(main())
