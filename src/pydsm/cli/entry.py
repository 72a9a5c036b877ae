"""Entry point of the `pydsm` command: sets up streams and signals before the rest is imported.

Guarantees that no signal and no missing stream during the start ends in a traceback, and that no file that is opened
later gets the descriptor of a standard stream, since log lines would be written into that file.
"""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TextIO

_STREAMS_BROKEN = frozenset((errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG))
FAILURE = 1
Handler = Callable[[int, FrameType | None], object]


def main() -> None:
    """The entry point of the `pydsm` command."""
    open_standard_streams()
    exit_on_signals()
    from pydsm.cli.main import run  # slow: a signal may arrive during the import

    _on_interrupt(signal.default_int_handler)
    status = run(sys.argv[1:])
    _on_interrupt(_exit_now)
    sys.exit(finished(status))


def open_standard_streams() -> None:
    """Open the descriptors 0, 1 and 2 if they are missing."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    # without the descriptors, the interpreter has created none of these streams
    if None in (sys.stdin, sys.stdout, sys.stderr):
        nowhere = Path(os.devnull).open("r+", encoding="utf-8")  # noqa: SIM115 - it stays open as long as the process
        sys.stdin, sys.stdout, sys.stderr = sys.stdin or nowhere, sys.stdout or nowhere, sys.stderr or nowhere


def exit_on_signals() -> None:
    """Let SIGINT and SIGTERM end the process with one line, until there is state to clean up."""
    _on_interrupt(_exit_now)
    signal.signal(signal.SIGTERM, _exit_now)


def _on_interrupt(handler: Handler) -> None:
    """Handle SIGINT, unless the parent process set it to be ignored, as shells do for background jobs."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def _exit_now(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"pydsm: stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


def is_stream_error(error: OSError) -> bool:
    """Whether an error means that a standard stream is not writable: its disk is full, or its reader has closed it."""
    return error.filename is None and error.errno in _STREAMS_BROKEN


def finished(status: int) -> int:
    """Flush the standard streams. Returns the status, or that of a failure if output is lost."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            redirect_to_null(stream)
            if stream is sys.stdout and not status:
                with contextlib.suppress(OSError):
                    print(f"pydsm: cannot write to standard output: {error.strerror}", file=sys.stderr)
                status = FAILURE
    return status


def redirect_to_null(stream: TextIO) -> None:
    """Redirect a stream that is not writable to the null device."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
