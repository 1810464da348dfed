"""Memory for the large arrays of a run: on huge pages where the system gives them, and used again.

The first touch of a page of 4 kB costs a microsecond on a virtual machine, and a place drawn at random among
many of them costs a search in the page tables. NumPy asks for huge pages for arrays of 4 MB and more, one by
one, and malloc hands out again what it had in small ones, or gives it back, as what was freed before has it.
So blocks are kept here when their last array is gone, up to KEPT bytes.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

HUGE_PAGE = 1 << 21  # bytes
SMALLEST = HUGE_PAGE // 4  # of a block on huge pages; the rest of its last page is not used
CACHE_LINE = 64
KEPT = 512 << 20  # bytes in blocks that nobody uses

Shape = int | tuple[int, ...]

_spare: list[mmap.mmap] = []
_huge = True  # whether blocks ask for huge pages


def uses_huge_pages() -> bool:
    """Whether new blocks ask for huge pages; they do unless told otherwise."""
    return _huge


def use_huge_pages(wanted: bool) -> None:
    """Ask for huge pages for blocks from here on, or for none; blocks in use stay as they are."""
    global _huge
    if wanted != _huge:
        _spare.clear()  # these have pages of the other kind
    _huge = wanted


def empty(shape: Shape, dtype: DTypeLike) -> np.ndarray:
    """An array whose values are whatever was there."""
    return empty_together((shape, dtype))[0] if _bytes(shape, dtype) >= SMALLEST else np.empty(shape, dtype)


def zeros(shape: Shape, dtype: DTypeLike) -> np.ndarray:
    """An array of zeros."""
    return zeros_together((shape, dtype))[0] if _bytes(shape, dtype) >= SMALLEST else np.zeros(shape, dtype)


def empty_together(*wanted: tuple[Shape, DTypeLike]) -> list[np.ndarray]:
    """Arrays in one block of memory, which lives as long as one of them; each starts a cache line.

    Raises MemoryError, as all of these do.
    """
    return _arrays(wanted, zero=False)


def zeros_together(*wanted: tuple[Shape, DTypeLike]) -> list[np.ndarray]:
    """The same, of zeros."""
    return _arrays(wanted, zero=True)


def _bytes(shape: Shape, dtype: DTypeLike) -> int:
    return math.prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(dtype).itemsize


def _arrays(wanted: Sequence[tuple[Shape, DTypeLike]], zero: bool) -> list[np.ndarray]:
    starts = [0]
    for shape, dtype in wanted:
        starts.append(starts[-1] + -(-_bytes(shape, dtype) // CACHE_LINE) * CACHE_LINE)
    block = _block(starts[-1], zero)
    return [np.ndarray(shape, dtype, block, at) for at, (shape, dtype) in zip(starts, wanted, strict=False)]


def _block(size: int, zero: bool) -> np.ndarray:
    """So many bytes from the start of a page or cache line."""
    if size < SMALLEST or not hasattr(mmap, "MADV_HUGEPAGE"):
        room = np.zeros(size + CACHE_LINE, np.uint8)
        return room[-room.ctypes.data % CACHE_LINE :]
    pages, used = _pages(-(-size // HUGE_PAGE) * HUGE_PAGE)
    room = np.frombuffer(pages, np.uint8)  # numpy keeps this one for all views of it
    weakref.finalize(room, _give_back, pages).atexit = False
    start = -room.ctypes.data % HUGE_PAGE
    block = room[start : start + size]
    if used and zero:
        block[:] = 0
    return block


def _pages(size: int) -> tuple[mmap.mmap, bool]:
    """The smallest spare block of that size, if it isn't too large, or a new one; and whether it was used."""
    for pages in sorted(_spare, key=len):
        if size <= len(pages) - HUGE_PAGE <= 2 * size:
            with contextlib.suppress(ValueError):  # another thread took it
                _spare.remove(pages)
                return pages, True
    try:
        pages = mmap.mmap(-1, size + HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        _spare.clear()
        raise MemoryError(f"{size} bytes") from None
    with contextlib.suppress(OSError):  # a system without them gives small pages
        pages.madvise(mmap.MADV_HUGEPAGE if _huge else mmap.MADV_NOHUGEPAGE)
    return pages, False


def _give_back(pages: mmap.mmap) -> None:
    if len(pages) + sum(map(len, _spare)) <= KEPT:
        _spare.append(pages)
