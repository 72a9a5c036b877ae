"""What the operating system knows of a process: processor time and memory. None where it cannot be asked."""

import os
import sys
import time
from pathlib import Path

_PROCESS_CLOCK = 2
"""Linux: in the three low bits of a clock's number, the time that a process has run, in nanoseconds."""
_HAS_PROCESS_CLOCKS = sys.platform == "linux"
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)
"""Of the first line of /proc/stat: user, nice, system, irq, softirq, steal."""


def cpu_seconds(pid: int) -> float | None:
    """User and system time of a running process with all its threads."""
    if not _HAS_PROCESS_CLOCKS:
        return None
    try:
        return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)
    except OSError:
        return None


def resident_bytes(pid: int) -> int | None:
    """Memory of a running process that is in RAM."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def busy_seconds() -> float | None:
    """Time that all cores of this machine together have worked, whoever for."""
    try:
        fields = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
        return sum(int(fields[place]) for place in _BUSY_FIELDS) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
