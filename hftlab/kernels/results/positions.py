"""Positions at average cost, P&L and fees: one pass over fills in input order.

A holding is an account in a symbol. It is kept in 64-bit integers as long as these suffice, and in exact ones
(`int256.py`) from the first fill on that might pass them; what comes out is the same. Sums of notional are
always exact. Sums are of price x lots; what a lot is worth makes them money where they are listed. Rules and
rounding are those of docs/RISK.md, "Positions and P&L".
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
from hftlab.kernels.primitives.intrinsics import ZERO, bare, ix
from hftlab.kernels.results.tables import MAKERS, PRICE, QTY, SEQ, SYMBOL, TAKERS, TS

HOLDING = np.dtype(
    [
        ("position", "i8"),  # lots bought less lots sold
        ("cost", "i8"),  # price x lots; of a short position negative
        ("realised", "i8"),  # price x lots
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
# sums of a holding: |price| x lots traded; and of its open orders
BOUGHT_NOTIONAL, SOLD_NOTIONAL = range(2)
OPEN_BUY, OPEN_SELL, OPEN_NOTIONAL = range(3)

# columns of a list of holdings
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
ONE = 10**9  # what a lot is worth whose money is price x lots


class Holdings(NamedTuple):
    """What holdings hold; the first of them is nobody's."""

    records: np.ndarray  # HOLDING
    notional: np.ndarray  # int64 [holdings, 2, WORDS]
    wide: np.ndarray  # int64 [rows, WIDE_COLUMNS, WORDS]
    wide_rows: np.ndarray  # int64 [1]: how many of them are in use
    last: np.ndarray  # int64 [books]: price of the last fill, or NOT_A_VALUE
    worth: np.ndarray  # int64 [books]: price x lots of 1 as money, 1e-9


class Changes(NamedTuple):
    """Room for a row per holding and fill, or none."""

    longs: np.ndarray  # int64 [7, rows]
    numbers: np.ndarray  # int32 [rows]: whose


@helper
def bare_holdings(holdings):
    """Holdings without reference counts."""
    return Holdings(
        bare(holdings.records),
        bare(holdings.notional),
        bare(holdings.wide),
        bare(holdings.wide_rows),
        bare(holdings.last),
        bare(holdings.worth),
    )


@kernel
def find_holdings(index, holdings, known, books, accounts, start, numbers):
    """Number of the holding of each (book, account) from `start` on; new ones come after the `known` ones.

    Returns where it stopped and how many there are; it stops early when `holdings` (of half the length of
    `index`) has no room for another.
    """
    index, holdings, numbers = bare(index), bare(holdings), bare(numbers)
    books, accounts = bare(books), bare(accounts)
    for i in range(start, numbers.size):
        account, book = np.int64(accounts[ix(i)]), np.int64(books[ix(i)])
        place = find(index, account, book)
        number = index[ix(place)]["value"]
        if number == 0:
            if known == holdings.size:
                return i, known
            number = np.int32(known)
            store_key(index, place, account, book, number)
            holdings[ix(known)]["account"], holdings[ix(known)]["book"] = account, book
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
def book_small(holding, sign, price, qty, amount, fee):
    """Book one side of a fill of a SMALL amount; False, and nothing changed, where the sums are not."""
    position, cost = np.int64(holding["position"]), np.int64(holding["cost"])
    realised = np.int64(holding["realised"])
    # against the position: lots leave at their average cost, and the difference is realised
    reduced, taken = ZERO, ZERO
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
    fees = holding["fees"] + fee
    bought, sold = holding["bought"] + (qty if sign > 0 else 0), holding["sold"] + (qty if sign < 0 else 0)
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
    holding["position"], holding["cost"], holding["realised"], holding["fees"] = (
        position,
        cost,
        realised,
        fees,
    )
    holding["bought"], holding["sold"] = bought, sold
    return True


# ------------------------------------------------------------------ the same, exactly


@rare
def widen(holding, wide, wide_rows):
    """From now on a holding is kept in exact integers."""
    row = wide_rows[0]
    store(wide, row, POSITION, exact(holding["position"]))
    store(wide, row, COST, exact(holding["cost"]))
    store(wide, row, REALISED, exact(holding["realised"]))
    store(wide, row, FEES, exact(holding["fees"]))
    store(wide, row, BOUGHT, exact(holding["bought"]))
    store(wide, row, SOLD, exact(holding["sold"]))
    holding["wide"] = row
    wide_rows[0] = row + 1


@rare
def exact_fee(price, qty, worth, bps, per_lot):
    """The fee for a fill, rounded up: 1e-9."""
    share = times(times(times(exact(abs(price)), qty), worth), bps)
    if bps > 0:
        share = add(share, exact(WHOLE * ONE - 1))
    return add(divide(share, exact(WHOLE * ONE)), times(exact(per_lot), qty))


@rare
def exact_money(number, worth):
    """Price x lots as money, rounded toward zero, or NOT_A_VALUE."""
    return narrowed(divide(times(number, worth), exact(ONE)))


@helper
def money(amount, worth):
    """The same of 64 bits."""
    return np.int64(amount) if worth == ONE else exact_money(exact(amount), worth)


@helper
def wide_money(words, row, column, worth):
    """The same of an exact number."""
    number = load(words, row, column)
    return narrowed(number) if worth == ONE else exact_money(number, worth)


@rare
def book_wide(wide, row, sign, price, qty, worth, bps, per_lot):
    """Book one side of a fill."""
    position, cost = load(wide, row, POSITION), load(wide, row, COST)
    extended = qty
    if sign_of(position) * sign < 0:
        held = times(position, -sign)
        over = subtract(exact(qty), held)
        if sign_of(over) >= 0:
            extended, taken = narrowed(over), cost
        else:
            extended, taken = ZERO, divide(times(cost, qty), held)
        proceeds = times(times(exact(price), qty - extended), -sign)
        store(wide, row, REALISED, add(load(wide, row, REALISED), subtract(proceeds, taken)))
        cost = subtract(cost, taken)
    store(wide, row, COST, add(cost, times(times(exact(price), extended), sign)))
    store(wide, row, POSITION, add(position, times(exact(qty), sign)))
    column = BOUGHT if sign > 0 else SOLD
    store(wide, row, column, add(load(wide, row, column), exact(qty)))
    fee = exact_fee(price, qty, worth, bps, per_lot)
    store(wide, row, FEES, add(load(wide, row, FEES), fee))


@rare
def add_product(words, row, column, a, b):
    """Add a x b to a sum."""
    store(words, row, column, add(load(words, row, column), times(exact(a), b)))


@rare
def exact_gain(position, price, cost, worth):
    """position x price - cost, as money."""
    return exact_money(subtract(times(exact(price), position), exact(cost)), worth)


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
    """Book one side of a fill; `fees` is by holding, or [0]."""
    holding = holdings.records[ix(number)]
    worth = holdings.worth[ix(holding["book"])]
    bps, per_lot = ZERO, ZERO
    if fees.size:
        rates = fees[ix(number)]
        bps, per_lot = np.int64(rates["taker_bps"]), np.int64(rates["taker_lot"])
        if is_maker:
            bps, per_lot = np.int64(rates["maker_bps"]), np.int64(rates["maker_lot"])
    column = BOUGHT_NOTIONAL if sign > 0 else SOLD_NOTIONAL
    if amount != TOO_LARGE:
        add_small(holdings.notional, number, column, abs(amount))
        if holding["wide"] == 0:
            fee = side_fee(fees, bps, per_lot, price, qty, amount, worth)
            if fee != TOO_LARGE and book_small(holding, sign, price, qty, amount, fee):
                return
    else:
        add_product(holdings.notional, number, column, abs(price), qty)
    if holding["wide"] == 0:
        widen(holding, holdings.wide, holdings.wide_rows)
    book_wide(holdings.wide, np.int64(holding["wide"]), sign, price, qty, worth, bps, per_lot)


@helper
def side_fee(fees, bps, per_lot, price, qty, amount, worth):
    """The fee for one side of a fill, or TOO_LARGE."""
    if not fees.size:
        return ZERO
    if worth == ONE:
        return fee_of(bps, per_lot, amount, qty)
    fee = narrowed(exact_fee(price, qty, worth, bps, per_lot))
    return fee if is_small(fee) else np.int64(TOO_LARGE)


@helper
def average_price(holdings, number):
    """What a lot of a holding's position has cost, or NOT_A_VALUE."""
    holding = holdings.records[ix(number)]
    if holding["wide"]:
        position = load(holdings.wide, holding["wide"], POSITION)
        if sign_of(position) == 0:
            return np.int64(NOT_A_VALUE)
        return narrowed(divide(load(holdings.wide, holding["wide"], COST), position))
    if holding["position"] == 0:
        return np.int64(NOT_A_VALUE)
    return rounded_quotient(np.int64(holding["cost"]), np.int64(holding["position"]))


@helper
def unrealised(holdings, number, price):
    """What closing a holding's position at a price would realise, or NOT_A_VALUE."""
    holding = holdings.records[ix(number)]
    worth = holdings.worth[ix(holding["book"])]
    if holding["wide"]:
        value = times(load(holdings.wide, holding["wide"], POSITION), price)
        return exact_money(subtract(value, load(holdings.wide, holding["wide"], COST)), worth)
    value = small_product(holding["position"], price)
    if value == TOO_LARGE or worth != ONE:
        return exact_gain(np.int64(holding["position"]), price, np.int64(holding["cost"]), worth)
    return value - np.int64(holding["cost"])


@helper
def note_change(holdings, changes, row, seq, ts, number, price):
    """Put down what a holding holds after a fill."""
    holding, longs, at = holdings.records[ix(number)], changes.longs, ix(row)
    longs[AT_SEQ, at], longs[AT_TS, at], changes.numbers[at] = seq, ts, number
    longs[AT_AVERAGE, at] = average_price(holdings, number)
    longs[AT_UNREALISED, at] = unrealised(holdings, number, price)
    worth = holdings.worth[ix(holding["book"])]
    if holding["wide"]:
        longs[AT_POSITION, at] = narrowed(load(holdings.wide, holding["wide"], POSITION))
        longs[AT_REALISED, at] = wide_money(holdings.wide, holding["wide"], REALISED, worth)
        longs[AT_FEES, at] = narrowed(load(holdings.wide, holding["wide"], FEES))
    else:
        longs[AT_POSITION, at] = holding["position"]
        longs[AT_REALISED, at] = money(holding["realised"], worth)
        longs[AT_FEES, at] = holding["fees"]


@kernel
def book_fills(longs, ints, sides, numbers, fees, holdings, changes, start, stop, row):
    """Book expanded fills [start, stop), of holdings `numbers` [TAKERS and MAKERS, fills].

    Changes go from `row` on, where there is room for any. Returns where it stopped, early when `wide` has no
    room for two more holdings, and the next row of changes.
    """
    longs, ints, sides, numbers, fees = bare(longs), bare(ints), bare(sides), bare(numbers), bare(fees)
    holdings = bare_holdings(holdings)
    changes = Changes(bare(changes.longs), bare(changes.numbers))
    for i in range(start, stop):
        if holdings.wide_rows[0] + 2 > holdings.wide.shape[0]:
            return i, row
        price, qty, sign = longs[PRICE, i], longs[QTY, i], np.int64(sides[i])
        taker, maker = np.int64(numbers[TAKERS, i]), np.int64(numbers[MAKERS, i])
        amount = small_product(price, qty)
        book_side(holdings, fees, taker, sign, price, qty, amount, False)
        book_side(holdings, fees, maker, -sign, price, qty, amount, True)
        holdings.last[ix(ints[SYMBOL, i])] = price
        if changes.numbers.size:
            note_change(holdings, changes, row, longs[SEQ, i], longs[TS, i], taker, price)
            if maker != taker:
                note_change(holdings, changes, row + 1, longs[SEQ, i], longs[TS, i], maker, price)
            row += 1 + (maker != taker)
    return stop, row


@kernel
def count_open(numbers, side, price, qty, sums, orders):
    """Add open orders, of holdings `numbers`, to `sums` [holdings, 3, WORDS] and to `orders` [holdings]."""
    numbers, side, price, qty = bare(numbers), bare(side), bare(price), bare(qty)
    sums, orders = bare(sums), bare(orders)
    for i in range(numbers.size):
        number = np.int64(numbers[i])
        orders[number] += 1
        add_small(sums, number, OPEN_BUY if side[i] > 0 else OPEN_SELL, qty[i])
        add_product(sums, number, OPEN_NOTIONAL, abs(price[i]), qty[i])


@kernel
def list_open(sums, worth, values):
    """Sums [holdings, 3, WORDS] of `count_open` as integers [3, holdings], the notional as money.

    `worth` is by holding. NOT_A_VALUE where none holds one.
    """
    sums, worth, values = bare(sums), bare(worth), bare(values)
    for number in range(values.shape[1]):
        for column in (OPEN_BUY, OPEN_SELL):
            values[column, number] = narrowed(load(sums, number, column))
        values[OPEN_NOTIONAL, number] = wide_money(sums, number, OPEN_NOTIONAL, worth[ix(number)])


@kernel
def list_holdings(holdings, values):
    """What holdings hold at the last prices, as integers [10, holdings]; NOT_A_VALUE where none holds it."""
    holdings, values = bare_holdings(holdings), bare(values)
    for number in range(values.shape[1]):
        holding, at = holdings.records[ix(number)], ix(number)
        worth = holdings.worth[ix(holding["book"])] if holdings.worth.size else np.int64(ONE)
        if holding["wide"]:
            values[TO_POSITION, at] = narrowed(load(holdings.wide, holding["wide"], POSITION))
            values[TO_COST, at] = wide_money(holdings.wide, holding["wide"], COST, worth)
            values[TO_REALISED, at] = wide_money(holdings.wide, holding["wide"], REALISED, worth)
            values[TO_FEES, at] = narrowed(load(holdings.wide, holding["wide"], FEES))
            values[TO_BOUGHT, at] = narrowed(load(holdings.wide, holding["wide"], BOUGHT))
            values[TO_SOLD, at] = narrowed(load(holdings.wide, holding["wide"], SOLD))
        else:
            values[TO_POSITION, at], values[TO_COST, at] = holding["position"], money(holding["cost"], worth)
            values[TO_REALISED, at], values[TO_FEES, at] = money(holding["realised"], worth), holding["fees"]
            values[TO_BOUGHT, at], values[TO_SOLD, at] = holding["bought"], holding["sold"]
        values[TO_BOUGHT_NOTIONAL, at] = wide_money(holdings.notional, number, BOUGHT_NOTIONAL, worth)
        values[TO_SOLD_NOTIONAL, at] = wide_money(holdings.notional, number, SOLD_NOTIONAL, worth)
        values[TO_AVERAGE, at] = average_price(holdings, number)
        last = holdings.last[ix(holding["book"])] if holdings.last.size else np.int64(NOT_A_VALUE)
        values[TO_UNREALISED, at] = unrealised(holdings, number, last) if last != NOT_A_VALUE else ZERO
