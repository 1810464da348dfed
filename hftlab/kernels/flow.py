"""One message of synthetic order flow after another, in integers only.

What the flow looks like and why is told in `hftlab.synthetic`, which also makes the tables used here.
The loop is compiled because it has to keep up with the engine it feeds, and knows no floats because a
logarithm's last bit differs between machines and the flow must not.

No matching happens here. Each level keeps the lots that were added to it and the lots that were taken
from its front; an order remembers where in that queue it ends, and counts as filled when the front has
passed it. Cancels leave holes that the front does not skip, so the model lags a little behind the real
book, and some cancels come too late.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.codes import Action, OrderType, Side, Tif
from hftlab.kernels.compile import helper, kernel

NEW, CANCEL, REDUCE, REPLACE = (
    int(Action.NEW),
    int(Action.CANCEL),
    int(Action.REDUCE),
    int(Action.REPLACE),
)
LIMIT, MARKET = int(OrderType.LIMIT), int(OrderType.MARKET)
GTC, DAY, IOC, FOK = int(Tif.GTC), int(Tif.DAY), int(Tif.IOC), int(Tif.FOK)
BUY, SELL = int(Side.BUY), int(Side.SELL)

WORD_BITS = 32
WORD_MASK = (1 << WORD_BITS) - 1
HALF_BITS = 16
HALF_MASK = (1 << HALF_BITS) - 1
# A * 2^32 - 1 and A * 2^31 - 1 are prime, so the generator's period is A * 2^31 - 1, about 2^62; A < 2^31
# keeps every product below 2^63, which is why this generator and not one that needs uint64 to wrap
MULTIPLIER = 1_812_432_270

LADDER = 2048  # price levels of a symbol, its middle the anchor; the outer two are walls
RING = 4096  # orders of a symbol that can be remembered
NO_ORDER = -1
WALL_LOW, WALL_HIGH = 0, LADDER - 1  # never empty, so that looking for the next level stops

TICK_BITS = 16  # the fair price is kept in 2^-16 ticks
PULL_BITS = 13  # each message takes 2^-13 of the way from the fair price to its anchor

CURVE_BITS = 10  # the tables of curves have 2^10 steps
CURVE_SCALE_BITS = 20  # and values in 2^-20
NEVER = 1 << 62

# Time: a Hawkes process with two exponential kernels (lifetimes in ns, children in 2^-20)
BASE_MEAN_NS = 1_000_000
FAST_HALF_BITS, SLOW_HALF_BITS = 14, 23  # half-lives of 2^14 ns (16 us) and 2^23 ns (8 ms)
FAST_LIFE_NS, SLOW_LIFE_NS = 23_637, 12_102_203  # half-life / ln 2
FAST_CHILDREN, SLOW_CHILDREN = 471_859, 367_001  # 0.45 and 0.35 of a child per message

# The mix, in 1/65536 of all messages
AGGRESSIVE = 4_200
REPLACING = 2_000
REDUCING = 1_300

CLOCK = np.dtype(
    [
        ("rng", "i8"),
        ("ts", "i8"),  # ns since epoch of the last message
        ("next_id", "i8"),
        ("fast", "i8"),  # children still to come from the fast kernel, in 2^-20
        ("slow", "i8"),  # and from the slow one
        ("symbol", "i8"),  # of the last message
    ],
    align=True,
)

BOOK = np.dtype(
    [
        ("base", "i8"),  # price of level 0 in ticks
        ("floor", "i8"),  # lowest level whose price is positive
        ("reach", "i8"),  # mask on distances from the touch
        ("sigma", "i8"),  # step of the fair price per message, in 2^-16 ticks
        ("target", "i8"),  # orders at which cancels balance new ones
        ("fair", "i8"),  # level of the fair price, in 2^-16 ticks
        ("bid", "i8"),  # best levels; a wall when the side is empty
        ("ask", "i8"),
        ("head", "i8"),  # orders ever put in the ring
        ("live", "i8"),  # orders in the ring
        ("sign", "i8"),  # side of the parent order being worked by aggressors
        ("run", "i8"),  # child orders it still has
    ],
    align=True,
)

LEVEL = np.dtype(
    [
        ("qty", "i8"),  # open lots
        ("added", "i8"),  # lots that ever came, = where the queue ends
        ("front", "i8"),  # where it starts
    ],
    align=True,
)

ORDER = np.dtype(
    [
        ("id", "i8"),
        ("end", "i8"),  # where in its level's queue it ends
        ("qty", "i4"),  # 0: this place is free
        ("level", "i4"),
        ("side", "i4"),
        ("account", "i4"),
    ],
    align=True,
)  # 32 bytes: two to a cache line


class FlowState(NamedTuple):
    """Everything the next message depends on; blocks of a flow continue from it."""

    clock: np.ndarray  # CLOCK[1]
    books: np.ndarray  # BOOK[symbols]
    levels: np.ndarray  # LEVEL[symbols * LADDER]
    orders: np.ndarray  # ORDER[symbols * RING]


class FlowOdds(NamedTuple):
    """The distributions: alias tables int64[n, 2] (chance of 2^32, other outcome) and two curves int64[]."""

    symbol: np.ndarray
    account: np.ndarray
    distance: np.ndarray  # ticks behind the touch
    age: np.ndarray  # orders younger than the one cancelled
    qty: np.ndarray  # lots - 1
    run: np.ndarray  # child orders of a parent - 1
    waiting: np.ndarray  # -ln(1 - u), in 2^-20, at 1025 points
    halving: np.ndarray  # 2^-u, in 2^-20, at 1025 points


class FlowRows(NamedTuple):
    """The columns being written, one block long."""

    ts: np.ndarray
    symbol: np.ndarray
    action: np.ndarray
    order_id: np.ndarray
    side: np.ndarray
    order_type: np.ndarray
    tif: np.ndarray
    price: np.ndarray  # ticks
    qty: np.ndarray
    account: np.ndarray
    post_only: np.ndarray


@helper
def advance(rng):
    """Next state of the multiply-with-carry generator (Marsaglia 1994)."""
    return MULTIPLIER * (rng & WORD_MASK) + (rng >> WORD_BITS)


@helper
def word(rng):
    """The 32 random bits of a state."""
    return (rng & WORD_MASK) ^ (rng >> WORD_BITS)


@helper
def pick(odds, bits):
    """An outcome of an alias table (Walker 1977) from 32 random bits."""
    scaled = bits * len(odds)
    outcome = scaled >> WORD_BITS
    if (scaled & WORD_MASK) < odds[outcome, 0]:
        return outcome
    return odds[outcome, 1]


@helper
def curve(points, bits):
    """A curve's value at bits / 2^32, linear between its points."""
    step = bits >> (WORD_BITS - CURVE_BITS)
    rest_bits = WORD_BITS - CURVE_BITS
    rise = points[step + 1] - points[step]
    return points[step] + (rise * (bits & ((1 << rest_bits) - 1)) >> rest_bits)


@helper
def child_delay(waiting, children, life_ns, bits):
    """Time until the first child of an exponential kernel, or NEVER (Dassios and Zhao 2013)."""
    wait = curve(waiting, bits)
    if wait >= children:
        return NEVER
    return curve(waiting, (wait << WORD_BITS) // children) * life_ns >> CURVE_SCALE_BITS


@helper
def decayed(halving, children, half_bits, elapsed_ns):
    """What is left of a kernel's children after a time."""
    halvings = elapsed_ns >> half_bits
    if halvings > 2 * CURVE_SCALE_BITS:
        return 0
    step = (elapsed_ns >> (half_bits - CURVE_BITS)) & ((1 << CURVE_BITS) - 1)
    return (children >> halvings) * halving_at(halving, step) >> CURVE_SCALE_BITS


@helper
def halving_at(halving, step):
    """2^-(step / 2^10), in 2^-20."""
    return halving[step]


@helper
def tick_clock(clock, odds, base_bits, fast_bits, slow_bits, symbol_bits):
    """Move the clock to the next message and say whose it is: a fast child stays in its parent's symbol."""
    fast, slow = clock[0]["fast"], clock[0]["slow"]
    from_fast = child_delay(odds.waiting, fast, FAST_LIFE_NS, fast_bits)
    from_slow = child_delay(odds.waiting, slow, SLOW_LIFE_NS, slow_bits)
    elapsed = curve(odds.waiting, base_bits) * BASE_MEAN_NS >> CURVE_SCALE_BITS
    elapsed = min(elapsed, from_fast, from_slow)
    clock[0]["ts"] += elapsed
    clock[0]["fast"] = decayed(odds.halving, fast, FAST_HALF_BITS, elapsed) + FAST_CHILDREN
    clock[0]["slow"] = decayed(odds.halving, slow, SLOW_HALF_BITS, elapsed) + SLOW_CHILDREN
    if elapsed != from_fast:
        clock[0]["symbol"] = pick(odds.symbol, symbol_bits)
    return clock[0]["symbol"]


@helper
def drift(books, symbol, bits):
    """One step of the fair price, pulled back to the middle of the ladder."""
    away = books[symbol]["fair"] - (LADDER // 2 << TICK_BITS)
    step = books[symbol]["sigma"] if bits & 1 else -books[symbol]["sigma"]
    books[symbol]["fair"] += step - (away >> PULL_BITS)


@helper
def leaning_side(books, symbol, bits, gain):
    """A side, more often the one that moves the middle of the book to the fair price."""
    book = books[symbol]
    lean = (book["fair"] >> (TICK_BITS - 8)) - ((book["bid"] + book["ask"]) << 7)  # in ticks / 256
    tilt = min(max(lean * gain, -24_000), 24_000)
    return BUY if bits < (1 << (HALF_BITS - 1)) + tilt else SELL


@helper
def within(books, symbol, side, level):
    """The nearest level an order of this side may have: never a wall, and room for the other side."""
    low = books[symbol]["floor"] + (0 if side == BUY else 1)
    high = WALL_HIGH - (2 if side == BUY else 1)
    return min(max(level, low), high)


@helper
def touch(books, symbol, side):
    """Best level of a side."""
    return books[symbol]["bid"] if side == BUY else books[symbol]["ask"]


@helper
def is_empty(best):
    """Whether a best level is a wall."""
    return best == WALL_LOW or best == WALL_HIGH


@helper
def passive_level(books, symbol, side, distance, improve_bits):
    """Where a resting order goes: into an open spread at times, else some ticks behind the touch."""
    best, other = touch(books, symbol, side), touch(books, symbol, -side)
    if is_empty(best):
        best = (books[symbol]["fair"] >> TICK_BITS) - side * 2
    room = (other - best) * side - 1
    if room > 0 and not is_empty(other) and improve_bits & 255 < 24 * min(room, 8):
        level = best + side * (1 + (min(room, 8) * (improve_bits >> 8 & 255) >> 8))
    else:
        level = best - side * distance
    if (other - level) * side <= 0:
        level = other - side
    return within(books, symbol, side, level)


@helper
def leaves(levels, orders, slot, ladder):
    """Open lots of an order as far as the model knows; none when its level's front has passed it."""
    level = ladder + np.int64(orders[slot]["level"])
    return min(np.int64(orders[slot]["qty"]), orders[slot]["end"] - levels[level]["front"])


@helper
def settle_touch(books, levels, symbol):
    """Move the best levels to the nearest ones with anything open."""
    ladder = symbol * LADDER
    bid, ask = books[symbol]["bid"], books[symbol]["ask"]
    while levels[ladder + bid]["qty"] == 0:
        bid -= 1
    while levels[ladder + ask]["qty"] == 0:
        ask += 1
    books[symbol]["bid"], books[symbol]["ask"] = bid, ask


@helper
def take_off(books, levels, symbol, level, qty):
    """Cancelled lots leave a level; an empty level has nobody left to be filled."""
    at = symbol * LADDER + level
    levels[at]["qty"] -= qty
    if levels[at]["qty"] <= 0:
        levels[at]["qty"] = 0
        levels[at]["front"] = levels[at]["added"]
        settle_touch(books, levels, symbol)


@helper
def put_on(books, levels, symbol, side, level, qty):
    """Lots join a level; returns where its queue ends now."""
    at = symbol * LADDER + level
    levels[at]["qty"] += qty
    levels[at]["added"] += qty
    if side == BUY:
        books[symbol]["bid"] = max(books[symbol]["bid"], level)
    else:
        books[symbol]["ask"] = min(books[symbol]["ask"], level)
    return levels[at]["added"]


@helper
def sweep(books, levels, symbol, side, limit, qty):
    """An aggressor takes what is open down to its limit; returns what it couldn't get."""
    ladder = symbol * LADDER
    best = touch(books, symbol, -side)
    while qty > 0 and (limit - best) * side >= 0:
        traded = min(qty, levels[ladder + best]["qty"])
        qty -= traded
        levels[ladder + best]["qty"] -= traded
        levels[ladder + best]["front"] += traded
        if levels[ladder + best]["qty"] == 0:
            levels[ladder + best]["front"] = levels[ladder + best]["added"]
            settle_touch(books, levels, symbol)
            best = touch(books, symbol, -side)
    return qty


@helper
def open_qty(books, levels, symbol, side, limit):
    """Lots an aggressor could get down to its limit."""
    ladder = symbol * LADDER
    best = touch(books, symbol, -side)
    total = np.int64(0)
    while (limit - best) * side >= 0:
        total += levels[ladder + best]["qty"]
        best += side
    return total


@helper
def free_place(books, levels, orders, symbol):
    """The next place in the ring that no open order holds."""
    ladder, ring = symbol * LADDER, symbol * RING
    head = books[symbol]["head"]
    slot = ring + (head & (RING - 1))
    while orders[slot]["qty"] > 0:
        if leaves(levels, orders, slot, ladder) <= 0:
            books[symbol]["live"] -= 1
            break
        head += 1
        slot = ring + (head & (RING - 1))
    books[symbol]["head"] = head + 1
    books[symbol]["live"] += 1
    return slot


@helper
def find_order(books, levels, orders, symbol, age, late):
    """The open order of about this age (in orders), or NO_ORDER; a filled one if it is to come too late."""
    ladder, ring = symbol * LADDER, symbol * RING
    newest = books[symbol]["head"] - 1
    for back in range(age, age + RING):
        slot = ring + ((newest - back) & (RING - 1))
        if orders[slot]["qty"] > 0:
            if late or leaves(levels, orders, slot, ladder) > 0:
                return slot
            orders[slot]["qty"] = 0
            books[symbol]["live"] -= 1
    return NO_ORDER


@helper
def write(rows, row, books, symbol, action, order_id, side, level, qty, account):
    """The columns every message has; a LIMIT GTC unless more is written."""
    rows.action[row] = action
    rows.order_id[row] = order_id
    rows.side[row] = side
    rows.price[row] = books[symbol]["base"] + level
    rows.qty[row] = qty
    rows.account[row] = account
    rows.order_type[row] = LIMIT
    rows.tif[row] = GTC
    rows.post_only[row] = 0


@helper
def write_new(clock, rows, row, books, symbol, side, level, qty, account):
    """A NEW with the next id, which it returns."""
    order_id = clock[0]["next_id"]
    clock[0]["next_id"] = order_id + 1
    write(rows, row, books, symbol, NEW, order_id, side, level, qty, account)
    return order_id


@helper
def remember(state, symbol, order_id, side, level, qty, account):
    """Rest an order in the model."""
    slot = free_place(state.books, state.levels, state.orders, symbol)
    state.orders[slot]["id"] = order_id
    state.orders[slot]["end"] = put_on(state.books, state.levels, symbol, side, level, qty)
    state.orders[slot]["qty"] = qty
    state.orders[slot]["level"] = level
    state.orders[slot]["side"] = side
    state.orders[slot]["account"] = account


@helper
def new_passive(state, odds, rows, row, symbol, side_bits, place_bits, qty_bits, account_bits, misc_bits):
    """NEW that rests: GTC or DAY, sometimes POST_ONLY."""
    side = leaning_side(state.books, symbol, side_bits & HALF_MASK, 16)
    distance = pick(odds.distance, place_bits) & state.books[symbol]["reach"]
    level = passive_level(state.books, symbol, side, distance, misc_bits)
    qty = 1 + pick(odds.qty, qty_bits)
    account = pick(odds.account, account_bits)
    order_id = write_new(state.clock, rows, row, state.books, symbol, side, level, qty, account)
    rows.tif[row] = DAY if misc_bits >> 16 & 3 == 0 else GTC
    rows.post_only[row] = 1 if misc_bits >> 18 & 15 == 0 else 0
    remember(state, symbol, order_id, side, level, qty, account)


@helper
def aggressor_side(state, odds, symbol, side_bits, run_bits):
    """The side of the parent order being worked, or of a new one."""
    books = state.books
    if books[symbol]["run"] == 0:
        books[symbol]["sign"] = leaning_side(books, symbol, side_bits & HALF_MASK, 32)
        books[symbol]["run"] = 1 + pick(odds.run, run_bits)
    books[symbol]["run"] -= 1
    return books[symbol]["sign"]


@helper
def aggressor_qty(state, odds, symbol, best, qty_bits, misc_bits):
    """Lots wanted: often exactly what the touch has, seldom more."""
    qty = 1 + pick(odds.qty, qty_bits)
    available = state.levels[symbol * LADDER + best]["qty"]
    choice = misc_bits & 15
    if choice < 5:
        return min(available, 4_000)
    if choice < 15:
        return min(qty, available)
    return qty * 4


@helper
def new_aggressive(state, odds, rows, row, symbol, side, qty_bits, account_bits, misc_bits):
    """NEW that trades: MARKET, IOC, FOK or a marketable limit whose remainder rests."""
    best = touch(state.books, symbol, -side)
    slip = max((misc_bits >> 4 & 7) - 5, 0)
    limit = within(state.books, symbol, side, best + side * slip)
    qty = aggressor_qty(state, odds, symbol, best, qty_bits, misc_bits)
    account = pick(odds.account, account_bits)
    order_id = write_new(state.clock, rows, row, state.books, symbol, side, limit, qty, account)
    style = misc_bits >> 8 & 63
    if style < 8:
        rows.order_type[row] = MARKET
        rows.tif[row] = IOC
        rows.price[row] = 0
        limit = within(state.books, symbol, side, side * LADDER)
    elif style < 36:
        rows.tif[row] = IOC
    elif style < 40:
        rows.tif[row] = FOK
        if open_qty(state.books, state.levels, symbol, side, limit) < qty:
            return
    left = sweep(state.books, state.levels, symbol, side, limit, qty)
    if left > 0 and style >= 40:
        remember(state, symbol, order_id, side, limit, left, account)


@helper
def name_order(state, rows, row, symbol, slot, action, level, qty):
    """A message about an order that stands in the ring."""
    order = state.orders[slot]
    write(rows, row, state.books, symbol, action, order["id"], order["side"], level, qty, order["account"])


@helper
def cancel(state, rows, row, symbol, slot):
    """CANCEL: its price and quantity mean nothing and are zero."""
    name_order(state, rows, row, symbol, slot, CANCEL, np.int64(0), np.int64(0))
    rows.price[row] = 0
    level = np.int64(state.orders[slot]["level"])
    gone = max(leaves(state.levels, state.orders, slot, symbol * LADDER), 0)
    state.orders[slot]["qty"] = 0
    state.books[symbol]["live"] -= 1
    take_off(state.books, state.levels, symbol, level, gone)


@helper
def reduce(state, rows, row, symbol, slot, bits):
    """REDUCE by a part of what is open."""
    level = np.int64(state.orders[slot]["level"])
    left = max(leaves(state.levels, state.orders, slot, symbol * LADDER), 1)
    qty = max(left * (1 + (bits & 3)) >> 3, 1)
    name_order(state, rows, row, symbol, slot, REDUCE, level, qty)
    state.orders[slot]["qty"] = left - qty
    if left == qty:
        state.books[symbol]["live"] -= 1
    take_off(state.books, state.levels, symbol, level, qty)


@helper
def replace(state, odds, rows, row, symbol, slot, place_bits, qty_bits, misc_bits):
    """REPLACE: a new distance from the touch, and half the time a new quantity."""
    side = np.int64(state.orders[slot]["side"])
    left = max(leaves(state.levels, state.orders, slot, symbol * LADDER), 0)
    take_off(state.books, state.levels, symbol, np.int64(state.orders[slot]["level"]), left)
    distance = pick(odds.distance, place_bits) & state.books[symbol]["reach"]
    level = passive_level(state.books, symbol, side, distance, misc_bits)
    qty = 1 + pick(odds.qty, qty_bits) if misc_bits >> 16 & 1 else max(left, 1)
    name_order(state, rows, row, symbol, slot, REPLACE, level, qty)
    state.orders[slot]["level"] = level
    state.orders[slot]["qty"] = qty
    state.orders[slot]["end"] = put_on(state.books, state.levels, symbol, side, level, qty)


@kernel
def fill_rows(state, odds, rows, count):
    """Write the next `count` messages."""
    books, levels, orders, clock = state.books, state.levels, state.orders, state.clock
    rng = np.int64(clock[0]["rng"])
    for row in range(count):
        base_rng = advance(rng)
        fast_rng = advance(base_rng)
        slow_rng = advance(fast_rng)
        symbol_rng = advance(slow_rng)
        action_rng = advance(symbol_rng)
        side_rng = advance(action_rng)
        place_rng = advance(side_rng)
        qty_rng = advance(place_rng)
        account_rng = advance(qty_rng)
        rng = advance(account_rng)
        misc = word(rng)
        symbol = tick_clock(clock, odds, word(base_rng), word(fast_rng), word(slow_rng), word(symbol_rng))
        rows.ts[row] = clock[0]["ts"]
        rows.symbol[row] = symbol
        drift(books, symbol, word(side_rng) >> HALF_BITS)
        action = word(action_rng)
        kind = action & HALF_MASK
        if kind < AGGRESSIVE:
            side = aggressor_side(state, odds, symbol, word(side_rng), word(place_rng))
            if not is_empty(touch(books, symbol, -side)):
                new_aggressive(
                    state, odds, rows, row, symbol, side, word(qty_rng), word(account_rng), misc
                )
                continue
        elif kind < AGGRESSIVE + REPLACING + REDUCING or (action >> HALF_BITS) * 2 * books[symbol][
            "target"
        ] < (books[symbol]["live"] << HALF_BITS):
            age = pick(odds.age, word(place_rng))
            slot = find_order(books, levels, orders, symbol, age, misc >> 24 & 7 == 0)
            if slot != NO_ORDER:
                if kind < AGGRESSIVE + REPLACING:
                    replace(state, odds, rows, row, symbol, slot, word(account_rng), word(qty_rng), misc)
                elif kind < AGGRESSIVE + REPLACING + REDUCING:
                    reduce(state, rows, row, symbol, slot, misc)
                else:
                    cancel(state, rows, row, symbol, slot)
                continue
        new_passive(
            state,
            odds,
            rows,
            row,
            symbol,
            word(side_rng),
            word(place_rng),
            word(qty_rng),
            word(account_rng),
            misc,
        )
    clock[0]["rng"] = rng
