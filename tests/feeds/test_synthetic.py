"""Synthetic flow: the same rows everywhere, and rows that keep a book as real flow does."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hftlab
from hftlab import schema
from hftlab.codes import PRICE_SCALE
from hftlab.errors import OutputError, UsageError
from hftlab.feeds import synthetic
from hftlab.kernels.feeds import synthetic as flow_kernels
from hftlab.kernels.primitives.compile import DISABLED
from tests.conftest import REPOSITORY
from tests.helpers.called import Called
from tests.reference.book import ReferenceVenue, rows_of

flow = Called(flow_kernels)

SAMPLE = REPOSITORY / "data" / "sample.parquet"

# of 20,000 messages, 3 symbols, seed 11; a flow that changes is a note in CHANGELOG.md
PINNED = "1b811f9913b837a77f52fae9c12f6055b0ca9d8afdeb9583b96d9bff12098e78"


def digest(table):
    """A hash of a flow's values, column by column, however Arrow or Parquet store them."""
    total = hashlib.sha256()
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            used = sorted(set(column.to_pylist()))  # a code that nobody uses changes no flow
            total.update(repr(used).encode())
            column = pa.array(column.cast(pa.string()).to_pylist()).dictionary_encode()
            column = pa.array(
                [used.index(value) for value in column.dictionary.to_pylist()], pa.int64()
            ).take(column.indices)
        values = column.to_numpy(zero_copy_only=False)
        total.update(name.encode() + values.astype(values.dtype.newbyteorder("<")).tobytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def busy():
    """One symbol and what becomes of it."""
    table = synthetic.generate(60_000, seed=3)
    run = hftlab.replay(table, record=("fills", "rejects", "outcomes", "l1"))
    return pl.from_arrow(table).with_row_index("seq"), run


# The same rows


def test_pinned():
    """The stream is what it was when this was written: whoever changes it does so on purpose."""
    assert digest(synthetic.generate(20_000, symbols=3, seed=11)) == PINNED


def test_the_same_without_the_compiler():
    """Plain Python makes the same flow, without a warning: nothing in the kernel rounds or wraps."""
    code = "from tests.feeds.test_synthetic import digest, synthetic; "
    code += "print(digest(synthetic.generate(3_000, symbols=2, seed=5)))"
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "error::RuntimeWarning"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert run.stdout.strip() == digest(synthetic.generate(3_000, symbols=2, seed=5)), run.stderr


@pytest.mark.parametrize("block_rows", [1, 777, 5_000])
def test_blocks_change_nothing(block_rows):
    """A flow cut into blocks is the flow."""
    parts = list(synthetic.blocks(2_000, symbols=4, seed=2, block_rows=block_rows))
    assert [part.num_rows for part in parts[:-1]] == [block_rows] * (len(parts) - 1)
    assert pa.concat_tables(parts).equals(synthetic.generate(2_000, symbols=4, seed=2))


def test_a_longer_flow_begins_with_the_shorter():
    """How many messages are asked for changes none of them."""
    assert synthetic.generate(3_000, 3, 1).slice(0, 1_000).equals(synthetic.generate(1_000, 3, 1))


def test_seeds_differ():
    """Another seed is another flow, up to the largest seed there is."""
    assert len({digest(synthetic.generate(500, 2, seed)) for seed in (0, 1, 2, 2**64 - 1)}) == 4


def test_sample():
    """data/sample.parquet is what data/README.md says it is."""
    assert digest(pq.read_table(SAMPLE)) == digest(synthetic.generate(50_000, symbols=5, seed=7))
    assert SAMPLE.stat().st_size < 1_500_000
    command = "hftlab generate -o data/sample.parquet --messages 50000 --symbols 5 --seed 7"
    assert command in (REPOSITORY / "data" / "README.md").read_text(encoding="utf-8")


# The table


def test_columns():
    """The columns are those of an orders table, filled as the rules want them."""
    table = synthetic.generate(20_000, symbols=12, seed=4)
    assert table.schema.equals(synthetic.SCHEMA, check_metadata=True)
    assert set(schema.ORDERS.names) - set(table.column_names) == {"new_order_id"}
    frame = pl.from_arrow(table)
    assert frame["ts"].is_sorted()
    assert table["symbol"].combine_chunks().dictionary.to_pylist() == [f"SYM{k:03}" for k in range(12)]
    assert set(frame["side"]) == {1, -1}
    new = frame.filter(pl.col("action") == "NEW")
    assert new["order_id"].to_list() == list(range(1, new.height + 1))
    priced = frame.filter(pl.col("price") != 0)
    assert (priced["price"] > 0).all()
    assert (priced["price"] % (PRICE_SCALE // 100) == 0).all()
    assert (frame.filter(pl.col("action") != "CANCEL")["qty"] > 0).all()
    unpriced = frame.filter(pl.col("price") == 0)
    assert set(unpriced["action"]) == {"NEW", "CANCEL"}
    assert set(unpriced.filter(pl.col("action") == "NEW")["order_type"]) == {"MARKET"}
    assert frame.filter("post_only")["tif"].is_in(["GTC", "DAY"]).all()


def test_names_stay_in_order():
    """More than a thousand symbols get longer numbers."""
    names = synthetic.generate(10, symbols=1_001)["symbol"].combine_chunks().dictionary.to_pylist()
    assert (names[0], names[-1]) == ("SYM0000", "SYM1000")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"messages": -1}, "messages: found -1, expected 0 to 1099511627776"),
        ({"symbols": 0}, "symbols: found 0, expected 1 to 10000"),
        ({"symbols": 10_001}, "symbols: found 10001, expected 1 to 10000"),
        ({"seed": -1}, "seed: found -1, expected 0 to 18446744073709551615"),
    ],
)
def test_arguments_out_of_range(arguments, said, tmp_path):
    """An argument out of range is one line that says what was expected, and no file."""
    with pytest.raises(UsageError) as caught:
        synthetic.generate(**arguments)
    assert str(caught.value) == said
    with pytest.raises(UsageError):
        synthetic.write(tmp_path / "flow.parquet", **arguments)
    assert list(tmp_path.iterdir()) == []


# The file


@pytest.mark.parametrize("name", ["flow.parquet", "flow.arrow"])
def test_write(name, tmp_path, monkeypatch):
    """A written flow is the flow; progress is told of each block, up to the end."""
    monkeypatch.setattr(synthetic.blocks, "__defaults__", (*synthetic.blocks.__defaults__[:3], 400))
    told = []
    synthetic.write(tmp_path / name, 1_000, symbols=2, seed=6, progress=told.append)
    assert told == [400, 800, 1_000]
    assert hftlab.open_flow(tmp_path / name).table().equals(synthetic.generate(1_000, symbols=2, seed=6))


def test_a_row_group_per_block(tmp_path, monkeypatch):
    """A Parquet file is written block by block, so that a long flow needs no memory."""
    monkeypatch.setattr(synthetic.blocks, "__defaults__", (*synthetic.blocks.__defaults__[:3], 400))
    synthetic.write(tmp_path / "flow.parquet", 1_000)
    assert pq.ParquetFile(tmp_path / "flow.parquet").num_row_groups == 3


def test_no_messages(tmp_path):
    """A flow of no messages is an empty table, in memory and in a file."""
    assert synthetic.generate(0).num_rows == 0
    synthetic.write(tmp_path / "flow.parquet", 0)
    assert pq.read_table(tmp_path / "flow.parquet").equals(synthetic.generate(0))


def test_whole_or_not_at_all(tmp_path):
    """An end in the middle leaves what was there before."""
    path = tmp_path / "flow.parquet"
    path.write_bytes(b"older")

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write(path, 1_000, progress=interrupt)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"older"
    with pytest.raises(OutputError):
        synthetic.write(tmp_path / "nowhere" / "flow.parquet", 10)


# The book it makes


def believed_orders(state):
    """Symbol, side, price, lots, id and account of what the generator takes to be open."""
    for symbol, book in enumerate(state.books):
        ring = state.orders[book["ring"] : book["ring"] + book["places"] + 1]
        for order in ring[ring["qty"] > 0]:
            price = (book["base"] + order["level"]) * flow.TICK
            yield symbol, order["side"], price, order["qty"], order["id"], order["account"]


def test_the_generator_s_book_is_the_book():
    """What the generator takes to be open is open: the slow twin has the same orders."""
    state, odds = synthetic._start(30_000, 3, 8)
    rows = synthetic._empty_rows(30_000)
    synthetic._fill(state, odds, rows)
    columns = {name: column.tolist() for name, column in rows._asdict().items()}
    venue = ReferenceVenue(tick=flow.TICK, l1=False).run(rows_of(columns))
    assert sorted(believed_orders(state)) == sorted(venue.final_book())
    assert sum(state.books["live"]) == len(venue.final_book()) > 1_000


def test_rejects_are_those_meant(busy):
    """Only cancels that come too late (some 1 % of messages) and post-only orders that come too close."""
    frame, run = busy
    reasons = Counter(run.rejects["reason"].to_list())
    assert set(reasons) == {"UNKNOWN_ORDER", "POST_ONLY_WOULD_CROSS"}
    assert 0.005 < reasons["UNKNOWN_ORDER"] / frame.height < 0.02
    assert reasons["POST_ONLY_WOULD_CROSS"] / frame.height < 0.001
    assert set(run.rejects.filter(pl.col("reason") == "UNKNOWN_ORDER")["action"]) == {"CANCEL"}


def test_the_mix(busy):
    """Shares of the messages."""
    frame, run = busy
    resting = (pl.col("order_type") == "LIMIT") & pl.col("tif").is_in(["GTC", "DAY"])
    frame = frame.with_columns(status=run.outcomes["status"], filled=run.outcomes["filled_qty"])

    def share(*where):
        return frame.filter(*where).height / frame.height

    new = pl.col("action") == "NEW"
    assert 0.45 < share(new, resting, pl.col("filled") == 0) < 0.50
    assert 0.40 < share(pl.col("action") == "CANCEL") < 0.45
    assert 0.015 < share(pl.col("action") == "REDUCE") < 0.025
    assert 0.025 < share(pl.col("action") == "REPLACE") < 0.035
    assert 0.05 < share(new, ~resting | (pl.col("filled") > 0)) < 0.08
    assert 0.05 < run.fills.height / frame.height < 0.15
    for status, tif in (("FILLED", "FOK"), ("EXPIRED", "FOK"), ("FILLED", "IOC"), ("EXPIRED", "IOC")):
        assert share(new, pl.col("tif") == tif, pl.col("status") == status) > 0
    assert share(new, pl.col("order_type") == "MARKET") > 0.005


def test_the_book_is_stationary(busy):
    """After its first thousands of messages the book is neither deeper nor wider, and never one-sided."""
    frame, run = busy
    gone = run.outcomes["status"].is_in(["CANCELLED"]).cast(pl.Int64)
    came = (run.outcomes["status"] == "RESTING") & (frame["action"] == "NEW")
    made_full = run.fills.filter(pl.col("maker_leaves") == 0).group_by("seq").len().sort("seq")
    filled = np.zeros(frame.height, np.int64)
    filled[made_full["seq"].to_numpy()] = made_full["len"].to_numpy()
    depth = (came.cast(pl.Int64) - gone).to_numpy().cumsum() - filled.cumsum()
    assert 700 < depth[10_000:].min() <= depth[10_000:].max() < 1_200
    early, late = depth[10_000:30_000].mean(), depth[-20_000:].mean()
    assert abs(early - late) < 0.05 * late
    touch = run.l1.filter(pl.col("seq") > 1_000)
    assert touch["bid_px"].null_count() == touch["ask_px"].null_count() == 0
    spread = (touch["ask_px"] - touch["bid_px"]) // flow.TICK
    assert spread.min() == 1
    assert spread.median() <= 3
    assert spread.quantile(0.99) <= 12


def test_the_middle_comes_back():
    """The price stays near its anchor over a long flow: a random walk of these steps would be far away."""
    table = synthetic.generate(20_000 if DISABLED else 1_000_000, seed=1)
    touch = hftlab.replay(table, record=("l1",)).l1.filter(pl.col("seq") > 1_000)
    ticks = (touch["bid_px"] + touch["ask_px"]).to_numpy() / (2 * flow.TICK)
    anchor = synthetic._anchor_ticks(1, 0)
    assert abs(ticks.mean() - anchor) < 100
    assert np.abs(ticks - anchor).max() < flow.LADDER // 4
    sigma = synthetic._books(1, 1)[0]["sigma"] / (1 << flow.FAIR_BITS)
    assert ticks.std() < sigma * np.sqrt(1_000_000) / 3


def test_lifetimes_are_short_with_a_heavy_tail(busy):
    """Half of the cancelled orders live less than a hundred messages, one in a hundred over ten thousand."""
    frame, _ = busy
    born = frame.filter(pl.col("action") == "NEW").select("order_id", born="seq")
    died = frame.filter(pl.col("action") == "CANCEL").select("order_id", died="seq")
    lives = died.join(born, on="order_id").select(life=pl.col("died").cast(pl.Int64) - pl.col("born"))["life"]
    assert lives.median() < 100
    assert lives.quantile(0.99) > 10_000


def test_bursts():
    """Messages cluster: far more variance in 10 ms counts than a Poisson process has, and short medians."""
    ts_ns = synthetic.generate(50_000, seed=9)["ts"].cast("int64").to_numpy()
    counts = np.bincount((ts_ns - ts_ns[0]) // 10_000_000)
    assert counts.var() > 3 * counts.mean()
    gaps = np.diff(ts_ns)
    assert np.median(gaps) < gaps.mean() / 4
    assert 100_000 < gaps.mean() < 400_000


def test_zipf():
    """The k-th symbol and the k-th account get 1/k of what the first gets."""
    table = synthetic.generate(100_000, symbols=50, seed=1)
    for column in ("symbol", "account"):
        values = table[column].combine_chunks()
        values = values.indices if pa.types.is_dictionary(values.type) else values
        count = np.bincount(values.to_numpy())
        for rank in (2, 5, 20, 50):
            assert count[rank - 1] == pytest.approx(count[0] / rank, rel=0.25)


# Numbers


def test_generator_of_random_numbers():
    """Multiply-with-carry by its definition: the next word is A * word + carry, modulo 2^32."""
    state = 123_456_789 << 32 | 987_654_321
    for _ in range(1_000):
        carry, low = divmod(state, 2**32)
        expected = flow.MULTIPLIER * low + carry
        state = int(flow.advance(np.int64(state)))
        assert state == expected < 2**63
        assert int(flow.word(np.int64(state))) == (state ^ state >> 32) % 2**32


@pytest.mark.parametrize("weights", [[1], [1, 1], [5, 0, 3], [10**30, 1, 7], synthetic._quantities()])
def test_alias_table_is_exact(weights):
    """Each outcome of an alias table has the share its weight asks for, to 2^-32 a row."""
    table = synthetic._alias_table(weights).tolist()
    share = [Fraction(0)] * len(weights)
    for outcome, (stay, other) in enumerate(table):
        share[outcome] += Fraction(stay, 2**32)
        share[other] += 1 - Fraction(stay, 2**32)
    for found, weight in zip(share, weights, strict=True):
        expected = Fraction(weight, sum(weights))
        assert abs(found / len(weights) - expected) < Fraction(len(weights), 2**32)


def test_curves_are_what_they_are_called():
    """-ln(1 - u) and 2^-u, in 2^-20, to the last place."""
    waiting, halving = synthetic._curves()
    u = np.arange(1 << flow.CURVE_BITS) / (1 << flow.CURVE_BITS)
    assert np.abs(waiting[:-1] / 2**20 + np.log1p(-u)).max() < 2**-20
    assert np.abs(halving[:-1] / 2**20 - 2.0**-u).max() < 2**-20
    for half_bits, life_ns in (
        (flow.FAST_HALF_BITS, flow.FAST_LIFE_NS),
        (flow.SLOW_HALF_BITS, flow.SLOW_LIFE_NS),
    ):
        assert life_ns == round(2**half_bits / np.log(2))
