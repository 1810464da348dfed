"""Tapes of several parts, compiled and run by a thread each: everything is as it is with one thread."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hftlab
from hftlab.kernels.book import opcodes
from hftlab.kernels.book.records import WIDE
from hftlab.kernels.book.tape_compiler import BATCH
from hftlab.parallel import cut, side_by_side
from hftlab.tape.compiler import compile_checked, rules_for
from tests.conftest import HANGS_S
from tests.helpers.slices import fewer

CENT = 10_000_000
TABLES = ("outcomes", "fills", "rejects", "l1", "book")
ROWS = fewer(6_000)


def scattered(ids: np.ndarray, _: np.ndarray) -> np.ndarray:
    """All over 64 bits."""
    return ids.astype(np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)


IDS = {
    "dense": lambda ids, book: ids.astype(np.uint64),
    "with gaps": lambda ids, book: ids.astype(np.uint64) * np.uint64(1_000_003),
    "scattered": scattered,
    "used again": lambda ids, book: (ids % (ROWS // 12)).astype(np.uint64),
    "the same in all symbols": lambda ids, book: (ids // 8).astype(np.uint64),
    "the same in some symbols": lambda ids, book: np.where(book < 2, ids // 2, ids * 16).astype(np.uint64),
    "scattered, the same in all symbols": lambda ids, book: scattered(ids // 8, book),
}


def flow_of(kind: str, rows: int = ROWS, symbols: int = 7) -> pa.Table:
    """A generated flow with its ids changed."""
    table = hftlab.generate(rows, symbols=symbols, seed=len(kind))
    book = table.column("symbol").combine_chunks().indices.to_numpy()
    for name in {"order_id", "new_order_id"} & set(table.column_names):
        ids = table.column(name).to_numpy().astype(np.int64)
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(IDS[kind](ids, book)))
    return table


def tables_of(table: Any, **how: Any) -> tuple[str, dict[str, pa.Table]]:
    result = hftlab.replay(table, record=TABLES, **how)
    return result.digest, {name: result.to_arrow(name) for name in TABLES}


def assert_alike(table: Any, threads: tuple[int, ...] = (2, 3, 16), **how: Any) -> dict[str, pa.Table]:
    """Any number of threads gives the tables of one; returns those."""
    digest, expected = tables_of(table, **how)
    for count in threads:
        found_digest, found = tables_of(table, threads=count, **how)
        for name in TABLES:
            assert found[name].equals(expected[name]), (name, count)
        assert found_digest == digest
    return expected


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("chunk_rows", [None, ROWS // 6 + 1])
def test_threads_change_nothing(kind, chunk_rows):
    """Whatever ids look like; in chunks, orders that are open already are looked up in their part."""
    expected = assert_alike(flow_of(kind), chunk_rows=chunk_rows)
    assert expected["fills"].num_rows > 20
    if kind in ("used again", "the same in all symbols"):
        assert expected["rejects"].num_rows > 20


def test_verify_agrees_about_ids_that_symbols_share():
    assert hftlab.verify(flow_of("the same in all symbols", fewer(2_000))).ok


def test_an_index_grows_by_itself_in_each_part():
    """20,000 open orders with ids that must be hashed, most of them in one part."""
    ids = np.arange(1, fewer(20_000, plain=4) + 1)
    symbols = np.where(ids % 10 == 0, "B", np.where(ids % 10 == 1, "C", "A"))
    table = {
        "action": ["NEW"] * ids.size,
        "order_id": scattered(ids, ids),
        "symbol": symbols,
        "side": ["BUY"] * ids.size,
        "price": ids % 50 * CENT + CENT,
        "qty": ids % 9 + 1,
    }
    assert assert_alike(table)["book"].num_rows == ids.size


def test_the_same_rows_are_rejected_for_the_same_reasons():
    """Bad quantities, prices off the tick and no prices at all, in every part."""
    flow = flow_of("dense")
    prices, qty = (flow.column(name).to_numpy().copy() for name in ("price", "qty"))
    prices[::13] += 1
    prices[::17] = -(2**63)
    qty[::19] = 0
    expected = assert_alike(
        pa.table({name: flow.column(name) for name in flow.column_names} | {"price": prices, "qty": qty}),
        tick_size="0.01",
    )
    assert {"INVALID_QTY", "INVALID_PRICE"} <= set(expected["rejects"]["reason"].to_pylist())


def test_what_one_range_of_rows_tells_is_known_in_all():
    """The tick, the range of prices and the width come from the last row, which only one thread has seen."""
    rows = 4_000
    table = {
        "action": ["NEW"] * rows,
        "order_id": np.arange(rows),
        "symbol": np.array(["A", "B"] * (rows // 2)),
        "side": ["BUY"] * rows,
        "price": np.append(np.full(rows - 1, 100 * CENT), 900 * CENT + 5),
        "qty": np.append(np.full(rows - 1, 3), 2**40),
    }
    one, two = (hftlab.compile_tape(table, parts=parts) for parts in (1, 2))
    assert one.width is two.width is WIDE
    assert two.grid.ticks.tolist() == one.grid.ticks.tolist() == [100 * CENT, 5]
    assert all(np.array_equal(a, b) for a, b in zip(one.grid, two.grid, strict=True))
    assert_alike(table)


@pytest.mark.parametrize("parts", [2, 3, 7, 40])
def test_parts_are_the_rows_of_their_symbols_with_nodes_of_their_own(parts):
    """In input order, with the commands of a tape of one part; no cache line of orders is in two parts."""
    table = flow_of("scattered")
    one, several = hftlab.compile_tape(table), hftlab.compile_tape(table, parts=parts)
    order, rows = several.commands.order, several.commands.rows
    assert several.threads == min(parts, 7)
    assert np.array_equal(np.sort(order), np.arange(one.rows))
    for field in ("op", "level", "qty"):
        assert np.array_equal(rows[field], one.commands.rows[field][order])
    unknown, taken = one.commands.rows["slot"].min(), set()
    assert np.array_equal(rows["slot"] == unknown, one.commands.rows["slot"][order] == unknown)
    books = rows["op"] >> opcodes.BOOK_SHIFT
    for start, stop in zip(several.parts[:-1], several.parts[1:], strict=True):
        assert (np.diff(order[start:stop]) > 0).all()
        assert not set(books[start:stop]) & set(books[:start])
        nodes = rows["slot"][start:stop]
        lots = set(((nodes[nodes > unknown] - unknown - 1) // BATCH).tolist())
        assert not lots & taken
        taken |= lots
    assert several.slots == BATCH * len(taken)


def test_a_tape_of_two_threads_is_the_same_every_time(tmp_path):
    """Who is faster decides nothing: two saved tapes have the same bytes."""
    table = flow_of("dense")
    for name in ("one", "two"):
        hftlab.compile_tape(table, parts=3).save(str(tmp_path / name))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("parts", [1, 2])
def test_a_table_without_rows_has_a_tape(parts):
    table = flow_of("dense").slice(0, 0)
    assert hftlab.compile_tape(table, parts=parts).rows == 0
    assert_alike(table)


ROW = st.fixed_dictionaries(
    {
        "action": st.sampled_from(
            ["NEW", "NEW", "NEW", "CANCEL", "REDUCE", "REPLACE", "MASS_CANCEL", "CLEAR"]
        ),
        "symbol": st.sampled_from("ABCD"),
        "order_id": st.integers(0, 4) | st.sampled_from([2**63, 2**64 - 1]),
        "new_order_id": st.integers(0, 4),
        "side": st.sampled_from(["BUY", "SELL"]),
        "order_type": st.sampled_from(["LIMIT", "LIMIT", "MARKET", "PASSIVE"]),
        "tif": st.sampled_from(["GTC", "GTC", "IOC", "FOK"]),
        "price": st.integers(-1, 4).map(lambda ticks: ticks * CENT),
        "qty": st.integers(0, 6),
    }
)


@given(st.lists(ROW, min_size=1, max_size=60), st.sampled_from([None, 7]))
def test_few_ids_in_few_symbols(rows, chunk_rows):
    """Open, closed, renamed, of another symbol: the same outcomes by one, two and three threads."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for name in ("order_id", "new_order_id"):
        columns[name] = np.array(columns[name], np.uint64)
    assert_alike(pa.table(columns), (2, 3), chunk_rows=chunk_rows)


def test_opening_orders_with_ids_that_two_symbols_share():
    """Open in two books of one part, and in books of different parts, before the chunk that cancels them."""
    ids, symbols = [1, 2, 1, 2, 1, 1, 2, 9], list("ABCDABCA")
    table = {
        "action": ["NEW"] * 4 + ["CANCEL"] * 3 + ["NEW"],
        "order_id": ids,
        "symbol": symbols,
        "side": ["BUY"] * 8,
        "price": [CENT] * 8,
        "qty": [1] * 8,
    }
    expected = assert_alike(table, (2, 4), chunk_rows=4)
    assert expected["outcomes"]["status"].to_pylist() == [
        *["RESTING"] * 4,
        "CANCELLED",
        *["REJECTED"] * 2,
        "RESTING",
    ]


def test_jobs_side_by_side_give_their_results_in_order():
    """Each has a thread; a single one is done by whoever asks; an error of one is raised."""
    meeting = threading.Barrier(3)

    def job(number: int) -> int:
        meeting.wait(HANGS_S)
        return number

    assert side_by_side([lambda number=number: job(number) for number in range(3)]) == [0, 1, 2]
    assert side_by_side([threading.current_thread]) == [threading.current_thread()]
    assert side_by_side([]) == []
    with pytest.raises(ZeroDivisionError):
        side_by_side([lambda: 1, lambda: 1 // 0])


@pytest.mark.parametrize(("size", "pieces"), [(0, 3), (2, 3), (10, 3), (9, 3), (5, 1)])
def test_ranges_cover_everything_once(size, pieces):
    found = cut(size, pieces)
    assert len(found) == pieces
    assert [i for start, stop in found for i in range(start, stop)] == list(range(size))


def test_compiling_with_the_rules_given_is_compiling_with_threads():
    """`compile_checked` and `compile_tape` share instruments out alike."""
    table = flow_of("dense")
    whole = hftlab.compile_tape(table, parts=2)
    again = compile_checked(whole.checked, rules_for(whole.symbols, None, None), parts=2)
    assert all(np.array_equal(a, b) for a, b in zip(whole.commands, again.commands, strict=True))
