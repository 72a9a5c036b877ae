"""Interface for tools that observe the instances of a replica, such as traces. It must not affect the core."""

from typing import Protocol

from pydsm.core.log.instance import Instance


class InstanceObserver(Protocol):
    """Observes one replica."""

    def changed(self, instance: Instance) -> None:
        """Called after the status of an instance changed or its batch became known. Must not change it or raise."""
        ...
