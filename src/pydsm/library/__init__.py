"""Replicated objects for programs: a replica in this process, a client of replicas elsewhere, and both without asyncio.

Read `handles` (the object that programs call), then `local_calls` and `replica`, then `connection`. The public names
are in `pydsm`, `pydsm.blocking` and `pydsm.testing`.
"""
