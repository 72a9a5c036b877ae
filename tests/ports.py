"""Free TCP ports for tests."""

import random
import socket


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on, below those that outgoing connections are given."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(10_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports
