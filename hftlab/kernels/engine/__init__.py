"""`step`, one command applied, and the loops over it: batch, event by event, gated, profiled, audited."""
