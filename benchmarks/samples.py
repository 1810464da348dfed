"""Where the benchmarks find the public sample data, which is never part of the project."""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def folder() -> Path:
    """The one HFTLAB_DATA names, or ../shared/data beside the project; ends the program if there is none."""
    found = Path(os.environ.get("HFTLAB_DATA") or REPOSITORY.parent / "shared" / "data")
    if not found.is_dir():
        sys.exit(f"no sample data at {found}: set HFTLAB_DATA to the folder that has it")
    return found


def sample(name: str) -> Path:
    """A file in it; ends the program if there is none."""
    path = folder() / name
    if not path.is_file():
        sys.exit(f"no sample {path}: set HFTLAB_DATA to the folder that has it")
    return path
