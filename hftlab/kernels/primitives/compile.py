"""How kernels are compiled: the one place that names numba's options.

numba's own disk cache looks only at the file a function stands in and misses an edit in a callee
elsewhere (numba issue 1833), so the cache folder carries a digest of all kernel sources.
`HFTLAB_CACHE_DIR` moves the folder; NUMBA_DISABLE_JIT=1 runs everything as plain Python.

Where that folder can't be used numba would choose `__pycache__` beside the sources, which no digest guards:
an edit would run old code without a word. A temporary folder takes its place, with a warning.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from functools import cache
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
    """Compile a function that Python calls: cached on disk, without the GIL.

    It is cached below CACHE_DIR, else in a temporary folder, else not at all: never beside the sources.
    """
    if DISABLED:
        return np.errstate(over="ignore")(function)  # integers wrap, as they do compiled
    options = {"nogil": nogil, "error_model": "numpy"}
    if (compiled := _cached_below(CACHE_DIR, function, options)) is not None:
        return compiled
    folder = _temporary_folder()
    compiled = None if folder is None else _cached_below(folder, function, options)
    return numba.njit(**options)(function) if compiled is None else compiled


def _cached_below(folder: Path, function, options: dict[str, object]):
    """A compiled function whose cache is below a folder; None where numba chose another one instead."""
    with _numba_caches_in(folder):
        compiled = numba.njit(cache=True, **options)(function)
    return compiled if folder in Path(compiled.stats.cache_path).parents else None


@contextmanager
def _numba_caches_in(folder: Path):
    settings = {"CACHE_DIR": str(folder), "CACHE_LOCATOR_CLASSES": ""}  # the latter could name `__pycache__`
    previous = {name: getattr(config, name) for name in settings if hasattr(config, name)}
    try:
        for name in previous:
            setattr(config, name, settings[name])
        yield
    finally:
        for name, value in previous.items():
            setattr(config, name, value)


@cache
def _temporary_folder() -> Path | None:
    """A folder that goes when this process ends, with a warning; None where there can be none either."""
    warnings.warn(
        f"{CACHE_DIR} can't be written: kernels are compiled in every process anew, which takes minutes; "
        "set HFTLAB_CACHE_DIR to a folder that can",
        RuntimeWarning,
        stacklevel=2,
    )
    try:
        folder = Path(tempfile.mkdtemp(prefix="hftlab-kernels-"))
    except OSError:
        return None
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))  # not a fork
    return folder


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
