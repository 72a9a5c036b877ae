"""What a recovery decides: pure total functions from answers to a decision (PROTOCOL 4; EPaxos*, recovery).

Every decision names the rule that it follows, so that what a run exercised can be counted. Sending, counting answers
and waiting are left to `recoverer`. A committed answer never gets here: it arrives as a Commit and ends the recovery.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pydsm.core.types.ids import Deps, InstanceId, ReplicaId
from pydsm.core.types.messages import NOP, Batch, PrepareOk, Value
from pydsm.core.types.quorums import Quorums
from pydsm.core.types.status import Status


class Rule(Enum):
    """The lines of PROTOCOL 4 that end in a decision."""

    ALREADY_COMMITTED = "someone had committed"
    VOTED_VALUE = "someone had accepted"
    LEADER_UNDECIDED = "leader answered undecided: nop"
    TOO_FEW_UNCHANGED = "fast path impossible: nop"
    MUST_VALIDATE = "fast path possible: validate"
    NO_INVALIDATORS = "no invalidators: batch"
    COMMITTED_INVALIDATOR = "committed invalidator: nop"
    INVALIDATING_LEADER_AWAY = "invalidator's leader not in quorum: nop"
    MUST_WAIT = "wait for invalidators"
    UNORDERED_COMMITTED = "waited, one committed unordered: nop"
    ALL_ORDERED = "waited, all ordered or nop: batch"
    INVALIDATOR_WAITS_TOO = "waited, invalidator waits with more: nop"
    LATE_VOTE = "waited, late accepted answer"
    LATE_LEADER = "waited, late answer of the leader: nop"


class InvalidatorState(Enum):
    """What has become of an invalidator, as the waiting replica knows it."""

    OPEN = "not decided"
    HARMLESS = "committed as nop, or covering the instance"
    UNORDERED = "committed as a command that does not cover the instance"


@dataclass(frozen=True, slots=True)
class AcceptValue:
    """Run Accept with this value in the recovery's ballot."""

    rule: Rule
    value: Value
    deps: Deps


@dataclass(frozen=True, slots=True)
class ValidateValue:
    """`unchanged` answers leave room for a fast commit of this value: ask the quorum to validate it."""

    rule: Rule
    batch: Batch
    deps: Deps
    unchanged: int


@dataclass(frozen=True, slots=True)
class AwaitInvalidatorStates:
    """Wait for these invalidators."""

    rule: Rule
    invalidators: tuple[InstanceId, ...]


def after_prepare(
    id: InstanceId, answers: Mapping[ReplicaId, PrepareOk], quorums: Quorums
) -> AcceptValue | ValidateValue:
    """Steps 2 to 5, from the answers of at least `quorums.slow` replicas in one ballot."""
    voted = _highest_vote(answers)
    if voted is not None and voted.value is not None:
        return AcceptValue(Rule.VOTED_VALUE, voted.value, voted.deps)
    nop_deps = (0,) * quorums.n
    if id.leader in answers:
        return AcceptValue(Rule.LEADER_UNDECIDED, NOP, nop_deps)
    unchanged = [
        answer
        for answer in answers.values()
        if answer.status is Status.PRE_ACCEPTED and answer.deps == answer.initial_deps
    ]
    batch = unchanged[0].initial_batch if unchanged else None
    if batch is not None and quorums.fast_path_possible(len(answers), len(unchanged)):
        return ValidateValue(Rule.MUST_VALIDATE, batch, unchanged[0].initial_deps, len(unchanged))
    return AcceptValue(Rule.TOO_FEW_UNCHANGED, NOP, nop_deps)


def after_validate(
    batch: Batch,
    deps: Deps,
    unchanged: int,
    quorum: Mapping[ReplicaId, PrepareOk],
    invalidators: Mapping[InstanceId, bool],
    quorums: Quorums,
) -> AcceptValue | AwaitInvalidatorStates:
    """From the union of all invalidators that the quorum reported (id to "committed")."""
    if not invalidators:
        return AcceptValue(Rule.NO_INVALIDATORS, batch, deps)
    nop_deps = (0,) * quorums.n
    if any(invalidators.values()):
        return AcceptValue(Rule.COMMITTED_INVALIDATOR, NOP, nop_deps)
    just_enough = unchanged == len(quorum) - quorums.e
    if just_enough and any(other.leader not in quorum for other in invalidators):
        return AcceptValue(Rule.INVALIDATING_LEADER_AWAY, NOP, nop_deps)
    return AwaitInvalidatorStates(Rule.MUST_WAIT, tuple(invalidators))


def while_waiting(
    id: InstanceId,
    batch: Batch,
    deps: Deps,
    fates: Mapping[InstanceId, InvalidatorState],
    waiting: Mapping[InstanceId, int],
    late: Mapping[ReplicaId, PrepareOk],
    quorums: Quorums,
) -> AcceptValue | None:
    """None: wait on.

    Args:
        fates: of every invalidator.
        waiting: the highest `unchanged` that any replica reported in a Waiting, by instance.
        late: answers in this ballot from outside the quorum.
    """
    nop_deps = (0,) * quorums.n
    if any(fate is InvalidatorState.UNORDERED for fate in fates.values()):
        return AcceptValue(Rule.UNORDERED_COMMITTED, NOP, nop_deps)
    if all(fate is InvalidatorState.HARMLESS for fate in fates.values()):
        return AcceptValue(Rule.ALL_ORDERED, batch, deps)
    if any(waiting.get(other, 0) > quorums.n - quorums.f - quorums.e for other in fates):
        return AcceptValue(Rule.INVALIDATOR_WAITS_TOO, NOP, nop_deps)
    voted = _highest_vote(late)
    if voted is not None and voted.value is not None:
        return AcceptValue(Rule.LATE_VOTE, voted.value, voted.deps)
    if id.leader in late:
        return AcceptValue(Rule.LATE_LEADER, NOP, nop_deps)
    return None


def _highest_vote(answers: Mapping[ReplicaId, PrepareOk]) -> PrepareOk | None:
    votes = [
        (answer.voted, answer)
        for answer in answers.values()
        if answer.status is Status.ACCEPTED and answer.voted is not None
    ]
    return max(votes, key=lambda vote: vote[0])[1] if votes else None
