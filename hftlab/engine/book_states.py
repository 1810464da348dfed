"""Runs of a tape that look at its books on the way: what crossed, how they looked, where orders stood."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from hftlab.engine.runner import TapeRun
from hftlab.engine.workers import (
    STEP,
    Progress,
    empty_outputs,
    opened_books,
)
from hftlab.kernels.results.book_states import States, run_queues
from hftlab.kernels.results.book_states import run_states as states_kernel
from hftlab.tape.open_orders import open_orders
from hftlab.tape.tables import ABSENT, frozen
from hftlab.tape.tape import Tape


def run_states(tape: Tape, levels: int = 0, progress: Progress | None = None) -> tuple[TapeRun, States]:
    """Run a tape of one part, and note what crossed and how the books looked (see kernels.states).

    `levels` is how many a side are hashed after each command, 0 for none.
    """
    books = opened_books(tape)
    outputs = empty_outputs(tape, tape.width)
    outputs = outputs._replace(fills=np.empty(2 * tape.incoming + tape.opening.count, outputs.fills.dtype))
    hashed = tape.rows if levels else 0
    states = States(
        np.empty(tape.rows, np.uint8),
        np.empty(hashed, np.int64),
        np.empty(hashed, np.int64),
    )
    fills, start = 0, perf_counter()
    for begin in range(0, tape.rows, STEP):
        end = min(begin + STEP, tape.rows)
        fills = states_kernel(books, tape.grid, tape.commands, outputs, levels, states, begin, end, fills)
        if progress is not None:
            progress(end - begin)
    run = TapeRun(
        tape,
        outputs.fills[:fills],
        ABSENT["i8"],
        outputs.outcomes,
        outputs.filled,
        outputs.leaves,
        None,
        lambda: open_orders(books, tape.grid, tape.slots, lambda nodes: tape.ids(books.entries[nodes])),
        perf_counter() - start,
    )
    return run, states


def queue_places(tape: Tape, executed_qty: np.ndarray) -> np.ndarray:
    """Where the order of each execution stands, bits of kernels.states, on a rebuild tape of one part.

    `executed_qty` is the lots that were executed of the order a row names, -1 where it is no execution; the
    book changes with the fact behind it.
    """
    books = opened_books(tape)
    outputs = empty_outputs(tape, tape.width)
    places, pending = np.zeros(tape.rows, np.uint8), np.zeros(books.orders.size, np.int64)
    modified = np.zeros(books.orders.size, np.bool_)
    run_queues(books, tape.commands, outputs, frozen(executed_qty, "i8"), pending, modified, places)
    return places
