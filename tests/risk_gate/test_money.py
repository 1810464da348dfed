"""Lots that are a part of what prices are for, and contracts with a multiplier: money by hand."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

import hftlab
from hftlab.codes import Reason, Status
from hftlab.config.settings import load_config
from hftlab.errors import UsageError
from hftlab.feeds import open_flow

SATOSHI = "1e-8"
BITCOIN = 10**8  # lots
PRICE = 10**9
LARGEST = 2**63 - 1


def money(amount) -> int:
    """Money, or a price, in 1e-9."""
    return int(Decimal(str(amount)) * PRICE)


def orders(*rows) -> dict[str, list]:
    """(seconds, symbol, account, side, price, lots) of NEW orders as a table."""
    names = "ts", "symbol", "account", "side", "price", "qty"
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    columns["ts"] = [int(second * 10**9) for second in columns["ts"]]
    columns["price"] = [money(price) for price in columns["price"]]
    return {"action": ["NEW"] * len(rows), "order_id": list(range(1, len(rows) + 1)), **columns}


def instruments(text: str, tmp_path):
    """Settings of that text."""
    path = tmp_path / "instruments.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, {})


# -- what was not asked for


@pytest.mark.parametrize("lot_size", [1, SATOSHI])
def test_a_limit_on_open_orders_alone_refuses_nothing_for_money(lot_size):
    """0.00154 BTC at 60,000 is 154,000 satoshi, whose price x lots passes 2^63."""
    book = hftlab.OrderBook(symbol="BTCUSD", limits={"max_open_orders": 10**6}, lot_size=lot_size)
    assert book.submit(1, "buy", "60000", 154_000, account=7).status is Status.RESTING
    assert book.submit(2, "sell", "60000", 100 * BITCOIN, account=8).filled_qty == 154_000


@pytest.mark.parametrize("path", ["batch", "event"])
def test_no_limit_on_money_refuses_the_largest_order(path):
    """Neither notional, open notional nor portfolio value, where only another account has such limits."""
    keys = ("max_order_notional", "max_open_notional", "max_portfolio_value")
    limits = hftlab.Limits.from_table({"account": [1]} | {key: [Decimal(1)] for key in keys})
    rows = [(0, "A", 7, 1, "9000000000", LARGEST), (1, "A", 8, -1, "9000000000", LARGEST)]
    run = hftlab.replay(orders(*rows), path=path, limits=limits)
    assert run.rejects.is_empty()
    assert run.fills["qty"].to_list() == [LARGEST]


def test_the_largest_integer_is_no_limit():
    """A limit on money of 2^63-1 (1e-9) refuses nothing; one less does."""
    for limit, status in ((LARGEST, Status.RESTING), (LARGEST - 1, Status.REJECTED)):
        book = hftlab.OrderBook(limits={"max_order_notional": limit})
        assert book.submit(1, "buy", "60000", 154_000).status is status


# -- bitcoin


def test_a_limit_on_notional_is_true_money():
    """100 at 60,000 are 0.001666 BTC: 166,666 satoshi pass, one more is refused above the limit."""
    book = hftlab.OrderBook(symbol="BTCUSD", limits={"max_order_notional": "100"}, lot_size=SATOSHI)
    assert book.submit(1, "buy", "60000", 166_666).status is Status.RESTING
    ack = book.submit(2, "buy", "60000", 166_667)
    assert (ack.reason, ack.limit_value, ack.observed_value) == (
        Reason.MAX_NOTIONAL,
        money(100),
        money("100.0002"),
    )


def test_what_is_refused_is_shown_above_its_limit():
    """A third of 1e-9 above the limit is shown as 1e-9 above: the observed value is rounded up."""
    book = hftlab.OrderBook(tick_size="1e-9", limits={"max_order_notional": 1}, lot_size="0.001")
    assert book.submit(1, "buy", 1000, 1).status is Status.RESTING
    ack = book.submit(2, "buy", 1001, 1)
    assert (ack.limit_value, ack.observed_value) == (1, 2)


def test_open_notional_is_true_money():
    """1 BTC at 60,000 rests; a second passes 100,000, until half of the first is cancelled."""
    limits = {"max_open_notional": "100000"}
    book = hftlab.OrderBook(symbol="BTCUSD", limits=limits, lot_size=SATOSHI)
    book.submit(1, "buy", "60000", BITCOIN, account=7)
    assert book.position(7).open_notional == money(60_000)
    ack = book.submit(2, "buy", "60000", BITCOIN, account=7)
    assert (ack.reason, ack.observed_value) == (Reason.MAX_OPEN_NOTIONAL, money(120_000))
    book.reduce(1, BITCOIN // 2, account=7)
    assert book.submit(3, "buy", "60000", BITCOIN, account=7).status is Status.RESTING
    assert book.position(7).open_notional == money(90_000)


def test_a_limit_on_quantity_stays_in_lots():
    """`max_order_qty` counts satoshi."""
    book = hftlab.OrderBook(symbol="BTCUSD", limits={"max_order_qty": 1000}, lot_size=SATOSHI)
    assert book.submit(1, "buy", "60000", 1000).status is Status.RESTING
    assert book.submit(2, "buy", "60000", 1001).reason is Reason.MAX_ORDER_QTY


def test_a_book_keeps_what_its_lots_are_worth():
    """A copy of it, and what a snapshot restores."""
    book = hftlab.OrderBook("X", lot_size=SATOSHI, multiplier="2.5", limits={"max_order_notional": "1"})
    for _ in range(2):
        book = book.copy()
    assert book.submit(1, "buy", "1", 40_000_001).observed_value == money("1.000000025")
    plain = hftlab.OrderBook("X", lot_size=SATOSHI, multiplier="2.5")
    kept = hftlab.OrderBook.restore(plain.snapshot())
    assert (Decimal(kept.lot_size), Decimal(kept.multiplier)) == (Decimal(SATOSHI), Decimal("2.5"))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"lot_size": 0}, "lot_size: found 0, expected a positive decimal"),
        ({"lot_size": "1e-10"}, "lot_size: found '1e-10', expected a positive decimal"),
        ({"lot_size": "nan"}, "lot_size: found 'nan', expected a positive decimal"),
        ({"multiplier": -50}, "multiplier: found -50, expected a positive decimal"),
        ({"multiplier": True}, "multiplier: found True, expected a positive decimal"),
        ({"lot_size": "1e-9", "multiplier": "0.1"}, "expected a product of at most nine decimals"),
    ],
)
def test_a_wrong_lot_is_named(arguments, problem):
    """Zero, negative, more than nine decimals, no number."""
    with pytest.raises(UsageError, match=problem):
        hftlab.OrderBook(**arguments)


# -- futures

ES = '[instruments.ES]\ntick_size = "0.25"\nmultiplier = 50\n'


@pytest.mark.parametrize("path", ["batch", "event"])
def test_a_point_of_a_future_is_worth_its_multiplier(path, tmp_path):
    """Account 7 buys 2 at 5,000.25 and sells 1 at 5,003.50: 3.25 points x 50 = 162.50, as much unrealised."""
    table = orders(
        (0, "ES", 8, -1, "5000.25", 2),
        (1, "ES", 7, 1, "5000.25", 2),
        (2, "ES", 8, 1, "5003.5", 3),
        (3, "ES", 7, -1, "5003.5", 1),
    )
    limits = hftlab.Limits(taker_fee_bps=1, maker_fee_per_lot="0.5")
    config = instruments(ES, tmp_path)
    names = ("positions", "pnl", "fills")
    run = hftlab.replay(table, path=path, config=config, limits=limits, record=names)
    (seven,) = run.positions.filter(run.positions["account"] == 7).rows(named=True)
    assert (seven["position"], seven["avg_price"]) == (1, money("5000.25"))
    assert (seven["realised_pnl"], seven["unrealised_pnl"]) == (money("162.5"), money("162.5"))
    assert seven["cost"] == money(5000.25 * 50)
    assert (seven["bought_notional"], seven["sold_notional"]) == (money("500025"), money("250175"))
    assert seven["fees"] == money("50.0025") + money("25.0175")  # 1 bp of what it took, both times
    (eight,) = run.positions.filter(run.positions["account"] == 8).rows(named=True)
    assert eight["fees"] == 3 * money("0.5")
    assert eight["open_notional"] == money(2 * 5003.5 * 50)
    assert run.pnl["realised_pnl"].to_list()[-2:] == [money("162.5"), money("-162.5")]


@pytest.mark.parametrize("path", ["batch", "event"])
def test_a_stop_loss_looks_at_true_money(path, tmp_path):
    """2 bought at 5,000 lose 11 points x 50 x 2 = 1,100 of 10,000: beyond 10 %, though 22 points are not."""
    table = orders(
        (0, "ES", 8, -1, "5000", 2),
        (0, "ES", 7, 1, "5000", 2),
        (0.5, "ES", 8, -1, "4989", 1),
        (0.5, "ES", 9, 1, "4989", 1),
        (2, "ES", 7, 1, "4980", 1),
    )
    limits = hftlab.Limits(stop_loss_percentage=10, capital="10000")
    run = hftlab.replay(table, path=path, config=instruments(ES, tmp_path), limits=limits, record=["rejects"])
    (reject,) = run.rejects.rows(named=True)
    assert (reject["reason"], reject["limit_value"], reject["observed_value"]) == (
        "STOP_LOSS",
        money(9000),
        money(8900),
    )
    assert hftlab.replay(table, path=path, limits=limits).rejects.is_empty()


@pytest.mark.parametrize("path", ["batch", "event"])
def test_a_portfolio_adds_up_what_different_lots_are_worth(path, tmp_path):
    """1 BTC at 60,000 and 1 ES at 5,000 x 50 are 310,000; one more ES is refused at 560,000."""
    config = instruments(ES + '[instruments.BTCUSD]\nlot_size = "1e-8"\n', tmp_path)
    table = orders(
        (0, "BTCUSD", 8, -1, "60000", 2 * BITCOIN),
        (0, "ES", 8, -1, "5000", 5),
        (0, "BTCUSD", 7, 1, "60000", BITCOIN),
        (0, "ES", 7, 1, "5000", 1),
        (0, "ES", 7, 1, "5000", 1),
        (0, "BTCUSD", 7, 1, "60000", BITCOIN),
    )
    limits = hftlab.Limits.from_table({"account": [7], "max_portfolio_value": [Decimal(370_000)]})
    run = hftlab.replay(table, path=path, config=config, limits=limits, record=["rejects"])
    (reject,) = run.rejects.rows(named=True)
    assert (reject["seq"], reject["limit_value"], reject["observed_value"]) == (
        4,
        money(370_000),
        money(560_000),
    )


def test_sets_of_limits_are_compared_in_true_money(tmp_path):
    """What `risk` reports as refused, gained and lost: 3.25 points of ES are 162.50, in one set and none."""
    table = orders(
        (0, "ES", 8, -1, "5000.25", 1),
        (1, "ES", 7, 1, "5000.25", 1),
        (2, "ES", 9, -1, "5003.5", 1),
        (3, "ES", 9, 1, "5003.5", 1),
        (4, "ES", 9, -1, "4000", 2),
        (5, "ES", 7, 1, "4000", 1),
    )
    limits = hftlab.Limits.from_table({"account": [7], "max_open_orders": [5], "max_position_size": [1]})
    report = hftlab.risk(table, limits, config=instruments(ES, tmp_path))
    free, limited = report.sets
    assert limited.total().notional == money(4000 * 50)
    assert (free.worst_pnl, free.worst_account) == (money(-1000.25 * 50), 7)
    assert (limited.worst_pnl, limited.drawdown) == (money("-162.5"), money("162.5"))


# -- feeds


def test_the_lot_of_a_feed_is_used_unless_settings_give_one(tmp_path):
    """A generic file of coins with `qty_scale` 1e8 has lots of 1e-8; settings may say otherwise."""
    path = tmp_path / "coins.csv"
    rows = ["t,id,side,price,qty", "1,1,sell,60000.0,0.5", "2,2,buy,60000.0,0.5"]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    names = {"ts": "t", "order_id": "id"}
    flow = open_flow(
        path, format="generic", columns=names, constants={"action": "NEW"}, qty_scale=BITCOIN, time_unit="s"
    )
    assert flow.lot_size == Decimal(SATOSHI)
    run = hftlab.replay(flow, record=["positions"])
    assert run.positions["bought_notional"].to_list() == [money(30_000)]
    assert run.manifest()["config"]["instruments"]["default"]["lot_size"] == 10
    config = instruments('[instruments.default]\nlot_size = "2e-8"\n', tmp_path)
    run = hftlab.replay(flow, record=["positions"], config=config)
    assert run.positions["bought_notional"].to_list() == [money(60_000)]


def test_a_bitstamp_day_meets_no_limit_that_nobody_gave(data_dir):
    """With only `max_open_orders` set, what is refused is not refused for money, and fees are true money."""
    flow = open_flow(next(iter(sorted((data_dir / "bitstamp").glob("*.csv*")))))
    assert flow.lot_size == Decimal(SATOSHI)
    commands = hftlab.infer_orders(flow)
    price, qty = (commands.column(name).to_numpy().astype(float) for name in ("price", "qty"))
    assert np.count_nonzero(price * qty > 2.0**63) > 1000
    run = hftlab.replay(flow, limits={"max_open_orders": 10**6}, record=["rejects", "positions", "fills"])
    free = hftlab.replay(flow, record=["rejects", "fills"])
    assert run.digest == free.digest
    assert run.rejects.height == free.rejects.height
    traded = run.fills.select((run.fills["price"].cast(float) * run.fills["qty"]).alias("money")).sum().item()
    assert run.positions["bought_notional"].sum() == pytest.approx(traded / 1e8, rel=1e-9)
