"""Which instances of one leader are heard of and not executed, in order, each with the tick of the first hearing.

Guards that memory grows with what peers say and not with the numbers that they say: one message may name an index a
million beyond what is known, so a long gap is kept as a range and taken apart a little at a time, from its beginning.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator

from pydsm.core.ids import Tick

_TAKEN_APART = 256
"""Indexes of ranges that are single entries at a time; a gap that is not longer never becomes a range."""


class Unexecuted:
    """An ascending mapping from index to tick. Indexes are added at its end only, and removed anywhere."""

    __slots__ = ("_removed", "_singles", "_spans", "_spans_size")

    def __init__(self) -> None:
        self._singles: OrderedDict[int, Tick] = OrderedDict()
        """The lowest indexes. Ordered, because a plain dictionary finds its first entry ever more slowly while it is
        emptied from the front."""
        self._spans: deque[tuple[range, Tick]] = deque()
        """All that is above the single ones; only where there was a long gap."""
        self._removed: set[int] = set()
        """Indexes in spans that are not there any more. Nothing depends on the order of this set."""
        self._spans_size = 0

    def extend(self, first: int, last: int, now: Tick) -> None:
        """Add `first` to `last`, which are above all that was added before."""
        if self._spans or last - first >= _TAKEN_APART:
            self._append_span(range(first, last + 1), now)
            if not self._singles:
                self._take_apart()
        elif first == last:
            self._singles[first] = now
        else:
            self._singles.update(dict.fromkeys(range(first, last + 1), now))

    def _append_span(self, added: range, now: Tick) -> None:
        self._spans_size += len(added)
        if self._spans and self._spans[-1][1] == now:
            before, _ = self._spans[-1]
            self._spans[-1] = (range(before.start, added.stop), now)
        else:
            self._spans.append((added, now))

    def _take_apart(self) -> None:
        """Make single entries of the lowest indexes in spans."""
        while self._spans and not self._singles:
            span, tick = self._spans[0]
            head, tail = span[:_TAKEN_APART], span[_TAKEN_APART:]
            for index in head:
                if index in self._removed:
                    self._removed.remove(index)
                else:
                    self._singles[index] = tick
                    self._spans_size -= 1
            if tail:
                self._spans[0] = (tail, tick)
            else:
                self._spans.popleft()

    def __delitem__(self, index: int) -> None:
        if self._singles.pop(index, None) is None:
            if index not in self:
                raise KeyError(index)
            self._removed.add(index)
            self._spans_size -= 1
        elif not self._singles and self._spans:
            self._take_apart()

    def __contains__(self, index: int) -> bool:
        if index in self._singles:
            return True
        spans = self._spans
        return bool(spans) and spans[0][0].start <= index < spans[-1][0].stop and index not in self._removed

    def __len__(self) -> int:
        return len(self._singles) + self._spans_size

    def __iter__(self) -> Iterator[int]:
        return iter(self._singles) if not self._spans else (index for index, _ in self.items())

    def items(self) -> Iterator[tuple[int, Tick]]:
        """Index and tick, in order of the indexes."""
        yield from self._singles.items()
        for span, tick in self._spans:
            for index in span:
                if index not in self._removed:
                    yield index, tick
