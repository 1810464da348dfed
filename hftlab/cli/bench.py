"""`hftlab bench`: speed, spread and cost of each case, with the digest of what it ran."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hftlab.cli import common
from hftlab.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from hftlab.benchmark.records import Report
    from hftlab.benchmark.report.comparison import Comparison
    from hftlab.benchmark.report.tables import Row

DEFAULT_ORDERS = 1_000_000
MOST_THREADS = 8
LISTED = 5  # cases of one result only; the JSON has all of them

COLOURS = {
    "met": "green",
    "same": "green",
    "faster": "green",
    "missed": "red",
    "slower": "red",
    "different behaviour": "red",
    "unclear": "yellow",
    "not measured": "yellow",
}


def rate_option(text: str | float) -> float:
    """Commands per second."""
    try:
        rate = float(str(text).replace("_", ""))
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1e9:
        raise typer.BadParameter(f"found {text!r}, expected commands per second, more than 0 and at most 1e9")
    return rate


def bench(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="The file that --json writes; default: stdout."),
    ] = None,
    orders: Annotated[
        int | None,
        common.count_option("--orders", "Orders per case; default: 1,000,000.", maximum=100_000_000),
    ] = None,
    comprehensive: Annotated[
        bool,
        typer.Option(
            "--comprehensive",
            help="Flows x sizes x symbols x paths x risk x threads, and cold starts (15 minutes).",
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="Cases as a matrix in TOML, such as benchmarks/config.toml."
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            metavar="R",
            parser=rate_option,
            help="Response times at R commands per second, which arrive even if the last is not done.",
        ),
    ] = None,
    targets: Annotated[
        bool, typer.Option("--targets", help="Measure the targets of this toolkit: met or missed.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="With --targets: exit status 1 unless all are met.")
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare", metavar="A B", help="Compare two results of --json case by case: B against A."
        ),
    ] = None,
    repetitions: Annotated[
        int | None,
        common.count_option(
            "--repetitions", "Repetitions of each case; default: 9.", minimum=3, maximum=10_000
        ),
    ] = None,
    cold: Annotated[
        bool,
        typer.Option(
            "--cold", help="Measure the first call in a fresh process, too: kernels cached, and compiled."
        ),
    ] = False,
    pin: Annotated[bool, typer.Option("--pin/--no-pin", help="Pin each thread to a core.")] = True,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write an HTML page with plots, too.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, or write it to FILE.")
    ] = False,
) -> int:
    """Measure speed, latency, memory and page faults, with the digest of what each
    case ran.

    Each case runs in a process of its own: warmed up, repeated, pinned. Figures
    are medians; spread is the distance between quartiles. A latency is of a
    command in the event loop or of a call from Python; in a batch a command has
    none of its own. Equal flows must give equal digests on every path. A noisy
    machine is reported as one: compare only results of the same machine.

    With --compare the exit status is 1 if a case is slower, by over 10 % and not
    by chance, or behaves differently.

    Example: [bold]hftlab bench --orders 100000[/], [bold]hftlab bench --targets[/],
    [bold]hftlab bench --rate 1e6 --html report.html[/], [bold]hftlab bench --json before.json[/]
    and later [bold]hftlab bench --compare before.json after.json[/]
    """
    from hftlab.files import new_file

    ways = {"--comprehensive": comprehensive, "--config": config, "--rate": rate, "--targets": targets}
    settings = {"--orders": orders, "--repetitions": repetitions, "--cold": cold, "--no-pin": not pin}
    _refuse_contradictions({**ways, "--compare": compare}, settings, file, page, as_json, strict)
    if compare is not None:
        return _compare(*compare, file if as_json else None, as_json)
    with ExitStack() as files:  # opened before the work, so that a wrong name shows at once
        page_file = files.enter_context(new_file(page)) if page is not None else None
        json_file = files.enter_context(new_file(file)) if file is not None else None
        report = _measure(ways, orders or DEFAULT_ORDERS, {"pin": pin}, repetitions, cold)
        if page_file is not None:
            from hftlab.benchmark.report.page import page as as_page

            page_file.write_text(as_page(report), encoding="utf-8")
        if json_file is not None:
            json_file.write_text(report.to_json(), encoding="utf-8")
    if as_json and file is None:
        common.print_json(report.as_dict())
    else:
        _show(report)
        for written in filter(None, (file, page)):
            print(f"\n{written}: {'a page with plots' if written == page else 'all of it as JSON'}")
    missed = any(row["verdict"] != "met" for row in report.targets)
    return 1 if strict and missed else 0


def _refuse_contradictions(
    ways: dict[str, Any],
    settings: dict[str, Any],
    file: Path | None,
    page: Path | None,
    as_json: bool,
    strict: bool,
) -> None:
    given = [name for name, value in ways.items() if value]
    if len(given) > 1:
        raise UsageError(f"{given[1]}: found with {given[0]}, expected one of {', '.join(ways)}")
    if file is not None and not as_json:
        raise UsageError(f"FILE: found {str(file)!r} without --json, expected --json {file}")
    if ways["--config"] and settings["--orders"]:
        raise UsageError("--orders: found with --config, whose cases have sizes of their own")
    if ways["--targets"] and settings["--cold"]:
        raise UsageError("--cold: found with --targets, which are about warm kernels")
    for name, value in {**settings, "--html": page}.items():
        if ways["--compare"] and value:
            raise UsageError(f"{name}: found with --compare, expected it where something is measured")
    if strict and not ways["--targets"]:
        raise UsageError("--strict: found without --targets")


def _measure(
    ways: dict[str, Any], orders: int, how: dict[str, Any], repetitions: int | None, cold: bool
) -> Report:
    """Measure the cases of the options given, with a progress bar."""
    from hftlab.benchmark import cases, session, targets
    from hftlab.benchmark.estimate import seconds_of_each

    how |= {"repetitions": repetitions or cases.REPETITIONS}
    if ways["--targets"]:
        with common.steps("targets", targets.steps(orders, how["repetitions"])) as done:
            return targets.measure_targets(orders, progress=done, **how)[0]
    if ways["--config"] is not None:
        plan = cases.load_plan(ways["--config"])
        found = plan.cases()
        how |= {"repetitions": repetitions or plan.repetitions, "warmup": plan.warmup}
        cold = cold or plan.cold
    elif ways["--comprehensive"]:
        found, cold = cases.comprehensive(orders, min(MOST_THREADS, os.cpu_count() or 1)), True
    else:
        found = cases.quick(orders, ways["--rate"])
    seconds = seconds_of_each(found, how["repetitions"], how.get("warmup", cases.WARMUP), cold)
    expected = [*zip((case.name for case in found), seconds, strict=True)]
    with common.steps(common.plural(len(found), "case"), expected) as done:
        return session.bench(found, cold=cold, progress=done, **how)


def _compare(before: Path, after: Path, file: Path | None, as_json: bool) -> int:
    import json

    from hftlab.benchmark.records import read_report
    from hftlab.benchmark.report.comparison import compare_reports
    from hftlab.files import new_file

    found = compare_reports(read_report(before), read_report(after))
    if file is not None:
        with new_file(file) as path:
            path.write_text(json.dumps(found.as_dict(), indent=1) + "\n", encoding="utf-8")
    elif as_json:
        common.print_json(found.as_dict())
    if file is not None or not as_json:
        _show_comparison(f"{after.name} against {before.name}", found)
    return 0 if found.ok else 1


def _show_comparison(title: str, found: Comparison) -> None:
    from hftlab.benchmark.report.tables import DIFFERENCE_COLUMNS, difference_rows

    common.show(_filled(title, DIFFERENCE_COLUMNS, difference_rows(found), last_is_verdict=True))
    for which, names in (("A", found.only_before), ("B", found.only_after)):
        if names:
            more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
            print(f"only in {which}: {', '.join(names[:LISTED])}{more}")
    for doubt in found.doubts():
        print(f"noisy: {doubt}")
    bad = sum(pair.verdict in ("slower", "different behaviour") for pair in found.pairs)
    count = common.plural(len(found.pairs), "case")
    print(f"{bad} of {count} slower or different" if bad else f"none of {count} slower or different")


def _show(report: Report) -> None:
    """Tables on the terminal."""
    from hftlab.benchmark.report import tables as rows

    shown = [common.facts("Machine", {name: value for name, value, *_ in rows.machine_rows(report)})]
    if report.targets:
        shown.append(_targets(rows.target_rows(report.targets)))
    speeds = rows.speed_rows(report.measurements)
    shown.append(_filled("Speed (ns per command) and cost", rows.SPEED_COLUMNS, speeds))
    if latencies := rows.latency_rows(report.measurements):
        shown.append(_filled(rows.LATENCY_TITLE, rows.LATENCY_COLUMNS, latencies, left=2))
    if starts := rows.cold_rows(report.measurements):
        title = "First call in a fresh process"
        shown.append(_filled(title, rows.COLD_COLUMNS, starts, left=2))
    common.show(*shown)
    if reasons := report.noise():
        common.console().print("\na noisy machine: " + "; ".join(reasons), style="yellow")


def _filled(
    title: str, columns: tuple[str, ...], rows: list[Row], left: int = 1, last_is_verdict: bool = False
) -> Table:
    table = common.grid(title, *columns, left=left)
    table.collapse_padding, table.pad_edge = True, False  # so that few names take two lines
    for row in rows:
        table.add_row(*row[:-1], _verdict(row[-1]) if last_is_verdict else row[-1])
    return table


def _targets(rows: list[Row]) -> Table:
    table = common.grid("Targets", "target", "", "measured", "lowest to highest", "verdict", "how", left=1)
    for column in table.columns[-2:]:
        column.justify = "left"
    for name, limit, measured, span, verdict, how in rows:
        table.add_row(name, limit, measured, span, _verdict(verdict), how)
    return table


def _verdict(word: str) -> Text:
    return common.styled(word, COLOURS[word])
