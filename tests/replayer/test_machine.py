"""What the settings ask of the machine: applied while a replay runs, or said and no obstacle."""

import json
import mmap
import os

import pyarrow as pa
import pytest

import hftlab
from hftlab.config.settings import Config, Monitoring, Performance
from hftlab.kernels.primitives import memory
from hftlab.replayer import machine
from hftlab.replayer.machine import applied, machine_for, say_not_applied

ORDER = {"action": ["NEW"], "order_id": [1], "side": [1], "price": [10**9], "qty": [1]}
NOWHERE = 65_000  # a core and a node that no machine of ours has

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")


@needs_affinity
def test_threads_are_bound_to_the_cores_that_exist_and_are_free_afterwards():
    """Of the cores asked for, those that the process has are used; then all are as before."""
    before = os.sched_getaffinity(0)
    core = min(before)
    asked = machine_for(Performance(cpu_affinity=(core, NOWHERE)))
    assert asked.cores == {core}
    assert len(asked.not_applied) == 1
    assert f"core {NOWHERE} not there" in asked.not_applied[0]
    with applied(asked):
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before


@needs_affinity
def test_a_node_is_its_cores(tmp_path, monkeypatch):
    """A node that exists narrows the cores to its own; one that doesn't, or has none of them, is said."""
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(machine, "NODES", tmp_path)
    for node, cores in ((0, str(core)), (1, str(NOWHERE))):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}" / "cpulist").write_text(f"{cores}\n")
    assert machine_for(Performance(numa_node=0)) == (frozenset({core}), None, None, ())
    assert "none of the cores" in machine_for(Performance(numa_node=1)).not_applied[0]
    assert "node 7 not there" in machine_for(Performance(numa_node=7)).not_applied[0]


def test_huge_pages_are_asked_for_or_not(monkeypatch):
    """Blocks made meanwhile ask for huge pages or for none, and those after it as before."""
    asked = []

    class Pages(mmap.mmap):
        def madvise(self, advice, *rest):
            asked.append(advice)

    monkeypatch.setattr(memory, "_spare", [])
    monkeypatch.setattr(mmap, "mmap", Pages)
    for wanted in (False, True):
        with applied(machine_for(Performance(use_hugepages=False))._replace(huge_pages=wanted)):
            assert memory.uses_huge_pages() is wanted
            memory.empty(memory.SMALLEST, "u1")
            memory._spare.clear()
    assert asked == [mmap.MADV_NOHUGEPAGE, mmap.MADV_HUGEPAGE]
    assert memory.uses_huge_pages()


def test_a_system_without_huge_pages_is_said(tmp_path, monkeypatch):
    """Where the system has switched them off, asking for them is no error; not asking is applied."""
    never = tmp_path / "enabled"
    never.write_text("always madvise [never]\n")
    monkeypatch.setattr(machine, "HUGE_PAGES", never)
    assert "no huge pages" in machine_for(Performance(use_hugepages=True)).not_applied[0]
    assert machine_for(Performance(use_hugepages=False)).not_applied == ()


def test_the_allocator_is_arrow_s_while_a_replay_runs():
    """Arrow's default memory pool is the one asked for, and then the one before; nested uses agree."""
    before = pa.default_memory_pool().backend_name
    with applied(machine_for(Performance(allocator="system"))):
        assert pa.default_memory_pool().backend_name == "system"
        with applied(machine_for(Performance(allocator="system"))):
            pass
        assert pa.default_memory_pool().backend_name == "system"
    assert pa.default_memory_pool().backend_name == before


def test_an_allocator_that_pyarrow_lacks_is_said(monkeypatch):
    """A build of pyarrow without the allocator names those it has."""
    monkeypatch.setattr(pa, "supported_memory_backends", lambda: ["system"])
    asked = machine_for(Performance(allocator="jemalloc"))
    assert asked.allocator is None
    assert asked.not_applied == ("performance.allocator: jemalloc not in this pyarrow, which has system",)


def test_a_replay_says_what_is_not_applied_and_goes_on(tmp_path, capsys):
    """One line on stderr for one configuration, the same in summary and manifest, and the usual result."""
    config = Config(performance=Performance(numa_node=NOWHERE, allocator="system"))
    expected = hftlab.replay(ORDER).digest
    for way in ({}, {"out": tmp_path / "run"}):
        result = hftlab.replay(ORDER, config=config, **way)
        assert result.digest == expected
        assert result.summary()["not_applied"] == [f"performance.numa_node: node {NOWHERE} not there"]
    said = capsys.readouterr()
    assert said.err == f"hftlab: not applied: performance.numa_node: node {NOWHERE} not there\n"
    settings = json.loads((tmp_path / "run" / "manifest.json").read_text())["config"]
    assert settings["not_applied"] == result.summary()["not_applied"]
    assert settings["performance"] == {"numa_node": NOWHERE, "allocator": "system"}


def test_a_log_level_above_warning_keeps_it_quiet(capsys):
    """At ERROR the line is not printed; the manifest has it anyway."""
    config = Config(performance=Performance(numa_node=NOWHERE - 1), monitoring=Monitoring(log_level="ERROR"))
    say_not_applied(machine_for(config.performance), config)
    assert capsys.readouterr().err == ""


def test_a_replay_behind_the_system_s_limits_prints_two_percent():
    """0.02 in [trading] and 2 in [risk] are the same limit, and a summary prints it as 2 %."""
    config = Config(trading={"stop_loss_percentage": "0.02", "capital": "1000"})
    summary = hftlab.replay(ORDER, config=config).summary()
    assert summary["limits_of_all"] == {"stop_loss_percentage": "2 %", "capital": "1000"}
    ours = hftlab.replay(ORDER, limits={"stop_loss_percentage": 2, "capital": "1000"}).summary()
    assert ours["limits_of_all"] == summary["limits_of_all"]
