"""Integers beyond 64 bits for sums of money: a pair (high, low) is high x 2^64 + low, low without a sign.

A price times a quantity takes up to 126 bits. LLVM multiplies and adds such numbers in a few instructions;
each function has a plain Python twin for NUMBA_DISABLE_JIT=1.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hftlab.codes import MAX_QTY
from hftlab.kernels.primitives.compile import DISABLED, helper

_PAIR = types.UniTuple(types.int64, 2)
_I64, _I128 = ir.IntType(64), ir.IntType(128)


def _split(context, builder, value):
    """An i128 as the pair."""
    high = builder.trunc(builder.ashr(value, _I128(64)), _I64)
    return context.make_tuple(builder, _PAIR, [high, builder.trunc(value, _I64)])


@intrinsic
def _multiply(typingctx, a, b):
    def codegen(context, builder, signature, args):
        a, b = (builder.sext(value, _I128) for value in args)
        return _split(context, builder, builder.mul(a, b))

    return _PAIR(types.int64, types.int64), codegen


@intrinsic
def _add(typingctx, a, b):
    def codegen(context, builder, signature, args):
        whole = []
        for pair in args:
            high, low = cgutils.unpack_tuple(builder, pair)
            shifted = builder.shl(builder.sext(high, _I128), _I128(64))
            whole.append(builder.or_(shifted, builder.zext(low, _I128)))
        return _split(context, builder, builder.add(*whole))

    return _PAIR(_PAIR, _PAIR), codegen


@intrinsic
def _product(typingctx, a, b):
    def codegen(context, builder, signature, args):
        both = builder.smul_with_overflow(*args)
        value, overflows = builder.extract_value(both, 0), builder.extract_value(both, 1)
        return builder.select(overflows, _I64(-1), value)

    return types.int64(types.int64, types.int64), codegen


if DISABLED:

    def _pair(value):
        low, high = int(value) & 0xFFFF_FFFF_FFFF_FFFF, (int(value) >> 64) & 0xFFFF_FFFF_FFFF_FFFF
        return tuple(np.int64(word - (1 << 64) if word >> 63 else word) for word in (high, low))

    def multiply(a, b):
        """The product of two integers, exactly."""
        return _pair(int(a) * int(b))

    def add(a, b):
        """The sum of two pairs."""
        return _pair(
            (int(a[0]) << 64)
            + (int(a[1]) & 0xFFFF_FFFF_FFFF_FFFF)
            + (int(b[0]) << 64)
            + (int(b[1]) & 0xFFFF_FFFF_FFFF_FFFF)
        )

    def product(a, b):
        """The product of two integers that are not negative; -1 where it passes 2^63-1."""
        exact = int(a) * int(b)
        return np.int64(exact if -MAX_QTY <= exact <= MAX_QTY else -1)

else:

    @helper
    def multiply(a, b):
        """The product of two integers, exactly."""
        return _multiply(np.int64(a), np.int64(b))

    @helper
    def add(a, b):
        """The sum of two pairs."""
        return _add(a, b)

    @helper
    def product(a, b):
        """The product of two integers that are not negative; -1 where it passes 2^63-1."""
        return _product(np.int64(a), np.int64(b))


@helper
def saturated(pair):
    """A pair as an integer of 64 bits; what doesn't fit is +-(2^63-1)."""
    high, low = pair
    if high > 0 or (high == 0 and low < 0):
        return np.int64(MAX_QTY)
    if high < -1 or (high == -1 and (low >= 0 or low < -MAX_QTY)):
        return np.int64(-MAX_QTY)
    return np.int64(low)


@helper
def exceeds(pair, limit):
    """Whether a pair is above another."""
    return pair[0] > limit[0] or (pair[0] == limit[0] and np.uint64(pair[1]) > np.uint64(limit[1]))


@helper
def saturating_sum(a, b):
    """a + b; what doesn't fit is +-(2^63-1)."""
    if b > 0 and a > MAX_QTY - b:
        return np.int64(MAX_QTY)
    if b < 0 and a < -MAX_QTY - b:
        return np.int64(-MAX_QTY)
    return np.int64(a + b)
