"""What all ports for clients of one replica have in common."""

import logging
from dataclasses import dataclass, field

from pydsm.server.descriptors import ClientCount
from pydsm.server.memory import ClientMemory
from pydsm.server.silent import SilentConnections, SilentLimits

log = logging.getLogger("pydsm.serve")

_CLIENTS_MAX = 20_000


@dataclass(slots=True)
class SharedServerState:
    """`reason` says why the replica is not ready, None when it is; `refusal` why no command is taken, None if one is.

    Both are kept up to date by whoever runs the replica.
    """

    clients: ClientCount = field(default_factory=lambda: ClientCount(_CLIENTS_MAX))
    memory: ClientMemory = field(default_factory=ClientMemory)
    silent: SilentConnections = field(default_factory=lambda: SilentConnections(SilentLimits(), log))
    reason: str | None = None
    refusal: str | None = None
