"""Which incarnation of a peer is accepted, and when it is bound to the peer."""

import pytest

from pydsm.core.types import messages as m
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.runtime.peers import PeerIncarnations, takes_part

PEER = ReplicaId(2)
ID = InstanceId(PEER, 1)
BALLOT = Ballot(1, PEER)


def ignore(peer: ReplicaId, fingerprint: int) -> None:
    """Nothing is kept."""


def test_a_handshake_alone_binds_no_identity() -> None:
    book = PeerIncarnations({}, ignore)
    assert book.admit(PEER, 5) is None
    assert book.admit(PEER, 6) is None
    assert not book.has(PEER)


def test_a_peer_that_took_part_is_saved_once() -> None:
    remembered: list[tuple[int, int]] = []
    book = PeerIncarnations({}, lambda peer, fingerprint: remembered.append((peer, fingerprint)))
    book.took_part(PEER, 5)
    book.took_part(PEER, 5)
    assert remembered == [(2, 5)]
    assert book.has(PEER)
    assert book.admit(PEER, 5) is None
    assert book.admit(PEER, 6) is not None


def test_a_peer_that_lost_its_data_is_refused_by_name() -> None:
    book = PeerIncarnations({PEER: 5}, ignore, ("r1", "r2", "r3").__getitem__)
    reason = book.admit(PEER, 6)
    assert reason is not None
    assert reason.startswith("r3 came back without its data: the fingerprint of its data is 0000000000000006")
    assert book.admit(PEER, 5) is None


@pytest.mark.parametrize(
    ("message", "takes"),
    [
        (m.CommitQuery((ID,)), False),
        (m.FetchSnapshot(1, 0), False),
        (m.Frontier((0, 0, 0), (0, 0, 9)), False),
        (m.Frontier((0, 0, 1), (0, 0, 9)), True),
        (m.PreAcceptOk(ID, (0, 0, 0)), True),
        (m.AcceptOk(ID, BALLOT), True),
        (m.Prepare(ID, BALLOT), True),
        (m.Refuse(ID, BALLOT, BALLOT), True),
        (m.ValidateOk(ID, BALLOT, ()), True),
        (m.Commit(ID, m.NOP, (0, 0, 0)), True),
        (m.Compacted(1, (1, 1, 1)), True),
    ],
)
def test_message_on_which_a_receiver_relies_takes_part(message: m.Message, takes: bool) -> None:
    assert takes_part(message) is takes
