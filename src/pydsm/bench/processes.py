"""Reads the processor time and memory of processes from the operating system. None if it does not provide them."""

import os
import sys
import time
from pathlib import Path

_PROCESS_CLOCK = 2
"""Linux: the three low bits of a clock's number that select the time that a process has run, in nanoseconds."""
_HAS_PROCESS_CLOCKS = sys.platform == "linux"
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)
"""Fields of the first line of /proc/stat: user, nice, system, irq, softirq, steal."""


def cpu_seconds(pid: int) -> float | None:
    """User and system time of a running process, with all its threads."""
    if not _HAS_PROCESS_CLOCKS:
        return None
    try:
        return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)
    except OSError:
        return None


def resident_bytes(pid: int) -> int | None:
    """Resident memory of a running process."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def busy_seconds() -> float | None:
    """Time for which the cores of this machine have been busy, summed over all cores and programs."""
    try:
        fields = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
        return sum(int(fields[place]) for place in _BUSY_FIELDS) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None


def cores() -> int:
    """The number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
