"""Whose state is the agreed one, and who must stop."""

import pytest

from pydsm.core.protocol.divergence import Divergence, DivergenceReport, chunks_in_part, fold
from pydsm.core.types.checkpoint import Checkpoint, Position
from pydsm.core.types.errors import Diverged
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import DIGEST_PARTS_MAX, StateDigest
from pydsm.core.types.quorums import quorums
from tests.unit.core.helpers import P0, P1, P2, Driven, at

GOOD, BAD, WORSE = (b"1", b"2", b"3"), (b"1", b"x", b"3"), (b"y", b"2", b"3")


def divergence(me: ReplicaId = P0, n: int = 3) -> Divergence:
    return Divergence(me, quorums(n))


def told(one: Divergence, *states: tuple[bytes, ...], number: int = 1) -> list[DivergenceReport | None]:
    return [one.record(ReplicaId(member), StateDigest(number, parts)) for member, parts in enumerate(states)]


def test_equal_states_are_no_matter() -> None:
    assert told(divergence(), GOOD, GOOD, GOOD) == [None, None, None]


def test_a_state_that_differs_from_a_quorum_is_reported_with_its_first_part() -> None:
    assert told(divergence(P0), BAD, GOOD, GOOD) == [None, None, DivergenceReport(1, (P1, P2), 1)]


def test_those_of_the_quorum_go_on() -> None:
    for me in (P1, P2):
        assert told(divergence(me), BAD, GOOD, GOOD) == [None, None, None]


def test_one_different_state_stops_no_replica_while_a_member_has_not_reported() -> None:
    assert told(divergence(P0), BAD, GOOD) == [None, None]


def test_digests_of_others_are_compared_when_the_own_state_exists() -> None:
    one = divergence(P2)
    assert told(one, GOOD, GOOD) == [None, None]
    assert one.record(P2, StateDigest(1, WORSE)) == DivergenceReport(1, (P0, P1), 0)


def test_a_state_about_which_members_differ_is_not_to_be_taken_over_from_one_of_them() -> None:
    """It could complete a quorum for a wrong state."""
    one = divergence(P2)
    told(one, GOOD, BAD)
    assert one.disputes(StateDigest(1, GOOD))
    assert one.disputes(StateDigest(1, BAD))
    assert not one.disputes(StateDigest(2, BAD))


def test_the_state_of_a_quorum_or_of_all_reports_is_not_disputed() -> None:
    quorum = divergence(ReplicaId(3), n=5)
    told(quorum, GOOD, GOOD, BAD)
    quorum.record(ReplicaId(4), StateDigest(1, GOOD))
    assert not quorum.disputes(StateDigest(1, GOOD))
    assert quorum.disputes(StateDigest(1, BAD))
    alone = divergence(P2)
    told(alone, GOOD)
    assert not alone.disputes(StateDigest(1, GOOD))
    assert alone.disputes(StateDigest(1, BAD))


def test_every_replica_stops_when_no_quorum_can_have_equal_states() -> None:
    for me in (P0, P1, P2):
        (verdict,) = filter(None, told(divergence(me), GOOD, BAD, WORSE))
        assert verdict.agreeing == ()
    assert told(divergence(P0, 2), GOOD, BAD)[1] == DivergenceReport(1, (), 1)


def test_a_group_of_one_agrees_with_itself() -> None:
    assert told(divergence(P0, 1), GOOD) == [None]


def test_states_at_different_checkpoints_are_not_compared() -> None:
    one = divergence()
    assert told(one, GOOD, number=1) == [None]
    assert [one.record(member, StateDigest(2, BAD)) for member in (P1, P2)] == [None, None]


def test_a_repeated_report_of_a_state_replaces_the_one_before() -> None:
    one = divergence(P1)
    assert told(one, BAD, GOOD) == [None, None]
    assert [one.record(P0, StateDigest(1, GOOD)), one.record(P2, StateDigest(1, GOOD))] == [None, None]


def test_only_the_digests_of_the_last_checkpoints_are_kept() -> None:
    one = divergence()
    for number in range(1, 100):
        told(one, GOOD, GOOD, number=number)
    assert one.record(P1, StateDigest(3, BAD)) is None
    assert [len(states) for states in one._reported.values()] == [4, 4]


def test_digests_of_checkpoints_that_one_member_made_up_hide_nothing_of_the_others() -> None:
    one = divergence(P0)
    for number in range(10**9, 10**9 + 10):
        one.record(P2, StateDigest(number, GOOD))
    assert told(one, BAD, GOOD, GOOD) == [None, None, None]
    assert told(divergence(P0), BAD, GOOD, GOOD) == [None, None, DivergenceReport(1, (P1, P2), 1)]
    five = divergence(P0, n=5)
    for number in range(10**9, 10**9 + 10):
        five.record(ReplicaId(4), StateDigest(number, GOOD))
    assert told(five, BAD, GOOD, GOOD, GOOD)[3] == DivergenceReport(1, (P1, P2, ReplicaId(3)), 1)


def test_a_state_of_another_length_differs() -> None:
    assert told(divergence(), (b"1", b"2"), GOOD, GOOD)[2] == DivergenceReport(1, (P1, P2), 2)


@pytest.mark.parametrize("chunks", [0, 1, 1023, 1024, 1025, 5000])
def test_many_chunks_are_few_parts_and_each_counts(chunks: int) -> None:
    digests = [b"%d" % one for one in range(chunks)]
    parts = fold(digests)
    assert len(parts) <= DIGEST_PARTS_MAX
    assert len(parts) * chunks_in_part(chunks) >= chunks
    for place in range(0, chunks, 97):
        other = fold([*digests[:place], b"?", *digests[place + 1 :]])
        different = [part for part, (left, right) in enumerate(zip(parts, other, strict=True)) if left != right]
        assert different == [place // chunks_in_part(chunks)]


# At a replica

FIRST = Checkpoint(1, at(0, 1), Position((0, 0, 0), (at(0, 1),)), (1, 0, 0), 7)


def test_the_digest_of_a_snapshot_is_sent_and_repeated() -> None:
    driven = Driven(0, 3, digest_ticks=100)
    driven.replica.snapshot_durable(FIRST, [b"a", b"b"])
    sent = []
    for now in range(0, 301, 50):
        driven.tick(now)
        sent.append(len(driven.take_only(StateDigest)))
    assert sent == [2, 0, 2, 0, 2, 0, 2]


def test_a_replica_that_two_others_differ_from_stops() -> None:
    driven = Driven(0, 3)
    driven.replica.snapshot_durable(FIRST, [b"a", b"b"])
    driven.receive(1, StateDigest(1, fold([b"a", b"c"])))
    with pytest.raises(Diverged, match="checkpoint 1 is not that of replicas 1, 2: part 1") as stopped:
        driven.receive(2, StateDigest(1, fold([b"a", b"c"])))
    assert (stopped.value.number, stopped.value.part) == (1, 1)


def test_a_replica_also_stops_if_its_own_digest_comes_last() -> None:
    driven = Driven(0, 3)
    for peer in (1, 2):
        driven.receive(peer, StateDigest(1, fold([b"a", b"c"])))
    with pytest.raises(Diverged):
        driven.replica.snapshot_durable(FIRST, [b"a", b"b"])


def test_a_snapshot_whose_digests_are_not_known_is_not_compared() -> None:
    driven = Driven(0, 3)
    for peer in (1, 2):
        driven.receive(peer, StateDigest(1, fold([b"a"])))
    driven.replica.snapshot_durable(FIRST)
    driven.tick(10_000)
    assert driven.take_only(StateDigest) == []
