"""How far a replay can be trusted: certificate, comparison with published books, verification."""
