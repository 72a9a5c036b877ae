"""Repeated questions: so many to one peer at a time, and the others in the order in which they fell due."""

import pytest

from pydsm.core.protocol.outbox import Outbox
from pydsm.core.protocol.phases import Phase, Preparing
from pydsm.core.protocol.repeats import Repeats
from pydsm.core.types.effects import Send
from pydsm.core.types.ids import InstanceId, ReplicaId, Tick
from pydsm.core.types.messages import Frontier, PreAccept, PreAcceptOk, Prepare, Refuse
from tests.unit.core.helpers import P0, P1, P2, Driven, at, ballot, prepare_ok, writing

BALLOT = ballot(1, 0)


class Asking:
    """The repeats of replica 0 of three, which prepares some instances of replica 1."""

    def __init__(self, repeats_max: int) -> None:
        self.leading: dict[InstanceId, Phase] = {}
        self.outbox = Outbox()
        self.repeats = Repeats((P1, P2), repeats_max, self.outbox, self.leading)

    def repeat(self, index: int, *peers: ReplicaId, now: int = 10) -> Preparing:
        """Repeat the Prepare of 1.`index`, whose phase is begun if it is the first time."""
        phase = self.leading.setdefault(at(1, index), Preparing(BALLOT, Tick(0)))
        assert isinstance(phase, Preparing)
        self.repeats.send(peers, phase, Prepare(at(1, index), BALLOT), Tick(now))
        return phase

    def answer(self, index: int, peer: ReplicaId) -> None:
        """This peer answers about 1.`index`."""
        phase = self.leading[at(1, index)]
        assert isinstance(phase, Preparing)
        phase.answers[peer] = prepare_ok(at(1, index), BALLOT)

    def take(self) -> list[tuple[int, tuple[ReplicaId, ...]]]:
        """Index and receivers of the requests sent since the last call, including those that had waited."""
        self.repeats.flush(Tick(20))
        sent = self.outbox.take().sends
        return [(one.message.id.index, one.to) for one in sent if isinstance(one.message, Prepare)]


def test_below_the_limit_a_request_is_sent_to_all_peers_as_one_message() -> None:
    asking = Asking(repeats_max=1)
    asking.repeat(1, P1, P2)
    assert asking.outbox.take().sends == [Send((P1, P2), Prepare(at(1, 1), BALLOT))]


def test_a_peer_is_sent_no_more_than_it_may_leave_unanswered() -> None:
    asking = Asking(repeats_max=2)
    for _ in range(10):
        for index in (1, 2, 3):
            asking.repeat(index, P1)
    assert asking.take() == [(1, (P1,)), (2, (P1,))]


def test_a_peer_that_is_silent_keeps_nothing_from_another() -> None:
    asking = Asking(repeats_max=1)
    asking.repeat(1, P1)
    asking.repeat(2, P1, P2)
    assert asking.take() == [(1, (P1,)), (2, (P2,))]


def test_an_answer_releases_the_request_that_has_waited_longest() -> None:
    asking = Asking(repeats_max=1)
    for index in (1, 2, 3):
        asking.repeat(index, P1)
    asking.repeat(2, P1)
    asking.take()
    asking.answer(1, P1)
    assert asking.take() == [(2, (P1,))]
    asking.answer(2, P1)
    assert asking.take() == [(3, (P1,))]


def test_a_refusal_is_an_answer() -> None:
    asking = Asking(repeats_max=1)
    asking.repeat(1, P1).refused[P1] = ballot(2, 2)
    asking.repeat(2, P1)
    assert asking.take() == [(1, (P1,)), (2, (P1,))]


def test_the_answer_of_another_peer_releases_nothing() -> None:
    asking = Asking(repeats_max=1)
    asking.repeat(1, P1, P2)
    asking.repeat(2, P1)
    asking.answer(1, P2)
    assert asking.take() == [(1, (P1, P2))]


def test_later_requests_do_not_overtake_waiting_ones() -> None:
    asking = Asking(repeats_max=1)
    for index in (1, 2):
        asking.repeat(index, P1)
    asking.answer(1, P1)
    asking.repeat(3, P1)
    assert asking.take() == [(1, (P1,)), (2, (P1,))]


@pytest.mark.parametrize(("echo", "has_room"), [(9, False), (10, True), (11, True), (31, True)])
def test_echoed_later_gossip_releases_waiting_requests(echo: int, has_room: bool) -> None:
    """On a fast link, the echo is ahead of the own clock if the peer's clock runs faster."""
    asking = Asking(repeats_max=1)
    for index in (1, 2):
        asking.repeat(index, P1, now=10)
    asking.take()
    asking.repeats.echoed(P1, echo)
    assert asking.take() == ([(2, (P1,))] if has_room else [])


def test_an_echo_does_not_count_for_other_peers() -> None:
    asking = Asking(repeats_max=1)
    for index in (1, 2):
        asking.repeat(index, P1)
    asking.take()
    asking.repeats.echoed(P2, 15)
    assert asking.take() == []


def test_a_request_that_is_decided_or_answered_while_it_waits_is_not_sent() -> None:
    asking = Asking(repeats_max=1)
    for index in (1, 2, 3, 4):
        asking.repeat(index, P1)
    asking.take()
    del asking.leading[at(1, 2)]
    asking.answer(3, P1)
    asking.answer(1, P1)
    assert asking.take() == [(4, (P1,))]


def test_the_next_phase_of_an_instance_takes_the_place_of_the_one_before() -> None:
    asking = Asking(repeats_max=1)
    for index in (1, 2, 3):
        asking.repeat(index, P1)
    asking.take()
    later = asking.leading[at(1, 2)] = Preparing(ballot(2, 0), Tick(0))
    asking.repeats.send((P1,), later, Prepare(at(1, 2), ballot(2, 0)), Tick(11))
    asking.repeats.echoed(P1, 15)
    asking.repeats.flush(Tick(30))
    assert asking.outbox.take().sends == [Send((P1,), Prepare(at(1, 2), ballot(2, 0)))]


def test_ended_phases_are_removed_for_a_peer_that_never_answers() -> None:
    asking = Asking(repeats_max=1)
    for index in range(1, 1000):
        asking.repeat(index, P1)
        asking.leading.pop(at(1, index - 5), None)
    assert len(asking.repeats.waiting[P1]) <= len(asking.leading) + 1


# Repeats in a replica

A, B, C = (writing(key) for key in "abc")


def prepares(driven: Driven, until: int) -> list[InstanceId]:
    driven.run(until)
    return [prepare.id for to, prepare in driven.take_only(Prepare) if to == P0]


def asked_by(driven: Driven, until: int) -> list[tuple[ReplicaId, InstanceId]]:
    driven.run(until)
    return [(to, request.id) for to, request in driven.take_only(PreAccept)]


def gossip(driven: Driven, echo: int) -> Frontier:
    echoes = tuple(echo if member == driven.me else 0 for member in range(driven.n))
    return Frontier((0,) * driven.n, (0,) * driven.n, echoes=echoes)


def test_a_leader_without_answers_stops_repeating_until_its_gossip_is_echoed() -> None:
    leader = Driven(0, 3, repeats_max=2, backoff_ticks_max=200)
    first, second = leader.propose(A), leader.propose(B)
    leader.take()
    assert asked_by(leader, 60_000) == [(P1, first), (P2, first), (P1, second), (P2, second)]
    leader.receive(1, gossip(leader, leader.now))
    assert asked_by(leader, leader.now + 10) == [(P1, first), (P1, second)]


def test_after_a_loss_a_leader_that_receives_answers_repeats_everything() -> None:
    leader = Driven(0, 3, repeats_max=1)
    ids = [leader.propose(batch) for batch in (A, B, C)]
    leader.take()
    leader.run(30)
    asked = []
    for _ in ids:
        (request,) = [one for to, one in leader.take_only(PreAccept) if to == P1]
        asked.append(request.id)
        leader.receive(1, PreAcceptOk(request.id, request.deps))
        leader.tick(leader.now + 1)
    assert asked == ids


def test_unanswered_recoveries_send_once_and_repeat_up_to_the_limit() -> None:
    driven = Driven(2, 3, repeats_max=2, recovery_timeout_ticks=100, backoff_ticks_max=50)
    driven.receive(1, Frontier((0, 0, 0), (0, 4, 0)))
    begun = prepares(driven, 60_000)
    assert set(begun) == {at(1, 1), at(1, 2), at(1, 3), at(1, 4)}
    assert len(begun) == 4 + 2
    driven.receive(0, gossip(driven, driven.now))
    assert len(prepares(driven, 120_000)) == 2


def test_a_further_recovery_of_an_instance_is_a_repetition() -> None:
    driven = Driven(2, 3, repeats_max=1, recovery_timeout_ticks=100, recovery_jitter_ticks=1, backoff_ticks_max=50)
    driven.receive(1, Frontier((0, 0, 0), (0, 1, 0)))
    while not (first := driven.take_only(Prepare)):
        driven.run(driven.now + 10)
    for peer in (0, 1):
        driven.receive(peer, Refuse(at(1, 1), first[0][1].ballot, ballot(4, 1)))
    driven.run(60_000)
    further = [prepare.ballot for to, prepare in driven.take_only(Prepare) if to == P0]
    assert further == [ballot(5, 2)]
