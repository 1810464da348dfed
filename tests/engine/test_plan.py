"""The plan of a run: who runs which instruments, and in which chunks of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import hftlab
from hftlab import Limits
from hftlab.codes import Action, RiskControl
from hftlab.engine import plan
from hftlab.engine.plan import Chunk, Partition, RunPlan, make_plan
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.tables import read_orders
from hftlab.tape.tape import Tape

CENT = 10_000_000
SYMBOLS, ROWS = list("AAAAAABBBCCD"), 12
SECOND = 1_000_000_000


def flow(symbols: list[str] = SYMBOLS, **columns: Any) -> pa.Table:
    """An order that rests in each row."""
    rows = len(symbols)
    orders = {
        "action": np.full(rows, Action.NEW, np.int8),
        "order_id": np.arange(rows),
        "symbol": symbols,
        "side": ["BUY"] * rows,
        "price": [CENT] * rows,
        "qty": [1] * rows,
    }
    return pa.table(orders | columns)


def tape_of(parts: int = 1, **columns: Any) -> Tape:
    return hftlab.compile_tape(flow(**columns), "0.01", parts=parts)


def killed(row: int) -> dict[str, Any]:
    """Columns in which everything is killed at a row."""
    action, qty = np.full(ROWS, Action.NEW, np.int8), np.ones(ROWS, np.int64)
    action[row], qty[row] = Action.RISK_CONTROL, RiskControl.ALL_KILLED
    return {"action": action, "qty": qty}


def changing(*rows: int) -> RiskManager:
    """A gate whose limits change at rows of the input."""
    table = {"account": [None] * (len(rows) + 1), "from_row": [0, *rows]}
    return RiskManager(Limits.from_table(table | {"max_order_qty": list(range(9, 10 + len(rows)))}))


def rows_of(found: RunPlan) -> list[tuple[int, int]]:
    return [(chunk.first, chunk.stop) for chunk in found.chunks]


# ------------------------------------------------------------------ partitions


def test_one_worker_has_all_partitions_in_their_order():
    found = make_plan(tape_of(parts=4), threads=1)
    assert [own.stop - own.start for own in found.partitions[0]] == np.diff(found.tape.parts).tolist()
    assert len(found.partitions) == 1


def test_the_largest_partition_goes_to_the_worker_with_least_to_do():
    """Of 6, 3, 2 and 1 rows two workers have six each."""
    found = make_plan(tape_of(parts=4), threads=2)
    sizes = [sorted(own.stop - own.start for own in partitions) for partitions in found.partitions]
    assert sizes == [[6], [1, 2, 3]]


@pytest.mark.parametrize("threads", [2, 3, 4, 9])
def test_workers_share_every_index_of_the_tape(threads):
    """None has nothing to do, however many there might be."""
    found = make_plan(tape_of(parts=4), threads=threads)
    assert len(found.partitions) == min(threads, 4)
    bounds = sorted(own for partitions in found.partitions for own in partitions)
    assert [index for start, stop in bounds for index in range(start, stop)] == list(range(ROWS))


def test_a_tape_without_rows_has_nothing_to_do():
    tape = hftlab.compile_tape(flow().slice(0, 0), "0.01")
    found = make_plan(tape, threads=2, manager=changing(3))
    assert found.chunks == []
    assert [index for own in found.partitions for start, stop in own for index in range(start, stop)] == []


# ------------------------------------------------------------------ chunks


def test_without_changes_all_rows_are_one_chunk():
    for manager in (None, changing()):
        assert make_plan(tape_of(), manager=manager).chunks == [Chunk(0, ROWS, 0)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([5], [(0, 5), (5, 12)]),
        ([3, 4, 11], [(0, 3), (3, 4), (4, 11), (11, 12)]),
        ([11], [(0, 11), (11, 12)]),
        ([12], [(0, 12)]),
        ([4, 700], [(0, 4), (4, 12)]),
    ],
)
def test_a_chunk_ends_where_limits_change(changes, expected):
    """Changes behind the last row wait for another tape."""
    assert rows_of(make_plan(tape_of(), manager=changing(*changes))) == expected


def test_changes_count_rows_of_the_input():
    """In a later chunk of the flow, and where a symbol filter has taken rows out."""
    tape = tape_of()
    late = read_orders(flow(), first_row=100)
    late = compile_checked(late, rules_for(late.symbols, "0.01", None))
    manager = changing(50, 104, 200)
    assert make_plan(tape, manager=manager).chunks == [Chunk(0, ROWS, 0)]
    assert make_plan(late, manager=manager).chunks == [Chunk(0, 4, 100), Chunk(4, ROWS, 104)]


def test_each_chunk_brings_the_limits_that_hold_from_its_first_row():
    """Followed in order, every change is in force from its row on, those of no row of the tape included."""
    manager, limits = changing(3, 4, 700), []
    for chunk in make_plan(tape_of(), manager=manager).chunks:
        manager.follow_changes(chunk.seq)
        limits.append((chunk.first, int(manager.limits.cell_limits([0], ["A"], [0])[1]["order_qty"][0])))
    assert limits == [(0, 9), (3, 10), (4, 11)]
    assert [row for row, _ in manager.changes] == [700]


def test_what_is_left_of_chunks_from_a_row_on():
    chunks = [Chunk(0, 4, 0), Chunk(4, 9, 4), Chunk(9, 12, 9)]
    assert plan.chunks_from(chunks, 0) == chunks
    assert plan.chunks_from(chunks, 4) == chunks[1:]
    assert plan.chunks_from(chunks, 6) == [Chunk(6, 9, 4), Chunk(9, 12, 9)]
    assert plan.chunks_from(chunks, 12) == []


def test_audits_come_after_four_times_as_many_rows_and_where_limits_change(monkeypatch):
    monkeypatch.setattr(plan, "FIRST_CHUNK", 2)
    chunks = [Chunk(0, 5, 0), Chunk(5, 6, 5), Chunk(6, 60, 6)]
    found = list(plan.chunks_between_audits(chunks, 50))
    assert found == [Chunk(0, 2, 0), Chunk(2, 5, 0), Chunk(5, 6, 5), Chunk(6, 50, 6)]
    assert list(plan.chunks_between_audits(chunks, 0)) == []


def test_the_indices_of_a_chunk_are_those_of_its_rows_in_each_partition():
    """A row is in one partition only, and what is not of the chunk in none."""
    found = make_plan(tape_of(parts=3, symbols=list("ABCABCABCABC")), manager=changing(4, 5))
    for chunk in found.chunks:
        spans = [found.indices(own, chunk) for own in found.partitions[0]]
        rows = np.concatenate([found.tape.commands.order[start:stop] for start, stop in spans])
        assert sorted(rows.tolist()) == list(range(chunk.first, chunk.stop))


def test_all_of_a_partition_is_its_share_of_all_rows():
    found = make_plan(tape_of(parts=2))
    assert [found.indices(own, found.chunks[0]) for own in found.partitions[0]] == found.partitions[0]
    assert make_plan(tape_of()).indices(Partition(0, ROWS), Chunk(3, 7, 3)) == (3, 7)


# ------------------------------------------------------------------ what ties partitions


@pytest.mark.parametrize(
    ("parts", "limits", "kill", "tied"),
    [
        (2, None, None, False),
        (2, {"max_order_qty": 5}, None, False),
        (2, {"max_portfolio_value": 5}, None, True),
        (1, {"max_portfolio_value": 5}, None, False),
        (2, {"max_order_qty": 5}, 7, True),
        (1, {"max_order_qty": 5}, 7, False),
    ],
)
def test_limits_on_money_and_kills_tie_partitions(parts, limits, kill, tied):
    """One partition has nothing to be tied to."""
    tape = tape_of(parts, **killed(kill) if kill is not None else {})
    manager = RiskManager(Limits(**limits)) if limits is not None else None
    assert make_plan(tape, 2, manager).tied is tied


def test_partitions_run_side_by_side_up_to_a_kill():
    """One thread runs nothing side by side."""
    tape, manager = tape_of(2, **killed(7)), RiskManager(Limits(max_order_qty=5))
    assert make_plan(tape, 2, manager).apart_until == 7
    assert make_plan(tape, 1, manager).apart_until == 0
    assert make_plan(tape_of(2), 2, manager).apart_until == ROWS


def test_rows_are_visited_in_the_order_of_the_input():
    tape = tape_of(parts=3, symbols=list("ABCABCABCABC"))
    found = make_plan(tape).index_of_row
    assert np.array_equal(tape.commands.order[found], np.arange(ROWS))


# ------------------------------------------------------------------ the manager


def test_positions_are_marked_when_a_period_ends():
    """Before the first row of another period; a plan leaves the manager as it is, so it can be made again."""
    seconds = [0, 0, 1, 1, 1, 2, 5, 5, 5, 6, 6, 6]
    tape = tape_of(ts=[SECOND * second for second in seconds])
    manager = RiskManager(Limits(max_portfolio_value=5, mark_interval=SECOND))
    found = [make_plan(tape, manager=manager).marks for _ in range(2)]
    assert [marks.rows.tolist() for marks in found] == [[2, 5, 6, 9]] * 2
    assert found[0].clock.tolist() == [6 * SECOND, 1]
    assert not manager.mark_clock.any()


def test_nothing_is_marked_where_no_limit_is_on_money():
    tape = tape_of(ts=[SECOND * row for row in range(ROWS)])
    assert make_plan(tape, manager=RiskManager(Limits(max_order_qty=5))).marks.rows.size == 0
    assert make_plan(tape).marks.rows.size == 0


@pytest.mark.parametrize(
    ("keys", "partitions"), [(None, 4), ({"max_order_qty": 5}, 4), ({"max_portfolio_value": 5}, 1)]
)
def test_a_flow_is_cut_for_threads_unless_limits_tie_it(keys, partitions):
    assert plan.partitions_for(4, Limits(**keys) if keys is not None else None) == partitions
