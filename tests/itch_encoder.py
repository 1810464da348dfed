"""Writes NASDAQ TotalView-ITCH 5.0, all 23 types, from the specification; shares no code with the feed.

`message("A", 1, ts=5, reference=7, side="B", shares=100, stock="AAPL", price=5853300)` is one message;
`framed`, `soup` and `bare` put many into a file.
"""

from __future__ import annotations

import struct

HEADER = "locate tracking ts"
STOCK, PRICE, ORDER = "stock/8s", "price/I", "reference/Q"
TYPES = {
    "S": "event/c",
    "R": "stock/8s market/c status/c round_lot/I round_only/c class/c subtype/2s authenticity/c short_sale/c "
    "ipo/c luld_tier/c etp/c leverage/I inverse/c",
    "H": "stock/8s state/c reserved/c reason/4s",
    "Y": "stock/8s action/c",
    "L": "mpid/4s stock/8s primary/c mode/c state/c",
    "V": "level1/Q level2/Q level3/Q",
    "W": "level/c",
    "K": "stock/8s release_time/I qualifier/c price/I",
    "J": "stock/8s reference_price/I upper/I lower/I extension/I",
    "h": "stock/8s market/c action/c",
    "A": "reference/Q side/c shares/I stock/8s price/I",
    "F": "reference/Q side/c shares/I stock/8s price/I mpid/4s",
    "E": "reference/Q shares/I match/Q",
    "C": "reference/Q shares/I match/Q printable/c price/I",
    "X": "reference/Q shares/I",
    "D": "reference/Q",
    "U": "reference/Q new/Q shares/I price/I",
    "P": "reference/Q side/c shares/I stock/8s price/I match/Q",
    "Q": "shares/Q stock/8s price/I match/Q cross/c",
    "B": "match/Q",
    "I": "paired/Q imbalance/Q direction/c stock/8s far/I near/I price/I cross/c variation/c",
    "N": "stock/8s interest/c",
    "O": "stock/8s eligible/c lowest/I highest/I near/I near_time/Q lower/I upper/I",
}
FIELDS = {kind: [tuple(word.split("/")) for word in words.split()] for kind, words in TYPES.items()}
LENGTHS = {
    kind: struct.calcsize(">cHH6s" + "".join(code for _, code in fields)) for kind, fields in FIELDS.items()
}


def message(kind: str, locate: int = 1, ts: int = 0, tracking: int = 0, **values: object) -> bytes:
    """One message, without what frames it; fields that aren't given are 0 or blank."""
    parts = [struct.pack(">cHH", kind.encode(), locate, tracking), ts.to_bytes(6, "big")]
    for name, code in FIELDS[kind]:
        value = values.pop(name, 0 if code in "IQ" else "")
        if isinstance(value, str):
            value = value.encode("latin-1").ljust(struct.calcsize(code))
        parts.append(struct.pack(">" + code, value))
    assert not values, f"{kind} has no {', '.join(values)}"
    return b"".join(parts)


def framed(messages: list[bytes]) -> bytes:
    """As in the files on NASDAQ's server."""
    return b"".join(struct.pack(">H", len(m)) + m for m in messages)


def soup(messages: list[bytes]) -> bytes:
    """As packets of SoupBinTCP."""
    return b"".join(struct.pack(">Hc", len(m) + 1, b"S") + m for m in messages)


def bare(messages: list[bytes]) -> bytes:
    """One after the other."""
    return b"".join(messages)
