"""Price-time priority: add, reduce, replace; and the stop losses that act between commands."""
