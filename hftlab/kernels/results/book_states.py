"""What the books looked like around each command: for certificates and for inference, not for speed.

`run_states` is the loop of `batch.run` that also notes what crosses, and hashes the touch and the best
levels after each command, so that the books of two runs can be compared. `run_queues` applies messages and
notes where each executed order stood. `follow_fills` tells which removals only report an execution.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.codes import MAX_QTY
from hftlab.kernels.book import opcodes
from hftlab.kernels.book.commands import bare_commands
from hftlab.kernels.book.ladder import ASK, BASE, BEST, BID, MIRROR, SIZE, bare_books, level_of, side_of
from hftlab.kernels.book.price_grid import bare_grid, level_price
from hftlab.kernels.codes import MBO_CANCEL, MBO_FILL
from hftlab.kernels.engine.batch import bare_outputs, play
from hftlab.kernels.matching.price_time import crosses
from hftlab.kernels.primitives.bitmap import NONE, previous_bit
from hftlab.kernels.primitives.compile import helper, kernel
from hftlab.kernels.primitives.intrinsics import ZERO, bare, ix
from hftlab.kernels.results.tables import finish, mix

CROSSES = 1  # of a command: what is added or replaced would trade with what rests opposite before it
CROSSED = 2  # of a command: after it the best bid is at or above the best ask
OPEN = 4  # of an execution: its order is open
BEST_LEVEL = 8  # its level is the best of its side
OLDEST = 16  # it is the first of its level's queue
BEHIND_MODIFIED = 32  # the first of its level's queue was replaced since it was added


class States(NamedTuple):
    """What `run_states` writes, by index; the hashes have length 0 where no levels are asked for."""

    places: np.ndarray  # uint8: CROSSES and CROSSED
    touch: np.ndarray  # int64: hash of price, lots and orders of both best levels
    depth: np.ndarray  # int64: the same over the best levels asked for


@helper
def would_cross(books, command):
    """Whether a command adds or replaces at a price that trades with what rests opposite."""
    op, order_slot, level = np.int64(command["op"]), np.int64(command["slot"]), np.int64(command["level"])
    kind, book = (op >> opcodes.KIND_SHIFT) & opcodes.KIND_MASK, op >> opcodes.BOOK_SHIFT
    if kind == opcodes.ADD:
        return crosses(books, book, op & opcodes.SELL, level)
    if kind != opcodes.REPLACE or books.orders[ix(order_slot)]["qty"] == 0:
        return False
    side = side_of(books, book, np.int64(books.orders[ix(order_slot)]["level"]))
    return crosses(books, book, side, level_of(books, book, side, level))


@helper
def is_crossed(books, book):
    """Whether the best bid is at or above the best ask."""
    bid, ask = np.int64(books.heads[ix(book), BEST + BID]), np.int64(books.heads[ix(book), BEST + ASK])
    return bid >= 0 and ask >= 0 and bid + ask >= books.heads[ix(book), MIRROR]


@helper
def hash_levels(books, grid, book, levels):
    """Hash of price, lots and orders of the best `levels` of both sides."""
    state = np.int64(1)
    for side in range(2):
        bottom = books.heads[ix(book), BASE] + side * books.heads[ix(book), SIZE]
        level = np.int64(books.heads[ix(book), BEST + side])
        for _ in range(levels):
            if level < bottom or level == NONE:
                break
            state = mix(state, np.int64(1))  # a level follows; without it bids could be read as asks
            state = mix(state, level_price(grid, book, level))
            state = mix(state, np.int64(books.levels[ix(level)]["qty"]))
            state = mix(state, np.int64(books.levels[ix(level)]["count"]))
            level = np.int64(previous_bit(books.bitmap, level))
        state = mix(state, ZERO)
    return finish(state)


@kernel
def run_states(books, grid, commands, outputs, levels, states, start, stop, count):
    """`batch.run` that also fills `states`; returns the fills written, `count` included."""
    books, grid, commands = bare_books(books), bare_grid(grid), bare_commands(commands)
    outputs = bare_outputs(outputs)
    places, touch, depth = bare(states.places), bare(states.touch), bare(states.depth)
    for index in range(start, stop):
        at = ix(index)
        place = CROSSES if would_cross(books, commands.rows[at]) else 0
        book, count = play(books, grid, None, commands, outputs, np.int64(index), count)
        places[at] = place | (CROSSED if is_crossed(books, book) else 0)
        if levels > 0:
            touch[at] = hash_levels(books, grid, book, 1)
            depth[at] = hash_levels(books, grid, book, levels)
    return count


@helper
def first_left(books, pending, level):
    """The oldest order of a level of which the executions so far have left something; the level if none."""
    order_slot = np.int64(books.orders[ix(level)]["next"])
    while order_slot != level and books.orders[ix(order_slot)]["qty"] <= pending[ix(order_slot)]:
        order_slot = np.int64(books.orders[ix(order_slot)]["next"])
    return order_slot


@helper
def execution_place(books, modified, pending, book, order_slot):
    """Where an executed order stands in its queue, without what has been executed before it."""
    level = np.int64(books.orders[ix(order_slot)]["level"])
    side = side_of(books, book, level)
    best = np.int64(books.heads[ix(book), BEST + side])
    while best > level and first_left(books, pending, best) == best:
        best = np.int64(previous_bit(books.bitmap, best))
    first = first_left(books, pending, level)
    place = OPEN
    if best == level:
        place |= BEST_LEVEL
    if first == order_slot:
        place |= OLDEST
    elif modified[ix(first)]:
        place |= BEHIND_MODIFIED
    return place


@helper
def reports_execution(books, pending, book, command):
    """Whether a replacement leaves its order as the executions before it do, and at its price."""
    if (np.int64(command["op"]) >> opcodes.KIND_SHIFT) & opcodes.KIND_MASK != opcodes.REPLACE:
        return False
    order_slot = np.int64(command["slot"])
    qty, executed_qty = np.int64(books.orders[ix(order_slot)]["qty"]), pending[ix(order_slot)]
    if qty == 0 or executed_qty == 0 or np.int64(command["qty"]) != qty - executed_qty:
        return False
    level = np.int64(books.orders[ix(order_slot)]["level"])
    return level == level_of(books, book, side_of(books, book, level), np.int64(command["level"]))


@kernel
def run_queues(books, commands, outputs, executed_qty, pending, modified, places):
    """Apply all messages but executions, which change nothing, and write where the order of each stands."""
    books, commands, outputs = bare_books(books), bare_commands(commands), bare_outputs(outputs)
    executed_qty, pending = bare(executed_qty), bare(pending)
    modified, places = bare(modified), bare(places)
    for index in range(commands.rows.size):
        at = ix(index)
        order_slot, qty = np.int64(commands.rows[at]["slot"]), np.int64(commands.rows[at]["qty"])
        op = np.int64(commands.rows[at]["op"])
        kind = (op >> opcodes.KIND_SHIFT) & opcodes.KIND_MASK
        if executed_qty[at] >= 0:
            if books.orders[ix(order_slot)]["qty"] != 0:
                places[at] = execution_place(books, modified, pending, op >> opcodes.BOOK_SHIFT, order_slot)
                pending[ix(order_slot)] += min(
                    executed_qty[at], books.orders[ix(order_slot)]["qty"] - pending[ix(order_slot)]
                )
            continue
        reports = reports_execution(books, pending, op >> opcodes.BOOK_SHIFT, commands.rows[at])
        play(books, None, None, commands, outputs, np.int64(index), ZERO)
        if outputs.outcomes[at] >= opcodes.REJECTED:
            continue
        if kind == opcodes.REDUCE:
            pending[ix(order_slot)] = max(pending[ix(order_slot)] - qty, ZERO)
        elif kind == opcodes.REPLACE:
            pending[ix(order_slot)], modified[ix(order_slot)] = 0, modified[ix(order_slot)] or not reports
        elif kind == opcodes.ADD:
            pending[ix(order_slot)], modified[ix(order_slot)] = 0, False


@kernel
def follow_fills(action, size, new, applied, filled):
    """What was filled of an order that no C or M has reported yet, before each fact that names one.

    The facts are order by order; `new` tells where the next begins, `applied` which facts the books took.
    What is executed of one order beyond 2^63 - 1 lots is left out.
    """
    action, size, new, applied, filled = bare(action), bare(size), bare(new), bare(applied), bare(filled)
    executed_qty = ZERO
    for row in range(action.size):
        at = ix(row)
        if new[at]:
            executed_qty = ZERO
        filled[at] = executed_qty
        if action[at] == MBO_FILL:
            executed_qty += min(max(size[at], ZERO), MAX_QTY - executed_qty)
        elif action[at] == MBO_CANCEL:
            executed_qty = max(executed_qty - max(size[at], ZERO), ZERO)
        elif applied[at]:
            executed_qty = ZERO
