"""How long a LOBSTER message file takes to become a tape, stage by stage.

    HFTLAB_DATA=... python -m benchmarks.lobster [--messages 1000000]

The real AAPL sample, repeated with ids of its own each time until there are as many messages as asked for, is
written to a temporary folder as plain CSV and read from the page cache. One thread; medians of nine, the
fastest beside them. The target is 150 ns a message for all between the file and the tape.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.dbn import timed
from benchmarks.samples import sample
from hftlab.engine.runner import run_tape
from hftlab.feeds import lobster, open_flow
from hftlab.feeds.parsing import containers
from hftlab.files import cpu_name
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.facts import read_facts

SAMPLE = "lobster/AAPL_2012-06-21_34200000_37800000_message_50.csv.xz"
NAME = "AAPL_2012-06-21_34200000_57600000_message_50.csv"
ID_STEP = 50_000_000  # more than the ids of the sample span


def repeated_file(path: Path, messages: int) -> bytes:
    """The sample's lines over and over, each time with other order ids; its times run back as often."""
    lines = [line.split(b",") for line in containers.read(path).split()]
    repeated = []
    for k in range(-(-messages // len(lines))):
        for fields in lines:
            order_id = int(fields[2])
            changed = b"%d" % (order_id + k * ID_STEP) if order_id else fields[2]
            repeated.append(b",".join((*fields[:2], changed, *fields[3:])))
    return b"\n".join(repeated) + b"\n"


def stages(path: Path, messages: int) -> dict[str, tuple[float, float]]:
    """Every stage between a file and a tape, and the rebuild of the books from it."""

    def tape() -> Any:
        checked = read_facts(open_flow(path).table())
        return compile_checked(checked, rules_for(checked.symbols, None, None))

    table = open_flow(path).table()
    checked = read_facts(table)
    rules = rules_for(checked.symbols, None, None)
    compiled = tape()
    reader = lobster.Messages(path, None, 0)
    work = {
        "lines to columns": reader.all,
        "file to table": lambda: open_flow(path).table(),
        "check the table": lambda: read_facts(table),
        "compile": lambda: compile_checked(checked, rules),
        "file to tape": tape,
        "rebuild": lambda: run_tape(compiled),
    }
    return {name: timed(what, messages) for name, what in work.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000, help="at least so many")
    options = parser.parse_args()
    data = repeated_file(sample(SAMPLE), options.messages)
    messages = data.count(b"\n")
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / NAME).write_bytes(data)
        print(f"{cpu_name()}, load {os.getloadavg()[0]:.2f}: {messages:,} messages, {len(data) / 1e6:.1f} MB")
        print(f"{'ns per message':24} {'median':>9} {'best':>9}")
        for name, (median, best) in stages(path, messages).items():
            print(f"{name:24} {median:9.2f} {best:9.2f}")


if __name__ == "__main__":
    main()
