"""The times of the calls of simulated clients in their history."""

from pydsm.sim.base.history import Call, Outcome
from pydsm.sim.cluster.world import World
from pydsm.sim.workload.planning import make_plan


def test_calls_of_one_client_do_not_overlap() -> None:
    world = World(make_plan(3, 3, steps=3000))
    assert world.run().finding is None
    last: dict[int, Call] = {}
    touching = 0
    end = max(call.ended or 0 for call in world.clients.history.calls)  # of those that were given up, and executed
    for call in world.clients.history.calls:
        before = last.get(call.client)
        if before is not None and before.ended not in (None, end) and before.outcome is Outcome.DONE:
            assert before.ended is not None
            assert before.ended < call.began
            touching += before.ended + 1 == call.began
        last[call.client] = call
    assert touching > 0
