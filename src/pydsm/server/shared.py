"""The state that all client ports of one replica share."""

import logging
from dataclasses import dataclass, field

from pydsm.server.descriptors import ClientCount
from pydsm.server.memory import ClientMemory
from pydsm.server.silent import SilentConnections, SilentLimits

log = logging.getLogger("pydsm.serve")

_CLIENTS_MAX = 20_000


@dataclass(slots=True)
class SharedServerState:
    """`reason`: why the replica is not ready, None if it is; `refusal`: why commands are refused, None if they are not.

    Both are updated by the program that runs the replica (`availability`).
    """

    clients: ClientCount = field(default_factory=lambda: ClientCount(_CLIENTS_MAX))
    memory: ClientMemory = field(default_factory=ClientMemory)
    silent: SilentConnections = field(default_factory=lambda: SilentConnections(SilentLimits(), log))
    reason: str | None = None
    refusal: str | None = None
