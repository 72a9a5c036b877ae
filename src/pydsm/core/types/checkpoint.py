"""Checkpoints: which instances are in one, and when the next one is due (docs/reference/protocol.md, section 6).

A checkpoint is a barrier without commands. It takes effect after the whole component of the barrier: the instances that
are executed by then, all that the barrier covers and the members of its component, are the same at every replica. It
cannot take effect inside the component: a replica that restarted there would find another component, and another order,
without the members that are executed already. What the core does at a checkpoint is in `protocol/state`; the runtime
takes the snapshot.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Protocol

import msgspec

from pydsm.core.types.config import Config
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, Tick, covers, merge
from pydsm.core.types.messages import Batch, Footprint, Value


class ComponentMember(Protocol):
    """The attributes of an executed instance that are used here."""

    @property
    def id(self) -> InstanceId: ...  # noqa: D102
    @property
    def value(self) -> Value | None: ...  # noqa: D102
    @property
    def deps(self) -> Deps: ...  # noqa: D102


class Position(msgspec.Struct, frozen=True, array_like=True):
    """A set of executed instances: everything up to `up_to`, and `exceptions`."""

    up_to: Deps
    exceptions: tuple[InstanceId, ...] = ()

    def has(self, id: InstanceId) -> bool:
        """Whether the instance is in the set."""
        return covers(self.up_to, id) or id in self.exceptions


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """One checkpoint, the same at every replica: number `number`, counted from 1, made by the instance `barrier`.

    Several barriers in one component make one checkpoint; the last of them names it.
    """

    number: int
    barrier: InstanceId
    position: Position
    floor: Deps
    """The vector that every later vector covers, see `Log.floor`."""
    timestamp_ms: int
    """Unix time at its proposer, as agreed with the barrier. Only for display: agreed time is set from `clocks`."""
    clocks: tuple[int, ...] = ()
    """The reading of each member's wall clock, Unix time in ms, as agreed with the barrier; 0 for an unknown one."""


def first_missing(position: Position, purged: Deps, has: Callable[[InstanceId], bool]) -> InstanceId | None:
    """The first instance in a position that is not purged and for which `has` is false; None if there is none.

    Args:
        position: of the newest durable snapshot.
        purged: per leader, the prefix whose records were removed from disk.
        has: whether the disk has a decided record of an instance, or lists it as absent.
    """
    for leader, (first, last) in enumerate(zip(purged, position.up_to, strict=True)):
        for index in range(first + 1, last + 1):
            if not has(id := InstanceId(ReplicaId(leader), index)):
                return id
    return next((id for id in position.exceptions if not covers(purged, id) and not has(id)), None)


def checkpoint_batch(timestamp_ms: int, clocks: tuple[int, ...] = ()) -> Batch:
    """The batch of a checkpoint's instance."""
    return Batch((), (), Footprint(barrier=True), timestamp_ms, (), clocks)


def is_checkpoint(value: Value | None) -> bool:
    """Whether this is a barrier without commands."""
    return isinstance(value, Batch) and value.footprint.barrier and not value.commands


def checkpoint_behind(component: Sequence[ComponentMember], number: int, before: Position, floor: Deps) -> Checkpoint:
    """The checkpoint after a component that was just executed and has at least one checkpoint's barrier.

    Everything in the position `before`, of the checkpoint before, is in this one too. What its barriers do not cover of
    it are nops, which no vector needs to cover.
    """
    barriers = [one for one in component if is_checkpoint(one.value)]
    last = barriers[-1]
    assert isinstance(last.value, Batch)
    up_to = reduce(merge, (one.deps for one in barriers), before.up_to)
    executed = (*before.exceptions, *(one.id for one in component))
    exceptions = tuple(id for id in executed if not covers(up_to, id))
    return Checkpoint(number, last.id, Position(up_to, exceptions), floor, last.value.timestamp_ms, last.value.clocks)


class CheckpointSchedule:
    """When this replica proposes the next checkpoint. Replicas take turns; the next one proposes a late one."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.number = 0
        """Number of the last executed checkpoint."""
        self.position = Position((0,) * config.replicas)
        """Position of the last executed checkpoint."""
        self._instances = 0
        self._bytes = 0
        self._begun = Tick(0)
        self._due_since: Tick | None = None
        self._proposed: InstanceId | None = None

    def executed(self, id: InstanceId, value: Value | None) -> None:
        """Count an executed instance; a nop does not count."""
        if id == self._proposed:
            self._proposed = None
        if isinstance(value, Batch):
            self._instances += 1
            self._bytes += sum(map(len, value.commands))

    def proposed(self, id: InstanceId) -> None:
        """Note that this replica proposed a checkpoint: it proposes no other until this one is executed or nop."""
        self._proposed = id

    def begin(self, checkpoint: Checkpoint, now: Tick) -> None:
        """Count from this checkpoint: it was executed now, or before a restart."""
        self.number = checkpoint.number
        self.position = checkpoint.position
        self._instances = self._bytes = 0
        self._begun = now
        self._due_since = None

    def is_due(self, now: Tick, *, early: bool = False, time_is_due: bool = False) -> bool:
        """Whether this replica should propose a checkpoint now.

        Args:
            now: the current tick.
            early: much memory is in use that only a checkpoint frees; any executed batch makes one due.
            time_is_due: agreed time needs a checkpoint, whether anything was executed or not.
        """
        config = self._config
        if self._proposed is not None:
            return False
        enough = self._instances and (
            early
            or self._instances >= config.checkpoint_instances_max
            or self._bytes >= config.checkpoint_bytes_max
            or now - self._begun >= config.checkpoint_ticks
        )
        if not enough and not time_is_due:
            self._due_since = None
            return False
        if self._due_since is None:
            self._due_since = now
        turn = (config.replica - self.number) % config.replicas
        return now - self._due_since >= turn * config.checkpoint_turn_ticks
