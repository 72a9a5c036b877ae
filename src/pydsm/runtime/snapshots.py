"""Takes snapshots beside the work of the loop: a little of the state at a time, and the disk in a thread.

Decides when the next step is taken, so that the loop never stops for long. Guards that one snapshot at a time is under
way, and that one that failed changes nothing: the records that it would have replaced stay. What is in a snapshot is
the machine's business, how it lies on disk that of `storage.snapshots`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydsm.core.types.checkpoint import Checkpoint
from pydsm.machines.base import SupportsSnapshots
from pydsm.storage.snapshots import SnapshotFile, SnapshotFiles, SnapshotWriter

log = logging.getLogger("pydsm.snapshots")

_STEPS_SECONDS = 0.002
"""How long steps are taken in a row. One step alone may take longer, see `machines.base.SupportsSnapshots`."""
_REST_SECONDS = 0.003
"""How long the loop then has for other things, at least."""

Taken = Callable[[SnapshotFile], None]
"""Told on the loop that a snapshot is durable."""


@dataclass(slots=True)
class SnapshotCounters:
    """What has become of snapshots in this process."""

    taken: int = 0
    skipped: int = 0
    """Checkpoints that came while a snapshot was under way."""
    failed: int = 0
    last_number: int = 0
    """The newest checkpoint of which there is a durable snapshot; 0 for none."""
    last_seconds: float = 0.0
    """How long the last one took."""
    longest_step_seconds: float = 0.0
    """The longest time for which the loop stood still for a snapshot."""


class SnapshotTaker:
    """Made and used on the loop that owns the machine."""

    def __init__(self, machine: SupportsSnapshots, files: SnapshotFiles, taken: Taken) -> None:
        self._machine = machine
        self._files = files
        self._taken = taken
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._at = 0
        self._changed_behind = 0
        """The last checkpoint that was executed before the last batch."""
        self.counters = SnapshotCounters()

    def begin_at(self, number: int) -> None:
        """The state is that of this checkpoint, whose snapshot is there."""
        self.counters.last_number = self._at = number
        self._changed_behind = number - 1

    def note_change(self) -> None:
        """A batch was executed."""
        self._changed_behind = self._at

    def take(self, checkpoint: Checkpoint, *, wanted: bool = False) -> None:
        """The machine is at this checkpoint: begin, unless a snapshot is under way. Returns at once.

        None is taken, unless somebody wants it, while the last one has everything that was executed: checkpoints come
        in an idle group too, for the sake of agreed time.
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
        except Exception:  # every replica's machine raises it, and at each checkpoint: the group must not end by it
            self.counters.failed += 1
            log.exception(
                "the machine raised at checkpoint %d; records stay until a snapshot succeeds", checkpoint.number
            )
            return
        self._note_step(began)
        self._task = asyncio.get_running_loop().create_task(self._take(checkpoint, steps))

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    def go_on(self) -> None:
        """Take snapshots again, after `stop`."""
        self._stopping = False

    async def stop(self) -> None:
        """Abandon what is under way, and begin no other one until `go_on`."""
        self._stopping = True  # not cancelled: what the disk's thread is doing could not be, and needs its file
        if self._task is not None:
            await self._task

    async def _take(self, checkpoint: Checkpoint, steps: Iterator[bytes]) -> None:
        counters = self.counters
        began = time.monotonic()
        writer: SnapshotWriter | None = None
        try:
            writer = await asyncio.to_thread(self._files.begin, checkpoint)
            while not self._stopping and (chunks := self._some(steps)):
                await asyncio.to_thread(writer.append, [chunk for chunk in chunks if chunk])
                await asyncio.sleep(_REST_SECONDS)
            if self._stopping:
                await asyncio.to_thread(writer.abandon)
                return
            file = await asyncio.to_thread(writer.commit)
        except Exception:
            counters.failed += 1
            log.exception("the snapshot of checkpoint %d failed; records stay until one succeeds", checkpoint.number)
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

    def _some(self, steps: Iterator[bytes]) -> list[bytes]:
        """As many steps as fit into the time; none when there are no more."""
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
