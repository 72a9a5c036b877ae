"""Faults for hosts to which they cannot apply."""

from typing import cast

from pydsm.sim.base.plan import PutBack
from pydsm.sim.cluster.adversary import Adversary
from pydsm.sim.cluster.faults import Faults
from pydsm.sim.cluster.host import Host
from pydsm.sim.devices.disk import DiskCopy, SimulatedDisk
from pydsm.sim.devices.network import SimulatedNetwork
from tests.unit.sim.worlds import context, run


class RecordingHost:
    """A host that counts how often its disk was replaced by an older copy."""

    def __init__(self, *, dead: bool) -> None:
        self.dead = dead
        self.put_backs = 0

    def put_back(self, copy: DiskCopy, down_us: int) -> None:
        self.put_backs += 1


def put_backs(*, dead: bool) -> int:
    """How often the disk of a host is replaced by an older copy."""
    world, host = context(), RecordingHost(dead=dead)
    network = SimulatedNetwork(world, lambda *given: None, lambda: None)
    adversary = Adversary(world, network, lambda lasting_us: None)
    faults = Faults(world, [cast(Host, host)], [SimulatedDisk(world, 0, lambda records: None)], network, adversary)
    faults.strike(PutBack(0, 0, 50_000, 10_000))
    run(world)
    return host.put_backs


def test_the_disk_of_a_replica_is_put_back_unless_it_is_dead_for_ever() -> None:
    assert put_backs(dead=False) == 1
    assert put_backs(dead=True) == 0
