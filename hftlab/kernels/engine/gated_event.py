"""One raw command from Python behind the risk gate: what `event.submit` is without one.

All of the gate's arrays stand at one address, like those of live books. What lacks room, or must be looked at
by Python first, is answered with a need before anything has changed; the same command comes again then.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels.codes import RISK_CONTROL
from hftlab.kernels.engine.event import (
    DETAILS,
    NEEDS_LIMITS,
    NEEDS_MESSAGES,
    NEEDS_ROOM,
    NEEDS_SLOTS,
    event,
    mark_positions,
    unpacked,
)
from hftlab.kernels.engine.live_books import COUNT, FILLED_QTY, LEAVES_QTY, array_in, live_books_at
from hftlab.kernels.primitives.compile import helper, quick_kernel
from hftlab.kernels.primitives.hash_index import ENTRY, lookup
from hftlab.kernels.primitives.intrinsics import ZERO, array_at, ix
from hftlab.kernels.primitives.python_int import plain
from hftlab.kernels.risk_gate.gate import (
    ACCOUNT,
    EVENT,
    EVENTS,
    HOLDING,
    MONEY,
    REFUSAL,
    REFUSALS,
    SYMBOL,
    Gate,
)
from hftlab.kernels.risk_gate.records import LIMIT
from hftlab.kernels.risk_gate.repeated_orders import REPEAT, is_within
from hftlab.kernels.risk_gate.risk import Risk
from hftlab.kernels.risk_gate.row_checks import REFUSED, SECOND, TERM, TIME, Intake, passes_mark

INT32, INT64, UINT8 = np.dtype("i4"), np.dtype("i8"), np.dtype("u1")

ACTED = 512  # in the answer: the gate has done something by itself

# columns of `calls`: address of the books, commands so far, the command before which limits change; messages
# of the last second, and where the oldest of them stands
LIVE_BOOKS, ROW, NEXT_CHANGE, MESSAGES, OLDEST, CALLS = range(6)


class Guard(NamedTuple):
    """The gate of one book. The fields, in this order, are the block `guard_at` reads."""

    calls: np.ndarray  # int64 [CALLS]
    holdings: np.ndarray  # those of gate.Gate
    money: np.ndarray
    accounts: np.ndarray
    symbols: np.ndarray
    limits: np.ndarray
    order_holdings: np.ndarray
    stop_order: np.ndarray
    names: np.ndarray
    events: np.ndarray
    counts: np.ndarray
    index: np.ndarray  # those of row_checks.Intake
    rings: np.ndarray
    repeats: np.ndarray
    clock: np.ndarray
    refusals: np.ndarray  # REFUSAL [1]: of the last command, if it was refused
    times: np.ndarray  # int64: messages of the last second, in a ring; [0] where nobody limits them
    senders: np.ndarray  # int32: the account (as in `accounts`) of each
    recent: np.ndarray  # int64 [accounts]: how many of them each has sent
    terms: np.ndarray  # of row_checks.Intake


GUARD_FIELDS = len(Guard._fields)
AT = Guard(*range(GUARD_FIELDS))  # number of each field in the block


class Messages(NamedTuple):
    """The messages of the last second."""

    times: np.ndarray
    senders: np.ndarray
    recent: np.ndarray


@helper
def guard_at(address):
    """The gate whose block of (address, length) pairs stands at an address, as (calls, risk, messages)."""
    # what gate and intake share is made once, so that both see the same array
    block = array_at(address, (2 * GUARD_FIELDS,), INT64)
    holdings = array_in(block, AT.holdings, HOLDING)
    accounts = array_in(block, AT.accounts, ACCOUNT)
    symbols = array_in(block, AT.symbols, SYMBOL)
    limits = array_in(block, AT.limits, LIMIT)
    order_holdings = array_in(block, AT.order_holdings, INT32)
    # what a batch reads by index has length 0 here, and must stand somewhere all the same
    nowhere = block[2 * AT.order_holdings]
    refusals = array_in(block, AT.refusals, REFUSAL)
    gate = Gate(
        holdings,
        array_in(block, AT.money, MONEY),
        accounts,
        symbols,
        limits,
        order_holdings,
        order_holdings,  # for `row_holdings`, which nobody reads by index here
        array_at(nowhere, (0,), UINT8),
        array_at(nowhere, (0,), INT32),
        array_in(block, AT.stop_order, INT32),
        array_in(block, AT.names, INT32),
        array_at(nowhere, (0,), INT64),
        refusals,
        array_in(block, AT.events, EVENT),
        array_in(block, AT.counts, INT64),
    )
    intake = Intake(
        array_in(block, AT.index, ENTRY),
        array_in(block, AT.terms, TERM),
        accounts,
        symbols,
        limits,
        array_in(block, AT.rings, INT64),
        array_in(block, AT.repeats, REPEAT),
        refusals,
        array_in(block, AT.clock, INT64),
    )
    messages = Messages(
        array_in(block, AT.times, INT64),
        array_in(block, AT.senders, INT32),
        array_in(block, AT.recent, INT64),
    )
    return array_in(block, AT.calls, INT64), Risk(gate, intake), messages


@helper
def count_message(calls, messages, sender, time):
    """Note a message of an account, and forget those that are a second old."""
    times, senders, recent = messages
    mask = times.size - 1
    while calls[MESSAGES] > 0 and not is_within(SECOND, times[ix(calls[OLDEST])], time):
        recent[ix(senders[ix(calls[OLDEST])])] -= 1
        calls[OLDEST] = (calls[OLDEST] + 1) & mask
        calls[MESSAGES] -= 1
    place = ix((calls[OLDEST] + calls[MESSAGES]) & mask)
    times[place], senders[place] = time, sender
    recent[ix(sender)] += 1
    calls[MESSAGES] += 1


@quick_kernel
def submit_gated(address, word, key, new_key, price, qty, account, time):
    """One raw command at a time (ns) to the book whose gate stands at an address; returns the outcome.

    DETAILS is added as `event.submit` does, ACTED where the gate has done something by itself: it stands in
    `events`. Of a refusal, limit and observed value stand in `refusals`.
    """
    word, key, new_key, price = plain(word), plain(key), plain(new_key), plain(price)
    qty, account = plain(qty), plain(account)
    calls, risk, messages = guard_at(plain(address))
    gate, clock = risk.gate, risk.intake.clock
    live = live_books_at(calls[LIVE_BOOKS])
    # whatever needs Python first is answered before the clock moves: the command comes again
    if calls[ROW] == calls[NEXT_CHANGE]:
        return np.int64(NEEDS_LIMITS)
    if messages.times.size != 0 and calls[MESSAGES] == messages.times.size:
        return np.int64(NEEDS_MESSAGES)
    # marks are due before the command; if a stop struck, Python takes note of it first
    time = max(clock[TIME], time)
    if passes_mark(clock, time):
        count = mark_positions(live, gate, clock, ZERO, ZERO)
        clock[TIME] = time
        if gate.counts[EVENTS] != 0:
            live.counts[COUNT] = count
            return np.int64(NEEDS_ROOM)
    # one command, so one refusal at most: it stands at the start
    clock[TIME] = time
    gate.counts[REFUSALS] = clock[REFUSED] = 0
    raw = unpacked(word, key, new_key, price, qty, account, time)
    outcome, filled, leaves, count = event(live, risk, ZERO, raw, None)
    if outcome >= NEEDS_SLOTS:
        return outcome
    # only what was answered counts, for a need brings the same command again
    calls[ROW] += 1
    if messages.times.size != 0 and raw.action != RISK_CONTROL:
        holding = lookup(risk.intake.index, account, ZERO)
        count_message(calls, messages, np.int64(risk.intake.terms[ix(holding)]["account"]), time)
    if gate.counts[EVENTS] != 0:
        outcome += ACTED
    if filled == 0 and leaves in (0, qty):
        return outcome
    live.counts[FILLED_QTY], live.counts[LEAVES_QTY], live.counts[COUNT] = filled, leaves, count
    return outcome + DETAILS
