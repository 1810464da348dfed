"""What the commands share: an option means the same in each, and numbers look the same."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hftlab.codes import PRICE_SCALE
from hftlab.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hftlab.config.settings import Config
    from hftlab.feeds import Flow
    from hftlab.risk_gate.limits import Limits

FORMATS = (
    "lobster",
    "itch",
    "dbn",
    "databento_csv",
    "bitstamp",
    "pitch",
    "binance",
    "generic",
    "orders",
    "mbo",
    "mbp",
)
MODE_HELP = "match: run commands through the matcher; rebuild: apply the venue's facts as they are."


def count_option(
    name: str, help: str, minimum: int = 1, maximum: int | None = None, metavar: str = "N"
) -> Any:
    """An option that takes a whole number of at least `minimum`."""

    def parse(text: str | int) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum or (maximum and number > maximum):
            expected = f"from {minimum} to {maximum:,}" if maximum else f"of {minimum} or more"
            raise typer.BadParameter(f"found {text!r}, expected a whole number {expected}")
        return number

    return typer.Option(name, parser=parse, metavar=metavar, help=help)


def choice_option(name: str, help: str, *choices: str) -> Any:
    """An option that takes one of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise typer.BadParameter(f"found {text!r}, expected {' or '.join(choices)}")
        return text

    return typer.Option(name, parser=parse, metavar="|".join(choices), help=help)


Source = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="Any supported source, compressed or not."),
]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help=f"Format of FILE, if its content does not show it: {', '.join(FORMATS)}."
    ),
]
Mode = Annotated[str, choice_option("--mode", MODE_HELP, "match", "rebuild")]
FeedOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-O",
        metavar="NAME=VALUE",
        help="An option of the feed, such as date=2019-01-30 or columns.ts=time; may be repeated.",
    ),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings in TOML.")]
LimitsFile = Annotated[
    Path | None,
    typer.Option(
        "--limits",
        metavar="FILE",
        help="Put a risk gate with these limits in front of the books: TOML or a table.",
    ),
]
InitialBook = Annotated[
    Path | None,
    typer.Option(
        "--initial-book", metavar="FILE", help="Start from the first row of this LOBSTER orderbook file."
    ),
]
DropGhosts = Annotated[
    bool,
    typer.Option(
        "--drop-ghosts", help="Leave orders out from where the market traded through them (Bitstamp)."
    ),
]
Symbols = Annotated[str | None, typer.Option(metavar="A,B", help="Only these symbols.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")]


def names(text: str | None) -> tuple[str, ...] | None:
    """The parts of a comma-separated option."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def open_source(
    path: Path,
    format: str | None = None,
    symbols: str | None = None,
    options: list[str] | None = None,
    config: Config | None = None,
    **more: Any,
) -> Flow:
    """The flow behind a FILE argument; -O options go before those of the configuration's [feed]."""
    import hftlab

    feed = dict(config.feed) if config is not None else {}
    for option in options or ():
        _set_option(feed, option)
    feed |= {name: value for name, value in more.items() if value is not None}
    format = format or feed.pop("format", None)
    feed.pop("format", None)
    for name, instead in (("symbols", "--symbols"), ("path", "the argument FILE")):
        if name in feed:
            raise UsageError(f"--option: found {name!r}, which is no option of a feed, expected {instead}")
    return hftlab.open_flow(path, format=format, symbols=symbols, **feed)


def _set_option(feed: dict[str, Any], option: str) -> None:
    """Put NAME=VALUE or GROUP.NAME=VALUE into the options of a feed."""
    name, given, value = option.partition("=")
    *groups, last = name.strip().split(".")
    if not given or not last or not all(groups):
        raise UsageError(f"--option: found {option!r}, expected NAME=VALUE or GROUP.NAME=VALUE")
    # a copy of each group on the way: those of the settings stay as they are
    for group in groups:
        feed[group] = inner = dict(feed.get(group) or {})
        feed = inner
    feed[last] = value if last == "delimiter" else value.strip()  # which may be a blank


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, for programs."""
    print(json.dumps(value, indent=2, default=str))


def console() -> Console:
    """The console for results, as wide as the terminal, or 100 columns in a pipe; no markup in text."""
    from rich.console import Console

    class Results(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would exit with 1, which means that the answer is no

    return Results(width=None if sys.stdout.isatty() else 100, highlight=False, markup=False)


def load_limits(file: Path | None, settings: Config, mode: str = "match") -> Limits | None:
    """The limits of a file, or else of the settings; None where there is no gate."""
    import hftlab

    if file is not None:
        return hftlab.Limits.load(file)
    return hftlab.Limits.of_config(settings) if mode == "match" else None


def load_kernels(
    path: str | None = None,
    record: Iterable[str] | None = (),
    limits: Limits | None = None,
    threads: int = 1,
) -> float:
    """Load the kernels that a replay needs, and return the seconds it took.

    So they are no part of the replay's own time. The first time on a machine they are compiled, and the
    spinner shows what takes so long.
    """
    import hftlab
    from hftlab.config.settings import Config

    started = time.perf_counter()
    # a quantity beyond 32 bits and two symbols reach the kernels that such limits need
    qty = 2**32 if limits is not None and limits.closes_positions else 1
    order: dict[str, list[Any]]
    order = {"action": ["NEW"], "order_id": [1], "side": [1], "price": [1], "qty": [qty]}
    gate = None if limits is None else hftlab.Limits()
    if limits is not None and limits.ties_instruments and threads > 1:
        order = {"symbol": ["A", "B"], **{name: 2 * values for name, values in order.items()}}
        gate = hftlab.Limits(max_portfolio_value=0)
    with working("loading kernels (compiling them takes up to a minute, once)"):
        # with the defaults: what the settings ask of the machine is said by the replay itself
        plain = Config(replay=hftlab.load_config().replay)
        result = hftlab.replay(order, path=path, threads=threads, record=record, limits=gate, config=plain)
        for name in result.settings["record"]:
            result.to_arrow(name)
        result.summary()
    return time.perf_counter() - started


@contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner on stderr while something takes long; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


class Bar(NamedTuple):
    """A progress bar's two ways to move."""

    advance: Callable[[int], None]  # by so many
    reach: Callable[[int], None]  # to so many in all


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Bar | None]:
    """A bar on stderr; None in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield Bar(partial(bar.advance, task), lambda done: bar.update(task, completed=done))


LONG_S = 60.0


@contextmanager
def steps(what: str, expected: Sequence[tuple[str, float]]) -> Iterator[Callable[[object], None]]:
    """Show on stderr how far work in steps is; each step is a name and roughly the seconds it takes.

    Yields a function to call after each step. Work of over a minute is announced, and a pipe gets a line per
    step of it. A terminal has a bar, drawn only once a second, because drawing disturbs what is measured.
    """
    total = sum(seconds for _, seconds in expected)
    if total > LONG_S:
        print(f"hftlab: {what}, about {minutes(total)} on a quiet machine", file=sys.stderr, flush=True)
    left = iter(enumerate(expected, 1))
    if not sys.stderr.isatty():

        def line(_: object) -> None:
            number, (name, _seconds) = next(left)
            if total > LONG_S:
                print(f"hftlab: {number}/{len(expected)} {name}", file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    done = f"{{task.fields[done]}}/{len(expected)}"
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn(done), TimeRemainingColumn()
    with Progress(
        *columns,
        console=Console(stderr=True),
        refresh_per_second=1,
        speed_estimate_period=3_600,
        transient=True,
    ) as bar:
        names = [*(name for name, _ in expected), ""]
        task = bar.add_task(names[0], total=total, done=0)

        def advance(_: object) -> None:
            number, (_name, seconds) = next(left)
            bar.update(task, advance=seconds, done=number, description=names[number])

        yield advance


def minutes(seconds: float) -> str:
    """A rough time."""
    count = max(1, round(seconds / 60))
    return plural(count, "minute")


def show(*tables: Table) -> None:
    """Print tables one below the other; a title may be wider than its table."""
    out = console()
    for number, table in enumerate(tables):
        title, table.title = table.title, None
        if number:
            out.print()
        out.print(title, style="bold")
        out.print(table)


def styled(text: str, style: str) -> Text:
    """A cell in a colour."""
    from rich.text import Text

    return Text(text, style)


def _table(title: str, **how: Any) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, **how)


def facts(title: str, rows: Mapping[str, str]) -> Table:
    """A two-column table of names and values."""
    table = _table(title, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def grid(title: str, *columns: str, left: int = 1) -> Table:
    """An empty table: the first `left` columns are text, the others numbers.

    Where the terminal is too narrow a number goes over two lines: cut off, it would be another number.
    """
    table = _table(title, header_style="cyan")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < left else "right", overflow="fold")
    return table


def remarks(faults: Iterable[str], notes: Iterable[str]) -> list[Table]:
    """Damage and quirks that the feed reported, damage first; no table for neither."""
    table = grid("What the feed reported", "", left=1)
    table.show_header = False
    for fault in faults:
        table.add_row(styled(f"damaged: {fault}", "red"))
    for note in notes:
        table.add_row(note)
    return [table] if table.row_count else []


def count(number: int | None) -> str:
    """A number with its thousands apart; a dash where there is none."""
    return f"{number:,}" if number else "-"


def price(units: int | None) -> str:
    """A price of 1e-9 units as a decimal with at least two places and no further zeros."""
    if units is None:
        return "-"
    whole, part = divmod(abs(units), PRICE_SCALE)
    decimals = f"{part:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if units < 0 else ''}{whole:,}.{decimals}"


def moment(ts_ns: int | None) -> str:
    """A time in UTC with all its nanoseconds."""
    if ts_ns is None:
        return "-"
    seconds, nanos = divmod(ts_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{nanos:09d}"


def duration(seconds: float) -> str:
    """A time span in the unit that suits it, three digits."""
    if seconds >= 100:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes} min" if hours else f"{seconds / 60:.1f} min"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= 0.9995 * scale:  # what three digits would show as 1000 of the smaller unit
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def size(count: int) -> str:
    """A number of bytes."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} bytes"


def plural(count: int, noun: str) -> str:
    """A count and its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def share(part: int, whole: int) -> str:
    """A count with its percentage."""
    return f"{part:,} ({part / whole:.2%})" if whole else f"{part:,}"
