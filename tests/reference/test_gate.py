"""Random flows through the slow twin's gate: all of it happens, and what it keeps adds up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import polars as pl

from hftlab.codes import GateEvent, Reason
from tests.helpers import risk_flows
from tests.reference import frames
from tests.reference.risk_limits import InForce, Limits

SEEDS, SIZE = range(10), 1_400  # 8 flows: 112,000 rows
NOT_OF_A_FLOW = {Reason.NONE, Reason.UNKNOWN_SYMBOL}


@cache
def played() -> list[tuple[risk_flows.RiskFlow, risk_flows.GatedVenue]]:
    """Every random flow with every seed, through the twin."""
    flows = [risk_flows.make(name, SIZE, seed) for name in risk_flows.FLOWS for seed in SEEDS]
    return [(flow, flow.venue()) for flow in flows]


def test_every_reason_and_every_event_is_there_more_than_a_hundred_times():
    """The random flows and limits are tight enough for all of them."""
    reasons = Counter(Reason(row[7]) for _, venue in played() for row in venue.rejects)
    events = Counter(GateEvent(row[4]) for _, venue in played() for row in venue.events)
    assert sum(len(flow) for flow, _ in played()) >= 100_000
    assert [one.name for one in set(Reason) - NOT_OF_A_FLOW if reasons[one] <= 100] == []
    assert [one.name for one in GateEvent if events[one] <= 100] == []


def test_positions_sum_to_zero_and_are_those_of_the_gate():
    """What the gate keeps as it goes is what the fills and the final book say at the end."""
    for _, venue in played():
        held = venue.positions()
        for symbol in venue.books:
            assert sum(row[2] for row in held if row[0] == symbol) == 0
        for symbol, account, position, *_, buy, sell, orders, notional in held:
            cell = venue.gate.cell(account, symbol)
            assert cell.position == position
            assert (cell.open_orders, cell.open_buy, cell.open_sell) == (orders, buy, sell)
            assert notional in (cell.open_notional, None)


def test_profits_add_up():
    """Realised and unrealised together are cash and the position at the last price."""
    for _, venue in played():
        for symbol, account, position, _, _, realised, unrealised, *_ in venue.positions():
            if None not in (realised, unrealised):
                cash = venue.gate.cell(account, symbol).cash
                assert realised + unrealised == cash + position * venue.gate.last.get(symbol, 0)


def test_no_owner_trades_with_itself_where_a_mode_forbids_it():
    """Not by orders, nor by what the gate closes."""
    for flow, venue in played():
        limits = InForce(flow.limits)
        for seq, _, _, symbol, *_, taker, maker, _, _ in venue.fills:
            limits.reach(seq)
            one_owner = limits.account(taker).owner == limits.account(maker).owner
            assert not one_owner or limits.cell(taker, symbol).self_trade == "none"


def test_a_flow_is_a_function_of_its_seed_and_books_are_sound():
    """Made twice it is the same, another seed is another; frames have all tables; no book is crossed."""
    one, same, other = (risk_flows.make("losers", 500, seed) for seed in (1, 1, 2))
    assert one.limits == same.limits != other.limits
    expected = one.expected(depth_levels=3)
    assert frames.first_difference(expected, same.expected(depth_levels=3)) is None
    tables = {"outcomes", "fills", "rejects", "l1", "book", "depth", "gate", "positions", "pnl"}
    assert tables == set(expected)
    assert isinstance(expected["gate"], pl.DataFrame)
    for _, venue in played():
        for book in venue.books.values():
            book.check()


def test_a_part_of_a_flow_keeps_its_changes_of_limits_in_place():
    """`take` counts the rows that are left before each change; what falls together becomes one change."""
    flow = risk_flows.make("busy", 100, 3)
    both = Limits({"max_position_size": 3}, by_account={1: {"capital": 5}})
    changed = Limits(changes=[(10, Limits({"max_long_position": 9})), (12, both), (50, Limits())])
    flow = risk_flows.RiskFlow(flow.orders, changed)
    part = flow.take([0, 9, 10, 30, 60, 70])
    assert part.limits.changes == [(2, Limits({"max_long_position": 9})), (3, both), (4, Limits())]
    assert len(part) == 6
    assert flow.take([0, 9, 30, 40]).limits.changes == [(2, both), (4, Limits())]
    assert flow.take([30, 60]).limits == replace(both, changes=[(1, Limits())])
