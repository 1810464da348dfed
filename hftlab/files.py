"""Files that appear whole or not at all, and what a manifest says of this machine."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import escape
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hftlab.errors import OutputError, UsageError

COMPRESSION = "zstd"


DEPENDENCIES = ("numba", "numpy", "polars", "pyarrow")


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
    remove_abandoned(target)
    partial = beside(target)
    try:
        with output_errors(target):
            yield partial
            force_to_disk(partial)
            partial.replace(target)
            force_to_disk(target.parent)
    finally:
        remove(partial)


def check_target(target: str | Path) -> None:
    """Whether a run folder can be made here; ask before hours of work rather than after.

    Raises OutputError when it exists already or its parent isn't a folder one can write to.
    """
    target = Path(target)
    if os.path.lexists(target):
        raise OutputError(f"{target}: exists already; choose another output or remove it")
    _check_parent(target)


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


def sha256_of(path: Path) -> str:
    """The hash by which a run folder knows its input again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_parent(target: Path) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"{target}: there is no folder {target.parent} to write it to")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: the folder {target.parent} isn't writable")


def beside(target: Path) -> Path:
    """The hidden name under which something is written before it gets its own."""
    before, after = _around_number(target)
    return target.with_name(f"{before}{os.getpid()}{after}")


def _around_number(target: Path) -> tuple[str, str]:
    return f".{target.stem}.partial-", target.suffix


def remove_abandoned(target: Path) -> None:
    """Take away what processes that were killed have left beside a target: those whose number nobody has."""
    before, after = _around_number(target)
    for path in target.parent.glob(f"{escape(before)}*{escape(after)}"):
        number = path.name[len(before) : len(path.name) - len(after)]
        if number.isdecimal() and not _is_running(int(number)):
            remove(path)


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is somebody else's, or no number of a process
        return True
    return True


def remove(path: Path) -> None:
    """Take a file or a folder away, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def force_to_disk(path: Path) -> None:
    """Wait until what was written to a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def output_errors(target: Path) -> Iterator[None]:
    """Whatever the system says while we write becomes one line that names the target."""
    try:
        yield
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise OutputError(f"{target}: can't be written: {said.lower()}; nothing was left behind") from error
