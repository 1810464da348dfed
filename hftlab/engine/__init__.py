"""One tape run by the kernels, or one command at a time: `OrderBook`."""
