"""Time and random numbers inside commands: derived from what the group agreed on, so the same at every replica.

Guarantees that no two calls get the same numbers: each call carries random bits of its caller.
"""

import datetime
import hashlib
from random import Random
from typing import Any
from uuid import UUID

from pydsm.machines.declared.kinds import encode

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class AgreedValues:
    """What commands of one machine may use. The machine sets `timestamp_ms` and `call` before it executes a call."""

    __slots__ = ("_random", "_random_of", "call", "timestamp_ms")

    def __init__(self) -> None:
        self.timestamp_ms = 0
        self.call: Any = None
        """The call that is executed, a Struct; None while there is none."""
        self._random: Random | None = None
        self._random_of: Any = None

    @property
    def made_random(self) -> Random | None:
        """The source of this call, if it was used."""
        return self._random

    @property
    def now(self) -> datetime.datetime:
        """The agreed time."""
        return _EPOCH + datetime.timedelta(milliseconds=self.timestamp_ms)

    @property
    def random(self) -> Random:
        """The source of this call."""
        if self._random is None or self._random_of is not self.call:
            seed = hashlib.blake2b(b"%d " % self.timestamp_ms + encode(self.call), digest_size=16).digest()
            self._random, self._random_of = Random(int.from_bytes(seed, "big")), self.call
        return self._random

    def uuid(self) -> UUID:
        """A new UUID, version 4."""
        return UUID(int=self.random.getrandbits(128), version=4)
