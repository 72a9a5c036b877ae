"""Counters are plain numbers, and branches are counted by name."""

from pydsm.core.types.counters import ProtocolCounters
from pydsm.core.types.messages import NOP, Commit, PreAcceptOk
from tests.unit.core.helpers import Driven, at, writing


def test_branches_are_counted_by_name() -> None:
    counters = ProtocolCounters()
    for name in ("one", "two", "one"):
        counters.count_branch(name)
    assert counters.branches == {"one": 2, "two": 1}


def test_two_replicas_do_not_share_their_branches() -> None:
    ProtocolCounters().count_branch("one")
    assert ProtocolCounters().branches == {}


def test_proposals_commits_and_executions_of_a_replica_are_counted() -> None:
    leader = Driven(0, 3)
    fast, aborted = leader.propose(writing("a")), leader.propose(writing("b"))
    leader.receive(1, PreAcceptOk(fast, (0, 0, 0)))
    leader.receive(1, Commit(aborted, NOP, (0, 0, 0)), Commit(at(1, 1), writing("c"), (0, 0, 0)))
    counters = leader.replica.counters
    assert (counters.proposed, counters.fast, counters.slow) == (2, 1, 0)
    assert (counters.executed, counters.nops, counters.aborted) == (2, 1, 1)
