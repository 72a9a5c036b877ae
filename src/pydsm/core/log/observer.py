"""Who sees what becomes of instances, from outside: for tools that tell people. The core decides nothing by it."""

from typing import Protocol

from pydsm.core.log.instance import Instance


class InstanceObserver(Protocol):
    """Watches one replica."""

    def changed(self, instance: Instance) -> None:
        """The instance has another status, or its batch became known. Must neither change it nor raise."""
        ...
