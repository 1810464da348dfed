"""A 64-ary bitmap over level indices: which price levels hold orders, and the next one below.

Three floors: a bit of `words` per level, a bit of `blocks` per word, a bit of `regions` per block. A
region covers 262,144 levels, so the linear walk over regions at the top is short.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels.primitives.compile import helper
from hftlab.kernels.primitives.intrinsics import highest_bit, ix, likely

NONE = -1


class Bitmap(NamedTuple):
    """Three floors of int64 words."""

    words: np.ndarray
    blocks: np.ndarray
    regions: np.ndarray


def make_bitmap(size: int) -> Bitmap:
    """An empty bitmap of `size` bits."""
    words = (size + 63) // 64
    blocks = (words + 63) // 64
    regions = (blocks + 63) // 64
    return Bitmap(*(np.zeros(n, np.int64) for n in (words, blocks, regions)))


@helper
def set_bit(bitmap, index):
    """Mark `index`."""
    word, block = index >> 6, index >> 12
    if not likely(bitmap.words[ix(word)] != 0):
        if bitmap.blocks[ix(block)] == 0:
            bitmap.regions[ix(block >> 6)] |= np.int64(1) << (block & 63)
        bitmap.blocks[ix(block)] |= np.int64(1) << (word & 63)
    bitmap.words[ix(word)] |= np.int64(1) << (index & 63)


@helper
def clear_bit(bitmap, index):
    """Unmark `index`, which is marked."""
    word, block = index >> 6, index >> 12
    bitmap.words[ix(word)] ^= np.int64(1) << (index & 63)
    if bitmap.words[ix(word)] == 0:
        bitmap.blocks[ix(block)] ^= np.int64(1) << (word & 63)
        if bitmap.blocks[ix(block)] == 0:
            bitmap.regions[ix(block >> 6)] ^= np.int64(1) << (block & 63)


@helper
def below(word, bit):
    """The bits of a word below `bit`."""
    return word & ((np.int64(1) << bit) - np.int64(1))


@helper
def previous_bit(bitmap, index):
    """The highest set bit below `index`, or NONE."""
    word = index >> 6
    found = below(bitmap.words[ix(word)], index & 63)
    if found != 0:
        return (word << 6) | highest_bit(found)
    return previous_word(bitmap, word)


@helper
def previous_word(bitmap, word):
    """The highest set bit in a word below `word`, or NONE."""
    block = word >> 6
    found = below(bitmap.blocks[ix(block)], word & 63)
    if found == 0:
        region = block >> 6
        found = below(bitmap.regions[ix(region)], block & 63)
        while found == 0:
            region -= 1
            if region < 0:
                return NONE
            found = bitmap.regions[region]
        block = (region << 6) | highest_bit(found)
        found = bitmap.blocks[block]
    word = (block << 6) | highest_bit(found)
    return (word << 6) | highest_bit(bitmap.words[ix(word)])
