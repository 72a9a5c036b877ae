"""Names of members in texts for people."""

import pytest

from pydsm.runtime.components import NodeComponents
from pydsm.storage.memory import MemoryStore
from pydsm.transport.base import Admit, StartExchange, Transport
from tests.unit.runtime.machines import Lists


def parts(*names: str) -> NodeComponents:
    def no_transport(incarnation: int, admit: Admit, starts: StartExchange) -> Transport:
        raise AssertionError("names need no transport")

    return NodeComponents(Lists(), MemoryStore(), no_transport, names=names)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("replica 1 sent a PreAccept for 1.7", "b sent a PreAccept for 1.7"),
        (
            "the state at checkpoint 2 is not that of replicas 0, 2: part 0",
            "the state at checkpoint 2 is not that of a, c: part 0",
        ),
        (
            "a message of replica 9, which is not in this group of 3",
            "a message of replica 9, which is not in this group of 3",
        ),
        ("this replica is far behind", "this replica is far behind"),
    ],
)
def test_numbers_of_members_become_their_names(text: str, named: str) -> None:
    assert parts("a", "b", "c").with_names(text) == named
    assert parts().with_names(text) == text
