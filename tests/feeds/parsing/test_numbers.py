"""Numbers in text: one form, one size, the value that is written or an error."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.codes import NOT_A_VALUE
from hftlab.feeds.parsing import numbers

ERRORS = (pa.ArrowInvalid, ValueError, OverflowError)
WRITTEN = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)


def slow(text, decimals):
    """Units of the last decimal by Python's decimals, None where the text is no such number."""
    if not WRITTEN.fullmatch(text) or len(text) > 100:
        return None
    value = Decimal(text)
    if value.adjusted() > 60 or (value and value.adjusted() < -60):
        return None
    units = Fraction(value) * 10**decimals
    return int(units) if units.denominator == 1 and abs(units) < 2**63 else None


def units(texts, decimals):
    return numbers.units_of(pa.array(texts, pa.string()), decimals).tolist()


PLAIN = st.from_regex(r"\A[+-]?[0-9]{1,21}(\.[0-9]{0,20})?\Z")
WILD = st.from_regex(r"\A[+-]?[0-9]{0,3}\.?[0-9]{0,3}([eE][+-]?[0-9]{1,3})?\Z")


@settings(max_examples=300, deadline=None)
@given(st.one_of(PLAIN, WILD, st.text("0123456789.+-eE_, ٣", max_size=8)), st.sampled_from([0, 8, 9, 18]))
def test_a_text_is_what_python_s_decimals_say(text, decimals):
    """Value for value as `decimal.Decimal` reads it, and an error for every text that is no such number."""
    expected = slow(text, decimals)
    if expected is None:
        with pytest.raises(ERRORS):
            units([text], decimals)
    else:
        assert units([text], decimals) == [expected]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), PLAIN, WILD), max_size=12), st.integers(0, 3))
def test_a_column_is_its_cells(texts, start):
    """Short, long and empty cells of a column, sliced or not, are what each of them is alone."""
    texts = [text for text in texts if text is None or slow(text, 9) is not None]
    column = pa.array(texts, pa.string())[start:]
    expected = [NOT_A_VALUE if text is None else slow(text, 9) for text in texts[start:]]
    assert numbers.units_of(column, 9).tolist() == expected


@pytest.mark.parametrize(
    ("text", "arrow"),
    [("1e30", "18960114910927365649.471927446130393088"), ("7e-19", None), ("1" * 36, None)],
)
def test_what_arrow_reads_as_another_number_does_not_reach_it(text, arrow):
    """10^30 with 18 decimals is beyond 38 digits: pyarrow 26.0.1 makes another number of it, we refuse it."""
    if arrow is not None and pa.__version__ == "26.0.1":
        assert str(pa.array([text]).cast(pa.decimal128(38, 18))[0].as_py()) == arrow
    with pytest.raises(ERRORS):
        units([text], 18)


def test_what_is_below_may_be_cut_off():
    """Toward zero, as a clock of fewer decimals would have told it."""
    column = pa.array(["1706693400123.4567899", "-1.5", "1.7066934001234567899e12", "3"])
    cut = numbers.units_of(column, 6, cut=True)
    assert cut.tolist() == [1706693400123456789, -1500000, 1706693400123456789, 3000000]


@pytest.mark.parametrize(
    "text", ["1" * 5000, "1." + "0" * 200, "1e99999", "1_0", "0x10", "inf", "nan", "", "."]
)
def test_what_is_no_number_of_ours(text):
    """Neither by its form nor by its size does it reach a conversion."""
    assert not numbers.is_number(text)
    with pytest.raises(ERRORS):
        numbers.fraction_of(text)


def test_the_largest_exponent_is_small_work():
    """A number of ten thousand digits is never made: 1e9999 is refused by its size."""
    with pytest.raises(ERRORS):
        numbers.fraction_of("1e9999")
    assert numbers.fraction_of("0e9999") == 0
    assert numbers.is_beyond("1e9999", Fraction(1))
    assert not numbers.is_beyond("1e-9999", Fraction(1))


def test_a_thousand_cells_at_once():
    """A batch of usual prices goes through Arrow as a whole."""
    texts = [f"{cents / 100:.2f}" for cents in range(1000)]
    assert np.array_equal(units(texts, 9), np.arange(1000) * 10**7)
