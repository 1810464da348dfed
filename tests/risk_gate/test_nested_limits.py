"""Limits in Python, nested as their TOML has them: the same limits, and errors that name the place."""

import tomllib

import pytest

import hftlab
from hftlab.errors import LimitsError

TOML = """
[trading]
capital = 1000.5
stop_loss_percentage = 0.02
[risk]
max_order_qty = 100
[risk.symbols.X]
max_order_notional = "50.25"
[risk.accounts.7]
max_position_size = 5
[risk.accounts.7.symbols.X]
max_order_qty = 10
[[risk.changes]]
from_row = 3
account = 8
reduce_only = true
"""
RISK = tomllib.loads(TOML)["risk"]


def known(limits):
    """All that limits say of three accounts in two symbols, now and after each change."""
    said = []
    for each in (limits, *(later for _, later in limits.changes)):
        book = [0, 1] * 3
        which, records = each.cell_limits([7, 7, 8, 8, 9, 9], ("X", "Y"), book)
        said.append((records[which].tolist(), each.account_limits([7, 8, 9]).tolist()))
    return said, [row for row, _ in limits.changes], limits.accounts


def test_the_dict_of_a_toml_file_is_that_file(tmp_path):
    """Sections, accounts and changes of a dict are those of the file it was read from."""
    path = tmp_path / "limits.toml"
    path.write_text(TOML)
    expected = known(hftlab.Limits.load(path))
    assert known(hftlab.Limits.of(tomllib.loads(TOML))) == expected
    assert known(hftlab.Limits(**tomllib.loads(TOML))) == expected


def test_places_nest_without_their_section_and_accounts_are_numbers_or_text():
    """`accounts` beside the keys of all is `[risk.accounts]`; 7 and "7" are one account."""
    expected = known(hftlab.Limits.from_settings(RISK))
    assert known(hftlab.Limits(**RISK)) == expected
    assert known(hftlab.Limits.of(RISK | {"accounts": {7: RISK["accounts"]["7"]}})) == expected


def test_a_nested_limit_holds_in_every_door():
    """`replay` and `OrderBook` take the dict, and refuse what the account's own limit refuses."""
    nested = {"max_order_qty": 100, "accounts": {7: {"max_order_qty": 1}}}
    flow = {
        "action": ["NEW"] * 2,
        "order_id": [1, 2],
        "side": [1, 1],
        "price": [10**9] * 2,
        "qty": [2, 2],
        "account": [7, 8],
    }
    rejects = hftlab.replay(flow, limits=nested).rejects
    assert rejects.select("account", "limit_value", "observed_value").rows() == [(7, 1, 2)]
    book = hftlab.OrderBook(limits=nested)
    assert book.submit(1, "buy", "1", 2, account=7).limit_value == 1
    assert book.submit(2, "buy", "1", 2, account=8).leaves_qty == 2


def test_integers_of_money_count_billionths_at_every_depth():
    """As in a flat dict of Python: 5_000_000_000 is 5 of the currency, below an account too."""
    limits = hftlab.Limits(accounts={7: {"max_portfolio_value": 5_000_000_000}})
    assert limits.account_limits([7])["portfolio"] == [5_000_000_000]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"accounts": {7: {"max_order_qty": -1}}}, "accounts.7.max_order_qty: found -1, expected a whole"),
        ({"accounts": {7: {"capitl": 1}}}, "accounts.7.capitl: no such key, did you mean capital?"),
        ({"accounts": {1.5: {}}}, "found 1.5, expected an account from"),
        ({"accounts": {7: {}, "7": {"symbols": 3}}}, "accounts.7.symbols: found 3, expected a table"),
        ({"symbols": {"X": {"capital": 1}}}, "symbols.X.capital: found it in limits of a symbol"),
        ({"changes": [{"from_row": 0}]}, "changes 1.from_row: found 0, expected a row of the flow"),
        ({"risk": {}, "max_order_qty": 1}, "max_order_qty: found it beside risk, expected it in [risk]"),
        ({"risk": 3}, "risk: found 3, expected a table"),
        ({"trading": {"stop_loss_percentage": 2}}, "write 2 % as 0.02 here, or as 2 in [risk]"),
    ],
)
def test_an_error_names_the_place(given, problem):
    """What is wrong below an account, a symbol or a change is named by its path."""
    with pytest.raises(LimitsError) as caught:
        hftlab.Limits.of(given)
    assert problem in str(caught.value)
