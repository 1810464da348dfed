"""What the gate does by itself, worked out by hand from docs/RISK.md: self-trades, states, marks, stops.

Each story is told by the slow twin and by both paths of the package.
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from hftlab.codes import GateEvent, Reason, Stage, Status
from tests.helpers import risk_play
from tests.helpers.risk_play import money, percent, refusal, tell
from tests.reference.risk_limits import Limits

SELF_TRADE_CANCEL, SELF_TRADE_DECREMENT, KILL_CANCEL, STOP_LOSS, STOP_CANCEL, STOP_CLOSE = GateEvent
CANCELLED, EXPIRED, FILLED, RESTING = Status.CANCELLED, Status.EXPIRED, Status.FILLED, Status.RESTING
ALL = "DEFAULT"


@pytest.fixture(autouse=True, params=risk_play.ENGINES)
def engine(request, monkeypatch) -> str:
    """Every engine in turn."""
    monkeypatch.setattr(risk_play, "engine", request.param)
    return request.param


# -- check 16

SELF = (Reason.SELF_TRADE, Stage.SELF_TRADE, None, None)


def test_an_order_that_meets_its_owner_first_is_refused():
    """With somebody else in front, or behind a worse price, it isn't; nor if it only rests."""
    newest = Limits({"self_trade": "cancel_newest"})
    assert refusal("S1 5@10 #1", "B2 5@10 #1", limits=newest) == SELF
    assert refusal("S1 5@10 #1", "B2 5@mkt fok #1", limits=newest) == SELF
    assert refusal("S1 5@10 #1", "B2 5@9 #1", limits=newest) is None
    assert refusal("S1 5@10 #1", "B2 5@10 passive #1", limits=newest) is None
    assert refusal("S3 1@10 #2", "S1 5@10 #1", "B2 5@10 #1", limits=newest) is None


def test_a_group_is_one_owner_and_the_mode_is_the_incoming_order_s():
    """1 and 2 are of group 7; only 1 has a mode. Account 7, without a group, is its own."""
    some = Limits(
        by_account={1: {"self_trade_group": 7, "self_trade": "cancel_newest"}, 2: {"self_trade_group": 7}}
    )
    assert refusal("S1 5@10 #2", "B2 5@10 #1", limits=some) == SELF
    assert refusal("S1 5@10 #1", "B2 5@10 #2", limits=some) is None
    assert refusal("S1 5@10 #7", "B2 5@10 #1", limits=some) is None


def test_a_replace_meets_its_owner_by_the_owner_s_mode():
    """Post-only is looked at later; in place nothing is met."""
    some = Limits(by_account={1: {"self_trade": "cancel_newest"}})
    story = ("S1 5@10 #1", "B2 5@9 #1")
    assert refusal(*story, "X2 5@10 #3", limits=some) == SELF
    assert refusal(*story, "X2 5@10 post #3", limits=some) == SELF
    assert refusal(*story, "X2 4@9 #3", limits=some) is None


# -- self-trade prevention: 1 has 4 on offer, behind 3 and before 5 of account 2

OFFERS = ("S1 3@10 #2", "S2 4@10 #1", "S3 5@10 #2")


def met(mode: str, *tokens: str):
    return tell(*OFFERS, *tokens, limits=Limits({"self_trade": mode}))


MODES = {
    # mode: the incoming order for 10, what it trades, what is left in the book, events
    "none": ((FILLED, 10, 0), [(1, 3), (2, 4), (3, 3)], ["S3 2@10"], []),
    "cancel_newest": ((CANCELLED, 3, 0), [(1, 3)], ["S2 4@10", "S3 5@10"], []),
    "cancel_oldest": ((RESTING, 8, 2), [(1, 3), (3, 5)], ["B4 2@10"], [(SELF_TRADE_CANCEL, 4)]),
    "cancel_both": ((CANCELLED, 3, 0), [(1, 3)], ["S3 5@10"], [(SELF_TRADE_CANCEL, 4)]),
    "decrement": ((CANCELLED, 6, 0), [(1, 3), (3, 3)], ["S3 2@10"], [(SELF_TRADE_DECREMENT, 4)]),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_on_the_way_through_the_book(mode):
    """10 at 10 meet 3 of others, 4 of their own, 5 of others."""
    outcome, fills, book, events = MODES[mode]
    told = met(mode, "B4 10@10 #1")
    assert told.last == outcome
    assert [(maker, qty) for _, _, maker, qty, _ in told.fills] == fills
    assert told.book == book
    assert told.events == [(3, event, ALL, 1, 2, qty) for event, qty in events]


def test_a_decrement_that_leaves_nothing_cancels():
    """5: three are traded, two decremented, and 2 of the resting 4 stay; 7 take the resting order along.

    So it is when the last lots traded; an order that lost none is FILLED, one with lots left rests.
    """
    told = met("decrement", "B4 5@10 #1")
    assert told.last == (CANCELLED, 3, 0)
    assert told.book == ["S2 2@10", "S3 5@10"]
    assert told.events == [(3, SELF_TRADE_DECREMENT, ALL, 1, 2, 2)]
    told = met("decrement", "B4 7@10 #1")
    assert told.last == (CANCELLED, 3, 0)
    assert told.book == ["S3 5@10"]
    assert met("decrement", "B4 3@10 #1").last == (FILLED, 3, 0)
    assert met("decrement", "B4 14@10 #1").last == (RESTING, 8, 2)


@pytest.mark.parametrize("tail", ["@mkt", "@10 ioc"])
def test_what_cannot_rest_is_cancelled_too_or_expires(tail):
    """An IOC or MARKET that ends by its owner's order is CANCELLED, by an empty book EXPIRED."""
    assert met("cancel_both", f"B4 10{tail} #1").last == (CANCELLED, 3, 0)
    assert met("cancel_oldest", f"B4 10{tail} #1").last == (EXPIRED, 8, 0)


def test_taker_leaves_do_not_count_what_was_decremented():
    """Of 10, after 3 traded 7 are left; after 4 decremented and 3 traded, nothing."""
    told = met("decrement", "B4 10@10 #1")
    assert [row[11] for row in told.tables["fills"]] == [7, 0]


def test_a_fill_or_kill_does_not_count_its_owner_s_orders():
    """Cancel oldest reaches the 8 of others and cancels its own only then; other modes end at the 3."""
    told = met("cancel_oldest", "B4 9@10 fok #1")
    assert (told.last, told.events, len(told.book)) == ((EXPIRED, 0, 0), [], 3)
    told = met("cancel_oldest", "B4 8@10 fok #1")
    assert (told.last, told.book) == ((FILLED, 8, 0), [])
    assert told.events == [(3, SELF_TRADE_CANCEL, ALL, 1, 2, 4)]
    for mode in ("cancel_newest", "cancel_both", "decrement"):
        assert met(mode, "B4 4@10 fok #1").last == (EXPIRED, 0, 0)
        assert met(mode, "B4 3@10 fok #1").last == (FILLED, 3, 0)
    assert met("none", "B4 12@10 fok #1").last == (FILLED, 12, 0)


def test_a_post_only_order_cancels_nothing():
    """Post-only comes before anything is cancelled, even if only the owner's order is in the way."""
    oldest = Limits({"self_trade": "cancel_oldest"})
    told = tell("S1 3@10 #1", "B2 1@10 post #1", limits=oldest)
    assert told.reject == (Reason.POST_ONLY_WOULD_CROSS, Stage.MATCH, None, None)
    assert (told.book, told.events) == (["S1 3@10"], [])


def test_a_passive_order_meets_nobody():
    """It rests where it crosses its owner's offer, and neither is cancelled."""
    told = tell("S1 3@10 #1", "B2 1@10 passive #1", limits=Limits({"self_trade": "cancel_oldest"}))
    assert (told.book, told.events) == (["B2 1@10", "S1 3@10"], [])


def test_a_replace_prevents_self_trades_likewise():
    """Moved onto its owner's offer by another account, the bid cancels it and rests."""
    oldest = Limits(by_account={1: {"self_trade": "cancel_oldest"}})
    told = tell("S1 3@10 #1", "B2 2@9 #1", "X2 2@10 #5", limits=oldest)
    assert (told.last, told.book) == ((Status.REPLACED, 0, 2), ["B2 2@10"])
    assert told.events == [(2, SELF_TRADE_CANCEL, ALL, 1, 1, 3)]
    both = Limits(by_account={1: {"self_trade": "cancel_both"}})
    told = tell("S1 3@10 #1", "B2 2@9 #1", "X2 2@10 #5", limits=both)
    assert (told.last, told.book) == ((CANCELLED, 0, 0), [])


# -- states

OPEN = ("ES/B1 1@9 #1", "ES/S2 2@12 #1", "NQ/B1 3@9 #1", "ES/B3 4@10 #2", "ES/B4 5@9 #1")


def test_a_kill_cancels_the_orders_of_its_scope():
    """State 3 cancels, symbols by name, in each bids and offers, best and oldest first."""
    told = tell(*OPEN, "ZZ/K3 #1")
    assert told.book == ["ES/B3 4@10"]
    assert [event[2:] for event in told.events] == [
        ("ES", 1, 1, 1),
        ("ES", 1, 4, 5),
        ("ES", 1, 2, 2),
        ("NQ", 1, 1, 3),
    ]
    assert {event[:2] for event in told.events} == {(5, KILL_CANCEL)}
    assert tell(*OPEN, "ES/K7 #1").book == ["NQ/B1 3@9"]
    assert tell(*OPEN, "ES/K11 #1").book == []
    assert len(tell(*OPEN, "ES/K2 #1", "ES/K6", "ES/K10").book) == 5
    for kill in ("K3 #1", "ES/K7", "K11"):
        assert tell(*OPEN, kill, "ES/B9 1@9 #1").reject[0] is Reason.KILL_SWITCH


def test_states_hold_until_they_are_set_again():
    """A command is subject to the most severe of three states, each set by itself."""
    story = ("K2 #1", "K6", "K9")
    for actives, status in (
        (("K0 #1",), Status.REJECTED),
        (("K4",), Status.REJECTED),
        (("K0 #1", "K4"), Status.REJECTED),
        (("K0 #1", "K4", "K8"), RESTING),
    ):
        assert tell(*story, *actives, "B1 1@10 #1").last[0] is status
    assert tell(*story, "K0 #1", "K4", "B1 1@10 #1").reject[0] is Reason.REDUCE_ONLY


@pytest.mark.parametrize("qty", [-1, 12])
def test_a_control_that_is_none_is_invalid(qty):
    """The legal ones are 0 to 11, and are APPLIED."""
    assert tell(f"K{qty} #1").reject == (Reason.INVALID_QTY, Stage.VALIDATE, 11, qty)
    assert tell("K11 #1").last == (Status.APPLIED, 0, 0)


def test_the_touch_is_told_of_every_symbol_that_a_kill_changes():
    """One row of l1 per symbol, by name, under the kill's seq."""
    told = tell("NQ/B1 3@9 #1", "ES/B1 1@9 #1", "ZZ/K11")
    assert [(row[0], row[2], row[3]) for row in told.tables["l1"][2:]] == [(2, "ES", None), (2, "NQ", None)]


# -- marks: 1 is long 5 ES, bought at 10; each lot of a portfolio above 60 is refused

BOUGHT = ("0.3s ES/S1 5@10 #8", "ES/B2 5@10 #1", "ES/S3 1@20 #8", "ES/B4 1@20 #9")


def valued(*tokens: str, mark_interval: int = 10**9, **reference) -> int | None:
    """What 6 lots are worth by the portfolio value shown, in money."""
    later = Limits(by_account={1: {"max_portfolio_value": 0}})
    some = Limits(reference, changes=[(4, later)], mark_interval=mark_interval)
    reject = tell(*BOUGHT, *tokens, "ES/B99 1@1 #1", limits=some).reject
    return None if reject is None else reject[3] // 10**9


def test_a_symbol_is_marked_at_each_second():
    """The mark is the first fill, 10, until second 1 is reached; from then on the last price, 20."""
    assert valued("0.999s C9") == 60
    assert valued("1s C9") == 120
    assert valued("0.999s C9", "1.1s C9", "0.2s C9") == 120


def test_marks_come_at_multiples_of_the_interval_not_after_it():
    """Every 250 ms: at 0.5 s, not 0.25 s after the first row; the row itself is not yet in the mark."""
    quarter = 250_000_000
    assert valued("0.499s C9", mark_interval=quarter) == 60
    assert valued("0.5s C9", mark_interval=quarter) == 120
    later = ("ES/S5 1@30 #8", "0.5s ES/B6 1@30 #9")
    assert valued(*later, mark_interval=quarter) == 120
    assert valued(*later, "0.75s C9", mark_interval=quarter) == 180


def test_a_mark_may_be_the_middle_or_fixed():
    """Between 10 and 15 it is 12.5: 6 lots are 75; a fixed 7 is the mark from the start."""
    assert valued("ES/B5 1@10 #8", "ES/S6 1@15 #8", "1s C9", reference="mid") == 75
    assert valued("1s C9", reference="mid") == 120
    assert valued("0.9s C9", reference=money(7)) == 42


# -- the stop loss: 1 pays 100 of its 100 for 10 lots; at second 1 they are worth 90

LOSING = ("0s ES/S1 10@10 #2", "ES/B2 10@10 #1", "ES/S3 1@9 #2", "ES/B4 1@9 #3")


def stopped(*tokens: str, **more):
    account = {"capital": money(100), "stop_loss_percentage": percent(10)} | more
    return tell(*tokens, limits=Limits(by_account={1: account}))


def test_a_stop_strikes_at_a_marking_once():
    """It strikes at 90 = 100 - 10 %, shows both, names no symbol, and not again at 80."""
    story = (*LOSING, "1s ES/S5 1@8 #2", "ES/B6 1@8 #3", "2s C9")
    assert stopped(*story).strikes == [(4, None, 1, 90, 90)]
    later = stopped(*story, stop_loss_percentage=percent(10.0001))
    assert later.strikes == [(6, None, 1, Decimal("89.9999"), 80)]


def test_a_close_cancels_and_trades_what_the_book_takes():
    """1 is long 10 ES with an offer of 2 and a bid in NQ: both are cancelled, 4 are sold to the bid at 8."""
    story = (*LOSING, "ES/S5 2@12 #1", "NQ/B5 2@5 #1", "ES/B6 4@8 #3", "1s ES/B7 1@7 #4")
    told = stopped(*story, stop_loss_action="close")
    assert told.strikes == [(7, None, 1, 90, 90)]
    assert told.events[1:] == [
        (7, STOP_CANCEL, "ES", 1, 5, 2),
        (7, STOP_CLOSE, "ES", 1, None, 4),
        (7, STOP_CANCEL, "NQ", 1, 5, 2),
    ]
    assert told.fills[-1] == (7, 0, 6, 4, 8)
    assert told.tables["fills"][-1][6:] == (
        -1,
        0,
        6,
        1,
        3,
        6,
        0,
    )  # sells, order 0 and 6, 1 and 3, leaves 6 and 0
    assert told.book == ["ES/B7 1@7"]
    assert told.position(1, "ES") == 6
    assert told.last == (RESTING, 0, 1)


def test_a_close_is_tried_once_each_time_it_strikes():
    """With nothing to trade with, the event says 0; bids that come later are safe until it strikes again."""
    told = stopped(*LOSING, "1s ES/B5 9@9 #3", "2s ES/B6 9@9 #3", stop_loss_action="close")
    assert told.events == [(4, STOP_LOSS, None, 1, None, 0), (4, STOP_CLOSE, "ES", 1, None, 0)]


def test_a_stop_of_a_position_closes_that_position_only():
    """ES loses 10 of the 100 that each position has for itself, NQ nothing."""
    nq = ("0s NQ/S1 5@10 #2", "NQ/B2 5@10 #1", "NQ/B3 9@10 #3", "ES/B7 20@1 #4")
    told = stopped(*nq, *LOSING, "1s C9", stop_loss_action="close", stop_loss_scope="position")
    assert told.strikes == [(8, "ES", 1, 90, 90)]
    assert told.events[1:] == [(8, STOP_CLOSE, "ES", 1, None, 10)]
    assert (told.position(1, "ES"), told.position(1, "NQ")) == (0, 5)
    after = stopped(*nq, *LOSING, "1s C9", "NQ/B8 1@10 #1", stop_loss_scope="position")
    assert after.reject is None
    after = stopped(*nq, *LOSING, "1s C9", "ES/B8 1@1 #1", stop_loss_scope="position")
    assert after.reject == (Reason.STOP_LOSS, Stage.LIMITS, money(90), money(90))
    after = stopped(*nq, *LOSING, "1s C9", "K0 #1", "ES/B8 1@1 #1", stop_loss_scope="position")
    assert after.reject is None


@pytest.mark.parametrize("control", ["K0 #1", "K8"])
def test_active_lifts_a_stop_and_begins_a_new_peak(control):
    """From 90 on 10 % are 9: at 82 it holds, at 80 <= 81 it strikes."""
    lifted = (*LOSING, "1s C9", control, "ES/B5 1@8.2 #1")
    tick = {"limits": Limits(by_account={1: {"capital": money(100), "stop_loss_percentage": percent(10)}})}
    tick |= {"tick": "0.1"}
    assert tell(*lifted, **tick).reject is None
    story = (*lifted, "ES/C5", "ES/S6 1@8.2 #2", "ES/B7 1@8.2 #3", "2s ES/S8 1@8 #2", "ES/B9 1@8 #3")
    assert [strike[0] for strike in tell(*story, **tick).strikes] == [4]
    assert tell(*story, "3s C9", **tick).strikes[1:] == [(12, None, 1, 81, 80)]


def test_other_actives_lift_nothing():
    """ACTIVE for the symbol, or for another account, leaves the stop where it is."""
    for control in ("ES/K4 #1", "ES/K0 #2"):
        assert stopped(*LOSING, "1s C9", control, "ES/B5 1@8 #1").reject[0] is Reason.STOP_LOSS


def test_a_stop_needs_a_peak_above_zero():
    """Without a capital, equity is below 0 from the start and nothing strikes; after a profit it may."""
    assert stopped(*LOSING, "1s C9", capital=0).strikes == []
    rise = (*LOSING, "0s ES/S5 1@30 #2", "ES/B6 1@30 #3", "1s ES/S7 1@29 #2", "ES/B8 1@29 #3")
    assert stopped(*rise, "2s C9", capital=0).strikes == []  # 190 after 200: the stop is at 180
    more = ("ES/S9 1@28 #2", "ES/B10 1@28 #3", "2s C9")
    assert stopped(*rise, *more, capital=0).strikes == [(10, None, 1, 180, 180)]


def test_stops_are_judged_one_account_after_the_other():
    """1's close sells 10 to 2 at 5: only then 2's equity is taken, with 10 lots at 5, marked 9."""
    limits = Limits(
        by_account={
            1: {"capital": money(100), "stop_loss_percentage": percent(10), "stop_loss_action": "close"},
            2: {"capital": money(100), "stop_loss_percentage": percent(10)},
        }
    )
    fall = ("ES/S6 1@25 #3", "ES/B7 1@25 #4", "2s C9")
    told = tell(*LOSING, "ES/B5 10@5 #2", "1s C9", *fall, limits=limits)
    assert told.fills[2] == (5, 0, 5, 10, 5)
    # 2 sold 10 at 10 and 1 at 9, bought 10 at 5: 59 in cash, 1 short at 9 make a peak of 150
    assert told.strikes == [(5, None, 1, 90, 90), (8, None, 2, 135, 100 + 59 - 25)]
