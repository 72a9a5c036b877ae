"""A replica that was down receives new instances before those that it missed: the cost must stay linear."""

from pydsm.core.log.conflicts import DeclaredKeys
from pydsm.core.protocol.timers import jitter
from pydsm.core.replica import Replica
from pydsm.core.types.config import Config
from pydsm.core.types.effects import Execute
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, RequestId
from pydsm.core.types.messages import Batch, Commit, Footprint, PreAccept, Run
from tests.unit.core.helpers import CountingKeys

REPLICAS = 3
ME, PEER = ReplicaId(0), ReplicaId(1)


def history(instances: int, keys: int, keys_each: int = 1) -> list[Commit]:
    """Commits of the two peers in the order in which they were made, each of a few keys."""
    index, commits = DeclaredKeys().index(REPLICAS), list[Commit]()
    for place in range(instances):
        id = InstanceId(ReplicaId(1 + place % 2), 1 + place // 2)
        touched = tuple({b"%d" % jitter(1, place, nth, below=keys): None for nth in range(keys_each)})
        batch = Batch((Run(RequestId(place.to_bytes(16, "big")), 1),), (b"x",), Footprint(writes=touched))
        deps: Deps = index.conflicts(batch)
        index.add(id, batch)
        commits.append(Commit(id, batch, deps))
    return commits


def comparisons_to_catch_up(instances: int) -> int:
    """Take the newer half in order, then the older half leader by leader, as answers to inquiries come."""
    commits, relation = history(instances, keys=50), CountingKeys()
    replica = Replica(Config(ME, REPLICAS), relation)
    newer, older = commits[instances // 2 :], sorted(commits[: instances // 2], key=lambda commit: commit.id)
    for commit in newer:
        replica.receive(PEER, commit)
    for commit in older:
        replica.receive(PEER, commit)
    assert replica.counters.executed == instances
    return relation.compared


def test_the_cost_of_catching_up_is_linear_in_the_missed_instances() -> None:
    few, many = comparisons_to_catch_up(300), comparisons_to_catch_up(3000)
    assert few < 300 * 20
    assert many < 3000 * 20


def test_all_that_waits_for_one_undecided_instance_costs_little_while_it_waits() -> None:
    (first, *later), relation = history(2000, keys=20, keys_each=4), CountingKeys()
    replica = Replica(Config(ME, REPLICAS), relation)
    assert isinstance(first.value, Batch)
    replica.receive(PEER, PreAccept(first.id, first.value, first.deps))
    for commit in later:
        replica.receive(PEER, commit)
    assert relation.compared < 2000 * 20
    replica.receive(PEER, first)
    assert replica.counters.executed == 2000


def test_missed_instances_are_executed_in_the_agreed_order_of_each_key() -> None:
    commits = history(60, keys=3)
    replica = Replica(Config(ME, REPLICAS))
    for commit in [*commits[30:], *sorted(commits[:30], key=lambda commit: commit.id)]:
        replica.receive(PEER, commit)
    executed = [one.batch for one in replica.take_effects().executions if isinstance(one, Execute)]
    for key in {batch.footprint.writes for batch in executed}:
        of_key = [batch.request_ids for batch in executed if batch.footprint.writes == key]
        assert of_key == sorted(of_key)
