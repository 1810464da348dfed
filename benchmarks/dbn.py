"""How long a Databento DBN file takes to become a tape, stage by stage.

    HFTLAB_DATA=... python -m benchmarks.dbn [--records 1000000]

The real ES file, repeated with ids of its own each time until there are as many records as asked for, is
written to a temporary folder, plain and as zstd, and read from the page cache. One thread; medians of nine,
the fastest beside them. The target is 60 ns a record for all between the plain file and the tape.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.samples import sample
from hftlab.feeds import open_flow
from hftlab.feeds.databento.header import read_header
from hftlab.feeds.parsing import containers
from hftlab.files import cpu_name
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.facts import read_facts

SAMPLE = "databento/esh4-glbx-mdp3-20231225.mbo.dbn.zst"
REPETITIONS = 9
ID_STEP = 10**9  # more than the ids of the sample span


def repeated_file(path: Path, records: int) -> bytes:
    """The sample's records over and over, each time with other order ids."""
    header = read_header(path)
    data = containers.read(path)
    rows = np.frombuffer(data, header.record, offset=header.first_record)
    times = -(-records // rows.size)
    many = np.tile(rows, times)
    many["order_id"] += np.repeat(np.arange(times, dtype=np.uint64) * np.uint64(ID_STEP), rows.size)
    return data[: header.first_record] + many.tobytes()


def timed(work: Callable[[], Any], records: int) -> tuple[float, float]:
    """(median, fastest) in ns per record, after one warm-up."""
    work()
    times = []
    for _ in range(REPETITIONS):
        started = perf_counter()
        work()
        times.append((perf_counter() - started) / records * 1e9)
    return statistics.median(times), min(times)


def stages(plain: Path, packed: Path) -> dict[str, tuple[float, float]]:
    """Every stage between a file and a tape."""

    def tape(path: Path) -> Any:
        checked = read_facts(open_flow(path).table())
        return compile_checked(checked, rules_for(checked.symbols, None, None))

    table = open_flow(plain).table()
    checked = read_facts(table)
    rules = rules_for(checked.symbols, None, None)
    work = {
        ".dbn to table": lambda: open_flow(plain).table(),
        "check the table": lambda: read_facts(table),
        "compile": lambda: compile_checked(checked, rules),
        ".dbn to tape": lambda: tape(plain),
        ".dbn.zst to tape": lambda: tape(packed),
    }
    return {name: timed(what, table.num_rows) for name, what in work.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000, help="at least so many")
    options = parser.parse_args()
    data = repeated_file(sample(SAMPLE), options.records)
    with tempfile.TemporaryDirectory() as folder:
        (plain := Path(folder) / "es.dbn").write_bytes(data)
        (packed := Path(folder) / "es.dbn.zst").write_bytes(pa.compress(data, "zstd", asbytes=True))
        records = open_flow(plain).num_rows
        print(f"{cpu_name()}, load {os.getloadavg()[0]:.2f}: {records:,} records, {len(data) / 1e6:.1f} MB")
        print(f"{'ns per record':24} {'median':>9} {'best':>9}")
        for name, (median, best) in stages(plain, packed).items():
            print(f"{name:24} {median:9.2f} {best:9.2f}")


if __name__ == "__main__":
    main()
