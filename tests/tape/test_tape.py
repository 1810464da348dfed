"""The tape: what compiles, what it looks like, and what a saved one survives."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numba
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import hftlab
from hftlab.errors import FormatError, TableError, UsageError
from tests.helpers import flows
from tests.helpers.interruptions import cpu_seconds

CENT = 10_000_000


def orders(n: int = 3, **columns) -> dict:
    base = {
        "action": ["NEW"] * n,
        "order_id": list(range(1, n + 1)),
        "side": ["BUY"] * n,
        "price": [100 * CENT] * n,
        "qty": [5] * n,
    }
    return base | columns


@pytest.mark.parametrize(
    "make",
    [dict, pa.table, pl.DataFrame, lambda t: pl.DataFrame(t).lazy()],
    ids=["dict", "arrow", "polars", "lazy"],
)
def test_every_container_gives_the_same_digest(make):
    """A table is a table, whatever library holds it."""
    assert hftlab.replay(make(orders())).digest == hftlab.replay(orders()).digest


def test_problems_of_shape_are_told_all_at_once():
    """One error lists a missing column, a null, a wrong type and an unknown code."""
    with pytest.raises(TableError) as caught:
        hftlab.compile_tape(
            {"order_id": [1, None], "side": ["BUY", "UP"], "price": [True, False], "qty": [1, 2]}
        )
    text = str(caught.value)
    assert "\n" not in text
    for expected in (
        "action is missing",
        "order_id, row 1: found 1 null",
        "'UP'",
        "column price: found bool",
    ):
        assert expected in text


@pytest.mark.parametrize(
    "prices", [[1.01, 2.5, 3.0], ["1.01", "2.5", "3"], [Decimal("1.01"), Decimal("2.5"), Decimal(3)]]
)
def test_exact_prices_of_any_type_are_units(prices):
    """Floats, text and decimals become integers of 1e-9 exactly."""
    run = hftlab.replay(orders(price=prices), tick_size="0.01")
    assert sorted(run.book["price"].to_list()) == [1_010_000_000, 2_500_000_000, 3_000_000_000]


@pytest.mark.parametrize(
    ("column", "bad", "reason", "observed"),
    [
        ("price", [1.0, float("nan"), 1.0], "INVALID_PRICE", None),
        ("price", [1.0, float("inf"), 1.0], "INVALID_PRICE", None),
        ("price", [1.0, 1e300, 1.0], "INVALID_PRICE", None),
        ("price", [1.0, 0.1 + 0.2, 1.0], "INVALID_PRICE", None),
        ("price", ["1", "one", "1"], "INVALID_PRICE", None),
        ("price", ["1", "1e400", "1"], "INVALID_PRICE", None),
        ("price", ["1", "1.005", "1"], "INVALID_PRICE", 1_005_000_000),
        ("price", [CENT, 0, CENT], "INVALID_PRICE", 0),
        ("price", [CENT, -CENT, CENT], "INVALID_PRICE", -CENT),
        ("qty", [1, 0, 1], "INVALID_QTY", 0),
        ("qty", [1, -7, 1], "INVALID_QTY", -7),
        ("qty", [1.0, 2.5, 1.0], "INVALID_QTY", None),
        ("qty", [1.0, float("nan"), 1.0], "INVALID_QTY", None),
        ("qty", [1, 2**64 - 1, 1], "INVALID_QTY", None),
    ],
)
def test_bad_content_is_a_reject_of_its_row(column, bad, reason, observed):
    """The row is refused with what was found; its neighbours are not touched."""
    run = hftlab.replay(orders(**{column: bad}), tick_size="0.01")
    assert run.rejects.select("seq", "reason", "observed_value").rows() == [(1, reason, observed)]
    assert run.summary()["accepted"] == 2


def test_tick_is_the_largest_that_fits():
    """Inferred ticks are exact and by symbol."""
    tape = hftlab.compile_tape(orders(symbol=["A", "A", "B"], price=[150 * CENT, 225 * CENT, 7]))
    assert dict(zip(tape.symbols, tape.grid.ticks.tolist(), strict=True)) == {"A": 75 * CENT, "B": 7}


@pytest.mark.parametrize("tick", ["0", "-1", "abc", float("nan"), "0.0000000001"])
def test_a_bad_tick_size_is_a_usage_error(tick):
    """A tick is a positive multiple of 1e-9."""
    with pytest.raises(UsageError, match="tick_size"):
        hftlab.compile_tape(orders(), tick_size=tick)


def test_ladders_stay_small_between_far_prices():
    """One order at 0.01 and one at 199,999.99 cost two pages, not twenty million ticks."""
    n = 3
    tape = hftlab.compile_tape(orders(n, price=["0.01", "199999.99", "100"]), tick_size="0.01")
    assert tape.grid.sizes.sum() <= n * 64
    run = hftlab.replay(tape)
    assert sorted(run.book["price"].to_list()) == [CENT, 10_000 * CENT, 19_999_999 * CENT]


def test_ids_may_be_scattered_over_64_bits():
    """Sparse ids are hashed, dense ones indexed, with one result."""
    ids = [1, 2**63, 2**64 - 1]
    run = hftlab.replay(orders(order_id=np.array(ids, np.uint64)))
    assert sorted(run.book["order_id"].to_list()) == ids


@pytest.mark.parametrize("name", ["tight", "wide", "big", "replaces", "extreme_ids"])
def test_a_saved_tape_runs_as_the_one_it_was(name, tmp_path):
    """Save, load, run: the same digest, with every byte verified and without."""
    flow = flows.make(name, size=3_000, seed=5)
    tape = hftlab.compile_tape(flow.table(), tick_size=Decimal(flow.tick).scaleb(-9))
    tape.save(tmp_path / "flow.tape")
    for verify in (False, True):
        loaded = hftlab.Tape.load(tmp_path / "flow.tape", verify=verify)
        assert hftlab.replay(loaded).digest == hftlab.replay(tape).digest
        assert hftlab.replay(loaded, path="event").digest == hftlab.replay(tape).digest


def test_a_loaded_tape_runs_the_kernels_that_a_compiled_one_runs(tmp_path):
    """Its arrays are of the same types: else the first run of a loaded tape would compile them all again."""
    tape = hftlab.compile_tape(flows.make("tight", size=50, seed=1).table(), tick_size="0.01")
    tape.save(tmp_path / "flow.tape")
    loaded = hftlab.Tape.load(tmp_path / "flow.tape")
    for name in ("commands", "grid", "opening", "opening_levels"):
        assert numba.typeof(getattr(loaded, name)) == numba.typeof(getattr(tape, name)), name


def test_a_loaded_tape_is_mapped_not_read(tmp_path):
    """The arrays of a loaded tape are read-only views of the file."""
    hftlab.compile_tape(orders()).save(tmp_path / "flow.tape")
    rows = hftlab.Tape.load(tmp_path / "flow.tape").commands.rows
    assert not rows.flags.writeable
    assert not rows.flags.owndata


def test_a_tape_cut_off_anywhere_is_refused(tmp_path):
    """No prefix of a saved tape loads."""
    path = tmp_path / "flow.tape"
    hftlab.compile_tape(orders()).save(path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError):
            hftlab.Tape.load(path)


def test_a_changed_byte_is_noticed_on_verification(tmp_path):
    """A flipped byte of an array fails its checksum."""
    path = tmp_path / "flow.tape"
    tape = hftlab.compile_tape(orders())
    tape.save(path)
    data = bytearray(path.read_bytes())
    place = data.find(tape.commands.rows.tobytes())
    data[place + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"changed bytes in commands\.rows"):
        hftlab.Tape.load(path, verify=True)


def test_other_files_are_not_tapes(tmp_path):
    """Missing, foreign and newer files are told apart."""
    with pytest.raises(FormatError, match="no such file"):
        hftlab.Tape.load(tmp_path / "none.tape")
    other = tmp_path / "other.arrow"
    table = pa.table({"a": [1]})
    with pa.ipc.new_file(other, table.schema) as file:
        file.write_table(table)
    with pytest.raises(FormatError, match="something else"):
        hftlab.Tape.load(other)
    newer = tmp_path / "newer.tape"
    hftlab.compile_tape(orders()).save(newer)
    newer.write_bytes(newer.read_bytes().replace(b'"version": 2', b'"version": 3'))
    with pytest.raises(FormatError, match="tape format 3"):
        hftlab.Tape.load(newer)


def test_an_unwritable_place_is_an_output_error(tmp_path):
    """Saving where there is no folder says so and leaves nothing."""
    with pytest.raises(hftlab.OutputError, match="no folder"):
        hftlab.compile_tape(orders()).save(Path(tmp_path) / "none" / "flow.tape")


def test_a_symbol_filter_keeps_rows_numbered_as_in_the_input():
    """`seq` counts rows before the filter, whole or in chunks; what is left out is counted as skipped."""
    table = orders(6, symbol=["A", "B", "A", "C", "B", "A"])
    whole = hftlab.replay(table, symbols=["B", "C"])
    assert whole.outcomes["seq"].to_list() == [1, 3, 4]
    assert whole.symbols == ("B", "C")
    counts = whole.summary()
    assert (counts["rows"], counts["skipped"]) == (3, 3)
    for size in (1, 2, 4):
        chunked = hftlab.replay(table, symbols="B,C", chunk_rows=size)
        assert chunked.digest == whole.digest
        assert set(chunked.symbols) == {"B", "C"}


@pytest.mark.parametrize("base", [1, 2**40, 2**63 - 3, 2**64 - 5_000])
@pytest.mark.parametrize("away", [0, 1, 1_000, 4_000, 10**9])
def test_an_order_of_an_earlier_chunk_is_found(base, away):
    """Whether its id is near those of the rows, far, or open in another book too; at prices near and far."""
    ids = np.array([base, base + 1, base, base + 2, base + 3, base, base + 1, base], np.uint64)
    ids[3:5] += np.uint64(min(away, 2**64 - 1 - base - 3))
    table = orders(
        8,
        order_id=ids,
        action=["NEW"] * 5 + ["CANCEL"] * 3,
        symbol=["A", "A", "B", "A", "B", "B", "A", "A"],
        price=["0.01", "100", "100", "199999.99", "99", "1", "1", "1"],
    )
    whole = hftlab.replay(table, path="event", tick_size="0.01")
    assert whole.summary()["open_orders"] == 2
    for size in (1, 2, 3, 4, 7):
        assert hftlab.replay(table, chunk_rows=size, tick_size="0.01").digest == whole.digest


@pytest.mark.parametrize("size", [None, 4])
def test_what_nobody_keeps(size, tmp_path):
    """A replay in chunks gives its digest and book without its tables; a run folder has them all the same."""
    table = orders(10, side=["BUY", "SELL"] * 5)
    whole = hftlab.replay(table)
    lean = hftlab.replay(table, chunk_rows=size, keep=False)
    assert (lean.digest, lean.book.rows()) == (whole.digest, whole.book.rows())
    written = hftlab.replay(table, chunk_rows=size, keep=False, out=tmp_path / "run")
    assert written.fills.rows() == whole.fills.rows()
    if size is None:
        assert lean.fills.rows() == whole.fills.rows()
    else:
        with pytest.raises(UsageError, match="fills was not recorded"):
            lean.to_arrow("fills")


def test_symbols_by_the_ten_thousand():
    """Half of them are new to the second chunk; each is looked up among those before, once."""
    table = orders(60_000, symbol=[f"S{number}" for number in range(60_000)])
    whole, chunked = hftlab.replay(table), hftlab.replay(table, chunk_rows=30_000)
    assert chunked.digest == whole.digest
    in_one = cpu_seconds(hftlab.replay, table)
    in_two = cpu_seconds(hftlab.replay, table, chunk_rows=30_000)
    assert in_two < 20 * in_one  # usually 3; was 100 where each was looked for in a set of its own


def test_a_symbol_nobody_has_is_a_usage_error():
    """Asking for a symbol that is not in the flow is a mistake, not an empty result."""
    for size in (None, 1):
        with pytest.raises(UsageError, match="no rows of X, Y"):
            hftlab.replay(orders(symbol=["A", "B", "A"]), symbols=["A", "X", "Y"], chunk_rows=size)


def test_one_cell_too_large_changes_no_other_price():
    """Integers are units of 1e-9 whatever stands beside them; only what does not fit is rejected."""
    prices = [100 * CENT, 2**63, Decimal("1.01"), "2.5"]
    run = hftlab.replay(orders(4, price=prices))
    assert sorted(run.book["price"].to_list()) == [100 * CENT, 1_010_000_000, 2_500_000_000]
    assert run.rejects.select("seq", "reason").rows() == [(1, "INVALID_PRICE")]


def test_arrays_of_the_other_byte_order_are_the_same_numbers():
    """Big-endian NumPy arrays are read as what they say."""
    swapped = {name: np.array(orders()[name]).astype(">i8") for name in ("price", "qty", "order_id")}
    assert hftlab.replay(orders(**swapped)).digest == hftlab.replay(orders()).digest


@pytest.mark.parametrize("column", ["order_id", "new_order_id"])
def test_ids_may_be_text_but_not_negative(column):
    """An id is an integer from 0 to 2^64-1, in digits if need be."""
    table = orders(action=["NEW", "NEW", "REPLACE"], order_id=[1, 2, 1], new_order_id=[None, None, 9])
    text = [None if v is None else str(v) for v in table[column]]
    expected = hftlab.replay(table).digest
    assert hftlab.replay(table | {column: text}).digest == expected
    assert hftlab.replay(pl.DataFrame(table | {column: text}, strict=False)).digest == expected
    with pytest.raises(TableError, match=f"column {column}, row 2: found -1"):
        hftlab.replay(table | {column: [1, 2, -1]})


@pytest.mark.parametrize(
    "ts",
    [
        pa.array([0, 10**11, 0], pa.timestamp("s")),
        pa.array([0, -(2**62), 0], pa.timestamp("us")),  # no datetime either
        np.array([0, 2**63 + 7, 0], np.uint64),
    ],
)
def test_a_time_beyond_64_bits_is_an_error_with_its_row(ts):
    """Times that don't fit nanoseconds are refused, not wrapped."""
    with pytest.raises(TableError, match="column ts, row 1"):
        hftlab.replay(orders(ts=ts))


def test_a_column_twice_is_an_error():
    """Which of two columns is meant can't be known."""
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["order_id", "order_id"])
    with pytest.raises(TableError, match="order_id is there more than once"):
        hftlab.compile_tape(table)


def test_rows_of_errors_count_from_the_start_of_the_file(tmp_path):
    """A broken table in a file names the file, and the row of the whole flow under any chunking."""
    path = tmp_path / "flow.parquet"
    pl.DataFrame(orders(9, action=["NEW"] * 7 + ["WHAT", "NEW"])).write_parquet(path)
    for size in (None, 3):
        with pytest.raises(
            TableError, match=r"flow\.parquet: orders table: .* column action, row 7: found 'WHAT'"
        ):
            hftlab.replay(path, chunk_rows=size)


def test_compiling_nothing_that_was_asked_for_is_a_usage_error():
    """`symbols` takes one text with commas too; a symbol without rows is a mistake."""
    table = orders(symbol=["AA", "BB", "AA"])
    assert len(hftlab.compile_tape(table, symbols="AA")) == 2
    with pytest.raises(UsageError, match="no rows of ZZ"):
        hftlab.compile_tape(table, symbols=["ZZ"])
    category = pl.DataFrame(table).with_columns(pl.col("symbol").cast(pl.Enum(["AA", "BB", "ZZ"])))
    with pytest.raises(UsageError, match="no rows of ZZ"):
        hftlab.replay(category, symbols="AA, ZZ")


@pytest.mark.parametrize(
    "call",
    [
        lambda t: hftlab.replay(t, record=5),
        lambda t: hftlab.replay(t, symbols=5),
        lambda t: hftlab.replay(t, symbols=[]),
        lambda t: hftlab.replay(t, config={}),
        lambda t: hftlab.replay(t, chunk_rows=0),
        lambda t: hftlab.replay(t, threads=True),
        lambda t: hftlab.replay(t).depth(0),
        lambda t: hftlab.replay(t).depth("x"),
        lambda t: hftlab.open_flow(None),
        lambda t: hftlab.replay(hftlab.compile_tape(t), symbols="A"),
        lambda t: hftlab.replay(hftlab.compile_tape(t), mode="rebuild"),
    ],
)
def test_wrong_arguments_are_usage_errors(call):
    """A wrong call is told in one line."""
    with pytest.raises(UsageError) as caught:
        call(orders())
    assert "\n" not in str(caught.value)


def test_a_saved_tape_is_a_flow_by_its_path(tmp_path):
    """`replay` takes the path of a saved tape."""
    tape = hftlab.compile_tape(orders())
    tape.save(tmp_path / "flow.tape")
    assert hftlab.replay(tmp_path / "flow.tape").digest == hftlab.replay(tape).digest


def test_the_settings_of_a_run_are_in_its_manifest(tmp_path):
    """Two runs that differ in tick or symbols do not claim the same settings."""
    run = hftlab.replay(orders(symbol=["A", "B", "A"]), tick_size="0.03", symbols="A")
    config = run.manifest()["config"]
    assert (config["tick_size"], config["symbols"], config["instruments"]) == ("0.03", ("A",), {})
