"""How large the flows of the asv suites are, and where they keep them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import hftlab

VARIABLE = "HFTLAB_BENCH_MESSAGES"


def messages(usual: int) -> int:
    """So many, or as many as HFTLAB_BENCH_MESSAGES says where that is less: to see that a suite works."""
    return min(usual, int(os.environ.get(VARIABLE) or usual))


def kept(flows: dict[str, Callable[[], pa.Table]]) -> dict[str, str]:
    """Make flows once, for `setup_cache`: the path of each as Parquet."""
    folder = Path(tempfile.mkdtemp())
    paths = {name: str(folder / f"{name}.parquet") for name in flows}
    for name, make in flows.items():
        pq.write_table(make(), paths[name])
    return paths


def read(path: str) -> pa.Table:
    """A flow that was kept."""
    return hftlab.open_flow(path).table()


def leading(digest: str) -> int:
    """The first 52 bits of a digest: as many as a number of asv can hold."""
    return int(digest[:13], 16)


def digest_of(table: pa.Table, mode: str = "match", **how: object) -> int:
    """Of a replay."""
    return leading(hftlab.replay(table, mode=mode, **how).digest)
