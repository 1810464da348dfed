"""`hftlab convert`: any supported source to a Parquet or Arrow file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hftlab.cli import common
from hftlab.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from hftlab.feeds import Flow

ROWS_AT_ONCE = 1 << 20


def convert(
    source: common.Source,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Output file: .parquet or .arrow.")
    ],
    to: Annotated[
        str | None,
        common.choice_option(
            "--to", "Facts or commands (inferred if need be); default: what the source has.", "mbo", "orders"
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Another table of the source instead (inspect lists them)."),
    ] = None,
    format: common.Format = None,
    options: common.FeedOptions = None,
    config: common.ConfigFile = None,
    symbols: common.Symbols = None,
    drop_ghosts: common.DropGhosts = False,
    as_json: common.Json = False,
) -> None:
    """Convert any supported source to a Parquet or Arrow file, which opens at once
    and is read in chunks.

    Example: [bold]hftlab convert AMZN_2012-06-21_34200000_57600000_message_1.csv -o amzn.parquet[/]
    """
    import hftlab
    from hftlab.files import write_table

    settings, drop = hftlab.load_config(config), drop_ghosts or None
    flow = common.open_source(source, format, symbols, options, settings, drop_ghosts=drop)
    kind = table or to or flow.kind
    _refuse_impossible(flow, kind, output, table)
    with common.working(f"converting {source.name}"):
        parts = iter([flow.extras[table]()]) if table else _chosen(flow, _parts(flow, kind))
        rows = write_table(output, parts)
    for fault in flow.faults:
        print(f"hftlab: {source}: {fault}", file=sys.stderr)
    if as_json:
        common.print_json({"path": str(output), "kind": kind, "rows": rows, "bytes": output.stat().st_size})
    else:
        print(f"{output}: {common.plural(rows, 'row')} of {kind}, {common.size(output.stat().st_size)}")


def _refuse_impossible(flow: Flow, kind: str, output: Path, table: str | None) -> None:
    if table is not None and table not in flow.extras:
        expected = f"one of {', '.join(flow.extras)}" if flow.extras else "none: this source has no others"
        raise UsageError(f"--table: found {table!r}, expected {expected}")
    if kind == "mbo" and flow.kind == "orders":
        raise UsageError(
            f"{flow.path}: found commands (orders), expected facts (mbo): they can't be made from commands"
        )
    if output.exists() and output.samefile(flow.path):
        raise UsageError(f"{output}: is the source itself; choose another output")


def _parts(flow: Flow, kind: str) -> Iterator[pa.Table]:
    if kind != flow.kind:
        from hftlab.replayer.inference import infer_orders

        yield infer_orders(flow)
        return
    empty = True  # a file needs a schema even if the flow has no row
    for part in flow.batches(ROWS_AT_ONCE):
        empty = False
        yield part
    if empty:
        yield flow.table()


def _chosen(flow: Flow, parts: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The rows of the chosen symbols; each of them must be there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if flow.symbols is None:
        yield from parts
        return
    missing = set(flow.symbols)
    for part in parts:
        if "symbol" not in part.column_names:
            raise UsageError(f"{flow.path}: found no symbol column, expected one to choose symbols by")
        symbol = part["symbol"].cast(pa.string())
        missing -= set(symbol.unique().to_pylist())
        yield part.filter(pc.is_in(symbol, pa.array(flow.symbols)))
    if missing:
        raise UsageError(
            f"{flow.path}: found no rows of {', '.join(sorted(missing))}, expected symbols of the file"
        )
