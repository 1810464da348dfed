"""The event loop with a clock in it: when each command started and ended, in histograms.

The commands go through the same `apply_row` as without a clock; a run that isn't profiled runs another kernel
and pays nothing. The clock is read twice for a command, and its time contains one of the two readings; with
stages it contains one for each border between them (see stage_clock.py), in a kernel of its own again.
Rows are not looked ahead at: a command costs what one costs that nobody saw coming.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels.book.columns import value_at
from hftlab.kernels.book.ladder import ASK, BASE, BEST, BID, SIZE
from hftlab.kernels.book.opcodes import REJECTED
from hftlab.kernels.book.price_grid import level_price
from hftlab.kernels.codes import (
    BOOK_EMPTY,
    BOOK_ONE_SIDED,
    BOOK_STATES,
    BOOK_TIGHT,
    BOOK_WIDE,
    CANCELLED,
    EFFECT_NOTHING,
    EFFECT_REJECTED,
    EFFECT_REMOVED,
    EFFECT_RESTED,
    EFFECT_TRADED,
    EFFECTS,
    EVENT_TYPES,
    EXPIRED,
    REPLACED,
    RESTING,
    RISK_CONTROL,
    STAGE_LOOKUP,
    STAGE_PUBLISH,
    STAGE_RISK,
)
from hftlab.kernels.engine.batch import bare_outputs
from hftlab.kernels.engine.event import NEEDS_SLOTS, apply_row, bare_rows, note_row
from hftlab.kernels.engine.live_books import live_books_at
from hftlab.kernels.primitives.compile import helper, kernel
from hftlab.kernels.primitives.cycle_clock import note_if_long, now, spin_until, to_ns
from hftlab.kernels.primitives.histogram import record
from hftlab.kernels.primitives.intrinsics import ZERO, bare, ix
from hftlab.kernels.primitives.stage_clock import (
    LAST,
    STAGES,
    bare_stamps,
    first_lap,
    lap,
)
from hftlab.kernels.risk_gate.risk import bare_risk
from hftlab.kernels.risk_gate.row_checks import EVERYWHERE

CASES = EVENT_TYPES * EFFECTS * BOOK_STATES  # an event type, what came of it, the book it found

# the two histograms of a case
SERVICE, RESPONSE = 0, 1  # end - start; end - intended

# columns of `settings`
COUNTER, MULT, HALF, THRESHOLD, EVERY, STALL_ROW, STALL_TICKS, BEGIN, END, PENDING, SETTINGS = range(11)

# columns of `samples`
SAMPLE_ROW, SAMPLE_INTENDED, SAMPLE_START, SAMPLE_END = range(4)
SAMPLE_STAGES = 4  # ticks of each stage, in order; none where stages aren't measured
SAMPLE = SAMPLE_STAGES + len(STAGES)


class Probe(NamedTuple):
    """What a profiled run reads and what it writes."""

    settings: np.ndarray  # int64 [SETTINGS]
    intended: (
        np.ndarray
    )  # int64 by row: ticks after the first command; or [0]: each when the one before is done
    counts: np.ndarray  # int64 [2, CASES, buckets]
    tallies: np.ndarray  # int64 [2, CASES, TALLY]
    stalls: np.ndarray  # the longest services, see cycle_clock.LONG
    seen: np.ndarray  # of the waits for commands to come, see cycle_clock.SEEN
    gaps: np.ndarray  # the longest interruptions of those waits
    samples: np.ndarray  # int64 [rows, SAMPLE]: every EVERY-th row, in ticks; or none
    states: np.ndarray  # uint8 [books]: BookState of each, kept apart so that a look at it warms no book
    stage_counts: np.ndarray  # int64 [stages, event types, buckets], or no buckets
    stage_tallies: np.ndarray  # int64 [stages, event types, TALLY]


@helper
def bare_probe(probe):
    """The same without reference counts (see intrinsics.py)."""
    return Probe(
        bare(probe.settings),
        bare(probe.intended),
        bare(probe.counts),
        bare(probe.tallies),
        bare(probe.stalls),
        bare(probe.seen),
        bare(probe.gaps),
        bare(probe.samples),
        bare(probe.states),
        bare(probe.stage_counts),
        bare(probe.stage_tallies),
    )


@helper
def effect_of(outcome, filled):
    """What came of a command."""
    if outcome >= REJECTED:
        return EFFECT_REJECTED
    if filled > 0:
        return EFFECT_TRADED
    if outcome in (RESTING, REPLACED):
        return EFFECT_RESTED
    return EFFECT_REMOVED if outcome in (CANCELLED, EXPIRED) else EFFECT_NOTHING


@helper
def state_of(live, book):
    """What a book looks like."""
    heads, place = live.books.heads, ix(book)
    bid, ask = np.int64(heads[place, BEST + BID]), np.int64(heads[place, BEST + ASK])
    bids = bid >= heads[place, BASE]
    asks = ask >= heads[place, BASE] + heads[place, SIZE]
    if not (bids and asks):
        return BOOK_ONE_SIDED if bids or asks else BOOK_EMPTY
    spread = level_price(live.grid, book, ask) - level_price(live.grid, book, bid)
    return BOOK_TIGHT if spread <= live.grid.rules[place]["tick"] else BOOK_WIDE


@helper
def note_states(live, states):
    """What all books look like."""
    for book in range(states.size):
        states[book] = state_of(live, np.int64(book))


@helper
def begin_row(live, probe, row, stamps):
    """(intended, start) of a row, waiting until it is due; its first start where it had to be tried again."""
    settings = probe.settings
    counter = settings[COUNTER]
    if settings[BEGIN] == 0:
        note_states(live, probe.states)
        settings[BEGIN] = now(counter)
    intended = ZERO
    if probe.intended.size != 0:
        intended = settings[BEGIN] + probe.intended[ix(row)]
        start = spin_until(
            counter, settings[MULT], intended, settings[THRESHOLD], probe.seen, probe.gaps, np.int64(row)
        )
    else:
        start = now(counter)
    if settings[PENDING] != 0:
        start = settings[PENDING]
    else:
        first_lap(stamps, start)
    return intended if probe.intended.size != 0 else start, start


@helper
def finish(stamps, counter):
    """When a row is done."""
    if stamps is None:
        return now(counter)
    lap(stamps, STAGE_PUBLISH)
    return stamps[LAST]


@helper
def record_stages(probe, risk, stamps, event_type):
    """Record how long the stages of a row took; without a gate there is no STAGE_RISK."""
    settings = probe.settings
    for stage in STAGES:
        if stage != STAGE_RISK or risk is not None:
            counts = probe.stage_counts[stage - STAGE_LOOKUP, event_type]
            tally = probe.stage_tallies[stage - STAGE_LOOKUP, event_type]
            record(counts, tally, settings[HALF], to_ns(stamps[stage], settings[MULT]), np.int64(1))


@helper
def end_row(probe, row, case, intended, start, end, stamps):
    """Record a row that is done."""
    settings = probe.settings
    half, mult = settings[HALF], settings[MULT]
    service = to_ns(end - start, mult)
    record(probe.counts[SERVICE, case], probe.tallies[SERVICE, case], half, service, np.int64(1))
    note_if_long(probe.stalls, service, start, row)
    if probe.intended.size:
        response = to_ns(end - intended, mult)
        record(probe.counts[RESPONSE, case], probe.tallies[RESPONSE, case], half, response, np.int64(1))
    if probe.samples.shape[0] and row % settings[EVERY] == 0:
        sample = probe.samples[row // settings[EVERY]]
        sample[SAMPLE_ROW], sample[SAMPLE_INTENDED] = row, intended
        sample[SAMPLE_START], sample[SAMPLE_END] = start, end
        if stamps is not None:
            for stage in STAGES:
                sample[SAMPLE_STAGES + stage - STAGE_LOOKUP] = stamps[stage]


@helper
def stall(settings):
    """Hold everything up for a while, as the machine might."""
    counter = settings[COUNTER]
    until = now(counter) + settings[STALL_TICKS]
    while now(counter) < until:
        pass


@helper
def follow(live, risk, touch, marked, event_type, book, states):
    """Keep up with what the books look like."""
    if risk is not None and (marked or event_type == RISK_CONTROL):
        note_states(live, states)
        if touch.size == 0:
            risk.intake.clock[EVERYWHERE] = 0  # else `note_row` has seen to it
    states[ix(book)] = state_of(live, book)


@helper
def has_marked(risk):
    """Whether the gate may have changed other books before a row."""
    return False if risk is None else risk.intake.clock[EVERYWHERE] != 0


@helper
def profiled_loop(live, risk, rows, outputs, start, count, touches, probe, stamps):
    """`run_profiled`, with everything bare."""
    settings, states, columns = probe.settings, probe.states, rows.columns
    for row in range(start, columns.action.size):
        intended, began = begin_row(live, probe, row, stamps)
        outcome, filled, leaves, count = apply_row(live, risk, rows, row, count, stamps)
        if outcome >= NEEDS_SLOTS:
            settings[PENDING] = began  # what has to grow first is part of the row's time
            return np.int64(row), count, touches, outcome
        settings[PENDING] = 0
        outputs.outcomes[row] = outcome
        outputs.filled[row] = filled
        outputs.leaves[row] = leaves
        marked = has_marked(risk)
        touches = note_row(live, risk, columns, outputs, row, touches)
        if row == settings[STALL_ROW]:
            stall(settings)
        end = finish(stamps, settings[COUNTER])
        settings[END] = end
        event_type, book = np.int64(value_at(columns.action, row)), np.int64(value_at(columns.book, row))
        case = (event_type * EFFECTS + effect_of(outcome, filled)) * BOOK_STATES + states[ix(book)]
        end_row(probe, np.int64(row), case, intended, began, end, stamps)
        if stamps is not None:
            record_stages(probe, risk, stamps, event_type)
        follow(live, risk, outputs.touch, marked, event_type, book, states)
    return np.int64(columns.action.size), count, touches, ZERO


@kernel
def run_profiled(address, risk, columns, ts, first_ts, outputs, facts, start, count, touches, probe, stamps):
    """`run_events`, measured; what it returns is the same. `stamps` is None where stages aren't."""
    return profiled_loop(
        live_books_at(address),
        bare_risk(risk),
        bare_rows(columns, ts, first_ts, facts),
        bare_outputs(outputs),
        start,
        count,
        touches,
        bare_probe(probe),
        bare_stamps(stamps),
    )
