"""LOBSTER: what each message becomes, exact times, the opening book, broken lines, the published books."""

from __future__ import annotations

import gzip
import lzma
import mmap
import re
import tempfile
import tracemalloc
import zipfile
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hftlab
from hftlab.cli import main
from hftlab.errors import FormatError, UsageError
from hftlab.feeds import lobster, open_flow
from hftlab.feeds.parsing import containers
from hftlab.schema import MBO

NAME = "AAPL_2012-06-21_34200000_37800000_message_50.csv"
BOOK_NAME = NAME.replace("message", "orderbook")
MIDNIGHT_NS = 1340251200 * 10**9  # 2012-06-21 00:00 in New York, UTC-4
SEED = lobster.SEED_ID_BASE

AAPL = "lobster/AAPL_2012-06-21_34200000_37800000_"
UNITS = {"px": lobster.PRICE_UNITS, "sz": 1}
AMZN = "lobster/LOBSTER_SampleFile_AMZN_2012-06-21_1.zip"


def write(folder, *lines, name=NAME):
    """A message file of these lines."""
    (path := folder / name).write_text("".join(f"{line}\n" for line in lines))
    return path


def facts(flow, *columns):
    """Rows of the mbo table as tuples; names of actions, prices in dollars x 10,000."""
    columns = columns or ("action", "side", "price", "size", "order_id", "flags", "sequence")
    frame = pl.from_arrow(flow.table()).with_columns(
        pl.col("action", "symbol").cast(pl.String), pl.col("price") // lobster.PRICE_UNITS
    )
    return frame.select(pl.col(columns)).rows()


def times(flow):
    return flow.table().column("ts_event").cast("int64").to_pylist()


# ------------------------------------------------------------------ messages to facts


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("1,7,100,5853300,1", [("A", 1, 5853300, 100, 7, 128, 0)]),
        ("1,7,100,5853300,-1", [("A", -1, 5853300, 100, 7, 128, 0)]),
        ("2,7,40,5853300,1", [("C", 1, 5853300, 40, 7, 128, 0)]),
        ("3,7,100,5853300,1", [("C", 1, 5853300, 100, 7, 128, 0)]),
        ("4,7,60,5853300,-1", [("F", -1, 5853300, 60, 7, 0, 0), ("C", -1, 5853300, 60, 7, 128, 0)]),
        ("5,0,25,5853300,1", [("T", -1, 5853300, 25, 0, 128, 0)]),
        ("5,0,25,5853300,-1", [("T", 1, 5853300, 25, 0, 128, 0)]),
        ("6,-1,900,5853300,-1", [("T", 0, 5853300, 900, 0, 128, 0)]),
        ("7,0,0,-1,-1", [("N", 0, -1, 0, 0, 128, 0)]),
    ],
)
def test_what_a_message_becomes(tmp_path, message, expected):
    """Each of the seven types has its facts; an execution is F and then the C that changes the book."""
    assert facts(open_flow(write(tmp_path, f"34200.5,{message}"))) == expected


@pytest.mark.parametrize(
    ("day", "sides", "flags"),
    [("2014-07-11", (-1, 1), 128), ("2014-07-14", (0, 0), 130), ("2019-03-04", (0, 0), 130)],
)
def test_the_side_of_a_hidden_order(tmp_path, day, sides, flags):
    """The aggressor's, the other than type 5 tells; none since NASDAQ masks it, from 2014-07-14 on."""
    path = write(
        tmp_path,
        "1.5,5,0,50,100,1",
        "1.5,5,0,50,100,-1",
        "1.5,6,-1,9,100,-1",
        name=NAME.replace("2012-06-21", day),
    )
    flow = open_flow(path)
    assert facts(flow, "side", "flags") == [(sides[0], flags), (sides[1], flags), (0, 128)]
    assert hftlab.certify(flow).causes == {"AUCTION": 1, "HIDDEN_ORDER": 2}


def test_a_file_becomes_a_table(tmp_path):
    """Schema MBO, one symbol, messages numbered by line, both halves of an execution under one number."""
    flow = open_flow(
        write(tmp_path, "34200.1,1,7,100,10000,1", "34200.2,4,7,60,10000,1", "34200.2,3,7,40,10000,1")
    )
    assert flow.table().schema.equals(MBO)
    assert (flow.kind, flow.format, flow.num_rows, flow.notes) == ("mbo", "lobster", 4, [])
    assert facts(flow, "symbol", "action", "sequence", "flags") == [
        ("AAPL", "A", 0, 128),
        ("AAPL", "F", 1, 0),
        ("AAPL", "C", 1, 128),
        ("AAPL", "C", 2, 128),
    ]
    assert [t - MIDNIGHT_NS for t in times(flow)] == [34_200_100_000_000] + [34_200_200_000_000] * 3
    assert flow.table().column("ts_recv").equals(flow.table().column("ts_event"))
    assert flow.table().column("price").to_pylist() == [10**9] * 4  # one dollar


def test_rows_that_run_backwards_are_kept_and_counted(tmp_path):
    """File order is the only order; equal times are nothing special."""
    flow = open_flow(
        write(tmp_path, "2.5,1,7,1,1,1", "2.5,1,8,1,1,1", "1.5,1,9,1,1,1", "3.5,1,10,1,1,1", "0.5,5,0,1,1,1")
    )
    assert facts(flow, "order_id") == [(7,), (8,), (9,), (10,), (0,)]
    assert flow.notes == [
        "messages earlier than the one before (file order is kept): 2",
        "executions of hidden orders, which no book shows: 1",
    ]


def test_sizes_are_the_replay_s_to_judge(tmp_path):
    """A size of zero or less is bad content, not a broken file: it reaches the replay, which rejects it."""
    assert facts(open_flow(write(tmp_path, "1.5,1,7,0,1,1", "1.5,1,8,-5,1,1")), "size") == [(0,), (-5,)]


def test_commands_are_inferred(tmp_path):
    """A flow of facts offers commands as well."""
    flow = open_flow(write(tmp_path, "1.5,1,7,10,100,1", "2.5,4,7,10,100,1"))
    orders = pl.from_arrow(hftlab.infer_orders(flow))
    orders = orders.select(pl.col("action", "tif").cast(pl.String), "side", "qty")
    assert orders.rows() == [("NEW", "GTC", 1, 10), ("NEW", "IOC", -1, 10)]


# ------------------------------------------------------------------ time


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("34200.0042", 34_200_004_200_000),
        ("34200.00426064", 34_200_004_260_640),
        ("34200.004241176", 34_200_004_241_176),
        ("34200.004241176999", 34_200_004_241_176),
        ("34200.000000000001", 34_200_000_000_000),
        ("0.000000001", 1),
        ("86399.999999999999", 86_399_999_999_999),
        ("34200", 34_200_000_000_000),
    ],
)
def test_decimals_are_exact(tmp_path, text, ns):
    """Four to twelve decimals come through to the nanosecond; what is below is cut off, not rounded."""
    assert times(open_flow(write(tmp_path, f"{text},1,7,1,1,1"), format="lobster")) == [MIDNIGHT_NS + ns]


@given(
    st.lists(st.tuples(st.integers(0, 86_399), st.text("0123456789", min_size=4, max_size=12)), min_size=1)
)
def test_any_decimals_are_exact(parts):
    """Whatever the digits, the result is the decimal's whole nanoseconds."""
    texts = [f"{seconds}.{decimals}" for seconds, decimals in parts]
    with tempfile.TemporaryDirectory() as folder:
        found = times(open_flow(write(Path(folder), *(f"{text},1,7,1,1,1" for text in texts))))
    assert [t - MIDNIGHT_NS for t in found] == [int(Decimal(text) * 10**9) for text in texts]


@pytest.mark.parametrize(
    ("day", "utc"),
    [
        ("2012-06-21", "2012-06-21T13:30:00"),
        ("2012-01-20", "2012-01-20T14:30:00"),
        ("2012-03-09", "2012-03-09T14:30:00"),  # the Friday before the clocks change
        ("2012-03-12", "2012-03-12T13:30:00"),  # the Monday after
        ("2012-11-02", "2012-11-02T13:30:00"),
        ("2012-11-05", "2012-11-05T14:30:00"),
    ],
)
def test_new_york_to_utc(tmp_path, day, utc):
    """09:30 in New York is 13:30 UTC in summer and 14:30 in winter."""
    flow = open_flow(write(tmp_path, "34200.0001,1,7,1,1,1", name=NAME.replace("2012-06-21", day)))
    opening = datetime.fromisoformat(utc).replace(tzinfo=ZoneInfo("UTC"))
    assert times(flow) == [int(opening.timestamp()) * 10**9 + 100_000]


# ------------------------------------------------------------------ names and wrappings


def packed(path, kind, data, *more):
    """The data as a file of this kind."""
    if kind == "zip":
        with zipfile.ZipFile(path := path.with_name("sample.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in ((NAME, data), *more, ("ReadMe.txt", b"from lobsterdata.com")):
                archive.writestr(name, content)
        return path
    zstd = partial(pa.compress, codec="zstd", asbytes=True)
    pack = {"csv": bytes, "gz": gzip.compress, "xz": lzma.compress, "zst": zstd}[kind]
    path = path if kind == "csv" else path.with_name(f"{path.name}.{kind}")
    path.write_bytes(pack(data))
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("kind", ["csv", "gz", "xz", "zst", "zip"])
def test_every_wrapping_holds_the_same(tmp_path, kind, end):
    """Plain, gzip, xz, zstd and the published zip give one table, and so do both line ends."""
    data = end.join(["34200.1,1,7,100,10000,1", "34200.2,4,7,60,10000,1"]).encode()
    flow = open_flow(packed(tmp_path / NAME, kind, data))
    assert facts(flow, "symbol", "action", "size") == [
        ("AAPL", "A", 100),
        ("AAPL", "F", 60),
        ("AAPL", "C", 60),
    ]


def test_content_is_enough_to_recognise_it(tmp_path):
    """A file of any name is LOBSTER's if it reads like it; symbol and date are then parameters."""
    path = write(tmp_path, "34200.1,1,7,100,10000,1", name="today.dat")
    flow = open_flow(path, symbol="MSFT", date=date(2012, 6, 21))
    assert facts(flow, "symbol") == [("MSFT",)]
    assert times(flow) == [MIDNIGHT_NS + 34_200_100_000_000]


@pytest.mark.parametrize(
    ("options", "missing"),
    [({}, "symbol and date"), ({"symbol": "MSFT"}, "date"), ({"date": "2012-06-21"}, "symbol")],
)
def test_a_name_that_tells_too_little(tmp_path, options, missing):
    """What is missing is named, with an example of a name that would do."""
    path = write(tmp_path, "34200.1,1,7,100,10000,1", name="today.csv")
    with pytest.raises(UsageError) as caught:
        open_flow(path, **options)
    assert str(caught.value) == (
        f"{path}: the file name doesn't tell the {missing}, expected a name like "
        "AMZN_2012-06-21_34200000_57600000_message_1.csv, or symbol= and date="
    )


@pytest.mark.parametrize("wrong", ["21.6.2012", "2012-02-30", "1600-01-01", "9999-12-31"])
def test_a_date_that_is_none(tmp_path, wrong):
    """A date is YYYY-MM-DD and exists."""
    path = write(tmp_path, "34200.1,1,7,100,10000,1")
    with pytest.raises(UsageError, match=f"found date '{wrong}', expected YYYY-MM-DD"):
        open_flow(path, date=wrong)


def test_symbol_and_date_on_the_command_line(tmp_path, capsys):
    """What the name doesn't tell is an option of the feed; without it the answer is what would help."""
    path = write(tmp_path, "34200.1,1,7,100,10000,1", name="today.csv")
    assert main(["inspect", str(path)]) == 2
    assert "the file name doesn't tell the symbol and date" in capsys.readouterr().err
    wrong = ["-O", "symbol=MSFT", "-O", "date=21.6.2012"]
    assert main(["inspect", str(path), *wrong]) == 2
    assert "found date '21.6.2012', expected YYYY-MM-DD" in capsys.readouterr().err
    output = tmp_path / "msft.parquet"
    told = ["-O", "symbol=MSFT", "-O", "date=2012-06-21"]
    assert main(["convert", str(path), "-o", str(output), *told]) == 0
    assert facts(open_flow(output), "symbol") == [("MSFT",)]
    assert times(open_flow(output)) == [MIDNIGHT_NS + 34_200_100_000_000]


# ------------------------------------------------------------------ broken lines

GOOD = "34200.1,1,7,100,10000,1"
NOT_INTEGER = "expected an integer of 64 bits"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "34200.1,1,7,100,10000",
            "found 5 fields, expected 6 (time, type, order id, size, price, direction)",
        ),
        (f"{GOOD},1", "found 7 fields, expected 6 (time, type, order id, size, price, direction)"),
        ("", "found 1 field, expected 6 (time, type, order id, size, price, direction)"),
        ("34200.1,1,7,1o0,10000,1", f"found size '1o0', {NOT_INTEGER}"),
        ("34200.1,1,7,,10000,1", f"found size '', {NOT_INTEGER}"),
        ("34200.1,1,7,100,1e4,1", f"found price '1e4', {NOT_INTEGER}"),
        ("34200.1,1,0x7,100,10000,1", f"found order id '0x7', {NOT_INTEGER}"),
        ("34200.1,1,7,100,nan,1", f"found price 'nan', {NOT_INTEGER}"),
        ("34200.1,1,7,10.5,10000,1", f"found size '10.5', {NOT_INTEGER}"),
        ("34200.1,1,7,9223372036854775808,1,1", f"found size '9223372036854775808', {NOT_INTEGER}"),
        ("34200.1,1,7,1" + "0" * 5000 + ",1,1", f"found size '1{'0' * 39}', {NOT_INTEGER}"),
        ("34200.1,1,\xff,100,10000,1", f"found order id '\\xc3\\xbf', {NOT_INTEGER}"),
        ("34200.1,8,7,100,10000,1", "found type '8', expected 1 to 7"),
        ("34200.1,0,7,100,10000,1", "found type '0', expected 1 to 7"),
        ("34200.1,300,7,100,10000,1", "found type '300', expected 1 to 7"),
        ("34200.1,1,-7,100,10000,1", "found order id '-7', expected 0 or more"),
        ("34200.1,1,7,100,10000,0", "found direction '0', expected 1 or -1"),
        ("34200.1,1,7,100,10000,2", "found direction '2', expected 1 or -1"),
        (
            "34200.1,1,7,100,92233720368548,1",
            "found price '92233720368548', expected at most 92233720368547 (dollars x 10,000)",
        ),
        (
            "3420x.1,1,7,1,1,1",
            "found time '3420x.1', expected seconds since midnight with at most 12 decimals",
        ),
        ("-1.5,1,7,1,1,1", "found time '-1.5', expected seconds since midnight with at most 12 decimals"),
        (
            "86400.0,1,7,1,1,1",
            "found time '86400.0', expected seconds since midnight with at most 12 decimals",
        ),
        ("1e3,1,7,1,1,1", "found time '1e3', expected seconds since midnight with at most 12 decimals"),
        (
            "1.0000000000001,1,7,1,1,1",
            "found time '1.0000000000001', expected seconds since midnight with at most 12 decimals",
        ),
    ],
)
@pytest.mark.parametrize("before", [0, 2])
def test_a_line_that_is_no_message(tmp_path, line, said, before):
    """The first row that is wrong is named as an editor counts it, with what was found and expected."""
    path = write(tmp_path, *[GOOD] * before, line, GOOD, "rubbish")
    with pytest.raises(FormatError) as caught:
        open_flow(path)
    assert str(caught.value) == f"{path}, line {before + 1}: {said}"


def test_a_header_is_no_message(tmp_path):
    """LOBSTER files have no header."""
    with pytest.raises(FormatError, match="line 1: found time 'Time'"):
        open_flow(write(tmp_path, "Time,Type,OrderID,Size,Price,Direction", GOOD))


def test_the_limits_of_a_field_are_inside(tmp_path):
    """The largest price and size that fit are read as they are."""
    flow = open_flow(write(tmp_path, f"1.5,1,{2**63 - 1},{2**63 - 1},{lobster.MAX_PRICE},1"))
    assert facts(flow, "order_id", "size", "price") == [(2**63 - 1, 2**63 - 1, lobster.MAX_PRICE)]


@given(
    st.integers(0, 2**63 - 1),
    st.integers(1 - 2**63, 2**63 - 1),
    st.integers(-lobster.MAX_PRICE, lobster.MAX_PRICE),
    st.integers(0, 19),
)
def test_any_integers_are_exact(order_id, size, price, zeros):
    """Whatever the number of digits and of zeros before them, twenty at most."""
    line = f"1.5,1,{order_id:0{1 + zeros}},{size},{price},1"
    with tempfile.TemporaryDirectory() as folder:
        found = facts(open_flow(write(Path(folder), line)), "order_id", "size", "price")
    assert found == [(order_id, size, price)]


def test_a_row_far_down_is_counted_right(tmp_path):
    """Row numbers hold across the blocks in which a large file is read."""
    path = write(tmp_path, *[GOOD] * 70_000, "34200.1,1,7,x,10000,1")
    with pytest.raises(FormatError, match="line 70001: found size 'x'"):
        open_flow(path)


def with_fault(path):
    """What opening a file says, or None."""
    try:
        open_flow(path, format="lobster")
    except FormatError as error:
        return str(error)
    return None


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_file_cut_anywhere_in_its_last_line(tmp_path, end):
    """A line is whole or a fault with its row; only its very end may be missing."""
    whole = f"{GOOD}\n34200.25,4,16113575,18,5853300,-1"
    for cut in range(len(GOOD) + 2, len(whole)):
        (path := tmp_path / NAME).write_text(whole[:cut] + end)
        assert ", line 2: found " in with_fault(path), whole[:cut]
    path.write_text(whole + end)
    assert with_fault(path) is None


ODD = st.sampled_from(
    [b"0", b"9", b"-", b".", b",", b"/", b":", b"\r", b"\n", b" ", b"+", b"e", b"\0", b"\xb0"]
)
DIGITS = st.text("0123456789", max_size=21)
FIELD = st.one_of(
    st.sampled_from(["1", "-1", "0", "7", "4", "34200.004241176", "86399.9", "86400", "05", "-0"]),
    DIGITS,
    DIGITS.map(lambda digits: f"-{digits}"),
    st.tuples(DIGITS, DIGITS).map(".".join),
)


@st.composite
def lines(draw):
    """A line that is nearly a message, and often one."""
    usual = ["34200.004241176", "1", "16113575", "18", "5853300", "-1"]
    fields = [draw(st.one_of(st.just(field), FIELD)) for field in usual]
    line = ",".join(fields[: draw(st.sampled_from([6, 6, 6, 6, 5]))]).encode()
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        place = draw(st.integers(0, len(line)))
        line = line[:place] + draw(ODD) + line[place + draw(st.integers(0, 1)) :]
    return line


def is_message(line):
    """Whether a line is a message, told as slowly as can be."""
    if line.count(b",") != 5 or not re.fullmatch(rb"\d{1,5}(\.\d{0,12})?(,-?\d{1,20}){5}", line):
        return False
    time, *fields = line.decode().split(",")
    kind, order_id, size, price, direction = map(int, fields)
    return (
        Decimal(time) < 86_400
        and 1 <= kind <= 7
        and (order_id >= 0 or kind > 4)
        and max(map(abs, (order_id, size))) < 2**63
        and abs(price) <= lobster.MAX_PRICE
        and (direction in (1, -1) or (direction == 0 and kind > 5))
    )


@given(st.lists(lines(), min_size=1, max_size=3))
def test_a_line_is_a_message_or_a_fault(some):
    """Exactly the lines that are messages are read, and the first other one is named with its row."""
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / NAME).write_bytes(b"".join(line + b"\n" for line in some))
        rows = path.read_bytes().removesuffix(b"\n").split(b"\n")
        broken = next((i for i, line in enumerate(rows, 1) if not is_message(line.removesuffix(b"\r"))), None)
        said = with_fault(path)
    if broken is None:
        assert said is None
    else:
        assert f"{path}, line {broken}: found " in said


@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 8))
def test_any_bytes_are_rows_or_a_fault(rubbish, place, over):
    """Whatever is put in, nothing but a fault of one line comes out."""
    good = f"{GOOD}\n{GOOD}\n{GOOD}".encode()
    data = good[:place] + rubbish + good[place + over :]
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / NAME).write_bytes(data)
        said = with_fault(path)
    assert said is None or "\n" not in said


def test_a_line_without_an_end(tmp_path):
    """A line longer than any message is refused before all of it is in memory."""
    (path := tmp_path / NAME).write_bytes(f"{GOOD}\n".encode() + b"1" * 300_000)
    with pytest.raises(FormatError, match="line 2: found 1 field, expected 6"):
        open_flow(path)


# ------------------------------------------------------------------ piece by piece


@pytest.fixture
def mixed(tmp_path):
    """Lines of every kind, more of them executions than a file usually has."""
    kinds = [f"1.5,{1 + k % 5},{k % 5 and k},{k + 1},10000,{1 - 2 * (k % 2)}" for k in range(100)]
    return write(tmp_path, *kinds, "1.4,4,7,1,1,1", "7,4,7,1,1,1", "7,4,7,1,1,1", "7,7,0,0,-1,0")


@pytest.fixture
def lazily(monkeypatch):
    """Every file is one that is too large to read when it is opened."""
    monkeypatch.setattr(lobster, "EAGER_BYTES", 0)
    monkeypatch.setattr(lobster, "MANY_ROWS", 1)


NOTES = [
    "messages earlier than the one before (file order is kept): 1",
    "executions of hidden orders, which no book shows: 20",
    "halt markers: 1",
]


@pytest.mark.parametrize("rows", [1, 2, 3, 64, 10_000])
@pytest.mark.parametrize("kind", ["csv", "gz"])
@pytest.mark.parametrize("block", [1, 7, 64, 1 << 24])
def test_a_large_file_piece_by_piece(mixed, lazily, monkeypatch, kind, rows, block):
    """Batches have exactly the rows asked for, and together those of the table, wherever blocks end."""
    whole = containers.read(mixed)
    expected = open_flow(mixed).table()
    path = packed(mixed, kind, whole)
    monkeypatch.setattr(containers, "blocks", partial(containers.blocks, size=block))
    flow = open_flow(path)
    assert flow.known_rows is None
    batches = list(flow.batches(rows))
    assert [batch.num_rows for batch in batches[:-1]] == [rows] * (len(batches) - 1)
    assert pa.concat_tables(batches).combine_chunks().equals(expected.combine_chunks())
    assert flow.notes == NOTES
    assert flow.table().equals(expected)
    assert flow.notes == NOTES


@pytest.mark.parametrize("lines", [1, 170, 171, 172, 1_000])
def test_a_large_file_is_mapped_in_windows(tmp_path, lines, monkeypatch):
    """A line that two windows share is read like any other, wherever it is cut."""
    monkeypatch.setattr(containers, "WINDOW_BYTES", mmap.ALLOCATIONGRANULARITY)
    for longer in range(len(GOOD) + 1):
        first = f"34200.1{'0' * min(longer, 11)},1,{'7' * max(1, longer - 10)},100,10000,1"
        table = open_flow(write(tmp_path, first, *[GOOD] * (lines - 1))).table()
        assert table.column("sequence").to_pylist() == list(range(lines))
        assert set(table.column("order_id").to_pylist()[1:]) <= {7}


def test_a_large_file_is_looked_at_when_it_is_opened(tmp_path, lazily):
    """A fault in its first thousand rows is one of opening, a later one of reading what it is in."""
    with pytest.raises(FormatError, match="line 2: found type"):
        open_flow(write(tmp_path, GOOD, GOOD.replace(",1,", ",9,", 1)))
    flow = open_flow(write(tmp_path, *[GOOD] * 5_000, "rubbish"))
    with pytest.raises(FormatError, match="line 5001: found 1 field"):
        flow.table()
    batches = flow.batches(2_000)
    assert [next(batches).num_rows for _ in range(2)] == [2_000, 2_000]
    with pytest.raises(FormatError, match="line 5001: found 1 field"):
        next(batches)


def test_a_large_file_in_bounded_memory(tmp_path, lazily):
    """Batches take memory for a batch, however long the file is."""
    path = write(tmp_path, *[GOOD] * 200_000)
    tracemalloc.start()
    try:
        assert sum(batch.num_rows for batch in open_flow(path).batches(1_000)) == 200_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("rows", [None, 3])
def test_a_large_file_that_ends_early(mixed, lazily, rows):
    """A compressed file that stops in the middle is a fault of the file, whatever came before."""
    path = packed(mixed, "gz", containers.read(mixed) * 200)
    path.write_bytes(path.read_bytes()[:-100])
    flow = open_flow(path)
    with pytest.raises(FormatError, match="ends early"):
        flow.table() if rows is None else list(flow.batches(rows))


def test_nothing_in_an_archive_member(tmp_path):
    """A member without a byte has no messages."""
    with pytest.raises(FormatError, match="found nothing in it, expected order flow data"):
        open_flow(packed(tmp_path / NAME, "gz", b""))
    with pytest.raises(FormatError, match=f"found nothing in {NAME}, expected order flow data"):
        open_flow(packed(tmp_path / NAME, "zip", b""))


# ------------------------------------------------------------------ opening book

EMPTY_ASK, EMPTY_BID = "9999999999,0", "-9999999999,0"
BOOK = f"10200,5,10000,8,10300,6,9900,9,{EMPTY_ASK},9800,2"
OPENING = [
    ("R", 0, 0, 0, 0, 32, -1),
    ("A", -1, 10200, 5, SEED, 32, -1),
    ("A", -1, 10300, 6, SEED + 1, 32, -1),
    ("A", 1, 10000, 8, SEED + 2, 32, -1),
    ("A", 1, 9900, 9, SEED + 3, 32, -1),
    ("A", 1, 9800, 2, SEED + 4, 160, -1),
]


def seeded(folder, *lines, book=BOOK):
    return open_flow(write(folder, *lines), initial_book=write(folder, book, name=BOOK_NAME))


def test_the_opening_book_comes_first(tmp_path):
    """R, then an anonymous order per level; the message that led to it changes nothing any more."""
    flow = seeded(tmp_path, "1.5,1,7,3,10000,1", "1.7,1,8,4,9900,1")
    assert facts(flow) == [
        *OPENING,
        ("N", 1, 10000, 3, 7, 128, 0),
        ("A", 1, 9900, 4, 8, 128, 1),
    ]
    assert [t - MIDNIGHT_NS for t in times(flow)] == [1_500_000_000] * 7 + [1_700_000_000]


def test_a_first_message_that_executes_is_one_row(tmp_path):
    """Message 0 is already in the book, so it has no C either."""
    assert facts(seeded(tmp_path, "1.5,4,7,3,10000,1"))[6:] == [("N", 1, 10000, 3, 7, 128, 0)]


def test_orders_from_before_the_file_are_found_by_side_and_price(tmp_path):
    """Orders that rested before the file began are part of the opening order of their level."""
    flow = seeded(
        tmp_path,
        "1.5,1,7,3,10000,1",
        "1.7,4,90,2,10000,1",  # before the file
        "1.8,3,7,3,10000,1",  # message 0's own order is in the opening level too
        "1.9,2,91,1,10200,-1",
        "2.0,3,92,5,10200,1",  # nothing on that side at that price
        "2.1,1,8,4,10000,1",
        "2.2,3,8,4,10000,1",  # known
    )
    assert facts(flow, "action", "order_id", "sequence")[7:] == [
        ("F", SEED + 2, 1),
        ("C", SEED + 2, 1),
        ("C", SEED + 2, 2),
        ("C", SEED, 3),
        ("C", 92, 4),
        ("A", 8, 5),
        ("C", 8, 6),
    ]
    assert flow.notes == [
        "facts of orders never added here, given to the opening book's level: 3",
        "facts of orders that are neither added here nor in the opening book: 1",
    ]


def test_ids_of_the_opening_book_collide_with_none(tmp_path):
    """Where real ids reach into the synthetic range, the synthetic ones start behind them."""
    flow = seeded(tmp_path, "1.5,1,7,3,10000,1", f"1.7,1,{SEED + 3},4,9900,1")
    assert facts(flow, "order_id")[1:6] == [(SEED + 4 + k,) for k in range(5)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_the_book_beside_the_file(tmp_path, pack):
    """True takes the orderbook file that was published with the messages, wrapped as they are."""
    suffix = {bytes: "", gzip.compress: ".gz", lzma.compress: ".xz"}[pack]
    (path := tmp_path / (NAME + suffix)).write_bytes(pack(b"1.5,1,7,3,10000,1\n"))
    (tmp_path / (BOOK_NAME + suffix)).write_bytes(pack(f"{BOOK}\n{BOOK}\n".encode()))
    assert facts(open_flow(path, initial_book=True))[:6] == OPENING


def test_the_book_in_the_archive(tmp_path):
    """True takes the orderbook member of the same archive."""
    path = packed(tmp_path / NAME, "zip", b"1.5,1,7,3,10000,1\n", (BOOK_NAME, f"{BOOK}\n".encode()))
    assert facts(open_flow(path, initial_book=True))[:6] == OPENING
    assert facts(open_flow(path), "action") == [("A",)]


def test_an_empty_opening_book(tmp_path):
    """A book without a level is a book."""
    flow = seeded(tmp_path, "1.5,1,7,3,10000,1", book=f"{EMPTY_ASK},{EMPTY_BID}")
    assert facts(flow, "action", "flags") == [("R", 160), ("N", 128)]


@pytest.mark.parametrize(
    ("book", "said"),
    [
        (GOOD, "found 6 fields, expected 4 for each level of an orderbook file"),
        ("10200,5,1oooo,8", "found value '1oooo', expected an integer"),
        (
            "10200,5,10000,8,10100,5,9900,8",
            "found ask prices out of order, expected an orderbook row, best first",
        ),
        (
            "10200,5,10000,8,10300,5,10000,8",
            "found bid prices out of order, expected an orderbook row, best first",
        ),
        ("10200,5,10000,0", "found a level without size, expected a positive size at each price"),
        ("10200,5,10000,99999999999999999999", "found value '99999999999999999999', expected an integer"),
    ],
)
def test_a_book_that_is_none(tmp_path, book, said):
    """The first row is checked as well as a message is."""
    with pytest.raises(FormatError) as caught:
        seeded(tmp_path, GOOD, book=book)
    assert str(caught.value) == f"{tmp_path / BOOK_NAME}, line 1: {said}"


def test_no_book_beside_the_file(tmp_path):
    """True without an orderbook file says what would help."""
    path = write(tmp_path, GOOD)
    with pytest.raises(UsageError, match="no orderbook file beside it, expected initial_book=FILE"):
        open_flow(path, initial_book=True)


TRUTH = "(published books are truth for `hftlab compare --truth`, or open one as initial_book)"


@pytest.mark.parametrize(
    ("name", "place", "found"),
    [
        (BOOK_NAME, "", "an orderbook file"),
        (NAME.replace("message", "bbo_of_message"), "", "a file of best prices"),
        ("book.dat", ", line 1", "an orderbook file"),  # by its content
        (NAME, ", line 1", "an orderbook file"),  # whatever its name says
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_book_is_not_the_messages(tmp_path, name, place, found, pack):
    """A published book in the place of the messages is told apart, and what it is good for is said."""
    path = tmp_path / (name + (".gz" if pack is gzip.compress else ""))
    path.write_bytes(pack(f"{BOOK}\n{BOOK}\n".encode()))
    with pytest.raises(FormatError) as caught:
        open_flow(path, **({"symbol": "A", "date": "2012-06-21"} if name == "book.dat" else {}))
    assert str(caught.value) == f"{path}{place}: found {found}, expected a message file {TRUTH}"


def test_a_book_alone_in_its_archive(tmp_path):
    """An archive without the messages is told apart as well."""
    with zipfile.ZipFile(path := tmp_path / "sample.zip", "w") as archive:
        archive.writestr(BOOK_NAME, BOOK)
    with pytest.raises(FormatError) as caught:
        open_flow(path)
    found = "found an orderbook file alone in the archive, expected a message file"
    assert str(caught.value) == f"{path}: {found} {TRUTH}"


def test_a_book_wants_no_symbol_first(tmp_path):
    """What the file is comes before what its name doesn't tell."""
    with pytest.raises(FormatError, match="found an orderbook file"):
        open_flow(write(tmp_path, BOOK, name="book.dat"))


# ------------------------------------------------------------------ the published books


class LevelBook:
    """Price levels under A, C and R alone: the smallest thing that can contradict the loader."""

    def __init__(self):
        self.orders, self.levels = {}, {1: {}, -1: {}}

    def apply(self, action, side, price, size, order_id):
        if action == "R":
            self.__init__()
        elif action == "A":
            self.orders[order_id] = [side, price, size]
            self.levels[side][price] = self.levels[side].get(price, 0) + size
        elif action == "C" and order_id in self.orders:
            self.take(*self.orders[order_id][:2], size, order_id)

    def take(self, side, price, size, order_id):
        order, levels = self.orders[order_id], self.levels[side]
        size = min(size, order[2])
        order[2] -= size
        levels[price] -= size
        if not order[2]:
            del self.orders[order_id]
        if not levels[price]:
            del levels[price]

    def row(self, depth):
        """The best levels in LOBSTER's layout, empty ones as it writes them."""
        asks = sorted(self.levels[-1].items())[:depth]
        bids = sorted(self.levels[1].items(), reverse=True)[:depth]
        asks += [(lobster.NO_LEVEL, 0)] * (depth - len(asks))
        bids += [(-lobster.NO_LEVEL, 0)] * (depth - len(bids))
        return [value for ask, bid in zip(asks, bids, strict=True) for value in (*ask, *bid)]

    def touch(self):
        ask, bid = min(self.levels[-1]), max(self.levels[1])
        return [ask, self.levels[-1][ask], bid, self.levels[1][bid]]


def table_of_integers(path, member=None):
    return [[int(value) for value in line.split(b",")] for line in containers.read(path, member).split()]


@pytest.fixture(scope="module")
def aapl(data_dir):
    """The AAPL sample, opened with its first book row."""
    prefix = f"{data_dir}/{AAPL}"
    return open_flow(f"{prefix}message_50.csv.xz", initial_book=f"{prefix}orderbook_50_first672.csv.xz")


def test_aapl_rebuilds_to_the_published_books(aapl, data_dir):
    """Best bid and ask on 91,906 of 91,996 rows, 49 levels on all of the 671 there are."""
    prefix = data_dir / AAPL
    bests = table_of_integers(prefix.with_name(prefix.name + "bbo_of_message_50.csv.xz"))
    deep = table_of_integers(prefix.with_name(prefix.name + "orderbook_50_first672.csv.xz"))
    book, best, levels = LevelBook(), 0, 0
    for *fact, flags, sequence in facts(aapl):
        book.apply(*fact)
        if flags & 128 and sequence > 0:
            best += book.touch() == bests[sequence]
            levels += sequence < len(deep) and book.row(49) == deep[sequence][: 4 * 49]
    assert (best, levels) == (91_906, 671)


def test_the_kernels_rebuild_aapl_too(aapl, data_dir):
    """The compiled books reach the same 91,906 rows, and reject nothing but facts of unknown orders."""
    run = hftlab.replay(aapl, mode="rebuild", record=("l1", "rejects"))
    columns = ("ask_px", "ask_sz", "bid_px", "bid_sz")
    states = run.l1.select("seq", *(pl.col(name) // UNITS[name[-2:]] for name in columns))
    ends = (
        pl.from_arrow(aapl.table()).select("sequence", "flags").with_row_index("seq").cast({"seq": pl.Int64})
    )
    ends = ends.filter((pl.col("flags") & 128 != 0) & (pl.col("sequence") > 0)).sort("seq")
    found = ends.join_asof(states, on="seq").select(columns).to_numpy()
    prefix = data_dir / AAPL
    bests = table_of_integers(prefix.with_name(prefix.name + "bbo_of_message_50.csv.xz"))
    assert (found == np.array(bests[1:])).all(axis=1).sum() == 91_906
    assert run.rejects["reason"].cast(pl.String).unique().to_list() == ["UNKNOWN_ORDER"]


def test_the_kernels_rebuild_aapl_49_levels_deep(aapl, data_dir):
    """Of the 671 published books after the first, the compiled ones have the top 49 levels right in all."""
    prefix = data_dir / AAPL
    deep = np.array(table_of_integers(prefix.with_name(prefix.name + "orderbook_50_first672.csv.xz")))
    facts = pl.from_arrow(aapl.table()).filter(pl.col("sequence") < len(deep))
    depth = hftlab.replay(facts, mode="rebuild", record=()).depth(49)
    ends = facts.with_row_index("seq").cast({"seq": pl.Int64})
    ends = ends.filter((pl.col("flags") & 128 != 0) & (pl.col("sequence") > 0)).select("seq")
    found = ends.join_asof(depth, on="seq")
    for column, name in enumerate(("ask_px", "ask_sz", "bid_px", "bid_sz")):
        values = found[name].to_numpy()
        published = deep[1:, column::4][:, :49]
        scale = UNITS["px"] if name.endswith("px") else 1
        empty = np.abs(published) == lobster.NO_LEVEL
        expected = np.where(empty, hftlab.UNDEF_PRICE, published * scale)
        assert values.shape == (671, 49)
        assert (values == expected).all()


@pytest.mark.parametrize("seed", [None, True])
def test_amzn_matches(data_dir, seed):
    """Commands inferred from the level-1 sample go through the matcher, and every row has its outcome."""
    flow = open_flow(data_dir / AMZN, initial_book=seed)
    summary = hftlab.replay(flow, mode="match").summary()
    assert summary["accepted"] + summary["rejected"] == summary["rows"] == hftlab.infer_orders(flow).num_rows
    assert set(summary["reasons"]) == {"UNKNOWN_ORDER"}


def test_aapl_s_orders_from_before_the_file(aapl):
    """What the opening book could and could not explain is counted."""
    assert aapl.notes == [
        "executions of hidden orders, which no book shows: 2,201",
        "facts of orders never added here, given to the opening book's level: 44",
        "facts of orders that are neither added here nor in the opening book: 41",
    ]


def one_step(before, after, change):
    """Whether a message leads from one level-1 row to the next: exact, revealed (a level behind) or no."""
    if change is None:
        return "exact" if before == after else "no"
    action, side, price, size = change
    mine, other = (slice(2, 4), slice(0, 2)) if side == 1 else (slice(0, 2), slice(2, 4))
    (best, depth), better = before[mine], side * (price - before[mine][0])
    if before[other] != after[other] or (action == "C" and (better > 0 or (better == 0 and size > depth))):
        return "no"
    if better < 0:
        return "exact" if before == after else "no"
    if action == "C" and size == depth:
        return "revealed" if side * (after[mine][0] - best) < 0 else "no"
    left = [price, size] if better > 0 else [best, depth + (size if action == "A" else -size)]
    return "exact" if left == after[mine] else "no"


def test_amzn_one_step(data_dir):
    """A level-1 file can't be rebuilt, but each row plus one message gives the next: no contradiction."""
    rows = table_of_integers(data_dir / AMZN, "AMZN_2012-06-21_34200000_57600000_orderbook_1.csv")
    wanted = facts(open_flow(data_dir / AMZN), "action", "side", "price", "size", "sequence")
    changes = {sequence: fact for *fact, sequence in wanted if fact[0] in "AC"}
    steps = [one_step(rows[i - 1], rows[i], changes.get(i)) for i in range(1, len(rows))]
    assert {step: steps.count(step) for step in set(steps)} == {"exact": 43_561, "revealed": 13_953}


def test_amzn_with_its_book(data_dir):
    """The published zip serves messages and opening book at once."""
    flow = open_flow(data_dir / AMZN, initial_book=True)
    assert facts(flow, "symbol", "action", "side", "price", "size")[:4] == [
        ("AMZN", "R", 0, 0, 0),
        ("AMZN", "A", -1, 2239500, 100),
        ("AMZN", "A", 1, 2231800, 100),
        ("AMZN", "N", 1, 2238200, 1),
    ]
    assert np.unique(flow.table().column("sequence")).tolist() == list(range(-1, 57_515))
