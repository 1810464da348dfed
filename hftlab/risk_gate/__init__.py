"""The risk gate's limits, from wherever they come, and its state over a flow."""
