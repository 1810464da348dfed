"""What is written is there: links lead somewhere, public names explain themselves, columns have units."""

import inspect
import re
from pathlib import Path

import polars as pl
import pytest

import hftlab
from hftlab import schema
from hftlab.fidelity.certify import Cause

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "data").glob("*.md")])
TABLES = [
    getattr(schema, name)
    for name in ("ORDERS", "MBO", "MBP", "FILLS", "REJECTS", "ANOMALIES", "OUTCOMES", "L1", "BOOK", "LATENCY")
]


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(page):
    """Headings as the links to them are spelt."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_links_lead_somewhere(page):
    """Every relative link names a file that exists, and a heading in it where one is named."""
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"https?://|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_named_files_exist(page):
    """A path in backticks that looks like one of ours is one."""
    ours = r"`((?:hftlab|tests|docs|data|benchmarks|notebooks)/[\w./-]*)`"
    for path in re.findall(ours, page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


@pytest.mark.parametrize("name", [name for name in hftlab.__all__ if not name.startswith("__")])
def test_public_names_explain_themselves(name):
    """Every exported name has a docstring of its own, and so has each public method of a class."""
    thing = getattr(hftlab, name)
    if not (inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)):
        return
    assert thing.__doc__, name
    if inspect.isclass(thing):
        for method, function in vars(thing).items():
            is_public = not method.startswith("_") and (
                inspect.isroutine(function) or isinstance(function, property)
            )
            assert not is_public or inspect.getdoc(function), f"{name}.{method}"


@pytest.mark.parametrize(
    "table", [*TABLES, schema.depth(5)], ids=lambda t: t.metadata[schema.TABLE_KEY].decode()
)
def test_columns_have_units(table):
    """Every column of every table says its unit in the field metadata."""
    assert [field.name for field in table if not (field.metadata or {}).get(b"unit")] == []


def test_no_price_or_quantity_is_a_float():
    """Tables carry integers: prices in 1e-9 and quantities in lots."""
    assert [field.name for table in TABLES for field in table if str(field.type).startswith("float")] == []


def test_every_cause_is_explained():
    """docs/FIDELITY.md has a row for each cause of a certificate."""
    page = (ROOT / "docs" / "FIDELITY.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE) == [cause.name for cause in Cause]


def test_experiments_are_a_table():
    """docs/experiments.csv parses, has no gaps, and says of every change whether it was kept."""
    page = (ROOT / "docs" / "PERFORMANCE.md").read_text(encoding="utf-8")
    table = pl.read_csv(ROOT / "docs" / "experiments.csv", try_parse_dates=True)
    assert table.columns == ["date", "area", "change", "predicted", "measured", "kept", "commit"]
    assert table.schema["date"] == pl.Date
    assert set(table["kept"]) == {"yes", "no"}
    assert table.null_count().sum_horizontal().item() == 0
    assert table["change"].is_unique().all()
    dropped = table.filter(kept="no").height
    assert f"Of {table.height} experiments {dropped} were dropped" in page
