"""Databento's columns as rows of the mbo table, for DBN and CSV alike.

Values for what Databento leaves undefined, what its flags say, symbols by their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.codes import NOT_A_VALUE, UNDEF_PRICE, MboAction
from hftlab.feeds.flow import Refills
from hftlab.schema import MBO, code_array

UNDEF_SIZE = 2**32 - 1

CME, CME_PUBLISHER = "GLBX.MDP3", 1  # the dataset of CME Globex, and its publisher's number

TOB, MBP, MAYBE_BAD_BOOK, SNAPSHOT = 64, 16, 4, 32
_FLAG_NOTES = {
    SNAPSHOT: "records of a snapshot (flag 32)",
    TOB: "records of a top of book, not of an order (flag 64)",
    MBP: "records of a price level, not of an order (flag 16)",
    MAYBE_BAD_BOOK: "records after a gap, when the book may be wrong (flag 4)",
}

_M, _C = int(MboAction.M), int(MboAction.C)


class Columns(NamedTuple):
    """Columns of an mbo table before they are one."""

    ts_event: np.ndarray
    ts_recv: np.ndarray
    symbol: np.ndarray
    action: np.ndarray
    side: np.ndarray
    price: np.ndarray
    size: np.ndarray
    order_id: np.ndarray
    flags: np.ndarray
    sequence: np.ndarray


def refills_of(is_cme: bool) -> Refills:
    """CME puts what refills an iceberg at the back of its level."""
    return "back" if is_cme else "keep"


def room(rows: int) -> Columns:
    """Columns of so many rows, nothing in them; memory is taken as they fill."""
    types = {"action": np.int8, "side": np.int8, "order_id": np.uint64, "flags": np.uint8}
    columns = Columns(*(np.empty(rows, types.get(name, np.int64)) for name in Columns._fields))
    return columns._replace(symbol=np.zeros(rows, np.int32))  # not touched by a file of one instrument


def notes_of_instruments(unnamed: Iterable[object], publishers: Iterable[int]) -> list[str]:
    """Which instruments have no name, and whose books are told apart."""
    unnamed, publishers = list(unnamed), list(publishers)
    notes = []
    if unnamed:
        numbers = ", ".join(map(str, unnamed[:5])) + (", ..." if len(unnamed) > 5 else "")
        what = "instruments without a definition, named by their number"
        notes.append(f"{what}: {len(unnamed):,} ({numbers})")
    if len(publishers) > 1:
        names = ", ".join(f"@{publisher}" for publisher in publishers[1:])
        notes.append(f"publishers after the first ({publishers[0]}), with books of their own: {names}")
    return notes


def put_values(here: Columns, odd: Counter[str]) -> None:
    """Values, in place, for what Databento leaves undefined; how often, and what flags say, is counted."""
    for time, other in ((here.ts_event, here.ts_recv), (here.ts_recv, here.ts_event)):
        if time.min() < 0:  # UNDEF_TIMESTAMP is the largest of 64 bits, -1 here
            undefined = time < 0
            odd["times that are not given"] += int(undefined.sum())
            time[undefined] = np.maximum(other[undefined], 0)
    for name, undefined, last in (("price", UNDEF_PRICE, _M), ("size", UNDEF_SIZE, _C)):
        values = getattr(here, name)
        if values.max() == undefined:
            unknown = values == undefined
            needed = unknown & (here.action <= last)
            values[unknown], values[needed] = 0, NOT_A_VALUE
            if needed.any():
                odd[f"records that need a {name} and have none"] += int(needed.sum())
    present = int(np.bitwise_or.reduce(here.flags))
    for flag, note in _FLAG_NOTES.items():
        if present & flag:
            odd[note] += int(np.count_nonzero(here.flags & flag))


def to_table(columns: Columns, names: Iterable[str]) -> pa.Table:
    """The mbo table of some columns, with the symbols by their number."""
    time = MBO.field("ts_event").type
    arrays = columns._asdict() | {
        "ts_event": pa.array(columns.ts_event).cast(time),
        "ts_recv": pa.array(columns.ts_recv).cast(time),
        "symbol": pa.DictionaryArray.from_arrays(
            pa.array(columns.symbol), pa.array(list(names), pa.string())
        ),
        "action": code_array(columns.action, MboAction),
    }
    return pa.Table.from_arrays([pa.array(array) for array in arrays.values()], schema=MBO)
