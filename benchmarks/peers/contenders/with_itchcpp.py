"""itchcpp: `BookManager` over the whole stream for books, its parser for messages.

It keeps no table of best prices. The nearest thing is to give it message after message and to ask for the
best bid and offer after each: task `bbo` does that, in Python.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from itchcpp.book import BookManager
from itchcpp.parser import MessageParser
from objects import references
from serve import Task, bbo_changes, best_of, serve


def best(book: Any) -> tuple[int, int, int, int]:
    """The touch of a book in 1e-4."""
    bbo = book.bbo()
    bid = (round(bbo.bid_price * 10_000), bbo.bid_shares) if bbo.has_bid else (0, 0)
    ask = (round(bbo.ask_price * 10_000), bbo.ask_shares) if bbo.has_ask else (0, 0)
    return *bid, *ask


def books(path: str) -> BookManager:
    manager = BookManager()
    manager.process_stream(Path(path).read_bytes())
    return manager


def books_form(manager: BookManager, _: str) -> dict[str, np.ndarray]:
    symbols = {number + 1: f"SYM{number:03}" for number in range(manager.book_count())}
    return best_of([(locate, *best(manager.book_for_symbol(name))) for locate, name in symbols.items()])


def bbo(path: str) -> list[tuple[int, ...]]:
    data, manager = Path(path).read_bytes(), BookManager()
    rows, books = [], {}
    at = number = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        manager.process_stream(data[at:end])
        if data[at + 2] in b"AFECXDU":
            locate = int.from_bytes(data[at + 3 : at + 5], "big")
            book = books.get(locate)
            if book is None:
                book = books[locate] = manager.book_for_symbol(f"SYM{locate - 1:03}")
            rows.append((number, locate, *best(book)))
        at, number = end, number + 1
    return rows


def decode(path: str) -> int:
    with Path(path).open("rb") as file:
        return sum(1 for _ in MessageParser().parse_file(file))


def decode_form(_: int, path: str) -> dict[str, np.ndarray]:
    with Path(path).open("rb") as file:
        names = "order_reference_number", "order_reference_number", "new_order_reference_number"
        return references(MessageParser().parse_file(file), *names)


if __name__ == "__main__":
    serve(
        "itchcpp",
        {
            "books": Task(books, books_form),
            "bbo": Task(bbo, lambda rows, _: bbo_changes(*np.array(rows, np.int64).T)),
            "decode": Task(decode, decode_form),
        },
    )
