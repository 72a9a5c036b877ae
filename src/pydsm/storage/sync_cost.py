"""Measures one durable write on this disk: the reference for every latency with storage on disk."""

import os
import tempfile
import time
from pathlib import Path
from statistics import median

from pydsm.core.types.errors import OperationalError

_BYTES = 4096


def sync_seconds(directory: Path, times: int = 50) -> float:
    """The median time in seconds of appending 4 KiB to a file in `directory` and making it durable.

    Raises OperationalError if the directory cannot be written to.
    """
    sync = getattr(os, "fdatasync", os.fsync)
    taken: list[float] = []
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            for _ in range(times):
                before = time.perf_counter()
                os.write(file.fileno(), bytes(_BYTES))
                sync(file.fileno())
                taken.append(time.perf_counter() - before)
    except OSError as error:
        raise OperationalError(f"cannot write to {directory}: {error.strerror or error}") from error
    return median(taken)
