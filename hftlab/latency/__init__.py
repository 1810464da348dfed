"""How long a command takes: clock, histograms, profiler and its report."""
