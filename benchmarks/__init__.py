"""Measurements for development and for the figures in the documents: `python -m benchmarks.NAME --help`."""
