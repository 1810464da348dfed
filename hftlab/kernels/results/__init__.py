"""What a run has written, turned into columns: tables, digest, book states, positions, drawdown."""
