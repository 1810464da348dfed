"""orderly-chaos: a C++ book behind ctypes; its trades are taken by the handler that it calls."""

from __future__ import annotations

from typing import Any

import numpy as np
from orderly_chaos import LimitOrderBook, Side
from serve import Task, commands, fills_of, levels_of, serve


def match(flow: list[tuple[bool, int, int, int, int]]) -> tuple[Any, list[Any]]:
    trades: list[Any] = []
    book = LimitOrderBook(on_trade=trades.append)
    limit, cancel, buy, sell = book.limit, book.cancel, Side.BUY, Side.SELL
    for new, side, order_id, price, qty in flow:
        if new:
            limit(buy if side > 0 else sell, order_id, qty, price)
        else:
            cancel(order_id)
    return book, trades


def form(result: Any, _: str) -> dict[str, np.ndarray]:
    book, trades = result
    levels = []
    for side, name in ((1, Side.BUY), (-1, Side.SELL)):
        levels += [(1, side, level.price, level.volume) for level in book.depth(name, book.count() + 1)]
    rows = [(trade.maker_id, trade.taker_id, trade.price, trade.quantity) for trade in trades]
    return fills_of(rows) | levels_of(levels)


if __name__ == "__main__":
    serve("orderly-chaos", {"match": Task(match, form, commands)})
