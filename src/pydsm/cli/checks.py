"""Checks of command line options; each message names the option, its value and the error."""

import itertools

from pydsm.core.types.errors import UsageError
from pydsm.transport.address import Address, parse_address

_EVERY_HOST = {"0.0.0.0", "::"}


def check_given(name: str, peers: str, ports: str, storage: bool) -> None:
    """Raises UsageError that lists all missing required options."""
    needed = {
        "--name NAME": name,
        "--peers r1=HOST:PORT,r2=...": peers,
        "--redis HOST:PORT or --native HOST:PORT": ports,
        "--data-dir DIR (or --storage memory)": storage,
    }
    missing = [option for option, given in needed.items() if not given]
    if missing:
        raise UsageError(
            f"missing: {', '.join(missing)}; give them as options, in the environment as PYDSM_NAME and so on, or in a "
            "file named by --config; see pydsm serve --help"
        )


def check_least(option: str, value: int, least: int) -> None:
    """Raises UsageError for a value that is too small."""
    if value < least:
        raise UsageError(f"{option} is {value}: give {least} or more")


def check_distinct(ports: dict[str, Address]) -> None:
    """Check that each port has a separate address. Raises UsageError."""
    for (first, one), (second, other) in itertools.combinations(ports.items(), 2):
        if one.port == other.port and (one.host == other.host or {one.host, other.host} & _EVERY_HOST):
            raise UsageError(f"{first} {one} and {second} {other} are the same port: give each one a separate port")


def address_of(option: str, text: str) -> Address:
    """The address in an option. Raises UsageError, with the option, for an invalid one."""
    try:
        return parse_address(text)
    except UsageError as fault:
        raise UsageError(f"{option}: {fault}") from fault
