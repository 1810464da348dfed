"""The CSV of obAnalytics as events: every field has its form, the first row that has another is an error."""

from __future__ import annotations

import io
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa

from hftlab.errors import FormatError
from hftlab.feeds.bitstamp.events import ACTIONS, MAX, MAX_MS, MAX_US, PRICE, SIDES, VOLUME, Events
from hftlab.feeds.flow import Fault, without_end
from hftlab.feeds.parsing import containers

_MS = "milliseconds since 1970"
_TIME_FORMS = {
    13: ("[0-9]{13}", _MS),
    16: ("[0-9]{16}", "microseconds since 1970"),
}  # by the first one's digits
_COLUMNS = {  # of the CSV: what a field looks like, and what that is called
    "id": ("[0-9]{1,20}", "an integer of 64 bits"),
    "timestamp": ("[0-9]{1,13}", _MS),
    "exchange.timestamp": ("[0-9]{1,13}", _MS),
    "price": (r"[0-9]{1,10}(\.[0-9]{1,9})?", f"dollars with at most 9 decimals, up to {MAX // PRICE}"),
    "volume": ("[0-9]{1,19}", "satoshi, an integer of 63 bits"),
    "action": ("|".join(ACTIONS), " or ".join(ACTIONS)),
    "direction": ("|".join(SIDES), " or ".join(SIDES)),
}
_COINS = (r"[0-9]{1,11}(\.[0-9]{1,8})?", f"coins with at most 8 decimals, up to {MAX // VOLUME}")
_OTHER_NAMES = {"exchange_timestamp": "exchange.timestamp"}  # since 2019


def is_csv(head: bytes) -> bool:
    """Whether the first line is the header, in any order of columns."""
    return sorted(_names(head)) == sorted(_COLUMNS)


def _names(head: bytes) -> list[str]:
    names = head.split(b"\n", 1)[0].rstrip(b"\r").decode("latin-1").split(",")
    return [_OTHER_NAMES.get(name, name) for name in names]


def read_table(path: Path, faults: list[Fault]) -> Events:
    """The rows of a file; a last one without an end is a fault. Raises FormatError for a broken row."""
    data = containers.read(path)
    if not data.endswith((b"\n", b"\r")):
        faults.append(without_end(data.count(b"\n") + 1))
    return parse_csv(data, path)


def parse_csv(data: bytes, path: Path) -> Events:
    """The rows of the CSV as columns.

    Raises FormatError with the first row that is none.
    """
    names = _names(data)
    if not is_csv(data):
        found = ",".join(names)[:80]
        raise FormatError(path, f"the columns {found!r}", f"{','.join(_COLUMNS)} (or lines of a log)", row=1)
    forms = _COLUMNS
    try:
        table = _read_csv(data, names)
        forms = _forms(table, b"exchange_timestamp" in data[: data.find(b"\n") + 1])
        events = _columns(table, forms)
    except pa.ArrowInvalid as error:
        _raise_first_fault(data, names, forms, path)
        raise FormatError(path, containers.said(error), "Bitstamp events") from error
    if events is None or data.count(b"\r") != data.count(b"\r\n"):
        _raise_first_fault(data, names, forms, path)
    return events


def _forms(table: pa.Table, is_new: bool) -> dict[str, tuple[str, str]]:
    """What the fields of this file look like: the first time tells the unit, a decimal point means coins."""
    import pyarrow.compute as pc

    forms = dict(_COLUMNS)
    if not table.num_rows:
        return forms
    for name in ("timestamp", "exchange.timestamp"):
        forms[name] = _TIME_FORMS.get(len(table.column(name)[0].as_py()), forms[name])
    volumes = table.column("volume") if is_new else table.column("volume").slice(0, 1)
    if pc.any(pc.match_substring(volumes, ".")).as_py():
        forms["volume"] = _COINS
    return forms


def _read_csv(data: bytes, names: list[str]) -> pa.Table:
    from pyarrow import csv

    after_header = data.find(b"\n") + 1
    if not after_header or after_header == len(data):
        return pa.table({name: pa.chunked_array([pa.array([], pa.string())]) for name in names})
    return csv.read_csv(
        pa.BufferReader(memoryview(data)[after_header:]),
        read_options=csv.ReadOptions(column_names=names),
        parse_options=csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    ).combine_chunks()


def _columns(table: pa.Table, forms: dict[str, tuple[str, str]]) -> Events | None:
    """Events of a table of texts; None where one of the texts is no value."""
    import pyarrow.compute as pc

    texts = {name: table.column(name) for name in forms}
    for name, (pattern, _) in forms.items():
        if not pc.all(pc.match_substring_regex(texts[name], f"^(?:{pattern})$"), min_count=0).as_py():
            return None
    price, volume = _exact(texts["price"], 9), _exact(texts["volume"], 8 if forms["volume"] is _COINS else 0)
    ts_us = texts["timestamp"].cast(pa.int64()).to_numpy()
    if forms["timestamp"] != _TIME_FORMS[16]:
        ts_us = ts_us * 1000
    if (price > MAX).any() or (volume > MAX).any() or (ts_us > MAX_US).any():
        return None
    return Events(
        np.arange(len(price)),
        ts_us,
        ts_us,
        _codes(texts["action"], ACTIONS),
        texts["id"].cast(pa.uint64()).to_numpy(),
        _codes(texts["direction"], SIDES),
        price.view(np.int64),
        volume.view(np.int64),
    )


def _exact(texts: pa.ChunkedArray, decimals: int) -> np.ndarray:
    """Decimal texts in units of the last decimal, without a float; 19 digits fit half of 128 bits."""
    if not len(texts):
        return np.zeros(0, np.uint64)
    exact = pa.concat_arrays(texts.cast(pa.decimal128(19, decimals)).chunks)
    return np.frombuffer(exact.buffers()[1], np.uint64)[2 * exact.offset :: 2][: len(exact)]


def _codes(texts: pa.ChunkedArray, codes: dict[str, int]) -> np.ndarray:
    import pyarrow.compute as pc

    places = pc.index_in(texts, pa.array(list(codes))).to_numpy()
    return np.array(list(codes.values()), np.int8)[places]


def _raise_first_fault(data: bytes, names: list[str], forms: dict[str, tuple[str, str]], path: Path) -> None:
    """Go through the rows one by one; slow, and only when something is known to be wrong."""
    lines = io.BytesIO(data)
    next(lines)
    for row, line in enumerate(lines, start=2):
        fault = _csv_fault(line.removesuffix(b"\n").removesuffix(b"\r"), names, forms)
        if fault is not None:
            raise FormatError(path, *fault, row=row)


def _csv_fault(line: bytes, names: list[str], forms: dict[str, tuple[str, str]]) -> tuple[str, str] | None:
    """What is wrong with a row: (found, expected)."""
    fields = line.decode("latin-1").split(",")
    if len(fields) != len(names):
        plural = "field" if len(fields) == 1 else "fields"
        return f"{len(fields)} {plural}", f"{len(names)} ({', '.join(names)})"
    limits = {
        "id": 2**64 - 1,
        "timestamp": MAX_US if forms["timestamp"] == _TIME_FORMS[16] else MAX_MS,
        "volume": Decimal(MAX) / VOLUME if forms["volume"] is _COINS else MAX,
        "price": Decimal(MAX) / PRICE,
    }
    for name, text in zip(names, fields, strict=True):
        pattern, expected = forms[name]
        limit = limits.get(name)
        if not re.fullmatch(pattern, text) or (limit is not None and Decimal(text) > limit):
            return f"{name} {text[:40]!r}", expected
    return None
