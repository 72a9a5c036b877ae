"""Native clients. Read `client`, then `link`; `load` puts a group under load and checks what it answers."""

from pydsm.client.blocking import BlockingClient
from pydsm.client.calls import CallOutcome
from pydsm.client.client import Client
from pydsm.client.limits import ClientLimits
from pydsm.client.outcomes import (
    ClientClosed,
    CommandAborted,
    CommandNotCompleted,
    NoReplicaReachable,
    OutcomeUnknown,
    ReplicaOverloaded,
    RequestExpiredError,
    SessionExpiredError,
)

__all__ = [
    "BlockingClient",
    "CallOutcome",
    "Client",
    "ClientClosed",
    "ClientLimits",
    "CommandAborted",
    "CommandNotCompleted",
    "NoReplicaReachable",
    "OutcomeUnknown",
    "ReplicaOverloaded",
    "RequestExpiredError",
    "SessionExpiredError",
]
