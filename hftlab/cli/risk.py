"""`hftlab risk`: one flow under several sets of limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hftlab.cli import common
from hftlab.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

    from hftlab.scenarios.report import RiskReport

TABLES = ("table", "rejects", "accounts", "first")


def risk(
    file: common.Source,
    limits: Annotated[
        list[Path],
        typer.Option("--limits", metavar="FILE", help="A set of limits: TOML or a table; may be repeated."),
    ],
    account: Annotated[
        int | None,
        typer.Option(
            "--account",
            metavar="N",
            help="Show this account under each set, and the limit that stops it first.",
        ),
    ] = None,
    threads: Annotated[
        int | None, common.count_option("--threads", "Sets to run at a time; default: one per core.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE",
            help="Write all tables to a folder, or the table of sets to a .csv or .parquet file.",
        ),
    ] = None,
    initial_book: common.InitialBook = None,
    format: common.Format = None,
    options: common.FeedOptions = None,
    config: common.ConfigFile = None,
    symbols: common.Symbols = None,
    as_json: common.Json = False,
) -> None:
    """Replay a flow under several sets of limits and compare rejects, trading, P&L
    and drawdown.

    The first set, "none", is the flow without a gate.

    Example: [bold]hftlab risk flow.parquet --limits loose.toml --limits tight.toml --account 7[/]
    """
    import hftlab

    settings = hftlab.load_config(config)
    sets = {_name(path, limits): hftlab.Limits.load(path) for path in limits}
    _refuse_impossible(out)
    with common.working(f"reading {file.name}"):
        flow = common.open_source(file, format, symbols, options, settings, initial_book=initial_book)
    # each kind of limits has kernels of its own, which must not compile within a set's time
    for gate in (None, *sets.values()):
        common.load_kernels(record=("fills", "rejects", "gate", "positions"), limits=gate)
    rows = flow.known_rows
    with common.progress("replaying", rows and rows * (len(sets) + 1)) as bar:
        report = hftlab.risk(flow, sets, threads=threads, config=settings, progress=bar and bar.advance)
    own = _of_account(report, account)
    if out is not None:
        _write(report, out)
    if as_json:
        common.print_json({**report.to_dict(), "account": own, "out": out and str(out)})
        return
    tables = [
        _limits(report),
        _refused(report),
        _reasons(report),
        _traded(report),
        _worst(report),
        _events(report),
    ]
    if own is not None and account is not None:
        tables += [_account(own), _first(report, account)]
    tables += common.remarks(map(str, flow.faults), ())
    common.show(*(table for table in tables if table.row_count))
    if out is not None:
        print(f"\n{out}: the same as {'a table' if out.suffix else 'tables'}")


def _name(path: Path, all_paths: list[Path]) -> str:
    """The file's name without its suffix, or its whole path if another file has the same."""
    alike = [other for other in all_paths if other.stem == path.stem and other != path]
    return str(path) if alike or path.stem == "none" else path.stem


def _refuse_impossible(out: Path | None) -> None:
    from hftlab.files import check_target

    if out is None:
        return
    if out.suffix not in ("", ".csv", ".parquet"):
        raise UsageError(
            f"{out}: found the suffix {out.suffix!r}, expected .csv, .parquet or none (a folder)"
        )
    if not out.suffix:
        check_target(out)


def _write(report: RiskReport, out: Path) -> None:
    """The table of sets as a file, or all tables as a folder."""
    from hftlab.files import new_file, write_table
    from hftlab.results.run_folder import write_run

    if out.suffix == ".csv":
        with new_file(out) as path:
            report.table.write_csv(path)
    elif out.suffix:
        write_table(out, [report.table.to_arrow()])
    else:
        tables: dict[str, pa.Table] = {name: getattr(report, name).to_arrow() for name in TABLES}
        tables["sets"] = tables.pop("table")
        write_run(out, tables, report.to_dict())


def _of_account(report: RiskReport, account: int | None) -> list[dict[str, Any]] | None:
    """An account under each set; None without an account."""
    if account is None:
        return None
    rows = [row for row in report.accounts.to_dicts() if row["account"] == account]
    if not rows:
        raise UsageError(f"--account: found {account}, expected an account of the flow")
    stops = (each.first_of(account) for each in report.sets)
    return [row | {"first": stop and stop.as_dict()} for row, stop in zip(rows, stops, strict=True)]


def _money(units: int | None) -> str:
    """Money to the cent, which is what fits in a table."""
    return "-" if units is None else common.price(round(units, -7))


def _limits(report: RiskReport) -> Table:
    """The limits of all in each set; no rows if no set has any."""
    lines = {
        each.name: ", ".join(f"{key} {text}" for key, text in each.limits.items())
        for each in report.sets
        if each.limits
    }
    return common.facts("Limits of all", lines)


def _refused(report: RiskReport) -> Table:
    others = f" ({report.skipped:,} of other symbols left out)" if report.skipped else ""
    title = f"{report.source}: {common.plural(report.commands, 'command')}{others}, what the gate refused"
    table = common.grid(title, "set", "orders", "of all", "lots", "notional")
    for each in report.sets:
        total = each.total()
        part = f"{total.orders / each.commands:.2%}" if each.commands else "-"
        table.add_row(
            each.name, common.count(total.orders), part, common.count(total.qty), _money(total.notional)
        )
    return table


def _reasons(report: RiskReport) -> Table:
    table = common.grid("Rejects by reason", "set", "reason", "rejects", "lots", "notional", left=2)
    before = None
    for row in report.rejects.to_dicts():
        name, before = row["set"] if row["set"] != before else "", row["set"]
        lots, notional = common.count(row["qty"]), _money(row["notional"])
        table.add_row(name, row["reason"], f"{row['rejects']:,}", lots, notional)
    return table


def _traded(report: RiskReport) -> Table:
    names = ("set", "fills", "lots", "open orders", "gains", "fees")
    table = common.grid("What traded, and what some gained and others lost", *names)
    for each in report.sets:
        counts = (each.fills, each.filled_qty, each.open_orders)
        table.add_row(each.name, *map(common.count, counts), _money(each.gains), _money(each.fees))
    return table


def _worst(report: RiskReport) -> Table:
    names = ("set", "worst P&L", "account", "largest drawdown", "account")
    table = common.grid("The worst of the accounts", *names)
    for each in report.sets:
        who = (
            "-" if number is None else str(number) for number in (each.worst_account, each.drawdown_account)
        )
        table.add_row(each.name, _money(each.worst_pnl), next(who), _money(each.drawdown), next(who))
    return table


def _events(report: RiskReport) -> Table:
    """Events of the gate; no rows if it had none."""
    names = ("set", "self-trades", "cancelled", "stops struck", "closings", "lots closed")
    table = common.grid("What the gate did by itself", *names)
    columns = ("self_trades", "cancelled", "stops", "closings", "closed_qty")
    for row in report.table.to_dicts():
        if any(row[column] for column in columns):
            table.add_row(row["set"], *(common.count(row[column]) for column in columns))
    return table


def _account(rows: list[dict[str, Any]]) -> Table:
    names = ("set", "orders", "refused", "lots refused", "lots traded", "P&L", "drawdown")
    table = common.grid(f"Account {rows[0]['account']}", *names)
    for row in rows:
        counts = ("orders", "refused", "refused_qty", "filled_qty")
        money = (_money(row[name]) for name in ("pnl", "drawdown"))
        table.add_row(row["set"], *(common.count(row[name]) for name in counts), *money)
    return table


def _first(report: RiskReport, account: int) -> Table:
    stops = {each.name: each.first_of(account) for each in report.sets[1:]}
    lines = {name: "nothing" if stop is None else str(stop) for name, stop in stops.items()}
    return common.facts(f"What stops account {account} first", lines)
