"""What replicas say of themselves when they meet, and who is let in: the same rules on every transport.

Guards that only members of this group are listened to, each in the incarnation that the group knows. A peer in another
epoch is let in: its messages are how a replica learns that it has missed a change of members, so refusing it would
cut off the one that is behind (PROTOCOL 8). Its epoch is kept for whoever wants to know. Groups of different epochs
may differ in size; of one epoch, they may not.
"""

import logging
from collections.abc import Collection

from pydsm.core.faults import PeerFault
from pydsm.core.ids import Epoch, ReplicaId
from pydsm.core.starts import Remembered
from pydsm.transport.base import Admit, Self, Starts
from pydsm.transport.frames import PREAMBLE, Greeting, Hello, Refusal, Stamp, encode_greeting

log = logging.getLogger("pydsm.transport")

_REASON_CHARACTERS_MAX = 1000


class OlderStart(PeerFault):
    """A start of a peer that lacks something which is remembered of it."""

    def __init__(self, reason: str, remembered: Remembered) -> None:
        super().__init__(reason)
        self.remembered = remembered


class Doorkeeper:
    """Greets, and judges greetings.

    `peers` are the others; `admit` decides about incarnations, `starts` about starts.
    """

    def __init__(self, me: Self, peers: Collection[ReplicaId], admit: Admit, starts: Starts) -> None:
        self.epochs: dict[ReplicaId, Epoch] = {}
        """See `transport.base.Transport`."""
        self._me = me
        self._peers = frozenset(peers)
        self._admit = admit
        self._starts = starts

    def hello(self, to: ReplicaId | None = None) -> bytes:
        """The first thing to say on a connection; `to` is the peer that has greeted before, if one has."""
        me, start = self._me, self._starts.greeting(to)
        return PREAMBLE + encode_greeting(Hello(me.group, me.replica, me.replicas, me.incarnation, me.epoch, start))

    def stamp(self) -> Stamp:
        """What a frame of messages that leaves now begins with."""
        return Stamp(*self._starts.stamp)

    def heard(self, peer: ReplicaId, stamp: Stamp) -> None:
        """A frame of messages has come. Raises PeerFault when it is of a start that is not listened to any more."""
        reason = self._starts.hear(peer, stamp.start, stamp.position)
        if reason is not None:
            raise OlderStart(reason, self._starts.remembered(peer))

    def judge(self, greeting: Greeting) -> ReplicaId:
        """The peer that this greeting is from. Raises PeerFault with the reason when it may not talk to us."""
        if isinstance(greeting, Refusal):
            self.note_remembered(greeting.remembered)
            raise PeerFault(f"it refuses us: {greeting.reason}")
        me = self._me
        if greeting.group != me.group:
            raise PeerFault(f"it is of group {greeting.group!r}, we are of {me.group!r}: check --group on both")
        if greeting.epoch == me.epoch and greeting.replicas != me.replicas:
            raise PeerFault(f"it is of a group of {greeting.replicas}, ours has {me.replicas}: check --peers on both")
        peer = ReplicaId(greeting.replica)
        if peer not in self._peers:
            raise PeerFault(f"it calls itself replica {peer}, which is none of our peers: check --peers on both")
        reason = self._admit(peer, greeting.incarnation)
        if reason is not None:
            raise PeerFault(reason)
        reason = self._starts.why_not(peer, greeting.incarnation, greeting.start)
        if reason is not None:
            raise OlderStart(reason, self._starts.remembered(peer))
        self.note_remembered(greeting.start.remembered)
        self._note_epoch(peer, Epoch(greeting.epoch))
        return peer

    def note_remembered(self, remembered: Remembered | None) -> None:
        """A peer tells what it remembers of this replica. One of another group, or epoch, speaks of other instances."""
        if remembered is None:
            return
        if remembered.by in self._peers and len(remembered.executed) == self._me.replicas:
            self._starts.told(remembered)

    def _note_epoch(self, peer: ReplicaId, epoch: Epoch) -> None:
        if epoch not in (self._me.epoch, self.epochs.get(peer)):
            log.warning("replica %d is in epoch %d, we are in %d", peer, epoch, self._me.epoch)
        self.epochs[peer] = epoch


def refusal(fault: PeerFault) -> bytes:
    """The last thing to say on a connection, without the preamble."""
    remembered = fault.remembered if isinstance(fault, OlderStart) else None
    return encode_greeting(Refusal(str(fault)[:_REASON_CHARACTERS_MAX], remembered))
