"""Where the time goes, stage by stage: the table in the README.

    python -m benchmarks.stages            # both flows, everything (about two minutes)
    python -m benchmarks.stages --quick    # small flows, to see that it works
    python -m benchmarks.stages --json results.json

Kernels are warm before anything is timed. Every figure is a median over repetitions, with the fastest beside
it: machines are shared, and the distance between the two says how noisy this one was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Any

import numpy as np

import hftlab
from hftlab.benchmark.flows import scattered
from hftlab.benchmark.ways import GATE
from hftlab.codes import Action
from hftlab.engine.runner import TapeRun, run_events, run_tape
from hftlab.files import cpu_name
from hftlab.results import tables
from hftlab.results.digest import Digest
from hftlab.risk_gate.limits import Limits
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.tables import read_orders

REPETITIONS = 9
TARGETS = {  # ns per command unless said otherwise
    "one: tape run": 9,
    "hundred: tape run": 11,
    "one: compile": 20,
    "hundred: compile": 20,
    "one: compile, ids scattered": 40,
    "hundred: compile, ids scattered": 40,
    "one: table to result": 35,
    "hundred: table to result": 35,
    "one: event loop": 60,
    "hundred: event loop": 60,
    "one: event loop behind a gate": 60,
    "submit from Python, median": 300,
    "two threads on 100 symbols, times one": 1.7,
    "1 M resting orders, MB": 100,
    "import hftlab, s": 0.5,
    "first replay, warm cache, s": 1.5,
}


def repeated(work: Callable[[], Any], commands: int, repetitions: int) -> tuple[float, float]:
    """(median, fastest) in ns per command, after one warm-up."""
    work()
    times = []
    for _ in range(repetitions):
        started = perf_counter()
        work()
        times.append((perf_counter() - started) / commands * 1e9)
    return statistics.median(times), min(times)


def kernel_time(run: Callable[[], TapeRun], commands: int, repetitions: int) -> tuple[float, float]:
    """The same for a run, without making its books and buffers (which `table to result` includes)."""
    run()
    times = [run().seconds / commands * 1e9 for _ in range(repetitions)]
    return statistics.median(times), min(times)


def end_to_end(table: Any, threads: int = 1) -> None:
    """From a table to the tables of its fills and outcomes."""
    result = hftlab.replay(table, threads=threads)
    result.to_arrow("fills")
    result.to_arrow("outcomes")


def stages(name: str, table: Any, repetitions: int) -> dict[str, tuple[float, float]]:
    """Every stage of one flow."""
    rows = table.num_rows
    checked = read_orders(table)
    rules = rules_for(checked.symbols, None, None)
    tape = compile_checked(checked, rules)
    run = run_tape(tape)
    fills = tables.expand_fills(run)

    def gated() -> TapeRun:
        return run_events(tape, manager=RiskManager(Limits(**GATE)))

    hashed = read_orders(scattered(table))

    def timed(work: Callable[[], Any]) -> tuple[float, float]:
        return repeated(work, rows, repetitions)

    return {
        f"{name}: check the table": timed(lambda: read_orders(table)),
        f"{name}: compile": timed(lambda: compile_checked(checked, rules)),
        f"{name}: compile, ids scattered": timed(lambda: compile_checked(hashed, rules)),
        f"{name}: tape run": kernel_time(lambda: run_tape(tape), rows, repetitions),
        f"{name}: fills as a table": timed(lambda: tables.fills_table(tape, tables.expand_fills(run))),
        f"{name}: digest": timed(lambda: Digest().add_run(run, fills)),
        f"{name}: table to result": timed(lambda: end_to_end(table)),
        f"{name}: event loop": kernel_time(lambda: run_events(tape), rows, repetitions),
        f"{name}: event loop behind a gate": kernel_time(gated, rows, repetitions),
    }


def threads(table: Any, repetitions: int) -> tuple[float, float]:
    """How many times one thread two threads are, pair by pair: (median, best)."""
    checked = read_orders(table)
    rules = rules_for(checked.symbols, None, None)
    one, two = compile_checked(checked, rules), compile_checked(checked, rules, parts=2)
    run_tape(two, 2)
    ratios = [run_tape(one).seconds / run_tape(two, 2).seconds for _ in range(repetitions)]
    return statistics.median(ratios), max(ratios)


def submits(commands: int) -> tuple[float, float]:
    """One `submit` from Python while a flow goes by: (median, 10th percentile) ns, less the clock's own."""
    flow = read_orders(hftlab.generate(messages=commands, symbols=1, seed=2)).columns
    clock = [-perf_counter_ns() + perf_counter_ns() for _ in range(10_000)]
    book, times = hftlab.OrderBook(tick_size="0.01"), []
    rows = zip(
        *(c.tolist() for c in (flow.action, flow.order_id, flow.side, flow.order_type, flow.tif)),
        flow.price.tolist(),
        flow.qty.tolist(),
        strict=True,
    )
    for action, order_id, side, order_type, tif, price, qty in rows:
        if action == Action.NEW:
            started = perf_counter_ns()
            book.submit(order_id, side, price, qty, order_type, tif)
            times.append(perf_counter_ns() - started)
        elif action == Action.CANCEL:
            book.cancel(order_id)
        elif action == Action.REDUCE:
            book.reduce(order_id, qty)
        else:
            book.replace(order_id, price, qty)
    spent = np.array(times) - statistics.median(clock)
    return float(np.median(spent)), float(np.percentile(spent, 10))


_MEMORY = """
import hftlab
from hftlab import order_book

def peak_mb():  # of this process alone, unlike ru_maxrss
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1e3

book = hftlab.OrderBook(tick_size="0.01")
book.submit(0, "buy", 1_000_000_000, 1)
before = peak_mb()
for i in range(1, 1_000_000):
    book.submit(i, "buy", (100 + i % 500) * 10_000_000, 5)
assert len(book) == 1_000_000
print(peak_mb() - before)
"""


def child(*arguments: str) -> tuple[float, str]:
    """Seconds and output of a fresh interpreter."""
    started = perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return perf_counter() - started, done.stdout


def whole_process(path: str, repetitions: int) -> dict[str, tuple[float, float]]:
    """Import, first replay and memory, each in interpreters of their own."""
    imports = [child("-c", "import hftlab")[0] for _ in range(repetitions)]
    replays = [child("-m", "hftlab", "replay", path, "--record", "fills")[0] for _ in range(repetitions)]
    memory = float(child("-c", _MEMORY)[1])
    return {
        "import hftlab, s": (statistics.median(imports), min(imports)),
        "first replay, warm cache, s": (statistics.median(replays), min(replays)),
        "1 M resting orders, MB": (memory, memory),
    }


def measure(quick: bool) -> dict[str, tuple[float, float]]:
    """Everything."""
    repetitions = 3 if quick else REPETITIONS
    one = hftlab.generate(messages=50_000 if quick else 1_000_000, symbols=1, seed=1)
    hundred = hftlab.generate(messages=100_000 if quick else 5_000_000, symbols=100, seed=1)
    figures = stages("one", one, repetitions) | stages("hundred", hundred, repetitions)
    figures["hundred: table to result, two threads"] = repeated(
        lambda: end_to_end(hundred, 2), hundred.num_rows, repetitions
    )
    figures["two threads on 100 symbols, times one"] = threads(hundred, repetitions)
    figures["submit from Python, median"] = submits(20_000 if quick else 300_000)
    if not quick:
        figures |= whole_process("data/sample.parquet", repetitions)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small flows, few repetitions")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file too")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{cpu_name()}, {os.cpu_count()} cores, load {load:.2f}, Python {platform.python_version()}")
    figures = measure(options.quick)
    print(f"{'ns per command unless said':42} {'median':>9} {'best':>9} {'target':>8}")
    for name, (median, best) in figures.items():
        target = TARGETS.get(name, "")
        print(f"{name:42} {median:9.2f} {best:9.2f} {target:>8}")
    if options.json:
        with Path(options.json).open("w", encoding="utf-8") as file:
            json.dump({"cpu": cpu_name(), "load": load, "figures": figures}, file, indent=2)


if __name__ == "__main__":
    main()
