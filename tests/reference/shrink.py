"""Delta debugging: a failing flow of a million rows is no use to anybody, the four rows of it that fail are.

`ddmin` is Zeller's algorithm over row numbers, without the subsets step, which is not needed when removing
rows is always allowed (a command that names a missing order is just a reject).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


def ddmin(rows: Sequence[int], fails: Callable[[list[int]], bool]) -> list[int]:
    """The rows that are left when removing any one more makes the failure go away.

    Raises ValueError when the whole does not fail, for then there is nothing to shrink.
    """
    rows = list(rows)
    if not fails(rows):
        raise ValueError(f"all {len(rows)} rows together do not fail")
    chunk = max(1, len(rows) // 2)
    while True:
        smaller = _without_chunks(rows, chunk, fails)
        if chunk > 1:
            chunk = max(1, min(chunk // 2, len(smaller)))
        elif len(smaller) == len(rows):
            return rows
        rows = smaller


def _without_chunks(rows: list[int], chunk: int, fails: Callable[[list[int]], bool]) -> list[int]:
    """Remove every chunk that the failure does not need, from the end: later rows depend on earlier ones."""
    stop = len(rows)
    while stop > 0:
        start = max(0, stop - chunk)
        fewer = rows[:start] + rows[stop:]
        if fewer and fails(fewer):
            rows = fewer
        stop = start
    return rows
