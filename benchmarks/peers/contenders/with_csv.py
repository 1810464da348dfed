"""LOBSTER by the CSV readers of Polars and Arrow, which is how most people read it: no peer knows the format.

Polars takes the times as floats (nine decimals of a day's seconds just survive that), Arrow as decimals.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from serve import Task, serve

NAMES = ["time", "type", "order_id", "size", "price", "direction"]


def with_polars(path: str) -> Any:
    import polars as pl

    return pl.read_csv(path, has_header=False, new_columns=NAMES)


def with_arrow(path: str) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    types = [pa.decimal128(17, 12), pa.int8(), pa.int64(), pa.int64(), pa.int64(), pa.int8()]
    return csv.read_csv(
        path,
        read_options=csv.ReadOptions(column_names=NAMES, use_threads=False),
        convert_options=csv.ConvertOptions(column_types=dict(zip(NAMES, types, strict=True))),
    )


def form(table: Any, _: str) -> dict[str, np.ndarray]:
    times = (
        [float(value) for value in table["time"].to_pylist()] if sys.argv[1] == "pyarrow" else table["time"]
    )
    ts = np.rint(np.array(times) * 1e9).astype(np.int64)
    columns = {"ts": ts - ts[0], "order_id": table["order_id"], "side": table["direction"]}
    columns |= {"px": table["price"], "size": table["size"]}
    return {f"lines_{name}": np.asarray(values).astype(np.int64) for name, values in columns.items()}


if __name__ == "__main__":
    run = {"polars": with_polars, "pyarrow": with_arrow}[sys.argv[1]]
    serve(sys.argv[1], {"lobster": Task(run, form)})
