"""The plan of a replay: its arguments, checked and laid over the configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hftlab.config.lot_values import ONE, ONES, LotValues, positive_units, worth_of
from hftlab.config.settings import DEFAULT_INSTRUMENT, RECORDABLE, Config, load_config
from hftlab.engine.workers import Progress
from hftlab.errors import MOST_LEVELS, UsageError, require_positive, split_symbols
from hftlab.risk_gate.limits import Limits
from hftlab.tape.tables import CheckedTable

MODES, PATHS = ("match", "rebuild"), ("batch", "event")


CHUNK_FROM = 16_000_000  # rows: longer files are replayed in chunks unless `chunk_rows` is given
MANY = CHUNK_FROM + 1  # rows of a file of unknown length
OF_THE_END = ("book", "positions")  # tables of the state after the last row
CHUNK_ROWS = 1_000_000  # 0.9 GB at the peak; four million took 1.9 GB and no less time


@dataclass(frozen=True)
class Plan:
    """The arguments of `replay`, checked, over the configuration."""

    mode: str
    path: str
    threads: int
    record: tuple[str, ...]
    depth: int
    chunk_rows: int | None
    config: Config
    tick_size: Any
    symbols: tuple[str, ...] | None
    input: str | None
    initial_book: str | None
    feed: dict[str, Any] | None  # format and options the input was opened with
    inferred_from: int | None  # rows of facts, where the commands are inferred
    progress: Progress | None
    keep: bool = True  # tables of a replay in chunks, where no run folder does
    limits: Limits | None = None  # of the risk gate
    lots: LotValues = ONES  # what a lot is worth
    not_applied: tuple[str, ...] = ()  # what the settings ask of the machine, and it lacks

    def settings(self) -> dict[str, Any]:
        """The plan as a run folder and a summary list it."""
        names = ("input", "initial_book", "feed", "mode", "inferred_from", "path", "threads", "record")
        return {name: getattr(self, name) for name in (*names, "depth", "chunk_rows", "symbols")} | {
            "tick_size": None if self.tick_size is None else str(self.tick_size),
            "instruments": msgspec.to_builtins(self.config.instruments),
            "limits": None if self.limits is None else self.limits.what,
            "limits_of_all": {} if self.limits is None else self.limits.of_all_text(),
            "performance": _given(self.config.performance),
            "monitoring": _given(self.config.monitoring),
            "not_applied": list(self.not_applied),
        }


def with_lot_size(config: Config, lot_size: Decimal | None) -> Config:
    """Settings with the lot size of a flow wherever they give none."""
    if lot_size is None:
        return config
    common = {DEFAULT_INSTRUMENT: config.instrument(DEFAULT_INSTRUMENT)} | config.instruments
    units = positive_units(lot_size)
    instruments = {
        symbol: msgspec.structs.replace(own, lot_size=own.lot_size or units) for symbol, own in common.items()
    }
    return msgspec.structs.replace(config, instruments=instruments)


def lots_for(config: Config) -> LotValues:
    """What lots are worth. Raises UsageError where that has more than nine decimals."""
    worth = {}
    for symbol in (DEFAULT_INSTRUMENT, *config.instruments):
        own = config.instrument(symbol)
        worth[symbol] = worth_of(own.lot_size, own.multiplier)
        if worth[symbol] is None:
            found = f"{Decimal(own.multiplier or ONE) / ONE} x lots of {Decimal(own.lot_size or ONE) / ONE:f}"
            raise UsageError(
                f"instruments.{symbol}.multiplier: found {found}, expected a product of at most nine decimals"
            )
    return LotValues(worth.pop(DEFAULT_INSTRUMENT), worth)


def _given(section: msgspec.Struct) -> dict[str, Any]:
    """The settings of a section that somebody gave."""
    return {key: value for key, value in msgspec.to_builtins(section).items() if value is not None}


def limits_for(limits: Limits | str | Path | dict[str, Any] | None, plan: Plan) -> Limits | None:
    """The limits of the risk gate, if there are any; facts have happened already, so no gate checks them."""
    if limits is not None and plan.mode != "match":
        raise UsageError(
            f"limits: found some in mode {plan.mode!r}, expected mode 'match'; facts pass no gate"
        )
    if limits is not None:
        return Limits.of(limits)
    return Limits.of_config(plan.config) if plan.mode == "match" else None


def check_ticks(limits: Limits | None, checked: CheckedTable, rules: np.ndarray) -> None:
    """Raises UsageError where a limit is in ticks and a symbol of these rows has none given in `rules`."""
    if limits is None or "price_band_ticks" not in limits.uses or rules["tick"].all():
        return
    books = checked.columns.book
    there = np.unique(books[books >= 0]) if books.size else np.arange(int(checked.rows > 0))
    limits.check_ticks([checked.symbols[book] for book in there], rules["tick"][there])


def make_plan(
    mode: str = "match",
    path: str | None = None,
    threads: int | None = None,
    record: Iterable[str] | str | None = None,
    config: Config | str | Path | None = None,
    symbols: str | Iterable[str] | None = None,
    depth: int | None = None,
    tick_size: Any = None,
    chunk_rows: int | None = None,
    progress: Progress | None = None,
) -> Plan:
    """The arguments of `replay`, checked and laid over the configuration. Raises UsageError."""
    if config is not None and not isinstance(config, Config | str | Path):
        raise UsageError(f"config: found {type(config).__name__}, expected a Config or a TOML file")
    settings = config if isinstance(config, Config) else load_config(config)
    if isinstance(record, str):
        record = [name.strip() for name in record.split(",")]
    elif record is not None and not isinstance(record, Iterable):
        raise UsageError(f"record: found {record!r}, expected names of tables")
    return Plan(
        _one_of("mode", mode, MODES),
        _one_of("path", path or settings.replay.path, PATHS),
        require_positive("threads", settings.replay.threads if threads is None else threads),
        tuple(
            _one_of("record", name, RECORDABLE)
            for name in (settings.replay.record if record is None else record)
        ),
        require_positive("depth", settings.replay.depth if depth is None else depth, MOST_LEVELS),
        settings.replay.chunk_rows if chunk_rows is None else require_positive("chunk_rows", chunk_rows),
        settings,
        tick_size,
        split_symbols(symbols),
        None,
        None,
        None,
        None,
        progress,
        lots=lots_for(settings),
    )


def _one_of(what: str, value: str, expected: tuple[str, ...]) -> str:
    if value not in expected:
        raise UsageError(f"{what}: found {value!r}, expected one of {', '.join(expected)}")
    return value


def costs_of(plan: Plan) -> Limits | None:
    """Limits that set what a fill costs, if any do: fees apply without a gate, too."""
    config = plan.config
    if plan.limits is not None:
        return plan.limits
    return Limits.from_settings(config.risk, config.trading) if config.risk or config.trading else None
