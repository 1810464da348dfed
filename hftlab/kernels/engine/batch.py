"""The one transition function, `step`, and the loop over it, `run`.

A batch is the single case in a loop, so batch and event by event cannot disagree.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels.book import opcodes
from hftlab.kernels.book.commands import Command, bare_commands
from hftlab.kernels.book.ladder import ASK, BASE, BEST, BID, SIZE, bare_books
from hftlab.kernels.book.price_grid import bare_grid
from hftlab.kernels.book.touch import (
    TOUCH_BOOK,
    TOUCH_COUNT,
    TOUCH_LEVEL,
    TOUCH_QTY,
    TOUCH_ROW,
    TOUCH_WIDTH,
    touch_of,
)
from hftlab.kernels.codes import APPLIED, CANCELLED, NO_EFFECT
from hftlab.kernels.matching.price_time import add, reduce, remove_all, replace
from hftlab.kernels.matching.stop_loss import control, has_room, is_marking, mark, reaches_all
from hftlab.kernels.primitives.bitmap import NONE, previous_bit
from hftlab.kernels.primitives.compile import helper, kernel, unless_none
from hftlab.kernels.primitives.intrinsics import (
    ORDERS_AHEAD,
    ZERO,
    bare,
    bare_rows,
    choose,
    ix,
    likely,
    prefetch,
)
from hftlab.kernels.risk_gate.gate import EVENTS, bare_gate

# values of a rank of one side of the depth; the columns are those of bids, then those of asks
DEPTH_LEVEL, DEPTH_QTY, DEPTH_COUNT, DEPTH_WIDTH = range(4)
CHANGE_INDEX, CHANGE_BOOK = 0, 1  # rows of its changes

CACHED_ORDERS = 1 << 17  # (2 MB) so many stay in the cache, and their neighbours need no prefetch


class Outputs(NamedTuple):
    """What a run writes: an outcome per command, fills, and (where asked for) changes of the touch."""

    fills: np.ndarray  # FILL [capacity]
    outcomes: np.ndarray  # uint8 [n]: see opcodes.py
    filled: np.ndarray  # [n] lots
    leaves: np.ndarray  # [n] lots
    touch: np.ndarray  # int64 [rows, TOUCH_WIDTH], or [0, TOUCH_WIDTH] when not recorded
    last_touch: np.ndarray  # int64 [books, TOUCH_WIDTH]


@helper
def bare_outputs(outputs):
    """The same buffers without reference counts (see intrinsics.py)."""
    return Outputs(
        bare(outputs.fills),
        bare(outputs.outcomes),
        bare(outputs.filled),
        bare(outputs.leaves),
        bare_rows(outputs.touch, TOUCH_WIDTH),
        bare_rows(outputs.last_touch, TOUCH_WIDTH),
    )


@helper
def step(books, grid, gate, fills, count, command, stamps):
    """Apply one command; returns (outcome, filled, leaves, count of fills written).

    `gate` is None where there is none, `stamps` where no stages are measured.
    """
    kind = (command.op >> opcodes.KIND_SHIFT) & opcodes.KIND_MASK
    if likely(kind == opcodes.ADD):
        return add(books, grid, gate, fills, count, command, stamps)
    if likely(kind == opcodes.REDUCE):
        return reduce(books, grid, gate, count, command)
    if kind == opcodes.REPLACE:
        return replace(books, grid, gate, fills, count, command, stamps)
    if kind == opcodes.INVALID:
        return opcodes.REJECTED + command.qty, ZERO, ZERO, count
    if kind == opcodes.NOTHING:
        return NO_EFFECT, ZERO, ZERO, count
    if kind == opcodes.CONTROL:
        if gate is not None:
            control(books, grid, gate, command)
        return APPLIED, ZERO, ZERO, count
    remove_all(books, grid, gate, command.book, command.account, kind == opcodes.CLEAR)
    return CANCELLED, ZERO, ZERO, count


@helper
def note_touch(books, outputs, book, row, count):
    """Write the touch of a book if it changed; returns how many have been written.

    One question for all six values: each on its own would be a branch.
    """
    last = outputs.last_touch
    bid, bid_qty, bids = touch_of(books, book, BID)
    ask, ask_qty, asks = touch_of(books, book, ASK)
    place = ix(book)
    changed = (bid ^ last[place, TOUCH_LEVEL + BID]) | (ask ^ last[place, TOUCH_LEVEL + ASK])
    changed |= (bid_qty ^ last[place, TOUCH_QTY + BID]) | (ask_qty ^ last[place, TOUCH_QTY + ASK])
    changed |= (bids ^ last[place, TOUCH_COUNT + BID]) | (asks ^ last[place, TOUCH_COUNT + ASK])
    if changed:
        last[place, TOUCH_LEVEL + BID], last[place, TOUCH_LEVEL + ASK] = bid, ask
        last[place, TOUCH_QTY + BID], last[place, TOUCH_QTY + ASK] = bid_qty, ask_qty
        last[place, TOUCH_COUNT + BID], last[place, TOUCH_COUNT + ASK] = bids, asks
        outputs.touch[ix(count), TOUCH_ROW] = row
        for column in range(TOUCH_LEVEL, TOUCH_BOOK):
            outputs.touch[ix(count), ix(column)] = last[place, ix(column)]
        outputs.touch[ix(count), TOUCH_BOOK] = book
        count += 1
    return count


@helper
def look_ahead(books, rows, index):
    """Bring what coming commands will touch into the cache: first their orders, then where those lead.

    The second step pays where the books don't fit the second-level cache.
    """
    if index + 2 * ORDERS_AHEAD < rows.size:
        prefetch(books.orders, np.int64(rows[ix(index + 2 * ORDERS_AHEAD)]["slot"]))
        if books.orders.size > CACHED_ORDERS:
            row = rows[ix(index + ORDERS_AHEAD)]
            leaving = (np.int64(row["op"]) >> opcodes.KIND_SHIFT) & opcodes.KIND_MASK != opcodes.ADD
            order, level = books.orders[ix(row["slot"])], np.int64(row["level"])
            prefetch(books.orders, choose(leaving, np.int64(order["prev"]), level))
            prefetch(books.orders, choose(leaving, np.int64(order["next"]), level))
            prefetch(books.levels, choose(leaving, np.int64(order["level"]), level))


@helper
def look_ahead_for_gate(gate, rows, index):
    """Bring the holdings of a coming command, its sender's and its order's owner's, into the cache."""
    if index + 2 * ORDERS_AHEAD < rows.size:
        prefetch(gate.order_holdings, np.int64(rows[ix(index + 2 * ORDERS_AHEAD)]["slot"]))
        ahead = ix(index + ORDERS_AHEAD)
        prefetch(gate.holdings, np.int64(gate.row_holdings[ahead]))
        prefetch(gate.holdings, np.int64(gate.order_holdings[ix(rows[ahead]["slot"])]))


@helper
def command_at(gate, commands, index):
    """The command at an index of a tape."""
    place = ix(index)
    command = commands.rows[place]
    op, order_slot, account = np.int64(command["op"]), np.int64(command["slot"]), ZERO
    if commands.accounts.size:
        row = np.int64(commands.order[place]) if commands.order.size else index
        account = np.int64(commands.accounts[ix(row)])
    holding, row_reason = ZERO, ZERO
    if gate is not None:
        holding, row_reason = np.int64(gate.row_holdings[place]), np.int64(gate.row_reasons[place])
    return Command(
        index,
        op >> opcodes.BOOK_SHIFT,
        op,
        order_slot,
        np.int64(commands.targets[place]) if commands.targets.size else order_slot,
        np.int64(command["level"]),
        np.int64(command["qty"]),
        index,
        account,
        holding,
        row_reason,
    )


@helper
def play(books, grid, gate, commands, outputs, index, count):
    """Apply the command at an index and write its outcome; returns (book, fills written)."""
    look_ahead(books, commands.rows, index)
    if gate is not None:
        look_ahead_for_gate(gate, commands.rows, index)
    place = ix(index)
    command = command_at(gate, commands, index)
    outcome, filled, leaves, count = step(books, grid, gate, outputs.fills, count, command, None)
    outputs.outcomes[place] = outcome
    outputs.filled[place] = filled
    outputs.leaves[place] = leaves
    return command.book, count


@helper
def is_everywhere(rows, index):
    """Whether the command at an index may change every book."""
    op = np.int64(rows[ix(index)]["op"])
    return (op >> opcodes.KIND_SHIFT) & opcodes.KIND_MASK == opcodes.CONTROL and reaches_all(
        np.int64(rows[ix(index)]["qty"])
    )


@helper
def note_touches(books, gate, outputs, row, count):
    """`note_touch` for every book, by name, after what may have changed them all."""
    for i in range(gate.names.size):
        count = note_touch(books, outputs, np.int64(gate.names[ix(i)]), row, count)
    return count


@unless_none
def bare_visit(visit):
    """The same places without a reference count (see intrinsics.py); None stays None."""
    return bare(visit)


@helper
def loop(books, grid, gate, commands, outputs, start, stop, visit):
    """`run`, with everything bare."""
    count, touches = ZERO, ZERO
    for nth in range(start, stop):
        index = np.int64(nth)
        if visit is not None:
            index = np.int64(visit[ix(nth)])
        # positions are marked before the command; what stops do then may be in any book
        everywhere = False
        if gate is not None:
            everywhere = is_everywhere(commands.rows, index)
            if is_marking(gate, index):
                if not has_room(gate):
                    return nth - start, count, touches
                happened = gate.counts[EVENTS]
                count = mark(books, grid, gate, outputs.fills, count, index)
                everywhere |= gate.counts[EVENTS] != happened
        book, count = play(books, grid, gate, commands, outputs, index, count)
        if outputs.touch.size:
            if gate is not None and everywhere:
                touches = note_touches(books, gate, outputs, index, touches)
            else:
                touches = note_touch(books, outputs, book, index, touches)
    return stop - start, count, touches


@kernel
def run(books, grid, gate, commands, outputs, start, stop, visit):
    """Apply commands [start, stop); returns (commands applied, fills written, touches written).

    `gate` is None for a run without one. A run with one stops before a command when the room for what the
    gate does by itself gets short. `visit` is None, or the indices to visit one after the other: start and
    stop then count those.
    """
    return loop(
        bare_books(books),
        bare_grid(grid),
        bare_gate(gate),
        bare_commands(commands),
        bare_outputs(outputs),
        start,
        stop,
        bare_visit(visit),
    )


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
            # past the last level of the side there is nothing: the bitmap may have found another's below
            qty, orders = ZERO, ZERO
            if level < bottom:
                level = np.int64(NONE)
            else:
                qty, orders = books.levels[level]["qty"], np.int64(books.levels[level]["count"])
            column = DEPTH_WIDTH * side
            if (
                last[book, column + DEPTH_LEVEL, rank] != level
                or last[book, column + DEPTH_QTY, rank] != qty
                or last[book, column + DEPTH_COUNT, rank] != orders
            ):
                changed = True
                last[book, column + DEPTH_LEVEL, rank] = level
                last[book, column + DEPTH_QTY, rank] = qty
                last[book, column + DEPTH_COUNT, rank] = orders
            if level >= 0:
                level = np.int64(previous_bit(books.bitmap, level))
    # a change is written whole, so that each row of the table stands for itself
    if changed:
        for column in range(2 * DEPTH_WIDTH):
            for rank in range(last.shape[2]):
                values[column, count, rank] = last[book, column, rank]
    return changed


@helper
def note_change(books, book, index, last, changes, values, count):
    """`note_depth`, and where; returns how many changes have been written."""
    if note_depth(books, book, last, values, count):
        changes[CHANGE_INDEX, count], changes[CHANGE_BOOK, count] = index, book
        count += 1
    return count


@helper
def depth_loop(books, grid, gate, commands, outputs, start, stop, visit, last, changes, values):
    """`run_depth`, with everything bare."""
    fills, count, all_books = ZERO, ZERO, last.shape[0]
    # the depth as it stands is no change: it is only taken note of
    if start == stop:
        for book in range(all_books):
            note_depth(books, book, last, values, 0)
    for nth in range(start, stop):
        index = np.int64(nth)
        if visit is not None:
            index = np.int64(visit[ix(nth)])
        # one command, or the marking before it, may change every book
        if count + all_books >= changes.shape[1]:
            return nth - start, fills, count
        everywhere = False
        if gate is not None:
            everywhere = is_everywhere(commands.rows, index)
            if is_marking(gate, index):
                if not has_room(gate):
                    return nth - start, fills, count
                happened = gate.counts[EVENTS]
                fills = mark(books, grid, gate, outputs.fills, fills, index)
                everywhere |= gate.counts[EVENTS] != happened
        book, fills = play(books, grid, gate, commands, outputs, index, fills)
        if gate is not None and everywhere:
            for i in range(all_books):
                each = np.int64(gate.names[ix(i)])
                count = note_change(books, each, index, last, changes, values, count)
        else:
            count = note_change(books, book, index, last, changes, values, count)
    return stop - start, fills, count


@kernel
def run_depth(books, grid, gate, commands, outputs, start, stop, visit, last, changes, values):
    """`run` that also writes the best levels after each command that changed them.

    `changes` [2, rows] takes indices and books; returns (commands applied, fills written, changes written).
    It stops early when the room for changes, or for what the gate does by itself, gets short. With
    start = stop it takes the depth as it stands. `visit` is as for `run`.
    """
    return depth_loop(
        bare_books(books),
        bare_grid(grid),
        bare_gate(gate),
        bare_commands(commands),
        bare_outputs(outputs),
        start,
        stop,
        bare_visit(visit),
        bare(last),
        bare(changes),
        bare(values),
    )
