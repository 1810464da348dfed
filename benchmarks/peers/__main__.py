"""The one command: `python -m benchmarks.peers`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

import benchmarks.peers
from benchmarks.peers import environment, files, orders
from benchmarks.peers.contest import Contender, Entry, Failed, contest
from hftlab.files import cpu_name

SCRIPTS = {  # package -> script; hftlab comes first, and is what the others are held against
    "itch-book": "with_itch_book.py",
    "itchcpp": "with_itchcpp.py",
    "pylobo": "with_pylobo.py",
    "itchfeed": "with_itchfeed.py",
    "meatpy": "with_meatpy.py",
    "lumina-lob": "with_lumina_lob.py",
    "orderly-chaos": "with_orderly_chaos.py",
    "limit-order-book": "with_limit_order_book.py",
    "liquibook": "with_liquibook.py",
    "polars-order-book": "with_polars_order_book.py",
    "hftbacktest": "with_hftbacktest.py",
}
WAYS = {  # other ways through a package: name -> package, argument of its script
    "lumina-lob, Python": ("lumina-lob", "python"),
    "hftlab, event loop": ("hftlab", "event"),
    "hftlab, table": ("hftlab", "table"),
    "hftlab, tape": ("hftlab", "tape"),
}
NOT_MATCHING = {  # why a package has no place among the books that match
    "itch-book": "rebuilds books from ITCH; takes no orders",
    "itchcpp": "rebuilds books from ITCH; takes no orders",
    "itchfeed": "reads ITCH; has no book",
    "meatpy": "rebuilds books from ITCH; takes no orders",
    "polars-order-book": "knows levels, not orders: see the touch from updates of levels",
    "hftbacktest": "fills a strategy's orders by a model of the queue; a flow's don't meet: see the touch",
}
TASKS = {
    "bbo": "ITCH to a table of every best bid and offer",
    "books": "ITCH to the books at the end",
    "decode": "ITCH to columns or objects",
    "lobster": "LOBSTER to columns",
    "match": "limit orders and cancels, matched, to fills and a book",
    "touch": "updates of levels to the touch after each",
}
IN_PYTHON = {  # (package, task) that would take minutes: they get a shorter file
    ("itchcpp", "bbo"),
    ("itchcpp", "decode"),
    ("itchfeed", "decode"),
    ("lumina-lob, Python", "match"),
    ("meatpy", "bbo"),
    ("meatpy", "books"),
    ("meatpy", "decode"),
    ("pylobo", "decode"),
}
SHORT = 20  # times shorter


def start() -> tuple[list[Contender], dict[str, str]]:
    """All contenders that can be had, hftlab first, and why others can't."""
    failed = environment.prepare()
    contenders = [Contender("hftlab", "with_hftlab.py", ours=True)]
    starts = [(name, script, ()) for name, script in SCRIPTS.items() if name not in failed]
    starts += [(name, "with_csv.py", (name,)) for name in ("polars", "pyarrow")]
    for name, (package, way) in WAYS.items():
        if package not in failed:
            starts.append((name, SCRIPTS.get(package, "hftlab_paths.py"), (way,)))
    for name, script, arguments in starts:
        try:
            ours = script in ("with_csv.py", "hftlab_paths.py")
            contenders.append(Contender(name, script, *arguments, ours=ours))
        except Failed as error:
            failed[name] = str(error)
    return contenders, failed


def write(folder: Path, only: list[str], length: int, symbols: int) -> list[tuple[str, str, int]]:
    """Write the files of one market that the tasks asked for need: (task, file, messages)."""
    given, wanted = [], set(only)
    events = files.market(length, symbols) if wanted & {"bbo", "books", "decode", "lobster"} else None
    if wanted & {"bbo", "books", "decode"}:
        count = files.write_itch(folder, events)
        given += [(task, files.ITCH_NAME, count) for task in ("bbo", "books", "decode")]
    if symbols == 1 and "lobster" in wanted:
        given.append(("lobster", files.LOBSTER_NAME, files.write_lobster(folder, events)))
    if symbols == 1 and wanted & {"match", "touch"}:
        commands, updates = orders.write(folder, length)
        given += [("match", orders.ORDERS_NAME, commands), ("touch", orders.LEVELS_NAME, updates)]
    return [(task, name, count) for task, name, count in given if task in wanted]


def compare(contenders: list[Contender], folder: Path, options: argparse.Namespace, symbols: int) -> dict:
    """The tasks asked for on files of so many instruments: task -> entries."""
    found: dict[str, list] = {task: [] for task in TASKS}
    for share, length in ((1, options.messages), (SHORT, options.messages // SHORT)):
        (here := folder / f"{symbols}x{length}").mkdir()
        for task, name, count in write(here, options.only, length, symbols):
            those = [c for c in contenders[1:] if ((c.name, task) in IN_PYTHON) == (share > 1)]
            if any(task in contender.tasks for contender in those):
                print(f"{TASKS[task]}: {count:,} messages", file=sys.stderr)
                entries = contest(contenders[:1] + those, task, here / name, count, options.rounds)
                found[task] += entries if share == 1 else entries[1:]
    return found


def show(symbols: int, found: dict, failed: dict[str, str]) -> None:
    """The tables of one run; where books match, with a line for each package that has no place there."""
    for task, entries in found.items():
        if not entries:
            continue
        print(f"\n{TASKS[task]}, {symbols} symbol{'s' if symbols > 1 else ''}, ns per message")
        heads = f"{'messages':>10} {'median':>10} {'best':>10} {'cpu':>10} {'rows':>10}  result"
        print(f"{'':18} {'version':>8} {heads}")
        for entry in entries:
            print(line(entry) if isinstance(entry, Entry) else f"{entry[0]:18} failed: {entry[1]}")
        if task == "match":
            for name, why in absent(failed).items():
                print(f"{name:18} {why}")


def line(entry: Entry) -> str:
    """One contender's figures; in brackets where its result is another."""
    same = entry.verdict == "same"
    figures = (entry.wall_ns, entry.best_ns, entry.cpu_ns)
    times = " ".join(f"{f'{figure:.1f}' if same else f'({figure:.1f})':>10}" for figure in figures)
    result = f"same: {entry.told}" if same else f"differs: {entry.verdict}"
    head = f"{entry.contender:18} {entry.version:>8} {entry.messages:>10,}"
    return f"{head} {times} {entry.rows:>10,}  {result}"


def absent(failed: dict[str, str]) -> dict[str, str]:
    """Why packages are not among the books that match."""
    return NOT_MATCHING | {name: f"can't be installed or started: {why}" for name, why in failed.items()}


def main() -> int:
    """Install, compare, print; 1 where a result is not the same."""
    parser = argparse.ArgumentParser(
        description=benchmarks.peers.__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each (median)")
    parser.add_argument("--quick", action="store_true", help="100,000 messages, 3 rounds")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file too")
    options = parser.parse_args()
    if options.quick:
        options.messages, options.rounds = 100_000, 3
    contenders, failed = start()
    load = os.getloadavg()[0]
    print(f"{cpu_name()}, {os.cpu_count()} cores, load {load:.2f}, Python {platform.python_version()}")
    for name, why in failed.items():
        print(f"{name}: can't be installed or started: {why}")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for symbols in (1, 100):
            results[symbols] = compare(contenders, Path(folder), options, symbols)
            show(symbols, results[symbols], failed)
    for contender in contenders:
        contender.close()
    if options.json:
        write_json(Path(options.json), load, failed, results)
    entries = [entry for found in results.values() for some in found.values() for entry in some]
    return int(any(not isinstance(entry, Entry) or entry.verdict != "same" for entry in entries))


def write_json(path: Path, load: float, failed: dict[str, str], results: dict) -> None:
    """The figures for programs."""
    figures = [
        {"symbols": symbols, "task": task}
        | (entry._asdict() if isinstance(entry, Entry) else {"contender": entry[0], "failed": entry[1]})
        for symbols, found in results.items()
        for task, entries in found.items()
        for entry in entries
    ]
    content = {"cpu": cpu_name(), "load": load, "not_installed": failed, "figures": figures}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
