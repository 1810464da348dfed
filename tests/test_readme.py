"""The README tells the truth: its Python prints what it shows, its commands run, its targets exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HANGS_S

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TIME = re.compile(r"\d[\d.,]* (ns|us|ms|s)\b")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    """A working folder that sees the sample as the repository does, and is not the repository."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    return tmp_path


def output(command, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    how = {"capture_output": True, "text": True, "timeout": HANGS_S}
    done = subprocess.run(command, cwd=folder, env=environment, **how)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_python_prints_what_is_shown(folder):
    """The Python block, run as a script, prints the text block below it."""
    (program,), (shown,) = blocks("python"), blocks("text")
    assert output([sys.executable, "-c", program], folder) == shown


def test_the_commands_print_what_is_shown(folder):
    """Each hftlab command runs and prints the lines below it; `...` is any lines, and times vary."""
    session = "".join(block for block in blocks("console") if "$ hftlab" in block)
    steps = re.findall(r"^\$ hftlab (.*)\n((?:(?!\$ ).*\n)*)", session, re.MULTILINE)
    assert len(steps) >= 3
    for command, shown in steps:
        printed = output([sys.executable, "-m", "hftlab", *command.split()], folder)
        lines = [re.escape(TIME.sub("TIME", line.rstrip())) for line in shown.splitlines()]
        expected = "\n".join(line.replace(re.escape("..."), r"(?:.*\n)*.*") for line in lines)
        actual = "\n".join(TIME.sub("TIME", line.rstrip()) for line in printed.splitlines())
        assert re.fullmatch(expected, actual), printed


def test_the_first_screen_has_the_two_commands_and_make_knows_them():
    """`make demo` and `make test` stand in the first screen, and are targets of the Makefile."""
    first_screen = "\n".join(README.splitlines()[:25])
    for target in ("demo", "test"):
        assert f"$ make {target}" in first_screen
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_every_command_is_in_the_table():
    """The table of commands has each of them."""
    from hftlab.cli import app

    names = [command.callback.__name__ for command in app.registered_commands]
    assert sorted(re.findall(r"^\| `hftlab (\w+)", README, re.MULTILINE)) == sorted(names)
