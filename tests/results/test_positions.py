"""Positions, P&L and fees of the package against the slow twin's: random fills, random flows, the gate's."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

import hftlab
from hftlab.codes import PRICE_SCALE
from hftlab.config.lot_values import ONES, LotValues
from hftlab.config.settings import Config
from hftlab.errors import UsageError
from hftlab.kernels.primitives import int256 as exact_kernels
from hftlab.replayer import replayer, sink
from hftlab.results.positions import Positions
from hftlab.results.tables import Fills
from hftlab.tape.open_orders import Resting
from tests.helpers import flows, risk_flows
from tests.helpers.called import Called
from tests.helpers.slices import fewer
from tests.reference import frames, package, positions
from tests.reference.risk_limits import Limits

exact = Called(exact_kernels)

TABLES = ("positions", "pnl")
SYMBOLS = ("B", "A", "C")  # C has open orders and no fill
BIG = [2**62, 2**62 + 1, 2**62 - 1, 2**63 - 2, 2**61, 2**61 - 1, 2**60, 2**31, 2**32]


def money(amount) -> int:
    """Money in 1e-9."""
    return round(amount * PRICE_SCALE)


def of_run(run) -> dict[str, pl.DataFrame]:
    """The tables of a run, in the twin's types."""
    return {name: frames.of_frame(getattr(run, name), frames.GATE_COLUMNS[name]) for name in TABLES}


def expected_of(
    fills: list[tuple], book: list[tuple], limits: Limits, lots: dict[str, Fraction] | None = None
) -> dict[str, pl.DataFrame]:
    """The tables of the twin."""
    rows = {
        "positions": positions.of_fills(fills, book, limits, lots),
        "pnl": positions.changes(fills, limits, lots),
    }
    return {
        name: pl.DataFrame(table, schema=frames.GATE_COLUMNS[name], orient="row")
        for name, table in rows.items()
    }


def package_limits(limits: Limits) -> hftlab.Limits:
    return hftlab.Limits.from_table(risk_flows.limits_table(limits))


# -- exact integers


def as_exact(value: int):
    words = np.zeros((1, 1, exact.WORDS), np.int64)
    words[0, 0] = [((value >> 64 * i) + 2**63) % 2**64 - 2**63 for i in range(exact.WORDS)]
    return exact.load(words, 0, 0)


def as_int(number) -> int:
    words = np.zeros((1, 1, exact.WORDS), np.int64)
    exact.store(words, 0, 0, number)
    return int.from_bytes(words.astype("<i8").tobytes(), "little", signed=True)


def test_exact_integers_are_those_of_python():
    """Sums, products and quotients toward zero, up to 252 bits; what no int64 holds is NOT_A_VALUE."""
    rng = random.Random(1)
    edges = [0, 1, -1, 2**63 - 1, -(2**63) + 1, -(2**63), 2**63, 2**64, -(2**64), 2**128 - 1, -(2**127)]

    def number(bits: int) -> int:
        value = rng.choice(edges) if rng.random() < 0.3 else rng.getrandbits(rng.randint(1, bits))
        return value * rng.choice((1, -1))

    for _ in range(3_000):
        a, b, factor = number(188), number(188), rng.getrandbits(62) * rng.choice((1, -1))
        wide_a, wide_b = as_exact(a), as_exact(b)
        assert as_int(wide_a) == a
        assert as_int(exact.add(wide_a, wide_b)) == a + b
        assert as_int(exact.subtract(wide_a, wide_b)) == a - b
        assert as_int(exact.times(wide_a, factor)) == a * factor
        assert exact.sign_of(wide_a) == (a > 0) - (a < 0)
        assert exact.narrowed(wide_a) == (a if abs(a) < 2**63 else exact.TOO_LARGE)
        if b:
            assert as_int(exact.divide(wide_a, wide_b)) == positions.toward_zero(a, b)
        x, y = rng.getrandbits(rng.randint(1, 62)), rng.getrandbits(rng.randint(1, 62)) * rng.choice((1, -1))
        assert as_int(exact.exact(y)) == y
        assert exact.saturated(wide_a) == max(1 - 2**63, min(2**63 - 1, a))
        assert as_int(exact.joined(*exact.words_of(wide_a))) == a
        pair = rng.choice((1, -1)) * rng.getrandbits(127)
        high, low = pair >> 64, (pair + 2**63) % 2**64 - 2**63
        assert as_int(exact.widened((np.int64(high), np.int64(low)))) == pair
        if a >= 0 and pair >= 0:
            assert bool(exact.exceeds(wide_a, np.int64(high), np.int64(low))) == (a > pair)
        assert exact.small_product(x, y) == (x * y if abs(x * y) < exact.SMALL else exact.TOO_LARGE)
    edge = [(exact.SMALL - 1, 1), (exact.SMALL, 1), (1 - exact.SMALL, 1), (-exact.SMALL, 1), (2**62, 4)]
    small = [exact.small_product(a, b) != exact.TOO_LARGE for a, b in edge]
    assert small == [True, False, True, False, False]


# -- random fills


def random_fills(rng: random.Random, count: int, prices: list[int], lots: list[int]) -> list[tuple]:
    """Rows of a fills table with few accounts, some of which trade with themselves."""
    rows, seq = [], 0
    for match in range(count):
        seq += rng.random() < 0.7
        what = rng.choice(SYMBOLS[:2]), rng.choice(prices), rng.choice(lots), rng.choice((1, -1))
        who = rng.choice((-(2**31), 0, 1, 2)), rng.choice((0, 1, 2, 2**31 - 1))
        rows.append((seq, match, 1_000 * seq, *what, match, match + 1, *who, 0, 0))
    return rows


def columns_of(rows: list[tuple]) -> Fills:
    """Those rows as the kernels give them."""
    longs, ints = np.zeros((8, len(rows)), np.int64), np.zeros((3, len(rows)), np.int32)
    for i, (seq, _, ts, symbol, price, qty, _, taker_id, maker_id, taker, maker, *_leaves) in enumerate(rows):
        longs[:6, i] = seq, ts, price, qty, taker_id, maker_id
        ints[:, i] = SYMBOLS.index(symbol), taker, maker
    return Fills(longs, ints, np.array([row[6] for row in rows], np.int8))


def random_book(rng: random.Random, prices: list[int], lots: list[int]) -> list[tuple]:
    """Rows of a book table."""
    return [
        (
            rng.choice(SYMBOLS),
            rng.choice((1, -1)),
            rng.choice(prices),
            rng.choice(lots),
            9,
            rng.choice((1, 77)),
        )
        for _ in range(rng.randint(0, 8))
    ]


def resting_of(rows: list[tuple]) -> Resting:
    books = [SYMBOLS.index(row[0]) for row in rows]
    rest = [[row[i] for row in rows] for i in range(1, 6)]
    types = ("i4", "i1", "i8", "i8", "i8", "i4")
    return Resting(*(np.array(column, kind) for column, kind in zip((books, *rest), types, strict=True)))


def random_fees(rng: random.Random, largest_per_lot: int) -> Limits:
    """Fees and rebates of all, of a symbol and of accounts, which change twice on the way."""

    def some() -> dict[str, int]:
        bps = {f"{who}_fee_bps": rng.randint(-(10**8), 10**8) for who in ("maker", "taker")}
        per_lot = rng.randint(-largest_per_lot, largest_per_lot)
        keys = bps | {f"{rng.choice(('maker', 'taker'))}_fee_per_lot": per_lot}
        return {key: value for key, value in keys.items() if rng.random() < 0.7}

    def limits(**more) -> Limits:
        return Limits(some(), {"A": some()}, {1: some()}, {(2, "A"): some()}, **more)

    return limits(changes=[(40, limits()), (90, limits())])


def booked(
    rows: list[tuple], book: list[tuple], limits, cuts: list[int], lots: LotValues = ONES
) -> dict[str, pl.DataFrame]:
    """The tables of the package, with the fills added in pieces."""
    held, quiet = Positions(limits, lots), Positions(limits, lots)
    fills, parts = columns_of(rows), []
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        piece = Fills(*(np.ascontiguousarray(c[..., start:stop]) for c in vars(fills).values()))
        parts.append(held.add_with_changes(piece, SYMBOLS))
        quiet.add(piece, SYMBOLS)
    tables = held.table(SYMBOLS, resting_of(book)), quiet.table(SYMBOLS, resting_of(book))
    assert tables[0].equals(tables[1])
    found = {"positions": tables[0], "pnl": sink.joined(parts)}
    return {
        name: frames.of_frame(pl.from_arrow(table), frames.GATE_COLUMNS[name])
        for name, table in found.items()
    }


KINDS = {
    "few prices, few lots": ([1, 2, 3, 5, 7], [1, 2, 3]),
    "cents": ([money(p) for p in (99.98, 99.99, 100, 100.01)], [1, 7, 100, 300]),
    "zero and below": ([money(p) for p in (-37.63, -1, 0, 0.01, 1)], [1, 2, 9]),
    "all costs nothing": ([0], [1, 2, *BIG]),
    "large prices": ([*BIG, *(-p for p in BIG), 0, 1], [1, 2, 3]),
    "large lots": ([-1, 1, 2, 1_000], [*BIG, 1, 2]),
    "all is large": ([*BIG, *(-p for p in BIG), 0], [*BIG, 1]),
    "on the edge of 64 bits": ([2**30, 2**31 - 1, -(2**30)], [2**29, 2**30, 2**31 + 1, 2**32, 1]),
    "many lots, and a price that soars": ([1, 2**33, 2**35], [2**27, 2**28, 1]),
    "all remainders": ([10**9 + 7, 998_244_353], [2**31, 2**31 - 1, 2**30 + 1, 1]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_random_fills_are_booked_as_the_twin_does(kind):
    """Positions, costs, P&L, fees and open orders, whatever the sizes, and in any pieces."""
    prices, lots = KINDS[kind]
    for seed in range(fewer(21)):
        rng = random.Random(f"{kind} {seed}")
        rows, book = random_fills(rng, 150, prices, lots), random_book(rng, prices, lots)
        limits = random_fees(rng, rng.choice((0, 10**9, 2**62))) if seed % 3 else Limits()
        expected = expected_of(rows, book, limits)
        for cuts in ([], [0, 1, 60, 60, 150], sorted(rng.choices(range(150), k=5))):
            found = booked(rows, book, package_limits(limits), cuts)
            assert frames.first_difference(expected, found) is None, (kind, seed, cuts)


@pytest.mark.parametrize("kind", KINDS)
def test_random_fills_in_lots_of_any_worth_are_booked_as_the_twin_does(kind):
    """Money is price x lots x what one lot is worth, however small or large, and rounded only at the end."""
    prices, lots = KINDS[kind]
    for seed in range(fewer(21)):
        rng = random.Random(f"lots {kind} {seed}")
        rows, book = random_fills(rng, 150, prices, lots), random_book(rng, prices, lots)
        limits = random_fees(rng, rng.choice((0, 10**9, 2**62))) if seed % 3 else Limits()
        units = {name: rng.choice((1, 10, 30_000, 10**9, 50 * 10**9, 10**18)) for name in SYMBOLS[1:]}
        expected = expected_of(rows, book, limits, {name: Fraction(u, 10**9) for name, u in units.items()})
        found = booked(rows, book, package_limits(limits), [60], LotValues(by_symbol=units))
        assert frames.first_difference(expected, found) is None, (kind, seed, units)


def test_more_cells_and_more_large_ones_than_there_was_room_for():
    """Each of 500 accounts has one fill, half of them beyond 64 bits."""
    rows = [(i, i, i, "A", 2**62 if i % 2 else 5, 2**40, 1, 1, 2, 2 * i, 2 * i + 1, 0, 0) for i in range(250)]
    found = booked(rows, [], None, [100])
    assert frames.first_difference(expected_of(rows, [], Limits()), found) is None
    assert found["positions"].height == 500


# -- flows

WAYS = ({"path": "event"}, {"threads": 2}, {"chunk_rows": 700}, {"chunk_rows": 333, "path": "event"})


@pytest.mark.parametrize("name", flows.FLOWS)
def test_flows_give_the_positions_of_their_fills_however_they_are_replayed(name):
    """The twin's from fills and final book; batch, events, threads and chunks alike; sums are zero."""
    flow = flows.make(name, fewer(4_000, plain=20), seed=21)
    config = package.settings(flow.tick, flow.allow_nonpositive)
    tables = ("fills", "book", *TABLES)
    run = hftlab.replay(flow.table(), record=tables, config=config)
    rows = {name: frames.of_frame(getattr(run, name), frames.COLUMNS[name]).rows() for name in tables[:2]}
    expected = expected_of(rows["fills"], rows["book"], Limits())
    assert frames.first_difference(expected, of_run(run)) is None
    held = run.positions.filter(pl.col("position").is_null().any().over("symbol").not_())
    assert set(held.group_by("symbol").agg(pl.col("position").sum())["position"]) <= {0}
    for options in WAYS:
        again = hftlab.replay(flow.table(), record=tables, config=config, **options)
        assert frames.first_difference(expected, of_run(again)) is None, options


@pytest.mark.parametrize("name", risk_flows.FLOWS)
def test_positions_behind_the_gate_are_the_twin_s(name):
    """Fees by cell, changing on the way; what the gate closes by itself; open orders that it cancels."""
    flow = risk_flows.make(name, fewer(1_500), seed=31)
    orders = flow.orders
    expected = flow.expected()
    for options in ({}, *WAYS):
        run = hftlab.replay(
            orders.table(),
            record=TABLES,
            config=package.settings(orders.tick, orders.allow_nonpositive),
            limits=package_limits(flow.limits),
            **options,
        )
        assert frames.first_difference(expected, of_run(run)) is None, options


# -- by hand, and where the tables appear

ORDERS = {
    "action": ["NEW"] * 6,
    "order_id": [1, 2, 3, 4, 5, 6],
    "side": [-1, 1, -1, 1, 1, -1],
    "price": [money(p) for p in (10, 10, 13, 13, 9, 14)],
    "qty": [10, 10, 5, 5, 2, 3],
    "account": [2, 1, 2, 1, 1, 1],
}


def test_a_story_by_hand():
    """10 at 10 and 5 at 13 cost 165, 11 a lot; the last price is 13; fees of 1 bp and 0.01 a lot."""
    config = Config(trading={"taker_fee_bps": "1", "maker_fee_per_lot": "-0.01"})
    run = hftlab.replay(ORDERS, config=config)
    buyer, seller = run.positions.drop("symbol").to_dicts()
    assert buyer == {
        "account": 1,
        "position": 15,
        "avg_price": money(11),
        "cost": money(165),
        "realised_pnl": 0,
        "unrealised_pnl": money(30),
        "fees": money(0.0165),
        "bought_qty": 15,
        "sold_qty": 0,
        "bought_notional": money(165),
        "sold_notional": 0,
        "last_price": money(13),
        "open_buy_qty": 2,
        "open_sell_qty": 3,
        "open_orders": 2,
        "open_notional": money(60),
    }
    assert (seller["cost"], seller["avg_price"], seller["fees"]) == (-money(165), money(11), -money(0.15))
    wanted = ["seq", "account", "position", "avg_price", "realised_pnl", "unrealised_pnl"]
    assert run.pnl.select(wanted).rows() == [
        (1, 1, 10, money(10), 0, 0),
        (1, 2, -10, money(10), 0, 0),
        (3, 1, 15, money(11), 0, money(30)),
        (3, 2, -15, money(11), 0, -money(30)),
    ]


def test_a_flat_account_has_no_average_price():
    """Bought and sold again: null, and the profit is realised."""
    orders = {
        "action": ["NEW"] * 4,
        "order_id": [1, 2, 3, 4],
        "side": [-1, 1, 1, -1],
        "price": [money(10), money(10), money(12), money(12)],
        "qty": [5] * 4,
        "account": [2, 1, 3, 1],
    }
    rows = hftlab.replay(orders).positions.select("account", "position", "avg_price", "realised_pnl").rows()
    assert rows == [(1, 0, None, money(10)), (2, -5, money(10), 0), (3, 5, money(12), 0)]


@pytest.mark.parametrize("chunk_rows", [None, 2])
def test_run_folders_have_them(tmp_path, chunk_rows):
    """In one piece and in chunks; `pnl` grows with the chunks, `positions` is what is there at the end."""
    run = hftlab.replay(ORDERS, record=TABLES, out=tmp_path / "run", chunk_rows=chunk_rows)
    for name in TABLES:
        written = pq.read_table(tmp_path / "run" / f"{name}.parquet")
        assert written.num_rows == 4 - 2 * (name == "positions")
        assert pl.from_arrow(written).equals(getattr(run, name))


@pytest.mark.parametrize("name", TABLES)
def test_a_replay_in_chunks_has_what_was_recorded(name):
    """One of the two can be had without the other, and afterwards neither."""
    whole, parts = hftlab.replay(ORDERS), hftlab.replay(ORDERS, record=name, chunk_rows=1)
    assert getattr(parts, name).equals(getattr(whole, name))
    other = TABLES[name == TABLES[0]]
    for record in ((), ("fills",)):
        with pytest.raises(UsageError, match=f"{other} was not recorded"):
            getattr(hftlab.replay(ORDERS, record=record, chunk_rows=1), other)


def test_a_replay_that_does_not_ask_for_them_does_nothing_for_them(monkeypatch):
    """No state is made, in one piece nor in chunks."""

    def never(*_ignored):
        raise AssertionError("positions were not asked for")

    for module, name in ((sink, "Positions"), (replayer, "of_fills"), (replayer, "changes_of_fills")):
        monkeypatch.setattr(module, name, never)
    digests = [hftlab.replay(ORDERS, chunk_rows=rows).summary()["digest"] for rows in (None, 2)]
    assert digests[0] == digests[1]


def test_a_flow_without_fills():
    """No rows of `pnl`; `positions` has the accounts that have open orders, without a price."""
    orders = {name: column[:1] for name, column in ORDERS.items()}
    for rows in (None, 1):
        run = hftlab.replay(orders, record=TABLES, chunk_rows=rows)
        assert run.pnl.height == 0
        held = run.positions.select("account", "position", "last_price", "unrealised_pnl", "open_sell_qty")
        assert held.rows() == [(2, 0, None, 0, 10)]
    empty = {name: column[:0] for name, column in ORDERS.items()}
    assert hftlab.replay(empty).positions.height == hftlab.replay(empty).pnl.height == 0
