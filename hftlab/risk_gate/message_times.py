"""When which account sent a message: what a refusal for too many of them quotes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hftlab.kernels.risk_gate.repeated_orders import NO_TIME
from hftlab.kernels.risk_gate.row_checks import SECOND


@dataclass(frozen=True)
class Messages:
    """When which account sent a message: rows of a tape, after those of the second before it."""

    times: np.ndarray  # int64, ns
    accounts: np.ndarray  # int32: place in `accounts`; -1 for what is no message
    before: int  # how many come before the tape's first row

    def counted(self, rows: np.ndarray) -> np.ndarray:
        """How many its sender has sent in the second up to each row, that one included."""
        places, counts = rows + self.before, np.empty(rows.size, np.int64)
        for account in np.unique(self.accounts[places]):
            sent = np.flatnonzero(self.accounts == account)
            asked = self.accounts[places] == account
            at = np.searchsorted(sent, places[asked])
            times = self.times[sent]
            counts[asked] = at + 1 - np.searchsorted(times, a_second_before(times[at]), side="right")
        return counts

    def recent(self) -> Messages:
        """Those that can still count for rows to come."""
        last = self.times[-1] if self.times.size else 0
        keep = slice(int(np.searchsorted(self.times, a_second_before(last), side="right")), None)
        times = self.times[keep]
        return Messages(times, self.accounts[keep], times.size)


def a_second_before(time: Any) -> Any:
    """The latest moment that no longer counts; ns, as far back as 64 bits go."""
    return np.maximum(time, NO_TIME + SECOND) - SECOND


NO_MESSAGES = Messages(np.zeros(0, np.int64), np.zeros(0, np.int32), 0)
