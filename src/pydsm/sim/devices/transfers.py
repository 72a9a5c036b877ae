"""Simulates snapshot transfers between replicas: performs on simulated disks what the core requests.

Pieces take time to read and to write; some arrive damaged; a crash may remove a part that was fetched; and a complete
snapshot is installed by starting a new process from it.
"""

from collections.abc import Callable
from random import Random
from typing import Protocol, assert_never

from pydsm.core.replica import Replica
from pydsm.core.types.effects import BeginFetch, InstallSnapshot, KeepPiece, ServePiece, Transfer
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import SnapshotPiece
from pydsm.runtime.perform import Performer
from pydsm.sim.base.context import Context
from pydsm.sim.devices.disk import SimulatedDisk

_READ_US = 100


class TransferHost(Protocol):
    """The process that sends and fetches snapshots."""

    core: Replica
    performer: Performer

    def later(self, delay_us: int, act: Callable[..., None], *given: object) -> None:
        """Call `act` after this delay, if the process still runs; a pause of the replica postpones the call."""
        ...

    def send_piece(self, to: ReplicaId, piece: SnapshotPiece) -> None:
        """Send a piece to a peer."""
        ...

    def restart_from_snapshot(self) -> None:
        """End this process, and start a new one from the fetched snapshot."""
        ...


class SimulatedTransfers:
    """The transfers of one process."""

    def __init__(self, process: TransferHost, disk: SimulatedDisk, context: Context, name: str) -> None:
        self._process = process
        self._disk = disk
        self._context = context
        self._random = Random(f"transfers {context.settings.seed} {name}")

    def begin(self, transfer: Transfer) -> None:
        """See `perform.Application`."""
        write_us = 1 + self._disk.sync_us
        match transfer:
            case ServePiece():
                self._process.later(_READ_US, self._serve, transfer)
            case BeginFetch():
                self._process.later(_READ_US, self._begin_fetch, transfer)
            case KeepPiece():
                self._process.later(write_us, self._keep, transfer)
            case InstallSnapshot():
                self._process.later(2 * write_us, self._install, transfer)
            case unreachable:
                assert_never(unreachable)

    def _serve(self, wanted: ServePiece) -> None:
        snapshot = self._disk.find_snapshot(wanted.number)
        if snapshot is None:
            self._process.core.cannot_serve(wanted.to)
        else:
            data, offset = snapshot.encoded, wanted.offset
            part = data[offset : offset + self._context.settings.piece_bytes]
            self._process.send_piece(wanted.to, SnapshotPiece(wanted.number, offset, len(data), part))
        self._process.performer.pump()

    def _begin_fetch(self, wanted: BeginFetch) -> None:
        fetched = self._disk.begin_fetch(wanted.number)
        self._process.core.fetched(wanted.number, fetched.checker.offset)
        self._process.performer.pump()

    def _keep(self, piece: KeepPiece) -> None:
        fetched = self._disk.fetched
        if fetched is None or fetched.number != piece.number:
            return
        counts = self._context.counts
        counts.pieces += 1
        data = piece.data
        if self._random.random() < self._context.settings.damaged_pieces:
            place = self._random.randrange(len(data))
            data = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        good = fetched.take(data)
        counts.pieces_damaged += not good
        self._process.core.fetched(piece.number, fetched.checker.offset, damaged=not good)
        self._process.performer.pump()

    def _install(self, wanted: InstallSnapshot) -> None:
        fetched = self._disk.fetched
        assert fetched is not None
        if fetched.checker.complete:
            self._process.restart_from_snapshot()
        else:
            fetched.drop_partial_frame()
            self._process.core.fetched(wanted.number, fetched.checker.offset, damaged=True)
            self._process.performer.pump()
