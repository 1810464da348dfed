"""What the books looked like around each command: for certificates and for inference, not for speed.

The loop of `engine.run` with two looks more: before each command, where its order stands in the queue;
after it, a hash of the touch and of the best levels, so that the books of two runs can be compared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels import ops
from hftlab.kernels.bits import NONE, previous_bit
from hftlab.kernels.compile import helper, kernel
from hftlab.kernels.engine import bare_commands, bare_outputs, play
from hftlab.kernels.ladder import BASE, BEST, MIRROR, SIZE, bare_books, level_of, side_of
from hftlab.kernels.machine import bare, ix
from hftlab.kernels.matching import crosses
from hftlab.kernels.outputs import finish, mix
from hftlab.kernels.price_grid import bare_grid, level_price

OPEN = 1  # the order named is open before the command
BEST_LEVEL = 2  # its level is the best of its side
OLDEST = 4  # it is the first of its level's queue
BEHIND_MODIFIED = 8  # the first of its level's queue was replaced since it was added
CROSSES = 16  # what is added or replaced would trade with what rests opposite
CROSSED = 32  # after the command the best bid is at or above the best ask


class States(NamedTuple):
    """What `run_states` writes, by position; the hashes have length 0 where no levels are asked for."""

    places: np.ndarray  # uint8: the bits above
    touch: np.ndarray  # int64: hash of price, lots and orders of both best levels
    depth: np.ndarray  # int64: the same over the best levels asked for
    modified: np.ndarray  # bool [nodes]: scratch


@helper
def place_of(books, modified, command, target):
    """Where the order of a command stands before it."""
    op, slot = np.int64(command["op"]), np.int64(command["slot"])
    kind, book = (op >> ops.KIND_SHIFT) & ops.KIND_MASK, op >> ops.BOOK_SHIFT
    if kind == ops.ADD:
        modified[ix(slot)] = False
        return CROSSES if crosses(books, book, op & ops.SELL, np.int64(command["level"])) else 0
    if kind not in (ops.REDUCE, ops.REPLACE) or books.orders[ix(slot)]["qty"] == 0:
        return 0
    level = np.int64(books.orders[ix(slot)]["level"])
    side = side_of(books, book, level)
    first = np.int64(books.orders[ix(level)]["next"])
    place = OPEN
    if books.heads[ix(book), BEST + side] == level:
        place |= BEST_LEVEL
    if first == slot:
        place |= OLDEST
    elif modified[ix(first)]:
        place |= BEHIND_MODIFIED
    if kind == ops.REPLACE:
        modified[ix(target)] = True
        if crosses(books, book, side, level_of(books, book, side, np.int64(command["level"]))):
            place |= CROSSES
    return place


@helper
def is_crossed(books, book):
    """Whether the best bid is at or above the best ask."""
    bid, ask = np.int64(books.heads[ix(book), BEST]), np.int64(books.heads[ix(book), BEST + 1])
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
        state = mix(state, np.int64(0))
    return finish(state)


@kernel
def run_states(books, grid, commands, outputs, levels, states, start, stop, count):
    """`engine.run` that also fills `states`; returns the fills written, `count` included."""
    books, grid, commands = bare_books(books), bare_grid(grid), bare_commands(commands)
    outputs = bare_outputs(outputs)
    places, modified = bare(states.places), bare(states.modified)
    touch, depth = bare(states.touch), bare(states.depth)
    for position in range(start, stop):
        at = ix(position)
        target = commands.targets[at] if commands.targets.size else commands.rows[at]["slot"]
        place = place_of(books, modified, commands.rows[at], np.int64(target))
        book, count = play(books, commands, outputs, np.int64(position), count)
        places[at] = place | (CROSSED if is_crossed(books, book) else 0)
        if levels > 0:
            touch[at] = hash_levels(books, grid, book, 1)
            depth[at] = hash_levels(books, grid, book, levels)
    return count
