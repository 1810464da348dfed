"""`hftlab.Limits` against the dicts of the slow twin: random limits as a table mean the same to both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hftlab.config.limit_keys import KEYS
from hftlab.risk_gate.limits import ACCOUNT_KEYS, FEE_KEYS, LIMIT_KEYS, Limits
from tests.helpers import risk_flows
from tests.reference.risk_limits import InForce

SEEDS = range(12)
CODED = {
    "self_trade": ("none", "cancel_newest", "cancel_oldest", "cancel_both", "decrement"),
    "stop_loss_scope": ("account", "position"),
    "stop_loss_action": ("reduce", "close"),
}


def as_coded(key: str, value: Any) -> int:
    """A value of the twin as the integer it is in a record, where no limit is one that never binds."""
    if value is None:
        return KEYS[key].default
    return CODED[key].index(value) if key in CODED else int(value)


def check_accounts(limits: Limits, expected: InForce, accounts: np.ndarray) -> None:
    for account, record in zip(accounts.tolist(), limits.account_limits(accounts), strict=True):
        one = expected.account(account)
        kind, group = one.owner
        assert (bool(record["has_group"]), bool(record["known"])) == (kind == "group", one.known)
        assert record["group"] == (group if kind == "group" else 0)
        told = {key: record[field] for field, key in ACCOUNT_KEYS.items() if field != "group"}
        assert told == {key: as_coded(key, getattr(one, key)) for key in told}


def check_cells(limits: Limits, expected: InForce, accounts: np.ndarray, symbols: tuple[str, ...]) -> None:
    who, book = np.repeat(accounts, len(symbols)), np.tile(np.arange(len(symbols)), accounts.size)
    which, records = limits.cell_limits(who, symbols, book)
    fees = limits.fees(who, symbols, book)
    for account, symbol, record, fee in zip(who.tolist(), book.tolist(), records[which], fees, strict=True):
        one = expected.cell(account, symbols[symbol])
        told = {key: record[field] for field, key in LIMIT_KEYS.items()}
        told |= {key: fee[field] for field, key in FEE_KEYS.items()}
        assert told == {key: as_coded(key, getattr(one, key)) for key in told}, (account, symbol)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", risk_flows.FLOWS)
def test_a_table_of_limits_means_what_it_means_to_the_twin(name, seed):
    """Of every account and cell, from the first row on and after every change."""
    flow = risk_flows.make(name, 200, seed)
    limits, expected = Limits.from_table(risk_flows.limits_table(flow.limits)), InForce(flow.limits)
    accounts = np.unique(flow.orders.columns["account"])
    versions = [(0, limits), *limits.changes]
    assert [row for row, _ in versions[1:]] == [row for row, part in flow.limits.changes if _says(part)]
    assert limits.unknown_reject == (flow.limits.unknown_accounts == "reject")
    assert limits.mark_interval == flow.limits.mark_interval
    assert limits.repeated_order_window == flow.limits.repeated_order_window
    for row, version in versions:
        expected.reach(row)
        check_accounts(version, expected, accounts)
        check_cells(version, expected, accounts, flow.orders.symbols)


def _says(limits: risk_flows.Limits) -> bool:
    return bool(limits.defaults or limits.by_symbol or limits.by_account or limits.by_cell)
