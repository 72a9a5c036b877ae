"""How a leader commits: the fast path, the slow path, thrifty asking, repetition (PROTOCOL 3; EPaxos*, commit).

Guards: a fast commit only on a fast quorum of unchanged vectors, one vote per replica, answers only of the phase's
ballot. The own vote on a batch has no record of its own: it is in that of the decision, or of the acceptance, without
which nothing is told that it was counted for (docs/decisions/one-record-fewer).
"""

from collections.abc import Collection
from dataclasses import dataclass

from pydsm.core.protocol.acceptor import Acceptor
from pydsm.core.protocol.phases import Accepting, PreAccepting
from pydsm.core.protocol.state import ReplicaState
from pydsm.core.types.ballots import Ballot, initial_ballot
from pydsm.core.types.effects import ReservationRecord
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, Tick, merge
from pydsm.core.types.messages import Accept, AcceptOk, Batch, Commit, PreAccept, PreAcceptOk, Value
from pydsm.core.types.quorums import Quorums


@dataclass(frozen=True, slots=True)
class PipelineFull:
    """Nothing was proposed: as many own instances are unexecuted as may be. Propose again after an execution."""

    in_flight: int


@dataclass(frozen=True, slots=True)
class CommitFast:
    """A fast quorum reports the initial vector."""


@dataclass(frozen=True, slots=True)
class AcceptSlow:
    """Go on with this vector, the merge of all answers."""

    deps: Deps


@dataclass(frozen=True, slots=True)
class AskMore:
    """Those asked so far cannot be enough, or one of them is late: ask everyone."""


@dataclass(frozen=True, slots=True)
class KeepAsking:
    """Nothing to decide yet."""


def decide_pre_accept(
    initial: Deps,
    answers: Collection[Deps],
    *,
    outstanding: int,
    unasked: int,
    late: bool,
    quorums: Quorums,
) -> CommitFast | AcceptSlow | AskMore | KeepAsking:
    """What the leader does with the vectors that have come in.

    Args:
        answers: one vector per replica that answered, the leader's own included.
        outstanding: replicas that were asked and have neither answered nor refused.
        unasked: replicas that were not asked, which only a thrifty leader has.
        late: whether the fast timer has fired.
    """
    unchanged = sum(deps == initial for deps in answers)
    if unchanged >= quorums.fast:
        return CommitFast()
    fast_possible = unchanged + outstanding >= quorums.fast
    if len(answers) >= quorums.slow and (late or not fast_possible):
        merged = initial
        for deps in answers:
            merged = merge(merged, deps)
        return AcceptSlow(merged)
    if unasked and (late or not fast_possible):
        return AskMore()
    return KeepAsking()


class Proposer:
    """The leading half of a replica in round 0, and the Accept step of every ballot."""

    def __init__(self, state: ReplicaState, acceptor: Acceptor) -> None:
        self._state = state
        self._acceptor = acceptor
        self._next_index = 1
        self._durably_reserved = 0
        self._set_reserved(0)
        self._reserving_index = 0
        self._round_trip_ticks: dict[ReplicaId, float] = {}
        """Of those who answered before a decision; nothing is known of the others."""
        self._late: dict[ReplicaId, None] = {}

    def restore(self, reserved: int) -> None:
        """Begin above every index that may have been used before."""
        self._next_index = self._state.first_index = reserved + 1
        self._durably_reserved = reserved
        self._set_reserved(reserved)

    @property
    def reserved(self) -> int:
        """Own indexes up to here may have been used, in this life or before; no peer can know of a higher one."""
        return self._reserved

    def _set_reserved(self, reserved: int) -> None:
        self._reserved = reserved
        self._state.log.own = (self._state.me, reserved)

    def _free_index(self) -> int:
        """Above all that this replica has used, and all that it has heard of."""
        return max(self._next_index, self._state.log.known[self._state.me] + 1)

    def propose(self, batch: Batch) -> InstanceId | PipelineFull:
        """Lead a new instance, above every own index that was heard of: a peer may name any within the reservation.

        What is passed over is recovered as nop, like what a life before has reserved and not used.
        """
        state = self._state
        if state.in_flight >= state.config.pipeline_instances_max:
            return PipelineFull(state.in_flight)
        id = InstanceId(state.me, self._free_index())
        state.in_flight += id.index + 1 - self._next_index  # with what is passed over: it will be executed as nop
        self._next_index = id.index + 1
        state.counters.proposed += 1
        self._reserve(id)
        initial = state.log.conflicts(batch)
        instance = state.log.instance(id)
        state.log.pre_accept(instance, batch, initial, initial)
        asked = self._first_asked(state.quorums.fast)
        deadline = self._fast_deadline()
        state.leading[id] = PreAccepting(instance.promised, batch, initial, asked, state.now, deadline)
        request = PreAccept(id, batch, initial)
        if id.index <= self._durably_reserved:
            state.outbox.send_early(asked, request)
        else:
            state.outbox.send(asked, request)
        state.outbox.send((state.me,), PreAcceptOk(id, initial))
        return id

    def _reserve(self, id: InstanceId) -> None:
        """Reserve indexes half a block ahead, so that in steady work the reservation is durable before its use."""
        block = self._state.config.reservation_block
        if id.index > self._reserved - block // 2:
            self._set_reserved(max(self._reserved, id.index - 1) + block)
            self._reserving_index = id.index
            self._state.outbox.persist(ReservationRecord(self._reserved))

    def _first_asked(self, quorum: int) -> tuple[ReplicaId, ...]:
        peers = self._state.peers
        if not self._state.config.thrifty:
            return peers
        nearest = sorted(peers, key=lambda peer: (peer in self._late, self._round_trip_ticks.get(peer, 0.0), peer))
        return tuple(sorted(nearest[: quorum - 1]))

    def _fast_deadline(self) -> Tick:
        """Patience for a fast quorum: the fast timer, and twice the way to the farthest replica that it needs."""
        state = self._state
        needed = sorted(self._round_trip_ticks.values())[: state.quorums.fast - 1]
        far = max([state.distances.to_nearest(state.quorums.fast - 1), *needed])
        return Tick(state.now + state.config.fast_timer_ticks + int(2 * far))

    def on_pre_accept_ok(self, sender: ReplicaId, message: PreAcceptOk) -> None:
        """Count a vector. The own one also tells that the reservation made with it, or before it, is durable."""
        if sender == self._state.me and message.id.index >= self._reserving_index:
            self._durably_reserved = self._reserved
        self._late.pop(sender, None)
        phase = self._state.leading.get(message.id)
        if not isinstance(phase, PreAccepting):
            return
        if phase.record(sender, message.deps):
            self._state.log.note_exists(message.deps)
            self._measure(sender, phase)
            self._step(message.id, phase, late=False)

    def _measure(self, sender: ReplicaId, phase: PreAccepting) -> None:
        if sender != self._state.me:
            taken = self._state.now - phase.started
            before = self._round_trip_ticks.get(sender, taken)
            self._round_trip_ticks[sender] = before + (taken - before) / 8

    def _step(self, id: InstanceId, phase: PreAccepting, *, late: bool) -> None:
        state = self._state
        heard = {*phase.answers, *phase.refused}
        decision = decide_pre_accept(
            phase.initial,
            phase.answers.values(),
            outstanding=sum(replica not in heard for replica in (*phase.asked, state.me)),
            unasked=len(state.peers) - len(phase.asked),
            late=late,
            quorums=state.quorums,
        )
        match decision:
            case CommitFast():
                state.counters.fast += 1
                state.decide(id, phase.batch, phase.initial, durable_first=True)
                state.outbox.send(state.peers, Commit(id, phase.batch, phase.initial))
            case AcceptSlow(deps):
                state.counters.slow += 1
                self.start_accept(id, phase.ballot, phase.batch, deps)
            case AskMore():
                missing = tuple(peer for peer in state.peers if peer not in phase.asked)
                phase.asked = state.peers
                state.outbox.send(missing, PreAccept(id, phase.batch, phase.initial))
            case _:
                pass  # KeepAsking: more is to come

    def start_accept(self, id: InstanceId, ballot: Ballot, value: Value, deps: Deps) -> None:
        """Ask for votes in a ballot that this replica leads.

        A leader's question is an outcome of its own vote before, and leaves when that is durable, with the acceptance.
        A recovery asks everyone: waiting for a chosen one that is slow would let the next recovery outbid it.
        """
        state = self._state
        thrifty = state.config.thrifty and ballot == initial_ballot(id)
        asked = self._first_asked(state.quorums.slow) if thrifty else state.peers
        deadline = self._fast_deadline() if thrifty else Tick(state.now + state.answer_ticks)
        state.leading[id] = Accepting(ballot, value, deps, asked, deadline)
        request = Accept(id, ballot, value, deps)
        tell = state.outbox.send if ballot == initial_ballot(id) else state.outbox.send_early
        tell(asked, request)
        self._acceptor.on_accept(state.me, request)

    def on_accept_ok(self, sender: ReplicaId, message: AcceptOk) -> None:
        """Count a vote of the phase's own ballot; `quorums.slow` of them decide."""
        state = self._state
        phase = state.leading.get(message.id)
        if not isinstance(phase, Accepting) or message.ballot != phase.ballot:
            return
        if phase.record(sender) and len(phase.votes) >= state.quorums.slow:
            if phase.ballot != initial_ballot(message.id):
                state.counters.recovered += 1
            state.decide(message.id, phase.value, phase.deps)
            state.outbox.send(state.peers, Commit(message.id, phase.value, phase.deps))

    def on_refused(self, id: InstanceId, phase: PreAccepting) -> None:
        """A refusal may have made the fast path impossible."""
        self._step(id, phase, late=False)

    def on_deadline(self, id: InstanceId, phase: PreAccepting | Accepting) -> None:
        """Widen, fall back to the slow path, or repeat the question to those who have not answered."""
        state = self._state
        state.repeat_later(phase)
        if isinstance(phase, PreAccepting):
            silent = tuple(peer for peer in phase.asked if peer not in phase.answers)
            self._late.update(dict.fromkeys(silent))
            self._step(id, phase, late=True)
            if state.leading.get(id) is phase:
                state.repeats.send(silent, phase, PreAccept(id, phase.batch, phase.initial), state.now)
        else:
            phase.asked = state.peers
            silent = tuple(peer for peer in state.peers if peer not in phase.votes)
            state.repeats.send(silent, phase, Accept(id, phase.ballot, phase.value, phase.deps), state.now)
