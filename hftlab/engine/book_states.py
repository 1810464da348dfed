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
from hftlab.kernels.results.book_states import NOT_OPEN, Foresight, Standings, States, foresee, run_queues
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


def queue_places(tape: Tape, told: np.ndarray) -> np.ndarray:
    """Where the order of each execution stands at that moment: `places` of `queue_standings`."""
    return queue_standings(tape, told, np.arange(tape.rows), np.zeros(tape.rows, np.bool_)).places


def queue_standings(tape: Tape, told: np.ndarray, group: np.ndarray, added: np.ndarray) -> Standings:
    """Where the order of each execution stands, bits of kernels.states, on a rebuild tape of one part.

    `told` is the lots that a row tells were executed of the order it names, -1 where it is no execution; the
    book changes with the fact behind it. `group` [rows] says which executions belong together (to an event,
    to an incoming order), each group of one instrument; `added` [rows] where an order is added.
    """
    books = opened_books(tape)
    outputs = empty_outputs(tape, tape.width)
    pending, coming = np.zeros((2, books.orders.size), np.int64)
    standings = Standings(*(np.zeros(tape.rows, kind) for kind in (np.uint8, np.uint8, np.int32)))
    standings.ranks[:] = NOT_OPEN
    told = frozen(told, "i8")
    foresight = _foresight(tape.commands.rows["slot"], told, group, added)
    modified = np.zeros(books.orders.size, np.bool_)
    run_queues(books, tape.commands, outputs, told, foresight, pending, coming, modified, standings)
    return standings


def _foresight(slot: np.ndarray, told: np.ndarray, group: np.ndarray, added: np.ndarray) -> Foresight:
    """What each group of executions will take of each order, in the order in which the groups begin."""
    _, starts, group = np.unique(group, return_index=True, return_inverse=True)
    facts = np.flatnonzero((told >= 0) | added)
    facts = facts[np.argsort(slot[facts], kind="stable")]  # a rebuild gives no order's slot to another
    new = np.append(True, slot[facts][1:] != slot[facts][:-1])[: facts.size]
    made = Foresight(np.zeros(told.size, np.int64), *np.zeros((3, np.count_nonzero(told >= 0)), np.int64))
    given = (facts, group[facts], told[facts], added[facts], new, starts)
    types = ("i8", "i8", "i8", "?", "?", "i8")
    count = foresee(*(frozen(*pair) for pair in zip(given, types, strict=True)), made)
    in_turn = np.argsort(made.rows[:count], kind="stable")
    in_turn = [frozen(column[:count][in_turn], "i8") for column in made[1:]]
    return Foresight(frozen(made.later, "i8"), *in_turn)
