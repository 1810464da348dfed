"""The tasks that run in a process of their own (see `child`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter, process_time, sleep
from typing import Any

import msgspec
import numpy as np

from hftlab.benchmark.cases import Case
from hftlab.benchmark.machine import memory_bytes, pinned, reset_peak
from hftlab.benchmark.measure import measure
from hftlab.benchmark.ways import Prepared, run_once
from hftlab.engine.order_book import OrderBook
from hftlab.engine.runner import run_events
from hftlab.kernels.engine import event
from hftlab.latency.profiler import LatencyProfiler
from hftlab.results.digest import digest_of

FIRST = 1_000  # commands of a first call
BLOCK = (
    1_000  # commands that arrive together where arrivals are paced by sleeping: 1 ms at a million a second
)
WINDOW = 1_000  # commands
DISTURBED_NS = 10_000  # a command that took longer was interrupted
LEVELS, TICK = 500, 10_000_000


def first_call(case: dict[str, Any]) -> str:
    """The digest of a case's first commands."""
    kind = msgspec.convert(case, Case)
    return run_once(Prepared(kind, orders=min(FIRST, kind.orders)))[1]()


def measured(case: dict[str, Any], **how: Any) -> Any:
    """A measurement of a case."""
    return measure(msgspec.convert(case, Case), **how)


def memory(orders: int, repetitions: int, pin: bool) -> dict[str, Any]:
    """MB by which the peak of this process grows while so many orders come to rest in a book; once."""
    book = OrderBook(tick_size="0.01")
    book.submit(1, "buy", LEVELS * TICK, 1)  # loads the kernel
    is_reset, before = reset_peak(), memory_bytes("VmRSS")
    for order_id in range(2, orders + 1):
        book.submit(order_id, "buy", (LEVELS + order_id % LEVELS) * TICK, 5)
    peak = memory_bytes("VmHWM")
    values = []
    if is_reset and before is not None and peak is not None and len(book) == orders:
        values.append((peak - before) / 1e6)
    return {"values": values, "digest": None}


def paced(case: dict[str, Any], rate: float, repetitions: int, pin: bool) -> dict[str, Any]:
    """Percent of a core that the process uses while commands come in blocks, and it sleeps between them."""
    prepared = Prepared(msgspec.convert(case, Case))
    run_events(prepared.tape, manager=prepared.manager())
    shares, digest = [], None
    with pinned(1, pin):
        for _ in range(min(repetitions, 3)):
            manager = prepared.manager()
            started, used = perf_counter(), process_time()
            run = run_events(prepared.tape, manager=manager, kernel=partial(_on_time, started, rate))
            shares.append(100 * (process_time() - used) / (perf_counter() - started))
            digest = digest_of(run)
    return {"values": shares, "digest": digest}


def _on_time(started: float, rate: float, *arguments: Any) -> tuple[int, int, int, int]:
    """The event kernel, for the next block, once it is due."""
    address, risk, columns, *rest = arguments
    done = rest[4]
    stop = min(done + BLOCK, columns.action.size)
    ahead = started + stop / rate - perf_counter()
    if ahead > 0:
        sleep(ahead)
    return event.run_events(address, risk, columns._replace(action=columns.action[:stop]), *rest)


def windows(case: dict[str, Any], repetitions: int, pin: bool) -> dict[str, Any]:
    """p99 - p50 of the service in ns, of each window in which no command was interrupted."""
    prepared = Prepared(msgspec.convert(case, Case))
    with pinned(1, pin):
        profile = LatencyProfiler().run(
            prepared.tape, prepared.manager(), touch=False, samples=prepared.tape.rows
        )
    times = profile.latency.select((pl_ns("ts_end") - pl_ns("ts_start")).alias("ns"))["ns"].to_numpy()
    return {"values": jitters(times), "digest": profile.digest}


def jitters(times: np.ndarray, window: int = WINDOW) -> list[float]:
    """p99 - p50 of each whole window without a time over DISTURBED_NS; a shorter flow is one window."""
    window = min(window, times.size)
    whole = times[: times.size // window * window].reshape(-1, window)
    # a window with an interruption shows the machine, not the program
    calm = whole[whole.max(axis=1) <= DISTURBED_NS]
    middle, high = np.percentile(calm, (50, 99), axis=1) if len(calm) else (np.zeros(0), np.zeros(0))
    return (high - middle).tolist()


def pl_ns(name: str) -> Any:
    """A time column in ns."""
    import polars as pl

    return pl.col(name).dt.timestamp("ns")


TASKS: dict[str, Callable[..., Any]] = {
    "measure": measured,
    "memory": memory,
    "paced": paced,
    "windows": windows,
}
