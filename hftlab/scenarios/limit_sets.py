"""`risk`: one tape under many sets of limits; `which_limit_first`: what would have stopped an account."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import polars as pl

from hftlab.codes import GateEvent, Reason, Stage
from hftlab.config.limit_keys import TRADING_KEYS
from hftlab.config.settings import Config, load_config
from hftlab.engine.workers import Progress
from hftlab.errors import UsageError, require_positive
from hftlab.feeds import Flow, open_flow
from hftlab.replayer.plan import check_ticks, lots_for, make_plan, with_lot_size
from hftlab.replayer.replayer import replay
from hftlab.replayer.source import Source
from hftlab.results.result import Result
from hftlab.risk_gate.limits import Limits
from hftlab.scenarios.accounts import GATE, Accounts, Holdings, Refusals, total
from hftlab.scenarios.report import FIRST, NO_GATE, RiskReport, RiskSet, Stop, or_none
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.tape import Tape

Given = Limits | str | Path
FROM_SUMMARY = ("accepted", "rejected", "reasons", "fills", "filled_qty", "open_orders", "digest")


def risk(
    flow: Any,
    limits: Mapping[str, Given] | Iterable[Given] | Given,
    *,
    threads: int | None = None,
    config: Config | str | Path | None = None,
    symbols: str | Iterable[str] | None = None,
    tick_size: Any = None,
    progress: Progress | None = None,
) -> RiskReport:
    """Replay a flow under several sets of limits, and once without a gate.

    `limits` are `Limits` or files of them, one, several, or several by name. The flow is compiled once and
    run under `threads` sets at a time (default: as many as there are cores); each run is what `replay`
    with these limits is. `flow`, `config`, `symbols` and `tick_size` are as for `replay`; limits of
    `config` are not used, its `[trading]` sets what fills cost in the set "none". `progress` is called with
    rows done.

    Raises as `replay` does; limits that name a symbol the flow does not have are refused before any run.
    """
    sets = named(limits)
    threads = _cores() if threads is None else require_positive("threads", threads)
    settings = config if isinstance(config, Config) else load_config(config)
    flow = _opened(flow)
    settings = with_lot_size(settings, flow.lot_size) if isinstance(flow, Flow) else settings
    # compiled once: tapes are read-only, so all sets can run the same one at a time
    tape, source, skipped = _tape(flow, sets.values(), settings, symbols, tick_size)
    _check_symbols(sets.values(), tape)
    who, started = Accounts(tape), perf_counter()
    costs = {key: value for key, value in settings.trading.items() if key in TRADING_KEYS}
    none = msgspec.structs.replace(settings, risk={}, trading=costs)
    runs: list[tuple[str, Limits | None, Config]] = [(NO_GATE, None, none)]
    common = Config(
        instruments=settings.instruments, performance=settings.performance, monitoring=settings.monitoring
    )
    runs += [(name, gate, common) for name, gate in sets.items()]
    with ThreadPoolExecutor(min(threads, len(runs))) as pool:
        try:
            jobs = [pool.submit(_run, tape, who, *run, progress) for run in runs]
            done = tuple(job.result() for job in jobs)
        except BaseException:  # Ctrl-C too: runs that have not begun must not begin
            pool.shutdown(cancel_futures=True)
            raise
    seconds = perf_counter() - started
    return RiskReport(source, tape.rows, len(tape.symbols), threads, seconds, done, skipped)


def which_limit_first(
    flow: Any,
    limits: Given,
    account: int | None = None,
    symbol: str | None = None,
    *,
    config: Config | str | Path | None = None,
    tick_size: Any = None,
) -> Stop | pl.DataFrame | None:
    """Which limit would have stopped this account first, when, at what observed value.

    That is its first order that the gate refuses, or, if earlier, its stop loss that strikes; None if neither
    happens. `symbol` limits the answer to one symbol (the flow still runs whole). Without an `account` the
    answer is a frame with a row for each account that was stopped, the earliest first.

    Raises UsageError for an account or a symbol that the flow does not have, and as `replay` does.
    """
    (gate,) = named(limits).values()
    settings = config if isinstance(config, Config) else load_config(config)
    flow = _opened(flow)
    settings = with_lot_size(settings, flow.lot_size) if isinstance(flow, Flow) else settings
    tape, *_ = _tape(flow, [gate], settings, None, tick_size)
    _check_symbols([gate], tape)
    who = Accounts(tape)
    if account is not None and account not in who.numbers:
        raise UsageError(f"account: found {account!r}, expected one of the flow's {who.numbers.size:,}")
    if symbol is not None and symbol not in tape.symbols:
        raise UsageError(f"symbol: found {symbol!r}, expected one of the flow's {len(tape.symbols):,}")
    config = Config(instruments=settings.instruments)
    stops = _stops(replay(tape, record=(), config=config, limits=gate), account, symbol)
    if account is not None:
        return stops[0] if stops else None
    return pl.DataFrame([stop.as_dict() for stop in stops], schema=FIRST)


def named(limits: Mapping[str, Given] | Iterable[Given] | Given) -> dict[str, Limits]:
    """Sets of limits by name: that of the file, or "limits". Raises UsageError for none, LimitsError."""
    if isinstance(limits, Limits | str | Path):
        limits = [limits]
    if not isinstance(limits, Iterable):
        raise UsageError(f"limits: found {type(limits).__name__}, expected Limits or files of them")
    by_name = isinstance(limits, Mapping)
    pairs = list(limits.items()) if isinstance(limits, Mapping) else [(_name(each), each) for each in limits]
    sets: dict[str, Limits] = {}
    for name, given in pairs:
        if not isinstance(given, Limits | str | Path):
            raise UsageError(f"limits: found {type(given).__name__}, expected Limits or a file of them")
        if by_name and name == NO_GATE:
            raise UsageError(f"limits: found a set named {name!r}, which is the one without limits")
        sets[_another(str(name), sets)] = given if isinstance(given, Limits) else Limits.load(given)
    if not sets:
        raise UsageError("limits: found none, expected Limits or files of them")
    return sets


def _name(given: Given) -> str:
    return Path(given).stem if isinstance(given, str | Path) else "limits"


def _another(name: str, taken: Mapping[str, Any]) -> str:
    """The name, or with a number where it is taken."""
    names = (name, *(f"{name} {number}" for number in range(2, len(taken) + 4)))
    return next(each for each in names if each not in taken and each != NO_GATE)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _opened(flow: Any) -> Any:
    """A flow or a tape where a file of one is given."""
    if not isinstance(flow, str | Path):
        return flow
    return Tape.load(flow) if Path(flow).suffix == ".tape" else open_flow(flow)


def _tape(
    flow: Any, limits: Iterable[Limits], config: Config, symbols: Any, tick_size: Any
) -> tuple[Tape, str, int]:
    """The whole flow as one tape that any of the sets can run, the name of its source, and rows left out."""
    if isinstance(flow, Tape):
        if symbols is not None or tick_size is not None:
            raise UsageError("symbols, tick_size: found some for a tape, which is compiled already")
        return flow, "tape", 0
    plan, name = make_plan(config=config, symbols=symbols, tick_size=tick_size), "table"
    if isinstance(flow, Flow):
        name = Path(flow.path).name
        plan = replace(plan, symbols=plan.symbols or flow.symbols, input=str(flow.path))
    source = Source(flow, plan)
    source.plan = replace(source.plan, chunk_rows=None)  # one tape, compiled once for all sets
    ((checked, skipped, _),) = source.chunks()
    rules, limits = rules_for(checked.symbols, tick_size, config), list(limits)
    for gate in limits:
        check_ticks(gate, checked, rules)
    wide = any(gate.closes_positions for gate in limits)
    return compile_checked(checked, rules, wide=wide), name, skipped


def _check_symbols(sets: Iterable[Limits], tape: Tape) -> None:
    for limits in sets:
        limits.check_symbols(tape.symbols)


def _run(
    tape: Tape,
    who: Accounts,
    name: str,
    limits: Limits | None,
    config: Config,
    progress: Progress | None,
) -> RiskSet:
    """One set of limits."""
    started = perf_counter()
    result = replay(tape, record=(), config=config, limits=limits, progress=progress)
    summary = result.summary()
    lots = lots_for(config)
    refusals = Refusals(tape, who, result, lots)
    holdings = Holdings(who, result, lots)
    return RiskSet(
        name=name,
        commands=summary["rows"],
        refused=refusals.by_reason(),
        **{key: summary[key] for key in FROM_SUMMARY},
        gains=holdings.gains,
        worst_pnl=holdings.worst.value,
        worst_account=holdings.worst.account,
        drawdown=holdings.deepest.value,
        drawdown_account=holdings.deepest.account,
        fees=total(holdings.fees),
        events=summary["gate_events"],
        closed_qty=_closed(result),
        seconds=perf_counter() - started,
        accounts=_frame(who, refusals, holdings),
        stops=_stops(result),
        limits=summary["limits_of_all"],
    )


def _closed(result: Result) -> int:
    """Lots that the gate's own orders traded."""
    gate = result.gate.filter(pl.col("event").cast(pl.String) == GateEvent.STOP_CLOSE.name)
    return sum(gate["qty"].to_list())


def _frame(who: Accounts, refusals: Refusals, holdings: Holdings) -> pl.DataFrame:
    refused, refused_qty = refusals.by_account()
    columns = {
        "account": who.numbers,
        "orders": who.orders,
        "refused": refused,
        "refused_qty": [or_none(lots) for lots in refused_qty],
        "filled_qty": holdings.traded,
        "pnl": holdings.pnl,
        "drawdown": holdings.drawdown,
        "fees": holdings.fees,
    }
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Int64))


def _stops(result: Result, account: int | None = None, symbol: str | None = None) -> tuple[Stop, ...]:
    """The first stop of each account, the earliest first."""
    words = pl.col("symbol", "stage", "reason").cast(pl.String)
    refusals = result.rejects.with_columns(words).filter(pl.col("reason").is_in(GATE))
    strikes = result.gate.with_columns(pl.col("symbol", "event").cast(pl.String)).filter(
        pl.col("event") == GateEvent.STOP_LOSS.name
    )
    strikes = strikes.with_columns(
        pl.lit(Stage.LIMITS.name).alias("stage"), pl.lit(Reason.STOP_LOSS.name).alias("reason")
    )
    if account is not None:
        refusals, strikes = (each.filter(pl.col("account") == account) for each in (refusals, strikes))
    if symbol is not None:
        refusals = refusals.filter(pl.col("symbol") == symbol)
        strikes = strikes.filter((pl.col("symbol") == symbol) | pl.col("symbol").is_null())
    # unit, limit and observed text are derived, by `Stop`
    names = [name for name in FIRST if name in refusals.columns]
    both = pl.concat([strikes.select(names), refusals.select(names)])  # a row's stops strike before it
    both = both.sort("seq", maintain_order=True).unique("account", keep="first", maintain_order=True)
    return tuple(Stop(**row) for row in both.cast({"ts": pl.Int64}).to_dicts())
