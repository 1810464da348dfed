"""Feeds of other packages: the one in docs/FEEDS.md, installed and used, and those that are wrong."""

from __future__ import annotations

import gzip
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hftlab
from hftlab.cli import app
from hftlab.errors import FormatError, UsageError
from hftlab.feeds import ENTRY_POINTS, FEEDS, generic, registry
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "FEEDS.md").read_text(encoding="utf-8")
OWN = PAGE[PAGE.index("## A feed of your own") :]
TICKS = "#TICKS AAPL\n1 A B 100.25 10 7\n2 A S 100.50 5 8\n3 C B 100.25 4 7\n"


def block(language):
    """The first block of code of a language in the section about feeds of one's own."""
    return re.search(rf"```{language}\n(.*?)```", OWN, re.DOTALL)[1]


def installed(folder, points, **modules):
    """A package as pip leaves it: modules, and beside them a dist-info with entry points."""
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    (info := folder / "ticks_feed-1.0.dist-info").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ticks-feed\nVersion: 1.0\n")
    lines = [f"[{ENTRY_POINTS}]", *(f"{name} = {module}" for name, module in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A folder on sys.path, and a registry that hasn't looked yet."""
    monkeypatch.syspath_prepend(tmp_path)
    registry.cache_clear()
    yield tmp_path
    registry.cache_clear()
    sys.modules.pop("ticks_feed", None)


@pytest.fixture
def ticks(fresh):
    """The package of docs/FEEDS.md, installed, and a file for it."""
    points = tomllib.loads(block("toml"))["project"]["entry-points"][ENTRY_POINTS]
    installed(fresh, points, ticks_feed=block("python"))
    (path := fresh / "day.txt").write_text(TICKS)
    return path


def test_the_feed_of_the_documentation_works(ticks):
    """What the page shows, installed as it says, is recognised, read and replayed."""
    assert list(registry()) == [*(name for name in FEEDS if name != "generic"), "ticks", "generic"]
    flow = hftlab.open_flow(ticks)
    assert (flow.format, flow.kind, flow.num_rows, flow.notes) == ("ticks", "mbo", 3, ["messages: 3"])
    book = hftlab.replay(flow, mode="rebuild", record=("book",)).book
    assert book.select("side", "price", "qty").rows() == [(1, 100_250_000_000, 6), (-1, 100_500_000_000, 5)]
    assert hftlab.open_flow(ticks, format="ticks", size_factor=100).table()["size"].to_pylist() == [
        1000,
        500,
        400,
    ]


def test_it_is_about_twenty_lines(ticks):
    """The page promises that a feed is small; its code is lines between the imports and the end."""
    code = block("python").split('DESCRIPTION = "')[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 27


def test_its_errors_are_ours(ticks):
    """One line with the row; an option it doesn't have is the caller's mistake."""
    ticks.write_text(TICKS + "4 C B\n")
    with pytest.raises(FormatError, match=r"line 5: found 3 fields, expected ns action side price size id"):
        hftlab.open_flow(ticks)
    with pytest.raises(
        UsageError, match=r"option 'factor' means nothing to TICKS files .* one of size_factor"
    ):
        hftlab.open_flow(ticks, factor=2)


def test_every_command_knows_it(ticks):
    """In a process of its own, by the command line, with an option."""
    command = [sys.executable, "-m", "hftlab", "inspect", str(ticks), "-O", "size_factor=100", "--json"]
    path = {"PYTHONPATH": f"{ticks.parent}:{REPOSITORY}"}
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | path, check=True)
    assert '"format": "ticks"' in run.stdout
    assert '"largest_qty": 1000' in run.stdout


@pytest.mark.parametrize(
    ("points", "code", "said"),
    [
        (
            {"ticks": "ticks_feed"},
            "import nothing_like_it",
            "feed ticks of ticks_feed: can't be loaded: No module named",
        ),
        ({"ticks": "ticks_feed"}, "1 / 0", "feed ticks of ticks_feed: can't be loaded: division by zero"),
        ({"ticks": "ticks_feed"}, "DESCRIPTION = ''", "feed ticks of ticks_feed: has no sniff, load"),
        ({"dbn": "ticks_feed"}, "", "feed dbn of ticks_feed: there is one of this name already"),
    ],
)
def test_a_package_that_is_wrong(fresh, points, code, said):
    """It is named, in one line, whatever it raised."""
    installed(fresh, points, ticks_feed=code)
    with pytest.raises(UsageError) as caught:
        registry()
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def run(capsys, *arguments):
    """What a command prints as JSON."""
    with pytest.raises(SystemExit) as caught:
        app([*arguments, "--json"])
    assert caught.value.code == 0
    return json.loads(capsys.readouterr().out)


def test_the_page_s_mapping_of_a_futures_feed(tmp_path, monkeypatch, capsys):
    """The long command of the page, on a file as it describes it."""
    monkeypatch.chdir(tmp_path)
    rows = ["1703505600000000,N,1,b,19200,3", "1703505600000001,N,2,s,19201,2", "1703505600000002,X,1,,,"]
    Path("es.txt.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    command = re.search(r"\$ hftlab (replay es.txt.gz(?:.*\\\n)*.*)\n```", PAGE)[1].replace("\\\n", " ")
    found = run(capsys, *shlex.split(command))
    assert (found["rows"], found["accepted"], found["open_orders"]) == (3, 3, 1)


def test_the_page_s_three_ways_to_give_options(tmp_path, monkeypatch, capsys):
    """The command line, the TOML file and the call of the page open a file alike."""
    monkeypatch.chdir(tmp_path)
    Path("flow.csv").write_text("time,action,order_id,side,px,qty\n1703505600,NEW,1,B,10050,3\n")
    Path("flow.toml").write_text(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1])
    command = shlex.split(re.search(r"\$ hftlab (inspect flow.csv .*)", PAGE)[1])
    by_toml = shlex.split(re.search(r"# hftlab (inspect flow.csv .*)", PAGE)[1])
    assert run(capsys, *command) == run(capsys, *by_toml)
    scope = {"hftlab": hftlab}
    exec(re.search(r"```python\n(flow = .*?)```", PAGE, re.DOTALL)[1], scope)
    assert scope["flow"].table()["price"].to_pylist() == [100_500_000_000]


def test_the_page_names_every_option_of_the_generic_feed():
    """No option is left unexplained, in the page or in the module."""
    for name in list(inspect.signature(generic.load).parameters)[3:]:
        assert re.search(rf"`{name}[.`]", PAGE), name
        assert re.search(rf"^{name}\b", generic.__doc__, re.MULTILINE), name
