"""Files of anybody's making, as batches of the columns they have: CSV, NDJSON, Parquet, Arrow IPC.

Nothing is interpreted here: text stays text, in CSV and, with numbers as exact decimals, in NDJSON, so that
whoever knows what a column means can say which cell is wrong. Batches are about a megabyte each.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from hftlab.errors import FormatError
from hftlab.feeds import native
from hftlab.feeds.flow import Fault, without_end
from hftlab.feeds.parsing import containers, numbers

BATCH_BYTES = 1 << 20
BATCH_ROWS = 1 << 16  # of Parquet and Arrow IPC
DELIMITERS = (",", "\t", ";", "|")

Role = Literal["name", "id", "number"]  # what a column is read for: few different texts; ids; numbers, times

_TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".ndjson", ".jsonl")
_NAMES = pa.dictionary(pa.int32(), pa.string())
_EXACT = pa.decimal128(38, 18)
_VALUE = re.compile(  # a number that Arrow may not read right: with an exponent, or of many digits
    rb':(\s*)("?)([+-]?[0-9.]++[eE][+-]?[0-9]++|[+-]?[0-9.]{20,}+)\2(?=\s*[,}])'
)
_KEY = re.compile(rb'(?<!\\)"([^"\\]*)"\s*$')
_SHAPES = bytes(  # characters of numbers alike, and exponents: where such numbers are is then found fast
    ord("0" if char in "0123456789.+-" else "e" if char in "eE" else " ") for char in map(chr, range(256))
)
_SUSPECT = (b"0e0", b"0" * 20)
_LONGEST_KEY = 256
_EXPECTED = {
    pa.string(): "text",
    pa.bool_(): "true or false",
    pa.int64(): "a whole number",
    pa.uint64(): "a whole number from 0 to 2^64-1",
    _EXACT: "a number of at most 18 decimals",
}
_TOO_LONG = "straddling object"  # Arrow's words
_ROW = re.compile(r"Row #(\d+): ")
_WIDTH = re.compile(r"Expected (\d+) columns, got (\d+)")
_PLACE = re.compile(r"(In CSV column #\d+: )?(Row #\d+: )?")


class Foreign:
    """A file's columns by name, and its rows in batches, as often as they are asked for.

    `num_rows` is None where only reading it would tell. `faults` are those of what was read to its end last.
    """

    names: list[str]
    num_rows: int | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[Fault] = []

    def batches(self, columns: dict[str, Role]) -> Iterator[pa.RecordBatch]:
        """The given columns, of any type that holds them without loss.

        Raises FormatError, with the row, for a file that is broken.
        """
        raise NotImplementedError

    def error(self, index: int, found: str, expected: str) -> FormatError:
        """What is wrong with the record at an index from 0: its row, or the line where the file has lines."""
        return FormatError(self.path, f"{found} in row {index:,}", expected)


def opened(path: Path, delimiter: str | None = None, header: Iterable[str] | None = None) -> Foreign:
    """The file's columns, by its content. Raises FormatError where it is none of the four."""
    kind = containers.container(path)
    if kind in ("Parquet", "Arrow IPC"):
        return Native(path)
    head = first_text(path)
    if head is None:
        raise FormatError(path, "other content", "CSV, NDJSON, Parquet or Arrow data")
    if head.startswith("{") and header is None:
        return Ndjson(path)
    return Csv(path, delimiter, header)


# ------------------------------------------------------------------ text in any wrapping


def member_of(path: Path) -> str | None:
    """The name of the one text file in a zip archive, None for what is no archive.

    Raises FormatError where there are several, or none.
    """
    if containers.container(path) != "zip":
        return None
    found = [name for name in containers.members(path) if Path(name).suffix.lower() in _TEXT_SUFFIXES]
    if len(found) != 1:
        raise FormatError(path, f"{len(found)} text files in the archive", "exactly one")
    return found[0]


def first_text(path: Path, head: bytes | None = None) -> str | None:
    """The beginning of a text file; None where its first line is no text."""
    if head is None or containers.container(path) == "zip":
        try:
            head = containers.head(path, member_of(path))
        except FormatError:
            return None
    line, end, rest = head.partition(b"\n")
    if b"\0" in line:
        return None
    try:
        return (line + end).decode() + rest.decode(errors="replace")
    except UnicodeDecodeError:
        return None


def first_line(text: str) -> str:
    """The first line that is not empty."""
    return next((line for line in re.split(r"[\r\n]+", text) if line.strip()), "")


def delimiter_of(line: str) -> str:
    """What stands most often between the cells of a line."""
    return max(DELIMITERS, key=line.count)


def cells_of(line: str, delimiter: str) -> list[str]:
    """The cells of a line."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


class _Stream(io.RawIOBase):
    """Blocks as a file that Arrow can read."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.blocks, self._rest = blocks, b""
        self.last = b""  # byte that was given

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = next(self.blocks, b"")
        given = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(given) :]
        self.last = given[-1:] or self.last
        return given


def _whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, cut behind line ends."""
    rest = b""
    for block in blocks:
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = b""
        rest += block[end:]
    if rest:
        yield rest


def _chunks(lines: Iterator[bytes], count: int = 1 << 13) -> Iterator[list[bytes]]:
    while some := list(islice(lines, count)):
        yield some


class _Lines(Foreign):
    """A text file: what several kinds of it share."""

    _first_row = 1  # line of the first record

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.member = member_of(path)
        text = first_text(path)
        if text is None or not text.strip():
            found = "bytes that are no text" if text is None else "nothing in it"
            raise FormatError(path, found, "order flow data")
        if "\n" not in text:  # is it all of the first line, or where the file ends early?
            deque(containers.blocks(path, self.member), maxlen=0)
        self._text = text

    def stream(self, until: int | None = None) -> _Stream:
        """All of it, decompressed, or the lines before one (1-based)."""
        if until is None:
            return _Stream(containers.blocks(self.path, self.member, size=BATCH_BYTES))
        lines = islice(self.lines(), until - 1)
        return _Stream(b"\n".join(some) + b"\n" for some in _chunks(lines))

    def lines(self) -> Iterator[bytes]:
        """Line by line."""
        rest = b""
        for block in containers.blocks(self.path, self.member, size=BATCH_BYTES):
            lines = (rest + block).splitlines(keepends=True)
            rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
            yield from (line.rstrip(b"\r\n") for line in lines)
        yield from rest.splitlines()

    def error(self, index: int, found: str, expected: str) -> FormatError:
        return FormatError(self.path, found, expected, self._physical(index + self._first_row))

    def batches(self, columns: dict[str, Role]) -> Iterator[pa.RecordBatch]:
        given, fault = 0, None
        try:
            for batch in self._read(self.stream(), columns):
                yield batch
                given += batch.num_rows
        except pa.ArrowInvalid as error:
            fault = self._fault(containers.said(error), columns)
        if fault is not None:
            yield from self._before(fault, columns, given)
            raise fault

    def _before(self, fault: FormatError, columns: dict[str, Role], given: int) -> Iterator[pa.RecordBatch]:
        """Rows before a broken one that are not given yet: Arrow drops the whole block with it.

        Raises FormatError where one of them is broken in another way.
        """
        seen, earlier = 0, None
        if fault.row is None or fault.row <= self._first_row:
            return
        try:
            for batch in self._read(self.stream(until=fault.row), columns):
                yield batch.slice(max(0, given - seen))
                seen += batch.num_rows
        except pa.ArrowInvalid as error:
            earlier = self._fault(containers.said(error), columns)
        if earlier is not None and (earlier.row or 0) < fault.row:
            yield from self._before(earlier, columns, max(given, seen))
            raise earlier

    def _read(self, stream: _Stream, columns: dict[str, Role]) -> Iterator[pa.RecordBatch]:
        """Batches as Arrow reads them; ArrowInvalid where it can't."""
        raise NotImplementedError

    def _fault(self, said: str, columns: dict[str, Role]) -> FormatError:
        """What is wrong where Arrow said so, with the row if it can be found."""
        raise NotImplementedError

    def _first_without_text(self) -> int | None:
        for row, line in enumerate(self.lines(), start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return row
        return None

    def _physical(self, number: int) -> int:
        """The line that is the `number`-th not empty one; both are 1-based."""
        met = 0
        for row, line in enumerate(self.lines(), start=1):
            met += bool(line)
            if met == number:
                return row
        return number


# ------------------------------------------------------------------ CSV


class Csv(_Lines):
    """Delimited text, with a header or with the names that were given for one."""

    def __init__(self, path: Path, delimiter: str | None = None, header: Iterable[str] | None = None) -> None:
        super().__init__(path)
        line = first_line(self._text)
        if not self._text.startswith(line):
            raise FormatError(path, "an empty line", "a header", row=1)
        self.delimiter = delimiter or delimiter_of(line)
        self.headless = header is not None
        self._first_row = 1 if self.headless else 2
        self.names = list(header) if header is not None else cells_of(line, self.delimiter)
        twice = [name for name in dict.fromkeys(self.names) if self.names.count(name) > 1]
        if twice:
            found = f"the column {twice[0]} {self.names.count(twice[0])} times"
            raise FormatError(path, found, "each name once", row=None if self.headless else 1)

    def _read(self, stream: _Stream, columns: dict[str, Role]) -> Iterator[pa.RecordBatch]:
        from pyarrow import csv as arrow_csv

        types = {name: _NAMES if role == "name" else pa.string() for name, role in columns.items()}
        yield from arrow_csv.open_csv(
            stream,
            arrow_csv.ReadOptions(
                use_threads=False,  # for the row in what it says
                block_size=BATCH_BYTES,
                column_names=self.names,
                skip_rows_after_names=0 if self.headless else 1,
            ),
            arrow_csv.ParseOptions(delimiter=self.delimiter),
            arrow_csv.ConvertOptions(include_columns=list(columns), column_types=types),
        )
        ended = stream.last in (b"\n", b"\r")
        self.faults[:] = [] if ended else [without_end(sum(1 for _ in self.lines()))]

    def _fault(self, said: str, columns: dict[str, Role]) -> FormatError:
        if "UTF8" in said:
            row = self._first_without_text()
            return FormatError(self.path, "bytes that are no text", "text in UTF-8", row)
        if _TOO_LONG in said:
            return FormatError(self.path, "a row that doesn't end", f"rows of at most {BATCH_BYTES:,} bytes")
        row = _ROW.search(said)
        number = None if row is None else self._physical(int(row[1]))
        if width := _WIDTH.search(said):
            return FormatError(self.path, f"{width[2]} cells", f"{width[1]}, as in the header", number)
        return FormatError(self.path, _PLACE.sub("", said), "delimited text", number)


# ------------------------------------------------------------------ NDJSON


class Ndjson(_Lines):
    """One JSON object a line. Its names are those of the first lines; a field may be missing in any."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._kinds: dict[str, type | None] = {}  # of the first value that is not null
        for line in re.split(r"[\r\n]+", self._text):
            try:
                record = json.loads(line)
            except ValueError:  # the last is cut, or all will be said of it when it is read
                continue
            for name, value in record.items() if isinstance(record, dict) else ():
                if self._kinds.get(name) is None:
                    self._kinds[name] = None if value is None else type(value)
        self.names = list(self._kinds)
        if not self.names:
            raise FormatError(path, repr(first_line(self._text)[:40]), "one JSON object a line", row=1)

    def _read(self, stream: _Stream, columns: dict[str, Role]) -> Iterator[pa.RecordBatch]:
        from pyarrow import json as arrow_json

        plain = partial(
            _plain, {field.name.encode() for field in self._schema(columns) if field.type == _EXACT}
        )
        for batch in arrow_json.open_json(
            _Stream(_without_exponents(lines, plain) for lines in _whole_lines(stream.blocks)),
            arrow_json.ReadOptions(use_threads=False, block_size=BATCH_BYTES),
            arrow_json.ParseOptions(
                explicit_schema=self._schema(columns), unexpected_field_behavior="ignore"
            ),
        ):
            batch.validate(full=True)  # text may be no UTF-8
            yield batch

    def _schema(self, columns: dict[str, Role]) -> pa.Schema:
        """Text as text, numbers exactly, not as the doubles that JSON readers make of them."""
        number: dict[Role, pa.DataType] = {"name": pa.int64(), "id": pa.uint64(), "number": _EXACT}
        types = {bool: pa.bool_()}
        return pa.schema(
            [
                (
                    name,
                    number[role]
                    if (kind := self._kinds.get(name)) in (int, float)
                    else types.get(kind, pa.string()),
                )
                for name, role in columns.items()
            ]
        )

    def _fault(self, said: str, columns: dict[str, Role]) -> FormatError:
        """Go through the lines one by one; slow, and only when something is known to be wrong."""
        schema = self._schema(columns)
        for row, line in enumerate(self.lines(), start=1):
            if line and (fault := _fault_of(line, schema)) is not None:
                return FormatError(self.path, *fault, row)
        return FormatError(self.path, said, "one JSON object a line")


def _fault_of(line: bytes, schema: pa.Schema) -> tuple[str, str] | None:
    """What is wrong with a line: (found, expected)."""
    try:
        record = json.loads(line, parse_float=_number, parse_int=_number)
    except UnicodeDecodeError:
        return "bytes that are no text", "text in UTF-8"
    except ValueError:
        return repr(line[:40].decode(errors="replace")), "a JSON object"
    if not isinstance(record, dict):
        return f"a JSON {type(record).__name__}", "a JSON object"
    for field in schema:
        value = record.get(field.name)
        if value is not None and not _FITS[field.type](value):
            found = str(value) if isinstance(value, Decimal) else json.dumps(value, default=str)
            return f"{field.name} {found[:40]}", f"{_EXPECTED[field.type]}, as in the lines before"
    return None


def _number(text: str) -> int | Decimal | str:
    """A number of JSON as what it says, or as text where it is longer than any of ours."""
    if not numbers.is_number(text):
        return text
    return int(text) if text.lstrip("-").isdigit() else Decimal(text)


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_exact(value: Any) -> bool:
    """Whether 20 digits before the point and 18 behind it hold a number, or a text of one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return False
    try:
        number = numbers.fraction_of(str(value))
    except ValueError:
        return False
    return abs(number) < 10**20 and (number * 10**18).denominator == 1


def _without_exponents(lines: bytes, plain: Callable[[re.Match[bytes]], bytes]) -> bytes:
    """Lines in which every number is one that Arrow reads as what it says; mostly the same lines."""
    shapes = lines.translate(_SHAPES)
    return _VALUE.sub(plain, lines) if any(suspect in shapes for suspect in _SUSPECT) else lines


def _plain(names: set[bytes], value: re.Match[bytes]) -> bytes:
    """A number of some columns without its exponent; one that doesn't fit is made text, which is none."""
    start = value.start()
    key = _KEY.search(value.string, max(0, start - _LONGEST_KEY), start)
    if key is None or key[1] not in names:
        return value[0]
    space, quote, text = value.groups()
    if not _is_exact(text.decode()):
        return b':%b"?"' % space
    return b":%b%b%b%b" % (space, quote, f"{Decimal(text.decode()):f}".encode(), quote)


_FITS: dict[pa.DataType, Callable[[Any], bool]] = {
    pa.string(): lambda value: isinstance(value, str),
    pa.bool_(): lambda value: isinstance(value, bool),
    pa.int64(): lambda value: _is_whole(value, -(2**63), 2**63 - 1),
    pa.uint64(): lambda value: _is_whole(value, 0, 2**64 - 1),
    _EXACT: _is_exact,
}


# ------------------------------------------------------------------ Parquet and Arrow IPC


class Native(Foreign):
    """A table of any columns in Parquet or Arrow IPC."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = native.native_file(path)
        self.names = list(self._file.schema.names)
        self.num_rows = self._file.num_rows()

    def batches(self, columns: dict[str, Role]) -> Iterator[pa.RecordBatch]:
        with native.broken(self.path, containers.container(self.path)):
            for table in self._file.batches(BATCH_ROWS):
                yield from table.select(list(columns)).combine_chunks().to_batches()
