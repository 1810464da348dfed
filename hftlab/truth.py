"""Rebuilt books against the ones a venue published: how many are exact, and where the first is not.

A run folder (`hftlab replay ... --mode rebuild --record depth --out RUN`), or a source that is rebuilt on
the spot, is held against a file of published books (`hftlab.truth_files` says which). Books are compared
only at ends of events, level by level, price and size. What can't be compared is counted with its reason,
every difference gets a cause.

`one_step` asks less of a LOBSTER file: whether each published book follows from the one before and its
message. That works for files that leave out orders, such as level-1 samples, which nobody can rebuild.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hftlab.codes import MBO_FLAG_LAST, MBO_FLAG_MAYBE_BAD, UNDEF_PRICE, MboAction
from hftlab.config import Config
from hftlab.errors import InputError, UsageError, require_positive
from hftlab.feeds import Flow, open_flow, source
from hftlab.replayer import replay
from hftlab.run_folder import MANIFEST
from hftlab.truth_files import BOOK_TICKER, MBP, ORDERBOOK, SIDES, Block, Truth, open_truth

BATCH_ROWS = 1 << 20
STATE_ROWS = 1 << 14  # of rebuilt books in memory at a time
IN_MEMORY_BYTES = 1 << 30  # of rebuilt books; more go through a file
BYTES_PER_LEVEL = 48

SEEDS, NO_EVENT = "rows that seed the book", "rows without an event of theirs in the flow"
NO_ROW = "events without a row of theirs in the file"
BEFORE, AFTER = "events before the first bookTicker", "events after the last bookTicker"
REVEALED = "a level from behind the published ones is revealed (consistent each time)"
CAUSES = ("", "the size differs", "a level is left over", "a level is missing")
GAP, WITHIN = "after a gap in the capture", "the ticker changed within the update"
FIRST = "the first row, which follows from none"
CONTRADICTION = "the message doesn't lead from one row to the next"


class Touch(NamedTuple):
    """One level of both sides; no price where there is none."""

    bid_px: int | None  # 1e-9
    bid_sz: int  # lots
    ask_px: int | None
    ask_sz: int


@dataclass(frozen=True)
class Difference:
    """One place where the two books differ."""

    row: int  # of the published file, 0-based
    seq: int  # row of the flow that ends the event
    sequence: int
    ts: int  # ns since the epoch
    symbol: str
    level: int  # 1-based, the first that differs
    cause: str
    rebuilt: Touch
    truth: Touch


@dataclass(frozen=True)
class LevelAgreement:
    """How often one level is right: as a whole, with all above it, and each of its four numbers."""

    level: int  # 1-based
    exact: int
    exact_down_to: int  # rows where this level and every better one are exact
    bid_px: int
    bid_sz: int
    ask_px: int
    ask_sz: int


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    path: str
    truth: str
    kind: str  # of the published file
    one_step: bool
    levels: int  # compared on each side
    rows: int  # compared
    exact: int  # of them, equal in price and size on all levels
    by_level: tuple[LevelAgreement, ...]
    not_compared: dict[str, int]  # by reason
    causes: dict[str, int]  # of the rows that differ
    first: Difference | None
    notes: tuple[str, ...]
    faults: tuple[str, ...]  # damage the feed met

    @property
    def ok(self) -> bool:
        """Whether there was something to compare, and all of it is exact."""
        return 0 < self.rows == self.exact

    @property
    def share(self) -> float | None:
        """Exact rows of those compared."""
        return self.exact / self.rows if self.rows else None

    @property
    def table(self) -> pl.DataFrame:
        """Exact rows by level."""
        names = LevelAgreement.__dataclass_fields__
        rows = [asdict(level) for level in self.by_level]
        return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.Int64))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = asdict(self) | {"ok": self.ok, "share": self.share}
        if self.first is not None:
            plain["first"] |= {name: getattr(self.first, name)._asdict() for name in ("rebuilt", "truth")}
        return plain

    def __repr__(self) -> str:
        how = ", one step" if self.one_step else ""
        levels = "1 level" if self.levels == 1 else f"{self.levels} levels"
        return f"<Comparison {self.exact:,} of {self.rows:,} rows exact, {levels}{how}, {self.kind}>"


def compare(
    flow: Flow | str | Path,
    truth: str | Path,
    *,
    levels: int | None = None,
    one_step: bool = False,
    symbol: str | None = None,
    config: Config | None = None,
    **options: Any,
) -> Comparison:
    """Hold rebuilt books against published ones.

    Parameters: `flow` is a run folder with depth or l1, or a source (or its `Flow`) to rebuild here, opened
    with `options` (`format`, `initial_book`, those of the feed); `truth` a file of published books; `levels`
    how many to compare, by default all that both sides have; `symbol` which instrument a file without
    symbols is of, where the flow has several; `one_step` checks each row of a LOBSTER file against the one
    before instead.

    Raises UsageError for a call that can't be answered, InputError for a run folder that doesn't fit its
    input, FormatError for broken files.
    """
    levels = None if levels is None else require_positive("levels", levels)
    with ExitStack() as stack:
        rebuilt = _rebuilt(flow, config, options, stack)
        lot = rebuilt.flow.options.get("lot")
        published = open_truth(truth, lot)
        if one_step:
            return _one_step(rebuilt.flow, published, rebuilt.name)
        most = min(published.levels, rebuilt.levels or published.levels)
        if levels is not None and levels > most:
            raise UsageError(f"levels: found {levels}, expected at most {most}: what both sides have")
        wanted = levels or most
        events = _Events(rebuilt.flow)
        pairs = _PAIRINGS[published.kind](events, published, symbol)
        tally = _Tally(wanted, pairs.explain)
        pairs.run(partial(rebuilt.states, wanted, pairs.last_row), tally)
    notes = [*pairs.notes(), *rebuilt.flow.notes]
    if not events.seeded and published.kind == ORDERBOOK and tally.exact < tally.rows:
        notes.insert(0, "the book began empty: initial_book gives it the first published row")
    return Comparison(
        path=rebuilt.name,
        truth=str(truth),
        kind=published.kind,
        one_step=False,
        levels=wanted,
        rows=tally.rows,
        exact=tally.exact,
        by_level=tally.by_level(),
        not_compared={reason: count for reason, count in pairs.not_compared.items() if count},
        causes=dict(tally.causes.most_common()),
        first=tally.first,
        notes=tuple(notes),
        faults=tuple(map(str, rebuilt.flow.faults)),
    )


# ------------------------------------------------------------------ the rebuilt side


@dataclass(frozen=True)
class _Rebuilt:
    """Where the rebuilt books come from."""

    name: str
    flow: Flow
    levels: int | None  # that are there; None where as many as are asked for
    states: Callable[[int, Callable[[], int | None], str], _States]  # by levels, last row needed, symbol


def _rebuilt(
    flow: Flow | str | Path, config: Config | None, options: dict[str, Any], stack: ExitStack
) -> _Rebuilt:
    if isinstance(flow, str | Path) and Path(flow).is_dir():
        if options:
            raise UsageError(
                f"{flow}: found {', '.join(options)}, expected none: a run folder knows its input"
            )
        return _run_folder(Path(flow))
    if not isinstance(flow, Flow):
        flow = open_flow(flow, **options)
    elif options:
        raise UsageError(f"found {', '.join(options)}, expected none for a flow that is open already")
    return _Rebuilt(str(flow.path), flow, None, partial(_replayed, flow, config, stack, {}))


def _replayed(
    flow: Flow,
    config: Config | None,
    stack: ExitStack,
    made: dict[str, pa.Table | Path],
    levels: int,
    last_row: Callable[[], int | None],
    symbol: str,
) -> _States:
    """The books of a source, rebuilt once; as far as they are needed."""
    name = "l1" if levels == 1 else "depth"
    if name not in made:
        mode = "match" if flow.kind == "orders" else "rebuild"
        rows = flow.known_rows
        how = {"record": (name,), "depth": levels, "config": config}
        if rows is not None and rows * levels * BYTES_PER_LEVEL <= IN_MEMORY_BYTES:
            last = last_row()
            part = flow if last is None else flow.table().slice(0, last + 1)
            made[name] = replay(part, mode, **how).to_arrow(name, levels)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
            replay(flow, mode, **how, chunk_rows=BATCH_ROWS, out=folder)
            made[name] = folder / f"{name}.parquet"
    return _States(made[name], levels, symbol)


def _run_folder(folder: Path) -> _Rebuilt:
    """A run folder, if its input is still what it was made from."""
    manifest = _manifest(folder)
    settings = manifest["config"]
    path = Path(manifest["input"]["path"])
    names = [name for name in ("depth", "l1") if name in manifest["tables"]]
    if not names:
        found = ", ".join(manifest["tables"]) or "no tables"
        command = f"hftlab replay {path} --mode rebuild --record depth --depth 10 --out DIR"
        raise UsageError(f"{folder}: found {found}, expected depth or l1: {command}")
    if settings["inferred_from"]:
        raise UsageError(
            f"{folder}: found commands inferred from facts (mode match), expected the facts themselves: "
            f"hftlab replay {path} --mode rebuild --record depth --out DIR"
        )
    if not path.is_file():
        raise InputError(f"{folder}: its input {path} is not there, expected it to know where events end")
    found = _sha256(path)
    if found != manifest["input"]["sha256"]:
        was = manifest["input"]["sha256"]
        raise InputError(
            f"{folder}: its input {path} has changed: found sha256 {found[:16]}, expected {was[:16]}"
        )
    feed = settings.get("feed") or {}
    table = folder / f"{names[0]}.parquet"
    depth = settings["depth"] if names[0] == "depth" else 1

    def states(levels: int, _: Callable[[], int | None], symbol: str) -> _States:
        return _States(table, levels, symbol)

    return _Rebuilt(str(folder), open_flow(path, **feed), depth, states)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: found no {MANIFEST}, expected a run folder (hftlab replay --out)")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["input"] is None:
            raise UsageError(f"{folder}: was made from a table in memory, expected an input file")
        known = {"tables": manifest["tables"], "config": manifest["config"], "input": manifest["input"]}
        known["config"]["inferred_from"], known["config"]["depth"], known["input"]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: found a manifest that can't be read ({error}), expected replay's"
        ) from None
    return known


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _States:
    """The books of one instrument after any row, asked for in ascending order.

    Depth and l1 tables have a row per change, so the book at a row is the last change up to it.
    """

    def __init__(self, table: pa.Table | Path, levels: int, symbol: str) -> None:
        self._levels, self._symbol = levels, symbol
        self._changes = self._read(table)
        self._seq = np.empty(0, np.int64)
        self._values = np.empty((4, 0, levels), np.int64)
        empty = np.array([UNDEF_PRICE, 0, UNDEF_PRICE, 0])
        self._before = np.repeat(empty[:, None, None], levels, axis=2)  # the book before the first of these

    def _read(self, table: pa.Table | Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Changes as (seq, values [4, changes, levels])."""
        columns = ["seq", "symbol", *SIDES]
        if isinstance(table, Path):
            batches = _batches(table, columns)
        else:
            batches = table.select(columns).to_batches(max_chunksize=STATE_ROWS)
        for batch in batches:
            chosen = batch.filter(pc.equal(batch.column("symbol").cast(pa.string()), self._symbol))
            yield (
                chosen.column("seq").to_numpy(),
                np.stack([self._side(chosen.column(side)) for side in SIDES]),
            )

    def _side(self, column: pa.Array) -> np.ndarray:
        """[changes, levels]; UNDEF_PRICE where there is none."""
        if pa.types.is_fixed_size_list(column.type):
            return column.flatten().to_numpy().reshape(len(column), -1)[:, : self._levels]
        return column.fill_null(UNDEF_PRICE).to_numpy()[:, None]

    def at(self, rows: np.ndarray) -> np.ndarray:
        """The books after these rows: int64 [4, rows, levels]."""
        parts = [(self._seq, self._values)]
        while rows.size and (not parts[-1][0].size or parts[-1][0][-1] < rows[-1]):
            part = next(self._changes, None)
            if part is None:
                break
            if part[0].size:
                parts.append(part)
        seq = np.concatenate([part[0] for part in parts])
        values = np.concatenate([self._before, *(part[1] for part in parts)], axis=1)
        last = np.searchsorted(seq, rows, side="right")
        found = values[:, last]
        keep = int(last[-1]) if rows.size else 0
        self._before, self._seq, self._values = values[:, keep : keep + 1], seq[keep:], values[:, keep + 1 :]
        return found


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a run folder's table. Raises InputError where it is broken."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield from file.iter_batches(STATE_ROWS, columns=columns)
    except (pa.ArrowException, OSError) as error:
        said = source.said(error)
        raise InputError(f"{path}: found a broken table ({said}), expected what replay wrote") from error


# ------------------------------------------------------------------ events and their rows in the file


class _Events:
    """Ends of events of a flow, as columns: the only rows at which books may be compared."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        frames = list(self._read(marked=flow.kind != "orders"))
        if not any(frame.height for frame in frames) and flow.kind != "orders":
            frames = list(self._read(marked=False))  # where the source marks none, every row ends one
        self.frame = pl.concat(frames)
        snapshot = self.frame["sequence"].min()
        self.seeded = snapshot is not None and snapshot < 0
        self.symbols = self.frame["symbol"].unique(maintain_order=True).to_list()

    def _read(self, marked: bool) -> Iterator[pl.DataFrame]:
        first = 0
        for table in self.flow.batches(BATCH_ROWS):
            frame = _event_columns(table, first, self.flow.kind)
            first += table.num_rows
            yield frame.filter(pl.col("flags") & MBO_FLAG_LAST != 0) if marked else frame

    def one_symbol(self, symbol: str | None) -> str:
        """The instrument of a file that doesn't say. Raises UsageError where that isn't clear."""
        if symbol is not None and symbol not in self.symbols:
            raise UsageError(f"symbol: found {symbol!r}, expected one of {', '.join(self.symbols[:10])}")
        if symbol is None and len(self.symbols) != 1:
            found = ", ".join(self.symbols[:10]) or "none"
            raise UsageError(
                f"{self.flow.path}: found symbols {found}, expected one, or symbol= to choose it"
            )
        return symbol or self.symbols[0]


def _event_columns(table: pa.Table, first: int, kind: str) -> pl.DataFrame:
    """row, symbol, ts, recv, sequence, flags of the rows that may end an event."""
    names = table.column_names
    rows = pl.int_range(first, first + table.num_rows, eager=True, dtype=pl.Int64)
    time = "ts" if kind == "orders" else "ts_event"

    def column(name: str, otherwise: pl.Series) -> pl.Series:
        if name not in names:
            return otherwise
        found = pl.from_arrow(table.column(name))
        return found.dt.timestamp("ns") if found.dtype == pl.Datetime else found.cast(pl.Int64)

    symbol = (
        pl.from_arrow(table.column("symbol").cast(pa.string()))
        if "symbol" in names
        else pl.repeat("DEFAULT", table.num_rows, eager=True)
    )
    ts = column(time, rows)
    frame = pl.DataFrame(
        {
            "row": rows,
            "symbol": symbol,
            "ts": ts,
            "recv": column("ts_recv", ts),
            "sequence": column("sequence", rows),
            "flags": column("flags", pl.repeat(0, table.num_rows, eager=True, dtype=pl.Int64)),
        }
    )
    if kind != "mbp":
        return frame
    action = pl.from_arrow(table.column("action").cast(pa.string()))
    return frame.filter(action != MboAction.T.name)  # a trade says nothing of the levels


class _Pairing:
    """Which event each row of a published file belongs to."""

    explain: Callable[[int, np.ndarray], str | None] | None = None  # a cause of its own for a difference

    def __init__(self, events: _Events, truth: Truth, symbol: str | None) -> None:
        self.events, self.truth, self.symbol = events, truth, symbol
        self.not_compared: Counter[str] = Counter()

    def last_row(self) -> int | None:
        """The last row of the flow that is needed; None for all."""
        return None

    def notes(self) -> list[str]:
        """What there is to say beside the counts."""
        return []

    def run(self, states: Callable[[str], _States], tally: _Tally) -> None:
        """Compare all there is."""
        raise NotImplementedError


class _Orderbook(_Pairing):
    """LOBSTER: row i is the book after message i."""

    def __init__(self, events: _Events, truth: Truth, symbol: str | None) -> None:
        super().__init__(events, truth, symbol)
        self.symbol = events.one_symbol(symbol)
        frame = events.frame.filter(pl.col("symbol") == self.symbol)
        self.ends = frame.filter(pl.col("sequence") >= 0).unique("sequence", keep="last", maintain_order=True)
        self.sequence = self.ends["sequence"].to_numpy()
        if (np.diff(self.sequence) <= 0).any():
            raise InputError(
                f"{events.flow.path}: found message numbers that go back, expected LOBSTER's order"
            )

    def last_row(self) -> int | None:
        lines = sum(part.count(b"\n") for part in source.blocks(*_member(self.truth.path)))
        found = np.searchsorted(self.sequence, lines, side="right") - 1
        return int(self.ends["row"][int(found)]) if found >= 0 else None

    def run(self, states: Callable[[str], _States], tally: _Tally) -> None:
        books, matched = states(self.symbol), 0
        for block in self.truth.blocks():
            at = np.searchsorted(self.sequence, block.key)
            known = at < self.sequence.size
            known[known] = self.sequence[at[known]] == block.key[known]
            seeds = known & (block.row == 0) & self.events.seeded
            self.not_compared[NO_EVENT] += int((~known).sum())
            self.not_compared[SEEDS] += int(seeds.sum())
            matched += int(known.sum())
            _compare(books, self.ends, at[known & ~seeds], block, known & ~seeds, tally)
        self.not_compared[NO_ROW] += self.sequence.size - matched


def _member(path: Path) -> tuple[Path, str | None]:
    if source.container(path) != "zip":
        return path, None
    return path, next(name for name in source.members(path) if "orderbook" in name.lower())


def _compare(
    books: _States, ends: pl.DataFrame, at: np.ndarray, block: Block, rows: np.ndarray, tally: _Tally
) -> None:
    """Add events `at` against the rows of a block, some at a time."""
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows
    row = ends["row"].to_numpy()
    for start in range(0, at.size, STATE_ROWS):
        here, there = at[start : start + STATE_ROWS], rows[start : start + STATE_ROWS]
        tally.add(books.at(row[here]), block.values[:, there, : tally.levels], ends, here, block.row[there])


class _Mbp(_Pairing):
    """Databento: a row is the book after the event of its sequence and time."""

    def run(self, states: Callable[[str], _States], tally: _Tally) -> None:
        (block,) = self.truth.blocks()
        rows = pl.DataFrame({"sequence": block.key, "ts": block.ts, "at": np.arange(block.row.size)})
        symbols = (
            block.symbol if block.symbol is not None else [self.events.one_symbol(self.symbol)] * rows.height
        )
        rows = rows.with_columns(pl.Series("symbol", symbols, pl.String))
        keys = ["symbol", "sequence", "ts"]
        rows, events = (
            frame.unique(keys, keep="last", maintain_order=True) for frame in (rows, self.events.frame)
        )
        events = events.with_row_index("event")
        both = rows.join(events, on=keys, how="inner")
        self.not_compared[NO_EVENT] += rows.height - both.height
        self.not_compared[NO_ROW] += events.height - both.height
        for (symbol,), pairs in both.sort("row").group_by("symbol", maintain_order=True):
            at, there = (pairs[name].to_numpy().astype(np.int64) for name in ("event", "at"))
            _compare(states(symbol), events, at, block, there, tally)


class _Ticker(_Pairing):
    """Binance: the touch after update u is that of the last bookTicker up to it."""

    def __init__(self, events: _Events, truth: Truth, symbol: str | None) -> None:
        super().__init__(events, truth, symbol)
        if events.flow.kind != "mbp":
            raise UsageError(
                f"{events.flow.path}: found {events.flow.kind}, expected Binance's updates (mbp)"
            )
        self._values = np.empty((4, 0, 1), np.int64)  # of the instrument that is being compared
        self._latest = np.empty(0, np.int64)  # ticker of each of its events
        self._received = self._as_received = 0

    def notes(self) -> list[str]:
        if not self._received:
            return []
        share = self._as_received / self._received
        return [
            f"by receive time instead of update id it would be {share:.2%}: updates come later than tickers"
        ]

    def run(self, states: Callable[[str], _States], tally: _Tally) -> None:
        (block,) = self.truth.blocks()
        within = 0
        for symbol in sorted(set(block.symbol) & set(self.events.symbols)):
            ends = self.events.frame.filter(pl.col("symbol") == symbol)
            rows = np.flatnonzero(block.symbol == symbol)
            order = rows[np.argsort(block.key[rows], kind="stable")]
            u, sequence = block.key[order], ends["sequence"].to_numpy()
            latest = np.searchsorted(u, sequence, side="right") - 1
            early, late = latest < 0, sequence > u[-1]
            self.not_compared[BEFORE] += int(early.sum())
            self.not_compared[AFTER] += int((late & ~early).sum())
            at = np.flatnonzero(~early & ~late)
            self._values, self._latest = block.values[:, order], latest
            _compare(states(symbol), ends, at, block, order[latest[at]], tally)
            within += rows.size - np.unique(latest[at]).size
            if block.ts is not None:
                here = at[block.ts[rows].min() <= ends["recv"].to_numpy()[at]]
                self._received += here.size
                self._as_received += _as_received(states(symbol), ends, here, block, rows)
        others = sorted(set(block.symbol) - set(self.events.symbols))
        if others:
            self.not_compared["bookTickers of other symbols"] += int(np.isin(block.symbol, others).sum())
        self.not_compared["bookTickers that another one follows within the same update"] += within

    def explain(self, event: int, rebuilt: np.ndarray) -> str | None:
        """Whether another ticker of the same update, or the next, says what the book does."""
        first = self._latest[event - 1] + 1 if event else 0
        near = self._values[:, first : self._latest[event] + 2]
        return WITHIN if (near == rebuilt[:, None]).all(axis=(0, 2)).any() else None


def _as_received(books: _States, ends: pl.DataFrame, at: np.ndarray, block: Block, rows: np.ndarray) -> int:
    """Events whose book equals the ticker that was the latest when they were received."""
    order = rows[np.argsort(block.ts[rows], kind="stable")]
    latest = np.searchsorted(block.ts[order], ends["recv"].to_numpy()[at], side="right") - 1
    equal = books.at(ends["row"].to_numpy()[at])[:, :, :1] == block.values[:, order[latest]]
    return int(equal.all(axis=(0, 2)).sum())


_PAIRINGS = {ORDERBOOK: _Orderbook, MBP: _Mbp, BOOK_TICKER: _Ticker}


# ------------------------------------------------------------------ counting


class _Tally:
    """Counts of what is equal, and the first that isn't."""

    def __init__(self, levels: int, explain: Callable[[int, np.ndarray], str | None] | None) -> None:
        self.levels, self._explain = levels, explain
        self.rows = self.exact = 0
        self.causes: Counter[str] = Counter()
        self.first: Difference | None = None
        self._equal = np.zeros((4, levels), np.int64)
        self._level, self._down_to = np.zeros((2, levels), np.int64)

    def add(
        self,
        rebuilt: np.ndarray,
        truth: np.ndarray,
        ends: pl.DataFrame,
        at: np.ndarray,
        rows: np.ndarray,
        refuted: np.ndarray | None = None,
    ) -> None:
        """Books [4, rows, levels] of events `at`, and of these rows of the file; `refuted` ones are wrong."""
        equal = rebuilt == truth
        if refuted is not None:
            equal[:, refuted] = False
        level = equal.all(axis=0)
        down_to = np.logical_and.accumulate(level, axis=1)
        self.rows += rows.size
        self._equal += equal.sum(axis=1)
        self._level += level.sum(axis=0)
        self._down_to += down_to.sum(axis=0)
        wrong = np.flatnonzero(~down_to[:, -1])
        self.exact += rows.size - wrong.size
        if wrong.size:
            self._count(rebuilt[:, wrong], truth[:, wrong], ends[at[wrong]], at[wrong], rows[wrong])

    def _count(
        self, rebuilt: np.ndarray, truth: np.ndarray, ends: pl.DataFrame, at: np.ndarray, rows: np.ndarray
    ) -> None:
        """Give each of these books, which differ, its cause."""
        level = np.argmax((rebuilt != truth).any(axis=0), axis=1)
        here = np.arange(rows.size), level
        ours, theirs = rebuilt[:, *here], truth[:, *here]
        causes = np.array(CAUSES, object)[_kinds(ours, theirs)]
        for i in range(rows.size if self._explain is not None else 0):
            causes[i] = self._explain(int(at[i]), rebuilt[:, i]) or causes[i]
        causes[ends["flags"].to_numpy() & MBO_FLAG_MAYBE_BAD != 0] = GAP
        self.causes.update(causes.tolist())
        first = int(np.argmin(rows))
        if self.first is None or rows[first] < self.first.row:
            there = ends.select("row", "sequence", "ts", "symbol").row(first)
            touches = (_touch(side[:, first]) for side in (ours, theirs))
            self.first = Difference(int(rows[first]), *there, int(level[first]) + 1, causes[first], *touches)

    def by_level(self) -> tuple[LevelAgreement, ...]:
        """The counts of each level."""
        counts = np.vstack([self._level, self._down_to, self._equal]).T.tolist()
        return tuple(LevelAgreement(level, *row) for level, row in enumerate(counts, 1))


def _kinds(rebuilt: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Places in CAUSES of how levels [4, rows] differ: a missing level counts before one too many."""
    kinds = np.zeros(rebuilt.shape[1], np.int64)
    for side, px in ((1, 0), (-1, 2)):
        ours, theirs = _rank(side, rebuilt[px]), _rank(side, truth[px])
        by_size = (rebuilt[px + 1] != truth[px + 1]).astype(np.int64)
        kinds = np.maximum(kinds, np.where(theirs > ours, 3, np.where(theirs < ours, 2, by_size)))
    return kinds


def _touch(level: np.ndarray) -> Touch:
    bid_px, bid_sz, ask_px, ask_sz = level.tolist()
    prices = (None if px == UNDEF_PRICE else px for px in (bid_px, ask_px))
    return Touch(next(prices), bid_sz, next(prices), ask_sz)


# ------------------------------------------------------------------ one step


class _Changes(NamedTuple):
    """What each message does to a level, by message number."""

    side: np.ndarray  # 0 where it does nothing
    price: np.ndarray
    size: np.ndarray  # what comes; negative: what goes
    row: np.ndarray  # of the flow, the message's last
    ts: np.ndarray
    symbol: str


def _one_step(flow: Flow, truth: Truth, name: str) -> Comparison:
    """Whether each published row follows from the one before and its message."""
    if truth.kind != ORDERBOOK:
        raise UsageError(f"{truth.path}: found {truth.kind}, expected a {ORDERBOOK} file to go step by step")
    changes = _changes(flow)
    messages = changes.side.size
    tally, counts = _Tally(truth.levels, lambda *_: CONTRADICTION), Counter()
    before = None
    for block in truth.blocks():
        rows, after = block.row, block.values
        if before is None:
            before, rows, after = after[:, :1], rows[1:], after[:, 1:]
            counts[FIRST] = 1
        previous = np.concatenate([before, after[:, :-1]], axis=1)
        before = np.concatenate([before, after], axis=1)[:, -1:]
        counts[NO_EVENT] += int((rows >= messages).sum())
        known = rows < messages
        rows, previous, after = rows[known], previous[:, known], after[:, known]
        expected, revealed, refuted = _step(previous, after, changes, rows)
        counts[REVEALED] += int(revealed.sum())
        ends = pl.DataFrame({"row": changes.row[rows], "sequence": rows, "ts": changes.ts[rows]})
        ends = ends.with_columns(symbol=pl.lit(changes.symbol), flags=pl.lit(0))
        there = np.flatnonzero(~revealed)
        tally.add(expected[:, there], after[:, there], ends, there, rows[there], refuted[there])
    counts[NO_ROW] = messages - tally.rows - counts[REVEALED] - counts[FIRST]
    return Comparison(
        path=name,
        truth=str(truth.path),
        kind=truth.kind,
        one_step=True,
        levels=truth.levels,
        rows=tally.rows,
        exact=tally.exact,
        by_level=tally.by_level(),
        not_compared={reason: count for reason, count in counts.items() if count > 0},
        causes=dict(tally.causes),
        first=tally.first,
        notes=tuple(flow.notes),
        faults=tuple(map(str, flow.faults)),
    )


def _changes(flow: Flow) -> _Changes:
    """The changes of a flow of LOBSTER messages.

    Raises UsageError for facts that can't be those: several changes in one message, other numbers.
    """
    if flow.kind != "mbo":
        raise UsageError(f"{flow.path}: found {flow.kind}, expected the messages of a {ORDERBOOK} file")
    frames, first = [], 0
    for table in flow.batches(BATCH_ROWS):
        frame = pl.from_arrow(
            table.select(["ts_event", "symbol", "action", "side", "price", "size", "sequence"])
        )
        frame = frame.with_columns(
            pl.col("action", "symbol").cast(pl.String), pl.col("ts_event").cast(pl.Int64)
        )
        frames.append(frame.with_columns(row=pl.int_range(first, first + frame.height, dtype=pl.Int64)))
        first += table.num_rows
    facts = pl.concat(frames).filter(pl.col("sequence") >= 0)
    changing = facts.filter(~pl.col("action").is_in(["T", "F", "N"]))
    messages = int(facts["sequence"].max() or 0) + 1 if facts.height else 0
    strange = not changing["action"].is_in(["A", "C"]).all() or changing["sequence"].is_duplicated().any()
    if strange or messages > 2 * facts.height:
        raise UsageError(
            f"{flow.path}: found facts of another kind, expected the messages of a {ORDERBOOK} file"
        )
    by_message = np.zeros((5, messages), np.int64)
    number = changing["sequence"].to_numpy()
    sign = np.where(changing["action"].to_numpy() == "A", 1, -1)
    for at, values in enumerate((changing["side"], changing["price"], changing["size"] * sign)):
        by_message[at, number] = values.to_numpy()
    ends = facts.unique("sequence", keep="last", maintain_order=True)
    by_message[3:, ends["sequence"].to_numpy()] = ends["row"].to_numpy(), ends["ts_event"].to_numpy()
    return _Changes(*by_message, facts["symbol"][0] if facts.height else "")


def _step(
    before: np.ndarray, after: np.ndarray, changes: _Changes, messages: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Books [4, rows, levels] after one message each; which of them reveal a level; which can't be.

    A level that leaves lets one come in sight of which nothing is known but that it is worse: there
    `after` is believed if it says so.
    """
    expected = before.copy()
    revealed, refuted = np.zeros((2, messages.size), bool)
    for side, px in ((1, 0), (-1, 2)):
        rows = np.flatnonzero(changes.side[messages] == side)
        of = messages[rows]
        prices, sizes = before[px][rows], before[px + 1][rows]
        rank, price = _rank(side, prices), changes.price[of]
        place = (rank > side * price[:, None]).sum(axis=1)
        levels = prices.shape[1]
        inside, at = place < levels, np.minimum(place, levels - 1)
        here = (np.arange(rows.size), at)
        there = inside & (prices[here] == price)
        left = np.where(there, sizes[here], 0) + changes.size[of]
        refuted[rows] = inside & (left < 0) | (~there & inside & (changes.size[of] < 0))
        shift = np.where(inside & ~there & (left > 0), -1, np.where(there & (left == 0), 1, 0))
        column = np.arange(levels)
        moved = column + np.where(column >= at[:, None], shift[:, None], 0)
        out = moved >= levels
        moved = np.clip(moved, 0, levels - 1)
        new_prices = np.where(out, UNDEF_PRICE, np.take_along_axis(prices, moved, 1))
        new_sizes = np.where(out, 0, np.take_along_axis(sizes, moved, 1))
        sets = inside & (left > 0)
        new_prices[here] = np.where(sets, price, new_prices[here])
        new_sizes[here] = np.where(sets, left, new_sizes[here])
        unknown = (shift == 1) & (prices[:, -1] != UNDEF_PRICE)
        worse = _rank(side, after[px][rows, -1]) < rank[:, -1]
        new_prices[:, -1] = np.where(unknown & worse, after[px][rows, -1], new_prices[:, -1])
        new_sizes[:, -1] = np.where(unknown & worse, after[px + 1][rows, -1], new_sizes[:, -1])
        expected[px][rows], expected[px + 1][rows] = new_prices, new_sizes
        revealed[rows] = unknown
    return expected, revealed & (expected == after).all(axis=(0, 2)) & ~refuted, refuted


def _rank(side: int, prices: np.ndarray) -> np.ndarray:
    """Better prices are larger; no level is the smallest."""
    return np.where(prices == UNDEF_PRICE, -UNDEF_PRICE, side * prices)
