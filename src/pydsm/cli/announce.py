"""The status lines that `pydsm serve` prints on standard output."""

import contextlib
import logging
import os
import sys

from pydsm.cli.entry import redirect_to_null

log = logging.getLogger("pydsm.serve")

LISTENING = "listening"
"""The word in the output line of a replica that has opened its ports."""
READY = "ready"
"""The word in the output line of a replica that has a majority and serves clients."""


def announce(line: str) -> None:
    """Print a line; if standard output is not writable, log a warning and continue."""
    try:
        print(line, flush=True)
    except OSError as error:
        log.warning("cannot write to standard output (%s); continuing without it: %s", error.strerror, line)
        redirect_to_null(sys.stdout)


def exit_immediately(status: int) -> None:
    """End this process during its start. No cleanup is needed: the data directory is unchanged."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)
