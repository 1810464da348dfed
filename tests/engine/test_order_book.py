"""OrderBook as an object: copies, snapshots, growth, arguments; what commands do is in test_matching.py."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pyarrow as pa
import pytest

import hftlab
from hftlab.errors import FormatError, UsageError


def book_of(*prices: str) -> hftlab.OrderBook:
    book = hftlab.OrderBook(symbol="X", tick_size="0.01")
    for i, price in enumerate(prices, 1):
        book.submit(i, "buy", price, 5)
    return book


@pytest.mark.parametrize(
    "twin_of",
    [
        hftlab.OrderBook.copy,
        copy.copy,
        copy.deepcopy,
        lambda b: pickle.loads(pickle.dumps(b)),
        lambda b: hftlab.OrderBook.restore(b.snapshot()),
    ],
    ids=["copy()", "copy.copy", "deepcopy", "pickle", "snapshot"],
)
def test_a_copy_is_a_book_of_its_own(twin_of):
    """What happens to a copy does not happen to the original, growth included."""
    book = book_of("1", "2", "2")
    twin = twin_of(book)
    assert twin.orders().equals(book.orders())
    assert (twin.symbol, twin.tick_size) == (book.symbol, book.tick_size)
    for order_id in range(10, 3_000):
        twin.submit(order_id, "buy", "150000", 1)
    twin.cancel(1)
    assert len(book) == 3
    assert book.depth().bids == [(2_000_000_000, 10, 2), (1_000_000_000, 5, 1)]
    assert len(twin) == 2_992


def test_far_prices_and_many_orders_only_make_it_grow():
    """Random prices from 0.01 to 199,999.99 rest where they were put."""
    rng = np.random.default_rng(3)
    ticks = rng.integers(1, 20_000_000, 3_000)
    book = hftlab.OrderBook(tick_size="0.01")
    for order_id, tick in enumerate(ticks.tolist()):
        assert book.submit(order_id, "buy", tick * 10_000_000, 1).status == "RESTING"
    prices = sorted((ticks * 10_000_000).tolist(), reverse=True)
    assert book.orders()["price"].to_list() == prices
    assert [level.price for level in book.depth(3_000).bids] == list(dict.fromkeys(prices))
    assert book.best_bid.price == prices[0]
    assert book.depth(3_000).asks == []


@pytest.mark.parametrize("levels", [0, -1, "x", 1.5, True])
def test_a_depth_of_no_levels_is_a_usage_error(levels):
    """A number of levels is a whole number of 1 or more."""
    with pytest.raises(UsageError, match="levels"):
        book_of("1").depth(levels)


def test_prices_may_be_negative_where_the_instrument_says_so():
    """Spreads trade below zero."""
    book = hftlab.OrderBook(tick_size="0.25", allow_nonpositive_prices=True)
    book.submit(1, "sell", "-0.50", 3)
    assert book.best_ask == (-500_000_000, 3, 1)
    assert book.submit(2, "buy", 0, 3).fills[0].price == -500_000_000


@pytest.mark.parametrize(
    "blob",
    [None, "x", b"", b"hello", book_of("1").snapshot()[:-200], book_of("1").orders().to_arrow()],
)
def test_what_is_no_snapshot_is_refused(blob):
    """Text, other bytes and half a snapshot are FormatErrors."""
    with pytest.raises(FormatError, match="snapshot"):
        hftlab.OrderBook.restore(blob)


@pytest.mark.parametrize(("column", "value"), [("qty", -5), ("price", 1), ("side", 0)])
def test_a_snapshot_of_orders_that_cannot_rest_is_refused(column, value):
    """A snapshot somebody has changed does not become a book."""
    with pa.ipc.open_stream(book_of("1").snapshot()) as stream:
        table = stream.read_all()
    place = table.schema.get_field_index(column)
    table = table.set_column(
        place, table.schema.field(place), pa.array([value], table.schema.field(place).type)
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    with pytest.raises(FormatError, match="can't rest"):
        hftlab.OrderBook.restore(sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    "arguments",
    [
        {"order_id": -1},
        {"order_id": 2**64},
        {"order_id": 1.5},
        {"order_id": "1"},
        {"side": "up"},
        {"side": None},
        {"order_type": "STOP"},
        {"tif": 9},
        {"account": 2**31},
        {"account": "me"},
    ],
)
def test_an_argument_of_the_wrong_kind_is_a_usage_error(arguments):
    """The book is as it was afterwards."""
    book = book_of("1")
    with pytest.raises(UsageError, match=next(iter(arguments))):
        book.submit(**({"order_id": 7, "side": "buy", "price": "1", "qty": 1} | arguments))
    assert len(book) == 1


def test_codes_are_taken_in_any_spelling():
    """Names in any case, short forms, members and integers."""
    book = hftlab.OrderBook(tick_size="0.01")
    for order_id, side in enumerate(("buy", "BUY", "Buy", "b", "B", "bid", 1, hftlab.Side.BUY)):
        assert book.submit(order_id, side, "1", 1, order_type="limit", tif="Day").status == "RESTING"
    assert len(book) == 8


def test_it_shows_itself():
    """In a terminal and in a notebook."""
    book = book_of("1.25")
    assert repr(book) == "<OrderBook X 5@1.25 | -, 1 orders>"
    assert "1.25" in book._repr_html_()


def test_a_reject_of_validation_has_the_values_of_the_rejects_table():
    """Limit and observed value of a bad price or quantity are in the ack as in the table of a batch."""
    rows = [("10.005", 5), ("10.00", 0), ("-1.00", 5), ("10.00", -3)]
    book = hftlab.OrderBook(tick_size="0.01")
    acks = [book.submit(1, "buy", price, qty) for price, qty in rows]
    flow = {
        "action": ["NEW"] * len(rows),
        "order_id": [1] * len(rows),
        "side": [1] * len(rows),
        "price": [price for price, _ in rows],
        "qty": [qty for _, qty in rows],
    }
    rejects = hftlab.replay(flow, tick_size="0.01").rejects
    told = [(ack.reason.name, ack.limit_value, ack.observed_value) for ack in acks]
    assert told == rejects.select("reason", "limit_value", "observed_value").rows()
    assert told[0] == ("INVALID_PRICE", 10_000_000, 10_005_000_000)
    assert book.submit(1, "buy", 2**70, 5)[-2:] == (10_000_000, None)  # beyond 64 bits
    assert book.cancel(99)[-2:] == (None, None)


def test_a_fill_names_its_taker():
    """`taker_order_id` is the id of the order that came, after a REPLACE its new one, up to 2^64-1."""
    book = hftlab.OrderBook()
    book.submit(1, "sell", "10", 5)
    assert [fill.taker_order_id for fill in book.submit(2**64 - 1, "buy", "10", 1).fills] == [2**64 - 1]
    book.submit(3, "buy", "9", 2)
    assert [fill.taker_order_id for fill in book.replace(3, "10", 1).fills] == [3]
    book.submit(4, "buy", "9", 2)
    assert [fill.taker_order_id for fill in book.replace(4, "10", 1, new_order_id=5).fills] == [5]
