"""Seeded random flows made to hurt: few ids used again and again, garbage, quantities near 2^63.

Everything is drawn without knowing the book, so ten million commands take seconds; what makes a flow hit is
that prices, ids and accounts come from pools so small that commands keep meeting one another.
Each flow is a function of size and random generator in `FLOWS`; `make` names and seeds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from hftlab.codes import PRICE_SCALE, Action, MboAction, OrderType, Tif
from hftlab.schema import code_array

CENT = PRICE_SCALE // 100
INT64_MIN, INT64_MAX, UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Flow:
    """A random orders table; `has_new_id` says where new_order_id is not missing, symbols are by position."""

    name: str
    seed: int
    columns: Columns
    symbols: tuple[str, ...]
    tick: int | None = 1  # 1e-9; None: left to be inferred
    allow_nonpositive: bool = False

    def __len__(self) -> int:
        return len(self.columns["action"])

    def take(self, rows: list[int]) -> Flow:
        """The flow of those rows alone."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Flow(self.name, self.seed, columns, self.symbols, self.tick, self.allow_nonpositive)

    def rows(self) -> Iterator[tuple]:
        """Rows for the slow twin."""
        lists = {name: column.tolist() for name, column in self.columns.items()}
        names = np.array(self.symbols, dtype=object)[self.columns["symbol"]].tolist()
        new_ids = self.columns["new_order_id"].astype(object)
        new_ids[~self.columns["has_new_id"]] = None
        rest = ("side", "order_type", "tif", "price", "qty", "account", "post_only")
        middle = [lists[name] for name in rest]
        return zip(
            lists["ts"], names, lists["action"], lists["order_id"], new_ids.tolist(), *middle, strict=True
        )

    def table(self) -> pa.Table:
        """The orders table."""
        columns = self.columns
        symbol = pa.DictionaryArray.from_arrays(
            pa.array(columns["symbol"], pa.int32()), pa.array(self.symbols, pa.string())
        )
        return pa.table(
            {
                "ts": pa.array(columns["ts"], pa.timestamp("ns", tz="UTC")),
                "symbol": symbol,
                "action": code_array(columns["action"], Action),
                "order_id": pa.array(columns["order_id"]),
                "new_order_id": pa.array(columns["new_order_id"], mask=~columns["has_new_id"]),
                "side": pa.array(columns["side"]),
                "order_type": code_array(columns["order_type"], OrderType),
                "tif": code_array(columns["tif"], Tif),
                "price": pa.array(columns["price"]),
                "qty": pa.array(columns["qty"]),
                "account": pa.array(columns["account"]),
                "post_only": pa.array(columns["post_only"]),
            }
        )

    def write_csv(self, path: Path) -> Path:
        """The flow as a small file to look at."""
        table = self.table()
        plain = [c.cast(pa.string()) if pa.types.is_dictionary(c.type) else c for c in table.columns]
        pacsv.write_csv(pa.table(dict(zip(table.column_names, plain, strict=True))), path)
        return path


# -- columns

# shares of NEW, CANCEL, REDUCE, REPLACE, MASS_CANCEL, CLEAR
BUSY = (0.55, 0.18, 0.08, 0.1795, 0.01, 0.0005)
CALM = (0.6, 0.2, 0.08, 0.1199, 0.0001, 0.0)


def _pick(rng: np.random.Generator, n: int, shares: tuple[float, ...]) -> np.ndarray:
    """Codes 0, 1, 2 ... with those shares."""
    bounds = np.cumsum(shares[:-1]) / sum(shares)
    return np.searchsorted(bounds, rng.random(n), side="right").astype(np.int8)


def _choice(rng: np.random.Generator, n: int, values: list | np.ndarray, dtype: Any = np.int64) -> np.ndarray:
    values = np.array(values, dtype=dtype)
    return values[rng.integers(0, len(values), n)]


def _columns(
    rng: np.random.Generator,
    n: int,
    *,
    actions: tuple[float, ...] = BUSY,
    symbols: int = 1,
    ids: int = 200,
    accounts: int = 4,
    market: float = 0.08,
    passive: float = 0.04,
    tifs: tuple[float, ...] = (0.7, 0.06, 0.14, 0.1),
    post_only: float = 0.12,
    new_id: float = 0.4,
) -> Columns:
    """The columns that most flows have in common; `price` and `qty` are the flow's own."""
    return {
        "ts": np.arange(n) * 1_000 + rng.integers(0, 3_000, n),  # sometimes backwards
        "symbol": rng.integers(0, symbols, n, dtype=np.int32),
        "action": _pick(rng, n, actions),
        "order_id": rng.integers(1, ids + 1, n, dtype=np.uint64),
        "new_order_id": rng.integers(1, ids + 1, n, dtype=np.uint64),
        "has_new_id": rng.random(n) < new_id,
        "side": _choice(rng, n, [1, -1], np.int8),
        "order_type": _pick(rng, n, (1 - market - passive, market, passive)),
        "tif": _pick(rng, n, tifs),
        "price": np.zeros(n, dtype=np.int64),
        "qty": rng.integers(1, 21, n),
        "account": rng.integers(0, accounts, n, dtype=np.int32),
        "post_only": rng.random(n) < post_only,
    }


def _near(rng: np.random.Generator, side: np.ndarray, mid: Any, through: int, behind: int) -> np.ndarray:
    """Prices in ticks from `through` ticks beyond `mid` to `behind` ticks away from it."""
    return mid - side.astype(np.int64) * rng.integers(-through, behind + 1, len(side))


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"SYM{i}" for i in range(count))


# -- flows


def tight(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Three instruments, eleven prices, two hundred ids, every action, type, tif and flag."""
    columns = _columns(rng, n, symbols=3)
    columns["price"] = _near(rng, columns["side"], 100, 3, 7) * CENT
    return {"columns": columns, "symbols": _names(3), "tick": CENT}


def tiny(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Six ids and three prices: nearly every command names an order in some odd state."""
    columns = _columns(rng, n, ids=6, accounts=2)
    columns["price"] = rng.integers(1, 4, n)
    columns["qty"] = rng.integers(1, 5, n)
    return {"columns": columns, "symbols": _names(1)}


def wide(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Prices from 0.01 to 199,999.99, the ends included, most of them in the middle of nowhere."""
    columns = _columns(rng, n, symbols=2, ids=3_000, actions=CALM, market=0.01)
    ends = _choice(rng, n, [1, 2, 19_999_998, 19_999_999])
    anywhere = np.exp(rng.uniform(0, np.log(19_999_999), n)).astype(np.int64)
    near = _near(rng, columns["side"], 1_000_000, 20, 180)
    columns["price"] = np.choose(_pick(rng, n, (0.1, 0.3, 0.6)), [ends, anywhere, near]) * CENT
    return {"columns": columns, "symbols": _names(2), "tick": CENT}


def big(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Quantities around 2^62 and 2^63 at few prices, between small ones: sums must be refused, never wrap."""
    columns = _columns(rng, n, ids=60, tifs=(0.6, 0.1, 0.15, 0.15))
    columns["price"] = _near(rng, columns["side"], 100, 1, 2) * CENT
    huge = _choice(rng, n, [2**62 - 1, 2**62, 2**62 + 1, 2**61, 2**32, 2**31, INT64_MAX, INT64_MAX - 1])
    columns["qty"] = np.where(rng.random(n) < 0.7, huge, rng.integers(1, 5, n))
    return {"columns": columns, "symbols": _names(1), "tick": CENT}


def invalid(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Half of the rows have something wrong: quantity or price zero, negative, extreme or off the tick."""
    columns = _columns(rng, n, symbols=2, ids=50)
    good_price = _near(rng, columns["side"], 100, 2, 8) * 5 * CENT
    bad_price = _choice(
        rng, n, [0, -5 * CENT, -1, 1, 3 * CENT, 500 * CENT + 1, INT64_MAX, INT64_MIN, INT64_MIN + 1]
    )
    columns["price"] = np.where(rng.random(n) < 0.25, bad_price, good_price)
    bad_qty = _choice(rng, n, [0, -1, -20, INT64_MIN, INT64_MIN + 1, INT64_MAX])
    columns["qty"] = np.where(rng.random(n) < 0.2, bad_qty, columns["qty"])
    return {"columns": columns, "symbols": _names(2), "tick": 5 * CENT}


def heavy(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Each quantity fits in 32 bits and hardly any sum of two does."""
    columns = _columns(rng, n, ids=300)
    columns["price"] = _near(rng, columns["side"], 100, 1, 3) * CENT
    columns["qty"] = rng.integers(2**30, 2**31, n)
    return {"columns": columns, "symbols": _names(1), "tick": CENT}


def growing(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Small quantities at first and huge ones later, so that a book outgrows what its start promised."""
    columns = _columns(rng, n, symbols=2, ids=300)
    columns["price"] = _near(rng, columns["side"], 100, 1, 6) * CENT
    huge = rng.integers(2**31, 2**61, n)
    columns["qty"] = np.where(np.arange(n) < n // 2, columns["qty"], huge)
    return {"columns": columns, "symbols": _names(2), "tick": CENT}


def far(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Prices at both ends of 64 bits and around zero, one tick of 1e-9 apart."""
    columns = _columns(rng, n, ids=300)
    ends = [INT64_MAX - 1, INT64_MAX - 2, 2**62, 2**62 + 1, 2**32, 2, 1, 0]
    columns["price"] = _choice(rng, n, [*ends, *(-price for price in ends), INT64_MIN])
    return {"columns": columns, "symbols": _names(1), "allow_nonpositive": True}


def untold(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """No tick size is given: any positive price is on it, whatever its last digits."""
    columns = _columns(rng, n, symbols=3)
    step = np.array([25 * CENT, 1, 7])[columns["symbol"]]
    columns["price"] = _near(rng, columns["side"], 8, 4, 8) * step
    bad = rng.random(n) < 0.02
    columns["price"] = np.where(bad, -columns["price"], columns["price"])
    return {"columns": columns, "symbols": _names(3), "tick": None}


def pileup(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Thousands of orders queue at one price, leave from the middle, and are eaten from the front."""
    columns = _columns(rng, n, ids=n // 3 + 1, actions=CALM, market=0.005, tifs=(0.97, 0.01, 0.01, 0.01))
    sells = rng.random(n) < 0.5
    columns["side"] = np.where(sells, -1, 1).astype(np.int8)
    through = rng.random(n) < 0.02
    columns["price"] = np.where(sells ^ through, 101, 100) * CENT
    columns["qty"] = np.where(through, rng.integers(1, 400, n), columns["qty"])
    return {"columns": columns, "symbols": _names(1), "tick": CENT}


def sweeps(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Many levels a side, and now and then an order that eats them all."""
    columns = _columns(rng, n, symbols=2, ids=2_000, actions=CALM, market=0.01, post_only=0.3)
    sells = columns["side"] == -1
    columns["price"] = np.where(sells, rng.integers(480, 1000, n), rng.integers(1, 520, n)) * CENT
    sweeping = (columns["order_type"] == OrderType.MARKET) | (rng.random(n) < 0.01)
    columns["qty"] = np.where(sweeping, rng.integers(1, 20_000, n), columns["qty"])
    columns["price"] = np.where(sweeping, np.where(sells, 1, 1000) * CENT, columns["price"])
    return {"columns": columns, "symbols": _names(2), "tick": CENT}


def replaces(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Two thirds of the commands move an order: price, quantity, id, through the market, onto taken ids."""
    columns = _columns(rng, n, symbols=2, ids=80, actions=(0.34, 0.01, 0.03, 0.62, 0.0, 0.0), new_id=0.5)
    odd = columns["order_id"] & np.uint64(1)
    columns["side"] = np.where(odd, 1, -1).astype(np.int8)
    columns["price"] = _near(rng, columns["side"], 100, 1, 9) * CENT
    same_id = rng.random(n) < 0.15
    same_side = columns["new_order_id"] & ~np.uint64(1) | odd
    columns["new_order_id"] = np.where(same_id, columns["order_id"], same_side)
    return {"columns": columns, "symbols": _names(2), "tick": CENT}


def extreme_ids(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Ids at the ends of 64 bits and in between, and such that differ in one bit or collide when hashed."""
    columns = _columns(rng, n, symbols=2)
    ends = [0, 1, 2**31, 2**32, 2**53, 2**53 + 1, INT64_MAX, 2**63, 2**63 + 1, UINT64_MAX]
    strides = np.arange(1, 60, dtype=np.uint64) << np.uint64(rng.integers(20, 58))
    anything = rng.integers(0, UINT64_MAX, 60, dtype=np.uint64)
    pool = np.concatenate([np.array(ends, np.uint64), strides, anything, ~strides])
    columns["order_id"] = _choice(rng, n, pool, np.uint64)
    columns["new_order_id"] = _choice(rng, n, pool, np.uint64)
    columns["price"] = _near(rng, columns["side"], 100, 2, 5) * CENT
    columns["account"] = _choice(rng, n, [-(2**31), -1, 0, 1, 2**31 - 1], np.int32)
    return {"columns": columns, "symbols": _names(2), "tick": CENT}


def spreads(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """An instrument that trades around zero and below."""
    columns = _columns(rng, n, ids=150)
    columns["price"] = _near(rng, columns["side"], 0, 3, 6) * 25 * CENT
    columns["price"] += np.where(rng.random(n) < 0.02, CENT, 0)
    return {"columns": columns, "symbols": _names(1), "tick": 25 * CENT, "allow_nonpositive": True}


def drift(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """The price wanders, jumps and comes back, so that every price range is left behind again and again."""
    columns = _columns(rng, n, symbols=2, ids=400, actions=CALM)
    jumps = np.where(rng.random(n) < 0.0005, rng.integers(-50_000, 50_000, n), 0)
    mid = 300_000 + np.abs(np.cumsum(rng.integers(-1, 2, n) + jumps))
    columns["price"] = (mid - columns["side"] * rng.integers(-3, 40, n)) * CENT
    return {"columns": columns, "symbols": _names(2), "tick": CENT}


def venue(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Two hundred instruments, a few of them busy and most of them asleep."""
    columns = _columns(rng, n, ids=100, actions=CALM)
    columns["symbol"] = np.minimum(rng.zipf(1.3, n) - 1, 199).astype(np.int32)
    columns["price"] = _near(rng, columns["side"], 1_000 + columns["symbol"] * 7, 2, 9) * CENT
    return {"columns": columns, "symbols": _names(200), "tick": CENT}


def ordinary(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Ids count upwards and never come back; orders die young, as on a real venue."""
    columns = _columns(rng, n, symbols=4, actions=(0.5, 0.38, 0.04, 0.08, 0.0, 0.0), new_id=0.0, market=0.02)
    is_new = columns["action"] == Action.NEW
    latest = np.cumsum(is_new)
    age = np.where(is_new, 0, rng.geometric(0.02, n))
    columns["order_id"] = (1_000_000 + np.maximum(latest - age, 0)).astype(np.uint64)
    columns["symbol"] = (columns["order_id"] % np.uint64(4)).astype(np.int32)
    sign = np.where(columns["order_id"] // np.uint64(4) % np.uint64(2), 1, -1)
    columns["side"] = sign.astype(np.int8)
    columns["price"] = (10_000 - sign * rng.integers(-2, 30, n)) * CENT
    return {"columns": columns, "symbols": _names(4), "tick": CENT}


FLOWS: dict[str, Callable[[np.random.Generator, int], dict[str, Any]]] = {
    flow.__name__: flow
    for flow in (
        tight,
        tiny,
        wide,
        big,
        heavy,
        growing,
        far,
        untold,
        invalid,
        pileup,
        sweeps,
        replaces,
        extreme_ids,
        spreads,
        drift,
        venue,
        ordinary,
    )
}


def make(name: str, size: int, seed: int) -> Flow:
    """The flow of that name; equal arguments give equal flows."""
    rng = np.random.default_rng([seed, *name.encode()])
    return Flow(name, seed, **FLOWS[name](rng, size))


# -- facts

FACT_LETTERS = [MboAction.A, MboAction.M, MboAction.C, MboAction.T, MboAction.F, MboAction.N, MboAction.R]


def facts(size: int, seed: int) -> pa.Table:
    """A random mbo table: adds that cross, modifies, cancels, garbage, trades to be ignored."""
    rng = np.random.default_rng(seed)
    bad = rng.random(size)
    bad_price = _choice(rng, size, [0, -CENT, 1, CENT + 1, INT64_MAX])
    bad_size = _choice(rng, size, [0, -1, 2**62, INT64_MAX, INT64_MIN + 1])
    picks = _pick(rng, size, (0.5, 0.18, 0.25, 0.03, 0.03, 0.0095, 0.0005))
    stamps = pa.array(np.arange(size), pa.timestamp("ns", tz="UTC"))
    symbol = pa.DictionaryArray.from_arrays(
        pa.array(rng.integers(0, 2, size, dtype=np.int32)), pa.array(_names(2), pa.string())
    )
    return pa.table(
        {
            "ts_event": stamps,
            "ts_recv": stamps,
            "symbol": symbol,
            "action": code_array(np.array(FACT_LETTERS, dtype=np.int8)[picks], MboAction),
            "side": pa.array(_choice(rng, size, [1, -1], np.int8)),
            "price": pa.array(np.where(bad < 0.02, bad_price, rng.integers(95, 106, size) * CENT)),
            "size": pa.array(np.where(bad > 0.95, bad_size, rng.integers(1, 21, size))),
            "order_id": pa.array(rng.integers(1, 200, size, dtype=np.uint64)),
            "flags": pa.array(np.zeros(size, dtype=np.uint8)),
            "sequence": pa.array(np.arange(size)),
        }
    )


def fact_rows(table: pa.Table) -> Iterator[tuple]:
    """Rows of an mbo table for the slow twin's rebuild."""
    codes = [int(MboAction.parse(name)) for name in table["action"].to_pylist()]
    columns = (table[name].to_pylist() for name in ("order_id", "side", "price", "size"))
    ts = table["ts_event"].cast(pa.int64()).to_pylist()
    return zip(ts, table["symbol"].to_pylist(), codes, *columns, strict=True)
