"""The `pydsm` command: one module per verb, registered in `main`."""
