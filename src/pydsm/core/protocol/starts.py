"""Whether a replica's data are the newest that it ever had, as far as its peers remember (PROTOCOL 8).

Each start of a replica has a number, which the start raises durably, and a random id. Peers remember of each member
the highest start, how much was durable there when its last message left, which of its instances they know, and what it
has reported as executed. A data directory that was put back to an older copy, or of which the end was lost, lacks some
of that: what it had promised and voted is gone, so it must not take part. Two processes that were started from copies
of one directory have one number and two ids.

Decides from values alone, for the runtime and the simulator alike. This finds errors of operators and of disks. It is
no proof: only peers that can be reached, and remember, can object.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec

from pydsm.core.types.ids import INDEX_MAX, Deps, ReplicaId

_Count = Annotated[int, msgspec.Meta(ge=0, le=INDEX_MAX)]


class Start(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One start of one replica."""

    number: _Count
    """One higher with each start of a data directory."""
    id: int
    """64 random bits, drawn at the start. Two starts with one number are of two copies of the data directory."""

    def __str__(self) -> str:
        return f"start {self.number} ({self.id & 0xFFFFFFFFFFFFFFFF:016x})"


class Remembered(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one replica remembers of another, which has just started and asks for it."""

    by: ReplicaId
    """Who remembers it."""
    start: Start | None
    """The highest start that was met; None for none."""
    position: _Count
    """How many groups of records were durable, at least, when its last message left."""
    index: _Count
    """The highest of its instances that was heard of."""
    executed: Deps
    """Per leader, what it has reported as executed, which it does only when that is durable."""


class StartGreeting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The part of a greeting that is about starts."""

    start: Start
    position: _Count
    """Groups of records that the data directory held when this start began."""
    remembered: Remembered | None = None
    """What the speaker remembers of who greeted first; None in the first greeting on a connection."""


@dataclass(frozen=True, slots=True)
class Own:
    """What a replica has itself, to compare with what a peer remembers of it."""

    start: Start
    found: int
    """Groups of records that its disk held when this start began."""
    position: int
    """Those that it holds now."""
    reserved: int
    """Own indexes up to here may have been used: nobody can know of a higher one."""
    executed: Deps
    """Per leader, what it has on disk a note of as executed."""


def what_is_missing(own: Own, told: Remembered) -> str | None:
    """What a peer remembers of this replica and the replica does not have, with how much it is; None for nothing."""
    lacks = []
    if told.start is not None:
        if told.start.number > own.start.number:
            lacks.append(f"it has met {told.start} of this replica, and this is {own.start}")
        elif told.start.number == own.start.number and told.start.id != own.start.id:
            lacks.append(
                f"it has met {told.start} of this replica, and this is {own.start}: another process was started from a "
                "copy of this data directory"
            )
        else:
            held = own.position if told.start == own.start else own.found
            if told.position > held:
                lacks.append(
                    f"it has seen {told.position} durable groups of records of this replica, the data directory holds "
                    f"{held}, {told.position - held} fewer"
                )
    if told.index > own.reserved:
        lacks.append(
            f"it knows instances of this replica up to {told.index}, the data directory has reserved indexes up to "
            f"{own.reserved}, {told.index - own.reserved} fewer"
        )
    lacking = [max(0, theirs - ours) for theirs, ours in zip(told.executed, own.executed, strict=True)]
    if any(lacking):
        lacks.append(
            f"this replica had told it that {told.executed} are executed, the data directory says {own.executed}, "
            f"{sum(lacking)} instances fewer"
        )
    return "; ".join(lacks) or None


@dataclass(frozen=True, slots=True)
class Met:
    """The highest start of a member that a peer has met, and how much was durable there."""

    incarnation: int
    """Of the data directory: a member with another one is no later start of this."""
    start: Start
    position: int


class StartBook:
    """Of one replica: which starts of its peers it has met. `saved` is what its disk says."""

    def __init__(self, saved: Mapping[ReplicaId, Met]) -> None:
        self._met = dict(saved)
        self._saved = dict(saved)
        self._heard: dict[ReplicaId, Start] = {}
        """Starts that have taken part. One that only greets may still be refused by others, and is not saved."""

    def why_not(self, peer: ReplicaId, incarnation: int, greeting: StartGreeting) -> str | None:
        """Why this start may not talk to us, or None; then it is remembered as the highest one."""
        met = self._met.get(peer)
        start, position = greeting.start, greeting.position
        if met is not None and met.incarnation == incarnation:
            if start.number < met.start.number:
                return f"it is {start}, and {met.start} of it has been here: its data directory is an older copy"
            if start.number == met.start.number and start.id != met.start.id:
                return f"it is {start}, and {met.start} has been here: two were started from one data directory"
            if start.number > met.start.number and position < met.position:
                return (
                    f"its data directory held {position} groups of records when it started, {met.position} were seen "
                    "here before: it is an older copy, or its end was lost"
                )
            position = max(position, met.position)
        self._met[peer] = Met(incarnation, start, position)
        return None

    def hear(self, peer: ReplicaId, number: int, position: int) -> str | None:
        """Messages of this start have come, which left when so much was durable. Why not to take them, or None."""
        met = self._met.get(peer)
        if met is None or number != met.start.number:
            newer = "another" if met is None else str(met.start)
            return f"these are messages of start {number}, and {newer} of it has been here"
        self._heard[peer] = met.start
        if position > met.position:
            self._met[peer] = replace(met, position=position)
        return None

    def met(self, peer: ReplicaId) -> Met | None:
        """What is remembered of a peer."""
        return self._met.get(peer)

    def take_unsaved(self, *, positions: bool) -> dict[ReplicaId, Met]:
        """What is to be saved now: starts that have taken part and are new; with `positions`, those that grew too."""
        unsaved = {}
        for peer, met in self._met.items():
            saved = self._saved.get(peer)
            if self._heard.get(peer) != met.start or saved == met:
                continue
            if positions or saved is None or saved.start != met.start:
                unsaved[peer] = met
        self._saved.update(unsaved)
        return unsaved


class StartCheck:
    """When a replica that has started may take part: after so many peers have told what they remember of it.

    With itself they are as many as must be up for anything to be decided, so that waiting for them costs nothing, and a
    group of which as many as may fail have failed starts all the same. The others are given a little longer: as long as
    it took the first, within limits. Times are in any one unit.
    """

    def __init__(self, peers: int, needed: int, now: float, *, grace_min: float, grace_max: float) -> None:
        self._peers = peers
        self._needed = needed
        self._began = now
        self._grace_min = grace_min
        self._grace_max = grace_max
        self._answered: dict[ReplicaId, None] = {}
        self._until: float | None = None
        self._passed = False

    @property
    def answered(self) -> int:
        """How many peers have told, and nothing was missing."""
        return len(self._answered)

    def answer(self, peer: ReplicaId, now: float) -> None:
        """This peer has told, and nothing was missing."""
        self._answered[peer] = None
        if self._until is None and len(self._answered) >= self._needed:
            self._until = now + min(self._grace_max, max(self._grace_min, now - self._began))

    def passed(self, now: float) -> bool:
        """Whether to take part; once it is so, it stays so."""
        if not self._passed:
            all_answered = len(self._answered) >= self._peers
            self._passed = all_answered or (self._until is not None and now >= self._until)
        return self._passed
