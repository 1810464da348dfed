"""Results of `hftlab bench`: their digest, their files, two of them compared, the command, the page."""

import json
import re

import msgspec
import numpy as np
import pytest

import hftlab
from hftlab.benchmark import session, targets, tasks, ways
from hftlab.benchmark.cases import Case
from hftlab.benchmark.flows import make_flow
from hftlab.benchmark.machine import Idle
from hftlab.benchmark.measure import measure
from hftlab.benchmark.records import Cold, Latency, Measurement, Start, read_report, spread
from hftlab.benchmark.report.comparison import compare_reports, rank_test
from hftlab.benchmark.report.page import page, panels
from hftlab.benchmark.report.tables import latency_rows, target_rows
from hftlab.benchmark.session import bench
from hftlab.cli import common
from hftlab.errors import FormatError, MeasurementError, UsageError
from hftlab.latency.histogram import Histogram
from tests.helpers.bench_results import DIGEST, OTHER, QUIET, TIMES, measurement, report, slower

ORDERS = 2_000


# -- the digest


def test_no_measurement_without_a_digest():
    """Neither left out, nor empty, nor a placeholder."""
    whole = measurement()
    fields = {name: getattr(whole, name) for name in whole.__struct_fields__ if name != "digest"}
    with pytest.raises(TypeError, match="digest"):
        Measurement(**fields)
    for digest in ("", "-", "0" * 31, "G" * 32):
        with pytest.raises(UsageError, match=r"found digest .* expected 32 hexadecimal digits"):
            Measurement(**fields, digest=digest)
    with pytest.raises(UsageError, match="found no repetition"):
        measurement(times=())


def test_repetitions_that_differ_are_no_result(monkeypatch):
    """A run that gives another digest the next time has no speed."""
    digests = iter([DIGEST, OTHER])
    monkeypatch.setitem(ways.WAYS, "batch", lambda prepared: (1.0, lambda: next(digests)))
    with pytest.raises(MeasurementError, match=f"digest {OTHER} in one repetition, expected {DIGEST}"):
        measure(Case(orders=ORDERS), repetitions=3)


def test_paths_that_differ_are_no_result():
    """A faster path that does something else is named, beside the one it must agree with."""
    one, other = measurement(Case()), measurement(Case(path="event"), OTHER)
    session.require_agreement([one, measurement(Case(risk=True), OTHER)])
    with pytest.raises(MeasurementError, match=r"case event market 1M x1: found .* batch market 1M x1"):
        session.require_agreement([one, other])


# -- files


def test_a_result_is_read_as_it_was_written(tmp_path):
    """With cases, digests, machine, cold starts and targets."""
    start = Start(process_s=2.0, import_s=0.2, first_call_s=1.5)
    row = {"name": "mean", "verdict": "met"}
    whole = report(measurement(cold=Cold(cached=start, compiled=None)))
    whole.targets = (row,)
    whole.write(tmp_path / "a.json")
    again = read_report(tmp_path / "a.json")
    assert again.measurements == whole.measurements
    assert (again.machine, again.targets) == (whole.machine, (row,))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.update(version=2), "found version 2, expected version 1; measure it again"),
        (lambda found: found.update(format="asv"), "found JSON of something else"),
        (lambda found: found["cases"][0].pop("digest"), "missing required field `digest`"),
        (lambda found: found["cases"][0].update(digest=""), "found digest ''"),
        (lambda found: found.pop("cases"), "found no 'cases', expected a whole result"),
        (lambda found: found["cases"][0]["case"].update(path="bus"), "Invalid enum value 'bus'"),
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path, change, said):
    """Another version, another program, a digest that is gone."""
    found = json.loads(report(measurement()).to_json())
    change(found)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(found))
    with pytest.raises(FormatError, match=re.escape(said)) as caught:
        read_report(path)
    assert str(caught.value).startswith(str(path))


def test_text_that_is_no_json_is_refused(tmp_path):
    """With the file's name."""
    (tmp_path / "a.json").write_text("fast!")
    with pytest.raises(FormatError, match=r"a.json: found no JSON .* expected a result of hftlab bench"):
        read_report(tmp_path / "a.json")


# -- comparing


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.3, "slower"), (0.7, "faster"), (1.02, "same"), (0.98, "same")]
)
def test_thirty_percent_are_noticed(factor, verdict):
    """In either direction; two percent are not."""
    before, after = measurement(), measurement(times=slower(TIMES, factor))
    found = compare_reports(report(before), report(after))
    assert [pair.verdict for pair in found.pairs] == [verdict]
    assert found.ok == (verdict != "slower")


def test_another_digest_is_never_just_faster():
    """Twice as fast and of another behaviour is of another behaviour."""
    before, after = measurement(), measurement(digest=OTHER, times=slower(TIMES, 0.5))
    found = compare_reports(report(before), report(after))
    assert [pair.verdict for pair in found.pairs] == ["different behaviour"]
    assert not found.ok


def test_noise_is_not_called_slower():
    """Repetitions that overlap say nothing, however far apart the medians are."""
    before, after = (10.0, 10.1, 30.0, 31.0, 29.0), (10.2, 30.5, 31.5, 30.1, 29.5)
    found = compare_reports(report(measurement(times=before)), report(measurement(times=(9.0, *after))))
    assert [pair.verdict for pair in found.pairs] == ["same"]
    pair = compare_reports(report(measurement(times=(10.0, 10.1, 30.0))), report(measurement(times=after)))
    assert [pair.verdict for pair in pair.pairs] == ["unclear"]
    assert pair.ok


def test_the_rank_test_is_exact():
    """Against chances that can be counted by hand."""
    assert rank_test((1, 2, 3), (4, 5, 6)) == pytest.approx(2 / 20)
    assert rank_test((1, 2, 3, 4, 5), (6, 7, 8, 9, 10)) == pytest.approx(2 / 252)
    assert rank_test((1, 3), (2, 4)) == pytest.approx(4 / 6)
    assert rank_test((1, 1, 1), (1, 1, 1)) == 1.0


def test_cases_of_one_result_only_are_listed():
    """They are not compared with anything."""
    found = compare_reports(report(measurement()), report(measurement(Case(path="event"))))
    assert (found.pairs, found.only_before) == ((), ("batch market 1M x1",))
    assert found.only_after == ("event market 1M x1",)


def test_few_of_many_cases_of_one_result_are_named(tmp_path, run):
    """Two matrices that have little in common would fill the screen."""
    cases = [measurement(Case(orders=number)) for number in range(1, 9)]
    report(cases[0]).write(tmp_path / "a.json")
    report(*cases).write(tmp_path / "b.json")
    _, out, _ = run("bench", "--compare", tmp_path / "a.json", tmp_path / "b.json")
    names = ", ".join(m.case.name for m in cases[1:6])
    assert f"only in B: {names} and 2 more\n" in out


def test_doubts_are_told():
    """Another machine, a load, a hypervisor that takes its share."""
    other = msgspec.structs.replace(QUIET, cpu="another", load_before=1.7, steal_share=0.2)
    found = compare_reports(report(measurement()), report(measurement(), machine=other))
    assert found.doubts() == [
        "two machines: a processor, 2 cores and another, 2 cores",
        "B: load average 1.70 on 2 cores before it began",
        "B: the hypervisor took 20.0% of the processor",
    ]


def test_a_noisy_machine_says_so():
    """Interruptions that an idle loop meets, repetitions that are far apart; a quiet one says nothing."""
    idle = Idle(seconds=0.2, threshold_ns=1_000, gaps=9, lost_share=0.04, longest_ns=4_000_000)
    noisy = report(measurement(times=(10, 14, 20)), machine=msgspec.structs.replace(QUIET, idle=idle))
    assert noisy.noise() == [
        "an idle loop lost 4.0% of its time to 9 interruptions, the longest 4 ms",
        "repetitions of 1 of 1 cases differ by over 10%",
    ]
    assert report(measurement()).noise() == []


def test_spread_is_the_distance_between_quartiles():
    """Over the median; one outlier does not make it."""
    assert spread((10, 10, 10, 10, 10, 10, 10, 1_000)) == 0
    assert spread((1, 2, 3, 4, 5)) == pytest.approx(2 / 3)
    assert spread((7,)) == 0


# -- the command


@pytest.mark.parametrize(
    ("factor", "status", "verdict"), [(1.3, 1, "slower"), (1.0, 0, "same"), (0.7, 0, "faster")]
)
def test_a_slowdown_is_noticed_from_end_to_end(tmp_path, monkeypatch, run, factor, status, verdict):
    """Measured, written, read and compared: 30 % are told by word and status, with the digest unchanged.

    Seconds come from a seeded generator with five percent of noise, so that the test does not depend on the
    machine; what is run, and its digest, is real.
    """
    real = ways.WAYS["batch"]
    for name, times in (("before", 1.0), ("after", factor)):
        noise = np.random.default_rng(len(name))

        def timed(prepared, times=times, noise=noise):
            return times * 1e-3 * noise.uniform(0.95, 1.05), real(prepared)[1]

        monkeypatch.setitem(ways.WAYS, "batch", timed)
        bench([Case(orders=ORDERS)], isolated=False).write(tmp_path / f"{name}.json")
    files = tmp_path / "before.json", tmp_path / "after.json"
    found, out, _ = run("bench", "--compare", *files)
    assert found == status
    assert verdict in out
    found, out, _ = run("bench", "--compare", *files, "--json")
    assert found == status
    (case,) = json.loads(out)["cases"]
    assert case["verdict"] == verdict
    assert case["ratio"] == pytest.approx(factor, rel=0.06)
    assert case["before"]["digest"] == case["after"]["digest"]


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "bench.toml"
    path.write_text(f"repetitions = 3\nwarmup = 1\n[[matrix]]\npaths = ['batch']\norders = [{ORDERS}]\n")
    return path


def test_a_declared_case_is_measured_in_a_process_of_its_own(tmp_path, plan, run):
    """Its digest is the one found here; tables, JSON and page say so."""
    files = tmp_path / "r.json", tmp_path / "r.html"
    status, out, _ = run("bench", "--config", plan, "--json", files[0], "--html", files[1])
    assert status == 0
    digest = hftlab.replay(hftlab.generate(ORDERS, 1, 1)).digest
    (found,) = read_report(files[0]).measurements
    assert found.digest == digest
    assert found.case == Case(orders=ORDERS)
    assert digest[:8] in out
    assert digest in files[1].read_text()
    assert max(map(len, out.splitlines())) <= 100


@pytest.fixture(scope="module")
def measured_targets():
    return targets.measure_targets(ORDERS, 3, isolated=False)


def test_targets_are_measured(measured_targets):
    """Each row has its value, and the verdict follows from it; nothing is left out."""
    found, rows = measured_targets
    names = [row.name for row in rows]
    assert len(names) == 9
    assert [row["name"] for row in found.targets] == names
    for row in rows:
        if row.value is None:
            assert row.verdict == "not measured"
        else:
            assert row.verdict == ("met" if (row.value < row.limit) == row.below else "missed")
    assert rows[0].values == found.measurements[0].times_ns


def test_a_missed_target_is_told_and_only_strict_fails(monkeypatch, run, measured_targets):
    """The table is honest and the status 0; --strict makes it 1."""
    rows = [targets.Target(name="n", limit=5, below=True, unit="ns", how="h", values=(4.0, 6.0, 7.0))]
    found = msgspec.structs.replace(measured_targets[0], targets=tuple(row.as_dict() for row in rows))
    monkeypatch.setattr(targets, "measure_targets", lambda *_, **__: (found, rows))
    status, out, _ = run("bench", "--targets")
    assert status == 0
    assert re.search(r"n +< 5\.0 ns +6\.0 ns +4\.0 to 7\.0 ns +missed", out)
    assert run("bench", "--targets", "--strict")[0] == 1


def test_verdicts_look_at_the_median():
    """Below or above as the target asks; no value, no verdict."""
    row = targets.Target(name="n", limit=5, below=False, unit="/s", how="h", values=(4.0, 6.0, 7.0))
    assert (row.value, row.verdict) == (6.0, "met")
    assert msgspec.structs.replace(row, values=()).verdict == "not measured"
    assert msgspec.structs.replace(row, values=(4.0, 6.0)).verdict == "missed"


def test_targets_missed_by_far_are_legible():
    """A rate far below a million is no 0.0 M/s, and both ends of a span are in one unit."""
    row = targets.Target(name="n", limit=50e6, below=False, unit="/s", how="h", values=(2_448.0, 3e5, 4e5))
    (shown,) = target_rows([row.as_dict()])
    assert shown[1:4] == ("> 50.0 M/s", "0.30 M/s", "0.0024 to 0.40 M/s")


def test_percentiles_that_few_values_can_t_tell_are_left_out():
    """Of a hundred values the 99.9th percentile would be the largest; the JSON has them all."""
    few = Latency.of("service", Histogram(range(1, 101)), 0.0, "")
    (shown,) = latency_rows([msgspec.structs.replace(measurement(), latency=(few,))])
    assert shown[1:] == ("service", "50", "95", "99", "-", "-", "100", "49")
    assert few.p99_9 == 100


def test_long_work_says_how_long_and_how_far(capsys):
    """In a pipe: what is expected, then a line a step; nothing where it takes under a minute."""
    with common.steps("2 cases", [("one", 30.0), ("other", 95.0)]) as done:
        done("one")
    told = capsys.readouterr().err.splitlines()
    assert told == ["hftlab: 2 cases, about 2 minutes on a quiet machine", "hftlab: 1/2 one"]
    with common.steps("1 case", [("one", 30.0)]) as done:
        done("one")
    assert capsys.readouterr().err == ""


def test_steps_are_told_of_on_a_terminal(monkeypatch, capsys):
    """A bar with the name of what is measured, how many are done, and the time left."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with common.steps("2 cases", [("one", 1.0), ("other", 3.0)]) as done:
        done("one")
        done("other")
    assert "2/2" in capsys.readouterr().err


def test_targets_tell_each_step(measured_targets):
    """As many as are announced, in that order."""
    found, _ = measured_targets
    names = [name for name, _ in targets.steps(ORDERS, 3)]
    assert names == [*(m.case.name for m in found.measurements), "memory", "paced", "windows"]


def test_windows_that_were_interrupted_do_not_count():
    """Jitter is of calm windows; a flow shorter than one is one."""
    calm = np.tile(np.arange(1, 101), 10)
    disturbed = calm.copy()
    disturbed[500] = 50_000
    assert tasks.jitters(np.concatenate([calm, disturbed]), 1_000) == [pytest.approx(49, abs=1)]
    assert tasks.jitters(disturbed, 1_000) == []
    assert len(tasks.jitters(calm[:100], 1_000)) == 1


def test_paced_commands_come_to_the_same():
    """Commands in blocks, with sleep between them, give the digest of all at once."""
    case = msgspec.to_builtins(Case(path="event", orders=5_500))
    found = tasks.paced(case, rate=1e6, repetitions=1, pin=False)
    assert found["digest"] == hftlab.replay(make_flow("market", 5_500, 1)).digest
    assert 0 < found["values"][0] < 1_000


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("out.json",), 2, "FILE: found 'out.json' without --json, expected --json out.json"),
        (("--rate", "0"), 2, "--rate: found '0', expected commands per second, more than 0"),
        (("--rate", "fast"), 2, "--rate: found 'fast', expected commands per second"),
        (("--rate", "5", "--targets"), 2, "--targets: found with --rate, expected one of --comprehensive"),
        (("--cold", "--targets"), 2, "--cold: found with --targets, which are about warm kernels"),
        (("--strict",), 2, "--strict: found without --targets"),
        (("--orders", "0"), 2, "--orders: found '0', expected a whole number from 1 to 100,000,000"),
        (("--repetitions", "2"), 2, "--repetitions: found '2', expected a whole number from 3"),
        (("--config", "nowhere.toml"), 2, "nowhere.toml: found no such file or directory"),
        (("--orders", "5", "--config", "x.toml"), 2, "--orders: found with --config, whose cases have"),
        (("--compare", "a.json", "b.json"), 1, "a.json: no such file or directory"),
        (("--compare", "a.json", "b.json", "--html", "x"), 2, "--html: found with --compare"),
        (("--compare", "a.json", "b.json", "--cold"), 2, "--cold: found with --compare, expected it where"),
        (("--compare", "a", "b", "--repetitions", "5"), 2, "--repetitions: found with --compare"),
        (("--compare", "a", "b", "--orders", "5"), 2, "--orders: found with --compare"),
        (("--compare", "a", "b", "--no-pin"), 2, "--no-pin: found with --compare"),
        (("--json", "/nowhere/x.json"), 1, "/nowhere/x.json: there is no folder /nowhere"),
    ],
)
def test_a_wrong_command_is_one_line(run, arguments, status, said):
    """Before anything is measured."""
    found, out, error = run("bench", *arguments)
    assert (found, out) == (status, "")
    assert error.startswith(f"hftlab: error: {said}")
    assert error.count("\n") == 1


def test_a_result_of_another_version_is_one_line(tmp_path, run):
    """`--compare` names the file and the version it takes."""
    report(measurement()).write(tmp_path / "a.json")
    (tmp_path / "b.json").write_text(
        (tmp_path / "a.json").read_text().replace('"version": 1', '"version": 7')
    )
    status, _, error = run("bench", "--compare", tmp_path / "a.json", tmp_path / "b.json")
    assert status == 1
    assert error.endswith("b.json: found version 7, expected version 1; measure it again\n")


# -- the page


def test_a_page_is_self_contained(measured_targets):
    """Plots are in it, nothing is fetched, and it has targets, digests and machine."""
    found = measured_targets[0]
    text = page(found)
    assert text.count("<svg") == 2
    assert not re.search(r"(src|href)=[\"'](?!#)", re.sub(r"xlink:href=\"#", "", text))
    assert found.measurements[0].digest in text
    for section in ("Targets", "Speed", "Latency", "Stalls of the run and of the machine", "Digests"):
        assert f"<h2>{section}" in text


def test_no_two_curves_of_a_panel_look_alike():
    """Few cases are in one plot, a response in the colour of its service; of many each kind has its own."""
    one = Latency.of("service", Histogram([1, 2]), 0.0, "")
    both = one, msgspec.structs.replace(one, kind="response")
    pairs = [(measurement(Case(orders=n + 1)), each) for n in range(9) for each in both]
    assert panels(pairs[:16]) == [pairs[:16]]
    split = panels(pairs)
    assert [{each.kind for _, each in part} for part in split] == 2 * [{"service"}] + 2 * [{"response"}]
    assert [len(part) for part in split] == [8, 1, 8, 1]
    cases = [measurement(Case(orders=n + 1), latency=both) for n in range(9)]
    assert page(report(*cases)).count("percentile") >= 4


def test_a_page_of_a_noisy_machine_says_so():
    """Above everything else."""
    noisy = report(measurement(), machine=msgspec.structs.replace(QUIET, load_before=2.0))
    assert "A noisy machine: load average 2.00 on 2 cores before it began." in page(noisy)
    assert "noisy machine" not in page(report(measurement()))
