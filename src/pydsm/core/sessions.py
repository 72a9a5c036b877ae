"""Which requests have been executed, and with which results (PROTOCOL 7): part of the replicated state.

Decides, at the execution of a batch, which of its requests are executed: each at most once, however many instances
carry it; a request that comes again is answered with its first result. Guards that every replica decides alike.
Replicas execute batches that commute in different orders, so a decision may depend only on what is ordered:

- An instance carries a request for the *first* time or *again*. Only the replica that the session was granted by
  proposes it for the first time, and only once (`Grant`), so two instances for the first time never have a request in
  common, and it makes no difference which of them comes first.
- An instance that carries requests of a session again names the session in `Batch.retried`, and conflicts with every
  other instance that has requests of that session (`session_conflicts`). So it finds the same executed everywhere.
- The state of a session is a set of sequences, the highest acknowledgement, and the results from there on: whatever
  the order, the same batches leave the same state. An acknowledgement drops results; it never decides what is executed.
  Nor does it decide an answer that somebody waits for: only where a first attempt finds its request executed already
  and acknowledged may one replica still have the first result and another not.
- Sessions expire by agreed time, which changes at checkpoints only, and those are ordered with everything (`expire`).
- What was forgotten is told from what is new by when it began: everything unknown that began no later than some session
  that was forgotten is refused. So a time that was wrong for a while refuses nobody afterwards: grants begin later than
  all that is forgotten (`grant_ms`), and what was never forgotten is taken, however old it looks.

A batch costs time for its runs, not for its requests, as long as nothing in it comes twice.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from pydsm.core.agreed_time import AgreedTime, TimeLimits
from pydsm.core.faults import WorldFault
from pydsm.core.ids import (
    RequestId,
    SessionId,
    is_kept,
    sequence_of,
    session_of,
    timestamp_of,
)
from pydsm.core.messages import Batch, Run
from pydsm.core.session_window import RequestExpired, Result, SessionWindow

Apply = Callable[[Sequence[bytes], int], list[Result]]
"""Executes commands at a Unix time in ms; one result for each."""

SNAPSHOT_VERSION = 2
_VERSIONS_READ = (1, SNAPSHOT_VERSION)
"""Version 1 had no agreed time, and what it calls forgotten may lie ahead of every clock: `grant_ms` is above it."""

_encode: Callable[[list[Result]], bytes] = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], list[Result]] = msgspec.msgpack.Decoder(list[Any]).decode


@dataclass(frozen=True, slots=True)
class SessionExpired:
    """A request of a session that was forgotten: not executed now, and whether it ever was cannot be told."""

    reason: str = "its session was idle for too long, and is forgotten"


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What is kept, and for how long. The same at every replica of a group, like the machine: it decides results."""

    idle_ms_max: int = 3_600_000
    """A session without a request for so long is forgotten at the next checkpoint; what comes of it then is refused."""
    session_results_bytes_max: int = 16 << 20
    """Encoded results of one session; at a barrier, more are dropped from the oldest on."""
    results_bytes_max: int = 256 << 20
    """Encoded results of all sessions; at a barrier, more are dropped from the session on that was idle for longest."""
    time: TimeLimits = field(default_factory=TimeLimits)
    """How agreed time moves."""


class Fate(Enum):
    """What the sessions of one replica say of one request, at this moment."""

    KEPT = "executed, and its result is kept"
    DROPPED = "executed or given up, and its result is dropped: its client has acknowledged it"
    OPEN = "not executed here so far"
    NEW = "not executed here so far, nor any other request of its session"
    FORGOTTEN = "its session is forgotten: nobody can tell any more whether it was executed"
    UNKEPT = "of a connection whose requests are never sent again: no results are kept"


@dataclass(frozen=True, slots=True)
class _Share:
    """What becomes of one run. `window` is None where nothing is kept; then all of it is executed, or none."""

    window: SessionWindow | None
    first: int
    count: int
    fresh: list[tuple[int, int]]
    """Ranges of sequences that are executed now."""

    @property
    def whole(self) -> bool:
        """Whether all of it is executed now."""
        return len(self.fresh) == 1 and self.fresh[0] == (self.first, self.first + self.count)


class Sessions:
    """All sessions at one replica. Call `execute` for every batch, in the agreed order.

    `encode` and `decode` make bytes of one list of results and back, for snapshots.
    """

    def __init__(
        self,
        limits: SessionLimits | None = None,
        encode: Callable[[list[Result]], bytes] = _encode,
        decode: Callable[[bytes], list[Result]] = _decode,
    ) -> None:
        self._limits = limits or SessionLimits()
        self._encode = encode
        self._decode = decode
        self._windows: dict[SessionId, SessionWindow] = {}
        self._forgotten_ms = -1
        """When the latest of all forgotten sessions began: what began up to then and is not here is refused."""
        self.time = AgreedTime(self._limits.time)
        """Agreed time, as of the last checkpoint executed here."""

    def __len__(self) -> int:
        return len(self._windows)

    def __contains__(self, session: object) -> bool:
        return session in self._windows

    def is_full(self, session: SessionId, acknowledged: int, results_max: int) -> bool:
        """Whether so many results of a session are kept, and would be after this acknowledgement as well."""
        window = self._windows.get(session)
        if window is None or window.kept < results_max:
            return False
        left = [len(kept) for first, kept in window.results.items() if first + len(kept) > acknowledged]
        return sum(left) >= results_max

    def fate(self, id: RequestId) -> Fate:
        """What is known of one request."""
        window, sequence = self._windows.get(session_of(id)), sequence_of(id)
        if not is_kept(id):
            return Fate.UNKEPT
        if window is None:
            return Fate.FORGOTTEN if timestamp_of(id) <= self._forgotten_ms else Fate.NEW
        place = bisect_right(window.starts, sequence) - 1
        if place < 0 or sequence >= window.ends[place]:
            return Fate.OPEN
        return Fate.DROPPED if isinstance(window.result(sequence), RequestExpired) else Fate.KEPT

    def is_forgotten(self, session: SessionId) -> bool:
        """Whether every request of this session will be refused, from now on and everywhere."""
        return session not in self._windows and is_kept(session) and timestamp_of(session) <= self._forgotten_ms

    def grant_ms(self, now_ms: int) -> int:
        """When a session begins that is granted now: later than all that is forgotten."""
        return max(now_ms, self._forgotten_ms + 1)

    def ranges(self, session: SessionId) -> int:
        """Into how many ranges the executed sequences of a session fall; each gap is a request that was given up."""
        window = self._windows.get(session)
        return len(window.starts) if window is not None else 0

    def execute(self, batch: Batch, apply: Apply) -> list[Result]:
        """Apply what was not executed before; a result for each command of the batch."""
        now = self.time.of_batch(batch.timestamp_ms)
        shares = [self._share(run, now) for run in batch.runs]
        if all(share.whole for share in shares):
            results = apply(batch.commands, now)
            place = 0
            for share in shares:
                if share.window is not None:
                    share.window.keep(share.first, results[place : place + share.count])
                place += share.count
        else:
            results = self._execute_some(batch, shares, apply, now)
        for run, share in zip(batch.runs, shares, strict=True):
            if run.acknowledged and share.window is not None:
                share.window.acknowledge(run.acknowledged)
        return results

    def _share(self, run: Run, now_ms: int) -> _Share:
        first, count = sequence_of(run.first), run.count
        if not is_kept(run.first):
            return _Share(None, first, count, [(first, first + count)])
        session = session_of(run.first)
        window = self._windows.get(session)
        if window is None:
            if timestamp_of(session) <= self._forgotten_ms:
                return _Share(None, first, count, [])
            window = self._windows[session] = SessionWindow(now_ms)
        window.last_ms = max(window.last_ms, now_ms)
        return _Share(window, first, count, window.claim(first, first + count))

    def _execute_some(self, batch: Batch, shares: Sequence[_Share], apply: Apply, now_ms: int) -> list[Result]:
        """Leave out what was executed before, and answer it with what it gave then."""
        places: list[int] = []
        start = 0
        for share in shares:
            for low, high in share.fresh:
                places += range(start + low - share.first, start + high - share.first)
            start += share.count
        given = apply([batch.commands[place] for place in places], now_ms) if places else []
        taken = 0
        for share in shares:
            for low, high in share.fresh:
                if share.window is not None:
                    share.window.keep(low, given[taken : taken + high - low])
                taken += high - low
        results: list[Result] = []
        for share in shares:
            if share.window is None and not share.fresh:
                results += [SessionExpired()] * share.count
            elif share.window is not None:
                results += [share.window.result(share.first + place) for place in range(share.count)]
            else:
                results += [None] * share.count
        for place, result in zip(places, given, strict=True):
            results[place] = result  # also where it was acknowledged at once, and nothing is kept
        return results

    # at barriers, which every replica executes between the same batches

    def expire(self, clocks: Sequence[int]) -> None:
        """Forget sessions that have been idle for too long, gaps that were given up, and results beyond the limits.

        Only at a barrier, with the readings of clocks that it carries: then it is the same on every replica.
        """
        self.time.advance(clocks)
        self._forget_idle()
        total = 0
        for _, window in sorted(self._windows.items(), key=lambda item: (-item[1].last_ms, item[0])):
            if window.acknowledged:
                window.claim(0, window.acknowledged)
            room = min(self._limits.session_results_bytes_max, self._limits.results_bytes_max - total)
            total += self._shorten(window, room)

    def _forget_idle(self) -> None:
        """By agreed time.

        A last use far ahead of it was noted while agreed time was wrong, or by a version that took any timestamp: it
        counts as if it was as late as a batch can be now.
        """
        latest_ms = self.time.ms + self._limits.time.distance_ms_max
        oldest_ms = self.time.ms - self._limits.idle_ms_max
        idle = []
        for session, window in self._windows.items():
            if self.time.ms:
                window.last_ms = min(window.last_ms, latest_ms)
            if window.last_ms < oldest_ms:
                idle.append(session)
        for session in idle:
            del self._windows[session]
        self._forgotten_ms = max([self._forgotten_ms, *map(timestamp_of, idle)])

    def _shorten(self, window: SessionWindow, bytes_max: int) -> int:
        """Drop the oldest results until the others fit; gives the bytes of those."""
        stretches = list(window.stretches())
        size = sum(len(self._encode(results)) for _, results in stretches)
        if size <= bytes_max:
            return size
        size = 0
        for first, results in reversed(stretches):
            for place in range(len(results) - 1, -1, -1):
                one = len(self._encode([results[place]]))
                if size + one > bytes_max:
                    window.drop(first + place + 1)
                    return size
                size += one
        return size

    def snapshot(self) -> bytes:
        """All of it, as bytes that are equal exactly when the states are."""
        sessions = [self._saved(session, window) for session, window in sorted(self._windows.items())]
        head = self._head(len(sessions))
        return msgspec.msgpack.encode(
            _Snapshot(head.version, head.refused_before_ms, sessions, head.time_ms, head.step_ms)
        )

    def snapshot_in_parts(self) -> Iterator[bytes]:
        """The state at the moment of the call, made as it is asked for: how many sessions there are, then each of them.

        Batches may be executed between two parts.
        """
        windows = [(session, window.copy()) for session, window in sorted(self._windows.items())]
        return self._parts(self._head(len(windows)), windows)

    def _head(self, sessions: int) -> "_Head":
        return _Head(SNAPSHOT_VERSION, self._forgotten_ms + 1, sessions, self.time.ms, self.time.step_ms)

    def _parts(self, head: "_Head", windows: list[tuple[SessionId, SessionWindow]]) -> Iterator[bytes]:
        yield msgspec.msgpack.encode(head)
        for session, window in windows:
            yield msgspec.msgpack.encode(self._saved(session, window))

    def restore_parts(self, parts: Iterator[bytes]) -> None:
        """Become what these parts say, and take no more. Raises WorldFault if they are none of this version."""
        try:
            head = msgspec.msgpack.decode(next(parts, b""), type=_Head)
            _check_version(head)
            kept = [msgspec.msgpack.decode(next(parts, b""), type=_Session) for _ in range(head.sessions)]
            windows = {SessionId(one.session): self._restored(one) for one in kept}
        except (ValueError, msgspec.DecodeError) as error:
            raise WorldFault(f"a snapshot of sessions does not parse: {error}; take another one") from error
        self._begin(head, windows)

    def _begin(self, head: "_Head | _Snapshot", windows: dict[SessionId, SessionWindow]) -> None:
        self._windows, self._forgotten_ms = windows, head.refused_before_ms - 1
        self.time = AgreedTime(self._limits.time)
        self.time.ms, self.time.step_ms = head.time_ms, head.step_ms or self._limits.time.advance_ms_max

    def _saved(self, session: SessionId, window: SessionWindow) -> "_Session":
        return _Session(
            session,
            window.last_ms,
            window.acknowledged,
            window.kept_from,
            list(zip(window.starts, window.ends, strict=True)),
            [(first, self._encode(results)) for first, results in window.stretches()],
        )

    def restore(self, snapshot: bytes) -> None:
        """Become what the snapshot says. Raises WorldFault if it is none of this version."""
        try:
            kept = msgspec.msgpack.decode(snapshot, type=_Snapshot)
            _check_version(kept)
            windows = {SessionId(one.session): self._restored(one) for one in kept.sessions}
        except (ValueError, msgspec.DecodeError) as error:
            raise WorldFault(f"a snapshot of sessions does not parse: {error}; take another one") from error
        self._begin(kept, windows)

    def _restored(self, kept: "_Session") -> SessionWindow:
        window = SessionWindow(kept.last_ms, kept.acknowledged, kept.kept_from)
        window.starts = [start for start, _ in kept.executed]
        window.ends = [end for _, end in kept.executed]
        for first, results in kept.results:
            window.keep(first, self._decode(results))
        return window

    def digest(self) -> bytes:
        """32 bytes that are equal on two replicas exactly when their sessions are."""
        return hashlib.blake2b(self.snapshot(), digest_size=32).digest()


class _Session(msgspec.Struct, array_like=True):
    """A window in a snapshot."""

    session: bytes
    last_ms: int
    acknowledged: int
    kept_from: int
    executed: list[tuple[int, int]]
    results: list[tuple[int, bytes]]


class _Head(msgspec.Struct, array_like=True):
    version: int
    refused_before_ms: int
    sessions: int
    time_ms: int = 0
    step_ms: int = 0


class _Snapshot(msgspec.Struct, array_like=True):
    version: int
    refused_before_ms: int
    sessions: list[_Session]
    time_ms: int = 0
    step_ms: int = 0


def _check_version(read: _Head | _Snapshot) -> None:
    if read.version not in _VERSIONS_READ:
        raise ValueError(f"it has version {read.version}, this reads {' and '.join(map(str, _VERSIONS_READ))}")
