"""Injects a fault when a replica sends the message that a trigger waits for.

A run stays reproducible: this module draws no random numbers; the triggers of the plan state everything.
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
    """The sender of a message: the operations with which faults are injected into it."""

    id: int

    def die(self, down_us: int | None) -> None:
        """Crash inside the call that sends. Raises Died."""
        ...

    def pause(self, deaf: bool) -> None:
        """Handle nothing until `resume` has been called as often as `pause`."""
        ...

    def resume(self) -> None:
        """End one pause."""
        ...


class Adversary:
    """Forwards messages from the replicas to the network, and injects the faults of triggers."""

    def __init__(self, context: Context, network: SimulatedNetwork, disturbed: Callable[[int], None]) -> None:
        """`disturbed` is called for each injected fault, with its duration in microseconds."""
        self._context = context
        self.network = network
        """The network that carries all messages."""
        self._disturbed = disturbed
        self._waiting: list[t.MessageTrigger] = []
        self._left: list[int] = []
        """Per armed trigger, the number of matching messages that are still sent unchanged."""

    def arm(self, trigger: t.MessageTrigger) -> None:
        """Wait for this trigger's message from now on."""
        self._waiting.append(trigger)
        self._left.append(trigger.skip)

    def disarm(self) -> None:
        """Remove all triggers, at the heal."""
        self._waiting.clear()
        self._left.clear()

    def send(self, sender: Sender, to: tuple[ReplicaId, ...], message: Message) -> None:
        """Send a message, with the fault of the first trigger that it fires. Raises Died."""
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
        """Send a message later, with the present stamp: at that time the sender may be down or restarted."""
        if to:
            stamp = self.network.stamp_of(sender)
            self._context.schedule.after(extra_us, self.network.carry, sender, to, message, stamp)
