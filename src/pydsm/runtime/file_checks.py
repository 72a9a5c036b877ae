"""Regular checks that the files of a running replica are still those of its data directory.

Each commit checks the log file as well (`storage/sealing`). The disk raises what is found, and stops the replica.
"""

import asyncio
from collections.abc import Callable

from pydsm.runtime.disk import InlineDisk, ThreadedDisk
from pydsm.storage.identity import ReplicaStore
from pydsm.storage.snapshots import SnapshotFiles

FILES_CHECK_SECONDS = 2.0
"""Between two checks."""


class FileChecks:
    """Checks the files of one replica while `running` returns True, in the disk's thread, because it may be slow."""

    def __init__(
        self,
        disk: InlineDisk | ThreadedDisk,
        store: ReplicaStore,
        snapshots: SnapshotFiles | None,
        running: Callable[[], bool],
    ) -> None:
        self._disk = disk
        self._store = store
        self._snapshots = snapshots
        self._running = running

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Check from now on."""
        self._loop = loop
        self._schedule()

    def _schedule(self) -> None:
        self._loop.call_later(FILES_CHECK_SECONDS, self._check_if_running)

    def _check_if_running(self) -> None:
        if self._running():
            self._disk.run(self._check, self._schedule)

    def _check(self) -> None:
        self._store.check()
        if self._snapshots is not None:
            self._snapshots.check_not_replaced()
