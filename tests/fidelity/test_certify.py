"""The certificate: each kind of difference between venue and replay is found, counted and given its cause."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import hftlab
from hftlab.errors import UsageError
from hftlab.feeds import Fault, Flow
from hftlab.fidelity import page
from hftlab.fidelity.certify import MEANING, Cause, certify
from tests.helpers.facts import mbo


def causes(*facts):
    return certify(mbo(*facts)).causes


# ------------------------------------------------------------------ what is reproduced


def test_a_venue_of_price_time_priority_is_reproduced():
    """Every execution, every book, and nothing diverges."""
    found = certify(
        mbo("A1 S 5@10", "A2 S 5@10", "F1 S 5@10", "C1 S 5@10", "F2 S 2@10", "C2 S 2@10", "A3 B 4@9")
    )
    assert (found.executions, found.reproduced, found.oldest_first, found.known_makers) == (2, 2, 2, 2)
    assert (found.execution_share, found.touch_share, found.depth_share) == (1.0, 1.0, 1.0)
    assert found.causes == {}
    assert found.first_divergence is None


def test_a_remainder_is_reproduced():
    """The taker's rest stands in both books."""
    found = certify(mbo("A1 S 5@10", "F1 S 5@10", "C1 S 5@10", "A2 B 3@10"))
    assert (found.reproduced, found.commands) == (1, 2)
    assert found.touch_equal == found.events > 0


def test_books_are_not_compared_inside_a_command():
    """Four facts of one incoming order: only the last of them is an end for both books."""
    facts = ("A1 S 5@10", "A2 S 5@11", "F1 S 5@10 last", "C1 S 5@10 last", "F2 S 1@11 last", "C2 S 1@11 last")
    assert certify(mbo(*facts)).events == 1
    assert certify(mbo(*facts)).touch_equal == 1


def test_books_are_compared_at_event_ends_only():
    """Where the source marks the ends of its events."""
    facts = ("A1 S 5@10", "A2 S 5@11 last", "A3 S 5@11", "A4 S 5@12 last")
    assert certify(mbo(*facts)).events == 2


def test_instruments_are_compared_with_themselves():
    """Their events alternate; each book is found again where it was left."""
    facts = ("A1 S 5@10 =X", "A1 B 7@20 =Y", "A2 S 5@11 =X", "F1 B 7@20 =Y", "C1 B 7@20 =Y", "C2 S 5@11 =X")
    found = certify(mbo(*facts))
    assert (found.symbols, found.reproduced) == (2, 1)
    assert found.depth_equal == found.events == 5


def test_instruments_are_certified_on_their_own():
    """Interleaved row by row or one after the other, with events marked: the same counts."""
    x = ("A1 S 5@10 =X last", "A2 S 5@11 =X last", "T0 B 2@9 =X", "F1 S 5@10 =X", "C1 S 5@10 =X last")
    y = ("A1 B 7@20 =Y last", "T0 S 2@20 =Y last", "A3 S 1@30 =Y", "F1 B 7@20 =Y", "C1 B 7@20 =Y last")
    mixed = certify(mbo(*(fact for pair in zip(x, y, strict=True) for fact in pair)))
    for other in (certify(mbo(*x, *y)), certify(mbo(*y, *x))):
        for name in ("executions", "hidden", "reproduced", "events", "depth_equal", "causes", "known_makers"):
            assert getattr(mixed, name) == getattr(other, name), name
    assert (mixed.hidden, mixed.events, mixed.depth_equal) == (1, 6, 6)


def test_a_removal_told_late_leaves_the_books_different_until_then():
    """At the next fact of the instrument or at the same time it belongs to its execution, later not."""
    facts = ("A1 S 5@10", "A9 B 1@3 =Y", "F1 S 5@10", "A8 B 1@2 =Y")
    assert certify(mbo(*facts, "C1 S 5@10 t2")).depth_share == 1.0
    found = certify(mbo(*facts, "A2 S 5@12 t2", "C1 S 5@10 t3"))
    assert (found.events, found.depth_equal) == (6, 4)


def test_a_crossed_opening_is_reproduced():
    """A snapshot and an auction's orders rest in both books whatever they cross."""
    snapshot = ("A1 S 5@10 snapshot", "A2 B 5@11 snapshot", "A3 B 1@10")
    found = certify(mbo(*snapshot))
    assert found.depth_share == 1.0
    assert found.crossed_events == 2


# ------------------------------------------------------------------ causes


def test_a_hidden_order():
    """A trade without a displayed execution; it is no displayed execution itself."""
    found = certify(mbo("A1 S 5@10 last", "T0 B 3@9 last"))
    assert found.causes == {"HIDDEN_ORDER": 1}
    assert (found.hidden, found.executions, found.execution_share, found.all_execution_share) == (
        1,
        0,
        None,
        0.0,
    )


def test_a_trade_that_comes_with_its_executions_is_not_hidden():
    """One event tells both, as CME does."""
    assert causes("A1 S 5@10 last", "T7 B 5@10", "F1 S 5@10", "C1 S 5@10 last") == {}


def test_a_maker_that_was_never_added():
    """It rested before the file begins."""
    found = certify(mbo("A1 S 5@10", "F9 S 5@10", "C9 S 5@10"))
    assert found.causes == {"INITIAL_BOOK": 1}
    assert found.facts_rejected == {"UNKNOWN_ORDER": 1}
    assert found.known_makers == 0


def test_an_unknown_maker_without_a_side():
    """It was never added, whatever kind of trading it was."""
    assert causes("A1 S 5@10", "F9 - 5@10", "C9 - 5@10") == {"INITIAL_BOOK": 1}


def test_an_auction():
    """It trades in a crossed book and leaves it uncrossed."""
    facts = ("A1 S 5@10 snapshot", "A2 S 5@11 snapshot", "A3 B 5@11 snapshot")
    uncrossing = ("F3 B 5@11", "C3 B 5@11", "F1 S 5@11", "C1 S 5@10")
    assert causes(*facts, *uncrossing).get("AUCTION", 0) >= 1


def test_a_cross_that_names_no_order():
    """A trade without a side and without executions: NASDAQ's crosses are told so."""
    found = certify(mbo("A1 S 5@10 last", "T0 - 300@10 last"))
    assert (found.causes, found.hidden) == ({"AUCTION": 1}, 1)


@pytest.mark.parametrize("removal", ["C1 S 5@10", "C1 S 5@12", "M1 S 1@10", "N - 0@0"])
def test_a_price_that_is_not_the_order_s(removal):
    """An execution at another price than the maker's is a cross, however the removal is told."""
    assert causes("A1 S 6@10", "F1 S 5@12", removal) == {"AUCTION": 1}


def test_a_book_that_stays_crossed_while_trading_goes_on():
    """Facts are missing: orders stand in it that are long gone."""
    facts = ("A1 S 5@10 snapshot", "A2 S 5@12 snapshot", "A3 B 5@11 snapshot", "F2 S 1@12 t2", "C2 S 1@12 t2")
    assert causes(*facts) == {"INCOMPLETE_BOOK": 1}


def test_an_execution_that_is_out_of_order():
    """Earlier than the fact before it, and not explained otherwise."""
    assert causes("A1 S 5@10 t5", "A2 S 5@10 t6", "F2 S 5@10 t5", "C2 S 5@10 t5") == {"OUT_OF_ORDER": 1}


def test_not_the_best_price():
    """A better one was displayed."""
    assert causes("A1 S 5@10", "A2 S 5@11", "F2 S 5@11", "C2 S 5@11") == {"NOT_BEST_PRICE": 1}


def test_not_the_oldest():
    """An older order stood at the same price."""
    assert causes("A1 S 5@10", "A2 S 5@10", "F2 S 5@10", "C2 S 5@10") == {"NOT_OLDEST": 1}


def test_a_priority_rule():
    """The order that was passed over had been modified: the venue has its own rule of what that costs."""
    facts = ("A1 S 5@10", "A2 S 5@10", "M1 S 4@10", "F2 S 5@10", "C2 S 5@10")
    assert causes(*facts) == {"PRIORITY_RULE": 1}


def test_an_m_that_only_reports_an_execution_is_no_modification():
    """Nobody asked for it, so it can't have cost the order its place; one of an earlier M stays."""
    reported = ("A1 S 5@10", "A2 S 5@10", "F1 S 2@10", "M1 S 3@10", "F2 S 5@10 t2", "C2 S 5@10 t2")
    assert causes(*reported) == {"NOT_OLDEST": 1}
    assert causes(*reported[:2], "M1 S 5@10", *reported[2:]) == {"PRIORITY_RULE": 1}


def test_executions_of_more_than_there_was():
    """Nothing is left of the order, however much they are together: 2^64 lots here."""
    much = [f"F1 S {2**62}@10"] * 4
    assert causes("A1 S 5@10", "A2 S 5@10", *much, "F2 S 5@10 t2") == {
        "NOT_OLDEST": 3,
        "EARLIER_DIVERGENCE": 2,
    }


def test_an_execution_of_nothing_knows_its_maker():
    """A size that is none doesn't make the order unknown."""
    assert certify(mbo("A1 S 5@10", "F1 S 0@10")).known_makers == 1


def test_an_id_used_again_is_not_modified():
    """Only what happened to this order counts."""
    facts = ("A1 S 5@10", "M1 S 4@10", "C1 S 4@10", "A1 S 5@10", "A2 S 5@10", "F2 S 5@10", "C2 S 5@10")
    assert causes(*facts) == {"NOT_OLDEST": 1}


def test_what_follows_from_a_divergence():
    """The venue's execution is in order, only our book is no longer the venue's."""
    facts = ("A1 S 5@10", "A2 S 5@10", "F2 S 5@10", "C2 S 5@10", "F1 S 5@10 t9", "C1 S 5@10 t9")
    found = certify(mbo(*facts))
    assert found.causes == {"NOT_OLDEST": 1, "EARLIER_DIVERGENCE": 1}
    assert (found.oldest_first, found.known_makers, found.reproduced) == (1, 2, 0)


def test_every_cause_has_a_meaning_and_every_execution_one_outcome():
    """reproduced + causes = executions + hidden."""
    assert set(MEANING) == set(Cause)
    rng = np.random.default_rng(11)
    for _ in range(30):
        facts = [
            f"{rng.choice(list('AACFFTM'))}{rng.integers(1, 6)} {rng.choice(['B', 'S'])} "
            f"{rng.integers(1, 5)}@{rng.integers(9, 12)} t{k // 3}{' last' if k % 2 else ''}"
            for k in range(40)
        ]
        found = certify(mbo(*facts))
        assert found.reproduced + sum(found.causes.values()) == found.executions + found.hidden, facts


# ------------------------------------------------------------------ the first divergence


def test_the_first_divergence_is_shown_with_its_neighbourhood():
    """What the venue executed, what the replay did, both books before, the facts around."""
    facts = [f"A{i} S 5@20" for i in range(11, 19)]
    found = certify(mbo("A1 S 5@10", "A2 S 5@10", *facts, "F2 S 3@10", "C2 S 3@10")).first_divergence
    assert (found.row, found.what, found.cause, found.symbol) == (10, "execution", "NOT_OLDEST", "X")
    assert [fill.maker_order_id for fill in found.venue] == [2]
    assert [fill.maker_order_id for fill in found.replay] == [1]
    assert found.venue_book == found.replay_book == ((10, 10, -1), (20, 40, -1))
    assert found.facts["row"].to_list() == [5, 6, 7, 8, 9, 10, 11]


def test_a_book_may_diverge_without_an_execution():
    """An unknown order that is modified into the book."""
    facts = ("A1 S 5@10 last", "A2 S 5@10", "F2 S 5@10", "C2 S 3@10 last", "A3 B 1@9 last")
    found = certify(mbo(*facts)).first_divergence
    assert found is not None


# ------------------------------------------------------------------ as table, JSON, page


def test_the_certificate_as_table_json_and_page():
    """Three forms of the same numbers."""
    found = certify(mbo("A1 S 5@10", "A2 S 5@10", "F2 S 5@10", "C2 S 5@10"))
    assert found.table["count"].to_list()[:3] == [0, 0, 0]
    assert found.cause_table.rows() == [("NOT_OLDEST", MEANING[Cause.NOT_OLDEST], 1)]
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["execution_share"] == 0.0
    assert plain["first_divergence"]["venue"] == [{"maker_order_id": 2, "price": 10, "qty": 5}]
    drawn = found.page()
    assert drawn.startswith("<!doctype html>")
    for text in ("NOT_OLDEST", "Certificate of fidelity", "0.00%", "The first divergence"):
        assert text in drawn
    assert found._repr_html_() in drawn


def test_the_json_of_a_certificate_is_enough_for_its_page():
    """What was written as JSON and read again gives the same page: no number is anywhere else."""
    found = certify(mbo("A1 S 5@10", "A2 S 5@10", "F2 S 5@10", "C2 S 5@10", "T0 B 1@11"))
    again = json.loads(json.dumps(found.as_dict()))
    assert page.page(again, found.table.rows(), found.cause_table.rows()) == found.page()


def test_the_page_knows_nothing_of_the_class():
    """Not even for a checker: a page that imports the certificate would close a circle."""
    tree = ast.parse(Path(page.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.startswith("hftlab")} == {"hftlab.codes"}


def test_a_flow_without_executions():
    """There is nothing to reproduce, and the page says so."""
    found = certify(mbo("A1 S 5@10"))
    assert found.execution_share is None
    assert "nothing to reproduce" in found.page()
    assert certify(mbo()).events == 0


# ------------------------------------------------------------------ wrong calls


def test_only_facts_can_be_certified(tmp_path):
    """Commands don't say what the venue did."""
    with pytest.raises(UsageError, match=r"found commands \(orders\), expected facts \(mbo\)"):
        certify(Flow(tmp_path / "x", "x", "orders", mbo()))


def test_symbols_of_a_flow():
    """Only those are certified; one that is not there is an error."""
    table = mbo("A1 S 5@10 =X", "A1 B 7@20 =Y", "F1 B 7@20 =Y", "C1 B 7@20 =Y")
    assert certify(Flow("x", "x", "mbo", table, symbols="Y")).rows == 3
    for symbols in ("Z", "Y,Z"):
        with pytest.raises(UsageError, match="no rows of Z, expected"):
            certify(Flow("x", "x", "mbo", table, symbols=symbols))
    with pytest.raises(UsageError, match="found no symbol column"):
        certify(Flow("x", "x", "mbo", table.drop_columns(["symbol"]), symbols="Y"))


def test_columns_of_the_user_s_own():
    """Whatever their names: the neighbourhood of a divergence has ours."""
    table = mbo("A1 S 5@10", "A2 S 5@10", "F2 S 5@10", "C2 S 5@10")
    found = certify(table.append_column("row", pa.array([9, 8, 7, 6])))
    assert found.first_divergence.facts["row"].to_list() == [0, 1, 2, 3]


def test_damage_that_the_feed_met():
    """It is part of the answer, and of the page."""
    faults = [Fault("byte 7", "<half a message>", "3 bytes more"), Fault("byte 9", "X", "Y", 4)]
    found = certify(Flow("x", "x", "mbo", mbo("A1 S 5@10"), faults=faults, notes=["a note"]))
    assert found.faults == tuple(map(str, faults))
    assert found.as_dict()["faults"] == found.faults
    assert "damaged: byte 7: found &lt;half a message&gt;, expected 3 bytes more" in found.page()
    assert "a note" in found.page()


def test_a_wrong_number_of_levels():
    """At least one."""
    with pytest.raises(UsageError, match="levels"):
        certify(mbo(), levels=0)


# ------------------------------------------------------------------ real files


def test_apple(data_dir):
    """The data README's figure: 4,031 of 4,055 executions of known ids hit the best level's oldest order."""
    data = data_dir
    path = next((data / "lobster").glob("AAPL*_message_*"))
    found = hftlab.certify(path)
    assert (found.oldest_first, found.known_makers) == (4_031, 4_055)
    assert found.causes["HIDDEN_ORDER"] == 2_201
    seeded = hftlab.open_flow(path, initial_book=next((data / "lobster").glob("AAPL*first672*")))
    better = hftlab.certify(seeded)
    assert better.reproduced > found.reproduced
    assert isinstance(better.table, pl.DataFrame)


def test_an_auction_tells_executions_without_a_side():
    """Orders of the book trade with each other; no order came in, and both books are the same afterwards."""
    facts = ("A1 S 5@10 snapshot", "A2 B 7@11 snapshot", "T0 - 5@11", "F1 - 5@11", "F2 - 5@11")
    found = certify(mbo(*facts, "C1 S 5@10", "C2 B 5@11 last", "A3 S 1@12 t9 last"))
    assert found.causes == {"AUCTION": 2}
    assert (found.commands, found.hidden) == (5, 0)
    assert found.depth_equal == found.events
    assert (found.first_divergence.cause, found.first_divergence.replay) == ("AUCTION", ())


def test_es(data_dir):
    """The data README: 5,620 of 6,336 fills after the open hit the oldest; every removal resolves."""
    pytest.importorskip("databento_dbn", reason="the extra databento is not installed")
    found = hftlab.certify(next((data_dir / "databento").glob("*20231225*")))
    assert (found.oldest_first, found.known_makers) == (5_620, 6_336)
    assert found.facts_rejected == {}
    assert found.causes["INITIAL_BOOK"] == 7  # at the opening, without a side, of orders that were never told
    assert found.causes["AUCTION"] >= 28


def test_price_levels(data_dir):
    """Nothing can be matched; the rebuilt touch is held against the venue's own."""
    found = hftlab.certify(next((data_dir / "binance").glob("*.gz")))
    assert (found.touch_equal, found.events) == (3_450, 3_450)
    assert (found.executions, found.hidden, found.causes) == (0, 9_757, {"PRICE_LEVELS": 9_757})
    assert found.table["share"].to_list() == [0.0, 1.0]
    assert "nothing can be matched" in found.page()
