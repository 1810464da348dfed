"""Log-linear buckets in HdrHistogram's layout: relative precision over the whole range, no allocation.

A value below 2^(half + 1) has a bucket of its own; above, every doubling of the value is cut into 2^half
buckets of equal width. `half` is the smallest that gives the significant digits asked for: 10 for three.
The lowest value told apart from 0 is 1, so HdrHistogram's unit magnitude is 0 and is left out.
"""

from __future__ import annotations

import numpy as np

from hftlab.kernels.primitives.compile import helper, kernel
from hftlab.kernels.primitives.intrinsics import bare, highest_bit, ix

# what is kept beside the counts; of values that have a bucket, but for OUTSIDE
COUNT, MIN, MAX, OUTSIDE, TALLY = range(5)


@helper
def bucket_of(value, half):
    """Index into the counts of a value of 0 or more."""
    doublings = highest_bit(value | ((np.int64(2) << half) - 1)) - half
    return (doublings << half) + (value >> doublings)


@helper
def record(counts, tally, half, value, times):
    """Count a value; one below 0 or beyond the last bucket is counted as being outside."""
    index = bucket_of(value, half) if value >= 0 else np.int64(-1)
    if index < 0 or index >= counts.size:
        tally[OUTSIDE] += times
        return
    if tally[COUNT] == 0 or value < tally[MIN]:
        tally[MIN] = value
    if tally[COUNT] == 0 or value > tally[MAX]:
        tally[MAX] = value
    counts[ix(index)] += times
    tally[COUNT] += times


@kernel
def record_all(counts, tally, half, values):
    """`record` each value of an array once."""
    counts, tally, values = bare(counts), bare(tally), bare(values)
    for i in range(values.size):
        record(counts, tally, half, values[i], np.int64(1))
