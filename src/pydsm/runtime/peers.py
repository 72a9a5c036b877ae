"""Records with which data (incarnation) each peer has taken part. A peer that returns without its data is refused.

Its old promises and votes are lost, so accepting it as the same replica could break agreement
(docs/reference/protocol.md#6-what-is-durable-when-and-what-may-be-removed). A handshake alone records nothing: a
process that connects under a replica's name by mistake, and sends nothing that this replica relies on, does not lock
out the real one. The first message that this replica may rely on fixes the incarnation of its sender. The incarnation
is passed to the disk before any effect of the message, and the disk writes in order: no vote or decision that relies on
a peer is durable before the peer's incarnation is.
"""

from collections.abc import Callable, Mapping
from typing import assert_never

from pydsm.core.types import messages as m
from pydsm.core.types.ids import ReplicaId


def takes_part(message: m.Message) -> bool:
    """Whether the receiver of this message relies on what its sender has stored.

    True for promises, votes, proposals, decisions and frontiers. False for requests, and for the frontier of a replica
    that has executed nothing: every replica sends it four times a second from its first start on.
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
    """Compares fingerprints of incarnations. `stored` are those on disk; `save` stores a new one."""

    def __init__(
        self,
        stored: Mapping[ReplicaId, int],
        save: Callable[[ReplicaId, int], None],
        name_of: Callable[[ReplicaId], str] = "replica {}".format,
    ) -> None:
        self._stored = dict(stored)
        self._save = save
        self._name_of = name_of

    def admit(self, peer: ReplicaId, fingerprint: int) -> str | None:
        """See `transport.base.Admit`. Does not change the recorded incarnations."""
        stored = self._stored.get(peer)
        if stored is None or stored == fingerprint:
            return None
        name = self._name_of(peer)
        return (
            f"{name} came back without its data: the fingerprint of its data is {fingerprint:016x}, and before it was "
            f"{stored:016x}; start it with its old data directory, or start a new group"
        )

    def has(self, peer: ReplicaId) -> bool:
        """Whether this peer has taken part."""
        return peer in self._stored

    def took_part(self, peer: ReplicaId, fingerprint: int) -> None:
        """Record that the core has accepted a message of this peer that it may rely on (`takes_part`)."""
        if peer not in self._stored:
            self._stored[peer] = fingerprint
            self._save(peer, fingerprint)
