"""From checked columns to a tape: one pass that looks, one that writes.

`survey` learns what the tape needs to know before a row can be written (price ranges, the tick, the widest
quantity); `compile_rows` checks each row, gives its order a slot and its price a level. An invalid row
stays on the tape with its reason, so that every row of the input has an outcome.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.codes import NO_SLOT, NOT_A_VALUE, Action, OrderType, Reason, Tif
from hftlab.kernels import ops
from hftlab.kernels.compile import helper, kernel
from hftlab.kernels.machine import bare, prefetch
from hftlab.kernels.order_index import discard, find, home, store
from hftlab.kernels.price_grid import PAGE_BITS, bare_grid, price_level, rung_of, top_level

NEW, CANCEL, REDUCE, REPLACE = (int(a) for a in (Action.NEW, Action.CANCEL, Action.REDUCE, Action.REPLACE))
MASS_CANCEL, CLEAR = int(Action.MASS_CANCEL), int(Action.CLEAR)
NOTE = 6  # a fact without effect
MARKET, IOC, FOK = int(OrderType.MARKET), int(Tif.IOC), int(Tif.FOK)
INVALID_QTY, INVALID_PRICE = int(Reason.INVALID_QTY), int(Reason.INVALID_PRICE)

LOOKAHEAD = 8  # rows whose index entry is fetched early


class Columns(NamedTuple):
    """An orders table as integers; a column that is absent has length 0 and means its default."""

    action: np.ndarray  # int8
    side: np.ndarray  # int8
    order_type: np.ndarray  # int8
    tif: np.ndarray  # int8
    post_only: np.ndarray  # bool
    order_id: np.ndarray  # int64, the bits of a uint64
    new_order_id: np.ndarray  # int64
    price: np.ndarray  # int64, 1e-9; NOT_A_VALUE where it could not be read
    qty: np.ndarray  # int64, lots; NOT_A_VALUE where it could not be read
    book: np.ndarray  # int32
    account: np.ndarray  # int32


class Instruments(NamedTuple):
    """Rules of each book."""

    ticks: np.ndarray  # int64 [books]; 0: to be inferred
    signed: np.ndarray  # bool [books]: zero and negative prices are legal


@helper
def bare_columns(columns):
    """The same columns without reference counts (see machine.py)."""
    return Columns(
        bare(columns.action),
        bare(columns.side),
        bare(columns.order_type),
        bare(columns.tif),
        bare(columns.post_only),
        bare(columns.order_id),
        bare(columns.new_order_id),
        bare(columns.price),
        bare(columns.qty),
        bare(columns.book),
        bare(columns.account),
    )


@helper
def value_at(column, row):
    """A cell, or 0 where the column is absent."""
    return np.int64(column[row]) if column.size else np.int64(0)


@helper
def names_price(action, order_type):
    """Whether a command's price means something."""
    return (action == NEW and order_type != MARKET) or action == REPLACE


@helper
def check(action, order_type, price, qty, tick, signed):
    """Reason to reject a command by its row alone, or 0; a `tick` of 0 is not checked."""
    if action in (NEW, REDUCE, REPLACE) and qty <= 0:
        return INVALID_QTY
    if names_price(action, order_type):
        if price == NOT_A_VALUE or (price <= 0 and not signed):
            return INVALID_PRICE
        if tick != 0 and price % tick != 0:
            return INVALID_PRICE
    return 0


@helper
def flags_of(order_type, tif, post_only):
    """Op flags of a NEW."""
    if order_type == MARKET:
        return ops.NO_REST | (ops.ALL_OR_NOTHING if tif == FOK else 0)
    flags = ops.POST_ONLY if post_only else 0
    if tif == IOC:
        flags |= ops.NO_REST
    elif tif == FOK:
        flags |= ops.NO_REST | ops.ALL_OR_NOTHING
    return flags


@helper
def greatest_common_divisor(a, b):
    """Of two non-negative integers."""
    while b:
        a, b = b, a % b
    return a


PRICES, LOWEST, HIGHEST, DIVISOR = range(4)  # columns of the survey, per book
WIDEST, INCOMING, ID_LOW, ID_HIGH, RENAMES, MASS_CANCELS = range(6)  # of its totals


@kernel
def survey(columns, instruments, per_book, totals):
    """Learn prices, tick divisor and ranges over the rows that are valid by themselves."""
    columns = bare_columns(columns)
    ticks, signed = bare(instruments.ticks), bare(instruments.signed)
    per_book, totals = bare(per_book), bare(totals)
    widest, incoming, renames, mass_cancels = totals[WIDEST], np.int64(0), np.int64(0), np.int64(0)
    id_low, id_high = totals[ID_LOW], totals[ID_HIGH]
    for row in range(columns.action.size):
        action = value_at(columns.action, row)
        order_type = value_at(columns.order_type, row)
        book = value_at(columns.book, row)
        price, qty = value_at(columns.price, row), value_at(columns.qty, row)
        if action == MASS_CANCEL:
            mass_cancels += 1
        if action not in (NEW, REPLACE):
            continue
        if check(action, order_type, price, qty, ticks[book], signed[book]) != 0:
            continue
        incoming += 1
        widest = max(widest, qty)
        order_id = columns.order_id[row]
        if action == REPLACE and columns.new_order_id.size and columns.new_order_id[row] != order_id:
            renames += 1
            order_id = columns.new_order_id[row]
        id_low, id_high = min(id_low, order_id), max(id_high, order_id)
        if names_price(action, order_type):
            per_book[book, PRICES] += 1
            per_book[book, LOWEST] = min(per_book[book, LOWEST], price)
            per_book[book, HIGHEST] = max(per_book[book, HIGHEST], price)
            divisor = per_book[book, DIVISOR]
            if divisor == 0 or price % divisor != 0:
                per_book[book, DIVISOR] = greatest_common_divisor(abs(price), divisor)
    totals[WIDEST], totals[INCOMING] = widest, incoming
    totals[ID_LOW], totals[ID_HIGH] = id_low, id_high
    totals[RENAMES], totals[MASS_CANCELS] = renames, mass_cancels


@kernel
def mark_pages(columns, instruments, wanted, index, used, start):
    """Put the price pages of the `wanted` books into an index; stops when it is half full.

    Returns (rows done, pages known).
    """
    columns, wanted, index = bare_columns(columns), bare(wanted), bare(index)
    ticks, signed = bare(instruments.ticks), bare(instruments.signed)
    for row in range(start, columns.action.size):
        book = value_at(columns.book, row)
        action, order_type = value_at(columns.action, row), value_at(columns.order_type, row)
        price, qty = value_at(columns.price, row), value_at(columns.qty, row)
        if not wanted[book] or not names_price(action, order_type):
            continue
        if check(action, order_type, price, qty, ticks[book], signed[book]) != 0:
            continue
        page = (price // ticks[book]) >> PAGE_BITS
        place = find(index, page, book)
        if index[place]["value"] == 0:
            if 2 * (used + 1) > index.size:
                return row, used
            used += 1
            store(index, place, page, book, 1)
    return columns.action.size, used


class Slots(NamedTuple):
    """Order id -> slot while a tape is compiled, and what has been given out."""

    direct: np.ndarray  # int32 [ids]: slot by id where ids are dense, else [0]
    lowest: np.ndarray  # int64 [1]: the id at direct[0]
    index: np.ndarray  # ENTRY: where they are not
    ids: np.ndarray  # int64 [slots]: id of each slot
    books: np.ndarray  # int32 [slots]
    counts: np.ndarray  # int64 [2]: slots given out (slot 0 included), keys in the index


@helper
def bare_slots(slots):
    """The same slots without reference counts (see machine.py)."""
    return Slots(
        bare(slots.direct),
        bare(slots.lowest),
        bare(slots.index),
        bare(slots.ids),
        bare(slots.books),
        bare(slots.counts),
    )


@helper
def give_slot(slots, key, book):
    """The next slot, now of this order."""
    slot = slots.counts[0]
    slots.counts[0] = slot + 1
    slots.ids[slot] = key
    slots.books[slot] = book
    return slot


@helper
def slot_of(slots, key, book, wanted, final):
    """Slot of an order, NO_SLOT if it has none, -1 on a clash of ids between books.

    `wanted` gives it one if need be; `final` says it won't be open after this command.
    """
    if slots.direct.size:
        place = key - slots.lowest[0]
        if place < 0 or place >= slots.direct.size:
            return np.int64(NO_SLOT)
        slot = np.int64(slots.direct[place])
        if slot != NO_SLOT:
            return slot if slots.books[slot] == book else np.int64(-1)
        if wanted:
            slot = give_slot(slots, key, book)
            slots.direct[place] = slot
        return slot
    place = find(slots.index, key, book)
    slot = np.int64(slots.index[place]["value"])
    if slot == NO_SLOT and wanted:
        slot = give_slot(slots, key, book)
        store(slots.index, place, key, book, slot)
        slots.counts[1] += 1
    elif slot != NO_SLOT and final:
        discard(slots.index, place)
        slots.counts[1] -= 1
    return slot


@helper
def look_ahead(slots, columns, row):
    """Bring the index entry of a coming row into the cache."""
    if slots.direct.size == 0:
        prefetch(slots.index, home(slots.index, columns.order_id[row], value_at(columns.book, row)))


class Target(NamedTuple):
    """Where a compiled tape is written."""

    rows: np.ndarray  # COMMAND [n]
    order: np.ndarray  # int32 [n] input row of each position, or [0]
    targets: np.ndarray  # int32 [n], or [0] where no id changes
    max_qty: np.ndarray  # int64 [1] the largest quantity of this width


@kernel
def compile_rows(columns, instruments, grid, slots, target, passive, start):
    """Write positions from `start`; returns how far it came.

    It stops early when the id index is half full (give it a larger one and call again), and returns -1
    when ids clash between books in a direct table (call again with an index).
    """
    columns, grid, slots = bare_columns(columns), bare_grid(grid), bare_slots(slots)
    ticks, signed = bare(instruments.ticks), bare(instruments.signed)
    rows, order, targets = bare(target.rows), bare(target.order), bare(target.targets)
    everything = target.max_qty[0]
    facts = ops.PASSIVE if passive else 0
    last = rows.size - 1
    for position in range(start, rows.size):
        if slots.direct.size == 0 and 2 * (slots.counts[1] + 2) > slots.index.size:
            return position
        row = np.int64(order[position]) if order.size else np.int64(position)
        ahead = min(position + LOOKAHEAD, last)
        look_ahead(slots, columns, np.int64(order[ahead]) if order.size else ahead)
        action, order_type = value_at(columns.action, row), value_at(columns.order_type, row)
        price, qty = value_at(columns.price, row), value_at(columns.qty, row)
        book, key = value_at(columns.book, row), columns.order_id[row]
        slot, renamed, level = np.int64(NO_SLOT), np.int64(NO_SLOT), np.int64(0)
        reason = check(action, order_type, price, qty, ticks[book], signed[book])
        if reason != 0:
            op, qty = ops.INVALID << ops.KIND_SHIFT, np.int64(reason)
        elif action == NEW:
            side = ops.SELL if columns.side[row] < 0 else ops.BUY
            flags = flags_of(order_type, value_at(columns.tif, row), value_at(columns.post_only, row))
            op = side | flags | facts
            slot = slot_of(slots, key, book, not flags & ops.NO_REST, False)
            if order_type == MARKET:
                level = top_level(grid, book, side)
            else:
                level = price_level(grid, book, side, rung_of(grid, book, price))
        elif action in (CANCEL, REDUCE):
            op = ops.REDUCE << ops.KIND_SHIFT
            qty = everything if action == CANCEL else min(qty, everything)
            slot = slot_of(slots, key, book, False, action == CANCEL)
        elif action == REPLACE:
            op = (ops.REPLACE << ops.KIND_SHIFT) | facts
            op |= ops.POST_ONLY if value_at(columns.post_only, row) else 0
            level = rung_of(grid, book, price)
            slot = slot_of(slots, key, book, False, False)
            renamed = slot
            if targets.size and columns.new_order_id[row] != key:
                renamed = slot_of(slots, columns.new_order_id[row], book, slot != NO_SLOT, False)
        elif action == NOTE:
            op, qty = ops.NOTHING << ops.KIND_SHIFT, np.int64(0)
        else:
            op = (ops.CLEAR if action == CLEAR else ops.MASS_CANCEL) << ops.KIND_SHIFT
            qty = np.int64(0)
        if slot < 0 or renamed < 0:
            return -1
        rows[position]["op"] = op | (book << ops.BOOK_SHIFT)
        rows[position]["slot"] = slot
        rows[position]["level"] = level
        rows[position]["qty"] = qty
        if targets.size:
            targets[position] = renamed
    return rows.size


@kernel
def group_rows(books, counts, order):
    """Stable counting sort of rows by book; `counts` [books] come in as where each book starts."""
    books, counts, order = bare(books), bare(counts), bare(order)
    for row in range(books.size):
        book = books[row]
        order[counts[book]] = row
        counts[book] += 1
