"""How a process of ours begins and ends.

An interpreter that ends takes every library down, and Polars, Arrow and numba take about a second for it.
Where Arrow's threads are just being started then, it can abort: exit status 134 after the right answer. So a
program of ours ends as soon as its work is done: what was written is flushed, what was registered to run at
exit runs, and the system takes the rest.
"""

from __future__ import annotations

import atexit
import os
import sys
import warnings
from contextlib import suppress
from typing import NoReturn


def open_streams(program: str) -> None:
    """Make stdout and stderr take whatever is written, and each warning one line there.

    What the terminal has no characters for is written in escapes; a stream that is closed swallows all.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"{program}: warning: {' '.join(str(message).split())}", file=sys.stderr)

    warnings.showwarning = show


def leave(status: int) -> NoReturn:
    """End this process with a status.

    Under a profiler or debugger it ends in the usual way, for these write what they found at the end.
    """
    if sys.gettrace() is not None or sys.getprofile() is not None:
        sys.exit(status)
    try:
        with suppress(Exception):
            atexit._run_exitfuncs()  # such as coverage's, and those that remove temporary folders
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # nobody reads it any more, or the disk is full: that has been said
                stream.flush()
    finally:  # also where Ctrl-C comes once more
        os._exit(status)
