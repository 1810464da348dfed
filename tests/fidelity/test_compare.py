"""Rebuilt books against published ones: what is exact, what isn't and why, what can't be compared."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import zipfile
from collections import Counter
from functools import partial

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab
from hftlab.cli import main
from hftlab.codes import UNDEF_PRICE
from hftlab.errors import FormatError, HftlabError, InputError, UsageError
from hftlab.feeds import open_flow
from hftlab.fidelity import one_step, rebuilt_books, row_pairing, venue_books
from hftlab.fidelity.compare import compare
from hftlab.fidelity.comparison import Difference, Touch
from hftlab.fidelity.venue_books import open_truth
from tests.helpers.damage import damaged
from tests.helpers.facts import mbo

NAME = "TEST_2024-01-02_34200000_57600000_{}_5.csv"
NONE = 9_999_999_999
AAPL = "lobster/AAPL_2012-06-21_34200000_37800000_"
AMZN = "lobster/LOBSTER_SampleFile_AMZN_2012-06-21_1.zip"
BTCUSDT = "binance/spot_btcusdt_20240808.gz"
CENT = 10**7  # in 1e-9; a LOBSTER price of 100


# ------------------------------------------------------------------ LOBSTER files made by hand


class Story:
    """Random messages, and the book after each, kept in dicts."""

    def __init__(self, seed, messages=120, cents=6):
        chance = random.Random(seed)
        self.orders, self.lines, self.books, self.changes = {}, [], [], []
        for number in range(messages):
            self.lines.append(f"{34200 + number}.5,{self.message(chance, number, cents)}")
            self.books.append({side: self.levels(side) for side in (1, -1)})

    def message(self, chance, number, cents):
        if self.orders and chance.random() < 0.45:
            key = chance.choice(list(self.orders))
            side, price, size = self.orders.pop(key)
            taken = chance.choice([size, size, max(1, size // 2)])
            if taken < size:
                self.orders[key] = (side, price, size - taken)
            self.changes.append((side, price, -taken))
            kind = chance.choice([4, 3 if taken == size else 2])
            return f"{kind},{key},{taken},{price},{side}"
        if chance.random() < 0.1:
            self.changes.append(None)
            return f"5,0,10,{10_000},1"
        side, size = chance.choice([1, -1]), chance.choice([10, 20])
        price = 10_000 - side * 100 * chance.randint(1, cents)
        self.orders[number + 1] = (side, price, size)
        self.changes.append((side, price, size))
        return f"1,{number + 1},{size},{price},{side}"

    def levels(self, side):
        totals = Counter()
        for own, price, size in self.orders.values():
            if own == side:
                totals[price] += size
        return sorted(totals.items(), key=lambda level: -side * level[0])

    def rows(self, depth):
        """The books as LOBSTER writes them."""
        return [
            [
                value
                for level in range(depth)
                for side in (-1, 1)
                for value in ([*book[side], *[(-side * NONE, 0)] * depth][level])
            ]
            for book in self.books
        ]

    def write(self, folder, depth=3, rows=None):
        messages, book = folder / NAME.format("message"), folder / NAME.format("orderbook")
        messages.write_text("\n".join(self.lines) + "\n")
        write_rows(book, self.rows(depth) if rows is None else rows)
        return messages, book


def write_rows(path, rows):
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def assert_complete(found):
    """Every published row and every end of an event was compared, or counted with a reason."""
    assert found.published_compared + sum(found.rows_not_compared.values()) == found.published_rows
    assert found.rows + sum(found.events_not_compared.values()) == found.flow_events
    assert found.not_compared == found.rows_not_compared | found.events_not_compared


@pytest.fixture
def story(tmp_path):
    story = Story(3)
    return story, *story.write(tmp_path)


def test_a_book_that_is_rebuilt_is_exact(story):
    """Row i is the book after message i, an execution's two facts are one event."""
    _, messages, book = story
    found = compare(messages, book)
    assert (found.rows, found.exact, found.levels, found.kind) == (120, 120, 3, "LOBSTER orderbook")
    assert (found.ok, found.share, found.first, found.causes, found.not_compared) == (True, 1.0, None, {}, {})
    assert found.table.rows() == [(level, *[120] * 6) for level in (1, 2, 3)]
    assert repr(found) == "<Comparison 120 of 120 rows exact, 3 levels, LOBSTER orderbook>"


@pytest.mark.parametrize("seed", range(8))
def test_what_differs_is_counted_as_by_hand(tmp_path, seed):
    """Exact rows, by level and number, causes and first difference are those of a plain loop."""
    story, chance = Story(seed), random.Random(seed)
    truth = story.rows(3)
    for row in chance.sample(truth, 25):
        at = chance.choice([i for i in range(12) if abs(row[i // 2 * 2]) != NONE] or [None])
        if at is None:
            continue
        row[at] = row[at] + chance.choice([100, -100]) if at % 2 == 0 else row[at] + 5
    messages, book = story.write(tmp_path, rows=truth)
    found, rebuilt = compare(messages, book), story.rows(3)
    equal = np.array(
        [
            [ours == theirs for ours, theirs in zip(*both, strict=True)]
            for both in zip(rebuilt, truth, strict=True)
        ]
    )
    equal = equal.reshape(len(truth), 3, 4)[:, :, [2, 3, 0, 1]]
    exact = equal.all(axis=2)
    assert (found.rows, found.exact) == (120, exact.all(axis=1).sum())
    for level, agreement in enumerate(found.by_level):
        assert agreement.exact == exact[:, level].sum()
        assert agreement.exact_down_to == exact[:, : level + 1].all(axis=1).sum()
        numbers = (agreement.bid_px, agreement.bid_sz, agreement.ask_px, agreement.ask_sz)
        assert numbers == tuple(equal[:, level].sum(axis=0))
    first = int(np.argmin(exact.all(axis=1)))
    assert (found.first.row, found.first.sequence, found.first.symbol) == (first, first, "TEST")
    assert found.first.level == int(np.argmin(exact[first])) + 1
    assert sum(found.causes.values()) == found.rows - found.exact
    assert not found.ok


def test_causes_and_the_first_difference(tmp_path):
    """The size differs, a level is left over, a level is missing; both sides are shown."""
    (messages := tmp_path / NAME.format("message")).write_text(
        "1.5,1,1,10,10000,1\n2.5,1,2,20,10100,-1\n3.5,1,3,30,9900,1\n4.5,2,1,5,10000,1\n"
    )
    rows = [
        [NONE, 0, 10000, 10],
        [10100, 21, 10000, 10],
        [10100, 20, 9900, 10],
        [10050, 20, 10000, 5],
    ]
    found = compare(messages, write_rows(tmp_path / "b.csv", rows))
    assert found.causes == {"the size differs": 1, "a level is left over": 1, "a level is missing": 1}
    assert found.first == Difference(
        row=1,
        seq=1,
        sequence=1,
        ts=found.first.ts,
        symbol="TEST",
        level=1,
        cause="the size differs",
        rebuilt=Touch(100 * CENT, 10, 101 * CENT, 20),
        truth=Touch(100 * CENT, 10, 101 * CENT, 21),
    )
    assert found.first.ts == open_flow(messages).table()["ts_event"].cast("int64")[1].as_py()
    empty = compare(messages, write_rows(tmp_path / "c.csv", [[10100, 20, -NONE, 0]]))
    assert empty.first.truth == Touch(None, 0, 101 * CENT, 20)
    assert empty.first.rebuilt == Touch(100 * CENT, 10, None, 0)


def test_rows_that_can_not_be_compared_are_counted(story, tmp_path):
    """Too few rows, too many, and the one that seeds the book."""
    told, messages, book = story
    rows = told.rows(3)
    short = compare(messages, write_rows(tmp_path / "short.csv", rows[:50]))
    assert (short.rows, short.exact) == (50, 50)
    assert short.not_compared == {"events without a row of theirs in the file": 70}
    long = compare(messages, write_rows(tmp_path / "long.csv", rows + rows[:7]))
    assert (long.rows, long.exact) == (120, 120)
    assert long.not_compared == {"rows without an event of theirs in the flow": 7}
    seeded = compare(messages, book, initial_book=book)
    assert seeded.rows == 119
    assert seeded.not_compared == {"rows that seed the book": 1, "events that seed the book": 2}
    for found in (short, long, seeded):
        assert_complete(found)


def test_a_book_that_began_empty(tmp_path):
    """Whoever forgets the opening book is told what would help."""
    messages, book = Story(5).write(tmp_path)
    later, rows = messages.read_text().splitlines()[60:], book.read_text().splitlines()[60:]
    messages.write_text("\n".join(later) + "\n")
    book.write_text("\n".join(rows) + "\n")
    assert compare(messages, book).notes[0].startswith("the book began empty: initial_book gives it")
    assert (
        compare(messages, book, levels=1, initial_book=book).share > compare(messages, book, levels=1).share
    )


def test_levels_are_chosen(story):
    """By default all that both have; more than that is an error."""
    _, messages, book = story
    assert len(compare(messages, book, levels=2).by_level) == 2
    with pytest.raises(UsageError, match="levels: found 4, expected at most 3: what both sides have"):
        compare(messages, book, levels=4)
    with pytest.raises(UsageError, match="levels: found 0, expected a whole number"):
        compare(messages, book, levels=0)


def test_best_prices_alone_are_a_book_of_one_level(story, tmp_path):
    """Best ask, its size, best bid, its size: the columns of an orderbook file."""
    told, messages, _ = story
    found = compare(messages, write_rows(tmp_path / "bbo.csv", told.rows(1)))
    assert (found.levels, found.exact) == (1, 120)


def test_the_flow_may_be_any_that_kept_the_message_numbers(story, tmp_path):
    """A converted file compares as the messages do."""
    _, messages, book = story
    assert main(["convert", str(messages), "-o", str(tmp_path / "flow.parquet")]) == 0
    assert compare(open_flow(tmp_path / "flow.parquet"), book).exact == 120


@pytest.mark.parametrize("depth", [1, 3])
def test_in_small_pieces_and_through_a_file(story, tmp_path, monkeypatch, depth):
    """However much is in memory at a time, the answer is the same."""
    told, messages, _ = story
    rows = told.rows(depth)
    rows[77][1] += 1
    book = write_rows(tmp_path / "book.csv", rows)
    whole = compare(messages, book)
    for module in (rebuilt_books, row_pairing):
        monkeypatch.setattr(module, "STATE_ROWS", 7)
        monkeypatch.setattr(module, "BATCH_ROWS", 11)
    small = partial(venue_books.containers.blocks, size=50)
    monkeypatch.setattr(venue_books.containers, "blocks", lambda path, member=None: small(path, member))
    assert compare(messages, book) == whole
    monkeypatch.setattr(rebuilt_books, "IN_MEMORY_BYTES", 0)
    assert compare(messages, book) == whole
    assert (whole.rows, whole.exact, whole.first.row) == (120, 119, 77)


def test_events_only_where_they_end():
    """A book in the middle of an event is nobody's business; where no end is marked every row is one."""
    flow = hftlab.Flow("x", "mine", "mbo", mbo("A1 B 5@10", "A2 B 5@11 last", "A3 B 5@12"))
    assert row_pairing.Events(flow).frame["row"].to_list() == [1]
    flow = hftlab.Flow("x", "mine", "mbo", mbo("A1 B 5@10", "A2 B 5@11", "A3 B 5@12"))
    assert row_pairing.Events(flow).frame["row"].to_list() == [0, 1, 2]


def test_several_symbols(story, tmp_path):
    """A LOBSTER file doesn't say whose book it is, so a flow of several must be asked about one."""
    _, messages, book = story
    table = open_flow(messages).table()
    two = pl.from_arrow(table).with_columns(
        symbol=pl.when(pl.col("sequence") < 60).then(pl.lit("A")).otherwise(pl.lit("B"))
    )
    pq.write_table(two.to_arrow(), tmp_path / "two.parquet")
    with pytest.raises(UsageError, match="found symbols A, B, expected one, or symbol= to choose it"):
        compare(tmp_path / "two.parquet", book)
    with pytest.raises(UsageError, match="symbol: found 'C', expected one of A, B"):
        compare(tmp_path / "two.parquet", book, symbol="C")
    found = compare(tmp_path / "two.parquet", book, symbol="A")
    assert (found.rows, found.exact) == (60, 60)
    assert found.rows_not_compared == {"rows without an event of theirs in the flow": 60}
    assert found.events_not_compared == {"events of other symbols": 60}
    assert_complete(found)


def test_message_numbers_that_go_back(story, tmp_path):
    """Rows by message number need the numbers in order."""
    _, messages, book = story
    table = pl.from_arrow(open_flow(messages).table()).reverse()
    pq.write_table(table.to_arrow(), tmp_path / "back.parquet")
    with pytest.raises(InputError, match="found message numbers that go back"):
        compare(tmp_path / "back.parquet", book)


# ------------------------------------------------------------------ broken files of published books


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1,2,3", "line 2: found 3 fields, expected 4, as in the first row"),
        ("1,2,3,4,5", "line 2: found 5 fields, expected 4, as in the first row"),
        ("", "line 2: found 1 fields, expected 4, as in the first row"),
        ("1,2,3,x", "line 2: found value 'x', expected an integer"),
        ("1,2,3,", "line 2: found value '', expected an integer"),
        ("1,2,3,1e3", "line 2: found value '1e3', expected an integer"),
        ("1,2,3,0x1F", "line 2: found value '0x1F', expected an integer"),
        ("1,2,3,1-2", "line 2: found value '1-2', expected an integer"),
        ("1,2,3,99999999999999999999", "line 2: found value '99999999999999999999', expected an integer"),
        (
            "92233720368548,2,3,4",
            "line 2: found price 92233720368548 of level 1, expected at most 92233720368547",
        ),
    ],
)
@pytest.mark.parametrize("one_step", [False, True])
def test_a_damaged_row_is_named(story, tmp_path, row, said, one_step):
    """The first damaged row of a table stops the comparison."""
    _, messages, _ = story
    (book := tmp_path / "book.csv").write_text(f"10100,2,10000,4\n{row}\n10100,2,10000,4\n")
    with pytest.raises(FormatError) as caught:
        compare(messages, book, one_step=one_step)
    assert str(caught.value).startswith(f"{book}, {said}")


def test_files_that_are_none_of_published_books(story, tmp_path):
    """The answer names what would be."""
    _, messages, _ = story
    (path := tmp_path / "x.csv").write_text("Dear diary\n")
    with pytest.raises(
        FormatError, match="not recognised, expected a LOBSTER orderbook file, Databento's MBP"
    ):
        compare(messages, path)
    with pytest.raises(FormatError, match="not recognised"):
        compare(messages, messages)
    with pytest.raises(UsageError, match="there is no such file"):
        compare(messages, tmp_path / "nowhere.csv")
    pq.write_table(open_flow(messages).table(), tmp_path / "x.parquet")
    with pytest.raises(FormatError, match="found columns ts_event, ts_recv"):
        compare(messages, tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"PAR1 and nothing more PAR1")
    with pytest.raises(FormatError, match="broken Parquet data"):
        compare(messages, tmp_path / "y.parquet")


def test_a_book_in_an_archive(story, tmp_path):
    """As the samples are published; an archive without one, or with two, is refused."""
    _, messages, book = story
    with zipfile.ZipFile(tmp_path / "sample.zip", "w") as archive:
        archive.write(messages, messages.name)
        archive.write(book, book.name)
    assert compare(tmp_path / "sample.zip", tmp_path / "sample.zip").exact == 120
    (tmp_path / "book.gz").write_bytes(gzip.compress(book.read_bytes()))
    assert compare(messages, tmp_path / "book.gz").exact == 120
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.write(messages, messages.name)
    with pytest.raises(FormatError, match="found 0 orderbook files in the archive, expected exactly one"):
        compare(messages, tmp_path / "none.zip")


# ------------------------------------------------------------------ one step


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), depth=st.integers(1, 4), cents=st.integers(1, 8))
def test_true_books_follow_one_from_another(tmp_path_factory, seed, depth, cents):
    """Cut off at any level, a true book is never contradicted, and each row is determined or revealed."""
    story = Story(seed, 60, cents)
    messages, book = story.write(tmp_path_factory.mktemp("step"), depth)
    found = compare(messages, book, one_step=True)
    revealed = found.not_compared.get(one_step.REVEALED, 0)
    assert found.rows == found.exact == 59 - revealed
    assert revealed == sum(reveals(story, i, depth) for i in range(1, 60))
    assert found.not_compared[one_step.FIRST] == 1


def reveals(story, number, depth):
    """Whether a message takes one of the best levels away while all of them are taken."""
    if story.changes[number] is None:
        return False
    side, price, _ = story.changes[number]
    before, after = ([level[0] for level in story.books[n][side]] for n in (number - 1, number))
    return len(before) >= depth and price in before[:depth] and price not in after


@pytest.mark.parametrize("seed", range(6))
def test_a_wrong_row_is_a_contradiction(tmp_path, seed):
    """It doesn't follow from the one before, nor the next from it."""
    story = Story(seed, 100)
    rows = story.rows(2)
    wrong = random.Random(seed).randrange(10, 90)
    rows[wrong][random.Random(seed).choice([1, 3])] += 7
    messages, book = story.write(tmp_path, rows=rows)
    found = compare(messages, book, one_step=True)
    assert found.first.row in (wrong, wrong + 1)
    assert found.causes == {one_step.CONTRADICTION: found.rows - found.exact}
    assert 1 <= found.rows - found.exact <= 2
    assert not found.ok


def test_cancels_of_what_is_not_there(tmp_path):
    """A level that isn't published but should be, or has less than is taken, is a contradiction by itself."""
    (messages := tmp_path / NAME.format("message")).write_text(
        "1.5,1,1,10,10000,1\n2.5,2,1,50,10000,1\n3.5,3,9,5,10050,1\n4.5,2,8,5,9000,1\n"
    )
    book = write_rows(tmp_path / "book.csv", [[NONE, 0, 10000, 10]] * 4)
    found = compare(messages, book, one_step=True)
    assert (found.rows, found.exact, found.causes) == (3, 1, {one_step.CONTRADICTION: 2})
    assert (found.first.row, found.first.level) == (1, 1)


def test_one_step_is_for_lobster(story, tmp_path):
    """Other files, and facts that aren't its messages, are refused."""
    _, messages, book = story
    capture = tmp_path / "capture.ndjson"
    capture.write_text('{"u":1,"s":"A","b":"1","B":"1","a":"2","A":"1"}\n')
    with pytest.raises(
        UsageError, match="found Binance bookTicker, expected a LOBSTER orderbook file to go step"
    ):
        compare(messages, capture, one_step=True)
    with pytest.raises(UsageError, match="found mbp, expected the messages of a LOBSTER orderbook file"):
        compare(capture, book, one_step=True)
    twice = mbo("A1 B 5@10", "C1 B 5@10").set_column(9, "sequence", [[0, 0]])
    for table in (mbo("M1 B 5@10"), twice, mbo("A1 B 5@10")):
        flow = hftlab.Flow("x", "mine", "mbo", table)
        with pytest.raises(UsageError, match="found facts of another kind"):
            compare(flow, book, one_step=True)


# ------------------------------------------------------------------ Databento's MBP


FACTS = mbo(
    "A1 B 5@10 last =X",
    "A2 S 7@12 last =X",
    "A3 B 1@9 last =Y",
    "A4 B 2@10 =X",
    "A5 B 3@11 last =X",
    "C5 B 3@11 last =X",
)


def mbp_rows():
    """The two best levels after each event of FACTS, as (sequence, symbol, flags, bids, asks)."""
    one = [(10, 5)]
    return [
        (100, "X", 128, one, []),
        (101, "X", 128, one, [(12, 7)]),
        (102, "Y", 128, [(9, 1)], []),
        (103, "X", 0, [(10, 7)], [(12, 7)]),
        (104, "X", 128, [(11, 3), (10, 7)], [(12, 7)]),
        (105, "X", 0, [(0, 0)], []),  # a record within the event
        (105, "X", 128, [(10, 7)], [(12, 7)]),
        (999, "X", 128, [], []),
    ]


def mbp_frame(pretty, rows=None):
    """Databento's columns; prices and times as numbers or for people."""
    frame = []
    for sequence, symbol, flags, bids, asks in rows or mbp_rows():
        row = {
            "ts_event": "1970-01-01T00:00:00.000000001Z" if pretty else "1",
            "sequence": sequence,
            "flags": flags,
        }
        for level in range(2):
            for side, levels in (("bid", bids), ("ask", asks)):
                price, size = levels[level] if level < len(levels) else (None, 0)
                nothing = "" if pretty else str(UNDEF_PRICE)
                text = f"{(price or 0) / 10**9:.9f}" if pretty else str(price)
                row[f"{side}_px_{level:02d}"] = nothing if price is None else text
                row[f"{side}_sz_{level:02d}"] = size
                row[f"{side}_ct_{level:02d}"] = 1
        frame.append(row | {"symbol": symbol})
    return pl.DataFrame(frame)


@pytest.fixture
def facts_file(tmp_path):
    pq.write_table(FACTS, tmp_path / "facts.parquet")
    return tmp_path / "facts.parquet"


@pytest.mark.parametrize("pretty", [False, True])
def test_databento_s_levels(facts_file, tmp_path, pretty):
    """Events are joined by symbol, sequence and time; only the last record of each counts."""
    mbp_frame(pretty).write_csv(path := tmp_path / "mbp.csv")
    found = compare(facts_file, path)
    assert (found.kind, found.levels, found.rows, found.exact) == ("Databento MBP", 2, 5, 5)
    assert found.rows_not_compared == {
        "rows inside an event, which end none": 2,
        "rows without an event of theirs in the flow": 1,
    }
    assert found.published_rows == len(mbp_rows())
    assert found.ok
    assert_complete(found)


def test_databento_s_rows_without_flags(facts_file, tmp_path):
    """Of rows that name one event the last is its book; the others are counted, not passed over."""
    mbp_frame(False).drop("flags").write_csv(path := tmp_path / "mbp.csv")
    found = compare(facts_file, path)
    assert found.rows_not_compared["rows that another one of their event follows"] == 1
    assert_complete(found)


def test_databento_s_levels_as_parquet(facts_file, tmp_path):
    """Floats and integers, times and numbers."""
    frame = mbp_frame(False).with_columns(pl.col("ts_event").cast(pl.Int64))
    prices = [name for name in frame.columns if "_px_" in name]
    frame.with_columns(pl.col(prices).cast(pl.Int64)).write_parquet(tmp_path / "a.parquet")
    floats = frame.with_columns(
        pl.when(pl.col(prices) == str(UNDEF_PRICE))
        .then(None)
        .otherwise(pl.col(prices).cast(pl.Float64) / 1e9)
        .name.keep(),
        pl.from_epoch("ts_event", time_unit="ns"),
    )
    floats.write_parquet(tmp_path / "b.parquet")
    assert compare(facts_file, tmp_path / "a.parquet").exact == 5
    assert compare(facts_file, tmp_path / "b.parquet").exact == 5


def test_databento_s_levels_that_differ(facts_file, tmp_path):
    """Which event, which level."""
    rows = mbp_rows()
    rows[4] = (104, "X", 128, [(11, 3), (10, 8)], [(12, 7)])
    mbp_frame(True, rows).write_csv(path := tmp_path / "mbp.csv")
    found = compare(facts_file, path)
    assert (found.rows, found.exact, found.causes) == (5, 4, {"the size differs": 1})
    assert (found.first.row, found.first.seq, found.first.sequence, found.first.level) == (4, 4, 104, 2)
    assert (found.first.rebuilt.bid_sz, found.first.truth.bid_sz) == (7, 8)


def test_databento_s_levels_without_symbols(facts_file, tmp_path):
    """A file that doesn't say whose levels they are belongs to the symbol that is named."""
    mbp_frame(True).filter(pl.col("symbol") == "X").drop("symbol", "flags").write_csv(
        path := tmp_path / "mbp.csv"
    )
    with pytest.raises(UsageError, match="found symbols X, Y, expected one"):
        compare(facts_file, path)
    assert compare(facts_file, path, symbol="X").exact == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda text: text.replace("bid_sz_01", "bid_qt_01"),
            "found no column bid_sz_01, expected the columns",
        ),
        (
            lambda text: text.replace("0.000000012", "0.00x", 1),
            "line 3: found ask_px_00 '0.00x', expected a number",
        ),
        (lambda text: text.replace(",101,", ",1o1,", 1), "line 3: found sequence '1o1', expected a number"),
        (lambda text: text.replace("T00:00", "T99:00", 1), "line 2: found ts_event '1970-01-01T99:00"),
        (lambda text: text + 'a,b\n"', "found broken CSV"),
    ],
)
def test_damaged_levels_of_databento(facts_file, tmp_path, change, said):
    """A table's damage is named with its row."""
    mbp_frame(True).write_csv(path := tmp_path / "mbp.csv")
    path.write_text(change(path.read_text()))
    with pytest.raises(FormatError) as caught:
        compare(facts_file, path)
    assert said in str(caught.value)


# ------------------------------------------------------------------ Binance's bookTicker


def capture(*messages):
    return "".join(json.dumps(message) + "\n" for message in messages)


def update(u, bids=(), asks=(), first=None):
    first = u if first is None else first
    return {"e": "depthUpdate", "E": u, "s": "S", "U": first, "u": u, "b": list(bids), "a": list(asks)}


def ticker(u, bid, bid_size, ask="12", ask_size="1", symbol="S"):
    return {"u": u, "s": symbol, "b": bid, "B": bid_size, "a": ask, "A": ask_size}


START = {"lastUpdateId": 10, "bids": [["10", "1"]], "asks": [["12", "1"]]}


def compared(folder, *messages, **how):
    (path := folder / "capture.ndjson").write_text(capture(*messages))
    return compare(path, path, **how)


def test_tickers_are_joined_by_update(tmp_path):
    """The touch after u is that of the last ticker up to u; those within an update have no book of theirs."""
    found = compared(
        tmp_path,
        START,
        ticker(9, "9", "1"),
        update(11, [["10", "2"]]),
        ticker(11, "10", "2"),
        ticker(12, "11", "1"),
        ticker(14, "11", "3"),
        update(14, [["11", "3"]], first=12),
        update(15, [["5", "3"]]),
        ticker(17, "11", "4"),
    )
    assert (found.kind, found.levels, found.rows, found.exact) == ("Binance bookTicker", 1, 4, 3)
    assert found.first.sequence == 10  # the snapshot's book isn't that of ticker 9
    assert found.not_compared == {
        "bookTickers that another one follows within the same update": 1,
        "bookTickers after the last update": 1,
    }
    assert (found.published_rows, found.published_compared) == (5, 3)
    assert_complete(found)
    assert any(note.startswith("by receive time instead of update id") for note in found.notes)


def test_events_outside_the_tickers(tmp_path):
    """Before the first and after the last nothing is known."""
    found = compared(tmp_path, START, update(11), update(12), ticker(12, "10", "1"), update(13))
    assert (found.rows, found.exact) == (1, 1)
    assert found.not_compared["events before the first bookTicker"] == 2
    assert found.not_compared["events after the last bookTicker"] == 1
    assert_complete(found)


def test_why_a_ticker_differs(tmp_path):
    """A gap, a ticker of another moment of the same update, or the plain kinds."""
    gap = compared(
        tmp_path, START, ticker(10, "10", "1"), update(15), ticker(13, "10", "5"), ticker(15, "10", "5")
    )
    assert gap.causes == {"after a gap in the capture": 1}
    assert len(gap.faults) == 1
    within = compared(
        tmp_path,
        START,
        ticker(10, "10", "1"),
        ticker(11, "10", "2"),
        ticker(12, "10", "3"),
        update(12, [["10", "2"]], first=11),
    )
    assert within.causes == {"the ticker changed within the update": 1}
    plain = compared(tmp_path, START, ticker(10, "10", "9"), update(11), ticker(11, "11", "9"))
    assert plain.causes == {"the size differs": 1, "a level is missing": 1}


def test_tickers_of_other_symbols_and_no_tickers(tmp_path):
    """What has no book is counted; nothing to compare is no agreement."""
    found = compared(tmp_path, START, update(11), ticker(11, "1", "1", symbol="T"))
    assert (found.rows, found.ok, found.share) == (0, False, None)
    assert found.not_compared["bookTickers of other symbols"] == 1
    assert found.not_compared["events of symbols without a bookTicker"] == 2
    assert_complete(found)
    with pytest.raises(FormatError, match="found no bookTicker, expected best bids and asks"):
        compared(tmp_path, START, update(11))


def test_tickers_need_updates(story, tmp_path):
    """Update ids mean nothing to facts by order."""
    (path := tmp_path / "capture.ndjson").write_text(capture(ticker(1, "1", "1")))
    with pytest.raises(UsageError, match=r"found mbo, expected Binance's updates \(mbp\)"):
        compare(story[1], path)


def test_tickers_as_parquet_and_in_other_lots(tmp_path):
    """Converted tickers do as well, and the capture's sizes are counted as the flow's are."""
    (path := tmp_path / "c.ndjson").write_text(capture(START, update(11), ticker(11, "10", "1")))
    assert main(["convert", str(path), "--table", "book_ticker", "-o", str(tmp_path / "t.parquet")]) == 0
    assert compare(path, tmp_path / "t.parquet").exact == 1
    assert compare(path, path, lot="0.001").exact == 1


# ------------------------------------------------------------------ damage of any kind


def test_a_time_zone_that_is_none(tmp_path):
    """What a damaged schema may say of a column is an answer of one line."""
    times = pa.array([1], pa.timestamp("ns", "Nowhere/None"))
    pq.write_table(pa.table({"bid_px_00": [1], "ts_event": times}), tmp_path / "x.parquet")
    with pytest.raises(
        FormatError, match=r"x\.parquet: found a column that can't be read \([^\n]*Nowhere/None"
    ):
        open_truth(tmp_path / "x.parquet")


@pytest.mark.parametrize("kind", ["orderbook", "one step", "pretty", "integers", "parquet", "capture"])
def test_damaged_files_of_published_books(facts_file, tmp_path, kind):
    """They are compared, or the answer is one line; never anything else."""
    flow, book = Story(1, 20).write(tmp_path, 2)
    if kind in ("pretty", "integers", "parquet"):
        flow, book = facts_file, tmp_path / f"mbp.{'parquet' if kind == 'parquet' else 'csv'}"
        frame = mbp_frame(kind == "pretty")
        frame.write_parquet(book) if kind == "parquet" else frame.write_csv(book)
    elif kind == "capture":
        flow = book = tmp_path / "c.ndjson"
        book.write_text(capture(START, update(11, [["10", "2"]]), ticker(11, "10", "2"), update(12)))
    whole, path = book.read_bytes(), tmp_path / f"damaged{book.suffix}"
    for seed in range(60):
        chance = random.Random(seed)
        path.write_bytes(damaged(whole, chance, chance.randint(1, 4), values=b'0123456789,.-T:"\n'))
        said = ""
        try:
            compare(path if kind == "capture" else flow, path, one_step=kind == "one step")
        except HftlabError as error:
            said = str(error)
        assert "\n" not in said, f"seed {seed}"


# ------------------------------------------------------------------ run folders


def run_folder(messages, target, *more, record="l1,depth", mode="rebuild"):
    arguments = [
        "replay",
        str(messages),
        "--mode",
        mode,
        "--record",
        record,
        "--depth",
        "2",
        "--out",
        str(target),
    ]
    assert main([*arguments, *more]) == 0
    return target


@pytest.mark.parametrize("record", ["depth", "l1", "l1,depth"])
def test_a_run_folder_is_compared(story, tmp_path, record, capsys):
    """With as many levels as it has; l1 is one."""
    _, messages, book = story
    found = compare(run_folder(messages, tmp_path / "run", record=record), book)
    assert (found.rows, found.exact, found.levels) == (120, 120, 1 if record == "l1" else 2)
    with pytest.raises(UsageError, match="levels: found 3, expected at most"):
        compare(tmp_path / "run", book, levels=3)


def test_a_run_folder_remembers_how_its_input_was_read(story, tmp_path, capsys):
    """Options and opening book are in the manifest, in chunks too."""
    _, messages, book = story
    other = tmp_path / "messages.csv"
    shutil.copy(messages, other)
    options = ("-O", "symbol=XYZ", "-O", "date=2024-01-03", "--initial-book", str(book), "--chunk-rows", "31")
    found = compare(run_folder(other, tmp_path / "run", *options), book)
    assert (found.rows, found.ok) == (119, True)
    with pytest.raises(UsageError, match="found lot, expected none: a run folder knows its input"):
        compare(tmp_path / "run", book, lot="1")


def test_run_folders_that_can_not_be_compared(story, tmp_path, capsys):
    """Each says what is wrong, and which command would do."""
    _, messages, book = story

    def said(error, folder):
        with pytest.raises(error) as caught:
            compare(folder, book)
        return str(caught.value)

    assert said(InputError, tmp_path).endswith(
        "found no manifest.json, expected a run folder (hftlab replay --out)"
    )
    folder = run_folder(messages, tmp_path / "a", record="outcomes")
    assert said(UsageError, folder) == (
        f"{folder}: found outcomes, expected depth or l1: "
        f"hftlab replay {messages} --mode rebuild --record depth --depth 10 --out DIR"
    )
    assert "found commands inferred from facts" in said(
        UsageError, run_folder(messages, tmp_path / "b", mode="match")
    )
    folder = run_folder(messages, tmp_path / "c")
    messages.write_text(messages.read_text() + "99999.5,1,999999,1,10000,1\n"[-28:])
    assert "has changed: found sha256" in said(InputError, folder)
    messages.unlink()
    assert "is not there, expected it to know where events end" in said(InputError, folder)
    (folder / "manifest.json").write_text("{")
    assert "found a manifest that can't be read" in said(InputError, folder)
    folder = run_folder(Story(3).write(tmp_path)[0], tmp_path / "e")
    data = bytearray((folder / "depth.parquet").read_bytes())
    data[60] ^= 1
    (folder / "depth.parquet").write_bytes(data)
    assert "found broken Parquet data" in said(FormatError, folder)
    hftlab.replay(FACTS, mode="rebuild", record=("l1",), out=tmp_path / "d")
    assert "was made from a table in memory" in said(UsageError, tmp_path / "d")


def test_a_flow_that_is_open_takes_no_options(story):
    """They would come too late."""
    _, messages, book = story
    with pytest.raises(UsageError, match="found date, expected none for a flow that is open already"):
        compare(open_flow(messages), book, date="2024-01-01")


# ------------------------------------------------------------------ the command line


def test_the_command(story, tmp_path, capsys):
    """Exact is 0, a difference 1; shown on 100 columns."""
    told, messages, book = story
    assert main(["compare", str(messages), "--truth", str(book)]) == 0
    assert "120 (100.00%)" in capsys.readouterr().out
    rows = told.rows(3)
    rows[7][1] += 1
    wrong = write_rows(tmp_path / "wrong.csv", rows)
    assert main(["compare", str(messages), "--truth", str(wrong), "--initial-book", str(book)]) == 1
    out = capsys.readouterr().out
    assert "row 7 of the published file" in out
    assert "differs: the size differs" in out
    assert "not compared: rows that seed the book" in out
    assert all(len(line) <= 100 for line in out.splitlines())
    assert main(["compare", str(messages), "--truth", str(book), "--one-step"]) == 0


def test_the_command_for_programs(story, tmp_path, capsys):
    """One JSON object with everything in it."""
    told, messages, _ = story
    rows = told.rows(2)
    rows[7][1] += 1
    wrong = write_rows(tmp_path / "wrong.csv", rows)
    assert main(["compare", str(messages), "--truth", str(wrong), "--levels", "1", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["exact"], found["ok"], len(found["by_level"])) == (120, 119, False, 1)
    assert found["first"]["row"] == 7
    assert set(found["first"]["truth"]) == {"bid_px", "bid_sz", "ask_px", "ask_sz"}


def test_the_command_when_it_is_wrong(story, tmp_path, capsys):
    """One line, status 2."""
    _, messages, book = story
    assert main(["compare", str(messages)]) == 2
    assert main(["compare", str(messages), "--truth", str(tmp_path / "nowhere")]) == 2
    folder = run_folder(messages, tmp_path / "run")
    assert main(["compare", str(folder), "--truth", str(book), "--format", "lobster"]) == 2
    assert "--format: found with a run folder, which knows how its input is read" in capsys.readouterr().err


# ------------------------------------------------------------------ the samples


def test_aapl_s_best_prices(data_dir, tmp_path, capsys):
    """91,906 of 91,996 rows, none wrong before row 54,606, from a run folder and from the messages."""
    prefix = f"{data_dir / AAPL}"
    messages, best, book = (
        f"{prefix}{name}.csv.xz" for name in ("message_50", "bbo_of_message_50", "orderbook_50_first672")
    )
    arguments = [
        "--mode",
        "rebuild",
        "--record",
        "l1",
        "--initial-book",
        book,
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["replay", messages, *arguments]) == 0
    for found in (compare(tmp_path / "run", best), compare(messages, best, initial_book=book)):
        assert (found.rows, found.exact, found.first.row) == (91_996, 91_906, 54_606)
        assert found.causes == {"a level is left over": 78, "the size differs": 12}


def test_aapl_s_depth(data_dir):
    """49 levels on all of 671 rows; the 50th is where orders come in sight from outside."""
    prefix = f"{data_dir / AAPL}"
    book = f"{prefix}orderbook_50_first672.csv.xz"
    found = compare(f"{prefix}message_50.csv.xz", book, initial_book=book)
    assert (found.levels, found.rows, found.exact) == (50, 671, 663)
    assert [level.exact_down_to for level in found.by_level] == [671] * 49 + [663]
    assert found.first.level == 50


def test_amzn_one_step(data_dir):
    """Level 1: 43,561 rows determined and exact, 13,953 reveal a level, no contradiction."""
    found = compare(data_dir / AMZN, data_dir / AMZN, one_step=True)
    assert (found.rows, found.exact, found.not_compared[one_step.REVEALED]) == (43_561, 43_561, 13_953)
    assert found.ok
    assert_complete(found)


def test_aapl_one_step(data_dir):
    """The same holds 50 levels deep, also where a rebuilt book has gone astray."""
    prefix = f"{data_dir / AAPL}"
    deep = compare(f"{prefix}message_50.csv.xz", f"{prefix}orderbook_50_first672.csv.xz", one_step=True)
    best = compare(f"{prefix}message_50.csv.xz", f"{prefix}bbo_of_message_50.csv.xz", one_step=True)
    assert (deep.rows, deep.exact, deep.not_compared[one_step.REVEALED]) == (562, 562, 109)
    assert (best.rows, best.exact, best.not_compared[one_step.REVEALED]) == (84_772, 84_772, 7_224)
    assert_complete(deep)
    assert_complete(best)


def test_btcusdt_against_its_tickers(data_dir):
    """Every update's best bid and ask, price and size, is the last ticker's up to it."""
    found = compare(data_dir / BTCUSDT, data_dir / BTCUSDT)
    assert (found.rows, found.exact, found.ok) == (3_450, 3_450, True)
    assert found.not_compared == {
        "bookTickers that another one follows within the same update": 25_136,
        "bookTickers after the last update": 9,
    }
    assert_complete(found)
    assert found.notes[0].startswith("by receive time instead of update id it would be 99.51%")


def test_every_kind_is_recognised(data_dir):
    """What the file is, is told by its content."""
    assert open_truth(f"{data_dir / AAPL}bbo_of_message_50.csv.xz").levels == 1
    assert open_truth(f"{data_dir / AAPL}orderbook_50_first672.csv.xz").levels == 50
    assert open_truth(data_dir / AMZN).kind == "LOBSTER orderbook"
    assert open_truth(data_dir / BTCUSDT).kind == "Binance bookTicker"
