"""Which pending connection is closed for a new one."""

import pytest

from pydsm.core.types.ids import ReplicaId
from pydsm.transport.limits import TransportLimits
from pydsm.transport.pending import PendingConnections, comparable_host

LIMITS = TransportLimits(unauthenticated_connections_max=8, unauthenticated_per_address_max=3)


def test_address_that_has_its_share_loses_its_oldest() -> None:
    pending: PendingConnections[int] = PendingConnections(LIMITS)
    assert [pending.add(number, "10.0.0.1") for number in range(5)] == [None, None, None, 0, 1]
    assert pending.add(9, "10.0.0.2") is None
    assert pending.all() == [2, 3, 4, 9]


def test_above_the_limit_the_oldest_of_the_address_with_most_is_closed() -> None:
    pending: PendingConnections[int] = PendingConnections(LIMITS)
    assert [pending.add(number, f"10.0.0.{number % 4}") for number in range(8)] == [None] * 8
    pending.remove(5)
    assert pending.add(10, "10.0.0.2") is None
    assert pending.add(11, "10.9.9.9") == 2
    assert len(pending) == 8


def test_many_addresses_with_one_connection_each_lose_the_oldest() -> None:
    pending: PendingConnections[int] = PendingConnections(LIMITS)
    for number in range(100):
        closed = pending.add(number, f"10.0.{number}.1")
        assert closed == (None if number < 8 else number - 8)


def test_connections_from_other_addresses_do_not_use_the_limit_of_a_members_address() -> None:
    pending: PendingConnections[str] = PendingConnections(LIMITS)
    pending.member_is_at(ReplicaId(1), ["10.0.0.7"])
    assert pending.add("member", "::ffff:10.0.0.7") is None
    for number in range(1000):
        assert pending.add(f"stranger {number}", f"10.1.{number % 50}.1") != "member"
    assert "member" in pending.all()
    assert len(pending) == 9


def test_address_that_several_members_share_has_as_many_times_the_places() -> None:
    pending: PendingConnections[int] = PendingConnections(LIMITS)
    pending.member_is_at(ReplicaId(1), ["127.0.0.1"])
    pending.member_is_at(ReplicaId(2), ["127.0.0.1", "::1"])
    assert [pending.add(number, "127.0.0.1") for number in range(7)] == [None] * 6 + [0]
    pending.member_is_at(ReplicaId(2), ["10.0.0.2"])
    assert pending.add(7, "127.0.0.1") == 1


def test_an_address_from_which_a_member_connected_counts_as_its_own() -> None:
    pending: PendingConnections[int] = PendingConnections(LIMITS)
    pending.member_is_at(ReplicaId(1), ["10.0.0.2"])
    pending.note_member_host(ReplicaId(1), "10.0.0.3")
    pending.add(-1, "10.0.0.3")
    for number in range(100):
        assert pending.add(number, f"10.1.{number}.1") != -1
    assert [pending.add(number, "10.0.0.3") for number in (200, 201, 202)] == [None, None, -1]


def test_removing_twice_is_allowed() -> None:
    pending: PendingConnections[int] = PendingConnections(LIMITS)
    pending.add(1, "a")
    pending.remove(1)
    pending.remove(1)
    assert pending.all() == []


@pytest.mark.parametrize(
    ("host", "same"),
    [("::ffff:10.0.0.1", "10.0.0.1"), ("FE80::0001%eth0", "fe80::1"), ("10.0.0.1", "10.0.0.1"), ("", "")],
)
def test_a_host_has_one_canonical_form(host: str, same: str) -> None:
    assert comparable_host(host) == same
