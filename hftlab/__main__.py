"""`hftlab` and `python -m hftlab`: Ctrl-C is one line from the first import on, and leaving takes no time."""

import sys
from typing import NoReturn

from hftlab.process import leave, open_streams

BROKEN_PIPE, INTERRUPTED = 141, 130


def main() -> NoReturn:
    """The command line as a program: it ends the process. `hftlab.cli.main` returns."""
    leave(_status())


def _status() -> int:
    """The exit status of the command; loading it takes a moment in which Ctrl-C may come already."""
    try:
        open_streams("hftlab")
        from hftlab.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("hftlab: error: interrupted; nothing was left behind", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read stderr has left
        return BROKEN_PIPE
    except SystemExit as done:  # a polite kill that no command was there to take
        return done.code if isinstance(done.code, int) else 1
    except BaseException:  # only where somebody asked for it, with HFTLAB_TRACEBACK
        sys.excepthook(*sys.exc_info())
        return 1


if __name__ == "__main__":
    main()
