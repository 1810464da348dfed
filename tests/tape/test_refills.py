"""Refills of icebergs: an M that gives its order more than executions left of it, and what that costs."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

import hftlab
from hftlab.errors import TableError, UsageError
from hftlab.feeds import Flow, open_flow
from hftlab.schema import REFILLS_KEY
from hftlab.tape.facts import Refills, read_mbo
from tests.helpers import tellers
from tests.helpers.facts import mbo
from tests.reference.certificate import Refills as TwinRefills
from tests.reference.certificate import facts_of


def at_the_back(table):
    """The same facts, of a venue that puts refills at the back of their level."""
    return table.replace_schema_metadata({REFILLS_KEY: b"back"})


def queue(table, **how):
    """Order ids of the rebuilt book, best level first, oldest first."""
    return hftlab.replay(table, "rebuild", record="book", **how).book["order_id"].to_list()


ICEBERG = ("A1 S 5@10", "A2 S 5@10", "F1 S 5@10", "M1 S 5@10")


@pytest.mark.parametrize("path", ["batch", "event"])
def test_a_refill_goes_to_the_back_where_the_venue_says_so(path):
    """CME: the F took what was displayed, the M shows as much again, behind who waited."""
    assert queue(at_the_back(mbo(*ICEBERG)), path=path) == [2, 1]
    assert queue(mbo(*ICEBERG), path=path) == [1, 2]


@pytest.mark.parametrize(
    ("facts", "left"),
    [
        (("F1 S 2@10", "M1 S 3@10"), [1, 2]),  # what the F left
        (("F1 S 2@10", "M1 S 2@10"), [1, 2]),  # less than that
        (("F1 S 2@10", "M1 S 4@10"), [2, 1]),  # a part was refilled
        (("F1 - 2@10", "M1 S 4@10"), [2, 1]),  # after an auction, too
        (("F1 S 2@10", "C1 S 2@10", "M1 S 3@10"), [1, 2]),  # the C has reported it
        (("F1 S 3@10", "C1 S 1@10", "M1 S 3@10"), [2, 1]),  # the C has reported one of three lots
        (("F1 S 2@10", "M1 S 3@10", "M1 S 3@10"), [1, 2]),  # an M has
        (("F2 S 5@10", "M1 S 5@10"), [1, 2]),  # it was another's
        (("M1 S 5@10", "F1 S 5@10"), [1, 2]),  # it comes after
    ],
)
def test_what_is_a_refill(facts, left):
    """More than executions since the order's last A, C or M have left of it."""
    assert queue(at_the_back(mbo("A1 S 5@10", "A2 S 5@10", *facts))) == left


def test_a_cleared_book_forgets():
    """After an R an id is another order: what was executed of the one before means nothing."""
    again = ("F1 S 5@10", "R0 - 0@0", "A1 S 5@10", "A2 S 5@10", "M1 S 5@10")
    assert queue(at_the_back(mbo("A1 S 5@10", *again))) == [1, 2]


def test_instruments_have_ids_of_their_own():
    """An execution in one is none in the other."""
    facts = ("A1 S 5@10 =X", "A1 S 5@10 =Y", "A2 S 5@10 =Y", "F1 S 5@10 =X", "M1 S 5@10 =Y")
    assert queue(at_the_back(mbo(*facts))) == [1, 1, 2]


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_chunks_pass_on_what_was_executed(rows):
    """An F at the end of one chunk, its M at the beginning of the next."""
    assert queue(at_the_back(mbo(*ICEBERG)), chunk_rows=rows) == [2, 1]


@pytest.mark.parametrize("seed", range(40))
def test_refills_are_the_twin_s(seed):
    """Row by row, whatever a venue may tell, in one piece and in several."""
    table = tellers.table_of(tellers.facts(seed, 300), "back")
    twins = {symbol: TwinRefills() for symbol in "XYZ"}
    expected = [twins[fact.symbol].see(fact) for fact in facts_of(table)]
    for size in (table.num_rows, 37):
        refills, found = Refills(), []
        for start in range(0, table.num_rows, size):
            mbo = read_mbo(piece := table.slice(start, size))
            marks = refills.of(mbo)
            found += marks.tolist() if marks.size else [False] * piece.num_rows
        assert found == expected, seed


def test_many_orders():
    """Ids come and go, more than there is room for at first; places are given out again."""
    rng, facts, expected = np.random.default_rng(3), [], []
    for number in range(3_000):
        refilled = bool(rng.random() < 0.5)
        facts += [f"A{number} S 5@10", f"F{number} S 2@10", f"M{number} S {4 if refilled else 3}@10"]
        expected += [False, False, refilled]
        if rng.random() < 0.7:
            facts.append(f"C{number} S 5@10")
            expected.append(False)
    table, refills = at_the_back(mbo(*facts)), Refills()
    found = [refills.of(read_mbo(table.slice(start, 500))) for start in range(0, table.num_rows, 500)]
    assert np.concatenate(found).tolist() == expected


# ------------------------------------------------------------------ who says which rule holds


def test_a_flow_declares_it(tmp_path):
    """Its tables carry it, to a file of ours and back."""
    flow = Flow(tmp_path / "x", "x", "mbo", mbo(*ICEBERG), refills="back")
    assert queue(flow) == queue(flow.table()) == queue(next(flow.batches(9))) == [2, 1]
    pq.write_table(flow.table(), path := tmp_path / "facts.parquet")
    assert (open_flow(path).refills, queue(open_flow(path))) == ("back", [2, 1])


def test_an_option_says_otherwise(tmp_path):
    """For any source of orders; and it is told with the run."""
    pq.write_table(mbo(*ICEBERG), path := tmp_path / "facts.parquet")
    flow = open_flow(path, refills="back")
    assert queue(flow) == [2, 1]
    assert hftlab.replay(flow, "rebuild").summary()["feed"]["refills"] == "back"
    assert queue(open_flow(path)) == [1, 2]


def test_wrong_rules(tmp_path):
    """A word that is none, and a source that has no orders to refill."""
    with pytest.raises(UsageError, match="refills: found 'front', expected one of keep, back"):
        Flow("x", "x", "mbo", mbo(), refills="front")
    with pytest.raises(TableError, match=r"metadata hftlab\.refills: found 'front', expected keep or back"):
        read_mbo(mbo("A1 S 5@10").replace_schema_metadata({REFILLS_KEY: b"front"}))
    pl.DataFrame({"action": ["CANCEL"], "order_id": [1]}).write_parquet(path := tmp_path / "orders.parquet")
    with pytest.raises(UsageError, match=r"refills: found 'back' for orders, expected facts by order"):
        open_flow(path, refills="back")


def test_cme_says_back(data_dir, tmp_path):
    """Databento's dataset GLBX.MDP3; as CSV its publisher 1. No other feed says so."""
    header = "ts_event,rtype,publisher_id,instrument_id,action,side,price,size,order_id,flags,sequence\n"
    for publisher, rule in ((1, "back"), (2, "keep")):
        (path := tmp_path / f"{publisher}.csv").write_text(
            f"{header}1700000000000000000,160,{publisher},7,A,B,1000000000,1,5,128,1\n"
        )
        assert open_flow(path).refills == rule
    assert open_flow(next((data_dir / "lobster").glob("AAPL*_message_*"))).refills == "keep"
    pytest.importorskip("databento_dbn", reason="the extra databento is not installed")
    assert open_flow(next((data_dir / "databento").glob("*20231225*"))).refills == "back"
