"""Outputs as plain frames of integers, so that two engines are compared column by column and row by row.

Codes become their integers, times nanoseconds, symbols strings; a missing price stays null.
`first_difference` says where two sets of frames part, in words a person can act on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from hftlab.codes import Action, GateEvent, Reason, Stage, Status
from tests.reference import positions
from tests.reference.book import ReferenceVenue
from tests.reference.gated import GatedVenue

I64, U64 = pl.Int64, pl.UInt64
COLUMNS: dict[str, dict[str, Any]] = {
    "outcomes": {"seq": I64, "status": I64, "filled_qty": I64, "leaves_qty": I64},
    "fills": {
        "seq": I64,
        "match_id": I64,
        "ts": I64,
        "symbol": pl.String,
        "price": I64,
        "qty": I64,
        "aggressor_side": I64,
        "taker_order_id": U64,
        "maker_order_id": U64,
        "taker_account": I64,
        "maker_account": I64,
        "taker_leaves": I64,
        "maker_leaves": I64,
    },
    "rejects": {
        "seq": I64,
        "ts": I64,
        "symbol": pl.String,
        "order_id": U64,
        "account": I64,
        "action": I64,
        "stage": I64,
        "reason": I64,
        "limit_value": I64,
        "observed_value": I64,
    },
    "l1": {
        "seq": I64,
        "ts": I64,
        "symbol": pl.String,
        "bid_px": I64,
        "bid_sz": I64,
        "bid_ct": I64,
        "ask_px": I64,
        "ask_sz": I64,
        "ask_ct": I64,
    },
    "book": {
        "symbol": pl.String,
        "side": I64,
        "price": I64,
        "qty": I64,
        "order_id": U64,
        "account": I64,
    },
}
GATE_COLUMNS: dict[str, dict[str, Any]] = {
    "gate": {
        "seq": I64,
        "ts": I64,
        "symbol": pl.String,
        "account": I64,
        "event": I64,
        "order_id": U64,
        "qty": I64,
        "limit_value": I64,
        "observed_value": I64,
    },
    "positions": {"symbol": pl.String, **dict.fromkeys(positions.COLUMNS[1:], I64)},
    "pnl": {**dict.fromkeys(positions.CHANGE_COLUMNS, I64), "symbol": pl.String},
}
DEPTH_LISTS = ("bid_px", "bid_sz", "bid_ct", "ask_px", "ask_sz", "ask_ct")
NULLABLE = ("bid_px", "ask_px", "limit_value", "observed_value")
CODES = {"status": Status, "action": Action, "stage": Stage, "reason": Reason, "event": GateEvent}


def depth_columns(levels: int) -> dict[str, Any]:
    """Columns of a depth frame: the lists stay lists of fixed width."""
    lists = dict.fromkeys(DEPTH_LISTS, pl.Array(pl.Int64, levels))
    return {"seq": I64, "ts": I64, "symbol": pl.String, **lists}


def of_rows(rows: list[tuple], columns: dict[str, Any]) -> pl.DataFrame:
    """A frame of rows that are in those columns already."""
    values = zip(*rows, strict=True) if rows else ([] for _ in columns)
    return pl.DataFrame([_series(*column) for column in zip(columns, values, columns.values(), strict=True)])


def _series(name: str, values: Sequence, dtype: Any) -> pl.Series:
    """A column; NumPy reads lists of numbers several times faster than Polars."""
    if isinstance(dtype, pl.Array):
        return pl.Series(name, np.array(values, dtype=np.int64).reshape(-1, dtype.size), dtype=dtype)
    if name in NULLABLE or dtype == pl.String:
        return pl.Series(name, values, dtype=dtype)
    return pl.Series(name, np.array(values, dtype=np.uint64 if dtype == pl.UInt64 else np.int64))


def by_symbol(book: pl.DataFrame) -> pl.DataFrame:
    """The book with its symbols in alphabetical order, the order inside each untouched."""
    return book.sort("symbol", maintain_order=True)


def of_venue(venue: ReferenceVenue) -> dict[str, pl.DataFrame]:
    """Every output of the twin."""
    rows = {
        "outcomes": venue.outcomes,
        "fills": venue.fills,
        "rejects": venue.rejects,
        "l1": venue.l1,
        "book": venue.final_book(),
    }
    frames = {name: of_rows(rows[name], columns) for name, columns in COLUMNS.items()}
    if venue.depth_levels:
        frames["depth"] = of_rows(venue.depth, depth_columns(venue.depth_levels))
    frames["book"] = by_symbol(frames["book"])
    return frames


def of_gated_venue(venue: GatedVenue) -> dict[str, pl.DataFrame]:
    """Every output of the twin behind its gate."""
    rows = {"gate": venue.events, "positions": venue.positions(), "pnl": venue.pnl()}
    tables = {
        name: pl.DataFrame(rows[name], schema=columns, orient="row") for name, columns in GATE_COLUMNS.items()
    }
    return of_venue(venue) | tables


def of_frame(frame: pl.DataFrame, columns: dict[str, Any]) -> pl.DataFrame:
    """A frame of the package in the same plain types, whatever it uses for codes, symbols and times."""
    return frame.select(_plain(frame[name], dtype) for name, dtype in columns.items())


def _plain(series: pl.Series, dtype: Any) -> pl.Series:
    if isinstance(series.dtype, pl.Categorical | pl.Enum | pl.String):
        words = series.cast(pl.String)
        code = CODES.get(series.name)
        if code is None:
            return words
        names = [member.name for member in code]
        return words.replace_strict(names, [int(member) for member in code], return_dtype=dtype)
    if series.dtype.is_temporal():
        series = series.dt.timestamp("ns")
    return series.cast(dtype)


def of_run(run: Any, names: tuple[str, ...], levels: int = 0) -> dict[str, pl.DataFrame]:
    """Those outputs of a `hftlab.replay` result that are named."""
    frames = {name: of_frame(getattr(run, name), COLUMNS[name]) for name in names}
    if levels:
        frames["depth"] = of_frame(run.depth(levels), depth_columns(levels))
    if "book" in frames:
        frames["book"] = by_symbol(frames["book"])
    return frames


def first_difference(expected: dict[str, pl.DataFrame], found: dict[str, pl.DataFrame]) -> str | None:
    """Where the frames part first, table by table, or None; only what was found is compared."""
    for name, frame in found.items():
        difference = _difference(expected[name].select(frame.columns), frame)
        if difference is not None:
            return f"{name}: {difference}"
    return None


def _difference(expected: pl.DataFrame, found: pl.DataFrame) -> str | None:
    if expected.equals(found, null_equal=True):
        return None
    rows = min(expected.height, found.height)
    unequal = [
        (row, column)
        for column in expected.columns
        if (row := _first_unequal(expected[column][:rows], found[column][:rows])) is not None
    ]
    if unequal:
        row, column = min(unequal)
        wanted, got = expected.row(row, named=True), found.row(row, named=True)
        return f"row {row}, {column}: expected {wanted}, found {got}"
    more, what = (expected, "is missing") if expected.height > found.height else (found, "is too much")
    return f"expected {expected.height} rows, found {found.height}; {more.row(rows, named=True)} {what}"


def _first_unequal(expected: pl.Series, found: pl.Series) -> int | None:
    unequal = expected.ne_missing(found)
    return unequal.arg_max() if unequal.any() else None
