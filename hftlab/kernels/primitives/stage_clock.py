"""Where the time of a command goes: the clock is read at every border between two of its stages.

`stamps` is None in a run that doesn't ask: numba then leaves the readings out, and a kernel with them is
compiled only for a run that does. Stages are those of codes.LatencyStage.
"""

from __future__ import annotations

from hftlab.kernels.codes import STAGE_LOOKUP, STAGE_MATCH, STAGE_PUBLISH, STAGE_RISK
from hftlab.kernels.primitives.compile import helper, unless_none
from hftlab.kernels.primitives.cycle_clock import now
from hftlab.kernels.primitives.intrinsics import bare, ix

STAGES = (STAGE_LOOKUP, STAGE_RISK, STAGE_MATCH, STAGE_PUBLISH)

# columns of `stamps`: the last reading, in the place of the whole; ticks of each stage; what `now` reads;
# readings so far
LAST, COUNTER, READINGS, STAMPS = 0, STAGE_PUBLISH + 1, STAGE_PUBLISH + 2, STAGE_PUBLISH + 3


@helper
def lap(stamps, stage):
    """What has passed since the last reading was of this stage."""
    if stamps is not None:
        tick = now(stamps[COUNTER])
        stamps[ix(stage)] += tick - stamps[LAST]
        stamps[LAST] = tick
        stamps[READINGS] += 1


@helper
def first_lap(stamps, tick):
    """A command has started."""
    if stamps is not None:
        stamps[LAST] = tick
        for stage in STAGES:
            stamps[ix(stage)] = 0


@unless_none
def bare_stamps(stamps):
    """The same without a reference count (see intrinsics.py); None stays None."""
    return bare(stamps)
