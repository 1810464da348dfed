"""Which messages of one instrument make its book, in which order: the procedure that Binance documents.

"How to manage a local order book correctly", of the spot API (web-socket-streams.md) and of each futures
API. Updates that come before the snapshot wait for it; those it already contains (u <= lastUpdateId, futures
u < lastUpdateId) are dropped; the first after it must bracket lastUpdateId + 1; then U is the previous u + 1
(futures: pu is the previous u). So the snapshot stands before the first update it doesn't contain, wherever
the capture has it. After a gap the book goes on as it is until a snapshot that covers the gap replaces it.
Snapshots of a book without gaps that are not ahead of it aren't used. Without a snapshot the book begins
empty and levels appear as they change.
"""

from __future__ import annotations

from collections import Counter, deque

from hftlab.codes import MBO_FLAG_MAYBE_BAD, MBO_FLAG_SNAPSHOT
from hftlab.feeds.binance.messages import TRADE, UPDATE, Event, Faults
from hftlab.feeds.binance.tables import Rows

HELD_UPDATES = 5_000  # of one book without a snapshot; eight minutes at 100 ms
GAPS_LISTED = 20

CONTAINED = "updates that the snapshot already contains, dropped"
STALE = "updates older than the book, dropped"
GAPS = "sequence gaps"
MISSING = "update ids missing in them"
UNUSED = "snapshots that add nothing to the book, not used"
COUNTED = (CONTAINED, STALE, GAPS, MISSING, UNUSED)


class Book:
    """The book of one instrument; what belongs to it becomes rows as soon as that is known."""

    def __init__(self, number: int, rows: Rows, counts: Counter[str], faults: Faults) -> None:
        self.latest: int | None = None  # the last update id that was seen
        self._number, self._rows, self._counts, self._faults = number, rows, counts, faults
        self._last: int | None = None  # the id the book has reached
        self._ts: int | None = None  # the venue's time of that
        self._waiting = True  # for the first snapshot
        self._empty = False  # at the beginning, because none came
        self._seeded = False  # nothing but the snapshot so far
        self._gap = False  # since when the book isn't known to be right
        self._held: deque[Event] = deque(maxlen=HELD_UPDATES)

    @property
    def began_empty(self) -> bool:
        """Whether there were updates, and no snapshot before them."""
        return self._empty and self.latest is not None

    def take(self, event: Event) -> None:
        """An update or a trade."""
        if event.kind is UPDATE:
            self.latest = event.last
        if not self._waiting:
            self._apply(event)
            return
        self._hold(event)
        if len(self._held) == HELD_UPDATES:
            self.end()

    def snapshot(self, event: Event) -> None:
        """Use a snapshot if the book needs it and it reaches far enough."""
        if not self._waiting and not self._helps(event):
            self._counts[UNUSED] += 1
            return
        held, again = list(self._held), not self._waiting
        after = next((i for i, h in enumerate(held) if not _contains(event, h)), len(held))
        for before in held[:after]:
            self._ts = before.ts
            if not again:
                self._pass(before)
        times = (event.ts, self._ts, *(h.ts for h in held[after : after + 1]), event.recv, 0)
        event.ts = next(ts for ts in times if ts is not None)
        event.recv = event.ts if event.recv is None else event.recv
        self._rows.add(event, self._number, MBO_FLAG_SNAPSHOT)
        self._last, self._ts, self._seeded = event.last, event.ts, True
        self._waiting = self._gap = False
        self._held.clear()
        for later in held[after:]:
            self._apply(later, again)

    def end(self) -> None:
        """No snapshot is waited for any more: levels appear as they change, until one comes after all."""
        if self._waiting:
            held = list(self._held)
            self._held.clear()
            self._waiting, self._empty, self._gap = False, True, True
            for event in held:
                self._apply(event)

    def _helps(self, snapshot: Event) -> bool:
        """Whether a snapshot is ahead of a whole book, or covers the gap of another."""
        if self._gap:
            return bool(self._held) and snapshot.last >= _reach(self._held[0])
        return self._last is None or snapshot.last > self._last

    def _pass(self, event: Event) -> None:
        """What came before the first snapshot: updates are in it, trades stay."""
        if event.kind is TRADE:
            self._rows.add(event, self._number)
        else:
            self._counts[CONTAINED] += 1

    def _hold(self, event: Event) -> None:
        event.levels = event.levels.copy()  # so that those read with it need not be held
        self._held.append(event)

    def _apply(self, event: Event, again: bool = False) -> None:
        """Make rows of an update or a trade; `again` where that was done before a new snapshot."""
        if event.kind is TRADE:
            self._rows.add(event, self._number)
            return
        if self._last is not None:
            if _old(event, self._last, self._seeded):
                self._counts[CONTAINED if self._seeded else STALE] += 1
                return
            if not self._follows(event):
                self._break(event, again)
        self._rows.add(event, self._number, MBO_FLAG_MAYBE_BAD if self._gap else 0)
        self._last, self._ts, self._seeded = event.last, event.ts, False
        if self._gap:
            self._hold(event)

    def _follows(self, event: Event) -> bool:
        """Whether no update is missing, or there twice, between the book and this one."""
        return _reach(event) <= self._last if self._seeded else _reach(event) == self._last

    def _break(self, event: Event, again: bool) -> None:
        """Say that updates are missing before this one."""
        futures = event.previous is not None
        missing = 0 if futures else max(0, event.first - self._last - 1)
        self._gap = self._gap or futures or missing > 0
        if again:
            return
        self._counts[GAPS] += 1
        self._counts[MISSING] += missing
        if self._counts[GAPS] > GAPS_LISTED:
            found, expected = f"a sequence gap beyond the first {GAPS_LISTED}", "no update missing"
        elif futures:
            found, expected = f"pu {event.previous:,} after u {self._last:,}", "pu of each the u before"
        else:
            found = f"U {event.first:,} after u {self._last:,} ({missing:,} missing)"
            expected = "U one above u"
        self._faults.add(f"line {event.row:,}", found, expected)


def _reach(update: Event) -> int:
    """The id right before an update: a book that has reached it lacks nothing."""
    return update.first - 1 if update.previous is None else update.previous


def _contains(snapshot: Event, event: Event) -> bool:
    """Whether a snapshot has an update already; trades go with the updates before them."""
    return event.kind is TRADE or _old(event, snapshot.last, True)


def _old(update: Event, last: int, seeded: bool) -> bool:
    """Whether a book that has reached `last` has an update; futures apply the one of a snapshot's own id."""
    return update.last < last if seeded and update.previous is not None else update.last <= last
