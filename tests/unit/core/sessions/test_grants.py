"""Grants: which requests are surely sent for the first time."""

from pydsm.core.sessions.grants import Grant, Grants
from pydsm.core.types.ids import UNTRACKED_SESSIONS_START, ReplicaId, request_at, request_id
from tests.unit.core.sessions.test_sessions import BEGAN_MS, ONE, TWO, session


def test_a_grant_takes_each_request_for_the_first_time_only_once() -> None:
    grant = Grant(ONE)
    assert grant.takes(request_at(ONE, 1), 3)
    assert not grant.takes(request_at(ONE, 3), 2)
    assert grant.takes(request_at(ONE, 4), 1)
    assert not grant.takes(request_at(ONE, 4), 1)


def test_a_connection_may_continue_only_with_a_later_session_of_its_own() -> None:
    grant = Grant(ONE)
    assert not grant.takes(request_at(TWO, 1), 1)
    later = session(1, BEGAN_MS + 1)
    assert grant.takes(request_at(later, 1), 1)
    assert not grant.takes(request_at(ONE, 1), 1)
    assert not Grant(ONE).takes(request_at(session(1, BEGAN_MS - 1), 9), 1)


def test_no_two_grants_of_one_start_have_a_session_in_common() -> None:
    grants = Grants(ReplicaId(2), start=UNTRACKED_SESSIONS_START - 1)
    ids = [grants.grant(BEGAN_MS).id for _ in range(3)]
    assert ids == [request_id(BEGAN_MS, ReplicaId(2), number, 0) for number in (UNTRACKED_SESSIONS_START - 1, 0, 1)]
