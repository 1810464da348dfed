"""One run of a case: a prepared flow, and for each path what is timed and what is not."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter, perf_counter_ns
from typing import Any

import numpy as np
import pyarrow as pa

import hftlab
from hftlab.benchmark.cases import Case
from hftlab.benchmark.flows import make_flow
from hftlab.engine.acks import Ack
from hftlab.engine.order_book import OrderBook
from hftlab.engine.plan import partitions_for
from hftlab.engine.runner import run_events, run_tape
from hftlab.replayer.book_calls import calls_of, digest_of_acks, open_books
from hftlab.results.digest import digest_of
from hftlab.risk_gate.limits import Limits
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.tables import read_orders
from hftlab.tape.tape import Tape

# A check of each of the four kinds, so loose that none refuses: what is measured is deciding.
GATE: dict[str, Any] = {
    "max_order_qty": 10**6,
    "max_order_notional": "9000000000",
    "max_orders_per_second": 10**8,
    "max_position_size": 10**12,
    "max_open_orders": 10**8,
    "max_open_notional": "9000000000",
    "max_portfolio_value": "9000000000",
}

Call = tuple[Callable[..., Ack], tuple[Any, ...]]


class Prepared:
    """Flow, tape and gate of a case; with fewer `orders`, or from an existing `table`."""

    def __init__(self, case: Case, orders: int | None = None, table: pa.Table | None = None) -> None:
        self.case = case
        if table is None:
            table = make_flow(case.flow, orders or case.orders, case.symbols, case.seed)
        self.table = table
        checked = read_orders(self.table)
        self.limits = Limits(**GATE) if case.risk else None
        parts = partitions_for(case.threads, self.limits)
        self.tape = compile_checked(checked, rules_for(checked.symbols, None, None), parts=parts)

    def manager(self) -> RiskManager | None:
        """A gate without a history."""
        return None if self.limits is None else RiskManager(self.limits)


Once = tuple[float, Callable[[], str]]  # seconds, and what computes the digest of what was run


def run_once(prepared: Prepared) -> Once:
    """Run a case; the seconds cover only what its path is about."""
    return WAYS[prepared.case.path](prepared)


def _batch(prepared: Prepared) -> Once:
    run = run_tape(prepared.tape, prepared.case.threads, manager=prepared.manager())
    return run.seconds, partial(digest_of, run)


def _event(prepared: Prepared) -> Once:
    run = run_events(prepared.tape, manager=prepared.manager())
    return run.seconds, partial(digest_of, run)


def _replay(prepared: Prepared) -> Once:
    started = perf_counter()
    result = hftlab.replay(prepared.table, threads=prepared.case.threads, limits=prepared.limits)
    result.to_arrow("fills")
    result.to_arrow("outcomes")
    return perf_counter() - started, lambda: result.digest


def _python(prepared: Prepared) -> Once:
    books, numbers, calls = _bound_calls(prepared)
    with collector_off():
        started = perf_counter()
        acks = [call(*arguments) for call, arguments in calls]
        seconds = perf_counter() - started
    return seconds, partial(_digest, prepared.tape, books, numbers, acks)


WAYS = {"batch": _batch, "replay": _replay, "event": _event, "python": _python}


def timed_calls(prepared: Prepared) -> tuple[np.ndarray, Callable[[], str]]:
    """ns of every call from Python, each with one reading of the clock in it."""
    books, numbers, calls = _bound_calls(prepared)
    acks, times = [], []
    with collector_off():
        for call, arguments in calls:
            started = perf_counter_ns()
            ack = call(*arguments)
            times.append(perf_counter_ns() - started)
            acks.append(ack)
    return np.array(times), partial(_digest, prepared.tape, books, numbers, acks)


@contextmanager
def collector_off() -> Iterator[None]:
    """Turn Python's garbage collector off: it would go through the acks that are kept for the digest."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _bound_calls(prepared: Prepared) -> tuple[list[OrderBook], list[int], list[Call]]:
    """Empty books, and for each row the number of its book and its call."""
    books = open_books(prepared.tape, prepared.limits)
    rows = list(calls_of(prepared.tape, books))
    return books, [number for number, *_ in rows], [(call, arguments) for _, call, arguments in rows]


def _digest(tape: Tape, books: list[OrderBook], numbers: list[int], acks: list[Ack]) -> str:
    by_gate = [()] * len(acks)  # the gate of a case closes no positions, so it has no fills of its own
    return digest_of_acks(tape, books, zip(numbers, acks, strict=True), by_gate)
