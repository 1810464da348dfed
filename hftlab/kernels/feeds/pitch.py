"""BATS PITCH, lines to integers: each message straight into the rows of an mbo table.

What a message looks like is told by a `Layout`, so the names of fields and the words for what is wrong with
one stay in `hftlab.feeds.pitch`. An E or X says nothing of its order but the id, so the open orders are
carried from block to block (`Session`). An s ends all orders of its symbol at once: the symbol's number of
clears goes up, and an order is open only while it is the one the order was added under; the places of such
orders are found again when the id is added, or when the tables are made anew.
"""

from __future__ import annotations

from string import ascii_uppercase, digits
from typing import NamedTuple

import numpy as np

from hftlab.codes import MBO_FLAG_LAST
from hftlab.kernels.codes import MBO_ADD, MBO_CANCEL, MBO_CLEAR, MBO_FILL, MBO_NOTHING, MBO_TRADE
from hftlab.kernels.feeds.itch import Columns, bare_columns, put
from hftlab.kernels.primitives.compile import helper, kernel
from hftlab.kernels.primitives.digits import RETURN, byte_at, digits_at, eight_bytes, first_other, number_of
from hftlab.kernels.primitives.hash_index import discard, fill_index, find, make_index, store
from hftlab.kernels.primitives.intrinsics import bare, highest_bit, ix

LAST = MBO_FLAG_LAST
BUYS, SELLS, SEQUENCED = b"BSS"

DAY_MS = 86_400_000
NS_PER_MS = 1_000_000
NO_SYMBOL = int.from_bytes(b"?       ", "little")
_SPACE, _BEYOND_PRINTABLE = b" \x7f"
_LOW_SIX = (1 << 48) - 1
_TWO_SPACES = 0x2020 << 48
_NEWLINE_EACH, _ONE, _HIGHEST = (np.uint64(char * 0x0101010101010101) for char in b"\n\x01\x80")
_DIGIT = np.array([int(chr(i), 36) if chr(i) in ascii_uppercase + digits else -1 for i in range(256)])

# what messages look like is told by an int64 array, [byte of the type, field from 1 on or 0, one of these]
ACTION, SHORTEST, LONGEST = 0, 1, 2  # of the type; the last two in characters from the time on, 0 for no type
WHAT, PLACE, WIDTH, VALUE, UNIT = (
    0,
    1,
    2,
    3,
    4,
)  # of a field; place from the time on, value: its place in values
LAYOUT = 256, 10, 5
CHARACTER, DIRECTION, SYMBOL, NUMBER, ID = 1, 2, 3, 4, 5  # what a field may be; 0 is none

# of the values of a message; the places of others are for the layout to say
ORDER_ID, SIDE, SHARES, NAME, PRICE, TYPE, TIME = range(7)
VALUES = 17
NO_MESSAGE, NO_TYPE, NO_TIME, LENGTH = range(VALUES, VALUES + 4)  # damage that is not of a field, as that is
KINDS_OF_DAMAGE = LENGTH + 256  # lengths by type
NO_DAMAGE = -1
COUNT, ROW, AT = range(3)  # what is known of each kind: how often, 1-based line and place of the first

# of a tally: lines met so far, ms of the last message, messages earlier than the one before, executions and
# cancels of orders that are not open, trades, symbols, places of orders that are taken and the first free one
LINES, CLOCK, BACKWARDS, EXECUTIONS, CANCELS, TRADES, SYMBOLS, PLACES, FREE = range(9)

ORDERS = 1 << 12  # places at first
NAMES = 1 << 10
# 24 bytes; of a free place, price is the next free one
ORDER = np.dtype([("price", "i8"), *((name, "i4") for name in ("shares", "symbol", "clears", "side"))])


class Session(NamedTuple):
    """What is carried from one block of lines to the next."""

    index: np.ndarray  # ENTRY: (order id, 0) -> place in `orders`
    orders: np.ndarray  # ORDER; place 0 is none
    name_index: np.ndarray  # ENTRY: (8 characters, 0) -> number of the symbol + 1
    names: np.ndarray  # int64: 8 characters by number
    clears: np.ndarray  # int32: how often a symbol was cleared, by number
    values: np.ndarray  # int64 [VALUES] of the message that is read
    tally: np.ndarray  # int64
    damage: np.ndarray  # int64 [KINDS_OF_DAMAGE, 3]


def make_rows(room: int) -> Columns:
    """Room for rows; memory is taken as it is written to."""
    types = ("i8", "i4", "i1", "i1", "i8", "i8", "i8", "u1", "i8")
    return Columns(*(np.empty(room, kind) for kind in types), np.empty(0, np.int64))


def start_session(orders: int = ORDERS, names: int = NAMES) -> Session:
    """Before the first line, with room for so many open orders and symbols."""
    session = Session(
        make_index(orders),
        np.zeros(orders, ORDER),
        make_index(names),
        np.zeros(names, np.int64),
        np.zeros(names, np.int32),
        np.zeros(VALUES, np.int64),
        np.zeros(FREE + 1, np.int64),
        np.zeros((KINDS_OF_DAMAGE, 3), np.int64),
    )
    session.orders["price"] = np.arange(1, orders + 1)  # all places are free, and chained
    session.tally[FREE] = 1
    return session


def grown(session: Session) -> Session:
    """The same session with room for more symbols and orders; orders that were cleared are gone."""
    entries = session.index[session.index["value"] != 0]
    orders = session.orders[entries["value"]]
    stays = orders["clears"] == session.clears[orders["symbol"]]
    keys, orders = entries["key"][stays], orders[stays]
    names = session.names[: session.tally[SYMBOLS]]
    larger = start_session(ORDERS + 2 * len(keys), NAMES + 2 * len(names))
    fill_index(larger.index, keys, np.zeros(len(keys), np.int64), np.arange(1, len(keys) + 1))
    fill_index(larger.name_index, names, np.zeros(len(names), np.int64), np.arange(1, len(names) + 1))
    larger.orders[1 : len(keys) + 1] = orders
    larger.names[: len(names)], larger.clears[: len(names)] = names, session.clears[: len(names)]
    larger.tally[:], larger.damage[:] = session.tally, session.damage
    larger.tally[PLACES], larger.tally[FREE] = len(keys), len(keys) + 1
    return larger


@helper
def bare_session(session):
    """The same session without reference counts (see intrinsics.py)."""
    return Session(
        bare(session.index),
        bare(session.orders),
        bare(session.name_index),
        bare(session.names),
        bare(session.clears),
        bare(session.values),
        bare(session.tally),
        bare(session.damage),
    )


# ------------------------------------------------------------------ symbols


@helper
def is_symbol(word):
    """Whether eight characters are printable ones, at least one, then spaces."""
    ended, first = False, word & 0xFF
    for i in range(8):
        char = word >> (8 * i) & 0xFF
        if char < _SPACE or char >= _BEYOND_PRINTABLE or (ended and char != _SPACE):
            return False
        ended |= char == _SPACE
    return first != _SPACE


@helper
def number_of_symbol(session, word):
    """Number of a symbol, given when it is met first; -1 for what is none."""
    place = find(session.name_index, word, 0)
    number = np.int64(session.name_index[ix(place)]["value"])
    if number == 0:
        if not is_symbol(word):
            return np.int64(-1)
        session.names[ix(session.tally[SYMBOLS])] = word
        session.tally[SYMBOLS] += 1
        number = session.tally[SYMBOLS]
        store(session.name_index, place, word, 0, number)
    return number - 1


# ------------------------------------------------------------------ open orders


@helper
def is_open(session, place):
    """Whether the order at a place was not cleared."""
    order = session.orders[ix(place)]
    return order["clears"] == session.clears[ix(order["symbol"])]


@helper
def add_order(session):
    """Open the order of the message, if its id is not open and it has shares."""
    values = session.values
    at = find(session.index, values[ORDER_ID], 0)
    place = np.int64(session.index[ix(at)]["value"])
    if values[SHARES] == 0 or (place != 0 and is_open(session, place)):
        return
    if place == 0:
        place = session.tally[FREE]
        session.tally[FREE] = session.orders[ix(place)]["price"]
        session.tally[PLACES] += 1
        store(session.index, at, values[ORDER_ID], 0, place)
    order = session.orders[ix(place)]
    order["price"], order["shares"], order["side"] = values[PRICE], values[SHARES], values[SIDE]
    order["symbol"], order["clears"] = values[NAME], session.clears[ix(values[NAME])]


@helper
def take_shares(session):
    """Take the message's shares from its order and tell its values the order's; whether it was open."""
    values = session.values
    at = find(session.index, values[ORDER_ID], 0)
    place = np.int64(session.index[ix(at)]["value"])
    if place == 0 or not is_open(session, place):
        values[SIDE], values[PRICE], values[NAME] = 0, 0, number_of_symbol(session, NO_SYMBOL)
        return False
    order = session.orders[ix(place)]
    values[SIDE], values[PRICE], values[NAME] = order["side"], order["price"], order["symbol"]
    order["shares"] -= values[SHARES]
    if order["shares"] <= 0:
        order["price"] = session.tally[FREE]
        session.tally[FREE] = place
        session.tally[PLACES] -= 1
        discard(session.index, at)
    return True


# ------------------------------------------------------------------ lines


@helper
def number_at(data, place, width):
    """The number of 6, 8 or 10 digits, -1 where they are none."""
    word = digits_at(data, place + width - 8)
    if width == 6:
        word &= ~0xFFFF
    if first_other(word) != 0:
        return np.int64(-1)
    number = number_of(word)
    if width == 10:
        tens, ones = byte_at(data, place) - 48, byte_at(data, place + 1) - 48
        if tens < 0 or tens > 9 or ones < 0 or ones > 9:
            return np.int64(-1)
        number += (10 * tens + ones) * 100_000_000
    return number


@helper
def id_at(data, place):
    """The number of 12 characters in base 36, below 2^63; -1 where they are none."""
    number, found = np.int64(0), np.int64(0)
    for i in range(12):
        digit = _DIGIT[data[ix(place + i)]]
        number, found = number * 36 + digit, found | digit
    return number if found >= 0 else np.int64(-1)


@helper
def field_at(data, place, what, width, session):
    """(the value of a field, whether it is one)."""
    if what == DIRECTION:
        side = np.int64(byte_at(data, place) == BUYS) - np.int64(byte_at(data, place) == SELLS)
        return side, side != 0
    if what == NUMBER:
        found = number_at(data, place, width)
    elif what == ID:
        found = id_at(data, place)
    elif what == SYMBOL:
        word = eight_bytes(data, place)
        found = number_of_symbol(session, word if width == 8 else word & _LOW_SIX | _TWO_SPACES)
    else:
        found = byte_at(data, place)
    return found, found >= 0


@helper
def read_message(data, start, length, layout, session):
    """The message whose time begins at `start` into the session's values; NO_DAMAGE, or the first."""
    if length < 9:
        return np.int64(NO_MESSAGE)
    kind, time_ms = byte_at(data, start + 8), number_at(data, start, 8)
    fields = layout[ix(kind)]
    if fields[0, SHORTEST] == 0:
        return np.int64(NO_TYPE)
    if length < fields[0, SHORTEST] or length > fields[0, LONGEST]:
        return LENGTH + kind
    if time_ms < 0 or time_ms >= DAY_MS:
        return np.int64(NO_TIME)
    session.values[TYPE], session.values[TIME], i = kind, time_ms, 1
    while fields[i, WHAT] != 0:
        found, sound = field_at(data, start + fields[i, PLACE], fields[i, WHAT], fields[i, WIDTH], session)
        if not sound:
            return fields[i, VALUE]
        session.values[ix(fields[i, VALUE])] = found * fields[i, UNIT]
        i += 1
    return np.int64(NO_DAMAGE)


@helper
def line_end(data, place):
    """Where the first newline from `place` on stands; `data` has one."""
    while True:
        other = np.uint64(eight_bytes(data, place)) ^ _NEWLINE_EACH
        found = (other - _ONE) & ~other & _HIGHEST
        if found != 0:
            return place + (highest_bit(np.int64(found & ~(found - np.uint64(1)))) >> 3)
        place += 8


@helper
def report(damage, kind, row, place):
    """Count damage; the first of a kind is remembered."""
    if damage[ix(kind), COUNT] == 0:
        damage[ix(kind), ROW], damage[ix(kind), AT] = row, place
    damage[ix(kind), COUNT] += 1


@helper
def apply(action, session):
    """What a message does to the open orders, and what its values learn from them."""
    values, tally = session.values, session.tally
    tally[BACKWARDS] += values[TIME] < tally[CLOCK]
    tally[CLOCK] = values[TIME]
    tally[TRADES] += action == MBO_TRADE
    if action == MBO_ADD:
        add_order(session)
    elif action == MBO_FILL:
        tally[EXECUTIONS] += not take_shares(session)
    elif action == MBO_CANCEL:
        tally[CANCELS] += not take_shares(session)
    elif action == MBO_CLEAR:
        session.clears[ix(values[NAME])] += 1


@helper
def put_message(rows, row, action, midnight_ns, values, sequence):
    """The rows of a message; how many are filled then."""
    name, side, price, shares = values[NAME], values[SIDE], values[PRICE], values[SHARES]
    order_id, ts_ns = values[ORDER_ID], midnight_ns + values[TIME] * NS_PER_MS
    if action == MBO_TRADE:
        side, order_id = -side, np.int64(0)
    elif action in (MBO_CLEAR, MBO_NOTHING):
        side, price, shares, order_id = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    elif action == MBO_FILL:
        put(rows, row, ts_ns, name, MBO_FILL, side, price, shares, order_id, 0, sequence)
        row, action = row + 1, np.int64(MBO_CANCEL)
    put(rows, row, ts_ns, name, action, side, price, shares, order_id, LAST, sequence)
    return row + 1


@kernel
def read_lines(data, place, layout, session, rows, row, messages, midnight_ns):
    """Read lines from data[place] on, which ends with a newline, into `rows` from `row` on.

    `messages` gets all values of each message where its first row is, unless it has no room at all.

    Returns (where it stopped, rows filled): at the end, or where the session must grow first.
    """
    data, layout, session, rows = bare(data), bare(layout), bare_session(session), bare_columns(rows)
    messages, values, tally, row = bare(messages), session.values, session.tally, np.int64(row)
    while (
        place < data.size and tally[PLACES] + 1 < session.orders.size and tally[SYMBOLS] < session.names.size
    ):
        end, start, sequence = line_end(data, place), np.int64(place), tally[LINES]
        length = end - (end > start and byte_at(data, end - 1) == RETURN)
        start += byte_at(data, start) == SEQUENCED
        damage = read_message(data, start, length - start, layout, session)
        place = end + 1
        tally[LINES] += 1
        # damage is noted, and the reading goes on at the next line
        if damage != NO_DAMAGE:
            report(session.damage, damage, sequence + 1, start)
            continue
        action = layout[ix(values[TYPE]), 0, ACTION]
        if action == MBO_NOTHING and layout[ix(values[TYPE]), 1, WHAT] != SYMBOL:
            values[NAME] = number_of_symbol(session, NO_SYMBOL)
        # the session first: an E or X says nothing of its order but the id, the rest is filled in here
        apply(action, session)
        if messages.size:
            messages[row, :] = values
        row = put_message(rows, row, action, midnight_ns, values, sequence)
    return place, row
