"""Facts to commands, told as two lists: what the venue said, and what somebody must have asked for.

A fact reads `F1 B 60@10 t5`: action and order id, side (B or S, of the resting order), size and price, and
where it matters time, symbol (`=X`) and `snapshot`. A command reads `NEW 1 B 60@10`; `TAKE` is an inferred
IOC, with the offset of its id from TAKER_ID_BASE.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.codes import MboAction, Origin
from hftlab.errors import TableError
from hftlab.feeds.flow import free_ids
from hftlab.replayer.inference import SCHEMA, TAKER_ID_BASE, infer_orders
from hftlab.schema import ORDERS
from tests.helpers.facts import SIDES, fact, mbo


def told(table):
    """Commands in words."""
    frame = pl.from_arrow(table).with_columns(pl.col("action", "tif", "symbol").cast(pl.String))
    sides = {number: letter for letter, number in SIDES.items()}
    words = []
    for row in frame.iter_rows(named=True):
        side, amount, name = sides[row["side"]], f"{row['qty']}@{row['price']}", row["order_id"]
        taker = row["tif"] == "IOC"
        words.append(
            {
                "NEW": f"TAKE {name - TAKER_ID_BASE} {side} {amount}"
                if taker
                else f"NEW {name} {side} {amount}",
                "REPLACE": f"REPLACE {name} {amount}",
                "REDUCE": f"REDUCE {name} {row['qty']}",
                "CANCEL": f"CANCEL {name}",
                "CLEAR": "CLEAR",
            }[row["action"]]
        )
    return words


def types_of(table):
    """Order types in words."""
    return pl.from_arrow(table)["order_type"].cast(pl.String).to_list()


def one_message(table, first, last):
    """The same facts, where rows `first` to `last` have one sequence."""
    sequence = table["sequence"].to_numpy().copy()
    sequence[first : last + 1] = sequence[first]
    return table.set_column(table.schema.get_field_index("sequence"), "sequence", pa.array(sequence))


def infer(*facts):
    return told(infer_orders(mbo(*facts)))


def displayed(*facts):
    """An A for each order that the facts execute, of all the lots they tell."""
    adds = {}
    for row in map(fact, facts):
        if row["action"] == "F":
            add = adds.setdefault((row["symbol"], row["order_id"]), row | {"size": 0})
            add["size"] += row["size"]
    letters = {number: letter for letter, number in SIDES.items()}
    return [
        f"A{order_id} {letters[row['side']]} {row['size']}@{row['price']} t0 ={symbol}"
        for (symbol, order_id), row in adds.items()
    ]


def infer_takers(*facts):
    """The commands behind facts whose makers are all displayed before them, without those of the makers."""
    adds = displayed(*facts)
    return infer(*adds, *facts)[len(adds) :]


# ------------------------------------------------------------------ one fact, one command


def test_an_add_is_a_new_order():
    """A becomes NEW, on its own side."""
    assert infer("A1 B 60@10", "A2 S 5@12") == ["NEW 1 B 60@10", "NEW 2 S 5@12"]


def test_a_cancel_of_all_that_is_open_is_a_cancel():
    """Also when parts went before, by cancel or by execution."""
    assert infer("A1 B 60@10", "C1 B 60@10") == ["NEW 1 B 60@10", "CANCEL 1"]
    assert infer("A1 B 60@10", "C1 B 20@10", "C1 B 40@10") == ["NEW 1 B 60@10", "REDUCE 1 20", "CANCEL 1"]
    facts = ("A1 B 60@10", "F1 B 50@10", "C1 B 50@10", "C1 B 10@10")
    assert infer(*facts) == ["NEW 1 B 60@10", "TAKE 0 S 50@10", "CANCEL 1"]


def test_a_cancel_of_a_part_is_a_reduce():
    """Priority stays, so it is not a replace."""
    assert infer("A1 B 60@10", "C1 B 20@10") == ["NEW 1 B 60@10", "REDUCE 1 20"]


def test_a_cancel_of_an_unknown_order_is_a_reduce():
    """How much was open nobody knows; the engine will say that it knows no such order."""
    assert infer("C1 B 20@10") == ["REDUCE 1 20"]


def test_an_id_used_again_is_another_order():
    """What is open counts from the last A."""
    facts = ("A1 B 60@10", "C1 B 60@10", "A1 B 5@10", "C1 B 5@10")
    assert infer(*facts) == ["NEW 1 B 60@10", "CANCEL 1", "NEW 1 B 5@10", "CANCEL 1"]


def test_a_modify_is_a_replace():
    """It says the new price and the new open quantity, as a REPLACE does; later cancels count from it."""
    facts = ("A1 B 60@10", "M1 B 70@11", "C1 B 70@11")
    assert infer(*facts) == ["NEW 1 B 60@10", "REPLACE 1 70@11", "CANCEL 1"]


def test_a_clear_is_a_clear():
    """R names no order."""
    assert infer("R - 0@0", "A1 B 60@10") == ["CLEAR", "NEW 1 B 60@10"]


def test_trades_and_notes_ask_for_nothing():
    """A T without F is a hidden execution: no resting order was hit that a book could hold."""
    assert infer("T B 5@10", "N - 0@0") == []


def test_no_facts_no_commands():
    """An empty table gives an empty table of the right schema."""
    table = infer_orders(mbo())
    assert table.schema.equals(SCHEMA)
    assert table.num_rows == 0


# ------------------------------------------------------------------ executions


def test_an_execution_is_an_order_from_the_other_side():
    """F and its C become one IOC at the executed price."""
    assert infer("A1 B 60@10", "F1 B 60@10", "C1 B 60@10") == ["NEW 1 B 60@10", "TAKE 0 S 60@10"]
    assert infer("A1 S 60@10", "F1 S 20@10", "C1 S 20@10") == ["NEW 1 S 60@10", "TAKE 0 B 20@10"]


def test_an_execution_of_an_unknown_order():
    """A command for it would take what is displayed of others instead, so there is none."""
    assert infer("F7 S 20@10", "C7 S 20@10") == []


def test_executions_of_one_moment_are_one_order():
    """Quantity is their sum, the limit the last and worst price."""
    facts = ("F1 S 20@10", "C1 S 20@10", "F2 S 5@10", "C2 S 5@10", "F3 S 1@12", "C3 S 1@12")
    assert infer_takers(*facts) == ["TAKE 0 B 26@12"]


def test_fills_before_their_removals_are_one_order():
    """Databento tells T, all F, then all C; T and hidden executions between change nothing."""
    facts = (
        "T B 25@10",
        "F1 S 20@10",
        "F2 S 5@10",
        "C1 S 20@10",
        "C2 S 5@10",
        "T B 3@11",
        "F3 S 1@12",
        "C3 S 1@12",
    )
    assert infer_takers(*facts) == ["TAKE 0 B 26@12"]


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ("F2 S 5@10 t2", "another time"),
        ("F2 B 5@10", "another side"),
        ("F2 S 5@10 =Y", "another symbol"),
        ("F2 S 5@9", "a better price, which the first order would have had first"),
    ],
)
def test_what_parts_two_incoming_orders(second, why):
    """Executions that one order can't have made are two."""
    commands = infer_takers("F1 S 20@10", "C1 S 20@10", second)
    assert [command.split()[:2] for command in commands] == [["TAKE", "0"], ["TAKE", "1"]], why


def test_a_seller_s_prices_fall():
    """For an incoming sell the worst price is the lowest."""
    assert infer_takers("F1 B 5@10", "C1 B 5@10", "F2 B 5@9", "C2 B 5@9") == ["TAKE 0 S 10@9"]
    rising = ("F1 B 5@10", "C1 B 5@10", "F2 B 5@11", "C2 B 5@11")
    assert infer_takers(*rising) == ["TAKE 0 S 5@10", "TAKE 1 S 5@11"]


def test_a_command_between_parts_them():
    """Whoever added an order in between came between."""
    facts = ("F1 S 5@10", "C1 S 5@10", "A9 S 1@20", "F2 S 5@10", "C2 S 5@10")
    assert infer_takers(*facts) == ["TAKE 0 B 5@10", "NEW 9 S 1@20", "TAKE 1 B 5@10"]


def test_a_remainder_rests_after_it_traded():
    """The venue tells it as an A of its own, which no longer crosses: one order came in."""
    facts = ("A1 S 5@10", "F1 S 5@10", "C1 S 5@10", "A2 B 3@10")
    assert infer(*facts) == ["NEW 1 S 5@10", "NEW 2 B 8@10"]


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ("A2 B 3@10 t2", "another time"),
        ("A2 B 3@10 =Y", "another symbol"),
        ("A2 S 3@10", "the resting side"),
        ("A2 B 3@9", "a price that would not have traded"),
        ("A2 B 0@10", "no size"),
        ("A2 B 3@10 snapshot", "a snapshot"),
    ],
)
def test_what_is_no_remainder(second, why):
    """An A is its own order unless it can be what was left of the taker."""
    assert infer("A1 S 5@10", "F1 S 5@10", "C1 S 5@10", second)[1] == "TAKE 0 B 5@10", why


def test_an_add_that_crosses_is_no_remainder():
    """What is still on the other side would have traded first, so no one taker did both; it rests passive."""
    table = infer_orders(mbo("A1 S 9@10", "F1 S 5@10", "C1 S 5@10", "A2 B 3@10"))
    assert told(table)[1:] == ["TAKE 0 B 5@10", "NEW 2 B 3@10"]
    assert types_of(table) == ["LIMIT", "LIMIT", "PASSIVE"]


def test_a_trade_that_names_the_aggressor_gives_its_id():
    """CME's T does; then only the A of that order is its remainder."""
    facts = ("A1 S 5@10", "T7 B 8@10", "F1 S 5@10", "C1 S 5@10")
    assert infer(*facts) == ["NEW 1 S 5@10", f"TAKE {7 - TAKER_ID_BASE} B 5@10"]
    assert infer(*facts, "A7 B 3@10") == ["NEW 1 S 5@10", "NEW 7 B 8@10"]
    assert infer(*facts, "A8 B 3@10")[1:] == [f"TAKE {7 - TAKER_ID_BASE} B 5@10", "NEW 8 B 3@10"]


def test_two_aggressors_of_one_moment_are_two_orders():
    """Each named by its own T."""
    facts = ("A1 S 9@10", "T7 B 5@10", "F1 S 5@10", "C1 S 5@10", "T8 B 4@10", "F1 S 4@10", "C1 S 4@10")
    assert infer(*facts)[1:] == [f"TAKE {i - TAKER_ID_BASE} B {q}@10" for i, q in ((7, 5), (8, 4))]


def test_an_aggressor_that_rests_already_keeps_its_id():
    """A modify through the book: the order of that id is still open, so the taker needs another."""
    facts = ("A7 B 8@9", "A1 S 5@10", "T7 B 5@10", "F1 S 5@10", "C1 S 5@10", "M7 B 3@10")
    assert infer(*facts) == ["NEW 7 B 8@9", "NEW 1 S 5@10", "TAKE 0 B 5@10", "REPLACE 7 3@10"]
    refused = ("A7 B 0@9", *facts[1:-1])
    assert infer(*refused)[2] == f"TAKE {7 - TAKER_ID_BASE} B 5@10"


def test_a_cancel_and_an_add_of_one_message_are_a_replace():
    """As ITCH's U is told: the old order goes, the new one stands behind those of its price."""
    table = infer_orders(one_message(mbo("A1 S 5@10", "C1 S 5@10", "A2 S 7@11"), 1, 2))
    assert told(table) == ["NEW 1 S 5@10", "REPLACE 1 7@11"]
    assert table["new_order_id"].to_pylist() == [None, 2]
    assert table["origin"].to_pylist() == ["OBSERVED", "OBSERVED"]


@pytest.mark.parametrize("add", ["A2 B 7@9", "A2 S 7@11 =Y", "A1 S 7@11"])
def test_what_is_no_replace(add):
    """Another side, another symbol, the same id."""
    table = infer_orders(one_message(mbo("A1 S 5@10", "C1 S 5@10", add), 1, 2))
    assert pl.from_arrow(table)["action"].cast(pl.String).to_list() == ["NEW", "CANCEL", "NEW"]


def test_a_cancel_of_a_part_is_no_replace():
    """The rest of the old order stays."""
    table = infer_orders(one_message(mbo("A1 S 5@10", "C1 S 4@10", "A2 S 7@11"), 1, 2))
    assert told(table)[1:] == ["REDUCE 1 4", "NEW 2 S 7@11"]


def test_orders_that_rest_though_they_cross_are_passive():
    """The venue was not matching: an auction. Every other order is LIMIT."""
    table = infer_orders(mbo("A1 S 5@10", "A2 B 5@11", "M2 B 5@9", "M1 S 4@9", "A3 B 1@8"))
    assert types_of(table) == ["LIMIT", "PASSIVE", "LIMIT", "PASSIVE", "LIMIT"]
    assert table["origin"].to_pylist() == ["OBSERVED", "INFERRED", "OBSERVED", "INFERRED", "OBSERVED"]


def test_orders_of_a_snapshot_are_passive():
    """They are an opening book, and do not meet each other."""
    table = infer_orders(mbo("R - 0@0 snapshot", "A1 S 5@10 snapshot", "A2 B 5@9 snapshot", "A3 B 1@8"))
    assert types_of(table) == ["LIMIT", "PASSIVE", "PASSIVE", "LIMIT"]


def test_a_cancel_larger_than_the_fill_keeps_the_difference():
    """What the fill did not take was cancelled."""
    facts = ("A1 B 60@10", "F1 B 50@10", "C1 B 60@10")
    assert infer(*facts) == ["NEW 1 B 60@10", "TAKE 0 S 50@10", "CANCEL 1"]
    assert infer("A1 B 60@10", "F1 B 10@10", "C1 B 30@10")[1:] == ["TAKE 0 S 10@10", "REDUCE 1 20"]


@pytest.mark.parametrize(
    ("fills", "taken"),
    [
        (("F1 S 4@10", "F9 S 5@10", "F2 S 2@11"), "TAKE 0 B 6@11"),  # 9 was never added: CME's iceberg
        (("F9 S 5@10", "F1 S 4@10"), "TAKE 0 B 4@10"),
        (("F1 S 4@10", "F2 S 6@11", "F1 S 3@12"), "TAKE 0 B 10@11"),  # 1 has shown its four
        (("F1 S 7@10",), "TAKE 0 B 4@10"),  # more than it has
    ],
)
def test_an_incoming_order_has_only_the_lots_that_were_displayed(fills, taken):
    """What no book showed would be taken from others."""
    assert infer("A1 S 4@10", "A2 S 6@11", *fills)[2:] == [taken]


def test_executions_of_nothing_displayed_are_no_order():
    """Their C, of an order nobody knows, reports them."""
    assert infer("A1 S 4@10", "F9 S 5@10", "C9 S 5@10") == ["NEW 1 S 4@10"]


def test_after_a_clear_nothing_is_displayed():
    """The order of before is not in the book any more."""
    assert infer("A1 S 4@10", "R0 - 0@0", "F1 S 4@10") == ["NEW 1 S 4@10", "CLEAR"]


def test_a_refill_is_a_new_order():
    """An M of an order that executions left nothing of shows new lots, which stand behind the others."""
    assert infer("A1 S 4@10", "F1 S 4@10", "M1 S 4@10") == ["NEW 1 S 4@10", "TAKE 0 B 4@10", "NEW 1 S 4@10"]
    orders = infer_orders(mbo("A1 S 4@10", "F1 S 4@10", "M1 S 4@10"))
    assert pl.from_arrow(orders)["origin"].cast(pl.String)[2] == "INFERRED"


def test_a_refill_of_a_part_is_a_replace():
    """The order is still open, and has more than executions left of it."""
    assert infer("A1 S 4@10", "F1 S 3@10", "M1 S 4@10")[2:] == ["REPLACE 1 4@10"]


def test_a_fill_of_the_aggressor_s_own_order_asks_for_nothing():
    """The T names the order, with its side; its C or M is a command."""
    facts = ("A1 S 2@10", "A2 B 2@9", "T1 S 2@9", "F1 S 2@9", "F2 B 2@9", "C2 B 2@9")
    expected = ["NEW 1 S 2@10", "NEW 2 B 2@9", "TAKE 0 S 2@9"]
    assert infer(*facts, "C1 S 2@10") == [*expected, "CANCEL 1"]
    assert infer(*facts, "M1 S 1@9") == [*expected, "REPLACE 1 1@9"]


def test_two_fills_of_one_order_are_two_takers():
    """One would have taken it all at once; the C may take off what both took."""
    facts = ("A1 B 60@10", "F1 B 20@10", "F1 B 40@10", "C1 B 60@10")
    assert infer(*facts) == ["NEW 1 B 60@10", "TAKE 0 S 20@10", "TAKE 1 S 40@10"]


def test_a_modify_may_only_report_a_fill():
    """CME tells a partial fill as F and M to what is left: that is nobody's request."""
    facts = ("A1 B 6@10", "F1 B 4@10", "M1 B 2@10", "F1 B 2@10", "C1 B 2@10")
    assert infer(*facts) == ["NEW 1 B 6@10", "TAKE 0 S 4@10", "TAKE 1 S 2@10"]


def test_executions_may_be_reported_one_by_one():
    """Two are told before the first removal; each C reports its own, and neither is a request."""
    facts = ("A1 B 9@10", "F1 B 2@10", "F1 B 3@10", "C1 B 2@10", "C1 B 3@10", "C1 B 4@10")
    assert infer(*facts)[1:] == ["TAKE 0 S 2@10", "TAKE 1 S 3@10", "CANCEL 1"]


def test_executions_of_more_than_there_was():
    """However much they are together, the removal only reports them: 2^63 lots here."""
    commands = infer("A1 B 5@10", *[f"F1 B {2**62}@10"] * 2, "C1 B 5@10", "A2 B 1@3")
    assert commands == ["NEW 1 B 5@10", "TAKE 0 S 5@10", "NEW 2 B 1@3"]


def test_what_is_outstanding_ends_with_a_modify():
    """The M says what is open from then on; a C behind it is a request."""
    facts = ("A1 B 9@10", "F1 B 2@10", "M1 B 8@10", "C1 B 2@10")
    assert infer(*facts)[1:] == ["TAKE 0 S 2@10", "REPLACE 1 8@10", "REDUCE 1 2"]


def test_sizes_that_are_none_report_nothing():
    """They stay visible, as commands that are refused."""
    facts = ("A1 B 9@10", "F1 B 2@10", "C1 B 0@10", "C1 B -1@10", "C1 B 2@10")
    assert infer(*facts)[1:] == ["TAKE 0 S 2@10", "REDUCE 1 0", "REDUCE 1 -1"]


@pytest.mark.parametrize("modify", ["M1 B 6@10", "M1 B 2@11"])
def test_a_modify_after_a_fill_may_be_more(modify):
    """An iceberg shows its next part, or the price moves: then it is a REPLACE."""
    replaced = f"REPLACE 1 {modify.split()[2]}"
    assert infer("A1 B 6@10", "F1 B 4@10", modify) == ["NEW 1 B 6@10", "TAKE 0 S 4@10", replaced]


def test_fills_of_other_orders_do_not_count():
    """Only its own fill explains an order's cancel, also when the order before has one without C."""
    assert infer("A1 B 5@10", "A2 B 5@10", "F1 B 5@10", "C2 B 5@10") == [
        "NEW 1 B 5@10",
        "NEW 2 B 5@10",
        "TAKE 0 S 5@10",
        "CANCEL 2",
    ]


def test_one_id_in_two_symbols_is_two_orders():
    """Ids are unique per symbol only."""
    facts = ("A1 B 5@10 =X", "A1 B 9@10 =Y", "F1 B 5@10 =X", "C1 B 5@10 =Y", "C1 B 5@10 =X", "C1 B 4@10 =Y")
    assert infer(*facts) == ["NEW 1 B 5@10", "NEW 1 B 9@10", "TAKE 0 S 5@10", "REDUCE 1 5", "CANCEL 1"]


def test_instruments_are_read_on_their_own():
    """What comes between two executions of one instrument in another parts nothing, and names nobody."""
    x = ("A1 S 5@10 =X", "A2 S 5@11 =X", "T7 B 8@10 =X", "F1 S 5@10 =X", "F2 S 3@11 =X", "C1 S 5@10 =X")
    y = ("A7 B 5@10 =Y", "A1 B 5@10 =Y", "T8 S 5@10 =Y", "F1 B 5@10 =Y", "A3 B 1@2 =Y", "C1 B 5@10 =Y")
    mixed = [fact for pair in zip(x, y, strict=True) for fact in pair]
    frame = pl.from_arrow(infer_orders(mbo(*mixed))).with_columns(pl.col("symbol").cast(pl.String))
    for symbol, facts in (("X", x), ("Y", y)):
        alone = infer_orders(mbo(*facts))
        names = [name for name in alone.column_names if name not in ("symbol", "sequence")]
        assert (
            frame.filter(pl.col("symbol") == symbol).select(names).equals(pl.from_arrow(alone).select(names))
        )
    assert frame["sequence"].is_sorted()


@pytest.mark.parametrize(
    ("facts", "commands"),
    [
        (("A1 S 5@10", "A9 B 1@8", "F1 S 5@10", "C1 S 5@10", "A9 B 2@10"), ["TAKE 0 B 5@10", "NEW 9 B 2@10"]),
        (("A1 S 5@10", "C1 S 5@10", "C1 S 5@10"), ["CANCEL 1", "REDUCE 1 5"]),
        (("A1 S 5@10", "M1 S 0@9", "C1 S 5@10"), ["REPLACE 1 0@9", "CANCEL 1"]),
        (("A1 S 5@10", "A1 S 9@10", "C1 S 5@10"), ["NEW 1 S 9@10", "CANCEL 1"]),
        (("A1 S 5@10", "R - 0@0", "C1 S 5@10"), ["CLEAR", "REDUCE 1 5"]),
    ],
    ids=["no remainder", "gone already", "no legal size", "an id that is open", "cleared"],
)
def test_nothing_is_concluded_from_what_is_refused(facts, commands):
    """It is a command of its own, and says nothing of what is open."""
    assert infer(*facts)[-len(commands) :] == commands


def test_a_refused_add_is_no_part_of_a_replace():
    """The id is open: nothing was replaced by it."""
    table = infer_orders(one_message(mbo("A1 S 5@10", "A2 S 5@12", "C1 S 5@10", "A2 S 7@11"), 2, 3))
    assert told(table)[2:] == ["CANCEL 1", "NEW 2 S 7@11"]


def test_bad_sizes_stay_visible():
    """A size of zero or less becomes a command that the engine rejects; it hides in no sum."""
    facts = ("A1 B 0@10", "C2 B -4@10", "F3 B 5@10", "F4 B -5@10", "F5 B 5@10")
    assert infer("A3 B 5@10", "A5 B 5@10", *facts)[2:] == [
        "NEW 1 B 0@10",
        "REDUCE 2 -4",
        "TAKE 0 S 5@10",
        "TAKE 1 S -5@10",
        "TAKE 2 S 5@10",
    ]


# ------------------------------------------------------------------ the columns


def test_the_table_is_orders_with_two_more_columns():
    """`origin` says what was concluded, `sequence` from which fact; time and symbol are the first fact's."""
    table = infer_orders(
        mbo(
            "R - 0@0 snapshot",
            "A1 B 9@10 snapshot t3",
            "A1 B 4@10 t3 =Y",
            "A2 B 5@10 t3 =Y",
            "F1 B 4@10 t7 =Y",
            "C1 B 4@10 t7 =Y",
            "F2 B 5@10 t7 =Y",
            "C1 B 1@10 t9",
        )
    )
    assert table.schema.names == [*ORDERS.names, "origin", "sequence"]
    frame = pl.from_arrow(table).with_columns(pl.col("symbol", "origin", "order_type").cast(pl.String))
    columns = ("symbol", "origin", "sequence", "order_type", "account", "post_only", "new_order_id")
    assert frame.select(columns).rows() == [
        ("X", "INFERRED", 100, "LIMIT", 0, False, None),
        ("X", "INFERRED", 101, "PASSIVE", 0, False, None),
        ("Y", "OBSERVED", 102, "LIMIT", 0, False, None),
        ("Y", "OBSERVED", 103, "LIMIT", 0, False, None),
        ("Y", "INFERRED", 104, "LIMIT", 0, False, None),
        ("X", "OBSERVED", 107, "LIMIT", 0, False, None),
    ]
    assert frame["ts"].to_physical().to_list() == [1, 3, 3, 3, 7, 9]
    assert frame["origin"].unique().is_in([origin.name for origin in Origin]).all()


@pytest.mark.parametrize("encode", ["names", "lower", "integers", "shuffled"])
def test_actions_in_any_encoding(encode):
    """Names in any case, integers, or a dictionary in another order (as Parquet gives back)."""
    table = mbo("A1 B 60@10", "F1 B 60@10", "C1 B 60@10")
    names = table.column("action").cast(pa.string()).to_pylist()
    column = {
        "names": pa.array(names),
        "lower": pa.array([name.lower() for name in names]),
        "integers": pa.array([int(MboAction[name]) for name in names]),
        "shuffled": pa.chunked_array(
            [
                pa.DictionaryArray.from_arrays([1], ["C", "A"]),
                pa.DictionaryArray.from_arrays([0, 1], ["F", "C"]),
            ]
        ),
    }[encode]
    assert told(infer_orders(replaced(table, action=column))) == ["NEW 1 B 60@10", "TAKE 0 S 60@10"]


def replaced(table, **columns):
    """The table with other columns in place of its own."""
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table


@pytest.mark.parametrize(
    "sides",
    [["B", "A"], ["buy", "sell"], pa.array([1, -1], pa.int64()), pa.array(["b", "s"]).dictionary_encode()],
)
def test_sides_in_any_encoding(sides):
    """Sides may be names or integers, as everywhere."""
    table = replaced(
        mbo("A1 B 60@10", "A2 S 5@12"), side=pa.array(sides) if isinstance(sides, list) else sides
    )
    assert told(infer_orders(table)) == ["NEW 1 B 60@10", "NEW 2 S 5@12"]


def test_columns_that_may_be_missing():
    """Without symbol there is one instrument; without time and sequence rows count from 0."""
    table = infer_orders(mbo("A1 B 60@10").select(["action", "order_id", "side", "price", "size"]))
    assert table.column("symbol").to_pylist() == ["DEFAULT"]
    assert table.column("sequence").to_pylist() == [0]
    assert table.column("ts").cast(pa.int64()).to_pylist() == [0]


def test_a_table_of_the_wrong_shape():
    """Every problem is told at once."""
    table = replaced(
        mbo("A1 B 60@10").drop_columns(["order_id"]),
        price=pa.array([1.5]),
        size=pa.array([2**63], pa.uint64()),
        side=pa.nulls(1, pa.int8()),
        action=pa.array(["Z"]),
        symbol=pa.nulls(1, pa.string()),
    )
    with pytest.raises(TableError) as caught:
        infer_orders(table)
    assert str(caught.value) == (
        "mbo table: 4 problems: column action, row 0: found 'Z', expected one of A, M, C, R, T, F, N; "
        "column side, row 0: found 1 null(s), expected none (fill_null before); "
        "column symbol, row 0: found 1 null(s), expected none (fill_null before); "
        "column order_id is missing, needed in every mbo table"
    )


def test_prices_of_facts_may_be_decimals():
    """Facts and commands come through the same door: floats and text are units where they are exact."""
    table = replaced(mbo("A1 B 60@10"), price=pa.array([10.25]))
    assert infer_orders(table)["price"].to_pylist() == [10_250_000_000]


def test_names_that_no_row_uses():
    """A dictionary may be longer than the table needs."""
    action = pa.DictionaryArray.from_arrays([1], ["SOMETHING ELSE", "A"])
    assert told(infer_orders(replaced(mbo("A1 B 60@10"), action=action))) == ["NEW 1 B 60@10"]


# ------------------------------------------------------------------ synthetic ids


@pytest.mark.parametrize(
    ("real", "first"),
    [
        ([], 100),
        ([5, 99], 100),
        ([5, 100], 101),
        ([5, 2**64 - 2], 2),  # no three left at the end: the first gap, which never includes 0
        ([0, 1, 4, 2**64 - 1], 2**64 - 4),
        ([3, 9, 2**64 - 1], 6),
    ],
)
def test_free_ids(real, first):
    """From the base, or above the highest real id, or in a gap between real ones."""
    assert free_ids(np.array(real, dtype=np.uint64), 100, 3).tolist() == [first, first + 1, first + 2]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.integers(0, 2**63), st.integers(0, 20))
def test_free_ids_are_free(real, base, count):
    """Whatever the real ids, the synthetic ones are new, distinct and as many as asked."""
    found = free_ids(np.array(real, dtype=np.uint64), base, count).tolist()
    assert len(set(found)) == count
    assert not set(found) & set(real)


def test_takers_avoid_real_ids():
    """A venue whose own ids use the highest bit keeps them."""
    assert infer(f"A{TAKER_ID_BASE + 4} B 5@10", f"F{TAKER_ID_BASE + 4} B 5@10")[1] == "TAKE 5 S 5@10"


# ------------------------------------------------------------------ conservation


@given(
    st.lists(
        st.tuples(
            st.sampled_from("AMCFTNR"),
            st.integers(1, 3),
            st.sampled_from("BS"),
            st.integers(1, 9),
            st.integers(1, 3),
        ),
        max_size=60,
    )
)
def test_nothing_is_invented_or_lost(rows):
    """Whatever the facts: what was displayed is taken in full, adds and clears come through, in order."""
    facts = [f"{a}{i} {side} {size}@{price} t{price}" for a, i, side, size, price in rows]
    table = infer_orders(mbo(*facts))
    frame = pl.from_arrow(table).with_columns(pl.col("action", "tif").cast(pl.String))
    takers = frame.filter(pl.col("order_id") >= TAKER_ID_BASE)
    assert takers["order_id"].n_unique() == takers.height
    new = frame.filter(pl.col("action") == "NEW")
    assert new["qty"].sum() == sum(lots_that_came(rows))
    assert (frame["action"] == "CLEAR").sum() == sum(a == "R" for a, *_ in rows)
    assert frame["sequence"].is_sorted()


def lots_that_came(rows):
    """Of each A, each F of what its order displayed (but an aggressor's own), each M that refills an order.

    Prices are times here, so the last T names who trades at its price.
    """
    open_qty, outstanding, trade = {}, {}, None
    for action, order_id, side, size, price in rows:
        told = outstanding.get(order_id, 0)
        left = max(open_qty.get(order_id, 0) - told, 0)
        if action == "R":
            open_qty.clear()
        elif action == "T":
            trade = (order_id, side, price)
        elif action == "F" and trade != (order_id, side, price):
            yield min(size, left)
            outstanding[order_id] = told + size
        elif action == "A":
            yield size
            if order_id not in open_qty:
                open_qty[order_id], outstanding[order_id] = size, 0
        elif action == "C":
            outstanding[order_id] = max(told - size, 0)
            if size >= open_qty.get(order_id, size):
                open_qty.pop(order_id, None)
            else:
                open_qty[order_id] -= size
        elif action == "M" and order_id in open_qty:
            yield size if told and not left else 0
            open_qty[order_id], outstanding[order_id] = size, 0
