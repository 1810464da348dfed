"""Where the recorded tables of a replay in chunks go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa

from hftlab.engine.runner import TapeRun
from hftlab.feeds.native import read_table
from hftlab.replayer.plan import (
    OF_THE_END,
    Plan,
    costs_of,
)
from hftlab.results import tables
from hftlab.results.positions import Positions
from hftlab.results.run_folder import RunWriter
from hftlab.tape.open_orders import Resting


class Handover:
    """Hands recorded tables to a function, which keeps what it needs of them."""

    target = None  # nothing can be read back

    def __init__(self, take: Callable[[str, pa.Table], None]) -> None:
        self.append = take


class Sink:
    """Where the recorded tables of a replay in chunks go: memory, or a run folder as it grows."""

    def __init__(self, plan: Plan, writer: RunWriter | Handover | None) -> None:
        self.plan, self.writer = plan, writer
        names = plan.record if plan.keep or writer is not None else ()
        self.chunks: dict[str, list[pa.Table]] = {name: [] for name in names if name not in OF_THE_END}
        wanted = "positions" in plan.record or "pnl" in names
        self.positions = Positions(costs_of(plan), plan.lots) if wanted else None

    def add(self, run: TapeRun, fills: tables.Fills, first_match: int) -> None:
        """Keep the recorded tables of a chunk."""
        # `pnl` books the fills itself, below, and must not see them twice
        if self.positions is not None and "pnl" not in self.chunks:
            self.positions.add(fills, run.tape.symbols)
        make: dict[str, Callable[[], pa.Table]] = {
            "fills": lambda: tables.fills_table(run.tape, fills, first_match),
            "rejects": lambda: tables.rejects_table(run),
            "outcomes": lambda: tables.outcomes_table(run),
            "l1": lambda: tables.l1_table(run),
            "anomalies": lambda: tables.anomalies_table(run),
            "depth": lambda: tables.depth_table(run, self.plan.depth),
            "gate": lambda: tables.gate_table(run),
        }
        if self.positions is not None:
            make["pnl"] = partial(self.positions.add_with_changes, fills, run.tape.symbols)
        for name, chunks in self.chunks.items():
            table = make[name]()
            if self.writer is None:
                chunks.append(table)
            else:
                self.writer.append(name, table)

    def tables(self, symbols: tuple[str, ...], resting: Resting) -> dict[str, Callable[[], pa.Table]]:
        """The whole tables, by name; `symbols` and open orders are those at the end."""
        made: dict[str, Callable[[], pa.Table]] = {}
        if self.positions is not None:
            made["positions"] = partial(self.positions.table, symbols, resting)
        if self.writer is None:
            return made | {name: partial(joined, chunks) for name, chunks in self.chunks.items()}
        if self.writer.target is None:
            return made
        return made | {name: partial(read_back, self.writer.target, name) for name in self.chunks}


def joined(chunks: list[pa.Table]) -> pa.Table:
    """The chunks of a table as one, with one dictionary per column."""
    return pa.concat_tables(chunks).unify_dictionaries().combine_chunks()


def read_back(folder: Path, name: str) -> pa.Table:
    """A table that has been written to a run folder."""
    return read_table(folder / f"{name}.parquet", "Parquet")
