"""docs/SEMANTICS.md sentence by sentence: short stories that every engine must tell in the same words."""

from __future__ import annotations

import pytest

from hftlab.codes import Reason, Stage, Status
from tests.helpers.play import ENGINES, Cancelled, Expired, Fill, Player, Rejected, Replaced, Rest, Story

BIGGEST = "2^63-1"  # the largest quantity
LAST_ID = 2**64 - 1


@pytest.fixture(params=ENGINES)
def play(request) -> Player:
    """Every engine in turn."""
    return Player(request.param)


@pytest.fixture(params=[engine for engine in ENGINES if engine != "order_book"])
def play_tables(request) -> Player:
    """Every engine that writes tables: an `Ack` leaves out what its caller knows."""
    return Player(request.param)


def check_rejects(story: Story, *expected: tuple) -> None:
    """The rejects are those, as far as the engine tells."""
    told = len(story.rejects[0]) if story.rejects else None
    assert story.rejects == [reject[:told] for reject in expected]


def rejected(story: Story) -> list[tuple[int, Reason]]:
    return [(seq, reason) for seq, reason, *_ in story.rejects]


# -- NEW: price-time priority


def test_the_story_of_the_design(play):
    """A smaller buy at a resting sell's price is filled by it and leaves it open."""
    assert play("S1 100@10", "B2 60@10") == [Rest(1), Fill(2, 1, 60, 10)]


def test_an_order_that_crosses_nothing_rests(play):
    """Bid below offer: both rest and nothing trades."""
    story = play.tell("B1 5@9", "S2 5@10")
    assert story.events == [Rest(1), Rest(2)]
    assert story.book == ["B1 5@9", "S2 5@10"]


@pytest.mark.parametrize(("story", "prices"), [("S", (10, 11, 12)), ("B", (12, 11, 10))])
def test_the_best_price_trades_first(play, story, prices):
    """Whatever the order of arrival, the best opposite level trades first, on either side."""
    worst_first = [f"{story}{i} 5@{prices[2 - i]}" for i in range(3)]
    taker = "B9 15@12" if story == "S" else "S9 15@10"
    fills = play(*worst_first, taker)[3:]
    assert fills == [Fill(9, 2, 5, prices[0]), Fill(9, 1, 5, prices[1]), Fill(9, 0, 5, prices[2])]


@pytest.mark.parametrize("side", "BS")
def test_at_one_price_the_oldest_trades_first(play, side):
    """First in, first out, whatever the ids say."""
    taker = "S" if side == "B" else "B"
    events = play(f"{side}7 5@10", f"{side}3 5@10", f"{side}5 5@10", f"{taker}9 12@10")
    assert events[3:] == [Fill(9, 7, 5, 10), Fill(9, 3, 5, 10), Fill(9, 5, 2, 10)]


@pytest.mark.parametrize(("maker", "taker"), [("S1 5@10", "B2 5@12"), ("B1 5@10", "S2 5@8")])
def test_a_trade_is_at_the_resting_price(play, maker, taker):
    """The aggressor gets the better price: a trade is at the maker's."""
    assert play(maker, taker) == [Rest(1), Fill(2, 1, 5, 10)]


@pytest.mark.parametrize("words", ["passive", "passive post", "passive day"])
def test_a_passive_order_rests_whatever_it_crosses(play, words):
    """It never trades on arrival; the next aggressor trades with the best price, crossed or not."""
    story = play.tell("S1 5@10", f"B2 5@12 {words}", "S3 7@9")
    assert story.events == [Rest(1), Rest(2), Fill(3, 2, 5, 12), Rest(3)]
    assert story.book == ["S3 2@9", "S1 5@10"]


@pytest.mark.parametrize("tif", ["ioc", "fok"])
def test_a_passive_order_that_may_not_rest_expires(play, tif):
    """It can neither trade nor stay."""
    story = play.tell("S1 5@10", f"B2 5@12 passive {tif}")
    assert story.fills == []
    assert story.outcomes[1] == (Status.EXPIRED, 0, 0)


@pytest.mark.parametrize("words", ["passive", "passive post"])
def test_a_passive_replace_rests_whatever_it_crosses(play, words):
    """The old order is removed and the new one stands behind those of its price."""
    story = play.tell("S1 5@10", "B2 5@9", "B3 1@11 passive", f"X2 6@11 {words}")
    assert story.events[2:] == [Rest(3), Rest(2)]
    assert story.book == ["B3 1@11", "B2 6@11", "S1 5@10"]


def test_trading_stops_where_the_price_no_longer_crosses(play):
    """What is left after the last crossing level rests at the order's own price."""
    story = play.tell("S1 5@10", "S2 5@11", "S3 5@12", "B4 20@11")
    assert story.events[3:] == [Fill(4, 1, 5, 10), Fill(4, 2, 5, 11), Rest(4)]
    assert story.outcomes[3] == (Status.RESTING, 10, 10)
    assert story.book == ["B4 10@11", "S3 5@12"]


def test_a_filled_order_leaves_nothing(play):
    """FILLED has all of the quantity filled and no leaves."""
    assert play.tell("S1 5@10", "B2 5@10").outcomes[1] == (Status.FILLED, 5, 0)


def test_a_partly_filled_maker_keeps_its_place(play):
    """A maker that was hit for a part is still the first to be hit next."""
    events = play("S1 5@10", "S2 5@10", "B3 2@10", "B4 4@10")
    assert events[2:] == [Fill(3, 1, 2, 10), Fill(4, 1, 3, 10), Fill(4, 2, 1, 10)]


def test_a_remainder_rests_at_the_back_of_its_level(play):
    """The remainder of a crossing order queues behind what came to its price before."""
    story = play.tell("S1 5@10", "B2 7@10", "B3 1@10", "S4 3@10")
    assert story.events[1:] == [Fill(2, 1, 5, 10), Rest(2), Rest(3), Fill(4, 2, 2, 10), Fill(4, 3, 1, 10)]
    story = play.tell("B1 3@9", "S2 2@8", "B3 2@9")
    assert story.book == ["B1 1@9", "B3 2@9"]


def test_a_day_order_rests_as_gtc_does(play):
    """What is left of a DAY order rests."""
    assert play("S1 5@10", "B2 7@10 day") == [Rest(1), Fill(2, 1, 5, 10), Rest(2)]


def test_every_column_of_a_fill(play_tables):
    """A fill row names command, instrument, price, quantity, both orders, accounts and leaves."""
    fills = play_tables.tell("S1 5@10 #3", "S2 5@11 #4", "B3 8@11 #5").fills
    common = {
        "seq": 2,
        "ts": 2,
        "symbol": "DEFAULT",
        "aggressor_side": 1,
        "taker_order_id": 3,
        "taker_account": 5,
    }
    first = {"match_id": 0, "price": 10 * 10**9, "qty": 5, "maker_order_id": 1, "maker_account": 3}
    second = {"match_id": 1, "price": 11 * 10**9, "qty": 3, "maker_order_id": 2, "maker_account": 4}
    assert fills == [
        common | first | {"taker_leaves": 3, "maker_leaves": 0},
        common | second | {"taker_leaves": 0, "maker_leaves": 2},
    ]


def test_a_seller_aggresses_with_side_minus_one(play_tables):
    """aggressor_side is the taker's."""
    assert [fill["aggressor_side"] for fill in play_tables.tell("B1 5@10", "S2 5@10").fills] == [-1]


def test_own_orders_trade_with_each_other(play):
    """There is no self-trade prevention unless it is asked for."""
    assert play("S1 5@10 #7", "B2 5@10 #7") == [Rest(1), Fill(2, 1, 5, 10)]


def test_a_book_is_not_crossed_by_sweeping_it(play):
    """An order larger than the whole other side trades with all of it and rests alone."""
    story = play.tell("B1 5@10", "B2 5@9", "S3 20@1")
    assert story.outcomes[2] == (Status.RESTING, 10, 10)
    assert story.book == ["S3 10@1"]


# -- NEW: market, IOC, FOK


@pytest.mark.parametrize("tif", ["", "gtc", "day", "ioc"])
def test_a_market_order_takes_any_price_and_expires(play, tif):
    """MARKET trades through every level, and what is left expires whatever its tif."""
    story = play.tell("S1 5@10", "S2 5@1000", f"B3 12@mkt {tif}")
    assert story.events[2:] == [Fill(3, 1, 5, 10), Fill(3, 2, 5, 1000), Expired(3)]
    assert story.outcomes[2] == (Status.EXPIRED, 10, 0)
    assert story.book == []


def test_a_market_sell_takes_any_price(play):
    """A MARKET sell trades down to the lowest bid."""
    story = play.tell("B1 5@100", "B2 5@1", "S3 9@mkt")
    assert story.events[2:] == [Fill(3, 1, 5, 100), Fill(3, 2, 4, 1)]


def test_a_market_order_meets_an_empty_side(play):
    """A MARKET order with nobody on the other side expires whole."""
    story = play.tell("B1 5@10", "B2 5@mkt")
    assert story.outcomes[1] == (Status.EXPIRED, 0, 0)
    assert story.book == ["B1 5@10"]


def test_a_filled_market_order_is_filled(play):
    """A MARKET order that finds enough is FILLED."""
    assert play.tell("S1 5@10", "B2 4@mkt").outcomes[1] == (Status.FILLED, 4, 0)


def test_what_is_left_of_an_ioc_expires(play):
    """IOC trades what crosses and the rest expires."""
    story = play.tell("S1 5@10", "S2 5@11", "B3 8@10 ioc")
    assert story.events[2:] == [Fill(3, 1, 5, 10), Expired(3)]
    assert story.outcomes[2] == (Status.EXPIRED, 5, 0)
    assert story.book == ["S2 5@11"]


def test_an_ioc_that_crosses_nothing_expires(play):
    """IOC with nothing to trade expires with no fill; it is not a reject."""
    story = play.tell("S1 5@11", "B2 8@10 ioc")
    assert story.outcomes[1] == (Status.EXPIRED, 0, 0)
    assert story.rejects == []


@pytest.mark.parametrize(
    ("taker", "fills"),
    [
        ("B4 5@10 fok", [(1, 5, 10)]),
        ("B4 9@11 fok", [(1, 5, 10), (2, 4, 11)]),
        ("B4 10@11 fok", [(1, 5, 10), (2, 5, 11)]),
        ("B4 15@99 fok", [(1, 5, 10), (2, 5, 11), (3, 5, 12)]),
        ("B4 15@mkt fok", [(1, 5, 10), (2, 5, 11), (3, 5, 12)]),
    ],
)
def test_a_fok_that_can_fill_does(play, taker, fills):
    """FOK trades completely when the levels within its price hold enough, over several levels too."""
    story = play.tell("S1 5@10", "S2 5@11", "S3 5@12", taker)
    assert story.events[3:] == [Fill(4, *fill) for fill in fills]
    assert story.outcomes[3][0] is Status.FILLED


@pytest.mark.parametrize("order", ["6@10", "11@11", "16@99", "16@mkt", "1@9"])
def test_a_fok_that_cannot_fill_expires_untouched(play, order):
    """FOK that finds too little expires with no fill and the book is as it was."""
    story = play.tell("S1 5@10", "S2 5@11", "S3 5@12", f"B4 {order} fok")
    assert story.events[3:] == [Expired(4)]
    assert story.outcomes[3] == (Status.EXPIRED, 0, 0)
    assert story.book == ["S1 5@10", "S2 5@11", "S3 5@12"]
    assert story.rejects == []


def test_a_fok_sell_counts_the_bids_it_may_reach(play):
    """FOK works on the other side as well."""
    assert play("B1 5@10", "B2 5@9", "S3 10@9 fok")[2:] == [Fill(3, 1, 5, 10), Fill(3, 2, 5, 9)]
    assert play("B1 5@10", "B2 5@9", "S3 10@10 fok")[2:] == [Expired(3)]


def test_a_fok_counts_several_orders_of_one_level(play):
    """All orders of a level count."""
    assert play("S1 5@10", "S2 5@10", "B3 10@10 fok")[2:] == [Fill(3, 1, 5, 10), Fill(3, 2, 5, 10)]


# -- NEW: post only


@pytest.mark.parametrize("price", [10, 11])
def test_a_post_only_order_that_would_trade_is_rejected(play, price):
    """POST_ONLY at or through the touch is a reject of stage MATCH, without values."""
    story = play.tell("S1 5@10", f"B2 5@{price} post")
    check_rejects(story, (1, Reason.POST_ONLY_WOULD_CROSS, Stage.MATCH, None, None))
    assert story.book == ["S1 5@10"]


def test_a_post_only_sell_at_the_bid_is_rejected(play):
    """POST_ONLY on the other side as well."""
    assert play("B1 5@10", "S2 5@10 post")[1:] == [Rejected(2, Reason.POST_ONLY_WOULD_CROSS)]


def test_a_post_only_order_behind_the_touch_rests(play):
    """POST_ONLY that would not trade rests."""
    assert play("S1 5@10", "B2 5@9 post", "S3 5@10 post") == [Rest(1), Rest(2), Rest(3)]


def test_post_only_means_nothing_on_a_market_order(play):
    """A post-only MARKET order trades."""
    assert play("S1 5@10", "B2 5@mkt post") == [Rest(1), Fill(2, 1, 5, 10)]


@pytest.mark.parametrize("tif", ["ioc", "fok"])
def test_a_post_only_ioc_or_fok_expires_or_is_rejected(play, tif):
    """A post-only IOC or FOK expires when it would not trade and is rejected when it would."""
    assert play("S1 5@10", f"B2 5@9 post {tif}")[1:] == [Expired(2)]
    assert play("S1 5@10", f"B2 5@10 post {tif}")[1:] == [Rejected(2, Reason.POST_ONLY_WOULD_CROSS)]
    assert play("S1 5@10", f"B2 9@10 post {tif}")[1:] == [Rejected(2, Reason.POST_ONLY_WOULD_CROSS)]


# -- CANCEL


def test_a_cancel_removes_the_order(play):
    """CANCEL removes the order and leaves the queue around it as it was."""
    story = play.tell("B1 5@10", "B2 5@10", "B3 5@10", "C2")
    assert story.events[3:] == [Cancelled(2)]
    assert story.outcomes[3] == (Status.CANCELLED, 0, 0)
    assert story.book == ["B1 5@10", "B3 5@10"]


def test_a_cancel_ignores_price_and_quantity(play):
    """Nonsense in the price and quantity of a CANCEL changes nothing."""
    assert play("B1 5@10", "C1 0@-7.5")[1:] == [Cancelled(1)]


def test_cancelling_the_last_order_removes_the_level(play):
    """When the touch is cancelled the next level is the touch, and then there is none."""
    story = play.tell("B1 5@10", "B2 3@8", "C1", "C2")
    assert story.l1 == [
        (0, 10, 5, 1, None, 0, 0),
        (2, 8, 3, 1, None, 0, 0),
        (3, None, 0, 0, None, 0, 0),
    ]


@pytest.mark.parametrize(
    "story",
    [
        ("C1",),
        ("S1 5@10", "B2 5@10", "C1"),
        ("S1 5@10", "B2 5@10", "C2"),
        ("S1 5@10", "C1", "C1"),
        ("B1 5@10 ioc", "C1"),
        ("B1 5@mkt", "C1"),
        ("B1 0@10", "C1"),
        ("S1 5@10", "X1>2 5@10", "C1"),
        ("S1 5@10", "R1 5", "C1"),
        ("S1 5@10 #3", "M3", "C1"),
        ("S1 5@10", "CLEAR", "C1"),
    ],
)
def test_an_order_that_is_not_open_cannot_be_cancelled(play, story):
    """Never seen, filled, cancelled, expired, rejected, renamed, reduced away, cleared: all UNKNOWN_ORDER."""
    told = play.tell(*story)
    assert rejected(told)[-1] == (len(story) - 1, Reason.UNKNOWN_ORDER)
    assert told.outcomes[-1] == (Status.REJECTED, 0, 0)


# -- REDUCE


def test_a_reduce_takes_off_and_keeps_priority(play):
    """REDUCE leaves the order where it is in the queue, with less."""
    story = play.tell("B1 5@10", "B2 5@10", "R1 2")
    assert story.events[2:] == [Rest(1)]
    assert story.outcomes[2] == (Status.RESTING, 0, 3)
    assert story.book == ["B1 3@10", "B2 5@10"]


@pytest.mark.parametrize("qty", ["5", "6", BIGGEST])
def test_a_reduce_by_the_open_quantity_or_more_cancels(play, qty):
    """REDUCE by all that is open, or more, is CANCELLED with nothing left."""
    story = play.tell("B1 5@10", f"R1 {qty}")
    assert story.outcomes[1] == (Status.CANCELLED, 0, 0)
    assert story.book == []


def test_a_reduce_counts_from_what_is_open(play):
    """After a partial fill REDUCE works on what is left."""
    story = play.tell("B1 5@10", "S2 3@10", "R1 1", "R1 1")
    assert story.outcomes[2:] == [(Status.RESTING, 0, 1), (Status.CANCELLED, 0, 0)]


def test_a_reduce_ignores_price(play):
    """The price of a REDUCE is not looked at."""
    assert play("B1 5@10", "R1 2@-0.3")[1:] == [Rest(1)]


def test_a_reduce_of_an_unknown_order_is_rejected(play):
    """REDUCE names an open order or is UNKNOWN_ORDER."""
    assert play("R1 2") == [Rejected(1, Reason.UNKNOWN_ORDER)]


# -- REPLACE


@pytest.mark.parametrize("qty", [5, 4])
def test_a_replace_to_no_more_at_the_same_price_keeps_priority(play, qty):
    """Same price, same id, quantity not increased: the order keeps its place."""
    story = play.tell("B1 5@10", "B2 5@10", f"X1 {qty}@10")
    assert story.events[2:] == [Replaced(1)]
    assert story.outcomes[2] == (Status.REPLACED, 0, qty)
    assert story.book == [f"B1 {qty}@10", "B2 5@10"]


def test_naming_the_same_id_again_keeps_priority(play):
    """A new id equal to the old one is the id unchanged."""
    assert play.tell("B1 5@10", "B2 5@10", "X1>1 4@10").book == ["B1 4@10", "B2 5@10"]


def test_a_replace_to_more_goes_to_the_back(play):
    """More quantity at the same price loses priority."""
    story = play.tell("B1 5@10", "B2 5@10", "X1 6@10")
    assert story.outcomes[2] == (Status.REPLACED, 0, 6)
    assert story.book == ["B2 5@10", "B1 6@10"]


def test_a_replace_under_a_new_id_goes_to_the_back(play):
    """A new id loses priority even when nothing else changes."""
    story = play.tell("B1 5@10", "B2 5@10", "X1>3 5@10")
    assert story.events[2:] == [Replaced(3)]
    assert story.book == ["B2 5@10", "B3 5@10"]


def test_a_replace_to_a_new_price_goes_to_the_back_of_that_level(play):
    """A new price queues behind what is there, and coming back queues again."""
    story = play.tell("B1 5@10", "B2 5@9", "B3 5@10", "X1 5@9", "X2 5@10")
    assert story.book == ["B3 5@10", "B2 5@10", "B1 5@9"]


def test_more_is_judged_by_what_is_open(play):
    """After a partial fill, more than what is left loses priority though it is less than at the start."""
    assert play.tell("B1 5@10", "B2 5@10", "S3 3@10", "X1 3@10").book == ["B2 5@10", "B1 3@10"]
    assert play.tell("B1 5@10", "B2 5@10", "S3 3@10", "X1 2@10").book == ["B1 2@10", "B2 5@10"]


def test_a_replaced_order_trades_when_it_crosses(play):
    """A replace that crosses trades as an incoming order, and what is left rests."""
    story = play.tell("S1 5@10 #2", "B2 8@9 #3", "X2 8@10")
    assert story.events[2:] == [Fill(2, 1, 5, 10), Replaced(2)]
    assert story.outcomes[2] == (Status.REPLACED, 5, 3)
    assert story.book == ["B2 3@10 #3"]
    assert (story.fills[0]["taker_account"], story.fills[0]["maker_account"]) == (3, 2)


def test_a_replace_that_trades_completely_is_filled(play):
    """FILLED when nothing is left, and the id is free again."""
    story = play.tell("S1 5@10", "B2 5@9", "X2 5@10", "B2 1@9")
    assert story.outcomes[2:] == [(Status.FILLED, 5, 0), (Status.RESTING, 0, 1)]


def test_a_renamed_order_trades_under_its_new_id(play):
    """The fills of a replace name the new id as the taker."""
    assert play("S1 5@10", "B2 8@9", "X2>7 8@10")[2:] == [Fill(7, 1, 5, 10), Replaced(7)]


def test_a_replaced_order_does_not_trade_with_itself(play):
    """The old order is removed before the new one comes in, on its own side, so it cannot meet it."""
    assert play.tell("B1 5@10", "X1 9@12").book == ["B1 9@12"]


def test_a_replace_keeps_side_and_account(play):
    """Side, account, type and tif of a REPLACE row are ignored; the old order's side and account stay."""
    story = play.tell("S1 5@10 #4", "X1 5@11 #9 ioc")
    assert story.events[1:] == [Replaced(1)]
    assert story.book == ["S1 5@11 #4"]


def test_a_replaced_market_row_uses_its_price(play):
    """The order type of a REPLACE row is ignored: its price is checked and used."""
    story = play.tell("S1 5@12", "B2 5@9", "X2 5@mkt")
    assert rejected(story) == [(2, Reason.INVALID_PRICE)]


def test_a_replaced_day_order_rests(play):
    """A replaced order comes in as LIMIT GTC whatever it was."""
    assert play("B1 5@10 day", "X1 5@11 fok")[1:] == [Replaced(1)]


def test_the_old_id_is_free_after_a_rename(play):
    """After a rename the old id may be used again and the new one is taken."""
    story = play.tell("B1 5@10", "X1>2 5@10", "B1 1@9", "B2 1@9")
    assert story.events[2:] == [Rest(1), Rejected(2, Reason.DUPLICATE_ORDER)]


def test_an_order_cannot_take_an_open_id(play):
    """A new id that is open is DUPLICATE_ORDER, and the old order stays as it was."""
    story = play.tell("B1 5@10", "B2 5@9", "X1>2 7@11")
    check_rejects(story, (2, Reason.DUPLICATE_ORDER, Stage.VALIDATE, None, None))
    assert story.book == ["B1 5@10", "B2 5@9"]


def test_a_dead_id_may_be_taken_by_a_rename(play):
    """The id of an order that was filled or cancelled is free for a rename."""
    story = play.tell("B1 5@10", "B2 5@9", "C2", "X1>2 7@11")
    assert story.book == ["B2 7@11"]


def test_an_id_open_in_another_instrument_is_free(play):
    """Ids are per instrument, for renames too."""
    assert play("ES/B1 5@10", "NQ/B2 5@10", "ES/X1>2 5@10")[2:] == [Replaced(2)]


def test_a_post_only_replace_that_would_trade_is_rejected(play):
    """post_only is honoured, and a rejected REPLACE leaves the old order as it was, with its place."""
    story = play.tell("S1 5@12", "B2 5@10", "B3 5@10", "X2>7 9@12 post")
    check_rejects(story, (3, Reason.POST_ONLY_WOULD_CROSS, Stage.MATCH, None, None))
    assert story.book == ["B2 5@10", "B3 5@10", "S1 5@12"]


def test_a_post_only_replace_that_would_not_trade_rests(play):
    """A post-only replace behind the touch is a replace."""
    assert play("S1 5@12", "B2 5@10", "X2 5@11 post")[2:] == [Replaced(2)]


def test_a_replace_of_an_unknown_order_is_rejected(play):
    """REPLACE names an open order or is UNKNOWN_ORDER, and its new id is not taken by it."""
    assert play("X1>2 5@10", "B2 5@10") == [Rejected(1, Reason.UNKNOWN_ORDER), Rest(2)]


def test_new_order_id_means_nothing_to_other_commands(play):
    """Only REPLACE looks at new_order_id."""
    assert play("B1>2 5@10", "B2 5@10", "C1>2", "B1 5@10")[1:] == [Rest(2), Cancelled(1), Rest(1)]


# -- MASS_CANCEL and CLEAR


def test_a_mass_cancel_removes_one_account(play):
    """MASS_CANCEL removes every open order of the account, on both sides, and no other."""
    story = play.tell("B1 5@10 #1", "B2 5@10 #2", "B3 5@9 #1", "S4 5@12 #1", "S5 5@12 #2", "M1")
    assert story.outcomes[5] == (Status.CANCELLED, 0, 0)
    assert story.book == ["B2 5@10 #2", "S5 5@12 #2"]


def test_a_mass_cancel_of_nothing_is_accepted(play):
    """MASS_CANCEL is CANCELLED even if there is nothing to cancel."""
    assert play.tell("M1").outcomes == [(Status.CANCELLED, 0, 0)]
    assert play.tell("B1 5@10 #2", "M1").book == ["B1 5@10 #2"]


def test_a_mass_cancel_stays_in_its_instrument(play):
    """Orders of the account in another instrument stay."""
    story = play.tell("ES/B1 5@10 #1", "NQ/B1 5@10 #1", "ES/M1")
    assert story.book == ["NQ/B1 5@10 #1"]


def test_a_mass_cancel_of_account_zero(play):
    """Account 0, the default, is an account like any other."""
    assert play.tell("B1 5@10", "B2 5@10 #1", "M0").book == ["B2 5@10 #1"]


def test_a_negative_account_is_an_account(play):
    """Accounts are any 32-bit integers."""
    story = play.tell(f"B1 5@10 #{-(2**31)}", f"B2 5@10 #{2**31 - 1}", f"M{-(2**31)}")
    assert story.book == [f"B2 5@10 #{2**31 - 1}"]


def test_a_renamed_order_stays_with_its_account(play):
    """MASS_CANCEL finds an order that was replaced, and not one that was cancelled and given to another."""
    story = play.tell("B1 5@10 #1", "X1>2 6@11 #9", "B1 5@9 #2", "M1")
    assert story.book == ["B1 5@9 #2"]


def test_a_clear_empties_one_instrument(play):
    """CLEAR removes every open order of the symbol, and frees their ids."""
    story = play.tell("ES/B1 5@10", "ES/S2 5@11", "NQ/B1 5@10", "ES/CLEAR", "ES/S1 5@9")
    assert story.outcomes[3] == (Status.CANCELLED, 0, 0)
    assert story.book == ["ES/S1 5@9", "NQ/B1 5@10"]


def test_a_clear_of_an_empty_book_is_accepted(play):
    """CLEAR is always CANCELLED."""
    assert play.tell("CLEAR").outcomes == [(Status.CANCELLED, 0, 0)]


# -- the order of checks


@pytest.mark.parametrize("qty", ["0", "-1", "-2^63+1"])
@pytest.mark.parametrize("token", ["B2 {}@10", "B2 {}@mkt", "R1 {}", "X1 {}@10"])
def test_a_quantity_that_is_not_positive_is_rejected(play, qty, token):
    """Zero and negative quantities of NEW, REDUCE and REPLACE are INVALID_QTY, limit 1."""
    story = play.tell("S1 5@12", token.format(qty))
    value = {"0": 0, "-1": -1, "-2^63+1": -(2**63) + 1}[qty]
    check_rejects(story, (1, Reason.INVALID_QTY, Stage.VALIDATE, 1, value))
    assert story.book == ["S1 5@12"]


@pytest.mark.parametrize("qty", ["nan", "inf", "-inf", "1.5", "1e30"])
@pytest.mark.parametrize("token", ["B2 {}@10", "R1 {}", "X1 {}@10"])
def test_a_quantity_that_is_no_int64_is_rejected(play, qty, token):
    """NaN, infinities, fractions and 10^30 are INVALID_QTY and leave observed_value null."""
    story = play.tell("S1 5@12", token.format(qty))
    check_rejects(story, (1, Reason.INVALID_QTY, Stage.VALIDATE, 1, None))
    assert story.book == ["S1 5@12"]


@pytest.mark.parametrize("token", ["B2 -2^63@10", "R1 -2^63", "X1 -2^63@10"])
def test_the_lowest_quantity_is_not_observed(play, token):
    """-2^63 stands for what could not be read, so the reject of such a quantity leaves it out."""
    check_rejects(play.tell("S1 5@12", token), (1, Reason.INVALID_QTY, Stage.VALIDATE, 1, None))


def test_a_reject_that_is_about_ids_has_no_values(play):
    """DUPLICATE_ORDER and UNKNOWN_ORDER are of stage VALIDATE, with limit and observed value null."""
    story = play.tell("B1 5@10", "B1 5@10", "C7")
    check_rejects(
        story,
        (1, Reason.DUPLICATE_ORDER, Stage.VALIDATE, None, None),
        (2, Reason.UNKNOWN_ORDER, Stage.VALIDATE, None, None),
    )


def test_a_quantity_of_2_to_the_63_is_rejected(play):
    """2^63 does not fit; 2^63 - 1 does."""
    check_rejects(play.tell("B1 2^63@10"), (0, Reason.INVALID_QTY, Stage.VALIDATE, 1, None))
    assert play.tell(f"B1 {BIGGEST}@10").book == [f"B1 {2**63 - 1}@10"]


def test_a_whole_float_is_a_quantity(play):
    """5.0 is 5."""
    assert play.tell("B1 5.0@10").book == ["B1 5@10"]


@pytest.mark.parametrize("price", ["0", "-1", "-2"])
@pytest.mark.parametrize("token", ["B2 5@{}", "X1 5@{}", "B2 5@{} ioc", "B2 5@{} fok", "B2 5@{} post"])
def test_a_price_that_is_not_positive_is_rejected(play, price, token):
    """Zero and negative prices of NEW LIMIT and REPLACE are INVALID_PRICE, with the tick and the price."""
    story = play.tell("S1 5@12", token.format(price))
    check_rejects(story, (1, Reason.INVALID_PRICE, Stage.VALIDATE, 10**9, int(price) * 10**9))
    assert story.book == ["S1 5@12"]


@pytest.mark.parametrize("token", ["B2 5@10.25", "X1 5@10.25"])
def test_a_price_off_the_tick_is_rejected(play, token):
    """A price that is no multiple of the tick is INVALID_PRICE."""
    story = play.tell("S1 5@12", token, tick="0.1")
    check_rejects(story, (1, Reason.INVALID_PRICE, Stage.VALIDATE, 10**8, 10_250_000_000))


@pytest.mark.parametrize("price", ["nan", "inf", "-inf", "1e30"])
@pytest.mark.parametrize("token", ["B2 5@{}", "X1 5@{}"])
def test_a_price_that_is_no_number_of_ticks_is_rejected(play, price, token):
    """NaN, infinities and 10^30 are INVALID_PRICE and leave observed_value null."""
    story = play.tell("S1 5@12", token.format(price))
    check_rejects(story, (1, Reason.INVALID_PRICE, Stage.VALIDATE, 10**9, None))


@pytest.mark.parametrize("price", ["0", "-7", "10.5", "nan"])
def test_only_limit_orders_and_replaces_have_a_price(play, price):
    """The price of CANCEL, REDUCE, MASS_CANCEL and CLEAR is ignored, whatever it is."""
    story = play.tell("B1 5@10", f"R1 1@{price}", f"M7 0@{price}", f"C1 0@{price}")
    assert story.rejects == []


@pytest.mark.parametrize("qty", ["0", "-7", "nan"])
def test_a_cancel_has_no_quantity(play, qty):
    """The quantity of CANCEL and MASS_CANCEL is ignored, whatever it is."""
    assert play.tell("B1 5@10", f"M7 {qty}", f"C1 {qty}").rejects == []


@pytest.mark.parametrize("price", [0, -7])
def test_negative_and_zero_prices_where_the_instrument_allows_them(play, price):
    """An instrument may allow zero and negative prices: they rest, sort and trade like others."""
    story = play.tell(
        f"B1 5@{price}", f"B2 5@{price - 1}", f"S3 5@{price + 1}", f"S4 7@{price - 1}", allow_nonpositive=True
    )
    assert story.events[3:] == [Fill(4, 1, 5, price), Fill(4, 2, 2, price - 1)]
    assert story.book == [f"B2 3@{price - 1}", f"S3 5@{price + 1}"]


def test_negative_prices_are_multiples_of_the_tick_too(play):
    """Where negative prices are allowed they must still be on the tick."""
    story = play.tell("B1 5@-7.5", "B1 5@-7.25", tick="0.5", allow_nonpositive=True)
    assert rejected(story) == [(1, Reason.INVALID_PRICE)]


def test_the_lowest_price_is_no_price(play):
    """-2^63 stands for what could not be read: INVALID_PRICE even where negative prices are allowed."""
    finest = "0.000000001"
    story = play.tell(
        "B1 5@-9223372036.854775808", "B2 5@-9223372036.854775807", tick=finest, allow_nonpositive=True
    )
    check_rejects(story, (0, Reason.INVALID_PRICE, Stage.VALIDATE, 1, None))
    assert story.events[1] == Rest(2)


def test_an_open_id_cannot_be_used_again(play):
    """A NEW with an open id is DUPLICATE_ORDER, on either side and of any type."""
    story = play.tell("B1 5@10", "B1 5@9", "S1 5@11", "S1 5@mkt", "S1 5@10 ioc")
    assert rejected(story) == [(seq, Reason.DUPLICATE_ORDER) for seq in (1, 2, 3, 4)]
    assert story.book == ["B1 5@10"]


@pytest.mark.parametrize(
    "story",
    [
        ("B1 5@10", "C1"),
        ("B1 5@10", "S2 5@10"),
        ("B1 5@10", "R1 5"),
        ("B1 5@10 ioc",),
        ("B1 5@10 fok",),
        ("B1 5@mkt",),
        ("B1 0@10",),
        ("S2 5@10", "B1 5@10"),
        ("S2 5@10", "B1 5@10 post", "C2"),
        ("B1 5@10", "M0"),
        ("B1 5@10", "CLEAR"),
        ("B1 5@10", "X1>2 5@10", "C2"),
    ],
)
def test_a_dead_id_may_be_used_again(play, story):
    """Cancelled, filled, expired, rejected or renamed: the id is free, and the new order is a new order."""
    told = play.tell(*story, "S1 4@11")
    assert told.events[-1] == Rest(1)
    assert told.book == ["S1 4@11"]


def test_an_id_lives_many_times(play):
    """The same id on either side, again and again, is each time the order that is open now."""
    story = play.tell("B1 5@10", "C1", "S1 6@11", "B2 6@11", "B1 7@9", "R1 2", "S3 9@9")
    assert story.events[-2:] == [Fill(3, 1, 5, 9), Rest(3)]
    assert story.book == ["S3 4@9"]


def test_ids_belong_to_an_instrument(play):
    """The same id may be open in two instruments and names the order of its own."""
    story = play.tell("ES/B1 5@10", "NQ/B1 6@20", "ES/C1")
    assert story.rejects == []
    assert story.book == ["NQ/B1 6@20"]


def test_instruments_do_not_trade_with_each_other(play):
    """A bid in one instrument never meets an offer in another."""
    assert play("ES/S1 5@10", "NQ/B2 5@10") == [Rest(1), Rest(2)]


@pytest.mark.parametrize(
    ("story", "reason"),
    [
        (("B1 5@10", "B1 0@-1"), Reason.INVALID_QTY),
        (("B1 5@10", "B1 5@-1"), Reason.INVALID_PRICE),
        (("S2 5@10", "B1 5@9", "B1 5@10 post"), Reason.DUPLICATE_ORDER),
        (("S2 2^62@10", f"B3 {BIGGEST}@9", "B1 2^62@10 post"), Reason.POST_ONLY_WOULD_CROSS),
        (("X1 0@-1",), Reason.INVALID_QTY),
        (("X1 5@-1",), Reason.INVALID_PRICE),
        (("B2 5@10", "X1>2 5@10"), Reason.UNKNOWN_ORDER),
        (("B1 5@10", "B2 5@9", "S3 5@12", "X1>2 5@12 post"), Reason.DUPLICATE_ORDER),
        (("R1 0",), Reason.INVALID_QTY),
    ],
)
def test_the_first_check_that_fails_decides(play, story, reason):
    """Quantity before price before id before new id before post-only before capacity."""
    told = play.tell(*story)
    assert rejected(told) == [(len(story) - 1, reason)]


# -- quantities near 2^63


@pytest.mark.parametrize("side", "BS")
def test_a_level_stays_below_2_to_the_63(play, side):
    """Open quantity at the own price plus the whole order reaches 2^63: CAPACITY_EXHAUSTED."""
    story = play.tell(f"{side}1 2^62@10", f"{side}2 2^62@10", f"{side}3 2^62-1@10")
    check_rejects(story, (1, Reason.CAPACITY_EXHAUSTED, Stage.MATCH, None, None))
    assert story.events[2] == Rest(3)
    assert story.book == [f"{side}1 {2**62}@10", f"{side}3 {2**62 - 1}@10"]


def test_another_price_has_its_own_capacity(play):
    """The sum is per price: a full level does not fill the next."""
    assert play(f"B1 {BIGGEST}@10", f"B2 {BIGGEST}@9", "B3 1@10")[1:] == [
        Rest(2),
        Rejected(3, Reason.CAPACITY_EXHAUSTED),
    ]


def test_what_is_traded_first_leaves_room(play):
    """An order that trades and rests fills its level with what rested, and no more."""
    story = play.tell("S1 5@10", f"B2 {BIGGEST}@11", "S3 1@12", "B4 6@11", "B4 5@11")
    assert story.outcomes[1] == (Status.RESTING, 5, 2**63 - 6)
    assert rejected(story) == [(3, Reason.CAPACITY_EXHAUSTED)]


@pytest.mark.parametrize("words", ["ioc", "fok"])
def test_an_order_that_never_rests_has_no_capacity_check(play, words):
    """IOC, FOK and MARKET do not rest, so a full level of their own is nothing to them."""
    assert play(f"B1 {BIGGEST}@10", f"B2 {BIGGEST}@10 {words}", f"B3 {BIGGEST}@mkt")[1:] == [
        Expired(2),
        Expired(3),
    ]


def test_a_replace_counts_the_old_order_as_removed(play):
    """Check 6 on a REPLACE leaves the old order's quantity out, at its own price."""
    story = play.tell("B1 2^62@10", f"X1 {BIGGEST}@10", "B2 1@9", "X1>3 2^63-2@9", "X1>3 2^63-1@9")
    assert rejected(story) == [(4, Reason.UNKNOWN_ORDER)]
    assert story.book == ["B2 1@9", f"B3 {2**63 - 2}@9"]


def test_a_replace_into_a_full_level_is_rejected(play):
    """A REPLACE whose new level would reach 2^63 is CAPACITY_EXHAUSTED and the old order keeps its place."""
    story = play.tell("B1 2@10", "B2 2@10", "B3 2^63-2@9", "X1 2@9")
    check_rejects(story, (3, Reason.CAPACITY_EXHAUSTED, Stage.MATCH, None, None))
    assert story.book == ["B1 2@10", "B2 2@10", f"B3 {2**63 - 2}@9"]


def test_an_increase_in_a_full_level_is_rejected(play):
    """Check 6 holds for more quantity at the same price."""
    story = play.tell("B1 2@10", "B2 2^63-4@10", "X1 3@10", "X1 4@10")
    assert rejected(story) == [(3, Reason.CAPACITY_EXHAUSTED)]
    assert story.book == [f"B2 {2**63 - 4}@10", "B1 3@10"]


def test_the_largest_orders_trade_exactly(play):
    """2^63 - 1 against 2^63 - 1 is one fill and an empty book."""
    story = play.tell(f"S1 {BIGGEST}@10", f"B2 {BIGGEST}@10")
    assert story.events[1:] == [Fill(2, 1, 2**63 - 1, 10)]
    assert story.book == []


def test_a_side_may_hold_more_than_2_to_the_63(play):
    """Levels are bounded, their sum is not: a sweep and a FOK over several full levels are exact."""
    levels = [f"S{i} {BIGGEST}@{10 + i}" for i in range(3)]
    story = play.tell(*levels, f"B8 {BIGGEST}@12 fok", f"B9 {BIGGEST}@mkt", "C2", f"B7 {BIGGEST}@99 fok")
    most = 2**63 - 1
    assert story.events[3:] == [Fill(8, 0, most, 10), Fill(9, 1, most, 11), Cancelled(2), Expired(7)]


def test_a_fok_over_levels_whose_sum_does_not_fit(play):
    """FOK that needs a little of a second full level finds it, though the levels' sum is above 2^63."""
    story = play.tell("S1 2^62@10", f"S2 {BIGGEST}@11", f"B3 {BIGGEST}@11 fok")
    assert story.events[2:] == [Fill(3, 1, 2**62, 10), Fill(3, 2, 2**62 - 1, 11)]
    assert story.book == [f"S2 {2**62}@11"]


def test_quantities_beyond_32_bits_trade_exactly(play):
    """Narrow records must not cut a quantity that needs more than 32 bits."""
    story = play.tell("S1 2^32@10", "S2 2^31@10", "B3 2^32+1@10", "B4 2^31-2@10")
    assert [event.qty for event in story.events if isinstance(event, Fill)] == [2**32, 1, 2**31 - 2]
    assert story.book == ["S2 1@10"]


def test_many_small_orders_sum_beyond_32_bits(play):
    """Orders that each fit in 32 bits may sum to more in one level."""
    story = play.tell(*(f"S{i} 2^31-1@10" for i in range(5)), "B9 10000000000@10 fok")
    assert story.outcomes[5] == (Status.FILLED, 10**10, 0)
    assert story.l1[-2][5] == 5 * (2**31 - 1)
    assert story.book == [f"S4 {5 * (2**31 - 1) - 10**10}@10"]


# -- ids


@pytest.mark.parametrize("order_id", [0, 1, 2**31, 2**32, 2**63 - 1, 2**63, LAST_ID])
def test_an_id_is_any_64_bit_number(play, order_id):
    """Ids from 0 to 2^64 - 1 rest, trade, and are named in fills and book exactly."""
    story = play.tell(f"S{order_id} 5@10", "B7 2@10", f"R{order_id} 1", f"X{order_id} 9@11")
    assert story.events[1] == Fill(7, order_id, 2, 10)
    assert story.book == [f"S{order_id} 9@11"]


def test_neighbouring_huge_ids_are_different(play):
    """Ids that are equal as floats are different orders."""
    ids = [LAST_ID, LAST_ID - 1, 2**63, 2**63 + 1, 2**53, 2**53 + 1]
    story = play.tell(*(f"B{order_id} 5@10" for order_id in ids), f"C{LAST_ID - 1}", f"X{2**63}>0 5@10")
    rest = [LAST_ID, 2**63 + 1, 2**53, 2**53 + 1, 0]
    assert story.book == [f"B{order_id} 5@10" for order_id in rest]


def test_a_rename_to_the_last_id(play):
    """2^64 - 1 as a new id is an id, not the absence of one."""
    story = play.tell("B1 5@10", f"X1>{LAST_ID} 5@10", "C1", f"X{LAST_ID}>0 5@10")
    assert rejected(story) == [(2, Reason.UNKNOWN_ORDER)]
    assert story.book == ["B0 5@10"]


# -- prices


def test_one_order_at_a_cent_and_one_at_two_hundred_thousand(play):
    """Prices seven orders of magnitude apart live in one book."""
    story = play.tell("B1 5@0.01", "S2 5@199999.99", "B3 1@199999.99", "S4 1@0.01", tick="0.01")
    assert [(event.qty, float(event.price)) for event in story.events if isinstance(event, Fill)] == [
        (1, 199_999.99),
        (1, 0.01),
    ]
    assert [float(token.split("@")[1]) for token in story.book] == [0.01, 199_999.99]


def test_the_finest_tick(play):
    """A tick of 1e-9 is a tick."""
    story = play.tell("S1 5@0.000000002", "B2 5@0.000000001", "B3 1@0.000000002", tick="0.000000001")
    assert story.fills[0]["price"] == 2


def test_the_book_moves_far_away(play):
    """A book may leave its price range entirely, up and down, one order at a time."""
    prices = [100, 5_000, 250_000, 12_000_000, 3]
    tokens = [token for price in prices for token in (f"B1 5@{price}", f"S2 5@{price + 1}", "C1", "C2")]
    story = play.tell(*tokens, "S9 1@7", "B8 1@7")
    assert story.rejects == []
    assert story.events[-1] == Fill(8, 9, 1, 7)


# -- outcomes and market data


def test_every_command_has_one_outcome(play):
    """Good, bad and useless commands each have exactly one outcome, in order."""
    story = play.tell("S1 5@10", "B2 0@10", "C9", "B3 2@10", "M0", "CLEAR", "X1 5@9", "B4 1@9 ioc")
    assert [status for status, _, _ in story.outcomes] == [
        Status.RESTING,
        Status.REJECTED,
        Status.REJECTED,
        Status.FILLED,
        Status.CANCELLED,
        Status.CANCELLED,
        Status.REJECTED,
        Status.EXPIRED,
    ]
    assert all(row[1:] == (0, 0) for row in story.outcomes if row[0] is Status.REJECTED)


def test_an_outcome_is_of_the_command_s_own_order(play):
    """filled_qty counts what this command's order traded in this command, not what happened to it before."""
    story = play.tell("B1 9@10", "S2 4@10", "X1 5@10", "R1 1", "X1 3@10")
    assert story.outcomes == [
        (Status.RESTING, 0, 9),
        (Status.FILLED, 4, 0),
        (Status.REPLACED, 0, 5),
        (Status.RESTING, 0, 4),
        (Status.REPLACED, 0, 3),
    ]


def test_the_touch_changes_with_price_size_or_count(play):
    """There is one l1 row per command that changed price, size or count of a best level."""
    story = play.tell(
        "B1 5@10", "S2 5@12", "B3 5@10", "X3 4@10", "B4 5@9", "C4", "S5 9@10", "B1 1@10 ioc", "C9"
    )
    assert story.l1 == [
        (0, 10, 5, 1, None, 0, 0),
        (1, 10, 5, 1, 12, 5, 1),
        (2, 10, 10, 2, 12, 5, 1),
        (3, 10, 9, 2, 12, 5, 1),
        (6, None, 0, 0, 12, 5, 1),
    ]


def test_a_change_that_keeps_the_touch_equal_is_no_change(play):
    """Losing the place in the queue of the touch changes no price, size or count: no l1 row."""
    story = play.tell("B1 5@10", "B2 5@10", "X1>3 5@10")
    assert [row[0] for row in story.l1] == [0, 1]


def test_depth_follows_the_best_levels(play):
    """Three levels are recorded: a change of the fourth is none, until it comes up."""
    story = play.tell("S1 5@10", "S2 5@11", "S3 5@12", "S4 5@13", "X4 4@13", "C1")
    assert [row["seq"] for row in story.depth] == [0, 1, 2, 5]
    assert story.depth[-1]["ask_px"] == (11 * 10**9, 12 * 10**9, 13 * 10**9)
    assert story.depth[-1]["ask_sz"] == (5, 5, 4)
    assert story.depth[-1]["bid_ct"] == (0, 0, 0)
