"""The risk gate: what a row alone decides, what positions and books decide, and its state."""
