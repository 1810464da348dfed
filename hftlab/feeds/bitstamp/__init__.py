"""Bitstamp: live orders as CSV, as a raw log or as websocket messages, as facts by order."""
