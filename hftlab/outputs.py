"""From what a run wrote to Arrow tables, and to the digest.

Columns are the buffers a vectorized pass has filled; Arrow wraps them without a copy.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from hftlab import schema
from hftlab.codes import NOT_A_VALUE, UNDEF_PRICE, Action, Anomaly, Reason, Stage, Status
from hftlab.kernels import outputs
from hftlab.kernels.ops import REJECTED
from hftlab.kernels.states import CROSSED
from hftlab.kernels.tape_compiler import NOTE
from hftlab.resting import Resting, level_prices
from hftlab.runner import TapeRun, run_depth, run_states
from hftlab.tape import Tape

_DECIDED_IN_MATCH = (Reason.POST_ONLY_WOULD_CROSS, Reason.CAPACITY_EXHAUSTED)


def _symbols(tape_symbols: tuple[str, ...], books: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(
        pa.array(books.astype(np.int32, copy=False)), pa.array(tape_symbols, pa.string()), safe=False
    )


def _times(ts: np.ndarray) -> pa.Array:
    return pa.array(ts).view(schema.TIMESTAMP)


def _table(layout: pa.Schema, *columns) -> pa.Table:
    arrays = [c if isinstance(c, pa.Array) else pa.array(c) for c in columns]
    return pa.Table.from_arrays(arrays, schema=layout)


def _cells(column: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cells of a column; zeros where it is absent."""
    return column[rows] if column.size else np.zeros(rows.size, column.dtype)


@dataclass
class Fills:
    """Fills as columns (see kernels.outputs for which is which)."""

    longs: np.ndarray  # int64 [8, fills]
    ints: np.ndarray  # int32 [3, fills]
    sides: np.ndarray  # int8 [fills]


def expand_fills(run: TapeRun) -> Fills:
    """Fill records as columns."""
    tape, count = run.tape, run.fills.size
    fills = Fills(np.empty((8, count), np.int64), np.empty((3, count), np.int32), np.empty(count, np.int8))
    outputs.expand_fills(
        run.fills,
        tape.checked.columns,
        tape.grid,
        _rows(tape),
        run.maker_ids if run.maker_ids.size else tape.ids(run.fills["maker"]),
        fills.longs,
        fills.ints,
        fills.sides,
    )
    return fills


def _rows(tape: Tape) -> outputs.Rows:
    checked = tape.checked
    return outputs.Rows(checked.seq, checked.ts, np.array([checked.first_row]))


def fills_table(tape: Tape, fills: Fills, first_match: int = 0) -> pa.Table:
    """The fills table; `first_match` is how many fills the flow had before."""
    longs, ints, sides = fills.longs, fills.ints, fills.sides
    return _table(
        schema.FILLS,
        longs[outputs.SEQ],
        np.arange(first_match, first_match + sides.size),
        _times(longs[outputs.TS]),
        _symbols(tape.symbols, ints[outputs.SYMBOL]),
        longs[outputs.PRICE],
        longs[outputs.QTY],
        sides,
        longs[outputs.TAKER].view("u8"),
        longs[outputs.MAKER].view("u8"),
        ints[outputs.TAKER_ACCOUNT],
        ints[outputs.MAKER_ACCOUNT],
        longs[outputs.TAKER_LEAVES],
        longs[outputs.MAKER_LEAVES],
    )


def outcomes_table(run: TapeRun) -> pa.Table:
    """The outcomes table: one row per command."""
    status, filled, leaves = run.by_row
    return _table(
        schema.OUTCOMES,
        run.tape.seqs,
        schema.code_array(status, Status),
        filled,
        leaves,
    )


def rejects_table(run: TapeRun) -> pa.Table:
    """The rejects table: why, and what was found against which limit."""
    tape = run.tape
    positions = np.flatnonzero(run.outcomes >= REJECTED)
    rows = run.order[positions] if run.order.size else positions
    ascending = np.argsort(rows, kind="stable")
    positions, rows = positions[ascending], rows[ascending]
    reason = (run.outcomes[positions] - REJECTED).astype(np.int8)
    stage = np.where(np.isin(reason, _DECIDED_IN_MATCH), int(Stage.MATCH), int(Stage.VALIDATE)).astype("i1")
    limit, observed = np.full((2, rows.size), NOT_A_VALUE)  # of a row invalid by itself; else none to quote
    places = np.searchsorted(rows, tape.invalid.rows)
    limit[places], observed[places] = tape.invalid.limit, tape.invalid.observed
    columns = tape.checked.columns
    action = columns.action[rows]
    return _table(
        schema.REJECTS,
        tape.seq(rows),
        _times(tape.ts(rows)),
        _symbols(tape.symbols, _cells(columns.book, rows)),
        columns.order_id[rows].view("u8"),
        _cells(columns.account, rows),
        schema.code_array(np.where(action == NOTE, 0, action).astype(np.int8), Action),
        schema.code_array(stage, Stage),
        schema.code_array(reason, Reason),
        pa.array(limit, mask=limit == NOT_A_VALUE),
        pa.array(observed, mask=observed == NOT_A_VALUE),
    )


def l1_table(run: TapeRun) -> pa.Table:
    """The touch after each command that changed it."""
    tape, count = run.tape, len(run.touch)
    longs, books = np.empty((8, count), np.int64), np.empty(count, np.int32)
    empty = np.empty((2, count), np.bool_)
    outputs.expand_touch(run.touch, tape.checked.columns.book, tape.grid, _rows(tape), longs, books, empty)

    def side(index: int) -> list[pa.Array]:
        price, lots, orders = longs[2 + 3 * index : 5 + 3 * index]
        none = empty[index]
        return [pa.array(price, mask=none if none.any() else None), pa.array(lots), pa.array(orders)]

    times, symbols = _times(longs[outputs.TS]), _symbols(tape.symbols, books)
    return _table(schema.L1, longs[outputs.SEQ], times, symbols, *side(0), *side(1))


def depth_table(tape: Tape, levels: int) -> pa.Table:
    """The best levels after each command that changed them."""
    rows, values = run_depth(tape, levels)
    books = _cells(tape.checked.columns.book, rows)
    grid_base = tape.grid.bases[books][:, None]

    def lists(column: int) -> pa.Array:
        cells = values[column]
        if column % 3 == 0:
            at = np.broadcast_to(books[:, None], cells.shape)
            cells = np.where(
                cells < 0, UNDEF_PRICE, level_prices(tape.grid, at, np.maximum(cells, grid_base))
            )
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(cells).ravel()), levels)

    return _table(
        schema.depth(levels),
        tape.seq(rows),
        _times(tape.ts(rows)),
        _symbols(tape.symbols, books),
        *(lists(column) for column in range(6)),
    )


def anomalies_table(tape: Tape) -> pa.Table:
    """Rows that were refused, and ends of events that left the book crossed, in input order."""
    run, states = run_states(tape)
    rejected = np.flatnonzero(run.outcomes >= REJECTED)
    crossed = np.flatnonzero(states.places & CROSSED)
    rows = tape.input_rows(crossed)
    if tape.checked.ends.size:
        rows = rows[tape.checked.ends[rows]]
    kinds = np.append(run.outcomes[rejected] - REJECTED, np.full(rows.size, int(Anomaly.CROSSED)))
    rows = np.append(tape.input_rows(rejected), rows)
    order = np.argsort(rows, kind="stable")
    rows, kinds = rows[order], kinds[order].astype(np.int8)
    return _table(
        schema.ANOMALIES,
        tape.seq(rows),
        _times(tape.ts(rows)),
        _symbols(tape.symbols, _cells(tape.checked.columns.book, rows)),
        schema.code_array(kinds, Anomaly),
    )


def book_table(symbols: tuple[str, ...], resting: Resting) -> pa.Table:
    """Open orders in priority order."""
    return _table(
        schema.BOOK,
        _symbols(symbols, resting.book),
        resting.side,
        resting.price,
        resting.qty,
        resting.order_id.view("u8"),
        resting.account,
    )


@dataclass
class Digest:
    """128 bits over what a flow did; sums of mixed records, so no cutting up of the work changes it."""

    sums: np.ndarray = field(default_factory=lambda: np.zeros(2, np.int64))

    def add_run(self, run: TapeRun, fills: Fills) -> None:
        """Add a run's outcomes and fills."""
        rows, order = _rows(run.tape), run.order
        outputs.digest_outcomes(run.outcomes, run.filled, run.leaves, order, rows, self.sums)
        outputs.digest_fills(fills.longs, fills.ints, _hashes(run.tape.symbols), self.sums)

    def with_book(self, symbols: tuple[str, ...], resting: Resting) -> str:
        """The digest in hexadecimal, the final book included."""
        sums = self.sums.copy()
        outputs.digest_orders(*resting, _hashes(symbols), sums)
        return "".join(f"{int(half) & (2**64 - 1):016x}" for half in sums)


def _hashes(symbols: tuple[str, ...]) -> np.ndarray:
    """A stable 64-bit hash of each name."""
    digests = (hashlib.blake2b(symbol.encode(), digest_size=8).digest() for symbol in symbols)
    return np.array([int.from_bytes(d, "little", signed=True) for d in digests], np.int64)
