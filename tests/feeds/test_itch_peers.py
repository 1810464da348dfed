"""ITCH 5.0 against independent packages: message by message, and book by book after each message.

itchfeed and itchcpp (one author, two implementations), MeatPy and itch-book; each test skips without its own.
"""

from __future__ import annotations

import os
from datetime import datetime

import numpy as np
import polars as pl
import pytest

import hftlab
from hftlab.feeds import itch, open_flow
from tests.helpers import itch_encoder as encode

os.environ.setdefault("ITCH_NO_CPP", "1")  # itchfeed in Python, although itchcpp is there

NAME = "01022024.NASDAQ_ITCH50"
SYMBOLS = 3
HEADER = {"timestamp", "stock_locate", "tracking_number", "message_type", "type"}


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """A file of all 23 types, and the messages it was made of."""
    events = encode.market(20_000, SYMBOLS, seed=11)
    (path := tmp_path_factory.mktemp("itch") / NAME).write_bytes(encode.encoded(events))
    return path, events


# ------------------------------------------------------------------ message by message


def plain(value):
    """Texts of any package and ours, as one."""
    return value.decode("latin-1").rstrip() if isinstance(value, bytes) else value


def told_by(messages, kind_of, names_of):
    """What a package tells: by type, (time, fields as in the specification) of each message."""
    told = {}
    for message in messages:
        fields = tuple(plain(getattr(message, name)) for name in names_of(message))
        told.setdefault(plain(kind_of(message)), []).append((message.timestamp, *fields))
    return told


def own_names(message):
    """The attributes of a message, in the order in which they stand in the file."""
    return [name for name in vars(message) if name not in HEADER and not name.startswith("_")]


def field_values(layout, table):
    """The fields of our table of a type, in the units and the order of the file."""
    for field in layout.fields:
        column = table.column("symbol" if field.name == "stock" else field.name)
        unit = {"price": itch.PRICE_UNITS, "price8": itch.PRICE8_UNITS}.get(field.kind, 1)
        values = column.to_pylist()
        if field.kind == "side":
            yield ["B" if value > 0 else "S" for value in values]
        else:
            yield [value // unit if unit > 1 else value for value in values]


def told_by_us(path):
    """The same of ours: from the extra tables, and from the mbo rows of the types that have none."""
    flow = open_flow(path)
    told = {}
    for name, layout in itch.LAYOUTS.items():
        table = flow.extras[name]()
        times = (table.column("ts_event").cast("int64").to_numpy() - encode.MIDNIGHT_NS).tolist()
        told[layout.kind] = list(zip(times, *field_values(layout, table), strict=True))
    rows = pl.from_arrow(flow.table()).with_columns(
        pl.col("ts_event").cast(pl.Int64) - encode.MIDNIGHT_NS,
        pl.col("symbol", "action").cast(pl.String),
        pl.col("price") // itch.PRICE_UNITS,
    )
    kinds = dict(enumerate(chr(kind) for kind in encode_kinds(path)))
    by_kind = {kind: [] for kind in "AXDU"}
    for ts, _, symbol, action, side, price, size, order_id, _, sequence in rows.iter_rows():
        kind = kinds[sequence]
        if kind == "A":
            by_kind["A"].append((ts, order_id, "B" if side > 0 else "S", size, symbol, price))
        elif kind in "XD":
            by_kind[kind].append((ts, order_id, size)[: 3 if kind == "X" else 2])
        elif kind == "U" and action == "C":
            by_kind["U"].append((ts, order_id))
        elif kind == "U":
            by_kind["U"][-1] += (order_id, size, price)
    return told | by_kind


def encode_kinds(path):
    """The type of each message of a framed file."""
    data, at, kinds = path.read_bytes(), 0, []
    while at < len(data):
        kinds.append(data[at + 2])
        at += 2 + int.from_bytes(data[at : at + 2], "big")
    return kinds


def assert_told_alike(ours, theirs, without=""):
    assert set(theirs) == set(encode.LENGTHS) - set(without)
    for kind, messages in theirs.items():
        assert ours[kind] == messages, kind


def test_itchfeed_reads_the_same(day):
    """Every field of every message of all 23 types."""
    parser = pytest.importorskip("itch.parser", reason="needs itchfeed, of the extra peers")
    with day[0].open("rb") as file:
        theirs = told_by(parser.MessageParser().parse_file(file), lambda m: m.message_type, own_names)
    assert_told_alike(told_by_us(day[0]), theirs)


def test_itchcpp_reads_the_same(day):
    """The same, by its C++; which attributes there are, and in what order, tells its Python twin."""
    parser = pytest.importorskip("itchcpp.parser", reason="needs itchcpp, of the extra peers")
    twin = pytest.importorskip("itch.messages", reason="needs itchfeed, of the extra peers")
    samples = {kind: encode.message(kind) for kind in encode.LENGTHS}
    names = {kind: own_names(twin.messages[kind.encode()](raw)) for kind, raw in samples.items()}
    with day[0].open("rb") as file:
        messages = list(parser.MessageParser().parse_file(file))
    theirs = told_by(messages, lambda m: m.message_type, lambda m: names[plain(m.message_type)])
    assert_told_alike(told_by_us(day[0]), theirs)


def test_meatpy_reads_the_same(day, tmp_path):
    """The same but for O, to which MeatPy 0.5 gives 52 bytes where the specification has 48."""
    reader = pytest.importorskip("meatpy.itch50", reason="needs meatpy, of the extra peers")
    (path := tmp_path / NAME).write_bytes(encode.encoded(day[1][day[1]["kind"] != ord("O")]))
    with reader.ITCH50MessageReader(path) as messages:
        theirs = told_by(messages, lambda m: m.type, own_names)
    assert_told_alike(told_by_us(path), theirs, without="O")


def test_itch_book_reads_the_same(day):
    """Side, price, size of each message about an order, and what is left of it, all as our rows say."""
    itch_book = pytest.importorskip("itch_book", reason="needs itch-book, of the extra peers")
    feed = itch_book.open(str(day[0]), price_type="fixed")
    (batch,) = feed.batches(tables=("messages", "trades"), rows=10**9)
    theirs = batch.messages
    found = pl.from_arrow(open_flow(day[0]).table())
    ours = found.filter(pl.col("action").cast(pl.String).is_in(["A", "C"]))
    ours = ours.filter(pl.col("flags") == 128)  # of a U the A
    assert np.array_equal(theirs["seq"].astype(np.int64) - 1, ours["sequence"].to_numpy())
    assert np.array_equal(theirs["ts_event"], ours["ts_event"].cast(pl.Int64).to_numpy())
    sides = np.where(theirs["side"] == b"B", 1, np.where(theirs["side"] == b"S", -1, 0))
    assert np.array_equal(sides, ours["side"].to_numpy())
    priced = theirs["type"] != b"C"  # of which they tell the price of the execution
    prices = ours["price"].to_numpy() // itch.PRICE_UNITS
    assert np.array_equal(theirs["price"][priced], prices[priced])
    assert np.array_equal(theirs["size"], ours["size"].to_numpy())
    executed = found.filter(pl.col("action").cast(pl.String).is_in(["F", "T"]))
    trades = batch.trades
    real = trades["kind"] != b"B"
    assert np.array_equal(trades["seq"][real].astype(np.int64) - 1, executed["sequence"].to_numpy())
    assert np.array_equal(trades["price"][real], executed["price"].to_numpy() // itch.PRICE_UNITS)
    assert np.array_equal(trades["size"][real], executed["size"].to_numpy())


# ------------------------------------------------------------------ book by book

SIDES = [f"{side}_{what}" for side in ("bid", "ask") for what in ("px", "sz", "ct")]


def states(frame, columns):
    """The last state of each message, of those that changed it; of columns of numbers, prices in 1e-4."""
    keys = ["locate", "sequence"]
    frame = frame.select(*keys, *columns).unique(keys, keep="last", maintain_order=True)
    before = [pl.col(name).shift(1, fill_value=0).over("locate") for name in columns]
    changed = pl.any_horizontal(pl.col(n) != b for n, b in zip(columns, before, strict=True))
    return frame.filter(changed)


def ours_with(path, table):
    """A table of a rebuild with locate and number of the message instead of symbol and row."""
    rows = pl.from_arrow(open_flow(path).table()).select("sequence").with_row_index("seq")
    frame = table.with_columns(pl.col("seq").cast(pl.UInt32)).join(rows, on="seq", maintain_order="left")
    locate = pl.col("symbol").cast(pl.String).str.slice(3).cast(pl.Int64) + 1
    prices = [pl.col(name).fill_null(0) // itch.PRICE_UNITS for name in table.columns if "_px" in name]
    return frame.with_columns(locate.alias("locate"), *prices)


def theirs_of(table):
    """A table of itch-book in the same terms."""
    frame = pl.DataFrame({name: np.asarray(column).astype(np.int64) for name, column in table.items()})
    return frame.with_columns((pl.col("seq") - 1).alias("sequence"))


def test_itch_book_has_the_same_books(day):
    """Best bid and offer, and five levels of either side, after every message."""
    itch_book = pytest.importorskip("itch_book", reason="needs itch-book, of the extra peers")
    feed = itch_book.open(str(day[0]), price_type="fixed")
    (batch,) = feed.batches(tables=("bbo", "depth"), rows=10**9, depth=5)
    run = hftlab.replay(open_flow(day[0]), mode="rebuild", record=("l1",))
    ours = states(ours_with(day[0], run.l1), SIDES)
    theirs = states(theirs_of(batch.bbo), SIDES)
    assert ours.height > 1000
    assert ours.equals(theirs)
    wide = hftlab.to_wide(run.depth(5))
    none = [pl.col(n).replace(hftlab.codes.UNDEF_PRICE, 0) for n in wide.columns if "_px" in n]
    levels = [f"{name}_{level:02d}" for level in range(5) for name in SIDES]
    ours, theirs = ours_with(day[0], wide.with_columns(none)), theirs_of(batch.depth)
    assert states(ours, levels).equals(states(theirs, levels))


def test_itchcpp_has_the_same_books(day):
    """Best bid and offer of each symbol at a hundred points of the day and after it."""
    book = pytest.importorskip("itchcpp.book", reason="needs itchcpp, of the extra peers")
    path, events = day
    run = hftlab.replay(open_flow(path), mode="rebuild", record=("l1",))
    ours = states(ours_with(path, run.l1), SIDES)
    manager = book.BookManager()
    names = [encode.stock(locate) for locate in range(1, SYMBOLS + 1)]
    for name in names:
        manager.track_symbol(name)
    data, step = encode.encoded(events).tobytes(), events.size // 100
    ends = np.cumsum([2 + encode.LENGTHS[chr(kind)] for kind in events["kind"]]).tolist()
    compared = 0
    for first in range(0, events.size, step):
        stop = min(first + step, events.size)
        manager.process_stream(data[ends[first - 1] if first else 0 : ends[stop - 1]])
        now = ours.filter(pl.col("sequence") < stop).group_by("locate").last()
        for locate, *_, values in [(row[0], row[2:]) for row in now.iter_rows()]:
            bbo = manager.book_for_symbol(names[locate - 1]).bbo()
            bid = (round(bbo.bid_price * 10_000), bbo.bid_shares) if bbo.has_bid else (0, 0)
            ask = (round(bbo.ask_price * 10_000), bbo.ask_shares) if bbo.has_ask else (0, 0)
            assert (*values[:2], *values[3:5]) == (*bid, *ask), f"message {stop}, locate {locate}"
            compared += 1
    assert compared > 200


def queues_of_meatpy(lob):
    """(side, price, order, shares) of all orders, bids then asks, best level first, oldest order first."""
    return [
        (side, level.price, order.order_id, order.volume)
        for side, levels in ((1, lob.bid_levels), (-1, lob.ask_levels))
        for level in levels
        for order in level.queue
    ]


def test_meatpy_has_the_same_books(day, tmp_path):
    """Every order of a symbol in its place in the queue, at points of the day and after it."""
    meatpy = pytest.importorskip("meatpy.itch50", reason="needs meatpy, of the extra peers")
    events = day[1][day[1]["kind"] != ord("O")]
    (path := tmp_path / NAME).write_bytes(encode.encoded(events))
    table = open_flow(path).table()
    sequence = table.column("sequence").to_numpy()
    name = encode.stock(1)
    processor = meatpy.ITCH50MarketProcessor(name, datetime(2024, 1, 2))
    points = [events.size // 7, events.size // 3, events.size // 2, events.size]
    with meatpy.ITCH50MessageReader(path) as messages:
        for number, message in enumerate(messages, start=1):
            processor.process_message(message)
            if number not in points:
                continue
            part = table.slice(0, int(np.searchsorted(sequence, number)))
            book = hftlab.replay(part, mode="rebuild", symbols=name).book
            ours = book.with_columns(pl.col("price") // itch.PRICE_UNITS)
            ours = ours.select("side", "price", "order_id", "qty").rows()
            assert ours == queues_of_meatpy(processor.current_lob), f"message {number}"
            assert len(ours) > 100
