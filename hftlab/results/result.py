"""`Result`: what `replay` returns. Tables, a digest, counts and times."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from hftlab import schema
from hftlab.codes import GateEvent, Reason, Status
from hftlab.config.settings import RECORDABLE
from hftlab.engine.runner import TapeRun
from hftlab.errors import MOST_LEVELS, UsageError, require_positive
from hftlab.kernels.book.opcodes import REJECTED
from hftlab.kernels.results.tables import LANES, count_outcomes
from hftlab.results import tables
from hftlab.results.digest import Digest
from hftlab.results.run_folder import manifest, write_run
from hftlab.tape.open_orders import Resting, book_table


def exact_sum(values: np.ndarray) -> int:
    """Sum of int64 values that may pass 2^63: high and low halves are summed apart."""
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFF_FFFF).sum())


class Counts:
    """What happened, over all chunks of a flow."""

    def __init__(self) -> None:
        self.rows = self.skipped = self.fills = self.filled_qty = self.chunks = 0
        self.by_outcome = np.zeros(256, np.int64)
        self.by_event = np.zeros(len(GateEvent), np.int64)
        self.fell_back = self.fell_back_rows = 0

    def add(self, run: TapeRun, skipped: int) -> None:
        """Add a run; `skipped` rows are of symbols that the filter left out."""
        self.rows += run.outcomes.size
        self.skipped += skipped
        self.fills += run.fills.size
        self.filled_qty += exact_sum(run.fills["qty"].astype(np.int64, copy=False))
        # counters in several lanes: neighbours are often equal, and one counter would wait for itself
        lanes = np.zeros((LANES, self.by_outcome.size), np.int64)
        count_outcomes(run.outcomes, lanes)
        self.by_outcome += lanes.sum(axis=0)
        if run.gate is not None:
            self.by_event += np.bincount(run.gate.events["kind"], minlength=self.by_event.size)
        self.fell_back += run.fell_back > 0
        self.fell_back_rows += run.fell_back
        self.chunks += 1

    @property
    def rejected(self) -> int:
        """Commands that changed nothing."""
        return int(self.by_outcome[REJECTED:].sum())

    def as_dict(self) -> dict[str, Any]:
        """Counts with names; accepted + rejected = rows."""
        statuses = {s.name: int(self.by_outcome[s]) for s in Status if s is not Status.REJECTED}
        reasons = {r.name: int(self.by_outcome[REJECTED + r]) for r in Reason if r is not Reason.NONE}
        return {
            "rows": self.rows,
            "accepted": self.rows - self.rejected,
            "rejected": self.rejected,
            "skipped": self.skipped,
            "fills": self.fills,
            "filled_qty": self.filled_qty,
            "statuses": {name: n for name, n in statuses.items() if n},
            "reasons": {name: n for name, n in reasons.items() if n},
            "fallbacks": {"pieces": self.fell_back, "rows": self.fell_back_rows},
            "gate_events": {
                event.name: int(n) for event, n in zip(GateEvent, self.by_event, strict=True) if n
            },
        }


class Result:
    """A finished replay.

    `fills`, `rejects`, `outcomes`, `l1`, `book`, `positions`, `pnl` and `depth(n)` are polars frames with the
    columns of `hftlab.schema` (prices int64 in units of 1e-9, quantities int64 lots; `.to_arrow()` for
    Arrow). After a replay in one piece any of them is there; after one in chunks, those that were recorded.

    A result can be pickled: its counts, digest, open orders and the tables that were recorded, which are made
    (or read back from the run folder) for that and go along whole. Others can't be asked for afterwards.
    """

    def __init__(
        self,
        *,
        digest: Digest,
        counts: Counts,
        symbols: tuple[str, ...],
        resting: Callable[[], Resting],
        settings: dict[str, Any],
        seconds: dict[str, float],
        tables: dict[str, Callable[[], pa.Table]],
        run: TapeRun | None = None,
        fills: Callable[[], tables.Fills] | None = None,
    ) -> None:
        self._digest, self._counts, self.symbols = digest, counts, symbols
        self._resting, self.settings, self.seconds = resting, settings, seconds
        self._made, self._run, self._fills = tables, run, fills
        self._cache: dict[Any, pa.Table] = {}

    @property
    def fills(self) -> pl.DataFrame:
        """One row per execution, in input order."""
        return schema.to_frame(self.to_arrow("fills"))

    @property
    def rejects(self) -> pl.DataFrame:
        """One row per refused command: stage, reason, limit and observed value."""
        return schema.to_frame(self.to_arrow("rejects"))

    @property
    def outcomes(self) -> pl.DataFrame:
        """One row per command: status, filled and leaves quantity."""
        return schema.to_frame(self.to_arrow("outcomes"))

    @property
    def l1(self) -> pl.DataFrame:
        """The touch after each command that changed it; a price is null where a side is empty."""
        return schema.to_frame(self.to_arrow("l1"))

    @property
    def book(self) -> pl.DataFrame:
        """Orders open at the end, in priority order: bids then asks of each symbol, best first."""
        return schema.to_frame(self.to_arrow("book"))

    @property
    def anomalies(self) -> pl.DataFrame:
        """Rows that were refused, and ends of events that left a book crossed or locked: one row each."""
        return schema.to_frame(self.to_arrow("anomalies"))

    @property
    def gate(self) -> pl.DataFrame:
        """What the risk gate did by itself: orders it cancelled, stop losses, positions it closed."""
        return schema.to_frame(self.to_arrow("gate"))

    @property
    def positions(self) -> pl.DataFrame:
        """What each account holds in each symbol at the end: average price, P&L, fees, open orders."""
        return schema.to_frame(self.to_arrow("positions"))

    @property
    def pnl(self) -> pl.DataFrame:
        """Position and P&L of both accounts of each fill after it, at its price; the taker's first."""
        return schema.to_frame(self.to_arrow("pnl"))

    def depth(self, levels: int | None = None) -> pl.DataFrame:
        """The best `levels` of each side after each command that changed them.

        Lists hold `UNDEF_PRICE` where there is no level; `to_wide(run.depth(10))` gives a column a level.
        """
        return schema.to_frame(self.to_arrow("depth", levels))

    def to_arrow(self, name: str, levels: int | None = None) -> pa.Table:
        """A table as Arrow. Raises UsageError for one that this replay can't give."""
        if name not in RECORDABLE:
            raise UsageError(f"table: found {name!r}, expected one of {', '.join(RECORDABLE)}")
        levels = self.settings["depth"] if levels is None else require_positive("levels", levels, MOST_LEVELS)
        key = (name, levels if name == "depth" else 0)
        if key not in self._cache:
            self._cache[key] = self._make(name, levels)
        return self._cache[key]

    @property
    def in_one_piece(self) -> bool:
        """Whether the flow was replayed in one piece: then any table can be made afterwards."""
        return self._run is not None

    def _make(self, name: str, levels: int) -> pa.Table:
        # a table that the replay kept; a depth of another number of levels must be made anew
        if name in self._made and (name != "depth" or levels == self.settings["depth"]):
            return self._made[name]()
        if name == "book":
            return book_table(self.symbols, self._resting())
        if self._run is None:
            what = f"depth of {levels} levels" if name == "depth" else name
            raise UsageError(
                f"{what} was not recorded, and a replay in chunks, or of another process, can't make it "
                f"afterwards: replay with record=({name!r}, ...)"
            )
        if name == "fills":
            return tables.fills_table(self._run.tape, self._expanded())
        if name == "depth":
            return tables.depth_table(self._run, levels)
        if name == "anomalies":
            return tables.anomalies_table(self._run)
        if name == "l1":
            return tables.l1_table(tables.with_touch(self._run))
        make = {
            "outcomes": tables.outcomes_table,
            "rejects": tables.rejects_table,
            "gate": tables.gate_table,
        }
        return make[name](self._run)

    def _expanded(self) -> tables.Fills:
        """The fills of a run in one piece, as columns."""
        assert self._fills is not None  # given with the run
        return self._fills()

    @cached_property
    def digest(self) -> str:
        """128 bits in hexadecimal over every outcome, every fill and the final book."""
        if self._run is not None:
            self._digest.add_run(self._run, self._expanded())
        return self._digest.with_book(self.symbols, self._resting())

    def summary(self) -> dict[str, Any]:
        """Counts, digest and times: every row is in accepted, rejected or skipped (other symbols)."""
        rows, started = max(1, self._counts.rows), perf_counter()
        digest, open_orders = self.digest, int(self._resting().count)
        if self._run is not None and "digest" not in self.seconds:  # in chunks it is part of "tables"
            self.seconds["digest"] = perf_counter() - started
        return {
            **self.settings,
            **self._counts.as_dict(),
            "symbols": len(self.symbols),
            "open_orders": open_orders,
            "chunks": self._counts.chunks,
            "digest": digest,
            "seconds": dict(self.seconds),
            "ns_per_command": {stage: 1e9 * s / rows for stage, s in self.seconds.items()},
        }

    def write(self, target: str | Path) -> Path:
        """Write a run folder: manifest.json and a Parquet file per recorded table.

        Raises OutputError when the folder exists already or can't be written.
        """
        tables = {name: self.to_arrow(name) for name in self.settings["record"]}
        write_run(target, tables, self.manifest())
        return Path(target)

    def manifest(self) -> dict[str, Any]:
        """The manifest of a run folder."""
        summary = self.summary()
        counts = {k: v for k, v in summary.items() if k not in ("seconds", "ns_per_command", "digest")}
        return manifest(
            digest=self.digest,
            counts={k: v for k, v in counts.items() if k not in self.settings},
            wall_time_s=self.seconds,
            input_path=self.settings["input"],
            config=self.settings,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        names = self._made if self._run is None else self.settings["record"]
        tables = {name: self.to_arrow(name) for name in names if name != "book"}
        parts = self._counts, self.symbols, self._resting(), self.settings, self.seconds
        return _sent, (self.digest, *parts, tables)

    def __repr__(self) -> str:
        counts = self._counts
        return (
            f"<Result {counts.rows:,} commands, {counts.rejected:,} rejected, {counts.fills:,} fills, "
            f"{len(self.symbols):,} symbol(s), digest {self.digest}>"
        )

    def _repr_html_(self) -> str:
        summary = self.summary()
        wanted = ("rows", "accepted", "rejected", "fills", "filled_qty", "symbols", "open_orders")
        cells = [(name, f"{summary[name]:,}") for name in wanted]
        cells += [("run", f"{summary['ns_per_command'].get('run', 0):.1f} ns per command")]
        cells += [("digest", f"<code>{html.escape(self.digest)}</code>")]
        body = "".join(f"<tr><th style='text-align:left'>{k}</th><td>{v}</td></tr>" for k, v in cells)
        return f"<table><caption>hftlab replay</caption>{body}</table>"


def _sent(
    digest: str,
    counts: Counts,
    symbols: tuple[str, ...],
    resting: Resting,
    settings: dict[str, Any],
    seconds: dict[str, float],
    made: dict[str, pa.Table],
) -> Result:
    """A result where it arrives, with what went along."""
    result = Result(
        digest=Digest(),
        counts=counts,
        symbols=symbols,
        resting=lambda: resting,
        settings=settings,
        seconds=seconds,
        tables={name: partial(_itself, table) for name, table in made.items()},
    )
    result.digest = digest
    return result


def _itself(table: pa.Table) -> pa.Table:
    return table


def to_wide(depth: pl.DataFrame) -> pl.DataFrame:
    """A depth frame with a column per level: bid_px_00, bid_sz_00 ... (Databento's names)."""
    lists = {name: dtype for name, dtype in depth.schema.items() if isinstance(dtype, pl.Array)}
    levels = next(iter(lists.values())).shape[0]
    wide = [pl.col(name).arr.get(i).alias(f"{name}_{i:02d}") for i in range(levels) for name in lists]
    return depth.select(pl.exclude(lists), *wide)
