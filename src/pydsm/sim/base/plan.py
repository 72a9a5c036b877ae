"""The plan of one run: every fault and every client operation, with its time, fixed before the run begins.

A plan is data. It can be saved, run again, and shrunk by leaving elements out. It is the only source of faults and
operations. Delays of single messages are not in it: each link draws them from a separate random stream (see
`devices.network`), so leaving out one element hardly changes the rest of the run.
"""

import msgspec

from pydsm.sim.base.settings import Settings
from pydsm.sim.base.triggers import Links, MessageTrigger


class Crash(msgspec.Struct, frozen=True, tag="crash"):
    """A replica crashes between two events and loses what it had not synced. It starts again `down_us` later."""

    at_us: int
    replica: int
    down_us: int


class CrashInside(msgspec.Struct, frozen=True, tag="crash-inside"):
    """A replica crashes while it performs its effects: at the `calls`-th call to disk, network or machine."""

    at_us: int
    replica: int
    calls: int
    down_us: int


class PowerCut(msgspec.Struct, frozen=True, tag="power-cut"):
    """All replicas crash at the same time; replica number i starts again `down_us[i]` later."""

    at_us: int
    down_us: tuple[int, ...]


class Pause(msgspec.Struct, frozen=True, tag="pause"):
    """A replica handles nothing for a while; messages that arrive wait, or are lost if `deaf`."""

    at_us: int
    replica: int
    lasting_us: int
    deaf: bool


class Cut(msgspec.Struct, frozen=True, tag="cut"):
    """Messages on these links are lost: a partition, in one or both directions."""

    at_us: int
    lasting_us: int
    links: Links


class SlowLinks(msgspec.Struct, frozen=True, tag="slow-links"):
    """Messages on these links take `extra_us` longer."""

    at_us: int
    lasting_us: int
    links: Links
    extra_us: int


class Storm(msgspec.Struct, frozen=True, tag="storm"):
    """The whole network loses and duplicates more messages than usual."""

    at_us: int
    lasting_us: int
    loss: float
    duplication: float


class SlowDisk(msgspec.Struct, frozen=True, tag="slow-disk"):
    """Durable writes of a replica take this long."""

    at_us: int
    lasting_us: int
    replica: int
    sync_us: int


class ClockRate(msgspec.Struct, frozen=True, tag="clock"):
    """From now on a replica's clock runs at this speed."""

    at_us: int
    replica: int
    rate: float


class ClockJump(msgspec.Struct, frozen=True, tag="clock-jump"):
    """From now on a replica's wall clock is wrong: it is off by `offset_ms` and runs at speed `rate`."""

    at_us: int
    replica: int
    offset_ms: int
    rate: float = 1.0


class Death(msgspec.Struct, frozen=True, tag="death"):
    """A replica crashes and never starts again, not even after the heal.

    At most f replicas of a group do so. Further ones start again at the heal.
    """

    at_us: int
    replica: int


class PutBack(msgspec.Struct, frozen=True, tag="put-back"):
    """A replica's disk is copied; `lasting_us` later the replica crashes and starts again from that copy."""

    at_us: int
    replica: int
    lasting_us: int
    down_us: int


Fault = (
    Crash
    | CrashInside
    | PowerCut
    | Pause
    | Cut
    | SlowLinks
    | Storm
    | SlowDisk
    | ClockRate
    | ClockJump
    | Death
    | MessageTrigger
    | PutBack
)


class Operation(msgspec.Struct, frozen=True):
    """A client sends a command to a replica, at this time or when its previous operation has ended."""

    at_us: int
    client: int
    replica: int
    command: bytes


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that one run needs, besides the tested code."""

    settings: Settings
    faults: tuple[Fault, ...]
    operations: tuple[Operation, ...]

    def __len__(self) -> int:
        return len(self.faults) + len(self.operations)
