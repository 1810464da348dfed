"""limit-order-book: a C++ book behind ctypes. It tells of no fill; what rests can be asked by price."""

from __future__ import annotations

from typing import Any

import numpy as np
from limit_order_book import LimitOrderBook
from serve import Task, commands, levels_of, serve


def match(flow: list[tuple[bool, int, int, int, int]]) -> Any:
    book = LimitOrderBook()
    buy, sell, cancel = book.limit_buy, book.limit_sell, book.cancel
    for new, side, order_id, price, qty in flow:
        if new:
            (buy if side > 0 else sell)(order_id, qty, price)
        else:
            cancel(order_id)
    return book


def form(book: Any, path: str) -> dict[str, np.ndarray]:
    prices = sorted({price for new, _, _, price, _ in commands(path) if new})
    levels = []
    for side, best, volume in (
        (1, book.best_buy(), book.volume_buy),
        (-1, book.best_sell(), book.volume_sell),
    ):
        rows = [(1, side, price, volume(price)) for price in prices if best and (best - price) * side >= 0]
        levels += [row for row in rows if row[-1]]
    return levels_of(levels)


if __name__ == "__main__":
    serve("limit-order-book", {"match": Task(match, form, commands)})
