"""Bitstamp: what events become, who is the maker, unknown orders, damage to CSV and log, real data."""

from __future__ import annotations

import gzip
import json
import lzma
import re
from collections import Counter
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab
from hftlab.errors import FormatError, UsageError
from hftlab.feeds import Fault, open_flow
from hftlab.feeds.bitstamp import executions as rules
from hftlab.feeds.bitstamp import feed
from hftlab.feeds.bitstamp import messages as log_files
from hftlab.feeds.parsing import containers
from hftlab.schema import MBO

HEADER = "id,timestamp,exchange.timestamp,price,volume,action,direction"
CSV, LOG = "bitstamp_btcusd_2015-05-01_orders.csv", "bitstamp_btcusd_2015-05-01_raw.log"
CENT, COIN = 10**7, 10**8
LOT_NOTE = "one lot is 0.00000001 of a coin"
TS = 1_430_438_404_518


def write(folder, *rows, name=CSV):
    """A CSV of events (id, action, side, price in cents, volume), a millisecond apart, or of whole rows."""
    lines = [row if isinstance(row, str) else as_csv(TS + n, *row) for n, row in enumerate(rows)]
    (path := folder / name).write_text("".join(f"{line}\n" for line in [HEADER, *lines]))
    return path


def as_csv(ts, order, action, side, cents, volume):
    price = f"{cents // 100}.{cents % 100:02}"
    return f"{order},{ts},{ts // 1000 * 1000},{price},{volume},{action},{side}"


def as_log(ts, order, action, side, cents, volume):
    """The same event as a line of the log."""
    price, amount = f"{cents // 100}.{cents % 100:02}", f"{volume // COIN}.{volume % COIN:08}"
    fields = {"price": price, "amount": amount, "datetime": str(ts // 1000), "id": order}
    return f"{ts} order_{action} {json.dumps(fields | {'order_type': int(side == 'ask')})}"


def write_log(folder, *rows, name=LOG):
    """A log of events and of whole lines."""
    lines = [row if isinstance(row, str) else as_log(TS + n, *row) for n, row in enumerate(rows)]
    (path := folder / name).write_text("".join(f"{line}\n" for line in lines))
    return path


def trade(n, dollars, amount, order=1):
    return f'{TS + n} trade {{"price": {dollars}, "amount": {amount}, "id": {order}}}'


def facts(flow, *columns):
    """Rows of the mbo table, prices in cents."""
    columns = columns or ("action", "side", "price", "size", "order_id", "flags", "sequence")
    frame = pl.from_arrow(flow.table()).with_columns(
        pl.col("action", "symbol").cast(pl.String), pl.col("price") // CENT
    )
    return frame.select(columns).rows()


# ------------------------------------------------------------------ the slow twin


def slow(events, *, is_log, drop_ghosts=False):
    """Rows (action, side, price, size, order id, sequence) of events, one by one, by dicts.

    `events` are (sequence, ts, action, order id, side, price, volume); trades and order books have their name
    for an action.
    """
    executions, at_other_price = slow_rounds(events, is_log)
    told = slow_trades(events, executions)
    has_trades = any(action == "trade" for _, _, action, *_ in events)
    resting = slow_resting(events, at_other_price)
    for execution in executions:
        execution["sure"] = not execution["alone"] or execution["row"] in told.values()
        if has_trades:
            execution["maker"] &= execution["sure"]
    ghosts = slow_ghosts(events, executions, resting)
    if not has_trades:
        for execution in executions:
            if execution["maker"] and not execution["sure"]:
                execution["maker"] = not slow_better(events, execution, resting, ghosts)
    by_row = {execution["row"]: execution for execution in executions}
    return list(slow_facts(events, by_row, told, resting, ghosts if drop_ghosts else {}))


def slow_rounds(events, is_log):
    """Executions with their pairs, and rows of those at another price, until these no longer change."""
    slack, at_other_price = 0 if is_log else rules.SLACK, set()
    for _ in range(rules.MOST_ROUNDS):
        executions = slow_executions(events, at_other_price)
        slow_matched(executions, slack)
        found = {e["row"] for e in executions if e["doubtful"] and e["other"]}
        if found == at_other_price:
            break
        at_other_price = found
    executions = [e for e in executions if not e["doubtful"] or e["other"]]
    for execution in executions:
        other = execution["other"]
        execution["alone"] = other is None
        known = execution["size"] is not None
        execution["maker"] = execution["order"] < other["order"] if other else known
    for execution in executions:
        if execution["size"] is None and execution["other"]:
            execution["size"] = execution["other"]["size"]
    return executions, at_other_price


def slow_matched(executions, slack):
    """The other order's execution of each, first of those that are certain, then of changes of price."""
    for execution in executions:
        execution["other"] = None

    def match(some, agree):
        rows = [(e["ts"], e["side"], e["price"], e["size"], e["order"]) for e in some]
        for execution, place in zip(some, slow_pairs(rows, slack, agree), strict=True):
            execution["other"] = None if place is None else some[place]

    match(
        [e for e in executions if not e["doubtful"]], lambda side, price, other: side * (price - other) >= 0
    )
    if any(e["doubtful"] for e in executions):
        some = [e for e in executions if e["other"] is None and e["size"] is not None]
        match(some, lambda _, price, other: price == other)
        for execution in some:
            other = execution["other"]
            if other and not execution["doubtful"] and not other["doubtful"]:
                execution["other"] = other["other"] = None


def slow_executions(events, at_other_price):
    """Reductions that may be executions, and what each took; None where nobody knows."""
    executions, last, lives = [], {}, slow_lives(events)
    for row, event in enumerate(events):
        _, ts, action, order, side, price, volume = event
        before = last.get(order)
        execution = {"row": row, "ts": ts, "side": side, "price": price, "order": order, "size": None}
        execution["doubtful"] = bool(before) and action == "changed" and price != before[0]
        if action == "changed" and (before is None or volume < before[1]):
            executions.append(execution | ({"size": before[1] - volume} if before else {}))
        if action == "deleted" and volume == 0 and (before is None or before[1] > 0):
            executions.append(execution | ({"size": before[1]} if before else {}))
        if action in ("created", "changed", "deleted"):
            last[order] = (before[0] if row in at_other_price else price, volume)
            if action == "deleted" or lives[row] == "late":
                del last[order]
    return executions


def slow_resting(events, at_other_price):
    """The price at which its order rests after each event."""
    last, resting, lives = {}, [], slow_lives(events)
    for row, (_, _, action, order, _, price, _) in enumerate(events):
        resting.append(last[order] if row in at_other_price else price)
        if action in ("created", "changed", "deleted"):
            last[order] = resting[-1]
            if action == "deleted" or lives[row] == "late":
                del last[order]
    return resting


def slow_ends(events):
    """For each event that leaves its order open, the row of the next one of the order, None for none."""
    lives, ends, last = slow_lives(events), {}, {}
    for row, (_, _, action, order, *_) in enumerate(events):
        if action in ("created", "changed", "deleted"):
            if order in last:
                ends[last[order]] = row
            last.pop(order, None)
            if action != "deleted" and lives[row] != "late":
                last[order] = row
                ends[row] = None
    return {row: end for row, end in ends.items() if events[row][6] > 0 and lives[row] == "known"}


def slow_ghosts(events, executions, resting):
    """(row that disproves it, row of its deletion) by the row since which a ghost rests."""
    sure = [e for e in executions if e["maker"] and e["sure"]]
    ghosts = {}
    for start, end in slow_ends(events).items():
        _, ts, _, _, side, _, _ = events[start]
        if end is not None and (events[end][2] != "deleted" or events[end][6] == 0):
            continue
        for e in sure:
            between = start < e["row"] and (end is None or e["row"] < end)
            through = e["side"] == side and side * e["price"] < side * resting[start]
            if between and through and e["ts"] - ts > rules.WINDOW_MS:
                if end is None or events[end][1] - e["ts"] > rules.GHOST_MS:
                    ghosts[start] = (e["row"], end)
                break
    return ghosts


def slow_better(events, execution, resting, ghosts):
    """Whether a better order of its side stood there for a while before and after."""
    row, ts, side = execution["row"], execution["ts"], execution["side"]
    for start, end in slow_ends(events).items():
        if start < row and (end is None or end > row) and events[start][4] == side:
            stays = end is None or events[end][1] > ts + rules.WINDOW_MS
            stays &= events[start][1] <= ts - rules.WINDOW_MS
            stays &= start not in ghosts or ghosts[start][0] > row
            if stays and side * resting[start] > side * resting[row]:
                return True
    return False


def slow_lives(events):
    """What each event is to its order: known, unknown, or late, as a creation after its deletion is."""
    found, created, deleted = [], {}, {}
    for _, _, action, order, *_ in events:
        if action == "created":
            is_late = deleted.get(order) == "unheard of"
            found.append("late" if is_late else "known")
            created[order] = "late" if is_late else "known"
        elif action in ("changed", "deleted"):
            found.append("known" if created.get(order) == "known" else "unknown")
            if action == "deleted":
                deleted[order] = "heard of" if order in created else "unheard of"
                created.pop(order, None)
        else:
            found.append("none")
    return found


def slow_pairs(rows, slack, agree):
    """For each of (time, side, price, size, order), the place of its pair."""
    pair, waiting = [None] * len(rows), []
    for place, (ts, side, price, size, order) in enumerate(rows):
        while waiting and ts - rows[waiting[0]][0] > rules.WINDOW_MS:
            waiting.pop(0)
        best = []
        for other in waiting:
            _, its_side, its_price, its_size, its_order = rows[other]
            if its_side == -side and its_order != order and agree(side, price, its_price):
                if size is not None and its_size is not None and abs(size - its_size) <= slack:
                    best.append((abs(size - its_size), other))
                elif (size is None) != (its_size is None):
                    best.append((slack + 1, other))
        if best:
            other = min(best)[1]
            waiting.remove(other)
            pair[place], pair[other] = other, place
        else:
            waiting = [*waiting, place][-rules.MOST_WAITING :]
    return pair


def slow_trades(events, executions):
    """Row of the execution each trade tells of, by the trade's row."""
    fills = {e["row"]: (e["ts"], -1, e["price"], e["size"], "a fill") for e in executions if e["maker"]}
    trades = {row: (e[1], 1, e[5], e[6], "a trade") for row, e in enumerate(events) if e[2] == "trade"}
    rows = sorted(fills | trades)
    pair = slow_pairs([(fills | trades)[row] for row in rows], 0, lambda _, price, other: price == other)
    return {row: rows[pair[k]] for k, row in enumerate(rows) if row in trades and pair[k] is not None}


def slow_facts(events, executions, told, resting, ghosts):
    lives, last, over = slow_lives(events), {}, {end for _, end in ghosts.values()}
    for row, (sequence, _, action, order, side, price, volume) in enumerate(events):
        for start in sorted(start for start, (disproved, _) in ghosts.items() if disproved == row):
            yield "C", events[start][4], resting[start], events[start][6], events[start][3], sequence
        execution, before = executions.get(row), last.get(order)
        if action == "trade":
            kind = [("N", 0)] if row in told else [("T", side)]
            yield from ((what, at, price, volume, 0, sequence) for what, at in kind)
            continue
        if action == "order_book":
            yield "N", 0, 0, 0, 0, sequence
            continue
        rest = (order, sequence)
        if row in over:
            yield ("N", side, price, before or volume, *rest)
        elif action == "created":
            yield ("N" if lives[row] == "late" else "A", side, price, volume, *rest)
        elif execution and execution["size"] is not None:
            for what in "FC" if execution["maker"] else "C":
                yield (what, side, price if what == "F" else resting[row], execution["size"], *rest)
        elif action == "changed":
            yield ("M", side, price, volume, *rest)
        elif volume:
            yield ("C", side, price, before or volume, *rest)
        else:
            yield ("C" if before is None else "N", side, price, 1 if before is None else 0, *rest)
        last[order] = volume
        if action == "deleted" or lives[row] == "late":
            del last[order]


def slow_csv(data):
    """Events of a CSV that is whole, else the number of its first row that isn't."""
    events, forms = [], None
    for row, line in enumerate(data.split("\n")[1:-1] if data.endswith("\n") else data.split("\n")[1:]):
        fields = line.removesuffix("\r").split(",")
        if len(fields) != 7:
            return row + 2
        order, ts, exchange_ts, price, volume, action, direction = fields
        if forms is None:  # the first row tells units
            forms = (
                [len(time) if len(time) in (13, 16) else None for time in (ts, exchange_ts)],
                "." in volume,
            )
        digits, coins = forms
        for time, length in zip((ts, exchange_ts), digits, strict=True):
            if (
                not re.fullmatch(r"\d+", time, re.ASCII)
                or len(time) > (length or 13)
                or len(time) < (length or 1)
            ):
                return row + 2
        if not re.fullmatch(r"\d{1,20}", order, re.ASCII):
            return row + 2
        if not re.fullmatch(r"\d{1,11}(\.\d{1,8})?" if coins else r"\d{1,19}", volume, re.ASCII):
            return row + 2
        if not re.fullmatch(r"\d{1,10}(\.\d{1,9})?", price, re.ASCII) or Decimal(price) * 10**9 >= 2**63:
            return row + 2
        lots = int(Decimal(volume) * (COIN if coins else 1))
        us = int(ts) if digits[0] == 16 else int(ts) * 1000
        if int(order) >= 2**64 or lots >= 2**63 or us * 1000 >= 2**63:
            return row + 2
        if action not in ("created", "changed", "deleted") or direction not in ("bid", "ask"):
            return row + 2
        side = 1 if direction == "bid" else -1
        events.append((row, us / 1000, action, int(order), side, int(Decimal(price) * 10**9), lots))
    return events


def slow_log(data):
    """Events of a log, and its damaged lines (1-based)."""
    events, damaged = [], []
    lines = data.split(b"\n")
    for number, line in enumerate(lines if lines[-1] else lines[:-1]):
        try:
            events.append((number, *slow_line(line.removesuffix(b"\r").decode("latin-1"))))
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError):
            damaged.append(number + 1)
    return events, damaged


def slow_line(line):
    names = "order_created|order_changed|order_deleted|trade|order_book"
    ts, event, text = re.fullmatch(rf"(\d{{1,13}}) ({names}) (\{{.*\}})", line, re.ASCII).groups()
    assert int(ts) * 10**6 < 2**63
    fields = json.loads(text.encode("latin-1"), parse_float=Decimal)
    if event == "order_book":
        for levels in (fields["bids"], fields["asks"]):
            assert type(levels) is list
            for level in levels:
                assert type(level) is list
                price, amount = level
                slow_units(price, 9), slow_units(amount, 8)
        return int(ts), event, 0, 0, 0, 0
    assert type(fields["id"]) is int
    assert 0 <= fields["id"] < 2**64
    price = slow_units(fields["price_str"] if "price_str" in fields else fields["price"], 9)
    volume = slow_units(fields["amount_str"] if "amount_str" in fields else fields["amount"], 8)
    kind = fields.get("type", "none") if event == "trade" else fields["order_type"]
    assert (kind == "none" and event == "trade") or (type(kind) is int and kind in (0, 1))
    side = {"none": 0, 0: 1, 1: -1}[kind]
    return int(ts), {"trade": event}.get(event) or event[6:], fields["id"], side, price, volume


def slow_units(value, places):
    if isinstance(value, Decimal):
        assert value < 10**12
        assert value == 0 or value >= Decimal("1e-8")
        value = f"{value.quantize(Decimal('0.00000001')):f}"
    assert type(value) in (str, int)
    assert re.fullmatch(r"\d{1,12}(\.\d{1,40})?", str(value), re.ASCII)
    units = Decimal(str(value)).scaleb(places)
    assert units == int(units) < 2**63
    return int(units)


def fast(flow):
    """The same rows of a flow."""
    columns = ("action", "side", "price", "size", "order_id", "sequence")
    return pl.from_arrow(flow.table()).with_columns(pl.col("action").cast(pl.String)).select(columns).rows()


# ------------------------------------------------------------------ events to facts


def test_an_order_s_life(tmp_path):
    """Created A, deleted with volume C of what was open; milliseconds UTC, satoshi, dollars exact."""
    flow = open_flow(write(tmp_path, (7, "created", "bid", 23647, 200), (7, "deleted", "bid", 23647, 200)))
    assert facts(flow) == [("A", 1, 23647, 200, 7, 128, 0), ("C", 1, 23647, 200, 7, 128, 1)]
    assert flow.table().schema.equals(MBO)
    assert flow.table().column("price").to_pylist() == [236_470_000_000] * 2
    assert flow.table().column("ts_event").cast("int64").to_pylist() == [TS * 10**6, (TS + 1) * 10**6]
    assert flow.table().column("ts_recv").equals(flow.table().column("ts_event"))
    assert (flow.format, flow.kind, flow.notes, flow.faults) == ("bitstamp", "mbo", [LOT_NOTE], [])


def test_the_older_order_is_the_maker(tmp_path):
    """The taker is created, crosses, and then both are reduced: F for the maker, C for both."""
    flow = open_flow(
        write(
            tmp_path,
            (7, "created", "bid", 23647, 200),
            (8, "created", "ask", 23640, 50),
            (8, "deleted", "ask", 23640, 0),
            (7, "changed", "bid", 23647, 150),
        )
    )
    assert facts(flow)[2:] == [
        ("C", -1, 23640, 50, 8, 128, 2),
        ("F", 1, 23647, 50, 7, 0, 3),
        ("C", 1, 23647, 50, 7, 128, 3),
    ]
    assert flow.notes == [LOT_NOTE]
    assert hftlab.replay(flow, mode="rebuild").book.select("order_id", "qty").rows() == [(7, 150)]


def test_a_taker_that_sweeps(tmp_path):
    """Each maker is paired with the taker's reduction of the same volume, whichever comes first."""
    flow = open_flow(
        write(
            tmp_path,
            (1, "created", "ask", 100, 10),
            (2, "created", "ask", 101, 20),
            (3, "created", "ask", 102, 30),
            (4, "created", "bid", 105, 60),
            (1, "deleted", "ask", 100, 0),
            (4, "changed", "bid", 105, 50),
            (4, "changed", "bid", 105, 30),
            (2, "deleted", "ask", 101, 0),
            (3, "deleted", "ask", 102, 0),
            (4, "deleted", "bid", 105, 0),
        )
    )
    assert facts(flow, "action", "order_id", "price", "size")[4:] == [
        ("F", 1, 100, 10),
        ("C", 1, 100, 10),
        ("C", 4, 105, 10),
        ("C", 4, 105, 20),
        ("F", 2, 101, 20),
        ("C", 2, 101, 20),
        ("F", 3, 102, 30),
        ("C", 3, 102, 30),
        ("C", 4, 105, 30),
    ]
    assert hftlab.replay(flow, mode="rebuild").book.is_empty()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((8, "deleted", "bid", 23640, 0), (7, "deleted", "bid", 23647, 0)),  # the same side
        ((8, "deleted", "ask", 23650, 0), (7, "deleted", "bid", 23647, 0)),  # prices that do not cross
        ((8, "deleted", "ask", 23640, 0), (7, "changed", "bid", 23647, 13)),  # other volumes: 50 and 37
    ],
)
def test_executions_that_do_not_belong_together(tmp_path, first, second):
    """Without a pair an execution is taken for a maker's, and counted."""
    created = [(order, "created", side, cents, 50) for order, _, side, cents, _ in (second, first)]
    flow = open_flow(write(tmp_path, *created, first, second))
    assert Counter(facts(flow, "action")) == {("A",): 2, ("F",): 2, ("C",): 2}
    assert flow.notes[1:] == ["executions of which only one order was told: 2"]


def test_pairs_are_near_in_time(tmp_path):
    """A second apart is together, more is not."""
    rows = [(7, "created", "bid", 100, 5), (8, "created", "ask", 100, 5)]
    for apart, pairs in ((1000, 1), (1001, 0)):
        late = as_csv(TS + 2 + apart, 7, "deleted", "bid", 100, 0)
        flow = open_flow(write(tmp_path, *rows, (8, "deleted", "ask", 100, 0), late))
        assert sum(action == "F" for (action,) in facts(flow, "action")) == 2 - pairs


def test_the_csv_cuts_satoshi_off(tmp_path):
    """Volumes of a pair may differ by two satoshi in a CSV; in a log, which is exact, by none."""
    rows = [(7, "created", "bid", 100, 50), (8, "created", "ask", 100, 48)]
    rows += [(7, "deleted", "bid", 100, 0), (8, "deleted", "ask", 100, 0)]
    assert [a for (a,) in facts(open_flow(write(tmp_path, *rows)), "action")] == list("AAFCC")
    assert [a for (a,) in facts(open_flow(write_log(tmp_path, *rows)), "action")] == list("AAFCFC")


@pytest.mark.parametrize(
    ("price", "volume"), [(101, 50), (101, 40), (101, 60), (99, 60), (100, 50), (100, 60), (101, 0)]
)
def test_changes_that_are_no_executions(tmp_path, price, volume):
    """A new price, whatever the volume, and a volume that doesn't fall are M."""
    rows = [(7, "created", "bid", 100, 50), (7, "changed", "bid", price, volume)]
    assert facts(open_flow(write(tmp_path, *rows)))[1:] == [("M", 1, price, volume, 7, 128, 1)]


# ------------------------------------------------------------------ prices of trades, reductions, ghosts


def test_a_new_price_with_less_volume_is_a_trade_s(tmp_path):
    """Where the other side loses as much at that price, it is the trade's, and the order rests at its own.

    The case of a public report: 22,500,000 satoshi offered at 78,496 meet 7,500,000 bid at 78,497.
    """
    rows = (
        (1, "created", "bid", 7849700, 7_500_000),
        (2, "created", "ask", 7849600, 22_500_000),
        (2, "changed", "ask", 7849700, 15_000_000),
        (1, "deleted", "bid", 7849700, 0),
    )
    flow = open_flow(write(tmp_path, *rows))
    assert facts(flow)[2:] == [
        ("C", -1, 7849600, 7_500_000, 2, 128, 2),
        ("F", 1, 7849700, 7_500_000, 1, 0, 3),
        ("C", 1, 7849700, 7_500_000, 1, 128, 3),
    ]
    book = hftlab.replay(flow, mode="rebuild").book.select("order_id", "price", "qty").rows()
    assert book == [(2, 78_496 * 10**9, 15_000_000)]
    assert "changes of price that are executions, at the trade's price: 1" in flow.notes
    later = [as_csv(TS + 5000, 2, "changed", "ask", 7849600, 9_000_000)]
    later += [as_csv(TS + 5001, 2, "deleted", "ask", 7849600, 9_000_000)]
    assert facts(open_flow(write(tmp_path, *rows, *later)))[5:] == [
        ("F", -1, 7849600, 6_000_000, 2, 0, 4),
        ("C", -1, 7849600, 6_000_000, 2, 128, 4),
        ("C", -1, 7849600, 9_000_000, 2, 128, 5),
    ]


def test_a_market_order_s_money_buys_less(tmp_path):
    """Without another order that loses as much, a new price is the order's own: its money buys less there.

    The sample day: 65599835 goes from 235.69 to 235.84, from 2.35287878 to 2.35138229 coins: the same money.
    """
    rows = [(7, "created", "bid", 23569, 235287878), (7, "changed", "bid", 23584, 235138229)]
    assert facts(open_flow(write(tmp_path, *rows)))[1:] == [("M", 1, 23584, 235138229, 7, 128, 1)]


def spread_out(*rows):
    """Events (milliseconds, id, action, side, price in cents, volume) as rows."""
    return [as_csv(TS + ms, *row) for ms, *row in rows]


BEST = (0, 1, "created", "bid", 101, 50)
BEHIND = (0, 2, "created", "bid", 100, 50)


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ((2000, 2, "changed", "bid", 100, 30), ["C"]),
        ((2000, 2, "deleted", "bid", 100, 0), ["C"]),
        ((2000, 1, "changed", "bid", 101, 30), ["F", "C"]),  # the best itself
        ((900, 2, "changed", "bid", 100, 30), ["F", "C"]),  # the better one has just come
    ],
)
def test_a_reduction_behind_a_better_order_is_no_trade(tmp_path, last, expected):
    """By price priority nothing trades behind an order that stands there a second before and after."""
    path = write(tmp_path, *spread_out(BEST, BEHIND, last, (9000, 3, "created", "ask", 200, 1)))
    assert facts(open_flow(path), "action")[2:-1] == [(action,) for action in expected]
    gone = (last[0] + 500, 1, "deleted", "bid", 101, 50)
    if last[1] == 2:
        path = write(tmp_path, *spread_out(BEST, BEHIND, last, gone))
        assert facts(open_flow(path), "action")[2:-1] == [("F",), ("C",)]


GHOST = (
    (0, 1, "created", "bid", 101, 50),
    (1, 2, "created", "bid", 100, 50),
    (2000, 3, "created", "ask", 100, 20),
    (2001, 2, "changed", "bid", 100, 30),
    (2001, 3, "deleted", "ask", 100, 0),
)


def test_a_ghost_is_named_and_left_out(tmp_path):
    """An order that stays although its side trades at a worse price has gone; since when is said."""
    flow = open_flow(write(tmp_path, *spread_out(*GHOST)))
    (note,) = (note for note in flow.notes if "ghost" in note)
    assert note == (
        "ghosts, orders that stay while the market trades through them (drop_ghosts leaves them out): 1: "
        "1 (bid 1.01 since 2015-05-01T00:00:04.518000, disproved 2015-05-01T00:00:06.519000)"
    )
    assert hftlab.replay(flow, mode="rebuild").book["order_id"].to_list() == [1, 2]
    flow = open_flow(flow.path, drop_ghosts="true")
    assert facts(flow)[3:] == [
        ("C", 1, 101, 50, 1, 0, 3),
        ("F", 1, 100, 20, 2, 0, 3),
        ("C", 1, 100, 20, 2, 128, 3),
        ("C", -1, 100, 20, 3, 128, 4),
    ]
    assert hftlab.replay(flow, mode="rebuild").book["order_id"].to_list() == [2]
    assert any(
        note.startswith("ghosts left out from where they were disproved: 1: 1 (bid") for note in flow.notes
    )
    with pytest.raises(UsageError, match="drop_ghosts: found 'maybe', expected true or false"):
        open_flow(flow.path, drop_ghosts="maybe")


@pytest.mark.parametrize(
    ("last", "ghosts"),
    [
        ((62_002, 1, "deleted", "bid", 101, 50), 1),
        ((62_001, 1, "deleted", "bid", 101, 50), 0),  # a message that is a minute late, no more
        ((99_999, 1, "deleted", "bid", 101, 0), 0),  # it was there: it is executed
        ((99_999, 1, "changed", "bid", 101, 40), 0),
    ],
)
def test_what_is_no_ghost(tmp_path, last, ghosts):
    """An order of which something is heard is there, but for a deletion more than a minute too late."""
    flow = open_flow(write(tmp_path, *spread_out(*GHOST, last)), drop_ghosts=True)
    assert sum("ghosts" in note for note in flow.notes) == ghosts
    if ghosts:
        assert facts(flow, "action", "order_id")[-1] == ("N", 1)
        assert hftlab.replay(flow, mode="rebuild").summary()["rejected"] == 0


def test_a_change_after_its_deletion_makes_no_ghost(tmp_path):
    """It is a late message of an order that has gone; so is that of 65610664 on the sample day."""
    late = [(2, 1, "deleted", "bid", 101, 0), (3, 1, "changed", "bid", 101, 30)]
    flow = open_flow(write(tmp_path, *spread_out(*GHOST[:2], *late, *GHOST[2:])))
    assert not any("ghost" in note for note in flow.notes)


def test_a_trade_behind_a_ghost_is_a_trade(tmp_path):
    """What was disproved no longer stands before others."""
    path = write(tmp_path, *spread_out(*GHOST, (9000, 2, "changed", "bid", 100, 10)))
    assert facts(open_flow(path), "action", "size")[-2:] == [("F", 20), ("C", 20)]


# ------------------------------------------------------------------ names and units since 2019


def test_names_and_units_since_2019(tmp_path):
    """`exchange_timestamp`, coins with decimals and microseconds: the same orders as in satoshi."""
    header = HEADER.replace("exchange.timestamp", "exchange_timestamp")
    rows = [
        f"7,{TS}123,{TS}000,34590.25,1,created,bid",
        f"7,{TS}124,{TS}000,34590.25,0.80000000,changed,bid",
    ]
    (path := tmp_path / CSV).write_text(
        "\n".join([header, *rows, f"8,{TS}125,{TS}000,34590.5,1,created,ask", ""])
    )
    flow = open_flow(path)
    assert (flow.format, flow.lot_size) == ("bitstamp", Decimal("1e-8"))
    assert facts(flow, "action", "size", "price") == [
        ("A", 100_000_000, 3459025),
        ("F", 20_000_000, 3459025),
        ("C", 20_000_000, 3459025),
        ("A", 100_000_000, 3459050),
    ]
    assert flow.table()["ts_event"].cast("int64").to_pylist()[0] == TS * 10**6 + 123_000


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            f"7,{TS},{TS},1.5,0.000000001,created,bid",
            "volume '0.000000001', expected coins with at most 8 dec",
        ),
        (
            f"7,{TS},{TS},1.5,92233720369.0,created,bid",
            "volume '92233720369.0', expected coins with at most 8 d",
        ),
        (
            f"7,{TS // 1000},{TS},1.5,0.5,created,bid",
            f"timestamp '{TS // 1000}', expected milliseconds since 1970",
        ),
        (f"7,{TS}000,{TS},1.5,0.5,created,bid", f"timestamp '{TS}000', expected milliseconds since 1970"),
    ],
)
def test_units_that_change(tmp_path, row, said):
    """The first time tells the unit of all, and where one volume has a point all are coins."""
    path = write(tmp_path, f"6,{TS},{TS},1.5,0.25,created,bid", row)
    with pytest.raises(FormatError) as caught:
        open_flow(path)
    assert f"line 3: found {said}" in str(caught.value)


def envelope(event, channel, recv=None, **data):
    """A message of the websocket, version 2."""
    text = json.dumps({"data": data, "channel": channel, "event": event})
    return text if recv is None else f"{recv} {text}"


def as_message(ms, order, action, side, cents, volume, recv=None, channel="live_orders_btcusd"):
    price, amount = f"{cents / 100:.2f}", f"{volume / COIN:.8f}"
    return envelope(
        f"order_{action}",
        channel,
        recv,
        id=order,
        id_str=str(order),
        order_type=int(side == "ask"),
        datetime=str((TS + ms) // 1000),
        microtimestamp=f"{TS + ms}000",
        amount=float(amount),
        amount_str=amount,
        price=float(price),
        price_str=price,
    )


MATCHED = (
    (0, 7, "created", "bid", 23647, 50_000_000),
    (1, 8, "created", "ask", 23640, 20_000_000),
    (2, 7, "changed", "bid", 23647, 30_000_000),
    (3, 8, "deleted", "ask", 23640, 0),
)


@pytest.mark.parametrize("recv", [None, f"{TS + 50}", f"{TS + 50}000", f"{TS + 50}000000"])
def test_websocket_messages_are_the_log(tmp_path, recv):
    """Version 2 of the websocket tells what the log tells, with a receive time before it or without."""
    told = {"id": 77, "amount_str": "0.20000000", "price_str": "236.47", "type": 1}
    start = envelope("bts:subscription_succeeded", "live_orders_btcusd", recv)
    traded = envelope("trade", "live_trades_btcusd", recv, microtimestamp=f"{TS + 2}000", **told)
    messages = [as_message(*row, recv) for row in MATCHED]
    path = write_log(tmp_path, start, *messages[:2], traded, *messages[2:], name="capture.ndjson")
    lines = [as_log(TS + ms, *row) for ms, *row in MATCHED]
    log = write_log(tmp_path, *lines[:2], f"{TS + 2} trade {json.dumps(told)}", *lines[2:])
    flow, expected = open_flow(path), open_flow(log)
    columns = ("ts_event", "symbol", "action", "side", "price", "size", "order_id", "flags")
    assert facts(flow, *columns) == facts(expected, *columns)
    assert facts(flow, "action") == [(action,) for action in "AANFCC"]
    received = flow.table()["ts_recv"].cast("int64").to_pylist()
    assert received == (
        [(TS + 50) * 10**6] * 6 if recv else flow.table()["ts_event"].cast("int64").to_pylist()
    )
    assert flow.faults == []
    said = "messages of other kinds, not used: bts:subscription_succeeded of live_orders_btcusd 1"
    assert said in flow.notes


def test_messages_of_several_instruments(tmp_path):
    """One is read: the first, or the one that is asked for; the others are counted."""
    other = [as_message(*row, channel="live_orders_ethusd") for row in MATCHED[:1]]
    path = write_log(tmp_path, *(as_message(*row) for row in MATCHED), *other, name="capture.ndjson")
    assert facts(open_flow(path), "symbol")[0] == ("BTCUSD",)
    assert "messages of other kinds, not used: of ETHUSD (option symbol) 1" in open_flow(path).notes
    assert facts(open_flow(path, symbol="ETH-USD"), "symbol", "action") == [("ETH-USD", "A")]


def test_published_books_in_messages(tmp_path):
    """The order_book channel becomes the same table as in a log."""
    book = {"microtimestamp": f"{TS + 1}000", "bids": [["236.47", "0.5"]], "asks": [["236.48", "1.0"]]}
    message = envelope("data", "order_book_btcusd", **book)
    flow = open_flow(write_log(tmp_path, as_message(*MATCHED[0]), message, name="capture.ndjson"))
    (row,) = flow.extras["order_book"]().to_pylist()
    assert (row["seq"], row["bid_px"][0], row["bid_sz"][0]) == (1, 236_470_000_000, 50_000_000)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda text: text.replace('"microtimestamp": "', '"microtimestamp": "x'),
            "microtimestamp: 16 digits",
        ),
        (lambda text: text.replace('"id": 8', '"id": 1.5e300'), "id: an integer up to 18446744073709551615"),
        (lambda text: text.replace('_str": "236', '_str": "1e'), "price: a decimal of at most 9 places"),
        (lambda text: text.replace('"price_str": "236.40"', '"x": 1').replace("236.4,", "7e-48,"), None),
        (
            lambda text: text.replace('"data": {', '"data": [{').replace('}, "ch', '}], "ch'),
            "data: an object",
        ),
        (lambda text: text[:-1], None),
    ],
)
def test_a_damaged_message(tmp_path, change, expected):
    """It is a fault with its row; what is whole before and after it is read."""
    messages = [as_message(*row) for row in MATCHED]
    messages[1] = change(messages[1])
    flow = open_flow(write_log(tmp_path, *messages, name="capture.ndjson"))
    (fault,) = flow.faults
    assert (fault.where, fault.expected) == ("line 2", expected or fault.expected)
    assert facts(flow, "sequence")[:2] == [(0,), (2,)]


def test_a_deletion_tells_of_what_was_open(tmp_path):
    """C of the volume before, also if the deletion names another; N if nothing was open any more."""
    rows = [(7, "created", "bid", 100, 50), (7, "deleted", "bid", 100, 30)]
    rows += [(8, "created", "bid", 100, 50), (8, "changed", "bid", 100, 0), (8, "deleted", "bid", 100, 0)]
    assert facts(open_flow(write(tmp_path, *rows)), "action", "size", "order_id") == [
        ("A", 50, 7),
        ("C", 50, 7),
        ("A", 50, 8),
        ("F", 50, 8),
        ("C", 50, 8),
        ("N", 0, 8),
    ]


def test_orders_from_before_the_file(tmp_path):
    """They have side and price; what they lost is known from their pair, else as little as must be."""
    rows = [
        (1, "deleted", "bid", 100, 30),
        (2, "changed", "bid", 101, 30),
        (3, "deleted", "bid", 102, 0),
        (9, "created", "ask", 99, 70),
        (9, "changed", "ask", 99, 45),
        (4, "deleted", "bid", 103, 0),
        (5, "changed", "ask", 99, 30),
        (5, "changed", "ask", 99, 20),
    ]
    flow = open_flow(
        write(tmp_path, *rows[:3], *[as_csv(TS + 5000 + n, *row) for n, row in enumerate(rows[3:])])
    )
    assert facts(flow, "action", "side", "price", "size", "order_id") == [
        ("C", 1, 100, 30, 1),
        ("M", 1, 101, 30, 2),
        ("C", 1, 102, 1, 3),
        ("A", -1, 99, 70, 9),
        ("C", -1, 99, 25, 9),
        ("F", 1, 103, 25, 4),
        ("C", 1, 103, 25, 4),
        ("M", -1, 99, 30, 5),
        ("F", -1, 99, 10, 5),
        ("C", -1, 99, 10, 5),
    ]
    assert flow.notes[1:] == [
        "deletions of orders that are not open: 3",
        "changes of orders that are not open: 3",
        "executions of which only one order was told: 4",
    ]
    assert hftlab.replay(flow, mode="rebuild").summary()["reasons"] == {"UNKNOWN_ORDER": 6}


def test_a_creation_after_its_deletion(tmp_path):
    """The order is gone already, so it never rests; an id that is used again after a known deletion does."""
    flow = open_flow(
        write(
            tmp_path,
            (1, "deleted", "bid", 100, 30),
            (1, "created", "bid", 100, 30),
            (1, "deleted", "bid", 100, 30),
            (2, "created", "bid", 100, 40),
            (2, "deleted", "bid", 100, 40),
            (2, "created", "bid", 100, 50),
        )
    )
    assert facts(flow, "action", "size", "order_id") == [
        ("C", 30, 1),
        ("N", 30, 1),
        ("C", 30, 1),
        ("A", 40, 2),
        ("C", 40, 2),
        ("A", 50, 2),
    ]
    assert "orders created after their deletion was told (N): 1" in flow.notes
    assert hftlab.replay(flow, mode="rebuild").summary()["reasons"] == {"UNKNOWN_ORDER": 2}


def test_times_that_run_backwards(tmp_path):
    """File order is kept, and the steps back are counted."""
    rows = [as_csv(TS - n, n, "created", "bid", 100, 1) for n in (1, 1, 5, 3, 9)]
    flow = open_flow(write(tmp_path, *rows))
    assert facts(flow, "order_id") == [(1,), (1,), (5,), (3,), (9,)]
    assert flow.notes[1:] == ["events earlier than the one before (file order is kept): 2"]


@pytest.mark.parametrize(
    ("name", "options", "symbol"),
    [
        (CSV, {}, "BTCUSD"),
        ("bitstamp_xrpeur.csv", {}, "XRPEUR"),
        ("orders.csv", {}, "BTCUSD"),
        ("orders.csv", {"symbol": "ETHUSD"}, "ETHUSD"),
        (CSV, {"symbol": "BTC-USD"}, "BTC-USD"),
    ],
)
def test_the_instrument(tmp_path, name, options, symbol):
    """The option, else the file name, else the pair there was first."""
    path = write(tmp_path, (1, "created", "bid", 100, 1), name=name)
    assert facts(open_flow(path, **options), "symbol") == [(symbol,)]


# ------------------------------------------------------------------ the log


BOOK = '{TS} order_book {{"bids": [["236.47", "1.5"], ["236.2", "0.00000001"]], "asks": [["236.64", "2"]]}}'
BOOK = BOOK.format(TS=TS + 9)


def test_log_and_csv_are_the_same(tmp_path):
    """Each event in either form; the log's order types and decimals."""
    rows = [(7, "created", "bid", 23647, 200), (8, "created", "ask", 23648, 178_855_669)]
    rows += [(7, "changed", "bid", 23650, 200), (8, "deleted", "ask", 23648, 178_855_669)]
    assert facts(open_flow(write_log(tmp_path, *rows))) == facts(open_flow(write(tmp_path, *rows)))


def test_trades_confirm_executions(tmp_path):
    """A trade that an F tells of is N, another is T; who has neither pair nor trade is no maker."""
    flow = open_flow(
        write_log(
            tmp_path,
            (7, "created", "bid", 23647, 178_855_669),
            (8, "created", "bid", 23600, 5),
            (8, "deleted", "bid", 23600, 0),
            trade(3, 236.47, "1.7885566900000001", 90),
            (7, "deleted", "bid", 23647, 0),
            trade(5, "236.61000000000001", 0.5, 91),
        )
    )
    assert facts(flow)[2:] == [
        ("C", 1, 23600, 5, 8, 128, 2),
        ("N", 0, 23647, 178_855_669, 0, 128, 3),
        ("F", 1, 23647, 178_855_669, 7, 0, 4),
        ("C", 1, 23647, 178_855_669, 7, 128, 4),
        ("T", 0, 23661, COIN // 2, 0, 128, 5),
    ]
    assert flow.notes[1:] == [
        "executions of which only one order was told: 2",
        "trades of which no order was told (T): 1",
    ]
    trades = pl.from_arrow(flow.extras["trades"]())
    columns = ("sequence", "trade_id", "side", "price", "size", "maker_order_id", "taker_order_id")
    assert trades.select(columns).rows() == [
        (3, 90, -1, 236_470_000_000, 178_855_669, 7, 0),
        (5, 91, 0, 236_610_000_000, COIN // 2, 0, 0),
    ]


def test_trades_name_both_orders(tmp_path):
    """The table of trades has maker, taker and the taker's side; later logs tell the side themselves."""
    flow = open_flow(
        write_log(
            tmp_path,
            (7, "created", "bid", 23647, 5),
            (8, "created", "ask", 23640, 5),
            (8, "deleted", "ask", 23640, 0),
            (7, "deleted", "bid", 23647, 0),
            trade(4, 236.47, 0.00000005),
            f'{TS} trade {{"price": 1, "price_str": "1.5", "amount_str": "2", "id": 3, "type": 1}}',
        )
    )
    trades = pl.from_arrow(flow.extras["trades"]())
    assert trades.select("side", "price", "size", "maker_order_id", "taker_order_id").rows() == [
        (-1, 236_470_000_000, 5, 7, 8),
        (-1, 1_500_000_000, 2 * COIN, 0, 0),
    ]
    assert facts(flow, "action", "side")[-1] == ("T", -1)


def test_the_published_books(tmp_path):
    """An order_book event is N; as a table it has levels, best first, and its row in the mbo table."""
    empty = f'{TS} order_book {{"bids": [], "asks": []}}'
    flow = open_flow(
        write_log(tmp_path, (7, "created", "bid", 100, 5), (7, "deleted", "bid", 100, 0), BOOK, empty)
    )
    assert facts(flow)[3:] == [("N", 0, 0, 0, 0, 128, 2), ("N", 0, 0, 0, 0, 128, 3)]
    none = hftlab.UNDEF_PRICE
    assert pl.from_arrow(flow.extras["order_book"]()).drop("ts").rows() == [
        (
            3,
            "BTCUSD",
            [236_470_000_000, 236_200_000_000],
            [COIN * 3 // 2, 1],
            [236_640_000_000, none],
            [2 * COIN, 0],
        ),
        (4, "BTCUSD", [none] * 2, [0] * 2, [none] * 2, [0] * 2),
    ]


GOOD = as_log(TS, 7, "created", "bid", 23647, 5)


@pytest.mark.parametrize(
    ("line", "found", "expected"),
    [
        ("", "''", "milliseconds, event, JSON object"),
        (GOOD[1:-1], None, "milliseconds, event, JSON object"),
        (
            GOOD.replace("1430438404518", "9223372036855"),
            "time 9223372036855",
            "milliseconds up to 9223372036854",
        ),
        (
            GOOD.replace("order_created", "order_lost"),
            "event 'order_lost'",
            "one of order_created, order_changed, order_deleted, trade, order_book",
        ),
        (GOOD.replace(": 7", ": 7,"), None, "a JSON object"),
        (GOOD.replace(": 7", ": 18446744073709551616"), "id 18446744073709551616", None),
        (GOOD.replace(": 7", ": true"), "id True", None),
        (GOOD.replace(": 7", ': "7"'), "id '7'", None),
        (GOOD.replace('"id"', '"di"'), "id None", None),
        (GOOD.replace("236.47", "236,47"), "price '236,47'", "price: a decimal of at most 9 places"),
        (GOOD.replace("236.47", "-1"), "price '-1'", "price: a decimal of at most 9 places"),
        (
            GOOD.replace("236.47", "9223372036.9"),
            "price '9223372036.9'",
            "price: at most 9223372036",
        ),
        (
            GOOD.replace('"236.47"', "1e300"),
            "price Decimal('1E+300')",
            "price: a decimal of at most 9 places",
        ),
        (GOOD.replace('"236.47"', "NaN"), "price nan", "price: a decimal of at most 9 places"),
        (GOOD.replace('"236.47"', "[" * 400 + "]" * 400), None, "price: a decimal of at most 9 places"),
        (GOOD.replace("00005", "000051"), "amount '0.000000051'", "amount: a decimal of at most 8 places"),
        (GOOD.replace('type": 0', 'type": 2'), "order_type 2", "order_type: an integer up to 1"),
        (BOOK.replace('"2"', '"x"'), "amount 'x'", "amount: a decimal of at most 8 places"),
        (
            BOOK.replace('["236.64", "2"]', '["236.64"]'),
            "asks [['236.64']]",
            "asks: pairs of price and amount",
        ),
        (BOOK.replace("], [", "][", 1), None, "a JSON object"),
        (BOOK.replace("bids", "bid"), "bids None", "bids: pairs of price and amount"),
    ],
)
def test_a_damaged_line(tmp_path, line, found, expected):
    """It is told with its row, and what is whole before and after is there."""
    flow = open_flow(write_log(tmp_path, GOOD, line, GOOD.replace(": 7", ": 8")))
    assert facts(flow, "order_id", "sequence") == [(7, 0), (8, 2)]
    (fault,) = flow.faults
    assert (fault.where, fault.count) == ("line 2", 1)
    assert fault.found == found or found is None
    assert fault.expected == (expected or "id: an integer up to 18446744073709551615")
    assert flow.extras["order_book"]().num_rows == 0


def test_damage_is_counted_by_kind(tmp_path):
    """The first of each kind stands for the others."""
    flow = open_flow(write_log(tmp_path, "x", GOOD, "y" * 100, GOOD.replace("236", "x")))
    assert flow.faults == [
        Fault("line 1", "'x'", "milliseconds, event, JSON object", 2),
        Fault("line 4", "price 'x.47'", "price: a decimal of at most 9 places", 1),
    ]


@pytest.mark.parametrize("line", [GOOD, trade(1, 236.47, 0.5), BOOK])
def test_a_log_truncated_at_every_byte_of_its_last_line(tmp_path, line):
    """What precedes is delivered, and the rest is a fault."""
    for size in range(1, len(line)):
        (path := tmp_path / LOG).write_text(f"{GOOD}\n{line[:size]}")
        flow = open_flow(path)
        assert (flow.num_rows, [fault.where for fault in flow.faults]) == (1, ["line 2"])
    path.write_text(f"{GOOD}\r\n{line}")
    assert (open_flow(path).num_rows, open_flow(path).faults) == (2, [])


def test_a_log_that_ends_early(tmp_path):
    """A compressed log cut in the middle delivers what is whole, and says so."""
    packed = lzma.compress(
        "".join(f"{as_log(TS + n, n, 'created', 'bid', n, n)}\n" for n in range(9999)).encode()
    )
    (path := tmp_path / f"{LOG}.xz").write_bytes(packed[: len(packed) // 2])
    flow = open_flow(path)
    assert 0 < flow.num_rows < 9999
    assert flow.faults[-1].found == "broken xz data (ends early)"
    assert flow.extras["order_book"]().num_rows == 0


@pytest.mark.parametrize("name", [CSV, LOG])
def test_a_bad_checksum(tmp_path, name):
    """Is an error in either form."""
    rows = [(n, "created", "bid", 100, n) for n in range(100)]
    path = write(tmp_path, *rows) if name == CSV else write_log(tmp_path, *rows)
    packed = bytearray(gzip.compress(path.read_bytes()))
    packed[-8] ^= 0xFF
    (path := tmp_path / f"{name}.gz").write_bytes(packed)
    with pytest.raises(FormatError, match="broken gzip data"):
        open_flow(path)


def test_a_log_without_an_event(tmp_path):
    """Is of another format."""
    with pytest.raises(FormatError) as caught:
        open_flow(write_log(tmp_path, "", GOOD.replace("236.47", "x")))
    said = "found '', expected an event of a Bitstamp log (milliseconds, event, JSON object)"
    assert str(caught.value) == f"{tmp_path / LOG}, line 1: {said}"


def test_a_line_that_never_ends(tmp_path, monkeypatch):
    """Is one damaged line, of which the beginning is kept."""
    monkeypatch.setattr(log_files, "LONGEST_LINE", 100)
    long = '{"a": "' + "x" * (containers.BLOCK_BYTES * 2)
    flow = open_flow(write_log(tmp_path, GOOD, f"{TS} trade {long}", GOOD))
    assert facts(flow, "sequence") == [(0,), (2,)]
    assert [fault.where for fault in flow.faults] == ["line 2"]


# ------------------------------------------------------------------ the CSV's damage

ROW = as_csv(TS, 7, "created", "bid", 23647, 5)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("", f"found 1 field, expected 7 ({HEADER.replace(',', ', ')})"),
        (f"{ROW},1", f"found 8 fields, expected 7 ({HEADER.replace(',', ', ')})"),
        (f"x{ROW}", "found id 'x7', expected an integer of 64 bits"),
        (f"1844674407370955161{ROW}", "found id '18446744073709551617', expected an integer of 64 bits"),
        (
            ROW.replace(str(TS), "9223372036855"),
            "found timestamp '9223372036855', expected milliseconds since 1970",
        ),
        (
            ROW.replace("236.47", "2e2"),
            "found price '2e2', expected dollars with at most 9 decimals, up to 9223372036",
        ),
        (
            ROW.replace("236.47", "9223372036.9"),
            "found price '9223372036.9', expected dollars with at most 9",
        ),
        (
            ROW.replace("236.47", "1.1234567891"),
            "found price '1.1234567891', expected dollars with at most 9",
        ),
        (ROW.replace("236.47", "-1"), "found price '-1', expected dollars with at most 9 decimals"),
        (ROW.replace(",5,", ",5.0,"), "found volume '5.0', expected satoshi, an integer of 63 bits"),
        (ROW.replace(",5,", ",9223372036854775808,"), "found volume '9223372036854775808', expected satoshi"),
        (ROW.replace(",5,", ",-5,"), "found volume '-5', expected satoshi, an integer of 63 bits"),
        (ROW.replace("created", "lost"), "found action 'lost', expected created or changed or deleted"),
        (ROW.replace("created", "Created"), "found action 'Created', expected created or changed or deleted"),
        (ROW.replace("bid", "bids"), "found direction 'bids', expected bid or ask"),
        (ROW.replace("bid", '"bid"'), "found direction '\"bid\"', expected bid or ask"),
        (ROW.replace("7,", "\xff,", 1), "found id 'Ã¿', expected an integer of 64 bits"),
        (f"{ROW}\r{ROW}", f"found 13 fields, expected 7 ({HEADER.replace(',', ', ')})"),
    ],
)
def test_the_first_damaged_row(tmp_path, row, said):
    """A CSV is a table: an error with file, row, found, expected."""
    with pytest.raises(FormatError) as caught:
        open_flow(write(tmp_path, ROW, ROW, row, ROW))
    assert str(caught.value).startswith(f"{tmp_path / CSV}, line 4: {said}")


def test_fields_at_their_limits(tmp_path):
    """The largest id, time, price and volume there are."""
    row = f"{2**64 - 1},9223372036854,0,9223372036.854775807,{2**63 - 1},created,ask"
    assert fast(open_flow(write(tmp_path, row))) == [("A", -1, 2**63 - 1, 2**63 - 1, 2**64 - 1, 0)]
    assert fast(open_flow(write(tmp_path, "0,0,0,0.000000001,0,created,bid"))) == [("A", 1, 1, 0, 0, 0)]
    line = GOOD.replace(": 7", f": {2**64 - 1}").replace("236.47", "9223372036.854775807")
    assert fast(open_flow(write_log(tmp_path, line))) == [("A", 1, 2**63 - 1, 5, 2**64 - 1, 0)]


def test_columns_in_another_order(tmp_path):
    """The header says which is which."""
    names = HEADER.split(",")[::-1]
    row = ",".join(ROW.split(",")[::-1])
    (path := tmp_path / CSV).write_text(f"{','.join(names)}\r\n{row}\r\n")
    assert facts(open_flow(path)) == [("A", 1, 23647, 5, 7, 128, 0)]
    path.write_text(f"{','.join(names)}\n{row}\n{row}x\n")
    with pytest.raises(FormatError, match="line 3: found id '7x'"):
        open_flow(path)


def test_a_csv_truncated_at_every_byte_of_its_last_row(tmp_path):
    """Is an error in that row, until nothing of it is missing but its end."""
    for size in range(1, len(ROW)):
        (path := tmp_path / CSV).write_text(f"{HEADER}\n{ROW}\n{ROW[:size]}")
        with pytest.raises(FormatError, match="line 3: found"):
            open_flow(path)
    path.write_text(f"{HEADER}\n{ROW}\n{ROW}")
    assert open_flow(path).num_rows == 2


def test_a_csv_without_rows(tmp_path):
    """A header alone is an empty table; nothing at all is no table."""
    for end in ("", "\n", "\r\n"):
        (path := tmp_path / CSV).write_bytes(f"{HEADER}{end}".encode())
        assert open_flow(path).num_rows == 0
    path.write_text("")
    with pytest.raises(FormatError, match="an empty file"):
        open_flow(path, format="bitstamp")


@pytest.mark.parametrize(
    "content", [b"id,timestamp\n1,2\n", b"\n", b"{}\n", b"\x00\x01\x02", b"34200.5,1,7,1,1,1\n"]
)
def test_another_format(tmp_path, content):
    """Under this format's name, or asked for as this format: an error in row 1."""
    (path := tmp_path / CSV).write_bytes(content)
    with pytest.raises(FormatError, match="line 1: found the columns"):
        open_flow(path, format="bitstamp")
    assert not feed.sniff(path, content)


# ------------------------------------------------------------------ the slow twin agrees


EVENTS = st.tuples(
    st.integers(1, 5),
    st.sampled_from(["created", "changed", "changed", "deleted", "deleted"]),
    st.sampled_from(["bid", "ask"]),
    st.integers(99, 101),
    st.sampled_from([0, 0, 1, 2, 5, 6, 7, 10]),
)
STEPS = st.sampled_from([0, 0, 1, 500, 1001, -700])


@st.composite
def streams(draw):
    """Events at times that mostly go on."""
    rows, ts = draw(st.lists(st.tuples(EVENTS, STEPS), max_size=25)), TS
    return [(ts := ts + step, *event) for event, step in rows]


@settings(max_examples=300)
@given(streams())
def test_any_events_as_csv(tmp_path_factory, events):
    """Whatever the order of events."""
    path = tmp_path_factory.mktemp("any") / CSV
    path.write_text(data := "".join(f"{line}\n" for line in [HEADER, *(as_csv(*event) for event in events)]))
    expected = slow_csv(data)
    assert fast(open_flow(path)) == slow(expected, is_log=False)
    assert fast(open_flow(path, drop_ghosts=True)) == slow(expected, is_log=False, drop_ghosts=True)


@settings(max_examples=300)
@given(streams(), st.lists(st.tuples(st.integers(0, 30), st.integers(99, 101), st.sampled_from([1, 2, 5]))))
def test_any_events_as_log(tmp_path_factory, events, trades):
    """The same with trades anywhere."""
    lines = [as_log(TS - 2000, 99, "created", "bid", 1, 1), *(as_log(*event) for event in events)]
    for place, cents, volume in trades:
        at = min(place, len(lines))
        ts = int(lines[at - 1].split(" ")[0])
        lines.insert(at, f'{ts} trade {{"price": {cents / 100}, "amount": {volume / COIN:.8f}, "id": 1}}')
    path = tmp_path_factory.mktemp("any") / LOG
    path.write_text("".join(f"{line}\n" for line in lines))
    expected = slow_log(path.read_bytes())[0]
    assert fast(open_flow(path)) == slow(expected, is_log=True)
    assert fast(open_flow(path, drop_ghosts=True)) == slow(expected, is_log=True, drop_ghosts=True)


EDITS = st.lists(
    st.tuples(st.integers(0, 3000), st.sampled_from("=+-"), st.binary(min_size=1, max_size=3)), max_size=6
)


def damage(data, edits):
    """Bytes changed, inserted and taken out."""
    data = bytearray(data)
    for place, how, found in edits:
        place %= len(data) + 1
        data[place : place + (0 if how == "+" else len(found))] = b"" if how == "-" else found
    return bytes(data)


def is_text(path):
    """Whether damage doesn't happen to look like a container."""
    try:
        return containers.container(path) == "text"
    except FormatError:
        return False


@settings(max_examples=300)
@given(streams(), EDITS)
def test_any_damage_to_a_csv(tmp_path_factory, events, edits):
    """The first row that is damaged is named, or everything is as the slow twin has it."""
    path = tmp_path_factory.mktemp("any") / CSV
    text = "".join(f"{line}\n" for line in [HEADER, *(as_csv(*event) for event in events)])
    path.write_bytes(data := damage(text.encode(), edits))
    expected = slow_csv(data.decode("latin-1"))
    names = data.decode("latin-1").split("\n")[0].removesuffix("\r")
    if not is_text(path) or names != HEADER:
        expected = 1
    if isinstance(expected, list):
        assert fast(open_flow(path, format="bitstamp")) == slow(expected, is_log=False)
        return
    with pytest.raises(FormatError) as caught:
        open_flow(path, format="bitstamp")
    assert caught.value.row == expected or expected == 1


@settings(max_examples=300)
@given(streams(), EDITS)
def test_any_damage_to_a_log(tmp_path_factory, events, edits):
    """A fault for every line that is none, and the others as the slow twin has them."""
    path = tmp_path_factory.mktemp("any") / LOG
    text = "".join(
        f"{line}\n" for line in [GOOD, BOOK, trade(1, 1.01, 0.00000005), *(as_log(*e) for e in events)]
    )
    path.write_bytes(data := damage(text.encode(), edits))
    expected, damaged = slow_log(data)
    if not expected or not is_text(path) or not log_files.is_log(data):
        with pytest.raises(FormatError):
            open_flow(path, format="bitstamp")
        return
    flow = open_flow(path, format="bitstamp")
    assert fast(flow) == slow(expected, is_log=True)
    assert sum(fault.count for fault in flow.faults) == len(damaged)
    assert [fault.where for fault in flow.faults[:1]] == [f"line {row:,}" for row in damaged[:1]]
    assert flow.extras["order_book"]().num_rows == sum(event[2] == "order_book" for event in expected)


# ------------------------------------------------------------------ the real day


@pytest.fixture(scope="module")
def orders(data_dir):
    """The CSV of the sample day."""
    return open_flow(data_dir / "bitstamp" / f"{CSV}.xz")


@pytest.fixture(scope="module")
def log(data_dir):
    """Its raw log."""
    return open_flow(data_dir / "bitstamp" / f"{LOG}.xz")


def test_the_day_is_the_slow_twin_s(orders, log, data_dir):
    """All 50,414 events of the CSV, and all 56,000 lines of the log."""
    events = slow_csv(containers.read(data_dir / "bitstamp" / f"{CSV}.xz").decode())
    assert len(events) == 50_414
    assert fast(orders) == slow(events, is_log=False)
    events, damaged = slow_log(containers.read(data_dir / "bitstamp" / f"{LOG}.xz"))
    assert (len(events), damaged, log.faults) == (56_000, [], [])
    assert fast(log) == slow(events, is_log=True)


def test_what_is_known_of_the_day(orders, log):
    """208 deletions and 5 changes name orders that are not open, and nothing else is wrong with the book."""
    expected = [
        LOT_NOTE,
        "deletions of orders that are not open: 208",
        "changes of orders that are not open: 5",
        "orders created after their deletion was told (N): 5",
        "changes of price, told as M (market orders that follow the book): 36",
        "executions of which only one order was told: 6",
    ]
    assert orders.notes == log.notes == expected
    for flow in (orders, log):
        rejects = hftlab.replay(flow, mode="rebuild", record=("rejects",)).rejects
        assert rejects["reason"].cast(pl.String).unique().to_list() == ["UNKNOWN_ORDER"]
        rejected = [facts(flow, "action", "sequence")[seq] for seq in rejects["seq"].to_list()]
        assert len(rejected) == len({sequence for _, sequence in rejected}) == 208 + 5


def test_csv_and_log_tell_the_same(orders, log):
    """Order by order the same facts but for satoshi the CSV cut off, and the one execution the log doubts."""
    ours, theirs = (
        [(a, order, size) for a, order, size in facts(flow, "action", "order_id", "size") if a in "AMCF"]
        for flow in (orders, log)
    )
    doubted = ("F", 65610664, 320_000_000)
    assert doubted in ours
    assert doubted not in theirs
    ours.remove(doubted)
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    assert max(abs(a[2] - b[2]) for a, b in zip(ours, theirs, strict=True)) == 1


def test_every_trade_has_its_maker(log):
    """All 575 trades are told by an F of their price, 570 name the taker too; so none is left for a T."""
    trades = pl.from_arrow(log.extras["trades"]())
    assert len(trades) == 575
    assert trades.filter(pl.col("maker_order_id") == 0).is_empty()
    assert (trades["taker_order_id"] > trades["maker_order_id"]).sum() == 570
    counts = Counter(facts(log, "action"))
    assert (counts[("F",)], counts[("T",)]) == (575, 0)


def test_the_kernels_rebuild_the_same_book(orders):
    """The book at the end is that of a dict of orders, with its queue order."""
    book = {}
    for turn, (action, side, price, size, order_id, _) in enumerate(fast(orders)):
        if action == "A":
            book[order_id] = [side, price, turn, size]
        elif order_id in book and action == "C":
            book[order_id][3] -= size
            if book[order_id][3] <= 0:
                del book[order_id]
        elif order_id in book and action == "M":
            keeps = book[order_id][1] == price and size <= book[order_id][3]
            book[order_id] = [side, price, book[order_id][2] if keeps else turn, size]
    expected = {}
    for order_id, (side, price, _, size) in sorted(book.items(), key=lambda order: order[1][2]):
        expected.setdefault((side, price), []).append((order_id, size))
    queues = hftlab.replay(orders, mode="rebuild").book.group_by("side", "price", maintain_order=True)
    found = {
        (side, price): list(zip(ids, sizes, strict=True))
        for side, price, ids, sizes in queues.agg("order_id", "qty").rows()
    }
    assert found == expected
    assert sum(map(len, found.values())) == 179


def test_the_published_books_agree(log):
    """Best bid and ask, price and volume, equal the venue's own book in 4,957 and 5,005 of 5,011 moments."""
    published = (
        pl.from_arrow(log.extras["order_book"]()).with_columns(pl.col("seq").cast(pl.Int64)).sort("seq")
    )
    depth = hftlab.replay(log, mode="rebuild", record=()).depth(20)
    both = published.join_asof(depth, on="seq", suffix="_rebuilt")
    equal = {}
    for side in ("bid", "ask"):
        pairs = [(both[f"{side}_{what}"], both[f"{side}_{what}_rebuilt"]) for what in ("px", "sz")]
        same = np.logical_and(*(ours.to_numpy() == theirs.to_numpy() for ours, theirs in pairs))
        equal[side] = (int(same[:, 0].sum()), int(same.all(axis=1).sum()))
    assert len(both) == 5011
    assert equal == {"bid": (4957, 4083), "ask": (5005, 2140)}
