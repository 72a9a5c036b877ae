"""Native clients. Read `client`, then `link`; `load` puts a group under load and checks what it answers."""

from pydsm.client.blocking import BlockingClient
from pydsm.client.calls import Outcome
from pydsm.client.client import Client
from pydsm.client.limits import ClientLimits
from pydsm.client.outcomes import (
    Aborted,
    ClientClosed,
    NoReplica,
    NotDone,
    Overloaded,
    RequestExpired,
    SessionExpired,
    Unknown,
)

__all__ = [
    "Aborted",
    "BlockingClient",
    "Client",
    "ClientClosed",
    "ClientLimits",
    "NoReplica",
    "NotDone",
    "Outcome",
    "Overloaded",
    "RequestExpired",
    "SessionExpired",
    "Unknown",
]
