"""hftlab: replay historical order flow through compiled order books.

>>> import hftlab
>>> run = hftlab.replay("AMZN_2012-06-21_34200000_57600000_message_1.csv")
>>> run.fills, run.l1, run.digest
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what an editor reads; `as` says that the name is public here
    from hftlab.codes import PRICE_SCALE as PRICE_SCALE
    from hftlab.codes import UNDEF_PRICE as UNDEF_PRICE
    from hftlab.codes import Action as Action
    from hftlab.codes import MboAction as MboAction
    from hftlab.codes import OrderType as OrderType
    from hftlab.codes import Reason as Reason
    from hftlab.codes import RiskControl as RiskControl
    from hftlab.codes import Side as Side
    from hftlab.codes import Stage as Stage
    from hftlab.codes import Status as Status
    from hftlab.codes import Tif as Tif
    from hftlab.config import Config as Config
    from hftlab.config import load_config as load_config
    from hftlab.engine.acks import Ack as Ack
    from hftlab.engine.acks import Fill as Fill
    from hftlab.engine.order_book import OrderBook as OrderBook
    from hftlab.errors import ConfigError as ConfigError
    from hftlab.errors import FormatError as FormatError
    from hftlab.errors import HftlabError as HftlabError
    from hftlab.errors import InputError as InputError
    from hftlab.errors import LimitsError as LimitsError
    from hftlab.errors import MeasurementError as MeasurementError
    from hftlab.errors import OutputError as OutputError
    from hftlab.errors import TableError as TableError
    from hftlab.errors import UsageError as UsageError
    from hftlab.feeds import Flow as Flow
    from hftlab.feeds import open_flow as open_flow
    from hftlab.feeds.synthetic import generate as generate
    from hftlab.fidelity.certificate import Certificate as Certificate
    from hftlab.fidelity.certify import certify as certify
    from hftlab.fidelity.compare import compare as compare
    from hftlab.fidelity.comparison import Comparison as Comparison
    from hftlab.fidelity.verification import Verification as Verification
    from hftlab.fidelity.verification import verify as verify
    from hftlab.latency.histogram import Histogram as Histogram
    from hftlab.latency.profile import Profile as Profile
    from hftlab.latency.profiler import LatencyProfiler as LatencyProfiler
    from hftlab.latency.profiler import profile as profile
    from hftlab.replayer.inference import infer_orders as infer_orders
    from hftlab.replayer.replayer import replay as replay
    from hftlab.results.result import Result as Result
    from hftlab.results.result import to_wide as to_wide
    from hftlab.risk_gate.limits import Limits as Limits
    from hftlab.scenarios.limit_sets import risk as risk
    from hftlab.scenarios.limit_sets import which_limit_first as which_limit_first
    from hftlab.scenarios.report import RiskReport as RiskReport
    from hftlab.tape.compiler import compile_tape as compile_tape
    from hftlab.tape.tape import Tape as Tape

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
    "Tape": "tape.tape",
    "compile_tape": "tape.compiler",
    "Result": "results.result",
    "to_wide": "results.result",
    "replay": "replayer.replayer",
    "OrderBook": "engine.order_book",
    "Ack": "engine.acks",
    "Fill": "engine.acks",
    "Verification": "fidelity.verification",
    "verify": "fidelity.verification",
    "Certificate": "fidelity.certificate",
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


if not TYPE_CHECKING:  # with a __getattr__ in sight, an editor accepts every misspelt name

    def __getattr__(name: str) -> Any:
        if name not in _EXPORTS:
            raise AttributeError(f"module 'hftlab' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"hftlab.{_EXPORTS[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
