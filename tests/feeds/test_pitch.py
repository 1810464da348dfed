"""PITCH: what each line becomes, whose order an E or X is about, damaged lines, blocks, the real capture."""

from __future__ import annotations

import gzip
import lzma
import re
from collections import Counter
from datetime import date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab
from hftlab.errors import FormatError, UsageError
from hftlab.feeds import Fault, open_flow, pitch
from hftlab.feeds.parsing import containers
from hftlab.schema import MBO

NAME = "pitch_2009-01-06.txt"
MIDNIGHT_NS = int(datetime(2009, 1, 6, 5).timestamp()) * 10**9  # 00:00 in New York, UTC-5
SAMPLE = "pitch/pitch_example.txt.xz"
UNITS = 100_000  # 1e-9 in a ten-thousandth of a dollar

ADD = "28800168AAK27GA00000XB000100SH    0000619200Y"
ADD_LONG = "28800169dAK27GA00000YS000200BRK.A/WI0000619300YABCD"
EXECUTE = "28800170EAK27GA00000X00004000001AQ00001"
CANCEL = "28800171XAK27GA00000X000060"
TRADE = "28800172PAK27GA00000ZB000177ZVZZT 0020000000000I000HV1PJ"
TRADE_LONG = "28800173rAK27GA00000ZS000177ZVZZT.XY0020000000000I000HV1PJ"
CLEAR = "28800174sSH      "
STATUS = "28800175HSH      T0XY"
AUCTION = "28800176ISH      O00006192000000001000000000200000006193000000619400"
SUMMARY = "28800177JSH      C00006192000000012300"
RETAIL = "28800178RSH      A"
BREAK = "28800179B000I000HV1PJ"
EVERY = (
    ADD,
    ADD_LONG,
    EXECUTE,
    CANCEL,
    TRADE,
    TRADE_LONG,
    CLEAR,
    STATUS,
    AUCTION,
    SUMMARY,
    RETAIL,
    BREAK,
)
X, Y, EXECUTION = int("AK27GA00000X", 36), int("AK27GA00000Y", 36), int("000I000HV1PJ", 36)


def write(folder, *lines, name=NAME):
    """A capture of these lines."""
    (path := folder / name).write_text("".join(f"{line}\n" for line in lines))
    return path


def rows(table, *columns):
    """Rows as tuples; codes and symbols by name."""
    frame = pl.from_arrow(table)
    return (
        frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String)).select(columns or pl.all()).rows()
    )


def facts(flow, *columns):
    """Rows of the mbo table, prices in ten-thousandths of a dollar."""
    columns = columns or ("action", "side", "price", "size", "order_id", "symbol", "flags", "sequence")
    frame = pl.from_arrow(flow.table()).with_columns(
        pl.col("action", "symbol").cast(pl.String), pl.col("price") // UNITS
    )
    return frame.select(columns).rows()


def times(flow):
    return flow.table().column("ts_event").cast("int64").to_pylist()


# ------------------------------------------------------------------ the slow twin

SLOW = {  # the format, as its specification has it: what follows 8 digits of time and the type
    "A": r"(?P<id>{id})(?P<side>[BS])(?P<shares>\d{{6}})(?P<symbol>{six})(?P<price>\d{{10}}).",
    "d": r"(?P<id>{id})(?P<side>[BS])(?P<shares>\d{{6}})(?P<symbol>{eight})(?P<price>\d{{10}}).{{5}}.?",
    "E": r"(?P<id>{id})(?P<shares>\d{{6}})(?P<exec>{id})",
    "X": r"(?P<id>{id})(?P<shares>\d{{6}})",
    "P": r"(?P<id>{id})(?P<side>[BS])(?P<shares>\d{{6}})(?P<symbol>{six})(?P<price>\d{{10}})(?P<exec>{id})",
    "r": r"(?P<id>{id})(?P<side>[BS])(?P<shares>\d{{6}})(?P<symbol>{eight})(?P<price>\d{{10}})(?P<exec>{id})",
    "s": r"(?P<symbol>{eight})",
    "H": r"(?P<symbol>{eight})....",
    "I": r"(?P<symbol>{eight}).(?P<numbers>\d{{50}})",
    "J": r"(?P<symbol>{eight}).(?P<numbers>\d{{20}})",
    "R": r"(?P<symbol>{eight}).",
    "B": r"(?P<exec>{id})",
}
CUT = "one behind every row: this one may be cut"
PARTS = {"id": "[0-9A-Z]{12}", "six": "(?=[!-~]+ *)[ -~]{6}", "eight": "(?=[!-~]+ *)[ -~]{8}"}
SLOW = {kind: re.compile(text.format(**PARTS), re.ASCII | re.DOTALL) for kind, text in SLOW.items()}


def slow(data, midnight_ns):
    """Rows of the mbo table and rows of damaged lines (1-based), line by line, by a dict of open orders."""
    facts, damaged, open_orders = [], [], {}
    lines = data.split(b"\n")
    for number, line in enumerate(lines[:-1] if not lines[-1] else lines):
        found = slow_message(line)
        if found is None:
            damaged.append(number + 1)
            continue
        time_ms, kind, message = found
        ts = midnight_ns + time_ms * 10**6
        for *fact, last in slow_facts(kind, message, open_orders):
            facts.append((ts, *fact, 128 if last else 0, number))
    return facts, damaged


def slow_message(line):
    text = line.decode("latin-1")
    text = text[:-1] if text.endswith("\r") else text
    text = text[1:] if text.startswith("S") else text
    if not re.match(r"\d{8}", text, re.ASCII) or text[8:9] not in SLOW or int(text[:8]) >= 86_400_000:
        return None
    match = SLOW[text[8]].fullmatch(text, 9)
    if match is None or not re.fullmatch("[!-~]+ *", (match.groupdict().get("symbol") or "x")):
        return None
    return int(text[:8]), text[8], match.groupdict()


def slow_may_be_cut(line):
    """Whether a last line without an end is a message, and would be one with another character, too."""
    return slow_message(line) is not None and slow_message(line.removesuffix(b"\r") + b"x") is not None


def slow_facts(kind, message, open_orders):
    """(action, side, price, size, order id, symbol, last) of a message."""
    symbol = (message.get("symbol") or "").rstrip()
    shares = int(message.get("shares") or 0)
    if kind in "Ad":
        order_id = int(message["id"], 36)
        order = [1 if message["side"] == "B" else -1, int(message["price"]) * UNITS, symbol, shares]
        if shares and order_id not in open_orders:
            open_orders[order_id] = order
        yield "A", *order[:2], shares, order_id, symbol, True
    elif kind in "EX":
        order_id = int(message["id"], 36)
        order = open_orders.get(order_id, [0, 0, "?", 0])
        order[3] -= shares
        if order[3] <= 0:
            open_orders.pop(order_id, None)
        for action in "FC" if kind == "E" else "C":
            yield action, *order[:2], shares, order_id, order[2], action == "C"
    elif kind in "Pr":
        yield (
            "T",
            (-1 if message["side"] == "B" else 1),
            int(message["price"]) * UNITS,
            shares,
            0,
            symbol,
            True,
        )
    else:
        for order_id in [i for i, order in open_orders.items() if kind == "s" and order[2] == symbol]:
            del open_orders[order_id]
        yield "R" if kind == "s" else "N", 0, 0, 0, 0, symbol or "?", True


def fast(flow):
    """The same rows of a flow."""
    frame = pl.from_arrow(flow.table()).with_columns(
        pl.col("action", "symbol").cast(pl.String), pl.col("ts_event").to_physical()
    )
    columns = ("ts_event", "action", "side", "price", "size", "order_id", "symbol", "flags", "sequence")
    return frame.select(columns).rows()


def is_text(path):
    """Whether damage doesn't happen to look like a container."""
    try:
        return containers.container(path) == "text"
    except FormatError:
        return False


def assert_same(path, data):
    """The feed and the slow twin agree on a capture, or the feed says that nothing is in it."""
    path.write_bytes(data)
    expected, damaged = slow(data, MIDNIGHT_NS)
    if not expected or not is_text(path):
        with pytest.raises(FormatError):
            open_flow(path, format="pitch")
        return
    flow = open_flow(path, format="pitch")
    assert fast(flow) == expected
    lines = data.split(b"\n")
    bad = [lines[row - 1].removesuffix(b"\r").removeprefix(b"S") for row in damaged]
    reasons = Counter(pitch._fault(line)[1] for line in bad)
    reasons[CUT] += slow_may_be_cut(lines[-1])
    assert {fault.expected: fault.count for fault in flow.faults} == +reasons
    last = [len(lines)] if reasons[CUT] else []
    assert [f"line {row:,}" for row in [*damaged, *last][:1]] == [fault.where for fault in flow.faults[:1]]


# ------------------------------------------------------------------ messages to facts


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (ADD, [("A", 1, 619200, 100, X, "SH", 128, 0)]),
        (ADD_LONG, [("A", -1, 619300, 200, Y, "BRK.A/WI", 128, 0)]),
        (ADD_LONG + "C", [("A", -1, 619300, 200, Y, "BRK.A/WI", 128, 0)]),
        (TRADE, [("T", -1, 20000000, 177, 0, "ZVZZT", 128, 0)]),
        (TRADE_LONG, [("T", 1, 20000000, 177, 0, "ZVZZT.XY", 128, 0)]),
        (CLEAR, [("R", 0, 0, 0, 0, "SH", 128, 0)]),
        (STATUS, [("N", 0, 0, 0, 0, "SH", 128, 0)]),
        (AUCTION, [("N", 0, 0, 0, 0, "SH", 128, 0)]),
        (SUMMARY, [("N", 0, 0, 0, 0, "SH", 128, 0)]),
        (RETAIL, [("N", 0, 0, 0, 0, "SH", 128, 0)]),
        (BREAK, [("N", 0, 0, 0, 0, "?", 128, 0)]),
    ],
)
def test_what_a_message_becomes(tmp_path, line, expected):
    """Each type has its row; T is on the side of the aggressor; a customer indicator may follow."""
    flow = open_flow(write(tmp_path, line))
    assert facts(flow) == expected
    assert flow.faults == []


def test_executions_and_cancels_find_their_order(tmp_path):
    """E is F and then the C that changes the book; side, price and symbol are those of the A."""
    flow = open_flow(write(tmp_path, ADD, ADD_LONG, EXECUTE, CANCEL))
    assert facts(flow)[2:] == [
        ("F", 1, 619200, 40, X, "SH", 0, 2),
        ("C", 1, 619200, 40, X, "SH", 128, 2),
        ("C", 1, 619200, 60, X, "SH", 128, 3),
    ]
    assert flow.table().schema.equals(MBO)
    assert (flow.format, flow.kind, flow.num_rows) == ("pitch", "mbo", 5)
    assert [t - MIDNIGHT_NS for t in times(flow)] == [
        28_800_000_000_000 + ms * 10**6 for ms in (168, 169, 170, 170, 171)
    ]
    assert flow.table().column("ts_recv").equals(flow.table().column("ts_event"))


def cancel(shares, order="AK27GA00000X"):
    return f"28800171X{order}{shares:06}"


def sides(flow):
    return facts(flow, "side")


def test_an_order_that_is_not_open(tmp_path):
    """Never added, or used up: side and price 0, the symbol says that nobody knows, and it is counted."""
    flow = open_flow(write(tmp_path, EXECUTE, cancel(1), ADD, cancel(60), cancel(50), cancel(1), EXECUTE))
    assert facts(flow, "action", "side", "symbol") == [
        ("F", 0, "?"),
        ("C", 0, "?"),
        ("C", 0, "?"),
        ("A", 1, "SH"),
        ("C", 1, "SH"),
        ("C", 1, "SH"),
        ("C", 0, "?"),
        ("F", 0, "?"),
        ("C", 0, "?"),
    ]
    assert flow.notes == [
        "messages earlier than the one before (file order is kept): 2",
        "executions of orders that are not open: 2",
        "cancels of orders that are not open: 2",
    ]


def test_an_id_may_live_again(tmp_path):
    """A change of price is a cancel and an add of the same id; later messages mean the later one."""
    again = ADD.replace("XB000100SH    0000619200", "XS000300SSO   0000700000")
    flow = open_flow(write(tmp_path, ADD, cancel(100), again, cancel(50), cancel(250), cancel(1)))
    assert facts(flow, "action", "side", "price", "symbol")[1:] == [
        ("C", 1, 619200, "SH"),
        ("A", -1, 700000, "SSO"),
        ("C", -1, 700000, "SSO"),
        ("C", -1, 700000, "SSO"),
        ("C", 0, 0, "?"),
    ]


def test_an_id_that_is_added_while_it_is_open(tmp_path):
    """The first order stays, as in the book, which rejects the second."""
    again = ADD.replace("B000100", "S000300")
    flow = open_flow(write(tmp_path, ADD, again, cancel(60), cancel(40), cancel(1)))
    assert sides(flow) == [(1,), (-1,), (1,), (1,), (0,)]
    assert hftlab.replay(flow, mode="rebuild").summary()["reasons"] == {
        "DUPLICATE_ORDER": 1,
        "UNKNOWN_ORDER": 1,
    }


def test_no_shares(tmp_path):
    """An order without shares is never open; taking nothing changes nothing."""
    flow = open_flow(write(tmp_path, ADD.replace("000100", "000000"), cancel(1), ADD, cancel(0), cancel(100)))
    assert sides(flow) == [(1,), (0,), (1,), (1,), (1,)]


def test_a_clear_ends_the_orders_of_its_symbol(tmp_path):
    """After s, what was open in that symbol is not, in others it is."""
    other = ADD.replace("0X", "0Y").replace("SH ", "SSO")
    flow = open_flow(
        write(tmp_path, CLEAR, ADD, other, CLEAR, cancel(1), cancel(1, "AK27GA00000Y"), ADD, cancel(1), CLEAR)
    )
    assert facts(flow, "action", "side") == [
        ("R", 0),
        ("A", 1),
        ("A", 1),
        ("R", 0),
        ("C", 0),
        ("C", 1),
        ("A", 1),
        ("C", 1),
        ("R", 0),
    ]


def test_fields_at_their_limits(tmp_path):
    """The largest id, size and price there are."""
    line = "86399999AZZZZZZZZZZZZS999999ABCDEF9999999999N"
    flow = open_flow(write(tmp_path, line, "00000000A000000000000B000001!     0000000000Y"))
    assert facts(flow, "side", "price", "size", "order_id", "symbol") == [
        (-1, 9_999_999_999, 999_999, 36**12 - 1, "ABCDEF"),
        (1, 0, 1, 0, "!"),
    ]
    assert [t - MIDNIGHT_NS for t in times(flow)] == [86_399_999 * 10**6, 0]


def test_a_symbol_that_looks_like_none(tmp_path):
    """A capture may have a symbol ?; it is one instrument."""
    flow = open_flow(write(tmp_path, ADD.replace("SH", "? "), BREAK))
    assert facts(flow, "symbol") == [("?",), ("?",)]
    assert flow.table().column("symbol").chunk(0).dictionary.to_pylist() == ["?"]


# ------------------------------------------------------------------ further tables


def test_what_an_mbo_table_has_no_column_for(tmp_path):
    """Trades with the side PITCH gives, status, auctions, retail interest and breaks have tables."""
    flow = open_flow(write(tmp_path, *EVERY, "garbage"))
    tables = {name: rows(table().drop_columns(["ts_event"])) for name, table in flow.extras.items()}
    assert tables == {
        "trades": [
            (4, "ZVZZT", int("AK27GA00000Z", 36), 1, 2000 * 10**9, 177, EXECUTION),
            (5, "ZVZZT.XY", int("AK27GA00000Z", 36), -1, 2000 * 10**9, 177, EXECUTION),
        ],
        "executions": [(2, "SH", X, 1, 61_920_000_000, 40, int("00001AQ00001", 36))],
        "trading_status": [(7, "SH", "T", "0")],
        "auction_updates": [
            (8, "SH", "O", 61_920_000_000, 1000, 2000, 61_930_000_000, 61_940_000_000),
        ],
        "auction_summaries": [(9, "SH", "C", 61_920_000_000, 12300)],
        "retail_interest": [(10, "SH", "A")],
        "trade_breaks": [(11, "?", EXECUTION)],
    }
    assert flow.extras["trades"]().column("ts_event").cast("int64").to_pylist() == [
        MIDNIGHT_NS + ms * 10**6 for ms in (28_800_172, 28_800_173)
    ]


def test_a_further_table_may_be_empty(tmp_path):
    """A table nobody sent a message for has its columns and no rows."""
    table = open_flow(write(tmp_path, ADD)).extras["trades"]()
    assert (table.num_rows, table.column_names[-1]) == (0, "execution_id")


# ------------------------------------------------------------------ time


@pytest.mark.parametrize(
    ("name", "options", "utc"),
    [
        ("pitch_2009-01-06.txt", {}, "2009-01-06T05:00"),
        ("20090706.dat", {}, "2009-07-06T04:00"),
        ("bats_2009_07_06_am.txt", {}, "2009-07-06T04:00"),
        ("unit12_99999999_20090706.txt", {}, "2009-07-06T04:00"),
        ("20090706.dat", {"date": "2009-01-06"}, "2009-01-06T05:00"),
        ("pitch.txt", {"date": date(2009, 7, 6)}, "2009-07-06T04:00"),
        ("pitch.txt", {}, "1970-01-01T05:00"),
        ("20091399.txt", {}, "1970-01-01T05:00"),
    ],
)
def test_the_day(tmp_path, name, options, utc):
    """The option, else the file name, else 1970-01-01; the zone is New York's, with its daylight saving."""
    flow = open_flow(write(tmp_path, "00000000" + ADD[8:], name=name), **options)
    expected = datetime.fromisoformat(utc).replace(tzinfo=ZoneInfo("UTC"))
    assert flow.table().column("ts_event").to_pylist() == [expected]
    undated = ["no date in the file name: the day is 1970-01-01 (option date=YYYY-MM-DD)"]
    assert flow.notes == (undated if utc.startswith("1970") else [])


@pytest.mark.parametrize("given_date", ["2009-13-01", "today", "", 7, "2300-01-01", "0001-01-01"])
def test_a_day_that_is_none(tmp_path, given_date):
    """A wrong date is the caller's mistake."""
    with pytest.raises(UsageError, match=f"found date {given_date!r}, expected YYYY-MM-DD"):
        open_flow(write(tmp_path, ADD), date=given_date)


# ------------------------------------------------------------------ lines


def test_ways_to_write_a_line(tmp_path):
    """An S before the time, CR LF at the end, no end at all: the same messages."""
    (path := tmp_path / NAME).write_bytes(f"{ADD}\nS{ADD_LONG}\nS{EXECUTE}\r\n{CANCEL}".encode())
    flow = open_flow(path)
    assert facts(flow) == facts(open_flow(write(tmp_path, ADD, ADD_LONG, EXECUTE, CANCEL)))
    assert flow.faults == []


@pytest.mark.parametrize(
    ("line", "found", "expected"),
    [
        ("", "an empty line", "8 digits of time, then a type"),
        ("S", "an empty line", "8 digits of time, then a type"),
        ("28800168", "8 characters", "8 digits of time, then a type"),
        (ADD.replace("8A", "8a"), "type 'a'", "one of A d E X P r s H I J R B"),
        (ADD[:-1], "44 characters", "45 of type A"),
        (ADD + "Y", "46 characters", "45 of type A"),
        (ADD_LONG[:-1], "50 characters", "51 or 52 of type d"),
        ("A" * 2000, "2000 characters", None),
        ("8640000" + ADD[7:], "time '86400008'", "milliseconds since midnight, below 86400000"),
        (" " + ADD[1:], "time ' 8800168'", "milliseconds since midnight, below 86400000"),
        (ADD.replace("AK27", "Ak27"), "order_id 'Ak27GA00000X'", "order_id: 12 of 0-9 and A-Z"),
        (ADD.replace("AK27", "A 27"), "order_id 'A 27GA00000X'", "order_id: 12 of 0-9 and A-Z"),
        (CANCEL.replace("00X", "00["), "order_id 'AK27GA00000['", "order_id: 12 of 0-9 and A-Z"),
        (ADD.replace("XB", "Xb"), "side 'b'", "side: B or S"),
        (ADD.replace("000100", "00-100"), "shares '00-100'", "shares: digits"),
        (EXECUTE.replace("000040", "00004:"), "shares '00004:'", "shares: digits"),
        (ADD.replace("SH ", "   "), "symbol '      '", "symbol: printable characters, then spaces"),
        (ADD.replace("SH ", "S H"), "symbol 'S H   '", "symbol: printable characters, then spaces"),
        (CLEAR.replace("SH", "\tH"), r"symbol '\tH      '", "symbol: printable characters, then spaces"),
        (ADD.replace("0000619", "/000619"), "price '/000619200'", "price: digits (dollars x 10,000)"),
        (ADD.replace("0000619", "0:00619"), "price '0:00619200'", "price: digits (dollars x 10,000)"),
        (ADD.replace("619200", "61920 "), "price '000061920 '", "price: digits (dollars x 10,000)"),
        (BREAK.replace("PJ", "P."), "execution_id '000I000HV1P.'", "execution_id: 12 of 0-9 and A-Z"),
        (AUCTION[:-1] + "x", "auction_only_price '000061940x'", None),
        (SUMMARY[:-1] + "x", "shares '000001230x'", "shares: digits"),
    ],
)
def test_a_damaged_line(tmp_path, line, found, expected):
    """It is told with its row, and what is whole before and after is there."""
    line = line if len(line) < 2000 else "28800168A" + line[9:]
    expected = expected or ("45 of type A" if "2000" in found else "auction_only_price: " + pitch._PRICE)
    flow = open_flow(write(tmp_path, ADD, line, ADD_LONG))
    assert facts(flow, "order_id", "sequence") == [(X, 0), (Y, 2)]
    assert flow.faults == [Fault("line 2", found, expected, 1)]


def test_damage_is_counted_by_kind(tmp_path):
    """The first of each kind stands for the others; rows are in order."""
    flow = open_flow(write(tmp_path, "x", ADD, ADD[:-3], "", ADD_LONG, ADD[:-2], EXECUTE))
    assert list(map(str, flow.faults)) == [
        "line 1: found 1 characters, expected 8 digits of time, then a type (2 times, the first here)",
        "line 3: found 42 characters, expected 45 of type A (2 times, the first here)",
    ]
    assert facts(flow, "sequence") == [(1,), (4,), (6,), (6,)]


@pytest.mark.parametrize("last", EVERY)
def test_truncated_at_every_byte_of_its_last_line(tmp_path, last):
    """What precedes is delivered, the rest is a fault in its row; only the end of line may be missing."""
    whole = f"{ADD}\n{last}"
    for size in range(len(ADD) + 2, len(whole)):
        (path := tmp_path / NAME).write_text(whole[:size])
        flow = open_flow(path)
        assert facts(flow, "sequence") == [(0,)], size
        assert [fault.where for fault in flow.faults] == ["line 2"], size
    path.write_text(whole)
    assert open_flow(path).faults == []


def test_a_capture_that_ends_early(tmp_path):
    """A compressed file cut in the middle delivers what is whole, and says so."""
    packed = lzma.compress("".join(f"{cancel(n)}\n" for n in range(20_000)).encode())
    (path := tmp_path / f"{NAME}.xz").write_bytes(packed[: len(packed) // 2])
    flow = open_flow(path)
    assert 0 < flow.num_rows < 20_000
    assert flow.faults[-1] == Fault(
        flow.faults[-1].where, "broken xz data (ends early)", "a whole xz file", 1
    )


def test_a_broken_container(tmp_path):
    """A checksum that doesn't hold is an error, not damage."""
    packed = bytearray(lzma.compress(f"{ADD}\n".encode() * 1000))
    packed[len(packed) // 2] ^= 0xFF
    (path := tmp_path / f"{NAME}.xz").write_bytes(packed)
    with pytest.raises(FormatError, match="broken xz data"):
        open_flow(path, format="pitch")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "found an empty file, expected text data"),
        (b"\n", "line 1: found an empty line, expected PITCH messages (8 digits of time, then a type)"),
        (
            b"time,type\n1,2\n",
            "line 1: found type 'e', expected PITCH messages (one of A d E X P r s H I J R B)",
        ),
        (b"\xfe" * 9, r"line 1: found type '\xfe', expected PITCH messages (one of A d E X P r s H I J R B)"),
    ],
)
def test_nothing_usable(tmp_path, content, said):
    """A file without a single message is of another format."""
    (path := tmp_path / NAME).write_bytes(content)
    with pytest.raises(FormatError) as caught:
        open_flow(path, format="pitch")
    assert str(caught.value) == f"{path}{',' if said.startswith('line') else ':'} {said}"


def test_recognised_by_content(tmp_path):
    """Any name will do, damage at the beginning too; other texts are left to others."""
    assert open_flow(write(tmp_path, "damaged", ADD, name="unit.dat")).format == "pitch"
    for other in ("34200.004241176,1,16113575,18,5853300,1", "x" * 45, "28800168A", "{}"):
        assert not pitch.sniff(tmp_path / "x.txt", f"{other}\n".encode() * 20)


def test_more_symbols_than_expected(tmp_path):
    """Twenty thousand instruments are twenty thousand instruments."""
    lines = [f"28800168A{n:012}B000100S{n:05}0000619200Y" for n in range(20_000)]
    flow = open_flow(write(tmp_path, *lines))
    assert len(pl.from_arrow(flow.table()).select(pl.col("symbol").cast(pl.String)).unique()) == 20_000


# ------------------------------------------------------------------ blocks


def scramble(seed, count=3000):
    """Lines with ids that live again and again, clears, damage and times out of order."""
    random = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        line = EVERY[min(int(random.exponential(2)), len(EVERY) - 1)]
        line = line.replace("AK27GA00000", f"AK27GA{random.integers(30):05}")
        line = f"{random.integers(10**7):08}" + line[8:]
        line = line.replace("000100", f"{random.integers(200):06}").replace(
            "000060", f"{random.integers(90):06}"
        )
        line = line.replace("SH ", "SSO") if random.random() < 0.3 else line
        lines.append(line[:-1] if random.random() < 0.05 else line)
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.mark.parametrize("size", [50, 1000, 10_000, 1 << 22])
def test_blocks_make_no_difference(tmp_path, monkeypatch, size):
    """However the file is cut up, the rows, the faults and the notes are the slow twin's."""
    (path := tmp_path / NAME).write_bytes(data := scramble(1, 1000))
    whole = open_flow(path)
    monkeypatch.setattr(pitch, "BLOCK_BYTES", size)
    assert_same(path, data)
    flow = open_flow(path)
    assert rows(flow.table()) == rows(whole.table())
    assert (flow.notes, flow.faults) == (whole.notes, whole.faults)
    assert flow.known_rows == whole.num_rows
    assert rows(flow.extras["executions"]()) == rows(whole.extras["executions"]())


@pytest.mark.parametrize("count", [1, 7, 1000, 100_000])
def test_batches(tmp_path, monkeypatch, count):
    """Batches have the rows asked for, in order, from a file that is never held whole."""
    (path := tmp_path / NAME).write_bytes(scramble(2, 700))
    expected = fast(open_flow(path))
    monkeypatch.setattr(pitch, "BLOCK_BYTES", 1000)
    flow = open_flow(path)
    assert flow.known_rows is None
    parts = [rows(batch) for batch in flow.batches(count)]
    assert [len(part) for part in parts[:-1]] == [count] * (len(parts) - 1)
    assert [row for part in parts for row in part] == rows(open_flow(path).table())
    assert len(expected) == sum(map(len, parts))
    assert flow.known_rows is None
    assert flow.notes


def test_an_error_in_the_middle_comes_every_time(tmp_path, monkeypatch):
    """What was read before a broken block is never taken for the whole."""
    monkeypatch.setattr(pitch, "BLOCK_BYTES", 1 << 16)
    packed = bytearray(gzip.compress(scramble(3) * 10))
    packed[-8] ^= 0xFF  # the checksum
    (path := tmp_path / f"{NAME}.gz").write_bytes(packed)
    flow = open_flow(path)
    for _ in range(2):
        with pytest.raises(FormatError, match="broken gzip data"):
            flow.table()


def test_a_line_that_never_ends(tmp_path, monkeypatch):
    """What has no line end is one damaged line, however long, and isn't held in memory."""
    monkeypatch.setattr(pitch, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(pitch, "LONGEST_LINE", 2000)
    flow = open_flow(write(tmp_path, ADD, "28800168A" + "x" * 20_000, CANCEL))
    assert facts(flow, "action", "side", "sequence") == [("A", 1, 0), ("C", 1, 2)]
    assert [fault.where for fault in flow.faults] == ["line 2"]


def test_more_orders_and_symbols_than_there_is_room_for(tmp_path):
    """Tables grow with what is open: ids come again after their symbol was cleared, and others stay."""
    lines = []
    for n in range(12_000):
        lines.append(f"28800168A{n % 9_000:012}B000100S{n % 5:05}0000619200Y")
        lines += [f"28800168sS{n % 5:05}  "] * (n % 1_999 == 0)
        lines += [f"28800168AZ{n:011}S000100T{n:05}0000619200Y"] * (n % 5 == 0)
        lines += [f"28800168E{n // 2:012}000060000000000000", f"28800168X{n // 3:012}000040"]
    assert_same(tmp_path / NAME, "".join(f"{line}\n" for line in lines).encode())


# ------------------------------------------------------------------ the slow twin agrees

IDS = st.sampled_from(["AK27GA00000X", "000000000001", "ZZZZZZZZZZZZ"])
SYMBOLS = st.sampled_from(["SH", "SSO", "?"])


@st.composite
def messages(draw):
    """A line of any type; few ids and symbols, so that they meet."""
    line = draw(st.sampled_from(EVERY))
    line = line.replace("AK27GA00000X", draw(IDS)).replace("SH   ", draw(SYMBOLS).ljust(5))
    line = line.replace("000100", draw(st.sampled_from(["000100", "000000", "999999"])))
    line = line.replace("000060", draw(st.sampled_from(["000060", "000100", "000000"])))
    return draw(st.sampled_from(["", "S"])) + line + draw(st.sampled_from(["", "\r"]))


@settings(max_examples=300)
@given(st.lists(messages(), min_size=1, max_size=30), st.sampled_from([60, 500, 1 << 22]))
def test_any_messages(tmp_path_factory, lines, size):
    """Whatever the order of messages, in blocks of whatever size."""
    path = tmp_path_factory.mktemp("any") / NAME
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pitch, "BLOCK_BYTES", size)
        assert_same(path, "".join(f"{line}\n" for line in lines).encode())


@settings(max_examples=300)
@given(
    st.lists(messages(), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from("=+-"), st.binary(min_size=1, max_size=3))),
)
def test_any_damage(tmp_path_factory, lines, edits):
    """Bytes changed, inserted and taken out anywhere: a fault per line that is none, nothing else."""
    data = bytearray("".join(f"{line}\n" for line in lines).encode())
    for place, how, found in edits:
        place %= len(data) + 1
        data[place : place + (0 if how == "+" else len(found))] = b"" if how == "-" else found
    if data:
        assert_same(tmp_path_factory.mktemp("any") / NAME, bytes(data))


@pytest.mark.parametrize("left", ["ABCD", "ABCD\r", "ABC", "ABCDE"])
def test_a_last_line_that_may_go_on(tmp_path, left):
    """A long add without its optional last character is delivered, with a fault; a shorter one is not."""
    adds = [f"2880016{i}dAK27GA00000{i}S000200BRK.A/WI0000619300Y" for i in range(2)]
    assert_same(tmp_path / NAME, f"{adds[0]}ABCD\n{adds[1]}{left}".encode())


# ------------------------------------------------------------------ the real capture


@pytest.fixture(scope="module")
def capture(data_dir):
    """The sample, opened without options."""
    return open_flow(data_dir / SAMPLE)


def test_the_capture_is_the_slow_twin_s(capture, data_dir):
    """All 20,000 lines, message by message."""
    expected, damaged = slow(containers.read(data_dir / SAMPLE), 5 * 3600 * 10**9)
    assert damaged == capture.faults == []
    assert fast(capture) == expected


def test_what_is_known_of_the_capture(capture):
    """286 symbols with orders, 691 steps back in time, and every E and X finds its order."""
    assert capture.notes == [
        "no date in the file name: the day is 1970-01-01 (option date=YYYY-MM-DD)",
        "messages earlier than the one before (file order is kept): 691",
        "executions of orders not displayed or routed away (extra table trades): 27",
    ]
    assert len({symbol for action, symbol in facts(capture, "action", "symbol") if action == "A"}) == 286
    run = hftlab.replay(capture, mode="rebuild", record=("rejects",))
    assert run.rejects.is_empty()


def test_the_kernels_rebuild_the_same_book(capture):
    """The book at the end is that of a dict of orders, with its queue order."""
    orders = {}
    for action, side, price, size, order_id, symbol in facts(
        capture, "action", "side", "price", "size", "order_id", "symbol"
    ):
        if action == "A":
            orders[order_id] = [symbol, side, price * UNITS, size]
        elif action == "C":
            orders[order_id][3] -= size
            if not orders[order_id][3]:
                del orders[order_id]
    book = hftlab.replay(capture, mode="rebuild").book
    queues = book.group_by("symbol", "side", "price", maintain_order=True).agg("order_id", "qty")
    found = {
        (str(symbol), side, price): list(zip(ids, sizes, strict=True))
        for symbol, side, price, ids, sizes in queues.rows()
    }
    expected = {}
    for order_id, (symbol, side, price, size) in orders.items():
        expected.setdefault((symbol, side, price), []).append((order_id, size))
    assert found == expected
    assert sum(map(len, found.values())) == 784
