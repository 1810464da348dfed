"""hftlab: replay historical order flow through compiled order books.

>>> import hftlab
>>> run = hftlab.replay("AMZN_2012-06-21_34200000_57600000_message_1.csv")
>>> run.fills, run.l1, run.digest
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# name -> module; imported on first use, because numba and Arrow take longer to load than a --help should
_EXPORTS = {
    "Action": "codes",
    "Side": "codes",
    "OrderType": "codes",
    "Tif": "codes",
    "Status": "codes",
    "Reason": "codes",
    "Stage": "codes",
    "RiskControl": "codes",
    "MboAction": "codes",
    "PRICE_SCALE": "codes",
    "UNDEF_PRICE": "codes",
    "HftlabError": "errors",
    "InputError": "errors",
    "FormatError": "errors",
    "TableError": "errors",
    "OutputError": "errors",
    "MeasurementError": "errors",
    "UsageError": "errors",
    "ConfigError": "errors",
    "LimitsError": "errors",
    "Config": "config",
    "load_config": "config",
    "Limits": "risk_gate.limits",
    "Flow": "feeds",
    "open_flow": "feeds",
    "infer_orders": "replayer.inference",
    "Tape": "tape.compiler",
    "compile_tape": "tape.compiler",
    "Result": "results.result",
    "to_wide": "results.result",
    "replay": "replayer.replayer",
    "OrderBook": "engine.order_book",
    "Ack": "engine.order_book",
    "Fill": "engine.order_book",
    "Verification": "fidelity.verification",
    "verify": "fidelity.verification",
    "Certificate": "fidelity.certify",
    "certify": "fidelity.certify",
    "Comparison": "fidelity.comparison",
    "compare": "fidelity.compare",
    "RiskReport": "scenarios.report",
    "risk": "scenarios.limit_sets",
    "which_limit_first": "scenarios.limit_sets",
    "generate": "feeds.synthetic",
    "Histogram": "latency.histogram",
    "LatencyProfiler": "latency.profiler",
    "Profile": "latency.profile",
    "profile": "latency.profiler",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'hftlab' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"hftlab.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
