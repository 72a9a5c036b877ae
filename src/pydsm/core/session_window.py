"""What one session has executed, and with which results: a part of `sessions`, which decides what is executed.

Guards that the same batches, in whatever order those came that commute, leave the same state: ranges of sequences are
merged, and stretches of results can be told in the one form that does not show in which batches they came.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

Result = object


@dataclass(frozen=True, slots=True)
class RequestExpired:
    """A request that came again after its result was dropped: not executed now, executed before or given up."""

    reason: str = "its result was acknowledged, or given up, and is dropped"


@dataclass(frozen=True, slots=True)
class Postponed:
    """The result of requests that were not executed because the one that must be first is not: nothing was recorded.

    Not an answer for clients: whoever has proposed them proposes them again.
    """


POSTPONED = Postponed()


@dataclass(slots=True)
class SessionWindow:
    """One session. Executed sequences are disjoint ranges in ascending order; most often there is one."""

    last_ms: int
    acknowledged: int = 0
    kept_from: int = 0
    """Results below are dropped: acknowledged, or too many."""
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    """The sequences at which stored stretches of results begin, ascending."""
    results: dict[int, Sequence[Result]] = field(default_factory=dict)
    kept: int = 0
    """How many results are in all stretches together."""

    def copy(self) -> "SessionWindow":
        """One that goes its own way. Stretches of results are shared, since they never change."""
        window = SessionWindow(self.last_ms, self.acknowledged, self.kept_from)
        window.starts, window.ends, window.firsts = list(self.starts), list(self.ends), list(self.firsts)
        window.results, window.kept = dict(self.results), self.kept
        return window

    def claim(self, start: int, end: int) -> list[tuple[int, int]]:
        """Note that sequences from `start` to before `end` are executed; gives the ranges that were not before."""
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
        """Whether this one is executed, or never will be."""
        place = bisect_right(self.starts, sequence) - 1
        return place >= 0 and sequence < self.ends[place]

    def keep(self, first: int, results: Sequence[Result]) -> None:
        """Store what was given for sequences from `first` on, unless nobody will ask for it."""
        if first + len(results) > self.kept_from:
            if self.firsts and first < self.firsts[-1]:
                self.firsts.insert(bisect_left(self.firsts, first), first)
            else:
                self.firsts.append(first)
            self.results[first] = results
            self.kept += len(results)

    def acknowledge(self, acknowledged: int) -> None:
        """The client has the answers below, or wants them no more."""
        if acknowledged > self.acknowledged:
            self.acknowledged = acknowledged
            self.drop(acknowledged)

    def drop(self, below: int) -> None:
        """Keep no results below this sequence."""
        if below <= self.kept_from:
            return
        self.kept_from = below
        firsts, done = self.firsts, 0
        while done < len(firsts) and firsts[done] + len(self.results[firsts[done]]) <= below:
            self.kept -= len(self.results.pop(firsts[done]))
            done += 1
        del firsts[:done]

    def result(self, sequence: int) -> Result:
        """What an executed request gave, if that is still kept."""
        place = bisect_right(self.firsts, sequence) - 1
        if place >= 0 and sequence >= self.kept_from:
            stretch = self.results[self.firsts[place]]
            if sequence - self.firsts[place] < len(stretch):
                return stretch[sequence - self.firsts[place]]
        return RequestExpired()

    def stretches(self) -> Iterator[tuple[int, list[Result]]]:
        """The kept results, in the one form that does not tell in which batches they came."""
        pairs = [
            (first + place, result)
            for first in self.firsts
            for place, result in enumerate(self.results[first])
            if first + place >= self.kept_from
        ]
        for _, stretch in groupby(enumerate(pairs), lambda item: item[1][0] - item[0]):
            together = [pair for _, pair in stretch]
            yield together[0][0], [result for _, result in together]
