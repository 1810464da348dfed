"""The package behind its risk gate, as tests call it: a flow of `risk_flows`, replayed in any way."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

import hftlab
from hftlab.config.lot_values import positive_units
from hftlab.config.settings import Config
from tests.helpers import risk_flows
from tests.reference import frames
from tests.reference.package import settings

NAMES = ("outcomes", "fills", "rejects", "l1", "book")
OF_THE_GATE = ("gate", "positions", "pnl")
LEVELS = 3


def limits_of(flow: risk_flows.RiskFlow) -> hftlab.Limits:
    """The limits of a flow as the package takes them."""
    return as_limits(flow.limits)


def as_limits(limits: Any) -> hftlab.Limits:
    """Limits of the slow twin as the package takes them."""
    return hftlab.Limits.from_table(risk_flows.limits_table(limits))


def config_of(flow: risk_flows.RiskFlow) -> Config:
    """Ticks of a flow and what its lots are worth, as settings."""
    config = settings(flow.orders.tick, flow.orders.allow_nonpositive, LEVELS)
    (common,) = config.instruments.values()
    instruments = {
        symbol: msgspec.structs.replace(
            common, lot_size=positive_units(lot_size), multiplier=positive_units(multiplier)
        )
        for symbol, (lot_size, multiplier) in flow.lots.items()
    }
    return msgspec.structs.replace(config, instruments=config.instruments | instruments)


def replayed(
    flow: risk_flows.RiskFlow,
    names: tuple[str, ...] = NAMES,
    levels: int = LEVELS,
    *,
    tape: bool = False,
    **options: Any,
) -> tuple[dict[str, pl.DataFrame], Any]:
    """The outputs of the package in the twin's types, and the run; `tape` saves one first, and loads it."""
    orders = flow.orders
    config = config_of(flow)
    what = {"record": (*names, "depth", *OF_THE_GATE), "config": config, "limits": limits_of(flow), **options}
    if not tape:
        run = hftlab.replay(orders.table(), **what)
        return outputs(run, names, levels), run
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flow.tape"
        hftlab.compile_tape(orders.table(), instruments=config).save(path)
        run = hftlab.replay(path, **what)
        return outputs(run, names, levels), run


def outputs(run: Any, names: tuple[str, ...] = NAMES, levels: int = LEVELS) -> dict[str, pl.DataFrame]:
    """What a run recorded, in the types of the twin."""
    more = {name: frames.of_frame(getattr(run, name), frames.GATE_COLUMNS[name]) for name in OF_THE_GATE}
    return more | frames.of_run(run, names, levels)
