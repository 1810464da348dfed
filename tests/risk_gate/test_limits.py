"""Limits: read from settings, tables and files with every problem at once, and looked up key by key."""

import re
import tracemalloc
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab import Limits
from hftlab.codes import SelfTrade
from hftlab.config.limit_keys import KEYS, SIDES, TRADING_KEYS
from hftlab.config.settings import load_config
from hftlab.kernels.risk_gate.records import FIXED, LAST, LIMIT, MID, NO_LIMIT, NOT_GIVEN
from hftlab.risk_gate.limits import ACCOUNT_KEYS, FEE_KEYS, LIMIT_KEYS
from tests.conftest import REPOSITORY
from tests.helpers.interruptions import cpu_seconds

ROOT = REPOSITORY
CELL_FIELDS = {key: field for field, key in (LIMIT_KEYS | FEE_KEYS).items()}
ACCOUNT_FIELDS = {key: field for field, key in ACCOUNT_KEYS.items()}


@pytest.fixture
def write(tmp_path):
    def write(text, name="limits.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def cell(limits, key, account=7, symbol="A"):
    """What holds of a key for one account in one symbol."""
    at = [np.array([account], "i4"), [symbol], np.zeros(1, "i4")]
    if key in FEE_KEYS.values():
        return int(limits.fees(*at)[CELL_FIELDS[key]][0])
    which, records = limits.cell_limits(*at)
    return int(records[which[0]][CELL_FIELDS[key]])


def of_account(limits, key, account=7):
    """What holds of a key for one account."""
    return int(limits.account_limits(np.array([account], "i4"))[ACCOUNT_FIELDS[key]][0])


# ------------------------------------------------------------------ what a value may be

VALUES = [  # key, in TOML, the integer it means
    ("max_order_qty", 100, 100),
    ("max_order_qty", 0, 0),
    ("max_order_qty", 2**63 - 1, 2**63 - 1),
    ("max_order_notional", "250000", 250_000 * 10**9),
    ("max_order_notional", Decimal("0.000000001"), 1),
    ("price_band_ticks", 5, 5),
    ("price_band_percentage", 5, 50_000),
    ("price_band_percentage", "0.0001", 1),
    ("price_band_percentage", Decimal("100"), 1_000_000),
    ("max_long_position", 3, 3),
    ("max_short_position", 4, 4),
    ("max_open_orders", 6, 6),
    ("max_open_notional", "7.5", 7_500_000_000),
    ("max_repeated_orders", 2, 2),
    ("reduce_only", True, 1),
    ("restricted", True, 1),
    *[("self_trade", mode.name.lower(), int(mode)) for mode in SelfTrade],
    ("self_trade", "CANCEL_OLDEST", 2),
    ("maker_fee_bps", Decimal("-0.25"), -2500),
    ("taker_fee_bps", 3, 30_000),
    ("maker_fee_per_lot", "-0.0020", -2_000_000),
    ("taker_fee_per_lot", Decimal("0.003"), 3_000_000),
    ("max_orders_per_second", 50, 50),
    ("max_portfolio_value", "1e6", 10**15),
    ("stop_loss_percentage", Decimal("12.5"), 125_000),
    ("stop_loss_scope", "position", 1),
    ("stop_loss_action", "close", 1),
    ("capital", "1000000", 10**15),
    ("self_trade_group", -3, -3),
]


def from_toml(key, value, **place):
    """Limits with one key, of one place as TOML has it."""
    account, symbol = place.get("account"), place.get("symbol")
    if account is None and symbol is None:
        sections = {True: ({}, {key: value}), False: ({key: value}, {})}
        return Limits.from_settings(*sections[key in TRADING_KEYS])
    own = {key: value} if symbol is None else {"symbols": {symbol: {key: value}}}
    return Limits.from_settings(own if account is None else {"accounts": {str(account): own}})


@pytest.mark.parametrize(("key", "value", "units"), VALUES, ids=str)
def test_a_value_means_one_integer_through_every_door(key, value, units, write):
    """TOML, Python, tables of text, of numbers and of units, and variables mean the same."""
    look = cell if key in CELL_FIELDS else of_account
    section = "TRADING" if key in TRADING_KEYS else "RISK"
    config = load_config(None, {f"HFTLAB_{section}__{key.upper()}": str(value)})
    found = [
        from_toml(key, value),
        Limits(**{key: value}),
        Limits.from_table({key: [value]}),
        Limits.from_table(pa.table({key: [str(value)]})),
        Limits.load(write(f'{key},account\n"{value}",\n', "limits.csv")),
        Limits.from_settings(config.risk, config.trading),
    ]
    if KEYS[key].kind.unit == "e-9":
        found += [Limits(**{key: units}), Limits.from_table({key: np.array([units])})]
    assert [look(limits, key) for limits in found] == [units] * len(found)


def test_numbers_of_any_type_are_read_exactly():
    """Floats are their shortest decimal, whole floats are whole; null, empty text, no account are nothing."""
    table = {"account": [1.0, float("nan")], "max_order_qty": [None, 5.0], "capital": [0.1, ""]}
    limits = Limits.from_table(table)
    assert (cell(limits, "max_order_qty", 1), cell(limits, "max_order_qty", 2)) == (5, 5)
    assert (of_account(limits, "capital", 1), of_account(limits, "capital", 2)) == (10**8, 0)
    assert of_account(Limits(capital=np.float64(0.3)), "capital") == 3 * 10**8
    assert cell(Limits(max_order_qty=np.int32(4), self_trade=SelfTrade.DECREMENT), "self_trade") == 4
    assert cell(Limits(max_order_qty=None), "max_order_qty") == NO_LIMIT


def test_a_list_of_integers_and_floats_keeps_them_apart():
    """1 is a unit of 1e-9, 1.0 the currency."""
    limits = Limits.from_table({"account": [1, 2], "capital": [1, 1.0]})
    assert [of_account(limits, "capital", account) for account in (1, 2)] == [1, 10**9]


def test_what_nobody_gave_is_no_limit():
    """Without limits each record holds what binds nobody."""
    nothing = Limits()
    which, records = nothing.cell_limits(np.array([1, 2], "i4"), ["A"], np.zeros(2, "i4"))
    assert which.tolist() == [0, 0]
    assert which.dtype == np.int32
    bands = {"band_ticks": NOT_GIVEN, "band_ppm": NOT_GIVEN}
    off = dict.fromkeys(("reduce_only", "restricted", "self_trade"), 0)
    everything = dict.fromkeys(("order_most_low", "open_most_low"), -1)  # with their other halves 2^127-1
    expected = dict.fromkeys(LIMIT.names, NO_LIMIT) | bands | off | everything
    assert dict(zip(LIMIT.names, records[0].tolist(), strict=True)) == expected
    assert nothing.account_limits(np.array([1], "i4")).tolist() == [
        (NO_LIMIT, NO_LIMIT, NO_LIMIT, -1, NOT_GIVEN, 0, 0, 0, 0, 0, 0)
    ]
    assert nothing.fees(np.array([1]), ["A"], np.zeros(1, "i4")).tolist() == [(0, 0, 0, 0)]
    assert nothing.references(["A", "B"]).tolist() == [(LAST, 0), (LAST, 0)]
    assert (nothing.unknown_reject, nothing.mark_interval, nothing.repeated_order_window) == (0, 10**9, 10**9)
    assert (nothing.uses, nothing.accounts, nothing.changes) == (frozenset(), (), ())
    assert nothing.cell_limits(np.zeros(0, "i4"), [], np.zeros(0, "i4"))[1].size == 0


def test_what_is_of_all():
    """Unknown accounts, times and references; a time is text with a unit, or ns in Python."""
    limits = Limits.from_settings(
        {
            "unknown_accounts": "reject",
            "repeated_order_window": "250ms",
            "symbols": {"A": {"reference": "mid"}, "B": {"reference": "101.25"}},
        },
        {"mark_interval": "1.5s", "reference": Decimal("-3.5")},
    )
    assert (limits.unknown_reject, limits.mark_interval, limits.repeated_order_window) == (
        True,
        1_500_000_000,
        250_000_000,
    )
    assert limits.references(["C", "B", "A"]).tolist() == [
        (FIXED, -3_500_000_000),
        (FIXED, 101_250_000_000),
        (MID, 0),
    ]
    assert Limits(mark_interval=5, reference=7).mark_interval == 5
    assert Limits(reference=7).references(["A"]).tolist() == [(FIXED, 7)]
    assert Limits.from_table({"reference": ["LAST", 5], "symbol": [None, "A"]}).references(["A", "B"])[
        "kind"
    ].tolist() == [FIXED, LAST]


@pytest.mark.parametrize(
    ("text", "ns"), [("1ns", 1), ("3us", 3000), ("2 m", 120 * 10**9), ("0.5h", 1800 * 10**9)]
)
def test_units_of_time(text, ns):
    """ns, us, ms, s, m and h."""
    assert Limits(mark_interval=text).mark_interval == ns


# ------------------------------------------------------------------ whose a limit is

PLACES = [{}, {"symbol": "A"}, {"account": 7}, {"account": 7, "symbol": "A"}]  # the later hides the earlier
CELL_VALUES = {
    "max_order_notional": [4, 3, 2, 1],
    "max_open_notional": [4, 3, 2, 1],
    "reduce_only": [True, False, True, False],
    "restricted": [False, True, False, True],
    "self_trade": ["none", "decrement", "cancel_both", "cancel_newest"],
    "maker_fee_per_lot": [4, -3, 2, -1],
    "taker_fee_per_lot": [4, -3, 2, -1],
}


@pytest.mark.parametrize("key", CELL_FIELDS)
@pytest.mark.parametrize("given_in", range(1, 16))
def test_each_key_of_a_cell_is_looked_up_by_itself(key, given_in):
    """The account in the symbol, then the account, then the symbol, then all; others don't matter."""
    values = CELL_VALUES.get(key, [4, 3, 2, 0])
    own = [number for number in range(4) if given_in >> number & 1]
    other = "max_order_qty" if key != "max_order_qty" else "max_open_orders"
    rows = [PLACES[number] | {key: values[number]} for number in own]
    rows += [{"account": 8, "symbol": "A", key: values[0]}, {"account": 7, "symbol": "B", key: values[0]}]
    rows += [{**place, other: 99} for number, place in enumerate(PLACES) if number not in own]
    columns = ("account", "symbol", key, other)
    limits = Limits.from_table({name: [row.get(name) for row in rows] for name in columns})
    expected = cell(Limits(**{key: values[own[-1]]}), key)
    assert cell(limits, key) == expected


@pytest.mark.parametrize("key", ACCOUNT_FIELDS)
def test_each_key_of_an_account_is_looked_up_by_itself(key):
    """The account, then all."""
    words = {"stop_loss_scope": ["account", "position"], "stop_loss_action": ["reduce", "close"]}
    for_all, own = words.get(key, ["5", "6"])
    limits = Limits.from_table({"account": [None, 7, 8], key: [for_all, own, None]})
    expected = [of_account(Limits(**{key: value}), key) for value in (own, for_all, for_all)]
    assert [of_account(limits, key, account) for account in (7, 8, 9)] == expected
    assert expected[0] != expected[1]


def test_max_position_size_sets_both_sides():
    """It hides both sides of places further out, and each side of a place further in hides it."""
    limits = Limits.from_settings(
        {
            "max_long_position": 5,
            "symbols": {"A": {"max_position_size": 10}},
            "accounts": {"7": {"max_short_position": 3}},
        }
    )
    sides = ("max_long_position", "max_short_position")
    assert [cell(limits, side) for side in sides] == [10, 3]
    assert [cell(limits, side, 8) for side in sides] == [10, 10]
    assert [cell(limits, side, 8, "B") for side in sides] == [5, NO_LIMIT]
    assert limits.uses == set(sides)


def test_known_accounts_are_those_that_are_named():
    """By a row of any account, even one that gives nothing, or of an account in a symbol."""
    limits = Limits.from_table(
        {"account": [7, 8, None, -1, 9], "symbol": [None, "A", "A", None, None], "from_row": [0, 0, 0, 0, 5]}
    )
    known = [limits, limits.changes[0][1]]
    accounts = np.array([7, 8, -1, 9, 10], "i4")
    assert [which.account_limits(accounts)["known"].tolist() for which in known] == [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
    ]
    assert limits.accounts == (-1, 7, 8, 9)


def test_a_group_may_be_any_integer():
    """An account without a group has none, which group 0 is not."""
    limits = Limits.from_table({"account": [1, 2], "self_trade_group": [0, -5]})
    found = limits.account_limits(np.array([1, 2, 3], "i4"))
    assert found[["group", "has_group"]].tolist() == [(0, 1), (-5, 1), (0, 0)]


def test_cells_with_the_same_limits_share_a_record():
    """However they came to them."""
    limits = Limits.from_table({"account": [1, 2, 3], "max_order_qty": [5, 6, 5]})
    which, records = limits.cell_limits(
        np.array([2, 1, 3, 1], "i4"), ["A", "B"], np.array([0, 0, 1, 1], "i4")
    )
    assert which.tolist() == [0, 1, 1, 1]
    assert records["order_qty"].tolist() == [6, 5]


def test_cells_that_differ_in_any_one_key_differ():
    """Also where all combinations are more than 64 bits can number."""
    keys = [key for key in LIMIT_KEYS.values() if KEYS[key].kind.is_whole and key != "max_repeated_orders"]
    keys += ["max_order_notional", "max_open_notional", "max_repeated_orders"]
    rows = [dict.fromkeys(keys, number) for number in range(1024)]
    rows += [dict.fromkeys(keys, 4) | {key: 3} for key in keys]
    limits = Limits.from_table(
        {"account": np.arange(len(rows))} | {key: np.array([row[key] for row in rows]) for key in keys}
    )
    assert 1024 ** len(keys) > 2**64
    accounts = np.arange(len(rows), dtype="i4")
    _, records = limits.cell_limits(accounts, ["A"], np.zeros(len(rows), "i4"))
    assert records.size == len(rows)


# ------------------------------------------------------------------ changes


def test_a_change_holds_from_its_row_on():
    """Key by key: what a change doesn't give stays; what it gives hides what its place had, not others'."""
    limits = Limits.from_settings(
        {
            "max_order_qty": 10,
            "accounts": {"7": {"max_order_qty": 5, "max_open_orders": 2}},
            "changes": [
                {"from_row": 2000, "account": 7, "symbol": "A", "max_order_qty": 1},
                {"from_row": 1000, "account": 7, "max_order_qty": 3},
                {"from_row": 1000, "max_order_qty": 8},
                {"from_row": 3000, "max_open_orders": 9},
            ],
        }
    )
    assert [row for row, _ in limits.changes] == [1000, 2000, 3000]
    steps = [limits, *(later for _, later in limits.changes)]
    assert [cell(step, "max_order_qty") for step in steps] == [5, 3, 1, 1]
    assert [cell(step, "max_order_qty", symbol="B") for step in steps] == [5, 3, 3, 3]
    assert [cell(step, "max_order_qty", 8) for step in steps] == [10, 8, 8, 8]
    assert [cell(step, "max_open_orders") for step in steps] == [2, 2, 2, 2]
    assert [cell(step, "max_open_orders", 8) for step in steps] == [NO_LIMIT, NO_LIMIT, NO_LIMIT, 9]
    assert [row for row, _ in steps[1].changes] == [2000, 3000]
    assert limits.uses == steps[3].uses == {"max_order_qty", "max_open_orders"}


def test_a_table_has_changes_too():
    """`from_row` is a column; nothing and 0 are the start."""
    limits = Limits.from_table({"from_row": [None, 4], "max_order_qty": [2, None], "max_open_orders": [3, 1]})
    ((row, later),) = limits.changes
    assert (row, cell(limits, "max_open_orders"), cell(later, "max_open_orders")) == (4, 3, 1)
    assert cell(later, "max_order_qty") == 2


# ------------------------------------------------------------------ against dicts

WORDS = {
    "self_trade": st.sampled_from(list(SelfTrade)),
    "reduce_only": st.booleans(),
    "restricted": st.booleans(),
    "stop_loss_action": st.sampled_from(["reduce", "close"]),
}
CHANGING = [key for key, limit in KEYS.items() if not limit.fixed]


@st.composite
def limit_tables(draw):
    """Rows of few accounts, symbols and times, with some of the keys in some of the cells."""
    keys = draw(st.lists(st.sampled_from(CHANGING), min_size=1, max_size=6, unique=True))
    places = st.tuples(
        st.none() | st.integers(-1, 3), st.none() | st.sampled_from("ABC"), st.sampled_from([0, 0, 1, 5, 9])
    )
    rows = []
    for account, symbol, from_row in draw(st.lists(places, max_size=25, unique=True)):
        row = {"account": account, "symbol": symbol, "from_row": from_row}
        for key in keys:
            if symbol is None or KEYS[key].of == "cell":
                row[key] = draw(st.none() | WORDS.get(key, st.integers(0, 4)))
        if row.get("max_position_size") is not None:
            row |= dict.fromkeys(SIDES)
        rows.append(row)
    return keys, rows


def slowly(rows, key, account, symbol, at):
    """The value in force of the nearest place that ever had one; None where nobody has."""
    both = "max_position_size" if key in SIDES else key
    for place in ((account, symbol), (account, None), (None, symbol), (None, None)):
        mine = [row for row in rows if (row["account"], row["symbol"]) == place and row["from_row"] <= at]
        for row in sorted(mine, key=lambda row: -row["from_row"]):
            for name in (both, key):
                if row.get(name) is not None:
                    return row[name]
    return None


@settings(max_examples=150)
@given(limit_tables())
def test_lookups_agree_with_dicts(table):
    """For every key, cell and time of a random table."""
    keys, rows = table
    limits = Limits.from_table(
        {name: [row.get(name) for row in rows] for name in ("account", "symbol", "from_row", *keys)}
    )
    cells = [(account, book) for account in range(-2, 5) for book in range(4)]
    accounts, book = (np.array(column, "i4") for column in zip(*cells, strict=True))
    looked_at = {key for key in keys if key != "max_position_size"}
    looked_at |= set(SIDES) if "max_position_size" in keys else set()
    for at, step in [(0, limits), *limits.changes]:
        which, records = step.cell_limits(accounts, ["B", "D", "A", "C"], book)
        assert len(np.unique(records)) == len(records)
        found = records[which], step.fees(accounts, ["B", "D", "A", "C"], book), step.account_limits(accounts)
        for key in looked_at:
            field = (CELL_FIELDS | ACCOUNT_FIELDS)[key]
            record = next(record for record in found if field in record.dtype.names)
            for (account, number), units in zip(cells, record[field].tolist(), strict=True):
                expected = slowly(rows, key, account, "BDAC"[number], at)
                value = KEYS[key].default if expected is None else units_of(key, expected)
                assert units == value, (at, key, account, "BDAC"[number])
    for at, step in [(0, limits), *limits.changes]:
        known = {row["account"] for row in rows if row["from_row"] <= at}
        assert step.account_limits(accounts)["known"].tolist() == [
            account in known for account in accounts.tolist()
        ]


def units_of(key, value):
    """What a value of the random tables means."""
    if key == "stop_loss_action":
        return int(value == "close")
    scale = 10_000 if key.endswith(("_percentage", "_bps")) else 1
    return int(value) * scale


# ------------------------------------------------------------------ many of them


def test_800_000_cells_are_looked_up_in_the_time_of_ten_dicts():
    """10,000 accounts in 8,000 symbols of which 1 % are used: fast, and nothing is kept for the rest."""
    rng = np.random.default_rng(1)
    symbols = [f"S{number}" for number in range(8000)]
    table = {
        "account": pa.array([*range(10_000), *[None] * 8000], pa.int32()),
        "symbol": pa.array([None] * 10_000 + symbols),
    }
    for key in ("max_order_qty", "max_long_position", "max_open_orders", "max_order_notional"):
        table[key] = rng.integers(1, 5, 18_000)
    tracemalloc.start()
    limits = Limits.from_table(table)
    tracemalloc.stop()
    accounts = rng.integers(0, 10_000, 800_000).astype("i4")
    book = rng.integers(0, 8000, 800_000).astype("i4")
    one_dict = cpu_seconds(lambda: dict(zip(accounts.tolist(), book.tolist(), strict=True)))
    assert cpu_seconds(limits.cell_limits, accounts, symbols, book) < 10 * one_dict  # usually 2
    tracemalloc.start()
    which, records = limits.cell_limits(accounts, symbols, book)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 5e6  # an int32 a cell
    assert peak < 80e6
    assert (records.size, which.dtype) == (256, np.int32)


# ------------------------------------------------------------------ the page


def test_the_page_has_every_key():
    """The table of docs/RISK.md names each key once, and whose it is."""
    page = (ROOT / "docs" / "RISK.md").read_text(encoding="utf-8").split("## Limits")[1]
    rows = re.findall(r"^\| (`[^|]*`) \| (holding|account|symbol|all) \|", page, re.MULTILINE)
    found = {key: whose for names, whose in rows for key in re.findall(r"`(\w+)`", names)}
    assert found == {key: {"cell": "holding"}.get(limit.of, limit.of) for key, limit in KEYS.items()}


def test_examples_of_the_page_are_limits(write):
    """Each TOML and CSV block under "Writing limits" can be loaded as it stands."""
    page = (ROOT / "docs" / "RISK.md").read_text(encoding="utf-8").partition("## Writing limits")[2]
    for kind, text in re.findall(r"^```(toml|csv)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        assert Limits.load(write(text, f"limits.{kind}")).uses
