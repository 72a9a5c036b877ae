"""Checks that answers to Validate are exact (`docs/reference/protocol.md`, section 4: "this answer must be exact").

A replica answers from the instances in its memory. This module compares each answer, when it is computed, with the rule
of the protocol, applied to the instances in memory and to those that were compacted.
"""

from collections.abc import Callable
from typing import Protocol

from pydsm.core.log.log import Log
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, covers, merge
from pydsm.core.types.messages import Batch, Invalidator, Value
from pydsm.sim.base import describe
from pydsm.sim.base.violation import Violation

ValidateAnswer = Callable[[InstanceId, Batch, Deps], tuple[Invalidator, ...]]


class Past(Protocol):
    """The history of the whole group; instances behind `forgotten` are missing."""

    decided: dict[InstanceId, tuple[Value, Deps]]
    forgotten: Deps


def check_validate_answers(name: str, log: Log, past: Past) -> None:
    """Check every answer of this log from now on."""
    answer: ValidateAnswer = log.invalidators

    def checked(id: InstanceId, batch: Batch, deps: Deps) -> tuple[Invalidator, ...]:
        given = answer(id, batch, deps)
        exact = _exact(log, past, id, batch, deps)
        if given != exact and not _left_to_the_barrier(log, deps, given, exact):
            said = f"{_names(given)} of {describe.value(batch)} {describe.vector(deps)}"
            raise Violation(
                "exactness", f"{name} names {said} as invalidators of {id}; exact is {_names(exact)}", (id,)
            )
        return given

    log.invalidators = checked  # type: ignore[method-assign]  # only this log is checked


def _left_to_the_barrier(log: Log, deps: Deps, given: tuple[Invalidator, ...], exact: tuple[Invalidator, ...]) -> bool:
    """Whether the missing instances were compacted early: the checkpoint's barrier orders them or is reported."""
    compaction_checkpoint = log.compaction_checkpoint
    if compaction_checkpoint is None or not set(given) <= set(exact):
        return False
    missing = {one.id for one in exact} - {one.id for one in given}
    if not all(log.is_dropped(id) and compaction_checkpoint.position.has(id) for id in missing):
        return False
    return covers(deps, compaction_checkpoint.barrier) or Invalidator(compaction_checkpoint.barrier, True) in given


def _exact(log: Log, past: Past, id: InstanceId, batch: Batch, deps: Deps) -> tuple[Invalidator, ...]:
    found = []
    for leader, (covered, last) in enumerate(zip(merge(deps, past.forgotten), log.known, strict=True)):
        for index in range(covered + 1, last + 1):
            other = InstanceId(ReplicaId(leader), index)
            instance = log.instances.get(other)
            value: Value | None
            if log.is_dropped(other):
                (value, vector), final = past.decided[other], True
            elif instance is None or other == id:
                continue
            elif instance.decided:
                value, vector, final = instance.value, instance.deps, True
            else:
                value, vector, final = instance.initial_batch, instance.initial_deps, False
            if isinstance(value, Batch) and not covers(vector, id) and log.relation.conflict(value, batch):
                found.append(Invalidator(other, final))
    return tuple(found)


def _names(invalidators: tuple[Invalidator, ...]) -> str:
    return ", ".join(str(one.id) for one in invalidators) or "nothing"
