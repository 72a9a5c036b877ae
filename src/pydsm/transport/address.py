"""HOST:PORT as people write it."""

import errno
import os
import socket
from typing import NamedTuple

from pydsm.core.types.errors import OperationalError, UsageError

_HOST_CHARACTERS_MAX = 255
_PORT_DIGITS_MAX = 5
_PORT_MAX = 65_535
_SHOWN_CHARACTERS = 300


class Address(NamedTuple):
    """A TCP endpoint; an IPv6 host is written in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Raises UsageError for anything but HOST:PORT with a port in 1 .. 65535.

    A host is at most 255 characters, printable and without white space, as names and addresses are.
    """
    host, _, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    strange = len(host) > _HOST_CHARACTERS_MAX or not host.isprintable() or any(map(str.isspace, host))
    if not host or strange or not (port.isascii() and port.isdigit()):
        raise UsageError(
            f"{text[:_SHOWN_CHARACTERS]!r} is not an address: write HOST:PORT, like 127.0.0.1:7000 or [::1]:7000"
        )
    if len(port) > _PORT_DIGITS_MAX or not 1 <= int(port) <= _PORT_MAX:
        raise UsageError(f"{text[:_SHOWN_CHARACTERS]!r} has a port that does not exist: ports are 1 to {_PORT_MAX}")
    return Address(host, int(port))


def system_error_text(error: Exception) -> str:
    """The text of an error of the operating system or of ZeroMQ."""
    # Errors of name resolution have negative numbers, which `os.strerror` does not know.
    number: int | None = getattr(error, "errno", None)
    text: str | None = getattr(error, "strerror", None)
    return os.strerror(number) if number and number > 0 else text or str(error)


def cannot_listen(whom: str, address: Address, error: Exception) -> OperationalError:
    """The exception to raise if it is not possible to listen on an address, for `error` of the system or of ZeroMQ.

    `whom` names the clients of the port in the message.
    """
    if isinstance(error, socket.gaierror):
        remedy = "give a name or an address of this computer"
    else:
        remedy = _REMEDIES.get(getattr(error, "errno", None) or 0, "free the port or use another")
    return OperationalError(f"cannot listen for {whom} on {address}: {system_error_text(error)}; {remedy}")


_REMEDIES = {
    errno.EACCES: "ports below 1024 need more rights: use another",
    errno.EADDRNOTAVAIL: "this computer does not have that address: give one that it has, or 0.0.0.0 for all",
    errno.EMFILE: "this process may open too few files: raise its limit (ulimit -n)",
}
