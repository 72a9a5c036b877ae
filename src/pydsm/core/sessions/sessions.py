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

Guards program order as well. A run with `after` stands in an instance that names its session in `Batch.retried`, so
every replica finds the same executed before it:

- As long as the request `after` is neither executed nor given up by the client, the run is left out and nothing of it
  is recorded, as if it had not been there. Its commands are answered `POSTPONED`.
- When the run is executed, requests of the session with lower sequences that are not executed by then never will be:
  the client has given them up, and a late one must not take effect behind what was sent after it.

A batch costs time for its runs, not for its requests, as long as nothing in it comes twice.
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
"""Executes commands at a Unix time in ms; one result for each."""

_USE_MS = 60_000
_FREED_PER_BATCH = 64

_encode: Encode = msgspec.msgpack.Encoder().encode
_decode: Decode = msgspec.msgpack.Decoder(list[Any]).decode


@dataclass(frozen=True, slots=True)
class _Share:
    """What becomes of one run. `window` is None where nothing is kept; then all of it is executed, or none.

    `instead` is the answer where none of it is.
    """

    window: SessionWindow | None
    first: int
    count: int
    fresh: list[tuple[int, int]]
    """Ranges of sequences that are executed now."""
    instead: StoredResult = None

    @property
    def whole(self) -> bool:
        """Whether all of it is executed now."""
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
        """Snapshots begun: each shares the windows of its moment, and whoever changes one first makes it a copy."""
        self._gaps: dict[SessionId, None] = {}
        """Sessions with gaps in what they have executed."""
        self._last_used: dict[int, list[SessionId]] = {}
        """Each session once, under a time of about when it was used, never later: what may be forgotten is found."""
        self._discarded: list[SessionWindow] = []
        """Forgotten, and freed a few at a time: the memory of very many is not given back in a moment."""
        self._results_bytes = self._held_bytes = 0
        self._latest_use_ms = 0
        """No session was used later, by agreed time."""
        self._forgotten_ms = -1
        """When the latest of all forgotten sessions began: what began up to then and is not here is refused."""
        self.time = AgreedTime(self._limits.time)
        """Agreed time, as of the last checkpoint executed here."""

    def __len__(self) -> int:
        return len(self._windows)

    def __contains__(self, session: object) -> bool:
        return session in self._windows

    @property
    def held_bytes(self) -> int:
        """What all sessions together are counted as."""
        return self._held_bytes

    @property
    def results_bytes(self) -> int:
        """What their kept results are counted as."""
        return self._results_bytes

    @property
    def results_bytes_max(self) -> int:
        """See `SessionLimits`."""
        return self._limits.results_bytes_max

    def is_full(self, session: SessionId, acknowledged: int, results_max: int) -> bool:
        """Whether so many results of a session are kept, or half of the bytes that may be.

        With an acknowledgement that drops some of them, it may be called not full though it still is.
        """
        window = self._windows.get(session)
        if window is None:
            return False
        dropped = max(0, acknowledged - window.firsts[0]) if window.firsts else 0
        too_many = window.kept >= results_max and window.kept - dropped >= results_max
        return too_many or (not dropped and 2 * window.results_bytes >= self._limits.session_results_bytes_max)

    def fate(self, id: RequestId) -> RequestState:
        """What is known of one request."""
        window, sequence = self._windows.get(session_of(id)), sequence_of(id)
        if not is_tracked(id):
            return RequestState.UNKEPT
        if window is None:
            return RequestState.FORGOTTEN if timestamp_of(id) <= self._forgotten_ms else RequestState.NEW
        if not window.has(sequence):
            return RequestState.OPEN
        return RequestState.KEPT if window.has_result(sequence) else RequestState.DROPPED

    def has_settled(self, session: SessionId, sequence: int) -> bool:
        """Whether a request is executed here, or is certain never to be."""
        window = self._windows.get(session)
        return window is not None and window.has(sequence)

    def is_forgotten(self, session: SessionId) -> bool:
        """Whether every request of this session will be refused, from now on and everywhere."""
        return session not in self._windows and is_tracked(session) and timestamp_of(session) <= self._forgotten_ms

    def grant_ms(self, now_ms: int) -> int:
        """When a session begins that is granted now: later than all that is forgotten."""
        return max(now_ms, self._forgotten_ms + 1)

    def ranges(self, session: SessionId) -> int:
        """Into how many ranges the executed sequences of a session fall; each gap is a request that was given up."""
        window = self._windows.get(session)
        return len(window.starts) if window is not None else 0

    def execute(self, batch: Batch, apply: Apply) -> list[StoredResult]:
        """Apply what was not executed before; a result for each command of the batch."""
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
        del self._discarded[-_FREED_PER_BATCH:]
        return results

    def _kept_from(self, results: Sequence[StoredResult]) -> int:
        """The place in a batch before which no results are kept, because the later ones are as much as may be."""
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
        """Have a window keep results, except so many of the first."""
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
            if timestamp_of(session) <= self._forgotten_ms:
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
        """Leave out what was executed before, and answer it with what it gave then."""
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
            results[place] = result  # also where it was acknowledged at once, and nothing is kept
        return results

    # at barriers, which every replica executes between the same batches

    def expire(self, clocks: Sequence[int]) -> None:
        """Forget sessions that have been idle for too long, gaps that were given up, and results beyond the limits.

        Only at a barrier, with the readings of clocks that it carries: then it is the same on every replica.
        """
        self.time.advance(clocks)
        self._limit_last_uses()
        self._forget_idle()
        self._close_gaps()
        if self._results_bytes > self._limits.results_bytes_max:
            self._drop_largest(self._results_bytes - self._limits.results_bytes_max)

    def _close_gaps(self) -> None:
        """What is acknowledged and was never executed is given up, and will not be."""
        gaps, self._gaps = self._gaps, {}
        for session in gaps:
            window = self._windows.get(session)
            if window is None or not window.has_gaps:
                continue  # what filled them may have come before, elsewhere
            if window.acknowledged:
                window = self._own(session)
                ranges = len(window.starts)
                window.claim(0, window.acknowledged)
                self._held_bytes += RANGE_BYTES * (len(window.starts) - ranges)
            if window.has_gaps:
                self._gaps[session] = None

    def _own(self, session: SessionId) -> SessionWindow:
        """A window that no snapshot shares, and that may be changed therefore."""
        window = self._windows[session]
        if window.generation != self._generation:
            window = self._windows[session] = window.copy(self._generation)
        return window

    def _limit_last_uses(self) -> None:
        """A last use far ahead of agreed time counts as if it was as late as a batch can be now.

        It was noted while agreed time was wrong, or by a version that took any timestamp. Every session is looked at,
        so that every replica does the same to all of them, but only when there may be such a one.
        """
        latest_ms = self.time.ms + self._limits.time.distance_ms_max
        if not self.time.ms or self._latest_use_ms <= latest_ms:
            return
        self._latest_use_ms, self._last_used = latest_ms, {}
        for session in list(self._windows):
            if self._windows[session].last_ms > latest_ms:
                self._own(session).last_ms = latest_ms
            self._note_use(session, self._windows[session].last_ms)

    def _forget_idle(self) -> None:
        """Forget what was idle for too long; looks only at what was not used since it was last looked at."""
        horizon_ms = self.time.ms - self._limits.idle_ms_max
        windows, forgotten = self._windows, self._discarded
        for at in sorted(at for at in self._last_used if at * _USE_MS < horizon_ms):
            before = len(forgotten)
            for session in self._last_used.pop(at):
                window = windows[session]
                if window.last_ms < horizon_ms:
                    forgotten.append(windows.pop(session))
                    self._forgotten_ms = max(self._forgotten_ms, timestamp_of(session))
                else:
                    self._note_use(session, window.last_ms)
            count, ranges = len(forgotten) - before, sum([len(window.starts) for window in forgotten[before:]])
            self._count(-sum([window.results_bytes for window in forgotten[before:]]))
            self._held_bytes -= count * SESSION_BYTES + ranges * RANGE_BYTES

    def _drop_largest(self, excess_bytes: int) -> None:
        """Drop all results of those sessions that keep most, until so many bytes are gone."""
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
        """All of it, as bytes that are equal exactly when the states are."""
        sessions = [self._saved(session, window) for session, window in sorted(self._windows.items())]
        head = self._head(len(sessions))
        return msgspec.msgpack.encode(
            WholeSnapshot(head.version, head.refused_before_ms, sessions, head.time_ms, head.step_ms)
        )

    def snapshot_in_parts(self) -> Iterator[bytes]:
        """The state at the moment of the call, made as it is asked for: how many sessions there are, then each of them.

        Batches may be executed between two parts.
        """
        self._generation += 1
        return self._parts(self._head(len(self._windows)), dict(self._windows))

    def _head(self, sessions: int) -> "SnapshotHead":
        return SnapshotHead(SNAPSHOT_VERSION, self._forgotten_ms + 1, sessions, self.time.ms, self.time.step_ms)

    def _parts(self, head: "SnapshotHead", windows: dict[SessionId, SessionWindow]) -> Iterator[bytes]:
        yield msgspec.msgpack.encode(head)
        for session in sorted(windows):
            yield msgspec.msgpack.encode(self._saved(session, windows.pop(session)))

    def restore_parts(self, parts: Iterator[bytes]) -> None:
        """Become what these parts say, and take no more. Raises OperationalError if they are none of this version."""
        try:
            head = msgspec.msgpack.decode(next(parts, b""), type=SnapshotHead)
            check_version(head)
            kept = [msgspec.msgpack.decode(next(parts, b""), type=SavedSession) for _ in range(head.sessions)]
            windows = {SessionId(one.session): self._restored(one) for one in kept}
        except (ValueError, msgspec.DecodeError) as error:
            raise OperationalError(f"a snapshot of sessions does not parse: {error}; take another one") from error
        self._begin(head, windows)

    def _begin(self, head: "SnapshotHead | WholeSnapshot", windows: dict[SessionId, SessionWindow]) -> None:
        self._windows, self._forgotten_ms = windows, head.refused_before_ms - 1
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
        """Become what the snapshot says. Raises OperationalError if it is none of this version."""
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
        """32 bytes that are equal on two replicas exactly when their sessions are."""
        return hashlib.blake2b(self.snapshot(), digest_size=32).digest()
