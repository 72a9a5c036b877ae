"""The known but unexecuted indexes of one leader, in order, each with the tick at which it became known.

Guarantees that memory grows with the number of messages and not with the numbers in them: one message may name an index
a million above the highest known one. So a long gap is stored as a range (a span), and split into single entries a few
at a time, from its beginning.
"""

from collections import OrderedDict
from collections.abc import Iterator

from pydsm.core.types.ids import Tick

_SPLIT_INDEXES = 256
"""Indexes split off a span at a time; a shorter gap is stored as single entries."""


class Unexecuted:
    """An ascending mapping from index to tick. Indexes are added at the end only, and removed anywhere."""

    __slots__ = ("_removed", "_singles", "_spans", "_spans_size")

    def __init__(self) -> None:
        self._singles: OrderedDict[int, Tick] = OrderedDict()
        """The lowest indexes. An OrderedDict, because finding the first entry of a plain dictionary becomes slower and
        slower while entries are removed from its front."""
        self._spans: list[tuple[int, int, Tick]] = []
        """(first, last, tick) of all higher indexes, ascending; not empty only after a long gap."""
        self._removed: dict[int, None] = {}
        """Indexes inside spans that were removed."""
        self._spans_size = 0

    def extend(self, first: int, last: int, now: Tick) -> None:
        """Add the indexes `first` to `last`; they must be above all that were added before."""
        if self._spans or last - first >= _SPLIT_INDEXES:
            self._append_span(first, last, now)
            if not self._singles:
                self._split_span()
        elif first == last:
            self._singles[first] = now
        else:
            self._singles.update(dict.fromkeys(range(first, last + 1), now))

    def _append_span(self, first: int, last: int, now: Tick) -> None:
        self._spans_size += last + 1 - first
        if self._spans and self._spans[-1][2] == now:
            first = self._spans.pop()[0]
        self._spans.append((first, last, now))

    def _split_span(self) -> None:
        """Move the lowest indexes of the spans to single entries."""
        while self._spans and not self._singles:
            first, last, tick = self._spans[0]
            end = min(last + 1, first + _SPLIT_INDEXES)
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
            self._split_span()

    def __contains__(self, index: int) -> bool:
        if index in self._singles:
            return True
        spans = self._spans
        return bool(spans) and spans[0][0] <= index <= spans[-1][1] and index not in self._removed

    def __len__(self) -> int:
        return len(self._singles) + self._spans_size

    def __iter__(self) -> Iterator[int]:
        return iter(self._singles) if not self._spans else (index for index, _ in self.items())

    def known_since(self, index: int) -> Tick | None:
        """The tick at which this index became known; None if it is not in the mapping."""
        if index in self._singles:
            return self._singles[index]
        if index not in self:
            return None
        return next((tick for first, last, tick in self._spans if first <= index <= last), None)

    def items(self) -> Iterator[tuple[int, Tick]]:
        """(index, tick), ascending by index."""
        yield from self._singles.items()
        for first, last, tick in self._spans:
            for index in range(first, last + 1):
                if index not in self._removed:
                    yield index, tick
