"""The asv suites run, their comparison notices, and benchmarks without their sample data say so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HANGS_S, REPOSITORY


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


COMPILES = (
    "FirstCall.track_compiled"  # minutes: its cold start is tested with an empty cache in test_bench.py
)


@pytest.fixture(scope="module")
def smoke():
    """The lines of every benchmark, run once on small flows."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.smoke", "--without", COMPILES],
        cwd=REPOSITORY,
        env=os.environ | {"HFTLAB_BENCH_MESSAGES": "2000"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_no_benchmark_has_rotted(smoke):
    """Each of every suite runs, with each of its parameters."""
    from benchmarks.smoke import benchmarks_of, parameters_of, suites

    expected = {
        f"{suite.__name__}.{name} {parameters}"
        for suite in suites()
        for name in benchmarks_of(suite)
        for parameters in parameters_of(suite)
        if f"{suite.__name__}.{name}" != COMPILES
    }
    assert {re.match(r"\S+ \(.*?\)", line)[0] for line in smoke} == expected


def test_asv_finds_what_the_smoke_run_runs(tmp_path):
    """From outside the repository, where only what is installed is on the path, and asv isn't."""
    from benchmarks.smoke import benchmarks_of, suites

    asv = pytest.importorskip("asv")
    script, result = Path(asv.__file__).with_name("benchmark.py"), tmp_path / "found.json"
    words = [sys.executable, script, "discover", REPOSITORY / "benchmarks", result]
    (tmp_path / "asv.py").write_text("raise ModuleNotFoundError('asv')")
    env = os.environ | {"ASV_PYTHONPATH": str(tmp_path)}  # it takes PYTHONPATH away
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {".".join(each["name"].split(".")[1:]) for each in json.loads(result.read_text())}
    assert found == {f"{suite.__name__}.{name}" for suite in suites() for name in benchmarks_of(suite)}


def test_a_speed_has_its_digest_beside_it():
    """Every suite that runs commands or facts tracks the digest of what it times."""
    from benchmarks.smoke import benchmarks_of, suites

    of_no_run = {"Views", "Import", "FirstCall", "Trust"}  # no flow of theirs is run; Trust tracks its shares
    found = {suite.__name__ for suite in suites() if "track_digest" in benchmarks_of(suite)}
    assert found == {suite.__name__ for suite in suites()} - of_no_run


def test_digests_do_not_depend_on_the_stage(smoke):
    """Flows of one suite that differ have digests that differ, and none is a placeholder."""
    digests = [int(line.split()[-3]) for line in smoke if re.match(r"Stages.track_digest", line)]
    assert len(set(digests)) == 2
    assert min(digests) > 2**32


SUITE = """
from random import Random

SECONDS, DIGEST = {seconds}, {digest}  # what is measured, not how: asv tells changes of the latter apart
CLOCK, NOISE = [0.0], Random(1)

class Wait:
    number, repeat, rounds, warmup_time = 1, 31, 1, 0
    timeout = {hangs_s}
    timer = staticmethod(lambda: CLOCK[0])  # which nothing but the benchmark moves

    def time_step(self):
        CLOCK[0] += SECONDS * NOISE.uniform(0.95, 1.05)

    def track_digest(self):
        return DIGEST
"""


@pytest.fixture
def asv(tmp_path, monkeypatch):
    """A repository with an asv suite in it, measured as often as `commit` is called."""
    pytest.importorskip("asv")
    monkeypatch.setenv("HOME", str(tmp_path))  # where asv keeps its machines
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    suite = tmp_path / "repository"
    (suite / "b").mkdir(parents=True)
    (suite / "b" / "__init__.py").touch()
    settings = {"version": 1, "project": "x", "repo": ".", "branches": ["main"], "benchmark_dir": "b"}
    (suite / "asv.conf.json").write_text(json.dumps(settings | {"environment_type": "existing"}))

    def call(*words, status=0):
        env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(words, cwd=suite, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr + done.stdout
        return done.stderr + done.stdout if status else done.stdout

    def asv(*words):
        return call(sys.executable, "-m", "asv", *words)

    def commit(seconds, digest):
        (suite / "b" / "bench_wait.py").write_text(
            SUITE.format(seconds=seconds, digest=digest, hangs_s=HANGS_S)
        )
        call("git", "add", "-A")
        call("git", "commit", "-qm", "x")
        head = call("git", "rev-parse", "HEAD").strip()
        asv("run", "--machine", "m", "-E", "existing:same", "--set-commit-hash", head)

    call("git", "init", "-q", "-b", "main", ".")
    specs = ("os", "arch", "cpu", "num_cpu", "ram")
    asv("machine", "--machine", "m", "--yes", *(word for s in specs for word in (f"--{s}", "1")))
    asv.commit, asv.call = commit, call
    return asv


@pytest.mark.parametrize(("after_s", "mark"), [(1.3e-3, "+"), (1e-3, "")])
def test_asv_flags_a_slowdown_of_thirty_percent(asv, after_s, mark):
    """By the factor of `make bench-compare`, on a clock of its own with five percent of noise."""
    factor = re.search(r"--factor (\S+)", (REPOSITORY / "Makefile").read_text())[1]
    asv.commit(1e-3, 1)
    asv.commit(after_s, 1)
    told = asv("compare", "--machine", "m", "--factor", factor, "HEAD~1", "HEAD")
    marks = {
        row.split("|")[5].strip(): row.split("|")[1].strip() for row in told.splitlines() if "Wait" in row
    }
    assert marks == {"bench_wait.Wait.time_step": mark, "bench_wait.Wait.track_digest": ""}, told
    digests = sys.executable, "-m", "benchmarks.digests"
    assert asv.call(*digests, "HEAD~1", "HEAD") == "same behaviour: 1 digest is equal\n"


def test_another_digest_is_noticed_where_asv_sees_the_same_number(asv):
    """Two of them within asv's factor; and where there is none to compare, that is no agreement."""
    asv.commit(1e-3, 1_000)
    asv.commit(1e-3, 1_001)
    factor = re.search(r"--factor (\S+)", (REPOSITORY / "Makefile").read_text())[1]
    told = asv("compare", "--machine", "m", "--factor", factor, "--only-changed", "HEAD~1", "HEAD")
    assert "track_digest" not in told
    digests = sys.executable, "-m", "benchmarks.digests"
    told = asv.call(*digests, "HEAD~1", "HEAD", status=1)
    assert told == "different behaviour, so that times say nothing: bench_wait.Wait.track_digest\n"
    asv.call("git", "commit", "-q", "--allow-empty", "-m", "x")
    told = asv.call(*digests, "HEAD~1", "HEAD", status=1)
    assert told == "no digest was measured of both commits: let SUITE include track_digest\n"
