"""How much work a run of the tests does: which kernels it has, and how large its flows and fuzzing are.

Most of the tests run once, compiled as shipped. A slice runs again with kernels as plain Python
(NUMBA_DISABLE_JIT=1), a hundred times slower, and another with every array access checked
(NUMBA_BOUNDSCHECK=1). The claims are the same there, of smaller flows.
"""

from __future__ import annotations

import os

from hftlab.kernels.primitives.compile import CHECKED, DISABLED

WHOLE_BUDGET = 10_000_000  # commands of the whole fuzzing: less does not count as having looked
BUDGET = "HFTLAB_FUZZ_COMMANDS"  # the variable that says another number


def fewer(count: int, plain: int = 10, checked: int = 4) -> int:
    """A size: `count` as shipped, a `plain` th of it as plain Python, a `checked` th with checks."""
    return max(1, count // (plain if DISABLED else checked if CHECKED else 1))


def is_fuzzing() -> bool:
    """Whether the environment asks for fuzzing."""
    return BUDGET in os.environ


def fuzz_budget(whole: int = WHOLE_BUDGET) -> int:
    """What is to be done of `whole`: all of it, or as large a part as the environment says of ten million."""
    return whole * int(os.environ.get(BUDGET, WHOLE_BUDGET)) // WHOLE_BUDGET
