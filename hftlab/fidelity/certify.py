"""The certificate of fidelity: how far a replay reproduces what the venue did.

The facts (market-by-order messages) are rebuilt: that is the venue's book. The commands inferred from them
are matched: that is ours. The two are compared execution by execution and event by event, and every
difference gets one cause. Every counterfactual (another order, another limit, another rule) rests on these
shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike, fspath
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from hftlab.codes import MBO_FLAG_HIDDEN, MBO_FLAG_SNAPSHOT, Anomaly, Code, MboAction, Reason
from hftlab.config.settings import Config
from hftlab.engine.book_states import queue_standings, run_states
from hftlab.engine.runner import TapeRun, run_tape
from hftlab.engine.workers import Progress
from hftlab.errors import MOST_LEVELS, UsageError, require_positive, table_of
from hftlab.feeds import Flow, open_flow
from hftlab.fidelity.certificate import (
    MEANING,
    OVER_TIME,
    Cause,
    Certificate,
    Divergence,
    Execution,
    NotCompared,
    NotJudged,
)
from hftlab.fidelity.compare import compare
from hftlab.kernels.book.opcodes import REJECTED
from hftlab.kernels.results.book_states import (
    BEHIND_MODIFIED,
    BEST_LEVEL,
    CROSSED,
    EXCEEDS,
    OLDEST,
    OPEN,
    Standings,
    States,
)
from hftlab.kernels.results.tables import MAKER, PRICE, QTY, SEQ
from hftlab.replayer.inference import Inference, infer, rebuilt
from hftlab.replayer.replayer import replay
from hftlab.results import tables
from hftlab.schema import TIMESTAMP, code_array, to_frame
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.facts import Mbo, Refills, facts_to_commands, read_mbo, read_mbp
from hftlab.tape.tables import CheckedTable, first_rows, read_orders

IDEAL = OPEN | BEST_LEVEL | OLDEST
NEIGHBOURS = 5  # facts shown on either side of the first divergence
LEVELS_SHOWN = 5
SPANS = 60  # the measures are also given over the course of the flow


def certify(
    flow: Any,
    *,
    levels: int = 10,
    config: Config | None = None,
    progress: Progress | None = None,
) -> Certificate:
    """Compare what a venue did with what replaying its flow does.

    Parameters: `flow` is a path, a `Flow` of facts or an mbo table. `levels` is how deep the books are
    compared after each event. `config` gives ticks and price rules. `progress` is called with rows done, of
    facts rebuilt and commands matched. The flow is held in memory: choose symbols of a large one.

    Price levels can't be matched: their certificate counts the trades, and compares the rebuilt touch with
    the venue's own if the source has it.

    Raises FormatError and TableError for broken input; UsageError for commands, which do not show what the
    venue executed.
    """
    if isinstance(flow, str | PathLike):
        flow = open_flow(fspath(flow))
    require_positive("levels", levels, MOST_LEVELS)
    if isinstance(flow, Flow) and flow.kind == "mbp":
        return _of_price_levels(flow, config)
    with table_of(flow.path if isinstance(flow, Flow) else None):
        mbo = read_mbo(table := _facts_of(flow))
    skipped = flow.table().num_rows - table.num_rows if isinstance(flow, Flow) else 0
    venue = _Side(facts_to_commands(mbo), levels, config, progress)
    inference = infer(mbo, rebuilt(venue.run, venue.states))
    ours = _Side(read_orders(inference.orders), levels, config, progress)
    return _Comparison(mbo, inference, venue, ours).certificate(flow, levels, skipped)


def _facts_of(flow: Any) -> Any:
    """The mbo table to certify: of the chosen symbols, if some are chosen."""
    if not isinstance(flow, Flow):
        return flow
    if flow.kind != "mbo":
        raise UsageError(
            f"{flow.path}: found commands (orders), expected facts (mbo), which show the orders that the "
            "venue executed"
        )
    table = flow.table()
    if flow.symbols is None:
        return table
    if "symbol" not in table.column_names:
        raise UsageError(f"{flow.path}: found no symbol column, expected one to choose symbols by")
    symbol = table["symbol"].cast(pa.string())
    there = set(symbol.unique().to_pylist())
    if missing := [name for name in flow.symbols if name not in there]:
        raise UsageError(f"symbols: found no rows of {', '.join(missing)}, expected symbols of the flow")
    return table.filter(pc.is_in(symbol, pa.array(flow.symbols)))


def _of_price_levels(flow: Flow, config: Config | None) -> Certificate:
    """The certificate of a flow that shows no orders."""
    rebuilt = replay(flow, "rebuild", config=config, record=("anomalies",))
    counts, mbp = rebuilt.summary(), read_mbp(flow.table())
    trades = int(np.count_nonzero(mbp.fact == MboAction.T))
    against = compare(flow, flow.path, config=config) if "book_ticker" in flow.extras else None
    events, equal = (against.rows, against.exact) if against else (0, 0)
    crossed = rebuilt.anomalies.filter(pl.col("kind").cast(pl.String) == Anomaly["CROSSED"].name)
    return Certificate(
        path=str(flow.path),
        format=flow.format,
        rows=counts["rows"],
        skipped=counts["skipped"],
        commands=0,
        symbols=counts["symbols"],
        executions=0,
        hidden=trades,
        reproduced=0,
        known_makers=0,
        oldest_first=0,
        oldest_first_at_end=0,
        not_judged={},
        aggressor_fills=0,
        events=events,
        touch_equal=equal,
        depth_equal=0,
        events_not_compared=against.events_not_compared if against else {},
        levels=0,
        crossed_events=crossed.height,
        open_orders=counts["open_orders"],
        facts_rejected=counts["reasons"],
        commands_rejected={},
        refills=flow.refills,
        causes={Cause.PRICE_LEVELS.name: trades} if trades else {},
        over_time=pl.DataFrame(schema=OVER_TIME),
        first_divergence=None,
        notes=tuple(flow.notes),
        faults=tuple(map(str, flow.faults)),
    )


class _Side:
    """One of the two runs: the venue's facts, or our commands."""

    def __init__(
        self, checked: CheckedTable, levels: int, config: Config | None, progress: Progress | None
    ) -> None:
        self.checked, self.config = checked, config
        self.tape = compile_checked(checked, rules_for(checked.symbols, None, config))
        self.run: TapeRun
        self.states: States
        self.run, self.states = run_states(self.tape, levels, progress)

    def rejected(self) -> dict[str, int]:
        """Rows that changed nothing, by reason."""
        counts = np.bincount(self.run.outcomes, minlength=256)[REJECTED:]
        return {r.name: int(counts[r]) for r in Reason if r is not Reason.NONE and counts[r]}

    def book_before(self, row: int, book: int) -> Iterator[tuple[int, int, int]]:
        """(price, lots, side) of the best levels of one instrument before a row.

        The rows before it run once more: books are kept as hashes only, and this is needed once.
        """
        head = first_rows(self.checked, row)
        orders = run_tape(compile_checked(head, rules_for(head.symbols, None, self.config))).open_orders
        for side in (1, -1):
            mine = (orders.book == book) & (orders.side == side)
            prices, level = np.unique(-side * orders.price[mine], return_inverse=True)
            lots = np.zeros(prices.size, np.int64)
            np.add.at(lots, level, orders.qty[mine])
            for price, qty in list(zip(prices.tolist(), lots.tolist(), strict=True))[:LEVELS_SHOWN]:
                yield -side * price, qty, side


class _ByBook:
    """The facts instrument by instrument, each in file order: its events, its moments, the row before.

    A moment is a run of rows of one instrument with one time.
    """

    def __init__(self, mbo: Mbo) -> None:
        self.order = np.argsort(mbo.book, kind="stable")
        self.rank = np.empty_like(self.order)  # of each row in this order
        self.rank[self.order] = np.arange(self.order.size)
        ts, self.book = mbo.ts[self.order], mbo.book[self.order]
        self._last = np.append(self.book[1:] != self.book[:-1], True)[: self.order.size]
        same = np.append(ts[1:] == ts[:-1], False)[: self.order.size]
        self.moments = self.spans(~same[self.rank])

    def spans(self, ends: np.ndarray) -> np.ndarray:
        """Number of the span that each row is in; `ends` marks last rows, and an instrument ends one too."""
        closed = ends[self.order] | self._last
        return (np.cumsum(closed) - closed)[self.rank]

    def row_before(self, rows: np.ndarray) -> np.ndarray:
        """The last row of the same instrument before each row; the row itself where there is none."""
        rank = self.rank[rows]
        before = np.maximum(rank - 1, 0)
        return self.order[np.where(self.book[before] == self.book[rank], before, rank)]

    def end_of_moment(self, rows: np.ndarray) -> np.ndarray:
        """The last row of the moment that each row is in."""
        moments = self.moments[self.order]
        return self.order[np.searchsorted(moments, self.moments[rows], side="right") - 1]


class _Comparison:
    """Facts, commands, and both runs, row by row."""

    def __init__(self, mbo: Mbo, inference: Inference, venue: _Side, ours: _Side) -> None:
        self.mbo, self.inference, self.venue, self.ours = mbo, inference, venue, ours
        self.by_book = _ByBook(mbo)
        self.fills = tables.expand_fills(ours.run).longs
        self.exact = self._exact()
        self.event = self._events()
        self.of_event, self.of_command = self._standings()
        self.not_judged = self._not_judged()
        self.hidden = self._hidden()
        self.causes = np.where(self.exact, -1, self._causes())
        self.events_not_compared: dict[str, int] = {}
        self.ends, self.touch, self.depth = self._states()

    def certificate(self, flow: Any, levels: int, skipped: int) -> Certificate:
        """Everything counted."""
        # price-time priority is judged by the venue's own book, so our differences don't count against it
        known = self.not_judged < 0
        oldest = (known & (places & IDEAL == IDEAL) for places in (self.of_event.places, self.of_event.ends))
        at_once, at_end = map(np.count_nonzero, oldest)
        causes = {cause.name: int(np.count_nonzero(self.causes == cause)) for cause in Cause}
        # a trade without a side and without a displayed order: the cross of an auction
        masked = self.mbo.flags[self.hidden] & MBO_FLAG_HIDDEN != 0  # no side, and no cross either
        crosses = int(np.count_nonzero((self.mbo.side[self.hidden] == 0) & ~masked))
        causes[Cause.AUCTION.name] += crosses
        causes[Cause.HIDDEN_ORDER.name] = int(self.hidden.sum()) - crosses
        crossed = self.venue.states.places[self._event_ends()] & CROSSED
        is_flow = isinstance(flow, Flow)
        return Certificate(
            path=str(flow.path) if is_flow else "",
            format=flow.format if is_flow else "mbo",
            rows=self.mbo.fact.size,
            skipped=skipped,
            commands=len(self.inference.first),
            symbols=len(self.mbo.symbols),
            executions=self.exact.size,
            hidden=int(self.hidden.sum()),
            reproduced=int(self.exact.sum()),
            known_makers=int(known.sum()),
            oldest_first=int(at_once),
            oldest_first_at_end=int(at_end),
            not_judged=_counted(self.not_judged, NotJudged),
            aggressor_fills=self.inference.aggressor_fills.size,
            events=self.ends.size,
            touch_equal=int(self.touch.sum()),
            depth_equal=int(self.depth.sum()),
            events_not_compared=self.events_not_compared,
            levels=levels,
            crossed_events=int(np.count_nonzero(crossed)),
            open_orders=self.venue.run.open_orders.count,
            facts_rejected=self.venue.rejected(),
            commands_rejected=self.ours.rejected(),
            refills="back" if self.mbo.requeues else "keep",
            causes={name: count for name, count in causes.items() if count},
            over_time=self._over_time(),
            first_divergence=self._first_divergence(),
            notes=tuple(flow.notes) if is_flow else (),
            faults=tuple(map(str, flow.faults)) if is_flow else (),
        )

    # -- executions

    def _ranks(self) -> np.ndarray:
        """Rank of each execution among those of its command."""
        order = np.argsort(self.inference.taker, kind="stable")  # those without a command come first
        taker = self.inference.taker[order]
        ranks = np.empty_like(order)
        ranks[order] = np.arange(taker.size) - np.searchsorted(taker, taker)
        return ranks

    def _exact(self) -> np.ndarray:
        """Whether the replay's fill of the same rank in the same command is the same."""
        rows, taker = self.inference.executions, self.inference.taker
        if not self.fills.shape[1]:  # no last fill to clip to
            return np.zeros(rows.size, bool)
        # fills are in the order of commands: the first of a command, and from there by rank
        index = np.searchsorted(self.fills[SEQ], taker) + self._ranks()
        there = (taker >= 0) & (index < self.fills.shape[1])
        index = np.minimum(index, self.fills.shape[1] - 1)
        columns = ((SEQ, taker), (MAKER, self.mbo.order_id[rows]), (PRICE, self.mbo.price[rows]))
        for column, expected in (*columns, (QTY, self.mbo.size[rows])):
            there &= self.fills[column, index] == expected
        return there

    def _same_fill(self) -> np.ndarray:
        """Whether the replay has the fill of each execution for its command, wherever among its fills."""
        rows = self.inference.executions
        venue = (self.inference.taker, self.mbo.order_id[rows], self.mbo.price[rows], self.mbo.size[rows])
        names = ("taker", "maker", "price", "qty")
        ours = pl.DataFrame(dict(zip(names, self.fills[[SEQ, MAKER, PRICE, QTY]], strict=True)))
        theirs = pl.DataFrame(dict(zip(names, venue, strict=True))).with_row_index("at")
        same = np.zeros(rows.size, bool)
        same[theirs.join(ours, on=names, how="semi")["at"].to_numpy()] = True
        return same

    def _events(self) -> np.ndarray:
        """Number of the event of its instrument that each row is in.

        Where the source marks no ends of events, what happens at one time is one.
        """
        marked = self.venue.checked.ends
        return self.by_book.spans(marked) if marked.size else self.by_book.moments

    def _standings(self) -> tuple[Standings, Standings]:
        """Where each execution's maker stood in the venue's book: by its event, and by its command."""
        executes = self.mbo.fact == MboAction.F
        executed_qty = np.where(executes, np.maximum(self.mbo.size, 0), -1)
        executed_qty[self.inference.aggressor_fills] = 0  # nothing was taken of what that order shows
        # each F runs as a C of one lot, so that the kernel looks its maker up
        fact = np.where(executes, np.int8(MboAction.C), self.mbo.fact)
        named = self.mbo._replace(fact=fact, size=np.where(executes, 1, self.mbo.size))
        checked = facts_to_commands(named, refills=Refills().of(self.mbo))
        tape = compile_checked(checked, rules_for(checked.symbols, None, self.venue.config))
        added = (self.mbo.fact == MboAction.A) & (self.venue.run.outcomes < REJECTED)
        rows, taker = self.inference.executions, self.inference.taker
        command = np.arange(self.mbo.fact.size)
        command[rows[taker >= 0]] = self.mbo.fact.size + taker[taker >= 0]
        found = (queue_standings(tape, executed_qty, group, added) for group in (self.event, command))
        of_event, of_command = (Standings(*(column[rows] for column in one)) for one in found)
        return of_event, of_command

    def _not_judged(self) -> np.ndarray:
        """Why each execution's place in the queue is not judged (NotJudged), -1 where it is."""
        rows = self.inference.executions
        tests = (
            (NotJudged.INITIAL_BOOK, self.of_event.places & OPEN == 0),
            (NotJudged.NO_SIDE, self.mbo.side[rows] == 0),
            (NotJudged.OTHER_PRICE, self.inference.maker_price != self.mbo.price[rows]),
        )
        return np.select([condition for _, condition in tests], [int(reason) for reason, _ in tests], -1)

    def _hidden(self) -> np.ndarray:
        """Rows of trades in events without a displayed execution of their instrument."""
        makers = self.event[self.inference.executions]
        displayed = np.bincount(makers, minlength=int(self.event.max(initial=0)) + 1) > 0
        return (self.mbo.fact == MboAction.T) & ~displayed[self.event] & (self.mbo.size > 0)

    def _causes(self) -> np.ndarray:
        """The first cause that applies to each execution, as if none had been reproduced."""
        mbo, rows, taker = self.mbo, self.inference.executions, self.inference.taker
        # what the book looked like counts before the whole command, not before a later fill of it
        first = rows.copy()
        first[taker >= 0] = self.inference.first[taker[taker >= 0]]
        crossed = self.venue.states.places & CROSSED != 0
        off_price = self.inference.maker_price != mbo.price[rows]
        before = self.by_book.row_before(first)
        crossed_before = crossed[before]
        # an auction leaves an uncrossed book at its end; a book that stays crossed lacks facts
        uncrosses = crossed_before & ~crossed[self.by_book.end_of_moment(rows)]
        told, done = self.of_command.places, self.of_command.ends
        tests = (
            (Cause.INITIAL_BOOK, told & OPEN == 0),
            (Cause.AUCTION, (mbo.side[rows] == 0) | uncrosses | off_price),
            (Cause.MORE_THAN_DISPLAYED, told & EXCEEDS != 0),
            (Cause.INCOMPLETE_BOOK, crossed_before),
            (Cause.OUT_OF_ORDER, mbo.ts[first] < mbo.ts[before]),
            (Cause.ORDER_OF_FILLS, self._same_fill()),
            (Cause.NOT_BEST_PRICE, done & BEST_LEVEL == 0),
            (Cause.PRIORITY_RULE, done & BEHIND_MODIFIED != 0),
            (Cause.NOT_OLDEST, done & OLDEST == 0),
        )
        conditions = [condition for _, condition in tests]
        return np.select(conditions, [int(cause) for cause, _ in tests], int(Cause.EARLIER_DIVERGENCE))

    # -- states

    def _is_end(self) -> np.ndarray:
        """Whether a row ends an event; every row does where the source marks none."""
        ends = self.venue.checked.ends
        return ends if ends.size else np.ones(self.mbo.fact.size, bool)

    def _event_ends(self) -> np.ndarray:
        return np.flatnonzero(self._is_end())

    def _states(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ends of events that cut no command of their instrument; whether touch and depth are equal there."""
        first, last = self.inference.first, self.inference.last
        # how many commands have begun and not ended at each row, in the order of `by_book`
        under_way, rank = np.zeros(self.mbo.fact.size, np.int64), self.by_book.rank
        np.add.at(under_way, rank[first], 1)
        np.add.at(under_way, rank[last], -1)
        ends = self._event_ends()
        inside = np.cumsum(under_way)[rank[ends]] != 0
        command = self._last_command(ends)
        reason = np.select([inside, command < 0], [0, 1], -1)
        self.events_not_compared = _counted(reason, NotCompared)
        ends, command = ends[reason < 0], command[reason < 0]
        venue, ours = self.venue.states, self.ours.states
        return ends, venue.touch[ends] == ours.touch[command], venue.depth[ends] == ours.depth[command]

    def _last_command(self, rows: np.ndarray) -> np.ndarray:
        """The last command of the same instrument at or before each row, -1 where there is none."""
        first, mbo = self.inference.first, self.mbo
        if not first.size:
            return np.full(rows.size, -1)
        span = np.int64(mbo.fact.size)  # one key for (instrument, row), so that one search finds both
        book = mbo.book.astype(np.int64)
        keys = book[first] * span + first
        order = np.argsort(keys, kind="stable")
        index = np.searchsorted(keys[order], book[rows] * span + rows, side="right") - 1
        command = order[np.maximum(index, 0)]
        found = (index >= 0) & (book[first[command]] == book[rows])
        return np.where(found, command, -1)

    def _over_time(self) -> pl.DataFrame:
        """Executions and events, and how many of each were equal, in spans of equally many facts."""
        rows = self.mbo.fact.size
        # the first fact that is no snapshot: nothing happens before it
        first = int(np.argmin(self.mbo.flags & MBO_FLAG_SNAPSHOT != 0)) if rows else 0
        spans = min(SPANS, rows - first)
        starts = first + np.arange(spans) * (rows - first) // max(spans, 1)

        def counted(rows: np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
            rows = rows if which is None else rows[which]
            span = np.maximum(
                np.searchsorted(starts, rows, side="right") - 1, 0
            )  # a snapshot is of the first
            return np.bincount(span, minlength=starts.size)

        executions = self.inference.executions
        columns = {
            "row": starts,
            "ts": self.mbo.ts[starts],
            "executions": counted(executions),
            "reproduced": counted(executions, self.exact),
            "events": counted(self.ends),
            "touch_equal": counted(self.ends, self.touch),
            "depth_equal": counted(self.ends, self.depth),
        }
        return pl.DataFrame(columns).cast(OVER_TIME)

    # -- the first divergence

    def _first_divergence(self) -> Divergence | None:
        wrong = np.flatnonzero(~self.exact)
        unequal = np.flatnonzero(~self.depth)
        never = self.mbo.fact.size
        # an execution goes before a state at the same row: it is the reason for it
        execution = int(self.inference.executions[wrong[0]]) if wrong.size else never
        state = int(self.ends[unequal[0]]) if unequal.size else never
        if min(execution, state) == never:
            return None
        if execution <= state:
            return self._divergence(execution, int(self.inference.taker[wrong[0]]), int(wrong[0]))
        return self._divergence(state, int(self._last_command(np.array([state]))[0]), None)

    def _divergence(self, row: int, command: int, execution: int | None) -> Divergence:
        mbo, book = self.mbo, int(self.mbo.book[row])
        mine = self.inference.executions[self.inference.taker == command]
        venue_from, ours_from = row, int(self._last_command(np.array([row]))[0]) + 1
        if command >= 0:  # both books before the command that the execution belongs to
            venue_from, ours_from = int(self.inference.first[command]), command
        elif execution is not None:
            mine = np.array([row])
        venue = (mbo.order_id[mine].view(np.uint64), mbo.price[mine], mbo.size[mine])
        fills = self.fills[:, self.fills[SEQ] == command]
        ours = (fills[MAKER].view(np.uint64), fills[PRICE], fills[QTY])
        start = max(0, row - NEIGHBOURS)
        return Divergence(
            row=row,
            sequence=int(mbo.sequence[row]),
            ts=int(mbo.ts[row]),
            symbol=mbo.symbols[book],
            what="book" if execution is None else "execution",
            cause="" if execution is None else Cause(int(self.causes[execution])).name,
            venue=tuple(map(Execution, *(column.tolist() for column in venue))),
            replay=tuple(map(Execution, *(column.tolist() for column in ours))),
            venue_book=tuple(self.venue.book_before(venue_from, book)),
            replay_book=tuple(self.ours.book_before(ours_from, book)),
            facts=self._facts(start, start + 2 * NEIGHBOURS + 1),
        )

    def _facts(self, start: int, stop: int) -> pl.DataFrame:
        """Facts as they were read, with their rows."""
        mbo = self.mbo
        book = mbo.book[start:stop]
        columns = {
            "ts_event": pa.array(mbo.ts[start:stop]).cast(TIMESTAMP),
            "symbol": pa.DictionaryArray.from_arrays(book, pa.array(mbo.symbols, pa.string())),
            "action": code_array(mbo.fact[start:stop], MboAction),
            "side": mbo.side[start:stop],
            "price": mbo.price[start:stop],
            "size": mbo.size[start:stop],
            "order_id": mbo.order_id[start:stop].view(np.uint64),
            "flags": mbo.flags[start:stop],
            "sequence": mbo.sequence[start:stop],
        }
        return to_frame(pa.table(columns)).with_row_index("row", start)


def _counted(numbers: np.ndarray, code: type[Code]) -> dict[str, int]:
    """How often each code is there, by name; -1 is none."""
    counts = {one.name: int(np.count_nonzero(numbers == one)) for one in code}
    return {name: count for name, count in counts.items() if count}


__all__ = ["MEANING", "Cause", "Certificate", "Divergence", "Execution", "certify"]
