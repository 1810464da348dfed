"""Positions, fees and the look-up of limits in the slow twin's gate, worked out by hand from docs/RISK.md."""

from __future__ import annotations

from tests.helpers import risk_flows
from tests.helpers.risk_play import money, tell
from tests.reference import positions
from tests.reference.positions import Holding
from tests.reference.risk_limits import LARGEST, CellLimits, InForce, Limits

ALL = "DEFAULT"


# -- positions


def test_average_cost_and_profit():
    """10 at 10 and 10 at 13 cost 230; 5 sold at 14 take 57.5 of it and earn 12.5; the rest gains 37.5."""
    story = ("S1 10@10 #2", "B2 10@10 #1", "S3 10@13 #2", "B4 10@13 #1", "B5 5@14 #2", "S6 5@14 #1")
    held = tell(*story, "B7 2@3 #1", "S8 4@20 #1").held(1)
    assert held == {
        "symbol": ALL,
        "account": 1,
        "position": 15,
        "avg_price": money(11.5),
        "cost": money(172.5),
        "realised_pnl": money(12.5),
        "unrealised_pnl": money(37.5),
        "fees": 0,
        "bought_qty": 20,
        "sold_qty": 5,
        "bought_notional": money(230),
        "sold_notional": money(70),
        "last_price": money(14),
        "open_buy_qty": 2,
        "open_sell_qty": 4,
        "open_orders": 2,
        "open_notional": money(86),
    }


def test_a_position_that_crosses_zero():
    """Long 15 for 172.5, 20 sold at 12: 15 earn 7.5 and 5 begin a short position at 12."""
    held = Holding(position=15, cost=money(172.5))
    held.fill(-1, money(12), 20)
    assert (held.position, held.cost, held.realised) == (-5, -money(60), money(7.5))
    assert held.average_price() == money(12)
    held.fill(1, money(10), 5)
    assert (held.position, held.cost, held.realised) == (0, 0, money(17.5))
    assert held.average_price() is None


def test_costs_are_rounded_toward_zero():
    """3 lots for 5 units: one takes 5/3 -> 1 of them; short likewise -1; the average is 1, of -5/-3 too."""
    for side in (1, -1):
        held = Holding(position=3 * side, cost=5 * side)
        assert held.average_price() == 1
        held.fill(-side, 4, 1)
        assert (held.cost, held.realised) == (4 * side, 3 * side)


def test_fees_of_maker_and_taker():
    """30 of notional: 2.5 bp are 0.0075; 3 lots at 0.01; the maker gets 1 bp back and pays 0.002 a lot."""
    fees = {
        "taker_fee_bps": 25_000,
        "taker_fee_per_lot": money(0.01),
        "maker_fee_bps": -10_000,
        "maker_fee_per_lot": money(0.002),
    }
    told = tell("S1 3@10 #1", "B2 3@10 #2", limits=Limits(fees))
    assert told.held(2)["fees"] == money(0.0075) + money(0.03)
    assert told.held(1)["fees"] == -money(0.003) + money(0.006)


def test_fees_are_rounded_up():
    """1 bp of one unit is a whole unit to pay, and no rebate at all."""
    fees = {"taker_fee_bps": 10_000, "maker_fee_bps": -10_000}
    told = tell("S1 1@0.000000001 #1", "B2 1@0.000000001 #2", limits=Limits(fees), tick="0.000000001")
    assert (told.held(2)["fees"], told.held(1)["fees"]) == (1, 0)


def test_fees_are_those_in_force_at_the_fill():
    """From row 2 on the taker pays 1 a lot."""
    dear = Limits({"taker_fee_per_lot": money(1)})
    told = tell("S1 5@10 #1", "B2 2@10 #2", "B3 3@10 #2", limits=Limits(changes=[(2, dear)]))
    assert told.held(2)["fees"] == money(3)


def test_money_beyond_63_bits_is_null():
    """2^62 lots bought at 4 units each cost 2^64."""
    fill = (0, 0, 0, "ES", 4, 2**62, 1, 1, 2, 7, 8, 0, 0)
    bought, _ = positions.of_fills([fill], [], Limits())
    assert dict(zip(positions.COLUMNS[2:], bought[2:], strict=True)) == {
        "position": 2**62,
        "avg_price": 4,
        "cost": None,
        "realised_pnl": 0,
        "unrealised_pnl": 0,
        "fees": 0,
        "bought_qty": 2**62,
        "sold_qty": 0,
        "bought_notional": None,
        "sold_notional": 0,
        "last_price": 4,
        "open_buy_qty": 0,
        "open_sell_qty": 0,
        "open_orders": 0,
        "open_notional": 0,
    }


# -- limits


def test_each_key_is_looked_up_by_itself():
    """Cell, account, symbol, all; a change from row 5 on hides what its place had, nothing else."""
    limits = Limits(
        {"max_order_qty": 1, "max_open_orders": 1, "max_position_size": 1},
        {"ES": {"max_order_qty": 2, "max_open_orders": 2, "max_long_position": 2}},
        {7: {"max_order_qty": 3, "max_position_size": 3}},
        {(7, "ES"): {"max_order_qty": 4}},
        changes=[(5, Limits(by_symbol={"ES": {"max_open_orders": 9}}, by_account={7: {"max_order_qty": 8}}))],
    )
    found = InForce(limits)

    def of(account: int, symbol: str) -> tuple:
        one: CellLimits = found.cell(account, symbol)
        return one.max_order_qty, one.max_open_orders, one.max_long_position, one.max_short_position

    assert [of(7, "ES"), of(7, "NQ"), of(1, "ES")] == [(4, 2, 3, 3), (3, 1, 3, 3), (2, 2, 2, 1)]
    found.reach(4)
    assert of(7, "NQ") == (3, 1, 3, 3)
    found.reach(5)
    assert [of(7, "ES"), of(7, "NQ"), of(1, "ES")] == [(4, 9, 3, 3), (8, 1, 3, 3), (2, 9, 2, 1)]
    assert InForce(Limits()).cell(1, "ES").max_order_notional == LARGEST


def test_limits_as_a_table():
    """A row for each place and change, money and percentages as exact decimals, null where not given."""
    limits = Limits(
        {"reference": money(10.5)},
        by_account={7: {"capital": 1, "stop_loss_percentage": 12_345, "maker_fee_bps": -25_000}},
        by_cell={(7, "ES"): {"max_order_qty": LARGEST}},
        mark_interval=250_000_000,
        changes=[(5, Limits(by_symbol={"ES": {"restricted": True}}))],
    )
    table = risk_flows.limits_table(limits)
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    told = [{key: str(value) for key, value in row.items() if value is not None} for row in rows]
    assert told == [
        {"from_row": "0", "reference": "10.5", "unknown_accounts": "default"}
        | {"mark_interval": "250ms", "repeated_order_window": "1000ms"},
        {"account": "7", "from_row": "0"}
        | {"capital": "1E-9", "stop_loss_percentage": "1.2345", "maker_fee_bps": "-2.5"},
        {"account": "7", "symbol": "ES", "from_row": "0", "max_order_qty": str(LARGEST)},
        {"symbol": "ES", "from_row": "5", "restricted": "True"},
    ]
