"""Observations of replicas that do not exist."""

from dataclasses import replace

from pydsm.core.types.counters import ProtocolCounters
from pydsm.core.types.ids import Epoch, ReplicaId
from pydsm.runtime.clock import ClockReport
from pydsm.runtime.observation import Observation
from pydsm.transport.base import Traffic

PEERS = (ReplicaId(1), ReplicaId(2))
READY = Observation(
    replica=ReplicaId(0),
    replicas=3,
    fingerprint=0xABC,
    stopping=False,
    failure=None,
    connected=PEERS,
    last_report_age_seconds={PEERS[0]: 0.1, PEERS[1]: 0.25},
    frontier=(10, 20, 30),
    known=(10, 21, 30),
    commands_waiting=4,
    disk_queue_turns=2,
    counters=ProtocolCounters(proposed=10, fast=6, slow=2, recovered=1, nops=1, executed=60, branches={"a rule": 3}),
    traffic=Traffic(messages_sent=100, messages_received=90, messages_dropped=5, refused=1),
    epochs={PEERS[0]: Epoch(4)},
    names=("r1", "r2", "r3"),
)
"""Replica 0 of 3, with nothing wrong."""


def but(**changes: object) -> Observation:
    """The same with some fields changed."""
    return replace(READY, **changes)  # type: ignore[arg-type]


AHEAD = ClockReport(
    own_ms=1_700_000_011_000,
    group_ms=1_700_000_000_000,
    agreed_ms=1_699_999_990_000,
    differences_ms={PEERS[0]: -11_000, PEERS[1]: -11_500},
)
"""The clock of replica 0 is 11 seconds ahead of the others'."""
