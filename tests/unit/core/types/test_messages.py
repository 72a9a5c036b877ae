"""Batches as values: ids of the commands of a run, the public name of an instance; the groups of messages."""

from typing import get_args

from pydsm.core.types.ids import ReplicaId, request_id
from pydsm.core.types.messages import MEMBER_MESSAGES, Batch, Footprint, MemberMessage, Run


def test_runs_name_the_commands_in_their_order() -> None:
    one, other = (request_id(5, ReplicaId(1), session, 7) for session in (1, 2))
    batch = Batch((Run(other, 2), Run(one, 1)), (b"a", b"b", b"c"), Footprint())
    assert batch.request_ids == (other, request_id(5, ReplicaId(1), 2, 8), one)


def test_an_instance_is_called_after_its_first_request() -> None:
    first = request_id(5, ReplicaId(1), 1, 7)
    assert Batch((Run(first, 2),), (b"a", b"b"), Footprint()).name == first
    assert Batch((), (), Footprint()).name is None


def test_the_classes_of_member_messages_are_those_of_the_union() -> None:
    assert set(MEMBER_MESSAGES) == set(get_args(MemberMessage))
