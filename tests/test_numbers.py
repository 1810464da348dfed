"""One rule for what a number is, at every door that prices, quantities and limits come through."""

import re
from decimal import Decimal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hftlab
from hftlab import Limits, OrderBook
from hftlab.codes import NOT_A_VALUE
from hftlab.errors import LimitsError
from hftlab.fidelity.venue_books import open_truth
from hftlab.numbers import (
    computed_to_units,
    decimals_to_units,
    exact_units,
    floats_to_units,
    text_to_units,
    to_units,
)
from hftlab.tape.tables import read_orders

NONE = NOT_A_VALUE
TEXTS = {  # by hand: units of 1e-9
    "1.5": 1_500_000_000,
    " 1.5\t": 1_500_000_000,
    "+.5": 500_000_000,
    "7.": 7_000_000_000,
    "1e3": 1_000_000_000_000,
    "-3.0000000010": -3_000_000_001,
    "00012": 12_000_000_000,
    "9223372036.854775807": 2**63 - 1,
    "9223372036.854775808": NONE,  # one more than 64 bits hold
    "3.0000000001": NONE,  # ten decimals
    "7e-48": NONE,
    "1e400": NONE,
    "1e99999": NONE,  # five digits of exponent
    "1" * 101: NONE,
    "0." + "0" * 99: NONE,  # zero, in more than 100 characters
    "1_0": NONE,  # Python's spelling
    "0x10": NONE,
    "١": NONE,  # a digit, and not one of ours
    "1.2.3": NONE,
    "1,5": NONE,
    "nan": NONE,
    "inf": NONE,
    "e5": NONE,
    "": NONE,
}
KINDS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]


def order_prices(values):
    n = len(values)
    return read_orders(
        {"action": ["NEW"] * n, "order_id": range(n), "side": [1] * n, "price": values, "qty": [1] * n}
    ).columns.price.tolist()


def order_quantities(values):
    n = len(values)
    return read_orders(
        {"action": ["NEW"] * n, "order_id": range(n), "side": [1] * n, "price": [1] * n, "qty": values}
    ).columns.qty.tolist()


def resting_price(value):
    """The price at which an order rests in an OrderBook; NOT_A_VALUE where it is refused."""
    book = OrderBook(tick_size="0.000000001")
    book.submit(1, "buy", value, 1)
    return book.best_bid.price if book.best_bid else NONE


def capital(value):
    return int(Limits(capital=value).account_limits(np.zeros(1, "i4"))["capital"][0])


# ------------------------------------------------------------------ text


@pytest.mark.parametrize(("text", "units"), TEXTS.items())
def test_text_is_a_number_by_its_form_and_its_size(text, units):
    """One text means the same by itself, in a column of any type, and among others."""
    assert to_units(text) == units
    for kind in KINDS:
        column = pa.array(["1.25", text, None, text], pa.string()).cast(kind)
        assert text_to_units(column).tolist() == [1_250_000_000, units, NONE, units]


@pytest.mark.parametrize(("text", "units"), TEXTS.items())
def test_text_means_the_same_at_every_door_of_an_order(text, units):
    """A table and `submit` agree on which text is a price, and which."""
    assert order_prices([text]) == [units]
    if units > 0 or units == NONE:
        assert resting_price(text) == units


@pytest.mark.parametrize("text", ["1_0", "7e-48", "nan", "1e400", "١"])
def test_a_limit_takes_no_other_text_than_a_price(text, tmp_path):
    """What is no number in a table of orders is none in limits: in Python, CSV, TOML, and frames."""
    (tmp_path / "limits.csv").write_text(f"capital\n{text}\n", encoding="utf-8")
    (tmp_path / "limits.toml").write_text(f'[trading]\ncapital = "{text}"\n', encoding="utf-8")
    for load in (
        lambda: Limits(capital=text),
        lambda: Limits.load(tmp_path / "limits.csv"),
        lambda: Limits.load(tmp_path / "limits.toml"),
        lambda: Limits.from_table({"capital": [text]}),
    ):
        with pytest.raises(LimitsError):
            load()


def test_slices_and_empty_columns_of_text():
    """A slice of a column is read where it lies, an empty one is empty."""
    column = pa.array(["x", "1.5", "2.5", "1e1"])
    assert text_to_units(column.slice(1)).tolist() == [1_500_000_000, 2_500_000_000, 10_000_000_000]
    assert text_to_units(column.slice(1, 2), 1).tolist() == [15, 25]
    assert text_to_units(pa.array([], pa.string())).size == 0


def test_text_that_is_no_utf8_is_no_number():
    """Bytes that aren't text don't raise what isn't ours."""
    buffers = [None, pa.py_buffer(np.array([0, 2, 5], "i4")), pa.py_buffer(b"\xff1" + b"1.5")]
    column = pa.StringArray.from_buffers(2, buffers[1], buffers[2])
    assert text_to_units(column).tolist() == [NONE, 1_500_000_000]


def test_a_decimal_of_more_digits_than_usual_is_not_rounded():
    """Python's decimals keep 28 digits in arithmetic; the 34th decides that this is no price."""
    value = Decimal("1.000000000000000000000000000000001")
    assert to_units(value) == NONE
    assert exact_units(value, 33) == 10**33 + 1
    assert order_prices([value]) == [NONE]
    assert decimals_to_units(pa.array([value, Decimal("2.5")])).tolist() == [NONE, 2_500_000_000]


# ------------------------------------------------------------------ floats


FLOATS = [  # by their type: the shortest decimal that reads back, as NumPy prints it
    (np.float32(93500.13), 93_500_130_000_000),
    (np.float32(10.01), 10_010_000_000),
    (np.float16(0.1), 100_000_000),
    (np.float64(0.1) + 0.2, NONE),  # 0.30000000000000004
    (np.float64(1234567.123456789), 1_234_567_123_456_789),
    (np.float32(1e-7), 100),
    (np.float32("nan"), NONE),
    (np.float32("inf"), NONE),
]


@pytest.mark.parametrize(("value", "units"), FLOATS)
def test_a_float_is_the_shortest_decimal_of_its_own_type(value, units, tmp_path):
    """At each door: an array, Arrow, Parquet, polars, a list, a list of several kinds, and `submit`."""
    array = np.array([value, value])
    table = {"action": ["NEW"], "order_id": [1], "side": [1], "price": array[:1], "qty": [1]}
    pq.write_table(pa.table(table), tmp_path / "orders.parquet")
    assert floats_to_units(array).tolist() == [units, units]
    assert order_prices(array) == order_prices(pa.array(array)) == [units, units]
    assert order_prices([value, value]) == order_prices([value, 1.5])[:1] * 2 == [units, units]
    flow = hftlab.open_flow(tmp_path / "orders.parquet")
    assert read_orders(flow.table()).columns.price.tolist() == [units]
    if array.dtype != np.float16:
        assert order_prices(pl.Series(array)) == [units, units]
    assert resting_price(value) == units


def test_a_float_of_any_size_and_width_is_what_numpy_prints():
    """200,000 random floats of every width and magnitude, against the text that NumPy writes for each."""
    rng = np.random.default_rng(20)
    values = rng.random(50_000) * 10.0 ** rng.uniform(-11, 11, 50_000)
    values = np.array([float(f"{v:.{d}g}") for v, d in zip(values, rng.integers(1, 18, 50_000), strict=True)])
    for dtype in ("f2", "f4", "f8", np.longdouble):
        with np.errstate(over="ignore"):
            narrow = values.astype(dtype)
        for decimals in (9, 0):
            expected = [to_units(str(value), decimals) for value in narrow]
            assert floats_to_units(narrow, decimals).tolist() == expected


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_quantities_in_floats_are_whole_lots(dtype):
    """Of any width, and what isn't whole is none."""
    assert order_quantities(np.array([100.0, 2.5, np.nan], dtype)) == [100, NONE, NONE]
    assert OrderBook().submit(1, "buy", "1", np.dtype(dtype).type(100.0)).leaves_qty == 100


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_limits_in_floats_are_their_shortest_decimals(dtype, tmp_path):
    """0.1 is a tenth of the currency, whatever the width: in Python, an array, Arrow and Parquet."""
    tenth = np.array([0.1], dtype)
    pq.write_table(pa.table({"capital": tenth}), tmp_path / "limits.parquet")
    assert capital(tenth[0]) == 10**8
    for limits in (
        Limits.from_table({"capital": tenth}),
        Limits.from_table({"capital": [tenth[0]]}),
        Limits.from_table(pa.table({"capital": tenth})),
        Limits.load(tmp_path / "limits.parquet"),
    ):
        assert int(limits.account_limits(np.zeros(1, "i4"))["capital"][0]) == 10**8


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_tick_size_in_floats_is_its_shortest_decimal(dtype):
    """0.01 of any width is a cent."""
    assert OrderBook(tick_size=np.dtype(dtype).type(0.01)).tick_size == 10_000_000


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64])
@pytest.mark.parametrize("names", ["mbp", "ticker"])
def test_published_books_in_floats_are_their_shortest_decimals(dtype, names, tmp_path):
    """93500.13 in a truth file of any width is 93500.13, and a size that isn't whole is an error by row."""
    at = "_00" if names == "mbp" else ""
    keys = {"sequence": [1], "ts_event": [5]} if names == "mbp" else {"symbol": ["X"], "u": [1]}
    book = {f"bid_px{at}": 93500.13, f"bid_sz{at}": 3.0, f"ask_px{at}": float("nan"), f"ask_sz{at}": 0.0}
    frame = pl.DataFrame(keys | {name: pl.Series([value], dtype=dtype) for name, value in book.items()})
    frame.write_parquet(tmp_path / "truth.parquet")
    (block,) = open_truth(tmp_path / "truth.parquet").blocks()
    assert block.values[:, 0, 0].tolist() == [93_500_130_000_000, 3, hftlab.UNDEF_PRICE, 0]
    frame.with_columns(pl.lit(2.5, dtype).alias(f"bid_sz{at}")).write_parquet(tmp_path / "half.parquet")
    with pytest.raises(hftlab.FormatError, match=f"row 1: found bid_sz{at} '2.5', expected a number"):
        list(open_truth(tmp_path / "half.parquet").blocks())


def test_published_books_may_hold_what_arithmetic_left():
    """9 / 1e9 in polars is 9.000000000000001e-09, a step beside 9e-09; half a unit is no price."""
    values = np.array([9e-9, np.nextafter(9e-9, 1), 1.5e-9, np.nextafter(101.5, 0), np.nan, np.inf])
    assert computed_to_units(values).tolist() == [9, 9, NONE, 101_500_000_000, NONE, NONE]
    assert floats_to_units(values).tolist() == [9, NONE, NONE, NONE, NONE, NONE]
    narrow = np.array([93500.13, 1.5e-9], "f4")
    assert computed_to_units(narrow).tolist() == [93_500_130_000_000, NONE]


def test_published_books_in_text_have_the_same_numbers(tmp_path):
    """Digits alone count 1e-9, a decimal is one, and Python's `1_0` is an error by row."""
    header = "ts_event,sequence,bid_px_00,bid_sz_00,ask_px_00,ask_sz_00\n"
    (tmp_path / "good.csv").write_text(header + "5,1,100000000000,2,101.5,\n")
    (block,) = open_truth(tmp_path / "good.csv").blocks()
    assert block.values[:, 0, 0].tolist() == [10**11, 2, 101_500_000_000, 0]
    for wrong in ("1_0", "7e-48", "1.0000000001"):
        (tmp_path / "bad.csv").write_text(header + f"5,1,100,2,101.5,1\n6,2,{wrong},2,101.5,1\n")
        with pytest.raises(hftlab.FormatError, match="row 3: found bid_px_00"):
            list(open_truth(tmp_path / "bad.csv").blocks())


# ------------------------------------------------------------------ lists of several kinds


@pytest.mark.parametrize("other", [1.5, "1.5", Decimal("1.5"), np.float32(1.5), np.float64(1.5)])
def test_an_integer_counts_units_whatever_stands_beside_it(other):
    """100 is 100 units of 1e-9, as in a column of integers and in `submit`; the others are 1.5."""
    for prices in ([100, other], (100, other), np.array([100, other], object), [np.int64(100), other]):
        assert order_prices(prices) == [100, 1_500_000_000]
    assert [resting_price(price) for price in (100, other)] == [100, 1_500_000_000]


def test_an_integer_quantity_counts_lots_whatever_stands_beside_it():
    """Lots are whole in every kind of number."""
    assert order_quantities([100, 2.0, "3", Decimal(4), np.float32(5)]) == [100, 2, 3, 4, 5]


def test_a_span_of_time_is_no_number():
    """numpy counts timedelta64 among its integers: no price, no quantity, no limit."""
    span = np.timedelta64(5, "ns")
    assert (to_units(span), exact_units(span, 9)) == (NONE, None)
    with pytest.raises(hftlab.TableError, match="column price"):
        order_prices([span, 1.5])
    with pytest.raises(LimitsError, match="max_order_qty"):
        Limits(max_order_qty=span)


def test_a_bool_is_no_number():
    """True is neither a price nor a tick size, in a list of numbers or by itself."""
    with pytest.raises(hftlab.TableError, match="column price"):
        order_prices([100, True])
    with pytest.raises(hftlab.UsageError, match="tick_size: found True"):
        OrderBook(tick_size=True)


@pytest.mark.parametrize("text", ["0x10", "1_0", " 7", "1.0", "+7", "-7", "", str(2**64)])
def test_ids_in_text_are_digits(text):
    """Anything else is an error by row: Arrow would take 0x10 for 16."""
    columns = {"action": ["NEW"] * 2, "side": [1, 1], "price": [1, 1], "qty": [1, 1]}
    with pytest.raises(
        hftlab.TableError, match=re.escape(f"order_id, row 1: found {text!r}, expected integers")
    ):
        read_orders(columns | {"order_id": ["18446744073709551615", text]})
    ids = read_orders(columns | {"order_id": ["18446744073709551615", "7"]}).columns.order_id
    assert ids.tolist() == [-1, 7]
