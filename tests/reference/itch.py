"""A slow decoder of ITCH 5.0, from the specification: dicts and slices, sharing no code with the feed."""

from __future__ import annotations

import struct
from typing import NamedTuple

LENGTHS = dict(
    zip(
        "SRHYLVWKJhAFECXDUPQBINO",
        (12, 39, 25, 20, 26, 35, 12, 28, 35, 21, 36, 40, 31, 36, 23, 19, 35, 44, 40, 19, 50, 20, 48),
        strict=True,
    )
)
ALL = 2**63 - 1


class Row(NamedTuple):
    """A row of the mbo table; prices in 1e-4, times in ns since midnight."""

    ts: int
    symbol: str
    action: str
    side: int
    price: int
    size: int
    order_id: int
    flags: int
    sequence: int


def number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def text(raw: bytes) -> str:
    return raw.decode("latin-1").rstrip(" \0")


def split(data: bytes, framing: str) -> list[bytes]:
    """The messages of a sound file."""
    messages, at = [], 0
    while at < len(data):
        if framing == "bare":
            length = LENGTHS[chr(data[at])]
        else:
            (length,) = struct.unpack_from(">H", data, at)
            at += 2
        messages.append(data[at : at + length][1 if framing == "soup" else 0 :])
        at += length
    return messages


class Decoder:
    """Rows of messages, one after the other; counts what is odd."""

    def __init__(self) -> None:
        self.open: dict[tuple[int, int], list[int]] = {}  # (locate, reference) -> [side, price, shares]
        self.names: dict[int, str] = {}
        self.unknown = self.twice = self.exceeded = 0
        self.rows: list[Row] = []

    def rest(self, key: tuple[int, int], side: int, price: int, shares: int) -> None:
        if shares:
            self.twice += key in self.open
            self.open[key] = [side, price, shares]

    def take(self, key: tuple[int, int], shares: int | None) -> tuple[int, int, int]:
        """(side, price, what goes): `shares` of an order, or all of it, which is at least one."""
        if key not in self.open:
            self.unknown += 1
            return 0, 0, 1 if shares is None else shares
        side, price, left = self.open[key]
        taken = left if shares is None else shares
        self.exceeded += taken > left
        if taken >= left:
            del self.open[key]
        else:
            self.open[key][2] = left - taken
        return side, price, taken

    def decode(self, messages: list[bytes]) -> list[Row]:
        for sequence, m in enumerate(messages):
            kind, locate, ts = chr(m[0]), number(m[1:3]), number(m[5:11])
            if kind == "R":
                self.names[locate] = text(m[11:19])
            stock = {"A": 24, "F": 24, "P": 24, "Q": 19, "H": 11}.get(kind)
            if stock and not (kind == "Q" and number(m[11:19]) == 0):
                self.names.setdefault(locate, text(m[stock : stock + 8]))
            facts = getattr(self, f"on_{kind}", lambda m, locate: [])(m, locate)
            for i, (action, side, price, size, order_id) in enumerate(facts):
                flags = (128 if i == len(facts) - 1 else 0) | (2 if kind == "P" else 0)
                symbol = self.names.get(locate) or f"#{locate}"
                self.rows.append(Row(ts, symbol, action, side, price, size, order_id, flags, sequence))
        return self.rows

    def on_A(self, m, locate):
        reference, shares, price = number(m[11:19]), number(m[20:24]), number(m[32:36])
        side = {b"B": 1, b"S": -1}.get(m[19:20], 0)
        if not side:
            return [("N", 0, price, shares, reference)]
        self.rest((locate, reference), side, price, shares)
        return [("A", side, price, shares, reference)]

    on_F = on_A

    def on_E(self, m, locate):
        reference = number(m[11:19])
        side, price, taken = self.take((locate, reference), number(m[19:23]))
        return [("F", side, price, taken, reference), ("C", side, price, taken, reference)]

    def on_C(self, m, locate):
        (fill, cancel) = self.on_E(m, locate)
        return [("F", fill[1], number(m[32:36]), *fill[3:]), cancel]

    def on_X(self, m, locate):
        return [self.on_E(m, locate)[1]]

    def on_D(self, m, locate):
        reference = number(m[11:19])
        return [("C", *self.take((locate, reference), None), reference)]

    def on_U(self, m, locate):
        old, new, shares, price = number(m[11:19]), number(m[19:27]), number(m[27:31]), number(m[31:35])
        known = (locate, old) in self.open
        side, paid, taken = self.take((locate, old), None)
        if known:
            self.rest((locate, new), side, price, shares)
        return [("C", side, paid, taken, old), ("A" if known else "N", side, price, shares, new)]

    def on_P(self, m, locate):
        return [("T", 0, number(m[32:36]), number(m[20:24]), 0)]  # masked since 2014-07-14: no side

    def on_Q(self, m, locate):
        shares = number(m[11:19])
        return [("T", 0, number(m[27:31]), min(shares, ALL), 0)] if shares else []

    def on_B(self, m, locate):
        return [("N", 0, 0, 0, 0)]

    on_H = on_B
