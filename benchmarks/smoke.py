"""Every asv benchmark once, on small flows, so that none can rot.

    python -m benchmarks.smoke                                     # all of them
    python -m benchmarks.smoke --without FirstCall.track_compiled  # which compiles kernels for minutes

What asv does around them (environments, repetitions, other commits) is left out: flows come from
`setup_cache`, each set of parameters has one `setup`, and what it times, tracks or weighs is called once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

from benchmarks.scale import VARIABLE

MESSAGES = 2_000
KINDS = ("time_", "peakmem_", "track_")


def suites() -> Iterator[type]:
    """The classes asv finds."""
    for found in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if found.name.startswith("bench_"):
            yield from _classes(importlib.import_module(f"benchmarks.{found.name}"))


def _classes(module: ModuleType) -> list[type]:
    return [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type) and thing.__module__ == module.__name__ and benchmarks_of(thing)
    ]


def benchmarks_of(suite: type) -> list[str]:
    """What asv measures of a class."""
    return [name for name in vars(suite) if name.startswith(KINDS)]


def parameters_of(suite: type) -> list[tuple[Any, ...]]:
    """Each set of parameters; one of none where there are none."""
    axes = getattr(suite, "params", ())
    return list(product(*(axes if axes and isinstance(axes[0], tuple | list) else [axes] if axes else [])))


def run(suite: type, without: set[str]) -> Iterator[tuple[str, tuple[Any, ...], Any, float]]:
    """(name, parameters, what it returned, seconds) of every benchmark of a class."""
    cache = (suite().setup_cache(),) if hasattr(suite, "setup_cache") else ()
    for parameters in parameters_of(suite):
        instance = suite()
        if hasattr(instance, "setup"):
            instance.setup(*cache, *parameters)
        for name in benchmarks_of(suite):
            if f"{suite.__name__}.{name}" in without:
                continue
            started = perf_counter()
            value = getattr(instance, name)(*cache, *parameters)
            yield f"{suite.__name__}.{name}", parameters, value, perf_counter() - started


def main() -> None:
    """Run and print; ends with what is wrong at the first benchmark that tracks no number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="leave one out")
    without = set(parser.parse_args().without)
    os.environ.setdefault(VARIABLE, str(MESSAGES))
    for suite in suites():
        for name, parameters, value, seconds in run(suite, without):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if "track_" in name and not is_number:
                sys.exit(f"{name}{parameters}: found {value!r}, expected a number")
            print(f"{name} {parameters} {value if is_number else ''} {seconds:.3f} s", flush=True)


if __name__ == "__main__":
    main()
