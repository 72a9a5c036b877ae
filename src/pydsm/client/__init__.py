"""Native clients. Start reading with `client`, then `link`."""

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
