"""The profiler measures what it says: every command once, stalls where they are, the results untouched."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest

import hftlab
from hftlab import schema
from hftlab.codes import PRICE_SCALE, Action, BookState
from hftlab.engine.live_books import Venue
from hftlab.errors import UsageError
from hftlab.kernels.primitives.compile import DISABLED
from hftlab.latency import recorded
from hftlab.latency.clock import calibrate
from hftlab.latency.histogram import read_hlog
from hftlab.latency.profiler import LONGEST_IDLE_NS, arrival_ticks
from tests.helpers.interruptions import uninterrupted
from tests.helpers.slices import fewer

ROWS = fewer(20_000, plain=50)
RATE, STALL_NS = (2_000, 20_000_000) if DISABLED else (200_000, 1_000_000)
STALLED = ROWS // 4
DUE = fewer(200, plain=5)  # commands that come due during a stall


@pytest.fixture(scope="module")
def flow():
    return hftlab.generate(messages=ROWS, symbols=2, seed=11)


@pytest.fixture(scope="module")
def profiler():
    return hftlab.LatencyProfiler()


@pytest.fixture(scope="module")
def stall_ns(flow, profiler):
    """A stall that is long beside a command, whatever a command takes on this machine."""
    usual = hftlab.profile(flow, profiler=profiler, stages=True).service.percentile(50)
    return max(STALL_NS, 50 * int(usual))


def spans(table: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When each sampled command was due, started and ended, in ns."""
    return tuple(table[f"ts_{name}"].cast(pl.Int64).to_numpy() for name in ("intended", "start", "end"))


def effect(status: str, filled: int) -> str:
    """What the outcomes table tells of a command."""
    if status == "REJECTED":
        return "REJECTED"
    if filled:
        return "TRADED"
    return {"RESTING": "RESTED", "REPLACED": "RESTED", "CANCELLED": "REMOVED", "EXPIRED": "REMOVED"}.get(
        status, "NOTHING"
    )


def counted(result, actions) -> Counter:
    outcomes = result.outcomes
    rows = zip(actions, outcomes["status"].to_list(), outcomes["filled_qty"].to_list(), strict=True)
    return Counter((action, effect(status, filled)) for action, status, filled in rows)


def actions_of(flow) -> list[str]:
    return [str(a) for a in pl.from_arrow(flow)["action"].to_list()]


@pytest.mark.parametrize("limit", [None, 50])
def test_every_command_is_counted_once_by_type_and_effect(flow, profiler, limit):
    """Counts by event type and effect are those of the outcomes, refusals of a gate too; the digest is that
    of a replay.
    """
    limits = limit and hftlab.Limits(max_order_qty=limit)
    measured = hftlab.profile(flow, profiler=profiler, limits=limits)
    result = hftlab.replay(flow, limits=limits)
    assert measured.digest == result.digest
    assert measured.summary()["gate"] is (limit is not None)
    assert (measured.digest == hftlab.replay(flow).digest) is (limit is None)
    assert {name: service.count for name, (service, _) in measured.cells.items()} == counted(
        result, actions_of(flow)
    )
    assert measured.service.count == ROWS
    assert measured.summary()["outside"] == 0
    assert measured.response is None
    assert len({action for action, _ in measured.cells}) >= 3


def found_by_each(result, table, tick) -> Counter:
    """(action, state of the book it found) of a flow that starts with empty books, from the `l1` table."""
    changes = result.l1.sort("seq", maintain_order=True).partition_by("seq", as_dict=True)
    state, counts = {}, Counter()
    for seq, (action, symbol) in enumerate(pl.from_arrow(table).select("action", "symbol").iter_rows()):
        counts[str(action), state.get(symbol, "EMPTY")] += 1
        for row in changes[seq,].iter_rows(named=True) if (seq,) in changes else ():
            sides = (row["bid_ct"] > 0) + (row["ask_ct"] > 0)
            two = "TIGHT" if sides == 2 and row["ask_px"] - row["bid_px"] <= tick else "WIDE"
            state[row["symbol"]] = ("EMPTY", "ONE_SIDED", two)[sides]
    return counts


def counts_of(histograms) -> Counter:
    return Counter({name: service.count for name, (service, _) in histograms.items()})


def test_every_command_is_counted_by_the_book_it_finds(flow, profiler):
    """Empty, one side, a spread of a tick or a wider one: as the touch tells that was there before."""
    price = pl.from_arrow(flow)["price"].unique().sort().diff().drop_nulls()
    tick = int(np.gcd.reduce(price.filter(price > 0).to_numpy()))
    result = hftlab.replay(flow, record=("fills", "outcomes", "l1"))
    measured = hftlab.profile(flow, profiler=profiler)
    assert counts_of(measured.states) == found_by_each(result, flow, tick)
    assert {state for _, state in measured.states} == set(BookState.__members__)
    untold = hftlab.profile(flow, profiler=profiler, touch=False)
    assert counts_of(untold.states) == counts_of(measured.states)


STORY = [  # account 1 pays 100 of its 100 for 10 ES; at second 1 they are worth 90, and its bid in NQ goes
    (0, "ES", "NEW", 1, -1, 10, 10, 2),
    (0, "ES", "NEW", 2, 1, 10, 10, 1),
    (0, "ES", "NEW", 3, -1, 9, 1, 2),
    (0, "ES", "NEW", 4, 1, 9, 1, 3),
    (0, "NQ", "NEW", 5, 1, 5, 2, 1),
    (10**9, "ES", "NEW", 7, 1, 7, 1, 4),
    (10**9, "NQ", "CANCEL", 9, 1, 0, 0, 2),
]


@pytest.mark.parametrize("touch", [True, False])
def test_a_book_that_the_gate_has_emptied_is_found_empty(profiler, touch):
    """A stop loss closes what an account has in another symbol: the next command there meets nothing."""
    columns = ("ts", "symbol", "action", "order_id", "side", "price", "qty", "account")
    orders = pl.DataFrame(STORY, dict.fromkeys(columns), orient="row")
    orders = orders.with_columns(pl.col("price") * PRICE_SCALE)
    keys = {"capital": "100", "stop_loss_percentage": "10", "stop_loss_action": "close"}
    limits = hftlab.Limits(**keys)
    options = {"profiler": profiler, "tick_size": PRICE_SCALE, "touch": touch}
    stopped = hftlab.profile(orders, limits=limits, stages=True, **options)
    assert stopped.states["CANCEL", "EMPTY"][0].count == 1
    assert hftlab.profile(orders, **options).states["CANCEL", "ONE_SIDED"][0].count == 1


@pytest.mark.parametrize("gated", [False, True])
def test_stages_add_up_to_the_whole_command(flow, profiler, gated):
    """Every command counts in every stage; a sample's stages follow one another from its start to its end."""
    limits = hftlab.Limits.from_settings({"max_order_qty": 50}, {}) if gated else None
    measured = hftlab.profile(flow, profiler=profiler, limits=limits, stages=True, samples=ROWS)
    assert measured.digest == hftlab.replay(flow, limits=limits).digest
    names = ["LOOKUP", "RISK", "MATCH", "PUBLISH"] if gated else ["LOOKUP", "MATCH", "PUBLISH"]
    actions = Counter(actions_of(flow))
    assert {name: h.count for name, h in measured.stages.items()} == {
        (action, stage): count for action, count in actions.items() for stage in names
    }
    assert measured.to_frame("stage")["event_type"].to_list() == [
        *(action for action in sorted(actions) for _ in names),
        "ALL",
    ]
    table = measured.latency
    assert table["stage"].to_list() == ["COMMAND", "LOOKUP", "RISK", "MATCH", "PUBLISH"] * ROWS
    whole, *parts = (table[place::5] for place in range(5))
    assert (whole["ts_start"] == parts[0]["ts_start"]).all()
    for before, after in itertools.pairwise(parts):
        assert (before["ts_end"] == after["ts_start"]).all()
    assert (whole["ts_end"] == parts[-1]["ts_end"]).all()
    assert all((part["ts_end"] >= part["ts_start"]).all() for part in parts)
    assert ((parts[1]["ts_end"] - parts[1]["ts_start"]).sum().total_seconds() > 0) == gated
    readings = measured.summary()["readings_per_command"]
    assert (3.9 if gated else 3) <= readings <= (6 if gated else 3)


def test_threads_measure_side_by_side_and_their_latencies_add_up(flow, profiler, tmp_path):
    """A symbol for each thread: together they have counted every command once, with the figures of both."""
    frame = pl.from_arrow(flow)
    tapes = [hftlab.compile_tape(frame.filter(symbol=symbol)) for symbol in ("SYM000", "SYM001")]
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda tape: profiler.run(tape, stages=True, rate=RATE), tapes))
    merged = recorded.merge(parts)
    assert counts_of(merged.cells) == counted(hftlab.replay(flow), actions_of(flow))
    assert counts_of(merged.states) == counts_of(parts[0].states) + counts_of(parts[1].states)
    assert merged.service.count == merged.response.count == ROWS
    assert merged.response.max == max(part.response.max for part in parts)
    assert merged.service.min == min(part.service.min for part in parts)
    together = hftlab.Histogram().merge(parts[0].service).merge(parts[1].service)
    assert np.array_equal(merged.service.counts, together.counts)
    assert sum(h.count for h in merged.stages.values()) == 3 * ROWS
    assert f"{ROWS:,} commands, response" in repr(merged)
    tags = Counter(tag.split(".")[0] for tag, *_ in read_hlog(merged.write_hlog(tmp_path / "m.hlog")))
    assert tags == {"SERVICE": len(merged.cells), "RESPONSE": len(merged.cells), "STAGE": len(merged.stages)}


def test_latencies_that_differ_in_kind_are_not_added_up(flow, profiler):
    """Service alone and responses, other layouts, none at all: one line that says what differs."""
    closed = hftlab.profile(flow, profiler=profiler, rows=100)
    opened = hftlab.profile(flow, profiler=profiler, rows=100, rate=RATE)
    coarse = hftlab.profile(flow, profiler=hftlab.LatencyProfiler(profiler.clock, digits=2), rows=100)
    with pytest.raises(UsageError, match="found open loop True, expected False"):
        recorded.merge([closed, opened])
    with pytest.raises(UsageError, match="found digits 2, expected 3"):
        recorded.merge([closed, coarse])
    with pytest.raises(UsageError, match="found none"):
        recorded.merge([])


def test_a_stall_is_found_in_its_stage(flow, profiler, stall_ns):
    """The row that is held up is held up where it would publish: no other stage takes as long."""

    def stage_times():
        measured = hftlab.profile(
            flow, profiler=profiler, stages=True, samples=ROWS, inject=(STALLED, stall_ns)
        )
        held = measured.latency.filter(pl.col("seq") == STALLED)
        took = dict(zip(held["stage"], (held["ts_end"] - held["ts_start"]).cast(pl.Int64), strict=True))
        assert took["COMMAND"] >= took["PUBLISH"] >= stall_ns - 1
        longest = max(h.max for (_, stage), h in measured.stages.items() if stage == "PUBLISH")
        assert longest >= stall_ns - 1
        return took

    runs = (stage_times() for _ in uninterrupted())
    assert any(took["PUBLISH"] > took["LOOKUP"] + took["MATCH"] for took in runs)


def test_stages_are_measured_only_when_asked_for(flow, profiler):
    """Else a command contains one reading, and there is nothing to tell of stages."""
    measured = hftlab.profile(flow, profiler=profiler)
    assert measured.stages == {}
    assert measured.summary()["readings_per_command"] == 1
    with pytest.raises(UsageError, match="by: found 'stage', expected a profile with stages=True"):
        measured.to_frame("stage")
    with pytest.raises(UsageError, match="by: found 'colour', expected one of effect, state, stage"):
        measured.to_frame("colour")


def stalled(flow, profiler, stall_ns):
    """A run under a rate at which DUE commands come due while one is held up."""
    how = {"rate": DUE / (stall_ns / 1e9), "inject": (STALLED, stall_ns), "samples": ROWS}
    return hftlab.profile(flow, profiler=profiler, **how)


def test_a_stall_shows_in_every_response_behind_it(flow, profiler, stall_ns):
    """All that were due meanwhile are late by what was left of it; it is in the service of one only."""
    measured = stalled(flow, profiler, stall_ns)
    intended, start, end = spans(measured.latency)
    assert end[STALLED] - start[STALLED] >= stall_ns - 1
    assert (start[1:] >= end[:-1]).all()  # so nothing of the stall is in another's service
    meanwhile = (intended > intended[STALLED]) & (intended <= end[STALLED])
    assert meanwhile.sum() >= DUE - 1
    assert (start[meanwhile] >= end[STALLED]).all()
    late = measured.response.to_frame().filter(pl.col("lowest") > stall_ns // 2)["count"].sum()
    assert late >= 0.4 * DUE
    assert measured.response.percentile(100 * (1 - DUE / ROWS / 4)) > stall_ns / 2
    assert measured.digest == hftlab.replay(flow).digest


def test_service_time_tells_of_a_stall_once(flow, profiler, stall_ns):
    """Of the many that are late behind it few took long themselves."""
    for _ in uninterrupted():
        measured = stalled(flow, profiler, stall_ns)
        late, slow = (
            histogram.to_frame().filter(pl.col("lowest") > stall_ns // 2)["count"].sum()
            for histogram in (measured.response, measured.service)
        )
        assert slow >= 1
        if slow < late / 4:
            return
    pytest.fail(f"{slow} of {late} late commands took long")


def test_the_list_of_stalls_has_the_longest_services(flow, profiler, stall_ns):
    """By duration, with row and input row; a command that was held up is among them or shorter than all."""
    measured = stalled(flow, profiler, stall_ns)
    _, start, end = spans(measured.latency)
    listed, services = measured.stalls.sort("duration_ns"), end - start
    assert listed["seq"].to_list() == listed["row"].to_list()
    assert listed["duration_ns"].to_numpy() == pytest.approx(np.sort(services)[-listed.height :], abs=1)
    assert listed["duration_ns"].to_numpy() == pytest.approx(services[listed["row"].to_numpy()], abs=1)
    assert STALLED in listed["row"] or listed["duration_ns"].min() >= services[STALLED] - 1


def test_without_a_stall_the_list_does_not_have_one(flow, profiler, stall_ns):
    """The row that was held up is unremarkable when it isn't."""
    runs = (hftlab.profile(flow, profiler=profiler, warmup=0).stalls for _ in uninterrupted())
    struck = (pl.col("row") == STALLED) & (pl.col("duration_ns") > stall_ns)
    assert any(stalls.filter(struck).height == 0 for stalls in runs)


def test_responses_are_never_shorter_than_services(flow, profiler):
    """A command starts when it is due or later: per command, and so for every percentile."""
    measured = hftlab.profile(flow, profiler=profiler, rate=RATE, arrivals="poisson", seed=3, samples=ROWS)
    table = measured.latency
    assert table.height == ROWS
    assert (table["ts_intended"] <= table["ts_start"]).all()
    assert (table["ts_start"] <= table["ts_end"]).all()
    for percent in (1, 50, 99, 100):
        assert measured.response.percentile(percent) >= measured.service.percentile(percent)
    assert measured.seconds >= 0.8 * ROWS / RATE


def test_the_latency_table_has_the_schema_and_size_agreed_on(flow, profiler):
    """Evenly spread rows, no more than asked for; services of the table are those of the histogram."""
    measured = hftlab.profile(flow, profiler=profiler, samples=99)
    table = measured.latency_table()
    assert table.schema.equals(schema.LATENCY, check_metadata=True)
    seqs = table["seq"].to_pylist()
    every = -(-ROWS // 99)
    assert seqs == list(range(0, ROWS, every))
    assert len(seqs) <= 99
    actions = actions_of(flow)
    assert table["event_type"].to_pylist() == [actions[row] for row in seqs]
    assert set(table["stage"].to_pylist()) == {"COMMAND"}
    frame = measured.latency
    spans = (frame["ts_end"] - frame["ts_start"]).cast(pl.Int64)
    assert spans.max() <= measured.service.max + 1
    assert hftlab.profile(flow, profiler=profiler, warmup=0).latency.height == 0


def test_a_row_that_needs_room_is_counted_once(profiler, monkeypatch):
    """Thousands of resting orders make the books grow in the middle: growth is part of a row's time."""
    rows, growth_s = 3_000, 0.02
    orders = {
        "action": ["NEW"] * rows,
        "order_id": np.arange(1, rows + 1, dtype=np.uint64),
        "side": np.ones(rows, np.int8),
        "price": np.full(rows, 1_000_000_000),
        "qty": np.ones(rows, np.int64),
    }
    grow, grown = Venue.grow_slots, []

    def slowly(venue):
        grown.append(time.sleep(growth_s))
        return grow(venue)

    monkeypatch.setattr(Venue, "grow_slots", slowly)
    measured = hftlab.profile(orders, profiler=profiler, samples=rows, warmup=0)
    assert measured.cells["NEW", "RESTED"][0].count == rows
    assert measured.digest == hftlab.replay(orders).digest
    _, start, end = spans(measured.latency)
    grew = np.array([1024, 2048])
    assert len(grown) == len(grew)
    assert ((end - start)[grew] >= 0.99e9 * growth_s).all()
    assert max(measured.stalls["duration_ns"]) >= 0.99e9 * growth_s


def test_the_risk_gate_is_measured_too(flow, profiler):
    """With limits the rejects are theirs, and the digest that of a gated replay."""
    limits = hftlab.Limits.from_settings({"max_order_qty": 50}, {})
    measured = hftlab.profile(flow, profiler=profiler, limits=limits, stages=True)
    gated = hftlab.replay(flow, limits=limits)
    assert measured.digest == gated.digest != hftlab.replay(flow).digest
    assert {n: s.count for n, (s, _) in measured.cells.items()} == counted(gated, actions_of(flow))
    assert measured.summary()["gate"] is True


def test_the_system_s_clock_gives_the_same_counts(flow):
    """Where there is no counter, everything works with CLOCK_MONOTONIC_RAW."""
    portable = hftlab.LatencyProfiler(calibrate(source="system"), digits=2)
    measured = hftlab.profile(flow, profiler=portable, rate=RATE)
    assert measured.clock.counter == 0
    assert measured.service.count == measured.response.count == ROWS
    assert measured.digest == hftlab.replay(flow).digest


def test_moments_of_arrival_are_what_was_asked_for(profiler):
    """Even, random with the mean, or the flow's own times, faster by a factor; never going back."""
    clock = profiler.clock
    orders = {"ts": [0, 10**6, 5 * 10**5, 3 * 10**6], "action": ["CANCEL"] * 4, "order_id": [1, 2, 3, 4]}
    tape = hftlab.compile_tape(orders)
    ns = lambda *how: np.rint(arrival_ticks(clock, tape, *how) * clock.tick_ns)  # noqa: E731
    assert ns(None, "uniform", 0).size == 0
    assert np.allclose(ns(1e6, "uniform", 0), [0, 1_000, 2_000, 3_000], atol=1)
    assert np.allclose(ns(2.0, "flow", 0), [0, 5e5, 5e5, 1.5e6], atol=1)
    many = hftlab.compile_tape(
        {"action": ["CANCEL"] * 20_000, "order_id": np.arange(20_000, dtype=np.uint64)}
    )
    random = arrival_ticks(clock, many, 1e6, "poisson", 1)
    assert random[0] == 0
    assert (np.diff(random) >= 0).all()
    assert random[-1] * clock.tick_ns == pytest.approx(2e7, rel=0.05)
    assert not np.array_equal(random, arrival_ticks(clock, many, 1e6, "poisson", 2))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"rate": 0}, "rate: found 0"),
        ({"rate": float("nan")}, "rate: found nan"),
        ({"rate": "fast"}, "rate: found 'fast'"),
        ({"rate": 1.0, "arrivals": "bursts"}, "arrivals: found 'bursts'"),
        ({"samples": -1}, "samples: found -1"),
        ({"rows": 0}, "rows: found 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(profiler, options, why):
    """One line that names the setting, what was found and what was expected."""
    orders = {"action": ["CANCEL"], "order_id": [1]}
    with pytest.raises(UsageError, match=why):
        hftlab.profile(orders, profiler=profiler, **options)


def test_only_the_first_rows_are_measured(flow, profiler):
    """`rows` bounds a run; the actions are those of the head of the flow."""
    measured = hftlab.profile(flow, profiler=profiler, rows=ROWS // 3)
    assert measured.rows == measured.service.count == ROWS // 3
    assert measured.digest == hftlab.replay(flow.slice(0, ROWS // 3)).digest
    assert {name for name, _ in measured.cells} <= {action.name for action in Action}


def test_reports_and_files_tell_the_same(flow, profiler, tmp_path):
    """Frame, summary, page and files have the counts of the histograms; the log has a tag for each."""
    measured = hftlab.profile(flow, profiler=profiler, rate=RATE)
    frame = measured.to_frame()
    last = frame.row(-1, named=True)
    assert (last["event_type"], last["count"]) == ("ALL", ROWS)
    assert frame["count"][:-1].sum() == ROWS
    by_state = measured.to_frame("state").rows_by_key(["event_type", "state"], named=True, unique=True)
    assert by_state.pop(("ALL", "ALL"))["service_max"] == measured.service.max
    assert {name: row["count"] for name, row in by_state.items()} == counts_of(measured.states)
    assert last["response_p99_9"] == measured.response.percentile(99.9)
    assert last["service_jitter"] == measured.service.percentile(99) - measured.service.percentile(50)
    intervals = read_hlog(measured.write_hlog(tmp_path / "p.hlog"))
    assert {tag for tag, *_ in intervals} == {
        f"{kind}.{event}.{what}" for kind in ("SERVICE", "RESPONSE") for event, what in measured.cells
    }
    assert sum(h.count for tag, _, _, h in intervals if tag.startswith("RESPONSE")) == ROWS
    assert measured.write_hgrm(tmp_path / "p.hgrm").read_text() == measured.response.hgrm()
    summary = measured.summary()
    assert summary["idle"]["seconds"] >= 0.99 * min(measured.seconds, LONGEST_IDLE_NS / 1e9)
    assert 0 <= summary["waits"]["seconds"] <= measured.seconds
    assert summary["over_threshold"] <= ROWS
    assert summary["ns_per_command_unprofiled"] > 0
    assert f"{ROWS:,} commands took over 1,000 ns" in measured.verdict()
    assert measured.digest in repr(measured)
    assert "an idle loop had" in measured._repr_html_()


def test_a_program_ahead_of_its_rate_waits(flow, profiler):
    """Under a rate that is slow for this machine it waits between commands, and what it waited is told."""
    for slower in range(12):
        measured = hftlab.profile(flow, profiler=profiler, rate=RATE / 3**slower, rows=20, samples=20)
        waits = measured.summary()["waits"]["seconds"]
        if waits > 0:
            break
    _, start, end = spans(measured.latency)
    between_ns = (start[1:] - end[:-1]).sum()
    assert 0 < 1e9 * waits <= between_ns + len(start)
