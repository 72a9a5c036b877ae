"""All commands, by name in capitals."""

from pydsm.machines.kv import expiry, keys, strings
from pydsm.machines.kv.command import Command
from pydsm.machines.kv.transactions import make_commands

COMMANDS: dict[bytes, Command] = {
    command.name: command for family in (strings, keys, expiry) for command in family.COMMANDS
}
"""What clients may send."""

EVERY_COMMAND = COMMANDS | {command.name: command for command in make_commands(COMMANDS)}
"""The same, and what servers send on their own."""
