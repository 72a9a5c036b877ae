"""Faults that are injected when a chosen message is sent, as data: which message, and which fault.

A fault at a planned time rarely coincides with the critical message. A trigger waits for that message: the k-th
PreAccept of a leader, the first Commit of an instance. `cluster.adversary` performs the action.
"""

from typing import assert_never

import msgspec

from pydsm.core.types import messages as m

Links = tuple[tuple[int, int], ...]
"""Directed: from, to."""

ANY = -1

BEFORE, HALF_WAY, AFTER = "before", "half-way", "after"


class CrashSender(msgspec.Struct, frozen=True, tag="crash-sender"):
    """The sender crashes before the message leaves, after it, or half-way: then only `receivers` get it."""

    when: str
    receivers: tuple[int, ...]
    down_us: int | None
    """When it starts again; None: not before the heal."""


class PauseSender(msgspec.Struct, frozen=True, tag="pause-sender"):
    """The message leaves, and its sender handles nothing for a while."""

    lasting_us: int
    deaf: bool


class CutLinks(msgspec.Struct, frozen=True, tag="cut-links"):
    """These links lose every message, from this one on."""

    links: Links
    lasting_us: int


class DelayMessage(msgspec.Struct, frozen=True, tag="delay-message"):
    """This message takes so much longer to these receivers; later ones overtake it."""

    receivers: tuple[int, ...]
    extra_us: int


class RepeatMessage(msgspec.Struct, frozen=True, tag="repeat-message"):
    """The message arrives as usual, and once more so much later."""

    receivers: tuple[int, ...]
    extra_us: int


Action = CrashSender | PauseSender | CutLinks | DelayMessage | RepeatMessage


def duration_us(action: Action) -> int:
    """How long its effect lasts; 0 for a crash."""
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
    """Who sends it, or ANY."""
    leader: int
    """Of the instance that it is about, or ANY."""
    round_min: int
    """Its ballot has at least this round; messages without a ballot have round 0."""
    skip: int
    """How many matching messages are sent unchanged first."""
    action: Action

    def fits(self, sender: int, message: m.Message) -> bool:
        """Whether this is such a message."""
        if type(message).__name__ != self.kind or self.sender not in (ANY, sender):
            return False
        id = m.instance_of(message)
        if self.leader != ANY and (id is None or id.leader != self.leader):
            return False
        ballot = m.ballot_of(message)
        return self.round_min == 0 or (ballot is not None and ballot.round >= self.round_min)


def trigger_among(trigger: MessageTrigger, replicas: int) -> MessageTrigger | None:
    """The same in a group of the first `replicas` only; None if nothing is left of it."""
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
