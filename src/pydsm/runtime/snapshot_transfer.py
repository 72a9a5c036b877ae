"""Snapshots that travel: reads what peers ask for and keeps what comes from them, beside the work of the loop.

Decides in which order a fetched snapshot takes the place of what the disk has. Guards that a crash at any moment leaves
either the old records or the whole new snapshot: the file is durable first, then one write of the store removes the
records up to it, and only then does it count. Whom to ask for what is decided by `core.protocol.snapshot_fetch`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydsm.core.replica import Replica
from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.effects import BeginFetch, InstallSnapshot, KeepPiece, PurgeRecord, ServePiece, Transfer
from pydsm.core.types.errors import OperationalError, PyDSMError
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import PIECE_BYTES_MAX, SnapshotPiece
from pydsm.storage.snapshots import SnapshotFile, SnapshotFiles, SnapshotReceiver, number_of

log = logging.getLogger("pydsm.snapshots")


class RestartRequired(PyDSMError):
    """The snapshot of a peer is on this replica's disk: close everything, and start a new node with the same data."""


@dataclass(slots=True)
class PieceCounters:
    """Pieces of snapshots that travelled, since this life of the replica began."""

    sent: int = 0
    kept: int = 0
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class TransferContext:
    """What a node gives."""

    core: Replica
    files: SnapshotFiles | None
    """None where snapshots are not kept: then none is sent or fetched."""
    send: Callable[[ReplicaId, SnapshotPiece], None]
    tell: Callable[[Callable[[], None]], None]
    """Calls the core, if the replica still runs, and performs what it asks for."""
    may_replace: Callable[[], bool]
    """False while somebody maintains the machine."""
    replace: Callable[[PurgeRecord], Awaitable[None]]
    """Nothing is written by this replica any more but this record. Done when it is durable."""
    begin_again: Callable[[RestartRequired], None]
    name_of: Callable[[ReplicaId], str] = "replica {}".format
    """How people call a member."""


class SnapshotTransfers:
    """Made and used on the loop that owns the core."""

    def __init__(self, parts: TransferContext) -> None:
        self._parts = parts
        self._receiver: SnapshotReceiver | None = None
        self._serving: dict[ReplicaId, asyncio.Task[None]] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._cannot_store_snapshots = False
        """A snapshot is needed, and there is no place for it: said once, since peers tell several times a second."""
        self._disputed = 0
        """The last checkpoint of which was said that members differ about it."""
        self.counters = PieceCounters()

    def begin(self, transfer: Transfer) -> None:
        """Returns at once. A peer that asks again while it is being served is not served twice."""
        files = self._parts.files
        loop = asyncio.get_running_loop()
        if isinstance(transfer, ServePiece):
            if files is not None and transfer.to not in self._serving:
                self._serving[transfer.to] = loop.create_task(self._serve(files, transfer))
        elif files is None:
            if not self._cannot_store_snapshots:
                log.error(
                    "what is missing here is forgotten, and nothing here keeps snapshots: this replica cannot rejoin"
                )
            self._cannot_store_snapshots = True
            self._parts.tell(lambda: self._parts.core.cannot_keep(transfer.number))
        else:
            before = self._fetching
            self._fetching = loop.create_task(self._fetch(files, transfer, before))

    async def stop(self) -> None:
        """Wait for what is under way: a thread could not be stopped, and needs its file."""
        tasks = [*self._serving.values(), *([self._fetching] if self._fetching is not None else [])]
        current = asyncio.current_task()
        await asyncio.gather(*(task for task in tasks if task is not current), return_exceptions=True)
        await self._let_go()

    async def _serve(self, files: SnapshotFiles, wanted: ServePiece) -> None:
        parts = self._parts
        try:
            found = await asyncio.to_thread(files.read, wanted.number, wanted.offset, PIECE_BYTES_MAX)
        except OSError as error:
            log.error("snapshot %d cannot be read for %s: %s", wanted.number, parts.name_of(wanted.to), error)
            return
        finally:
            del self._serving[wanted.to]
        if found is None:
            parts.tell(lambda: parts.core.cannot_serve(wanted.to))
        elif found[0] >= wanted.offset:
            self.counters.sent += 1
            size, data = found
            parts.tell(lambda: parts.send(wanted.to, SnapshotPiece(wanted.number, wanted.offset, size, data)))

    async def _fetch(
        self, files: SnapshotFiles, wanted: BeginFetch | KeepPiece | InstallSnapshot, before: asyncio.Task[None] | None
    ) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        core, number = self._parts.core, wanted.number
        try:
            match wanted:
                case BeginFetch():
                    await self._begin(files, number)
                case KeepPiece():
                    await self._keep(wanted)
                case _:
                    await self._install(files, number)
        except OSError as error:
            log.error("the snapshot of checkpoint %d cannot be kept: %s; trying again", number, error)
            self._parts.tell(lambda: core.cannot_keep(number))

    async def _begin(self, files: SnapshotFiles, number: int) -> None:
        """Go on with the one that is open; another one is looked through first, which takes its time."""
        receiver = self._receiver
        if receiver is None or number_of(receiver.path) != number:
            await self._let_go()
            receiver = self._receiver = await asyncio.to_thread(files.receive, number)
            log.info(
                "others have forgotten what is missing here: fetching the snapshot of checkpoint %d, %d bytes are here",
                number,
                receiver.offset,
            )
        offset = receiver.offset
        self._parts.tell(lambda: self._parts.core.fetched(number, offset))

    async def _let_go(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            await asyncio.to_thread(receiver.close)

    async def _keep(self, piece: KeepPiece) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        damaged = False
        try:
            await asyncio.to_thread(receiver.append, piece.data)
            self.counters.kept += 1
        except OperationalError as fault:
            damaged = True
            self.counters.damaged += 1
            log.warning("a piece of snapshot %d is damaged, asking another peer: %s", piece.number, fault)
        self._parts.tell(lambda: self._parts.core.fetched(piece.number, receiver.offset, damaged=damaged))

    async def _install(self, files: SnapshotFiles, number: int) -> None:
        parts, receiver = self._parts, self._receiver
        if receiver is None:
            return
        try:
            file = await asyncio.to_thread(files.finish, receiver)
        except OperationalError as fault:
            log.warning("the snapshot of checkpoint %d cannot be used, fetching it again: %s", number, fault)
            parts.tell(lambda: parts.core.fetched(number, receiver.offset, damaged=True))
            return
        if self._why_not(file):
            parts.tell(lambda: parts.core.cannot_keep(number))
            return
        await parts.replace(purge_up_to(file.checkpoint))
        await self._let_go()
        try:
            await asyncio.to_thread(files.adopt, file.checkpoint.position.up_to)
        except OSError as error:
            log.error("the snapshot of checkpoint %d cannot get its name: %s; the next life tries again", number, error)
        parts.begin_again(
            RestartRequired(f"the snapshot of checkpoint {number} is installed; it begins again from there")
        )

    def _why_not(self, file: SnapshotFile) -> str | None:
        """Why a whole snapshot is not installed now; a newer one, or a later moment, may be right."""
        number = file.checkpoint.number
        if self._parts.core.checkpoint >= number:
            return "as much was executed here meanwhile"
        if not self._parts.may_replace():
            return "the machine is being maintained"
        if self._parts.core.is_disputed(number, file.digests):
            if number != self._disputed:
                log.error("members differ about the state at checkpoint %d: its snapshot is not installed", number)
            self._disputed = number
            return "members differ about it"
        return None


def purge_up_to(checkpoint: Checkpoint) -> PurgeRecord:
    """What takes the records of everything in a checkpoint from the disk, when its snapshot came from a peer."""
    return PurgeRecord(checkpoint.position.up_to, checkpoint.position.exceptions)
