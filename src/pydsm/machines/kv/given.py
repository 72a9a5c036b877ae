"""How much the results of one batch may hold in memory together.

Many short commands can ask for one large value again and again. Guards that no batch makes a replica hold more than
about `RESULTS_BYTES_MAX`. Every replica that executes a batch for its results counts alike: by the lengths of values,
not by how they are kept, and in the order of the batch. Where nobody looks at the results, they decide nothing.
"""

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.keyspace import Keyspace

RESULTS_BYTES_MAX = 1 << 30
"""Of one batch. As many as all clients may leave unread by default; a batch of 1000 values of 1 MiB is within."""
_ELEMENT_BYTES = 64
"""Counted for an element of an array, whose bytes are those of the state."""
_SMALL_BYTES = 4096
"""A result up to this size is given in any case, so that commands which ask for little do not fail for others."""


def limited(space: Keyspace, result: Result) -> Result:
    """The result of a command, or an error where the batch has given too much already."""
    if isinstance(result, bytes):
        size = len(result)
    elif isinstance(result, list | dict | tuple):
        size = _ELEMENT_BYTES * len(result)
    else:
        return result
    return too_much() if take(space, size) else result


def take(space: Keyspace, size: int) -> bool:
    """Count so many bytes; True where they are too many, and not counted therefore."""
    if size > _SMALL_BYTES and space.given_bytes + size > RESULTS_BYTES_MAX:
        return True
    space.given_bytes += size
    return False


def count_all(space: Keyspace, size: int) -> bool:
    """Count the results of several commands; False where they are too many together, and none is counted."""
    if space.given_bytes + size > RESULTS_BYTES_MAX:
        return False
    space.given_bytes += size
    return True


def too_much() -> CommandFailed:
    """What is told instead of the result."""
    return CommandFailed(
        f"ERR the results of the commands that were executed together are over {RESULTS_BYTES_MAX} bytes: a command "
        "that writes was executed, and its result is left out; ask for less at a time"
    )
