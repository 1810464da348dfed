"""The door for facts: market-by-order and market-by-price tables to checked commands that rebuild a book."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from hftlab.codes import (
    MBO_FLAG_LAST,
    Action,
    MboAction,
    Side,
)
from hftlab.errors import TableError
from hftlab.kernels.book.columns import Columns
from hftlab.kernels.book.refills import FOLLOWED, KEYS, NEXT, mark_refills
from hftlab.kernels.codes import NOTE
from hftlab.kernels.primitives.hash_index import copy_index, make_index
from hftlab.schema import REFILLS_KEY, SEQ
from hftlab.tape.tables import (
    ABSENT,
    CheckedTable,
    TableReader,
    as_arrow,
    frozen,
)

_FACT_ACTIONS = {
    MboAction.A: Action.NEW,
    MboAction.M: Action.REPLACE,
    MboAction.C: Action.REDUCE,
    MboAction.R: Action.CLEAR,
    MboAction.T: NOTE,
    MboAction.F: NOTE,
    MboAction.N: NOTE,
}


_ACTION_BYTES = bytes(_FACT_ACTIONS[MboAction(i)] for i in range(len(MboAction))).ljust(256, b"\0")


class Mbo(NamedTuple):
    """The columns of an mbo table as arrays."""

    ts: np.ndarray  # int64 ns; the row number where there is no ts_event
    fact: np.ndarray  # int8, MboAction
    side: np.ndarray  # int8
    order_id: np.ndarray  # int64, the bits of a uint64
    price: np.ndarray  # int64, 1e-9; NOT_A_VALUE where it could not be read
    size: np.ndarray  # int64, lots; NOT_A_VALUE where it could not be read
    flags: np.ndarray  # uint8
    sequence: np.ndarray  # int64; the row number where there is none
    book: np.ndarray  # int32
    symbols: tuple[str, ...]  # by book number
    requeues: bool = False  # whether a refill goes to the back of its level (Flow.refills)


def read_mbo(table: Any, first_row: int = 0, what: str = "mbo table") -> Mbo:
    """Check an mbo table.

    Raises TableError listing everything that is wrong with its shape.
    """
    reader = TableReader(as_arrow(table), what, first_row)
    rows, needed = reader.table.num_rows, f"needed in every {what}"
    fact, side = reader.codes("action", MboAction, needed), reader.codes("side", Side, needed)
    if side.size == fact.size:
        sideless = (fact == MboAction.A) & (side == 0)
        if sideless.any():
            reader.wrong("side", "no side", "BUY or SELL on every A", int(np.argmax(sideless)))
    book, symbols = reader.symbols()
    columns = Mbo(
        reader.times("ts_event"),
        fact,
        side,
        reader.ids("order_id", needed),
        reader.prices("price", needed),
        reader.quantities("size", needed),
        reader.integers("flags", "u1"),
        reader.integers("sequence", "i8"),
        book,
        symbols,
        _requeues(reader.table, what),
    )
    reader.finish()
    defaults = {"flags": np.uint8, "book": np.int32}
    absent = {name: np.zeros(rows, t) for name, t in defaults.items() if not getattr(columns, name).size}
    numbered = [name for name in ("ts", "sequence") if not getattr(columns, name).size]
    absent |= {name: np.arange(first_row, first_row + rows) for name in numbered}
    return columns._replace(**absent)


def _requeues(table: pa.Table, what: str) -> bool:
    """What the metadata of a table says that a refill does. Raises TableError for another word."""
    rule = (table.schema.metadata or {}).get(REFILLS_KEY, b"keep")
    if rule not in (b"keep", b"back"):
        found = rule.decode(errors="replace")
        raise TableError([f"metadata {REFILLS_KEY.decode()}: found {found!r}, expected keep or back"], what)
    return rule == b"back"


def read_mbp(table: Any, first_row: int = 0) -> Mbo:
    """Check an mbp table: the columns of `read_mbo`, with order ids of 0.

    Raises TableError listing everything that is wrong with its shape.
    """
    table = as_arrow(table)
    if "order_id" in table.column_names:
        table = table.drop_columns("order_id")
    table = table.append_column("order_id", pa.array(np.zeros(table.num_rows, np.uint64)))
    return read_mbo(table, first_row, "mbp table")


def read_facts(table: Any, first_row: int = 0) -> CheckedTable:
    """Check an mbo table; its facts become commands that rest and remove without matching.

    Of a table that is only some rows of a flow (`schema.SEQ` among its columns), `seq` counts the flow's.

    Raises TableError listing everything that is wrong with its shape.
    """
    return FactReader()(table, first_row)


class FactReader:
    """Reads one mbo table after the other; what is executed of which order passes from each to the next."""

    def __init__(self) -> None:
        self._refills = Refills()

    def __call__(self, table: Any, first_row: int = 0) -> CheckedTable:
        """Check an mbo table, as `read_facts` does.

        Raises TableError listing everything that is wrong with its shape.
        """
        table = as_arrow(table)
        mbo = read_mbo(table, first_row)
        return _with_seq(table, facts_to_commands(mbo, first_row, self._refills.of(mbo)))


def _with_seq(table: pa.Table, checked: CheckedTable) -> CheckedTable:
    """The rows of a whole flow that these are, where the table says so."""
    place = table.schema.get_field_index(SEQ.name)
    if place < 0 or not table.schema.field(place).equals(SEQ, check_metadata=True):
        return checked
    return replace(checked, seq=frozen(table.column(place).to_numpy(), "i8"))


def facts_to_commands(mbo: Mbo, first_row: int = 0, refills: np.ndarray | None = None) -> CheckedTable:
    """Facts as commands that rest and remove without matching.

    `refills` (bool by row, [0] for none) tells the M that send their order to the back of its level although
    they ask for no more than it had; by default what `Refills` finds in these facts.
    """
    refills = Refills().of(mbo) if refills is None else refills
    actions = mbo.fact.tobytes().translate(_ACTION_BYTES)  # a lookup by bytes: a tenth of one by indices
    columns = Columns(
        frozen(np.frombuffer(actions, "i1"), "i1"),
        mbo.side,
        ABSENT["i1"],
        ABSENT["i1"],
        refills,  # as `post_only`, which no fact is: with PASSIVE it is opcodes.REQUEUE
        mbo.order_id,
        ABSENT["i8"],
        mbo.price,
        mbo.size,
        frozen(mbo.book, "i4") if len(mbo.symbols) > 1 else ABSENT["i4"],
        ABSENT["i4"],
    )
    ts = frozen(mbo.ts, "i8")
    ends = event_ends(mbo)
    return CheckedTable(
        mbo.fact.size, columns, mbo.symbols, ts, first_row, facts=True, any_sign=True, ends=ends
    )


def event_ends(mbo: Mbo) -> np.ndarray:
    """Whether each row ends an event; [0] where the source marks none, and every row does."""
    last = mbo.flags & MBO_FLAG_LAST != 0
    return frozen(last, "?") if last.any() else ABSENT["?"]


class Refills:
    """Finds refills in one mbo table after the other: executions may be told in one, their M in the next."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}  # of books, by symbol: a table has numbers of its own
        self._index, self._followed = make_index(1), np.zeros(1, FOLLOWED)
        self._lives, self._counts = np.zeros(0, np.int32), np.array([1, 0, 0])

    def of(self, mbo: Mbo) -> np.ndarray:
        """Whether each row is an M that gives its order more than executions left of it; [0] where none is.

        Where refills keep their place, there are none to be found.
        """
        if not mbo.requeues:
            return ABSENT["?"]
        numbers = (self._numbers.setdefault(symbol, len(self._numbers)) for symbol in mbo.symbols)
        books = np.fromiter(numbers, np.int32)
        self._make_room(int(np.count_nonzero(mbo.fact == MboAction.A)))
        marks = np.zeros(mbo.fact.size, np.bool_)
        mark_refills(
            frozen(mbo.fact, "i1"),
            frozen(mbo.order_id, "i8"),
            frozen(mbo.book if (books == np.arange(books.size)).all() else books[mbo.book], "i4"),
            frozen(mbo.price, "i8"),
            frozen(mbo.size, "i8"),
            self._index,
            self._followed,
            self._lives,
            self._counts,
            marks,
        )
        return frozen(marks, "?") if marks.any() else ABSENT["?"]

    def _make_room(self, orders: int) -> None:
        """For so many orders more: the index stays at most half full."""
        keys = int(self._counts[KEYS]) + orders
        if 2 * keys > self._index.size:
            larger = make_index(2 * keys)
            copy_index(self._index, larger)
            self._index = larger
        self._followed = _grown(self._followed, int(self._counts[NEXT]) + orders)
        self._lives = _grown(self._lives, len(self._numbers))


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    """The same values with room for at least `size`, doubled where it is too small."""
    if size <= array.size:
        return array
    larger = np.zeros(max(size, 2 * array.size), array.dtype)
    larger[: array.size] = array
    return larger
