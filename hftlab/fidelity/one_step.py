"""One step at a time: whether each published book follows from the one before and its message.

This needs less than a rebuilt book. It works for LOBSTER files that leave out orders, such as level-1
samples, from which no book can be rebuilt.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import polars as pl

from hftlab.codes import UNDEF_PRICE
from hftlab.errors import UsageError
from hftlab.feeds import Flow
from hftlab.fidelity.comparison import NO_EVENT, NO_ROW, Comparison, Tally, ranked
from hftlab.fidelity.rebuilt_books import BATCH_ROWS
from hftlab.fidelity.venue_books import ORDERBOOK, Truth
from hftlab.schema import to_frame

REVEALED = "a level from behind the published ones is revealed (consistent each time)"
FIRST = "the first row, which follows from none"
CONTRADICTION = "the message doesn't lead from one row to the next"


class _Changes(NamedTuple):
    """What each message does to a level, by message number."""

    side: np.ndarray  # 0 where it does nothing
    price: np.ndarray
    size: np.ndarray  # what comes; negative: what goes
    row: np.ndarray  # of the flow, the message's last
    ts: np.ndarray
    symbol: str


def one_step(flow: Flow, truth: Truth, name: str) -> Comparison:
    """Whether each published row follows from the one before and its message."""
    if truth.kind != ORDERBOOK:
        raise UsageError(f"{truth.path}: found {truth.kind}, expected a {ORDERBOOK} file to go step by step")
    changes = _changes(flow)
    messages = changes.side.size
    tally, counts = Tally(truth.levels, lambda *_: CONTRADICTION), Counter[str]()
    before = None
    for block in truth.blocks():
        rows, after = block.row, block.values
        if before is None:  # the first row of the file follows from no other
            before, rows, after = after[:, :1], rows[1:], after[:, 1:]
            counts[FIRST] = 1
        previous = np.concatenate([before, after[:, :-1]], axis=1)
        before = np.concatenate([before, after], axis=1)[:, -1:]
        counts[NO_EVENT] += int((rows >= messages).sum())
        known = rows < messages
        rows, previous, after = rows[known], previous[:, known], after[:, known]
        expected, revealed, refuted = _step(previous, after, changes, rows)
        counts[REVEALED] += int(revealed.sum())
        ends = pl.DataFrame({"row": changes.row[rows], "sequence": rows, "ts": changes.ts[rows]})
        ends = ends.with_columns(symbol=pl.lit(changes.symbol), flags=pl.lit(0))
        # a revealed level can be neither right nor wrong, so such rows are counted apart
        there = np.flatnonzero(~revealed)
        tally.add(expected[:, there], after[:, there], ends, there, rows[there], refuted[there])
    counts[NO_ROW] = messages - tally.rows - counts[REVEALED] - counts[FIRST]
    return tally.comparison(name, truth, flow, counts, one_step=True)


def _changes(flow: Flow) -> _Changes:
    """The changes of a flow of LOBSTER messages.

    Raises UsageError for facts that can't be those: several changes in one message, other numbers.
    """
    if flow.kind != "mbo":
        raise UsageError(f"{flow.path}: found {flow.kind}, expected the messages of a {ORDERBOOK} file")
    frames, first = [], 0
    for table in flow.batches(BATCH_ROWS):
        frame = to_frame(table.select(["ts_event", "symbol", "action", "side", "price", "size", "sequence"]))
        frame = frame.with_columns(
            pl.col("action", "symbol").cast(pl.String), pl.col("ts_event").cast(pl.Int64)
        )
        frames.append(frame.with_columns(row=pl.int_range(first, first + frame.height, dtype=pl.Int64)))
        first += table.num_rows
    facts = pl.concat(frames).filter(pl.col("sequence") >= 0)
    changing = facts.filter(~pl.col("action").is_in(["T", "F", "N"]))
    messages = int(facts["sequence"].to_numpy().max()) + 1 if facts.height else 0
    # a LOBSTER message is one A or C; anything else comes from another format
    strange = not changing["action"].is_in(["A", "C"]).all() or changing["sequence"].is_duplicated().any()
    if strange or messages > 2 * facts.height:
        raise UsageError(
            f"{flow.path}: found facts of another kind, expected the messages of a {ORDERBOOK} file"
        )
    by_message = np.zeros((5, messages), np.int64)
    number = changing["sequence"].to_numpy()
    sign = np.where(changing["action"].to_numpy() == "A", 1, -1)
    for index, values in enumerate((changing["side"], changing["price"], changing["size"] * sign)):
        by_message[index, number] = values.to_numpy()
    ends = facts.unique("sequence", keep="last", maintain_order=True)
    by_message[3:, ends["sequence"].to_numpy()] = ends["row"].to_numpy(), ends["ts_event"].to_numpy()
    side, price, size, row, ts = by_message
    return _Changes(side, price, size, row, ts, facts["symbol"][0] if facts.height else "")


def _step(
    before: np.ndarray, after: np.ndarray, changes: _Changes, messages: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Books [4, rows, levels] after one message each; which of them reveal a level; which can't be.

    When a level goes, one from behind the published ones takes the last place. All that is known of it is
    that it is worse than the others, so the one in `after` is accepted if it is.
    """
    expected = before.copy()
    revealed, refuted = np.zeros((2, messages.size), bool)
    for side, px in ((1, 0), (-1, 2)):
        rows = np.flatnonzero(changes.side[messages] == side)
        of = messages[rows]
        prices, sizes = before[px][rows], before[px + 1][rows]
        rank, price = ranked(side, prices), changes.price[of]
        better = (rank > side * price[:, None]).sum(axis=1)  # levels before the message's price
        levels = prices.shape[1]
        inside, index = better < levels, np.minimum(better, levels - 1)
        here = (np.arange(rows.size), index)
        there = inside & (prices[here] == price)
        # a level that would go below zero, or that is not there to be reduced, contradicts the message
        left = np.where(there, sizes[here], 0) + changes.size[of]
        refuted[rows] = inside & (left < 0) | (~there & inside & (changes.size[of] < 0))
        # a new level pushes those from here on one back, one that is emptied pulls them one up
        shift = np.where(inside & ~there & (left > 0), -1, np.where(there & (left == 0), 1, 0))
        column = np.arange(levels)
        moved = column + np.where(column >= index[:, None], shift[:, None], 0)
        out = moved >= levels
        moved = np.clip(moved, 0, levels - 1)
        new_prices = np.where(out, UNDEF_PRICE, np.take_along_axis(prices, moved, 1))
        new_sizes = np.where(out, 0, np.take_along_axis(sizes, moved, 1))
        sets = inside & (left > 0)
        new_prices[here] = np.where(sets, price, new_prices[here])
        new_sizes[here] = np.where(sets, left, new_sizes[here])
        unknown = (shift == 1) & (prices[:, -1] != UNDEF_PRICE)
        worse = ranked(side, after[px][rows, -1]) < rank[:, -1]
        new_prices[:, -1] = np.where(unknown & worse, after[px][rows, -1], new_prices[:, -1])
        new_sizes[:, -1] = np.where(unknown & worse, after[px + 1][rows, -1], new_sizes[:, -1])
        expected[px][rows], expected[px + 1][rows] = new_prices, new_sizes
        revealed[rows] = unknown
    return expected, revealed & (expected == after).all(axis=(0, 2)) & ~refuted, refuted
