"""Generates the requests: writes and reads of the key-value machine, the same for the same seed."""

import random
from dataclasses import dataclass

from pydsm.core.types.errors import UsageError
from pydsm.machines.kv import encode

_HOT = b"hot00000"
_DIGITS = 8
_VALUE_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class BenchmarkWorkload:
    """The mix of the requests. Raises UsageError for invalid values."""

    conflict: float = 0.0
    """Share of the requests on one hot key; all others have separate keys of 8 bytes."""
    reads: float = 0.0
    """Share of the requests that read."""
    value_bytes: int = 8
    keys: int = 0
    """Number of different keys; 0: a new key for each request of a run."""

    def __post_init__(self) -> None:
        if not 0 <= self.conflict <= 1:
            raise UsageError(f"the share of conflicts must be between 0 and 1, got {self.conflict:g}")
        if not 0 <= self.reads <= 1:
            raise UsageError(f"the share of reads must be between 0 and 1, got {self.reads:g}")
        if not 1 <= self.value_bytes <= _VALUE_BYTES_MAX:
            raise UsageError(f"values must have between 1 and {_VALUE_BYTES_MAX} bytes, got {self.value_bytes}")
        if not 0 <= self.keys < 10**_DIGITS:
            raise UsageError(f"there may be up to {10**_DIGITS - 1} keys, got {self.keys}")

    def requests(self, count: int, seed: int, first: int = 0) -> list[bytes]:
        """Create encoded requests. Separate keys are numbered from `first` on."""
        draw = random.Random(seed).random
        value = b"%0*d" % (self.value_bytes, seed) if self.value_bytes >= _DIGITS else b"v" * self.value_bytes
        keys, conflict, reads = self.keys, self.conflict, self.reads
        requests: list[bytes] = []
        for number in range(first, first + count):
            key = _HOT if conflict and draw() < conflict else b"%08d" % (number % keys if keys else number)
            requests.append(encode((b"GET", key) if reads and draw() < reads else (b"SET", key, value)))
        return requests

    def setting(self) -> dict[str, float | int]:
        """The setting for a result file."""
        return {"conflict": self.conflict, "reads": self.reads, "value_bytes": self.value_bytes, "keys": self.keys}
