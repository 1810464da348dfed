"""Databento's CSV: written by their own transcoder, read as their DBN is; broken rows; the real ES files."""

from __future__ import annotations

import gzip
import io
import lzma
import zipfile

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab
from hftlab.codes import NOT_A_VALUE
from hftlab.errors import FormatError, HftlabError
from hftlab.feeds import open_flow
from hftlab.feeds.parsing import containers
from hftlab.schema import MBO
from tests.feeds.databento.test_dbn import COLUMNS, ES_24, ES_25, column, mbo, metadata, on_day, rows, write
from tests.helpers.damage import damaged

dbn = pytest.importorskip("databento_dbn", reason="optional extra not installed: hftlab[databento]")

HEADER = (
    "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,price,size,channel_id,order_id,flags,"
    "ts_in_delta,sequence,symbol"
)
GOOD = "2023-12-25T12:00:00.000000007Z,2023-12-25T12:00:00Z,160,1,17077,A,B,4800.25,3,0,7,130,5,11,ESH4"
STYLES = [(px, ts, symbols) for px in (True, False) for ts in (True, False) for symbols in (True, False)]


def transcoded(data, pretty_px=True, pretty_ts=True, symbols=True):
    """DBN bytes as CSV, by Databento's own transcoder."""
    text = io.BytesIO()
    transcoder = dbn.Transcoder(
        text,
        dbn.Encoding.CSV,
        dbn.Compression.NONE,
        pretty_px=pretty_px,
        pretty_ts=pretty_ts,
        map_symbols=symbols,
    )
    transcoder.write(data)
    transcoder.flush()
    return text.getvalue()


def lines(folder, *rows_, header=HEADER, name="mbo.csv"):
    """A file of these rows."""
    (path := folder / name).write_text("".join(f"{row}\n" for row in (header, *rows_)))
    return path


def message(path, **options):
    """What is said, in one line, about a file that can't be opened and read."""
    with pytest.raises(FormatError) as caught:
        open_flow(path, **options).table()
    assert "\n" not in str(caught.value)
    return str(caught.value)


RECORDS = (
    mbo("A", "B", 4800 * 10**9, 3, 7, 11, flags=40),
    mbo("M", "B", 4799_250_000_000, 2, 7, 12, flags=0),
    mbo("T", "A", -5, 1, 0, 13, flags=0),
    mbo("F", "B", 4799_250_000_001, 1, 7, 13, flags=0),
    mbo("C", "B", dbn.UNDEF_PRICE, 1, 7, 13),
    mbo("R", "N", dbn.UNDEF_PRICE, dbn.UNDEF_ORDER_SIZE, 0, 14),
    mbo("N", "N", 0, 0, 2**64 - 1, 2**32 - 1),
    mbo("A", "A", dbn.UNDEF_PRICE, dbn.UNDEF_ORDER_SIZE, 8, 15, ts_event=dbn.UNDEF_TIMESTAMP),
    mbo("A", "A", 2**63 - 2, 2**32 - 2, 9, 15, ts_recv=dbn.UNDEF_TIMESTAMP),
)


# ------------------------------------------------------------------ the same as DBN


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_the_same_table(tmp_path, style):
    """Pretty or raw times and prices, with or without symbols: what the DBN file is."""
    flow = open_flow(write(tmp_path, *RECORDS))
    (path := tmp_path / "es.csv").write_bytes(transcoded(flow.path.read_bytes(), *style))
    found = open_flow(path)
    assert (found.kind, found.format, found.faults) == ("mbo", "databento_csv", [])
    assert found.table().schema.equals(MBO)
    assert rows(found, "ts_event", "ts_recv", *COLUMNS) == rows(flow, "ts_event", "ts_recv", *COLUMNS)
    assert (column(found, "price")[-2], column(found, "size")[-2]) == (NOT_A_VALUE, NOT_A_VALUE)
    assert flow.notes == [
        "times that are not given: 2",
        "records that need a price and have none: 1",
        "records that need a size and have none: 1",
        "records of a snapshot (flag 32): 1",
    ]
    if style[2]:  # their transcoder knows no name on a day it isn't told
        assert column(found, "symbol") == ["ESH4"] * 8 + ["17077"]
        unnamed = "instruments without a definition, named by their number: 1 (17077)"
        assert found.notes == [*flow.notes, unnamed]
    else:
        assert set(column(found, "symbol")) == {"17077"}


def test_publishers_and_instruments_are_told_apart_as_in_dbn(tmp_path):
    """Several venues and instruments, some without a name."""
    parts = [on_day(3, i % 5, publisher_id=1 + i % 2, order_id=i) for i in range(40)]
    flow = open_flow(write(tmp_path, *parts, mappings=()))
    (path := tmp_path / "es.csv").write_bytes(transcoded(flow.path.read_bytes(), symbols=False))
    found = open_flow(path)
    assert column(found, "symbol") == column(flow, "symbol")
    assert found.notes == flow.notes
    assert "publishers after the first (1), with books of their own: @2" in found.notes


@pytest.mark.parametrize("day", [ES_24, ES_25])
@pytest.mark.parametrize("style", [STYLES[0], STYLES[7]])
def test_es_is_the_same_from_both(data_dir, tmp_path, day, style):
    """The real files as CSV are the real files as DBN: tables, notes and, rebuilt, digests."""
    flow = open_flow(data_dir / day)
    (path := tmp_path / "es.csv.gz").write_bytes(
        gzip.compress(transcoded(containers.read(flow.path), *style), 1)
    )
    found = open_flow(path)
    keep = flow.table().schema.names if style[2] else [n for n in flow.table().schema.names if n != "symbol"]
    assert pl.from_arrow(found.table().select(keep)).equals(pl.from_arrow(flow.table().select(keep)))
    if style[2]:
        assert found.notes == flow.notes
        digests = {hftlab.replay(f, mode="rebuild", record=()).digest for f in (found, flow)}
        assert len(digests) == 1


# ------------------------------------------------------------------ other writers


def test_columns_in_any_order_and_only_those_needed(tmp_path):
    """An older layout, names quoted, without what isn't used; an event time stands for the other."""
    header = "rtype,publisher_id,product_id,ts_event,order_id,price,size,action,side"
    flow = open_flow(lines(tmp_path, '160,1,5,1703505600000000000,"7",100.5,3,"A","B"', header=header))
    assert rows(flow) == [("A", 1, 100_500_000_000, 3, 7, 0, 0)]
    assert rows(flow, "symbol", "ts_event", "ts_recv") == [("5", 1703505600 * 10**9, 1703505600 * 10**9)]


def test_what_a_data_frame_writes(tmp_path):
    """Times with an offset and a blank, prices as floats print them."""
    row = (
        "2023-12-25 12:00:00.000000007+00:00,2023-12-25 13:00:00+01:00,160,1,5,A,B,4800.0,3,0,7,130,5,11,ESH4"
    )
    flow = open_flow(lines(tmp_path, row))
    assert rows(flow, "ts_recv", "ts_event", "price") == [
        (1703505600 * 10**9 + 7, 1703505600 * 10**9, 4800 * 10**9)
    ]


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "csv.xz", "csv.zst", "zip", "dat"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_wrapping_holds_the_same(tmp_path, kind, end):
    """Plain, gzip, xz, zstd and zip, any name, both line ends, a byte order mark, no end of the last line."""
    data = ("\ufeff" + end.join([HEADER, GOOD, GOOD])).encode()
    path = tmp_path / f"mbo.{kind}"
    packs = {"gz": gzip.compress, "xz": lzma.compress, "zst": lambda d: pa.compress(d, "zstd", asbytes=True)}
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("es.mbo.csv", data)
            archive.writestr("manifest", "{}")
    else:
        path.write_bytes(packs.get(path.suffix[1:], bytes)(data))
    flow = open_flow(path)
    assert rows(flow) == [("A", 1, 4800_250_000_000, 3, 7, 130, 11)] * 2
    assert flow.format == "databento_csv"


@pytest.mark.parametrize("count", [1, 7, 100_000])
def test_batches_join_to_the_table(tmp_path, count):
    """In bounded memory, in the same order, with the same symbols."""
    text = "".join(
        GOOD.replace("ESH4", f"S{i % 50}").replace(",7,130", f",{i},130") + "\n" for i in range(300)
    )
    (path := tmp_path / "mbo.csv").write_text(f"{HEADER}\n{text}")
    flow = open_flow(path)
    batches = list(flow.batches(count))
    assert [batch.num_rows for batch in batches[:-1]] == [count] * (len(batches) - 1)
    joined = pa.concat_tables(batches).unify_dictionaries()
    assert pl.from_arrow(joined).equals(pl.from_arrow(flow.table()))
    assert column(flow, "order_id") == list(range(300))


def test_a_header_alone(tmp_path):
    """A quiet day."""
    flow = open_flow(lines(tmp_path))
    assert (flow.num_rows, flow.notes) == (0, [])
    assert hftlab.replay(flow, mode="rebuild").summary()["rows"] == 0


# ------------------------------------------------------------------ broken rows


def changed(place, value):
    """A good row with one cell replaced."""
    cells = GOOD.split(",")
    cells[HEADER.split(",").index(place)] = value
    return ",".join(cells)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (changed("action", "Z"), "found action 'Z', expected one of A, M, C, R, T, F, N"),
        (changed("action", ""), "found action '', expected one of A, M, C, R, T, F, N"),
        (changed("side", "X"), "found side 'X', expected one of BUY, SELL"),
        (changed("side", "N"), "found side 'N', expected B or A of an add"),
        (
            changed("price", "4800.1234567891"),
            "found price '4800.1234567891', expected a number of at most nine decimals",
        ),
        (changed("price", "7e-48"), "found price '7e-48', expected a number of at most nine decimals"),
        (changed("order_id", ""), "found order_id '', expected an id on every A, M and C"),
        (
            changed("order_id", "6.412777e+12"),
            "found order_id '6.412777e+12', expected a whole number of 64 bits: a float beyond 2^53 has lost "
            "digits",
        ),
        (changed("price", "4_800"), "found price '4_800', expected a number of at most nine decimals"),
        (
            changed("price", "9223372036.9"),
            "found price '9223372036.9', expected at most 9223372036.854775807: this is too large",
        ),
        (changed("size", "-1"), "found size '-1', expected a whole number of 32 bits"),
        (changed("size", "4294967296"), "found size '4294967296', expected a whole number of 32 bits"),
        (changed("size", "1.5"), "found size '1.5', expected a whole number of 32 bits"),
        (changed("order_id", "x"), "found order_id 'x', expected a whole number of 64 bits"),
        (
            changed("order_id", str(2**64)),
            "found order_id '18446744073709551616', expected a whole number of 64 bits",
        ),
        (changed("flags", "256"), "found flags '256', expected a whole number of 8 bits"),
        (
            changed("sequence", "4294967296"),
            "found sequence '4294967296', expected a whole number of 32 bits",
        ),
        (changed("instrument_id", "ES"), "found instrument_id 'ES', expected a whole number of 32 bits"),
        (
            changed("ts_event", "yesterday"),
            "found ts_event 'yesterday', expected a time like 2024-01-31T09:30:00.123456789Z",
        ),
        (changed("ts_event", "1703505600000000000"), None),
        (changed("ts_recv", "2023-12-25T12:00:00"), None),
        (changed("rtype", "10"), "found rtype 10, expected 160, as the schema mbo has"),
        (changed("publisher_id", "65536"), "found publisher_id '65536', expected a whole number of 16 bits"),
        (GOOD + ",1", "found 16 cells, expected 15, as in the header"),
        ("1,2,3", "found 3 cells, expected 15, as in the header"),
        ("", None),
        ("\x00", "found 1 cells, expected 15, as in the header"),
    ],
)
@pytest.mark.parametrize("before", [1, 20_000])
def test_a_row_that_is_broken(tmp_path, row, said, before):
    """The first row at fault is named as an editor counts it, near the beginning and far down."""
    path = lines(tmp_path, *[GOOD] * before, row, GOOD, "rubbish")
    found = message(path)
    if row == "":  # an empty line is nothing, but it is a line
        assert found == f"{path}, line {before + 4}: found 1 cells, expected 15, as in the header"
    elif said is None:
        assert found.startswith(f"{path}, line {before + 2}: found ")
    else:
        assert found == f"{path}, line {before + 2}: {said}"


def test_a_file_of_raw_prices_with_one_that_is_not(tmp_path):
    """A file has prices of one kind."""
    path = lines(tmp_path, *[changed("price", "4800000000000")] * 20_000, changed("price", "4800.5"))
    assert message(path) == f"{path}, line 20002: found price '4800.5', expected a whole number of 1e-9"


def test_a_blank_symbol_without_a_number(tmp_path):
    """Something must tell the instrument."""
    header = HEADER.replace("instrument_id", "other")
    path = lines(tmp_path, GOOD, changed("symbol", ""), header=header)
    assert message(path) == f"{path}, line 3: found symbol '', expected the name of an instrument"
    path = lines(tmp_path, GOOD, header=header.replace(",symbol", ",other2"))
    assert message(path) == f"{path}, line 1: found no symbol and no instrument_id, expected one of the two"


@pytest.mark.parametrize(
    ("header", "schema", "hint"),
    [
        (
            "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,depth,price,size,flags,ts_in_delta,"
            "sequence,bid_px_00,ask_px_00,bid_px_09",
            "mbp-10",
            " (an mbp-10 file is a truth: hftlab compare RUN --truth FILE)",
        ),
        ("ts_event,rtype,publisher_id,instrument_id,action,side,depth,price,size,bid_px_00", "mbp-1", ""),
        ("ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume", "ohlcv", ""),
        ("ts_event,rtype,publisher_id,instrument_id,action,side,depth,price,size", "trades", ""),
        ("ts_event,rtype,publisher_id,instrument_id,stat_type", "another schema", ""),
    ],
)
def test_another_schema_is_named(tmp_path, header, schema, hint):
    """Only mbo can be rebuilt."""
    path = lines(tmp_path, "1", header=header)
    found = message(path)
    assert found.startswith(f"{path}, line 1: found the columns of {schema}, without ")
    assert found.endswith(f"expected the schema mbo{hint}")


def test_the_wrong_format_under_the_right_name(tmp_path):
    """Asked for by name, other content says what it lacks."""
    (path := tmp_path / "mbo.csv").write_text("a,b\n1,2\n")
    assert message(path, format="databento_csv").startswith(
        f"{path}, line 1: found the columns of another schema"
    )
    (path := tmp_path / "mbo2.csv").write_bytes(b"\0\1\2" * 50)
    assert message(path, format="databento_csv").startswith(f"{path}: found ")
    (path := tmp_path / "mbo.parquet").write_bytes(b"PAR1")
    assert message(path, format="databento_csv").startswith(f"{path}: found ")


@pytest.mark.parametrize("kind", ["gz", "xz", "zst"])
def test_a_packed_file_cut_anywhere(tmp_path, kind):
    """A table that isn't whole is none."""
    packs = {"gz": gzip.compress, "xz": lzma.compress, "zst": lambda d: pa.compress(d, "zstd", asbytes=True)}
    whole = packs[kind]("\n".join([HEADER, *[GOOD] * 300]).encode())
    path = tmp_path / f"mbo.csv.{kind}"
    for length in range(8, len(whole)):
        path.write_bytes(whole[:length])
        assert str(path) in message(path, format="databento_csv")
    path.write_bytes(whole)
    assert open_flow(path).num_rows == 300


def test_a_first_time_without_a_day(tmp_path):
    """It is a broken row, not a question for a date that this format doesn't ask."""
    said = message(lines(tmp_path, GOOD.replace("2023-12-25T", "", 1)))
    assert (
        ", line 2: found ts_recv '12:00:00.000000007Z', expected nanoseconds since 1970 or a time like"
        in said
    )


def test_the_last_row_cut_anywhere(tmp_path):
    """A row that stops early is an error, or a fault where what is left of its last cell still is one."""
    whole = f"{HEADER}\n{GOOD}\n{GOOD}"
    for length in range(1, len(GOOD)):
        (path := tmp_path / "mbo.csv").write_text(whole[: len(whole) - length])
        if length <= len("ESH4"):
            flow = open_flow(path)
            assert column(flow, "symbol") == ["ESH4", "ESH4"[:-length] or "17077"]
            assert [fault.where for fault in flow.faults] == ["line 3"]
        else:
            assert message(path).startswith(f"{path}, line 3: found ")


def test_a_bad_checksum(tmp_path):
    """Content that its checksum contradicts is not used."""
    data = bytearray(gzip.compress(f"{HEADER}\n{GOOD}\n".encode()))
    data[-6] ^= 1
    (path := tmp_path / "mbo.csv.gz").write_bytes(data)
    assert "found broken gzip data (CRC check failed" in message(path)


def test_bytes_that_are_no_text(tmp_path):
    """They are found in their row; a file that begins with such is none of these."""
    good, bad = f"{GOOD}\n".encode(), GOOD.encode().replace(b"ESH4", b"\xff\xfe")
    for count in (1, 2000):
        (path := tmp_path / "mbo.csv").write_bytes(f"{HEADER}\n".encode() + good * count + bad)
        said = f"{path}, line {count + 2}: found bytes that are no text, expected text in UTF-8"
        assert message(path) == said
    path.write_bytes(bad)
    said = f"{path}: found other content, expected CSV, NDJSON, Parquet or Arrow data"
    assert message(path, format="databento_csv") == said


@settings(max_examples=200)
@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_bytes_changed_inserted_and_lost(tmp_path_factory, noise, edits):
    """Nothing crashes or hangs: a flow, or an error of one line."""
    whole = "\n".join([HEADER, *[GOOD] * 20, ""]).encode()
    data = damaged(whole, noise, edits, values=b'0123456789.,-ABZ"\n\r\0\xff ', most=60)
    (path := tmp_path_factory.getbasetemp() / "noise.csv").write_bytes(data)
    try:
        table = open_flow(path, format="databento_csv").table()
    except HftlabError:
        assert message(path, format="databento_csv")
        return
    table.validate(full=True)
    assert table.num_rows <= 2 * data.count(b"\n") + 2


def test_metadata_is_not_needed(tmp_path):
    """Nothing of this needs Databento's package but the tests' own encoder."""
    assert metadata()
    assert open_flow(lines(tmp_path, GOOD)).num_rows == 1
