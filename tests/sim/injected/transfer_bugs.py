"""Bugs of early compaction and of snapshot transfer. `finds` lists the run that finds each."""

from collections.abc import Iterable

import pytest

from pydsm.core import replica
from pydsm.core.log import log, window
from pydsm.core.protocol import restoration, snapshot_fetch
from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.effects import InstallSnapshot
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, merge
from pydsm.core.types.messages import Batch, Invalidator, SnapshotPiece
from pydsm.sim.devices import disk
from tests.sim.injected.registry import bug


@bug("6, Sliding window: the barrier of the checkpoint stands in for instances compacted early")
def barrier_silent_about_what_was_forgotten(patch: pytest.MonkeyPatch) -> None:
    original = log.Log.invalidators

    def invalidators(self: log.Log, id: InstanceId, batch: Batch, deps: Deps) -> tuple[Invalidator, ...]:
        self.compaction_checkpoint, compaction_checkpoint = None, self.compaction_checkpoint
        try:
            return original(self, id, batch, deps)
        finally:
            self.compaction_checkpoint = compaction_checkpoint

    patch.setattr(log.Log, "invalidators", invalidators)


@bug("6, Sliding window: only instances in a durable snapshot are compacted early")
def forgotten_beyond_the_snapshot(patch: pytest.MonkeyPatch) -> None:
    original = replica.Replica._compact

    def forget(self: replica.Replica) -> None:
        original(self)
        inner = self._state.log
        if self._snapshots and inner.kept_bytes > self._state.config.window_bytes_max:
            inner.compaction_checkpoint = self._snapshots[-1]
            inner.drop(inner.frontier, self._state.config.drop_instances_max)

    patch.setattr(replica.Replica, "_compact", forget)


@bug("6, Divergence errors: a message about a compacted instance is answered with Compacted")
def purged_is_not_told(patch: pytest.MonkeyPatch) -> None:
    def tell_purged(self: replica.Replica, member: ReplicaId) -> None:
        pass

    patch.setattr(replica.Replica, "_send_compacted", tell_purged)


@bug("6, Snapshot: instances of an installed snapshot are executed, and are not executed again")
def member_of_the_barriers_component_executed_again(patch: pytest.MonkeyPatch) -> None:
    def is_dropped(self: log.Log, id: InstanceId) -> bool:
        return id.index <= self.dropped[id.leader]

    patch.setattr(log.Log, "is_dropped", is_dropped)


@bug("6, Snapshot: new instances are ordered after those of an installed snapshot")
def what_came_with_a_snapshot_is_in_no_vector(patch: pytest.MonkeyPatch) -> None:
    original = log.Log.begin_at

    def begin_at(self: log.Log, checkpoint: Checkpoint, purged: Deps, absent: Iterable[InstanceId] = ()) -> None:
        absent = tuple(absent)
        original(self, checkpoint, purged, absent)
        if absent:
            self._floor = self.no_deps

    patch.setattr(log.Log, "begin_at", begin_at)


@bug("6, State transfer: a snapshot is installed only if it has more than was executed here")
def snapshot_of_the_past_installed(patch: pytest.MonkeyPatch) -> None:
    def finish(self: snapshot_fetch.SnapshotFetcher, fetch: snapshot_fetch._Fetch) -> None:
        fetch.waits = snapshot_fetch._Waits.FOR_INSTALL
        self._state.outbox.transfer(InstallSnapshot(fetch.number))

    def tick(self: snapshot_fetch.SnapshotFetcher) -> None:
        fetch = self._fetch
        if fetch is not None and fetch.waits is snapshot_fetch._Waits.FOR_PEER and fetch.deadline <= self._state.now:
            self._request_from_next(fetch)

    patch.setattr(snapshot_fetch.SnapshotFetcher, "_finish", finish)
    patch.setattr(snapshot_fetch.SnapshotFetcher, "tick", tick)


@bug("6, State transfer: a damaged piece only delays the transfer")
def damaged_piece_is_not_asked_for_again(patch: pytest.MonkeyPatch) -> None:
    original = snapshot_fetch.SnapshotFetcher.kept

    def kept(self: snapshot_fetch.SnapshotFetcher, number: int, offset: int, *, damaged: bool) -> None:
        if not damaged:
            original(self, number, offset, damaged=False)

    patch.setattr(snapshot_fetch.SnapshotFetcher, "kept", kept)


@bug("6, State transfer: a crash of the source only delays the transfer")
def late_source_asked_for_ever(patch: pytest.MonkeyPatch) -> None:
    def ask_next(self: snapshot_fetch.SnapshotFetcher, fetch: snapshot_fetch._Fetch) -> None:
        self._ask(fetch)

    def on_piece(self: snapshot_fetch.SnapshotFetcher, sender: ReplicaId, message: SnapshotPiece) -> None:
        if self._fetch is not None and self._fetch.source == sender:
            original_piece(self, sender, message)

    def on_compacted(self: snapshot_fetch.SnapshotFetcher, sender: ReplicaId, message: object) -> None:
        if self._fetch is None:
            original(self, sender, message)  # type: ignore[arg-type]

    original = snapshot_fetch.SnapshotFetcher.on_compacted
    original_piece = snapshot_fetch.SnapshotFetcher.on_piece
    patch.setattr(snapshot_fetch.SnapshotFetcher, "on_piece", on_piece)
    patch.setattr(snapshot_fetch.SnapshotFetcher, "_request_from_next", ask_next)
    patch.setattr(snapshot_fetch.SnapshotFetcher, "on_compacted", on_compacted)


@bug("6, State transfer: an installed snapshot replaces all records up to it")
def records_stay_behind_a_fetched_snapshot(patch: pytest.MonkeyPatch) -> None:
    original = disk.SimulatedDisk.adopt

    def adopt(self: disk.SimulatedDisk, watched: object) -> Checkpoint:
        records, purged = dict(self.instances), self.purged
        checkpoint = original(self, watched)
        self.instances, self.purged = records, purged
        return checkpoint

    patch.setattr(disk.SimulatedDisk, "adopt", adopt)


@bug("6, Sliding window: a member counts as having executed only what it has reported")
def one_behind_taken_for_up_to_date(patch: pytest.MonkeyPatch) -> None:
    original = window.Window.report

    def report(self: window.Window, member: ReplicaId, executed: Deps, known: Deps) -> None:
        original(self, member, merge(executed, self._executed[self._me]), known)

    patch.setattr(window.Window, "report", report)


@bug("6, Snapshot: a disk whose records are older than its snapshot is refused")
def records_older_than_the_snapshot_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(restoration, "_check_covered", lambda state, newest, disk: None)
