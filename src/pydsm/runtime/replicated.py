"""All that is replicated at one replica: the machine, and the sessions around it, saved and brought back together.

Guards that a snapshot has both as they were at one moment. A machine that has no snapshots has none here either.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

from pydsm.core.sessions.sessions import Sessions
from pydsm.machines.base import SupportsSnapshots


class ReplicatedState:
    """`machines.base.SupportsSnapshots`: the parts of the sessions, then the chunks of the machine."""

    def __init__(self, machine: SupportsSnapshots, sessions: Sessions) -> None:
        self._machine = machine
        self._sessions = sessions

    def snapshot(self) -> Iterator[bytes]:
        """See `SupportsSnapshots`."""
        sessions, machine = self._sessions.snapshot_in_parts(), self._machine.snapshot()
        steps = _closing(chain(sessions, machine), machine)
        next(steps)  # so that closing it before its first chunk ends it as well
        return steps

    def restore(self, chunks: Iterable[bytes], *, machine_too: bool = True) -> None:
        """See `SupportsSnapshots`. Without `machine_too` for one that has its state, this or a later one, by itself."""
        parts = filter(None, chunks)
        self._sessions.restore_parts(parts)
        if machine_too:
            self._machine.restore(parts)


def _closing(steps: Iterator[bytes], machine: Iterator[bytes]) -> Iterator[bytes]:
    """The machine is told when a snapshot is given up."""
    try:
        yield b""
        yield from steps
    finally:
        if close := getattr(machine, "close", None):
            close()
