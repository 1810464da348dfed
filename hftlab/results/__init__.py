"""What a run has left: tables, digest, positions, the run folder."""
