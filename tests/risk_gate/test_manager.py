"""Holdings (of an account in a symbol) are numbered as they appear, whichever way they are looked up."""

from __future__ import annotations

import numpy as np
import pytest

from hftlab import Limits
from hftlab.risk_gate import manager
from hftlab.risk_gate.manager import RiskManager

ROWS, BOOKS = 6_000, 5  # more holdings than an index has room for at first
SMALLEST, LARGEST = -(2**31), 2**31 - 1


def drawn(lowest: int, highest: int) -> tuple[np.ndarray, np.ndarray]:
    """Accounts and books of rows; the ends of the range are among them."""
    rng = np.random.default_rng(7)
    accounts = rng.integers(lowest, highest, ROWS, endpoint=True).astype(np.int32)
    accounts[[3, 4]] = lowest, highest
    return accounts, rng.integers(0, BOOKS, ROWS).astype(np.int32)


def numbered(accounts: np.ndarray, books: np.ndarray, pieces: int = 1) -> list[int]:
    """What a new manager numbers them, the flow cut into pieces."""
    manager, holdings = RiskManager(Limits(max_order_qty=1)), []
    manager.know_symbols(tuple("ABCDE"))
    for rows in np.array_split(np.arange(ROWS), pieces):
        holdings += manager.holdings_of(accounts[rows], books[rows], rows.size).tolist()
    return holdings


@pytest.mark.parametrize(
    ("lowest", "highest", "has_table"),
    [
        (0, 999, True),
        (-400, 400, True),
        (SMALLEST, SMALLEST + 800, True),
        (LARGEST - 800, LARGEST, True),
        (SMALLEST, LARGEST, False),
        (0, 1_999, False),
    ],
)
def test_holdings_are_numbered_in_order_of_appearance(lowest, highest, has_table):
    accounts, books = drawn(lowest, highest)
    known: dict[tuple[int, int], int] = {}
    expected = [known.setdefault(pair, len(known) + 1) for pair in zip(accounts, books, strict=True)]
    table, _ = manager._small_table(accounts, books, ROWS)
    assert bool(table.size) is has_table
    assert len(known) > 2 * manager.FIRST_HOLDINGS
    assert numbered(accounts, books) == expected
    assert numbered(accounts, books, pieces=7) == expected
