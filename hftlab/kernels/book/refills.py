"""Which modifications cost an order its place although they ask for no more than it had: refills of icebergs.

An order that shows only a part of itself is refilled when that part was taken. A venue tells the execution
(F), and then what is shown from now on (M), often as much as before. To a book that takes only the M for a
change nothing happened; at the venue the new lots go to the back of the level. So each order's executions
are followed until an A, C or M says what is open.
"""

from __future__ import annotations

import numpy as np

from hftlab.codes import MAX_QTY, NOT_A_VALUE, MboAction
from hftlab.kernels.primitives.compile import kernel
from hftlab.kernels.primitives.hash_index import discard, find, home, store
from hftlab.kernels.primitives.intrinsics import bare, ix, prefetch

FOLLOWED = np.dtype(
    [
        ("open_qty", "i8"),  # lots, as A, M and C tell them
        ("executed_qty", "i8"),  # lots that F told since, and no C or M has reported
        ("life", "i4"),  # of its book, which each R ends
        ("next", "i4"),  # the next free place, where this one is
    ],
    align=True,
)  # 24 bytes

FETCHED = 8  # rows whose index entry is fetched early

NEXT, FREE, KEYS = range(3)  # of counts: first place never used, a free one (0: none), keys in the index

_A, _M, _C, _R, _F = (int(MboAction[name]) for name in "AMCRF")


@kernel
def mark_refills(action, order_id, book, price, size, index, followed, lives, counts, marks):
    """Mark every M that gives its order more than executions have left of it; what is open is kept.

    The first five are columns of facts. `index` maps (order_id, book) to places of `followed`, from 1 on;
    `lives` [books] counts each book's R; `counts` [3] is described above. Place and index have room for as
    many more orders as the facts add. A fact without a legal size or price is passed over.
    """
    action, order_id, book = bare(action), bare(order_id), bare(book)
    price, size, marks = bare(price), bare(size), bare(marks)
    index, followed, lives = bare(index), bare(followed), bare(lives)
    for row in range(action.size):
        at, ahead = ix(row), ix(min(row + FETCHED, action.size - 1))
        prefetch(index, home(index, order_id[ahead], np.int64(book[ahead])))
        what, number, qty = np.int64(action[at]), np.int64(book[at]), size[at]
        if what == _R:
            lives[ix(number)] += 1
            continue
        if what > _C and what != _F:
            continue
        entry = find(index, order_id[at], number)
        place = np.int64(index[ix(entry)]["value"])
        is_open = place != 0 and followed[ix(place)]["life"] == lives[ix(number)]
        if what == _F:
            if is_open:
                executed = followed[ix(place)]["executed_qty"]
                followed[ix(place)]["executed_qty"] += min(max(qty, np.int64(0)), MAX_QTY - executed)
            continue
        if qty <= 0 or (what != _C and price[at] == NOT_A_VALUE) or is_open == (what == _A):
            continue
        if what == _C:
            executed = followed[ix(place)]["executed_qty"]
            followed[ix(place)]["executed_qty"] = max(executed - qty, np.int64(0))
            followed[ix(place)]["open_qty"] -= min(qty, followed[ix(place)]["open_qty"])
            if followed[ix(place)]["open_qty"] == 0:
                discard(index, entry)
                followed[ix(place)]["next"] = counts[FREE]
                counts[FREE] = place
                counts[KEYS] -= 1
            continue
        if what == _A and place == 0:
            place = counts[FREE]
            if place != 0:
                counts[FREE] = followed[ix(place)]["next"]
            else:
                place = counts[NEXT]
                counts[NEXT] += 1
            store(index, entry, order_id[at], number, place)
            counts[KEYS] += 1
        if what == _M:
            executed = followed[ix(place)]["executed_qty"]
            marks[at] = executed > 0 and qty > followed[ix(place)]["open_qty"] - executed
        followed[ix(place)]["open_qty"], followed[ix(place)]["executed_qty"] = qty, 0
        followed[ix(place)]["life"] = lives[ix(number)]
