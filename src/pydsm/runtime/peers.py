"""Which incarnation of each peer this replica has met. One that comes back without its data is another replica.

Its old promises and votes are gone, so taking it for the one that made them could break agreement (PROTOCOL 6).
"""

from collections.abc import Callable, Mapping

from pydsm.core.ids import ReplicaId


class PeerBook:
    """Decides by incarnation; `remember` makes a first meeting durable, soon after the peer is let in."""

    def __init__(self, met: Mapping[ReplicaId, int], remember: Callable[[ReplicaId, int], None]) -> None:
        self._met = dict(met)
        self._remember = remember

    def admit(self, peer: ReplicaId, incarnation: int) -> str | None:
        """See `transport.base.Admit`."""
        met = self._met.get(peer)
        if met is None:
            self._met[peer] = incarnation
            self._remember(peer, incarnation)
        elif met != incarnation:
            return (
                f"replica {peer} came back without its data: it is incarnation {incarnation:016x}, this group knows "
                f"{met:016x}; start it with its old data directory, or the whole group anew"
            )
        return None
