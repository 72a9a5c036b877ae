"""Runs a coroutine on the fastest loop there is: uvloop where it is installed, asyncio's own elsewhere."""

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
