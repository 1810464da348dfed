"""A comparison of books: how many rows are exact, level by level, and where the first is not.

`Tally` compares the books of both sides as arrays and gives every difference a cause; `Comparison` is its
report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from hftlab.codes import MBO_FLAG_MAYBE_BAD, UNDEF_PRICE
from hftlab.feeds import Flow
from hftlab.fidelity.venue_books import Truth

NO_EVENT, NO_ROW = "rows without an event of theirs in the flow", "events without a row of theirs in the file"
CAUSES = ("", "the size differs", "a level is left over", "a level is missing")
GAP = "after a gap in the capture"


class Touch(NamedTuple):
    """One level of both sides; no price where there is none."""

    bid_px: int | None  # 1e-9
    bid_sz: int  # lots
    ask_px: int | None
    ask_sz: int


@dataclass(frozen=True)
class Difference:
    """A row at which the two books differ."""

    row: int  # of the published file, 0-based
    seq: int  # row of the flow that ends the event
    sequence: int
    ts: int  # ns since the epoch
    symbol: str
    level: int  # 1-based, the first that differs
    cause: str
    rebuilt: Touch
    truth: Touch


@dataclass(frozen=True)
class LevelAgreement:
    """How often one level is exact: as a whole, with all above it, and each of its four numbers."""

    level: int  # 1-based
    exact: int
    exact_down_to: int  # rows where this level and every better one are exact
    bid_px: int
    bid_sz: int
    ask_px: int
    ask_sz: int


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    path: str
    truth: str
    kind: str  # of the published file
    one_step: bool
    levels: int  # compared on each side
    rows: int  # compared
    exact: int  # of them, equal in price and size on all levels
    by_level: tuple[LevelAgreement, ...]
    not_compared: dict[str, int]  # by reason
    causes: dict[str, int]  # of the rows that differ
    first: Difference | None
    notes: tuple[str, ...]
    faults: tuple[str, ...]  # damage, in the flow and in the published books

    @property
    def ok(self) -> bool:
        """Whether there was something to compare, and all of it is exact."""
        return 0 < self.rows == self.exact

    @property
    def share(self) -> float | None:
        """Exact rows of those compared."""
        return self.exact / self.rows if self.rows else None

    @property
    def table(self) -> pl.DataFrame:
        """Exact rows by level."""
        names = LevelAgreement.__dataclass_fields__
        rows = [asdict(level) for level in self.by_level]
        return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.Int64))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = asdict(self) | {"ok": self.ok, "share": self.share}
        if self.first is not None:
            plain["first"] |= {name: getattr(self.first, name)._asdict() for name in ("rebuilt", "truth")}
        return plain

    def __repr__(self) -> str:
        how = ", one step" if self.one_step else ""
        levels = "1 level" if self.levels == 1 else f"{self.levels} levels"
        return f"<Comparison {self.exact:,} of {self.rows:,} rows exact, {levels}{how}, {self.kind}>"


class Tally:
    """Counts of what is equal, and the first that isn't."""

    def __init__(self, levels: int, explain: Callable[[int, np.ndarray], str | None] | None) -> None:
        self.levels, self._explain = levels, explain
        self.rows = self.exact = 0
        self.causes: Counter[str] = Counter()
        self.first: Difference | None = None
        self._equal = np.zeros((4, levels), np.int64)
        self._level, self._down_to = np.zeros((2, levels), np.int64)

    def add(
        self,
        rebuilt: np.ndarray,
        truth: np.ndarray,
        ends: pl.DataFrame,
        at: np.ndarray,
        rows: np.ndarray,
        refuted: np.ndarray | None = None,
    ) -> None:
        """Books [4, rows, levels] of events `at`, and of these rows of the file; `refuted` ones are wrong."""
        equal = rebuilt == truth
        if refuted is not None:  # equal by chance, though the message contradicts it
            equal[:, refuted] = False
        level = equal.all(axis=0)
        down_to = np.logical_and.accumulate(level, axis=1)
        self.rows += rows.size
        self._equal += equal.sum(axis=1)
        self._level += level.sum(axis=0)
        self._down_to += down_to.sum(axis=0)
        wrong = np.flatnonzero(~down_to[:, -1])
        self.exact += rows.size - wrong.size
        if wrong.size:
            self._count(rebuilt[:, wrong], truth[:, wrong], ends[at[wrong]], at[wrong], rows[wrong])

    def _count(
        self, rebuilt: np.ndarray, truth: np.ndarray, ends: pl.DataFrame, at: np.ndarray, rows: np.ndarray
    ) -> None:
        """Give each of these books, which differ, its cause."""
        # the first level that differs decides the cause: one too many shifts all below it
        level = np.argmax((rebuilt != truth).any(axis=0), axis=1)
        here = np.arange(rows.size), level
        ours, theirs = rebuilt[:, *here], truth[:, *here]
        causes = np.array(CAUSES, object)[_kinds(ours, theirs)]
        if self._explain is not None:
            for i in range(rows.size):
                causes[i] = self._explain(int(at[i]), rebuilt[:, i]) or causes[i]
        # after a gap the flow itself may be wrong, whatever the levels look like
        causes[ends["flags"].to_numpy() & MBO_FLAG_MAYBE_BAD != 0] = GAP
        self.causes.update(causes.tolist())
        first = int(np.argmin(rows))
        if self.first is None or rows[first] < self.first.row:
            self.first = Difference(
                row=int(rows[first]),
                seq=ends["row"][first],
                sequence=ends["sequence"][first],
                ts=ends["ts"][first],
                symbol=ends["symbol"][first],
                level=int(level[first]) + 1,
                cause=causes[first],
                rebuilt=_touch(ours[:, first]),
                truth=_touch(theirs[:, first]),
            )

    def comparison(
        self,
        name: str,
        truth: Truth,
        flow: Flow,
        not_compared: Counter[str],
        notes: Sequence[str] = (),
        *,
        one_step: bool = False,
    ) -> Comparison:
        """The report; the notes of the flow follow those of the comparison."""
        counts = np.vstack([self._level, self._down_to, self._equal]).T.tolist()
        return Comparison(
            path=name,
            truth=str(truth.path),
            kind=truth.kind,
            one_step=one_step,
            levels=self.levels,
            rows=self.rows,
            exact=self.exact,
            by_level=tuple(LevelAgreement(level, *row) for level, row in enumerate(counts, 1)),
            not_compared={reason: count for reason, count in not_compared.items() if count > 0},
            causes=dict(self.causes.most_common()),
            first=self.first,
            notes=(*notes, *flow.notes),
            faults=tuple(map(str, (*flow.faults, *truth.faults))),
        )


def _kinds(rebuilt: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Indices into CAUSES of how levels [4, rows] differ: a missing level counts before one too many."""
    kinds = np.zeros(rebuilt.shape[1], np.int64)
    for side, px in ((1, 0), (-1, 2)):
        ours, theirs = ranked(side, rebuilt[px]), ranked(side, truth[px])
        by_size = (rebuilt[px + 1] != truth[px + 1]).astype(np.int64)
        kinds = np.maximum(kinds, np.where(theirs > ours, 3, np.where(theirs < ours, 2, by_size)))
    return kinds


def _touch(level: np.ndarray) -> Touch:
    bid_px, bid_sz, ask_px, ask_sz = level.tolist()
    prices = (None if px == UNDEF_PRICE else px for px in (bid_px, ask_px))
    return Touch(next(prices), bid_sz, next(prices), ask_sz)


def ranked(side: int, prices: np.ndarray) -> np.ndarray:
    """Better prices are larger; no level is the smallest."""
    return np.where(prices == UNDEF_PRICE, -UNDEF_PRICE, side * prices)
