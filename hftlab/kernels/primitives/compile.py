"""How kernels are compiled: the one place that names numba's options.

numba's own disk cache looks only at the file a function stands in and misses an edit in a callee
elsewhere (numba issue 1833), so the cache folder carries a digest of all kernel sources.
`HFTLAB_CACHE_DIR` moves the folder; NUMBA_DISABLE_JIT=1 runs everything as plain Python.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numba
import numpy as np
from numba import types
from numba.core import config
from numba.extending import overload

import hftlab.codes

DISABLED = bool(config.DISABLE_JIT)
CHECKED = bool(config.BOUNDSCHECK)  # every array access; what goes by address must look after itself


def _sources_digest() -> str:
    """Of every kernel, in whatever subfolder, by its path and its bytes; and of the codes they share."""
    package = Path(hftlab.codes.__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for path in [*sorted((package / "kernels").rglob("*.py")), package / "codes.py"]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _cache_dir() -> Path:
    home = os.environ.get("HFTLAB_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    checked = "-checked" if CHECKED else ""  # bounds checks change the code, not numba's key
    return Path(home).expanduser() / "hftlab" / f"kernels-{_sources_digest()}{checked}"


CACHE_DIR = _cache_dir()

# Wrappers for calls from Python take a third of the time to compile, and nobody calls a helper from there.
CALLED_BY_KERNELS = {
    "nogil": True,
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


def kernel(function, nogil: bool = True):
    """Compile a function that Python calls: cached on disk, without the GIL."""
    if DISABLED:
        return np.errstate(over="ignore")(function)  # integers wrap, as they do compiled
    previous = config.CACHE_DIR
    config.CACHE_DIR = str(CACHE_DIR)
    try:
        return numba.njit(cache=True, nogil=nogil, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = previous


def quick_kernel(function):
    """Compile a function that Python calls per event: it keeps the GIL, which takes 35 ns to let go."""
    return kernel(function, nogil=False)


def helper(function):
    """Compile a leaf that kernels call: always inlined (30 -> 24 ns per command in the prototype)."""
    return numba.njit(forceinline=True, **CALLED_BY_KERNELS)(function)


def rare(function):
    """Compile what kernels seldom call: a function of its own, so that the usual path stays small."""
    return numba.njit(**CALLED_BY_KERNELS)(function)


def unless_none(function):
    """Compile a helper of one argument that leaves None alone.

    None is a type. A helper that returned it on one branch and a tuple on another would give an optional
    tuple, and counting its references took 300 ns per command.
    """
    if DISABLED:
        return lambda value: None if value is None else function(value)
    something = helper(function)

    def either(value):
        raise NotImplementedError("for kernels")

    @overload(either, jit_options={"forceinline": True, **CALLED_BY_KERNELS})
    def choose(value):
        if isinstance(value, types.NoneType):
            return lambda value: None
        return lambda value: something(value)

    return either
