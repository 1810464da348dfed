"""What commands take of memory, on ITCH files of several lengths: it must not grow with the file.

    python -m benchmarks.memory                      # 0.5 and 1 GB
    python -m benchmarks.memory --gigabytes 1 10     # other lengths
    python -m benchmarks.memory --keep DIR           # write the files there, and use those that are there

A file is one piece of a market after the other, each with references of its own, at later times of the day,
and with the orders that it leaves open deleted at its end: longer files have more messages and no more open
orders.

Measured by Linux, of each command's process: *resident* is the most it had in memory (VmHWM, exact), pages of
mapped files among them, the input's and those of libraries, which the system takes back when it needs them;
*its own* is the rest (RssAnon, looked at five times a second).
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hftlab.files import cpu_name
from tests.helpers import itch_encoder

PIECE = 2_000_000  # messages
SYMBOLS = 100
EVERY_S = 0.2
OPENS_NS, CLOSES_NS = 34_200 * 10**9, 16 * 3600 * 10**9
FIELDS = {"resident": "VmHWM", "its own": "RssAnon", "of files": "RssFile"}
COMMANDS = {
    "inspect": ["inspect", "FILE", "--json"],
    "convert": ["convert", "FILE", "-o", "OUT.parquet"],
    "rebuild": ["replay", "FILE", "--mode", "rebuild"],
    "touch": ["replay", "FILE", "--mode", "rebuild", "--record", "l1", "--out", "OUT"],
}


class Peak(NamedTuple):
    """What a command took."""

    mb: dict[str, int]  # by the names of FIELDS
    seconds: float


def write_file(path: Path, gigabytes: float, symbols: int = SYMBOLS, piece: int = PIECE) -> None:
    """A day of at least so many bytes."""
    start, events = _pieces(piece, symbols)
    span, references = int(events["ts"].max()) + 1, int(max(events["reference"].max(), events["new"].max()))
    wanted = round(gigabytes * 1e9)
    with path.open("wb") as file:
        itch_encoder.encoded(start).tofile(file)
        length = itch_encoder.encoded(events).nbytes
        pieces = -(-wanted // length)
        for number in range(pieces):
            part = events.copy()
            share = (events["ts"] + number * span) / (pieces * span)  # of the day until then
            part["ts"] = OPENS_NS + (share * (CLOSES_NS - OPENS_NS)).astype("i8")
            for name in ("reference", "new"):
                part[name] += np.uint64(number * references) * (events[name] > 0)
            itch_encoder.encoded(part).tofile(file)


def _pieces(messages: int, symbols: int) -> tuple[np.ndarray, np.ndarray]:
    """The start of the day, and a piece of it after which no order is open, its times from 0."""
    events = itch_encoder.market(messages, symbols, seed=1)
    start, events = events[: symbols + 1], events[symbols + 1 :]
    events["ts"] -= events["ts"].min()
    return start, np.concatenate((events, _deletes(events)))


def _deletes(events: np.ndarray) -> np.ndarray:
    """A D of each order that is open at the end."""
    kind = events["kind"]
    added, replaced = np.isin(kind, np.frombuffer(b"AF", "u1")), kind == ord("U")
    reduced, removed = np.isin(kind, np.frombuffer(b"ECX", "u1")), np.isin(kind, np.frombuffer(b"DU", "u1"))
    born = np.concatenate((events["reference"][added], events["new"][replaced]))
    rows = np.concatenate((np.flatnonzero(added), np.flatnonzero(replaced)))
    open_ = np.concatenate((events["shares"][added], events["shares"][replaced])).astype("i8")
    by_reference = np.argsort(born)
    born, rows, open_ = born[by_reference], rows[by_reference], open_[by_reference]
    np.subtract.at(
        open_, np.searchsorted(born, events["reference"][reduced]), events["shares"][reduced].astype("i8")
    )
    open_[np.searchsorted(born, events["reference"][removed])] = 0
    left = open_ > 0
    deletes = np.zeros(np.count_nonzero(left), itch_encoder.EVENT)
    deletes["kind"], deletes["reference"], deletes["ts"] = ord("D"), born[left], events["ts"].max()
    deletes["locate"] = events["locate"][rows[left]]
    return deletes


def peak(arguments: list[str]) -> Peak:
    """Run a command of hftlab, and look at its memory until it ends. Raises where it fails."""
    started, seen = time.perf_counter(), dict.fromkeys(FIELDS, 0)
    with subprocess.Popen([sys.executable, "-m", "hftlab", *arguments], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            for name, field in FIELDS.items():
                if found := re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE):
                    seen[name] = max(seen[name], int(found[1]) // 1000)
            time.sleep(EVERY_S)
    if process.returncode:
        raise SystemExit(f"hftlab {' '.join(arguments)}: ended with {process.returncode}")
    return Peak(seen, time.perf_counter() - started)


def measure(path: Path, command: str, symbol: str | None) -> Peak:
    """One command on one file; its output is deleted."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        words = {"FILE": str(path), "OUT": f"{folder}/run", "OUT.parquet": f"{folder}/out.parquet"}
        chosen = ["--symbols", symbol] if symbol else []
        return peak([words.get(word, word) for word in COMMANDS[command]] + chosen)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.5, 1.0], help="lengths of the files")
    parser.add_argument("--symbols", type=int, default=SYMBOLS, help=f"symbols in them ({SYMBOLS})")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--keep", metavar="DIR", help="where the files are kept")
    options = parser.parse_args()
    if not Path("/proc/self/status").exists():
        raise SystemExit("benchmarks.memory reads /proc, which is there on Linux")
    load = os.getloadavg()[0]
    print(f"{cpu_name()}, {os.cpu_count()} cores, load {load:.2f}, Python {platform.python_version()}")
    print(f"{'MB at the peak':24} {'GB':>6} {'resident':>9} {'its own':>9} {'of files':>9} {'seconds':>9}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.keep or temporary)
        for gigabytes in options.gigabytes:
            path = folder / f"{gigabytes:g}GBx{options.symbols}-2024-01-02.NASDAQ_ITCH50"
            if not path.exists():
                partial = path.with_suffix(".partial")
                write_file(partial, gigabytes, options.symbols)
                partial.rename(path)
            for command in options.commands:
                for symbol in (None, itch_encoder.stock(1)):
                    took = measure(path, command, symbol)
                    name = f"{command}, {'one symbol' if symbol else f'{options.symbols} symbols'}"
                    cells = " ".join(f"{mb:9,}" for mb in took.mb.values())
                    print(
                        f"{name:24} {path.stat().st_size / 1e9:6.2f} {cells} {took.seconds:9.1f}", flush=True
                    )
            if not options.keep:
                path.unlink()


if __name__ == "__main__":
    main()
