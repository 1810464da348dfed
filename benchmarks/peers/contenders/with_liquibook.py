"""liquibook: a C++ book behind SWIG, which tells a listener in Python of fills; an order is an object.

It numbers the orders itself, one after the other. What is compared of its books is the touch.
"""

from __future__ import annotations

from typing import Any

import liquibook
import numpy as np
from serve import Task, best_of, commands, fills_of, serve


class Listener(liquibook.OrderListener):
    """Notes fills, and tells the orders of theirs, as the package's own example does."""

    def __init__(self) -> None:
        super().__init__()
        self.fills: list[tuple[int, int, int, int]] = []

    def on_fill(self, taker: Any, maker: Any, qty: int, price: int) -> None:
        taker.fill(qty, price, 0)
        maker.fill(qty, price, 0)
        self.fills.append((maker.order_id_, taker.order_id_, price, qty))

    def on_accept(self, order: Any) -> None: ...

    def on_cancel(self, order: Any) -> None: ...


def match(flow: list[tuple[bool, int, int, int, int]]) -> tuple[Any, Listener, dict[int, Any]]:
    book, listener = liquibook.DepthOrderBook(), Listener()
    book.set_order_listener(listener)
    add, cancel, make = book.add, book.cancel, liquibook.SimpleOrder
    orders: dict[int, Any] = {}
    for new, side, order_id, price, qty in flow:
        if new:
            orders[order_id] = order = make(side > 0, price, qty)
            add(order)
        else:
            cancel(orders[order_id])
    return book, listener, orders


def form(result: Any, _: str) -> dict[str, np.ndarray]:
    book, listener, orders = result
    ours = {order.order_id_: order_id for order_id, order in orders.items()}
    depth = book.depth()
    levels = depth.bids(), depth.asks()
    best = best_of([(1, *(value for level in levels for value in (level.price(), level.aggregate_qty())))])
    return fills_of([(ours[maker], ours[taker], *rest) for maker, taker, *rest in listener.fills]) | best


if __name__ == "__main__":
    serve("liquibook", {"match": Task(match, form, commands)})
