"""LOBSTER's lines, digits to integers: each message straight into the columns of an mbo table.

Nothing here is a float, and no text is made: eight bytes are looked at as one word, which tells at once how
many of them are digits and what number they are. That has no branch per digit, and lengths that change from
line to line are what a processor guesses worst. What a byte more or less would break is checked, so a line
is either a message or where the reading stops; what is wrong with it is for `hftlab.feeds.lobster` to say.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.codes import MBO_FLAG_HIDDEN, MBO_FLAG_LAST
from hftlab.kernels.codes import MBO_ADD, MBO_CANCEL, MBO_FILL, MBO_NOTHING, MBO_TRADE
from hftlab.kernels.feeds.nasdaq import is_masked
from hftlab.kernels.primitives.compile import helper, kernel
from hftlab.kernels.primitives.digits import NEWLINE, RETURN, byte_at, digits_at, first_other, number_of
from hftlab.kernels.primitives.intrinsics import bare, highest_bit, ix

LAST, MASKED = MBO_FLAG_LAST, MBO_FLAG_LAST | MBO_FLAG_HIDDEN

ADD, REDUCTION, DELETION, EXECUTION, HIDDEN, CROSS, HALT = range(1, 8)  # types of messages
COMMA, MINUS, DOT, ZERO = (ord(char) for char in ",-.0")

TIME_DECIMALS = 12
MAX_DIGITS = 20  # of an integer; more are refused whatever their value
SAFE_DIGITS = 18  # these fit in 64 bits whatever they are
DAY_PS = 86_400 * 10**TIME_DECIMALS
PS_PER_NS = 1_000

_ACTION = np.array(  # of the last row of a message, by type
    [MBO_NOTHING, MBO_ADD, MBO_CANCEL, MBO_CANCEL, MBO_CANCEL, MBO_TRADE, MBO_TRADE, MBO_NOTHING], np.int8
)
_POWER = np.array([10**k for k in range(TIME_DECIMALS + 1)])
_SIXTH = 0x80 << 40  # of eight bytes, the highest bit


class Rows(NamedTuple):
    """Columns of an mbo table with room for as many rows as they are long."""

    ts_ns: np.ndarray  # int64
    action: np.ndarray  # int8, MboAction
    side: np.ndarray  # int8
    price: np.ndarray  # int64, 1e-9
    size: np.ndarray  # int64
    order_id: np.ndarray  # int64, the bits of a uint64
    flags: np.ndarray  # uint8
    sequence: np.ndarray  # int64, 0-based line of the file


LINES, TIME_PS, BACKWARDS, TYPES = range(4)  # of a tally: lines read, the last time, ...; counts by type
TALLY = TYPES + HALT + 1
DONE, FULL, BROKEN = range(3)  # why the reading stopped


def make_rows(room: int) -> Rows:
    """Room for rows; memory is taken as it is written to."""
    types = ("i8", "i1", "i1", "i8", "i8", "i8", "u1", "i8")
    return Rows(*(np.empty(room, kind) for kind in types))


@helper
def bare_rows(rows):
    """The same rows without reference counts (see intrinsics.py)."""
    return Rows(
        bare(rows.ts_ns),
        bare(rows.action),
        bare(rows.side),
        bare(rows.price),
        bare(rows.size),
        bare(rows.order_id),
        bare(rows.flags),
        bare(rows.sequence),
    )


@helper
def eight_digits(data, place):
    """(how many digits stand here, up to eight; their number)."""
    word = digits_at(data, place)
    other = first_other(word)
    if other == 0:
        return np.int64(8), number_of(word)
    count = np.int64(highest_bit(other) >> 3)
    if count == 0:
        return count, np.int64(0)
    return count, number_of(word << (64 - 8 * count))


@helper
def careful_integer(data, place, count):
    """The number of `count` digits, or -1 where 63 bits don't hold it."""
    value = np.int64(0)
    for i in range(count):
        digit = byte_at(data, place + i) - ZERO
        if value > (2**63 - 1 - digit) // 10:
            return np.int64(-1)
        value = 10 * value + digit
    return value


@helper
def integer(data, place):
    """(where it ends, the integer that stands here); an end of -1 where 64 bits hold none."""
    negative = np.int64(byte_at(data, place) == MINUS)
    place += negative
    count, value = eight_digits(data, place)
    if count == 8:
        more, low = eight_digits(data, place + 8)
        count += more
        if more == 8:
            rest, lowest = eight_digits(data, place + 16)
            count += rest
            if count <= SAFE_DIGITS:
                value = (value * _POWER[8] + low) * _POWER[ix(rest)] + lowest
            elif count <= MAX_DIGITS:
                value = careful_integer(data, place, count)
            else:
                value = np.int64(-1)
        else:
            value = value * _POWER[ix(more)] + low
    if count == 0 or value < 0:
        return np.int64(-1), np.int64(0)
    return place + count, (value ^ -negative) + negative


@helper
def usual_time(data, place):
    """Seconds in ps where five digits and nine decimals stand here, as they do from 02:46:40 on; else -1.

    That an end is where it usually is can be guessed ahead; to count up to it keeps what follows waiting
    (52 -> 33 ns a line, with the same for types and directions).
    """
    if place + 16 > data.size:
        return np.int64(-1)
    seconds, decimals = digits_at(data, place), digits_at(data, place + 6)
    ninth = byte_at(data, place + 14) - ZERO
    if (
        first_other(seconds) != _SIXTH
        or byte_at(data, place + 5) != DOT
        or first_other(decimals) != 0
        or ninth < 0
        or ninth > 9
        or byte_at(data, place + 15) != COMMA
    ):
        return np.int64(-1)
    ps = number_of(decimals) * _POWER[TIME_DECIMALS - 8] + ninth * _POWER[TIME_DECIMALS - 9]
    return number_of(seconds << 24) * _POWER[TIME_DECIMALS] + ps


@helper
def time_of_day(data, place):
    """(where it ends, the seconds that stand here in ps); an end of -1 where they are no time."""
    time_ps = usual_time(data, place)
    if time_ps >= 0:
        return place + 15, time_ps
    count, seconds = eight_digits(data, place)
    if count == 0 or count > 5:
        return np.int64(-1), np.int64(0)
    place += count
    if byte_at(data, place) != DOT:
        return place, seconds * _POWER[TIME_DECIMALS]
    place += 1
    count, decimals = eight_digits(data, place)
    if count == 8:
        more, low = eight_digits(data, place + 8)
        if more > TIME_DECIMALS - 8:
            return np.int64(-1), np.int64(0)
        count += more
        decimals = decimals * _POWER[ix(more)] + low
    return place + count, seconds * _POWER[TIME_DECIMALS] + decimals * _POWER[ix(TIME_DECIMALS - count)]


@helper
def type_of(data, place):
    """(where it ends, the type that stands here)."""
    kind = byte_at(data, place) - ZERO
    if kind >= ADD and kind <= HALT and byte_at(data, place + 1) == COMMA:
        return place + 1, kind
    return integer(data, place)


@helper
def direction_of(data, place):
    """(where it ends, the direction that stands here)."""
    negative = np.int64(byte_at(data, place) == MINUS)
    digit = byte_at(data, place + negative) - ZERO
    if digit >= 0 and digit <= 1 and byte_at(data, place + negative + 1) == NEWLINE:
        return place + negative + 1, (digit ^ -negative) + negative
    return integer(data, place)


@helper
def line_end(data, place):
    """Where the next line begins if this one ends here, else -1."""
    if byte_at(data, place) == RETURN:
        place += 1
    return place + 1 if byte_at(data, place) == NEWLINE else np.int64(-1)


@helper
def lawful(time_ps, kind, order_id, price, direction, max_price):
    """Whether the values of a message are what they may be."""
    if time_ps >= DAY_PS or kind < ADD or kind > HALT or price > max_price or price < -max_price:
        return False
    if order_id < 0 and kind <= EXECUTION:
        return False
    return direction * direction == 1 or (direction == 0 and kind > HIDDEN)


@helper
def fill(rows, row, ts_ns, action, side, price, size, order_id, flags, sequence):
    """One row."""
    place = ix(row)
    rows.ts_ns[place] = ts_ns
    rows.action[place] = action
    rows.side[place] = side
    rows.price[place] = price
    rows.size[place] = size
    rows.order_id[place] = order_id
    rows.flags[place] = flags
    rows.sequence[place] = sequence


@helper
def separated(data, at):
    """Whether a field ended at `at`, and a comma follows."""
    return at >= 0 and byte_at(data, at) == COMMA


@helper
def message(data, place, max_price):
    """(where the line that begins at `place` has ended, its six fields); -1 where it is no message."""
    none = np.int64(-1), np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    at, time_ps = time_of_day(data, place)
    if not separated(data, at):
        return none
    at, kind = type_of(data, at + 1)
    if not separated(data, at):
        return none
    at, order_id = integer(data, at + 1)
    if not separated(data, at):
        return none
    at, size = integer(data, at + 1)
    if not separated(data, at):
        return none
    at, price = integer(data, at + 1)
    if not separated(data, at):
        return none
    at, direction = direction_of(data, at + 1)
    if at < 0 or not lawful(time_ps, kind, order_id, price, direction, max_price):
        return none
    return line_end(data, at), time_ps, kind, order_id, size, price, direction


@kernel
def read_lines(data, place, stop, rows, row, tally, midnight_ns, price_units):
    """Read the messages of data[place:stop], which ends with a newline, into `rows` from `row` on.

    `midnight_ns` is when the day of the file began, `price_units` what one of its prices is in units of 1e-9.

    Returns (why it stopped, where: the start of the first line not read, rows filled): DONE at the end,
    FULL where there may be no room for a message, BROKEN where a line is none. `tally` is gone on with.
    """
    rows, data, tally = bare_rows(rows), bare(data), bare(tally)
    max_price = (2**63 - 1) // price_units
    lines, last_ps, backwards = tally[LINES], tally[TIME_PS], tally[BACKWARDS]
    status, masked = DONE, is_masked(midnight_ns)
    while place < stop:
        # an execution makes two rows
        if row + 2 > rows.action.size:
            status = FULL
            break
        end, time_ps, kind, order_id, size, price, direction = message(data, place, max_price)
        if end < 0:
            status = BROKEN
            break
        flags = LAST
        ts_ns, price = midnight_ns + time_ps // PS_PER_NS, price * price_units
        # outside of the visible book no order is named; the side of a hidden execution is the aggressor's
        if kind > EXECUTION:
            order_id = np.int64(0)
            if kind != HIDDEN or masked:
                flags = MASKED if kind == HIDDEN else LAST
                direction = np.int64(0)
            direction = -direction  # the aggressor's
        elif kind == EXECUTION:
            fill(rows, row, ts_ns, MBO_FILL, direction, price, size, order_id, 0, lines)
            row += 1
        fill(rows, row, ts_ns, _ACTION[ix(kind)], direction, price, size, order_id, flags, lines)
        tally[ix(TYPES + kind)] += 1
        backwards += time_ps < last_ps
        place, row, lines, last_ps = end, row + 1, lines + 1, time_ps
    tally[LINES], tally[TIME_PS], tally[BACKWARDS] = lines, last_ps, backwards
    return status, place, row
