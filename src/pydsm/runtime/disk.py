"""The performer's disk: a store that is written in a thread, so that the event loop continues during a sync.

Decides in which thread a write happens, and handles its failure. Guarantees that `done` is called only for durable
writes: after a failure it is never called again.

A write that takes less time than passing it to a thread happens in the event loop. Blocking the loop for it delays
nothing that could have been sent earlier: effects are performed in order, after the records of earlier turns.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from pydsm.core.types.effects import Record
from pydsm.storage.base import Store

Failed = Callable[[Exception], None]
"""Called once, on the loop, when the disk has failed."""


QUICK_SECONDS_MAX = 0.001
"""After a write that takes longer, the next one happens in the thread; after a shorter one, in the loop."""


class ThreadedDisk:
    """Writes in its own thread, or in the loop while writes are fast; see `runtime.perform.Disk`.

    `clock` returns seconds, to measure how long writes take.
    """

    def __init__(self, store: Store, failed: Failed, clock: Callable[[], float] = time.perf_counter) -> None:
        self._store = store
        self._failed = failed
        self._clock = clock
        self._seconds = float("inf")
        """Duration of the last write."""
        self._handed_over = 0
        """Jobs passed to the thread that are not reported as done: the store is used by thread or loop, never both."""
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
        """Run another job with the store, in order with the writes. Ignored after a failure."""
        if self._broken:
            return
        self._handed_over += 1
        self._jobs.put((job, done))

    async def close(self) -> None:
        """Finish all jobs, then release the store."""
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
    """Writes immediately in the loop: for stores that never block."""

    def __init__(self, store: Store, failed: Failed) -> None:
        self._store = store
        self._failed = failed
        self._broken = False

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        """See `runtime.perform.Disk`."""
        self.run(lambda: self._store.write(records), done)

    def run(self, job: Callable[[], None], done: Callable[[], None]) -> None:
        """Run another job with the store."""
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
