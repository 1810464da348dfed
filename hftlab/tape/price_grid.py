"""Ladders made to measure: which price pages each book needs, known before the first match."""

from __future__ import annotations

import numpy as np

from hftlab.kernels.book.columns import Columns
from hftlab.kernels.book.price_grid import PAGE, PAGE_BITS, Grid
from hftlab.kernels.book.tape_compiler import mark_pages
from hftlab.kernels.primitives.hash_index import copy_index, fill_index, make_index

WHOLE_LEVELS = 1 << 16  # a ladder without holes may have this many levels whatever the flow's length,
ALL_WHOLE_LEVELS = 1 << 20  # and all of them together so many


def make_grid(rules: np.ndarray, pages: list[np.ndarray]) -> Grid:
    """A grid from each book's sorted page numbers (at least one)."""
    counts = np.array([p.size for p in pages], np.int64)
    numbers = np.concatenate(pages).astype(np.int64)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.int64)
    sizes = counts * PAGE
    bases = np.concatenate(([0], np.cumsum(2 * sizes)[:-1])).astype(np.int64)
    whole = np.array([int(p[-1] - p[0]) + 1 == p.size for p in pages])
    first = np.array([p[0] for p in pages], np.int64)
    holed = np.repeat(~whole, counts)
    index = make_index(int(holed.sum()))
    if holed.any():
        books = np.repeat(np.arange(len(pages), dtype=np.int32), counts)
        places = (np.arange(numbers.size) - np.repeat(starts, counts) + 1).astype(np.int32)
        fill_index(index, numbers[holed], books[holed], places[holed])
    return Grid(rules, first, whole, sizes, bases, numbers, starts, index)


_BEFORE_ALL = -(2**62)  # page number of the free positions before the first page
FEW_RUNS = 64  # a ladder of more runs of pages than this is scattered: room beside each costs too much


def spread_grid(rules: np.ndarray, pages: np.ndarray) -> Grid:
    """A grid of one book for prices to come: each run of pages has neighbours, and free positions behind it.

    A free position repeats the page number before it, so the numbers stay sorted.
    """
    runs = np.split(pages, np.flatnonzero(np.diff(pages) > 1) + 1)
    roomy = len(runs) <= FEW_RUNS
    grown = []
    for run in runs:
        margin = run.size // 4 + roomy
        grown.append(np.arange(run[0] - margin, run[-1] + margin + 1))
    known = np.unique(np.concatenate(grown))
    free = np.where(np.diff(known, append=known[-1] + 2) > 1, 4 if roomy else 1, 0)
    numbers = np.concatenate((np.full(free[-1] + 1, _BEFORE_ALL), np.repeat(known, 1 + free)))
    places = np.flatnonzero(np.diff(numbers, prepend=_BEFORE_ALL) > 0)
    index = make_index(numbers.size)
    fill_index(index, known, np.zeros(known.size, np.int32), (places + 1).astype(np.int32))
    zero, size = np.zeros(1, np.int64), np.array([numbers.size * PAGE])
    return Grid(rules, zero, np.zeros(1, bool), size, zero, numbers, zero, index)


def insert_page(grid: Grid, page: int) -> bool:
    """Put a page into a free position of a `spread_grid`; False where there is none at its place."""
    last = int(np.searchsorted(grid.numbers, page, side="right")) - 1
    first = int(np.searchsorted(grid.numbers, grid.numbers[last], side="left"))
    if last == first:
        return False
    place = (first + last + 1) // 2
    grid.numbers[place : last + 1] = page
    fill_index(grid.pages, np.array([page]), np.zeros(1, np.int32), np.array([place + 1], np.int32))
    return True


def fit_grid(
    columns: Columns,
    rules: np.ndarray,
    counts: np.ndarray,
    lowest: np.ndarray,
    highest: np.ndarray,
    further: tuple[np.ndarray, np.ndarray],
) -> Grid:
    """The smallest grid that has every price of some columns, and `further` (books, prices).

    A book whose whole range is short gets it whole (a price's rung is then a subtraction); of a wide one
    only the pages in use are kept.
    """
    ticks = rules["tick"]
    low, high = (lowest // ticks) >> PAGE_BITS, (highest // ticks) >> PAGE_BITS
    spans = np.where(counts > 0, high - low + 1, 1)
    roomy = np.maximum(counts, WHOLE_LEVELS) // PAGE
    short = (spans > 0) & (spans <= roomy)
    room = max(int(counts.sum()), ALL_WHOLE_LEVELS)
    whole = (short & (np.where(short, spans, 0).cumsum() * PAGE <= room)) | (counts == 0)
    low = np.where(counts > 0, low, 0)
    pages = [np.arange(a, a + n) if w else None for a, n, w in zip(low, spans, whole, strict=True)]
    if not whole.all():
        found = _pages_in_use(columns, rules, ~whole, further)
        pages = [found[book] if p is None else p for book, p in enumerate(pages)]
    return make_grid(rules, pages)


def _pages_in_use(
    columns: Columns, rules: np.ndarray, wanted: np.ndarray, further: tuple[np.ndarray, np.ndarray]
) -> dict[int, np.ndarray]:
    books, prices = further
    index = make_index(max(64, 2 * books.size))
    if books.size:
        fill_index(index, (prices // rules["tick"][books]) >> PAGE_BITS, books, np.ones(books.size, np.int32))
    done, used = 0, int((index["value"] != 0).sum())
    while True:
        done, used = mark_pages(columns, rules, wanted, index, used, done)
        if done == columns.action.size:
            break
        larger = make_index(index.size)
        copy_index(index, larger)
        index = larger
    entries = index[index["value"] != 0]
    entries = entries[np.lexsort((entries["key"], entries["book"]))]
    books = np.flatnonzero(wanted)
    starts, stops = (np.searchsorted(entries["book"], books, side).tolist() for side in ("left", "right"))
    return {
        book: entries["key"][start:stop]
        for book, start, stop in zip(books.tolist(), starts, stops, strict=True)
    }
