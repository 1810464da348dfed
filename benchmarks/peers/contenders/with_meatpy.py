"""meatpy: a market processor for each instrument, asked for its best levels after each message.

A processor takes the messages of all instruments and skips the others'; giving each one only its own, by
the locate, spares it that.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import numpy as np
from meatpy.itch50 import ITCH50MarketProcessor, ITCH50MessageReader
from objects import references
from serve import Task, bbo_changes, best_of, levels_of, serve

DAY = datetime.datetime(2024, 1, 2)


def processed(path: str) -> Iterator[tuple[int, int, Any]]:
    """Message after message: its number, its locate and the processor that has dealt with it."""
    processors: dict[int, Any] = {}
    with ITCH50MessageReader(path) as reader:
        for number, message in enumerate(reader):
            locate = message.stock_locate
            if locate:
                processor = processors.get(locate)
                if processor is None:
                    processor = ITCH50MarketProcessor(f"SYM{locate - 1:03}", DAY)
                    processors[locate] = processor
                processor.process_message(message)
                yield number, locate, processor


def best(processor: Any) -> tuple[int, int, int, int]:
    """The touch."""
    book = processor.current_lob
    if book is None:
        return 0, 0, 0, 0
    bid, ask = book.bid_levels, book.ask_levels
    bid = (bid[0].price, bid[0].volume) if bid else (0, 0)
    ask = (ask[0].price, ask[0].volume) if ask else (0, 0)
    return *bid, *ask


def bbo(path: str) -> list[tuple[int, ...]]:
    return [(number, locate, *best(processor)) for number, locate, processor in processed(path)]


def bbo_form(rows: list[tuple[int, ...]], _: str) -> dict[str, np.ndarray]:
    return bbo_changes(*np.array(rows, np.int64).T)


def books(path: str) -> dict[int, Any]:
    return {locate: processor for _, locate, processor in processed(path)}


def books_form(processors: dict[int, Any], _: str) -> dict[str, np.ndarray]:
    levels = []
    for locate, processor in processors.items():
        for side, rows in ((1, processor.current_lob.bid_levels), (-1, processor.current_lob.ask_levels)):
            levels += [(locate, side, level.price, level.volume) for level in rows]
    return best_of([(locate, *best(processor)) for locate, processor in processors.items()]) | levels_of(
        levels
    )


def decode(path: str) -> int:
    with ITCH50MessageReader(path) as reader:
        return sum(1 for _ in reader)


def decode_form(_: int, path: str) -> dict[str, np.ndarray]:
    with ITCH50MessageReader(path) as reader:
        return references(reader, "original_ref", "order_ref", "new_ref")


if __name__ == "__main__":
    serve(
        "meatpy",
        {
            "bbo": Task(bbo, bbo_form),
            "books": Task(books, books_form),
            "decode": Task(decode, decode_form),
        },
    )
