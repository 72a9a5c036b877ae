"""Faults that are injected when a chosen message is sent, as data: which message, and which fault.

A fault at a planned time rarely coincides with the critical message. A trigger waits for that message: the k-th
PreAccept of a leader, the first Commit of an instance. `cluster.adversary` performs the action.
"""

from typing import assert_never

import msgspec

from pydsm.core.types import messages as m

Links = tuple[tuple[int, int], ...]
"""Directed links: (sender, receiver)."""

ANY = -1

BEFORE, HALF_WAY, AFTER = "before", "half-way", "after"


class CrashSender(msgspec.Struct, frozen=True, tag="crash-sender"):
    """The sender crashes before the message is sent, after it, or half-way: then only `receivers` receive it."""

    when: str
    receivers: tuple[int, ...]
    down_us: int | None
    """Time until it starts again; None: at the heal."""


class PauseSender(msgspec.Struct, frozen=True, tag="pause-sender"):
    """The message is sent, and then its sender handles nothing for a while."""

    lasting_us: int
    deaf: bool


class CutLinks(msgspec.Struct, frozen=True, tag="cut-links"):
    """These links lose every message, including this one."""

    links: Links
    lasting_us: int


class DelayMessage(msgspec.Struct, frozen=True, tag="delay-message"):
    """The message arrives at these receivers later by `extra_us`, behind messages that were sent after it."""

    receivers: tuple[int, ...]
    extra_us: int


class RepeatMessage(msgspec.Struct, frozen=True, tag="repeat-message"):
    """The message arrives as usual, and a second time `extra_us` later."""

    receivers: tuple[int, ...]
    extra_us: int


Action = CrashSender | PauseSender | CutLinks | DelayMessage | RepeatMessage


def duration_us(action: Action) -> int:
    """The duration of an action's effect; 0 for a crash."""
    match action:
        case PauseSender() | CutLinks():
            return action.lasting_us
        case DelayMessage() | RepeatMessage():
            return action.extra_us
        case CrashSender():
            return 0
        case unreachable:
            assert_never(unreachable)


class MessageTrigger(msgspec.Struct, frozen=True, tag="message-trigger"):
    """From `at_us` on, waits for one message, and injects its fault once."""

    at_us: int
    kind: str
    """Name of the message's type, as in `PreAccept`."""
    sender: int
    """The replica that sends it, or ANY."""
    leader: int
    """The leader of the instance that the message names, or ANY."""
    round_min: int
    """Its ballot has at least this round; messages without a ballot have round 0."""
    skip: int
    """How many matching messages are sent unchanged first."""
    action: Action

    def fits(self, sender: int, message: m.Message) -> bool:
        """Whether the message matches this trigger."""
        if type(message).__name__ != self.kind or self.sender not in (ANY, sender):
            return False
        id = m.instance_of(message)
        if self.leader != ANY and (id is None or id.leader != self.leader):
            return False
        ballot = m.ballot_of(message)
        return self.round_min == 0 or (ballot is not None and ballot.round >= self.round_min)


def trigger_among(trigger: MessageTrigger, replicas: int) -> MessageTrigger | None:
    """The same trigger in a group of only the first `replicas`; None if nothing is left of it."""
    if max(trigger.sender, trigger.leader) >= replicas:
        return None
    action = trigger.action
    match action:
        case CutLinks():
            links = tuple(link for link in action.links if max(link) < replicas)
            if not links:
                return None
            return msgspec.structs.replace(trigger, action=msgspec.structs.replace(action, links=links))
        case CrashSender() | DelayMessage() | RepeatMessage():
            receivers = tuple(one for one in action.receivers if one < replicas)
            return msgspec.structs.replace(trigger, action=msgspec.structs.replace(action, receivers=receivers))
        case PauseSender():
            return trigger
        case unreachable:
            assert_never(unreachable)
