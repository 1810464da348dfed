"""What every test may use: public sample data, the command line; and which marked tests run by default."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent

HANGS_S = 1_800  # a child that takes longer hangs, on whatever machine

# A slow or busy machine is no failure: neither an example nor making one has a time limit.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs `data_dir` as `data`, and leave `fuzz` to those who ask for it by `-m fuzz`."""
    for item in items:
        if "data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.data)
    from tests.helpers.slices import is_fuzzing  # numba's settings, which not every test needs

    if "fuzz" not in config.getoption("markexpr") and not is_fuzzing():
        fuzz = [item for item in items if item.get_closest_marker("fuzz")]
        config.hook.pytest_deselected(items=fuzz)
        items[:] = [item for item in items if item not in fuzz]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of public sample data, which is never part of the project."""
    folder = Path(os.environ.get("HFTLAB_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no sample data at {folder}: set HFTLAB_DATA to the folder that has it")
    return folder


@pytest.fixture
def run(capsys):
    """Run a command in this process: its exit status, stdout and stderr."""

    def run(*arguments):
        from hftlab.cli import main

        handler = signal.getsignal(signal.SIGTERM)
        try:
            status = main([str(argument) for argument in arguments])
        finally:
            signal.signal(signal.SIGTERM, handler)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
