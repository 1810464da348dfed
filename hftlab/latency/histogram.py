"""`Histogram`: latencies in HdrHistogram's layout, from recording to percentiles, tables and files.

Every figure is what HdrHistogram gives for the same counts: a percentile is the highest value that
shares a bucket with it, a mean is over the middles of the buckets. Values are whole numbers of one unit,
nanoseconds here, from 0 to `highest`, distinguished to `digits` significant digits.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hftlab.errors import FormatError, UsageError
from hftlab.files import new_file
from hftlab.kernels.primitives.histogram import COUNT, MAX, MIN, OUTSIDE, TALLY, record_all
from hftlab.latency.histogram_files import Payload, log_lines, pack, read_log, unpack

HIGHEST = 3_600_000_000_000  # an hour in ns
DIGITS = 3
PERCENTILES = (50.0, 95.0, 99.0, 99.9, 99.99)
MAX_VALUE = 2**63 - 1


def half_magnitude(digits: int) -> int:
    """Bits of a half bucket: the smallest that distinguishes 2 x 10^digits values."""
    return (2 * 10**digits - 1).bit_length() - 1


def bucket_count(highest: int, half: int) -> int:
    """Doublings needed to reach a value."""
    return max(1, highest.bit_length() - half)


def counts_length(highest: int, digits: int) -> int:
    """Size of the counts for values up to `highest`."""
    half = half_magnitude(digits)
    return (bucket_count(highest, half) + 1) << half


class Histogram:
    """Counts of values in buckets whose width is a fixed share of the value."""

    def __init__(
        self, values: Iterable[int] | None = None, *, highest: int = HIGHEST, digits: int = DIGITS
    ) -> None:
        """An empty histogram, or one of `values` (see `record`).

        Raises UsageError for `digits` outside 1 to 5 or a `highest` outside 2 to 2^63 - 1.
        """
        if digits not in range(1, 6):
            raise UsageError(f"digits: found {digits!r}, expected 1 to 5")
        if not isinstance(highest, int | np.integer) or not 2 <= highest <= MAX_VALUE:
            raise UsageError(f"highest: found {highest!r}, expected a whole number from 2 to 2^63 - 1")
        self.highest, self.digits = int(highest), int(digits)
        self.half = half_magnitude(self.digits)
        self.counts = np.zeros(counts_length(self.highest, self.digits), np.int64)
        self.tally = np.zeros(TALLY, np.int64)
        if values is not None:
            self.record(values)

    @classmethod
    def of_counts(cls, counts: np.ndarray, tally: np.ndarray, highest: int, digits: int) -> Histogram:
        """A histogram over what a kernel has recorded; shares the arrays."""
        histogram = cls.__new__(cls)
        histogram.highest, histogram.digits = highest, digits
        histogram.half = half_magnitude(digits)
        histogram.counts, histogram.tally = counts, tally
        return histogram

    # -- recording

    def record(self, values: Iterable[int] | int) -> Histogram:
        """Count one or many values. Raises UsageError, with the place, for one that has no bucket."""
        given: Any = values  # an iterator has no dimension until it is a list
        array = np.atleast_1d(np.asarray(given if np.ndim(given) or np.isscalar(given) else list(given)))
        if array.size and array.dtype.kind not in "iu":
            raise UsageError(f"values: found {array.dtype}, expected whole numbers")
        array = array.ravel()
        bad = np.flatnonzero((array < 0) | (array > self.limit))
        if bad.size:
            raise UsageError(f"value {bad[0]}: found {array[bad[0]]}, expected 0 to {self.limit}")
        record_all(self.counts, self.tally, self.half, np.ascontiguousarray(array, np.int64))
        return self

    def merge(self, other: Histogram) -> Histogram:
        """Add the counts of another histogram of the same layout. Raises UsageError for a different one."""
        if (self.digits, self.counts.size) != (other.digits, other.counts.size):
            mine, found = ((h.digits, h.highest) for h in (self, other))
            raise UsageError(f"histogram: found (digits, highest) {found}, expected {mine} to merge")
        # MIN of an empty histogram is 0, which is no minimum
        if other.count and (not self.count or other.tally[MIN] < self.tally[MIN]):
            self.tally[MIN] = other.tally[MIN]
        self.tally[MAX] = max(self.tally[MAX], other.tally[MAX])
        self.tally[[COUNT, OUTSIDE]] += other.tally[[COUNT, OUTSIDE]]
        self.counts += other.counts
        return self

    # -- reading

    @property
    def limit(self) -> int:
        """The largest value that has a bucket, `highest` or a little more."""
        return min(MAX_VALUE, self._highest_equivalent(self._value_at(self.counts.size - 1)))

    @property
    def count(self) -> int:
        """Values recorded."""
        return int(self.tally[COUNT])

    @property
    def outside(self) -> int:
        """Values that a kernel left out because they have no bucket: negative, or beyond `limit`."""
        return int(self.tally[OUTSIDE])

    @property
    def min(self) -> int:
        """The lowest value that shares a bucket with the smallest recorded; 0 of none."""
        return self._value_at(self._index_of(int(self.tally[MIN]))) if self.count else 0

    @property
    def max(self) -> int:
        """The highest value that shares a bucket with the largest recorded; 0 of none."""
        return self._highest_equivalent(int(self.tally[MAX])) if self.tally[MAX] else 0

    @property
    def mean(self) -> float:
        """Mean of the middles of the buckets."""
        total = sum(count * middle for middle, count in self._middles())
        return float(total) / self.count if self.count else 0.0

    @property
    def stddev(self) -> float:
        """Standard deviation of the same."""
        mean = self.mean
        squares = 0.0
        for middle, count in self._middles():
            squares += (middle - mean) * (middle - mean) * count
        return math.sqrt(squares / self.count) if self.count else 0.0

    @property
    def jitter(self) -> int:
        """The 99th percentile minus the median."""
        return self.percentile(99) - self.percentile(50)

    def percentile(self, percent: float) -> int:
        """The value that `percent` of the recorded are at or below, to the precision of the buckets."""
        if not 0 <= percent <= 100:
            raise UsageError(f"percentile: found {percent!r}, expected 0 to 100")
        if not self.count:
            return 0
        # rounded as HdrHistogram rounds, so that both give the same value
        wanted = max(1, int(percent * self.count / 100 + 0.5))
        value = self._value_at(int(np.searchsorted(np.cumsum(self.counts), wanted)))
        return self._highest_equivalent(value) if percent else value

    def summary(self) -> dict[str, float]:
        """Count, smallest, percentiles, largest, mean, standard deviation and jitter."""
        named = {f"p{percent:g}": self.percentile(percent) for percent in PERCENTILES}
        return (
            {"count": self.count, "min": self.min, "mean": self.mean, "stddev": self.stddev}
            | named
            | {
                "max": self.max,
                "jitter": self.jitter,
            }
        )

    def to_frame(self) -> pl.DataFrame:
        """One row per bucket in use: lowest and highest value, count, cumulative share."""
        used = np.flatnonzero(self.counts)
        lowest = [self._value_at(i) for i in used.tolist()]
        highest = [self._highest_equivalent(value) for value in lowest]
        counts = self.counts[used]
        share = np.cumsum(counts) / max(1, self.count)
        return pl.DataFrame(
            {"lowest": lowest, "highest": highest, "count": counts, "cumulative": share},
            {"lowest": pl.Int64, "highest": pl.Int64, "count": pl.Int64, "cumulative": pl.Float64},
        )

    # -- files

    def encode(self) -> bytes:
        """HdrHistogram's V2 compressed form in base64."""
        return pack(Payload(self.counts, self.digits, self.highest))

    @classmethod
    def decode(cls, text: bytes | str) -> Histogram:
        """The histogram of `encode`, or of another writer of that form. Raises FormatError."""
        payload = unpack(text, counts_length)
        histogram = cls.of_counts(payload.counts, np.zeros(TALLY, np.int64), payload.highest, payload.digits)
        used = np.flatnonzero(payload.counts)
        if used.size:  # the form has no minimum and maximum; their buckets are as exact as the counts
            least, most = histogram._value_at(int(used[0])), histogram._value_at(int(used[-1]))
            most = min(MAX_VALUE, histogram._highest_equivalent(most))
            histogram.tally[:] = int(payload.counts.sum()), least, most, 0
        return histogram

    def hgrm(self, scale: float = 1.0, ticks: int = 5) -> str:
        """The percentile distribution as HdrHistogram prints it; values are divided by `scale`."""
        digits = self.digits
        lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
        for value, level, total in self._percentile_steps(ticks):
            line = f"{value / scale:12.{digits}f} {level / 100:2.12f} {total:10d}"
            lines.append(line if level == 100 else f"{line} {1 / (1 - level / 100):14.2f}")
        doublings = bucket_count(self.highest, self.half)
        for (left, first), (right, second) in (
            (("Mean    ", self.mean / scale), ("StdDeviation  ", self.stddev / scale)),
            (("Max     ", self.max / scale), ("TotalCount    ", self.count)),
        ):
            lines.append(f"#[{left}= {first:12.{digits}f}, {right} = {second:12.{digits}f}]")
        lines.append(f"#[Buckets = {doublings:12d}, SubBuckets     = {2 << self.half:12d}]")
        return "\n".join(lines) + "\n"

    def write_hgrm(self, path: str | Path, scale: float = 1.0) -> Path:
        """Write `hgrm` to a file. Raises OutputError."""
        return _write(path, self.hgrm(scale))

    def write_hlog(self, path: str | Path, start_s: float = 0.0, length_s: float = 0.0) -> Path:
        """Write a log of this one interval, which began `start_s` after the epoch. Raises OutputError."""
        return write_hlog(path, [(None, start_s, length_s, self)])

    # -- buckets

    def _index_of(self, value: int) -> int:
        doublings = (value | ((2 << self.half) - 1)).bit_length() - 1 - self.half
        return (doublings << self.half) + (value >> doublings)

    def _value_at(self, index: int) -> int:
        doublings = max(0, (index >> self.half) - 1)
        return (index - (doublings << self.half)) << doublings

    def _highest_equivalent(self, value: int) -> int:
        return self._value_at(self._index_of(value) + 1) - 1

    def _middles(self) -> Iterator[tuple[int, int]]:
        """(middle of the bucket, count) of each bucket in use."""
        for index in np.flatnonzero(self.counts).tolist():
            low = self._value_at(index)
            yield low + ((self._value_at(index + 1) - low) >> 1), int(self.counts[index])

    def _percentile_steps(self, ticks: int) -> Iterator[tuple[int, float, int]]:
        """(value, percentile level, count up to it), each half of what is left to 100 in so many steps."""
        level, total = 0.0, 0
        for index in np.flatnonzero(self.counts).tolist():
            total += int(self.counts[index])
            value = self._highest_equivalent(self._value_at(index))
            # HdrHistogram's own steps: finer and finer towards 100 %
            while level < 100 and 100.0 * total / self.count >= level:
                yield value, level, total
                halves = math.pow(2, math.log(100 / (100.0 - level)) / math.log(2) + 1)
                level += 100.0 / (ticks * halves)
                if total == self.count:
                    yield value, 100.0, total
                    return

    def __repr__(self) -> str:
        parts = [f"p{p:g} {self.percentile(p):,}" for p in PERCENTILES]
        return f"<Histogram {self.count:,} values, {', '.join(parts)}, max {self.max:,}>"

    def _repr_html_(self) -> str:
        cells = self.summary().items()
        rows = "".join(f"<tr><th style='text-align:left'>{k}</th><td>{v:,.6g}</td></tr>" for k, v in cells)
        title = html.escape(f"{self.count:,} values")
        return f"<table><caption>{title}</caption>{rows}</table>"


Interval = tuple[str | None, float, float, Histogram]  # tag, start in s, length in s


def write_hlog(path: str | Path, intervals: Iterable[Interval]) -> Path:
    """Write an interval log, largest values in ms. Raises OutputError, and UsageError for a bad tag."""
    rows = [(tag, start, length, h.max / 1e6, h.encode()) for tag, start, length, h in intervals]
    return _write(path, "\n".join(log_lines(rows)) + "\n")


def read_hlog(path: str | Path) -> list[Interval]:
    """The intervals of a log, this package's or another's. Raises FormatError, naming the line."""
    intervals: list[Interval] = []
    for line, tag, start, length, text in read_log(path):
        try:
            intervals.append((tag, start, length, Histogram.decode(text)))
        except FormatError as error:
            raise FormatError(path, error.found, error.expected, line) from None
    return intervals


def _write(path: str | Path, text: str) -> Path:
    with new_file(path) as target:
        target.write_text(text, encoding="utf-8")
    return Path(path)
