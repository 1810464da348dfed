"""The command line: one file per command, each a thin layer over the Python call of the same name.

Exit status: 0 done; 1 the answer is no (a difference, a broken file, a result that can't be written); 2 the
command was wrong; 130 after Ctrl-C. Every error is one line on stderr: a traceback would be a bug, and even a
bug is one line unless HFTLAB_TRACEBACK is set.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import typer

import hftlab
from hftlab.cli.bench import bench
from hftlab.cli.certify import certify
from hftlab.cli.compare import compare
from hftlab.cli.convert import convert
from hftlab.cli.generate import generate
from hftlab.cli.inspect import inspect
from hftlab.cli.plot import plot
from hftlab.cli.replay import replay
from hftlab.cli.risk import risk
from hftlab.cli.verify import verify
from hftlab.errors import HftlabError

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
BROKEN_PIPE = 128 + signal.SIGPIPE
COMMAND_WRONG = 2

# What typer raises for a wrong command: its name moved between versions, its place in this tree did not.
CommandError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

app = typer.Typer(
    name="hftlab",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Replay historical order flow through compiled order books: exact fills, fast.",
    epilog="Begin with: [bold]hftlab generate -o flow.parquet[/], then [bold]hftlab replay flow.parquet[/]",
)
for command in (generate, inspect, replay, risk, verify, certify, compare, convert, bench, plot):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"hftlab {hftlab.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(COMMAND_WRONG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; arguments are the process's own unless given."""
    _end_cleanly_when_terminated()
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush is quiet
        return BROKEN_PIPE
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted; nothing was left behind", INTERRUPTED)
    except HftlabError as error:
        return _fail(str(error), error.exit_status)
    except CommandError as error:
        return _fail(_explained(error), COMMAND_WRONG)
    except MemoryError:
        return _fail("not enough memory; replay in chunks (--chunk-rows) or record fewer tables", 1)
    except OSError as error:
        found = (error.strerror or str(error)).lower()
        return _fail(f"{error.filename}: {found}" if error.filename else found, 1)
    except Exception as error:
        if os.environ.get("HFTLAB_TRACEBACK"):
            raise
        kind = type(error).__name__
        return _fail(f"this is a bug in hftlab: {kind}: {error} (HFTLAB_TRACEBACK=1 shows where)", 1)


def _run(arguments: Sequence[str]) -> int:
    """Invoke the command without typer's own handling of errors, which prints boxes."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("hftlab", list(arguments)) as context:
            return command.invoke(context) or 0
    except typer.Exit as done:
        return done.exit_code
    except SystemExit as done:
        # rich exits with 1 when the reader of a pipe has left, and here 1 means that the answer is no
        return BROKEN_PIPE if done.code == 1 else int(done.code or 0)


def _fail(message: str, status: int) -> int:
    """Print one line on stderr and return the status."""
    print(f"hftlab: error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _explained(error: Any) -> str:
    """A CommandError in one line that begins with the name of the option, if it is about one."""
    option = getattr(getattr(error, "param", None), "opts", None)
    is_value = isinstance(error, typer.BadParameter) and error.message
    problem = f"{option[0]}: {error.message}" if option and is_value else error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{problem} (see {context.command_path if context else 'hftlab'} --help)"


def _end_cleanly_when_terminated() -> None:
    """SIGTERM unwinds as Ctrl-C does, so that partial files are removed."""

    def stop(*_: object) -> None:
        sys.exit(TERMINATED)

    signal.signal(signal.SIGTERM, stop)
