"""`hftlab bench`: what is measured, how, and in which process."""

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

import hftlab
from hftlab.benchmark import measure as measuring
from hftlab.benchmark import session, ways
from hftlab.benchmark.cases import PATHS, Case, Matrix, comprehensive, load_plan, possible, quick
from hftlab.benchmark.child import run_python, run_task
from hftlab.benchmark.estimate import seconds_of, seconds_of_each
from hftlab.benchmark.flows import FLOWS, make_flow
from hftlab.benchmark.machine import memory_bytes, pinned, reset_peak
from hftlab.benchmark.measure import measure
from hftlab.benchmark.records import Cold, Start
from hftlab.benchmark.session import bench
from hftlab.errors import ConfigError, MeasurementError, UsageError
from hftlab.latency.clock import pinned_to
from tests.conftest import REPOSITORY
from tests.helpers.bench_results import measurement

ORDERS = 2_000


# -- what is measured


def test_a_matrix_has_no_case_that_can_t_be():
    """Threads beyond the symbols, threads of an event loop and rates of a batch are left out."""
    matrix = Matrix(paths=tuple(PATHS), symbols=(1, 4), threads=(1, 4, 8), rates=(1e6,))
    found = matrix.cases()
    assert {(c.path, c.threads) for c in found if c.threads > 1} == {("batch", 4), ("replay", 4)}
    assert {c.path for c in found if c.rate} == {"event"}
    assert all(map(possible, found))


def test_cases_are_told_apart_by_name():
    """Every case of the comprehensive matrix has a name of its own, and no axis has one value only."""
    cases = comprehensive(1_000_000, threads=4)
    assert len({case.name for case in cases}) == len(set(cases)) == len(cases)
    for axis in ("path", "flow", "orders", "symbols", "risk", "threads", "rate"):
        assert len({getattr(case, axis) for case in cases}) > 1


def test_quick_cases_take_every_path():
    """Quick means one size, and still every way a command can take, with and without the gate."""
    cases = quick(ORDERS)
    assert {case.path for case in cases} == set(PATHS)
    assert {case.risk for case in cases} == {False, True}
    assert {case.rate for case in quick(ORDERS, 1e6)} == {1e6}


def test_what_takes_long_is_expected_to():
    """More commands, repetitions and a rate that is slow; cold starts once a path and gate, on one thread."""
    few, many, behind, slow = (
        seconds_of(Case(path="event", **how), 9, 2)
        for how in ({}, {"orders": 10_000_000}, {"risk": True}, {"rate": 1e4})
    )
    assert few < behind < many
    assert slow >= few + 2 * 1_000_000 / 1e4
    assert seconds_of(Case(), 90, 2) > seconds_of(Case(), 9, 2)
    cases = [Case(), Case(symbols=2), Case(symbols=2, threads=2), Case(risk=True)]
    warm, cold = (seconds_of_each(cases, 9, 2, cold) for cold in (False, True))
    assert [a == b for a, b in zip(warm, cold, strict=True)] == [False, True, True, False]


def test_the_declared_matrix_of_the_project_is_valid():
    """benchmarks/config.toml can be read, and measures every path and flow."""
    plan = load_plan(REPOSITORY / "benchmarks" / "config.toml")
    assert {case.path for case in plan.cases()} == set(PATHS)
    assert {case.flow for case in plan.cases()} == set(FLOWS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "matrix: missing, expected one or more tables [[matrix]]"),
        ("matrix = 3", "matrix: found 3, expected tables [[matrix]]"),
        ("matrix = [3]", "matrix[0]: found 3, expected tables [[matrix]]"),
        ("speed = 1\n[[matrix]]", "speed: no such key, expected one of matrix, repetitions, warmup, cold"),
        ("repetitions = 1\n[[matrix]]", "repetitions: found 1, expected a whole number of 3 or more"),
        ("[[matrix]]\nordrs = [1]", "matrix[0].ordrs: no such key, expected one of paths, flows, orders"),
        ("[[matrix]]\norders = 5", "matrix[0].orders: found 5, expected a list of a whole number from 1"),
        ("[[matrix]]\norders = [0]", "matrix[0].orders[0]: found 0, expected a whole number from 1 to"),
        (
            "[[matrix]]\n[[matrix]]\npaths = ['bach']",
            "matrix[1].paths[0]: found 'bach', expected one of",
        ),
        ("[[matrix]]\nflows = ['nasdaq']", "matrix[0].flows[0]: found 'nasdaq', expected one of market"),
        ("[[matrix]]\nrisk = ['yes']", "matrix[0].risk[0]: found 'yes', expected true or false"),
        ("[[matrix]]\nrates = [0]", "matrix[0].rates[0]: found 0, expected commands per second, more than 0"),
        ("[[matrix]]\nseed = -1", "matrix[0].seed: found -1, expected a whole number of 0 or more"),
        ("[[matrix]]\nthreads = [2]\npaths = ['python']", "matrix: no combination of these values can be"),
        ("[[matrix", "not valid TOML"),
    ],
)
def test_a_bad_matrix_names_its_key(tmp_path, text, said):
    """File, key, what was found, what was expected."""
    path = tmp_path / "bench.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}.*{re.escape(said)}"):
        load_plan(path)


def test_files_that_are_no_matrix_are_named(tmp_path):
    """No file, and bytes that are no text."""
    with pytest.raises(ConfigError, match=r"nowhere.toml: found no such file or directory, expected a TOML"):
        load_plan(tmp_path / "nowhere.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"bytes.toml: found byte 0 not UTF-8"):
        load_plan(tmp_path / "bytes.toml")


@pytest.mark.parametrize(
    ("name", "fills", "open_orders"), [("resting", 0, ORDERS), ("crossing", ORDERS // 2, 0)]
)
def test_flows_do_what_they_are_for(name, fills, open_orders):
    """Orders that rest, all of them; pairs that trade, all of them; nothing is refused."""
    found = hftlab.replay(make_flow(name, ORDERS, symbols=3)).summary()
    assert (found["fills"], found["open_orders"], found["rejected"]) == (fills, open_orders, 0)


def test_an_unknown_flow_is_refused():
    """With the names there are."""
    with pytest.raises(UsageError, match="flow: found 'nasdaq', expected one of market, scattered"):
        make_flow("nasdaq", 1, 1)


# -- measuring


@pytest.mark.parametrize("flow", FLOWS)
def test_every_path_gives_the_digest_of_a_replay(flow):
    """Batch, replay, event loop and Python calls, and `hftlab.replay` of the same table."""
    cases = [Case(path=path, flow=flow, orders=ORDERS) for path in PATHS]
    found = bench(cases, repetitions=3, warmup=1, isolated=False)
    expected = hftlab.replay(make_flow(flow, ORDERS, 1)).digest
    assert {m.digest for m in found.measurements} == {expected}


def test_the_gate_of_a_case_refuses_nothing():
    """It decides about every command, and the result is that of the flow without it."""
    with_gate, without = (ways.Prepared(Case(path="event", orders=ORDERS, risk=risk)) for risk in (1, 0))
    assert with_gate.manager() is not None
    assert ways.run_once(with_gate)[1]() == ways.run_once(without)[1]()


def test_an_event_loop_has_percentiles():
    """Those of its service, each with the cost of the clock beside it; a batch has none."""
    found = measure(Case(path="event", orders=ORDERS), repetitions=3)
    (service,) = found.latency
    assert service.kind == "service"
    assert service.count == ORDERS
    assert 0 < service.p50 <= service.p95 <= service.p99 <= service.p99_9 <= service.p99_99 <= service.max
    assert service.jitter == service.p99 - service.p50
    assert service.overhead_ns > 0
    assert service.histogram.percentile(99) == service.p99
    assert measure(Case(orders=ORDERS), repetitions=3).latency == ()


def test_a_rate_gives_response_times():
    """From when a command was due, so none is shorter than its service; and how long the loop was busy."""
    for slower in range(8):  # until this machine is ahead of its rate at times
        rate = 100_000.0 / 2**slower
        found = measure(Case(path="event", orders=ORDERS, rate=rate), repetitions=3)
        service, response = found.latency
        assert (service.kind, response.kind) == ("service", "response")
        assert response.p50 >= service.p50
        assert 0 < found.busy_share <= 1
        if found.busy_share < 1:
            break
    assert found.busy_share < 1


def test_calls_from_python_are_timed_one_by_one():
    """A histogram of every call."""
    (call,) = measure(Case(path="python", orders=ORDERS), repetitions=3).latency
    assert (call.kind, call.count) == ("call", ORDERS)


def test_costs_are_part_of_a_measurement():
    """Cores, processor share, peak memory, page faults; repetitions as many as asked for."""
    found = measure(Case(orders=ORDERS), repetitions=4, pin=True)
    assert len(found.times_ns) == 4
    assert found.pinned == tuple(pinned_to()[-1:])
    assert found.cpu_share > 0
    assert found.peak_bytes is None or found.peak_bytes > found.memory_bytes
    assert min(found.page_faults, found.major_page_faults, found.preemptions) >= 0


def test_the_peak_of_memory_begins_anew():
    """Memory that was taken and given back before does not count, where the system can tell."""
    if not reset_peak():
        assert memory_bytes("no such line") is None
        return
    big = np.ones(20_000_000)
    high = memory_bytes("VmHWM")
    del big
    reset_peak()
    assert memory_bytes("VmHWM") < high - 100_000_000


def test_pinning_ends_with_its_block():
    """The cores are given back, and more threads than cores are not pinned at all."""
    before = pinned_to()
    with pinned(1) as cores:
        assert tuple(pinned_to()) == cores == tuple(before[-1:])
    with pinned(len(before) + 1) as cores:
        assert cores == ()
    with pinned(1, pin=False) as cores:
        assert cores == ()
    assert pinned_to() == before


@pytest.mark.parametrize("case", [Case(path="batch", rate=5.0), Case(path="event", symbols=4, threads=2)])
def test_an_impossible_case_is_refused(case):
    """Before anything is run."""
    with pytest.raises(UsageError, match=f"case {case.name}: threads are for batch and replay"):
        measure(case)
    with pytest.raises(UsageError, match="cases: found none"):
        bench([])


def test_measuring_leaves_the_collector_on():
    """Python's garbage collector is off only while calls are timed."""
    import gc

    measuring.measure(Case(path="python", orders=100), repetitions=3)
    assert gc.isenabled()


# -- processes of their own


def test_a_child_that_fails_says_why():
    """A wrong case in its own words, a kill as what it usually is, a bug by its last line."""
    case = msgspec.to_builtins(Case(path="event", symbols=4, threads=2))
    with pytest.raises(MeasurementError, match=r"a case: case event .*: threads are for batch and replay"):
        run_task("measure", "a case", case=case)
    with pytest.raises(MeasurementError, match=r"a case: its process was killed, .* measure fewer orders"):
        run_python("-c", "import os; os.kill(os.getpid(), 9)", what="a case")
    with pytest.raises(MeasurementError, match=r"a case: its process ended with status 1: KeyError: 3"):
        run_python("-c", "{}[3]", what="a case")


def test_a_first_call_is_timed_in_a_fresh_process():
    """Import, first call and the whole process, kernels from the cache."""
    found = session.cold_start(Case(orders=ORDERS), compiled=False)
    assert found.compiled is None
    assert 0 < found.cached.import_s < found.cached.process_s
    assert 0 < found.cached.first_call_s < found.cached.process_s


def test_without_a_cache_means_an_empty_folder(monkeypatch):
    """The compiled start gets a cache folder that is empty, and that is gone afterwards."""
    seen = []

    def start(case, env):
        folder = env.get("HFTLAB_CACHE_DIR")
        seen.append((folder, folder and list(Path(folder).iterdir())))
        return Start(process_s=float(len(seen)), import_s=0.0, first_call_s=0.0)

    monkeypatch.setattr(session, "_start", start)
    found = session.cold_start(Case())
    assert (found.cached.process_s, found.compiled.process_s) == (2.0, 3.0)
    (filled, _), (cached, _), (empty, content) = seen
    assert (filled, cached, content) == (None, None, [])
    assert not Path(empty).exists()


def test_cases_of_a_kind_share_their_cold_start(monkeypatch):
    """It is measured once for a path with its gate, and attached to each case."""
    start = Start(process_s=1.0, import_s=0.1, first_call_s=0.5)
    asked = []
    monkeypatch.setattr(session, "measure", lambda case, *_: measurement(case))
    monkeypatch.setattr(
        session, "cold_start", lambda case: asked.append(case) or Cold(cached=start, compiled=start)
    )
    cases = [Case(orders=1), Case(orders=2), Case(orders=2, risk=True), Case(symbols=2, threads=2)]
    monkeypatch.setattr(session, "require_agreement", lambda found: None)
    found = bench(cases, isolated=False, cold=True)
    assert asked == [cases[0], cases[2]]
    assert [m.cold and m.cold.cached for m in found.measurements] == [start, start, start, None]
