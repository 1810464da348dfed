"""The slow twin by itself, checked by hand with no other engine around: the other tests rely on it."""

from __future__ import annotations

import polars as pl
import pytest

from hftlab.codes import UNDEF_PRICE, Action, MboAction, OrderType, Reason, Side, Status, Tif
from tests.helpers.play import Expired, Fill, Rejected, Replaced, Rest, parse, play
from tests.reference.book import (
    CAPACITY_EXHAUSTED,
    DUPLICATE_ORDER,
    UNKNOWN_ORDER,
    Command,
    Fact,
    ReferenceBook,
    ReferenceVenue,
    rows_of,
    units,
    whole,
)
from tests.reference.frames import first_difference, of_venue
from tests.reference.shrink import ddmin

BUY, SELL = Side.BUY, Side.SELL
A, M, C, R, T, F, N = MboAction


def new(order_id: int, side: int, qty: int, price: int, **more) -> Command:
    return Command(Action.NEW, order_id, side=side, price=price, qty=qty, **more)


def book_after(*commands: Command) -> ReferenceBook:
    book = ReferenceBook()
    for command in commands:
        book.apply(command)
        book.check()
    return book


def rebuilt(*facts: Fact) -> ReferenceBook:
    book = ReferenceBook()
    for fact in facts:
        book.apply_fact(fact)
    return book


# -- commands


def test_a_fill_names_the_maker_its_price_and_both_leaves():
    """A fill is at the maker's price and carries what is left of both orders."""
    book = book_after(new(1, SELL, 100, 10, account=4))
    outcome = book.apply(new(2, BUY, 60, 11))
    assert outcome.status == Status.FILLED
    assert outcome.fills == [(10, 60, 1, 4, 0, 40)]


def test_an_order_sweeps_levels_and_rests():
    """An order that crosses two levels trades with both, in price order, and rests with what is left."""
    book = book_after(new(1, SELL, 5, 11), new(2, SELL, 5, 10), new(3, BUY, 12, 11))
    assert list(book.resting()) == [(BUY, 11, 2, 3, 0)]


def test_an_older_order_is_filled_first():
    """Inside a level the oldest order trades first."""
    assert play("S1 5@10", "S2 5@10", "B3 6@10")[2:] == [Fill(3, 1, 5, 10), Fill(3, 2, 1, 10)]


def test_fill_or_kill_counts_every_level_it_may_reach():
    """FOK fills when the levels within its price hold enough, and expires without a fill otherwise."""
    story = ("S1 5@10", "S2 5@11", "S3 5@12")
    assert play(*story, "B4 10@11 fok")[3:] == [Fill(4, 1, 5, 10), Fill(4, 2, 5, 11)]
    assert play(*story, "B4 11@11 fok")[3:] == [Expired(4)]


def test_replace_keeps_priority_only_when_nothing_gets_better():
    """Same price, same id and no more quantity keeps the place in the queue; anything else loses it."""
    assert play.tell("B1 5@10", "B2 5@10", "X1 4@10").book == ["B1 4@10", "B2 5@10"]
    assert play.tell("B1 5@10", "B2 5@10", "X1 6@10").book == ["B2 5@10", "B1 6@10"]
    assert play.tell("B1 5@10", "B2 5@10", "X1>3 5@10").book == ["B2 5@10", "B3 5@10"]


def test_a_level_never_holds_as_much_as_2_to_the_63():
    """Check 6 refuses the order that would bring its level to 2^63, and takes the one that stays below."""
    assert play("B1 2^63-2@10", "B2 1@10") == [Rest(1), Rest(2)]
    assert play("B1 2^63-2@10", "B2 2@10")[1] == Rejected(2, Reason.CAPACITY_EXHAUSTED)


def test_a_replaced_order_does_not_count_against_itself():
    """Check 6 counts the replaced order as already removed, at its own price only."""
    assert play("B1 2^63-2@10", "X1 2^63-1@10")[1] == Replaced(1)
    assert play("B1 2^63-2@10", "B2 5@11", "X2 5@10")[2] == Rejected(2, Reason.CAPACITY_EXHAUSTED)


def test_a_reject_carries_limit_and_observed_value():
    """A bad quantity or price is named in the reject, next to what it should have been."""
    story = play.tell("B1 0@10", "B1 5@10.5", "B1 nan@10", "C9")
    assert [reject[3:] for reject in story.rejects] == [
        (1, 0),
        (10**9, 10_500_000_000),
        (1, None),
        (None, None),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5, 5), (5.0, 5), (-3.0, -3), (1.5, None), (float("nan"), None), (float("inf"), None), (None, None)],
)
def test_a_quantity_is_whole_or_nothing(value, expected):
    """`whole` gives the integer a number stands for, or None."""
    assert whole(value) == expected


@pytest.mark.parametrize(
    ("price", "expected"),
    [(7, 7), (0.1, 10**8), (199_999.99, 199_999_990_000_000), (1e-10, None), (float("nan"), None)],
)
def test_a_float_price_is_what_its_shortest_decimal_says(price, expected):
    """`units` reads integers as 1e-9 and floats as the decimal that a person would write."""
    assert units(price) == expected


def test_mass_cancel_spares_other_accounts():
    """MASS_CANCEL removes one account's orders and leaves the others in their order."""
    assert play.tell("B1 5@10 #1", "B2 5@10 #2", "B3 5@10 #1", "M1").book == ["B2 5@10 #2"]


# -- facts


def test_an_added_order_rests_whatever_it_crosses():
    """A adds at the back of the level and never trades."""
    book = rebuilt(Fact(A, 1, SELL, 10, 5), Fact(A, 2, BUY, 11, 7))
    assert list(book.resting()) == [(BUY, 11, 7, 2, 0), (SELL, 10, 5, 1, 0)]


def test_a_cancel_takes_size_off():
    """C takes `size` off, and all of it when size is the open quantity or more."""
    book = rebuilt(Fact(A, 1, BUY, 10, 5), Fact(C, 1, BUY, 10, 2))
    assert list(book.resting()) == [(BUY, 10, 3, 1, 0)]
    assert book.apply_fact(Fact(C, 1, BUY, 10, 9)).status == Status.CANCELLED
    assert not book.open


@pytest.mark.parametrize(
    ("price", "size", "queue"), [(10, 4, [1, 2]), (10, 5, [1, 2]), (10, 6, [2, 1]), (11, 5, [1, 2])]
)
def test_a_modify_loses_priority_on_a_new_price_or_a_larger_size(price, size, queue):
    """M keeps the place in the queue only at the same price with no more size."""
    book = rebuilt(Fact(A, 1, BUY, 10, 5), Fact(A, 2, BUY, 10, 5), Fact(M, 1, BUY, price, size))
    assert [order_id for _, _, _, order_id, _ in book.resting()] == queue
    assert (BUY, price, size, 1, 0) in book.resting()


def test_a_clear_empties_the_book():
    """R leaves nothing."""
    assert not rebuilt(Fact(A, 1, BUY, 10, 5), Fact(R)).open


@pytest.mark.parametrize("action", [T, F, N])
def test_a_trade_a_fill_and_a_halt_change_nothing(action):
    """T, F and N are looked at and left alone, even when they name an open order."""
    book = rebuilt(Fact(A, 1, BUY, 10, 5))
    assert book.apply_fact(Fact(action, 1, BUY, 10, 5)).status == Status.NO_EFFECT
    assert list(book.resting()) == [(BUY, 10, 5, 1, 0)]


def test_facts_about_unknown_or_open_ids_are_rejects():
    """C and M of an unknown id, and A of an open one, are rejects and change nothing."""
    book = rebuilt(Fact(A, 1, BUY, 10, 5))
    assert book.apply_fact(Fact(A, 1, BUY, 11, 5)) is DUPLICATE_ORDER
    assert book.apply_fact(Fact(C, 2, BUY, 10, 5)) is UNKNOWN_ORDER
    assert book.apply_fact(Fact(M, 2, BUY, 10, 5)) is UNKNOWN_ORDER
    assert book.apply_fact(Fact(A, 2, BUY, 10, 2**63 - 5)) is CAPACITY_EXHAUSTED
    assert list(book.resting()) == [(BUY, 10, 5, 1, 0)]


# -- the venue


def test_a_table_of_two_columns_has_every_default():
    """Only action and order_id are needed; the rest of a row has the defaults of an orders table."""
    row = next(rows_of({"action": [Action.CANCEL], "order_id": [9]}))
    assert row == (0, "DEFAULT", Action.CANCEL, 9, None, BUY, OrderType.LIMIT, Tif.GTC, 0, 0, 0, False)


def test_an_unknown_column_is_refused():
    """A misspelt column is an error, not a default."""
    with pytest.raises(KeyError, match="quantity"):
        rows_of({"action": [0], "quantity": [1]})


def test_match_ids_count_fills_over_all_instruments():
    """match_id is the number of fills before this one, whatever the instrument."""
    story = play.tell("ES/S1 5@10", "NQ/S1 5@20", "NQ/B2 5@20", "ES/B2 5@10")
    assert [(fill["match_id"], fill["symbol"], fill["price"]) for fill in story.fills] == [
        (0, "NQ", 20 * 10**9),
        (1, "ES", 10 * 10**9),
    ]


def test_the_touch_is_recorded_when_it_changes_only():
    """There is an l1 row after a command that changed the touch and none after one that did not."""
    story = play.tell("B1 5@10", "B2 5@9", "C9", "B3 1@10", "S4 1@11", "M7")
    assert [row[0] for row in story.l1] == [0, 3, 4]
    assert story.l1[-1] == (4, 10, 6, 2, 11, 1, 1)


def test_depth_is_recorded_when_a_level_within_reach_changes():
    """A depth row is one of the n best levels changing; a level that is not there is UNDEF_PRICE."""
    story = play.tell("B1 5@10", "B2 5@9", "B3 5@8", "B4 5@7", "B5 5@9")
    assert [row["seq"] for row in story.depth] == [0, 1, 2, 4]
    assert story.depth[0]["bid_px"] == (10 * 10**9, UNDEF_PRICE, UNDEF_PRICE)
    assert story.depth[-1]["bid_sz"] == (5, 10, 5)


def test_a_venue_can_be_fed_in_pieces():
    """Running a table in two parts gives what running it at once gives."""
    rows = [(seq, "ES", *parse(token).command) for seq, token in enumerate(("S1 5@10", "B2 3@10", "C1"))]
    pieces = ReferenceVenue().run(rows[:2]).run(rows[2:])
    assert first_difference(of_venue(ReferenceVenue().run(rows)), of_venue(pieces)) is None


# -- comparing


def frames_of(*tokens: str) -> dict[str, pl.DataFrame]:
    return play.tell(*tokens).outputs


def test_equal_outputs_have_no_difference():
    """Two runs of the same story compare equal in every table."""
    story = ("S1 5@10", "B2 3@10", "B3 0@10")
    assert first_difference(frames_of(*story), frames_of(*story)) is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (("S1 5@10", "B2 2@10"), "outcomes: row 1, filled_qty: expected"),
        (("S1 5@10",), "outcomes: expected 2 rows, found 1"),
        (("S1 5@10", "B2 3@10", "C1"), "outcomes: expected 2 rows, found 3"),
        (("S1 5@10 #3", "B2 3@10"), "fills: row 0, maker_account: expected"),
    ],
)
def test_a_difference_names_table_row_and_column(other, words):
    """The first difference is told with both rows."""
    assert words in first_difference(frames_of("S1 5@10", "B2 3@10"), frames_of(*other))


def test_a_difference_in_depth_is_seen():
    """Lists of fixed width are compared too."""
    expected, found = frames_of("S1 5@10", "S2 5@11"), frames_of("S1 5@10", "S2 5@12")
    assert "ask_px" in first_difference({"depth": expected["depth"]}, {"depth": found["depth"]})


# -- shrinking


def test_shrinking_finds_the_rows_that_matter():
    """Of a thousand rows the three that cause the failure are left, in their order."""
    culprits = {17, 500, 999}
    assert ddmin(range(1000), lambda rows: culprits <= set(rows)) == [17, 500, 999]


def test_shrinking_keeps_one_of_several_causes():
    """When either of two rows is enough, one of them is left."""
    assert len(ddmin(range(64), lambda rows: bool({3, 60} & set(rows)))) == 1


def test_nothing_more_can_be_removed_from_a_shrunk_flow():
    """The result still fails, and without any one of its rows it does not."""

    def fails(rows: list[int]) -> bool:
        return sum(row % 7 == 0 for row in rows) >= 4 and sum(rows) % 2 == 1

    rows = ddmin(range(101, 250), fails)
    assert fails(rows)
    assert not any(fails(rows[:i] + rows[i + 1 :]) for i in range(len(rows)) if len(rows) > 1)


def test_shrinking_takes_few_runs():
    """A single culprit among 100,000 rows is found in some dozens of runs, not thousands."""
    runs = []
    ddmin(range(100_000), lambda rows: runs.append(1) or 77_777 in rows)
    assert len(runs) < 100


def test_what_does_not_fail_cannot_be_shrunk():
    """Shrinking a flow that passes is an error of the caller."""
    with pytest.raises(ValueError, match="do not fail"):
        ddmin(range(10), lambda rows: False)


# -- reading stories


@pytest.mark.parametrize(
    ("token", "command"),
    [
        ("B2 60@10", new(2, BUY, 60, 10 * 10**9)),
        ("S2 60@10.25 ioc #5", new(2, SELL, 60, 10_250_000_000, tif=Tif.IOC, account=5)),
        ("B4 10@-3 post", new(4, BUY, 10, -3 * 10**9, post_only=True)),
        ("B2^64-1 2^63-1@1", new(2**64 - 1, BUY, 2**63 - 1, 10**9)),
        ("C1", Command(Action.CANCEL, 1)),
        ("R1 20", Command(Action.REDUCE, 1, qty=20)),
        ("X1>7 30@11", Command(Action.REPLACE, 1, 7, price=11 * 10**9, qty=30)),
        ("M5", Command(Action.MASS_CANCEL, account=5)),
        ("CLEAR", Command(Action.CLEAR)),
    ],
)
def test_a_token_is_one_command(token, command):
    """Each form of token stands for the command it looks like."""
    assert parse(token).command == command


@pytest.mark.parametrize("token", ["Q1 5@10", "B 5@10", "X1> 5@10", "B1 five@10"])
def test_a_token_that_is_none_is_refused(token):
    """A misspelt story is an error, not another story."""
    with pytest.raises(ValueError, match=r"found|float"):
        parse(token)
