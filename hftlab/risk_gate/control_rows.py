"""Rows that control the risk gate: where the first is, and the first that reaches every book."""

from __future__ import annotations

import numpy as np

from hftlab.codes import Action, RiskControl
from hftlab.tape.tables import CheckedTable

_KILLS = (RiskControl.ACCOUNT_KILLED, RiskControl.ALL_KILLED)


def first_control(checked: CheckedTable) -> int | None:
    """The first RISK_CONTROL of a table."""
    row = checked.columns.action.tobytes().find(bytes([Action.RISK_CONTROL]))  # a tenth of a comparison
    return None if row < 0 else row


def first_kill(checked: CheckedTable) -> int:
    """The first row that kills an account or everything, so reaches all books; if none, how many rows."""
    if first_control(checked) is None:
        return checked.rows
    rows = np.flatnonzero(checked.columns.action == Action.RISK_CONTROL)
    rows = rows[np.isin(checked.columns.qty[rows], _KILLS)]
    return int(rows[0]) if rows.size else checked.rows
