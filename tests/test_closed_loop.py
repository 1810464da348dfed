"""The loop closed: a venue's commands, told as facts, inferred back and matched, are what the venue did.

The venue is the slow twin, so inference, rebuild, states and certificate are all held against it at once.
"""

from __future__ import annotations

import flows
import numba
import numpy as np
import pytest
from reference.book import ReferenceBook, ReferenceVenue
from venue_reports import Reporter

import hftlab
from hftlab.certificate import certify
from hftlab.codes import Action, MboAction, OrderType
from hftlab.kernels.states import BEST_LEVEL, CROSSED, CROSSES, OLDEST, OPEN
from hftlab.runner import run_states
from hftlab.tables import read_facts, read_orders
from hftlab.tape import compile_checked, rules_for

SIZE = 4_000 // (20 if numba.config.DISABLE_JIT else 1)


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
    assert found.executions > 10
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


def twin_place(book, action, order_id, side, price):
    """OPEN, BEST_LEVEL, OLDEST and CROSSES, found by looking."""
    place = 0
    if action == Action.NEW:
        trades = bool(book._half(-side).ranks) if price is None else book._would_trade(side, price)
        return CROSSES if trades else 0
    order = book.open.get(order_id)
    if order is None or action not in (Action.CANCEL, Action.REDUCE, Action.REPLACE):
        return 0
    place = OPEN
    if order.level.price == book._half(order.side).touch()[0]:
        place |= BEST_LEVEL
    if next(iter(order.level.orders)) == order_id:
        place |= OLDEST
    if action == Action.REPLACE and book._would_trade(order.side, price):
        place |= CROSSES
    return place


def is_crossed(book):
    bid, offer = book.bids.touch()[0], book.offers.touch()[0]
    return bid is not None and offer is not None and bid >= offer


SEEN = OPEN | BEST_LEVEL | OLDEST | CROSSES | CROSSED


@pytest.mark.parametrize("name", ["tight", "tiny", "wide", "sweeps", "venue"])
def test_states_of_commands_are_the_twin_s(name):
    """Where each command finds its order, and two hashes that are equal exactly when the levels are."""
    flow = flows.make(name, SIZE, 5)
    checked = read_orders(flow.table())
    _, states = run_states(compile_checked(checked, rules_for(checked.symbols, flow.tick, None)), 3)
    venue = ReferenceVenue(flow.tick, flow.allow_nonpositive)
    tops, depths = {}, {}
    for row, (_, symbol, *command) in enumerate(flow.rows()):
        book = venue.book(symbol)
        action, order_id, _, side, order_type, _, price = command[:7]
        priced = not (action == Action.NEW and order_type == OrderType.MARKET) and price > 0
        place = twin_place(book, action, order_id, side, price if priced else None)
        before = int(states.places[row]) & SEEN & ~CROSSED
        outcome = book.apply(command)
        if outcome.reject is None:
            assert before == place, (row, command)
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
        place = twin_place(book, actions.get(action), order_id, side, price)
        outcome = book.apply_fact(fact)
        if outcome.reject is None:
            assert int(states.places[row]) & SEEN & ~CROSSED == place, (row, fact)
        assert bool(states.places[row] & CROSSED) == is_crossed(book)
