"""The executed requests of all sessions and their results: part of the replicated state.

See docs/reference/protocol.md, section 7. Decides, when a batch is executed, which of its requests are executed: each
at most once, however many instances carry it; a repeated request is answered with its first result. Guarantees that
every replica decides the same. Replicas execute batches that commute in different orders, so a decision may depend
only on what is ordered:

- An instance carries a request as a *first attempt* or as a *retry*. Only the replica that granted the session proposes
  the first attempt, and only once (`Grant`). So two first attempts never have a request in common, and their order does
  not matter.
- An instance that retries requests of a session has the session in `Batch.retried`, and conflicts with every other
  instance that has requests of that session (`session_conflicts`). So every replica has executed the same requests of
  the session before it.
- The state of a session is a set of sequences, the highest acknowledgement, and the results above it: the same batches
  leave the same state in any order. An acknowledgement drops results; it never decides what is executed. It does not
  change an answer that a client waits for either: replicas may differ only in whether they still have the first result
  when a first attempt finds its request already executed and acknowledged.
- Sessions expire by agreed time, which changes only at checkpoints; those are ordered against everything (`expire`).
- Expired sessions are distinguished from new ones by the time at which they began: an unknown session that began no
  later than some expired session is refused. A wrong clock therefore causes no refusals later: grants begin after every
  expired session (`grant_ms`), and sessions that began later than all expired ones are accepted, however old they are.

Guarantees program order as well. A run with `after` is in an instance that has its session in `Batch.retried`, so every
replica has executed the same requests of the session before it:

- While the request `after` is neither executed nor given up by the client, the run is skipped and not recorded. Its
  commands are answered `POSTPONED`.
- When the run is executed, requests of the session with lower sequences that are not executed by then are given up and
  never executed: a late one must not take effect after what the client sent later.

A batch takes time per run, not per request, as long as no request in it is repeated.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pydsm.core.clocks.agreed_time import AgreedTime
from pydsm.core.sessions.result_ranges import Codec, Decode, Encode, ResultRange, weight
from pydsm.core.sessions.session_limits import RequestState, SessionExpired, SessionLimits
from pydsm.core.sessions.session_snapshots import (
    SNAPSHOT_VERSION,
    SavedSession,
    SnapshotHead,
    WholeSnapshot,
    check_version,
)
from pydsm.core.sessions.session_window import POSTPONED, RANGE_BYTES, SESSION_BYTES, SessionWindow, StoredResult
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import (
    RequestId,
    SessionId,
    is_tracked,
    sequence_of,
    session_of,
    timestamp_of,
)
from pydsm.core.types.messages import Batch, Run

Apply = Callable[[Sequence[bytes], int], list[StoredResult]]
"""Executes commands at a Unix time in ms; returns one result per command."""

_USE_MS = 60_000
_FREED_PER_BATCH = 64

_encode: Encode = msgspec.msgpack.Encoder().encode
_decode: Decode = msgspec.msgpack.Decoder(list[Any]).decode


@dataclass(frozen=True, slots=True)
class _Share:
    """How one run is executed. `window` is None if nothing is kept of it; then all of it is executed, or nothing.

    `instead` is the answer if nothing of it is executed.
    """

    window: SessionWindow | None
    first: int
    count: int
    fresh: list[tuple[int, int]]
    """Ranges of sequences that are executed now."""
    instead: StoredResult = None

    @property
    def whole(self) -> bool:
        """Whether the whole run is executed now."""
        return len(self.fresh) == 1 and self.fresh[0] == (self.first, self.first + self.count)


class Sessions:
    """All sessions at one replica. Call `execute` for every batch, in the agreed order.

    `encode` and `decode` make a MessagePack array of one list of results and back; results are kept in that form.
    """

    def __init__(
        self,
        limits: SessionLimits | None = None,
        encode: Encode = _encode,
        decode: Decode = _decode,
    ) -> None:
        self._limits = limits or SessionLimits()
        self._codec = Codec(encode, decode)
        self._windows: dict[SessionId, SessionWindow] = {}
        self._generation = 0
        """Number of snapshots started. A snapshot shares the windows; a window is copied before its first change."""
        self._gaps: dict[SessionId, None] = {}
        """Sessions with gaps in their executed sequences."""
        self._last_used: dict[int, list[SessionId]] = {}
        """Each session once, by a minute not after its last use: used to find idle sessions."""
        self._expired_windows: list[SessionWindow] = []
        """Expired windows, freed a few per batch: freeing very many takes long."""
        self._results_bytes = self._held_bytes = 0
        self._latest_use_ms = 0
        """Upper bound of the last use of all sessions, by agreed time."""
        self._expired_ms = -1
        """Latest start of any expired session: an unknown session that began no later is refused."""
        self.time = AgreedTime(self._limits.time)
        """Agreed time, as of the last checkpoint executed here."""

    def __len__(self) -> int:
        return len(self._windows)

    def __contains__(self, session: object) -> bool:
        return session in self._windows

    @property
    def held_bytes(self) -> int:
        """Counted memory of all sessions, in bytes."""
        return self._held_bytes

    @property
    def results_bytes(self) -> int:
        """Counted size of all kept results, in bytes."""
        return self._results_bytes

    @property
    def results_bytes_max(self) -> int:
        """See `SessionLimits`."""
        return self._limits.results_bytes_max

    def is_full(self, session: SessionId, acknowledged: int, results_max: int) -> bool:
        """Whether `results_max` results of a session are kept, or half of the bytes that are allowed.

        May return False although it is full, if `acknowledged` drops some results.
        """
        window = self._windows.get(session)
        if window is None:
            return False
        dropped = max(0, acknowledged - window.firsts[0]) if window.firsts else 0
        too_many = window.kept >= results_max and window.kept - dropped >= results_max
        return too_many or (not dropped and 2 * window.results_bytes >= self._limits.session_results_bytes_max)

    def state_of(self, id: RequestId) -> RequestState:
        """The state of one request."""
        window, sequence = self._windows.get(session_of(id)), sequence_of(id)
        if not is_tracked(id):
            return RequestState.UNTRACKED
        if window is None:
            return RequestState.EXPIRED if timestamp_of(id) <= self._expired_ms else RequestState.NEW
        if not window.has(sequence):
            return RequestState.OPEN
        return RequestState.KEPT if window.has_result(sequence) else RequestState.DROPPED

    def has_settled(self, session: SessionId, sequence: int) -> bool:
        """Whether a request is executed here, or given up and never executed."""
        window = self._windows.get(session)
        return window is not None and window.has(sequence)

    def has_expired(self, session: SessionId) -> bool:
        """Whether the session has expired: all its requests are refused from now on, at every replica."""
        return session not in self._windows and is_tracked(session) and timestamp_of(session) <= self._expired_ms

    def grant_ms(self, now_ms: int) -> int:
        """The begin, Unix time in ms, of a session granted now: after the begin of every expired session."""
        return max(now_ms, self._expired_ms + 1)

    def ranges(self, session: SessionId) -> int:
        """Number of ranges of executed sequences of a session; 0 for an unknown one."""
        window = self._windows.get(session)
        return len(window.starts) if window is not None else 0

    def execute(self, batch: Batch, apply: Apply) -> list[StoredResult]:
        """Execute the requests that were not executed before. Returns one result per command of the batch."""
        now = self.time.of_batch(batch.timestamp_ms)
        shares = [self._share(run, now) for run in batch.runs]
        if all(share.whole for share in shares):
            results = apply(batch.commands, now)
            kept_from, place = self._kept_from(results), 0
            for share in shares:
                if share.window is not None:
                    self._keep(share.window, share.first, results[place : place + share.count], kept_from - place)
                place += share.count
        else:
            results = self._execute_some(batch, shares, apply, now)
        for run, share in zip(batch.runs, shares, strict=True):
            if run.acknowledged and share.window is not None:
                before = share.window.results_bytes
                share.window.acknowledge(run.acknowledged, self._codec)
                self._count(share.window.results_bytes - before)
        del self._expired_windows[-_FREED_PER_BATCH:]
        return results

    def _kept_from(self, results: Sequence[StoredResult]) -> int:
        """The position in a batch below which no results are kept, because the later ones reach the limit."""
        most = self._limits.batch_results_bytes_max
        if weight(results, most) <= most:
            return 0
        size, place = 0, len(results)
        while place:
            size += weight(results[place - 1 : place], most)
            if size > most:
                break
            place -= 1
        return place

    def _keep(self, window: SessionWindow, first: int, results: Sequence[StoredResult], skipped: int) -> None:
        """Store results in a window, without the first `skipped`."""
        if skipped > 0:
            first, results = first + skipped, results[skipped:]
        before = window.results_bytes
        window.keep(first, results, self._codec, self._limits.session_results_bytes_max)
        self._count(window.results_bytes - before)

    def _count(self, results_bytes: int) -> None:
        self._results_bytes += results_bytes
        self._held_bytes += results_bytes

    def _share(self, run: Run, now_ms: int) -> _Share:
        first, count = sequence_of(run.first), run.count
        if not is_tracked(run.first):
            return _Share(None, first, count, [(first, first + count)])
        session = session_of(run.first)
        window = self._windows.get(session)
        if window is None:
            if timestamp_of(session) <= self._expired_ms:
                return _Share(None, first, count, [], SessionExpired())
            if run.after >= max(1, run.acknowledged):
                return _Share(None, first, count, [], POSTPONED)
            window = self._windows[session] = SessionWindow(now_ms, generation=self._generation)
            self._note_use(session, now_ms)
            self._held_bytes += SESSION_BYTES
        elif run.after >= max(1, run.acknowledged, window.acknowledged) and not window.has(run.after):
            return _Share(None, first, count, [], POSTPONED)
        elif window.generation != self._generation:
            window = self._own(session)
        ranges = len(window.starts)
        if run.after:
            window.claim(0, first)
        window.last_ms = max(window.last_ms, now_ms)
        self._latest_use_ms = max(self._latest_use_ms, now_ms)
        fresh = window.claim(first, first + count)
        self._held_bytes += RANGE_BYTES * (len(window.starts) - ranges)
        if window.has_gaps:
            self._gaps[session] = None
        return _Share(window, first, count, fresh)

    def _note_use(self, session: SessionId, at_ms: int) -> None:
        self._last_used.setdefault(at_ms // _USE_MS, []).append(session)

    def _execute_some(self, batch: Batch, shares: Sequence[_Share], apply: Apply, now_ms: int) -> list[StoredResult]:
        """Execute a batch of which some requests are skipped; a repeated one gets its first result."""
        places: list[int] = []
        start = 0
        for share in shares:
            for low, high in share.fresh:
                places += range(start + low - share.first, start + high - share.first)
            start += share.count
        given = apply([batch.commands[place] for place in places], now_ms) if places else []
        kept_from, taken = self._kept_from(given), 0
        for share in shares:
            for low, high in share.fresh:
                if share.window is not None:
                    self._keep(share.window, low, given[taken : taken + high - low], kept_from - taken)
                taken += high - low
        results: list[StoredResult] = []
        for share in shares:
            if share.window is None and not share.fresh:
                results += [share.instead] * share.count
            elif share.window is not None:
                results += [share.window.result(share.first + place, self._codec) for place in range(share.count)]
            else:
                results += [None] * share.count
        for place, result in zip(places, given, strict=True):
            results[place] = result  # also if it was acknowledged in this batch, so that nothing is kept
        return results

    # at barriers, which every replica executes between the same batches

    def expire(self, clocks: Sequence[int]) -> None:
        """Expire idle sessions, close gaps that were given up, and drop results above the limits.

        Call only at a barrier, with the clock readings that it carries: then the result is the same at every replica.
        """
        self.time.advance(clocks)
        self._limit_last_uses()
        self._expire_idle()
        self._close_gaps()
        if self._results_bytes > self._limits.results_bytes_max:
            self._drop_largest(self._results_bytes - self._limits.results_bytes_max)

    def _close_gaps(self) -> None:
        """Give up requests below the acknowledgement that were never executed."""
        gaps, self._gaps = self._gaps, {}
        for session in gaps:
            window = self._windows.get(session)
            if window is None or not window.has_gaps:
                continue  # filled meanwhile; at another replica perhaps before it was noted
            if window.acknowledged:
                window = self._own(session)
                ranges = len(window.starts)
                window.claim(0, window.acknowledged)
                self._held_bytes += RANGE_BYTES * (len(window.starts) - ranges)
            if window.has_gaps:
                self._gaps[session] = None

    def _own(self, session: SessionId) -> SessionWindow:
        """The window for changes: a copy, if a snapshot shares it."""
        window = self._windows[session]
        if window.generation != self._generation:
            window = self._windows[session] = window.copy(self._generation)
        return window

    def _limit_last_uses(self) -> None:
        """Reduce last uses that are later than any batch can be executed now.

        Such a one was noted while agreed time was wrong, or by a version that accepted any timestamp. All sessions are
        checked, so that every replica changes the same ones, but only if there may be one.
        """
        latest_ms = self.time.ms + self._limits.time.distance_ms_max
        if not self.time.ms or self._latest_use_ms <= latest_ms:
            return
        self._latest_use_ms, self._last_used = latest_ms, {}
        for session in list(self._windows):
            if self._windows[session].last_ms > latest_ms:
                self._own(session).last_ms = latest_ms
            self._note_use(session, self._windows[session].last_ms)

    def _expire_idle(self) -> None:
        """Expire idle sessions; checks only those whose noted use is old enough."""
        expired_before_ms = self.time.ms - self._limits.idle_ms_max
        windows, expired = self._windows, self._expired_windows
        for at in sorted(at for at in self._last_used if at * _USE_MS < expired_before_ms):
            before = len(expired)
            for session in self._last_used.pop(at):
                window = windows[session]
                if window.last_ms < expired_before_ms:
                    expired.append(windows.pop(session))
                    self._expired_ms = max(self._expired_ms, timestamp_of(session))
                else:
                    self._note_use(session, window.last_ms)
            count, ranges = len(expired) - before, sum([len(window.starts) for window in expired[before:]])
            self._count(-sum([window.results_bytes for window in expired[before:]]))
            self._held_bytes -= count * SESSION_BYTES + ranges * RANGE_BYTES

    def _drop_largest(self, excess_bytes: int) -> None:
        """Drop all results of the sessions with the most result bytes, until `excess_bytes` are freed."""
        sizes = sorted([window.results_bytes for window in self._windows.values()], reverse=True)
        place = gone = 0
        while gone < excess_bytes:
            gone += sizes[place]
            place += 1
        smallest = sizes[place - 1]
        largest = [session for session, window in self._windows.items() if window.results_bytes >= smallest]
        for session in sorted(largest, key=lambda one: (-self._windows[one].results_bytes, one))[:place]:
            window = self._own(session)
            self._count(-window.results_bytes)
            window.drop_all()

    def snapshot(self) -> bytes:
        """The state as bytes, equal exactly if the states are equal."""
        sessions = [self._saved(session, window) for session, window in sorted(self._windows.items())]
        head = self._head(len(sessions))
        return msgspec.msgpack.encode(
            WholeSnapshot(head.version, head.refused_before_ms, sessions, head.time_ms, head.step_ms)
        )

    def snapshot_in_parts(self) -> Iterator[bytes]:
        """The state at the time of the call, encoded lazily: a SnapshotHead, then each session.

        Batches may be executed between two parts.
        """
        self._generation += 1
        return self._parts(self._head(len(self._windows)), dict(self._windows))

    def _head(self, sessions: int) -> "SnapshotHead":
        return SnapshotHead(SNAPSHOT_VERSION, self._expired_ms + 1, sessions, self.time.ms, self.time.step_ms)

    def _parts(self, head: "SnapshotHead", windows: dict[SessionId, SessionWindow]) -> Iterator[bytes]:
        yield msgspec.msgpack.encode(head)
        for session in sorted(windows):
            yield msgspec.msgpack.encode(self._saved(session, windows.pop(session)))

    def restore_parts(self, parts: Iterator[bytes]) -> None:
        """Replace the state by that of these parts, and read no more. Raises OperationalError if they are invalid."""
        try:
            head = msgspec.msgpack.decode(next(parts, b""), type=SnapshotHead)
            check_version(head)
            kept = [msgspec.msgpack.decode(next(parts, b""), type=SavedSession) for _ in range(head.sessions)]
            windows = {SessionId(one.session): self._restored(one) for one in kept}
        except (ValueError, msgspec.DecodeError) as error:
            raise OperationalError(f"a snapshot of sessions does not parse: {error}; take another one") from error
        self._begin(head, windows)

    def _begin(self, head: "SnapshotHead | WholeSnapshot", windows: dict[SessionId, SessionWindow]) -> None:
        self._windows, self._expired_ms = windows, head.refused_before_ms - 1
        self.time = AgreedTime(self._limits.time)
        self.time.ms, self.time.step_ms = head.time_ms, head.step_ms or self._limits.time.advance_ms_max
        self._gaps, self._last_used = {session: None for session, window in windows.items() if window.has_gaps}, {}
        for session, window in windows.items():
            self._note_use(session, window.last_ms)
        self._latest_use_ms = max((window.last_ms for window in windows.values()), default=0)
        self._results_bytes = sum(window.results_bytes for window in windows.values())
        self._held_bytes = sum(window.held_bytes for window in windows.values())

    def _saved(self, session: SessionId, window: SessionWindow) -> "SavedSession":
        return SavedSession(
            session,
            window.last_ms,
            window.acknowledged,
            window.kept_from,
            list(zip(window.starts, window.ends, strict=True)),
            list(window.encoded()),
        )

    def restore(self, snapshot: bytes) -> None:
        """Replace the state by that of a snapshot. Raises OperationalError if it is invalid."""
        try:
            kept = msgspec.msgpack.decode(snapshot, type=WholeSnapshot)
            check_version(kept)
            windows = {SessionId(one.session): self._restored(one) for one in kept.sessions}
        except (ValueError, msgspec.DecodeError) as error:
            raise OperationalError(f"a snapshot of sessions does not parse: {error}; take another one") from error
        self._begin(kept, windows)

    def _restored(self, kept: "SavedSession") -> SessionWindow:
        window = SessionWindow(kept.last_ms, kept.acknowledged, kept.kept_from, generation=self._generation)
        window.starts = [start for start, _ in kept.executed]
        window.ends = [end for _, end in kept.executed]
        for first, results in kept.results:
            window.insert(ResultRange(first, len(self._codec.decode(results)), results))
        return window

    def digest(self) -> bytes:
        """32 bytes, equal at two replicas exactly if their sessions are equal."""
        return hashlib.blake2b(self.snapshot(), digest_size=32).digest()
