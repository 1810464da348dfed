"""Results of `hftlab bench` made by hand, for tests of what becomes of them."""

from hftlab.benchmark.cases import Case
from hftlab.benchmark.machine import Idle, Machine
from hftlab.benchmark.records import Measurement, Report

DIGEST, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
CASE = Case()
QUIET = Machine(
    cpu="a processor",
    cores=2,
    usable=(0, 1),
    load_before=0.1,
    load_after=0.4,
    steal_share=0.0,
    clock="cycle counter",
    clock_overhead_ns=10.0,
    idle=Idle(seconds=0.2, threshold_ns=1_000, gaps=0, lost_share=0.0, longest_ns=0),
    versions={"hftlab": "0"},
)
TIMES = (10.2, 10.0, 10.1, 10.4, 10.0, 10.3, 10.1, 9.9, 10.2)


def measurement(case=CASE, digest=DIGEST, times=TIMES, **more):
    fields = {"warmup": 1, "pinned": (1,), "cpu_share": 1.0, "busy_share": None, "peak_bytes": None}
    fields |= {"memory_bytes": None, "page_faults": 0.0, "major_page_faults": 0.0, "preemptions": 0.0}
    return Measurement(case=case, digest=digest, times_ns=tuple(times), **(fields | more))


def report(*measurements, machine=QUIET):
    return Report(created="now", machine=machine, isolated=False, measurements=measurements)


def slower(times, factor):
    return tuple(time * factor for time in times)
