"""How long books take to be rebuilt from a tape that is ready: synthetic facts and real files.

    HFTLAB_DATA=... python -m benchmarks.rebuild [--messages 1000000]

The generator's commands told as facts (1 and 100 symbols), and the AAPL and ES samples repeated with ids of
their own, one row a message or record. One thread; medians of nine, the fastest beside them, of the kernel
alone and with a table of the best bid and offer. The target is 20 ns.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from benchmarks import dbn, facts, lobster
from benchmarks.samples import folder, sample
from benchmarks.stages import kernel_time
from hftlab.engine.runner import run_tape
from hftlab.feeds import open_flow
from hftlab.files import cpu_name
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.facts import read_facts

REPETITIONS = 9


def flows(messages: int, place: Path) -> Iterator[tuple[str, pa.Table, int]]:
    """(what it is, facts, how many messages they tell of)."""
    for symbols in (1, 100):
        table = facts.facts(messages, symbols)
        yield f"synthetic, {symbols} symbol{'s'[: symbols > 1]}", table, table.num_rows
    lines = lobster.repeated_file(sample(lobster.SAMPLE), messages)
    (path := place / lobster.NAME).write_bytes(lines)
    yield "LOBSTER AAPL, repeated", open_flow(path).table(), lines.count(b"\n")
    (path := place / "es.dbn").write_bytes(dbn.repeated_file(sample(dbn.SAMPLE), messages))
    table = open_flow(path).table()
    yield "Databento ES, repeated", table, table.num_rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000, help="about so many")
    options = parser.parse_args()
    folder()  # says at once that there are no samples
    print(f"{cpu_name()}, load {os.getloadavg()[0]:.2f}")
    print(f"{'ns per message':26} {'messages':>10} {'median':>9} {'best':>9} {'with l1':>9} {'best':>9}")
    with tempfile.TemporaryDirectory() as place:
        for name, table, messages in flows(options.messages, Path(place)):
            checked = read_facts(table)
            tape = compile_checked(checked, rules_for(checked.symbols, None, None))
            alone = kernel_time(lambda tape=tape: run_tape(tape), messages, REPETITIONS)
            touch = kernel_time(lambda tape=tape: run_tape(tape, touch=True), messages, REPETITIONS)
            print(
                f"{name:26} {messages:>10,} {alone[0]:9.2f} {alone[1]:9.2f} {touch[0]:9.2f} {touch[1]:9.2f}"
            )


if __name__ == "__main__":
    main()
