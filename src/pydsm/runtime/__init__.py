"""The loop around the core: effects performed in order, commands batched, time and disk and network brought in.

Start reading at `node`, then `perform` and `batching`.
"""
