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

    def asked(**variables):
        program = "from hftlab.kernels.asking import ask; print(ask(), sum(ask.stats.cache_hits.values()))"
        words = [sys.executable, "-W", "always", "-c", program]
        done = subprocess.run(
            words, env=environment | variables, text=True, cwd=tmp_path, capture_output=True, check=True
        )
        told[:] = done.stderr.splitlines()
        return done.stdout.split()

    told = asked.told = []
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


def below_a_file(tmp_path):
    """A folder that nobody can make, not even root: its parent is a regular file."""
    (tmp_path / "file").write_text("")
    return str(tmp_path / "file" / "cache")


def test_without_a_usable_cache_folder_an_edit_runs_the_new_code(package, tmp_path):
    """numba's next choice, `__pycache__` beside the sources, has no digest in its name and is never taken."""
    write, asked = package
    folder = below_a_file(tmp_path)
    write("answering", 1)
    assert asked(HFTLAB_CACHE_DIR=folder) == ["1", "0"]
    write("answering", 2)
    assert asked(HFTLAB_CACHE_DIR=folder) == ["2", "0"]
    assert not list((tmp_path / "hftlab").rglob("*.nbi"))


def test_a_single_unusable_folder_of_the_cache_is_not_replaced_by_pycache(package, tmp_path):
    """The folder of one package within the cache is a file: its kernels go to the temporary folder, too."""
    write, asked = package
    write("answering", 1)
    asked()
    (made,) = (tmp_path / "cache" / "hftlab").glob("kernels-*/kernels_*")
    shutil.rmtree(made)
    made.write_text("")
    assert asked() == ["1", "0"]
    assert asked() == ["1", "0"]
    assert not list((tmp_path / "hftlab").rglob("*.nbi"))


def test_a_choice_of_locators_for_numba_is_not_one_for_our_kernels(package, tmp_path):
    """NUMBA_CACHE_LOCATOR_CLASSES may name `__pycache__`; kernels stay where the digest is."""
    write, asked = package
    write("answering", 1)
    assert asked(NUMBA_CACHE_LOCATOR_CLASSES="InTreeCacheLocator") == ["1", "0"]
    assert not list((tmp_path / "hftlab").rglob("*.nbi"))
    assert list((tmp_path / "cache").rglob("*.nbi"))


def test_a_temporary_kernel_folder_is_announced_and_removed(package, tmp_path):
    """One warning names the folder that can't be used; what took its place is gone with the process."""
    write, asked = package
    write("answering", 1)
    folder, temporary = below_a_file(tmp_path), tmp_path / "temporary"
    temporary.mkdir()
    asked(HFTLAB_CACHE_DIR=folder, TMPDIR=str(temporary))
    assert sum(f"{folder}/hftlab/kernels-" in line for line in asked.told) == 1
    assert list(temporary.iterdir()) == []
