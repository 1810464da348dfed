"""The ground floor: numba kernels on integers and arrays; nothing here knows Arrow, files or settings."""
