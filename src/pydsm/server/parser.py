"""Parses the bytes of one connection into commands, in both forms of Redis: arrays of bulk strings, and lines.

Guarantees that a client cannot make this process store more or compute more than the limits allow: a command is parsed
once, into however many pieces its bytes are split, and no Python code runs for each byte. The meaning of commands is
left to `connection`.
"""

import re
from collections.abc import Sequence

from pydsm.core.types.errors import PeerProtocolError
from pydsm.server.limits import RespLimits

Words = Sequence[bytes]


class ProtocolError(PeerProtocolError):
    """The client violates the protocol: answer `str(error)` and close."""


class CommandTooLarge(PeerProtocolError):
    """A command exceeds a limit: answer `str(error)`. It is skipped; later commands are read as usual."""


_CLAIMED_BYTES_MAX = 512 << 20
"""An argument with a larger length is a protocol error; an argument over the limit, up to this length, is skipped."""
_CLAIMED_WORDS_MAX = (1 << 31) - 1

_LENGTH = re.compile(rb"0|-?[1-9][0-9]{0,17}")
_STAR, _DOLLAR = b"*"[0], b"$"[0]
_LINE_END = b"\r\n"

_LINE_WORD = re.compile(
    rb"""(?P<bare>[^ \t\r\n"']*)"""
    rb"""(?:"(?P<double>(?:[^"\\]|\\.)*)"(?=\s|$)|'(?P<single>(?:\\'|[^'\\]|\\(?!'))*)'(?=\s|$)|(?=[ \t\r\n]|$))\s*""",
    re.DOTALL,
)
"""A word of a line and the space behind it: unquoted text, then perhaps a quoted part that must end the word.

As in Redis, a vertical tab and a form feed are skipped between words and end quotes, but do not end a bare word."""
_GAP = re.compile(rb"[ \t\r\n]+")
_RARE_SPACE = b"\v\f"

_PLAIN_BULK_BYTES_MAX = 1024
_PLAIN_WORDS_MAX = 64
_PLAIN_WINDOW_BYTES = 1 << 16
_PLAIN_LINES_PER_COMMAND = 8
_BULK_HEADS = tuple(b"$%d" % length for length in range(_PLAIN_BULK_BYTES_MAX + 1))
_ARRAY_HEADS = {b"*%d" % count: count for count in range(1, _PLAIN_WORDS_MAX + 1)}

_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


class RequestParser:
    """`feed` received bytes, then `take` commands until there are none. Only `discard` may follow a ProtocolError."""

    def __init__(self, limits: RespLimits) -> None:
        self._limits = limits
        self._may_be_plain = (
            limits.bulk_bytes_max >= _PLAIN_BULK_BYTES_MAX
            and limits.arguments_max >= _PLAIN_WORDS_MAX
            and limits.query_buffer_bytes_max >= 2 * _PLAIN_WORDS_MAX * _PLAIN_BULK_BYTES_MAX
        )
        self._buffer = b""
        self._start = 0
        self._fresh: list[bytes] = []
        self._fresh_bytes = 0
        self._wanted_bytes = 0
        self._words: list[bytes] = []
        self._words_missing = 0
        self._command_bytes = 0
        self._complaint: str | None = None
        """Why the current command is too large: its bytes are skipped."""
        self._skipped_bytes_left = 0
        """Bytes of the current argument that are still to be skipped."""
        self._too_large: CommandTooLarge | None = None
        self.complete = 0
        """The number of complete commands so far."""

    @property
    def held_bytes(self) -> int:
        """Bytes that were fed and not returned."""
        return len(self._buffer) - self._start + self._fresh_bytes + self._command_bytes

    def feed(self, data: bytes) -> None:
        """Store received bytes."""
        self._fresh.append(data)
        self._fresh_bytes += len(data)

    def discard(self) -> None:
        """Discard everything that was fed and not returned."""
        self._buffer, self._start = b"", 0
        self._fresh.clear()
        self._fresh_bytes = self._wanted_bytes = 0
        self._words, self._words_missing, self._command_bytes = [], 0, 0
        self._complaint, self._skipped_bytes_left, self._too_large = None, 0, None

    def take(self, commands_max: int) -> list[Words]:
        """The next complete commands, at most `commands_max`, none of them empty; [] only if there are no more.

        Raises ProtocolError if the next bytes violate the protocol, CommandTooLarge if the next command is over a
        limit. Commands in front of these are returned first, and the next call raises.
        """
        if self._too_large is not None:
            error, self._too_large = self._too_large, None
            raise error
        self._join()
        commands = self._plain(commands_max)
        try:
            while len(commands) < commands_max:
                words = self._next()
                if words is None:
                    break
                if words:
                    commands.append(words)
        except ProtocolError:
            if not commands:
                raise
        except CommandTooLarge as error:
            if not commands:
                raise
            self._too_large = error
        self.complete += len(commands)
        if self._start == len(self._buffer):
            self._buffer, self._start = b"", 0
        return commands

    def _join(self) -> None:
        """Append received bytes to the buffer, as soon as they can complete the current argument."""
        held = len(self._buffer) - self._start
        if self._fresh and held + self._fresh_bytes >= self._wanted_bytes:
            self._buffer = b"".join((self._buffer[self._start :], *self._fresh))
            self._start = 0
            self._fresh.clear()
            self._fresh_bytes = 0
            self._wanted_bytes = 0

    def _plain(self, commands_max: int) -> list[Words]:
        """The next commands as long as they are plain: arrays of a few short words without line ends in them.

        Nearly all commands are plain, and splitting a whole window of them into lines takes a third of the time. The
        first other command is left to `_next`.
        """
        commands: list[Words] = []
        progress = self._may_be_plain and not self._words_missing and self._complaint is None
        while progress and len(commands) < commands_max:
            window = self._buffer[self._start : self._start + _PLAIN_WINDOW_BYTES]
            lines = window.split(_LINE_END, _PLAIN_LINES_PER_COMMAND * (commands_max - len(commands)))
            taken = _take_plain(lines, commands, commands_max)
            self._start += sum(map(len, lines[:taken])) + len(_LINE_END) * taken
            progress = taken > 0
        return commands

    def _next(self) -> Words | None:
        """The next command, without words if it is empty; None while it is incomplete."""
        if self._complaint is not None:
            self._skip()
            return None
        if self._words_missing:
            return self._array()
        buffer, start = self._buffer, self._start
        if start >= len(buffer):
            return None
        if buffer[start] != _STAR:
            return self._line()
        end = buffer.find(_LINE_END, start)
        if end < 0:
            self._refuse_long_line(start, "too big mbulk count string")
            return None
        line = buffer[start + 1 : end]
        count = int(line) if _LENGTH.fullmatch(line) else _CLAIMED_WORDS_MAX + 1
        if count > _CLAIMED_WORDS_MAX:
            raise ProtocolError("Protocol error: invalid multibulk length")
        self._start = end + 2
        if count <= 0:
            return ()
        self._words_missing, self._words, self._command_bytes = count, [], 0
        if count > self._limits.arguments_max:
            self._too_much(f"the command has {count} words, over the limit of {self._limits.arguments_max}")
            return None
        return self._array()

    def _array(self) -> Words | None:
        """Continue an array whose length is known."""
        buffer, start, size = self._buffer, self._start, len(self._buffer)
        words, missing, taken = self._words, self._words_missing, self._command_bytes
        complaint: str | None = None
        bulk_bytes_max, query_bytes_max = self._limits.bulk_bytes_max, self._limits.query_buffer_bytes_max
        try:
            while missing:
                end = buffer.find(_LINE_END, start)
                if end < 0:
                    self._refuse_long_line(start, "too big bulk count string")
                    return None
                begin = end + 2
                end = begin + _bulk_length(buffer, start, end)
                after = end + 2
                if end - begin > bulk_bytes_max:
                    complaint = (
                        f"the command has an argument of {end - begin} bytes, over the limit of {bulk_bytes_max} "
                        "(proto-max-bulk-len)"
                    )
                    break
                if taken + after - start > query_bytes_max:
                    complaint = (
                        f"the command has over {query_bytes_max} bytes, which is the limit (client-query-buffer-limit)"
                    )
                    break
                if after > size:
                    self._wanted_bytes = after - start
                    return None
                words.append(buffer[begin:end])
                taken += after - start
                start = after
                missing -= 1
        finally:
            self._start, self._words_missing, self._command_bytes = start, missing, taken
        self._words = []
        if complaint is not None:
            self._too_much(complaint)
            return None
        self._command_bytes = 0
        return words

    def _too_much(self, complaint: str) -> None:
        """Begin to skip the current command."""
        self._complaint = complaint
        self._words, self._command_bytes, self._skipped_bytes_left, self._wanted_bytes = [], 0, 0, 0
        self._skip()

    def _skip(self) -> None:
        """Skip to the end of a command that is too large. Raises CommandTooLarge at the end."""
        while self._skipped_bytes_left or self._words_missing:
            passed = min(self._skipped_bytes_left, len(self._buffer) - self._start)
            self._start += passed
            self._skipped_bytes_left -= passed
            if self._skipped_bytes_left or not self._words_missing:
                break
            end = self._buffer.find(_LINE_END, self._start)
            if end < 0:
                self._refuse_long_line(self._start, "too big bulk count string")
                break
            self._skipped_bytes_left = _bulk_length(self._buffer, self._start, end) + len(_LINE_END)
            self._words_missing -= 1
            self._start = end + len(_LINE_END)
        if not self._skipped_bytes_left and not self._words_missing:
            complaint, self._complaint = self._complaint, None
            raise CommandTooLarge(complaint)

    def _line(self) -> Words | None:
        end = self._buffer.find(b"\n", self._start)
        size = (end if end >= 0 else len(self._buffer)) - self._start
        if size > self._limits.line_bytes_max:
            raise ProtocolError(
                f"Protocol error: too big inline request: a line has over {self._limits.line_bytes_max} bytes"
            )
        if end < 0:
            return None
        words = split_line(self._buffer[self._start : end])
        self._start = end + 1
        return words

    def _refuse_long_line(self, start: int, complaint: str) -> None:
        if len(self._buffer) - start > self._limits.line_bytes_max:
            raise ProtocolError(f"Protocol error: {complaint}")


def _take_plain(lines: list[bytes], commands: list[Words], commands_max: int) -> int:
    """Add plain commands to `commands`, and return how many lines they have. The last line may be incomplete."""
    position, last = 0, len(lines) - 1
    while len(commands) < commands_max:
        count = _ARRAY_HEADS.get(lines[position])
        if count is None:
            break
        end = position + 1 + 2 * count
        if end > last:
            break
        words = lines[position + 2 : end : 2]
        try:
            if lines[position + 1 : end : 2] != [_BULK_HEADS[len(word)] for word in words]:
                break
        except IndexError:
            break
        commands.append(words)
        position = end
    return position


def _bulk_length(buffer: bytes, start: int, end: int) -> int:
    if buffer[start] != _DOLLAR:
        found = chr(buffer[start]) if 32 < buffer[start] < 127 else " "
        raise ProtocolError(f"Protocol error: expected '$', got '{found}'")
    line = buffer[start + 1 : end]
    length = int(line) if _LENGTH.fullmatch(line) else -1
    if not 0 <= length <= _CLAIMED_BYTES_MAX:
        raise ProtocolError("Protocol error: invalid bulk length")
    return length


def split_line(line: bytes) -> Words:
    """The words of an inline command. Raises ProtocolError for a closing quote that is missing or inside a word."""
    if b'"' not in line and b"'" not in line:
        if b"\v" not in line and b"\f" not in line:
            return line.split()
        return [word for part in _GAP.split(line) if (word := part.lstrip(_RARE_SPACE))]
    line = line.lstrip()
    words: list[bytes] = []
    position = 0
    while position < len(line):
        match = _LINE_WORD.match(line, position)
        if match is None:
            raise ProtocolError("Protocol error: unbalanced quotes in request")
        words.append(_unquoted(match))
        position = match.end()
    return words


def _unquoted(match: re.Match[bytes]) -> bytes:
    double, single, bare = match.group("double", "single", "bare")
    if double is not None:
        return bytes(bare + _ESCAPE.sub(_unescaped, double))
    if single is not None:
        return bytes(bare + single.replace(b"\\'", b"'"))
    return bytes(bare)


def _unescaped(match: re.Match[bytes]) -> bytes:
    digits, letter = match.groups()
    if digits is not None:
        return bytes.fromhex(digits.decode())
    return _ESCAPED.get(letter, letter)
