"""Runs that must be executed after an earlier request of their session: left out without a trace until they may be."""

from collections.abc import Sequence

from pydsm.core.sessions.session_limits import SessionExpired, SessionLimits
from pydsm.core.sessions.session_window import POSTPONED, RequestExpired, StoredResult
from pydsm.core.sessions.sessions import Sessions
from pydsm.core.types.ids import ReplicaId, request_at, request_id, session_of
from pydsm.core.types.messages import Batch, Footprint, Run

SESSION = request_id(5000, ReplicaId(2), 77, 0)


class Machine:
    """Answers each command with itself, and records the commands."""

    def __init__(self) -> None:
        self.applied: list[bytes] = []

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[StoredResult]:
        self.applied += commands
        return list(commands)


def run(first: int, count: int = 1, *, after: int = 0, acknowledged: int = 0) -> Run:
    return Run(request_at(SESSION, first), count, acknowledged, after)


def batch(*runs: Run, now_ms: int = 6000) -> Batch:
    commands = [id[-4:].hex().encode() for one in runs for id in (request_at(one.first, n) for n in range(one.count))]
    ordered = (session_of(SESSION),) if any(one.after for one in runs) else ()
    return Batch(runs, tuple(commands), Footprint(), now_ms, ordered)


def name(sequence: int) -> bytes:
    return sequence.to_bytes(4, "big").hex().encode()


def test_a_run_is_left_out_until_the_request_before_it_is_executed() -> None:
    sessions, machine = Sessions(), Machine()
    assert sessions.execute(batch(run(2, 2, after=1)), machine.apply) == [POSTPONED, POSTPONED]
    assert machine.applied == []
    sessions.execute(batch(run(1)), machine.apply)
    assert sessions.execute(batch(run(2, 2, after=1)), machine.apply) == [name(2), name(3)]
    assert machine.applied == [name(1), name(2), name(3)]


def test_of_a_run_that_is_left_out_nothing_is_recorded() -> None:
    sessions, untouched, machine = Sessions(), Sessions(), Machine()
    sessions.execute(batch(run(7, after=6, acknowledged=5), now_ms=9000), machine.apply)
    assert sessions.digest() == untouched.digest()
    for one in (sessions, untouched):
        one.execute(batch(run(1)), machine.apply)
    sessions.execute(batch(run(7, after=6, acknowledged=5), now_ms=9000), machine.apply)
    assert sessions.digest() == untouched.digest()


def test_a_run_does_not_wait_for_requests_that_its_client_has_given_up() -> None:
    sessions, machine = Sessions(), Machine()
    assert sessions.execute(batch(run(3, after=2, acknowledged=3)), machine.apply) == [name(3)]


def test_a_voided_request_is_never_executed_after_a_later_one() -> None:
    sessions, machine = Sessions(), Machine()
    sessions.execute(batch(run(3, after=2, acknowledged=3)), machine.apply)
    assert sessions.execute(batch(run(2)), machine.apply) == [RequestExpired()]
    assert machine.applied == [name(3)]


def test_a_run_may_follow_one_in_the_same_batch_and_is_left_out_together_with_it() -> None:
    sessions, machine = Sessions(), Machine()
    results = sessions.execute(batch(run(5, after=4), run(6, after=5)), machine.apply)
    assert results == [POSTPONED, POSTPONED]
    results = sessions.execute(batch(run(1), run(2, after=1), run(4, after=3)), machine.apply)
    assert results == [name(1), name(2), POSTPONED]


def test_a_retried_run_gets_its_first_results() -> None:
    sessions, machine = Sessions(), Machine()
    sessions.execute(batch(run(1)), machine.apply)
    first = sessions.execute(batch(run(2, 2, after=1)), machine.apply)
    assert sessions.execute(batch(run(2, 2, after=1)), machine.apply) == first
    assert len(machine.applied) == 3


def test_order_survives_a_snapshot() -> None:
    sessions, machine = Sessions(), Machine()
    sessions.execute(batch(run(1)), machine.apply)
    sessions.execute(batch(run(4, after=3, acknowledged=4)), machine.apply)
    copy = Sessions()
    copy.restore(sessions.snapshot())
    for one in (sessions, copy):
        assert one.execute(batch(run(3, after=2)), machine.apply) == [RequestExpired()]
        assert one.execute(batch(run(6, after=5)), machine.apply) == [POSTPONED]
        assert one.execute(batch(run(5, after=4)), machine.apply) == [name(5)]
    assert copy.digest() == sessions.digest()


def test_requests_of_an_expired_session_are_answered_session_expired_with_any_predecessor() -> None:
    sessions, machine = Sessions(SessionLimits(idle_ms_max=10)), Machine()
    sessions.execute(batch(run(1)), machine.apply)
    sessions.expire([100_000])
    assert sessions.execute(batch(run(3, after=2)), machine.apply) == [SessionExpired()]


def test_a_request_is_settled_once_it_is_executed_or_never_will_be() -> None:
    sessions, machine = Sessions(), Machine()
    session = session_of(SESSION)
    assert not sessions.has_settled(session, 1)
    sessions.execute(batch(run(3, after=2, acknowledged=3)), machine.apply)
    assert [sessions.has_settled(session, number) for number in (1, 2, 3, 4)] == [True, True, True, False]
