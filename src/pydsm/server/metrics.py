"""The metrics of a replica in Prometheus's text format.

Decides names and types. Values are computed for each request, from one observation, so that they add no cost to
commands. Each replica has its own registry, so that two replicas in one process do not mix their metrics.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from pydsm.core.types.ids import ReplicaId
from pydsm.runtime.apply_gate import MachinePhase
from pydsm.runtime.observation import Observation, ReadyLimits, not_ready_reason
from pydsm.server.report import counts
from pydsm.storage.identity import Identity
from pydsm.version import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of the text, which all versions of Prometheus accept."""

_COUNTERS = {
    "proposed": "Instances proposed here.",
    "nops": "Instances decided nop.",
    "aborted": "Own requests that were decided nop.",
    "prepared": "Recoveries begun here.",
    "validated": "Recoveries here that had to validate.",
    "waited": "Recoveries here that had to wait for invalidators.",
    "inquired": "Instances that peers were asked about.",
    "executed": "Batches executed.",
}
_COMMIT_PATHS = ("fast", "slow", "recovered")
"""Counters that `pydsm_commits_total` reports under the label `path`: own instances after one or two round trips, and
instances committed by a recovery that this replica led. They count instances (batches), not requests."""

_TRAFFIC = {
    "messages_sent": "Messages sent to peers.",
    "messages_received": "Messages received from peers.",
    "messages_dropped": "Messages to peers that were dropped because there was no connection or the queue was full.",
    "bytes_sent": "Bytes sent to peers.",
    "bytes_received": "Bytes received from peers.",
    "refused": "Connections and messages of peers that were refused.",
}


class Metrics:
    """The metrics of one replica. Calls `observe` once for each `text`."""

    def __init__(
        self,
        identity: Identity,
        observe: Callable[[], Observation],
        limits: ReadyLimits,
        closed_silent: Callable[[], int] = lambda: 0,
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_ReplicaCollector(identity, observe, limits, closed_silent))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The current value of all metrics."""
        return generate_latest(self._registry)


class _ReplicaCollector(Collector):
    def __init__(
        self,
        identity: Identity,
        observe: Callable[[], Observation],
        limits: ReadyLimits,
        closed_silent: Callable[[], int],
    ) -> None:
        self._identity = identity
        self._closed_silent = closed_silent
        self._observe = observe
        self._limits = limits

    def describe(self) -> list[Metric]:
        """See prometheus_client. Empty, so that registration computes no values."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        seen = self._observe()
        yield self._info(seen)
        yield GaugeMetricFamily("pydsm_healthy", "1 unless the replica has failed.", int(seen.failure is None))
        ready = not_ready_reason(seen, self._limits) is None
        yield GaugeMetricFamily("pydsm_ready", "1 if the replica can serve clients.", int(ready))
        yield from _counters(seen)
        yield from _by_leader(seen)
        yield GaugeMetricFamily("pydsm_commands_waiting", "Commands not answered yet.", seen.commands_waiting)
        yield CounterMetricFamily(
            "pydsm_commands_raised", "Commands executed here that raised an exception.", seen.commands_raised
        )
        yield CounterMetricFamily(
            "pydsm_silent_connections_closed",
            "Connections to ports for clients that were closed because they had sent no request.",
            self._closed_silent(),
        )
        yield GaugeMetricFamily("pydsm_disk_queue_turns", "Turns that are not durable yet.", seen.disk_queue_turns)
        yield GaugeMetricFamily("pydsm_instances", "Instances in memory.", seen.instances)
        yield from _snapshots(seen)
        paused = int(seen.phase is not MachinePhase.RUNNING)
        yield GaugeMetricFamily("pydsm_paused", "1 while the state machine is paused.", paused)
        yield GaugeMetricFamily(
            "pydsm_apply_queue_batches",
            "Decided batches that wait until the state machine runs again.",
            seen.apply_queue_batches,
        )
        yield GaugeMetricFamily(
            "pydsm_apply_queue_bytes", "Bytes of the commands in these batches.", seen.apply_queue_bytes
        )
        yield from _clock(seen)

    def _info(self, seen: Observation) -> Metric:
        info = InfoMetricFamily("pydsm_replica", "Identity and version of the replica.")
        identity = self._identity
        info.add_metric(
            [],
            {
                "group": identity.group,
                "name": identity.name,
                "replica": str(identity.replica),
                "replicas": str(identity.replicas),
                "incarnation": f"{seen.fingerprint:016x}",
                "version": __version__,
            },
        )
        return info


def _snapshots(seen: Observation) -> Iterator[Metric]:
    yield GaugeMetricFamily("pydsm_checkpoint", "The last checkpoint executed here.", seen.checkpoint)
    yield GaugeMetricFamily("pydsm_snapshot", "The last checkpoint with a durable snapshot here.", seen.snapshot)
    here = 0 if seen.fetching is None else seen.fetching[1]
    yield GaugeMetricFamily("pydsm_fetching", "1 while a snapshot is fetched.", int(seen.fetching is not None))
    yield GaugeMetricFamily("pydsm_fetched_bytes", "Bytes of the snapshot that is fetched.", here)
    for what, count in asdict(seen.pieces).items():
        name = f"pydsm_snapshot_pieces_{what}"
        yield CounterMetricFamily(name, f"Pieces of snapshots {what}.", count)


def _clock(seen: Observation) -> Iterator[Metric]:
    clock = seen.clock
    yield GaugeMetricFamily(
        "pydsm_clock_wrong", "1 while this replica's clock differs too much.", int(bool(clock.fault))
    )
    yield GaugeMetricFamily(
        "pydsm_agreed_time_seconds", "Agreed Unix time, 0 before the first.", clock.agreed_ms / 1000
    )
    if clock.difference_ms is not None:
        ahead = clock.difference_ms / 1000
        text = "How far this replica's clock is ahead of what a majority of the clocks shows."
        yield GaugeMetricFamily("pydsm_clock_difference_seconds", text, ahead)
    text = "How far the peer's clock is ahead of this replica's."
    peers = GaugeMetricFamily("pydsm_peer_clock_difference_seconds", text, labels=["peer"])
    for peer, ahead_ms in sorted(clock.differences_ms.items()):
        peers.add_metric([seen.name_of(peer)], ahead_ms / 1000)
    yield peers


def _counters(seen: Observation) -> Iterator[Metric]:
    counters = counts(seen)
    commits = CounterMetricFamily(
        "pydsm_commits",
        "Instances (batches, not requests) committed by this replica: own ones after one (fast) or two (slow) round "
        "trips, and those of any leader by a recovery (recovered).",
        labels=["path"],
    )
    for path in _COMMIT_PATHS:
        commits.add_metric([path], counters.pop(path))
    yield commits
    for name, count in counters.items():
        yield CounterMetricFamily(f"pydsm_{name}", _COUNTERS[name], count)
    rules = CounterMetricFamily(
        "pydsm_recovery_decisions", "Recovery decisions by the rule that made them.", labels=["rule"]
    )
    for rule, count in seen.counters.branches.items():
        rules.add_metric([rule], count)
    yield rules
    for name, count in asdict(seen.traffic).items():
        yield CounterMetricFamily(f"pydsm_peer_{name}", _TRAFFIC[name], count)


def _by_leader(seen: Observation) -> Iterator[Metric]:
    frontier = GaugeMetricFamily("pydsm_frontier", "Executed prefix of each leader's instances.", labels=["leader"])
    known = GaugeMetricFamily("pydsm_known", "Highest known index of each leader.", labels=["leader"])
    for leader, (executed, highest) in enumerate(zip(seen.frontier, seen.known, strict=True)):
        name = seen.name_of(ReplicaId(leader))
        frontier.add_metric([name], executed)
        known.add_metric([name], highest)
    yield frontier
    yield known
    connected = GaugeMetricFamily("pydsm_peer_connected", "1 when messages to the peer are carried.", labels=["peer"])
    for peer in range(seen.replicas):
        if peer != seen.replica:
            connected.add_metric([seen.name_of(ReplicaId(peer))], int(peer in seen.connected))
    yield connected
