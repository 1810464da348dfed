"""What a venue tells of the generator's commands: facts to rebuild books from, and as LOBSTER's lines."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa

import hftlab
from hftlab.codes import MBO_FLAG_LAST, MboAction
from hftlab.schema import MBO, code_array

LOBSTER_NAME = "SYM000_2024-01-02_34200000_57600000_message_10.csv"
_LOBSTER_TYPES = {"A": 1, "F": 4, "C": 3}
_LOBSTER_UNITS = 100_000  # 1e-9 in one of its prices
_MIDNIGHT_NS = 1_704_171_600 * 10**9  # of the generator's day in New York
_RESTS = pl.when(pl.col("action") == "NEW").then(pl.lit("A")).otherwise(pl.lit("M"))
_BEFORE, _AFTER = -1, 1 << 40  # the fills of a command, in its place among all that it causes


def facts(messages: int, symbols: int, seed: int = 1) -> pa.Table:
    """An mbo table: F and C of each fill, C of what is taken off, A of what rests, M of what is replaced."""
    commands, fills = _played(messages, symbols, seed)
    gone = (pl.col("action") == "REPLACE") & (pl.col("leaves_qty") == 0)
    taken = commands.filter(pl.col("action").is_in(["CANCEL", "REDUCE"]) | gone)
    size = pl.when(pl.col("action") == "REDUCE").then("qty").otherwise("opened")
    rests = commands.filter(pl.col("leaves_qty") > 0, pl.col("action").is_in(["NEW", "REPLACE"]))
    parts = [
        fills.with_columns(place=2 * pl.col("place"), fact=pl.lit("F")),
        fills.with_columns(place=2 * pl.col("place") + 1, fact=pl.lit("C")),
        taken.with_columns(place=_BEFORE, fact=pl.lit("C"), size=size, price="before"),
        rests.with_columns(place=_AFTER, fact=_RESTS, size="leaves_qty"),
    ]
    names = ("row", "place", "ts", "symbol", "fact", "side", "price", "size", "order_id")
    told = pl.concat([part.select(names) for part in parts], how="vertical_relaxed")
    return _table(told.sort("row", "place", maintain_order=True))


def _played(messages: int, symbols: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Accepted commands with their order's side, size and earlier price; and fills with the maker's."""
    table = pl.from_arrow(hftlab.generate(messages, symbols, seed))
    run = hftlab.replay(table, record=("fills", "outcomes"))
    table = table.with_row_index("row").with_columns(
        pl.col("row").cast(pl.Int64), pl.col("action", "symbol").cast(pl.String)
    )
    orders = table.filter(pl.col("action") == "NEW").select("order_id", "side")
    sets = pl.col("action").is_in(["NEW", "REPLACE"])
    earlier = {
        name: pl.when(sets).then(column).forward_fill().shift(1).over("order_id")
        for name, column in (("before", "price"), ("opened", "qty"))
    }
    commands = table.with_columns(**earlier, leaves_qty=run.outcomes["leaves_qty"]).filter(
        run.outcomes["status"].cast(pl.String) != "REJECTED"
    )
    commands = commands.drop("side").join(orders, on="order_id", how="left", maintain_order="left")
    fills = run.fills.select(
        "ts",
        "price",
        place="match_id",
        row="seq",
        symbol=pl.col("symbol").cast(pl.String),
        side=-pl.col("aggressor_side"),
        size="qty",
        order_id="maker_order_id",
    )
    return commands, fills


def _table(told: pl.DataFrame) -> pa.Table:
    """These rows as an mbo table; what a command causes is one event."""
    names = pl.Enum([action.name for action in MboAction])
    fact = told["fact"].cast(names).to_physical().cast(pl.Int8).to_numpy()
    last = (told["row"] != told["row"].shift(-1)).fill_null(True)
    columns = {name: told[name].to_arrow() for name in ("side", "price", "size", "order_id")}
    columns |= {"ts_event": told["ts"].to_arrow(), "ts_recv": told["ts"].to_arrow()}
    columns |= {"symbol": told["symbol"].to_arrow().cast(pa.string()).dictionary_encode()}
    columns |= {"action": code_array(fact, MboAction), "sequence": told["row"].to_arrow()}
    columns |= {"flags": (last.cast(pl.UInt8) * MBO_FLAG_LAST).to_arrow()}
    return pa.table([columns[name].cast(MBO.field(name).type) for name in MBO.names], schema=MBO)


def write_lobster(folder: Path, messages: int) -> tuple[Path, int]:
    """The facts of one instrument as a LOBSTER message file, and how many lines it has."""
    told = pl.from_arrow(facts(messages, 1)).with_columns(pl.col("action").cast(pl.String))
    filled = (pl.col("action") == "C") & (pl.col("action").shift(1) == "F")
    told = told.filter(~filled)  # an execution is one line, and what is modified two
    letters = pl.when(pl.col("action") == "M").then(["C", "A"]).otherwise(pl.concat_list("action"))
    told = told.with_columns(action=letters).explode("action")
    ts = pl.col("ts_event").cast(pl.Int64) - _MIDNIGHT_NS
    rest = (ts % 10**9).cast(pl.String).str.zfill(9)
    lines = told.select(
        pl.format("{}.{}", ts // 10**9, rest).alias("time"),
        pl.col("action").replace_strict(_LOBSTER_TYPES).alias("type"),
        "order_id",
        "size",
        pl.col("price") // _LOBSTER_UNITS,
        "side",
    )
    path = folder / LOBSTER_NAME
    lines.write_csv(path, include_header=False)
    return path, lines.height
