"""When which account sent a message: what a refusal for too many of them quotes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hftlab.codes import Action
from hftlab.kernels.risk_gate.repeated_orders import NO_TIME
from hftlab.kernels.risk_gate.row_checks import SECOND
from hftlab.tape.tables import CheckedTable


@dataclass(frozen=True)
class Messages:
    """When which account sent a message: rows of a tape, after those of the second before it."""

    times: np.ndarray  # int64, ns
    accounts: np.ndarray  # int32: index in the manager's `accounts`; -1 for what is no message
    before: int  # how many come before the tape's first row

    def counted(self, rows: np.ndarray) -> np.ndarray:
        """How many its sender has sent in the second up to each row, that one included."""
        indices, counts = rows + self.before, np.empty(rows.size, np.int64)
        for account in np.unique(self.accounts[indices]):
            sent = np.flatnonzero(self.accounts == account)
            wanted = self.accounts[indices] == account
            at = np.searchsorted(sent, indices[wanted])
            times = self.times[sent]
            counts[wanted] = at + 1 - np.searchsorted(times, a_second_before(times[at]), side="right")
        return counts

    def recent(self) -> Messages:
        """Those that can still count for rows to come."""
        last = self.times[-1] if self.times.size else 0
        keep = slice(int(np.searchsorted(self.times, a_second_before(last), side="right")), None)
        times = self.times[keep]
        return Messages(times, self.accounts[keep], times.size)


NO_MESSAGES = Messages(np.zeros(0, np.int64), np.zeros(0, np.int32), 0)


@dataclass(frozen=True)
class RowMessages:
    """The messages of a table's rows, listed only when somebody wants them: that is a pass over all rows."""

    checked: CheckedTable
    row_holdings: np.ndarray  # int32 [rows]: the sender's holding
    accounts: np.ndarray  # int32 by holding: index in the manager's `accounts`

    def after(self, before: Messages, first: int = 0) -> Messages:
        """Those of the rows from `first` on, behind those of `before`."""
        times = np.maximum.accumulate(np.concatenate([before.times, self._times()[first:]]))
        senders = self.accounts[self.row_holdings[first:]]
        senders = np.where(self.checked.columns.action[first:] == Action.RISK_CONTROL, -1, senders)
        return Messages(times, np.concatenate([before.accounts, senders]), before.times.size)

    def recent(self, before: Messages) -> Messages:
        """Those of the last second, without going through all where none of `before` is among them."""
        times = self._times()
        if not times.size:
            return before
        oldest = a_second_before(times.max())
        if before.times.size and before.times[-1] > oldest:
            return self.after(before).recent()
        return self.after(NO_MESSAGES, int(np.argmax(times > oldest))).recent()

    def _times(self) -> np.ndarray:
        """Of each row, ns, as the flow has them; without any, rows are times."""
        first, ts = self.checked.first_row, self.checked.ts
        return ts if ts.size else np.arange(first, first + self.checked.rows)


def a_second_before(time: Any) -> Any:
    """The latest moment that no longer counts; ns, as far back as 64 bits go."""
    return np.maximum(time, NO_TIME + SECOND) - SECOND
