"""Cuts the keys of a state into parts, the same on every replica, without stopping for long.

Which part a key is in follows from the key and from how many keys there are, so equal states have equal parts.
"""

from collections.abc import Iterator
from zlib import crc32

_KEYS_PER_PART = 512
_KEYS_PER_STEP = 4000


def partitions_for(keys: int) -> int:
    """How many parts so many keys are cut into: a power of two, so that each has about 512 of them."""
    parts = 1
    while parts * _KEYS_PER_PART < keys:
        parts *= 2
    return parts


def partition_keys(keys: list[bytes]) -> Iterator[list[bytes] | None]:
    """All parts, each in order, in order of their numbers; None for a step without a part.

    `keys` is used up, a few thousand a step.
    """
    parts = partitions_for(len(keys))
    found: list[list[bytes]] = [[] for _ in range(parts)]
    while keys:
        some = keys[-_KEYS_PER_STEP:]
        del keys[-_KEYS_PER_STEP:]
        for key in some:
            found[crc32(key) % parts].append(key)
        yield None
    found.reverse()
    while found:
        yield sorted(found.pop())
