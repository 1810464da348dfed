"""Outputs appear whole or not at all."""

import hashlib
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hftlab
from hftlab import codes, schema
from hftlab.errors import FormatError, OutputError
from hftlab.files import new_file
from hftlab.results.run_folder import RunWriter, manifest, write_run
from tests.conftest import HANGS_S, REPOSITORY

SAMPLE = REPOSITORY / "data" / "sample.parquet"
MANIFEST = {"digest": "ab", "counts": {"rows": 3}}


def outcomes(*statuses):
    return pa.table(
        [
            pa.array(range(len(statuses)), pa.int64()),
            schema.code_array(pa.array(statuses, pa.int8()), codes.Status),
            pa.array([0] * len(statuses), pa.int64()),
            pa.array([0] * len(statuses), pa.int64()),
        ],
        schema=schema.OUTCOMES,
    )


def symbols(*names):
    return pa.table({"symbol": pa.array(names).dictionary_encode()})


def test_a_run_folder_is_a_manifest_and_a_file_per_table(tmp_path):
    """Each table is a Parquet file with its schema, units included; the manifest counts the rows."""
    table = outcomes(0, 5, 1)
    write_run(tmp_path / "run", {"outcomes": table}, MANIFEST)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["manifest.json", "outcomes.parquet", "run"]
    back = pq.read_table(tmp_path / "run" / "outcomes.parquet")
    assert back.equals(table)
    assert back.schema.equals(schema.OUTCOMES, check_metadata=True)
    saved = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert saved == {**MANIFEST, "tables": {"outcomes": 3}}


def test_a_code_column_keeps_the_kernels_integers(tmp_path):
    """Codes come back as dictionaries whose indices are the codes, whichever of them occur."""
    write_run(tmp_path / "run", {"outcomes": outcomes(5, 2)}, MANIFEST)
    status = pq.read_table(tmp_path / "run" / "outcomes.parquet")["status"].chunk(0)
    assert status.indices.to_pylist() == [codes.Status.REJECTED, codes.Status.CANCELLED]


def test_a_replay_in_chunks_reads_its_tables_back(tmp_path):
    """They are those of a replay in memory, units and codes included; a damaged one is one line."""
    names = ("fills", "rejects", "outcomes", "l1")
    whole = hftlab.replay(SAMPLE, record=names)
    chunked = hftlab.replay(SAMPLE, record=names, chunk_rows=1_000, out=tmp_path / "run")
    for name in names:
        found, expected = chunked.to_arrow(name), whole.to_arrow(name)
        assert found.schema.equals(expected.schema, check_metadata=True)
        assert found.equals(expected)
    again = hftlab.replay(SAMPLE, record=names, chunk_rows=1_000, out=tmp_path / "damaged")
    path = tmp_path / "damaged" / "fills.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        FormatError, match=r"fills\.parquet: found broken Parquet data [^\n]*, expected a whole"
    ):
        again.to_arrow("fills")


def test_tables_are_written_in_parts(tmp_path):
    """Parts of one table, each with its own dictionary, end up as one; a table without rows is a file too."""
    with RunWriter(tmp_path / "run") as run:
        run.append("fills", symbols("A", "B"))
        run.append("fills", symbols("C"))
        run.append("rejects", symbols("A").slice(0, 0))
        run.commit(MANIFEST)
    assert pq.read_table(tmp_path / "run" / "fills.parquet")["symbol"].to_pylist() == ["A", "B", "C"]
    assert pq.read_table(tmp_path / "run" / "rejects.parquet").num_rows == 0
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["tables"] == {
        "fills": 3,
        "rejects": 0,
    }


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_run_that_stops_in_the_middle_leaves_nothing(tmp_path, stop):
    """An error, Ctrl-C or an exit before the commit removes what was written."""

    def write():
        with RunWriter(tmp_path / "run") as run:
            run.append("fills", symbols("A"))
            raise stop

    with pytest.raises(stop):
        write()
    assert list(tmp_path.iterdir()) == []


def test_forgetting_to_commit_leaves_nothing(tmp_path):
    """Only a commit makes a run folder."""
    with RunWriter(tmp_path / "run") as run:
        run.append("fills", symbols("A"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_an_existing_target_is_refused_and_untouched(tmp_path, kind):
    """Nothing is ever written over: not a folder, even an empty one, nor a file, nor a link to nowhere."""
    target = tmp_path / "run"
    {"folder": target.mkdir, "file": target.touch, "dangling link": lambda: target.symlink_to("x")}[kind]()
    with pytest.raises(OutputError, match="exists already; choose another output or remove it"):
        write_run(target, {"fills": symbols("A")}, MANIFEST)
    assert list(tmp_path.iterdir()) == [target]


def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path):
    """A folder made by somebody else while the run was written stays what it is."""

    def write():
        with RunWriter(tmp_path / "run") as run:
            (tmp_path / "run").mkdir()
            run.commit(MANIFEST)

    with pytest.raises(OutputError, match="exists already"):
        write()
    assert list(tmp_path.rglob("*")) == [tmp_path / "run"]


def test_a_parent_that_isn_t_there_is_named(tmp_path):
    """The error names the target and the missing folder."""
    with pytest.raises(OutputError, match=r"run: there is no folder .*nowhere to write it to"):
        write_run(tmp_path / "nowhere" / "run", {}, MANIFEST)


@pytest.mark.parametrize("target", ["run", "flow.parquet"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, target):
    """When the system refuses more bytes the error names target and cause, and nothing stays behind."""
    program = (
        "import resource, sys, numpy, pyarrow as pa, pyarrow.parquet as pq\n"
        "from hftlab.files import new_file\n"
        "from hftlab.results.run_folder import write_run\n"
        "from hftlab.errors import OutputError\n"
        "table = pa.table({'x': numpy.random.default_rng(1).integers(0, 2**62, 100_000)})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        "    if sys.argv[1].endswith('run'):\n"
        "        write_run(sys.argv[1], {'fills': table}, {})\n"
        "    else:\n"
        "        with new_file(sys.argv[1]) as path:\n"
        "            pq.write_table(table, path)\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / target], capture_output=True, text=True, timeout=HANGS_S
    )
    expected = f"{tmp_path / target}: can't be written: file too large; nothing was left behind\n"
    assert (done.stdout, done.stderr) == (expected, "")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    """A parent one may not write to is an error before any work is done."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match=f"run: the folder {tmp_path} isn't writable"):
        write_run(tmp_path / "run", {}, MANIFEST)


def test_a_new_file_replaces_an_old_one_only_when_it_is_whole(tmp_path):
    """A file is replaced in one step at the end; an error on the way leaves the old one."""
    target = tmp_path / "flow.parquet"
    target.write_text("old")

    def write(text, stop=None):
        with new_file(target) as path:
            assert path.suffix == ".parquet"
            path.write_text(text)
            if stop:
                raise stop

    with pytest.raises(RuntimeError):
        write("half", RuntimeError)
    assert target.read_text() == "old"
    write("new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_new_file_never_replaces_a_device():
    """`-o /dev/null` is refused: renaming over it would take the device away."""
    with pytest.raises(OutputError, match="/dev/null: is no regular file"), new_file("/dev/null"):
        pass


def test_the_manifest_says_what_a_run_was_made_from(tmp_path):
    """Input and its hash, settings, versions, machine, counts, digest, time per stage: all JSON."""
    source = tmp_path / "flow.csv"
    source.write_bytes(b"1,2,3\n")
    made = manifest(
        digest="ab", counts={"rows": 1}, wall_time_s={"run": 0.5}, input_path=source, config={"threads": 2}
    )
    assert json.loads(json.dumps(made)) == made
    assert made["input"] == {
        "path": str(source),
        "bytes": 6,
        "sha256": hashlib.sha256(b"1,2,3\n").hexdigest(),
    }
    assert set(made["versions"]) == {"hftlab", "python", "numba", "numpy", "polars", "pyarrow"}
    assert made["cpu"]
    assert manifest(digest="ab", counts={}, wall_time_s={})["input"] is None


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path, dead):
    """A folder of a process that is gone goes; of one that runs, of another target or name it stays."""
    gone, alive = tmp_path / f".run.partial-{dead}", tmp_path / f".run.partial-{os.getppid()}"
    others = [
        tmp_path / name for name in (f".other.partial-{dead}", f".run.partial-{dead}x", ".run.partial-")
    ]
    for folder in (gone, alive, *others):
        folder.mkdir()
        (folder / "fills.parquet").write_bytes(b"half")
    with RunWriter(tmp_path / "run"):
        assert not gone.exists()
        assert all(folder.exists() for folder in (alive, *others))
    assert alive.exists()


@pytest.mark.parametrize("name", ["flow.parquet", "f[1]?.arrow"])
def test_what_a_killed_conversion_left_is_removed_by_the_next(tmp_path, dead, name):
    """The same for single files, whatever their name."""
    stem, suffix = name.split(".")
    gone, alive = (tmp_path / f".{stem}.partial-{pid}.{suffix}" for pid in (dead, os.getppid()))
    gone.write_bytes(b"half")
    alive.write_bytes(b"half")
    with new_file(tmp_path / name) as path:
        path.write_bytes(b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((alive.name, name))
