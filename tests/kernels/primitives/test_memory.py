"""Memory of runs: whole cache lines, zeros where promised, blocks used again and never twice at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hftlab.kernels.book.records import NARROW, ORDER
from hftlab.kernels.primitives import memory

LARGE = memory.SMALLEST // 8 + 1  # int64s of a block on pages of its own


def owner_of(array):
    """The array that a block's views keep alive."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@pytest.fixture(autouse=True)
def nothing_spare(monkeypatch):
    monkeypatch.setattr(memory, "_spare", [])


@pytest.mark.parametrize("count", [0, 1, 1000, LARGE, 3 * LARGE])
def test_arrays_are_what_was_asked_for(count):
    words, orders, grid = memory.zeros_together((count, np.int64), (count, ORDER[NARROW]), ((count, 3), "i4"))
    assert (words.dtype, orders.dtype, grid.dtype) == (np.dtype("i8"), ORDER[NARROW], np.dtype("i4"))
    assert (words.shape, orders.shape, grid.shape) == ((count,), (count,), (count, 3))
    for array in (words, orders, grid):
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.ctypes.data % memory.CACHE_LINE == 0 or not count
        assert not array.view("u1").any()


def test_arrays_of_a_block_do_not_overlap():
    arrays = memory.empty_together(*[(size, np.uint8) for size in (1, 63, 64, 65, 8 * LARGE, 7)])
    for number, array in enumerate(arrays):
        array[:] = number
    assert [set(array.tolist()) for array in arrays] == [{number} for number in range(len(arrays))]


def test_a_block_is_used_again_once_its_last_array_is_gone_and_is_zeros_again():
    first, second = memory.zeros_together((LARGE, np.int64), (LARGE, np.int64))
    first[:] = second[:] = 7
    place = first.ctypes.data
    del first
    other = memory.zeros(2 * LARGE, np.int64)
    assert other.ctypes.data != place
    assert set(second.tolist()) == {7}  # still there
    del second
    again = memory.zeros(2 * LARGE, np.int64)
    assert again.ctypes.data == place
    assert not again.any()


def test_a_view_keeps_its_block():
    array = memory.zeros(LARGE, np.int64)
    place, tail = array.ctypes.data, array.view("u1")[-8:].view("i8")
    tail[0] = 5
    del array
    assert memory.zeros(LARGE, np.int64).ctypes.data != place
    assert tail[0] == 5


def test_small_arrays_take_no_page_of_their_own():
    assert isinstance(owner_of(memory.zeros(LARGE, np.int64)).base, memoryview | memory.mmap.mmap)
    assert owner_of(memory.zeros(100, np.int64)).base is None


def test_no_more_is_kept_than_kept(monkeypatch):
    monkeypatch.setattr(memory, "KEPT", 3 * memory.HUGE_PAGE)
    for array in [memory.zeros(LARGE, np.int64) for _ in range(5)]:
        array[0] = 1
    del array
    assert sum(map(len, memory._spare)) <= 3 * memory.HUGE_PAGE


def test_a_much_larger_block_is_not_taken_for_little():
    large = memory.zeros(64 * LARGE, np.int64)
    place = large.ctypes.data
    del large
    assert memory.zeros(LARGE, np.int64).ctypes.data != place


def test_without_huge_pages_arrays_are_numpy_s(monkeypatch):
    monkeypatch.delattr(memory.mmap, "MADV_HUGEPAGE")
    array = memory.zeros(LARGE, np.int64)
    assert not array.any()
    assert array.ctypes.data % memory.CACHE_LINE == 0
    assert not memory._spare


def test_a_system_that_refuses_huge_pages_gives_small_ones(monkeypatch):
    class Refusing(memory.mmap.mmap):
        def madvise(self, *_):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(memory.mmap, "mmap", Refusing)
    assert not memory.zeros(LARGE, np.int64).any()


def test_no_memory_is_a_memory_error_as_it_is_from_numpy(monkeypatch):
    def exhausted(*_):
        raise OSError(12, "Cannot allocate memory")

    spare = memory.zeros(LARGE, np.int64)
    del spare
    monkeypatch.setattr(memory.mmap, "mmap", exhausted)
    with pytest.raises(MemoryError):
        memory.zeros(64 * LARGE, np.int64)
    assert not memory._spare


def test_threads_never_get_the_same_block():
    def fill(number):
        for _ in range(50):
            array = memory.zeros(LARGE, np.int64)
            assert not array.any()
            array[:] = number
            assert (array == number).all()
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(fill, range(8)))
