"""The loop that drives every worker, and what it grows on the way: nothing that comes out depends on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

import hftlab
from hftlab.engine import depth, runner, workers
from hftlab.engine.workers import drive
from hftlab.replayer import replayer
from hftlab.risk_gate import gate_run
from tests.helpers import flows, risk_flows
from tests.helpers.gated_package import replayed
from tests.reference import frames

LOW = 50 * flows.CENT * 20  # a stop loss of this strikes again and again
STRIKING = {
    "stop_loss_percentage": 10_000,
    "capital": LOW,
    "stop_loss_action": "close",
    "stop_loss_scope": "position",
    "mark_interval": 1,
}


class Steps:
    """A worker that needs something before every command that divides by `every`."""

    def __init__(self, step: int, every: int) -> None:
        self.step, self.every = step, every
        self.has, self.done, self.calls, self.grown = set(), [], [], []

    def apply(self, start: int, stop: int) -> tuple[int, int]:
        self.calls.append((start, stop))
        for command in range(start, stop):
            if command % self.every == 0 and command not in self.has:
                self.has.add(command)
                return command - start, 7
            self.done.append(command)
        return stop - start, 0

    def grow(self, need: int) -> None:
        self.grown.append(need)


@pytest.mark.parametrize("step", [1, 3, 100])
@pytest.mark.parametrize("every", [1, 4, 1_000])
def test_every_command_is_applied_once_whatever_has_to_grow(step, every):
    """In order, in steps, with a need met as often as there is one; progress adds up to the commands."""
    worker, progress = Steps(step, every), []
    drive(worker, [(1, 9), (9, 9), (20, 31)], progress.append)
    commands = [*range(1, 9), *range(20, 31)]
    assert worker.done == commands
    assert sum(progress) == len(commands)
    assert max(stop - start for start, stop in worker.calls) <= step
    assert worker.grown == [7] * sum(command % every == 0 for command in commands)


def test_an_error_ends_the_loop():
    """Ctrl-C between two steps is one."""
    worker = Steps(2, 1_000)

    def interrupted(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(worker, [(1, 9)], interrupted)
    assert worker.done == [1, 2]


# ------------------------------------------------------------------ room for what the gate does by itself


def striking() -> risk_flows.RiskFlow:
    flow = risk_flows.make("losers", 1_200, 0)
    return replace(flow, limits=risk_flows.Limits(defaults=STRIKING))


@pytest.fixture
def grown(monkeypatch):
    """How often a gate without room to spare was given more, by the module of who asked."""
    count: Counter[str] = Counter()
    monkeypatch.setattr(gate_run, "OWN_ROOM", 0)
    for name, module in {"runner": runner, "workers": workers}.items():

        def noting(gate, name=name, grow=module.with_more_room):
            count[name] += 1
            return grow(gate)

        monkeypatch.setattr(module, "with_more_room", noting)
    return count


@pytest.mark.parametrize(
    ("how", "who"),
    [
        ({}, "workers"),
        ({"threads": 2}, "workers"),  # in input order, after the first strike
        ({"chunk_rows": 300}, "workers"),
        ({"path": "event"}, "runner"),
    ],
)
def test_room_for_closing_orders_grows_when_it_gets_short(grown, monkeypatch, how, who):
    """On any path, what comes out is the same as with room for everything from the start."""
    monkeypatch.setattr(replayer, "partitions_for", lambda threads, limits: threads)
    flow = striking()
    found, run = replayed(flow, **how)
    assert grown[who] > 0
    monkeypatch.setattr(gate_run, "OWN_ROOM", 1 << 16)
    grown.clear()
    expected, other = replayed(flow)
    assert not grown
    assert run.digest == other.digest
    assert expected["gate"].height > 50
    assert frames.first_difference(expected, found) is None


@pytest.mark.parametrize("parts", [1, 2])
def test_depth_and_touch_go_on_when_room_grows(grown, monkeypatch, parts):
    """In steps as short as they get."""
    monkeypatch.setattr(replayer, "partitions_for", lambda threads, limits: parts)
    flow = striking()
    limits = hftlab.Limits.from_table(risk_flows.limits_table(flow.limits))

    def tables() -> list:
        run = hftlab.replay(flow.orders.table(), threads=parts, record=("l1",), limits=limits)
        return [run.to_arrow("l1"), run.depth(3)]

    monkeypatch.setattr(depth.DepthWorker, "step", 16)
    found = tables()
    assert grown["workers"] > 1
    monkeypatch.undo()
    expected = tables()
    assert found[0].equals(expected[0])
    assert found[1].equals(expected[1])
