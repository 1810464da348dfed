"""Bytes with damage anywhere, for tests that a file is read as far as it goes or is an error of one line."""

from __future__ import annotations

from random import Random


def damaged(data: bytes, chance: Random, edits: int, *, values: bytes = b"", most: int = 8) -> bytes:
    """The same with so many edits: a byte changed, or up to `most` of them put in or taken out.

    `values` are bytes that come in beside any others: those of a format meet more of its reader.
    """

    def any_byte() -> int:
        return chance.choice([chance.randrange(256), *values])

    found = bytearray(data)
    for _ in range(edits):
        where, how = chance.randrange(len(found)), chance.randrange(3)
        if how == 0:
            found[where] = any_byte()
        elif how == 1:
            found[where:where] = bytes(any_byte() for _ in range(chance.randint(1, most)))
        else:
            del found[where : where + chance.randint(1, most)]
    return bytes(found)
