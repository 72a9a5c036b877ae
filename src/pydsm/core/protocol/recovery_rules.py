"""The decisions of a recovery: pure total functions from answers to a decision (EPaxos*, recovery protocol).

The rules are in docs/reference/protocol.md#4-recovery. Every decision names the rule that it follows, so that a run can
count which rules it exercised. Sending, counting answers and waiting are left to `recoverer`. Answers of replicas that
have committed are not handled here: they arrive as Commit messages, which end the recovery.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pydsm.core.types.ids import Deps, InstanceId, ReplicaId
from pydsm.core.types.messages import NOP, Batch, PrepareOk, Value
from pydsm.core.types.quorums import Quorums
from pydsm.core.types.status import Status


class Rule(Enum):
    """The rules of docs/reference/protocol.md#4-recovery that end in a decision."""

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
    """The state of an invalidator at the replica that waits for it."""

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
    """A fast commit of this value is possible, given `unchanged` answers: ask the quorum to validate it."""

    rule: Rule
    batch: Batch
    deps: Deps
    unchanged: int


@dataclass(frozen=True, slots=True)
class AwaitInvalidatorStates:
    """Wait until these invalidators are decided, or another rule decides first."""

    rule: Rule
    invalidators: tuple[InstanceId, ...]


def after_prepare(
    id: InstanceId, answers: Mapping[ReplicaId, PrepareOk], quorums: Quorums
) -> AcceptValue | ValidateValue:
    """Apply rules 2 to 5 to the answers of at least `quorums.slow` replicas in one ballot.

    Args:
        id: the instance that is recovered.
        answers: one PrepareOk per replica of the quorum.
        quorums: the quorum sizes of the group.
    """
    # The order of the rules is the safety argument. A vote comes first, because a slow quorum may have committed its
    # value. The answer of the instance's leader comes next: it was undecided, and after its promise it cannot commit on
    # the fast path. So only in a quorum without the leader can unchanged answers mean that a fast commit happened.
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
    """Decide after every member of the quorum has answered Validate.

    Args:
        batch: the validated batch.
        deps: the validated vector, one index per replica.
        unchanged: how many members pre-accepted exactly this vector.
        quorum: the PrepareOk of each member.
        invalidators: the union of all that the members reported, each with whether a member reported it committed.
        quorums: the quorum sizes of the group.
    """
    # An invalidator conflicts with the batch, and neither covers the other. If one is committed, the fast commit did
    # not happen. If an undecided one has its leader outside the quorum and `unchanged` is the minimum, a fast commit
    # would have needed the unchanged vote of every replica outside, and that leader would have ordered the two.
    # In all other cases the invalidator may still become a nop or cover the instance, so its decision is awaited.
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
    invalidators: Mapping[InstanceId, InvalidatorState],
    waiting: Mapping[InstanceId, int],
    late: Mapping[ReplicaId, PrepareOk],
    quorums: Quorums,
) -> AcceptValue | None:
    """Decide while waiting for invalidators; None if no rule decides yet.

    Args:
        id: the instance that is recovered.
        batch: the validated batch.
        deps: the validated vector, one index per replica.
        invalidators: the state of every invalidator.
        waiting: the highest `unchanged` that any replica reported in a Waiting, by instance.
        late: answers in this ballot from outside the quorum.
        quorums: the quorum sizes of the group.
    """
    # The decisions of the invalidators come first: they are final. The comparison of `unchanged` counts comes before
    # the late answers; it decides between two recoveries that wait for each other, and would else end neither.
    nop_deps = (0,) * quorums.n
    if any(state is InvalidatorState.UNORDERED for state in invalidators.values()):
        return AcceptValue(Rule.UNORDERED_COMMITTED, NOP, nop_deps)
    if all(state is InvalidatorState.HARMLESS for state in invalidators.values()):
        return AcceptValue(Rule.ALL_ORDERED, batch, deps)
    if any(waiting.get(other, 0) > quorums.n - quorums.f - quorums.e for other in invalidators):
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
