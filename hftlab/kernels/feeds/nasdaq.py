"""What NASDAQ's own format and LOBSTER, which is made from it, share."""

from __future__ import annotations

import numpy as np

from hftlab.kernels.primitives.compile import helper

MASKED_FROM_NS = 1_405_310_400 * 10**9  # 2014-07-14 00:00 in New York, UTC
_DATED_NS = 86_400 * 10**9  # a midnight before it is no date, but that of a file without one


@helper
def is_masked(midnight_ns):
    """Whether the side of hidden orders' executions is masked on a day: since 2014-07-14 it is always B.

    Of a day that nobody told it is not known, and a side that may be masked tells nothing.
    """
    return midnight_ns >= np.int64(MASKED_FROM_NS) or midnight_ns <= np.int64(_DATED_NS)
