"""Whether every index in a tape points into what it is an index of.

Kernels believe what is on a tape: an index that points elsewhere would read or write memory that isn't
theirs. A tape that was compiled is right by construction, one that was read from a file is looked at here:
every command, code and ladder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hftlab.codes import MAX_QTY, OrderType, Reason, Tif
from hftlab.kernels.book import opcodes, tape_compiler
from hftlab.kernels.book.ladder import never_open
from hftlab.kernels.book.price_grid import PAGE
from hftlab.kernels.codes import LAST_CONTROL, NOTE

if TYPE_CHECKING:
    from hftlab.tape.tape import Tape

_CODES = {  # lowest and highest of each column of codes
    "action": (0, NOTE),
    "side": (-1, 1),
    "order_type": (0, max(OrderType)),
    "tif": (0, max(Tif)),
}
_MAX_LEVELS = 2**31
_BLOCK = 1 << 15  # commands looked at together: they and what is made of them stay in the cache


def first_fault(tape: Tape) -> str | None:
    """The first thing on a tape that points nowhere, None where all is well."""
    for part in (_sizes, _grid, _columns, _opening, _commands):  # each trusts what those before have seen
        if (fault := next(part(tape), None)) is not None:
            return fault
    return None


def _within(array: np.ndarray, low: Any, high: Any) -> bool:
    """Whether all are from low to high, which may be arrays."""
    if isinstance(high, np.ndarray):
        return bool(((array >= low) & (array <= high)).all())
    return not array.size or bool(array.min() >= low and array.max() <= high)


def _sizes(tape: Tape) -> Iterator[str]:
    """Columns have a cell for every row, or none at all; what is counted is not more than there is."""
    rows, checked = tape.checked.rows, tape.checked
    by_row = checked.columns._asdict() | {"ts": checked.ts, "seq": checked.seq}
    by_row |= {f"commands.{name}": array for name, array in tape.commands._asdict().items()}
    for name, array in by_row.items():
        if array.size not in ((rows,) if name in ("action", "order_id", "commands.rows") else (0, rows)):
            yield f"{array.size:,} cells of {name} for {rows:,} rows"
    parts = tape.parts
    if parts.size < 2 or parts[0] != 0 or parts[-1] != rows or (np.diff(parts) < 0).any():
        yield "parts that aren't those of its rows"
    room = rows + tape.opening.count + tape_compiler.BATCH * (parts.size - 1)
    if not tape.opening.count <= tape.slots <= room:
        yield f"room for {tape.slots:,} orders"
    if checked.first_row < 0 or not tape.symbols:
        yield "no symbols" if checked.first_row >= 0 else f"first row {checked.first_row}"


def _grid(tape: Tape) -> Iterator[str]:
    """Ladders lie one behind the other, and every page has its place on its own."""
    grid, books = tape.grid, len(tape.symbols)
    for name in ("rules", "first", "whole", "sizes", "bases", "starts"):
        if getattr(grid, name).size != books:
            yield f"{getattr(grid, name).size:,} {name} of ladders for {books:,} symbols"
    if (grid.sizes < PAGE).any() or (grid.sizes % PAGE != 0).any() or (grid.ticks < 1).any():
        yield "ladders of no size, or without a tick"
    pages = grid.sizes // PAGE
    if pages.max() > _MAX_LEVELS or 2 * PAGE * pages.sum() > _MAX_LEVELS or pages.sum() != grid.numbers.size:
        yield "pages that aren't those of its ladders"
    ends = np.cumsum(pages)
    if not (
        np.array_equal(grid.starts, ends - pages) and np.array_equal(grid.bases, 2 * PAGE * (ends - pages))
    ):
        yield "ladders that don't lie one behind the other"
    size, used = grid.pages.size, grid.pages[grid.pages["value"] != 0]
    if size < 1 or size & (size - 1) or used.size == size:
        yield f"an index of pages of {size:,} entries"
    if not _within(used["book"], 0, books - 1) or not _within(used["value"], 1, pages[used["book"]]):
        yield "an index of pages that points beside its ladders"


def _columns(tape: Tape) -> Iterator[str]:
    """Codes are codes, books are those of the symbols, rejected rows are rows."""
    columns, rows = tape.checked.columns, tape.checked.rows
    for name, (low, high) in _CODES.items():
        if not _within(getattr(columns, name), low, high):
            yield f"a code of {name} that is none"
    is_one = len(tape.symbols) == 1 or not rows
    if not _within(columns.book, 0, len(tape.symbols) - 1) or not (columns.book.size or is_one):
        yield "rows of an instrument that is not there"
    invalid = tape.invalid
    if not (invalid.rows.size == invalid.limit.size == invalid.observed.size):
        yield "rejected rows without their values"
    if not _within(invalid.rows, 0, rows - 1) or (np.diff(invalid.rows) <= 0).any():
        yield "rejected rows that aren't there"


def _opening(tape: Tape) -> Iterator[str]:
    """Open orders stand on levels of their own book and side, book after book."""
    orders, grid, levels = tape.opening, tape.grid, tape.opening_levels
    if {column.size for column in orders} != {levels.size}:
        yield "open orders of which something is missing"
    if not _within(orders.book, 0, len(tape.symbols) - 1) or (np.diff(orders.book) < 0).any():
        yield "open orders of an instrument that is not there"
    low = grid.bases[orders.book] + np.where(orders.side > 0, 0, grid.sizes[orders.book])
    if not _within(levels, low, low + grid.sizes[orders.book] - 1) or (np.abs(orders.side) != 1).any():
        yield "open orders on a level that is not theirs"
    if (orders.qty < 1).any() or tape.has_accounts != bool(
        tape.checked.columns.account.size or orders.account.any()
    ):
        yield "open orders without lots, or accounts that aren't there"


def _commands(tape: Tape) -> Iterator[str]:
    """Every command names a book, a level of it and a node that are there."""
    rows, targets, incoming = tape.commands.rows, tape.commands.targets, 0
    nobody = never_open(
        2 * int(tape.grid.sizes.sum())
    )  # nodes of orders are behind it, those of levels before
    for start in range(0, rows.size, _BLOCK):
        some = {name: np.ascontiguousarray(rows[name][start : start + _BLOCK]) for name in rows.dtype.names}
        kind, book = (some["op"] >> opcodes.KIND_SHIFT) & opcodes.KIND_MASK, some["op"] >> opcodes.BOOK_SHIFT
        if not _within(book, 0, len(tape.symbols) - 1):
            yield "commands for an instrument that is not there"
        yield from _values(kind, some["qty"])
        placed = np.flatnonzero((kind == opcodes.ADD) | (kind == opcodes.REPLACE))
        incoming += placed.size
        yield from _levels(tape, some["level"][placed], book[placed], kind[placed] == opcodes.REPLACE)
        may_rest = (kind == opcodes.ADD) & (some["op"] & opcodes.NO_REST == 0)
        slot, last = some["slot"], nobody + tape.slots
        if not (_within(slot, nobody, last) and _within(slot - may_rest, nobody, last)):
            yield "commands for an order that has no room"
    if not incoming <= tape.incoming <= rows.size:
        yield f"{tape.incoming:,} commands that may trade of {incoming:,}"
    if not _within(targets, nobody, nobody + tape.slots):
        yield "replacements for an order that has no room"
    if not _within(tape.commands.order, 0, tape.checked.rows - 1):
        yield "commands of rows that aren't there"


def _values(kind: np.ndarray, qty: np.ndarray) -> Iterator[str]:
    """Lots aren't negative; the reason of a reject and a state of the gate are what they say."""
    if not _within(qty, 0, MAX_QTY):
        yield "lots below zero"
    if not _within(qty[kind == opcodes.INVALID], 1, max(Reason)):
        yield "rejects for a reason that is none"
    if not _within(qty[kind == opcodes.CONTROL], 0, LAST_CONTROL):
        yield "a state of the risk gate that is none"


def _levels(tape: Tape, level: np.ndarray, book: np.ndarray, is_replace: np.ndarray) -> Iterator[str]:
    """Of orders: of their book. A REPLACE has a rung in place of a level."""
    base, size = tape.grid.bases[book], tape.grid.sizes[book]
    low, count = np.where(is_replace, 0, base), np.where(is_replace, size, 2 * size)
    if not _within(level, low, low + count - 1):
        yield "orders for a level that is not there"


__all__ = ["first_fault"]
