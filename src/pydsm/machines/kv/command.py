"""The commands of the key-value machine: their table entries, and parsing of their words, with Redis's error texts."""

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
"""Executes a command. It checks everything before it changes anything: if it raises CommandFailed, nothing was changed.

Results are bytes (a string), str (a status such as OK), int, float, None (a missing value), list, dict, `Members`,
`Pairs`, or `NO_LIST`."""

Bulk = Callable[[Keyspace, Sequence[Words]], list[Result] | None]
"""Executes several consecutive commands of one name with the same effect as one by one; None if they must be executed
one by one. Only called while no key has an expiry or is watched."""

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_FLOAT = re.compile(
    rb"[+-]?(?:(?P<decimal>(?P<digits>[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    rb"|0[xX](?P<hexadecimal>[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?[0-9]+)?"
    rb"|(?P<infinite>[iI][nN][fF](?:[iI][nN][iI][tT][yY])?))"
)
"""The numbers that C's strtod accepts, without NaN and without leading spaces."""
_FLOAT_BYTES_MAX = 5 * 1024 - 1
"""Redis has this limit for numbers that are added; here it also applies to scores."""
_DECIMALS = Decimal(1).scaleb(-17)
_EXACT = Context(prec=1000, rounding=ROUND_HALF_EVEN)
_DECIMAL_MAX = Decimal("1e308")


class KeyAccess(Enum):
    """How a command may access its keys. This decides which commands it commutes with."""

    READ = auto()
    WRITE = auto()
    READ_ALL = auto()
    WRITE_ALL = auto()


_WRITING = frozenset((KeyAccess.WRITE, KeyAccess.WRITE_ALL))


class Touched(NamedTuple):
    """The keys of one command. A key that is read and written is in `writes`, and may be in `reads`."""

    reads: Sequence[bytes] = ()
    writes: Sequence[bytes] = ()
    barrier: bool = False


FIRST = slice(1, 2)
FIRST_TWO = slice(1, 3)
ALL = slice(1, None)
EVERY_SECOND = slice(1, None, 2)
NO_KEYS = slice(1, 1)
ANY = 1 << 30
"""No upper limit on the number of words."""


@dataclass(frozen=True, slots=True)
class Command:
    """One entry of the command table. Counts of words include the name.

    `keys` selects the words that are keys; all of them are accessed as `access` states. Where that is not sufficient,
    `touched` returns the keys from the words; for words that it cannot parse it returns no keys, and the command fails
    at execution.
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
    """Redis's error text for a command with too few or too many arguments."""
    return f"ERR wrong number of arguments for '{name.lower()}' command"


def too_long() -> CommandFailed:
    """Redis's error for a value that would be longer than the limit."""
    return CommandFailed("ERR string exceeds maximum allowed size (proto-max-bulk-len)")


def check_lengths(space: Keyspace, words: Words) -> None:
    """Raises CommandFailed for a word that is longer than a value may be."""
    if max(map(len, words)) > space.value_bytes_max:
        raise too_long()


def syntax_error() -> CommandFailed:
    """Redis's error for invalid options."""
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

    Also refuses numbers that are too large for a double, and nonzero numbers that are rounded to 0.
    """
    match = _FLOAT.fullmatch(word) if len(word) <= _FLOAT_BYTES_MAX else None
    if match is not None:
        number = _double(match)
        digits = match["digits"] or match["hexadecimal"] or b""
        if match["infinite"] or not (abs(number) == inf or (number == 0 and digits.strip(b"0."))):
            return number
    raise CommandFailed(otherwise)


def rounded_floating(word: bytes, otherwise: str) -> float:
    """The number as strtod alone parses it: empty means 0, leading spaces, a zero byte as the end, rounding to 0."""
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
    """The shortest text that parses to this number; whole numbers without a decimal point."""
    if number in (inf, -inf):
        return b"inf" if number > 0 else b"-inf"
    if number == int(number) and abs(number) < 1e17:
        return b"%d" % int(number)
    return repr(number).encode()


def add_decimals(old: bytes, amount: bytes, not_a_float: str, amount_not_a_float: str | None = None) -> bytes:
    """The sum of two numbers with 17 decimals, as INCRBYFLOAT writes it.

    Uses Decimal, because the result with a long double differs between computers. Raises CommandFailed.
    """
    addend = _decimal(amount, amount_not_a_float or not_a_float)
    start = _decimal(old, not_a_float)
    if start is None or addend is None or abs(total := _EXACT.add(start, addend)) > _DECIMAL_MAX:
        raise CommandFailed("ERR increment would produce NaN or Infinity")
    text = format(_EXACT.quantize(total, _DECIMALS), "f")
    text = text.rstrip("0").rstrip(".")
    return b"0" if text in {"-0", ""} else text.encode()


def is_infinite(word: bytes) -> bool:
    """Whether INCRBYFLOAT cannot add this number. Raises CommandFailed if it is not a number."""
    return _decimal(word, "ERR value is not a valid float") is None


def _decimal(word: bytes, otherwise: str) -> Decimal | None:
    """The number as a Decimal; None if it is infinite or too large for a double."""
    match = _FLOAT.fullmatch(word) if len(word) <= _FLOAT_BYTES_MAX else None
    if match is None:
        raise CommandFailed(otherwise)
    number = _double(match)
    if abs(number) == inf:
        return None
    if match["hexadecimal"] is not None:
        return Decimal(number)
    return Decimal(word.decode()) if number else Decimal(0)


def keys_after_count(words: Words, position: int) -> Sequence[bytes]:
    """The keys of a command whose number of keys is the word at `position`; none if that number is invalid."""
    if position >= len(words) or not words[position].isdigit():
        return ()
    return words[position + 1 : position + 1 + int(words[position][:9])]
