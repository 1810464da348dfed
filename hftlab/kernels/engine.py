"""The one transition function, `step`, and the loop over it, `run`.

A batch is the single case in a loop, so batch and event by event cannot disagree.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels import ops
from hftlab.kernels.compile import helper, kernel
from hftlab.kernels.ladder import BASE, BEST, SIZE, bare_books
from hftlab.kernels.machine import prefetch, bare
from hftlab.kernels.matching import CANCELLED, add, reduce, remove_all, replace

LOOKAHEAD = 8  # commands; the future of a batch is known


class Commands(NamedTuple):
    """A compiled tape as the kernel sees it; all read-only."""

    rows: np.ndarray  # COMMAND [n]
    order: np.ndarray  # int32 [n]: input row of each, or [0] where that is the position
    targets: np.ndarray  # int32 [n]: slot of a REPLACE's new id, or [0] where ids never change
    accounts: np.ndarray  # int32 [input rows], or [0] where there are none


class Outputs(NamedTuple):
    """What a run writes: one outcome per input row, fills, and (where asked for) changes of the touch."""

    fills: np.ndarray  # FILL [capacity]
    outcomes: np.ndarray  # uint8 [input rows]: see ops.py
    filled: np.ndarray  # [input rows] lots
    leaves: np.ndarray  # [input rows] lots
    touch: np.ndarray  # int64 [TOUCH_WIDTH, rows], or [TOUCH_WIDTH, 0] when not recorded
    last_touch: np.ndarray  # int64 [books, TOUCH_WIDTH]


@helper
def bare_commands(commands):
    """The same tape without reference counts (see machine.py)."""
    return Commands(
        bare(commands.rows), bare(commands.order), bare(commands.targets), bare(commands.accounts)
    )


@helper
def bare_outputs(outputs):
    """The same buffers without reference counts (see machine.py)."""
    return Outputs(
        bare(outputs.fills),
        bare(outputs.outcomes),
        bare(outputs.filled),
        bare(outputs.leaves),
        bare(outputs.touch),
        bare(outputs.last_touch),
    )


TOUCH_ROW, TOUCH_LEVEL, TOUCH_QTY, TOUCH_COUNT = 0, 1, 3, 5  # + side
TOUCH_WIDTH = 7


@helper
def step(books, fills, count, row, op, slot, target, level, qty, account):
    """Apply one command; returns (outcome, filled, leaves, count of fills written)."""
    kind = (op >> ops.KIND_SHIFT) & ops.KIND_MASK
    book = np.int64(op >> ops.BOOK_SHIFT)
    if kind == ops.ADD:
        return add(books, fills, count, row, book, op, slot, level, qty, account)
    if kind == ops.REDUCE:
        return reduce(books, count, book, slot, qty)
    if kind == ops.REPLACE:
        return replace(books, fills, count, row, book, op, slot, target, level, qty)
    if kind == ops.INVALID:
        return ops.REJECTED + qty, np.int64(0), np.int64(0), count
    remove_all(books, book, account, kind == ops.CLEAR)
    return CANCELLED, np.int64(0), np.int64(0), count


@helper
def note_touch(books, outputs, book, row, count):
    """Write the touch of a book if it changed; returns how many have been written."""
    last = outputs.last_touch
    changed = False
    for side in range(2):
        level = np.int64(books.heads[book, BEST + side])
        qty, orders = np.int64(0), np.int64(0)
        if level >= books.heads[book, BASE] + side * books.heads[book, SIZE]:
            qty, orders = books.levels[level]["qty"], np.int64(books.levels[level]["count"])
        if (
            level != last[book, TOUCH_LEVEL + side]
            or qty != last[book, TOUCH_QTY + side]
            or orders != last[book, TOUCH_COUNT + side]
        ):
            changed = True
            last[book, TOUCH_LEVEL + side] = level
            last[book, TOUCH_QTY + side] = qty
            last[book, TOUCH_COUNT + side] = orders
    if changed:
        outputs.touch[TOUCH_ROW, count] = row
        for column in range(1, TOUCH_WIDTH):
            outputs.touch[column, count] = last[book, column]
        count += 1
    return count


@helper
def look_ahead(books, rows, position):
    """Bring what a coming command will touch into the cache."""
    if position < rows.size:
        prefetch(books.orders, np.int64(rows[position]["slot"]))


@kernel
def run(books, commands, outputs, start, stop):
    """Apply commands [start, stop); returns (fills written, touches written)."""
    books, commands, outputs = bare_books(books), bare_commands(commands), bare_outputs(outputs)
    rows, fills = commands.rows, outputs.fills
    count, touches = np.int64(0), np.int64(0)
    account = np.int64(0)
    for position in range(start, stop):
        look_ahead(books, rows, position + LOOKAHEAD)
        op = np.int64(rows[position]["op"])
        slot = np.int64(rows[position]["slot"])
        row = np.int64(commands.order[position]) if commands.order.size else np.int64(position)
        target = np.int64(commands.targets[position]) if commands.targets.size else slot
        if commands.accounts.size:
            account = np.int64(commands.accounts[row])
        outcome, filled, leaves, count = step(
            books,
            fills,
            count,
            row,
            op,
            slot,
            target,
            np.int64(rows[position]["level"]),
            np.int64(rows[position]["qty"]),
            account,
        )
        outputs.outcomes[row] = outcome
        outputs.filled[row] = filled
        outputs.leaves[row] = leaves
        if outputs.touch.size:
            touches = note_touch(books, outputs, np.int64(op >> ops.BOOK_SHIFT), row, touches)
    return count, touches
