"""The loop closed: a venue's commands, told as facts, inferred back and matched, are what the venue did.

The venue is the slow twin, so inference, rebuild, states and certificate are all held against it at once.
"""

from __future__ import annotations

import numpy as np
import pytest

import hftlab
from hftlab.codes import Action, MboAction, OrderType
from hftlab.engine.book_states import queue_places, run_states
from hftlab.fidelity.certify import certify
from hftlab.kernels.results.book_states import BEST_LEVEL, CROSSED, CROSSES, OLDEST, OPEN
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.facts import facts_to_commands, read_facts, read_mbo
from hftlab.tape.tables import read_orders
from tests.helpers import flows
from tests.helpers.facts import mbo
from tests.helpers.slices import fewer
from tests.helpers.venue_reports import Reporter
from tests.reference.book import ReferenceBook, ReferenceVenue

SIZE = fewer(4_000)


def continuous(name: str, seed: int) -> flows.Flow:
    """A flow of distinct times in which nobody rests where they would trade: continuous trading."""
    flow = flows.make(name, SIZE, seed)
    flow.columns["ts"] = np.arange(len(flow)) * 1_000
    types = flow.columns["order_type"]
    types[types == OrderType.PASSIVE] = OrderType.LIMIT
    return flow


@pytest.mark.parametrize("named", [False, True], ids=["nameless takers", "named takers"])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", ["ordinary", "tight", "sweeps", "replaces", "venue", "pileup"])
def test_what_a_venue_of_our_rules_reports_is_reproduced(name, seed, named):
    """Every execution, and every book at ten levels after every event, whatever the orders were."""
    flow = continuous(name, seed)
    found = certify(Reporter(flow.tick, named).run(flow.rows()))
    assert found.executions > 0
    where = found.first_divergence
    assert found.causes == {}, where
    assert (found.reproduced, found.oldest_first) == (found.executions, found.known_makers), where
    assert found.touch_equal == found.depth_equal == found.events > SIZE // 4, where
    assert found.facts_rejected == found.commands_rejected == {}


@pytest.mark.parametrize("name", ["ordinary", "tight", "sweeps"])
def test_the_rebuilt_book_is_the_venue_s(name):
    """The last book of the facts is that of the commands, queue by queue."""
    flow = continuous(name, 3)
    reporter = Reporter(flow.tick)
    run = hftlab.replay(reporter.run(flow.rows()), "rebuild", tick_size=flow.tick)
    found = sorted(run.book.select("symbol", "side", "price", "qty", "order_id").cast({"symbol": str}).rows())
    expected = [
        (symbol, side, price, qty, order_id)
        for symbol, book in reporter.books.items()
        for side, price, qty, order_id, _ in book.resting()
    ]
    assert found == sorted(expected)
    assert run.summary()["rejected"] == 0


# ------------------------------------------------------------------ states against the twin


def would_cross(book, action, order_id, side, price):
    """Whether what is added or replaced would trade, found by looking."""
    if action == Action.NEW:
        return bool(book._half(-side).ranks) if price is None else book._would_trade(side, price)
    order = book.open.get(order_id)
    return action == Action.REPLACE and order is not None and book._would_trade(order.side, price)


def is_crossed(book):
    bid, offer = book.bids.touch()[0], book.offers.touch()[0]
    return bid is not None and offer is not None and bid >= offer


@pytest.mark.parametrize("name", ["tight", "tiny", "wide", "sweeps", "venue"])
def test_states_of_commands_are_the_twin_s(name):
    """What would cross, what is crossed, and two hashes that are equal exactly when the levels are."""
    flow = flows.make(name, SIZE, 5)
    checked = read_orders(flow.table())
    _, states = run_states(compile_checked(checked, rules_for(checked.symbols, flow.tick, None)), 3)
    venue = ReferenceVenue(flow.tick, flow.allow_nonpositive)
    tops, depths = {}, {}
    for row, (_, symbol, *command) in enumerate(flow.rows()):
        book = venue.book(symbol)
        action, order_id, _, side, order_type, _, price = command[:7]
        priced = not (action == Action.NEW and order_type == OrderType.MARKET) and price > 0
        expected = would_cross(book, action, order_id, side, price if priced else None)
        if book.apply(command).reject is None:
            assert bool(states.places[row] & CROSSES) == expected, (row, command)
        assert bool(states.places[row] & CROSSED) == is_crossed(book)
        assert tops.setdefault(int(states.touch[row]), book.top(1)) == book.top(1)
        assert depths.setdefault(int(states.depth[row]), book.top(3)) == book.top(3)
    assert len(set(map(repr, tops.values()))) == len(tops)
    assert len(set(map(repr, depths.values()))) == len(depths)


def test_states_of_facts_are_the_twin_s():
    """The same for facts, which cross and are never matched."""
    table = flows.facts(SIZE, 6)
    checked = read_facts(table)
    _, states = run_states(compile_checked(checked, rules_for(checked.symbols, None, None)), 2)
    books = {}
    actions = {MboAction.A: Action.NEW, MboAction.M: Action.REPLACE, MboAction.C: Action.REDUCE}
    symbols = table["symbol"].to_pylist()
    for row, fact in enumerate(flows.fact_rows(table)):
        action, order_id, side, price, _ = fact = fact[2:]
        book = books.setdefault(symbols[row], ReferenceBook(1, False))
        expected = would_cross(book, actions.get(action), order_id, side, price)
        if book.apply_fact(fact).reject is None:
            assert bool(states.places[row] & CROSSES) == expected, (row, fact)
        assert bool(states.places[row] & CROSSED) == is_crossed(book)


# ------------------------------------------------------------------ places against the twin


def left_of(book, pending, side, price):
    """Ids at a price of which something is left after the executions told so far, oldest first."""
    level = book._half(side).levels.get(side * price)
    orders = level.orders.values() if level else ()
    return [order.order_id for order in orders if order.open_qty > pending.get(order.order_id, 0)]


def place_of(book, pending, order_id):
    """OPEN, BEST_LEVEL and OLDEST of an executed order."""
    order = book.open.get(order_id)
    if order is None:
        return 0
    side, price = order.side, order.level.price
    better = [rank for rank in book._half(side).ranks if rank > side * price]
    place = OPEN
    if not any(left_of(book, pending, side, side * rank) for rank in better):
        place |= BEST_LEVEL
    if left_of(book, pending, side, price)[:1] == [order_id]:
        place |= OLDEST
    return place


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_places_of_executions_are_the_twin_s(seed):
    """What was told to be executed is thought away for the next; only A, M, C and R change the book."""
    rng = np.random.default_rng(seed)
    letters = rng.choice(list("AAAAMCFFFFR"), SIZE, p=[0.12] * 4 + [0.08, 0.1] + [0.08375] * 4 + [0.005])
    rows = zip(letters, *(rng.integers(*span, SIZE) for span in ((1, 40), (1, 6), (9, 13))), strict=True)
    facts = [(a, i, "BS"[i % 2], size, price) for a, i, size, price in rows]
    table = mbo(*(f"{a}{i} {side} {size}@{price}" for a, i, side, size, price in facts))
    executes, named = letters == "F", read_mbo(table)
    told = np.where(executes, named.size, -1)
    named = named._replace(fact=np.where(executes, np.int8(MboAction.C), named.fact))
    checked = facts_to_commands(named)
    places = queue_places(compile_checked(checked, rules_for(checked.symbols, None, None)), told)
    book, pending = ReferenceBook(1, False), {}
    for row, (letter, order_id, side, size, price) in enumerate(facts):
        if letter == "F":
            assert int(places[row]) & (OPEN | BEST_LEVEL | OLDEST) == place_of(book, pending, order_id), row
            if order_id in book.open:
                before = pending.get(order_id, 0)
                pending[order_id] = min(before + size, book.open[order_id].open_qty)
            continue
        was_open = order_id in book.open
        outcome = book.apply_fact((MboAction.parse(letter), order_id, 1 if side == "B" else -1, price, size))
        if letter == "C":
            pending[order_id] = max(pending.get(order_id, 0) - size, 0)
        elif letter == "M" or (letter == "A" and not was_open):
            pending[order_id] = 0
        if letter == "R":
            pending.clear()
        assert outcome is not None
