"""Two results side by side: how much slower or faster, whether that is more than noise, and whether both
behave alike. A case whose digest has changed is neither faster nor slower: it does something else.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from hftlab.benchmark.cases import Case
from hftlab.benchmark.records import Measurement, Report

FACTOR = 1.10  # medians closer than this are called the same
CHANCE = 0.01  # a difference that equal speeds would show more often than this is called unclear

DIFFERENT, SLOWER, FASTER, SAME, UNCLEAR = (
    "different behaviour",
    "slower",
    "faster",
    "same",
    "unclear",
)


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One case of both results."""

    case: Case
    before: Measurement
    after: Measurement
    factor: float

    @property
    def ratio(self) -> float:
        """Median time after over before: 1.3 is 30 % slower."""
        return self.after.ns / self.before.ns

    @property
    def chance(self) -> float:
        """How often two equally fast programs would give repetitions as different as these."""
        return rank_test(self.before.times_ns, self.after.times_ns)

    @property
    def verdict(self) -> str:
        """One of the five verdicts."""
        if self.before.digest != self.after.digest:
            return DIFFERENT
        # the size of a difference first: with many repetitions even a tiny one is not by chance
        if 1 / self.factor < self.ratio < self.factor:
            return SAME
        if self.chance > CHANCE:
            return UNCLEAR
        return SLOWER if self.ratio > 1 else FASTER


class Comparison(msgspec.Struct, kw_only=True):
    """Two results, case by case."""

    before: Report
    after: Report
    pairs: tuple[Pair, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing became slower or different."""
        return not any(pair.verdict in (DIFFERENT, SLOWER) for pair in self.pairs)

    def doubts(self) -> list[str]:
        """Reasons why the ratios may not be the program's."""
        found = []
        one, other = self.before.machine, self.after.machine
        if (one.cpu, one.cores) != (other.cpu, other.cores):
            names = [f"{machine.cpu}, {machine.cores} cores" for machine in (one, other)]
            found.append(f"two machines: {names[0]} and {names[1]}")
        found += [f"A: {reason}" for reason in self.before.noise()]
        return found + [f"B: {reason}" for reason in self.after.noise()]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "ok": self.ok,
            "doubts": self.doubts(),
            "only_before": list(self.only_before),
            "only_after": list(self.only_after),
            "cases": [
                {
                    "name": pair.case.name,
                    "verdict": pair.verdict,
                    "ratio": pair.ratio,
                    "chance": pair.chance,
                    "before": _figures(pair.before),
                    "after": _figures(pair.after),
                }
                for pair in self.pairs
            ],
        }


def compare_reports(before: Report, after: Report, factor: float = FACTOR) -> Comparison:
    """Compare the cases that both results have."""
    old = {m.case: m for m in before.measurements}
    new = {m.case: m for m in after.measurements}
    return Comparison(
        before=before,
        after=after,
        pairs=tuple(Pair(case=c, before=old[c], after=new[c], factor=factor) for c in old if c in new),
        only_before=tuple(case.name for case in old if case not in new),
        only_after=tuple(case.name for case in new if case not in old),
    )


def _figures(m: Measurement) -> dict[str, Any]:
    return {"ns_per_command": m.ns, "best_ns": m.best, "spread": m.spread, "digest": m.digest}


def rank_test(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Two-sided chance of ranks at least as unequal as these (Mann and Whitney), exact but for ties."""
    u = sum((a > b) + 0.5 * (a == b) for a in one for b in other)
    least = int(min(u, len(one) * len(other) - u))
    ways = _ways(len(one), len(other))
    return min(1.0, 2 * sum(ways[: least + 1]) / sum(ways))


@cache
def _ways(n: int, m: int) -> tuple[int, ...]:
    """How many orders of n and m values have each U: the Gaussian binomial coefficients."""
    ways = [1]
    for k in range(1, n + 1):  # times (1 - x^(m + k)) / (1 - x^k)
        longer = ways + [0] * (m + k)
        for index in range(len(longer) - 1, m + k - 1, -1):
            longer[index] -= longer[index - m - k]
        for index in range(k, len(longer)):
            longer[index] += longer[index - k]
        ways = longer[: k * m + 1]
    return tuple(ways)
