"""Each invariant, violated by hand."""

from collections.abc import Callable

import pytest

from pydsm.core.log.conflicts import DeclaredKeys
from pydsm.core.types import messages as m
from pydsm.core.types.ballots import Ballot
from pydsm.core.types.effects import Abort, Execute, InstanceRecord, ReservationRecord
from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.core.types.status import Status
from pydsm.sim.base.violation import Violation
from pydsm.sim.checkers.invariants import Invariants
from pydsm.sim.devices.disk import SimulatedDisk
from tests.unit.sim.worlds import batch, context, i

X = i(0, 1)
NOTHING = (0, 0, 0)
WRITE, OTHER = batch(writes=[b"x"]), batch(writes=[b"y"])
ZERO, ONE, TWO = Ballot(0, ReplicaId(0)), Ballot(1, ReplicaId(1)), Ballot(2, ReplicaId(2))


class Group:
    """Three disks without sync time, and the checker."""

    def __init__(self) -> None:
        world = context(sync_us=0)
        self.disks = [SimulatedDisk(world, replica, self._reported(replica)) for replica in range(3)]
        self.invariants = Invariants(3, DeclaredKeys(), self.disks)
        self.invariants.proposed(X, WRITE)

    def _reported(self, replica: int) -> Callable[..., None]:
        return lambda records: self.invariants.written(replica, records)

    def keep(
        self,
        replica: int,
        status: Status,
        *,
        id: InstanceId = X,
        promised: Ballot = ZERO,
        voted: Ballot | None = None,
        value: m.Value = WRITE,
        deps: tuple[int, ...] = NOTHING,
    ) -> None:
        record = InstanceRecord(id, status, promised, voted, value, deps, WRITE, NOTHING)
        self.disks[replica].write([record], lambda: None)

    def agree(self, id: InstanceId = X, deps: tuple[int, ...] = NOTHING) -> None:
        """A fast quorum reports the same vector."""
        for replica in (0, 1):
            self.keep(replica, Status.PRE_ACCEPTED, id=id, deps=deps)
            self.invariants.sent(replica, m.PreAcceptOk(id, deps))

    def decide(self, id: InstanceId = X, deps: tuple[int, ...] = NOTHING) -> None:
        self.agree(id, deps)
        self.keep(0, Status.COMMITTED, id=id, deps=deps)

    def ask(self, ballot: Ballot) -> None:
        """Sends an Accept; in ballot 0, its leader has a durable vote before it."""
        if ballot == ZERO:
            self.keep(0, Status.ACCEPTED, voted=ZERO)
        self.invariants.sent(ballot.replica, m.Accept(X, ballot, WRITE, NOTHING))

    def vote(self, replica: int) -> None:
        self.keep(replica, Status.ACCEPTED, voted=ZERO)
        self.invariants.sent(replica, m.AcceptOk(X, ZERO))


@pytest.fixture
def group() -> Group:
    return Group()


def prepare_ok(ballot: Ballot, voted: Ballot | None = None, status: Status = Status.PRE_ACCEPTED) -> m.PrepareOk:
    return m.PrepareOk(X, ballot, status, voted, WRITE, NOTHING, WRITE, NOTHING)


def test_an_instance_decided_twice_is_found(group: Group) -> None:
    group.decide()
    with pytest.raises(Violation, match="agreement"):
        group.keep(1, Status.COMMITTED, deps=(0, 1, 0))
    with pytest.raises(Violation, match="agreement"):
        group.keep(1, Status.COMMITTED, value=m.NOP)


def test_a_value_that_was_never_proposed_is_found(group: Group) -> None:
    group.agree()
    with pytest.raises(Violation, match="never submitted"):
        group.keep(0, Status.COMMITTED, value=OTHER)


def test_two_values_in_one_ballot_are_found(group: Group) -> None:
    group.invariants.sent(1, m.Accept(X, ONE, WRITE, NOTHING))
    with pytest.raises(Violation, match="agreement"):
        group.invariants.sent(1, m.Accept(X, ONE, m.NOP, NOTHING))


def test_a_ballot_of_another_replica_is_found(group: Group) -> None:
    with pytest.raises(Violation, match="ballot"):
        group.invariants.sent(0, m.Accept(X, ONE, WRITE, NOTHING))


def test_a_commit_that_a_crash_could_lose_is_found(group: Group) -> None:
    group.ask(ZERO)
    group.vote(0)
    group.vote(1)
    group.keep(1, Status.PRE_ACCEPTED)
    with pytest.raises(Violation, match="only 1 disks"):
        group.invariants.sent(0, m.Commit(X, WRITE, NOTHING))


def test_a_commit_with_a_quorum_of_durable_votes_is_fine(group: Group) -> None:
    group.ask(ZERO)
    group.vote(0)
    group.vote(1)
    group.invariants.sent(0, m.Commit(X, WRITE, NOTHING))
    assert X in group.invariants.decided


def test_a_leader_that_asks_for_votes_without_having_accepted_is_found(group: Group) -> None:
    group.keep(0, Status.PRE_ACCEPTED)
    with pytest.raises(Violation, match="durable"):
        group.invariants.sent(0, m.Accept(X, ZERO, WRITE, NOTHING))


def test_the_own_vote_of_a_leader_needs_no_record(group: Group) -> None:
    group.invariants.sent(0, m.PreAcceptOk(X, NOTHING))
    with pytest.raises(Violation, match="its disk has no record of it"):
        group.invariants.sent(1, m.PreAcceptOk(X, NOTHING))


def test_a_decision_without_a_quorum_is_found(group: Group) -> None:
    with pytest.raises(Violation, match="quorum"):
        group.keep(0, Status.COMMITTED)


def test_a_decision_with_votes_of_two_ballots_is_found(group: Group) -> None:
    group.ask(ZERO)
    group.vote(0)
    group.invariants.sent(1, m.Accept(X, ONE, m.NOP, NOTHING))
    group.keep(1, Status.ACCEPTED, promised=ONE, voted=ONE, value=m.NOP)
    group.invariants.sent(1, m.AcceptOk(X, ONE))
    with pytest.raises(Violation, match="quorum"):
        group.invariants.sent(1, m.Commit(X, m.NOP, NOTHING))


def test_a_vote_for_another_value_than_the_proposed_one_is_found(group: Group) -> None:
    group.ask(ZERO)
    with pytest.raises(Violation, match="another value"):
        group.keep(1, Status.ACCEPTED, voted=ZERO, value=m.NOP)


def test_a_vote_that_no_replica_requested_is_found(group: Group) -> None:
    with pytest.raises(Violation, match="no replica asked"):
        group.keep(1, Status.ACCEPTED, voted=ONE, promised=ONE)
    with pytest.raises(Violation, match="in no ballot"):
        group.keep(1, Status.ACCEPTED)


def test_a_pre_accept_before_its_reservation_is_found(group: Group) -> None:
    with pytest.raises(Violation, match="reserved"):
        group.invariants.sent(0, m.PreAccept(X, WRITE, NOTHING))
    group.disks[0].write([ReservationRecord(1)], lambda: None)
    group.invariants.sent(0, m.PreAccept(X, WRITE, NOTHING))


def test_an_index_that_is_proposed_twice_is_found(group: Group) -> None:
    group.disks[0].write([ReservationRecord(1)], lambda: None)
    group.invariants.sent(0, m.PreAccept(X, WRITE, NOTHING))
    with pytest.raises(Violation, match="index used twice"):
        group.invariants.proposed(X, OTHER)


def test_an_index_that_no_message_has_used_may_be_used_again(group: Group) -> None:
    group.invariants.proposed(X, OTHER)


@pytest.mark.parametrize(
    "message",
    [
        m.PreAcceptOk(X, NOTHING),
        m.AcceptOk(X, ZERO),
        prepare_ok(ONE),
        m.ValidateOk(X, ONE, ()),
    ],
)
def test_an_answer_without_a_durable_record_is_found(group: Group, message: m.Message) -> None:
    with pytest.raises(Violation, match="its disk has no record of it"):
        group.invariants.sent(1, message)


@pytest.mark.parametrize(
    "message",
    [
        m.PreAcceptOk(X, (0, 5, 0)),
        m.AcceptOk(X, ZERO),
        prepare_ok(ONE),
        m.ValidateOk(X, ONE, ()),
    ],
)
def test_an_answer_that_reports_more_than_its_record_is_found(group: Group, message: m.Message) -> None:
    group.keep(1, Status.PRE_ACCEPTED)
    with pytest.raises(Violation, match="durable"):
        group.invariants.sent(1, message)


def test_a_lost_promise_is_found(group: Group) -> None:
    group.ask(TWO)
    group.keep(1, Status.ACCEPTED, promised=TWO, voted=TWO)
    group.invariants.sent(1, prepare_ok(TWO, TWO, Status.ACCEPTED))
    for message in (prepare_ok(ONE, TWO, Status.ACCEPTED), m.AcceptOk(X, ONE), m.PreAcceptOk(X, NOTHING)):
        with pytest.raises(Violation, match="promise"):
            group.invariants.sent(1, message)


def test_a_lost_vote_is_found(group: Group) -> None:
    group.ask(ONE)
    group.keep(1, Status.ACCEPTED, promised=ONE, voted=ONE)
    group.invariants.sent(1, m.AcceptOk(X, ONE))
    group.keep(1, Status.ACCEPTED, promised=TWO, voted=ONE)
    with pytest.raises(Violation, match="vote"):
        group.invariants.sent(1, prepare_ok(TWO, None, Status.PRE_ACCEPTED))


def test_executing_an_instance_twice_in_one_process_is_found(group: Group) -> None:
    group.decide()
    process = group.invariants.begin_process("r0")
    group.invariants.executed(0, process, Execute(X, WRITE), [1], WRITE.commands)
    with pytest.raises(Violation, match="executed twice"):
        group.invariants.executed(0, process, Execute(X, WRITE), [1], WRITE.commands)
    group.invariants.executed(0, group.invariants.begin_process("r0#2"), Execute(X, WRITE), [1], WRITE.commands)


def executed_again(group: Group, result: object, applied: tuple[bytes, ...]) -> None:
    """Executes a request of one instance in a second one."""
    group.decide()
    again = i(0, 2)
    group.invariants.proposed(again, WRITE)
    group.decide(again, (1, 0, 0))
    process = group.invariants.begin_process("r0")
    group.invariants.executed(0, process, Execute(X, WRITE), [1], WRITE.commands)
    group.invariants.executed(0, process, Execute(again, WRITE), [result], applied)


def test_one_request_that_two_instances_execute_is_found(group: Group) -> None:
    with pytest.raises(Violation, match="executed twice"):
        executed_again(group, 1, WRITE.commands)


def test_a_different_answer_to_a_repeated_request_is_found(group: Group) -> None:
    with pytest.raises(Violation, match="first result"):
        executed_again(group, 2, ())


def test_a_repeated_request_with_its_first_result_is_accepted(group: Group) -> None:
    executed_again(group, 1, ())


def test_a_request_that_is_not_executed_is_found(group: Group) -> None:
    group.decide()
    with pytest.raises(Violation, match="executed twice"):
        group.invariants.executed(0, group.invariants.begin_process("r0"), Execute(X, WRITE), [1], ())


def test_different_results_at_another_replica_are_found(group: Group) -> None:
    group.decide()
    group.invariants.executed(0, group.invariants.begin_process("r0"), Execute(X, WRITE), [1], WRITE.commands)
    with pytest.raises(Violation, match="results"):
        group.invariants.executed(1, group.invariants.begin_process("r1"), Execute(X, WRITE), [2], WRITE.commands)


def test_executing_an_instance_without_a_durable_vote_is_found(group: Group) -> None:
    with pytest.raises(Violation, match="durable"):
        group.invariants.executed(0, group.invariants.begin_process("r0"), Execute(X, WRITE), [1], WRITE.commands)


def test_an_abort_of_an_instance_decided_as_a_batch_is_found_in_both_orders(group: Group) -> None:
    group.decide()
    with pytest.raises(Violation, match="abort"):
        group.invariants.aborted(0, Abort(X, ()))
    other = Group()
    other.invariants.aborted(0, Abort(X, ()))
    with pytest.raises(Violation, match="abort"):
        other.decide()


def test_a_decided_command_that_a_replica_never_executed_is_lost(group: Group) -> None:
    group.decide()
    with pytest.raises(Violation, match="lost"):
        group.invariants.settled(1, group.invariants.begin_process("r1"))


# Ballots and starts, and what is forgotten


def test_two_starts_of_a_replica_may_not_use_one_ballot() -> None:
    group = Group()
    group.invariants.begin_process("r1", 1)
    group.invariants.sent(1, m.Prepare(X, ONE))
    group.invariants.sent(1, m.Prepare(X, ONE))
    group.invariants.begin_process("r1#2", 1)
    with pytest.raises(Violation, match=r"r1 uses .* in its start 2 and in its start 1"):
        group.invariants.sent(1, m.Prepare(X, ONE))


def test_a_replica_asks_in_its_own_ballots_only() -> None:
    group = Group()
    with pytest.raises(Violation, match="of another"):
        group.invariants.sent(2, m.Prepare(X, ONE))


def test_dropping_an_instance_that_a_member_lacks_and_no_snapshot_has_is_found() -> None:
    group = Group()
    group.invariants.dropped(1, NOTHING)
    with pytest.raises(Violation, match="early drop"):
        group.invariants.dropped(1, (1, 0, 0))
