"""Tests of one's own state machines: a group in this process, the simulator, and a check of declared footprints."""

from pydsm.testing.group import Group

__all__ = ["Group"]
