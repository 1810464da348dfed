"""Commands as processes of their own: how they end, how long that takes, what they print where."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import broken_runs
from tests.conftest import REPOSITORY

SAMPLE = str(REPOSITORY / "data" / "sample.parquet")


def program(code, *arguments, **how):
    """A program of Python; what it printed and how it ended."""
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, **how)


@pytest.fixture
def symbols(tmp_path):
    """A flow of an instrument whose name has letters that ASCII hasn't."""
    columns = {"symbol": ["Ä€"] * 2, "action": ["NEW"] * 2, "order_id": [1, 2]}
    columns |= {"side": [1, -1], "price": [10**9] * 2, "qty": [1, 1]}
    pq.write_table(pa.table(columns), tmp_path / "symbols.parquet")
    return tmp_path / "symbols.parquet"


# how they end


@pytest.mark.parametrize("file", ["word.csv", "cut.csv", "broken.ndjson", "half.parquet"])
def test_a_short_process_on_broken_input_ends_with_its_own_status(tmp_path, file):
    """Four runs each: in two of six the interpreter aborted on its way out, after the right message."""
    broken_runs.write_inputs(tmp_path)
    for _ in range(4):
        done = broken_runs.run(("inspect", str(tmp_path / file)))
        assert broken_runs.is_right(done), done


def test_leaving_takes_a_fifth_of_a_second_at_most(tmp_path):
    """From the message to the end of the process; the shortest of five, for others use the machine too."""
    broken_runs.write_inputs(tmp_path)
    done = [broken_runs.run(("inspect", str(tmp_path / "word.csv"))) for _ in range(5)]
    assert min(run.leaving_s for run in done) <= 0.2


def test_what_was_registered_to_run_at_exit_runs():
    """Such as coverage's report, and what removes temporary folders; and what was printed is there."""
    code = (
        "import atexit, sys\n"
        "from hftlab.process import leave\n"
        "atexit.register(print, 'registered')\n"
        "print('printed')\n"
        "leave(7)\n"
    )
    done = program(code)
    assert (done.returncode, done.stdout.split(), done.stderr) == (7, ["printed", "registered"], "")


def test_under_a_profiler_the_process_ends_in_the_usual_way():
    """A profiler writes what it found after the program."""
    code = "import cProfile\nfrom hftlab.process import leave\ncProfile.run('leave(3)')"
    assert "function calls" in program(code).stdout


def test_a_full_disk_behind_stdout_is_one_line():
    """The flush that fails is told once; the last one, on the way out, is quiet."""
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "hftlab", "--version"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "hftlab: error: no space left on device\n")


@pytest.mark.parametrize("stream", [1, 2])
def test_a_closed_stream_is_no_error(stream):
    """stdout or stderr closed by whoever started the command."""
    shell = f'exec "$0" -m hftlab inspect "$1" {stream}>&-'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, SAMPLE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_of_stderr_that_has_left_is_a_broken_pipe(tmp_path):
    """The status is that of the signal, as for stdout."""
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "hftlab", "inspect", str(tmp_path / "missing.csv")]
    assert subprocess.run(words, stderr=writer, check=False).returncode == 128 + signal.SIGPIPE
    os.close(writer)


def test_ctrl_c_on_the_way_out_does_not_keep_the_process():
    """It has its status already."""
    code = (
        "import atexit, os, signal, sys\n"
        "from hftlab.process import leave\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "leave(1)\n"
    )
    assert program(code).returncode == 1


def test_a_traceback_that_was_asked_for_is_one(tmp_path):
    """HFTLAB_TRACEBACK=1 shows where; the status is 1."""
    code = (
        "import hftlab.cli as cli\n"
        "def bad(arguments): raise ZeroDivisionError('here')\n"
        "cli._run = bad\n"
        "from hftlab.__main__ import main\n"
        "main()\n"
    )
    done = program(code, env=os.environ | {"HFTLAB_TRACEBACK": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: here" in done.stderr


# what they print where


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("name", ["replay", "inspect", "verify"])
def test_output_in_a_narrow_encoding_is_escaped(symbols, name, encoding):
    """A terminal without the letters of a symbol's name gets escapes, and no error."""
    words = [sys.executable, "-m", "hftlab", name, str(symbols)]
    env = os.environ | {"PYTHONIOENCODING": encoding, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(words, capture_output=True, encoding=encoding, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    if name != "verify":
        assert "\\u20ac" in done.stdout


def test_a_warning_is_one_line(tmp_path):
    """With the program's name, as an error is: here of a cache folder that can't be made."""
    (tmp_path / "file").write_text("")
    code = (
        "import warnings\n"
        "import hftlab.cli as cli\n"
        "cli._run = lambda arguments: warnings.warn('two\\nlines', RuntimeWarning) or 0\n"
        "from hftlab.__main__ import main\n"
        "main()\n"
    )
    done = program(code)
    assert (done.returncode, done.stderr) == (0, "hftlab: warning: two lines\n")


def test_leaving_waits_for_nothing(tmp_path):
    """A thread that has not ended does not keep the process."""
    code = (
        "import threading, time\n"
        "from hftlab.process import leave\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "leave(0)\n"
    )
    started = time.perf_counter()
    assert program(code).returncode == 0
    assert time.perf_counter() - started < 30
