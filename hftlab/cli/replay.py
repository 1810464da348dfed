"""`hftlab replay`: run a flow through the books."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hftlab.cli import common

if TYPE_CHECKING:
    from rich.table import Table

    from hftlab.results.result import Result

INSTRUMENTS_SHOWN = 5
POSITIONS_SHOWN = 10


def replay(
    file: common.Source,
    mode: common.Mode = "match",
    path: Annotated[
        str | None,
        common.choice_option("--path", "Both give the same results; batch is faster.", "batch", "event"),
    ] = None,
    threads: Annotated[
        int | None, common.count_option("--threads", "Divide the instruments among N threads.")
    ] = None,
    config: common.ConfigFile = None,
    symbols: common.Symbols = None,
    record: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Tables: fills, rejects, outcomes, l1, depth, book, anomalies, gate, positions, pnl.",
        ),
    ] = None,
    depth: Annotated[
        int | None, common.count_option("--depth", "Levels a side of the depth table.", maximum=1000)
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a run folder here.")] = None,
    initial_book: common.InitialBook = None,
    drop_ghosts: common.DropGhosts = False,
    limits: common.LimitsFile = None,
    tick_size: Annotated[
        str | None,
        typer.Option(
            metavar="X",
            help="One tick size for all, such as 0.01; default: the largest that fits every price.",
        ),
    ] = None,
    chunk_rows: Annotated[
        int | None, common.count_option("--chunk-rows", "Replay in chunks of N rows, in bounded memory.")
    ] = None,
    format: common.Format = None,
    options: common.FeedOptions = None,
    as_json: common.Json = False,
) -> None:
    """Replay order flow through the books: exact fills, outcomes, top of book, and a
    digest of it all.

    Options override environment variables such as HFTLAB_REPLAY__THREADS, and
    those override --config.

    Example: [bold]hftlab replay data/sample.parquet --record fills,l1 --out run[/]
    """
    import hftlab

    settings = hftlab.load_config(config)
    gate = common.load_limits(limits, settings, mode)
    started = time.perf_counter()
    with common.working(f"reading {file.name}"):
        more = {"initial_book": initial_book, "drop_ghosts": drop_ghosts or None}
        flow = common.open_source(file, format, symbols, options, settings, **more)
    before = {"open": time.perf_counter() - started}
    wanted = common.names(record)
    before["load kernels"] = common.load_kernels(path, wanted, gate, threads or settings.replay.threads)
    with common.progress("replaying", flow.known_rows) as bar:
        result = hftlab.replay(
            flow,
            mode=mode,
            path=path,
            threads=threads,
            record=wanted,
            config=settings,
            depth=depth,
            tick_size=tick_size,
            chunk_rows=chunk_rows,
            out=out,
            progress=bar and bar.advance,
            keep=False,
            limits=gate,
        )
    summary = result.summary()
    facts = summary["inferred_from"]
    summary["faults"] = [str(fault) for fault in flow.faults]
    summary["seconds"] = {**before, **summary["seconds"]}
    if as_json:
        common.print_json({**summary, "out": out and str(out)})
        return
    tables = [_overview(summary, facts, out), _stages(summary), _touch(result, summary)]
    if "positions" in summary["record"]:
        tables.append(_positions(result))
    common.show(*tables)


def _overview(summary: dict[str, Any], facts: int | None, out: Path | None) -> Table:
    rows = summary["rows"]
    lines = {
        "commands" if summary["mode"] == "match" else "facts": f"{rows:,}"
        + (f", inferred from {facts:,} facts" if facts else ""),
        "accepted": common.share(summary["accepted"], rows),
        "rejected": common.share(summary["rejected"], rows) + _parts(summary["reasons"]),
        "outcomes": _parts(summary["statuses"]).removeprefix(": "),
        "fills": f"{summary['fills']:,}, {summary['filled_qty']:,} lots",
        "open at the end": f"{common.plural(summary['open_orders'], 'order')} in "
        f"{common.plural(summary['symbols'], 'instrument')}",
        "digest": summary["digest"],
    }
    if summary["limits_of_all"]:
        lines["limits of all"] = ", ".join(f"{key} {text}" for key, text in summary["limits_of_all"].items())
    if summary["gate_events"]:
        lines["by the gate"] = _parts(summary["gate_events"]).removeprefix(": ")
    if summary["fallbacks"]["pieces"]:
        lines["in input order"] = _fallbacks(summary)
    if summary["skipped"]:
        lines["skipped"] = f"{common.plural(summary['skipped'], 'row')} of other symbols"
    if summary["faults"]:
        lines["damaged"] = "; ".join(summary["faults"])
    if out is not None:
        lines["written to"] = str(out)
    how = f"{summary['mode']}, {summary['path']}, {common.plural(summary['threads'], 'thread')}"
    if summary["chunks"] > 1:
        how += f", {summary['chunks']:,} chunks"
    return common.facts(f"{Path(summary['input']).name}: {how}", lines)


def _fallbacks(summary: dict[str, Any]) -> str:
    """Rows that ran in input order on one thread, because a limit on an account was touched."""
    pieces, rows = summary["fallbacks"]["pieces"], summary["fallbacks"]["rows"]
    of = f" of {summary['chunks']:,} chunks" if summary["chunks"] > 1 else ""
    where = f", in {pieces:,}{of}" if of else ""
    return common.share(rows, summary["rows"]) + where


def _parts(counts: dict[str, int]) -> str:
    listed = sorted(counts.items(), key=lambda item: -item[1])
    return ": " + ", ".join(f"{name} {count:,}" for name, count in listed) if listed else ""


def _stages(summary: dict[str, Any]) -> Table:
    table = common.grid("Time", "stage", "wall time", "per command")
    for stage, seconds in summary["seconds"].items():
        ns = summary["ns_per_command"].get(stage)
        table.add_row(stage, common.duration(seconds), common.duration(ns / 1e9) if ns else "once")
    return table


def _touch(result: Result, summary: dict[str, Any]) -> Table:
    from hftlab.replayer.inspection import busiest

    title = "Best prices at the end"
    # in chunks fills are not kept, so instruments go by their open orders
    fills_known = summary["mode"] == "match" and "fills" in summary["record"] and summary["chunks"] == 1
    traded = {"fills": common.count, "volume": common.count, "last": common.price} if fills_known else {}
    headings = ("fills", "lots", "last") if fills_known else ()
    table = common.grid(title, "symbol", *headings, "orders", "lots", "bid", "ask", "lots", "orders")
    table.padding = (0, 1, 0, 0)  # quantities of crypto venues have a dozen digits
    for row in busiest(result, INSTRUMENTS_SHOWN, by_fills=fills_known).to_dicts():
        table.add_row(
            row["symbol"],
            *(how(row[name]) for name, how in traded.items()),
            *(common.count(row["bid_ct"] and row[name]) for name in ("bid_ct", "bid_sz")),
            *(common.price(row[name]) for name in ("bid_px", "ask_px")),
            *(common.count(row["ask_ct"] and row[name]) for name in ("ask_sz", "ask_ct")),
        )
    return table


def _positions(result: Result) -> Table:
    """The positions with the most lots traded."""
    positions = result.positions
    title = f"Positions at the end, {min(positions.height, POSITIONS_SHOWN):,} of {positions.height:,}"
    names = ("symbol", "account", "position", "average", "realised", "unrealised", "fees", "open orders")
    table = common.grid(title, *names)
    # a sum beyond 64 bits is null, and is the largest
    bought, sold = (positions[name].cast(float).fill_null(math.inf) for name in ("bought_qty", "sold_qty"))
    traded = bought + sold
    for row in positions[traded.arg_sort(descending=True)].head(POSITIONS_SHOWN).to_dicts():
        position = row["position"]
        table.add_row(
            row["symbol"],
            str(row["account"]),
            "beyond 2^63" if position is None else common.count(position),
            *(common.price(row[name]) for name in ("avg_price", "realised_pnl", "unrealised_pnl", "fees")),
            common.count(row["open_orders"]),
        )
    return table
