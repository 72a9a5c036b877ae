"""The measured group, and the known properties of its processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydsm.bench.resp import ask, encode_command
from pydsm.core.types.errors import OperationalError, PeerProtocolError
from pydsm.transport.address import Address

_INFO_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """A running group to measure. Its creator also ends it."""

    clients: Sequence[Address]
    """The addresses for native clients, by replica."""
    redis: Sequence[Address] = ()
    """The addresses for Redis clients, by replica; empty if they are unknown: then no counters are read."""
    pids: Sequence[int] = ()
    """The process ids of the replicas, if they run on this machine and are known."""
    data: Sequence[Path] = ()
    """The replicas' data directories, if they are on this machine and known."""
    setting: dict[str, str | int | float | bool] = field(default_factory=dict)
    """The setting of the group, for the result file."""


async def counters(target: Target) -> list[dict[str, int]]:
    """The counters in INFO of each replica. Raises OperationalError if a replica does not answer."""
    return [await _counters(address) for address in target.redis]


async def _counters(address: Address) -> dict[str, int]:
    try:
        (info,) = await ask(address, encode_command(b"INFO"), seconds_max=_INFO_SECONDS_MAX)
    except (OSError, PeerProtocolError) as error:
        raise OperationalError(
            f"the replica at {address} does not answer INFO: {error or type(error).__name__}; see its log"
        ) from error
    pairs = (line.partition(":") for line in info.decode().splitlines()) if isinstance(info, bytes) else ()
    return {name: int(value) for name, _, value in pairs if value.isdigit()}
