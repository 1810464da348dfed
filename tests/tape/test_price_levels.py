"""Price levels through the books: the slow twin, chunks, cleared books, rows that can't be."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab
from hftlab.cli import main
from hftlab.codes import NOT_A_VALUE, Action, MboAction, Status
from hftlab.errors import TableError, UsageError
from hftlab.kernels.codes import NOTE
from hftlab.schema import MBP, code_array
from hftlab.tape.price_levels import LevelReader

UNIT = 10**9


def levels(*rows):
    """An mbp table of (action, side, price, size[, symbol]) rows; prices in whole units."""
    rows = [(*row, "A")[:5] for row in rows]
    action, side, price, size, symbol = zip(*rows, strict=True) if rows else ((),) * 5
    count = len(rows)
    return pa.table(
        {
            "ts_event": pa.array(np.arange(count)).cast(MBP.field("ts_event").type),
            "symbol": pa.array(symbol, pa.string()).dictionary_encode(),
            "action": code_array(np.array([MboAction[a] for a in action], np.int8), MboAction),
            "side": np.array(side, np.int8),
            "price": np.array([p if p == NOT_A_VALUE else p * UNIT for p in price], np.int64),
            "size": np.array(size, np.int64),
        }
    )


class SlowLevels:
    """Levels as dicts, row by row; what each row comes to, and the touch whenever it changed."""

    def __init__(self):
        self.books, self.outcomes, self.touches = {}, [], []

    def run(self, rows):
        for seq, (action, side, price, size, symbol) in enumerate(rows):
            book = self.books.setdefault(symbol, {1: {}, -1: {}})
            before = self.touch(book)
            self.outcomes.append(self.apply(book, action, side, price, size))
            if self.touch(book) != before:
                self.touches.append((seq, symbol, *self.touch(book)))
        return self

    def apply(self, book, action, side, price, size):
        if action == "R":
            book[1], book[-1] = {}, {}
            return (Status.CANCELLED, 0)
        if action != "M":
            return (Status.NO_EFFECT, 0)
        if size < 0 or price <= 0:
            return (Status.REJECTED, 0)
        known = price in book[side]
        if size == 0:
            book[side].pop(price, None)
            return (Status.CANCELLED if known else Status.NO_EFFECT, 0)
        book[side][price] = size
        return (Status.REPLACED if known else Status.RESTING, size)

    @staticmethod
    def touch(book):
        bid, ask = max(book[1], default=None), min(book[-1], default=None)
        return bid, book[1].get(bid, 0), ask, book[-1].get(ask, 0)

    def open(self):
        return {
            (symbol, side, price): size
            for symbol, book in self.books.items()
            for side, own in book.items()
            for price, size in own.items()
        }


def agree(rows, **how):
    """Replay the rows and compare all there is with the slow twin; the digest."""
    slow = SlowLevels().run(rows)
    run = hftlab.replay(levels(*rows), mode="rebuild", record=("outcomes", "l1", "book"), **how)
    outcomes = run.outcomes.select(pl.col("status").cast(pl.String), "leaves_qty").rows()
    assert outcomes == [(status.name, leaves) for status, leaves in slow.outcomes]
    assert run.outcomes["seq"].to_list() == list(range(len(rows)))
    names = pl.col("symbol").cast(pl.String)
    px = [pl.col(name) // UNIT for name in ("bid_px", "ask_px")]
    touches = run.l1.select("seq", names, px[0], "bid_sz", px[1], "ask_sz").rows()
    assert touches == slow.touches
    book = run.book.select(names, "side", pl.col("price") // UNIT, "qty").rows()
    assert {row[:3]: row[3] for row in book} == slow.open()
    assert len(book) == len(slow.open())
    return run.digest


ROW = st.one_of(
    st.tuples(
        st.just("M"),
        st.sampled_from([1, -1]),
        st.integers(1, 4),
        st.sampled_from([0, 0, 1, 2, 5]),
        st.sampled_from("ABC"),
    ),
    st.tuples(
        st.sampled_from("TN"), st.sampled_from([1, 0, -1]), st.just(2), st.just(1), st.sampled_from("AB")
    ),
    st.tuples(st.just("R"), st.just(0), st.just(0), st.just(0), st.sampled_from("AB")),
    st.tuples(st.just("M"), st.just(1), st.integers(-1, 2), st.sampled_from([-3, 1]), st.just("A")),
)


@settings(max_examples=60)
@given(st.lists(ROW, min_size=1, max_size=40), st.integers(1, 7))
def test_levels_are_those_of_the_slow_twin(rows, chunk):
    """Outcomes, touches and books are equal, whole and in chunks, with one digest."""
    assert agree(rows) == agree(rows, chunk_rows=chunk) == agree(rows, path="event", chunk_rows=3)


def test_many_levels_in_many_chunks():
    """A longer walk, with books cleared in the middle, in every way that `verify` knows."""
    random = np.random.default_rng(7)
    rows = [
        ("R", 0, 0, 0, "AB"[random.integers(2)])
        if random.random() < 0.002
        else (
            "M",
            int(random.choice([1, -1])),
            int(random.integers(1, 60)),
            int(random.integers(0, 3)),
            str(random.choice(["A", "B"])),
        )
        for _ in range(6_000)
    ]
    assert agree(rows) == agree(rows, chunk_rows=997) == agree(rows, chunk_rows=50, threads=2)
    assert hftlab.verify(levels(*rows), mode="rebuild").ok


def test_a_level_comes_changes_and_goes():
    """The first size makes it, others set it, 0 takes it away, 0 of none is no news."""
    reader = LevelReader()
    sizes = [5, 7, 7, 0, 0, 3]
    actions = reader(levels(*(("M", 1, 10, size) for size in sizes))).columns.action.tolist()
    new, replace, cancel = int(Action.NEW), int(Action.REPLACE), int(Action.CANCEL)
    assert actions == [new, replace, replace, cancel, NOTE, new]
    again = reader(
        levels(("M", 1, 10, 4), ("M", -1, 10, 4), ("R", 0, 0, 0), ("M", 1, 10, 2), ("M", -1, 10, 0))
    )
    assert again.columns.action.tolist() == [replace, new, int(Action.CLEAR), new, NOTE]


def test_bid_and_ask_of_one_price_are_two_levels():
    """A crossed or locked book is what the venue said."""
    agree([("M", 1, 10, 1, "A"), ("M", -1, 10, 2, "A"), ("M", 1, 12, 3, "A"), ("M", 1, 10, 0, "A")])


def test_a_row_that_sets_nothing_legal_leaves_the_level():
    """A negative size is a reject, and what comes after is as if it had not been."""
    agree([("M", 1, 10, -5, "A"), ("M", 1, 10, 4, "A"), ("M", 1, 10, -1, "A"), ("M", 1, 10, 6, "A")])
    agree([("M", 1, 0, 4, "A"), ("M", 1, -2, 4, "A"), ("M", 1, 1, 4, "A")])


@pytest.mark.parametrize("cell", [float("nan"), 0.5])
def test_cells_that_are_no_number(cell):
    """They are refused row by row, and touch no level: not even that of price 0."""
    table = levels(("M", 1, 10, 4), ("M", 1, 10, 0), ("M", 1, 10, 3))
    sizes = table.set_column(5, "size", pa.array([4.0, cell, 3.0]))
    run = hftlab.replay(sizes, mode="rebuild")
    assert run.outcomes["status"].cast(str).to_list() == ["RESTING", "REJECTED", "REPLACED"]
    prices = levels(("M", 1, 0, 4), ("M", 1, NOT_A_VALUE, 4), ("M", 1, 0, 3))
    run = hftlab.replay(prices, mode="rebuild")
    assert run.rejects["reason"].cast(str).unique().to_list() == ["INVALID_PRICE"]


def test_books_keep_their_levels_when_their_number_changes():
    """Symbols are numbered anew in each chunk; levels follow the name."""
    reader = LevelReader()
    reader(levels(("M", 1, 10, 1, "B"), ("M", 1, 20, 1, "A"), ("M", 1, 30, 1, "C")))
    second = reader(
        levels(("M", 1, 20, 2, "A"), ("M", 1, 10, 0, "A"), ("R", 0, 0, 0, "A"), ("M", 1, 20, 1, "A"))
    )
    replace, new = int(Action.REPLACE), int(Action.NEW)
    assert second.columns.action.tolist() == [replace, NOTE, int(Action.CLEAR), new]
    third = reader(
        levels(("M", 1, 30, 2, "C"), ("M", 1, 10, 2, "B"), ("M", 1, 20, 2, "A"), ("M", 1, 20, 2, "D"))
    )
    assert third.columns.action.tolist() == [replace, replace, replace, new]


def test_thousands_of_books():
    """The work is per row, not per row and book."""
    names = [f"S{i}" for i in range(5_000)]
    rows = [("M", 1, 10, size, name) for size in (1, 2, 0) for name in names]
    assert agree(rows) == agree(rows, chunk_rows=4_000)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("A", 1, 10, 1), "column action, row 8: found A, expected M, R, T or N of levels"),
        (("C", 1, 10, 1), "column action, row 8: found C, expected M, R, T or N of levels"),
        (("M", 0, 10, 1), "column side, row 8: found no side, expected BUY or SELL on every M"),
    ],
)
def test_rows_that_are_none_of_levels(row, said):
    """A table of orders under this name, or a level on no side, is of the wrong shape."""
    with pytest.raises(TableError) as caught:
        LevelReader()(levels(("M", 1, 10, 1), row), first_row=7)
    assert str(caught.value) == f"mbp table: 1 problem: {said}"


def test_a_table_without_rows():
    """Nothing was said, and what was open stays."""
    reader = LevelReader()
    reader(levels(("M", 1, 10, 1)))
    assert reader(levels()).rows == 0
    assert reader(levels(("M", 1, 10, 2))).columns.action.tolist() == [int(Action.REPLACE)]


def test_levels_can_not_be_matched():
    """Nobody knows the orders behind them."""
    with pytest.raises(UsageError, match="levels can be rebuilt"):
        hftlab.replay(levels(("M", 1, 10, 1)), mode="match")


def test_verify_on_the_command_line(tmp_path, capsys):
    """Every way to rebuild levels gives one digest, also from a file."""
    rows = [("M", (-1) ** i, 1 + i % 9, i % 4, "AB"[i % 5 == 0]) for i in range(3_000)]
    table = levels(*rows).replace_schema_metadata({"hftlab.table": "mbp"})
    pq.write_table(table, tmp_path / "levels.parquet", row_group_size=700)
    assert main(["verify", str(tmp_path / "levels.parquet"), "--mode", "rebuild"]) == 0
    assert "every way agrees" in capsys.readouterr().out
