"""The rows of a tape as calls of OrderBook, one book per symbol, and the digest of the acks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from hftlab.codes import Action, Reason
from hftlab.config.lot_values import ONE, ONES, LotValues
from hftlab.engine.acks import Ack, Fill
from hftlab.engine.book_gate import Intervention
from hftlab.engine.order_book import OrderBook
from hftlab.engine.runner import TapeRun
from hftlab.kernels.book.opcodes import REJECTED
from hftlab.results import tables
from hftlab.results.digest import Digest
from hftlab.risk_gate.limits import Limits
from hftlab.tape.open_orders import Resting, nothing
from hftlab.tape.tape import Tape

GATE, SENDER = "gate", "sender"  # whose order a fill's taker was


def open_books(tape: Tape, limits: Limits | None = None, lots: LotValues = ONES) -> list[OrderBook]:
    """An empty book per symbol, each behind a gate of its own where there are limits."""
    worth = lots.of(tape.symbols).tolist()
    rules = zip(tape.symbols, tape.grid.ticks, tape.grid.rules["signed"], worth, strict=True)
    return [
        OrderBook(symbol, int(tick), bool(signed), limits, Decimal(lot) / ONE)
        for symbol, tick, signed, lot in rules
    ]


def calls_of(tape: Tape, books: list[OrderBook]) -> Iterator[tuple[int, Callable[..., Ack], tuple[Any, ...]]]:
    """Each row as (number of its book, method, arguments)."""
    columns, rows = tape.checked.columns, tape.rows

    def values(column: np.ndarray) -> list[int]:
        return column.tolist() if column.size else [0] * rows

    ids = columns.order_id.view("u8").tolist()
    new_ids = columns.new_order_id.view("u8").tolist() if columns.new_order_id.size else ids
    times = tape.ts(np.arange(rows)).tolist()
    for action, side, order_type, tif, post_only, order_id, new_id, price, qty, number, account, ts in zip(
        *map(values, columns[:5]), ids, new_ids, *map(values, columns[7:]), times, strict=True
    ):
        book = books[number]
        if action == Action.NEW:
            yield number, book.submit, (order_id, side, price, qty, order_type, tif, account, post_only, ts)
        elif action == Action.CANCEL:
            yield number, book.cancel, (order_id, account, ts)
        elif action == Action.REDUCE:
            yield number, book.reduce, (order_id, qty, account, ts)
        elif action == Action.REPLACE:
            yield number, book.replace, (order_id, price, qty, new_id, post_only, order_type, account, ts)
        elif action == Action.MASS_CANCEL:
            yield number, book.mass_cancel, (account, ts)
        elif action == Action.RISK_CONTROL:
            yield number, book.control, (qty, account, ts)
        else:
            yield number, book.clear, (account, ts)


def digest_of_acks(
    tape: Tape,
    books: list[OrderBook],
    acks: Iterable[tuple[int, Ack]],
    by_gate: Iterable[Sequence[Intervention]],
) -> str:
    """The digest of a run made of calls: (book, ack) by row, and the gate's own events at each row."""
    outcomes, filled, leaves, fills = [], [], [], []
    for row, ((book, ack), events) in enumerate(zip(acks, by_gate, strict=True)):
        rejected = ack.reason is not Reason.NONE
        outcomes.append(REJECTED + ack.reason if rejected else int(ack.status))
        filled.append(ack.filled_qty)
        leaves.append(ack.leaves_qty)
        fills += [(row, book, GATE, fill) for event in events for fill in event.fills]
        fills += [(row, book, SENDER, fill) for fill in ack.fills]
    none = np.empty(0)  # fills have their columns already: `_expanded`
    by_row = np.array(outcomes, "u1"), np.array(filled, "i8"), np.array(leaves, "i8")
    run = TapeRun(tape, none, none, *by_row, None, nothing, 0.0, ordered=True)
    digest = Digest()
    digest.add_run(run, _expanded(tape, fills))
    # each book numbers its own orders; the digest wants the number of the book in the tape
    resting = [book.resting()._replace(book=np.full(len(book), i, np.int32)) for i, book in enumerate(books)]
    return digest.with_book(
        tape.symbols, Resting(*(np.concatenate(parts) for parts in zip(*resting, strict=True)))
    )


def _expanded(tape: Tape, fills: list[tuple[int, int, str, Fill]]) -> tables.Fills:
    """Fills of acks as the columns a run's fills have."""
    columns, seq = tape.checked.columns, tape.seq(np.arange(tape.rows)).tolist()
    longs, ints = np.zeros((8, len(fills)), np.int64), np.zeros((3, len(fills)), np.int32)
    for i, (row, book, whose, fill) in enumerate(fills):
        replaces = columns.new_order_id.size and columns.action[row] == Action.REPLACE
        # the taker of a REPLACE is the new order; an order of the gate has no id
        taker = 0 if whose == GATE else (columns.new_order_id if replaces else columns.order_id)[row]
        maker = np.uint64(fill.maker_order_id).view(np.int64)
        longs[:, i] = seq[row], 0, fill.price, fill.qty, taker, maker, fill.taker_leaves, fill.maker_leaves
        ints[:, i] = book, fill.taker_account, fill.maker_account
    return tables.Fills(longs, ints, np.zeros(len(fills), np.int8))
