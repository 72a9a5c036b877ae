"""Safe logging of texts and events that come from outside: escaping and rate limits, for every package.

Guarantees that a client that can send bytes to a port cannot forge a log line, send control sequences to the terminal
of a log's reader, or fill the disk with lines.
"""

import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

_ELLIPSIS = "..."


def printable(text: str, characters_max: int = 200) -> str:
    r"""The text on one line, without control sequences for terminals, and with at most `characters_max` characters.

    Line breaks, control characters, invisible and direction-changing characters become `\x..`, `\u....`.
    Escaping an escaped text does not change it.
    """
    # Cut before escaping too: escaping ten megabytes to keep two hundred characters would cost seconds.
    shown = "".join(map(_escaped, text[: characters_max + 1]))
    return shown if len(shown) <= characters_max else shown[: max(0, characters_max - len(_ELLIPSIS))] + _ELLIPSIS


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@dataclass(slots=True)
class _Window:
    """Counts of lines written and left out since `began_seconds`."""

    began_seconds: float
    written: int = 0
    left_out: int = 0


class LogLimiter:
    """Writes log lines that unauthenticated peers can cause: a few of each kind in a period, with a count of the rest.

    A kind is any hashable value, for example the source address and the reason. At most `lines_max` lines of one kind
    are written in `period_seconds`, and at most `total_max` of all kinds together; the next line that is written ends
    with the number of lines left out. Memory is limited by `kinds_max`; the kind seen first is dropped for a new one.
    """

    def __init__(
        self,
        log: logging.Logger,
        *,
        lines_max: int = 3,
        total_max: int = 30,
        period_seconds: float = 10.0,
        kinds_max: int = 256,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._lines_max = lines_max
        self._total_max = total_max
        self._period_seconds = period_seconds
        self._kinds_max = kinds_max
        self._clock = clock
        self._kinds: dict[Hashable, _Window] = {}
        self._all = _Window(clock())

    def warning(self, kind: Hashable, text: str, *arguments: object) -> None:
        """Write a warning, unless a limit is reached."""
        self._write(logging.WARNING, kind, text, arguments)

    def info(self, kind: Hashable, text: str, *arguments: object) -> None:
        """Write an informational line, unless a limit is reached."""
        self._write(logging.INFO, kind, text, arguments)

    def _write(self, level: int, kind: Hashable, text: str, arguments: tuple[object, ...]) -> None:
        now = self._clock()
        window, total = self._window(kind, now), self._all
        if now - total.began_seconds >= self._period_seconds:
            total.began_seconds, total.written = now, 0
        if window.written >= self._lines_max or total.written >= self._total_max:
            window.left_out += 1
            total.left_out += 1
            return
        window.written += 1
        total.written += 1
        if total.left_out:
            text += " (and %d lines left out before, %d of them like this one)"
            arguments = (*arguments, total.left_out, window.left_out)
            total.left_out = window.left_out = 0
        self._log.log(level, text, *arguments)

    def _window(self, kind: Hashable, now: float) -> _Window:
        window = self._kinds.get(kind)
        if window is None:
            if len(self._kinds) >= self._kinds_max:
                del self._kinds[next(iter(self._kinds))]
            window = self._kinds[kind] = _Window(now)
        elif now - window.began_seconds >= self._period_seconds:
            window.began_seconds, window.written = now, 0
        return window
