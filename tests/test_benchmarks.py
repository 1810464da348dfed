"""What the benchmarks say where the sample data isn't."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        ("lobster", "nowhere", "no sample data at {}: set HFTLAB_DATA"),
        ("dbn", "nowhere", "no sample data at {}: set HFTLAB_DATA"),
        ("rebuild", "nowhere", "no sample data at {}: set HFTLAB_DATA"),
        ("fidelity", "nowhere", "no sample data at {}: set HFTLAB_DATA"),
        ("lobster", "", "no sample {}/lobster/AAPL"),
        ("dbn", "", "no sample {}/databento/esh4"),
    ],
)
def test_no_sample_data_is_one_line(tmp_path, module, name, said):
    """The folder that HFTLAB_DATA names isn't there, or has nothing in it: no traceback."""
    folder = tmp_path / name
    run = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}"],
        cwd=REPOSITORY,
        env=os.environ | {"HFTLAB_DATA": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.startswith(said.format(folder))
    assert run.stderr.count("\n") == 1
