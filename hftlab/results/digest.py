"""The digest of a run: 128 bits over outcomes, fills and the final book.

Each record is hashed together with its row number, and the hashes are added up. A sum does not depend on
order, so chunks and threads give the digest of the whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from hftlab.engine.runner import TapeRun
from hftlab.kernels.results import tables
from hftlab.results.tables import (
    Fills,
    expand_fills,
    rows_of,
)
from hftlab.tape.open_orders import Resting


@dataclass
class Digest:
    """128 bits over what a flow did, gathered run by run."""

    sums: np.ndarray = field(default_factory=lambda: np.zeros(2, np.int64))

    def add_run(self, run: TapeRun, fills: Fills) -> None:
        """Add a run's outcomes and fills."""
        rows, order = rows_of(run.tape), run.order
        tables.digest_outcomes(run.outcomes, run.filled, run.leaves, order, rows, self.sums)
        tables.digest_fills(fills.longs, fills.ints, _hashes(run.tape.symbols), self.sums)

    def with_book(self, symbols: tuple[str, ...], resting: Resting) -> str:
        """The digest in hexadecimal, the final book included."""
        sums = self.sums.copy()
        tables.digest_orders(*resting, _hashes(symbols), sums)
        return "".join(f"{int(half) & (2**64 - 1):016x}" for half in sums)


def digest_of(run: TapeRun) -> str:
    """The digest of a whole run."""
    digest = Digest()
    digest.add_run(run, expand_fills(run))
    return digest.with_book(run.tape.symbols, run.open_orders)


def _hashes(symbols: tuple[str, ...]) -> np.ndarray:
    """A stable 64-bit hash of each name."""
    digests = (hashlib.blake2b(symbol.encode(), digest_size=8).digest() for symbol in symbols)
    return np.array([int.from_bytes(d, "little", signed=True) for d in digests], np.int64)
