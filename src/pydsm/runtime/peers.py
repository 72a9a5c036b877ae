"""Which data each peer has taken part with. A peer that comes back without its data is another replica.

Its old promises and votes are gone, so taking it for the one that made them could break agreement (PROTOCOL 6). A
greeting alone binds nobody: whoever greets as a replica by mistake, or as a stranger, and then says nothing that this
replica relies on, does not keep the true one out. From the first message on which this replica may rely, the peer is
the one that sent it. That is given to the disk before anything that follows from the message is, and the disk writes in
order: no vote and no decision that relies on a peer is durable before it is durable which peer that was.
"""

from collections.abc import Callable, Mapping
from typing import assert_never

from pydsm.core.types import messages as m
from pydsm.core.types.ids import ReplicaId


def takes_part(message: m.Message) -> bool:
    """Whether the receiver relies on what the sender has stored, now that it has this message.

    Promises, votes, proposals, decisions and what has been executed count. Questions do not, nor does the report of a
    replica that has executed nothing: every replica sends it four times a second from its first start on.
    """
    match message:
        case m.CommitQuery() | m.FetchSnapshot():
            return False
        case m.Frontier():
            return any(message.executed)
        case (
            m.PreAccept()
            | m.PreAcceptOk()
            | m.Accept()
            | m.AcceptOk()
            | m.Commit()
            | m.Prepare()
            | m.PrepareOk()
            | m.Validate()
            | m.ValidateOk()
            | m.Waiting()
            | m.Refuse()
            | m.StateDigest()
            | m.Compacted()
            | m.SnapshotPiece()
        ):
            return True
        case unreachable:
            assert_never(unreachable)


class PeerIncarnations:
    """Decides by fingerprints of incarnations. `remember` makes the fingerprint of a peer that took part durable."""

    def __init__(
        self,
        met: Mapping[ReplicaId, int],
        remember: Callable[[ReplicaId, int], None],
        name_of: Callable[[ReplicaId], str] = "replica {}".format,
    ) -> None:
        self._met = dict(met)
        self._remember = remember
        self._name_of = name_of

    def admit(self, peer: ReplicaId, fingerprint: int) -> str | None:
        """See `transport.base.Admit`. Changes nothing."""
        met = self._met.get(peer)
        if met is None or met == fingerprint:
            return None
        name = self._name_of(peer)
        return (
            f"{name} came back without its data: the fingerprint of its data is {fingerprint:016x}, and this group "
            f"knows {met:016x} as {name}; start it with its old data directory, or the whole group anew"
        )

    def knows(self, peer: ReplicaId) -> bool:
        """Whether this peer has taken part."""
        return peer in self._met

    def took_part(self, peer: ReplicaId, fingerprint: int) -> None:
        """The core has accepted a message of this peer on which it may rely (`takes_part`)."""
        if peer not in self._met:
            self._met[peer] = fingerprint
            self._remember(peer, fingerprint)
