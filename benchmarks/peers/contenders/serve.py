"""What every contender shares: answering on stdin and stdout, and the forms in which results are compared.

Nothing but numpy is imported here, because it runs in the peers' environment. A request is a line of JSON,
``{"task": "bbo", "path": FILE, "to": FILE or null}``, and so is the answer, ``{"seconds": 0.1, "cpu": 0.1}``,
where `cpu` counts all threads of the process. What a task makes of the file beforehand is not in the time.
With `to` the result is also written there in its common form.

============ ===========================================================================================
form         columns
============ ===========================================================================================
`bbo`        message (0-based in the file), locate, bid_px, bid_sz, ask_px, ask_sz: a row for each message
             that changed a price or a size; prices in 1e-4, 0 where there is none
`best`       the same without message: the last row of each instrument, by locate
`levels`     locate, side, px, sz: all that rests at the end, by locate, side and price
`references` message, reference: each order that a message is about, a replaced one before the new one
`lines`      ts (ns since the first), order_id, side, px, size: LOBSTER's messages
`fills`      maker, taker, px, qty: ids, ticks and lots, in the order in which they happened
============ ===========================================================================================
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

BBO = ("bid_px", "bid_sz", "ask_px", "ask_sz")
FILL = ("maker", "taker", "px", "qty")


class Task(NamedTuple):
    """One thing a contender can do."""

    run: Callable[[Any], Any]  # what is timed, from a path (or what was made of it) to a result
    form: Callable[[Any, str], dict[str, np.ndarray]]  # the result, and the path, in a common form
    prepare: Callable[[str], Any] = str  # what a path becomes beforehand


def serve(package: str, tasks: dict[str, Task]) -> None:
    """Answer until stdin ends; what packages print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"version": version(package), "tasks": list(tasks)}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _answer(tasks[request["task"]], request["path"], request["to"])
        except Exception as error:  # whatever a package raises is what is reported of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def _answer(task: Task, path: str, to: str | None) -> dict[str, float]:
    source = task.prepare(path)
    gc.collect()
    gc.freeze()  # what was prepared is not looked through while the clock runs
    cpu, started = time.process_time(), time.perf_counter()
    result = task.run(source)
    answer = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    if to is not None:
        np.savez(to, **task.form(result, path))
    gc.unfreeze()
    return answer


def commands(path: str) -> list[tuple[bool, int, int, int, int]]:
    """A flow as tuples: whether it is NEW (CANCEL otherwise), side, id, ticks, quantity."""
    with np.load(path) as columns:
        return list(
            zip(
                *(columns[name].tolist() for name in ("new", "side", "order_id", "price", "qty")), strict=True
            )
        )


def fills_of(rows: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Form `fills` of tuples (maker, taker, px, qty)."""
    table = np.array(rows, np.int64).reshape(-1, len(FILL)).T
    return {f"fills_{name}": column for name, column in zip(FILL, table, strict=True)}


def bbo_changes(message: np.ndarray, locate: np.ndarray, *values: np.ndarray) -> dict[str, np.ndarray]:
    """Form `bbo`, of rows that may be several for a message or without a change."""
    order = np.lexsort((np.arange(message.size), message, locate))
    message, locate, *values = (column[order].astype(np.int64) for column in (message, locate, *values))
    last = np.append((message[1:] != message[:-1]) | (locate[1:] != locate[:-1]), True)[: message.size]
    message, locate, *values = (column[last] for column in (message, locate, *values))
    same = np.ones(message.size, bool)
    for column in (locate, *values):
        same[1:] &= column[1:] == column[:-1]
    first = np.append(True, locate[1:] != locate[:-1])[: message.size]
    same[first] = np.all([column[first] == 0 for column in values], axis=0)
    message, locate, *values = (column[~same] for column in (message, locate, *values))
    order = np.lexsort((locate, message))
    named = dict(zip(("message", "locate", *BBO), (message, locate, *values), strict=True))
    return {f"bbo_{name}": column[order] for name, column in named.items()}


def best_of(rows: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Form `best` of tuples (locate, bid_px, bid_sz, ask_px, ask_sz); empty books are left out."""
    table = np.array(sorted(row for row in rows if any(row[1:])), np.int64).reshape(-1, 5).T
    return {f"best_{name}": column for name, column in zip(("locate", *BBO), table, strict=True)}


def levels_of(rows: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Form `levels` of tuples (locate, side, px, sz)."""
    table = np.array(sorted(rows), np.int64).reshape(-1, 4).T
    return {
        f"levels_{name}": column for name, column in zip(("locate", "side", "px", "sz"), table, strict=True)
    }


def references_of(message: np.ndarray, reference: np.ndarray) -> dict[str, np.ndarray]:
    """Form `references`."""
    return {
        "references_message": message.astype(np.int64),
        "references_reference": reference.astype(np.int64),
    }
