"""The flows that cases run: made from a few numbers, the same on every machine."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

import hftlab
from hftlab.codes import Action, OrderType, Side, Tif
from hftlab.errors import UsageError
from hftlab.schema import code_array

PRICE = 100 * 10**9
TICK = 10**7
LEVELS = 500  # over which orders that rest are spread
MIXER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that ids stay different

FLOWS = {
    "market": "54 % NEW, 42 % CANCEL, 0.1 fills a command, as `hftlab generate` makes it",
    "scattered": "the same with order ids all over 64 bits, which must be hashed",
    "resting": "orders that rest, 500 levels, and nothing else",
    "crossing": "each second order takes the one before it: 0.5 fills a command",
}


def make_flow(name: str, orders: int, symbols: int, seed: int = 1) -> pa.Table:
    """An orders table of so many rows. Raises UsageError for a flow that isn't one of FLOWS."""
    if name in ("market", "scattered"):
        table = hftlab.generate(orders, symbols, seed)
        return table if name == "market" else scattered(table)
    if name == "resting":
        return _resting(orders, symbols)
    if name == "crossing":
        return _crossing(orders, symbols)
    raise UsageError(f"flow: found {name!r}, expected one of {', '.join(FLOWS)}")


def scattered(table: pa.Table) -> pa.Table:
    """The same flow with ids all over 64 bits, so that they must be hashed."""
    ids = table.column("order_id").to_numpy() * MIXER
    return table.set_column(table.schema.get_field_index("order_id"), "order_id", pa.array(ids))


def _resting(orders: int, symbols: int) -> pa.Table:
    rows = np.arange(orders)
    price = PRICE - TICK * (rows // symbols % LEVELS)
    return _news(symbols, rows, np.full(orders, Side.BUY), price, np.full(orders, Tif.GTC))


def _crossing(orders: int, symbols: int) -> pa.Table:
    rows = np.arange(orders)
    pair, takes = rows // 2, rows % 2 == 1
    price = PRICE + TICK * (pair // symbols % LEVELS)
    side = np.where(takes, Side.BUY, Side.SELL)
    return _news(symbols, pair, side, price, np.where(takes, Tif.IOC, Tif.GTC))


def _news(symbols: int, turn: np.ndarray, side: np.ndarray, price: np.ndarray, tif: np.ndarray) -> pa.Table:
    """NEW limit orders of ten lots; `turn` goes round the instruments."""
    rows = side.size
    names = pa.array([f"SYM{number:03}" for number in range(symbols)])
    return pa.table(
        {
            "symbol": pa.DictionaryArray.from_arrays((turn % symbols).astype("i4"), names),
            "action": code_array(np.full(rows, Action.NEW, np.int8), Action),
            "order_id": pa.array(np.arange(1, rows + 1, dtype=np.uint64)),
            "side": pa.array(side.astype(np.int8)),
            "order_type": code_array(np.full(rows, OrderType.LIMIT, np.int8), OrderType),
            "tif": code_array(tif.astype(np.int8), Tif),
            "price": pa.array(price.astype(np.int64)),
            "qty": pa.array(np.full(rows, 10, np.int64)),
        }
    )
