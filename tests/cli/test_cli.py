"""The command line as people and programs meet it: what it prints, how it fails, what it leaves behind."""

import inspect
import json
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hftlab
from hftlab.cli import common
from hftlab.feeds import FEEDS, Fault
from tests.conftest import HANGS_S, REPOSITORY
from tests.helpers.interruptions import uninterrupted

SAMPLE = str(REPOSITORY / "data" / "sample.parquet")
COMMANDS = (
    *("generate", "inspect", "replay", "risk", "verify", "certify", "compare", "convert", "bench", "plot"),
)
LOBSTER_NAME = "TEST_2024-01-02_34200000_57600000_message_5.csv"
LOBSTER_ROWS = (
    "34200.000000001,1,11,100,1000000,1\n"
    "34200.000000002,1,12,50,1000100,-1\n"
    "34200.5,4,11,40,1000000,1\n"
    "34201,3,12,50,1000100,-1\n"
)


@pytest.fixture
def lobster(tmp_path):
    path = tmp_path / LOBSTER_NAME
    path.write_text(LOBSTER_ROWS)
    return str(path)


@pytest.fixture
def messy(tmp_path):
    """A flow with a row out of time order, an unknown and a duplicate id, a bad price and a bad quantity."""
    rows = [  # ts, action, order_id, side, price, qty
        (10, "NEW", 1, 1, 100, 5),
        (9, "NEW", 1, 1, 101, 5),
        (11, "CANCEL", 7, 1, 0, 0),
        (12, "NEW", 2, -1, -3, 5),
        (13, "NEW", 3, -1, 103, 0),
        (14, "CANCEL", 8, 1, 0, 0),
    ]
    columns = dict(
        zip(("ts", "action", "order_id", "side", "price", "qty"), zip(*rows, strict=True), strict=True)
    )
    columns["ts"] = pa.array(columns["ts"], pa.timestamp("ns", "UTC"))
    columns["price"] = pa.array([price * 10**9 for price in columns["price"]])
    path = tmp_path / "messy.parquet"
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)
    return str(path)


@pytest.fixture
def answer(run):
    """The JSON object a command prints when it is done."""

    def answer(*arguments):
        status, out, err = run(*arguments, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)

    return answer


def process(*arguments, **how):
    """Start a command as its own process."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **how}
    return subprocess.Popen([sys.executable, "-m", "hftlab", *map(str, arguments)], **how)


def assert_one_line(err):
    """An error is one line that begins with the program's name."""
    assert err.startswith("hftlab: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


# what is printed


def test_version(run):
    """--version names the program and its version."""
    assert run("--version") == (0, f"hftlab {hftlab.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_of_80_columns_breaks_no_line_early(command):
    """A help keeps the line ends of its docstring, so those of a paragraph stay within 78 columns."""
    from hftlab.cli import app

    (callback,) = [each.callback for each in app.registered_commands if each.callback.__name__ == command]
    paragraphs = [text.splitlines() for text in inspect.getdoc(callback).split("\n\n")]
    plain = [lines for lines in paragraphs if not lines[0].startswith("Example:")]
    assert [line for lines in plain if len(lines) > 1 for line in lines if len(line) > 78] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(run, command):
    """The help of every command shows how it is used."""
    status, out, _ = run(command, "--help")
    assert status == 0
    assert f"Example: hftlab {'replay' if command == 'plot' else command}" in out


def test_nothing_asked_is_answered_with_help(run):
    """Without a command the help is printed, and the status says that nothing was done."""
    status, out, _ = run()
    assert status == 2
    assert all(command in out for command in COMMANDS)


def test_replay_accounts_for_every_row(run, answer):
    """The summary has every row as accepted or rejected, and the table shows the same numbers and digest."""
    summary = answer("replay", SAMPLE)
    assert summary["accepted"] + summary["rejected"] == summary["rows"] == 50_000
    assert sum(summary["reasons"].values()) == summary["rejected"]
    assert sum(summary["statuses"].values()) == summary["accepted"]
    status, out, err = run("replay", SAMPLE)
    assert (status, err) == (0, "")
    for shown in (f"{summary['accepted']:,}", f"{summary['fills']:,}", summary["digest"], "SYM000"):
        assert shown in out


@pytest.mark.parametrize("mode", ["match", "rebuild"])
@pytest.mark.parametrize("command", ["replay", "inspect", "certify"])
def test_a_number_is_folded_where_there_is_no_room_for_it(run, tmp_path, command, mode):
    """None is cut: what an ellipsis replaces may be most of it."""
    lots, price = 2**62 - 1, 9_007_199_254_740_993
    facts = {"action": ["A"] * 2, "side": [1, -1], "price": [price - 10**7, price], "size": [lots, lots - 7]}
    table = {
        "symbol": ["A-LONG-SYMBOL-OF-A-SPREAD"] * 2,
        "order_id": pa.array([1, 2], "u8"),
        "ts_event": [1, 2],
    }
    table |= facts
    pq.write_table(pa.table(table), path := tmp_path / "wide.parquet")
    options = ("--mode", mode) if command == "replay" else ()
    status, out, _ = run(command, path, *options)
    assert (status, "…" in out) == (0, False)
    if command == "replay":
        assert ("fills" in out.partition("Best prices")[2]) == (mode == "match")


@pytest.mark.parametrize(
    "command",
    [
        ("inspect",),
        ("replay",),
        ("replay", "--mode", "rebuild"),
        ("replay", "--mode", "rebuild", "--chunk-rows", "1"),
        ("verify",),
        ("certify",),
        ("convert", "--to", "orders", "-o", "out.parquet"),
    ],
)
def test_what_is_wrong_with_a_table_names_the_file(run, tmp_path, command):
    """Column, row, found and expected, of which file: whoever looks at the table first."""
    facts = {"ts_event": [1], "order_id": pa.array([1], "u8"), "side": ["B"], "price": [10], "size": [1]}
    pq.write_table(pa.table(facts | {"action": ["Q"]}), path := tmp_path / "odd.parquet")
    status, _, err = run(*command, path)
    assert status == 1
    assert err.startswith(f"hftlab: error: {path}: mbo table: 1 problem: column action, row 0: found 'Q', ")


def test_replay_fits_a_hundred_columns(run, monkeypatch):
    """What is printed into a pipe is at most 100 columns wide."""
    for command in ("replay", "inspect", "verify"):
        _, out, _ = run(command, SAMPLE)
        assert max(len(line) for line in out.splitlines()) <= 100


def test_symbols_are_filtered_and_the_others_counted(answer):
    """Rows of other symbols are skipped, not lost."""
    summary = answer("replay", SAMPLE, "--symbols", "SYM001,SYM003")
    assert summary["rows"] + summary["skipped"] == 50_000
    assert 0 < summary["rows"] < 50_000


def test_a_replay_in_chunks_makes_no_table_that_nobody_sees(run, answer, monkeypatch):
    """Without --out its memory doesn't grow with the file."""
    whole = answer("replay", SAMPLE)
    made = []
    for name in ("fills", "outcomes", "l1"):
        monkeypatch.setattr(f"hftlab.results.tables.{name}_table", lambda *_: made.append(1))
    monkeypatch.setattr(common, "load_kernels", lambda *_: 0.0)
    how = ("--record", "fills,outcomes,l1", "--chunk-rows", "7_001")
    assert answer("replay", SAMPLE, *how)["digest"] == whole["digest"]
    assert run("replay", SAMPLE, *how)[0] == 0
    assert made == []


@pytest.mark.parametrize(
    "how", [("--path", "event"), ("--threads", "2"), ("--chunk-rows", "7_001"), ("--record", "l1,depth,book")]
)
def test_every_way_to_replay_has_one_digest(answer, how):
    """Path, threads, chunks and what is recorded change nothing in the result."""
    assert answer("replay", SAMPLE, *how)["digest"] == answer("replay", SAMPLE)["digest"]


def test_options_come_before_variables_before_the_file(answer, tmp_path, monkeypatch):
    """The command line wins over the environment, which wins over --config."""
    config = tmp_path / "cfg.toml"
    config.write_text('[replay]\nthreads = 2\npath = "event"\ndepth = 3\n')
    monkeypatch.setenv("HFTLAB_REPLAY__THREADS", "3")
    monkeypatch.setenv("HFTLAB_REPLAY__DEPTH", "4")
    summary = answer("replay", SAMPLE, "--config", config, "--depth", "5")
    assert (summary["path"], summary["threads"], summary["depth"]) == ("event", 3, 5)


def test_a_run_folder_has_what_was_recorded(answer, run, tmp_path):
    """--out writes the recorded tables and the manifest, whose counts and digest are the summary's."""
    out = tmp_path / "run"
    summary = answer("replay", SAMPLE, "--record", "fills,rejects,l1", "--out", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "fills.parquet", "l1.parquet", "manifest.json", "rejects.parquet",
    ]  # fmt: skip
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["digest"] == summary["digest"]
    assert manifest["tables"]["fills"] == summary["fills"] == pq.read_metadata(out / "fills.parquet").num_rows
    assert manifest["tables"]["rejects"] == summary["rejected"]
    status, printed, _ = run("plot", out)
    picture = tmp_path / "run.png"
    assert (status, printed) == (0, f"{picture}\n")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_positions_are_shown_where_they_are_recorded(run, tmp_path):
    """Ten of those that traded most, in one piece and in chunks; without --record positions none."""
    flow = tmp_path / "flow.parquet"
    columns = {"action": ["NEW"] * 24, "order_id": [*range(1, 25)], "side": [1, -1] * 12, "qty": [5] * 24}
    accounts = [account for pair in range(12) for account in (pair, 99)]
    pq.write_table(pa.table(columns | {"price": [10_500_000_000] * 24, "account": accounts}), flow)
    for more in ((), ("--chunk-rows", "7")):
        status, out, _ = run("replay", flow, "--record", "positions", *more)
        assert status == 0
        _, _, table = out.partition("Positions at the end, 10 of 13\n")
        lines = [line.split() for line in table.splitlines()[2:]]
        assert lines[0] == ["DEFAULT", "99", "-60", "10.50", "0.00", "0.00", "0.00", "-"]
        assert (len(lines), lines[1][2:4]) == (10, ["5", "10.50"])
    assert "Positions" not in run("replay", flow)[1]


def test_verify_compares_every_way(run, answer):
    """verify says for each way to replay whether its digest is that of the batch."""
    found = answer("verify", SAMPLE)
    assert found["ok"] is True
    assert {row["digest"] for row in found["rows"] if row["commands"] == 50_000} == {
        answer("replay", SAMPLE)["digest"]
    }
    status, out, _ = run("verify", SAMPLE)
    assert status == 0
    assert "every way agrees" in out


def test_a_difference_is_exit_status_1(run, monkeypatch):
    """When one way differs, verify names it and the answer is no."""
    from hftlab.fidelity.verification import Check, Verification

    rows = (Check("batch", 9, "ab", True, 0.1), Check("event by event", 9, "cd", False, 0.1))
    monkeypatch.setattr(hftlab, "verify", lambda *_, **__: Verification(rows))
    status, out, _ = run("verify", SAMPLE)
    assert status == 1
    assert "DIFFERS" in out
    assert "1 of 2 ways differ" in out


def test_inspect_says_what_is_wrong(answer, run, messy):
    """Rows out of time order and every would-be reject are counted, with the first row of each reason."""
    found = answer("inspect", messy)
    assert (found["rows"], found["accepted"], found["rejected"]) == (6, 1, 5)
    assert found["rows_out_of_time_order"] == 1
    assert (found["first_ts"], found["last_ts"]) == (9, 14)
    assert {(t["kind"], t["rows"], t["first_row"]) for t in found["troubles"]} == {
        ("DUPLICATE_ORDER", 1, 1),
        ("UNKNOWN_ORDER", 2, 2),
        ("INVALID_PRICE", 1, 3),
        ("INVALID_QTY", 1, 4),
    }
    _, out, _ = run("inspect", messy)
    assert "earlier than the row before" in out
    assert "refused: UNKNOWN_ORDER" in out


def test_inspect_says_what_is_there(answer):
    """Instruments with rows, price range and tick; actions add up to the rows."""
    found = answer("inspect", SAMPLE)
    assert sum(found["actions"].values()) == found["rows"] == 50_000
    assert found["instruments"][0]["symbol"] == "SYM000"
    assert sum(instrument["rows"] for instrument in found["instruments"]) == 50_000
    assert {instrument["tick_size"] for instrument in found["instruments"]} == {10_000_000}


def test_any_command_takes_any_source(run, answer, lobster, tmp_path):
    """A LOBSTER file is inspected, rebuilt, matched and verified as it is, and converted to both tables."""
    assert answer("inspect", lobster)["kind"] == "mbo"
    assert answer("replay", lobster, "--mode", "rebuild")["fills"] == 0
    matched = answer("replay", lobster)
    assert (matched["fills"], matched["filled_qty"]) == (1, 40)
    assert answer("verify", lobster, "--mode", "rebuild")["ok"]
    orders = tmp_path / "orders.arrow"
    assert answer("convert", lobster, "-o", orders, "--to", "orders")["kind"] == "orders"
    assert answer("replay", orders)["digest"] == matched["digest"]
    mbo = tmp_path / "mbo.parquet"
    answer("convert", lobster, "-o", mbo)
    rebuilt = answer("replay", mbo, "--mode", "rebuild")
    assert rebuilt["digest"] == answer("replay", lobster, "--mode", "rebuild")["digest"]


def test_convert_keeps_chosen_symbols(run, answer, tmp_path):
    """Only rows of the chosen symbols are written."""
    target = tmp_path / "two.parquet"
    rows = answer("convert", SAMPLE, "-o", target, "--symbols", "SYM001,SYM003")["rows"]
    table = pq.read_table(target)
    assert table.num_rows == rows
    assert set(table["symbol"].to_pylist()) == {"SYM001", "SYM003"}


def test_generate_makes_the_same_file_again(run, tmp_path):
    """The same numbers give the same bytes, whatever the file is called."""
    for name in ("a.parquet", "b.parquet"):
        status, out, err = run("generate", "-o", tmp_path / name, "--messages", "5_000", "--symbols", "3")
        assert (status, err) == (0, "")
        assert "5,000 commands over 3 symbols" in out
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


# how it fails


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("frobnicate",), "No such command"),
        (("replay",), "Missing argument"),
        (("replay", SAMPLE, "--speed", "9"), "No such option"),
        (("replay", SAMPLE, "--mode", "fast"), "--mode: found 'fast', expected match or rebuild"),
        (("replay", SAMPLE, "--path", "fast"), "--path: found 'fast', expected batch or event"),
        (("replay", SAMPLE, "--threads", "0"), "--threads: found '0', expected a whole number of 1 or more"),
        (("replay", SAMPLE, "--depth", "1001"), "--depth: found '1001', expected a whole number from 1 to"),
        (("replay", SAMPLE, "--record", "fill"), "record: found 'fill', expected one of fills, rejects"),
        (("replay", SAMPLE, "--tick-size", "wide"), "tick_size: found 'wide', expected"),
        (("replay", SAMPLE, "--mode", "rebuild"), "sample.parquet: found orders"),
        (("replay", SAMPLE, "--config", "nowhere.toml"), "nowhere.toml: found no such file or directory"),
        (("replay", SAMPLE, "--format", "morse"), "'morse', expected one of"),
        (("replay", "nowhere.csv"), "nowhere.csv: there is no such file"),
        (("replay", SAMPLE, "--symbols", ","), "name no instrument"),
        (("generate", "-o", "flow.csv"), "flow.csv: found the suffix .csv, expected"),
        (("generate",), "Missing option"),
        (("convert", SAMPLE, "-o", SAMPLE), "is the source itself"),
        (("convert", SAMPLE, "-o", "x.parquet", "--to", "mbo"), "found commands (orders), expected facts"),
        (("convert", SAMPLE, "-o", "x.parquet", "--symbols", "NONE"), "found no rows of NONE"),
        (("plot", "data", "-o", "x.gif"), "x.gif: found the suffix '.gif', expected .png, .svg or .pdf"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(run, tmp_path, monkeypatch, arguments, said):
    """Whatever is wrong with a command, one line says what was found and expected, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert_one_line(err)
    assert said in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.parquet", b"", "an empty file"),
        ("cut.parquet", Path(SAMPLE).read_bytes()[:5000], "cut.parquet: found"),
        ("other.bin", b"\x00\x01\x02 not a flow\n", "not recognised"),
        (LOBSTER_NAME, LOBSTER_ROWS.replace("40", "4O").encode(), "line 3: found"),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "replay", "verify", "convert"])
def test_a_broken_file_is_one_line_and_status_1(run, tmp_path, command, name, content, said):
    """A file that is broken or isn't what its name says is named, whichever command meets it."""
    path = tmp_path / name
    path.write_bytes(content)
    status, out, err = run(command, path, *(("-o", tmp_path / "x.parquet") if command == "convert" else ()))
    assert (status, out) == (1, "")
    assert_one_line(err)
    assert said in err
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_out_is_refused_before_the_work(run, tmp_path):
    """A run folder never goes over anything that is there."""
    status, out, err = run("replay", SAMPLE, "--out", tmp_path)
    assert (status, out) == (1, "")
    assert_one_line(err)
    assert "exists already" in err
    status, _, err = run("replay", SAMPLE, "--out", tmp_path / "no" / "run")
    assert status == 1
    assert "there is no folder" in err


@pytest.mark.parametrize(
    ("trouble", "status", "said"),
    [
        (MemoryError(), 1, "not enough memory"),
        (OSError(5, "Input/output error", "disk"), 1, "disk: input/output error"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was left behind"),
        (RuntimeError("two\nlines"), 1, "this is a bug in hftlab: RuntimeError: two lines"),
    ],
)
def test_even_the_unforeseen_is_one_line(run, monkeypatch, trouble, status, said):
    """Memory, disk, Ctrl-C or a bug: one line each, with the right status."""

    def fail(*_, **__):
        raise trouble

    monkeypatch.delenv("HFTLAB_TRACEBACK", raising=False)
    monkeypatch.setattr(hftlab, "open_flow", fail)
    found, out, err = run("replay", SAMPLE)
    assert (found, out) == (status, "")
    assert_one_line(err)
    assert said in err


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "-o", "flow.parquet", "--messages", "100_000"),
        ("convert", SAMPLE, "-o", "flow.parquet"),
        ("convert", SAMPLE, "-o", "flow.arrow"),
        ("replay", SAMPLE, "--record", "outcomes", "--out", "run"),
        ("replay", SAMPLE, "--record", "outcomes", "--out", "run", "--chunk-rows", "5_000"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, arguments):
    """When the system refuses to write more, the target is named and no part of it stays."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    child = process(*arguments, cwd=tmp_path, preexec_fn=limit_file_size, env=environment)
    out, err = child.communicate(timeout=HANGS_S)
    assert (child.returncode, out) == (1, "")
    assert_one_line(err)
    assert "can't be written: file too large; nothing was left behind" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_replay_leaves_nothing(tmp_path, run, sent, status):
    """Ctrl-C (or a polite kill) in the middle of writing ends with the right status and no trace."""
    flow = tmp_path / "flow.parquet"
    assert run("generate", "-o", flow, "--messages", "500_000")[0] == 0
    target = tmp_path / "run"
    for _ in uninterrupted():
        child = process("replay", flow, "--chunk-rows", "500", "--record", "outcomes", "--out", target)
        wait_for(lambda: any(tmp_path.glob(".run.partial-*/outcomes.parquet")) or target.exists(), child)
        child.send_signal(sent)
        out, err = child.communicate(timeout=HANGS_S)
        if not target.exists():
            break
        shutil.rmtree(target)  # it was done before the signal came
    assert (child.returncode, out) == (status, "")
    assert err == ("hftlab: error: interrupted; nothing was left behind\n" if sent == signal.SIGINT else "")
    assert list(tmp_path.iterdir()) == [flow]


def wait_for(condition, child):
    """Until something is so, while the child runs."""
    deadline = time.monotonic() + HANGS_S
    while not condition():
        assert child.poll() is None or condition(), child.communicate()
        assert time.monotonic() < deadline
        os.sched_yield()


@pytest.mark.parametrize("shown", [("--json",), ()])
def test_a_reader_that_leaves_is_no_error(shown):
    """When the other end of the pipe is closed, the command ends quietly, as other programs do."""
    reading, writing = os.pipe()
    os.close(reading)
    child = process("inspect", SAMPLE, *shown, stdout=writing)
    os.close(writing)
    _, err = child.communicate(timeout=HANGS_S)
    assert (child.returncode, err) == (141, "")


def test_progress_is_for_terminals(tmp_path):
    """On a terminal stderr shows a bar while it takes long; in a pipe nothing at all."""
    arguments = ("generate", "-o", tmp_path / "flow.parquet", "--messages", "3_000_000")
    child = process(*arguments)
    assert (child.wait(timeout=HANGS_S), child.stderr.read()) == (0, "")
    terminal, slave = pty.openpty()
    child = process(*arguments, stderr=slave)
    os.close(slave)
    shown = read_all(terminal)
    assert child.wait(timeout=HANGS_S) == 0
    assert re.search(r"generating.*\d/3,?000,?000", shown)


def read_all(terminal):
    """Everything a terminal was sent, until its last user is gone."""
    parts = []
    try:
        while part := os.read(terminal, 1 << 16):
            parts.append(part)
    except OSError:  # how Linux says that nobody has it open any more
        pass
    os.close(terminal)
    return b"".join(parts).decode()


# certify


def test_certify_says_how_far_a_replay_can_be_trusted(run, answer, lobster):
    """Shares, causes and counts; the page has the same."""
    found = answer("certify", lobster)
    assert (found["executions"], found["reproduced"], found["execution_share"]) == (1, 1, 1.0)
    assert found["first_divergence"] is None
    page = Path(lobster).with_name("page.html")
    status, out, _ = run("certify", lobster, "--page", page)
    assert status == 0
    assert "executions reproduced exactly" in out
    assert "100.00%" in out
    assert page.read_text().startswith("<!doctype html>")


def test_certify_shows_the_first_divergence(run, tmp_path):
    """At a hundred columns, with a mark at the row it is about."""
    path = tmp_path / LOBSTER_NAME
    path.write_text(LOBSTER_ROWS.replace("34200.5,4,11,40", "34200.5,4,99,40"))
    status, out, _ = run("certify", path)
    assert status == 0
    assert "INITIAL_BOOK" in out
    assert "The first divergence" in out
    assert re.search(r"^ > +2 +F +buy +100.00 +40 +99 *$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 100


def test_certify_says_what_the_feed_met(run, answer, lobster, monkeypatch):
    """Damage and quirks stand in the table and in the JSON; the page has them too."""
    opened = hftlab.open_flow

    def damaged(*arguments, **options):
        flow = opened(*arguments, **options)
        flow.faults.append(Fault("byte 1,234", "half a message", "19 bytes"))
        flow.notes.append("a quirk")
        return flow

    monkeypatch.setattr(hftlab, "open_flow", damaged)
    _, out, _ = run("certify", lobster)
    assert "damaged: byte 1,234: found half a message, expected 19 bytes" in out
    assert "a quirk" in out
    told = answer("certify", lobster)
    assert told["faults"] == ["byte 1,234: found half a message, expected 19 bytes"]
    assert "a quirk" in told["notes"]


def test_commands_can_t_be_certified(run):
    """Nobody says in them what the venue did."""
    status, _, err = run("certify", SAMPLE)
    assert status == 2
    assert_one_line(err)
    assert "found commands (orders), expected facts (mbo)" in err


# risk


@pytest.fixture
def limits(tmp_path):
    """Two files of limits, a loose and a tight one."""
    paths = tmp_path / "loose.toml", tmp_path / "tight.toml"
    paths[0].write_text("[risk]\nmax_order_qty = 2000\n")
    paths[1].write_text(
        '[trading]\ncapital = "20000"\n[risk]\nmax_order_qty = 500\nmax_position_size = 2000\n'
        'stop_loss_percentage = 2\nstop_loss_action = "close"\nself_trade = "decrement"\n'
    )
    return [part for path in paths for part in ("--limits", path)]


def test_risk_compares_sets_of_limits(run, answer, limits):
    """The JSON has what the tables show, at most a hundred columns wide; the first set is that of no gate."""
    found = answer("risk", SAMPLE, *limits, "--account", "5")
    assert [each["name"] for each in found["sets"]] == ["none", "loose", "tight"]
    none, _, tight = found["sets"]
    assert none["digest"] == answer("replay", SAMPLE)["digest"]
    assert none["refused"] == {}
    assert [row["set"] for row in found["account"]] == ["none", "loose", "tight"]
    status, out, err = run("risk", SAMPLE, *limits, "--account", "5")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 100
    refused = sum(part["orders"] for part in tight["refused"].values())
    for shown in (f"{refused:,}", f"{tight['fills']:,}", "MAX_POSITION", "What stops account 5 first"):
        assert shown in out
    assert found["account"][0]["first"] is None
    assert found["account"][2]["first"]["reason"] == "MAX_ORDER_QTY"
    assert "limit 500 lots, found" in " ".join(out.split())


def test_risk_writes_what_it_found(run, tmp_path, limits):
    """All tables as a folder, or the table of sets as a file; an existing folder is refused at once."""
    assert run("risk", SAMPLE, *limits, "--out", tmp_path / "risk")[0] == 0
    names = {path.name for path in (tmp_path / "risk").iterdir()}
    assert names == {f"{n}.parquet" for n in ("sets", "rejects", "accounts", "first")} | {"manifest.json"}
    assert run("risk", SAMPLE, *limits, "--out", tmp_path / "sets.csv")[0] == 0
    assert run("risk", SAMPLE, *limits, "--out", tmp_path / "sets.parquet")[0] == 0
    sets = pq.read_table(tmp_path / "sets.parquet")
    assert sets == pq.read_table(tmp_path / "risk" / "sets.parquet")
    assert (tmp_path / "sets.csv").read_text().splitlines()[0].split(",") == sets.column_names
    status, out, err = run("risk", SAMPLE, *limits, "--out", tmp_path / "risk")
    assert (status, out) == (1, "")
    assert_one_line(err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((SAMPLE,), "Missing option '--limits'"),
        ((SAMPLE, "--limits", "none.toml"), "none.toml: found no such file or directory"),
        ((SAMPLE, "--limits", "wrong.toml"), "wrong.toml, risk.max_order_qty: found -1"),
        ((SAMPLE, "--limits", "unknown.toml"), "found the symbol 'XYZ', expected one of the flow"),
        ((SAMPLE, "--limits", "right.toml", "--account", "99"), "--account: found 99, expected an account"),
        ((SAMPLE, "--limits", "right.toml", "--account", "x"), "--account: "),
        ((SAMPLE, "--limits", "right.toml", "--threads", "0"), "--threads: found '0'"),
        ((SAMPLE, "--limits", "right.toml", "--out", "x.xls"), "found the suffix '.xls', expected .csv"),
        ((SAMPLE, "--limits", "right.toml", "--symbols", "NO"), "found no rows of NO"),
    ],
)
def test_a_wrong_risk_is_one_line_and_status_2(run, tmp_path, monkeypatch, arguments, said):
    """Whatever is wrong, and nothing is written."""
    files = {
        "wrong.toml": "[risk]\nmax_order_qty = -1\n",
        "right.toml": "[risk]\nmax_order_qty = 1\n",
        "unknown.toml": "[risk.symbols.XYZ]\nrestricted = true\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    status, out, err = run("risk", *arguments)
    assert (status, out) == (2, "")
    assert_one_line(err)
    assert said in err
    assert {path.name for path in tmp_path.iterdir()} == set(files)


# options of a feed


def test_help_names_every_format():
    """The list in the help is the registry's."""
    assert set(common.FORMATS) == set(FEEDS)


@pytest.mark.parametrize("option", ["nothing", "=x", "a..b=1", ".a=1"])
def test_an_option_needs_a_name_and_a_value(run, lobster, option):
    """-O NAME=VALUE or GROUP.NAME=VALUE."""
    status, _, err = run("inspect", lobster, "-O", option)
    assert status == 2
    assert_one_line(err)
    assert f"found '{option}', expected NAME=VALUE or GROUP.NAME=VALUE" in err


def test_an_option_the_feed_does_not_know(run, lobster):
    """The feed says which it takes."""
    status, _, err = run("inspect", lobster, "-O", "colour=red")
    assert status == 2
    assert "option 'colour' means nothing to LOBSTER" in err


@pytest.mark.parametrize("option", ["symbols=TEST", "path=x"])
def test_an_option_that_is_the_command_s(run, lobster, option):
    """Not a traceback of what calls the feed."""
    status, _, err = run("inspect", lobster, "-O", option)
    assert status == 2
    assert_one_line(err)
    assert "which is no option of a feed, expected " in err


def test_an_option_that_is_no_text(run, lobster):
    """-O symbol.x=1 is a group of options."""
    status, _, err = run("inspect", lobster, "-O", "symbol.x=1")
    assert status == 2
    assert "symbol: found {'x': '1'}, expected a name" in err


def test_options_may_come_from_a_file(run, tmp_path):
    """[feed] in TOML; what the command line says goes first."""
    (path := tmp_path / "flow.csv").write_text(LOBSTER_ROWS)
    (tmp_path / "feed.toml").write_text('[feed]\nformat = "lobster"\nsymbol = "ABC"\ndate = "2024-01-02"\n')
    status, out, err = run("inspect", path, "--config", tmp_path / "feed.toml", "-O", "symbol=XYZ")
    assert (status, err) == (0, "")
    assert "XYZ" in out


def test_damage_makes_inspect_say_no(run, monkeypatch, lobster):
    """Exit status 1, and the place: what is whole was inspected all the same."""
    open_flow = hftlab.open_flow

    def damaged(*arguments, **options):
        flow = open_flow(*arguments, **options)
        flow.faults.append(Fault("byte 1,234", "half a message", "19 bytes", 3))
        return flow

    monkeypatch.setattr(hftlab, "open_flow", damaged)
    status, out, _ = run("inspect", lobster)
    assert status == 1
    assert "damaged: byte 1,234: found half a message, expected 19 bytes (3 times, the first here)" in out
    assert "TEST" in out


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.9999, "1 s"),
        (0.99949, "999 ms"),
        (59.9, "59.9 s"),
        (1e-9, "1 ns"),
        (99.99, "100 s"),
        (7_322, "2 h 2 min"),
    ],
)
def test_durations_are_told_in_the_unit_a_person_would_choose(seconds, said):
    """Never a thousand of the smaller unit."""
    assert common.duration(seconds) == said
