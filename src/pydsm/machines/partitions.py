"""Divides the keys of a state into partitions, the same on every replica, in short steps.

The partition of a key depends on the key and on the number of keys, so equal states have equal partitions.
"""

from collections.abc import Iterator
from zlib import crc32

_KEYS_PER_PART = 512
_KEYS_PER_STEP = 4000


def partitions_for(keys: int) -> int:
    """The number of partitions for this number of keys: a power of two, so that each has at most about 512 keys."""
    parts = 1
    while parts * _KEYS_PER_PART < keys:
        parts *= 2
    return parts


def partition_keys(keys: list[bytes]) -> Iterator[list[bytes] | None]:
    """All partitions in order of their numbers, the keys of each sorted; None for a step without a partition.

    Removes the keys from `keys`, a few thousand at each step.
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
