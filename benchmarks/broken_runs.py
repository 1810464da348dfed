"""Short runs of every command on broken input: how they end, and how long leaving takes.

    python -m benchmarks.broken_runs [--runs 500] [--jobs 2] [--seed 0]

Each run is a process of its own. It must end with status 0, 1 or 2 within a minute; what went wrong is one
line on stderr. Printed are the statuses by command, and the time from that line to the end of the process.
Exit status 1 where a run broke the rule, with its command.
"""

from __future__ import annotations

import argparse
import gzip
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample.parquet"
TIMEOUT_S = 60
ALLOWED = {0, 1, 2}

CONTENTS = {  # small, each broken in its own way
    "empty.csv": b"",
    "nothing.parquet": b"",
    "noise.bin": bytes(range(256)) * 8,
    "header.csv": b"ts,action,order_id,side,price,qty\n",
    "cut.csv": b"ts,action,order_id,side,price,qty\n1,NEW,1,BUY,1.5",
    "word.csv": b"ts,action,order_id,side,price,qty\n1,NEW,1,BUY,1.5,many\n",
    "wide.csv": b"ts,action,order_id\n1,NEW,1,2,3,4\n",
    "bytes.csv": b"ts,action,order_id,side,price,qty\n1,NEW,1,BUY,\xff\xfe,1\n",
    "zeros.csv": b"a,b\n\0\0\0\0\n",
    "broken.ndjson": b'{"ts": 1, "action": "NEW"}\n{"ts": \n',
    "text.parquet": b"PAR1 is how this begins, and PAR1",
    "text.arrow": b"ARROW1\0\0 is how this begins, and ARROW1",
    "text.tape": b"ARROW1\0\0",
    "text.dbn": b"DBN\x03\xff\xff\xff\x7f",
    "text.gz": gzip.compress(b"ts,action\n1,NEW\n")[:-9],
    "text.zst": b"\x28\xb5\x2f\xfd\x00\x00",
    "text.zip": b"PK\x03\x04 and no more",
    "AMZN_2012-06-21_34200000_57600000_message_1.csv": b"34200.1,1,11,100,1000000,1\n34200.2,9,x,1,1,1\n",
    "01302019.NASDAQ_ITCH50": b"\0\x0cS\0\0\0\0\0\0\0\0\0\0O\0\xff",
    "pitch.csv": b"28800011A000000000001B000100SPY   0000100000Y\n2880\n",
    "settings.toml": b"[replay\nthreads = 0",
    "limits.toml": b"[risk]\nmax_order_qty = nan\n",
}


class Run(NamedTuple):
    """One process that has ended."""

    arguments: tuple[str, ...]
    status: int
    stderr: str
    leaving_s: float | None  # from the first line on stderr to the end; None without one


def write_inputs(folder: Path) -> list[Path]:
    """The broken files: those above, halves of a whole one, a folder, and one that isn't there."""
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    whole = SAMPLE.read_bytes()
    (folder / "half.parquet").write_bytes(whole[: len(whole) // 2])
    (folder / "flipped.parquet").write_bytes(whole[:1000] + bytes(64) + whole[1064:])
    (folder / "folder.csv").mkdir()
    return sorted([*folder.iterdir(), folder / "missing.csv"])


def commands(path: Path, folder: Path) -> Iterator[tuple[str, ...]]:
    """Every command with a file, where it takes one."""
    file, out = str(path), str(folder / "none" / "out.parquet")
    yield from (
        ("inspect", file),
        ("replay", file),
        ("replay", file, "--mode", "rebuild", "--out", str(folder / "none" / "run")),
        ("replay", str(SAMPLE), "--config", file),
        ("risk", file, "--limits", file),
        ("verify", file),
        ("certify", file),
        ("compare", file, file),
        ("convert", file, "-o", str(folder / "none.parquet")),
        ("generate", "-o", out, "--messages", "10"),
        ("bench", "--config", file),
        ("plot", file),
    )


def run(arguments: tuple[str, ...]) -> Run:
    """One command in a process of its own."""
    words = [sys.executable, "-m", "hftlab", *arguments]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        try:
            first = child.stderr.readline()
            said = time.perf_counter()
            rest = child.communicate(timeout=TIMEOUT_S)[1]
            left = time.perf_counter() - said if first else None
        except subprocess.TimeoutExpired:
            child.kill()
            return Run(arguments, -9, f"not done after {TIMEOUT_S} s", None)
    return Run(arguments, child.returncode, first + rest, left)


def is_right(done: Run) -> bool:
    """Whether a run kept to the contract."""
    if done.status not in ALLOWED or "Traceback" in done.stderr or "this is a bug" in done.stderr:
        return False
    if (
        done.arguments[0] == "inspect" and done.status == 1 and not done.stderr
    ):  # its table says what is wrong
        return True
    return done.status == 0 or done.stderr.count("\n") == 1


def main() -> int:
    """Run them all and say how they ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(asked.jobs) as pool:
        folder = Path(name)
        every = [words for path in write_inputs(folder) for words in commands(path, folder)]
        random.Random(asked.seed).shuffle(every)
        chosen = [every[number % len(every)] for number in range(asked.runs)]
        done = list(pool.map(run, chosen))
    return report(done)


def report(done: list[Run]) -> int:
    """Print the statuses by command and the times; 1 where one was wrong."""
    for command in sorted({each.arguments[0] for each in done}):
        statuses = Counter(each.status for each in done if each.arguments[0] == command)
        print(f"{command:10}", ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())))
    times = sorted(each.leaving_s for each in done if each.leaving_s is not None)
    if times:
        print(f"leaving: median {times[len(times) // 2]:.3f} s, the slowest {times[-1]:.3f} s")
    wrong = [each for each in done if not is_right(each)]
    for each in wrong:
        print(f"status {each.status}: hftlab {' '.join(each.arguments)}\n{each.stderr}", file=sys.stderr)
    print(f"{len(done):,} runs, {len(wrong):,} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
