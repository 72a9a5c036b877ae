"""What keeps a client's commands in their order when its session changes, and when some of them are refused.

Inside a session the group keeps the order (`core/sessions/sessions`).
"""

import asyncio
from collections.abc import Callable, Collection, Iterable

from pydsm.client.calls import PendingCall


class EarlierCalls:
    """What was under way when another session began: nothing new is sent in that until all of it is settled."""

    def __init__(self) -> None:
        self._calls: dict[PendingCall, None] = {}

    def begin(self, calls: Iterable[PendingCall], waiting: Collection[PendingCall]) -> None:
        """Another session begins; `waiting` are those of the open calls that are sent in it."""
        new = set(waiting)
        self._calls = {call: None for call in calls if call.origin is None and call not in new}

    def hold(self, call: PendingCall) -> bool:
        """Whether this one must wait. What is sent again never does."""
        return bool(self._calls) and call.origin is None and call not in self._calls

    def was_last(self, call: PendingCall) -> bool:
        """A call is settled; whether those that must wait may be sent now."""
        if not self._calls:
            return False
        self._calls.pop(call, None)
        return not self._calls


class RefusedCalls:
    """What was certainly not executed, and is sent again after a moment: under its ids and in its order.

    So what was sent behind it is not executed before it.
    """

    def __init__(self, send: Callable[[PendingCall], None]) -> None:
        self._send = send
        self._calls: list[PendingCall] = []

    def add(self, call: PendingCall, wait_seconds: float) -> None:
        """Send it after so long, or together with one that waits already."""
        self._calls.append(call)
        if len(self._calls) == 1:
            asyncio.get_running_loop().call_later(wait_seconds, self._send_all)

    def _send_all(self) -> None:
        calls, self._calls = self._calls, []
        for call in sorted(calls, key=lambda call: call.name or b""):
            self._send(call)
