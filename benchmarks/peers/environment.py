"""The peers' environment: build/peers-venv, with what the `peers` extra of pyproject.toml pins."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "build" / "peers-venv"
PYTHON = FOLDER / "bin" / "python"
ALONE = {"lumina-lob"}  # asks for PyTorch (6 GB), which its books don't use


def pins() -> dict[str, str]:
    """Package -> requirement."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {pin.split("==")[0]: pin for pin in project["optional-dependencies"]["peers"]}


def prepare() -> dict[str, str]:
    """Make the environment where there is none, install what is missing; what failed, and why."""
    if not PYTHON.exists():
        print(f"creating {FOLDER}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
    there, failed = _installed(), {}
    for package, pin in pins().items():
        if pin.lower() in there:
            continue
        print(f"installing {pin}", file=sys.stderr)
        install = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", pin]
        install += ["--no-deps"] if package in ALONE else []
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            failed[package] = (errors or [f"pip: exit status {done.returncode}"])[-1]
    return failed


def _installed() -> set[str]:
    listed = [PYTHON, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    done = subprocess.run(listed, capture_output=True, text=True, check=True)
    return set(done.stdout.lower().replace("_", "-").split())
