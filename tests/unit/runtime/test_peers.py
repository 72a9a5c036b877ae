"""Which incarnations are admitted."""

from pydsm.core.ids import ReplicaId
from pydsm.runtime.peers import PeerBook

PEER = ReplicaId(2)


def test_first_meeting_is_remembered_once() -> None:
    remembered: list[tuple[int, int]] = []
    book = PeerBook({}, lambda peer, incarnation: remembered.append((peer, incarnation)))
    assert book.admit(PEER, 5) is None
    assert book.admit(PEER, 5) is None
    assert remembered == [(2, 5)]


def test_peer_that_lost_its_data_is_told_so() -> None:
    book = PeerBook({PEER: 5}, lambda peer, incarnation: None)
    reason = book.admit(PEER, 6)
    assert reason is not None
    assert "came back without its data" in reason
    assert book.admit(PEER, 5) is None
