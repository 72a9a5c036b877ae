"""A key-value store with Redis's commands.

Start reading at `machine`, then `keyspace` and `command`, then any group of commands: `strings`, `keys`, `expiry`, ...
"""

from pydsm.machines.kv.command import Command, KeyAccess, Touched, Words, wrong_number
from pydsm.machines.kv.machine import KeyValue, encode
from pydsm.machines.kv.table import COMMANDS
from pydsm.machines.kv.transactions import transaction
from pydsm.machines.kv.values import NO_LIST, Members, NoList, Pairs

__all__ = [
    "COMMANDS",
    "NO_LIST",
    "Command",
    "KeyAccess",
    "KeyValue",
    "Members",
    "NoList",
    "Pairs",
    "Touched",
    "Words",
    "encode",
    "transaction",
    "wrong_number",
]
