"""PyDSM: Egalitarian Paxos for Python. Any state machine, replicated without a leader.

The names here are the public ones, with `pydsm.blocking` and `pydsm.testing`; docs/reference/api.md describes them.
"""

from typing import TYPE_CHECKING, Any

from pydsm.version import __version__

if TYPE_CHECKING:
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
    from pydsm.core.types.errors import OperationalError, PyDSMError, UsageError
    from pydsm.library.connection import Connection, connect
    from pydsm.library.replica import Replica
    from pydsm.machines.declared.declaration import StateMachine
    from pydsm.machines.declared.guard import NotDeterministic
    from pydsm.machines.declared.kinds import DeclarationError
    from pydsm.machines.declared.methods import command, everything, query
    from pydsm.machines.declared.results import CommandError, NotAvailable

_MODULES = {
    "pydsm.client.outcomes": (
        "ClientClosed",
        "CommandAborted",
        "CommandNotCompleted",
        "NoReplicaReachable",
        "OutcomeUnknown",
        "ReplicaOverloaded",
        "RequestExpiredError",
        "SessionExpiredError",
    ),
    "pydsm.core.types.errors": ("OperationalError", "PyDSMError", "UsageError"),
    "pydsm.library.connection": ("Connection", "connect"),
    "pydsm.library.replica": ("Replica",),
    "pydsm.machines.declared.declaration": ("StateMachine",),
    "pydsm.machines.declared.guard": ("NotDeterministic",),
    "pydsm.machines.declared.kinds": ("DeclarationError",),
    "pydsm.machines.declared.methods": ("command", "everything", "query"),
    "pydsm.machines.declared.results": ("CommandError", "NotAvailable"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ClientClosed",
    "CommandAborted",
    "CommandError",
    "CommandNotCompleted",
    "Connection",
    "DeclarationError",
    "NoReplicaReachable",
    "NotAvailable",
    "NotDeterministic",
    "OperationalError",
    "OutcomeUnknown",
    "PyDSMError",
    "Replica",
    "ReplicaOverloaded",
    "RequestExpiredError",
    "SessionExpiredError",
    "StateMachine",
    "UsageError",
    "__version__",
    "command",
    "connect",
    "everything",
    "query",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is used first: the command line starts faster without them."""
    from importlib import import_module  # noqa: PLC0415

    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'pydsm' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
