"""Where the tables of a replay come from, whole or in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from hftlab.codes import MBO_FLAG_LAST
from hftlab.errors import UsageError, table_of
from hftlab.feeds import Flow
from hftlab.replayer.inference import infer_orders
from hftlab.replayer.plan import (
    CHUNK_FROM,
    CHUNK_ROWS,
    MANY,
    Plan,
)
from hftlab.tape.compiler import check_tick_sizes
from hftlab.tape.facts import FactReader
from hftlab.tape.price_levels import LevelReader
from hftlab.tape.tables import CheckedTable, as_arrow, frozen, only_symbols, read_orders

Chunk = tuple[CheckedTable, int, float]  # rows, how many the symbol filter left out, seconds it took


class Source:
    """Where the tables of a replay come from, whole or in chunks."""

    def __init__(self, flow: Any, plan: Plan) -> None:
        self.flow, self.plan = flow, plan
        self.path = flow.path if isinstance(flow, Flow) else None
        self.table = None if isinstance(flow, Flow) else as_arrow(flow)
        kind = flow.kind if self.table is None else _kind(self.table)
        if plan.mode == "rebuild" and kind == "orders":
            what = self.path or "this table"
            raise UsageError(
                f"{what}: found orders (commands), expected an mbo table (facts) to rebuild from"
            )
        if plan.mode == "match" and kind == "mbp":
            raise UsageError(
                f"{self.path or 'this table'}: found price levels (mbp), expected orders or facts by order "
                "to match; levels can be rebuilt (mode rebuild)"
            )
        facts: dict[str, Callable[[pa.Table, int], CheckedTable]]
        facts = {"mbo": FactReader(), "mbp": LevelReader()}
        self.read = read_orders if plan.mode == "match" else facts[kind]
        # whether the source marks the ends of events: known of a table, of a file as far as it was read
        self.marks_ends = self.table is not None and _marks_ends(self.table)
        self.inferred = kind == "mbo" and plan.mode == "match"
        if self.inferred:  # inference looks at the whole flow, so it is read in one piece
            rows = flow.num_rows if self.table is None else self.table.num_rows
            self.plan = replace(plan, inferred_from=rows)
        elif self.table is None and plan.chunk_rows is None and (flow.most_rows or MANY) > CHUNK_FROM:
            self.plan = replace(plan, chunk_rows=CHUNK_ROWS)

    def tables(self) -> Iterator[pa.Table]:
        """The native table, or the commands inferred from it, in chunks if the plan has them."""
        rows = self.plan.chunk_rows
        if self.table is None and not self.inferred and rows is not None:
            yield from self.flow.batches(rows)
            return
        if self.inferred:
            table = infer_orders(self.flow if self.table is None else self.table)
        else:
            table = self.flow.table() if self.table is None else self.table
        for start in range(0, max(1, table.num_rows), rows or max(1, table.num_rows)):
            yield table.slice(start, rows)

    def chunks(self) -> Iterator[Chunk]:
        """The tables, checked. Raises UsageError at the end for a symbol that no row has."""
        first, started = 0, perf_counter()
        missing = dict.fromkeys(self.plan.symbols or ())  # dicts, for sets that keep their order
        known: dict[str, None] = {}
        for table in self.tables():
            checked = self._checked(table, first)
            first += checked.rows
            known |= dict.fromkeys(checked.symbols)
            skipped = 0
            if self.plan.symbols is not None:  # after the check: `seq` counts rows before the filter
                kept = only_symbols(checked, self.plan.symbols)
                checked, skipped = kept, checked.rows - kept.rows
                for book in np.unique(kept.columns.book) if kept.columns.book.size else range(kept.rows > 0):
                    missing.pop(kept.symbols[book], None)
            yield checked, skipped, perf_counter() - started
            started = perf_counter()
        check_tick_sizes(self.plan.tick_size, known)
        if self.plan.limits is not None:
            self.plan.limits.check_symbols(tuple(known))
        if missing:
            raise UsageError(f"symbols: found no rows of {', '.join(missing)}, expected symbols of the flow")

    def _checked(self, table: pa.Table, first: int) -> CheckedTable:
        """A chunk, checked; an error in it names the file."""
        with table_of(self.path):
            checked = self.read(table, first)
        if checked.ends.size and not self.marks_ends and first and "anomalies" in self.plan.record:
            # every row before was taken for the end of an event: whole, the same file would say otherwise
            raise UsageError(
                f"{self.path}: found the first mark of an event's end after row {first}, where a chunk ends, "
                "expected one in the first chunk to record anomalies: give a larger chunk_rows"
            )
        self.marks_ends |= checked.ends.size > 0
        # without marks every row would end an event, in the middle of one that began before
        if self.marks_ends and not checked.ends.size:  # no event ends in this chunk
            checked = replace(checked, ends=frozen(np.zeros(checked.rows), "?"))
        return checked


def _marks_ends(table: pa.Table) -> bool:
    """Whether some row of a table is marked as the end of an event."""
    if "flags" not in table.column_names or not pa.types.is_integer(table.schema.field("flags").type):
        return False
    flags = table.column("flags").drop_null().chunks
    return any((np.asarray(chunk) & MBO_FLAG_LAST).any() for chunk in flags)


def _kind(table: pa.Table) -> str:
    """Which kind of table this is, by its columns."""
    if "size" not in table.column_names or "qty" in table.column_names:
        return "orders"
    return "mbo" if "order_id" in table.column_names else "mbp"
