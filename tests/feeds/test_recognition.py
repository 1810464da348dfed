"""Files that no feed recognises: what they look like is said first, then a command, and that one works."""

from __future__ import annotations

import json
import re
import shlex

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hftlab.cli import app
from hftlab.errors import FormatError
from hftlab.feeds import open_flow

MS = 1_700_000_000_000


def said(path):
    """(what was found, what was expected)."""
    with pytest.raises(FormatError) as caught:
        open_flow(path)
    assert "\n" not in str(caught.value)
    return caught.value.found.removesuffix(", not recognised by itself"), caught.value.expected


def write(folder, *lines, name="flow.csv"):
    (path := folder / name).write_text("".join(f"{line}\n" for line in lines))
    return path


def run(expected, capsys):
    """What the command that an error shows prints."""
    command = shlex.split(re.search(r"hftlab (inspect .*)", expected)[1])
    with pytest.raises(SystemExit) as caught:
        app([*command, "--json"])
    assert caught.value.code == 0
    return json.loads(capsys.readouterr().out)


LEVELS = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount"
NUMBERED = "symbol,timestamp,first_update_id,last_update_id,side,update_type,price,qty,pu"


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (LEVELS, f"deribit,BTC-PERP,{MS}000,{MS}003,true,bid,100.0,5"),
        (NUMBERED, f"BTCUSDT,{MS},450,450,a,snap,11114.98,0.100,-1"),
        ("time side price size", f"{MS} bid 100.5 3".replace(" ", ",")),
    ],
)
def test_a_table_of_levels(tmp_path, capsys, header, row):
    """It is called one, and the command that is shown opens it as levels, not as orders."""
    path = write(tmp_path, header.replace(" ", ","), row)
    found, expected = said(path)
    assert found.startswith("a table of price levels with the columns ")
    result = run(expected, capsys)
    assert (result["kind"], result["rows"], result["rejected"]) == ("mbp", 1, 0)


@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet"])
def test_a_table_of_messages(tmp_path, capsys, kind):
    """Others' names and codes become ours, fractional quantities lots; the command that is shown works."""
    names = ("Timestamp", "Order ID", "Event", "Side", "Price", "Amount")
    rows = [(MS, 1, "add", "buy", 100.5, 0.25), (MS + 1, 1, "canceled", "buy", 100.5, 0.25)]
    path = tmp_path / f"flow.{kind}"
    if kind == "csv":
        write(tmp_path, ",".join(names), *(",".join(map(str, row)) for row in rows))
    elif kind == "ndjson":
        write(tmp_path, *(json.dumps(dict(zip(names, row, strict=True))) for row in rows), name=path.name)
    else:
        columns = zip(*rows, strict=True)
        pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), path)
    found, expected = said(path)
    assert (
        "of messages about orders with the columns Timestamp, Order ID, Event, Side, Price, Amount" in found
    )
    result = run(expected, capsys)
    assert (result["kind"], result["rows"], result["rejected"]) == ("orders", 2, 0)


@pytest.mark.parametrize(
    ("header", "row", "end"),
    [
        ("ts,id,type,side,price,qty", f"{MS},1,O,B,10.5,5", "values.action.O=MEANING (what O and the like"),
        (
            "ts,id,type,side,price,qty",
            f"{MS},1,add,B,10,5",
            "price_scale=N (N: their units of price per 1.0)",
        ),
        ("ts,id,type,side,price,qty", "34200.5,1,add,B,10.5,5", "time_unit=UNIT (UNIT: s, ms, us or ns)"),
        ("ts,id,side,price,qty", f"{MS},1,B,10.5,5", "columns.action=NAME (NAME: the column that tells what"),
        ("ts,id,type,side,price,qty", "09:30:00,1,add,B,10.5,5", "date=YYYY-MM-DD (the day of its times)"),
    ],
)
def test_what_only_its_owner_knows(tmp_path, header, row, end):
    """It is not guessed: a word in capitals stands there, and what it is follows."""
    assert end in said(write(tmp_path, header, row))[1]


def test_a_table_without_a_header(tmp_path):
    """Its columns have to be named first."""
    path = write(tmp_path, "34200.5;1;100;B", "34200.5;1;100;B")
    expected = f"their names: hftlab inspect {path} --format generic -O header=NAME1,NAME2,NAME3,NAME4"
    assert said(path) == ("a table of 4 columns without a header", expected)


JSON = '{"a": 1}'


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'1611000000300 {"foo": 1}\n', "a raw capture (a receive time and a JSON message a line)"),
        (
            b'2021-01-18T20:00:00.1000000Z {"foo":1}\n',
            "a raw capture (a receive time and a JSON message a line)",
        ),
        (b'[{"a": 1}, {"a": 2}]\n', "one JSON document"),
        (b'{"ts_recv":"1","hd":{"ts_event":"2","rtype":160},"action":"A"}\n', "Databento's JSON"),
        (b'{"topic": "book", "data": {"bids": []}}\n', "JSON messages with objects in them (topic, data)"),
        (b"BZh91AY&SY" + bytes(50), "bzip2 data"),
        (b"\x04\x22\x4d\x18" + bytes(50), "lz4 data"),
        (b"\xd4\xc3\xb2\xa1" + bytes(50), "a capture of network packets (pcap)"),
        (b"\x0a\x0d\x0d\x0a" + bytes(50), "a capture of network packets (pcap)"),
        (b"\x51\x2a\x4d\x18\x10\0\0\0DBZ\x01" + bytes(12), "DBZ, what Databento wrote before DBN"),
        ((b"\x0e\xa0" + bytes(54)) * 2, "records of DBN without its metadata (a fragment)"),
        (b"<html><body>not found</body></html>", "an HTML or XML page"),
        (b"\0\1\2\3 nothing", "binary data"),
    ],
)
def test_what_is_no_table(tmp_path, content, found):
    """It is called what it is."""
    (path := tmp_path / "file.dat").write_bytes(content)
    assert said(path)[0] == found


def test_a_table_of_other_things(tmp_path):
    """It gets no command that would fail."""
    assert said(write(tmp_path, "name,born,died", "Gauss,1777,1855")) == (
        "a table with the columns name, born, died",
        "columns that tell what happened to orders or price levels (docs/FEEDS.md)",
    )


def test_it_is_short(tmp_path):
    """What matters stands first: the longest of these answers is a third of what it was, 900 characters."""
    path = write(tmp_path, LEVELS, f"deribit,BTC-PERP,{MS}000,{MS}003,true,bid,100.0,5")
    found, expected = said(path)
    assert len(found) + len(expected) - len(str(path)) < 400
