"""The whole replicated state of one replica: machine and sessions, saved and restored together.

Guarantees that a snapshot has both as they were at the same time. Needs a machine that supports snapshots.
"""

from collections.abc import Iterable, Iterator
from inspect import GEN_CREATED, getgeneratorstate, isgenerator
from itertools import chain

from pydsm.core.sessions.sessions import Sessions
from pydsm.machines.base import SupportsSnapshots


class ReplicatedState:
    """A `machines.base.SupportsSnapshots`: the parts of the sessions, then the chunks of the machine."""

    def __init__(self, machine: SupportsSnapshots, sessions: Sessions) -> None:
        self._machine = machine
        self._sessions = sessions

    def snapshot(self) -> Iterator[bytes]:
        """See `SupportsSnapshots`."""
        sessions, machine = self._sessions.snapshot_in_parts(), self._machine.snapshot()
        steps = _closing(chain(sessions, machine), machine)
        next(steps)  # start the generator, so that closing it before its first chunk also runs `finally`
        return steps

    def restore(self, chunks: Iterable[bytes], *, machine_too: bool = True) -> None:
        """See `SupportsSnapshots`. `machine_too` is False for a durable machine that has this state or a later one."""
        parts = filter(None, chunks)
        self._sessions.restore_parts(parts)
        if machine_too:
            self._machine.restore(parts)


def _closing(steps: Iterator[bytes], machine: Iterator[bytes]) -> Iterator[bytes]:
    """Closes the machine's snapshot when this one is abandoned."""
    try:
        yield b""
        yield from steps
    finally:
        if isgenerator(machine) and getgeneratorstate(machine) == GEN_CREATED:
            # Closing a generator that was never started does not run its `finally`, and would leave open what it has.
            next(machine, None)
        if close := getattr(machine, "close", None):
            close()
