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

from hftlab.codes import MBO_FLAG_LAST, PRICE_SCALE, UNDEF_PRICE
from hftlab.errors import FormatError
from hftlab.feeds import Fault, lobster, native, open_flow
from hftlab.feeds.binance import feed
from hftlab.feeds.flow import without_end
from hftlab.feeds.parsing import containers
from hftlab.schema import to_frame

ORDERBOOK, MBP, BOOK_TICKER = "LOBSTER orderbook", "Databento MBP", "Binance bookTicker"
SIDES = ("bid_px", "bid_sz", "ask_px", "ask_sz")  # the order of the columns everywhere here
LARGEST = 2**63 // PRICE_SCALE

_LOBSTER_COLUMNS = (2, 3, 0, 1)  # where SIDES are in ask price, ask size, bid price, bid size
_BOOK_LINE = re.compile(rb"-?\d+(,-?\d+){3}(,-?\d+)*\r?(\n|$)")
_LEVEL = re.compile(r"bid_px_(\d\d)")
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
    yield Block(rows, sequence, ts, symbol, np.stack(values)[:, rows])


def _numbers(path: Path, frame: pl.DataFrame, name: str) -> np.ndarray:
    """A column as integers: prices in 1e-9, times in ns; UNDEF_PRICE, or 0 lots, where there is nothing."""
    column = frame[name]
    price = "_px_" in name
    if column.dtype == pl.String:
        texts = column.str.strip_chars().replace("", None)
        integers = texts.cast(pl.Int64, strict=False)
        if price:
            column = integers.fill_null(_units(texts.str.to_decimal(scale=9)))
        elif name == "ts_event":
            times = texts.str.to_datetime("%+", time_unit="ns", time_zone="UTC", strict=False)
            column = integers.fill_null(times.dt.timestamp("ns"))
        else:
            column = integers
        _refuse_unread(path, frame[name], column)
    elif price and column.dtype.is_float():  # as in Databento's data frames
        column = (column * PRICE_SCALE).round().cast(pl.Int64, strict=False)
    elif isinstance(column.dtype, pl.Decimal):
        column = _units(column.cast(pl.Decimal(38, 9)))
    elif isinstance(column.dtype, pl.Datetime):
        column = column.dt.timestamp("ns")
    try:
        return column.cast(pl.Int64).fill_null(UNDEF_PRICE if price else 0).to_numpy()
    except pl.exceptions.PolarsError as error:
        raise FormatError(path, f"a column {name} of {frame[name].dtype}", "numbers") from error


def _units(decimals: pl.Series) -> pl.Series:
    """Decimals of nine places in units of 1e-9; null where 64 bits don't hold one."""
    fits = decimals.is_between(-LARGEST, LARGEST)
    return (decimals.set(~fits, None) * PRICE_SCALE).cast(pl.Int64, strict=False)


def _refuse_unread(path: Path, texts: pl.Series, read: pl.Series) -> None:
    unread = read.is_null() & (texts.str.strip_chars() != "").fill_null(False)
    if unread.any():
        row = int(unread.arg_true()[0])
        raise FormatError(path, f"{texts.name} {texts[row][:40]!r}", "a number or a time", row=row + 2)


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
    values = np.stack([frame[side].to_numpy()[:, None] for side in SIDES])
    ts = frame["ts"].cast(pl.Int64).to_numpy() if "ts" in frame.columns else None
    return Block(
        np.arange(frame.height), frame["u"].to_numpy(), ts, frame["symbol"].cast(pl.String).to_numpy(), values
    )
