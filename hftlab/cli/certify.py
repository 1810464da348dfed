"""`hftlab certify`: how far to trust a replay of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hftlab.cli import common

if TYPE_CHECKING:
    from rich.table import Table

    from hftlab.fidelity.certificate import Certificate


def certify(
    file: common.Source,
    levels: Annotated[int, common.count_option("--levels", "Levels a side to compare.", maximum=1000)] = 10,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the certificate as an HTML page, too.")
    ] = None,
    initial_book: common.InitialBook = None,
    drop_ghosts: common.DropGhosts = False,
    format: common.Format = None,
    symbols: common.Symbols = None,
    options: common.FeedOptions = None,
    config: common.ConfigFile = None,
    as_json: common.Json = False,
) -> None:
    """Certify how far to trust a replay of this file.

    Rebuilds the venue's book from its facts, matches the commands inferred from
    them, and compares the two: executions reproduced exactly, books equal after
    each event, the first divergence, and the cause of each execution that was not
    reproduced.

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
    tables += common.remarks(certificate.faults, certificate.notes)
    if certificate.first_divergence is not None:
        tables += _divergence(certificate.first_divergence.as_dict())
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

    return common.facts("What was compared", dict(what_was_compared(certificate.as_dict())))


def _divergence(d: dict[str, Any]) -> list[Table]:
    from hftlab.fidelity.page import book_lines, fill_lines

    cause = f", {d['cause']}" if d["cause"] else ""
    same_book = d["replay_book"] == d["venue_book"]
    when = f"{common.moment(d['ts'])} UTC"
    where = {
        "where": f"fact {d['row']:,} (sequence {d['sequence']:,}), {d['symbol']}, {when}",
        "the venue": fill_lines(d["venue"]),
        "the replay": fill_lines(d["replay"]),
        "venue's book": book_lines(d["venue_book"]),
        "replay's book": "the same" if same_book else book_lines(d["replay_book"]),
    }
    around = common.grid("The facts around it", "", "row", "action", "side", "price", "size", "order", left=1)
    for fact in d["facts"]:
        side = {1: "buy", -1: "sell"}.get(fact["side"], "")
        cells = (f"{fact['row']:,}", fact["action"], side, common.price(fact["price"]))
        mark = ">" if fact["row"] == d["row"] else ""
        around.add_row(mark, *cells, f"{fact['size']:,}", str(fact["order_id"]))
    return [common.facts(f"The first divergence: {d['what']}{cause}", where), around]
