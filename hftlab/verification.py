"""Proof that the paths agree: one flow, cut up and run in every way, must give one digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from hftlab import outputs
from hftlab.codes import Action, Reason
from hftlab.config import Config
from hftlab.feeds import open_flow
from hftlab.kernels.ops import REJECTED
from hftlab.limits import Limits
from hftlab.order_book import Ack, Fill, OrderBook
from hftlab.replayer import Source, make_plan, replay
from hftlab.resting import Resting, nothing
from hftlab.risk_manager import RiskManager, first_control
from hftlab.runner import Progress, TapeRun, run_tape
from hftlab.tables import CheckedTable, first_rows
from hftlab.tape import Tape, compile_checked, rules_for

GATE, SENDER = "gate", "sender"  # whose order a fill's taker was
CALLS = 20_000  # commands that are also sent through OrderBook, one Python call each


class Check(NamedTuple):
    """One way of running the flow."""

    name: str
    commands: int
    digest: str
    equal: bool
    seconds: float


@dataclass(frozen=True)
class Verification:
    """Every way of running a flow, and whether all gave the digest of the first."""

    rows: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether all digests are equal."""
        return all(check.equal for check in self.rows)


def verify(
    flow: Any,
    mode: str = "match",
    *,
    config: Config | None = None,
    limits: Limits | str | Path | dict[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Verification:
    """Run a flow in batch, event by event, in chunks and in threads, and compare digests.

    `flow`, `mode`, `config`, `limits` and further options such as `symbols` are as for `replay`. `progress`
    is called with the number of checks done. The last two checks send the first commands through `OrderBook`,
    a Python call each, against a batch of the same. Behind a risk gate they are left out where the flow has
    several symbols, for an `OrderBook` has a gate of its own.
    """
    if limits is not None:
        limits = Limits.of(limits)
    if isinstance(flow, str | PathLike):
        flow = open_flow(flow)
    checks: list[Check] = []

    def check(name: str, expected: str | None, run: Callable[[], tuple[int, str]]) -> str:
        started = perf_counter()
        commands, digest = run()
        equal = expected is None or digest == expected
        checks.append(Check(name, commands, digest, equal, perf_counter() - started))
        if progress is not None:
            progress(1)
        return digest

    def whole(**how: Any) -> tuple[int, str]:
        result = replay(flow, mode, config=config, limits=limits, record=(), **options, **how)
        return result.summary()["rows"], result.digest

    reference = check("batch", None, whole)
    rows = checks[0].commands
    check("event by event", reference, partial(whole, path="event"))
    for size in _chunk_sizes(rows):
        check(f"batch in chunks of {size:,}", reference, partial(whole, chunk_rows=size))
    check(
        f"events in chunks of {_chunk_sizes(rows)[0]:,}",
        reference,
        partial(whole, chunk_rows=_chunk_sizes(rows)[0], path="event"),
    )
    for threads in (2, 4):
        check(f"batch on {threads} threads", reference, partial(whole, threads=threads))
    if mode == "match":
        source = Source(flow, make_plan(config=config, **options))
        first = next(source.chunks())[0]
        head = first_rows(first, CALLS)
        gate = limits or Limits.of_config(source.plan.config)
        if gate is None and first_control(first) is not None:
            gate = Limits()
        if gate is None or _has_one_book(gate, head):
            rules = rules_for(head.symbols, options.get("tick_size"), config)
            tape = compile_checked(head, rules, wide=gate is not None and gate.closes_positions)
            manager = None if gate is None else RiskManager(gate)
            expected = check(
                f"batch of the first {head.rows:,}",
                None,
                lambda: (head.rows, _digest(run_tape(tape, manager=manager))),
            )
            check("the same through OrderBook calls", expected, lambda: (head.rows, _calls(tape, gate)))
    return Verification(tuple(checks))


def _has_one_book(limits: Limits, checked: CheckedTable) -> bool:
    """Whether an OrderBook by itself is behind the same gate as a replay of these rows."""
    counts_alike = not limits.changes or not checked.seq.size  # a book's first command is its row 0
    return len(checked.symbols) == 1 and counts_alike


def _chunk_sizes(rows: int) -> list[int]:
    """Three ways to cut a flow: in two uneven pieces, in seven, and small but not in too many."""
    return sorted({max(1, rows * 2 // 3), max(1, rows // 7), max(997, rows // 50)}, reverse=True)


def _digest(run: TapeRun) -> str:
    digest = outputs.Digest()
    digest.add_run(run, outputs.expand_fills(run))
    return digest.with_book(run.tape.symbols, run.open_orders)


def _calls(tape: Tape, limits: Limits | None) -> str:
    """The digest of a tape's rows sent through one OrderBook per symbol, a Python call each."""
    books = [
        OrderBook(symbol, int(tick), bool(signed), limits)
        for symbol, tick, signed in zip(tape.symbols, tape.grid.ticks, tape.grid.rules["signed"], strict=True)
    ]
    outcomes, filled, leaves, fills = [], [], [], []
    for row, (book, ack) in enumerate(_acks(tape, books)):
        rejected = ack.reason is not Reason.NONE
        outcomes.append(REJECTED + ack.reason if rejected else int(ack.status))
        filled.append(ack.filled_qty)
        leaves.append(ack.leaves_qty)
        told = books[book].gate_events() if limits is not None else ()
        fills += [(row, book, GATE, fill) for event in told for fill in event.fills]
        fills += [(row, book, SENDER, fill) for fill in ack.fills]
    by_row = [np.array(a, t) for a, t in ((outcomes, "u1"), (filled, "i8"), (leaves, "i8"))]
    run = TapeRun(tape, np.empty(0), np.empty(0), *by_row, None, nothing, 0.0, ordered=True)
    digest = outputs.Digest()
    digest.add_run(run, _expanded(tape, fills))
    resting = [book.resting()._replace(book=np.full(len(book), i, np.int32)) for i, book in enumerate(books)]
    return digest.with_book(
        tape.symbols, Resting(*(np.concatenate(parts) for parts in zip(*resting, strict=True)))
    )


def _acks(tape: Tape, books: list[OrderBook]) -> Iterator[tuple[int, Ack]]:
    """Send each row to its book."""
    columns, rows = tape.checked.columns, tape.rows

    def cells(column: np.ndarray) -> list:
        return column.tolist() if column.size else [0] * rows

    ids = columns.order_id.view("u8").tolist()
    new_ids = columns.new_order_id.view("u8").tolist() if columns.new_order_id.size else ids
    times = tape.ts(np.arange(rows)).tolist()
    for action, side, order_type, tif, post_only, order_id, new_id, price, qty, number, account, ts in zip(
        *map(cells, columns[:5]), ids, new_ids, *map(cells, columns[7:]), times, strict=True
    ):
        book = books[number]
        if action == Action.NEW:
            ack = book.submit(order_id, side, price, qty, order_type, tif, account, post_only, ts)
        elif action == Action.CANCEL:
            ack = book.cancel(order_id, account, ts)
        elif action == Action.REDUCE:
            ack = book.reduce(order_id, qty, account, ts)
        elif action == Action.REPLACE:
            ack = book.replace(order_id, price, qty, new_id, post_only, order_type, account, ts)
        elif action == Action.MASS_CANCEL:
            ack = book.mass_cancel(account, ts)
        elif action == Action.RISK_CONTROL:
            ack = book.control(qty, account, ts)
        else:
            ack = book.clear(account, ts)
        yield number, ack


def _expanded(tape: Tape, fills: list[tuple[int, int, str, Fill]]) -> outputs.Fills:
    """Fills of acks as the columns a run's fills have."""
    columns, seq = tape.checked.columns, tape.seq(np.arange(tape.rows)).tolist()
    longs, ints = np.zeros((8, len(fills)), np.int64), np.zeros((3, len(fills)), np.int32)
    for i, (row, book, whose, fill) in enumerate(fills):
        replaces = columns.new_order_id.size and columns.action[row] == Action.REPLACE
        taker = 0 if whose == GATE else (columns.new_order_id if replaces else columns.order_id)[row]
        maker = np.uint64(fill.maker_order_id).view(np.int64)
        longs[:, i] = seq[row], 0, fill.price, fill.qty, taker, maker, fill.taker_leaves, fill.maker_leaves
        ints[:, i] = book, fill.taker_account, fill.maker_account
    return outputs.Fills(longs, ints, np.zeros(len(fills), np.int8))
