"""The event path: one raw command, with an id and a price for a slot and a level, through the same `step`.

What the tape compiler does for a batch happens here per command: the row is checked, its id looked up, its
price put on the ladder, slots recycled as orders die (live_books.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.codes import MAX_QTY, NO_SLOT
from hftlab.kernels.book import opcodes
from hftlab.kernels.book.columns import Columns, RawCommand, bare_columns, raw_command, value_at
from hftlab.kernels.book.commands import Command
from hftlab.kernels.book.price_grid import NO_RUNG, book_of, price_level, rung_of, top_level
from hftlab.kernels.book.tape_compiler import check, flags_of, rest_flags
from hftlab.kernels.codes import (
    CANCEL,
    CANCELLED,
    CLEAR,
    FILLED,
    MARKET_ORDER,
    MASS_CANCEL,
    NEW,
    NOTE,
    REDUCE,
    REPLACE,
    REPLACED,
    RESTING,
    RISK_CONTROL,
    STAGE_LOOKUP,
    STAGE_MATCH,
    STAGE_RISK,
)
from hftlab.kernels.engine.batch import bare_outputs, note_touch, note_touches, step
from hftlab.kernels.engine.live_books import (
    COUNT,
    FILLED_QTY,
    FREE,
    LEAVES_QTY,
    live_books_at,
    release_all,
    release_makers,
    release_slot,
    take_slot,
)
from hftlab.kernels.matching.stop_loss import has_room, mark, reaches_all
from hftlab.kernels.primitives.compile import helper, kernel, quick_kernel
from hftlab.kernels.primitives.hash_index import home, lookup
from hftlab.kernels.primitives.intrinsics import INDEX_AHEAD, ZERO, bare, ix, prefetch
from hftlab.kernels.primitives.python_int import plain
from hftlab.kernels.primitives.stage_clock import lap
from hftlab.kernels.risk_gate.gate import EVENTS
from hftlab.kernels.risk_gate.risk import bare_risk, gate_of
from hftlab.kernels.risk_gate.row_checks import (
    EVERYWHERE,
    TIME,
    check_row,
    look_ahead,
    needs_room,
    passes_mark,
)

# what `event` answers instead of an outcome when something must grow first; nothing has changed then
NEEDS_SLOTS, NEEDS_LEVELS, NEEDS_HOLDING, NEEDS_INTAKE, NEEDS_ROOM = range(248, 253)
NEEDS_LIMITS, NEEDS_MESSAGES = 253, 254  # see gated_event.py

CACHED_HOLDINGS = 1 << 11  # (128 KB) so many stay in the cache and need no prefetch


@helper
def events_so_far(risk):
    """How much the gate has done by itself."""
    return ZERO if risk is None else risk.gate.counts[EVENTS]


@helper
def kind_of(action):
    """Kind of the op of a command that names no order."""
    if action == RISK_CONTROL:
        return opcodes.CONTROL
    if action == NOTE:
        return opcodes.NOTHING
    return opcodes.CLEAR if action == CLEAR else opcodes.MASS_CANCEL


@helper
def needs_of(risk, holding, time):
    """What must grow before the risk gate can look at a command of a holding, or 0."""
    if holding == 0:
        return NEEDS_HOLDING
    return NEEDS_INTAKE if needs_room(risk.intake, holding, time) else 0


@helper
def take_in(risk, raw, holding, stamps):
    """What the first seven checks say of a command of a holding: it counts from here on."""
    lap(stamps, STAGE_LOOKUP)
    if risk is None:
        return ZERO
    row_reason = check_row(risk.intake, raw, holding)
    lap(stamps, STAGE_RISK)
    return row_reason


@helper
def release_withdrawn(live, gate, start):
    """Release what the gate has cancelled, and note the ids, since event `start`."""
    for i in range(start, gate.counts[EVENTS]):
        happened = gate.events[ix(i)]
        order_slot = np.int64(happened["node"])
        if order_slot >= 0:
            happened["order_id"] = live.ids[ix(order_slot)]
            if happened["gone"]:
                release_slot(live, np.int64(gate.holdings[ix(happened["holding"])]["book"]), order_slot)


@helper
def mark_positions(live, gate, clock, count, row):
    """Mark positions, and release what stop losses took from the books; returns the fills written."""
    happened = gate.counts[EVENTS]
    after = mark(live.books, live.grid, gate, live.fills, count, row)
    for i in range(count, after):
        release_makers(live, book_of(live.grid, np.int64(live.fills[i]["level"])), i, i + 1)
    release_withdrawn(live, gate, happened)
    clock[EVERYWHERE] = np.int64(gate.counts[EVENTS] != happened)
    return after


@helper
def event(live, risk, count, raw, stamps):
    """Apply one raw command; returns (outcome, filled, leaves, fills written).

    `risk` is None where there is no gate, `stamps` where no stages are measured.
    """
    holding = ZERO
    if risk is not None:
        holding = lookup(risk.intake.index, raw.account, raw.book)
        need = needs_of(risk, holding, raw.time)
        if need != 0:
            return np.int64(need), ZERO, ZERO, count
    reason = check(raw.action, raw.order_type, raw.price, raw.qty, live.grid.rules, raw.book)
    if reason != 0:
        take_in(risk, raw, holding, stamps)  # a message all the same
        return opcodes.REJECTED + np.int64(reason), ZERO, ZERO, count
    if raw.action in (NEW, CANCEL, REDUCE, REPLACE):
        return apply_to_order(live, risk, count, raw, holding, stamps)
    return apply_to_book(live, risk, count, raw, holding, stamps)


@helper
def apply_to_book(live, risk, count, raw, holding, stamps):
    """Apply a command that names no order."""
    # what it removes can be found only before it has
    if raw.action in (MASS_CANCEL, CLEAR):
        release_all(live, raw.book, raw.account, raw.action == CLEAR)
    take_in(risk, raw, holding, stamps)
    happened, gate = events_so_far(risk), gate_of(risk)
    op = np.int64(kind_of(raw.action) << opcodes.KIND_SHIFT) | (raw.book << opcodes.BOOK_SHIFT)
    command = Command(raw.row, raw.book, op, ZERO, ZERO, ZERO, raw.qty, ZERO, raw.account, ZERO, ZERO)
    answer = step(live.books, live.grid, gate, live.fills, count, command, stamps)
    lap(stamps, STAGE_MATCH)
    if risk is not None:
        release_withdrawn(live, gate, happened)
    return answer


@helper
def level_for(live, raw):
    """Where a NEW would rest, the rung of a REPLACE, or NO_RUNG where its price is not on the ladder."""
    if raw.action == NEW and raw.order_type == MARKET_ORDER:
        return top_level(live.grid, raw.book, np.int64(raw.side < 0))
    rung = rung_of(live.grid, raw.book, raw.price)
    if rung == NO_RUNG or raw.action == REPLACE:
        return rung
    return price_level(live.grid, raw.book, np.int64(raw.side < 0), rung)


@helper
def apply_to_order(live, risk, count, raw, holding, stamps):
    """Apply a NEW, CANCEL, REDUCE or REPLACE whose row is right by itself."""
    book, action = raw.book, raw.action

    # what must grow first is asked for before anything has changed: the same command comes again then
    order_slot = lookup(live.index, raw.key, book)
    target, level, fresh, qty = order_slot, ZERO, False, raw.qty
    if action in (NEW, REPLACE):
        if live.counts[FREE] == 0:
            return np.int64(NEEDS_SLOTS), ZERO, ZERO, count
        level = level_for(live, raw)
        if level == NO_RUNG:
            return np.int64(NEEDS_LEVELS), ZERO, ZERO, count

    # a slot is taken as if the order will rest: whether it does is known only after the step
    if action == NEW:
        op = flags_of(raw.order_type, raw.tif, raw.post_only) | raw.flags
        op |= opcodes.SELL if raw.side < 0 else opcodes.BUY
        if order_slot == NO_SLOT and not op & opcodes.NO_REST:
            order_slot, fresh = take_slot(live, raw.key, book), True
    elif action == REPLACE:
        op = (opcodes.REPLACE << opcodes.KIND_SHIFT) | raw.flags | rest_flags(raw.order_type, raw.post_only)
        if raw.new_key != raw.key:
            target = lookup(live.index, raw.new_key, book)
            if target == NO_SLOT and order_slot != NO_SLOT:
                target, fresh = take_slot(live, raw.new_key, book), True
    else:
        op = np.int64(opcodes.REDUCE << opcodes.KIND_SHIFT)
        if action == CANCEL:
            qty = np.int64(MAX_QTY)
    row_reason = take_in(risk, raw, holding, stamps)

    # the event numbers of the gate tell afterwards what it has withdrawn meanwhile
    happened, gate = events_so_far(risk), gate_of(risk)
    unknown = np.int64(live.books.levels.size)  # the slot that is never open
    command = Command(
        raw.row,
        book,
        op | (book << opcodes.BOOK_SHIFT),
        order_slot if order_slot != NO_SLOT else unknown,
        target if target != NO_SLOT else unknown,
        level,
        qty,
        target if action == REPLACE else order_slot,
        raw.account,
        holding,
        row_reason,
    )
    outcome, filled, leaves, after = step(live.books, live.grid, gate, live.fills, count, command, stamps)
    lap(stamps, STAGE_MATCH)

    # makers first, while their slots still say who they are
    release_makers(live, book, count, after)
    if risk is not None:
        release_withdrawn(live, gate, happened)
    if fresh and outcome != (RESTING if action == NEW else REPLACED):
        release_slot(live, book, order_slot if action == NEW else target)
    if action == REPLACE:
        if outcome in (FILLED, CANCELLED) or (outcome == REPLACED and target != order_slot):
            release_slot(live, book, order_slot)
    elif action != NEW and outcome == CANCELLED:
        release_slot(live, book, order_slot)
    return outcome, filled, leaves, after


# the word of `submit`: every code of a command in one integer, because each argument costs 10 ns to unbox
ACTION_BITS, SELL_BIT, TYPE_BITS, TIF_BITS, POST_ONLY_BIT = 0, 3, 4, 6, 8


DETAILS = 256  # in the answer of `submit`: filled, leaves and fills are more than the outcome tells


@helper
def unpacked(word, key, new_key, price, qty, account, time):
    """A raw command of book 0 from the arguments of `submit`."""
    return RawCommand(
        ZERO,
        ZERO,
        (word >> ACTION_BITS) & 7,
        np.int64(-1 if (word >> SELL_BIT) & 1 else 1),
        (word >> TYPE_BITS) & 3,
        (word >> TIF_BITS) & 3,
        (word >> POST_ONLY_BIT) & 1,
        key,
        new_key,
        price,
        qty,
        account,
        ZERO,
        time,
    )


@quick_kernel
def submit(address, word, key, new_key, price, qty, account):
    """One raw command to book 0 from Python: see `send`. Whole arguments, as of all these."""
    key, new_key = plain(key), plain(new_key)
    return send(
        plain(address),
        unpacked(plain(word), key, new_key, plain(price), plain(qty), plain(account), ZERO),
    )


@quick_kernel
def submit_cancel(address, key):
    """A CANCEL: the same with five arguments less to convert."""
    key = plain(key)
    word = np.int64(CANCEL << ACTION_BITS)
    return send(plain(address), unpacked(word, key, key, ZERO, ZERO, ZERO, ZERO))


@helper
def send(address, raw):
    """One raw command to book 0; returns the outcome, plus DETAILS.

    Without DETAILS nothing was filled, and what is open is the command's quantity (RESTING, REPLACED) or
    nothing; with it, filled, leaves and the count of fills are in `counts` from FILLED_QTY on. One integer
    comes back because a tuple of four costs 25 ns more.
    """
    live = live_books_at(address)
    outcome, filled, leaves, count = event(live, None, ZERO, raw, None)
    if filled == 0 and leaves in (0, raw.qty):
        return outcome
    live.counts[FILLED_QTY], live.counts[LEAVES_QTY], live.counts[COUNT] = filled, leaves, count
    return outcome + DETAILS


@helper
def look_ahead_for_gate(live, risk, columns, row, last):
    """Bring what coming rows need into the cache: entries of both indexes, then what those lead to.

    An order is taken for what stands where the search for it begins: wrong guesses cost less than to ask.
    """
    index, gate = live.index, risk.gate
    ahead = min(row + 3 * INDEX_AHEAD, last)
    book = value_at(columns.book, ahead)
    prefetch(index, home(index, columns.order_id[ix(ahead)], book))
    prefetch(risk.intake.index, home(risk.intake.index, value_at(columns.account, ahead), book))

    ahead = min(row + 2 * INDEX_AHEAD, last)
    place = home(index, columns.order_id[ix(ahead)], value_at(columns.book, ahead))
    order_slot, holding = np.int64(index[ix(place)]["value"]), np.int64(gate.row_holdings[ix(ahead)])
    prefetch(live.books.orders, order_slot)
    prefetch(gate.order_holdings, order_slot)
    prefetch(gate.holdings, holding)
    prefetch(risk.intake.terms, holding)

    ahead = min(row + INDEX_AHEAD, last)
    place = home(index, columns.order_id[ix(ahead)], value_at(columns.book, ahead))
    prefetch(gate.holdings, np.int64(gate.order_holdings[ix(index[ix(place)]["value"])]))
    look_ahead(risk.intake, columns, ahead, np.int64(gate.row_holdings[ix(ahead)]))


class Rows(NamedTuple):
    """The rows of a run event by event."""

    columns: Columns
    ts: np.ndarray  # int64 ns [rows], or [0]: for the risk gate
    first_ts: int  # that of row 0 where `ts` is absent; they count up from there
    flags: int  # of each op: opcodes.PASSIVE where rows are facts


@helper
def bare_rows(columns, ts, first_ts, facts):
    """Rows without reference counts (see intrinsics.py)."""
    flags = np.int64(opcodes.PASSIVE if facts else 0)
    return Rows(bare_columns(columns), bare(ts), np.int64(first_ts), flags)


@helper
def apply_row(live, risk, rows, row, count, stamps):
    """Apply a row of a table; returns what `event` does."""
    time = ZERO
    if risk is not None:
        clock = risk.intake.clock
        time = max(clock[TIME], rows.ts[ix(row)] if rows.ts.size else rows.first_ts + row)
        if not has_room(risk.gate):
            return np.int64(NEEDS_ROOM), ZERO, ZERO, count
        if passes_mark(clock, time):
            count = mark_positions(live, risk.gate, clock, count, np.int64(row))
            lap(stamps, STAGE_RISK)
        clock[TIME] = time
    return event(live, risk, count, raw_command(rows.columns, row, rows.flags, time), stamps)


@helper
def note_row(live, risk, columns, outputs, row, touches):
    """Write what a row has changed of the touch; returns how many changes have been written."""
    if outputs.touch.size == 0:
        return touches
    if risk is not None and changes_all(risk, columns, row):
        return note_touches(live.books, risk.gate, outputs, np.int64(row), touches)
    return note_touch(live.books, outputs, value_at(columns.book, row), np.int64(row), touches)


@helper
def event_loop(live, risk, rows, outputs, start, count, touches):
    """`run_events`, with everything bare."""
    columns = rows.columns
    last, need = columns.action.size - 1, ZERO
    for row in range(start, columns.action.size):
        if risk is None or risk.gate.holdings.size <= CACHED_HOLDINGS:
            ahead = min(row + INDEX_AHEAD, last)  # the flow is known: fetch its index entries early
            prefetch(live.index, home(live.index, columns.order_id[ahead], value_at(columns.book, ahead)))
        else:
            look_ahead_for_gate(live, risk, columns, row, last)
        outcome, filled, leaves, count = apply_row(live, risk, rows, row, count, None)
        if outcome >= NEEDS_SLOTS:
            return np.int64(row), count, touches, outcome
        outputs.outcomes[row] = outcome
        outputs.filled[row] = filled
        outputs.leaves[row] = leaves
        touches = note_row(live, risk, columns, outputs, row, touches)
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
        live_books_at(address),
        bare_risk(risk),
        bare_rows(columns, ts, first_ts, facts),
        bare_outputs(outputs),
        start,
        count,
        touches,
    )
