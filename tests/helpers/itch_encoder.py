"""Writes NASDAQ TotalView-ITCH 5.0, all 23 types, from the specification; shares no code with the feed.

`message("A", 1, ts=5, reference=7, side="B", shares=100, stock="AAPL", price=5853300)` is one message;
`framed`, `soup` and `bare` put many into a file. `market(messages, symbols, seed)` makes millions of
realistic ones as an array, `encoded` their bytes, `expected` the rows a decoder must make of them.
"""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa

import hftlab

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


# ------------------------------------------------------------------ a market: many messages, vectorized

EVENT = np.dtype(
    [
        ("kind", "u1"),
        ("locate", "u2"),
        ("side", "i1"),
        ("ts", "i8"),
        ("reference", "u8"),
        ("new", "u8"),
        ("shares", "u8"),
        ("price", "u4"),
        ("match", "u8"),
        ("resting", "u4"),  # price of the order a message is about
        ("open", "u4"),  # its shares before the message
    ]
)
A, F, E, C, X, D, U, P, Q, B = (ord(letter) for letter in "AFECXDUPQB")
OTHERS = "SHYLVWKJhINO"
STEP = 3  # from one reference to the next
BLOCK = 1 << 18
SPELL = {"c": "S1", "2s": "S2", "4s": "S4", "8s": "S8", "I": ">u4", "Q": ">u8"}
USUAL = {"event": b"Q", "state": b"T", "printable": b"Y", "cross": b"O"}  # of `market`; others are any letter
MIDNIGHT_NS = 1_704_171_600 * 10**9  # 2024-01-02 in New York, the day of hftlab.generate


def record(kind: str) -> np.dtype:
    """A message of a type as numpy sees it."""
    header = [("kind", "u1"), ("locate", ">u2"), ("tracking", ">u2"), ("high", ">u2"), ("low", ">u4")]
    return np.dtype(header + [(name, SPELL[code]) for name, code in FIELDS[kind]])


def market(messages: int, symbols: int = 1, seed: int = 0) -> np.ndarray:
    """About so many messages (EVENT) of a day: the venue's side of `hftlab.generate`, of all types."""
    table = hftlab.generate(messages, symbols, seed)
    run = hftlab.replay(table, record=("fills", "outcomes"))
    events = _orders(table, run)
    random = np.random.default_rng(seed)
    executed = np.flatnonzero((events["kind"] == E) & (random.random(events.size) < 0.1))
    events["kind"][executed] = C
    events["price"][executed] = events["resting"][executed] + random.integers(0, 9, executed.size)
    events["kind"][(events["kind"] == A) & (random.random(events.size) < 0.15)] = F
    return _with_others(events, symbols, random)


def _orders(table: pa.Table, run: hftlab.Result) -> np.ndarray:
    """A, E, X, D and U in order, as the venue of the commands would have told of them."""
    t = {name: table.column(name).to_numpy() for name in ("order_id", "side", "price", "qty")}
    action = table.column("action").combine_chunks().indices.to_numpy()
    book = table.column("symbol").combine_chunks().indices.to_numpy()
    ts = table.column("ts").cast("int64").to_numpy()
    fills = {name: run.fills[name].to_numpy() for name in ("seq", "qty", "maker_order_id")}
    outcomes = run.to_arrow("outcomes")
    status = outcomes.column("status").combine_chunks().indices.to_numpy()
    leaves = outcomes.column("leaves_qty").to_numpy()
    new, cancel, reduce, replace = range(4)
    traded = np.zeros(table.num_rows, bool)
    traded[fills["seq"]] = True
    gone, rests = np.isin(status, (1, 2, 3, 4)), leaves > 0
    replaced = (action == replace) & np.isin(status, (1, 4))
    groups = [  # rows, place among the messages of a command, type, order, shares
        (fills["seq"], 1, E, fills["maker_order_id"], fills["qty"]),
        (np.flatnonzero((action == new) & rests & (status == 0)), 2, A, None, leaves),
        (np.flatnonzero((action == cancel) & (status == 2)), 0, D, None, None),
        (np.flatnonzero((action == reduce) & (status == 0)), 0, X, None, t["qty"]),
        (np.flatnonzero((action == reduce) & (status == 2)), 0, D, None, None),
        (np.flatnonzero(replaced & ~traded & rests), 0, U, None, leaves),
        (np.flatnonzero(replaced & (traded | ~rests)), 0, D, None, None),
        (np.flatnonzero(replaced & traded & rests & gone), 2, A, None, leaves),
    ]
    count = sum(rows.size for rows, *_ in groups)
    events, row, place, order = np.zeros(count, EVENT), *(np.empty(count, "i8") for _ in range(3))
    at = 0
    for rows, rank, kind, ids, shares in groups:
        here = slice(at, at := at + rows.size)
        row[here], place[here] = rows, rank
        order[here] = t["order_id"][rows] if ids is None else ids
        events["kind"][here] = kind
        if shares is not None:
            events["shares"][here] = shares if ids is not None else shares[rows]
    in_time = np.argsort(3 * row + place, kind="stable")
    events, row, order = events[in_time], row[in_time], order[in_time]
    events["ts"], events["locate"] = ts[row] - MIDNIGHT_NS, book[row] + 1
    priced = np.isin(events["kind"], (A, U))
    events["price"][priced] = t["price"][row[priced]] // 100_000
    events["match"] = np.arange(count)
    sides = np.zeros(int(t["order_id"].max(initial=0)) + 1, "i1")
    sides[t["order_id"][action == new]] = t["side"][action == new]
    events["side"] = sides[order]
    return _with_references(events, order)


def _with_references(events: np.ndarray, order: np.ndarray) -> np.ndarray:
    """References from the orders' ids (a U gives a new one), and what stands behind each of them."""
    born = np.isin(events["kind"], (A, U))
    reference = 1000 + STEP * np.cumsum(born).astype("u8")
    by_order = np.argsort(order, kind="stable")
    e, births, mine = events[by_order], born[by_order], reference[by_order]
    birth = np.maximum.accumulate(np.where(births, np.arange(e.size), 0))
    before = np.concatenate(([0], birth[:-1]))  # the birth that a message of the same order looks back to
    added = e["kind"] == A
    e["reference"] = np.where(added, mine, mine[before])
    e["new"] = np.where(e["kind"] == U, mine, 0)
    e["resting"] = np.where(added, 0, e["price"][before])
    taken = np.where(np.isin(e["kind"], (E, X)), e["shares"], 0).cumsum()
    e["open"] = np.where(added, 0, e["shares"][before] - (np.concatenate(([0], taken[:-1])) - taken[before]))
    events[by_order] = e
    return events


def _with_others(events: np.ndarray, symbols: int, random: np.random.Generator) -> np.ndarray:
    """Messages of the other types here and there: 2 in 100, and those of the start of a day before all."""
    count = events.size // 50
    others = np.zeros(count, EVENT)
    others["kind"] = random.choice([P, P, P, Q, B, *map(ord, OTHERS)], count)
    others["locate"] = random.integers(1, symbols + 1, count)
    others["side"] = np.where(random.random(count) < 0.5, 1, -1)
    others["shares"] = random.integers(0, 1000, count)
    others["price"] = random.integers(1, 10**7, count)
    others["match"] = random.integers(0, 2**63, count)
    places = np.sort(random.integers(0, events.size + 1, count))
    others["ts"] = events["ts"][np.maximum(places, 1) - 1] if events.size else 0
    start = np.zeros(symbols + 1, EVENT)
    start["kind"], start["locate"] = ord("R"), np.arange(symbols + 1)
    start["kind"][0] = ord("S")
    return np.concatenate((start, np.insert(events, places, others)))


def stock(locate: int) -> str:
    """What `market` calls its symbols."""
    return f"SYM{locate - 1:03d}"


def encoded(events: np.ndarray, framing: str = "framed") -> np.ndarray:
    """The bytes of these messages."""
    prefix = {"framed": 2, "soup": 3, "bare": 0}[framing]
    return np.concatenate(
        [np.empty(0, "u1"), *(_block(events[i : i + BLOCK], prefix) for i in range(0, events.size, BLOCK))]
    )


def _block(events: np.ndarray, prefix: int) -> np.ndarray:
    lengths = np.zeros(256, "i8")
    lengths[[ord(kind) for kind in LENGTHS]] = list(LENGTHS.values())
    length = lengths[events["kind"]]
    ends = (length + prefix).cumsum()
    data, starts = np.empty(ends[-1], "u1"), ends - length
    if prefix:
        told = length + (prefix == 3)
        data[starts - prefix], data[starts - prefix + 1] = told >> 8, told & 0xFF
    if prefix == 3:
        data[starts - 1] = ord("S")
    stocks = np.array([stock(i).ljust(8) for i in range(int(events["locate"].max()) + 1)], "S8")
    for kind in map(chr, np.unique(events["kind"])):
        rows = np.flatnonzero(events["kind"] == ord(kind))
        e, m = events[rows], np.zeros(rows.size, record(kind))
        m["kind"], m["locate"] = e["kind"], e["locate"]
        m["high"], m["low"] = e["ts"] >> 32, e["ts"] & 0xFFFF_FFFF
        for name in m.dtype.names[5:]:
            if name == "stock":
                m[name] = stocks[e["locate"]]
            elif name == "side":
                m[name] = np.where(e["side"] > 0, b"B", b"S")
            elif name in EVENT.names:
                m[name] = e[name]
            elif m.dtype[name].kind == "S":
                letters = [b"%c" % (ord("A") + i) for i in (e["match"] % 26).tolist()]
                m[name] = USUAL.get(name, [text.ljust(m.dtype[name].itemsize) for text in letters])
            else:
                m[name] = e["match"] >> np.uint64(m.dtype.fields[name][1])  # any number
        m = m.view("u1").reshape(rows.size, -1)
        data[starts[rows, None] + np.arange(m.shape[1])] = m
    return data


def expected(events: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of the mbo table that these messages mean, as columns; prices in 1e-4."""
    kind = events["kind"]
    twice = np.isin(kind, (E, C, U))
    none = ~np.isin(kind, [A, F, E, C, X, D, U, P, Q, B, ord("H")]) | ((kind == Q) & (events["shares"] == 0))
    rows = np.repeat(np.arange(events.size), np.where(none, 0, np.where(twice, 2, 1)))
    e = events[rows]
    second = np.zeros(rows.size, bool)
    second[1:] = rows[1:] == rows[:-1]
    last = np.append(rows[1:] != rows[:-1], True)[: rows.size]
    kind = e["kind"]
    action = np.full(rows.size, b"N", "S1")
    action[np.isin(kind, (A, F)) | ((kind == U) & second)] = b"A"
    action[np.isin(kind, (E, C)) & ~second] = b"F"
    action[(np.isin(kind, (E, C)) & second) | np.isin(kind, (X, D)) | ((kind == U) & ~second)] = b"C"
    action[np.isin(kind, (P, Q))] = b"T"
    own = np.isin(action, (b"C", b"F"))  # about a resting order
    price = np.where(own & ~((kind == C) & ~second), e["resting"], e["price"])
    size = np.where((kind == D) | ((kind == U) & ~second), e["open"], e["shares"])
    nothing = action == b"N"
    order = np.where((kind == U) & second, e["new"], e["reference"])
    return {
        "ts_event": e["ts"],
        "symbol": e["locate"],
        "action": action,
        "side": np.where(nothing | np.isin(kind, (P, Q)), 0, e["side"]),  # of P masked since 2014-07-14
        "price": np.where(nothing, 0, price),
        "size": np.where(nothing, 0, size),
        "order_id": np.where(nothing | (action == b"T"), 0, order),
        "flags": np.where(last, 128, 0) | np.where(kind == P, 2, 0),
        "sequence": rows,
    }
