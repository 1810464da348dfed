"""The registry, the native tables and broken files: what opens, and what is said when it doesn't."""

from __future__ import annotations

import gzip
import inspect
import io
import lzma
import os
import subprocess
import sys
import zipfile

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hftlab.codes import Action, MboAction
from hftlab.errors import FormatError, InputError, UsageError
from hftlab.feeds import FEEDS, Flow, open_flow
from hftlab.feeds.parsing import containers, footers, table_files
from hftlab.fidelity import venue_books
from hftlab.replayer.inference import infer_orders
from hftlab.schema import MBO, ORDERS, code_array

MESSAGES = b"34200.004241176,1,16113575,18,5853300,1\n34200.5,3,16113575,18,5853300,1\n"
NAME = "AAPL_2012-06-21_34200000_37800000_message_50.csv"


def orders_table(rows=10):
    """`rows` new orders of two symbols."""
    row = np.arange(rows)
    return pa.table(
        {
            "ts": pa.array(row).cast(ORDERS.field("ts").type),
            "symbol": pa.array(["A", "B"] * rows).slice(0, rows).dictionary_encode(),
            "action": code_array(np.full(rows, Action.NEW, dtype=np.int8), Action),
            "order_id": row.astype(np.uint64),
            "side": np.ones(rows, dtype=np.int8),
            "price": row * 10**9,
            "qty": row + 1,
        }
    )


def mbo_table():
    """Three facts."""
    values = {
        "action": code_array(np.array([0, 2, 5], dtype=np.int8), MboAction),
        "symbol": pa.array(["A"] * 3).dictionary_encode(),
    }
    zeros = pa.array([0, 0, 0])
    columns = {f.name: values[f.name] if f.name in values else zeros.cast(f.type) for f in MBO}
    return pa.table(columns)


def write_ipc(path, table, batch_rows=None, stream=False):
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)


def write_native(path, table, batch_rows=None):
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=batch_rows)
    else:
        write_ipc(path, table, batch_rows, stream=path.name.startswith("stream"))
    return path


def plain(table):
    """Columns as lists, dictionaries as their values."""
    decoded = [c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in table.columns]
    return {
        name: (c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c).to_pylist()
        for name, c in zip(table.column_names, decoded, strict=True)
    }


NATIVE = ["flow.parquet", "flow.arrow", "flow.feather", "stream.ipc", "flow_without_suffix"]


# ------------------------------------------------------------------ Flow


def test_a_feed_needs_four_arguments():
    """A third-party feed builds a Flow from a path, its name, the kind and a table."""
    flow = Flow("x.bin", "mine", "orders", orders_table())
    assert flow.table() is infer_orders(flow)
    assert (flow.kind, flow.format, flow.num_rows, flow.symbols, flow.notes) == (
        "orders",
        "mine",
        10,
        None,
        [],
    )
    assert repr(flow) == "<Flow mine orders 'x.bin', 10 rows>"


def test_a_table_is_read_once_and_only_when_asked_for():
    """A function in place of the table is called by the first `table()`, and never again."""
    calls = []
    flow = Flow("x.bin", "mine", "orders", lambda: calls.append(1) or orders_table())
    assert repr(flow) == "<Flow mine orders 'x.bin'>"
    assert calls == []
    assert flow.table() is flow.table()
    assert calls == [1]


def test_batches_of_a_table_are_its_slices():
    """Without a reader of its own a flow cuts its table, in order."""
    flow = Flow("x.bin", "mine", "orders", orders_table(10))
    assert [batch.num_rows for batch in flow.batches(4)] == [4, 4, 2]
    assert pa.concat_tables(flow.batches(4)).equals(flow.table())


def test_a_batch_has_rows():
    """A batch of no rows would never end."""
    with pytest.raises(UsageError, match="batches of 0 rows, expected at least 1"):
        Flow("x.bin", "mine", "orders", orders_table()).batches(0)


@pytest.mark.parametrize("symbols", ["A,B", ["A", "B"], (s for s in ["A", "B", "A"]), " A , B"])
def test_symbols_are_carried_not_applied(symbols):
    """The filter is the replay's: rows keep their numbers."""
    flow = Flow("x.bin", "mine", "orders", orders_table(), symbols=symbols)
    assert flow.symbols == ("A", "B")
    assert flow.table().num_rows == 10
    assert repr(flow) == "<Flow mine orders 'x.bin', 10 rows, symbols=A,B>"


def test_symbols_that_name_none():
    """An empty list is a mistake, not everything."""
    with pytest.raises(UsageError, match="name no instrument"):
        Flow("x.bin", "mine", "orders", orders_table(), symbols=",")


# ------------------------------------------------------------------ native tables


@pytest.mark.parametrize("name", NATIVE)
def test_orders_come_back(tmp_path, name):
    """What was written is what is read, and its length is known before reading."""
    flow = open_flow(write_native(tmp_path / name, orders_table()))
    assert (flow.kind, flow.format, flow.num_rows) == ("orders", "orders", 10)
    assert plain(infer_orders(flow)) == plain(orders_table())


@pytest.mark.parametrize("name", NATIVE)
def test_mbo_is_told_by_its_columns(tmp_path, name):
    """Facts are recognised without metadata."""
    flow = open_flow(write_native(tmp_path / name, mbo_table()))
    assert (flow.kind, flow.format) == ("mbo", "mbo")
    assert plain(flow.table()) == plain(mbo_table())


def test_metadata_decides_before_columns(tmp_path):
    """A table that says what it is, is that."""
    table = orders_table().replace_schema_metadata({"hftlab.table": "mbo"})
    assert open_flow(write_native(tmp_path / "flow.parquet", table)).kind == "mbo"


@pytest.mark.parametrize("rows", [1, 3, 4, 7, 10, 100])
@pytest.mark.parametrize("name", NATIVE)
def test_batches_join_to_the_table(tmp_path, name, rows):
    """Every batch but the last has the rows asked for, however the file was cut."""
    flow = open_flow(write_native(tmp_path / name, orders_table(10), batch_rows=4))
    batches = list(flow.batches(rows))
    assert [batch.num_rows for batch in batches[:-1]] == [rows] * (len(batches) - 1)
    joined = pa.concat_tables([batch.replace_schema_metadata() for batch in batches]).unify_dictionaries()
    assert plain(joined) == plain(orders_table(10))


@pytest.mark.parametrize("name", NATIVE)
def test_a_table_without_rows_is_one_batch(tmp_path, name):
    """An empty table is legal: nothing was asked of the venue. Its columns are still there to see."""
    flow = open_flow(write_native(tmp_path / name, orders_table(0)))
    (batch,) = flow.batches(5)
    assert (flow.num_rows, flow.table().num_rows, batch.num_rows) == (0, 0, 0)
    assert batch.column_names == orders_table().column_names
    (batch,) = Flow("x.bin", "mine", "orders", orders_table(0)).batches(5)
    assert batch.num_rows == 0


def test_the_wrong_table_is_refused(tmp_path):
    """A table of results is no order flow, whatever its columns."""
    path = write_native(
        tmp_path / "fills.parquet", orders_table().replace_schema_metadata({"hftlab.table": "fills"})
    )
    assert message(path) == f"{path}: found the table 'fills', expected an orders, mbo or mbp table"


def test_columns_that_are_neither(tmp_path):
    """A table that can't be order flow says what it has."""
    path = write_native(tmp_path / "x.parquet", pa.table({"a": [1], "b": [2]}))
    expected = "expected at least action and order_id (orders) or those of mbo"
    assert message(path) == f"{path}: found columns a, b, {expected}"


@pytest.mark.parametrize("name", NATIVE)
def test_metadata_that_is_no_text(tmp_path, name):
    """Arrow lets it be any bytes, polars panics at such; a table is read without."""
    table = orders_table()
    fields = [field.with_metadata({"unit": b"\xff", "kept": "so"}) for field in table.schema]
    odd = table.cast(pa.schema(fields, {b"\xff": "x", "hftlab.table": "orders"}))
    flow = open_flow(write_native(tmp_path / name, odd))
    for found in (flow.table(), *flow.batches(3)):
        assert found.schema.metadata == {b"hftlab.table": b"orders"}
        assert found.schema.field("qty").metadata == {b"kept": b"so"}
        assert pl.from_arrow(found).height == found.num_rows


def test_a_second_stream_is_not_left_out(tmp_path):
    """Arrow reads a stream to its end mark, and would say nothing of what is behind it."""
    table = orders_table()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    once = sink.getvalue().to_pybytes()
    (path := tmp_path / "twice.arrow").write_bytes(once)
    assert open_flow(path).num_rows == 10
    path.write_bytes(once * 2)
    with pytest.raises(FormatError, match=f"{len(once):,} more bytes behind the end mark"):
        open_flow(path)


FILTERS = {"bloom_filter_options": {"order_id": True}}  # which newer versions of Arrow write
FILTERS = FILTERS if FILTERS.keys() <= inspect.signature(pq.write_table).parameters.keys() else {}
WRITERS = {
    "plain.parquet": lambda table, path: pq.write_table(table, path),
    "groups.parquet": lambda table, path: pq.write_table(table, path, row_group_size=3),
    "index.parquet": lambda table, path: pq.write_table(table, path, row_group_size=3, write_page_index=True),
    "filter.parquet": lambda table, path: pq.write_table(table, path, row_group_size=3, **FILTERS),
    "polars.parquet": lambda table, path: pl.from_arrow(table).write_parquet(path, row_group_size=3),
    "file.arrow": lambda table, path: write_ipc(path, table, 3),
    "polars.arrow": lambda table, path: pl.from_arrow(table).write_ipc(path),
    "packed.arrow": lambda table, path: pl.from_arrow(table).write_ipc(path, compression="zstd"),
}


@pytest.mark.parametrize("rows", [0, 1, 10])
@pytest.mark.parametrize("name", WRITERS)
def test_two_files_in_one(tmp_path, name, rows):
    """The last footer would be believed, and its offsets read the rows of the first file, or none of them."""
    WRITERS[name](orders_table(rows), path := tmp_path / name)
    once = path.read_bytes()
    assert open_flow(path).num_rows == rows
    assert table_files.opened(path).num_rows == rows
    WRITERS[name](orders_table(7), path)
    first = path.read_bytes()
    for before in (first, once, first[:-50], first + bytes(100)):
        path.write_bytes(before + once)
        for ask in (open_flow, table_files.opened, venue_books.open_truth):
            with pytest.raises(
                FormatError, match=r"bytes that its footer doesn't know of: two files in one\?"
            ):
                ask(path)


def test_a_filter_whose_footer_does_not_say_how_long_it_is():
    """Older writers of Parquet say it in the filter's own header: 15 bytes, whose first field is 32 here."""
    header = bytes.fromhex("1540 1c1c0000 1c1c0000 1c1c0000 00")
    file = io.BytesIO(bytes(100) + header + bytes(32))
    assert footers._end_of_filter(file, {14: 100}) == 100 + 15 + 32
    assert footers._end_of_filter(file, {14: 100, 15: 90}) == 190
    assert footers._end_of_filter(file, {}) == 0


def test_a_format_that_contradicts_the_file(tmp_path):
    """Asking for facts where there are commands is an error."""
    path = write_native(tmp_path / "flow.parquet", orders_table())
    assert message(path, format="mbo") == f"{path}: found an orders table, expected an mbo table"


@pytest.mark.parametrize("name", ["flow.parquet", "flow.arrow", "stream.arrow"])
def test_a_native_file_cut_anywhere(tmp_path, name):
    """Whatever the length that is left, the answer is one line."""
    whole = write_native(tmp_path / name, orders_table(), batch_rows=4).read_bytes()
    path = tmp_path / f"cut.{name.split('.')[1]}"
    for length in [0, 1, 5, 6, 8, 9, *range(10, len(whole), 97), len(whole) - 8, len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert str(path) in message(path)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("name", ["flow.parquet", "flow.arrow", "stream.arrow"])
def test_a_native_file_with_one_byte_changed(tmp_path, name, seed):
    """It opens, or says in one line why not; it never crashes."""
    data = bytearray(write_native(tmp_path / name, orders_table(), batch_rows=4).read_bytes())
    where = np.random.default_rng(seed).integers(len(data))
    data[where] ^= 1 + np.random.default_rng(seed + 1).integers(255)
    (path := tmp_path / f"changed.{name.split('.')[1]}").write_bytes(data)
    said = ""
    try:
        open_flow(path).table()
    except InputError as error:
        said = str(error)
    assert "\n" not in said, f"seed {seed}"


# ------------------------------------------------------------------ finding the format


def message(path, **options):
    """What is said about a file that can't be opened and read, in one line."""
    with pytest.raises(FormatError) as caught:
        open_flow(path, **options).table()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_can_t_be_shown_is_not(tmp_path):
    """Names in a file may be anything, what a terminal obeys too."""
    (path := tmp_path / "x.csv").write_text("a\x1b[2J,b\x7f,c\n1,2,3\n")
    assert "found a table with the columns a?[2J, b?, c, not recognised by itself" in message(path)
    with pytest.raises(UsageError, match=r"with one of a\?\[2J, b\?, c"):
        open_flow(path, format="generic", kind="orders")


def test_a_file_of_no_known_format(tmp_path):
    """The answer says what it looks like, and where the formats are listed."""
    (path := tmp_path / "notes.txt").write_text("Dear diary\n")
    expected = "expected a format that hftlab reads (docs/FEEDS.md)"
    assert message(path) == f"{path}: found text, not recognised by itself, {expected}"


def test_an_unknown_format(tmp_path):
    """The answer names the ones there are."""
    (path := tmp_path / NAME).write_bytes(MESSAGES)
    with pytest.raises(UsageError, match=r"unknown format 'itsch', expected one of lobster, .*orders, mbo"):
        open_flow(path, format="itsch")


def test_a_format_in_capitals(tmp_path):
    """Names of formats have no case."""
    (path := tmp_path / NAME).write_bytes(MESSAGES)
    assert open_flow(path, format="LOBSTER").format == "lobster"


def test_an_option_that_a_feed_does_not_have(tmp_path):
    """An opening book means nothing to a native table."""
    path = write_native(tmp_path / "flow.parquet", orders_table())
    with pytest.raises(
        UsageError, match="option 'initial_book' means nothing to Parquet and Arrow IPC files"
    ):
        open_flow(path, initial_book="book.csv")


def test_no_such_file_and_a_folder(tmp_path):
    """The call is wrong, not the data."""
    with pytest.raises(UsageError, match=r"nowhere\.csv: there is no such file"):
        open_flow(tmp_path / "nowhere.csv")
    with pytest.raises(UsageError, match="this is a folder, expected a file"):
        open_flow(tmp_path)


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        (NAME, "text"),
        (f"{NAME}.xz", "xz"),
        (f"{NAME}.gz", "gzip"),
        ("a.zip", "zip"),
        ("a.parquet", "Parquet"),
        ("a.arrow", "Arrow IPC"),
    ],
)
def test_an_empty_file(tmp_path, name, claim):
    """Nothing at all is an error whatever the name."""
    (path := tmp_path / name).write_bytes(b"")
    assert message(path) == f"{path}: found an empty file, expected {claim} data"


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_nothing_inside(tmp_path, pack):
    """A well compressed nothing is nothing."""
    (path := tmp_path / (NAME + (".gz" if pack is gzip.compress else ".xz"))).write_bytes(pack(b""))
    assert message(path) == f"{path}: found nothing in it, expected order flow data"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (f"{NAME}.xz", MESSAGES, "found other content, expected xz data, as the name says"),
        (
            f"{NAME}.gz",
            lzma.compress(MESSAGES),
            "found xz data, expected gzip data, as the name says",
        ),
        (NAME, gzip.compress(MESSAGES, mtime=0), "found gzip data, expected text data, as the name says"),
        (
            "flow.parquet",
            MESSAGES,
            "found other content, expected Parquet data, as the name says",
        ),
        (
            "flow.arrow",
            b"PAR1....PAR1",
            "found Parquet data, expected Arrow IPC data, as the name says",
        ),
        ("flow.zip", b"\x00" * 50, "found other content, expected zip data, as the name says"),
    ],
)
def test_content_that_contradicts_the_name(tmp_path, name, data, said):
    """Not the format its name says: an error even where the content could be read."""
    (path := tmp_path / name).write_bytes(data)
    assert message(path) == f"{path}: {said}"


def test_garbage_inside_a_good_name(tmp_path):
    """Bytes that are no messages are found in row 1."""
    (path := tmp_path / NAME).write_bytes(bytes(range(1, 255)) * 20)
    assert message(path).startswith(f"{path}, line 1: found 1 field, expected 6")


def test_two_zip_archives_in_one(tmp_path):
    """Readers of zip go by what its end lists, and would say nothing of the first."""
    with zipfile.ZipFile(path := tmp_path / "AAPL.zip", "w") as archive:
        archive.writestr(NAME, MESSAGES)
    assert open_flow(path).num_rows == 2
    once = path.read_bytes()
    path.write_bytes(once * 2)
    expected = f"{path}: found {len(once)} bytes before what the archive lists, expected one zip archive"
    assert message(path) == expected


def test_zip_archives_without_what_is_needed(tmp_path):
    """An archive says how many message files it has."""
    path = tmp_path / "day.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    found = "found a zip archive of 1 files (readme.txt), not recognised by itself"
    assert message(path) == f"{path}: {found}, expected one table in it, or unpacked: unzip {path}"
    said = "found 0 message files in the archive, expected exactly one"
    assert message(path, format="lobster") == f"{path}: {said}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(NAME, MESSAGES)
        archive.writestr(NAME.replace("AAPL", "MSFT"), MESSAGES)
    assert message(path) == f"{path}: found 2 message files in the archive, expected exactly one"


def pack_zip(data, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAME, data)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["xz", "gz", "zip"])
def test_a_compressed_file_cut_anywhere(tmp_path, kind):
    """A download that stopped is an error, at whatever byte it stopped."""
    path = tmp_path / (NAME + f".{kind}")
    data = MESSAGES * 50
    whole = {"xz": lzma.compress, "gz": gzip.compress}.get(kind, lambda data: pack_zip(data, path))(data)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert message(path).startswith(str(path))
    path.write_bytes(whole)
    assert open_flow(path).num_rows == 100


def test_a_zstd_file_that_begins_with_a_frame_to_skip(tmp_path):
    """As pzstd writes it."""
    pack = pa.compress(MESSAGES, codec="zstd", asbytes=True)
    (path := tmp_path / f"{NAME}.zst").write_bytes(b"\x50\x2a\x4d\x18\x04\0\0\0size" + pack)
    assert containers.head(path) == containers.read(path) == b"".join(containers.blocks(path)) == MESSAGES
    assert open_flow(path).num_rows == 2


def test_what_can_t_be_read_twice(tmp_path):
    """A pipe would be empty, or wait for ever, after a look at its head."""
    os.mkfifo(path := tmp_path / NAME)
    with pytest.raises(UsageError, match="this is a pipe or a device, expected a file"):
        open_flow(path)


def test_a_bad_checksum(tmp_path):
    """Content that doesn't match its checksum is not used."""
    data = bytearray(gzip.compress(MESSAGES, mtime=0))
    data[-6] ^= 1
    (path := tmp_path / f"{NAME}.gz").write_bytes(data)
    said = message(path)
    assert "broken gzip data (CRC check failed" in said
    assert said.endswith("expected a whole gzip file")


def test_a_zstd_file_cut_anywhere(tmp_path):
    """zstd is read as the others are, and cut as the others are."""
    whole = pa.compress(MESSAGES * 50, codec="zstd", asbytes=True)
    path = tmp_path / f"{NAME}.zst"
    for length in range(4, len(whole)):
        path.write_bytes(whole[:length])
        assert message(path).startswith(f"{path}: found broken zstd data")
    path.write_bytes(whole)
    assert open_flow(path).num_rows == 100


@pytest.mark.parametrize("kind", ["gz", "xz", "zst"])
def test_blocks_give_what_precedes_the_end_of_a_cut_file(tmp_path, kind):
    """All whole blocks, then what was left, then the error; several streams in a file are one."""
    data = bytes(np.random.default_rng(7).integers(0, 256, 300_000, dtype=np.uint8))
    pack = {"gz": gzip.compress, "xz": lzma.compress, "zst": lambda d: pa.compress(d, "zstd", asbytes=True)}
    path = tmp_path / f"x.{kind}"
    path.write_bytes(pack[kind](data) + pack[kind](b"more"))
    assert b"".join(containers.blocks(path, size=1 << 16)) == data + b"more"
    path.write_bytes(pack[kind](data)[:250_000])
    given = []
    with pytest.raises(containers.EndsEarly, match=r"expected a whole \w+ file"):
        given.extend(containers.blocks(path, size=1 << 14))
    assert data.startswith(b"".join(given))
    assert sum(map(len, given)) > 100_000
    assert all(len(block) == 1 << 14 for block in given[:-1])


def test_head_is_decompressed(tmp_path):
    """A feed recognises content, not its wrapping."""
    (path := tmp_path / "x.xz").write_bytes(lzma.compress(MESSAGES))
    assert containers.head(path, size=5) == b"34200"


def test_every_feed_can_be_asked_the_same():
    """What the registry's docstring promises of a feed."""
    for feed in FEEDS.values():
        assert callable(feed.sniff)
        assert callable(feed.load)
        assert feed.DESCRIPTION


def test_feeds_import_nothing_slow():
    """numba, polars and the CSV reader wait until they are used."""
    slow = "('numba', 'polars', 'pyarrow.csv', 'pyarrow.dataset')"
    code = f"import sys, hftlab.feeds; print([m for m in {slow} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
