"""The tape: a checked table, compiled once, ready to be run any number of times.

Prices have become levels of ladders made to measure, order ids slots, rows 16-byte commands. A tape is
read-only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np

from hftlab.codes import MAX_QTY, NOT_A_VALUE, Action
from hftlab.config import Instrument
from hftlab.errors import UsageError, split_symbols
from hftlab.grid import fit_grid
from hftlab.kernels import ops, pages, tape_compiler
from hftlab.kernels.engine import Commands
from hftlab.kernels.ladder import never_open
from hftlab.kernels.order_index import copy_index, fill_index, make_index
from hftlab.kernels.price_grid import Grid, make_rules
from hftlab.kernels.records import COMMAND, NARROW, WIDE
from hftlab.kernels.tape_compiler import Columns, Slots, Target
from hftlab.resting import Resting, books_of, levels_of, nothing
from hftlab.tables import ABSENT, CheckedTable, frozen, only_symbols, read_orders, to_units

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
    slots: int  # orders there is room for
    opening: Resting  # orders that rest before the first command; their nodes come first
    opening_levels: np.ndarray  # int32
    invalid: Invalid
    incoming: int  # commands that may trade or rest
    parts: np.ndarray  # int64 [parts + 1]: where each part starts; parts share no instrument
    has_accounts: bool

    @property
    def rows(self) -> int:
        """Commands on the tape."""
        return self.commands.rows.size

    def __len__(self) -> int:
        return self.rows

    def input_rows(self, positions: np.ndarray) -> np.ndarray:
        """Positions on the tape as rows of the input table."""
        return self.commands.order[positions] if self.commands.order.size else positions

    @cached_property
    def width(self) -> np.dtype:
        """Width of quantities: 32 or 64 bits."""
        return NARROW if self.commands.rows.dtype == COMMAND[NARROW] else WIDE

    @property
    def is_wide(self) -> bool:
        """Whether quantities beyond 32 bits have room."""
        return self.width is WIDE

    @property
    def nbytes(self) -> int:
        """Bytes of the compiled arrays."""
        arrays = [*self.commands, *self.grid]
        return sum(array.nbytes for array in arrays)

    def ids(self, entries: np.ndarray) -> np.ndarray:
        """Order ids, as int64 bits, of what a run calls its orders: a position, or -1 - i for opening i."""
        columns = self.checked.columns
        rows = self.input_rows(np.maximum(entries, 0)) if self.rows else entries
        ids = columns.order_id[rows] if self.rows else np.zeros(entries.size, np.int64)
        if columns.new_order_id.size:
            ids = np.where(columns.action[rows] == Action.REPLACE, columns.new_order_id[rows], ids)
        opened = entries < 0
        ids[opened] = self.opening.order_id[-1 - entries[opened]]
        return ids

    def seq(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the tape as rows of the input table."""
        if self.checked.seq.size:
            return self.checked.seq[rows]
        return rows.astype(np.int64) + self.checked.first_row

    @property
    def seqs(self) -> np.ndarray:
        """The row of the input table of every row, in order."""
        first = self.checked.first_row
        return self.checked.seq if self.checked.seq.size else np.arange(first, first + self.rows)

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
            f"{self.nbytes / 1e6:,.1f} MB, {self.parts.size - 1:,} part(s))"
        )


def compile_tape(
    table: Any,
    tick_size: str | int | float | Decimal | Mapping[str, Any] | None = None,
    *,
    symbols: str | Iterable[str] | None = None,
    instruments: Any = None,
    parts: int = 1,
) -> Tape:
    """Check and compile an orders table.

    `table` is a pyarrow.Table, a polars DataFrame or LazyFrame, or a dict of arrays. `tick_size` is one
    for all or a dict by symbol; without it the largest tick that fits every price is taken, so that no
    price is off it. `symbols` keeps only some; `instruments` is a `Config`. `parts` is for how many threads
    the instruments are shared out; for one thread grouping them does not pay (docs/PERFORMANCE.md).

    Raises TableError listing everything that is wrong with the table's shape; a row of bad content
    becomes a reject instead.
    """
    checked = read_orders(table)
    wanted = split_symbols(symbols)
    if wanted is not None:
        rows, checked = checked.rows, only_symbols(checked, wanted)
        if rows and not checked.rows:
            raise UsageError(f"symbols: found no rows of {', '.join(wanted)}, expected symbols of the table")
    return compile_checked(checked, rules_for(checked.symbols, tick_size, instruments), parts=parts)


def tick_units(tick_size: Any, where: str = "tick_size") -> int:
    """A tick size in units of 1e-9. Raises UsageError where it isn't a positive multiple of that."""
    units = to_units(tick_size)
    if units == NOT_A_VALUE or units <= 0:
        raise UsageError(f"{where}: found {tick_size!r}, expected a positive multiple of 1e-9, like '0.01'")
    return units


def rules_for(symbols: tuple[str, ...], tick_size: Any, config: Any) -> np.ndarray:
    """Rules of each symbol (RULE), from the argument first and the configuration second."""
    ticks, signed = np.zeros(len(symbols), np.int64), np.zeros(len(symbols), bool)
    for book, symbol in enumerate(symbols):
        settings = config.instrument(symbol) if config is not None else Instrument()
        tick = tick_size.get(symbol) if isinstance(tick_size, Mapping) else tick_size
        ticks[book] = tick_units(tick) if tick is not None else settings.tick_size or 0
        signed[book] = settings.allow_nonpositive_prices
    return make_rules(ticks, signed)


def compile_checked(
    checked: CheckedTable,
    rules: np.ndarray,
    opening: Resting | None = None,
    parts: int = 1,
    wide: bool = False,
) -> Tape:
    """Compile checked columns; `opening` rests before the first command.

    `parts` is how many threads can run it; `wide` is for orders to come, larger than any in the table.
    """
    opening = opening if opening is not None else nothing()
    if checked.rows + opening.count > MAX_ROWS:
        raise UsageError(f"found {checked.rows:,} rows, expected at most {MAX_ROWS:,}: replay it in chunks")
    columns, books = checked.columns, len(checked.symbols)
    per_book, totals, divisors = _survey(columns, rules, opening, books)
    given = rules["tick"]
    rules = make_rules(np.where(given > 0, given, np.maximum(divisors["tick"], 1)), rules["signed"])
    grid = fit_grid(
        columns,
        rules,
        per_book[:, tape_compiler.PRICES],
        per_book[:, tape_compiler.LOWEST],
        per_book[:, tape_compiler.HIGHEST],
        (opening.book, opening.price),
    )
    wide |= bool(totals[tape_compiler.WIDEST] > np.iinfo(np.int32).max)
    part_of, starts = _parts(columns, books, checked.rows, parts)
    target = Target(
        pages.empty(checked.rows, COMMAND[WIDE if wide else NARROW]),
        pages.empty(checked.rows if starts.size > 2 else 0, np.int32),
        pages.empty(checked.rows if totals[tape_compiler.RENAMES] else 0, np.int32),
        part_of,
        starts[:-1].copy(),
        np.array([MAX_QTY if wide else np.iinfo(np.int32).max]),
        np.zeros(1, np.int64),
    )
    slots = _compile(columns, rules, grid, target, totals, opening, checked.facts)
    commands = Commands(
        *(frozen(a, a.dtype) for a in (target.rows, target.order, target.targets)), columns.account
    )
    return Tape(
        commands,
        grid,
        checked.symbols,
        checked,
        int(slots.counts[tape_compiler.NEXT] - slots.counts[tape_compiler.FIRST]),
        opening,
        levels_of(grid, opening),
        _invalid_rows(commands, checked, given, int(target.invalid[0])),
        int(totals[tape_compiler.INCOMING]),
        starts,
        bool(columns.account.size or opening.account.any()),
    )


def _survey(
    columns: Columns, rules: np.ndarray, opening: Resting, books: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Price ranges by book, totals, and the greatest common divisor of each book's prices."""
    per_book = np.zeros((books, 3), np.int64)
    per_book[:, tape_compiler.LOWEST] = MAX_QTY
    per_book[:, tape_compiler.HIGHEST] = NOT_A_VALUE
    totals = np.zeros(5, np.int64)
    totals[tape_compiler.ID_LOW], totals[tape_compiler.ID_HIGH] = MAX_QTY, NOT_A_VALUE
    divisors = np.zeros(books, np.int64)
    if opening.count:
        found, starts = books_of(opening.book)
        prices, starts = opening.price, starts[:-1]
        per_book[found, tape_compiler.PRICES] = np.diff(starts, append=prices.size)
        per_book[found, tape_compiler.LOWEST] = np.minimum.reduceat(prices, starts)
        per_book[found, tape_compiler.HIGHEST] = np.maximum.reduceat(prices, starts)
        divisors[found] = np.gcd.reduceat(np.abs(prices), starts)
        totals[tape_compiler.WIDEST] = opening.qty.max()
    divisors = make_rules(divisors, rules["signed"])
    divisors["bound"][divisors["tick"] == 0] = -1  # nothing is a multiple of it yet
    tape_compiler.survey(columns, rules, divisors, per_book, totals, _scratch())
    return per_book, totals, divisors


def _parts(columns: Columns, books: int, rows: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Which part each book is in, and where each part starts: the busiest books are given out first."""
    if wanted == 1 or columns.book.size == 0:
        return np.zeros(books, np.int32), np.array([0, rows])
    counts = np.bincount(columns.book, minlength=books)
    part_of = np.arange(books, dtype=np.int32)
    if wanted < books:
        loads = [0] * wanted
        for book in np.argsort(-counts, kind="stable"):
            part_of[book] = loads.index(min(loads))
            loads[part_of[book]] += int(counts[book])
    sizes = np.bincount(part_of, weights=counts, minlength=min(wanted, books)).astype(np.int64)
    return part_of, np.concatenate(([0], np.cumsum(sizes)))


def _compile(
    columns: Columns,
    rules: np.ndarray,
    grid: Grid,
    target: Target,
    totals: np.ndarray,
    opening: Resting,
    passive: bool,
) -> Slots:
    parts = target.cursor.size
    room = int(totals[tape_compiler.INCOMING]) + opening.count + tape_compiler.LOT * (parts + 1)
    first = never_open(2 * int(grid.sizes.sum())) + 1
    low, span = _direct_ids(totals, opening, 4 * room + 1024)
    slots = _make_slots(opening, room, first, parts, low, span)
    starts, scratch = target.cursor.copy(), _scratch()
    by_kind = passive and not (target.order.size or target.targets.size or _ends_orders(columns))

    def compile_from(row: int) -> int:
        return tape_compiler.compile_rows(columns, rules, grid, slots, target, passive, by_kind, row, scratch)

    done = compile_from(0)
    if done < 0:  # ids shared between books
        target.cursor[:], target.invalid[0] = starts, 0
        slots, done = _make_slots(opening, room, first, parts, 0, 0), 0
    while done < target.rows.size:
        larger = make_index(slots.index.size)
        copy_index(slots.index, larger)
        slots = slots._replace(index=larger)
        done = compile_from(done)
    return slots


def _direct_ids(totals: np.ndarray, opening: Resting, most: int) -> tuple[int, int]:
    """The lowest of the ids that are looked up directly, and how many: all, those of the rows, or none."""
    low, high = int(totals[tape_compiler.ID_LOW]), int(totals[tape_compiler.ID_HIGH])
    if high < low:
        return low, 0
    if opening.count:
        lowest, highest = min(low, int(opening.order_id.min())), max(high, int(opening.order_id.max()))
        if highest - lowest < most:
            return lowest, highest - lowest + 1
    return low, high - low + 1 if high - low < most else 0


def _scratch() -> np.ndarray:
    return np.empty((3, tape_compiler.BLOCK), np.int64)


def _ends_orders(columns: Columns) -> bool:
    return bytes([Action.CANCEL]) in columns.action.tobytes()  # a search for a byte: a tenth of a comparison


def _make_slots(opening: Resting, room: int, first: int, parts: int, lowest: int, span: int) -> Slots:
    """Slots with the opening orders in the first of them, in their order.

    Ids of the `span` from `lowest` are looked up directly, others (if `span`, of old orders) in the index.
    """
    given = np.arange(first, first + opening.count, dtype=np.int32)
    direct, places = pages.zeros(span, np.int32), opening.order_id - lowest
    inside = (places >= 0) & (places < span)
    direct[places[inside]] = given[inside]
    if np.count_nonzero(direct) < np.count_nonzero(inside):  # an id open in two books
        return _make_slots(opening, room, first, parts, 0, 0)
    hashed = opening.count - int(np.count_nonzero(inside))
    index = make_index(hashed if span else max(1 << 12, 2 * hashed))
    fill_index(index, opening.order_id[~inside], opening.book[~inside], given[~inside])
    books, links = pages.zeros_together((room, np.int32), (room, np.int32))
    books[: opening.count] = opening.book
    counts = np.array([first + opening.count, hashed, first])
    free, fresh = np.zeros(parts, np.int32), np.zeros((parts, 2), np.int64)
    return Slots(direct, np.array([lowest]), index, books, links, free, fresh, counts)


def _invalid_rows(commands: Commands, checked: CheckedTable, ticks: np.ndarray, count: int) -> Invalid:
    if count == 0:
        return Invalid(ABSENT["i4"], ABSENT["i8"], ABSENT["i8"])
    kinds = (commands.rows["op"] >> ops.KIND_SHIFT) & ops.KIND_MASK
    positions = np.flatnonzero(kinds == ops.INVALID)
    rows = np.sort(commands.order[positions] if commands.order.size else positions)
    columns = checked.columns

    def cells(column: np.ndarray, default: int) -> np.ndarray:
        return column[rows].astype(np.int64) if column.size else np.full(rows.size, default, np.int64)

    qty, price = cells(columns.qty, 0), cells(columns.price, 0)
    control = columns.action[rows] == Action.RISK_CONTROL
    bad_qty = (qty <= 0) | control
    tick = ticks[cells(columns.book, 0)]
    lots = np.where(control, tape_compiler.LAST_CONTROL, 1)
    limit = np.where(bad_qty, lots, np.where(tick > 0, tick, NOT_A_VALUE))
    return Invalid(rows, limit, np.where(bad_qty, qty, price))


__all__ = ["Invalid", "Tape", "compile_checked", "compile_tape", "rules_for", "tick_units"]
