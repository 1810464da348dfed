"""Runs of a tape that look at its books on the way: what crossed, how they looked, where orders stood."""

from __future__ import annotations

from functools import partial
from time import perf_counter

import numpy as np

from hftlab.engine.plan import make_plan
from hftlab.engine.runner import TapeRun
from hftlab.engine.workers import (
    BatchRun,
    Progress,
    Worker,
    empty_outputs,
    open_run,
    opened_books,
    resting_in,
    run_chunk,
)
from hftlab.kernels.results import book_states
from hftlab.kernels.results.book_states import States
from hftlab.tape.tables import ABSENT, frozen
from hftlab.tape.tape import Tape


def run_states(tape: Tape, levels: int = 0, progress: Progress | None = None) -> tuple[TapeRun, States]:
    """Run a tape of one part, and note what crossed and how the books looked (see kernels.states).

    `levels` is how many a side are hashed after each command, 0 for none.
    """
    plan = make_plan(tape)
    run = open_run(plan, empty_outputs(tape, tape.width), None)
    worker = StatesWorker(run, levels)
    start = perf_counter()
    for chunk in plan.chunks:
        run_chunk([worker], None, chunk, progress)
    outputs = run.outputs
    return TapeRun(
        tape,
        worker.written_fills,
        ABSENT["i8"],
        outputs.outcomes,
        outputs.filled,
        outputs.leaves,
        None,
        partial(resting_in, run.books, tape),
        perf_counter() - start,
    ), worker.states


class StatesWorker(Worker):
    """A worker for all of a tape that notes what each command crossed and how the books looked after it."""

    def __init__(self, run: BatchRun, levels: int) -> None:
        """A worker for the only thread of a run without a gate."""
        super().__init__(run.plan, run.books, run.outputs, run.plan.whole)
        rows, self._levels = run.plan.tape.rows, levels
        hashed = rows if levels else 0
        self.states = States(np.empty(rows, np.uint8), np.empty(hashed, np.int64), np.empty(hashed, np.int64))

    def apply(self, start: int, stop: int) -> tuple[int, int]:
        """Apply the commands [start, stop) of the tape."""
        self.fills = book_states.run_states(
            self.books,
            self.plan.tape.grid,
            self.plan.tape.commands,
            self.outputs,
            self._levels,
            self.states,
            start,
            stop,
            self.fills,
        )
        return stop - start, 0


def queue_places(tape: Tape, executed_qty: np.ndarray) -> np.ndarray:
    """Where the order of each execution stands, bits of kernels.states, on a rebuild tape of one part.

    `executed_qty` is how many lots a row says were executed of the order it names, -1 where it is no
    execution; the book changes with the fact behind it.
    """
    books = opened_books(tape)
    outputs = empty_outputs(tape, tape.width)
    places, pending = np.zeros(tape.rows, np.uint8), np.zeros(books.orders.size, np.int64)
    modified, executed = np.zeros(books.orders.size, np.bool_), frozen(executed_qty, "i8")
    book_states.run_queues(books, tape.commands, outputs, executed, pending, modified, places)
    return places
