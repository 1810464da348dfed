"""The checks of the risk gate, on stories worked out by hand from docs/RISK.md.

Each story is told by the slow twin and by both paths of the package.
"""

from __future__ import annotations

import pytest

from hftlab.codes import Reason, Stage, Status
from tests.helpers import risk_play
from tests.helpers.risk_play import money, percent, refusal, tell
from tests.reference.risk_limits import LARGEST, Limits

LIMITS = Stage.LIMITS
AT_TEN = ("S1 5@10 #8", "B2 5@10 #9")  # the last price is 10, 8 is short, 9 is long, the book is empty


@pytest.fixture(autouse=True, params=risk_play.ENGINES)
def engine(request, monkeypatch) -> str:
    """Every engine in turn."""
    monkeypatch.setattr(risk_play, "engine", request.param)
    return request.param


def limits(**defaults) -> Limits:
    return Limits(defaults=defaults)


# -- 1: the kill switch

KILLED = (Reason.KILL_SWITCH, Stage.KILL, None, None)


def test_a_halted_account_enters_nothing_and_others_do():
    """HALTED for an account refuses its NEW in every symbol, and nobody else's."""
    assert refusal("K2 #1", "B1 1@10 #1") == KILLED
    assert refusal("K2 #1", "ES/B1 1@10 #1") == KILLED
    assert refusal("K2 #1", "B1 1@10 #2") is None


def test_a_halted_sender_replaces_nobody_s_order():
    """A REPLACE is judged by its sender: 1's order can be moved by 2, but not by 1 when that is halted."""
    assert refusal("B1 1@10 #1", "K2 #1", "X1 1@9 #1") == KILLED
    assert refusal("B1 1@10 #2", "K2 #1", "X1 1@9 #1") == KILLED


def test_cancels_pass_a_kill_switch():
    """CANCEL, REDUCE, MASS_CANCEL and CLEAR are never refused by the gate."""
    told = tell("B1 2@10 #1", "B2 2@9 #1", "B3 2@8 #1", "K10", "R1 1 #1", "C1 #1", "M1", "CLEAR")
    assert told.statuses[4:] == [Status.RESTING, Status.CANCELLED, Status.CANCELLED, Status.CANCELLED]


def test_a_halted_symbol_and_a_halted_venue():
    """HALTED for a symbol refuses all accounts there, HALTED for everything refuses all."""
    assert refusal("ES/K6", "ES/B1 1@10 #1") == KILLED
    assert refusal("ES/K6", "NQ/B1 1@10 #1") is None
    assert refusal("ES/K10", "NQ/B1 1@10 #1") == KILLED


def test_what_is_invalid_is_refused_before_the_gate():
    """VALIDATE comes before KILL."""
    assert refusal("K2 #1", "B1 0@10 #1") == (Reason.INVALID_QTY, Stage.VALIDATE, 1, 0)
    assert refusal("K2 #1", "X9 1@10 #1") == (Reason.UNKNOWN_ORDER, Stage.VALIDATE, None, None)


# -- 2: unknown accounts


def test_an_account_without_limits_of_its_own_is_unknown():
    """Limits for all, or for a symbol, make no account known; limits in one symbol do, in all."""
    strict = Limits(
        defaults={"max_order_qty": 9},
        by_symbol={"ES": {"max_order_qty": 9}},
        by_account={1: {"capital": 1}},
        by_cell={(2, "ES"): {"restricted": False}},
        unknown_accounts="reject",
    )
    assert refusal("ES/C9", "B1 1@10 #1", limits=strict) is None
    assert refusal("ES/C9", "B1 1@10 #2", limits=strict) is None
    assert refusal("ES/B1 1@10 #3", limits=strict) == (Reason.UNKNOWN_ACCOUNT, LIMITS, None, 3)


def test_an_unknown_sender_can_cancel_but_not_replace():
    """Check 2 judges a REPLACE by its sender."""
    strict = Limits(by_account={1: {"capital": 1}}, unknown_accounts="reject")
    assert refusal("B1 1@10 #1", "X1 1@9 #-7", limits=strict) == (Reason.UNKNOWN_ACCOUNT, LIMITS, None, -7)
    assert refusal("B1 1@10 #1", "C1 #-7", limits=strict) is None


# -- 3: restricted symbols

RESTRICTED = (Reason.RESTRICTED_SYMBOL, LIMITS, None, None)


def test_a_restricted_symbol():
    """A key is looked up for the account in the symbol, the account, the symbol, and all, in that order."""
    some = Limits(
        by_symbol={"ES": {"restricted": True}},
        by_account={2: {"restricted": False}},
        by_cell={(3, "ES"): {"restricted": False}, (2, "NQ"): {"restricted": True}},
    )
    both = ("ES/C9", "NQ/C9")
    assert refusal(*both, "ES/B1 1@10 #1", limits=some) == RESTRICTED
    assert refusal(*both, "ES/B1 1@10 #2", limits=some) is None
    assert refusal(*both, "ES/B1 1@10 #3", limits=some) is None
    assert refusal(*both, "NQ/B1 1@10 #2", limits=some) == RESTRICTED


def test_a_restricted_sender_moves_nobody_s_order():
    """Check 3 looks at the sender of a REPLACE, whoever owns the order."""
    some = Limits(by_account={2: {"restricted": True}})
    assert refusal("B1 2@10 #1", "X1 1@10 #2", limits=some) == RESTRICTED
    assert refusal("B1 2@10 #1", "X1 1@10 #1", limits=some) is None


# -- 4: messages per second


def test_the_fourth_message_of_a_second_is_one_too_many():
    """Refused rows and cancels are messages too, in all symbols together."""
    three = limits(max_orders_per_second=3)
    story = ("0s B1 1@10 #1", "0.1s C9 #1", "0.2s ES/B1 0@10 #1")
    assert refusal(*story, limits=three) == (Reason.INVALID_QTY, Stage.VALIDATE, 1, 0)
    assert refusal(*story, "0.999s B2 1@10 #1", limits=three) == (Reason.RATE_LIMIT, LIMITS, 3, 4)
    assert refusal(*story, "0.999s B2 1@10 #2", limits=three) is None
    assert refusal(*story, "0.999s C1 #1", limits=three) is None


def test_a_message_of_a_second_ago_no_longer_counts():
    """t - s < 1 s counts: at 1 s the message of 0 s is gone; refused ones stay as long as others."""
    two = limits(max_orders_per_second=2)
    story = ("0s B1 1@10 #1", "0.5s B2 1@10 #1")
    assert refusal(*story, "1s B3 1@10 #1", limits=two) is None
    refused = ("0.9s B3 1@10 #1", "1s B4 1@10 #1")
    assert refusal(*story, *refused, limits=two) == (Reason.RATE_LIMIT, LIMITS, 2, 3)


def test_a_clock_that_runs_backwards_stands_still():
    """The time of a row is the largest so far, RISK_CONTROL rows included, which are no messages."""
    one = limits(max_orders_per_second=1)
    assert refusal("5s B1 1@10 #1", "1s B2 1@10 #1", limits=one) == (Reason.RATE_LIMIT, LIMITS, 1, 2)
    assert refusal("5s B1 1@10 #1", "6s K0 #1", "1s B2 1@10 #1", limits=one) is None
    assert refusal("5s K0 #1", "5s K0 #1", "5s B2 1@10 #1", limits=one) is None


def test_a_rate_of_zero_lets_nothing_pass():
    """A limit of 0 is a limit."""
    assert refusal("B1 1@10 #1", limits=limits(max_orders_per_second=0)) == (Reason.RATE_LIMIT, LIMITS, 0, 1)


# -- 5: repeated orders


def test_the_third_equal_order_is_one_too_many():
    """Equal are account, symbol, side, price and qty; other orders in between change nothing."""
    two = limits(max_repeated_orders=2)
    story = ("B1 5@10 #1", "B2 6@10 #1", "S3 5@11 #1", "ES/B4 5@10 #1", "B5 5@10 #2", "B6 5@10 #1")
    assert refusal(*story, limits=two) is None
    assert refusal(*story, "B7 5@10 #1", limits=two) == (Reason.REPEATED_ORDER, LIMITS, 2, 3)


def test_a_pause_as_long_as_the_window_begins_anew():
    """Orders follow each other with less than a second between one and the next, not the first."""
    two = limits(max_repeated_orders=2)
    chain = ("0s B1 5@10 #1", "0.9s B2 5@10 #1")
    assert refusal(*chain, "1.8s B3 5@10 #1", limits=two) == (Reason.REPEATED_ORDER, LIMITS, 2, 3)
    assert refusal(*chain, "1.9s B3 5@10 #1", limits=two) is None


def test_refused_orders_are_repeats_too_and_markets_have_price_zero():
    """Whatever became of them, NEW rows repeat; the price of a MARKET doesn't count, nor do REPLACEs."""
    one = limits(max_repeated_orders=1)
    assert refusal("B1 5@mkt #1", "B2 5@mkt #1", limits=one) == (Reason.REPEATED_ORDER, LIMITS, 1, 2)
    again = ("B1 5@10 #1", "B1 5@10 #1")
    assert refusal(*again, limits=one) == (Reason.DUPLICATE_ORDER, Stage.VALIDATE, None, None)
    assert refusal(*again, "B3 5@10 #1", limits=one) == (Reason.REPEATED_ORDER, LIMITS, 1, 3)
    assert refusal("B1 5@10 #1", "B2 5@10 #1", "X1 5@10 #1", "X1 5@10 #1", limits=one) is None


# -- 6 and 7: size of the order


def test_no_order_above_max_order_qty():
    """The limit itself passes."""
    ten = limits(max_order_qty=10)
    assert refusal("B1 10@1 #1", limits=ten) is None
    assert refusal("B1 11@mkt #1", limits=ten) == (Reason.MAX_ORDER_QTY, LIMITS, 10, 11)
    assert refusal("B1 1@1 #1", limits=limits(max_order_qty=0)) == (Reason.MAX_ORDER_QTY, LIMITS, 0, 1)


def test_a_replace_has_the_size_its_sender_may_have():
    """Checks 6 and 7 judge a REPLACE by its sender, in place or not."""
    some = Limits(by_account={2: {"max_order_qty": 3}, 3: {"max_order_notional": money(29)}})
    assert refusal("B1 5@10 #1", "X1 4@10 #2", limits=some) == (Reason.MAX_ORDER_QTY, LIMITS, 3, 4)
    small = (Reason.MAX_NOTIONAL, LIMITS, money(29), money(30))
    assert refusal("B1 5@10 #1", "X1 3@10 #3", limits=some) == small
    assert refusal("B1 5@10 #1", "X1 3@10 #1", limits=some) is None


def test_no_order_above_max_order_notional():
    """10 lots at 10 are 100; the sign of a price doesn't count."""
    hundred = limits(max_order_notional=money(100))
    assert refusal("B1 10@10 #1", limits=hundred) is None
    assert refusal("B1 11@10 #1", limits=hundred) == (Reason.MAX_NOTIONAL, LIMITS, money(100), money(110))
    negative = refusal("S1 21@-5 #1", limits=hundred, allow_nonpositive=True)
    assert negative == (Reason.MAX_NOTIONAL, LIMITS, money(100), money(105))


def test_a_notional_beyond_63_bits_is_refused_and_shown_as_the_largest():
    """2^33 lots at 1 are 2^33 x 10^9 > 2^63 - 1 units, although nobody gave a limit."""
    assert refusal("B1 2^33@1 #1") is None
    assert refusal("B1 2^34@1 #1") == (Reason.MAX_NOTIONAL, LIMITS, LARGEST, LARGEST)


# -- 8: reducing only

LONG_FIVE = ("S1 5@10 #8", "B2 5@10 #1")


def test_a_reducing_account_sells_no_more_than_it_has():
    """Long 5: 5 sold leave 0; 6 would leave -1, and so do 5 with 1 already on offer."""
    assert refusal(*LONG_FIVE, "K1 #1", "S3 5@11 #1") is None
    assert refusal(*LONG_FIVE, "K1 #1", "S3 6@11 #1") == (Reason.REDUCE_ONLY, LIMITS, 0, -1)
    assert refusal(*LONG_FIVE, "S3 1@12 #1", "K1 #1", "S4 5@11 #1") == (Reason.REDUCE_ONLY, LIMITS, 0, -1)
    assert refusal(*LONG_FIVE, "K1 #1", "B3 1@9 #1") == (Reason.REDUCE_ONLY, LIMITS, 0, 6)


def test_a_reducing_symbol_a_reducing_venue_and_reduce_only():
    """8 is short 5: it may buy 5, and bids of its own count."""
    for state in ("K5", "K9"):
        assert refusal(*LONG_FIVE, state, "B3 5@9 #8") is None
        assert refusal(*LONG_FIVE, state, "B3 4@9 #8", "B4 2@mkt #8") == (Reason.REDUCE_ONLY, LIMITS, 0, 1)
    only = Limits(by_account={1: {"reduce_only": True}})
    assert refusal("B1 1@10 #1", limits=only) == (Reason.REDUCE_ONLY, LIMITS, 0, 1)
    assert refusal("ES/K5", *LONG_FIVE, "S3 9@11 #1") is None


def test_a_replace_is_judged_without_its_order():
    """1 is long 5 with 5 on offer; 6 in their place are too much, less in place is not."""
    story = (*LONG_FIVE, "S3 5@11 #1", "B4 3@8 #1", "K1 #1")
    assert refusal(*story, "X3 5@12 #1") is None
    assert refusal(*story, "X3 6@12 #1") == (Reason.REDUCE_ONLY, LIMITS, 0, -1)
    assert refusal(*story, "X4 2@8 #1") is None
    assert refusal(*story, "X4 3@7 #1") == (Reason.REDUCE_ONLY, LIMITS, 0, 8)


@pytest.mark.parametrize("state", ["K1", "K2"])
def test_a_state_is_the_sender_s_and_reduce_only_the_owner_s(state):
    """2 may move the bid of 1, whatever the state of 1, but not as REDUCING; nor if 1 has `reduce_only`."""
    assert refusal("B1 3@8 #1", f"{state} #1", "X1 3@7 #2") is None
    grows = (Reason.REDUCE_ONLY, LIMITS, 0, 3)
    assert refusal("B1 3@8 #1", "K1 #2", "X1 3@7 #2") == grows
    only = Limits(changes=[(1, Limits(by_account={1: {"reduce_only": True}}))])
    assert refusal("B1 3@8 #1", "X1 3@7 #2", limits=only) == grows
    assert refusal("B1 3@8 #2", "X1 3@7 #1", limits=only) is None


# -- 9: a stop loss that has struck

# 1 buys 10 at 10 with a capital of 100; then 9 is paid: 90 of 100 are left at the marking of second 1
LOSING = ("0s S1 10@10 #2", "B2 10@10 #1", "S3 1@9 #2", "B4 1@9 #3")
TEN_PERCENT = Limits(by_account={1: {"capital": money(100), "stop_loss_percentage": percent(10)}})


def test_after_a_stop_loss_positions_only_shrink():
    """The stop strikes at 90 = 100 - 10 %; selling what one has still passes."""
    assert refusal(*LOSING, "0.99s B5 1@9 #1", limits=TEN_PERCENT) is None
    struck = (Reason.STOP_LOSS, LIMITS, money(90), money(90))
    assert refusal(*LOSING, "1s B5 1@9 #1", limits=TEN_PERCENT) == struck
    assert refusal(*LOSING, "1s S5 10@12 #1", limits=TEN_PERCENT) is None
    assert refusal(*LOSING, "1s S5 11@12 #1", limits=TEN_PERCENT) == struck


def test_a_stop_loss_shows_what_it_struck_at_and_the_equity_since():
    """At second 2 the price is 8 and 80 are left."""
    story = (*LOSING, "1s S5 1@8 #2", "B6 1@8 #3")
    expected = (Reason.STOP_LOSS, LIMITS, money(90), money(80))
    assert refusal(*story, "2s B7 1@8 #1", limits=TEN_PERCENT) == expected
    assert refusal(*story, "1.9s B7 1@8 #1", limits=TEN_PERCENT)[3] == money(90)


# -- 10 and 11: the band


def test_a_band_of_two_ticks_around_the_last_price():
    """Last 10: 8 and 12 pass, 7 and 13 are named with the nearer end; without a last price all pass."""
    two = limits(price_band_ticks=2)
    assert refusal(*AT_TEN, "B3 12@12 #1", limits=two) is None
    assert refusal(*AT_TEN, "S3 1@8 #1", limits=two) is None
    assert refusal(*AT_TEN, "B3 1@13 #1", limits=two) == (Reason.PRICE_BAND, LIMITS, money(12), money(13))
    assert refusal(*AT_TEN, "B3 1@7 #1", limits=two) == (Reason.PRICE_BAND, LIMITS, money(8), money(7))
    assert refusal("B3 1@99 #1", limits=two) is None


def test_a_band_in_percent_and_the_smaller_of_two():
    """12.5 % of 10 are 1.25; with three ticks beside them the 1.25 hold, with one tick that holds."""
    share = {"price_band_percentage": percent(12.5)}
    beyond = (Reason.PRICE_BAND, LIMITS, money(11.25), money(12))
    assert refusal(*AT_TEN, "B3 1@11 #1", limits=limits(**share)) is None
    assert refusal(*AT_TEN, "B3 1@12 #1", limits=limits(**share)) == beyond
    assert refusal(*AT_TEN, "B3 1@12 #1", limits=limits(**share, price_band_ticks=3)) == beyond
    one_tick = refusal(*AT_TEN, "B3 1@12 #1", limits=limits(**share, price_band_ticks=1))
    assert one_tick == (Reason.PRICE_BAND, LIMITS, money(11), money(12))


def test_a_percentage_is_rounded_down():
    """50 % of 3 units of 1e-9 are 1, of -3 as well."""
    half = limits(price_band_percentage=percent(50), reference=3)
    units = {"limits": half, "tick": "0.000000001", "allow_nonpositive": True}
    assert refusal("B1 1@0.000000004 #1", **units) is None
    assert refusal("B1 1@0.000000005 #1", **units) == (Reason.PRICE_BAND, LIMITS, 4, 5)
    units["limits"] = limits(price_band_percentage=percent(50), reference=-3)
    assert refusal("B1 1@-0.000000005 #1", **units) == (Reason.PRICE_BAND, LIMITS, -4, -5)


def test_a_band_around_the_middle_and_around_a_fixed_price():
    """Between 10 and 13 the middle is 11.5; with one side empty it is the last price."""
    mid = limits(price_band_ticks=2, reference="mid")
    quotes = ("B1 5@10 #1", "S2 5@13 #1")
    assert refusal(*quotes, "B3 1@13 #1", limits=mid) is None
    assert refusal(*quotes, "B3 1@14 #1", limits=mid) == (Reason.PRICE_BAND, LIMITS, money(13.5), money(14))
    assert refusal(*AT_TEN, "B3 1@13 #1", limits=mid) == (Reason.PRICE_BAND, LIMITS, money(12), money(13))
    fixed = limits(price_band_ticks=2, reference=money(20))
    assert refusal(*AT_TEN, limits=fixed) == (Reason.PRICE_BAND, LIMITS, money(18), money(10))


def test_a_replace_has_the_band_of_its_owner():
    """In place it has none; otherwise, whoever sends it, it has that of the order's account."""
    some = Limits(by_account={1: {"price_band_ticks": 2}})
    story = ("B7 5@3 #1", *AT_TEN)
    assert refusal(*story, "X7 4@3 #2", limits=some) is None
    assert refusal(*story, "X7 4@4 #2", limits=some) == (Reason.PRICE_BAND, LIMITS, money(8), money(4))
    assert refusal("B7 5@3 #2", *AT_TEN, "X7 4@4 #1", limits=some) is None


def test_a_market_order_is_worth_what_its_band_allows():
    """Last 10 and a band of 2: 8 lots are 96, 9 are 108."""
    some = limits(price_band_ticks=2, max_order_notional=money(100))
    assert refusal(*AT_TEN, "B3 8@mkt #1", limits=some) is None
    assert refusal(*AT_TEN, "S3 9@mkt #1", limits=some) == (
        Reason.MAX_NOTIONAL,
        LIMITS,
        money(100),
        money(108),
    )


def test_a_market_order_without_a_band_or_without_a_reference():
    """Without a band it is worth the last price, without that nothing is known and it passes."""
    some = limits(max_order_notional=money(100))
    assert refusal(*AT_TEN, "B3 10@mkt #1", limits=some) is None
    above = refusal(*AT_TEN, "B3 11@mkt #1", limits=some)
    assert above == (Reason.MAX_NOTIONAL, LIMITS, money(100), money(110))
    assert refusal("B3 11@mkt #1", limits=some) is None


# -- 12: the position


def test_the_long_position_counts_all_open_bids_and_no_offers():
    """6 on the bid and 5 more are 11; 5 on offer excuse nothing."""
    ten = limits(max_long_position=10)
    assert refusal("B1 6@9 #1", "B2 4@9 #1", limits=ten) is None
    assert refusal("B1 6@9 #1", "B2 5@mkt #1", limits=ten) == (Reason.MAX_POSITION, LIMITS, 10, 11)
    assert refusal("S1 5@12 #1", "B2 11@9 #1", limits=ten) == (Reason.MAX_POSITION, LIMITS, 10, 11)
    assert refusal(*LONG_FIVE, "B3 6@9 #1", limits=ten) == (Reason.MAX_POSITION, LIMITS, 10, 11)


def test_the_short_position_has_a_limit_of_its_own():
    """`max_position_size` is both, and yields to the key of one side; that of shorts is shown negative."""
    both = Limits({"max_position_size": 10}, by_account={1: {"max_short_position": 3}})
    assert refusal("S1 3@9 #1", limits=both) is None
    assert refusal("S1 4@9 #1", limits=both) == (Reason.MAX_POSITION, LIMITS, -3, -4)
    assert refusal("B1 11@9 #1", limits=both) == (Reason.MAX_POSITION, LIMITS, 10, 11)
    assert refusal(*LONG_FIVE, "S3 8@11 #1", limits=both) is None
    assert refusal(*LONG_FIVE, "S3 9@11 #1", limits=both) == (Reason.MAX_POSITION, LIMITS, -3, -4)


def test_a_replace_takes_the_place_of_its_order():
    """6 and 4 are open: in place of the 6 another 6 fit, 7 don't; the owner's limit counts."""
    ten = Limits(by_account={1: {"max_long_position": 10}, 2: {"max_long_position": 0}})
    story = ("B1 6@9 #1", "B2 4@9 #1")
    assert refusal(*story, "X1 6@8 #2", limits=ten) is None
    assert refusal(*story, "X1 7@8 #2", limits=ten) == (Reason.MAX_POSITION, LIMITS, 10, 11)


def test_a_position_never_passes_63_bits():
    """Nobody gave a limit, and one lot more than 2^63 - 1 is refused and shown as the largest."""
    tiny = {"tick": "0.000000001"}
    story = ("B1 2^62@0.000000001 #1", "B2 2^62-1@0.000000001 #1")
    assert refusal(*story, **tiny) is None
    assert refusal(*story, "B3 1@mkt #1", **tiny) == (Reason.MAX_POSITION, LIMITS, LARGEST, LARGEST)


# -- 13 and 14: what is open


def test_the_third_open_order_is_one_too_many():
    """An order that never rests, and a REPLACE, open nothing; a cancel makes room."""
    two = limits(max_open_orders=2)
    story = ("B1 1@9 #1", "S2 1@12 #1")
    assert refusal(*story, "B3 1@8 #1", limits=two) == (Reason.MAX_OPEN_ORDERS, LIMITS, 2, 3)
    assert refusal(*story, "B3 1@8 passive day #1", limits=two) == (Reason.MAX_OPEN_ORDERS, LIMITS, 2, 3)
    assert refusal(*story, "B3 1@8 ioc #1", limits=two) is None
    assert refusal(*story, "X1>4 1@8 #1", limits=two) is None
    assert refusal(*story, "C2 #1", "B3 1@8 #1", limits=two) is None
    assert refusal(*story, "ES/B3 1@8 #1", limits=two) is None


def test_a_filled_order_makes_room():
    """A maker's order that is filled is no longer open; one that is partly filled is."""
    one = limits(max_open_orders=1)
    assert refusal("B1 5@9 #1", "S2 5@9 #2", "B3 1@9 #1", limits=one) is None
    assert refusal("B1 5@9 #1", "S2 4@9 #2", "B3 1@9 #1", limits=one) == (
        Reason.MAX_OPEN_ORDERS,
        LIMITS,
        1,
        2,
    )


def test_open_orders_are_worth_no_more_than_their_limit():
    """6 at 10 and 4 at 10 are 100, one at 1 more are 101; what can't rest isn't open."""
    hundred = limits(max_open_notional=money(100))
    story = ("B1 6@10 #1", "S2 4@10.5 #1")
    assert refusal(*story, limits=hundred, tick="0.5")[3] == money(102)
    story = ("B1 6@10 #1", "B2 4@10 #1")
    assert refusal(*story, limits=hundred) is None
    over = (Reason.MAX_OPEN_NOTIONAL, LIMITS, money(100), money(101))
    assert refusal(*story, "B3 1@1 #1", limits=hundred) == over
    assert refusal(*story, "B3 1@1 fok #1", limits=hundred) is None


def test_a_replace_is_worth_what_it_adds():
    """60 and 40 are open; a REPLACE of the 40 may be worth 40, in place more than that can't be."""
    hundred = limits(max_open_notional=money(100))
    story = ("B1 6@10 #1", "B2 4@10 #1")
    assert refusal(*story, "X2 5@8 #1", limits=hundred) is None
    assert refusal(*story, "X2 6@7 #1", limits=hundred) == (
        Reason.MAX_OPEN_NOTIONAL,
        LIMITS,
        money(100),
        money(102),
    )


def test_open_notional_is_bounded_for_all_where_it_is_for_one():
    """Two orders of 2^33 x 10^9 units each pass 2^63 - 1, which matters only if somebody has a limit."""
    story = ("B1 2^33@1 #1", "B2 2^33@1 #1")
    assert refusal(*story) is None
    given = Limits(by_account={5: {"max_open_notional": 1}})
    assert refusal(*story, limits=given) == (Reason.MAX_OPEN_NOTIONAL, LIMITS, LARGEST, LARGEST)


# -- 15: the portfolio


def test_a_portfolio_counts_positions_and_the_whole_order():
    """5 ES marked 10 are 50; 5 NQ at 10 make 100 and may be many, for open orders don't count; 6 make 110."""
    hundred = Limits(by_account={1: {"max_portfolio_value": money(100)}})
    story = ("ES/S1 5@10 #8", "ES/B2 5@10 #1")
    assert refusal(*story, "NQ/B1 5@10 #1", "NQ/B2 5@10 #1", limits=hundred) is None
    over = (Reason.MAX_PORTFOLIO_VALUE, LIMITS, money(100), money(110))
    assert refusal(*story, "NQ/B1 6@10 #1", limits=hundred) == over
    assert refusal(*story, "NQ/B1 600@mkt #1", limits=hundred) is None
    assert refusal(*story, "NQ/B1 600@10 #2", limits=hundred) is None


def test_a_portfolio_may_shrink_and_a_crossing_grows_by_the_rest():
    """Long 5 at 10 with a limit of 50: selling 10 is as much as before, 11 one lot more."""
    fifty = Limits(by_account={1: {"max_portfolio_value": money(50)}})
    story = ("S1 5@10 #8", "B2 5@10 #1")
    assert refusal(*story, "S3 10@90 #1", limits=fifty) is None
    over = (Reason.MAX_PORTFOLIO_VALUE, LIMITS, money(50), money(60))
    assert refusal(*story, "S3 11@90 #1", limits=fifty) == over
    assert refusal(*story, "B3 1@mkt #1", limits=fifty) == over


def test_a_portfolio_above_its_limit_may_still_shrink():
    """Bought 5 at 10, marked 30 at second 1: 150 of 60 allowed; selling all passes, buying one doesn't."""
    sixty = Limits(by_account={1: {"max_portfolio_value": money(60)}})
    story = ("0s S1 5@10 #8", "B2 5@10 #1", "S3 1@30 #8", "B4 1@30 #9", "1s S5 5@31 #1")
    assert refusal(*story, limits=sixty) is None
    assert refusal(*story, "B6 1@1 #1", limits=sixty) == (
        Reason.MAX_PORTFOLIO_VALUE,
        LIMITS,
        money(60),
        money(180),
    )


def test_portfolios_are_bounded_for_all_where_one_is():
    """Twice 2^33 lots at 1 are more than 2^63 - 1 units, which matters only if somebody has a limit."""
    story = ("ES/S1 2^33@1 #8", "ES/B2 2^33@1 #2", "NQ/B1 2^33@1 #2")
    assert refusal(*story) is None
    given = Limits(by_account={5: {"max_portfolio_value": 1}})
    assert refusal(*story, limits=given) == (Reason.MAX_PORTFOLIO_VALUE, LIMITS, LARGEST, LARGEST)


# -- the order of checks

ORDER = [
    ({"restricted": True}, Reason.RESTRICTED_SYMBOL),
    ({"max_orders_per_second": 1}, Reason.RATE_LIMIT),
    ({"max_repeated_orders": 0}, Reason.REPEATED_ORDER),
    ({"max_order_qty": 4}, Reason.MAX_ORDER_QTY),
    ({"max_order_notional": money(49)}, Reason.MAX_NOTIONAL),
    ({"reduce_only": True}, Reason.REDUCE_ONLY),
    ({"price_band_ticks": 0}, Reason.PRICE_BAND),
    ({"max_long_position": 4}, Reason.MAX_POSITION),
    ({"max_open_orders": 0}, Reason.MAX_OPEN_ORDERS),
    ({"max_open_notional": money(49)}, Reason.MAX_OPEN_NOTIONAL),
    ({"max_portfolio_value": money(44)}, Reason.MAX_PORTFOLIO_VALUE),
    ({"self_trade": "cancel_newest"}, Reason.SELF_TRADE),
]


@pytest.mark.parametrize("first", range(len(ORDER)), ids=[reason.name for _, reason in ORDER])
def test_the_first_check_that_fails_decides(first):
    """5 at 10 breaks all limits of row 1 on, and the post-only rule after them; the earliest is named."""
    given = {key: value for values, _ in ORDER[first:] for key, value in values.items()}
    some = Limits({"reference": money(9)}, changes=[(1, Limits(by_account={1: given}))])
    story = ("S1 5@10 #1", "B2 5@10 post #1")
    assert refusal(*story, limits=some)[0] is ORDER[first][1]
