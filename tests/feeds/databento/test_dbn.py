"""Databento DBN: records to rows, names of instruments, mixed streams, damage, and the two real files."""

from __future__ import annotations

import datetime as dt
import gzip
import lzma
import random
import struct
import sys
import tracemalloc
from collections import Counter
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab
from hftlab.codes import NOT_A_VALUE
from hftlab.errors import FormatError, HftlabError, UsageError
from hftlab.feeds import open_flow
from hftlab.feeds.databento import dbn as feed
from hftlab.feeds.parsing import containers
from hftlab.schema import MBO
from hftlab.tape.facts import read_facts
from tests.helpers.damage import damaged

dbn = pytest.importorskip("databento_dbn", reason="optional extra not installed: hftlab[databento]")

DAY = dt.date(2023, 12, 25)
NOON_NS = 1703505600 * 10**9
SIZE = 56
ES = 17077
ES_24 = "databento/esh4-glbx-mdp3-20231224.mbo.dbn.zst"
ES_25 = "databento/esh4-glbx-mdp3-20231225.mbo.dbn.zst"
COLUMNS = ("action", "side", "price", "size", "order_id", "flags", "sequence")


class Interval(NamedTuple):
    start_date: dt.date
    end_date: dt.date
    symbol: str


class Mapping(NamedTuple):
    raw_symbol: str
    intervals: list[Interval]


ESH4 = Mapping("ESH4", [Interval(DAY, DAY + dt.timedelta(1), str(ES))])


def metadata(version=3, schema="mbo", mappings=(ESH4,), ts_out=False, stype_in="raw_symbol"):
    """What stands before the records, by Databento's own encoder."""
    return dbn.Metadata(
        dataset="GLBX.MDP3",
        start=NOON_NS,
        stype_in=stype_in and dbn.SType.from_str(stype_in),
        stype_out=dbn.SType.from_str("raw_symbol" if stype_in == "instrument_id" else "instrument_id"),
        schema=schema and dbn.Schema.from_str(schema),
        symbols=[mapping.raw_symbol for mapping in mappings],
        mappings=list(mappings),
        ts_out=ts_out,
        version=version,
    ).encode()


def mbo(action="A", side="B", price=4800 * 10**9, size=1, order_id=1, sequence=0, **more):
    """One MBO record, by Databento's own encoder."""
    at = more.pop("ts", NOON_NS)
    fields = {"publisher_id": 1, "instrument_id": ES, "flags": 128, "ts_event": at, "ts_recv": at + 7} | more
    action, side = dbn.Action.from_str(action), dbn.Side.from_str(side)
    return bytes(
        dbn.MBOMsg(
            action=action, side=side, price=price, size=size, order_id=order_id, sequence=sequence, **fields
        )
    )


def adds(count, **more):
    """Records of different orders."""
    return [mbo(order_id=i + 1, sequence=i, **more) for i in range(count)]


def write(folder, *records, name="es.dbn", **header):
    """A file of these records."""
    (path := folder / name).write_bytes(metadata(**header) + b"".join(records))
    return path


def rows(flow, *columns):
    """Rows of the mbo table as tuples, with names of actions and symbols."""
    frame = pl.from_arrow(flow.table()).with_columns(
        pl.col("action", "symbol").cast(pl.String), pl.col("ts_event", "ts_recv").cast(pl.Int64)
    )
    return frame.select(columns or COLUMNS).rows()


def column(flow, name):
    return [row[0] for row in rows(flow, name)]


def message(path, **options):
    """What is said, in one line, about a file that can't be opened and read."""
    with pytest.raises(FormatError) as caught:
        open_flow(path, **options).table()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------ records to rows


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("ts_out", [False, True])
def test_every_version_holds_the_same(tmp_path, version, ts_out):
    """Actions, sides and numbers come through, whatever the version and with or without a sending time."""
    more = {"ts_out": NOON_NS} if ts_out else {}
    path = write(
        tmp_path,
        mbo("A", "B", 4800 * 10**9, 3, 7, 11, flags=130, **more),
        mbo("M", "B", 4799_250_000_000, 2, 7, 12, flags=0, **more),
        mbo("T", "A", 4799_250_000_000, 1, 0, 13, flags=0, **more),
        mbo("F", "B", 4799_250_000_000, 1, 7, 13, flags=0, **more),
        mbo("C", "B", 4799_250_000_000, 1, 7, 13, **more),
        mbo("R", "N", 0, 0, 0, 14, **more),
        mbo("N", "N", 0, 0, 0, 15, **more),
        version=version,
        ts_out=ts_out,
    )
    flow = open_flow(path)
    assert (flow.kind, flow.format, flow.notes, flow.faults) == ("mbo", "dbn", [], [])
    assert rows(flow) == [
        ("A", 1, 4800 * 10**9, 3, 7, 130, 11),
        ("M", 1, 4799_250_000_000, 2, 7, 0, 12),
        ("T", -1, 4799_250_000_000, 1, 0, 0, 13),
        ("F", 1, 4799_250_000_000, 1, 7, 0, 13),
        ("C", 1, 4799_250_000_000, 1, 7, 128, 13),
        ("R", 0, 0, 0, 0, 128, 14),
        ("N", 0, 0, 0, 0, 128, 15),
    ]
    assert set(rows(flow, "symbol", "ts_event", "ts_recv")) == {("ESH4", NOON_NS, NOON_NS + 7)}
    assert flow.table().schema.equals(MBO)
    assert (flow.num_rows, flow.known_rows) == (7, 7)


def test_the_limits_of_the_fields(tmp_path):
    """The largest and smallest of each field are read as they are."""
    flow = open_flow(
        write(
            tmp_path,
            mbo(price=2**63 - 2, size=2**32 - 2, order_id=2**64 - 1, sequence=2**32 - 1, flags=255),
            mbo(price=-(2**63) + 1, size=0, order_id=0, flags=0, ts_event=0, ts_recv=2**63 - 1),
        )
    )
    assert rows(flow)[0] == ("A", 1, 2**63 - 2, 2**32 - 2, 2**64 - 1, 255, 2**32 - 1)
    assert rows(flow)[1] == ("A", 1, -(2**63) + 1, 0, 0, 0, 0)
    assert rows(flow, "ts_event", "ts_recv")[1] == (0, 2**63 - 1)


def test_what_is_undefined(tmp_path):
    """An add without price or size is the replay's to reject; where neither matters it is 0."""
    flow = open_flow(
        write(
            tmp_path,
            mbo("A", price=dbn.UNDEF_PRICE),
            mbo("A", size=dbn.UNDEF_ORDER_SIZE, order_id=2),
            mbo("A", order_id=3),
            mbo("C", price=dbn.UNDEF_PRICE, order_id=3),
            mbo("R", "N", dbn.UNDEF_PRICE, dbn.UNDEF_ORDER_SIZE, 0),
            mbo("A", order_id=4, ts_event=dbn.UNDEF_TIMESTAMP),
            mbo("A", order_id=5, ts_recv=dbn.UNDEF_TIMESTAMP),
            mbo("A", order_id=6, ts_event=dbn.UNDEF_TIMESTAMP, ts_recv=dbn.UNDEF_TIMESTAMP),
        )
    )
    assert rows(flow, "action", "price", "size")[:5] == [
        ("A", NOT_A_VALUE, 1),
        ("A", 4800 * 10**9, NOT_A_VALUE),
        ("A", 4800 * 10**9, 1),
        ("C", 0, 1),
        ("R", 0, 0),
    ]
    assert rows(flow, "ts_event", "ts_recv")[5:7] == [(NOON_NS + 7, NOON_NS + 7), (NOON_NS, NOON_NS)]
    assert rows(flow, "ts_event", "ts_recv")[7] == (0, 0)
    assert flow.notes == [
        "times that are not given: 4",
        "records that need a price and have none: 1",
        "records that need a size and have none: 1",
    ]
    reasons = hftlab.replay(flow, mode="rebuild").summary()["reasons"]
    assert reasons == {"INVALID_QTY": 1, "INVALID_PRICE": 1}


def test_times_that_run_backwards_are_kept(tmp_path):
    """The file's order is the only order."""
    flow = open_flow(write(tmp_path, *(mbo(order_id=i, ts=NOON_NS - i) for i in range(4))))
    assert column(flow, "ts_event") == [NOON_NS - i for i in range(4)]


def test_snapshots_and_doubts_are_counted(tmp_path):
    """What the flags say of a record is in the notes."""
    flags = [40, 40, 168, 128, 132, 192, 144]
    flow = open_flow(write(tmp_path, *(mbo(order_id=i, flags=f) for i, f in enumerate(flags))))
    assert flow.table().column("flags").to_pylist() == flags
    assert flow.notes == [
        "records of a snapshot (flag 32): 3",
        "records of a top of book, not of an order (flag 64): 1",
        "records of a price level, not of an order (flag 16): 1",
        "records after a gap, when the book may be wrong (flag 4): 1",
    ]


def test_a_modify_loses_priority_as_the_venue_says(tmp_path):
    """A new price or a larger size goes to the back, a smaller size stays; T and F touch nothing."""
    flow = open_flow(
        write(
            tmp_path,
            *adds(5, size=5),
            mbo("M", size=4, order_id=1),
            mbo("M", size=6, order_id=2),
            mbo("M", price=4801 * 10**9, size=5, order_id=3),
            mbo("M", price=4800 * 10**9, size=5, order_id=3),
            mbo("T", "A", size=4, order_id=0),
            mbo("F", size=2, order_id=4),
            mbo("C", size=2, order_id=4),
            mbo("F", size=9, order_id=99),
        )
    )
    run = hftlab.replay(flow, mode="rebuild", record=("book",))
    assert run.book.select("order_id", "qty").rows() == [(1, 4), (4, 3), (5, 5), (2, 6), (3, 5)]
    assert run.summary()["rejected"] == 0


def test_an_id_used_again_on_the_same_day(tmp_path):
    """Once its order is gone an id is free; while it rests, a second add is the replay's to reject."""
    records = [mbo(), mbo("C"), mbo(price=4700 * 10**9), mbo()]
    summary = hftlab.replay(open_flow(write(tmp_path, *records)), mode="rebuild").summary()
    assert (summary["open_orders"], summary["reasons"]) == (1, {"DUPLICATE_ORDER": 1})


# ------------------------------------------------------------------ instruments


def days(start, end, symbol):
    return Interval(dt.date(2024, 1, start), dt.date(2024, 1, end), symbol)


def on_day(day, instrument, **more):
    at = int(dt.datetime(2024, 1, day, 12, tzinfo=dt.UTC).timestamp()) * 10**9
    return mbo(ts=at, instrument_id=instrument, **more)


def test_an_id_means_what_it_means_that_day(tmp_path):
    """A number is given to another instrument the next day; both names are found, by the day of ts_recv."""
    mappings = [
        Mapping("AAPL", [days(2, 3, "33"), days(3, 5, "34")]),
        Mapping("MSFT", [days(2, 3, "34"), days(3, 5, "33")]),
    ]
    flow = open_flow(
        write(tmp_path, *(on_day(day, i) for day in (2, 3, 4, 9) for i in (33, 34, 33)), mappings=mappings)
    )
    names = ["AAPL", "MSFT", "AAPL"], ["MSFT", "AAPL", "MSFT"]
    assert column(flow, "symbol") == [*names[0], *names[1], *names[1], "33", "34", "33"]
    assert flow.notes == ["instruments without a definition, named by their number: 2 (33, 34)"]


def test_a_snapshot_is_of_the_day_it_was_taken(tmp_path):
    """Its orders may be days old; their file's mapping is still theirs."""
    flow = open_flow(write(tmp_path, mbo(ts_event=NOON_NS - 5 * 86_400 * 10**9, flags=40), mbo(order_id=2)))
    assert column(flow, "symbol") == ["ESH4", "ESH4"]


def test_a_name_that_never_changes_needs_no_day(tmp_path):
    """One mapping for a number is its name also outside the days it was asked for."""
    flow = open_flow(write(tmp_path, on_day(9, ES)))
    assert (column(flow, "symbol"), flow.notes) == (["ESH4"], [])


def test_a_request_by_number(tmp_path):
    """Mappings run the other way where instruments were asked for by their ids."""
    mappings = [Mapping("17077", [days(2, 9, "ESH4")]), Mapping("5", [days(2, 9, "")])]
    flow = open_flow(
        write(tmp_path, on_day(3, ES), on_day(3, 5), mappings=mappings, stype_in="instrument_id")
    )
    assert column(flow, "symbol") == ["ESH4", "5"]


def test_an_instrument_without_a_definition(tmp_path):
    """Its number is its name, and the notes say so, of a few of them."""
    flow = open_flow(write(tmp_path, *(mbo(instrument_id=i) for i in (ES, *range(101, 108)))))
    assert column(flow, "symbol") == ["ESH4", *map(str, range(101, 108))]
    assert flow.notes == [
        "instruments without a definition, named by their number: 7 (101, 102, 103, 104, 105, ...)"
    ]


def test_more_instruments_than_expected(tmp_path):
    """Thousands that nobody announced, in any order, each find their own name; the same in small batches."""
    order = random.Random(3).choices(range(5000), k=20_000)
    mappings = [Mapping(f"S{i}", [days(1, 9, str(i))]) for i in range(0, 5000, 2)]
    flow = open_flow(write(tmp_path, *(on_day(3, i) for i in order), mappings=mappings))
    expected = [f"S{i}" if i % 2 == 0 else str(i) for i in order]
    assert column(flow, "symbol") == expected
    assert [s for t in flow.batches(777) for s in t["symbol"].cast(pa.string()).to_pylist()] == expected


def test_venues_have_books_of_their_own(tmp_path):
    """The same instrument from another publisher is another book, with ids of its own."""
    flow = open_flow(write(tmp_path, mbo(), mbo(publisher_id=2), mbo("C")))
    assert column(flow, "symbol") == ["ESH4", "ESH4@2", "ESH4"]
    assert flow.notes == ["publishers after the first (1), with books of their own: @2"]
    assert hftlab.replay(flow, mode="rebuild").summary()["open_orders"] == 1


# ------------------------------------------------------------------ mixed streams


def sent(record, ts_out=None):
    """A record with the time at which a gateway sent it, if there is one."""
    return bytes([record[0] + 2]) + record[1:] + struct.pack("<Q", ts_out) if ts_out else record


def mapping_record(version, instrument, name, **more):
    """A mapping as it comes in a live stream."""
    layout = getattr(dbn, f"v{version}").SymbolMappingMsg
    types = {} if version == 1 else {"stype_in": dbn.SType.PARENT, "stype_out": dbn.SType.RAW_SYMBOL}
    asked = {"stype_in_symbol": "ES.FUT", "stype_out_symbol": name, "start_ts": 0, "end_ts": 1}
    record = layout(publisher_id=1, instrument_id=instrument, ts_event=NOON_NS, **types, **asked)
    return sent(bytes(record), **more)


def system(version, text, **more):
    return sent(bytes(getattr(dbn, f"v{version}").SystemMsg(ts_event=NOON_NS, msg=text)), **more)


def error_record(version, text, **more):
    return sent(bytes(getattr(dbn, f"v{version}").ErrorMsg(ts_event=NOON_NS, err=text)), **more)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("ts_out", [False, True])
def test_a_live_capture(tmp_path, version, ts_out):
    """Mappings in the stream name what follows, other records are stepped over and counted."""
    more = {"ts_out": NOON_NS} if ts_out else {}
    heartbeat = system(version, "Heartbeat", **more)
    path = write(
        tmp_path,
        heartbeat,
        mapping_record(version, ES, "ESH4", **more),
        *(mbo(order_id=i, **more) for i in range(300)),
        heartbeat,
        mapping_record(version, 6, "ESM4", **more),
        error_record(version, "Slow\nreader", **more),
        *(mbo(order_id=i, instrument_id=6 - i % 2, **more) + heartbeat for i in range(300)),
        mapping_record(version, ES, "ESZ9", **more),
        mbo(order_id=999, **more),
        bytes(dbn.TradeMsg(1, ES, NOON_NS, 1, 1, dbn.Action.TRADE, dbn.Side.BID, 0, NOON_NS, **more)),
        schema=None,
        mappings=(),
        stype_in=None,
        version=version,
        ts_out=ts_out,
    )
    flow = open_flow(path)
    assert flow.num_rows == 601
    assert column(flow, "symbol") == ["ESH4"] * 300 + ["ESM4", "5"] * 150 + ["ESZ9"]
    assert flow.faults == []
    assert flow.notes == [
        "records that are not mbo: SYSTEM 302, SYMBOL_MAPPING 3, ERROR 1, MBP_0 1",
        "the first error record says: Slow",
        "instruments without a definition, named by their number: 1 (5)",
    ]


def test_records_across_the_blocks_of_reading(tmp_path, monkeypatch):
    """Where a block of the decompressed file ends makes no difference, to mixed records neither."""
    parts = [b for i in range(40) for b in (mbo(order_id=i, sequence=i), system(3, "x"), *adds(i % 4))]
    path = write(tmp_path, *parts)
    expected = rows(open_flow(path))
    path = path.with_suffix(".dbn.gz")
    path.write_bytes(gzip.compress(write(tmp_path, *parts).read_bytes()))
    for size in (1, 7, 55, 56, 57, 321, 5000):
        monkeypatch.setattr(feed, "BLOCK_BYTES", size)
        flow = open_flow(path)
        assert (rows(flow), flow.faults) == (expected, [])


def test_a_quiet_day(tmp_path):
    """A file of the right schema without a record is a flow without rows; a live one without mbo is none."""
    flow = open_flow(write(tmp_path))
    assert (flow.num_rows, flow.notes, flow.faults) == (0, [], [])
    assert [batch.num_rows for batch in flow.batches(5)] == [0]
    assert open_flow(write(tmp_path, system(3, "Heartbeat"))).num_rows == 0
    path = write(tmp_path, system(3, "Heartbeat"), schema=None)
    assert message(path) == f"{path}: found no mbo record but SYSTEM 1, expected records of the schema mbo"
    assert hftlab.replay(open_flow(write(tmp_path)), mode="rebuild").summary()["rows"] == 0


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("kind", ["dbn", "dbn.zst", "dbn.gz", "dbn.xz", "bin"])
def test_every_wrapping_holds_the_same(tmp_path, kind):
    """Plain, zstd, gzip and xz; a file of any name is DBN's if it begins like it."""
    data = metadata() + b"".join(adds(100))
    pack = {"zst": lambda d: pa.compress(d, "zstd", asbytes=True), "gz": gzip.compress, "xz": lzma.compress}
    path = tmp_path / f"day.{kind}"
    path.write_bytes(pack.get(path.suffix[1:], bytes)(data))
    assert column(open_flow(path), "order_id") == list(range(1, 101))


@pytest.mark.parametrize("count", [1, 3, 20, 100])
@pytest.mark.parametrize("name", ["es.dbn", "es.dbn.xz"])
def test_batches_join_to_the_table(tmp_path, name, count):
    """Every batch but the last has the rows asked for, and reading again gives the same."""
    path = write(tmp_path, *adds(20), system(3, "x"), *adds(20), name=name)
    if name.endswith("xz"):
        path.write_bytes(lzma.compress(path.read_bytes()))
    flow = open_flow(path)
    for _ in range(2):
        batches = list(flow.batches(count))
        assert [batch.num_rows for batch in batches[:-1]] == [count] * (len(batches) - 1)
        joined = pa.concat_tables(batches).unify_dictionaries()
        assert pl.from_arrow(joined).equals(pl.from_arrow(flow.table()))
        assert flow.notes == ["records that are not mbo: SYSTEM 1"]


def test_a_packed_file_of_more_than_a_chunk_is_one_table(tmp_path, monkeypatch):
    """Where the length is not known before, the table is made of pieces."""
    monkeypatch.setattr(feed, "ROWS", 7)
    path = write(tmp_path, *(mbo(order_id=i, instrument_id=i) for i in range(20)), name="es.dbn.gz")
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert rows(open_flow(path), "symbol", "order_id") == [(str(i), i) for i in range(20)]


@pytest.mark.parametrize("pack", ["", ".gz"])
def test_memory_is_bounded(tmp_path, pack):
    """A file of 22 MB is read, batch by batch, in less than half of that."""
    data = metadata() + b"".join(adds(1000)) * 400
    (path := tmp_path / f"es.dbn{pack}").write_bytes(gzip.compress(data, 1) if pack else data)
    flow = open_flow(path)
    tracemalloc.start()
    assert sum(batch.num_rows for batch in flow.batches(5000)) == 400_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_chunks_replay_as_the_whole(tmp_path):
    """The digest does not depend on how a file was cut."""
    flow = open_flow(write(tmp_path, *(mbo(order_id=i, instrument_id=i % 3) for i in range(50))))
    whole = hftlab.replay(flow, mode="rebuild")
    assert hftlab.replay(open_flow(flow.path), mode="rebuild", chunk_rows=7).digest == whole.digest


@pytest.mark.parametrize("schema", ["mbp-1", "mbp-10", "trades", "ohlcv-1s", "definition"])
def test_another_schema_is_named(tmp_path, schema):
    """Only mbo can be rebuilt; a file of ten levels is good for something else."""
    hint = " (an mbp-10 file is a truth: hftlab compare RUN --truth FILE)" if schema == "mbp-10" else ""
    path = write(tmp_path, schema=schema)
    assert message(path) == f"{path}: found the schema {schema}, expected the schema mbo{hint}"


def test_a_version_nobody_knows_yet(tmp_path):
    """A later version is refused before its records are misread."""
    path = write(tmp_path, mbo())
    path.write_bytes(path.read_bytes()[:3] + b"\x07" + path.read_bytes()[4:])
    assert message(path) == f"{path}, byte 3: found DBN version 7, expected version 1 to {dbn.DBN_VERSION}"


@pytest.mark.parametrize("content", [b"price,size\n1,2\n", b"\0" * 200, b"DB", b"DBZ\1" + b"x" * 300])
def test_other_content_under_the_right_name(tmp_path, content):
    """The name is believed last."""
    (path := tmp_path / "es.dbn").write_bytes(content)
    said = f"{path}: found {content[:4]!r} at its beginning, expected DBN data, as b'DBN' and a version say"
    assert message(path) == said


def test_nothing(tmp_path):
    """An empty file, plain or packed."""
    (path := tmp_path / "es.dbn").write_bytes(b"")
    assert message(path) == f"{path}: found an empty file, expected order flow data"
    (path := tmp_path / "es.dbn.gz").write_bytes(gzip.compress(b""))
    assert message(path).startswith(f"{path}: found b'' at its beginning")


def test_metadata_cut_anywhere(tmp_path):
    """Without all of what stands before the records they can't be read."""
    whole = metadata()
    path = tmp_path / "es.dbn"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        assert message(path).startswith(f"{path}{', byte' if length >= 8 else ':'}")


def test_metadata_that_lies_about_its_length(tmp_path):
    """A length too small for any metadata is refused before Databento's decoder would panic."""
    path = write(tmp_path, mbo())
    data = path.read_bytes()
    for length in (0, 1, 50, 100, 119, 2**32 - 1):
        path.write_bytes(data[:4] + struct.pack("<I", length) + data[8:])
        assert "bytes of metadata, expected" in message(path)
    path.write_bytes(data[:8] + b"\xff" * 16 + data[24:])
    assert message(path).startswith(f"{path}, byte 8: found broken metadata (UTF-8 error")


def test_databento_s_package_is_optional(tmp_path, monkeypatch):
    """Without it the answer says what to install."""
    path = write(tmp_path, mbo())
    monkeypatch.setitem(sys.modules, "databento_dbn", None)
    with pytest.raises(UsageError) as caught:
        open_flow(path)
    assert str(caught.value) == (
        f"{path}: reading DBN needs Databento's reader: pip install 'hftlab[databento]'"
    )


# ------------------------------------------------------------------ damage


def faults(flow):
    """What was met, after everything was read."""
    return len(rows(flow)), [str(fault) for fault in flow.faults]


def test_the_last_record_cut_anywhere(tmp_path):
    """All whole records are there, and where the cut one begins is said."""
    path = write(tmp_path, *adds(3))
    data = path.read_bytes()
    start = len(data) - SIZE
    for length in range(1, SIZE):
        path.write_bytes(data[: start + length])
        said = f"byte {start:,}: found a record cut after {length} bytes, expected 56 bytes"
        assert faults(open_flow(path)) == (2, [said])


@pytest.mark.parametrize("kind", ["zst", "gz", "xz"])
def test_a_packed_file_cut_anywhere(tmp_path, kind):
    """What could be unpacked is there, up to the last whole record; before the first there is nothing."""
    pack = {"zst": lambda d: pa.compress(d, "zstd", asbytes=True), "gz": gzip.compress, "xz": lzma.compress}
    noise = random.Random(5)
    records = [mbo(order_id=noise.getrandbits(64), ts=NOON_NS + noise.getrandbits(40)) for _ in range(3)]
    whole = pack[kind](metadata() + b"".join(records))
    path = tmp_path / f"es.dbn.{kind}"
    counts = Counter()
    for length in range(8, len(whole)):
        path.write_bytes(whole[:length])
        try:
            count, said = faults(open_flow(path))
        except FormatError:
            assert str(path) in message(path)
            continue
        assert len(said) == 1
        assert said[0].endswith(f"expected a whole { {'gz': 'gzip', 'zst': 'zstd'}.get(kind, kind) } file")
        counts[count] += 1
    assert set(counts) <= {1, 2, 3}
    assert kind != "gz" or {1, 2} <= set(counts)


def test_a_long_zstd_file_that_ends_early(tmp_path):
    """Everything before the byte at which it ends is delivered."""
    data = metadata() + b"".join(adds(40_000))
    whole = pa.compress(data, "zstd", asbytes=True)
    (path := tmp_path / "es.dbn.zst").write_bytes(whole[: len(whole) * 3 // 4])
    flow = open_flow(path)
    end = sum(map(len, _until_end(path)))
    count = (end - len(metadata())) // SIZE
    said = f"byte {end:,}: found broken zstd data (Truncated compressed stream), expected a whole zstd file"
    assert faults(flow) == (count, [said])
    assert column(flow, "order_id") == list(range(1, count + 1))
    assert count > 20_000


def _until_end(path):
    try:
        yield from containers.blocks(path)
    except containers.EndsEarly:
        return


def test_a_bad_checksum(tmp_path):
    """Content that its checksum contradicts is not used."""
    data = bytearray(gzip.compress(metadata() + mbo()))
    data[-6] ^= 1
    (path := tmp_path / "es.dbn.gz").write_bytes(data)
    assert "found broken gzip data (CRC check failed" in message(path)


@pytest.mark.parametrize("garbage", [b"\0", b"\xff" * 56, bytes(range(256)) * 3, b"\x0e\xa0" * 101])
@pytest.mark.parametrize("kind", ["dbn", "dbn.gz"])
def test_garbage_in_the_middle(tmp_path, monkeypatch, garbage, kind):
    """It is a fault with its place, and reading goes on at the next record, in whatever block that is."""
    data = metadata() + b"".join(adds(4)) + garbage + b"".join(adds(4))
    at = len(metadata()) + 4 * SIZE
    (path := tmp_path / f"es.{kind}").write_bytes(gzip.compress(data) if kind != "dbn" else data)
    for size in (64, 200, 1 << 20):
        monkeypatch.setattr(feed, "BLOCK_BYTES", size)
        flow = open_flow(path)
        count, said = faults(flow)
        if garbage.startswith(b"\x0e\xa0"):  # the header of a record
            assert (count, said[0][:40]) == (7, f"byte {at + 38:,}: found action '\\x0e', expected one"[:40])
        else:
            assert (count, len(said)) == (8, 1)
            assert said[0].startswith(f"byte {at:,}: found no record ")
        assert column(flow, "order_id")[-3:] == [2, 3, 4]


def test_records_lost_and_found_twice(tmp_path):
    """Damage of a kind is one line with its first place and its count; the last record needs no follower."""
    parts = [*adds(2), b"\0" * 9, *adds(2), b"\1" * 3, mbo(order_id=77)]
    flow = open_flow(write(tmp_path, *parts))
    at = len(metadata()) + 2 * SIZE
    assert faults(flow) == (
        5,
        [f"byte {at:,}: found no record (00 00), expected the header of one (2 times, the first here)"],
    )
    assert column(flow, "order_id") == [1, 2, 1, 2, 77]


def test_damage_to_the_end(tmp_path):
    """Where no record follows, what precedes is there; where nothing precedes, it is no flow."""
    at = len(metadata())
    flow = open_flow(write(tmp_path, mbo(), b"\0" * 500))
    said = "found no record (00 00), expected the header of one"
    assert faults(flow) == (1, [f"byte {at + SIZE:,}: {said}"])
    path = write(tmp_path, b"\0" * 500)
    said = f"found no mbo record: byte {at:,}: no record (00 00), expected the header of one"
    assert message(path) == f"{path}: {said}"


@pytest.mark.parametrize(
    ("offset", "letter", "said"),
    [
        (38, b"Z", "found action 'Z', expected one of A C M R T F N"),
        (38, b"\0", "found action '\\x00', expected one of A C M R T F N"),
        (39, b"b", "found side 'b', expected one of B A N"),
        (39, b"N", "found side 'N', expected B or A of an add"),
    ],
)
def test_a_letter_that_is_none(tmp_path, offset, letter, said):
    """A record that can't be what it says is left out, and counted with its place."""
    broken = bytearray(mbo(order_id=5))
    broken[offset : offset + 1] = letter
    flow = open_flow(write(tmp_path, *adds(3), bytes(broken), *adds(3), bytes(broken), mbo(order_id=9)))
    place = f"byte {len(metadata()) + 3 * SIZE + offset:,}"
    assert faults(flow) == (7, [f"{place}: {said} (2 times, the first here)"])
    assert column(flow, "order_id") == [1, 2, 3, 1, 2, 3, 9]
    assert faults(open_flow(write(tmp_path, bytes(broken), mbo())))[0] == 1


def test_a_mapping_record_that_is_broken(tmp_path):
    """Databento's reader refuses it; the records around it stand."""
    broken = bytearray(mapping_record(3, ES, "ESH4"))
    broken[89:95] = b"\xff" * 6  # where its name is
    flow = open_flow(write(tmp_path, mbo(), bytes(broken), mbo(order_id=2)))
    at = len(metadata()) + SIZE
    said = f"byte {at:,}: found a broken SYMBOL_MAPPING record, expected one that Databento's reader takes"
    assert faults(flow) == (2, [said])


# ------------------------------------------------------------------ anything at all


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("ACMRTFN"),
            st.sampled_from("BA"),
            st.integers(-(2**63), 2**63 - 2),
            st.integers(0, 2**32 - 2),
            st.integers(0, 2**64 - 1),
            st.integers(0, 255),
            st.integers(0, 2**32 - 1),
        ),
        max_size=30,
    ),
    st.sampled_from([1, 2, 3]),
)
def test_whatever_is_written_is_read(tmp_path_factory, records, version):
    """Encoder and decoder agree on all values of all fields."""
    folder = tmp_path_factory.getbasetemp()
    path = write(
        folder,
        *(mbo(a, b, *more[:3], sequence=more[4], flags=more[3]) for a, b, *more in records),
        version=version,
    )
    signs = {"B": 1, "A": -1}
    assert rows(open_flow(path)) == [(a, signs[b], *more) for a, b, *more in records]


@settings(max_examples=800)
@given(st.randoms(use_true_random=False), st.integers(1, 6))
def test_bytes_changed_inserted_and_lost(tmp_path_factory, noise, edits):
    """Nothing crashes or hangs: a flow with its faults, or an error of one line."""
    parts = [
        *adds(20),
        system(3, "x"),
        mapping_record(3, ES, "ESM4"),
        *adds(20),
        error_record(3, "e"),
        *adds(20),
    ]
    data = damaged(metadata() + b"".join(parts), noise, edits, most=200)
    (path := tmp_path_factory.getbasetemp() / "noise.dbn").write_bytes(data)
    try:
        flow = open_flow(path, format="dbn")
        table = flow.table()
    except HftlabError:
        assert message(path, format="dbn")
        return
    table.validate(full=True)
    assert table.num_rows <= len(data) // SIZE
    assert all("\n" not in str(fault) for fault in flow.faults)
    assert read_facts(table).rows == table.num_rows


# ------------------------------------------------------------------ the real files


@pytest.fixture(scope="module")
def es(data_dir):
    """The ES file of 2023-12-25."""
    return open_flow(data_dir / ES_25)


@pytest.fixture(scope="module")
def es_rebuilt(es):
    """Its books, as the facts make them."""
    return hftlab.replay(es, mode="rebuild", record=("l1", "book", "rejects"))


def test_es_is_what_databento_s_decoder_says(es):
    """Every column of every record equals the object that their own decoder makes of it."""
    decoder = dbn.DBNDecoder(compression=dbn.Compression.ZSTD)
    decoder.write(es.path.read_bytes())
    expected = [
        (
            m.ts_event,
            m.ts_recv,
            m.action.value,
            {"B": 1, "A": -1, "N": 0}[m.side.value],
            m.price,
            m.size,
            m.order_id,
            int(m.flags),
            m.sequence,
        )
        for m in decoder.decode()
        if isinstance(m, dbn.MBOMsg)
    ]
    assert rows(es, "ts_event", "ts_recv", *COLUMNS) == expected


def test_es_in_numbers(es, data_dir):
    """Records and actions of both files; one snapshot of 8,725 orders begins each."""
    assert es.num_rows == 68_792
    assert Counter(column(es, "action")) == {"A": 29_216, "M": 12_233, "C": 17_999, "T": 2_973, "F": 6_371}
    assert set(column(es, "symbol")) == {"ESH4"}
    assert (es.notes, es.faults) == (["records of a snapshot (flag 32): 8,725"], [])
    first = open_flow(data_dir / ES_24)
    assert (first.num_rows, Counter(column(first, "action"))) == (8_725, {"A": 8_725})
    assert column(first, "order_id") == column(es, "order_id")[:8_725]


def test_es_every_reference_resolves(es, es_rebuilt):
    """Each cancel and each modify names an order that rests, and no add one that does already."""
    resting = set()
    for action, order_id, size, left in _with_sizes(es):
        assert action not in "CM" or order_id in resting
        assert action != "A" or order_id not in resting
        assert action != "C" or size == left
        if action == "A":
            resting.add(order_id)
        elif action == "C":
            resting.remove(order_id)
    assert es_rebuilt.rejects.height == 0


def _with_sizes(flow):
    """Facts that change the book, with what was left of their order before."""
    sizes = {}
    for action, order_id, size in rows(flow, "action", "order_id", "size"):
        if action in "ACM":
            yield action, order_id, size, sizes.get(order_id)
            sizes[order_id] = size


def test_es_leaves_no_phantom_orders(es, es_rebuilt):
    """After the last event exactly those orders rest, at those sizes, that a dict of them has."""
    resting = {}
    for action, side, price, size, order_id in rows(es, "action", "side", "price", "size", "order_id"):
        if action in "AM":
            resting[order_id] = (side, price, size)
        elif action == "C":
            side, price, left = resting.pop(order_id)
            if left > size:
                resting[order_id] = (side, price, left - size)
    found = {row[0]: row[1:] for row in es_rebuilt.book.select("order_id", "side", "price", "qty").rows()}
    assert len(found) == es_rebuilt.book.height == 11_217
    assert found == resting


def test_es_is_crossed_before_the_opening_and_never_after(es, es_rebuilt):
    """Orders gather until 23:00 UTC without trading; from then on no event leaves the book crossed."""
    facts = pl.from_arrow(es.table()).with_row_index("seq").cast({"seq": pl.Int64})
    ends = facts.filter(pl.col("flags") & 128 != 0).select("seq", "ts_event")
    states = ends.join_asof(es_rebuilt.l1.select("seq", "bid_px", "ask_px"), on="seq")
    crossed = states.filter(pl.col("bid_px") >= pl.col("ask_px"))["ts_event"]
    assert (states.height, crossed.len()) == (47_022, 891)
    opening = dt.datetime(2023, 12, 25, 23, tzinfo=dt.UTC)
    assert crossed.max() < opening
    assert (ends["ts_event"] > opening).sum() == 46_096


def test_es_replays_the_same_from_any_wrapping(es, es_rebuilt, tmp_path):
    """Unpacked and mapped, in small chunks, it is the same run."""
    (path := tmp_path / "es.dbn").write_bytes(containers.read(es.path))
    run = hftlab.replay(open_flow(path), mode="rebuild", chunk_rows=10_000)
    assert run.digest == es_rebuilt.digest
