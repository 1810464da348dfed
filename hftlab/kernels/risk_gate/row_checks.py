"""What rows are refused for without a book: checks 1 to 7 of docs/RISK.md, which depend on the input alone.

Message rates, repeated orders and states follow from the rows that came before, whatever became of them. So a
batch decides these for all its rows in one pass before it runs, the event path for each row as it comes, by
the same `check_row`. Its answer counts only once the row has turned out to be right by itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.codes import MAX_QTY
from hftlab.kernels.book.columns import bare_columns, raw_command, value_at
from hftlab.kernels.codes import (
    HALTED,
    KILL_SWITCH,
    LAST_CONTROL,
    MARKET_ORDER,
    MAX_NOTIONAL,
    MAX_ORDER_QTY,
    NEW,
    RATE_LIMIT,
    REDUCING,
    REPEATED_ORDER,
    REPLACE,
    RESTRICTED_SYMBOL,
    RISK_CONTROL,
    UNKNOWN_ACCOUNT,
)
from hftlab.kernels.primitives.compile import helper, kernel, rare
from hftlab.kernels.primitives.hash_index import find, home, store
from hftlab.kernels.primitives.int128 import exceeds, multiply, saturating_sum
from hftlab.kernels.primitives.int256 import widened
from hftlab.kernels.primitives.intrinsics import HOLDINGS_AHEAD, ZERO, bare, ix, prefetch
from hftlab.kernels.risk_gate.money import shown_money
from hftlab.kernels.risk_gate.records import ON_ACCOUNT, ON_SYMBOL, ONLY_REDUCES, SCOPE_SHIFT, STATE_MASK
from hftlab.kernels.risk_gate.repeated_orders import (
    NO_TIME,
    OF_REPEATS,
    count_repeats,
    is_full,
    is_within,
    prefetch_repeat,
)

SECOND = 1_000_000_000  # ns: the window of the message rate

TERM = np.dtype([("account", "i4"), ("limits", "i4")], align=True)  # what these checks need of a HOLDING

# columns of `clock` behind those of repeated_orders.py
TIME, ALL_STATE, REFUSES_UNKNOWN, REFUSED = range(OF_REPEATS, OF_REPEATS + 4)
INTERVAL, NEXT_MARK_TIME, EVERYWHERE = range(OF_REPEATS + 4, OF_REPEATS + 7)
RINGS, KEEPS_ALL, CLOCK = range(OF_REPEATS + 7, OF_REPEATS + 10)  # of `rings` taken; limits may be raised
NEVER = MAX_QTY
OF_ACCOUNT, OF_BOOK = 0, 1  # columns of new holdings
MARK_TIME, MARK_STARTED = 0, 1  # of the clock of `marking_rows`: the time so far, and whether there is one


class Intake(NamedTuple):
    """What the first seven checks remember."""

    index: np.ndarray  # ENTRY: (account, book) -> holding
    terms: np.ndarray  # TERM, by holding
    accounts: np.ndarray  # ACCOUNT
    symbols: np.ndarray  # SYMBOL
    limits: np.ndarray  # LIMIT
    rings: np.ndarray  # int64: times of each account's latest messages
    repeats: np.ndarray  # REPEAT: two tables, or [0] where nobody limits them
    refusals: np.ndarray  # REFUSAL
    clock: np.ndarray  # int64 [CLOCK]


@helper
def bare_intake(intake):
    """The same without reference counts (see intrinsics.py)."""
    return Intake(
        bare(intake.index),
        bare(intake.terms),
        bare(intake.accounts),
        bare(intake.symbols),
        bare(intake.limits),
        bare(intake.rings),
        bare(intake.repeats),
        bare(intake.refusals),
        bare(intake.clock),
    )


@kernel
def number_holdings(accounts, books, index, direct, lowest, known, start, holdings, new):
    """The holding of each row from `start`, into `holdings` [rows]; new ones are numbered on from `known`.

    `new` [rows, 2] takes account and book of those. `direct` [accounts from the `lowest`, books] or [0, 0] is
    where holdings are looked up first: it starts empty, `index` has them all. It stops before that is more
    than half full; returns (rows done, holdings known).
    """
    accounts, books, index, direct = bare(accounts), bare(books), bare(index), bare(direct)
    holdings, new = bare(holdings), bare(new)
    first, last = known, holdings.size - 1
    for row in range(start, holdings.size):
        account, book = value_at(accounts, row), value_at(books, row)
        # a table of all accounts and books, where it is small enough, takes a load instead of a search
        if direct.size:
            holding = np.int64(direct[ix(account - lowest), ix(book)])
            if holding != 0:
                holdings[ix(row)] = holding
                continue
        else:
            ahead = min(row + HOLDINGS_AHEAD, last)
            prefetch(index, home(index, value_at(accounts, ahead), value_at(books, ahead)))
        # not known yet, or no table: the index has them all
        place = find(index, account, book)
        holding = np.int64(index[ix(place)]["value"])
        if holding == 0:
            if 2 * known > index.size:
                return row, known
            holding = known
            store(index, place, account, book, holding)
            new[ix(known - first), OF_ACCOUNT], new[ix(known - first), OF_BOOK] = account, book
            known += 1
        if direct.size:
            direct[ix(account - lowest), ix(book)] = holding
        holdings[ix(row)] = holding
    return holdings.size, known


@helper
def exceeds_rate(intake, account, time):
    """Count a message; whether the account has sent as many as it may within the second before."""
    limit, sent = np.int64(account["rate"]), np.int64(account["messages"])
    account["messages"] = sent + 1
    room = np.int64(account["room"])
    if room == 0:
        return limit == 0
    start, mask = np.int64(account["ring"]), room - 1  # there is room for a power of two
    exceeds = limit == 0
    if 0 < limit <= min(sent, room):  # what a shorter ring has lost is more than a second old
        exceeds = is_within(SECOND, intake.rings[ix(start + ((sent - limit) & mask))], time)
    intake.rings[ix(start + (sent & mask))] = time
    return exceeds


@helper
def record_refusal(intake, row, reason, limit, observed):
    """Note why a row is refused, should a book ever get to know; returns the reason."""
    if intake.refusals.size:
        place = ix(intake.clock[REFUSED])
        intake.refusals[place]["row"] = row
        intake.refusals[place]["limit"] = limit
        intake.refusals[place]["observed"] = observed
        intake.clock[REFUSED] += 1
    return np.int64(reason)


@helper
def set_state(intake, holding, book, code):
    """Follow a RISK_CONTROL."""
    scope, state = code >> SCOPE_SHIFT, min(code & STATE_MASK, np.int64(HALTED))
    if scope == ON_ACCOUNT:
        intake.accounts[ix(intake.terms[ix(holding)]["account"])]["state"] = state
    elif scope == ON_SYMBOL:
        intake.symbols[ix(book)]["state"] = state
    else:
        intake.clock[ALL_STATE] = state


@helper
def check_row(intake, raw, holding):
    """The first seven checks of a row: a reason, or 0, with ONLY_REDUCES where nothing else is allowed."""
    row, action, price, qty = raw.row, raw.action, raw.price, raw.qty
    if action == RISK_CONTROL:
        if 0 <= qty <= LAST_CONTROL:
            set_state(intake, holding, raw.book, qty)
        return ZERO
    # a message and an order count whatever becomes of them, so both are counted before anything is refused
    place = intake.terms[ix(holding)]
    account, limit = intake.accounts[ix(place["account"])], intake.limits[ix(place["limits"])]
    too_many = exceeds_rate(intake, account, raw.time)
    repeats = ZERO
    market = action == NEW and raw.order_type == MARKET_ORDER
    if action == NEW and intake.repeats.size:
        key, at = holding if raw.side > 0 else -holding, ZERO if market else price
        repeats = count_repeats(intake.repeats, intake.clock, key, at, qty, raw.time)
    # cancels and the like pass from here on
    if action not in (NEW, REPLACE):
        return ZERO

    # checks 1 to 7 in their order; the first that fails decides
    state = max(
        np.int64(account["state"]), np.int64(intake.symbols[ix(raw.book)]["state"]), intake.clock[ALL_STATE]
    )
    if state == HALTED:
        return record_refusal(intake, row, KILL_SWITCH, ZERO, ZERO)
    if intake.clock[REFUSES_UNKNOWN] and account["known"] == 0:
        return record_refusal(intake, row, UNKNOWN_ACCOUNT, ZERO, np.int64(account["number"]))
    if limit["restricted"]:
        return record_refusal(intake, row, RESTRICTED_SYMBOL, ZERO, ZERO)
    if too_many:
        return record_refusal(intake, row, RATE_LIMIT, np.int64(account["rate"]), ZERO)
    if repeats > limit["repeats"]:
        return record_refusal(intake, row, REPEATED_ORDER, np.int64(limit["repeats"]), repeats)
    if qty > limit["order_qty"]:
        return record_refusal(intake, row, MAX_ORDER_QTY, np.int64(limit["order_qty"]), qty)
    if not market:
        amount = multiply(abs(price), qty)
        if exceeds(amount, (np.int64(limit["order_most_high"]), np.int64(limit["order_most_low"]))):
            observed = shown_money(widened(amount), np.int64(intake.symbols[ix(raw.book)]["lot"]))
            return record_refusal(intake, row, MAX_NOTIONAL, np.int64(limit["order_notional"]), observed)
    return np.int64(ONLY_REDUCES if state == REDUCING else 0)


@helper
def needs_room(intake, holding, time):
    """Whether a message could forget another that still counts, or fill a table of repeats too far.

    A ring that is too short is made longer here while `rings` has room.
    """
    if is_full(intake.repeats, intake.clock, time):
        return True
    account = intake.accounts[ix(intake.terms[ix(holding)]["account"])]
    room, sent = np.int64(account["room"]), np.int64(account["messages"])
    suffices = room >= account["rate"] and intake.clock[KEEPS_ALL] == 0
    if suffices or sent < room or room == 0:
        return False
    forgets = is_within(SECOND, intake.rings[ix(account["ring"] + (sent & (room - 1)))], time)
    return forgets and not lengthen(intake.rings, intake.clock, account)


@rare
def lengthen(rings, clock, account):
    """Twice the room for the times of an account's messages; False where `rings` has none."""
    room, sent, old = np.int64(account["room"]), np.int64(account["messages"]), np.int64(account["ring"])
    new = clock[RINGS]
    if new + 2 * room > rings.size:
        return False
    clock[RINGS] = new + 2 * room
    for message in range(sent - room, sent):
        rings[ix(new + (message & (2 * room - 1)))] = rings[ix(old + (message & (room - 1)))]
    account["room"], account["ring"] = 2 * room, new
    return True


@helper
def look_ahead(intake, columns, row, holding):
    """Bring what a coming row of a holding needs into the cache; the holding is there already."""
    account = intake.accounts[ix(intake.terms[ix(holding)]["account"])]
    if account["room"] != 0:
        mask, sent = np.int64(account["room"]) - 1, np.int64(account["messages"])
        prefetch(intake.rings, np.int64(account["ring"]) + ((sent - np.int64(account["rate"])) & mask))
    if intake.repeats.size:
        holding = holding if value_at(columns.side, row) > 0 else -holding
        prefetch_repeat(intake.repeats, holding, value_at(columns.price, row), value_at(columns.qty, row))


@kernel
def check_rows(intake, columns, ts, first_ts, row_holdings, row_reasons, start, stop):
    """`check_row` for rows [start, stop) of a table, into `row_reasons`; returns how far it came.

    `ts` [rows] or [0] are their times, which count up from `first_ts` where absent. It stops early when there
    is no room to remember a row.
    """
    intake, columns = bare_intake(intake), bare_columns(columns)
    ts, row_holdings, row_reasons = bare(ts), bare(row_holdings), bare(row_reasons)
    last = row_holdings.size - 1
    for row in range(start, stop):
        ahead = min(row + HOLDINGS_AHEAD, last)
        look_ahead(intake, columns, ahead, np.int64(row_holdings[ix(ahead)]))
        prefetch(intake.terms, np.int64(row_holdings[ix(min(row + 2 * HOLDINGS_AHEAD, last))]))
        time = max(intake.clock[TIME], ts[ix(row)] if ts.size else first_ts + row)
        intake.clock[TIME] = time
        if needs_room(intake, np.int64(row_holdings[ix(row)]), time):
            return row
        raw = raw_command(columns, row, 0, time)
        row_reasons[ix(row)] = check_row(intake, raw, np.int64(row_holdings[ix(row)]))
    return np.int64(stop)


@helper
def passes_mark(clock, time):
    """Whether positions are to be marked before a row at this time; the clock then waits for the next."""
    interval = clock[INTERVAL]
    if interval <= 0 or time < clock[NEXT_MARK_TIME] or clock[NEXT_MARK_TIME] == NEVER:
        return False
    started = clock[TIME] != NO_TIME
    clock[NEXT_MARK_TIME] = saturating_sum(time, interval - time % interval)
    return started


@kernel
def marking_rows(ts, first_ts, rows, interval, clock, found):
    """Rows before which positions are marked, into `found`; returns how many.

    `clock` [MARK_TIME, MARK_STARTED] goes on from call to call.
    """
    ts, clock, found = bare(ts), bare(clock), bare(found)
    count = 0
    for row in range(rows):
        time = ts[ix(row)] if ts.size else first_ts + row
        if clock[MARK_STARTED] == 0:
            clock[MARK_TIME], clock[MARK_STARTED] = time, 1
        elif time > clock[MARK_TIME]:
            if time // interval > clock[MARK_TIME] // interval:
                found[count] = row
                count += 1
            clock[MARK_TIME] = time
    return count
