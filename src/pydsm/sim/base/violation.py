"""The exception that the simulator raises when an invariant is broken."""

from pydsm.core.types.ids import InstanceId


class Violation(Exception):
    """A broken invariant: its short name, a description, and the instances concerned.

    The name stays the same while a run is shrunk; the rest may change.
    """

    def __init__(self, invariant: str, what: str, instances: tuple[InstanceId, ...] = ()) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant
        self.what = what
        self.instances = instances
