"""A fresh process for each measurement, so that caches, memory and kernels of the last one have no effect.

`python -m hftlab.benchmark.child` reads one task as JSON from stdin and writes its result as JSON to stdout.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from hftlab.errors import HftlabError, MeasurementError
from hftlab.process import leave

PACKAGE = Path(__file__).resolve().parents[2]
TIMEOUT_S = 1_800


def run_task(task: str, what: str, **arguments: Any) -> Any:
    """Run a task of `tasks` in a fresh process. Raises MeasurementError with the reason if it fails."""
    given = json.dumps({"task": task, "arguments": msgspec.to_builtins(arguments)})
    done = run_python("-m", "hftlab.benchmark.child", given=given, what=what)
    answer = json.loads(done.splitlines()[-1])
    if "error" in answer:
        raise MeasurementError(f"{what}: {answer['error']}")
    return answer["result"]


def run_python(*arguments: str, given: str = "", what: str, env: dict[str, str] | None = None) -> str:
    """What a fresh interpreter with this hftlab prints."""
    path = os.pathsep.join(filter(None, (str(PACKAGE), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": path, **(env or {})},
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{what}: not done after {TIMEOUT_S:,} s, measure fewer orders") from None
    if done.returncode:
        raise MeasurementError(f"{what}: {_why(done)}")
    return done.stdout


def _why(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == -signal.SIGKILL:
        return "its process was killed, as happens when memory runs out; measure fewer orders"
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return f"its process ended with status {done.returncode}: {last}"


def main() -> None:
    """Run the task on stdin."""
    from hftlab.benchmark.tasks import TASKS

    request = json.load(sys.stdin)
    try:
        answer = {"result": TASKS[request["task"]](**request["arguments"])}
    except HftlabError as error:
        answer = {"error": str(error)}
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")


if __name__ == "__main__":
    main()
    leave(0)
