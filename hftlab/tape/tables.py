"""The door for tables: any of the accepted containers becomes checked integer columns.

A table of the wrong shape is one error that lists every problem. A cell of bad content is not an error
here: a price or quantity that can't be an integer becomes NOT_A_VALUE, and its row a reject later.
Nobody downstream checks again what has passed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hftlab.codes import (
    DEFAULT_SYMBOL,
    MAX_QTY,
    NOT_A_VALUE,
    Action,
    Code,
    OrderType,
    Side,
    Tif,
)
from hftlab.errors import TableError, UsageError, printable
from hftlab.kernels.book.columns import Columns
from hftlab.numbers import PRICE_DECIMALS, decimals_to_units, floats_to_units, is_whole, text_to_units
from hftlab.schema import ANY_SIGN_KEY

ABSENT = {t: np.zeros(0, t) for t in ("i1", "u1", "i4", "i8", "?")}
for _array in ABSENT.values():
    _array.setflags(write=False)

_IDS = "integers from 0 to 2^64-1"
_NUMBERS = {"price": PRICE_DECIMALS, "qty": 0, "size": 0}  # columns of numbers, and their decimals
_WHOLE = (int, np.integer)
_OTHER_NUMBER = (float, str, Decimal, np.floating)
_CONVERSION_ERRORS = (pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError)
_PLACE_OF_TEXT = re.compile(r"at string index (\d+)")  # in what Arrow says
_PLACE_OF_INDEX = re.compile(r"Value at position (\d+) out of bounds")
_UNIT_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


@dataclass(frozen=True)
class CheckedTable:
    """An orders or mbo table as integer columns of `rows` cells, or of none where a column is absent."""

    rows: int
    columns: Columns
    symbols: tuple[str, ...]  # by book number
    ts: np.ndarray  # int64 ns, or [0]: row numbers
    first_row: int = 0  # of the whole flow, when this is a chunk of it
    # input row of each row, or [0]: first_row + position
    seq: np.ndarray = field(default_factory=lambda: ABSENT["i8"])
    facts: bool = False  # mbo: nothing matches
    any_sign: bool = False  # a venue took these: a price of 0 or less is none to refuse
    # facts: whether an event ends here, so that the book may be looked at; [0]: every row does
    ends: np.ndarray = field(default_factory=lambda: ABSENT["?"])


def frozen(array: np.ndarray, dtype: str) -> np.ndarray:
    """A contiguous read-only array of a type; a view where it can be one."""
    result = np.ascontiguousarray(array, dtype).view()
    result.setflags(write=False)
    return result


def as_arrow(table: Any) -> pa.Table:
    """Any accepted container as an Arrow table.

    Raises UsageError for another type, TableError where columns can't be read or differ in length.
    """
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, pa.RecordBatch):
        return pa.Table.from_batches([table])
    if isinstance(table, Mapping):
        return _from_mapping(table)
    kind = type(table).__name__
    if isinstance(table, pa.ChunkedArray) or not _is_frame(table):
        raise UsageError(f"table: found {kind}, expected a pyarrow.Table, polars frame or dict of arrays")
    is_lazy = hasattr(table, "collect")
    try:
        return _from_frame(table.collect() if is_lazy else table)
    except TableError:
        raise
    except Exception as error:  # polars' own, of many kinds, or those of whoever made the stream
        what = "the lazy frame can't be collected" if is_lazy else f"{kind} can't be read"
        raise TableError([f"{what}: {_first_line(error)}"]) from None


def _is_frame(table: Any) -> bool:
    """Whether this may be a table; a series of polars or pandas is not, although it goes to Arrow too."""
    if hasattr(table, "collect"):
        return True
    return hasattr(table, "columns" if hasattr(table, "dtype") else "__arrow_c_stream__")


def _from_frame(frame: Any) -> pa.Table:
    """A frame of polars or pandas, or what gives a stream of Arrow."""
    if type(frame).__module__.partition(".")[0] == "pandas":  # its objects may be numbers of several kinds
        return _from_mapping(dict(frame.items()))
    try:
        return frame.to_arrow() if hasattr(frame, "to_arrow") else pa.table(frame)
    except pa.ArrowException:
        if not hasattr(frame, "get_columns"):
            raise
        return _from_mapping({series.name: series for series in frame.get_columns()})  # Int128: one by one


def _first_line(error: Exception) -> str:
    said = str(error).strip() or type(error).__name__
    return said.splitlines()[0]


def _from_mapping(columns: Mapping[str, Any]) -> pa.Table:
    arrays, problems = {}, []
    for name, values in columns.items():
        if not isinstance(name, str):
            problems.append(f"column {name!r}: found a name of {type(name).__name__}, expected text")
        elif (array := _as_array(name, values)) is None:
            problems.append(f"column {name}: found {type(values).__name__}, expected an array of one type")
        else:
            arrays[name] = array
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        problems.append("columns differ in length: " + ", ".join(f"{k} {v}" for k, v in lengths.items()))
    if problems:
        raise TableError(problems)
    return pa.table(arrays)


def _as_array(name: str, values: Any) -> pa.Array | pa.ChunkedArray | None:
    """A column of a dict as an Arrow array, None where it can't be one."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    try:
        if hasattr(values, "to_arrow"):
            values = values.to_arrow()
        if isinstance(values, np.ndarray) and not values.dtype.isnative:
            values = values.astype(values.dtype.newbyteorder("="))
        if name not in _NUMBERS or not _differ_in_kind(values):
            return pa.array(values)
    except _CONVERSION_ERRORS:
        pass
    return _mixed(values, _NUMBERS.get(name, 0))


def _differ_in_kind(values: Any) -> bool:
    """Whether Python objects are of several kinds, of which Arrow would make one: 100 becomes 100.0."""
    if not isinstance(values, list | tuple) and getattr(getattr(values, "dtype", None), "kind", "") != "O":
        return False
    return len({int if issubclass(t, _WHOLE) else t for t in set(map(type, values)) - {type(None)}}) > 1


def _mixed(values: Any, decimals: int) -> pa.Array | None:
    """A column of mixed numbers (Decimal beside str, integers beyond 64 bits) as text.

    An integer counts units of the last decimal, as it does in a column of integers alone.
    """
    if not isinstance(values, Iterable):
        return None
    values = list(values)
    if not all(v is None or is_whole(v) or isinstance(v, _OTHER_NUMBER) for v in values):
        return None
    return pa.array([v if v is None else _as_text(v, decimals) for v in values], pa.string())


def _as_text(value: Any, decimals: int) -> str:
    if not is_whole(value):
        return str(value)
    return f"{int(value)}e-{decimals}" if decimals else str(int(value))


class TableReader:
    """Reads the columns of one table and gathers what is wrong with them."""

    def __init__(self, table: pa.Table, what: str, first_row: int = 0) -> None:
        self.table, self.what, self.first_row = table, what, first_row
        twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
        self.problems = [f"column {name} is there more than once" for name in twice]
        if twice:
            self.finish()

    def finish(self) -> None:
        if self.problems:
            raise TableError(self.problems, self.what)

    def wrong(self, name: str, found: str, expected: str, row: int | None = None) -> None:
        where = f"column {name}" if row is None else f"column {name}, row {self.first_row + row}"
        self.problems.append(f"{where}: found {found}, expected {expected}")

    def column(self, name: str, required: str = "", nulls: bool = False) -> pa.Array | None:
        """A column as one array; None where it is absent or full of nulls it may not have."""
        if name not in self.table.column_names:
            if required:
                self.problems.append(f"column {name} is missing, {required}")
            return None
        column = self.table.column(name)
        if pa.types.is_null(column.type) and len(column) == 0:
            return None  # an empty list has no type
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # an empty one
            column = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
        if (column := self._sound(name, column)) is None:
            return None
        if column.null_count and not nulls:
            row = pc.index(pc.is_null(column), True).as_py()
            self.wrong(name, f"{column.null_count} null(s)", "none (fill_null before)", row)
            return None
        return column

    def _sound(self, name: str, column: pa.Array) -> pa.Array | None:
        """Text that is text, a dictionary whose indices point into it; nulls in it as nulls of rows."""
        is_dictionary = pa.types.is_dictionary(column.type)
        if not (is_dictionary or _is_text(column.type)):
            return column
        try:
            column.validate(full=True)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            found = "broken text" if _is_text(column.type) else "a broken dictionary"
            place = (_PLACE_OF_TEXT if _is_text(column.type) else _PLACE_OF_INDEX).search(str(error))
            row = None if place is None else int(place[1])
            self.wrong(name, f"{found} ({_first_line(error)})", "text in UTF-8, indices within it", row)
            return None
        if is_dictionary and column.dictionary.null_count:
            return column.cast(column.type.value_type).dictionary_encode()
        return column

    def integers(self, name: str, dtype: str, required: str = "") -> np.ndarray:
        """An integer column; the absent array where there is none."""
        column = self.column(name, required)
        if column is None:
            return ABSENT[dtype]
        if pa.types.is_boolean(column.type) and dtype == "?":
            return frozen(column.to_numpy(zero_copy_only=False), "?")
        if not pa.types.is_integer(column.type):
            self.wrong(name, str(column.type), "integers" if dtype != "?" else "booleans")
            return ABSENT[dtype]
        values = column.to_numpy()
        if dtype not in ("?", "i8") and not np.can_cast(values.dtype, dtype) and values.size:
            bounds = np.iinfo(dtype)
            outside = (values < bounds.min) | (values > bounds.max)
            if outside.any():
                row = int(np.argmax(outside))
                self.wrong(name, str(values[row]), f"{bounds.min} to {bounds.max}", row)
        return frozen(values, dtype)

    def ids(self, name: str, required: str = "", missing: np.ndarray | None = None) -> np.ndarray:
        """Order ids as the bits of a uint64 in an int64; `missing` takes the place of nulls, if given."""
        column = self.column(name, required, nulls=missing is not None)
        if column is None or column.null_count == len(column) > 0:
            return ABSENT["i8"]
        nulls = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
        if _is_text(column.type):
            column = self._ids_of_text(name, column)
            if column is None:
                return ABSENT["i8"]
        if not pa.types.is_integer(column.type):
            self.wrong(name, str(column.type), _IDS)
            return ABSENT["i8"]
        values = (column.fill_null(0) if nulls is not None else column).to_numpy()
        if values.dtype.kind == "i" and values.size and values.min() < 0:
            row = int(np.argmax(values < 0))
            self.wrong(name, str(values[row]), _IDS, row)
        values = values.view("i8") if values.dtype == np.uint64 else values.astype("i8", copy=False)
        return frozen(values if nulls is None else np.where(nulls, missing, values), "i8")

    def _ids_of_text(self, name: str, column: pa.Array) -> pa.Array | None:
        """Ids written in digits; None where one isn't: Arrow's own conversion takes 0x10 for 16."""
        column = column.cast(pa.large_string())
        digits = pc.match_substring_regex(column, "^[0-9]{1,20}$").fill_null(True)
        try:
            if pc.all(digits, min_count=0).as_py():
                return column.cast(pa.uint64())
            row = pc.index(digits, False).as_py()
        except pa.ArrowInvalid:  # beyond 64 bits; texts of 20 digits sort as numbers do
            beyond = pc.and_(pc.equal(pc.utf8_length(column), 20), pc.greater(column, str(2**64 - 1)))
            row = pc.index(beyond.fill_null(False), True).as_py()
        self.wrong(name, repr(printable(column[row].as_py())[:40]), _IDS, row)
        return None

    def codes(self, name: str, code: type[Code], required: str = "") -> np.ndarray:
        """A column of integer codes or of names."""
        column = self.column(name, required)
        if column is None:
            return ABSENT["i1"]
        if _is_text(column.type):
            column = column.dictionary_encode()
        if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type):
            return self._named(name, code, column)
        if not pa.types.is_integer(column.type):
            self.wrong(name, str(column.type), f"{code.__name__} names or integers")
            return ABSENT["i1"]
        values = column.to_numpy()
        low, high = min(code), max(code)  # no code has a gap, but Side, where 0 is none
        if values.size and not (values.min() >= low and values.max() <= high):
            outside = int(np.argmax((values < low) | (values > high)))
            self._unknown_code(name, code, values[outside].item(), outside)
            return ABSENT["i1"]
        return frozen(values, "i1")

    def _named(self, name: str, code: type[Code], column: pa.DictionaryArray) -> np.ndarray:
        indices = column.indices.to_numpy()
        codes = np.zeros(max(1, len(column.dictionary)), "i1")
        for position, text in enumerate(column.dictionary.to_pylist()):
            try:
                codes[position] = 0 if code is Side and text in ("", "N") else code.parse(text)
            except ValueError:
                rows = np.flatnonzero(indices == position)
                if rows.size:
                    self._unknown_code(name, code, text, int(rows[0]))
                    return ABSENT["i1"]
        if np.array_equal(codes, np.arange(codes.size)) and indices.dtype == np.int8:
            return frozen(indices, "i1")
        return frozen(codes[indices] if indices.size else ABSENT["i1"], "i1")

    def _unknown_code(self, name: str, code: type[Code], value: object, row: int) -> None:
        names = ", ".join(member.name for member in code)
        self.wrong(name, repr(value), f"one of {names}", row)

    def symbols(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Book number of each row, and the symbols by book number."""
        column = self.column("symbol")
        if column is None:
            return ABSENT["i4"], (DEFAULT_SYMBOL,)
        if not pa.types.is_dictionary(column.type):
            if not _is_text(column.type):
                self.wrong("symbol", str(column.type), "text")
                return ABSENT["i4"], (DEFAULT_SYMBOL,)
            column = column.dictionary_encode()
        names = [str(name) for name in column.dictionary.to_pylist()]
        indices = column.indices.to_numpy()
        if len(set(names)) != len(names):  # a dictionary may repeat itself
            unique = list(dict.fromkeys(names))
            indices = np.array([unique.index(name) for name in names], "i4")[indices]
            names = unique
        if len(names) == 1 and indices.size:
            return ABSENT["i4"], (names[0],)
        return frozen(indices, "i4"), tuple(names) or (DEFAULT_SYMBOL,)

    def times(self, name: str) -> np.ndarray:
        """Timestamps as ns since the epoch."""
        column = self.column(name)
        if column is None:
            return ABSENT["i8"]
        if pa.types.is_timestamp(column.type):
            values, unit = column.cast(pa.int64()).to_numpy(), column.type.unit
            ns, outside = timestamps_to_ns(values, unit)
            if outside.any():
                row = int(np.argmax(outside))
                found = f"{values[row]} {unit}"  # Arrow can't show all of them as a time
                found += " (NaT)" if values[row] == NOT_A_VALUE else ""
                self.wrong(name, found, "a time from 1677 to 2262, as 64 bits of ns hold", row)
            return frozen(ns, "i8")
        if not pa.types.is_integer(column.type):
            self.wrong(name, str(column.type), "a timestamp, or integer ns since the epoch")
            return ABSENT["i8"]
        values = column.to_numpy()
        if values.dtype == np.uint64 and values.size and values.max() > MAX_QTY:
            row = int(np.argmax(values > MAX_QTY))
            self.wrong(name, str(values[row]), "ns since the epoch below 2^63", row)
        return frozen(values, "i8")

    def prices(self, name: str, required: str = "") -> np.ndarray:
        """Prices in units of 1e-9 from integers (taken as such), floats, decimals or text."""
        column = self.column(name, required)
        if column is None:
            return ABSENT["i8"]
        kind = column.type
        if pa.types.is_integer(kind):
            return frozen(_integers_to_units(column.to_numpy()), "i8")
        if pa.types.is_floating(kind):
            return frozen(floats_to_units(column.to_numpy()), "i8")
        if pa.types.is_decimal(kind):
            return frozen(decimals_to_units(column), "i8")
        if _is_text(kind):
            return frozen(text_to_units(column), "i8")
        self.wrong(name, str(kind), "integers of 1e-9, floats, decimals or text")
        return ABSENT["i8"]

    def quantities(self, name: str, required: str = "") -> np.ndarray:
        """Whole lots from integers or floats."""
        column = self.column(name, required)
        if column is None:
            return ABSENT["i8"]
        if pa.types.is_integer(column.type):
            return frozen(_integers_to_units(column.to_numpy()), "i8")
        if pa.types.is_floating(column.type):
            return frozen(floats_to_units(column.to_numpy(), decimals=0), "i8")
        if pa.types.is_decimal(column.type):
            return frozen(decimals_to_units(column, decimals=0), "i8")
        if _is_text(column.type):
            return frozen(text_to_units(column, decimals=0), "i8")
        self.wrong(name, str(column.type), "whole lots")
        return ABSENT["i8"]


def timestamps_to_ns(values: np.ndarray, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Counts (int64) of a unit, such as "us", in ns, and which of them 64 bits of ns don't hold.

    NumPy's NaT, -2^63, is one of these where the unit is longer than a ns.
    """
    scale = _UNIT_NS[unit]
    if scale == 1:
        return values, np.zeros(0, "?")
    most = MAX_QTY // scale
    return values * scale, (values > most) | (values < -most)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _integers_to_units(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint64:
        return np.where(values > np.uint64(2**63 - 1), NOT_A_VALUE, values.astype("i8"))
    return values


def read_orders(table: Any, first_row: int = 0) -> CheckedTable:
    """Check an orders table.

    Raises TableError listing everything that is wrong with its shape.
    """
    reader = TableReader(as_arrow(table), "orders table", first_row)
    action = reader.codes("action", Action, "needed in every orders table")
    order_id = reader.ids("order_id", "needed in every orders table")
    order_type = reader.codes("order_type", OrderType)
    sizing = (Action.NEW, Action.REDUCE, Action.REPLACE, Action.RISK_CONTROL)
    missing = {"side", "price", "qty"} - set(reader.table.column_names)
    has = {a: bool(missing) and bool((action == a).any()) for a in sizing}
    adds = "needed by rows of action NEW" if has[Action.NEW] else ""
    sized = "needed by rows of action NEW, REDUCE, REPLACE and RISK_CONTROL" if any(has.values()) else ""
    priced = has[Action.REPLACE] or (
        has[Action.NEW]
        and not (order_type.size and bool((order_type[action == Action.NEW] == OrderType.MARKET).all()))
    )
    side = reader.codes("side", Side, adds)
    if np.count_nonzero(side) < side.size:
        sideless = (action == Action.NEW) & (side == 0)
        if sideless.any():
            reader.wrong("side", "no side", "BUY or SELL on every NEW", int(np.argmax(sideless)))
    book, symbols = reader.symbols()
    columns = Columns(
        action,
        side,
        order_type,
        reader.codes("tif", Tif),
        reader.integers("post_only", "?"),
        order_id,
        reader.ids("new_order_id", missing=order_id),
        reader.prices("price", "needed by limit orders and REPLACE" if priced else ""),
        reader.quantities("qty", sized),
        book,
        _without_default(reader.integers("account", "i4")),
    )
    ts = reader.times("ts")
    reader.finish()
    any_sign = ANY_SIGN_KEY in (reader.table.schema.metadata or {})
    return CheckedTable(reader.table.num_rows, columns, symbols, ts, first_row, any_sign=any_sign)


def _without_default(account: np.ndarray) -> np.ndarray:
    """No column at all where every account is 0: the kernels then skip accounts."""
    return account if account.size and account.any() else ABSENT["i4"]


def only_symbols(checked: CheckedTable, wanted: Iterable[str]) -> CheckedTable:
    """The rows of some symbols; `seq` keeps their places in the whole."""
    wanted = set(wanted)
    books = np.array([i for i, symbol in enumerate(checked.symbols) if symbol in wanted], np.int32)
    book = checked.columns.book
    rows = np.flatnonzero(np.isin(book, books)) if book.size else np.arange(checked.rows * books.size)
    columns = Columns(*(frozen(c[rows], c.dtype.str) if c.size else c for c in checked.columns))
    if book.size:
        columns = columns._replace(book=frozen(np.searchsorted(books, book[rows]), "i4"))
    return replace(
        checked,
        rows=rows.size,
        columns=columns,
        symbols=tuple(checked.symbols[i] for i in books) or (DEFAULT_SYMBOL,),
        ts=frozen(checked.ts[rows] if checked.ts.size else rows + checked.first_row, "i8"),
        seq=frozen(checked.seq[rows] if checked.seq.size else rows + checked.first_row, "i8"),
        ends=frozen(checked.ends[rows], "?") if checked.ends.size else ABSENT["?"],
    )


def first_rows(checked: CheckedTable, rows: int) -> CheckedTable:
    """The first rows of a checked table."""
    columns = checked.columns._replace(
        **{name: column[:rows] for name, column in checked.columns._asdict().items() if column.size}
    )
    rows = min(rows, checked.rows)
    here = {name: getattr(checked, name)[:rows] for name in ("ts", "seq", "ends")}
    return replace(checked, rows=rows, columns=columns, **here)
