"""The gate on flows and limits that are not as they should be: one clear error, or a decision that holds.

What is wrong with a file of limits by itself is in test_limit_errors.py.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hftlab
from hftlab import Limits
from hftlab.codes import PRICE_SCALE, RiskControl
from hftlab.errors import LimitsError, UsageError
from tests.helpers import gated_package, risk_flows
from tests.helpers.gated_package import limits_of, replayed
from tests.reference import frames
from tests.reference.package import settings

LARGEST = 2**63 - 1
WAYS: dict[str, dict[str, Any]] = {
    "batch": {},
    "event": {"path": "event"},
    "chunks": {"chunk_rows": 2},
    "chunks, events": {"chunk_rows": 2, "path": "event"},
}


@pytest.fixture(params=WAYS)
def way(request) -> dict[str, Any]:
    """Every way of replaying in turn."""
    return WAYS[request.param]


def orders(*rows: dict[str, Any]) -> pa.Table:
    """An orders table of rows that say what is not usual: a bid for 1 at 10 by account 1, ids counting up."""
    usual = {"action": "NEW", "side": 1, "price": 10 * PRICE_SCALE, "qty": 1, "account": 1}
    filled = [usual | {"order_id": i + 1} | row for i, row in enumerate(rows)]
    names = dict.fromkeys(name for row in filled for name in row)
    return pa.table({name: pa.array([row.get(name) for row in filled]) for name in names})


def control(code: int, **more: Any) -> dict[str, Any]:
    return {"action": "RISK_CONTROL", "qty": int(code), **more}


def rejects(run: hftlab.Result) -> list[tuple]:
    """(row, reason, limit_value, observed_value) of every reject."""
    columns = ("seq", "reason", "limit_value", "observed_value")
    return [(seq, str(reason), *rest) for seq, reason, *rest in run.rejects.select(columns).rows()]


def replay(table: Any, limits: Limits | None = None, **options: Any) -> hftlab.Result:
    return hftlab.replay(table, record=(*gated_package.NAMES, "gate"), tick_size=1, limits=limits, **options)


# -- limits that do not fit the flow


def test_the_command_line_says_all_that_is_wrong_with_a_file_at_once(tmp_path, run):
    """Unknown keys, negative limits and rows given twice: one message, status 2, no traceback."""
    flow = tmp_path / "flow.parquet"
    pq.write_table(orders({}, {}), flow)
    bad = tmp_path / "bad.toml"
    bad.write_text(
        "[risk]\nmax_ordr_qty = 5\nmax_order_qty = -1\n[risk.accounts.7]\nmax_open_orders = -3\n"
        "[risk.accounts.07]\nmax_open_orders = 3\n"
    )
    status, out, message = run("replay", flow, "--limits", bad)
    assert (status, out) == (2, "")
    assert "Traceback" not in message
    assert message.count("bad.toml") == 1
    for found in ("max_ordr_qty", "max_order_qty: found -1", "accounts.7.max_open_orders: found -3"):
        assert found in message


def test_the_command_line_says_which_symbols_the_flow_has_not(tmp_path, run):
    """All of them in one message, before anything is written."""
    flow, limits = tmp_path / "flow.parquet", tmp_path / "limits.csv"
    pq.write_table(orders({"symbol": "ES"}, {"symbol": "NQ"}), flow)
    limits.write_text("account,symbol,max_order_qty\n,YM,5\n7,ZB,6\n,ES,7\n")
    out = tmp_path / "run"
    status, _, message = run("replay", flow, "--limits", limits, "--out", out)
    assert status == 2
    assert "YM" in message
    assert "ZB" in message
    assert "Traceback" not in message
    assert not out.exists()


def test_two_rows_for_one_account_are_an_error(tmp_path, run):
    """In a table as on the command line, naming both."""
    table = {"account": [7, 7], "max_order_qty": [1, 2]}
    with pytest.raises(LimitsError, match="row 1"):
        Limits.from_table(table)
    flow, limits = tmp_path / "flow.parquet", tmp_path / "limits.csv"
    pq.write_table(orders({}), flow)
    limits.write_text("account,max_order_qty\n7,1\n7,2\n")
    status, _, message = run("replay", flow, "--limits", limits)
    assert status == 2
    assert "limits.csv, row 3: found the account, symbol and from_row of row 2" in message


def test_symbols_are_those_of_the_whole_flow(way):
    """A limit for a symbol that only the last chunk has is none too many; one for none is, in any way."""
    table = orders(*({"symbol": name} for name in ("A", "A", "A", "A", "B")))
    assert (
        replay(table, Limits.from_table({"symbol": ["B"], "restricted": [True]}), **way).rejects.height == 1
    )
    with pytest.raises(LimitsError, match="C"):
        replay(table, Limits.from_table({"symbol": ["B", "C"], "restricted": [True, True]}), **way)


def test_limits_of_facts_are_an_error():
    """A rebuild passes no gate."""
    with pytest.raises(UsageError, match="mode 'rebuild'"):
        hftlab.replay(orders({}), mode="rebuild", limits=Limits())


@pytest.mark.parametrize("limits", [5, [], None.__class__])
def test_limits_are_limits(limits):
    """Or a file of them, or a dict."""
    with pytest.raises(UsageError, match="limits: found"):
        hftlab.replay(orders({}), limits=limits)


# -- accounts that nobody knows


@pytest.mark.parametrize(("unknown", "refused"), [("default", [1]), ("reject", [0, 1])])
def test_an_account_that_is_not_in_the_table(way, unknown, refused):
    """It has the limits of all, or may do nothing."""
    limits = Limits.from_table(
        {"account": [None, 7], "max_order_qty": [5, 9], "unknown_accounts": [unknown, None]}
    )
    table = orders({"qty": 5, "account": 8}, {"qty": 6, "account": 8}, {"qty": 9, "account": 7})
    run = replay(table, limits, **way)
    assert [row for row, *_ in rejects(run)] == refused
    reasons = {reason for _, reason, *_ in rejects(run)}
    assert reasons == ({"UNKNOWN_ACCOUNT"} if unknown == "reject" else {"MAX_ORDER_QTY"})


@pytest.mark.parametrize(("unknown", "refused"), [("default", 0), ("reject", 2)])
def test_a_flow_without_accounts_is_of_account_0(way, unknown, refused):
    """Which may be known or not."""
    table = orders({}, {}).drop(["account"])
    limits = Limits(unknown_accounts=unknown)
    assert replay(table, limits, **way).rejects.height == refused
    known = Limits.from_table(
        {"account": [None, 0], "unknown_accounts": [unknown, None], "max_order_qty": [None, 1]}
    )
    assert replay(table, known, **way).rejects.height == 0


@pytest.mark.parametrize("account", [-(2**31), 2**31 - 1])
def test_accounts_at_the_ends_of_their_range(way, account):
    """They are accounts like others."""
    limits = Limits.from_table({"account": [account], "max_order_qty": [1]})
    run = replay(orders({"account": account, "qty": 2}, {"account": 0, "qty": 2}), limits, **way)
    assert rejects(run) == [(0, "MAX_ORDER_QTY", 1, 2)]


# -- amounts at the end of 64 bits


def test_a_notional_around_the_largest_integer(way):
    """7 x (2^63-1)/7 is the largest and passes; one lot more is refused and shown as the largest."""
    lots = LARGEST // 7
    at_one = {"price": 7, "side": 1}
    rows = [at_one | {"qty": lots}, at_one | {"qty": lots + 1}, at_one | {"qty": LARGEST, "side": -1}]
    limits = Limits(max_order_notional=LARGEST)
    run = hftlab.replay(
        orders(*rows), limits=limits, tick_size="0.000000001", record="rejects,outcomes", **way
    )
    assert rejects(run) == [(row, "MAX_NOTIONAL", LARGEST, LARGEST) for row in (1, 2)]


# -- clocks


def test_a_clock_that_runs_backwards_stands_still(way):
    """At 1.0, 0.2 and 0.5 are three messages in no time, one too many; at 2.0 a new second begins."""
    times = [10**9, 2 * 10**8, 5 * 10**8, 2 * 10**9, 10**9, 0]
    table = orders(*({"ts": ts} for ts in times))
    run = replay(table, Limits(max_orders_per_second=2), **way)
    assert rejects(run) == [(2, "RATE_LIMIT", 2, 3), (5, "RATE_LIMIT", 2, 3)]


def test_a_flow_without_times_has_row_numbers_for_times(way):
    """One nanosecond each: all of a second together, repeats too."""
    run = replay(orders({}, {}, {}, {}), Limits(max_orders_per_second=3), **way)
    assert rejects(run) == [(3, "RATE_LIMIT", 3, 4)]
    run = replay(orders({}, {}, {}, {}), Limits(max_repeated_orders=3), **way)
    assert rejects(run) == [(3, "REPEATED_ORDER", 3, 4)]


def test_times_at_the_ends_of_their_range(way):
    """1677 and 2262 are a second apart, and more; nothing wraps."""
    rows = [{"ts": ts} for ts in (-LARGEST, -LARGEST, LARGEST, LARGEST)]
    limits = Limits(max_orders_per_second=1, stop_loss_percentage=10, capital=10**9)
    assert [row for row, *_ in rejects(replay(orders(*rows), limits, **way))] == [1, 3]


# -- limits that change


def test_a_change_takes_effect_at_its_row(way):
    """Row 3 of the flow, whatever is left out of it and however it is cut."""
    limits = Limits.from_table({"from_row": [0, 3, 5], "max_order_qty": [5, 1, 9]})
    rows = [{"qty": 5, "symbol": name} for name in "ABABABAB"]
    assert [row for row, *_ in rejects(replay(orders(*rows), limits, **way))] == [3, 4]
    assert [row for row, *_ in rejects(replay(orders(*rows), limits, symbols="A", **way))] == [4]
    assert [row for row, *_ in rejects(replay(orders(*rows), limits, symbols=["B"], **way))] == [3]


def test_a_change_between_the_rows_of_a_symbol_is_not_lost(way):
    """Rows 1 to 6 are another symbol's: the change at 2 and the one at 4 are both in force at 7."""
    limits = Limits.from_table(
        {"from_row": [0, 2, 4], "max_order_qty": [5, 4, None], "max_open_orders": [9, None, 1]}
    )
    rows = [{"symbol": "A"}, *[{"symbol": "B"}] * 6, {"symbol": "A", "qty": 5}, {"symbol": "A", "qty": 4}]
    run = replay(orders(*rows), limits, symbols="A", **way)
    assert rejects(run) == [(7, "MAX_ORDER_QTY", 4, 5), (8, "MAX_OPEN_ORDERS", 1, 2)]


def test_a_change_behind_the_last_row_is_no_change(way):
    """Nothing happens, and nothing is wrong."""
    limits = Limits.from_table({"from_row": [0, 2, 10**12], "max_order_qty": [5, 1, 0]})
    assert [row for row, *_ in rejects(replay(orders({}, {"qty": 5}), limits, **way))] == []


# -- RISK_CONTROL


def test_controls_close_the_gate_without_limits(way):
    """A flow that has them has a gate; in chunks only where they are there from the first chunk on."""
    rows = [control(RiskControl.ACCOUNT_HALTED), {}, {"account": 2}]
    assert rejects(replay(orders(*rows), **way)) == [(1, "KILL_SWITCH", None, None)]


@pytest.mark.parametrize("path", ["batch", "event"])
def test_a_control_after_the_first_chunk_needs_limits(path):
    """Without any the gate would not know who holds what: one error with the row, and what to do."""
    table = orders({}, {}, {}, control(RiskControl.ALL_KILLED), {})
    with pytest.raises(
        UsageError, match=r"row 3: found a RISK_CONTROL after the first chunk, expected limits"
    ):
        replay(table, chunk_rows=2, path=path)
    run = replay(table, Limits(), chunk_rows=2, path=path)
    assert rejects(run) == rejects(replay(table, path=path)) == [(4, "KILL_SWITCH", None, None)]
    assert run.gate.height == 3


@pytest.mark.parametrize("path", ["batch", "event"])
def test_a_control_after_the_first_chunk_of_a_file_needs_limits(path, tmp_path, run):
    """Streamed from a file likewise; on the command line it is one line."""
    flow = tmp_path / "flow.parquet"
    pq.write_table(orders({}, {}, {}, control(RiskControl.ALL_KILLED), {}), flow)
    with pytest.raises(UsageError, match="after the first chunk"):
        replay(flow, chunk_rows=2, path=path)
    status, _, message = run("replay", flow, "--chunk-rows", "2", "--path", path)
    assert status == 2
    assert "found a RISK_CONTROL after the first chunk" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("qty", [-1, 12, LARGEST, -LARGEST])
def test_a_control_of_no_meaning_is_refused(way, qty):
    """And changes nothing."""
    assert rejects(replay(orders(control(qty), {}, {}), **way)) == [(0, "INVALID_QTY", 11, qty)]


def test_a_control_of_an_account_or_symbol_that_trades_never(way):
    """Any account may be halted, and any symbol of the flow."""
    rows = [
        control(RiskControl.ACCOUNT_KILLED, account=99, symbol="A"),
        control(RiskControl.SYMBOL_KILLED, symbol="B"),
        {"symbol": "A"},
    ]
    run = replay(orders(*rows), **way)
    assert (run.rejects.height, run.gate.height) == (0, 0)


# -- flows and tapes


@pytest.mark.parametrize("path", ["batch", "event"])
def test_an_empty_flow(path):
    """No rows, no rejects, no events; limits of a symbol are still of none that it has."""
    table = orders({}).slice(0, 0)
    run = replay(table, Limits(max_order_qty=1, stop_loss_percentage=5, capital=5), path=path)
    assert (run.outcomes.height, run.rejects.height, run.gate.height) == (0, 0, 0)


def test_symbols_that_no_limit_names(way):
    """They have the limits of all."""
    limits = Limits.from_table({"symbol": [None, "B"], "max_order_qty": [2, 9]})
    rows = [{"symbol": name, "qty": 3} for name in "ABC"]
    assert [row for row, *_ in rejects(replay(orders(*rows), limits, **way))] == [0, 2]


def parted(flow: risk_flows.RiskFlow) -> Any:
    """A tape of two parts of the flow."""
    config = settings(flow.orders.tick, flow.orders.allow_nonpositive, gated_package.LEVELS)
    return hftlab.compile_tape(flow.orders.table(), instruments=config, parts=2)


TYING = ("max_portfolio_value", "stop_loss_percentage", "stop_loss_action", "stop_loss_scope", "capital")


def without_money(flow: risk_flows.RiskFlow) -> risk_flows.RiskFlow:
    """The flow without limits that tie instruments together."""
    for limits in (flow.limits, *(later for _, later in flow.limits.changes)):
        for values in (limits.defaults, *limits.by_symbol.values(), *limits.by_account.values()):
            for key in TYING:
                values.pop(key, None)
    kills = {RiskControl.ACCOUNT_KILLED, RiskControl.ALL_KILLED}
    columns = flow.orders.columns
    kept = [row for row, qty in enumerate(columns["qty"].tolist()) if qty not in kills]
    return flow.take(kept)


def test_limits_that_change_on_the_way_change_in_every_part():
    """One thread over a tape in two parts: each has its rows before the change, then those after it."""
    changing = 0
    for seed in range(12):
        flow = without_money(risk_flows.make("busy", 300, seed))
        if flow.limits.changes and (tape := parted(flow)).parts.size == 3:
            run = hftlab.replay(tape, record=(*gated_package.NAMES, "depth"), depth=3, limits=limits_of(flow))
            assert run.digest == replayed(flow)[1].digest, seed
            changing += 1
    assert changing > 3


@pytest.mark.parametrize("options", [{}, {"threads": 2}, {"path": "event"}], ids=str)
@pytest.mark.parametrize("name", ["busy", "crowd"])
def test_a_tape_of_several_parts_saved_and_loaded(name, options, tmp_path):
    """Limits that tie no instruments together hold in each part as they do in one."""
    flow = without_money(risk_flows.make(name, 300, 2))
    path = tmp_path / "flow.tape"
    tape = parted(flow)
    assert tape.parts.size == 3
    tape.save(path)
    run = hftlab.replay(
        path, record=(*gated_package.NAMES, "depth", "gate"), depth=3, limits=limits_of(flow), **options
    )
    expected, whole = replayed(flow)
    assert frames.first_difference(expected, gated_package.outputs(run)) is None
    assert run.digest == whole.digest
