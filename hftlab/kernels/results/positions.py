"""Positions at average cost, P&L and fees: one pass over fills in input order.

A cell is an account in a symbol. It is kept in 64-bit integers as long as these hold, and from the first fill
on that might pass them in exact ones (`int256.py`); what comes out is the same. Sums of notional are always
exact. Rules and rounding are those of docs/RISK.md, "Positions and P&L".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.codes import NOT_A_VALUE
from hftlab.kernels.primitives.compile import helper, kernel, rare
from hftlab.kernels.primitives.hash_index import find
from hftlab.kernels.primitives.hash_index import store as store_key
from hftlab.kernels.primitives.int256 import (
    SMALL,
    TOO_LARGE,
    add,
    divide,
    exact,
    load,
    narrowed,
    sign_of,
    small_product,
    store,
    subtract,
    times,
)
from hftlab.kernels.primitives.intrinsics import bare, ix
from hftlab.kernels.results.tables import MAKERS, PRICE, QTY, SEQ, SYMBOL, TAKERS, TS

CELL = np.dtype(
    [
        ("position", "i8"),  # lots bought less lots sold
        ("cost", "i8"),  # 1e-9; of a short position negative
        ("realised", "i8"),  # 1e-9
        ("fees", "i8"),  # 1e-9
        ("bought", "i8"),  # lots
        ("sold", "i8"),
        ("account", "i4"),
        ("book", "i4"),
        ("wide", "i4"),  # row of `wide` that has the six instead, or 0
    ],
    align=True,
)  # 64 bytes: a line
POSITION, COST, REALISED, FEES, BOUGHT, SOLD = range(6)
WIDE_COLUMNS = 6
# sums of a cell: |price| x lots traded; and of its open orders
BOUGHT_NOTIONAL, SOLD_NOTIONAL = range(2)
OPEN_BUY, OPEN_SELL, OPEN_NOTIONAL = range(3)

# columns of a list of cells
(
    TO_POSITION,
    TO_AVERAGE,
    TO_COST,
    TO_REALISED,
    TO_UNREALISED,
    TO_FEES,
    TO_BOUGHT,
    TO_SOLD,
    TO_BOUGHT_NOTIONAL,
    TO_SOLD_NOTIONAL,
) = range(10)
# columns of changes
AT_SEQ, AT_TS, AT_POSITION, AT_AVERAGE, AT_REALISED, AT_UNREALISED, AT_FEES = range(7)

WHOLE = np.int64(10**8)  # fees are in 1e-4 basis points


class Holdings(NamedTuple):
    """What cells hold; the first of them is nobody's."""

    cells: np.ndarray  # CELL
    notional: np.ndarray  # int64 [cells, 2, WORDS]
    wide: np.ndarray  # int64 [rows, WIDE_COLUMNS, WORDS]
    wide_rows: np.ndarray  # int64 [1]: how many of them are in use
    last: np.ndarray  # int64 [books]: price of the last fill, or NOT_A_VALUE


class Changes(NamedTuple):
    """Room for a row per cell and fill, or none."""

    longs: np.ndarray  # int64 [7, rows]
    cells: np.ndarray  # int32 [rows]


@helper
def bare_holdings(holdings):
    """Holdings without reference counts."""
    return Holdings(
        bare(holdings.cells),
        bare(holdings.notional),
        bare(holdings.wide),
        bare(holdings.wide_rows),
        bare(holdings.last),
    )


@kernel
def find_cells(index, cells, known, books, accounts, start, numbers):
    """Number of the cell of each (book, account) from `start` on; new ones come after the `known` ones.

    Returns where it stopped and how many cells there are; it stops early when `cells` (of half the length of
    `index`) has no room for another.
    """
    index, cells, numbers = bare(index), bare(cells), bare(numbers)
    books, accounts = bare(books), bare(accounts)
    for i in range(start, numbers.size):
        account, book = np.int64(accounts[ix(i)]), np.int64(books[ix(i)])
        place = find(index, account, book)
        number = index[ix(place)]["value"]
        if number == 0:
            if known == cells.size:
                return i, known
            number = np.int32(known)
            store_key(index, place, account, book, number)
            cells[ix(known)]["account"], cells[ix(known)]["book"] = account, book
            known += 1
        numbers[ix(i)] = number
    return np.int64(numbers.size), known


# ------------------------------------------------------------------ one side of a fill, in 64 bits


@helper
def is_small(value):
    """Whether a number is SMALL either way."""
    return -SMALL < value < SMALL


@helper
def rounded_quotient(dividend, divisor):
    """dividend / divisor, rounded toward zero; both are SMALL, the divisor not 0."""
    quotient = np.int64(np.uint64(abs(dividend)) // np.uint64(abs(divisor)))
    return quotient if (dividend < 0) == (divisor < 0) else -quotient


@helper
def share_of(cost, part, whole):
    """cost x part / whole, rounded toward zero, or TOO_LARGE; 0 < part < whole."""
    size = np.uint64(abs(cost))
    each = np.int64(size // np.uint64(whole))
    rest = small_product(abs(cost) - each * whole, part)
    if rest == TOO_LARGE:
        return np.int64(TOO_LARGE)
    share = each * part + np.int64(np.uint64(rest) // np.uint64(whole))
    return -share if cost < 0 else share


@helper
def fee_of(bps, per_lot, amount, qty):
    """The fee for an amount that is SMALL, rounded up, or TOO_LARGE; |bps| is at most WHOLE."""
    size = abs(amount)
    lots = small_product(per_lot, qty)
    if lots == TOO_LARGE:
        return lots
    whole = size // WHOLE
    return whole * bps + ((size - whole * WHOLE) * bps + WHOLE - 1) // WHOLE + lots


@helper
def book_small(cell, sign, price, qty, amount, fee):
    """Book one side of a fill of a SMALL amount; False, and nothing changed, where the sums are not."""
    position, cost, realised = np.int64(cell["position"]), np.int64(cell["cost"]), np.int64(cell["realised"])
    # against the position: lots leave at their average cost, and the difference is realised
    reduced, taken = np.int64(0), np.int64(0)
    if position * sign < 0:
        held = abs(position)
        reduced, taken = held, cost
        if qty < held:
            reduced, taken = qty, share_of(cost, qty, held)
            if taken == TOO_LARGE:
                return False
        realised -= sign * reduced * price + taken
        amount -= reduced * price
    # what is left of the fill extends the position, or opens one on the other side
    cost += sign * amount - taken
    position += sign * qty
    fees = cell["fees"] + fee
    bought, sold = cell["bought"] + (qty if sign > 0 else 0), cell["sold"] + (qty if sign < 0 else 0)
    # nothing is written until all sums are known to fit: the exact way then starts from what was there
    if not (
        is_small(position)
        and is_small(cost)
        and is_small(realised)
        and is_small(fees)
        and is_small(bought)
        and is_small(sold)
    ):
        return False
    cell["position"], cell["cost"], cell["realised"], cell["fees"] = position, cost, realised, fees
    cell["bought"], cell["sold"] = bought, sold
    return True


# ------------------------------------------------------------------ the same, exactly


@rare
def widen(cell, wide, wide_rows):
    """From now on a cell is kept in exact integers."""
    row = wide_rows[0]
    store(wide, row, POSITION, exact(cell["position"]))
    store(wide, row, COST, exact(cell["cost"]))
    store(wide, row, REALISED, exact(cell["realised"]))
    store(wide, row, FEES, exact(cell["fees"]))
    store(wide, row, BOUGHT, exact(cell["bought"]))
    store(wide, row, SOLD, exact(cell["sold"]))
    cell["wide"] = row
    wide_rows[0] = row + 1


@rare
def book_wide(wide, row, sign, price, qty, bps, per_lot):
    """Book one side of a fill."""
    position, cost = load(wide, row, POSITION), load(wide, row, COST)
    extended = qty
    if sign_of(position) * sign < 0:
        held = times(position, -sign)
        over = subtract(exact(qty), held)
        if sign_of(over) >= 0:
            extended, taken = narrowed(over), cost
        else:
            extended, taken = np.int64(0), divide(times(cost, qty), held)
        proceeds = times(times(exact(price), qty - extended), -sign)
        store(wide, row, REALISED, add(load(wide, row, REALISED), subtract(proceeds, taken)))
        cost = subtract(cost, taken)
    store(wide, row, COST, add(cost, times(times(exact(price), extended), sign)))
    store(wide, row, POSITION, add(position, times(exact(qty), sign)))
    column = BOUGHT if sign > 0 else SOLD
    store(wide, row, column, add(load(wide, row, column), exact(qty)))
    notional = times(exact(abs(price)), qty)
    share = times(notional, bps)
    if bps > 0:
        share = add(share, exact(WHOLE - 1))
    fee = add(divide(share, exact(WHOLE)), times(exact(per_lot), qty))
    store(wide, row, FEES, add(load(wide, row, FEES), fee))


@rare
def add_product(words, row, column, a, b):
    """Add a x b to a sum."""
    store(words, row, column, add(load(words, row, column), times(exact(a), b)))


@rare
def exact_gain(position, price, cost):
    """position x price - cost."""
    return narrowed(subtract(times(exact(price), position), exact(cost)))


@helper
def add_small(words, row, column, amount):
    """Add what is not negative to a sum that isn't."""
    place, at = ix(row), ix(column)
    low = words[place, at, 0]
    words[place, at, 0] = low + amount
    if low < 0 and low + amount >= 0:
        carry = 1
        while words[place, at, carry] == -1:
            words[place, at, carry] = 0
            carry += 1
        words[place, at, carry] += 1


# ------------------------------------------------------------------ fills


@helper
def book_side(holdings, fees, number, sign, price, qty, amount, is_maker):
    """Book one side of a fill; `fees` is by cell, or [0]."""
    cell = holdings.cells[ix(number)]
    bps, per_lot = np.int64(0), np.int64(0)
    if fees.size:
        rates = fees[ix(number)]
        bps, per_lot = np.int64(rates["taker_bps"]), np.int64(rates["taker_lot"])
        if is_maker:
            bps, per_lot = np.int64(rates["maker_bps"]), np.int64(rates["maker_lot"])
    column = BOUGHT_NOTIONAL if sign > 0 else SOLD_NOTIONAL
    if amount != TOO_LARGE:
        add_small(holdings.notional, number, column, abs(amount))
        if cell["wide"] == 0:
            fee = fee_of(bps, per_lot, amount, qty) if fees.size else np.int64(0)
            if fee != TOO_LARGE and book_small(cell, sign, price, qty, amount, fee):
                return
    else:
        add_product(holdings.notional, number, column, abs(price), qty)
    if cell["wide"] == 0:
        widen(cell, holdings.wide, holdings.wide_rows)
    book_wide(holdings.wide, np.int64(cell["wide"]), sign, price, qty, bps, per_lot)


@helper
def average_price(holdings, number):
    """What a lot of a cell's position has cost, or NOT_A_VALUE."""
    cell = holdings.cells[ix(number)]
    if cell["wide"]:
        position = load(holdings.wide, cell["wide"], POSITION)
        if sign_of(position) == 0:
            return np.int64(NOT_A_VALUE)
        return narrowed(divide(load(holdings.wide, cell["wide"], COST), position))
    if cell["position"] == 0:
        return np.int64(NOT_A_VALUE)
    return rounded_quotient(np.int64(cell["cost"]), np.int64(cell["position"]))


@helper
def unrealised(holdings, number, price):
    """What closing a cell's position at a price would realise, or NOT_A_VALUE."""
    cell = holdings.cells[ix(number)]
    if cell["wide"]:
        value = times(load(holdings.wide, cell["wide"], POSITION), price)
        return narrowed(subtract(value, load(holdings.wide, cell["wide"], COST)))
    value = small_product(cell["position"], price)
    if value == TOO_LARGE:
        return exact_gain(np.int64(cell["position"]), price, np.int64(cell["cost"]))
    return value - np.int64(cell["cost"])


@helper
def note_change(holdings, changes, row, seq, ts, number, price):
    """Put down what a cell holds after a fill."""
    cell, longs, at = holdings.cells[ix(number)], changes.longs, ix(row)
    longs[AT_SEQ, at], longs[AT_TS, at], changes.cells[at] = seq, ts, number
    longs[AT_AVERAGE, at] = average_price(holdings, number)
    longs[AT_UNREALISED, at] = unrealised(holdings, number, price)
    if cell["wide"]:
        longs[AT_POSITION, at] = narrowed(load(holdings.wide, cell["wide"], POSITION))
        longs[AT_REALISED, at] = narrowed(load(holdings.wide, cell["wide"], REALISED))
        longs[AT_FEES, at] = narrowed(load(holdings.wide, cell["wide"], FEES))
    else:
        longs[AT_POSITION, at], longs[AT_REALISED, at] = cell["position"], cell["realised"]
        longs[AT_FEES, at] = cell["fees"]


@kernel
def book_fills(longs, ints, sides, numbers, fees, holdings, changes, start, stop, row):
    """Book expanded fills [start, stop), of cells `numbers` [TAKERS and MAKERS, fills].

    Changes go from `row` on, where there is room for any. Returns where it stopped, early when `wide` has no
    room for two more cells, and the next row of changes.
    """
    longs, ints, sides, numbers, fees = bare(longs), bare(ints), bare(sides), bare(numbers), bare(fees)
    holdings = bare_holdings(holdings)
    changes = Changes(bare(changes.longs), bare(changes.cells))
    for i in range(start, stop):
        if holdings.wide_rows[0] + 2 > holdings.wide.shape[0]:
            return i, row
        price, qty, sign = longs[PRICE, i], longs[QTY, i], np.int64(sides[i])
        taker, maker = np.int64(numbers[TAKERS, i]), np.int64(numbers[MAKERS, i])
        amount = small_product(price, qty)
        book_side(holdings, fees, taker, sign, price, qty, amount, False)
        book_side(holdings, fees, maker, -sign, price, qty, amount, True)
        holdings.last[ix(ints[SYMBOL, i])] = price
        if changes.cells.size:
            note_change(holdings, changes, row, longs[SEQ, i], longs[TS, i], taker, price)
            if maker != taker:
                note_change(holdings, changes, row + 1, longs[SEQ, i], longs[TS, i], maker, price)
            row += 1 + (maker != taker)
    return stop, row


@kernel
def count_open(numbers, side, price, qty, sums, orders):
    """Add open orders, of cells `numbers`, to `sums` [cells, 3, WORDS] and to `orders` [cells]."""
    numbers, side, price, qty = bare(numbers), bare(side), bare(price), bare(qty)
    sums, orders = bare(sums), bare(orders)
    for i in range(numbers.size):
        number = np.int64(numbers[i])
        orders[number] += 1
        add_small(sums, number, OPEN_BUY if side[i] > 0 else OPEN_SELL, qty[i])
        add_product(sums, number, OPEN_NOTIONAL, abs(price[i]), qty[i])


@kernel
def list_sums(sums, values):
    """Sums [cells, columns, WORDS] as integers [columns, cells]; NOT_A_VALUE where none holds one."""
    sums, values = bare(sums), bare(values)
    for column in range(values.shape[0]):
        for number in range(values.shape[1]):
            values[column, number] = narrowed(load(sums, number, column))


@kernel
def list_cells(holdings, values):
    """What cells hold at the last prices, as integers [10, cells]; NOT_A_VALUE where none holds it."""
    holdings, values = bare_holdings(holdings), bare(values)
    for number in range(values.shape[1]):
        cell, at = holdings.cells[ix(number)], ix(number)
        if cell["wide"]:
            values[TO_POSITION, at] = narrowed(load(holdings.wide, cell["wide"], POSITION))
            values[TO_COST, at] = narrowed(load(holdings.wide, cell["wide"], COST))
            values[TO_REALISED, at] = narrowed(load(holdings.wide, cell["wide"], REALISED))
            values[TO_FEES, at] = narrowed(load(holdings.wide, cell["wide"], FEES))
            values[TO_BOUGHT, at] = narrowed(load(holdings.wide, cell["wide"], BOUGHT))
            values[TO_SOLD, at] = narrowed(load(holdings.wide, cell["wide"], SOLD))
        else:
            values[TO_POSITION, at], values[TO_COST, at] = cell["position"], cell["cost"]
            values[TO_REALISED, at], values[TO_FEES, at] = cell["realised"], cell["fees"]
            values[TO_BOUGHT, at], values[TO_SOLD, at] = cell["bought"], cell["sold"]
        values[TO_BOUGHT_NOTIONAL, at] = narrowed(load(holdings.notional, number, BOUGHT_NOTIONAL))
        values[TO_SOLD_NOTIONAL, at] = narrowed(load(holdings.notional, number, SOLD_NOTIONAL))
        values[TO_AVERAGE, at] = average_price(holdings, number)
        last = holdings.last[ix(cell["book"])] if holdings.last.size else np.int64(NOT_A_VALUE)
        values[TO_UNREALISED, at] = unrealised(holdings, number, last) if last != NOT_A_VALUE else np.int64(0)
