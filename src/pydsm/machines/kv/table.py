"""The table of all commands, by name in capitals."""

from pydsm.machines.kv import expiry, hashes, inspection, keys, lists, sets, sorted_combinations, sorted_sets, strings
from pydsm.machines.kv.command import Command
from pydsm.machines.kv.transactions import make_commands

_FAMILIES = (strings, keys, inspection, expiry, hashes, lists, sets, sorted_sets, sorted_combinations)

COMMANDS: dict[bytes, Command] = {command.name: command for family in _FAMILIES for command in family.COMMANDS}
"""The commands that clients may send."""

EVERY_COMMAND = COMMANDS | {command.name: command for command in make_commands(COMMANDS)}
"""The commands of clients, and those that only servers send."""
