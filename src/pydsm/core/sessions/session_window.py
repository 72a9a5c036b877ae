"""The executed sequences and kept results of one session. `sessions` decides what is executed.

Guarantees that the same batches leave the same state in any order of those that commute: ranges of sequences are
merged, and results are encoded in one canonical form that does not depend on the batches in which they came.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydsm.core.sessions.result_ranges import Codec, ResultRange, StoredResult, joined

__all__ = ["POSTPONED", "RequestExpired", "SessionWindow", "StoredResult"]

SESSION_BYTES = 512
"""Estimated memory of a session without its results and ranges."""
RANGE_BYTES = 96
"""Estimated memory of a range of executed sequences."""


@dataclass(frozen=True, slots=True)
class RequestExpired:
    """Result of a request repeated after its result was dropped: not executed now; executed before or given up."""

    reason: str = "its result was acknowledged or given up, and has been dropped"


@dataclass(frozen=True, slots=True)
class Postponed:
    """Result of requests not executed because the request that must precede them is not: nothing was recorded.

    Not an answer for clients: the leader proposes the requests again.
    """


POSTPONED = Postponed()


@dataclass(slots=True)
class SessionWindow:
    """One session. Executed sequences are disjoint ranges in ascending order, usually one."""

    last_ms: int
    acknowledged: int = 0
    kept_from: int = 0
    """Results below this sequence are dropped: acknowledged, or above a limit."""
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    """The first sequence of each range of kept results, ascending."""
    stretches: list[ResultRange] = field(default_factory=list)
    """The ranges of kept results, in the same order."""
    kept: int = 0
    """Number of kept results."""
    results_bytes: int = 0
    """Counted size of the kept results."""
    generation: int = 0
    """Snapshots up to this number do not share this window, see `Sessions`."""

    def copy(self, generation: int = 0) -> "SessionWindow":
        """An independent copy."""
        window = SessionWindow(self.last_ms, self.acknowledged, self.kept_from, generation=generation)
        window.starts, window.ends, window.firsts = list(self.starts), list(self.ends), list(self.firsts)
        window.stretches = [stretch.copy() for stretch in self.stretches]
        window.kept, window.results_bytes = self.kept, self.results_bytes
        return window

    @property
    def held_bytes(self) -> int:
        """Counted memory of the whole session."""
        return self.results_bytes + RANGE_BYTES * len(self.starts) + SESSION_BYTES

    def claim(self, start: int, end: int) -> list[tuple[int, int]]:
        """Mark the sequences from `start` to below `end` as executed. Returns the ranges that were not before."""
        starts, ends = self.starts, self.ends
        if not ends or start > ends[-1]:
            starts.append(start)
            ends.append(end)
            return [(start, end)]
        if start == ends[-1]:
            ends[-1] = end
            return [(start, end)]
        low, high = bisect_left(ends, start), bisect_right(starts, end)
        fresh = []
        at = start
        for known_start, known_end in zip(starts[low:high], ends[low:high], strict=True):
            if at < known_start:
                fresh.append((at, min(known_start, end)))
            at = max(at, known_end)
        if at < end:
            fresh.append((at, end))
        merged = min([start, *starts[low:high]]), max([end, *ends[low:high]])
        starts[low:high], ends[low:high] = [merged[0]], [merged[1]]
        return fresh

    def has(self, sequence: int) -> bool:
        """Whether this sequence is executed, or given up."""
        place = bisect_right(self.starts, sequence) - 1
        return place >= 0 and sequence < self.ends[place]

    def keep(self, first: int, results: Sequence[StoredResult], codec: Codec, bytes_max: int) -> None:
        """Store the results of sequences from `first` on, except those below `kept_from`.

        Above `bytes_max` the oldest results are dropped. The remaining ones depend only on which results were ever
        stored, not on their order: a result that was dropped once would have been dropped in any other order too.
        """
        if first < self.kept_from:
            results = results[self.kept_from - first :]
            first = self.kept_from
        if results:
            self.insert(ResultRange(first, len(results), codec.encode(list(results))))
            if self.results_bytes > bytes_max:
                self._shorten(codec, bytes_max)

    def insert(self, stretch: ResultRange) -> None:
        """Add a range of results; none of its sequences may have a kept result."""
        if self.firsts and stretch.first < self.firsts[-1]:
            place = bisect_left(self.firsts, stretch.first)
            self.firsts.insert(place, stretch.first)
            self.stretches.insert(place, stretch)
        else:
            self.firsts.append(stretch.first)
            self.stretches.append(stretch)
        self.kept += stretch.count
        self.results_bytes += stretch.size_bytes

    def acknowledge(self, acknowledged: int, codec: Codec) -> None:
        """Drop the results below `acknowledged`: the client has received them, or does not need them."""
        if acknowledged > self.acknowledged:
            self.acknowledged = acknowledged
            self.drop(acknowledged, codec)

    def drop(self, below: int, codec: Codec) -> None:
        """Drop the results below this sequence."""
        if below <= self.kept_from:
            return
        self.kept_from = below
        firsts, stretches, done = self.firsts, self.stretches, 0
        while done < len(firsts) and stretches[done].end <= below:
            self.kept -= stretches[done].count
            self.results_bytes -= stretches[done].size_bytes
            done += 1
        del firsts[:done], stretches[:done]
        if firsts and firsts[0] < below:
            cut = stretches[0]
            self.kept -= below - cut.first
            self.results_bytes -= cut.size_bytes
            cut.drop(below, codec)
            firsts[0] = below
            self.results_bytes += cut.size_bytes

    def drop_all(self) -> None:
        """Drop all results kept now."""
        if self.stretches:
            self.kept_from = self.stretches[-1].end
            self.firsts, self.stretches = [], []
            self.kept = self.results_bytes = 0

    def _shorten(self, codec: Codec, bytes_max: int) -> None:
        while self.results_bytes > bytes_max:
            oldest = self.stretches[0]
            rest = self.results_bytes - oldest.size_bytes
            self.drop(oldest.end if rest >= bytes_max else oldest.first + oldest.excess(bytes_max - rest, codec), codec)

    def result(self, sequence: int, codec: Codec) -> StoredResult:
        """The result of an executed request; RequestExpired if it is not kept."""
        place = bisect_right(self.firsts, sequence) - 1
        if place >= 0 and sequence < self.stretches[place].end:
            return self.stretches[place].result(sequence, codec)
        return RequestExpired()

    def has_result(self, sequence: int) -> bool:
        """Whether the result of a request is kept."""
        place = bisect_right(self.firsts, sequence) - 1
        return place >= 0 and sequence < self.stretches[place].end

    @property
    def has_gaps(self) -> bool:
        """Whether a sequence from 1 to the last executed one is not executed."""
        return len(self.starts) > 1 or self.starts[0] > 1

    def encoded(self) -> Iterator[tuple[int, bytes]]:
        """(first sequence, encoded results) of each run of kept results, in canonical form, ascending."""
        place, stretches = 0, self.stretches
        while place < len(stretches):
            end = place + 1
            while end < len(stretches) and stretches[end].first == stretches[end - 1].end:
                end += 1
            yield stretches[place].first, joined(stretches[place:end])
            place = end
