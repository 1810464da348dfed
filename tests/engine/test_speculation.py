"""Limits that tie instruments together, on threads: the same outputs as in input order, in every case.

A flow is run side by side, audited, and run again from the first touch of such a limit on; each test knows
the row where that is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import hftlab
from hftlab.cli import main
from hftlab.codes import Action, GateEvent, Reason, RiskControl
from hftlab.engine import plan, speculation
from hftlab.replayer import replayer
from tests.helpers import flows, risk_flows
from tests.helpers.gated_package import replayed
from tests.reference import frames

ROWS, THREADS = 1_200, (2, 4)
MONEY = ("max_portfolio_value", "stop_loss_percentage")
KILLS = [int(RiskControl.ACCOUNT_KILLED), int(RiskControl.ALL_KILLED)]
NAMES = ("busy", "crowd", "movers", "losers", "around_zero")
LOOSE = {"max_portfolio_value": 2**62, "stop_loss_percentage": 1_000_000, "capital": 2**62}
LOW = 50 * flows.CENT * 100  # of these flows, a few orders
STRIKING = {"stop_loss_percentage": 10_000, "capital": LOW // 5, "stop_loss_action": "close"}


@pytest.fixture(autouse=True)
def _short_pieces(monkeypatch):
    """Audits every 64, 256, 1024 rows, so that these flows have several; tapes in parts, as if it paid."""
    monkeypatch.setattr(plan, "FIRST_CHUNK", 64)
    monkeypatch.setattr(replayer, "partitions_for", lambda threads, limits: threads)


def tied(name: str, seed: int, money: dict[str, Any], *, kills: bool = False) -> risk_flows.RiskFlow:
    """A flow with these limits on money for all and no others on it; without `kills` it has no such rows."""
    flow = risk_flows.make(name, ROWS, seed)
    limits = flow.limits
    for part in (limits, *(later for _, later in limits.changes)):
        for keys in (part.defaults, *part.by_symbol.values(), *part.by_account.values()):
            for key in (*MONEY, "capital", "stop_loss_action"):
                keys.pop(key, None)
    limits.defaults |= money
    if kills:
        return flow
    columns = flow.orders.columns
    kill = (columns["action"] == Action.RISK_CONTROL) & np.isin(columns["qty"], KILLS)
    columns["qty"] = np.where(kill, columns["qty"] - 3, columns["qty"])  # ACTIVE, which lifts what has struck
    return flow


def fallbacks(run: hftlab.Result) -> dict[str, int]:
    """Pieces that were not run side by side to their end, and rows that were not."""
    return run.summary()["fallbacks"]


def first_touch(flow: risk_flows.RiskFlow, found: dict) -> int:
    """The row at which a limit on money says something first, by what the gate has told."""
    rejects, gate = found["rejects"], found["gate"]
    seqs = rejects.filter(rejects["reason"] == int(Reason.MAX_PORTFOLIO_VALUE))["seq"].to_list()
    seqs += gate.filter(gate["event"] == int(GateEvent.STOP_LOSS))["seq"].to_list()
    columns = flow.orders.columns
    kill = (columns["action"] == Action.RISK_CONTROL) & np.isin(columns["qty"], KILLS)
    return min([*seqs, *np.flatnonzero(kill).tolist(), len(flow)])


def agree(flow: risk_flows.RiskFlow, **options: Any) -> tuple[dict, list[hftlab.Result]]:
    """Outputs that all paths have in common, and the runs on threads."""
    expected, run = replayed(flow, **options)
    _, events = replayed(flow, path="event", **options)
    assert events.digest == run.digest
    assert fallbacks(run)["rows"] == fallbacks(events)["rows"] == 0
    runs = []
    for threads in THREADS:
        found, other = replayed(flow, threads=threads, **options)
        assert frames.first_difference(expected, found) is None
        assert other.digest == run.digest
        runs.append(other)
    return expected, runs


CASES = {
    "loose": (LOOSE, False),
    "strike": (STRIKING, False),
    "strike_at_mid": (STRIKING | {"reference": "mid"}, False),
    "strike_by_position": (STRIKING | {"stop_loss_scope": "position"}, False),
    "portfolio": ({"max_portfolio_value": 4 * LOW}, False),
    "portfolio_at_mid": ({"max_portfolio_value": 4 * LOW, "reference": "mid"}, False),
    "kill": (LOOSE, True),
    "kill_alone": ({}, True),
    "all": (STRIKING | {"max_portfolio_value": 8 * LOW}, True),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_the_fallback_begins_at_the_row_of_the_first_touch(name, case):
    """Threads say what one thread and the event path say, and fall back exactly where a limit is touched."""
    money, kills = CASES[case]
    for seed in range(2):
        flow = tied(name, seed, money, kills=kills)
        found, runs = agree(flow)
        touch = first_touch(flow, found)
        rows = len(flow) - touch
        for run in runs:
            assert fallbacks(run) == {"pieces": int(rows > 0), "rows": rows}, (name, case, seed)


def test_each_kind_of_touch_occurs():
    """The cases above are what they are called: without this, flows that never touch would pass them all."""
    seen = {}
    for case, (money, kills) in CASES.items():
        for name in NAMES:
            flow = tied(name, 0, money, kills=kills)
            found, run = replayed(flow, threads=2)
            touch = first_touch(flow, found)
            assert touch == len(flow) - fallbacks(run)["rows"]
            seen.setdefault(case, []).append(0 < touch < len(flow))
    assert not any(seen.pop("loose"))
    assert all(sum(touched) >= 2 for touched in seen.values()), seen


@pytest.mark.parametrize("case", ["strike", "strike_at_mid", "portfolio", "kill"])
def test_a_touch_in_the_last_row_and_one_behind_it(case):
    """A flow that ends with the touch falls back for one row; one that ends before it, not at all."""
    money, kills = CASES[case]
    checked = 0
    for name in NAMES:
        whole = tied(name, 0, money, kills=kills)
        touch = first_touch(whole, replayed(whole)[0])
        if not 0 < touch < len(whole):
            continue
        for rows, fallback in ((touch + 1, 1), (touch, 0)):
            _, runs = agree(whole.take(list(range(rows))))
            assert [fallbacks(run)["rows"] for run in runs] == [fallback] * len(runs), (name, rows)
        checked += 1
    assert checked >= 2


@pytest.mark.parametrize("money", [{"max_portfolio_value": 0}, {}])
def test_a_touch_in_the_first_row(money):
    """With a limit of nothing, or a kill at once, the whole flow is run in input order."""
    flow = tied("busy", 0, money)
    columns = flow.orders.columns
    if money:
        first = np.flatnonzero((columns["action"] == Action.NEW) & (columns["qty"] > 0))
        flow = flow.take(list(range(int(first[0]), ROWS)))
        flow.orders.columns["order_type"][0] = 0
        flow = replace(flow, limits=risk_flows.Limits(defaults=money))
    else:
        columns["action"][0], columns["qty"][0] = Action.RISK_CONTROL, RiskControl.ALL_KILLED
    _, runs = agree(flow)
    assert [fallbacks(run) for run in runs] == [{"pieces": 1, "rows": len(flow)}] * len(runs)


@pytest.mark.parametrize("case", ["loose", "strike", "strike_at_mid", "strike_by_position", "all"])
@pytest.mark.parametrize("name", ["losers", "crowd"])
def test_chunks_go_on_with_the_same_money(name, case):
    """Peaks, marks, cash and stops that have struck pass from chunk to chunk, whoever has kept them."""
    money, kills = CASES[case]
    flow = tied(name, 1, money, kills=kills)
    _, run = replayed(flow)
    for threads in (1, *THREADS):
        for rows in (97, 500):
            _, other = replayed(flow, threads=threads, chunk_rows=rows)
            assert other.digest == run.digest, (threads, rows)
            pieces = fallbacks(other)["pieces"]
            assert pieces == 0 if case == "loose" or threads == 1 else pieces <= other.summary()["chunks"]
    gates = [replayed(flow, threads=threads, chunk_rows=97)[0]["gate"] for threads in (1, 2)]
    assert gates[0].equals(gates[1])


def test_random_limits_and_changes_of_them():
    """Limits as drawn, tight and changing on the way, in every kind of flow."""
    for name in risk_flows.FLOWS:
        for seed in range(20, 24):
            agree(risk_flows.make(name, 600, seed))


def test_loose_limits_really_run_side_by_side(monkeypatch):
    """With limits that don't bind every row is run by one of two threads, once, and by nobody else."""
    chunks, in_order = [], []
    run_chunk, go_on = speculation.run_chunk, speculation.run_in_order

    def noted(workers, gate, chunk, progress):
        chunks.append((len(workers), chunk.first, chunk.stop))
        run_chunk(workers, gate, chunk, progress)

    def noted_order(run, first, progress):
        in_order.append(run.plan.tape.rows - first)
        go_on(run, first, progress)

    monkeypatch.setattr(speculation, "run_chunk", noted)
    monkeypatch.setattr(speculation, "run_in_order", noted_order)
    flow = tied("busy", 3, LOOSE)
    flow = replace(flow, limits=replace(flow.limits, changes=[]))
    _, run = replayed(flow, names=("fills",), threads=2)
    bounds = [0, 64, 64 + 256, ROWS]
    assert chunks[:3] == [(2, *bounds[i : i + 2]) for i in range(3)]
    assert in_order[0] == 0
    assert fallbacks(run) == {"pieces": 0, "rows": 0}


@pytest.mark.parametrize("case", ["loose", "strike_at_mid", "all"])
def test_tables_that_are_asked_for_afterwards(case):
    """l1, depth and anomalies of a run on threads are those of a run on one."""
    money, kills = CASES[case]
    flow = tied("losers", 0, money, kills=kills)
    config = hftlab.Config()
    limits = hftlab.Limits.from_table(risk_flows.limits_table(flow.limits))
    alone, shared = (
        hftlab.replay(flow.orders.table(), threads=threads, record=(), limits=limits, config=config)
        for threads in (1, 2)
    )
    for name in ("l1", "anomalies", "rejects", "gate", "book"):
        assert alone.to_arrow(name).equals(shared.to_arrow(name)), name
    assert alone.depth(4).equals(shared.depth(4))


def test_a_tape_of_several_parts_on_one_thread():
    """A tape compiled for threads can be run by one: in input order, and that is no fallback."""
    flow = tied("losers", 0, STRIKING)
    del flow.limits.defaults["stop_loss_action"]  # to close positions takes a wide tape
    limits = hftlab.Limits.from_table(risk_flows.limits_table(flow.limits))
    table = flow.orders.table()
    tape = hftlab.compile_tape(table, "0.01", parts=3)
    expected = hftlab.replay(table, tick_size="0.01", limits=limits)
    for threads in (1, 2, 3):
        run = hftlab.replay(tape, threads=threads, limits=limits)
        assert run.digest == expected.digest
        assert (fallbacks(run)["rows"] > 0) == (threads > 1)


@pytest.mark.parametrize(("case", "parts"), [("portfolio", 1), ("strike", 1), ("kill_alone", 2)])
def test_a_flow_behind_limits_on_money_is_not_cut_for_threads(monkeypatch, case, parts):
    """One thread takes less time for it; what comes of it is the same, and nothing falls back."""
    monkeypatch.setattr(replayer, "partitions_for", plan.partitions_for)
    money, kills = CASES[case]
    flow = tied("losers", 0, money, kills=kills)
    expected, alone = replayed(flow)
    found, shared = replayed(flow, threads=2)
    assert frames.first_difference(expected, found) is None
    assert shared.digest == alone.digest
    assert fallbacks(alone)["rows"] == 0
    assert (fallbacks(shared)["rows"] > 0) == (parts > 1)


def test_the_command_line_says_how_much_fell_back(tmp_path, capsys):
    """A line says how many rows were run in input order; without a fallback there is none."""
    path = tmp_path / "flow.parquet"
    pq.write_table(tied("busy", 0, {}).orders.table(), path)
    shown = []
    for value in (10**9, 0):
        file = tmp_path / f"{value}.toml"
        file.write_text(f'[risk]\nmax_portfolio_value = "{value}"\n')
        assert (
            main(["replay", str(path), "--limits", str(file), "--threads", "2", "--tick-size", "0.01"]) == 0
        )
        shown.append(capsys.readouterr().out)
    assert ["in input order" in text for text in shown] == [False, True]
