"""Helpers for tests of the key-value machine."""

from pydsm.machines.base import CommandFailed, Result, StateMachine
from pydsm.machines.kv import encode

NOW_MS = 1_700_000_000_000


def parse(line: str) -> bytes:
    """Parse a command; _ stands for an empty word."""
    return encode([b"" if word == "_" else word.encode() for word in line.split(" ")])


def run(machine: StateMachine, *lines: str, at_ms: int = NOW_MS) -> list[Result]:
    """Execute one batch. Returns the results, with the texts of failures."""
    return plain(machine, [parse(line) for line in lines], at_ms)


def plain(machine: StateMachine, commands: list[bytes], at_ms: int = NOW_MS) -> list[Result]:
    """Like `run`, for encoded commands."""
    machine.footprint(commands)
    return [_text(result) for result in machine.apply(commands, at_ms)]


def _text(result: Result) -> Result:
    if isinstance(result, CommandFailed):
        return f"!{result.message}"
    return [_text(item) for item in result] if type(result) is list else result
