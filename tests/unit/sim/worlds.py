"""Helpers for tests of the simulator's parts: a context, batches, broken cores."""

from collections.abc import Iterable

from pydsm.core.log.conflicts import Relation
from pydsm.core.log.instance import Instance
from pydsm.core.protocol.acceptor import Acceptor
from pydsm.core.replica import Replica
from pydsm.core.types.config import Config
from pydsm.core.types.ids import InstanceId, ReplicaId, RequestId
from pydsm.core.types.messages import Batch, Footprint, Run
from pydsm.sim.base.context import Context
from pydsm.sim.base.settings import Settings


def settings(replicas: int = 3, **changes: object) -> Settings:
    values: dict[str, object] = {
        "seed": 1,
        "replicas": replicas,
        "steps_max": 10_000,
        "horizon_us": 100_000,
        "clock_rates": (1.0,) * replicas,
        "latencies_us": tuple(
            tuple(0 if one == other else 1000 for other in range(replicas)) for one in range(replicas)
        ),
        "spread": "steady",
    }
    return Settings(**{**values, **changes})  # type: ignore[arg-type]


def context(**changes: object) -> Context:
    return Context(settings(**changes))  # type: ignore[arg-type]


def run(world: Context, until_us: int = 1_000_000) -> None:
    while len(world.schedule) and world.schedule.next_at() <= until_us:
        world.schedule.step()


def i(leader: int, index: int) -> InstanceId:
    return InstanceId(ReplicaId(leader), index)


def batch(
    *, reads: Iterable[bytes] = (), writes: Iterable[bytes] = (), adds: Iterable[bytes] = (), barrier: bool = False
) -> Batch:
    updates = ((b"add", tuple(adds)),) if tuple(adds) else ()
    footprint = Footprint(reads=tuple(reads), writes=tuple(writes), updates=updates, barrier=barrier)
    return Batch((Run(RequestId(bytes(16)), 1),), (b"command",), footprint)


class ForgetsPromises(Acceptor):
    """Reintroduces a known bug: a promise is sent but not stored."""

    def on_prepare(self, sender: ReplicaId, message: object) -> None:
        persist = self._state.persist
        self._state.persist = _keep_nothing  # type: ignore[method-assign]
        super().on_prepare(sender, message)  # type: ignore[arg-type]
        self._state.persist = persist  # type: ignore[method-assign]


def _keep_nothing(instance: Instance) -> None:
    """Replaces `ReplicaState.persist`."""


def forgetful_replica(config: Config, relation: Relation) -> Replica:
    replica = Replica(config, relation)
    replica._acceptor.__class__ = ForgetsPromises
    return replica
