"""`hftlab verify`: proof by digest that batch, event by event, chunks and threads agree on a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hftlab.cli import common

if TYPE_CHECKING:
    from hftlab.fidelity.verification import Verification


def verify(
    file: common.Source,
    mode: common.Mode = "match",
    format: common.Format = None,
    options: common.FeedOptions = None,
    config: common.ConfigFile = None,
    symbols: common.Symbols = None,
    drop_ghosts: common.DropGhosts = False,
    limits: common.LimitsFile = None,
    as_json: common.Json = False,
) -> int:
    """Prove that every way to replay a flow gives the same result.

    Replays the flow in one batch, event by event, in chunks of several sizes and
    on several threads. Each way must give the same fills, outcomes and final
    book, and so the same digest. The exit status is 1 if one differs.

    Example: [bold]hftlab verify data/sample.parquet[/]
    """
    import hftlab

    settings = hftlab.load_config(config)
    flow = common.open_source(file, format, symbols, options, settings, drop_ghosts=drop_ghosts or None)
    gate = common.load_limits(limits, settings, mode)
    common.load_kernels(limits=gate)
    with common.working("replaying it in every way"):
        verification = hftlab.verify(flow, mode=mode, config=settings, limits=gate)
    if as_json:
        rows = [row._asdict() for row in verification.rows]
        common.print_json({"path": str(file), "ok": verification.ok, "rows": rows})
    else:
        _show(file.name, verification)
    return 0 if verification.ok else 1


def _show(name: str, verification: Verification) -> None:
    table = common.grid(name, "way", "digest", "", "commands", "time", left=3)
    for row in verification.rows:
        same = common.styled("equal", "green") if row.equal else common.styled("DIFFERS", "red")
        table.add_row(row.name, row.digest, same, f"{row.commands:,}", common.duration(row.seconds))
    common.show(table)
    different = sum(not row.equal for row in verification.rows)
    print(f"{different} of {len(verification.rows)} ways differ" if different else "every way agrees")
