"""`hftlab` and `python -m hftlab`: Ctrl-C is one line from the first import on."""

import sys


def main() -> int:
    """The command line; loading it takes a moment in which Ctrl-C may come already."""
    try:
        from hftlab.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("hftlab: error: interrupted; nothing was left behind", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
