"""Runs a coroutine on uvloop if it is installed, otherwise on asyncio's own event loop."""

import asyncio
from collections.abc import Callable, Coroutine

_Main = Coroutine[None, None, int]

run: Callable[[_Main], int]
try:
    import uvloop
except ImportError:
    run = asyncio.run
else:
    run = uvloop.run
