"""HdrHistogram's forms of a histogram on disk: the V2 compressed counts, and the interval log around them.

Counts are ZigZag LEB128 numbers of at most nine bytes; a negative one is a run of empty buckets. Before them
stand 40 bytes of settings; both are compressed by zlib behind a cookie and a length, and base64 makes a line
of it.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hftlab.errors import FormatError, UsageError

COOKIE, COMPRESSED_COOKIE = 0x1C849313, 0x1C849314  # V2: counts of any size
OUTER, INNER = struct.Struct(">II"), struct.Struct(">IIIIQQd")
MAX_BYTES = 9  # of one count
MAX_HIGHEST = 2**63 - 1
VERSION = "#[Histogram log format version 1.3]"
LEGEND = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'
_INTERVAL = re.compile(r"(?:Tag=([^,\s]+),)?([\d.]+),([\d.]+),([\d.]+),(\S+)")
_BASE_TIME = re.compile(r"#\[BaseTime: *([\d.]+) ")
_TAG = re.compile(r"[^,\s]+")
WHERE = "histogram"


class Payload(NamedTuple):
    """What the compressed form holds."""

    counts: np.ndarray  # int64 by bucket
    digits: int
    highest: int


def _numbers(counts: np.ndarray) -> Iterator[int]:
    """Counts up to the last in use; a run of empty buckets is one negative number."""
    done = 0
    for index in np.flatnonzero(counts).tolist():
        if index > done:
            yield done - index
        yield int(counts[index])
        done = index + 1


def _put_number(out: bytearray, number: int) -> None:
    rest = (number << 1) ^ (number >> 63)  # ZigZag: small magnitudes of either sign are small
    for _ in range(MAX_BYTES - 1):
        if rest < 0x80:
            break
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)  # the ninth byte holds eight bits


def pack(payload: Payload) -> bytes:
    """The compressed form in base64."""
    numbers = bytearray()
    for number in _numbers(payload.counts):
        _put_number(numbers, number)
    header = INNER.pack(COOKIE, len(numbers), 0, payload.digits, 1, payload.highest, 1.0)
    body = zlib.compress(header + bytes(numbers))
    return base64.b64encode(OUTER.pack(COMPRESSED_COOKIE, len(body)) + body)


def _wrong(found: str, expected: str) -> FormatError:
    return FormatError(WHERE, found, expected)


def unpack(text: bytes | str, length_of: Callable[[int, int], int]) -> Payload:
    """What `pack` packed; `length_of(highest, digits)` is how many counts there are. Raises FormatError."""
    body = _inflated(text)
    if len(body) < INNER.size:
        raise _wrong(f"{len(body)} bytes of settings and counts", f"at least {INNER.size}")
    cookie, length, offset, digits, lowest, highest, ratio = INNER.unpack_from(body)
    if cookie & ~0xF0 != COOKIE & ~0xF0:
        raise _wrong(f"cookie {cookie:#x} of the counts", f"{COOKIE:#x}")
    if digits not in range(1, 6):
        raise _wrong(f"{digits} significant digits", "1 to 5")
    if lowest != 1 or not 2 <= highest <= MAX_HIGHEST:
        raise _wrong(f"values from {lowest} to {highest}", "from 1 to something below 2^63")
    if offset != 0 or ratio != 1.0:
        raise _wrong(f"index offset {offset}, conversion ratio {ratio}", "0 and 1")
    if INNER.size + length != len(body):
        raise _wrong(f"{len(body) - INNER.size} bytes of counts", f"{length}, as in the settings")
    return Payload(_counts(body, length_of(highest, digits)), digits, highest)


def _inflated(text: bytes | str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong("text that is no base64", f"base64 ({error})") from None
    if len(raw) < OUTER.size:
        raise _wrong(f"{len(raw)} bytes", f"at least {OUTER.size}")
    cookie, length = OUTER.unpack_from(raw)
    if cookie & ~0xF0 != COMPRESSED_COOKIE & ~0xF0:
        raise _wrong(f"cookie {cookie:#x}", f"{COMPRESSED_COOKIE:#x}, a V2 compressed histogram")
    if length != len(raw) - OUTER.size:
        raise _wrong(f"{len(raw) - OUTER.size} compressed bytes", f"{length}, as in the header")
    inflate = zlib.decompressobj()
    try:  # bounded: a few compressed bytes can be gigabytes of zeros
        body = inflate.decompress(raw[OUTER.size :], INNER.size + MAX_BYTES * (1 << 23))
    except zlib.error as error:
        raise _wrong(str(error), "zlib") from None
    if not inflate.eof:
        raise _wrong("a zlib stream that doesn't end", "whole counts")
    return body


def _counts(body: bytes, size: int) -> np.ndarray:
    counts, bucket = np.zeros(size, np.int64), 0
    total = 0
    for number in _read_numbers(body):
        if number < 0:  # a run of empty buckets
            bucket -= number
        else:
            if bucket < size:
                counts[bucket] = number
            bucket, total = bucket + 1, total + number
        if bucket > size:
            raise _wrong(f"counts for {bucket} buckets or more", f"at most {size}")
    if total > MAX_HIGHEST:
        raise _wrong(f"{total} values", "fewer than 2^63")
    return counts


def _read_numbers(body: bytes) -> Iterator[int]:
    offset = INNER.size
    while offset < len(body):
        rest = 0
        for index in range(MAX_BYTES):
            if offset == len(body):
                raise _wrong("a count that is cut off", "whole counts")
            byte = body[offset]
            offset += 1
            last = index == MAX_BYTES - 1  # the ninth byte holds eight bits
            rest |= (byte if last else byte & 0x7F) << 7 * index
            if last or byte < 0x80:
                break
        yield (rest >> 1) ^ -(rest & 1)


def log_lines(intervals: Iterable[tuple[str | None, float, float, float, bytes]]) -> Iterator[str]:
    """An interval log of (tag, start in s since the epoch, length in s, largest value, packed counts).

    Raises UsageError for a tag with a comma or a blank in it.
    """
    rows = list(intervals)
    yield VERSION
    yield f"#[StartTime: {rows[0][1] if rows else 0.0:.3f} (seconds since epoch)]"
    yield LEGEND
    for tag, start, length, largest, text in rows:
        if tag is not None and not _TAG.fullmatch(tag):
            raise UsageError(f"tag: found {tag!r}, expected a name without commas and blanks")
        name = "" if tag is None else f"Tag={tag},"
        yield f"{name}{start:.6f},{length:.6f},{largest:.3f},{text.decode()}"


def read_log(path: str | Path) -> Iterator[tuple[int, str | None, float, float, str]]:
    """(line, tag, start in s, length in s, packed counts) of each interval. Raises FormatError."""
    base = 0.0
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(path, str(error), "a histogram log") from None
    for number, line in enumerate(lines, 1):
        found = _BASE_TIME.match(line)
        if found:
            base = float(found[1])
        if not line.strip() or line[0] in '#"':
            continue
        interval = _INTERVAL.fullmatch(line.strip())
        times = None if interval is None else _times(interval[2], interval[3])
        if interval is None or times is None:
            raise FormatError(path, repr(line[:60]), "[Tag=name,]start,length,max,histogram", number)
        yield number, interval[1], times[0] + base, times[1], interval[5]


def _times(start: str, length: str) -> tuple[float, float] | None:
    """Both as seconds; None for what only looks like a number: 1.2.3."""
    try:
        return float(start), float(length)
    except ValueError:
        return None
