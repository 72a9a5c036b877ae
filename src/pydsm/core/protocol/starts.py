"""Decides whether the data of a starting replica are complete, by comparison with the records of its peers.

See docs/reference/protocol.md#8-membership, "Lost and rolled-back disks". Each start of a replica has a number, which
the start raises durably, and a random id. Peers store for each member the highest start, how much was durable there
when its last message left, which of its instances exist, and what it reported as executed. A data directory that was
restored from an older copy, or whose end was lost, lacks some of that. Its promises and votes are lost as well, so it
must not take part. Two processes started from copies of one directory have the same number and different ids.

Pure functions and values, used by the runtime and the simulator. This detects errors of operators and disks; it is not
a proof, because only reachable peers that have such records can object.
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
    """Raised by one at each start of a data directory."""
    id: int
    """64 random bits, drawn at the start. Equal numbers with different ids are from copies of a data directory."""

    def __str__(self) -> str:
        return f"start {self.number} ({self.id & 0xFFFFFFFFFFFFFFFF:016x})"


class PeerReport(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one replica has stored about another one; sent to that one in the handshake."""

    by: ReplicaId
    """The replica that stored it."""
    start: Start | None
    """The highest start seen; None if none was."""
    position: _Count
    """Groups of records that were durable when its last message left, at least."""
    index: _Count
    """The highest index known of an instance that it leads."""
    executed: Deps
    """Per leader, the executed prefix that it reported; it reports only what is durable."""


class StartInfo(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The part of a handshake message that compares starts."""

    start: Start
    position: _Count
    """Groups of records that the data directory held when this start began."""
    remembered: PeerReport | None = None
    """The sender's records of the replica that began the handshake; None in the first message of a handshake."""


@dataclass(frozen=True, slots=True)
class OwnData:
    """What a replica has on its disk, to compare with the records of a peer about it."""

    start: Start
    found: int
    """Groups of records on its disk when this start began."""
    position: int
    """Groups of records on its disk now."""
    reserved: int
    """Own indexes up to this one may have been used; no peer can know a higher one."""
    executed: Deps
    """Per leader, the executed prefix according to its disk."""


def describe_missing(own: OwnData, report: PeerReport) -> str | None:
    """Describe what this replica lacks of what a peer has stored about it, with amounts; None if it lacks nothing."""
    lacks = []
    if report.start is not None:
        if report.start.number > own.start.number:
            lacks.append(f"it has seen {report.start} of this replica, and this is {own.start}")
        elif report.start.number == own.start.number and report.start.id != own.start.id:
            lacks.append(
                f"it has seen {report.start} of this replica, and this is {own.start}: another process was "
                "started from a copy of this data directory"
            )
        else:
            held = own.position if report.start == own.start else own.found
            if report.position > held:
                lacks.append(
                    f"it has seen {report.position} durable groups of records of this replica, the data directory "
                    f"holds {held}, {report.position - held} fewer"
                )
    if report.index > own.reserved:
        lacks.append(
            f"it has learned of instances of this replica up to {report.index}, the data directory has reserved "
            f"indexes up to {own.reserved}, {report.index - own.reserved} fewer"
        )
    lacking = [max(0, theirs - ours) for theirs, ours in zip(report.executed, own.executed, strict=True)]
    if any(lacking):
        lacks.append(
            f"this replica reported {report.executed} to it as executed, the data directory says {own.executed}, "
            f"{sum(lacking)} instances fewer"
        )
    return "; ".join(lacks) or None


@dataclass(frozen=True, slots=True)
class SeenStart:
    """The highest start of a member that a peer has seen, and how much was durable there."""

    incarnation: int
    """Incarnation of the data directory: starts of another incarnation are not compared."""
    start: Start
    position: int


class PeerStarts:
    """The highest start of each peer that this replica has seen. `saved` are those on its disk."""

    def __init__(self, saved: Mapping[ReplicaId, SeenStart]) -> None:
        self._highest = dict(saved)
        self._saved = dict(saved)
        self._took_part: dict[ReplicaId, Start] = {}
        """Starts from which messages were accepted. A start that only made a handshake is not saved."""

    def check_start(self, peer: ReplicaId, incarnation: int, info: StartInfo) -> str | None:
        """Return why a handshake of this start is rejected, or None; in that case record it as the highest start."""
        seen = self._highest.get(peer)
        start, position = info.start, info.position
        if seen is not None and seen.incarnation == incarnation:
            if start.number < seen.start.number:
                return f"it is {start}, and {seen.start} of it was seen before: its data directory is an older copy"
            if start.number == seen.start.number and start.id != seen.start.id:
                return f"it is {start}, and {seen.start} was seen before: two were started from one data directory"
            if start.number > seen.start.number and position < seen.position:
                return (
                    f"its data directory held {position} groups of records when it started, {seen.position} were seen "
                    "before: it is an older copy, or its end was lost"
                )
            position = max(position, seen.position)
        self._highest[peer] = SeenStart(incarnation, start, position)
        return None

    def check_stamp(self, peer: ReplicaId, number: int, position: int) -> str | None:
        """Return why a frame with this stamp is rejected, or None; in that case record its position."""
        seen = self._highest.get(peer)
        if seen is None or number != seen.start.number:
            newer = "another" if seen is None else str(seen.start)
            return f"these are messages of start {number}, and {newer} of it was seen before"
        self._took_part[peer] = seen.start
        if position > seen.position:
            self._highest[peer] = replace(seen, position=position)
        return None

    def highest(self, peer: ReplicaId) -> SeenStart | None:
        """The highest start seen of a peer; None if none was."""
        return self._highest.get(peer)

    def take_unsaved(self, *, positions: bool) -> dict[ReplicaId, SeenStart]:
        """New starts that took part and must be saved now; with `positions`, also those whose position grew."""
        unsaved = {}
        for peer, seen in self._highest.items():
            saved = self._saved.get(peer)
            if self._took_part.get(peer) != seen.start or saved == seen:
                continue
            if positions or saved is None or saved.start != seen.start:
                unsaved[peer] = seen
        self._saved.update(unsaved)
        return unsaved


class StartCheck:
    """Decides when a started replica may take part: after `needed` peers have compared their records with its data.

    With the replica itself they form a slow quorum, without which nothing is decided. So the check costs no
    availability, and a group with as many failed members as tolerated still starts. The other peers have a grace period
    as long as the first ones took, between `grace_min` and `grace_max`. All times are in one unit chosen by the caller.
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
        """Number of peers that answered without finding anything missing."""
        return len(self._answered)

    def answer(self, peer: ReplicaId, now: float) -> None:
        """Count an answer of this peer that found nothing missing."""
        self._answered[peer] = None
        if self._until is None and len(self._answered) >= self._needed:
            self._until = now + min(self._grace_max, max(self._grace_min, now - self._began))

    def passed(self, now: float) -> bool:
        """Whether the replica may take part; once True, it stays True."""
        if not self._passed:
            all_answered = len(self._answered) >= self._peers
            self._passed = all_answered or (self._until is not None and now >= self._until)
        return self._passed
