"""Time inside a kernel: the processor's cycle counter, or the system's clock where there is no such counter.

The counter (LLVM's `llvm.readcyclecounter`) costs half of `clock_gettime` and is one instruction. It counts
ticks: a duration in ns is `(ticks * mult) >> SHIFT`, in integers, with `mult` from a calibration (see
hftlab/latency/clock.py). The system's clock is CLOCK_MONOTONIC_RAW, which nobody adjusts; its tick is a
nanosecond.
Which of the two is read is an argument, so that one kernel serves both.
"""

from __future__ import annotations

import platform
import time

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hftlab.kernels.primitives.compile import DISABLED, helper, kernel, rare
from hftlab.kernels.primitives.intrinsics import bare

HAS_COUNTER = platform.machine() in ("x86_64", "AMD64") and not DISABLED  # elsewhere reading it may trap
RAW = getattr(time, "CLOCK_MONOTONIC_RAW", time.CLOCK_MONOTONIC)
WALL = time.CLOCK_REALTIME

SHIFT = 30
UNIT_MULT = 1 << SHIFT  # one tick is one nanosecond
MAX_MULT = 4 << SHIFT  # below 4 ns a tick both products of `to_ns` fit in 63 bits, for 146 years of ticks
LOW_TICKS = (1 << SHIFT) - 1

DURATION, START, ROW, LONG = range(4)  # columns of a list of the longest: ns, tick, row

# columns of what a spin has seen
PASSES, SPENT, GAPS, LOST, SEEN = range(
    5
)  # turns of the loop, ns in them; turns over the threshold, ns in those


@intrinsic
def _cycle_counter(typingctx):
    def codegen(context, builder, signature, args):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.IntType(64), []), "llvm.readcyclecounter"
        )
        return builder.call(function, [])

    return types.int64(), codegen


@intrinsic
def _clock_gettime(typingctx, which):
    def codegen(context, builder, signature, args):
        int32, int64 = ir.IntType(32), ir.IntType(64)
        both = cgutils.alloca_once(builder, ir.ArrayType(int64, 2))  # struct timespec: s, ns
        pointer = builder.bitcast(both, int64.as_pointer())
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(int32, [int32, int64.as_pointer()]), "clock_gettime"
        )
        builder.call(function, [builder.trunc(args[0], int32), pointer])
        seconds, nanos = (
            builder.load(builder.gep(pointer, [ir.Constant(int32, place)])) for place in range(2)
        )
        return builder.add(builder.mul(seconds, ir.Constant(int64, 1_000_000_000)), nanos)

    return types.int64(types.int64), codegen


if DISABLED:

    def read_clock(which):
        """A clock of the system in ns."""
        return np.int64(time.clock_gettime_ns(which))

    read_counter = None

else:

    @helper
    def read_clock(which):
        """A clock of the system in ns."""
        return _clock_gettime(np.int64(which))

    @helper
    def read_counter():
        """The cycle counter."""
        return _cycle_counter()


@helper
def now(counter):
    """The time in ticks: of the cycle counter, or without one (counter = 0) of the system's clock, in ns."""
    if HAS_COUNTER and counter != 0:
        return read_counter()
    return read_clock(RAW)


@helper
def to_ns(ticks, mult):
    """A duration in whole nanoseconds, rounded down."""
    return (ticks >> SHIFT) * mult + (((ticks & LOW_TICKS) * mult) >> SHIFT)


TICKS_BEFORE, SYSTEM_NS, TICKS_AFTER, BRACKET = range(4)  # columns of `brackets`


@kernel
def brackets(counter, which, values):
    """Readings of a clock of the system between two of ours, into values [n, BRACKET]."""
    values = bare(values)
    for i in range(values.shape[0]):
        values[i, TICKS_BEFORE] = now(counter)
        values[i, SYSTEM_NS] = read_clock(which)
        values[i, TICKS_AFTER] = now(counter)


@kernel
def differences(counter, values):
    """Ticks between one reading and the next with nothing in between: what a reading costs."""
    values = bare(values)
    for i in range(values.size):
        start = now(counter)
        values[i] = now(counter) - start


@kernel
def durations_ns(ticks, mult, ns):
    """`to_ns` of an array."""
    ticks, ns = bare(ticks), bare(ns)
    for i in range(ticks.size):
        ns[i] = to_ns(ticks[i], mult)


@rare
def keep_longest(longest, duration, start, row):
    """Put a duration into a list of the longest, sorted with the shortest first, in place of the shortest."""
    place = 0
    while place + 1 < longest.shape[0] and longest[place + 1, DURATION] < duration:
        for column in range(LONG):
            longest[place, column] = longest[place + 1, column]
        place += 1
    longest[place, DURATION], longest[place, START], longest[place, ROW] = duration, start, row


@helper
def note_if_long(longest, duration, start, row):
    """Keep a duration that is among the longest so far; an equal one that came first stays."""
    if duration > longest[0, DURATION]:
        keep_longest(longest, duration, start, row)


@helper
def note_gap(seen, longest, threshold, duration, start, row):
    """Count a turn of an idle loop; one over the threshold is an interruption by the machine."""
    seen[PASSES] += 1
    if duration > threshold:
        seen[GAPS] += 1
        seen[LOST] += duration
        note_if_long(longest, duration, start, row)


@helper
def spin_until(counter, mult, deadline, threshold, seen, longest, row):
    """Read the clock until a tick, noting what interrupts the loop; returns the first reading past it."""
    first = before = now(counter)
    while before < deadline:
        after = now(counter)
        note_gap(seen, longest, threshold, to_ns(after - before, mult), before, row)
        before = after
    seen[SPENT] += to_ns(before - first, mult)  # at once: turns are rounded down, and take few ns
    return before


@kernel
def spin(counter, mult, ticks, threshold, seen, longest):
    """Do nothing but read the clock for so many ticks; returns the ticks it took."""
    start = now(counter)
    return (
        spin_until(counter, mult, start + ticks, threshold, bare(seen), bare(longest), np.int64(-1)) - start
    )
