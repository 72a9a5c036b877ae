"""Starts for tests of transports: they accept everybody unless told otherwise, and note what passes."""

from dataclasses import dataclass, field

from pydsm.core.protocol.starts import Remembered, Start, StartGreeting
from pydsm.core.types.ids import ReplicaId


@dataclass
class PlainStarts:
    """See `transport.base.StartExchange`."""

    replica: ReplicaId
    replicas: int = 3
    number: int = 1
    position: int = 0
    reasons: dict[ReplicaId, str] = field(default_factory=dict)
    """Why a peer's start is refused."""
    late_reasons: dict[ReplicaId, str] = field(default_factory=dict)
    """Why a peer's messages are refused."""
    heard: list[tuple[ReplicaId, int, int]] = field(default_factory=list)
    was_told: list[Remembered] = field(default_factory=list)

    @property
    def stamp(self) -> tuple[int, int]:
        """See `transport.base.StartExchange`."""
        return self.number, self.position

    def greeting(self, to: ReplicaId | None) -> StartGreeting:
        """See `transport.base.StartExchange`."""
        return StartGreeting(Start(self.number, 7), self.position, None if to is None else self.remembered(to))

    def why_not(self, peer: ReplicaId, incarnation: int, greeting: StartGreeting) -> str | None:
        """See `transport.base.StartExchange`."""
        return self.reasons.get(peer)

    def told(self, remembered: Remembered) -> None:
        """See `transport.base.StartExchange`."""
        self.was_told.append(remembered)

    def hear(self, peer: ReplicaId, start: int, position: int) -> str | None:
        """See `transport.base.StartExchange`."""
        self.heard.append((peer, start, position))
        return self.late_reasons.get(peer)

    def remembered(self, peer: ReplicaId) -> Remembered:
        """See `transport.base.StartExchange`."""
        return Remembered(self.replica, Start(9, peer), 90, 900, (0,) * self.replicas)
