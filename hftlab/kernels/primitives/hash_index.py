"""Open addressing: (key, book) -> value, with linear probing and no tombstones.

It maps order ids to slots, and price pages to their place on the ladder. Any 64-bit key is legal; a
value of 0 marks a free entry. Whoever owns an index keeps it at most half full.
"""

from __future__ import annotations

import numpy as np

from hftlab.kernels.primitives.compile import helper, kernel
from hftlab.kernels.primitives.intrinsics import bare, ix

ENTRY = np.dtype([("key", "i8"), ("book", "i4"), ("value", "i4")], align=True)  # 16 bytes: four a line

_ODD = np.int64(-7046029254386353131)  # 2^64 / golden ratio: Fibonacci hashing (Knuth, TAOCP 3, 6.4)


def make_index(keys: int) -> np.ndarray:
    """An empty index with room for `keys` keys."""
    return np.zeros(max(64, 1 << int(2 * keys - 1).bit_length()), ENTRY)


@helper
def home(index, key, book):
    """Where the search for a key begins."""
    mixed = (key ^ (book << 40)) * _ODD
    return (mixed ^ (mixed >> 32)) & (index.size - 1)


@helper
def find(index, key, book):
    """Position of a key's entry, or of the free entry where it would go."""
    place = home(index, key, book)
    while index[ix(place)]["value"] != 0 and (
        index[ix(place)]["key"] != key or index[ix(place)]["book"] != book
    ):
        place = (place + 1) & (index.size - 1)
    return place


@helper
def lookup(index, key, book):
    """Value of a key, or 0."""
    return np.int64(index[ix(find(index, key, book))]["value"])


@helper
def store(index, place, key, book, value):
    """Fill the entry `find` returned."""
    index[ix(place)]["key"] = key
    index[ix(place)]["book"] = book
    index[ix(place)]["value"] = value


@helper
def discard(index, place):
    """Empty an entry and close the gap, so that no search stops short (Knuth, TAOCP 3, 6.4 R)."""
    mask = index.size - 1
    gap, probe = place, (place + 1) & mask
    while index[probe]["value"] != 0:
        start = home(index, index[probe]["key"], np.int64(index[probe]["book"]))
        if ((probe - start) & mask) >= ((probe - gap) & mask):
            store(index, gap, index[probe]["key"], index[probe]["book"], index[probe]["value"])
            gap = probe
        probe = (probe + 1) & mask
    index[gap]["value"] = 0


@kernel
def copy_index(source, target):
    """Put every entry of one index into another, larger one."""
    source, target = bare(source), bare(target)
    for i in range(source.size):
        if source[i]["value"] != 0:
            key, book = source[i]["key"], np.int64(source[i]["book"])
            store(target, find(target, key, book), key, book, source[i]["value"])


@kernel
def fill_index(index, keys, books, values):
    """Store many keys; an earlier value of the same key is replaced."""
    index = bare(index)
    for i in range(keys.size):
        book = np.int64(books[i])
        store(index, find(index, keys[i], book), keys[i], book, values[i])
