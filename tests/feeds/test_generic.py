"""Any table by a mapping: every option, exact values, every mistake named, recognition by our own names."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from decimal import Decimal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab
from hftlab.cli import app
from hftlab.codes import NOT_A_VALUE
from hftlab.errors import FormatError, HftlabError, UsageError
from hftlab.feeds import open_flow
from hftlab.feeds.parsing import table_files
from hftlab.schema import MBO, ORDERS
from hftlab.tape.tables import read_orders
from tests.helpers.damage import damaged

OWN = "ts,action,order_id,side,price,qty"
ORDERS_ROWS = ["1706693400000000000,NEW,1,BUY,100.5,10", "1706693400000000001,NEW,2,SELL,100.75,5"]
MAPPED = {"ts": "time", "action": "what", "order_id": "id", "side": "bs", "price": "px", "qty": "n"}
HEADER = "time,what,id,bs,px,n"
GOOD = "1706693400000000000,NEW,1,BUY,100.5,10"


def write(folder, *lines, name="flow.csv"):
    (path := folder / name).write_text("".join(f"{line}\n" for line in lines))
    return path


def opened(path, **options):
    return open_flow(path, format="generic", **({"columns": MAPPED} | options))


def column(flow, name):
    values = flow.table()[name]
    if pa.types.is_timestamp(values.type):
        return values.cast(pa.int64()).to_pylist()
    return (
        values.cast(values.type.value_type).to_pylist()
        if pa.types.is_dictionary(values.type)
        else values.to_pylist()
    )


def one(folder, place, text, **options):
    """What becomes of one cell, in a row that is good otherwise, with another good one before."""
    cells = GOOD.split(",")
    cells[HEADER.split(",").index(MAPPED[place])] = f'"{text}"'
    return column(opened(write(folder, HEADER, GOOD, ",".join(cells)), **options), place)[1]


def alone(folder, place, text, **options):
    """The same without a row before."""
    cells = GOOD.split(",")
    cells[HEADER.split(",").index(MAPPED[place])] = f'"{text}"'
    return column(opened(write(folder, HEADER, ",".join(cells)), **options), place)[0]


def said(error, work, *arguments, **options):
    """What an error says, in one line."""
    with pytest.raises(error) as caught:
        work(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------ mapping


def test_a_mapping(tmp_path):
    """Their columns by their names become an orders table; what is not named is not used, and noted."""
    path = write(
        tmp_path, HEADER + ",venue,sym", GOOD + ",X,AAPL", GOOD.replace("NEW,1", "new,2") + ",X,MSFT"
    )
    flow = opened(path, columns=MAPPED | {"symbol": "sym"})
    assert (flow.kind, flow.format, flow.num_rows) == ("orders", "generic", 2)
    assert flow.table().schema.names == ["ts", "symbol", "action", "order_id", "side", "price", "qty"]
    assert all(
        flow.table().schema.field(name).equals(ORDERS.field(name)) for name in flow.table().schema.names
    )
    assert column(flow, "symbol") == ["AAPL", "MSFT"]
    assert column(flow, "action") == ["NEW", "NEW"]
    assert column(flow, "price") == [100_500_000_000] * 2
    assert flow.notes == ["columns that are not used: venue", "ts is taken for ns since 1970, by its digits"]
    assert hftlab.replay(flow).summary()["open_orders"] == 2


def test_our_own_names_need_no_mapping(tmp_path):
    """A column that bears our name is that column, unless the mapping says otherwise or leaves it out."""
    path = write(tmp_path, OWN + ",account,cost", *(row + ",x,7.5" for row in ORDERS_ROWS))
    assert "found account 'x'" in said(FormatError, open_flow, path)
    flow = open_flow(path, format="generic", columns={"account": "", "price": "cost"})
    assert column(flow, "price") == [7_500_000_000] * 2
    assert "account" not in flow.table().schema.names


def test_every_column_of_ours(tmp_path):
    """All columns of both tables are read, and blanks mean what they mean in a table of ours."""
    header = "ts,symbol,action,order_id,new_order_id,side,order_type,tif,price,qty,account,post_only"
    flow = open_flow(
        write(
            tmp_path,
            header,
            "2024-01-31T09:30:00Z,A,NEW,1,,B,LIMIT,IOC,1.5,10,7,true",
            "2024-01-31T09:30:00Z,A,REPLACE,1,2,,,,1.25,5,,no",
            "2024-01-31T09:30:00Z,A,NEW,3,,S,MARKET,,,5,-1,",
        )
    )
    checked = read_orders(flow.table())
    assert column(flow, "new_order_id") == [None, 2, None]
    assert column(flow, "side") == [1, 0, -1]
    assert column(flow, "order_type") == ["LIMIT", "LIMIT", "MARKET"]
    assert column(flow, "tif") == ["IOC", "GTC", "GTC"]
    assert column(flow, "price") == [1_500_000_000, 1_250_000_000, NOT_A_VALUE]
    assert column(flow, "account") == [7, 0, -1]
    assert column(flow, "post_only") == [True, False, False]
    assert checked.rows == 3
    header = "ts_event,ts_recv,symbol,action,side,price,size,order_id,flags,sequence"
    flow = open_flow(write(tmp_path, header, "2024-01-31 09:30:00,2024-01-31 09:30:01,A,A,B,1.5,10,7,130,5"))
    assert (flow.kind, flow.table().schema.names) == ("mbo", MBO.names)
    assert (column(flow, "flags"), column(flow, "sequence")) == ([130], [5])


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("action,order_id,side,price,qty", "orders"),
        ("action,side,price,size,order_id", "mbo"),
        ("action,side,price,size", "mbp"),
        ("action,side,price,size,order_id,flags", "mbo"),
    ],
)
def test_the_kind_is_told_by_the_columns(tmp_path, header, kind):
    """Commands have a qty, facts a size, levels no order id; asking for a kind decides."""
    values = {
        "action": "M",
        "order_id": "1",
        "side": "B",
        "price": "1.5",
        "qty": "1",
        "size": "1",
        "flags": "0",
    }
    row = ",".join(values[name] for name in header.split(","))
    path = write(tmp_path, header, row.replace("M", "NEW") if kind == "orders" else row)
    assert open_flow(path, format="generic").kind == kind
    assert open_flow(path, format="generic", kind=kind).kind == kind


def test_levels_can_be_rebuilt(tmp_path):
    """A file of levels alone, without an action, is set level by level."""
    lines = ["time,side,price,size", "1,bid,99.5,3", "2,ask,100.5,4", "3,bid,99.5,0"]
    columns, constants = {"ts_event": "time"}, {"action": "M", "symbol": "X"}
    flow = open_flow(
        write(tmp_path, *lines), format="generic", columns=columns, constants=constants, time_unit="s"
    )
    assert (flow.kind, column(flow, "ts_event")) == ("mbp", [10**9, 2 * 10**9, 3 * 10**9])
    run = hftlab.replay(flow, mode="rebuild", record=("book",))
    assert run.book.select("side", "price", "qty").rows() == [(-1, 100_500_000_000, 4)]


def test_constants_and_values(tmp_path):
    """What all rows share is said once; their codes are said one by one, ours and integers are understood."""
    lines = ["what,id,bs,px,n", "add,1,1,1.5,10", "NEW,2,-1,1.75,10", "0,3,S,1.75,10", "x,1,1,,", "del,2,,,"]
    flow = opened(
        write(tmp_path, *lines),
        columns={ours: theirs for ours, theirs in MAPPED.items() if ours != "ts"},
        constants={"symbol": "X", "account": 5, "tif": "day", "post_only": "yes"},
        values={"action": {"add": "NEW", "x": "CANCEL", "del": 1}},
    )
    assert column(flow, "action") == ["NEW", "NEW", "NEW", "CANCEL", "CANCEL"]
    assert column(flow, "side") == [1, -1, -1, 1, 0]
    assert set(column(flow, "symbol")) == {"X"}
    assert set(column(flow, "account")) == {5}
    assert set(column(flow, "tif")) == {"DAY"}
    assert set(column(flow, "post_only")) == {True}
    assert hftlab.replay(flow).summary()["accepted"] == 5


def test_symbols_and_flags_have_values_too(tmp_path):
    """Names of instruments are changed, words for yes and no given."""
    path = write(tmp_path, OWN + ",symbol,post_only", *(f"{row},XBT,maker" for row in ORDERS_ROWS))
    flow = open_flow(path, values={"symbol": {"XBT": "BTC"}, "post_only": {"maker": "true"}})
    assert (column(flow, "symbol"), column(flow, "post_only")) == (["BTC"] * 2, [True] * 2)


def test_a_symbol_that_is_null(tmp_path):
    """Of JSON, or left out of one object: it is the name of no instrument."""
    rows = [dict(zip(OWN.split(","), row.split(","), strict=True)) for row in ORDERS_ROWS]
    for second in ({"symbol": None}, {}):
        lines = [json.dumps(rows[0] | {"symbol": "A"}), json.dumps(rows[1] | second)]
        path = write(tmp_path, *lines, name="flow.ndjson")
        expected = f"{path}, line 2: found symbol '', expected the name of an instrument"
        assert said(FormatError, lambda path=path: open_flow(path).table()).startswith(expected)


# ------------------------------------------------------------------ numbers


@pytest.mark.parametrize(
    ("text", "scale", "units"),
    [
        ("100.5", None, 100_500_000_000),
        ("-0.000000001", None, -1),
        ("1e2", None, 100 * 10**9),
        ("9223372036.854775807", None, 2**63 - 1),
        ("585.33", "1", 585_330_000_000),
        ("100", 1, 100 * 10**9),
        ("5853300", "10000", 585_330_000_000),
        ("5853300.5", 10000, 585_330_050_000),
        ("4800250000000", "1000000000", 4800_250_000_000),
        ("3", "8", 375_000_000),
        ("3.5", "32", 109_375_000),
        ("1", Decimal("0.5"), 2 * 10**9),
    ],
)
def test_prices_are_exact(tmp_path, text, scale, units):
    """Decimals as they are, integers by their units per 1.0, whatever that is."""
    assert alone(tmp_path, "price", text, price_scale=scale) == units


@pytest.mark.parametrize(
    ("text", "scale", "expected"),
    [
        ("100.0000000001", None, "a number of at most nine decimals"),
        ("9223372036.854775808", None, "at most 9223372036.854775807: this is too large"),
        ("-8988000000000.00", None, "at least -9223372036.854775807: this is too small"),
        ("92233720368547758", "10000", "at most 92233720368547.75807: this is too large"),
        ("1e40", None, "at most 9223372036.854775807: this is too large"),
        ("1e9999", None, "at most 9223372036.854775807: this is too large"),
        ("9" * 36, "1", "at most 9223372036.854775807: this is too large"),
        ("1,5", None, "a number of at most nine decimals"),
        ("0x10.0", None, "a number of at most nine decimals"),
        ("inf", None, "a number of at most nine decimals"),
        ("1", "3", "a multiple of 1e-9, times 3"),
        ("1e999999999", "3", "a multiple of 1e-9, times 3"),
        ("99999999999", "1", "at most 9223372036.854775807: this is too large"),
        ("7e-48", None, "a number of at most nine decimals"),
        ("1_0.5", None, "a number of at most nine decimals"),
        ("1_0", "3", "a multiple of 1e-9, times 3"),
        ("\u0663.5", None, "a number of at most nine decimals"),
        ("1e" + "9" * 30, None, "a number of at most nine decimals"),
        ("1." + "0" * 200, None, "a number of at most nine decimals"),
    ],
)
def test_prices_that_are_not(tmp_path, text, scale, expected):
    """A price that can't be one of ours is not made one; where it doesn't fit, the largest is told."""
    path = tmp_path / "flow.csv"
    shown = text if len(text) <= 40 else text[:37] + "..."
    found = f"{path}, line 2: found price {shown!r} (column px), expected {expected}"
    assert (
        said(
            FormatError,
            alone,
            tmp_path,
            "price",
            text,
            price_scale=scale,
        )
        == found
    )


def test_whole_prices_need_a_scale(tmp_path):
    """A price of 5853300 may be dollars, cents or anything: nothing is guessed."""
    path = write(tmp_path, HEADER, GOOD.replace("100.5", "5853300"))
    found = said(UsageError, opened, path)
    assert found.startswith(f"{path}: found prices without a decimal point, expected price_scale=N with them")
    path = write(tmp_path, HEADER, GOOD.replace("100.5", "100"), GOOD)
    assert column(opened(path), "price") == [100 * 10**9, 100_500_000_000]
    path = write(tmp_path, HEADER, GOOD.replace("NEW,1,BUY,100.5", "CANCEL,1,,"))
    assert column(opened(path), "price") == [NOT_A_VALUE]


@pytest.mark.parametrize(
    ("text", "scale", "lots"),
    [
        ("10", None, 10),
        ("10.0", None, 10),
        ("0", None, 0),
        ("-5", None, -5),
        ("9223372036854775807", None, 2**63 - 1),
        ("0.00000001", "100000000", 1),
        ("1.5", 2, 3),
        ("", None, NOT_A_VALUE),
        ("NA", None, NOT_A_VALUE),
    ],
)
def test_quantities_are_lots(tmp_path, text, scale, lots):
    """Whole ones as they are, fractions as so many lots of a size that is said."""
    assert one(tmp_path, "qty", text, qty_scale=scale) == lots


def test_quantities_that_are_no_lots(tmp_path):
    """Nothing is rounded."""
    path = tmp_path / "flow.csv"
    hint = "expected whole lots (qty_scale=N makes N lots of 1.0)"
    assert (
        said(FormatError, one, tmp_path, "qty", "0.5")
        == f"{path}, line 3: found qty '0.5' (column n), {hint}"
    )
    found = said(FormatError, one, tmp_path, "qty", "0.123", qty_scale=100)
    assert found == f"{path}, line 3: found qty '0.123' (column n), expected a multiple of 1/100"


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("18446744073709551615", 2**64 - 1), ("7.0", 7), ("9007199254740992.0", 2**53), ("0x1f", 31)],
)
def test_ids_are_numbers(tmp_path, text, number):
    """All of 64 bits, without a sign."""
    assert one(tmp_path, "order_id", text) == number


@pytest.mark.parametrize("text", ["-1", "a7", "1.5", "1e3"])
def test_ids_that_are_not(tmp_path, text):
    """Where the first is a number, all must be, unless they are said to be text."""
    path = tmp_path / "flow.csv"
    expected = "expected a whole number from 0 to 2^64-1 (ids=text takes others)"
    found = f"{path}, line 3: found order_id {text!r} (column id), {expected}"
    assert said(FormatError, one, tmp_path, "order_id", text) == found
    assert one(tmp_path, "order_id", text, ids="text") == 2


def test_ids_that_are_text(tmp_path):
    """They are numbered as they appear, the same one always the same, in both columns of ids."""
    lines = [f"{OWN},new_order_id", "1706693400,NEW,a-1,B,1.5,1,", "1706693400,NEW,b-2,B,1.5,1,"]
    lines += ["1706693400,REPLACE,a-1,B,1.5,1,c-3", "1706693400,CANCEL,c-3,B,,,"]
    flow = open_flow(write(tmp_path, *lines))
    assert column(flow, "order_id") == [1, 2, 1, 3]
    assert column(flow, "new_order_id") == [None, None, 3, None]
    assert "order ids are text, numbered as they appear: 3" in flow.notes
    assert hftlab.replay(flow).summary()["rejected"] == 0
    assert [b["order_id"][0].as_py() for b in flow.batches(1)] == [1, 2, 1, 3]


@pytest.mark.parametrize("text", ["8.38976614505067e+18", "8.38977E+18", "8.5E18", "9007199254740993.0"])
@pytest.mark.parametrize("first", ["1", "a7", None])
def test_text_of_a_float_is_no_id(tmp_path, text, first):
    """A float holds whole numbers up to 2^53, by IEEE 754: beyond that it may be another order's."""
    before = [GOOD.replace("NEW,1", f"NEW,{first}")] if first else []
    path = write(tmp_path, HEADER, *before, GOOD.replace("NEW,1", f"NEW,{text}"))
    found = said(FormatError, opened, path)
    assert found.startswith(f"{path}, line {2 + len(before)}: found order_id {text!r} (column id), expected ")
    assert found.endswith(": a float beyond 2^53 has lost digits")
    assert column(opened(path, ids="text"), "order_id")[-1] == 1 + len(before)


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()])
def test_ids_in_floats(tmp_path, kind):
    """Floats up to the last whole number that all before it have are ids; the next one is an error."""
    most = {pa.float64(): 2**53, pa.float32(): 2**24}[kind]  # 53 and 24 bits of a number, by IEEE 754
    for last, ids in ((most, [7, 8, most]), (2 * most, None)):
        columns = {
            "time": [NINE_THIRTY] * 3,
            "what": ["NEW"] * 3,
            "id": np.array([7, 8, last], kind.to_pandas_dtype()),
        }
        table = pa.table(columns | {"bs": ["B"] * 3, "px": ["1.5"] * 3, "n": [1] * 3})
        pq.write_table(table, path := tmp_path / "flow.parquet")
        if ids is not None:
            assert column(opened(path), "order_id") == ids
        else:
            assert "found order_id" in (found := said(FormatError, opened, path))
            assert found.endswith("a float beyond 2^53 has lost digits")


@pytest.mark.parametrize("action", ["NEW", "CANCEL", "REDUCE", "REPLACE"])
@pytest.mark.parametrize("text", ["", "nan", "NULL"])
def test_an_order_needs_an_id(tmp_path, action, text):
    """Orders without ids would all be one order; a row that is about no order needs none."""
    path = write(
        tmp_path, HEADER, GOOD, GOOD.replace("NEW,1", "CLEAR,"), GOOD.replace("NEW,1", f"{action},{text}")
    )
    expected = "expected an id on every NEW, CANCEL, REDUCE, REPLACE"
    assert said(FormatError, opened, path) == f"{path}, line 4: found order_id '' (column id), {expected}"
    flow = opened(write(tmp_path, HEADER, GOOD, GOOD.replace("NEW,1", "CLEAR,")))
    assert column(flow, "order_id") == [1, 0]


@pytest.mark.parametrize("first", ["12", "631339815922709507324380"])
def test_long_ids_are_text(tmp_path, first):
    """Ids of 24 and 39 digits and of 2^64, which 64 bits don't hold, are told apart by all their digits."""
    ids = [first, "340282366920938463463374607431664944666", "631339815922709507324381", str(2**64), first]
    flow = opened(write(tmp_path, HEADER, *(GOOD.replace("NEW,1", f"NEW,{id_}") for id_ in ids)))
    assert column(flow, "order_id") == [1, 2, 3, 4, 1]
    lines = (
        {"time": NINE_THIRTY, "what": "NEW", "id": int(id_), "bs": "B", "px": 1.5, "n": 1} for id_ in ids
    )
    path = write(tmp_path, *map(json.dumps, lines), name="flow.ndjson")
    assert "expected a whole number from 0 to 2^64-1" in said(FormatError, lambda: opened(path).table())


# ------------------------------------------------------------------ times

NINE_THIRTY = 1706693400 * 10**9  # 2024-01-31 09:30 UTC


@pytest.mark.parametrize(
    ("text", "options", "ns"),
    [
        ("1706693400", {}, NINE_THIRTY),
        ("1706693400123", {}, NINE_THIRTY + 123 * 10**6),
        ("1706693400123456", {}, NINE_THIRTY + 123456 * 10**3),
        ("1706693400123456789", {}, NINE_THIRTY + 123456789),
        ("1430438404.518", {}, 1430438404_518_000_000),
        ("1706693400123.4567899", {}, NINE_THIRTY + 123_456_789),
        ("1706693400.000000001", {}, NINE_THIRTY + 1),
        ("5", {"time_unit": "s"}, 5 * 10**9),
        ("5.5", {"time_unit": "ms"}, 5_500_000),
        ("-5", {"time_unit": "us"}, -5000),
        ("2024-01-31T09:30:00Z", {}, NINE_THIRTY),
        ("2024-01-31 09:30:00.123456789Z", {}, NINE_THIRTY + 123456789),
        ("2024-01-31T04:30:00-05:00", {}, NINE_THIRTY),
        ("2024-01-31T09:30:00", {}, NINE_THIRTY),
        ("2024-01-31T04:30:00.5", {"time_zone": "America/New_York"}, NINE_THIRTY + 5 * 10**8),
        ("2024-07-01T05:30:00", {"time_zone": "America/New_York"}, 1719826200 * 10**9),
        ("09:30:00.5", {"date": "2024-01-31"}, NINE_THIRTY + 5 * 10**8),
        ("9:30:00", {"date": dt.date(2024, 1, 31)}, NINE_THIRTY),
        ("04:30:00", {"date": "2024-01-31", "time_zone": "America/New_York"}, NINE_THIRTY),
        ("34200.5", {"date": "2024-01-31", "time_unit": "s"}, NINE_THIRTY + 5 * 10**8),
        (
            "16200000",
            {"date": "2024-01-31", "time_unit": "ms", "time_zone": "America/New_York"},
            NINE_THIRTY,
        ),
    ],
)
def test_times_are_exact(tmp_path, text, options, ns):
    """Numbers, ISO text, times of a day; local or not; to the nanosecond, without a float."""
    assert alone(tmp_path, "ts", text, **options) == ns


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("34200.5", {}, "time_unit=s, ms, us or ns with it"),
        ("5", {"date": "2024-01-31"}, "time_unit=s, ms, us or ns with it"),
        ("09:30:00", {}, "date=YYYY-MM-DD with it"),
        ("1706693400", {"time_zone": "America/New_York"}, "date=YYYY-MM-DD with them"),
    ],
)
def test_times_that_need_more(tmp_path, text, options, expected):
    """What can't be known is asked for."""
    assert said(UsageError, alone, tmp_path, "ts", text, **options).endswith(f"expected {expected}")


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("", {}, "a time like 2024-01-31T09:30:00.123456789"),
        ("yesterday", {}, "a time like 2024-01-31T09:30:00.123456789"),
        ("31.1.2024", {}, "a time like 2024-01-31T09:30:00.123456789"),
        ("2024-02-30T09:30:00", {}, "a time like 2024-01-31T09:30:00.123456789"),
        (
            "2024-11-03T01:30:00",  # the clocks go back: there are two of it
            {"time_zone": "America/New_York"},
            "a time like 2024-01-31T09:30:00.123456789 that America/New_York has once",
        ),
        (
            "2024-03-10T02:30:00",  # the clocks go forward: there is none
            {"time_zone": "America/New_York"},
            "a time like 2024-01-31T09:30:00.123456789 that America/New_York has once",
        ),
    ],
)
def test_times_that_are_none(tmp_path, text, options, expected):
    """The row, as always."""
    lines = [
        HEADER,
        GOOD.replace("1706693400000000000", "2024-01-31T09:30:00"),
        GOOD.replace("1706693400000000000", text),
    ]
    path = write(tmp_path, *lines)
    found = f"{path}, line 3: found ts {text!r} (column time), expected {expected}"
    assert said(FormatError, opened, path, **options) == found


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("other", ["s", "ms", "us", "ns"])
def test_the_unit_of_times_does_not_change(tmp_path, unit, other):
    """The digits of the first time tell its unit; a time of another unit after it is an error at its row."""
    digits = {"s": 10, "ms": 13, "us": 16, "ns": 19}  # of 2024-01-31 09:30 UTC
    times = [str(NINE_THIRTY)[: digits[name]] for name in (unit, unit, other)]
    lines = (f'{{"time": {t}, "what": "NEW", "id": 1, "bs": "B", "px": 1.5, "n": 1}}' for t in times)
    csv = write(tmp_path, HEADER, *(GOOD.replace(str(NINE_THIRTY), time) for time in times))
    for path, row in ((csv, 4), (write(tmp_path, *lines, name="flow.ndjson"), 3)):
        if unit == other:
            assert column(opened(path), "ts") == [NINE_THIRTY] * 3
        else:
            found = said(FormatError, opened, path)
            assert found.startswith(f"{path}, line {row}: found ts '{times[-1]}")
            assert f"expected a number of {unit} since 1970 of {digits[unit]} digits, like the first" in found
    if digits[other] < digits[unit]:
        assert column(opened(csv, time_unit=unit), "ts")[0] == NINE_THIRTY


def test_numbers_after_text_and_text_after_numbers(tmp_path):
    """A column is of one kind."""
    path = write(tmp_path, HEADER, GOOD, GOOD.replace("1706693400000000000", "2024-01-31T09:30:00"))
    assert "line 3: found ts '2024-01-31T09:30:00' (column time), expected a number of ns since 1970" in said(
        FormatError, opened, path
    )
    path = write(tmp_path, HEADER, GOOD.replace("1706693400000000000", "2024-01-31T09:30:00"), GOOD)
    assert "line 3: found ts '1706693400000000000'" in said(FormatError, opened, path)
    path = write(tmp_path, HEADER, GOOD, GOOD.replace("1706693400000000000", "99999999999999999999"))
    assert "line 3: found ts '99999999999999999999'" in said(FormatError, opened, path)


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_are_told_by_the_header(tmp_path, delimiter, end):
    """Four of them, three line ends, a byte order mark, empty lines."""
    text = "\ufeff" + end.join([HEADER, GOOD, "", GOOD, ""]).replace(",", delimiter)
    (path := tmp_path / "flow.txt").write_text(text, newline="")
    assert column(opened(path), "qty") == [10, 10]


@pytest.mark.parametrize(("name", "character"), [("tab", "\t"), ("pipe", "|"), (":", ":"), ("\\t", "\t")])
def test_a_delimiter_that_is_said(tmp_path, name, character):
    """Any one character, some of them by name."""
    path = write(tmp_path, HEADER.replace(",", character), GOOD.replace(",", character))
    assert column(opened(path, delimiter=name), "order_id") == [1]


@pytest.mark.parametrize("header", [HEADER, HEADER.split(",")])
def test_a_file_without_a_header(tmp_path, header):
    """Its names are given, and its first row is a row."""
    flow = opened(write(tmp_path, GOOD, GOOD.replace("NEW,1", "NEW,2")), header=header)
    assert column(flow, "order_id") == [1, 2]
    path = write(tmp_path, GOOD, GOOD.replace("BUY", "?"))
    assert f"{path}, line 2: found side '?'" in said(FormatError, opened, path, header=header)
    found = f"{path}, line 1: found 6 cells, expected 5, as in the header"
    assert (
        said(
            FormatError,
            open_flow,
            path,
            format="generic",
            columns=MAPPED | {"qty": ""},
            header="time,what,id,bs,px",
        )
        == found
    )


@pytest.mark.parametrize("pack", ["", ".gz", ".zip"])
@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet", "arrow"])
def test_every_container_holds_the_same(tmp_path, kind, pack):
    """CSV, NDJSON, Parquet and Arrow give one table, text in any wrapping."""
    columns = {
        "time": [NINE_THIRTY + i for i in range(100)],
        "what": ["NEW"] * 100,
        "id": list(range(100)),
        "bs": [1, -1] * 50,
        "px": [100.5 + i / 64 for i in range(100)],
        "n": [i % 7 + 1 for i in range(100)],
    }
    table = pa.table(columns)
    path = tmp_path / f"flow.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    elif kind == "csv":
        pl.from_arrow(table).write_csv(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    if pack and kind in ("csv", "ndjson"):
        path = packed(path, pack)
    flow = opened(path)
    assert column(flow, "ts") == columns["time"]
    assert column(flow, "side") == columns["bs"]
    assert column(flow, "price") == [int(Decimal(p) * 10**9) for p in columns["px"]]
    assert [b.num_rows for b in flow.batches(30)] == [30, 30, 30, 10]
    assert flow.known_rows == 100


def packed(path, pack):
    import zipfile

    target = path.with_name(path.name + pack)
    if pack == ".gz":
        target.write_bytes(gzip.compress(path.read_bytes()))
    else:
        with zipfile.ZipFile(target, "w") as archive:
            archive.write(path, path.name)
    return target


def test_types_of_a_typed_file(tmp_path):
    """Timestamps, decimals, dictionaries, floats that mean what they print."""
    table = pa.table(
        {
            "time": pa.array([NINE_THIRTY // 1000, NINE_THIRTY // 1000 + 1]).cast(pa.timestamp("us")),
            "what": pa.array(["NEW", "NEW"]).dictionary_encode(),
            "id": pa.array([1, 2], pa.int32()),
            "bs": pa.array(["B", "S"]).cast(pa.large_string()),
            "px": pa.array([0.1, 0.3]),
            "n": pa.array([Decimal("1.0"), Decimal("2.0")]),
        }
    )
    pq.write_table(table, path := tmp_path / "flow.parquet")
    flow = opened(path)
    assert column(flow, "ts") == [NINE_THIRTY, NINE_THIRTY + 1000]
    assert column(flow, "price") == [100_000_000, 300_000_000]
    assert column(flow, "qty") == [1, 2]
    table = table.set_column(4, "px", pa.array([0.1, 0.1 + 0.2]))
    pq.write_table(table, path)
    said_ = said(FormatError, opened, path)
    assert said_.startswith(f"{path}: found price '0.30000000000000004' (column px) in row 1, ")
    table = table.set_column(4, "px", pa.array([1, 2]))
    pq.write_table(table, path)
    assert "price_scale=N" in said(UsageError, opened, path)
    assert column(opened(path, price_scale=100), "price") == [10_000_000, 20_000_000]


def test_json_numbers_are_not_floats(tmp_path):
    """What is written is what is read, as a number or as text; a missing field is a blank."""
    lines = [
        '{"time": 1430438404.518, "what": "NEW", "id": 18446744073709551615, "bs": "B", "px": 0.1, "n": "3"}',
        '{"time": 1430438404.5180001, "what": "NEW", "id": 2, "bs": "S", "px": 987654321.123456789, "n":"4"}',
        '{"id": 2, "what": "CANCEL", "time": 1430438405, "extra": {"a": [1]}}',
    ]
    flow = opened(write(tmp_path, *lines, "", name="flow.ndjson"))
    assert column(flow, "ts") == [1430438404_518_000_000, 1430438404_518_000_100, 1430438405 * 10**9]
    assert column(flow, "order_id") == [2**64 - 1, 2, 2]
    assert column(flow, "price") == [100_000_000, 987654321_123456789, NOT_A_VALUE]
    assert column(flow, "qty") == [3, 4, NOT_A_VALUE]


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("9.35002e4", 93500_200_000_000),
        ("1E+2", 100 * 10**9),
        ("12345678.000000000000", 12345678 * 10**9),
        ("7e-48", None),
        ("1e30", None),
        ("1e9999", None),
        ("1" * 36, None),
        ("1" * 5000, None),
    ],
)
def test_json_numbers_of_any_form(tmp_path, text, units, quote):
    """A number with an exponent, or of many digits, is what it says, or an error at its line."""
    line = '{{"time": 1706693400000000000, "what": "NEW", "id": 1, "bs": "B", "px": {}, "n": 3}}'
    path = write(tmp_path, *map(line.format, ["0.5", f"{quote}{text}{quote}"]), name="flow.ndjson")
    if units is not None:
        assert column(opened(path), "price") == [500_000_000, units]
    else:
        assert said(FormatError, lambda: opened(path).table()).startswith(f"{path}, line 2: found px ")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{not json}", "found '{not json}', expected a JSON object"),
        ("[1]", "found a JSON list, expected a JSON object"),
        ('{"time": "x"}', 'found time "x", expected a number of at most 18 decimals, as in the lines before'),
        (
            '{"time": true}',
            "found time true, expected a number of at most 18 decimals, as in the lines before",
        ),
        (
            '{"time": 1, "id": -1}',
            "found id -1, expected a whole number from 0 to 2^64-1, as in the lines before",
        ),
        ('{"time": 1, "what": 5}', "found what 5, expected text, as in the lines before"),
    ],
)
@pytest.mark.parametrize("before", [1, 8000])
def test_json_lines_that_are_broken(tmp_path, line, found, before):
    """The first of them, as an editor counts."""
    good = '{"time": 1706693400000000000, "what": "NEW", "id": 1, "bs": "B", "px": 0.5, "n": 3}'
    path = write(tmp_path, *[good] * before, "", line, "rubbish", name="flow.json")
    assert said(FormatError, lambda: opened(path).table()) == f"{path}, line {before + 2}: {found}"


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (
            {"columns": {"prize": "px"}},
            "columns.prize: we have no such column, expected one of ts_event, ts_recv",
        ),
        (
            {"columns": MAPPED | {"price": "cost"}},
            "columns.price=cost: {path} has no such column, expected one of time, what, id, bs, px, n",
        ),
        (
            {"columns": MAPPED | {"size": "n"}},
            "columns.size: a table of kind orders has no such column, expected one of ts, symbol",
        ),
        (
            {"columns": MAPPED | {"flags": "n"}, "kind": "orders"},
            "columns.flags: a table of kind orders has no such column, expected one of ts, symbol",
        ),
        ({"columns": {"price": "px"}}, "{path}: found no "),
        (
            {"columns": MAPPED | {"action": ""}},
            "{path}: found no action for a table of kind orders, expected columns.action=NAME with one of "
            "time, what, id, bs, px, n, or constants.action=VALUE",
        ),
        ({"columns": "price=px"}, "columns: found 'price=px', expected columns.OURS=THEIRS for any of "),
        ({"constants": {"prize": 1}}, "constants.prize: we have no such column"),
        ({"constants": {"qty": 1}}, "constants.qty: there is columns.qty too, expected one of the two"),
        (
            {"constants": {"account": "x"}},
            "constants.account: found 'x', expected a whole number from -2147483648",
        ),
        (
            {"values": {"price": {"a": "b"}}},
            "found values.price, expected values.OURS.THEIRS=OURS for any of action, side",
        ),
        ({"values": {"action": "NEW"}}, "found values.action=NEW, expected values.OURS.THEIRS=OURS"),
        ({"values": "x"}, "values: found 'x', expected values.OURS.THEIRS=OURS"),
        ({"values": {"action": {"x": "OPEN"}}}, "values: found 'OPEN', expected one of NEW, CANCEL"),
        ({"kind": "fills"}, "kind: found 'fills', expected one of mbo, orders, mbp"),
        ({"price_scale": "0"}, "price_scale: found '0', expected a positive number"),
        ({"price_scale": "many"}, "price_scale: found 'many', expected a positive number"),
        ({"qty_scale": -1}, "qty_scale: found -1, expected a positive number"),
        ({"time_unit": "minutes"}, "time_unit: found 'minutes', expected one of s, ms, us, ns"),
        ({"time_zone": "New York"}, "time_zone: found 'New York', expected a name like America/New_York"),
        ({"time_zone": "../x"}, "time_zone: found '../x', expected a name like America/New_York"),
        ({"date": "31.1.2024"}, "date: found '31.1.2024', expected YYYY-MM-DD"),
        ({"ids": "uuid"}, "ids: found 'uuid', expected one of text, numbers"),
        ({"delimiter": ",,"}, "delimiter: found ',,', expected one character, or tab"),
        ({"delimiter": 5}, "delimiter: found 5, expected one character, or tab"),
        ({"header": "a,,b"}, "header: found 'a,,b', expected names of columns, with commas"),
        ({"prize_scale": 1}, "option 'prize_scale' means nothing to any CSV, NDJSON, Parquet"),
    ],
)
def test_a_mistake_is_named(tmp_path, options, found):
    """Each option that can't be right says what it found and what it expected."""
    path = write(tmp_path, HEADER, GOOD)
    assert found.format(path=path) in said(UsageError, opened, path, **options)


@pytest.mark.parametrize(
    ("place", "text", "found"),
    [
        (
            "action",
            "add",
            "action 'add' (column what), expected one of NEW, CANCEL, REDUCE, REPLACE, MASS_CANCEL, CLEAR, "
            "RISK_CONTROL; values.action.add=... says what it stands for",
        ),
        ("action", "", "action '' (column what), expected one of NEW"),
        (
            "side",
            "2",
            "side '2' (column bs), expected one of BUY, SELL; values.side.2=... says what it stands for",
        ),
    ],
)
def test_a_value_that_has_no_mapping(tmp_path, place, text, found):
    """It is shown with its row, and how it could be given a meaning."""
    assert f"line 3: found {found}" in said(FormatError, one, tmp_path, place, text)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([HEADER, GOOD, GOOD + ",7"], "line 3: found 7 cells, expected 6, as in the header"),
        ([HEADER, GOOD, "1,2"], "line 3: found 2 cells, expected 6, as in the header"),
        ([HEADER, GOOD, "", "", "1,2"], "line 5: found 2 cells, expected 6, as in the header"),
        ([HEADER + ",px", GOOD + ",1"], "line 1: found the column px 2 times, expected each name once"),
        (["", HEADER, GOOD], "line 1: found an empty line, expected a header"),
    ],
)
def test_rows_that_are_no_rows(tmp_path, lines, found):
    """Too many cells, too few, the same name twice."""
    path = write(tmp_path, *lines)
    assert said(FormatError, lambda: opened(path).table()) == f"{path}, {found}"


def test_a_row_that_does_not_end(tmp_path):
    """Nothing that Arrow calls its blocks."""
    path = write(tmp_path, HEADER, GOOD, "1" * (3 << 20))
    found = "found a row that doesn't end, expected rows of at most 1,048,576 bytes"
    assert said(FormatError, lambda: opened(path).table()) == f"{path}: {found}"


@pytest.mark.parametrize("place", ["price", "qty", "order_id", "action", "ts"])
def test_the_first_bad_cell_is_found_far_down(tmp_path, place):
    """Also behind the first batch, also between others that come later."""
    cells = GOOD.split(",")
    cells[HEADER.split(",").index(MAPPED[place])] = "x?"
    path = write(tmp_path, HEADER, *[GOOD] * 70_000, ",".join(cells), *[GOOD] * 50, "1,2", ",".join(cells))
    flow = opened(path)
    assert said(FormatError, flow.table).startswith(f"{path}, line 70002: found {place} 'x?'")


def test_nothing_and_other_content(tmp_path):
    """Empty files, blank files, pictures."""
    (path := tmp_path / "flow.csv").write_text("")
    assert said(FormatError, opened, path) == f"{path}: found an empty file, expected text data"
    path.write_text("\n \n")
    assert said(FormatError, opened, path) == f"{path}: found nothing in it, expected order flow data"
    path.write_bytes(b"\x89PNG\0\0\0\1" * 20)
    assert "expected CSV, NDJSON, Parquet or Arrow data" in said(FormatError, opened, path)
    (path := tmp_path / "flow.json").write_text('{\n "a": 1\n}\n')
    assert said(FormatError, opened, path) == f"{path}, line 1: found '{{', expected one JSON object a line"
    flow = opened(write(tmp_path, HEADER))
    assert (flow.num_rows, hftlab.replay(flow).summary()["rows"]) == (0, 0)


@pytest.mark.parametrize("kind", ["csv.gz", "ndjson.gz"])
def test_a_packed_file_cut_anywhere(tmp_path, kind):
    """A table that isn't whole is none."""
    row = json.dumps(dict(zip(HEADER.split(","), [NINE_THIRTY, "NEW", 1, "B", 1.5, 1], strict=True)))
    text = "\n".join([HEADER, *[GOOD] * 100] if kind == "csv.gz" else [row] * 100)
    whole = gzip.compress(text.encode())
    path = tmp_path / f"flow.{kind}"
    for length in range(10, len(whole)):
        path.write_bytes(whole[:length])
        assert str(path) in said(FormatError, lambda: opened(path).table())


# ------------------------------------------------------------------ recognition


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("action,order_id,side,price,qty", "orders"),
        ("ts_event;action;side;price;size;order_id", "mbo"),
        ("ts_event\taction\tside\tprice\tsize", "mbp"),
    ],
)
def test_our_own_columns_are_recognised(tmp_path, header, kind):
    """A text file whose header has the columns of one of our tables opens by itself."""
    flow = open_flow(write(tmp_path, header, name="flow.txt"))
    assert (flow.kind, flow.format) == (kind, "generic")
    row = dict.fromkeys(header.replace(";", ",").replace("\t", ",").split(","), "1")
    row |= {"action": "NEW" if kind == "orders" else "A", "price": "1.5", "ts_event": "1706693400"}
    flow = open_flow(write(tmp_path, json.dumps(row), name="flow.ndjson"))
    assert (flow.kind, flow.format, flow.num_rows) == (kind, "generic", 1)


def test_a_blank_delimits(tmp_path, capsys):
    """On a command line too: -O "delimiter= "."""
    path = write(tmp_path, HEADER.replace(",", " "), GOOD.replace(",", " "), name="flow.txt")
    options = [f"columns.{ours}={theirs}" for ours, theirs in MAPPED.items()] + ["delimiter= "]
    arguments = [word for option in options for word in ("-O", option)]
    with pytest.raises(SystemExit) as caught:
        app(["inspect", str(path), "--format", "generic", "--json", *arguments])
    assert caught.value.code == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1


def test_rows_of_a_table_without_lines_count_from_0(tmp_path):
    """As seq does: a Parquet file has rows, not lines as an editor counts them."""
    columns = {"time": [NINE_THIRTY] * 3, "what": ["NEW"] * 3, "id": [1, 2, 3], "bs": ["B"] * 3, "n": [1] * 3}
    pq.write_table(pa.table(columns | {"px": ["1.5", "x", "1.5"]}), path := tmp_path / "flow.parquet")
    expected = "expected a number of at most nine decimals"
    assert said(FormatError, opened, path) == f"{path}: found price 'x' (column px) in row 1, {expected}"


def test_from_the_command_line_and_from_toml(tmp_path, capsys):
    """-O columns.OURS=THEIRS and [feed.columns] are the same mapping."""
    path = write(tmp_path, HEADER, GOOD.replace("NEW", "add"), GOOD.replace("NEW,1", "add,2"))
    options = [f"columns.{ours}={theirs}" for ours, theirs in MAPPED.items()]
    options += ["values.action.add=NEW", "constants.symbol=AAPL"]
    arguments = [part for option in options for part in ("-O", option)]
    config = tmp_path / "feed.toml"
    mapping = "\n".join(f'{ours} = "{theirs}"' for ours, theirs in MAPPED.items())
    config.write_text(
        f'[feed]\nformat = "generic"\nconstants = {{ symbol = "AAPL" }}\n[feed.columns]\n{mapping}\n'
        '[feed.values.action]\nadd = "NEW"\n'
    )
    for asked in (["--format", "generic", *arguments], ["--config", str(config)]):
        with pytest.raises(SystemExit) as caught:
            app(["inspect", str(path), "--json", *asked])
        assert caught.value.code == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["format"], found["rows"], found["open_orders"]) == ("generic", 2, 2)
        assert found["instruments"][0]["symbol"] == "AAPL"


# ------------------------------------------------------------------ anything at all


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**62),
            st.integers(0, 2**64 - 1),
            st.sampled_from([1, -1]),
            st.decimals(-(10**9), 10**9, places=9),
            st.integers(0, 2**63 - 1),
        ),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from(["csv", "ndjson"]),
)
def test_whatever_is_written_is_read(tmp_path_factory, records, kind):
    """All values of all columns, from text as from JSON."""
    path = tmp_path_factory.getbasetemp() / f"any.{kind}"
    names = HEADER.split(",")
    cells = [(str(t), "NEW", str(i), "B" if s > 0 else "S", f"{p:f}", str(n)) for t, i, s, p, n in records]
    if kind == "csv":
        path.write_text("\n".join([HEADER, *map(",".join, cells)]))
    else:
        path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in cells))
    flow = opened(path, time_unit="ns", price_scale=1)
    assert column(flow, "ts") == [row[0] for row in records]
    assert column(flow, "order_id") == [row[1] for row in records]
    assert column(flow, "side") == [row[2] for row in records]
    assert column(flow, "price") == [int(row[3] * 10**9) for row in records]
    assert column(flow, "qty") == [row[4] for row in records]


@settings(max_examples=150)
@given(st.randoms(use_true_random=False), st.integers(1, 5), st.sampled_from(["csv", "ndjson"]))
def test_bytes_changed_inserted_and_lost(tmp_path_factory, noise, edits, kind):
    """Nothing crashes or hangs: a flow, or an error of one line."""
    row = json.dumps(dict(zip(HEADER.split(","), [NINE_THIRTY, "NEW", 1, "B", 1.5, 1], strict=True)))
    lines = [HEADER, *[GOOD] * 20] if kind == "csv" else [row] * 20
    values = b'0123456789.,-AB{}[]:"\n\r\0\xff '
    data = damaged("\n".join(lines).encode(), noise, edits, values=values, most=40)
    (path := tmp_path_factory.getbasetemp() / f"noise.{kind}").write_bytes(data)
    try:
        table = opened(path).table()
    except HftlabError as error:
        problem = str(error)
    else:
        problem = ""
        table.validate(full=True)
    assert "\n" not in problem


def test_what_an_editor_counts(tmp_path):
    """Lines are numbered from 1, whatever ends them and however many are empty."""
    (path := tmp_path / "x.csv").write_bytes(b"a,b\r\n\r\n1,2\r3,4\n\n5,6")
    file = table_files.opened(path)
    assert [file.error(index, "x", "y").row for index in range(3)] == [3, 4, 6]
    assert np.sum([batch.num_rows for batch in file.batches({"a": "number"})]) == 3
