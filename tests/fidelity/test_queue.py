"""Who was first in the queue: judged as told and when the event is over, and against another engine's ranks.

mbo-queue (MIT) rebuilds CME's queues by rules of its own, in C++. It is asked for the rank of each fill, and
nothing of it is used elsewhere; its test skips where it isn't installed.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import hftlab
from hftlab.codes import MBO_FLAG_LAST, MboAction
from hftlab.engine.book_states import queue_standings
from hftlab.fidelity.certify import certify
from hftlab.kernels.results.book_states import NOT_OPEN
from hftlab.schema import REFILLS_KEY
from hftlab.tape.compiler import compile_checked, rules_for
from hftlab.tape.facts import Mbo, Refills, facts_to_commands, read_mbo
from tests.helpers import tellers
from tests.helpers.facts import mbo


def back(table):
    """The same facts, of a venue that puts refills at the back of their level."""
    return table.replace_schema_metadata({REFILLS_KEY: b"back"})


def shares(*facts):
    """Oldest as told, oldest when the event is over, judged."""
    found = certify(mbo(*facts))
    return found.oldest_first, found.oldest_first_at_end, found.known_makers


# ------------------------------------------------------------------ the two shares


def test_a_queue_that_is_served_in_turn_has_both_shares():
    """Oldest first, and nothing is left before anybody."""
    assert shares("A1 S 5@10", "A2 S 5@10 last", "F1 S 5@10", "F2 S 1@10", "C1 S 5@10", "C2 S 1@10 last") == (
        2,
        2,
        2,
    )


def test_a_reversal_within_one_event_passes_only_when_it_is_over():
    """Three orders, told youngest first: the listing is no priority, but nor does it prove one."""
    adds = ("A1 S 1@10", "A2 S 1@10", "A3 S 1@10 last")
    removals = ("C1 S 1@10", "C2 S 1@10", "C3 S 1@10 last")
    assert shares(*adds, "F3 S 1@10", "F2 S 1@10", "F1 S 1@10", *removals) == (1, 3, 3)


def test_an_order_that_is_left_out_counts_in_both():
    """Neither as told nor in the end was the executed order first."""
    assert shares("A1 S 1@10", "A2 S 1@10 last", "F2 S 1@10", "C2 S 1@10 last") == (0, 0, 1)


def test_an_order_that_keeps_a_lot_is_left_out():
    """Executions must take all of it, else the younger one was before it."""
    adds = ("A1 S 3@10", "A2 S 1@10 last")
    assert shares(*adds, "F2 S 1@10", "F1 S 2@10", "C2 S 1@10", "C1 S 2@10 last") == (1, 1, 2)


def test_another_event_does_not_help():
    """What is executed later is executed later."""
    adds = ("A1 S 1@10", "A2 S 1@10 last")
    assert shares(*adds, "F2 S 1@10", "C2 S 1@10 last", "F1 S 1@10", "C1 S 1@10 last") == (1, 1, 2)


def test_a_better_level_that_the_event_empties_is_no_better_one():
    """Listed worst price first: not the best price as told, the best when it is over."""
    adds = ("A1 S 1@10", "A2 S 1@11 last")
    assert shares(*adds, "F2 S 1@11", "F1 S 1@10", "C1 S 1@10", "C2 S 1@11 last") == (1, 2, 2)


def test_where_no_ends_are_marked_a_time_is_an_event():
    """And the next time is another."""
    facts = ("A1 S 1@10", "A2 S 1@10", "F2 S 1@10 t5", "C2 S 1@10 t5")
    assert shares(*facts, "F1 S 1@10 t5", "C1 S 1@10 t5") == (1, 2, 2)
    assert shares(*facts, "F1 S 1@10 t6", "C1 S 1@10 t6") == (1, 1, 2)


def test_an_id_that_is_added_again_is_another_order():
    """The executions of the second don't make way for what stood behind the first."""
    adds = ("A1 S 2@10", "A2 S 1@10 last")
    facts = ("F2 S 1@10", "C1 S 2@10", "A1 S 2@10", "F1 S 2@10", "C2 S 1@10", "C1 S 2@10 last")
    assert shares(*adds, *facts) == (1, 1, 2)


def test_a_refill_stands_behind():
    """Under CME's rule the order that waited is the oldest, under the other one the iceberg."""
    facts = ("A1 S 1@10", "A2 S 1@10", "F1 S 1@10", "M1 S 1@10 last", "F2 S 1@10", "C2 S 1@10 last")
    assert (certify(back(mbo(*facts))).oldest_first, certify(mbo(*facts)).oldest_first) == (2, 1)
    assert (certify(back(mbo(*facts))).refills, certify(mbo(*facts)).refills) == ("back", "keep")
    assert "goes to the back of its level" in certify(back(mbo(*facts))).page()


# ------------------------------------------------------------------ what is judged


def test_a_fill_of_the_aggressor_s_own_order_is_no_execution():
    """It was moved across the spread: the T names it, its side is the T's."""
    moved = ("T1 S 1@9", "F1 S 1@9", "F2 B 1@9", "C2 B 1@9", "M1 S 1@9 last")
    found = certify(mbo("A1 S 2@10", "A2 B 1@9 last", *moved))
    assert (found.executions, found.aggressor_fills, found.known_makers) == (1, 1, 1)
    assert (found.reproduced, found.causes, found.depth_equal) == (1, {}, found.events)
    assert "aggressor" in found.page()
    assert found.as_dict()["aggressor_fills"] == 1


@pytest.mark.parametrize(
    "trade",
    ["T0 S 1@10", "T7 S 1@10", "T1 B 1@10", "T1 S 1@10 t0", "T1 S 1@10 =Y", "T1 - 1@10"],
    ids=["nameless", "another's", "the other side", "another time", "another instrument", "no side"],
)
def test_whose_fill_it_is(trade):
    """Only the last T of its time that names this order, with its side, makes an F the aggressor's own."""
    found = certify(mbo("A1 S 2@10 t0", trade, "F1 S 1@10", "C1 S 1@10"))
    assert (found.executions, found.aggressor_fills) == (1, 0)


def test_what_is_not_judged_is_counted_by_reason():
    """An unknown maker, no side, another price than the order's: in this order."""
    unknown, sideless, price = ("F9 S 1@10 t2",), ("F1 - 1@12 t3",), ("F1 S 1@12 t4",)
    found = certify(mbo("A1 S 9@10", *unknown, *sideless, *price, "F1 S 1@10 t5"))
    assert found.not_judged == {"INITIAL_BOOK": 1, "NO_SIDE": 1, "OTHER_PRICE": 1}
    assert found.known_makers == 1
    assert "INITIAL_BOOK 1, NO_SIDE 1, OTHER_PRICE 1" in found.page()


# ------------------------------------------------------------------ causes


def test_fills_in_another_order_are_a_cause_of_their_own():
    """Both are replayed, at each other's place."""
    facts = ("A1 S 5@10", "A2 S 5@10", "F2 S 5@10", "F1 S 5@10", "C2 S 5@10", "C1 S 5@10")
    found = certify(mbo(*facts))
    assert (found.causes, found.depth_equal) == ({"ORDER_OF_FILLS": 2}, found.events)


def test_one_left_out_by_two_orders_is_not_oldest():
    """Two incoming orders of one time: each is judged by itself, although the event takes all."""
    facts = ("A1 S 5@10", "A2 S 5@10", "T7 B 5@10", "F2 S 5@10", "C2 S 5@10", "T8 B 5@10", "F1 S 5@10")
    found = certify(mbo(*facts, "C1 S 5@10"))
    assert (found.causes, found.oldest_first_at_end) == ({"NOT_OLDEST": 1, "EARLIER_DIVERGENCE": 1}, 2)


def test_more_than_displayed():
    """An iceberg that is refilled within the event: the lots it did not show can't be matched."""
    facts = ("A1 S 2@10", "A2 S 3@10", "F1 S 2@10", "F2 S 3@10", "F1 S 1@10", "C2 S 3@10", "M1 S 1@10 last")
    found = certify(back(mbo(*facts)))
    assert (found.causes, found.reproduced) == ({"MORE_THAN_DISPLAYED": 1}, 2)
    assert found.depth_equal == found.events


# ------------------------------------------------------------------ sums


@pytest.mark.parametrize("seed", range(60))
def test_every_count_has_its_complement(seed):
    """Executions, judged or not; ends of events, compared or not; the course adds up to the whole."""
    table = tellers.table_of(tellers.facts(seed, 120), ("keep", "back")[seed % 2])
    found, fact = certify(table), table["action"].cast(pa.string()).to_pylist()
    marked = any(flags & MBO_FLAG_LAST for flags in table["flags"].to_pylist())
    ends = [flags & MBO_FLAG_LAST != 0 or not marked for flags in table["flags"].to_pylist()]
    assert found.executions + found.aggressor_fills == fact.count("F")
    assert found.reproduced + sum(found.causes.values()) == found.executions + found.hidden
    assert found.known_makers + sum(found.not_judged.values()) == found.executions
    assert found.events + sum(found.events_not_compared.values()) == sum(ends)
    names = ("executions", "reproduced", "events", "touch_equal", "depth_equal")
    assert found.over_time.select(names).sum().row(0) == tuple(getattr(found, name) for name in names)
    assert (found.rows, found.skipped) == (table.num_rows, 0)


def test_rows_of_other_symbols_are_told():
    """Rows and those skipped are all there are."""
    table = mbo("A1 S 5@10 =X", "A1 B 7@20 =Y", "A2 B 7@20 =Y")
    found = certify(hftlab.Flow("x", "x", "mbo", table, symbols="Y"))
    assert (found.rows, found.skipped) == (2, 1)


# ------------------------------------------------------------------ ranks


def ranks_of(facts: Mbo) -> np.ndarray:
    """Of each F, how many orders before it outlast its event; NOT_OPEN where its order is not open."""
    executes = facts.fact == MboAction.F
    told = np.where(executes, np.maximum(facts.size, 0), -1)
    fact = np.where(executes, np.int8(MboAction.C), facts.fact)
    named = facts._replace(fact=fact, size=np.where(executes, 1, facts.size))
    checked = facts_to_commands(named, refills=Refills().of(facts))
    tape = compile_checked(checked, rules_for(checked.symbols, None, None))
    last = facts.flags & MBO_FLAG_LAST != 0
    standings = queue_standings(tape, told, np.cumsum(last) - last, facts.fact == MboAction.A)
    return standings.ranks[executes]


def test_ranks():
    """Orders before it that keep something when the event is over."""
    facts = ("A1 S 1@10", "A2 S 2@10", "A3 S 1@10", "A4 S 1@10 last", "F4 S 1@10", "F9 S 1@10", "F2 S 1@10")
    assert ranks_of(read_mbo(mbo(*facts, "F1 S 1@10 last"))).tolist() == [2, NOT_OPEN, 0, 0]


def other_ranks(facts: Mbo) -> np.ndarray:
    """The same by mbo-queue."""
    fast = pytest.importorskip("mboq.fast", reason="needs mbo-queue, of the extra dev")
    letters = np.frombuffer(b"AMCRTFN", np.uint8)
    columns = {
        "ts_event": facts.ts.astype(np.uint64),
        "order_id": facts.order_id.view(np.uint64),
        "price": facts.price,
        "size": facts.size,
        "flags": facts.flags,
        "action": letters[facts.fact],
        "side": np.frombuffer(b"ANB", np.uint8)[facts.side + 1],
    }
    return fast.run(columns, tick=250_000_000)["fifo_rank"]


def test_ranks_are_those_of_mbo_queue(data_dir):
    """All 6,371 fills of the ES file; 5,921 of the 6,364 whose order is known are first in their queue."""
    pytest.importorskip("mboq.fast", reason="needs mbo-queue, of the extra dev")
    pytest.importorskip("databento_dbn", reason="the extra databento is not installed")
    facts = read_mbo(hftlab.open_flow(next((data_dir / "databento").glob("*20231225*"))).table())
    ours, theirs = ranks_of(facts), other_ranks(facts)
    assert np.flatnonzero(ours != theirs).size == 0
    assert (ours.size, np.count_nonzero(ours >= 0), np.count_nonzero(ours == 0)) == (6_371, 6_364, 5_921)


def test_without_refills_to_the_back_ranks_differ(data_dir):
    """The rule is what makes them equal: 40 fills have another rank where a refill keeps its place."""
    pytest.importorskip("mboq.fast", reason="needs mbo-queue, of the extra dev")
    pytest.importorskip("databento_dbn", reason="the extra databento is not installed")
    path = next((data_dir / "databento").glob("*20231225*"))
    facts = read_mbo(hftlab.open_flow(path, refills="keep").table())
    assert np.count_nonzero(ranks_of(facts) != other_ranks(facts)) == 40


@pytest.mark.parametrize("seed", range(20))
def test_ranks_of_a_made_up_venue_are_those_of_mbo_queue(seed):
    """Icebergs, fills listed in any order, orders that come and go: one event after the other."""
    pytest.importorskip("mboq.fast", reason="needs mbo-queue, of the extra dev")
    facts = read_mbo(back(mbo(*iceberg_market(np.random.default_rng(seed), 400))))
    assert ranks_of(facts).tolist() == other_ranks(facts).tolist()


def iceberg_market(rng: np.random.Generator, events: int) -> list[str]:
    """One side of a market as CME tells it: all F of an event, then a C or M of each order."""
    facts, queue, number = [], {}, 0
    for _ in range(events):
        if len(queue) < 4 or rng.random() < 0.5:
            number += 1
            queue[number] = (int(rng.integers(10, 13)), int(rng.integers(1, 6)))
            facts.append(f"A{number} S {queue[number][1]}@{queue[number][0]} last")
            continue
        makers = rng.permutation(list(queue))[: rng.integers(1, 4)].tolist()
        fills = {order: int(rng.integers(1, queue[order][1] + 1)) for order in makers}
        facts += [f"F{order} S {size}@{queue[order][0]}" for order, size in fills.items()]
        for order, size in fills.items():
            price, qty = queue[order]
            shown = int(rng.integers(1, 6)) if rng.random() < 0.4 else qty - size
            if shown:
                queue[order] = (price, shown)
                facts.append(f"M{order} S {shown}@{price}")
            else:
                del queue[order]
                facts.append(f"C{order} S {size}@{price}")
        facts[-1] += " last"
    return facts


# ------------------------------------------------------------------ the ES file


def test_es_shares(data_dir):
    """5,678 of 6,229 as told, 5,863 when the event is over; 107 fills are of the aggressor's own order."""
    pytest.importorskip("databento_dbn", reason="the extra databento is not installed")
    found = hftlab.certify(next((data_dir / "databento").glob("*20231225*")))
    assert (found.oldest_first, found.oldest_first_at_end, found.known_makers) == (5_678, 5_863, 6_229)
    assert (found.executions, found.aggressor_fills) == (6_264, 107)
    assert found.not_judged == {"INITIAL_BOOK": 7, "NO_SIDE": 28}
    assert (found.reproduced, found.touch_equal) == (5_047, 35_511)
    assert pl.DataFrame(found.table)["share"][2] == pytest.approx(5_678 / 6_229)


def test_who_was_left_out_on_es(data_dir):
    """All 344 fills that are not first: their events remove the orders before them without executing any."""
    pytest.importorskip("databento_dbn", reason="the extra databento is not installed")
    facts = read_mbo(hftlab.open_flow(next((data_dir / "databento").glob("*20231225*"))).table())
    rank = dict(
        zip(np.flatnonzero(facts.fact == MboAction.F).tolist(), ranks_of(facts).tolist(), strict=True)
    )
    where, trade, begin, waiting, counted = {}, 0, 0, [], 0
    columns = (facts.fact, facts.order_id, facts.side, facts.price, facts.flags)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    for row, (action, order_id, side, price, flags) in enumerate(rows):
        if action in (MboAction.A, MboAction.M):
            where[order_id] = (side, price)
        elif action == MboAction.T:
            trade = order_id
        elif action == MboAction.F and rank[row] > 0 and order_id != trade:
            waiting.append((where[order_id], rank[row]))
        if not flags & MBO_FLAG_LAST:
            continue
        event = rows[begin : row + 1]
        executed = {one[1] for one in event if one[0] == MboAction.F}
        removed = [where[one[1]] for one in event if one[0] == MboAction.C and one[1] not in executed]
        assert all(removed.count(level) >= before for level, before in waiting), row
        counted, begin, waiting = counted + len(waiting), row + 1, []
    assert counted == 344
