"""Machine instructions numba has no name for: leading zeros, prefetch, byte order, memory at an address.

Each has a plain Python twin for NUMBA_DISABLE_JIT=1.

An array that came in as an argument is reference-counted at every helper call, inlined or not; an array
made from an address is not. `bare` turns the one into the other at the top of a kernel: 248 -> 20 ns per
command in `run`.
"""

from __future__ import annotations

import ctypes

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from hftlab.kernels.primitives.compile import CHECKED, DISABLED, helper


@intrinsic
def _highest_bit(typingctx, word):
    def codegen(context, builder, signature, args):
        leading = builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))
        return builder.sub(ir.Constant(ir.IntType(64), 63), leading)

    return types.int64(types.int64), codegen


@intrinsic
def _prefetch(typingctx, array, index):
    def codegen(context, builder, signature, args):
        array_type, _ = signature.args
        view = context.make_array(array_type)(context, builder, args[0])
        pointer = cgutils.get_item_pointer(context, builder, array_type, view, [args[1]])
        byte = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        int32 = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte.type, int32, int32, int32]),
            "llvm.prefetch.p0",
        )
        builder.call(function, [byte, int32(1), int32(3), int32(1)])  # for writing, keep close, data
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic
def _likely(typingctx, condition):
    def codegen(context, builder, signature, args):
        bit = ir.IntType(1)
        expect = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(bit, [bit, bit]), "llvm.expect.i1"
        )
        return builder.call(expect, [builder.trunc(args[0], bit), bit(1)])

    return types.boolean(types.boolean), codegen


@intrinsic
def _choose(typingctx, condition, a, b):
    def codegen(context, builder, signature, args):
        select = builder.select(builder.trunc(args[0], ir.IntType(1)), args[1], args[2])
        select.set_metadata("unpredictable", builder.module.add_metadata([]))
        return select

    return types.int64(types.boolean, types.int64, types.int64), codegen


@intrinsic
def _pointer(typingctx, address):
    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


def _big_endian(bits):
    """An intrinsic that reads so many bits, most significant byte first, from any place in a byte array."""

    @intrinsic
    def load(typingctx, array, index):
        def codegen(context, builder, signature, args):
            array_type, _ = signature.args
            view = context.make_array(array_type)(context, builder, args[0])
            pointer = cgutils.get_item_pointer(context, builder, array_type, view, [args[1]])
            word = builder.load(builder.bitcast(pointer, ir.IntType(bits).as_pointer()), align=1)
            return builder.zext(builder.bswap(word), ir.IntType(64)) if bits < 64 else builder.bswap(word)

        return types.int64(array, types.int64), codegen

    return load


_be16, _be32, _be64 = (_big_endian(bits) for bits in (16, 32, 64))

# how many rows ahead to prefetch, by what is fetched: far enough that it arrives in time, near enough to stay
INDEX_AHEAD = 8  # entries of a hash index
HOLDINGS_AHEAD = 12  # records of accounts and holdings that rows of a table lead to
ORDERS_AHEAD = 16  # the neighbours of orders that commands name; the orders themselves at twice that

ZERO = np.int64(0)  # a bare 0 is of a type of its own
ix = np.uint64  # an index known not to be negative: a signed one costs a wrap-around test per access

if DISABLED:

    def highest_bit(word):
        """Position of the highest set bit of a non-zero 64-bit word."""
        return (int(word) & 0xFFFF_FFFF_FFFF_FFFF).bit_length() - 1

    def prefetch(array, index):
        """Ask for array[index] to be brought into the cache."""

    def likely(condition):
        """The same condition: it is nearly always true, so what follows if it isn't is put elsewhere."""
        return condition

    def choose(condition, a, b):
        """`a` if the condition holds, else `b`, without a branch: for what nobody can predict."""
        return a if condition else b

    def array_at(address, shape, dtype):
        """The array of this shape and type at a memory address."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_char * size).from_address(int(address)), dtype).reshape(shape)

    def bare(array):
        """The same array without a reference count."""
        return array

    def bare_rows(array, width):
        """The same array without a reference count."""
        return array

    def be16(array, index):
        """Two bytes of a byte array as an unsigned integer, the most significant first."""
        return np.int64(int.from_bytes(array[index : index + 2].tobytes(), "big"))

    def be32(array, index):
        """Four bytes of a byte array as an unsigned integer, the most significant first."""
        return np.int64(int.from_bytes(array[index : index + 4].tobytes(), "big"))

    def be64(array, index):
        """Eight bytes of a byte array as the bits of an integer, the most significant first."""
        return np.int64(int.from_bytes(array[index : index + 8].tobytes(), "big", signed=True))

else:

    @helper
    def highest_bit(word):
        """Position of the highest set bit of a non-zero 64-bit word."""
        return _highest_bit(word)

    @helper
    def prefetch(array, index):
        """Ask for array[index] to be brought into the cache."""
        _prefetch(array, index)

    @helper
    def likely(condition):
        """The same condition: it is nearly always true, so what follows if it isn't is put elsewhere."""
        return _likely(condition)

    @helper
    def choose(condition, a, b):
        """`a` if the condition holds, else `b`, without a branch: for what nobody can predict."""
        return _choose(condition, a, b)

    @helper
    def array_at(address, shape, dtype):
        """The array of this shape and type at a memory address."""
        return carray(_pointer(address), shape, dtype)

    @helper
    def bare(array):
        """The same array without a reference count."""
        return carray(_pointer(array.ctypes.data), array.shape, array.dtype)

    @helper
    def bare_rows(array, width):
        """The same for rows of a width the compiler may know: a place in it then takes no multiplication."""
        return carray(_pointer(array.ctypes.data), (array.shape[0], width), array.dtype)

    @helper
    def within(array, index, size):
        """Touch the last byte, so that a build with bounds checks notices what lies outside."""
        if CHECKED:
            array[index + size - 1] + array[index]

    @helper
    def be16(array, index):
        """Two bytes of a byte array as an unsigned integer, the most significant first."""
        within(array, index, 2)
        return _be16(array, index)

    @helper
    def be32(array, index):
        """Four bytes of a byte array as an unsigned integer, the most significant first."""
        within(array, index, 4)
        return _be32(array, index)

    @helper
    def be64(array, index):
        """Eight bytes of a byte array as the bits of an integer, the most significant first."""
        within(array, index, 8)
        return _be64(array, index)
