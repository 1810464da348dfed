"""Seeded order flow with the statistics of real flow, for when real flow is too short or too private.

    table = generate(messages=1_000_000, symbols=100, seed=7)
    write("flow.parquet", messages=100_000_000, symbols=100)      # block by block, a row group each

The same arguments give the same rows on every machine and under every version of numpy: the kernel
(`hftlab.kernels.feeds.synthetic`) is integers only, its tables are computed here with exact integer
arithmetic and correctly rounded decimals, and how a flow is cut into blocks changes nothing.

What is imitated, and who found it in real books:

- *The mix*: 47-49 % NEW that rests (a quarter of it DAY, a sixteenth POST_ONLY), 41-42 % CANCEL, 3 % REPLACE,
  2 % REDUCE, 6 % NEW that trades (IOC, marketable limits, MARKET, a few FOK). About 0.09 fills a message.
- *Placement*: the distance of a new order from its side's touch falls as a power law, P(d) ~ (d + 7)^-1.5 up
  to 511 ticks (Bouchaud, Mezard, Potters 2002, and Zovko, Farmer 2002, find exponents of 1.6 and 2.5).
  The wider the spread, the more go inside it. Its median is 2 ticks.
- *Cancels*: their rate grows with the number of open orders (Cont, Stoikov, Talreja 2010), which keeps the
  depth steady: some 950 orders in the busiest symbol, 200 in quiet ones. The one that goes is usually
  young, P(k younger ones) ~ (k + 6)^-1.5: half of all orders live for less than 40 messages of their
  symbol, one in a hundred for tens of thousands (Hasbrouck, Saar 2009, on fleeting orders). Two or three
  cancels in a hundred come too late, after the order was filled, and are rejected.
- *Aggressors* keep a side for a while: parent orders of L child orders, P(L) ~ L^-2.5 (Lillo, Mike, Farmer
  2005, for the long memory of trade signs). Most want no more than the touch has, often exactly that
  (Farmer, Gillemot, Lillo, Mike, Sen 2004).
- *Price*: each symbol's fair price is a random walk pulled back to an anchor between 5.00 and 500.00, in
  steps of 0.01 (Ornstein, Uhlenbeck 1930); the sides of orders lean towards it, so the middle follows.
- *Quantities*: a power law with spikes at round lots. *Symbols* and *accounts*: Zipf's law.
- *Time*: a Hawkes process with a fast (4 us) and a slow (17 ms) exponential kernel, 0.8 children a message
  (Hawkes 1971; Hardiman, Bercot, Bouchaud 2013 find even more), drawn exactly (Dassios, Zhao 2013).
  Fast children stay in their parent's symbol. Some 5,000 messages a second.

Not modelled: auctions, the U-shape of a trading day, hidden and iceberg orders, symbols that move together,
participants who react to fills, self-trade prevention, MASS_CANCEL, CLEAR, a REPLACE that changes the id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, localcontext
from functools import cache
from math import isqrt
from pathlib import Path

import numpy as np
import pyarrow as pa

from hftlab import codes, schema
from hftlab.errors import UsageError
from hftlab.files import write_table
from hftlab.kernels.feeds import synthetic

BLOCK_ROWS = 1 << 20
MAX_SYMBOLS = 10_000
START_NS = 1_704_205_800_000_000_000  # 2024-01-02 14:30 UTC, 09:30 in New York

CHEAPEST_TICKS, DEAREST_TICKS = 500, 50_000  # 5.00 and 500.00
PRICE_OCTAVES = 7
MOST_OPEN, FEWEST_OPEN = 1_000, 200  # orders per symbol, busiest and quietest, about
PLACES_PER_OPEN = 4  # remembered orders, filled and cancelled ones among them

ACCOUNTS = 64
AGES = 4_096
DISTANCES = 512
CHEAP_DISTANCES = 128  # where a power law to 512 ticks would end below zero
LONGEST_RUN = 64
LARGEST_QTY = 1_000
ROUND_LOTS = {10: 10, 50: 20, 100: 100, 200: 33, 300: 13, 400: 7, 500: 20, 1_000: 10}  # in % of the power law
WEIGHT_SCALE = 1 << 40

SCHEMA = schema.ORDERS.remove(schema.ORDERS.get_field_index("new_order_id"))


def generate(messages: int = 100_000, symbols: int = 1, seed: int = 0) -> pa.Table:
    """A flow as an orders table (`hftlab.schema.ORDERS` without new_order_id).

    Order ids count up from 1, symbols are SYM000 (the busiest), SYM001 ..., the tick is 0.01. Raises
    UsageError for arguments out of range.
    """
    state, odds = _start(messages, symbols, seed)
    rows = _empty_rows(messages)
    for first in range(0, messages, BLOCK_ROWS):
        block = synthetic.FlowRows(*(column[first : first + BLOCK_ROWS] for column in rows))
        _fill(state, odds, block)
    return _table(rows, _names(symbols))


def blocks(
    messages: int = 100_000, symbols: int = 1, seed: int = 0, block_rows: int = BLOCK_ROWS
) -> Iterator[pa.Table]:
    """The same flow in tables of `block_rows` rows, the last one shorter (one empty table when all are)."""
    state, odds = _start(messages, symbols, seed)
    for first in range(0, max(messages, 1), block_rows):
        rows = _empty_rows(min(block_rows, messages - first))
        _fill(state, odds, rows)
        yield _table(rows, _names(symbols))


def write(
    path: str | Path,
    messages: int = 100_000,
    symbols: int = 1,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Write a flow to a file; `progress` is told the rows done so far.

    A Parquet file needs memory for one block, an Arrow file (.arrow) for the whole flow. Raises UsageError
    for arguments out of range or another suffix, OutputError when the file can't be written; it appears
    whole or not at all.
    """
    _check(messages, symbols, seed)
    write_table(path, _counted(blocks(messages, symbols, seed), progress))


def _counted(tables: Iterator[pa.Table], progress: Callable[[int], object] | None) -> Iterator[pa.Table]:
    done = 0
    for table in tables:
        yield table
        done += table.num_rows
        if progress is not None:
            progress(done)


def _check(messages: int, symbols: int, seed: int) -> None:
    for name, value, low, high in (
        ("messages", messages, 0, 2**40),
        ("symbols", symbols, 1, MAX_SYMBOLS),
        ("seed", seed, 0, 2**64 - 1),
    ):
        if not low <= value <= high:
            raise UsageError(f"{name}: found {value}, expected {low} to {high}")


def _names(symbols: int) -> list[str]:
    width = max(3, len(str(symbols - 1)))
    return [f"SYM{number:0{width}}" for number in range(symbols)]


# Rows


def _empty_rows(count: int) -> synthetic.FlowRows:
    types = {"symbol": "i4", "action": "i1", "side": "i1", "order_type": "i1", "tif": "i1"}
    types |= {"account": "i4", "post_only": "?"}
    return synthetic.FlowRows(
        *(np.empty(count, types.get(name, "i8")) for name in synthetic.FlowRows._fields)
    )


def _fill(state: synthetic.FlowState, odds: synthetic.FlowOdds, rows: synthetic.FlowRows) -> None:
    synthetic.fill_arrivals(state, odds, rows, len(rows.ts))
    synthetic.fill_orders(state, odds, rows, len(rows.ts))


def _table(rows: synthetic.FlowRows, names: Sequence[str]) -> pa.Table:
    columns = {name: pa.array(column) for name, column in rows._asdict().items()}
    columns |= {
        "ts": pa.array(rows.ts.view("M8[ns]")).cast(schema.TIMESTAMP),
        "symbol": pa.DictionaryArray.from_arrays(rows.symbol, pa.array(names)),
        "action": schema.code_array(rows.action, codes.Action),
        "order_id": pa.array(rows.order_id.view("u8")),
        "order_type": schema.code_array(rows.order_type, codes.OrderType),
        "tif": schema.code_array(rows.tif, codes.Tif),
    }
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


# The state a flow starts from


def _start(messages: int, symbols: int, seed: int) -> tuple[synthetic.FlowState, synthetic.FlowOdds]:
    _check(messages, symbols, seed)
    books = _books(symbols, seed)
    levels = np.zeros((symbols, synthetic.LADDER), synthetic.LEVEL)
    levels["qty"][:, [synthetic.WALL_LOW, synthetic.WALL_HIGH]] = 1
    places = int(books["places"].sum()) + symbols
    orders = np.zeros(1 + places, synthetic.ORDER)
    return synthetic.FlowState(_clock(seed), books, levels.reshape(-1), orders), _odds(symbols)


def _number(seed: int, what: str, below: int) -> int:
    """A number fixed by the seed and what it is for."""
    return int.from_bytes(hashlib.sha256(f"{seed} {what}".encode()).digest()[:16], "little") % below


def _clock(seed: int) -> np.ndarray:
    clock = np.zeros(1, synthetic.CLOCK)
    for stream in ("arrival_rng", "order_rng"):
        # 0 and the modulus are the generator's fixed points
        clock[stream] = 1 + _number(seed, stream, (synthetic.MULTIPLIER << synthetic.WORD_BITS) - 2)
    clock["ts_ns"], clock["next_id"] = START_NS, 1
    return clock


def _anchor_ticks(seed: int, symbol: int) -> int:
    """Price a symbol is pulled back to: as many symbols from 5 to 10 as from 10 to 20, and so on."""
    octave = CHEAPEST_TICKS << _number(seed, f"octave {symbol}", PRICE_OCTAVES)
    return min(octave + _number(seed, f"price {symbol}", octave), DEAREST_TICKS)


def _books(symbols: int, seed: int) -> np.ndarray:
    books = np.zeros(symbols, synthetic.BOOK)
    anchor = np.array([_anchor_ticks(seed, symbol) for symbol in range(symbols)])
    target = np.array([max(isqrt(MOST_OPEN**2 // (rank + 1)), FEWEST_OPEN) for rank in range(symbols)])
    places = np.array([1 << (PLACES_PER_OPEN * int(count) - 1).bit_length() for count in target])
    books["base"] = anchor - synthetic.LADDER // 2
    books["floor"] = np.maximum(1 - books["base"], 1)
    books["reach"] = np.where(anchor < synthetic.LADDER, CHEAP_DISTANCES, DISTANCES) - 1
    books["sigma"] = np.minimum(2_000 + 2 * anchor, 30_000)
    books["target"] = target
    books["fair"] = synthetic.LADDER // 2 << synthetic.FAIR_BITS
    books["bid"], books["ask"] = synthetic.WALL_LOW, synthetic.WALL_HIGH
    books["ring"] = 1 + np.cumsum(places) - places
    books["places"] = places - 1
    return books


# Distributions


@cache
def _odds(symbols: int) -> synthetic.FlowOdds:
    tables = (
        _power_law(symbols, 2),
        _power_law(ACCOUNTS, 2),
        _power_law(DISTANCES, 3, start=7),
        _power_law(AGES, 3, start=6),
        _quantities(),
        _power_law(LONGEST_RUN, 5),
    )
    return synthetic.FlowOdds(
        *(_read_only(_alias_table(weights)) for weights in tables), *map(_read_only, _curves())
    )


def _read_only(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values


def _power_law(outcomes: int, halves: int, start: int = 1) -> list[int]:
    """Weights (start + k)^(-halves / 2) for k = 0, 1, ..., in integers: a half power is a square root."""
    return [WEIGHT_SCALE // isqrt((start + k) ** halves << 40) for k in range(outcomes)]


def _quantities() -> list[int]:
    """Weights of 1, 2, ... lots: (q + 20)^-2 and the round lots."""
    weights = _power_law(LARGEST_QTY, 4, start=21)
    total = sum(weights)
    return [weight + total * ROUND_LOTS.get(qty, 0) // 100 for qty, weight in enumerate(weights, 1)]


def _alias_table(weights: Sequence[int]) -> np.ndarray:
    """Walker's table: outcome k stays with probability [k, 0] / 2^32, else becomes [k, 1]."""
    total = sum(weights)
    mass = [weight * len(weights) for weight in weights]
    table = [[1 << synthetic.WORD_BITS, k] for k in range(len(weights))]
    poor = [k for k, share in enumerate(mass) if share < total]
    rich = [k for k, share in enumerate(mass) if share >= total]
    while poor and rich:
        taker, giver = poor.pop(), rich[-1]
        table[taker] = [(mass[taker] << synthetic.WORD_BITS) // total, giver]
        mass[giver] -= total - mass[taker]
        if mass[giver] < total:
            poor.append(rich.pop())
    return np.array(table, dtype=np.int64)


def _curves() -> tuple[np.ndarray, np.ndarray]:
    """-ln(1 - u) and 2^-u on [0, 1], in 2^-20; decimals round the same everywhere, floats don't."""
    pieces, scale = 1 << synthetic.CURVE_BITS, 1 << synthetic.FIXED_BITS
    with localcontext(prec=30):
        waiting = [int(-(1 - Decimal(k) / pieces).ln() * scale) for k in range(pieces)]
        halving = [int((-Decimal(2).ln() * k / pieces).exp() * scale) for k in range(pieces + 1)]
    waiting.append(waiting[-1] + scale)  # the mean of what lies beyond
    return np.array(waiting), np.array(halving)
