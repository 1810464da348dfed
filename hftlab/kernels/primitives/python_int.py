"""Integers that Python hands to a kernel per event: taken as they are, or not at all.

For an integer argument numba calls `int()`, asks for the value and whether there was an error, and takes 1.5
for 1. A `Whole` is asked whether it is an int, exactly, and for its value. Who calls need not look before,
but at the TypeError or OverflowError: `OrderBook.submit` 335 -> 270 ns.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import NativeValue, intrinsic, unbox

from hftlab.kernels.primitives.compile import DISABLED, helper

INT64 = ir.IntType(64)


class Whole(types.Type):
    """An int of so many bits."""

    def __init__(self, bits: int, signed: bool = True) -> None:
        super().__init__(f"Whole({bits}, {signed})")
        self.bits, self.signed = bits, signed

    def take(self, value: object) -> np.int64:
        """What a kernel gets for a value. Raises TypeError, OverflowError."""
        if type(value) is not int:
            raise TypeError("not an int")
        low = -(1 << self.bits - 1) if self.signed else 0
        if not low <= value < low + (1 << self.bits):
            raise OverflowError(f"an int beyond {self.bits} bits")
        return np.int64(value - (1 << 64) if value >= 1 << 63 else value)


WHOLE, WHOLE_ID, WHOLE_ACCOUNT = Whole(64), Whole(64, signed=False), Whole(32)


@models.register_default(Whole)
class WholeModel(models.PrimitiveModel):
    """64 bits, whatever it had room for."""

    def __init__(self, manager, whole):
        super().__init__(manager, whole, INT64)


@unbox(Whole)
def unbox_whole(whole, obj, c):
    """`Whole.take`, compiled."""
    builder, api, module = c.builder, c.pyapi, c.builder.module
    value = cgutils.alloca_once_value(builder, INT64(0))
    failed = cgutils.alloca_once_value(builder, cgutils.false_bit)

    def fail(error, message):
        api.err_set_string(error, message)
        builder.store(cgutils.true_bit, failed)

    name = "PyLong_Type"
    int_type = module.globals.get(name) or cgutils.add_global_variable(module, ir.IntType(8), name)
    is_int = builder.icmp_unsigned("==", api.get_type(obj), builder.bitcast(int_type, api.pyobj))
    with builder.if_else(is_int, likely=True) as (then, otherwise):
        with then:
            found = (api.long_as_longlong if whole.signed else api.long_as_ulonglong)(obj)
            builder.store(found, value)
            with builder.if_then(builder.icmp_unsigned("==", found, INT64(-1)), likely=False):
                builder.store(api.c_api_error(), failed)  # it may be -1 itself
            if whole.bits < 64:
                kept = builder.sext(builder.trunc(found, ir.IntType(whole.bits)), INT64)
                with builder.if_then(builder.icmp_unsigned("!=", found, kept), likely=False):
                    fail("PyExc_OverflowError", f"an int beyond {whole.bits} bits")
        with otherwise:
            fail("PyExc_TypeError", "not an int")
    return NativeValue(builder.load(value), is_error=builder.load(failed))


@intrinsic
def _bits(typingctx, whole):
    def codegen(context, builder, signature, args):
        return args[0]

    return types.int64(whole), codegen


if DISABLED:

    def plain(whole):
        """The 64 bits of a Whole."""
        return whole

else:

    @helper
    def plain(whole):
        """The 64 bits of a Whole."""
        return _bits(whole)


def entry_point(function: Callable[..., int], kinds: tuple[types.Type, ...]) -> Callable[..., int]:
    """The compiled function itself, for callers that know their types: no dispatch on every call."""
    if DISABLED:
        takes = [kind.take if isinstance(kind, Whole) else np.dtype(kind.name).type for kind in kinds]
        return lambda *arguments: function(*(t(a) for t, a in zip(takes, arguments, strict=True)))
    function.compile(kinds)
    return function.overloads[kinds].entry_point
