"""Types at the door: a program that uses the public names as documented checks, one that doesn't fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed")

ROOT = Path(__file__).parents[1]
# As a program sees an installed package: its signatures. Bodies are the business of `make lint`. Libraries
# beneath are not followed, which makes this quick.
SETTINGS = """
[mypy]
strict = true
[mypy-hftlab.*]
ignore_errors = true
[mypy-polars.*,numpy.*,pyarrow.*,matplotlib.*,rich.*,typer.*,msgspec.*,psutil.*,numba.*,llvmlite.*,hftlab.kernels.*]
follow_imports = skip
ignore_missing_imports = true
"""

RIGHT = """
from decimal import Decimal

import hftlab

flow = hftlab.open_flow("flow.csv", format="lobster", symbols="A,B")
run: hftlab.Result = hftlab.replay(flow, threads=2, record=("fills", "l1"), limits={"max_order_qty": 10})
digest: str = run.digest
written = run.write("run").name
book = hftlab.OrderBook(symbol="A", tick_size="0.01", limits=hftlab.Limits(max_order_qty=10))
ack: hftlab.Ack = book.submit(order_id=1, side="buy", price=Decimal("1.5"), qty=3)
fills: tuple[hftlab.Fill, ...] = ack.fills
reason: hftlab.Reason = ack.reason
shares: list[float | None] = [hftlab.certify(flow).execution_share, hftlab.compare(flow, "book.csv").share]
equal: bool = hftlab.verify(flow, mode="match").ok
tape: hftlab.Tape = hftlab.compile_tape(hftlab.generate(1000))
report: hftlab.RiskReport = hftlab.risk(tape, {"tight": "tight.toml"})
p99: int = hftlab.profile(flow, rate=1e6).service.percentile(99)
settings: hftlab.Config = hftlab.load_config("settings.toml")
try:
    hftlab.infer_orders(flow)
except hftlab.FormatError as error:
    print(error.path, hftlab.Side.BUY, hftlab.PRICE_SCALE)
"""
WRONG = {
    'hftlab.replay("flow.csv", threads="two")': 'incompatible type "str"; expected "int | None"',
    'hftlab.replay("flow.csv", thread=2)': 'Unexpected keyword argument "thread"',
    "hftlab.replya('flow.csv')": 'Module has no attribute "replya"',
    "hftlab.OrderBook().submit(1, 'buy', qty='three')": 'incompatible type "str"; expected "int"',
    "hftlab.OrderBook().best_bid.price": 'Item "None" of "Level | None" has no attribute "price"',
    "hftlab.certify('flow.csv').execution_share + 1.0": "Unsupported operand types",
    "hftlab.Side.BYE": 'has no attribute "BYE"',
    "hftlab.load_config(7)": 'incompatible type "int"',
    "hftlab.LatencyProfiler(digit=3)": 'Unexpected keyword argument "digit"',
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """What mypy says of the two programs: (the right one's, the wrong one's by line)."""
    folder = tmp_path_factory.mktemp("typing")
    (folder / "settings.ini").write_text(SETTINGS)
    (folder / "right.py").write_text(RIGHT)
    (folder / "wrong.py").write_text("\n".join(["import hftlab", *WRONG]) + "\n")
    options = ["--config-file", "settings.ini", "--cache-dir", str(folder / "cache"), "--no-pretty"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "right.py", "wrong.py"],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    lines = [line.split(":", 2) for line in done.stdout.splitlines() if ": error: " in line]
    wrong = {int(number): text for path, number, text in lines if path == "wrong.py"}
    return [text for path, _, text in lines if path == "right.py"], wrong


def test_a_program_that_uses_the_public_names_checks(findings):
    """Every call of the README's kind is right for a strict checker."""
    assert findings[0] == []


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_call_does_not_check(findings, call):
    """A wrong argument, a misspelt name, a None that was forgotten: each is found where it stands."""
    assert WRONG[call] in findings[1].get(2 + list(WRONG).index(call), "")
