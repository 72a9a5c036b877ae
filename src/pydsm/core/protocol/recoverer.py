"""How a replica finishes what another began: ask, prepare, validate, wait, accept (PROTOCOL 4).

Drives the decisions of `recovery`, which are pure. Guards: a ballot is used once, because its own promise is durable
before its Prepare leaves; answers count once per replica and only in the ballot of the phase.
"""

from collections.abc import Iterator
from heapq import merge
from itertools import islice

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
"""Of each leader, so many times as many late instances are looked at as are asked about at once, the oldest ones. One
message may name a million; each that is looked at costs memory, and the others have their turn behind them."""

_ASK_ALL_MAX = 16
"""Up to so many instances all peers are asked at once; more than that, one peer at a time."""


class Recoverer:
    """The recovering half of a replica."""

    def __init__(self, state: ReplicaState, acceptor: Acceptor, proposer: Proposer) -> None:
        self._state = state
        self._acceptor = acceptor
        self._proposer = proposer
        self._suspicions = Suspicions(state.config, state.distances, state.quorums.slow)
        self._waiting: dict[InstanceId, int] = {}
        self._awaited: dict[InstanceId, list[InstanceId]] = {}

    def scan(self) -> None:
        """Look through undecided instances for late ones; ask about new ones, recover those nobody can tell about."""
        state = self._state
        room = state.config.recoveries_max - sum(
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
            elif len(to_recover) < room:
                to_recover.append(id)
            if len(to_ask) >= state.config.inquiry_instances_max:
                break
        self._inquire(to_ask)
        for id in to_recover:
            self.recover(id)

    def _late(self) -> Iterator[tuple[InstanceId, Tick]]:
        """In about the order of history, so that a replica which fetches much can execute while it fetches.

        Leader by leader, nothing could run before the last leader's turn, and then everything waits for everything.
        """
        unexecuted = self._state.log.unexecuted
        by_leader = [self._late_of(leader) for leader in self._state.members if unexecuted[leader]]
        for _, id, since in merge(*by_leader):
            yield id, since

    def _late_of(self, leader: ReplicaId) -> Iterator[tuple[float, InstanceId, Tick]]:
        """Those of one leader, oldest first; each with its place among all that is missing of it, 0 to 1."""
        state = self._state
        heard_before = state.now - state.config.recovery_timeout_ticks
        missing = state.log.unexecuted[leader]
        looked_at = islice(missing.items(), _LATE_PER_INQUIRY * state.config.inquiry_instances_max)
        for place, (index, since) in enumerate(looked_at):
            if since > heard_before:
                break
            id = InstanceId(leader, index)
            instance = state.log.instances.get(id)
            if id not in state.leading and (instance is None or not instance.decided):
                yield place / len(missing), id, since

    def _inquire(self, ids: list[InstanceId]) -> None:
        state = self._state
        if not ids:
            return
        few = len(ids) <= _ASK_ALL_MAX
        for id in ids:
            suspicion = self._suspicions.of(id, state.now)
            suspicion.inquiries += INQUIRIES_BEFORE_RECOVERY if few else 1
            suspicion.next_look = Tick(state.now + state.answer_ticks)
        turn = state.now // state.config.scan_ticks % max(1, len(state.peers))
        state.counters.inquired += len(ids)
        state.outbox.send_early(state.peers if few else state.peers[turn : turn + 1], CommitQuery(tuple(ids)))

    def recover(self, id: InstanceId) -> None:
        """Begin with a ballot above every one seen."""
        state = self._state
        suspicion = self._suspicions.of(id, state.now)
        ballot = next_ballot(max(state.log.instance(id).promised, suspicion.highest), state.me)
        self._suspicions.begin(id, ballot, state.now)
        state.counters.prepared += 1
        phase = state.leading[id] = Preparing(ballot, self._deadline())
        request = Prepare(id, ballot)
        self._acceptor.on_prepare(state.me, request)
        if suspicion.attempts == 1:
            state.outbox.send(state.peers, request)
        else:
            state.repeats.send(state.peers, phase, request, state.now)

    def on_prepare_ok(self, sender: ReplicaId, message: PrepareOk) -> None:
        """Count an answer, or keep it as a late one."""
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
            case _:
                pass

    def _prepared(self, id: InstanceId, phase: Preparing) -> None:
        state = self._state
        decision = after_prepare(id, phase.answers, state.quorums)
        state.counters.count_branch(decision.rule.value)
        if isinstance(decision, AcceptValue):
            self._accept(id, phase, decision)
            return
        batch, deps = decision.batch, decision.deps
        state.counters.validated += 1
        # Validate needs every member of its quorum: one that is silent for too long is taken for dead.
        gives_up = Tick(state.now + self._suspicions.silence_ticks(id, phase.answers, state.now))
        state.leading[id] = Validating(
            phase.ballot, batch, deps, decision.unchanged, phase.answers, self._deadline(), gives_up
        )
        self._ask(tuple(phase.answers), Validate(id, phase.ballot, batch, deps))

    def _accept(self, id: InstanceId, phase: Phase, decision: AcceptValue) -> None:
        self._proposer.start_accept(id, phase.ballot, decision.value, decision.deps)

    def _ask(self, members: tuple[ReplicaId, ...], request: Validate) -> None:
        state = self._state
        state.outbox.send_early(tuple(member for member in members if member != state.me), request)
        if state.me in members:
            self._acceptor.on_validate(state.me, request)

    def on_validate_ok(self, sender: ReplicaId, message: ValidateOk) -> None:
        """Count an answer of a member of the quorum; when all have answered, decide."""
        self._suspicions.answered(message.id, message.ballot, self._state.now)
        phase = self._state.leading.get(message.id)
        if not isinstance(phase, Validating) or phase.ballot != message.ballot:
            return
        if sender not in phase.prepared or sender in phase.answered:
            return
        phase.answered[sender] = None
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
        state.leading[id] = AwaitingInvalidators(
            phase.ballot,
            phase.batch,
            phase.deps,
            phase.unchanged,
            decision.invalidators,
            phase.prepared,
            phase.late,
            self._deadline(),
        )
        self._begin_waiting(id, phase.deps, phase.unchanged, decision.invalidators)

    def _begin_waiting(self, id: InstanceId, deps: Deps, unchanged: int, invalidators: tuple[InstanceId, ...]) -> None:
        """Tell all, and recover every invalidator that nobody here is working on."""
        state = self._state
        self._waiting[id] = max(unchanged, self._waiting.get(id, 0))
        state.outbox.send_early(state.peers, Waiting(id, unchanged))
        for other in invalidators:
            self._awaited.setdefault(other, []).append(id)
            if self._fate(other, id, deps) is InvalidatorState.OPEN and other not in state.leading:
                self.recover(other)
        self._step_waiting(id)

    def on_waiting(self, message: Waiting) -> None:
        """Remember it, also from before this replica waits itself."""
        instance = self._state.log.instance(message.id)
        if instance.decided:
            return
        self._waiting[message.id] = max(message.unchanged, self._waiting.get(message.id, 0))
        for id in tuple(self._awaited.get(message.id, ())):
            self._step_waiting(id)

    def _step_waiting(self, id: InstanceId) -> None:
        state = self._state
        phase = state.leading.get(id)
        if not isinstance(phase, AwaitingInvalidators):
            return
        fates = {other: self._fate(other, id, phase.deps) for other in phase.invalidators}
        decision = while_waiting(id, phase.batch, phase.deps, fates, self._waiting, phase.late, state.quorums)
        if decision is not None:
            state.counters.count_branch(decision.rule.value)
            self._accept(id, phase, decision)

    def _fate(self, other: InstanceId, id: InstanceId, deps: Deps) -> InvalidatorState:
        """What became of `other`. Of what is forgotten here only the barrier speaks that it came before."""
        log = self._state.log
        if log.is_dropped(other):
            behind = log.compaction_checkpoint is None or covers(deps, log.compaction_checkpoint.barrier)
            return InvalidatorState.HARMLESS if behind else InvalidatorState.UNORDERED
        instance = log.instance(other)
        if not instance.decided:
            return InvalidatorState.OPEN
        ordered = not isinstance(instance.value, Batch) or covers(instance.deps, id)
        return InvalidatorState.HARMLESS if ordered else InvalidatorState.UNORDERED

    def on_commit(self, id: InstanceId) -> None:
        """A Commit came for an instance that is being recovered here: rule 1, to be counted."""
        phase = self._state.leading.get(id)
        if isinstance(phase, Preparing | Validating | AwaitingInvalidators):
            self._state.counters.count_branch(Rule.ALREADY_COMMITTED.value)

    def settle(self) -> None:
        """Forget what was decided since the last call, and go on with recoveries that waited for it."""
        decided = self._state.decided
        while decided:
            id = decided.pop()
            self._suspicions.forget(id)
            self._waiting.pop(id, None)
            for waiter in self._awaited.pop(id, ()):
                self._step_waiting(waiter)

    def on_activity(self, sender: ReplicaId, id: InstanceId) -> None:
        """Another replica is recovering this instance: give it time before doing the same."""
        if sender != self._state.me and not self._state.log.instance(id).decided:
            self._suspicions.postpone(id, self._state.now)

    def on_refuse(self, sender: ReplicaId, message: Refuse) -> None:
        """Give up a ballot that can no longer get its quorum; in round 0, perhaps change to the slow path."""
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
        del self._state.leading[id]
        self._suspicions.back_off(id, self._state.now, max(phase.refused.values(), default=phase.ballot))

    def on_deadline(self, id: InstanceId, phase: Phase) -> None:
        """Nobody is late for ever: repeat the phase's question, or give up the ballot if it was refused."""
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
            case _:
                state.outbox.send(state.peers, Waiting(id, phase.unchanged))
                self._repeat(phase, Prepare(id, phase.ballot))

    def _repeat(self, phase: Preparing | AwaitingInvalidators, request: Prepare) -> None:
        state = self._state
        silent = tuple(peer for peer in state.peers if not phase.has_answer_of(peer))
        state.repeats.send(silent, phase, request, state.now)

    def _deadline(self) -> Tick:
        return Tick(self._state.now + self._state.answer_ticks)
