"""Coalescing of messages: those that no client waits for are delayed, since each separate send wakes up a process.

Decides which messages can wait. `TransportLimits` limits for how long and how many bytes; any other message to the same
peer is sent together with them, in order.
"""

import asyncio
from collections.abc import Callable

from pydsm.core.types.messages import Commit, Frontier, Message, StateDigest

_CAN_WAIT = (Commit, Frontier, StateDigest)


def can_wait(message: Message) -> bool:
    """Whether this message may be delayed by a few milliseconds.

    Gossip is not urgent. A Commit is final before it is sent, and the clients of its requests are answered by the
    replica that sends it. Another replica waits for this Commit only to execute a conflicting command, for which it has
    sent a PreAccept to this replica; the answer is sent immediately and takes the Commit along. Only with `thrifty`,
    where PreAccept is not sent to every replica, may one wait for as long as the limit.
    """
    return isinstance(message, _CAN_WAIT)


class FlushTimer:
    """Calls `expired` once, this many seconds after the first `begin` since the last call."""

    def __init__(self, seconds: float, expired: Callable[[], None]) -> None:
        self._seconds = seconds
        self._expired = expired
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
        self._expired()
