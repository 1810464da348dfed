"""Arguments of kernels that Python calls per event: ints as they are, everything else an error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hftlab
from hftlab.kernels.primitives.compile import quick_kernel
from hftlab.kernels.primitives.python_int import WHOLE, WHOLE_ACCOUNT, WHOLE_ID, entry_point, plain


@quick_kernel
def echo(whole):
    return plain(whole)


ECHOES = {kind: entry_point(echo, (kind,)) for kind in (WHOLE, WHOLE_ID, WHOLE_ACCOUNT)}
POWERS = [sign << bits for bits in (31, 32, 63, 64) for sign in (1, -1)]
EDGES = [0, 1, -1, 5, *(power + more for power in POWERS for more in (-1, 0, 1))]


def as_told(kind, value):
    """What the kernel answers, or the error."""
    try:
        return int(ECHOES[kind](value))
    except (TypeError, OverflowError) as error:
        return type(error)


def as_promised(kind, value):
    """The same by `Whole.take`, which is the twin of what is compiled."""
    try:
        return int(kind.take(value))
    except (TypeError, OverflowError) as error:
        return type(error)


@pytest.mark.parametrize("kind", ECHOES, ids=str)
@pytest.mark.parametrize("value", EDGES)
def test_an_int_is_taken_where_there_is_room(kind, value):
    assert as_told(kind, value) == as_promised(kind, value)


@given(st.integers(-(2**66), 2**66))
def test_any_int(value):
    for kind in ECHOES:
        assert as_told(kind, value) == as_promised(kind, value)


@pytest.mark.parametrize("kind", ECHOES, ids=str)
@pytest.mark.parametrize("value", [True, 1.0, 1.5, "1", None, np.int64(1), np.int32(1), [1]], ids=repr)
def test_nothing_else_is_taken(kind, value):
    assert as_told(kind, value) is as_promised(kind, value) is TypeError


def test_rooms():
    assert as_told(WHOLE, -(2**63)) == -(2**63)
    assert as_told(WHOLE, 2**63) is OverflowError
    assert as_told(WHOLE_ID, 2**64 - 1) == -1
    assert as_told(WHOLE_ID, -1) is OverflowError
    assert as_told(WHOLE_ACCOUNT, -(2**31)) == -(2**31)
    assert as_told(WHOLE_ACCOUNT, 2**31) is OverflowError


def test_a_book_takes_what_else_is_a_number():
    """What a kernel refuses is looked at in Python: whole numbers of other types pass, others don't."""
    book = hftlab.OrderBook(tick_size="0.01")
    assert book.submit(np.int64(1), "buy", "100.00", np.int32(5)).leaves_qty == 5
    assert book.submit(True + 1, "buy", 100 * 10**9, 5.0, account=np.int64(3)).leaves_qty == 5
    assert book.replace(np.uint64(1), 99.99, np.int64(4)).leaves_qty == 4
    assert book.reduce(np.int16(1), np.int64(3)).leaves_qty == 1
    assert book.cancel(np.int64(1)).status.name == "CANCELLED"
    for wrong in (1.5, "1", None, -1, 2**64):
        with pytest.raises(hftlab.UsageError, match="order_id: found"):
            book.submit(wrong, "buy", "100.00", 5)
        with pytest.raises(hftlab.UsageError, match="order_id: found"):
            book.cancel(wrong)
    with pytest.raises(hftlab.UsageError, match="account: found"):
        book.submit(9, "buy", "100.00", 5, account=2**31)
    for wrong in (2**70, "x", None):
        assert book.submit(9, "buy", wrong, 5).reason.name == "INVALID_PRICE"
    assert book.submit(9, "buy", "100.00", 1.5).reason.name == "INVALID_QTY"
