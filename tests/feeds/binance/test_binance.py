"""Binance captures: what each message becomes, the documented book procedure, gaps, damage, real data."""

from __future__ import annotations

import gzip
import json
import random
from itertools import pairwise

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab
from hftlab.errors import FormatError, HftlabError, UsageError
from hftlab.feeds import open_flow
from hftlab.feeds.binance import feed, messages, sequence
from hftlab.schema import MBP
from tests.helpers.damage import damaged

SAMPLE = "binance/spot_btcusdt_20240808.gz"
E0 = 1_723_161_255_000  # ms
RECV0 = 1_723_161_254_000_000_000  # ns


def depth(u, bids=(), asks=(), *, first=None, pu=None, s="BTCUSDT", e=E0):
    """A depthUpdate; levels as (price, size) texts."""
    message = {"e": "depthUpdate", "E": e, "s": s, "U": u if first is None else first, "u": u}
    futures = {} if pu is None else {"T": e - 1, "pu": pu}
    return message | futures | {"b": [list(level) for level in bids], "a": [list(level) for level in asks]}


def snapshot(last, bids=(), asks=(), **more):
    """The answer of REST's depth."""
    return {"lastUpdateId": last, "bids": [list(b) for b in bids], "asks": [list(a) for a in asks], **more}


def trade(number, price="100.00", size="1.00000000", *, buyer_rests=True, s="BTCUSDT", e=E0):
    message = {"e": "trade", "E": e, "s": s, "t": number, "p": price, "q": size, "T": e - 2}
    return message | {"m": buyer_rests, "M": True}


def ticker(u, bid="100.00", bid_size="1.0", ask="101.00", ask_size="2.0", s="BTCUSDT"):
    return {"u": u, "s": s, "b": bid, "B": bid_size, "a": ask, "A": ask_size}


def text(message, recv=None, stream=None):
    """A line of a capture."""
    message = message if stream is None else {"stream": stream, "data": message}
    return ("" if recv is None else f"{recv} ") + json.dumps(message, separators=(",", ":"))


def write(folder, *messages, name="capture.ndjson"):
    """A capture of these messages; texts and bytes are lines as they are."""
    lines = [m if isinstance(m, bytes) else (m if isinstance(m, str) else text(m)).encode() for m in messages]
    (path := folder / name).write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def opened(folder, *messages, **options):
    flow = open_flow(write(folder, *messages), format="binance", **options)
    flow.table()
    return flow


def rows(flow, *columns):
    """Rows as tuples, prices in whole units and sizes in 1.0."""
    columns = columns or ("action", "side", "price", "size", "flags", "sequence")
    frame = pl.from_arrow(flow.table()).with_columns(
        pl.col("action", "symbol").cast(pl.String), pl.col("price") / 10**9, pl.col("size") / 10**8
    )
    return frame.select(columns).rows()


def faults(flow):
    return [str(fault) for fault in flow.faults]


SNAP = snapshot(10, [("99", "1"), ("98", "2")], [("101", "3")])
SNAP_ROWS = [
    ("R", 0, 0.0, 0.0, 32, 10),
    ("M", 1, 99.0, 1.0, 32, 10),
    ("M", 1, 98.0, 2.0, 32, 10),
    ("M", -1, 101.0, 3.0, 160, 10),
]


# ------------------------------------------------------------------ messages to rows


def test_a_snapshot_and_an_update(tmp_path):
    """R and a row per level; then what is set, 0 for what is gone; the last row of each message is marked."""
    flow = opened(tmp_path, SNAP, depth(11, [("99", "0.5"), ("97", "0.0")], [("101", "0.00000001")]))
    assert flow.table().schema.equals(MBP)
    assert (flow.kind, flow.format) == ("mbp", "binance")
    assert rows(flow) == [
        *SNAP_ROWS,
        ("M", 1, 99.0, 0.5, 0, 11),
        ("M", 1, 97.0, 0.0, 0, 11),
        ("M", -1, 101.0, 1e-8, 128, 11),
    ]
    assert rows(flow, "symbol")[0] == ("BTCUSDT",)
    assert (flow.faults, flow.notes) == ([], ["a lot is 0.00000001"])


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (depth(11, [("99", "4")]), [("M", 1, 99.0, 4.0, 128, 11)]),
        (depth(11, [], [("101", "4")]), [("M", -1, 101.0, 4.0, 128, 11)]),
        (depth(11), [("N", 0, 0.0, 0.0, 128, 11)]),
        (trade(7, "99.5", "0.25"), [("T", -1, 99.5, 0.25, 128, 7)]),
        (trade(7, "99.5", "0.25", buyer_rests=False), [("T", 1, 99.5, 0.25, 128, 7)]),
        ({**trade(7), "e": "aggTrade", "a": 9, "f": 1, "l": 2}, [("T", -1, 100.0, 1.0, 128, 9)]),
        (ticker(12), []),
    ],
)
def test_what_a_message_becomes(tmp_path, message, expected):
    """Updates, also empty ones, and trades are events; a ticker is no fact about levels."""
    flow = (
        opened(tmp_path, SNAP, depth(11), message)
        if message.get("u") != 11
        else opened(tmp_path, SNAP, message)
    )
    found = rows(flow)
    assert found[-len(expected) :] == expected if expected else len(found) == 5


def test_times(tmp_path):
    """E is milliseconds, the receive time nanoseconds; without one it is the venue's."""
    flow = opened(
        tmp_path,
        text(depth(1, [("99", "1")], e=E0), RECV0),
        text(depth(2, [("99", "2")], e=E0 + 100), RECV0 + 5),
        text(depth(3, [("99", "3")], e=E0 + 200)),
    )
    table = flow.table()
    assert table["ts_event"].cast("int64").to_pylist() == [E0 * 10**6, (E0 + 100) * 10**6, (E0 + 200) * 10**6]
    assert table["ts_recv"].cast("int64").to_pylist() == [RECV0, RECV0 + 5, (E0 + 200) * 10**6]
    assert "messages received before they were sent, by up to 1.100 s: 2" in flow.notes


@pytest.mark.parametrize("scale", [1, 1_000, 1_000_000])
def test_receive_times_of_any_unit(tmp_path, scale):
    """Recorders write ns, us or ms; the magnitude tells which."""
    flow = opened(tmp_path, text(depth(1, [("99", "1")]), RECV0 // scale))
    assert flow.table()["ts_recv"].cast("int64").to_pylist() == [RECV0]


def test_venue_times_in_microseconds(tmp_path):
    """A stream opened with timeUnit=MICROSECOND says E in us."""
    flow = opened(tmp_path, depth(1, [("99", "1")], e=E0 * 1000 + 7))
    assert flow.table()["ts_event"].cast("int64").to_pylist() == [E0 * 10**6 + 7000]


def test_a_snapshot_has_the_time_of_the_update_it_follows(tmp_path):
    """REST's spot snapshot has no time; futures' has."""
    assert opened(tmp_path, SNAP, depth(11)).table()["ts_event"].cast("int64").to_pylist() == [E0 * 10**6] * 5
    late = snapshot(2, [("99", "1")], E=E0 + 77, T=E0 + 76)
    for snap, expected in ((snapshot(2, [("99", "1")]), E0 + 50), (late, E0 + 77)):
        flow = opened(tmp_path, depth(2, e=E0 + 50), depth(3, e=E0 + 150), text(snap, RECV0))
        times = flow.table()["ts_event"].cast("int64").to_pylist()
        assert times[0] == expected * 10**6
        assert flow.table()["ts_recv"].cast("int64").to_pylist()[0] == RECV0


@pytest.mark.parametrize("recv", [None, RECV0])
@pytest.mark.parametrize("wrapped", [False, True])
def test_every_dress_holds_the_same(tmp_path, recv, wrapped):
    """With and without receive time, with and without the combined-stream wrapper, recognised by content."""
    stream = "btcusdt@depth@100ms" if wrapped else None
    messages = [text(SNAP, recv), text(depth(11, [("99", "5")]), recv, stream)]
    flow = open_flow(write(tmp_path, *messages, name="anything.dat"))
    assert flow.format == "binance"
    assert rows(flow) == [*SNAP_ROWS, ("M", 1, 99.0, 5.0, 128, 11)]


def test_spaces_are_no_damage(tmp_path):
    """A recorder may have written the JSON anew, with spaces and escapes, and with windows' line ends."""
    spaced = json.dumps(depth(11, [("99", "5")], [("101", "7")])).replace("99", "\\u0039" + "9")
    flow = opened(tmp_path, json.dumps(SNAP) + "\r", spaced + "\r", "", json.dumps(ticker(12)))
    assert rows(flow) == [*SNAP_ROWS, ("M", 1, 99.0, 5.0, 0, 11), ("M", -1, 101.0, 7.0, 128, 11)]
    assert flow.faults == []


def test_book_tickers_and_trades_are_tables_of_their_own(tmp_path):
    """What the book doesn't need is there for whoever asks."""
    flow = opened(
        tmp_path,
        text(ticker(12, "100.1", "0.5", "100.2", "0.25"), RECV0),
        text(trade(3, "100.15", "2", e=E0 + 5), RECV0 + 1),
    )
    tickers, trades = (pl.from_arrow(flow.extras[name]()) for name in ("book_ticker", "trades"))
    assert tickers.with_columns(pl.col("ts").cast(int), pl.col("symbol").cast(str)).rows() == [
        (RECV0, "BTCUSDT", 12, 100_100_000_000, 50_000_000, 100_200_000_000, 25_000_000)
    ]
    times = pl.col("ts_event", "ts_recv", "ts_trade").cast(int)
    assert trades.with_columns(times, pl.col("symbol").cast(str)).rows() == [
        ((E0 + 5) * 10**6, RECV0 + 1, (E0 + 3) * 10**6, "BTCUSDT", 3, 100_150_000_000, 200_000_000, -1, False)
    ]


def test_lots(tmp_path):
    """A lot may be another power of ten, for sizes that 1e-8 has no room for."""
    big = depth(1, [("0.00000107", "123456789012345")])
    assert faults(opened(tmp_path, big, depth(2)))[0].startswith("line 1: found size '123456789012345'")
    flow = opened(tmp_path, big, lot="1")
    assert flow.table()["size"].to_pylist() == [123456789012345]
    assert flow.table()["price"].to_pylist() == [1070]
    flow = opened(tmp_path, depth(1, [("1", "7.00000000")]), depth(2, [("x", "1")]), lot="1")
    assert (flow.table()["size"].to_pylist(), len(flow.faults)) == ([7], 1)
    arabic = opened(tmp_path, depth(1, [("1", "7")]), depth(2, [("\u0661", "1")]))
    assert (len(rows(arabic)), arabic.faults[0].found) == (1, "price '\u0661'")
    for wrong in ("2", "0.5", "1e-10", "big", None):
        with pytest.raises(UsageError, match=r"expected a power of ten from 0\.000000001 to 1"):
            opened(tmp_path, big, lot=wrong)


# ------------------------------------------------------------------ the documented procedure


def test_updates_before_the_snapshot_wait_for_it(tmp_path):
    """What it contains is dropped and counted; the one that brackets it, and all after, come behind it."""
    flow = opened(
        tmp_path,
        depth(8, [("1", "1")], first=5),
        trade(1),
        depth(10, [("2", "1")], first=9),
        trade(2),
        depth(13, [("3", "1")], first=11),
        trade(3),
        SNAP,
        depth(14, [("4", "1")]),
    )
    assert [(row[0], row[5]) for row in rows(flow)] == [
        ("T", 1),
        ("T", 2),
        *(("R", 10), ("M", 10), ("M", 10), ("M", 10)),
        ("M", 13),
        ("T", 3),
        ("M", 14),
    ]
    assert flow.notes[0] == "updates that the snapshot already contains, dropped: 2"
    assert flow.faults == []


@pytest.mark.parametrize("first", [9, 10, 11])
def test_the_first_update_brackets_the_snapshot(tmp_path, first):
    """U <= lastUpdateId + 1 <= u is what is asked of it."""
    assert opened(tmp_path, SNAP, depth(12, [("97", "1")], first=first)).faults == []


def test_a_first_update_beyond_the_snapshot_is_a_gap(tmp_path):
    """The snapshot is used all the same, as there is no better, and the hole is said."""
    flow = opened(tmp_path, SNAP, depth(14, [("97", "1")], first=13))
    assert faults(flow) == ["line 2: found U 13 after u 10 (2 missing), expected U one above u"]
    assert len(rows(flow)) == 5
    assert flow.notes[:2] == ["sequence gaps: 1", "update ids missing in them: 2"]


def test_gaps_are_told_with_their_rows_and_the_book_goes_on(tmp_path):
    """Each gap is a fault; every row is there."""
    flow = opened(tmp_path, SNAP, depth(11), depth(15, [("97", "1")], first=14), depth(16), depth(20))
    assert faults(flow) == [
        "line 3: found U 14 after u 11 (2 missing), expected U one above u",
        "line 5: found U 20 after u 16 (3 missing), expected U one above u",
    ]
    assert flow.notes[:2] == ["sequence gaps: 2", "update ids missing in them: 5"]
    assert [row[5] for row in rows(flow)[4:]] == [11, 15, 16, 20]


def test_many_gaps_stay_a_short_list(tmp_path):
    """After twenty they are only counted."""
    flow = opened(tmp_path, SNAP, *(depth(10 + 2 * i) for i in range(1, 101)))
    assert len(flow.faults) == 21
    assert flow.faults[-1].count == 80
    assert flow.notes[0] == "sequence gaps: 100"


def test_what_is_older_than_the_book_is_dropped_and_counted(tmp_path):
    """A reconnected stream repeats itself; nobody goes back in time for it."""
    flow = opened(
        tmp_path, SNAP, depth(11, [("97", "1")]), depth(12), depth(11, [("97", "1")]), depth(12), depth(13)
    )
    assert [row[5] for row in rows(flow)[4:]] == [11, 12, 13]
    assert flow.notes[0] == "updates older than the book, dropped: 2"


def test_an_update_that_overlaps_is_used_and_told(tmp_path):
    """Sizes are absolute, so it can't do harm; but U isn't the u before + 1."""
    flow = opened(tmp_path, SNAP, depth(12, first=11), depth(14, [("97", "1")], first=12))
    assert faults(flow) == ["line 3: found U 12 after u 12 (0 missing), expected U one above u"]
    assert [row[5] for row in rows(flow)[4:]] == [12, 14]


def test_a_snapshot_heals_a_gap(tmp_path):
    """It replaces the book, and what came since and isn't in it is applied anew."""
    healing = snapshot(21, [("90", "1")], [("91", "1")])
    messages = [
        SNAP,
        depth(11),
        depth(20, [("97", "1")]),
        depth(22, [("89", "1")], first=21),
        healing,
        depth(23),
    ]
    flow = opened(tmp_path, *messages)
    assert [(row[0], row[5]) for row in rows(flow)[4:]] == [
        *(("N", 11), ("M", 20), ("M", 22)),
        *(("R", 21), ("M", 21), ("M", 21)),
        *(("M", 22), ("N", 23)),
    ]
    assert len(flow.faults) == 1


def test_a_book_that_may_be_wrong_is_marked(tmp_path):
    """Flag 4 stands on updates from a gap to the snapshot that heals it, and where there was no snapshot."""
    healing = snapshot(21, [("90", "1")])
    flow = opened(tmp_path, SNAP, depth(11), depth(20), depth(21), healing, depth(22), trade(1))
    assert [row[4] & 4 for row in rows(flow)] == [0] * 5 + [4, 4] + [0] * 4
    assert [row[4] for row in rows(opened(tmp_path, depth(11, [("1", "1")]), trade(1)))] == [128 | 4, 128]


def test_a_snapshot_from_before_the_gap_heals_nothing(tmp_path):
    """Binance says to ask for another then."""
    flow = opened(tmp_path, SNAP, depth(11), depth(20, [("97", "1")]), snapshot(15, [("90", "1")]), depth(21))
    assert [row[5] for row in rows(flow)[4:]] == [11, 20, 21]
    assert "snapshots that add nothing to the book, not used: 1" in flow.notes


def test_a_whole_book_needs_no_snapshot(tmp_path):
    """One that isn't ahead is left out; one that is ahead is a new beginning."""
    behind, ahead = snapshot(11, [("90", "1")]), snapshot(14, [("80", "1")])
    flow = opened(tmp_path, SNAP, depth(11), depth(12), behind, ahead, depth(14, first=13), depth(15))
    assert [(row[0], row[5]) for row in rows(flow)[4:]] == [
        ("N", 11),
        ("N", 12),
        ("R", 14),
        ("M", 14),
        ("N", 15),
    ]
    assert flow.notes[:2] == [
        "updates that the snapshot already contains, dropped: 1",
        "snapshots that add nothing to the book, not used: 1",
    ]
    assert flow.faults == []


def test_a_capture_without_a_snapshot(tmp_path):
    """The book begins empty, and that is said."""
    flow = opened(tmp_path, trade(1), depth(11, [("97", "1")]), depth(13))
    assert [(row[0], row[5]) for row in rows(flow)] == [("T", 1), ("M", 11), ("N", 13)]
    assert "books without a snapshot, which begin empty: BTCUSDT" in flow.notes
    assert len(flow.faults) == 1


def test_a_snapshot_that_comes_very_late(tmp_path, monkeypatch):
    """A book waits for so many updates, begins empty, and takes the snapshot when it comes."""
    monkeypatch.setattr(sequence, "HELD_UPDATES", 5)
    updates = [depth(i, [("97", "1")]) for i in range(1, 12)]
    flow = opened(tmp_path, *updates[:8], snapshot(6, [("90", "1")]), *updates[8:])
    assert [row[5] for row in rows(flow)] == [*range(1, 9), 6, 6, *range(7, 12)]
    assert "books without a snapshot, which begin empty: BTCUSDT" in flow.notes
    flow = opened(tmp_path, *updates[:8], snapshot(2, [("90", "1")]), *updates[8:])
    assert [row[5] for row in rows(flow)] == [*range(1, 12)]


def test_held_updates_keep_their_levels(tmp_path, monkeypatch):
    """What is applied anew says what it said, however often: after a late snapshot, and between two gaps."""
    monkeypatch.setattr(sequence, "HELD_UPDATES", 5)
    updates = [depth(i, [(str(i), "1")]) for i in range(1, 10)]
    late = rows(opened(tmp_path, *updates[:8], snapshot(3, [("90", "1")]), updates[8]), "price", "sequence")
    assert late[8:] == [(0.0, 3), (90.0, 3), *((float(i), i) for i in range(4, 10))]
    gaps = [depth(15, [("15", "1")]), depth(20, [("20", "2")]), depth(21, [("21", "3")])]
    healing = [snapshot(16, [("90", "1")]), snapshot(20, [("80", "1")])]
    flow = opened(tmp_path, SNAP, depth(11), *gaps, *healing, depth(22))
    assert rows(flow, "price", "size", "sequence")[-4:] == [
        *((0.0, 0.0, 20), (80.0, 1.0, 20)),
        *((21.0, 3.0, 21), (0.0, 0.0, 22)),
    ]
    assert len(flow.faults) == 2


def test_futures(tmp_path):
    """pu links the updates, ids needn't be consecutive, and the update of lastUpdateId itself is applied."""
    flow = opened(
        tmp_path,
        depth(9, first=7, pu=5),
        SNAP,
        depth(10, [("97", "1")], first=10, pu=9),
        depth(25, [("97", "2")], first=21, pu=10),
        depth(40, [("97", "3")], first=31, pu=30),
    )
    assert [(row[0], row[5]) for row in rows(flow)[4:]] == [("M", 10), ("M", 25), ("M", 40)]
    assert faults(flow) == ["line 5: found pu 30 after u 25, expected pu of each the u before"]
    assert flow.notes[:2] == ["updates that the snapshot already contains, dropped: 1", "sequence gaps: 1"]


def test_the_first_futures_update_need_not_contain_the_snapshot(tmp_path):
    """Ids between two updates belong to nobody: pu at or below lastUpdateId is enough."""
    assert opened(tmp_path, SNAP, depth(25, first=21, pu=9)).faults == []
    assert len(opened(tmp_path, SNAP, depth(25, first=21, pu=12)).faults) == 1


# ------------------------------------------------------------------ more symbols


def test_each_symbol_has_its_own_book(tmp_path):
    """Sequences are per symbol; a snapshot without a name goes where the ids are near."""
    flow = opened(
        tmp_path,
        depth(1_000_001, [("9", "1")], s="ETHUSDT"),
        depth(11, [("97", "1")]),
        SNAP,
        snapshot(1_000_000, [("8", "1")]),
        depth(1_000_002, s="ETHUSDT"),
        depth(12),
    )
    assert rows(flow, "symbol", "action", "sequence") == [
        *[("BTCUSDT", "R", 10), ("BTCUSDT", "M", 10), ("BTCUSDT", "M", 10), ("BTCUSDT", "M", 10)],
        ("BTCUSDT", "M", 11),
        *[("ETHUSDT", "R", 1_000_000), ("ETHUSDT", "M", 1_000_000), ("ETHUSDT", "M", 1_000_001)],
        ("ETHUSDT", "N", 1_000_002),
        ("BTCUSDT", "N", 12),
    ]
    assert flow.faults == []


def test_a_snapshot_may_say_whose_it_is(tmp_path):
    """By a field, by its stream, or because the caller knows."""
    other = depth(11, s="ETHUSDT")
    for snap in (text({**SNAP, "s": "BTCUSDT"}), text(SNAP, stream="btcusdt@snapshot")):
        assert rows(opened(tmp_path, other, snap), "symbol")[0] == ("BTCUSDT",)
    assert rows(opened(tmp_path, other, SNAP, symbol="BTCUSDT"), "symbol")[0] == ("BTCUSDT",)
    assert rows(opened(tmp_path, other, SNAP), "symbol")[0] == ("ETHUSDT",)
    assert rows(opened(tmp_path, SNAP), "symbol")[0] == ("DEFAULT",)


def test_more_symbols_than_anybody_expected(tmp_path):
    """There is no limit to how many there are."""
    names = [f"COIN{i}USDT" for i in range(3_000)]
    flow = opened(tmp_path, *(depth(i + 1, [("97", "1")], s=name) for i, name in enumerate(names)))
    assert rows(flow, "symbol") == [(name,) for name in names]


def test_an_instrument_nobody_introduced(tmp_path):
    """One that only trades, or only has tickers, is no trouble."""
    flow = opened(tmp_path, trade(1, s="ABC"), ticker(5, s="DEF"))
    assert rows(flow, "symbol", "action") == [("ABC", "T")]
    assert flow.extras["book_ticker"]()["symbol"].to_pylist() == ["DEF"]


def test_messages_of_other_streams_are_counted(tmp_path):
    """What isn't used is named: partial books, candles, arrays, answers to a subscription."""
    flow = opened(
        tmp_path,
        text(snapshot(5, [("1", "1")]), stream="btcusdt@depth20@100ms"),
        text(depth(6, [("1", "1")]), stream="btcusdt@depth5"),
        {"e": "kline", "E": E0, "s": "BTCUSDT", "k": {"t": 1}},
        {"e": "24hrTicker", "E": E0, "s": "BTCUSDT", "p": "0.1", "U": "x"},
        text([{"e": "24hrMiniTicker"}], stream="!miniTicker@arr"),
        {"result": None, "id": 1},
        depth(7),
    )
    assert len(rows(flow)) == 1
    assert flow.faults == []
    assert flow.notes[1] == (
        "messages of other streams, not used: btcusdt@depth20@100ms 1, depthUpdate 1, kline 1, 24hrTicker 1, "
        "!miniTicker@arr 1, without a name 1"
    )


def test_aggregate_trades_beside_trades(tmp_path):
    """Both are delivered; that the volume is there twice is said."""
    sums = [{**trade(i), "e": "aggTrade", "a": i} for i in (1, 2)]
    flow = opened(tmp_path, trade(1), *sums, depth(1))
    assert [row[0] for row in rows(flow)] == ["T", "T", "T", "N"]
    assert "aggregate trades beside the trades they sum up: 2" in flow.notes


# ------------------------------------------------------------------ damage

GOOD = [text(SNAP), text(depth(11, [("99", "5")], [("101", "6")])), text(trade(1)), text(ticker(12))]


def without(message, key):
    return {k: v for k, v in message.items() if k != key}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("garbage", "found 'garbage', expected a message of JSON"),
        (b"\x00\xff\xfe", r"found '\x00\xff\xfe', expected a message of JSON"),
        ('12x {"e":1}', "found '12x ' before a message, expected a receive time, or nothing"),
        ('99 {"e":1}', "found '99 ' before a message, expected a receive time, or nothing"),
        (
            '99999999999999999999 {"e":1}',
            "found '99999999999999999999 ' before a message, expected a receive",
        ),
        (
            GOOD[1][:-1],
            "found a message that is no JSON (Input data was truncated), expected a message a line",
        ),
        (GOOD[1] + "}", "found a message that is no JSON (JSON is malformed: trailing characters)"),
        (GOOD[1] + GOOD[1], "found a message that is no JSON (JSON is malformed: trailing characters)"),
        ('{"e":"depthUpdate","u":"7"}', "found a message out of shape (Expected `int | null`, got `str`"),
        (without(depth(12), "U"), "found a depthUpdate without 'U', expected 'U' in each"),
        (without(depth(12), "E"), "found a depthUpdate without 'E', expected 'E' in each"),
        (without(trade(12), "p"), "found a trade without 'p', expected 'p' in each"),
        (without(SNAP, "bids"), "found a depth snapshot without 'bids', expected 'bids' in each"),
        (
            depth(12, first=13),
            "found a depthUpdate with U above u, expected the first update id below the last",
        ),
        (depth(-1), "found a message out of shape (Expected `int` >= 0"),
        (depth(2**63), "found a message out of shape (Expected `int` <= 9223372036854775807"),
        (depth(12, [("x", "1")]), "found price 'x', expected at most 9 decimals, and 9,223,372,036"),
        (
            depth(12, [("1", "")]),
            "found size '', expected at most 8 decimals, and 92,233,720,368 (option lot)",
        ),
        (depth(12, [("1", "1e5")]), "found size '1e5', expected at most 8 decimals"),
        (depth(12, [("-1", "1")]), "found price '-1', expected at most 9 decimals"),
        (depth(12, [("+1", "1")]), "found price '+1', expected at most 9 decimals"),
        (depth(12, [("1.2.3", "1")]), "found price '1.2.3', expected at most 9 decimals"),
        (depth(12, [("nan", "1")]), "found price 'nan', expected at most 9 decimals"),
        (depth(12, [("1.0000000001", "1")]), "found price '1.0000000001', expected at most 9 decimals"),
        (depth(12, [("1", "0.000000001")]), "found size '0.000000001', expected at most 8 decimals"),
        (depth(12, [("9223372036.854775808", "1")]), "found price '9223372036.854775808', expected at most"),
        (depth(12, [("1", "92233720368.54775808")]), "found size '92233720368.54775808', expected at most"),
        (depth(12, [("9" * 30, "1")]), f"found price '{'9' * 30}', expected at most 9 decimals"),
        (depth(12, [(1, "1")]), "found levels out of shape (Expected `str`, got `int` - at `$[0][0]`)"),
        (depth(12, [("1",), ("2", "3", "4")]), "found levels out of shape (Expected `array` of length 2"),
        ({**depth(12), "b": [1, 2]}, "found levels out of shape"),
        ({**depth(12), "b": None}, "found levels out of shape"),
        ({**depth(12, [], [("1", "1")]), "b": 5}, "found levels out of shape"),
        ({**depth(12, [("1", "1")]), "a": {}}, "found levels out of shape"),
        ({**trade(12), "p": 100.5}, "found levels out of shape (Expected `str`, got `float`"),
        (ticker(12, bid="1,5"), "found price '1,5', expected at most 9 decimals"),
        ({**ticker(12), "A": 3}, "found levels out of shape (Expected `str`, got `int`"),
        ('{"data":' * 5_000 + "}" * 5_000, "found a message that is no JSON"),
    ],
)
def test_a_damaged_line_is_a_fault_and_the_rest_is_delivered(tmp_path, line, said):
    """Row, found and expected are told; what stands before and after is whole."""
    flow = opened(tmp_path, *GOOD[:2], line, depth(12, [("97", "1")]), GOOD[2])
    (fault,) = faults(flow)
    assert fault.startswith(f"line 3: {said}")
    assert "\n" not in fault
    assert [row[0] for row in rows(flow)] == ["R", "M", "M", "M", "M", "M", "M", "T"]
    assert flow.extras["book_ticker"]().num_rows == 0
    assert faults(flow) == [fault]


def test_limits_of_prices_and_sizes(tmp_path):
    """The largest that 64 bits hold come through; a price of nothing is the replay's to judge."""
    flow = opened(
        tmp_path, depth(1, [("9223372036.854775807", "92233720368.54775807"), ("0", "1"), ("007.50", "1")])
    )
    assert flow.table()["price"].to_pylist() == [2**63 - 1, 0, 7_500_000_000]
    assert flow.table()["size"].to_pylist() == [2**63 - 1, 10**8, 10**8]


def test_damage_of_one_kind_is_one_fault(tmp_path):
    """A thousand bad lines are a count, not a thousand lines of report."""
    flow = opened(tmp_path, *GOOD, *["garbage"] * 1000)
    assert faults(flow) == [
        "line 5: found 'garbage', expected a message of JSON (1,000 times, the first here)"
    ]
    many = opened(tmp_path, *GOOD, *(f"garbage {i}" for i in range(1000)))
    assert len(many.faults) == messages.KINDS_OF_FAULTS + 1
    assert sum(fault.count for fault in many.faults) == 1000


def test_times_that_run_backwards_are_kept(tmp_path):
    """Row order is the capture's, whatever the clocks say."""
    flow = opened(tmp_path, SNAP, depth(11, e=E0), depth(12, e=E0 - 5_000), trade(1, e=5))
    assert flow.table()["ts_event"].cast("int64").to_pylist()[-3:] == [
        E0 * 10**6,
        (E0 - 5_000) * 10**6,
        5 * 10**6,
    ]


@pytest.mark.parametrize("last", GOOD)
def test_a_capture_cut_at_every_byte_of_its_last_line(tmp_path, last):
    """All that precedes is delivered, the torn line is a fault."""
    whole = "\n".join([*GOOD, text(depth(12)), last]).encode()
    path = tmp_path / "cut.ndjson"
    for length in range(len(whole) - len(last) + 1, len(whole)):
        path.write_bytes(whole[:length])
        flow = open_flow(path)
        assert len(rows(flow)) == 8
        (fault,) = flow.faults
        assert fault.where == "line 6"


def test_a_compressed_capture_cut_anywhere(tmp_path):
    """What the decompressor still gives is delivered, and the end is a fault."""
    lines = [*GOOD, *(text(depth(i, [(str(i), "1")], e=E0 + i)) for i in range(12, 300))]
    whole = gzip.compress("\n".join(lines).encode(), mtime=0)
    path = tmp_path / "capture.gz"
    path.write_bytes(whole)
    expected = rows(open_flow(path))
    for length in [*range(len(whole) // 2, len(whole) - 10, 37), *range(len(whole) - 10, len(whole))]:
        path.write_bytes(whole[:length])
        flow = open_flow(path, format="binance")
        found = rows(flow)
        assert found == expected[: len(found)]
        assert len(found) > 50
        assert [fault.found for fault in flow.faults] == ["broken gzip data (ends early)"]
        assert flow.faults[0].where.startswith("byte ")


@pytest.mark.parametrize("rest", ["17231612551", "1723161255137307667 ", '{"e":"trade"', "garbage"])
def test_a_cut_line_is_no_fault_of_its_own(tmp_path, monkeypatch, rest):
    """The end of a container that ends early is one fault, wherever in a line that is: in its time too."""

    def ends_early(path):
        yield "\n".join([*GOOD, rest]).encode()
        raise feed.containers.EndsEarly(path, "broken gzip data (ends early)", "a whole gzip file")

    path = write(tmp_path, *GOOD)
    whole = rows(open_flow(path, format="binance"))
    monkeypatch.setattr(feed.containers, "blocks", ends_early)
    flow = open_flow(path, format="binance")
    assert rows(flow) == whole
    assert [fault.found for fault in flow.faults] == ["broken gzip data (ends early)"]


def test_a_bad_checksum(tmp_path):
    """A container that contradicts itself is not used."""
    data = bytearray(gzip.compress("\n".join(GOOD).encode()))
    data[-6] ^= 1
    (path := tmp_path / "capture.gz").write_bytes(data)
    with pytest.raises(FormatError, match="broken gzip data"):
        open_flow(path, format="binance").table()


@pytest.mark.parametrize(
    "content", [b"Dear diary\n", b'{"a":1}\n', b"\x00" * 99, b'{"e":"depthUpdate"}\n', b"\n\n"]
)
def test_nothing_usable_is_another_format(tmp_path, content):
    """The wrong content under the right name is an error that says what was expected."""
    (path := tmp_path / "btcusdt.ndjson").write_bytes(content)
    with pytest.raises(
        FormatError, match=r"found no message of Binance.* expected depthUpdate, trade, bookTicker or"
    ):
        open_flow(path, format="binance").table()
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="an empty file"):
        open_flow(path, format="binance").table()


def test_other_formats_are_not_claimed(tmp_path):
    """JSON of somebody else, and a receive time alone, are left to others."""
    for content in (
        '{"price":1,"size":2}',
        '{"e":"kline"}',
        "1723161254000000000 ",
        "34200.1,1,7,100,10000,1",
    ):
        assert not feed.sniff(tmp_path / "x.ndjson", content.encode())
    assert feed.sniff(tmp_path / "x", b"garbage\n" + GOOD[3].encode())
    assert feed.sniff(tmp_path / "x", b'{"e":"trade"}')  # what it lacks is said when it is read
    assert feed.sniff(tmp_path / "x", text(snapshot(1, [("1", "1")] * 9_000), RECV0).encode()[:65536])


def test_a_line_without_end(tmp_path, monkeypatch):
    """Gigabytes without a line end are no capture, and aren't gathered in memory to find that out."""
    monkeypatch.setattr(feed, "LINE_BYTES", 1000)
    path = write(tmp_path, *GOOD, "x" * 2000)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        FormatError, match=r"line 5: found 2,000 bytes without a line end, expected a message a line"
    ):
        open_flow(path).table()


# ------------------------------------------------------------------ in pieces


@pytest.fixture
def small_blocks(monkeypatch):
    """Files are read a few lines at a time."""
    blocks = feed.containers.blocks
    monkeypatch.setattr(feed.containers, "blocks", lambda path: blocks(path, size=200))


def plain(table):
    columns = {name: table[name] for name in table.column_names}
    columns |= {name: columns[name].cast(pa.string()) for name in ("symbol", "action")}
    return pa.table(columns).to_pylist()


@pytest.mark.usefixtures("small_blocks")
def test_pieces_join_to_the_table(tmp_path):
    """However the file is read and cut, the rows are the same, and so are notes and faults."""
    updates = [
        depth(i, [(str(i), "1")], [(str(1000 + i), "2")] * (i % 3), s="AB"[i % 2]) for i in range(1, 60)
    ]
    messages = [*updates[:20], "garbage", {**snapshot(15, [("7", "7")]), "s": "B"}, *updates[20:], ticker(3)]
    flow = opened(tmp_path, *messages)
    expected, notes, said = plain(flow.table()), list(flow.notes), faults(flow)
    for size in (1, 7, 1000):
        again = open_flow(flow.path)
        pieces = list(again.batches(size))
        assert [piece.num_rows for piece in pieces[:-1]] == [size] * (len(pieces) - 1)
        assert [row for piece in pieces for row in plain(piece)] == expected
        assert (again.notes, faults(again)) == (notes, said)


# ------------------------------------------------------------------ the slow twin


class SlowBook:
    """A book kept as Binance's page says, by hand."""

    def __init__(self):
        self.waiting, self.last, self.sides, self.seen = [], None, {1: {}, -1: {}}, []

    def take(self, message):
        if "lastUpdateId" in message:
            if self.last is None:
                self.last = message["lastUpdateId"]
                self.set(message["bids"], message["asks"])
                for held in self.waiting:
                    self.take(held)
        elif self.last is None:
            self.waiting.append(message)
        elif message["u"] > self.last:
            self.last = message["u"]
            self.set(message["b"], message["a"])

    def set(self, bids, asks):
        for side, levels in ((1, bids), (-1, asks)):
            for price, size in levels:
                self.sides[side][float(price)] = float(size)
                if float(size) == 0:
                    del self.sides[side][float(price)]
        self.seen.append((self.last, {side: dict(levels) for side, levels in self.sides.items()}))


def states(flow):
    """The book after each event, made from the rows alone."""
    sides, seen = {1: {}, -1: {}}, []
    for action, side, price, size, flags, number in rows(flow):
        if action == "R":
            sides = {1: {}, -1: {}}
        elif action == "M":
            sides[side][price] = size
            if size == 0:
                del sides[side][price]
        if flags & 128 and action != "T":
            seen.append((number, {side: dict(levels) for side, levels in sides.items()}))
    return seen


LEVELS = st.lists(
    st.tuples(st.sampled_from(["99", "99.5", "100"]), st.sampled_from(["0", "1.5", "2"])), max_size=4
)


@settings(max_examples=60)
@given(
    updates=st.lists(st.tuples(st.integers(1, 3), LEVELS, LEVELS), min_size=1, max_size=12),
    snap=st.tuples(LEVELS, LEVELS),
    data=st.data(),
)
def test_any_capture_gives_the_documented_book(tmp_path_factory, updates, snap, data):
    """Whatever comes when, rows rebuild to what the procedure gives, event by event."""
    ids = [100]
    for step, _, _ in updates:
        ids.append(ids[-1] + step)
    messages = [
        depth(u, bids, asks, first=before + 1)
        for (before, u), (_, bids, asks) in zip(pairwise(ids), updates, strict=True)
    ]
    last = data.draw(st.integers(100, ids[-1]))
    messages.insert(data.draw(st.integers(0, len(messages))), snapshot(last, *snap))
    flow = opened(tmp_path_factory.mktemp("twin"), *messages)
    slow = SlowBook()
    for message in messages:
        slow.take(message)
    ahead = [(s, book) for s, book in states(flow) if s >= last]
    assert ahead[-1] == slow.seen[-1]
    if messages[0] is not messages[-1] and "lastUpdateId" in messages[0]:
        assert ahead == slow.seen
    assert flow.faults == []


WHOLE = "\n".join(
    [*GOOD, *(text(depth(i, [(str(i), "1")]), RECV0 + i, "btcusdt@depth") for i in range(12, 16))]
).encode()


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_random_bytes_changed_inserted_and_deleted(tmp_path_factory, seed):
    """It is read as far as it goes, or an error of one line; never anything else."""
    chance = random.Random(seed)
    data = damaged(WHOLE, chance, chance.randint(1, 6))
    (path := tmp_path_factory.mktemp("fuzz") / "x.ndjson").write_bytes(data)
    said = ""
    try:
        flow = open_flow(path, format="binance")
        hftlab.replay(flow, mode="rebuild", record=())
        said = "".join(map(str, flow.faults))
        assert all(flow.extras[name]() is not None for name in flow.extras)
    except HftlabError as error:
        said = str(error)
    assert "\n" not in said


# ------------------------------------------------------------------ the sample


@pytest.fixture(scope="module")
def sample(data_dir):
    return open_flow(data_dir / SAMPLE)


def test_the_sample(sample):
    """5.7 minutes of BTCUSDT: 3,451 updates, two of which the snapshot contains, and no gap."""
    frame = pl.from_arrow(sample.table())
    count = frame.group_by(pl.col("action").cast(str)).len()
    assert dict(count.iter_rows()) == {"T": 9_757, "R": 1, "M": 126_073}
    assert frame.filter(pl.col("flags") & 128 != 0, pl.col("action") != "T").height == 3_450
    assert sample.faults == []
    assert sample.notes == [
        "updates that the snapshot already contains, dropped: 2",
        "messages received before they were sent, by up to 1.275 s: 13,208",
        "a lot is 0.00000001",
    ]
    assert {name: table().num_rows for name, table in sample.extras.items()} == {
        "book_ticker": 28_040,
        "trades": 9_757,
    }


def test_the_sample_rebuilds_to_the_book_by_hand(sample, data_dir):
    """The compiled books end with every level, price and size that the procedure by hand gives."""
    slow, wanted = SlowBook(), ("depthUpdate", "lastUpdateId")
    slow.set = lambda bids, asks: [
        slow.sides[side].__setitem__(round(float(price) * 100), round(float(size) * 10**8))
        for side, levels in ((1, bids), (-1, asks))
        for price, size in levels
    ]
    with gzip.open(data_dir / SAMPLE, "rt") as file:
        for line in file:
            if any(word in line for word in wanted):
                message = json.loads(line[line.index("{") :])
                slow.take(message.get("data", message))
    book = hftlab.replay(sample, mode="rebuild", record=("book",)).book
    for side, levels in slow.sides.items():
        here = book.filter(pl.col("side") == side)
        found = dict(zip((here["price"] // 10**7).to_list(), here["qty"].to_list(), strict=True))
        assert found == {price: size for price, size in levels.items() if size}
