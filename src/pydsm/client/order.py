"""Keeps the commands of a client in order when its session changes, and when some of them are refused.

Inside a session the group keeps the order (`core/sessions/sessions`).
"""

import asyncio
from collections.abc import Callable, Collection, Iterable

from pydsm.client.calls import PendingCall


class EarlierCalls:
    """The calls that were in flight when another session began; new calls are held back until they are complete."""

    def __init__(self) -> None:
        self._calls: dict[PendingCall, None] = {}

    def begin(self, calls: Iterable[PendingCall], waiting: Collection[PendingCall]) -> None:
        """Another session begins. `waiting` are the open calls that will be sent in the new session."""
        new = set(waiting)
        self._calls = {call: None for call in calls if call.origin is None and call not in new}

    def hold(self, call: PendingCall) -> bool:
        """Whether this call must wait. Commands that are sent again never wait."""
        return bool(self._calls) and call.origin is None and call not in self._calls

    def was_last(self, call: PendingCall) -> bool:
        """A call is complete; whether the calls that were held back may be sent now."""
        if not self._calls:
            return False
        self._calls.pop(call, None)
        return not self._calls


class RefusedCalls:
    """Commands that were refused and certainly not executed. They are sent again after a delay, in order of their ids.

    They keep their ids, so commands that were sent behind them are not executed before them.
    """

    def __init__(self, send: Callable[[PendingCall], None]) -> None:
        self._send = send
        self._calls: list[PendingCall] = []

    def add(self, call: PendingCall, wait_seconds: float) -> None:
        """Send a call again after `wait_seconds`, or together with a call that is waiting already."""
        self._calls.append(call)
        if len(self._calls) == 1:
            asyncio.get_running_loop().call_later(wait_seconds, self._send_all)

    def _send_all(self) -> None:
        calls, self._calls = self._calls, []
        for call in sorted(calls, key=lambda call: call.first_id or b""):
            self._send(call)
