"""What a busy machine does to a measurement, and how a test lives with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

TRIES = 50


def uninterrupted() -> Iterator[int]:
    """Tries for a claim about a moment in which the machine does nothing else.

    A busy machine takes the processor away at any moment, for a hundred milliseconds or more. It hits the
    moment that a test is about now and then, but not in each of fifty runs. What holds of every run, however
    slow, is asserted of every run; only what an interruption hides is looked for in one of these.
    """
    return iter(range(TRIES))


def cpu_seconds(work: Callable[..., Any], *args: Any, **how: Any) -> float:
    """Processor time of a call, the least of three: what others do on the machine is not in it."""
    times = []
    for _ in range(3):
        started = time.process_time()
        work(*args, **how)
        times.append(time.process_time() - started)
    return min(times)
