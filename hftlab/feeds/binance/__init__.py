"""Binance: captures of streams and published files, as price levels."""
