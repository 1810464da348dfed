"""Work on several threads: kernels let go of the GIL, so jobs that are mostly kernels run side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")


def side_by_side(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """The results of some jobs, in their order, a thread for each; a single one needs no thread."""
    if len(jobs) < 2:
        return [job() for job in jobs]
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def cut(size: int, pieces: int) -> list[tuple[int, int]]:
    """So many ranges of about the same length that are [0, size) one after the other."""
    bounds = [size * piece // pieces for piece in range(pieces + 1)]
    return list(pairwise(bounds))
