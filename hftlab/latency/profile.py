"""`Profile`: the measurements of a profiled run, as histograms, tables, a page and files."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from hftlab import schema
from hftlab.codes import EventType, LatencyStage
from hftlab.engine.runner import TapeRun
from hftlab.kernels.engine.profiled import (
    SAMPLE_END,
    SAMPLE_INTENDED,
    SAMPLE_ROW,
    SAMPLE_STAGES,
    SAMPLE_START,
)
from hftlab.kernels.primitives.cycle_clock import DURATION, GAPS, LOST, PASSES, ROW, SPENT, START
from hftlab.kernels.primitives.stage_clock import STAGES
from hftlab.latency.clock import Clock
from hftlab.latency.recorded import Latencies


@dataclass(frozen=True)
class Spin:
    """The gaps of an idle loop: those over the threshold are interruptions by the machine."""

    seconds: float  # in the loop
    threshold_ns: int
    passes: int  # turns of the loop
    gaps: int  # over the threshold
    lost_ns: int  # in those
    longest: pl.DataFrame  # ts, duration_ns: the longest, longest first

    @classmethod
    def of(cls, clock: Clock, seen: np.ndarray, longest: np.ndarray, threshold_ns: int) -> Spin:
        """From the arrays that `kernels.primitives.cycle_clock` has filled."""
        frame = _longest(clock, longest).drop("row")
        return cls(
            int(seen[SPENT]) / 1e9, threshold_ns, int(seen[PASSES]), int(seen[GAPS]), int(seen[LOST]), frame
        )

    @property
    def longest_ns(self) -> int:
        """The longest gap; 0 where none was over the threshold."""
        return max(self.longest["duration_ns"].to_list(), default=0)

    @property
    def per_second(self) -> float:
        """Gaps over the threshold."""
        return self.gaps / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Counts and times."""
        names = ("seconds", "threshold_ns", "gaps", "per_second", "lost_ns", "longest_ns")
        return {name: getattr(self, name) for name in names}


def _longest(clock: Clock, longest: np.ndarray) -> pl.DataFrame:
    found = longest[longest[:, DURATION] > 0][::-1]
    return pl.DataFrame(
        {
            "row": found[:, ROW],
            "ts": pl.Series(clock.to_utc(found[:, START]), dtype=pl.Int64).cast(pl.Datetime("ns", "UTC")),
            "duration_ns": found[:, DURATION],
        }
    )


@dataclass(eq=False)
class Profile(Latencies):
    """Latencies of a run, in ns.

    Beside what `Latencies` has: `stalls` are the longest services. `idle` is a loop that did nothing for as
    long as the run took, right after it, and `waits` (None without a rate) the time in which the run itself
    waited for commands: interruptions in either come from the machine. Times contain `readings` of the
    clock, one per command unless stages are measured.
    """

    run: TapeRun
    clock: Clock
    readings: int  # of the clock, within all commands
    unprofiled_s: float | None  # the same run without a clock in it
    idle: Spin
    waits: Spin | None
    machine: dict[str, int]  # what happened to the process meanwhile: page faults, switches
    digest: str

    @property
    def rows(self) -> int:
        """Commands measured."""
        return self.run.tape.rows

    @property
    def stalls(self) -> pl.DataFrame:
        """The longest services: row, seq, event type, start and duration, the longest first."""
        frame = _longest(self.clock, self.probe.stalls)
        rows = frame["row"].to_numpy()
        actions = self.run.tape.checked.columns.action[rows]
        return frame.select(
            "row",
            pl.Series("seq", self.run.tape.seq(rows), dtype=pl.Int64),
            pl.Series("event_type", [EventType(int(a)).name for a in actions], dtype=pl.String),
            "ts",
            "duration_ns",
        )

    @property
    def latency(self) -> pl.DataFrame:
        """The `latency` table: evenly spaced commands, at most `samples` of the run."""
        return schema.to_frame(self.latency_table())

    def latency_table(self) -> pa.Table:
        """The same as Arrow, with units (see hftlab.schema): a row per command, then one for each stage.

        Stages are laid one after the other, from the start of the command to its end.
        """
        samples = self.probe.samples
        measured = STAGES if self.settings["stages"] else ()
        # a sample has the length of each stage; their running sum gives the border between two
        start, end = samples[:, SAMPLE_START], samples[:, SAMPLE_END]
        borders = start + np.cumsum(samples[:, SAMPLE_STAGES:], axis=1).T
        starts = np.stack([start, start, *borders[:-1]][: 1 + len(measured)], axis=1).ravel()
        ends = np.stack([end, *borders][: 1 + len(measured)], axis=1).ravel()
        each = 1 + len(measured)
        rows = np.repeat(samples[:, SAMPLE_ROW], each)
        intended = np.repeat(samples[:, SAMPLE_INTENDED], each)
        stage = np.tile(np.array([LatencyStage.COMMAND, *measured], np.int8), len(samples))
        tape = self.run.tape
        return pa.Table.from_arrays(
            [
                pa.array(tape.seq(rows)),
                schema.code_array(tape.checked.columns.action[rows].astype(np.int8), EventType),
                schema.code_array(stage, LatencyStage),
                *(pa.array(self.clock.to_utc(t)).view(schema.TIMESTAMP) for t in (intended, starts, ends)),
            ],
            schema=schema.LATENCY,
        )

    def summary(self) -> dict[str, Any]:
        """Everything but the tables, for programs."""
        return {
            **self.settings,
            "rows": self.rows,
            "digest": self.digest,
            "readings_per_command": self.readings / max(1, self.rows),
            "clock": self.clock.as_dict(),
            "seconds": self.seconds,
            "ns_per_command": 1e9 * self.seconds / max(1, self.rows),
            "ns_per_command_unprofiled": (
                None if self.unprofiled_s is None else 1e9 * self.unprofiled_s / max(1, self.rows)
            ),
            "service": self.service.summary(),
            "response": self.response.summary() if self.response is not None else None,
            "outside": self.service.outside + (self.response.outside if self.response is not None else 0),
            "over_threshold": self.over_threshold,
            "idle": self.idle.as_dict(),
            "waits": self.waits.as_dict() if self.waits is not None else None,
            "machine": dict(self.machine),
        }

    @property
    def over_threshold(self) -> int:
        """Commands whose service took longer than what counts as an interruption of an idle loop."""
        frame = self.service.to_frame()
        return int(frame.filter(pl.col("lowest") > self.idle.threshold_ns)["count"].sum())

    def verdict(self) -> str:
        """One sentence: stalls of the run beside those of an idle loop of the same length."""
        return (
            f"{self.over_threshold:,} of {self.rows:,} commands took over {self.idle.threshold_ns:,} ns in "
            f"{self.seconds:.3f} s, the longest {self.service.max:,} ns; an idle loop had {self.idle.gaps:,} "
            f"interruptions as long in {self.idle.seconds:.3f} s, the longest {self.idle.longest_ns:,} ns"
        )

    def __repr__(self) -> str:
        return f"<Profile {self._described()}, digest {self.digest}>"

    def _repr_html_(self) -> str:
        body = self.to_frame()._repr_html_()
        clock = f"{self.clock.source}, one reading {self.clock.overhead_ns:.0f} ns"
        return f"{body}<p>{html.escape(self.verdict())}. {html.escape(clock)}.</p>"
