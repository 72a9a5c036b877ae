"""Which lists of members are the same, and how they are shown."""

import pytest

from pydsm.core.types.ids import ReplicaId
from pydsm.transport.frames import HANDSHAKE_BYTES_MAX, encode_handshake
from pydsm.transport.handshake import HandshakeValidator
from pydsm.transport.members import Member, digest, name_of, shown, to_send, unnamed
from tests.unit.transport.groups import admit_all, who
from tests.unit.transport.starts import PlainStarts

OURS = [Member("r1", "10.0.0.1:7000"), Member("r2", "10.0.0.2:7000")]


def test_lists_that_differ_in_addresses_only_are_the_same() -> None:
    assert digest(OURS) == digest([Member("r1", "localhost:7000"), Member("r2")])


@pytest.mark.parametrize(
    "names", [("r2", "r1"), ("r1",), ("r1", "r2", "r3"), ("r1", "R2"), ("r1r2",), ("r1", "r2 "), ("", "r1r2"), ()]
)
def test_lists_that_differ_in_number_names_or_order_are_not(names: tuple[str, ...]) -> None:
    assert digest([Member(name) for name in names]) != digest(OURS)


def test_list_is_shown_on_one_line() -> None:
    assert shown(OURS, 2) == "r1=10.0.0.1:7000, r2=10.0.0.2:7000"
    assert shown([Member("a\nb")], 1) == "a\\x0ab"
    assert shown(OURS, 5) == "r1=10.0.0.1:7000, r2=10.0.0.2:7000, and 3 more"
    many = [Member(f"r{number}", "host.example:7000") for number in range(4000)]
    assert len(shown(many, 4000)) < 700
    assert shown(many, 4000).endswith("more")


def test_greeting_of_any_group_fits(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{number}" + "\U0001f600" * 500 for number in range(4000)]
    greeting = encode_handshake(
        HandshakeValidator(who(1, 4000, names=names), (), admit_all, PlainStarts(ReplicaId(1), 4000)).hello()
    )
    assert len(greeting) < HANDSHAKE_BYTES_MAX
    assert to_send([Member("\udcff")]) == (Member("\\udcff"),)


def test_member_without_a_name_is_called_by_its_number() -> None:
    assert unnamed(2) == (Member("replica 0"), Member("replica 1"))
    assert name_of(OURS, ReplicaId(1)) == "r2"
    assert name_of(OURS, ReplicaId(7)) == "replica 7"
    assert name_of([Member("\x1b[1m" + "x" * 100)], ReplicaId(0)) == "\\x1b[1m" + "x" * 54 + "..."
