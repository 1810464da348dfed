"""What an `OrderBook` answers: acks, fills, levels, depth."""

from __future__ import annotations

from typing import NamedTuple

from hftlab.codes import (
    Reason,
    Stage,
    Status,
)


class Fill(NamedTuple):
    """An execution of the submitted (taker's) order against a resting (maker's) one."""

    maker_order_id: int
    price: int  # 1e-9
    qty: int  # lots
    taker_account: int
    maker_account: int
    maker_leaves: int
    taker_leaves: int
    taker_order_id: int = 0  # 0: the risk gate's own order, which has none


class Ack(NamedTuple):
    """The outcome of one command."""

    status: Status
    filled_qty: int
    leaves_qty: int
    fills: tuple[Fill, ...]
    reason: Reason
    # of a refusal by the risk gate, or of a price or quantity: the limit, and what was found against it, as
    # in the table of rejects; None where there is none, or 64 bits can't hold it
    limit_value: int | None = None
    observed_value: int | None = None

    @property
    def stage(self) -> Stage | None:
        """Where in the life of the command it was rejected; None where it was not."""
        return self.reason.stage if self.reason else None


class Level(NamedTuple):
    """A price level."""

    price: int  # 1e-9
    qty: int  # open lots
    count: int  # orders


class Depth(NamedTuple):
    """The best levels of each side, best first."""

    bids: list[Level]
    asks: list[Level]
