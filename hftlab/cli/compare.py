"""`hftlab compare`: rebuilt books against the ones that a venue published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hftlab.cli import common

if TYPE_CHECKING:
    from rich.table import Table

    from hftlab.fidelity.comparison import Comparison, Difference, LevelAgreement


def compare(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run folder with depth or l1, or any source to rebuild here."),
    ],
    truth: Annotated[
        Path,
        typer.Option(
            "--truth",
            metavar="FILE",
            help="Published books: a LOBSTER orderbook file, Databento's MBP as CSV or Parquet, "
            "or a capture with Binance's bookTicker.",
        ),
    ],
    levels: Annotated[
        int | None, common.count_option("--levels", "Levels a side; by default all that both sides have.")
    ] = None,
    one_step: Annotated[
        bool,
        typer.Option(
            "--one-step",
            help="Only check that each row of a LOBSTER file follows from the row before and its message.",
        ),
    ] = False,
    symbol: Annotated[
        str | None, typer.Option(metavar="A", help="The symbol of FILE, if it has no symbol column.")
    ] = None,
    initial_book: common.InitialBook = None,
    drop_ghosts: common.DropGhosts = False,
    format: common.Format = None,
    options: common.FeedOptions = None,
    config: common.ConfigFile = None,
    as_json: common.Json = False,
) -> int:
    """Compare rebuilt books with the ones the venue published, level by level, price
    and size.

    Books are compared only where an event ends. The exit status is 1 if a row
    differs, or if there is none to compare.

    Example: [bold]hftlab compare AMZN_2012-06-21_34200000_57600000_message_10.csv
    --truth AMZN_2012-06-21_34200000_57600000_orderbook_10.csv[/]
    """
    import hftlab

    settings = hftlab.load_config(config)
    more: dict[str, Any] = {"initial_book": initial_book, "drop_ghosts": drop_ghosts or None}
    given: dict[str, object] = {
        "--initial-book": initial_book,
        "--drop-ghosts": more["drop_ghosts"],
        "--format": format,
        "--option": options,
    }
    source = _run_folder(run, given) or common.open_source(run, format, None, options, settings, **more)
    if not one_step:
        common.load_kernels(record=("depth",))
    with common.working("comparing"):
        found = hftlab.compare(
            source, truth, levels=levels, one_step=one_step, symbol=symbol, config=settings
        )
    if as_json:
        common.print_json(found.as_dict())
    else:
        tables = [_overview(found), _rest(found), _levels(found)]
        tables += _difference(found.first) if found.first is not None else ()
        common.show(*(table for table in tables if table.row_count))
    return 0 if found.ok else 1


def _run_folder(run: Path, given: dict[str, object]) -> Path | None:
    """The folder, if this is one; its manifest has the options of its input."""
    from hftlab.errors import UsageError

    if not run.is_dir():
        return None
    wrong = [name for name, value in given.items() if value]
    if wrong:
        raise UsageError(f"{wrong[0]}: found with a run folder, which knows how its input is read")
    return run


def _overview(found: Comparison) -> Table:
    how = "one step at a time" if found.one_step else "rebuilt"
    levels = common.plural(found.levels, "level")
    rows = {
        "published": f"{Path(found.truth).name} ({found.kind}, {levels} a side)",
        "rows compared": f"{found.rows:,}",
        "of the published": f"{found.published_compared:,} of {found.published_rows:,} rows",
        "of the flow": f"{found.rows:,} of {found.flow_events:,} ends of events",
        "exact": common.share(found.exact, found.rows),
    }
    return common.facts(f"{Path(found.path).name}, {how}", rows)


def _rest(found: Comparison) -> Table:
    """Rows that differ and rows that were not compared, by reason, and remarks of the feed."""
    table = common.grid("The others", "", "rows")
    for cause, count in found.causes.items():
        table.add_row(common.styled(f"differs: {cause}", "red"), f"{count:,}")
    for reason, count in found.not_compared.items():
        table.add_row(f"not compared: {reason}", f"{count:,}")
    for fault in found.faults:
        table.add_row(common.styled(f"damaged: {fault}", "red"), "")
    for note in found.notes:
        table.add_row(note, "")
    return table


def _levels(found: Comparison) -> Table:
    """Exact rows by level; levels that agree equally often share a line."""
    from itertools import groupby

    names = ("level", "exact", "down to here", "bid", "lots", "ask", "lots")
    table = common.grid("Rows that are exact, by level", *names, left=1)
    for cells, levels in groupby(found.by_level, key=_agreement):
        first, *_, last = [level.level for level in levels] * 2
        table.add_row(f"{first}" if first == last else f"{first} to {last}", *(f"{n:,}" for n in cells))
    return table


def _agreement(level: LevelAgreement) -> tuple[int, ...]:
    return level.exact, level.exact_down_to, level.bid_px, level.bid_sz, level.ask_px, level.ask_sz


def _difference(first: Difference) -> tuple[Table, Table]:
    where = {
        "where": f"row {first.row:,} of the published file, fact {first.seq:,}, level {first.level}",
        "event": f"sequence {first.sequence:,}, {first.symbol}, {common.moment(first.ts)} UTC",
        "cause": first.cause,
    }
    sides = common.grid("Both sides", "book", "lots", "bid", "ask", "lots")
    for name, touch in (("rebuilt", first.rebuilt), ("published", first.truth)):
        cells = (
            f"{touch.bid_sz:,}",
            common.price(touch.bid_px),
            common.price(touch.ask_px),
            f"{touch.ask_sz:,}",
        )
        sides.add_row(name, *cells)
    return common.facts("The first difference (rows counted from 0)", where), sides
