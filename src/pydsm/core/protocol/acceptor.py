"""How a replica answers PreAccept, Accept, Commit, Prepare, Validate and CommitQuery.

The rules: docs/reference/protocol.md#3-commit and #4-recovery.

Guarantees that promises never go back, that a vote is durable before it is sent (each change of an instance requests
a record before the answer, see `core/types/effects`), and that a refusal names the promised ballot. A handler gives the
same answer to the same message however often it arrives. The proposer answers its own messages with these handlers.
"""

from pydsm.core.log.instance import Instance
from pydsm.core.protocol.state import ReplicaState
from pydsm.core.types.ballots import Ballot, initial_ballot
from pydsm.core.types.ids import InstanceId, ReplicaId, merge
from pydsm.core.types.messages import (
    Accept,
    AcceptOk,
    Commit,
    CommitQuery,
    PreAccept,
    PreAcceptOk,
    Prepare,
    PrepareOk,
    Refuse,
    Validate,
    ValidateOk,
)
from pydsm.core.types.status import Status


class Acceptor:
    """The answering half of a replica."""

    def __init__(self, state: ReplicaState) -> None:
        self._state = state

    def on_pre_accept(self, sender: ReplicaId, message: PreAccept) -> None:
        """Store the batch, with the leader's vector merged with the conflicts in this log, and answer PreAcceptOk.

        Only if the promise is of round 0 and the status is unknown; otherwise answer with the state that is stored.
        """
        state = self._state
        instance = state.log.instance(message.id)
        if instance.decided:
            self.answer_commit(sender, instance)
        elif instance.promised.round > 0:
            self._refuse(sender, instance, initial_ballot(message.id))
        elif instance.status is Status.ACCEPTED:
            # A late repetition: the leader is in its Accept phase, and this replica has voted in round 0.
            state.outbox.send((sender,), AcceptOk(message.id, instance.promised))
        else:
            if instance.status is Status.UNKNOWN:
                deps = merge(message.deps, state.log.conflicts(message.batch))
                state.log.pre_accept(instance, message.batch, message.deps, deps)
                state.persist(instance)
                state.execution.wake(message.id)
            state.outbox.send((sender,), PreAcceptOk(message.id, instance.deps))

    def on_accept(self, sender: ReplicaId, message: Accept) -> None:
        """Vote, unless a higher ballot was promised."""
        state = self._state
        instance = state.log.instance(message.id)
        if instance.decided:
            self.answer_commit(sender, instance)
        elif message.ballot < instance.promised:
            self._refuse(sender, instance, message.ballot)
        else:
            if instance.voted != message.ballot:
                state.log.accept(instance, message.ballot, message.value, message.deps)
                state.persist(instance)
                state.yield_to_promise(instance)
                state.execution.wake(message.id)
            state.outbox.send((sender,), AcceptOk(message.id, message.ballot))

    def on_commit(self, message: Commit) -> None:
        """Store the decision. It is final, independent of the promise."""
        self._state.decide(message.id, message.value, message.deps)

    def on_prepare(self, sender: ReplicaId, message: Prepare) -> None:
        """Promise the ballot, durably, and answer with everything that this log has of the instance."""
        state = self._state
        instance = state.log.instance(message.id)
        if instance.decided:
            self.answer_commit(sender, instance)
        elif message.ballot < instance.promised or message.ballot.round == 0:
            self._refuse(sender, instance, message.ballot)
        else:
            if instance.promised < message.ballot:
                instance.promise(message.ballot)
                state.persist(instance)
                state.yield_to_promise(instance)
            state.outbox.send((sender,), _prepare_ok(instance, message.ballot))

    def on_validate(self, sender: ReplicaId, message: Validate) -> None:
        """Store the value, and answer with its exact invalidators.

        A Validate that arrives after a vote in the same ballot is late and is ignored: it would undo the vote.
        """
        state = self._state
        instance = state.log.instance(message.id)
        if instance.decided:
            self.answer_commit(sender, instance)
        elif message.ballot < instance.promised:
            self._refuse(sender, instance, message.ballot)
        elif message.ballot == instance.promised and instance.status < Status.ACCEPTED:
            if instance.initial_batch is None:
                # The batch enters the conflict index before the invalidators are computed and sent. Otherwise a
                # PreAccept that arrives between the two could miss this batch, and both could commit unordered.
                state.log.validate(instance, message.batch, message.deps)
                state.persist(instance)
                state.execution.wake(message.id)
            found = state.log.invalidators(message.id, message.batch, message.deps)
            state.outbox.send((sender,), ValidateOk(message.id, message.ballot, found))

    def on_commit_query(self, sender: ReplicaId, message: CommitQuery) -> None:
        """Answer with a Commit for each of these instances that is decided here."""
        for id in message.ids:
            instance = self._known(id)
            if instance is not None and instance.decided:
                self.answer_commit(sender, instance)

    def _known(self, id: InstanceId) -> Instance | None:
        return self._state.log.instances.get(id)

    def answer_commit(self, sender: ReplicaId, instance: Instance) -> None:
        """Send the decision of a decided instance."""
        if instance.value is not None:
            self._state.outbox.send((sender,), Commit(instance.id, instance.value, instance.deps))

    def _refuse(self, sender: ReplicaId, instance: Instance, ballot: Ballot) -> None:
        self._state.outbox.send((sender,), Refuse(instance.id, ballot, instance.promised))


def _prepare_ok(instance: Instance, ballot: Ballot) -> PrepareOk:
    return PrepareOk(
        instance.id,
        ballot,
        instance.status,
        instance.voted,
        instance.value,
        instance.deps,
        instance.initial_batch,
        instance.initial_deps,
    )
