"""Contenders as processes that take turns; their results are held against hftlab's before a time counts."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.peers.environment import PYTHON, REPOSITORY

HERE = Path(__file__).parent / "contenders"


class Failed(Exception):
    """A contender has given up; the message says why."""


class Contender:
    """A process that answers requests (see contenders/serve.py)."""

    patience = 900.0  # seconds for one answer

    def __init__(self, name: str, script: str, *arguments: str, ours: bool = False) -> None:
        self.name = name
        python = sys.executable if ours else str(PYTHON)
        self._process = subprocess.Popen(
            [python, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | ({"PYTHONPATH": str(REPOSITORY)} if ours else {}),
        )
        hello = self._answer()
        self.version, self.tasks = hello["version"], hello["tasks"]

    def run(self, task: str, path: Path, to: Path | None = None) -> tuple[float, float]:
        """(seconds, seconds of all its threads) of one run; the result in its common form goes to `to`."""
        request = json.dumps({"task": task, "path": str(path), "to": to and str(to)})
        with contextlib.suppress(BrokenPipeError):  # of one that has ended, which the answer tells
            print(request, file=self._process.stdin, flush=True)
        answer = self._answer()
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["seconds"], answer["cpu"]

    def _answer(self) -> dict[str, Any]:
        late = threading.Event()
        timer = threading.Timer(self.patience, lambda: (late.set(), self._process.kill()))
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if late.is_set():
            raise Failed(f"no answer in {self.patience:g} s")
        if not line:
            said = self._process.stderr.read().strip().splitlines() or ["nothing"]
            raise Failed(f"ended with status {self._process.wait()}: {said[-1]}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


class Entry(NamedTuple):
    """A contender's figures for a task on a file."""

    contender: str
    version: str
    messages: int
    wall_ns: float  # per message, median
    best_ns: float
    cpu_ns: float  # median, all threads together
    rows: int  # of the result in its common form
    verdict: str  # "same", or what is different
    told: str  # what of the result was compared: the forms that both have


def contest(
    contenders: list[Contender], task: str, path: Path, messages: int, rounds: int
) -> list[Entry | tuple[str, str]]:
    """The figures of all that can do a task, held against the first; of one that fails its name and why."""
    able = [contender for contender in contenders if task in contender.tasks]
    forms, failed = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for contender in able:
            try:
                to = Path(folder) / f"{contender.name}.npz"
                contender.run(task, path, to)  # the first run warms up as well
                forms[contender.name] = dict(np.load(to))
            except Failed as error:
                failed[contender.name] = str(error)
    if able[0].name not in forms:  # nothing to hold the others against
        return list(failed.items())
    able = [contender for contender in able if contender.name in forms]
    times: dict[str, list[tuple[float, float]]] = {contender.name: [] for contender in able}
    for turn in range(rounds):
        for contender in able[turn % len(able) :] + able[: turn % len(able)]:
            if contender.name not in failed:
                try:
                    times[contender.name].append(contender.run(task, path))
                except Failed as error:
                    failed[contender.name] = str(error)
    ours = forms[able[0].name]
    return [
        Entry(
            contender.name,
            contender.version,
            messages,
            *_per_message(times[contender.name], messages),
            max(column.size for column in forms[contender.name].values()),
            difference(ours, forms[contender.name]) or "same",
            ", ".join(dict.fromkeys(name.split("_")[0] for name in ours if name in forms[contender.name])),
        )
        for contender in able
        if contender.name not in failed
    ] + list(failed.items())


def _per_message(times: list[tuple[float, float]], messages: int) -> tuple[float, float, float]:
    wall, cpu = ([seconds * 1e9 / messages for seconds in column] for column in zip(*times, strict=True))
    return statistics.median(wall), min(wall), statistics.median(cpu)


def difference(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> str | None:
    """The first difference in the columns both have; None where there is none."""
    both = [name for name in ours if name in theirs]
    if not both:
        return "nothing to compare"
    for name in both:
        if ours[name].size != theirs[name].size:
            return f"{name}: {theirs[name].size:,} rows, hftlab has {ours[name].size:,}"
    for name in both:
        different = np.flatnonzero(ours[name] != theirs[name])
        if different.size:
            row = different[0]
            found, expected = theirs[name][row], ours[name][row]
            return f"{name}: {different.size:,} rows differ, row {row} first: {found}, hftlab has {expected}"
    return None
