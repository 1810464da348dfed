"""What is wrong with limits: each problem in words, and all those of one file at once."""

from decimal import Decimal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab import Limits, LimitsError
from hftlab.config.limit_keys import KEYS, TRADING_KEYS
from hftlab.config.settings import load_config
from hftlab.errors import MOST_SHOWN, ConfigError, FormatError, UsageError

LOTS = "expected a whole number of lots, 0 or more"
MONEY = 'expected an amount of 0 or more with at most nine decimals, such as "2500.50"'
FEE = 'expected an amount with at most nine decimals, such as "0.0035"'
HINT = "; an integer might mean units of 1e-9"
OF_ACCOUNT = "expected it in those of all or of an account"
OF_SYMBOL = "expected it in those of all or of a symbol"
CHANGES = "found it in a change during the run, expected it from the start"
TICKS = "expected a whole number of ticks, 0 or more"
A_ROW = "expected a row of the flow, 1 or more"
MODES = "expected one of none, cancel_newest, cancel_oldest, cancel_both, decrement"
TWICE = "found the account, symbol and from_row of row 0, expected each once"
PERCENT = "expected a percentage from 0 to 100 with at most four decimals"
BPS = "expected basis points from -10000 to 10000 with at most four decimals"
TIME = 'expected a time above 0, such as "1s" or "250ms"'
OF_ALL = "expected it in those of all"
ACCOUNT = "expected an account from -2147483648 to 2147483647"
BOTH = "expected only max_position_size, which sets both sides, or only those of each side"
FILE = "expected a file of limits: .toml, .csv, Parquet or Arrow IPC"


@pytest.fixture
def write(tmp_path):
    def write(text, name="limits.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def problems_of(make, *args, **kwargs):
    with pytest.raises(LimitsError) as caught:
        make(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return list(caught.value.problems)


SETTINGS = [  # what is in the file, the one problem
    ("risk = 3", "risk: found 3, expected a table"),
    ("trading = 0", "trading: found 0, expected a table"),
    ("[risk]\nmax_order_qty = -5", f"risk.max_order_qty: found -5, {LOTS}"),
    ("[risk]\nmax_order_qty = 1.5", f"risk.max_order_qty: found 1.5, {LOTS}"),
    ("[risk]\nmax_order_qty = true", f"risk.max_order_qty: found True, {LOTS}"),
    ('[risk]\nmax_order_qty = "5"', f"risk.max_order_qty: found '5', {LOTS}"),
    ("[risk]\nmax_order_qty = 9223372036854775808", f"risk.max_order_qty: found 9223372036854775808, {LOTS}"),
    ("[risk]\nmax_order_notional = 1000", f"risk.max_order_notional: found 1000, {MONEY}{HINT}"),
    ("[risk]\nmax_order_notional = -0.5", f"risk.max_order_notional: found -0.5, {MONEY}"),
    (
        '[risk]\nmax_order_notional = "0.0000000001"',
        f"risk.max_order_notional: found '0.0000000001', {MONEY}",
    ),
    ('[risk]\nmax_open_notional = "1e10"', f"risk.max_open_notional: found '1e10', {MONEY}"),
    ("[risk]\nmax_open_notional = 1e999999999", f"risk.max_open_notional: found 1E+999999999, {MONEY}"),
    ("[risk]\nmax_open_notional = nan", f"risk.max_open_notional: found NaN, {MONEY}"),
    ("[risk]\nprice_band_percentage = 0.00001", f"risk.price_band_percentage: found 0.00001, {PERCENT}"),
    ("[risk]\nstop_loss_percentage = 101", f"risk.stop_loss_percentage: found 101, {PERCENT}"),
    (
        "[risk]\nprice_band_ticks = -1",
        f"risk.price_band_ticks: found -1, {TICKS}",
    ),
    ("[risk]\nreduce_only = 1", "risk.reduce_only: found 1, expected true or false"),
    (
        '[risk]\nself_trade = "cancel"',
        f"risk.self_trade: found 'cancel', {MODES}",
    ),
    ("[risk]\nself_trade_group = 1.5", "risk.self_trade_group: found 1.5, expected a whole number"),
    (
        '[risk]\nstop_loss_scope = "all"',
        "risk.stop_loss_scope: found 'all', expected one of account, position",
    ),
    ("[risk]\nrepeated_order_window = 1", f"risk.repeated_order_window: found 1, {TIME}"),
    ('[risk]\nrepeated_order_window = "0s"', f"risk.repeated_order_window: found '0s', {TIME}"),
    ('[risk]\nrepeated_order_window = "0.1ns"', f"risk.repeated_order_window: found '0.1ns', {TIME}"),
    ('[risk]\nrepeated_order_window = "1.5ns"', f"risk.repeated_order_window: found '1.5ns', {TIME}"),
    ('[trading]\nmark_interval = "1 day"', f"trading.mark_interval: found '1 day', {TIME}"),
    ("[trading]\ntaker_fee_bps = 10001", f"trading.taker_fee_bps: found 10001, {BPS}"),
    ("[trading]\nmaker_fee_per_lot = 1", f"trading.maker_fee_per_lot: found 1, {FEE}{HINT}"),
    ('[trading]\ncapital = "-1"', f"trading.capital: found '-1', {MONEY}"),
    (
        '[trading]\nreference = "bid"',
        "trading.reference: found 'bid', expected last, mid or a price, such as \"101.25\"",
    ),
    ("[risk]\nmax_ordr_qty = 5", "risk.max_ordr_qty: no such key, did you mean max_order_qty?"),
    (
        "[risk]\n'b c' = 5",
        'risk."b c": no such key, expected one of max_order_qty, max_order_notional, price_',
    ),
    ("[risk]\ncapital = 5.0", "risk.capital: found it in [risk], expected it in [trading]"),
    ("[trading]\nmax_order_qty = 5", "trading.max_order_qty: found it in [trading], expected it in [risk]"),
    (
        "[trading.accounts.7]",
        "trading.accounts: no such key, expected one of maker_fee_bps, taker_fee_bps, maker_",
    ),
    ("[risk]\nsymbols = 3", "risk.symbols: found 3, expected a table"),
    ("[risk.symbols]\nmax_order_qty = 3", "risk.symbols.max_order_qty: found 3, expected a table"),
    (
        "[risk.symbols.'A B']\nmax_open_orders = -1",
        'risk.symbols."A B".max_open_orders: found -1, expected a',
    ),
    ("[risk.symbols.'']", "risk.symbols.\"\": found '', expected the name of a symbol"),
    (
        "[risk.symbols.A]\nmax_orders_per_second = 3",
        f"risk.symbols.A.max_orders_per_second: found it in limits of a symbol, {OF_ACCOUNT}",
    ),
    (
        "[risk.accounts.7.symbols.A]\nstop_loss_percentage = 3",
        "risk.accounts.7.symbols.A.stop_loss_percentage: found it in limits of an account in a symbol, "
        f"{OF_ACCOUNT}",
    ),
    (
        "[risk.accounts.7]\nreference = 'mid'",
        f"risk.accounts.7.reference: found it in limits of an account, {OF_SYMBOL}",
    ),
    (
        "[risk.accounts.7]\nunknown_accounts = 'reject'",
        f"risk.accounts.7.unknown_accounts: found it in limits of an account, {OF_ALL}",
    ),
    ("[risk.accounts.bob]", f"risk.accounts.bob: found 'bob', {ACCOUNT}"),
    ("[risk.accounts.07]", f"risk.accounts.07: found '07', {ACCOUNT}"),
    ("[risk.accounts.2147483648]", f"risk.accounts.2147483648: found 2147483648, {ACCOUNT}"),
    (
        "[risk.accounts.7]\nmax_position_size = 3\nmax_long_position = 2\nmax_short_position = 1",
        "risk.accounts.7.max_position_size: found it beside max_long_position and max_short_position, "
        + BOTH,
    ),
    ("[risk]\nchanges = 3", "risk.changes: found 3, expected tables, each headed [[risk.changes]]"),
    ("[risk]\nchanges = [3]", "risk.changes 1: found 3, expected a table"),
    (
        "[[risk.changes]]\naccount = 7",
        f"risk.changes 1.from_row: found none, {A_ROW}",
    ),
    (
        "[[risk.changes]]\nfrom_row = 0",
        f"risk.changes 1.from_row: found 0, {A_ROW}",
    ),
    ("[[risk.changes]]\nfrom_row = 1\naccount = '7'", f"risk.changes 1.account: found '7', {ACCOUNT}"),
    (
        "[[risk.changes]]\nfrom_row = 1\nsymbol = ['A']",
        "risk.changes 1.symbol: found ['A'], expected the name of a",
    ),
    (
        "[[risk.changes]]\nfrom_row = 1\n[[risk.changes]]\nfrom_row = 2\n[[risk.changes]]\nfrom_row = 1",
        "risk.changes 3: found the account, symbol and row of risk.changes 1, expected each once",
    ),
    (
        "[[risk.changes]]\nfrom_row = 1\naccount = 7\ncapital = 5.0",
        f"risk.changes 1.capital: {CHANGES}",
    ),
    (
        "[[risk.changes]]\nfrom_row = 1\nsymbol = 'A'\ncapital = 5.0",
        f"risk.changes 1.capital: found it in limits of a symbol, {OF_ACCOUNT}",
    ),
]


@pytest.mark.parametrize(("text", "problem"), SETTINGS)
def test_a_wrong_setting_is_one_line(write, text, problem):
    """It names file and key, what was found and what was expected, when the configuration is read."""
    path = write(text)
    for load in (Limits.load, lambda path: load_config(path, {})):
        (found,) = problems_of(load, path)
        assert found.startswith(problem)
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value) == f"{path}, {found}"


@pytest.mark.parametrize("key", [key for key, limit in KEYS.items() if limit.fixed])
def test_what_holds_for_a_whole_run_can_t_change(key):
    """Each key of that sort, in settings and in tables."""
    value = {"self_trade_group": 1, "stop_loss_scope": "account", "unknown_accounts": "reject"}.get(key)
    value = value or ("1s" if KEYS[key].kind.unit == "ns" else "1")
    change = {"from_row": 3, key: value}
    found = problems_of(Limits.from_settings, {"changes": [change]})
    assert found == [f"risk.changes 1.{key}: {CHANGES}"]
    found = problems_of(Limits.from_table, {name: [cell] for name, cell in change.items()})
    assert found == [f"row 0, {key}: {CHANGES}"]


def test_all_problems_of_a_file_come_at_once(write):
    """One error, in the order of the file's places."""
    path = write(
        "[risk]\nmax_order_qty = -1\nmax_ordr = 2\n[risk.accounts.x]\nmax_order_qty = -2\n"
        "[risk.accounts.x.symbols.A]\ncapital = 1.0\n[[risk.changes]]\nmax_open_orders = -3\n"
        "[trading]\ncapital = -1.0\n"
    )
    found = problems_of(Limits.load, path)
    assert [problem.split(": ")[0] for problem in found] == [
        "risk.max_order_qty",
        "risk.max_ordr",
        "risk.accounts.x",
        "risk.accounts.x.max_order_qty",
        "risk.accounts.x.symbols.A.capital",
        "risk.changes 1.from_row",
        "risk.changes 1.max_open_orders",
        "trading.capital",
    ]
    with pytest.raises(LimitsError) as caught:
        Limits.load(path)
    assert str(caught.value) == f"{path}: 8 problems: " + "; ".join(found)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("HFTLAB_RISK__MAX_ORDER_QTY", "ten", f"risk.max_order_qty: found 'ten', {LOTS}"),
        ("HFTLAB_RISK__MAX_ORDR_QTY", "1", "risk.max_ordr_qty: no such key, did you mean max_order_qty?"),
        ("HFTLAB_RISK__ACCOUNTS__BOB__RESTRICTED", "1", f"risk.accounts.BOB: found 'BOB', {ACCOUNT}"),
        ("HFTLAB_TRADING__CAPITAL", "-1", f"trading.capital: found '-1', {MONEY}"),
        ("HFTLAB_RISK__USERS__7__RESTRICTED", "1", "no such setting, expected one of HFTLAB_REPLAY__THREADS"),
        ("HFTLAB_RISK__ACCOUNTS__RESTRICTED", "1", "no such setting, expected one of HFTLAB_REPLAY__THREADS"),
    ],
)
def test_a_wrong_variable_is_named(name, value, problem):
    """By itself, before it is put over the file."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, {name: value})
    assert str(caught.value).startswith(name)
    assert problem in str(caught.value)


def test_variables_go_over_the_file(write):
    """For all, for a symbol, for an account, and for an account in a symbol."""
    path = write("[risk]\nmax_order_qty = 1\nmax_open_orders = 2\n[risk.accounts.7]\nmax_order_qty = 3\n")
    env = {
        "HFTLAB_RISK__MAX_ORDER_QTY": "10",
        "HFTLAB_RISK__ACCOUNTS__7__RESTRICTED": "true",
        "HFTLAB_RISK__SYMBOLS__Aa__SELF_TRADE": "decrement",
        "HFTLAB_RISK__ACCOUNTS__7__SYMBOLS__Aa__MAX_ORDER_QTY": "30",
        "HFTLAB_TRADING__CAPITAL": "1000",
    }
    config = load_config(path, env)
    limits = Limits.from_settings(config.risk, config.trading)
    at = np.array([7, 7, 8], "i4"), ["Aa", "B"], np.array([0, 1, 0], "i4")
    which, records = limits.cell_limits(*at)
    found = records[which]
    assert found["order_qty"].tolist() == [30, 3, 10]
    assert found["restricted"].tolist() == [1, 1, 0]
    assert found["self_trade"].tolist() == [4, 0, 4]
    assert found["open_orders"].tolist() == [2, 2, 2]
    assert limits.account_limits(at[0])["capital"].tolist() == [10**12] * 3


def test_a_variable_beside_what_the_file_has(write):
    """Both sides at once and one of them is no more clear from two places."""
    env = {"HFTLAB_RISK__MAX_POSITION_SIZE": "5"}
    (found,) = problems_of(load_config, write("[risk]\nmax_long_position = 3\n"), env)
    assert found == f"risk.max_position_size: found it beside max_long_position, {BOTH}"


NAMES = st.sampled_from([*KEYS, "symbols", "accounts", "changes", "account", "symbol", "from_row", "1", "A"])
COLUMN = st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), max_size=3)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.text(max_size=4) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=200)
@given(ANYTHING, ANYTHING, st.dictionaries(NAMES, COLUMN, max_size=3))
def test_whatever_is_given_is_limits_or_an_error(risk, trading, table):
    """Nothing else is ever raised."""
    for make, args in [(Limits.from_settings, (risk, trading)), (Limits.from_table, (table,))]:
        try:
            limits = make(*args)
        except LimitsError:
            continue
        limits.cell_limits(np.array([1], "i4"), ["A"], np.zeros(1, "i4"))


# ------------------------------------------------------------------ tables

TABLES = [
    (
        {"account": [1, 2, 3, 4], "max_order_qty": [1, -5, -5, -6]},
        [f"row 1 (and 1 more), max_order_qty: found -5, {LOTS}", f"row 3, max_order_qty: found -6, {LOTS}"],
    ),
    ({"max_order_qty": [1.5]}, [f"row 0, max_order_qty: found 1.5, {LOTS}"]),
    ({"max_order_qty": np.array([-7])}, [f"row 0, max_order_qty: found -7, {LOTS}"]),
    ({"capital": [-1]}, [f"row 0, capital: found -1, {MONEY}"]),
    ({"capital": ["x"]}, [f"row 0, capital: found 'x', {MONEY}"]),
    ({"capital": [10**19]}, [f"row 0, capital: found 10000000000000000000, {MONEY}"]),
    ({"restricted": ["yes"]}, ["row 0, restricted: found 'yes', expected true or false"]),
    ({"acount": [1]}, ["column acount: no such key, did you mean account?"]),
    (
        {"account": ["bob", True, 1.5, 2**31]},
        [
            f"row 0, account: found 'bob', {ACCOUNT}",
            f"row 1, account: found True, {ACCOUNT}",
            f"row 2, account: found 1.5, {ACCOUNT}",
            f"row 3, account: found 2147483648, {ACCOUNT}",
        ],
    ),
    ({"from_row": [-1]}, ["row 0, from_row: found -1, expected a row of the flow, 0 or more"]),
    ({"symbol": [5]}, ["row 0, symbol: found 5, expected the name of a symbol"]),
    (
        {"symbol": ["A", "B"], "max_orders_per_second": [1, 1]},
        [f"row 0 (and 1 more), max_orders_per_second: found it in limits of a symbol, {OF_ACCOUNT}"],
    ),
    (
        {"account": [1], "reference": ["mid"]},
        [f"row 0, reference: found it in limits of an account, {OF_SYMBOL}"],
    ),
    (
        {"account": [1], "symbol": ["A"], "unknown_accounts": ["reject"]},
        [f"row 0, unknown_accounts: found it in limits of an account in a symbol, {OF_ALL}"],
    ),
    ({"from_row": [0, 3], "capital": [1, 2]}, [f"row 1, capital: {CHANGES}"]),
    (
        {"account": [1, 2], "max_position_size": [5, 5], "max_short_position": [None, 5]},
        [f"row 1, max_position_size: found it beside max_short_position, {BOTH}"],
    ),
    (
        {"account": [1, 2, 1, 1, 1], "symbol": ["A", "A", "A", "A", None], "from_row": [0, 0, 0, 1, 0]},
        [f"row 2: {TWICE}"],
    ),
    ({"max_order_qty": 5}, ["column max_order_qty: found 5, expected a list or an array"]),
    ({"symbol": "A"}, ["column symbol: found 'A', expected a list or an array"]),
    ({"account": [1, 2], "symbol": ["A"]}, ["columns differ in length: account 2, symbol 1"]),
]


@pytest.mark.parametrize(("table", "expected"), TABLES, ids=lambda value: str(value)[:40])
def test_a_wrong_table_names_its_rows(table, expected):
    """Row from 0 and column, what was found and what was expected; equal ones are one problem."""
    assert problems_of(Limits.from_table, table) == expected


def test_frames_say_the_same():
    """Of pyarrow and polars, lazy or not."""
    frame = pl.DataFrame({"account": [1, 1], "max_order_qty": [-1, 3]})
    expected = problems_of(Limits.from_table, frame)
    assert [problem.split(":")[0] for problem in expected] == ["row 0, max_order_qty", "row 1"]
    for other in (frame.to_arrow(), frame.lazy(), frame.to_dict()):
        assert problems_of(Limits.from_table, other) == expected
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["account", "account"])
    assert problems_of(Limits.from_table, twice) == ["column account: found 2 of that name, expected one"]
    nested = pa.table({"account": pa.array([[1]])})
    assert problems_of(Limits.from_table, nested)[0].startswith("column account: found ")
    with pytest.raises(UsageError, match=r"table: found int, expected a pyarrow\.Table"):
        Limits.from_table(3)


def test_a_thousand_problems_are_counted():
    """The text of the error has the first ones, the error all of them."""
    with pytest.raises(LimitsError) as caught:
        Limits.from_table({"max_order_qty": [-n for n in range(1, 1001)]})
    assert len(caught.value.problems) == 1000 + 999  # nor is any row the only one of its place
    assert str(caught.value).startswith("limits table: 1999 problems: row 0, ")
    assert str(caught.value).endswith(f"; and {1999 - MOST_SHOWN} more")


def test_keys_in_python_are_checked_alike():
    """All that is wrong with them, in the words they were given in."""
    found = problems_of(
        Limits, max_order_qty=-1, capital=-2, max_ordr=3, self_trade=None, price_band_ticks=1.5
    )
    assert found == [
        f"max_order_qty: found -1, {LOTS}",
        f"capital: found -2, {MONEY}",
        "max_ordr: no such key, did you mean max_order_qty?",
        f"price_band_ticks: found 1.5, {TICKS}",
    ]


def test_symbols_that_the_flow_has_not(write):
    """All of them at once, where they are named first."""
    limits = Limits.load(
        write(
            "[risk.symbols.X]\n[risk.symbols.A]\n"
            "[risk.accounts.1.symbols.'Y Z']\n[risk.accounts.2.symbols.X]\n"
        )
    )
    limits.check_symbols(["A", "X", "Y Z", "B"])
    assert problems_of(limits.check_symbols, ["A", "B"]) == [
        "risk.symbols.X: found the symbol 'X', expected one of the flow, which has A, B",
        "risk.accounts.1.symbols.\"Y Z\": found the symbol 'Y Z', expected one of the flow, which has A, B",
    ]
    many = [f"S{number}" for number in range(1000, 3000)]
    table = Limits.from_table({"account": [1, 2, 3], "symbol": [None, "A", "A"]})
    names = ", ".join(many[:10])
    assert problems_of(table.check_symbols, many) == [
        f"row 1: found the symbol 'A', expected one of the flow, which has {names} and 1,990 more"
    ]


# ------------------------------------------------------------------ files


def test_rows_of_a_file_are_those_an_editor_shows(write):
    """Lines that are empty or go on count, whatever divides the cells."""
    text = 'account; max_order_qty\n\n7; 5\n8; "-\n3"\n9; -1\n'
    found = problems_of(Limits.load, write(text, "limits.csv"))
    assert [problem.split(",")[0] for problem in found] == ["row 5", "row 6"]
    assert found[1] == f"row 6, max_order_qty: found '-1', {LOTS}"
    with pytest.raises(LimitsError, match=r"limits\.csv: 2 problems: row 5, max_order_qty: found '-.n3'"):
        Limits.load(write(text, "limits.csv"))


def test_files_hold_what_tables_hold(write, tmp_path):
    """CSV, Parquet and Arrow IPC; rows of the last two are counted from 1."""
    table = pa.table({"account": [7, None], "symbol": ["A", None], "max_order_qty": [5, 9]})
    pq.write_table(table, tmp_path / "limits.parquet")
    with (
        pa.OSFile(str(tmp_path / "limits.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)
    write("\ufeffaccount,symbol,max_order_qty\n7,A,5\n,,9\n", "limits.csv")
    for name in ("limits.parquet", "limits.arrow", "limits.csv"):
        limits = Limits.load(tmp_path / name)
        which, records = limits.cell_limits(np.array([7, 8], "i4"), ["A"], np.zeros(2, "i4"))
        assert records[which]["order_qty"].tolist() == [5, 9]
    pq.write_table(pa.table({"max_order_qty": [-5]}), tmp_path / "limits.parquet")
    assert problems_of(Limits.load, tmp_path / "limits.parquet")[0].startswith(
        "row 1, max_order_qty: found -5"
    )


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        (
            "limits.toml",
            "[replay]\nthreads = 2",
            LimitsError,
            ", found no limits, expected [risk] or [trading]",
        ),
        (
            "limits.toml",
            "[risks]",
            ConfigError,
            ", risks: no such key, expected one of replay, instruments, feed, risk",
        ),
        ("limits.toml", "[risk", ConfigError, ": not valid TOML"),
        ("limits.csv", "", FormatError, ", line 1: found an empty file, expected a header"),
        ("limits.csv", "\naccount", FormatError, ", line 1: found an empty line, expected a header"),
        (
            "limits.csv",
            "account,account\n1,2",
            LimitsError,
            ", column account: found 2 of that name, expected one",
        ),
        (
            "limits.csv",
            "account,symbol\n1\n2,A\n3,A,B",
            LimitsError,
            ": 2 problems: row 2: found 1 cells, expected 2, as in",
        ),
        (
            "limits.csv",
            b"account\n\xff",
            FormatError,
            ": found bytes that are no text, expected text in UTF-8",
        ),
        (
            "limits.csv",
            'account\n"7',
            FormatError,
            ", row 2: found broken CSV (unexpected end of data), expected",
        ),
        ("limits.parquet", b"PAR1\0\0\0", FormatError, ": found broken Parquet data ("),
        ("limits.arrow", b"ARROW1\0\0", FormatError, ": found broken Arrow IPC data ("),
        ("limits.xlsx", b"PK\3\4", UsageError, f": found other content, {FILE}"),
    ],
)
def test_a_file_that_is_none(write, name, content, error, said):
    """What is no file of limits, or is broken, is one line naming it."""
    path = write(content, name)
    with pytest.raises(error) as caught:
        Limits.load(path)
    assert str(caught.value).startswith(f"{path}{said}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    """Nor is a folder one."""
    for path, found in [(tmp_path / "limits.csv", "no such file or directory"), (tmp_path, "is a directory")]:
        with pytest.raises(UsageError) as caught:
            Limits.load(path)
        assert str(caught.value) == f"{path}: found {found}, {FILE}"


@pytest.mark.parametrize("key", sorted(KEYS))
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), Decimal("nan"), np.float32("nan"), "nan", "inf"]
)
def test_no_key_takes_what_is_not_finite(key, value):
    """NaN and infinity are no limits, in Python and in tables, as numbers of any type and as text."""
    column = [value, None]
    with pytest.raises(LimitsError, match=key):
        Limits(**{key: value})
    with pytest.raises(LimitsError, match=key):
        Limits.from_table({key: column})
    if isinstance(value, float):
        for frame in (
            pa.table({key: np.array([value])}),
            pl.DataFrame({key: [value]}),
            {key: np.array([value], "f4")},
        ):
            with pytest.raises(LimitsError, match=key):
                Limits.from_table(frame)


@pytest.mark.parametrize("key", sorted(KEYS))
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "+nan", '"nan"', '""'])
def test_no_key_of_toml_takes_what_is_not_finite(key, value, tmp_path):
    """TOML has words for NaN and infinity; neither is a limit, nor is an empty text."""
    section = "trading" if key in TRADING_KEYS else "risk"
    (tmp_path / "limits.toml").write_text(f"[{section}]\n{key} = {value}\n", encoding="utf-8")
    with pytest.raises(LimitsError, match=key):
        Limits.load(tmp_path / "limits.toml")


def test_an_empty_text_in_python_is_no_limit_left_out():
    """None leaves a key out; a text that says nothing is an error, for whoever wrote it meant something."""
    assert Limits(max_order_qty=None).uses == frozenset()
    with pytest.raises(LimitsError, match="max_order_qty: found '', expected a whole number"):
        Limits(max_order_qty="")


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.time64("ns"), pa.duration("ns"), pa.bool_()])
@pytest.mark.parametrize("column", ["account", "max_order_qty", "max_order_notional", "symbol"])
def test_a_column_of_a_type_that_no_limit_has_is_one_line(column, kind):
    """Times in ns, which Python has no objects for, were a ValueError of Arrow's."""
    with pytest.raises(LimitsError, match=f"row 0, {column}: found"):
        Limits.from_table(pa.table({column: pa.array([1_001]).cast(kind)}))
