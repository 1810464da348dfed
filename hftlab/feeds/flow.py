"""What every feed returns: one table of order flow, where it came from, and what was odd about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa

from hftlab.errors import UsageError

Kind = Literal["orders", "mbo"]


class Flow:
    """Order flow from one source, as a table.

    A feed needs no more than ``Flow(path, "myformat", "mbo", table)``; where reading is expensive, a
    function that returns the table takes the table's place, and is called once. Row order is the only
    order. No row is left out here: `symbols` is carried for whoever replays, because `seq` counts rows
    before any filter.

    Attributes: `path`, `format` (the feed's name), `kind` ("orders" for commands or "mbo" for facts: what
    `table` holds), `symbols` (the ones asked for, None for all), `notes` (counted quirks, for people),
    `options` (what the feed was asked for beside that).
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
    ) -> None:
        self.path, self.format, self.kind = Path(path), format, kind
        self.symbols = split_symbols(symbols)
        self.notes = list(notes)
        self._source, self._batches, self._num_rows = source, batches, num_rows
        self._orders: pa.Table | None = None
        self.options: dict[str, object] = {}

    def table(self) -> pa.Table:
        """The table the source natively is: schema ORDERS or MBO of `hftlab.schema`, perhaps more columns.

        Raises FormatError where the source turns out to be broken only on reading.
        """
        if not isinstance(self._source, pa.Table):
            self._source = self._source()
        return self._source

    def orders(self) -> pa.Table:
        """Commands: the table itself, or what `infer_orders` concludes from facts."""
        if self.kind == "orders":
            return self.table()
        if self._orders is None:
            from hftlab.inference import infer_orders

            self._orders = infer_orders(self.table())
        return self._orders

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

    def __repr__(self) -> str:
        known = isinstance(self._source, pa.Table) or self._num_rows is not None
        rows = f", {self.num_rows:,} rows" if known else ""
        symbols = f", symbols={','.join(self.symbols)}" if self.symbols else ""
        return f"<Flow {self.format} {self.kind} {str(self.path)!r}{rows}{symbols}>"


def split_symbols(symbols: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """None for all; a string may hold several, with commas, as on a command line."""
    if symbols is None:
        return None
    if not isinstance(symbols, Iterable):
        raise UsageError(f"symbols: found {symbols!r}, expected names, or one text with commas")
    names = symbols.split(",") if isinstance(symbols, str) else symbols
    found = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not found:
        raise UsageError(f"symbols {symbols!r} name no instrument")
    return found
