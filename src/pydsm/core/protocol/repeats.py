"""How many repeated questions may be on their way to one peer, and which are sent next.

Guards that repetition cannot keep a link full. A question is repeated because its answer is late, and where it is late
because the link is slow, each repetition makes the next answer later: both mostly carry the batch. So a peer is sent
`repeats_max` of them, and the next ones when it has answered one, or when what was sent later has come back: a Frontier
that it echoes has passed the same queues behind them (see `distances`), so they were handled, or are lost. A peer that
is dead or cut off is sent no more than these.

What has to wait is sent in the order in which it fell due, each question once however often it falls due meanwhile.
"""

from pydsm.core.protocol.outbox import Outbox
from pydsm.core.protocol.phases import Phase
from pydsm.core.types.ids import InstanceId, ReplicaId, Tick
from pydsm.core.types.messages import Accept, PreAccept, Prepare, Validate

Question = PreAccept | Accept | Prepare | Validate


class Repeats:
    """The repeated questions of one replica, which drives the phases in `leading`."""

    def __init__(
        self, peers: tuple[ReplicaId, ...], repeats_max: int, outbox: Outbox, leading: dict[InstanceId, Phase]
    ) -> None:
        self._repeats_max = repeats_max
        self._outbox = outbox
        self._leading = leading
        self._unanswered: dict[ReplicaId, list[tuple[Tick, Phase]]] = {peer: [] for peer in peers}
        """What each peer was sent, and when. What became of it is looked at only when the room is used up."""
        self.waiting: dict[ReplicaId, dict[InstanceId, tuple[Phase, Question]]] = {}
        """Peers without room, and what they are to be sent when there is some. Never empty for a peer."""

    def send(self, peers: tuple[ReplicaId, ...], phase: Phase, question: Question, now: Tick) -> None:
        """Repeat the question of a phase to these peers, at once or when there is room."""
        ready = []
        for peer in peers:
            if peer not in self.waiting and self._has_room(peer):
                self._unanswered[peer].append((now, phase))
                ready.append(peer)
            else:
                self._wait(peer, phase, question)
        self._outbox.send(tuple(ready), question)

    def flush(self, now: Tick) -> None:
        """Send what has waited to peers that have room again."""
        for peer, waiting in list(self.waiting.items()):
            while waiting and self._has_room(peer):
                id = next(iter(waiting))
                phase, question = waiting.pop(id)
                if self._leading.get(id) is phase and not phase.has_answer_of(peer):
                    self._unanswered[peer].append((now, phase))
                    self._outbox.send((peer,), question)
            if not waiting:
                del self.waiting[peer]

    def echoed(self, peer: ReplicaId, echo: int) -> None:
        """What was sent to this peer at the tick `echo` has come back: nothing from before is on its way any more.

        It may be ahead of this replica's clock: where the way is short and the peer's clock runs faster it always is.
        One of an earlier start may be far ahead, and makes room too early, but only once: each Frontier is echoed once.
        """
        unanswered = self._unanswered[peer]
        if unanswered:
            unanswered[:] = [one for one in unanswered if one[0] > echo]

    def _has_room(self, peer: ReplicaId) -> bool:
        unanswered = self._unanswered[peer]
        if len(unanswered) < self._repeats_max:
            return True
        unanswered[:] = [one for one in unanswered if not one[1].has_answer_of(peer)]
        return len(unanswered) < self._repeats_max

    def _wait(self, peer: ReplicaId, phase: Phase, question: Question) -> None:
        waiting = self.waiting.setdefault(peer, {})
        waiting[question.id] = (phase, question)
        if len(waiting) > len(self._leading):  # some are over: a peer that is dead must not make this grow for ever
            self.waiting[peer] = {id: one for id, one in waiting.items() if self._leading.get(id) is one[0]}
