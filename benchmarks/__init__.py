"""Measurements for development and for the figures in the documents. Each is `python -m benchmarks.NAME --help`."""
