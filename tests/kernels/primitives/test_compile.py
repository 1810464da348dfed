"""The kernel cache: its key covers every source, so an edit never runs stale code."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "hftlab"
ANSWER = """
from hftlab.kernels.primitives.compile import helper


@helper
def answer():
    return {}
"""
ASK = """
from hftlab.kernels.primitives.compile import kernel
from hftlab.kernels.{} import answer


@kernel
def ask():
    return answer()
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the kernels with one that calls a helper in another file; its answer in a new process."""
    shutil.copytree(PACKAGE / "kernels", tmp_path / "hftlab" / "kernels")
    for name in ("__init__.py", "codes.py"):
        shutil.copy(PACKAGE / name, tmp_path / "hftlab" / name)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "HFTLAB_CACHE_DIR": str(tmp_path / "cache")}

    def write(module, answer):
        path = tmp_path / "hftlab" / "kernels" / f"{module.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ANSWER.format(answer))
        (tmp_path / "hftlab" / "kernels" / "asking.py").write_text(ASK.format(module))

    def asked():
        program = "from hftlab.kernels.asking import ask; print(ask(), sum(ask.stats.cache_hits.values()))"
        words = [sys.executable, "-c", program]
        return subprocess.check_output(words, env=environment, text=True, cwd=tmp_path).split()

    return write, asked


@pytest.mark.parametrize("module", ["answering", "nested.answering", "nested.deeper.answering"])
def test_an_edit_in_any_subfolder_runs_the_new_code(package, module):
    """A helper in another file is edited: the kernel that inlines it is compiled again, and only then."""
    write, asked = package
    write(module, 1)
    assert asked() == ["1", "0"]
    assert asked() == ["1", "1"]
    write(module, 2)
    assert asked() == ["2", "0"]


def test_a_kernel_that_moves_is_another_one(package):
    """The key has the path of each source, not its name alone."""
    write, asked = package
    write("nested.answering", 1)
    assert asked() == ["1", "0"]
    write("other.answering", 1)
    assert asked() == ["1", "0"]
