"""What the risk gate costs, stage by stage and check by check.

    python -m benchmarks.risk              # 5 M commands, 1,000 accounts, 100 symbols (about two minutes)
    python -m benchmarks.risk --quick      # a small flow, to see that it works
    python -m benchmarks.risk --checks     # each kind of check alone, too

Accounts are drawn at random, row by row, so that no cell is in the cache because of the command before.
Limits are loose: what is measured is deciding, not refusing. Stages take turns, and every figure is a median
over repetitions, with the fastest beside it: machines are shared.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

import hftlab
from hftlab import Limits
from hftlab.engine.plan import make_plan
from hftlab.engine.runner import run_events, run_tape
from hftlab.engine.workers import check_rows, open_gate, opened_books
from hftlab.files import cpu_name
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.tables import read_orders
from hftlab.tape.tape import Tape

ACCOUNTS, SYMBOLS = 1_000, 100
COMMANDS, QUICK = 5_000_000, 200_000
REPETITIONS = 7

OF_ROWS = {"max_order_qty": 10**6, "max_order_notional": "1000000000"}  # kind 1
OF_STREAM = {"max_orders_per_second": 10**4, "max_repeated_orders": 10**3}  # kind 2
OF_BOOK = {  # kind 3
    "price_band_percentage": 50,
    "max_position_size": 10**9,
    "max_open_orders": 10**6,
    "max_open_notional": "4000000000",
    "self_trade": "cancel_newest",
}
OF_ACCOUNTS = {
    "max_portfolio_value": "9000000000",
    "stop_loss_percentage": 100,
    "capital": "9000000000",
}  # kind 4

KINDS = {
    "kinds 1 to 3": OF_ROWS | OF_STREAM | OF_BOOK,
    "kinds 1 to 4": OF_ROWS | OF_STREAM | OF_BOOK | OF_ACCOUNTS,
}
TARGETS = {"kinds 1 to 3, over the bare run": 25, "kinds 1 to 4, event loop": 120}


def flow(commands: int, symbols: int = SYMBOLS, accounts: int = ACCOUNTS) -> pa.Table:
    """A generated flow whose rows have accounts at random."""
    table = pa.table(hftlab.generate(messages=commands, symbols=symbols, seed=1))
    drawn = np.random.default_rng(1).integers(0, accounts, table.num_rows, dtype=np.int32)
    if "account" in table.column_names:
        table = table.drop_columns(["account"])
    return table.append_column("account", pa.array(drawn))


def tape_of(table: pa.Table) -> Tape:
    """A flow, compiled."""
    checked = read_orders(table)
    return compile_checked(checked, rules_for(checked.symbols, None, None))


def manager_of(keys: dict[str, Any]) -> RiskManager:
    """The gate for these limits of all."""
    return RiskManager(Limits(**keys))


def stages(tape: Tape, keys: dict[str, Any]) -> dict[str, float]:
    """Seconds of the two passes before a run."""
    manager, books = manager_of(keys), opened_books(tape)
    started = perf_counter()
    plan = make_plan(tape, manager=manager)
    gate = open_gate(plan, manager, books)
    numbered = perf_counter()
    check_rows(gate, *plan.chunks)
    return {"numbering": numbered - started, "row checks": perf_counter() - numbered}


def works(tape: Tape, checks: bool) -> dict[str, Callable[[], float]]:
    """What is timed, by name; each returns seconds."""

    def batch(keys: dict[str, Any] | None) -> Callable[[], float]:
        return lambda: run_tape(tape, manager=manager_of(keys) if keys is not None else None).seconds

    def events(keys: dict[str, Any] | None) -> Callable[[], float]:
        return lambda: run_events(tape, manager=manager_of(keys) if keys is not None else None).seconds

    timed = {"bare run": batch(None), "bare event loop": events(None)}
    timed |= {f"{name}, run": batch(keys) for name, keys in KINDS.items()}
    timed |= {f"{name}, event loop": events(keys) for name, keys in KINDS.items()}
    if checks:
        timed["no limits, run"] = batch({})
        every = OF_ROWS | OF_STREAM | OF_BOOK | {"max_portfolio_value": "9000000000"}
        timed |= {f"{key}, run": batch({key: value}) for key, value in every.items()}
    return timed


def measure(tape: Tape, repetitions: int, checks: bool) -> dict[str, tuple[float, float]]:
    """(median, fastest) of each, in ns per command; the first round warms kernels."""
    timed, taken = works(tape, checks), {}
    for round_ in range(repetitions + 1):
        seconds = stages(tape, KINDS["kinds 1 to 3"])
        for name, work in timed.items():
            seconds[name] = work()
        seconds["kinds 1 to 3, over the bare run"] = seconds["kinds 1 to 3, run"] - seconds["bare run"]
        if round_:
            for name, value in seconds.items():
                taken.setdefault(name, []).append(value / tape.rows * 1e9)
    return {name: (statistics.median(times), min(times)) for name, times in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small flow, few repetitions")
    parser.add_argument("--checks", action="store_true", help="each kind of check alone, too")
    parser.add_argument("--repetitions", type=int, help=f"default {REPETITIONS}, 2 with --quick")
    options = parser.parse_args()
    tape = tape_of(flow(QUICK if options.quick else COMMANDS))
    figures = measure(tape, options.repetitions or (2 if options.quick else REPETITIONS), options.checks)
    print(f"{cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}")
    print(f"{'ns per command':42} {'median':>9} {'best':>9} {'target':>8}")
    for name, (median, best) in figures.items():
        print(f"{name:42} {median:9.1f} {best:9.1f} {TARGETS.get(name, ''):>8}")


if __name__ == "__main__":
    main()
