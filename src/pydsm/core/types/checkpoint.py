"""Checkpoints: which instances are in one, and when the next one is due (PROTOCOL 6, "checkpoint").

A checkpoint is a barrier without commands, and its place is behind its whole component: what is executed by then is
the same at every replica, all that the barrier covers and the members of its component. Within a component there is no
place to begin again: without those that are executed already, the others would find another order. What the core does
at that place is in `state`; taking the snapshot is left to the runtime.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Protocol

import msgspec

from pydsm.core.types.config import Config
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, Tick, covers, merge
from pydsm.core.types.messages import Batch, Footprint, Value


class ComponentMember(Protocol):
    """What is looked at of an executed instance."""

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
        """Whether the instance is among them."""
        return covers(self.up_to, id) or id in self.exceptions


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """One checkpoint, the same at every replica: the `number`-th, counted from 1, made by `barrier`.

    Several barriers in one component make one checkpoint; the last of them names it.
    """

    number: int
    barrier: InstanceId
    position: Position
    floor: Deps
    """What every later vector covers."""
    timestamp_ms: int
    """Unix time at its proposer, as agreed with the barrier. For people: agreed time follows from `clocks`."""
    clocks: tuple[int, ...] = ()
    """What each member's wall clock showed, as agreed with the barrier; 0 for one that was not known."""


def first_missing(position: Position, purged: Deps, has: Callable[[InstanceId], bool]) -> InstanceId | None:
    """The first instance in a position of which there is neither a decided record, nor is it purged: see `restore`."""
    for leader, (first, last) in enumerate(zip(purged, position.up_to, strict=True)):
        for index in range(first + 1, last + 1):
            if not has(id := InstanceId(ReplicaId(leader), index)):
                return id
    return next((id for id in position.exceptions if not covers(purged, id) and not has(id)), None)


def checkpoint_batch(timestamp_ms: int, clocks: tuple[int, ...] = ()) -> Batch:
    """What the instance of a checkpoint agrees on."""
    return Batch((), (), Footprint(barrier=True), timestamp_ms, (), clocks)


def is_checkpoint(value: Value | None) -> bool:
    """Whether this is a barrier without commands."""
    return isinstance(value, Batch) and value.footprint.barrier and not value.commands


def checkpoint_behind(component: Sequence[ComponentMember], number: int, before: Position, floor: Deps) -> Checkpoint:
    """The checkpoint behind a component that was just executed and has at least one barrier of a checkpoint.

    What was in the checkpoint `before` is in this one, also where its barriers do not cover it: a nop, which nobody
    needs to cover.
    """
    barriers = [one for one in component if is_checkpoint(one.value)]
    last = barriers[-1]
    assert isinstance(last.value, Batch)
    up_to = reduce(merge, (one.deps for one in barriers), before.up_to)
    executed = (*before.exceptions, *(one.id for one in component))
    exceptions = tuple(id for id in executed if not covers(up_to, id))
    return Checkpoint(number, last.id, Position(up_to, exceptions), floor, last.value.timestamp_ms, last.value.clocks)


class CheckpointSchedule:
    """When this replica proposes the next checkpoint. Replicas take turns, and step in for one that is late."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.number = 0
        """Checkpoints executed."""
        self.position = Position((0,) * config.replicas)
        """What the last of them has."""
        self._instances = 0
        self._bytes = 0
        self._begun = Tick(0)
        self._due_since: Tick | None = None
        self._proposed: InstanceId | None = None

    def executed(self, id: InstanceId, value: Value | None) -> None:
        """An instance was executed, perhaps as a nop."""
        if id == self._proposed:
            self._proposed = None
        if isinstance(value, Batch):
            self._instances += 1
            self._bytes += sum(map(len, value.commands))

    def proposed(self, id: InstanceId) -> None:
        """This replica has proposed a checkpoint: no other one until this is executed, or decided nop."""
        self._proposed = id

    def begin(self, checkpoint: Checkpoint, now: Tick) -> None:
        """A checkpoint was executed, perhaps in an earlier life: count from here."""
        self.number = checkpoint.number
        self.position = checkpoint.position
        self._instances = self._bytes = 0
        self._begun = now
        self._due_since = None

    def is_due(self, now: Tick, *, early: bool = False, time_is_due: bool = False) -> bool:
        """Whether this replica should propose one now.

        `early` when what only a checkpoint frees has become much; `time_is_due`: agreed time needs one, whatever was
        executed.
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
