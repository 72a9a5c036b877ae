"""The lines by which `pydsm serve` tells on its standard output how far it is."""

import contextlib
import logging
import os
import sys

from pydsm.cli.entry import give_up

log = logging.getLogger("pydsm.serve")

LISTENING = "listening"
"""The word by which a replica that has opened its ports can be told in its output."""
READY = "ready"
"""The word by which a replica that has a majority, and serves clients, can be told in its output."""


def announce(line: str) -> None:
    """Print a line; a standard output that takes nothing is no reason not to serve."""
    try:
        print(line, flush=True)
    except OSError as error:
        log.warning("cannot write to standard output (%s), and goes on without it: %s", error.strerror, line)
        give_up(sys.stdout)


def leave_at_once(status: int) -> None:
    """End this process while it starts. Nothing has to be put in order: the data are those of the last time."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)
