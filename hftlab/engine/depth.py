"""A run of a tape for the depth of its books."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from hftlab.engine.speculation import is_tied
from hftlab.engine.workers import (
    empty_outputs,
    longer,
    open_gate,
    opened_books,
    places_by_row,
    positions_between,
    row_order,
)
from hftlab.kernels.engine import batch
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.tape import Tape

DEPTH_STEP = 1 << 14


def run_depth(
    tape: Tape, levels: int, manager: RiskManager | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run a tape for its depth: (input rows [changes], books [changes], values [6, changes, levels]).

    Values are level, lots and orders of the bids, then of the asks; a level of -1 is none.
    """
    books, outputs = opened_books(tape), empty_outputs(tape, tape.width)
    gate = open_gate(manager, tape, books)
    room = 2 * tape.incoming + tape.opening.count + (gate.own_room if gate is not None else 0)
    outputs = outputs._replace(fills=np.empty(room, outputs.fills.dtype))
    last = np.full((len(tape.symbols), 6, levels), -1, np.int64)
    last[:, [1, 2, 4, 5]] = 0
    room = DEPTH_STEP + 2 * len(tape.symbols)
    changes, values = np.empty((2, room), np.int64), np.empty((6, room, levels), np.int64)
    state = gate.gate if gate is not None else None
    visit, parts = None, list(pairwise(tape.parts.tolist()))
    if manager is not None and is_tied(tape, manager):
        visit = places_by_row(tape)
        state, parts = gate.in_order(visit, 0), [(0, tape.rows)]
    batch.run_depth(books, tape.grid, state, tape.commands, outputs, 0, 0, visit, last, changes, values)
    places, tables = [np.empty((2, 0), np.int64)], [np.empty((6, 0, levels), np.int64)]
    for first, end in gate.pieces() if gate is not None else [(0, tape.rows)]:
        if gate is not None:
            gate.look_at(first, end)
            state = gate.with_limits(state)
        for part in parts:
            start, last_of_part = (
                (first, end) if visit is not None else positions_between(tape, *part, first, end)
            )
            while start < last_of_part:
                stop = min(start + DEPTH_STEP, last_of_part)
                done, fills, count = batch.run_depth(
                    books, tape.grid, state, tape.commands, outputs, start, stop, visit, last, changes, values
                )
                start += done
                outputs = outputs._replace(fills=outputs.fills[fills:])
                if done == 0:
                    state, more = gate.make_room(state)
                    outputs = outputs._replace(fills=longer(outputs.fills, more))
                places.append(changes[:, :count].copy())
                tables.append(values[:, :count].copy())
    (found, book_of), table = np.concatenate(places, axis=1), np.concatenate(tables, axis=1)
    if tape.commands.order.size:
        found = tape.input_rows(found)
        order = row_order(found)
        found, book_of, table = found[order], book_of[order], np.ascontiguousarray(table[:, order])
    return found, book_of, table
