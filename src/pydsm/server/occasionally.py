"""Lines of the log that strangers can cause: each kind at most every few seconds, with how many were left out."""

import logging
import time
from collections.abc import Callable

_SECONDS = 10.0


class Occasionally:
    """One kind of line."""

    def __init__(
        self, log: logging.Logger, seconds: float = _SECONDS, now_seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._seconds = seconds
        self._now_seconds = now_seconds
        self._next = float("-inf")
        self._left_out = 0

    def warn(self, text: str, *arguments: object) -> None:
        """Write the line, unless one of its kind was written a moment ago."""
        now = self._now_seconds()
        if now < self._next:
            self._left_out += 1
            return
        if self._left_out:
            text += " (and %d more like it before)"
            arguments = (*arguments, self._left_out)
        self._next, self._left_out = now + self._seconds, 0
        self._log.warning(text, *arguments)
