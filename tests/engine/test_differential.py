"""The package against the slow twin: the same flows through both, and every output compared, row by row.

A failure names flow and seed, shrinks the flow to the few rows that still fail, writes them as a small CSV
and shows them. `pytest -m fuzz` runs ten million commands; HFTLAB_FUZZ_COMMANDS says another number.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab
from hftlab.codes import DEFAULT_SYMBOL, Action, OrderType, Status, Tif
from tests.helpers import flows
from tests.helpers.flows import Flow
from tests.helpers.play import Player, Row, Story
from tests.helpers.slices import fewer, fuzz_budget
from tests.reference import frames, package
from tests.reference.book import Command, ReferenceVenue, garbage_collector_off
from tests.reference.shrink import ddmin

SMALL = partial(fewer, plain=40, checked=8)
SIZE = SMALL(8_000)  # per flow and seed in the default run: 17 flows, 3 seeds, 408,000 commands in 5 ways
EXAMPLES = SMALL(300)
SEEDS = (1, 2, 3)[: fewer(3, plain=3, checked=3)]
DEPTH = 3
TABLES = ("outcomes", "fills", "rejects", "l1", "book")

FUZZ_SLICE = 200_000

Options = dict[str, Any]
WAYS: dict[str, Options] = {
    "batch": {},
    "batch, two threads": {"threads": 2},
    "batch in chunks": {"chunk_rows": SMALL(977)},
    "batch in chunks, two threads": {"chunk_rows": SMALL(3_001), "threads": 2},
    "event by event": {"path": "event"},
}


# -- one flow through both


def expected_of(flow: Flow) -> dict[str, pl.DataFrame]:
    """What the slow twin says."""
    venue = ReferenceVenue(flow.tick, flow.allow_nonpositive, depth_levels=DEPTH)
    with garbage_collector_off():
        return frames.of_venue(venue.run(flow.rows()))


def replayed(flow: Flow, options: Options) -> Any:
    """What the package says."""
    return package.replay(flow.table(), flow.tick, flow.allow_nonpositive, DEPTH, **options)


def difference(flow: Flow, options: Options, expected: dict[str, pl.DataFrame] | None = None) -> str | None:
    """How the package differs from the twin on that flow, or None; an exception is a difference too."""
    expected = expected if expected is not None else expected_of(flow)
    try:
        run = replayed(flow, options)
        return frames.first_difference(expected, frames.of_run(run, TABLES, DEPTH))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def shrunk(flow: Flow, options: Options) -> Flow:
    """The least of the flow that still makes a difference."""
    rows = ddmin(range(len(flow)), lambda rows: difference(flow.take(rows), options) is not None)
    return flow.take(rows)


def report(flow: Flow, way: str, first: str, folder: Path) -> str:
    """All that is needed to look into a difference."""
    small = shrunk(flow, WAYS[way])
    path = small.write_csv(folder / f"{flow.name}-{flow.seed}.csv")
    return (
        f"flow {flow.name!r}, seed {flow.seed}, {len(flow)} commands, {way}:\n  {first}\n"
        f"shrunk to {len(small)} rows, tick {flow.tick}, in {path}:\n  "
        f"{difference(small, WAYS[way])}\n{path.read_text()}"
    )


def check(flow: Flow, ways: tuple[str, ...], folder: Path) -> None:
    """Fail with a report when one of the ways differs from the twin."""
    expected = expected_of(flow)
    for way in ways:
        first = difference(flow, WAYS[way], expected)
        if first is not None:
            pytest.fail(report(flow, way, first, folder), pytrace=False)


# -- seeded flows


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", flows.FLOWS)
def test_a_flow_gives_what_the_twin_gives(name, seed, tmp_path):
    """Every fill, outcome, reject, touch, depth and the final book, in every way of replaying."""
    check(flows.make(name, SIZE, seed), tuple(WAYS), tmp_path)


@pytest.mark.parametrize("name", flows.FLOWS)
def test_the_digest_is_the_same_in_every_way(name):
    """Chunks, threads and path change nothing, and the digest says so; another flow has another digest."""
    flow = flows.make(name, SIZE, seed=4)
    digests = {way: replayed(flow, options).digest for way, options in WAYS.items()}
    assert len(set(digests.values())) == 1, f"flow {name!r}, seed 4: {digests}"
    assert replayed(flows.make(name, SIZE, seed=5), {}).digest not in digests.values()


@pytest.mark.parametrize("chunk_rows", [1, 2, 7, 24, 25, 26, 999, 1_000, 1_001])
def test_the_size_of_chunks_changes_nothing(chunk_rows, tmp_path, monkeypatch):
    """A chunk of one row, and chunks that end just before, at and after the last row."""
    monkeypatch.setitem(WAYS, "these chunks", {"chunk_rows": chunk_rows})
    check(flows.make("tight", SMALL(1_000), seed=6), ("these chunks",), tmp_path)


@pytest.mark.parametrize("shape", ["polars", "lazy", "dict", "chunked arrow"])
def test_the_shape_of_a_table_changes_nothing(shape):
    """Arrow in one piece or several, Polars, lazy Polars and a dict of arrays give one digest."""
    flow = flows.make("tight", SMALL(2_000), seed=7)
    frame = pl.from_arrow(flow.table())
    pieces = pl.concat([frame[:33], frame[33:]], rechunk=False)
    shapes = {
        "polars": frame,
        "lazy": frame.lazy(),
        "dict": {name: frame[name].to_numpy() for name in frame.columns if name != "new_order_id"}
        | {"new_order_id": frame["new_order_id"]},
        "chunked arrow": pieces.to_arrow(),
    }
    assert package.replay(shapes[shape], flow.tick).digest == replayed(flow, {}).digest


@pytest.mark.parametrize("name", flows.FLOWS)
def test_calling_an_order_book_gives_what_the_twin_gives(name):
    """`OrderBook`, one Python call per command, agrees with the twin in all that it tells."""
    flow = flows.make(name, SMALL(1_000), seed=10)
    flow = replace(flow, tick=flow.tick or 1)  # a book has a tick
    books = package.OrderBooks(flow.tick, flow.allow_nonpositive, DEPTH)
    for ts, symbol, *command in flow.rows():
        books.apply(ts, symbol, Command(*command))
    found = books.frames()
    assert frames.first_difference(expected_of(flow), found) is None, f"flow {name!r}, seed 10"


@pytest.mark.parametrize("carried_over", ["snapshot", "copy"])
def test_a_book_goes_on_where_its_snapshot_was_taken(carried_over):
    """A book that is copied, or saved and restored, every few commands behaves as one that never was."""
    flow = flows.make("tight", SMALL(1_000), seed=11)
    books = package.OrderBooks(flow.tick, flow.allow_nonpositive, DEPTH)
    for seq, (ts, symbol, *command) in enumerate(flow.rows()):
        books.apply(ts, symbol, Command(*command))
        if seq % 17 == 0:
            book = books.books[symbol]
            saved = hftlab.OrderBook.restore(book.snapshot()) if carried_over == "snapshot" else book.copy()
            book.clear()
            books.books[symbol] = saved
    assert frames.first_difference(expected_of(flow), books.frames()) is None


@pytest.mark.parametrize("name", ["tight", "venue", "untold"])
def test_a_tape_can_be_replayed_again(name):
    """A tape is read only: replayed twice, in any way, it gives the same digest as the table."""
    flow = flows.make(name, SMALL(3_000), seed=12)
    tape = hftlab.compile_tape(flow.table(), tick_size=flow.tick)
    ways = ({}, {}, {"threads": 2}, {"path": "event"})
    assert {hftlab.replay(tape, **options).digest for options in ways} == {replayed(flow, {}).digest}


@pytest.mark.parametrize("names", [("fills",), ("outcomes",), ("rejects", "l1"), ("depth",), ("book",), ()])
def test_what_is_recorded_changes_nothing_else(names):
    """Each table is the same whatever else is recorded, and so is the digest."""
    flow = flows.make("tight", SMALL(3_000), seed=13)
    config = package.settings(flow.tick, flow.allow_nonpositive, DEPTH)
    run = hftlab.replay(flow.table(), record=names, config=config)
    expected = expected_of(flow)
    found = frames.of_run(run, tuple(set(names) - {"depth"}), DEPTH if "depth" in names else 0)
    assert frames.first_difference(expected, found) is None
    assert run.digest == replayed(flow, {}).digest


def test_instruments_do_not_depend_on_each_other():
    """One instrument of many gives the outcomes it gives among the others, under the rows it has there."""
    flow = flows.make("venue", SIZE, seed=14)
    expected = expected_of(flow)
    found = frames.of_run(replayed(flow, {"symbols": ["SYM1"]}), ("fills", "rejects", "l1", "book"), DEPTH)
    for name, frame in found.items():
        rows = expected[name].filter(pl.col("symbol") == "SYM1")
        columns = [column for column in frame.columns if column != "match_id"]  # counted in the run
        assert frames.first_difference({name: rows}, {name: frame.select(columns)}) is None


def test_rebuilding_from_facts_gives_what_the_twin_gives():
    """Rejects, touch, depth and the final book of a rebuild, in one piece and in chunks."""
    table = flows.facts(SMALL(20_000), seed=8)
    venue = ReferenceVenue(flows.CENT, depth_levels=DEPTH)
    expected = frames.of_venue(venue.rebuild(flows.fact_rows(table)))
    for options in WAYS.values():
        run = package.replay(table, flows.CENT, levels=DEPTH, mode="rebuild", **options)
        found = frames.of_run(run, ("outcomes", "l1", "book"), DEPTH)
        assert frames.first_difference(expected, found) is None, options
        rejects = ["seq", "order_id", "reason", "stage", "limit_value", "observed_value"]
        found_rejects = frames.of_run(run, ("rejects",))["rejects"]
        assert (
            frames.first_difference(
                {"rejects": expected["rejects"].select(rejects)}, {"rejects": found_rejects.select(rejects)}
            )
            is None
        )


# -- the fuzzing itself


@pytest.mark.fuzz
def test_ten_million_commands_agree(tmp_path):
    """At least ten million random commands through kernel and twin agree on every output."""
    budget = fuzz_budget()
    most = min(FUZZ_SLICE, -(-budget // len(flows.FLOWS)))  # each flow has its turn
    ways = cycle(WAYS)
    played, seed = 0, 1_000
    for name in cycle(flows.FLOWS):
        size = min(most, budget - played)
        if size <= 0:
            break
        check(flows.make(name, size, seed), (next(ways),), tmp_path)
        played, seed = played + size, seed + 1
    assert played >= budget


def test_a_difference_is_shrunk_and_shown(tmp_path, monkeypatch):
    """When an engine is wrong, the report has flow, seed, and a CSV of the few rows that show it."""
    flow = flows.make("tight", 2_000, seed=9)

    def wrong(flow: Flow, options: Options, expected: Any = None) -> str | None:
        fills = expected_of(flow)["fills"]
        return "fills: too many" if fills.height > 1 else None

    monkeypatch.setattr("tests.engine.test_differential.difference", wrong)
    text = report(flow, "batch", "fills: too many", tmp_path)
    assert "flow 'tight', seed 9" in text
    small = pl.read_csv(tmp_path / "tight-9.csv")
    assert 3 <= small.height <= 4
    assert small["action"].to_list()[0] == "NEW"


# -- properties of small flows


def commands(ids: int = 5, accounts: int = 2) -> st.SearchStrategy[Command]:
    """Any command, good or bad, on few ids and prices."""
    return st.builds(
        Command,
        action=st.sampled_from([0, 0, 0, 0, 1, 2, 3, 3, 4, 5]),
        order_id=st.integers(1, ids),
        new_order_id=st.none() | st.integers(1, ids),
        side=st.sampled_from([1, -1]),
        order_type=st.sampled_from([0, 0, 0, int(OrderType.MARKET)]),
        tif=st.sampled_from([int(tif) for tif in Tif]),
        price=st.integers(-1, 6).map(lambda ticks: ticks * 10**9),
        qty=st.integers(-1, 9) | st.sampled_from([2**62, 2**63 - 1]),
        account=st.integers(0, accounts - 1),
        post_only=st.booleans(),
    )


STORIES = st.lists(commands(), max_size=30).map(lambda many: [Row(DEFAULT_SYMBOL, one) for one in many])
ENGINE = st.sampled_from(["batch", "event", "order_book"])


class Ledger:
    """What each order has open, kept from commands, outcomes and fills alone, quantity by quantity."""

    def __init__(self) -> None:
        self.open: dict[int, int] = {}
        self.account: dict[int, int] = {}

    def enter(self, command: Command, outcome: tuple, fills: list[dict[str, Any]]) -> None:
        """Book one command; an AssertionError means that quantity was made or lost."""
        status, filled, leaves = outcome
        if status is Status.REJECTED:
            assert (filled, leaves, fills) == (0, 0, [])
            return
        before = self._leave(command, status)
        for fill in fills:
            self._trade(fill)
        assert filled == sum(fill["qty"] for fill in fills)
        if command.action == Action.NEW:
            expired = command.qty - filled - leaves
            assert (expired > 0) if status is Status.EXPIRED else (expired == 0)
        elif command.action == Action.REPLACE:
            assert filled + leaves == command.qty
        elif command.action == Action.REDUCE:
            assert leaves == max(0, before - command.qty)
        if leaves:
            self._rest(command, leaves)

    def _leave(self, command: Command, status: Status) -> int:
        """Take out the orders that the command names; the open quantity of the one it is about."""
        if command.action == Action.NEW:
            assert command.order_id not in self.open
            return 0
        if command.action == Action.CLEAR:
            self.open.clear()
            return 0
        if command.action == Action.MASS_CANCEL:
            self.open = {one: qty for one, qty in self.open.items() if self.account[one] != command.account}
            return 0
        return self.open.pop(command.order_id)

    def _trade(self, fill: dict[str, Any]) -> None:
        maker = fill["maker_order_id"]
        assert fill["qty"] > 0
        self.open[maker] -= fill["qty"]
        assert self.open[maker] == fill["maker_leaves"] >= 0
        if not self.open[maker]:
            del self.open[maker]

    def _rest(self, command: Command, leaves: int) -> None:
        order_id = command.order_id
        if command.action == Action.REPLACE and command.new_order_id is not None:
            order_id = command.new_order_id
        if command.action == Action.NEW:
            self.account[order_id] = command.account
        else:
            self.account[order_id] = self.account[command.order_id]
        self.open[order_id] = leaves


def entered(story: Story) -> Ledger:
    """The ledger of a whole story."""
    ledger = Ledger()
    fills = story.fills
    for seq, (row, outcome) in enumerate(zip(story.rows, story.outcomes, strict=True)):
        ledger.enter(row.command, outcome, [fill for fill in fills if fill["seq"] == seq])
    return ledger


@settings(max_examples=EXAMPLES)
@given(rows=STORIES, engine=ENGINE)
def test_quantity_is_conserved(rows, engine):
    """For each order quantity = filled + cancelled + expired + leaves, and the final book has the leaves."""
    story = Player(engine).story(rows)
    book = story.outputs["book"]
    assert entered(story).open == dict(zip(book["order_id"], book["qty"], strict=True))


@settings(max_examples=EXAMPLES)
@given(rows=STORIES, engine=ENGINE)
def test_the_book_is_never_crossed(rows, engine):
    """After every command the best bid is below the best offer, and no level shown is empty."""
    l1 = Player(engine).story(rows).outputs["l1"].drop_nulls()
    assert (l1["bid_px"] < l1["ask_px"]).all()
    assert (l1.select("bid_sz", "bid_ct", "ask_sz", "ask_ct") > 0).to_numpy().all()


@settings(max_examples=EXAMPLES)
@given(rows=STORIES, engine=ENGINE)
def test_every_row_has_one_outcome(rows, engine):
    """Rows and outcomes are one to one and in order, and every reject is told once."""
    outputs = Player(engine).story(rows).outputs
    outcomes = outputs["outcomes"]
    assert outcomes["seq"].to_list() == list(range(len(rows)))
    rejected = outcomes.filter(pl.col("status") == Status.REJECTED)["seq"]
    assert outputs["rejects"]["seq"].to_list() == rejected.to_list()


@settings(max_examples=EXAMPLES)
@given(rows=STORIES, engine=ENGINE)
def test_a_small_story_is_the_twin_s_story(rows, engine):
    """Hypothesis looks for the smallest story that an engine and the twin tell differently."""
    expected = Player("twin").story(rows).outputs
    assert frames.first_difference(expected, Player(engine).story(rows).outputs) is None
