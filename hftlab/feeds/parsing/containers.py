"""Bytes out of plain, gzip, xz, zstd and zip files; every way a file can be broken becomes one line.

A feed asks for the first bytes (to recognise its format), for all of them, or for one block after the
other in bounded memory; what the container is comes from the content. A name that says otherwise is an
error: whoever named the file believed something about it that isn't true. A byte order mark (UTF-8) before
text is left out.
"""

from __future__ import annotations

import gzip
import lzma
import mmap
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from hftlab.errors import FormatError, InputError, UsageError, printable

BLOCK_BYTES = 1 << 24
WINDOW_BYTES = 1 << 26  # of a plain file that are mapped at a time: a whole one would count as memory in use
HEAD_BYTES = 1 << 16  # enough to recognise a format, and for the first row of a 200-level book

_MAGIC = {
    b"\xfd7zXZ\x00": "xz",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # an archive with nothing in it
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow IPC",
}
_CLAIMS = {
    ".xz": "xz",
    ".gz": "gzip",
    ".zip": "zip",
    ".zst": "zstd",
    ".csv": "text",
    ".txt": "text",
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".arrow": "Arrow IPC",
    ".feather": "Arrow IPC",
    ".ipc": "Arrow IPC",
}
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)  # a zstd frame without content: pzstd's first
_STREAM_MAGIC = b"\xff\xff\xff\xff"  # an Arrow IPC stream has no magic, only its continuation mark
_ZSTD_ENDS_EARLY = "Truncated compressed stream"  # Arrow's words
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PIECE_BYTES = 1 << 20
_COMPRESSED_BYTES = 1 << 16  # read at a time; may become a thousand times as many
_OPENERS = {
    "xz": lzma.open,
    "gzip": gzip.open,
    "zstd": lambda path, _: pa.CompressedInputStream(str(path), "zstd"),
}
_DECOMPRESSORS = {"xz": lzma.LZMADecompressor, "gzip": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS)}


class EndsEarly(FormatError):
    """A compressed file that stops in the middle: what came before is whole."""


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn what a decompressor or the system raises into an error of one line."""
    try:
        yield
    except EOFError as error:
        raise EndsEarly(path, f"broken {what} data (ends early)", f"a whole {what} file") from error
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(path, f"broken {what} data ({said(error)})", f"a whole {what} file") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        expected = "a whole zip archive without a password"
        raise FormatError(path, f"a broken zip archive ({said(error)})", expected) from error
    except OSError as error:
        if error.errno is None and what == "zstd":  # Arrow's way to say what is wrong with the content
            kind = EndsEarly if _ZSTD_ENDS_EARLY in str(error) else FormatError
            raise kind(path, f"broken zstd data ({said(error)})", "a whole zstd file") from error
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error


def container(path: Path) -> str:
    """What the content is: 'xz', 'gzip', 'zip', 'zstd', 'Parquet', 'Arrow IPC' or 'text' (none of them).

    Raises UsageError where there is no such file or it can't be read twice (a pipe), FormatError for an
    empty file and for a name that says something else.
    """
    if not path.exists():
        raise UsageError(f"{path}: there is no such file")
    if path.is_dir():
        raise UsageError(f"{path}: this is a folder, expected a file")
    if not path.is_file():
        raise UsageError(f"{path}: this is a pipe or a device, expected a file, which can be read twice")
    with reading(path, "input"), path.open("rb") as file:
        start = file.read(8)
    claim = _CLAIMS.get(path.suffix.lower())
    if not start:
        raise FormatError(path, "an empty file", f"{claim or 'order flow'} data")
    found = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "text")
    if found == "text" and start.startswith(_STREAM_MAGIC):
        found = "Arrow IPC"
    if found == "text" and _SKIPPABLE.match(start):
        found = "zstd"
    if claim and claim != found:
        content = "other content" if found == "text" else f"{found} data"
        raise FormatError(path, content, f"{claim} data, as the name says")
    return found


def inner_name(path: Path) -> str:
    """The file's name without what compressed it."""
    return path.stem if path.suffix.lower() in (".xz", ".gz", ".zst") else path.name


def members(path: Path) -> list[str]:
    """Names of the files in a zip archive."""
    with reading(path, "zip"), _archive(path) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive, which must be one: of two in one file the last alone would be read."""
    with zipfile.ZipFile(path) as archive:
        first = min((info.header_offset for info in archive.infolist()), default=0)
        if first:
            raise FormatError(path, f"{first:,} bytes before what the archive lists", "one zip archive")
        yield archive


def head(path: Path, member: str | None = None, size: int = HEAD_BYTES, *, raw: bool = False) -> bytes:
    """The first `size` bytes, decompressed; of a zip archive without `member`, the archive's own.

    Of a compressed file that stops before that, what there is; EndsEarly where there is nothing. `raw`
    counts a byte order mark among them, as a binary format must.
    """
    try:
        return _read(path, member, size, raw)
    except EndsEarly:
        return next(blocks(path, member, size, raw=raw))


def read(path: Path, member: str | None = None) -> bytes:
    """All bytes, decompressed; `member` names a file in a zip archive."""
    data = _read(path, member, -1, raw=False)
    if not data:
        raise FormatError(path, f"nothing in {member or 'it'}", "order flow data")
    return data


def blocks(
    path: Path, member: str | None = None, size: int = BLOCK_BYTES, *, raw: bool = False
) -> Iterator[bytes]:
    """All bytes, decompressed, `size` at a time (the last may be shorter), in bounded memory.

    `raw` gives a byte order mark too. Raises EndsEarly, after all that precedes was given, where a
    compressed file stops in the middle; FormatError where it is broken otherwise.
    """
    held: list[bytes] = []
    length, ends_early = 0, None
    try:
        for piece in _pieces(path, member) if raw else _unmarked(_pieces(path, member)):
            held.append(piece)
            length += len(piece)
            if length < size:
                continue
            whole = held[0] if len(held) == 1 else b"".join(held)  # a piece of the right size is not copied
            for start in range(0, length - size + 1, size):
                yield whole[start : start + size]
            held = [whole[length - length % size :]]
            length = len(held[0])
    except EndsEarly as error:
        ends_early = error
    if length:
        yield b"".join(held)
    if ends_early is not None:
        raise ends_early


def mapped(path: Path, offset: int, size: int | None = None) -> tuple[mmap.mmap, int]:
    """A window of a plain file, without copying it: (its bytes, how many of them precede `offset`).

    It has `size` bytes from `offset` on (WINDOW_BYTES where nothing is said), or what there is.
    """
    before = offset % mmap.ALLOCATIONGRANULARITY
    with reading(path, "input"), path.open("rb") as file:
        rest = path.stat().st_size - offset
        if rest <= 0:
            raise FormatError(path, f"{offset + rest:,} bytes", f"more than {offset:,}, as there were before")
        length = before + min(size or WINDOW_BYTES, rest)
        window = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=offset - before)
    if hasattr(mmap, "MADV_SEQUENTIAL"):  # not on every system
        window.madvise(mmap.MADV_SEQUENTIAL)
    return window, before


def _unmarked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same without a byte order mark before them."""
    first, ends_early = b"", None
    try:
        while len(first) < len(BYTE_ORDER_MARK) and (piece := next(pieces, None)) is not None:
            first += piece
    except EndsEarly as error:
        ends_early = error
    yield first.removeprefix(BYTE_ORDER_MARK)
    if ends_early is not None:
        raise ends_early
    yield from pieces


def _pieces(path: Path, member: str | None) -> Iterator[bytes]:
    """The decompressed content in pieces as they come."""
    kind = container(path)
    with reading(path, kind):
        if kind in _DECOMPRESSORS:
            with path.open("rb") as file:
                yield from _decompressed(file, _DECOMPRESSORS[kind])
            return
        if kind == "zstd":
            yield from _zstd(path)
            return
        with _open(path, kind, member) as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece


def _zstd(path: Path) -> Iterator[bytes]:
    """Arrow gives nothing of the read in which a file ends early, so that is done again, down to bytes."""
    given = 0
    for size in (_PIECE_BYTES, _PIECE_BYTES >> 10, 1):
        with _open(path, "zstd", None) as file:
            _skip(file, given)
            try:
                while piece := file.read(size):
                    given += len(piece)
                    yield piece
                return
            except OSError as error:
                if size == 1 or _ZSTD_ENDS_EARLY not in str(error):
                    raise


def _skip(file: IO[bytes], length: int) -> None:
    while length:
        length -= len(file.read(min(length, _PIECE_BYTES)))


def _decompressed(file: IO[bytes], start: Callable[[], Any]) -> Iterator[bytes]:
    """Streams one after the other; unlike a file object, all there is of one that ends early."""
    stream, data = start(), file.read(_COMPRESSED_BYTES)
    while data:
        yield stream.decompress(data)
        data = stream.unused_data if stream.eof else file.read(_COMPRESSED_BYTES)
        if stream.eof:
            data = (data or file.read(_COMPRESSED_BYTES)).lstrip(b"\0")  # what pads a file is no stream
            stream = start() if data else stream
    if not stream.eof:
        raise EOFError


def _read(path: Path, member: str | None, size: int, raw: bool) -> bytes:
    kind = container(path)
    with reading(path, kind), _open(path, kind, member) as file:
        data = file.read() if size < 0 else file.read(size)
        if raw or not data.startswith(BYTE_ORDER_MARK):
            return data
        return data[len(BYTE_ORDER_MARK) :] + (file.read(len(BYTE_ORDER_MARK)) if size >= 0 else b"")


@contextmanager
def _open(path: Path, kind: str, member: str | None) -> Iterator[IO[bytes]]:
    if kind == "zip" and member is not None:
        with _archive(path) as archive, archive.open(member) as file:
            yield file
    else:
        with _OPENERS.get(kind, open)(path, "rb") as file:
            yield file


def said(error: BaseException) -> str:
    """The first line of what a library said, fit for a terminal."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0])
