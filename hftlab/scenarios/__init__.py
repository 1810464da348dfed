"""One flow under many settings: sets of limits, accounts, and what differs."""
