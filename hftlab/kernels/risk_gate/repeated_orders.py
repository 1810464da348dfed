"""Equal orders that follow each other: check 5 of docs/RISK.md.

Two tables of open addressing take turns, each for a period as long as the window. What came before the period
before no longer counts, so nothing is ever taken out: an entry that is older than the period of its table is
as good as free, and starting a table anew costs nothing.
"""

from __future__ import annotations

import numpy as np

from hftlab.kernels.primitives.compile import helper, kernel
from hftlab.kernels.primitives.intrinsics import bare, ix, prefetch

REPEAT = np.dtype(
    [
        ("price", "i8"),  # 0 for MARKET
        ("qty", "i8"),
        ("time", "i8"),  # of the latest
        ("holding", "i4"),  # negative for sales; 0: a free entry
        ("count", "i4"),  # in a row, as far as 31 bits go
    ],
    align=True,
)  # 32 bytes: two a cache line

# columns of `clock`: the window in ns, entries of this period, when it started, when the one before did, and
# whose turn it is; the rest is row_checks.py's
WINDOW, ENTRIES, PERIOD, BEFORE, TURN, OF_REPEATS = range(6)
NO_TIME = -(2**63)


@helper
def is_within(window, earlier, time):
    """Whether less than a window (ns) has passed since an earlier time; centuries may have."""
    return time < NO_TIME + window or earlier > time - window


@helper
def home_of_repeat(repeats, holding, price, qty):
    """Where in a table the search for equal orders begins; `holding` is negative for sales."""
    mixed = np.uint64(price) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= np.uint64(qty) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= np.uint64(holding) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0x94D049BB133111EB)
    return np.int64(mixed >> np.uint64(32)) & ((repeats.size >> 1) - 1)


@helper
def prefetch_repeat(repeats, holding, price, qty):
    """Bring what `count_repeats` will look at into the cache."""
    home = home_of_repeat(repeats, holding, price, qty)
    prefetch(repeats, home)
    prefetch(repeats, home + (repeats.size >> 1))


@helper
def place_of_repeat(repeats, turn, start, holding, price, qty):
    """The entry of equal orders in one of the tables, or the free one where it would go."""
    first, mask = turn * (repeats.size >> 1), (repeats.size >> 1) - 1
    place = home_of_repeat(repeats, holding, price, qty)
    while True:
        entry = repeats[ix(first + place)]
        differs = (np.int64(entry["holding"]) ^ holding) | (entry["price"] ^ price) | (entry["qty"] ^ qty)
        if is_free(entry, start) | (differs == 0):  # one question: each on its own would be a branch
            return first + place
        place = (place + 1) & mask


@helper
def is_free(entry, start):
    """Whether an entry is of no period, or of one before its table's."""
    return (entry["holding"] == 0) | (entry["time"] < start)


@helper
def count_repeats(repeats, clock, holding, price, qty, time):
    """How many equal orders have followed each other, this one included."""
    if not is_within(clock[WINDOW], clock[PERIOD], time):
        clock[BEFORE], clock[PERIOD] = clock[PERIOD], time
        clock[TURN] ^= 1
        clock[ENTRIES] = 0
    turn, start = clock[TURN], clock[PERIOD]
    entry = repeats[ix(place_of_repeat(repeats, turn, start, holding, price, qty))]
    latest, count = np.int64(entry["time"]), np.int64(entry["count"])
    if is_free(entry, start):
        clock[ENTRIES] += 1
        other = repeats[ix(place_of_repeat(repeats, turn ^ 1, clock[BEFORE], holding, price, qty))]
        latest, count = np.int64(other["time"]), np.int64(other["count"])
        count = np.int64(0) if is_free(other, clock[BEFORE]) else count
    count = count + 1 if is_within(clock[WINDOW], latest, time) else np.int64(1)
    entry["holding"], entry["price"], entry["qty"], entry["time"], entry["count"] = (
        holding,
        price,
        qty,
        time,
        count,
    )
    return count


@helper
def is_full(repeats, clock, time):
    """Whether the table whose turn it is gets too full for another entry."""
    return (
        repeats.size != 0
        and 4 * (clock[ENTRIES] + 1) > repeats.size
        and is_within(clock[WINDOW], clock[PERIOD], time)
    )


@kernel
def move_repeats(old, new, clock):
    """Put the entries of both tables into larger ones that are empty."""
    old, new, clock = bare(old), bare(new), bare(clock)
    for turn in range(2):
        start = clock[PERIOD] if turn == clock[TURN] else clock[BEFORE]
        for i in range(turn * (old.size >> 1), (turn + 1) * (old.size >> 1)):
            entry = old[ix(i)]
            if not is_free(entry, start):
                holding, price, qty = (
                    np.int64(entry["holding"]),
                    np.int64(entry["price"]),
                    np.int64(entry["qty"]),
                )
                new[ix(place_of_repeat(new, np.int64(turn), start, holding, price, qty))] = entry
