"""The tables: Arrow schemas with units in the field metadata, declared once.

Times are nanoseconds UTC, prices int64 in units of 1e-9, quantities int64 lots. Codes are Arrow
dictionaries whose int8 indices are the kernels' own integers, so that a code column costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from hftlab import codes

if TYPE_CHECKING:
    import polars as pl

TIMESTAMP = pa.timestamp("ns", tz="UTC")
SYMBOL = pa.dictionary(pa.int32(), pa.string())
CODE = pa.dictionary(pa.int8(), pa.string())

TABLE_KEY = b"hftlab.table"  # schema metadata: which of the tables below this is
REFILLS_KEY = b"hftlab.refills"  # of mbo: what a refill does to its order's place (feeds.flow)
ANY_SIGN_KEY = b"hftlab.prices_of_any_sign"  # there: commands that a venue took, whatever the sign of prices


def _field(name: str, type_: pa.DataType, unit: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"unit": unit})


def _schema(table: str, *fields: pa.Field) -> pa.Schema:
    return pa.schema(fields, metadata={TABLE_KEY: table.encode()})


def names(code: type[codes.Code]) -> list[str]:
    """Dictionary of a code column: the names, where index = integer."""
    return [member.name for member in sorted(code, key=int)]


def code_array(values: np.ndarray | list[int], code: type[codes.Code]) -> pa.DictionaryArray:
    """A code column over a kernel's int8 buffer, without a copy."""
    return pa.DictionaryArray.from_arrays(pa.array(values), pa.array(names(code)), safe=False)


def to_frame(table: pa.Table) -> pl.DataFrame:
    """A table as a polars frame, over the same memory where polars has the type."""
    import polars as pl  # here, because the command line wants schemas before it can afford polars

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # polars makes a Series of arrays only
    return frame


_TS = _field("ts", TIMESTAMP, "ns since epoch")
SEQ = _field("seq", pa.int64(), "row of the command, 0-based")
_SYMBOL = _field("symbol", SYMBOL, "instrument")
_ORDER_ID = _field("order_id", pa.uint64(), "id")


def _price(name: str, nullable: bool = False) -> pa.Field:
    return _field(name, pa.int64(), "1e-9", nullable)


def _lots(name: str, nullable: bool = False) -> pa.Field:
    return _field(name, pa.int64(), "lots", nullable)


ORDERS = _schema(
    "orders",
    _TS,
    _SYMBOL,
    _field("action", CODE, "Action"),
    _ORDER_ID,
    _field("new_order_id", pa.uint64(), "id, REPLACE only", nullable=True),
    _field("side", pa.int8(), "Side: +1 buy, -1 sell"),
    _field("order_type", CODE, "OrderType"),
    _field("tif", CODE, "Tif"),
    _price("price"),
    _lots("qty"),
    _field("account", pa.int32(), "account"),
    _field("post_only", pa.bool_(), "flag"),
)

MBO = _schema(
    "mbo",
    _field("ts_event", TIMESTAMP, "ns since epoch"),
    _field("ts_recv", TIMESTAMP, "ns since epoch"),
    _SYMBOL,
    _field("action", CODE, "MboAction"),
    _field("side", pa.int8(), "Side of the resting order (A, M, C, F) or aggressor (T), 0 none"),
    _price("price"),
    _lots("size"),
    _ORDER_ID,
    _field("flags", pa.uint8(), "Databento flag bits"),
    _field("sequence", pa.int64(), "message number of the source"),
)

MBP = _schema(
    "mbp",
    _field("ts_event", TIMESTAMP, "ns since epoch"),
    _field("ts_recv", TIMESTAMP, "ns since epoch"),
    _SYMBOL,
    _field("action", CODE, "MboAction: M a level is set, R the book is empty, T a trade"),
    _field("side", pa.int8(), "Side of the level (M) or of the aggressor (T), 0 none"),
    _price("price"),
    _lots("size"),  # of M: all that rests at this price from now on, 0 for none
    _field("flags", pa.uint8(), "Databento flag bits"),
    _field("sequence", pa.int64(), "update number of the source"),
)

FILLS = _schema(
    "fills",
    SEQ,
    _field("match_id", pa.int64(), "count of fills before this one"),
    _TS,
    _SYMBOL,
    _price("price"),
    _lots("qty"),
    _field("aggressor_side", pa.int8(), "Side: +1 buy, -1 sell"),
    _field("taker_order_id", pa.uint64(), "id"),
    _field("maker_order_id", pa.uint64(), "id"),
    _field("taker_account", pa.int32(), "account"),
    _field("maker_account", pa.int32(), "account"),
    _lots("taker_leaves"),
    _lots("maker_leaves"),
)

REJECTS = _schema(
    "rejects",
    SEQ,
    _TS,
    _SYMBOL,
    _ORDER_ID,
    _field("account", pa.int32(), "account"),
    _field("action", CODE, "Action"),
    _field("stage", CODE, "Stage"),
    _field("reason", CODE, "Reason"),
    _field("limit_value", pa.int64(), "as the reason says: lots or 1e-9", nullable=True),
    _field("observed_value", pa.int64(), "as the reason says: lots or 1e-9", nullable=True),
)

GATE = _schema(
    "gate",
    SEQ,
    _TS,
    pa.field("symbol", SYMBOL, metadata={"unit": "instrument, null where it is all of the account's"}),
    _field("account", pa.int32(), "account"),
    _field("event", CODE, "GateEvent"),
    _field("order_id", pa.uint64(), "id", nullable=True),
    _lots("qty"),
    _field("limit_value", pa.int64(), "1e-9: the equity at which the stop strikes", nullable=True),
    _field("observed_value", pa.int64(), "1e-9: equity", nullable=True),
)

ANOMALIES = _schema(
    "anomalies",
    _field("seq", pa.int64(), "row, 0-based"),
    _TS,
    _SYMBOL,
    _field("kind", CODE, "Anomaly: a Reason, or CROSSED"),
)

OUTCOMES = _schema(
    "outcomes",
    SEQ,
    _field("status", CODE, "Status"),
    _lots("filled_qty"),
    _lots("leaves_qty"),
)

L1 = _schema(
    "l1",
    SEQ,
    _TS,
    _SYMBOL,
    _price("bid_px", nullable=True),
    _lots("bid_sz"),
    _field("bid_ct", pa.int64(), "orders"),
    _price("ask_px", nullable=True),
    _lots("ask_sz"),
    _field("ask_ct", pa.int64(), "orders"),
)


def _moment(name: str, what: str) -> pa.Field:
    return _field(name, TIMESTAMP, f"ns since epoch: {what}")


LATENCY = _schema(
    "latency",
    SEQ,
    _field("event_type", CODE, "EventType"),
    _field("stage", CODE, "LatencyStage"),
    _moment("ts_intended", "when it should have started"),
    _moment("ts_start", "when it started"),
    _moment("ts_end", "when it was done"),
)

BOOK = _schema(
    "book",
    _SYMBOL,
    _field("side", pa.int8(), "Side: +1 buy, -1 sell"),
    _price("price"),
    _lots("qty"),
    _ORDER_ID,
    _field("account", pa.int32(), "account"),
)


# null: no int64 holds it; or a price that isn't there
_HELD = (
    _lots("position", nullable=True),
    _price("avg_price", nullable=True),
    _price("cost", nullable=True),
    _price("realised_pnl", nullable=True),
    _price("unrealised_pnl", nullable=True),
    _price("fees", nullable=True),
)

POSITIONS = _schema(
    "positions",
    _SYMBOL,
    _field("account", pa.int32(), "account"),
    *_HELD,
    _lots("bought_qty", nullable=True),
    _lots("sold_qty", nullable=True),
    _price("bought_notional", nullable=True),
    _price("sold_notional", nullable=True),
    _price("last_price", nullable=True),
    _lots("open_buy_qty", nullable=True),
    _lots("open_sell_qty", nullable=True),
    _field("open_orders", pa.int64(), "orders"),
    _price("open_notional", nullable=True),
)

POSITION_CHANGES = _schema(
    "pnl",
    SEQ,
    _TS,
    _SYMBOL,
    _field("account", pa.int32(), "account"),
    *(field for field in _HELD if field.name != "cost"),
)


def depth(levels: int) -> pa.Schema:
    """Schema of a depth table: six lists of `levels` values, best first; `UNDEF_PRICE` where no level is."""

    def column(name: str, unit: str) -> pa.Field:
        return _field(name, pa.list_(pa.int64(), levels), unit)

    sides = [
        column(f"{side}_{what}", unit)
        for side in ("bid", "ask")
        for what, unit in (("px", "1e-9"), ("sz", "lots"), ("ct", "orders"))
    ]
    return _schema("depth", SEQ, _TS, _SYMBOL, *sides)


def symbol_array(names: tuple[str, ...], books: np.ndarray) -> pa.DictionaryArray:
    """A symbol column from names by book number and the book (int32) of each row, without a copy."""
    return pa.DictionaryArray.from_arrays(
        pa.array(books.astype(np.int32, copy=False)), pa.array(names, pa.string()), safe=False
    )


def time_array(ts: np.ndarray) -> pa.Array:
    """A column of times over int64 nanoseconds since the epoch, without a copy."""
    return pa.array(ts).view(TIMESTAMP)


def make_table(layout: pa.Schema, *columns: pa.Array | np.ndarray) -> pa.Table:
    """A table of a layout from its columns, in order, without a copy."""
    arrays = [c if isinstance(c, pa.Array) else pa.array(c) for c in columns]
    return pa.Table.from_arrays(arrays, schema=layout)
