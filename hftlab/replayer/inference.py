"""Facts to commands: the orders and cancels that must have reached the venue, given what it reported.

A market-by-order feed (MBO: "facts" here) reports results. A matching engine needs the commands behind them,
and some of those no feed shows: an execution of a resting order implies an incoming order from the other
side. The column `origin` marks every row as observed or inferred.

============================================ ====================================================
fact                                         command
============================================ ====================================================
A                                            NEW LIMIT GTC
M                                            REPLACE to its price and size, same id
C of all that is open                        CANCEL
C of less, or of an unknown order            REDUCE
C of all, then A of one message, one side    REPLACE with a new id
C or M that only reports what an F took      none (of a larger C the difference stays)
M of an order that F left nothing of         NEW LIMIT GTC, INFERRED: the refill of an iceberg
F                                            NEW LIMIT IOC from the other side, INFERRED
F, then A of what is left of the taker       NEW LIMIT GTC, INFERRED
F without a side (an auction's)              none; its C or M is a command then
F of the aggressor's own order               none; its C or M is a command then
A or M of a snapshot, or that crosses        NEW or REPLACE of type PASSIVE, INFERRED
R                                            CLEAR
T, N                                         none
============================================ ====================================================

Each instrument's facts are read on their own; facts of others in between don't matter.

**What only reports an execution.** The executed quantity of an order is *outstanding* until a C or M reports
it. F facts add to it, a C takes it down by its size, an M that is applied ends it, an A that is applied
begins anew. A C of no more than is outstanding is no command; of a larger one the difference is. An M is no
command if it leaves the price as it is and the quantity at what was open less what is outstanding. An M with
a side that is applied where nothing is left (no less is outstanding than is open) shows new lots: a NEW.

**The aggressor's own.** An F with a side whose order is named, with that side, by the last T before it that
names one, of the same instrument and time, is what the aggressor traded. No maker was executed.

**One incoming order.** Executions that follow each other (nothing but T, N and the C or M of an F between)
with one time, resting side and aggressor (the last T of that time that names one, from the other side), no
two in a row of one order, at prices that never get better for the taker, are one incoming order: its
quantity is the sum of what they took of what was displayed, its limit price the last and worst. Displayed of
an order is what is open less what is outstanding: nothing of one that is not in the book. An F with lots that
took nothing displayed belongs to no command, as if it weren't there. An A that follows at the same time from
the other side, at that price or beyond, is what was left of it (if a T named the aggressor, only the A of
that order). The id is that of the A or the T. Where neither names one, or the T's was added before, it is
synthetic: counted up from `TAKER_ID_BASE`, or from a range without real ids where those reach that far.

**Resting without matching.** What rests at the venue rests here: orders of a snapshot (flag 32), and orders
that would have traded with the book the facts imply at that moment, as in an auction. So the facts are
rebuilt once here.

**Facts that the rebuild refuses** (an id that is open already, an unknown one, no legal price or size) change
nothing, so nothing is inferred from them: they are commands of their own, no remainder and no part of a
REPLACE. Only a C of an unknown order may still report its F.

**Hidden executions** (a T in an event without an F) took liquidity that no book shows; a command for them
would take what is displayed instead, so there is none. The certificate counts them.

Row order is kept; `sequence` is that of the first fact behind the command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.codes import MBO_FLAG_SNAPSHOT, Action, MboAction, OrderType, Origin, Tif
from hftlab.errors import UsageError, table_of
from hftlab.feeds.flow import Flow, free_ids
from hftlab.schema import ANY_SIGN_KEY, CODE, ORDERS, TIMESTAMP, code_array

if TYPE_CHECKING:
    from hftlab.engine.runner import TapeRun
    from hftlab.kernels.results.book_states import States
    from hftlab.tape.facts import Mbo

TAKER_ID_BASE = 1 << 63

SCHEMA = ORDERS.append(pa.field("origin", CODE, nullable=False, metadata={"unit": "Origin"})).append(
    pa.field("sequence", pa.int64(), nullable=False, metadata={"unit": "message number of the source"})
)
SCHEMA = SCHEMA.with_metadata(SCHEMA.metadata | {ANY_SIGN_KEY: b""})

_A, _M, _C, _R, _T, _F, _N = (MboAction[name] for name in "AMCRTFN")
_NAMES_ORDER = np.isin(np.arange(len(MboAction)), (_A, _M, _C, _F))
_COMMAND = np.zeros(len(MboAction), dtype=np.int8)  # Action by MboAction
_COMMAND[[_A, _M, _C, _R, _F]] = Action.NEW, Action.REPLACE, Action.REDUCE, Action.CLEAR, Action.NEW


class Inference(NamedTuple):
    """The commands behind some facts, and which facts each explains."""

    orders: pa.Table  # schema SCHEMA
    first: np.ndarray  # int64 by command: row of the first fact behind it
    last: np.ndarray  # int64 by command: row of the last fact it explains, prompt removals included
    executions: np.ndarray  # int64: rows of the F facts of makers, in order
    taker: np.ndarray  # int64 by execution: its command, -1 for none (an auction, nothing displayed)
    maker_price: np.ndarray  # int64 by execution: 1e-9, that of its order, where that was open
    aggressor_fills: np.ndarray  # int64: rows of the F facts of an aggressor's own order


class _Facts(NamedTuple):
    """The columns of an mbo table as arrays."""

    ts_ns: np.ndarray
    action: np.ndarray
    side: np.ndarray
    price: np.ndarray
    size: np.ndarray
    order_id: np.ndarray
    snapshot: np.ndarray
    sequence: np.ndarray
    symbol: np.ndarray  # indices into `symbols`
    symbols: pa.Array
    crosses: np.ndarray  # whether an A or M would have traded with the book before it
    refused: np.ndarray  # whether rebuilding refused it


class Rebuilt(NamedTuple):
    """What rebuilding the facts shows about each."""

    crosses: np.ndarray  # bool: an A or M that would have traded with the book before it
    refused: np.ndarray  # bool: it changed nothing


class _History(NamedTuple):
    """The facts that name an order, order by order and each in file order."""

    rows: np.ndarray
    new: np.ndarray  # bool: where the next order begins


class _Causes(NamedTuple):
    """What each fact is to its order."""

    taken: np.ndarray  # lots: of a C, beyond earlier fills; of an F, of what was displayed
    all_open: np.ndarray  # bool: a C that took all
    by_fill: np.ndarray  # bool: a C or M that only reports a fill, an F of nothing displayed
    refills: np.ndarray  # bool: an M of an order that fills left nothing of


def infer_orders(flow: Flow | pa.Table) -> pa.Table:
    """The commands behind a flow or a table of facts (mbo): schema ORDERS with `origin` and `sequence`.

    A flow of commands is its own table; what was inferred from a flow is kept with it. Of a table `symbol`
    and `flags` may be missing, and `ts_event` and `sequence`, which are then the row number.

    Raises UsageError for price levels, which show no orders; TableError listing every column
    that is missing, holds nulls or has values of another type.
    """
    if not isinstance(flow, Flow):
        return _inferred(flow)
    if flow.kind == "orders":
        return flow.table()
    if flow.kind == "mbp":
        raise UsageError(
            f"{flow.path}: found price levels (mbp), expected orders or facts by order; "
            "levels can be rebuilt (mode rebuild) but not matched"
        )
    if flow.inferred is None:
        with table_of(flow.path):
            flow.inferred = _inferred(flow.table())
    return flow.inferred


def _inferred(mbo: pa.Table) -> pa.Table:
    # not at the top: a flow of commands is returned without loading kernels
    from hftlab.engine.book_states import run_states
    from hftlab.tape.compiler import compile_checked, rules_for
    from hftlab.tape.facts import facts_to_commands, read_mbo

    facts = read_mbo(mbo)
    checked = facts_to_commands(facts)
    tape = compile_checked(checked, rules_for(checked.symbols, None, None))
    return infer(facts, rebuilt(*run_states(tape))).orders


def rebuilt(run: TapeRun, states: States) -> Rebuilt:
    """What a run of the facts shows about each (see `engine.book_states.run_states`)."""
    from hftlab.kernels.book.opcodes import REJECTED
    from hftlab.kernels.results.book_states import CROSSES

    refused = run.outcomes >= REJECTED
    return Rebuilt((states.places & CROSSES != 0) & ~refused, refused)


def infer(mbo: Mbo, by_row: Rebuilt) -> Inference:
    """The commands behind checked facts; `by_row` is what `rebuilt` returns."""
    facts = _facts(mbo, by_row)
    by_book = _by_book(facts)
    aggressor, own = _aggressors(facts, by_book)
    facts.action[own] = _N
    history = _history(facts)
    causes = _causes(facts, history, by_book)
    is_command = (facts.action != _T) & (facts.action != _N) & ~causes.by_fill
    kept = by_book[is_command[by_book]]
    role = _roles(facts, kept, aggressor, causes)
    # a command is a run of kept facts: from one that begins it to the last before the next one
    start = np.flatnonzero(role == _BEGINS)
    stop = np.append(start[1:], len(kept))[: len(start)] - 1
    size = np.where(np.isin(facts.action, (_C, _F)), causes.taken, facts.size)[kept]
    size[role == _RENEWS] = 0  # a REPLACE has the size of its A, not of the C and the A together
    qty = np.add.reduceat(size, start) if len(start) else size
    renewed = role[stop] == _RENEWS
    qty[renewed] = facts.size[kept[stop[renewed]]]

    in_order = np.argsort(kept[start], kind="stable")  # commands in the order of their first facts
    first, last = kept[start][in_order], kept[stop][in_order]
    orders = _commands(facts, first, last, role[stop][in_order], qty[in_order], aggressor, causes)
    taker = np.full(len(is_command), -1)
    taker[kept] = np.argsort(in_order)[np.cumsum(role == _BEGINS) - 1]
    taker[facts.action != _F] = -1
    _with_removals(last, facts, history, by_book, taker)
    executions = np.flatnonzero((mbo.fact == _F) & ~own)
    maker_price = _maker_prices(facts, history)[executions]
    return Inference(orders, first, last, executions, taker[executions], maker_price, np.flatnonzero(own))


def _facts(mbo: Mbo, by_row: Rebuilt) -> _Facts:
    auctioned = (mbo.fact == _F) & (mbo.side == 0)  # no incoming order: its C or M is a command then
    return _Facts(
        mbo.ts,
        np.where(auctioned, np.int8(_N), mbo.fact),
        mbo.side,
        mbo.price,
        mbo.size,
        mbo.order_id.view(np.uint64),
        mbo.flags & MBO_FLAG_SNAPSHOT != 0,
        mbo.sequence,
        mbo.book,
        pa.array(mbo.symbols, pa.string()),
        *by_row,
    )


# ------------------------------------------------------------------ what caused what


def _by_book(facts: _Facts) -> np.ndarray:
    """All rows, instrument by instrument and each in file order."""
    many = len(facts.symbols) > 1
    return np.argsort(facts.symbol, kind="stable") if many else np.arange(len(facts.symbol))


def _causes(facts: _Facts, history: _History, by_book: np.ndarray) -> _Causes:
    """Follow each order through its own facts."""
    from hftlab.kernels.results.book_states import follow_fills

    rows, new = history
    # the kernel follows outstanding quantity through all facts; F facts themselves are then done with
    every, fill = rows, facts.action[rows] == _F
    filled, left = np.empty((2, len(rows)), np.int64)
    clears = _scattered(by_book, np.cumsum((facts.action == _R)[by_book]), len(by_book))[rows]
    cleared = clears != _previous(clears, 0)
    follow_fills(facts.action[rows], facts.size[rows], new, ~facts.refused[rows], cleared, filled, left)
    displayed = np.where(facts.size[rows] > 0, np.minimum(facts.size[rows], left), facts.size[rows])
    refills = (facts.action[rows] == _M) & ~facts.refused[rows] & (filled > 0) & (left == 0)
    refills &= facts.side[rows] != 0
    took_nothing = fill & (facts.size[rows] > 0) & (left == 0)
    filled = filled[~fill]
    order = np.cumsum(new)[~fill]
    rows = rows[~fill]
    new = np.diff(order, prepend=0) != 0
    action, size, price = facts.action[rows], facts.size[rows], facts.price[rows]

    # what is open of an order: the size of its last A or M, less what C facts took off since
    cancel, index, applied = action == _C, np.arange(len(rows)), ~facts.refused[rows]
    states = ((action == _A) | (action == _M)) & applied  # these set what is open, others only change it
    since = np.maximum.accumulate(np.where(states | new, index, 0))
    gone = np.cumsum(np.where(cancel & applied, size, 0))
    open_after = size[since] - (gone - gone[since])
    known = _previous(states[since], False) & ~new
    open_before, price_before = _previous(open_after, 0), _previous(price[since], 0)

    # a size of 0 or less stays as it is: the command is then refused for it, as the fact was
    taken = np.where(size > 0, np.maximum(size - filled, 0), size)
    all_open = cancel & applied & known & (size >= open_before)
    left_by_fill = known & (action == _M) & applied & (price == price_before) & (size == open_before - filled)
    by_fill = (filled > 0) & np.where(cancel, (size > 0) & (size <= filled), left_by_fill)
    displayed[~fill], took_nothing[~fill] = taken, by_fill
    count = len(facts.action)
    all_open = _scattered(rows, all_open, count)
    taken, by_fill, refills = (
        _scattered(every, values, count) for values in (displayed, took_nothing, refills)
    )
    return _Causes(taken, all_open, by_fill, refills)


def _history(facts: _Facts) -> _History:
    """The facts of each order."""
    rows = np.flatnonzero(_NAMES_ORDER[facts.action])
    ids, symbols = facts.order_id[rows], facts.symbol[rows]
    by_order = np.lexsort((ids, symbols)) if len(facts.symbols) > 1 else np.argsort(ids, kind="stable")
    ids, symbols = ids[by_order], symbols[by_order]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (ids[1:] != ids[:-1]) | (symbols[1:] != symbols[:-1])
    return _History(rows[by_order], new)


def _with_removals(
    last: np.ndarray, facts: _Facts, history: _History, by_book: np.ndarray, taker: np.ndarray
) -> None:
    """Carry `last` of each taker to the prompt removals of what it took.

    That is the next C or M of the order, if it is of the same time or the next fact of the instrument.
    """
    rows, new = history
    changes = np.isin(facts.action[rows], (_C, _M))
    following = np.minimum.accumulate(np.where(changes, np.arange(len(rows)), len(rows))[::-1])[::-1]
    ends = np.append(np.flatnonzero(new)[1:], len(rows))[np.cumsum(new) - 1]
    found = (following < ends) & (taker[rows] >= 0)
    # a removal much later may belong to something else, so only a prompt one ends the command
    fills, removals = rows[found], rows[following[found]]
    rank = np.empty_like(by_book)  # of each row among those of its instrument
    rank[by_book] = np.arange(len(by_book))
    prompt = (rank[removals] == rank[fills] + 1) | (facts.ts_ns[removals] == facts.ts_ns[fills])
    np.maximum.at(last, taker[fills[prompt]], removals[prompt])


def _maker_prices(facts: _Facts, history: _History) -> np.ndarray:
    """For each fact that names an order the price of its last applied A or M."""
    rows, new = history
    states = np.isin(facts.action[rows], (_A, _M)) & ~facts.refused[rows]
    since = np.maximum.accumulate(np.where(states | new, np.arange(len(rows)), 0))
    return _scattered(rows, facts.price[rows[since]], len(facts.action))


def _previous(values: np.ndarray, first: int | bool) -> np.ndarray:
    """Each row's value one row earlier."""
    shifted = np.empty_like(values)
    shifted[:1] = first
    shifted[1:] = values[:-1]
    return shifted


def _scattered(rows: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Values of some rows as a column of all `count`; zero elsewhere."""
    column = np.zeros(count, dtype=values.dtype)
    column[rows] = values
    return column


# ------------------------------------------------------------------ which facts belong together

_BEGINS, _EXECUTES, _REMAINS, _RENEWS = range(4)  # what a fact is to its command


def _aggressors(facts: _Facts, by_book: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the last T before each F that names an order says, if it is of the same time.

    Per fact, the order id of the aggressor from the other side (0 where no T names it), and whether an F is
    of the aggressor's own order.
    """
    named = ((facts.action == _T) & (facts.order_id != 0))[by_book]
    if not named.any():  # most feeds name no aggressor
        return np.zeros(len(named), np.uint64), np.zeros(len(named), bool)
    last = np.maximum.accumulate(np.where(named, np.arange(len(named)), -1))
    before = by_book[np.maximum(last, 0)]
    same = (last >= 0) & (facts.action[by_book] == _F)
    for column in (facts.ts_ns, facts.symbol):
        same &= column[before] == column[by_book]
    side, own_side = facts.side[by_book], facts.side[before]
    own = same & (side != 0) & (own_side == side) & (facts.order_id[before] == facts.order_id[by_book])
    same &= own_side == -side
    ids = np.where(same, facts.order_id[before], np.uint64(0))
    return _scattered(by_book, ids, len(named)), _scattered(by_book, own, len(named))


def _roles(facts: _Facts, kept: np.ndarray, aggressor: np.ndarray, causes: _Causes) -> np.ndarray:
    """Whether each kept fact belongs to the command before it, and how; the rules are at the top."""
    row, before = kept[1:], kept[:-1]
    side = facts.side[row].astype(np.int64)
    # what belongs together has one time and one instrument; a refused size stands alone
    together = (facts.size[row] > 0) & (facts.size[before] > 0)
    for column in (facts.ts_ns, facts.symbol):
        together &= column[row] == column[before]

    after_fill = together & (facts.action[before] == _F)
    executes = after_fill & (facts.action[row] == _F) & (aggressor[row] == aggressor[before])
    executes &= facts.side[row] == facts.side[before]
    executes &= facts.order_id[row] != facts.order_id[before]  # one taker would have taken it at once
    executes &= side * facts.price[row] <= side * facts.price[before]  # a taker's prices never get better

    # an A that crosses would have traded, so it is no remainder; it rests as PASSIVE
    adds = (facts.action[row] == _A) & ~facts.snapshot[row] & ~facts.refused[row]
    remains = after_fill & adds & ~facts.crosses[row] & (side == -facts.side[before])
    remains &= side * facts.price[row] >= side * facts.price[before]
    remains &= (aggressor[before] == 0) | (aggressor[before] == facts.order_id[row])

    # cancel-replace: the venue reports both halves in one message, which has one sequence
    renews = together & adds
    renews &= (facts.action[before] == _C) & causes.all_open[before] & (facts.side[before] == facts.side[row])
    renews &= (facts.sequence[row] == facts.sequence[before]) & (
        facts.order_id[row] != facts.order_id[before]
    )

    role = np.zeros(len(kept), np.int8)
    role[1:] = np.select([executes, remains, renews], [_EXECUTES, _REMAINS, _RENEWS], _BEGINS)
    return role


# ------------------------------------------------------------------ writing the commands


def _commands(
    facts: _Facts,
    first: np.ndarray,
    last: np.ndarray,
    role: np.ndarray,
    qty: np.ndarray,
    aggressor: np.ndarray,
    causes: _Causes,
) -> pa.Table:
    """One row per command, from its first and last kept fact and the role of the last."""
    taker = facts.action[first] == _F
    rests = taker & (role == _REMAINS)
    renewed = role == _RENEWS
    action = _COMMAND[facts.action[first]]
    action[causes.all_open[first]] = Action.CANCEL
    action[causes.refills[first]] = Action.NEW
    action[renewed] = Action.REPLACE
    passive = (facts.crosses[last] | facts.snapshot[last]) & np.isin(facts.action[last], (_A, _M))
    concluded = taker | passive | facts.snapshot[first] | causes.refills[first]
    side = np.where(taker, -facts.side[first], facts.side[first])
    columns = [
        pa.array(facts.ts_ns[first]).cast(TIMESTAMP),
        pa.DictionaryArray.from_arrays(facts.symbol[first].astype(np.int32), facts.symbols.cast(pa.string())),
        code_array(action, Action),
        _order_ids(facts, first, last, taker, rests, aggressor),
        pa.array(facts.order_id[last], mask=~renewed),
        side,
        code_array(np.where(passive, OrderType.PASSIVE, OrderType.LIMIT).astype(np.int8), OrderType),
        code_array(np.where(taker & ~rests, Tif.IOC, Tif.GTC).astype(np.int8), Tif),
        facts.price[last],
        qty,
        np.zeros(len(first), dtype=np.int32),
        np.zeros(len(first), dtype=bool),
        code_array(np.where(concluded, Origin.INFERRED, Origin.OBSERVED).astype(np.int8), Origin),
        facts.sequence[first],
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=SCHEMA)


def _order_ids(
    facts: _Facts,
    first: np.ndarray,
    last: np.ndarray,
    taker: np.ndarray,
    rests: np.ndarray,
    aggressor: np.ndarray,
) -> np.ndarray:
    """The id of each command: its order's, or its taker's where an A or T names it, else a synthetic one."""
    ids = np.where(rests, facts.order_id[last], facts.order_id[first])
    named = taker & ~rests & (aggressor[first] != 0)
    # an id that may still rest in the book would be a duplicate
    named[named] = ~_added_before(facts, aggressor[first[named]], first[named])
    ids[named] = aggressor[first[named]]
    nameless = taker & ~rests & ~named
    ids[nameless] = free_ids(facts.order_id, TAKER_ID_BASE, int(nameless.sum()))
    return ids


def _added_before(facts: _Facts, ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Whether an order of that id was added in an earlier row of the instrument: it may still rest."""
    # (instrument, id) as one number, then the first row that adds each
    adds = np.flatnonzero((facts.action == _A) & ~facts.refused)
    names, number = np.unique(np.append(facts.order_id[adds], ids), return_inverse=True)
    keys = facts.symbol[np.append(adds, rows)].astype(np.int64) * len(names) + number
    keys, number = np.unique(keys, return_inverse=True)
    first = np.full(len(keys), len(facts.action))
    np.minimum.at(first, number[: len(adds)], adds)
    return first[number[len(adds) :]] < rows
