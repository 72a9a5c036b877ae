"""Free TCP ports for tests."""

from pydsm.cli.local_group import free_ports

__all__ = ["free_ports"]
