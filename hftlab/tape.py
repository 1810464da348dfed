"""The tape: a checked table, compiled once, ready to be run any number of times.

Prices have become levels of ladders made to measure, order ids slots, rows 16-byte commands. A tape is
read-only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np

from hftlab.codes import MAX_QTY, NOT_A_VALUE
from hftlab.config import Instrument
from hftlab.errors import UsageError
from hftlab.grid import fit_grid
from hftlab.kernels import ops, tape_compiler
from hftlab.kernels.engine import Commands
from hftlab.kernels.order_index import copy_index, fill_index, make_index
from hftlab.kernels.price_grid import Grid
from hftlab.kernels.records import COMMAND, NARROW, WIDE
from hftlab.kernels.tape_compiler import Columns, Instruments, Slots, Target
from hftlab.resting import Resting, levels_of, nothing
from hftlab.tables import ABSENT, CheckedTable, frozen, only_symbols, read_orders, to_units

GROUP_FROM = 512  # symbols: grouping costs 3-5 ns a command and pays from some hundreds on
MAX_ROWS = 2**31 - 1


@dataclass(frozen=True)
class Invalid:
    """Rows rejected for what they are; the reason itself is on the tape."""

    rows: np.ndarray  # int32 [rejects], ascending
    limit: np.ndarray  # int64: what was the limit; NOT_A_VALUE for a tick that nobody gave
    observed: np.ndarray  # int64: what was there; NOT_A_VALUE where it can't be said


@dataclass(frozen=True)
class Tape:
    """A compiled orders table; make one with `compile_tape`, run it with `replay`.

    Arrays "by row" follow the input table (after a symbol filter), whatever the order of the commands.
    """

    commands: Commands
    grid: Grid
    symbols: tuple[str, ...]  # by book number
    checked: CheckedTable  # the columns results are made from
    slot_ids: np.ndarray  # int64 [slots]: order id of each slot
    opening: Resting  # orders that rest before the first command
    opening_levels: np.ndarray  # int32; their slots are 1, 2, 3 ...
    invalid: Invalid
    incoming: int  # commands that may trade or rest
    parts: np.ndarray  # int64 [books + 1]: where each book's commands start if grouped, else [0, rows]
    signed: np.ndarray  # bool [books]: zero and negative prices are legal
    has_accounts: bool
    stages: dict[str, float] = field(default_factory=dict, compare=False)  # seconds by stage

    @property
    def rows(self) -> int:
        """Commands on the tape."""
        return self.commands.rows.size

    def __len__(self) -> int:
        return self.rows

    @property
    def grouped(self) -> bool:
        """Whether commands stand instrument by instrument, so that threads can share them out."""
        return self.parts.size > 2 or len(self.symbols) == 1

    @cached_property
    def width(self) -> np.dtype:
        """Width of quantities: 32 or 64 bits."""
        return NARROW if self.commands.rows.dtype == COMMAND[NARROW] else WIDE

    @property
    def nbytes(self) -> int:
        """Bytes of the compiled arrays."""
        arrays = [*self.commands, self.slot_ids, *self.grid]
        return sum(array.nbytes for array in arrays)

    def seq(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the tape as rows of the input table."""
        if self.checked.seq.size:
            return self.checked.seq[rows]
        return rows.astype(np.int64) + self.checked.first_row

    def ts(self, rows: np.ndarray) -> np.ndarray:
        """Timestamps of rows, ns."""
        if self.checked.ts.size:
            return self.checked.ts[rows]
        return rows.astype(np.int64) + self.checked.first_row

    def save(self, path: str) -> None:
        """Write the tape as an Arrow IPC file. Raises OutputError."""
        from hftlab.tape_file import save_tape

        save_tape(self, path)

    @staticmethod
    def load(path: str, verify: bool = False) -> Tape:
        """Map a saved tape into memory; `verify` reads it all and compares checksums.

        Raises FormatError for a file that is not a tape, not whole, or of another format version.
        """
        from hftlab.tape_file import load_tape

        return load_tape(path, verify)

    def __repr__(self) -> str:
        return (
            f"Tape({self.rows:,} commands, {len(self.symbols):,} symbol(s), "
            f"{self.nbytes / 1e6:,.1f} MB, {'grouped' if self.grouped else 'interleaved'})"
        )


def compile_tape(
    table: Any,
    tick_size: str | int | float | Decimal | Mapping[str, Any] | None = None,
    *,
    symbols: list[str] | None = None,
    instruments: Any = None,
    grouped: bool | None = None,
) -> Tape:
    """Check and compile an orders table.

    `table` is a pyarrow.Table, a polars DataFrame or LazyFrame, or a dict of arrays. `tick_size` is one
    for all or a dict by symbol; without it the largest tick that fits every price is taken, so that no
    price is off it. `symbols` keeps only some; `instruments` is a `Config`; `grouped` puts commands
    instrument by instrument (by default from some hundreds of symbols on, or for threads).

    Raises TableError listing everything that is wrong with the table's shape; a row of bad content
    becomes a reject instead.
    """
    checked = read_orders(table)
    if symbols is not None:
        checked = only_symbols(checked, symbols)
    return compile_checked(checked, rules_for(checked.symbols, tick_size, instruments), grouped=grouped)


def tick_units(tick_size: Any, where: str = "tick_size") -> int:
    """A tick size in units of 1e-9. Raises UsageError where it isn't a positive multiple of that."""
    units = to_units(tick_size)
    if units == NOT_A_VALUE or units <= 0:
        raise UsageError(f"{where}: found {tick_size!r}, expected a positive multiple of 1e-9, like '0.01'")
    return units


def rules_for(symbols: tuple[str, ...], tick_size: Any, config: Any) -> Instruments:
    """Tick size and price rule of each symbol, from the argument first and the configuration second."""
    ticks, signed = np.zeros(len(symbols), np.int64), np.zeros(len(symbols), bool)
    for book, symbol in enumerate(symbols):
        settings = config.instrument(symbol) if config is not None else Instrument()
        tick = tick_size.get(symbol) if isinstance(tick_size, Mapping) else tick_size
        ticks[book] = tick_units(tick) if tick is not None else settings.tick_size or 0
        signed[book] = settings.allow_nonpositive_prices
    return Instruments(ticks, signed)


def compile_checked(
    checked: CheckedTable,
    rules: Instruments,
    opening: Resting | None = None,
    grouped: bool | None = None,
) -> Tape:
    """Compile checked columns; `opening` rests before the first command."""
    opening = opening if opening is not None else nothing()
    if checked.rows + opening.count > MAX_ROWS:
        raise UsageError(f"found {checked.rows:,} rows, expected at most {MAX_ROWS:,}: replay it in chunks")
    columns, books = checked.columns, len(checked.symbols)
    per_book, totals = _survey(columns, rules, opening, books)
    given = rules.ticks
    rules = Instruments(_inferred(rules.ticks, per_book), rules.signed)
    grid = fit_grid(
        columns,
        rules,
        per_book[:, tape_compiler.PRICES],
        per_book[:, tape_compiler.LOWEST],
        per_book[:, tape_compiler.HIGHEST],
        (opening.book, opening.price),
    )
    wide = totals[tape_compiler.WIDEST] > np.iinfo(np.int32).max
    grouped = books >= GROUP_FROM if grouped is None else grouped
    order, parts = _grouping(columns, books, checked.rows, grouped)
    target = Target(
        np.empty(checked.rows, COMMAND[WIDE if wide else NARROW]),
        order,
        np.empty(checked.rows if totals[tape_compiler.RENAMES] else 0, np.int32),
        np.array([MAX_QTY if wide else np.iinfo(np.int32).max]),
    )
    slots = _compile(columns, rules, grid, target, totals, opening, checked.facts)
    commands = Commands(*(frozen(a, a.dtype) for a in (target.rows, order, target.targets)), columns.account)
    levels = levels_of(grid, opening)
    return Tape(
        commands,
        grid,
        checked.symbols,
        checked,
        slots.ids[: slots.counts[0]],
        opening,
        levels,
        _invalid_rows(commands, checked, given),
        int(totals[tape_compiler.INCOMING]),
        parts,
        rules.signed,
        bool(columns.account.size or opening.account.any()),
    )


def _survey(
    columns: Columns, rules: Instruments, opening: Resting, books: int
) -> tuple[np.ndarray, np.ndarray]:
    per_book = np.zeros((books, 4), np.int64)
    per_book[:, tape_compiler.LOWEST] = MAX_QTY
    per_book[:, tape_compiler.HIGHEST] = NOT_A_VALUE
    totals = np.zeros(6, np.int64)
    totals[tape_compiler.ID_LOW], totals[tape_compiler.ID_HIGH] = MAX_QTY, NOT_A_VALUE
    for book in np.unique(opening.book):
        prices = opening.price[opening.book == book]
        per_book[book] = prices.size, prices.min(), prices.max(), np.gcd.reduce(np.abs(prices))
    if opening.count:
        totals[tape_compiler.WIDEST] = opening.qty.max()
        totals[tape_compiler.ID_LOW] = opening.order_id.min()
        totals[tape_compiler.ID_HIGH] = opening.order_id.max()
    tape_compiler.survey(columns, rules, per_book, totals)
    return per_book, totals


def _inferred(ticks: np.ndarray, per_book: np.ndarray) -> np.ndarray:
    """Ticks as given, else the greatest common divisor of all prices (1 where there is no price)."""
    return np.where(ticks > 0, ticks, np.maximum(per_book[:, tape_compiler.DIVISOR], 1))


def _grouping(columns: Columns, books: int, rows: int, grouped: bool) -> tuple[np.ndarray, np.ndarray]:
    if not grouped or books == 1 or columns.book.size == 0:
        return ABSENT["i4"], np.array([0, rows])
    counts = np.bincount(columns.book, minlength=books)
    parts = np.concatenate(([0], np.cumsum(counts)))
    order = np.empty(rows, np.int32)
    tape_compiler.group_rows(columns.book, parts[:-1].copy(), order)
    return order, parts


def _compile(
    columns: Columns,
    rules: Instruments,
    grid: Grid,
    target: Target,
    totals: np.ndarray,
    opening: Resting,
    passive: bool,
) -> Slots:
    low, high = int(totals[tape_compiler.ID_LOW]), int(totals[tape_compiler.ID_HIGH])
    room = int(totals[tape_compiler.INCOMING]) + opening.count + 2
    dense = high >= low and high - low < 4 * room + 1024
    slots = _make_slots(opening, room, low, high - low + 1 if dense else 0)
    done = tape_compiler.compile_rows(columns, rules, grid, slots, target, passive, 0)
    if done < 0:  # ids shared between books
        slots = _make_slots(opening, room, 0, 0)
        done = 0
    while done < target.rows.size or done == 0 < target.rows.size:
        done = tape_compiler.compile_rows(columns, rules, grid, slots, target, passive, done)
        if done < target.rows.size:
            larger = make_index(slots.index.size)
            copy_index(slots.index, larger)
            slots = slots._replace(index=larger)
    return slots


def _make_slots(opening: Resting, room: int, lowest: int, span: int) -> Slots:
    """Slots with the opening orders in them: 1, 2, 3 ... in their order."""
    given = np.arange(1, opening.count + 1, dtype=np.int32)
    direct = np.zeros(span, np.int32)
    index = make_index(0 if span else max(1 << 12, 2 * opening.count))
    ids, books = np.zeros(room, np.int64), np.zeros(room, np.int32)
    ids[1 : opening.count + 1] = opening.order_id
    books[1 : opening.count + 1] = opening.book
    if span:
        direct[opening.order_id - lowest] = given
        if np.count_nonzero(direct) < opening.count:  # an id open in two books
            return _make_slots(opening, room, 0, 0)
    else:
        fill_index(index, opening.order_id, opening.book, given)
    counts = np.array([opening.count + 1, 0 if span else opening.count])
    return Slots(direct, np.array([lowest]), index, ids, books, counts)


def _invalid_rows(commands: Commands, checked: CheckedTable, ticks: np.ndarray) -> Invalid:
    kinds = (commands.rows["op"] >> ops.KIND_SHIFT) & ops.KIND_MASK
    positions = np.flatnonzero(kinds == ops.INVALID)
    rows = np.sort(commands.order[positions] if commands.order.size else positions.astype(np.int32))
    columns = checked.columns

    def cells(column: np.ndarray, default: int) -> np.ndarray:
        return column[rows].astype(np.int64) if column.size else np.full(rows.size, default, np.int64)

    qty, price = cells(columns.qty, 0), cells(columns.price, 0)
    bad_qty = qty <= 0
    tick = ticks[cells(columns.book, 0)]
    limit = np.where(bad_qty, 1, np.where(tick > 0, tick, NOT_A_VALUE))
    return Invalid(rows, limit, np.where(bad_qty, qty, price))


__all__ = ["Invalid", "Tape", "compile_checked", "compile_tape", "rules_for", "tick_units"]
