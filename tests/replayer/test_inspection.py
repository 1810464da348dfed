"""What inspect counts doesn't depend on how the file was cut up, and is what the rows say."""

import weakref

import polars as pl
import pyarrow as pa
import pytest

import hftlab
from hftlab.errors import UsageError
from hftlab.feeds import Flow
from hftlab.replayer import inspection
from hftlab.replayer.plan import make_plan
from hftlab.replayer.replayer import replay_to
from tests.conftest import REPOSITORY
from tests.helpers.facts import mbo

SAMPLE = REPOSITORY / "data" / "sample.parquet"


@pytest.fixture(scope="module")
def whole():
    return inspection.inspect_flow(hftlab.open_flow(SAMPLE))


def test_chunks_change_nothing(whole, monkeypatch):
    """A flow read in chunks is described as the same flow read at once."""
    monkeypatch.setattr(inspection, "CHUNK_ROWS", 3_001)
    assert inspection.inspect_flow(hftlab.open_flow(SAMPLE)) == whole


@pytest.mark.parametrize("symbols", [None, "SYM003", "SYM001,SYM002"])
def test_every_row_is_counted_once(symbols):
    """By action, by instrument, by what became of it; with those of other symbols they are the file's."""
    flow = hftlab.open_flow(SAMPLE, symbols=symbols)
    found, run = inspection.inspect_flow(flow), hftlab.replay(flow).summary()
    refused = sum(trouble.rows for trouble in found.troubles if trouble.kind != "CROSSED")
    assert found.rows + found.skipped == run["rows"] + run["skipped"] == flow.num_rows
    assert found.rows == sum(found.actions.values()) == sum(one.rows for one in found.instruments)
    assert found.rows == found.accepted + found.rejected
    assert found.rejected == refused == run["rejected"] == sum(run["reasons"].values())
    assert run["accepted"] == sum(run["statuses"].values())


def test_instruments_are_what_the_rows_say(whole):
    """Rows, price range and largest quantity by symbol are those a query of the table gives."""
    table = pl.read_parquet(SAMPLE).with_columns(pl.col("symbol", "action", "order_type").cast(pl.String))
    priced = pl.col("action").is_in(["NEW", "REPLACE"]) & (pl.col("order_type") == "LIMIT")
    price = pl.col("price").filter(priced)
    expected = (
        table.group_by("symbol")
        .agg(pl.len().alias("rows"), price.min().alias("low"), price.max().alias("high"), pl.col("qty").max())
        .sort("rows", descending=True)
        .rows()
    )
    found = [(i.symbol, i.rows, i.lowest_price, i.highest_price, i.largest_qty) for i in whole.instruments]
    assert found == expected


SPREAD = [("A", 1, -17_500, 10, 1), ("A", -1, -17_000, 4, 2), ("A", -1, 0, 6, 3), ("M", 1, -17_250, 10, 1)]


def spread():
    """A calendar spread as its venue tells it: prices below zero and at zero, in 1e-3."""
    action, side, price, size, order_id = map(list, zip(*SPREAD, strict=True))
    columns = {
        "symbol": ["CLK4-CLM4"] * 4,
        "action": action,
        "side": side,
        "size": size,
        "order_id": order_id,
    }
    return pa.table(columns | {"price": [milli * 10**6 for milli in price], "ts_event": [1, 2, 3, 4]})


def test_a_venue_s_prices_may_have_any_sign(tmp_path):
    """What a venue took is never refused for its sign, nor are the commands inferred from it."""
    flow = Flow(SAMPLE, "mbo", "mbo", spread())
    assert inspection.inspect_flow(flow).rejected == 0
    assert hftlab.replay(flow, mode="rebuild").summary()["open_orders"] == 3
    assert hftlab.replay(flow).summary()["rejected"] == 0
    assert hftlab.certify(flow).commands_rejected == {}
    assert hftlab.verify(flow).ok


def test_commands_below_zero_need_a_setting(tmp_path):
    """A command at a price of 0 or less is refused, and the setting that allows it is named."""
    table = spread().rename_columns(["symbol", "action", "side", "qty", "order_id", "price", "ts"])
    table = table.set_column(1, "action", pa.array(["NEW"] * 3 + ["CANCEL"]))
    flow = Flow(SAMPLE, "orders", "orders", table)
    found = inspection.inspect_flow(flow)
    assert {trouble.kind: trouble.rows for trouble in found.troubles} == {
        "INVALID_PRICE": 3,
        "UNKNOWN_ORDER": 1,
    }
    setting = '[instruments."CLK4-CLM4"] allow_nonpositive_prices = true'
    assert found.notes == (
        f"prices of 0 or less, refused as INVALID_PRICE without {setting} (--config): CLK4-CLM4",
    )
    path = tmp_path / "neg.toml"
    path.write_text('[instruments."CLK4-CLM4"]\nallow_nonpositive_prices = true\n')
    found = inspection.inspect_flow(flow, config=hftlab.load_config(path))
    assert (found.rejected, found.notes) == (0, ())


def test_inspect_says_what_replay_says(tmp_path):
    """The instruments' settings of a configuration count: 5100.30 is off a tick of 0.25."""
    (path := tmp_path / "tick.toml").write_text('[instruments.ESH4]\ntick_size = "0.25"\n')
    columns = {"symbol": ["ESH4"] * 2, "action": ["A"] * 2, "side": [1, 1], "price": ["5100.25", "5100.30"]}
    table = pa.table(columns | {"size": [10, 10], "order_id": [1, 2], "ts_event": [1, 2]})
    flow, config = Flow(SAMPLE, "mbo", "mbo", table), hftlab.load_config(path)
    found = inspection.inspect_flow(flow, config=config)
    reasons = hftlab.replay(flow, mode="rebuild", config=config).summary()["reasons"]
    assert {trouble.kind: trouble.rows for trouble in found.troubles} == reasons == {"INVALID_PRICE": 1}
    assert inspection.inspect_flow(flow).rejected == 0


def test_times_out_of_order_are_counted_across_chunks(monkeypatch):
    """A row earlier than the one before is counted wherever the cut falls."""
    table = pl.read_parquet(SAMPLE).head(100)
    ts = table["ts"].to_list()
    ts[50], ts[51] = ts[51], ts[50]
    flow = hftlab.Flow(SAMPLE, "orders", "orders", table.with_columns(ts=pl.Series(ts)).to_arrow())
    for rows in (1_000, 51, 50, 7):
        monkeypatch.setattr(inspection, "CHUNK_ROWS", rows)
        assert inspection.inspect_flow(flow).rows_out_of_time_order == 1


@pytest.mark.parametrize("by_fills", [True, False])
def test_the_touch_at_the_end_is_the_last_l1_row(by_fills):
    """Best prices, lots and orders of an instrument at the end are those of its last top-of-book row."""
    run = hftlab.replay(SAMPLE, record=("fills", "l1"))
    columns = ["bid_px", "bid_sz", "bid_ct", "ask_px", "ask_sz", "ask_ct"]
    last = run.l1.with_columns(pl.col("symbol").cast(pl.String)).group_by("symbol").last().sort("symbol")
    shown = inspection.busiest(run, limit=100, by_fills=by_fills).sort("symbol")
    assert shown.select("symbol", *columns).rows() == last.select("symbol", *columns).rows()


@pytest.mark.parametrize("chunk_rows", [1, 2, 4, 5])
def test_anomalies_are_counted_by_kind_and_time(monkeypatch, chunk_rows):
    """Each kind has its first row, its first and last time, and its share of 16 spans of the file's time."""
    monkeypatch.setattr(inspection, "CHUNK_ROWS", chunk_rows)
    facts = ["A1 S 5@10 t0", "A2 B 5@11 t10", "C2 B 5@11 t470", "C9 B 1@9 t475", "A1 S 0@10 t479"]
    found = inspection.inspect_flow(hftlab.Flow(SAMPLE, "x", "mbo", mbo(*facts)))
    assert [(t.kind, t.rows, t.first_row, t.first_ts, t.last_ts) for t in found.troubles] == [
        ("CROSSED", 1, 1, 10, 10),
        ("INVALID_QTY", 1, 4, 479, 479),
        ("UNKNOWN_ORDER", 1, 3, 475, 475),
    ]
    assert found.troubles[0].by_time[0] == 1
    assert found.troubles[1].by_time[15] == 1
    assert all(sum(t.by_time) == t.rows and len(t.by_time) == 16 for t in found.troubles)


@pytest.mark.parametrize("chunk_rows", [None, 1, 2])
def test_one_kind_in_many_chunks(monkeypatch, chunk_rows):
    """Counts add up, the first is the first and the last the last, in whatever order times run."""
    monkeypatch.setattr(inspection, "CHUNK_ROWS", chunk_rows or 100)
    facts = ["A1 S 5@10 t30", "C9 B 1@9 t60", "C9 B 1@9 t20", "C9 B 1@9 t90", "C1 S 5@10 t100"]
    (trouble,) = inspection.inspect_flow(hftlab.Flow(SAMPLE, "x", "mbo", mbo(*facts))).troubles
    found = (trouble.kind, trouble.rows, trouble.first_row, trouble.first_ts, trouble.last_ts)
    assert found == ("UNKNOWN_ORDER", 3, 1, 20, 90)
    assert (trouble.by_time[0], trouble.by_time[6], trouble.by_time[11]) == (1, 1, 1)


def test_tables_are_given_away():
    """What a replay hands over piece by piece it doesn't keep, and the pieces are the table."""
    flow, rows, alive = hftlab.open_flow(SAMPLE), [], []

    def take(name, table):
        assert name == "outcomes"
        assert [reference() for reference in alive] == [None] * len(alive)
        rows.extend(table.to_pylist())
        alive.append(weakref.ref(table))

    plan = make_plan(record="outcomes", chunk_rows=3_001)
    result = replay_to(take, flow, plan)
    assert len(alive) == -(-flow.num_rows // 3_001)
    assert rows == hftlab.replay(flow, record="outcomes").to_arrow("outcomes").to_pylist()
    with pytest.raises(UsageError, match="was not recorded"):
        result.to_arrow("outcomes")


def test_an_instrument_without_a_price(tmp_path):
    """None of its orders has a limit: no range, no tick."""
    row = {"action": ["NEW"], "order_id": [1], "side": [1], "price": [0], "qty": [5]}
    table = pa.table(row | {"order_type": ["MARKET"]})
    (found,) = inspection.inspect_flow(Flow(tmp_path, "x", "orders", table)).instruments
    assert (found.lowest_price, found.highest_price, found.tick_size) == (None, None, None)


def test_a_book_is_crossed_only_at_the_end_of_an_event():
    """Inside an event it may be; a chunk boundary changes nothing."""
    facts = ["A1 S 5@10 last", "A2 B 5@11", "C1 S 5@10 last", "A3 S 1@11 last"]
    for rows in (None, 1, 2, 3):
        run = hftlab.replay(mbo(*facts), "rebuild", record=("anomalies",), chunk_rows=rows)
        assert run.anomalies.select("seq", pl.col("kind").cast(pl.String)).rows() == [(3, "CROSSED")]
