"""Benchmarks: `stages.py` prints the README's table, the `bench_` modules are asv's."""

import sys
from pathlib import Path

# asv imports this package by itself, and hftlab from an environment; encoders of feeds are among the tests.
# At the end of the path, so that what is installed comes first.
sys.path.append(str(Path(__file__).resolve().parents[1]))
