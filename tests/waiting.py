"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

import asyncio
import time
from collections.abc import Callable

_POLL_SECONDS = 0.005


async def eventually(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    """Return as soon as the condition holds. Raises AssertionError when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"within {seconds} s it did not happen that {what}"
        await asyncio.sleep(_POLL_SECONDS)


def eventually_blocking(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    """The same for tests without a loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"within {seconds} s it did not happen that {what}"
        time.sleep(_POLL_SECONDS)
