"""Limits how many repeated requests are under way to one peer, and decides which is sent next.

Guarantees that repetition cannot keep a link full. A request is repeated because its answer is late. If it is late
because the link is slow, each repetition delays the next answer further, because both usually contain the batch. So at
most `repeats_max` repeated requests to a peer are unanswered. The next one is sent when the peer has answered one of
them, or has echoed a Frontier that was sent after them (see `distances`): the Frontier has passed through the same
queues behind them, so they were processed or are lost. A failed or disconnected peer is sent no more than these.

Requests above the limit wait, and are sent in the order in which they became due, each of them once.
"""

from pydsm.core.protocol.outbox import Outbox
from pydsm.core.protocol.phases import Phase
from pydsm.core.types.ids import InstanceId, ReplicaId, Tick
from pydsm.core.types.messages import Accept, PreAccept, Prepare, Validate

Question = PreAccept | Accept | Prepare | Validate


class Repeats:
    """The repeated requests of one replica, which leads the phases in `leading`."""

    def __init__(
        self, peers: tuple[ReplicaId, ...], repeats_max: int, outbox: Outbox, leading: dict[InstanceId, Phase]
    ) -> None:
        self._repeats_max = repeats_max
        self._outbox = outbox
        self._leading = leading
        self._unanswered: dict[ReplicaId, list[tuple[Tick, Phase]]] = {peer: [] for peer in peers}
        """Per peer, the repeated requests that were sent, with the tick. Answered ones are removed when it is full."""
        self.waiting: dict[ReplicaId, dict[InstanceId, tuple[Phase, Question]]] = {}
        """Requests that wait, per peer that has reached the limit. Never empty for a peer."""

    def send(self, peers: tuple[ReplicaId, ...], phase: Phase, question: Question, now: Tick) -> None:
        """Repeat the request of a phase to these peers, now or when they are below the limit."""
        ready = []
        for peer in peers:
            if peer not in self.waiting and self._is_below_limit(peer):
                self._unanswered[peer].append((now, phase))
                ready.append(peer)
            else:
                self._wait(peer, phase, question)
        self._outbox.send(tuple(ready), question)

    def flush(self, now: Tick) -> None:
        """Send waiting requests to peers that are below the limit again."""
        for peer, waiting in list(self.waiting.items()):
            while waiting and self._is_below_limit(peer):
                id = next(iter(waiting))
                phase, question = waiting.pop(id)
                if self._leading.get(id) is phase and not phase.has_answer_of(peer):
                    self._unanswered[peer].append((now, phase))
                    self._outbox.send((peer,), question)
            if not waiting:
                del self.waiting[peer]

    def echoed(self, peer: ReplicaId, echo: int) -> None:
        """The peer has echoed a Frontier of tick `echo`: no repeated request from before is under way any more.

        `echo` may be ahead of this replica's clock, because it includes the peer's waiting time by the peer's clock. An
        echo for an earlier start may be far ahead and count too many as finished, but each Frontier is echoed once.
        """
        unanswered = self._unanswered[peer]
        if unanswered:
            unanswered[:] = [one for one in unanswered if one[0] > echo]

    def _is_below_limit(self, peer: ReplicaId) -> bool:
        unanswered = self._unanswered[peer]
        if len(unanswered) < self._repeats_max:
            return True
        unanswered[:] = [one for one in unanswered if not one[1].has_answer_of(peer)]
        return len(unanswered) < self._repeats_max

    def _wait(self, peer: ReplicaId, phase: Phase, question: Question) -> None:
        waiting = self.waiting.setdefault(peer, {})
        waiting[question.id] = (phase, question)
        if len(waiting) > len(self._leading):  # some have ended: the number must stay bounded for a failed peer
            self.waiting[peer] = {id: one for id, one in waiting.items() if self._leading.get(id) is one[0]}
