"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

import asyncio
import time
from collections.abc import Awaitable, Callable

_POLL_SECONDS = 0.005


async def eventually(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    """Return as soon as the condition holds. Raises AssertionError when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"within {seconds} s it did not happen that {what}"
        await asyncio.sleep(_POLL_SECONDS)


async def eventually_told(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 10) -> None:
    """The same for a condition that somebody has to be asked for."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"within {seconds} s it did not happen that {what}"
        await asyncio.sleep(_POLL_SECONDS)


def eventually_blocking(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    """The same for tests without a loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"within {seconds} s it did not happen that {what}"
        time.sleep(_POLL_SECONDS)
