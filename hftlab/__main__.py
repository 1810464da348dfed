"""`python -m hftlab` is the command line."""

import sys

from hftlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
