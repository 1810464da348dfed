"""Where a price stands on its book's ladder.

A ladder is cut into pages of 64 ticks. Only pages in use exist, in price order, so a book with one order
at 0.01 and one at 199,999.99 needs two. A price's *rung* is its page's index times 64 plus the tick's
place in the page; rungs keep the order of prices, so kernels compare rungs and never see a price.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels.primitives.compile import helper
from hftlab.kernels.primitives.hash_index import lookup
from hftlab.kernels.primitives.intrinsics import bare, ix

PAGE_BITS = 6
PAGE = 1 << PAGE_BITS  # ticks: a bitmap word, and 1.5 kB of levels a side
NO_RUNG = -1


RULE = np.dtype(
    [
        ("tick", "i8"),  # price units; 0: any price will do
        ("inverse", "i8"),  # of the tick's odd part, modulo 2^64
        ("bound", "i8"),  # the largest number of ticks a price can be
        ("zeros", "i4"),  # trailing zero bits of the tick
        ("signed", "i4"),  # whether zero and negative prices are legal
    ],
    align=True,
)


def make_rules(ticks: np.ndarray, signed: np.ndarray) -> np.ndarray:
    """The rules of each book from its tick size (0: none) and whether its prices may be zero or negative.

    Dividing by a known tick is a multiplication by its odd part's inverse where the price is a multiple,
    and the test that it is one comes with it (Granlund and Montgomery 1994, section 9): 1 ns for 5.
    """
    rules = np.zeros(len(ticks), RULE)
    for book, tick in enumerate(np.asarray(ticks).tolist()):
        zeros = (tick & -tick).bit_length() - 1 if tick else 0
        inverse = pow(tick >> zeros, -1, 2**64) if tick else 1
        inverse -= 2**64 if inverse >= 2**63 else 0
        rules[book] = tick, inverse, (2**63 - 1) // max(tick, 1), zeros, signed[book]
    return rules


@helper
def ticks_in(price, rules, book):
    """A price in ticks, if it is a multiple of the tick."""
    return (price >> np.int64(rules[ix(book)]["zeros"])) * rules[ix(book)]["inverse"]


@helper
def is_multiple(price, rules, book):
    """Whether a price is a multiple of the tick."""
    rule = rules[ix(book)]
    low_bits = (np.int64(1) << np.int64(rule["zeros"])) - np.int64(1)
    ticks = ticks_in(price, rules, book)
    return price & low_bits == 0 and -rule["bound"] <= ticks <= rule["bound"]


class Grid(NamedTuple):
    """The ladders of every book; `pages` is an index (page, book) -> index + 1 in `numbers`."""

    rules: np.ndarray  # RULE [books]
    first: np.ndarray  # int64 [books] lowest page of a ladder without holes; only if `whole`
    whole: np.ndarray  # bool [books] whether the ladder has no holes
    sizes: np.ndarray  # int64 [books] rungs
    bases: np.ndarray  # int64 [books] first level of the book (see ladder.py)
    numbers: np.ndarray  # int64 [pages] page number of each, book after book
    starts: np.ndarray  # int64 [books] where a book's pages start in `numbers`
    pages: np.ndarray  # ENTRY

    @property
    def ticks(self) -> np.ndarray:
        """Tick size of each book, price units."""
        return self.rules["tick"]


@helper
def bare_grid(grid):
    """The same grid without reference counts (see intrinsics.py)."""
    return Grid(
        bare(grid.rules),
        bare(grid.first),
        bare(grid.whole),
        bare(grid.sizes),
        bare(grid.bases),
        bare(grid.numbers),
        bare(grid.starts),
        bare(grid.pages),
    )


@helper
def rung_of(grid, book, price):
    """Rung of a price that is a multiple of the tick, or NO_RUNG where its page is not on the ladder."""
    tick = ticks_in(price, grid.rules, book)
    if grid.whole[ix(book)]:
        rung = tick - (grid.first[ix(book)] << PAGE_BITS)
        return rung if 0 <= rung < grid.sizes[ix(book)] else np.int64(NO_RUNG)
    place = lookup(grid.pages, tick >> PAGE_BITS, book)
    if place == 0:
        return np.int64(NO_RUNG)
    return ((place - 1) << PAGE_BITS) | (tick & (PAGE - 1))


@helper
def price_of(grid, book, rung):
    """Price of a rung."""
    page = grid.numbers[ix(grid.starts[ix(book)] + (rung >> PAGE_BITS))]
    return ((page << PAGE_BITS) | (rung & (PAGE - 1))) * grid.rules[ix(book)]["tick"]


@helper
def level_price(grid, book, level):
    """Price of a level."""
    rung, size = level - grid.bases[ix(book)], grid.sizes[ix(book)]
    return price_of(grid, book, min(rung, 2 * size - 1 - rung))  # asks are mirrored


@helper
def price_level(grid, book, side, rung):
    """Level of a rung on the side of index 0 (bids) or 1 (asks)."""
    # asks are mirrored, base + 2 * size - 1 - rung; without a branch, because sides can't be predicted
    return grid.bases[ix(book)] + ((2 * grid.sizes[ix(book)]) & -side) + (rung ^ -side)


@helper
def top_level(grid, book, side):
    """The most aggressive level of a side: a MARKET order's limit."""
    return grid.bases[book] + (side + 1) * grid.sizes[book] - 1


@helper
def book_of(grid, level):
    """The book a level is on."""
    low, high = np.int64(0), np.int64(grid.bases.size - 1)
    while low < high:
        middle = (low + high + 1) >> 1
        if grid.bases[ix(middle)] <= level:
            low = middle
        else:
            high = middle - 1
    return low
