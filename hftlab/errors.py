"""Every error hftlab raises on purpose.

::

    HftlabError                      anything a user can act on; the message is one line
    ├── InputError                   the data is not what it should be (exit status 1)
    │   ├── FormatError              a file is broken or is not what its name says: file, row, found, expected
    │   └── TableError               a table has the wrong shape; lists every problem at once
    ├── OutputError                  a result can't be written (exit status 1)
    ├── MeasurementError             a benchmark came to no result (exit status 1)
    └── UsageError                   the call itself is wrong (exit status 2)
        └── ConfigError              a configuration file or variable is wrong
            └── LimitsError          limits of the risk gate are wrong; lists every problem at once

A *row* with bad content is never an error: it becomes a reject with a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST_LEVELS = 1000  # of a side of a book in a table: memory goes with their number, a row at a time
MOST_SHOWN = 100  # problems in the text of one error; all of them are in its `problems`


def printable(text: str) -> str:
    """Text of somebody else's, fit for a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


class HftlabError(Exception):
    """Anything a user can act on. Every error of ours can be pickled: pools of processes send them home."""

    exit_status = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return _error_again, (type(self), self.args, self.__dict__)


def _error_again(kind: type[HftlabError], args: tuple[Any, ...], attributes: dict[str, Any]) -> HftlabError:
    """An error as it was, without what its constructor makes of its arguments."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class InputError(HftlabError):
    """The data is not what it should be."""


class FormatError(InputError):
    """A file is broken or is not what its name says.

    ``row`` is the line of a text, from 1 as an editor shows it, ``offset`` a byte of the decompressed content
    from 0; the message reads ``file, line N: found X, expected Y``. A *row* in a message counts the rows of a
    table from 0, like `seq`.
    """

    def __init__(
        self, path: str | Path, found: str, expected: str, row: int | None = None, offset: int | None = None
    ) -> None:
        self.path, self.row, self.offset = path, row, offset
        self.found, self.expected = found, expected = printable(found), printable(expected)
        places = [f"line {row}" if row is not None else "", f"byte {offset:,}" if offset is not None else ""]
        where = ", ".join([f"{path}", *filter(None, places)])
        super().__init__(f"{where}: found {found}, expected {expected}")


class TableError(InputError):
    """A table has the wrong shape: each problem names column, row (0-based), found and expected."""

    def __init__(self, problems: Sequence[str], what: str = "orders table") -> None:
        self.problems, self.what = tuple(problems), what
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(f"{what}: {count}: " + "; ".join(self.problems))


@contextmanager
def table_of(path: str | Path | None) -> Iterator[None]:
    """What is wrong with the table of a file names that file; None where the table came from none."""
    try:
        yield
    except TableError as error:
        raise TableError(error.problems, f"{path}: {error.what}" if path else error.what) from None


class OutputError(HftlabError):
    """A result can't be written where it was asked for."""


class MeasurementError(HftlabError):
    """A benchmark came to no result: runs that must be equal were not, or a process ended before its time."""


class UsageError(HftlabError):
    """The call itself is wrong: an unknown option value, a mode the input can't serve."""

    exit_status = 2


class ConfigError(UsageError):
    """A configuration file or environment variable is wrong."""


class LimitsError(ConfigError):
    """Limits of the risk gate are wrong: each problem names key or row, found and expected."""

    def __init__(self, what: str, problems: Sequence[str]) -> None:
        self.what, self.problems = what, tuple(problems)
        if len(self.problems) == 1:
            super().__init__(f"{what}, {self.problems[0]}")
            return
        shown = "; ".join(self.problems[:MOST_SHOWN])
        more = len(self.problems) - MOST_SHOWN
        super().__init__(
            f"{what}: {len(self.problems)} problems: {shown}" + (f"; and {more} more" if more > 0 else "")
        )


def require_positive(what: str, value: object, most: int | None = None) -> int:
    """A count somebody gave. Raises UsageError where it isn't a whole number of 1 or more, at `most` that."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (most and value > most):
        expected = f"from 1 to {most:,}" if most else "of 1 or more"
        raise UsageError(f"{what}: found {value!r}, expected a whole number {expected}")
    return value


def optional_name(what: str, value: object) -> str | None:
    """A name somebody gave, None where they didn't. Raises UsageError where it is no text."""
    if not isinstance(value, str | None):
        raise UsageError(f"{what}: found {value!r}, expected a name")
    return value


def split_symbols(symbols: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """None for all; a string may hold several, with commas, as on a command line."""
    if symbols is None:
        return None
    if not isinstance(symbols, Iterable):
        raise UsageError(f"symbols: found {symbols!r}, expected names, or one text with commas")
    names = symbols.split(",") if isinstance(symbols, str) else list(symbols)
    strange = [name for name in names if not isinstance(name, str)]
    if strange:
        raise UsageError(f"symbols: found {strange[0]!r}, expected names, or one text with commas")
    found = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not found:
        raise UsageError(f"symbols {symbols!r} name no instrument")
    return found
