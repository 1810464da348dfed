"""From what a run wrote to the columns of its tables, and to its digest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels.book.columns import bare_columns, value_at
from hftlab.kernels.book.opcodes import REJECTED
from hftlab.kernels.book.price_grid import bare_grid, book_of, level_price
from hftlab.kernels.book.touch import TOUCH_BOOK, TOUCH_COUNT, TOUCH_LEVEL, TOUCH_QTY, TOUCH_ROW
from hftlab.kernels.codes import REPLACE, STATUS_REJECTED
from hftlab.kernels.primitives.compile import helper, kernel
from hftlab.kernels.primitives.intrinsics import ZERO, bare, ix, prefetch

FILLS_AHEAD = 16  # fills whose rows are fetched early
LANES = 4  # counters side by side

# int64 columns of expanded fills
SEQ, TS, PRICE, QTY, TAKER, MAKER, TAKER_LEAVES, MAKER_LEAVES = range(8)
# of expanded changes of the touch: seq, time, and of each side TOUCH_COLUMNS from TOUCH_COLUMNS_FROM on
TOUCH_COLUMNS_FROM, TOUCH_COLUMNS = 2, 3
# int32 columns of expanded fills
SYMBOL, TAKER_ACCOUNT, MAKER_ACCOUNT = range(3)
TAKERS, MAKERS = 0, 1  # rows of what is known of both sides of fills
# halves of a digest's sums
LOW, HIGH = 0, 1


class Rows(NamedTuple):
    """What is known of the rows of a tape."""

    seq: np.ndarray  # int64 [rows], or [0]
    ts: np.ndarray  # int64 [rows], or [0]
    first: np.ndarray  # int64 [1]: seq and ts of row 0 where those are absent


@kernel
def expand_fills(fills, columns, grid, rows, maker_ids, longs, ints, sides, start, stop):
    """The fill records [start, stop), in input order, as columns; `maker_ids` is of those.

    A row of -1 - r is of an order that the risk gate sent before row r: it has no id.
    """
    fills, columns, grid = bare(fills), bare_columns(columns), bare_grid(grid)
    seqs, times, first, maker_ids = bare(rows.seq), bare(rows.ts), rows.first[0], bare(maker_ids)
    longs, ints, sides = bare(longs), bare(ints), bare(sides)
    for i in range(start, stop):
        # fills are far apart in the table: what a coming one needs of it is fetched early
        place = ix(i)
        ahead = np.int64(fills[ix(min(i + FILLS_AHEAD, sides.size - 1))]["row"])
        ahead = max(ahead, -1 - ahead)
        prefetch(columns.order_id, ahead)
        if times.size:
            prefetch(times, ahead)
        # an order of the gate names no row of its own: its book is that of the level, and it has no id
        row, level = np.int64(fills[place]["row"]), np.int64(fills[place]["level"])
        own = row < 0
        row = -1 - row if own else row
        book = book_of(grid, level) if own else value_at(columns.book, row)
        maker_is_bid = level < grid.bases[book] + grid.sizes[book]
        # the taker is known by the id its order has afterwards
        taker = columns.order_id[ix(row)]
        if columns.new_order_id.size and columns.action[ix(row)] == REPLACE:
            taker = columns.new_order_id[ix(row)]
        if own:
            taker = ZERO
        longs[SEQ, place] = seqs[ix(row)] if seqs.size else first + row
        longs[TS, place] = times[ix(row)] if times.size else first + row
        longs[PRICE, place] = level_price(grid, book, level)
        longs[QTY, place] = fills[place]["qty"]
        longs[TAKER, place] = taker
        longs[MAKER, place] = maker_ids[ix(i - start)]
        longs[TAKER_LEAVES, place] = fills[place]["taker_leaves"]
        longs[MAKER_LEAVES, place] = fills[place]["maker_leaves"]
        ints[SYMBOL, place] = book
        ints[TAKER_ACCOUNT, place] = fills[place]["taker_account"]
        ints[MAKER_ACCOUNT, place] = fills[place]["maker_account"]
        sides[place] = -1 if maker_is_bid else 1


@kernel
def expand_touch(touch, grid, rows, longs, books, empty):
    """Changes of the touch, in input order, as columns.

    `longs` [8, n] gets seq, time, and price, lots, orders of either side; `empty` [2, n] whether a side has
    no price.
    """
    touch, grid = bare(touch), bare_grid(grid)
    seqs, times, first = bare(rows.seq), bare(rows.ts), rows.first[0]
    longs, books, empty = bare(longs), bare(books), bare(empty)
    for i in range(books.size):
        row = touch[i, TOUCH_ROW]
        book = touch[i, TOUCH_BOOK]
        books[i] = book
        longs[SEQ, i] = seqs[row] if seqs.size else first + row
        longs[TS, i] = times[row] if times.size else first + row
        for side in range(2):
            level = touch[i, TOUCH_LEVEL + side]
            empty[side, i] = level < 0
            column = TOUCH_COLUMNS_FROM + TOUCH_COLUMNS * side
            longs[column, i] = 0 if level < 0 else level_price(grid, book, level)
            longs[column + 1, i] = touch[i, TOUCH_QTY + side]
            longs[column + 2, i] = touch[i, TOUCH_COUNT + side]


_PRIME_1, _PRIME_2 = np.int64(-7046029254386353131), np.int64(-4417276706812531889)  # xxHash64's primes


@helper
def mix(state, value):
    """Stir a value into a 64-bit state."""
    state = (state ^ value) * _PRIME_1
    return state ^ ((state >> 29) & 0x7_FFFF_FFFF)


@helper
def finish(state):
    """The second half of a record's 128 bits."""
    return mix(state * _PRIME_2, state)


@kernel
def digest_outcomes(outcomes, filled, leaves, order, rows, sums):
    """Add every outcome to a digest; `order` is the input row of each, or [0]."""
    outcomes, filled, leaves, order = bare(outcomes), bare(filled), bare(leaves), bare(order)
    seqs, first, sums = bare(rows.seq), rows.first[0], bare(sums)
    low, high = ZERO, ZERO
    for index in range(outcomes.size):
        row = np.int64(order[index]) if order.size else np.int64(index)
        state = mix(np.int64(1), seqs[row] if seqs.size else first + row)
        state = mix(state, np.int64(outcomes[index]) ^ (np.int64(filled[index]) << 8))
        state = mix(state, np.int64(leaves[index]))
        low += state
        high += finish(state)
    sums[LOW] += low
    sums[HIGH] += high


@kernel
def count_outcomes(outcomes, counts):
    """Add to `counts` [LANES, 256] how often each outcome byte occurs: in all lanes together.

    Neighbours are often equal, and a counter that has just been written takes its time (1.7 -> 0.6 ns).
    """
    outcomes, counts = bare(outcomes), bare(counts)
    whole = outcomes.size // LANES * LANES
    for index in range(0, whole, LANES):
        for lane in range(LANES):
            counts[lane, outcomes[ix(index + lane)]] += 1
    for index in range(whole, outcomes.size):
        counts[0, outcomes[ix(index)]] += 1


@kernel
def put_in_order(outcomes, filled, leaves, order, statuses, filled_of, leaves_of):
    """Outcomes by index as columns by input row: Status, filled and leaves lots."""
    outcomes, filled, leaves, order = bare(outcomes), bare(filled), bare(leaves), bare(order)
    statuses, filled_of, leaves_of = bare(statuses), bare(filled_of), bare(leaves_of)
    for index in range(outcomes.size):
        row = ix(order[index]) if order.size else ix(index)
        outcome = outcomes[index]
        statuses[row] = outcome if outcome < REJECTED else STATUS_REJECTED
        filled_of[row] = filled[index]
        leaves_of[row] = leaves[index]


@kernel
def digest_fills(longs, ints, symbols, sums):
    """Add expanded fills, in input order, to a digest; `symbols` [books] are hashes of names."""
    longs, ints, symbols, sums = bare(longs), bare(ints), bare(symbols), bare(sums)
    low, high, nth = ZERO, ZERO, ZERO
    for i in range(longs.shape[1]):
        nth = nth + 1 if i > 0 and longs[SEQ, i] == longs[SEQ, i - 1] else ZERO
        state = mix(np.int64(2), longs[SEQ, i])
        state = mix(state, nth ^ symbols[ints[SYMBOL, i]])
        for column in range(PRICE, MAKER_LEAVES + 1):
            state = mix(state, longs[column, i])
        accounts = (np.int64(ints[TAKER_ACCOUNT, i]) << 32) ^ np.int64(ints[MAKER_ACCOUNT, i])
        state = mix(state, accounts)
        low += state
        high += finish(state)
    sums[LOW] += low
    sums[HIGH] += high


@kernel
def digest_orders(book, side, price, qty, order_id, account, symbols, sums):
    """Add a book's resting orders, in priority order, to a digest."""
    nth = ZERO
    for i in range(book.size):
        nth = nth + 1 if i > 0 and book[i] == book[i - 1] else ZERO
        state = mix(np.int64(3), symbols[book[i]])
        state = mix(state, (nth << 1) ^ np.int64(side[i] > 0))
        state = mix(state, price[i])
        state = mix(state, qty[i])
        state = mix(state, order_id[i])
        state = mix(state, np.int64(account[i]))
        sums[LOW] += state
        sums[HIGH] += finish(state)
