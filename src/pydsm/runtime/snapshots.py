"""Takes snapshots in the background: small steps of the state in the event loop, disk writes in a thread.

Decides when the next step is taken, so that the loop is never blocked for long. Guarantees that at most one snapshot is
in progress, and that a failed one changes nothing: the records that it would have replaced stay. The content of a
snapshot is left to the machine, its file format to `storage.snapshots`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.errors import OperationalError
from pydsm.machines.base import SupportsSnapshots
from pydsm.storage.snapshots import SnapshotFile, SnapshotFiles, SnapshotWriter

log = logging.getLogger("pydsm.snapshots")

_STEPS_SECONDS = 0.002
"""How long steps are taken before a pause. One step may take longer, see `machines.base.SupportsSnapshots`."""
_REST_SECONDS = 0.003
"""The minimal pause for other work of the loop."""

Taken = Callable[[SnapshotFile], None]
"""Called on the loop when a snapshot is durable."""


@dataclass(slots=True)
class SnapshotCounters:
    """Counters of the snapshots taken in this process."""

    taken: int = 0
    skipped: int = 0
    """Checkpoints reached while a snapshot was in progress."""
    failed: int = 0
    last_number: int = 0
    """The newest checkpoint with a durable snapshot; 0 for none."""
    last_seconds: float = 0.0
    """Duration of the last snapshot."""
    longest_step_seconds: float = 0.0
    """The longest time for which the loop was blocked by a snapshot."""


class SnapshotTaker:
    """Takes snapshots of one machine. Created and used on the loop that owns the machine."""

    def __init__(self, machine: SupportsSnapshots, files: SnapshotFiles, taken: Taken) -> None:
        self._machine = machine
        self._files = files
        self._taken = taken
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._at = 0
        self._changed_behind = 0
        """The last checkpoint before the last executed batch."""
        self.counters = SnapshotCounters()

    def begin_at(self, number: int) -> None:
        """The state was restored from the snapshot of this checkpoint."""
        self.counters.last_number = self._at = number
        self._changed_behind = number - 1

    def note_change(self) -> None:
        """A batch was executed."""
        self._changed_behind = self._at

    def take(self, checkpoint: Checkpoint, *, wanted: bool = False) -> None:
        """Begin a snapshot of this checkpoint, unless one is in progress. The work happens in the background.

        Unless `wanted`, none is taken if no batch was executed since the last one: an idle group has checkpoints too,
        to advance agreed time.
        """
        self._at = checkpoint.number
        if self.counters.last_number > self._changed_behind and not wanted:
            return
        if self._task is not None or self._stopping:
            self.counters.skipped += 1
            return
        began = time.perf_counter()
        try:
            steps = self._machine.snapshot()
        except Exception:  # every replica may raise the same, at each checkpoint: that must not stop the group
            self.counters.failed += 1
            log.exception(
                "the machine raised at checkpoint %d; records stay until a snapshot succeeds", checkpoint.number
            )
            return
        self._note_step(began)
        self._task = asyncio.get_running_loop().create_task(self._take(checkpoint, steps))

    async def settled(self) -> None:
        """Wait until no snapshot is in progress."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    def resume(self) -> None:
        """Take snapshots again, after `stop`."""
        self._stopping = False

    async def stop(self) -> None:
        """Abandon the snapshot in progress, and begin no other one until `go_on`."""
        self._stopping = True  # the task is not cancelled: a running write in a thread cannot be, and uses the file
        if self._task is not None:
            await self._task

    async def _take(self, checkpoint: Checkpoint, steps: Iterator[bytes]) -> None:
        counters = self.counters
        began = time.monotonic()
        writer: SnapshotWriter | None = None
        try:
            writer = await asyncio.to_thread(self._files.begin, checkpoint)
            while not self._stopping and (chunks := self._next_chunks(steps)):
                await asyncio.to_thread(writer.append, [chunk for chunk in chunks if chunk])
                await asyncio.sleep(_REST_SECONDS)
            if self._stopping:
                await asyncio.to_thread(writer.abandon)
                return
            file = await asyncio.to_thread(writer.commit)
        except Exception as error:
            counters.failed += 1
            is_disk = isinstance(error, OSError | OperationalError)  # a traceback says nothing about a disk
            text = "the snapshot of checkpoint %d failed: %s; records stay until one succeeds"
            log.error(text, checkpoint.number, error, exc_info=None if is_disk else error)
            if writer is not None:
                await asyncio.to_thread(writer.abandon)
        else:
            counters.taken += 1
            counters.last_number = checkpoint.number
            counters.last_seconds = time.monotonic() - began
            self._taken(file)
        finally:
            self._task = None
            if close := getattr(steps, "close", None):
                close()

    def _next_chunks(self, steps: Iterator[bytes]) -> list[bytes]:
        """The chunks of as many steps as fit into the time; empty if there are no more."""
        began = time.perf_counter()
        chunks = []
        for chunk in steps:
            chunks.append(chunk)
            if time.perf_counter() - began > _STEPS_SECONDS:
                break
        self._note_step(began)
        return chunks

    def _note_step(self, began: float) -> None:
        counters = self.counters
        counters.longest_step_seconds = max(counters.longest_step_seconds, time.perf_counter() - began)
