"""Databento DBN: market by order (schema `mbo`), versions 1 to 3, plain or compressed (.dbn, .dbn.zst, ...).

What a file says of itself and how a record is laid out comes from Databento's own reader (`dbn_header`);
what columns become is the same for CSV (`databento_rows`). Records are viewed as one structured array (20 ns
a record, against 600 for an object each). Their actions are this project's: A, M, C and R change the book; T
and F tell of a trade, and the C that follows an F is what takes the size off. Flag 128 ends an event, flag 32
marks a snapshot. Of the dataset GLBX.MDP3 (CME) an iceberg's refill goes to the back of its level.

=============================== ==========================================================================
in the file                     in the mbo table
=============================== ==========================================================================
instrument_id                   `symbol`: its name on the UTC day of `ts_recv`, by the metadata's mappings or
                                by a mapping record before it; the number as text where there is none. The
                                publishers after a file's first one have books of their own: ``AAPL@43``
price of UNDEF_PRICE            0; of an A or M, which need one, what the replay rejects as INVALID_PRICE
size of UNDEF_ORDER_SIZE        the same: 0, or INVALID_QTY of an A, M or C
time of UNDEF_TIMESTAMP         the other of `ts_event` and `ts_recv`
records of other kinds          counted in the notes
=============================== ==========================================================================

**Damage.** Where bytes are no record, reading goes on at the next MBO record that another one (or the end)
follows; a record whose action or side is no letter of theirs is left out. Both are faults of the flow, and so
is a file that ends in the middle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hftlab.codes import MboAction
from hftlab.errors import FormatError
from hftlab.feeds.databento.header import MAGIC, Header, read_header
from hftlab.feeds.databento.rows import (
    CME,
    Columns,
    notes_of_instruments,
    put_values,
    refills_of,
    room,
    to_table,
)
from hftlab.feeds.flow import Fault, Flow
from hftlab.feeds.parsing import containers
from hftlab.schema import MBO

DESCRIPTION = "Databento DBN files of the mbo schema (.dbn, .dbn.zst)"

BLOCK_BYTES = 1 << 20
MARGIN_BYTES = 1 << 12  # for what is left of a block: less than a record, or two where one is looked for
RUN = 8192  # records looked at together: half a megabyte, which stays in the second cache
SHORT_RUN = 64  # where records of other kinds are frequent
ROWS = 1 << 20  # of a table's chunk where the length of the whole is not known
DAY_NS = 86_400 * 10**9

_A = int(MboAction.A)
_NO_LETTER = 127
_SIDES = {"B": 1, "A": -1, "N": 0}


def _letters(codes: dict[str, int]) -> bytes:
    """A table for `bytes.translate`: letter to code, as the bits of an int8."""
    return bytes(codes.get(chr(byte), _NO_LETTER) & 0xFF for byte in range(256))


_ACTION_OF = _letters({action.name: int(action) for action in MboAction})
_SIDE_OF = _letters(_SIDES)


class Run(NamedTuple):
    """MBO records that follow each other."""

    records: np.ndarray
    keys: np.ndarray  # their headers
    byte: int  # of the first


# ------------------------------------------------------------------ opening


def sniff(path: Path, head: bytes) -> bool:
    """Whether the content begins as DBN does, or the name says that it should."""
    return (head[:3] == MAGIC and head[3:4] < b" ") or Path(
        containers.inner_name(path)
    ).suffix.lower() == ".dbn"


def load(path: Path, *, format: str | None = None, symbols: Iterable[str] | None = None) -> Flow:
    """Open a DBN file; its records are read when they are asked for.

    Raises FormatError for another file or another schema, UsageError where Databento's package is missing.
    """
    header = read_header(path)
    notes: list[str] = []
    faults: list[Fault] = []

    def batches(rows: int) -> Iterator[pa.Table]:
        reading = _Reading(path, header)
        given = False
        for table in reading.tables(rows):
            yield table
            given = True
        notes[:], faults[:] = reading.notes(), list(reading.faults.values())
        if not given:
            reading.refuse_nothing()
            yield MBO.empty_table()

    def table() -> pa.Table:
        plain = containers.container(path) == "text"
        rows = path.stat().st_size // header.record.itemsize + 1 if plain else ROWS
        tables = list(batches(rows))
        return tables[0] if len(tables) == 1 else pa.concat_tables(tables).unify_dictionaries()

    more = {"notes": notes, "faults": faults, "batches": batches}
    return Flow(path, "dbn", "mbo", table, symbols=symbols, refills=refills_of(header.dataset == CME), **more)


# ------------------------------------------------------------------ instruments


class _Symbols:
    """Book numbers by publisher, instrument and day."""

    def __init__(self, mappings: dict[int, list[tuple[int, int, str]]]) -> None:
        self._mappings = dict(mappings)
        self.numbers: dict[str, int] = {}  # by name
        self.unnamed: dict[int, None] = {}  # instruments without a mapping
        self.publishers: dict[int, None] = {}
        self._known: dict[tuple[int, int], int] = {}  # (key, day) -> number
        self._day, self._keys, self._codes = None, pa.array([], pa.uint64()), np.zeros(0, np.int32)

    def learn(self, instrument: int, name: str) -> None:
        """A mapping from the stream: it holds from here on."""
        self._mappings[instrument] = [(0, 1 << 30, name)]
        self._known.clear()
        self._day = None

    def of(self, keys: np.ndarray, ts: np.ndarray) -> np.ndarray | int:
        """The number of each record, one for all of them where there is but one."""
        first, last = int(ts.min()) // DAY_NS, int(ts.max()) // DAY_NS
        if first == last:
            return self._on(first, keys)
        days = ts // DAY_NS
        numbers = np.empty(keys.size, np.int32)
        for day in np.unique(days).tolist():
            numbers[days == day] = self._on(day, keys[days == day])
        return numbers

    def _on(self, day: int, keys: np.ndarray) -> np.ndarray | int:
        if _alike(keys) == keys.size:
            return self._number(int(keys[0]), day)
        if day != self._day:
            self._day, self._keys, self._codes = day, pa.array([], pa.uint64()), np.zeros(0, np.int32)
        keys = pa.array(keys)
        found = pc.index_in(keys, self._keys)
        if found.null_count:
            new = keys.filter(pc.is_null(found)).unique()
            codes = [self._number(key, day) for key in new.to_pylist()]
            self._keys = pa.concat_arrays([self._keys, new])
            self._codes = np.append(self._codes, np.array(codes, np.int32))
            found = pc.index_in(keys, self._keys)
        return self._codes[found.to_numpy()]

    def _number(self, key: int, day: int) -> int:
        number = self._known.get((key, day))
        if number is None:
            publisher, instrument = key >> 16 & 0xFFFF, key >> 32
            self.publishers.setdefault(publisher)
            name = self._name(instrument, day)
            if publisher != next(iter(self.publishers)):
                name = f"{name}@{publisher}"
            number = self._known[key, day] = self.numbers.setdefault(name, len(self.numbers))
        return number

    def _name(self, instrument: int, day: int) -> str:
        """Its name of that day; of any day where it never has another."""
        mappings = self._mappings.get(instrument, ())
        names = {name for _, _, name in mappings}
        if len(names) > 1:
            names = {name for start, end, name in mappings if start <= day < end}
        if len(names) == 1:
            return names.pop()
        self.unnamed.setdefault(instrument)
        return str(instrument)


# ------------------------------------------------------------------ reading


class _Reading:
    """The records of a file, once from its beginning to its end, and what was odd about them."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.header = path, header
        self.faults: dict[str, Fault] = {}
        self._symbols = _Symbols(header.mappings)
        self._others: Counter[str] = Counter()
        self._odd: Counter[str] = Counter()
        self._said = ""  # the first error record
        self._mbo = next(kind for kind, name in header.kinds.items() if name == "MBO")
        self._start = bytes([header.record.itemsize // 4, self._mbo])  # of every MBO record
        self._lost = False  # between damage and the next record

    # -------------------------------------------------------------- tables

    def tables(self, rows: int) -> Iterator[pa.Table]:
        """Tables of `rows` rows, the last of fewer, none where there is no record."""
        columns, filled = None, 0
        for run in self._runs():
            taken = 0
            while taken < run.keys.size:
                if columns is None:
                    columns, filled = room(rows), 0
                end = min(run.keys.size, taken + rows - filled)
                byte = run.byte + taken * run.records.itemsize
                filled += self._fill(columns, filled, Run(run.records[taken:end], run.keys[taken:end], byte))
                taken = end
                if filled == rows:
                    yield to_table(_first(columns, filled), self._symbols.numbers)
                    columns = None
        if columns is not None and filled:
            yield to_table(_first(columns, filled), self._symbols.numbers)

    def _fill(self, columns: Columns, at: int, run: Run) -> int:
        """Write records into the columns from a row on; how many were whole."""
        records, middle = run.records, run.records["middle"].copy()
        action, side = self._letters(middle, "action", _ACTION_OF), self._letters(middle, "side", _SIDE_OF)
        sideless = (side == 0) & (action == _A)
        if action.max() == _NO_LETTER or side.max() == _NO_LETTER or sideless.any():
            keep = self._whole(run, action, side)
            records, middle, action, side = records[keep], middle[keep], action[keep], side[keep]
            run = run._replace(keys=run.keys[keep])
            if not records.size:
                return 0
        here = Columns(*(column[at : at + records.size] for column in columns))
        for name in ("ts_event", "ts_recv", "price", "order_id", "sequence"):
            getattr(here, name)[:] = records[name]
        here.size[:], here.flags[:] = middle.view("<u4")[::2], self._bytes(middle, "flags")
        here.action[:], here.side[:] = action, side
        put_values(here, self._odd)
        numbers = self._symbols.of(run.keys, here.ts_recv)
        if isinstance(numbers, np.ndarray) or numbers:
            here.symbol[:] = numbers  # else what is there already
        return records.size

    def _bytes(self, middle: np.ndarray, name: str) -> np.ndarray:
        """A field of one byte out of the middle words."""
        fields = self.header.record.fields
        return middle.view(np.uint8)[fields[name][1] - fields["middle"][1] :: 8]

    def _letters(self, middle: np.ndarray, name: str, codes: bytes) -> np.ndarray:
        return np.frombuffer(self._bytes(middle, name).tobytes().translate(codes), np.int8)

    def _whole(self, run: Run, action: np.ndarray, side: np.ndarray) -> np.ndarray:
        """Which records can be what they say; the others are faults."""
        kinds = (
            (action == _NO_LETTER, "action", "one of A C M R T F N"),
            (side == _NO_LETTER, "side", "one of B A N"),
            ((side == 0) & (action == _A), "side", "B or A of an add"),
        )
        keep = np.ones(action.size, bool)
        for wrong, field, expected in kinds:
            wrong &= keep
            if wrong.any():
                first = int(np.argmax(wrong))
                place = run.byte + first * run.records.itemsize + run.records.dtype.fields[field][1]
                letter = run.records[field][first : first + 1].tobytes()
                self._fault(place, f"{field} {letter!r}".replace(" b'", " '"), expected, int(wrong.sum()))
                keep &= ~wrong
        return keep

    # -------------------------------------------------------------- records

    @contextmanager
    def _reader(self) -> Iterator[Callable[[bytes], bytes | memoryview | None]]:
        """A function that puts the next bytes of the file behind what it is given; None at the end.

        A plain file goes through one buffer: as fast as a map of it, and no more memory than that.
        """
        if containers.container(self.path) != "text":
            blocks = containers.blocks(self.path, size=BLOCK_BYTES, raw=True)
            yield lambda rest: None if (block := next(blocks, None)) is None else rest + block
            return
        room = memoryview(bytearray(BLOCK_BYTES + MARGIN_BYTES))
        with containers.reading(self.path, "input"), self.path.open("rb", buffering=0) as file:

            def more(rest: bytes) -> memoryview | None:
                room[: len(rest)] = rest
                count = file.readinto(room[len(rest) :])
                return room[: len(rest) + count] if count else None

            yield more

    def _runs(self) -> Iterator[Run]:
        """MBO records that follow each other, and the byte of the first; other records are dealt with."""
        rest, position, skip = b"", 0, self.header.first_record
        try:
            with self._reader() as more:
                while (data := more(rest)) is not None:
                    start = min(skip, len(data))
                    skip -= start
                    end = yield from self._walk(data, start, position)
                    rest, position = bytes(data[end:]), position + end
        except containers.EndsEarly as error:
            yield from self._last(rest, position)
            self._fault(position + len(rest), error.found, error.expected)
            return
        length = self.header.sizes.get(rest[1] if len(rest) > 1 else self._mbo, 0)
        if (yield from self._last(rest, position)) < len(rest) and not self._lost:
            self._fault(position, f"a record cut after {len(rest)} bytes", f"{length} bytes")

    def _last(self, rest: bytes, position: int) -> Iterator[Run]:
        """What is left at the end: a whole record only where it came in pieces."""
        return (yield from self._walk(rest, 0, position, final=True))

    def _walk(self, data: bytes | memoryview, at: int, position: int, final: bool = False) -> Iterator[Run]:
        """The records of a block from byte `at` of it; returns where the next block must begin."""
        sizes, size, look = self.header.sizes, self.header.record.itemsize, RUN
        if self._lost:
            at = self._found(data, at, final)
        while len(data) - at >= 2 and not self._lost:
            length, kind = data[at] * 4, data[at + 1]
            if sizes.get(kind) != length:
                self._fault(position + at, f"no record ({data[at : at + 2].hex(' ')})", "the header of one")
                self._lost = True
                at = self._found(data, at + 1, final)
            elif at + length > len(data):
                break
            elif kind != self._mbo:
                self._other(kind, bytes(data[at : at + length]), position + at)
                at += length
            else:
                count = min((len(data) - at) // size, look)
                records = np.frombuffer(data, self.header.record, count, at)
                keys = records["key"].copy()
                run = count if _alike(keys) == count else _alike(keys & 0xFFFF)  # length and kind
                look = min(RUN, look * 4) if run == count else SHORT_RUN
                yield Run(records[:run], keys[:run], position + at)
                at += run * size
        return at

    def _found(self, data: bytes | memoryview, at: int, final: bool) -> int:
        """The first record from byte `at` on, or how far it is certain that none begins."""
        size, start = self.header.record.itemsize, at
        whole = data.obj if isinstance(data, memoryview) else data  # a view can't be searched
        certain = max(at, len(data) - 2 * size + 1)
        while 0 <= (at := whole.find(self._start, at, len(data))) < certain:
            if self._is_record(data, at) and self._is_record(data, at + size):
                self._lost = False
                return at
            at += 1
        at = len(data) - size
        if final and at >= start and self._is_record(data, at):
            self._lost = False
            return at
        return certain

    def _is_record(self, data: bytes | memoryview, at: int) -> bool:
        """Whether an MBO record may begin here: what damage looks like by chance once in 10^7 bytes."""
        fields = self.header.record.fields
        return (
            data[at : at + 2] == self._start
            and _ACTION_OF[data[at + fields["action"][1]]] != _NO_LETTER
            and _SIDE_OF[data[at + fields["side"][1]]] != _NO_LETTER
        )

    def _other(self, kind: int, record: bytes, byte: int) -> None:
        """A record that is not MBO; two kinds say something."""
        name = self.header.kinds[kind]
        self._others[name] += 1
        if name not in ("SYMBOL_MAPPING", "ERROR"):
            return
        message = self._message(record)
        if message is None:
            self._fault(byte, f"a broken {name} record", "one that Databento's reader takes")
        elif name == "ERROR":
            self._said = self._said or containers.said(Exception(message.err))
        else:
            self._symbols.learn(message.instrument_id, message.stype_out_symbol)

    def _message(self, record: bytes) -> Any:
        import databento_dbn as dbn

        decoder = dbn.DBNDecoder(
            has_metadata=False,
            ts_out=self.header.ts_out,
            input_version=self.header.version,
            upgrade_policy=dbn.VersionUpgradePolicy.AS_IS,
        )
        try:
            message = decoder.write_and_decode(record)[0]
            return message if getattr(message, "stype_out_symbol", None) or hasattr(message, "err") else None
        except (dbn.DBNError, IndexError):
            return None

    # -------------------------------------------------------------- what was met

    def _fault(self, byte: int, found: str, expected: str, count: int = 1) -> None:
        known = self.faults.get(expected)
        if known is None:
            self.faults[expected] = Fault(f"byte {byte:,}", found, expected, count)
        else:
            self.faults[expected] = known._replace(count=known.count + count)

    def refuse_nothing(self) -> None:
        """A file without a record is one of a quiet day, unless it is damaged or holds other things.

        Raises FormatError for the latter.
        """
        for fault in self.faults.values():
            raise FormatError(self.path, f"no mbo record: {fault.where}: {fault.found}", fault.expected)
        if not self.header.only_mbo and self._others:
            raise FormatError(
                self.path, f"no mbo record but {_counts(self._others)}", "records of the schema mbo"
            )

    def notes(self) -> list[str]:
        """The counted quirks."""
        notes = [f"{what}: {count:,}" for what, count in self._odd.items()]
        if self._others:
            notes.append(f"records that are not mbo: {_counts(self._others)}")
        if self._said:
            notes.append(f"the first error record says: {self._said}")
        return notes + notes_of_instruments(self._symbols.unnamed, self._symbols.publishers)


def _alike(values: np.ndarray) -> int:
    """How many from the first on are like the first."""
    alike = values == values[0]
    return values.size if alike.all() else int(np.argmin(alike))


def _counts(others: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in others.most_common())


def _first(columns: Columns, rows: int) -> Columns:
    return Columns(*(column[:rows] for column in columns))
