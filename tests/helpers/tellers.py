"""Venues that tell all they shouldn't: seeded mbo facts for the certificate and its slow twin.

A `Teller` keeps a book of its own and tells events of one instrument: orders, sweeps in and out of turn, with
removals at once, at the end of the event, late or never, named and nameless aggressors, icebergs and orders
that are moved across the spread, auctions, hidden trades, snapshots, and things about orders nobody knows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.codes import MBO_FLAG_LAST, MBO_FLAG_SNAPSHOT, MboAction
from hftlab.schema import MBO, REFILLS_KEY, code_array

TICK = 1_000


class Told(NamedTuple):
    """One fact of an instrument."""

    action: str
    side: int
    price: int
    size: int
    order_id: int
    ts: int
    flags: int
    sequence: int
    symbol: str


class Teller:
    """Tells events of one instrument; what kind of venue it is, its seed decides."""

    def __init__(self, rng: np.random.Generator, symbol: str) -> None:
        self.rng, self.symbol = rng, symbol
        self.orders: dict[int, list[int]] = {}  # id: side, price, open; oldest first
        self.dead: list[int] = []
        self.late: list[tuple] = []  # removals still to tell
        self.rows: list[Told] = []
        self.event: list[tuple] = []
        self.ts, self.sequence, self.next_id = int(rng.integers(5)), 0, 1
        self.turns = rng.choice([0.0, 0.1, 0.5])  # how often somebody is executed out of turn
        self.removal = rng.choice(["at once", "at the end", "late", "any"])
        self.reports_by_modify, self.names, self.noise = rng.choice([0.0, 0.0, 0.5, 1.0], 3) * [1, 1, 0.4]
        self.flags = rng.choice(["none", "ends", "any"])
        self.disorder = rng.choice([0.0, 0.02, 0.3])  # how often a time is earlier than the one before

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, things):
        return things[int(self.rng.integers(len(things)))]

    def tell(self, rows: int) -> list[Told]:
        """At least so many facts."""
        if self.chance(0.4):
            self.snapshot()
        events = (
            self.add,
            self.cancel,
            self.modify,
            self.replace,
            self.trade,
            self.iceberg,
            self.move_across,
            self.hidden,
            self.auction,
            self.stray,
        )
        weights = np.array([6, 2, 2, 1, 5, 1, 0.7, 0.5, 0.5, 4 * self.noise + 0.01])
        while len(self.rows) < rows:
            self.ts += -3 if self.chance(self.disorder) else self.pick([0, 0, 1, 1, 7])
            self.rng.choice(events, p=weights / weights.sum())()
            if self.late and self.chance(0.4):
                self.event.append(self.late.pop(0))
            self.close()
        return self.rows

    def close(self, flags: int = 0) -> None:
        """Write the event down."""
        self.sequence += 1
        for place, (action, side, price, size, order_id) in enumerate(self.event):
            last = place == len(self.event) - 1 if self.flags == "ends" else self.chance(0.3)
            mark = MBO_FLAG_LAST if last and self.flags != "none" else 0
            price = price * TICK
            self.rows.append(
                Told(action, side, price, size, order_id, self.ts, flags | mark, self.sequence, self.symbol)
            )
            self.sequence += self.chance(0.2)
        self.event = []

    # -- events

    def snapshot(self) -> None:
        if self.chance(0.5):
            self.event.append(("R", 0, 0, 0, 0))
        for _ in range(int(self.rng.integers(1, 8))):
            self.add(crossing=self.chance(0.2))
        self.close(MBO_FLAG_SNAPSHOT)

    def add(self, side: int = 0, crossing: bool = False, price: int = 0) -> None:
        side = side or self.pick([1, -1])
        opposite = [price for other, price, _ in self.orders.values() if other == -side]
        price = price or int(self.rng.integers(8, 14))
        if opposite and not crossing and self.chance(0.95):  # most don't cross
            best = max(side * -price for price in opposite)
            price = side * min(side * price, -best - 1)
        order_id = self.pick(self.dead) if self.dead and self.chance(0.2) else self.next_id
        self.next_id += order_id == self.next_id
        self.orders[order_id] = [side, price, int(self.rng.integers(1, 9))]
        self.event.append(("A", *self.orders[order_id], order_id))

    def cancel(self) -> None:
        if self.orders:
            order_id = self.pick(list(self.orders))
            size = self.orders[order_id][2] if self.chance(0.6) else int(self.rng.integers(1, 9))
            self.take_off(order_id, size)

    def take_off(self, order_id: int, size: int) -> None:
        side, price, _ = self.orders[order_id]
        self.event.append(("C", side, price, size, order_id))
        self.lower(order_id, size)

    def lower(self, order_id: int, size: int) -> None:
        self.orders[order_id][2] -= size
        if self.orders[order_id][2] <= 0:
            del self.orders[order_id]
            self.dead.append(order_id)

    def modify(self) -> None:
        if self.orders:
            order_id = self.pick(list(self.orders))
            order = self.orders.pop(order_id)
            order[1] += self.pick([0, 0, 1, -1])
            order[2] = int(self.rng.integers(1, 9))
            self.orders[order_id] = order
            self.event.append(("M", *order, order_id))

    def replace(self) -> None:
        if self.orders:
            order_id = self.pick(list(self.orders))
            side, price, qty = self.orders[order_id]
            self.take_off(order_id, qty if self.chance(0.8) else 1)
            self.add(side if self.chance(0.9) else -side, price=max(price + self.pick([0, 1, -1]), 1))

    def trade(self) -> None:
        """An incoming order takes some orders, the best and oldest first, or not."""
        side = self.pick([1, -1])
        ids = [order_id for order_id, (other, _, _) in self.orders.items() if other == side]
        ids.sort(key=lambda order_id: -side * self.orders[order_id][1])
        if not ids:
            return
        name = self.next_id if self.chance(0.7) else self.stranger()
        taker, removals = name if self.chance(self.names) else 0, []
        self.next_id += 1
        if taker or self.chance(0.3):
            self.event.append(("T", -side, self.orders[ids[0]][1], 1, taker))
        makers = ids[: int(self.rng.integers(1, 4))]
        if self.chance(self.turns):
            makers = [self.pick(ids) for _ in makers]
        for order_id in makers:
            if order_id not in self.orders:
                continue
            price, qty = self.orders[order_id][1:]
            last = order_id == makers[-1]
            size = int(self.rng.integers(1, qty + 1)) if last or self.chance(self.turns) else qty
            self.event.append(("F", side, price + self.chance(0.02), size, order_id))
            removal = ("C", side, price, size, order_id)
            if size < qty and self.chance(self.reports_by_modify):
                removal = ("M", side, price, qty - size, order_id)
            self.lower(order_id, size)
            style = (
                self.removal
                if self.removal != "any"
                else self.pick(["at once", "late", "never", "at the end"])
            )
            if style in ("at once", "at the end"):
                (self.event if style == "at once" else removals).append(removal)
            elif style == "late":
                self.late.append(removal)
        self.event += removals
        if self.chance(0.25):
            self.orders[self.next_id - 1] = [-side, price, int(self.rng.integers(1, 9))]
            self.event.append(("A", *self.orders[self.next_id - 1], taker or self.next_id - 1))

    def iceberg(self) -> None:
        """The best orders are taken, listed in any order; one shows more of itself, or does so twice."""
        side = self.pick([1, -1])
        ids = [order_id for order_id, (other, _, _) in self.orders.items() if other == side]
        ids.sort(key=lambda order_id: -side * self.orders[order_id][1])
        makers = ids[: int(self.rng.integers(1, 4))]
        if not makers:
            return
        refilled = self.pick(makers)
        fills = [("F", *self.orders[order_id], order_id) for order_id in makers]
        if self.chance(0.3):
            fills.append(("F", *self.orders[refilled][:2], int(self.rng.integers(1, 5)), refilled))
        self.event += [fills[place] for place in self.rng.permutation(len(fills))]
        for order_id in makers:
            side, price, qty = self.orders[order_id]
            if order_id != refilled:
                self.take_off(order_id, qty)
                continue
            order = self.orders.pop(order_id)
            order[2] = qty if self.chance(0.6) else int(self.rng.integers(1, 9))
            self.orders[order_id] = order
            self.event.append(("M", side if self.chance(0.9) else 0, price, order[2], order_id))

    def move_across(self) -> None:
        """An order is moved to where it trades: its own F comes with those of the makers."""
        if not self.orders:
            return
        own = self.pick(list(self.orders))
        side = self.orders[own][0]
        others = [order_id for order_id, (other, _, _) in self.orders.items() if other == -side]
        makers = others[: int(self.rng.integers(0, 3))]
        price = self.orders[makers[0]][1] if makers else 11
        traded = sum(self.orders[order_id][2] for order_id in makers) or 1
        named = self.pick([own, own, own, 0, self.stranger()])
        self.event.append(("T", side if self.chance(0.9) else -side, price, traded, named))
        self.event.append(("F", side, price, traded, own))
        for order_id in makers:
            self.event.append(("F", *self.orders[order_id], order_id))
        for order_id in makers:
            self.take_off(order_id, self.orders[order_id][2])
        if self.chance(0.5):
            self.take_off(own, self.orders[own][2])
        else:
            self.orders[own][1:] = [price, int(self.rng.integers(1, 9))]
            self.event.append(("M", *self.orders[own], own))

    def hidden(self) -> None:
        self.event.append(("T", self.pick([1, -1, 0]), 10, int(self.rng.integers(0, 5)), 0))

    def auction(self) -> None:
        """Orders of both sides trade with each other at one price."""
        for side in (1, -1):
            self.add(side, crossing=True, price=11)
        ids = [self.pick(list(self.orders)) for _ in range(2)]
        told = self.chance(0.7)
        for order_id in dict.fromkeys(ids):
            side, _, qty = self.orders[order_id]
            self.event.append(("F", 0 if told else side, 11, qty, order_id))
        for order_id in dict.fromkeys(ids):
            self.take_off(order_id, self.orders[order_id][2])

    def stranger(self) -> int:
        """The id of an order that was never added, or badly."""
        return 900 + int(self.rng.integers(3))

    def stray(self) -> None:
        """Something that no book of ours explains."""
        order_id = self.pick([*self.orders, *self.dead, *[self.stranger()] * (1 + len(self.dead) // 4)])
        action = self.pick(list("AAMCCFFFTNR" if self.chance(0.3) else "AAMCCFFFT"))
        side = self.pick([1, -1]) if action != "F" or self.chance(0.7) else 0
        size = int(self.rng.integers(1, 9)) if self.chance(0.8) else self.pick([0, -2, 2**40, 2**62])
        price = int(self.rng.integers(8, 14)) if self.chance(0.9) else self.pick([0, -1])
        self.event.append((action, side, price, size, order_id))
        if action == "F" and self.chance(0.7):
            self.event.append(("C", side or 1, price, size, order_id))


def facts(seed: int, rows: int) -> list[Told]:
    """The facts of one to three such venues, interleaved row by row or in the order of their times."""
    rng = np.random.default_rng(seed)
    symbols = "XYZ"[: int(rng.choice([1, 1, 2, 3]))]
    streams = [Teller(rng, symbol).tell(rows // len(symbols)) for symbol in symbols]
    if rng.random() < 0.3:
        return sorted((fact for stream in streams for fact in stream), key=lambda fact: fact.ts)
    places = rng.permutation([number for number, stream in enumerate(streams) for _ in stream])
    following = [iter(stream) for stream in streams]
    return [next(following[number]) for number in places]


def table_of(told: list[Told], refills: str = "keep") -> pa.Table:
    """Facts as an mbo table of the feeds' schema, which says what refills do."""
    columns = {name: list(values) for name, values in zip(Told._fields, zip(*told, strict=True), strict=True)}
    action = np.array([MboAction[name] for name in columns["action"]], np.int8)
    stamps = pa.array(np.array(columns["ts"], np.int64)).cast(MBO.field("ts_event").type)
    symbols = pa.array(columns["symbol"], pa.string()).dictionary_encode().cast(MBO.field("symbol").type)
    arrays = {
        "ts_event": stamps,
        "ts_recv": stamps,
        "symbol": symbols,
        "action": code_array(action, MboAction),
    }
    return pa.Table.from_arrays(
        [
            arrays[field.name] if field.name in arrays else pa.array(columns[field.name], field.type)
            for field in MBO
        ],
        schema=MBO.with_metadata(MBO.metadata | {REFILLS_KEY: refills.encode()}),
    )
