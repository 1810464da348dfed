"""Certificate and slow twin agree on whatever a venue may tell: a failure prints its seed and few facts."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pytest

import hftlab
from hftlab.fidelity.certify import certify
from hftlab.replayer.inference import infer_orders
from tests.helpers import tellers
from tests.helpers.slices import fewer, fuzz_budget
from tests.reference.certificate import Twin
from tests.reference.shrink import ddmin

LEVELS = 3
REAL_ROWS = fewer(20_000)


def commands(table: pa.Table) -> list[tuple]:
    """Inferred commands, in the twin's words."""
    frame = pl.from_arrow(infer_orders(table)).drop("account", "post_only")
    frame = frame.with_columns(pl.col("symbol").cast(pl.String), pl.col("ts").to_physical())
    return frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String)).rows()


def twin_commands(twin: Twin) -> list[tuple]:
    """The same of the twin."""
    rows = []
    for one in twin.asked:
        fact, asked = one.first.fact, one.command
        told = (asked.order_id, asked.new_order_id, asked.side)
        codes = (str(asked.order_type), str(asked.tif), asked.price, asked.qty, str(one.origin))
        rows.append((fact.ts, fact.symbol, str(asked.action), *told, *codes, fact.sequence))
    return rows


def over_time(twin: Twin, spans: list[int]) -> list[tuple]:
    """Executions, reproduced ones, ends, equal touches, equal depths of the twin in spans from these rows."""
    counts = [[0] * 5 for _ in spans]

    def count(row: int, *which: bool) -> None:
        if spans:
            span = max((number for number, start in enumerate(spans) if start <= row), default=0)
            counts[span] = [one + more for one, more in zip(counts[span], which, strict=True)]

    for one in twin.executions:
        count(one.fact.row, True, one.cause is None, False, False, False)
    for end in twin.ends:
        count(end.row, False, False, True, end.touch, end.depth)
    return list(map(tuple, counts))


def difference(table: pa.Table, levels: int = LEVELS) -> str | None:
    """Where certificate and twin part, None where they agree."""
    twin, found = Twin(table, levels), certify(table, levels=levels)
    for number, (ours, theirs) in enumerate(zip(commands(table), twin_commands(twin), strict=False)):
        if ours != theirs:
            return f"command {number}: {ours}, the twin's {theirs}"
    expected = twin.counts()
    first = found.first_divergence
    for name, value in expected.items():
        ours = (first and (first.row, first.what)) if name == "first_divergence" else getattr(found, name)
        if ours != value:
            return f"{name}: {ours}, the twin's {value}"
    spans = found.over_time["row"].to_list()
    ours = found.over_time.select(pl.exclude("row", "ts")).rows()
    theirs = over_time(twin, spans)
    return None if ours == theirs else f"over time: {ours}, the twin's {theirs}"


def check(told: list[tellers.Told], seed: int) -> None:
    """Fail with the seed and the few facts that show a difference."""
    rule = ("keep", "back")[seed % 2]
    if difference(tellers.table_of(told, rule)) is None:
        return
    rows = ddmin(
        range(len(told)), lambda rows: difference(tellers.table_of([told[i] for i in rows], rule)) is not None
    )
    few = [told[row] for row in rows]
    facts = "\n".join(map(str, few))
    pytest.fail(
        f"seed {seed}, refills {rule}: {difference(tellers.table_of(few, rule))}\n{facts}", pytrace=False
    )


@pytest.mark.parametrize("rows", [12, 60, 400])
def test_the_certificate_is_the_twin_s(rows):
    """Commands, executions, makers, books, hidden trades, causes, and what was compared where."""
    for seed in range(fewer(8_000 // rows)):
        check(tellers.facts(seed, rows), seed)


@pytest.mark.parametrize(
    ("name", "start"), [("*20231225*", 0), ("AAPL*_message_*", 0), ("AAPL*_message_*", 60_000)]
)
def test_the_certificate_of_real_facts_is_the_twin_s(data_dir, name, start):
    """A slice of a file: makers that rested before it, orders out of turn, hidden trades, M that report."""
    if name.startswith("*2023"):
        pytest.importorskip("databento_dbn", reason="the extra databento is not installed")
    path = next(path for path in data_dir.rglob(name) if "bbo" not in path.name)
    table = hftlab.open_flow(path).table().slice(start, REAL_ROWS)
    assert difference(table, 10) is None


@pytest.mark.fuzz
def test_many_facts():
    """Three hundred thousand, about a minute; or a part of them, see `slices`."""
    budget = fuzz_budget(300_000)
    for seed in range(1_000, 1_000 + budget // 80):
        check(tellers.facts(seed, 80), seed)
