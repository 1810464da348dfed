"""NASDAQ ITCH 5.0, from the file to the columns of the mbo table and to every change of the touch.

    python -m benchmarks.itch              # 1 and 100 symbols, 2 million messages each
    python -m benchmarks.itch --quick      # small files, to see that it works
    python -m benchmarks.itch --keep DIR   # write the files there, and use those that are there

The files are made by the encoder of the tests from `hftlab.generate`; they are read from the page cache.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hftlab
from benchmarks.stages import repeated
from hftlab.engine.runner import run_tape
from hftlab.files import cpu_name
from hftlab.results import tables
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.facts import read_facts
from tests.helpers import itch_encoder

REPETITIONS = 15
TARGETS = {  # ns per message
    "1 symbol: decode to columns": 25,
    "100 symbols: decode to columns": 25,
    "1 symbol: file to l1": 60,
    "100 symbols: file to l1": 80,
}


def write_file(folder: Path, messages: int, symbols: int) -> tuple[Path, int]:
    """A file of about so many messages, and how many they are."""
    path = folder / f"{messages}x{symbols}-2024-01-02.NASDAQ_ITCH50"
    count = path.with_suffix(".count")
    if not path.exists():
        events = itch_encoder.market(messages, symbols, seed=1)
        itch_encoder.encoded(events).tofile(path)
        count.write_text(str(events.size))
    return path, int(count.read_text())


def file_to_l1(path: Path) -> Any:
    """What the issue asks for."""
    return hftlab.replay(hftlab.open_flow(path), mode="rebuild", record=("l1",)).to_arrow("l1")


def stages(path: Path, messages: int, repetitions: int) -> dict[str, tuple[float, float]]:
    """(median, fastest) ns per message of each part of the way, and of the whole."""
    table = hftlab.open_flow(path).table()
    checked = read_facts(table)
    rules = rules_for(checked.symbols, None, None)
    tape = compile_checked(checked, rules)
    run = run_tape(tape, touch=True)

    def timed(work: Callable[[], Any]) -> tuple[float, float]:
        return repeated(work, messages, repetitions)

    return {
        "open": timed(lambda: hftlab.open_flow(path)),
        "decode to columns": timed(lambda: hftlab.open_flow(path).table()),
        "check the table": timed(lambda: read_facts(table)),
        "compile": timed(lambda: compile_checked(checked, rules)),
        "run": timed(lambda: run_tape(tape, touch=True)),
        "l1 table": timed(lambda: tables.l1_table(run)),
        "file to l1": timed(lambda: file_to_l1(path)),
    }


def measure(folder: Path, messages: int, repetitions: int) -> dict[str, tuple[float, float]]:
    """Both flows."""
    figures = {}
    for symbols in (1, 100):
        path, count = write_file(folder, messages, symbols)
        name = "1 symbol" if symbols == 1 else f"{symbols} symbols"
        figures |= {f"{name}: {what}": time for what, time in stages(path, count, repetitions).items()}
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small files, few repetitions")
    parser.add_argument("--keep", metavar="DIR", help="where the files are kept")
    options = parser.parse_args()
    messages, repetitions = (50_000, 3) if options.quick else (2_000_000, REPETITIONS)
    load = os.getloadavg()[0]
    print(f"{cpu_name()}, {os.cpu_count()} cores, load {load:.2f}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(options.keep or folder), messages, repetitions)
    print(f"{'ns per message':40} {'median':>9} {'best':>9} {'target':>8}")
    for name, (median, best) in figures.items():
        print(f"{name:40} {median:9.2f} {best:9.2f} {TARGETS.get(name, ''):>8}")


if __name__ == "__main__":
    main()
