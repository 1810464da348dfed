"""One order book, event by event: a Python call per command, through the same kernels as a batch."""

from __future__ import annotations

import html
from collections.abc import Callable
from decimal import Decimal
from functools import cache, wraps
from operator import index
from pathlib import Path
from time import time_ns
from typing import Any, Self

import numpy as np
import polars as pl
import pyarrow as pa
from numba import types

from hftlab import schema
from hftlab.codes import (
    DEFAULT_SYMBOL,
    NOT_A_VALUE,
    PRICE_SCALE,
    Action,
    Code,
    OrderType,
    Reason,
    RiskControl,
    Side,
    Status,
    Tif,
)
from hftlab.config.lot_values import LotValues, lot_worth
from hftlab.engine.acks import Ack, Depth, Fill, Level
from hftlab.engine.book_gate import BookGate, Intervention, Position
from hftlab.engine.live_books import Venue
from hftlab.errors import FormatError, UsageError, require_positive
from hftlab.kernels.book.ladder import BEST
from hftlab.kernels.book.opcodes import REJECTED
from hftlab.kernels.book.price_grid import PAGE, PAGE_BITS, make_rules
from hftlab.kernels.book.tape_compiler import LAST_CONTROL
from hftlab.kernels.engine import event, gated_event, live_books
from hftlab.kernels.primitives.python_int import WHOLE, WHOLE_ACCOUNT, WHOLE_ID, entry_point
from hftlab.numbers import to_units
from hftlab.risk_gate.limits import Limits
from hftlab.risk_gate.manager import RiskManager
from hftlab.tape.compiler import tick_units
from hftlab.tape.open_orders import Resting, book_table, nothing
from hftlab.tape.price_grid import spread_grid

SNAPSHOT_VERSION = b"1"
FIRST_SLOTS = 1024
FIRST_WINDOW = 512  # levels looked at around the best before more

_WORD = (WHOLE, WHOLE, WHOLE_ID, WHOLE_ID, WHOLE, WHOLE, WHOLE_ACCOUNT)  # from the address to the account
_submit = entry_point(event.submit, _WORD)
_submit_cancel = entry_point(event.submit_cancel, (WHOLE, WHOLE_ID))
LOWEST_ACCOUNT, HIGHEST_ACCOUNT = -(2**31), 2**31 - 1


@cache
def _gated_entry() -> Callable[..., int]:
    """The kernel of a book with a risk gate, loaded when the first is made."""
    return entry_point(gated_event.submit_gated, (*_WORD, types.int64))


def _spellings(code: type[Code], words: dict[Code, int]) -> dict[Any, int]:
    """Every usual way to write a code, to its bits in the word of `events.submit`."""
    table: dict[Any, int] = {}
    for name, member in code._by_name().items():
        table |= dict.fromkeys((name, name.upper(), name.capitalize(), int(member)), words[member])
    return table


_SIDES = _spellings(Side, {Side.BUY: 0, Side.SELL: 1 << event.SELL_BIT})
_TYPES = _spellings(OrderType, {t: t << event.TYPE_BITS for t in OrderType})
_TIFS = _spellings(Tif, {t: t << event.TIF_BITS for t in Tif})
_POST_ONLY = 1 << event.POST_ONLY_BIT
_CANCEL, _REDUCE, _REPLACE = int(Action.CANCEL), int(Action.REDUCE), int(Action.REPLACE)
_MASS_CANCEL, _CLEAR, _CONTROL = int(Action.MASS_CANCEL), int(Action.CLEAR), int(Action.RISK_CONTROL)

_OUTCOMES = {int(s): (s, Reason.NONE) for s in Status} | {
    REJECTED + int(r): (Status.REJECTED, r) for r in Reason
}
_INVALID = {REJECTED + int(reason): reason for reason in (Reason.INVALID_QTY, Reason.INVALID_PRICE)}
_PLAIN = {
    outcome: Ack(status, 0, 0, (), reason)
    for outcome, (status, reason) in _OUTCOMES.items()
    if not reason.quotes_values and outcome not in _INVALID
}
_LEAVE_ALL = {int(s): s for s in (Status.RESTING, Status.REPLACED)}
_COMMON_QTY = 1024
_GONE, _CANCELLED = int(Status.CANCELLED), _PLAIN[int(Status.CANCELLED)]
_UNREAD = -1  # in place of an outcome: the arguments are no integers of 64 bits, or the book is in use
_FIRST = 0  # LIMIT, GTC: their bits in the word are 0
_RESTING = [Ack(Status.RESTING, 0, qty, (), Reason.NONE) for qty in range(_COMMON_QTY)]  # 80 ns each to make


def _unusual(side: Any, order_type: Any, tif: Any) -> int:
    """The word of codes in an unusual spelling. Raises UsageError for one that is none at all."""
    word = 0
    for what, value, code, table in (
        ("side", side, Side, _SIDES),
        ("order_type", order_type, OrderType, _TYPES),
        ("tif", tif, Tif, _TIFS),
    ):
        try:
            word |= table[int(code.parse(value))]
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{what}: {error}") from None
    return word


def _checked_ids(order_id: Any, new_id: Any, account: Any) -> tuple[int, int, int]:
    """Ids and account as integers that fit. Raises UsageError."""
    checked = []
    for what, value, low, high in (
        ("order_id", order_id, 0, 2**64),
        ("new_order_id", new_id, 0, 2**64),
        ("account", account, LOWEST_ACCOUNT, HIGHEST_ACCOUNT + 1),
    ):
        if not hasattr(value, "__index__") or not low <= value < high:
            raise UsageError(f"{what}: found {value!r}, expected an integer from {low} to {high - 1}")
        checked.append(int(index(value)))
    return tuple(checked)


def _checked_time(ts: Any) -> int:
    """A time as an integer that fits. Raises UsageError."""
    if not hasattr(ts, "__index__") or not -(2**63) <= ts < 2**63:
        raise UsageError(f"ts: found {ts!r}, expected an integer of 64 bits, ns")
    return int(index(ts))


def _in_use() -> UsageError:
    return UsageError(
        "OrderBook: found a call while another thread is within one, expected one thread at a time; "
        "put a lock around it"
    )


def _one_at_a_time(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that raises UsageError where another thread is within a call of the same book."""

    @wraps(method)
    def alone(self: OrderBook, *args: Any, **kwargs: Any) -> Any:
        address, self._address = self._address, None
        try:
            if address is None:
                raise _in_use()
            return method(self, *args, **kwargs)
        finally:
            self._leave(address)

    return alone


class OrderBook:
    """A limit order book with price-time priority, one instrument.

    Prices are integers in units of 1e-9, or `Decimal`, `str` and `float` where they are exact; quantities
    whole lots; order ids any integer from 0 to 2^64-1. What a command does is in docs/SEMANTICS.md. A bad
    price or quantity is a reject (`ack.reason`), like in a batch; an argument of the wrong kind raises
    UsageError.

    With `limits` (a `Limits`, a file of them, a dict as their TOML has it) the risk gate stands in front of
    it, as in docs/RISK.md: `account` is the sender of a command, `ts` its time in ns (default: now). Without
    limits both change nothing. Money is price x lots x `lot_size` x `multiplier` (decimal text, int or
    Decimal; default 1): for lots of a satoshi "1e-8", for a future of 50 a point 50.

    One thread at a time: a call while another thread is within one raises UsageError and changes nothing, so
    that acks never mix. Who shares a book puts a lock around it. A book can be pickled, with its gate: every
    open order goes along (30 bytes), and the gate's tables.

    >>> book = OrderBook(symbol="BTC-USDT", tick_size="0.01")
    >>> book.submit(order_id=1, side="sell", price="50000", qty=100).status
    <Status.RESTING: 0>
    >>> book.submit(order_id=2, side="buy", price="50000.01", qty=60).fills[0].price
    50000000000000
    >>> book.best_ask
    Level(price=50000000000000, qty=40, count=1)
    """

    def __init__(
        self,
        symbol: str = DEFAULT_SYMBOL,
        tick_size: str | int | float | Decimal = "0.01",
        allow_nonpositive_prices: bool = False,
        limits: Limits | str | Path | dict[str, Any] | None = None,
        lot_size: str | int | float | Decimal = 1,
        multiplier: str | int | float | Decimal = 1,
    ) -> None:
        self._lots = LotValues(lot_worth(lot_size, multiplier))
        self.lot_size, self.multiplier = lot_size, multiplier
        self.symbol, self.tick_size = symbol, tick_units(tick_size)
        self.allow_nonpositive_prices = allow_nonpositive_prices
        self._open(nothing())
        if limits is not None:
            self._stand_behind(BookGate(RiskManager(Limits.of(limits), self._lots), symbol, self._venue))

    def _open(self, orders: Resting) -> None:
        pages = (
            np.unique((orders.price // self.tick_size) >> PAGE_BITS)
            if orders.count
            else np.zeros(1, np.int64)
        )
        slots = max(FIRST_SLOTS, 1 << int(orders.count + 1).bit_length())
        rules = make_rules(np.array([self.tick_size]), np.array([self.allow_nonpositive_prices]))
        self._venue = Venue(spread_grid(rules, pages), orders, slots)
        self._gate, self._gated = None, None
        self._address = self._venue.address

    def _stand_behind(self, gate: BookGate) -> None:
        self._gate, self._gated, self._address = gate, _gated_entry(), gate.address
        self._asks_time = gate.asks_time

    def submit(
        self,
        order_id: int,
        side: Side | str | int,
        price: int | str | Decimal | float = 0,
        qty: int = 0,
        order_type: OrderType | str | int = 0,
        tif: Tif | str | int = 0,
        account: int = 0,
        post_only: bool = False,
        ts: int | None = None,
    ) -> Ack:
        """NEW: match, then rest or expire what is left."""
        try:
            word = _SIDES[side]
            if order_type is not tif or tif is not _FIRST:  # two lookups, 30 ns, for what is usual
                word |= _TYPES[order_type] | _TIFS[tif]
        except (KeyError, TypeError):
            word = _unusual(side, order_type, tif)
        if post_only:
            word |= _POST_ONLY
        address, self._address = self._address, None  # until this is done no other thread finds the book
        try:
            try:  # what `_send` does, without the 60 ns of another call
                if self._gated is None:
                    outcome = _submit(address, word, order_id, order_id, price, qty, account)
                else:
                    if ts is not None:
                        time = ts if type(ts) is int else _checked_time(ts)
                    else:
                        time = time_ns() if self._asks_time else 0  # which takes 40 ns
                    outcome = self._gated(address, word, order_id, order_id, price, qty, account, time)
                if outcome == 0 and qty < _COMMON_QTY:
                    self._address = address
                    return _RESTING[qty]
            except (OverflowError, TypeError):
                outcome = _UNREAD
            return self._finish(address, outcome, word, order_id, price, qty, account, ts)
        except BaseException:
            self._leave(address)
            raise

    def cancel(self, order_id: int, account: int = 0, ts: int | None = None) -> Ack:
        """CANCEL an open order."""
        address, self._address = self._address, None
        try:
            try:
                if self._gated is not None:
                    time = time_ns() if ts is None else _checked_time(ts)
                    outcome = self._gated(address, _CANCEL, order_id, order_id, 0, 0, account, time)
                elif account == 0:
                    outcome = _submit_cancel(address, order_id)
                else:
                    outcome = _submit(address, _CANCEL, order_id, order_id, 0, 0, account)
                if outcome == _GONE:  # two calls and two lookups less than `_send`: 0.6 of the time
                    self._address = address
                    return _CANCELLED
            except (OverflowError, TypeError):
                outcome = _UNREAD
            return self._finish(address, outcome, _CANCEL, order_id, 0, 0, account, ts)
        except BaseException:
            self._leave(address)
            raise

    @_one_at_a_time
    def reduce(self, order_id: int, qty: int, account: int = 0, ts: int | None = None) -> Ack:
        """REDUCE an open order by `qty`; priority is kept."""
        return self._send(_REDUCE, order_id, order_id, 0, qty, account, ts)

    @_one_at_a_time
    def replace(
        self,
        order_id: int,
        price: int | str | Decimal | float,
        qty: int,
        new_order_id: int | None = None,
        post_only: bool = False,
        order_type: OrderType | str | int = 0,
        account: int = 0,
        ts: int | None = None,
    ) -> Ack:
        """REPLACE an open order's price, open quantity and, if asked, id; PASSIVE to rest without trading."""
        new_id = order_id if new_order_id is None else new_order_id
        word = _REPLACE | (_POST_ONLY if post_only else 0)
        if order_type:
            word |= _unusual(Side.BUY, order_type, Tif.GTC)
        return self._send(word, order_id, new_id, price, qty, account, ts)

    @_one_at_a_time
    def mass_cancel(self, account: int, ts: int | None = None) -> Ack:
        """MASS_CANCEL: every open order of an account."""
        return self._send(_MASS_CANCEL, 0, 0, 0, 0, account, ts)

    @_one_at_a_time
    def clear(self, account: int = 0, ts: int | None = None) -> Ack:
        """CLEAR: every open order."""
        return self._send(_CLEAR, 0, 0, 0, 0, account, ts)

    # -- the risk gate

    @_one_at_a_time
    def control(self, state: RiskControl | str | int, account: int = 0, ts: int | None = None) -> Ack:
        """RISK_CONTROL: the state of an account, of the symbol or of everything, such as "ACCOUNT_HALTED".

        An integer that is no RiskControl is a reject, as in a batch. Raises UsageError for another name, or
        without limits.
        """
        self._need_gate("control")
        if isinstance(state, str):
            try:
                state = int(RiskControl.parse(state))
            except ValueError as error:
                raise UsageError(f"state: {error}") from None
        return self._send(_CONTROL, 0, 0, 0, state, account, ts)

    @_one_at_a_time
    def position(self, account: int) -> Position:
        """What an account holds and has open, and its state. Raises UsageError without limits."""
        return self._need_gate("position").position(account)

    @_one_at_a_time
    def gate_events(self) -> list[Intervention]:
        """What the risk gate did by itself since this was last asked. Raises UsageError without limits."""
        gate = self._need_gate("gate_events")
        told, gate.interventions = gate.interventions, []
        return told

    def _need_gate(self, what: str) -> BookGate:
        if self._gate is None:
            raise UsageError(f"{what}: found a book without a risk gate, expected OrderBook(limits=...)")
        return self._gate

    # -- calls of the kernel, by the one thread that took the address

    def _finish(
        self,
        address: int | None,
        outcome: int,
        word: int,
        order_id: int,
        price: int,
        qty: int,
        account: int,
        ts: int | None,
    ) -> Ack:
        """The ack of a call that took more than one look at its outcome."""
        if address is None:
            raise _in_use()
        if outcome == _UNREAD:
            ack = self._send(word, order_id, order_id, price, qty, account, ts)
        else:
            ack = self._answer(outcome, word, order_id, order_id, price, qty, account, ts)
        self._leave(address)
        return ack

    def _leave(self, address: int | None) -> None:
        """Let the next call in; the address may have changed. None: this call never was within."""
        if address is not None:
            self._address = self._where()

    def _where(self) -> int:
        return self._venue.address if self._gate is None else self._gate.address

    def _send(
        self,
        word: int,
        order_id: int,
        new_id: int,
        price: int,
        qty: int,
        account: int,
        ts: int | None,
    ) -> Ack:
        try:
            if self._gated is None:
                outcome = _submit(self._where(), word, order_id, new_id, price, qty, account)
            else:
                ts = time_ns() if ts is None else _checked_time(ts)
                outcome = self._gated(self._where(), word, order_id, new_id, price, qty, account, ts)
        except (OverflowError, TypeError):  # no ints, or beyond their room
            order_id, new_id, account = _checked_ids(order_id, new_id, account)
            price, qty = to_units(price), to_units(qty, decimals=0)  # beyond 64 bits: a reject
            return self._send(word, order_id, new_id, price, qty, account, ts)
        return self._answer(outcome, word, order_id, new_id, price, qty, account, ts)

    def _answer(
        self,
        outcome: int,
        word: int,
        order_id: int,
        new_id: int,
        price: int,
        qty: int,
        account: int,
        ts: int | None,
    ) -> Ack:
        """The ack of what the kernel said; or growth, and the command once more."""
        if outcome in _LEAVE_ALL:
            return Ack(_LEAVE_ALL[outcome], 0, qty, (), Reason.NONE)
        if outcome in _PLAIN:
            return _PLAIN[outcome]
        if outcome >= gated_event.ACTED:
            self._gate.take(time_ns() if ts is None else ts, ())
            return self._answer(outcome - gated_event.ACTED, word, order_id, new_id, price, qty, account, ts)
        if outcome >= event.DETAILS:
            return self._detailed(outcome - event.DETAILS, new_id)
        if outcome in _INVALID:
            return self._invalid(_INVALID[outcome], word, price, qty)
        if outcome in _OUTCOMES:
            status, reason = _OUTCOMES[outcome]
            return Ack(status, 0, 0, (), reason, *self._gate.refusal(reason, account))
        if self._grow(outcome, price, account, ts):
            return self._send(word, order_id, new_id, price, qty, account, ts)
        return _PLAIN[REJECTED + int(Reason.CAPACITY_EXHAUSTED)]

    def _invalid(self, reason: Reason, word: int, price: int, qty: int) -> Ack:
        """The ack of a command refused for its price or quantity, with the values of the rejects table."""
        if reason is Reason.INVALID_PRICE:
            limit, observed = self.tick_size, int(price)
        else:
            limit, observed = LAST_CONTROL if word == _CONTROL else 1, int(qty)
        told = None if observed == NOT_A_VALUE else observed
        return Ack(Status.REJECTED, 0, 0, (), reason, limit, told)

    def _detailed(self, outcome: int, taker_id: int) -> Ack:
        """The ack of a command that traded, or left something other than its own quantity."""
        _, filled, leaves, count = self._venue.arrays.counts.tolist()
        return Ack(_OUTCOMES[outcome][0], filled, leaves, self._fills(count, int(taker_id)), Reason.NONE)

    def _grow(self, need: int, price: int, account: int, ts: int | None) -> bool:
        """Give the kernel what it needs; False where there can be no more."""
        venue, gate, grown = self._venue, self._gate, True
        if need == event.NEEDS_SLOTS:
            grown = venue.grow_slots()
        elif need == event.NEEDS_LEVELS:
            grown = venue.add_price(price)
        elif need == event.NEEDS_ROOM:
            gate.take(
                time_ns() if ts is None else ts, self._fills(int(venue.arrays.counts[live_books.COUNT]))
            )
            return True
        else:
            gate.serve(need, account)
        if gate is not None:
            gate.follow_nodes()
        return grown

    def _fills(self, count: int, taker_id: int = 0) -> tuple[Fill, ...]:
        arrays = self._venue.arrays
        makers = arrays.makers[:count].view(np.uint64).tolist()
        fills = arrays.fills[:count].tolist()
        return tuple(
            Fill(maker, self._price(level), qty, taker, account, maker_leaves, taker_leaves, taker_id)
            for maker, (_, _, level, account, taker, qty, maker_leaves, taker_leaves) in zip(
                makers, fills, strict=True
            )
        )

    def _price(self, level: int) -> int:
        grid = self._venue.grid
        size = int(grid.sizes[0])
        rung = 2 * size - 1 - level if level >= size else level
        page = int(grid.numbers[rung >> PAGE_BITS])
        return ((page << PAGE_BITS) | (rung & (PAGE - 1))) * self.tick_size

    @property
    def best_bid(self) -> Level | None:
        """Highest bid level, None where there is none."""
        levels = self.depth(1).bids
        return levels[0] if levels else None

    @property
    def best_ask(self) -> Level | None:
        """Lowest ask level, None where there is none."""
        levels = self.depth(1).asks
        return levels[0] if levels else None

    @_one_at_a_time
    def depth(self, levels: int = 10) -> Depth:
        """The best levels of each side."""
        count = require_positive("levels", levels)
        return Depth(*(self._side(side, count) for side in (0, 1)))

    def _side(self, side: int, count: int) -> list[Level]:
        arrays, bottom = self._venue.arrays, side * int(self._venue.grid.sizes[0])
        table, occupied, window = arrays.levels, [], FIRST_WINDOW
        low = int(arrays.heads[0, BEST + side]) + 1
        while len(occupied) < count and low > bottom:  # down from the best: the ladder may be long
            low, high, window = max(bottom, low - window), low, 4 * window
            occupied += (np.flatnonzero(table["count"][low:high])[::-1] + low).tolist()
        return [
            Level(self._price(level), int(table[level]["qty"]), int(table[level]["count"]))
            for level in occupied[:count]
        ]

    def orders(self) -> pl.DataFrame:
        """Every open order in priority order: symbol, side, price, qty, order_id, account."""
        return pl.from_arrow(self._book_table())

    @_one_at_a_time
    def resting(self) -> Resting:
        """The same as arrays."""
        return self._venue.resting()

    def _book_table(self) -> pa.Table:
        return book_table((self.symbol,), self.resting())

    def snapshot(self) -> bytes:
        """The whole book with its queue order, as an Arrow IPC stream; `restore` takes it back.

        Raises UsageError for a book with a risk gate, whose state a snapshot does not hold; `copy` does.
        """
        if self._gate is not None:
            raise UsageError("snapshot: found a book with a risk gate, expected one without; copy() keeps it")
        table = self._book_table()
        settings = {
            b"hftlab.snapshot": SNAPSHOT_VERSION,
            b"symbol": self.symbol.encode(),
            b"tick_size": str(self.tick_size).encode(),
            b"allow_nonpositive_prices": str(int(self.allow_nonpositive_prices)).encode(),
            b"orders": str(table.num_rows).encode(),
            b"lot_size": str(self.lot_size).encode(),
            b"multiplier": str(self.multiplier).encode(),
        }
        sink = pa.BufferOutputStream()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **settings})
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return sink.getvalue().to_pybytes()

    @classmethod
    def restore(cls, blob: bytes) -> Self:
        """The book of a snapshot. Raises FormatError where it isn't one, or not whole."""
        if not isinstance(blob, bytes | bytearray | memoryview):
            raise FormatError("snapshot", type(blob).__name__, "the bytes of OrderBook.snapshot()")
        try:
            with pa.ipc.open_stream(blob) as stream:
                table = stream.read_all()
            settings = table.schema.metadata or {}
            version = settings.get(b"hftlab.snapshot")
            whole = int(settings.get(b"orders", -1)) == table.num_rows
        except (pa.ArrowException, OSError, TypeError, ValueError) as error:
            raise FormatError(
                "snapshot", f"broken data ({error})", "the bytes of OrderBook.snapshot()"
            ) from None
        if version != SNAPSHOT_VERSION or not whole or table.schema.names != schema.BOOK.names:
            raise FormatError("snapshot", "other or incomplete data", "the bytes of OrderBook.snapshot()")
        tick, signed = int(settings[b"tick_size"]), settings[b"allow_nonpositive_prices"] == b"1"
        lot_size, multiplier = (settings.get(k, b"1").decode() for k in (b"lot_size", b"multiplier"))
        book = cls(settings[b"symbol"].decode(), tick, signed, lot_size=lot_size, multiplier=multiplier)
        orders = _resting(table)
        if (orders.qty <= 0).any() or (orders.price % tick != 0).any() or (np.abs(orders.side) != 1).any():
            raise FormatError("snapshot", "orders that can't rest", "the bytes of OrderBook.snapshot()")
        book._open(orders)
        return book

    @_one_at_a_time
    def copy(self) -> Self:
        """An independent book with the same orders in the same queues."""
        twin = type(self)(
            self.symbol,
            self.tick_size,
            self.allow_nonpositive_prices,
            lot_size=self.lot_size,
            multiplier=self.multiplier,
        )
        twin._open(self._venue.resting())
        if self._gate is not None:
            twin._stand_behind(self._gate.copy(twin._venue))
        return twin

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()

    @_one_at_a_time
    def __reduce__(self) -> tuple[Any, ...]:
        settings = self.symbol, self.tick_size, self.allow_nonpositive_prices
        gate = None if self._gate is None else self._gate.state()
        return _arrived, (type(self), settings, tuple(self._venue.resting()), gate)

    def __len__(self) -> int:
        return self._venue.open_count

    def __repr__(self) -> str:
        def side(level: Level | None) -> str:
            return "-" if level is None else f"{level.qty}@{_decimal(level.price)}"

        return f"<OrderBook {self.symbol} {side(self.best_bid)} | {side(self.best_ask)}, {len(self)} orders>"

    def _repr_html_(self) -> str:
        bids, asks = self.depth(5)
        row = "<tr><td>{}</td><td>{}</td><td>{}</td></tr>"
        lines = [row.format("", _decimal(a.price), a.qty) for a in reversed(asks)]
        lines += [row.format(b.qty, _decimal(b.price), "") for b in bids]
        return (
            f"<table><caption>{html.escape(self.symbol)}</caption>"
            f"<tr><th>bid</th><th>price</th><th>ask</th></tr>{''.join(lines)}</table>"
        )


def _arrived(
    kind: type[OrderBook],
    settings: tuple[str, int, bool],
    orders: tuple[np.ndarray, ...],
    gate: dict[str, Any] | None,
) -> OrderBook:
    """A book that was pickled: its state is at an address, which is another one here."""
    book = kind(*settings)
    book._open(Resting(*orders))
    if gate is not None:
        book._stand_behind(BookGate.of_state(gate, book._venue))
    return book


def _decimal(price: int) -> str:
    """A price for people."""
    return f"{Decimal(price) / PRICE_SCALE:f}"


def _resting(table: pa.Table) -> Resting:
    """Open orders from a book table of one symbol."""

    def column(name: str, dtype: str) -> np.ndarray:
        return table.column(name).to_numpy().astype(dtype)

    return Resting(
        np.zeros(table.num_rows, np.int32),
        column("side", "i1"),
        column("price", "i8"),
        column("qty", "i8"),
        table.column("order_id").to_numpy().view("i8"),
        column("account", "i4"),
    )
