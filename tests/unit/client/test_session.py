"""The ids of a client's requests: ascending, never the same, and acknowledged no sooner than they are answered."""

from dataclasses import dataclass

import pytest

from pydsm.client.session import RENEWAL_MS, ClientSession
from pydsm.core.sessions.grants import Grant
from pydsm.core.types.ids import SEQUENCES, ReplicaId, RequestId, request_at, request_id, session_of, timestamp_of

GRANT = request_id(5000, ReplicaId(2), 77, 0)


@dataclass
class Call:
    left: int = 1
    first_id: RequestId | None = None

    def set_request_id(self, id: RequestId) -> None:
        self.first_id = id


class Clock:
    def __init__(self) -> None:
        self.ms = 0

    def __call__(self) -> int:
        return self.ms


def test_ids_follow_the_granted_one_and_are_first_attempts() -> None:
    session, grant = ClientSession(GRANT, Clock()), Grant(GRANT)
    first, second = session.assign(Call(), 3), session.assign(Call(), 2)
    assert first == request_at(GRANT, 1)
    assert second == request_at(GRANT, 4)
    assert grant.takes(first, 3)
    assert grant.takes(second, 2)


def test_a_call_receives_its_request_id() -> None:
    call = Call()
    assert ClientSession(GRANT, Clock()).assign(call, 1) == call.first_id


def test_all_requests_below_the_first_open_one_are_acknowledged() -> None:
    session = ClientSession(GRANT, Clock())
    calls = [Call() for _ in range(3)]
    for call in calls:
        session.assign(call, 10)
    assert session.acknowledged() == 1
    calls[1].left = 0
    assert session.acknowledged() == 1
    calls[0].left = 0
    assert session.acknowledged() == 21
    calls[2].left = 0
    assert session.acknowledged() == 31


def test_a_request_that_got_another_id_does_not_delay_acknowledgements() -> None:
    session = ClientSession(GRANT, Clock())
    call = Call()
    session.assign(call, 1)
    session.renewed().assign(call, 1)
    assert session.acknowledged() == 2


def test_another_session_of_the_same_grant_is_later_and_its_requests_are_first_attempts() -> None:
    clock = Clock()
    session, grant = ClientSession(GRANT, clock), Grant(GRANT)
    assert grant.takes(session.assign(Call(), 1), 1)
    names = [GRANT]
    for later_ms in (0, 0, 1234):
        clock.ms = later_ms
        session = session.renewed()
        names.append(session.assign(Call(), 1))
        assert grant.takes(names[-1], 1)
    assert [timestamp_of(session_of(name)) for name in names] == [5000, 5001, 5002, 5000 + 1234]


@pytest.mark.parametrize(
    ("elapsed_ms", "used", "over"), [(0, 0, False), (RENEWAL_MS, 0, True), (0, SEQUENCES - 9, True)]
)
def test_a_session_is_over_when_it_is_old_or_has_no_ids_left(elapsed_ms: int, used: int, over: bool) -> None:
    clock = Clock()
    session = ClientSession(GRANT, clock)
    clock.ms = elapsed_ms
    session.assign(Call(), used)
    assert session.is_over(10) is over
