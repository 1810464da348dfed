"""Feeds: one module per format, from bytes to an `orders` or `mbo` table, and the registry that finds it.

A feed is a module with three names:

* ``DESCRIPTION``: what it reads, in a few words;
* ``sniff(path, head) -> bool``: whether it recognises the file; `head` is its beginning, decompressed
  (of a zip archive, the archive's own first bytes). Content counts first, the name second;
* ``load(path, *, format, symbols, ...) -> Flow``: `format` is the registry name it was asked for under, None
  where it was recognised; whatever else it takes may be given to `open_flow`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from hftlab.errors import UsageError, split_symbols
from hftlab.feeds import generic, itch, lobster, native, pitch, recognition
from hftlab.feeds.binance import feed as binance
from hftlab.feeds.bitstamp import feed as bitstamp
from hftlab.feeds.databento import csv_files, dbn
from hftlab.feeds.flow import Fault, Flow, Refills
from hftlab.feeds.parsing import containers as source  # the name that feeds of other packages import

__all__ = ["ENTRY_POINTS", "FEEDS", "Fault", "Flow", "open_flow", "registry", "source", "split_symbols"]

ENTRY_POINTS = "hftlab.feeds"  # where an installed package offers feeds of its own: name -> module
FEEDS: dict[str, ModuleType] = {
    "lobster": lobster,
    "dbn": dbn,
    "databento_csv": csv_files,
    "binance": binance,
    "bitstamp": bitstamp,
    "pitch": pitch,
    "itch": itch,
    "orders": native,
    "mbo": native,
    "mbp": native,
    "generic": generic,
}


@cache
def registry() -> dict[str, ModuleType]:
    """All feeds by name: ours, those of installed packages, and the generic one last.

    Raises UsageError for one of those that can't be loaded or lacks one of the three names.
    """
    feeds = dict(FEEDS)
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name in FEEDS:
            raise UsageError(f"feed {entry.name} of {entry.value}: there is one of this name already")
        try:
            feeds[entry.name] = entry.load()
        except Exception as error:  # whatever another package's import may raise
            raise UsageError(f"feed {entry.name} of {entry.value}: can't be loaded: {error}") from error
        missing = [name for name in ("DESCRIPTION", "sniff", "load") if not hasattr(feeds[entry.name], name)]
        if missing:
            raise UsageError(f"feed {entry.name} of {entry.value}: has no {', '.join(missing)}")
    feeds["generic"] = feeds.pop("generic")  # what others know better is theirs
    return feeds


def open_flow(
    path: str | Path,
    format: str | None = None,
    symbols: str | Iterable[str] | None = None,
    initial_book: str | Path | bool | None = None,
    *,
    refills: Refills | None = None,
    **options: Any,
) -> Flow:
    """Open any supported source of order flow.

    Parameters: `format` is a name in `registry()`, None to recognise it; `symbols` are carried in the flow
    for the replay; `initial_book` and further options go to the feed (LOBSTER: `symbol`, `date`); `refills`
    says what an iceberg's refill costs its order, "keep" or "back", where the feed's own rule is not meant.

    Raises FormatError for a broken or unknown file, UsageError for a format, an option or a file that does
    not exist, and for `refills` of a source without orders to refill.
    """
    if not isinstance(path, str | Path) or path == "":
        raise UsageError(f"path: found {path!r}, expected a file")
    path, asked = Path(path), format and format.lower()
    if asked and asked not in registry():
        raise UsageError(f"unknown format {format!r}, expected one of {', '.join(registry())}")
    source.container(path)  # a file that isn't there is said before what a feed would want to know of it
    if initial_book is not None and initial_book is not False:
        options["initial_book"] = initial_book
    feed = registry()[asked or _detect(path)]
    _refuse_unknown(options, feed)
    try:
        flow = feed.load(path, format=asked, symbols=symbols, **options)
    except native.OtherColumns as error:
        if asked is not None or not recognition.may_be_mapped(error.columns):
            raise
        raise recognition.unrecognised(path, b"") from None
    flow.options, flow.opened_with = options, {"format": asked, **options}
    return flow if refills is None else _with_refills(flow, refills)


def _with_refills(flow: Flow, refills: Refills) -> Flow:
    """The flow with another rule than its feed's."""
    if flow.kind != "mbo":
        raise UsageError(f"refills: found {refills!r} for {flow.kind}, expected facts by order (mbo)")
    flow.refills = refills
    flow.options["refills"] = refills
    flow.opened_with = {**(flow.opened_with or {}), "refills": refills}
    return flow


def _refuse_unknown(options: dict[str, Any], feed: ModuleType) -> None:
    """A misspelt option is the caller's mistake, not a traceback from the feed."""
    parameters = inspect.signature(feed.load).parameters
    taken = [name for name in parameters if name not in ("path", "format", "symbols")]
    unknown = [name for name in options if name not in taken]
    if unknown:
        expected = f"one of {', '.join(taken)}" if taken else "none"
        raise UsageError(f"option {unknown[0]!r} means nothing to {feed.DESCRIPTION}, expected {expected}")


def _detect(path: Path) -> str:
    """The first feed that recognises the file."""
    head = source.head(path)
    for name, feed in registry().items():
        if feed.sniff(path, head):
            return name
    raise recognition.unrecognised(path, head)
