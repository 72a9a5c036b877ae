"""Checks the invariants of a run, in every step and at its end."""
