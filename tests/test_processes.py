"""What goes to another process and comes back: errors, limits, flows, results, tapes, books; and threads."""

import copy
import multiprocessing
import pickle
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

import hftlab
from hftlab import Limits, OrderBook, errors
from hftlab.engine.order_book import BookGate
from hftlab.errors import FormatError, LimitsError, TableError, UsageError
from hftlab.feeds.flow import Flow
from tests.conftest import HANGS_S, REPOSITORY
from tests.helpers import flows

SAMPLE = REPOSITORY / "data" / "sample.parquet"
CENT = 10_000_000
ERRORS = [
    FormatError("a.csv", "x\ny", "a number", row=3, offset=17),
    FormatError("a.csv", "nothing", "something"),
    TableError(["column a is missing", "column b is missing"], "mbo table"),
    LimitsError("limits.toml", ["a: found 1, expected 2"]),
    LimitsError("limits.toml", [f"row {row}: wrong" for row in range(300)]),
    *(
        kind("what is wrong")
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.HftlabError)
        and kind not in (FormatError, TableError, LimitsError)
    ),
]


def sent(value):
    """A value after it went through a pickle."""
    return pickle.loads(pickle.dumps(value))


def open_table(path):
    """A task for a pool: it raises FormatError for a broken file."""
    return hftlab.open_flow(path).table().num_rows


def replay_with(flow, limits):
    """A task for a pool."""
    return hftlab.replay(flow, limits=limits, record=("fills", "rejects"))


def trade(book):
    """A task for a pool: what a book answers, and what it is then."""
    return book.submit(99, "buy", 101 * CENT, 5, account=7).reason, book.position(7), book


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_a_pickle(error):
    """Its kind, its line, and what it knows; a copy, too."""
    for again in (sent(error), copy.copy(error)):
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
        assert again.args == error.args


def test_every_error_of_ours_is_tried_above():
    """One that is added is pickled as these are."""
    ours = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    assert {type(error) for error in ERRORS} == {k for k in ours if issubclass(k, errors.HftlabError)}


def test_a_broken_file_in_a_pool_is_its_error(pool, tmp_path):
    """It ended the pool, or left it waiting for ever, because the error could not be unpickled."""
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 is how this begins, and PAR1")
    with pytest.raises(FormatError, match=r"broken\.parquet"):
        pool.submit(open_table, tmp_path / "broken.parquet").result(timeout=HANGS_S)
    assert pool.submit(open_table, SAMPLE).result(timeout=HANGS_S) == 50_000


# ------------------------------------------------------------------ limits, flows, results, tapes


def limits_of_every_origin(tmp_path):
    """The same limits from each door."""
    (tmp_path / "limits.toml").write_text("[risk.accounts.7]\nmax_order_qty = 50\n")
    (tmp_path / "limits.csv").write_text("account,max_order_qty\n7,50\n")
    yield Limits.load(tmp_path / "limits.toml")
    yield Limits.load(tmp_path / "limits.csv")
    yield Limits.from_table({"account": [7], "max_order_qty": [50]})


def test_limits_of_any_origin_can_be_pickled(tmp_path):
    """They hold for the same accounts, and their errors name the same place."""
    accounts, book = np.array([7, 8], "i4"), np.zeros(2, "i4")
    for limits in (*limits_of_every_origin(tmp_path), Limits(max_order_qty=5), Limits()):
        again = sent(limits)
        assert again.what == limits.what
        for mine, theirs in zip(
            limits.cell_limits(accounts, "A", book), again.cell_limits(accounts, "A", book), strict=True
        ):
            assert mine.tolist() == theirs.tolist()


def test_limits_that_name_a_symbol_say_where_after_a_pickle():
    """Row and table of a symbol that the flow has not."""
    limits = sent(Limits.from_table({"symbol": ["A", "B"], "max_order_qty": [1, 2]}))
    with pytest.raises(LimitsError, match="limits table, row 1: found the symbol 'B'"):
        limits.check_symbols(("A",))


def test_a_flow_of_a_file_goes_as_its_path():
    """Some hundred bytes, whatever the file; it is opened where it arrives, with the same options."""
    flow = hftlab.open_flow(SAMPLE, symbols="SYM000")
    assert len(pickle.dumps(flow)) < 1_000
    again = sent(flow)
    assert (again.format, again.kind, again.symbols) == (flow.format, flow.kind, ("SYM000",))
    assert again.table().equals(flow.table())


def test_a_flow_of_a_table_goes_with_it():
    """Its notes, faults and further tables, too, although these are functions."""
    table, extra = flows.make("tight", 100, seed=1).table(), pa.table({"x": [1]})
    flow = Flow("mine", "own", "orders", lambda: table, notes=["odd"], extras={"more": lambda: extra})
    again = sent(sent(flow))
    assert (str(again.path), again.format, again.kind, again.notes) == ("mine", "own", "orders", ["odd"])
    assert again.table().equals(table)
    assert again.extras["more"]().equals(extra)


@pytest.mark.parametrize("how", [{}, {"chunk_rows": 300}, {"chunk_rows": 300, "keep": False}])
def test_a_result_can_be_pickled(how, tmp_path):
    """Digest, counts, open orders, and what was recorded; no more than that."""
    record = ("fills", "outcomes", "positions", "depth", "book")
    result = hftlab.replay(flows.make("tight", 1_000, seed=2).table(), record=record, depth=3, **how)
    again = sent(sent(result))
    assert (again.digest, again.symbols) == (result.digest, result.symbols)
    assert again.book.equals(result.book)
    assert repr(again) == repr(result)
    for name in record if "keep" not in how else ():
        assert again.to_arrow(name).equals(result.to_arrow(name)), name
    assert again.summary()["statuses"] == result.summary()["statuses"]
    with pytest.raises(UsageError, match="l1 was not recorded"):
        _ = again.l1


def test_a_result_in_a_run_folder_can_be_pickled(tmp_path):
    """Its tables are read back for that."""
    flow = flows.make("tight", 1_000, seed=2).table()
    result = hftlab.replay(flow, chunk_rows=300, out=tmp_path / "run", record="fills")
    assert sent(result).to_arrow("fills").equals(result.to_arrow("fills"))


@pytest.mark.parametrize("largest", [5, 2**40])
def test_a_tape_can_be_pickled(largest):
    """Narrow or wide, used or not; its arrays are read-only again, as kernels take them."""
    table = flows.make("tight", 500, seed=3).table()
    qty = pa.array(np.full(table.num_rows, largest))
    tape = hftlab.compile_tape(table.set_column(table.column_names.index("qty"), "qty", qty))
    digest = hftlab.replay(tape).digest
    again = sent(tape)
    assert again.is_wide == tape.is_wide == (largest > 2**31)
    assert not any(array.flags.writeable for array in (*again.commands, *again.grid, *again.checked.columns))
    assert hftlab.replay(again).digest == digest


def test_a_replay_in_another_process_is_the_same(pool):
    """Flow and limits there, result back."""
    flow, limits = hftlab.open_flow(SAMPLE), Limits(max_order_qty=50)
    here, there = replay_with(flow, limits), pool.submit(replay_with, flow, limits).result(timeout=HANGS_S)
    assert there.digest == here.digest
    assert there.rejects.equals(here.rejects)


# ------------------------------------------------------------------ books


LIMITS = {
    "max_position_size": 100,
    "max_orders_per_second": 50,
    "max_repeated_orders": 3,
    "max_open_notional": 10**15,
    "stop_loss_percentage": 50,
    "capital": 10**15,
}


def gated(limits=LIMITS):
    """A book with a gate that has seen something: orders, positions, messages, an intervention."""
    book = OrderBook("X", limits=limits)
    for number in range(1, 1_200):  # beyond the room it starts with
        book.submit(number, "buy", (50 + number % 40) * CENT, 1, account=number % 300, ts=number * 10**8)
    book.submit(5_000, "sell", 80 * CENT, 40, account=7, ts=2 * 10**11)
    book.control("ACCOUNT_HALTED", 5, ts=2 * 10**11 + 1)
    return book


def state(book):
    """Everything of a book that one can ask for."""
    accounts = [book.position(account) for account in (5, 7, 8, 299, 4_000)]
    return book.symbol, book.tick_size, book.orders().rows(), accounts, len(book)


@pytest.mark.parametrize("limits", [LIMITS, {"max_order_qty": 10}, {}])
def test_a_book_with_a_gate_can_be_pickled(limits):
    """The twin has the same orders and accounts, and answers the next thousand commands alike."""
    book = gated(limits)
    twin = sent(sent(book))
    assert state(twin) == state(book)
    rng = np.random.default_rng(4)
    for step in range(1_000):
        side, price = "buy" if rng.random() < 0.5 else "sell", int(rng.integers(60, 100)) * CENT
        account, qty, ts = int(rng.integers(0, 400)), int(rng.integers(1, 4)), (3_000 + step) * 10**8
        mine, theirs = (
            each.submit(10_000 + step, side, price, qty, account=account, ts=ts) for each in (book, twin)
        )
        assert mine == theirs
    assert twin.gate_events() == book.gate_events()
    assert state(twin) == state(book)


def test_a_pickled_book_is_independent():
    """What the twin does is not done to the book, neither in its orders nor in its gate."""
    book = gated()
    before = state(book)
    twin = sent(book)
    twin.mass_cancel(7)
    twin.submit(20_000, "sell", 80 * CENT, 3, account=8, ts=10**13)
    assert state(book) == before


def test_a_gate_s_state_names_all_that_belongs_to_a_process():
    """What a gate has is sent, or made anew from the book: an attribute that is added is one of the two."""
    gate = gated()._gate
    fresh = BookGate.of_state(gate.state(), gate.venue)
    assert vars(fresh).keys() == vars(gate).keys()


def test_a_gated_book_goes_to_another_process_and_back(pool):
    """It answers there as it would here, and comes back as it is there."""
    book = gated()
    reason, position, there = pool.submit(trade, book).result(timeout=HANGS_S)
    here = trade(book)
    assert (reason, position, state(there)) == (*here[:2], state(here[2]))


# ------------------------------------------------------------------ threads


def hammer(book, first, count):
    """Trade without a lock: acks that are ours, and what was said where it was in use."""
    mine, refused = [], []
    for number in range(first, first + count):
        side = "buy" if number % 2 else "sell"
        try:
            ack = book.submit(number, side, 100 * CENT, 1 + number % 3, account=first)
        except UsageError as error:
            refused.append(str(error))
            continue
        mine.append((number, ack))
    return mine, refused


def test_acks_of_threads_never_mix():
    """Each fill belongs to one ack, its lots add up; a call that found the book in use changed nothing."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    book, threads, each = OrderBook(), 4, 4_000
    try:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda n: hammer(book, 1 + n * each, each), range(threads)))
    finally:
        sys.setswitchinterval(before)
    acks = [ack for mine, _ in found for ack in mine]
    for number, ack in acks:
        assert ack.filled_qty == sum(fill.qty for fill in ack.fills)
        assert ack.filled_qty + ack.leaves_qty == 1 + number % 3
        assert all(fill.taker_account == 1 + (number - 1) // each * each for fill in ack.fills)
    given = sum(1 + number % 3 for number, _ in acks)
    assert given == 2 * sum(ack.filled_qty for _, ack in acks) + sum(
        level.qty for side in book.depth(9) for level in side
    )


CALLS = {
    "submit": lambda book: book.submit(7, "buy", 90 * CENT, 1),
    "submit text": lambda book: book.submit(7, "buy", "0.9", 1),
    "cancel": lambda book: book.cancel(1),
    "cancel of": lambda book: book.cancel(1, account=3),
    "reduce": lambda book: book.reduce(1, 1),
    "replace": lambda book: book.replace(1, 100 * CENT, 1),
    "mass_cancel": lambda book: book.mass_cancel(0),
    "clear": lambda book: book.clear(),
    "control": lambda book: book.control("ACCOUNT_HALTED"),
    "position": lambda book: book.position(0),
    "gate_events": lambda book: book.gate_events(),
    "depth": lambda book: book.depth(),
    "best_bid": lambda book: book.best_bid,
    "orders": lambda book: book.orders(),
    "resting": lambda book: book.resting(),
    "copy": lambda book: book.copy(),
    "pickle": pickle.dumps,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("limits", [None, {"max_order_qty": 10}])
def test_a_call_within_another_is_refused_and_changes_nothing(name, limits, monkeypatch):
    """A second thread calls while the first is in the middle of a fill; the first then ends as ever."""
    if limits is None and name in ("control", "position", "gate_events"):
        pytest.skip("a book without a gate has none of it")
    book = OrderBook(limits=limits)
    book.submit(1, "buy", 100 * CENT, 5)
    inside, done, raised = threading.Event(), threading.Event(), []
    fills = book._fills

    def slow(count):
        inside.set()
        assert done.wait(HANGS_S)
        return fills(count)

    def other():
        assert inside.wait(HANGS_S)
        try:
            CALLS[name](book)
        except UsageError as error:
            raised.append(str(error))
        finally:
            done.set()

    monkeypatch.setattr(book, "_fills", slow)
    thread = threading.Thread(target=other)
    thread.start()
    ack = book.submit(2, "sell", 100 * CENT, 2)
    thread.join()
    monkeypatch.undo()
    assert ["one thread at a time" in text for text in raised] == [True]
    assert (ack.filled_qty, len(book), book.best_bid.qty) == (2, 1, 3)


@pytest.mark.parametrize("limits", [None, {"max_order_qty": 10}])
def test_a_call_that_fails_lets_the_next_one_in(limits, monkeypatch):
    """An argument of the wrong kind, and Ctrl-C in the middle: the book is as it was, and free."""
    book = OrderBook(limits=limits)
    for bad in ({"order_id": "x"}, {"order_id": -1}, {"account": 2**31}, {"side": "up"}):
        with pytest.raises(UsageError):
            book.submit(**{"order_id": 1, "side": "buy", "price": 100 * CENT, "qty": 5} | bad)
    with pytest.raises(UsageError):
        book.cancel("x")
    with pytest.raises(UsageError):
        book.reduce("x", 1)
    book.submit(1, "buy", 100 * CENT, 5)

    def interrupted(*_):
        raise KeyboardInterrupt

    for name, call in (
        ("_answer", lambda: book.submit(2, "sell", 100 * CENT, 1)),
        ("_send", lambda: book.clear()),
    ):
        monkeypatch.setattr(book, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            call()
        monkeypatch.undo()
    assert book.submit(3, "sell", 100 * CENT, 1).filled_qty == 1
