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
from hftlab.kernels.results.book_states import NOT_OPEN, Foresight, Standings, States, foresee, run_queues
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
    """Where the order of each execution stands at that moment: `places` of `queue_standings`."""
    return queue_standings(tape, executed_qty, np.arange(tape.rows), np.zeros(tape.rows, np.bool_)).places


def queue_standings(tape: Tape, executed_qty: np.ndarray, group: np.ndarray, added: np.ndarray) -> Standings:
    """Where the order of each execution stands, bits of kernels.states, on a rebuild tape of one part.

    `executed_qty` is how many lots a row says were executed of the order it names, -1 where it is no
    execution; the book changes with the message behind it. `group` [rows] says which executions belong
    together (to an event, to an incoming order), each group of one instrument; `added` [rows] where an order
    is added.
    """
    books = opened_books(tape)
    outputs = empty_outputs(tape, tape.width)
    pending, coming = np.zeros((2, books.orders.size), np.int64)
    standings = Standings(*(np.zeros(tape.rows, kind) for kind in (np.uint8, np.uint8, np.int32)))
    standings.ranks[:] = NOT_OPEN
    executed_qty = frozen(executed_qty, "i8")
    foresight = _foresight(tape.commands.rows["slot"], executed_qty, group, added)
    modified = np.zeros(books.orders.size, np.bool_)
    run_queues(books, tape.commands, outputs, executed_qty, foresight, pending, coming, modified, standings)
    return standings


def _foresight(
    order_slot: np.ndarray, executed_qty: np.ndarray, group: np.ndarray, added: np.ndarray
) -> Foresight:
    """What each group of executions will take of each order, in the order in which the groups begin."""
    _, starts, group = np.unique(group, return_index=True, return_inverse=True)
    facts = np.flatnonzero((executed_qty >= 0) | added)
    facts = facts[np.argsort(order_slot[facts], kind="stable")]  # a rebuild gives no order's slot to another
    new = np.append(True, order_slot[facts][1:] != order_slot[facts][:-1])[: facts.size]
    columns = np.zeros((3, np.count_nonzero(executed_qty >= 0)), np.int64)
    made = Foresight(np.zeros(executed_qty.size, np.int64), *columns)
    given = (facts, group[facts], executed_qty[facts], added[facts], new, starts)
    types = ("i8", "i8", "i8", "?", "?", "i8")
    count = foresee(*(frozen(*pair) for pair in zip(given, types, strict=True)), made)
    in_turn = np.argsort(made.rows[:count], kind="stable")
    in_turn = [frozen(column[:count][in_turn], "i8") for column in made[1:]]
    return Foresight(frozen(made.later, "i8"), *in_turn)
