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
from pydsm.transport.base import Admit, Self
from pydsm.transport.frames import PREAMBLE, Greeting, Hello, Refusal, encode_greeting

log = logging.getLogger("pydsm.transport")

_REASON_CHARACTERS_MAX = 1000


class Doorkeeper:
    """Greets, and judges greetings. `peers` are the others; `admit` decides about incarnations."""

    def __init__(self, me: Self, peers: Collection[ReplicaId], admit: Admit) -> None:
        self.epochs: dict[ReplicaId, Epoch] = {}
        """See `transport.base.Transport`."""
        self._me = me
        self._peers = frozenset(peers)
        self._admit = admit

    def hello(self) -> bytes:
        """The first thing to say on a connection."""
        me = self._me
        return PREAMBLE + encode_greeting(Hello(me.group, me.replica, me.replicas, me.incarnation, me.epoch))

    def judge(self, greeting: Greeting) -> ReplicaId:
        """The peer that this greeting is from. Raises PeerFault with the reason when it may not talk to us."""
        if isinstance(greeting, Refusal):
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
        self._note_epoch(peer, Epoch(greeting.epoch))
        return peer

    def _note_epoch(self, peer: ReplicaId, epoch: Epoch) -> None:
        if epoch not in (self._me.epoch, self.epochs.get(peer)):
            log.warning("replica %d is in epoch %d, we are in %d", peer, epoch, self._me.epoch)
        self.epochs[peer] = epoch


def refusal(fault: PeerFault) -> bytes:
    """The last thing to say on a connection, without the preamble."""
    return encode_greeting(Refusal(str(fault)[:_REASON_CHARACTERS_MAX]))
