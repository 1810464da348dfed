"""NASDAQ TotalView-ITCH 5.0: bytes to the columns of an mbo table, in one pass.

A message tells of its order only what changes: the side and price of an execution, the size of a delete are
the order's own. So the decoder carries the open orders (`Session`), and whoever calls it may cut the bytes
anywhere between two messages. Numbers are big-endian and unaligned; offsets count from a message's type.

An order is open in the *near* table, a window over the newest references (they are unique within the day and
nearly increasing, so the low bits of a reference are its place), until a newer one needs the place; then it
moves to the *far* index, which is hashed. Half of all orders live so shortly that they never move.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.codes import MAX_QTY, MBO_FLAG_HIDDEN, MBO_FLAG_LAST
from hftlab.kernels.codes import MBO_ADD, MBO_CANCEL, MBO_FILL, MBO_NOTHING, MBO_TRADE
from hftlab.kernels.feeds.nasdaq import is_masked
from hftlab.kernels.primitives.compile import helper, kernel
from hftlab.kernels.primitives.hash_index import discard, find, make_index, store
from hftlab.kernels.primitives.intrinsics import bare, be16, be32, be64, ix

LENGTHS = np.zeros(256, np.int64)  # bytes of a message by its type; 0: no such type
for _kinds, _length in (
    ("S", 12), ("R", 39), ("H", 25), ("Y", 20), ("L", 26), ("V", 35), ("W", 12), ("K", 28), ("J", 35),
    ("h", 21), ("A", 36), ("F", 40), ("E", 31), ("C", 36), ("X", 23), ("D", 19), ("U", 35), ("P", 44),
    ("Q", 40), ("B", 19), ("I", 50), ("N", 20), ("O", 48),
):  # fmt: skip
    LENGTHS[ord(_kinds)] = _length
LENGTHS.setflags(write=False)
LONGEST = int(LENGTHS.max())
SHORTEST = 11  # what every message has: type, locate, tracking number, time

ROWS_OF = np.zeros(256, np.int64)  # rows of the mbo table by type
for _kinds, _rows in (("AFXDPQBH", 1), ("ECU", 2)):
    ROWS_OF[[ord(_kind) for _kind in _kinds]] = _rows
ROWS_OF.setflags(write=False)

STOCK_AT = np.zeros(256, np.int64)  # where messages that have rows name their stock; 0: nowhere
for _kinds, _place in (("AFP", 24), ("Q", 19), ("H", 11)):
    STOCK_AT[[ord(_kind) for _kind in _kinds]] = _place
STOCK_AT.setflags(write=False)

LETTERS = np.array([chr(_code).isalnum() and _code < 128 for _code in range(256)])  # that a type may be

BARE, FRAMED, SOUP = 0, 1, 2  # nothing before a message; its length in 2 bytes; that, and a packet type
PREFIX = 2  # bytes of a length

LOCATES = 1 << 16
NEAR_BITS = 18  # of the near table at first
MOVED = 1 << 13  # places for orders that had to leave it, at first
MOST_NEAR_BITS = 22  # 64 MB
PLACE_BITS = (1 << 17) - 1  # of a reference that its place tells, if the table is that large or larger
SELL_BIT = 1 << 16
NOT_ENLISTED, UNWANTED, NAMELESS_FROM = -1, -2, -3  # of book_of; -3 - number: a symbol without a name yet
NOWHERE = -1
FOUND_AT, FOUND_MESSAGE = 0, 1  # columns of what a search finds

LIVE = np.dtype(
    [
        ("open", "i8"),  # price << 32 | shares; 0: no order
        ("name", "i8"),  # reference without its low 17 bits, which its place tells; side; locate
    ],
    align=True,
)

(
    MESSAGES,  # met so far, of all types
    ROWS,  # of the whole flow, those of unwanted symbols too
    BOOKS,  # symbols with rows
    FAR,  # orders in the far index
    FREE,  # first free place of `moved`
    FULL,  # something must grow before the next message
    LOST,  # looking for the next message after damage
    CLOCK,  # time of the last message
    BACKWARDS,  # messages earlier than the one before
    UNKNOWN,  # references to orders that are not open
    TWICE,  # orders added under a reference that is open
    EXCEEDED,  # more taken off than was open
    NAMELESS,  # symbols without a directory message
    SKIPPED,  # bytes skipped over damage
    NEWEST,  # the highest reference that was added
) = range(15)
TOTALS = 15

UNKNOWN_TYPE, WRONG_LENGTH, EMPTY_FRAME, UNKNOWN_PACKET, NO_SIDE = range(5)  # kinds of damage
COUNT, OFFSET, VALUE = range(3)  # what is known of each: how often, where and what the first was

S_, R_, H_, A_, F_, E_, C_, X_, D_, U_, P_, Q_, B_ = (ord(letter) for letter in "SRHAFECXDUPQB")
BUYS, SELLS = ord("B"), ord("S")
PACKETS = np.zeros(256, np.int64)  # lengths of SoupBinTCP's packets without a message; 0: no such type
for _kinds, _length in (("A", 31), ("J", 2), ("HZRO", 1), ("L", 47)):
    PACKETS[[ord(_kind) for _kind in _kinds]] = _length
DEBUG, UNSEQUENCED = ord("+"), ord("U")  # of any length
CHAIN_FRAMED, CHAIN_BARE = 4, 12  # messages in a row by which one finds back into the stream
HIGHEST_BIT = np.int64(-(2**63))
DAY_NS = 86_400 * 10**9
CLOCK_MASK = (1 << 48) - 1
PRICE_UNITS = 100_000  # 1e-4 -> 1e-9
LAST, MASKED = MBO_FLAG_LAST, MBO_FLAG_LAST | MBO_FLAG_HIDDEN


class Session(NamedTuple):
    """What is carried from one piece of a file to the next."""

    near: np.ndarray  # LIVE [2^n, n >= 17]: by the low bits of the reference
    far: np.ndarray  # ENTRY: (reference, locate) -> place in `moved`
    moved: np.ndarray  # LIVE: orders that had to leave; free places are chained by `name`
    book_of: np.ndarray  # int32 [LOCATES]: number of the symbol, NOT_ENLISTED or UNWANTED
    name_of: np.ndarray  # int64 [LOCATES]: the 8 letters of the stock, 0 unknown
    names: np.ndarray  # int64 [symbols]: by number
    locates: np.ndarray  # int32 [symbols]: by number
    wanted: np.ndarray  # int64, the letters of the symbols to keep; empty: all
    totals: np.ndarray  # int64 [TOTALS]
    faults: np.ndarray  # int64 [5, 3]


class Columns(NamedTuple):
    """The buffers of an mbo table."""

    ts: np.ndarray  # int64 ns
    symbol: np.ndarray  # int32
    action: np.ndarray  # int8
    side: np.ndarray  # int8
    price: np.ndarray  # int64
    size: np.ndarray  # int64
    order_id: np.ndarray  # int64, the bits of a uint64
    flags: np.ndarray  # uint8
    sequence: np.ndarray  # int64
    row: np.ndarray  # int64: row of the unfiltered table; absent where nothing is filtered


def start_session(wanted: np.ndarray, near_bits: int = NEAR_BITS) -> Session:
    """Before the first byte; `wanted` are the letters of the symbols to keep, none for all."""
    totals = np.zeros(TOTALS, np.int64)
    totals[FREE] = 1
    return Session(
        np.zeros(1 << near_bits, LIVE),
        make_index(MOVED),
        _free_places(MOVED),
        np.full(LOCATES, NOT_ENLISTED, np.int32),
        np.zeros(LOCATES, np.int64),
        np.zeros(1 << 10, np.int64),
        np.zeros(1 << 10, np.int32),
        wanted,
        totals,
        np.zeros((5, 3), np.int64),
    )


def grown(session: Session) -> Session:
    """The same session with room for more orders or symbols, whichever was missing."""
    totals = session.totals
    if totals[BOOKS] == session.names.size:
        names, locates = (np.concatenate((a, np.zeros_like(a))) for a in (session.names, session.locates))
        session = session._replace(names=names, locates=locates)
    if totals[FAR] + 2 >= session.moved.size:
        wider = session.near.size < 1 << MOST_NEAR_BITS
        near, moved = session.near.size << wider, session.moved.size << 1
        larger = session._replace(
            near=np.zeros(near, LIVE), far=make_index(moved), moved=_free_places(moved), totals=totals.copy()
        )
        larger.totals[FAR], larger.totals[FREE] = 0, 1
        move_orders(session, larger)
        larger.totals[TWICE] = totals[TWICE]
        session = larger
    session.totals[FULL] = 0
    return session


def _free_places(count: int) -> np.ndarray:
    """Places for orders, chained; place 0 is none, because a value of 0 marks a free entry of the index."""
    moved = np.zeros(count, LIVE)
    moved["name"] = np.arange(1, count + 1)
    return moved


@helper
def bare_session(session):
    """The same session without reference counts (see intrinsics.py)."""
    return Session(
        bare(session.near),
        bare(session.far),
        bare(session.moved),
        bare(session.book_of),
        bare(session.name_of),
        bare(session.names),
        bare(session.locates),
        bare(session.wanted),
        bare(session.totals),
        bare(session.faults),
    )


@helper
def bare_columns(columns):
    """The same columns without reference counts."""
    return Columns(
        bare(columns.ts),
        bare(columns.symbol),
        bare(columns.action),
        bare(columns.side),
        bare(columns.price),
        bare(columns.size),
        bare(columns.order_id),
        bare(columns.flags),
        bare(columns.sequence),
        bare(columns.row),
    )


# ------------------------------------------------------------------ open orders


@helper
def name_for(reference, locate, sell):
    """What distinguishes an order from others of the same place."""
    return (reference & ~np.int64(PLACE_BITS)) | (sell << 16) | locate


@helper
def find_order(session, reference, locate):
    """Where an order is open: a place in `near`, `near.size` + a place in `moved`, or NOWHERE."""
    place = reference & (session.near.size - 1)
    order = session.near[ix(place)]
    other = (order["name"] ^ name_for(reference, locate, np.int64(0))) & ~np.int64(SELL_BIT)
    if order["open"] != 0 and other == 0:
        return place
    if session.totals[FAR] != 0:
        moved = np.int64(session.far[ix(find(session.far, reference, locate))]["value"])
        if moved != 0:
            return session.near.size + moved
    return np.int64(NOWHERE)


@helper
def order_at(session, place):
    """(open, sell) of an open order: price << 32 | shares, and 1 for an order to sell."""
    if place < session.near.size:
        order = session.near[ix(place)]
    else:
        order = session.moved[ix(place - session.near.size)]
    return order["open"], (order["name"] >> 16) & 1


@helper
def take(session, place, reference, locate, open_, taken):
    """So many shares of an order at a place are taken off, or all of it."""
    left = (open_ - taken) & -np.int64(taken < open_ & 0xFFFF_FFFF)  # 0: no order
    if place < session.near.size:
        session.near[ix(place)]["open"] = left
    elif left != 0:
        session.moved[ix(place - session.near.size)]["open"] = left
    else:
        remove_order(session, place, reference, locate)


@helper
def remove_order(session, place, reference, locate):
    """An order is open no more."""
    if place < session.near.size:
        session.near[ix(place)]["open"] = 0
    else:
        moved = place - session.near.size
        discard(session.far, find(session.far, reference, locate))
        session.moved[ix(moved)]["name"] = session.totals[FREE]
        session.totals[FREE] = moved
        session.totals[FAR] -= 1


@helper
def move_out(session, place):
    """Make room for a newer order."""
    order, totals = session.near[ix(place)], session.totals
    reference = (order["name"] & ~np.int64(PLACE_BITS)) | (place & PLACE_BITS)
    locate, moved = order["name"] & 0xFFFF, totals[FREE]
    totals[FREE] = session.moved[ix(moved)]["name"]
    session.moved[ix(moved)]["open"], session.moved[ix(moved)]["name"] = order["open"], order["name"]
    store(session.far, find(session.far, reference, locate), reference, locate, moved)
    totals[FAR] += 1
    if totals[FAR] + 2 >= session.moved.size:
        totals[FULL] = 1


@helper
def later(reference, other):
    """Whether one reference is higher than another, as unsigned numbers."""
    return (reference ^ HIGHEST_BIT) > (other ^ HIGHEST_BIT)


@helper
def add_order(session, reference, locate, sell, open_):
    """An order is open from now on; one that was open under its reference is no more."""
    if not later(reference, session.totals[NEWEST]):
        place = find_order(session, reference, locate)
        if place != NOWHERE:
            remove_order(session, place, reference, locate)
            session.totals[TWICE] += 1
    else:
        session.totals[NEWEST] = reference
    place = reference & (session.near.size - 1)
    if session.near[ix(place)]["open"] != 0:
        move_out(session, place)
    session.near[ix(place)]["open"] = open_
    session.near[ix(place)]["name"] = name_for(reference, locate, sell)


@kernel
def move_orders(old, new):
    """Every open order of one session into the larger tables of another."""
    old, new = bare_session(old), bare_session(new)
    for entry in range(old.far.size):  # the older ones first: they give way
        if old.far[entry]["value"] != 0:
            order = old.moved[old.far[entry]["value"]]
            reference, locate = old.far[entry]["key"], np.int64(old.far[entry]["book"])
            add_order(new, reference, locate, (order["name"] >> 16) & 1, order["open"])
    for place in range(old.near.size):
        order = old.near[place]
        if order["open"] != 0:
            reference = (order["name"] & ~np.int64(PLACE_BITS)) | (place & PLACE_BITS)
            add_order(new, reference, order["name"] & 0xFFFF, (order["name"] >> 16) & 1, order["open"])


@helper
def side_of(letter):
    """Side of B or S, 0 of anything else."""
    return np.int64(letter == BUYS) - np.int64(letter == SELLS)


# ------------------------------------------------------------------ symbols


@helper
def enlist(session, locate):
    """Number of the symbol of a locate, given at its first row, or UNWANTED."""
    name, totals = session.name_of[ix(locate)], session.totals
    if session.wanted.size:
        found = False
        for i in range(session.wanted.size):
            found |= session.wanted[i] == name
        if not found:
            if name != 0:  # one without a name may get it yet
                session.book_of[ix(locate)] = UNWANTED
            return np.int64(UNWANTED)
    book = totals[BOOKS]
    session.names[ix(book)], session.locates[ix(book)] = name, locate
    session.book_of[ix(locate)] = book if name != 0 else NAMELESS_FROM - book
    totals[BOOKS] += 1
    if totals[BOOKS] == session.names.size:
        totals[FULL] = 1
    return book


@helper
def name_locate(session, locate, name):
    """What a locate is called from now on; its rows so far keep the name they had."""
    if session.name_of[ix(locate)] != name:
        session.name_of[ix(locate)] = name
        session.book_of[ix(locate)] = NOT_ENLISTED


# ------------------------------------------------------------------ from message to message


@helper
def report(faults, kind, offset, value):
    """Count damage; the first of a kind is remembered."""
    if faults[kind, COUNT] == 0:
        faults[kind, OFFSET], faults[kind, VALUE] = offset, value
    faults[kind, COUNT] += 1


@helper
def body_of(data, position, stop, framing):
    """(start, length) of the message at a position, whatever it is; a length of -1 where too little is there.

    Of a SoupBinTCP packet that carries no message the start is -1.
    """
    if framing == BARE:
        if position >= stop:
            return position, np.int64(-1)
        return position, LENGTHS[data[ix(position)]]
    if position + PREFIX > stop:
        return position, np.int64(-1)
    start, length = position + PREFIX, be16(data, position)
    if framing == SOUP and length > 0:
        if start >= stop:
            return start, np.int64(-1)
        return (start + 1, length - 1) if data[ix(start)] == S_ else (np.int64(-1), length)
    return start, length


@helper
def is_packet(data, position, length):
    """Whether a SoupBinTCP packet without a message stands at a position."""
    kind = data[ix(position + PREFIX)]
    return PACKETS[ix(kind)] == length or kind in (DEBUG, UNSEQUENCED)


@helper
def is_message(data, position, stop, framing):
    """Length, with what frames it, of the sound message at a position; 0: something else, -1: too little.

    Sound: of a known type, as long as that type is, and at a time within the day.
    """
    start, length = body_of(data, position, stop, framing)
    if length < 0:
        return np.int64(-1)
    if start < 0:
        if not is_packet(data, position, length):
            return np.int64(0)
        return PREFIX + length if position + PREFIX + length <= stop else np.int64(-1)
    if length == 0:
        return np.int64(0)
    if start >= stop:
        return np.int64(-1)
    if LENGTHS[data[ix(start)]] != length:
        return np.int64(0)
    if start + length > stop:
        return np.int64(-1)
    if (be64(data, start + 3) & CLOCK_MASK) >= DAY_NS:
        return np.int64(0)
    return start + length - position


@kernel
def find_back(data, position, stop, last, framing):
    """(position, found): where messages follow each other again, or where to go on with more bytes."""
    data = bare(data)
    wanted = CHAIN_BARE if framing == BARE else CHAIN_FRAMED
    bound = stop if last else stop - wanted * (LONGEST + PREFIX + 1)
    while position < bound:
        at, count = position, 0
        while count < wanted:
            step = is_message(data, at, stop, framing)
            if step <= 0:
                break
            at, count = at + step, count + 1
        if count == wanted or (at == stop and count > (2 if framing == BARE else 0)):
            return position, True
        position += 1
    return max(position, bound), False


@kernel
def count_messages(data, position, stop, framing):
    """(count, position, whether more bytes are needed there) of the sound messages that follow each other.

    Packets without a message don't count.
    """
    data = bare(data)
    count, step = 0, np.int64(0)
    while position < stop:
        step = is_message(data, position, stop, framing)
        if step <= 0:
            break
        count += framing != SOUP or data[ix(position + PREFIX)] == S_
        position += step
    return count, position, step < 0


@helper
def stumble(data, position, start, length, stop, last, framing, totals, faults, base):
    """Go on from what is no sound message: (position, whether more bytes are needed first).

    A packet or a message of an unknown type, if its length can be true, is passed over; after anything else
    the next messages are looked for.
    """
    if start >= stop:
        return position, True
    # a packet without a message, of a type that has none
    if start < 0:
        if is_packet(data, position, length):
            after = position + PREFIX + length
            return (position, True) if after > stop else (after, False)
        report(faults, UNKNOWN_PACKET, base + position + PREFIX, np.int64(data[ix(position + PREFIX)]))
    elif framing != BARE and length == 0:
        report(faults, EMPTY_FRAME, base + position, np.int64(0))
        return position + PREFIX, False
    else:
        # an unknown type may be a new one: its frame is believed if it could be a message's
        kind = np.int64(data[ix(start)])
        if LENGTHS[ix(kind)] != 0:
            report(faults, WRONG_LENGTH, base + position, (length << 8) | kind)
        else:
            trusted = framing != BARE and LETTERS[ix(kind)] and SHORTEST <= length < 256
            if trusted and start + length > stop:
                return position, True
            report(faults, UNKNOWN_TYPE, base + start, kind)
            if trusted:
                totals[MESSAGES] += 1
                return start + length, False
    # else nothing says where the next message is: the search for several in a row begins a byte on
    totals[LOST] = 1
    totals[SKIPPED] += 1
    return position + 1, False


@helper
def recover(data, position, stop, last, framing, totals):
    """Look for the next messages after damage; the position where they are or the search goes on."""
    before = position
    position, found = find_back(data, position, stop, last, framing)
    totals[SKIPPED] += position - before
    totals[LOST] = 0 if found else 1
    return position


@helper
def put(columns, place, ts, book, action, side, price, size, order_id, flags, sequence):
    """Write a row."""
    columns.ts[ix(place)] = ts
    columns.symbol[ix(place)] = book
    columns.action[ix(place)] = action
    columns.side[ix(place)] = side
    columns.price[ix(place)] = price
    columns.size[ix(place)] = size
    columns.order_id[ix(place)] = order_id
    columns.flags[ix(place)] = flags
    columns.sequence[ix(place)] = sequence


# ------------------------------------------------------------------ from messages to rows


class Place(NamedTuple):
    """Where a message stands, and where its rows go."""

    body: int  # where its type is
    base: int  # offset of the first byte in the file
    midnight: int  # ns UTC
    book: int
    row: int
    sequence: int


@helper
def put_add(data, at, session, columns):
    """The row of an A or F."""
    body = at.body
    ts, locate = at.midnight + (be64(data, body + 3) & CLOCK_MASK), be16(data, body + 1)
    reference, letter = be64(data, body + 11), data[ix(body + 19)]
    shares, price = be32(data, body + 20), be32(data, body + 32)
    side, action = side_of(letter), MBO_ADD
    if side == 0:
        report(session.faults, NO_SIDE, at.base + body + 19, np.int64(letter))
        action = MBO_NOTHING
    elif shares != 0:
        add_order(session, reference, locate, np.int64(side < 0), (price << 32) | shares)
    price *= PRICE_UNITS
    put(columns, at.row, ts, at.book, action, side, price, shares, reference, LAST, at.sequence)


@helper
def put_change(data, at, session, columns, kind):
    """The rows of E, C, X, D or U."""
    body, row = at.body, at.row
    ts, locate = at.midnight + (be64(data, body + 3) & CLOCK_MASK), be16(data, body + 1)
    reference = be64(data, body + 11)
    place = find_order(session, reference, locate)
    open_, sell, side = np.int64(0), np.int64(0), np.int64(0)
    if place == NOWHERE:
        session.totals[UNKNOWN] += 1
    else:
        open_, sell = order_at(session, place)
        side = 1 - 2 * sell
    # a delete and a replace name no size: all that is open
    shares, price = open_ & 0xFFFF_FFFF, ((open_ >> 32) & 0xFFFF_FFFF) * PRICE_UNITS
    taken = max(shares, 1) if kind in (D_, U_) else be32(data, body + 19)  # at least one was open
    # an execution tells of two things: the fill, and that the order has less open
    if kind in (E_, C_):
        paid = be32(data, body + 32) * PRICE_UNITS if kind == C_ else price
        put(columns, row, ts, at.book, MBO_FILL, side, paid, taken, reference, 0, at.sequence)
        row += 1
    flags = LAST if kind != U_ else 0
    put(columns, row, ts, at.book, MBO_CANCEL, side, price, taken, reference, flags, at.sequence)
    if place != NOWHERE:
        session.totals[EXCEEDED] += taken > shares
        take(session, place, reference, locate, open_, taken)
    # the order of a replace goes on under another reference, with the side that it had
    if kind == U_:
        new, shares, price = be64(data, body + 19), be32(data, body + 27), be32(data, body + 31)
        action = MBO_ADD if place != NOWHERE else MBO_NOTHING
        if place != NOWHERE and shares != 0:
            add_order(session, new, locate, sell, (price << 32) | shares)
        price *= PRICE_UNITS
        put(columns, row + 1, ts, at.book, action, side, price, shares, new, LAST, at.sequence)


@helper
def put_note(data, at, columns, kind):
    """The row of P, Q, B or H."""
    body = at.body
    ts = at.midnight + (be64(data, body + 3) & CLOCK_MASK)
    action, side, price, shares = MBO_NOTHING, np.int64(0), np.int64(0), np.int64(0)
    flags = LAST
    if kind == P_:
        action, side = (
            MBO_TRADE,
            -side_of(data[ix(body + 19)]),
        )  # the aggressor's; P has the hidden order's
        if is_masked(at.midnight):
            side, flags = np.int64(0), MASKED
        shares, price = be32(data, body + 20), be32(data, body + 32) * PRICE_UNITS
    elif kind == Q_:
        action, price, shares = MBO_TRADE, be32(data, body + 27) * PRICE_UNITS, be64(data, body + 11)
        shares = shares if shares > 0 else np.int64(MAX_QTY)  # beyond 63 bits
    put(columns, at.row, ts, at.book, action, side, price, shares, 0, flags, at.sequence)


@helper
def put_rows(data, at, session, columns, kind):
    """The rows of a message that has some."""
    if kind in (A_, F_):
        put_add(data, at, session, columns)
    elif kind in (P_, Q_, B_, H_):
        put_note(data, at, columns, kind)
    else:
        put_change(data, at, session, columns, kind)


# ------------------------------------------------------------------ one message after the other


@helper
def book_for(data, body, kind, locate, session):
    """Number of the symbol of a message that has rows, or UNWANTED."""
    book = np.int64(session.book_of[ix(locate)])
    if book >= 0:
        return book
    if session.name_of[ix(locate)] == 0 and STOCK_AT[ix(kind)] != 0:
        name_locate(session, locate, be64(data, body + STOCK_AT[ix(kind)]))
        session.totals[NAMELESS] += 1
        book = np.int64(session.book_of[ix(locate)])
    if book <= NAMELESS_FROM:
        return NAMELESS_FROM - book
    return enlist(session, locate) if book == NOT_ENLISTED else book


@helper
def decode_one(data, body, base, midnight, session, columns, place):
    """Decode a sound message, whatever it says; the place of the next row."""
    totals = session.totals
    kind, locate = np.int64(data[ix(body)]), be16(data, body + 1)
    clock, sequence = be64(data, body + 3) & CLOCK_MASK, totals[MESSAGES]
    totals[MESSAGES] += 1
    totals[BACKWARDS] += clock < totals[CLOCK]
    totals[CLOCK] = clock
    if kind == R_:
        name_locate(session, locate, be64(data, body + 11))
    count = ROWS_OF[ix(kind)] if kind != Q_ else np.int64(be64(data, body + 11) != 0)
    if count == 0:
        return place
    row = totals[ROWS]
    totals[ROWS] += count
    book = book_for(data, body, kind, locate, session)
    if book == UNWANTED:
        return place
    if columns.row.size:
        columns.row[ix(place)], columns.row[ix(place + count - 1)] = row, row + count - 1
    put_rows(data, Place(body, base, midnight, book, place, sequence), session, columns, kind)
    return place + count


@kernel
def decode(data, start, stop, last, framing, base, midnight, session, columns, place, limit):
    """Decode messages from `start` into rows from `place`: (position, place) where it stopped.

    It stops at the first row at or beyond `limit` (a message may have two, so there is room for one more),
    when it needs more bytes, or with totals[FULL] when a table must grow. `last` says that nothing follows;
    `base` is the offset of data[0] in the file, `midnight` the day's in ns UTC.
    """
    data, session, columns = bare(data), bare_session(session), bare_columns(columns)
    totals, faults = session.totals, session.faults
    position, place = np.int64(start), np.int64(place)
    while place < limit and totals[FULL] == 0:
        if totals[LOST]:
            position = recover(data, position, stop, last, framing, totals)
            if totals[LOST]:
                break
        # a message cut by the end of the bytes waits for the next piece
        body, length = body_of(data, position, stop, framing)
        if length < 0:
            break
        # a type's length is known: where the framing says another, one of both is damaged
        if body < 0 or body >= stop or length == 0 or LENGTHS[data[ix(body)]] != length:
            if last and length == 0 and framing != BARE and position + PREFIX == stop:
                position = stop  # a length of 0 ends a session
                break
            if not last and body >= stop:
                break
            position, more = stumble(data, position, body, length, stop, last, framing, totals, faults, base)
            if more:
                break
            continue
        if body + length > stop:
            break
        position = body + length
        place = decode_one(data, body, base, midnight, session, columns, place)
    return position, place


@kernel
def walk(data, start, stop, last, framing, kind, totals, faults, found):
    """Where the messages of a type begin: (position, count), when `found` is full or more bytes are needed.

    `found` [n, 2] gets that and the number of the message. It goes the way `decode` goes, over damage too,
    and uses of `totals` what concerns that.
    """
    data, found, totals, faults = bare(data), bare(found), bare(totals), bare(faults)
    position, count = np.int64(start), 0
    while count < found.shape[0]:
        if totals[LOST]:
            position = recover(data, position, stop, last, framing, totals)
            if totals[LOST]:
                break
        body, length = body_of(data, position, stop, framing)
        if length < 0:
            break
        if body < 0 or body >= stop or length == 0 or LENGTHS[data[ix(body)]] != length:
            if not last and body >= stop:
                break
            position, more = stumble(data, position, body, length, stop, last, framing, totals, faults, 0)
            if more:
                break
            continue
        if body + length > stop:
            break
        if data[ix(body)] == kind:
            found[ix(count), FOUND_AT], found[ix(count), FOUND_MESSAGE] = body, totals[MESSAGES]
            count += 1
        totals[MESSAGES] += 1
        position = body + length
    return position, count
