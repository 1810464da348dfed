"""`hftlab generate`: seeded synthetic order flow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from hftlab.cli import common


def generate(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Output file: .parquet or .arrow.")
    ],
    messages: Annotated[int, common.count_option("--messages", "Number of commands.")] = 1_000_000,
    symbols: Annotated[int, common.count_option("--symbols", "Number of instruments.", metavar="S")] = 10,
    seed: Annotated[
        int, common.count_option("--seed", "The same seed gives the same file.", minimum=0, metavar="K")
    ] = 1,
    as_json: common.Json = False,
) -> None:
    """Generate synthetic order flow with the statistics of real flow.

    The same options give the same file, byte for byte, on every machine.

    Example: [bold]hftlab generate -o flow.parquet --messages 5_000_000 --symbols 100 --seed 7[/]
    """
    from hftlab.feeds import synthetic

    start = time.perf_counter()
    with common.progress("generating", messages) as bar:
        synthetic.write(output, messages, symbols, seed, progress=bar and bar.reach)
    seconds = time.perf_counter() - start
    written_bytes = output.stat().st_size
    written = {
        "path": str(output),
        "messages": messages,
        "symbols": symbols,
        "seed": seed,
        "bytes": written_bytes,
        "seconds": seconds,
    }
    if as_json:
        common.print_json(written)
        return
    print(
        f"{output}: {messages:,} commands over {common.plural(symbols, 'symbol')}, "
        f"seed {seed}, {common.size(written_bytes)}, in {common.duration(seconds)}"
    )
