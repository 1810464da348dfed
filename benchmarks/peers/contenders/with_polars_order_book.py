"""polars-order-book: the touch after each update of a price level, in Polars. It has no orders."""

from __future__ import annotations

import numpy as np
import polars as pl
import polars_order_book
from serve import Task, bbo_changes, serve


def levels(path: str) -> pl.DataFrame:
    with np.load(path) as columns:
        frame = pl.DataFrame({name: columns[name] for name in ("side", "price", "qty")})
    return frame.select("price", "qty", is_bid=pl.col("side") > 0)


def touch(frame: pl.DataFrame) -> pl.DataFrame:
    best = polars_order_book.top_n_levels_from_price_updates("price", "qty", "is_bid", n=1)
    return frame.select(best.alias("best")).unnest("best")


def form(best: pl.DataFrame, _: str) -> dict[str, np.ndarray]:
    rows = np.arange(best.height)
    return bbo_changes(rows, rows * 0 + 1, *best.fill_null(0).to_numpy().T)


if __name__ == "__main__":
    serve("polars-order-book", {"touch": Task(touch, form, levels)})
