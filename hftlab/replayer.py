"""Replay: any flow through the books, in one piece or in chunks, in batch or event by event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from hftlab import outputs
from hftlab.config import RECORDABLE, Config, load_config
from hftlab.errors import UsageError, require_positive, split_symbols, table_of
from hftlab.feeds import Flow, open_flow
from hftlab.feeds.tables import read_table
from hftlab.inference import infer_orders
from hftlab.limits import Limits
from hftlab.positions import Positions, changes_of_fills, of_fills
from hftlab.price_levels import LevelReader
from hftlab.resting import Resting, nothing
from hftlab.result import Counts, Result
from hftlab.risk_manager import RiskManager, first_control
from hftlab.run_folder import RunWriter
from hftlab.runner import Progress, TapeRun, run_events, run_tape
from hftlab.speculation import parts_for
from hftlab.tables import ABSENT, CheckedTable, as_arrow, frozen, only_symbols, read_facts, read_orders
from hftlab.tape import Tape, compile_checked, rules_for

MODES, PATHS = ("match", "rebuild"), ("batch", "event")
CHUNK_FROM = 16_000_000  # rows: longer files are replayed in chunks unless asked otherwise
OF_THE_END = ("book", "positions")  # tables of what is there after the last row
MANY = CHUNK_FROM + 1  # rows of a file that doesn't say
CHUNK_ROWS = 1_000_000  # 0.9 GB at the peak; four million took 1.9 GB and no less time


@dataclass(frozen=True)
class Plan:
    """How a replay is done: the arguments of `replay`, checked, over the configuration."""

    mode: str
    path: str
    threads: int
    record: tuple[str, ...]
    depth: int
    chunk_rows: int | None
    config: Config
    tick_size: Any
    symbols: tuple[str, ...] | None
    input: str | None
    initial_book: str | None
    feed: dict[str, Any] | None  # format and options the input was opened with
    inferred_from: int | None  # rows of facts, where the commands are inferred
    progress: Progress | None
    keep: bool = True  # tables of a replay in chunks, where no run folder does
    limits: Limits | None = None  # of the risk gate

    def settings(self) -> dict[str, Any]:
        """What a run folder and a summary say of it."""
        names = ("input", "initial_book", "feed", "mode", "inferred_from", "path", "threads", "record")
        return {name: getattr(self, name) for name in (*names, "depth", "chunk_rows", "symbols")} | {
            "tick_size": None if self.tick_size is None else str(self.tick_size),
            "instruments": msgspec.to_builtins(self.config.instruments),
            "limits": None if self.limits is None else self.limits.what,
        }


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
    "rebuild" applies facts as the venue told them. `path` is "batch" (default) or "event", with identical
    results. `threads` share out instruments (of a `Tape`, its parts). `record` names the tables to keep,
    of fills, rejects, outcomes, l1, depth, book, anomalies, gate, positions, pnl (default fills and
    outcomes). `config` is a `Config` or a TOML file. `symbols` keeps only some. `depth` is levels per side.
    `tick_size` is one for all or by symbol; inferred where missing. `chunk_rows` replays in pieces with
    bounded memory, as files of more than 16 M rows are anyway. `out` writes a run folder as the replay
    goes. `progress` is called with rows done. Without `keep` and `out` a replay in chunks keeps its counts,
    digest, open orders and positions only. `limits` puts the risk gate in front of the matcher: a `Limits`,
    a file of them, a dict of keys, or those of `config` (docs/RISK.md).

    Raises FormatError and TableError for broken input, UsageError for a wrong call, OutputError where
    `out` can't be written.
    """
    plan = make_plan(mode, path, threads, record, config, symbols, depth, tick_size, chunk_rows, progress)
    plan = replace(plan, keep=keep, limits=limits_for(limits, plan))
    if isinstance(flow, str | Path):
        flow = Tape.load(flow) if Path(flow).suffix == ".tape" else open_flow(flow)
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
        )
    source = Source(flow, plan)
    return _with_output(source.plan, out, partial(_replay_source, source))


def replay_to(take: Callable[[str, pa.Table], None], flow: Flow, plan: Plan) -> Result:
    """Replay a flow, with each recorded table given to `take(name, table)` in pieces, and not kept.

    Raises as `replay` does.
    """
    source = Source(flow, plan)
    result = _replay_source(source, source.plan, Handover(take))
    if result.in_one_piece:
        for name in plan.record:
            take(name, result.to_arrow(name))
    return result


def limits_for(limits: Limits | str | Path | dict[str, Any] | None, plan: Plan) -> Limits | None:
    """The limits of the risk gate, if there are any; facts have happened and pass none."""
    if limits is not None and plan.mode != "match":
        raise UsageError(
            f"limits: found some in mode {plan.mode!r}, expected mode 'match'; facts pass no gate"
        )
    if limits is not None:
        return Limits.of(limits)
    return Limits.of_config(plan.config) if plan.mode == "match" else None


def make_plan(
    mode: str = "match",
    path: str | None = None,
    threads: int | None = None,
    record: Iterable[str] | str | None = None,
    config: Config | str | Path | None = None,
    symbols: str | Iterable[str] | None = None,
    depth: int | None = None,
    tick_size: Any = None,
    chunk_rows: int | None = None,
    progress: Progress | None = None,
) -> Plan:
    """The arguments of `replay`, checked and laid over the configuration. Raises UsageError."""
    if config is not None and not isinstance(config, Config | str | Path):
        raise UsageError(f"config: found {type(config).__name__}, expected a Config or a TOML file")
    settings = config if isinstance(config, Config) else load_config(config)
    if isinstance(record, str):
        record = [name.strip() for name in record.split(",")]
    elif record is not None and not isinstance(record, Iterable):
        raise UsageError(f"record: found {record!r}, expected names of tables")
    return Plan(
        _one_of("mode", mode, MODES),
        _one_of("path", path or settings.replay.path, PATHS),
        require_positive("threads", settings.replay.threads if threads is None else threads),
        tuple(
            _one_of("record", name, RECORDABLE)
            for name in (settings.replay.record if record is None else record)
        ),
        require_positive("depth", settings.replay.depth if depth is None else depth),
        settings.replay.chunk_rows if chunk_rows is None else require_positive("chunk_rows", chunk_rows),
        settings,
        tick_size,
        split_symbols(symbols),
        None,
        None,
        None,
        None,
        progress,
    )


def _one_of(what: str, value: str, expected: tuple[str, ...]) -> str:
    if value not in expected:
        raise UsageError(f"{what}: found {value!r}, expected one of {', '.join(expected)}")
    return value


class Source:
    """Where the tables of a replay come from, whole or in chunks."""

    def __init__(self, flow: Any, plan: Plan) -> None:
        self.flow, self.plan = flow, plan
        self.path = flow.path if isinstance(flow, Flow) else None
        self.table = None if isinstance(flow, Flow) else as_arrow(flow)
        kind = flow.kind if self.table is None else _kind(self.table)
        if plan.mode == "rebuild" and kind == "orders":
            what = self.path or "this table"
            raise UsageError(
                f"{what}: found orders (commands), expected an mbo table (facts) to rebuild from"
            )
        if plan.mode == "match" and kind == "mbp":
            raise UsageError(
                f"{self.path or 'this table'}: found price levels (mbp), expected orders or facts by order "
                "to match; levels can be rebuilt (mode rebuild)"
            )
        facts = {"mbo": read_facts, "mbp": LevelReader()}
        self.read = read_orders if plan.mode == "match" else facts[kind]
        self.marks_ends = False  # whether some fact so far said that an event ends with it
        self.inferred = kind == "mbo" and plan.mode == "match"
        if self.inferred:
            rows = flow.num_rows if self.table is None else self.table.num_rows
            self.plan = replace(plan, inferred_from=rows)
        elif self.table is None and plan.chunk_rows is None and (flow.most_rows or MANY) > CHUNK_FROM:
            self.plan = replace(plan, chunk_rows=CHUNK_ROWS)

    def tables(self) -> Iterator[pa.Table]:
        """The native table, or the commands inferred from it, in pieces if the plan says so."""
        rows = self.plan.chunk_rows
        if self.table is None and not self.inferred and rows is not None:
            yield from self.flow.batches(rows)
            return
        if self.inferred:
            table = self.flow.orders() if self.table is None else infer_orders(self.table)
        else:
            table = self.flow.table() if self.table is None else self.table
        for start in range(0, max(1, table.num_rows), rows or max(1, table.num_rows)):
            yield table.slice(start, rows)

    def chunks(self) -> Iterator[tuple[CheckedTable, int, float]]:
        """Checked chunks, the rows left out of each by the symbol filter, and the seconds it took."""
        first, started = 0, perf_counter()
        missing, known = dict.fromkeys(self.plan.symbols or ()), {}
        for table in self.tables():
            checked = self._checked(table, first)
            first += checked.rows
            known |= dict.fromkeys(checked.symbols)
            skipped = 0
            if self.plan.symbols is not None:
                kept = only_symbols(checked, self.plan.symbols)
                checked, skipped = kept, checked.rows - kept.rows
                for book in np.unique(kept.columns.book) if kept.columns.book.size else range(kept.rows > 0):
                    missing.pop(kept.symbols[book], None)
            yield checked, skipped, perf_counter() - started
            started = perf_counter()
        if self.plan.limits is not None:
            self.plan.limits.check_symbols(tuple(known))
        if missing:
            raise UsageError(f"symbols: found no rows of {', '.join(missing)}, expected symbols of the flow")

    def _checked(self, table: pa.Table, first: int) -> CheckedTable:
        """A piece through the door; what is wrong with it names the file."""
        with table_of(self.path):
            checked = self.read(table, first)
        self.marks_ends |= checked.ends.size > 0
        if self.marks_ends and not checked.ends.size:  # no event ends in this piece
            checked = replace(checked, ends=frozen(np.zeros(checked.rows), "?"))
        return checked


def _kind(table: pa.Table) -> str:
    """Which of the tables this is, told by its columns."""
    if "size" not in table.column_names or "qty" in table.column_names:
        return "orders"
    return "mbo" if "order_id" in table.column_names else "mbp"


class Handover:
    """Gives recorded tables to somebody who keeps what they like of them."""

    target = None  # nothing can be read back

    def __init__(self, take: Callable[[str, pa.Table], None]) -> None:
        self.append = take


class Sink:
    """Where the recorded tables of a replay in chunks go: memory, or a run folder as it grows."""

    def __init__(self, plan: Plan, writer: RunWriter | Handover | None) -> None:
        self.plan, self.writer = plan, writer
        names = plan.record if plan.keep or writer is not None else ()
        self.parts: dict[str, list[pa.Table]] = {name: [] for name in names if name not in OF_THE_END}
        wanted = "positions" in plan.record or "pnl" in names
        self.held = Positions(_costs(plan)) if wanted else None

    def add(self, run: TapeRun, fills: outputs.Fills, first_match: int) -> None:
        """Keep the recorded tables of a chunk."""
        if self.held is not None and "pnl" not in self.parts:
            self.held.add(fills, run.tape.symbols)
        make = {
            "fills": lambda: outputs.fills_table(run.tape, fills, first_match),
            "rejects": lambda: outputs.rejects_table(run),
            "outcomes": lambda: outputs.outcomes_table(run),
            "l1": lambda: outputs.l1_table(run),
            "anomalies": lambda: outputs.anomalies_table(run),
            "depth": lambda: outputs.depth_table(run, self.plan.depth),
            "gate": lambda: outputs.gate_table(run),
            "pnl": lambda: self.held.add_with_changes(fills, run.tape.symbols),
        }
        for name, parts in self.parts.items():
            table = make[name]()
            if self.writer is None:
                parts.append(table)
            else:
                self.writer.append(name, table)

    def tables(self, symbols: tuple[str, ...], resting: Resting) -> dict[str, Callable[[], pa.Table]]:
        """The whole tables, by name; `symbols` and open orders are those at the end."""
        made = {} if self.held is None else {"positions": partial(self.held.table, symbols, resting)}
        if self.writer is None:
            return made | {name: partial(_joined, parts) for name, parts in self.parts.items()}
        if self.writer.target is None:
            return made
        return made | {name: partial(_read_back, self.writer.target, name) for name in self.parts}


def _joined(parts: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks()


def _read_back(folder: Path, name: str) -> pa.Table:
    return read_table(folder / f"{name}.parquet", "Parquet")


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
    """The risk gate, where limits are given or rows control it."""
    if plan.mode != "match":
        return None
    if plan.limits is not None:
        return RiskManager(plan.limits)
    row = first_control(checked)
    if row is None:
        return None
    if not first:
        raise UsageError(
            f"row {checked.first_row + row}: found a RISK_CONTROL after the first chunk, expected limits "
            "(even empty ones), so that the gate is there from the start, or a replay in one piece"
        )
    return RiskManager(Limits())


def _replay_tape(tape: Tape, plan: Plan, writer: RunWriter | None) -> Result:
    for what in ("symbols", "tick_size", "chunk_rows"):
        if getattr(plan, what) is not None:
            raise UsageError(f"{what}: found {getattr(plan, what)!r} for a tape, which is compiled already")
    if tape.checked.facts != (plan.mode == "rebuild"):
        raise UsageError(f"mode: found {plan.mode!r}, expected the mode the tape was compiled for")
    if plan.limits is not None:
        plan.limits.check_symbols(tape.symbols)
        if plan.limits.closes_positions and not tape.is_wide:
            raise UsageError(
                "limits: found stops that close positions, expected a table: this tape is narrow"
            )
    return _single(plan, tape, 0, {})


def _single(plan: Plan, tape: Tape, skipped: int, seconds: dict[str, float]) -> Result:
    """A result of one piece: its tables are made when somebody asks for them."""
    run = _run_one(plan, tape, gate_for(plan, tape.checked, True))
    counts = Counts()
    counts.add(run, skipped)
    fills = cache(partial(outputs.expand_fills, run))
    return Result(
        digest=outputs.Digest(),
        counts=counts,
        symbols=tape.symbols,
        resting=lambda: run.open_orders,
        settings=plan.settings(),
        seconds={**seconds, "run": run.seconds},
        tables={
            "positions": lambda: of_fills(fills(), tape.symbols, run.open_orders, _costs(plan)),
            "pnl": lambda: changes_of_fills(fills(), tape.symbols, _costs(plan)),
        },
        run=run,
        fills=fills,
    )


def _costs(plan: Plan) -> Limits | None:
    """Limits that say what a fill costs, if any do; the gate needn't be closed for that."""
    config = plan.config
    if plan.limits is not None:
        return plan.limits
    return Limits.from_settings(config.risk, config.trading) if config.risk or config.trading else None


def _compile(plan: Plan, checked: CheckedTable, opening: Resting) -> Tape:
    rules = rules_for(checked.symbols, plan.tick_size, plan.config)
    wide = plan.limits is not None and plan.limits.closes_positions
    return compile_checked(checked, rules, opening, parts_for(plan.threads, plan.limits), wide)


def _replay_source(source: Source, plan: Plan, writer: RunWriter | Handover | None) -> Result:
    chunks = source.chunks()
    checked, skipped, read = next(chunks)
    following = next(chunks, None)
    if following is None:
        started = perf_counter()
        tape = _compile(plan, checked, nothing())
        return _single(plan, tape, skipped, {"read": read, "compile": perf_counter() - started})
    return _replay_chunks(plan, writer, [(checked, skipped, read), following], chunks)


def _replay_chunks(plan: Plan, writer: RunWriter | Handover | None, first: list, rest: Iterator) -> Result:
    """Chunk after chunk, each beginning with the orders the last one left open."""
    digest, counts, sink = outputs.Digest(), Counts(), Sink(plan, writer)
    seconds = dict.fromkeys(("read", "compile", "run", "tables"), 0.0)
    symbols: tuple[str, ...] = ()
    resting, manager = nothing(), None
    while first or (following := next(rest, None)) is not None:
        checked, skipped, read = first.pop(0) if first else following
        started = perf_counter()
        checked = _with_symbols(checked, symbols)
        symbols = checked.symbols if checked.rows else symbols
        tape = _compile(plan, checked, resting)
        compiled = perf_counter()
        manager = manager or gate_for(plan, checked, counts.chunks == 0)
        run = _run_one(plan, tape, manager)
        ran = perf_counter()
        fills = outputs.expand_fills(run)
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
    if not checked.rows:  # nothing of the symbols that were asked for
        return replace(checked, symbols=known)
    before = set(known)
    symbols = known + tuple(symbol for symbol in checked.symbols if symbol not in before)
    number = {symbol: book for book, symbol in enumerate(symbols)}
    books = np.array([number[symbol] for symbol in checked.symbols], np.int32)
    book = checked.columns.book if checked.columns.book.size else np.zeros(checked.rows, np.int32)
    book = frozen(books[book], "i4") if len(symbols) > 1 else ABSENT["i4"]
    return replace(checked, symbols=symbols, columns=checked.columns._replace(book=book))
