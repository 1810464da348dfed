"""hftbacktest: a backtest without a strategy, asked for the touch after each update of a price level.

It matches no orders with each other: a strategy's own are filled by a model of the queue in recorded data.
"""

from __future__ import annotations

import hftbacktest as hbt
import numpy as np
from numba import njit
from serve import Task, bbo_changes, serve

BOTH = hbt.EXCH_EVENT | hbt.LOCAL_EVENT
NEVER = 1 << 62


def events(path: str) -> np.ndarray:
    with np.load(path) as columns:
        side, price, size = (columns[name] for name in ("side", "price", "qty"))
    rows = np.zeros(side.size, hbt.event_dtype)
    sides = np.where(side > 0, hbt.BUY_EVENT, hbt.SELL_EVENT)
    rows["ev"] = (hbt.DEPTH_EVENT | BOTH) | sides
    rows["exch_ts"] = rows["local_ts"] = np.arange(1, side.size + 1)
    rows["px"], rows["qty"] = price, size
    return rows


@njit
def follow(backtest, rows):
    best, count = np.zeros((rows, 4)), 0
    while count < rows and backtest.wait_next_feed(False, NEVER) == 2:
        depth = backtest.depth(0)
        best[count] = depth.best_bid, depth.best_bid_qty, depth.best_ask, depth.best_ask_qty
        count += 1
    return best[:count]


def touch(rows: np.ndarray) -> np.ndarray:
    asset = hbt.BacktestAsset().data([rows]).linear_asset(1.0).constant_order_latency(0, 0)
    asset = asset.risk_adverse_queue_model().no_partial_fill_exchange().trading_value_fee_model(0.0, 0.0)
    asset = asset.tick_size(1.0).lot_size(1.0).last_trades_capacity(0)
    backtest = hbt.HashMapMarketDepthBacktest([asset])
    best = follow(backtest, rows.size)
    backtest.close()
    return best


def form(best: np.ndarray, _: str) -> dict[str, np.ndarray]:
    for px, sz in ((0, 1), (2, 3)):
        there = np.isfinite(best[:, px]) & (best[:, sz] > 0)
        best[~there, px] = best[~there, sz] = 0
    rows = np.arange(len(best))
    return bbo_changes(rows, rows * 0 + 1, *best.T)


if __name__ == "__main__":
    serve("hftbacktest", {"touch": Task(touch, form, events)})
