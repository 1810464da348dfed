"""The risk gate of the package against its slow twin: every decision, fill, book, event, position and cent.

A failure names flow, seed and way, and shrinks the flow to the few rows that still fail. `pytest -m fuzz`
runs ten million commands; HFTLAB_FUZZ_COMMANDS says another number.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import hftlab
from hftlab.codes import GateEvent, Reason
from hftlab.errors import UsageError
from hftlab.risk_gate import manager
from tests.helpers import risk_flows
from tests.helpers.gated_package import LEVELS, limits_of, replayed
from tests.helpers.risk_flows import RiskFlow
from tests.helpers.slices import WHOLE_BUDGET, fewer, fuzz_budget
from tests.reference import frames
from tests.reference.risk_limits import InForce
from tests.reference.shrink import ddmin

SIZE = fewer(2_000)
SEEDS = range(fewer(3, plain=3))

FUZZ_SLICE = 10_000  # short, for each slice has limits of its own
AT_LEAST = 1_000  # times each reason and each event

Options = dict[str, Any]
WAYS: dict[str, Options] = {
    "batch": {},
    "event by event": {"path": "event"},
    "two threads": {"threads": 2},
    "chunks": {"chunk_rows": 331},
    "chunks, two threads": {"chunk_rows": 773, "threads": 2},
    "chunks, event by event": {"chunk_rows": 449, "path": "event"},
}
SMALL_CHUNKS = {
    f"{path}, chunks of {rows}": {"chunk_rows": rows, "path": path}
    for path in ("batch", "event")
    for rows in (1, 7)
}
NOT_OF_A_FLOW = {Reason.NONE, Reason.UNKNOWN_SYMBOL}

Frames = dict[str, pl.DataFrame]


# -- one flow through both


def difference(flow: RiskFlow, options: Options, expected: Frames | None = None) -> str | None:
    """How the package differs from the twin on that flow, or None; an exception is a difference too."""
    if expected is None:
        expected = flow.expected(depth_levels=LEVELS)
    try:
        found = replayed(flow, **options)[0]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return frames.first_difference(expected, found)


def shrunk(flow: RiskFlow, options: Options) -> RiskFlow:
    """The least of the flow that still makes a difference."""
    return flow.take(ddmin(range(len(flow)), lambda rows: difference(flow.take(rows), options) is not None))


def report(flow: RiskFlow, way: str, options: Options, first: str, folder: Path) -> str:
    """All that is needed to look into a difference."""
    small = shrunk(flow, options)
    name, seed = flow.orders.name, flow.orders.seed
    path = small.orders.write_csv(folder / f"{name}-{seed}.csv")
    return (
        f"flow {name!r}, seed {seed}, {len(flow)} commands, {way}:\n  {first}\n"
        f"shrunk to {len(small)} rows, tick {flow.orders.tick}, in {path}:\n  "
        f"{difference(small, options)}\n{path.read_text()}{small.limits} {small.lots}"
    )


def check(flow: RiskFlow, ways: dict[str, Options], folder: Path, expected: Frames | None = None) -> None:
    """Fail with a report when one of the ways differs from the twin."""
    if expected is None:
        expected = flow.expected(depth_levels=LEVELS)
    for way, options in ways.items():
        first = difference(flow, options, expected)
        if first is not None:
            pytest.fail(report(flow, way, options, first, folder), pytrace=False)


# -- seeded flows


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", risk_flows.FLOWS)
def test_every_way_decides_as_the_twin_does(name, seed, tmp_path):
    """Outcomes, fills, rejects, touch, depth, book, gate events, positions and P&L, in every way."""
    check(risk_flows.make(name, SIZE, seed), WAYS, tmp_path)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", risk_flows.FLOWS)
def test_every_way_counts_true_money_as_the_twin_does(name, seed, tmp_path):
    """With lot sizes and multipliers by symbol too; their money is price x lots x what a lot is worth."""
    check(risk_flows.make_with_lots(name, SIZE, seed), WAYS, tmp_path)


@pytest.mark.parametrize("name", risk_flows.FLOWS)
def test_the_size_of_chunks_changes_nothing(name, tmp_path):
    """The gate goes on from chunk to chunk, of one row or seven."""
    check(risk_flows.make(name, fewer(150, plain=3), 11), SMALL_CHUNKS, tmp_path)


@pytest.mark.parametrize("name", risk_flows.FLOWS)
def test_the_digest_is_the_same_in_every_way(name):
    """Chunks, threads and path change nothing, and the digest says so."""
    flow = risk_flows.make(name, SIZE, 4)
    digests = {way: replayed(flow, **options)[1].digest for way, options in WAYS.items()}
    assert len(set(digests.values())) == 1, f"flow {name!r}, seed 4: {digests}"


@pytest.mark.parametrize("name", risk_flows.FLOWS)
def test_without_a_tick_size_every_way_decides_as_the_twin_does(name, tmp_path):
    """Where no limit is in ticks, a flow needs none: chunks, threads and path decide the same."""
    check(without_ticks(risk_flows.make(name, SIZE // 4, 12)), WAYS, tmp_path)
    check(without_ticks(risk_flows.make(name, 100, 13)), SMALL_CHUNKS, tmp_path)


def without_ticks(flow: RiskFlow) -> RiskFlow:
    """The flow without its tick size, and without bands in ticks."""
    for limits in (flow.limits, *(later for _, later in flow.limits.changes)):
        for values in (
            limits.defaults,
            *limits.by_symbol.values(),
            *limits.by_account.values(),
            *limits.by_cell.values(),
        ):
            values.pop("price_band_ticks", None)
    return replace(flow, orders=replace(flow.orders, tick=None))


IN_TICKS = {
    "symbol": ["A"] * 4 + ["B"],
    "action": ["NEW"] * 5,
    "order_id": [1, 2, 3, 4, 5],
    "side": [1, -1, 1, 1, 1],
    "price": [100 * 10**9, 100 * 10**9, 110 * 10**9, 95 * 10**9, 7 * 10**9],
    "qty": [1] * 5,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_band_in_ticks_needs_a_tick_size(way):
    """One line names limits, key and instrument, chunked or not; with a tick all ways decide the same."""
    way = {**way, "record": "rejects"} | ({"chunk_rows": 3} if "chunk_rows" in way else {})
    given = {"A": 10**9}
    for limits in ({"price_band_ticks": 1}, TABLE_OF_ACCOUNT_7):
        limits = hftlab.Limits.of(limits) if isinstance(limits, dict) else limits
        with pytest.raises(UsageError, match="found price_band_ticks and no tick size of 'A'"):
            hftlab.replay(IN_TICKS, limits=limits, tick_size={"B": 10**9}, **way)
        with pytest.raises(UsageError, match=r"tick size of 'B', expected it as .* in \[instruments.B\]$"):
            hftlab.replay(IN_TICKS, limits=limits, tick_size=given, **way)
    rejects = hftlab.replay(IN_TICKS, limits={"price_band_ticks": 1}, tick_size=10**9, **way).rejects
    assert rejects["seq"].to_list() == [2, 3]
    assert rejects["limit_value"].to_list() == [101 * 10**9, 99 * 10**9]
    only_a = hftlab.Limits.from_table({"symbol": ["A"], "price_band_ticks": [1]})
    assert hftlab.replay(IN_TICKS, limits=only_a, tick_size=given, **way).rejects["seq"].to_list() == [2, 3]
    assert hftlab.replay(IN_TICKS, limits={"price_band_ticks": 1}, symbols="A", tick_size=given, **way)


TABLE_OF_ACCOUNT_7 = hftlab.Limits.from_table({"account": [7], "price_band_ticks": [1]})


@pytest.mark.parametrize("path", ["batch", "event"])
@pytest.mark.parametrize("name", ["busy", "crowd", "owners", "movers"])
def test_a_tape_that_was_saved_runs_into_the_same_limits(name, path, tmp_path):
    """Compiled without them, saved, and loaded: limits are of the run, not of the tape."""
    flow = narrow(risk_flows.make(name, SIZE, 5))
    assert not limits_of(flow).closes_positions
    check(flow, {f"tape, {path}": {"tape": True, "path": path}}, tmp_path)


def narrow(flow: RiskFlow) -> RiskFlow:
    """The flow without stops that close positions: a narrow tape takes none."""
    parts = [flow.limits, *(later for _, later in flow.limits.changes)]
    for limits in parts:
        for values in (limits.defaults, *limits.by_symbol.values(), *limits.by_account.values()):
            values.pop("stop_loss_action", None)
    return flow


@pytest.mark.parametrize("name", ["crowd", "losers"])
def test_rows_of_other_symbols_left_out_count_as_rows(name):
    """With a symbol filter, `from_row` is a row of the flow before the filter, in chunks or not."""
    flow = risk_flows.make(name, SIZE, 6)
    symbol = flow.orders.symbols[1]
    runs = [
        replayed(flow, symbols=symbol, **options)
        for options in ({}, {"chunk_rows": 97}, {"path": "event"}, {"chunk_rows": 89, "path": "event"})
    ]
    first, *others = [found for found, _ in runs]
    for other in others:
        assert frames.first_difference(first, other) is None
    assert len({run.digest for _, run in runs}) == 1


def test_a_difference_is_shrunk_and_shown(tmp_path, monkeypatch):
    """When an engine is wrong, the report has flow, seed, limits, and a CSV of the few rows that show it."""
    flow = risk_flows.make("busy", 200, 9)

    def wrong(flow: RiskFlow, options: Options, expected: Any = None) -> str | None:
        fills = flow.expected()["fills"]
        return "fills: too many" if fills.height > 1 else None

    monkeypatch.setattr("tests.risk_gate.test_gate.difference", wrong)
    text = report(flow, "batch", {}, "fills: too many", tmp_path)
    assert "flow 'busy', seed 9" in text
    assert "Limits(defaults=" in text
    assert 3 <= pl.read_csv(tmp_path / "busy-9.csv").height <= 5


def test_a_great_many_messages_a_second_are_counted_in_the_memory_they_take():
    """A limit of 10^12 costs nothing; one of 1,000 holds at the 1,001st message, whoever else sends."""
    rows = 3_000
    flow = {
        "ts": list(range(rows)),
        "action": ["NEW"] * rows,
        "order_id": list(range(rows)),
        "side": [1] * rows,
        "price": [1] * rows,
        "qty": [1] * rows,
        "account": [row % 2 for row in range(rows)],
    }
    assert hftlab.replay(flow, limits=hftlab.Limits(max_orders_per_second=10**12)).rejects.is_empty()
    for path in ("batch", "event"):
        rejects = hftlab.replay(flow, path=path, limits=hftlab.Limits(max_orders_per_second=1_000)).rejects
        assert rejects["seq"].to_list() == list(range(2_000, rows))
        assert rejects["observed_value"].to_list() == [row // 2 + 1 for row in range(2_000, rows)]


@pytest.mark.parametrize("path", ["batch", "event"])
@pytest.mark.parametrize("limits", [{0: 100}, {0: 10, 700: 60, 1_000: 30}])
def test_room_for_messages_grows_without_forgetting_when_they_came(path, limits):
    """Of messages that come faster and slower, those count that are younger than a second, however many."""
    rows, rng = 1_500, np.random.default_rng(5)
    gaps = rng.integers(0, 10**7, rows) * (1.1 + np.sin(np.arange(rows) / 100))
    ts, accounts = 10**15 + np.cumsum(gaps.astype(np.int64)), rng.integers(0, 3, rows).astype(np.int32)
    flow = {
        "ts": ts,
        "action": ["NEW"] * rows,
        "order_id": np.arange(rows),
        "side": np.ones(rows, np.int8),
        "price": np.ones(rows, np.int64),
        "qty": np.ones(rows, np.int64),
        "account": accounts,
    }
    limit, too_many = limits[0], []
    for row in range(rows):
        limit = limits.get(row, limit)
        if np.sum((accounts[:row] == accounts[row]) & (ts[:row] > ts[row] - 10**9)) >= limit:
            too_many.append(row)
    assert 100 < len(too_many) < rows
    table = hftlab.Limits.from_table(
        {"from_row": list(limits), "max_orders_per_second": list(limits.values())}
    )
    rejects = hftlab.replay(flow, path=path, limits=table).rejects
    assert rejects["seq"].to_list() == too_many


@pytest.mark.parametrize("path", ["batch", "event"])
def test_more_orders_in_a_window_than_there_was_room_for(path, monkeypatch):
    """Ten thousand within a second, then the same again; twice more in the next one, once after a pause."""
    different = fewer(10_000, plain=16)
    monkeypatch.setattr(manager, "FIRST_REPEATS", fewer(manager.FIRST_REPEATS, plain=16))
    starts = {0: 2 * different, 10**9 - 1: 2 * different, 3 * 10**9: different}
    times = [start + i for start, rows in starts.items() for i in range(rows)]
    rows = len(times)
    flow = {
        "ts": times,
        "action": ["NEW"] * rows,
        "order_id": list(range(rows)),
        "side": [1] * rows,
        "price": [1] * rows,
        "qty": [1 + row % different for row in range(rows)],
        "account": [5] * rows,
    }
    rejects = hftlab.replay(flow, path=path, limits=hftlab.Limits(max_repeated_orders=2)).rejects
    assert rejects["seq"].to_list() == list(range(2 * different, 4 * different))
    assert rejects["observed_value"].to_list() == [3] * different + [4] * different


# -- properties of what the package says


def positions_of(fills: pl.DataFrame) -> dict[tuple[str, int], int]:
    """Lots bought less lots sold of each account in each symbol."""
    positions: Counter = Counter()
    columns = ("symbol", "qty", "aggressor_side", "taker_account", "maker_account")
    for symbol, qty, side, taker, maker in fills.select(columns).iter_rows():
        positions[symbol, taker] += side * qty
        positions[symbol, maker] -= side * qty
    return positions


@pytest.mark.parametrize("path", ["batch", "event"])
@pytest.mark.parametrize("name", risk_flows.FLOWS)
def test_no_owner_trades_with_itself_where_a_mode_forbids_it(name, path):
    """Neither by orders nor by what the gate closes, whatever limits change on the way."""
    for seed in SEEDS:
        flow = risk_flows.make(name, SIZE, 20 + seed)
        fills = replayed(flow, path=path)[0]["fills"]
        limits = InForce(flow.limits)
        for seq, symbol, taker, maker in fills.select(
            "seq", "symbol", "taker_account", "maker_account"
        ).iter_rows():
            limits.reach(seq)
            own = limits.account(taker).owner == limits.account(maker).owner
            assert not own or limits.cell(taker, symbol).self_trade == "none", (name, 20 + seed, seq)


@pytest.mark.parametrize("name", risk_flows.FLOWS)
def test_positions_over_all_accounts_sum_to_zero(name):
    """What one has bought another has sold; and what was filled is what positions show in the twin."""
    flow = risk_flows.make(name, SIZE, 30)
    positions = positions_of(replayed(flow)[0]["fills"])
    for symbol in flow.orders.symbols:
        assert sum(held for (where, _), held in positions.items() if where == symbol) == 0
    expected = flow.expected()["positions"].select("symbol", "account", "position").rows()
    assert {key: held for key, held in positions.items() if held} == {
        (symbol, account): held for symbol, account, held in expected if held
    }


def test_a_worst_price_beyond_64_bits_is_beyond_any_limit(tmp_path):
    """Row 1,546 is a MARKET order for one lot: its notional is its price, which is 2^63 and more."""
    flow = risk_flows.make("edges", 10_000, 1_934).take(range(1_600))
    check(flow, WAYS, tmp_path, flow.expected(depth_levels=LEVELS))


# -- the fuzzing itself


@pytest.mark.fuzz
def test_ten_million_commands_pass_the_gate_alike(tmp_path):
    """At least ten million commands with random limits; each reason and each event a thousand times."""
    budget = fuzz_budget()
    ways, seeds = cycle(WAYS.items()), count(1_000)
    reasons, events, played = Counter(), Counter(), 0
    for name in cycle(risk_flows.FLOWS):
        if played >= budget:
            break
        seed = next(seeds)
        make = risk_flows.make_with_lots if seed % 3 == 0 else risk_flows.make
        flow = make(name, min(FUZZ_SLICE, budget - played), seed)
        expected = flow.expected(depth_levels=LEVELS)
        check(flow, dict([next(ways), next(ways)]), tmp_path, expected)
        played += len(flow)
        tally(reasons, expected["rejects"]["reason"])
        tally(events, expected["gate"]["event"])
    assert played >= budget
    if budget >= WHOLE_BUDGET:
        few = {one.name: reasons[one] for one in set(Reason) - NOT_OF_A_FLOW if reasons[one] < AT_LEAST}
        few |= {one.name: events[one] for one in GateEvent if events[one] < AT_LEAST}
        assert few == {}


def tally(counts: Counter, column: pl.Series) -> None:
    """Add how often each value is there."""
    counts.update(dict(zip(*(part.tolist() for part in np.unique(column, return_counts=True)), strict=True)))
