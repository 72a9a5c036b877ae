"""Checkers of the invariants that hold in every step and at the end of a run."""
