"""Limits the memory of all client connections together: incomplete commands and unread answers.

When the limit is exceeded, closes the connection that uses most. In addition, closes connections that have left a
command incomplete, or answers unread, for too long. Guarantees that clients cannot exhaust the memory of a replica,
however many they are. The limits of a single connection, which pause reading from it, are left to the connection.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

from pydsm.logs import LogLimiter

log = logging.getLogger("pydsm.serve")

_SWEEPS_PER_TIME = 8
_SWEEP_SECONDS_MAX = 1.0
_BYTES_PER_SECOND_MIN = 16 << 10


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """The limits of all ports together."""

    client_memory_bytes_max: int = 1 << 30
    """Bytes of half-sent commands and unread answers of all connections; beyond these, the connection that
    holds most is closed."""
    half_sent_seconds_max: float = 60.0
    """How long a command may be incomplete, plus one second for each 16 KiB of it received; then its
    connection is closed."""
    unread_seconds_max: float = 60.0
    """How long answers may wait while the client reads none of them; then its connection is closed."""


class Holder(Protocol):
    """A connection whose memory is limited."""

    def half_sent_bytes(self) -> int:
        """Bytes received of a command that is not complete."""
        ...

    def commands_read(self) -> int:
        """Number of complete commands, or frames of commands, received."""
        ...

    def unread_bytes(self) -> int:
        """Bytes of answers that the client has not read."""
        ...

    def taken_bytes(self) -> int:
        """Bytes of all answers that the client has read."""
        ...

    def other_bytes(self) -> int:
        """Bytes of other state kept for later, such as a transaction."""
        ...

    def who(self) -> str:
        """The client's address, for the log."""
        ...

    def abort(self) -> None:
        """Close immediately."""
        ...


@dataclass(slots=True)
class _Held:
    """The memory of one connection at the last measurement, and the times of its last progress."""

    bytes: int = 0
    half_sent: int = 0
    commands_read: int = -1
    half_sent_since: float = 0.0
    unread: int = 0
    taken: int = -1
    unread_since: float = 0.0


class ClientMemory:
    """One for all ports of a replica. A connection calls `note` whenever it may use more memory."""

    def __init__(self, limits: MemoryLimits | None = None) -> None:
        self.limits = limits or MemoryLimits()
        self.held_bytes = 0
        """As of the last measurement of each connection: bytes read by clients since then are still counted."""
        self.closed = 0
        """The number of connections that were closed by these limits since the start."""
        self._held: dict[Holder, _Held] = {}
        self._closings = LogLimiter(log, lines_max=1)
        self._sweeping: asyncio.TimerHandle | None = None

    @property
    def _sweep_seconds(self) -> float:
        shortest = min(self.limits.half_sent_seconds_max, self.limits.unread_seconds_max)
        return min(_SWEEP_SECONDS_MAX, shortest / _SWEEPS_PER_TIME)

    def note(self, connection: Holder) -> None:
        """Measure a connection whose use of memory may have changed."""
        held = self._held.get(connection)
        if held is None:
            held = self._held[connection] = _Held()
            if self._sweeping is None:
                self._sweeping = asyncio.get_running_loop().call_later(self._sweep_seconds, self._sweep)
        self._measure(connection, held)
        if self.held_bytes > self.limits.client_memory_bytes_max:
            self._close_largest()

    def remove(self, one: Holder) -> None:
        """A connection is closed."""
        held = self._held.pop(one, None)
        if held is not None:
            self.held_bytes -= held.bytes

    def stop(self) -> None:
        """Cancel the periodic check."""
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _measure(self, one: Holder, held: _Held) -> None:
        held.half_sent, held.unread = one.half_sent_bytes(), one.unread_bytes()
        size = held.half_sent + held.unread + one.other_bytes()
        self.held_bytes += size - held.bytes
        held.bytes = size

    def _close_largest(self) -> None:
        """Close the connections that use most until the others are within the limit."""
        for one, held in self._held.items():
            self._measure(one, held)
        while self.held_bytes > self.limits.client_memory_bytes_max:
            one, held = max(self._held.items(), key=lambda item: item[1].bytes)
            self._closings.warning(
                "largest",
                "%s was disconnected: it held %d bytes, most of the %d that clients hold in half-sent commands and "
                "unread answers, over the limit of %d",
                one.who(),
                held.bytes,
                self.held_bytes,
                self.limits.client_memory_bytes_max,
            )
            self._close(one)

    def _close(self, one: Holder) -> None:
        self.remove(one)
        self.closed += 1
        one.abort()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self.check(loop.time())
        self._sweeping = loop.call_later(self._sweep_seconds, self._sweep) if self._held else None

    def check(self, now: float) -> None:
        """Close connections that make no progress, as of `now`; remove the entries of those that use no memory."""
        for one, held in list(self._held.items()):
            self._measure(one, held)
            if not held.half_sent or held.commands_read != one.commands_read():
                held.commands_read, held.half_sent_since = one.commands_read(), now
            if not held.unread or held.taken != one.taken_bytes():
                held.taken, held.unread_since = one.taken_bytes(), now
            late = self._why_late(held, now)
            if late is not None:
                self._closings.warning("slow", "%s was disconnected: %s", one.who(), late)
                self._close(one)
            elif not held.bytes:
                self.remove(one)

    def _why_late(self, held: _Held, now: float) -> str | None:
        limits = self.limits
        allowed = limits.half_sent_seconds_max + held.half_sent / _BYTES_PER_SECOND_MIN
        if now - held.half_sent_since > allowed:
            return f"{held.half_sent} bytes of a command were received, the rest did not follow within {allowed:.0f} s"
        if now - held.unread_since > limits.unread_seconds_max:
            seconds = limits.unread_seconds_max
            return f"write stalled; closing: {held.unread} bytes of answers were not read within {seconds:g} s"
        return None
