"""What a run of a tape does, decided once before it starts: who runs what, in which order, in which chunks.

A plan is made from the tape and from what the risk gate knows before the first row; making it changes
neither. Everything below only follows it: plan -> workers -> kernels -> merged results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hftlab.kernels.risk_gate.row_checks import marking_rows
from hftlab.risk_gate.control_rows import first_kill
from hftlab.risk_gate.limits import Limits
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.tables import ABSENT, frozen
from hftlab.tape.tape import Tape

FIRST_CHUNK = 1 << 16  # rows before the first audit; each chunk is four times the one before


class Partition(NamedTuple):
    """Whole instruments: indices [start, stop) of the tape, where input rows ascend."""

    start: int
    stop: int


class Chunk(NamedTuple):
    """Rows [first, stop) of the input that are run under the same limits."""

    first: int
    stop: int
    seq: int  # limits that change at or before this row of the input are in force


class Marks(NamedTuple):
    """When positions are marked."""

    rows: np.ndarray  # int64: before which
    clock: np.ndarray  # int64 [2]: the manager's `mark_clock` behind the last row


@dataclass(frozen=True)
class RunPlan:
    """A run of a tape, before it starts."""

    tape: Tape
    threads: int
    touch: bool  # whether changes of the touch are recorded
    partitions: list[list[Partition]]  # by worker
    chunks: list[Chunk]  # all rows, between changes of limits
    tied: bool  # whether what happens in one partition may change what is allowed in another
    apart_until: int  # where workers run side by side, they may up to this row: a kill reaches all books
    marks: Marks

    @property
    def whole(self) -> list[Partition]:
        """All of the tape, for one worker."""
        return [Partition(0, self.tape.rows)]

    @cached_property
    def index_of_row(self) -> np.ndarray:
        """Where each input row is on the tape (int32): the order of rows, where partitions are tied."""
        indices = np.empty(self.tape.rows, np.int32)
        indices[self.tape.commands.order] = np.arange(self.tape.rows, dtype=np.int32)
        return indices

    def indices(self, partition: Partition, chunk: Chunk) -> tuple[int, int]:
        """Where the rows of a chunk are in a partition: indices [start, stop) of the tape."""
        if (chunk.first, chunk.stop) == (0, self.tape.rows):
            return partition
        order = self.tape.commands.order
        if not order.size:
            return chunk.first, chunk.stop
        rows = order[partition.start : partition.stop]
        first, stop = np.searchsorted(rows, (chunk.first, chunk.stop)).tolist()
        return partition.start + first, partition.start + stop


def make_plan(
    tape: Tape, threads: int = 1, manager: RiskManager | None = None, touch: bool = False
) -> RunPlan:
    """Plan a run of a tape on so many threads, behind a risk gate if there is a `manager`."""
    may_tie = manager is not None and tape.parts.size > 2
    kill = first_kill(tape.checked) if may_tie else tape.rows
    return RunPlan(
        tape,
        threads,
        touch,
        partitions_by_worker(tape, threads),
        chunks_of(tape, [row for row, _ in manager.changes] if manager is not None else []),
        may_tie and (manager.has_money or kill < tape.rows),
        kill if threads > 1 else 0,
        marks_of(tape, manager),
    )


def partitions_for(threads: int, limits: Limits | None) -> int:
    """How many partitions to cut a tape into: one where limits tie instruments together.

    What goes on in input order beside the books, checks 1 to 7 and the audit, takes longer than one thread
    takes for all of it; a tape that is in partitions already still runs side by side.
    """
    return 1 if limits is not None and limits.ties_instruments else threads


def partitions_by_worker(tape: Tape, threads: int) -> list[list[Partition]]:
    """The partitions of a tape, shared out to workers by size; none is without."""
    partitions = [Partition(*bounds) for bounds in pairwise(tape.parts.tolist())]
    if threads == 1:
        return [partitions]
    workers: list[list[Partition]] = [[] for _ in range(min(threads, len(partitions)))]
    loads = [0] * len(workers)
    for start, stop in sorted(partitions, key=lambda partition: partition.start - partition.stop):
        lightest = loads.index(min(loads))
        loads[lightest] += stop - start
        workers[lightest].append(Partition(start, stop))
    return [own for own in workers if own]


def chunks_of(tape: Tape, changes: Sequence[int]) -> list[Chunk]:
    """The rows of a tape between changes of limits, which are given as rows of the input, ascending."""
    at = np.searchsorted(tape.seqs, changes).tolist() if changes else []
    bounds = [(first, stop) for first, stop in pairwise([0, *at, tape.rows]) if first < stop]
    seqs = tape.seq(np.array([first for first, _ in bounds], np.int64)).tolist()
    return [Chunk(*rows, seq) for rows, seq in zip(bounds, seqs, strict=True)]


def chunks_from(chunks: Sequence[Chunk], row: int) -> list[Chunk]:
    """What is left of chunks from a row on."""
    return [chunk._replace(first=max(chunk.first, row)) for chunk in chunks if row < chunk.stop]


def chunks_between_audits(chunks: Sequence[Chunk], until: int) -> Iterator[Chunk]:
    """The rows of chunks before `until`, cut so that little is lost where a limit is touched soon."""
    size = FIRST_CHUNK
    for first, last, seq in chunks:
        while first < min(last, until):
            stop = min(last, until, first + size)
            yield Chunk(first, stop, seq)
            first, size = stop, 4 * size


def marks_of(tape: Tape, manager: RiskManager | None) -> Marks:
    """When positions are marked; never, where no limit is on money."""
    if manager is None:
        return Marks(ABSENT["i8"], ABSENT["i8"])
    clock = manager.mark_clock.copy()
    if not manager.has_money:
        return Marks(ABSENT["i8"], clock)
    checked, found = tape.checked, np.empty(tape.rows, np.int64)
    interval = np.int64(manager.limits.mark_interval)
    count = marking_rows(checked.ts, checked.first_row, tape.rows, interval, clock, found)
    return Marks(frozen(found[:count].copy(), "i8"), clock)
