"""hftlab: replay historical order flow through compiled order books."""

__version__ = "0.1.0"
