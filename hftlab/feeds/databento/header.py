"""What a DBN file says of itself, and how its records are laid out, by Databento's own reader.

That is the optional package `databento-dbn`: it decodes the metadata of every version and knows the size and
the fields of each kind of record.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from hftlab.errors import FormatError, UsageError
from hftlab.feeds.parsing import containers

MAGIC = b"DBN"
PREFIX_BYTES = 8  # magic, version, length of the metadata that follows

_RECORDS = {  # kind of record -> its name in Databento's package, where a mixed stream may hold it
    "MBO": "MBOMsg",
    "MBP_0": "TradeMsg",
    "MBP_1": "MBP1Msg",
    "MBP_10": "MBP10Msg",
    **dict.fromkeys(("OHLCV_DEPRECATED", "OHLCV_1S", "OHLCV_1M", "OHLCV_1H"), "OHLCVMsg"),
    **dict.fromkeys(("OHLCV_1D", "OHLCV_EOD"), "OHLCVMsg"),
    "STATUS": "StatusMsg",
    "INSTRUMENT_DEF": "InstrumentDefMsg",
    "IMBALANCE": "ImbalanceMsg",
    "ERROR": "ErrorMsg",
    "SYMBOL_MAPPING": "SymbolMappingMsg",
    "SYSTEM": "SystemMsg",
    "STATISTICS": "StatMsg",
    **dict.fromkeys(("CMBP_1", "TCBBO"), "CMBP1Msg"),
    **dict.fromkeys(("CBBO_1S", "CBBO_1M"), "CBBOMsg"),
    **dict.fromkeys(("BBO_1S", "BBO_1M"), "BBOMsg"),
}


class Header(NamedTuple):
    """What a file says before its first record, and what its records look like."""

    version: int
    first_record: int  # byte
    mappings: dict[int, list[tuple[int, int, str]]]  # instrument_id -> (first day, day after, name)
    record: np.dtype  # of an MBO record; `key` is all of its header
    sizes: dict[int, int]  # bytes of a record by kind
    kinds: dict[int, str]
    only_mbo: bool  # whether the schema says so; live captures don't
    ts_out: bool
    dataset: str


def read_header(path: Path) -> Header:
    """The metadata, read by Databento's package.

    Raises FormatError for what is no DBN of the mbo schema, UsageError where the package is missing.
    """
    dbn = _package(path)
    start = containers.head(path, size=PREFIX_BYTES, raw=True)
    if start[:3] != MAGIC or len(start) < PREFIX_BYTES:
        raise FormatError(path, f"{start[:4]!r} at its beginning", "DBN data, as b'DBN' and a version say")
    version, length = start[3], int.from_bytes(start[4:], "little")
    layout = getattr(dbn, f"v{version}", None)
    if layout is None:
        raise FormatError(path, f"DBN version {version}", f"version 1 to {dbn.DBN_VERSION}", offset=3)
    metadata = _decoded(dbn, path, version, length)
    schema = metadata.schema and str(metadata.schema.value)
    if schema not in (None, "mbo"):
        hint = " (an mbp-10 file is a truth: hftlab compare RUN --truth FILE)" if schema == "mbp-10" else ""
        raise FormatError(path, f"the schema {schema}", f"the schema mbo{hint}")
    fields = np.dtype(layout.MBOMsg._dtypes).newbyteorder("<")
    more = 8 if metadata.ts_out else 0
    names = {name: kind for name, kind in _RECORDS.items() if hasattr(dbn.RType, name)}
    return Header(
        version,
        PREFIX_BYTES + length,
        _mappings(dbn, metadata),
        _in_words(fields, layout.MBOMsg.size_hint + more),
        {getattr(dbn.RType, n).value: getattr(layout, kind).size_hint + more for n, kind in names.items()},
        {getattr(dbn.RType, name).value: name for name in names},
        schema is not None,
        bool(metadata.ts_out),
        str(metadata.dataset),
    )


def _package(path: Path) -> ModuleType:
    try:
        import databento_dbn
    except ImportError:
        raise UsageError(
            f"{path}: reading DBN needs Databento's reader: pip install 'hftlab[databento]'"
        ) from None
    return databento_dbn


def _decoded(dbn: ModuleType, path: Path, version: int, length: int) -> Any:
    """The metadata. Their decoder panics where it is too short to be any, so that is looked at before."""
    smallest = dbn.Metadata("", 0, None, dbn.SType.INSTRUMENT_ID, None, version=version).encode()
    if length + PREFIX_BYTES < len(smallest):
        expected = f"{len(smallest) - PREFIX_BYTES:,} or more"
        raise FormatError(path, f"{length:,} bytes of metadata", expected, offset=4)
    data = containers.head(path, size=PREFIX_BYTES + length, raw=True)
    if len(data) < PREFIX_BYTES + length:
        found = f"{len(data) - PREFIX_BYTES:,} bytes of metadata"
        raise FormatError(path, found, f"{length:,}, as its beginning says", offset=len(data))
    try:
        return dbn.Metadata.decode(data)
    except dbn.DBNError as error:
        raise FormatError(
            path, f"broken metadata ({containers.said(error)})", "DBN metadata", offset=8
        ) from error


def _mappings(dbn: ModuleType, metadata: Any) -> dict[int, list[tuple[int, int, str]]]:
    """Names by instrument_id, whichever of the two the request was made by."""
    by_id: dict[int, list[tuple[int, int, str]]] = {}
    for asked, intervals in metadata.mappings.items():
        for interval in intervals:
            pair = (asked, interval["symbol"])
            name, number = reversed(pair) if metadata.stype_in == dbn.SType.INSTRUMENT_ID else pair
            if name and number.isdigit():
                days = (_day(interval["start_date"]), _day(interval["end_date"]))
                by_id.setdefault(int(number), []).append((*days, name))
    return by_id


def _day(day: date) -> int:
    return day.toordinal() - date(1970, 1, 1).toordinal()


def _in_words(fields: np.dtype, size: int) -> np.dtype:
    """Their layout, and two of its words: `key` is the header, `middle` begins with `size`.

    Taking one word out of a record costs as much as taking a byte (1.6 ns: a cache line), so small fields are
    taken together. Raises UsageError where a version of the package keeps them apart.
    """
    offsets = {name: place for name, (_, place) in fields.fields.items()}
    if {offsets[name] - offsets["size"] for name in ("flags", "action", "side")} - set(range(4, 8)):
        raise UsageError(f"databento-dbn: found an mbo record of {fields}, expected that of DBN 1 to 3")
    return np.dtype(
        {
            "names": [*offsets, "key", "middle"],
            "formats": [*(fields[name] for name in offsets), "<u8", "<u8"],
            "offsets": [*offsets.values(), 0, offsets["size"]],
            "itemsize": size,
        }
    )
