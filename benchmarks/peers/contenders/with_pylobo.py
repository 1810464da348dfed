"""pylobo: `ReplayContext` over the instruments of a file for books; its LazyFrame of order messages.

It has no table of best prices either. What it can write is every update of a price level (FeatherSink), which
takes several times as long as the books.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from lobo.levels import levels_lazy
from lobo.replay import ReplayContext
from lobo.replay.adapters.itch import ItchSource
from serve import Task, levels_of, references_of, serve

ORDERS = list("AFECXDU")


def books(path: str) -> Any:
    with ReplayContext(source=ItchSource.all_available(path), cutoff_time=None) as context:
        return context, {name: context[name] for name in context.keys()}  # noqa: SIM118 (no iterator)


def books_form(result: Any, _: str) -> dict[str, np.ndarray]:
    rows = []
    for name, book in result[1].items():
        for side, levels in ((1, book.orders.bids), (-1, book.orders.asks)):
            frame = levels_lazy(levels).select("price", "quantity").collect()
            rows += [(int(name[3:]) + 1, side, px, sz) for px, sz in frame.rows() if sz]
    return levels_of(rows)


def decode(path: str) -> pl.DataFrame:
    return ItchSource.all_available(path)[0].to_lazy_frame().collect()


def decode_form(frame: pl.DataFrame, _: str) -> dict[str, np.ndarray]:
    about = frame.with_row_index("message").filter(pl.col("message_type").is_in(ORDERS))
    replaced = about.filter(pl.col("message_type") == "U").select("message", reference="new_reference")
    both = pl.concat([about.select("message", "reference"), replaced])
    both = both.sort("message", maintain_order=True)
    return references_of(both["message"].to_numpy(), both["reference"].to_numpy())


if __name__ == "__main__":
    serve("pylobo", {"books": Task(books, books_form), "decode": Task(decode, decode_form)})
