"""The tape: a checked table, compiled once, ready to be run any number of times.

Prices have become levels of ladders made to measure, order ids slots, rows 16-byte commands. A tape is
read-only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from hftlab.codes import MAX_QTY, NO_SLOT, NOT_A_VALUE, Action
from hftlab.config.settings import Instrument
from hftlab.errors import UsageError, split_symbols
from hftlab.kernels.book import opcodes, tape_compiler
from hftlab.kernels.book.columns import Columns
from hftlab.kernels.book.commands import Commands
from hftlab.kernels.book.ladder import never_open
from hftlab.kernels.book.price_grid import Grid, make_rules
from hftlab.kernels.book.records import COMMAND, NARROW, WIDE
from hftlab.kernels.book.tape_compiler import Slots, Target
from hftlab.kernels.primitives import memory
from hftlab.kernels.primitives.hash_index import copy_index, fill_index, make_index
from hftlab.numbers import to_units
from hftlab.parallel import cut, side_by_side
from hftlab.tape.open_orders import Resting, books_of, levels_of, nothing
from hftlab.tape.price_grid import fit_grid
from hftlab.tape.tables import ABSENT, CheckedTable, frozen, only_symbols, read_orders
from hftlab.tape.tape import Invalid, Tape

MAX_ROWS = 2**31 - 1
_SHOWN_SYMBOLS = 10


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

    Raises TableError listing everything that is wrong with the table's shape, UsageError for a tick size of a
    symbol that isn't there; a row of bad content becomes a reject instead.
    """
    checked = read_orders(table)
    check_tick_sizes(tick_size, checked.symbols)
    wanted = split_symbols(symbols)
    if wanted is not None:
        rows, checked = checked.rows, only_symbols(checked, wanted)
        if rows and not checked.rows:
            raise UsageError(f"symbols: found no rows of {', '.join(wanted)}, expected symbols of the table")
    return compile_checked(checked, rules_for(checked.symbols, tick_size, instruments), parts=parts)


def check_tick_sizes(tick_size: Any, symbols: Iterable[str]) -> None:
    """Raises UsageError where a dict of tick sizes names what is none of a flow's `symbols`."""
    if not isinstance(tick_size, Mapping):
        return
    there = tuple(symbols)
    strange = [symbol for symbol in tick_size if symbol not in there]
    if strange:
        names = ", ".join(there[:_SHOWN_SYMBOLS]) + (", ..." if len(there) > _SHOWN_SYMBOLS else "")
        raise UsageError(
            f"tick_size: found the symbol {strange[0]!r}, expected those of the flow, which has {names}"
        )


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

    `parts` is how many threads compile it and can run it; `wide` is for orders to come, larger than any in
    the table.
    """
    opening = opening if opening is not None else nothing()
    if checked.rows + opening.count > MAX_ROWS:
        raise UsageError(f"found {checked.rows:,} rows, expected at most {MAX_ROWS:,}: replay it in chunks")
    columns, books = checked.columns, len(checked.symbols)
    if checked.any_sign:
        rules = make_rules(rules["tick"], np.ones(len(rules), bool))
    threads = min(parts, books) if columns.book.size else 1
    seen = _survey(columns, rules, opening, books, threads)
    totals, given = seen.totals, rules["tick"]
    rules = make_rules(np.where(given > 0, given, np.maximum(seen.divisors["tick"], 1)), rules["signed"])
    grid = fit_grid(
        columns,
        rules,
        seen.per_book[:, tape_compiler.PRICES],
        seen.per_book[:, tape_compiler.LOWEST],
        seen.per_book[:, tape_compiler.HIGHEST],
        (opening.book, opening.price),
    )
    wide |= bool(totals[tape_compiler.WIDEST] > np.iinfo(np.int32).max)
    part_of, starts = _parts(seen.rows, checked.rows, threads)
    target = Target(
        memory.empty(checked.rows, COMMAND[WIDE if wide else NARROW]),
        memory.empty(checked.rows if threads > 1 else 0, np.int32),
        memory.empty(checked.rows if totals[tape_compiler.RENAMES] else 0, np.int32),
        part_of,
        np.array([MAX_QTY if wide else np.iinfo(np.int32).max]),
        np.zeros(2, np.int64),
    )
    slots, invalid = _compile(columns, rules, grid, target, starts, seen, opening, checked.facts)
    commands = Commands(
        *(frozen(a, a.dtype) for a in (target.rows, target.order, target.targets)), columns.account
    )
    return Tape(
        commands,
        grid,
        checked.symbols,
        checked,
        slots,
        opening,
        levels_of(grid, opening),
        _invalid_rows(commands, checked, given, invalid),
        int(totals[tape_compiler.INCOMING]),
        starts,
        bool(columns.account.size or opening.account.any()),
    )


class _Seen(NamedTuple):
    """What a survey of rows tells."""

    per_book: np.ndarray  # int64 [books, 3]: prices, lowest, highest
    totals: np.ndarray  # int64 [5]
    divisors: np.ndarray  # RULE [books]: the greatest common divisor of each book's prices
    rows: np.ndarray  # int64 [books], or [0] where one thread is enough


def _survey(columns: Columns, rules: np.ndarray, opening: Resting, books: int, threads: int) -> _Seen:
    """Look at every row, each thread at a range of them."""
    pieces = [_unseen(rules, books, threads > 1) for _ in range(threads)]
    if opening.count:
        _see_opening(pieces[0], opening, rules)

    def look(seen: _Seen, first: int, last: int) -> None:
        tape_compiler.survey(
            columns, rules, seen.divisors, seen.per_book, seen.totals, _scratch(), first, last
        )
        if seen.rows.size:
            tape_compiler.count_rows(columns.book, first, last, seen.rows)

    ranges = cut(columns.action.size, threads)
    side_by_side([partial(look, seen, *rows) for seen, rows in zip(pieces, ranges, strict=True)])
    return pieces[0] if threads == 1 else _together(pieces, rules)


def _unseen(rules: np.ndarray, books: int, counted: bool) -> _Seen:
    per_book, totals = _apart(books, 3), _apart(5)
    per_book[:, tape_compiler.LOWEST] = MAX_QTY
    per_book[:, tape_compiler.HIGHEST] = NOT_A_VALUE
    totals[tape_compiler.ID_LOW], totals[tape_compiler.ID_HIGH] = MAX_QTY, NOT_A_VALUE
    return _Seen(per_book, totals, _divisors(np.zeros(books, np.int64), rules), _apart(books * counted))


def _divisors(divisors: np.ndarray, rules: np.ndarray) -> np.ndarray:
    divisors = make_rules(divisors, rules["signed"])
    divisors["bound"][divisors["tick"] == 0] = -1  # nothing is a multiple of it yet
    return divisors


def _see_opening(seen: _Seen, opening: Resting, rules: np.ndarray) -> None:
    found, starts = books_of(opening.book)
    prices, starts = opening.price, starts[:-1]
    seen.per_book[found, tape_compiler.PRICES] = np.diff(starts, append=prices.size)
    seen.per_book[found, tape_compiler.LOWEST] = np.minimum.reduceat(prices, starts)
    seen.per_book[found, tape_compiler.HIGHEST] = np.maximum.reduceat(prices, starts)
    divisors = np.zeros(len(seen.divisors), np.int64)
    divisors[found] = np.gcd.reduceat(np.abs(prices), starts)
    seen.divisors[:] = _divisors(divisors, rules)
    seen.totals[tape_compiler.WIDEST] = opening.qty.max()


def _together(pieces: list[_Seen], rules: np.ndarray) -> _Seen:
    """What several surveys tell of all their rows."""
    per_book = np.stack([seen.per_book for seen in pieces], axis=2)
    totals = np.stack([seen.totals for seen in pieces], axis=1)
    lowest, highest = per_book.min(axis=2), per_book.max(axis=2)
    together, sums = per_book.sum(axis=2), totals.sum(axis=1)
    together[:, tape_compiler.LOWEST] = lowest[:, tape_compiler.LOWEST]
    together[:, tape_compiler.HIGHEST] = highest[:, tape_compiler.HIGHEST]
    sums[tape_compiler.WIDEST] = totals[tape_compiler.WIDEST].max()
    sums[tape_compiler.ID_LOW] = totals[tape_compiler.ID_LOW].min()
    sums[tape_compiler.ID_HIGH] = totals[tape_compiler.ID_HIGH].max()
    divisors = np.gcd.reduce([seen.divisors["tick"] for seen in pieces])
    return _Seen(together, sums, _divisors(divisors, rules), np.sum([seen.rows for seen in pieces], axis=0))


def _apart(*shape: int) -> np.ndarray:
    """Zeros (int64) without neighbours on their cache lines: other threads may write those."""
    return np.zeros((shape[0] + 16, *shape[1:]), np.int64)[8:-8]


def _parts(counts: np.ndarray, rows: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Which part each book is in, and where each part starts: the busiest books are given out first."""
    if wanted == 1:
        return np.zeros(0, np.int32), np.array([0, rows])
    part_of, loads = np.arange(counts.size, dtype=np.int32), counts.tolist()
    if wanted < counts.size:
        loads = [0] * wanted
        for book in np.argsort(-counts, kind="stable"):
            part_of[book] = loads.index(min(loads))
            loads[part_of[book]] += int(counts[book])
    return part_of, np.concatenate(([0], np.cumsum(loads)))


def _compile(
    columns: Columns,
    rules: np.ndarray,
    grid: Grid,
    target: Target,
    starts: np.ndarray,
    seen: _Seen,
    opening: Resting,
    passive: bool,
) -> tuple[int, int]:
    """Write a tape, each part on a thread: how many orders it has room for, how many rows are rejected.

    The parts know nothing of each other, so the nodes of each begin where those of the first do; then they
    are moved behind the nodes of the parts before.
    """
    parts = starts.size - 1
    first = never_open(2 * int(grid.sizes.sum())) + 1
    fresh = first + opening.count
    room = int(seen.per_book[:, tape_compiler.PRICES].sum()) + opening.count
    low, span = _direct_ids(seen.totals, opening, 4 * room + 1024)
    by_kind = passive and not (target.order.size or target.targets.size or _ends_orders(columns))

    def write(part: int) -> tuple[int, int]:
        books = target.part_of == part if parts > 1 else slice(None)
        opened = np.flatnonzero(books[opening.book]) if parts > 1 else slice(None)
        # only what names a price and is valid may rest
        room = int(seen.per_book[books, tape_compiler.PRICES].sum()) + opening.count
        scratch, progress = _scratch(), _apart(2)
        mine = target._replace(progress=progress)

        def write_from(row: int) -> int:
            return tape_compiler.compile_rows(
                columns, rules, grid, slots, mine, passive, by_kind, part, row, scratch
            )

        progress[:] = starts[part], 0
        slots = _make_slots(opening, opened, room, first, low, span)
        done = write_from(0)
        if done < 0:  # ids shared between books
            progress[:] = starts[part], 0
            slots, done = _make_slots(opening, opened, room, first, 0, 0), 0
        while done < target.rows.size:
            larger = make_index(slots.index.size)
            copy_index(slots.index, larger)
            slots = slots._replace(index=larger)
            done = write_from(done)
        used = int(slots.counts[tape_compiler.NEXT]) - fresh
        return -(-used // tape_compiler.BATCH) * tape_compiler.BATCH, int(progress[tape_compiler.INVALID])

    used, invalid = zip(*side_by_side([partial(write, part) for part in range(parts)]), strict=True)
    moves = zip(starts[1:-1].tolist(), starts[2:].tolist(), np.cumsum(used).tolist(), strict=False)
    move = partial(tape_compiler.move_order_slots, target.rows, target.targets)
    side_by_side([partial(move, start, stop, fresh, by) for start, stop, by in moves])
    return opening.count + sum(used), sum(invalid)


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
    return np.empty((tape_compiler.KINDS, tape_compiler.BLOCK), np.int64)


def _ends_orders(columns: Columns) -> bool:
    return bytes([Action.CANCEL]) in columns.action.tobytes()  # a search for a byte: a tenth of a comparison


def _make_slots(
    opening: Resting, opened: slice | np.ndarray, room: int, first: int, lowest: int, span: int
) -> Slots:
    """Slots for a part with the opening orders in the first of them; it looks up only those `opened` in it.

    Ids of the `span` from `lowest` are looked up directly, others (if `span`, of old orders) in the index.
    """
    given = np.arange(first, first + opening.count, dtype=np.int32)[opened]
    ids, numbers = opening.order_id[opened], opening.book[opened]
    direct, places = memory.zeros(span, np.int32), ids - lowest
    inside = (places >= 0) & (places < span)
    direct[places[inside]] = given[inside]
    if np.count_nonzero(direct) < np.count_nonzero(inside):  # an id open in two books
        return _make_slots(opening, opened, room, first, 0, 0)
    hashed = given.size - int(np.count_nonzero(inside))
    index = make_index(hashed if span else max(1 << 12, 2 * hashed))
    fill_index(index, ids[~inside], numbers[~inside], given[~inside])
    books, links = memory.empty_together((room, np.int32), (room, np.int32))
    books[: opening.count] = opening.book
    counts = _apart(4)
    counts[:] = first + opening.count, hashed, first, NO_SLOT
    return Slots(direct, np.array([lowest]), index, books, links, counts)


def _invalid_rows(commands: Commands, checked: CheckedTable, ticks: np.ndarray, count: int) -> Invalid:
    if count == 0:
        return Invalid(ABSENT["i4"], ABSENT["i8"], ABSENT["i8"])
    kinds = (commands.rows["op"] >> opcodes.KIND_SHIFT) & opcodes.KIND_MASK
    positions = np.flatnonzero(kinds == opcodes.INVALID)
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


__all__ = [
    "Invalid",
    "Tape",
    "check_tick_sizes",
    "compile_checked",
    "compile_tape",
    "rules_for",
    "tick_units",
]
