"""`hftlab inspect`: what is in a file, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hftlab.cli import common

if TYPE_CHECKING:
    from rich.table import Table

    from hftlab.replayer.inspection import Inspection, Trouble

INSTRUMENTS_SHOWN = 10
BARS = " ▁▂▃▄▅▆▇█"


def inspect(
    file: common.Source,
    format: common.Format = None,
    options: common.FeedOptions = None,
    config: common.ConfigFile = None,
    symbols: common.Symbols = None,
    drop_ghosts: common.DropGhosts = False,
    as_json: common.Json = False,
) -> int:
    """Show what is in a file, and what is wrong with it.

    Rows, instruments, times, prices and ticks; rows out of time order; and, by
    replaying it once, every row that would be rejected: by reason, with the first
    of each. The exit status is 1 if the file is damaged.

    Example: [bold]hftlab inspect AMZN_2012-06-21_34200000_57600000_message_1.csv[/]
    """
    import hftlab
    from hftlab.replayer.inspection import inspect_flow

    settings = hftlab.load_config(config)
    with common.working(f"reading {file.name}"):
        flow = common.open_source(file, format, symbols, options, settings, drop_ghosts=drop_ghosts or None)
    common.load_kernels(record=("anomalies",))
    with common.working(f"inspecting {file.name}"):
        found = inspect_flow(flow, config=settings)
    if as_json:
        common.print_json(found.as_dict())
    else:
        remarks = common.remarks(found.faults, found.notes)
        common.show(_overview(found), _instruments(found), _wrong(found), *remarks)
    return 1 if found.faults else 0


def _overview(found: Inspection) -> Table:
    what = {"mbo": "facts (mbo)", "mbp": "price levels (mbp)", "orders": "commands (orders)"}[found.kind]
    rows = {
        "format": f"{found.format}, {what}, {common.size(found.bytes)}",
        "rows": f"{found.rows:,}" + (f" and {found.skipped:,} of other symbols" if found.skipped else ""),
        "actions": ", ".join(
            f"{name} {common.share(count, found.rows)}" for name, count in found.actions.items()
        ),
        "instruments": f"{len(found.instruments):,}",
    }
    if found.first_ts is not None and found.last_ts is not None:
        span = common.duration((found.last_ts - found.first_ts) / 1e9)
        rows["times, UTC"] = f"{common.moment(found.first_ts)} to {common.moment(found.last_ts)} ({span})"
    if found.mode == "match":
        rows["fills"] = f"{found.fills:,}"
    if found.extras:
        rows["further tables"] = f"{', '.join(found.extras)} (hftlab convert --table NAME)"
    rows["open at the end"] = common.plural(found.open_orders, "level" if found.kind == "mbp" else "order")
    return common.facts(Path(found.path).name, rows)


def _instruments(found: Inspection) -> Table:
    shown = found.instruments[:INSTRUMENTS_SHOWN]
    more = len(found.instruments) - len(shown)
    title = f"Instruments, busiest first ({more:,} more)" if more else "Instruments"
    table = common.grid(title, "symbol", "rows", "lowest price", "highest price", "tick", "largest quantity")
    for instrument in shown:
        prices = (instrument.lowest_price, instrument.highest_price, instrument.tick_size)
        largest = "-" if instrument.largest_qty is None else f"{instrument.largest_qty:,}"
        table.add_row(instrument.symbol, f"{instrument.rows:,}", *map(common.price, prices), largest)
    return table


def _wrong(found: Inspection) -> Table:
    """What is wrong, each kind with its count and times; one line in green if nothing is."""
    columns = ("", "rows", "first row", "first, UTC", "last", "over time")
    table = common.grid("What is wrong (rows counted from 0)", *columns, left=1)
    if found.rows_out_of_time_order:
        count = common.share(found.rows_out_of_time_order, found.rows)
        table.add_row("earlier than the row before (kept)", count)
    for trouble in found.troubles:
        what = "book crossed or locked" if trouble.kind == "CROSSED" else f"refused: {trouble.kind}"
        cells = (common.share(trouble.rows, found.rows), f"{trouble.first_row:,}")
        table.add_row(what, *cells, *_when(found, trouble))
    if not table.row_count and not found.faults:
        table.add_row(common.styled("nothing: rows in time order, every one accepted", "green"))
    return table


def _when(found: Inspection, trouble: Trouble) -> tuple[str, ...]:
    """First and last time, and the spread over the time of the file; none if rows have no times."""
    if found.first_ts is None:
        return ()
    bars = "".join(BARS[-(-rows * (len(BARS) - 1) // max(trouble.by_time))] for rows in trouble.by_time)
    return common.moment(trouble.first_ts)[11:19], common.moment(trouble.last_ts)[11:19], bars
