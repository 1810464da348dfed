"""What feeds of text have in common: a last row that is cut, a byte order mark, a file that isn't there."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from hftlab.cli import main
from hftlab.errors import HftlabError, InputError, UsageError
from hftlab.feeds import FEEDS, lobster, open_flow
from hftlab.fidelity.compare import compare
from hftlab.replayer.inspection import inspect_flow

MESSAGES = "AAPL_2012-06-21_34200000_57600000_message_2.csv"
BOOKS = MESSAGES.replace("message", "orderbook")
DATABENTO = (
    "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,price,size,order_id,flags,sequence,symbol"
)
T = 1_706_693_400_000
BITSTAMP = "id,timestamp,exchange.timestamp,action,direction,price,volume"
TEXTS = {  # by what it is: name of the file, its lines; the last cell may be cut unnoticed
    "lobster": (MESSAGES, ["34200.5,1,7,18,5853300,1", "34201.25,3,7,18,5853300,1"]),
    "databento_csv": (
        "es.csv",
        [
            DATABENTO,
            f"{T}000000,{T}000000,160,1,17077,A,B,4800.25,3,7,130,11,ESH4",
            f"{T}000001,{T}000001,160,1,17077,C,B,4800.25,3,7,130,12,ESH4",
        ],
    ),
    "orders.csv": (
        "orders.csv",
        [
            "ts,action,order_id,side,price,qty,post_only",
            f"{T}000000,NEW,1,BUY,100.5,10,true",
            f"{T}000001,NEW,2,SELL,101.5,125,false",
        ],
    ),
    "orders.ndjson": (
        "orders.ndjson",
        [
            json.dumps(
                {"ts": T * 10**6 + n, "action": "NEW", "order_id": n, "side": "B", "price": 1.5, "qty": 10}
            )
            for n in range(1, 4)
        ],
    ),
    "bitstamp": (
        "bitstamp_btcusd.csv",
        [BITSTAMP, f"7,{T},{T},created,bid,236.47,200000", f"8,{T},{T},created,ask,237.4,100123"],
    ),
    "bitstamp_log": (
        "bitstamp_btcusd.log",
        [
            f'{T} order_created {{"price": "1", "amount": "2", "datetime": "1", "id": {n}, "order_type": 0}}'
            for n in (1, 2)
        ],
    ),
    "binance": (
        "capture.log",
        [
            json.dumps(
                {"e": "trade", "E": T, "s": "BTCUSDT", "t": n, "p": "1.5", "q": "2.5", "T": T, "m": True}
            )
            for n in (1, 2)
        ],
    ),
    "pitch": (
        "pitch_2009-01-06.txt",
        [
            "28800168AAK27GA00000XB000100SH    0000619200Y",
            "28800169dAK27GA00000YS000200BRK.A/WI0000619300YABCDC",
        ],
    ),
}
CAPTURES = ("bitstamp_log", "binance", "pitch")
ENDS = {"lf": "\n", "crlf": "\r\n"}


def plain(flow):
    """Rows of a flow's table."""
    return pl.from_arrow(flow.table()).rows()


def told(path, whole):
    """What a reader is told of a file; nothing where it holds what the whole one does."""
    try:
        flow = open_flow(path)
        found = plain(flow)
    except InputError as error:
        return str(error)
    return "; ".join(map(str, flow.faults)) or ("" if found == whole else None)


# ------------------------------------------------------------------ the last row


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", TEXTS)
def test_a_last_row_cut_at_any_byte_is_told(tmp_path, kind, end):
    """An error or a fault, wherever it is cut; nothing only where all rows, or all but one, are there."""
    name, lines = TEXTS[kind]
    data = "".join(line + ENDS[end] for line in lines).encode()
    before = len(data) - len(lines[-1]) - len(ENDS[end])
    (path := tmp_path / name).write_bytes(data)
    whole = plain(flow := open_flow(path))
    assert not flow.faults
    path.write_bytes(data[:before])
    assert told(path, whole[:-1]) == ""
    for length in range(before + 1, len(data)):
        path.write_bytes(data[:length])
        said = told(path, whole)
        assert said is not None, f"{data[before:length]!r} lost something, and nobody was told"
        if length < before + len(lines[-1]):
            assert said, f"{data[before:length]!r} passed"


@pytest.mark.parametrize("kind", [kind for kind in TEXTS if kind not in CAPTURES and "ndjson" not in kind])
def test_a_table_without_its_last_line_end(tmp_path, kind):
    """Nobody can tell whether its last row is whole: it is read, and there is a fault that says so."""
    name, lines = TEXTS[kind]
    whole = tmp_path / name
    whole.write_text("\n".join([*lines, ""]))
    expected = plain(open_flow(whole))
    whole.write_text("\n".join(lines))
    flow = open_flow(whole)
    for rows in (1, 100):
        list(flow.batches(rows))
        fault = f"line {len(lines)}: found no line end, expected one behind every row: this one may be cut"
        assert [str(fault) for fault in flow.faults] == [fault]
    assert plain(flow) == expected


@pytest.mark.parametrize("kind", ["orders.ndjson", "bitstamp_log", "binance"])
def test_an_object_that_closes_is_whole(tmp_path, kind):
    """A JSON object says itself where it ends."""
    name, lines = TEXTS[kind]
    (path := tmp_path / name).write_text("\n".join(lines))
    flow = open_flow(path)
    assert len(plain(flow)) >= 2
    assert not flow.faults


def test_what_the_commands_say_of_it(tmp_path, capsys):
    """Inspect's exit status is 1; replay, certify and convert go on, and say it."""
    name, lines = TEXTS["databento_csv"]
    (path := tmp_path / name).write_text("\n".join(lines))
    assert main(["inspect", str(path)]) == 1
    assert "damaged: line 3: found no line end" in capsys.readouterr().out
    assert main(["replay", "--mode", "rebuild", str(path)]) == 0
    assert "line 3: found no line end" in " ".join(capsys.readouterr().out.split())
    assert main(["certify", str(path)]) == 0
    assert "damaged: line 3: found no line end" in capsys.readouterr().out
    assert main(["convert", str(path), "-o", str(tmp_path / "es.parquet")]) == 0
    assert f"{path}: line 3: found no line end" in capsys.readouterr().err


def books(folder, data, name=BOOKS):
    """A message file and published books beside it."""
    (messages := folder / MESSAGES).write_text("34200.5,1,7,18,5853300,-1\n34201.25,1,8,18,5853200,1\n")
    (path := folder / name).write_bytes(data)
    return messages, path


BOOK = b"5853300,18,-9999999999,0\n5853300,18,5853200,18\n"


@pytest.mark.parametrize("one_step", [False, True])
def test_published_books_cut_in_the_last_row(tmp_path, one_step):
    """A shorter last number passes as another one, so the report has a fault."""
    for length in range(len(BOOK) - len("5853300,18,5853200,18"), len(BOOK)):
        messages, path = books(tmp_path, BOOK[:length])
        expected = f"{path}, line 2: found no line end, expected one behind every row: this one may be cut"
        try:
            found = compare(messages, path, one_step=one_step).faults
        except InputError as error:
            expected, found = True, f"{path}, line 2: found" in str(error)
        assert found in (expected, (expected,))
    assert compare(*books(tmp_path, BOOK), one_step=one_step).faults == ()


def test_an_opening_book_that_may_be_cut(tmp_path):
    """It has but one row, whose last number may have had more digits."""
    messages, path = books(tmp_path, BOOK.splitlines()[1])
    (fault,) = open_flow(messages, initial_book=path).faults
    assert str(fault).startswith(f"{path}, line 1: found no line end")
    assert not open_flow(messages, initial_book=books(tmp_path, BOOK)[1]).faults
    assert lobster.first_levels(path).size.tolist() == [18]


def test_published_levels_cut_in_the_last_row(tmp_path):
    """The same of Databento's MBP as CSV."""
    flow = TEXTS["databento_csv"]
    (source := tmp_path / flow[0]).write_text("\n".join([*flow[1], ""]))
    header = "ts_event,sequence,bid_px_00,bid_sz_00,ask_px_00,ask_sz_00"
    lines = [header, f"{T}000000,11,4800.25,3,,0", f"{T}000001,12,,0,,10"]
    (path := tmp_path / "mbp-1.csv").write_text("\n".join([*lines, ""]))
    assert compare(source, path).faults == ()
    path.write_text("\n".join(lines)[:-1])
    (fault,) = compare(source, path).faults
    assert fault.startswith(f"{path}, line 3: found no line end")


# ------------------------------------------------------------------ a byte order mark


@pytest.mark.parametrize("pack", ["", ".gz"])
@pytest.mark.parametrize("kind", TEXTS)
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path, kind, pack):
    """With it a file holds what it holds without, recognised or asked for by name."""
    name, lines = TEXTS[kind]
    data = "".join(line + "\n" for line in lines).encode()
    pack_up = gzip.compress if pack else bytes
    (path := tmp_path / (name + pack)).write_bytes(pack_up(data))
    flow = open_flow(path)
    expected, format = plain(flow), flow.format
    path.write_bytes(pack_up(b"\xef\xbb\xbf" + data))
    for asked in (None, format):
        flow = open_flow(path, format=asked)
        assert (plain(flow), flow.format, flow.faults) == (expected, format, [])


def test_a_byte_order_mark_before_published_books(tmp_path):
    """Of both kinds, and of an opening book."""
    expected = compare(*books(tmp_path, BOOK))
    messages, path = books(tmp_path, b"\xef\xbb\xbf" + BOOK)
    assert compare(messages, path).table.equals(expected.table)
    assert compare(messages, path, one_step=True).ok
    assert open_flow(messages, initial_book=path).num_rows == 4
    name, lines = TEXTS["databento_csv"]
    (flow := tmp_path / name).write_text("\n".join([*lines, ""]))
    header = "bid_px_00,bid_sz_00,ask_px_00,ask_sz_00,ts_event,sequence"
    (path := tmp_path / "mbp-1.csv").write_text(f"\ufeff{header}\n4800.25,3,,0,{T}000000,11\n", "utf-8")
    assert compare(flow, path).exact == 1


def test_nothing_but_a_byte_order_mark(tmp_path):
    """Is nothing."""
    (path := tmp_path / MESSAGES).write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(InputError, match="found nothing in it"):
        open_flow(path)


# ------------------------------------------------------------------ no file


@pytest.mark.parametrize("format", FEEDS)
def test_no_file_is_said_first(tmp_path, monkeypatch, format):
    """Whatever the format is told to be, and whatever else it would want to know."""
    wrong = {tmp_path / "nowhere.csv": "there is no such file", tmp_path: "this is a folder"}
    for path in (*wrong, Path()):
        with pytest.raises(UsageError, match=f"{path}: {wrong.get(path, 'this is a folder')}"):
            open_flow(path, format=format)
    with pytest.raises(UsageError, match="path: found '', expected a file"):
        open_flow("", format=format)
    (path := tmp_path / "closed").write_bytes(b"x")
    opened = Path.open

    def refuses(self, *more, **options):
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(self, *more, **options)

    monkeypatch.setattr(Path, "open", refuses)
    with pytest.raises(InputError, match=f"{path}: can't be read: Permission denied"):
        open_flow(path, format=format)


def test_a_flow_whose_file_is_not_there(tmp_path):
    """A flow made by hand may name any file; to be inspected it must be one."""
    name, lines = TEXTS["lobster"]
    (path := tmp_path / name).write_text("\n".join([*lines, ""]))
    flow = open_flow(path)
    path.unlink()
    with pytest.raises(HftlabError, match=f"{path}: can't be read: No such file or directory"):
        inspect_flow(flow)
