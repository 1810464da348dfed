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
from benchmarks.peers import environment, files
from benchmarks.peers.contest import Contender, Entry, Failed, contest
from hftlab.run_folder import cpu_name

SCRIPTS = {  # package -> script; hftlab comes first, and is what the others are held against
    "itch-book": "with_itch_book.py",
    "itchcpp": "with_itchcpp.py",
    "pylobo": "with_pylobo.py",
    "itchfeed": "with_itchfeed.py",
    "meatpy": "with_meatpy.py",
}
TASKS = {
    "bbo": "ITCH to a table of every best bid and offer",
    "books": "ITCH to the books at the end",
    "decode": "ITCH to columns or objects",
    "lobster": "LOBSTER to columns",
}
IN_PYTHON = {  # (package, task) that would take minutes: they get a shorter file
    ("itchcpp", "bbo"),
    ("itchcpp", "decode"),
    ("itchfeed", "decode"),
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
    for name, script, arguments in starts:
        try:
            ours = script == "with_csv.py"
            contenders.append(Contender(name, script, *arguments, ours=ours))
        except Failed as error:
            failed[name] = str(error)
    return contenders, failed


def compare(contenders: list[Contender], folder: Path, messages: int, symbols: int, rounds: int) -> dict:
    """Every task on files of so many instruments: task -> entries."""
    found: dict[str, list] = {task: [] for task in TASKS}
    for share, length in ((1, messages), (SHORT, messages // SHORT)):
        (here := folder / f"{symbols}x{length}").mkdir()
        events = files.market(length, symbols)
        count = files.write_itch(here, events)
        for task in ("bbo", "books", "decode"):
            those = [c for c in contenders if ((c.name, task) in IN_PYTHON) == (share > 1)]
            those = contenders[:1] + [c for c in those if c.name != "hftlab"]
            if any(task in contender.tasks for contender in those[1:]):
                entries = contest(those, task, here / files.ITCH_NAME, count, rounds)
                found[task] += entries if share == 1 else entries[1:]
        if share == 1 and symbols == 1:
            count = files.write_lobster(here, events)
            found["lobster"] = contest(contenders, "lobster", here / files.LOBSTER_NAME, count, rounds)
    return found


def show(symbols: int, found: dict) -> None:
    """The tables of one run."""
    for task, entries in found.items():
        if not entries:
            continue
        print(f"\n{TASKS[task]}, {symbols} symbol{'s' if symbols > 1 else ''}, ns per message")
        heads = f"{'messages':>10} {'median':>9} {'best':>9} {'cpu':>9} {'rows':>10}  result"
        print(f"{'':10} {'version':>8} {heads}")
        for entry in entries:
            if isinstance(entry, Entry):
                times = f"{entry.wall_ns:9.1f} {entry.best_ns:9.1f} {entry.cpu_ns:9.1f}"
                print(
                    f"{entry.contender:10} {entry.version:>8} {entry.messages:>10,} {times} "
                    f"{entry.rows:>10,}  {entry.verdict}"
                )
            else:
                print(f"{entry[0]:10} failed: {entry[1]}")


def main() -> int:
    """Install, compare, print; 1 where a result is not the same."""
    parser = argparse.ArgumentParser(
        description=benchmarks.peers.__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each (median)")
    parser.add_argument("--quick", action="store_true", help="100,000 messages, 3 rounds")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file too")
    options = parser.parse_args()
    messages, rounds = (100_000, 3) if options.quick else (options.messages, options.rounds)
    contenders, failed = start()
    load = os.getloadavg()[0]
    print(f"{cpu_name()}, {os.cpu_count()} cores, load {load:.2f}, Python {platform.python_version()}")
    for name, why in failed.items():
        print(f"{name}: can't be installed or started: {why}")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for symbols in (1, 100):
            results[symbols] = compare(contenders, Path(folder), messages, symbols, rounds)
            show(symbols, results[symbols])
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
