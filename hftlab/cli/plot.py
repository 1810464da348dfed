"""`hftlab plot`: the picture of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder (hftlab replay --out).")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Output file: .png, .svg or .pdf; default: DIR.png."
        ),
    ] = None,
    symbol: Annotated[
        str | None, typer.Option(metavar="A", help="The instrument to draw; default: the most active.")
    ] = None,
) -> None:
    """Draw best prices, trades, traded volume and the book at the end.

    Example: [bold]hftlab replay flow.parquet --record fills,l1,book --out run && hftlab plot run[/]
    """
    from hftlab.errors import UsageError
    from hftlab.files import new_file
    from hftlab.plots.run import plot_folder

    output = output or folder.parent / f"{folder.name or folder.resolve().name}.png"
    if output.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{output}: found the suffix {output.suffix!r}, expected .png, .svg or .pdf")
    figure = plot_folder(folder, symbol)
    with new_file(output) as path:
        figure.savefig(path, dpi=130)
    print(output)
