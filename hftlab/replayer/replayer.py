"""`replay`: any flow through the books, in one piece or in chunks, in batch or event by event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from hftlab.config.settings import Config
from hftlab.engine.plan import partitions_for
from hftlab.engine.runner import TapeRun, run_events, run_tape
from hftlab.engine.workers import Progress
from hftlab.errors import UsageError
from hftlab.feeds import Flow, open_flow
from hftlab.replayer.machine import applied, machine_for, say_not_applied
from hftlab.replayer.plan import (
    Plan,
    check_ticks,
    costs_of,
    limits_for,
    lots_for,
    make_plan,
    with_lot_size,
)
from hftlab.replayer.sink import Handover, Sink
from hftlab.replayer.source import Chunk, Source
from hftlab.results import tables
from hftlab.results.digest import Digest
from hftlab.results.positions import changes_of_fills, of_fills
from hftlab.results.result import Counts, Result
from hftlab.results.run_folder import RunWriter
from hftlab.risk_gate.control_rows import first_control
from hftlab.risk_gate.limits import Limits
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.open_orders import Resting, nothing
from hftlab.tape.tables import ABSENT, CheckedTable, frozen
from hftlab.tape.tape import Tape


def replay(
    flow: Any,
    mode: str = "match",
    path: str | None = None,
    threads: int | None = None,
    record: Iterable[str] | str | None = None,
    config: Config | str | Path | None = None,
    *,
    symbols: str | Iterable[str] | None = None,
    depth: int | None = None,
    tick_size: Any = None,
    chunk_rows: int | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    keep: bool = True,
    limits: Limits | str | Path | dict[str, Any] | None = None,
) -> Result:
    """Feed a flow through the books.

    Parameters: `flow` is a path, a `Flow`, a `Tape` or an orders or mbo table (pyarrow, polars, dict of
    arrays). `mode` "match" runs commands through the matcher (inferred first, if the flow holds facts),
    "rebuild" applies the venue's facts as they are. `path` is "batch" (default) or "event", with identical
    results. `threads` divides the instruments among threads (of a `Tape`, its partitions). `record` names the
    tables to keep: fills, rejects, outcomes, l1, depth, book, anomalies, gate, positions, pnl (default fills
    and outcomes). `config` is a `Config` or a TOML file. `symbols` keeps only some. `depth` is levels per
    side. `tick_size` is one for all or by symbol; inferred where missing. `chunk_rows` replays in chunks with
    bounded memory, as files of more than 16 M rows are anyway. `out` writes a run folder as the replay goes.
    `progress` is called with rows done. Without `keep` and `out` a replay in chunks keeps its counts, digest,
    open orders and positions only. `limits` puts the risk gate in front of the matcher: a `Limits`, a file of
    them, a dict of keys, or those of `config` (docs/RISK.md).

    Raises FormatError and TableError for broken input, UsageError for a wrong call, OutputError where
    `out` can't be written.
    """
    plan = make_plan(mode, path, threads, record, config, symbols, depth, tick_size, chunk_rows, progress)
    machine = machine_for(plan.config.performance)
    plan = replace(plan, keep=keep, limits=limits_for(limits, plan), not_applied=machine.not_applied)
    say_not_applied(machine, plan.config)
    with applied(machine):
        return _replay(flow, plan, out)


def _replay(flow: Any, plan: Plan, out: str | Path | None) -> Result:
    if isinstance(flow, str | Path):
        flow = Tape.load(str(flow)) if Path(flow).suffix == ".tape" else open_flow(flow)
    if isinstance(flow, Tape):
        return _with_output(plan, out, partial(_replay_tape, flow))
    if isinstance(flow, Flow):
        initial_book = flow.options.get("initial_book")
        plan = replace(
            plan,
            input=str(flow.path),
            initial_book=None if initial_book is None else str(initial_book),
            feed={"format": flow.format, **flow.options},
            symbols=plan.symbols or flow.symbols,
            config=(config := with_lot_size(plan.config, flow.lot_size)),
            lots=lots_for(config),
        )
    source = Source(flow, plan)
    return _with_output(source.plan, out, partial(_replay_source, source))


def replay_to(take: Callable[[str, pa.Table], None], flow: Flow, plan: Plan) -> Result:
    """Replay a flow and hand each recorded table to `take(name, table)`, chunk by chunk; none is kept.

    Raises as `replay` does.
    """
    source = Source(flow, plan)
    with applied(machine_for(plan.config.performance)):
        result = _replay_source(source, source.plan, Handover(take))
    if result.in_one_piece:
        for name in plan.record:
            take(name, result.to_arrow(name))
    return result


def _with_output(
    plan: Plan, out: str | Path | None, work: Callable[[Plan, RunWriter | None], Result]
) -> Result:
    if out is None:
        return work(plan, None)
    with RunWriter(out) as writer:
        result = work(plan, writer)
        for name in plan.record:
            if writer.missing(name):
                writer.append(name, result.to_arrow(name))
        writer.commit(result.manifest())
    return result


def _run_one(plan: Plan, tape: Tape, manager: RiskManager | None) -> TapeRun:
    touch = "l1" in plan.record
    if plan.path == "event":
        return run_events(tape, touch, plan.progress, manager)
    return run_tape(tape, plan.threads, touch, plan.progress, manager)


def gate_for(plan: Plan, checked: CheckedTable, first: bool) -> RiskManager | None:
    """The risk gate, where limits are given or rows control it; `first`: no chunk came before."""
    if plan.mode != "match":
        return None
    if plan.limits is not None:
        return RiskManager(plan.limits, plan.lots)
    row = first_control(checked)
    if row is None:
        return None
    if not first:  # the gate counts from the first row on, so it can't begin in the middle
        raise UsageError(
            f"row {checked.first_row + row}: found a RISK_CONTROL after the first chunk, expected limits "
            "(even empty ones), so that the gate is there from the start, or a replay in one piece"
        )
    return RiskManager(Limits(), plan.lots)


def _replay_tape(tape: Tape, plan: Plan, writer: RunWriter | None) -> Result:
    for what in ("symbols", "tick_size", "chunk_rows"):
        if getattr(plan, what) is not None:
            raise UsageError(f"{what}: found {getattr(plan, what)!r} for a tape, which is compiled already")
    if tape.checked.facts != (plan.mode == "rebuild"):
        raise UsageError(f"mode: found {plan.mode!r}, expected the mode the tape was compiled for")
    if plan.limits is not None:
        plan.limits.check_symbols(tape.symbols)
        # a closing order may be larger than any row, and a narrow tape has 32 bits for a quantity
        if plan.limits.closes_positions and not tape.is_wide:
            raise UsageError(
                "limits: found stops that close positions, expected a table: this tape is narrow"
            )
    return _single(plan, tape, 0, {})


def _single(plan: Plan, tape: Tape, skipped: int, seconds: dict[str, float]) -> Result:
    """A result in one piece: each table is made when it is first read."""
    run = _run_one(plan, tape, gate_for(plan, tape.checked, True))
    counts = Counts()
    counts.add(run, skipped)
    fills = cache(partial(tables.expand_fills, run))  # digest, fills, positions and pnl share one copy
    return Result(
        digest=Digest(),
        counts=counts,
        symbols=tape.symbols,
        resting=lambda: run.open_orders,
        settings=plan.settings(),
        seconds={**seconds, "run": run.seconds},
        tables={
            "positions": lambda: of_fills(fills(), tape.symbols, run.open_orders, costs_of(plan), plan.lots),
            "pnl": lambda: changes_of_fills(fills(), tape.symbols, costs_of(plan), plan.lots),
        },
        run=run,
        fills=fills,
    )


def _compile(plan: Plan, checked: CheckedTable, opening: Resting) -> Tape:
    rules = rules_for(checked.symbols, plan.tick_size, plan.config)
    check_ticks(plan.limits, checked, rules)
    wide = plan.limits is not None and plan.limits.closes_positions
    return compile_checked(checked, rules, opening, partitions_for(plan.threads, plan.limits), wide)


def _replay_source(source: Source, plan: Plan, writer: RunWriter | Handover | None) -> Result:
    chunks = source.chunks()
    checked, skipped, read = next(chunks)
    following = next(chunks, None)  # one chunk alone is a result in one piece
    if following is None:
        started = perf_counter()
        tape = _compile(plan, checked, nothing())
        return _single(plan, tape, skipped, {"read": read, "compile": perf_counter() - started})
    return _replay_chunks(plan, writer, [(checked, skipped, read), following], chunks)


def _replay_chunks(
    plan: Plan, writer: RunWriter | Handover | None, first: list[Chunk], rest: Iterator[Chunk]
) -> Result:
    """Chunk after chunk, each beginning with the orders that the last one left open."""
    digest, counts, sink = Digest(), Counts(), Sink(plan, writer)
    seconds = dict.fromkeys(("read", "compile", "run", "tables"), 0.0)
    symbols: tuple[str, ...] = ()
    resting, manager = nothing(), None
    for checked, skipped, read in chain(first, rest):
        started = perf_counter()
        checked = _with_symbols(checked, symbols)
        symbols = checked.symbols if checked.rows else symbols  # an empty chunk knows none
        tape = _compile(plan, checked, resting)
        compiled = perf_counter()
        # one gate for the whole flow: it carries positions and rates from chunk to chunk
        manager = manager or gate_for(plan, checked, counts.chunks == 0)
        run = _run_one(plan, tape, manager)
        ran = perf_counter()
        fills = tables.expand_fills(run)
        digest.add_run(run, fills)
        sink.add(run, fills, counts.fills)
        counts.add(run, skipped)
        resting = run.open_orders
        seconds["read"] += read
        seconds["compile"] += compiled - started
        seconds["run"] += ran - compiled
        seconds["tables"] += perf_counter() - ran
    symbols = symbols or checked.symbols
    return Result(
        digest=digest,
        counts=counts,
        symbols=symbols,
        resting=lambda: resting,
        settings=plan.settings(),
        seconds=seconds,
        tables=sink.tables(symbols, resting),
    )


def _with_symbols(checked: CheckedTable, known: tuple[str, ...]) -> CheckedTable:
    """The same rows with the books numbered as before, and new symbols behind."""
    if checked.symbols == known or not known:
        return checked
    if not checked.rows:  # the filter left no row
        return replace(checked, symbols=known)
    before = set(known)  # books keep their numbers: open orders of the last chunk refer to them
    symbols = known + tuple(symbol for symbol in checked.symbols if symbol not in before)
    number = {symbol: book for book, symbol in enumerate(symbols)}
    books = np.array([number[symbol] for symbol in checked.symbols], np.int32)
    book = checked.columns.book if checked.columns.book.size else np.zeros(checked.rows, np.int32)
    book = frozen(books[book], "i4") if len(symbols) > 1 else ABSENT["i4"]
    return replace(checked, symbols=symbols, columns=checked.columns._replace(book=book))
