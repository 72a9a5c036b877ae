"""Encoded results of consecutive requests of one session, counted exactly in bytes.

Guarantees that dropped results leave memory immediately: neither is a batch's list of results kept because of one
result in it, nor a decoded large value because it was read once. Results are MessagePack, so ranges are joined and
split without decoding them as a whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

StoredResult = object
Encode = Callable[[list[StoredResult]], bytes]
"""Makes a MessagePack array of results."""
Decode = Callable[[bytes], list[StoredResult]]

RESULT_BYTES = 32
"""Counted for each kept result in addition to its encoding: estimated memory to find it."""

_PLAIN = frozenset((bytes, str, int, float, bool, type(None)))
_SIZED = frozenset((bytes, str))
_SMALL, _MIDDLE = 1 << 4, 1 << 16


@dataclass(frozen=True, slots=True)
class Codec:
    """Encodes and decodes lists of results."""

    encode: Encode
    decode: Decode


class ResultRange:
    """Results of `count` sequences from `first` on: encoded together, or one by one after a partial read or drop."""

    __slots__ = ("_singles", "_together", "count", "first", "size_bytes")

    def __init__(self, first: int, count: int, together: bytes) -> None:
        self.first = first
        self.count = count
        self.size_bytes = len(together) - _header_bytes(count) + RESULT_BYTES * count
        self._together = together
        self._singles: list[bytes] | None = None

    @property
    def end(self) -> int:
        """The sequence after the last one."""
        return self.first + self.count

    def copy(self) -> "ResultRange":
        """An independent copy. The bytes are shared, because they never change."""
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
        """Drop the results of sequences below `below`, which must leave at least one result."""
        singles = self._take_apart(codec)
        count = below - self.first
        self.size_bytes -= sum(map(len, singles[:count])) - count + RESULT_BYTES * count
        del singles[:count]
        self.first, self.count = below, self.count - count

    def excess(self, bytes_max: int, codec: Codec) -> int:
        """How many of the oldest results must be dropped until the others fit into `bytes_max`."""
        size, dropped = self.size_bytes, 0
        for single in self._take_apart(codec):
            if size <= bytes_max:
                break
            size -= len(single) - 1 + RESULT_BYTES
            dropped += 1
        return dropped

    def result(self, sequence: int, codec: Codec) -> StoredResult:
        """The decoded result of one sequence in this range."""
        return codec.decode(self._take_apart(codec)[sequence - self.first])[0]

    def bodies(self) -> Sequence[bytes]:
        """The encoded results without array headers, in one or more pieces."""
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
    """All results of adjacent ranges, encoded as one list. The same bytes for any division into ranges."""
    count = sum(stretch.count for stretch in stretches)
    return _header(count) + b"".join([body for stretch in stretches for body in stretch.bodies()])


def weight(results: Sequence[StoredResult], enough: int) -> int:
    """A lower bound of the encoded size of these results in bytes, without encoding them; may stop above `enough`.

    A command may return one large value a million times: small as objects, but larger than memory as bytes.
    """
    if results and type(first := results[0]) in _SIZED and results.count(first) == len(results):
        return len(results) * (1 + len(first))  # type: ignore[arg-type]  # bytes or str; "OK" for each of many writes
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
    """The header of a MessagePack array."""
    if count < _SMALL:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2, "big") if count < _MIDDLE else b"\xdd" + count.to_bytes(4, "big")
