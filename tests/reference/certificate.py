"""The certificate again, slowly: one instrument after the other, fact by fact, in lists and dicts.

Written from docs/FIDELITY.md and from the rules in the docstring of hftlab/replayer/inference.py, sharing no
code with either; the books are the slow twin's. `Twin(table).counts()` is what `hftlab.certify` counts; the
rest of a `Twin` says it execution by execution and event by event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from hftlab.codes import (
    MBO_FLAG_HIDDEN,
    MBO_FLAG_LAST,
    MBO_FLAG_SNAPSHOT,
    NOT_A_VALUE,
    Action,
    MboAction,
    OrderType,
    Origin,
    Reason,
    Tif,
)
from hftlab.schema import REFILLS_KEY
from tests.reference.book import Command, ReferenceBook

A, M, C, R, T, F, N = (int(MboAction[name]) for name in "AMCRTFN")
MOST = 2**63 - 1
FIRST_TAKER_ID = 2**63


class Fact(NamedTuple):
    """One row of an mbo table."""

    row: int
    ts: int
    symbol: str
    action: int
    side: int
    price: int
    size: int
    order_id: int
    flags: int
    sequence: int

    @property
    def snapshot(self) -> bool:
        return self.flags & MBO_FLAG_SNAPSHOT != 0


class Ahead(NamedTuple):
    """An order before an executed one."""

    order_id: int
    left: int  # lots, what was told before thought away
    modified: bool


class Stood(NamedTuple):
    """Where an executed order stood in the venue's book, what was told before it thought away."""

    price: int
    left: int  # lots
    best: bool  # no better level has anything left
    oldest: bool  # it is the oldest of its level that has anything left
    better: list[Ahead]  # orders at better levels
    ahead: list[Ahead]  # orders before it at its own, oldest first


class Seen(NamedTuple):
    """One fact, and what the venue's book has to do with it."""

    fact: Fact
    place: int  # among the instrument's facts
    reason: int | None  # why it was refused
    crosses: bool  # it rests although it would have traded
    crossed: bool  # so is the book after it
    top: tuple  # the best levels after it
    takes_all: bool  # a C that leaves nothing of an open order
    outstanding: int  # executed of its order and not reported yet, before it
    reports: bool  # a C or M that asks for nothing
    stood: Stood | None  # an F's maker; None where it is not open
    aggressor: int  # of an F, 0 where no T names one
    own: bool  # an F of the aggressor's own order
    displayed: int  # of an F, lots it took of what its order showed
    refills: bool  # an M of an order that executions left nothing of


class Asked(NamedTuple):
    """An inferred command, and the facts behind it."""

    facts: list[Seen]
    last: int  # place of the last fact it explains, prompt removals of what it took included
    command: Command
    origin: Origin

    @property
    def first(self) -> Seen:
        return self.facts[0]


class Execution(NamedTuple):
    """An F."""

    fact: Fact
    cause: str | None  # why it was not reproduced
    not_judged: str | None  # why its place in the queue is not
    oldest: bool  # of the best level, as told
    oldest_at_end: bool  # the same when its event is over


class End(NamedTuple):
    """The end of an event at which both books can be compared."""

    row: int
    touch: bool
    depth: bool


def facts_of(table: pa.Table) -> list[Fact]:
    """Rows of an mbo table."""
    columns = [range(table.num_rows), table["ts_event"].cast(pa.int64()).to_pylist()]
    columns.append(table["symbol"].cast(pa.string()).to_pylist())
    columns.append([int(MboAction.parse(name)) for name in table["action"].cast(pa.string()).to_pylist()])
    names = ("side", "price", "size", "order_id", "flags", "sequence")
    return [Fact(*row) for row in zip(*columns, *(table[name].to_pylist() for name in names), strict=True)]


# ------------------------------------------------------------------ the venue's book


class Venue:
    """The book of one instrument as its facts tell it."""

    def __init__(self, levels: int, requeues: bool) -> None:
        self.book, self.levels, self.facts = ReferenceBook(None, True), levels, 0
        self.refills = Refills() if requeues else None
        self.outstanding: Counter[int] = Counter()  # of executions with a side, for what commands are
        self.told: Counter[int] = Counter()  # of all executions of open orders, for who is the oldest
        self.modified: set[int] = set()
        self.trade: Fact | None = None  # the last T that names an aggressor

    def see(self, fact: Fact) -> Seen:
        """Apply a fact."""
        book, order, out = self.book, self.book.open.get(fact.order_id), self.outstanding[fact.order_id]
        was = (order.level.price, order.open_qty) if order else (None, 0)
        side = order.side if order and fact.action == M else fact.side
        crosses = fact.action in (A, M) and side != 0 and book._would_trade(side, fact.price)
        stood = self._stood(fact.order_id) if fact.action == F else None
        aggressor, own = self._aggressor(fact)
        shows = max(was[1] - out, 0)
        displayed = min(fact.size, shows) if fact.size > 0 else fact.size
        to_the_back = self.refills is not None and self.refills.see(fact)
        reject = book.apply_fact((fact.action, fact.order_id, fact.side, fact.price, fact.size)).reject
        applied, self.facts = reject is None, self.facts + 1
        takes_all = fact.action == C and applied and fact.size >= was[1]
        reports = fact.action == C and 0 < fact.size <= out
        reports |= fact.action == M and applied and self._leaves(fact, was, out)
        if to_the_back and applied:
            level = book.open[fact.order_id].level
            level.orders[fact.order_id] = level.orders.pop(fact.order_id)
        refills = fact.action == M and applied and fact.side != 0 and out > 0 and shows == 0
        if not own:
            self._follow(fact, applied, was)
        state = (crosses and applied, self._crossed(), book.top(self.levels), takes_all, out, bool(reports))
        execution = (stood, aggressor, own, displayed, refills)
        return Seen(fact, self.facts - 1, reject and reject.reason, *state, *execution)

    def _stood(self, order_id: int) -> Stood | None:
        order = self.book.open.get(order_id)
        if order is None:
            return None
        better: list[Ahead] = []
        for level in self.book._half(order.side).best_first():
            queue = [self._ahead(one) for one in level.orders.values()]
            if level is not order.level:
                better += queue
                continue
            place = [one.order_id for one in queue].index(order_id)
            oldest = next((one.order_id for one in queue if one.left > 0), None) == order_id
            best = not any(one.left > 0 for one in better)
            return Stood(level.price, queue[place].left, best, oldest, better, queue[:place])
        raise AssertionError("an open order without a level")

    def _ahead(self, order: Any) -> Ahead:
        order_id = order.order_id
        return Ahead(order_id, order.open_qty - self.told[order_id], order_id in self.modified)

    def _leaves(self, fact: Fact, was: tuple, executed: int) -> bool:
        """Whether an M says of its order just what executions have left of it."""
        return executed > 0 and (fact.price, fact.size) == (was[0], was[1] - executed)

    def _follow(self, fact: Fact, applied: bool, was: tuple) -> None:
        """Keep count of what was executed and is not reported, and of who was modified."""
        order_id, size, told = fact.order_id, max(fact.size, 0), self.told[fact.order_id]
        if fact.action == F:
            self.outstanding[order_id] = min(self.outstanding[order_id] + size * (fact.side != 0), MOST)
            self.told[order_id] = min(told + size, was[1])
        elif fact.action == C:
            self.outstanding[order_id] = max(self.outstanding[order_id] - size, 0)
            self.told[order_id] = max(told - size, 0)
        elif fact.action in (A, M) and applied:
            if fact.action == A:
                self.modified.discard(order_id)
            elif not self._leaves(fact, was, told):
                self.modified.add(order_id)
            self.outstanding[order_id] = self.told[order_id] = 0

    def _aggressor(self, fact: Fact) -> tuple[int, bool]:
        """Who took an F, 0 where nobody tells; whether the F is of that order itself."""
        if fact.action == T and fact.order_id:
            self.trade = fact
        trade = self.trade
        if fact.action != F or trade is None or trade.ts != fact.ts:
            return 0, False
        own = fact.side != 0 and (trade.side, trade.order_id) == (fact.side, fact.order_id)
        return (trade.order_id if trade.side == -fact.side else 0), own

    def _crossed(self) -> bool:
        bid, offer = self.book.bids.touch()[0], self.book.offers.touch()[0]
        return bid is not None and offer is not None and bid >= offer


class Refills:
    """What is told of one instrument's orders, whatever a book makes of it: which M refills an iceberg."""

    def __init__(self) -> None:
        self.open: dict[int, tuple[int, int]] = {}  # id: lots open, lots executed and not reported

    def see(self, fact: Fact) -> bool:
        """Whether a fact is an M that gives its order more than executions have left of it."""
        known, size, order_id = fact.order_id in self.open, fact.size, fact.order_id
        if fact.action == R:
            self.open.clear()
        if fact.action == F and known:
            was, executed = self.open[order_id]
            self.open[order_id] = (was, min(executed + max(size, 0), MOST))
        if fact.action not in (A, M, C) or size <= 0 or known == (fact.action == A):
            return False
        if fact.action == C:
            was, executed = self.open[order_id]
            self.open[order_id] = (was - size, max(executed - size, 0))
            if size >= was:
                del self.open[order_id]
            return False
        if fact.price == NOT_A_VALUE:
            return False
        was, executed = self.open.get(order_id, (0, 0))
        self.open[order_id] = (size, 0)
        return fact.action == M and executed > 0 and size > was - executed


# ------------------------------------------------------------------ facts to commands


def asks(seen: Seen) -> bool:
    """Whether a fact is a command or part of one."""
    nothing = seen.own or not seen.fact.side or (seen.fact.size > 0 and seen.displayed == 0)
    if seen.fact.action == F and nothing:
        return False
    return seen.fact.action not in (T, N) and not seen.reports


def belongs(seen: Seen, group: list[Seen]) -> bool:
    """Whether a fact is of the command of those before it."""
    fact, before = seen.fact, group[-1].fact
    if fact.ts != before.ts or fact.size <= 0 or before.size <= 0:
        return False
    other_id = fact.order_id != before.order_id
    if before.action == F and fact.action == F:
        one = other_id and fact.side == before.side and seen.aggressor == group[-1].aggressor
        return one and -fact.side * fact.price >= -fact.side * before.price
    if fact.action != A or fact.snapshot or seen.reason is not None:
        return False
    if before.action == F:
        left = fact.side == -before.side and fact.side * fact.price >= fact.side * before.price
        return left and not seen.crosses and group[-1].aggressor in (0, fact.order_id)
    if before.action == C and group[-1].takes_all:
        return other_id and fact.side == before.side and fact.sequence == before.sequence
    return False


def command_of(group: list[Seen]) -> tuple[Command, Origin]:
    """What was asked for, and whether somebody saw it; a taker without a name has the id 0."""
    first, last = group[0], group[-1]
    fact, size, price = first.fact, last.fact.size, last.fact.price
    passive = last.fact.action in (A, M) and (last.crosses or last.fact.snapshot)
    kind = OrderType.PASSIVE if passive else OrderType.LIMIT
    concluded = passive or fact.snapshot or fact.action == F or first.refills
    origin = Origin.INFERRED if concluded else Origin.OBSERVED
    side, new_id, tif, name = fact.side, None, Tif.GTC, fact.order_id
    if fact.action == F:
        took = (seen.displayed if seen.fact.action == F else seen.fact.size for seen in group)
        action, side, size = Action.NEW, -fact.side, sum(took)
        rests = last.fact.action == A
        name, tif = (last.fact.order_id, Tif.GTC) if rests else (first.aggressor, Tif.IOC)
    elif len(group) > 1:
        action, new_id = Action.REPLACE, last.fact.order_id
    elif fact.action == C:
        action = Action.CANCEL if first.takes_all else Action.REDUCE
        size = max(size - first.outstanding, 0) if size > 0 else size
    elif first.refills:
        action = Action.NEW
    else:
        action = {A: Action.NEW, M: Action.REPLACE, R: Action.CLEAR}[fact.action]
    return Command(action, name, new_id, side, kind, tif, price, size), origin


def end_of(group: list[Seen], seen: list[Seen]) -> int:
    """Place of a command's last fact."""
    last = group[-1].place
    for one in (one for one in group if one.fact.action == F):
        following = map(seen.__getitem__, range(one.place + 1, len(seen)))
        names = (later for later in following if later.fact.order_id == one.fact.order_id)
        removal = next((later for later in names if later.fact.action in (C, M)), None)
        prompt = removal and (removal.place == one.place + 1 or removal.fact.ts == one.fact.ts)
        if prompt:
            last = max(last, removal.place)
    return last


def asked_of(seen: list[Seen]) -> list[Asked]:
    """The commands behind an instrument's facts."""
    groups: list[list[Seen]] = []
    for one in filter(asks, seen):
        if groups and belongs(one, groups[-1]):
            groups[-1].append(one)
        else:
            groups.append([one])
    return [Asked(group, end_of(group, seen), *command_of(group)) for group in groups]


def named(asked: Iterable[Asked], seen: list[Seen]) -> Iterator[Asked]:
    """Commands in the order of their first facts, every taker with an id."""
    added: dict[tuple[str, int], int] = {}
    for one in seen:
        if one.fact.action == A and one.reason is None:
            added.setdefault((one.fact.symbol, one.fact.order_id), one.fact.row)
    highest = max((one.fact.order_id for one in seen), default=0)
    unused = FIRST_TAKER_ID if highest < FIRST_TAKER_ID else highest + 1
    for one in sorted(asked, key=lambda one: one.first.fact.row):
        fact, name = one.first.fact, one.command.order_id
        if one.command.tif == Tif.IOC and (not name or added.get((fact.symbol, name), fact.row) < fact.row):
            one = one._replace(command=one.command._replace(order_id=unused))
            unused += 1
        yield one


# ------------------------------------------------------------------ the comparison


class Instrument:
    """One instrument: the venue's book, the commands behind it, ours, and what differs."""

    def __init__(self, seen: list[Seen], asked: list[Asked], levels: int, marked: bool) -> None:
        self.seen, self.asked, self.marked = seen, asked, marked
        book = ReferenceBook(None, True)  # a venue took them: prices of any sign
        ran = [(book.apply(one.command), book.top(levels)) for one in asked]
        self.outcomes, self.tops = [outcome for outcome, _ in ran], [top for _, top in ran]
        self.own = {one.fact.row for one in seen if one.own}
        self.executions = list(self._executions())
        self.not_compared: Counter[str] = Counter()
        self.ends = list(self._ends())
        self.hidden = list(self._hidden())

    def _executions(self) -> Iterator[Execution]:
        taken = [[one.fact.row for one in asked.facts if one.fact.action == F] for asked in self.asked]
        of = {row: (number, rank) for number, rows in enumerate(taken) for rank, row in enumerate(rows)}
        for one in self.seen:
            if one.fact.action != F or one.own:
                continue
            number, rank = of.get(one.fact.row, (None, 0))
            first = one.place if number is None else self.asked[number].first.place
            fills = [] if number is None else self.outcomes[number].fills
            fills = [(fill.maker_order_id, fill.price, fill.qty) for fill in fills]
            told = (one.fact.order_id, one.fact.price, one.fact.size)
            exact, same = fills[rank : rank + 1] == [told], told in fills
            facts = [] if number is None else self.asked[number].facts
            facts = [other for other in facts if other.place > one.place]
            cause = None if exact else self._cause(one, first, same, facts)
            left_out, judged = self._left_out(one, self._rest_of_event(one)), self._not_judged(one)
            oldest = not judged and one.stood.best and one.stood.oldest
            yield Execution(one.fact, cause, judged, oldest, not judged and left_out is None)

    def _not_judged(self, one: Seen) -> str | None:
        if one.stood is None:
            return "INITIAL_BOOK"
        if not one.fact.side:
            return "NO_SIDE"
        return "OTHER_PRICE" if one.fact.price != one.stood.price else None

    def _rest_of_event(self, one: Seen) -> list[Seen]:
        """What follows in the event, or the time where no events are marked."""
        place = one.place
        while place + 1 < len(self.seen) and not self._event_ends(self.seen[place]):
            place += 1
        return self.seen[one.place + 1 : place + 1]

    def _event_ends(self, one: Seen) -> bool:
        return self.is_end(one) if self.marked else self._moment_end(one.place) == one.place

    def _left_out(self, one: Seen, following: list[Seen]) -> str | None:
        """Which kind of order is still before an executed one after `following`, None where none is."""
        if one.stood is None:
            return None
        coming: Counter[int] = Counter()
        added: set[int] = set()
        for later in following:
            fact = later.fact
            if fact.action == A and later.reason is None:
                added.add(fact.order_id)
            elif fact.action == F and not later.own and fact.order_id not in added:
                coming[fact.order_id] += max(fact.size, 0)
        if any(other.left > coming[other.order_id] for other in one.stood.better):
            return "NOT_BEST_PRICE"
        left = [other for other in one.stood.ahead if other.left > coming[other.order_id]]
        if not left:
            return None
        return "PRIORITY_RULE" if left[0].modified else "NOT_OLDEST"

    def _cause(self, one: Seen, first: int, same: bool, following: list[Seen]) -> str:
        """The first that applies."""
        crossed = first > 0 and self.seen[first - 1].crossed
        uncrosses = crossed and not self.seen[self._moment_end(one.place)].crossed
        if one.stood is None:
            return "INITIAL_BOOK"
        if not one.fact.side or one.stood.price != one.fact.price or uncrosses:
            return "AUCTION"
        if one.fact.size > one.stood.left:
            return "MORE_THAN_DISPLAYED"
        if crossed:
            return "INCOMPLETE_BOOK"
        if first > 0 and self.seen[first].fact.ts < self.seen[first - 1].fact.ts:
            return "OUT_OF_ORDER"
        if same:
            return "ORDER_OF_FILLS"
        return self._left_out(one, following) or "EARLIER_DIVERGENCE"

    def _moment_end(self, place: int) -> int:
        while place + 1 < len(self.seen) and self.seen[place + 1].fact.ts == self.seen[place].fact.ts:
            place += 1
        return place

    def is_end(self, one: Seen) -> bool:
        """Whether an event ends with a fact."""
        return not self.marked or one.fact.flags & MBO_FLAG_LAST != 0

    def _ends(self) -> Iterator[End]:
        begins, ends = Counter(one.first.place for one in self.asked), Counter(one.last for one in self.asked)
        begun = done = 0
        for one in self.seen:
            begun, done = begun + begins[one.place], done + ends[one.place]
            if self.is_end(one) and begun != done:
                self.not_compared["INSIDE_A_COMMAND"] += 1
            elif self.is_end(one) and not done:
                self.not_compared["BEFORE_THE_FIRST_COMMAND"] += 1
            elif self.is_end(one):
                venue, ours = one.top, self.tops[begun - 1]
                touch = [half[:1] for half in venue] == [half[:1] for half in ours]
                yield End(one.fact.row, touch, venue == ours)

    def _hidden(self) -> Iterator[Fact]:
        """Trades in events, or times where no events are marked, without an execution."""
        event: list[Fact] = []
        for one in self.seen:
            event.append(one.fact)
            if self._event_ends(one) or one is self.seen[-1]:
                if not any(fact.action == F and fact.row not in self.own for fact in event):
                    yield from (fact for fact in event if fact.action == T and fact.size > 0)
                event = []


class Twin:
    """All instruments of an mbo table."""

    def __init__(self, table: pa.Table, levels: int = 10) -> None:
        self.facts = facts_of(table)
        self.marked = any(fact.flags & MBO_FLAG_LAST for fact in self.facts)
        requeues = (table.schema.metadata or {}).get(REFILLS_KEY) == b"back"
        venues = {fact.symbol: Venue(levels, requeues) for fact in self.facts}
        self.seen = [venues[fact.symbol].see(fact) for fact in self.facts]
        per_symbol = {symbol: [one for one in self.seen if one.fact.symbol == symbol] for symbol in venues}
        self.asked = list(named((one for seen in per_symbol.values() for one in asked_of(seen)), self.seen))
        self.instruments = every = []
        for symbol, seen in per_symbol.items():
            mine = [one for one in self.asked if one.first.fact.symbol == symbol]
            every.append(Instrument(seen, mine, levels, self.marked))
        self.executions = sorted((e for one in every for e in one.executions), key=lambda e: e.fact.row)
        self.ends = sorted((end for one in every for end in one.ends), key=lambda end: end.row)
        self.aggressor_fills = sum(one.own for one in self.seen)
        self.hidden = [fact for one in every for fact in one.hidden]
        self.open_orders = sum(len(venue.book.open) for venue in venues.values())

    def divergence(self) -> tuple[int, str] | None:
        """Row and kind of the first: an execution before a book."""
        wrong = [(one.fact.row, 0, "execution") for one in self.executions if one.cause]
        wrong += [(end.row, 1, "book") for end in self.ends if not end.depth]
        return min(wrong)[::2] if wrong else None

    def counts(self) -> dict[str, Any]:
        """By the names that a certificate has for them."""
        rejects = [outcome.reject for one in self.instruments for outcome in one.outcomes]
        masked = MBO_FLAG_HIDDEN
        hidden = ("HIDDEN_ORDER" if fact.side or fact.flags & masked else "AUCTION" for fact in self.hidden)
        return {
            "rows": len(self.facts),
            "commands": len(self.asked),
            "symbols": max(len(self.instruments), 1),
            "executions": len(self.executions),
            "hidden": len(self.hidden),
            "reproduced": sum(one.cause is None for one in self.executions),
            "aggressor_fills": self.aggressor_fills,
            "known_makers": sum(one.not_judged is None for one in self.executions),
            "not_judged": dict(Counter(one.not_judged for one in self.executions if one.not_judged)),
            "oldest_first": sum(one.oldest for one in self.executions),
            "oldest_first_at_end": sum(one.oldest_at_end for one in self.executions),
            "events": len(self.ends),
            "events_not_compared": dict(sum((one.not_compared for one in self.instruments), Counter())),
            "touch_equal": sum(end.touch for end in self.ends),
            "depth_equal": sum(end.depth for end in self.ends),
            "crossed_events": sum(e.crossed and one.is_end(e) for one in self.instruments for e in one.seen),
            "open_orders": self.open_orders,
            "facts_rejected": dict(Counter(Reason(one.reason).name for one in self.seen if one.reason)),
            "commands_rejected": dict(Counter(Reason(reject.reason).name for reject in rejects if reject)),
            "causes": dict(Counter(one.cause for one in self.executions if one.cause) + Counter(hidden)),
            "first_divergence": self.divergence(),
        }
