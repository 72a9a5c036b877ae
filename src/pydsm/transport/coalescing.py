"""Messages that nobody waits for leave in company: each one that leaves by itself wakes a process up.

Decides which messages can wait. How long and how much of them is a limit; whatever else leaves for the same peer takes
them along, in the order in which they were given.
"""

import asyncio
from collections.abc import Callable

from pydsm.core.types.messages import Commit, Frontier, Message, StateDigest

_PATIENT = (Commit, Frontier, StateDigest)


def can_wait(message: Message) -> bool:
    """Whether a few milliseconds more are nothing to whoever gets this.

    Gossip is no more than that. A Commit is final before it is told, and the clients of its requests are answered by
    the replica that tells it. Those who wait for it elsewhere have a conflicting command. They asked this replica
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
        """Something waits from now on, if nothing has before."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._end)

    def stop(self) -> None:
        """Forget it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._timer = None
        self._over()
