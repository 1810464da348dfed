"""The package behind its risk gate, as tests call it: a flow of `risk_flows`, replayed in any way."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import risk_flows
from reference import frames
from reference.package import RECORD, settings

import hftlab

NAMES = ("outcomes", "fills", "rejects", "l1", "book")
LEVELS = 3


def limits_of(limits: Any) -> hftlab.Limits:
    """Limits of the slow twin as the package takes them."""
    return hftlab.Limits.from_table(risk_flows.limits_table(limits))


def replay(flow: risk_flows.RiskFlow, *, tape: bool = False, **options: Any) -> Any:
    """Everything that a replay of the flow can record; `tape` saves a compiled one first, and loads it."""
    orders = flow.orders
    config = settings(orders.tick, orders.allow_nonpositive, LEVELS)
    what = {"record": (*RECORD, "gate"), "config": config, "limits": limits_of(flow.limits), **options}
    if not tape:
        return hftlab.replay(orders.table(), **what)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flow.tape"
        hftlab.compile_tape(orders.table(), instruments=config).save(path)
        return hftlab.replay(path, **what)


def outputs(run: Any, names: tuple[str, ...] = NAMES) -> dict[str, pl.DataFrame]:
    """What a run recorded, in the types of the twin."""
    gate = frames.of_frame(run.gate, frames.GATE_COLUMNS["gate"])
    return {"gate": gate} | frames.of_run(run, names, LEVELS)
