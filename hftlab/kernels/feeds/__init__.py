"""Decoders: bytes of ITCH, LOBSTER and PITCH to columns, and the generator of synthetic flow."""
