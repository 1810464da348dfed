"""The event path: one raw command, with an id and a price for a slot and a level, through the same `step`.

What the tape compiler does for a batch happens here per command: the row is checked, its id looked up, its
price put on the ladder, slots recycled as orders die. State is passed as the address of a block of
addresses, because unboxing arrays is what a Python call into a kernel costs (231 ns against 1,200 for a
tuple of them).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.codes import NO_SLOT
from hftlab.kernels import ops
from hftlab.kernels.bits import NONE, Bitmap, previous_bit
from hftlab.kernels.compile import helper, kernel, quick_kernel
from hftlab.kernels.engine import bare_outputs, note_touch, note_touches, step
from hftlab.kernels.gate import EVENTS, Gate, bare_gate
from hftlab.kernels.intake import (
    EVERYWHERE,
    TIME,
    Intake,
    bare_intake,
    look_ahead,
    look_at,
    needs_room,
    passes_mark,
)
from hftlab.kernels.ladder import BASE, BEST, HEAD_WIDTH, SIZE, Books
from hftlab.kernels.machine import array_at, bare, ix, prefetch
from hftlab.kernels.matching import CANCELLED, FILLED, REPLACED, RESTING
from hftlab.kernels.order_index import ENTRY, discard, find, home, lookup, store
from hftlab.kernels.price_grid import NO_RUNG, RULE, Grid, book_of, price_level, rung_of, top_level
from hftlab.kernels.records import FILL, LEVEL, ORDER, WIDE
from hftlab.kernels.stops import has_room, mark, reaches_all
from hftlab.kernels.tape_compiler import (
    CANCEL,
    CLEAR,
    MARKET,
    MASS_CANCEL,
    NEW,
    NOTE,
    REDUCE,
    REPLACE,
    RISK_CONTROL,
    bare_columns,
    check,
    flags_of,
    rest_flags,
    value_at,
)

ORDERS, FILLS = ORDER[WIDE], FILL[WIDE]
INT32, INT64, BOOL = np.dtype("i4"), np.dtype("i8"), np.dtype("?")

# what `event` answers instead of an outcome when something must grow first; nothing has changed then
NEEDS_SLOTS, NEEDS_LEVELS, NEEDS_CELL, NEEDS_INTAKE, NEEDS_ROOM = range(248, 253)
NEEDS_LIMITS, NEEDS_MESSAGES = 253, 254  # see gated.py

LOOKAHEAD = 8  # rows

# columns of `counts`: nodes on the free stack; what the last command did
FREE, FILLED_QTY, LEAVES_QTY, COUNT = range(4)


class Venue(NamedTuple):
    """Books that take raw commands. The fields, in this order, are the block `venue_at` reads."""

    heads: np.ndarray
    levels: np.ndarray
    orders: np.ndarray
    entries: np.ndarray
    accounts: np.ndarray
    words: np.ndarray
    blocks: np.ndarray
    regions: np.ndarray
    rules: np.ndarray  # the grid's arrays, see price_grid.py
    first: np.ndarray
    whole: np.ndarray
    sizes: np.ndarray
    bases: np.ndarray
    numbers: np.ndarray
    starts: np.ndarray
    pages: np.ndarray
    index: np.ndarray  # ENTRY: order id -> node
    ids: np.ndarray  # int64 [nodes]
    free: np.ndarray  # int32 [slots]: a stack of free nodes
    counts: np.ndarray  # int64 [4]: see above
    fills: np.ndarray  # FILL
    makers: np.ndarray  # int64 [fills]: order id of each maker


FIELDS = len(Venue._fields)


class Desk(NamedTuple):
    """A venue as kernels use it."""

    books: Books
    grid: Grid
    index: np.ndarray
    ids: np.ndarray
    free: np.ndarray
    counts: np.ndarray
    fills: np.ndarray
    makers: np.ndarray


@helper
def desk_at(address):
    """The venue whose block of (address, length) pairs stands at an address."""
    block = array_at(address, (2 * FIELDS,), INT64)
    bitmap = Bitmap(
        array_at(block[10], (block[11],), INT64),
        array_at(block[12], (block[13],), INT64),
        array_at(block[14], (block[15],), INT64),
    )
    books = Books(
        array_at(block[0], (block[1], HEAD_WIDTH), INT32),
        array_at(block[2], (block[3],), LEVEL),
        array_at(block[4], (block[5],), ORDERS),
        array_at(block[6], (block[7],), INT32),
        array_at(block[8], (block[9],), INT32),
        bitmap,
    )
    grid = Grid(
        array_at(block[16], (block[17],), RULE),
        array_at(block[18], (block[19],), INT64),
        array_at(block[20], (block[21],), BOOL),
        array_at(block[22], (block[23],), INT64),
        array_at(block[24], (block[25],), INT64),
        array_at(block[26], (block[27],), INT64),
        array_at(block[28], (block[29],), INT64),
        array_at(block[30], (block[31],), ENTRY),
    )
    return Desk(
        books,
        grid,
        array_at(block[32], (block[33],), ENTRY),
        array_at(block[34], (block[35],), INT64),
        array_at(block[36], (block[37],), INT32),
        array_at(block[38], (block[39],), INT64),
        array_at(block[40], (block[41],), FILLS),
        array_at(block[42], (block[43],), INT64),
    )


def block_of(venue: Venue) -> np.ndarray:
    """The block of a venue's (address, length) pairs; it must not outlive the arrays."""
    return np.array([(a.ctypes.data, a.shape[0]) for a in venue], np.int64).ravel()


@helper
def take_slot(desk, key, book):
    """A free slot, now of this order and in the index."""
    desk.counts[FREE] -= 1
    slot = np.int64(desk.free[desk.counts[FREE]])
    desk.ids[slot] = key
    store(desk.index, find(desk.index, key, book), key, book, slot)
    return slot


@helper
def release_slot(desk, book, slot):
    """The order of a slot is dead: its id may be used again, and so may the slot."""
    discard(desk.index, find(desk.index, desk.ids[slot], book))
    desk.free[desk.counts[FREE]] = slot
    desk.counts[FREE] += 1


@helper
def release_all(desk, book, account, everyone):
    """Release what a MASS_CANCEL or CLEAR is about to remove."""
    books = desk.books
    for side in range(2):
        bottom = books.heads[book, BASE] + side * books.heads[book, SIZE]
        level = np.int64(books.heads[book, BEST + side])
        while level >= bottom and level != NONE:
            slot = np.int64(books.orders[level]["next"])
            while slot != level:
                if everyone or books.accounts[slot] == account:
                    release_slot(desk, book, slot)
                slot = np.int64(books.orders[slot]["next"])
            level = previous_bit(books.bitmap, level)


@helper
def release_makers(desk, book, start, count):
    """Note the ids of the makers of some fills, and release those that are filled."""
    for i in range(start, count):
        slot = np.int64(desk.fills[i]["maker"])
        desk.makers[i] = desk.ids[slot]
        if desk.fills[i]["maker_leaves"] == 0:
            release_slot(desk, book, slot)


class Risk(NamedTuple):
    """The risk gate of the event path."""

    gate: Gate
    intake: Intake


@helper
def bare_risk(risk):
    """The same without reference counts (see machine.py); None stays None."""
    if risk is None:
        return None
    return Risk(bare_gate(risk.gate), bare_intake(risk.intake))


@helper
def gate_of(risk):
    """The gate, or None where there is none."""
    return None if risk is None else risk.gate


@helper
def events_so_far(risk):
    """How much the gate has done by itself."""
    return np.int64(0) if risk is None else risk.gate.counts[EVENTS]


@helper
def kind_of(action):
    """Kind of the op of a command that names no order."""
    if action == RISK_CONTROL:
        return ops.CONTROL
    if action == NOTE:
        return ops.NOTHING
    return ops.CLEAR if action == CLEAR else ops.MASS_CANCEL


@helper
def needs_of(risk, cell, time):
    """What must grow before the risk gate can look at a command of a cell, or 0."""
    if cell == 0:
        return NEEDS_CELL
    return NEEDS_INTAKE if needs_room(risk.intake, cell, time) else 0


@helper
def take_in(risk, row, cell, book, action, side, order_type, price, qty, time):
    """What the first seven checks say of a command of a cell: it counts from here on."""
    if risk is None:
        return np.int64(0)
    return look_at(risk.intake, row, cell, book, action, side, order_type, price, qty, time)


@helper
def release_withdrawn(desk, gate, start):
    """Release what the gate has cancelled, and note the ids, since event `start`."""
    for i in range(start, gate.counts[EVENTS]):
        node = np.int64(gate.events[ix(i)]["node"])
        if node >= 0:
            gate.events[ix(i)]["order_id"] = desk.ids[ix(node)]
            if gate.events[ix(i)]["gone"]:
                release_slot(desk, np.int64(gate.cells[ix(gate.events[ix(i)]["cell"])]["book"]), node)


@helper
def mark_positions(desk, gate, clock, count, row):
    """Mark positions, and release what stop losses took from the books; returns the fills written."""
    happened = gate.counts[EVENTS]
    after = mark(desk.books, desk.grid, gate, desk.fills, count, row)
    for i in range(count, after):
        release_makers(desk, book_of(desk.grid, np.int64(desk.fills[i]["level"])), i, i + 1)
    release_withdrawn(desk, gate, happened)
    clock[EVERYWHERE] = np.int64(gate.counts[EVENTS] != happened)
    return after


@helper
def event(
    desk,
    risk,
    count,
    row,
    book,
    action,
    side,
    order_type,
    tif,
    post_only,
    key,
    new_key,
    price,
    qty,
    account,
    facts,
    time,
):
    """Apply one raw command; returns (outcome, filled, leaves, fills written).

    `risk` is None where there is no gate; `time` is for it.
    """
    nothing, gate, cell = np.int64(0), gate_of(risk), np.int64(0)
    if risk is not None:
        cell = lookup(risk.intake.index, account, book)
        need = needs_of(risk, cell, time)
        if need != 0:
            return np.int64(need), nothing, nothing, count
    reason = check(action, order_type, price, qty, desk.grid.rules, book)
    if reason != 0:
        take_in(risk, row, cell, book, action, side, order_type, price, qty, time)
        return ops.REJECTED + np.int64(reason), nothing, nothing, count
    if action not in (NEW, CANCEL, REDUCE, REPLACE):
        take_in(risk, row, cell, book, action, side, order_type, price, qty, time)
        if action in (MASS_CANCEL, CLEAR):
            release_all(desk, book, account, action == CLEAR)
        op = np.int64(kind_of(action) << ops.KIND_SHIFT) | (book << ops.BOOK_SHIFT)
        happened = events_so_far(risk)
        answer = step(
            desk.books,
            desk.grid,
            gate,
            desk.fills,
            count,
            row,
            op,
            nothing,
            nothing,
            nothing,
            qty,
            nothing,
            account,
            nothing,
            nothing,
        )
        if risk is not None:
            release_withdrawn(desk, gate, happened)
        return answer

    slot = lookup(desk.index, key, book)
    target, level, fresh = slot, np.int64(0), False
    if action in (NEW, REPLACE):
        if desk.counts[FREE] == 0:
            return np.int64(NEEDS_SLOTS), nothing, nothing, count
        if action == NEW and order_type == MARKET:
            level = top_level(desk.grid, book, np.int64(side < 0))
        else:
            rung = rung_of(desk.grid, book, price)
            if rung == NO_RUNG:
                return np.int64(NEEDS_LEVELS), nothing, nothing, count
            level = price_level(desk.grid, book, np.int64(side < 0), rung) if action == NEW else rung
    early = take_in(risk, row, cell, book, action, side, order_type, price, qty, time)
    happened = events_so_far(risk)
    if action == NEW:
        op = np.int64(flags_of(order_type, tif, post_only) | facts | (ops.SELL if side < 0 else ops.BUY))
        if slot == NO_SLOT and not op & ops.NO_REST:
            slot, fresh = take_slot(desk, key, book), True
    elif action == REPLACE:
        op = np.int64(ops.REPLACE << ops.KIND_SHIFT) | facts | rest_flags(order_type, post_only)
        if new_key != key:
            target = lookup(desk.index, new_key, book)
            if target == NO_SLOT and slot != NO_SLOT:
                target, fresh = take_slot(desk, new_key, book), True
    else:
        op = np.int64(ops.REDUCE << ops.KIND_SHIFT)
        qty = np.int64(2**63 - 1) if action == CANCEL else qty
    op |= book << ops.BOOK_SHIFT

    unknown = np.int64(desk.books.levels.size)  # the node that is never open
    outcome, filled, leaves, after = step(
        desk.books,
        desk.grid,
        gate,
        desk.fills,
        count,
        row,
        op,
        slot if slot != NO_SLOT else unknown,
        target if target != NO_SLOT else unknown,
        level,
        qty,
        target if action == REPLACE else slot,
        account,
        cell,
        early,
    )
    release_makers(desk, book, count, after)
    if risk is not None:
        release_withdrawn(desk, gate, happened)
    if action == NEW:
        if fresh and outcome != RESTING:
            release_slot(desk, book, slot)
    elif action == REPLACE:
        if fresh and outcome != REPLACED:
            release_slot(desk, book, target)
        if outcome in (FILLED, CANCELLED) or (outcome == REPLACED and target != slot):
            release_slot(desk, book, slot)
    elif outcome == CANCELLED:
        release_slot(desk, book, slot)
    return outcome, filled, leaves, after


# the word of `submit`: every code of a command in one integer, because each argument costs 10 ns to unbox
ACTION_BITS, SELL_BIT, TYPE_BITS, TIF_BITS, POST_ONLY_BIT = 0, 3, 4, 6, 8


DETAILS = 256  # in the answer of `submit`: filled, leaves and fills are more than the outcome tells


@quick_kernel
def submit(address, word, key, new_key, price, qty, account):
    """One raw command to book 0 from Python; returns the outcome, plus DETAILS.

    Without DETAILS nothing was filled, and what is open is the command's quantity (RESTING, REPLACED) or
    nothing; with it, filled, leaves and the count of fills are in `counts` from FILLED_QTY on. One integer
    comes back because a tuple of four costs 25 ns more.
    """
    desk = desk_at(address)
    outcome, filled, leaves, count = event(
        desk,
        None,
        np.int64(0),
        np.int64(0),
        np.int64(0),
        (word >> ACTION_BITS) & 7,
        np.int64(-1 if (word >> SELL_BIT) & 1 else 1),
        (word >> TYPE_BITS) & 3,
        (word >> TIF_BITS) & 3,
        (word >> POST_ONLY_BIT) & 1,
        np.int64(key),
        np.int64(new_key),
        price,
        qty,
        account,
        np.int64(0),
        np.int64(0),
    )
    if filled == 0 and leaves in (0, qty):
        return outcome
    desk.counts[FILLED_QTY], desk.counts[LEAVES_QTY], desk.counts[COUNT] = filled, leaves, count
    return outcome + DETAILS


@helper
def look_ahead_for_gate(desk, risk, columns, row, last):
    """Bring what coming rows need into the cache: entries of both indexes, then what those lead to."""
    index, gate = risk.intake.index, risk.gate
    ahead = min(row + 3 * LOOKAHEAD, last)
    book = value_at(columns.book, ahead)
    prefetch(desk.index, home(desk.index, columns.order_id[ix(ahead)], book))
    prefetch(index, home(index, value_at(columns.account, ahead), book))

    ahead = min(row + 2 * LOOKAHEAD, last)
    book = value_at(columns.book, ahead)
    slot = lookup(desk.index, columns.order_id[ix(ahead)], book)
    prefetch(desk.books.orders, slot)
    prefetch(gate.node_cells, slot)
    prefetch(gate.cells, lookup(index, value_at(columns.account, ahead), book))

    ahead = min(row + LOOKAHEAD, last)
    book = value_at(columns.book, ahead)
    slot = lookup(desk.index, columns.order_id[ix(ahead)], book)
    prefetch(gate.cells, np.int64(gate.node_cells[ix(slot)]))
    look_ahead(risk.intake, columns, ahead, lookup(index, value_at(columns.account, ahead), book))


@helper
def event_loop(desk, risk, columns, ts, first_ts, outputs, facts, start, count, touches):
    """`run_events`, with everything bare."""
    last, need, gate = columns.action.size - 1, np.int64(0), gate_of(risk)
    for row in range(start, columns.action.size):
        if risk is None:
            ahead = min(row + LOOKAHEAD, last)  # the flow is known: fetch its index entries early
            prefetch(desk.index, home(desk.index, columns.order_id[ahead], value_at(columns.book, ahead)))
        else:
            look_ahead_for_gate(desk, risk, columns, row, last)
        key = columns.order_id[row]
        book = value_at(columns.book, row)
        time = np.int64(0)
        if risk is not None:
            clock = risk.intake.clock
            time = max(clock[TIME], ts[ix(row)] if ts.size else first_ts + row)
            if not has_room(gate):
                return np.int64(row), count, touches, np.int64(NEEDS_ROOM)
            if passes_mark(clock, time):
                count = mark_positions(desk, gate, clock, count, np.int64(row))
            clock[TIME] = time
        outcome, filled, leaves, count = event(
            desk,
            risk,
            count,
            row,
            book,
            value_at(columns.action, row),
            value_at(columns.side, row),
            value_at(columns.order_type, row),
            value_at(columns.tif, row),
            value_at(columns.post_only, row),
            key,
            columns.new_order_id[row] if columns.new_order_id.size else key,
            value_at(columns.price, row),
            value_at(columns.qty, row),
            value_at(columns.account, row),
            np.int64(ops.PASSIVE if facts else 0),
            time,
        )
        if outcome >= NEEDS_SLOTS:
            return np.int64(row), count, touches, outcome
        outputs.outcomes[row] = outcome
        outputs.filled[row] = filled
        outputs.leaves[row] = leaves
        if outputs.touch.size == 0:
            continue
        if risk is not None and changes_all(risk, columns, row):
            touches = note_touches(desk.books, gate, outputs, np.int64(row), touches)
        else:
            touches = note_touch(desk.books, outputs, book, np.int64(row), touches)
    return np.int64(columns.action.size), count, touches, need


@helper
def changes_all(risk, columns, row):
    """Whether the gate may have changed other books before or at a row."""
    marked = risk.intake.clock[EVERYWHERE] != 0
    risk.intake.clock[EVERYWHERE] = 0
    control = value_at(columns.action, row) == RISK_CONTROL
    return marked or (control and reaches_all(value_at(columns.qty, row)))


@kernel
def run_events(address, risk, columns, ts, first_ts, outputs, facts, start, count, touches):
    """Apply the rows of a table from `start`, one at a time; `ts` [rows] or [0] are for the risk gate.

    Returns (rows done, fills written, touches written, need): it stops before a row for which something has
    to grow first. `risk` is None where there is no gate.
    """
    return event_loop(
        desk_at(address),
        bare_risk(risk),
        bare_columns(columns),
        bare(ts),
        first_ts,
        bare_outputs(outputs),
        facts,
        start,
        count,
        touches,
    )
