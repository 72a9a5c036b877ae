"""The form of sessions in a snapshot: values only. What they mean is for `sessions`."""

import msgspec

SNAPSHOT_VERSION = 2
_VERSIONS_READ = (1, SNAPSHOT_VERSION)
"""Version 1 had no agreed time, and what it calls forgotten may lie ahead of every clock: `Sessions.grant_ms` is above
it."""


class SavedSession(msgspec.Struct, array_like=True):
    """A window in a snapshot."""

    session: bytes
    last_ms: int
    acknowledged: int
    kept_from: int
    executed: list[tuple[int, int]]
    results: list[tuple[int, bytes]]


class SnapshotHead(msgspec.Struct, array_like=True):
    """What a snapshot in parts begins with; `sessions` parts follow."""

    version: int
    refused_before_ms: int
    sessions: int
    time_ms: int = 0
    step_ms: int = 0


class WholeSnapshot(msgspec.Struct, array_like=True):
    """All of it in one."""

    version: int
    refused_before_ms: int
    sessions: list[SavedSession]
    time_ms: int = 0
    step_ms: int = 0


def check_version(read: SnapshotHead | WholeSnapshot) -> None:
    """Raises ValueError for a version that this PyDSM does not read."""
    if read.version not in _VERSIONS_READ:
        raise ValueError(f"it has version {read.version}, this reads {' and '.join(map(str, _VERSIONS_READ))}")
