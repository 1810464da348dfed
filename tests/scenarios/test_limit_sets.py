"""`risk` and `which_limit_first`: the numbers of single replays, refused volume, drawdown, first stops."""

import json
from fractions import Fraction

import polars as pl
import pyarrow as pa
import pytest

import hftlab
from hftlab import Limits
from hftlab.codes import PRICE_SCALE
from hftlab.scenarios.report import amount
from tests.helpers import risk_flows
from tests.reference.package import settings

SECOND = 10**9
TIGHT = Limits(
    max_order_qty=400,
    max_position_size=1500,
    max_orders_per_second=300,
    price_band_percentage=1,
    max_portfolio_value="90000",
    capital="20000",
    stop_loss_percentage=2,
    stop_loss_action="close",
    self_trade="decrement",
    taker_fee_bps=0.5,
)
COLUMNS = ("ts", "action", "symbol", "order_id", "side", "price", "qty", "account")


def flow(*rows):
    """An orders table of (second, action, symbol, id, side, price, qty, account); times and prices whole."""
    columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    columns["ts"] = pa.array([second * SECOND for second in columns["ts"]], pa.timestamp("ns", "UTC"))
    columns["price"] = pa.array([price * PRICE_SCALE for price in columns["price"]])
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def trades(*prices, qty=10, symbol="A"):
    """Account 1 buys once from 2, then 3 and 4 trade one lot at each further price."""
    rows, order_id = [], 1
    for second, price in enumerate(prices):
        seller, buyer, lots = (2, 1, qty) if second == 0 else (3, 4, 1)
        rows.append((second, "NEW", symbol, order_id, -1, price, lots, seller))
        rows.append((second, "NEW", symbol, order_id + 1, 1, price, lots, buyer))
        order_id += 2
    return rows


@pytest.fixture(scope="module")
def sample(request):
    return hftlab.open_flow(request.config.rootpath / "data" / "sample.parquet").table()


@pytest.fixture(scope="module")
def report(sample):
    return hftlab.risk(
        sample, {"tight": TIGHT, "fees": Limits(maker_fee_bps=1), "small": Limits(max_order_qty=100)}
    )


# -- what a set says


def test_numbers_are_those_of_single_replays(sample, report):
    """Counts, reasons, events, P&L and digest of each set are what `replay` with its limits gives."""
    for name, limits in (("none", None), ("tight", TIGHT), ("small", Limits(max_order_qty=100))):
        each, run = report[name], hftlab.replay(sample, limits=limits)
        summary = run.summary()
        for key in ("accepted", "rejected", "reasons", "fills", "filled_qty", "open_orders", "digest"):
            assert getattr(each, key) == summary[key], (name, key)
        assert (each.commands, each.events) == (summary["rows"], summary["gate_events"])
        closed = run.gate.filter(pl.col("event").cast(pl.String) == "STOP_CLOSE")["qty"].sum()
        assert each.closed_qty == closed
        held = run.positions.group_by("account").agg(
            (pl.col("realised_pnl") + pl.col("unrealised_pnl")).sum().alias("pnl"),
            (pl.col("bought_qty") + pl.col("sold_qty")).sum().alias("filled_qty"),
            pl.col("fees").sum(),
        )
        pnl = held["pnl"].to_list()
        assert each.gains == sum(value for value in pnl if value > 0) == -sum(v for v in pnl if v < 0)
        assert each.worst_pnl == min(pnl)
        assert each.worst_account in held.filter(pl.col("pnl") == min(pnl))["account"]
        assert each.fees == held["fees"].sum()
        names = ["account", "pnl", "filled_qty", "fees"]
        found = each.accounts.join(held.select(pl.col("account").cast(pl.Int64)), on="account")
        expected = held.with_columns(pl.col("account").cast(pl.Int64)).select(names).sort("account")
        assert found.select(names).sort("account").rows() == expected.rows()
    assert report["tight"].events.keys() >= {"STOP_LOSS", "STOP_CLOSE", "SELF_TRADE_DECREMENT"}
    assert report["tight"].fees > 0
    assert report["fees"].digest == report["none"].digest
    assert report["none"].fees == 0


def test_threads_change_nothing(sample, report):
    """One set after the other gives the same report."""

    def plain(report):
        apart = ("seconds", "threads")
        sets = [
            {key: value for key, value in each.items() if key not in apart}
            for each in report.to_dict()["sets"]
        ]
        return json.dumps(sets), report.table.rows(), report.accounts.rows(), report.first.rows()

    sets = {"tight": TIGHT, "fees": Limits(maker_fee_bps=1), "small": Limits(max_order_qty=100)}
    assert plain(hftlab.risk(sample, sets, threads=1)) == plain(report)


def test_refused_volume_is_that_of_the_orders(sample, report):
    """Orders, lots and notional by reason and by account, added up from the refused rows."""
    orders = pl.from_arrow(sample).with_row_index("seq").with_columns(pl.col("seq").cast(pl.Int64))
    rejects = hftlab.replay(sample, limits=TIGHT).rejects.select("seq", "stage", "reason")
    refused = rejects.filter(pl.col("stage").cast(pl.String).is_in(["KILL", "LIMITS", "SELF_TRADE"]))
    refused = refused.join(orders, on="seq").with_columns(pl.col("reason", "order_type").cast(pl.String))
    notional = (
        pl.when(pl.col("order_type") == "MARKET").then(0).otherwise(pl.col("price").abs() * pl.col("qty"))
    )
    totals = (pl.len().alias("orders"), pl.col("qty").sum(), notional.sum().alias("notional"))
    expected = {row["reason"]: row for row in refused.group_by("reason").agg(totals).to_dicts()}
    found = report["tight"].refused
    assert {reason: vars(part) | {"reason": reason} for reason, part in found.items()} == expected
    assert len(found) > 4
    by_account = refused.group_by(pl.col("account").cast(pl.Int64)).agg(pl.len(), pl.col("qty").sum())
    rows = report["tight"].accounts.filter(pl.col("refused") > 0).select("account", "refused", "refused_qty")
    assert rows.rows() == by_account.sort("account").rows()
    sent = orders.filter(pl.col("action").cast(pl.String).is_in(["NEW", "REPLACE"])).group_by("account").len()
    assert report["tight"].accounts["orders"].to_list() == sent.sort("account")["len"].to_list()
    total = report["tight"].total()
    row = report.table.row(by_predicate=pl.col("set") == "tight", named=True)
    assert (row["refused"], row["refused_qty"], row["refused_notional"]) == tuple(vars(total).values())
    long = report.rejects.filter((pl.col("set") == "tight") & pl.col("by_gate"))
    assert long["rejects"].sum() == total.orders
    assert report["tight"].rejected == report.rejects.filter(pl.col("set") == "tight")["rejects"].sum()


def test_market_orders_have_no_notional():
    """They have no price, whatever their row says."""
    table = flow((0, "NEW", "A", 1, 1, 7, 30, 1)).append_column("order_type", pa.array(["MARKET"]))
    (found,) = hftlab.risk(table, Limits(max_order_qty=20)).sets[1].refused.values()
    assert (found.orders, found.qty, found.notional) == (1, 30, 0)


# -- P&L over time


def slow_gains(fills):
    """P&L and largest drawdown of each account, everything marked anew after every fill."""
    cash, held, last, peak, fall = {}, {}, {}, {}, {}
    for fill in fills.to_dicts():
        symbol, price, signed = fill["symbol"], fill["price"], fill["qty"] * fill["aggressor_side"]
        last[symbol] = price
        for account, lots in ((fill["taker_account"], signed), (fill["maker_account"], -signed)):
            cash[account] = cash.get(account, 0) - lots * price
            held[account, symbol] = held.get((account, symbol), 0) + lots
        pnl = dict(cash)
        for (account, at), lots in held.items():
            pnl[account] += lots * last[at]
        for account, value in pnl.items():
            peak[account] = max(peak.get(account, 0), value)
            fall[account] = max(fall.get(account, 0), peak[account] - value)
    return {account: (pnl[account], fall[account]) for account in sorted(cash)}


@pytest.mark.parametrize("name", ["losers", "crowd", "around_zero", "owners"])
def test_drawdown_is_exact(name):
    """P&L and drawdown of each account equal those of a slow calculation, with and without a gate."""
    random = risk_flows.make(name, 1_200, 5)
    limits = Limits.from_table(risk_flows.limits_table(random.limits))
    table = random.orders.table()
    options = {"config": settings(random.orders.tick, random.orders.allow_nonpositive, 1)}
    for each, given in zip(hftlab.risk(table, limits, **options).sets, (None, limits), strict=True):
        expected = slow_gains(hftlab.replay(table, limits=given, **options).fills)
        found = each.accounts.filter(pl.col("account").is_in(list(expected)))
        assert {row[0]: row[1:] for row in found.select("account", "pnl", "drawdown").rows()} == expected
        assert each.drawdown == max((fall for _, fall in expected.values()), default=None)
        assert not expected or expected[each.drawdown_account][1] == each.drawdown


def test_drawdown_by_hand():
    """Ten lots bought at 100, then 104, 97, 110, 105: the deepest fall is from 104 to 97."""
    each = hftlab.risk(flow(*trades(100, 104, 97, 110, 105)), Limits()).sets[0]
    accounts = {row["account"]: row for row in each.accounts.to_dicts()}
    assert (accounts[1]["pnl"], accounts[1]["drawdown"]) == (50 * PRICE_SCALE, 70 * PRICE_SCALE)
    assert (accounts[2]["pnl"], accounts[2]["drawdown"]) == (-50 * PRICE_SCALE, 130 * PRICE_SCALE)
    assert (each.drawdown, each.drawdown_account) == (130 * PRICE_SCALE, 2)
    assert (each.worst_pnl, each.worst_account) == (-50 * PRICE_SCALE, 2)


def test_what_63_bits_can_t_hold_is_null():
    """Nothing wraps: P&L of 2^63 and more is null, and so are the largest of all accounts."""
    rows = trades(1, 1_000, qty=2**62)
    each = hftlab.risk(flow(*rows), Limits(max_order_qty=2**62 - 1)).sets[0]
    accounts = {row["account"]: row for row in each.accounts.to_dicts()}
    assert (accounts[1]["pnl"], accounts[1]["drawdown"]) == (None, None)
    assert accounts[4]["pnl"] == 0
    assert (each.gains, each.worst_pnl, each.drawdown, each.drawdown_account) == (None, None, None, None)
    refused = hftlab.risk(flow(*rows), Limits(max_order_qty=2**62 - 1))
    assert refused.sets[1].total().notional == 2 * 2**62 * PRICE_SCALE
    assert refused.table["refused_notional"].to_list() == [0, None]


def test_nobody_trades():
    """No worst account, no drawdown; an empty flow too."""
    for table in (flow((0, "NEW", "A", 1, 1, 7, 30, 1)), flow((0, "NEW", "A", 1, 1, 7, 30, 1)).slice(0, 0)):
        for each in hftlab.risk(table, Limits(max_order_qty=1)).sets:
            assert (each.worst_pnl, each.worst_account, each.drawdown, each.gains) == (None, None, None, 0)


# -- what sets may be


def test_names_of_sets(tmp_path):
    """Files give theirs, equal ones are counted, a mapping names them itself."""
    table = flow((0, "NEW", "A", 1, 1, 7, 30, 1))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.toml").write_text("[risk]\nmax_order_qty = 5\n")
    limits = [tmp_path / "a" / "x.toml", str(tmp_path / "b" / "x.toml"), Limits(), Limits()]
    report = hftlab.risk(table, limits)
    assert [each.name for each in report.sets] == ["none", "x", "x 2", "limits", "limits 2"]
    assert [each.total().orders for each in report.sets] == [0, 1, 1, 0, 0]
    assert [each.name for each in hftlab.risk(table, {"mine": limits[0]}).sets] == ["none", "mine"]
    assert repr(report) == "<RiskReport table: 1 commands under none, x, x 2, limits, limits 2>"


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ([], "found none, expected Limits"),
        (7, "found int, expected Limits"),
        ([7], "found int, expected Limits"),
        ({"none": Limits()}, "found a set named 'none'"),
        (Limits.from_table({"account": [None], "symbol": ["XYZ"], "max_order_qty": [5]}), "'XYZ'"),
    ],
)
def test_what_is_no_set_of_limits(limits, said):
    """One error, before anything is run."""
    done = []
    with pytest.raises(hftlab.UsageError, match=said):
        hftlab.risk(flow((0, "NEW", "A", 1, 1, 7, 30, 1)), limits, progress=done.append)
    assert done == []


def test_the_set_none_has_no_gate(monkeypatch):
    """Whatever the settings say; but what they say of fees holds in it."""
    monkeypatch.setenv("HFTLAB_RISK__MAX_ORDER_QTY", "1")
    monkeypatch.setenv("HFTLAB_TRADING__TAKER_FEE_PER_LOT", "0.5")
    none, own = hftlab.risk(flow(*trades(100)), Limits(max_order_qty=5)).sets
    assert (none.fills, none.fees) == (1, 5 * PRICE_SCALE)
    assert (own.fills, own.refused["MAX_ORDER_QTY"].orders) == (0, 2)


def test_stops_that_close_want_a_wide_tape(sample):
    """A table is compiled wide where a set needs it; of a narrow tape the error is that of `replay`."""
    tape = hftlab.compile_tape(sample)
    with pytest.raises(hftlab.UsageError, match="this tape is narrow"):
        hftlab.risk(tape, TIGHT)
    small = Limits(max_order_qty=100)
    assert hftlab.risk(tape, small)["limits"].digest == hftlab.risk(sample, small)["limits"].digest


def test_symbols_and_facts(tmp_path, sample):
    """Only some symbols, where rows keep their numbers; and facts, whose commands are inferred."""
    chosen = hftlab.risk(sample, TIGHT, symbols="SYM003")
    run = hftlab.replay(sample, limits=TIGHT, symbols="SYM003")
    assert chosen["limits"].digest == run.digest
    assert (
        sum(p.qty for p in chosen["limits"].refused.values())
        == chosen["limits"].accounts["refused_qty"].sum()
    )
    assert chosen.commands + chosen.skipped == pl.from_arrow(sample).height
    assert chosen.to_dict()["skipped"] == chosen.skipped > 0
    for each in chosen.sets:
        assert each.accepted + each.rejected == each.commands == chosen.commands
        assert sum(each.reasons.values()) == each.rejected
    path = tmp_path / "TEST_2024-01-02_34200000_57600000_message_5.csv"
    path.write_text("34200,1,11,100,1000000,1\n34200.5,4,11,40,1000000,1\n")
    assert hftlab.risk(path, Limits(max_order_qty=50))["limits"].refused["MAX_ORDER_QTY"].qty == 100


# -- the first stop


def test_which_limit_is_first():
    """Row, time, order, reason and values of the first refusal of the account; None where there is none."""
    table = flow(
        (1, "NEW", "A", 1, 1, 10, 30, 1),
        (2, "NEW", "B", 2, 1, 10, 60, 1),
        (3, "NEW", "A", 3, 1, 10, 40, 1),
        (4, "NEW", "A", 4, 1, 10, 9, 2),
    )
    limits = Limits(max_order_qty=50, max_long_position=60)
    stop = hftlab.which_limit_first(table, limits, account=1)
    assert (stop.seq, stop.ts, stop.symbol, stop.order_id) == (1, 2 * SECOND, "B", 2)
    assert (stop.stage, stop.reason, stop.limit_value, stop.observed_value) == (
        "LIMITS",
        "MAX_ORDER_QTY",
        50,
        60,
    )
    assert (stop.limit, stop.observed, stop.unit) == ("50 lots", "60 lots", "lots")
    assert str(stop) == (
        "row 1 at 00:00:02.000000000 UTC: order 2 refused, account 1 in B, MAX_ORDER_QTY: limit 50 lots, "
        "found 60 lots"
    )
    stop = hftlab.which_limit_first(table, limits, account=1, symbol="A")
    assert (stop.seq, stop.reason, stop.observed_value) == (2, "MAX_POSITION", 70)
    assert hftlab.which_limit_first(table, limits, account=2) is None
    frame = hftlab.which_limit_first(table, limits)
    assert frame.select("account", "seq", "reason", "limit", "observed").rows() == [
        (1, 1, "MAX_ORDER_QTY", "50 lots", "60 lots")
    ]
    assert hftlab.which_limit_first(table, Limits()).columns == frame.columns


def test_a_stop_loss_that_strikes_comes_first():
    """It stands at the row at which it struck, before what the same row refuses, and names no order."""
    table = flow(*trades(100, 80), (9, "NEW", "A", 99, 1, 80, 50, 1))
    limits = Limits(capital="1000", stop_loss_percentage=10, max_order_qty=40)
    stop = hftlab.which_limit_first(table, limits, account=1)
    assert (stop.seq, stop.symbol, stop.order_id, stop.reason) == (4, None, None, "STOP_LOSS")
    assert (stop.limit, stop.observed) == ("900.00", "800.00")
    assert "stop loss struck, account 1, STOP_LOSS: limit 900.00, found 800.00" in str(stop)
    assert hftlab.which_limit_first(table, limits, account=1, symbol="A") == stop


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"account": 9}, "account: found 9"), ({"symbol": "X"}, "symbol: found 'X'")],
)
def test_who_is_not_in_the_flow(asked, said):
    """It is said, rather than that nothing stopped him."""
    with pytest.raises(hftlab.UsageError, match=said):
        hftlab.which_limit_first(flow((0, "NEW", "A", 1, 1, 7, 30, 1)), Limits(), **asked)


def test_first_stops_of_all_accounts(sample, report):
    """The frame of all agrees with the question for one, and with the first row of rejects or strikes."""
    frame = hftlab.which_limit_first(sample, TIGHT)
    assert frame["seq"].is_sorted()
    assert frame.rows() == report["tight"].first.rows()
    for account in (0, 5, 40):
        stop = hftlab.which_limit_first(sample, TIGHT, account=account)
        assert stop == report["tight"].first_of(account)
        row = frame.row(by_predicate=pl.col("account") == account, named=True)
        assert {key: row[key] for key in ("seq", "reason", "limit", "observed")} == {
            key: getattr(stop, key) for key in ("seq", "reason", "limit", "observed")
        }


# -- how it looks


def test_notebooks_show_a_table():
    """With names as text, not as markup, and numbers with their thousands apart."""
    table = flow((0, "NEW", "A", 1, 1, 1_234, 30_000, 1))
    shown = hftlab.risk(table, {"<b>": Limits(max_order_qty=5)})._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert "30,000" in shown
    assert "37,020,000.00" in shown
    assert "MAX_ORDER_QTY" in shown


@pytest.mark.parametrize("units", [0, 1, -1, 10**9, -1_234_567_890_123, 2**63 - 1])
def test_amounts_lose_nothing(units):
    """At least two decimals, all that are needed."""
    assert Fraction(amount(units).replace(",", "")) * PRICE_SCALE == units
    assert len(amount(units).partition(".")[2]) >= 2
