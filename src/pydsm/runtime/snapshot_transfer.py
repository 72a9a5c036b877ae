"""Transfers snapshots between replicas: reads pieces for peers and stores fetched pieces, in the background.

Decides the order in which a fetched snapshot replaces the records on the disk. Guarantees that a crash at any time
leaves either the old records or the whole new snapshot: the file is made durable first, then one write of the store
removes the records up to it, and only then is it used. Which peer is asked for which piece is decided by
`core.protocol.snapshot_fetch`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import assert_never

from pydsm.core.replica import Replica
from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.effects import BeginFetch, InstallSnapshot, KeepPiece, PurgeRecord, ServePiece, Transfer
from pydsm.core.types.errors import OperationalError, PyDSMError
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import PIECE_BYTES_MAX, SnapshotPiece
from pydsm.storage.snapshots import SnapshotFile, SnapshotFiles, SnapshotReceiver, number_of

log = logging.getLogger("pydsm.snapshots")


class RestartRequired(PyDSMError):
    """A fetched snapshot is installed on this replica's disk: stop the node, and start a new one with the same data."""


@dataclass(slots=True)
class PieceCounters:
    """Pieces of snapshots sent, stored, and found damaged, since this process was started."""

    sent: int = 0
    kept: int = 0
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class TransferContext:
    """The objects and callbacks of a node that snapshot transfers use."""

    core: Replica
    files: SnapshotFiles | None
    """None where snapshots are not stored: then none is sent or fetched."""
    send: Callable[[ReplicaId, SnapshotPiece], None]
    call_core: Callable[[Callable[[], None]], None]
    """Calls a function that calls the core, if the replica still runs, and performs the core's effects."""
    may_replace: Callable[[], bool]
    """Returns False while the machine is paused for maintenance."""
    replace: Callable[[PurgeRecord], Awaitable[None]]
    """Stops all other writes of this replica, then writes this record. Returns when it is durable."""
    restart: Callable[[RestartRequired], None]
    """Ends this node with this reason; a new one is started with the same data."""
    name_of: Callable[[ReplicaId], str] = "replica {}".format
    """The name of a member, for logs and messages."""


class SnapshotTransfers:
    """Serves and fetches snapshots of one replica. Created and used on the loop that owns the core."""

    def __init__(self, parts: TransferContext) -> None:
        self._parts = parts
        self._receiver: SnapshotReceiver | None = None
        self._serving: dict[ReplicaId, asyncio.Task[None]] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._cannot_store_snapshots = False
        """Whether it was logged that a needed snapshot cannot be stored: peers cause this several times a second."""
        self._disputed = 0
        """The last checkpoint for which it was logged that members report different states."""
        self.counters = PieceCounters()

    def begin(self, transfer: Transfer) -> None:
        """Perform the transfer in the background. A request of a peer that is being served already is ignored."""
        files = self._parts.files
        loop = asyncio.get_running_loop()
        if isinstance(transfer, ServePiece):
            if files is not None and transfer.to not in self._serving:
                self._serving[transfer.to] = loop.create_task(self._serve(files, transfer))
        elif files is None:
            if not self._cannot_store_snapshots:
                log.error(
                    "the instances missing here were compacted by the peers, and this replica does not store "
                    "snapshots: this replica cannot rejoin"
                )
            self._cannot_store_snapshots = True
            self._parts.call_core(lambda: self._parts.core.cannot_keep(transfer.number))
        else:
            before = self._fetching
            self._fetching = loop.create_task(self._fetch(files, transfer, before))

    async def stop(self) -> None:
        """Wait for running transfers: their threads cannot be cancelled and use open files."""
        tasks = [*self._serving.values(), *([self._fetching] if self._fetching is not None else [])]
        current = asyncio.current_task()
        await asyncio.gather(*(task for task in tasks if task is not current), return_exceptions=True)
        await self._close_receiver()

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
            parts.call_core(lambda: parts.core.cannot_serve(wanted.to))
        elif found[0] >= wanted.offset:
            self.counters.sent += 1
            size, data = found
            parts.call_core(lambda: parts.send(wanted.to, SnapshotPiece(wanted.number, wanted.offset, size, data)))

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
                case InstallSnapshot():
                    await self._install(files, number)
                case unreachable:
                    assert_never(unreachable)
        except OSError as error:
            log.error("the snapshot of checkpoint %d cannot be kept: %s; trying again", number, error)
            self._parts.call_core(lambda: core.cannot_keep(number))

    async def _begin(self, files: SnapshotFiles, number: int) -> None:
        """Continue the open file if it is of this checkpoint; otherwise open or create it, which checks its content."""
        receiver = self._receiver
        if receiver is None or number_of(receiver.path) != number:
            await self._close_receiver()
            receiver = self._receiver = await asyncio.to_thread(files.receive, number)
            log.info(
                "the peers have compacted instances that are missing here: fetching the snapshot of checkpoint %d, "
                "%d bytes are here already",
                number,
                receiver.offset,
            )
        offset = receiver.offset
        self._parts.call_core(lambda: self._parts.core.fetched(number, offset))

    async def _close_receiver(self) -> None:
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
        self._parts.call_core(lambda: self._parts.core.fetched(piece.number, receiver.offset, damaged=damaged))

    async def _install(self, files: SnapshotFiles, number: int) -> None:
        parts, receiver = self._parts, self._receiver
        if receiver is None:
            return
        try:
            file = await asyncio.to_thread(files.finish, receiver)
        except OperationalError as fault:
            log.warning("the snapshot of checkpoint %d cannot be used, fetching it again: %s", number, fault)
            parts.call_core(lambda: parts.core.fetched(number, receiver.offset, damaged=True))
            return
        if self._reason_not_to_install(file):
            parts.call_core(lambda: parts.core.cannot_keep(number))
            return
        # The order is what makes a crash harmless. The file is durable under a temporary name (`finish`); one durable
        # write then removes the records that it replaces; the rename comes last. A crash before the write leaves the
        # old records; a crash between write and rename leaves a purge record, and the next start renames the file.
        # Machine, sessions and core still have the old state, so the node ends and a new one restores everything
        # from the disk: no code here has to replace the state of a running core.
        await parts.replace(purge_up_to(file.checkpoint))
        await self._close_receiver()
        try:
            await asyncio.to_thread(files.adopt, file.checkpoint.position.up_to)
        except OSError as error:
            log.error("the snapshot of checkpoint %d cannot be renamed: %s; the next start tries again", number, error)
        parts.restart(
            RestartRequired(f"the snapshot of checkpoint {number} is installed; the replica restarts from it")
        )

    def _reason_not_to_install(self, file: SnapshotFile) -> str | None:
        """Why a complete snapshot is not installed now, or None; a newer one, or the same one later, may be."""
        number = file.checkpoint.number
        if self._parts.core.checkpoint >= number:
            return "this replica has executed this checkpoint meanwhile"
        if not self._parts.may_replace():
            return "the machine is being maintained"
        if self._parts.core.is_disputed(number, file.digests):
            if number != self._disputed:
                log.error("members report different states at checkpoint %d: its snapshot is not installed", number)
            self._disputed = number
            return "members report different states at this checkpoint"
        return None


def purge_up_to(checkpoint: Checkpoint) -> PurgeRecord:
    """The record that removes all records up to a checkpoint from the disk, when its snapshot came from a peer."""
    return PurgeRecord(checkpoint.position.up_to, checkpoint.position.exceptions)
