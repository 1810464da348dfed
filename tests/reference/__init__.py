"""The slow twin: a second matching engine in plain Python, for the fast one to disagree with."""
