"""What decoders of text share: eight bytes are looked at as one word, without a branch per digit."""

from __future__ import annotations

import numpy as np

from hftlab.kernels.primitives.compile import helper
from hftlab.kernels.primitives.intrinsics import ix

NEWLINE, RETURN = b"\n\r"

_SIX_EACH = np.uint64(0x7676767676767676)  # added to a byte of 10 or more, it sets that byte's highest bit
_HIGHEST_EACH = np.uint64(0x8080808080808080)
_ZERO_EACH = 0x3030303030303030
_EVERY_FOURTH = 0x000000FF000000FF
_HUNDREDS = 100 + (1_000_000 << 32)
_ONES = 1 + (10_000 << 32)


@helper
def byte_at(data, place):
    """A byte as an integer."""
    return np.int64(data[ix(place)])


@helper
def eight_bytes(data, place):
    """Eight bytes as a word, the first one lowest (one load, which is what compilers make of this)."""
    if place + 8 <= data.size:
        return (
            byte_at(data, place)
            | byte_at(data, place + 1) << 8
            | byte_at(data, place + 2) << 16
            | byte_at(data, place + 3) << 24
            | byte_at(data, place + 4) << 32
            | byte_at(data, place + 5) << 40
            | byte_at(data, place + 6) << 48
            | byte_at(data, place + 7) << 56
        )
    word = np.int64(0)
    for i in range(data.size - place):
        word |= byte_at(data, place + i) << (8 * i)
    return word


@helper
def digits_at(data, place):
    """Eight bytes, those of digits as numbers from 0 to 9."""
    return eight_bytes(data, place) ^ _ZERO_EACH


@helper
def first_other(word):
    """The highest bit of the first byte that is not from 0 to 9; 0 where all eight are."""
    # unsigned: these sums may wrap, and signed ones are compiled as if they never did
    bits = np.uint64(word)
    others = ((bits + _SIX_EACH) | bits) & _HIGHEST_EACH
    return np.int64(others & (~others + np.uint64(1)))


@helper
def number_of(word):
    """The number of eight digits, the first one lowest in the word, as bytes from 0 to 9.

    Eight digits are four pairs, the pairs two fours: three multiplications instead of eight.
    """
    pairs = word * 10 + (word >> 8)
    number = (pairs & _EVERY_FOURTH) * _HUNDREDS + ((pairs >> 16) & _EVERY_FOURTH) * _ONES
    return (number >> 32) & 0xFFFFFFFF
