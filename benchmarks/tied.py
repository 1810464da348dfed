"""What threads gain behind a limit that ties all instruments together: a portfolio value that never binds.

    python -m benchmarks.tied [--messages 1000000]

Generated commands of 1,000 accounts in 100 symbols, on one thread and on two in turn;
and once more with a limit that binds, where two threads try and fall back. Nanoseconds per command of the run
(checks, books, audit), medians and fastest of seven; the digests are compared first.
"""

from __future__ import annotations

import argparse
import os
from statistics import median

import numpy as np
import pyarrow as pa

import hftlab
from hftlab.engine.runner import TapeRun, run_tape
from hftlab.files import cpu_name
from hftlab.results.digest import Digest
from hftlab.results.tables import expand_fills
from hftlab.risk_gate.limits import Limits
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.tables import read_orders

ACCOUNTS, SYMBOLS, REPETITIONS = 1_000, 100, 7
LIMITS = {
    "nothing across instruments": Limits(max_position_size=10**9),
    "portfolio value, loose": Limits(max_portfolio_value="1000000000"),
    "the same, and a stop loss": Limits(
        max_portfolio_value="1000000000", stop_loss_percentage=50, capital="1000000000"
    ),
    "portfolio value, binding": Limits(max_portfolio_value="2000000"),
}


def commands(messages: int) -> pa.Table:
    """Generated order flow, its orders spread over more accounts."""
    table = hftlab.generate(messages, symbols=SYMBOLS, seed=1)
    accounts = np.random.default_rng(1).integers(0, ACCOUNTS, table.num_rows).astype(np.int32)
    place = table.schema.get_field_index("account")
    return table.set_column(place, table.schema.field(place), pa.array(accounts))


def digest(run: TapeRun) -> str:
    """What a run comes to."""
    sums = Digest()
    sums.add_run(run, expand_fills(run))
    return sums.with_book(run.tape.symbols, run.open_orders)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    options = parser.parse_args()
    checked = read_orders(commands(options.messages))
    rules = rules_for(checked.symbols, None, None)
    tapes = {threads: compile_checked(checked, rules, parts=threads) for threads in (1, 2)}
    print(f"{cpu_name()}, load {os.getloadavg()[0]:.2f}")
    print(f"{'ns per command':28} {'1 thread':>16} {'2 threads':>16} {'ratio':>6} {'in input order':>15}")
    for name, limits in LIMITS.items():
        runs = {n: run_tape(tape, n, manager=RiskManager(limits)) for n, tape in tapes.items()}
        if digest(runs[1]) != digest(runs[2]):
            raise SystemExit(f"{name}: two threads came to another result than one")
        times: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(REPETITIONS):
            for threads, tape in tapes.items():
                seconds = run_tape(tape, threads, manager=RiskManager(limits)).seconds
                times[threads].append(1e9 * seconds / checked.rows)
        alone, shared = (f"{median(t):8.1f} {min(t):7.1f}" for t in times.values())
        ratio = min(times[1]) / min(times[2])
        print(f"{name:28} {alone:>16} {shared:>16} {ratio:6.2f} {runs[2].fell_back / checked.rows:15.0%}")


if __name__ == "__main__":
    main()
