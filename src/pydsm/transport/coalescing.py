"""Coalescing of messages: those that no client waits for are delayed, since each separate send wakes up a process.

Decides which messages can wait. How long and how much of them is a limit; whatever else leaves for the same peer takes
them along, in the order in which they were given.
"""

import asyncio
from collections.abc import Callable

from pydsm.core.types.messages import Commit, Frontier, Message, StateDigest

_PATIENT = (Commit, Frontier, StateDigest)


def can_wait(message: Message) -> bool:
    """Whether this message may be delayed by a few milliseconds.

    Gossip is no more than that. A Commit is final before it is sent, and the clients of its requests are answered by
    the replica that sends it. Those who wait for it elsewhere have a conflicting command. They asked this replica
    about that command, and its answer is what takes the Commit along; the commands of others come behind it. Only where
    few are asked (`thrifty`) may one who was not asked wait as long as the limit says.
    """
    return isinstance(message, _PATIENT)


class FlushTimer:
    """Calls `over` once, so long after the first `begin` since the last time."""

    def __init__(self, seconds: float, over: Callable[[], None]) -> None:
        self._seconds = seconds
        self._over = over
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Start the timer unless it runs."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._end)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._timer = None
        self._over()
