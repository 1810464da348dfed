"""OrderBook behind the risk gate, call by call: what it decides and tells is what the slow twin does."""

from __future__ import annotations

import copy
import re
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

import hftlab
from hftlab.codes import PRICE_SCALE, GateEvent, Reason, RiskState, Stage, Status
from hftlab.errors import LimitsError, UsageError
from tests.conftest import REPOSITORY
from tests.helpers import risk_flows
from tests.helpers.gated_package import limits_of
from tests.helpers.slices import fewer
from tests.reference import frames
from tests.reference.book import Command
from tests.reference.package import call

SECOND = 10**9
SIZE = fewer(3_000)
CASES = [(name, seed) for name in risk_flows.FLOWS for seed in range(3)]
TOLD = ("seq", "account", "event", "order_id", "qty", "limit_value", "observed_value")


class Caller:
    """Sends a flow to a book, a call for each row, and notes what comes back."""

    def __init__(self, flow: risk_flows.RiskFlow) -> None:
        orders = flow.orders
        tick = Decimal(orders.tick or 1) / PRICE_SCALE
        self.book = hftlab.OrderBook("?", tick, orders.allow_nonpositive, limits=limits_of(flow))
        self.outcomes, self.fills, self.rejects, self.events, self.l1 = [], [], [], [], []
        for seq, (ts, symbol, *command) in enumerate(orders.rows()):
            if seq == 0:
                self.book = hftlab.OrderBook(symbol, tick, orders.allow_nonpositive, limits=limits_of(flow))
            self.send(seq, ts, Command(*command))

    def send(self, seq: int, ts: int, command: Command) -> None:
        ack = call(self.book, command, ts)
        self.outcomes.append((seq, int(ack.status), ack.filled_qty, ack.leaves_qty))
        if ack.status is Status.REJECTED:
            self.rejects.append((seq, int(ack.stage), int(ack.reason), ack.limit_value, ack.observed_value))
        for told in self.book.gate_events():
            assert told.ts == ts
            self.events.append((seq, told.account, int(told.event), *told[3:7]))
            self._note_fills(seq, told.fills)
        self._note_fills(seq, ack.fills)
        touch = tuple(tuple(level or (None, 0, 0)) for level in (self.book.best_bid, self.book.best_ask))
        touch = (*touch[0], *touch[1])
        if touch != (self.l1[-1][1:] if self.l1 else (None, 0, 0, None, 0, 0)):
            self.l1.append((seq, *touch))

    def _note_fills(self, seq: int, fills: tuple) -> None:
        for fill in fills:
            ids = (fill.taker_order_id, fill.maker_order_id)
            accounts = (fill.taker_account, fill.maker_account)
            leaves = (fill.taker_leaves, fill.maker_leaves)
            self.fills.append((seq, fill.price, fill.qty, *ids, *accounts, *leaves))


def of_one_symbol(name: str, seed: int, size: int = SIZE) -> risk_flows.RiskFlow:
    """The rows of the flow's most frequent symbol."""
    flow = risk_flows.make(name, size, seed)
    symbols = flow.orders.columns["symbol"]
    return flow.take(np.flatnonzero(symbols == np.bincount(symbols).argmax()).tolist())


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_call_by_call_it_decides_as_the_twin_does(name, seed):
    """Outcomes, fills, rejects with limits and values, what the gate did, touch, book and positions."""
    flow = of_one_symbol(name, seed)
    venue = flow.venue()
    expected, called = frames.of_gated_venue(venue), Caller(flow)
    assert called.outcomes == expected["outcomes"].rows()
    quoted = ("seq", "stage", "reason", "limit_value", "observed_value")
    assert called.rejects == expected["rejects"].select(quoted).rows()
    assert called.events == expected["gate"].select(TOLD).rows()
    assert called.fills == [(r[0], *r[4:6], *r[7:]) for r in venue.fills]
    assert called.l1 == expected["l1"].drop("ts", "symbol").rows()
    book = frames.of_frame(called.book.orders(), frames.COLUMNS["book"])
    assert book.rows() == expected["book"].rows()
    for (account, symbol), cell in _cells(venue).items():
        assert symbol == called.book.symbol
        found = called.book.position(account)
        assert found[:4] == (cell.position, cell.open_buy, cell.open_sell, cell.open_orders), account
        assert found.open_notional in (None, cell.open_notional)


def _cells(venue) -> dict:
    return {
        (account, symbol): cell
        for account, cells in venue.gate.cells.items()
        for symbol, cell in cells.items()
    }


# -- stories


def gated(**limits) -> hftlab.OrderBook:
    return hftlab.OrderBook("X", "0.01", limits=limits)


def test_a_refusal_says_what_a_reject_row_says():
    """Stage, reason, limit and observed value; the book is as it was, and an accepted order says nothing."""
    book = gated(max_order_qty=100, max_position_size=150)
    ack = book.submit(1, "buy", "10", 101, account=7)
    assert (ack.status, ack.stage, ack.reason) == (Status.REJECTED, Stage.LIMITS, Reason.MAX_ORDER_QTY)
    assert (ack.limit_value, ack.observed_value) == (100, 101)
    ack = book.submit(1, "buy", "10", 100, account=7)
    assert (ack.stage, ack.limit_value, ack.observed_value) == (None, None, None)
    ack = book.submit(2, "buy", "9", 51, account=7)
    assert ack[4:] == (Reason.MAX_POSITION, 150, 151)
    assert book.submit(2, "buy", "9", 51, account=8).reason is Reason.NONE
    assert [order[:2] for order in book.orders().select("order_id", "account").rows()] == [(1, 7), (2, 8)]


def test_without_limits_the_ack_says_the_stage_and_no_values():
    """A duplicate is found before any gate, a post-only order that would cross after it."""
    book = hftlab.OrderBook(tick_size="0.01")
    book.submit(1, "sell", "10", 5, account=3, ts=7)
    assert book.submit(1, "sell", "10", 5).stage == Stage.VALIDATE
    ack = book.submit(2, "buy", "10", 5, post_only=True)
    assert (ack.stage, ack.limit_value, ack.observed_value) == (Stage.MATCH, None, None)


def test_positions_follow_the_fills_and_open_orders():
    """7 buys 3 of 8's 5 and bids for 4 more; 9 has never been seen."""
    book = gated(max_open_notional="1000000")
    book.submit(1, "sell", "10", 5, account=8)
    book.submit(2, "buy", "10", 3, account=7)
    book.submit(3, "buy", "9", 4, account=7)
    assert book.position(7) == (3, 4, 0, 1, 36 * SECOND, RiskState.ACTIVE, False)
    assert book.position(8) == (-3, 0, 2, 1, 20 * SECOND, RiskState.ACTIVE, False)
    assert book.position(9) == (0, 0, 0, 0, 0, RiskState.ACTIVE, False)
    assert gated().position(9).open_notional is None


def test_states_are_set_by_control():
    """HALTED lets cancels pass; a kill cancels what is open, and says so once."""
    book = gated()
    book.submit(1, "buy", "10", 5, account=7)
    book.submit(2, "buy", "10", 6, account=8)
    assert book.control("ACCOUNT_HALTED", account=7).status is Status.APPLIED
    assert book.position(7).state is RiskState.HALTED
    ack = book.submit(3, "buy", "10", 5, account=7)
    assert (ack.reason, ack.stage, ack.limit_value) == (Reason.KILL_SWITCH, Stage.KILL, None)
    assert book.reduce(1, 2, account=7).leaves_qty == 3
    assert book.gate_events() == []
    assert book.control(hftlab.RiskControl.SYMBOL_KILLED, ts=5).status is Status.APPLIED
    told = book.gate_events()
    assert [(t.ts, t.account, t.event, t.order_id, t.qty) for t in told] == [
        (5, 7, GateEvent.KILL_CANCEL, 1, 3),
        (5, 8, GateEvent.KILL_CANCEL, 2, 6),
    ]
    assert book.gate_events() == []
    assert len(book) == 0
    assert book.position(9).state is RiskState.HALTED
    assert book.control(99).reason is Reason.INVALID_QTY


def test_a_stop_that_closes_trades_before_the_command():
    """7 paid 10 each for 10 lots of a capital of 100; marked at 9 its stop strikes: it sells to 6's bid."""
    book = gated(capital="100", stop_loss_percentage=10, stop_loss_action="close")
    book.submit(1, "sell", "10", 10, account=8, ts=0)
    book.submit(2, "buy", "10", 10, account=7, ts=1)
    book.submit(3, "sell", "9", 1, account=8, ts=2)
    book.submit(4, "buy", "9", 1, account=9, ts=3)
    book.submit(5, "buy", "8", 4, account=6, ts=4)
    assert book.submit(6, "sell", "8", 5, account=9, ts=SECOND).filled_qty == 0  # the bid is gone
    struck, closed = book.gate_events()
    assert struck[1:7] == (7, GateEvent.STOP_LOSS, None, 0, 90 * SECOND, 90 * SECOND)
    assert closed[1:7] == (7, GateEvent.STOP_CLOSE, None, 4, None, None)
    assert [(fill.maker_order_id, fill.qty, fill.taker_account) for fill in closed.fills] == [(5, 4, 7)]
    assert book.position(7)[:1] == (6,)
    assert book.position(7).stopped
    assert book.submit(7, "buy", "8", 1, account=7, ts=SECOND).reason is Reason.STOP_LOSS
    book.control("ACCOUNT_ACTIVE", account=7, ts=SECOND)
    assert book.submit(7, "buy", "7", 1, account=7, ts=SECOND).reason is Reason.NONE


def test_cancels_are_messages_of_their_sender():
    """Three in a second may be sent: the cancel passes as the third, the order after it is the fourth."""
    book = gated(max_orders_per_second=3)
    book.submit(1, "buy", "10", 1, account=7, ts=0)
    book.replace(1, "10", 2, account=7, ts=1)
    assert book.cancel(1, account=7, ts=2).status is Status.CANCELLED
    ack = book.submit(2, "buy", "10", 1, account=7, ts=SECOND - 1)
    assert ack[4:] == (Reason.RATE_LIMIT, 3, 4)
    assert book.submit(2, "buy", "10", 1, account=8, ts=3).reason is Reason.NONE
    assert book.submit(3, "buy", "10", 1, account=7, ts=SECOND + 2).reason is Reason.NONE


def test_without_a_time_it_is_now():
    """Two orders at once are too many, and what the gate does has a time of today."""
    book = gated(max_orders_per_second=1, self_trade="cancel_oldest")
    book.submit(1, "buy", "10", 1)
    assert book.submit(2, "buy", "10", 1).reason is Reason.RATE_LIMIT
    book.control("ALL_KILLED")
    assert book.gate_events()[0].ts > 1_700_000_000 * SECOND


def test_limits_change_before_a_command():
    """From the third command on (0-based 2) an order may have 5 lots."""
    rows = {"from_row": [0, 2], "max_order_qty": [10, 5]}
    book = hftlab.OrderBook("X", "0.01", limits=hftlab.Limits.from_table(rows))
    assert [book.submit(i, "buy", "1", 10).status for i in range(3)] == ["RESTING", "RESTING", "REJECTED"]


def test_limits_come_from_a_file_too(tmp_path):
    """What is said of other symbols than the book's does no harm."""
    path = tmp_path / "limits.toml"
    path.write_text("[risk]\nmax_order_qty = 5\n[risk.symbols.Y]\nmax_order_qty = 1\n")
    assert hftlab.OrderBook("X", limits=path).submit(1, "buy", "1", 6).limit_value == 5
    assert hftlab.OrderBook("Y", limits=str(path)).submit(1, "buy", "1", 6).limit_value == 1


def test_everything_grows_on_the_way():
    """Accounts, orders, prices, messages and repeated orders, all beyond the room they begin with."""
    count = fewer(5_000, plain=16)
    book = gated(max_orders_per_second=10 * count, max_repeated_orders=2, max_open_orders=3, capital="1")
    for i in range(count):
        price = (1 + i * 97 % count) * 10_000_000
        assert book.submit(i, "buy", price, 1 + i, account=i % 1_500 - 700, ts=0).reason in (
            Reason.NONE,
            Reason.MAX_OPEN_ORDERS,
        )
    by_account = book.orders().group_by("account").agg(pl.len().alias("orders"), pl.col("qty").sum())
    for account, orders, qty in by_account.rows():
        assert book.position(account)[:4] == (0, qty, 0, orders)
    sent = [book.submit(count + i, "sell", "1000000", 1, account=900, ts=1).reason for i in range(4)]
    assert sent == [Reason.NONE, Reason.NONE, Reason.REPEATED_ORDER, Reason.REPEATED_ORDER]
    book.control("ALL_KILLED", ts=2)
    assert len(book) == 0
    assert len(book.gate_events()) == by_account["orders"].sum() + 2


def test_the_rate_counts_more_messages_than_it_has_room_for():
    """What is observed is the number of all messages of the second, refused ones included."""
    count = fewer(3_000, plain=30)
    book = gated(max_orders_per_second=5)
    acks = [book.submit(i, "buy", "1", 1, account=i % 2, ts=i) for i in range(count)]
    assert acks[-1].observed_value == count // 2
    assert book.submit(count, "buy", "1", 1, ts=SECOND + count // 2).observed_value == count // 4


# -- copies and errors


@pytest.mark.parametrize("twin_of", [hftlab.OrderBook.copy, copy.copy, copy.deepcopy])
def test_a_copy_has_a_gate_of_its_own(twin_of):
    """It has the same positions, states and open orders; what happens to it stays there."""
    book = gated(max_position_size=10, max_orders_per_second=4)
    book.submit(1, "sell", "10", 5, account=8, ts=0)
    book.submit(2, "buy", "10", 3, account=7, ts=0)
    twin = twin_of(book)
    assert twin.position(7) == book.position(7)
    assert twin.submit(3, "buy", "10", 2, account=7, ts=0).filled_qty == 2
    assert twin.submit(4, "buy", "9", 6, account=7, ts=0)[4:] == (Reason.MAX_POSITION, 10, 11)
    assert twin.submit(4, "buy", "9", 4, account=7, ts=0).reason is Reason.NONE
    assert twin.submit(5, "buy", "9", 1, account=7, ts=0).reason is Reason.RATE_LIMIT
    assert book.position(7)[:4] == (3, 0, 0, 0)
    assert book.submit(4, "buy", "9", 7, account=7, ts=0).reason is Reason.NONE


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hftlab.OrderBook().position(7), "position: found a book without a risk gate"),
        (lambda: hftlab.OrderBook().control("ALL_HALTED"), "control: found a book without a risk gate"),
        (lambda: hftlab.OrderBook().gate_events(), "gate_events: found a book without a risk gate"),
        (lambda: hftlab.OrderBook(limits=5), "limits: found int, expected Limits, a file of them, or a dict"),
        (lambda: hftlab.OrderBook(limits={1: 2}), "limits: found dict"),
        (lambda: gated().control("ACCOUNT_STOPPED"), "state: found 'ACCOUNT_STOPPED', expected one of"),
        (lambda: gated().submit(1, "buy", "1", 1, ts=1.5), "ts: found 1.5, expected an integer"),
        (lambda: gated().submit(1, "buy", "1", 1, ts=2**63), "ts: found 9223372036854775808"),
        (lambda: gated().cancel(1, ts="now"), "ts: found 'now'"),
        (lambda: gated().cancel(1, account=2**31), "account: found 2147483648"),
        (lambda: gated().submit(1, "buy", "1", 1, account=2**31), "account: found 2147483648"),
    ],
)
def test_a_wrong_call_is_a_usage_error(call, message):
    """It says what was found and what was expected."""
    with pytest.raises(UsageError, match=message):
        call()


def test_wrong_limits_are_a_limits_error():
    """The same as anywhere."""
    with pytest.raises(LimitsError, match="max_order_qty"):
        gated(max_order_qty=-1)


def test_a_snapshot_does_not_lose_a_gate_in_silence():
    """A snapshot holds orders only, so that of a book with a gate is refused."""
    with pytest.raises(UsageError, match="risk gate"):
        gated().snapshot()


# -- the page and the proof


def test_the_example_prints_what_is_shown(capsys):
    """The Python of "Event by event" in docs/RISK.md prints the text below it."""
    page = (REPOSITORY / "docs" / "RISK.md").read_text(encoding="utf-8")
    section = page.partition("## Event by event\n")[2].partition("\n## ")[0]
    program, shown = re.findall(r"^```(?:python|text)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    exec(program, {})
    assert capsys.readouterr().out == shown


CALLS = "the same through OrderBook calls"


@pytest.mark.parametrize(("name", "one_book"), [("owners", True), ("piles", True), ("busy", False)])
def test_every_way_behind_a_gate_has_one_digest(name, one_book):
    """Through OrderBook calls too, where a flow has one symbol; a book has a gate of its own."""
    flow = of_one_symbol(name, 1) if one_book else risk_flows.make(name, SIZE, 1)
    table, tick = flow.orders.table(), Decimal(flow.orders.tick) / PRICE_SCALE
    if one_book:
        table = table.set_column(1, "symbol", table["symbol"].cast("string"))
    proof = hftlab.verify(table, limits=limits_of(flow), tick_size=tick)
    assert proof.ok
    assert (proof.rows[-1].name == CALLS) == one_book


def test_verify_sees_a_gate_that_decides_otherwise(monkeypatch):
    """An OrderBook that is told other times differs."""
    flow = of_one_symbol("owners", 1)
    limits = hftlab.Limits(max_orders_per_second=3)
    table, tick = flow.orders.table(), Decimal(flow.orders.tick) / PRICE_SCALE
    cancel = hftlab.OrderBook.cancel
    monkeypatch.setattr(
        hftlab.OrderBook, "cancel", lambda book, order_id, _, ts: cancel(book, order_id, 99, ts)
    )
    proof = hftlab.verify(table, limits=limits, tick_size=tick)
    assert [row.name for row in proof.rows if not row.equal] == [CALLS]
