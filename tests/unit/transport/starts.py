"""Starts for tests of transports: every peer is accepted unless a reason is set, and calls are recorded."""

from dataclasses import dataclass, field

from pydsm.core.protocol.starts import PeerReport, Start, StartInfo
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
    stamps: list[tuple[ReplicaId, int, int]] = field(default_factory=list)
    reports: list[PeerReport] = field(default_factory=list)

    @property
    def stamp(self) -> tuple[int, int]:
        """See `transport.base.StartExchange`."""
        return self.number, self.position

    def start_info(self, to: ReplicaId | None) -> StartInfo:
        """See `transport.base.StartExchange`."""
        return StartInfo(Start(self.number, 7), self.position, None if to is None else self.report_on(to))

    def check_start(self, peer: ReplicaId, incarnation: int, info: StartInfo) -> str | None:
        """See `transport.base.StartExchange`."""
        return self.reasons.get(peer)

    def check_report(self, report: PeerReport) -> None:
        """See `transport.base.StartExchange`."""
        self.reports.append(report)

    def check_stamp(self, peer: ReplicaId, start: int, position: int) -> str | None:
        """See `transport.base.StartExchange`."""
        self.stamps.append((peer, start, position))
        return self.late_reasons.get(peer)

    def report_on(self, peer: ReplicaId) -> PeerReport:
        """See `transport.base.StartExchange`."""
        return PeerReport(self.replica, Start(9, peer), 90, 900, (0,) * self.replicas)
