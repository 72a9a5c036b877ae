"""Results of requests in a row, as bytes: what a session keeps of one run, counted to the byte and freed as it goes.

Decides nothing. Guards that what is dropped leaves memory at once: no list of a batch lives on because one of its
results does, nor a large value because it was read once. Results are MessagePack, so stretches are put together and
taken apart without being decoded as a whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

StoredResult = object
Encode = Callable[[list[StoredResult]], bytes]
"""Makes a MessagePack array of results."""
Decode = Callable[[bytes], list[StoredResult]]

RESULT_BYTES = 32
"""Counted for each kept result besides its encoding: it stands for what the process needs to find it again."""

_PLAIN = frozenset((bytes, str, int, float, bool, type(None)))
_SIZED = frozenset((bytes, str))
_SMALL, _MIDDLE = 1 << 4, 1 << 16


@dataclass(frozen=True, slots=True)
class Codec:
    """One list of results as bytes, and back."""

    encode: Encode
    decode: Decode


class ResultRange:
    """Results of sequences from `first` on: in one piece until some of them are dropped, then one by one."""

    __slots__ = ("_singles", "_together", "count", "first", "size_bytes")

    def __init__(self, first: int, count: int, together: bytes) -> None:
        self.first = first
        self.count = count
        self.size_bytes = len(together) - _header_bytes(count) + RESULT_BYTES * count
        self._together = together
        self._singles: list[bytes] | None = None

    @property
    def end(self) -> int:
        """The sequence behind the last."""
        return self.first + self.count

    def copy(self) -> "ResultRange":
        """One that goes its own way; the bytes are shared, since they never change."""
        made = ResultRange.__new__(ResultRange)
        made.first, made.count, made.size_bytes, made._together = (
            self.first,
            self.count,
            self.size_bytes,
            self._together,
        )
        made._singles = None if self._singles is None else list(self._singles)
        return made

    def drop(self, below: int, codec: Codec) -> None:
        """Keep only what is of this sequence and later ones; at least one result is."""
        singles = self._take_apart(codec)
        count = below - self.first
        self.size_bytes -= sum(map(len, singles[:count])) - count + RESULT_BYTES * count
        del singles[:count]
        self.first, self.count = below, self.count - count

    def excess(self, bytes_max: int, codec: Codec) -> int:
        """How many of its oldest results have to go until the others fit."""
        size, dropped = self.size_bytes, 0
        for single in self._take_apart(codec):
            if size <= bytes_max:
                break
            size -= len(single) - 1 + RESULT_BYTES
            dropped += 1
        return dropped

    def result(self, sequence: int, codec: Codec) -> StoredResult:
        """One of them."""
        return codec.decode(self._take_apart(codec)[sequence - self.first])[0]

    def bodies(self) -> Sequence[bytes]:
        """Encoded results without array headers around them, in as many pieces as they are in."""
        if self._singles is None:
            return (self._together[_header_bytes(self.count) :],)
        return [single[1:] for single in self._singles]

    def _take_apart(self, codec: Codec) -> list[bytes]:
        if self._singles is None:
            results = codec.decode(self._together)
            self._singles = [self._together] if self.count == 1 else [codec.encode([result]) for result in results]
            self._together = b""
        return self._singles


def joined(stretches: Sequence[ResultRange]) -> bytes:
    """The encoding of all their results as one list: the same bytes in whatever stretches they are."""
    count = sum(stretch.count for stretch in stretches)
    return _header(count) + b"".join([body for stretch in stretches for body in stretch.bodies()])


def weight(results: Sequence[StoredResult], enough: int) -> int:
    """A size that the encoding of these results certainly has, found without encoding them; not exact beyond `enough`.

    A command may give one large value a million times over: as objects that is nothing, as bytes more than there is.
    """
    kinds = frozenset(map(type, results))
    if kinds <= _PLAIN:
        if kinds <= _SIZED:
            return len(results) + sum(map(len, results))  # type: ignore[arg-type]  # all are bytes or str
        return len(results) + sum([len(one) for one in results if isinstance(one, bytes | str)])
    return _deep_weight(results, enough)


def _deep_weight(results: Sequence[StoredResult], enough: int) -> int:
    size = 0
    waiting = [iter(results)]
    while waiting and size <= enough:
        for one in waiting[-1]:
            size += 1
            if isinstance(one, bytes | str):
                size += len(one)
            elif isinstance(one, list | tuple):
                waiting.append(iter(one))
                break
            elif isinstance(one, dict):
                waiting.append(iter([part for pair in one.items() for part in pair]))
                break
            if size > enough:
                break
        else:
            waiting.pop()
    return size


def _header_bytes(count: int) -> int:
    return 1 if count < _SMALL else 3 if count < _MIDDLE else 5


def _header(count: int) -> bytes:
    """Of a MessagePack array."""
    if count < _SMALL:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2, "big") if count < _MIDDLE else b"\xdd" + count.to_bytes(4, "big")
