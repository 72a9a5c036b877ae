"""What is measured: a group that runs, and what is known of its processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydsm.bench.resp import ask, encode_command
from pydsm.core.types.errors import OperationalError, PeerProtocolError
from pydsm.transport.address import Address

_INFO_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """A group under measurement; whoever made it also ends it."""

    clients: Sequence[Address]
    """Where native clients connect, by replica."""
    redis: Sequence[Address] = ()
    """Where Redis clients connect, by replica; none when they are not known, and then there are no counters."""
    pids: Sequence[int] = ()
    """The replicas' processes, where they run on this machine and are known."""
    data: Sequence[Path] = ()
    """The replicas' data directories, where they are on this machine and known."""
    setting: dict[str, str | int | float | bool] = field(default_factory=dict)
    """How the group is set up, for the result file."""


async def counters(target: Target) -> list[dict[str, int]]:
    """What INFO of each replica counts. Raises OperationalError when one does not answer."""
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
