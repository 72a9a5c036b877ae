"""Measures how much a group keeps: in memory, on its disks, and in every container of every replica.

The containers are found by walking through the objects, so that a container that is added to the core later is counted
automatically.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from enum import Enum

import msgspec

from pydsm.core.types.config import Config
from pydsm.core.types.counters import ProtocolCounters
from pydsm.core.wire.codec import encode_record
from pydsm.sim.cluster.host import Host

INSTANCES, INDEX, SESSIONS, RESULTS, OTHERS = "instances", "index", "sessions", "results", "others"
RECORDS, RECORD_BYTES, SNAPSHOT_BYTES = "records", "record_bytes", "snapshot_bytes"
QUANTITIES = (INSTANCES, INDEX, SESSIONS, RESULTS, OTHERS, RECORDS, RECORD_BYTES, SNAPSHOT_BYTES)
"""Sums over all replicas: instances in memory, entries of their conflict indexes, sessions, kept results, entries of
all other containers (queues of lazy records, undecided instances, suspicions, ...), records on disk, their bytes, bytes
of snapshots."""

_LEFT_OUT = (Config, ProtocolCounters, msgspec.Struct, Enum, str, bytes, int, float, tuple)


def containers(root: object, name: str) -> Counter[str]:
    """Number of entries of each reachable dict, list, set and deque, by the attributes that lead to it."""
    counts: Counter[str] = Counter()
    _count(root, name, counts, set())
    return counts


def _count(value: object, path: str, counts: Counter[str], seen: set[int]) -> None:
    if value is None or isinstance(value, _LEFT_OUT) or callable(value) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict | list | set | deque):
        counts[path] += len(value)
        for one in value.values() if isinstance(value, dict) else value:
            _count(one, path, counts, seen)
        return
    for field, one in _fields(value):
        _count(one, f"{path}.{field.lstrip('_')}", counts, seen)


def _fields(value: object) -> Iterator[tuple[str, object]]:
    names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    for name in (*names, *getattr(value, "__dict__", ())):
        if name != "__weakref__" and hasattr(value, name):
            yield name, getattr(value, name)


def sizes(hosts: Sequence[Host]) -> tuple[Counter[str], Counter[str]]:
    """The quantities, summed over all running replicas and all disks, and the number of entries by container."""
    quantities: Counter[str] = Counter(dict.fromkeys(QUANTITIES, 0))
    all_containers: Counter[str] = Counter()
    for host in hosts:
        disk = host.disk
        quantities[RECORDS] += len(disk.instances)
        quantities[RECORD_BYTES] += sum(len(encode_record(record)) for record in disk.instances.values())
        quantities[SNAPSHOT_BYTES] += sum(len(chunk) for snapshot in disk.snapshots for chunk in snapshot.chunks)
        process = host.process
        if process is None:
            continue
        kept = containers(process.core, "core") + containers(process.performer._lazy, "performer.lazy")
        kept += containers(process.sessions, "sessions")  # without grants: the connections of clients never end here
        kept += Counter(
            queue=process.batcher.queued, proposals=process.batcher.waiting - process.batcher.queued
        )  # these depend on the clients, not on the replica
        quantities[INSTANCES] += len(process.core.instances)
        quantities[INDEX] += sum(size for name, size in kept.items() if _is_index(name))
        quantities[SESSIONS] += len(process.sessions)
        quantities[RESULTS] += sum(window.kept for window in process.sessions._windows.values())
        quantities[OTHERS] += sum(size for name, size in kept.items() if not _is_counted(name))
        all_containers += kept
    return quantities, all_containers


def _is_index(name: str) -> bool:
    return "log.index" in name or "log.replaced_indexes" in name or "log.backlog" in name


def _is_counted(name: str) -> bool:
    return _is_index(name) or name.endswith("log.instances") or name.startswith("sessions")
