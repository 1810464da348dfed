"""The door for tables: what Python's containers may hold, and one line for what they may not."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import hftlab
from hftlab.errors import HftlabError, TableError, UsageError
from hftlab.fidelity.venue_books import open_truth
from hftlab.tape.tables import read_orders

BASE = {"action": ["NEW"] * 2, "order_id": [1, 2], "side": [1, 1], "price": [10**9] * 2, "qty": [1, 1]}
NAT = -(2**63)


def text_of_bytes(*values):
    """A text column that nobody checked."""
    offsets = np.cumsum([0, *map(len, values)]).astype("i4")
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(b"".join(values)))


def dictionary(indices, texts):
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), texts, safe=False)


class OfPandas:
    """What the door sees of a pandas frame: its module, its items, objects of several kinds in one column."""

    __module__ = "pandas.core.frame"
    columns = tuple(BASE)

    def __init__(self, **more):
        self.values = BASE | more

    def items(self):
        return ((name, np.array(values, object)) for name, values in self.values.items())

    def __arrow_c_stream__(self, requested_schema=None):
        raise pa.ArrowInvalid("Could not convert '1.5' with type str\nConversion failed for column price")


class Broken:
    def __arrow_c_stream__(self, requested_schema=None):
        raise RuntimeError("two\nlines")


def problem(table, **options):
    """The one line of what is wrong."""
    with pytest.raises(HftlabError) as caught:
        hftlab.replay(table, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------ times


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_not_a_time_is_no_time_of_1970(unit):
    """NumPy's NaT, which is -2^63 in every unit, is an error by row, and no zero that overflowed."""
    times = pa.array([0, NAT]).cast(pa.timestamp(unit))
    assert f"column ts, row 1: found {NAT} {unit} (NaT), expected a time" in problem({**BASE, "ts": times})


@pytest.mark.parametrize(("unit", "scale"), [("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)])
def test_the_first_and_the_last_time_that_ns_hold_are_times(unit, scale):
    """One more in either direction is an error, for units above a ns."""
    most = (2**63 - 1) // scale
    times = pa.array([-most, most]).cast(pa.timestamp(unit))
    assert read_orders({**BASE, "ts": times}).ts.tolist() == [-most * scale, most * scale]
    if scale > 1:
        for beyond in (-most - 1, most + 1):
            assert "column ts, row 0" in problem(
                {**BASE, "ts": pa.array([beyond, 0]).cast(pa.timestamp(unit))}
            )


def test_not_a_time_in_a_published_book_is_an_error_by_row(tmp_path):
    """ts_event of a truth file in microseconds: NaT was 1970 there, too."""
    book = {name: [1] for name in ("sequence", "bid_px_00", "bid_sz_00", "ask_px_00", "ask_sz_00")}
    frame = pl.DataFrame(book).with_columns(ts_event=pl.Series([NAT]).cast(pl.Datetime("us")))
    frame.write_parquet(tmp_path / "truth.parquet")
    with pytest.raises(hftlab.FormatError, match=r"found ts_event .* in row 0, expected"):
        list(open_truth(tmp_path / "truth.parquet").blocks())


# ------------------------------------------------------------------ dictionaries and text


def test_a_null_in_a_dictionary_is_no_instrument():
    """A row that points to it is an error, and not one of an instrument "None"; unused it is nothing."""
    texts = pa.array(["A", None])
    assert "column symbol, row 1: found 1 null(s)" in problem({**BASE, "symbol": dictionary([0, 1], texts)})
    assert read_orders({**BASE, "symbol": dictionary([0, 0], texts)}).symbols == ("A",)


def test_a_null_in_a_dictionary_of_codes_is_an_error_by_row():
    """The same for actions."""
    found = problem({**BASE, "action": dictionary([0, 1], pa.array(["NEW", None]))})
    assert "column action, row 1: found 1 null(s)" in found


def test_an_index_outside_its_dictionary_is_an_error_by_row():
    """It would be a book that isn't there."""
    found = problem({**BASE, "symbol": dictionary([0, 7], pa.array(["A", "B"]))})
    assert "column symbol, row 1: found a broken dictionary" in found


@pytest.mark.parametrize("column", ["symbol", "action", "order_id", "price", "side"])
def test_text_that_is_no_utf8_is_an_error_by_row(column):
    """In any column of text."""
    found = problem(pa.table({**BASE, column: text_of_bytes(b"A", b"\xff")}))
    assert f"column {column}, row 1: found broken text" in found


# ------------------------------------------------------------------ containers


def test_objects_of_pandas_are_numbers_by_themselves():
    """A column of objects is read value by value: 100 counts units, '1.5' is 1.5."""
    assert read_orders(OfPandas(price=[100, "1.5"])).columns.price.tolist() == [100, 1_500_000_000]


@pytest.mark.parametrize("value", [object(), SimpleNamespace(), [1], None, True])
def test_objects_that_are_no_numbers_are_one_line(value):
    """Named by their column."""
    assert "column price" in problem(OfPandas(price=[100, value]))
    assert "column price" in problem({**BASE, "price": [100, value]})


@pytest.mark.parametrize("dtype", [pl.Int128, pl.UInt128])
@pytest.mark.parametrize("column", ["order_id", "price", "qty"])
def test_integers_of_128_bits_that_fit_are_integers(dtype, column):
    """polars has them, Arrow hasn't; one that doesn't fit is told as such."""
    frame = pl.DataFrame(BASE).with_columns(pl.col(column).cast(dtype))
    assert hftlab.replay(frame).digest == hftlab.replay(BASE).digest
    assert hftlab.replay(frame.lazy()).digest == hftlab.replay(BASE).digest
    beyond = frame.with_columns(pl.lit(2**100, dtype).alias(column))
    if column == "order_id":
        assert "expected integers from 0 to 2^64-1" in problem(beyond)
    else:
        assert hftlab.replay(beyond).summary()["rejected"] == 2


@pytest.mark.parametrize("table", [pl.Series([1]), pa.chunked_array([[1]]), pa.array([1]), [1], None, 5])
def test_what_is_no_table_is_told_by_its_type(table):
    """A series goes to Arrow as a frame does, and is none."""
    assert f"table: found {type(table).__name__}, expected a pyarrow.Table" in problem(table)


def test_a_stream_that_fails_is_one_line():
    """Whatever its maker raises."""
    assert problem(Broken()) == "orders table: 1 problem: Broken can't be read: two"


@pytest.mark.parametrize("name", [5, b"\xff", None])
def test_a_column_has_a_name(name):
    """Of text."""
    assert f"column {name!r}: found a name of" in problem({**BASE, name: [1, 2]})


def test_complex_numbers_are_no_prices():
    """They were text that nobody could read, and rejected row by row."""
    with pytest.raises(TableError, match="column price: found ndarray"):
        read_orders({**BASE, "price": np.ones(2, complex)})


# ------------------------------------------------------------------ arguments


@pytest.mark.parametrize("symbols", [[5], [None], b"A", [["A"]], 5])
def test_symbols_are_names(symbols):
    """Whatever else is given is one line."""
    assert "symbols: found" in problem(BASE, symbols=symbols)


@pytest.mark.parametrize("levels", [10**9, 1_001, 0, -1, "a", 2.0, True])
def test_levels_of_a_table_are_bounded(levels):
    """In `depth=`, `Result.depth` and `certify`; a billion of them asked for 45 GiB."""
    assert "expected a whole number from 1 to 1,000" in problem(BASE, depth=levels)
    with pytest.raises(UsageError, match="from 1 to 1,000"):
        hftlab.replay(BASE).depth(levels)
    with pytest.raises(UsageError, match="from 1 to 1,000"):
        hftlab.certify(BASE, levels=levels)


@pytest.mark.parametrize("tick_size", [{"BCT": "0.01"}, {"A": "0.01", "BCT": "0.01"}, {5: "0.01"}])
def test_a_tick_size_of_no_instrument_is_an_error(tick_size):
    """A mistyped symbol was passed over, and its instrument's tick inferred; also in chunks."""
    flow = {**BASE, "symbol": ["A", "B"]}
    found = "tick_size: found the symbol {!r}, expected those of the flow, which has A, B"
    expected = found.format(next(symbol for symbol in tick_size if symbol != "A"))
    assert problem(flow, tick_size=tick_size) == expected
    assert problem(flow, tick_size=tick_size, chunk_rows=1) == expected
    with pytest.raises(UsageError, match="found the symbol"):
        hftlab.compile_tape(flow, tick_size)


def test_a_tick_size_may_be_one_of_an_instrument_that_is_left_out():
    """A dict for the whole flow serves its parts, and chunks in which an instrument has no row."""
    flow, ticks = {**BASE, "symbol": ["A", "B"]}, {"A": "0.01", "B": "0.5"}
    for how in ({"symbols": "A"}, {"chunk_rows": 1}):
        assert hftlab.replay(flow, tick_size=ticks, **how).summary()["rejected"] == 0
    assert hftlab.compile_tape(flow, ticks, symbols="B").symbols == ("B",)
