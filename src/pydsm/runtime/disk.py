"""The performer's disk: a store behind a thread, so that the loop goes on while the system synchronises.

Decides where a write happens and what its failure does. Guards that nothing is called done that is not durable: after
a failure no write is ever called done again.

A write that takes less than handing it to a thread and back does not go there. Nothing of what it holds up could have
become visible before: effects are finished in order, behind the records of those before them.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from pydsm.core.types.effects import Record
from pydsm.storage.base import Store

Failed = Callable[[Exception], None]
"""Told once, on the loop, that the disk has failed."""


QUICK_SECONDS_MAX = 0.001
"""A write that takes longer is followed by one in the thread, and a write in the thread that does not by one here."""


class ThreadedDisk:
    """Writes in a thread of its own, or in the loop while that is quick; see `runtime.perform.Disk`.

    `clock` tells how long writes take, in seconds.
    """

    def __init__(self, store: Store, failed: Failed, clock: Callable[[], float] = time.perf_counter) -> None:
        self._store = store
        self._failed = failed
        self._clock = clock
        self._seconds = float("inf")
        """What the last write took."""
        self._handed_over = 0
        """Jobs with the thread that the loop has not heard of again: the store is used by one of both at a time."""
        self._broken = False
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Callable[[], None], Callable[[], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="pydsm-storage", daemon=True)
        self._thread.start()

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        """See `runtime.perform.Disk`."""
        if self._handed_over or self._seconds > QUICK_SECONDS_MAX:
            self.run(lambda: self._write(records), done)
            return
        if self._broken:
            return
        try:
            self._write(records)
        except Exception as error:
            self._fail(error)
            return
        done()

    def _write(self, records: Sequence[Record]) -> None:
        before = self._clock()
        self._store.write(records)
        self._seconds = self._clock() - before

    def run(self, job: Callable[[], None], done: Callable[[], None]) -> None:
        """Do something else with the store, in order with the writes. Nothing is done behind a failure."""
        if self._broken:
            return
        self._handed_over += 1
        self._jobs.put((job, done))

    async def close(self) -> None:
        """Finish what was asked for, then release the store."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        self._store.close()

    def _work(self) -> None:
        while (task := self._jobs.get()) is not None:
            job, done = task
            try:
                job()
            except Exception as error:
                self._loop.call_soon_threadsafe(self._fail, error)
                return
            self._loop.call_soon_threadsafe(self._done, done)

    def _done(self, done: Callable[[], None]) -> None:
        self._handed_over -= 1
        done()

    def _fail(self, error: Exception) -> None:
        self._broken = True
        self._failed(error)


class InlineDisk:
    """Writes at once: for stores that never wait."""

    def __init__(self, store: Store, failed: Failed) -> None:
        self._store = store
        self._failed = failed
        self._broken = False

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        """See `runtime.perform.Disk`."""
        self.run(lambda: self._store.write(records), done)

    def run(self, job: Callable[[], None], done: Callable[[], None]) -> None:
        """Do something else with the store."""
        if self._broken:
            return
        try:
            job()
        except Exception as error:
            self._broken = True
            self._failed(error)
            return
        done()

    async def close(self) -> None:
        """Release the store."""
        self._store.close()
