"""Limits as tables: one row for each place, in a frame or a file; empty cells are inherited.

A column holds few different values, so each of them is read once, with its kind of value in mind. All that is
wrong in one table is found before anything is said. Limits of any origin end as `Given` columns here.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.config.limit_keys import (
    ACCOUNTS,
    BOTH_SIDES,
    KEYS,
    NONE_GIVEN,
    SIDES,
    as_setting,
    is_blank,
    misplaced,
    names_nothing,
    plain_number,
    shown,
    unknown,
    wrong,
)
from hftlab.config.limit_settings import AN_ACCOUNT, BOTH_GIVEN, Rule
from hftlab.errors import FormatError, LimitsError, TableError, UsageError
from hftlab.numbers import exact_units
from hftlab.tape.tables import as_arrow

ALL = NONE_GIVEN  # the account of a row that is for all accounts
_PLACE = ("account", "symbol", "from_row")
_A_ROW = "a row of the flow, 0 or more"
_A_FILE = "a file of limits: .toml, .csv, Parquet or Arrow IPC"

RowName = Callable[[int], str]


class Given(NamedTuple):
    """Limits as they were given, a row for each place and time; everything checked."""

    account: np.ndarray  # int64, or ALL
    symbol: np.ndarray  # int64: position in `symbols`, or -1 for all
    from_row: np.ndarray  # int64
    values: dict[str, np.ndarray]  # int64 by key, or NONE_GIVEN
    symbols: tuple[str, ...]
    where: RowName  # what a row is called


class Column(NamedTuple):
    """A column by its different values."""

    index: np.ndarray  # int64: position in `values`
    values: Sequence[Any]


def from_rules(rules: Sequence[Rule]) -> Given:
    """Rules as columns."""
    symbols = tuple(dict.fromkeys(rule.symbol for rule in rules if rule.symbol is not None))
    place = {symbol: number for number, symbol in enumerate(symbols)}
    keys = dict.fromkeys(key for rule in rules for key in rule.values)
    return Given(
        np.array([ALL if rule.account is None else rule.account for rule in rules], np.int64),
        np.array([place.get(rule.symbol, -1) for rule in rules], np.int64),
        np.array([rule.from_row for rule in rules], np.int64),
        {key: np.array([rule.values.get(key, NONE_GIVEN) for rule in rules], np.int64) for key in keys},
        symbols,
        [rule.where for rule in rules].__getitem__,
    )


def from_frame(frame: Any, what: str) -> Given:
    """The limits of a frame or of a dict of columns. Raises LimitsError with all that is wrong in it."""
    return _read(_columns(frame, what), what, partial(_row_name, first=0))


def from_file(path: Path) -> Given:
    """The limits of a CSV, Parquet or Arrow IPC file; rows are called as an editor counts them.

    Raises UsageError where there is no such file, FormatError for a broken one, LimitsError with all that is
    wrong in its cells.
    """
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        found = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: found {found}, expected {_A_FILE}") from None
    if start[:4] == b"PAR1" or start == b"ARROW1":
        frame = _native(path, "Parquet" if start[:4] == b"PAR1" else "Arrow IPC")
        return _read(_columns(frame, str(path)), str(path), partial(_row_name, first=1))
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise UsageError(f"{path}: found other content, expected {_A_FILE}")
    columns, rows = _csv(path)
    return _read(columns, str(path), partial(_line_name, rows))


# what rows are called: functions that can be pickled, as limits are


def _row_name(row: int, first: int) -> str:
    return f"row {row + first}"


def _line_name(lines: Sequence[int], row: int) -> str:
    return f"row {lines[row]}"


# ------------------------------------------------------------------ containers


def _native(path: Path, kind: str) -> pa.Table:
    try:
        if kind == "Parquet":
            import pyarrow.parquet as pq

            table = pq.read_table(path)
        else:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise FormatError(path, f"broken {kind} data ({said})", f"a whole {kind} file") from None
    return table


def _csv(path: Path) -> tuple[dict[str, Column], Sequence[int]]:
    """The columns of delimited text, and the line at which each row ends."""
    rows, problems, lines = None, [], array("q")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = max(",;\t|", key=header.count)
            rows = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
            names = [name.strip() for name in next(rows, [])]
            if not any(names):
                raise FormatError(path, "an empty line" if header else "an empty file", "a header", row=1)
            if problems := _twice(names):
                raise LimitsError(str(path), problems)
            seen: list[dict[str, int]] = [{} for _ in names]
            cells = [array("q") for _ in names]
            for row in rows:
                if len(row) == len(names):
                    lines.append(rows.line_num)
                    for value, numbers, index in zip(row, seen, cells, strict=True):
                        index.append(numbers.setdefault(value, len(numbers)))
                elif row:
                    found = f"{len(row)} cells, expected {len(names)}, as in the header"
                    problems.append(f"row {rows.line_num}: found {found}")
    except UnicodeDecodeError:
        raise FormatError(path, "bytes that are no text", "text in UTF-8") from None
    except csv.Error as error:
        raise FormatError(path, f"broken CSV ({error})", "delimited text", row=rows.line_num) from None
    if problems:
        raise LimitsError(str(path), problems)
    columns = [Column(np.array(index), list(values)) for index, values in zip(cells, seen, strict=True)]
    return dict(zip(names, columns, strict=True)), lines


def _columns(frame: Any, what: str) -> dict[str, Column]:
    """The columns of a frame, or of a dict of arrays and lists."""
    if not isinstance(frame, Mapping):
        try:
            frame = as_arrow(frame)
        except TableError as error:
            raise LimitsError(what, error.problems) from None
        if problems := _twice(frame.column_names):
            raise LimitsError(what, problems)
        frame = dict(zip(frame.column_names, frame.columns, strict=True))
    columns, problems = {}, []
    for name, values in frame.items():
        try:
            columns[str(name)] = _distinct(values)
        except TypeError:
            problems.append(f"column {name}: found {shown(values)}, expected a list or an array")
    lengths = {name: len(column.index) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        problems.append(f"columns differ in length: {found}")
    if problems:
        raise LimitsError(what, problems)
    return columns


def _twice(names: Sequence[str]) -> list[str]:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    return [f"column {name}: found {names.count(name)} of that name, expected one" for name in twice]


def _distinct(values: Any) -> Column:
    """A column by its different values. Raises TypeError where it is none."""
    if isinstance(values, str | bytes | Mapping):
        raise TypeError
    if hasattr(values, "to_arrow"):
        values = values.to_arrow()
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype != object:
        values = pa.array(values.astype(values.dtype.newbyteorder("=")))
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return _distinct_of_arrow(values)
    return _distinct_of_python(values)


def _distinct_of_arrow(values: pa.Array | pa.ChunkedArray) -> Column:
    if isinstance(values, pa.ChunkedArray):
        chunks = values.unify_dictionaries().chunks
        values = pa.concat_arrays(chunks) if chunks else pa.array([], values.type)
    if not pa.types.is_dictionary(values.type):
        if pa.types.is_nested(values.type):
            raise TypeError
        values = values.dictionary_encode()
    different = [*_objects(values.dictionary), None]
    index = values.indices.cast(pa.int64()).fill_null(len(different) - 1)
    return Column(index.to_numpy(), different)


def _objects(values: pa.Array) -> list[Any]:
    """Cells as Python objects; as numpy's where those lose something: narrow floats, times in ns."""
    kind = values.type
    if not (pa.types.is_float16(kind) or pa.types.is_float32(kind) or pa.types.is_temporal(kind)):
        return values.to_pylist()
    if pa.types.is_time64(kind):  # numpy has no times of day
        values = values.cast(pa.int64()).cast(pa.duration(kind.unit))
    cells = zip(values.is_valid().to_pylist(), values.to_numpy(zero_copy_only=False), strict=True)
    return [cell if is_valid else None for is_valid, cell in cells]


def _distinct_of_python(values: Iterable[Any]) -> Column:
    """Of a list, where 1 and 1.0 aren't the same."""
    numbers: dict[tuple[type, str], int] = {}
    different, index = [], array("q")
    for value in values:
        number = numbers.setdefault((type(value), repr(value)), len(numbers))
        if number == len(different):
            different.append(value)
        index.append(number)
    return Column(np.array(index), different)


# ------------------------------------------------------------------ what the cells mean


def _read(columns: dict[str, Column], what: str, row_name: RowName) -> Given:
    reader = _Reader(columns, row_name)
    account = reader.whole("account", ALL, ACCOUNTS[0], ACCOUNTS[-1], AN_ACCOUNT)
    from_row = reader.whole("from_row", 0, 0, 2**63 - 1, _A_ROW)
    symbol, symbols = reader.symbols()
    places_known = not reader.problems
    for name in columns:
        if name not in KEYS and name not in _PLACE:
            reader.problems.append(f"column {name}: {unknown(name, (*_PLACE, *KEYS))}")
    values = {key: reader.limits(key) for key in columns if key in KEYS}
    given = Given(account, symbol, from_row, values, symbols, row_name)
    reader.places(given)
    if places_known:
        reader.twice(given)
    if reader.problems:
        raise LimitsError(what, reader.problems)
    return given


class _Reader:
    """Reads the columns of one table and gathers what is wrong with them."""

    def __init__(self, columns: dict[str, Column], row_name: RowName) -> None:
        self.columns, self.row_name = columns, row_name
        self.rows = max((len(column.index) for column in columns.values()), default=0)
        self.problems: list[str] = []

    def wrong(self, first: int, count: int, name: str, text: str) -> None:
        """A problem of `count` rows, told of the first."""
        more = f" (and {count - 1:,} more)" if count > 1 else ""
        self.problems.append(f"{self.row_name(int(first))}{more}, {name}: {text}")

    def wrong_where(self, rows: np.ndarray, name: str, text: str) -> None:
        """A problem of the rows that a mask selects, if there are any."""
        if rows.any():
            self.wrong(int(np.argmax(rows)), int(rows.sum()), name, text)

    def mapped(self, name: str, meaning: Callable[[Any], int | None], complaint: Callable[[Any], str]) -> Any:
        """A column's meaning, a value at a time; None where there is no such column."""
        if name not in self.columns:
            return None
        index, values = self.columns[name]
        meanings = [meaning(value) for value in values]
        if None in meanings:
            used = np.unique(index, return_index=True, return_counts=True)
            for number, first, count in zip(*used, strict=True):
                if meanings[number] is None:
                    self.wrong(first, count, name, complaint(values[number]))
        return np.array([value or 0 for value in meanings], np.int64)[index]

    def whole(self, name: str, blank: int, low: int, high: int, expected: str) -> np.ndarray:
        """A column of whole numbers, `blank` where nothing is given."""

        def meaning(value: Any) -> int | None:
            if names_nothing(value):
                return blank
            number = exact_units(plain_number(value), 0)
            return number if number is not None and low <= number <= high else None

        found = self.mapped(name, meaning, lambda value: f"found {shown(value)}, expected {expected}")
        return np.full(self.rows, blank, np.int64) if found is None else found

    def symbols(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Positions in the symbols that are named, -1 for none."""
        names: dict[str, int] = {}

        def meaning(value: Any) -> int | None:
            if names_nothing(value):
                return -1
            return names.setdefault(value, len(names)) if isinstance(value, str) else None

        complaint = "the name of a symbol"
        found = self.mapped("symbol", meaning, lambda value: f"found {shown(value)}, expected {complaint}")
        return (np.full(self.rows, -1, np.int64) if found is None else found), tuple(names)

    def limits(self, key: str) -> np.ndarray:
        """The integers of a key's column."""

        def meaning(value: Any) -> int | None:
            return NONE_GIVEN if is_blank(value) else KEYS[key].kind.take(as_setting(key, value))

        return self.mapped(key, meaning, lambda value: wrong(key, value))

    def places(self, given: Given) -> None:
        """Whether each place is given only what it can have."""
        named = given.account != ALL, given.symbol >= 0, given.from_row > 0
        for key, values in given.values.items():
            has = values != NONE_GIVEN
            for place in product((False, True), repeat=3):
                if amiss := misplaced(key, *place):
                    here = [there == wanted for there, wanted in zip(named, place, strict=True)]
                    self.wrong_where(
                        np.logical_and.reduce([has, *here]), key, f"found {amiss[0]}, expected {amiss[1]}"
                    )
        for side in SIDES:
            if {BOTH_SIDES, side} <= set(given.values):
                both = (given.values[BOTH_SIDES] != NONE_GIVEN) & (given.values[side] != NONE_GIVEN)
                self.wrong_where(both, BOTH_SIDES, f"found it beside {side}, expected {BOTH_GIVEN}")

    def twice(self, given: Given) -> None:
        """Rows of the same place and time: which of them would hold?"""
        order = np.lexsort((given.from_row, given.symbol, given.account))
        place = np.stack([given.account, given.symbol, given.from_row])[:, order]
        same = np.concatenate([[False], (place[:, 1:] == place[:, :-1]).all(0)])[: order.size]
        first = np.maximum.accumulate(np.where(same, 0, np.arange(order.size)))
        for row in np.flatnonzero(same):
            found = f"the account, symbol and from_row of {self.row_name(int(order[first[row]]))}"
            self.problems.append(f"{self.row_name(int(order[row]))}: found {found}, expected each once")
