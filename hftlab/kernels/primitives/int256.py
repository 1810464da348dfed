"""Integers of 256 bits, for sums of money that nothing may round or wrap.

A price times a quantity takes 126 bits, a sum of 2^63 of them 189, and that times a quantity 252. Compiled,
such a number is a tuple of four words, the lowest first, and LLVM does the arithmetic in line (division too:
0.1-0.4 us, so this is for what doesn't fit in 64 bits). For NUMBA_DISABLE_JIT=1 it is a Python integer.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hftlab.codes import MAX_QTY, NOT_A_VALUE
from hftlab.kernels.primitives.compile import DISABLED, helper
from hftlab.kernels.primitives.intrinsics import ix

WORDS = 4
SMALL = 2**61  # three terms below it add up in 64 bits
TOO_LARGE = NOT_A_VALUE

_EXACT = types.UniTuple(types.int64, WORDS)
_I64, _I256 = ir.IntType(64), ir.IntType(64 * WORDS)


def _joined(builder, words):
    """The integer of four words."""
    whole = _I256(0)
    for place, word in enumerate(cgutils.unpack_tuple(builder, words)):
        whole = builder.or_(whole, builder.shl(builder.zext(word, _I256), _I256(64 * place)))
    return whole


def _split(context, builder, whole):
    words = [builder.trunc(builder.lshr(whole, _I256(64 * place)), _I64) for place in range(WORDS)]
    return context.make_tuple(builder, _EXACT, words)


def _operation(name):
    """An intrinsic: one of LLVM's instructions on two numbers."""

    @intrinsic
    def operation(typingctx, a, b):
        def codegen(context, builder, signature, args):
            a, b = (_joined(builder, words) for words in args)
            return _split(context, builder, getattr(builder, name)(a, b))

        return _EXACT(_EXACT, _EXACT), codegen

    return operation


_add, _subtract, _multiply, _divide = (_operation(name) for name in ("add", "sub", "mul", "sdiv"))


@intrinsic
def _small_product(typingctx, a, b):
    def codegen(context, builder, signature, args):
        both = builder.smul_with_overflow(*args)
        value, overflows = builder.extract_value(both, 0), builder.extract_value(both, 1)
        shifted = builder.add(value, _I64(SMALL - 1))
        outside = builder.icmp_unsigned(">=", shifted, _I64(2 * SMALL - 1))
        return builder.select(builder.or_(overflows, outside), _I64(TOO_LARGE), value)

    return types.int64(types.int64, types.int64), codegen


if DISABLED:

    def exact(value):
        """A 64-bit integer as an exact one."""
        return int(value)

    def widened(pair):
        """A pair of `int128` as an exact one."""
        return (int(pair[0]) << 64) + int(pair[1]) % 2**64

    def joined(first, second, third, fourth):
        """The number of four words, the lowest first."""
        lower = sum(int(word) % 2**64 << 64 * place for place, word in enumerate((first, second, third)))
        return lower + (int(fourth) << 192)

    def words_of(number):
        """The four words of a number, the lowest first."""
        return tuple(_signed(number >> 64 * place) for place in range(WORDS))

    def load(words, row, column):
        """The number at a place of an array [rows, columns, WORDS]."""
        *lower, highest = words[row, column].tolist()
        return sum(word % 2**64 << 64 * place for place, word in enumerate(lower)) + (highest << 192)

    def store(words, row, column, number):
        """Put a number there."""
        words[row, column] = words_of(number)

    def _signed(value):
        return np.int64((value + 2**63) % 2**64 - 2**63)

    def add(a, b):
        """a + b."""
        return a + b

    def subtract(a, b):
        """a - b."""
        return a - b

    def times(a, factor):
        """A number times a 64-bit integer."""
        return a * int(factor)

    def divide(a, b):
        """a / b, rounded toward zero."""
        quotient = abs(a) // abs(b)
        return quotient if (a < 0) == (b < 0) else -quotient

    def sign_of(number):
        """-1, 0 or 1."""
        return (number > 0) - (number < 0)

    def narrowed(number):
        """The number as an int64, or NOT_A_VALUE where none holds it."""
        return np.int64(number if -MAX_QTY <= number <= MAX_QTY else NOT_A_VALUE)

    def small_product(a, b):
        """a x b if it is SMALL either way, else TOO_LARGE."""
        product = int(a) * int(b)
        return np.int64(product if -SMALL < product < SMALL else TOO_LARGE)

else:

    @helper
    def exact(value):
        """A 64-bit integer as an exact one."""
        value = np.int64(value)
        rest = value >> 63
        return value, rest, rest, rest

    @helper
    def widened(pair):
        """A pair of `int128` as an exact one."""
        rest = pair[0] >> 63
        return pair[1], pair[0], rest, rest

    @helper
    def joined(first, second, third, fourth):
        """The number of four words, the lowest first."""
        return np.int64(first), np.int64(second), np.int64(third), np.int64(fourth)

    @helper
    def words_of(number):
        """The four words of a number, the lowest first."""
        return number

    @helper
    def load(words, row, column):
        """The number at a place of an array [rows, columns, WORDS]."""
        row, column = ix(row), ix(column)
        return words[row, column, 0], words[row, column, 1], words[row, column, 2], words[row, column, 3]

    @helper
    def store(words, row, column, number):
        """Put a number there."""
        row, column = ix(row), ix(column)
        words[row, column, 0], words[row, column, 1] = number[0], number[1]
        words[row, column, 2], words[row, column, 3] = number[2], number[3]

    @helper
    def add(a, b):
        """a + b."""
        return _add(a, b)

    @helper
    def subtract(a, b):
        """a - b."""
        return _subtract(a, b)

    @helper
    def times(a, factor):
        """A number times a 64-bit integer."""
        return _multiply(a, exact(factor))

    @helper
    def divide(a, b):
        """a / b, rounded toward zero."""
        return _divide(a, b)

    @helper
    def sign_of(number):
        """-1, 0 or 1."""
        if number[3] < 0:
            return -1
        return 1 if number[0] | number[1] | number[2] | number[3] else 0

    @helper
    def narrowed(number):
        """The number as an int64, or NOT_A_VALUE where none holds it."""
        low, rest = number[0], number[0] >> 63
        fits = number[1] == rest and number[2] == rest and number[3] == rest
        return low if fits else np.int64(NOT_A_VALUE)

    @helper
    def small_product(a, b):
        """a x b if it is SMALL either way, else TOO_LARGE."""
        return _small_product(np.int64(a), np.int64(b))


@helper
def exceeds(number, high, low):
    """Whether a number that is not negative is above the pair (high, low), which isn't either."""
    first, second, third, fourth = words_of(number)
    if third | fourth or second < 0:
        return True
    return second > high or (second == high and np.uint64(first) > np.uint64(low))


@helper
def saturated(number):
    """The number as an int64; what doesn't fit is +-(2^63-1)."""
    small = narrowed(number)
    if small != NOT_A_VALUE:
        return small
    return np.int64(MAX_QTY if sign_of(number) > 0 else -MAX_QTY)
