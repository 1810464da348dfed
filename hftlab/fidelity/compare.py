"""Rebuilt books against the ones a venue published: how many are exact, and where the first is not.

A run folder (`hftlab replay ... --mode rebuild --record depth --out RUN`), or a source that is rebuilt on the
spot, is compared with a file of published books (`hftlab.fidelity.venue_books` lists the formats). Books are
compared only at ends of events, level by level, price and size. What can't be compared is counted by its
reason, and every difference gets a cause.

The modules: the rebuilt books (`rebuilt_books`), the book that a published row belongs to (`row_pairing`),
the counts (`comparison`), and the comparison that needs no rebuilt books (`one_step`).
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from hftlab.config.settings import Config
from hftlab.errors import UsageError, require_positive
from hftlab.feeds import Flow
from hftlab.fidelity.comparison import Comparison, Tally
from hftlab.fidelity.one_step import one_step as by_steps
from hftlab.fidelity.rebuilt_books import rebuilt_books
from hftlab.fidelity.row_pairing import PAIRINGS, Events
from hftlab.fidelity.venue_books import ORDERBOOK, open_truth


def compare(
    flow: Flow | str | Path,
    truth: str | Path,
    *,
    levels: int | None = None,
    one_step: bool = False,
    symbol: str | None = None,
    config: Config | None = None,
    **options: Any,
) -> Comparison:
    """Compare rebuilt books with published ones.

    Parameters: `flow` is a run folder with depth or l1, or a source (or its `Flow`) to rebuild here, opened
    with `options` (`format`, `initial_book`, those of the feed); `truth` a file of published books; `levels`
    how many to compare, by default all that both sides have; `symbol` the instrument of a file without
    symbols, where the flow has several; `one_step` checks each row of a LOBSTER file against the one
    before instead.

    Raises UsageError for a wrong call, InputError for a run folder that doesn't fit its
    input, FormatError for broken files.
    """
    levels = None if levels is None else require_positive("levels", levels)
    with ExitStack() as stack:
        rebuilt = rebuilt_books(flow, config, options, stack)
        # sizes of a published file count the lots that the flow was opened with
        lot = rebuilt.flow.options.get("lot")
        published = open_truth(truth, lot)
        if one_step:  # needs the messages only, so no book is rebuilt
            return by_steps(rebuilt.flow, published, rebuilt.name)
        most = min(published.levels, rebuilt.levels or published.levels)
        if levels is not None and levels > most:
            raise UsageError(f"levels: found {levels}, expected at most {most}: what both sides have")
        wanted = levels or most
        events = Events(rebuilt.flow)
        pairs = PAIRINGS[published.kind](events, published, symbol)
        tally = Tally(wanted, pairs.explain)
        pairs.run(partial(rebuilt.states, wanted, pairs.last_row), tally)
    notes = pairs.notes()
    # LOBSTER files begin in the middle of a day: without the first row orders are missing
    if not events.seeded and published.kind == ORDERBOOK and tally.exact < tally.rows:
        notes.insert(0, "the book began empty: initial_book gives it the first published row")
    return tally.comparison(rebuilt.name, published, rebuilt.flow, pairs.not_compared, notes)
