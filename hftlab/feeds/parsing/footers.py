"""Whether a Parquet or Arrow IPC file is one file: nothing is in it that its footer doesn't know of.

Of two files joined into one the last footer is believed, and its offsets then point into the first file: rows
of the one are read as those of the other, or are left out. Both kinds put what they have one behind the
other, and the footer last. So between the end of what the footer tells of and the footer there is nothing,
or an end mark; as many bytes as there are more were joined to its front.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

_SLACK = 64  # bytes: an end mark, and what may align a footer; no file is as short
_INT, _SHORT, _BLOCK = struct.Struct("<i"), struct.Struct("<H"), struct.Struct("<qi4xq")
ARROW, PARQUET = b"ARROW1", b"PAR1"


def check(path: Path, magic: bytes) -> None:
    """Raises ArrowInvalid where more was joined to the front of a file that ends with `magic`."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(size - len(magic) - 4)
        (length,) = _INT.unpack(file.read(4))
        start = size - len(magic) - 4 - length
        file.seek(start)
        footer = file.read(length)
        try:
            end = _end_of_pages(file, footer) if magic == PARQUET else _end_of_batches(footer)
        except (IndexError, KeyError, TypeError, RecursionError, ValueError, struct.error):
            raise pa.ArrowInvalid("a footer that can't be read") from None
    if start - end > _SLACK:
        raise pa.ArrowInvalid(f"{start - end:,} bytes that its footer doesn't know of: two files in one?")


# ------------------------------------------------------------------ Parquet: Thrift's compact form

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_ROW_GROUPS, _COLUMNS, _METADATA = 4, 1, 3  # fields of the footer, of a row group, of a column
_OFFSET_INDEX, _COLUMN_INDEX = 4, 6  # of a column: where it is; the next field is how long
_PAGES_SIZE, _FIRST_PAGE, _DICTIONARY, _BLOOM, _BLOOM_SIZE = 7, 9, 11, 14, 15  # of its metadata
_BITS_SIZE = 1  # of a Bloom filter's header


def _end_of_pages(file: IO[bytes], footer: bytes) -> int:
    """Where the last page, index or filter ends."""
    end = len(PARQUET)
    for group in _Compact(footer).struct()[_ROW_GROUPS]:
        for column in group[_COLUMNS]:
            about = column.get(_METADATA, {})
            start = min(filter(None, (about.get(_FIRST_PAGE), about.get(_DICTIONARY))), default=end)
            end = max(end, start + about.get(_PAGES_SIZE, 0), _end_of_filter(file, about))
            for index in (_OFFSET_INDEX, _COLUMN_INDEX):
                end = max(end, column.get(index, 0) + column.get(index + 1, 0))
    return end


def _end_of_filter(file: IO[bytes], about: dict[int, Any]) -> int:
    start = about.get(_BLOOM)
    if start is None:
        return 0
    if _BLOOM_SIZE in about:
        return start + about[_BLOOM_SIZE]
    file.seek(start)  # older writers say it in the filter's header alone
    header = _Compact(file.read(_SLACK))
    return start + header.struct()[_BITS_SIZE] + header.at


class _Compact:
    """Thrift's compact protocol, as far as it takes to find numbers in structs and lists of them."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def struct(self) -> dict[int, Any]:
        """Values by field."""
        fields, field = {}, 0
        while (head := self._byte()) != 0:
            delta, kind = head >> 4, head & 15
            field = field + delta if delta else self._number()
            fields[field] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind == _BINARY:
            length = self._varint()
            self.at += length
        elif kind == _DOUBLE:
            self.at += 8
        elif kind == _STRUCT:
            return self.struct()
        elif kind in (_LIST, _SET):
            return self._list()
        elif kind == _MAP:
            if size := self._varint():
                kinds = self._byte()
                return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(size)]
        elif kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        else:
            return self._number()
        return None

    def _list(self) -> list[Any]:
        head = self._byte()
        size = head >> 4 if head >> 4 != 15 else self._varint()
        return [self._value(head & 15) for _ in range(size)]

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
        return value | byte << shift

    def _number(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


# ------------------------------------------------------------------ Arrow IPC: a flatbuffer

_DICTIONARIES, _BATCHES = 2, 3  # fields of the footer


def _end_of_batches(footer: bytes) -> int:
    """Where the last dictionary or record batch ends."""
    ends = [*_blocks(footer, _DICTIONARIES), *_blocks(footer, _BATCHES)]
    return max(ends, default=len(footer) + _SLACK)  # a schema alone, which the footer repeats


def _blocks(footer: bytes, field: int) -> list[int]:
    """Where each block of a list in the footer ends."""
    (root,) = _INT.unpack_from(footer, 0)
    table = root - _INT.unpack_from(footer, root)[0]  # where the places of its fields are
    place = 4 + 2 * field
    at = _SHORT.unpack_from(footer, table + place)[0] if place < _SHORT.unpack_from(footer, table)[0] else 0
    if not at:
        return []
    at += root
    at += _INT.unpack_from(footer, at)[0]
    (count,) = _INT.unpack_from(footer, at)
    places = range(at + 4, at + 4 + count * _BLOCK.size, _BLOCK.size)
    return [sum(_BLOCK.unpack_from(footer, place)) for place in places]  # offset, metadata, body
