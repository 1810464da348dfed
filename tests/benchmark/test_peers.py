"""The comparison with other packages: its files, its judgement and its processes (without the packages)."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import hftlab
from benchmarks.peers import __main__ as command
from benchmarks.peers import environment, files, orders
from benchmarks.peers.contest import HERE, Contender, Entry, Failed, contest, difference
from tests.conftest import HANGS_S


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


def test_a_contender_that_dies_stops_nobody(folder, ours):
    """One that has ended, as by a crash, is reported each time; the others' figures are there."""
    other = Contender("other", "with_hftlab.py", ours=True)
    other._process.kill()
    for _ in range(2):
        entry, (name, why) = contest([ours, other], "decode", folder / files.ITCH_NAME, 3_000, rounds=2)
        assert (entry.contender, entry.verdict, name) == ("hftlab", "same", "other")
        assert "ended with status -9" in why
    other.close()


def test_a_contender_that_hangs_is_ended(tmp_path):
    """No answer in time is a reason like any other; the process is gone."""
    script = tmp_path / "hangs.py"
    hello = """print('{"version": "1", "tasks": ["bbo"]}', flush=True)"""
    script.write_text(f"import time\n{hello}\ntime.sleep(600)\n")
    hanging = Contender("hanging", str(script), ours=True)
    hanging.patience = 0.5
    with pytest.raises(Failed, match=r"no answer in 0.5 s"):
        hanging.run("bbo", tmp_path / "file")
    assert hanging._process.wait(timeout=HANGS_S) == -9
    hanging.close()


def test_only_what_is_asked_for_is_written(tmp_path):
    """Tasks on orders need no market in ITCH and LOBSTER, and the other way round."""
    assert [task for task, _, _ in command.write(tmp_path, ["match"], 3_000, 1)] == ["match"]
    assert not (tmp_path / files.ITCH_NAME).exists()
    assert not (tmp_path / files.LOBSTER_NAME).exists()
    assert command.write(tmp_path, ["match", "touch"], 3_000, 100) == []
    (other := tmp_path / "other").mkdir()
    assert [task for task, _, _ in command.write(other, ["books", "bbo"], 3_000, 1)] == ["bbo", "books"]
    assert [path.name for path in other.iterdir()] == [files.ITCH_NAME]


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


def test_books_are_compared_by_fills_and_levels(tmp_path, ours):
    """Orders call by call make the fills of `hftlab.replay`; so does the event loop."""
    commands, _ = orders.write(tmp_path, 3_000)
    path, to = tmp_path / orders.ORDERS_NAME, tmp_path / "found.npz"
    ours.run("match", path, to)
    found, flow = np.load(to), orders.flow(3_000)
    run = hftlab.replay(orders.table_of(flow.to_dict(as_series=True)), record=("fills", "book", "rejects"))
    assert commands == flow.height > 2_500
    assert run.rejects.height == 0
    for name, column in (("maker", "maker_order_id"), ("taker", "taker_order_id"), ("qty", "qty")):
        assert found[f"fills_{name}"].tolist() == run.fills[column].to_list()
    assert (found["fills_px"] * orders.TICK).tolist() == run.fills["price"].to_list()
    assert found["levels_sz"].sum() == run.book["qty"].sum() > 0
    other = Contender("hftlab, event loop", "hftlab_paths.py", "event", ours=True)
    entries = contest([ours, other], "match", path, commands, rounds=1)
    other.close()
    assert [(entry.verdict, entry.told) for entry in entries] == [("same", "fills, levels, best")] * 2


def test_levels_end_where_the_book_does(tmp_path, ours):
    """What the updates leave is what rests, and the last touch is the book's."""
    orders.write(tmp_path, 3_000)
    flow = orders.flow(3_000)
    updates = orders.level_updates(flow)
    left = updates.group_by("side", "price").last().filter(pl.col("qty") != 0)
    book = hftlab.replay(orders.table_of(flow.to_dict(as_series=True)), record=("book",)).book
    rests = book.group_by("side", pl.col("price") // orders.TICK).agg(pl.col("qty").sum())
    rests = rests.cast({"side": pl.Int64})
    assert updates["qty"].min() == 0
    assert left.sort("side", "price").equals(rests.sort("side", "price"))
    ours.run("touch", tmp_path / orders.LEVELS_NAME, to := tmp_path / "found.npz")
    touch = np.load(to)
    assert touch["bbo_bid_px"][-1] == left.filter(pl.col("side") > 0)["price"].max()
    assert touch["bbo_ask_px"][-1] == left.filter(pl.col("side") < 0)["price"].min()


def test_no_package_is_left_out(capsys):
    """Among the books that match stands every package: figures, in brackets where they differ, or why not."""
    figures = {"version": "1", "messages": 9, "wall_ns": 1.5, "best_ns": 1.0, "cpu_ns": 1.5, "rows": 3}
    books = [name for name in command.SCRIPTS if name not in command.NOT_MATCHING and name != "liquibook"]
    entries = [Entry(name, **figures, verdict="same", told="fills") for name in books[1:]]
    entries += [Entry(books[0], **figures, verdict="fills_px: 2 rows, hftlab has 3", told="fills")]
    command.show(1, {"match": entries}, {"liquibook": "no such version"})
    lines = {line[:18].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert set(command.SCRIPTS) <= set(lines)
    assert "no such version" in lines["liquibook"]
    assert "(1.5)" in lines[books[0]]
    assert lines[books[0]].endswith("differs: fills_px: 2 rows, hftlab has 3")
    assert "(" not in lines[books[1]]
    assert lines[books[1]].endswith("same: fills")
