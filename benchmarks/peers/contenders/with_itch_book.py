"""itch-book: its batches of the tables `bbo` and `messages`, with prices as integers.

It reads the file on a second thread. There is no way to ask it for books alone.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import itch_book
import numpy as np
from serve import BBO, Task, bbo_changes, references_of, serve


def batches(path: str, table: str) -> list[dict[str, np.ndarray]]:
    feed = itch_book.open(path, price_type="fixed")
    return [getattr(batch, table) for batch in feed.batches(tables=(table,))]


def joined(parts: list[dict[str, np.ndarray]]) -> SimpleNamespace:
    return SimpleNamespace(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def bbo_form(parts: Any, _: str) -> dict[str, np.ndarray]:
    table = joined(parts)
    return bbo_changes(table.seq - 1, table.locate, *(getattr(table, name) for name in BBO))


def decode_form(parts: Any, _: str) -> dict[str, np.ndarray]:
    table = joined(parts)
    replaced = table.type == b"U"
    message = np.concatenate((table.seq[replaced], table.seq)) - 1
    reference = np.concatenate((table.old_order_id[replaced], table.order_id)).astype(np.int64)
    order = np.argsort(message, kind="stable")  # the replaced one first
    return references_of(message[order], reference[order])


if __name__ == "__main__":
    serve(
        "itch-book",
        {
            "bbo": Task(lambda path: batches(path, "bbo"), bbo_form),
            "decode": Task(lambda path: batches(path, "messages"), decode_form),
        },
    )
