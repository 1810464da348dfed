"""A venue of the slow twin's kind, and what it reports: commands in, the mbo facts a feed would carry out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from hftlab.codes import MBO_FLAG_LAST, Action, MboAction, Status
from hftlab.schema import MBO, code_array
from tests.reference.book import Command, ReferenceBook

CHANGES = {Status.RESTING, Status.CANCELLED, Status.REPLACED, Status.FILLED, Status.EXPIRED}


class Reporter:
    """Runs commands and writes down facts, in the feeds' own vocabulary."""

    def __init__(self, tick: int, named_aggressors: bool = False) -> None:
        self.tick, self.named = tick, named_aggressors
        self.books: dict[Any, ReferenceBook] = {}
        self.rows: list[tuple] = []  # ts, symbol, action, side, price, size, id, flags, sequence

    def run(self, rows: Iterable[tuple]) -> pa.Table:
        """The mbo table of rows of (ts, symbol, *Command)."""
        for sequence, (ts, symbol, *fields) in enumerate(rows):
            command = Command(*fields)
            book = self.books.setdefault(symbol, ReferenceBook(self.tick, False))
            before = {i: (o.side, o.level.price, o.open_qty) for i, o in book.open.items()}
            outcome = book.apply(command)
            if outcome.status in CHANGES:
                facts = list(self._facts(command, outcome, before, book))
                for place, fact in enumerate(facts):
                    flags = MBO_FLAG_LAST if place == len(facts) - 1 else 0
                    self.rows.append((ts, symbol, *fact, flags, sequence))
        return self._table()

    def _facts(self, command: Command, outcome: Any, before: dict, book: ReferenceBook):
        """What the venue says about one command that changed something."""
        id_ = command.order_id
        if command.action == Action.CLEAR:
            yield MboAction.R, 0, 0, 0, 0
        elif command.action in (Action.CANCEL, Action.REDUCE, Action.MASS_CANCEL):
            for order, (side, price, qty) in before.items():
                now = book.open[order].open_qty if order in book.open else 0
                if now < qty:
                    yield MboAction.C, side, price, qty - now, order
        elif command.action == Action.REPLACE:
            yield from self._replaced(command, outcome, before, book)
        else:
            yield from self._executed(outcome, command.side, id_, before)
            if outcome.leaves_qty:
                order = book.open[id_]
                yield MboAction.A, order.side, order.level.price, order.open_qty, id_

    def _replaced(self, command: Command, outcome: Any, before: dict, book: ReferenceBook):
        side, price, qty = before[command.order_id]
        new_id = command.order_id if command.new_order_id is None else command.new_order_id
        in_place = new_id == command.order_id and not outcome.fills and outcome.leaves_qty
        if in_place:
            order = book.open[new_id]
            yield MboAction.M, side, order.level.price, order.open_qty, new_id
            return
        yield MboAction.C, side, price, qty, command.order_id
        yield from self._executed(outcome, side, new_id, before)
        if outcome.leaves_qty:
            order = book.open[new_id]
            yield MboAction.A, side, order.level.price, order.open_qty, new_id

    def _executed(self, outcome: Any, side: int, taker: int, before: dict):
        """T names the aggressor, if this venue does; then F and C for each maker."""
        if outcome.fills and self.named:
            yield MboAction.T, side, outcome.fills[-1].price, outcome.filled_qty, taker
        for fill in outcome.fills:
            yield MboAction.F, -side, fill.price, fill.qty, fill.maker_order_id
            yield MboAction.C, -side, fill.price, fill.qty, fill.maker_order_id

    def _table(self) -> pa.Table:
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * 9
        ts, symbol, action, side, price, size, order_id, flags, sequence = columns
        stamps = pa.array(np.array(ts, np.int64)).cast(MBO.field("ts_event").type)
        arrays = [
            stamps,
            stamps,
            pa.array(symbol, pa.string()).dictionary_encode().cast(MBO.field("symbol").type),
            code_array(np.array(action, np.int8), MboAction),
            pa.array(side, pa.int8()),
            pa.array(price, pa.int64()),
            pa.array(size, pa.int64()),
            pa.array(order_id, pa.uint64()),
            pa.array(flags, pa.uint8()),
            pa.array(sequence, pa.int64()),
        ]
        return pa.Table.from_arrays(arrays, schema=MBO)
