"""Positions, average cost, P&L and fees of every account in every symbol: a function of the fills.

Nothing here is part of a run. Fills go in, chunk by chunk where a flow is replayed in chunks, and tables come
out, the same for any chunks. The rules are in docs/RISK.md, "Positions and P&L".
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from hftlab import schema
from hftlab.codes import NOT_A_VALUE
from hftlab.config.lot_values import ONES, LotValues
from hftlab.kernels.primitives import hash_index
from hftlab.kernels.primitives.int256 import WORDS
from hftlab.kernels.results import positions
from hftlab.kernels.results.positions import HOLDING, Changes, Holdings
from hftlab.kernels.results.tables import MAKER_ACCOUNT, SEQ, SYMBOL, TAKER_ACCOUNT
from hftlab.kernels.risk_gate.records import FEE
from hftlab.results.tables import Fills
from hftlab.risk_gate.limits import Limits
from hftlab.tape.open_orders import Resting

FEE_KEYS = frozenset({"maker_fee_bps", "taker_fee_bps", "maker_fee_per_lot", "taker_fee_per_lot"})
FIRST_HOLDINGS = 64
FIRST_WIDE = 3  # rows: row 0 stays unused, and a fill may need two


class Positions:
    """Holdings, P&L and fees after some fills. A holding is an account in a symbol.

    `limits` say what a fill costs, `lots` what a lot is worth.
    """

    def __init__(self, limits: Limits | None = None, lots: LotValues = ONES) -> None:
        self._lots = lots
        self._limits = limits if limits is not None and limits.uses & FEE_KEYS else None
        self._changes = list(self._limits.changes) if self._limits is not None else []
        self._fees = np.zeros(0 if self._limits is None else 1, FEE)  # by holding, if fills cost anything
        self._index = hash_index.make_index(FIRST_HOLDINGS)
        self._known = 1  # holdings; number 0 is unused
        self._holdings = Holdings(
            np.zeros(FIRST_HOLDINGS, HOLDING),
            np.zeros((FIRST_HOLDINGS, 2, WORDS), np.int64),
            np.zeros((FIRST_WIDE, positions.WIDE_COLUMNS, WORDS), np.int64),
            np.ones(1, np.int64),
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
        )

    def add(self, fills: Fills, symbols: tuple[str, ...]) -> None:
        """Book the next fills of a flow; `symbols` are those of its books so far."""
        self._book(fills, symbols, self._holdings_of(fills, symbols), _no_changes(0))

    def add_with_changes(self, fills: Fills, symbols: tuple[str, ...]) -> pa.Table:
        """Book the next fills and return the state after each: rows of `pnl`."""
        numbers = self._holdings_of(fills, symbols)
        # a row for taker and maker; one where an account trades with itself
        rows = fills.sides.size + int(np.count_nonzero(numbers[0] != numbers[1]))
        changes = _no_changes(rows)
        self._book(fills, symbols, numbers, changes)
        holdings, at = self._holdings.records, changes.numbers
        seq, ts, *values = changes.longs
        return pa.Table.from_arrays(
            [
                pa.array(seq),
                pa.array(ts).view(schema.TIMESTAMP),
                _symbols(symbols, holdings["book"][at]),
                pa.array(holdings["account"][at]),
                *(_whole(column) for column in values),
            ],
            schema=schema.POSITION_CHANGES,
        )

    def table(self, symbols: tuple[str, ...], resting: Resting) -> pa.Table:
        """Every holding that has traded or has open orders, by name of symbol, then account."""
        self._know_symbols(symbols)
        open_lots, orders = self._open(resting)
        values = np.empty((positions.TO_SOLD_NOTIONAL + 1, self._known), np.int64)
        positions.list_holdings(self._holdings, values)
        holdings = self._holdings.records[: self._known]
        is_there = (values[positions.TO_BOUGHT] != 0) | (values[positions.TO_SOLD] != 0) | (orders != 0)
        there = np.flatnonzero(is_there)
        # books are numbered by first appearance, which chunks may change; names are not
        rank = np.empty(len(symbols), np.int64)
        rank[sorted(range(len(symbols)), key=symbols.__getitem__)] = np.arange(len(symbols))
        there = there[np.lexsort((holdings["account"][there], rank[holdings["book"][there]]))]
        book = holdings["book"][there]
        return pa.Table.from_arrays(
            [
                _symbols(symbols, book),
                pa.array(holdings["account"][there]),
                *(_whole(column) for column in values[:, there]),
                _whole(self._holdings.last[book]),
                *(_whole(column) for column in open_lots[:2, there]),
                pa.array(orders[there]),
                _whole(open_lots[positions.OPEN_NOTIONAL, there]),
            ],
            schema=schema.POSITIONS,
        )

    def _open(self, resting: Resting) -> tuple[np.ndarray, np.ndarray]:
        """Lots and notional (int64 [3, holdings]) and number of the open orders of each holding."""
        numbers = self._numbers(resting.book, resting.account)
        sums, orders = np.zeros((self._known, 3, WORDS), np.int64), np.zeros(self._known, np.int64)
        positions.count_open(numbers, resting.side, resting.price, resting.qty, sums, orders)
        values = np.empty((3, self._known), np.int64)
        positions.list_open(sums, self._holdings.worth[self._holdings.records["book"][: self._known]], values)
        return values, orders

    # -------------------------------------------------------------- holdings

    def _know_symbols(self, symbols: tuple[str, ...]) -> None:
        last, worth = self._holdings.last, self._holdings.worth
        more = np.full(len(symbols) - last.size, NOT_A_VALUE, np.int64)
        worth = np.append(worth, self._lots.of(symbols[worth.size :]))
        self._holdings = self._holdings._replace(last=np.append(last, more), worth=worth)

    def _holdings_of(self, fills: Fills, symbols: tuple[str, ...]) -> np.ndarray:
        """Numbers of the takers' holdings and of the makers', int32 [2, fills]."""
        self._know_symbols(symbols)
        books = fills.ints[SYMBOL]
        return np.stack([self._numbers(books, fills.ints[who]) for who in (TAKER_ACCOUNT, MAKER_ACCOUNT)])

    def _numbers(self, books: np.ndarray, accounts: np.ndarray) -> np.ndarray:
        """The number of each holding; a new one gets the next."""
        numbers, done = np.empty(books.size, np.int32), 0
        while True:
            done, self._known = positions.find_holdings(
                self._index, self._holdings.records, self._known, books, accounts, done, numbers
            )
            if done == numbers.size:
                return numbers
            self._make_room()  # the kernel stops before the first that does not fit

    def _make_room(self) -> None:
        """Twice as many holdings."""
        holdings, size = self._holdings, 2 * self._holdings.records.size
        self._holdings = holdings._replace(
            records=_longer(holdings.records, size), notional=_longer(holdings.notional, size)
        )
        index = hash_index.make_index(size)
        hash_index.copy_index(self._index, index)
        self._index = index

    # -------------------------------------------------------------- fills

    def _book(self, fills: Fills, symbols: tuple[str, ...], numbers: np.ndarray, changes: Changes) -> None:
        """Book fills, each at the fees in force at its row."""
        seqs, done, row = fills.longs[SEQ], 0, 0
        while True:
            # up to the next change of limits, which may change the fees
            stop = int(np.searchsorted(seqs, self._changes[0][0])) if self._changes else seqs.size
            self._look_up_fees(symbols)
            done, row = self._book_until(stop, fills, numbers, changes, done, row)
            if stop == seqs.size:
                return
            # the fees of all holdings are looked up anew
            self._limits, self._fees = self._changes.pop(0)[1], self._fees[:1]

    def _book_until(
        self, stop: int, fills: Fills, numbers: np.ndarray, changes: Changes, done: int, row: int
    ) -> tuple[int, int]:
        while True:
            # the kernel stops when sums need more room than is there
            columns = fills.longs, fills.ints, fills.sides, numbers, self._fees
            done, row = positions.book_fills(*columns, self._holdings, changes, done, stop, row)
            if done == stop:
                return done, row
            wide = self._holdings.wide
            self._holdings = self._holdings._replace(wide=_longer(wide, 2 * len(wide)))

    def _look_up_fees(self, symbols: tuple[str, ...]) -> None:
        """Look up the fees of holdings that are new."""
        if self._limits is not None:
            new = self._holdings.records[self._fees.size : self._known]
            self._fees = np.append(self._fees, self._limits.fees(new["account"], symbols, new["book"]))


def of_fills(
    fills: Fills,
    symbols: tuple[str, ...],
    resting: Resting,
    limits: Limits | None = None,
    lots: LotValues = ONES,
) -> pa.Table:
    """The table `positions` of a whole flow."""
    held = Positions(limits, lots)
    held.add(fills, symbols)
    return held.table(symbols, resting)


def changes_of_fills(
    fills: Fills, symbols: tuple[str, ...], limits: Limits | None = None, lots: LotValues = ONES
) -> pa.Table:
    """The table `pnl` of a whole flow."""
    return Positions(limits, lots).add_with_changes(fills, symbols)


def _no_changes(rows: int) -> Changes:
    return Changes(np.empty((positions.AT_FEES + 1, rows), np.int64), np.empty(rows, np.int32))


def _longer(rows: np.ndarray, size: int) -> np.ndarray:
    longer = np.zeros((size, *rows.shape[1:]), rows.dtype)
    longer[: len(rows)] = rows
    return longer


def _symbols(symbols: tuple[str, ...], books: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(books), pa.array(symbols, pa.string()), safe=False)


def _whole(values: np.ndarray) -> pa.Array:
    """A column of integers; null for NOT_A_VALUE, a sum beyond 64 bits."""
    missing = values == NOT_A_VALUE
    return pa.array(values, mask=missing if missing.any() else None)
