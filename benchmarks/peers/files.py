"""The files of the comparison: one synthetic market, written as NASDAQ's ITCH 5.0 and as LOBSTER."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from tests.helpers import itch_encoder

ITCH_NAME = "01022024.NASDAQ_ITCH50"  # the name tells the session's date, to hftlab and to peers
LOBSTER_NAME = "SYM000_2024-01-02_34200000_57600000_message_10.csv"
DIRECTORY = {
    "market": "Q",
    "status": "N",
    "round_lot": 100,
    "round_only": "N",
    "class": "C",
    "subtype": "Z",
    "authenticity": "P",
    "short_sale": "N",
    "ipo": "N",
    "luld_tier": "1",
    "etp": "N",
    "inverse": "N",
}
FILLED = (("C", "printable", b"Y"), ("F", "mpid", b"MPID"))  # what strict peers insist on


def market(messages: int, symbols: int) -> np.ndarray:
    """About so many messages (EVENT of `tests.helpers.itch_encoder`): orders and trades only."""
    events = itch_encoder.market(messages, symbols, seed=1)
    return _by_priority(events[np.isin(events["kind"], list(b"AFECXDUP"))])


def _by_priority(events: np.ndarray) -> np.ndarray:
    """With an X in the place of each U that kept its place in the queue, which no U does at NASDAQ.

    meatpy insists that the oldest order at the best price is executed first.
    """
    kept = (events["kind"] == ord("U")) & (events["price"] == events["resting"])
    kept &= events["shares"] <= events["open"]
    earlier = np.arange(int(max(events["reference"].max(), events["new"].max())) + 1)
    earlier[events["new"][kept]] = events["reference"][kept]
    while (earlier[earlier] != earlier).any():
        earlier = earlier[earlier]
    events["reference"] = earlier[events["reference"]]
    events["kind"][kept] = ord("X")
    events["shares"][kept] = (events["open"] - events["shares"])[kept]
    return events[~kept | (events["shares"] > 0)]


def write_itch(folder: Path, events: np.ndarray) -> int:
    """A file with the start and the end of a day around these messages; how many they are in all."""
    ts, symbols = int(events["ts"][0]) - 1, int(events["locate"].max())
    system = [itch_encoder.message("S", 0, ts=ts, event=code) for code in "OSQ"]
    stocks = [
        itch_encoder.message("R", locate, ts=ts, stock=itch_encoder.stock(locate), **DIRECTORY)
        for locate in range(1, symbols + 1)
    ]
    end = [itch_encoder.message("S", 0, ts=int(events["ts"][-1]), event=code) for code in "MEC"]
    head, tail = itch_encoder.framed([*system, *stocks]), itch_encoder.framed(end)
    (folder / ITCH_NAME).write_bytes(head + _body(events).tobytes() + tail)
    return len(system) + len(stocks) + events.size + len(end)


def _body(events: np.ndarray) -> np.ndarray:
    """The bytes of the messages, with letters where peers insist on some."""
    body = itch_encoder.encoded(events)
    lengths = np.zeros(256, np.int64)
    lengths[[ord(kind) for kind in itch_encoder.LENGTHS]] = list(itch_encoder.LENGTHS.values())
    length = lengths[events["kind"]]
    starts = (length + 2).cumsum() - length
    for kind, name, letters in FILLED:
        at = starts[events["kind"] == ord(kind)] + itch_encoder.record(kind).fields[name][1]
        for place, letter in enumerate(letters):
            body[at + place] = letter
    return body


def write_lobster(folder: Path, events: np.ndarray) -> int:
    """The same messages of the first instrument as LOBSTER tells them: a U is a 3 and a 1."""
    events = events[(events["locate"] == 1) & (events["kind"] != ord("P"))]
    kinds = {"A": 1, "F": 1, "X": 2, "D": 3, "E": 4, "C": 4, "U": 3}
    numbers = np.zeros(256, np.int64)
    numbers[[ord(kind) for kind in kinds]] = list(kinds.values())
    kind = numbers[events["kind"]]
    lines = {
        "ts": events["ts"],
        "type": kind,
        "order_id": events["reference"],
        "size": np.where(kind == 3, events["open"], events["shares"]),
        "price": np.where(kind == 1, events["price"], events["resting"]),
        "direction": events["side"],
        "row": np.arange(events.size),
    }
    added = events["kind"] == ord("U")
    new = {name: values[added] for name, values in lines.items()} | {
        "type": np.ones(added.sum(), np.int64),
        "order_id": events["new"][added],
        "size": events["shares"][added],
        "price": events["price"][added],
    }
    frame = pl.concat([pl.DataFrame(lines), pl.DataFrame(new)], how="vertical_relaxed")
    seconds, rest = pl.col("ts") // 10**9, (pl.col("ts") % 10**9).cast(pl.String).str.zfill(9)
    frame = frame.sort("row", maintain_order=True).with_columns(pl.format("{}.{}", seconds, rest).alias("ts"))
    frame.drop("row").write_csv(folder / LOBSTER_NAME, include_header=False)
    return frame.height
