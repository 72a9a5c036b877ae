"""How a leader commits an instance: fast path, slow path, thrifty quorums, repetition (EPaxos*, commit protocol).

The rules are in docs/reference/protocol.md#3-commit. Guarantees: an instance is committed on the fast path only when a
fast quorum reports the initial vector; each replica is counted once; only answers in the ballot of the phase count. The
leader's own vote on a batch has no record of its own. The record of the decision (fast path) or of the acceptance (slow
path) contains it, and every message that relies on the vote waits for that record
(docs/decisions/leaders-store-votes-with-decisions). How peers answer is decided in `acceptor`, what happens when the
leader fails in `recoverer`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import assert_never

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
    """Nothing was proposed: `pipeline_instances_max` own instances are unexecuted. Propose again after an execution."""

    in_flight: int


@dataclass(frozen=True, slots=True)
class CommitFast:
    """A fast quorum reports the initial vector."""


@dataclass(frozen=True, slots=True)
class AcceptSlow:
    """Start the slow path with this vector, the element-wise maximum of all answers."""

    deps: Deps


@dataclass(frozen=True, slots=True)
class SendToAllPeers:
    """Send PreAccept to all other peers: the peers asked so far cannot form a fast quorum, or one of them is late."""


@dataclass(frozen=True, slots=True)
class WaitForAnswers:
    """Wait for more answers."""


def decide_pre_accept(
    initial: Deps,
    answers: Collection[Deps],
    *,
    outstanding: int,
    not_sent_to: int,
    late: bool,
    quorums: Quorums,
) -> CommitFast | AcceptSlow | SendToAllPeers | WaitForAnswers:
    """Decide the next step of a leader in round 0 from the vectors received so far.

    Args:
        initial: the vector that the leader proposed, one index per replica.
        answers: one vector per replica that answered, including the leader's own.
        outstanding: number of replicas that were asked and have neither answered nor refused.
        not_sent_to: number of peers that were not asked; above 0 only for a thrifty leader.
        late: whether the fast timer has fired.
        quorums: the quorum sizes of the group.
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
    if not_sent_to and (late or not fast_possible):
        return SendToAllPeers()
    return WaitForAnswers()


class Proposer:
    """Leads this replica's own instances in round 0, and runs the Accept step of every ballot that it leads."""

    def __init__(self, state: ReplicaState, acceptor: Acceptor) -> None:
        self._state = state
        self._acceptor = acceptor
        self._next_index = 1
        self._durably_reserved = 0
        self._set_reserved(0)
        self._reserving_index = 0
        self._round_trip_ticks: dict[ReplicaId, float] = {}
        """Smoothed time to PreAcceptOk, for peers that have answered before a decision."""
        self._late: dict[ReplicaId, None] = {}
        """Peers that missed the last fast timer and have not answered since; a thrifty leader asks them last."""

    def restore(self, reserved: int) -> None:
        """Continue above `reserved`: an earlier start of this replica may have used any index up to it."""
        self._next_index = self._state.first_index = reserved + 1
        self._durably_reserved = reserved
        self._set_reserved(reserved)

    @property
    def reserved(self) -> int:
        """Highest own index that this start or an earlier one may have used; no peer can know a higher one."""
        return self._reserved

    def _set_reserved(self, reserved: int) -> None:
        self._reserved = reserved
        self._state.log.own = (self._state.me, reserved)

    def _free_index(self) -> int:
        """The next index above all own indexes that were used or named by any message."""
        return max(self._next_index, self._state.log.known[self._state.me] + 1)

    def propose(self, batch: Batch) -> InstanceId | PipelineFull:
        """Lead a new instance that proposes `batch`; returns its id, or PipelineFull.

        The index is above every own index that a message has named, because a peer may name any index within the
        reservation. Skipped indexes are recovered as nops, like indexes that an earlier start reserved and did not use.
        """
        state = self._state
        if state.in_flight >= state.config.pipeline_instances_max:
            return PipelineFull(state.in_flight)
        id = InstanceId(state.me, self._free_index())
        state.in_flight += id.index + 1 - self._next_index  # skipped indexes count too: they are executed as nops
        self._next_index = id.index + 1
        state.counters.proposed += 1
        self._reserve(id)
        initial = state.log.conflicts(batch)
        instance = state.log.instance(id)
        state.log.pre_accept(instance, batch, initial, initial)
        asked = self._first_receivers(state.quorums.fast)
        deadline = self._fast_deadline()
        state.begin_phase(id, PreAccepting(instance.promised, batch, initial, asked, state.now, deadline))
        request = PreAccept(id, batch, initial)
        # A PreAccept states only that this index was used. If a durable reservation covers the index, a crash cannot
        # make the next start use it for another batch, so the message may leave while this turn's records are written.
        # Otherwise the reservation is among these records and the message waits for it.
        # The own answer is never early: it passes through `send` to this replica itself, hence behind the records, and
        # counts only when it comes back. It also shows that the reservation of this turn is durable.
        if id.index <= self._durably_reserved:
            state.outbox.send_early(asked, request)
        else:
            state.outbox.send(asked, request)
        state.outbox.send((state.me,), PreAcceptOk(id, initial))
        return id

    def _reserve(self, id: InstanceId) -> None:
        """Reserve indexes half a block ahead, so that under steady load the reservation is durable before its use."""
        block = self._state.config.reservation_block
        if id.index > self._reserved - block // 2:
            self._set_reserved(max(self._reserved, id.index - 1) + block)
            self._reserving_index = id.index
            self._state.outbox.persist(ReservationRecord(self._reserved))

    def _first_receivers(self, quorum: int) -> tuple[ReplicaId, ...]:
        """The peers to ask first for `quorum` votes including the own: all, or the nearest ones if thrifty."""
        peers = self._state.peers
        if not self._state.config.thrifty:
            return peers
        nearest = sorted(peers, key=lambda peer: (peer in self._late, self._round_trip_ticks.get(peer, 0.0), peer))
        return tuple(sorted(nearest[: quorum - 1]))

    def _fast_deadline(self) -> Tick:
        """When the fast timer fires: after its configured ticks plus two round trips to the farthest replica needed."""
        state = self._state
        needed = sorted(self._round_trip_ticks.values())[: state.quorums.fast - 1]
        farthest = max([state.distances.to_nearest(state.quorums.fast - 1), *needed])
        return Tick(state.now + state.config.fast_timer_ticks + int(2 * farthest))

    def on_pre_accept_ok(self, sender: ReplicaId, message: PreAcceptOk) -> None:
        """Count the vector of an answer, once per replica, and take the next step."""
        # The own answer returns only after the records of its turn are durable, so every reservation that was requested
        # in that turn or earlier is durable as well.
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
        """Include this answer in the smoothed round trip of its sender (weight 1/8, as TCP does)."""
        if sender != self._state.me:
            taken = self._state.now - phase.started
            before = self._round_trip_ticks.get(sender, taken)
            self._round_trip_ticks[sender] = before + (taken - before) / 8

    def _step(self, id: InstanceId, phase: PreAccepting, *, late: bool) -> None:
        """Decide with `decide_pre_accept`, and do it: commit, start the slow path, ask more peers, or wait."""
        state = self._state
        responded = {*phase.answers, *phase.refused}
        decision = decide_pre_accept(
            phase.initial,
            phase.answers.values(),
            outstanding=sum(replica not in responded for replica in (*phase.asked, state.me)),
            not_sent_to=len(state.peers) - len(phase.asked),
            late=late,
            quorums=state.quorums,
        )
        match decision:
            case CommitFast():
                state.counters.fast += 1
                # Durable first: the votes of a fast quorum are all that shows this commit, and after a restart without
                # the record this leader would answer Prepare as "pre-accepted", which recovery turns into a nop.
                state.decide(id, phase.batch, phase.initial, durable_first=True)
                state.outbox.send(state.peers, Commit(id, phase.batch, phase.initial))
            case AcceptSlow(deps):
                state.counters.slow += 1
                self.start_accept(id, phase.ballot, phase.batch, deps)
            case SendToAllPeers():
                missing = tuple(peer for peer in state.peers if peer not in phase.asked)
                phase.asked = state.peers
                state.outbox.send(missing, PreAccept(id, phase.batch, phase.initial))
            case WaitForAnswers():
                pass
            case unreachable:
                assert_never(unreachable)

    def start_accept(self, id: InstanceId, ballot: Ballot, value: Value, deps: Deps) -> None:
        """Ask for votes for `value` in `ballot`, which this replica leads.

        A thrifty leader asks only a slow quorum in round 0. A recovery asks all peers: if it waited for a chosen peer
        that is slow, the next recovery would supersede its ballot.
        """
        state = self._state
        thrifty = state.config.thrifty and ballot == initial_ballot(id)
        asked = self._first_receivers(state.quorums.slow) if thrifty else state.peers
        deadline = self._fast_deadline() if thrifty else Tick(state.now + state.answer_ticks)
        state.begin_phase(id, Accepting(ballot, value, deps, asked, deadline))
        request = Accept(id, ballot, value, deps)
        # Round 0: `deps` include the vote of this leader, of which no record exists yet. The record of its acceptance,
        # written in this turn, is the first that holds the vote, so Accept leaves behind that record.
        # Higher ballots: `deps` come from answers that their senders have on disk, and the promise of this ballot was
        # durable before Prepare left. Accept reports no own state, so it may leave at once.
        # In both cases the own AcceptOk is sent to this replica behind the record, and counts only when it comes back.
        send = state.outbox.send if ballot == initial_ballot(id) else state.outbox.send_early
        send(asked, request)
        self._acceptor.on_accept(state.me, request)

    def on_accept_ok(self, sender: ReplicaId, message: AcceptOk) -> None:
        """Count a vote in the ballot of the phase; commit at `quorums.slow` votes."""
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
        """Take the next step after a refusal, which may have made the fast path impossible."""
        self._step(id, phase, late=False)

    def on_deadline(self, id: InstanceId, phase: PreAccepting | Accepting) -> None:
        """Ask more peers, change to the slow path, or repeat the request to peers that have not answered."""
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
