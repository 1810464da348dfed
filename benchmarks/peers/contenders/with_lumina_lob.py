"""lumina-lob: its C++ core, or its classes in Python; both note every event in a journal of their own.

Sending an order returns nothing. All trades since the beginning can be had as a list; it is copied each
time, so it is asked for once, at the end. A trade has no price there; the journal, read after the clock has
stopped, has.
"""

from __future__ import annotations

import sys
from typing import Any

import lumina_lob
import numpy as np
from lumina_lob import _core
from serve import Task, commands, fills_of, levels_of, serve


def match(flow: list[tuple[bool, int, int, int, int]]) -> tuple[Any, list[tuple[int, int, int]]]:
    book = _core.OrderBook()
    process, cancel = _core.MatchingEngine(book).process, book.cancel
    buy, sell, limit = _core.Side.BID, _core.Side.ASK, _core.OrderType.LIMIT
    for new, side, order_id, price, qty in flow:
        if new:
            process(order_id, buy if side > 0 else sell, price, qty, limit)
        else:
            cancel(order_id)
    return book, book.trades()


def match_in_python(flow: list[tuple[bool, int, int, int, int]]) -> tuple[Any, list[tuple[int, int, int]]]:
    book = lumina_lob.OrderBook()
    process, cancel = lumina_lob.MatchingEngine(book).process, book.cancel
    buy, sell, order = lumina_lob.Side.BID, lumina_lob.Side.ASK, lumina_lob.Order
    for new, side, order_id, price, qty in flow:
        if new:
            process(order(order_id, buy if side > 0 else sell, price, qty))
        else:
            cancel(order_id)
    return book, book.trades


def form(result: Any, path: str) -> dict[str, np.ndarray]:
    book, trades = result
    in_python = isinstance(book, lumina_lob.OrderBook)
    events = book.event_log.events if in_python else book.event_log().events
    prices = [event.price for event in events if event.event_type.name == "FILL"]
    prices = prices[:: max(1, len(prices) // max(1, len(trades)))]
    sides = (lumina_lob.Side if in_python else _core.Side).__members__
    levels = []
    for side, name in ((1, "BID"), (-1, "ASK")):
        depth = book.full_depth(sides[name])
        levels += [(1, side, px, sz) for px, sz in (depth.items() if in_python else depth)]
    rows = [(maker, taker, px, qty) for (taker, maker, qty), px in zip(trades, prices, strict=True)]
    return fills_of(rows) | levels_of(levels)


if __name__ == "__main__":
    run = match_in_python if sys.argv[1:] == ["python"] else match
    serve("lumina-lob", {"match": Task(run, form, commands)})
