"""Watches what leaves the replicas of one world, and strikes when the message comes that a trigger waits for.

Guards that a run stays reproducible: nothing is drawn here, everything stands in the triggers of the plan.
"""

from collections.abc import Callable
from typing import Protocol, assert_never

from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import Message
from pydsm.sim.base import describe
from pydsm.sim.base import triggers as t
from pydsm.sim.base.context import Context
from pydsm.sim.devices.network import SimulatedNetwork


class Sender(Protocol):
    """A replica whose message leaves, as far as it can be struck."""

    id: int

    def die(self, down_us: int | None) -> None:
        """Crash inside the call that sends. Raises Died."""
        ...

    def pause(self, deaf: bool) -> None:
        """Handle nothing until as many `resume` have come."""
        ...

    def resume(self) -> None:
        """End one pause."""
        ...


class Adversary:
    """Stands between the replicas and the network. Without triggers it lets everything pass."""

    def __init__(self, context: Context, network: SimulatedNetwork, disturbed: Callable[[int], None]) -> None:
        """`disturbed` is told of each strike, and for how many microseconds it lasts."""
        self._context = context
        self.network = network
        """What carries everything that is not struck."""
        self._disturbed = disturbed
        self._waiting: list[t.MessageTrigger] = []
        self._left: list[int] = []
        """Per trigger that waits, how many messages it still lets pass."""

    def arm(self, trigger: t.MessageTrigger) -> None:
        """From now on wait for its message."""
        self._waiting.append(trigger)
        self._left.append(trigger.skip)

    def disarm(self) -> None:
        """Strike no more: the world heals."""
        self._waiting.clear()
        self._left.clear()

    def send(self, sender: Sender, to: tuple[ReplicaId, ...], message: Message) -> None:
        """Hand a message to the network, unless one of the triggers says otherwise. Raises Died."""
        if self._waiting:
            for place, trigger in enumerate(self._waiting):
                if not trigger.fits(sender.id, message):
                    continue
                if self._left[place]:
                    self._left[place] -= 1
                    continue
                del self._waiting[place], self._left[place]
                self._strike(sender, to, message, trigger.action)
                return
        self.network.send(ReplicaId(sender.id), to, message)

    def _strike(self, sender: Sender, to: tuple[ReplicaId, ...], message: Message, action: t.Action) -> None:
        me, network = ReplicaId(sender.id), self.network
        self._context.counts.strikes += 1
        self._disturbed(t.duration_us(action))
        if self._context.tracing:
            self._context.log("FAULT", f"{action} as r{sender.id} sends {describe.message(message)}")
        match action:
            case t.CrashSender():
                receivers = () if action.when == t.BEFORE else to
                if action.when == t.HALF_WAY:
                    receivers = tuple(peer for peer in to if peer in action.receivers)
                if receivers:
                    network.send(me, receivers, message)
                sender.die(action.down_us)
            case t.PauseSender():
                network.send(me, to, message)
                sender.pause(action.deaf)
                self._context.schedule.after(action.lasting_us, sender.resume)
            case t.CutLinks():
                network.cut(action.links)
                self._context.schedule.after(action.lasting_us, network.restore, action.links)
                network.send(me, to, message)
            case t.DelayMessage():
                late = tuple(peer for peer in to if peer in action.receivers)
                self._send_late(me, late, message, action.extra_us)
                soon = tuple(peer for peer in to if peer not in action.receivers)
                if soon:
                    network.send(me, soon, message)
            case t.RepeatMessage():
                network.send(me, to, message)
                again = tuple(peer for peer in to if peer in action.receivers)
                self._send_late(me, again, message, action.extra_us)
            case unreachable:
                assert_never(unreachable)

    def _send_late(self, sender: ReplicaId, to: tuple[ReplicaId, ...], message: Message, extra_us: int) -> None:
        """The stamp is that of now: the sender may be dead by then, or have begun another process."""
        if to:
            stamp = self.network.stamp_of(sender)
            self._context.schedule.after(extra_us, self.network.carry, sender, to, message, stamp)
