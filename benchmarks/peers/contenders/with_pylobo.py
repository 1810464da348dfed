"""pylobo: `ReplayContext` over the instruments of a file for books; its LazyFrame of order messages.

It has no table of best prices either. What it can write is every update of a price level (FeatherSink), which
takes several times as long as the books. As a matching book it gives orders ids of its own, which are UUIDs.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import lobo
import numpy as np
import polars as pl
from lobo.levels import levels_lazy
from lobo.replay import ReplayContext
from lobo.replay.adapters.itch import ItchSource
from serve import Task, commands, fills_of, levels_of, references_of, serve

ORDERS = list("AFECXDU")


def books(path: str) -> Any:
    with ReplayContext(source=ItchSource.all_available(path), cutoff_time=None) as context:
        return context, {name: context[name] for name in context.keys()}  # noqa: SIM118 (no iterator)


def books_form(result: Any, _: str) -> dict[str, np.ndarray]:
    return levels_of([row for name, book in result[1].items() for row in resting(int(name[3:]) + 1, book)])


def resting(locate: int, book: Any) -> list[tuple[int, int, int, int]]:
    rows = []
    for side, levels in ((1, book.orders.bids), (-1, book.orders.asks)):
        frame = levels_lazy(levels).select("price", "quantity").collect()
        rows += [(locate, side, px, sz) for px, sz in frame.rows() if sz]
    return rows


def match(flow: list[tuple[bool, int, int, int, int]]) -> tuple[Any, dict[int, UUID], list[tuple[int, Any]]]:
    book, reports, trader = lobo.Book(), lobo.Reports(include_fills=True), uuid4()
    orders = lobo._lobo.orders  # where its classes of orders are, and nowhere else
    fill, cancel, make, buy, sell = (
        book.fill,
        book.cancel,
        orders.LimitOrder,
        orders.Side.Buy,
        orders.Side.Sell,
    )
    ids: dict[int, UUID] = {}
    reported = []
    for new, side, order_id, price, qty in flow:
        if new:
            done = fill(make(price, qty, trader, buy if side > 0 else sell), reports)
            ids[order_id] = done.remaining_order_id
            fills = done.report.fills
            if fills:
                reported.append((order_id, fills))
        else:
            cancel(ids[order_id])
    return book, ids, reported


def match_form(result: Any, _: str) -> dict[str, np.ndarray]:
    book, ids, reported = result
    ours = {theirs: order_id for order_id, theirs in ids.items()}
    rows = [
        (ours[fill.maker_order_id], taker, fill.price, fill.fill_quantity)
        for taker, fills in reported
        for fill in fills
    ]
    return fills_of(rows) | levels_of(resting(1, book))


def decode(path: str) -> pl.DataFrame:
    return ItchSource.all_available(path)[0].to_lazy_frame().collect()


def decode_form(frame: pl.DataFrame, _: str) -> dict[str, np.ndarray]:
    about = frame.with_row_index("message").filter(pl.col("message_type").is_in(ORDERS))
    replaced = about.filter(pl.col("message_type") == "U").select("message", reference="new_reference")
    both = pl.concat([about.select("message", "reference"), replaced])
    both = both.sort("message", maintain_order=True)
    return references_of(both["message"].to_numpy(), both["reference"].to_numpy())


if __name__ == "__main__":
    serve(
        "pylobo",
        {
            "books": Task(books, books_form),
            "decode": Task(decode, decode_form),
            "match": Task(match, match_form, commands),
        },
    )
