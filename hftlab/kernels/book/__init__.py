"""The order book: records, price grid, ladder of levels and their queues; rows compiled to commands."""
