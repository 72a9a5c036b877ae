"""Tests of one's own state machines: a group in this process, the simulator, and a check of declared footprints."""

from pydsm.testing.commuting import commutes
from pydsm.testing.group import Group
from pydsm.testing.simulation import simulated

__all__ = ["Group", "commutes", "simulated"]
