"""Facts to commands: what somebody must have asked the venue for, so that it reported this.

A market-by-order feed tells results. To put them through a matching engine they have to become requests
again, and some of those nobody saw: an execution of a resting order implies an incoming order from the
other side. Every row says in `origin` whether it was observed or concluded.

======================================== =====================================================
fact                                     command
======================================== =====================================================
A                                        NEW LIMIT GTC
M                                        REPLACE to its price and size, same id
C of all that is open                    CANCEL
C of less, or of an unknown order        REDUCE
C or M that only reports what an F took  none (of a larger C the difference stays)
F                                        NEW LIMIT IOC from the other side, INFERRED
R                                        CLEAR
T, N                                     none
======================================== =====================================================

Executions that follow each other (nothing but T, N and the C or M of an F between) with one time, symbol and
resting side, at prices that never get better for the taker, are one incoming order: its quantity is their
sum, its limit price the last and worst. Its id is synthetic: counted up from `TAKER_ID_BASE`, or from a
range without real ids where those reach that far. Snapshot rows (flag 32) become NEW and CLEAR like
others, but INFERRED: nobody sent them at that time. Row order is kept; `sequence` is that of the first
fact behind the command.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.codes import MBO_FLAG_SNAPSHOT, Action, MboAction, OrderType, Origin, Tif
from hftlab.schema import CODE, ORDERS, TIMESTAMP, code_array

TAKER_ID_BASE = 1 << 63

SCHEMA = ORDERS.append(pa.field("origin", CODE, nullable=False, metadata={"unit": "Origin"})).append(
    pa.field("sequence", pa.int64(), nullable=False, metadata={"unit": "message number of the source"})
)

_A, _M, _C, _R, _T, _F, _N = (MboAction[name] for name in "AMCRTFN")
_NAMES_ORDER = np.isin(np.arange(len(MboAction)), (_A, _M, _C, _F))
_COMMAND = np.zeros(len(MboAction), dtype=np.int8)  # Action by MboAction
_COMMAND[[_A, _M, _C, _R, _F]] = Action.NEW, Action.REPLACE, Action.REDUCE, Action.CLEAR, Action.NEW


class _Facts(NamedTuple):
    """The columns of an mbo table as arrays."""

    ts_ns: np.ndarray
    action: np.ndarray
    side: np.ndarray
    price: np.ndarray
    size: np.ndarray
    order_id: np.ndarray
    flags: np.ndarray
    sequence: np.ndarray
    symbol: np.ndarray  # indices into `symbols`
    symbols: pa.Array


class _Causes(NamedTuple):
    """Per fact: what a C took beyond earlier fills; whether a C took all; whether it only reports a fill."""

    taken: np.ndarray
    all_open: np.ndarray
    by_fill: np.ndarray


def infer_orders(mbo: pa.Table) -> pa.Table:
    """The commands behind an mbo table: schema ORDERS with `origin` and `sequence`.

    `symbol` and `flags` may be missing, and `ts_event` and `sequence`, which are then the row number.

    Raises TableError listing every column that is missing, holds nulls or has values of another type.
    """
    facts = _facts(mbo)
    causes = _causes(facts)
    kept = np.flatnonzero((facts.action != _T) & (facts.action != _N) & ~causes.by_fill)
    first = np.flatnonzero(~_continues(facts, kept))
    last = np.append(first[1:], len(kept))[: len(first)] - 1
    size = np.where(facts.action == _C, causes.taken, facts.size)[kept]
    qty = np.add.reduceat(size, first) if len(first) else size
    return _commands(facts, kept[first], facts.price[kept[last]], qty, causes.all_open)


def free_ids(real: np.ndarray, base: int, count: int) -> np.ndarray:
    """`count` consecutive uint64 ids not in `real`: from `base`, or above `real`, or in its first gap."""
    top = int(real.max()) if len(real) else 0
    start = base if top < base else top + 1
    if start + count >= 1 << 64:
        taken = np.unique(real)
        gaps = np.diff(taken, prepend=np.uint64(0))
        start = int(taken[np.argmax(gaps > count)]) - count
    return np.arange(count, dtype=np.uint64) + np.uint64(start)


def _facts(mbo: pa.Table) -> _Facts:
    from hftlab.tables import read_mbo  # brings numba, which feeds do without

    read = read_mbo(mbo)
    return _Facts(
        read.ts,
        read.fact,
        read.side,
        read.price,
        read.size,
        read.order_id.view(np.uint64),
        read.flags,
        read.sequence,
        read.book,
        pa.array(read.symbols, pa.string()),
    )


# ------------------------------------------------------------------ what caused what


def _causes(facts: _Facts) -> _Causes:
    """Follow each order through its own facts."""
    rows, new = _histories(facts)
    fill = facts.action[rows] == _F
    filled = _filled_before(fill, facts.size[rows], new)[~fill]
    order = np.cumsum(new)[~fill]
    rows = rows[~fill]
    new = np.diff(order, prepend=0) != 0
    action, size, price = facts.action[rows], facts.size[rows], facts.price[rows]

    cancel, at = action == _C, np.arange(len(rows))
    states = (action == _A) | (action == _M)  # these two say what is open, others only change it
    since = np.maximum.accumulate(np.where(states | new, at, 0))
    gone = np.cumsum(np.where(cancel, size, 0))
    open_after = size[since] - (gone - gone[since])
    known = _previous(states[since], False) & ~new
    open_before, price_before = _previous(open_after, 0), _previous(price[since], 0)

    taken = np.where(filled > 0, np.maximum(size - filled, 0), size)
    all_open = cancel & known & (size >= open_before)
    left_by_fill = known & (action == _M) & (price == price_before) & (size == open_before - filled)
    by_fill = (filled > 0) & np.where(cancel, taken == 0, left_by_fill)
    return _Causes(*(_scattered(rows, values, len(facts.action)) for values in (taken, all_open, by_fill)))


def _histories(facts: _Facts) -> tuple[np.ndarray, np.ndarray]:
    """Rows that name an order, order by order and each in file order; and where the next order begins."""
    rows = np.flatnonzero(_NAMES_ORDER[facts.action])
    ids, symbols = facts.order_id[rows], facts.symbol[rows]
    by_order = np.lexsort((ids, symbols)) if len(facts.symbols) > 1 else np.argsort(ids, kind="stable")
    ids, symbols = ids[by_order], symbols[by_order]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (ids[1:] != ids[:-1]) | (symbols[1:] != symbols[:-1])
    return rows[by_order], new


def _filled_before(fill: np.ndarray, size: np.ndarray, new: np.ndarray) -> np.ndarray:
    """For each fact: what was filled of the same order since its last fact that was not an F."""
    at = np.arange(len(fill))
    filled = np.concatenate([[0], np.cumsum(np.where(fill, size, 0))])
    changed = _previous(np.maximum.accumulate(np.where(fill, -1, at)), -1)
    started = np.maximum.accumulate(np.where(new, at, 0)) - 1
    return filled[1:] - filled[np.maximum(changed, started) + 1]


def _previous(values: np.ndarray, first: int | bool) -> np.ndarray:
    """Each row's value one row earlier."""
    shifted = np.empty_like(values)
    shifted[:1] = first
    shifted[1:] = values[:-1]
    return shifted


def _scattered(rows: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Values of some rows as a column of all `count`; zero elsewhere."""
    column = np.zeros(count, dtype=values.dtype)
    column[rows] = values
    return column


def _continues(facts: _Facts, kept: np.ndarray) -> np.ndarray:
    """Whether a kept row is one more execution by the incoming order of the row before."""
    row, before = kept[1:], kept[:-1]
    side = facts.side[row].astype(np.int64)
    same = (facts.action[row] == _F) & (facts.action[before] == _F)
    for column in (facts.ts_ns, facts.side, facts.symbol):
        same &= column[row] == column[before]
    same &= side * facts.price[row] <= side * facts.price[before]  # a taker's prices never get better
    same &= (facts.size[row] > 0) & (facts.size[before] > 0)
    return np.concatenate([np.zeros(min(len(kept), 1), dtype=bool), same])


# ------------------------------------------------------------------ writing the commands


def _commands(
    facts: _Facts, rows: np.ndarray, price: np.ndarray, qty: np.ndarray, all_open: np.ndarray
) -> pa.Table:
    count, taker = len(rows), facts.action[rows] == _F
    action = _COMMAND[facts.action[rows]]
    action[all_open[rows]] = Action.CANCEL
    order_id = facts.order_id[rows]
    order_id[taker] = free_ids(facts.order_id, TAKER_ID_BASE, int(taker.sum()))
    concluded = taker | (facts.flags[rows] & MBO_FLAG_SNAPSHOT != 0)
    columns = [
        pa.array(facts.ts_ns[rows]).cast(TIMESTAMP),
        pa.DictionaryArray.from_arrays(facts.symbol[rows].astype(np.int32), facts.symbols.cast(pa.string())),
        code_array(action, Action),
        order_id,
        pa.nulls(count, pa.uint64()),
        np.where(taker, -facts.side[rows], facts.side[rows]),
        code_array(np.full(count, OrderType.LIMIT, dtype=np.int8), OrderType),
        code_array(np.where(taker, Tif.IOC, Tif.GTC).astype(np.int8), Tif),
        price,
        qty,
        np.zeros(count, dtype=np.int32),
        np.zeros(count, dtype=bool),
        code_array(np.where(concluded, Origin.INFERRED, Origin.OBSERVED).astype(np.int8), Origin),
        facts.sequence[rows],
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=SCHEMA)
