"""Commands on the expiry of keys. All times are computed from the agreed time of the command's batch."""

from collections.abc import Callable

from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv.command import ANY, FIRST, INT64_MAX, Command, KeyAccess, Words, integer
from pydsm.machines.kv.keyspace import Keyspace

_MS = {b"EX": 1000, b"PX": 1, b"EXAT": 1000, b"PXAT": 1}
_NO_KEY, _NEVER = -2, -1


def deadline_ms(space: Keyspace, command: str, unit: bytes, word: bytes) -> int:
    """The Unix time in ms of `word` in a unit EX, PX, EXAT or PXAT. Raises CommandFailed unless it is above 0."""
    amount = integer(word)
    at_ms = amount * _MS[unit] + (space.now_ms if unit in {b"EX", b"PX"} else 0)
    if amount <= 0 or at_ms > INT64_MAX:
        raise CommandFailed(f"ERR invalid expire time in '{command}' command")
    return at_ms


def _expiring(unit: bytes) -> Callable[[Keyspace, Words], Result]:
    """EXPIRE and its variants: a time in the past removes the key."""
    scale, relative = _MS[unit], unit in {b"EX", b"PX"}

    def run(space: Keyspace, words: Words) -> Result:
        options = _options(words[3:])
        key, amount = words[1], integer(words[2])
        at_ms = amount * scale + (space.now_ms if relative else 0)
        if not -INT64_MAX <= amount * scale <= INT64_MAX or at_ms > INT64_MAX:
            raise CommandFailed(f"ERR invalid expire time in '{words[0].decode().lower()}' command")
        if space.get(key) is None or not _wanted(space.expiry_ms(key), at_ms, options):
            return 0
        space.set_expiry(key, at_ms)
        return 1

    return run


def _options(words: Words) -> set[bytes]:
    options = {word.upper() for word in words}
    for word in words:
        if word.upper() not in {b"NX", b"XX", b"GT", b"LT"}:
            raise CommandFailed(f"ERR Unsupported option {word[:128].decode(errors='backslashreplace')}")
    if b"NX" in options and len(options) > 1:
        raise CommandFailed("ERR NX and XX, GT or LT options at the same time are not compatible")
    if {b"GT", b"LT"} <= options:
        raise CommandFailed("ERR GT and LT options at the same time are not compatible")
    return options


def _wanted(old_ms: int | None, new_ms: int, options: set[bytes]) -> bool:
    """Whether the options allow the new expiry to replace the old one; no expiry counts as the latest."""
    if b"NX" in options and old_ms is not None:
        return False
    if b"XX" in options and old_ms is None:
        return False
    if b"GT" in options and (old_ms is None or new_ms <= old_ms):
        return False
    return not (b"LT" in options and old_ms is not None and new_ms >= old_ms)


def _left(scale: int, *, absolute: bool) -> Callable[[Keyspace, Words], Result]:
    """TTL and its variants; seconds are rounded."""

    def run(space: Keyspace, words: Words) -> Result:
        if space.get(words[1]) is None:
            return _NO_KEY
        at_ms = space.expiry_ms(words[1])
        if at_ms is None:
            return _NEVER
        amount = at_ms if absolute else at_ms - space.now_ms
        return amount if scale == 1 else (amount + scale // 2) // scale

    return run


def _persist(space: Keyspace, words: Words) -> Result:
    if space.get(words[1]) is None or space.expiry_ms(words[1]) is None:
        return 0
    space.set_expiry(words[1], None)
    return 1


_WRITE, _READ, _GROUP = KeyAccess.WRITE, KeyAccess.READ, "generic"

COMMANDS = (
    Command(b"EXPIRE", _expiring(b"EX"), _WRITE, 3, ANY, FIRST, "Sets an expiry in seconds.", _GROUP),
    Command(b"PEXPIRE", _expiring(b"PX"), _WRITE, 3, ANY, FIRST, "Sets an expiry in milliseconds.", _GROUP),
    Command(b"EXPIREAT", _expiring(b"EXAT"), _WRITE, 3, ANY, FIRST, "Sets an expiry as a Unix time in s.", _GROUP),
    Command(b"PEXPIREAT", _expiring(b"PXAT"), _WRITE, 3, ANY, FIRST, "Sets an expiry as a Unix time in ms.", _GROUP),
    Command(b"TTL", _left(1000, absolute=False), _READ, 2, 2, FIRST, "Returns the seconds until expiry.", _GROUP),
    Command(b"PTTL", _left(1, absolute=False), _READ, 2, 2, FIRST, "Returns the ms until expiry.", _GROUP),
    Command(b"EXPIRETIME", _left(1000, absolute=True), _READ, 2, 2, FIRST, "Returns the expiry in s.", _GROUP),
    Command(b"PEXPIRETIME", _left(1, absolute=True), _READ, 2, 2, FIRST, "Returns the expiry in ms.", _GROUP),
    Command(b"PERSIST", _persist, _WRITE, 2, 2, FIRST, "Removes the expiry of a key.", _GROUP),
)
