"""One replay behind a gate, by account: refused orders, P&L, drawdown.

All numbers are exact integers; a value beyond 64 bits is None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.codes import MAX_QTY, Action, OrderType
from hftlab.config.lot_values import ONE, LotValues
from hftlab.kernels.results import drawdown
from hftlab.results.result import Result
from hftlab.scenarios.report import UNITS, Refused, or_none
from hftlab.tape.tables import frozen
from hftlab.tape.tape import Tape

GATE = [reason.name for reason in UNITS]  # reasons of the gate


class Accounts:
    """The accounts of a tape, and how many orders each sends."""

    def __init__(self, tape: Tape) -> None:
        columns = tape.checked.columns
        sent = (columns.action == Action.NEW) | (columns.action == Action.REPLACE)
        if columns.account.size:  # a table without accounts has one, 0
            found = pa.array(columns.account).dictionary_encode()
            numbers, index = found.dictionary.to_numpy(), found.indices.to_numpy()
        else:
            numbers, index = np.zeros(min(tape.rows, 1), np.int32), np.zeros(tape.rows, np.int32)
        self.numbers = np.union1d(numbers, tape.opening.account).astype(np.int32)  # ascending
        self.orders = np.zeros(self.numbers.size, np.int64)  # NEW and REPLACE rows
        self.orders[self.indices(numbers)] = np.bincount(index[sent], minlength=numbers.size)

    def indices(self, accounts: np.ndarray) -> np.ndarray:
        """The index of each account in `numbers`."""
        return np.searchsorted(self.numbers, accounts)


class Refusals:
    """Orders that the gate refused."""

    def __init__(self, tape: Tape, who: Accounts, result: Result, lots: LotValues) -> None:
        rejects, columns = result.to_arrow("rejects"), tape.checked.columns
        reasons = rejects["reason"].combine_chunks()
        self._names = reasons.dictionary.to_pylist()
        by_gate = np.isin(self._names, GATE)[reasons.indices.to_numpy()]
        seqs = rejects["seq"].to_numpy()[by_gate]
        rows = (
            np.searchsorted(tape.checked.seq, seqs)
            if tape.checked.seq.size
            else seqs - tape.checked.first_row
        )
        # notional is |price| x qty; the price column of a MARKET order means nothing
        price = np.abs(_cells(columns.price, rows))
        price[_cells(columns.order_type, rows) == OrderType.MARKET] = 0
        self._qty, self._price = _cells(columns.qty, rows), price
        self._worth = lots.of(tape.symbols)[_cells(columns.book, rows)]
        self._reason = reasons.indices.to_numpy()[by_gate]
        self._account = who.indices(rejects["account"].to_numpy()[by_gate])
        self._accounts = who.numbers.size

    def by_reason(self) -> dict[str, Refused]:
        """What each reason has refused; reasons that refused nothing are left out."""
        reasons = len(self._names)
        orders = np.bincount(self._reason, minlength=reasons).tolist()
        qty = sums(self._reason, reasons, self._qty)
        notional = sums(self._reason, reasons, self._price, self._qty, self._worth)
        notional = [amount // ONE for amount in notional]
        each = zip(self._names, orders, qty, notional, strict=True)
        return {name: Refused(*what) for name, *what in each if what[0]}

    def by_account(self) -> tuple[np.ndarray, list[int]]:
        """Orders and lots by index of the account."""
        orders = np.bincount(self._account, minlength=self._accounts)
        return orders, sums(self._account, self._accounts, self._qty)


def _cells(column: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cells of a column; zeros where it is absent."""
    return column[rows] if column.size else np.zeros(rows.size, column.dtype)


class Worst(NamedTuple):
    """An extreme among accounts; None for no account, or if a value of one is beyond 64 bits."""

    value: int | None
    account: int | None


class Holdings:
    """Traded lots, fees, P&L and drawdown of each account; lists are by index of the account."""

    def __init__(self, who: Accounts, result: Result, lots: LotValues) -> None:
        positions = result.to_arrow("positions")
        place = who.indices(positions["account"].to_numpy())
        bought, sold = (_by_account(who, place, positions[name]) for name in ("bought_qty", "sold_qty"))
        self.traded = [total(both) for both in zip(bought, sold, strict=True)]
        self.fees = _by_account(who, place, positions["fees"])
        gains = self._followed(who, result, lots)
        lost = gains["lost"] != 0
        self.pnl, self.drawdown = (
            [None if gone else value for value, gone in zip(gains[name].tolist(), lost, strict=True)]
            for name in ("pnl", "drawdown")
        )
        self.gains = total(value for value in self.pnl if value is None or value > 0)
        has_traded = np.array([lots != 0 for lots in self.traded], bool)
        traders = np.flatnonzero(has_traded)
        if not traders.size or lost.any():  # the worst might be the one that 64 bits can't hold
            self.worst = self.deepest = Worst(None, None)
            return
        at = traders[np.argmin(gains["pnl"][traders])], traders[np.argmax(gains["drawdown"][traders])]
        self.worst = Worst(self.pnl[at[0]], int(who.numbers[at[0]]))
        self.deepest = Worst(self.drawdown[at[1]], int(who.numbers[at[1]]))

    def _followed(self, who: Accounts, result: Result, lots: LotValues) -> np.ndarray:
        """GAIN of each account, marked after every fill."""
        fills = result.to_arrow("fills")
        symbol = fills["symbol"].combine_chunks()
        books, owners = symbol.indices.to_numpy(), who.numbers.size
        parties = [who.indices(fills[side].to_numpy()) for side in ("taker_account", "maker_account")]
        # holdings (symbol and account) get numbers that ascend by symbol, as the kernel wants them
        keys = np.concatenate([books * np.int64(owners) + party for party in parties])
        found = pa.array(keys).dictionary_encode()
        holdings = found.dictionary.to_numpy()
        order = np.argsort(holdings)
        rank = np.empty(holdings.size, np.int32)
        rank[order] = np.arange(holdings.size)
        starts = np.searchsorted(holdings[order], np.arange(len(symbol.dictionary) + 1) * np.int64(owners))
        worth = lots.of(symbol.dictionary.to_pylist())
        prices, qty = fills["price"].to_numpy(), fills["qty"].to_numpy()
        prices, qty, unit = _in_small_units(prices, qty, books, worth)
        gains = np.zeros(owners, drawdown.GAIN)
        drawdown.follow(
            frozen(books, "i4"),
            frozen(prices, "i8"),
            frozen(qty, "i8"),
            frozen(fills["aggressor_side"].to_numpy(), "i1"),
            frozen(rank[found.indices.to_numpy()].reshape(2, -1), "i4"),
            frozen(starts, "i4"),
            frozen(holdings[order] % max(owners, 1), "i4"),
            gains,
        )
        _to_money(gains, unit)
        return gains


def _in_small_units(
    prices: np.ndarray, qty: np.ndarray, books: np.ndarray, worth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """(prices, lots, unit in 1e-18) so that price x lots is money in one unit for all symbols.

    Prices count in the divisor that those of a symbol have in common, lots in what one is worth; so 63 bits
    go as far as they can. Where lots don't fit they are 0, and the unit too.
    """
    if (worth == ONE).all():
        return prices, qty, ONE
    steps = [int(np.gcd.reduce(prices[books == book], initial=0)) or 1 for book in range(worth.size)]
    each = [step * lot for step, lot in zip(steps, worth.tolist(), strict=True)]
    unit = math.gcd(*each)
    shares = np.array([one // unit for one in each], object)[books]
    qty = qty.astype(object) * shares
    if max(qty, default=0) > MAX_QTY:
        return prices, np.zeros(qty.size, np.int64), 0
    return prices // np.array(steps, np.int64)[books], qty.astype(np.int64), unit


def _to_money(gains: np.ndarray, unit: int) -> None:
    """P&L in a unit (1e-18) as money, rounded toward zero; what doesn't fit is lost."""
    if unit == ONE:
        return
    gains["lost"] |= unit == 0
    for name in ("pnl", "drawdown"):
        exact = [abs(value) * unit // ONE * (1 if value >= 0 else -1) for value in gains[name].tolist()]
        fits = np.array([abs(value) <= MAX_QTY for value in exact], bool)
        gains["lost"] |= ~fits
        gains[name] = np.where(fits, np.array(exact, object), 0).astype(np.int64)


def _by_account(who: Accounts, place: np.ndarray, column: pa.ChunkedArray) -> list[int | None]:
    """Sums of a column of positions by account; None where one of its holdings has no value."""
    missing = np.zeros(who.numbers.size, bool)
    missing[place[column.is_null().to_numpy()]] = True
    values = sums(place, who.numbers.size, column.fill_null(0).to_numpy())
    return [None if gone else or_none(value) for value, gone in zip(values, missing, strict=True)]


def sums(groups: np.ndarray, size: int, *factors: np.ndarray) -> list[int]:
    """The sum of the product of the factors in each of `size` groups, exactly."""
    # 64-bit arithmetic where no sum can pass it, else Python's integers, which are slower
    largest = groups.size * math.prod(max(abs(int(f.min(initial=0))), int(f.max(initial=0))) for f in factors)
    product = math.prod(f.astype(np.int64 if largest <= MAX_QTY else object) for f in factors)
    result = np.zeros(size, np.int64 if largest <= MAX_QTY else object)
    np.add.at(result, groups, product)
    return result.tolist()


def total(values: Iterable[int | None]) -> int | None:
    """The sum, None where a value is missing or the sum doesn't fit."""
    result = 0
    for value in values:
        if value is None:
            return None
        result += value
    return or_none(result)
