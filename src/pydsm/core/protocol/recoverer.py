"""How a replica finishes an instance that another replica leads: query, prepare, validate, wait, accept.

The rules are in docs/reference/protocol.md#4-recovery. This module sends the requests, counts the answers and applies
the decisions of `recovery_rules`, which are pure functions. Guarantees: a ballot is used once, because its own promise
is durable before its Prepare leaves; an answer counts once per replica, and only in the ballot of the phase. When a
recovery begins is decided in `suspicion`, the Accept step is in `proposer`.
"""

from collections.abc import Iterator
from heapq import merge
from itertools import islice
from typing import assert_never

from pydsm.core.protocol.acceptor import Acceptor
from pydsm.core.protocol.phases import Accepting, AwaitingInvalidators, Phase, PreAccepting, Preparing, Validating
from pydsm.core.protocol.proposer import Proposer
from pydsm.core.protocol.recovery_rules import (
    AcceptValue,
    InvalidatorState,
    Rule,
    after_prepare,
    after_validate,
    while_waiting,
)
from pydsm.core.protocol.state import ReplicaState
from pydsm.core.protocol.suspicion import INQUIRIES_BEFORE_RECOVERY, Suspicions
from pydsm.core.types.ballots import next_ballot
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, Tick, covers
from pydsm.core.types.messages import (
    Batch,
    CommitQuery,
    Prepare,
    PrepareOk,
    Refuse,
    Validate,
    ValidateOk,
    Waiting,
)

_LATE_PER_INQUIRY = 16
"""Of each leader, a scan examines this many times `inquiry_instances_max` undecided instances, the oldest first. One
message may name a million of them; each one examined costs memory, and later scans examine the others."""

_ASK_ALL_MAX = 16
"""A CommitQuery about at most this many instances goes to all peers; one about more goes to one peer in turn."""


class Recoverer:
    """Recovers instances that stay undecided, and handles deadlines and refusals of all phases."""

    def __init__(self, state: ReplicaState, acceptor: Acceptor, proposer: Proposer) -> None:
        self._state = state
        self._acceptor = acceptor
        self._proposer = proposer
        self._suspicions = Suspicions(state.config, state.distances, state.quorums.slow)
        self._waiting: dict[InstanceId, int] = {}
        """The highest `unchanged` of any Waiting, own ones included, by undecided instance."""
        self._awaited: dict[InstanceId, dict[InstanceId, None]] = {}
        """By undecided invalidator, the instances whose recovery here waits for its decision."""

    def scan(self) -> None:
        """Find late undecided instances; query peers about them, then recover those that no peer reports committed."""
        state = self._state
        # Recoveries that wait for invalidators are not counted: otherwise they could keep the recoveries of these
        # invalidators from beginning.
        places = state.config.recoveries_max - sum(
            not isinstance(phase, PreAccepting | AwaitingInvalidators) for phase in state.leading.values()
        )
        to_ask: list[InstanceId] = []
        to_recover: list[InstanceId] = []
        for id, since in self._late():
            suspicion = self._suspicions.of(id, since)
            if suspicion.next_look > state.now:
                continue
            if suspicion.inquiries < INQUIRIES_BEFORE_RECOVERY:
                to_ask.append(id)
            elif len(to_recover) < places:
                to_recover.append(id)
            if len(to_ask) >= state.config.inquiry_instances_max:
                break
        self._inquire(to_ask)
        for id in to_recover:
            self.recover(id)

    def _late(self) -> Iterator[tuple[InstanceId, Tick]]:
        """Late undecided instances of all leaders with the tick at which each was first known, merged by age.

        The merge approximates the execution order, so that a replica which fetches many instances can execute while it
        fetches. If it fetched one leader after the other, nothing could be executed before the last one.
        """
        unexecuted = self._state.log.unexecuted
        by_leader = [self._late_of(leader) for leader in self._state.members if unexecuted[leader]]
        for _, id, since in merge(*by_leader):
            yield id, since

    def _late_of(self, leader: ReplicaId) -> Iterator[tuple[float, InstanceId, Tick]]:
        """Late undecided instances of one leader, oldest first, each with its relative position (0 to 1)."""
        state = self._state
        known_before = state.now - state.config.recovery_timeout_ticks
        missing = state.log.unexecuted[leader]
        examined = islice(missing.items(), _LATE_PER_INQUIRY * state.config.inquiry_instances_max)
        last = 0
        for place, (index, since) in enumerate(examined):
            if since > known_before:
                break
            last = index
            id = InstanceId(leader, index)
            if self._may_inquire(id):
                yield place / len(missing), id, since
        # All of the examined instances may be committed and wait for one behind them, which would never be examined.
        for id in state.execution.blockers(leader):
            known_since = missing.known_since(id.index) if id.index > last else None
            if known_since is not None and known_since <= known_before and self._may_inquire(id):
                yield 1.0, id, known_since

    def _may_inquire(self, id: InstanceId) -> bool:
        """Whether the instance is undecided, as far as is known here, and not driven by this replica."""
        instance = self._state.log.instances.get(id)
        return id not in self._state.leading and (instance is None or not instance.decided)

    def _inquire(self, ids: list[InstanceId]) -> None:
        """Send a CommitQuery about these instances: to all peers if they are few, to one peer in turn if many."""
        state = self._state
        state.counters.inquired += len(ids)
        few = len(ids) <= _ASK_ALL_MAX
        by_peers: dict[tuple[ReplicaId, ...], list[InstanceId]] = {}
        for id in ids:
            suspicion = self._suspicions.of(id, state.now)
            # The second question goes to another peer, however many scans lie between the two: the first may be down.
            if not suspicion.inquiries:
                suspicion.first_turn = state.now // state.config.scan_ticks
            place = (suspicion.first_turn + suspicion.inquiries) % max(1, len(state.peers))
            by_peers.setdefault(state.peers if few else state.peers[place : place + 1], []).append(id)
            suspicion.inquiries += INQUIRIES_BEFORE_RECOVERY if few else 1
            suspicion.next_look = Tick(state.now + state.answer_ticks)
        for to, some in by_peers.items():
            state.outbox.send_early(to, CommitQuery(tuple(some)))

    def recover(self, id: InstanceId) -> None:
        """Begin a recovery in a ballot above every ballot seen for the instance."""
        state = self._state
        suspicion = self._suspicions.of(id, state.now)
        ballot = next_ballot(max(state.log.instance(id).promised, suspicion.highest), state.me)
        self._suspicions.begin(id, ballot, state.now)
        state.counters.prepared += 1
        phase = Preparing(ballot, self._deadline())
        state.begin_phase(id, phase)
        request = Prepare(id, ballot)
        # Prepare waits for the record of the own promise, made in this turn. If it left earlier, a crash could lose the
        # promise, and the next start would use the same ballot again with another value.
        self._acceptor.on_prepare(state.me, request)
        if suspicion.attempts == 1:
            state.outbox.send(state.peers, request)
        else:
            state.repeats.send(state.peers, phase, request, state.now)

    def on_prepare_ok(self, sender: ReplicaId, message: PrepareOk) -> None:
        """Count an answer, or store it as late if the quorum is complete."""
        self._suspicions.answered(message.id, message.ballot, self._state.now)
        phase = self._state.leading.get(message.id)
        if phase is None or phase.ballot != message.ballot:
            return
        match phase:
            case Preparing():
                phase.answers.setdefault(sender, message)
                if len(phase.answers) >= self._state.quorums.slow:
                    self._prepared(message.id, phase)
            case Validating() | AwaitingInvalidators():
                if sender not in phase.prepared:
                    phase.late.setdefault(sender, message)
                    self._step_waiting(message.id)
            case PreAccepting() | Accepting():
                pass  # too late: the value of this ballot is chosen
            case unreachable:
                assert_never(unreachable)

    def _prepared(self, id: InstanceId, phase: Preparing) -> None:
        state = self._state
        decision = after_prepare(id, phase.answers, state.quorums)
        state.counters.count_branch(decision.rule.value)
        if isinstance(decision, AcceptValue):
            self._accept(id, phase, decision)
            return
        batch, deps = decision.batch, decision.deps
        state.counters.validated += 1
        # Validate needs the answer of every member of this quorum, and another quorum needs another ballot. So there is
        # a deadline from which a silent member is treated as failed and the ballot is given up.
        gives_up = Tick(state.now + self._suspicions.silence_ticks(id, phase.answers, state.now))
        state.begin_phase(
            id, Validating(phase.ballot, batch, deps, decision.unchanged, phase.answers, self._deadline(), gives_up)
        )
        self._ask(tuple(phase.answers), Validate(id, phase.ballot, batch, deps))

    def _accept(self, id: InstanceId, phase: Phase, decision: AcceptValue) -> None:
        self._proposer.start_accept(id, phase.ballot, decision.value, decision.deps)

    def _ask(self, members: tuple[ReplicaId, ...], request: Validate) -> None:
        """Send Validate to the quorum; this replica, if a member, answers itself behind its record."""
        state = self._state
        # Early, because Validate repeats only what the members have answered, and the own promise is durable already.
        state.outbox.send_early(tuple(member for member in members if member != state.me), request)
        if state.me in members:
            self._acceptor.on_validate(state.me, request)

    def on_validate_ok(self, sender: ReplicaId, message: ValidateOk) -> None:
        """Count an answer of a member of the quorum; decide when all members have answered."""
        self._suspicions.answered(message.id, message.ballot, self._state.now)
        phase = self._state.leading.get(message.id)
        if not isinstance(phase, Validating) or phase.ballot != message.ballot:
            return
        if sender not in phase.prepared or sender in phase.answered:
            return
        phase.answered[sender] = None
        # The union over the quorum; "committed" by one member is enough, as it is final.
        for invalidator in message.invalidators:
            known = phase.invalidators.get(invalidator.id, False)
            phase.invalidators[invalidator.id] = known or invalidator.committed
        if len(phase.answered) == len(phase.prepared):
            self._validated(message.id, phase)

    def _validated(self, id: InstanceId, phase: Validating) -> None:
        state = self._state
        decision = after_validate(
            phase.batch, phase.deps, phase.unchanged, phase.prepared, phase.invalidators, state.quorums
        )
        state.counters.count_branch(decision.rule.value)
        if isinstance(decision, AcceptValue):
            self._accept(id, phase, decision)
            return
        state.counters.waited += 1
        # A wait may be endless, and its quorum cannot change. Example: the recoveries of two instances wait for each
        # other, with so few unchanged answers that no Waiting decides, each with the leader of the other instance in
        # its quorum. If both leaders fail now, only quorums without them decide, and these need higher ballots.
        gives_up = Tick(state.now + self._suspicions.wait_ticks(id, state.now))
        waiting = AwaitingInvalidators(
            phase.ballot,
            phase.batch,
            phase.deps,
            phase.unchanged,
            decision.invalidators,
            phase.prepared,
            phase.late,
            self._deadline(),
            gives_up,
        )
        state.begin_phase(id, waiting)
        self._begin_waiting(id, phase.deps, phase.unchanged, decision.invalidators)

    def _begin_waiting(self, id: InstanceId, deps: Deps, unchanged: int, invalidators: tuple[InstanceId, ...]) -> None:
        """Send Waiting to all peers, and recover every invalidator that this replica does not drive already."""
        state = self._state
        self._waiting[id] = max(unchanged, self._waiting.get(id, 0))
        state.outbox.send_early(state.peers, Waiting(id, unchanged))
        # An invalidator that this replica does not recover may have no leader alive and no other replica that recovers
        # it; then this wait would never end. The own entry in `_waiting` is set before, because two recoveries of one
        # replica can wait for each other.
        for other in invalidators:
            if self._invalidator_state(other, id, deps) is InvalidatorState.OPEN:
                self._awaited.setdefault(other, {})[id] = None
                if other not in state.leading:
                    self.recover(other)
        self._step_waiting(id)
        # Peers learn the count from the message. Recoveries of this replica that wait for `id` learn it here, and only
        # here: no peer sends it back. They need not know it if the wait is over, because a decision follows then.
        if isinstance(state.leading.get(id), AwaitingInvalidators):
            self._step_waiters(id)

    def on_waiting(self, sender: ReplicaId, message: Waiting) -> None:
        """Store the count, also before this replica waits itself: the message may come only once.

        A decided instance is answered by its decision: the sender asks nothing else of the members of its quorum.
        """
        instance = self._state.log.instance(message.id)
        if instance.decided:
            self._acceptor.answer_commit(sender, instance)
            return
        self._waiting[message.id] = max(message.unchanged, self._waiting.get(message.id, 0))
        self._step_waiters(message.id)

    def _step_waiters(self, id: InstanceId) -> None:
        """Continue the recoveries here that wait for this invalidator, if its new state decides them."""
        for waiter in tuple(self._awaited.get(id, ())):
            self._step_waiting(waiter)

    def _step_waiting(self, id: InstanceId) -> None:
        state = self._state
        phase = state.leading.get(id)
        if not isinstance(phase, AwaitingInvalidators):
            return
        states = {other: self._invalidator_state(other, id, phase.deps) for other in phase.invalidators}
        decision = while_waiting(id, phase.batch, phase.deps, states, self._waiting, phase.late, state.quorums)
        if decision is not None:
            state.counters.count_branch(decision.rule.value)
            self._accept(id, phase, decision)

    def _invalidator_state(self, other: InstanceId, id: InstanceId, deps: Deps) -> InvalidatorState:
        """The state of the invalidator `other` of the instance `id`, whose validated vector is `deps`."""
        log = self._state.log
        # A compacted instance is not in memory, so the barrier of the compaction checkpoint stands in for it: the
        # instance was executed before the barrier, and the barrier, being executed, does not cover the undecided `id`.
        # If `id` covers the barrier, it is executed after both. If not, `id` must become a nop
        # (docs/explanation/log-compaction.md). Without such a checkpoint, every member has executed the instance.
        if log.is_dropped(other):
            behind = log.compaction_checkpoint is None or covers(deps, log.compaction_checkpoint.barrier)
            return InvalidatorState.HARMLESS if behind else InvalidatorState.UNORDERED
        instance = log.instance(other)
        if not instance.decided:
            return InvalidatorState.OPEN
        ordered = not isinstance(instance.value, Batch) or covers(instance.deps, id)
        return InvalidatorState.HARMLESS if ordered else InvalidatorState.UNORDERED

    def on_commit(self, id: InstanceId) -> None:
        """Count rule 1 (already committed) if a Commit ends a recovery of this replica."""
        phase = self._state.leading.get(id)
        if isinstance(phase, Preparing | Validating | AwaitingInvalidators):
            self._state.counters.count_branch(Rule.ALREADY_COMMITTED.value)

    def settle(self) -> None:
        """Remove the state of instances decided since the last call, and continue recoveries that waited for them."""
        # An own fast commit counts here before its record is durable, and the Accept that follows from it leaves early.
        # If a crash undoes the commit, that Accept stays right: it carries a nop, which rests on the votes of the fast
        # quorum and not on the record. No fast quorum can have voted, or vote later, for the waiting instance without
        # change (protocol.md, section 6, "Decided, and not durable yet").
        decided = self._state.decided
        # A loop, because continuing a recovery may decide further instances, which are appended to the same list.
        while decided:
            id = decided.pop()
            self._suspicions.forget(id)
            self._waiting.pop(id, None)
            for waiter in self._awaited.pop(id, ()):
                self._step_waiting(waiter)

    def on_activity(self, sender: ReplicaId, id: InstanceId) -> None:
        """Postpone an own recovery of an instance that another replica is recovering."""
        if sender != self._state.me and not self._state.log.instance(id).decided:
            self._suspicions.postpone(id, self._state.now)

    def on_refuse(self, sender: ReplicaId, message: Refuse) -> None:
        """Count a refusal; give up a ballot that cannot get a quorum any more, or in round 0 start the slow path."""
        self._suspicions.answered(message.id, message.ballot, self._state.now)
        phase = self._state.leading.get(message.id)
        if phase is None or phase.ballot != message.ballot or sender in phase.refused:
            return
        phase.refused[sender] = message.promised
        if len(phase.refused) > self._state.quorums.f:
            self._abandon(message.id, phase)
        elif isinstance(phase, PreAccepting):
            self._proposer.on_refused(message.id, phase)

    def _abandon(self, id: InstanceId, phase: Phase) -> None:
        """Give up the phase's ballot, and schedule the next attempt with a longer wait."""
        self._state.end_phase(id)
        self._suspicions.back_off(id, self._state.now, max(phase.refused.values(), default=phase.ballot))

    def on_deadline(self, id: InstanceId, phase: Phase) -> None:
        """Repeat the phase's request to silent peers, or give up the ballot if a peer refused it."""
        state = self._state
        if isinstance(phase, PreAccepting):
            self._proposer.on_deadline(id, phase)
            if state.leading.get(id) is phase and phase.refused:
                self._abandon(id, phase)
            return
        if phase.refused:
            self._abandon(id, phase)
            return
        if isinstance(phase, Accepting):
            self._proposer.on_deadline(id, phase)
            return
        state.repeat_later(phase)
        match phase:
            case Preparing():
                self._repeat(phase, Prepare(id, phase.ballot))
            case Validating():
                if phase.gives_up <= state.now:
                    self._abandon(id, phase)
                    return
                phase.deadline = min(phase.deadline, phase.gives_up)
                silent = tuple(one for one in phase.prepared if one not in phase.answered and one != state.me)
                state.repeats.send(silent, phase, Validate(id, phase.ballot, phase.batch, phase.deps), state.now)
            case AwaitingInvalidators():
                if phase.gives_up <= state.now:
                    self._abandon(id, phase)
                    return
                phase.deadline = min(phase.deadline, phase.gives_up)
                state.outbox.send(state.peers, Waiting(id, phase.unchanged))
                self._repeat(phase, Prepare(id, phase.ballot))
            case unreachable:
                assert_never(unreachable)

    def _repeat(self, phase: Preparing | AwaitingInvalidators, request: Prepare) -> None:
        state = self._state
        silent = tuple(peer for peer in state.peers if not phase.has_answer_of(peer))
        state.repeats.send(silent, phase, request, state.now)

    def _deadline(self) -> Tick:
        return Tick(self._state.now + self._state.answer_ticks)
