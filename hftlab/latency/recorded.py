"""`Latencies`: the times of profiled runs, as histograms by event type, effect, book state and stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hftlab.codes import BookState, Code, Effect, EventType, LatencyStage
from hftlab.errors import UsageError
from hftlab.kernels.codes import BOOK_STATES, EFFECTS, STAGE_LOOKUP
from hftlab.kernels.engine.profiled import RESPONSE, SERVICE, Probe
from hftlab.kernels.primitives.histogram import COUNT, MAX, MIN
from hftlab.latency.histogram import Histogram, write_hlog

VIEWS: dict[str, type[Code]] = {"effect": Effect, "state": BookState, "stage": LatencyStage}
PERCENTILES = {"p50": 50, "p95": 95, "p99": 99, "p99_9": 99.9, "p99_99": 99.99}
Pairs = dict[tuple[str, str], tuple[Histogram, Histogram | None]]
LAYOUT = ("digits", "highest", "stages")  # settings that must agree for histograms to be added up


@dataclass(eq=False)
class Latencies:
    """Latencies in ns.

    `service` and `response` (None without a rate) are histograms over all commands; `cells` the same by event
    type and effect, `states` by event type and the book it found, `stages` the service by
    stage.
    """

    settings: dict[str, Any]
    probe: Probe
    seconds: float  # from the first command to the end of the last

    def _of(self, counts: np.ndarray, tally: np.ndarray) -> Histogram:
        return Histogram.of_counts(counts, tally, self.settings["highest"], self.settings["digits"])

    def _recorded(self, which: int) -> Iterator[tuple[str, str, str, Histogram]]:
        """(event type, effect, state, histogram) of what occurred."""
        counts, tallies = self.probe.counts[which], self.probe.tallies[which]
        for index in np.flatnonzero(tallies.any(axis=1)).tolist():
            pair, state = divmod(index, BOOK_STATES)
            event, effect = divmod(pair, EFFECTS)
            names = EventType(event).name, Effect(effect).name, BookState(state).name
            yield *names, self._of(counts[index], tallies[index])

    def _empty(self) -> Histogram:
        return Histogram(highest=self.settings["highest"], digits=self.settings["digits"])

    def _merged(self, which: int, by_state: bool) -> dict[tuple[str, str], Histogram]:
        """Histograms by event type and effect, or by event type and state."""
        found: dict[tuple[str, str], Histogram] = {}
        for event, effect, state, histogram in self._recorded(which):
            key = (event, state if by_state else effect)
            if key not in found:  # an empty histogram is half a megabyte
                found[key] = self._empty()
            found[key].merge(histogram)
        return found

    def _all(self, which: int) -> Histogram:
        merged = self._empty()
        for *_, histogram in self._recorded(which):
            merged.merge(histogram)
        return merged

    def _pairs(self, by_state: bool) -> Pairs:
        responses = self._merged(RESPONSE, by_state) if self.is_open_loop else {}
        services = self._merged(SERVICE, by_state)
        return {name: (service, responses.get(name)) for name, service in services.items()}

    @cached_property
    def service(self) -> Histogram:
        """Start to end, of all commands."""
        return self._all(SERVICE)

    @cached_property
    def response(self) -> Histogram | None:
        """Intended start to end, of all commands; None without a rate of arrival."""
        return self._all(RESPONSE) if self.is_open_loop else None

    @property
    def is_open_loop(self) -> bool:
        """Whether commands were due at moments fixed beforehand."""
        return self.settings["arrivals"] is not None

    @property
    def cells(self) -> Pairs:
        """(service, response) by event type and effect, of those that occurred."""
        return self._pairs(by_state=False)

    @property
    def states(self) -> Pairs:
        """(service, response) by event type and the state of the book that the command found."""
        return self._pairs(by_state=True)

    @property
    def stages(self) -> dict[tuple[str, str], Histogram]:
        """Service by event type and stage; empty without `stages=True`.

        Every command counts in each, with 0 for a stage it did not come to.
        """
        tallies = self.probe.stage_tallies
        return {
            (EventType(event).name, LatencyStage(stage + STAGE_LOOKUP).name): self._of(
                self.probe.stage_counts[stage, event], tallies[stage, event]
            )
            for stage, event in np.argwhere(tallies.any(axis=2)).tolist()
        }

    def to_frame(self, by: str = "effect") -> pl.DataFrame:
        """A row per event type and effect ("state", "stage"), then one of all: counts and percentiles in ns.

        Raises UsageError for another `by`, or where stages weren't measured.
        """
        if by not in VIEWS or (by == "stage" and not self.stages):
            expected = "a profile with stages=True" if by == "stage" else f"one of {', '.join(VIEWS)}"
            raise UsageError(f"by: found {by!r}, expected {expected}")
        pairs: Pairs = {name: (service, None) for name, service in self.stages.items()}
        if by != "stage":
            pairs = self.cells if by == "effect" else self.states
        rows = [_row(by, *name, *pair) for name, pair in sorted(pairs.items(), key=_in_order(by))]
        response = self.response if by != "stage" else None
        return pl.DataFrame([*rows, _row(by, "ALL", "ALL", self.service, response)])

    def write_hgrm(self, path: str | Path) -> Path:
        """Write the percentiles of the response, or without a rate of the service. Raises OutputError."""
        return (self.response or self.service).write_hgrm(path)

    def write_hlog(self, path: str | Path) -> Path:
        """Write all histograms as a log: SERVICE.NEW.RESTED, STAGE.NEW.MATCH and so on.

        Raises OutputError.
        """
        start = self.settings["started_ns"] / 1e9
        intervals = []
        for (event, effect), (service, response) in self.cells.items():
            intervals.append((f"SERVICE.{event}.{effect}", start, self.seconds, service))
            if response is not None:
                intervals.append((f"RESPONSE.{event}.{effect}", start, self.seconds, response))
        for (event, stage), service in self.stages.items():
            intervals.append((f"STAGE.{event}.{stage}", start, self.seconds, service))
        return write_hlog(path, intervals)

    def _described(self) -> str:
        which, kind = (self.service, "service") if self.response is None else (self.response, "response")
        return f"{self.service.count:,} commands, {kind} {which!r}"

    def __repr__(self) -> str:
        return f"<Latencies {self._described()}>"


def merge(parts: Iterable[Latencies]) -> Latencies:
    """The latencies of several threads or runs as one.

    Raises UsageError where there are none, or where they were not measured alike.
    """
    parts = list(parts)
    if not parts:
        raise UsageError("latencies: found none, expected one or more to merge")
    # buckets of another layout, or waits of an open loop beside none, can't be added
    first = {**parts[0].settings, "open loop": parts[0].is_open_loop}
    for part in parts:
        found = {**part.settings, "open loop": part.is_open_loop}
        for name in (*LAYOUT, "open loop"):
            if found[name] != first[name]:
                raise UsageError(
                    f"latencies: found {name} {found[name]!r}, expected {first[name]!r} to merge"
                )
    probes = [part.probe for part in parts]
    probe = probes[0]._replace(
        counts=_sum([probe.counts for probe in probes]),
        tallies=_sum_tallies(np.stack([probe.tallies for probe in probes])),
        stage_counts=_sum([probe.stage_counts for probe in probes]),
        stage_tallies=_sum_tallies(np.stack([probe.stage_tallies for probe in probes])),
    )
    began = min(part.settings["started_ns"] for part in parts)
    return Latencies({**parts[0].settings, "started_ns": began}, probe, max(part.seconds for part in parts))


def _sum(arrays: list[np.ndarray]) -> np.ndarray:
    """Their sum. Histograms that no run has filled are not touched, so they take no memory."""
    total = np.zeros_like(arrays[0])
    for array in arrays:
        for index in np.ndindex(array.shape[:2]):
            if array[index].any():
                total[index] += array[index]
    return total


def _sum_tallies(tallies: np.ndarray) -> np.ndarray:
    total = tallies.sum(axis=0)
    # the minimum of no values is 0, which must not win
    smallest = np.where(tallies[..., COUNT] > 0, tallies[..., MIN], np.iinfo(np.int64).max).min(axis=0)
    total[..., MIN] = np.where(total[..., COUNT] > 0, smallest, 0)
    total[..., MAX] = tallies[..., MAX].max(axis=0)
    return total


def _in_order(by: str) -> Callable[[tuple[tuple[str, str], Any]], tuple[str, int]]:
    """A sort key: event type by name, then effect, state or stage in the order of its codes."""
    codes = VIEWS[by]
    return lambda pair: (pair[0][0], int(codes[pair[0][1]]))


def _row(by: str, event: str, what: str, service: Histogram, response: Histogram | None) -> dict[str, Any]:
    cells: dict[str, Any] = {"event_type": event, by: what, "count": service.count}
    for name, histogram in (("service", service), ("response", response)):
        if histogram is None:
            continue
        figures: dict[str, float] = {
            key: histogram.percentile(percent) for key, percent in PERCENTILES.items()
        }
        figures |= {"max": histogram.max, "mean": histogram.mean, "jitter": histogram.jitter}
        cells |= {f"{name}_{key}": value for key, value in figures.items()}
    return cells
