"""ITCH 5.0: what each message becomes, framings, symbols, dates, damage; other decoders agree."""

from __future__ import annotations

import gzip
import lzma
import mmap
from datetime import date

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hftlab
from hftlab.errors import FormatError, HftlabError, UsageError
from hftlab.feeds import itch, open_flow
from hftlab.feeds.parsing import containers
from hftlab.schema import MBO
from tests.helpers import itch_encoder as encode
from tests.helpers.itch_encoder import message
from tests.helpers.slices import fewer, fuzz_budget
from tests.reference import itch as slow

NAME = "01302019.NASDAQ_ITCH50"
MIDNIGHT_NS = 1548824400 * 10**9  # 2019-01-30 00:00 in New York, UTC-5
FRAMINGS = ("framed", "soup", "bare")
COLUMNS = ("action", "side", "price", "size", "order_id", "flags", "sequence")


def write(folder, *messages, framing="framed", name=NAME):
    """A file of these messages."""
    (path := folder / name).write_bytes(getattr(encode, framing)(messages))
    return path


def facts(flow, *columns):
    """Rows of the mbo table as tuples; names of actions, prices in 1e-4."""
    frame = pl.from_arrow(flow.table()).with_columns(
        pl.col("action", "symbol").cast(pl.String), pl.col("price") // itch.PRICE_UNITS
    )
    return frame.select(pl.col(columns or COLUMNS)).rows()


def times(flow):
    return [t - MIDNIGHT_NS for t in flow.table().column("ts_event").cast("int64").to_pylist()]


def rows_of(table):
    """A table as the slow decoder's rows."""
    frame = pl.from_arrow(table).with_columns(
        pl.col("ts_event").cast(pl.Int64) - MIDNIGHT_NS,
        pl.col("symbol", "action").cast(pl.String),
        pl.col("price") // itch.PRICE_UNITS,
    )
    return [slow.Row(*row) for row in frame.drop("ts_recv").rows()]


def in_batches(path, rows):
    """The rows of all batches of a file."""
    return [row for part in open_flow(path).batches(rows) for row in rows_of(part)]


def add(reference=7, side="B", shares=100, price=5853300, stock="AAPL", kind="A", **more):
    return message(kind, reference=reference, side=side, shares=shares, price=price, stock=stock, **more)


BUY, SELL = add(), add(8, "S", 60, 5853400)
A7, A8 = ("A", 1, 5853300, 100, 7, 128, 0), ("A", -1, 5853400, 60, 8, 128, 1)


# ------------------------------------------------------------------ messages to facts


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (message("E", reference=7, shares=40), [("F", 1, 5853300, 40, 7, 0), ("C", 1, 5853300, 40, 7, 128)]),
        (
            message("C", reference=8, shares=60, price=5853350, printable="N"),
            [("F", -1, 5853350, 60, 8, 0), ("C", -1, 5853400, 60, 8, 128)],
        ),
        (message("X", reference=7, shares=40), [("C", 1, 5853300, 40, 7, 128)]),
        (message("D", reference=8), [("C", -1, 5853400, 60, 8, 128)]),
        (
            message("U", reference=8, new=9, shares=10, price=5853500),
            [("C", -1, 5853400, 60, 8, 0), ("A", -1, 5853500, 10, 9, 128)],
        ),
        (add(9, "S", 5, 100, kind="F", mpid="GSCO"), [("A", -1, 100, 5, 9, 128)]),
        (add(0, "B", 5, 100, kind="P"), [("T", 0, 100, 5, 0, 130)]),
        (message("Q", shares=10**10, stock="AAPL", price=100, cross="O"), [("T", 0, 100, 10**10, 0, 128)]),
        (message("Q", shares=0, stock="AAPL", price=100, cross="O"), []),
        (message("B", match=5), [("N", 0, 0, 0, 0, 128)]),
        (message("H", stock="AAPL", state="H", reason="T1"), [("N", 0, 0, 0, 0, 128)]),
        *((message(kind), []) for kind in "SRYLVWKJhINO"),
    ],
    ids=lambda value: chr(value[0]) if isinstance(value, bytes) else "",
)
def test_what_a_message_becomes(tmp_path, last, expected):
    """Each of the 23 types has its facts; what a message leaves out comes from its order."""
    flow = open_flow(write(tmp_path, BUY, SELL, last))
    assert facts(flow) == [A7, A8, *((*row, 2) for row in expected)]
    assert flow.faults == []


@pytest.mark.parametrize(
    ("name", "sides", "flags"),
    [
        ("07112014.NASDAQ_ITCH50", (-1, 1), 128),
        ("07142014.NASDAQ_ITCH50", (0, 0), 130),
        (NAME, (0, 0), 130),
        ("capture.bin", (0, 0), 130),
    ],
)
def test_the_side_of_a_hidden_order(tmp_path, name, sides, flags):
    """The aggressor's, which is the other than P tells; none since NASDAQ masks it, from 2014-07-14 on."""
    cross = message("Q", shares=9, stock="AAPL", price=100, cross="O")
    path = write(tmp_path, add(0, "B", 5, 100, kind="P"), add(0, "S", 5, 100, kind="P"), cross, name=name)
    flow = open_flow(path)
    assert facts(flow, "side", "flags") == [(sides[0], flags), (sides[1], flags), (0, 128)]
    assert hftlab.certify(flow).causes == {"AUCTION": 1, "HIDDEN_ORDER": 2}


def test_a_file_becomes_a_table(tmp_path):
    """Schema MBO, times in UTC, the symbol of the directory, messages numbered as they stand in the file."""
    flow = open_flow(
        write(
            tmp_path, message("S", event="O"), message("R", 5, stock="MSFT"), add(locate=5, ts=34_200 * 10**9)
        )
    )
    assert flow.table().schema.equals(MBO)
    assert (flow.kind, flow.format, flow.num_rows, flow.notes) == ("mbo", "itch", 1, [])
    assert facts(flow, "symbol", "sequence") == [("MSFT", 2)]
    assert times(flow) == [34_200 * 10**9]
    assert flow.table().column("ts_recv").equals(flow.table().column("ts_event"))


def test_sizes_go_down_to_nothing(tmp_path):
    """What is open is what was added less what was taken off, and then the order is gone."""
    parts = [
        message("E", reference=7, shares=30),
        message("X", reference=7, shares=50),
        message("D", reference=7),
    ]
    flow = open_flow(write(tmp_path, BUY, *parts, message("D", reference=7)))
    assert [row[3] for row in facts(flow)] == [100, 30, 30, 50, 20, 1]
    assert flow.notes[0] == "messages about orders that are not open (side 0, price 0): 1"


def test_an_order_nobody_saw_is_refused_as_unknown(tmp_path):
    """Of what D and U delete at least one lot was open: what is wrong with them is the id, not the size."""
    flow = open_flow(write(tmp_path, BUY, message("D", reference=8), message("U", reference=9, new=10)))
    for mode in ("rebuild", "match"):
        assert hftlab.replay(flow, mode).summary()["reasons"] == {"UNKNOWN_ORDER": 2}


def test_more_than_is_open(tmp_path):
    """Size is what the message says; the order is gone and the note counts it."""
    flow = open_flow(write(tmp_path, BUY, message("X", reference=7, shares=101), message("D", reference=7)))
    assert facts(flow)[1:] == [("C", 1, 5853300, 101, 7, 128, 1), ("C", 0, 0, 1, 7, 128, 2)]
    assert "executions and cancels of more than was open: 1" in flow.notes


def test_orders_nobody_knows(tmp_path):
    """No side and no price, and no A for what replaces them."""
    flow = open_flow(
        write(
            tmp_path,
            message("E", reference=5, shares=3),
            message("U", reference=5, new=6, shares=10, price=20),
            message("D", reference=6),
        )
    )
    assert facts(flow) == [
        ("F", 0, 0, 3, 5, 0, 0),
        ("C", 0, 0, 3, 5, 128, 0),
        ("C", 0, 0, 1, 5, 0, 1),
        ("N", 0, 20, 10, 6, 128, 1),
        ("C", 0, 0, 1, 6, 128, 2),
    ]


def test_a_reference_used_again(tmp_path):
    """After its order is gone it is free; while it is open, the newer order takes its place, counted."""
    flow = open_flow(
        write(
            tmp_path, BUY, message("D", reference=7), add(side="S"), add(shares=5), message("D", reference=7)
        )
    )
    assert [(row[1], row[3]) for row in facts(flow)] == [(1, 100), (1, 100), (-1, 100), (1, 5), (1, 5)]
    assert flow.notes[0] == "orders added under a reference that was open (the older one is forgotten): 1"


def test_a_reference_is_its_locate_s(tmp_path):
    """Two instruments may use one number."""
    flow = open_flow(
        write(tmp_path, add(), add(locate=2, stock="MSFT", side="S", shares=9), message("D", reference=7))
    )
    assert facts(flow, "symbol", "side", "size") == [("AAPL", 1, 100), ("MSFT", -1, 9), ("AAPL", 1, 100)]


def test_orders_that_would_share_a_place(tmp_path):
    """References a power of two apart, more than there is room for at first, taken off in another order."""
    random = np.random.default_rng(4)
    references = [n << 22 for n in range(1, fewer(20_000, plain=8) + 1)]
    flow = [add(r, "BS"[n % 2], 10 + n % 7, 100 + n % 11, locate=n % 3) for n, r in enumerate(references)]
    for n in random.permutation(len(references)).tolist():
        if n % 5:
            flow.append(message("X", n % 3, reference=references[n], shares=9))
        flow.append(message("D", n % 3, reference=references[n]))
    flow += [message("D", 0, reference=references[0])]
    path = write(tmp_path, *flow)
    assert rows_of(open_flow(path).table()) == slow.Decoder().decode(flow)
    assert in_batches(path, 9_999) == slow.Decoder().decode(flow)


def test_the_limits_of_the_fields(tmp_path):
    """Largest price, size and reference; a cross beyond 63 bits is the largest size there is."""
    top = 2**32 - 1
    flow = open_flow(
        write(
            tmp_path,
            add(2**64 - 1, "S", top, top),
            message("X", reference=2**64 - 1, shares=top - 1),
            message("E", reference=2**64 - 1, shares=1),
            message("Q", shares=2**64 - 1, stock="AAPL", price=top),
            add(0, "B", 0, 0),
        )
    )
    assert [row[1:5] for row in facts(flow)] == [
        (-1, top, top, 2**64 - 1),
        (-1, top, top - 1, 2**64 - 1),
        (-1, top, 1, 2**64 - 1),
        (-1, top, 1, 2**64 - 1),
        (0, top, 2**63 - 1, 0),
        (1, 0, 0, 0),
    ]


def test_times_that_run_backwards(tmp_path):
    """File order is the only order."""
    flow = open_flow(write(tmp_path, add(1, ts=20), add(2, ts=10), add(3, ts=10), add(4, ts=30)))
    assert times(flow) == [20, 10, 10, 30]
    assert "messages earlier than the one before (file order is kept): 1" in flow.notes


def test_a_side_that_is_none(tmp_path):
    """An A that doesn't tell its side is damage: N takes its place."""
    flow = open_flow(write(tmp_path, BUY, add(8, "x"), message("D", reference=8)))
    assert facts(flow, "action", "side", "order_id") == [("A", 1, 7), ("N", 0, 8), ("C", 0, 8)]
    assert [str(fault) for fault in flow.faults] == ["byte 59: found side 'x', expected B or S"]


# ------------------------------------------------------------------ symbols


def test_symbols_without_a_directory(tmp_path):
    """The first message that names its stock does; what nothing names is called by its locate."""
    flow = open_flow(
        write(
            tmp_path,
            message("D", 4, reference=1),
            message("D", 5, reference=1),
            add(locate=5, stock="MSFT"),
            message("Q", 6, shares=1, stock="IBM"),
            add(locate=4, stock="    "),
        )
    )
    assert facts(flow, "symbol") == [("#4",), ("#5",), ("MSFT",), ("IBM",), ("#4",)]
    assert "symbols without a directory message: 3" in flow.notes


def test_a_locate_that_is_given_another_name(tmp_path):
    """From then on; two locates of one name are one symbol."""
    flow = open_flow(
        write(
            tmp_path,
            message("R", 5, stock="ONE"),
            add(1, locate=5),
            message("R", 5, stock="TWO"),
            add(2, locate=5),
            message("R", 6, stock="ONE"),
            add(3, locate=6),
        )
    )
    assert facts(flow, "symbol") == [("ONE",), ("TWO",), ("ONE",)]
    assert flow.table().column("symbol").combine_chunks().dictionary.to_pylist() == ["ONE", "TWO"]


def test_more_symbols_than_there_is_room_for_at_first(tmp_path):
    """All 65,536 locates, and a few that change their names."""
    messages = [message("R", n, stock=f"S{n}") for n in range(1 << 16)]
    messages += [add(n, locate=n) for n in range(1 << 16)]
    messages += [message("R", 9, stock="NEW"), add(5, locate=9)]
    flow = open_flow(write(tmp_path, *messages))
    assert facts(flow, "symbol") == [(f"S{n}",) for n in range(1 << 16)] + [("NEW",)]


MIXED = [
    message("S", event="O"),
    message("R", 1, stock="AAPL"),
    message("R", 2, stock="MSFT"),
    add(10, locate=1),
    add(11, locate=2, stock="MSFT"),
    message("E", 2, reference=11, shares=4),
    message("E", 1, reference=10, shares=5),
    add(12, locate=3, stock="IBM", side="S"),
    message("U", 3, reference=12, new=13, shares=1, price=2),
    message("D", 2, reference=11),
    message("D", 1, reference=10),
    message("D", 3, reference=13),
]


@pytest.mark.parametrize("wanted", ["AAPL", "MSFT", "IBM", "IBM,AAPL", "XXX,MSFT", "LONGER THAN 8,IBM"])
def test_only_some_symbols(tmp_path, wanted):
    """Their rows are those of the whole table, and say where they stand in it."""
    path = write(tmp_path, *MIXED)
    whole = pl.from_arrow(open_flow(path).table()).with_row_index("seq")
    expected = whole.filter(pl.col("symbol").cast(pl.String).is_in(wanted.split(",")))
    found = pl.from_arrow(open_flow(path, symbols=wanted).table())
    assert found["seq"].to_list() == expected["seq"].to_list()
    columns = [column for column in whole.columns if column != "seq"]
    as_text = pl.col("symbol").cast(pl.String)
    assert found.select(columns).with_columns(as_text).equals(expected.select(columns).with_columns(as_text))


@pytest.mark.parametrize("chunk_rows", [None, 100])
def test_rows_are_counted_before_the_filter(tmp_path, chunk_rows):
    """A replay of some symbols is the same whether the decoder or the replay leaves out the others."""
    events = encode.market(fewer(3_000), 5, seed=8)
    (path := tmp_path / MARKET_NAME).write_bytes(encode.encoded(events))
    wanted, how = "SYM001,SYM003", {"mode": "rebuild", "record": ("l1", "outcomes"), "chunk_rows": chunk_rows}
    early = hftlab.replay(open_flow(path, symbols=wanted), **how)
    late = hftlab.replay(open_flow(path), symbols=wanted, **how)
    assert early.digest == late.digest
    assert early.l1.drop("symbol").equals(late.l1.drop("symbol"))
    assert early.outcomes.equals(late.outcomes)


# ------------------------------------------------------------------ framings, wrappings, names


@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_framing_holds_the_same(tmp_path, framing):
    """With lengths, as SoupBinTCP packets and bare: the content tells."""
    flow = open_flow(write(tmp_path, *MIXED, framing=framing, name="capture.bin"), date="2019-01-30")
    assert rows_of(flow.table()) == slow.Decoder().decode(MIXED)
    assert flow.faults == []


def test_packets_that_carry_no_message(tmp_path):
    """Heartbeats and the rest of SoupBinTCP are passed over."""
    data = encode.soup(MIXED[:6]) + b"\0\1H" + encode.soup(MIXED[6:]) + b"\0\1H\0\5+note\0\1Z"
    (path := tmp_path / NAME).write_bytes(b"\0\x1fA" + b" " * 29 + b"1" + data)
    flow = open_flow(path)
    assert rows_of(flow.table()) == slow.Decoder().decode(MIXED)
    assert flow.faults == []


@pytest.mark.parametrize("kind", ["", ".gz", ".xz", ".zst"])
def test_every_wrapping_holds_the_same(tmp_path, kind):
    """Plain, gzip, xz and zstd give one table."""
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}
    pack[".zst"] = lambda data: pa.compress(data, "zstd", asbytes=True)
    (path := tmp_path / (NAME + kind)).write_bytes(pack[kind](encode.framed(MIXED)))
    assert rows_of(open_flow(path).table()) == slow.Decoder().decode(MIXED)


@pytest.mark.parametrize("end", [b"", b"\0\0"])
@pytest.mark.parametrize("kind", ["", ".gz"])
def test_a_length_of_0_ends_a_session(tmp_path, kind, end):
    """It may stand at the end of a file."""
    data = encode.framed(MIXED) + end
    (path := tmp_path / (NAME + kind)).write_bytes(gzip.compress(data) if kind else data)
    flow = open_flow(path)
    assert rows_of(flow.table()) == slow.Decoder().decode(MIXED)
    assert flow.faults == []


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("01302019.NASDAQ_ITCH50", "2019-01-30"),
        ("07302019.NASDAQ_ITCH50", "2019-07-30"),
        ("S030220-v50.txt", "2020-03-02"),
        ("20190130.bin", "2019-01-30"),
        ("S081321-v50", "2021-08-13"),
        ("itch 2024-11-29.bin", "2024-11-29"),
    ],
)
def test_the_date_is_in_the_name(tmp_path, name, day):
    """Times are New York's on that day."""
    table = open_flow(write(tmp_path, add(1, ts=34_200 * 10**9), *[BUY] * 9, name=name)).table()
    expected = pl.Series([f"{day} 09:30"]).str.to_datetime(time_zone="America/New_York").dt.epoch("ns")
    assert table.column("ts_event").cast("int64")[0].as_py() == expected[0]


@pytest.mark.parametrize("day", ["2019-01-30", date(2019, 1, 30)])
def test_a_date_that_is_given(tmp_path, day):
    """As text, as a date, and before the one in the name."""
    assert times(open_flow(write(tmp_path, BUY, name="S030220-v50.txt"), date=day)) == [0]


@pytest.mark.parametrize("name", ["today.bin", "13992019.NASDAQ_ITCH50", "20191399.bin"])
def test_a_name_that_tells_no_date(tmp_path, name):
    """The day is 1970-01-01, as it is of a PITCH file, and a note says how to tell another."""
    flow = open_flow(write(tmp_path, *MIXED, name=name))
    note = "no date in the file name: the day is 1970-01-01 (option date=YYYY-MM-DD)"
    assert flow.notes[0] == note
    since = [time.value for time in flow.table().column("ts_event")]
    dated = open_flow(flow.path, date="1970-01-01")
    assert since == [time.value for time in dated.table().column("ts_event")]
    assert (flow.notes.count(note), dated.notes.count(note)) == (1, 0)


@pytest.mark.parametrize(
    "wrong", ["9999-12-31", "0001-01-01", "2300-01-01", "30.1.2019", "2019-02-30", 20190130]
)
def test_a_date_that_is_none(tmp_path, wrong):
    """A date is YYYY-MM-DD and exists."""
    with pytest.raises(UsageError, match=f"found date {wrong!r}, expected YYYY-MM-DD"):
        open_flow(write(tmp_path, BUY), date=wrong)


# ------------------------------------------------------------------ piece by piece


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 100])
@pytest.mark.parametrize("kind", ["", ".gz"])
def test_batches_are_the_table(tmp_path, monkeypatch, rows, kind):
    """Of any size, read from blocks of any size, orders open across them."""
    monkeypatch.setattr(containers, "BLOCK_BYTES", 50)
    data = encode.framed(MIXED)
    (path := tmp_path / (NAME + kind)).write_bytes(gzip.compress(data) if kind else data)
    whole = slow.Decoder().decode(MIXED)
    assert in_batches(path, rows) == whole
    sizes = [part.num_rows for part in open_flow(path).batches(rows)]
    assert sizes[:-1] == [rows] * (len(whole) // rows - (len(whole) % rows == 0))


def everything(path):
    """What a file gives: rows, quirks, damage and further tables."""
    flow = open_flow(path)
    rows = rows_of(flow.table())
    return rows, flow.notes, flow.faults, [make().to_pylist() for make in flow.extras.values()]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("damage", [b"", b"\xfe" * 100], ids=["sound", "damaged"])
def test_a_window_may_end_anywhere(tmp_path, monkeypatch, framing, damage):
    """At each byte of a message, of what frames it and of garbage; also one shorter than either."""
    pack, half = getattr(encode, framing), len(MIXED) // 2
    (path := tmp_path / NAME).write_bytes(pack(MIXED[:half]) + damage + pack(MIXED[half:]))
    whole = everything(path)
    assert len(whole[0]) == len(slow.Decoder().decode(MIXED))
    for size in (1, 7, *range(50, 100, 50 // fewer(50, plain=3, checked=1))):
        monkeypatch.setattr(containers, "WINDOW_BYTES", size)
        assert everything(path) == whole


def test_a_packet_longer_than_a_window(tmp_path, monkeypatch):
    """It is passed over: the window grows until it holds the packet."""
    text = b"+" + bytes(50_000)
    data = encode.soup(FLOW[:20]) + len(text).to_bytes(2, "big") + text + encode.soup(FLOW[20:])
    monkeypatch.setattr(containers, "WINDOW_BYTES", 64)
    assert opened(tmp_path, data)[1:] == (ROWS, [])


def test_windows_are_given_back(tmp_path, monkeypatch):
    """A file of any length has a few of its pages in memory at a time."""
    (path := tmp_path / NAME).write_bytes(WHOLE * 100)
    monkeypatch.setattr(containers, "WINDOW_BYTES", 4096)
    window, mapped, position = itch.Window(path), [], 0
    while not window.last:
        position = window.more(position)
        mapped.append(window.data.size)
        position = window.data.size
    assert sum(mapped) >= len(WHOLE) * 100
    assert max(mapped) <= 4096 + mmap.ALLOCATIONGRANULARITY


def test_a_file_without_rows_is_one_empty_batch(tmp_path):
    """It has its columns."""
    flow = open_flow(write(tmp_path, message("S", event="O")))
    assert [part.schema for part in flow.batches(5)] == [MBO]
    assert flow.num_rows == 0


# ------------------------------------------------------------------ damage


FLOW = [message("R", 1, stock="AAPL"), *(add(n, ts=n, shares=n) for n in range(1, 40))]
FLOW += [message("X", ts=40 + n, reference=n, shares=1) for n in range(1, 40)]
ROWS = slow.Decoder().decode(FLOW)
WHOLE = encode.framed(FLOW)


def opened(folder, data, name=NAME, **options):
    """A flow of these bytes, its table, and what it says of damage."""
    (path := folder / name).write_bytes(data)
    flow = open_flow(path, **options)
    return flow, rows_of(flow.table()), [str(fault) for fault in flow.faults]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_tail_that_was_cut_off(tmp_path, framing):
    """Cut at every byte of the last message: the others are delivered, and the fault says where it begins."""
    data = getattr(encode, framing)(FLOW)
    start = len(getattr(encode, framing)(FLOW[:-1]))
    assert opened(tmp_path, data[:start])[1:] == (ROWS[:-1], [])
    for end in range(start + 1, len(data)):
        _, rows, faults = opened(tmp_path, data[:end])
        rest = "1 byte" if end == start + 1 else f"{end - start} bytes"
        assert rows == ROWS[:-1]
        assert faults == [f"byte {start:,}: found {rest} of a message, expected all of it"]


def test_a_type_that_is_unknown(tmp_path):
    """Where lengths are told, it is passed over, counted as a message, and reading goes on behind it."""
    new = b"z" + message("D", reference=3)[1:] + b"more"
    _, rows, faults = opened(tmp_path, encode.framed([*FLOW[:20], new, *FLOW[20:30], new, *FLOW[30:]]))
    assert [row._replace(sequence=0) for row in rows] == [row._replace(sequence=0) for row in ROWS]
    assert [row.sequence for row in rows] == [*range(1, 20), *range(21, 31), *range(32, len(FLOW) + 2)]
    where = len(encode.framed(FLOW[:20])) + 2
    assert faults == [
        f"byte {where}: found message type 'z', expected one of the 23 types of ITCH 5.0 "
        "(2 times, the first here)"
    ]


def test_a_type_that_is_unknown_and_no_length(tmp_path):
    """Reading goes on where messages follow each other again."""
    data = encode.bare(FLOW[:30]) + b"z" * 19 + encode.bare(FLOW[30:])
    flow, rows, faults = opened(tmp_path, data)
    assert [row[:-1] for row in rows] == [row[:-1] for row in ROWS]
    where = len(encode.bare(FLOW[:30]))
    assert faults == [f"byte {where:,}: found message type 'z', expected one of the 23 types of ITCH 5.0"]
    assert flow.notes == ["bytes passed over because of damage: 19"]


@pytest.mark.parametrize("length", [0, 1, 18, 20, 35, 37, 255, 256, 20_000, 65_535])
def test_a_length_that_is_impossible(tmp_path, length):
    """The message is lost, those around it are not."""
    at = len(encode.framed(FLOW[:20]))
    data = bytearray(WHOLE)
    data[at : at + 2] = length.to_bytes(2, "big")
    _, rows, faults = opened(tmp_path, data)
    assert [row[:-1] for row in rows if row.order_id != 20] == [
        row[:-1] for row in ROWS if row.order_id != 20
    ]
    assert [row.action for row in rows if row.order_id == 20] == ["C"]
    found = "0 bytes" if length == 0 else f"type 'A' and {length} bytes"
    assert faults[0].startswith(f"byte {at}: found a message of {found}, expected ")


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 40, 300, 5000, 70_000])
@pytest.mark.parametrize("wrapped", [False, True])
def test_garbage_in_the_middle(tmp_path, framing, size, wrapped, monkeypatch):
    """What stands before and behind it is delivered."""
    monkeypatch.setattr(containers, "BLOCK_BYTES", 4096)
    pack, half = getattr(encode, framing), len(FLOW) // 2
    garbage = np.random.default_rng(size).integers(128, 256, size, np.uint8).tobytes()
    data = pack(FLOW[:half]) + garbage + pack(FLOW[half:])
    flow, rows, faults = opened(
        tmp_path, gzip.compress(data) if wrapped else data, NAME + (".gz" if wrapped else "")
    )
    assert [row[:-1] for row in rows] == [row[:-1] for row in ROWS]
    assert len(faults) == 1
    assert f"bytes passed over because of damage: {size:,}" in flow.notes


def test_garbage_at_the_beginning(tmp_path):
    """The framing is found behind it."""
    for framing in FRAMINGS:
        _, rows, faults = opened(tmp_path, b"\xfe" * 100 + getattr(encode, framing)(FLOW))
        assert [row[:-1] for row in rows] == [row[:-1] for row in ROWS]
        assert len(faults) == 1


def test_nothing_but_garbage(tmp_path):
    """A file without a message is of another format, whatever its name."""
    for data in (b"\xfe" * 1000, b"Dear diary\n" * 100, b"\0\x0c", b"\0" * 500, b"A"):
        with pytest.raises(FormatError) as caught:
            opened(tmp_path, data)
        said = "found no message at the beginning, expected NASDAQ TotalView-ITCH 5.0 messages"
        assert str(caught.value) == f"{tmp_path / NAME}: {said}"
    with pytest.raises(FormatError, match="found an empty file"):
        opened(tmp_path, b"")


def test_a_bad_checksum(tmp_path):
    """A container that contradicts itself is an error, on reading."""
    data = bytearray(gzip.compress(WHOLE * 50))
    data[-6] ^= 1
    with pytest.raises(FormatError, match="broken gzip data"):
        opened(tmp_path, data, NAME + ".gz")


@pytest.mark.parametrize("kind", [".gz", ".xz", ".zst"])
def test_a_container_that_ends_early(tmp_path, kind):
    """What precedes is delivered, and the end is a fault."""
    pack = {".gz": gzip.compress, ".xz": lzma.compress}
    pack[".zst"] = lambda data: pa.compress(data, "zstd", asbytes=True)
    noise = np.random.default_rng(1)
    flow = [add(n, ts=n, shares=int(noise.integers(1, 10**6))) for n in range(9000)]
    rows = slow.Decoder().decode(flow)
    data = pack[kind](encode.framed(flow))
    for end in (len(data) // 2, len(data) - 9, len(data) - 1):
        _, found, faults = opened(tmp_path, data[:end], NAME + kind)
        assert found == rows[: len(found)]
        assert len(found) > 100
        assert f"expected a whole {pack_name(kind)} file" in faults[-1]


def pack_name(kind):
    return {".gz": "gzip", ".xz": "xz", ".zst": "zstd"}[kind]


def check_whatever(folder, data):
    """It opens and reads, or says in one line why not; batches are the table; its book can be rebuilt."""
    (path := folder / NAME).write_bytes(data)
    said = ""
    try:
        flow = open_flow(path)
        table = flow.table()
    except HftlabError as error:
        said = str(error)
    assert "\n" not in said
    if said:
        return
    assert in_batches(path, 7) == rows_of(table)
    hftlab.replay(flow, mode="rebuild", record=("l1",)).to_arrow("l1")
    for extra in flow.extras.values():
        extra()


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_bytes_that_were_changed(tmp_path, data):
    """Flipped, inserted, deleted: no crash, no hang, an answer of one line."""
    raw = bytearray(getattr(encode, data.draw(st.sampled_from(FRAMINGS)))(FLOW))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) - 1))
        change = data.draw(st.sampled_from(("flip", "insert", "delete")))
        if change == "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        elif change == "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=80))
        else:
            del raw[at : at + data.draw(st.integers(1, 80))]
    check_whatever(tmp_path, raw)


NUMBERS = {"c": st.integers(0, 255), "I": st.integers(0, 2**32 - 1), "Q": st.integers(0, 2**64 - 1)}


@st.composite
def any_message(draw):
    """Any message of any type: fields anywhere in their range, references and locates that meet often."""
    kind = draw(st.sampled_from("AAAAFECXDUUPQBHRSI"))
    values = {}
    for name, code in encode.FIELDS[kind]:
        if name in ("reference", "new"):
            values[name] = draw(st.integers(1, 6) | st.just(2**64 - 1) | st.just(1 << 17) | NUMBERS["Q"])
        elif name == "side":
            values[name] = draw(st.sampled_from("BBBSSSx"))
        elif name == "stock":
            values[name] = draw(st.sampled_from(["AAPL", "MSFT", "ABCDEFGH", ""]))
        elif name == "shares":
            values[name] = draw(st.integers(0, 20) | NUMBERS[code])
        elif code in "IQ":
            values[name] = draw(NUMBERS[code])
    ts = draw(st.integers(0, 86_400 * 10**9 - 1))
    return message(kind, draw(st.sampled_from([0, 1, 2, 65_535])), ts, **values)


@given(st.lists(any_message(), min_size=1, max_size=60), st.sampled_from(FRAMINGS), st.integers(1, 30))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_messages(tmp_path, messages, framing, rows):
    """Whatever they say, the rows and the counts are those of the slow decoder."""
    path = write(tmp_path, *messages, framing=framing)
    flow, twin = open_flow(path), slow.Decoder()
    expected = twin.decode(messages)
    assert rows_of(flow.table()) == expected
    assert in_batches(path, rows) == expected
    counts = {note.rpartition(": ")[0].split(" (")[0]: note.rpartition(": ")[2] for note in flow.notes}
    for count, what in (
        (twin.unknown, "messages about orders that are not open"),
        (twin.twice, "orders added under a reference that was open"),
        (twin.exceeded, "executions and cancels of more than was open"),
    ):
        assert int(counts.get(what, "0")) == count


# ------------------------------------------------------------------ whole markets

MARKET_NAME = "01022024.NASDAQ_ITCH50"


def columns_of(table):
    """A table as columns of numbers, in the units of the encoder."""
    columns = {name: table.column(name).combine_chunks() for name in table.column_names if name != "ts_recv"}
    symbols = [int(name.removeprefix("SYM")) + 1 for name in columns["symbol"].dictionary.to_pylist()]
    actions = columns["action"].dictionary.to_pylist()
    return {
        name: column.to_numpy() for name, column in columns.items() if name not in ("symbol", "action")
    } | {
        "ts_event": columns["ts_event"].cast("int64").to_numpy() - encode.MIDNIGHT_NS,
        "symbol": np.array(symbols)[columns["symbol"].indices.to_numpy()],
        "action": np.array(actions, "S1")[columns["action"].indices.to_numpy()],
        "price": columns["price"].to_numpy() // itch.PRICE_UNITS,
    }


def check_market(folder, messages, symbols, seed, framing="framed", batch=None):
    """What a market's messages become is what they mean; returns how many they were."""
    events = encode.market(messages, symbols, seed)
    (path := folder / MARKET_NAME).write_bytes(encode.encoded(events, framing))
    flow = open_flow(path)
    found = columns_of(
        flow.table() if batch is None else pa.concat_tables(flow.batches(batch)).unify_dictionaries()
    )
    for name, expected in encode.expected(events).items():
        assert np.array_equal(found[name], expected), f"{name}, seed {seed}"
    assert (flow.faults, [note for note in flow.notes if "not open" in note]) == ([], [])
    return events.size


@pytest.mark.parametrize("symbols", [1, 30])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_market(tmp_path, framing, symbols):
    """Thousands of messages of all types, in each framing."""
    size = fewer(20_000, plain=40)
    assert check_market(tmp_path, size, symbols, seed=symbols, framing=framing) > size
    check_market(tmp_path, size // 4, symbols, seed=symbols, framing=framing, batch=size // 26)


def test_a_market_s_book(tmp_path):
    """The rebuilt book is the one the venue has, and nothing of the flow is refused."""
    size = fewer(20_000, plain=40)
    events = encode.market(size, 5, seed=3)
    (path := tmp_path / MARKET_NAME).write_bytes(encode.encoded(events))
    rebuilt = hftlab.replay(open_flow(path), mode="rebuild")
    venue = hftlab.replay(hftlab.generate(size, 5, seed=3))
    assert rebuilt.summary()["rejected"] == 0
    columns = ["symbol", "side", "price", "qty"]
    as_text = pl.col("symbol").cast(pl.String)
    books = [run.book.select(columns).with_columns(as_text).sort(columns) for run in (rebuilt, venue)]
    assert books[0].equals(books[1])
    for otherwise in ({"chunk_rows": 1_000}, {"threads": 2}, {"path": "event"}):
        assert hftlab.replay(open_flow(path), mode="rebuild", **otherwise).digest == rebuilt.digest


def test_symbols_without_a_price_beside_a_wide_one(tmp_path):
    """A ladder over the whole range of prices leaves room for books that have no order at all."""
    flow = open_flow(
        write(
            tmp_path,
            add(1, price=1),
            add(2, price=2**32 - 1, side="S"),
            message("D", 2, reference=9),
            add(3, "S", price=2_000_000_001),
        )
    )
    run = hftlab.replay(flow, mode="rebuild")
    assert run.book["order_id"].to_list() == [1, 3, 2]
    assert run.summary()["rejected"] == 1


@pytest.mark.fuzz
def test_ten_million_messages(tmp_path):
    """Decoded to what they mean: many seeds, symbols, framings; a fixed budget."""
    budget, done = fuzz_budget(), 0
    most = min(600_000, budget // 12)
    for seed in range(100):
        symbols = (1, 3, 100, 2_000)[seed % 4]
        done += check_market(tmp_path, most, symbols, seed, FRAMINGS[seed % 3], (None, most // 6)[seed % 2])
        if done >= budget:
            return
    pytest.fail(f"{done:,} messages")
