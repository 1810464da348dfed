"""Helpers of kernels, for tests that call them by themselves: compiled without wrappers, Python can't."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numba
from numba.core.dispatcher import Dispatcher


class Called:
    """A module of kernels whose helpers can be called from Python."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        return _around(found) if isinstance(found, Dispatcher) else found


@cache
def _around(helper: Dispatcher) -> Dispatcher:
    @numba.njit(error_model="numpy")
    def call(*arguments):
        return helper(*arguments)

    return call
