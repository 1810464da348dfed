"""Any table of order flow, by saying which column is what: CSV, TSV, NDJSON, Parquet, Arrow IPC.

::

    hftlab inspect flow.csv --format generic -O columns.ts=time -O columns.price=px -O columns.qty=shares

or ``open_flow("flow.csv", format="generic", columns={"ts": "time", "price": "px", "qty": "shares"})``. A
file whose columns already bear our names needs no mapping, and as text is recognised by them. Every cell is
converted exactly; the first one that can't be is an error with its row.

============== =============================================================================================
option         meaning
============== =============================================================================================
columns.OURS   the file's name for a column of ours; nothing (``columns.account=``) leaves it out
constants.OURS one value for all rows: ``constants.symbol=AAPL``
values.OURS.X  what their code X stands for, in action, side, order_type, tif, post_only or symbol:
               ``values.action.add=NEW``; our own names and integers are always understood
kind           orders, mbo or mbp; told by the columns where it isn't given
price_scale    their units per 1.0 (10000 for LOBSTER's prices); needed where prices are whole numbers
qty_scale      lots per 1.0 of theirs (100000000 makes satoshi of bitcoin); 1 where it isn't given
time_unit      s, ms, us or ns of times that are numbers; told by the digits of a time since 1970
time_zone      of times that don't say theirs (America/New_York); UTC where it isn't given
date           YYYY-MM-DD, where times are of a day: 09:30:00.5, or seconds since midnight
ids            text, where order ids are not numbers: they are numbered as they appear
delimiter      one character, or tab; told by the first line where it isn't given
header         names of the columns of a file without a header, with commas
============== =============================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date as Date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hftlab.codes import Action, MboAction, OrderType, Side, Tif
from hftlab.errors import FormatError, UsageError, printable
from hftlab.feeds.flow import Flow, Kind
from hftlab.feeds.native import resliced
from hftlab.feeds.parsing import cells, table_files
from hftlab.feeds.parsing.cells import BadCell
from hftlab.feeds.parsing.times import UNITS, Clock, settled, times
from hftlab.schema import MBO, MBP, ORDERS, TIMESTAMP, code_array

DESCRIPTION = "any CSV, NDJSON, Parquet or Arrow file with our columns, or with a mapping to them"

_SCHEMAS: dict[Kind, pa.Schema] = {"mbo": MBO, "orders": ORDERS, "mbp": MBP}  # in the order they are guessed
_REQUIRED: dict[Kind, tuple[str, ...]] = {
    "mbo": ("action", "side", "price", "size", "order_id"),
    "orders": ("action", "order_id"),
    "mbp": ("action", "side", "price", "size"),
}
_TELLING: dict[Kind, tuple[str, ...]] = {  # what a file must have to be opened without being asked for
    "mbo": ("ts_event", *_REQUIRED["mbo"]),
    "orders": ("action", "order_id", "side", "price", "qty"),
    "mbp": ("ts_event", *_REQUIRED["mbp"]),
}
_OURS = tuple(dict.fromkeys(name for schema in _SCHEMAS.values() for name in schema.names))
_CODED = ("action", "side", "order_type", "tif", "post_only", "symbol")
_IDS = ("order_id", "new_order_id")
_TIMES = ("ts", "ts_event", "ts_recv")
_QUANTITIES = ("qty", "size")
_NAMED: dict[Kind, tuple[Action | MboAction, ...]] = {  # what is about one order, which its id names
    "orders": (Action.NEW, Action.CANCEL, Action.REDUCE, Action.REPLACE),
    "mbo": (MboAction.A, MboAction.M, MboAction.C),
}
_BOUNDS = {"account": (-(2**31), 2**31 - 1), "flags": (0, 255), "sequence": (-(2**63), 2**63 - 1)}

_WHOLE = re.compile(r"[0-9]{1,20}(\.0*)?|0[xX][0-9a-fA-F]{1,16}")
_LONG = r"^[1-9][0-9]{19,}$"  # digits of an id that 64 bits may not hold
_SCALE = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
_WHOLE_TABLE = 2**62
_WHICH_UNIT = (
    "found prices without a decimal point, expected price_scale=N with them: their units per 1.0 "
    "(1 for whole dollars, 100 for cents, 1000000000 for units of 1e-9)"
)


@dataclass(frozen=True)
class ColumnMap:
    """Which column is what, checked against a file."""

    kind: Kind
    sources: dict[str, str]  # ours -> theirs
    constants: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    price_scale: Fraction | None = None
    qty_scale: Fraction = Fraction(1)
    clock: Clock = field(default_factory=Clock)
    text_ids: bool | None = None  # None: told by the first

    @property
    def schema(self) -> pa.Schema:
        """Of the table that comes out."""
        whole = _SCHEMAS[self.kind]
        present = [field for field in whole if field.name in self.sources or field.name in self.constants]
        return pa.schema(present, metadata=whole.metadata)

    def roles(self) -> dict[str, table_files.Role]:
        """What each of their columns is read for."""
        roles: dict[str, table_files.Role] = {}
        for ours, theirs in self.sources.items():
            role = "name" if ours in _CODED else "id" if ours in _IDS else "number"
            roles.setdefault(theirs, role)
        return roles


# ------------------------------------------------------------------ opening


def sniff(path: Path, head: bytes) -> bool:
    """Whether it is text, and the header or the first object has the columns of one of our tables."""
    names = set(_names(path, head) or ())
    return any(names.issuperset(telling) for telling in _TELLING.values())


def load(
    path: Path,
    *,
    format: str | None = None,
    symbols: Iterable[str] | None = None,
    kind: Kind | None = None,
    columns: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
    values: Mapping[str, Mapping[str, Any]] | None = None,
    price_scale: Any = None,
    qty_scale: Any = None,
    time_unit: str | None = None,
    time_zone: str | None = None,
    date: str | Date | None = None,
    ids: str | None = None,
    delimiter: str | None = None,
    header: str | Iterable[str] | None = None,
) -> Flow:
    """Open a table by a mapping of its columns to ours; the options are those of the module's docstring.

    Raises UsageError for a mapping that can't be right for this file, FormatError for a file that is broken.
    """
    file = table_files.opened(path, _delimiter(delimiter), _header(header))
    mapping = replace(
        _mapping(file, kind, _group("columns", columns), _group("constants", constants)),
        values=_values(values),
        price_scale=None if price_scale is None else _scale("price_scale", price_scale),
        qty_scale=Fraction(1) if qty_scale is None else _scale("qty_scale", qty_scale),
        clock=Clock(_one_of("time_unit", time_unit, UNITS), _zone(time_zone), _date(date)),
        text_ids={None: None, "text": True, "numbers": False}[_one_of("ids", ids, ("text", "numbers"))],
    )
    return flow_of(file, mapping, "generic", symbols)


def flow_of(
    file: table_files.Foreign, mapping: ColumnMap, format: str, symbols: Iterable[str] | None
) -> Flow:
    """The flow of a file by a mapping. What its first rows tell, they tell at once."""
    notes: list[str] = []

    def batches(rows: int) -> Iterator[pa.Table]:
        reading = Reading(file, mapping)
        yield from resliced(reading.batches(), mapping.schema, rows)
        notes[:] = reading.notes()

    def table() -> pa.Table:
        (whole,) = batches(_WHOLE_TABLE)
        return whole

    first = Reading(file, mapping)
    next(first.batches(), None)
    notes += first.notes()
    return Flow(
        file.path,
        format,
        mapping.kind,
        table,
        symbols=symbols,
        notes=notes,
        faults=file.faults,
        batches=batches,
        num_rows=file.num_rows,
        lot_size=_lot_size(mapping.qty_scale),
    )


def _lot_size(qty_scale: Fraction) -> Decimal | None:
    """What a lot is of 1.0 of theirs, where nine decimals say it."""
    units = 10**9 / qty_scale
    return Decimal(int(units)).scaleb(-9) if qty_scale != 1 and units.denominator == 1 else None


# ------------------------------------------------------------------ what was asked for


def _group(what: str, given: Any) -> dict[str, str]:
    """Options of the form WHAT.OURS=TEXT."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UsageError(f"{what}: found {given!r}, expected {what}.OURS=THEIRS for any of {_list(_OURS)}")
    for ours in given:
        if ours not in _OURS:
            raise UsageError(f"{what}.{ours}: we have no such column, expected one of {_list(_OURS)}")
    return {ours: str(value) for ours, value in given.items()}


def _values(given: Any) -> dict[str, dict[str, Any]]:
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise UsageError(f"values: found {given!r}, expected values.OURS.THEIRS=OURS")
    for ours, codes in given.items():
        if ours not in _CODED or not isinstance(codes, Mapping):
            what = f"values.{ours}" if isinstance(codes, Mapping) else f"values.{ours}={codes}"
            raise UsageError(f"found {what}, expected values.OURS.THEIRS=OURS for any of {_list(_CODED)}")
    return {ours: dict(codes) for ours, codes in given.items()}


def _one_of(what: str, given: Any, expected: Iterable[str]) -> Any:
    if given is not None and given not in expected:
        raise UsageError(f"{what}: found {given!r}, expected one of {_list(expected)}")
    return given


def _scale(what: str, given: Any) -> Fraction:
    if not _SCALE.fullmatch(str(given)) or not Fraction(str(given)):
        raise UsageError(f"{what}: found {given!r}, expected a positive number")
    return Fraction(str(given))


def _zone(given: str | None) -> str:
    try:
        return (given and ZoneInfo(given).key) or "UTC"
    except (KeyError, ValueError, OSError, TypeError):
        raise UsageError(f"time_zone: found {given!r}, expected a name like America/New_York") from None


def _date(given: str | Date | None) -> Date | None:
    try:
        return given if given is None or isinstance(given, Date) else Date.fromisoformat(given)
    except (ValueError, TypeError):
        raise UsageError(f"date: found {given!r}, expected YYYY-MM-DD") from None


def _delimiter(given: str | None) -> str | None:
    delimiter = _DELIMITERS.get(given, given) if isinstance(given, str | None) else ""
    if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'):
        raise UsageError(f"delimiter: found {given!r}, expected one character, or tab")
    return delimiter


def _header(given: str | Iterable[str] | None) -> list[str] | None:
    if given is None:
        return None
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(map(str, given))
    if not all(names):
        raise UsageError(f"header: found {given!r}, expected names of columns, with commas")
    return names


def _mapping(
    file: table_files.Foreign, kind: Kind | None, columns: dict[str, str], constants: dict[str, str]
) -> ColumnMap:
    """Ours to theirs, for the kind of table that the columns make."""
    kind = _one_of("kind", kind, _SCHEMAS)
    named = {ours: theirs for ours, theirs in columns.items() if theirs}
    for ours, theirs in named.items():
        if theirs not in file.names:
            where = f"columns.{ours}={theirs}: {file.path}"
            raise UsageError(f"{where} has no such column, expected one of {_list(file.names)}")
        if ours in constants:
            raise UsageError(f"constants.{ours}: there is columns.{ours} too, expected one of the two")
    own = {
        ours: ours for ours in _OURS if ours in file.names and ours not in columns and ours not in constants
    }
    kind = kind or _guessed(file, named.keys() | constants.keys(), own.keys())
    known = _SCHEMAS[kind].names
    for ours in (*named, *constants):
        if ours not in known:
            where = f"{'columns' if ours in named else 'constants'}.{ours}: a table of kind {kind}"
            raise UsageError(f"{where} has no such column, expected one of {_list(known)}")
    sources = {ours: theirs for ours, theirs in (own | named).items() if ours in known}
    missing = [ours for ours in _REQUIRED[kind] if ours not in sources and ours not in constants]
    if missing:
        raise UsageError(_missing(file, kind, missing))
    return ColumnMap(kind, sources, constants)


def _guessed(file: table_files.Foreign, asked: set[str], own: Iterable[str]) -> Kind:
    """The kind of table that the columns make; the nearest to one is what the error is about."""
    strange = {kind: len(asked - set(schema.names)) for kind, schema in _SCHEMAS.items()}
    fitting = [kind for kind in _SCHEMAS if strange[kind] == min(strange.values())]
    have = asked | set(own)
    missing = {kind: [ours for ours in _REQUIRED[kind] if ours not in have] for kind in fitting}
    best = min(missing, key=lambda kind: len(missing[kind]))
    if missing[best] and len(missing) > 1:
        raise UsageError(_missing(file, "orders" if "qty" in have else best, missing[best]))
    return best


def _missing(file: table_files.Foreign, kind: Kind, missing: list[str]) -> str:
    ours = missing[0]
    return (
        f"{file.path}: found no {_list(missing)} for a table of kind {kind}, expected columns.{ours}=NAME "
        f"with one of {_list(file.names)}, or constants.{ours}=VALUE"
    )


def _list(names: Iterable[str], limit: int = 30) -> str:
    names = [printable(name) for name in names]
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


# ------------------------------------------------------------------ their rows as ours


class Reading:
    """One pass over a file, and what its first values tell of the rest."""

    def __init__(self, file: table_files.Foreign, mapping: ColumnMap) -> None:
        self._file, self._mapping = file, mapping
        self._clocks: dict[str, Clock] = {}
        self._decimals = False  # whether a price with a decimal point was met
        self._text_ids = mapping.text_ids
        self._numbers: dict[str, int] = {}  # of ids that are text
        self._constants: dict[str, Any] = {}

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of the mapping's schema. Raises FormatError with the row of the first bad cell."""
        schema, first = self._mapping.schema, 0
        for batch in self._file.batches(self._mapping.roles()):
            arrays = [self._column(ours, batch, first) for ours in schema.names]
            self._refuse_nameless(batch, dict(zip(schema.names, arrays, strict=True)), first)
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
            first += batch.num_rows

    def _refuse_nameless(self, batch: pa.RecordBatch, arrays: dict[str, pa.Array], first: int) -> None:
        """Orders without an id would all be one. Raises FormatError with the row of the first."""
        theirs = self._mapping.sources.get("order_id")
        if theirs is None or self._mapping.kind == "mbp":
            return
        nameless = cells.without_blanks(batch.column(theirs)).is_null().to_numpy(zero_copy_only=False)
        if nameless.any():
            named = _NAMED[self._mapping.kind]
            nameless = nameless & np.isin(arrays["action"].indices.to_numpy(), [int(code) for code in named])
        if nameless.any():
            expected = f"an id on every {', '.join(code.name for code in named)}"
            found = f"order_id ''{self._place('order_id')}"
            raise self._file.error(first + int(np.argmax(nameless)), found, expected)

    def _place(self, ours: str) -> str:
        """What a column of ours is called in the file, where that is another name."""
        theirs = self._mapping.sources.get(ours, ours)
        return f" (column {theirs})" if theirs != ours else ""

    def notes(self) -> list[str]:
        """What a reader should know of how the file was understood."""
        unused = [name for name in self._file.names if name not in self._mapping.sources.values()]
        notes = [f"columns that are not used: {_list(unused)}"] if unused else []
        for ours, clock in self._clocks.items():
            if self._mapping.clock.unit is None and clock.unit is not None:
                notes.append(f"{ours} is taken for {clock.unit} since 1970, by its digits")
        if self._numbers:
            notes.append(f"order ids are text, numbered as they appear: {len(self._numbers):,}")
        return notes

    def _column(self, ours: str, batch: pa.RecordBatch, first: int) -> pa.Array:
        """One column of ours, of the cells of theirs or of a constant."""
        theirs = self._mapping.sources.get(ours)
        if theirs is None:
            return self._constant(ours).take(pa.array(np.zeros(batch.num_rows, np.int64)))
        try:
            return self._converted(ours, batch.column(theirs))
        except BadCell as error:
            code = error.found.strip("'")
            hint = f"; values.{ours}.{code}=... says what it stands for" if ours in _CODED and code else ""
            found = f"{ours} {error.found}{self._place(ours)}"
            raise self._file.error(first + error.row, found, error.expected + hint) from None

    def _constant(self, ours: str) -> pa.Array:
        """A constant as a column of one row."""
        if ours not in self._constants:
            try:
                self._constants[ours] = self._converted(ours, pa.array([self._mapping.constants[ours]]))
            except BadCell as error:
                found = f"constants.{ours}: found {error.found}"
                raise UsageError(f"{found}, expected {error.expected}") from None
        return self._constants[ours]

    def _converted(self, ours: str, column: pa.Array) -> pa.Array:
        values = self._mapping.values.get(ours, {})
        if ours in _TIMES:
            return pa.array(self._times(ours, column)).cast(TIMESTAMP)
        if ours == "symbol":
            return cells.names(column, values)
        if ours == "post_only":
            return pa.array(cells.booleans(column, values))
        if ours in _CODED:
            return self._codes(ours, column, values)
        if ours in _IDS:
            ids = self._ids(column)
            nothing = cells.without_blanks(column).is_null().to_numpy(zero_copy_only=False)
            return pa.array(ids, mask=nothing) if ours == "new_order_id" else pa.array(ids)
        if ours == "price":
            return pa.array(self._prices(column))
        if ours in _QUANTITIES:
            scale = self._mapping.qty_scale
            hint = (
                "whole lots (qty_scale=N makes N lots of 1.0)" if scale == 1 else f"a multiple of {1 / scale}"
            )
            return pa.array(cells.scaled(column, scale, hint))
        low, high = _BOUNDS[ours]
        numbers = cells.integers(column, low, high, 0, f"a whole number from {low} to {high}")
        return pa.array(numbers).cast(self._mapping.schema.field(ours).type)

    def _times(self, ours: str, column: pa.Array) -> np.ndarray:
        clock = self._clocks.get(ours) or self._mapping.clock
        self._clocks[ours] = clock = settled(clock, column, f"{self._file.path}: {ours}")
        return times(column, clock)

    def _codes(self, ours: str, column: pa.Array, values: Mapping[str, Any]) -> pa.Array:
        if ours == "side":
            return pa.array(cells.codes(column, Side, values, blank=0))
        action = Action if self._mapping.kind == "orders" else MboAction
        code, blank = {"action": (action, None), "order_type": (OrderType, 0), "tif": (Tif, 0)}[ours]
        return code_array(cells.codes(column, code, values, blank), code)

    def _prices(self, column: pa.Array) -> np.ndarray:
        """Prices in units of 1e-9. Whole numbers might be of any unit, so that must be said."""
        scale = self._mapping.price_scale
        if scale is None:
            scale = Fraction(1)
            has_decimals = cells.has_decimals(column)
            self._decimals = self._decimals or bool(has_decimals)
            if has_decimals is False and not self._decimals:
                cells.scaled(column, scale, "a number of at most nine decimals")
                raise UsageError(f"{self._file.path}: {_WHICH_UNIT}")
        expected = "a number of at most nine decimals" if scale == 1 else f"a multiple of 1e-9, times {scale}"
        return cells.scaled(column, cells.price_factor(scale), expected)

    def _ids(self, column: pa.Array) -> np.ndarray:
        """Ids that are numbers as they are, others by their number; 0 for nothing."""
        if not pa.types.is_floating(column.type):
            column = cells.without_blanks(column)
            if self._text_ids is None and (first := cells.first_value(column)) is not None:
                self._text_ids = not _WHOLE.fullmatch(first) or _is_long(column)
            if self._text_ids:
                return self._numbered(column)
        expected = "a whole number from 0 to 2^64-1 (ids=text takes others)"
        return cells.integers(column, 0, 2**64 - 1, 0, expected).view(np.uint64)

    def _numbered(self, column: pa.Array) -> np.ndarray:
        """Numbers for texts, from 1 on as they appear; 0 for nothing.

        Text of a float that has lost digits is no name of an order, unless somebody says that it is.
        """
        if self._mapping.text_ids is None and (row := cells.first_of_a_float(column)) is not None:
            expected = f"all digits of an id (ids=text takes it as it is){cells.LOST}"
            raise BadCell(row, cells.shown(column[row].as_py()), expected)
        encoded = cells.as_text(column).dictionary_encode()
        known = self._numbers
        table = [known.setdefault(text, len(known) + 1) for text in encoded.dictionary.to_pylist()]
        return np.array([*table, 0], np.uint64)[encoded.indices.fill_null(len(table)).to_numpy()]


def _is_long(column: pa.Array) -> bool:
    """Whether some id has more digits than 64 bits hold."""
    if not cells.is_text(column.type):
        return False
    column = cells.as_text(column)
    long = column.filter(pc.match_substring_regex(column, _LONG)).unique().to_pylist()
    return any(len(digits) > 20 or digits >= str(2**64) for digits in long)


# ------------------------------------------------------------------ recognising a file


def _names(path: Path, head: bytes) -> list[str] | None:
    """Names of the columns of a text file; None for what has none."""
    text = table_files.first_text(path, head)
    if text is None or not text.strip():
        return None
    if text.startswith("{"):
        try:
            return table_files.Ndjson(path).names
        except FormatError:
            return None
    line = table_files.first_line(text)
    return table_files.cells_of(line, table_files.delimiter_of(line))
