"""The known bugs. Each is a small patch of the real core, applied in tests only.

A patch takes pytest's MonkeyPatch, so that it is gone when the test is over. What finds each bug stands in `finds`.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import pytest

from pydsm.core import replica as replicas
from pydsm.core.log import log, window
from pydsm.core.log.instance import Instance
from pydsm.core.protocol import acceptor, execution, outbox, phases, proposer, recoverer, recovery_rules, starts, state
from pydsm.core.types import checkpoint, messages, quorums
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.effects import FrontierRecord, PurgeRecord, Record, TakeCheckpoint
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, merge, with_instance
from pydsm.core.types.messages import NOP, Batch, Invalidator, Message, Nop, PrepareOk
from pydsm.core.types.status import Status
from pydsm.runtime import starts as runtime_starts
from tests.sim.injected.registry import bug


@bug("4, Prepare: the promise is durable before PrepareOk (9, the ancestor)")
def promise_not_stored(patch: pytest.MonkeyPatch) -> None:
    original = state.ReplicaState.persist

    def persist(self: state.ReplicaState, instance: Instance) -> None:
        if instance.promised.round == 0 or instance.voted == instance.promised:
            original(self, instance)

    patch.setattr(state.ReplicaState, "persist", persist)


@bug("2: promised and voted are two ballots (9, original EPaxos)")
def one_ballot_for_promise_and_vote(patch: pytest.MonkeyPatch) -> None:
    original = Instance.promise

    def promise(self: Instance, ballot: Ballot) -> None:
        original(self, ballot)
        if self.voted is not None:
            self.voted = ballot

    patch.setattr(Instance, "promise", promise)


@bug("3: one vote per replica, never per message (9, the ancestor)")
def duplicate_answers_counted(patch: pytest.MonkeyPatch) -> None:
    def record_deps(self: phases.PreAccepting, sender: ReplicaId, deps: Deps) -> bool:
        self.answers[ReplicaId(sender + 100 * len(self.answers))] = deps
        return True

    def record_vote(self: phases.Accepting, sender: ReplicaId) -> bool:
        self.votes[ReplicaId(sender + 100 * len(self.votes))] = None
        return True

    patch.setattr(phases.PreAccepting, "record", record_deps)
    patch.setattr(phases.Accepting, "record", record_vote)


@bug("4: answers are matched on their ballot (9, swiftpaxos)")
def votes_of_an_old_ballot_counted(patch: pytest.MonkeyPatch) -> None:
    original = proposer.Proposer.on_accept_ok

    def on_accept_ok(self: proposer.Proposer, sender: ReplicaId, message: messages.AcceptOk) -> None:
        phase = self._state.leading.get(message.id)
        if isinstance(phase, phases.Accepting):
            message = messages.AcceptOk(message.id, phase.ballot)
        original(self, sender, message)

    patch.setattr(proposer.Proposer, "on_accept_ok", on_accept_ok)


@bug("1: a fast quorum is n-e (9, summerset)")
def fast_quorum_one_too_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(quorums.Quorums, "fast", property(lambda self: max(1, self.n - self.e - 1)))


@bug("1: a slow quorum is n-f")
def slow_quorum_one_too_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(quorums.Quorums, "slow", property(lambda self: max(1, self.n - self.f - 1)))


@bug("6: a fast commit is durable at its leader before it is visible")
def fast_commit_not_durable_first(patch: pytest.MonkeyPatch) -> None:
    original = state.ReplicaState.decide

    def decide(
        self: state.ReplicaState, id: InstanceId, value: messages.Value, deps: Deps, *, durable_first: bool = False
    ) -> bool:
        return original(self, id, value, deps)

    patch.setattr(state.ReplicaState, "decide", decide)


@bug("6: PreAcceptOk leaves after its record is durable (9, efficient/epaxos)")
def pre_accept_answered_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    original = outbox.Outbox.send

    def send(self: outbox.Outbox, to: tuple[ReplicaId, ...], message: Message) -> None:
        if isinstance(message, messages.PreAcceptOk) and message.id.leader in to and len(self._effects.records) > 0:
            self.send_early(to, message)
        else:
            original(self, to, message)

    patch.setattr(outbox.Outbox, "send", send)


@bug("4, step 3: the leader's own answer decides nop")
def rule_3_left_out(patch: pytest.MonkeyPatch) -> None:
    original = recovery_rules.after_prepare

    def after_prepare(id: InstanceId, answers: Mapping[ReplicaId, PrepareOk], q: quorums.Quorums) -> Any:
        nobody = InstanceId(ReplicaId(q.n), id.index)
        return original(nobody, answers, q)

    patch.setattr(recoverer, "after_prepare", after_prepare)


@bug("4, step 3: a leader that has promised a higher ballot can no longer commit in round 0")
def leader_commits_after_a_promise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(state.ReplicaState, "yield_to_promise", lambda self, instance: None)


@bug("4, step 4: a possible fast commit is validated before it is accepted")
def validate_left_out(patch: pytest.MonkeyPatch) -> None:
    original = recovery_rules.after_prepare

    def after_prepare(id: InstanceId, answers: Mapping[ReplicaId, PrepareOk], q: quorums.Quorums) -> Any:
        decision = original(id, answers, q)
        if isinstance(decision, recovery_rules.ValidateValue):
            return recovery_rules.AcceptValue(decision.rule, decision.batch, decision.deps)
        return decision

    patch.setattr(recoverer, "after_prepare", after_prepare)


@bug("4, step 4: an instance that may have been committed fast is not abandoned")
def possible_fast_commit_abandoned(patch: pytest.MonkeyPatch) -> None:
    original = recovery_rules.after_prepare

    def after_prepare(id: InstanceId, answers: Mapping[ReplicaId, PrepareOk], q: quorums.Quorums) -> Any:
        decision = original(id, answers, q)
        if isinstance(decision, recovery_rules.ValidateValue):
            return recovery_rules.AcceptValue(decision.rule, NOP, (0,) * q.n)
        return decision

    patch.setattr(recoverer, "after_prepare", after_prepare)


@bug("4, Validate: a committed invalidator decides nop")
def invalidators_ignored(patch: pytest.MonkeyPatch) -> None:
    original = recovery_rules.after_validate

    def after_validate(batch: Batch, deps: Deps, unchanged: int, quorum: Any, invalidators: Any, q: Any) -> Any:
        return original(batch, deps, unchanged, quorum, {}, q)

    patch.setattr(recoverer, "after_validate", after_validate)


@bug("4, waiting: an invalidator that commits without covering decides nop")
def unordered_invalidator_taken_for_ordered(patch: pytest.MonkeyPatch) -> None:
    def state_of(
        self: recoverer.Recoverer, other: InstanceId, id: InstanceId, deps: Deps
    ) -> recovery_rules.InvalidatorState:
        decided = self._state.log.instance(other).decided
        return recovery_rules.InvalidatorState.HARMLESS if decided else recovery_rules.InvalidatorState.OPEN

    patch.setattr(recoverer.Recoverer, "_invalidator_state", state_of)


@bug("4: an accepted but not yet committed nop still conflicts")
def accepted_nop_conflicts_with_nothing(patch: pytest.MonkeyPatch) -> None:
    invalidates = log.Log._invalidates

    def abandoned(one: Instance) -> bool:
        return one.status is Status.ACCEPTED and isinstance(one.value, Nop)

    def conflicts(self: log.Log, batch: Batch) -> Deps:
        deps = self._floor
        for id, one in self.instances.items():
            known = one.known_batch
            if known is not None and not abandoned(one) and self.relation.conflict(known, batch):
                deps = with_instance(deps, id)
        return deps

    patch.setattr(log.Log, "conflicts", conflicts)
    patch.setattr(
        log.Log,
        "_invalidates",
        lambda self, other, id, batch: not abandoned(other) and invalidates(self, other, id, batch),
    )


@bug("5: an accepted nop whose batch is known is still waited for where it conflicts")
def execution_passes_over_an_accepted_nop(patch: pytest.MonkeyPatch) -> None:
    original = execution.Execution._successors

    def successors(self: execution.Execution, instance: Instance, low: dict[InstanceId, int]) -> Iterator[Instance]:
        if self._log.backlog() is not None:
            return original(self, instance, low)
        hidden = [
            one
            for one in self._log.instances.values()
            if one.status is Status.ACCEPTED and isinstance(one.value, Nop) and one.initial_batch is not None
        ]
        for one in hidden:
            one.status = Status.COMMITTED  # looks decided while the edges are listed
        try:
            found = list(original(self, instance, low))
        finally:
            for one in hidden:
                one.status = Status.ACCEPTED
        return iter(found)

    patch.setattr(execution.Execution, "_successors", successors)


@bug("4, Validate: exact answers; a committed nop invalidates nothing")
def committed_nop_taken_for_a_command(patch: pytest.MonkeyPatch) -> None:
    original = log.Log._invalidates

    def invalidates(self: log.Log, other: Instance, id: InstanceId, batch: Batch) -> bool:
        nop = other.decided and isinstance(other.value, Nop) and other.initial_batch is not None
        return nop or original(self, other, id, batch)

    patch.setattr(log.Log, "_invalidates", invalidates)


@bug("4, Validate: an undecided instance invalidates by its initial deps, not by its deps here")
def deps_taken_for_initial_deps(patch: pytest.MonkeyPatch) -> None:
    original = log.Log._invalidates

    def invalidates(self: log.Log, other: Instance, id: InstanceId, batch: Batch) -> bool:
        if other.decided:
            return original(self, other, id, batch)
        known = other.initial_batch
        return known is not None and id.index > other.deps[id.leader] and self.relation.conflict(known, batch)

    patch.setattr(log.Log, "_invalidates", invalidates)


@bug("5: the graph has an edge to every dependency that conflicts")
def execution_ignores_one_edge(patch: pytest.MonkeyPatch) -> None:
    original = execution.Execution._successors
    patch.setattr(execution.Execution, "_successors", lambda self, one, low: iter(list(original(self, one, low))[:-1]))


@bug("5: the same edges on every replica, only to what conflicts")
def one_replica_has_edges_to_what_does_not_conflict(patch: pytest.MonkeyPatch) -> None:
    original = execution.Execution._successors

    def successors(self: execution.Execution, instance: Instance, low: dict[InstanceId, int]) -> Iterator[Instance]:
        found = list(original(self, instance, low))
        if len(self._log.instances) % 2:
            covered = [
                InstanceId(ReplicaId(leader), index)
                for leader, row in enumerate(self._log.unexecuted)
                for index in row
                if index <= instance.deps[leader]
            ]
            others = [self._log.instances[id] for id in covered if id != instance.id]
            found += [one for one in others if one.decided and isinstance(one.value, Batch) and one not in found]
        return iter(found)

    patch.setattr(execution.Execution, "_successors", successors)


@bug("5: execution waits until dependencies that may conflict are committed")
def execution_does_not_wait_for_commit(patch: pytest.MonkeyPatch) -> None:
    original = execution.Execution._successors

    def successors(self: execution.Execution, instance: Instance, low: dict[InstanceId, int]) -> Iterator[Instance]:
        with contextlib.suppress(execution._Blocked):
            yield from original(self, instance, low)

    patch.setattr(execution.Execution, "_successors", successors)


@bug("6: a restarted leader never uses an index twice")
def index_used_again_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    def restore(self: proposer.Proposer, reserved: int) -> None:
        own = [id.index for id in self._state.log.instances if id.leader == self._state.me]
        self._next_index = self._state.first_index = max(own, default=0) + 1
        self._durably_reserved = reserved
        self._set_reserved(reserved)

    patch.setattr(proposer.Proposer, "restore", restore)
    patch.setattr(proposer.Proposer, "_free_index", lambda self: self._next_index)


@bug("6: after a restart a replica never acts in round 0 for an instance of before")
def restarted_leader_goes_on_in_round_0(patch: pytest.MonkeyPatch) -> None:
    original = replicas.Replica.restore

    def restore(self: replicas.Replica, records: Any, snapshots: Any = ()) -> None:
        original(self, records, snapshots)
        for id, instance in self._state.log.instances.items():
            if id.leader == self._state.me and instance.status is Status.PRE_ACCEPTED:
                batch = instance.initial_batch
                assert batch is not None
                deps = self._state.log.conflicts(batch)
                phase = phases.PreAccepting(
                    Ballot(0, id.leader), batch, deps, self._state.peers, self._state.now, self._state.now
                )
                self._state.begin_phase(id, phase)
                self._proposer.on_pre_accept_ok(self._state.me, messages.PreAcceptOk(id, deps))

    patch.setattr(replicas.Replica, "restore", restore)


@bug("4, Validate: a Validate that arrives after a vote changes nothing")
def late_validate_overwrites_a_vote(patch: pytest.MonkeyPatch) -> None:
    original = acceptor.Acceptor.on_validate

    def on_validate(self: acceptor.Acceptor, sender: ReplicaId, message: messages.Validate) -> None:
        instance = self._state.log.instance(message.id)
        if instance.status is Status.ACCEPTED and instance.promised == message.ballot:
            self._state.log.validate(instance, message.batch, message.deps)
            self._state.persist(instance)
        original(self, sender, message)

    patch.setattr(acceptor.Acceptor, "on_validate", on_validate)


@bug("4, step 2: the value of the highest vote is taken (9, efficient/epaxos: deps lost in recovery)")
def accepted_deps_lost_in_recovery(patch: pytest.MonkeyPatch) -> None:
    original = recovery_rules.after_prepare

    def after_prepare(id: InstanceId, answers: Mapping[ReplicaId, PrepareOk], q: quorums.Quorums) -> Any:
        decision = original(id, answers, q)
        if isinstance(decision, recovery_rules.AcceptValue) and isinstance(decision.value, Batch):
            lowest = min((one for one in answers.values() if one.initial_batch), key=lambda one: one.deps, default=None)
            if lowest is not None:
                return recovery_rules.AcceptValue(decision.rule, decision.value, lowest.initial_deps)
        return decision

    patch.setattr(recoverer, "after_prepare", after_prepare)


@bug("4, step 2: of several votes the highest counts")
def lowest_vote_taken(patch: pytest.MonkeyPatch) -> None:
    def lowest(answers: Mapping[ReplicaId, PrepareOk]) -> PrepareOk | None:
        votes = [one for one in answers.values() if one.status is Status.ACCEPTED and one.voted is not None]
        return min(votes, key=lambda one: one.voted or Ballot(0, ReplicaId(0)), default=None)

    patch.setattr(recovery_rules, "_highest_vote", lowest)


@bug("4: an instance that is known only as a dependency is recovered too (9, efficient/epaxos)")
def dependency_that_nobody_recovers(patch: pytest.MonkeyPatch) -> None:
    original = recoverer.Recoverer._late

    def late(self: recoverer.Recoverer) -> list[Any]:
        return [(id, since) for id, since in original(self) if id in self._state.log.instances]

    patch.setattr(recoverer.Recoverer, "_late", late)


@bug("3: the leader's vector and the acceptor's are merged")
def acceptor_answers_with_the_leaders_vector(patch: pytest.MonkeyPatch) -> None:
    original = acceptor.Acceptor.on_pre_accept

    def on_pre_accept(self: acceptor.Acceptor, sender: ReplicaId, message: messages.PreAccept) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._state.log, "conflicts", lambda batch: self._state.log.no_deps)
            original(self, sender, message)

    patch.setattr(acceptor.Acceptor, "on_pre_accept", on_pre_accept)


@bug("2: a batch learnt from a Validate is in the conflict index (2, last paragraph)")
def validated_batch_not_in_the_index(patch: pytest.MonkeyPatch) -> None:
    def validate(self: log.Log, instance: Instance, batch: Batch, initial: Deps) -> None:
        instance.value = instance.initial_batch = batch
        instance.initial_deps = initial
        self.note_exists(initial)

    patch.setattr(log.Log, "validate", validate)


@bug("6, checkpoint: instances above the floor stay in the conflict index")
def index_dropped_as_a_whole_at_a_checkpoint(patch: pytest.MonkeyPatch) -> None:
    def begin_index(self: log.Log) -> None:
        self._index = self.relation.index(len(self.no_deps))

    patch.setattr(log.Log, "begin_index", begin_index)


@bug("4, Validate, 6, checkpoint: instances below the floor may invalidate an undecided instance")
def validate_does_not_look_behind_the_floor(patch: pytest.MonkeyPatch) -> None:
    original = log.Log.invalidators

    def invalidators(self: log.Log, id: InstanceId, batch: Batch, deps: Deps) -> tuple[Invalidator, ...]:
        floor, self._floor = self._floor, self.no_deps
        try:
            return original(self, id, batch, deps)
        finally:
            self._floor = floor

    patch.setattr(log.Log, "invalidators", invalidators)


@bug("6, checkpoint: every later vector covers the floor")
def floor_not_raised_by_a_checkpoint(patch: pytest.MonkeyPatch) -> None:
    original = log.Log.executed

    def executed(self: log.Log, instance: Instance) -> None:
        floor = self._floor
        original(self, instance)
        self._floor = floor

    patch.setattr(log.Log, "executed", executed)


@bug("6, checkpoint: a checkpoint executes after its component")
def checkpoint_taken_inside_its_component(patch: pytest.MonkeyPatch) -> None:
    original = execution.Execution._run

    def run(self: execution.Execution, root: Instance) -> None:
        whole, emit = self._checkpoint, self._emit
        component: list[Instance] = []

        def emitted(instance: Instance) -> None:
            emit(instance)
            component.append(instance)
            if checkpoint.is_checkpoint(instance.value):
                whole(list(component))
                component.clear()

        self._emit, self._checkpoint = emitted, lambda component: None
        try:
            original(self, root)
        finally:
            self._emit, self._checkpoint = emit, whole

    patch.setattr(execution.Execution, "_run", run)


@bug("6: instances in a snapshot can be executed again from the own disk")
def snapshot_taken_before_its_commits_are_durable(patch: pytest.MonkeyPatch) -> None:
    original = state.ReplicaState.record_frontier

    def record_frontier(self: state.ReplicaState, *, always: bool = False) -> Deps:
        return self.recorded if always else original(self)

    patch.setattr(state.ReplicaState, "record_frontier", record_frontier)


@bug("6: records leave the disk when a newer snapshot is durable, never before")
def records_purged_before_a_snapshot_is_durable(patch: pytest.MonkeyPatch) -> None:
    original = state.ReplicaState._checkpointed

    def checkpointed(self: state.ReplicaState, component: list[Instance]) -> None:
        original(self, component)
        taken = self.outbox._effects.executions[-1]
        assert isinstance(taken, TakeCheckpoint)
        self.unsafe = [*getattr(self, "unsafe", [])[-1:], taken.checkpoint]  # type: ignore[attr-defined]

    def forget(self: replicas.Replica) -> None:
        self._snapshots = getattr(self._state, "unsafe", [])
        unpatched(self)

    unpatched = replicas.Replica._compact
    patch.setattr(state.ReplicaState, "_checkpointed", checkpointed)
    patch.setattr(replicas.Replica, "_compact", forget)


@bug("6: records stay for the older of two snapshots, in case the newer one is damaged")
def records_purged_up_to_the_newest_snapshot(patch: pytest.MonkeyPatch) -> None:
    original = replicas.Replica._compact

    def forget(self: replicas.Replica) -> None:
        both = self._snapshots
        self._snapshots = both[-1:] * 2
        original(self)
        self._snapshots = both

    patch.setattr(replicas.Replica, "_compact", forget)


@bug("6: records stay while some member may ask for them")
def records_purged_that_a_member_has_not_executed(patch: pytest.MonkeyPatch) -> None:
    original = replicas.Replica._compact

    def forget(self: replicas.Replica) -> None:
        original(self)
        if len(self._snapshots) > 1:
            up_to = merge(self._purged, self._snapshots[0].position.up_to)
            if up_to != self._purged:
                self._purged = up_to
                self._state.outbox.persist_lazily(PurgeRecord(up_to))

    patch.setattr(replicas.Replica, "_compact", forget)


@bug("6: a restart executes what is behind the snapshot, and nothing else")
def snapshot_executed_again_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    original = log.Log.begin_at

    def begin_at(self: log.Log, at: checkpoint.Checkpoint, purged: Deps, absent: Iterable[InstanceId] = ()) -> None:
        original(self, checkpoint.Checkpoint(at.number, at.barrier, checkpoint.Position(purged), at.floor, 0), purged)

    patch.setattr(log.Log, "begin_at", begin_at)


@bug("6: the floor of a snapshot applies after a restart as well")
def floor_forgotten_in_a_restart(patch: pytest.MonkeyPatch) -> None:
    original = log.Log.begin_at

    def begin_at(self: log.Log, at: checkpoint.Checkpoint, purged: Deps, absent: Iterable[InstanceId] = ()) -> None:
        original(self, at, purged, absent)
        self._floor = self.no_deps

    patch.setattr(log.Log, "begin_at", begin_at)


@bug("6, sliding window: only instances that every member has executed leave memory")
def dropped_on_own_execution_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(window.Window, "advance", lambda self: self._executed[self._me])


@bug("6, sliding window: instances that every member has executed leave memory, even while others are undecided")
def nothing_dropped_while_something_is_under_way(patch: pytest.MonkeyPatch) -> None:
    original = log.Log.drop

    def drop(self: log.Log, up_to: Deps, instances_max: int) -> None:
        if self.frontier == self.known:
            original(self, up_to, instances_max)

    patch.setattr(log.Log, "drop", drop)


@bug("6, sliding window, 4: instances that may still invalidate an undecided one stay in memory")
def dropped_as_soon_as_all_have_executed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(window.Window, "advance", lambda self: self.stable)


@bug("6, sliding window: a replica reports as executed only what it can execute again from its disk")
def frontier_told_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    original = outbox.Outbox.persist

    def persist(self: outbox.Outbox, record: Record) -> None:
        if not isinstance(record, FrontierRecord):
            original(self, record)

    patch.setattr(outbox.Outbox, "persist", persist)


@bug("4, Validate, 6: a nop that has left memory is no command")
def dropped_nop_taken_for_a_command(patch: pytest.MonkeyPatch) -> None:
    original = log.Log.invalidators

    def invalidators(self: log.Log, id: InstanceId, batch: Batch, deps: Deps) -> tuple[Invalidator, ...]:
        bound = self._index.conflicts(batch)
        gone = [
            Invalidator(InstanceId(ReplicaId(leader), index), True)
            for leader, (covered, last) in enumerate(zip(deps, bound, strict=True))
            for index in range(covered + 1, min(last, self.dropped[leader]) + 1)
        ]
        return (*gone, *original(self, id, batch, deps))

    patch.setattr(log.Log, "invalidators", invalidators)


@bug("6, sliding window: instances that have left memory never return to it")
def late_message_makes_a_dropped_instance_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replicas.Replica, "_is_compacted", lambda self, sender, id: False)
    patch.setattr(log.Log, "is_dropped", lambda self, id: False)


@bug("4, 6: proposals that a leader may have lost in a crash are dependencies of all its later ones")
def forgotten_proposals_not_covered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(log.Log, "require_after", lambda self, id: None)


@bug("8, rolled-back disks: a start that lacks what a peer has recorded of it does not take part")
def older_disk_not_noticed(patch: pytest.MonkeyPatch) -> None:
    _accept_every_start(patch)
    patch.setattr(runtime_starts, "describe_missing", lambda own, report: None)


@bug("8, rolled-back disks: a replica asks its peers before it takes part")
def takes_part_before_peers_have_answered(patch: pytest.MonkeyPatch) -> None:
    _accept_every_start(patch)
    patch.setattr(starts.StartCheck, "passed", lambda self, now: True)


@bug("8, rolled-back disks: peers refuse a lower position, and a replica stops that has a lower one")
def lower_position_taken(patch: pytest.MonkeyPatch) -> None:
    _accept_every_start(patch)
    original = starts.describe_missing

    def describe_missing(own: starts.OwnData, report: starts.PeerReport) -> str | None:
        return original(own, msgspec.structs.replace(report, position=0, index=0, executed=(0,) * len(report.executed)))

    patch.setattr(runtime_starts, "describe_missing", describe_missing)


def _accept_every_start(patch: pytest.MonkeyPatch) -> None:
    def check_start(self: starts.PeerStarts, peer: ReplicaId, incarnation: int, info: starts.StartInfo) -> str | None:
        seen = self._highest.get(peer)
        before = 0 if seen is None else seen.position
        self._highest[peer] = starts.SeenStart(incarnation, info.start, max(info.position, before))
        return None

    patch.setattr(starts.PeerStarts, "check_start", check_start)
