"""Which events are executions, who is the maker, what was no trade, and which orders are ghosts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hftlab.feeds.bitstamp.events import CHANGED, CREATED, DELETED, NONE, TRADE, UNKNOWN, Events

SLACK = 2  # satoshi: obAnalytics cut 8 % of the sample's volumes one satoshi short, so differences may be two
WINDOW_MS = 1000  # the two events of the sample's widest pair are 37 ms apart
GHOST_MS = 60_000  # that an order stays after it was disproved: more than a late message
MOST_WAITING = 64  # executions that wait for their pair at a time
MOST_ROUNDS = 10  # in which executions at another price are found: each may tell a later one


class Executions(NamedTuple):
    """Orders that were reduced by being executed, in file order, and at what prices all orders rest."""

    row: np.ndarray  # of Events
    size: np.ndarray  # satoshi, UNKNOWN where neither order's volume before is known
    pair: np.ndarray  # the other order's place in these columns, NONE
    maker: np.ndarray  # whether this is what an F tells
    trade: np.ndarray  # row of the trade that tells of it, NONE
    behind: np.ndarray  # whether a better order stood there: taken back, not traded
    resting: np.ndarray  # price of its order after each row of Events


class Ghosts(NamedTuple):
    """Orders that stayed in the book while the market traded through them."""

    row: np.ndarray  # of Events: since when each rests as it does
    disproved: np.ndarray  # row of the first execution that can't have been with it there
    end: np.ndarray  # row of its deletion, NONE where none was told


class History(NamedTuple):
    """Each event in the life of its order."""

    before: np.ndarray  # row of the event before, NONE where there is none since the last deletion
    known: np.ndarray  # whether the order was created before this event, and not deleted since
    late: np.ndarray  # whether this creates an order whose deletion was told already


def follow(events: Events) -> History:
    """Follow each order through its own events."""
    count = len(events.kind)
    rows = np.flatnonzero(events.kind <= DELETED)
    rows = rows[np.argsort(events.order_id[rows], kind="stable")]
    kind, ids, at = events.kind[rows], events.order_id[rows], np.arange(len(rows))
    new = np.ones(len(rows), bool)
    new[1:] = ids[1:] != ids[:-1]
    start = np.maximum.accumulate(np.where(new, at, 0))

    def last(which: int) -> np.ndarray:
        """Place of the last event of a kind before each, where it is of the same order."""
        found = np.maximum.accumulate(np.where(kind == which, at, NONE))
        found = np.append(np.int64(NONE), found[:-1])[: len(rows)]
        return np.where(found >= start, found, NONE)

    created, deleted = last(CREATED), last(DELETED)
    told = created > deleted
    late = (kind == CREATED) & (deleted != NONE) & ~told[deleted]
    known = told & ~late[created]
    follows = ~new & (at - 1 != deleted) & ~late[at - 1]
    history = History(np.full(count, NONE), np.zeros(count, bool), np.zeros(count, bool))
    history.before[rows[follows]] = rows[at[follows] - 1]
    history.known[rows], history.late[rows] = known, late
    return history


def find_executions(events: Events, history: History, *, exact: bool) -> Executions:
    """The executions among changes and deletions, who belongs with whom, and which trade tells of them."""
    at_other_price = np.zeros(len(events.kind), bool)
    for _ in range(MOST_ROUNDS):
        resting = _resting(events, history, at_other_price)
        row, size, pair = _reductions(events, history, resting, exact)
        found = np.zeros_like(at_other_price)
        changed = row[(events.kind[row] == CHANGED) & (history.before[row] != NONE)]
        found[changed] = events.price[changed] != resting[history.before[changed]]
        if np.array_equal(found, at_other_price):
            break
        at_other_price = found
    order_id, alone = events.order_id[row], pair == NONE
    size = np.where((size == UNKNOWN) & ~alone, size[pair], size)
    maker = np.where(alone, size != UNKNOWN, order_id < order_id[pair])
    trade = _told_by(events, row, size, maker)
    if (events.kind == TRADE).any():
        maker &= ~alone | (trade != NONE)
    return Executions(row, size, pair, maker, trade, np.zeros(len(row), bool), resting)


def _resting(events: Events, history: History, at_other_price: np.ndarray) -> np.ndarray:
    """The price at which each order rests after each event: one of a trade is not its own."""
    resting = events.price.copy()
    for row in np.flatnonzero(at_other_price).tolist():  # in file order: the one before is known
        resting[row] = resting[history.before[row]]
    return resting


def _reductions(
    events: Events, history: History, resting: np.ndarray, exact: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that are executions, what they took, and the place of the other order of each.

    A change of price with less volume is one only together with another.
    """
    before, first = history.before, history.before == NONE
    less = ~first & (events.kind == CHANGED) & (events.volume < events.volume[before])
    same = events.price == resting[before]
    fell = (first & (events.kind == CHANGED)) | (less & same)
    gone = (events.kind == DELETED) & (events.volume == 0) & (first | (events.volume[before] > 0))
    row = np.flatnonzero(fell | gone | less)
    size = np.where(first[row], UNKNOWN, events.volume[before[row]] - events.volume[row])
    doubtful = (less & ~same)[row]
    slack, pair = 0 if exact else SLACK, np.full(len(row), NONE)
    _pair_some(events, row, size, pair, ~doubtful, slack, _crosses)
    if doubtful.any():
        alone = (pair == NONE) & (size != UNKNOWN)
        _pair_some(events, row, size, pair, alone, slack, _equals)
        partners = np.flatnonzero(alone & (pair != NONE))
        neither = partners[~doubtful[partners] & ~doubtful[pair[partners]]]
        pair[neither] = NONE
    keep = ~doubtful | (pair != NONE)
    place = np.append(np.cumsum(keep) - 1, NONE)  # of NONE, which is the last, NONE
    return row[keep], size[keep], place[pair[keep]]


def _pair_some(
    events: Events,
    row: np.ndarray,
    size: np.ndarray,
    pair: np.ndarray,
    which: np.ndarray,
    slack: int,
    agree: Callable[[int, int, int], bool],
) -> None:
    """Find pairs among some of the executions, in place."""
    some = np.flatnonzero(which)
    columns = (column[row[some]] for column in (events.ts_us, events.side, events.price))
    found = _pairs(*columns, size[some], events.order_id[row[some]], slack, agree)
    pair[some] = np.where(found == NONE, NONE, some[found] if len(some) else NONE)


def _is_sure(executions: Executions) -> np.ndarray:
    """Whether a second event, the other order's or a trade, tells of an execution too."""
    return (executions.pair != NONE) | (executions.trade != NONE)


def _next(history: History) -> np.ndarray:
    """The next event of its order after each, NONE."""
    after = np.full(len(history.before), NONE)
    rows = np.flatnonzero(history.before != NONE)
    after[history.before[rows]] = rows
    return after


def _rests(events: Events, history: History) -> np.ndarray:
    """Events after which their order is open; like a creation, a change may be told after the deletion."""
    known = np.where(events.kind == CREATED, ~history.late, history.known)
    return np.flatnonzero((events.kind <= CHANGED) & (events.volume > 0) & known)


def find_ghosts(events: Events, history: History, executions: Executions) -> Ghosts:
    """Orders that an execution behind them disproves, and that stay all the same."""
    after, starts = _next(history), _rests(events, history)
    ends = after[starts]
    stays = (ends == NONE) | ((events.kind[ends] == DELETED) & (events.volume[ends] > 0))
    sure = executions.row[executions.maker & _is_sure(executions)]
    starts = starts[stays & np.isin(events.side[starts], events.side[sure])]
    found = [
        (start, disproved, after[start])
        for start in _traded_through(events, executions.resting, starts, after, sure).tolist()
        if (disproved := _disproved(events, executions.resting, start, int(after[start]), sure)) != NONE
    ]
    columns = np.array(sorted(found, key=lambda ghost: ghost[1]), np.int64).reshape(-1, 3).T
    return Ghosts(*columns)


def _traded_through(
    events: Events, resting: np.ndarray, starts: np.ndarray, after: np.ndarray, sure: np.ndarray
) -> np.ndarray:
    """Those of some orders that have an execution of their side at a worse price while they rest."""
    found = []
    for side in (1, -1):
        rows = sure[events.side[sure] == side]
        mine = starts[events.side[starts] == side]
        if not len(rows) or not len(mine):
            continue
        ends = np.where(after[mine] == NONE, len(after), after[mine])
        low, high = np.searchsorted(rows, mine, side="right"), np.searchsorted(rows, ends)
        mine, low, high = (column[low < high] for column in (mine, low, high))
        worst = _least_of_ranges(side * events.price[rows], low, high)
        found.append(mine[worst < side * resting[mine]])
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _least_of_ranges(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The least of values[low:high], none of them empty: two ranges of a power of two cover each."""
    least, power = np.empty(len(low), np.int64), 0
    lengths = high - low
    while (1 << power) <= len(values):
        mine = (lengths >> power) == 1
        least[mine] = np.minimum(values[low[mine]], values[high[mine] - (1 << power)])
        values = np.minimum(values[: -(1 << power)], values[1 << power :])  # of twice as many from each place
        power += 1
    return least


def _disproved(events: Events, resting: np.ndarray, start: int, end: int, sure: np.ndarray) -> int:
    """The first execution that can't have been with an order there; NONE where it may be a late message."""
    low = np.searchsorted(sure, start, side="right")
    rows = sure[low : len(sure) if end == NONE else np.searchsorted(sure, end)]
    side = events.side[start]
    through = (events.side[rows] == side) & (side * events.price[rows] < side * resting[start])
    through &= events.ts_us[rows] - events.ts_us[start] > WINDOW_MS * 1000
    if not through.any():
        return NONE
    row = int(rows[np.argmax(through)])
    late = end != NONE and events.ts_us[end] - events.ts_us[row] <= GHOST_MS * 1000
    return NONE if late else row


def without_taken_back(
    events: Events, history: History, executions: Executions, ghosts: Ghosts
) -> Executions:
    """The same without trades of which only one order tells, and before which a better one stands."""
    doubtful = np.flatnonzero(executions.maker & ~_is_sure(executions))
    if not len(doubtful) or (events.kind == TRADE).any():
        return executions
    after, starts = _next(history), _rests(events, history)
    ends = np.where(after[starts] == NONE, len(after), after[starts])
    gone = np.full(len(after) + 1, len(after) + 1)
    gone[ghosts.row] = ghosts.disproved
    last_us = np.append(events.ts_us, np.int64(2**62))
    for place in doubtful.tolist():
        row = int(executions.row[place])
        now, side = int(events.ts_us[row]), int(events.side[row])
        some = slice(0, int(np.searchsorted(starts, row)))
        begin, end = starts[some], ends[some]
        stands = (end > row) & (gone[begin] > row) & (events.side[begin] == side)
        stands &= side * executions.resting[begin] > side * executions.resting[row]
        stands &= (events.ts_us[begin] <= now - WINDOW_MS * 1000) & (last_us[end] > now + WINDOW_MS * 1000)
        executions.behind[place] = stands.any()
    return executions._replace(maker=executions.maker & ~executions.behind)


def _crosses(side: int, price: int, other: int) -> bool:
    """Whether an order would trade with another of the opposite side."""
    return side * price >= side * other


def _equals(side: int, price: int, other: int) -> bool:
    return price == other


def _told_by(events: Events, row: np.ndarray, size: np.ndarray, maker: np.ndarray) -> np.ndarray:
    """The row of the trade that tells of each execution of a maker."""
    trades = np.flatnonzero(events.kind == TRADE)
    fills = np.flatnonzero(maker)
    rows = np.concatenate([row[fills], trades])
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    sizes = np.concatenate([size[fills], events.volume[trades]])[order]
    is_trade = np.where(events.kind[rows] == TRADE, 1, -1)
    pair = _pairs(events.ts_us[rows], is_trade, events.price[rows], sizes, rows, 0, _equals)
    told = np.full(len(row), NONE)
    found = np.flatnonzero((is_trade == -1) & (pair != NONE))
    told[np.searchsorted(row, rows[found])] = rows[pair[found]]
    return told


def _pairs(
    ts_us: np.ndarray,
    side: np.ndarray,
    price: np.ndarray,
    size: np.ndarray,
    order_id: np.ndarray,
    slack: int,
    agree: Callable[[int, int, int], bool],
) -> np.ndarray:
    """Places of those that belong together: two orders, opposite sides, equal sizes, near in time.

    An unknown size goes with any, if none is equal. Row by row, but of executions alone, 2 % of the events.
    """
    pair = np.full(len(ts_us), NONE)
    waiting: deque[tuple[int, ...]] = deque(maxlen=MOST_WAITING)
    columns = (ts_us.tolist(), side.tolist(), price.tolist(), size.tolist(), order_id.tolist())
    for place, (now, *mine) in enumerate(zip(*columns, strict=True)):
        while waiting and now - waiting[0][1] > WINDOW_MS * 1000:
            waiting.popleft()
        best, least = None, slack + 2
        for other in waiting:
            difference = _difference(mine, other[2:], slack, agree)
            if difference < least:
                best, least = other, difference
        if best is None:
            waiting.append((place, now, *mine))
        else:
            waiting.remove(best)
            pair[place], pair[best[0]] = best[0], place
    return pair


def _difference(
    mine: Sequence[int], other: Sequence[int], slack: int, agree: Callable[[int, int, int], bool]
) -> int:
    """How well two executions go together: up to `slack` by their sizes, one more where one isn't known."""
    no = slack + 2
    (side, price, size, order_id), (its_side, its_price, its_size, its_id) = mine, other
    if its_side != -side or its_id == order_id or not agree(side, price, its_price):
        return no
    if UNKNOWN in (size, its_size):
        return no if size == its_size else slack + 1
    return difference if (difference := abs(size - its_size)) <= slack else no
