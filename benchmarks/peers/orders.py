"""The order flow of the comparison: limit orders and cancels, which every book knows, and its levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

import hftlab

ORDERS_NAME, LEVELS_NAME = "orders.npz", "levels.npz"
TICK = 10_000_000  # in 1e-9; prices are whole ticks, as some peers know integers only


def flow(messages: int) -> pl.DataFrame:
    """Limit orders and cancels (seq, new, side, order_id, price, qty) of the generator's flow of seed 1.

    Orders that would not rest, changes of orders and cancels of what isn't open are left out: peers
    don't agree on what these do.
    """
    table = pl.from_arrow(hftlab.generate(messages * 5 // 4, 1, 1)).filter(
        pl.col("action").is_in(["NEW", "CANCEL"])
        & (pl.col("order_type") == "LIMIT")
        & pl.col("tif").is_in(["GTC", "DAY"])
        & ~pl.col("post_only")
    )
    table = table.with_columns(pl.lit("GTC").alias("tif"))
    status = hftlab.replay(table, record=("outcomes",)).outcomes["status"]
    table = table.filter(status != "REJECTED").head(messages)
    return table.with_row_index("seq").select(
        pl.col("seq").cast(pl.Int64),
        (pl.col("action") == "NEW").alias("new"),
        pl.col("side").cast(pl.Int64),
        pl.col("order_id").cast(pl.Int64),
        pl.col("price") // TICK,
        "qty",
    )


def table_of(columns: dict[str, np.ndarray]) -> pl.DataFrame:
    """The same as a table that hftlab reads."""
    frame = pl.DataFrame({name: columns[name] for name in ("new", "side", "order_id", "price", "qty")})
    return frame.select(
        pl.when("new").then(pl.lit("NEW")).otherwise(pl.lit("CANCEL")).cast(pl.Categorical).alias("action"),
        pl.col("order_id").cast(pl.UInt64),
        pl.col("side").cast(pl.Int8),
        pl.col("price") * TICK,
        "qty",
    )


def level_updates(orders: pl.DataFrame) -> pl.DataFrame:
    """What rests at a price from now on (side, price, qty), each time it changes."""
    run = hftlab.replay(table_of(orders.to_dict(as_series=True)), record=("fills", "outcomes"))
    fills = run.fills.select(
        pl.col("seq").cast(pl.Int64),
        -pl.col("aggressor_side").cast(pl.Int64).alias("side"),
        pl.col("price") // TICK,
        pl.col("qty"),
        pl.col("maker_order_id", "taker_order_id").cast(pl.Int64),
    )
    filled = pl.concat([fills.select(pl.col(name).alias("order_id"), "qty") for name in fills.columns[-2:]])
    filled = filled.group_by("order_id").agg(pl.col("qty").sum().alias("filled"))
    whole = orders.filter("new").join(filled, "order_id", "left", maintain_order="left")
    whole = whole.with_columns(pl.col("filled").fill_null(0))
    rests = whole.with_columns(run.outcomes.filter(orders["new"])["leaves_qty"].alias("qty"))
    goes = orders.filter(~pl.col("new")).select("seq", "order_id").join(whole.drop("seq"), "order_id")
    goes = goes.with_columns((pl.col("filled") - pl.col("qty")).alias("qty"))
    same = "seq", "side", "price", "qty"
    changes = [fills.with_columns(-pl.col("qty")).select(same), rests.select(same), goes.select(same)]
    changes = pl.concat(changes).filter(pl.col("qty") != 0).sort("seq", maintain_order=True)
    return changes.select("side", "price", pl.col("qty").cum_sum().over("side", "price"))


def write(folder: Path, messages: int) -> tuple[int, int]:
    """Both as columns of integers; how many commands and how many updates."""
    orders = flow(messages)
    updates = level_updates(orders)
    for name, frame in ((ORDERS_NAME, orders), (LEVELS_NAME, updates)):
        np.savez(folder / name, **{column.name: column.to_numpy() for column in frame})
    return orders.height, updates.height
