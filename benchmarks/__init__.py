"""Benchmarks: `stages.py` prints the README's table, the `bench_` modules are asv's."""
