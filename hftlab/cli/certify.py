"""`hftlab certify`: how far a replay of this file can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hftlab.cli import common

if TYPE_CHECKING:
    from rich.table import Table

    from hftlab.fidelity.certify import Certificate, Divergence


def certify(
    file: common.Source,
    levels: Annotated[int, common.count_option("--levels", "Levels a side to compare.", maximum=1000)] = 10,
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write it as one HTML page.")] = None,
    initial_book: common.InitialBook = None,
    drop_ghosts: common.DropGhosts = False,
    format: common.Format = None,
    symbols: common.Symbols = None,
    options: common.FeedOptions = None,
    config: common.ConfigFile = None,
    as_json: common.Json = False,
) -> None:
    """Say how far a replay of this file can be trusted.

    The facts are rebuilt into the venue's book, the commands inferred from them are matched in ours, and the
    two are compared: executions reproduced exactly, books equal after each event, the first divergence,
    and the cause of each execution that was not reproduced.

    Example: [bold]hftlab certify AMZN_2012-06-21_34200000_57600000_message_1.csv[/]
    """
    import hftlab
    from hftlab.files import new_file

    settings = hftlab.load_config(config)
    with common.working(f"reading {file.name}"):
        more = {"initial_book": initial_book, "drop_ghosts": drop_ghosts or None}
        flow = common.open_source(file, format, symbols, options, settings, **more)
    common.load_kernels()
    with common.working("rebuilding, matching and comparing"):
        certificate = hftlab.certify(flow, levels=levels, config=settings)
    if page is not None:
        with new_file(page) as target:
            target.write_text(certificate.page(), encoding="utf-8")
    if as_json:
        common.print_json(certificate.as_dict())
        return
    tables = [_measures(certificate), _causes(certificate), _compared(certificate)]
    tables += common.met(certificate.faults, certificate.notes)
    if certificate.first_divergence is not None:
        tables += _divergence(certificate.first_divergence)
    common.show(*(table for table in tables if table.row_count))
    if page is not None:
        print(f"\n{page}: the same as a page")


def _measures(certificate: Certificate) -> Table:
    name = Path(certificate.path).name
    table = common.grid(f"{name}: how far a replay can be trusted", "measure", "count", "of", "share")
    for measure, part, whole, share in certificate.table.rows():
        table.add_row(measure, f"{part:,}", f"{whole:,}", "-" if share is None else f"{share:.2%}")
    return table


def _causes(certificate: Certificate) -> Table:
    table = common.grid("Executions that were not reproduced, by cause", "cause", "", "executions", left=2)
    for cause, meaning, count in certificate.cause_table.rows():
        table.add_row(cause, meaning.partition(": ")[2] or meaning, f"{count:,}")
    return table


def _compared(certificate: Certificate) -> Table:
    from hftlab.fidelity.page import what_was_compared

    return common.facts("What was compared", dict(what_was_compared(certificate)))


def _divergence(d: Divergence) -> list[Table]:
    from hftlab.fidelity.page import told_book, told_fills

    cause = f", {d.cause}" if d.cause else ""
    where = {
        "where": f"fact {d.row:,} (sequence {d.sequence:,}), {d.symbol}, {common.moment(d.ts)} UTC",
        "the venue": told_fills(d.venue),
        "the replay": told_fills(d.replay),
        "venue's book": told_book(d.venue_book),
        "replay's book": told_book(d.replay_book) if d.replay_book != d.venue_book else "the same",
    }
    around = common.grid("The facts around it", "", "row", "action", "side", "price", "size", "order", left=1)
    for fact in d.facts.iter_rows(named=True):
        side = {1: "buy", -1: "sell"}.get(fact["side"], "")
        cells = (f"{fact['row']:,}", str(fact["action"]), side, common.price(fact["price"]))
        mark = ">" if fact["row"] == d.row else ""
        around.add_row(mark, *cells, f"{fact['size']:,}", str(fact["order_id"]))
    return [common.facts(f"The first divergence: {d.what}{cause}", where), around]
