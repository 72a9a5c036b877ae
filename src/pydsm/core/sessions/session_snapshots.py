"""The format of sessions in a snapshot. Values only; `sessions` interprets them."""

import msgspec

SNAPSHOT_VERSION = 2
_VERSIONS_READ = (1, SNAPSHOT_VERSION)
"""Version 1 has no agreed time, and its `refused_before_ms` may be ahead of every clock. `Sessions.grant_ms` is always
above it."""


class SavedSession(msgspec.Struct, array_like=True):
    """The window of one session."""

    session: bytes
    last_ms: int
    acknowledged: int
    kept_from: int
    executed: list[tuple[int, int]]
    results: list[tuple[int, bytes]]


class SnapshotHead(msgspec.Struct, array_like=True):
    """The first part of a snapshot in parts; `sessions` parts follow, one SavedSession each."""

    version: int
    refused_before_ms: int
    sessions: int
    time_ms: int = 0
    step_ms: int = 0


class WholeSnapshot(msgspec.Struct, array_like=True):
    """All sessions in one value."""

    version: int
    refused_before_ms: int
    sessions: list[SavedSession]
    time_ms: int = 0
    step_ms: int = 0


def check_version(read: SnapshotHead | WholeSnapshot) -> None:
    """Raises ValueError for a version that this PyDSM does not read."""
    if read.version not in _VERSIONS_READ:
        raise ValueError(f"it has version {read.version}, this reads {' and '.join(map(str, _VERSIONS_READ))}")
