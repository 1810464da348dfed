"""The picture of a run: best prices, the trades between them, traded volume, and the book at the end.

One look shows whether a replay is plausible. Frames are those of a `Result` or the files of a run folder;
matplotlib is imported only when something is drawn.
"""

from __future__ import annotations

from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from hftlab.codes import PRICE_SCALE, Side
from hftlab.errors import InputError, UsageError
from hftlab.feeds.native import read_columns
from hftlab.schema import BOOK, FILLS, L1, to_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BUY, SELL, INK = "#1a7f5a", "#b5403a", "#3b4252"
COLOURS = {Side.BUY: BUY, Side.SELL: SELL}
POINTS_MAX = 20_000  # more than a picture has pixels for
TIME_BINS = 120
BOOK_LEVELS = 20
READ_ROWS = 1 << 16
OUTSIDE = 0.001  # share of best prices that may be outside the picture, at either end


def _columns(schema: pa.Schema, names: str) -> pa.Schema:
    return pa.schema([schema.field(name) for name in names.split()])


NEEDED = {
    "l1": _columns(L1, "ts symbol bid_px ask_px"),
    "fills": _columns(FILLS, "ts symbol price qty aggressor_side"),
    "book": _columns(BOOK, "symbol side price qty"),
}


def plot_run(
    l1: pl.DataFrame | None = None,
    fills: pl.DataFrame | None = None,
    book: pl.DataFrame | None = None,
    symbol: str | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw one instrument of a run; by default the one with most fills (or changes of the best price).

    Parameters are frames of the schemas L1, FILLS and BOOK; each may be missing. `figure` is an empty
    matplotlib figure to draw on; by default a new one.

    Raises UsageError if no frame has rows to draw.
    """
    frames = [frame for frame in (fills, l1, book) if frame is not None and frame.height]
    if not frames:
        raise UsageError("found nothing to plot, expected fills, l1 or book with rows (see --record)")
    symbol = symbol or _most_active(frames[0])
    l1, fills, book = (_of(frame, symbol) for frame in (l1, fills, book))
    if l1 is None and fills is None and book is None:
        raise UsageError(f"found no rows of {symbol!r} to plot, expected one of the run's symbols")
    figure = figure or _new_figure()
    times, prices, depth = _axes(figure, with_depth=book is not None)
    _draw_touch(prices, l1)
    _draw_trades(prices, fills)
    _draw_volume(times, fills)
    if depth is not None and book is not None:
        _draw_book(depth, book)
    prices.set_title(symbol, loc="left", fontweight="bold")
    if l1 is not None or fills is not None:
        prices.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=4)
    return figure


def plot_folder(folder: str | Path, symbol: str | None = None) -> Figure:
    """Draw one instrument of a run folder, from those of l1, fills and book that it has.

    Raises InputError for a folder that is no run folder, FormatError for a broken table, UsageError if no
    table has rows to draw.
    """
    folder = Path(folder)
    if not (folder / "manifest.json").is_file():
        raise InputError(f"{folder}: found no manifest.json, expected a run folder (hftlab replay --out)")
    paths = {name: folder / f"{name}.parquet" for name in NEEDED}
    frames = {name: _read(path, NEEDED[name]) for name, path in paths.items() if path.is_file()}
    return plot_run(frames.get("l1"), frames.get("fills"), frames.get("book"), symbol)


def _read(path: Path, schema: pa.Schema) -> pl.DataFrame:
    table = pa.Table.from_batches(read_columns(path, schema, READ_ROWS), schema)
    return to_frame(table.unify_dictionaries())


def _of(frame: pl.DataFrame | None, symbol: str) -> pl.DataFrame | None:
    if frame is None:
        return None
    rows = frame.filter(pl.col("symbol").cast(pl.String) == symbol)
    return rows if rows.height else None


def _most_active(frame: pl.DataFrame) -> str:
    counts = (
        frame.group_by(pl.col("symbol").cast(pl.String)).len().sort("len", "symbol", descending=[True, False])
    )
    return str(counts["symbol"][0])


def _new_figure() -> Figure:
    from matplotlib.figure import Figure

    class RunFigure(Figure):
        """A figure that a notebook displays, whether or not pyplot has been imported."""

        def _repr_png_(self) -> bytes:
            picture = BytesIO()
            self.savefig(picture, format="png", dpi=100)
            return picture.getvalue()

    return RunFigure(figsize=(11, 6), layout="constrained")


def _axes(figure: Figure, with_depth: bool) -> tuple[Axes, Axes, Axes | None]:
    """Volume, prices above it, and the book at the right on the same price axis."""
    from matplotlib import dates

    grid = figure.add_gridspec(
        2, 2 if with_depth else 1, height_ratios=[3, 1], width_ratios=[4, 1][: 1 + with_depth]
    )
    prices = figure.add_subplot(grid[0, 0])
    volume = figure.add_subplot(grid[1, 0], sharex=prices)
    depth = figure.add_subplot(grid[0, 1], sharey=prices) if with_depth else None
    prices.tick_params(labelbottom=False)
    untyped: Any = dates  # matplotlib's dates have no types
    locator = untyped.AutoDateLocator()
    volume.xaxis.set_major_locator(locator)
    volume.xaxis.set_major_formatter(untyped.ConciseDateFormatter(locator))
    prices.set_ylabel("price")
    volume.set_ylabel("lots traded")
    volume.set_xlabel("time, UTC")
    for axes in (prices, volume, depth):
        if axes is not None:
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
    return volume, prices, depth


def _decimal(column: str) -> pl.Expr:
    return pl.col(column) / PRICE_SCALE


def _draw_touch(axes: Axes, l1: pl.DataFrame | None) -> None:
    """Best bid and ask; a few prices far away, such as before an opening, stay outside the picture."""
    if l1 is None:
        return
    shown = l1.gather_every(max(1, l1.height // POINTS_MAX)).with_columns(
        _decimal("bid_px"), _decimal("ask_px")
    )
    for column, colour, label in (("bid_px", BUY, "best bid"), ("ask_px", SELL, "best ask")):
        axes.step(shown["ts"], shown[column], where="post", color=colour, linewidth=0.9, label=label)
    # by quantile: a single order far away would squeeze the rest into a line
    low, high = shown["bid_px"].quantile(OUTSIDE), shown["ask_px"].quantile(1 - OUTSIDE)
    if low is not None and high is not None and low < high:
        margin = 0.05 * (high - low)
        axes.set_ylim(low - margin, high + margin)


def _draw_trades(axes: Axes, fills: pl.DataFrame | None) -> None:
    if fills is None:
        return
    shown = fills.gather_every(max(1, fills.height // POINTS_MAX)).with_columns(_decimal("price"))
    area = 60 / int(shown["qty"].to_numpy().max())
    for side, label in ((Side.BUY, "buyer took"), (Side.SELL, "seller took")):
        taken = shown.filter(pl.col("aggressor_side") == int(side))
        colour = COLOURS[side]
        axes.scatter(
            taken["ts"],
            taken["price"],
            s=4 + taken["qty"] * area,
            c=colour,
            alpha=0.6,
            zorder=3,
            lw=0,
            label=label,
        )


def _draw_volume(axes: Axes, fills: pl.DataFrame | None) -> None:
    """Lots per time bin: bought above the line, sold below it."""
    if fills is None:
        return
    times: Any = fills["ts"]  # a series of times has a minimum of any type, for a checker
    start, end = times.min(), times.max()
    width = max((end - start) / TIME_BINS, timedelta(microseconds=1))  # above 0 even if all come at once
    bins = fills.group_by(
        ((pl.col("ts") - start).dt.total_nanoseconds() // int(width.total_seconds() * 1e9)).alias("bin"),
        "aggressor_side",
    ).agg(pl.col("qty").sum())
    for side, colour in COLOURS.items():
        taken = bins.filter(pl.col("aggressor_side") == int(side))
        if taken.is_empty():
            continue  # matplotlib takes a width in time only once an axis has times
        left = [start + width * index for index in taken["bin"]]
        axes.bar(left, taken["qty"] * int(side), width=width, align="edge", color=colour)
    axes.axhline(0, color=INK, linewidth=0.6)


def _draw_book(axes: Axes, book: pl.DataFrame) -> None:
    """Open lots at the end, level by level, near the touch."""
    levels = book.group_by("side", "price").agg(pl.col("qty").sum())
    low, high = axes.get_ylim()
    height = (high - low) / 150  # thin enough for levels a tick apart
    for side, colour in COLOURS.items():
        best = levels.filter(pl.col("side") == int(side)).sort("price", descending=side is Side.BUY)
        best = best.head(BOOK_LEVELS).with_columns(_decimal("price"))
        axes.barh(best["price"], best["qty"], height=height, color=colour)
    axes.tick_params(labelleft=False)
    axes.set_xlabel("lots at the end")
