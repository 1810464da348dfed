"""Results of measurements, in memory and as JSON; no measurement is without the digest of its run."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from hftlab.benchmark.cases import Case
from hftlab.benchmark.machine import SPREAD, Machine
from hftlab.errors import FormatError, UsageError
from hftlab.files import new_file
from hftlab.latency.histogram import Histogram

FORMAT, VERSION = "hftlab-bench", 1
DIGEST = re.compile(r"[0-9a-f]{32}")


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram in ns: of service (start to end), response (due to end) or call (seen from Python)."""

    kind: str
    count: int
    mean: float
    p50: int
    p95: int
    p99: int
    p99_9: int
    p99_99: int
    max: int
    jitter: int  # p99 - p50
    overhead_ns: float  # one reading of the clock, which every value contains
    interruptions: str  # one sentence: stalls beside those of an idle loop
    hdr: str  # the whole histogram, as HdrHistogram's tools read it

    @classmethod
    def of(cls, kind: str, histogram: Histogram, overhead_ns: float, interruptions: str) -> Latency:
        """The figures of a histogram."""
        at = histogram.percentile
        return cls(
            kind=kind,
            count=histogram.count,
            mean=histogram.mean,
            p50=at(50),
            p95=at(95),
            p99=at(99),
            p99_9=at(99.9),
            p99_99=at(99.99),
            max=histogram.max,
            jitter=histogram.jitter,
            overhead_ns=overhead_ns,
            interruptions=interruptions,
            hdr=histogram.encode().decode(),
        )

    @property
    def histogram(self) -> Histogram:
        """The whole histogram."""
        return Histogram.decode(self.hdr)


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The first call in a fresh process."""

    process_s: float  # from starting the interpreter to its end
    import_s: float  # `import hftlab`
    first_call_s: float  # kernels loaded (or compiled) and a thousand commands run


class Cold(msgspec.Struct, frozen=True, kw_only=True):
    """How long the first result takes; `compiled` without any compile cache, None if not measured."""

    cached: Start
    compiled: Start | None


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """The measurement of one case. Raises UsageError without a digest: a speed of what, otherwise?"""

    case: Case
    digest: str
    times_ns: tuple[float, ...]  # ns per command of each repetition
    warmup: int
    pinned: tuple[int, ...]  # cores; empty: left to the system
    cpu_share: float  # processor time over wall time while repetitions ran
    busy_share: float | None  # of an open loop: the time in which it was not waiting for commands
    peak_bytes: int | None  # of the whole process while it ran
    memory_bytes: int | None  # by how much that is above the level before the first run, with flow and tape
    page_faults: float  # a repetition
    major_page_faults: float
    preemptions: float
    latency: tuple[Latency, ...] = ()
    cold: Cold | None = None

    def __post_init__(self) -> None:
        if not DIGEST.fullmatch(self.digest):
            raise UsageError(f"measurement: found digest {self.digest!r}, expected 32 hexadecimal digits")
        if not self.times_ns:
            raise UsageError("measurement: found no repetition, expected one or more")

    @property
    def ns(self) -> float:
        """Median ns per command."""
        return statistics.median(self.times_ns)

    @property
    def best(self) -> float:
        """The fastest repetition, ns per command."""
        return min(self.times_ns)

    @property
    def spread(self) -> float:
        """Distance between the quartiles of the repetitions over their median."""
        return spread(self.times_ns)

    @property
    def commands_per_s(self) -> float:
        """Commands per second at the median: served, not offered."""
        return 1e9 / self.ns

    def as_dict(self) -> dict[str, Any]:
        """All fields and the figures derived from them."""
        derived = {
            "name": self.case.name,
            "ns_per_command": self.ns,
            "best_ns": self.best,
            "spread": self.spread,
            "commands_per_s": self.commands_per_s,
        }
        return derived | msgspec.to_builtins(self)


def spread(times: Sequence[float]) -> float:
    """Distance between the quartiles over the median; 0 of fewer than two."""
    if len(times) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return (high - low) / middle


class Report(msgspec.Struct, kw_only=True):
    """A whole run of `hftlab bench`."""

    created: str
    machine: Machine
    isolated: bool  # each case in a process of its own
    measurements: tuple[Measurement, ...]
    targets: tuple[dict[str, Any], ...] = ()

    def noise(self) -> list[str]:
        """Reasons to doubt these figures; empty on a quiet machine."""
        unsteady = [m.case.name for m in self.measurements if m.spread > SPREAD]
        reasons = self.machine.noise()
        if unsteady:
            which = f"{len(unsteady)} of {len(self.measurements)} cases"
            reasons.append(f"repetitions of {which} differ by over {SPREAD:.0%}")
        return reasons

    def as_dict(self) -> dict[str, Any]:
        """The content of a result file."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "created": self.created,
            "noise": self.noise(),
            "isolated": self.isolated,
            "machine": msgspec.to_builtins(self.machine),
            "cases": [m.as_dict() for m in self.measurements],
            "targets": list(self.targets),
        }

    def to_json(self) -> str:
        """The text of a result file."""
        return json.dumps(self.as_dict(), indent=1) + "\n"

    def write(self, path: str | Path) -> None:
        """Write a result file. Raises OutputError if it can't be written."""
        with new_file(path) as target:
            target.write_text(self.to_json(), encoding="utf-8")


def now() -> str:
    """The time now, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_report(path: str | Path) -> Report:
    """A result that `Report.write` wrote.

    Raises FormatError for a file that is no such result, or one of another version or without its digests.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FormatError(path, f"no JSON ({error})", "a result of hftlab bench --json") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise FormatError(path, "JSON of something else", "a result of hftlab bench --json")
    if found.get("version") != VERSION:
        raise FormatError(path, f"version {found.get('version')!r}", f"version {VERSION}; measure it again")
    try:
        return msgspec.convert({**found, "measurements": found["cases"]}, Report)
    except KeyError as error:
        raise FormatError(path, f"no {error}", "a whole result") from None
    except (msgspec.ValidationError, UsageError) as error:
        raise FormatError(path, f"a damaged result ({error})", "one as it was written") from None
