"""What waits for one peer: bounded, in frames of a good size, the newest kept for one that is away.

Whatever does not fit is dropped and said to be, because the core repeats what matters.
"""

import logging
from collections import deque
from dataclasses import dataclass, field

from pydsm.transport.address import Address
from pydsm.transport.frames import FRAME_BYTES_MAX, Stamp, encode_messages, message_bytes
from pydsm.transport.limits import TransportLimits

log = logging.getLogger("pydsm.transport")


@dataclass(slots=True)
class Backlog:
    """Encoded messages for one peer that have not been given to a connection. `name` is what people call the peer."""

    name: str
    address: Address
    limits: TransportLimits
    _queue: deque[bytes] = field(default_factory=deque)
    _bytes: int = 0
    _overflowing: bool = False
    _pressing: bool = False

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def is_due(self) -> bool:
        """Whether there is more here than a few messages that can wait."""
        return self._pressing or self._bytes > self.limits.patient_bytes_max

    def take(self, data: bytes, *, connected: bool, elsewhere_bytes: int = 0, can_wait: bool = False) -> int:
        """Queue one message behind `elsewhere_bytes` that the connection holds already; how many were dropped."""
        self._pressing = self._pressing or not can_wait
        size = message_bytes(data)
        if size > FRAME_BYTES_MAX:
            log.warning("a message of %d bytes is over the limit of a frame and was dropped", size)
            return 1
        if not connected:
            return self._keep_newest(data, size)
        waiting = self._bytes + size + elsewhere_bytes
        fits = waiting <= self.limits.peer_queue_bytes_max
        if fits:
            self._queue.append(data)
            self._bytes += size
            # Half of it must have gone before the peer counts as well again: at the limit, it comes and goes.
            self._overflowing = self._overflowing and 2 * waiting > self.limits.peer_queue_bytes_max
            return 0
        if not self._overflowing:
            log.warning("%s at %s is too slow: %d bytes wait for it", self.name, self.address, waiting)
        self._overflowing = True
        return 1

    def _keep_newest(self, data: bytes, size: int) -> int:
        """A connection that is about to come finds what was said lately, a peer that is gone costs little memory."""
        self._queue.append(data)
        self._bytes += size
        dropped = 0
        while self._bytes > self.limits.disconnected_queue_bytes_max:
            self._bytes -= message_bytes(self._queue.popleft())
            dropped += 1
        return dropped

    def next_frame(self, stamp: Stamp) -> tuple[bytes, int]:
        """The oldest messages as one frame of about the wanted size, and how many they are. Not of an empty one.

        `stamp` is that of now, when the frame leaves: it holds for all messages in it.
        """
        run: list[bytes] = []
        size = 0
        while self._queue and (not run or size + message_bytes(self._queue[0]) <= self.limits.frame_bytes_wanted):
            message = self._queue.popleft()
            run.append(message)
            size += message_bytes(message)
        self._bytes -= size
        self._pressing = self._pressing and bool(self._queue)
        return encode_messages(run, stamp), len(run)
