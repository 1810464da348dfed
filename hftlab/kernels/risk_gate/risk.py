"""The whole risk gate as the event path takes it: what it keeps of books, and what it remembers of rows."""

from __future__ import annotations

from typing import NamedTuple

from hftlab.kernels.primitives.compile import unless_none
from hftlab.kernels.risk_gate.gate import Gate, bare_gate
from hftlab.kernels.risk_gate.row_checks import Intake, bare_intake


class Risk(NamedTuple):
    """The risk gate of the event path."""

    gate: Gate
    intake: Intake


@unless_none
def bare_risk(risk):
    """The same without reference counts (see intrinsics.py); None stays None."""
    return Risk(bare_gate(risk.gate), bare_intake(risk.intake))


@unless_none
def gate_of(risk):
    """The gate, or None where there is none."""
    return risk.gate
