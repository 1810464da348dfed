"""Databento: DBN files and CSV, market by order and market by price."""
