"""Which instances of one leader are heard of and not executed, in order, each with the tick of the first hearing.

Guards that memory grows with what peers say and not with the numbers that they say: one message may name an index a
million beyond what is known, so a long gap is kept as a range and taken apart a little at a time, from its beginning.
"""

from collections import OrderedDict
from collections.abc import Iterator

from pydsm.core.types.ids import Tick

_TAKEN_APART = 256
"""Indexes of ranges that are single entries at a time; a gap that is not longer never becomes a range."""


class Unexecuted:
    """An ascending mapping from index to tick. Indexes are added at its end only, and removed anywhere."""

    __slots__ = ("_removed", "_singles", "_spans", "_spans_size")

    def __init__(self) -> None:
        self._singles: OrderedDict[int, Tick] = OrderedDict()
        """The lowest indexes. Ordered, because a plain dictionary finds its first entry ever more slowly while it is
        emptied from the front."""
        self._spans: list[tuple[int, int, Tick]] = []
        """All that is above the single ones, from first to last; only where there was a long gap."""
        self._removed: dict[int, None] = {}
        """Indexes in spans that are not there any more."""
        self._spans_size = 0

    def extend(self, first: int, last: int, now: Tick) -> None:
        """Add `first` to `last`, which are above all that was added before."""
        if self._spans or last - first >= _TAKEN_APART:
            self._append_span(first, last, now)
            if not self._singles:
                self._take_apart()
        elif first == last:
            self._singles[first] = now
        else:
            self._singles.update(dict.fromkeys(range(first, last + 1), now))

    def _append_span(self, first: int, last: int, now: Tick) -> None:
        self._spans_size += last + 1 - first
        if self._spans and self._spans[-1][2] == now:
            first = self._spans.pop()[0]
        self._spans.append((first, last, now))

    def _take_apart(self) -> None:
        """Make single entries of the lowest indexes in spans."""
        while self._spans and not self._singles:
            first, last, tick = self._spans[0]
            end = min(last + 1, first + _TAKEN_APART)
            for index in range(first, end):
                if index in self._removed:
                    del self._removed[index]
                else:
                    self._singles[index] = tick
                    self._spans_size -= 1
            self._spans[:1] = [(end, last, tick)] if end <= last else []

    def __delitem__(self, index: int) -> None:
        if self._singles.pop(index, None) is None:
            if index not in self:
                raise KeyError(index)
            self._removed[index] = None
            self._spans_size -= 1
        elif not self._singles and self._spans:
            self._take_apart()

    def __contains__(self, index: int) -> bool:
        if index in self._singles:
            return True
        spans = self._spans
        return bool(spans) and spans[0][0] <= index <= spans[-1][1] and index not in self._removed

    def __len__(self) -> int:
        return len(self._singles) + self._spans_size

    def __iter__(self) -> Iterator[int]:
        return iter(self._singles) if not self._spans else (index for index, _ in self.items())

    def items(self) -> Iterator[tuple[int, Tick]]:
        """Index and tick, in order of the indexes."""
        yield from self._singles.items()
        for first, last, tick in self._spans:
            for index in range(first, last + 1):
                if index not in self._removed:
                    yield index, tick
