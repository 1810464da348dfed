"""What positions and P&L cost, by fill: random fills of accounts in symbols.

    python -m benchmarks.positions [--fills 1000000]

`positions` books the fills; `pnl` also writes its two rows a fill, as a table. One thread, its processor time
(machines are shared), medians of nine, the fastest beside them. Prices are cents around 100 and lots are 1 to
500; "beyond 64 bits" has 10^9 times the lots.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from time import process_time
from typing import Any

import numpy as np

from hftlab import Limits
from hftlab.codes import PRICE_SCALE
from hftlab.files import cpu_name
from hftlab.kernels.results.tables import MAKER_ACCOUNT, PRICE, QTY, SEQ, SYMBOL, TAKER_ACCOUNT
from hftlab.results.positions import Positions
from hftlab.results.tables import Fills

FEES = Limits(taker_fee_bps="0.3", maker_fee_per_lot="-0.0020")
CASES = {  # accounts, symbols, lots are multiplied by, limits
    "1 account, 1 symbol": (1, 1, 1, None),
    "100 accounts, 1 symbol": (100, 1, 1, None),
    "100 accounts, 100 symbols": (100, 100, 1, None),
    "1,000 accounts, 100 symbols": (1_000, 100, 1, None),
    "100 accounts, 100 symbols, fees": (100, 100, 1, FEES),
    "the same beyond 64 bits": (100, 100, 10**9, FEES),
}


REPETITIONS = 9


def repeated(work: Callable[[], Any], count: int) -> tuple[float, float]:
    """(median, fastest) in ns of processor time per fill, after one warm-up."""
    work()
    times = []
    for _ in range(REPETITIONS):
        started = process_time()
        work()
        times.append((process_time() - started) / count * 1e9)
    return statistics.median(times), min(times)


def random_fills(count: int, accounts: int, symbols: int, scale: int) -> Fills:
    """Fills as a run leaves them, in columns."""
    rng = np.random.default_rng(1)
    fills = Fills(
        np.zeros((8, count), np.int64),
        np.zeros((3, count), np.int32),
        rng.choice([1, -1], count).astype("i1"),
    )
    fills.longs[SEQ] = np.arange(count)
    fills.longs[PRICE] = rng.integers(9_000, 11_000, count) * (PRICE_SCALE // 100)
    fills.longs[QTY] = rng.integers(1, 500, count) * scale
    fills.ints[SYMBOL] = rng.integers(0, symbols, count)
    fills.ints[[TAKER_ACCOUNT, MAKER_ACCOUNT]] = rng.integers(0, accounts, (2, count))
    return fills


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fills", type=int, default=1_000_000, help="so many")
    count = parser.parse_args().fills
    print(f"{cpu_name()}, load {os.getloadavg()[0]:.2f}, {count:,} fills")
    print(f"{'ns per fill':34} {'positions':>9} {'best':>7} {'pnl':>9} {'best':>7}")
    for name, (accounts, symbols, scale, limits) in CASES.items():
        fills = random_fills(count, accounts, symbols, scale)
        names = tuple(f"S{i}" for i in range(symbols))
        booked = repeated(lambda f=fills, n=names, w=limits: Positions(w).add(f, n), count)
        told = repeated(lambda f=fills, n=names, w=limits: Positions(w).add_with_changes(f, n), count)
        print(f"{name:34} {booked[0]:9.1f} {booked[1]:7.1f} {told[0]:9.1f} {told[1]:7.1f}")


if __name__ == "__main__":
    main()
