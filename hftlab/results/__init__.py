"""From a run to its tables, digest, positions and run folder."""
