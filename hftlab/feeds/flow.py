"""What every feed returns: one table of order flow, where it came from, and what was odd about it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

import hftlab
from hftlab.errors import UsageError, split_symbols

Kind = Literal["orders", "mbo", "mbp"]


class Fault(NamedTuple):
    """Damage met while reading, which did not stop it: what is whole before and after it is delivered."""

    where: str  # of the first: "byte 1,234" of the decompressed content, or "row 17" (1-based)
    found: str
    expected: str
    count: int = 1  # how often this kind was met

    def __str__(self) -> str:
        times = f" ({self.count:,} times, the first here)" if self.count > 1 else ""
        return f"{self.where}: found {self.found}, expected {self.expected}{times}"


def without_end(row: int, path: Path | None = None) -> Fault:
    """The last row (1-based) of a text file has no line end, and nothing else in it tells that it is whole.

    `path` is for a file other than the flow's.
    """
    where = f"row {row:,}" if path is None else f"{path}, row {row:,}"
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
    for beside that), `lot_size` (what one lot is of a unit that prices are for, None where the source doesn't
    say), `extras` (further tables of the source, by name: `flow.extras["noii"]()`). A feed that
    reads in pieces may add to notes and faults until the last piece was read.
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

    def table(self) -> pa.Table:
        """The table the source natively is: ORDERS, MBO or MBP of `hftlab.schema`, perhaps with more columns.

        Raises FormatError where the source turns out to be broken only on reading.
        """
        if not isinstance(self._source, pa.Table):
            self._source = self._source()
        return self._source

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
            return self._batches(rows)
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

    def __repr__(self) -> str:
        rows = "" if self.known_rows is None else f", {self.known_rows:,} rows"
        symbols = f", symbols={','.join(self.symbols)}" if self.symbols else ""
        return f"<Flow {self.format} {self.kind} {str(self.path)!r}{rows}{symbols}>"


def free_ids(real: np.ndarray, base: int, count: int) -> np.ndarray:
    """`count` consecutive uint64 ids not in `real`: from `base`, or above `real`, or in its first gap."""
    top = int(real.max()) if len(real) else 0
    start = base if top < base else top + 1
    if start + count >= 1 << 64:
        taken = np.unique(real)
        gaps = np.diff(taken, prepend=np.uint64(0))
        start = int(taken[np.argmax(gaps > count)]) - count
    return np.arange(count, dtype=np.uint64) + np.uint64(start)
