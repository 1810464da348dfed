"""One message of synthetic order flow after another, in integers only.

What the flow looks like, and from which literature, stands in `hftlab.feeds.synthetic`, which also makes the
tables used here. The loop is compiled because it has to keep up with the engine it feeds; it knows no
floats because the last bit of a logarithm differs between machines and a flow must not.

The generator keeps a small book of its own (levels, queues, a ring of each symbol's recent orders): only
who knows the touch and what is open can write flow that keeps a book stationary. It shares no code with
the engine, so a flow it got wrong shows up as rejects there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.codes import NO_SLOT, PRICE_SCALE
from hftlab.kernels.codes import (
    CANCEL,
    DAY,
    FOK,
    GTC,
    IOC,
    LIMIT_ORDER,
    MARKET_ORDER,
    NEW,
    REDUCE,
    REPLACE,
    SIDE_BUY,
    SIDE_SELL,
)
from hftlab.kernels.primitives.compile import helper, kernel
from hftlab.kernels.primitives.intrinsics import bare

# Random numbers. A * 2^32 - 1 and A * 2^31 - 1 are prime, so the period is A * 2^31 - 1, about 2^62. A is
# below 2^31 so that no product passes 2^63: int64 throughout, where other generators need uint64 to wrap
MULTIPLIER = 1_812_432_270
WORD_BITS = 32
WORD_MASK = (1 << WORD_BITS) - 1
HALF_BITS = 16
HALF_MASK = (1 << HALF_BITS) - 1

# Space
TICK = PRICE_SCALE // 100  # 0.01
LADDER = 2048  # price levels of a symbol, its anchor in the middle; the outer two are walls
WALL_LOW, WALL_HIGH = 0, LADDER - 1  # never empty, so that looking for the next level stops
FAIR_BITS = 16  # the fair price is kept in 2^-16 ticks
MOST_AT_ONCE = 4_000  # lots of an aggressor
PULL_BITS = 15  # each message takes 2^-15 of the way from the fair price to its anchor

# Time: a Hawkes process with two exponential kernels; expected children are kept in 2^-20
CURVE_BITS = 10  # curves have 2^10 pieces
FIXED_BITS = 20  # and values in 2^-20
BASE_MEAN_NS = 1_000_000  # between messages without a parent
FAST_HALF_BITS, SLOW_HALF_BITS = 12, 24  # half-lives of 2^12 ns (4 us) and 2^24 ns (17 ms)
FAST_LIFE_NS, SLOW_LIFE_NS = 5_909, 24_204_406  # half-life / ln 2
FAST_CHILDREN, SLOW_CHILDREN = 471_859, 367_001  # of a message: 0.45 and 0.35
NEVER = 1 << 62
CHANCE, OTHER = 0, 1  # columns of an alias table

# The mix, in 2^-16 of all messages, cumulative
AGGRESSIVE = 3_800  # 5.8 % NEW that trades
REPLACING = AGGRESSIVE + 2_000  # 3.1 %
AMENDING = REPLACING + 1_300  # 2.0 % REDUCE; what remains is NEW that rests or CANCEL

CLOCK = np.dtype(
    [
        ("arrival_rng", "i8"),
        ("order_rng", "i8"),
        ("ts_ns", "i8"),  # since the epoch, of the last message
        ("next_id", "i8"),
        ("fast", "i8"),  # children the fast kernel still has to bear
        ("slow", "i8"),  # and the slow one
        ("symbol", "i8"),  # of the last message
    ],
    align=True,
)

BOOK = np.dtype(
    [
        ("base", "i8"),  # price of level 0, ticks
        ("floor", "i8"),  # lowest level with a positive price
        ("reach", "i8"),  # mask for distances from the touch
        ("sigma", "i8"),  # step of the fair price per message, 2^-16 ticks
        ("target", "i8"),  # open orders at which cancels are as likely as new ones
        ("fair", "i8"),  # level of the fair price, 2^-16 ticks
        ("bid", "i8"),  # best levels; a wall when the side is empty
        ("ask", "i8"),
        ("ring", "i8"),  # first of the symbol's places for orders
        ("places", "i8"),  # how many, less one: a mask
        ("head", "i8"),  # places ever taken or passed over
        ("live", "i8"),  # open orders
        ("sign", "i8"),  # side of the parent order that aggressors work on
        ("run", "i8"),  # child orders it still has
    ],
    align=True,
)

LEVEL = np.dtype(
    [
        ("qty", "i8"),  # open lots
        ("oldest", "i4"),  # order, or NO_SLOT
        ("youngest", "i4"),
    ],
    align=True,
)  # 16 bytes

ORDER = np.dtype(
    [
        ("id", "i8"),  # 0: cancelled, or never used
        ("qty", "i4"),  # open lots; 0 with an id: filled
        ("level", "i4"),
        ("account", "i4"),
        ("side", "i2"),
        ("old", "i2"),  # 1: the head of the ring has passed it over
        ("older", "i4"),  # neighbours in the queue, or NO_SLOT
        ("younger", "i4"),
    ],
    align=True,
)  # 32 bytes: two to a cache line


class FlowState(NamedTuple):
    """All that the next message depends on; blocks of a flow go on from it."""

    clock: np.ndarray  # CLOCK[1]
    books: np.ndarray  # BOOK[symbols]
    levels: np.ndarray  # LEVEL[symbols * LADDER]
    orders: np.ndarray  # ORDER[1 + places of all symbols]


class FlowOdds(NamedTuple):
    """The distributions: alias tables int64[n, 2] (chance in 2^-32, other outcome), and two curves."""

    symbol: np.ndarray
    account: np.ndarray
    distance: np.ndarray  # ticks behind the touch
    age: np.ndarray  # orders younger than the one to cancel
    qty: np.ndarray  # lots - 1
    run: np.ndarray  # child orders of a parent order - 1
    waiting: np.ndarray  # int64[1025]: -ln(1 - u) in 2^-20
    halving: np.ndarray  # int64[1025]: 2^-u in 2^-20


class FlowRows(NamedTuple):
    """The columns of a block."""

    ts: np.ndarray  # int64, ns since the epoch
    symbol: np.ndarray  # int32
    action: np.ndarray  # int8
    order_id: np.ndarray  # int64
    side: np.ndarray  # int8
    order_type: np.ndarray  # int8
    tif: np.ndarray  # int8
    price: np.ndarray  # int64, 1e-9
    qty: np.ndarray  # int64, lots
    account: np.ndarray  # int32
    post_only: np.ndarray  # bool


class Words(NamedTuple):
    """Random bits of one message, 32 each. All are drawn whether used or not: the chain of draws then
    depends on nothing and runs ahead of the branches."""

    action: int
    side: int
    place: int
    qty: int
    account: int
    misc: int


# Without owners nobody counts references: 780 -> 45 ns per message


@helper
def bare_state(state):
    """A state whose arrays have no owner."""
    return FlowState(bare(state.clock), bare(state.books), bare(state.levels), bare(state.orders))


@helper
def bare_odds(odds):
    """Distributions whose arrays have no owner."""
    return FlowOdds(
        bare(odds.symbol), bare(odds.account), bare(odds.distance), bare(odds.age),
        bare(odds.qty), bare(odds.run), bare(odds.waiting), bare(odds.halving),
    )  # fmt: skip


@helper
def bare_rows(rows):
    """Columns without an owner."""
    return FlowRows(
        bare(rows.ts), bare(rows.symbol), bare(rows.action), bare(rows.order_id),
        bare(rows.side), bare(rows.order_type), bare(rows.tif), bare(rows.price),
        bare(rows.qty), bare(rows.account), bare(rows.post_only),
    )  # fmt: skip


# Random numbers and distributions


@helper
def advance(rng):
    """Next state of the multiply-with-carry generator (Marsaglia 1994)."""
    return MULTIPLIER * (rng & WORD_MASK) + (rng >> WORD_BITS)


@helper
def word(rng):
    """The 32 random bits of a state."""
    return (rng & WORD_MASK) ^ (rng >> WORD_BITS)


@helper
def draw(rng):
    """The bits of a message and the state after them."""
    action = advance(rng)
    side = advance(action)
    place = advance(side)
    qty = advance(place)
    account = advance(qty)
    misc = advance(account)
    return misc, Words(word(action), word(side), word(place), word(qty), word(account), word(misc))


@helper
def pick(odds, bits):
    """An outcome of an alias table (Walker 1977)."""
    scaled = bits * len(odds)
    outcome = scaled >> WORD_BITS
    return outcome if (scaled & WORD_MASK) < odds[outcome, CHANCE] else odds[outcome, OTHER]


@helper
def curve(points, bits):
    """The value of a curve at bits / 2^32, linear between its points."""
    fine_bits = WORD_BITS - CURVE_BITS
    piece = bits >> fine_bits
    rise = points[piece + 1] - points[piece]
    return points[piece] + (rise * (bits & ((1 << fine_bits) - 1)) >> fine_bits)


# Time


@helper
def first_child_ns(waiting, children, life_ns, bits):
    """Time to the first child of an exponential kernel, or NEVER (Dassios and Zhao 2013)."""
    wait = curve(waiting, bits)
    if wait >= children:
        return NEVER
    return curve(waiting, (wait << WORD_BITS) // children) * life_ns >> FIXED_BITS


@helper
def remaining(halving, children, half_bits, elapsed_ns):
    """The children a kernel still has to bear after a time."""
    halvings = min(elapsed_ns >> half_bits, 40)
    piece = (elapsed_ns >> (half_bits - CURVE_BITS)) & ((1 << CURVE_BITS) - 1)
    return (children >> halvings) * halving[piece] >> FIXED_BITS


@kernel
def fill_arrivals(state, odds, rows, count):
    """When the next `count` messages come, and in which symbol: a fast child stays in its parent's."""
    clock, odds, rows = bare(state.clock), bare_odds(odds), bare_rows(rows)
    rng, ts_ns = np.int64(clock[0]["arrival_rng"]), np.int64(clock[0]["ts_ns"])
    fast, slow = np.int64(clock[0]["fast"]), np.int64(clock[0]["slow"])
    symbol = np.int64(clock[0]["symbol"])
    for row in range(count):
        base_bits = advance(rng)
        fast_bits = advance(base_bits)
        slow_bits = advance(fast_bits)
        rng = advance(slow_bits)
        of_fast = first_child_ns(odds.waiting, fast, FAST_LIFE_NS, word(fast_bits))
        of_slow = first_child_ns(odds.waiting, slow, SLOW_LIFE_NS, word(slow_bits))
        of_base = curve(odds.waiting, word(base_bits)) * BASE_MEAN_NS >> FIXED_BITS
        elapsed_ns = min(of_base, of_fast, of_slow)
        fast = remaining(odds.halving, fast, FAST_HALF_BITS, elapsed_ns) + FAST_CHILDREN
        slow = remaining(odds.halving, slow, SLOW_HALF_BITS, elapsed_ns) + SLOW_CHILDREN
        ts_ns += elapsed_ns
        if elapsed_ns != of_fast:
            symbol = pick(odds.symbol, word(rng))
        rows.ts[row] = ts_ns
        rows.symbol[row] = symbol
    clock[0]["arrival_rng"], clock[0]["ts_ns"] = rng, ts_ns
    clock[0]["fast"], clock[0]["slow"], clock[0]["symbol"] = fast, slow, symbol


# Price


@helper
def drift(books, symbol, bits):
    """A step of the fair price, which is pulled back to its anchor."""
    away = books[symbol]["fair"] - (LADDER // 2 << FAIR_BITS)
    step = books[symbol]["sigma"] if bits & 1 else -books[symbol]["sigma"]
    books[symbol]["fair"] += step - (away >> PULL_BITS)


@helper
def leaning_side(books, symbol, bits, gain, most):
    """A side, more often the one that moves the middle of the book towards the fair price."""
    middle = (books[symbol]["bid"] + books[symbol]["ask"]) << 7  # in 2^-8 ticks
    lean = (books[symbol]["fair"] >> (FAIR_BITS - 8)) - middle
    tilt = min(max(lean * gain, -most), most)
    return SIDE_BUY if (bits & HALF_MASK) < (1 << (HALF_BITS - 1)) + tilt else SIDE_SELL


@helper
def touch(books, symbol, side):
    """Best level of a side; a wall when it is empty."""
    return books[symbol]["bid"] if side == SIDE_BUY else books[symbol]["ask"]


@helper
def is_wall(level):
    """Whether a best level says that its side is empty."""
    return level in (WALL_LOW, WALL_HIGH)


@helper
def within(books, symbol, side, level):
    """The nearest level an order of this side may have: no wall, and room for the other side."""
    low = books[symbol]["floor"] + (0 if side == SIDE_BUY else 1)
    high = WALL_HIGH - (2 if side == SIDE_BUY else 1)
    return min(max(level, low), high)


@helper
def resting_level(state, odds, symbol, side, words):
    """Where an order goes that is to rest: into an open spread at times, else some ticks behind the touch.

    The first of a side goes beside the fair price.
    """
    books = state.books
    best, other = touch(books, symbol, side), touch(books, symbol, -side)
    room = (other - best) * side - 1
    if is_wall(best):
        level = (books[symbol]["fair"] >> FAIR_BITS) - side
    elif not is_wall(other) and (words.misc & 255) < 12 * min(room, 16):
        level = best + side * (1 + ((words.misc >> 8 & 255) * room >> 8))
    else:
        level = best - side * (pick(odds.distance, words.place) & books[symbol]["reach"])
    if (other - level) * side <= 0:
        level = other - side
    return within(books, symbol, side, level)


# The book


@helper
def settle_touch(state, symbol):
    """Move the best levels to the nearest ones where something is open."""
    levels, ladder = state.levels, symbol * LADDER
    bid, ask = state.books[symbol]["bid"], state.books[symbol]["ask"]
    while levels[ladder + bid]["qty"] == 0:
        bid -= 1
    while levels[ladder + ask]["qty"] == 0:
        ask += 1
    state.books[symbol]["bid"], state.books[symbol]["ask"] = bid, ask


@helper
def place(books, symbol, position):
    """The slot of a position in a symbol's ring."""
    return books[symbol]["ring"] + (position & books[symbol]["places"])


@helper
def free_place(state, symbol):
    """The next place of the ring that no open order holds."""
    head = state.books[symbol]["head"]
    slot = place(state.books, symbol, head)
    while state.orders[slot]["qty"] > 0:
        state.orders[slot]["old"] = 1
        head += 1
        slot = place(state.books, symbol, head)
    state.books[symbol]["head"] = head + 1
    return slot


@helper
def enqueue(state, symbol, slot, level, qty):
    """Put an order at the back of a level."""
    orders, at = state.orders, symbol * LADDER + level
    last = np.int64(state.levels[at]["youngest"])
    orders[slot]["qty"] = qty
    orders[slot]["level"] = level
    orders[slot]["older"] = last
    orders[slot]["younger"] = NO_SLOT
    if last == NO_SLOT:
        state.levels[at]["oldest"] = slot
    else:
        orders[last]["younger"] = slot
    state.levels[at]["youngest"] = slot
    state.levels[at]["qty"] += qty
    if orders[slot]["side"] == SIDE_BUY:
        state.books[symbol]["bid"] = max(state.books[symbol]["bid"], level)
    else:
        state.books[symbol]["ask"] = min(state.books[symbol]["ask"], level)
    state.books[symbol]["live"] += 1


@helper
def dequeue(state, symbol, slot):
    """Take an open order out of its level; its id stays."""
    orders, at = state.orders, symbol * LADDER + np.int64(state.orders[slot]["level"])
    older, younger = np.int64(orders[slot]["older"]), np.int64(orders[slot]["younger"])
    if older == NO_SLOT:
        state.levels[at]["oldest"] = younger
    else:
        orders[older]["younger"] = younger
    if younger == NO_SLOT:
        state.levels[at]["youngest"] = older
    else:
        orders[younger]["older"] = older
    state.levels[at]["qty"] -= np.int64(orders[slot]["qty"])
    orders[slot]["qty"] = 0
    state.books[symbol]["live"] -= 1
    if state.levels[at]["qty"] == 0:
        settle_touch(state, symbol)


@helper
def remember(state, symbol, order_id, side, level, qty, account):
    """Rest a new order."""
    slot = free_place(state, symbol)
    state.orders[slot]["id"] = order_id
    state.orders[slot]["side"] = side
    state.orders[slot]["account"] = account
    state.orders[slot]["old"] = 0
    enqueue(state, symbol, slot, level, qty)


@helper
def sweep(state, symbol, side, limit, qty):
    """Let an aggressor trade down to its limit; returns what it couldn't get."""
    best = touch(state.books, symbol, -side)
    while qty > 0 and (limit - best) * side >= 0:
        at = symbol * LADDER + best
        maker = np.int64(state.levels[at]["oldest"])
        open_qty = np.int64(state.orders[maker]["qty"])
        if qty < open_qty:
            state.orders[maker]["qty"] = open_qty - qty
            state.levels[at]["qty"] -= qty
            return 0
        qty -= open_qty
        dequeue(state, symbol, maker)
        best = touch(state.books, symbol, -side)
    return qty


@helper
def available(state, symbol, side, limit):
    """Lots an aggressor could get down to its limit."""
    level = touch(state.books, symbol, -side)
    total = np.int64(0)
    while (limit - level) * side >= 0:
        total += state.levels[symbol * LADDER + level]["qty"]
        level += side
    return total


@helper
def find_order(state, odds, symbol, words):
    """An open order or NO_SLOT: a young one; seldom one as old as the ring, or filled already."""
    newest = state.books[symbol]["head"] - 1
    age, late, old = pick(odds.age, words.place), words.misc >> 24 < 44, (words.misc >> 20 & 7) == 0
    for back in range(age, age + state.books[symbol]["places"] + 1):
        slot = place(state.books, symbol, newest - back)
        if state.orders[slot]["qty"] > 0:
            if old or state.orders[slot]["old"] == 0:
                return slot
        elif late and state.orders[slot]["id"] != 0:
            return slot
    return NO_SLOT


# Messages


@helper
def write(state, rows, row, symbol, action, order_id, side, level, qty, account):
    """What every message has; a LIMIT order, GTC, unless it is changed."""
    rows.action[row] = action
    rows.order_id[row] = order_id
    rows.side[row] = side
    rows.order_type[row] = LIMIT_ORDER
    rows.tif[row] = GTC
    rows.price[row] = (state.books[symbol]["base"] + level) * TICK
    rows.qty[row] = qty
    rows.account[row] = account
    rows.post_only[row] = False


@helper
def write_new(state, odds, rows, row, symbol, side, level, qty, words):
    """A NEW under the next id; returns id and account."""
    order_id = state.clock[0]["next_id"]
    state.clock[0]["next_id"] = order_id + 1
    account = pick(odds.account, words.account)
    write(state, rows, row, symbol, NEW, order_id, side, level, qty, account)
    return order_id, account


@helper
def write_about(state, rows, row, symbol, slot, action, level, qty):
    """A message about an order of the ring."""
    order_id, side = state.orders[slot]["id"], state.orders[slot]["side"]
    account = state.orders[slot]["account"]
    write(state, rows, row, symbol, action, order_id, side, level, qty, account)


@helper
def new_resting(state, odds, rows, row, symbol, words):
    """NEW that rests: GTC or DAY, some POST_ONLY, and of those a few that come too close and are rejected."""
    side = leaning_side(state.books, symbol, words.side, 8, 4_000)
    level = resting_level(state, odds, symbol, side, words)
    qty = 1 + pick(odds.qty, words.qty)
    post_only = (words.misc >> 16 & 15) == 0
    too_close = post_only and (words.misc >> 20 & 63) == 0
    too_close = too_close and not is_wall(touch(state.books, symbol, -side))
    if too_close:
        level = within(state.books, symbol, side, touch(state.books, symbol, -side))
    order_id, account = write_new(state, odds, rows, row, symbol, side, level, qty, words)
    rows.tif[row] = DAY if (words.misc >> 26 & 3) == 0 else GTC
    rows.post_only[row] = post_only
    if not too_close:
        remember(state, symbol, order_id, side, level, qty, account)


@helper
def aggressor_side(state, odds, symbol, words):
    """The side of the parent order being worked on, or of a new one."""
    books = state.books
    if books[symbol]["run"] == 0:
        books[symbol]["sign"] = leaning_side(books, symbol, words.side, 32, 24_000)
        books[symbol]["run"] = 1 + pick(odds.run, words.place)
    books[symbol]["run"] -= 1
    return books[symbol]["sign"]


@helper
def aggressor_qty(state, odds, symbol, best, words):
    """Lots wanted: usually no more than the touch has, often all of it, seldom up to four times as much."""
    qty = 1 + pick(odds.qty, words.qty)
    at_touch = state.levels[symbol * LADDER + best]["qty"]
    choice = words.misc & 15
    if choice < 2:
        return min(at_touch, MOST_AT_ONCE)
    return min(qty, at_touch) if choice < 15 else 4 * min(qty, at_touch)


@helper
def new_aggressive(state, odds, rows, row, symbol, words):
    """NEW that trades: MARKET, IOC, FOK, or a marketable limit whose remainder rests.

    One IOC in seven comes a tick short and gets nothing. False when there is nobody to trade with.
    """
    side = aggressor_side(state, odds, symbol, words)
    best = touch(state.books, symbol, -side)
    if is_wall(best):
        return False
    style = words.misc >> 8 & 63
    slip = -1 if 8 <= style < 12 else max((words.misc >> 4 & 7) - 5, 0)
    limit = within(state.books, symbol, side, best + side * slip)
    qty = aggressor_qty(state, odds, symbol, best, words)
    order_id, account = write_new(state, odds, rows, row, symbol, side, limit, qty, words)
    rests, fills = style >= 40, True
    if style < 8:
        rows.order_type[row], rows.tif[row], rows.price[row] = MARKET_ORDER, IOC, 0
        limit = within(state.books, symbol, side, side * LADDER)
    elif style < 36:
        rows.tif[row] = IOC
    elif not rests:
        rows.tif[row] = FOK
        fills = available(state, symbol, side, limit) >= qty
    left = sweep(state, symbol, side, limit, qty) if fills else 0
    if rests and left > 0:
        remember(state, symbol, order_id, side, limit, left, account)
    return True


@helper
def cancel(state, rows, row, symbol, slot):
    """CANCEL: too late when the order is filled. Price and quantity mean nothing and are zero."""
    write_about(state, rows, row, symbol, slot, CANCEL, np.int64(0), np.int64(0))
    rows.price[row] = 0
    if state.orders[slot]["qty"] > 0:
        dequeue(state, symbol, slot)
    state.orders[slot]["id"] = 0


@helper
def reduce(state, rows, row, symbol, slot, words):
    """REDUCE by one to four eighths of what is open; an order of one lot is gone then."""
    open_qty, level = np.int64(state.orders[slot]["qty"]), np.int64(state.orders[slot]["level"])
    qty = max(open_qty * (1 + (words.misc & 3)) >> 3, 1)
    write_about(state, rows, row, symbol, slot, REDUCE, level, qty)
    if qty == open_qty:
        dequeue(state, symbol, slot)
        state.orders[slot]["id"] = 0
    else:
        state.orders[slot]["qty"] = open_qty - qty
        state.levels[symbol * LADDER + level]["qty"] -= qty


@helper
def replace(state, odds, rows, row, symbol, slot, words):
    """REPLACE: a new distance from the touch and, half the time, a new quantity."""
    side, open_qty = np.int64(state.orders[slot]["side"]), np.int64(state.orders[slot]["qty"])
    level = resting_level(state, odds, symbol, side, words)
    qty = 1 + pick(odds.qty, words.qty) if words.misc >> 16 & 1 else open_qty
    write_about(state, rows, row, symbol, slot, REPLACE, level, qty)
    if level == state.orders[slot]["level"] and qty <= open_qty:
        state.orders[slot]["qty"] = qty
        state.levels[symbol * LADDER + level]["qty"] -= open_qty - qty
    else:
        dequeue(state, symbol, slot)
        enqueue(state, symbol, slot, level, qty)


@helper
def wants_cancel(books, symbol, bits):
    """Whether to cancel rather than rest: even odds when as many orders are open as there should be."""
    return bits * 2 * books[symbol]["target"] < books[symbol]["live"] << HALF_BITS


@helper
def amend(state, odds, rows, row, symbol, kind, words):
    """CANCEL, REDUCE or REPLACE; False when there is no order to name."""
    slot = find_order(state, odds, symbol, words)
    if slot == NO_SLOT:
        return False
    if kind >= AMENDING or state.orders[slot]["qty"] == 0:
        cancel(state, rows, row, symbol, slot)
    elif kind < REPLACING:
        replace(state, odds, rows, row, symbol, slot, words)
    else:
        reduce(state, rows, row, symbol, slot, words)
    return True


@helper
def message(state, odds, rows, row, symbol, words):
    """Write one message and do to the book what it does."""
    drift(state.books, symbol, words.side >> HALF_BITS)
    kind, written = words.action & HALF_MASK, False
    if kind < AGGRESSIVE:
        written = new_aggressive(state, odds, rows, row, symbol, words)
    elif kind < AMENDING or wants_cancel(state.books, symbol, words.action >> HALF_BITS):
        written = amend(state, odds, rows, row, symbol, kind, words)
    if not written:
        new_resting(state, odds, rows, row, symbol, words)


@kernel
def fill_orders(state, odds, rows, count):
    """What the messages are whose arrival `fill_arrivals` has written."""
    state, odds, rows = bare_state(state), bare_odds(odds), bare_rows(rows)
    rng = np.int64(state.clock[0]["order_rng"])
    for row in range(count):
        rng, words = draw(rng)
        message(state, odds, rows, row, np.int64(rows.symbol[row]), words)
    state.clock[0]["order_rng"] = rng
