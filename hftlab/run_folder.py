"""Results on disk that appear whole or not at all.

Everything is written beside its target under a hidden name, forced to the disk, then renamed. A full
disk, an error or Ctrl-C in the middle leaves nothing that could be mistaken for a result.

    with RunWriter("run") as run:            # a run folder, table by table, chunk by chunk
        run.append("fills", fills)
        run.commit(manifest(digest=..., counts=..., wall_time_s=..., input_path=...))

    with new_file("flow.parquet") as path:   # a single file
        pq.write_table(table, path)
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from hftlab.errors import OutputError, UsageError

MANIFEST = "manifest.json"
COMPRESSION = "zstd"
DEPENDENCIES = ("numba", "numpy", "polars", "pyarrow")


class RunWriter:
    """A run folder being written; it appears under its name when `commit` returns.

    ``append(name, table)`` adds rows to ``name.parquet`` (an empty table makes an empty file), so a
    chunked replay never holds its results. Dictionary columns stay dictionaries. Leaving the ``with``
    block without ``commit``, for whatever reason, removes everything.

    Raises OutputError when the target exists already or can't be written.
    """

    def __init__(self, target: str | Path) -> None:
        self.target = Path(target)
        check_target(self.target)
        self._partial = _beside(self.target)
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._rows: dict[str, int] = {}

    def __enter__(self) -> Self:
        check_target(self.target)
        with _output_errors(self.target):
            _remove(self._partial)  # of a killed process that had our number
            self._partial.mkdir()
        return self

    def append(self, name: str, table: pa.Table) -> None:
        """Add the rows of a table; every table of one name has the same schema."""
        with _output_errors(self.target):
            if name not in self._writers:
                path = self._partial / f"{name}.parquet"
                self._writers[name] = pq.ParquetWriter(
                    path, table.schema, compression=COMPRESSION, write_page_checksum=True
                )
                self._rows[name] = 0
            self._writers[name].write_table(table)
        self._rows[name] += table.num_rows

    def missing(self, name: str) -> bool:
        """Whether nothing has been appended to a table."""
        return name not in self._rows

    def commit(self, manifest: Mapping[str, Any]) -> None:
        """Finish the tables, write the manifest (with each table's row count) and give it its name."""
        with _output_errors(self.target):
            self._close()
            text = json.dumps({**manifest, "tables": self._rows}, indent=2, default=str)
            (self._partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
            for path in self._partial.iterdir():
                _force_to_disk(path)
            _force_to_disk(self._partial)
            check_target(self.target)  # it may have appeared meanwhile, and an empty one would be replaced
            self._partial.rename(self.target)
            _force_to_disk(self.target.parent)

    def _close(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()

    def __exit__(self, *_: object) -> None:
        while self._writers:
            try:
                self._close()
            except (OSError, pa.ArrowException):  # the disk is still full: the file goes anyway
                continue
        _remove(self._partial)


def write_run(
    target: str | Path, tables: Mapping[str, pa.Table | Iterable[pa.Table]], manifest: Mapping[str, Any]
) -> None:
    """Write a run folder in one go: a Parquet file per table (given whole or in parts) and the manifest.

    Raises OutputError when the target exists already or can't be written.
    """
    with RunWriter(target) as run:
        for name, parts in tables.items():
            for part in [parts] if isinstance(parts, pa.Table) else parts:
                run.append(name, part)
        run.commit(manifest)


def write_table(target: str | Path, parts: Iterable[pa.Table]) -> int:
    """Write one table, given in parts, as Parquet or Arrow IPC by the target's suffix; return its rows.

    Parquet is written part by part; an Arrow file has one dictionary per column, so it is gathered first.

    Raises UsageError for another suffix, OutputError when it can't be written.
    """
    suffix = Path(target).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{target}: found the suffix {suffix or 'missing'}, expected {' or '.join(SUFFIXES)}"
        )
    with new_file(target) as path:
        return SUFFIXES[suffix](path, parts)


def _write_parquet(path: Path, parts: Iterable[pa.Table]) -> int:
    parts = iter(parts)
    first = next(parts)
    with pq.ParquetWriter(path, first.schema, compression=COMPRESSION, write_page_checksum=True) as writer:
        rows = 0
        for part in chain([first], parts):
            writer.write_table(part)
            rows += part.num_rows
    return rows


def _write_arrow(path: Path, parts: Iterable[pa.Table]) -> int:
    table = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    return table.num_rows


SUFFIXES = {
    ".parquet": _write_parquet,
    ".pq": _write_parquet,
    ".arrow": _write_arrow,
    ".feather": _write_arrow,
    ".ipc": _write_arrow,
}


@contextmanager
def new_file(target: str | Path) -> Iterator[Path]:
    """The path to write to; the file takes its real name (over an older one) when the block ends well.

    Raises OutputError when it can't be written.
    """
    target = Path(os.path.realpath(target))
    if target.exists() and not target.is_file():
        raise OutputError(f"{target}: is no regular file; choose another output")
    _check_parent(target)
    partial = _beside(target)
    try:
        with _output_errors(target):
            yield partial
            _force_to_disk(partial)
            partial.replace(target)
            _force_to_disk(target.parent)
    finally:
        _remove(partial)


def check_target(target: str | Path) -> None:
    """Whether a run folder can be made here; ask before hours of work rather than after.

    Raises OutputError when it exists already or its parent isn't a folder one can write to.
    """
    target = Path(target)
    if os.path.lexists(target):
        raise OutputError(f"{target}: exists already; choose another output or remove it")
    _check_parent(target)


def manifest(
    *,
    digest: str,
    counts: Mapping[str, Any],
    wall_time_s: Mapping[str, float],
    input_path: str | Path | None = None,
    config: Any = None,
) -> dict[str, Any]:
    """What a run was made from and by: input and its hash, settings, versions, machine, counts, digest.

    ``input_path`` is None for a table in memory; ``config`` is anything JSON can hold.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "input": None if input_path is None else _describe(Path(input_path)),
        "config": config,
        "digest": digest,
        "counts": dict(counts),
        "wall_time_s": dict(wall_time_s),
        "versions": versions(),
        "cpu": cpu_name(),
    }


def versions() -> dict[str, str]:
    """hftlab, Python and the libraries whose version can change a result or its speed."""
    import hftlab

    found = {name: version(name) for name in DEPENDENCIES}
    return {"hftlab": hftlab.__version__, "python": platform.python_version(), **found}


def cpu_name() -> str:
    """The processor as it calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _describe(path: Path) -> dict[str, Any]:
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)}


def sha256_of(path: Path) -> str:
    """The hash by which a run folder knows its input again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_parent(target: Path) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"{target}: there is no folder {target.parent} to write it to")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: the folder {target.parent} isn't writable")


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.stem}.partial-{os.getpid()}{target.suffix}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _force_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _output_errors(target: Path) -> Iterator[None]:
    """Whatever the system says while we write becomes one line that names the target."""
    try:
        yield
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise OutputError(f"{target}: can't be written: {said.lower()}; nothing was left behind") from error
