"""The door for tables and the tape: checked once, compiled to integers, run any number of times."""
