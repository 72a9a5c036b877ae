"""The queue of encoded messages for one peer: bounded, and sent in frames of limited size.

Messages that do not fit are dropped and counted; the core repeats what matters. While the peer is not connected, the
newest messages are kept.
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
    """Encoded messages for one peer that are not yet written to a connection. `name` and `address` are for the log."""

    name: str
    address: Address
    limits: TransportLimits
    _queue: deque[bytes] = field(default_factory=deque)
    _bytes: int = 0
    _overflowing: bool = False
    _has_urgent: bool = False

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def is_due(self) -> bool:
        """Whether to send the queue at the end of this turn: it has more than a few messages that can wait."""
        return self._has_urgent or self._bytes > self.limits.linger_bytes_max

    def enqueue(self, data: bytes, *, connected: bool, buffered_bytes: int = 0, can_wait: bool = False) -> int:
        """Queue one message behind the `buffered_bytes` of the connection. Returns how many messages were dropped."""
        self._has_urgent = self._has_urgent or not can_wait
        size = message_bytes(data)
        if size > FRAME_BYTES_MAX:
            log.warning("a message of %d bytes is over the limit of a frame and was dropped", size)
            return 1
        if not connected:
            return self._keep_newest(data, size)
        waiting = self._bytes + size + buffered_bytes
        fits = waiting <= self.limits.peer_queue_bytes_max
        if fits:
            self._queue.append(data)
            self._bytes += size
            # Hysteresis: the next warning follows only after the queue was half empty, not each time it is full.
            self._overflowing = self._overflowing and 2 * waiting > self.limits.peer_queue_bytes_max
            return 0
        if not self._overflowing:
            log.warning("%s at %s is too slow: %d bytes wait for it", self.name, self.address, waiting)
        self._overflowing = True
        return 1

    def _keep_newest(self, data: bytes, size: int) -> int:
        """Queue for the next connection; the oldest messages are dropped, so that a dead peer costs little memory."""
        self._queue.append(data)
        self._bytes += size
        dropped = 0
        while self._bytes > self.limits.disconnected_queue_bytes_max:
            self._bytes -= message_bytes(self._queue.popleft())
            dropped += 1
        return dropped

    def next_frame(self, stamp: Stamp) -> tuple[bytes, int]:
        """Remove the oldest messages and return them as one frame of at most the target size, with their number.

        A single larger message is sent in a frame of its own. The queue must not be empty. `stamp` is taken
        now, when the frame is sent, and applies to all its messages.
        """
        messages: list[bytes] = []
        size = 0
        while self._queue and (not messages or size + message_bytes(self._queue[0]) <= self.limits.frame_bytes_target):
            message = self._queue.popleft()
            messages.append(message)
            size += message_bytes(message)
        self._bytes -= size
        self._has_urgent = self._has_urgent and bool(self._queue)
        return encode_messages(messages, stamp), len(messages)
