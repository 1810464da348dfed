"""The one transition function, `step`, and the loop over it, `run`.

A batch is the single case in a loop, so batch and event by event cannot disagree.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels import ops
from hftlab.kernels.bits import NONE, previous_bit
from hftlab.kernels.compile import helper, kernel
from hftlab.kernels.ladder import BASE, BEST, SIZE, bare_books
from hftlab.kernels.machine import bare, ix, prefetch
from hftlab.kernels.matching import APPLIED, CANCELLED, NO_EFFECT, add, reduce, remove_all, replace

LOOKAHEAD = 8  # commands; the future of a batch is known


class Commands(NamedTuple):
    """A compiled tape as the kernel sees it; all read-only."""

    rows: np.ndarray  # COMMAND [n]
    order: np.ndarray  # int32 [n]: input row of each, or [0] where that is the position
    targets: np.ndarray  # int32 [n]: node of a REPLACE's new id, or [0] where ids never change
    accounts: np.ndarray  # int32 [input rows], or [0] where there are none


class Outputs(NamedTuple):
    """What a run writes: an outcome per position, fills, and (where asked for) changes of the touch."""

    fills: np.ndarray  # FILL [capacity]
    outcomes: np.ndarray  # uint8 [n]: see ops.py
    filled: np.ndarray  # [n] lots
    leaves: np.ndarray  # [n] lots
    touch: np.ndarray  # int64 [rows, TOUCH_WIDTH], or [0, TOUCH_WIDTH] when not recorded
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
def step(books, fills, count, row, op, slot, target, level, qty, entry, account):
    """Apply one command; returns (outcome, filled, leaves, count of fills written)."""
    kind = (op >> ops.KIND_SHIFT) & ops.KIND_MASK
    book = np.int64(op >> ops.BOOK_SHIFT)
    if kind == ops.ADD:
        return add(books, fills, count, row, book, op, slot, level, qty, entry, account)
    if kind == ops.REDUCE:
        return reduce(books, count, book, slot, qty)
    if kind == ops.REPLACE:
        return replace(books, fills, count, row, book, op, slot, target, level, qty, entry)
    if kind == ops.INVALID:
        return ops.REJECTED + qty, np.int64(0), np.int64(0), count
    if kind == ops.NOTHING:
        return NO_EFFECT, np.int64(0), np.int64(0), count
    if kind == ops.CONTROL:
        return APPLIED, np.int64(0), np.int64(0), count
    remove_all(books, book, account, kind == ops.CLEAR)
    return CANCELLED, np.int64(0), np.int64(0), count


@helper
def touch_of(books, book, side):
    """(level, lots, orders) of the best level of a side; of an empty side the level is none of its own."""
    level = np.int64(books.heads[ix(book), BEST + side])
    there = np.int64(level >= books.heads[ix(book), BASE] + side * books.heads[ix(book), SIZE])
    best = books.levels[ix(level & -there)]
    return level, best["qty"] & -there, np.int64(best["count"]) & -there


@helper
def note_touch(books, outputs, book, row, count):
    """Write the touch of a book if it changed; returns how many have been written.

    One question for all six values: each on its own would be a branch.
    """
    last = outputs.last_touch
    bid, bid_qty, bids = touch_of(books, book, 0)
    ask, ask_qty, asks = touch_of(books, book, 1)
    place = ix(book)
    changed = (bid ^ last[place, 1]) | (ask ^ last[place, 2]) | (bid_qty ^ last[place, 3])
    changed |= (ask_qty ^ last[place, 4]) | (bids ^ last[place, 5]) | (asks ^ last[place, 6])
    if changed:
        last[place, 1], last[place, 2], last[place, 3] = bid, ask, bid_qty
        last[place, 4], last[place, 5], last[place, 6] = ask_qty, bids, asks
        outputs.touch[ix(count), TOUCH_ROW] = row
        for column in range(1, TOUCH_WIDTH):
            outputs.touch[ix(count), ix(column)] = last[place, ix(column)]
        count += 1
    return count


@helper
def look_ahead(books, rows, position):
    """Bring what a coming command will touch into the cache."""
    if position < rows.size:
        prefetch(books.orders, np.int64(rows[ix(position)]["slot"]))


@helper
def play(books, commands, outputs, position, count):
    """Apply the command at a position and write its outcome; returns (book, fills written)."""
    look_ahead(books, commands.rows, position + LOOKAHEAD)
    place = ix(position)
    command = commands.rows[place]
    op = np.int64(command["op"])
    slot = np.int64(command["slot"])
    account = np.int64(0)
    if commands.accounts.size:
        row = np.int64(commands.order[place]) if commands.order.size else position
        account = np.int64(commands.accounts[ix(row)])
    outcome, filled, leaves, count = step(
        books,
        outputs.fills,
        count,
        position,
        op,
        slot,
        np.int64(commands.targets[place]) if commands.targets.size else slot,
        np.int64(command["level"]),
        np.int64(command["qty"]),
        position,
        account,
    )
    outputs.outcomes[place] = outcome
    outputs.filled[place] = filled
    outputs.leaves[place] = leaves
    return op >> ops.BOOK_SHIFT, count


@kernel
def run(books, commands, outputs, start, stop):
    """Apply commands [start, stop); returns (fills written, touches written)."""
    books, commands, outputs = bare_books(books), bare_commands(commands), bare_outputs(outputs)
    count, touches = np.int64(0), np.int64(0)
    for position in range(start, stop):
        book, count = play(books, commands, outputs, np.int64(position), count)
        if outputs.touch.size:
            touches = note_touch(books, outputs, book, position, touches)
    return count, touches


@kernel
def start_touch(books, last):
    """Take the touch as it stands before the first command, so that it isn't a change."""
    books, last = bare_books(books), bare(last)
    for book in range(last.shape[0]):
        for side in range(2):
            level = np.int64(books.heads[book, BEST + side])
            last[book, TOUCH_LEVEL + side] = level
            if level >= 0:
                last[book, TOUCH_QTY + side] = books.levels[level]["qty"]
                last[book, TOUCH_COUNT + side] = books.levels[level]["count"]


@helper
def note_depth(books, book, last, values, count):
    """Write the best levels of a book at `count` if they changed; returns whether they did.

    `last` is [books, 6, n], `values` [6, rows, n]: level, lots, orders of bids, then of asks.
    """
    changed = False
    for side in range(2):
        bottom = books.heads[book, BASE] + side * books.heads[book, SIZE]
        level = np.int64(books.heads[book, BEST + side])
        for rank in range(last.shape[2]):
            qty, orders = np.int64(0), np.int64(0)
            if level < bottom:
                level = np.int64(NONE)
            else:
                qty, orders = books.levels[level]["qty"], np.int64(books.levels[level]["count"])
            column = 3 * side
            if (
                last[book, column, rank] != level
                or last[book, column + 1, rank] != qty
                or last[book, column + 2, rank] != orders
            ):
                changed = True
                last[book, column, rank] = level
                last[book, column + 1, rank] = qty
                last[book, column + 2, rank] = orders
            if level >= 0:
                level = np.int64(previous_bit(books.bitmap, level))
    if changed:
        for column in range(6):
            for rank in range(last.shape[2]):
                values[column, count, rank] = last[book, column, rank]
    return changed


@kernel
def run_depth(books, commands, outputs, start, stop, last, changes, values):
    """`run` that also writes the best levels after each command that changed them.

    `changes` [rows] takes the positions; returns (fills written, changes written). With start = stop
    it only takes the depth as it stands.
    """
    books, commands, outputs = bare_books(books), bare_commands(commands), bare_outputs(outputs)
    last, changes, values = bare(last), bare(changes), bare(values)
    fills, count = np.int64(0), np.int64(0)
    if start == stop:
        for book in range(last.shape[0]):
            note_depth(books, book, last, values, 0)
    for position in range(start, stop):
        book, fills = play(books, commands, outputs, np.int64(position), fills)
        if note_depth(books, book, last, values, count):
            changes[count] = position
            count += 1
    return fills, count
