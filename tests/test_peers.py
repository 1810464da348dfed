"""The comparison with other packages: its files, its judgement and its processes (without the packages)."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import hftlab
from benchmarks.peers import __main__ as command
from benchmarks.peers import environment, files
from benchmarks.peers.contest import HERE, Contender, Entry, Failed, contest, difference


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One small market in both formats."""
    folder = tmp_path_factory.mktemp("peers")
    events = files.market(3_000, 1)
    files.write_itch(folder, events)
    files.write_lobster(folder, events)
    return folder


@pytest.fixture
def ours():
    """hftlab as a contender."""
    contender = Contender("hftlab", "with_hftlab.py", ours=True)
    yield contender
    contender.close()


def touches(path):
    """The best bid and offer at the end of each moment in which it changed."""
    run = hftlab.replay(hftlab.open_flow(path), mode="rebuild", record=("l1",))
    assert run.summary()["rejected"] == 0
    return run.l1.drop("seq").group_by("ts", maintain_order=True).last()


def test_one_market_in_two_formats(folder):
    """ITCH and LOBSTER tell the same story: the same touch at every moment."""
    itch, lobster = touches(folder / files.ITCH_NAME), touches(folder / files.LOBSTER_NAME)
    assert itch.height > 300
    assert itch.equals(lobster)


def test_every_peer_is_pinned_and_has_a_script():
    """What is compared is exactly what the `peers` extra says."""
    assert set(environment.pins()) == set(command.SCRIPTS)
    assert all("==" in pin for pin in environment.pins().values())
    assert all((HERE / script).is_file() for script in command.SCRIPTS.values())


def test_a_result_is_compared_before_its_time_counts(folder, ours):
    """hftlab agrees with itself; its figures say how many messages and rows they are of."""
    (entry,) = contest([ours], "bbo", folder / files.ITCH_NAME, 3_000, rounds=2)
    assert isinstance(entry, Entry)
    assert (entry.contender, entry.verdict) == ("hftlab", "same")
    assert entry.rows > 300
    assert 0 < entry.best_ns <= entry.wall_ns


def test_a_contender_that_fails_says_why(tmp_path, ours):
    """What a package raises is reported of it, and so is that it doesn't start at all."""
    (name, why) = contest([ours], "bbo", tmp_path / "nothing.NASDAQ_ITCH50", 1, rounds=1)[0]
    assert name == "hftlab"
    assert "there is no such file" in why
    with pytest.raises(Failed, match=r"ended with status 2: .*No such file"):
        Contender("nobody", "with_nobody.py", ours=True)


def test_a_difference_is_shown():
    """Which column, how many rows, and the first of them."""
    one = {"px": np.array([1, 2, 3]), "mine": np.array([1])}
    assert difference(one, {"px": np.array([1, 2, 3]), "theirs": np.array([2])}) is None
    assert difference(one, {"px": np.array([1, 2])}) == "px: 2 rows, hftlab has 3"
    assert difference(one, {"px": np.array([1, 5, 6])}) == "px: 2 rows differ, row 1 first: 5, hftlab has 2"
    assert difference(one, {"other": np.array([1])}) == "nothing to compare"


def test_facts_of_the_generator():
    """Rebuilt from what a venue tells of them, the books are those that the commands made."""
    from benchmarks import facts

    run = hftlab.replay(facts.facts(5_000, 3), mode="rebuild", record=("book", "rejects"))
    assert run.rejects.height == 0
    made = hftlab.replay(hftlab.generate(5_000, 3, 1), record=("book",))
    same = ("symbol", "side", "price", "qty", "order_id")
    books = [pl.from_arrow(r.to_arrow("book")).select(same).cast({"symbol": pl.String}) for r in (run, made)]
    assert books[0].sort(same).equals(books[1].sort(same))
