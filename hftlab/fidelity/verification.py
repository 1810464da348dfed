"""Proof that the paths agree: one flow, run in every way and in chunks of any size, must give one digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from hftlab.config.lot_values import LotValues
from hftlab.config.settings import Config
from hftlab.engine.runner import run_tape
from hftlab.engine.workers import Progress
from hftlab.feeds import Flow, open_flow
from hftlab.replayer.book_calls import calls_of, digest_of_acks, open_books
from hftlab.replayer.plan import lots_for, make_plan, with_lot_size
from hftlab.replayer.replayer import replay
from hftlab.replayer.source import Source
from hftlab.results.digest import digest_of
from hftlab.risk_gate.control_rows import first_control
from hftlab.risk_gate.limits import Limits
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.tables import CheckedTable, first_rows
from hftlab.tape.tape import Tape

CALLS = 20_000  # commands that are also sent through OrderBook, one Python call each


class Check(NamedTuple):
    """One way of running the flow."""

    name: str
    commands: int
    digest: str
    equal: bool
    seconds: float


@dataclass(frozen=True)
class Verification:
    """Every way of running a flow, and whether all gave the digest of the first."""

    rows: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether all digests are equal."""
        return all(check.equal for check in self.rows)


def verify(
    flow: Any,
    mode: str = "match",
    *,
    config: Config | None = None,
    limits: Limits | str | Path | dict[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Verification:
    """Run a flow in batch, event by event, in chunks and in threads, and compare digests.

    `flow`, `mode`, `config`, `limits` and further options such as `symbols` are as for `replay`. `progress`
    is called with the number of checks done. The last two checks send the first commands through `OrderBook`,
    a Python call each, against a batch of the same. Behind a risk gate they are left out where the flow has
    several symbols, for an `OrderBook` has a gate of its own.
    """
    if limits is not None:
        limits = Limits.of(limits)
    if isinstance(flow, str | PathLike):
        flow = open_flow(fspath(flow))
    checks: list[Check] = []

    def check(name: str, expected: str | None, run: Callable[[], tuple[int, str]]) -> str:
        started = perf_counter()
        commands, digest = run()
        equal = expected is None or digest == expected
        checks.append(Check(name, commands, digest, equal, perf_counter() - started))
        if progress is not None:
            progress(1)
        return digest

    def whole(**how: Any) -> tuple[int, str]:
        result = replay(flow, mode, config=config, limits=limits, record=(), **options, **how)
        return result.summary()["rows"], result.digest

    reference = check("batch", None, whole)
    rows = checks[0].commands
    check("event by event", reference, partial(whole, path="event"))
    for size in _chunk_sizes(rows):
        check(f"batch in chunks of {size:,}", reference, partial(whole, chunk_rows=size))
    check(
        f"events in chunks of {_chunk_sizes(rows)[0]:,}",
        reference,
        partial(whole, chunk_rows=_chunk_sizes(rows)[0], path="event"),
    )
    for threads in (2, 4):
        check(f"batch on {threads} threads", reference, partial(whole, threads=threads))
    if mode == "match":
        source = Source(flow, make_plan(config=config, **options))
        first = next(source.chunks())[0]
        # a Python call per row is slow, so these two checks take the head of the flow only
        head = first_rows(first, CALLS)
        gate = limits or Limits.of_config(source.plan.config)
        if gate is None and first_control(first) is not None:
            gate = Limits()
        if gate is None or _has_one_book(gate, head):
            rules = rules_for(head.symbols, options.get("tick_size"), config)
            tape = compile_checked(head, rules, wide=gate is not None and gate.closes_positions)
            lot_size = flow.lot_size if isinstance(flow, Flow) else None
            lots = lots_for(with_lot_size(source.plan.config, lot_size))
            manager = None if gate is None else RiskManager(gate, lots)
            expected = check(
                f"batch of the first {head.rows:,}",
                None,
                lambda: (head.rows, digest_of(run_tape(tape, manager=manager))),
            )
            check("the same through OrderBook calls", expected, lambda: (head.rows, _calls(tape, gate, lots)))
    return Verification(tuple(checks))


def _has_one_book(limits: Limits, checked: CheckedTable) -> bool:
    """Whether an OrderBook by itself is behind the same gate as a replay of these rows."""
    counts_alike = not limits.changes or not checked.seq.size  # a book's first command is its row 0
    return len(checked.symbols) == 1 and counts_alike


def _chunk_sizes(rows: int) -> list[int]:
    """Three ways to cut a flow: in two uneven pieces, in seven, and small but not in too many."""
    return sorted({max(1, rows * 2 // 3), max(1, rows // 7), max(997, rows // 50)}, reverse=True)


def _calls(tape: Tape, limits: Limits | None, lots: LotValues) -> str:
    """The digest of a tape's rows sent through one OrderBook per symbol, a Python call each."""
    books = open_books(tape, limits, lots)
    acks, by_gate = [], []
    for number, call, arguments in calls_of(tape, books):
        acks.append((number, call(*arguments)))
        by_gate.append(books[number].gate_events() if limits is not None else ())
    return digest_of_acks(tape, books, acks, by_gate)
