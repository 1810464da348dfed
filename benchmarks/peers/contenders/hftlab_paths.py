"""hftlab's ways through an order flow: calls of `OrderBook`, the event loop, batch of a table or a tape."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import polars as pl
from serve import Task, bbo_changes, best_of, commands, fills_of, levels_of, serve

import hftlab
from benchmarks.peers.orders import TICK, table_of
from hftlab.feeds import Flow


def calls(path: str) -> list[tuple[bool, int, int, int, int]]:
    return [(new, side, order_id, px * TICK, qty) for new, side, order_id, px, qty in commands(path)]


def match(flow: list[tuple[bool, int, int, int, int]]) -> tuple[Any, list[tuple[int, Any]]]:
    book = hftlab.OrderBook()
    submit, cancel, acks = book.submit, book.cancel, []
    for new, side, order_id, price, qty in flow:
        if new:
            ack = submit(order_id, side, price, qty)
            if ack.fills:
                acks.append((order_id, ack.fills))
        else:
            cancel(order_id)
    return book, acks


def form(result: Any, _: str) -> dict[str, np.ndarray]:
    book, acks = result
    fills = [(f.maker_order_id, taker, f.price // TICK, f.qty) for taker, rows in acks for f in rows]
    depth = book.depth(len(book) + 1)
    return fills_of(fills) | books_of(
        [
            (1, side, level.price // TICK, level.qty)
            for side, rows in zip((1, -1), depth, strict=True)
            for level in rows
        ]
    )


def books_of(levels: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    """All levels of one book, best first on each side, and its touch."""
    best = [next(((px, sz) for _, s, px, sz in levels if s == side), (0, 0)) for side in (1, -1)]
    return levels_of(levels) | best_of([(1, *best[0], *best[1])])


def table(path: str) -> Any:
    with np.load(path) as columns:
        return table_of(dict(columns)).to_arrow()


def result_form(run: hftlab.Result, _: str) -> dict[str, np.ndarray]:
    fills = run.fills.select("maker_order_id", "taker_order_id", pl.col("price") // TICK, "qty")
    levels = run.book.group_by("side", "price").agg(pl.col("qty").sum())
    levels = levels.sort(pl.col("side") * pl.col("price"), descending=True)
    cells = levels.select(pl.col("side").cast(pl.Int64), pl.col("price") // TICK, "qty").rows()
    return fills_of(fills.rows()) | books_of([(1, *cell) for cell in cells])


def replayed(path: str) -> Any:
    def run(flow: Any) -> hftlab.Result:
        result = hftlab.replay(flow, path=path, threads=1, record=("fills", "book"))
        result.to_arrow("fills")
        return result

    return run


def updates(path: str) -> Any:
    with np.load(path) as columns:
        side, price, size = (columns[name] for name in ("side", "price", "qty"))
    rows = np.arange(side.size)
    return (
        pl.DataFrame({"ts_event": rows, "side": side, "price": price * TICK, "size": size, "sequence": rows})
        .select(
            pl.col("ts_event").cast(pl.Datetime("ns", "UTC")),
            pl.lit("M").cast(pl.Categorical).alias("action"),
            pl.col("side").cast(pl.Int8),
            "price",
            "size",
            "sequence",
        )
        .to_arrow()
    )


def touch(levels: Any) -> Any:
    flow = Flow("levels", "table", "mbp", levels)
    return hftlab.replay(flow, mode="rebuild", threads=1, record=("l1",)).to_arrow("l1")


def touch_form(l1: Any, _: str) -> dict[str, np.ndarray]:
    frame = pl.from_arrow(l1)
    values = [frame[name].fill_null(0).to_numpy() for name in ("bid_px", "bid_sz", "ask_px", "ask_sz")]
    values = [values[0] // TICK, values[1], values[2] // TICK, values[3]]
    return bbo_changes(frame["seq"].to_numpy(), np.ones(frame.height, np.int64), *values)


TASKS = {"match": Task(match, form, calls), "touch": Task(touch, touch_form, updates)}
PATHS = {
    "event": Task(replayed("event"), result_form, table),
    "table": Task(replayed("batch"), result_form, table),
    "tape": Task(replayed("batch"), result_form, lambda path: hftlab.compile_tape(table(path))),
}

if __name__ == "__main__":
    serve("hftlab", {"match": PATHS[sys.argv[1]]})
