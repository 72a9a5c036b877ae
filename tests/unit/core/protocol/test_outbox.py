"""The outbox collects the effects of one turn by kind, in the order in which they were requested."""

from pydsm.core.protocol.outbox import Outbox
from pydsm.core.types.effects import Abort, Effects, Execute, ReservationRecord, Send
from pydsm.core.types.messages import CommitQuery, Waiting
from tests.unit.core.helpers import P1, P2, at, writing

FIRST, SECOND, THIRD = ReservationRecord(1), ReservationRecord(2), ReservationRecord(3)
QUESTION, ANSWER = CommitQuery((at(0, 1),)), Waiting(at(0, 1), 2)


def test_everything_is_handed_out_once() -> None:
    outbox = Outbox()
    outbox.send((P1,), ANSWER)
    assert outbox.take() == Effects(sends=[Send((P1,), ANSWER)])
    assert outbox.take() == Effects()


def test_each_kind_keeps_its_order() -> None:
    outbox = Outbox()
    executions = [Execute(at(0, index), writing("key")) for index in (1, 2)]
    aborts = [Abort(at(1, index), ()) for index in (1, 2)]
    outbox.send((P1,), ANSWER)
    outbox.send_early((P2,), QUESTION)
    outbox.persist(FIRST)
    outbox.execute(executions[0])
    outbox.abort(aborts[0])
    outbox.persist(SECOND)
    outbox.execute(executions[1])
    outbox.abort(aborts[1])
    outbox.send((P1, P2), QUESTION)
    assert outbox.take() == Effects(
        early=[Send((P2,), QUESTION)],
        records=[FIRST, SECOND],
        sends=[Send((P1,), ANSWER), Send((P1, P2), QUESTION)],
        executions=list(executions),
        aborts=aborts,
    )


def test_a_lazy_record_waits_for_company() -> None:
    outbox = Outbox()
    outbox.persist_lazily(FIRST)
    assert outbox.take() == Effects(lazy_records=[FIRST])


def test_a_lazy_record_behind_an_awaited_one_rides_along_in_order() -> None:
    outbox = Outbox()
    outbox.persist_lazily(FIRST)
    outbox.persist(SECOND)
    outbox.persist_lazily(THIRD)
    assert outbox.take() == Effects(lazy_records=[FIRST], records=[SECOND, THIRD])


def test_a_message_without_receivers_is_not_sent() -> None:
    outbox = Outbox()
    outbox.send((), ANSWER)
    outbox.send_early((), ANSWER)
    assert not outbox.take()
