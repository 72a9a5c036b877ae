"""Runs the core: performs its effects in order, batches commands, and connects it with clock, disk and network.

Start reading at `node`, then `perform` and `batching`.
"""
