"""Integers beyond 64 bits (kernels/primitives/int128.py) against those of Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.kernels.primitives import int128 as wide_kernels
from tests.helpers.called import Called

wide = Called(wide_kernels)

LARGEST = 2**63 - 1
EDGES = [0, 1, -1, 2, -2, 2**31, 2**32, -(2**32), 2**62, LARGEST - 1, LARGEST, -LARGEST]
INTEGERS = st.sampled_from([*EDGES, -(2**63)]) | st.integers(-(2**63), LARGEST)
AMOUNTS = st.sampled_from([n for n in EDGES if n >= 0]) | st.integers(0, LARGEST)
WITH_SIGN = st.sampled_from(EDGES) | st.integers(-LARGEST, LARGEST)
SUMS = st.integers(-(2**127), 2**127 - 1) | INTEGERS | INTEGERS.map(lambda n: n * 2**64)
EXAMPLES = settings(max_examples=300)


def pair(value: int) -> tuple[np.int64, np.int64]:
    """An integer as the kernels have it: high x 2^64 + low."""
    low = value % 2**64
    return np.int64(value >> 64), np.int64(low - 2**64 if low >= 2**63 else low)


def whole(found: tuple) -> int:
    """The integer that a pair is."""
    high, low = found
    return int(high) * 2**64 + int(low) % 2**64


def bounded(value: int) -> int:
    return max(-LARGEST, min(LARGEST, value))


@EXAMPLES
@given(a=INTEGERS, b=INTEGERS)
def test_a_product_of_two_integers_is_exact(a, b):
    """126 bits and a sign, the most negative integer included."""
    assert whole(wide.multiply(np.int64(a), np.int64(b))) == a * b


@EXAMPLES
@given(a=st.integers(-(2**126), 2**126 - 1), b=st.integers(-(2**126), 2**126 - 1))
def test_a_sum_of_pairs_is_exact(a, b):
    """Carries go from the low to the high half, of either sign."""
    assert whole(wide.add(pair(a), pair(b))) == a + b


@EXAMPLES
@given(a=AMOUNTS, b=AMOUNTS)
def test_a_product_that_does_not_fit_is_minus_one(a, b):
    """2^63-1 fits, 2^63 doesn't."""
    assert wide.product(np.int64(a), np.int64(b)) == (a * b if a * b <= LARGEST else -1)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(2**32, 2**31, -1), (2**32 - 1, 2**31, (2**32 - 1) * 2**31), (LARGEST, 1, LARGEST), (LARGEST, 2, -1)],
)
def test_products_around_the_largest(a, b, expected):
    """The first one beyond, and the last one that fits."""
    assert wide.product(np.int64(a), np.int64(b)) == expected


@EXAMPLES
@given(value=SUMS)
def test_a_pair_saturates_at_the_largest_integers(value):
    """The most negative integer of 64 bits is beyond: bounds are the same on both sides."""
    assert wide.saturated(pair(value)) == bounded(value)


AT_A_BOUND = [LARGEST, LARGEST + 1, -LARGEST, -LARGEST - 1, -LARGEST - 2, 2**64, -(2**64)]


@pytest.mark.parametrize("value", AT_A_BOUND)
def test_pairs_around_the_largest(value):
    """Exactly at a bound nothing is lost."""
    assert wide.saturated(pair(value)) == bounded(value)


@EXAMPLES
@given(value=SUMS, limit=SUMS)
def test_a_pair_exceeds_another(value, limit):
    """As the integers compare."""
    assert bool(wide.exceeds(pair(value), pair(limit))) == (value > limit)


@EXAMPLES
@given(limit=AMOUNTS)
def test_a_limit_itself_does_not_exceed_it(limit):
    """One more does."""
    assert not wide.exceeds(pair(limit), pair(limit))
    assert wide.exceeds(pair(limit + 1), pair(limit))


@EXAMPLES
@given(a=WITH_SIGN, b=WITH_SIGN)
def test_a_sum_saturates(a, b):
    """It never wraps."""
    assert wide.saturating_sum(np.int64(a), np.int64(b)) == bounded(a + b)
