"""Native files: Parquet and Arrow IPC that already hold an `orders`, `mbo` or `mbp` table.

They are what `convert` writes and what large flows are kept in, so they are read lazily: opening looks at
the footer alone, and `Flow.batches` holds one row group or record batch at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from hftlab.errors import FormatError
from hftlab.feeds.flow import Flow, Kind
from hftlab.feeds.parsing import containers, footers
from hftlab.schema import REFILLS_KEY, TABLE_KEY

DESCRIPTION = "Parquet and Arrow IPC files with an orders, mbo or mbp table"

_NATIVE = ("Parquet", "Arrow IPC")
_STREAM_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_NEEDED: dict[Kind, set[str]] = {
    "mbo": {"ts_event", "action", "side", "price", "size", "order_id"},
    "mbp": {"ts_event", "action", "side", "price", "size"},
    "orders": {"action", "order_id"},
}


class OtherColumns(FormatError):
    """A whole file whose columns, `columns`, are those of none of our tables."""

    columns: tuple[str, ...] = ()


def sniff(path: Path, head: bytes) -> bool:
    """Whether the content is Parquet or Arrow IPC (a name that only claims so is already an error)."""
    return containers.container(path) in _NATIVE


def load(path: Path, *, format: str | None = None, symbols: Iterable[str] | None = None) -> Flow:
    """Open a native table; what it holds is in its schema's metadata, else told by its columns.

    Raises FormatError for a file that is broken, or holds another table than `format` asks for.
    """
    found = containers.container(path)
    with broken(path, found):
        file = native_file(path)
        rows, kind = file.num_rows(), _kind(path, file.schema)
    if format is not None and format != kind:
        raise FormatError(path, f"an {kind} table", f"an {format} table")
    read, batches = _guarded(file.read, path, found), _guarded_batches(file.batches, path, found)
    refills = (file.schema.metadata or {}).get(REFILLS_KEY, b"keep").decode()
    return Flow(path, kind, kind, read, symbols=symbols, batches=batches, num_rows=rows, refills=refills)


def read_table(path: Path, found: str) -> pa.Table:
    """The table of a Parquet or Arrow IPC file (which, tells `source.container`), whatever it holds.

    Raises FormatError for a broken file.
    """
    with broken(path, found):
        return (_Parquet if found == "Parquet" else _Ipc)(path).read()


def read_columns(path: Path, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """The columns of `schema` in a Parquet file that hftlab wrote, at most `rows` rows at a time.

    Raises FormatError for a broken file, and where a column is missing or of another type.
    """
    with broken(path, "Parquet"):
        file = _Parquet(path)
        for field in schema:
            found = [other.type for other in file.schema if other.name == field.name]
            if found != [field.type]:
                types = " and ".join(map(str, found))
                has = f"column {field.name} of {types}" if found else f"no column {field.name}"
                raise FormatError(path, has, f"one of {field.type}, as hftlab writes it")
        for batch in file.record_batches(rows, schema.names):
            columns = [batch.column(field.name).cast(field.type) for field in schema]  # names within lists
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def native_file(path: Path) -> _Parquet | _Ipc:
    """A Parquet or Arrow IPC file, whatever its columns. Raises FormatError for another file."""
    found = containers.container(path)
    if found not in _NATIVE:
        raise FormatError(path, f"{found} data", "a Parquet or Arrow IPC file")
    with broken(path, found):
        return _Parquet(path) if found == "Parquet" else _Ipc(path)


class _Parquet:
    """A Parquet file, opened again for each reading so that nothing stays open between."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._open = lambda: pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        with self._open() as file:
            self.schema, self._rows = _said_in_text(file.schema_arrow), file.metadata.num_rows
        footers.check(path, footers.PARQUET)

    def num_rows(self) -> int:
        return self._rows

    def read(self) -> pa.Table:
        with self._open() as file:
            table = file.read()
        table.validate(full=True)
        return pa.Table.from_arrays(table.columns, schema=self.schema).unify_dictionaries()

    def record_batches(self, rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        with self._open() as file:
            yield from _checked(file.iter_batches(rows, columns=columns))

    def batches(self, rows: int) -> Iterator[pa.Table]:
        yield from resliced(self.record_batches(rows), self.schema, rows)


class _Ipc:
    """An Arrow IPC file or stream, memory-mapped: what isn't compressed is never copied."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self._is_file = file.read(6) == b"ARROW1"
            file.seek(-min(len(_STREAM_END), path.stat().st_size), os.SEEK_END)
            if not self._is_file and file.read() != _STREAM_END:
                raise pa.ArrowInvalid("the stream has no end mark")  # Arrow itself would take it as whole
        self.schema = _said_in_text(self._open().schema)
        if self._is_file:
            footers.check(path, footers.ARROW)

    def _open(self) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
        mapped = pa.memory_map(str(self._path))
        return pa.ipc.open_file(mapped) if self._is_file else pa.ipc.open_stream(mapped)

    def _count_rows(self) -> int:
        """Of a stream, all of it: Arrow reads one, and says nothing of a second one behind it."""
        mapped = pa.memory_map(str(self._path))
        rows = sum(batch.num_rows for batch in pa.ipc.open_stream(mapped))
        if (end := mapped.tell()) < mapped.size():
            raise pa.ArrowInvalid(f"{mapped.size() - end:,} more bytes behind the end mark of the stream")
        return rows

    def _record_batches(self) -> Iterator[pa.RecordBatch]:
        reader = self._open()
        if not self._is_file:
            return _checked(reader)
        return _checked(map(reader.get_batch, range(reader.num_record_batches)))

    def num_rows(self) -> int:
        if not self._is_file:
            return self._count_rows()
        import pyarrow.dataset as ds

        return ds.dataset(self._path, format="ipc").count_rows()

    def read(self) -> pa.Table:
        return pa.Table.from_batches(self._record_batches(), self.schema).unify_dictionaries()

    def batches(self, rows: int) -> Iterator[pa.Table]:
        yield from resliced(self._record_batches(), self.schema, rows)


def _said_in_text(schema: pa.Schema) -> pa.Schema:
    """A schema without the metadata that is no text: Arrow allows that, polars panics at it."""
    return pa.schema([f.with_metadata(_text_of(f.metadata)) for f in schema], _text_of(schema.metadata))


def _text_of(metadata: dict[bytes, bytes] | None) -> dict[bytes, bytes] | None:
    return metadata and {key: value for key, value in metadata.items() if _is_text(key) and _is_text(value)}


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _checked(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Each batch checked in full (1.7 ns a row): an index outside its dictionary would crash further up."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def resliced(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """Tables of `rows` rows whatever the batches' sizes; the last may have fewer; there is at least one."""
    held: list[pa.RecordBatch] = []
    count = given = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        while count >= rows:
            table = pa.Table.from_batches(held, schema)
            yield table.slice(0, rows).unify_dictionaries()
            held, count, given = table.slice(rows).to_batches(), count - rows, given + rows
    if count or not given:
        yield pa.Table.from_batches(held, schema).unify_dictionaries()


def _kind(path: Path, schema: pa.Schema) -> Kind:
    stated = (schema.metadata or {}).get(TABLE_KEY, b"").decode(errors="replace")
    if stated and stated not in _NEEDED:
        raise FormatError(path, f"the table {stated!r}", "an orders, mbo or mbp table")
    for kind, needed in _NEEDED.items():
        if stated == kind or (not stated and needed <= set(schema.names)):
            return kind
    columns = ", ".join(schema.names[:12]) or "none"
    error = OtherColumns(path, f"columns {columns}", "at least action and order_id (orders) or those of mbo")
    error.columns = tuple(schema.names)
    raise error


@contextmanager
def broken(path: Path, found: str) -> Iterator[None]:
    """What Arrow says about a broken file, in one line."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        said = containers.said(error)
        raise FormatError(path, f"broken {found} data ({said})", f"a whole {found} file") from error


def _guarded(read: Callable[[], pa.Table], path: Path, found: str) -> Callable[[], pa.Table]:
    def guarded() -> pa.Table:
        with broken(path, found):
            return read()

    return guarded


def _guarded_batches(batches: Callable[[int], Iterator[pa.Table]], path: Path, found: str):
    def guarded(rows: int) -> Iterator[pa.Table]:
        with broken(path, found):
            yield from batches(rows)

    return guarded
