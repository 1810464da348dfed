"""Databento's CSV of market by order: the schema `mbo`, as their downloads and their clients write it.

::

    ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,price,size,channel_id,order_id,flags,...
    2023-12-25T12:00:00.000000007Z,2023-12-25T12:00:00Z,160,1,17077,A,B,4800.250000000,1,0,6412777162812,...

Times are ISO 8601 or integer nanoseconds, prices decimals or integers of 1e-9, whichever the file was written
with ("pretty" or not); columns may stand in any order. `symbol` is there where it was asked for; without it,
and where it is blank, instruments are named by their number. What is undefined, the publishers after
the first of a file, and refills of CME's icebergs (`publisher_id` 1) are treated as in DBN (`dbn.py`); the
first broken row is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hftlab.codes import NOT_A_VALUE, PRICE_SCALE, UNDEF_PRICE, MboAction, Side
from hftlab.errors import FormatError, UsageError
from hftlab.feeds.databento.rows import (
    CME_PUBLISHER,
    UNDEF_SIZE,
    Columns,
    notes_of_instruments,
    put_values,
    refills_of,
    to_table,
)
from hftlab.feeds.flow import Flow
from hftlab.feeds.native import resliced
from hftlab.feeds.parsing import cells, table_files
from hftlab.feeds.parsing.cells import BadCell
from hftlab.feeds.parsing.times import Clock, settled, times
from hftlab.schema import MBO

DESCRIPTION = "Databento CSV files of the mbo schema"

MBO_RTYPE = 160
_TELLING = {"rtype", "publisher_id", "ts_event"}
_REQUIRED = ("ts_event", "action", "side", "price", "size", "order_id")
_ROLES: dict[str, table_files.Role] = {
    **dict.fromkeys(("rtype", "publisher_id", "instrument_id", "product_id", "symbol"), "name"),
    **dict.fromkeys(("action", "side"), "name"),
    **dict.fromkeys(("ts_event", "ts_recv", "price", "size", "order_id", "flags", "sequence"), "number"),
}
_INSTRUMENT = ("instrument_id", "product_id")  # what it is called, and was
_SCHEMAS = {"bid_px_09": "mbp-10", "bid_px_00": "mbp-1", "open": "ohlcv", "depth": "trades"}  # by a column
_TIMES = "nanoseconds since 1970 or a time like 2023-12-25T12:00:00.000000000Z"
_UNDEF_TIME = str(2**64 - 1)
_WHOLE_TABLE = 2**62

_BITS = {bits: f"a whole number of {bits} bits" for bits in (8, 16, 32, 64)}


def sniff(path: Path, head: bytes) -> bool:
    """Whether the header is one of Databento's, of any schema."""
    text = table_files.first_text(path, head)
    return bool(text) and set(table_files.cells_of(table_files.first_line(text), ",")) >= _TELLING


def load(path: Path, *, format: str | None = None, symbols: Iterable[str] | None = None) -> Flow:
    """Open a CSV file; what is wrong with its first rows is said at once, of others when they are read.

    Raises FormatError for another schema and for a broken row.
    """
    file = table_files.opened(path, delimiter=",")
    if not isinstance(file, table_files.Csv):
        raise FormatError(path, "no delimited text", "Databento's CSV")
    missing = [name for name in (*_REQUIRED, "rtype") if name not in file.names]
    if missing:
        schema = next((schema for name, schema in _SCHEMAS.items() if name in file.names), "another schema")
        hint = " (an mbp-10 file is a truth: hftlab compare RUN --truth FILE)" if schema == "mbp-10" else ""
        found = f"the columns of {schema}, without {', '.join(missing)}"
        raise FormatError(path, found, f"the schema mbo{hint}", row=1)
    notes: list[str] = []

    def batches(rows: int) -> Iterator[pa.Table]:
        reading = _Reading(file)
        yield from resliced(reading.batches(), MBO, rows)
        notes[:] = reading.notes()

    def table() -> pa.Table:
        (whole,) = batches(_WHOLE_TABLE)
        return whole

    beginning = _Reading(file)
    next(beginning.batches(), None)
    more = {"notes": notes, "faults": file.faults, "batches": batches}
    refills = refills_of(beginning.is_cme())
    return Flow(path, "databento_csv", "mbo", table, symbols=symbols, refills=refills, **more)


def _whole(bits: int, blank: int | None = None) -> Callable[[pa.Array], np.ndarray]:
    """Whole numbers of so many bits, without a sign; `blank` stands for nothing, None forbids it."""

    def convert(column: pa.Array) -> np.ndarray:
        return cells.integers(column, 0, 2**bits - 1, blank, _BITS[bits]).copy()

    return convert


class _Reading:
    """One pass over a file."""

    def __init__(self, file: table_files.Foreign) -> None:
        self._file = file
        self._first = 0  # index of the batch's first record
        self._clocks: dict[str, Clock] = {}
        self._price_factor: Fraction | None = None  # None until there was a price
        self._numbers: dict[str, int] = {}  # of books, by name
        self._unnamed: dict[str, None] = {}
        self._publishers: dict[int, None] = {}
        self._odd: Counter[str] = Counter()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Record batches of the mbo schema. Raises FormatError with the row."""
        roles = {name: role for name, role in _ROLES.items() if name in self._file.names}
        for raw in self._file.batches(roles):
            if raw.num_rows:
                columns = self._columns(partial(self._column, raw), raw.num_rows)
                self._refuse_sideless(columns)
                self._refuse_nameless(columns, raw.column("order_id"))
                put_values(columns, self._odd)
                yield from to_table(columns, self._numbers).to_batches()
            self._first += raw.num_rows

    def is_cme(self) -> bool:
        """Whether the first publisher that was met is CME's."""
        return next(iter(self._publishers), None) == CME_PUBLISHER

    def notes(self) -> list[str]:
        """The counted quirks."""
        notes = [f"{what}: {count:,}" for what, count in self._odd.items()]
        return notes + notes_of_instruments(self._unnamed, self._publishers)

    def _column(self, raw: pa.RecordBatch, name: str, work: Callable[[pa.Array], Any]) -> Any:
        """One column through a converter; None where there is no such column."""
        if name not in raw.schema.names:
            return None
        try:
            return work(raw.column(name))
        except BadCell as error:
            self._refuse(error.row, f"{name} {error.found}", error.expected)

    def _refuse(self, index: int, found: str, expected: str) -> NoReturn:
        raise self._file.error(self._first + index, found, expected) from None

    def _columns(self, column: Callable[..., Any], rows: int) -> Columns:
        rtype = column("rtype", _whole(8))
        if (rtype != MBO_RTYPE).any():
            index = int(np.argmax(rtype != MBO_RTYPE))
            self._refuse(index, f"rtype {rtype[index]}", f"{MBO_RTYPE}, as the schema mbo has")
        ts_event = column("ts_event", partial(self._times, "ts_event"))
        ts_recv = column("ts_recv", partial(self._times, "ts_recv"))
        flags, sequence = column("flags", _whole(8, 0)), column("sequence", _whole(32, 0))
        zeros = np.zeros(rows, np.int64)
        return Columns(
            ts_event=ts_event,
            ts_recv=ts_event.copy() if ts_recv is None else ts_recv,
            symbol=self._books(column),
            action=column("action", lambda cell: cells.codes(cell, MboAction, {}, None)),
            side=column("side", lambda cell: cells.codes(cell, Side, {}, None)),
            price=column("price", self._prices),
            size=column("size", _whole(32, UNDEF_SIZE)),
            order_id=column("order_id", _whole(64, 0)).view(np.uint64),
            flags=(zeros if flags is None else flags).astype(np.uint8),
            sequence=zeros if sequence is None else sequence,
        )

    def _times(self, name: str, column: pa.Array) -> np.ndarray:
        """Nanoseconds, from whole numbers of them or from text; negative for what is undefined."""
        clock = self._clocks.get(name)
        if clock is not None and clock.form is not None:
            try:
                return times(column, clock).copy()
            except BadCell:
                pass  # a blank, or what the next line finds again
        column = cells.without_blanks(column, (*cells.BLANK, _UNDEF_TIME))
        try:
            self._clocks[name] = clock = settled(clock or Clock("ns"), column, name)
        except UsageError:  # what is told of a day is none of theirs
            first = pc.index(column.is_valid(), True).as_py()
            raise BadCell(first, cells.shown(column[first].as_py()), _TIMES) from None
        return times(column, clock, blank=True).copy()

    def _prices(self, column: pa.Array) -> np.ndarray:
        """Decimals, or whole numbers of 1e-9: a file has either."""
        if self._price_factor is None and (has_decimals := cells.has_decimals(column)) is not None:
            self._price_factor = Fraction(PRICE_SCALE if has_decimals else 1)
        whole = self._price_factor == 1
        expected = "a whole number of 1e-9" if whole else "a number of at most nine decimals"
        prices = cells.scaled(column, self._price_factor or Fraction(1), expected)
        return np.where(prices == NOT_A_VALUE, UNDEF_PRICE, prices)

    def _refuse_sideless(self, columns: Columns) -> None:
        wrong = (columns.action == MboAction.A) & (columns.side == 0)
        if wrong.any():
            self._refuse(int(np.argmax(wrong)), "side 'N'", "B or A of an add")

    def _refuse_nameless(self, columns: Columns, ids: pa.Array) -> None:
        """Orders without an id would all be one."""
        if not columns.order_id.all():  # 0 is what a blank became, or an id of theirs
            nameless = cells.without_blanks(ids).is_null().to_numpy(zero_copy_only=False)
            nameless &= np.isin(columns.action, (MboAction.A, MboAction.M, MboAction.C))
            if nameless.any():
                self._refuse(int(np.argmax(nameless)), "order_id ''", "an id on every A, M and C")

    # -------------------------------------------------------------- instruments

    def _books(self, column: Callable[..., Any]) -> np.ndarray:
        """The number of each row's book: by symbol, where it is blank by instrument, and by publisher."""
        names = self._names(column)
        publishers = column("publisher_id", _whole(16))
        if publishers is not None:
            publishers = pa.array(publishers)
            self._publishers |= dict.fromkeys(publishers.unique().to_pylist())
            others = pc.not_equal(publishers, next(iter(self._publishers)))
            if pc.any(others).as_py():
                apart = pc.binary_join_element_wise(names, publishers.cast(pa.string()), "@")
                names = pc.if_else(others, apart, names)
        encoded = names.dictionary_encode()
        numbers = [self._numbers.setdefault(n, len(self._numbers)) for n in encoded.dictionary.to_pylist()]
        return np.array(numbers, np.int32)[encoded.indices.to_numpy()]

    def _names(self, column: Callable[..., Any]) -> pa.Array:
        """The name of each row's instrument, or its number as text."""
        instrument = next((name for name in _INSTRUMENT if name in self._file.names), "instrument_id")
        names, numbers = column("symbol", cells.without_blanks), column(instrument, _whole(32))
        if names is not None and not names.null_count:
            return cells.as_text(names)
        if numbers is None:
            if names is None:
                raise FormatError(self._file.path, "no symbol and no instrument_id", "one of the two", row=1)
            self._refuse(pc.index(names.is_null(), True).as_py(), "symbol ''", "the name of an instrument")
        numbers = pa.array(numbers).cast(pa.string())
        unnamed = numbers if names is None else numbers.filter(names.is_null())
        self._unnamed |= dict.fromkeys(unnamed.unique().to_pylist())
        return numbers if names is None else pc.coalesce(cells.as_text(names), numbers)
