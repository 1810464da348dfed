"""What every feed returns: one table of order flow, where it came from, and what was odd about it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa

import hftlab
from hftlab.errors import UsageError, split_symbols
from hftlab.schema import REFILLS_KEY

Kind = Literal["orders", "mbo", "mbp"]
Refills = Literal["keep", "back"]  # an order's place, or a new one at the back of its level


class Fault(NamedTuple):
    """Damage met while reading, which did not stop it: what is whole before and after it is delivered."""

    where: str  # of the first: "byte 1,234" of the decompressed content, or "line 17", from 1
    found: str
    expected: str
    count: int = 1  # how often this kind was met

    def __str__(self) -> str:
        times = f" ({self.count:,} times, the first here)" if self.count > 1 else ""
        return f"{self.where}: found {self.found}, expected {self.expected}{times}"


def without_end(row: int, path: Path | None = None) -> Fault:
    """The last line (from 1) of a text file has no line end, and nothing else in it tells that it is whole.

    `path` is for a file other than the flow's.
    """
    where = f"line {row:,}" if path is None else f"{path}, line {row:,}"
    return Fault(where, "no line end", "one behind every row: this one may be cut")


class Flow:
    """Order flow from one source, as a table.

    A feed needs no more than ``Flow(path, "myformat", "mbo", table)``; where reading is expensive, a
    function that returns the table takes the table's place, and is called once. Row order is the only
    order. No row is left out here: `symbols` is carried for whoever replays, because `seq` counts rows
    before any filter. A feed that leaves out rows of other symbols says in a column `schema.SEQ` which rows
    of the whole these are.

    Attributes: `path`, `format` (the feed's name), `kind` (what `table` holds: "orders" for commands, "mbo"
    for facts by order, "mbp" for facts by price level), `symbols` (the ones asked for, None for all),
    `notes` (counted quirks, for people), `faults` (damage that was met), `options` (what the feed was asked
    for beside that), `extras` (further tables of the source, by name: `flow.extras["noii"]()`), `lot_size`
    (what one lot is of a coin or share, as text like "1e-8"; None where the feed doesn't know), `refills`
    (facts by order: what an M costs that gives its order more than executions left of it, as the refill of
    an iceberg does. "keep" leaves it its place, "back" is CME's rule). A feed that reads in pieces may add to
    notes and faults until the last piece was read. Tables carry `refills` in their schema's metadata.

    A flow can be pickled. One of `open_flow` goes as its path and options, some hundred bytes, and is opened
    again where it arrives: the file must be there. Any other goes as its table, with `extras`, read for that.

    Raises UsageError for another value of `refills`.
    """

    def __init__(
        self,
        path: str | Path,
        format: str,
        kind: Kind,
        source: pa.Table | Callable[[], pa.Table],
        *,
        symbols: str | Iterable[str] | None = None,
        notes: Iterable[str] = (),
        batches: Callable[[int], Iterator[pa.Table]] | None = None,
        num_rows: int | None = None,
        most_rows: int | None = None,
        faults: list[Fault] | None = None,
        extras: Mapping[str, Callable[[], pa.Table]] | None = None,
        refills: Refills = "keep",
        lot_size: str | Decimal | None = None,
    ) -> None:
        self.path, self.format, self.kind = Path(path), format, kind
        self.symbols = split_symbols(symbols)
        self.notes = notes if isinstance(notes, list) else list(notes)
        self.faults = [] if faults is None else faults
        self.extras = dict(extras or {})
        self.lot_size = None if lot_size is None else Decimal(lot_size)
        self._source, self._batches, self._num_rows = source, batches, num_rows
        self._most_rows = most_rows
        self.inferred: pa.Table | None = None  # the commands behind it, once `infer_orders` was asked
        self.options: dict[str, object] = {}
        self.refills = refills
        self.opened_with: dict[str, Any] | None = None  # what `open_flow` was called with

    @property
    def refills(self) -> Refills:
        """What a refill does to its order's place."""
        return self._refills

    @refills.setter
    def refills(self, rule: Refills) -> None:
        if rule not in get_args(Refills):
            raise UsageError(f"refills: found {rule!r}, expected one of {', '.join(get_args(Refills))}")
        self._refills, self.inferred = rule, None

    def table(self) -> pa.Table:
        """The table the source natively is: ORDERS, MBO or MBP of `hftlab.schema`, perhaps with more columns.

        Raises FormatError where the source turns out to be broken only on reading.
        """
        if not isinstance(self._source, pa.Table):
            self._source = self._source()
        return self._with_refills(self._source)

    def _with_refills(self, table: pa.Table) -> pa.Table:
        """The same table, which says what refills do."""
        metadata, rule = table.schema.metadata or {}, self.refills.encode()
        if self.kind != "mbo" or metadata.get(REFILLS_KEY, b"keep") == rule:
            return table
        return table.replace_schema_metadata(metadata | {REFILLS_KEY: rule})

    def orders(self) -> pa.Table:
        """What `hftlab.infer_orders` makes of this flow. Deprecated: call that."""
        warnings.warn("Flow.orders() is hftlab.infer_orders(flow) now", DeprecationWarning, stacklevel=2)
        return hftlab.infer_orders(self)

    def batches(self, rows: int) -> Iterator[pa.Table]:
        """The table in order, `rows` rows at a time, in bounded memory if the format allows it.

        The last batch may have fewer rows; a table without rows is one batch, which has its columns.
        """
        if rows < 1:
            raise UsageError(f"batches of {rows} rows, expected at least 1")
        if self._batches is not None and not isinstance(self._source, pa.Table):
            return map(self._with_refills, self._batches(rows))
        table = self.table()
        return (table.slice(start, rows) for start in range(0, max(1, table.num_rows), rows))

    @property
    def num_rows(self) -> int:
        """Rows of `table`; known without reading it where the format says."""
        return self.table().num_rows if self._num_rows is None else self._num_rows

    @property
    def known_rows(self) -> int | None:
        """Rows of `table`, None where only reading it would tell."""
        return self.table().num_rows if isinstance(self._source, pa.Table) else self._num_rows

    @property
    def most_rows(self) -> int | None:
        """A number that `num_rows` does not exceed, if one is known without reading."""
        return self._most_rows if self.known_rows is None else self.known_rows

    def __reduce__(self) -> tuple[object, ...]:
        if self.opened_with is not None:
            asked = {**self.opened_with, "path": self.path.absolute(), "symbols": self.symbols}
            return _open_again, (asked,)
        extras = {name: read() for name, read in self.extras.items()}
        return _made_again, (
            (self.path, self.format, self.kind, self.table()),
            {name: getattr(self, name) for name in ("symbols", "notes", "faults", "refills")},
            extras,
            self.options,
        )

    def __repr__(self) -> str:
        rows = "" if self.known_rows is None else f", {self.known_rows:,} rows"
        symbols = f", symbols={','.join(self.symbols)}" if self.symbols else ""
        return f"<Flow {self.format} {self.kind} {str(self.path)!r}{rows}{symbols}>"


def _open_again(asked: dict[str, Any]) -> Flow:
    """A flow of `open_flow` in another process."""
    return hftlab.open_flow(**asked)


def _made_again(
    given: tuple[Any, ...], how: dict[str, Any], extras: dict[str, pa.Table], options: dict[str, Any]
) -> Flow:
    """A flow that was sent as its tables."""
    flow = Flow(*given, **how, extras={name: partial(_itself, table) for name, table in extras.items()})
    flow.options = options
    return flow


def _itself(table: pa.Table) -> pa.Table:
    return table


def free_ids(real: np.ndarray, base: int, count: int) -> np.ndarray:
    """`count` consecutive uint64 ids not in `real`: from `base`, or above `real`, or in its first gap."""
    top = int(real.max()) if len(real) else 0
    start = base if top < base else top + 1
    if start + count >= 1 << 64:
        taken = np.unique(real)
        gaps = np.diff(taken, prepend=np.uint64(0))
        start = int(taken[np.argmax(gaps > count)]) - count
    return np.arange(count, dtype=np.uint64) + np.uint64(start)
