"""The `pydsm` command: one file a verb, put together in `main`."""
