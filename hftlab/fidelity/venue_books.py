"""Books as venues published them, in one form: what a rebuilt book is compared with.

Three kinds of file hold them:

* a LOBSTER orderbook file (also inside the sample's zip), or one of best prices alone with the same four
  columns: row i is the book after message i;
* Databento's MBP-10, or another depth of it, as CSV or Parquet: a row is the book after the event of its
  `sequence` and `ts_event`;
* Binance's bookTicker in a capture, or converted to Parquet: best bid and ask after update `u`.

Prices are int64 in units of 1e-9, UNDEF_PRICE where there is no level; sizes are lots.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import csv

from hftlab.codes import MBO_FLAG_LAST, NOT_A_VALUE, UNDEF_PRICE
from hftlab.errors import FormatError, printable
from hftlab.feeds import Fault, lobster, native, open_flow
from hftlab.feeds.binance import feed
from hftlab.feeds.flow import without_end
from hftlab.feeds.parsing import containers
from hftlab.numbers import PRICE_DECIMALS, computed_to_units, decimals_to_units, text_to_units
from hftlab.schema import to_frame
from hftlab.tape.tables import timestamps_to_ns

ORDERBOOK, MBP, BOOK_TICKER = "LOBSTER orderbook", "Databento MBP", "Binance bookTicker"
SIDES = ("bid_px", "bid_sz", "ask_px", "ask_sz")  # the order of the columns everywhere here

_LOBSTER_COLUMNS = (2, 3, 0, 1)  # where SIDES are in ask price, ask size, bid price, bid size
_BOOK_LINE = re.compile(rb"-?\d+(,-?\d+){3}(,-?\d+)*\r?(\n|$)")
_LEVEL = re.compile(r"bid_px_(\d\d)")
_TICKER_PRICES = ("bid_px", "ask_px")
_TICKER_COLUMNS = {"symbol", "u", *SIDES}
_SUPPORTED = (
    "a LOBSTER orderbook file, Databento's MBP as CSV or Parquet, or a capture with Binance's bookTicker"
)


class Block(NamedTuple):
    """Some rows of a published book."""

    row: np.ndarray  # 0-based, of the file
    key: np.ndarray  # message number, sequence or update id
    ts: np.ndarray | None  # ns, where a key alone may name several events
    symbol: np.ndarray | None  # text, where the file has it
    values: np.ndarray  # int64 [4, rows, levels]: bid_px, bid_sz, ask_px, ask_sz
    within: int = 0  # further rows of the file, inside an event: they end none


@dataclass(frozen=True)
class Truth:
    """A file of published books."""

    path: Path
    kind: str
    levels: int
    blocks: Callable[[], Iterator[Block]]  # in the order of the file
    faults: list[Fault] = field(default_factory=list)  # damage in the file, known once the blocks are read


def open_truth(path: str | Path, lot: Any = None) -> Truth:
    """Recognise a file of published books; `lot` is the unit of sizes in a Binance capture.

    Raises FormatError for another file, UsageError where there is none.
    """
    path = Path(path)
    container = containers.container(path)
    if container == "zip":  # LOBSTER's sample has messages and books in one archive
        books = [name for name in containers.members(path) if "orderbook" in name.lower()]
        if len(books) != 1:
            raise FormatError(path, f"{len(books)} orderbook files in the archive", "exactly one")
        return _orderbook(path, books[0])
    if container in ("Parquet", "Arrow IPC"):
        return _table(path, container)
    head = containers.head(path)
    line = head.split(b"\n", 1)[0].rstrip(b"\r")
    if _BOOK_LINE.match(head) and (line.count(b",") + 1) % 4 == 0:
        return _orderbook(path, None)
    if b"bid_px_00" in line.split(b","):
        return _mbp_csv(path, line.decode(errors="replace").split(","))
    if feed.sniff(path, head):
        options = {} if lot is None else {"lot": lot}
        return _tickers(path, lambda: open_flow(path, format="binance", **options).extras["book_ticker"]())
    raise FormatError(path, "a file that was not recognised", _SUPPORTED)


# ------------------------------------------------------------------ LOBSTER


def _orderbook(path: Path, member: str | None) -> Truth:
    width = containers.head(path, member).split(b"\n", 1)[0].count(b",") + 1
    faults: list[Fault] = []
    return Truth(path, ORDERBOOK, width // 4, lambda: _orderbook_blocks(path, member, width, faults), faults)


def _orderbook_blocks(path: Path, member: str | None, width: int, faults: list[Fault]) -> Iterator[Block]:
    first = 0
    for lines in _whole_lines(containers.blocks(path, member)):
        cells = _integers(path, lines, width, first)
        rows = np.arange(first, first + len(cells))
        first += len(cells)
        faults[:] = _end_of(path, lines, first)
        levels = cells.reshape(len(cells), -1, 4)
        yield Block(rows, rows, None, None, _lobster_levels(path, levels, int(rows[0]) if rows.size else 0))


def _whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, cut at line ends."""
    held = b""
    for block in blocks:
        lines, end, rest = (held + block).rpartition(b"\n")
        held = rest
        if lines or end:
            yield lines + end
    if held:
        yield held


def _end_of(path: Path, data: bytes, row: int) -> list[Fault]:
    """A fault, if no line end shows that the last row (of this number) is whole."""
    return [] if data.endswith((b"\n", b"\r")) else [without_end(row, path)]


def _integers(path: Path, lines: bytes, width: int, first: int) -> np.ndarray:
    """Lines of `width` integers each as an array. Raises FormatError with the row that isn't."""
    names = [str(column) for column in range(width)]
    try:  # Arrow reads more than integers as integers, so other bytes go to the slow path and its error
        if not lines.translate(None, b"0123456789-,\r\n"):
            table = csv.read_csv(
                pa.BufferReader(lines),
                read_options=csv.ReadOptions(column_names=names),
                parse_options=csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.int64()), null_values=[]
                ),
            )
            return np.column_stack([table.column(name).to_numpy() for name in names])
    except pa.ArrowInvalid:
        pass
    for row, line in enumerate(lines.splitlines(), first + 1):
        fields = line.split(b",")
        if len(fields) != width:
            raise FormatError(path, f"{len(fields)} fields", f"{width}, as in the first row", row=row)
        wrong = next((text for text in fields if not _is_integer(text)), None)
        if wrong is not None:
            raise FormatError(path, f"value {wrong[:40].decode(errors='replace')!r}", "an integer", row=row)
    raise FormatError(path, "lines that can't be separated", f"{width} integers in each", row=first + 1)


def _is_integer(text: bytes) -> bool:
    return text.removeprefix(b"-").isdigit() and len(text) < 21 and abs(int(text)) < 2**63


def _lobster_levels(path: Path, levels: np.ndarray, first: int) -> np.ndarray:
    """Cells [rows, levels, 4] in LOBSTER's order and units, in ours."""
    values = np.moveaxis(levels[:, :, list(_LOBSTER_COLUMNS)], 2, 0).copy()
    for px, sz in ((0, 1), (2, 3)):
        empty = (np.abs(values[px]) == lobster.NO_LEVEL) | ((values[px] == 0) & (values[sz] == 0))
        # checked before it is scaled: the product of a larger price would not fit into 64 bits
        outside = ~empty & (np.abs(values[px]) > lobster.MAX_PRICE)
        if outside.any():
            row, level = np.argwhere(outside)[0]
            found = f"price {values[px][row, level]} of level {level + 1}"
            raise FormatError(
                path, found, f"at most {lobster.MAX_PRICE} (dollars x 10,000)", row=first + int(row) + 1
            )
        values[px] = np.where(empty, UNDEF_PRICE, values[px] * lobster.PRICE_UNITS)
        values[sz][empty] = 0
    return values


# ------------------------------------------------------------------ Databento


def _mbp_csv(path: Path, header: list[str]) -> Truth:
    needed = _mbp_columns(path, header)
    faults: list[Fault] = []

    def blocks() -> Iterator[Block]:
        data = containers.read(path)
        faults[:] = _end_of(path, data, data.count(b"\n") + 1)
        return _mbp_blocks(path, _read_mbp_csv(path, data, needed), needed)

    return Truth(path, MBP, len(needed["levels"]), blocks, faults)


def _mbp_columns(path: Path, header: list[str]) -> dict[str, Any]:
    """The columns that a comparison needs, and those of the others that the file has."""
    levels = sorted({found[1] for name in header if (found := _LEVEL.fullmatch(name))})
    wanted = ["sequence", "ts_event", *(f"{side}_{level}" for level in levels for side in SIDES)]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise FormatError(path, f"no column {missing[0]}", "the columns of Databento's MBP")
    return {"levels": levels, "wanted": wanted, "more": [n for n in ("symbol", "flags") if n in header]}


def _read_mbp_csv(path: Path, data: bytes, needed: dict[str, Any]) -> pl.DataFrame:
    names = [*needed["wanted"], *needed["more"]]
    try:
        return pl.read_csv(data, columns=names, schema_overrides=dict.fromkeys(names, pl.String))
    except pl.exceptions.PolarsError as error:
        raise FormatError(path, f"broken CSV ({containers.said(error)})", "Databento's MBP as CSV") from error


def _mbp_blocks(path: Path, frame: pl.DataFrame, needed: dict[str, Any]) -> Iterator[Block]:
    """The last row of each event, at which the book may be compared."""
    values = [
        np.column_stack([_numbers(path, frame, f"{side}_{level}") for level in needed["levels"]])
        for side in SIDES
    ]
    rows = np.arange(frame.height)
    if "flags" in frame.columns:
        last = _numbers(path, frame, "flags") & MBO_FLAG_LAST != 0
        # some files mark no ends at all; then every row is one
        rows = rows[last] if last.any() else rows
    symbol = (
        frame["symbol"].cast(pl.String).fill_null("").to_numpy()[rows] if "symbol" in frame.columns else None
    )
    sequence, ts = _numbers(path, frame, "sequence")[rows], _numbers(path, frame, "ts_event")[rows]
    yield Block(rows, sequence, ts, symbol, np.stack(values)[:, rows], frame.height - rows.size)


def _numbers(path: Path, frame: pl.DataFrame, name: str) -> np.ndarray:
    """A column as integers: prices in 1e-9, times in ns; UNDEF_PRICE, or 0 lots, where there is nothing."""
    column, price = frame[name], "_px_" in name or name in _TICKER_PRICES
    if column.dtype == pl.String:
        column = column.str.strip_chars().replace("", None)
    nothing, blank = column.is_null(), UNDEF_PRICE if price else 0
    if column.dtype.is_float():
        nothing |= column.is_nan()
    values = _units(path, name, column, PRICE_DECIMALS if price else 0)
    unread = np.flatnonzero((values == NOT_A_VALUE) & ~nothing.to_numpy())
    if unread.size:
        row = int(unread[0])
        cell = printable(str(frame[name].to_physical()[row]))[:40]  # polars can't show all times
        found, expected = f"{name} {cell!r}", "a number or a time"
        if frame[name].dtype == pl.String:  # a text, which has a header: line 2 is row 0
            raise FormatError(path, found, expected, row=row + 2)
        raise FormatError(path, f"{found} in row {row:,}", expected)
    return np.where(nothing.to_numpy(), blank, values)


def _units(path: Path, name: str, column: pl.Series, decimals: int) -> np.ndarray:
    """Integers as such, times as ns, other numbers by value; NOT_A_VALUE for what is none."""
    if column.dtype.is_integer():
        return column.cast(pl.Int64, strict=False).fill_null(NOT_A_VALUE).to_numpy()
    if isinstance(column.dtype, pl.Datetime):
        counts = column.to_physical().fill_null(NOT_A_VALUE).to_numpy()
        ns, outside = timestamps_to_ns(counts, column.dtype.time_unit)
        return np.where(outside, NOT_A_VALUE, ns) if outside.size else ns
    if column.dtype.is_float():
        return computed_to_units(column.fill_null(float("nan")).to_numpy(), decimals)
    if column.dtype == pl.Null:
        return np.full(len(column), NOT_A_VALUE)
    if column.dtype.is_decimal():
        return decimals_to_units(column.to_arrow(), decimals)
    if column.dtype != pl.String:
        raise FormatError(path, f"a column {name} of {column.dtype}", "numbers")
    return _units_of_text(name, column, decimals)


def _units_of_text(name: str, column: pl.Series, decimals: int) -> np.ndarray:
    """Text: digits alone count units, as integers do."""
    values = text_to_units(column.to_arrow(), 0)
    whole = column.str.contains(r"^-?[0-9]+$").fill_null(False).to_numpy()
    if name == "ts_event":
        times = column.str.to_datetime("%+", time_unit="ns", time_zone="UTC", strict=False)
        others = times.dt.timestamp("ns").fill_null(NOT_A_VALUE).to_numpy()
    else:
        others = text_to_units(column.to_arrow(), decimals)
    return np.where(whole, values, others)


def _table(path: Path, container: str) -> Truth:
    """Parquet or Arrow of either kind that has columns."""
    try:
        frame = to_frame(native.read_table(path, container))
    except pl.exceptions.PolarsError as error:
        raise FormatError(
            path, f"a column that can't be read ({containers.said(error)})", _SUPPORTED
        ) from error
    if set(frame.columns) >= _TICKER_COLUMNS:
        return _tickers(path, frame.to_arrow)
    if "bid_px_00" not in frame.columns:
        raise FormatError(path, f"columns {', '.join(frame.columns[:12]) or 'none'}", _SUPPORTED)
    needed = _mbp_columns(path, frame.columns)
    return Truth(path, MBP, len(needed["levels"]), lambda: _mbp_blocks(path, frame, needed))


# ------------------------------------------------------------------ Binance


def _tickers(path: Path, read: Callable[[], pa.Table]) -> Truth:
    return Truth(path, BOOK_TICKER, 1, lambda: iter([_ticker_block(path, read())]))


def _ticker_block(path: Path, table: pa.Table) -> Block:
    """All of them; `ts` is when they were received."""
    if not table.num_rows:
        raise FormatError(path, "no bookTicker", "best bids and asks to compare with")
    frame = to_frame(table)
    values = np.stack([_numbers(path, frame, side)[:, None] for side in SIDES])
    ts = _numbers(path, frame, "ts") if "ts" in frame.columns else None
    return Block(
        np.arange(frame.height), frame["u"].to_numpy(), ts, frame["symbol"].cast(pl.String).to_numpy(), values
    )
