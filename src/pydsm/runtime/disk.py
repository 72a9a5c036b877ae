"""The performer's disk: a store behind a thread, so that the loop goes on while the system synchronises.

Decides where a write happens and what its failure does. Guards that nothing is called done that is not durable: after
a failure no write is ever called done again.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from pydsm.core.effects import Record
from pydsm.storage.base import Store

Failed = Callable[[Exception], None]
"""Told once, on the loop, that the disk has failed."""


class ThreadedDisk:
    """Writes in a thread of its own; see `runtime.perform.Disk`."""

    def __init__(self, store: Store, failed: Failed) -> None:
        self._store = store
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Callable[[], None], Callable[[], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="pydsm-storage", daemon=True)
        self._thread.start()

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        """See `runtime.perform.Disk`."""
        self.run(lambda: self._store.write(records), done)

    def run(self, job: Callable[[], None], done: Callable[[], None]) -> None:
        """Do something else with the store, in order with the writes."""
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
                self._loop.call_soon_threadsafe(self._failed, error)
                return
            self._loop.call_soon_threadsafe(done)


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
