"""The tables of a run, from the arrays that its kernels wrote.

Columns are buffers that one vectorized pass has filled; Arrow wraps them without a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from hftlab import schema
from hftlab.codes import NOT_A_VALUE, UNDEF_PRICE, Action, Anomaly, GateEvent, Reason, Stage, Status
from hftlab.engine.book_states import run_states
from hftlab.engine.depth import run_depth
from hftlab.engine.runner import TapeRun, run_tape
from hftlab.kernels.book.opcodes import REJECTED
from hftlab.kernels.book.touch import TOUCH_BOOK, TOUCH_LEVEL, TOUCH_ROW
from hftlab.kernels.codes import NOTE
from hftlab.kernels.primitives import memory
from hftlab.kernels.results import tables
from hftlab.kernels.results.book_states import CROSSED
from hftlab.parallel import cut, side_by_side
from hftlab.risk_gate.gate_run import GateOutputs
from hftlab.schema import make_table, symbol_array, time_array
from hftlab.tape.open_orders import level_prices
from hftlab.tape.tape import Tape

_STAGES = np.array([int(reason.stage) for reason in Reason], np.int8)  # by Reason
_NO_VALUES = [reason for reason in Reason if not reason.quotes_values]
_NO_LIMIT = [reason for reason in Reason if not reason.quotes_limit]


def _cells(column: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cells of a column; zeros where it is absent."""
    return column[rows] if column.size else np.zeros(rows.size, column.dtype)


@dataclass
class Fills:
    """Fills as columns; `kernels.results.tables` names the rows of each array."""

    longs: np.ndarray  # int64 [8, fills]
    ints: np.ndarray  # int32 [3, fills]
    sides: np.ndarray  # int8 [fills]


def expand_fills(run: TapeRun) -> Fills:
    """Fill records as columns, on as many threads as the tape has."""
    tape, count = run.tape, run.fills.size
    fills = Fills(*memory.empty_together(((8, count), np.int64), ((3, count), np.int32), (count, np.int8)))

    def expand(start: int, stop: int) -> None:
        tables.expand_fills(
            run.fills,
            tape.checked.columns,
            tape.grid,
            rows_of(tape),
            run.maker_ids[start:stop] if run.maker_ids.size else tape.ids(run.fills["maker"][start:stop]),
            fills.longs,
            fills.ints,
            fills.sides,
            start,
            stop,
        )

    side_by_side([partial(expand, start, stop) for start, stop in cut(count, tape.threads)])
    return fills


def rows_of(tape: Tape) -> tables.Rows:
    """Row numbers and times of a tape, as the kernels of results take them."""
    checked = tape.checked
    return tables.Rows(checked.seq, checked.ts, np.array([checked.first_row]))


def fills_table(tape: Tape, fills: Fills, first_match: int = 0) -> pa.Table:
    """The fills table; `first_match` is how many fills the flow had before."""
    longs, ints, sides = fills.longs, fills.ints, fills.sides
    return make_table(
        schema.FILLS,
        longs[tables.SEQ],
        np.arange(first_match, first_match + sides.size),
        time_array(longs[tables.TS]),
        symbol_array(tape.symbols, ints[tables.SYMBOL]),
        longs[tables.PRICE],
        longs[tables.QTY],
        sides,
        longs[tables.TAKER].view("u8"),
        longs[tables.MAKER].view("u8"),
        ints[tables.TAKER_ACCOUNT],
        ints[tables.MAKER_ACCOUNT],
        longs[tables.TAKER_LEAVES],
        longs[tables.MAKER_LEAVES],
    )


def outcomes_table(run: TapeRun) -> pa.Table:
    """The outcomes table: one row per command."""
    status, filled, leaves = run.by_row
    return make_table(
        schema.OUTCOMES,
        run.tape.seqs,
        schema.code_array(status, Status),
        filled,
        leaves,
    )


def rejects_table(run: TapeRun) -> pa.Table:
    """The rejects table: reason, limit and observed value of each refused command."""
    tape = run.tape
    rejected = np.flatnonzero(run.outcomes >= REJECTED)
    rows = run.order[rejected] if run.order.size else rejected
    # partitions of a tape have their rows one after the other; a table has them in input order
    ascending = np.argsort(rows, kind="stable")
    rejected, rows = rejected[ascending], rows[ascending]
    reason = (run.outcomes[rejected] - REJECTED).astype(np.int8)
    # a row that is invalid by itself has its values from compiling, a refusal of the gate from the run
    limit, observed = np.full((2, rows.size), NOT_A_VALUE)
    places = np.searchsorted(rows, tape.invalid.rows)
    limit[places], observed[places] = tape.invalid.limit, tape.invalid.observed
    if run.gate is not None:
        _quote_refusals(run.gate, rows, reason, limit, observed)
    columns = tape.checked.columns
    action = columns.action[rows]
    return make_table(
        schema.REJECTS,
        tape.seq(rows),
        time_array(tape.ts(rows)),
        symbol_array(tape.symbols, _cells(columns.book, rows)),
        columns.order_id[rows].view("u8"),
        _cells(columns.account, rows),
        schema.code_array(np.where(action == NOTE, 0, action).astype(np.int8), Action),
        schema.code_array(_STAGES[reason], Stage),
        schema.code_array(reason, Reason),
        pa.array(limit, mask=limit == NOT_A_VALUE),
        pa.array(observed, mask=observed == NOT_A_VALUE),
    )


def _quote_refusals(
    gate: GateOutputs, rows: np.ndarray, reason: np.ndarray, limit: np.ndarray, observed: np.ndarray
) -> None:
    """Put the values that the gate recorded into the columns of rejects, whose input rows ascend."""
    # validation and matching refuse without the gate
    by_gate = (_STAGES[reason] != Stage.VALIDATE) & (_STAGES[reason] != Stage.MATCH)
    refusals = gate.refusals
    refusals = refusals[np.argsort(refusals["row"], kind="stable")]
    found = refusals[np.searchsorted(refusals["row"], rows[by_gate])]
    limit[by_gate] = np.where(np.isin(reason[by_gate], _NO_LIMIT), NOT_A_VALUE, found["limit"])
    observed[by_gate] = np.where(np.isin(reason[by_gate], _NO_VALUES), NOT_A_VALUE, found["observed"])
    rated = np.flatnonzero(reason == Reason.RATE_LIMIT)
    if rated.size:  # the gate records only that a rate was over; the count is made for these rows alone
        observed[rated] = gate.messages().counted(rows[rated])


def gate_table(run: TapeRun) -> pa.Table:
    """What the risk gate did by itself."""
    tape, gate = run.tape, run.gate
    if gate is None:
        return schema.GATE.empty_table()
    events = gate.events
    holdings = gate.holdings[np.abs(events["holding"])]
    has_order = events["node"] >= 0
    rows = events["row"].astype(np.int64)
    struck = events["kind"] == GateEvent.STOP_LOSS
    of_account = struck & (events["holding"] < 0)  # a stop over all symbols of an account
    symbols = pa.DictionaryArray.from_arrays(
        pa.array(holdings["book"], mask=of_account), pa.array(tape.symbols, pa.string())
    )
    return make_table(
        schema.GATE,
        tape.seq(rows),
        time_array(tape.ts(rows)),
        symbols,
        gate.numbers[holdings["account"]],
        schema.code_array(events["kind"].astype(np.int8), GateEvent),
        pa.array(np.ascontiguousarray(events["order_id"]).view("u8"), mask=~has_order),
        np.ascontiguousarray(events["qty"]),
        pa.array(np.ascontiguousarray(events["limit"]), mask=~struck),
        pa.array(np.ascontiguousarray(events["observed"]), mask=~struck),
    )


def with_touch(run: TapeRun) -> TapeRun:
    """The run, if it recorded the touch; else the same run again, recording it."""
    if run.touch is not None:
        return run
    return run_tape(run.tape, touch=True, manager=run.gate_before())


def l1_table(run: TapeRun) -> pa.Table:
    """The touch after each command that changed it, of a run that recorded it."""
    assert run.touch is not None
    tape, count = run.tape, len(run.touch)
    longs, books, empty = memory.empty_together(
        ((8, count), np.int64), (count, np.int32), ((2, count), np.bool_)
    )
    tables.expand_touch(run.touch, tape.grid, rows_of(tape), longs, books, empty)

    def side(index: int) -> list[pa.Array]:
        start = tables.TOUCH_COLUMNS_FROM + tables.TOUCH_COLUMNS * index
        price, lots, orders = longs[start : start + tables.TOUCH_COLUMNS]
        none = empty[index]  # a mask costs a pass, so there is none where no price is missing
        return [pa.array(price, mask=none if none.any() else None), pa.array(lots), pa.array(orders)]

    times, symbols = time_array(longs[tables.TS]), symbol_array(tape.symbols, books)
    return make_table(schema.L1, longs[tables.SEQ], times, symbols, *side(0), *side(1))


def depth_table(run: TapeRun, levels: int) -> pa.Table:
    """The best levels after each command that changed them."""
    tape = run.tape
    rows, books, values = run_depth(tape, levels, run.gate_before())
    grid_base = tape.grid.bases[books][:, None]

    def lists(column: int) -> pa.Array:
        entries = values[column]
        if column % 3 == 0:  # of (level, lots, orders) a side: a level becomes its price
            book = np.broadcast_to(books[:, None], entries.shape)
            prices = level_prices(tape.grid, book, np.maximum(entries, grid_base))
            entries = np.where(entries < 0, UNDEF_PRICE, prices)
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(entries).ravel()), levels)

    return make_table(
        schema.depth(levels),
        tape.seq(rows),
        time_array(tape.ts(rows)),
        symbol_array(tape.symbols, books),
        *(lists(column) for column in range(6)),
    )


def anomalies_table(run: TapeRun) -> pa.Table:
    """Rows that were refused, and ends of events that left the book crossed, in input order."""
    tape = run.tape
    rejected = np.flatnonzero(run.outcomes >= REJECTED)
    rows = _crossed_rows(run)
    if tape.checked.ends.size:  # inside an event a book may be crossed for a moment
        rows = rows[tape.checked.ends[rows]]
    kinds = np.append(run.outcomes[rejected] - REJECTED, np.full(rows.size, int(Anomaly["CROSSED"])))
    rows = np.append(run.order[rejected] if run.order.size else rejected, rows)
    order = np.argsort(rows, kind="stable")
    rows, kinds = rows[order], kinds[order].astype(np.int8)
    return make_table(
        schema.ANOMALIES,
        tape.seq(rows),
        time_array(tape.ts(rows)),
        symbol_array(tape.symbols, _cells(tape.checked.columns.book, rows)),
        schema.code_array(kinds, Anomaly),
    )


def _crossed_rows(run: TapeRun) -> np.ndarray:
    """Input rows that left their book crossed or locked."""
    tape = run.tape
    if run.gate is None:
        return tape.input_rows(np.flatnonzero(run_states(tape)[1].places & CROSSED))
    # a gate cancels orders on its own, so the states kernel can't be used: it knows commands only
    touch = with_touch(run).touch
    assert touch is not None
    row, bid, ask, book = touch[:, [TOUCH_ROW, TOUCH_LEVEL, TOUCH_LEVEL + 1, TOUCH_BOOK]].T
    base, size = tape.grid.bases[book], tape.grid.sizes[book]
    both = (bid >= base) & (ask >= base + size)
    crossed = both & (bid + ask >= 2 * (base + size) - 1)  # levels of asks are mirrored
    order = np.lexsort((np.arange(row.size), row, book))
    # a row inherits the touch of its book's last change at or before it
    rows, books = np.arange(tape.rows), _cells(tape.checked.columns.book, np.arange(tape.rows))
    keys = book[order] * tape.rows + row[order]
    latest = np.searchsorted(keys, books.astype(np.int64) * tape.rows + rows, side="right") - 1
    there = (latest >= 0) & (book[order][np.maximum(latest, 0)] == books)
    return rows[there & crossed[order][np.maximum(latest, 0)]] if row.size else rows[:0]
