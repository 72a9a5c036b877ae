"""Applies each fault of a plan to hosts, their disks and clocks, and the network."""

from collections.abc import Sequence

from pydsm.core.types.quorums import quorums
from pydsm.sim.base import plan as p
from pydsm.sim.base.context import Context
from pydsm.sim.base.triggers import MessageTrigger
from pydsm.sim.cluster.adversary import Adversary
from pydsm.sim.cluster.host import Host
from pydsm.sim.devices.disk import DiskCopy, SimulatedDisk
from pydsm.sim.devices.network import SimulatedNetwork


class Faults:
    """Applies the faults of one world."""

    def __init__(
        self,
        context: Context,
        hosts: Sequence[Host],
        disks: Sequence[SimulatedDisk],
        network: SimulatedNetwork,
        adversary: Adversary,
    ) -> None:
        self._context = context
        self._hosts = hosts
        self._disks = disks
        self._network = network
        self._adversary = adversary

    def strike(self, fault: p.Fault) -> None:
        """Apply this fault; a fault with a duration ends automatically. Must not be called after the heal."""
        after, counts = self._context.schedule.after, self._context.counts
        match fault:
            case p.Crash():
                self._hosts[fault.replica].crash(fault.down_us)
            case p.CrashInside():
                self._hosts[fault.replica].schedule_crash(fault.calls, fault.down_us)
            case p.PowerCut():
                counts.power_cuts += 1
                for host, down_us in zip(self._hosts, fault.down_us, strict=True):
                    host.crash(down_us)
            case p.Pause():
                counts.pauses += 1
                self._hosts[fault.replica].pause(fault.deaf)
                after(fault.lasting_us, self._hosts[fault.replica].resume)
            case p.Cut():
                self._network.cut(fault.links)
                after(fault.lasting_us, self._network.restore, fault.links)
            case p.SlowLinks():
                self._network.slow(fault.links, fault.extra_us)
                after(fault.lasting_us, self._network.slow, fault.links, -fault.extra_us)
            case p.Storm():
                self._change_loss(fault.loss, fault.duplication)
                after(fault.lasting_us, self._change_loss, -fault.loss, -fault.duplication)
            case p.Death():
                if sum(host.dead for host in self._hosts) < quorums(len(self._hosts)).f:
                    self._hosts[fault.replica].crash_for_ever()
                else:
                    self._hosts[fault.replica].crash(None)
            case MessageTrigger():
                self._adversary.arm(fault)
            case p.SlowDisk() | p.PutBack() | p.ClockRate() | p.ClockJump():
                self._strike_device(fault)

    def _strike_device(self, fault: p.SlowDisk | p.PutBack | p.ClockRate | p.ClockJump) -> None:
        """Apply a fault of one replica's disk or clock."""
        match fault:
            case p.SlowDisk():
                disk = self._disks[fault.replica]
                self._context.schedule.after(fault.lasting_us, self._restore_disk, disk, disk.sync_us)
                disk.sync_us = fault.sync_us
            case p.PutBack():
                copy = self._disks[fault.replica].copy()
                self._context.schedule.after(fault.lasting_us, self._put_back, fault, copy)
            case p.ClockRate():
                self._hosts[fault.replica].clock_rate = fault.rate
            case p.ClockJump():
                self._context.counts.clock_jumps += 1
                self._context.walls.move(fault.replica, fault.offset_ms, fault.rate)

    def _put_back(self, fault: p.PutBack, copy: DiskCopy) -> None:
        host = self._hosts[fault.replica]
        if not self._context.healed and not host.dead and self._disks[fault.replica].newest is None:
            self._context.log(
                "FAULT", f"r{fault.replica} gets a copy of its disk from {fault.lasting_us // 1000} ms ago"
            )
            host.put_back(copy, fault.down_us)

    def _change_loss(self, loss: float, duplication: float) -> None:
        if not self._context.healed:
            self._network.loss += loss
            self._network.duplication += duplication

    @staticmethod
    def _restore_disk(disk: SimulatedDisk, sync_us: int) -> None:
        disk.sync_us = sync_us
