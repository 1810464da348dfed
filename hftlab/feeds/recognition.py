"""What a file that no feed recognises looks like, and a command that opens it: tried before it is shown.

A table is mapped by what others call our columns. The mapping is tried on the first rows; what only who has
the file can know (what a code stands for, the unit of whole prices) stays as a word in capitals.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hftlab.errors import FormatError, HftlabError, UsageError, printable
from hftlab.feeds import generic
from hftlab.feeds.parsing import containers, table_files

FEW_ROWS = 1_000  # on which a mapping is tried
MOST_TRIES = 12
NAMES_SHOWN = 12
MANY_LOTS = "100000000"  # of 1.0, for fractional quantities: eight decimals

_MAGIC = (  # where, what, what it is, what to do
    (0, b"BZh", "bzip2 data", "unpacked first: bunzip2 -k {path}"),
    (0, b"\x04\x22\x4d\x18", "lz4 data", "unpacked first: lz4 -d {path}"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpacked first: 7z x {path}"),
    (257, b"ustar", "a tar archive", "unpacked first: tar xf {path}"),
    *(
        (
            0,
            magic,
            "a capture of network packets (pcap)",
            "the messages in its packets, as a file of a format",
        )
        for magic in (
            *(b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d"),
            b"\x0a\x0d\x0d\x0a",
        )
    ),
    (0, b"DBN", "DBN data", "inspected as that: hftlab inspect {path} --format dbn"),
    (0, b"<", "an HTML or XML page", "the data itself"),
)
_DBZ = b"DBZ"  # behind the head of a frame that zstd skips
_MBO_RECORD, _MBO_BYTES = b"\x0e\xa0", 56  # length in words of 4 bytes, kind
_CAPTURE = re.compile(r"\s*([0-9]{10,19}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z?)[\s,]+[\[{]")
_SYNONYMS = {  # what others call our columns
    "ts": "ts time timestamp datetime tsevent eventtime exchangetime transacttime date",
    "ts_recv": "tsrecv localtimestamp receivetime recvtime",
    "symbol": "symbol ticker instrument stock product pair market code sym",
    "action": "action act event eventtype type msgtype messagetype kind",
    "order_id": "orderid id oid order orderref ordernumber referencenumber",
    "side": "side direction buysell isbuy bs buysellflag s",
    "price": "price px limitprice orderprice rate",
    "qty": "qty quantity size volume amount shares vol lots q",
}
_OF_LEVELS = {"ts": "ts_event", "qty": "size"}  # our names in a table of levels
_CODES = {  # what others call our codes
    "action": {
        "NEW": "new add added insert create created open",
        "CANCEL": "cancel cancelled canceled delete deleted remove removed",
        "REPLACE": "replace modify modified change changed update",
    },
    "side": {"BUY": "buy bid b", "SELL": "sell ask offer s a"},
}
_VALUE = re.compile(r"values\.(\w+)\.(.+?)=\.\.\. says")


def unrecognised(path: Path, head: bytes) -> FormatError:
    """What to raise for a file that no feed knows: what it looks like, then what opens it."""
    look, do = _looks_like(path, head)
    return FormatError(path, f"{look}, not recognised by itself", do)


def _looks_like(path: Path, head: bytes) -> tuple[str, str]:
    """(what it is, what is expected)."""
    if containers.container(path) in ("Parquet", "Arrow IPC"):
        return _table(path, table_files.opened(path).names, "a table")
    if found := _binary(path, head):
        return found
    text = table_files.first_text(path, head)
    if text is None:
        return "binary data", _a_format()
    line = table_files.first_line(text)
    if _CAPTURE.match(line):
        look = "a raw capture (a receive time and a JSON message a line)"
        return look, "one of Binance or Bitstamp, or a feed of your own (docs/FEEDS.md)"
    if line.lstrip().startswith("["):
        quoted = shlex.quote(str(path))
        return "one JSON document", f"an object a line: jq -c '.[]' {quoted} > {quoted}.ndjson"
    if line.lstrip().startswith("{"):
        return _objects(path, line)
    delimiter = table_files.delimiter_of(line)
    names = table_files.cells_of(line, delimiter) if line else []
    if len(names) < 3 and len(words := line.split(" ")) > 2 and not words[0].isalpha():
        names = words
    return _delimited(path, names)


def _binary(path: Path, head: bytes) -> tuple[str, str] | None:
    """What the first bytes tell."""
    quoted = shlex.quote(str(path))
    with path.open("rb") as file:
        start = file.read(16)
    if start[8:11] == _DBZ:
        return (
            "DBZ, what Databento wrote before DBN",
            f"DBN, by Databento's tool: dbn {quoted} -o {quoted}.dbn",
        )
    if containers.container(path) == "zip":
        names = containers.members(path)
        shown = ", ".join(map(printable, names[:3])) + (", ..." if len(names) > 3 else "")
        return (
            f"a zip archive of {len(names)} files ({shown})",
            f"one table in it, or unpacked: unzip {quoted}",
        )
    for place, magic, look, do in _MAGIC:
        if head[place : place + len(magic)] == magic:
            return look, do.format(path=quoted)
    second = head[_MBO_BYTES : _MBO_BYTES + 2]
    if head[:2] == _MBO_RECORD and second in (_MBO_RECORD, b""):
        return "records of DBN without its metadata (a fragment)", "a whole DBN file, from its first byte on"
    return None


def _objects(path: Path, line: str) -> tuple[str, str]:
    """JSON objects, one a line."""
    if '"hd"' in line and '"rtype"' in line:
        return "Databento's JSON", 'its DBN or CSV (encoding="dbn" or "csv" in the request)'
    try:
        names = table_files.Ndjson(path).names
    except FormatError:
        return "JSON that is no object a line", _a_format()
    if re.search(r":\s*[\[{]", line):
        look = f"JSON messages with objects in them ({_shown(names)})"
        return look, "flat ones, or a feed of your own (docs/FEEDS.md)"
    return _table(path, names, "JSON objects")


def _delimited(path: Path, names: list[str]) -> tuple[str, str]:
    """Cells of a first line."""
    if len(names) < 3 or not all(names) or max(map(len, names)) > 60:
        return "text", _a_format()
    if any(re.fullmatch(r"[+-]?[0-9.:]+", name) for name in names):
        given = ",".join(f"NAME{number}" for number in range(1, len(names) + 1))
        command = f"hftlab inspect {shlex.quote(str(path))} --format generic -O header={given}"
        return f"a table of {len(names)} columns without a header", f"their names: {command}"
    return _table(path, names, "a table")


def _a_format() -> str:
    return "a format that hftlab reads (docs/FEEDS.md)"


def _shown(names: list[str]) -> str:
    shown = ", ".join(map(printable, names[:NAMES_SHOWN]))
    return shown + (", ..." if len(names) > NAMES_SHOWN else "")


# ------------------------------------------------------------------ tables


def _table(path: Path, names: list[str], what: str) -> tuple[str, str]:
    """A table of named columns: of levels, or of messages about orders."""
    mine = _columns(names)
    is_levels = not {"order_id", "action"} & mine.keys() and {"side", "price", "qty"} <= mine.keys()
    has_orders = {"order_id", "price"} <= mine.keys()
    of = " of price levels" if is_levels else " of messages about orders" if has_orders else ""
    look = f"{what}{of} with the columns {_shown(names)}"
    if not is_levels and not has_orders:
        return look, "columns that tell what happened to orders or price levels (docs/FEEDS.md)"
    options = _options(mine, is_levels)
    if not is_levels and "action" not in mine:
        options["columns"]["action"], missing = "NAME", "NAME: the column that tells what happened"
    else:
        options, missing = _tried(path, options)
    return look, f"what its columns mean: {_command(path, options)}" + (f" ({missing})" if missing else "")


def may_be_mapped(names: Iterable[str]) -> bool:
    """Whether columns of these names may be those of levels or of orders."""
    mine = _columns(list(names)).keys()
    return {"order_id", "price"} <= mine or ({"side", "price", "qty"} <= mine and "action" not in mine)


def _columns(names: list[str]) -> dict[str, str]:
    """Theirs by ours, as far as a file's own names tell."""
    plain = {re.sub(r"[^a-z]", "", name.lower()): name for name in reversed(names)}
    found = {}
    for ours, others in _SYNONYMS.items():
        theirs = next((plain[other] for other in others.split() if other in plain), None)
        if theirs is not None:
            found[ours] = theirs
    return found


def _options(mine: dict[str, str], is_levels: bool) -> dict[str, Any]:
    """The mapping that the names suggest."""
    ours = _OF_LEVELS if is_levels else {}
    if not is_levels:
        mine = {name: theirs for name, theirs in mine.items() if name != "ts_recv"}
    columns = {ours.get(name, name): theirs for name, theirs in mine.items()}
    options: dict[str, Any] = {"kind": "mbp" if is_levels else "orders"}
    options["columns"] = {name: theirs for name, theirs in columns.items() if name != theirs}
    if is_levels:  # sizes that a level has from now on; what an action says of it is the same
        options["columns"].pop("action", None)
        options["constants"] = {"action": "M"}
    return options


def _tried(path: Path, options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The options with what the first rows ask for; and what only the owner can say, if anything is left."""
    for _ in range(MOST_TRIES):
        try:
            next(iter(generic.load(path, **options).batches(FEW_ROWS)), None)
        except UsageError as error:
            said = str(error)
            if "price_scale=N" in said and "price_scale" not in options:
                return options | {"price_scale": "N"}, "N: their units of price per 1.0"
            if "time_unit=" in said and "time_unit" not in options:
                return options | {"time_unit": "UNIT"}, "UNIT: s, ms, us or ns"
            if "date=YYYY" in said:
                return options | {"date": "YYYY-MM-DD"}, "the day of its times"
            return options, said.rpartition(": ")[2]
        except HftlabError as error:
            said = str(error)
            if "qty_scale=N" in said and "qty_scale" not in options:
                options = options | {"qty_scale": MANY_LOTS}
                continue
            if (asked := _VALUE.search(said)) is None:
                return options, f"but {said.partition(': ')[2]}"
            ours, theirs = asked.groups()
            meaning = _meaning(ours, theirs)
            values = {name: dict(codes) for name, codes in options.get("values", {}).items()}
            values.setdefault(ours, {})[theirs] = meaning or "MEANING"
            options = options | {"values": values}
            if meaning is None:
                return options, f"what {theirs} and the like stand for: {', '.join(_CODES.get(ours, ()))}"
        else:
            return options, ""
    return options, ""


def _meaning(ours: str, theirs: str) -> str | None:
    """Our code for theirs, None where nobody can tell."""
    plain = theirs.strip().lower()
    return next((code for code, words in _CODES.get(ours, {}).items() if plain in words.split()), None)


def _command(path: Path, options: dict[str, Any]) -> str:
    """The command line of some options."""
    given = []
    for name, value in options.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        for key, what in inner:
            if isinstance(what, dict):
                given += [f"{name}.{key}.{code}={meaning}" for code, meaning in what.items()]
            else:
                given.append(f"{name}.{key}={what}" if key else f"{name}={what}")
    quoted = " ".join(f"-O {shlex.quote(option)}" for option in given)
    return f"hftlab inspect {shlex.quote(str(path))} --format generic {quoted}".rstrip()
