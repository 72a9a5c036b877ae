"""Limits the memory of the results of one batch.

Many short commands can read one large value many times. Guarantees that the results of a batch use at most about
`RESULTS_BYTES_MAX`. Every replica that executes a batch with results counts in the same way: the lengths of values,
independent of their representation, in the order of the batch. Where results are not used, they are not counted, and
the limit never changes the state.
"""

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.keyspace import Keyspace

RESULTS_BYTES_MAX = 1 << 30
"""Bytes of the results of one batch. Equals the default limit on unread replies of all clients; enough for 1000 values
of 1 MiB."""
_ELEMENT_BYTES = 64
"""Counted for each element of an array; its content is shared with the state."""
_SMALL_BYTES = 4096
"""A result up to this size is always returned, so that commands with small results do not fail because of others."""


def limited(space: Keyspace, result: Result) -> Result:
    """The result of a command, or an error if the results of the batch are over the limit."""
    if isinstance(result, bytes):
        size = len(result)
    elif isinstance(result, list | dict | tuple):
        size = _ELEMENT_BYTES * len(result)
    else:
        return result
    return too_much() if take(space, size) else result


def take(space: Keyspace, size: int) -> bool:
    """Count `size` bytes. Returns True if they exceed the limit; then they are not counted."""
    if size > _SMALL_BYTES and space.given_bytes + size > RESULTS_BYTES_MAX:
        return True
    space.given_bytes += size
    return False


def count_all(space: Keyspace, size: int) -> bool:
    """Count the results of several commands. Returns False if they exceed the limit; then none is counted."""
    if space.given_bytes + size > RESULTS_BYTES_MAX:
        return False
    space.given_bytes += size
    return True


def too_much() -> CommandFailed:
    """The error that replaces the result."""
    return CommandFailed(
        f"ERR the results of the commands that were executed together are over {RESULTS_BYTES_MAX} bytes: a command "
        "that writes was executed, but its result is omitted; request less data at a time"
    )
