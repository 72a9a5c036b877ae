"""What a command of the key-value machine is, and how its words are read, in Redis's words for what is wrong."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from enum import Enum, auto
from math import inf
from typing import NamedTuple

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.keyspace import Keyspace

Words = Sequence[bytes]
"""A command: its name in capitals, then its arguments."""

CommandFunction = Callable[[Keyspace, Words], Result]
"""Executes a command. It checks everything before it changes anything: whoever raises CommandFailed changed nothing.

Results are bytes (a string), str (a status such as OK), int, float, None (no such thing), list, dict, `Members`,
`Pairs`, or `NO_LIST`."""

Bulk = Callable[[Keyspace, Sequence[Words]], list[Result] | None]
"""Executes several of one command in a row, as one by one would; None where that must be done one by one. Only called
while no key expires or is watched."""

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_FLOAT = re.compile(
    rb"[+-]?(?:(?P<decimal>(?P<digits>[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    rb"|0[xX](?P<hexadecimal>[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?[0-9]+)?"
    rb"|(?P<infinite>[iI][nN][fF](?:[iI][nN][iI][tT][yY])?))"
)
"""What C's strtod takes, without NaN and without a space in front."""
_FLOAT_BYTES_MAX = 5 * 1024 - 1
"""Redis has this limit for what it adds to; a longer score is refused here too."""
_DECIMALS = Decimal(1).scaleb(-17)
_EXACT = Context(prec=1000, rounding=ROUND_HALF_EVEN)
_DECIMAL_MAX = Decimal("1e308")


class KeyAccess(Enum):
    """What a command may do to its keys. It decides what the command commutes with."""

    READ = auto()
    WRITE = auto()
    READ_ALL = auto()
    WRITE_ALL = auto()


_WRITING = frozenset((KeyAccess.WRITE, KeyAccess.WRITE_ALL))


class Touched(NamedTuple):
    """The keys of one command. One that is read and written stands among the written ones at least."""

    reads: Sequence[bytes] = ()
    writes: Sequence[bytes] = ()
    barrier: bool = False


FIRST = slice(1, 2)
FIRST_TWO = slice(1, 3)
ALL = slice(1, None)
EVERY_SECOND = slice(1, None, 2)
NO_KEYS = slice(1, 1)
ANY = 1 << 30
"""No upper limit to the number of words."""


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table. Counts of words include the name.

    `keys` says which words are keys, all of them read or written as `access` says. Where that is not enough, `touched`
    says it, from the words alone; words that it cannot read touch nothing, and are refused when they are executed.
    """

    name: bytes
    run: CommandFunction
    access: KeyAccess
    words_min: int
    words_max: int
    keys: slice
    summary: str
    group: str = "string"
    touched: Callable[[Words], Touched] | None = None
    bulk: Bulk | None = None
    made_by_servers: bool = False

    @property
    def writes(self) -> bool:
        """Whether it may change the state."""
        return self.access in _WRITING

    def takes(self, words: int) -> bool:
        """Whether a command may have this many words."""
        return self.words_min <= words <= self.words_max

    def touches(self, words: Words) -> Touched:
        """The keys of this command with these words."""
        if self.touched is not None:
            return self.touched(words)
        if self.access is KeyAccess.READ:
            return Touched(reads=words[self.keys])
        if self.access is KeyAccess.WRITE:
            return Touched(writes=words[self.keys])
        return Touched(barrier=True)


def wrong_number(name: str) -> str:
    """What Redis says to a command with too few or too many arguments."""
    return f"ERR wrong number of arguments for '{name.lower()}' command"


def too_long() -> CommandFailed:
    """What Redis says to a value that would be longer than its limit."""
    return CommandFailed("ERR string exceeds maximum allowed size (proto-max-bulk-len)")


def check_lengths(space: Keyspace, words: Words) -> None:
    """Raises CommandFailed for a word that is longer than a value may be."""
    if max(map(len, words)) > space.value_bytes_max:
        raise too_long()


def syntax_error() -> CommandFailed:
    """What Redis says to options that make no sense."""
    return CommandFailed("ERR syntax error")


def integer(word: bytes, otherwise: str = "ERR value is not an integer or out of range") -> int:
    """A signed number of 64 bits, written as Redis writes it. Raises CommandFailed for anything else."""
    if _INTEGER.fullmatch(word):
        number = int(word)
        if INT64_MIN <= number <= INT64_MAX:
            return number
    raise CommandFailed(otherwise)


def floating(word: bytes, otherwise: str = "ERR value is not a valid float") -> float:
    """A floating-point number, perhaps infinite, never NaN. Raises CommandFailed for anything else.

    Refuses as well what is too large for a double, or rounded to 0 without being 0.
    """
    match = _FLOAT.fullmatch(word) if len(word) <= _FLOAT_BYTES_MAX else None
    if match is not None:
        number = _double(match)
        digits = match["digits"] or match["hexadecimal"] or b""
        if match["infinite"] or not (abs(number) == inf or (number == 0 and digits.strip(b"0."))):
            return number
    raise CommandFailed(otherwise)


def rounded_floating(word: bytes, otherwise: str) -> float:
    """The same as strtod reads it alone: nothing for 0, spaces in front, a zero byte as the end, rounding to 0."""
    text = word.partition(b"\0")[0]
    if not text:
        return 0.0
    text = text.lstrip(b" \t\n\v\f\r")
    match = _FLOAT.fullmatch(text) if len(text) <= _FLOAT_BYTES_MAX else None
    if match is None:
        raise CommandFailed(otherwise)
    return _double(match)


def _double(match: re.Match[bytes]) -> float:
    word: bytes = match[0]
    if match["hexadecimal"] is None:
        return float(word)
    try:
        return float.fromhex(word.decode())
    except OverflowError:
        return -inf if word.startswith(b"-") else inf


def show_float(number: float) -> bytes:
    """The shortest text that reads back as this number; whole numbers without a point."""
    if number in (inf, -inf):
        return b"inf" if number > 0 else b"-inf"
    if number == int(number) and abs(number) < 1e17:
        return b"%d" % int(number)
    return repr(number).encode()


def add_decimals(old: bytes, amount: bytes, not_a_float: str, amount_not_a_float: str | None = None) -> bytes:
    """The sum of two numbers with 17 decimals, as INCRBYFLOAT writes it.

    Decimal, because what a long double gives differs from machine to machine. Raises CommandFailed.
    """
    addend = _decimal(amount, amount_not_a_float or not_a_float)
    start = _decimal(old, not_a_float)
    if start is None or addend is None or abs(total := _EXACT.add(start, addend)) > _DECIMAL_MAX:
        raise CommandFailed("ERR increment would produce NaN or Infinity")
    text = format(_EXACT.quantize(total, _DECIMALS), "f")
    text = text.rstrip("0").rstrip(".")
    return b"0" if text in {"-0", ""} else text.encode()


def is_infinite(word: bytes) -> bool:
    """Whether a number cannot be added as INCRBYFLOAT does. Raises CommandFailed for what is no number."""
    return _decimal(word, "ERR value is not a valid float") is None


def _decimal(word: bytes, otherwise: str) -> Decimal | None:
    """None for an infinite one, or one that is over every limit."""
    match = _FLOAT.fullmatch(word) if len(word) <= _FLOAT_BYTES_MAX else None
    if match is None:
        raise CommandFailed(otherwise)
    number = _double(match)
    if abs(number) == inf:
        return None
    if match["hexadecimal"] is not None:
        return Decimal(number)
    return Decimal(word.decode()) if number else Decimal(0)


def keys_after_count(words: Words, place: int) -> Sequence[bytes]:
    """The keys of a command that counts them at `place`; none when the count is wrong."""
    if place >= len(words) or not words[place].isdigit():
        return ()
    return words[place + 1 : place + 1 + int(words[place][:9])]
