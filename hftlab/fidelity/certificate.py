"""`Certificate`: counts, shares, causes and the first divergence, as table, JSON and page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from hftlab.codes import Code


class Cause(Code):
    """Why an execution was not reproduced; the first that applies."""

    HIDDEN_ORDER = 0
    INITIAL_BOOK = 1
    AUCTION = 2
    INCOMPLETE_BOOK = 3
    OUT_OF_ORDER = 4
    NOT_BEST_PRICE = 5
    PRIORITY_RULE = 6
    NOT_OLDEST = 7
    EARLIER_DIVERGENCE = 8
    PRICE_LEVELS = 9


MEANING = {
    Cause.HIDDEN_ORDER: "hidden order: it took liquidity that no book shows",
    Cause.INITIAL_BOOK: "initial book unknown: the maker was never added",
    Cause.AUCTION: "auction: it uncrossed the book, or its price is not that of the order",
    Cause.INCOMPLETE_BOOK: "incomplete book: crossed while trading went on, so facts are missing",
    Cause.OUT_OF_ORDER: "out of order: earlier than the fact before it",
    Cause.NOT_BEST_PRICE: "not the best price: a better level was displayed",
    Cause.PRIORITY_RULE: "priority rule of the venue: behind an order that was modified",
    Cause.NOT_OLDEST: "not the oldest order of its level",
    Cause.PRICE_LEVELS: "price levels: the feed names no orders, so nothing can be matched",
    Cause.EARLIER_DIVERGENCE: "earlier divergence: right in the venue's book, ours was no longer the same",
}
SHARES = ("execution_share", "all_execution_share", "oldest_first_share", "touch_share", "depth_share")
OVER_TIME = pl.Schema(
    {
        "row": pl.Int64(),
        "ts": pl.Datetime("ns", "UTC"),
        "executions": pl.Int64(),
        "reproduced": pl.Int64(),
        "events": pl.Int64(),
        "touch_equal": pl.Int64(),
        "depth_equal": pl.Int64(),
    }
)


class Execution(NamedTuple):
    """A fill as a person compares it."""

    maker_order_id: int
    price: int  # 1e-9
    qty: int  # lots


@dataclass(frozen=True)
class Divergence:
    """The first place where venue and replay differ, with its neighbourhood."""

    row: int  # of the mbo table
    sequence: int
    ts: int  # ns
    symbol: str
    what: str  # "execution" or "book"
    cause: str  # of an execution, else ""
    venue: tuple[Execution, ...]  # what the venue executed for this command
    replay: tuple[Execution, ...]  # what the replay did
    venue_book: tuple[tuple[int, int, int], ...]  # (price, lots, side), best first, before it
    replay_book: tuple[tuple[int, int, int], ...]
    facts: pl.DataFrame  # the rows around it

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {name: value for name, value in vars(self).items() if name != "facts"}
        for name in ("venue", "replay"):
            plain[name] = [fill._asdict() for fill in plain[name]]
        words = pl.col(pl.Categorical, pl.Enum, pl.Datetime).cast(pl.String)
        return plain | {"facts": self.facts.with_columns(words).to_dicts()}


@dataclass(frozen=True)
class Certificate:
    """What `certify` found; shares are between 0 and 1, None where there is nothing to divide by."""

    path: str
    format: str
    rows: int  # facts
    commands: int  # inferred from them
    symbols: int
    executions: int  # displayed ones: F
    hidden: int  # trades that name no displayed order: hidden orders, crosses
    reproduced: int  # same maker, price, quantity and place in the order of fills
    known_makers: int  # executions of an incoming order whose maker was in the venue's book
    oldest_first: int  # of those, how many hit the oldest order of the best level
    events: int  # ends of events at which both books can be compared
    touch_equal: int  # price, lots and orders of both best levels
    depth_equal: int  # the same over `levels` levels a side
    levels: int  # 0 where only the touch was compared, with what the venue published of it
    crossed_events: int  # ends of events at which the venue's book was crossed
    open_orders: int  # in the venue's book at the end
    facts_rejected: dict[str, int]  # by reason, on rebuilding
    commands_rejected: dict[str, int]  # by reason, on matching
    causes: dict[str, int]  # of the executions that were not reproduced
    over_time: pl.DataFrame  # the measures in 60 spans of equally many facts: row, ts, executions ...
    first_divergence: Divergence | None
    notes: tuple[str, ...]
    faults: tuple[str, ...]  # damage in the source

    @property
    def execution_share(self) -> float | None:
        """Displayed executions reproduced exactly."""
        return _share(self.reproduced, self.executions)

    @property
    def all_execution_share(self) -> float | None:
        """Executions reproduced exactly, hidden ones counted as not."""
        return _share(self.reproduced, self.executions + self.hidden)

    @property
    def oldest_first_share(self) -> float | None:
        """Executions of known makers that follow price-time priority in the venue's own book."""
        return _share(self.oldest_first, self.known_makers)

    @property
    def touch_share(self) -> float | None:
        """Events after which both best levels are equal."""
        return _share(self.touch_equal, self.events)

    @property
    def depth_share(self) -> float | None:
        """Events after which all compared levels are equal."""
        return _share(self.depth_equal, self.events)

    @property
    def table(self) -> pl.DataFrame:
        """One row a measure: what, part, whole, share."""
        rows = [
            ("executions reproduced exactly", self.reproduced, self.executions),
            ("the same, hidden executions included", self.reproduced, self.executions + self.hidden),
            ("executions of the oldest order at the best price", self.oldest_first, self.known_makers),
            ("events with an equal touch", self.touch_equal, self.events),
            (f"events with {self.levels} equal levels a side", self.depth_equal, self.events),
        ]
        if not self.levels:  # price levels: the touch was compared with the venue's own
            rows = [
                ("trades reproduced", *rows[1][1:]),
                ("events whose rebuilt touch is the one the venue published", *rows[3][1:]),
            ]
        columns = {"measure": pl.String, "count": pl.Int64, "of": pl.Int64, "share": pl.Float64}
        return pl.DataFrame([(*row, _share(*row[1:])) for row in rows], schema=columns, orient="row")

    @property
    def cause_table(self) -> pl.DataFrame:
        """Executions that were not reproduced, by cause."""
        rows = [(name, MEANING[Cause.parse(name)], count) for name, count in self.causes.items()]
        columns = {"cause": pl.String, "meaning": pl.String, "executions": pl.Int64}
        return pl.DataFrame(rows, schema=columns, orient="row")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        apart = ("first_divergence", "over_time")
        plain = {name: value for name, value in vars(self).items() if name not in apart}
        plain["over_time"] = self.over_time.cast({"ts": pl.Int64}).to_dicts()
        shares = {name: getattr(self, name) for name in SHARES}
        first = self.first_divergence
        return plain | shares | {"first_divergence": first and first.as_dict()}

    def page(self) -> str:
        """One self-contained HTML page."""
        from hftlab.fidelity.page import page

        return page(self.as_dict(), self.table.rows(), self.cause_table.rows())

    def _repr_html_(self) -> str:
        from hftlab.fidelity.page import body

        return body(self.as_dict(), self.table.rows(), self.cause_table.rows())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
