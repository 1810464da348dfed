"""hftlab beside packages from PyPI that do the same: same files, same orders, same results, one run.

    python -m benchmarks.peers             # 1 and 100 symbols, a million messages each (some minutes)
    python -m benchmarks.peers --quick     # small files, to see that it works
    python -m benchmarks.peers --only match touch   # order books alone
    make bench-peers

The peers, pinned in the `peers` extra of pyproject.toml, are installed into an environment of their own
(build/peers-venv), because one of them asks for another Polars than everybody else; what can't be installed
is reported as such. Each contender is a process that stays (`contenders/`), and they take turns, so that
whatever else the machine does meets them all. Before a time counts, the result has to be hftlab's.
"""
